"""Which images a training step shows: a pure function of (seed, step)."""

import functools
import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt32

VIEWS = ('any', 'camera', 'tracklet', 'multiview', 'chunk', 'temporal', 'random')
OF_TRACKLETS = VIEWS[3:]  # drawn tracklet by tracklet, as VKD's code does


class Index(NamedTuple):
    """The training images grouped by identity: rows of `order` from `starts[i]` to its end."""

    order: Int[np.ndarray, 'n']
    starts: Int[np.ndarray, 'i_plus_1']
    groups: dict[str, np.ndarray]  # the camera and the tracklet of every image


class Plan(NamedTuple):
    """One batch: the rows of its images, set by set, their identities' labels and image keys."""

    rows: Int[np.ndarray, 's n']
    labels: Int[np.ndarray, 's']
    keys: UInt32[np.ndarray, 's n']


def index(
    labels: Int[np.ndarray, 'n'], cameras: Int[np.ndarray, 'n'], tracklets: Int[np.ndarray, 'n']
) -> Index:
    """Group the images of labels 0..c-1."""
    order = np.argsort(labels, kind='stable')
    starts = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    return Index(order, starts, {'camera': cameras, 'tracklet': tracklets})


def short_identities(index: Index, images: int) -> int:
    """How many identities have fewer than `images` images and are drawn with replacement."""
    return int((np.diff(index.starts) < images).sum())


def shortages(index: Index, *, identities: int, sets: int, shots: int, views: str) -> list[str]:
    """What is too short for sets as `views` wants them, in words, with how many there are."""
    if views not in OF_TRACKLETS:
        least = max(sets, shots)
        short = short_identities(index, least)
        return [f'{short} identities have fewer than {least} images: repeated'] * (short > 0)
    owners = np.repeat(np.arange(len(index.starts) - 1), np.diff(index.starts))
    pairs = np.stack([owners, index.groups['tracklet'][index.order]])
    known, frames = np.unique(pairs, axis=1, return_counts=True)
    of_each = np.bincount(known[0])
    if views == 'multiview':
        counts = [
            ((of_each == 1) & (shots > 1), 'identities have one tracklet: all views are of it'),
            ((of_each > 1) & (of_each < shots), f'identities have fewer than {shots} tracklets'),
        ]
    else:
        counts = [
            (frames < shots, f'tracklets have fewer than {shots} frames: repeated'),
            (
                of_each < sets,
                f'identities have fewer than {sets} tracklets: drawn with replacement',
            ),
        ]
    return [f'{short.sum()} {text}' for short, text in counts if short.any()]


def check(index: Index, *, identities: int, sets: int, shots: int, views: str) -> None:
    """Raise ValueError where a batch can not be drawn, naming the key and the numbers."""
    if min(identities, sets, shots) < 1:
        raise ValueError('sampling.identities, sampling.sets and sampling.shots start from 1')
    if identities > len(index.starts) - 1:
        raise ValueError(
            f'sampling.identities={identities}, but the training data has only '
            f'{len(index.starts) - 1} identities'
        )
    if views not in VIEWS:
        raise ValueError(f'sampling.views={views!r}: choose one of {", ".join(VIEWS)}')


def plan(
    index: Index,
    seed: int,
    step: int,
    *,
    identities: int,
    sets: int,
    shots: int,
    views: str,
) -> Plan:
    """`identities` × `sets` sets of `shots` images: the batch of one step.

    No identity comes twice in an epoch (a pass over all identities, the remainder left out).
    The first images of an identity's sets differ, and so do the images of a set, as far as there
    are enough: else they are drawn with replacement. `views` 'camera' or 'tracklet' spreads the
    shots of a set over as many cameras or tracklets as there are.
    """
    count = len(index.starts) - 1
    epoch, place = divmod(step, count // identities)
    shown = _order(seed, epoch, count)[place * identities : (place + 1) * identities]
    rng = _rng(seed, step, 1)
    drawn = [_sets_of(index, i, sets, shots, views, rng) for i in shown.tolist()]
    rows = np.array(list(itertools.chain.from_iterable(drawn)))
    keys = rng.integers(2**32, size=rows.shape, dtype=np.uint32)
    return Plan(rows, np.repeat(shown, sets).astype(np.int32), keys)


def shots_of(pids: Int[np.ndarray, 'n'], shots: int, seed: int) -> Int[np.ndarray, 'n shots']:
    """Each row with `shots` - 1 other rows of its true identity, for evaluation only.

    Rows of identities below 1 (distractors, who are nobody) are repeated instead, and so is an
    identity's only image; an identity with fewer images than shots is drawn with replacement.
    """
    rows = np.empty((len(pids), shots), np.int64)
    members = {int(pid): np.flatnonzero(pids == pid) for pid in np.unique(pids)}
    rng = _rng(seed, 0, 2)
    for row, pid in enumerate(pids.tolist()):
        pool = members[pid] if pid > 0 else np.array([row])
        rows[row] = _shots(pool, row, shots, rng)
    return rows


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Int[np.ndarray, 'i']:
    """All identities as an epoch shows them, drawn once for all of its steps."""
    return _rng(seed, epoch, 0).permutation(count)


def _rng(seed: int, counter: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, 0, counter]))


def spread(rows: Int[np.ndarray, 'n'], count: int) -> Int[np.ndarray, 'count']:
    """The first frame of each of `count` chunks of a tracklet, its last one repeated if short.

    As VKD's code samples test frames: chunks of ceil(n / count), and past the end the last.
    """
    step = -(-len(rows) // count)
    return rows[np.minimum(np.arange(count) * step, len(rows) - 1)]


# Steps wait for their plans, so what follows makes few small arrays: one takes as long as a draw.


def _sets_of(index, identity, sets, shots, views, rng) -> list:
    """The sets of one identity, each of them `shots` rows."""
    pool = index.order[index.starts[identity] : index.starts[identity + 1]]
    if views in OF_TRACKLETS:
        return _tracklet_sets(pool, index.groups['tracklet'][pool], sets, shots, views, rng)
    anchors = rng.permutation(pool)[:sets]
    if len(anchors) < sets:
        anchors = np.concatenate([anchors, rng.choice(pool, sets - len(anchors))])
    groups = None if views == 'any' else index.groups[views]
    return [_shots(pool, anchor, shots, rng, groups) for anchor in anchors.tolist()]


def _shots(pool, anchor, shots, rng, groups=None) -> list[int]:
    """The anchor and others of the pool, unlike groups first when `groups` are given."""
    others = rng.permutation(pool[pool != anchor])
    if groups is not None:
        others = others[np.argsort(_repeats(groups[np.append(anchor, others)])[1:], kind='stable')]
    missing = shots - 1 - len(others)
    if missing > 0:
        others = np.concatenate([others, rng.choice(pool, missing)])
    return [anchor, *others[: shots - 1].tolist()]


def _repeats(groups: np.ndarray) -> np.ndarray:
    """How often each entry's group came before it."""
    order = np.argsort(groups, kind='stable')
    count = np.empty(len(groups), np.int64)
    count[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    return count


def _tracklet_sets(pool, tracklets, sets, shots, views, rng) -> list[np.ndarray]:
    """Sets of frames of tracklets, `shots` rows each; the pool's rows are in the order of time."""
    of_each = [pool[tracklets == number] for number in np.unique(tracklets)]
    if views == 'multiview':
        return [_multiview(of_each, shots, rng) for _ in range(sets)]
    # With replacement as soon as there are too few, as VKD's code draws them.
    chosen = rng.choice(len(of_each), sets, replace=len(of_each) < sets)
    return [_frames(of_each[number], shots, views, rng) for number in chosen]


def _multiview(of_each, shots, rng) -> np.ndarray:
    """A random frame of each tracklet in turn, in a random order."""
    order = np.resize(rng.permutation(len(of_each)), shots)
    return np.array([rng.choice(of_each[number]) for number in order])


def _frames(rows, shots, views, rng) -> np.ndarray:
    """Frames of one tracklet."""
    if views == 'temporal' or (views == 'chunk' and len(rows) < shots):
        return spread(rows, shots)
    if views == 'chunk':
        length = -(-len(rows) // shots)
        places = np.arange(shots) * length + rng.integers(length, size=shots)
        return rows[np.minimum(places, len(rows) - 1)]
    missing = max(0, shots - len(rows))
    return np.concatenate([rng.permutation(rows)[:shots], rng.choice(rows, missing)])
