"""What a data set is worth, from its records alone: numbers to look at, and what spoils training.

No image is opened here, and nothing is ranked: what queries find under a protocol is counted by
the caller, in `Queries`.
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


class Queries(NamedTuple):
    """Of all queries of a result those without a match: not in the gallery, or only as junk.

    `camera` is that of all images where no query has a match and only its own camera is why;
    None otherwise.
    """

    all: int
    absent: int
    junk: int
    camera: int | None = None

    @property
    def valid(self) -> int:
        """Queries that have a match."""
        return self.all - self.absent - self.junk


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


def problems(train: Records, tests: Tests) -> list[str]:
    """What makes training or its scores meaningless under any protocol, a message each."""
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
            found += _strangers(test_name(name, query, gallery), query, gallery)
    return found


def unanswered(results: Mapping[str, Queries]) -> list[str]:
    """A message for each result of which no query has a match."""
    found = []
    for name, queries in results.items():
        if queries.camera is not None:
            found.append(
                f'{name}: all queries and gallery images are of camera c{queries.camera + 1}, and '
                'matches by a query’s own camera are left out, so no query has one; '
                '--config.evaluate.same_camera=keep is for data with one camera'
            )
        elif not queries.valid:
            found.append(
                f'{name}: none of {queries.all:,} queries has a match: {queries.absent:,} are not '
                f'in the gallery, and {queries.junk:,} only as junk; look at how identities, '
                'cameras and tracklets are read, or add gallery images'
            )
    return found


def partly_answered(results: Mapping[str, Queries]) -> list[str]:
    """A message for each result of which some queries have a match and others none."""
    return [
        f'{name}: {queries.all - queries.valid:,} of {queries.all:,} queries have no match: '
        f'{queries.absent:,} are not in the gallery, and {queries.junk:,} only as junk'
        for name, queries in results.items()
        if 0 < queries.valid < queries.all
    ]


def warnings(train: Records, shots: int) -> list[str]:
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


def _strangers(name: str, query: Records, gallery: Records) -> list[str]:
    """Whether the gallery has none of the identities of the queries."""
    asked = set(query.pids[query.pids > DISTRACTOR].tolist())
    if asked & set(gallery.pids.tolist()):
        return []
    return [
        f'{name}: the gallery has no image of any of the {len(asked):,} identities of '
        f'{len(query.pids):,} queries; look at how identities are read, or add gallery images'
    ]
