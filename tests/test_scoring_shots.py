"""Several shots of an identity are scored without showing an image on both sides."""

import numpy as np
import pytest
import smoke

from kd_jax import data, embedding, parallel, scoring
from kd_jax.data.records import select
from kd_jax.retrieval import items

OPTIONS = {'protocol': 'market', 'same_camera': 'drop', 'metric': 'cosine', 'frames': 8}
OPTIONS |= {'reranked': None, 'expanded': None, 'shots': 3, 'shots_of': 'identity', 'batch': 256}


@pytest.fixture(scope='module')
def dataset():
    return data.load(**smoke.config().data)


def assert_found(found, expected):
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_several_shots_are_of_the_true_identity(dataset):
    """A network that sees who someone is, of any one of several shots, makes no mistake."""
    numbers = {}
    for split in (dataset.query, dataset.gallery):
        for image, pid in zip(split.pixels.array, split.records.pids):
            numbers[image.tobytes()] = int(pid)

    def embedded(variables, images):
        seen = np.array([[numbers[image.tobytes()] for image in shots] for shots in images])
        assert seen.shape[1] == 3
        assert (seen == seen[:, :1]).all()
        return np.eye(600, dtype=np.float32)[seen[:, 1]]

    found = scoring.score(embedded, {}, dataset, parallel.mesh(), **OPTIONS)
    assert_found(found, {'mAP': 1, 'mINP': 1, 'rank-1': 1, 'shots': 3})


CHANCE = {'veri_image': 'apart', 'market': 'apart', 'vehicleid': 'pool', 'cuhk03_classic': 'pool'}


@pytest.mark.parametrize('protocol', CHANCE)
def test_shots_show_no_image_on_both_sides(dataset, protocol):
    """Features that know the image and nothing else stay at chance, however many shots."""
    rng, known = np.random.default_rng(0), {}

    def embedded(variables, images):
        names = [
            [known.setdefault(shot.tobytes(), len(known)) for shot in shots] for shots in images
        ]
        return table[np.array(names)].mean(axis=1)

    table = rng.normal(size=(1000, 64)).astype(np.float32)
    pool = CHANCE[protocol] == 'pool'
    shown = dataset._replace(query=dataset.gallery) if pool else dataset
    options = {'protocol': protocol, 'same_camera': 'keep' if pool else 'drop'}
    options['shots_of'] = 'image' if pool else 'identity'
    images = {'apart': 24, 'pool': 168}[CHANCE[protocol]]
    found = scoring.score(
        lambda variables, images: embedded(variables, np.asarray(images)),
        {},
        shown,
        parallel.mesh(),
        **OPTIONS | options,
    )
    assert found['queries'] <= images
    assert found['mAP'] < 0.5


def test_shots_on_both_sides_are_refused(dataset):
    """Of a pool, and where the gallery has the queries' files."""
    test = items.together(dataset.query.records, dataset.gallery.records)
    embedding.check_shots(test, 3, 'identity')
    pool = items.together(dataset.gallery.records, dataset.gallery.records)
    gallery = dataset.gallery.records
    twin = select(gallery, np.arange(5))
    twin = twin._replace(paths=np.char.replace(twin.paths, 'gallery/', 'query/'))
    for shared in (pool, items.together(twin, gallery)):
        with pytest.raises(ValueError, match=r'on both sides, .*set evaluate\.shots_of=image'):
            embedding.check_shots(shared, 3, 'identity')
        embedding.check_shots(shared, 3, 'image')
        embedding.check_shots(shared, 1, 'identity')
    with pytest.raises(ValueError, match=r"shots_of='id': choose one of identity, image"):
        embedding.check_shots(test, 1, 'id')
