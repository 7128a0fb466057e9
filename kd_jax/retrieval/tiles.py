"""The gallery in tiles of one shape, shared out over devices, and the distances to them.

A product's rounding depends on its shape: as every tile has the same, distances are the same on
any number of devices.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Num

from kd_jax.retrieval.metrics import Metric

LARGEST = 2**13  # gallery features in a tile
SMALLEST = 2**7
SLICE = 2**7  # of them that are made together
SHARES = 8  # into which also a small gallery is cut, so that several devices have a part


class Part(NamedTuple):
    """Distances of queries to `count` gallery items from the `first` on, on the host or a device.

    On a device, columns from `count` on only fill up: they are infinitely far.
    """

    distances: Num[Array | np.ndarray, 'b t']
    first: int
    count: int


class Tile(NamedTuple):
    """Gallery features on a device, of `count` items numbered from `first`.

    `groups` says which of the tile's items a feature is of, None where each is an item. Rows that
    fill the tile up are infinitely far.
    """

    features: Float32[Array, 't d']
    offsets: Float32[Array, 't']
    groups: Int[Array, 't'] | None
    first: int
    count: int


class Tiled(NamedTuple):
    """A gallery's tiles on the devices of this process, none of more than `items` items.

    `held` is what the host's distances were last written to.
    """

    tiles: list[Tile]
    items: int
    held: list[Float32[np.ndarray, '_ _']]

    def distances(self, query: Float32[np.ndarray, 'b d']) -> list[Part]:
        """The distances of queries' features to the items of all tiles.

        On the host it is one part, and is written over by the next call.
        """
        devices = {tile.features.device for tile in self.tiles}
        there = {device: jax.device_put(query, device) for device in devices}
        parts = (
            Part(_distances(there[tile.features.device], *tile[:3], self.items), *tile[3:])
            for tile in self.tiles
        )
        if not devices or not all(map(_is_host, devices)):
            return list(parts)
        first, last = self.tiles[0].first, self.tiles[-1].first + self.tiles[-1].count
        shape = len(query), last - first
        if not self.held or self.held[0].shape != shape:
            self.held[:] = [np.empty(shape, np.float32)]  # new memory for each call takes long
        return [_in_one(parts, self.held[0], first)]


def tiled(
    gallery: Num[np.ndarray, 'g d'],
    metric: Metric,
    rows: Int[np.ndarray, 'k'],
    groups: Int[np.ndarray, 'k'] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Tiled:
    """The gallery's `rows`, or groups of them, ascending, in tiles.

    With `groups`, the number from 0 of each row's item, ascending, an item is as near as its
    nearest row. Each of the devices (one, without) holds its share of the rows, a run of them. In
    one process of several, the tiles of its own devices are made.
    """
    cuts, size, items = _cuts(len(rows), groups)
    # In order of processes, so that the tiles of each follow one another.
    devices = sorted(devices or jax.local_devices()[:1], key=lambda one: one.process_index)
    placed = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        device = devices[number * len(devices) // (len(cuts) - 1)]
        if device.process_index == jax.process_index():
            of_tile = None if groups is None else groups[start:end]
            tile = _tile(gallery, rows[start:end], metric, of_tile, size)
            span = (start, end) if groups is None else (groups[start], groups[end - 1] + 1)
            placed.append(Tile(*jax.device_put(tile, device), int(span[0]), int(np.ptp(span))))
    return Tiled(placed, items, [])


def _is_host(device: jax.Device) -> bool:
    return device.platform == 'cpu'


def _in_one(parts: Iterable[Part], held: Float32[np.ndarray, 'b g'], first: int) -> Part:
    """Parts that follow one another, each forgotten when it is copied: long rows count faster."""
    for part in parts:
        into = held[:, part.first - first :][:, : part.count]
        into[:] = np.asarray(part.distances)[:, : part.count]
    return Part(held, first, held.shape[1])


def _cuts(rows: int, groups: Int[np.ndarray, 'k'] | None) -> tuple[list[int], int, int]:
    """Where tiles begin and end, none within a group; how many rows and items the largest has."""
    size = 2 ** int(np.ceil(np.log2(max(rows / SHARES, 1))))
    size = int(np.clip(size, SMALLEST, LARGEST))
    if groups is None:
        size = max(-(-rows // -(-rows // size)), SMALLEST)  # even, so that little is filled up
        return [*range(0, rows, size), rows], size, size
    ends = np.append(np.flatnonzero(np.diff(groups)) + 1, rows)
    cuts = [0]
    while cuts[-1] < rows:
        within = np.searchsorted(ends, cuts[-1] + size, 'right') - 1
        cuts.append(int(ends[max(within, np.searchsorted(ends, cuts[-1], 'right'))]))
    spans = [groups[end - 1] + 1 - groups[start] for start, end in pairwise(cuts)]
    return cuts, max(size, int(np.diff(cuts).max())), int(max(spans))


def _tile(gallery, rows, metric, groups, size) -> tuple:
    """Features, offsets and groups of a tile, filled up to its size."""
    features = np.zeros((size, gallery.shape[1]), np.float32)
    offsets = np.full(size, np.inf, np.float32)
    for start in range(0, len(rows), SLICE):  # or else there would be copies of the whole tile
        part = slice(start, min(start + SLICE, len(rows)))
        features[part], offsets[part] = metric.gallery(gallery[rows[part]])
    if groups is None:
        return features, offsets, None
    filled = np.zeros(size, np.int32)
    filled[: len(rows)] = groups - groups[0]
    return features, offsets, filled


@partial(jax.jit, static_argnames='items')
def _distances(
    query: Float32[Array, 'b d'],
    features: Float32[Array, 't d'],
    offsets: Float32[Array, 't'],
    groups: Int[Array, 't'] | None,
    items: int,
) -> Float[Array, 'b items']:
    found = offsets - jnp.matmul(query, features.T, precision=lax.Precision.HIGHEST)
    return found if groups is None else jax.ops.segment_min(found.T, groups, items).T
