"""VERI-Wild: 30,671 vehicles to train on, test sets of 3,000, 5,000 and 10,000, by 174 cameras.

Lou et al., "VERI-Wild: A Large Dataset and a New Method for Vehicle Re-Identification in the
Wild", CVPR 2019.

    ROOT/images/00001/000001.jpg                           vehicle and image
    ROOT/train_test_split/vehicle_info.txt                 a line `00001/000001;92;...` an image
    ROOT/train_test_split/train_list.txt                   or train_list_start0.txt
    ROOT/train_test_split/test_{3000,5000,10000}.txt       or test_3000_id.txt and so on
    ROOT/train_test_split/test_{...}_query.txt             or test_3000_id_query.txt and so on

A line of a list begins with vehicle/image, with .jpg or without; what may follow is not read, for
its second column is a label in one list and the vehicle in another. Identities are the vehicles,
one higher if a list has vehicle 0, which elsewhere means a distractor. Cameras are those of
vehicle_info.txt, found by the image's number, and numbered in their order; its first line may be
a heading. The list of a test set holds its queries too: the gallery is without them (38,861 =
41,861 - 3,000). A tracklet is one vehicle in one camera. Frames are unknown (-1).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

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
    some,
    tracklets,
)
from kd_jax.data.records import Counts, DataError, Records, Source, from_rows

LINE = re.compile(r'(\d+)/(\d+)(?:\.(?i:jpg))?(?:[\s,;].*)?', re.ASCII)
INFO = re.compile(r'\d+/(\d+)(?:\.(?i:jpg))?\s*;\s*(\d+)\s*(?:;.*)?', re.ASCII)
EXAMPLE, INFO_EXAMPLE = '00001/000001.jpg', '00001/000001;92'
CAMERAS = 174  # of the whole set: which of them a split has is not published
TRAIN = Counts(277797, 30671)
TESTS = {  # vehicles of a test set, which has one query of each -> images of its gallery
    3000: 38861,
    5000: 64389,
    10000: 128517,
}


class Listed(NamedTuple):
    """The images of a list: files below the root, then (vehicle, camera)."""

    paths: list[str]
    keys: list[tuple[int, int]]


def read(*, root: str, sizes: Sequence[int] = (3000, 5000, 10000)) -> Source:
    """The training images, and query and gallery for each of the `sizes`; the first is the main.

    Raises ValueError for a size that there is not, DataError for a list or an image that is
    missing, a line that does not parse, a listed image that vehicle_info.txt does not know, a
    test vehicle that is trained on.
    """
    check_sizes(sizes, TESTS)
    home = inner(existing(root), 'VERI-Wild', ('images', 'train_test_split'))
    cameras = _cameras(home / 'train_test_split' / 'vehicle_info.txt')
    train = _listed(home, cameras, 'train_list.txt', 'train_list_start0.txt')
    tests = [_test(home, cameras, size) for size in sizes]
    parts = [train, *(part for pair in tests for part in pair)]
    shift = int(any(pid == 0 for part in parts for pid, _ in part.keys))
    (train,) = _records(shift, train)
    (query, gallery), *others = (_records(shift, *pair) for pair in tests)
    more = {str(size): tuple(pair) for size, pair in zip(sizes[1:], others)}
    expected = {'train': TRAIN}
    for size in sizes:
        expected[f'query_{size}'] = Counts(size, size)
        expected[f'gallery_{size}'] = Counts(TESTS[size], size)
    options = {'test': str(sizes[0]), 'protocol': 'veri_wild'}
    source = Source(train, query, gallery, opener(home), home, more, expected, **options)
    check_identities(home, train, *(part for pair in source.tests().values() for part in pair))
    return source


def _cameras(file: Path) -> dict[int, int]:
    """The camera of every image by the image's number, cameras numbered from 0 in their order.

    Other than the published number of cameras is logged as a warning.
    """
    lines = lines_of(file, f'vehicle/image;camera a line, like {INFO_EXAMPLE}')
    if not INFO.fullmatch(lines[0]):
        del lines[0]  # a heading, which not every copy has
    pairs = [tuple(map(int, fields)) for fields in matched(file, lines, INFO, INFO_EXAMPLE)]
    cameras = dict(pairs)
    if len(cameras) < len(set(pairs)):
        twice = [image for image, camera in pairs if cameras[image] != camera]
        raise DataError(f'{file}: images {some(twice)} have two cameras; numbers must be unique')
    places = {camera: place for place, camera in enumerate(sorted(set(cameras.values())))}
    if len(places) != CAMERAS:
        logging.warning('%s: has %d cameras, published are %d', file, len(places), CAMERAS)
    return {image: places[camera] for image, camera in cameras.items()}


def _test(home: Path, cameras: dict[int, int], size: int) -> tuple[Listed, Listed]:
    """Query and gallery of a test set; an image that is a query is not in the gallery."""
    query = _listed(home, cameras, f'test_{size}_query.txt', f'test_{size}_id_query.txt')
    pool = _listed(home, cameras, f'test_{size}.txt', f'test_{size}_id.txt')
    queries = set(query.paths)
    kept = [(path, key) for path, key in zip(*pool) if path not in queries]
    return query, Listed([path for path, _ in kept], [key for _, key in kept])


def _listed(home: Path, cameras: dict[int, int], name: str, newer: str) -> Listed:
    """The images of the list that is called by the one name or the other, in its order."""
    folder = home / 'train_test_split'
    file = next((path for path in (folder / name, folder / newer) if path.is_file()), folder / name)
    expected = f'it or {newer}, vehicle/image a line, like {EXAMPLE}'
    images = matched(file, lines_of(file, expected), LINE, EXAMPLE)
    paths = [f'images/{vehicle}/{image}.jpg' for vehicle, image in images]
    check_once(file, paths)
    unknown = [f'{vehicle}/{image}' for vehicle, image in images if int(image) not in cameras]
    if unknown:
        raise DataError(f'{folder / "vehicle_info.txt"}: lacks {some(unknown)} of {file.name}')
    check_present(home, paths, file)
    return Listed(paths, [(int(vehicle), cameras[int(image)]) for vehicle, image in images])


def _records(shift: int, *parts: Listed) -> list[Records]:
    """Records of lists whose tracklets are numbered together."""
    found = []
    for part, numbers in zip(parts, tracklets(*(part.keys for part in parts))):
        rows = zip(part.paths, part.keys, numbers)
        found.append(from_rows([(path, pid + shift, cam, n, -1) for path, (pid, cam), n in rows]))
    return found
