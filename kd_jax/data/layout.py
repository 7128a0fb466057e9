"""What readers share: finding folders, lists and names, with errors that say what was expected."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kd_jax.data.records import DISTRACTOR, DataError, Records


def existing(root: str) -> Path:
    """The folder a user named as the data set's; raises DataError if none was, or there is none."""
    if not root:
        raise DataError('no folder given for this data set: add --config.data.root=DIR')
    home = Path(root).expanduser()
    if not home.is_dir():
        raise DataError(f'{home}: no such folder; set --config.data.root to the data set')
    return home


def inner(home: Path, level: str, needed: Sequence[str]) -> Path:
    """`home`, or the folder `level` in it that some copies have around what is needed."""
    outside = any((home / name).exists() for name in needed)
    return home / level if not outside and (home / level).is_dir() else home


def images_in(folder: Path, expected: Iterable[str]) -> list[str]:
    """The sorted names of the files in a folder, without those that systems leave there.

    Raises DataError if it is missing or empty; `expected` are the folders that belong beside it.
    """
    if not folder.is_dir():
        raise DataError(
            f'{folder}: no such folder; expected {", ".join(expected)} in {folder.parent}'
        )
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not ignored(entry.name))
    if not names:
        raise DataError(f'{folder}: no images; expected .jpg or .png files')
    return names


def ignored(name: str) -> bool:
    """Whether a file is one that systems leave in folders unasked: hidden ones and Thumbs.db."""
    return name.startswith('.') or name.lower() in ('thumbs.db', '__macosx', 'desktop.ini')


def lines_of(file: Path, expected: str) -> list[str]:
    """The lines of a list without blanks at their ends and without empty ones.

    Raises DataError if the file is missing, empty or no text; `expected` says what it should hold.
    """
    try:
        text = file.read_text('utf-8-sig')
    except FileNotFoundError:
        raise DataError(f'{file}: no such file; expected {expected}') from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{file}: cannot be read ({error}); expected {expected}') from error
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if not lines:
        raise DataError(f'{file}: empty; expected {expected}')
    return lines


def matched(
    where: Path, names: Sequence[str], grammar: re.Pattern, example: str
) -> list[tuple[str | None, ...]]:
    """The groups of the grammar in each name, which must match whole; `where` is for the error.

    Raises DataError naming those that do not, and an `example` of one that would.
    """
    # The whole base name must match: a search would read -1 as 1, or an identity off a folder.
    matches = [grammar.fullmatch(name) for name in names]
    strange = [name for name, match in zip(names, matches) if not match]
    if strange:
        raise DataError(f'{where}: {some(strange)} not named like {example}; rename or remove')
    return [match.groups() for match in matches]


def check_present(home: Path, paths: Iterable[str], listed: Path) -> None:
    """Raises DataError for paths below `home` that a list names and that are not there.

    Every folder is read once, which is faster than to ask for every file.
    """
    folders: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, _, name = path.rpartition('/')
        if folder not in folders:
            place = home / folder
            folders[folder] = set(os.listdir(place)) if place.is_dir() else set()
        if name not in folders[folder]:
            missing.append(path)
    if missing:
        raise DataError(f'{home}: {some(missing)} missing, which {listed} lists')


def check_once(listed: Path, items: Sequence) -> None:
    """Raises DataError for items that a list names more than once; `listed` is for the error."""
    if len(set(items)) < len(items):
        twice = [item for item, count in Counter(items).items() if count > 1]
        raise DataError(f'{listed}: {some(twice)} listed twice; list every image once')


def check_sizes(sizes: Sequence[int], choices: Iterable[int]) -> None:
    """Raises ValueError naming the choices unless `sizes` are one or more of them, none twice."""
    if not sizes or len(set(sizes)) < len(sizes) or not set(sizes) <= set(choices):
        raise ValueError(
            f'sizes={tuple(sizes)}: choose one or more of {", ".join(map(str, choices))}, each once'
        )


def check_identities(where: Path, train: Records, *tests: Records) -> None:
    """Raises DataError if training shares identities with testing, or distractors stray.

    `tests` are a query and its gallery, more of them in turn; distractors belong in a gallery.
    """
    named = [('training', train), *(('query', query) for query in tests[::2])]
    for name, records in named:
        stray = records.paths[records.pids == DISTRACTOR]
        if stray.size:
            raise DataError(
                f'{where}: {some(stray)} of the {name} images have identity 0000, which means '
                'a distractor and belongs in the gallery; number identities from 1'
            )
    shared = np.intersect1d(train.pids, np.concatenate([test.pids for test in tests]))
    if shared.size:
        raise DataError(
            f'{where}: identities {some(shared)} are in the training images and in the query or '
            'gallery images; a test identity must not be trained on'
        )


def tracklets(*splits: Sequence) -> list[list[int]]:
    """For each split a running number of each key, equal for equal keys, in the keys' order.

    Query and gallery are numbered together: a tracklet that both show has one number.
    """
    numbers = {key: number for number, key in enumerate(sorted(set().union(*splits)))}
    return [[numbers[key] for key in keys] for keys in splits]


def opener(home: Path) -> Callable[[str], Image.Image]:
    """How to open the images of a data set whose paths are files below `home`."""
    return lambda path: Image.open(home / path)


def some(items: Sequence | np.ndarray) -> str:
    """The first three items, and how many there are."""
    return f'{", ".join(map(str, items[:3]))}{", ..." if len(items) > 3 else ""} ({len(items)})'
