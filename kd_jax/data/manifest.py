"""Own images, whatever their folders and names: a table says what each one shows.

    ROOT.csv or ROOT.parquet, of which ROOT is the whole path, with a row an image:
    path,split,identity,camera,tracklet,frame
    photos/a.jpg,train,anna,front door,1,17

Paths are relative to the table's folder or absolute, splits are train, query and gallery. Camera,
tracklet and frame may be empty, which is unknown (-1), or have no column. Identities that are all
whole numbers are kept, where 0 is a distractor of the gallery; otherwise they are text, and
numbered from 1 in sorted order. Cameras are numbered from 0 in the order of their numbers, or else
of their text. Identity -1 is junk and left out. A tracklet needs a name of its own only within one
identity and camera.
"""

import posixpath
from pathlib import Path

import numpy as np

from kd_jax.data.layout import (
    check_identities,
    check_once,
    check_present,
    opener,
    some,
    tracklets,
)
from kd_jax.data.records import JUNK, DataError, Records, Source, from_rows, select
from kd_jax.data.table import WHOLE, existing, load, refuse

SPLITS = 'train', 'query', 'gallery'
NEEDED = 'path', 'split', 'identity'
COLUMNS = (*NEEDED, 'camera', 'tracklet', 'frame')

Row = tuple[str, int, int, int, int]  # path, identity, camera, tracklet, frame


def read(*, root: str) -> Source:
    """The images of a table, in its order, those of one tracklet together and in order of time.

    Raises DataError for a table that cannot be read, a misspelt or missing column, an empty or
    wrong value (naming its row), a number spelt in two ways, an image that is missing or listed
    twice, an identity on both sides of the split, an image of unknown camera that is in query and
    gallery.
    """
    if not root:
        raise DataError('no table given for own images: add --config.data.root=FILE.csv')
    file = existing(root, NEEDED)
    table = load(file, COLUMNS, NEEDED)
    _check_values(file, table)
    columns = [
        _numbered(file, table, column, first)
        for column, first in (('identity', 1), ('camera', 0), ('tracklet', 0), ('frame', 0))
    ]
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for split, path, *row in zip(table['split'], table['path'], *columns):
        if row[0] != JUNK:
            rows[split].append((posixpath.normpath(path), *row))
    splits = [*_records(rows['train']), *_records(rows['query'], rows['gallery'])]
    _check_splits(file, *splits)
    known = all((records.tracklets >= 0).all() for records in splits)
    return Source(*splits, opener(file.parent), file.parent, tracklets=known)


def _check_values(file: Path, table: dict[str, list[str]]) -> None:
    """Raises DataError for values that are needed and empty, and for those that cannot be."""
    for column in NEEDED:
        refuse(file, [not value for value in table[column]], f'no {column}; every image has one')
    other = [split not in SPLITS for split in table['split']]
    refuse(file, other, f'a split that is none of {", ".join(SPLITS)}')
    refuse(file, ['#' in path for path in table['path']], 'a path with #; rename the file')
    strange = [bool(text) and not WHOLE.fullmatch(text) for text in table['frame']]
    refuse(file, strange, 'a frame that is no whole number')


def _numbered(file: Path, table: dict, column: str, first: int) -> list[int]:
    """Whole numbers as they are, or else the place of a text in sorted order; -1 for none.

    Places count from `first`. Of cameras, numbers have places too. Raises DataError as `_whole`.
    """
    texts = [text or '-1' for text in table[column]]
    whole = all(map(WHOLE.fullmatch, set(texts)))
    values = _whole(file, column, texts) if whole else texts
    if whole and column != 'camera':
        return values
    known = sorted(set(values) - {-1, '-1'})
    places = {value: place for place, value in enumerate(known, first)}
    return [places.get(value, -1) for value in values]


def _whole(file: Path, column: str, texts: list[str]) -> list[int]:
    """The numbers; raises DataError for those below -1 or, frames apart, spelt in two ways."""
    numbers = [int(text) for text in texts]
    refuse(file, [number < -1 for number in numbers], f'{column} below -1, which is for none')
    spelt: dict[int, list[str]] = {}
    for text in sorted(set(texts)):
        spelt.setdefault(int(text), []).append(text)
    twice = [' and '.join(forms) for forms in spelt.values() if len(forms) > 1]
    # Names, 01 and 1 may be two; of frames only the order counts.
    if twice and column != 'frame':
        raise DataError(f'{file}: {column} {some(twice)}: one number spelt in two ways; choose one')
    return numbers


def _records(*splits: list[Row]) -> list[Records]:
    """Records of splits whose tracklets are numbered together; -1 where there is none."""
    keys = [[row[1:4] for row in rows] for rows in splits]
    known = [[key for key in of if key[2] >= 0] for of in keys]
    numbers: dict[tuple[int, int, int], int] = {}
    for of, found in zip(known, tracklets(*known)):
        numbers |= zip(of, found)
    return [
        _ordered([(*row[:3], numbers.get(key, -1), row[4]) for row, key in zip(rows, of)])
        for rows, of in zip(splits, keys)
    ]


def _ordered(rows: list[Row]) -> Records:
    """Records whose tracklets are together and in the order of time; other rows follow as given."""
    records = from_rows(rows)
    unknown = records.tracklets < 0
    times = np.where(unknown, 0, records.frames)
    return select(records, np.lexsort((times, records.tracklets, unknown)))


def _check_splits(file: Path, train: Records, query: Records, gallery: Records) -> None:
    """Raises DataError for splits that are empty, lack files or share what they must not."""
    for name, records in zip(SPLITS, (train, query, gallery)):
        paths = records.paths.tolist()
        if not paths:
            raise DataError(f'{file}: no images of split {name}; expected {", ".join(SPLITS)}')
        check_once(file, paths)
    everything = np.concatenate([records.paths for records in (train, query, gallery)])
    check_present(file.parent, everything.tolist(), file)
    check_identities(file, train, query, gallery)
    sides = [
        {path: key for path, *key in zip(*(column.tolist() for column in records[:3]))}
        for records in (query, gallery)
    ]
    shared = [path for path in sides[0] if path in sides[1]]
    itself = [path for path in shared if sides[0][path] != sides[1][path] or sides[0][path][1] < 0]
    if itself:
        raise DataError(
            f'{file}: {some(itself)} in query and gallery would find itself; give both rows its '
            'identity and camera, or leave one out'
        )
