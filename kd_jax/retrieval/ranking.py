"""Exact ranking of a gallery for every query, a block at a time, and the scores made of it.

No gallery is sorted: the place of a match is the number of gallery items nearer than it. Images of
the query's identity by its own camera are placed like matches, and each match then moves up by
those before it: the counting needs no masks.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Int, Int32, Num

from kd_jax.retrieval import counting, pairs, tiles
from kd_jax.retrieval.metrics import METRICS, as_floats, slices
from kd_jax.retrieval.pairs import ArrayLike, JunkRule, Pairs
from kd_jax.retrieval.tiles import Part

BLOCK_BYTES = 2**27  # of distances that are held at a time


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
    devices: Sequence[jax.Device] | None = None,
) -> Ranking:
    """Ranks the gallery for every query by the float32 distance of their features.

    Equally near items keep the gallery's order. Gallery items of identity -1 are left out, with
    `same_camera='drop'` those of the query's identity and camera (unknown cameras, -1, are never
    the same), and those of its identity that the `junk` rule names. With `groups`, the number
    from 0 of a gallery item for every gallery feature, an item is as near as its nearest feature
    and the gallery's ids and cameras are the items'. A zero vector has cosine similarity 0.

    The gallery is shared out over `devices` (one, without them; those of all processes, each of
    which gives all features) and the result is the same on any number. Memory beyond the features
    and the devices' copy of the gallery is the distances of at most `block` queries, less where
    they would take more than 128 MiB.
    """
    check_metric(metric)
    query, gallery = _finite(query, 'query'), _finite(gallery, 'gallery')
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f'query has {query.shape[1]} features, gallery {gallery.shape[1]}')
    labels = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    count = len(gallery) if groups is None else int(groups.max()) + 1
    found = pairs.find((len(query), count), labels, same_camera, junk)
    taking_part = _taking_part(groups, found.kept)
    fitted = METRICS[metric](query, gallery)
    tiled = tiles.tiled(gallery, fitted, *taking_part, devices)
    parts_of = lambda rows: tiled.distances(fitted.query(query[rows]))  # noqa: E731
    block = min(block, max(BLOCK_BYTES // (4 * len(taking_part[0])), 2))
    places = _place(parts_of, found, len(query), block)
    return _score(found, places, len(query), count)


def rank_rows(
    distances_of: Callable[[Int[np.ndarray, 'b']], Num[np.ndarray, 'b g']],
    shape: tuple[int, int],
    query_ids: Int[ArrayLike, '_'],
    gallery_ids: Int[ArrayLike, '_'],
    query_cameras: Int[ArrayLike, '_'],
    gallery_cameras: Int[ArrayLike, '_'],
    *,
    same_camera: str = 'drop',
    junk: JunkRule | None = None,
    block: int = 1024,
) -> Ranking:
    """`rank` by distances that are made for some queries at a time, float64 compared as float64."""
    labels = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    found = pairs.find(shape, labels, same_camera, junk)

    def parts_of(rows):
        known = _comparable(_finite(distances_of(rows), 'distances')[:, found.kept])
        for first in range(0, known.shape[1], tiles.LARGEST):
            part = known[:, first : first + tiles.LARGEST]
            yield Part(part, first, part.shape[1])

    block = min(block, max(BLOCK_BYTES // (32 * shape[1]), 2))
    return _score(found, _place(parts_of, found, shape[0], block), *shape)


def rank_distances(
    distances: Num[ArrayLike, 'q g'],
    query_ids: Int[ArrayLike, '_'],
    gallery_ids: Int[ArrayLike, '_'],
    query_cameras: Int[ArrayLike, '_'],
    gallery_cameras: Int[ArrayLike, '_'],
    **options: Any,
) -> Ranking:
    """`rank_rows` of given distances."""
    distances = _finite(distances, 'distances')
    labels = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    return rank_rows(lambda rows: distances[rows], distances.shape, *labels, **options)


def keys_of(
    query: Float[ArrayLike, 'q d'], gallery: Float[ArrayLike, 'g d'], metric: str
) -> Callable[[Int[np.ndarray, 'b']], Int32[np.ndarray, 'b g']]:
    """keys(rows[b]): integers in the order of the distances of those queries to the gallery."""
    query, gallery = np.asarray(query), np.asarray(gallery)
    fitted = METRICS[metric](query, gallery)
    tiled = tiles.tiled(gallery, fitted, np.arange(len(gallery)))

    def keys(rows):
        parts = tiled.distances(fitted.query(query[rows]))
        found = [counting.keys(np.asarray(part.distances)) for part in parts]
        return np.concatenate(found, axis=1)[:, : len(gallery)]

    return keys


def check_metric(metric: str) -> None:
    """Raises ValueError for an unknown metric."""
    if metric not in METRICS:
        raise ValueError(f'metric is one of {", ".join(METRICS)}, not {metric!r}')


def _taking_part(groups, kept) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of the features of gallery items that are kept, and their groups, numbered anew."""
    if groups is None:
        return kept, None
    rows = np.flatnonzero(np.isin(groups, kept))
    rows = rows[np.argsort(groups[rows], kind='stable')]
    return rows, np.searchsorted(kept, groups[rows])


def _finite(values: Num[ArrayLike, 'n d'], name: str) -> Num[np.ndarray, 'n d']:
    values = np.asarray(values)
    if not values.size:
        raise ValueError(f'{name} is empty: shape {values.shape}')
    bad = np.concatenate([~np.isfinite(rows).all(axis=1) for rows in slices(values)])
    if bad.any():
        count, first = np.count_nonzero(bad), np.argmax(bad)
        raise ValueError(f'{name}: NaN or Inf in {count} of {len(values)} rows, first {first}')
    return values


def _comparable(distances: Num[np.ndarray, 'b g']) -> np.ndarray:
    """float32 as it is; anything finer as each row's int32 order."""
    distances = as_floats(distances)
    if distances.dtype == np.float32:
        return distances
    return np.stack([np.unique(row, return_inverse=True)[1] for row in distances]).astype(np.int32)


def _place(parts_of: Callable, found: Pairs, queries: int, block: int) -> Int32[np.ndarray, 'p']:
    """How many gallery items are before each pair's, counted a block of queries at a time.

    `parts_of(rows)` are the distances of those queries, in parts of the gallery.
    """
    blocks = -(-queries // block)
    size = -(-queries // blocks)  # even blocks, so that filling up the last costs few rows
    size = max(size, 2)  # XLA rounds the product of a single row differently
    rows, columns = found.rows, found.columns
    cuts = np.searchsorted(rows, np.arange(blocks + 1) * size)
    places = np.empty(len(rows), np.int32)
    for start, low, high in zip(np.arange(blocks) * size, cuts[:-1], cuts[1:]):
        pairs = rows[low:high] - start, columns[low:high]
        parts = list(parts_of(np.minimum(np.arange(start, start + size), queries - 1)))
        limits = _summed(counting.keys_of_matches(part, *pairs) for part in parts)
        places[low:high] = _summed(counting.before(part, *pairs, limits) for part in parts)
    return places


def _summed(parts: Iterable[Int32[np.ndarray, 'p']]) -> Int32[np.ndarray, 'p']:
    """The sum over all tiles, those of other processes too."""
    total = sum(parts)
    if jax.process_count() == 1:
        return total
    return multihost_utils.process_allgather(total).sum(axis=0)


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
