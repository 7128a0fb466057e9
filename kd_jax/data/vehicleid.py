"""PKU VehicleID: 13,164 vehicles to train on and test sets of 800, 1,600 and 2,400 others.

Liu et al., "Deep Relative Distance Learning: Tell the Difference Between Similar Vehicles",
CVPR 2016.

    ROOT/image/0000001.jpg
    ROOT/train_test_split/train_list.txt                                a line `0000001 3`:
    ROOT/train_test_split/test_list_{800,1600,2400,3200,6000,13164}.txt   image and vehicle

A test set is a pool: one image of each vehicle, drawn at random, is the gallery, and the others are
queries. There are no cameras, tracklets or frames: all are -1, so no match is ruled out by its
camera. A vehicle with one image is in the pool, though it gives no query. Identities are the lists'
numbers, all of them one higher if a list has 0, which elsewhere means a distractor.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from kd_jax.data.layout import (
    check_identities,
    check_once,
    check_present,
    check_sizes,
    existing,
    inner,
    lines_of,
    matched,
    opener,
)
from kd_jax.data.records import Counts, Records, Source, from_rows

LINE = re.compile(r'([^\s/]+?)(?:\.(?i:jpg))?\s+(\d+)', re.ASCII)
EXAMPLE = '0000001 3'
TRAIN = Counts(113346, 13164)
TESTS = {  # vehicles of a test set -> images, 0 where not published
    800: Counts(6493, 800),
    1600: Counts(13377, 1600),
    2400: Counts(19777, 2400),
    3200: Counts(0, 3200),
    6000: Counts(0, 6000),
    13164: Counts(0, 13164),
}


def read(*, root: str, sizes: Sequence[int] = (800, 1600, 2400)) -> Source:
    """The training images and a pool for each of the `sizes`; the first is the main test set.

    Raises ValueError for a size that there is not, DataError for a list or an image that is
    missing, a line that does not parse, a test vehicle that is trained on.
    """
    check_sizes(sizes, TESTS)
    home = inner(existing(root), 'VehicleID_V1.0', ('image', 'train_test_split'))
    named = {'train': 'train_list.txt', **{str(size): f'test_list_{size}.txt' for size in sizes}}
    listed = {split: _listed(home, name) for split, name in named.items()}
    shift = int(any(pid == 0 for rows in listed.values() for _, pid in rows))
    train, test, *others = (_records(rows, shift) for rows in listed.values())
    more = {str(size): (pool, pool) for size, pool in zip(sizes[1:], others)}
    expected = {'train': TRAIN, **{f'test_{size}': TESTS[size] for size in sizes}}
    options = {'test': str(sizes[0]), 'protocol': 'vehicleid'}
    source = Source(train, test, test, opener(home), home, more, expected, **options)
    check_identities(home, train, *(part for pair in source.tests().values() for part in pair))
    return source


def _listed(home: Path, name: str) -> list[tuple[str, int]]:
    """The path and the vehicle of every image of a list, in its order."""
    file = home / 'train_test_split' / name
    lines = lines_of(file, f'an image and a vehicle a line, like {EXAMPLE}')
    # An image's name stays text: as a number it would lose the zeros it begins with.
    rows = [(f'image/{image}.jpg', int(pid)) for image, pid in matched(file, lines, LINE, EXAMPLE)]
    paths = [path for path, _ in rows]
    check_once(file, paths)
    check_present(home, paths, file)
    return rows


def _records(rows: list[tuple[str, int]], shift: int) -> Records:
    return from_rows([(path, pid + shift, -1, -1, -1) for path, pid in rows])
