"""Shards of a prepared data set, written one by one so that a killed preparing can go on."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from absl import logging
from etils import epath

from kd_jax.data.images import SECONDS
from kd_jax.data.records import DataError
from kd_jax.data.remote import is_remote, transfer

PREFIX, HALF = '.parts-', 'half-'
# One example a chunk, so that each can be read alone; images are compressed already.
WRITER = 'group_size:1,uncompressed'


class Part(NamedTuple):
    """What a finished shard holds; `bad` are the images it is without, with the causes.

    `digest` is of the examples, and `bytes` the size of the file, which is a multiple of 64 kB.
    `stamp` changes when an image does that the shard was made from.
    """

    examples: int
    bytes: int
    digest: str
    bad: dict[str, str]
    stamp: str


def folder(home: epath.Path, fingerprint: str) -> epath.Path:
    """The folder below `home` for the shards of what has that fingerprint.

    Those of anything else are deleted, and what a killed preparing left half-written.
    """
    wanted = home / f'{PREFIX}{fingerprint}'
    others = [other for other in home.glob(f'{PREFIX}*') if other.name != wanted.name]
    for stale in [*others, *wanted.glob(f'{HALF}*')]:
        stale.rmtree()
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted


def found(file: epath.Path, stamp: str) -> Part | None:
    """What a shard holds that was finished before; None if it was not, or from other images."""
    note = _note(file)
    if not (note.exists() and file.exists()):
        return None
    told = json.loads(note.read_text())
    return Part(**told) if told.get('stamp') == stamp else None


def write(file: epath.Path, examples: Iterable[bytes], bad: dict[str, str], stamp: str) -> Part:
    """Writes a shard, which gets its name only once it is whole, and notes what it holds.

    `bad` may be filled while the examples are taken. Raises DataError if there is no room.
    """
    _note(file).unlink(missing_ok=True)  # of a shard that was made from other images
    beside = None if is_remote(file) else file.parent
    with tempfile.TemporaryDirectory(prefix=HALF, dir=beside) as scratch:
        local = Path(scratch) / file.name
        count, digest = _fill(local, examples)
        part = Part(count, local.stat().st_size, digest, bad, stamp)
        if is_remote(file):
            transfer(epath.Path(local), file)
        else:
            local.replace(file)
    draft = file.with_name(f'{file.name}.{os.getpid()}')
    draft.write_text(json.dumps(part._asdict()))
    draft.replace(_note(file))
    return part


def link(file: epath.Path, path: epath.Path) -> None:
    """Gives a shard a second name; where the file system has no such thing, a copy."""
    try:
        os.link(file, path)
    except OSError:
        file.copy(path)


def progress(total: int) -> Callable[[int], None]:
    """A function to tell of images that are done, which logs every few seconds how it goes."""
    began, done, before = time.monotonic(), 0, 0

    def tell(count: int, earlier: bool = False) -> None:
        nonlocal done, before
        done, before = done + count, before + count * earlier
        speed = (done - before) / max(time.monotonic() - began, 1e-9)
        text = 'prepared %d of %d images, %.0f images/s, %.0f s left'
        line = text, done, total, speed, (total - done) / max(speed, 1e-9)
        if done == total:
            logging.info(*line)
        elif not earlier:
            logging.log_every_n_seconds(logging.INFO, text, SECONDS, *line[1:])

    return tell


def _note(file: epath.Path) -> epath.Path:
    return file.with_name(f'{file.name}.json')


def _fill(local: Path, examples: Iterable[bytes]) -> tuple[int, str]:
    """Writes examples to a local file; returns how many, and a digest of them.

    Raises DataError if that is impossible.
    """
    # Imported here: it is not built for every system, and nothing else needs it.
    from array_record.python.array_record_module import ArrayRecordWriter

    with _full_disk(local):
        writer = ArrayRecordWriter(str(local), WRITER)
    count, digest = 0, hashlib.sha256()
    for example in examples:
        with _full_disk(local):
            writer.write(example)
        count += 1
        digest.update(example)
    with _full_disk(local):
        writer.close()
    return count, digest.hexdigest()[:16]


@contextlib.contextmanager
def _full_disk(local: Path) -> Iterator[None]:
    """Tells what array_record raises when it cannot write as a DataError."""
    try:
        yield
    except RuntimeError as error:
        raise DataError(
            f'{local.parent}: cannot hold the prepared images ({error}); make room there and start '
            'again: what is finished is kept'
        ) from error
