"""CUHK03 under the new protocol: 767 identities to train on, 700 to test on.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. The
split cannot be drawn again outside MATLAB, so its file must be there. Boxes drawn by hand
(labeled) and by a detector (detected) have different test identities: never mix the two.

    ROOT/cuhk03_new_protocol_config_{labeled,detected}.mat   the split, or else
    ROOT/splits_new_{labeled,detected}.json                  as torchreid wrote it
    ROOT/images_{labeled,detected}/1_003_2_07.png            the pixels, or else
    ROOT/cuhk03_release/cuhk-03.mat                          read in place, nothing is extracted

A name is camera pair, person, view and image, all from 1. Identities run from 1 to 1467 over the
pairs. Cameras are 0 and 1 in every pair, as the field counts them: the view, not one of the ten
physical cameras. Evaluation does not mind, for an identity stays in its pair.
"""

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from absl import logging
from PIL import Image

from kd_jax.data.layout import check_identities, existing, opener, tracklets
from kd_jax.data.records import DataError, Records, Source, from_rows, stamp_of

PERSONS = 843, 440, 77, 58, 49  # in each camera pair
NAME = re.compile(r'([1-5])_(\d{3})_(1_0[1-5]|2_(?:0[6-9]|10))\.png')
SPLITS = 'train', 'query', 'gallery'
IDENTITIES = 767, 700, 700
IMAGES = {'labeled': (7368, 1400, 5328), 'detected': (7365, 1400, 5332)}


def read(*, root: str, detected: bool = False) -> Source:
    """The images of one version of CUHK03, their boxes drawn by hand or `detected`.

    Raises DataError when a file is missing or not as expected; counts other than the published
    ones are logged as a warning.
    """
    home, version = existing(root), 'detected' if detected else 'labeled'
    file, names = _find_split(home, version)
    train, query, gallery = splits = [records(file, part, version) for part in names]
    check_identities(file, train, query, gallery)
    _check_counts(file, splits, version)
    open, home, stamp = _find_pixels(home, version, [name for part in names for name in part])
    return Source(train, query, gallery, open, home, stamp=stamp)


def from_protocol(file: Path) -> list[list[str]]:
    """Image names of train, query and gallery in a cuhk03_new_protocol_config_*.mat.

    Raises DataError if the columns are not there or contradict one another.
    """
    try:
        columns = scipy.io.loadmat(file)
        listed = np.array([str(cell.item()) for cell in columns['filelist'].ravel()])
        # Unsigned in the file: 1-based numbers of 16 and 8 bits would wrap below zero.
        persons, views = (columns[key].ravel().astype(np.int64) for key in ('labels', 'camId'))
        rows = [columns[f'{split}_idx'].ravel().astype(np.int64) - 1 for split in SPLITS]
    except Exception as error:  # loadmat raises nearly anything on a file that is not its own
        raise DataError(
            f'{file}: expected a MATLAB file with filelist, labels, camId, train_idx, query_idx '
            f'and gallery_idx ({error!r})'
        ) from error
    for split, part in zip(SPLITS, rows):
        if part.size and not 0 <= part.min() <= part.max() < len(listed):
            raise DataError(f'{file}: {split}_idx points outside filelist (1..{len(listed)})')
    named = [(_identity(file, name), _fields(file, name)[2]) for name in listed]
    if named != list(zip(persons.tolist(), views.tolist())):
        raise DataError(f'{file}: labels or camId contradict the names in filelist')
    return [listed[part].tolist() for part in rows]


def from_listing(file: Path) -> list[list[str]]:
    """Image names of train, query and gallery in a splits_new_*.json.

    Only base names are used: the file holds the paths of the machine that wrote it, and training
    identities numbered differently from the others. Raises DataError for any other structure.
    """
    try:
        (split,) = json.loads(file.read_text())
        return [[re.split(r'[/\\]', path)[-1] for path, _, _ in split[key]] for key in SPLITS]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f'{file}: expected a list of one object with train, query and gallery, each a list '
            f'of [path, identity, camera] ({error!r})'
        ) from error


def records(file: Path, names: list[str], version: str) -> Records:
    """Records of the named images in the order of their names; `file` is named in errors."""
    rows = []
    names = sorted(names)
    keys = [(_identity(file, name), _fields(file, name)[2] - 1) for name in names]
    for name, (pid, camera), tracklet in zip(names, keys, *tracklets(keys)):
        image = _fields(file, name)[3]
        rows.append((f'images_{version}/{name}', pid, camera, tracklet, image))
    return from_rows(rows)


def _find_split(home: Path, version: str) -> tuple[Path, list[list[str]]]:
    """The file that defines the split, and the image names of its three parts."""
    protocol = f'cuhk03_new_protocol_config_{version}.mat'
    listing = home / f'splits_new_{version}.json'
    places = [folder / protocol for folder in (home, home / 'cuhk03_release', home.parent)]
    file = next(filter(Path.is_file, [*places, listing]), None)
    if file is None:
        raise DataError(f'{home}: holds neither {protocol} nor {listing.name}, which is the split')
    names = from_listing(file) if file == listing else from_protocol(file)
    everything = [name for part in names for name in part]
    if len(set(everything)) < len(everything):
        raise DataError(f'{file}: an image is listed twice; train, query and gallery are disjoint')
    return file, names


def _find_pixels(home: Path, version: str, names: list[str]) -> tuple:
    """How to open an image, its home, and its stamp: of the PNGs if all are there, or the .mat."""
    folder = home / f'images_{version}'
    missing = sorted(set(names) - set(os.listdir(folder) if folder.is_dir() else ()))
    if not missing:
        return opener(home), home, None
    places = home / 'cuhk03_release' / 'cuhk-03.mat', home / 'cuhk-03.mat'
    mat = next(filter(Path.is_file, places), None)
    if mat is None:
        raise DataError(
            f'{folder}: {", ".join(missing[:3])} missing ({len(missing)} of {len(names)}), and '
            f'neither {places[0]} nor {places[1]} exists'
        )
    _check_cells(mat, version, names)
    return _open_cell(mat, version), mat.parent, lambda records: stamp_of([mat])


def _open_cell(mat: Path, version: str) -> Callable[[str], Image.Image]:
    """A function that opens an image of cuhk-03.mat by its path; threads take turns in it."""
    handles, lock = {}, threading.Lock()

    def open(path: str) -> Image.Image:
        pair, person, _, image = _fields(mat, path.rpartition('/')[2])
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
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'{mat}: expected an HDF5 file (MATLAB v7.3) with `{version}`, a cell for each of 5 '
            f'camera pairs ({error})'
        ) from error
    for name in names:
        pair, person, _, image = _fields(mat, name)
        if pair > len(shapes) or np.any(np.less(shapes[pair - 1], (image, person))):
            raise DataError(f'{mat}: no cell for {name} in `{version}`, whose pairs are {shapes}')


def _check_counts(file: Path, splits: list[Records], version: str) -> None:
    """Logs a warning where images or identities are not as many as published."""
    images = tuple(len(split.pids) for split in splits)
    identities = tuple(len(np.unique(split.pids)) for split in splits)
    if (images, identities) != (IMAGES[version], IDENTITIES):
        logging.warning(
            '%s: train, query and gallery have %s images of %s identities; published are %s of %s',
            *(file, images, identities, IMAGES[version], IDENTITIES),
        )


def _fields(file: Path, name: str) -> tuple[int, int, int, int]:
    """Pair, person, view and image of a name, all from 1; raises DataError naming both."""
    match = NAME.fullmatch(name)
    if not match:
        raise DataError(
            f'{file}: {name!r} is not pair_person_view_image.png, such as 1_003_2_07.png '
            '(images 01-05 are of view 1, 06-10 of view 2)'
        )
    pair, person, rest = match.groups()
    view, image = rest.split('_')
    return int(pair), int(person), int(view), int(image)


def _identity(file: Path, name: str) -> int:
    """The person's number 1..1467 over all pairs; raises DataError if there is no such person."""
    pair, person, _, _ = _fields(file, name)
    if not 1 <= person <= PERSONS[pair - 1]:
        raise DataError(f'{file}: {name!r}, but pair {pair} has persons 1..{PERSONS[pair - 1]}')
    return sum(PERSONS[: pair - 1]) + person
