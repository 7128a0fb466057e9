"""What a data set is before any pixel is read: columns of names, identities and cameras."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

JUNK, DISTRACTOR = -1, 0  # Market-1501's two identities that are none


class Records(NamedTuple):
    """The columns of one split, one row an image, in an order that never changes.

    `paths` name an image to the reader's `open`, a file below its home with or without a `#` and
    more behind it; `pids` are the data set's own identities (0 is
    a distractor); `cameras` count from 0; `tracklets` are numbered through query and gallery, and
    the rows of one are in the order of time; -1 in `cameras`, `tracklets` or `frames` is unknown.
    """

    paths: np.ndarray
    pids: Int[np.ndarray, 'n']
    cameras: Int[np.ndarray, 'n']
    tracklets: Int[np.ndarray, 'n']
    frames: Int[np.ndarray, 'n']


class Counts(NamedTuple):
    """What a split holds, or should hold by what is published; 0 there is not published.

    Distractors are images of no identity, and are not counted among the identities.
    """

    images: int = 0
    identities: int = 0
    cameras: int = 0
    tracklets: int = 0


class Source(NamedTuple):
    """What a reader returns: splits, and how to open one image of them.

    `gallery` is `query` itself where a protocol draws both from one pool. `home` is the folder
    beside which decoded images may be cached, None for a data set that lies in no folder. `more`
    are further test sets by name, (query, gallery), and `test` is the name of the first, needed
    where there are more. `expected` are published counts by the names of `splits`.
    `stamp(records)` changes when the images behind records do; without it, the sizes and times of
    their files are taken. `protocol` is how papers rank it (retrieval/protocols.py). `tracklets`
    says that all splits consist of tracklets, so that a query is one, not each of its images.
    """

    train: Records
    query: Records
    gallery: Records
    open: Callable[[str], Image.Image]
    home: Path | None
    more: Mapping[str, tuple[Records, Records]] = MappingProxyType({})
    expected: Mapping[str, Counts] = MappingProxyType({})
    stamp: Callable[[Records], str] | None = None
    test: str = ''
    protocol: str = 'market'
    tracklets: bool = False

    def tests(self) -> dict[str, tuple[Records, Records]]:
        """Query and gallery of every test set by name."""
        return {self.test: (self.query, self.gallery), **self.more}

    def splits(self) -> dict[str, Records]:
        """All records by the name of their split (`by_name`)."""
        return by_name(self.train, self.tests())


class DataError(Exception):
    """A data set on disk is not as its layout says; the message names the file and the remedy."""


def by_name(train: Any, tests: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Splits by name: train, then query_NAME and gallery_NAME (without a name query and gallery).

    A pool, which is both query and gallery, is called test_NAME, or test.
    """
    found = {'train': train}
    for name, (query, gallery) in tests.items():
        end = f'_{name}' if name else ''
        pair = {'test': query} if query is gallery else {'query': query, 'gallery': gallery}
        found |= {split + end: part for split, part in pair.items()}
    return found


def pair(splits: Mapping[str, Any], test: str) -> tuple[Any, Any]:
    """Query and gallery of a test set, of splits `by_name`."""
    end = f'_{test}' if test else ''
    names = ('test', 'test') if f'test{end}' in splits else ('query', 'gallery')
    return tuple(splits[name + end] for name in names)


def from_rows(rows: list[tuple[str, int, int, int, int]]) -> Records:
    """Columns from (path, pid, camera, tracklet, frame) rows, kept in their order."""
    paths, *numbers = zip(*rows, strict=True) if rows else ((),) * 5
    return Records(np.array(paths, str), *(np.array(column, np.int64) for column in numbers))


def select(records: Records, rows: np.ndarray) -> Records:
    """The given rows (indices or a mask) of every column."""
    return Records(*(column[rows] for column in records))


def labels(records: Records) -> Int[np.ndarray, 'n']:
    """Class numbers 0..c-1: the place of each identity among the sorted identities."""
    return np.unique(records.pids, return_inverse=True)[1].astype(np.int32)


def counts(records: Records) -> Counts:
    """How many images, identities, cameras and tracklets there are."""
    distinct = [
        np.unique(column[column > none]).size
        for column, none in (
            (records.pids, DISTRACTOR),
            (records.cameras, -1),
            (records.tracklets, -1),
        )
    ]
    return Counts(len(records.pids), *distinct)


def files_of(records: Records) -> list[str]:
    """The file of every image, relative to the data set's home."""
    return [path.partition('#')[0] for path in records.paths.tolist()]


def stamp_of(files: Iterable[Path]) -> str:
    """A fingerprint of the sizes and times of files."""
    return fingerprint(str([(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, files)]))


def fingerprint(*parts: Records | str | int) -> str:
    """Sixteen hex digits that change when any column or any other part changes."""
    digest = hashlib.sha256()
    for part in parts:
        columns = part if isinstance(part, Records) else (np.array(str(part)),)
        for column in columns:
            digest.update(f'{column.dtype.kind}{column.shape}'.encode())
            lines = column.tolist() if column.ndim else [column.item()]
            digest.update('\n'.join(map(str, lines)).encode())
    return digest.hexdigest()[:16]
