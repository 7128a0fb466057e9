"""What a data set is before any pixel is read: columns of names, identities and cameras."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

JUNK, DISTRACTOR = -1, 0  # Market-1501's two identities that are none


class Records(NamedTuple):
    """The columns of one split, one row an image, in an order that never changes.

    `paths` name an image to the reader's `open`; `pids` are the data set's own identities (0 is
    a distractor); `cameras` count from 0; -1 in `cameras`, `tracklets` or `frames` is unknown.
    """

    paths: np.ndarray
    pids: Int[np.ndarray, 'n']
    cameras: Int[np.ndarray, 'n']
    tracklets: Int[np.ndarray, 'n']
    frames: Int[np.ndarray, 'n']


class Source(NamedTuple):
    """What a reader returns: three splits, and how to open one image of them.

    `home` is the folder beside which decoded images may be cached, None for a data set that
    lies in no folder.
    """

    train: Records
    query: Records
    gallery: Records
    open: Callable[[str], Image.Image]
    home: Path | None


class DataError(Exception):
    """A data set on disk is not as its layout says; the message names the file and the remedy."""


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
