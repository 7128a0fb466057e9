"""What is before a match in a tile, on the host and compiled, against sorting."""

import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.retrieval import counting
from kd_jax.retrieval.tiles import Part


def plain_counts(distances, first, rows, columns, limits):
    """The same by a double loop."""
    keys = counting.keys(distances)
    found = []
    for row, column, limit in zip(rows, columns, limits):
        before = [
            key < limit or (key == limit and first + place < column)
            for place, key in enumerate(keys[row])
        ]
        found.append(sum(before))
    return np.array(found)


def case(seed, matches=7, rows=37, width=130, first=50, kinds=0):
    """Distances of a tile, and pairs of which some lie in tiles before and behind it."""
    rng = np.random.default_rng(seed)
    distances = rng.normal(size=(rows, width)).astype(np.float32)
    if kinds:
        distances = (distances * kinds).round() / kinds  # ties
    of = np.sort(rng.integers(0, rows, rows * matches))
    columns = rng.integers(0, 3 * width, len(of))
    limits = counting.keys(distances[of, rng.integers(0, width, len(of))])
    return distances, first, of, columns, limits


@pytest.mark.parametrize('put', [np.asarray, jnp.asarray], ids=['host', 'compiled'])
@pytest.mark.parametrize('kinds', [0, 1, 5])
@pytest.mark.parametrize('seed', range(3))
def test_counts_against_a_loop(seed, kinds, put):
    distances, first, *rest = case(seed, kinds=kinds)
    found = counting.before(Part(put(distances), first, 130), *rest)
    np.testing.assert_array_equal(found, plain_counts(distances, first, *rest))


@pytest.mark.parametrize('put', [np.asarray, jnp.asarray], ids=['host', 'compiled'])
def test_many_pairs_are_counted_in_pieces(put):
    distances, first, *rest = case(4, matches=130)
    assert len(rest[0]) > counting.PIECE
    found = counting.before(Part(put(distances), first, 130), *rest)
    np.testing.assert_array_equal(found, plain_counts(distances, first, *rest))


@pytest.mark.parametrize('put', [np.asarray, jnp.asarray], ids=['host', 'compiled'])
def test_keys_of_matches_elsewhere_are_nought(put):
    distances, first, rows, columns, _ = case(5)
    found = counting.keys_of_matches(Part(put(distances), first, 99), rows, columns)
    local = columns - first
    there = (local >= 0) & (local < 99)
    assert there.any()
    assert not there.all()
    assert (found[~there] == 0).all()
    np.testing.assert_array_equal(found[there], counting.keys(distances[rows[there], local[there]]))


def test_keys_order_distances_of_any_sign_and_size():
    values = np.float32([-np.inf, -1e30, -2, -1e-45, 0, 1e-45, 1e-38, 1, 1 + 2**-23, 1e30, np.inf])
    keys = counting.keys(values)
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(counting.floats(keys), values)


@pytest.mark.parametrize('put', [np.asarray, jnp.asarray], ids=['host', 'compiled'])
def test_without_pairs_nothing_is_counted(put):
    none = np.zeros(0, np.int32)
    found = counting.before(Part(put(np.ones((3, 4), np.float32)), 0, 4), none, none, none)
    assert found.shape == (0,)
