"""Which gallery items a query should find, and which count for nothing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int

JUNK = -1  # the identity of gallery items that count for nothing, Market-1501's '-1'
UNKNOWN = -1  # the camera of an image without one
SAME_CAMERA = 'drop', 'keep'

ArrayLike = np.ndarray | Array
# Of queries and gallery items (their numbers), which pairs count for nothing.
JunkRule = Callable[[Int[np.ndarray, 'p'], Int[np.ndarray, 'p']], Bool[np.ndarray, 'p']]


class Pairs(NamedTuple):
    """Queries, ascending, each with every gallery item of its identity, and which are junk.

    `columns` count through `kept`, the gallery items that take part.
    """

    rows: Int[np.ndarray, 'p']
    columns: Int[np.ndarray, 'p']
    junk: Bool[np.ndarray, 'p']
    kept: Int[np.ndarray, 'k']


def find(
    counts: tuple[int, int],
    labels: Sequence[Int[ArrayLike, '_']],
    same_camera: str,
    junk: JunkRule | None = None,
) -> Pairs:
    """All pairs of equal identity; `labels` are ids of both sides, then cameras of both.

    Junk are pairs of one known camera with `same_camera='drop'`, and those of the `junk` rule.
    Raises ValueError for labels that are not as many as `counts`, an unknown word, and where no
    query has a valid match.
    """
    found = of_one_identity(counts, labels, same_camera, junk)
    absent, only_junk = unmatched(found, counts[0])
    if absent + only_junk == counts[0]:
        why = f'{absent} have no such identity in the gallery, {only_junk} only under their own'
        raise ValueError(f'none of {counts[0]} queries has a valid match: {why} camera')
    return found


def of_one_identity(
    counts: tuple[int, int],
    labels: Sequence[Int[ArrayLike, '_']],
    same_camera: str,
    junk: JunkRule | None = None,
) -> Pairs:
    """As `find`, also where no query has a valid match."""
    if same_camera not in SAME_CAMERA:
        raise ValueError(f'same_camera is one of {", ".join(SAME_CAMERA)}, not {same_camera!r}')
    query_ids, gallery_ids, query_cameras, gallery_cameras = _checked(counts, labels)
    kept = np.flatnonzero(gallery_ids != JUNK)
    rows, columns = _equal(query_ids, gallery_ids[kept])
    cameras = query_cameras[rows]
    own = (cameras == gallery_cameras[kept][columns]) & (cameras != UNKNOWN)
    dropped = own & (same_camera == 'drop')
    if junk is not None:
        dropped |= junk(rows, kept[columns])
    return Pairs(rows, columns, dropped, kept)


def unmatched(found: Pairs, queries: int) -> tuple[int, int]:
    """How many queries the gallery has no item of, and how many only junk."""
    there = np.bincount(found.rows, minlength=queries) > 0
    valid = np.bincount(found.rows[~found.junk], minlength=queries) > 0
    return int((~there).sum()), int((there & ~valid).sum())


def _checked(counts, labels) -> list[np.ndarray]:
    labels = [np.asarray(values) for values in labels]
    names = ('query_ids', 'gallery_ids', 'query_cameras', 'gallery_cameras')
    for name, values, count in zip(names, labels, (*counts, *counts)):
        if len(values) != count:
            raise ValueError(f'{name} holds {len(values)} values where {count} are to be ranked')
    return labels


def _equal(queries, gallery) -> tuple[np.ndarray, np.ndarray]:
    """Every query with every gallery item of its identity, both ascending."""
    order = np.argsort(gallery, kind='stable')
    low, high = (np.searchsorted(gallery[order], queries, side) for side in ('left', 'right'))
    rows = np.repeat(np.arange(len(queries)), high - low)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
    return rows, order[low[rows] + place]
