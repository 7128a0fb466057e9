"""What is ranked: sets of test images that are embedded as one, and whose they are.

Rows count through the query images and then the gallery's; where both are one pool, through it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from kd_jax.data.records import Records, select


class Items(NamedTuple):
    """Images that are embedded as one, a row of `rows` an item; the rest is of their first one.

    `groups` numbers items that rank as one, as near as the nearest of them; None for none.
    """

    rows: Int[np.ndarray, 'i n']
    pids: Int[np.ndarray, 'i']
    cameras: Int[np.ndarray, 'i']
    tracklets: Int[np.ndarray, 'i']
    frames: Int[np.ndarray, 'i']
    groups: Int[np.ndarray, 'i'] | None = None


class Test(NamedTuple):
    """Query and gallery in one table: `records` of both, of which the first `queries` are queries.

    In a `pool` every image is both.
    """

    records: Records
    queries: int
    pool: bool

    @property
    def query(self) -> np.ndarray:
        """The rows of the query images."""
        return np.arange(self.queries)

    @property
    def gallery(self) -> np.ndarray:
        """The rows of the gallery images."""
        return np.arange(0 if self.pool else self.queries, len(self.records.pids))


def test_of(query: Records, gallery: Records) -> Test:
    """Query and gallery as one table."""
    if query is gallery:
        return Test(query, len(query.pids), True)
    columns = (np.concatenate(pair) for pair in zip(query, gallery))
    return Test(Records(*columns), len(query.pids), False)


def query_items(test: Test, kind: str, frames: int) -> Items:
    """What asks: every query 'image', the 'first' of each query tracklet, or the 'tracklet'."""
    if kind == 'image':
        return _items(test, test.query[:, None])
    if kind == 'first':
        return _items(test, first_images(test)[:, None])
    return _query_tracklets(test, frames)


def gallery_items(test: Test, kind: str, frames: int) -> Items:
    """What is asked for: every gallery 'image', every 'tracklet', or its 'nearest' image."""
    if kind == 'image':
        return _items(test, test.gallery[:, None])
    shown = list(members(test, test.gallery).values())
    if not shown:
        return _items(test, np.zeros((0, 1), np.int64))
    if kind == 'tracklet':
        return _items(test, np.stack([spread(rows, frames) for rows in shown]))
    items = _items(test, np.concatenate(shown)[:, None])
    return items._replace(groups=np.repeat(np.arange(len(shown)), list(map(len, shown))))


def first_images(test: Test) -> Int[np.ndarray, 'i']:
    """The rows of the query images that ask for tracklets, or as one image of a tracklet.

    A query image is a frame of a query tracklet where the gallery does not show that tracklet
    (MARS): then the first asks. It stands alone where the gallery does (VeRi-776), or where its
    tracklet is unknown.
    """
    tracklets = test.records.tracklets[test.query]
    alone = np.isin(tracklets, test.records.tracklets[test.gallery]) | (tracklets < 0)
    first = np.zeros(len(tracklets), bool)
    first[np.unique(tracklets, return_index=True)[1]] = True
    return np.flatnonzero(alone | first)


def members(test: Test, rows: Int[np.ndarray, 'n']) -> dict[int, np.ndarray]:
    """The rows of each known tracklet, tracklets and rows in the order in which they come."""
    tracklets = test.records.tracklets[rows]
    order = np.argsort(tracklets, kind='stable')
    numbers, starts = np.unique(tracklets[order], return_index=True)
    parts = np.split(rows[order], starts[1:])
    known = [(part, number) for part, number in zip(parts, numbers.tolist()) if number >= 0]
    known.sort(key=lambda pair: pair[0][0])
    return {number: part for part, number in known}


def spread(rows: Int[np.ndarray, 'n'], frames: int) -> Int[np.ndarray, 'frames']:
    """The first frame of each of `frames` chunks of a tracklet, its last one repeated if short.

    As VKD's code samples test frames: chunks of ceil(n / frames), and past the end the last.
    """
    step = -(-len(rows) // frames)
    return rows[np.minimum(np.arange(frames) * step, len(rows) - 1)]


def joined(first: Items, second: Items) -> Items:
    """The items of both."""
    columns = (np.concatenate(pair) for pair in zip(first[:5], second[:5]))
    return Items(*columns)


def _query_tracklets(test: Test, frames: int) -> Items:
    """The tracklet of each first image, as the gallery shows it, or else the query.

    Queries of an unknown tracklet are left out.
    """
    numbers = test.records.tracklets[first_images(test)]
    shown = {**members(test, test.query), **members(test, test.gallery)}
    chosen = [spread(shown[number], frames) for number in numbers.tolist() if number >= 0]
    return _items(test, np.stack(chosen) if chosen else np.zeros((0, 1), np.int64))


def _items(test: Test, rows: Int[np.ndarray, 'i n']) -> Items:
    """Items of the given rows, labelled as the first of each."""
    return Items(rows, *select(test.records, rows[:, 0])[1:])
