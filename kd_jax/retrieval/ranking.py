"""Exact ranking of a gallery for every query, a block at a time, and the scores made of it.

Nothing is sorted: the place of a match is the number of gallery items nearer than it, one pass
over its query's distances. Images of the query's identity by its own camera are placed like
matches, and each match then moves up by those before it: the counting needs no masks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Num

from kd_jax.retrieval import pairs
from kd_jax.retrieval.metrics import METRICS
from kd_jax.retrieval.pairs import ArrayLike, JunkRule, Pairs

PAIRS_AT_ONCE = 16  # counted together: more is faster on an accelerator, slower on a CPU


class Ranking(NamedTuple):
    """What a ranking is worth, one value per query; NaN where a query has no valid match.

    `first_rank` counts from 1, and is 0 where not `valid`. `average_precision` is the mean of the
    precisions at each match; `average_precision_trapezoid` takes there the mean of the precisions
    before and at the match (Market-1501, MARS) and is never more: for one match at rank 2 they
    are 0.5 and 0.25. `inverse_negative_penalty` is matches / rank of the last match. The means
    and the curve are over the valid queries.
    """

    first_rank: Int[np.ndarray, 'q']
    average_precision: Float[np.ndarray, 'q']
    average_precision_trapezoid: Float[np.ndarray, 'q']
    inverse_negative_penalty: Float[np.ndarray, 'q']
    valid: Bool[np.ndarray, 'q']
    gallery_size: int

    @property
    def mAP(self) -> float:
        return float(self.average_precision[self.valid].mean())

    @property
    def mAP_trapezoid(self) -> float:
        return float(self.average_precision_trapezoid[self.valid].mean())

    @property
    def mINP(self) -> float:
        return float(self.inverse_negative_penalty[self.valid].mean())

    @property
    def cmc(self) -> Float[np.ndarray, 'g']:
        """Share of queries with a match among the first 1, 2, ..., g gallery items."""
        found = np.bincount(self.first_rank[self.valid], minlength=self.gallery_size + 1)
        return np.cumsum(found)[1 : self.gallery_size + 1] / self.valid.sum()

    def rank(self, k: int) -> float:
        """Share of queries with a match among the first `k` gallery items."""
        if k < 1:
            raise ValueError(f'rank-k starts at k=1, not {k}')
        return float(np.mean(self.first_rank[self.valid] <= k))


def rank(
    query: Float[ArrayLike, 'q d'],
    gallery: Float[ArrayLike, 'g _'],
    query_ids: Int[ArrayLike, '_'],
    gallery_ids: Int[ArrayLike, '_'],
    query_cameras: Int[ArrayLike, '_'],
    gallery_cameras: Int[ArrayLike, '_'],
    *,
    metric: str,
    same_camera: str = 'drop',
    junk: JunkRule | None = None,
    groups: Int[np.ndarray, '_'] | None = None,
    block: int = 1024,
) -> Ranking:
    """Ranks the gallery for every query by the float32 distance of their features.

    Equally near items keep the gallery's order. Gallery items of identity -1 are left out, with
    `same_camera='drop'` those of the query's identity and camera (unknown cameras, -1, are never
    the same), and those of its identity that the `junk` rule names. With `groups`, the number
    from 0 of a gallery item for every gallery feature, an item is as near as its nearest feature
    and the gallery's ids and cameras are the items'. A zero vector has cosine similarity 0.
    Memory is `block` times the gallery.
    """
    check_metric(metric)
    query, gallery = _finite(query, 'query'), _finite(gallery, 'gallery')
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f'query has {query.shape[1]} features, gallery {gallery.shape[1]}')
    labels = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    count = len(gallery) if groups is None else int(groups.max()) + 1
    found = pairs.find((len(query), count), labels, same_camera, junk)
    gallery, groups = _taking_part(gallery, groups, found.kept)
    keys_of = distances_of(query, gallery, metric, groups)
    return _score(found, _place(keys_of, found, len(query), block), len(query), count)


def rank_distances(
    distances: Num[ArrayLike, 'q g'],
    query_ids: Int[ArrayLike, '_'],
    gallery_ids: Int[ArrayLike, '_'],
    query_cameras: Int[ArrayLike, '_'],
    gallery_cameras: Int[ArrayLike, '_'],
    *,
    same_camera: str = 'drop',
    block: int = 1024,
) -> Ranking:
    """`rank` by given distances, float64 compared as float64."""
    distances = _finite(distances, 'distances')
    labels = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    found = pairs.find(distances.shape, labels, same_camera)
    keys_of = lambda rows: _order(distances[rows][:, found.kept])  # noqa: E731
    places = _place(keys_of, found, len(distances), block)
    return _score(found, places, *distances.shape)


def distances_of(
    query: Float[ArrayLike, 'q d'],
    gallery: Float[ArrayLike, 'g d'],
    metric: str,
    groups: Int[np.ndarray, 'g'] | None = None,
) -> Callable:
    """keys_of(rows[b]) -> int32[b, g], in the order of the distances of those queries."""
    query, gallery, offsets = METRICS[metric](np.asarray(query), np.asarray(gallery))
    gallery, offsets = jnp.asarray(gallery), jnp.asarray(offsets)
    if groups is None:
        return lambda rows: _keys(query[rows], gallery, offsets)
    items = int(groups.max()) + 1
    return lambda rows: _nearest(_keys(query[rows], gallery, offsets), groups, items)


def check_metric(metric: str) -> None:
    """Raises ValueError for an unknown metric."""
    if metric not in METRICS:
        raise ValueError(f'metric is one of {", ".join(METRICS)}, not {metric!r}')


def _taking_part(gallery, groups, kept) -> tuple[np.ndarray, np.ndarray | None]:
    """The features of the gallery items that are kept, and their groups, numbered anew."""
    if groups is None:
        return gallery[kept], None
    staying = np.isin(groups, kept)
    return gallery[staying], np.searchsorted(kept, groups[staying])


@partial(jax.jit, static_argnames='items')
def _nearest(keys: Int32[Array, 'b g'], groups: Int[ArrayLike, 'g'], items: int):
    """The least key of each group."""
    return jax.ops.segment_min(keys.T, groups, items).T


def _finite(values: Num[ArrayLike, 'n d'], name: str) -> Float[np.ndarray, 'n d']:
    values = np.asarray(values)
    if not values.size:
        raise ValueError(f'{name} is empty: shape {values.shape}')
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(f'{name}: NaN or Inf in {len(bad)} of {len(values)} rows, first {bad[0]}')
    return values.astype(np.promote_types(values.dtype, np.float32), copy=False)


@jax.jit
def _keys(
    query: Float32[ArrayLike, 'b d'], gallery: Float32[Array, 'g d'], offsets: Float32[Array, 'g']
) -> Int32[Array, 'b g']:
    similarity = jnp.matmul(query, gallery.T, precision=lax.Precision.HIGHEST)
    return _as_integers(offsets - similarity)


@jax.jit
def _as_integers(distances: Float32[ArrayLike, 'b g']) -> Int32[Array, 'b g']:
    """Integers in the order of the floats, so that adding one means 'or equal'."""
    bits = lax.bitcast_convert_type(distances, jnp.int32)
    return jnp.where(bits < 0, -(bits & jnp.iinfo(jnp.int32).max), bits)


def _order(distances: Float[np.ndarray, 'b g']) -> Int32[ArrayLike, 'b g']:
    if distances.dtype == np.float32:
        return _as_integers(distances)
    return np.stack([np.unique(row, return_inverse=True)[1] for row in distances]).astype(np.int32)


@jax.jit
def _count_nearer(
    keys: Int32[ArrayLike, 'b g'], rows: Int32[ArrayLike, 'p'], columns: Int32[ArrayLike, 'p']
) -> Int32[Array, 'p']:
    """How many items are before each pair's: nearer, or as near and earlier in the gallery."""
    index = jnp.arange(keys.shape[1], dtype=jnp.int32)

    def count(pair):
        row, column = pair
        limit = keys[row, column] + (index < column)
        return jnp.sum(keys[row] < limit, dtype=jnp.int32)

    return lax.map(count, (rows, columns), batch_size=PAIRS_AT_ONCE)


def _place(keys_of: Callable, found: Pairs, queries: int, block: int) -> Int32[np.ndarray, 'p']:
    """How many gallery items are before each pair's, counted a block of queries at a time."""
    blocks = -(-queries // block)
    size = -(-queries // blocks)  # even blocks, so that filling up the last costs few rows
    size = max(size, 2)  # XLA rounds the product of a single row differently
    rows, columns = found.rows, found.columns
    cuts = np.searchsorted(rows, np.arange(blocks + 1) * size)
    local = np.zeros((2, np.diff(cuts).max()), np.int32)  # one length, so one compiled shape
    places = np.empty(len(rows), np.int32)
    for start, low, high in zip(np.arange(blocks) * size, cuts[:-1], cuts[1:]):
        local[:, : high - low] = rows[low:high] - start, columns[low:high]
        keys = keys_of(np.minimum(np.arange(start, start + size), queries - 1))
        places[low:high] = np.asarray(_count_nearer(keys, *local))[: high - low]
    return places


def _score(found: Pairs, places: Int32[np.ndarray, 'p'], queries: int, gallery: int) -> Ranking:
    rows, junk = found.rows, found.junk
    order = np.lexsort((places, rows))
    rows, junk = rows[order], junk[order]
    ranks = (places[order] + 1 - _running_count(junk, rows))[~junk]
    rows = rows[~junk]
    hits = _running_count(np.ones_like(rows), rows)
    matches = np.bincount(rows, minlength=queries)
    of_query = matches[rows]
    precision = hits / ranks
    before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1)
    shares = precision / of_query, (precision + before) / 2 / of_query
    parts = (ranks * (hits == 1), *shares, precision * (hits == of_query))
    first_rank, *scores = (np.bincount(rows, part, queries) for part in parts)
    valid = matches > 0
    scores = (np.where(valid, score, np.nan) for score in scores)
    return Ranking(first_rank.astype(int), *scores, valid, gallery)


def _running_count(flags, rows: Int[np.ndarray, 'p']) -> Int[np.ndarray, 'p']:
    """How many flags are set up to each pair, within its own query."""
    totals = np.bincount(rows, flags).astype(int)
    return np.cumsum(flags) - (np.cumsum(totals) - totals)[rows]
