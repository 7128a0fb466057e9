import time
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image

from kd_jax import data, parallel
from kd_jax.data import pipeline, records, sampling
from kd_jax.data.images import ImageError

STEPS = 7
SAMPLING = {'identities': 2, 'sets': 2, 'shots': 3, 'views': 'any'}
SIZE = {'height': 8, 'width': 4, 'channels': 3}


def plant(root):
    """A data set of 4 train identities × 2 cameras × 2 images, as small PNGs."""
    rng = np.random.default_rng(0)
    train = [f'{i:04d}_c{c}s1_{f:06d}_00.png' for i in range(1, 5) for c in (1, 2) for f in (1, 2)]
    test = {'query': ['0009_c1s1_000001_00.png'], 'bounding_box_test': ['0009_c2s1_000001_00.png']}
    for folder, names in {'bounding_box_train': train, **test}.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            Image.fromarray(rng.integers(0, 256, (9, 5, 3), np.uint8)).save(root / folder / name)
    return root


def load(root, feed):
    return data.load(name='folder', root=str(root), feed=feed, **SIZE)


@pytest.fixture(scope='session')
def mesh():
    return parallel.mesh(jax.devices()[:4])


@pytest.fixture(scope='session')
def root(tmp_path_factory):
    return plant(tmp_path_factory.mktemp('folder'))


@pytest.fixture(scope='session')
def datasets(root):
    return {feed: load(root, feed) for feed in data.FEEDS}


def plan_of(dataset, seed=0):
    train = dataset.train.records
    index = sampling.index(records.labels(train), train.cameras, train.tracklets)
    return partial(sampling.plan, index, seed, **SAMPLING)


def batches(dataset, feed, mesh, start=0, stop=STEPS):
    """The batches, on the host."""
    fed = pipeline.batches(dataset.train, plan_of(dataset), feed, start, stop, mesh)
    return [jax.device_get(batch) for batch in fed]


@pytest.fixture(scope='session')
def expected(datasets):
    """What each step shows, read without any feed."""
    dataset = datasets['cached']
    drawn = [plan_of(dataset)(step) for step in range(STEPS)]
    return [(dataset.train.pixels.array[p.rows], dataset.train.records, p) for p in drawn]


def assert_shows(batch, expected):
    images, train, plan = expected
    np.testing.assert_array_equal(batch.images, images)
    np.testing.assert_array_equal(batch.labels, plan.labels)
    np.testing.assert_array_equal(batch.cameras, train.cameras[plan.rows])
    np.testing.assert_array_equal(batch.keys, plan.keys)
    kinds = [column.dtype for column in batch]
    assert kinds == [np.uint8, np.int32, np.int32, np.uint32]


@pytest.mark.parametrize('feed', data.FEEDS)
def test_every_feed_shows_what_was_planned(feed, datasets, mesh, expected):
    found = batches(datasets[feed], feed, mesh)
    assert len(found) == STEPS
    for batch, step in zip(found, expected):
        assert_shows(batch, step)
    assert found[0].images.any()
    assert any((batch.images != found[0].images).any() for batch in found)


@pytest.mark.parametrize('feed', data.FEEDS)
def test_start_in_the_middle(feed, datasets, mesh, expected):
    found = batches(datasets[feed], feed, mesh, start=4)
    assert len(found) == STEPS - 4
    for batch, step in zip(found, expected[4:]):
        assert_shows(batch, step)


def counted(datasets):
    """The training images of `cached`, and how many of them each read asks for."""
    reads, train = [], datasets['cached'].train
    read = lambda rows: reads.append(len(rows)) or train.pixels.read(rows)  # noqa: E731
    return train._replace(pixels=train.pixels._replace(read=read)), reads


@pytest.mark.parametrize(
    ('limit', 'value', 'wanted'),
    [('GATHERED', 1, [12] * 5), ('GATHERED', 3 * 12 * 96, [36, 24]), ('TOGETHER', 2, [24, 24, 12])],
)
def test_few_batches_are_gathered_at_once(
    datasets, mesh, expected, monkeypatch, limit, value, wanted
):
    monkeypatch.setattr(pipeline, limit, value)
    train, reads = counted(datasets)
    fed = pipeline.batches(train, plan_of(datasets['cached']), 'cached', 2, STEPS, mesh)
    for batch, step in zip(fed, expected[2:], strict=True):
        assert_shows(jax.device_get(batch), step)
    assert reads == wanted


@pytest.mark.parametrize('feed', data.FEEDS)
def test_nothing_is_left_to_do(feed, datasets, mesh):
    assert batches(datasets[feed], feed, mesh, start=STEPS) == []


@pytest.mark.parametrize('feed', data.FEEDS)
def test_sets_are_spread_over_the_devices(feed, datasets, mesh, expected):
    dataset = datasets[feed]
    batch = next(iter(pipeline.batches(dataset.train, plan_of(dataset), feed, 0, 1, mesh)))
    for column in batch:
        assert column.sharding.spec == P('batch')
    for place, shard in enumerate(batch.images.addressable_shards):
        np.testing.assert_array_equal(shard.data, expected[0][0][place : place + 1])


def test_order_does_not_depend_on_how_long_reading_takes(datasets, mesh, expected):
    dataset = datasets['stream']
    calls = iter(range(STEPS))

    def read(rows):
        time.sleep(0.1 if next(calls) % 2 == 0 else 0)
        return dataset.train.pixels.read(rows)

    slow = dataset._replace(
        train=dataset.train._replace(pixels=dataset.train.pixels._replace(read=read))
    )
    for batch, step in zip(batches(slow, 'stream', mesh), expected, strict=True):
        assert_shows(batch, step)


def test_a_bad_image_is_named_when_its_turn_comes(tmp_path, mesh):
    root = plant(tmp_path / 'data')
    dataset = load(root, 'stream')
    plan = plan_of(dataset)
    unread = set(range(16)) - set(plan(0).rows.ravel())
    row, turn = next((r, s) for s in range(1, STEPS) for r in plan(s).rows.ravel() if r in unread)
    path = dataset.train.records.paths[row]
    (root / path).write_bytes((root / path).read_bytes()[:40])
    shown = []
    with pytest.raises(ImageError, match=path):  # noqa: PT012, the batches before it count
        for batch in pipeline.batches(dataset.train, plan, 'stream', 0, STEPS, mesh):
            shown.append(batch)
    assert len(shown) == turn


def test_what_a_plan_raises_is_raised(datasets, mesh):
    def plan(step):
        if step == 5:
            raise ZeroDivisionError(f'step {step}')
        return plan_of(datasets['cached'])(step)

    with pytest.raises(ZeroDivisionError, match='step 5'):
        next(pipeline.batches(datasets['cached'].train, plan, 'cached', 3, STEPS, mesh))


@pytest.mark.parametrize('feed', ['cached', 'device'])
def test_sets_that_do_not_divide(feed, datasets):
    mesh = parallel.mesh(jax.devices()[:3])
    with pytest.raises(ValueError, match=r'4 sets a batch can not be shared by 3 devices'):
        batches(datasets[feed], feed, mesh)


def test_images_of_keeps_sets_together(datasets):
    array = datasets['cached'].train.pixels.array
    found = pipeline.images_of(lambda rows: array[rows], np.array([[3, 0], [5, 3], [1, 1]]))
    assert found.shape == (3, 2, 8, 4, 3)
    np.testing.assert_array_equal(found[1, 1], array[3])
