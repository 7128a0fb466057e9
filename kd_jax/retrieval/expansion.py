"""Query expansion: every vector becomes a mean of its nearest (Chum et al., ICCV 2007)."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Float32, Num

from kd_jax.retrieval import neighbours
from kd_jax.retrieval.metrics import as_floats
from kd_jax.retrieval.neighbours import Neighbours

ROWS = 128  # vectors that are averaged at a time

Sides = tuple[Num[np.ndarray, 'q d'], Num[np.ndarray, 'g d']]


def expanded(
    query: Num[np.ndarray, 'q d'],
    gallery: Num[np.ndarray, 'g d'],
    *,
    count: int,
    alpha: float,
    rounds: int,
    devices: Sequence[jax.Device] | None = None,
) -> Sides:
    """Query and gallery vectors as means of the `count` nearest of both, themselves among them.

    Nearest by the cosine, weighed by its power `alpha` (α-QE: Radenović et al., TPAMI 2019; of the
    gallery this is database-side augmentation); negative cosines weigh nothing. `rounds` times
    over. Raises ValueError for what can not be.
    """
    check(count, alpha, rounds)
    sides = query, gallery
    for _ in range(rounds):
        among = neighbours.space(*sides, 'cosine', devices)
        near = neighbours.nearest(among, count)
        cosines = 1 - near.squared / 2
        weights = np.where(cosines > 0, np.abs(cosines) ** np.float32(alpha), 0)
        sides = _means(sides, near, weights)
    return sides


def check(count: int, alpha: float, rounds: int) -> None:
    """Raise the ValueError of numbers that can not be."""
    if count < 1 or alpha < 0 or rounds < 1:
        raise ValueError(
            'query expansion needs a count and rounds of 1 or more and an alpha of 0 or more, not '
            f'count={count}, alpha={alpha}, rounds={rounds}'
        )


def _means(sides: Sides, near: Neighbours, weights: Float[np.ndarray, 'n k']) -> Sides:
    """The weighted means of vectors, of either side, a few at a time."""
    parts = [
        _mean(sides, near.index[at : at + ROWS], weights[at : at + ROWS])
        for at in range(0, len(weights), ROWS)
    ]
    found, cut = np.concatenate(parts), len(sides[0])
    return found[:cut], found[cut:]


def _mean(sides: Sides, index, weights) -> Float32[np.ndarray, 'r d']:
    query, gallery = sides
    of_query = (index < len(query))[..., None]
    first = query[np.minimum(index, len(query) - 1)]
    second = gallery[np.maximum(index - len(query), 0)]
    vectors = as_floats(np.where(of_query, first, second))
    return np.einsum('rkd,rk->rd', vectors, weights / np.float32(index.shape[1])).astype(np.float32)
