"""How far a result depends on which queries were asked: bootstrap intervals and a paired test.

Both take queries as independent of each other. Those of one identity are not quite, so intervals
are rather too narrow than too wide; training with other seeds is not in them at all.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kd_jax.retrieval.scores import Ranking

SAMPLES, FLIPS = 2000, 9999
COVERED = 0.95
AT_ONCE = 2**21  # draws that are held together


class Difference(NamedTuple):
    """A difference of means, its interval, and the share of as large ones by chance alone."""

    mean: Float[np.ndarray, 'k']
    low: Float[np.ndarray, 'k']
    high: Float[np.ndarray, 'k']
    p: Float[np.ndarray, 'k']


def of_queries(ranking: Ranking, quoted: str, ranks: tuple[int, ...]) -> Float[np.ndarray, 'q k']:
    """Of each valid query the quoted average precision, and whether it is found by each rank."""
    trapezoid = quoted == 'mAP_trapezoid'
    column = ranking.average_precision_trapezoid if trapezoid else ranking.average_precision
    found = [ranking.first_rank <= rank for rank in ranks]
    return np.stack([column, *found], axis=1)[ranking.valid].astype(float)


def interval(values: Float[np.ndarray, 'q k'], seed: int = 0) -> Float[np.ndarray, '2 k']:
    """Where the middle 95 % of the means of resampled queries lie (percentile bootstrap)."""
    rng, count = np.random.default_rng(seed), len(values)
    even = np.full(count, 1 / count)
    means = [
        rng.multinomial(count, even, samples) @ values / count
        for samples in _portions(SAMPLES, count)
    ]
    tail = (1 - COVERED) / 2
    return np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)


def paired(
    first: Float[np.ndarray, 'q k'], second: Float[np.ndarray, '_ k'], seed: int = 0
) -> Difference:
    """The difference of two runs on the same queries, and a two-sided sign-flip test of it.

    Raises ValueError where they are not as many.
    """
    if first.shape != second.shape:
        raise ValueError(f'{len(first)} queries can not be paired with {len(second)}')
    apart, rng = first - second, np.random.default_rng(seed + 1)
    low, high = interval(apart, seed)
    seen = np.abs(apart.sum(axis=0))
    reached = np.zeros(apart.shape[1], int)
    for flips in _portions(FLIPS, len(apart)):
        signs = rng.integers(0, 2, (flips, len(apart)), dtype=np.int8) * np.int8(2) - np.int8(1)
        reached += (np.abs(signs @ apart) >= seen * (1 - 1e-12)).sum(axis=0)
    return Difference(apart.mean(axis=0), low, high, (1 + reached) / (1 + FLIPS))


def _portions(whole: int, size: int) -> Iterator[Int]:
    """The number of draws in parts, each of so many that they are held together."""
    step = max(AT_ONCE // size, 1)
    return (min(step, whole - done) for done in range(0, whole, step))
