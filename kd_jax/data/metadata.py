"""metadata.json of a prepared data set: what it was prepared from, and whether that is still so.

Beside what the reader said stand the fingerprint of the records and, for each shard, a stamp that
changes when an image in it does.
"""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from kd_jax.data.parts import Part
from kd_jax.data.records import (
    DataError,
    Records,
    Source,
    counts,
    files_of,
    fingerprint,
    select,
    stamp_of,
)

FILE = 'metadata.json'
AGAIN = 'remove the folder and prepare it again'
ASKED = 'reader', 'config'  # the data set and its options in a word, which the builder adds
READ = 'fingerprint', 'stamps', 'tests', 'protocol', 'tracklets', 'expected', 'shards'


def described(
    source: Source, kept: Mapping[str, Records], made: Mapping[str, Sequence[Part]]
) -> dict[str, Any]:
    """What is noted of a source whose shards are `made`; `kept` are the records without bad images.

    The fingerprint is of all that was read, bad images included.
    """
    return {
        'fingerprint': fingerprint(*source.splits().values()),
        'stamps': {split: [part.stamp for part in shards] for split, shards in made.items()},
        'kd_jax': _version(),
        'tests': list(source.tests()),
        'protocol': source.protocol,
        'tracklets': source.tracklets,
        'counts': {split: counts(records)._asdict() for split, records in kept.items()},
        'expected': {split: list(numbers) for split, numbers in source.expected.items()},
        'left_out': {split: left_out(shards) for split, shards in made.items()},
        'shards': {split: [(p.bytes, p.digest) for p in shards] for split, shards in made.items()},
    }


def about(folder: epath.Path) -> dict[str, Any]:
    """What a data set was prepared from; raises DataError if the folder does not say."""
    found = load(folder / FILE)
    if not set(found) >= {*ASKED, *READ}:
        raise DataError(f'{folder / FILE}: not of a data set that this kd_jax prepared; {AGAIN}')
    return found


def load(file: epath.Path) -> dict[str, Any]:
    """What is in a .json file of a prepared data set; raises DataError if it cannot be read."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f'{file}: cannot be read ({error}); {AGAIN}') from error


def stamps(source: Source, cuts: Mapping[str, Sequence[np.ndarray]]) -> dict[str, list[str]]:
    """For each shard of each split what changes when an image in it does: one look at each file.

    `cuts` are the bounds of the examples of each shard. Raises DataError for missing files.
    """
    return {
        split: [
            _stamp(source, select(records, np.arange(edges[0], edges[-1]))) for edges in cuts[split]
        ]
        for split, records in source.splits().items()
    }


def check_same(
    folder: epath.Path, source: Source, cuts: Mapping[str, Sequence[np.ndarray]]
) -> None:
    """Raises DataError unless what was prepared in a folder is what a source reads now."""
    found, wanted = about(folder), fingerprint(*source.splits().values())
    if found['fingerprint'] != wanted:
        raise DataError(
            f'{folder}: prepared from other images ({found["fingerprint"]}) than those there are '
            f'now ({wanted}); remove it to prepare these'
        )
    now = stamps(source, cuts)
    changed = [split for split in now if now[split] != found['stamps'][split]]
    if changed:
        raise DataError(
            f'{folder}: files of {", ".join(changed)} have changed since (their sizes or times); '
            'remove it to prepare them again'
        )


def left_out(shards: Sequence[Part]) -> dict[str, str]:
    """The images that shards are without, with the causes."""
    return {path: cause for part in shards for path, cause in part.bad.items()}


def _stamp(source: Source, records: Records) -> str:
    """What changes when images do: what the reader says, or else their files' sizes and times."""
    try:
        if source.stamp:
            return source.stamp(records)
        return stamp_of(source.home / file for file in files_of(records)) if source.home else ''
    except OSError as error:
        raise DataError(f'{error.filename}: listed, but {error.strerror}') from error


def _version() -> str:
    try:
        return importlib.metadata.version('kd_jax')
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'
