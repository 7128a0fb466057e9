"""Thresholds are order statistics of all pairs, whatever the blocks."""

from itertools import combinations

import jax
import numpy as np
import pytest

from kd_jax.retrieval import thresholds
from kd_jax.retrieval.thresholds import Labelled


def labelled(count=60, identities=6, cameras=3, seed=0):
    """Images about a place of their identity; identity 0 are distractors, camera -1 is unknown."""
    rng = np.random.default_rng(seed)
    pids, cams = rng.integers(0, identities, count), rng.integers(-1, cameras, count)
    vectors = rng.normal(size=(identities, 5))[pids] + rng.normal(size=(count, 5))
    return Labelled(vectors.astype(np.float32), pids, cams, pids == 0)


def distance(one, other, metric):
    one, other = one.astype(np.float64), other.astype(np.float64)
    if metric == 'euclidean':
        return np.linalg.norm(one - other)
    return 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def pairs_by_hand(images, metric):
    """The distances of different pairs and of those of one identity, by one loop."""
    different, same = [], []
    for one, other in combinations(range(len(images.vectors)), 2):
        pids, cameras = images.identities[[one, other]], images.cameras[[one, other]]
        far = distance(images.vectors[one], images.vectors[other], metric)
        if pids[0] != pids[1]:
            different.append(far)
        elif pids[0] != 0 and (cameras[0] != cameras[1] or cameras[0] == -1):
            same.append(far)
    return np.sort(different), np.array(same)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_thresholds_are_those_of_a_sort(metric, monkeypatch):
    images, rates = labelled(), [0.001, 0.01, 0.1, 0.999]
    different, same = pairs_by_hand(images, metric)
    found = thresholds.thresholds(images, rates, metric=metric)
    for one, rate in zip(found, rates):
        most = int(rate * len(different))
        assert (one.rate, one.different, one.same) == (rate, len(different), len(same))
        assert one.distance == pytest.approx(different[most], rel=1e-4)
        assert one.false_matches == most
        assert one.true_matches == np.sum(same < different[most])
    monkeypatch.setattr(thresholds, 'ROWS', 7)
    again = thresholds.thresholds(images, rates, metric=metric, devices=jax.devices())
    for one, other in zip(found, again):
        assert one._replace(distance=0) == other._replace(distance=0)
        assert one.distance == pytest.approx(other.distance, rel=1e-5)


def test_of_equal_distances_none_match_where_not_all_may():
    """Two identities of one vector each: all different pairs are as far apart."""
    vectors = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    pids = np.repeat([1, 2], 4)
    images = Labelled(vectors, pids, np.full(8, -1), pids == 0)
    (found,) = thresholds.thresholds(images, [0.5], metric='cosine')
    assert (found.distance, found.false_matches, found.different) == (1, 0, 16)
    assert (found.true_matches, found.same) == (12, 12)


def test_shares_are_counted_as_they_are_written():
    """As a product of floats, 0.29 of 100 would be 28."""
    assert 0.29 * 100 < 29
    assert thresholds._allowed(0.29, 100) == 29


def test_no_pair_of_one_identity():
    images = labelled(identities=6)
    first = np.unique(images.identities, return_index=True)[1]
    alone = Labelled(*(column[first] for column in images))
    (found,) = thresholds.thresholds(alone, [0.5], metric='cosine')
    assert (found.different, found.same, found.true_matches) == (15, 0, 0)


def test_refusals():
    images = labelled()
    for rate in (0.0, 1.0, -0.1, float('nan')):
        with pytest.raises(ValueError, match='lies between 0 and 1'):
            thresholds.thresholds(images, [rate], metric='cosine')
    with pytest.raises(ValueError, match=r'less than one of the [\d,]+ pairs .* ask for 0\.0\d+'):
        thresholds.thresholds(images, [1e-6], metric='cosine')
    for different in range(1, 3000):
        assert thresholds._allowed(float(f'{1.06 / different:.2g}'), different) >= 1
    one = images._replace(identities=np.ones_like(images.identities))
    with pytest.raises(ValueError, match='no two images are of different identities'):
        thresholds.thresholds(one, [0.1], metric='cosine')
