"""Data sets that `python -m kd_jax.data.prepare` has prepared, read back without TensorFlow.

    ROOT/NAME/CONFIG/1.0.0/NAME-SPLIT.array_record-00000-of-00012    the images
    ROOT/NAME/CONFIG/1.0.0/records.npz                               the columns of all splits
    ROOT/NAME/CONFIG/1.0.0/metadata.json                             what it was prepared from
    ROOT/NAME/CONFIG/1.0.0/dataset_info.json                         tfds' own

NAME is the data set's, CONFIG stands for the options of its reader. ROOT may be remote (gs://):
the images are then copied to a local folder first.
"""

import functools
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int
from PIL import Image

from kd_jax.data import choices, columns, metadata, remote
from kd_jax.data.examples import values
from kd_jax.data.metadata import AGAIN
from kd_jax.data.records import Counts, DataError, Records, Source, fingerprint, pair

VERSION = '1.0.0'  # of what is stored, and how
INFO, RECORDS = 'dataset_info.json', 'records.npz'
ANY = f'*/[0-9]*.[0-9]*/{INFO}'  # below the folder of a data set's name
RECENT = 16  # examples kept in memory: frames of one tracklet are often read one after another
READER, BUFFER = 'readahead_buffer_size:0', 32768  # examples are read singly


class Places(NamedTuple):
    """Where each image is: the number of its shard, of the example in it, of the image in that."""

    shard: Int[np.ndarray, 'n']
    example: Int[np.ndarray, 'n']
    image: Int[np.ndarray, 'n']


def shard_name(name: str, split: str, number: int, count: int) -> str:
    """What tfds calls the file of a shard."""
    return f'{name}-{split}.array_record-{number:05d}-of-{count:05d}'


def find(name: str, read: Callable, options: Mapping[str, Any]) -> epath.Path | None:
    """The folder of a prepared data set below the `root` of a reader's options, or `root` itself.

    None if nothing of that name is prepared there. If it is only with other options or in another
    version, it is None too where `root` holds anything that is not prepared, which may be the raw
    data set; else DataError is raised, as for a remote `root` where it is not.
    """
    root, config = options.get('root', ''), choices.config_name(read, options)
    if not root:
        return None
    home = epath.Path(root).expanduser()
    for folder in (home, home / name / config / VERSION):
        if (folder / INFO).exists():
            return _checked(folder, name, config)
    others = sorted(str(file.parent) for file in home.glob(f'{name}/{ANY}'))
    if others or remote.is_remote(home):
        text = f'{folder}: no such prepared data set; there is {", ".join(others) or "none"}'
        if remote.is_remote(home) or _only_prepared(home):
            remedy = choices.command(name, read, options, root)
            raise DataError(f'{text}. Prepare it with {remedy}')
        logging.warning('%s; reading %s as the raw data set', text, home)
    return None


def source(folder: epath.Path, cache_dir: str = '') -> Source:
    """The prepared data set in a folder, its records and pixels as its reader gives them.

    A remote one is copied to `cache_dir` first. Images may be opened by several threads at a time
    and in forked processes. Raises DataError if anything is missing or damaged.
    """
    found, lengths = metadata.about(folder), _lengths(folder)
    counts = {split: sum(numbers) for split, numbers in lengths.items()}
    splits, examples = columns.load(folder / RECORDS, counts)
    sizes = _sizes(found, splits)
    stamp = fingerprint(found['fingerprint'], str(found['shards']))
    home = _local(folder, sizes, cache_dir, f'{found["reader"]}-{stamp}')
    read = _reader([home / name for name in sizes], 'frames' if found['tracklets'] else 'image')
    first, *more = ((test, pair(splits, test)) for test in found['tests'])
    return Source(
        splits['train'],
        *first[1],
        _opener(splits, _places(splits, examples, lengths), read),
        None if remote.is_remote(folder) else home,
        more=dict(more),
        expected={split: Counts(*numbers) for split, numbers in found['expected'].items()},
        stamp=lambda records: stamp,
        test=first[0],
        protocol=found['protocol'],
        tracklets=found['tracklets'],
    )


def _only_prepared(home: epath.Path) -> bool:
    """Whether all that is in a folder, but for hidden files, are prepared data sets."""
    entries = [entry for entry in home.iterdir() if not entry.name.startswith('.')]
    return all(any(entry.glob(ANY)) for entry in entries)


def _checked(folder: epath.Path, name: str, config: str) -> epath.Path:
    """The folder, if it is of that data set, of those options and of this version."""
    found = metadata.about(folder)
    here = found['reader'], found['config'], metadata.load(folder / INFO).get('version')
    if here != (name, config, VERSION):
        raise DataError(
            f'{folder}: prepared as {"/".join(map(str, here))}, but {name}/{config}/{VERSION} is '
            'asked for'
        )
    return folder


def _lengths(folder: epath.Path) -> dict[str, list[int]]:
    """How many examples each shard of each split has, by what tfds noted."""
    splits = metadata.load(folder / INFO)['splits']
    return {split['name']: list(map(int, split['shardLengths'])) for split in splits}


def _sizes(found: Mapping[str, Any], splits: Iterable[str]) -> dict[str, int]:
    """The bytes of each shard by the name of its file, in the order of the splits."""
    return {
        shard_name(found['reader'], split, number, len(found['shards'][split])): size
        for split in splits
        for number, (size, _) in enumerate(found['shards'][split])
    }


def _local(folder: epath.Path, sizes: Mapping[str, int], cache_dir: str, name: str) -> Path:
    """A local folder with the shards of a data set, whose sizes are checked."""
    if remote.is_remote(folder):
        if not cache_dir:
            raise DataError(
                f'{folder}: name a local folder for its copy: --config.data.cache_dir=DIR'
            )
        return remote.fetched(folder, sizes, Path(cache_dir).expanduser() / name)
    home = Path(folder)
    for file, size in ((home / name, size) for name, size in sizes.items()):
        found = os.stat(file).st_size if file.exists() else 0
        if found != size:
            raise DataError(f'{file}: has {found:,} bytes, not {size:,}; {AGAIN}')
    return home


def _places(
    splits: Mapping[str, Records],
    examples: Mapping[str, np.ndarray],
    lengths: Mapping[str, list[int]],
) -> Places:
    """The places of the images of all splits, one split after another."""
    found, before = [], 0
    for split, numbers in examples.items():
        shard = np.repeat(np.arange(len(lengths[split])), lengths[split])
        first = np.cumsum([0, *lengths[split]])[:-1]
        rows = np.unique(numbers, return_index=True)[1]
        image = np.arange(len(numbers)) - rows[numbers]
        place = Places(before + shard[numbers], numbers - first[shard[numbers]], image)
        found, before = [*found, place], before + len(lengths[split])
    return Places(*(np.concatenate(columns) for columns in zip(*found)))


def _opener(
    splits: Mapping[str, Records], places: Places, read: Callable
) -> Callable[[str], Image.Image]:
    """How to open an image by its path; one that is in several splits is the same in each."""
    paths = [path for records in splits.values() for path in records.paths.tolist()]
    rows = {path: row for row, path in enumerate(paths)}

    def open(path: str) -> Image.Image:
        shard, example, image = (int(column[rows[path]]) for column in places)
        return Image.open(io.BytesIO(read(shard, example)[image]))

    return open


def _reader(shards: list[Path], feature: str) -> Callable:
    """read(shard, example) gives the images of an example as bytes; DataError if damaged."""
    opened = _opened(shards)

    @functools.lru_cache(RECENT)
    def read(shard, example):
        try:
            return values(opened(shard).read([example])[0], feature)
        except (RuntimeError, ValueError, IndexError) as error:
            raise DataError(f'{shards[shard]}: damaged ({error}); {AGAIN}') from error

    return read


def _opened(shards: list[Path]) -> Callable:
    """opened(shard) gives array_record's reader of a shard, in each process another."""
    # Imported here: it is not built for every system, and nothing else needs it.
    from array_record.python.array_record_module import ArrayRecordReader

    readers = {}

    def opened(shard):
        # A forked process must not wait for locks that a thread of its parent held.
        key = os.getpid(), shard
        if key not in readers:
            reader = ArrayRecordReader(str(shards[shard]), READER, file_reader_buffer_size=BUFFER)
            readers[key] = reader
        return readers[key]

    return opened
