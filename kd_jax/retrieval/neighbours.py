"""The nearest of query and gallery images together, a block at a time, on one process' devices."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jax import lax
from jaxtyping import Float, Float32, Int, Num

from kd_jax.retrieval import ranking, tiles
from kd_jax.retrieval.metrics import METRICS, Metric
from kd_jax.retrieval.tiles import Part, Tiled

BLOCK_BYTES = 2**26  # of distances that are held at a time


class Space(NamedTuple):
    """Query and gallery vectors by a metric, on devices; images are numbered through both."""

    sides: tuple[Num[np.ndarray, 'q d'], Num[np.ndarray, 'g d']]
    metric: Metric
    tiled: tuple[Tiled, Tiled]

    @property
    def size(self) -> int:
        return sum(map(len, self.sides))

    def vectors(self, rows: Int[np.ndarray, 'n']) -> Num[np.ndarray, 'n d']:
        """The vectors of some images, ascending."""
        query, gallery = self.sides
        cut = np.searchsorted(rows, len(query))
        return np.concatenate([query[rows[:cut]], gallery[rows[cut:] - len(query)]])

    def to_gallery(self, query: Num[np.ndarray, 'b d']) -> Float32[np.ndarray, 'b g']:
        """The squared distances of query vectors to the gallery."""
        features = self.metric.query(query)
        parts = self.tiled[1].distances(features)
        ordered = [np.asarray(part.distances)[:, : part.count] for part in parts]
        own = self.metric.own(features)[:, None]
        return self.metric.squared(np.concatenate(ordered, axis=1), own)


class Neighbours(NamedTuple):
    """The k nearest images of each, nearest first, and the squared distance of its farthest."""

    index: Int[np.ndarray, 'n k']
    squared: Float32[np.ndarray, 'n k']
    farthest: Float32[np.ndarray, 'n']


def space(
    query: Num[np.ndarray, 'q d'],
    gallery: Num[np.ndarray, 'g _'],
    metric: str,
    devices: Sequence[jax.Device] | None = None,
) -> Space:
    """Query and gallery shared out over those of the devices that are this process' own.

    Raises ValueError for features that `ranking.rank` does not take.
    """
    ranking.check_metric(metric)
    query, gallery = ranking.check_features(query, gallery)
    own = [one for one in devices or () if one.process_index == jax.process_index()]
    fitted = METRICS[metric](query, gallery)
    sides = query, gallery
    tiled = (tiles.tiled(side, fitted, np.arange(len(side)), devices=own) for side in sides)
    return Space(sides, fitted, tuple(tiled))


def nearest(among: Space, count: int) -> Neighbours:
    """The `count` nearest images of every one, itself among them; equally near ones in order.

    ValueError where there are fewer images.
    """
    if count > among.size:
        raise ValueError(f'{count} neighbours asked of {among.size} images: set fewer')
    found = [
        [column[:new] for column in _nearest(among, block, count)] for block, new in _blocks(among)
    ]
    return Neighbours(*map(np.concatenate, zip(*found)))


def _blocks(among: Space) -> Iterator[tuple[Num[np.ndarray, 'b d'], int]]:
    """The vectors of all images, in blocks of one shape for each side, and how many are new."""
    most, done = max(BLOCK_BYTES // (4 * among.size), 2), 0
    for side in among.sides:
        size = max(-(-len(side) // -(-len(side) // most)), 2)  # of one row XLA rounds otherwise
        for start in range(0, len(side), size):
            rows = np.arange(start, start + size)
            count = min(size, len(side) - start)
            yield side[np.minimum(rows, len(side) - 1)], count
            done += count
            logging.log_every_n_seconds(
                logging.INFO, 'neighbours of %d of %d images', 10, done, among.size
            )


def _nearest(among: Space, block: Num[np.ndarray, 'b d'], count: int) -> Neighbours:
    """The nearest of one block, of the nearest in each part."""
    features, queries = among.metric.query(block), len(among.sides[0])
    parts = [(part, 0) for part in among.tiled[0].distances(features)]
    parts += [(part, queries) for part in among.tiled[1].distances(features)]
    found = [least_of(part, min(count, part.count)) for part, _ in parts]
    values = np.concatenate([one for one, _, _ in found], axis=1)
    index = [places + part.first + shift for (_, places, _), (part, shift) in zip(found, parts)]
    index, values = in_order(np.concatenate(index, axis=1), values, count)
    farthest = np.max([most for _, _, most in found], axis=0)
    values = np.concatenate([values, farthest[:, None]], axis=1)
    squared = among.metric.squared(values, among.metric.own(features)[:, None])
    return Neighbours(index.astype(np.int32), squared[:, :-1], squared[:, -1])


def in_order(
    places: Int[np.ndarray, 'q n'], values: Num[np.ndarray, 'q n'], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the least values of each row, in order; of equal ones the first."""
    order = np.argsort(values, axis=1, kind='stable')[:, :count]
    return tuple(np.take_along_axis(of, order, axis=1) for of in (places, values))


def least_of(part: Part, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least distances of each row and their places, in order, and the greatest one."""
    if not isinstance(part.distances, np.ndarray):
        return tuple(map(np.asarray, _on_device(part.distances, part.count, count)))
    distances = part.distances[:, : part.count]
    rows = len(distances)
    limit = np.partition(distances, count - 1, axis=1)[:, count - 1]
    row, place = np.nonzero(distances <= limit[:, None])  # more than `count` where some are equal
    values = distances[row, place]
    order = np.lexsort((values, row))  # stable, so that equal ones keep their order
    first = np.searchsorted(row, np.arange(rows))[:, None] + np.arange(count)
    chosen = order[first]
    return values[chosen], place[chosen], distances.max(axis=1)


@partial(jax.jit, static_argnames=('count', 'items'))
def _on_device(distances: Float[jax.Array, 'b t'], items: int, count: int):
    values, places = lax.top_k(-distances[:, :items], count)
    return -values, places, distances[:, :items].max(axis=1)
