"""Counting the gallery items before each match, in one part of the distances at a time.

In numpy on the host, where XLA's loops take several times as long: the farthest matches, which far
more is nearer than, are compared with all, and what is nearer than the others is sorted. On
accelerators all are compared, compiled.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int, Int32, Num

from kd_jax.retrieval.tiles import Part

FARTHEST = 3  # matches of a query that are each compared with the whole gallery
PIECE = 4096  # pairs in one compiled call
TOGETHER = 256  # of them compared at once
LIMIT = np.iinfo(np.int32).max


def keys_of_matches(
    part: Part,
    rows: Int[np.ndarray, 'p'],
    columns: Int[np.ndarray, 'p'],
) -> Int32[np.ndarray, 'p']:
    """The key of each pair whose item is in the part, 0 for the others."""
    local, distances = columns - part.first, part.distances
    there = (local >= 0) & (local < part.count)
    found = np.zeros(len(rows), np.int32)
    if isinstance(distances, np.ndarray):
        found[there] = keys(distances[rows[there], local[there]])
    else:
        found[there] = _in_pieces(_keys_at, distances, rows[there], local[there])
    return found


def before(
    part: Part,
    rows: Int[np.ndarray, 'p'],
    columns: Int[np.ndarray, 'p'],
    limits: Int32[np.ndarray, 'p'],
) -> Int32[np.ndarray, 'p']:
    """How many of the part's items are before each pair's: nearer, or as near and earlier.

    `rows` ascend; `limits` are the keys of the pairs' own items.
    """
    local, distances = np.clip(columns - part.first, 0, part.count), part.distances
    if not isinstance(distances, np.ndarray):
        return _in_pieces(_before, distances, rows, local, limits)
    values = floats(limits) if distances.dtype == np.float32 else limits
    found = np.zeros(len(rows), np.int32)
    for low, high in pairwise([*np.searchsorted(rows, np.arange(len(distances))), len(rows)]):
        if low < high:
            row = distances[rows[low], : part.count]
            found[low:high] = _before_in_row(row, local[low:high], values[low:high])
    return found


def _before_in_row(row, local, limits) -> Int[np.ndarray, 'p']:
    """`before` in one row: the farthest few one by one, as far more is nearer than those."""
    order, found = np.argsort(limits), np.empty(len(limits), np.int32)
    rest, farthest = order[:-FARTHEST], order[-FARTHEST:]
    for pair, place, limit in zip(farthest, local[farthest].tolist(), limits[farthest].tolist()):
        nearer = np.count_nonzero(row[place:] < limit)
        found[pair] = nearer + np.count_nonzero(row[:place] <= limit)
    if len(rest):
        found[rest] = _by_sorting(row, local[rest], limits[rest])
    return found


def _by_sorting(row, local, limits) -> Int[np.ndarray, 'p']:
    """`before`, of what is as near only looked for where that is more than the match itself."""
    listed = np.sort(row[np.flatnonzero(row <= limits[-1])])
    nearer, through = (np.searchsorted(listed, limits, side) for side in ('left', 'right'))
    itself = (local < len(row)) & (row[np.minimum(local, len(row) - 1)] == limits)
    for pair in np.flatnonzero(through - nearer > itself):
        nearer[pair] += np.count_nonzero(row[: local[pair]] == limits[pair])
    return nearer


def keys(distances: Num[np.ndarray, '...']) -> Int32[np.ndarray, '...']:
    """Integers in the order of float32 distances; integers as they are."""
    if distances.dtype == np.int32:
        return distances
    bits = distances.view(np.int32)
    return np.where(bits < 0, -(bits & LIMIT), bits)


def floats(keys: Int32[np.ndarray, 'n']) -> Float32[np.ndarray, 'n']:
    """The distances that have these keys."""
    return np.where(keys < 0, -keys | np.int32(-LIMIT - 1), keys).view(np.float32)


def _in_pieces(function, distances, *pairs) -> Int32[np.ndarray, 'p']:
    """A compiled function of a part and of pairs, for a fixed number of them at a time."""
    count = len(pairs[0])
    filled = [np.zeros(-(-count // PIECE) * PIECE, np.int32) for _ in pairs]
    for whole, values in zip(filled, pairs):
        whole[:count] = values
    parts = [
        function(distances, *(whole[at : at + PIECE] for whole in filled))
        for at in range(0, count, PIECE)
    ]
    return np.concatenate([np.asarray(part) for part in parts] or [filled[0]])[:count]


@jax.jit
def _keys_at(distances: Float32[Array, 'b t'], rows: Int32[Array, 'p'], local: Int32[Array, 'p']):
    return _keys(distances[rows, local])


@jax.jit
def _before(
    distances: Float32[Array, 'b t'],
    rows: Int32[Array, 'p'],
    local: Int32[Array, 'p'],
    limits: Int32[Array, 'p'],
) -> Int32[Array, 'p']:
    known, index = _keys(distances), jnp.arange(distances.shape[1], dtype=jnp.int32)

    def count(pair):
        row, column, limit = pair
        return jnp.sum(known[row] < limit + (index < column), dtype=jnp.int32)

    return lax.map(count, (rows, local, limits), batch_size=TOGETHER)


def _keys(distances: Float32[Array, '...']) -> Int32[Array, '...']:
    """`keys` of an array on a device."""
    bits = lax.bitcast_convert_type(distances, jnp.int32)
    return jnp.where(bits < 0, -(bits & LIMIT), bits)
