"""The images of a folder or a table that are no data set: to be embedded, or to ask with.

A table (CSV or Parquet) has a column `path`, relative to its folder, and if known `identity` and
`camera`; of a folder all images are taken, those in folders below it too. Identity and camera are
text, '' where unknown, as camera -1 is; 0 is the identity of distractors, who are no one else in
the list, and -1 that of junk, as in Market-1501.
"""

import os
import posixpath
from collections import Counter
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from absl import logging
from PIL import Image

from kd_jax.data.folder import EXAMPLE, NAME
from kd_jax.data.layout import check_once, ignored, matched, some
from kd_jax.data.records import DataError, fingerprint
from kd_jax.data.table import WHOLE, existing, load, refuse

NAMES = 'none', 'market'
SUFFIXES = '.jpg', '.jpeg', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm', '.pgm'
TABLES = '.csv', '.parquet'
NEEDED = ('path',)
COLUMNS = (*NEEDED, 'identity', 'camera')
DISTRACTOR, JUNK = '0', '-1'  # identities that are none
UNKNOWN = '-1'  # a camera, also spelt ''


class Listing(NamedTuple):
    """Images by their paths below `home`, with identity and camera as text, '' where unknown."""

    home: Path
    paths: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray

    def open(self, path: str) -> Image.Image:
        """One of the images."""
        return Image.open(self.home / path)

    def stamp(self) -> str:
        """A fingerprint of names and labels, and of the sizes and times of files."""
        states = [_state(self.home / path) for path in self.paths.tolist()]
        labels = [column.tolist() for column in self[1:]]
        return fingerprint(str(labels), str(states))


def listed(images: Path, names: str = 'none') -> Listing:
    """The images of a folder, sorted by path, of a table, in its order, or the one of a file.

    `names='market'` reads identity and camera off names like `0002_c1s1_000451_03.jpg`. Raises
    DataError where there is none, for a path listed twice, a number spelt in two ways, names of
    another kind, and labels that are in a table and in names.
    """
    images = images.expanduser()
    if images.is_dir():
        found = _of_folder(images)
    elif images.suffix.lower() in TABLES:
        found = _of_table(images)
    elif images.is_file():
        found = _unlabelled(images.parent, [images.name])
    else:
        raise DataError(f'{images}: no such file or folder')
    return _named(images, found) if names == 'market' else found


def _of_folder(folder: Path) -> Listing:
    """All images below a folder; how many files of other kinds there are is logged."""
    files = _files_below(folder)
    paths = [file for file in files if posixpath.splitext(file)[1].lower() in SUFFIXES]
    if not paths:
        raise DataError(f'{folder}: no images; expected files in {", ".join(SUFFIXES)}')
    if len(paths) < len(files):
        kinds = Counter(posixpath.splitext(file)[1] or 'no suffix' for file in files)
        others = sorted(kind for kind in kinds if kind.lower() not in SUFFIXES)
        count = len(files) - len(paths)
        logging.info('%s: not images: %d files in %s', folder, count, some(others))
    return _unlabelled(folder, paths)


def _files_below(folder: Path) -> list[str]:
    """The paths of all files below a folder, sorted; links to folders are followed once."""
    found, seen = [], set()
    for where, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = [] if real in seen else sorted(name for name in folders if not ignored(name))
        if real not in seen:
            found += [Path(where, name).relative_to(folder) for name in names if not ignored(name)]
        seen.add(real)
    return sorted(path.as_posix() for path in found)


def _refuse(error: OSError) -> NoReturn:
    """DataError for a folder that cannot be read, whose images would be missing unnoticed."""
    raise DataError(
        f'{error.filename}: this folder cannot be read ({error.strerror}); allow it, move it away, '
        f'or list the images in a file {" or ".join(TABLES)}'
    ) from error


def _of_table(file: Path) -> Listing:
    """The images that a table lists; whether they are there is seen when they are read."""
    file = existing(str(file), NEEDED)
    table = load(file, COLUMNS, NEEDED)
    refuse(file, [not path for path in table['path']], 'no path; every image has one')
    paths = [posixpath.normpath(path) for path in table['path']]
    check_once(file, paths)
    labels = [_labels(file, column, table[column]) for column in COLUMNS[1:]]
    return Listing(file.parent, np.array(paths), *labels)


def _labels(file: Path, column: str, texts: list[str]) -> np.ndarray:
    """Labels of which numbers are spelt in one way; DataError where a table has two."""
    texts = ['' if column == 'camera' and text == UNKNOWN else text for text in texts]
    found = [_label(text) for text in texts]
    if len(set(found)) < len(set(texts)):
        spelt = Counter(map(_label, set(texts)))
        twice = [label for label, count in spelt.items() if count > 1]
        raise DataError(f'{file}: {column} {some(twice)}: one number spelt in two ways; choose one')
    return np.array(found)


def _label(text: str) -> str:
    return str(int(text)) if WHOLE.fullmatch(text) else text


def _named(images: Path, found: Listing) -> Listing:
    """The same images, their identity and camera by their names."""
    if (found.identities != '').any() or (found.cameras != '').any():
        raise DataError(f'{images} has identities or cameras of its own: leave out --names')
    names = [posixpath.basename(path) for path in found.paths.tolist()]
    groups = matched(images, names, NAME, EXAMPLE)
    columns = ([_label(one[place]) for one in groups] for place in (0, 1))
    return Listing(found.home, found.paths, *map(np.array, columns))


def _unlabelled(home: Path, paths: list[str]) -> Listing:
    unknown = np.full(len(paths), '')
    return Listing(home, np.array(paths), unknown, unknown)


def _state(file: Path) -> tuple[int, int] | None:
    """Size and time of a file, None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
