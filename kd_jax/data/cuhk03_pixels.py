"""The images of CUHK03 by their names: PNG files, or cells of cuhk-03.mat read in place.

A name such as `1_003_2_07.png` is camera pair, person in that pair, view and image, all from 1;
images 01-05 are of view 1, 06-10 of view 2. In cuhk-03.mat, MATLAB's v7.3 and thus HDF5, `labeled`
and `detected` hold a cell for each pair: rows of ten images, a row a person, seen transposed from
here. Persons with fewer images have empty cells.
"""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from kd_jax.data.layout import opener
from kd_jax.data.records import DataError, stamp_of

PERSONS = 843, 440, 77, 58, 49  # in each camera pair
NAME = re.compile(r'([1-5])_(\d{3})_(1_0[1-5]|2_(?:0[6-9]|10))\.png')
MAT = 'cuhk-03.mat'
UNREADABLE = OSError, KeyError, ValueError, TypeError, AttributeError, IndexError


def fields(file: Path, name: str) -> tuple[int, int, int, int]:
    """Pair, person, view and image of a name, all from 1.

    Raises DataError naming both the name and the file it is from if there is no such image.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise DataError(
            f'{file}: {name!r} is not pair_person_view_image.png, such as 1_003_2_07.png '
            '(images 01-05 are of view 1, 06-10 of view 2)'
        )
    pair, person = int(match[1]), int(match[2])
    if not 1 <= person <= PERSONS[pair - 1]:
        raise DataError(f'{file}: {name!r}, but pair {pair} has persons 1..{PERSONS[pair - 1]}')
    view, image = match[3].split('_')
    return pair, person, int(view), int(image)


def identity(pair: int, person: int) -> int:
    """The number 1..1467 of a person over all pairs."""
    return sum(PERSONS[: pair - 1]) + person


def find_mat(home: Path) -> Path | None:
    """Where cuhk-03.mat lies, if it does."""
    return next(filter(Path.is_file, (home / 'cuhk03_release' / MAT, home / MAT)), None)


def find(home: Path, version: str, names: list[str]) -> tuple:
    """How to open an image, its home, and its stamp: of the PNGs if all are there, or the .mat.

    Raises DataError if some of the named images are in neither.
    """
    folder = home / f'images_{version}'
    missing = sorted(set(names) - set(os.listdir(folder) if folder.is_dir() else ()))
    if not missing:
        return opener(home), home, None
    mat = find_mat(home)
    if mat is None:
        raise DataError(
            f'{folder}: {", ".join(missing[:3])} missing ({len(missing)} of {len(names)}), and '
            f'neither {home / "cuhk03_release" / MAT} nor {home / MAT} exists'
        )
    _check_cells(mat, version, names)
    return _open_cell(mat, version), mat.parent, lambda records: stamp_of([mat])


def names_in(mat: Path, version: str) -> list[str]:
    """The names of all images in cuhk-03.mat, which are the cells that are not empty.

    Only the shapes of the cells are read. Raises DataError if it is no such file.
    """
    try:
        with h5py.File(mat, 'r') as file:
            pairs = [
                np.array([[file[cell].ndim == 3 for cell in column] for column in file[pair]])
                for pair in file[version][0]
            ]
    except UNREADABLE as error:
        raise _no_cells(mat, version, error) from error
    return [
        f'{pair}_{person + 1:03d}_{1 + column // 5}_{column + 1:02d}.png'
        for pair, filled in enumerate(pairs, 1)
        for column, person in np.argwhere(filled).tolist()
    ]


def _open_cell(mat: Path, version: str) -> Callable[[str], Image.Image]:
    """A function that opens an image of cuhk-03.mat by its path; threads take turns in it."""
    handles, lock = {}, threading.Lock()

    def open(path: str) -> Image.Image:
        pair, person, _, image = fields(mat, path.rpartition('/')[2])
        with lock:  # HDF5 is not thread-safe, and a forked process needs a handle of its own
            if os.getpid() not in handles:
                handles[os.getpid()] = h5py.File(mat, 'r')
            file = handles[os.getpid()]
            cells = file[file[version][0, pair - 1]]
            cell = file[cells[image - 1, person - 1]][()]
        if cell.ndim < 3 or cell.size == 0:  # MATLAB's [] is stored as its two dimensions
            raise DataError(f'{mat}: {path} is an empty cell; expected an image there')
        return Image.fromarray(np.ascontiguousarray(cell.T))

    return open


def _check_cells(mat: Path, version: str, names: list[str]) -> None:
    """Raises DataError unless cuhk-03.mat has a cell for each of the names."""
    try:
        with h5py.File(mat, 'r') as file:
            shapes = [file[pair].shape for pair in file[version][0]]
    except UNREADABLE as error:
        raise _no_cells(mat, version, error) from error
    for name in names:
        pair, person, _, image = fields(mat, name)
        if pair > len(shapes) or np.any(np.less(shapes[pair - 1], (image, person))):
            raise DataError(f'{mat}: no cell for {name} in `{version}`, whose pairs are {shapes}')


def _no_cells(mat: Path, version: str, error: Exception) -> DataError:
    """What is wrong with a cuhk-03.mat that is none."""
    return DataError(
        f'{mat}: expected an HDF5 file (MATLAB v7.3) with `{version}`, a cell for each of 5 '
        f'camera pairs ({error})'
    )
