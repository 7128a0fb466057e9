"""Exact ranking of a gallery for every query, a block at a time.

No gallery is sorted: the place of a match is the number of gallery items nearer than it. Images of
the query's identity by its own camera are placed like matches, and each match then moves up by
those before it: the counting needs no masks.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int, Int32, Num

from kd_jax.retrieval import counting, pairs, scores, tiles
from kd_jax.retrieval.metrics import METRICS, as_floats, slices
from kd_jax.retrieval.pairs import ArrayLike, JunkRule, Pairs, Wanted
from kd_jax.retrieval.scores import Ranking
from kd_jax.retrieval.tiles import Part

BLOCK_BYTES = 2**27  # of distances that are held at a time


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
    groups: Int[ArrayLike, '_'] | None = None,
    block: int = 256,
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
    and the devices' copy of the gallery is the distances of at most `block` queries, fewer where
    they would take more than 128 MiB, and what is made of them.
    """
    check_metric(metric)
    query, gallery = check_features(query, gallery)
    labels = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    groups = None if groups is None else np.asarray(groups)
    count = len(gallery) if groups is None else _grouped(groups, len(gallery))
    wanted = pairs.find((len(query), count), labels, same_camera, junk)
    taking_part = _taking_part(groups, wanted.kept)
    fitted = METRICS[metric](query, gallery)
    tiled = tiles.tiled(gallery, fitted, *taking_part, devices)
    parts_of = lambda rows: tiled.distances(fitted.query(query[rows]))  # noqa: E731
    block = min(block, max(BLOCK_BYTES // (4 * len(taking_part[0])), 2))
    several = len({device.process_index for device in devices or ()}) > 1
    summed = _over_processes if several else sum
    return _ranked(parts_of, wanted, (len(query), count), block, summed)


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
    block: int = 256,
) -> Ranking:
    """`rank` by distances that are made for some queries at a time, float64 compared as float64."""
    labels = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    wanted = pairs.find(shape, labels, same_camera, junk)

    def parts_of(rows):
        known = _comparable(_finite(distances_of(rows), 'distances')[:, wanted.kept])
        return [Part(known, 0, known.shape[1])]

    block = min(block, max(BLOCK_BYTES // (32 * shape[1]), 2))
    return _ranked(parts_of, wanted, shape, block)


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


def check_features(query: Num[ArrayLike, 'q d'], gallery: Num[ArrayLike, 'g _']):
    """Both as numpy arrays; ValueError for NaN, Inf, none at all, or different numbers."""
    query, gallery = _finite(query, 'query'), _finite(gallery, 'gallery')
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f'query has {query.shape[1]} features, gallery {gallery.shape[1]}')
    return query, gallery


def _grouped(groups: Int[np.ndarray, '_'], features: int) -> int:
    """How many items there are; ValueError where a feature has none, or an item no feature."""
    if len(groups) != features or groups.min() < 0 or not np.bincount(groups).all():
        raise ValueError(
            f'groups number the item of each of {features} features, from 0 and without a gap'
        )
    return int(groups.max()) + 1


def _taking_part(groups, kept) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of the features of gallery items that are kept, and their groups, numbered anew."""
    if groups is None:
        return kept, None
    rows = np.flatnonzero(np.isin(groups, kept))
    rows = rows[np.argsort(groups[rows], kind='stable')]
    return rows, np.searchsorted(kept, groups[rows])


def _finite(values: Num[ArrayLike, 'n d'], name: str) -> Num[np.ndarray, 'n d']:
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f'{name} has shape {values.shape}: give rows of features')
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


def _ranked(
    parts_of: Callable,
    wanted: Wanted,
    shape: tuple[int, int],
    block: int,
    summed: Callable = sum,
) -> Ranking:
    """The ranking, made a block of queries at a time.

    `parts_of(rows)` are the distances of those queries, in parts of the gallery; of all of it, or
    of this process' share, and then `summed` adds those of the others.
    """
    if block < 1:
        raise ValueError(f'block={block}: at least 1 query is ranked at a time')
    queries, gallery = shape
    blocks = -(-queries // block)
    size = -(-queries // blocks)  # even blocks, so that filling up the last costs few rows
    size = max(size, 2)  # XLA rounds the product of a single row differently
    found = []
    for start in range(0, queries, size):
        rows = np.minimum(np.arange(start, start + size), queries - 1)
        asked = wanted.pairs(start, min(start + size, queries))
        places = _places(list(parts_of(rows)), asked, summed)
        found.append(scores.score(asked, places, min(size, queries - start), gallery))
    return scores.joined(found)


def _places(parts: list[Part], asked: Pairs, summed: Callable) -> Int32[np.ndarray, 'p']:
    """How many gallery items are before each pair's, in distances that are forgotten then."""
    rows, columns, _ = asked
    none = np.zeros(len(rows), np.int32)
    limits = summed((counting.keys_of_matches(part, rows, columns) for part in parts), none)
    return summed((counting.before(part, rows, columns, limits) for part in parts), none)


def _over_processes(parts: Iterable[Int32[np.ndarray, 'p']], none: Int32[np.ndarray, 'p']):
    """The sum over parts, with those of other processes; in few lengths, as each is compiled."""
    total = sum(parts, none)
    filled = np.zeros(-(-len(total) // counting.PIECE) * counting.PIECE, np.int32)
    filled[: len(total)] = total
    return multihost_utils.process_allgather(filled).sum(axis=0, dtype=np.int32)[: len(total)]
