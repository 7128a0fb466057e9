"""DukeMTMC-VideoReID: tracklets of people by eight cameras.

Wu et al., "Exploit the Unknown Gradually: One-Shot Video-Based Person Re-Identification by
Stepwise Learning", CVPR 2018; from the videos of Ristani et al., "Performance Measures and a Data
Set for Multi-Target, Multi-Camera Tracking", ECCVW 2016.

    ROOT/{train,query,gallery}/0001/0003/0001_C6_F0099_X30823.jpg

The folders are identity and tracklet; a name is identity, camera, frame of the tracklet, and frame
of the camera's video behind X, or D in distractors. The names of older copies have no underscores
(0001C6F0099X30823.jpg). Distractors have identities like others, of which no query is. A query is
one tracklet of each test identity, and is not in the gallery. Cameras are numbered from 0.
"""

import re
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from kd_jax.data.layout import (
    check_identities,
    existing,
    images_in,
    matched,
    opener,
    some,
    tracklets,
)
from kd_jax.data.records import Counts, DataError, Records, Source, from_rows

SPLITS = 'train', 'query', 'gallery'
FOLDER = re.compile(r'\d{4}', re.ASCII)
NAME = re.compile(r'(\d{4})_?C([1-8])_?F(\d{4})_?[XD]\d+\.(?i:jpg)', re.ASCII)
EXAMPLE = '0001_C6_F0099_X30823.jpg (identity, camera 1-8, frame of the tracklet, of the video)'


class Frame(NamedTuple):
    """One image; equal keys are one tracklet."""

    path: str
    pid: int
    camera: int
    frame: int
    key: tuple[str, str, str]


def read(*, root: str, merge: bool = False) -> Source:
    """The tracklets below `root`, one a folder.

    With `merge`, frames that follow one another by path and show one identity in one camera are
    one tracklet, whatever their folders, as in VKD. Raises DataError for missing folders, names
    of another form, and images in the folder of another identity.
    """
    home = existing(root)
    train, query, gallery = (frames(home, split) for split in SPLITS)
    if merge:
        train, query, gallery = map(merged, (train, query, gallery))
    (train,) = records(train)
    query, gallery = records(query, gallery)
    check_identities(home, train, query, gallery)
    expected = {
        'train': Counts(identities=702, cameras=8, tracklets=0 if merge else 2_196),
        'query': Counts(identities=702),
    }
    facts = {'expected': expected, 'protocol': 'i2v,v2v', 'tracklets': True}
    return Source(train, query, gallery, opener(home), home, **facts)


def frames(home: Path, split: str) -> list[Frame]:
    """All frames of a split, sorted by path; a tracklet is a folder."""
    found = []
    for identity in _folders(home / split, SPLITS):
        for tracklet in _folders(home / split / identity, ['folders of identities']):
            found += _frames_in(home, split, identity, tracklet)
    return found


def merged(frames: list[Frame]) -> list[Frame]:
    """The same frames, those in a row of one identity and camera being one tracklet.

    Where a tracklet of another camera lies between, an identity has several in one camera.
    """
    runs = (list(run) for _, run in groupby(frames, lambda frame: (frame.pid, frame.camera)))
    return [frame._replace(key=run[0].key) for run in runs for frame in run]


def records(*splits: list[Frame]) -> list[Records]:
    """The records of splits whose tracklets are numbered together."""
    keys = tracklets(*([frame.key for frame in split] for split in splits))
    return [
        from_rows(
            [
                (frame.path, frame.pid, frame.camera, number, frame.frame)
                for frame, number in zip(split, column)
            ]
        )
        for split, column in zip(splits, keys)
    ]


def _folders(folder: Path, expected: list[str] | tuple[str, ...]) -> list[str]:
    """The sorted names of the folders in a folder, which are four digits each."""
    names = images_in(folder, expected)
    matched(folder, names, FOLDER, '0001 (a folder of images)')
    return names


def _frames_in(home: Path, split: str, identity: str, tracklet: str) -> list[Frame]:
    """The frames in the folder of a tracklet; raises DataError unless it shows just one."""
    folder = home / split / identity / tracklet
    names = images_in(folder, ['folders of tracklets'])
    fields = matched(folder, names, NAME, EXAMPLE)
    strange = [name for name, (pid, *_) in zip(names, fields) if pid != identity]
    if strange:
        raise DataError(f'{folder}: {some(strange)} of another identity; move or remove')
    if len({camera for _, camera, _ in fields}) > 1:
        raise DataError(f'{folder}: images of several cameras; a tracklet is seen by one')
    # Numbers of folders begin anew in query and gallery: the same may be another tracklet there.
    # The first name has its place in the video, which no other tracklet has.
    key = identity, tracklet, names[0]
    return [
        Frame(f'{split}/{identity}/{tracklet}/{name}', int(pid), int(camera) - 1, int(frame), key)
        for name, (pid, camera, frame) in zip(names, fields)
    ]
