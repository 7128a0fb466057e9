"""Data sets that `python -m kd_jax.data.prepare` has prepared, read back without TensorFlow.

    ROOT/NAME/CONFIG/1.0.0/NAME-SPLIT.array_record-00000-of-00012    the images
    ROOT/NAME/CONFIG/1.0.0/records.npz                               the columns of all splits
    ROOT/NAME/CONFIG/1.0.0/metadata.json                             what it was prepared from
    ROOT/NAME/CONFIG/1.0.0/dataset_info.json                         tfds' own

NAME is the data set's, CONFIG stands for the options of its reader. ROOT may be remote (gs://):
the images are then copied to a local folder first.
"""

import functools
import inspect
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Int
from PIL import Image

from kd_jax.data import columns, remote
from kd_jax.data.examples import values
from kd_jax.data.records import Counts, DataError, Records, Source, fingerprint

VERSION = '1.0.0'  # of what is stored, and how
INFO, METADATA, RECORDS = 'dataset_info.json', 'metadata.json', 'records.npz'
SAID = {'reader', 'config', 'fingerprint', 'tests', 'protocol', 'expected', 'tracklets', 'shards'}
AGAIN = 'remove the folder and prepare it again'
RECENT = 16  # examples kept in memory: frames of one tracklet are often read one after another
READER, BUFFER = 'readahead_buffer_size:0', 32768  # examples are read singly


class Places(NamedTuple):
    """Where each image is: the number of its shard, of the example in it, of the image in that."""

    shard: Int[np.ndarray, 'n']
    example: Int[np.ndarray, 'n']
    image: Int[np.ndarray, 'n']


def config_name(read: Callable, options: Mapping[str, Any]) -> str:
    """The options of a reader in a word: `default`, or those that differ, as `detected_True`.

    Raises TypeError for an option that the reader does not have.
    """
    bound = inspect.signature(read).bind_partial(**options).arguments
    defaults = {key: p.default for key, p in inspect.signature(read).parameters.items()}
    others = sorted(
        f'{key}_{_word(value)}'
        for key, value in bound.items()
        if key != 'root' and _word(value) != _word(defaults[key])
    )
    return '-'.join(others) or 'default'


def shard_name(name: str, split: str, number: int, count: int) -> str:
    """What tfds calls the file of a shard."""
    return f'{name}-{split}.array_record-{number:05d}-of-{count:05d}'


def find(root: str, name: str, config: str) -> epath.Path | None:
    """The folder of a prepared data set below `root`, or `root` itself if it is that folder.

    None if nothing of that name is prepared there. Raises DataError if it is only with other
    options or in another version, and for a remote `root`, where nothing else can be read.
    """
    if not root:
        return None
    home = epath.Path(root).expanduser()
    if (home / INFO).exists():
        return _checked(home, name, config)
    folder = home / name / config / VERSION
    if (folder / INFO).exists():
        return _checked(folder, name, config)
    others = sorted(str(file.parent) for file in home.glob(f'{name}/*/[0-9]*.[0-9]*/{INFO}'))
    if others or remote.is_remote(home):
        raise DataError(
            f'{folder}: no such prepared data set; there is {", ".join(others) or "none"}. '
            f'Prepare it with python -m kd_jax.data.prepare --dataset={name}'
        )
    return None


def about(folder: epath.Path) -> dict[str, Any]:
    """What a data set was prepared from; raises DataError if the folder does not say."""
    found = _json(folder / METADATA)
    if not set(found) >= SAID:
        raise DataError(f'{folder / METADATA}: not of a data set that kd_jax prepared')
    return found


def source(folder: epath.Path, cache_dir: str = '') -> Source:
    """The prepared data set in a folder, its records and pixels as its reader gives them.

    A remote one is copied to `cache_dir` first. Images may be opened by several threads at a time
    and in forked processes. Raises DataError if anything is missing or damaged.
    """
    found, info = about(folder), _json(folder / INFO)
    lengths = {split['name']: list(map(int, split['shardLengths'])) for split in info['splits']}
    counts = {split: sum(numbers) for split, numbers in lengths.items()}
    splits, examples = columns.load(folder / RECORDS, counts)
    names = [
        shard_name(found['reader'], split, number, len(lengths[split]))
        for split in splits
        for number in range(len(lengths[split]))
    ]
    sizes = dict(zip(names, (size for split in splits for size, _ in found['shards'][split])))
    stamp = fingerprint(found['fingerprint'], str(found['shards']))
    home = _local(folder, sizes, cache_dir, f'{found["reader"]}-{stamp}')
    read = _reader([home / name for name in names], 'frames' if found['tracklets'] else 'image')
    first, *more = ((test, _pair(splits, test)) for test in found['tests'])
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
    )


def _word(value: Any) -> str:
    """A value as a part of a folder's name."""
    values = value if isinstance(value, list | tuple) else [value]
    return re.sub(r'[^\w.]+', '_', '_'.join(map(str, values)))


def _checked(folder: epath.Path, name: str, config: str) -> epath.Path:
    """The folder, if it is of that data set, of those options and of this version."""
    found = about(folder)
    here = found['reader'], found['config'], _json(folder / INFO).get('version')
    if here != (name, config, VERSION):
        raise DataError(
            f'{folder}: prepared as {"/".join(map(str, here))}, but {name}/{config}/{VERSION} is '
            'asked for'
        )
    return folder


def _json(file: epath.Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f'{file}: cannot be read ({error}); {AGAIN}') from error


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

    @functools.lru_cache(RECENT)
    def read(shard, example):
        try:
            return values(opened(shard).read([example])[0], feature)
        except (RuntimeError, ValueError, IndexError) as error:
            raise DataError(f'{shards[shard]}: damaged ({error}); {AGAIN}') from error

    return read


def _pair(splits: Mapping[str, Records], test: str) -> tuple[Records, Records]:
    """Query and gallery of a test set."""
    end = f'_{test}' if test else ''
    names = ('test', 'test') if f'test{end}' in splits else ('query', 'gallery')
    query, gallery = (splits[name + end] for name in names)
    return query, gallery
