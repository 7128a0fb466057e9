"""Which gallery items a query should find, and which count for nothing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int

JUNK = -1  # the identity of gallery items that count for nothing, Market-1501's '-1'
UNKNOWN = -1  # the camera of an image without one
SAME_CAMERA = 'drop', 'keep'
BLOCK = 256  # queries whose pairs are looked at together

ArrayLike = np.ndarray | Array
# Of queries and gallery items (their numbers), which pairs count for nothing.
JunkRule = Callable[[Int[np.ndarray, 'p'], Int[np.ndarray, 'p']], Bool[np.ndarray, 'p']]


class Pairs(NamedTuple):
    """Queries of a block, ascending, each with every gallery item of its identity; which are junk.

    `rows` count from the block's first query, `columns` through the items that take part.
    """

    rows: Int[np.ndarray, 'p']
    columns: Int[np.ndarray, 'p']
    junk: Bool[np.ndarray, 'p']


class Wanted(NamedTuple):
    """What every query should find among the gallery items `kept`, which take part.

    `query` and `gallery` are ids and cameras, those of the gallery of the items that are kept and
    in the `order` of their ids.
    """

    query: tuple[np.ndarray, np.ndarray]
    gallery: tuple[np.ndarray, np.ndarray]
    order: Int[np.ndarray, 'k']
    kept: Int[np.ndarray, 'k']
    drop: bool
    rule: JunkRule | None

    def pairs(self, start: int, stop: int) -> Pairs:
        """All pairs of equal identity, of the queries in a block."""
        ids, cameras = (of[start:stop] for of in self.query)
        rows, columns = self._equal(ids)
        known = cameras[rows]
        own = (known == self.gallery[1][columns]) & (known != UNKNOWN)
        columns = self.order[columns]
        dropped = own & self.drop
        if self.rule is not None:
            dropped |= self.rule(start + rows, self.kept[columns])
        return Pairs(rows, columns, dropped)

    def _equal(self, ids: Int[np.ndarray, 'b']) -> tuple[np.ndarray, np.ndarray]:
        """Every query with every gallery item of its identity, both ascending."""
        low, high = (np.searchsorted(self.gallery[0], ids, side) for side in ('left', 'right'))
        rows = np.repeat(np.arange(len(ids)), high - low)
        first = np.cumsum(high - low) - (high - low)
        return rows, (low - first)[rows] + np.arange(len(rows))


def find(
    counts: tuple[int, int],
    labels: Sequence[Int[ArrayLike, '_']],
    same_camera: str,
    junk: JunkRule | None = None,
) -> Wanted:
    """What queries should find; `labels` are ids of both sides, then cameras of both.

    Junk are pairs of one known camera with `same_camera='drop'`, and those of the `junk` rule.
    Raises ValueError for labels that are not as many as `counts`, an unknown word, and where no
    query has a valid match.
    """
    found = of_one_identity(counts, labels, same_camera, junk)
    absent, only_junk = unmatched(found)
    if absent + only_junk == counts[0]:
        why = f'{absent} have no such identity in the gallery, {only_junk} only under their own'
        raise ValueError(f'none of {counts[0]} queries has a valid match: {why} camera')
    return found


def of_one_identity(
    counts: tuple[int, int],
    labels: Sequence[Int[ArrayLike, '_']],
    same_camera: str,
    junk: JunkRule | None = None,
) -> Wanted:
    """As `find`, also where no query has a valid match."""
    if same_camera not in SAME_CAMERA:
        raise ValueError(f'same_camera is one of {", ".join(SAME_CAMERA)}, not {same_camera!r}')
    query_ids, gallery_ids, query_cameras, gallery_cameras = _checked(counts, labels)
    kept = np.flatnonzero(gallery_ids != JUNK)
    order = np.argsort(gallery_ids[kept], kind='stable')
    gallery = gallery_ids[kept][order], gallery_cameras[kept][order]
    sides = (query_ids, query_cameras), gallery
    return Wanted(*sides, order, kept, same_camera == 'drop', junk)


def unmatched(wanted: Wanted) -> tuple[int, int]:
    """How many queries the gallery has no item of, and how many only junk."""
    queries, absent, only_junk = len(wanted.query[0]), 0, 0
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        found = wanted.pairs(start, stop)
        there = np.bincount(found.rows, minlength=stop - start) > 0
        valid = np.bincount(found.rows[~found.junk], minlength=stop - start) > 0
        absent += int((~there).sum())
        only_junk += int((there & ~valid).sum())
    return absent, only_junk


def _checked(counts, labels) -> list[np.ndarray]:
    labels = [np.asarray(values) for values in labels]
    names = ('query_ids', 'gallery_ids', 'query_cameras', 'gallery_cameras')
    for name, values, count in zip(names, labels, (*counts, *counts)):
        if len(values) != count:
            raise ValueError(f'{name} holds {len(values)} values where {count} are to be ranked')
    return labels
