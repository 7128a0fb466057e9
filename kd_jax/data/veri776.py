"""VeRi-776: 576 vehicles to train on and 200 to test on, by 20 cameras along a road.

Liu et al., "A Deep Learning-Based Approach to Progressive Vehicle Re-identification for Urban
Surveillance", ECCV 2016.

    ROOT/{image_train,image_query,image_test}/0002_c002_00030600_0.jpg
    ROOT/name_{train,query,test}.txt   the names in a folder; without one, the folder is listed
    ROOT/test_track.txt                or test_track_VeRi.txt: each line a track, its key and images

A name is vehicle, camera (three digits, from 1), time and a number. The tracks of the gallery are
the lines of the track file; every query image is in image_test too, where its own camera rules it
out. The names say all there is to rank by, so no XML is read: train_label.xml and test_label.xml,
in gb2312, which Python's parser refuses, add but colour and type. Nor are gt_index.txt and
jk_index.txt read, for the rule on cameras gives the same matches.
"""

import re
from pathlib import Path

from absl import logging

from kd_jax.data.layout import (
    check_identities,
    check_once,
    check_present,
    existing,
    images_in,
    inner,
    lines_of,
    matched,
    opener,
    some,
    tracklets,
)
from kd_jax.data.records import Counts, DataError, Records, Source, from_rows

FOLDERS = 'image_train', 'image_query', 'image_test'
TRACKS = 'test_track.txt', 'test_track_VeRi.txt'
NAME = re.compile(r'(\d{4})_c(\d{3})_(\d{8})_\d+\.(?i:jpg)', re.ASCII)
KEY = re.compile(r'(\d{4})_c(\d{3})(?:\D.*)?', re.ASCII)
EXAMPLE = '0002_c002_00030600_0.jpg'
EXPECTED = {  # 20 cameras are published of the whole set, all of which training has
    'train': Counts(37778, 576, 20),
    'query': Counts(1678, 200),
    'gallery': Counts(11579, 200),
}

Key = tuple[int, int]  # of a vehicle in one camera: identity, camera


def read(*, root: str, merge: bool = True) -> Source:
    """The images of the three lists, and the tracks of the gallery if there is a file of them.

    Gallery images are in the order of their tracks, those in no track (-1) last. A query's
    tracklet is the first gallery track of its vehicle and camera. A training tracklet is all of
    one vehicle in one camera if `merge`, as VKD has it; otherwise it is unknown. Raises DataError
    for files that are missing, do not parse or contradict one another.
    """
    home = inner(existing(root), 'VeRi', FOLDERS)
    train, query, gallery = (_listed(home, folder) for folder in FOLDERS)
    track = _tracks(home, gallery)
    ordered = sorted(gallery, key=lambda name: track.get(name, (len(gallery), 0)))
    numbers = [track[name][0] if name in track else -1 for name in ordered]
    first: dict[Key, int] = {}
    for name, number in zip(ordered, numbers):
        if number >= 0:
            first.setdefault(gallery[name][:2], number)
    splits = (
        _records('image_train', train, sorted(train), _merged(train) if merge else None),
        _records('image_query', query, list(query), [first.get(f[:2], -1) for f in query.values()]),
        _records('image_test', gallery, ordered, numbers),
    )
    check_identities(home, *splits)
    return Source(*splits, opener(home), home, expected=EXPECTED, protocol='veri_image')


def _listed(home: Path, folder: str) -> dict[str, tuple[int, int, int]]:
    """Vehicle, camera and time of every image of a folder by name, in the order of its list."""
    where = home / folder.replace('image_', 'name_')
    where = where.with_name(f'{where.name}.txt')
    if where.is_file():
        names = lines_of(where, f'names like {EXAMPLE}')
        fields = matched(where, names, NAME, EXAMPLE)
        check_once(where, names)
        check_present(home, [f'{folder}/{name}' for name in names], where)
    else:
        where = home / folder
        names = images_in(where, FOLDERS)
        fields = matched(where, names, NAME, EXAMPLE)
    found = {name: tuple(map(int, field)) for name, field in zip(names, fields)}
    zero = [name for name, (_, camera, _) in found.items() if camera == 0]
    if zero:
        raise DataError(f'{where}: {some(zero)} of camera c000; cameras are numbered from c001')
    return found


def _merged(images: dict[str, tuple[int, int, int]]) -> list[int]:
    """The number of the vehicle and camera of each image, in the order of the names."""
    return tracklets([images[name][:2] for name in sorted(images)])[0]


def _records(folder: str, images: dict, names: list[str], numbers: list[int] | None) -> Records:
    """The named images of a folder, whose tracklets have these numbers or none."""
    rows = []
    for name, number in zip(names, numbers or [-1] * len(names)):
        pid, camera, time = images[name]
        rows.append((f'{folder}/{name}', pid, camera - 1, number, time))
    return from_rows(rows)


def _tracks(home: Path, gallery: dict) -> dict[str, tuple[int, int]]:
    """The number of the track that shows an image and its place in it; empty without a file.

    An image in several tracks is of the first, which is logged as a warning. Raises DataError for
    an image that is not in the gallery, or not of the vehicle and camera of its track.
    """
    file = next((home / name for name in TRACKS if (home / name).is_file()), None)
    if file is None:
        return {}
    # Lines end with a blank or without one, so that no column may be counted from the end.
    lines = [line.split() for line in lines_of(file, f'a key and images a line, {EXAMPLE}')]
    keys = matched(file, [key for key, *_ in lines], KEY, '0002_c002_00030600 (a track)')
    track: dict[str, tuple[int, int]] = {}
    for number, ((key, *names), fields) in enumerate(zip(lines, keys)):
        _check_track(file, key, tuple(map(int, fields)), names, gallery)
        for place, name in enumerate(names):
            track.setdefault(name, (number, place))
    again = sum(len(line) - 1 for line in lines) - len(track)
    if again:
        logging.warning('%s: %d images named again; the first track has them', file, again)
    return track


def _check_track(file: Path, key: str, of: Key, names: list[str], gallery: dict) -> None:
    """Raises DataError unless all images of a track are in the gallery and of its key."""
    unknown = [name for name in names if name not in gallery]
    if unknown:
        raise DataError(f'{file}: track {key} has {some(unknown)}, not among the test images')
    others = [name for name in names if gallery[name][:2] != of]
    if others:
        raise DataError(
            f'{file}: track {key} has {some(others)} of another vehicle or camera than its key'
        )
