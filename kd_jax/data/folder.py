"""Any images in the folders and names of Market-1501, and in the like names of its kin.

`0002_c1s1_000451_03.jpg` is identity 2, camera 1, sequence 1, frame 451, box 3. The sequence and
the box may be absent and numbers have any length, so the names of CUHK03-NP (`0003_c1_7.png`), VeRi
(`0001_c012_00016460_0.jpg`) and DukeMTMC-reID (`0005_c2_f0046985.jpg`) read as well.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from kd_jax.data.layout import (
    check_identities,
    existing,
    images_in,
    inner,
    matched,
    opener,
    some,
    tracklets,
)
from kd_jax.data.records import JUNK, DataError, Records, Source, from_rows

FOLDERS = 'bounding_box_train', 'query', 'bounding_box_test'
RELEASE = 'Market-1501-v15.09.15'  # the level that newer copies of Market-1501 have in between
NAME = re.compile(r'(-1|\d+)_c(\d+)(?:s(\d+))?_f?(\d+)(?:_\d+)?\.(?:jpg|jpeg|png)', re.IGNORECASE)
EXAMPLE = '0002_c1s1_000451_03.jpg or 0002_c1_07.png (identity, camera, frame)'


class Grammar(NamedTuple):
    """How images are named: groups are identity, camera, sequence (or nothing) and frame."""

    name: re.Pattern
    example: str


class Named(NamedTuple):
    """A folder's images: base names, then (identity, camera, sequence or -1), then frames."""

    names: list[str]
    keys: list[tuple[int, int, int]]
    frames: list[int]


ANY = Grammar(NAME, EXAMPLE)
NOTHING: Mapping[str, Grammar] = MappingProxyType({})


def read(*, root: str, sequences: bool = True) -> Source:
    """The images below `root` in bounding_box_train/, query/ and bounding_box_test/.

    Identity -1 (junk) is left out, 0000 stays in the gallery as distractors. A tracklet is one
    identity in one camera, and with `sequences` in one sequence where names have one. Raises
    DataError for a missing folder, a name that does not parse, an identity on both sides of the
    split.
    """
    home = inner(existing(root), RELEASE, FOLDERS)
    return source(home, ANY, sequences=sequences)


def source(
    home: Path,
    grammar: Grammar,
    *,
    level: str = '',
    more: Mapping[str, Grammar] = NOTHING,
    sequences: bool = True,
) -> Source:
    """The three folders in `home`/`level`, all paths relative to `home`.

    The images of `more`, folders below `home` with the grammars of their names, are added to the
    gallery. Raises DataError as `read` does.
    """
    grammars = {PurePosixPath(level, name).as_posix(): grammar for name in FOLDERS} | {**more}
    parts = [named(home / folder, names, sequences) for folder, names in grammars.items()]
    train, *tests = (part.keys for part in parts)
    numbers = tracklets(train) + tracklets(*tests)
    train, query, *galleries = map(records, grammars, parts, numbers)
    gallery = Records(*(np.concatenate(columns) for columns in zip(*galleries)))
    check_identities(home / level, train, query, gallery)
    return Source(train, query, gallery, opener(home), home)


def named(folder: Path, grammar: Grammar, sequences: bool) -> Named:
    """The images of a folder, without junk, sorted by identity, camera, sequence, frame and name.

    Without `sequences` all are of sequence -1, as those whose names have none. Raises DataError for
    names that are not of the grammar, and for camera 0.
    """
    names = images_in(folder, FOLDERS)
    fields = matched(folder, names, grammar.name, grammar.example)
    # As numbers: by name, frame 10 would come before frame 7.
    numbers = [[int(x or -1) for x in groups] for groups in fields]
    if not sequences:
        numbers = [[pid, camera, -1, frame] for pid, camera, _, frame in numbers]
    rows = sorted((*numbers_of, name) for numbers_of, name in zip(numbers, names))
    zero = [name for _, camera, _, _, name in rows if camera == 0]
    if zero:
        raise DataError(f'{folder}: {some(zero)} of camera c0; cameras are numbered from c1')
    kept = [row for row in rows if row[0] != JUNK]
    if not kept:
        raise DataError(f'{folder}: no images but junk (-1)')
    return Named(
        [name for *_, name in kept],
        [(pid, camera, sequence) for pid, camera, sequence, *_ in kept],
        [frame for *_, frame, _ in kept],
    )


def records(folder: str, part: Named, numbers: list[int]) -> Records:
    """The records of one folder, which stands in front of each name."""
    return from_rows(
        [
            (f'{folder}/{name}', pid, camera - 1, tracklet, frame)
            for name, (pid, camera, _), tracklet, frame in zip(
                part.names, part.keys, numbers, part.frames
            )
        ]
    )
