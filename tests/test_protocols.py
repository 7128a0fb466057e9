"""Protocols against the numbers of official evaluators, plain loops, and cases worked by hand."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from kd_jax.data.records import from_rows
from kd_jax.retrieval import items, protocols

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'ranking.npz')
NUMBERS = itertools.count()
OPTIONS = {'metric': 'euclidean', 'same_camera': 'drop', 'block': 5}


def records(pids, cameras=None, tracklets=None, frames=None):
    """Images of the given columns, -1 where none are given, each of a path of its own."""
    columns = [np.full(len(pids), -1) if c is None else c for c in (cameras, tracklets, frames)]
    names = [f'{next(NUMBERS)}.png' for _ in pids]
    rows = zip(names, *(np.asarray(column).tolist() for column in (pids, *columns)))
    return from_rows(list(rows))


def run(name, query, gallery, places, **options):
    """The rankings of images at places on a line, or of vectors; a set is at the mean of its."""
    places = np.asarray(places, np.float32).reshape(len(places), -1)
    frames = options.pop('frames', 8)
    test = items.together(query, gallery, options.pop('tracklets', False))

    def features(items):
        return places[items.rows].mean(axis=1)

    return protocols.run(name, test, features, frames=frames, **OPTIONS | options)


# Market-1501 and its like.


@pytest.mark.parametrize('name', ['market', 'veri_image', 'veri_wild'])
def test_images_by_the_own_camera_are_left_out(name):
    query, gallery = records([1], [0]), records([1, 2, 1], [0, 1, 1])
    (ranking,) = run(name, query, gallery, [0, 1, 2, 3])['']
    assert (ranking.first_rank[0], ranking.mAP, ranking.mAP_trapezoid) == (2, 0.5, 0.25)
    (ranking,) = run(name, query, gallery, [0, 1, 2, 3], same_camera='keep')['']
    assert ranking.first_rank[0] == 1


# VehicleID.


def test_vehicleid_draws_a_gallery_of_one_image_each():
    """Two identities far apart, the images of one together: every probe finds its own first."""
    pool = records([1, 1, 1, 2, 2, 3])
    rankings = run('vehicleid', pool, pool, [0, 1, 2, 50, 51, 99], same_camera='keep')['']
    assert len(rankings) == 10
    for ranking in rankings:
        assert ranking.gallery_size == 3
        assert len(ranking.valid) == 3  # identity 3 has one image, which never asks
        assert ranking.mAP == ranking.mINP == ranking.rank(1) == 1


def test_vehicleid_by_hand():
    """Two identities at 0, 4 and 1, 2: eight outcomes of two draws, and no others."""
    pool = records([1, 1, 2, 2])
    rankings = run('vehicleid', pool, pool, [0, 4, 1, 2.25], same_camera='keep')['']
    possible = {}
    for one, other in np.ndindex(2, 2):
        gallery = {1: [0, 4][one], 2: [1, 2.25][other]}
        probes = {1: [0, 4][1 - one], 2: [1, 2.25][1 - other]}
        ranks = []
        for pid, place in probes.items():
            nearest = min(gallery, key=lambda other: abs(gallery[other] - place))
            ranks.append(1 if nearest == pid else 2)
        possible[tuple(ranks)] = np.mean([1 / rank for rank in ranks])
    seen = {tuple(ranking.first_rank.tolist()) for ranking in rankings}
    assert len(seen) > 1
    assert seen <= set(possible)
    for ranking in rankings:  # one match each: the average precision is the reciprocal rank
        assert ranking.mAP == possible[tuple(ranking.first_rank.tolist())]


def test_vehicleid_draws_are_fixed():
    pool = records(np.repeat(np.arange(1, 9), 5))
    places = np.random.default_rng(0).normal(size=(40, 4))
    first, again = (run('vehicleid', pool, pool, places, same_camera='keep')[''] for _ in range(2))
    assert [one.mAP for one in first] == [one.mAP for one in again]
    assert len({one.mAP for one in first}) > 5


# CUHK03's classic protocol.


def test_cuhk03_classic_by_hand():
    """Query 0 sees its identity at 3 by the other camera, and another's images at 1 and 9."""
    pool = records([1, 1, 1, 2, 2], [0, 0, 1, 0, 1])
    rankings = run('cuhk03_classic', pool, pool, [0, 0.5, 3, 1, 9])['']
    assert len(rankings) == 10
    assert {int(ranking.first_rank[0]) for ranking in rankings} == {1, 2}
    assert {ranking.gallery_size for ranking in rankings} == {2}
    for ranking in rankings:  # over the whole gallery: of 3 at the second place, after 1
        assert ranking.average_precision[0] == 0.5
        assert ranking.cmc.tolist()[-1] == 1


# Tracklets.


def mars_like():
    facts = {k.removeprefix('vkd/mars_like/'): GOLDEN[k] for k in GOLDEN.files if 'mars_like' in k}
    count = len(facts['q_pids'])
    query = records(facts['q_pids'], facts['q_camids'], np.arange(count))
    numbers = count + np.arange(len(facts['g_pids']))
    gallery = records(facts['g_pids'], facts['g_camids'], numbers)
    return facts, query, gallery, np.concatenate([facts['vid_qf'], facts['vid_gf']])


def test_v2v_agrees_with_vkd():
    facts, query, gallery, vectors = mars_like()
    (ranking,) = run('v2v', query, gallery, vectors, metric='cosine', tracklets=True)['']
    np.testing.assert_allclose(ranking.mAP_trapezoid, facts['v2v/mAP'], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ranking.cmc, facts['v2v/cmc'], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ranking.valid, facts['v2v/valid'])


def trapezoid(distances, good):
    """The average precision of a query by the trapezoid rule, one hit at a time."""
    hits, total = 0, 0.0
    for place, item in enumerate(np.argsort(distances, kind='stable')):
        if good[item]:
            before = hits / place if place else 1.0
            hits += 1
            total += (before + hits / (place + 1)) / 2
    return total / hits


def test_on_mars_the_queries_join_the_gallery():
    facts, query, gallery, vectors = mars_like()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pids = np.concatenate([query.pids, gallery.pids])
    cameras = np.concatenate([query.cameras, gallery.cameras])
    expected = []
    for vector, pid, camera in zip(unit[: len(query.pids)], query.pids, query.cameras):
        stay = (pids != -1) & ~((pids == pid) & (cameras == camera))
        if (pids[stay] == pid).any():
            expected.append(trapezoid(1 - unit[stay] @ vector, pids[stay] == pid))
    found = run('mars', query, gallery, vectors, metric='cosine', tracklets=True)
    assert list(found) == ['i2v', 'v2v']
    (ranking,) = found['v2v']
    assert ranking.gallery_size == len(pids)
    assert ranking.valid.sum() == len(expected) >= facts['v2v/valid'].sum()
    np.testing.assert_allclose(ranking.mAP_trapezoid, np.mean(expected), rtol=0, atol=1e-6)
    assert protocols.PROTOCOLS['mars'].quoted == 'mAP_trapezoid'


# Identity 1 asks in frames at 0 and 4; its tracklet by another camera is at 2 and 10 (mean 6);
# another's is at 3 and 7 (mean 5); tracklets of two frames.
TRACKS = (
    records([1, 1], [0, 0], [5, 5]),
    records([1, 1, 2, 2], [1, 1, 1, 1], [8, 8, 9, 9]),
    [0, 4, 2, 10, 3, 7],
)


@pytest.mark.parametrize(
    ('name', 'ranks'),
    [
        ('i2v', [2]),  # 0 to 6 or 5
        ('v2v', [2]),  # 2 to 6 or 5
        ('v2i', [1]),  # 2 to the first of each, 2 or 3
        ('i2i', [1]),  # 0 to 2 or 3
        ('veri_track', [1, 2]),  # 0 to 2 or 3; 4 to 2 or 3
    ],
)
def test_images_and_tracklets_by_hand(name, ranks):
    query, gallery, places = TRACKS
    (ranking,) = run(name, query, gallery, places, frames=2, tracklets=True)['']
    assert ranking.first_rank.tolist() == ranks


def test_a_tracklet_is_as_near_as_its_nearest_image():
    """Against the least distance to each tracklet, taken one by one."""
    rng = np.random.default_rng(0)
    query = records(rng.integers(1, 6, 20), rng.integers(0, 3, 20))
    owner, camera = rng.integers(1, 6, 30), rng.integers(0, 3, 30)
    tracklet = np.sort(rng.integers(0, 30, 90))
    gallery = records(owner[tracklet], camera[tracklet], tracklet)
    places = rng.normal(size=(110, 3))
    (ranking,) = run('veri_track', query, gallery, places)['']
    numbers = np.unique(tracklet)
    assert ranking.gallery_size == len(numbers)
    for row in range(20):
        distances = np.linalg.norm(places[20:] - places[row], axis=1)
        nearest = np.array([distances[tracklet == number].min() for number in numbers])
        same = owner[numbers] == query.pids[row]
        stay = ~(same & (camera[numbers] == query.cameras[row]))
        if (same & stay).any():
            expected = trapezoid(nearest[stay], same[stay])
            found = ranking.average_precision_trapezoid[row]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


# ATRW.


def test_atrw_by_hand():
    """Tigers 1 (one camera) and 2 (two); images of one clip within three frames are one sight."""
    pids, cameras = [1, 1, 1, 2, 2], [0, 0, 0, 0, 1]
    pool = records(pids, cameras, tracklets=[0, 0, 0, 0, 1], frames=[1, 4, 5, 9, 2])
    places = [0, 1, 8, 2, 4]
    found = run('atrw', pool, pool, places, same_camera='keep')
    assert list(found) == ['mean', 'single camera', 'cross camera']
    (single,), (cross,) = found['single camera'], found['cross camera']
    # Image 0 may find image 2 only (image 1 is three frames off), behind 3 and 4; image 1 has
    # none that is not near; image 2 may find image 0 only, behind 1? no: that is near. Behind 4, 3.
    assert single.first_rank.tolist() == [3, 6, 3]
    assert single.average_precision.tolist() == [1 / 3, 0, 1 / 3]
    assert single.rank(5) == 2 / 3
    # Image 3 finds 4 behind 1 and 0 (at equal distance, and earlier); image 4 finds 3 first.
    assert cross.first_rank.tolist() == [3, 1]
    assert [one.mAP for one in found['mean']] == [single.mAP, cross.mAP]


def test_atrw_counts_near_frames_of_another_tiger():
    pool = records([1, 1, 2, 2], [0, 1, 0, 1], tracklets=[0, 1, 0, 1], frames=[1, 1, 2, 2])
    (cross,) = run('atrw', pool, pool, [0, 9, 1, 7], same_camera='keep')['cross camera']
    assert cross.first_rank.tolist() == [3, 3, 2, 2]
