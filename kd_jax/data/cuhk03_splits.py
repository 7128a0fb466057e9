"""The files that split CUHK03, and the names of the images in each part.

Neither protocol's split can be drawn again, so one of its files must be there. The new protocol:

    cuhk03_new_protocol_config_{labeled,detected}.mat    as its authors published it, or else
    splits_new_{labeled,detected}.json                   as torchreid wrote it

The classic one, twenty splits of 1,367 persons to train on and 100 to test on:

    cuhk03_release/cuhk-03.mat                           as the data set's authors have it, or else
    splits_classic_{labeled,detected}.json               as torchreid wrote it
"""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from kd_jax.data.cuhk03_pixels import PERSONS, UNREADABLE, fields, find_mat, identity, names_in
from kd_jax.data.layout import some
from kd_jax.data.records import DataError

SPLITS = 'train', 'query', 'gallery'
CLASSIC = 20  # splits of the classic protocol


def new_protocol(home: Path, version: str) -> tuple[Path, list[list[str]]]:
    """The file that defines the new protocol, and image names of train, query and gallery."""
    protocol = f'cuhk03_new_protocol_config_{version}.mat'
    listing = home / f'splits_new_{version}.json'
    places = [folder / protocol for folder in (home, home / 'cuhk03_release', home.parent)]
    file = next(filter(Path.is_file, [*places, listing]), None)
    if file is None:
        raise DataError(f'{home}: holds neither {protocol} nor {listing.name}, which is the split')
    parts = from_listing(file) if file == listing else from_protocol(file)
    _check_once(file, *parts)
    return file, parts


def classic(home: Path, version: str, number: int) -> tuple[Path, list[list[str]]]:
    """The file that defines the classic protocol, and image names of train and test."""
    mat, listing = find_mat(home), home / f'splits_classic_{version}.json'
    if mat:
        return mat, from_testsets(mat, version, number)
    if not listing.is_file():
        raise DataError(f'{home}: holds neither cuhk-03.mat nor {listing.name}, which is the split')
    train, query, gallery = from_listing(listing, CLASSIC, number)
    if sorted(query) != sorted(gallery):
        raise DataError(f'{listing}: query and gallery differ; all test images are both')
    _check_once(listing, train, query)
    return listing, [train, query]


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
    named = [
        (identity(pair, person), view)
        for pair, person, view, _ in (fields(file, name) for name in listed.tolist())
    ]
    if named != list(zip(persons.tolist(), views.tolist())):
        raise DataError(f'{file}: labels or camId contradict the names in filelist')
    return [listed[part].tolist() for part in rows]


def from_listing(file: Path, count: int = 1, number: int = 0) -> list[list[str]]:
    """Image names of train, query and gallery in the `number`th split of `count` in a JSON file.

    Only base names are used: the file holds the paths of the machine that wrote it, and training
    identities numbered differently from the others. Raises DataError for any other structure.
    """
    try:
        splits = json.loads(file.read_text())
        if len(splits) != count:
            raise ValueError(f'{len(splits)} of them')
        split = splits[number]
        return [[re.split(r'[/\\]', path)[-1] for path, _, _ in split[key]] for key in SPLITS]
    except (OSError, ValueError, TypeError, KeyError) as error:
        many = 'one object' if count == 1 else f'{count} objects'
        raise DataError(
            f'{file}: expected a list of {many} with train, query and gallery, each a list '
            f'of [path, identity, camera] ({error!r})'
        ) from error


def from_testsets(mat: Path, version: str, number: int) -> list[list[str]]:
    """Image names of train and test in a split of cuhk-03.mat, which lists the test persons.

    Everybody else is trained on. Raises DataError if there are no such lists.
    """
    names = names_in(mat, version)
    try:
        with h5py.File(mat, 'r') as file:
            # float64 and seen transposed: rows of pair and person, both from 1.
            tested = {(pair, person) for pair, person in file[file['testsets'][0, number]][()].T}
    except UNREADABLE as error:
        raise DataError(
            f'{mat}: expected `testsets`, {CLASSIC} cells of rows of pair and person ({error})'
        ) from error
    people = {(pair, person + 1) for pair, n in enumerate(PERSONS, 1) for person in range(n)}
    if strange := sorted(tested - people):
        raise DataError(f'{mat}: `testsets` has {some(strange)}, who are no persons from 1')
    parts = [], []
    for name in names:
        parts[fields(mat, name)[:2] in tested].append(name)
    return [*parts]


def _check_once(file: Path, *parts: list[str]) -> None:
    """Raises DataError if an image is in two parts, or in one twice."""
    everything = [name for part in parts for name in part]
    if len(set(everything)) < len(everything):
        raise DataError(f'{file}: an image is listed twice; the parts of a split are disjoint')
