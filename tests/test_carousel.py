import numpy as np
import pytest

from kd_jax.data import carousel, figures
from kd_jax.data.records import DataError

SMALL = {'train_identities': 6, 'test_identities': 5, 'cameras': 3, 'tracklets': 2, 'frames': 3}
SPLITS = ('train', 'query', 'gallery')


def pixels(source, split):
    return np.stack([np.asarray(source.open(path)) for path in getattr(source, split).paths])


def mean_average_precision(similarity, query, gallery):
    """By the Market rule, one query at a time, from its definition."""
    precisions = []
    for row, identity, camera in zip(similarity, query.pids, query.cameras):
        kept = ~((gallery.pids == identity) & (gallery.cameras == camera))
        order = np.argsort(-row[kept], kind='stable')
        hits = np.flatnonzero(gallery.pids[kept][order] == identity) + 1
        precisions.append(np.mean(np.arange(1, len(hits) + 1) / hits))
    return np.mean(precisions)


def cosine(query, gallery):
    query, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery))
    return query @ gallery.T


def marks(codes):
    """Textures of people who differ in their codes only."""
    count = len(codes)
    people = figures.Identities(np.zeros(count, int), codes, np.zeros(count), np.ones(count))
    return figures.textures(people).reshape(count, figures.ROWS, figures.SIDES, -1, 3)


def changed(one, other):
    """Which sides of two textures differ."""
    return np.abs(one - other).max((0, 2, 3)) > 0


@pytest.fixture(scope='module')
def small():
    return carousel.read(**SMALL)


def test_equal_seeds_give_equal_bytes(small):
    again = carousel.read(**SMALL)
    for split in reversed(SPLITS):
        for column, other in zip(getattr(small, split), getattr(again, split)):
            np.testing.assert_array_equal(column, other)
        np.testing.assert_array_equal(pixels(small, split), pixels(again, split))


def test_another_seed_gives_other_images(small):
    other = carousel.read(seed=1, **SMALL)
    for split in SPLITS:
        assert (pixels(small, split)[:8] != pixels(other, split)[:8]).any((1, 2, 3)).all()


def test_default_counts():
    source = carousel.read()
    assert [len(np.unique(split.pids)) for split in source[:3]] == [256, 64, 64]
    assert [len(split.paths) for split in source[:3]] == [256 * 32, 64 * 4, 64 * 28]


def test_columns(small):
    train, query, gallery = small[:3]
    assert train.paths[0] == 'train/0001_c0_t0_f0.png'
    assert train.paths[-1] == 'train/0006_c2_t1_f2.png'
    assert small.home is None
    for split in (train, query, gallery):
        assert all(column.dtype == np.int64 for column in split[1:])
        assert set(split.cameras) == {0, 1, 2}
        assert set(split.frames) == {0, 1, 2}
    assert len(np.unique(train.paths)) == len(train.paths) == 6 * 3 * 2 * 3
    places = np.unique(np.stack([train.tracklets, train.pids, train.cameras]), axis=1)
    assert places.shape[1] == len(np.unique(train.tracklets)) == 6 * 3 * 2


def test_identities_are_disjoint(small):
    assert not set(small.train.pids) & set(small.query.pids)
    assert set(small.query.pids) == set(small.gallery.pids)
    assert min(small.train.pids) > 0


def test_market_rule(small):
    query, gallery = small.query, small.gallery
    asked = list(zip(query.pids, query.cameras))
    assert len(set(asked)) == len(asked) == 5 * 3
    for identity, camera in asked:
        assert (gallery.cameras[gallery.pids == identity] != camera).any()
    images = [
        {tuple(row) for row in np.stack([split.tracklets, split.frames], axis=1)}
        for split in (query, gallery)
    ]
    assert not images[0] & images[1]
    assert len(images[0] | images[1]) == 5 * 3 * 2 * 3


def test_images():
    source = carousel.read(**SMALL)
    for split in SPLITS:
        image = source.open(getattr(source, split).paths[0])
        assert image.mode == 'RGB'
        assert image.size == (24, 48)
    assert np.asarray(image).std() > 10


def test_frames_turn_a_figure_step_by_step():
    places = carousel._draw_cameras(4, np.random.default_rng(0))
    shots = carousel._draw_shots(3, 2, 4, places, np.random.default_rng(0))
    turns = np.diff(shots.yaw.reshape(-1, 4), axis=1)
    np.testing.assert_allclose(np.abs(turns), carousel.YAW_STEP, rtol=1e-6)
    assert (np.ptp(np.sign(turns), axis=1) == 0).all()


def test_a_factor_shows_on_two_neighbouring_sides_only():
    codes = np.concatenate([np.zeros((1, 4), int), np.eye(4, dtype=int)])
    same, *others = marks(codes)
    found = np.stack([changed(same, other) for other in others])
    factors, sides = np.indices((4, 4))
    np.testing.assert_array_equal(found, (sides == factors) | ((sides + 1) % 4 == factors))


@pytest.mark.parametrize('side', range(figures.SIDES))
def test_all_values_look_different(side):
    codes = np.zeros((figures.VALUES, 4), int)
    codes[:, side] = np.arange(figures.VALUES)
    drawn = marks(codes)
    for i in range(figures.VALUES):
        for j in range(i):
            assert changed(drawn[i], drawn[j]).sum() == 2


def test_people_differ_and_share_outfits():
    people = figures.draw_identities(320, np.random.default_rng(0))
    rows = np.column_stack([people.outfits, people.codes])
    assert len(np.unique(rows, axis=0)) == 320
    assert np.bincount(people.outfits).min() > 20
    assert [set(factor) for factor in people.codes.T] == [set(range(figures.VALUES))] * 4


def test_more_people_than_there_are():
    with pytest.raises(ValueError, match='but only 10368 differ'):
        carousel.read(train_identities=10_400)


def test_floors():
    """Neither pixels nor colours find a person: an untrained feature must not do it."""
    source = carousel.read(train_identities=1, test_identities=24, tracklets=1)
    query, gallery = (pixels(source, split) for split in ('query', 'gallery'))
    flat = [images.reshape(len(images), -1) / 255 for images in (query, gallery)]
    mean = np.concatenate(flat).mean(0)
    colours = [
        np.stack([np.histogramdd(x.reshape(-1, 3), 4, [(0, 256)] * 3)[0].ravel() for x in images])
        for images in (query, gallery)
    ]
    for one, other in ((flat[0] - mean, flat[1] - mean), colours):
        assert mean_average_precision(cosine(one, other), source.query, source.gallery) < 0.25


@pytest.mark.parametrize('path', ['', 'train/0007_c0_t0_f0.png', 'query', '/etc/passwd'])
def test_unknown_path(small, path):
    with pytest.raises(DataError, match=f'{path!r} is no image'):
        small.open(path)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'cameras': 1}, 'cameras=1: the Market rule needs two'),
        ({'tracklets': 1, 'frames': 1}, 'frames 2 or more'),
        ({'test_identities': 0}, 'must be 1 or more'),
        ({'tracklets': -2, 'frames': -2}, 'must be 1 or more'),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        carousel.read(**wrong)
