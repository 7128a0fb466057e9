"""The nearest gallery items of queries, exactly, of a gallery that comes a block at a time."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int, Num

from kd_jax.retrieval import tiles
from kd_jax.retrieval.metrics import METRICS
from kd_jax.retrieval.neighbours import in_order, least_of
from kd_jax.retrieval.tiles import Tiled

GALLERY_BYTES = 2**27  # of gallery features that are held at a time
DISTANCE_BYTES = 2**26  # of distances that are held at a time


class Nearest(NamedTuple):
    """The nearest gallery items of every query, nearest first, and their `distances`."""

    index: Int[np.ndarray, 'q k']
    distances: Float32[np.ndarray, 'q k']


def rows_of_block(items: int, width: int) -> int:
    """How many of so many gallery items make a block, where all blocks are about equal."""
    most = max(GALLERY_BYTES // (4 * width), 1)
    return -(-items // -(-items // most))


def nearest(
    query: Num[np.ndarray, 'q d'],
    gallery: Iterable[Num[np.ndarray, '_ d']],
    count: int,
    *,
    metric: str,
    devices: Sequence[jax.Device] | None = None,
) -> Nearest:
    """The `count` nearest of the gallery for every query, or all where there are fewer.

    Equally near items keep the gallery's order. Memory is a block of the gallery, on the host and
    on the devices (one, without them), and at most 64 MiB of distances, with what is made of them.
    Raises ValueError without queries or gallery.
    """
    if not len(query):
        raise ValueError('there are no queries')
    fitted, first = None, 0
    index, ordered = np.zeros((len(query), 0), np.int64), np.zeros((len(query), 0), np.float32)
    for block in gallery:
        # By the first block for all: where the centre lies does not matter but to rounding.
        fitted = fitted or METRICS[metric](query, block)
        placed = tiles.tiled(block, fitted, np.arange(len(block)), devices=devices)
        places, values = _within(placed, fitted.query(query), len(block), count)
        index = np.concatenate([index, places + first], axis=1)
        index, ordered = in_order(index, np.concatenate([ordered, values], axis=1), count)
        first += len(block)
        del placed, block  # before the next are made
    if fitted is None:
        raise ValueError('the gallery is empty')
    squared = fitted.squared(ordered, fitted.own(fitted.query(query))[:, None])
    return Nearest(index, distances(squared, metric))


def distances(squared: Float32[np.ndarray, '*n'], metric: str) -> Float32[np.ndarray, '*n']:
    """What is told of squared distances: 1 - cos, or the euclidean distance."""
    return squared / 2 if metric == 'cosine' else np.sqrt(squared)


def _within(
    gallery: Tiled, features: Float32[np.ndarray, 'q d'], items: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of one block and numbers in the order of their distance."""
    most = max(DISTANCE_BYTES // (4 * items), 2)
    size = max(-(-len(features) // -(-len(features) // most)), 2)  # of one row XLA rounds otherwise
    found = []
    for start in range(0, len(features), size):
        rows = np.minimum(np.arange(start, start + size), len(features) - 1)
        parts = gallery.distances(features[rows])
        near = [least_of(part, min(count, part.count)) for part in parts]
        places = [index + part.first for (_, index, _), part in zip(near, parts)]
        values = [values for values, _, _ in near]
        found.append(in_order(np.concatenate(places, 1), np.concatenate(values, 1), count))
    return tuple(np.concatenate(of)[: len(features)] for of in zip(*found))
