"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), sparse and a block of queries at a time.

What three codebases call by that name differs:

zhong            the paper's code and torchreid: the squared distance is squared once more, divided
                 by its largest, and weighs neighbours by exp(-d)
strong_baseline  the same of the squared distance, with weights and overlaps in half precision
fastreid         k1 neighbours with the image itself (not k1 + 1), weighed by exp(-d) of the squared
                 distance as it is, and added to the distance as it is
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Num
from scipy import sparse

from kd_jax.retrieval import neighbours
from kd_jax.retrieval.neighbours import Neighbours, Space

ROWS = 256  # images whose neighbourhoods are looked at together
OVERLAPS = 2**20  # overlaps of queries and gallery images that are summed together


class Variant(NamedTuple):
    """In what codebases differ: `itself` counts beside k1; `power` of the relative distance.

    With power 0 the distance is taken as it is. `half`: weights and overlaps are float16.
    """

    itself: int
    power: int
    half: bool = False


VARIANTS = {
    'zhong': Variant(1, 2),
    'strong_baseline': Variant(1, 1, half=True),
    'fastreid': Variant(0, 0),
}


def distances(
    query: Num[np.ndarray, 'q d'],
    gallery: Num[np.ndarray, 'g _'],
    *,
    metric: str,
    variant: str,
    k1: int,
    k2: int,
    weight: float,
    devices: Sequence[jax.Device] | None = None,
) -> Callable[[Int[np.ndarray, 'b']], Float32[np.ndarray, 'b g']]:
    """Re-ranked distances of some queries: (1 - weight) Jaccard + weight original (eq. 12).

    `k1` are the neighbours that are to be reciprocal, over the vectors of `k2` the neighbourhoods
    are averaged (1: not). Raises ValueError for what can not be.
    """
    check(variant, k1, k2, weight)
    kind, among = VARIANTS[variant], neighbours.space(query, gallery, metric, devices)
    near = neighbours.nearest(among, max(k1 + kind.itself, k2))
    found = _weights(among, near, k1, kind)
    if k2 > 1:
        found = _averaged(found, near.index[:, :k2], kind.half)
    columns = found[len(query) :].tocsc()
    found = found[: len(query)]

    def of_rows(rows):
        original = among.to_gallery(query[rows])
        original = _relative(original, near.farthest[rows], kind)
        if not kind.power and metric == 'cosine':
            original /= 2  # 1 - cos
        return (1 - weight) * _jaccard(found[rows], columns, kind.half) + weight * original

    return of_rows


def check(variant: str, k1: int, k2: int, weight: float) -> None:
    """Raise the ValueError of an unknown variant, or of numbers that can not be."""
    if variant not in VARIANTS:
        raise ValueError(f're-ranking is one of {", ".join(VARIANTS)} (or none), not {variant!r}')
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise ValueError(
            're-ranking needs k1 and k2 of 1 or more and a weight from 0 to 1, not '
            f'k1={k1}, k2={k2}, weight={weight}'
        )


def _relative(squared, farthest: Float32[np.ndarray, 'b'], kind: Variant):
    """The original distance as a variant takes it, of rows with a given farthest image."""
    if not kind.power:
        return squared
    return (squared / np.maximum(farthest, np.finfo(np.float32).tiny)[:, None]) ** kind.power


def _weights(among: Space, near: Neighbours, k1: int, kind: Variant) -> sparse.csr_array:
    """Each image's neighbourhood as a row of weights that sum to 1 (eq. 7)."""
    mine = near.index[:, : k1 + kind.itself]
    half = near.index[:, : int(np.around(k1 / 2)) + 1]
    both = [(index, _reciprocal(index)) for index in (mine, half)]
    parts = [_weighed(among, near, rows, *both, kind) for rows in _chunks(among.size)]
    return sparse.vstack(parts, format='csr')


def _chunks(count: int) -> Iterator[Int[np.ndarray, 'r']]:
    return (np.arange(start, min(start + ROWS, count)) for start in range(0, count, ROWS))


def _reciprocal(index: Int[np.ndarray, 'n k']) -> Bool[np.ndarray, 'n k']:
    """Which neighbours have the image among their own (eq. 3)."""
    chunks = _chunks(len(index))
    return np.concatenate(
        [(index[index[rows]] == rows[:, None, None]).any(axis=2) for rows in chunks]
    )


def _weighed(among, near, rows, mine, half, kind) -> sparse.csr_array:
    """Rows of `_weights`, of the expanded neighbourhoods of some images (eq. 5)."""
    (index, kept), (half_index, half_kept) = mine, half
    index, kept = index[rows], kept[rows]
    others, of_others = half_index[index], half_kept[index] & kept[:, :, None]
    own = np.where(kept, index, -1)
    shared = ((others[..., None] == own[:, None, None]).any(axis=3) & of_others).sum(axis=2)
    of_others &= (shared > 2 / 3 * of_others.sum(axis=2))[:, :, None]
    first, second = np.nonzero(kept), np.nonzero(of_others)
    row = np.concatenate([first[0], second[0]])
    column = np.concatenate([index[first], others[second]])
    row, column = np.divmod(np.unique(row * among.size + column), among.size)
    squared = _pairs(among, rows[row], column)
    distance = _relative(squared[:, None], near.farthest[rows[row]], kind)[:, 0]
    nearest = np.full(len(rows), np.inf, np.float32)  # of a row without neighbours
    np.minimum.at(nearest, row, distance)
    weights = np.exp(nearest[row] - distance)
    weights /= np.bincount(row, weights, len(rows)).astype(np.float32)[row]
    return sparse.csr_array((_rounded(weights, kind.half), (row, column)), (len(rows), among.size))


def _pairs(among: Space, rows, columns) -> Float32[np.ndarray, 'p']:
    """The squared distances of pairs of images, ascending by row."""
    known, places = np.unique(columns, return_inverse=True)
    own, of = np.unique(rows, return_inverse=True)
    there, offsets = among.metric.gallery(among.vectors(known))
    here = among.metric.query(among.vectors(own))
    cuts = np.searchsorted(of, np.arange(len(own) + 1))
    products = np.concatenate(
        [there[places[low:high]] @ one for one, low, high in zip(here, cuts[:-1], cuts[1:])]
    )
    return among.metric.squared(offsets[places] - products, among.metric.own(here)[of])


def _averaged(weights: sparse.csr_array, index: Int[np.ndarray, 'n k'], half: bool):
    """The mean of each image's nearest neighbourhoods: local query expansion (eq. 11)."""
    count, several = index.shape
    starts = np.arange(0, count * several + 1, several)
    ones = np.ones(count * several, np.float32)
    found = sparse.csr_array((ones, index.reshape(-1), starts), (count, count)) @ weights
    found.data = _rounded(found.data / np.float32(several), half)
    return found


def _jaccard(rows: sparse.csr_array, columns: sparse.csc_array, half: bool):
    """1 - overlap / (2 - overlap) of queries' neighbourhoods with all of the gallery (eq. 10)."""
    count = columns.shape[0]
    step = max(OVERLAPS // count, 1)
    parts = [_overlap(rows[at : at + step], columns, half) for at in range(0, rows.shape[0], step)]
    overlap = np.concatenate(parts)
    return np.maximum(1 - overlap / (2 - overlap), 0)


def _overlap(rows, columns, half: bool) -> Float[np.ndarray, 'b g']:
    """The sums of the lesser of both weights."""
    shape = rows.shape[0], columns.shape[0]
    rows.sort_indices()
    length = np.diff(columns.indptr)[rows.indices]
    entry = np.repeat(columns.indptr[rows.indices] - np.cumsum(length) + length, length)
    entry += np.arange(length.sum(), dtype=entry.dtype)
    lesser = np.minimum(np.repeat(rows.data, length), columns.data[entry])
    of = np.repeat(np.arange(shape[0]), np.diff(rows.indptr))
    place = np.repeat(of * shape[1], length) + columns.indices[entry]
    if not half:
        return np.bincount(place, lesser, shape[0] * shape[1]).reshape(shape).astype(np.float32)
    found = np.zeros(shape[0] * shape[1], np.float16)
    np.add.at(found, place, lesser.astype(np.float16))
    return found.reshape(shape)


def _rounded(values: Float[np.ndarray, 'n'], half: bool) -> Float32[np.ndarray, 'n']:
    """The values as float32, to the precision of float16 with `half`."""
    return (values.astype(np.float16) if half else values).astype(np.float32)
