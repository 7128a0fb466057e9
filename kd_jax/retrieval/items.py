"""What is ranked: sets of test images that are embedded as one, and whose they are.

Rows count through the query images and then the gallery's; where both are one pool, through it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from kd_jax.data.records import Records, select
from kd_jax.data.sampling import spread


class Items(NamedTuple):
    """Images that are embedded as one, a row of `rows` an item; the rest is of their first one.

    `images` are the rows' numbers of images, equal where query and gallery have the same image.
    `groups` numbers items that rank as one, as near as the nearest of them; None for none.
    """

    rows: Int[np.ndarray, 'i n']
    images: Int[np.ndarray, 'i n']
    pids: Int[np.ndarray, 'i']
    cameras: Int[np.ndarray, 'i']
    tracklets: Int[np.ndarray, 'i']
    frames: Int[np.ndarray, 'i']
    groups: Int[np.ndarray, 'i'] | None = None


class Test(NamedTuple):
    """Query and gallery in one table: `records` of both, of which the first `queries` are queries.

    In a `pool` every image is both. `tracklets`: it consists of tracklets, of which each asks once.
    """

    records: Records
    images: Int[np.ndarray, 'n']
    queries: int
    pool: bool
    tracklets: bool

    @property
    def query(self) -> np.ndarray:
        """The rows of the query images."""
        return np.arange(self.queries)

    @property
    def gallery(self) -> np.ndarray:
        """The rows of the gallery images."""
        return np.arange(0 if self.pool else self.queries, len(self.records.pids))


def together(query: Records, gallery: Records, tracklets: bool = False) -> Test:
    """Query and gallery as one table."""
    if query is gallery:
        return Test(query, np.arange(len(query.pids)), len(query.pids), True, tracklets)
    records = Records(*(np.concatenate(pair) for pair in zip(query, gallery)))
    return Test(records, image_numbers(records), len(query.pids), False, tracklets)


def image_numbers(records: Records) -> Int[np.ndarray, 'n']:
    """A number for each image, equal for equal paths and for what is one sight in two folders.

    That is the same name, identity, camera and frame, both known: VeRi-776's queries are in the
    gallery too.
    """
    numbers: dict[tuple, int] = {}
    keys = (
        (path.rpartition('/')[2], pid, camera, frame) if min(camera, frame) >= 0 else (path,)
        for path, pid, camera, _, frame in zip(*(column.tolist() for column in records))
    )
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def query_items(test: Test, kind: str, frames: int) -> Items:
    """What asks: every query 'image', the 'first' of each query tracklet, or the 'tracklet'.

    Where the data set does not consist of tracklets (VeRi-776), every query image asks, as an
    image or as the gallery's tracklet that shows it; where there is none it does not.
    """
    if kind == 'image' or (kind == 'first' and not test.tracklets):
        return _items(test, test.query[:, None])
    asked = members(test, test.query if test.tracklets else test.gallery)
    if test.tracklets:
        chosen = list(asked.values())
    else:
        numbers = test.records.tracklets[test.query].tolist()
        chosen = [asked[number] for number in numbers if number in asked]
    return _sets(test, chosen, 1 if kind == 'first' else frames)


def gallery_items(test: Test, kind: str, frames: int) -> Items:
    """What is asked for: every 'image', the 'tracklet's, or the images of tracklets.

    These are 'shown', the first of each or, where the data set does not consist of tracklets, all;
    or 'nearest', all of them grouped by tracklet.
    """
    if kind == 'image':
        return _items(test, test.gallery[:, None])
    known = list(members(test, test.gallery).values())
    if kind == 'tracklet' or (kind == 'shown' and test.tracklets):
        return _sets(test, known, frames if kind == 'tracklet' else 1)
    rows = np.concatenate(known) if known else np.zeros(0, np.int64)
    items = _items(test, rows[:, None])
    if kind == 'shown':
        return items
    return items._replace(groups=np.repeat(np.arange(len(known)), list(map(len, known))))


def members(test: Test, rows: Int[np.ndarray, 'n']) -> dict[int, np.ndarray]:
    """The rows of each known tracklet, in the order in which tracklets first come."""
    tracklets = test.records.tracklets[rows]
    order = np.argsort(tracklets, kind='stable')
    numbers, starts = np.unique(tracklets[order], return_index=True)
    parts = dict(zip(numbers.tolist(), np.split(rows[order], starts[1:])))
    parts.pop(-1, None)
    return dict(sorted(parts.items(), key=lambda part: part[1][0]))


def joined(first: Items, second: Items) -> Items:
    """The items of both."""
    columns = (np.concatenate(pair) for pair in zip(first[:6], second[:6]))
    return Items(*columns)


def _sets(test: Test, sets: list[np.ndarray], frames: int) -> Items:
    """Items of so many images of each of several sets of rows."""
    rows = [spread(rows, frames) for rows in sets]
    return _items(test, np.stack(rows) if rows else np.zeros((0, 1), np.int64))


def _items(test: Test, rows: Int[np.ndarray, 'i n']) -> Items:
    """Items of the given rows, labelled as the first of each."""
    return Items(rows, test.images[rows], *select(test.records, rows[:, 0])[1:])
