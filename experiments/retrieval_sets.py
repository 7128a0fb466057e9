"""Synthetic test sets of the sizes of real ones, with their numbers of identities and cameras."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

SLICE = 8192  # vectors that are drawn together


class Size(NamedTuple):
    """How large a test set is. `distractors` of the gallery are of no query's identity."""

    queries: int
    gallery: int
    identities: int
    cameras: int
    distractors: int = 0


SIZES = {
    'market1501': Size(3_368, 15_913, 750, 6, 2_798),
    'msmt17': Size(11_659, 82_161, 3_060, 15),
    'veri_wild': Size(10_000, 128_517, 10_000, 174),
    'market500k': Size(3_368, 516_000, 750, 6, 502_885),
    'smoke': Size(40, 900, 25, 5, 100),
}


class TestSet(NamedTuple):
    """Features, and ids of query and gallery, then cameras of both."""

    query: Float[np.ndarray, 'q d']
    gallery: Float[np.ndarray, 'g d']
    labels: tuple[Int[np.ndarray, '_'], ...]


def planted(size: Size, width: int, noise: float, seed: int = 0) -> TestSet:
    """Identities as directions; images beside them, some of them much farther than others.

    An image's noise is log-normal around `noise` times the length of its identity's vector. How
    many images an identity has varies as well; every one is in the gallery, and distractors are
    identities of one image each. Vectors have length 1.
    """
    rng = np.random.default_rng(seed)
    shares = rng.gamma(2.0, size=size.identities)
    more = size.gallery - size.distractors - size.identities
    ids = rng.choice(size.identities, more, p=shares / shares.sum())
    ids = np.concatenate([np.arange(size.identities), ids])
    ids = np.concatenate([ids, size.identities + np.arange(size.distractors)])
    query_ids = np.sort(rng.integers(0, size.identities, size.queries))
    order = np.argsort(ids, kind='stable')
    labels = query_ids, ids[order]
    sides = [_vectors(of, width, noise, rng) for of in labels]
    cameras = [rng.integers(0, size.cameras, len(of)) for of in labels]
    return TestSet(*sides, (*labels, *cameras))


def _vectors(ids, width: int, noise: float, rng) -> Float[np.ndarray, 'n d']:
    """Images' vectors, a slice at a time; `ids` ascend."""
    found = np.empty((len(ids), width), np.float32)
    for start in range(0, len(ids), SLICE):
        part = found[start : start + SLICE]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= noise * np.exp(0.5 * rng.standard_normal((len(part), 1), np.float32))
        own, places = np.unique(ids[start : start + SLICE], return_inverse=True)
        centres = [np.random.default_rng(one).standard_normal(width, np.float32) for one in own]
        for row, place in enumerate(places):
            part[row] += centres[place]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found
