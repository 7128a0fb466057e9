"""What a data set is worth, from its records alone: numbers to look at, and what spoils training.

No image is opened here. `same_camera` says everywhere whether images by a query's own camera
count as its matches: False is the Market rule, True is `evaluate.same_camera=keep`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from kd_jax.data.layout import some
from kd_jax.data.records import DISTRACTOR, Records, by_name

Tests = Mapping[str, tuple[Records, Records]]  # query and gallery by name, as Source.tests() has


class Spread(NamedTuple):
    """The least, the middle and the largest of several numbers."""

    least: int
    median: float
    most: int


class Identities(NamedTuple):
    """How many identities there are, and how many of them have little to show.

    `fewer` counts those with fewer images than asked, by that number.
    """

    all: int
    fewer: dict[int, int]
    one_image: int
    one_camera: int


class Unmatched(NamedTuple):
    """Of so many queries those without a match: by identity, or by the rule about cameras."""

    queries: int
    absent: int
    own_camera: int

    @property
    def valid(self) -> int:
        """Queries that have a match."""
        return self.queries - self.absent - self.own_camera


def images_per(column: Int[np.ndarray, 'n'], none: int) -> Spread | None:
    """How many images one identity or tracklet has; numbers up to `none` mean nobody.

    None where all are nobody's.
    """
    counts = np.unique(column[column > none], return_counts=True)[1]
    return Spread(counts.min(), float(np.median(counts)), counts.max()) if counts.size else None


def identities(train: Records, *images: int) -> Identities:
    """The training identities with fewer than so many images, with one, and in one camera only.

    An identity of an unknown camera is not one of a single camera.
    """
    order = np.lexsort((train.cameras, train.pids))
    pids, cameras = train.pids[order], train.cameras[order]
    starts = np.flatnonzero(np.diff(pids, prepend=pids[:1] - 1))
    ends = np.append(starts, len(pids))[1:] - 1
    # Sorted, an identity's cameras are one where the first, perhaps unknown, is the last.
    one_camera = (cameras[starts] == cameras[ends]) & (cameras[starts] >= 0)
    images_of = ends + 1 - starts
    return Identities(
        all=len(starts),
        fewer={count: int((images_of < count).sum()) for count in images},
        one_image=int((images_of == 1).sum()),
        one_camera=int(one_camera.sum()),
    )


def unmatched(query: Records, gallery: Records, same_camera: bool) -> Unmatched:
    """Queries whose identity the gallery lacks, and those that only their own camera saw again.

    Distractors match nobody, unknown cameras are never the same, and in a pool, where `query` is
    `gallery` itself, no image matches itself.
    """
    itself = int(query is gallery)
    real = gallery.pids > DISTRACTOR
    others = _occurrences(query.pids, gallery.pids[real]) - itself * (query.pids > DISTRACTOR)
    matches = others.copy()
    if not same_camera:
        # In a pool, an image of a known camera is among its camera's, and was taken off above.
        own = _occurrences(*_sightings(query, gallery, real)) - itself
        matches -= np.where((query.cameras >= 0) & (query.pids > DISTRACTOR), own, 0)
    absent, blind = int((others <= 0).sum()), int((matches <= 0).sum())
    return Unmatched(len(query.pids), absent, blind - absent)


def problems(train: Records, tests: Tests, *, same_camera: bool = False) -> list[str]:
    """What makes training or its scores meaningless, a message each; nothing if all is well."""
    splits = by_name(train, tests)
    found = [
        f'{name} has 0 images, so there is nothing to train on or to rank; look at the folder or '
        'list that it is read from'
        for name, part in splits.items()
        if not len(part.pids)
    ]
    found += _alone(train) if len(train.pids) else []
    trained = set(train.pids.tolist()), set(train.paths.tolist())
    for name, part in list(splits.items())[1:]:
        found += _on_both_sides(*trained, name, part)
    for name, (query, gallery) in tests.items():
        if len(query.pids) and len(gallery.pids):
            found += _unmatchable(test_name(name, query, gallery), query, gallery, same_camera)
    return found


def warnings(train: Records, tests: Tests, *, shots: int, same_camera: bool = False) -> list[str]:
    """What does not stop training but should be known, a message each."""
    known = identities(train, shots)
    found = []
    if known.fewer[shots]:
        found.append(
            f'{known.fewer[shots]:,} of {known.all:,} training identities have fewer than {shots} '
            'images, so some of theirs are drawn twice in a set'
        )
    if known.one_image:
        found.append(
            f'{known.one_image:,} of {known.all:,} training identities have one image only, so '
            'their sets hold one image again and again'
        )
    for name, (query, gallery) in tests.items():
        found += _doubtful(test_name(name, query, gallery), query, gallery, same_camera)
    return found


def test_name(name: str, query: Records, gallery: Records) -> str:
    """What the queries of a test set are called among the splits."""
    return ('test' if query is gallery else 'query') + (f'_{name}' if name else '')


def _alone(train: Records) -> list[str]:
    """Whether training lacks a second identity, or a second image of any."""
    count = len(np.unique(train.pids))
    if count < 2:
        return [
            f'train has {count} identity in {len(train.pids)} images, but a loss tells apart at '
            'least two; look at how identities are read'
        ]
    if count == len(train.pids):
        return [
            f'all {count:,} training identities have one image each, so no two images show the '
            'same one and there is nothing to draw together; give all images of an identity the '
            'same number, or add images'
        ]
    return []


def _on_both_sides(pids: set[int], paths: set[str], name: str, part: Records) -> list[str]:
    """Which of the identities and images that are trained on a test split has too."""
    found = []
    shared = sorted(pid for pid in pids & set(part.pids.tolist()) if pid > DISTRACTOR)
    if shared:
        found.append(
            f'identities {some(shared)} are in train and in {name}: scores would be of identities '
            'that were trained on; remove them from one side, or number them apart if they differ'
        )
    images = sorted(paths & set(part.paths.tolist()))
    if images:
        found.append(
            f'images {some(images)} are in train and in {name}: scores would be of images that '
            'were trained on; remove them from one side'
        )
    return found


def _unmatchable(name: str, query: Records, gallery: Records, same_camera: bool) -> list[str]:
    """Whether no query of a test set has a match."""
    counts = unmatched(query, gallery, same_camera)
    if counts.valid:
        return []
    cameras = np.union1d(query.cameras, gallery.cameras)
    if counts.own_camera and len(cameras) == 1:
        return [
            f'{name}: all {len(query.pids):,} queries and {len(gallery.pids):,} gallery images are '
            f'of camera c{cameras[0] + 1}, and the Market rule leaves out matches by a query’s own '
            'camera, so no query has one; --config.evaluate.same_camera=keep is for data with one '
            'camera'
        ]
    return [
        f'{name}: none of {counts.queries:,} queries has a match: the gallery has no image of '
        f'{counts.absent:,} of their identities, and {counts.own_camera:,} only by their own '
        'camera; look at how identities and cameras are read, or add gallery images'
    ]


def _doubtful(name: str, query: Records, gallery: Records, same_camera: bool) -> list[str]:
    """What makes the scores of a test set less than they seem, or more."""
    found, counts = [], unmatched(query, gallery, same_camera)
    if 0 < counts.valid < counts.queries:  # none at all is a problem
        found.append(
            f'{name}: {counts.queries - counts.valid:,} of {counts.queries:,} queries have no '
            'match, and scores are means over the others'
        )
    ruled = query is gallery or not (same_camera or (query.cameras < 0).any())
    both = [] if ruled else sorted(set(query.paths.tolist()) & set(gallery.paths.tolist()))
    if both:
        found.append(
            f'{name}: {some(both)} of the queries are in the gallery too, where no rule '
            'on cameras leaves them out: each finds itself first'
        )
    return found


def _sightings(query: Records, gallery: Records, real: np.ndarray) -> tuple[np.ndarray, ...]:
    """One number for identity and camera together, of the queries and of the real gallery."""
    pids = np.concatenate([query.pids, gallery.pids[real]])
    cameras = np.concatenate([query.cameras, gallery.cameras[real]]) + 1
    # Ranks instead of the numbers themselves, which might be too long to join.
    places, kinds = (np.unique(column, return_inverse=True)[1] for column in (pids, cameras))
    joined = places * (kinds.max(initial=0) + 1) + kinds
    return joined[: len(query.pids)], joined[len(query.pids) :]


def _occurrences(wanted: Int[np.ndarray, 'q'], among: Int[np.ndarray, 'g']) -> np.ndarray:
    """How often each wanted number is among others."""
    ordered = np.sort(among)
    first, last = (np.searchsorted(ordered, wanted, side) for side in ('left', 'right'))
    return last - first
