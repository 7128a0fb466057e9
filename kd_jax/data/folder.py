"""Any images in the folders and names of Market-1501, and in the like names of its kin.

`0002_c1s1_000451_03.jpg` is identity 2, camera 1, sequence 1, frame 451, box 3. The sequence and
the box may be absent and numbers have any length, so the names of CUHK03-NP (`0003_c1_7.png`), VeRi
(`0001_c012_00016460_0.jpg`) and DukeMTMC-reID (`0005_c2_f0046985.jpg`) read as well.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from kd_jax.data.records import DISTRACTOR, JUNK, DataError, Records, Source, from_rows

FOLDERS = 'bounding_box_train', 'query', 'bounding_box_test'
RELEASE = 'Market-1501-v15.09.15'  # the level that newer copies of Market-1501 have in between
NAME = re.compile(r'(-1|\d+)_c(\d+)(?:s(\d+))?_f?(\d+)(?:_\d+)?\.(?:jpg|jpeg|png)', re.IGNORECASE)


def read(*, root: str) -> Source:
    """The images below `root` in bounding_box_train/, query/ and bounding_box_test/.

    Identity -1 (junk) is left out, 0000 stays in the gallery as distractors. A tracklet is one
    identity in one camera, and in one sequence where names have one. Raises DataError for a
    missing folder, a name that does not parse, an identity on both sides of the split.
    """
    home = existing(root)
    if (home / RELEASE).is_dir() and not any((home / name).is_dir() for name in FOLDERS):
        home /= RELEASE
    train, query, gallery = (_read_folder(home, name) for name in FOLDERS)
    check_identities(home, train, query, gallery)
    return Source(train, query, gallery, lambda path: Image.open(home / path), home)


def existing(root: str) -> Path:
    """The folder a user named as the data set's; raises DataError if none was, or there is none."""
    if not root:
        raise DataError('no folder given for this data set: add --config.data.root=DIR')
    home = Path(root).expanduser()
    if not home.is_dir():
        raise DataError(f'{home}: no such folder; set --config.data.root to the data set')
    return home


def check_identities(where: Path, train: Records, query: Records, gallery: Records) -> None:
    """Raises DataError if training shares identities with testing, or distractors stray."""
    for name, records in ('training', train), ('query', query):
        stray = records.paths[records.pids == DISTRACTOR]
        if stray.size:
            raise DataError(
                f'{where}: {_some(stray)} of the {name} images have identity 0000, which means '
                'a distractor and belongs in the gallery; number identities from 1'
            )
    shared = np.intersect1d(train.pids, np.concatenate([query.pids, gallery.pids]))
    if shared.size:
        raise DataError(
            f'{where}: identities {_some(shared)} are in the training images and in the query or '
            'gallery images; a test identity must not be trained on'
        )


def tracklets(keys: list[tuple[int, ...]]) -> list[int]:
    """A running number for each key, equal for equal keys, in the order of the keys."""
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return [numbers[key] for key in keys]


def _read_folder(home: Path, name: str) -> Records:
    """The records of one folder, sorted by file name; paths are relative to `home`."""
    folder = home / name
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder; expected {", ".join(FOLDERS)} in {home}')
    fields = _parse(folder, sorted(file.name for file in folder.iterdir() if not _ignored(file)))
    files = [file for file, (pid, *_) in fields.items() if pid != JUNK]
    if not files:
        raise DataError(f'{folder}: no images; expected .jpg or .png files')
    keys = [fields[file][:3] for file in files]
    return from_rows(
        [
            (f'{name}/{file}', pid, camera - 1, tracklet, fields[file][3])
            for file, (pid, camera, _), tracklet in zip(files, keys, tracklets(keys))
        ]
    )


def _parse(folder: Path, names: list[str]) -> dict[str, tuple[int, int, int, int]]:
    """Identity, camera, sequence (-1 without) and frame of each file name, as written there.

    Raises DataError for names that are not of the form, and for camera 0.
    """
    # The whole base name must match: a search would read -1 as 1, or an identity off a folder.
    matches = {name: NAME.fullmatch(name) for name in names}
    strange = [name for name, match in matches.items() if not match]
    if strange:
        raise DataError(
            f'{folder}: {_some(strange)} not named like 0002_c1s1_000451_03.jpg or 0002_c1_07.png '
            '(identity, camera, frame); rename or remove'
        )
    fields = {name: tuple(int(x or -1) for x in match.groups()) for name, match in matches.items()}
    zero = [name for name, (_, camera, _, _) in fields.items() if camera == 0]
    if zero:
        raise DataError(f'{folder}: {_some(zero)} of camera c0; cameras are numbered from c1')
    return fields


def _ignored(file: Path) -> bool:
    """Whether a file is one that systems leave in folders unasked: hidden ones and Thumbs.db."""
    return file.name.startswith('.') or file.name in ('Thumbs.db', '__MACOSX')


def _some(items) -> str:
    """The first three items, and how many there are."""
    return f'{", ".join(map(str, items[:3]))}{", ..." if len(items) > 3 else ""} ({len(items)})'
