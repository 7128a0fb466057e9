"""What a ranking is worth: cumulative matches, average precisions, inverse negative penalty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from kd_jax.retrieval.pairs import Pairs


class Ranking(NamedTuple):
    """What a ranking is worth, one value per query; NaN where a query has no valid match.

    `first_rank` counts from 1, and is 0 where not `valid`. `average_precision` is the mean of the
    precisions at each match; `average_precision_trapezoid` takes there the mean of the precisions
    before and at the match (Market-1501, MARS) and is never more: for one match at rank 2 they
    are 0.5 and 0.25. `inverse_negative_penalty` is matches / rank of the last match. The means
    and the curve are over the valid queries.
    """

    first_rank: Int[np.ndarray, 'q']
    average_precision: Float[np.ndarray, 'q']
    average_precision_trapezoid: Float[np.ndarray, 'q']
    inverse_negative_penalty: Float[np.ndarray, 'q']
    valid: Bool[np.ndarray, 'q']
    gallery_size: int

    @property
    def mAP(self) -> float:
        return float(self.average_precision[self.valid].mean())

    @property
    def mAP_trapezoid(self) -> float:
        return float(self.average_precision_trapezoid[self.valid].mean())

    @property
    def mINP(self) -> float:
        return float(self.inverse_negative_penalty[self.valid].mean())

    @property
    def cmc(self) -> Float[np.ndarray, 'g']:
        """Share of queries with a match among the first 1, 2, ..., g gallery items."""
        found = np.bincount(self.first_rank[self.valid], minlength=self.gallery_size + 1)
        return np.cumsum(found)[1 : self.gallery_size + 1] / self.valid.sum()

    def rank(self, k: int) -> float:
        """Share of queries with a match among the first `k` gallery items."""
        if k < 1:
            raise ValueError(f'rank-k starts at k=1, not {k}')
        return float(np.mean(self.first_rank[self.valid] <= k))


def score(found: Pairs, places: Int32[np.ndarray, 'p'], queries: int, gallery: int) -> Ranking:
    """The ranking where each pair's item has so many items of `gallery` before it."""
    rows, junk = found.rows, found.junk
    order = np.lexsort((places, rows))
    rows, junk = rows[order], junk[order]
    ranks = (places[order] + 1 - _running_count(junk, rows))[~junk]
    rows = rows[~junk]
    hits = _running_count(np.ones_like(rows), rows)
    matches = np.bincount(rows, minlength=queries)
    of_query = matches[rows]
    precision = hits / ranks
    before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1)
    shares = precision / of_query, (precision + before) / 2 / of_query
    parts = (ranks * (hits == 1), *shares, precision * (hits == of_query))
    first_rank, *scores = (np.bincount(rows, part, queries) for part in parts)
    valid = matches > 0
    scores = (np.where(valid, score, np.nan) for score in scores)
    return Ranking(first_rank.astype(int), *scores, valid, gallery)


def joined(parts: Sequence[Ranking]) -> Ranking:
    """One ranking of the queries of several, of one gallery."""
    columns = zip(*(part[:-1] for part in parts))
    return Ranking(*map(np.concatenate, columns), parts[0].gallery_size)


def _running_count(flags, rows: Int[np.ndarray, 'p']) -> Int[np.ndarray, 'p']:
    """How many flags are set up to each pair, within its own query."""
    totals = np.bincount(rows, flags).astype(int)
    return np.cumsum(flags) - (np.cumsum(totals) - totals)[rows]
