"""Galleries of one image for each identity, drawn at random from fixed seeds."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from kd_jax.retrieval.pairs import UNKNOWN


def one_of_each(pids: Int[np.ndarray, 'n'], seed: int) -> Int[np.ndarray, 'i']:
    """A random row of each identity, ascending."""
    order = np.random.default_rng(seed).permutation(len(pids))
    return np.sort(order[np.unique(pids[order], return_index=True)[1]])


def single_shot(
    keys_of: Callable,
    labels: Sequence[Int[np.ndarray, '_']],
    *,
    same_camera: str,
    pool: bool,
    draws: int,
    block: int,
) -> Int[np.ndarray, 'draws q']:
    """The rank from 1 of each query's identity, by one random image of every identity; 0 without.

    Every query draws anew in every draw, not of its identity by its camera with
    `same_camera='drop'`, and not itself where query and gallery are one `pool`.
    `keys_of(rows[b])` are integers [b, g] in the order of distance, ties go to the earlier image;
    `labels` are identities of query and gallery, then cameras of both.
    """
    generators = [np.random.default_rng(seed) for seed in range(draws)]
    queries, gallery = labels[0], labels[1]
    members = {pid: np.flatnonzero(gallery == pid) for pid in np.unique(gallery).tolist()}
    found = np.zeros((draws, len(queries)), np.int64)
    for start in range(0, len(queries), block):
        rows = np.arange(start, min(start + block, len(queries)))
        keys, out = np.asarray(keys_of(rows)), _left_out(rows, labels, same_camera, pool)
        for draw, generator in enumerate(generators):
            chance = np.where(out, 2.0, generator.random(out.shape))
            found[draw, rows] = _rank(keys, chance, members, queries[rows])
    return found


def _left_out(rows, labels, same_camera, pool) -> Bool[np.ndarray, 'b g']:
    """Which images a query may not draw."""
    queries, gallery, query_cameras, gallery_cameras = labels
    cameras = query_cameras[rows, None]
    own = (cameras == gallery_cameras) & (cameras != UNKNOWN) & (same_camera == 'drop')
    itself = (rows[:, None] == np.arange(len(gallery))) & pool
    return (queries[rows, None] == gallery) & own | itself


def _rank(keys, chance, members, asked) -> Int[np.ndarray, 'b']:
    """The rank of the identity that each row asks for, among the likeliest image of each."""
    picks = np.stack([part[chance[:, part].argmin(axis=1)] for part in members.values()], axis=1)
    there = np.take_along_axis(chance, picks, axis=1) < 2
    near = np.take_along_axis(keys, picks, axis=1).astype(np.int64) * keys.shape[1] + picks
    near = np.where(there, near, np.iinfo(np.int64).max)
    identities = np.array(list(members))
    own = np.searchsorted(identities, asked).clip(max=len(identities) - 1)[:, None]
    there = np.take_along_axis(there, own, axis=1)[:, 0] & (identities[own[:, 0]] == asked)
    rank = 1 + (near < np.take_along_axis(near, own, axis=1)).sum(axis=1)
    return np.where(there, rank, 0)
