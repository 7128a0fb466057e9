"""Listed images are read and embedded as a run's evaluation does it."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import photos
import pytest
import smoke
from PIL import Image

from kd_jax import checkpoints, data, embedding, evaluate, own_images, parallel, recipes, runs
from kd_jax.data import listing
from kd_jax.data.records import DataError


def embedded(network, images, **options):
    options = {'dtype': 'float32', 'batch': 32} | options
    starts = range(0, len(images.paths), own_images.PART)
    return list(own_images.parts(network, images, starts, **options))


def plant_split(folder, split):
    """The images of a split as files, in its order."""
    rows = np.arange(len(split.records.pids))
    for row, pixels in zip(rows, split.pixels.read(rows)):
        Image.fromarray(pixels).save(folder / f'{row:04d}.png')
    return rows


def test_embeddings_are_those_of_the_evaluation(tmp_path):
    query = data.load(**smoke.config('supervised_carousel').data).query
    rows = plant_split(tmp_path, query)
    restored, mesh = checkpoints.restore_network(photos.run()), parallel.mesh()
    compiled, variables = evaluate.opened(restored, mesh)
    wanted = embedding.embed_rows(
        lambda images: compiled(variables, images), query.pixels.read, rows[:, None], 32, mesh
    )
    (part,) = embedded(photos.network(), listing.listed(tmp_path))
    np.testing.assert_array_equal(part.vectors, wanted)
    assert part.rows.tolist() == rows.tolist()
    assert part.bad == {}


def test_parts_and_batches_do_not_matter(tmp_path, monkeypatch):
    photos.plant(tmp_path)
    images = listing.listed(tmp_path)
    (whole,) = embedded(photos.network(), images)
    monkeypatch.setattr(own_images, 'PART', 5)
    parts = embedded(photos.network(), images, batch=4)
    assert [part.rows.tolist() for part in parts] == [[*range(5)], [*range(5, 10)], [10, 11]]
    vectors = np.concatenate([part.vectors for part in parts])
    np.testing.assert_allclose(vectors, whole.vectors, rtol=1e-5, atol=1e-6)


def test_images_are_resized_as_the_run_says(tmp_path):
    """Stretched, or kept in their shape: another picture, unless it has that shape already."""
    network = photos.network()
    padded = network._replace(data=network.data | {'resize': 'pad'})
    photos.plant(tmp_path, identities=1)
    images = listing.listed(tmp_path)
    square = [embedded(one, images)[0].vectors for one in (network, padded)]
    assert not np.allclose(*square)


def test_bad_images_are_left_out_and_the_rest_is_the_same(tmp_path, monkeypatch):
    names = photos.plant(tmp_path)
    monkeypatch.setattr(own_images, 'PART', 4)
    images = listing.listed(photos.table(tmp_path / 'own.csv', [(n, '', '') for n in names]))
    good = np.concatenate([part.vectors for part in embedded(photos.network(), images)])
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes()[:-400])
    (tmp_path / names[2]).write_bytes(b'no image')
    for name in names[4:8]:
        (tmp_path / name).unlink()
    parts = embedded(photos.network(), images)
    assert [part.rows.tolist() for part in parts] == [[0, 3], [], [8, 9, 10, 11]]
    assert parts[1].vectors.size == 0
    assert 'truncated' in parts[0].bad[names[1]]
    assert 'cannot identify' in parts[0].bad[names[2]]
    assert parts[1].bad == dict.fromkeys(names[4:8], 'No such file or directory')
    rest = np.concatenate([parts[0].vectors, parts[2].vectors])
    np.testing.assert_allclose(rest, good[[0, 3, 8, 9, 10, 11]], rtol=1e-5, atol=1e-6)


def test_what_is_not_an_images_fault_is_raised(tmp_path, monkeypatch):
    photos.plant(tmp_path)

    def open_image(*_):
        raise OSError(24, 'Too many open files')

    monkeypatch.setattr(listing.Listing, 'open', open_image)
    with pytest.raises(DataError, match='Too many open files'):
        embedded(photos.network(), listing.listed(tmp_path))


def test_numbers_that_cannot_be_compared_are_not_kept(tmp_path, caplog):
    names = photos.plant(tmp_path, identities=2)
    values = np.array([1, 1e4, 1e6, 1e-9, np.nan, -np.inf, 0, 2], np.float32)
    network = photos.network()._replace(embedded=lambda _: jnp.tile(values[:, None], 4))
    images = listing.listed(tmp_path)
    (whole,) = embedded(network, images, batch=8)
    assert whole.rows.tolist() == [0, 1, 2, 3, 7]
    np.testing.assert_array_equal(whole.vectors[:, 0], values[whole.rows])
    given = dict.fromkeys(names[4:6], 'the network gives NaN or Inf')
    given[names[6]] = 'the network gives only zeros'
    assert whole.bad == given
    (half,) = embedded(network, images, batch=8, dtype='float16')
    assert half.vectors.dtype == np.float16
    assert half.vectors[:, 0].tolist() == [1, 1e4, 2]
    lost = 'too large or too small for float16 (--dtype=float32 would keep it)'
    assert half.bad == given | dict.fromkeys(names[2:4], lost)
    assert f'leaving out {names[3]}: {lost}' in caplog.text


def test_progress_counts_bad_images_and_leaves_out_compilation(tmp_path, monkeypatch, caplog):
    names = photos.plant(tmp_path, identities=4)
    for name in names[:5]:
        (tmp_path / name).write_bytes(b'no image')
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(own_images, 'time', clock)
    monkeypatch.setattr(own_images, 'SECONDS', 0)
    monkeypatch.setattr(own_images, 'PART', 4)

    def slow(batch):
        clock.now += 2.0 if clock.now else 100.0
        return jnp.ones((len(batch), 4))

    with caplog.at_level('INFO'):
        embedded(photos.network()._replace(embedded=slow), listing.listed(tmp_path), batch=4)
    told = [record.getMessage() for record in caplog.records if record.levelname == 'INFO']
    assert told == [
        'looked at 12 of 16 images, 2 images/s, 2 s left',
        'looked at 16 of 16 images, 2 images/s, 0 s left',
    ]


@pytest.fixture
def stacked(tmp_path):
    """A run of a T-net that is not trained."""
    config = smoke.config('umts_carousel').teachers.teacher.copy_and_resolve_references()
    run = tmp_path / 'stacked'
    runs.start(run, config, {'classes': 8, 'data': ''})
    init = jax.jit(recipes.network(config, 8).init)
    variables = init(jax.random.key(0), recipes.blank_input(config))
    with checkpoints.manager(run) as saved:
        checkpoints.save(saved, 1, {'student': variables, 'training': {'step': 1}}, 0.5)
    return run


def test_a_network_of_several_shots_sees_one_image_as_often(stacked, tmp_path, caplog):
    photos.plant(tmp_path / 'images', identities=1)
    shots = json.loads((stacked / 'config.json').read_text())['config']['sampling']['shots']
    assert shots > 1
    with caplog.at_level('INFO'):
        network = own_images.opened(stacked, 'last')
    assert f'it is shown each image {shots} times' in caplog.text
    images = listing.listed(tmp_path / 'images')
    (part,) = embedded(network, images)
    seen = []

    def shown(batch):
        seen.append(np.asarray(batch))
        return network.embedded(batch)

    embedded(network._replace(embedded=shown), images)
    assert seen[0].shape[1:] == (shots, 32, 16, 3)
    assert (seen[0] == seen[0][:, :1]).all()
    assert len(part.vectors) == 4


def test_networks_are_told_apart():
    """By their weights, not by where they lie."""
    one, other = photos.network('last'), photos.network('best')
    assert (one.facts['step'], other.facts['step']) == (8, 4)
    assert one.facts['weights'] != other.facts['weights']
    assert own_images.opened(photos.run(), 'last').facts == one.facts
    assert one.facts['image'] == '32 x 16 x 3, bilinear'
    assert one.facts['metric'] == 'cosine'
