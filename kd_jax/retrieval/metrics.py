"""Metrics: features such that one product orders the gallery as the distance does.

They are made a slice at a time, as a gallery may be as large as memory.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Num

SLICE = 8192  # rows that are looked at together


class Metric(NamedTuple):
    """A metric of one gallery: `offsets - query . gallery` is in the order of distance.

    `query` makes features of rows of queries, `gallery` features and offsets of gallery rows.
    """

    query: Callable[[Float[np.ndarray, 'b d']], Float32[np.ndarray, 'b d']]
    gallery: Callable[[Float[np.ndarray, 't d']], tuple[np.ndarray, np.ndarray]]


def cosine(*_) -> Metric:
    """The angle between vectors; a zero vector has similarity 0 to all."""
    return Metric(_unit, lambda rows: (_unit(rows), np.zeros(len(rows), np.float32)))


def _unit(features: Float[np.ndarray, 'n d']) -> Float32[np.ndarray, 'n d']:
    features = as_floats(features)
    largest = np.abs(features).max(axis=1, keepdims=True)  # so that no square over- or underflows
    features = features / np.where(largest > 0, largest, 1)
    norm = np.linalg.norm(features, axis=1, keepdims=True)  # at least 1, or 0 for a zero vector
    return (features / np.maximum(norm, 1)).astype(np.float32)


def euclidean(query: Num[np.ndarray, 'q d'], gallery: Num[np.ndarray, 'g d']) -> Metric:
    """|q - g|^2 orders as |g|^2 / 2 - q . g, which loses least about the middle of the gallery."""
    largest = max(np.abs(rows).max() for side in (query, gallery) for rows in slices(side))
    exponent = int(np.frexp(largest)[1])
    total = sum(_scaled(rows, exponent).sum(axis=0, dtype=np.float64) for rows in slices(gallery))
    centre = (total / len(gallery)).astype(_scaled(gallery[:1], exponent).dtype)

    def centred(rows):
        return (_scaled(rows, exponent) - centre).astype(np.float32)

    def of_gallery(rows):
        rows = centred(rows)
        offsets = np.einsum('gd,gd->g', rows, rows, dtype=np.float64) / 2
        return rows, offsets.astype(np.float32)

    return Metric(centred, of_gallery)


def _scaled(rows: Num[np.ndarray, 'n d'], exponent: int) -> Float[np.ndarray, 'n d']:
    """Rows divided by a power of two, so that squares stay finite."""
    return np.ldexp(as_floats(rows), -exponent)


def as_floats(rows: Num[np.ndarray, 'n d']) -> Float[np.ndarray, 'n d']:
    """The rows as float32, or float64 where they are that."""
    return rows.astype(np.promote_types(rows.dtype, np.float32), copy=False)


def slices(rows: Num[np.ndarray, 'n d']) -> Iterator[Float[np.ndarray, 's d']]:
    """The rows as floats, a slice at a time."""
    return (as_floats(rows[start : start + SLICE]) for start in range(0, len(rows), SLICE))


METRICS = {'cosine': cosine, 'euclidean': euclidean}
