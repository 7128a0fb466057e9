"""MSMT17: 4,101 people seen by fifteen cameras, indoors and outdoors, on four days.

Wei et al., "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification", CVPR 2018.
Version 2 differs in that faces are masked. Below ROOT, or below ROOT/MSMT17_V1 (MSMT17_V2, which
some archives have twice, one in the other):

    list_train.txt list_val.txt            0000/0000_000_01_0303morning_0008_0.jpg 0
    list_query.txt list_gallery.txt
    train/0000/*.jpg test/0000/*.jpg       mask_train_v2/ and mask_test_v2/ in version 2

A name is identity, running number, camera, date and time of day, frame, box; a line of a list adds
the identity once more. A tracklet is one identity in one camera at one time of one day. Identities
count from 0 in training and from 0 again in testing, where they are other people: here training
identity 0 is 1, test identity 0 is 1042.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from kd_jax.data.layout import (
    check_identities,
    check_present,
    existing,
    inner,
    lines_of,
    matched,
    opener,
    some,
    tracklets,
)
from kd_jax.data.records import Counts, DataError, Records, Source, from_rows

TRAIN_IDENTITIES = 1_041
LINE = re.compile(
    r'((\d{4})/(\d{4})_\d{3}_(0[1-9]|1[0-5])_(\d{4}(?:morning|noon|afternoon))_(\d{4})_\d{1,2}'
    r'(?:_ex)?\.jpg)\s+(\d+)',
    re.IGNORECASE,
)
EXAMPLE = '0000/0000_000_01_0303morning_0008_0.jpg 0 (folder/image of camera 01-15, identity)'
TRAIN_LISTS = 'list_train.txt', 'list_val.txt'
TEST_LISTS = 'list_query.txt', 'list_gallery.txt'
VERSIONS = {
    'v1': ('MSMT17_V1', 'train', 'test'),
    'v2': ('MSMT17_V2', 'mask_train_v2', 'mask_test_v2'),
}
EXPECTED = {
    'train': Counts(32_621, TRAIN_IDENTITIES, 15),
    'query': Counts(11_659, 3_060, 15),
    'gallery': Counts(82_161, 3_060, 15),
}
WITHOUT_VALIDATION = Counts(30_248, TRAIN_IDENTITIES, 15)


class Row(NamedTuple):
    """A listed image; `recording` is the time and the day."""

    path: str
    pid: int
    camera: int
    recording: str
    frame: int


def read(*, root: str, version: str = 'v1', validation: bool = True) -> Source:
    """The images that the lists of MSMT17 name, in the order of their paths.

    list_val.txt shows training identities once more: with `validation` its images are trained on
    as well, 32,621 in all; without it they are left out, which leaves 30,248.
    Raises DataError for a missing list, folder or image, a line that does not parse or contradicts
    itself, an image in two lists; ValueError for an unknown version.
    """
    if version not in VERSIONS:
        raise ValueError(f'version={version!r}: choose one of {", ".join(VERSIONS)}')
    level, train_folder, test_folder = VERSIONS[version]
    home = _home(existing(root), level, (train_folder, test_folder))
    train_lists = TRAIN_LISTS if validation else TRAIN_LISTS[:1]
    train = [row for name in train_lists for row in _listed(home / name, train_folder, 1)]
    query, gallery = (
        _listed(home / name, test_folder, 1 + TRAIN_IDENTITIES) for name in TEST_LISTS
    )
    _check_once(home, train_lists, train)
    _check_once(home, TEST_LISTS, query + gallery)
    (train,), (query, gallery) = _numbered(train), _numbered(query, gallery)
    check_identities(home, train, query, gallery)
    expected = EXPECTED if validation else {**EXPECTED, 'train': WITHOUT_VALIDATION}
    return Source(train, query, gallery, opener(home), home, expected=expected)


def _home(root: Path, level: str, folders: tuple[str, str]) -> Path:
    """The folder that holds both image folders; raises DataError if there is none."""
    home = inner(inner(root, level, folders), level, folders)
    missing = [folder for folder in folders if not (home / folder).is_dir()]
    if missing:
        raise DataError(
            f'{home / missing[0]}: no such folder; expected {" and ".join(folders)} of {level} in '
            f'{home}, or set --config.data.version to the other of {", ".join(VERSIONS)}'
        )
    return home


def _listed(file: Path, folder: str, first: int) -> list[Row]:
    """The images in `folder` that a list beside it names; `first` is the identity of number 0."""
    lines = lines_of(file, f'lines like {EXAMPLE}, as the release has it')
    fields = matched(file, lines, LINE, EXAMPLE)
    _check_agreement(file, fields)
    rows = [
        Row(f'{folder}/{path}', first + int(pid), int(camera) - 1, recording.lower(), int(frame))
        for path, _, _, camera, recording, frame, pid in fields
    ]
    check_present(file.parent, [row.path for row in rows], file)
    return rows


def _check_agreement(file: Path, fields: list[tuple]) -> None:
    """Raises DataError unless the folder, the name and the line have the same identity."""
    differing = [
        f'{path} {pid}'
        for path, folder, named, *_, pid in fields
        if not int(folder) == int(named) == int(pid)
    ]
    if differing:
        raise DataError(
            f'{file}: {some(differing)} of different identities; expected the number of the '
            'folder in the name and behind it'
        )


def _check_once(home: Path, lists: tuple[str, ...], rows: list[Row]) -> None:
    """Raises DataError for images that the lists name twice."""
    times = Counter(row.path for row in rows)
    twice = [path for path, count in times.items() if count > 1]
    if twice:
        raise DataError(f'{home}: {some(twice)} twice in {" and ".join(lists)}; expected once')


def _numbered(*parts: list[Row]) -> list[Records]:
    """Records of each part in the order of their paths, their tracklets numbered together."""
    parts = [sorted(part) for part in parts]
    keys = [[(row.pid, row.camera, row.recording) for row in part] for part in parts]
    return [
        from_rows(
            [
                (row.path, row.pid, row.camera, tracklet, row.frame)
                for row, tracklet in zip(part, numbers)
            ]
        )
        for part, numbers in zip(parts, tracklets(*keys))
    ]
