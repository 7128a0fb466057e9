"""MARS: tracks of people by six cameras, with distractors among them.

Zheng et al., "MARS: A Video Benchmark for Large-Scale Person Re-identification", ECCV 2016.

    ROOT/bbox_train/0001/0001C1T0001F001.jpg
    ROOT/bbox_test/{0002,0000,00-1}/...             also distractors (0000) and junk (00-1)
    ROOT/info/tracks_{train,test}_info.mat          a row a track: first and last image, both from
                                                    1, identity, camera
    ROOT/info/query_IDX.mat                         the rows of the test tracks that ask, from 1
    ROOT/info/{train,test}_name.txt                 the images in order; may be missing

A name is identity, camera, the track's number and the frame, some of which are missing. The
images in order are those of the folders, sorted by name. Cameras are numbered from 0; a tracklet's
number is its row in the .mat, from 0. Junk is left out, distractors stay in the gallery with
identity 0. The gallery holds no query tracks: 140 queries find a match only where a protocol lets
the queries join it, as the official one does.
"""

import re
from pathlib import Path

import numpy as np
import scipy.io
from jaxtyping import Int

from kd_jax.data.layout import (
    check_identities,
    check_present,
    existing,
    images_in,
    lines_of,
    matched,
    opener,
    some,
)
from kd_jax.data.records import DISTRACTOR, JUNK, Counts, DataError, Records, Source, select

NAME = re.compile(r'(\d{4}|00-1)C([1-6])T(\d{4})F(\d{3})\.(?i:jpg)', re.ASCII)
EXAMPLE = '0001C1T0001F001.jpg (identity, camera 1-6, track, frame)'
FOLDERS = 'bbox_train', 'bbox_test'
TRACK = 'first image, last image, identity, camera'
EXPECTED = {
    'train': Counts(509_914, 625, 6, 8_298),
    'query': Counts(114_493, 626, 6, 1_980),
    'gallery': Counts(543_216, 620, 6, 9_330),
}


def read(*, root: str) -> Source:
    """The tracks below `root`; query are those of query_IDX.mat, gallery the others of the test.

    Raises DataError for what is missing or strange, and for a track whose images contradict it.
    """
    home = existing(root)
    train, test = (_tracks(home, side) for side in ('train', 'test'))
    file = home / 'info' / 'query_IDX.mat'
    query, gallery = divided(file, test, matrix(file, 'query_IDX').ravel())
    check_identities(home, train, query, gallery)
    facts = {'expected': EXPECTED, 'protocol': 'mars', 'tracklets': True}
    return Source(train, query, gallery, opener(home), home, **facts)


def matrix(file: Path, name: str) -> Int[np.ndarray, '...']:
    """A variable of a MATLAB file as int64; raises DataError if it cannot be had."""
    try:
        # Stored in 32 and in unsigned 16 bits: numbers from 1 must not wrap below zero.
        return scipy.io.loadmat(file)[name].astype(np.int64)
    except Exception as error:  # loadmat raises nearly anything on a file that is not its own
        raise DataError(f'{file}: expected a MATLAB file with {name} ({error!r})') from error


def numbers(where: Path, names: list[str]) -> Int[np.ndarray, 'n 4']:
    """Identity (junk is -1), camera, track and frame as in each name; `where` is for the error.

    Raises DataError for names of another form.
    """
    # Only strange names are kept as matches: a million of them would fill the memory.
    strange = [name for name in names if not NAME.fullmatch(name)]
    matched(where, strange, NAME, EXAMPLE)
    letters = np.array(names, 'U19').view(np.uint32).reshape(len(names), 19)
    digits = letters.astype(np.int64) - ord('0')
    thousands = 10 ** np.arange(4)[::-1]
    pids, tracks = digits[:, :4] @ thousands, digits[:, 7:11] @ thousands
    frames = digits[:, 12:15] @ thousands[1:]
    pids[letters[:, 2] == ord('-')] = JUNK
    return np.stack([pids, digits[:, 5], tracks, frames], 1)


def records(
    file: Path, rows: Int[np.ndarray, 't 4'], paths: list[str], named: Int[np.ndarray, 'n 4']
) -> Records:
    """The records of all tracks of a file, junk too, from its rows and the `numbers` of all names.

    Raises DataError naming the file and the rows, from 1, that the names contradict.
    """
    _check_bounds(file, rows, len(paths))
    tracks = np.repeat(np.arange(len(rows)), rows[:, 1] - rows[:, 0] + 1)
    first = named[rows[:, 0] - 1]
    mixed = np.unique(tracks[(named[:, :3] != first[tracks, :3]).any(1)])
    _refuse(file, mixed, 'have images of several identities, cameras or tracks')
    _refuse(file, np.flatnonzero((first[:, :2] != rows[:, 2:]).any(1)), 'contradict the names')
    later = (np.diff(named[:, 3]) > 0) | (np.diff(tracks) > 0)
    _refuse(file, np.unique(tracks[1:][~later]), 'have frames out of order')
    return Records(np.array(paths, str), named[:, 0], named[:, 1] - 1, tracks, named[:, 3])


def divided(file: Path, test: Records, queries: Int[np.ndarray, 'q']) -> tuple[Records, Records]:
    """The tracks that ask, by their rows from 1, and all others; `test` is without junk.

    Raises DataError if the `file` of the queries names other rows than those of identities.
    """
    rows, times = np.unique(queries, return_counts=True)
    live = np.isin(rows - 1, test.tracklets[test.pids > DISTRACTOR])
    wrong = rows[~live | (times > 1)]
    if wrong.size:
        raise DataError(
            f'{file}: expected rows of tracks_test_info.mat, from 1 and each once, that have an '
            f'identity; rows {some(wrong)} have none or are listed twice'
        )
    asks = np.isin(test.tracklets, queries - 1)
    return select(test, asks), select(test, ~asks)


def _tracks(home: Path, side: str) -> Records:
    """The tracks to train or to test on, without junk; raises DataError as `read`."""
    listed, folder = home / 'info' / f'{side}_name.txt', f'bbox_{side}'
    if listed.exists():
        where, names = listed, lines_of(listed, f'the names of all images in {folder}')
    else:
        where, names = home / folder, _names_in(home / folder)
    named = numbers(where, names)
    file = home / 'info' / f'tracks_{side}_info.mat'
    rows = matrix(file, f'track_{side}_info')
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise DataError(f'{file}: track_{side}_info is {rows.shape}; expected rows of {TRACK}')
    found = records(file, rows, [f'{folder}/{name[:4]}/{name}' for name in names], named)
    found = select(found, found.pids != JUNK)
    if where == listed:
        check_present(home, found.paths.tolist(), listed)
    return found


def _names_in(folder: Path) -> list[str]:
    """The sorted names of all images in the folders of identities in a folder."""
    names = []
    for identity in images_in(folder, FOLDERS):
        inside = images_in(folder / identity, ['folders of identities'])
        strange = [name for name in inside if name[:4] != identity]
        if strange:
            raise DataError(f'{folder / identity}: {some(strange)} of another identity; move them')
        names += inside
    return sorted(names)


def _check_bounds(file: Path, rows: Int[np.ndarray, 't 4'], images: int) -> None:
    """Raises DataError unless the rows share out all images, one row beginning behind another."""
    begins = np.append(1, rows[:, 1] + 1)
    wrong = np.flatnonzero((rows[:, 0] != begins[:-1]) | (rows[:, 0] > rows[:, 1]))
    _refuse(file, wrong, 'do not begin where the row before ends, or end before they begin')
    if begins[-1] != images + 1:
        raise DataError(
            f'{file}: row {len(rows)}, the last, ends at image {begins[-1] - 1}, but there are '
            f'{images} images; complete the folder or, if it has more, remove what does not belong'
        )


def _refuse(file: Path, wrong: Int[np.ndarray, 'w'], why: str) -> None:
    """Raises DataError for rows, given from 0, if there are any."""
    if wrong.size:
        raise DataError(f'{file}: rows {some(wrong + 1)} {why}; rows are {TRACK}')
