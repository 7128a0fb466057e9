"""The gallery over several devices and processes: the same ranks, to the last."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from plain_ranking import assert_same, clustered, random_labels

from kd_jax.retrieval import counting, pairs, ranking, tiles
from kd_jax.retrieval.metrics import METRICS

SEVERAL = """
import sys
import jax, numpy as np
sys.path.insert(0, 'tests')
if int(sys.argv[1]) >= 0:
    jax.distributed.initialize('localhost:' + sys.argv[2], 2, int(sys.argv[1]))
from test_tiles import many_near_ties
from kd_jax.retrieval import ranking, refinement
assert len(jax.devices()) == 4, jax.devices()
for count in (3, 129, 700):
    query, gallery, labels = many_near_ties(count)
    rule = {'metric': 'euclidean', 'same_camera': 'keep', 'block': 17}
    every = [ranking.rank(query, gallery, *labels, **rule)]
    every.append(ranking.rank(query, gallery, *labels, **rule, devices=jax.local_devices()))
    mixed = [jax.devices()[place] for place in (0, 2, 1, 3)]
    every.append(ranking.rank(query, gallery, *labels, **rule, devices=mixed))
    rule['devices'] = jax.devices()
    every.append(ranking.rank(query, gallery, *labels, **rule))
    every.append(ranking.rank_distances(query @ gallery.T, *labels, same_camera='keep'))
    if count > 100:
        reranked = {'variant': 'zhong', 'k1': 20, 'k2': 6, 'weight': 0.3}
        every.append(refinement.ranked(query, gallery, *labels, reranked=reranked, **rule))
    for found in every:
        print('FOUND', found.first_rank.tolist(), found.mAP.hex(), found.mINP.hex())
"""


def many_near_ties(count=700):
    """Features whose order only rounding decides in many places."""
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 60, count)
    labels[1][:2] = labels[0][:2]
    query = clustered(rng, labels[0], 96)
    gallery = (rng.normal(size=96) + 1e-6 * rng.normal(size=(count, 96))).astype(np.float32)
    return query, gallery, labels


@pytest.fixture(params=['host', 'compiled'])
def put(request, monkeypatch):
    """Where distances are counted: in numpy, or compiled as on accelerators."""
    if request.param == 'compiled':
        monkeypatch.setattr(tiles, '_is_host', lambda device: False)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('count', [3, 129, 700])
def test_one_device_and_four_rank_alike(count, metric, put):
    query, gallery, labels = many_near_ties(count)
    rule = {'metric': metric, 'same_camera': 'keep', 'block': 16}
    one = ranking.rank(query, gallery, *labels, **rule)
    four = ranking.rank(query, gallery, *labels, **rule, devices=jax.devices())
    assert_same(one, four, 0)


def test_every_device_holds_its_share(monkeypatch):
    monkeypatch.setattr(tiles, '_is_host', lambda device: False)
    gallery = np.random.default_rng(1).normal(size=(700, 8)).astype(np.float32)
    metric = METRICS['cosine'](gallery, gallery)
    held = [set() for _ in range(2)]
    for found, devices in zip(held, (None, jax.devices())):
        put = jax.device_put

        def remembered(values, device, put=put, found=found):
            found.add(device)
            return put(values, device)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(jax, 'device_put', remembered)
            tiles.tiled(gallery, metric, np.arange(700), devices=devices)
    assert [len(devices) for devices in held] == [1, 4]


def test_two_processes_rank_alike():
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = str(free.getsockname()[1])
    alone, *both = (started(number, port) for number in (-1, 0, 1))
    lines = [found_by(process) for process in (alone, *both)]
    assert lines[0] == lines[1] == lines[2]


def started(number, port):
    """A process of four devices, or one of two processes of two."""
    count = 4 if number < 0 else 2
    flags = os.environ['XLA_FLAGS'].replace('count=4', f'count={count}')
    return subprocess.Popen(
        [sys.executable, '-c', SEVERAL, str(number), port],
        env=os.environ | {'XLA_FLAGS': flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def found_by(process):
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    lines = [line for line in out.splitlines() if line.startswith('FOUND')]
    assert len(lines) == 3 * 5 + 2
    for of_count in lines[:4], lines[5:9], lines[11:15]:
        assert len(set(of_count)) == 1  # whichever devices take part
    return lines


# Groups: items of several features.


@pytest.mark.parametrize('block', [5, 64])
@pytest.mark.parametrize('several', [False, True])
def test_groups_are_as_near_as_their_nearest_on_any_devices(several, block, put):
    rng = np.random.default_rng(2)
    groups = np.concatenate([np.arange(90), rng.integers(0, 90, 610)])
    rng.shuffle(groups)
    ids = rng.integers(0, 12, 90)
    query_ids = rng.integers(0, 12, 30)
    query, gallery = clustered(rng, query_ids, 24), clustered(rng, ids[groups], 24)
    cameras = np.zeros(30, int), np.ones(90, int)
    devices = jax.devices() if several else None
    rule = {'metric': 'euclidean', 'groups': groups, 'block': block, 'devices': devices}
    found = ranking.rank(query, gallery, query_ids, ids, *cameras, **rule)
    apart = np.square(query[:, None].astype(float) - gallery[None]).sum(-1)
    nearest = np.stack([apart[:, groups == group].min(axis=1) for group in range(90)], axis=1)
    assert_same(found, ranking.rank_distances(nearest, query_ids, ids, *cameras))


def test_a_group_larger_than_a_tile_and_one_that_takes_no_part(put, monkeypatch):
    monkeypatch.setattr(tiles, 'LARGEST', 128)
    rng = np.random.default_rng(3)
    groups = np.repeat([0, 1, 2, 3], [300, 5, 40, 100])
    gallery = rng.normal(size=(445, 6)).astype(np.float32)
    ids = np.array([1, pairs.JUNK, 2, 1])
    query = gallery[[0, 400]]
    labels = np.array([1, 2]), ids, np.zeros(2, int), np.ones(4, int)
    found = ranking.rank(query, gallery, *labels, metric='euclidean', groups=groups)
    apart = np.square(query[:, None].astype(float) - gallery[None]).sum(-1)
    nearest = np.stack([apart[:, groups == group].min(axis=1) for group in range(4)], axis=1)
    assert_same(found, ranking.rank_distances(nearest, *labels))


def test_memory_is_bounded_however_large_the_block(monkeypatch):
    monkeypatch.setattr(ranking, 'BLOCK_BYTES', 4 * 700 * 9)
    distances, seen = tiles.Tiled.distances, []

    def noted(self, query):
        seen.append(len(query))
        return distances(self, query)

    monkeypatch.setattr(tiles.Tiled, 'distances', noted)
    query, gallery, labels = many_near_ties()
    ranking.rank(query, gallery, *labels, metric='cosine', block=1000)
    assert max(seen) <= 9
    assert len(seen) == -(-60 // max(seen))


@pytest.mark.parametrize('grouped', [False, True])
def test_an_accelerator_ranks_as_the_host(grouped, monkeypatch):
    """The compiled counting: with ties, junk, unknown cameras, and tiles that are not full."""
    rng = np.random.default_rng(4)
    labels = random_labels(rng, 60, 700)
    query, gallery = (rng.integers(-2, 3, (n, 6)).astype(np.float32) for n in (60, 700))  # exact
    groups = np.arange(700) // 2 if grouped else None
    if grouped:
        labels = labels[0], labels[1][:350], labels[2], labels[3][:350]
    rule = {'metric': 'euclidean', 'groups': groups, 'block': 16}
    host = ranking.rank(query, gallery, *labels, **rule)
    monkeypatch.setattr(tiles, '_is_host', lambda device: False)
    monkeypatch.setattr(counting, '_before_in_row', None)
    assert_same(ranking.rank(query, gallery, *labels, **rule), host, 0)


@pytest.mark.parametrize('groups', [np.arange(5), np.array([0, 0, 1, 1, 3, 3]), np.arange(6) - 1])
def test_groups_that_are_none(groups):
    rows = np.ones((6, 2), np.float32)
    ids = np.zeros(2, int), np.zeros(6, int), np.zeros(2, int), np.ones(6, int)
    with pytest.raises(ValueError, match='the item of each of 6 features, from 0 and without a'):
        ranking.rank(rows[:2], rows, *ids, metric='cosine', groups=groups)
