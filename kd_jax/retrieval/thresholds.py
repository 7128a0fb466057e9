"""The distance below which two images are taken for one identity, at a given false-match rate.

Exact, in two passes over all pairs of images, a block at a time: the first counts distances by
their upper bits, the second those near the threshold by the lower bits.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Bool, Float32, Int, Int32, Num

from kd_jax.retrieval import counting, streaming, tiles
from kd_jax.retrieval.metrics import METRICS
from kd_jax.retrieval.pairs import UNKNOWN
from kd_jax.retrieval.tiles import Part

ROWS = 256  # images at most that are compared with all others at a time
BLOCK_BYTES = 2**26  # of distances that are held at a time
BITS = 16  # the lower ones of a distance's 31

# Distances, as `counting.keys`, of pairs of different identities and of pairs of one.
Keys = tuple[Int32[np.ndarray, 'p'], Int32[np.ndarray, 's']]


class Threshold(NamedTuple):
    """Two images match where their distance is below `distance`.

    `false_matches` of the `different` pairs do, and `true_matches` of the pairs of one identity,
    `same`. One pair more would match falsely at any larger threshold, and exceed the `rate`.
    """

    rate: float
    distance: float
    false_matches: int
    different: int
    true_matches: int
    same: int


class Labelled(NamedTuple):
    """Images and whom they show; `cameras` are -1 where unknown.

    Distractors are of one number among `identities`: they differ from all others, and whether two
    of them are one is unknown.
    """

    vectors: Num[np.ndarray, 'n d']
    identities: Int[np.ndarray, 'n']
    cameras: Int[np.ndarray, 'n']
    distractors: Bool[np.ndarray, 'n']


def thresholds(
    images: Labelled,
    rates: Sequence[float],
    *,
    metric: str,
    devices: Sequence[jax.Device] | None = None,
) -> list[Threshold]:
    """The largest threshold at which at most a share `rate` of different pairs match.

    Pairs of one identity by one camera are left out, as too easy. Raises ValueError for a rate
    that is none, or of which there are too few pairs, and where no two identities differ.
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise ValueError(f'a false-match rate lies between 0 and 1, not at {rate:g}')
    pairs = partial(_pairs, images, metric, devices)
    coarse = _coarse(pairs())
    totals = coarse.sum(axis=1)
    allowed = [_allowed(rate, int(totals[0])) for rate in rates]
    upper = [int(np.searchsorted(np.cumsum(coarse[0]), most, 'right')) for most in allowed]
    fine = _fine(pairs(), sorted(set(upper)))
    return [
        _threshold(rate, most, bits, coarse, fine[bits])
        for rate, most, bits in zip(rates, allowed, upper)
    ]


def _allowed(rate: float, different: int) -> int:
    """How many of the pairs of different identities may match."""
    if not different:
        raise ValueError('no two images are of different identities: none can match falsely')
    most = int(Fraction(repr(float(rate))) * different)  # 0.29 of 100 are 29, as floats 28
    if not most:  # 1.06, as a rate rounded down would be refused again
        raise ValueError(
            f'a false-match rate of {rate:g} is less than one of the {different:,} pairs of '
            f'different identities: ask for {1.06 / different:.2g} or more, or give more images'
        )
    return most


def _threshold(
    rate: float, most: int, bits: int, coarse: Int[np.ndarray, '2 u'], fine: Int[np.ndarray, '2 l']
) -> Threshold:
    """The distance of the pair that would be one too many, and how many are nearer."""
    below = coarse[:, :bits].sum(axis=1)
    low = int(np.searchsorted(below[0] + np.cumsum(fine[0]), most, 'right'))
    key = np.array([(bits << BITS) + low], np.int32)
    matches, totals = below + fine[:, :low].sum(axis=1), coarse.sum(axis=1)
    numbers = (int(of[side]) for side in (0, 1) for of in (matches, totals))
    return Threshold(rate, float(counting.floats(key)[0]), *numbers)


def _coarse(pairs: Iterator[Keys]) -> Int[np.ndarray, '2 u']:
    """How many pairs, different and same, there are of each number that upper bits make."""
    counts = np.zeros((2, 2 ** (31 - BITS)), np.int64)
    for sides in pairs:
        for side, keys in enumerate(sides):
            counts[side] += np.bincount(keys >> BITS, minlength=counts.shape[1])
    return counts


def _fine(pairs: Iterator[Keys], upper: Sequence[int]) -> dict[int, Int[np.ndarray, '2 l']]:
    """Of pairs with some upper bits, how many there are of each number that the lower ones make."""
    counts = {bits: np.zeros((2, 2**BITS), np.int64) for bits in upper}
    for sides in pairs:
        for side, keys in enumerate(sides):
            for bits, found in counts.items():
                lower = keys[keys >> BITS == bits] & (2**BITS - 1)
                found[side] += np.bincount(lower, minlength=2**BITS)
    return counts


def _pairs(images: Labelled, metric: str, devices: Sequence[jax.Device] | None) -> Iterator[Keys]:
    """Every pair of images once, a block at a time."""
    vectors, every = images.vectors, np.arange(len(images.vectors))
    fitted = METRICS[metric](vectors, vectors)
    tiled = tiles.tiled(vectors, fitted, every, devices=devices)
    size = int(np.clip(BLOCK_BYTES // (4 * len(vectors)), 2, ROWS))
    for start in range(0, len(vectors), size):
        logging.log_every_n_seconds(
            logging.INFO, 'pairs of %d of %d images', 10, start, len(vectors)
        )
        rows = np.minimum(np.arange(start, start + size), len(vectors) - 1)  # of one shape
        features = fitted.query(vectors[rows])
        own = fitted.own(features)[:, None]
        later = [tile for tile in tiled.tiles if tile.first + tile.count > start]
        first = every[start : start + size]
        for distances, columns in _slices(tiled._replace(tiles=later).distances(features)):
            squared = fitted.squared(distances, own)
            keys = counting.keys(streaming.distances(squared, metric))
            yield _keys(images, keys[: len(first)], first[:, None], every[columns][None])


def _slices(parts: Sequence[Part]) -> Iterator[tuple[Float32[np.ndarray, 'b t'], slice]]:
    """Some of the columns of a part at a time, as several arrays are made of them."""
    for part in parts:
        distances = np.asarray(part.distances)[:, : part.count]
        for at in range(0, part.count, tiles.LARGEST):
            some = distances[:, at : at + tiles.LARGEST]
            yield some, slice(part.first + at, part.first + at + some.shape[1])


def _keys(images: Labelled, keys: Int32[np.ndarray, 'b t'], rows, columns) -> Keys:
    """Those of pairs of different identities, and those of one identity."""
    pids, cameras = images.identities, images.cameras
    later = columns > rows
    equal = pids[rows] == pids[columns]
    one = equal & ~images.distractors[rows] & later
    one &= (cameras[rows] != cameras[columns]) | (cameras[rows] == UNKNOWN)
    return keys[~equal & later], keys[one]
