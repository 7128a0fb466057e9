"""Metrics: features such that one product orders the gallery as the distance does.

They are made a slice at a time, as a gallery may be as large as memory.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Num

SLICE = 8192  # rows that are looked at together


class Metric(NamedTuple):
    """A metric of one gallery: `offsets - query . gallery` is in the order of distance.

    `query` makes features of query vectors, `gallery` features and offsets of gallery vectors. The
    squared distance (of unit vectors by the cosine: 2 - 2 cos) is
    `scale * (offsets - query . gallery + own(query))`.
    """

    query: Callable[[Num[np.ndarray, 'b d']], Float32[np.ndarray, 'b d']]
    gallery: Callable[[Num[np.ndarray, 't d']], tuple[np.ndarray, np.ndarray]]
    own: Callable[[Float32[np.ndarray, 'b d']], Float32[np.ndarray, 'b']]
    scale: float

    def squared(self, ordered: Float32[np.ndarray, '...'], own: Float32[np.ndarray, '...']):
        """Squared distances, from numbers in their order and what queries add of their own."""
        return np.maximum(np.float32(self.scale) * (ordered + own), 0)


def cosine(*_) -> Metric:
    """The angle between vectors; a zero vector has similarity 0 to all."""

    def of_gallery(rows):
        return _unit(rows), np.zeros(len(rows), np.float32)

    return Metric(_unit, of_gallery, lambda query: np.ones(len(query), np.float32), 2.0)


def _unit(features: Num[np.ndarray, 'n d']) -> Float32[np.ndarray, 'n d']:
    features = as_floats(features)
    squares = 2 * half_square(features)
    if not np.all((squares < 1e200) & ((squares > 1e-200) | (squares == 0))):  # of float64
        features = features / np.maximum(np.abs(features).max(axis=1, keepdims=True), 1e-300)
        squares = 2 * half_square(features)
    found = np.empty(features.shape, np.float32)
    scale = 1 / np.sqrt(np.where(squares > 0, squares, 1))[:, None]
    return np.multiply(features, scale, out=found, dtype=np.float64, casting='same_kind')


def euclidean(query: Num[np.ndarray, 'q d'], gallery: Num[np.ndarray, 'g d']) -> Metric:
    """|q - g|^2 orders as |g|^2 / 2 - q . g, which loses least about the middle of the gallery."""
    largest = max(np.abs(rows).max() for side in (query, gallery) for rows in slices(side))
    exponent = int(np.frexp(largest)[1])
    total = sum(_scaled(rows, exponent).sum(axis=0, dtype=np.float64) for rows in slices(gallery))
    centre = (total / len(gallery)).astype(_scaled(gallery[:1], exponent).dtype)

    def centred(rows):
        return (_scaled(rows, exponent) - centre).astype(np.float32)

    def own(rows):
        return half_square(rows).astype(np.float32)

    def of_gallery(rows):
        return (rows := centred(rows)), own(rows)

    with np.errstate(over='ignore'):  # features of 1e154 are ranked; their distances are Inf
        return Metric(centred, of_gallery, own, float(2 * np.float64(4) ** exponent))


def half_square(rows: Float[np.ndarray, 'n d']) -> Float64[np.ndarray, 'n']:
    """Half of each row's squared length."""
    return np.einsum('nd,nd->n', rows, rows, dtype=np.float64) / 2


def _scaled(rows: Num[np.ndarray, 'n d'], exponent: int) -> Float[np.ndarray, 'n d']:
    """Rows divided by a power of two, so that squares stay finite."""
    return np.ldexp(as_floats(rows), -exponent)


def as_floats(rows: Num[np.ndarray, '*n d']) -> Float[np.ndarray, '*n d']:
    """The rows as float32, or float64 where they are that."""
    return rows.astype(np.promote_types(rows.dtype, np.float32), copy=False)


def slices(rows: Num[np.ndarray, 'n d']) -> Iterator[Float[np.ndarray, 's d']]:
    """The rows as floats, a slice at a time."""
    return (as_floats(rows[start : start + SLICE]) for start in range(0, len(rows), SLICE))


METRICS = {'cosine': cosine, 'euclidean': euclidean}
