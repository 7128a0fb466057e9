"""Data sets: `load` finds a reader by its name and puts pixels to its records."""

import inspect
import json
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import NamedTuple

import numpy as np
from absl import logging

from kd_jax.data import findings, prepared
from kd_jax.data.cache import cached
from kd_jax.data.images import Pixels, streamed
from kd_jax.data.records import (
    DISTRACTOR,
    Counts,
    DataError,
    Records,
    Source,
    by_name,
    counts,
    fingerprint,
    pair,
)

FEEDS = 'stream', 'cached', 'device'


class Split(NamedTuple):
    """Records, and the pixels of the same rows."""

    records: Records
    pixels: Pixels


class Dataset(NamedTuple):
    """Three splits, and further test sets by name (query, gallery); `test` names the first.

    `gallery` is `query` itself where a protocol draws both from one pool. `fingerprint` is equal
    wherever the same images are read in the same way. `tracklets`: all splits consist of them.
    """

    name: str
    train: Split
    query: Split
    gallery: Split
    fingerprint: str
    more: Mapping[str, tuple[Split, Split]] = MappingProxyType({})
    test: str = ''
    tracklets: bool = False

    @property
    def classes(self) -> int:
        """The number of training identities."""
        return len(np.unique(self.train.records.pids))

    def tests(self) -> dict[str, tuple[Split, Split]]:
        """Query and gallery of every test set by name."""
        return {self.test: (self.query, self.gallery), **self.more}

    def splits(self) -> dict[str, Split]:
        """All splits by name (`records.by_name`)."""
        return by_name(self.train, self.tests())


def load(
    *,
    name: str,
    height: int,
    width: int,
    channels: int = 3,
    resize: str = 'bilinear',
    feed: str = 'cached',
    on_bad_image: str = 'error',
    cache_dir: str = '',
    **options,
) -> Dataset:
    """The data set that kd_jax/data/`name`.py reads, its images as uint8[height, width, channels].

    They are stretched to that size (`resize` is `bilinear` or `bicubic`), or keep their shape amid
    black (`pad`). `feed` is where pixels come from: `stream` decodes each time, `cached` and
    `device` once, into a file in `cache_dir` or else beside the data. A bad image is an `error`, or
    `skip` leaves it out. All other keywords go to the reader. Raises ValueError for an unknown
    choice, DataError for data that is not as it should be.
    """
    if feed not in FEEDS:
        raise ValueError(f'feed={feed!r}: choose one of {", ".join(FEEDS)}')
    source = read(name, cache_dir=cache_dir, **options)
    _check(name, source.train, source.tests())
    wanted = {'height': height, 'width': width, 'channels': channels, 'resize': resize}
    wanted |= {'on_bad_image': on_bad_image}
    if feed != 'stream':
        wanted |= {'home': source.home, 'cache_dir': cache_dir, 'stamp': source.stamp}
    pixels_of = streamed if feed == 'stream' else cached
    splits = {
        split: Split(*pixels_of(records, source.open, split=split, **wanted))
        for split, records in source.splits().items()
    }
    made_by = json.dumps({key: options[key] for key in sorted(options) if key != 'root'})
    columns = [split.records for split in splits.values()]
    content = fingerprint(*columns, height, width, channels, resize, made_by)
    (query, gallery), *more = (pair(splits, test) for test in source.tests())
    further = dict(zip(source.more, more))
    facts = {'more': further, 'test': source.test, 'tracklets': source.tracklets}
    made = Dataset(name, splits['train'], query, gallery, content, **facts)
    pairs = {
        test: (query.records, gallery.records) for test, (query, gallery) in made.tests().items()
    }
    _check(name, made.train.records, pairs)  # bad images may have been left out
    return made


def read(name: str, *, cache_dir: str = '', **options) -> Source:
    """What the reader of that name returns, its counts compared with those that are published.

    A prepared data set (prepared.py) below `root` is read in its place; a remote one is copied to
    `cache_dir` first. Raises ValueError naming the readers there are; other counts are logged as
    warnings.
    """
    module = reader(name)
    try:
        inspect.signature(module.read).bind(**options)
    except TypeError as error:
        raise TypeError(f'data set {name}: {error}') from None
    folder = prepared.find(name, module.read, options)
    if folder:
        logging.info('%s: reading what is prepared in %s', name, folder)
    source = prepared.source(folder, cache_dir) if folder else module.read(**options)
    for split, records in source.splits().items():
        found, wanted = counts(records), source.expected.get(split, Counts())
        for what, here, published in zip(Counts._fields, found, wanted):
            if published and here != published:
                text = '%s: %s has %s %s, published are %s'
                logging.warning(text, name, split, f'{here:,}', what, f'{published:,}')
    return source


def readers() -> list[str]:
    """The names of all data sets."""
    return [name for name in _modules() if hasattr(_module(name), 'read')]


def reader(name: str) -> ModuleType:
    """The module that reads a data set; raises ValueError with the names there are."""
    if name not in _modules() or not hasattr(_module(name), 'read'):
        raise ValueError(f'name={name!r}: no such data set; choose one of {", ".join(readers())}')
    return _module(name)


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _module(name: str) -> ModuleType:
    return import_module(f'{__name__}.{name}')


def describe(dataset: Dataset) -> str:
    """A table of how many images, identities, cameras and tracklets each split has.

    Distractors are images of no identity.
    """
    heads = (*Counts._fields, 'distractors')
    lines = [f'{dataset.name} {dataset.fingerprint}']
    lines.append(f'{"":14}' + ''.join(f'{head:>13}' for head in heads))
    for name, split in dataset.splits().items():
        distractors = int((split.records.pids == DISTRACTOR).sum())
        numbers = (*counts(split.records), distractors)
        lines.append(f'{name:14}' + ''.join(f'{number:13,}' for number in numbers))
    return '\n'.join(lines)


def _check(name: str, train: Records, tests: findings.Tests) -> None:
    """Raises DataError for what cannot be trained on or evaluated under any protocol."""
    found = findings.problems(train, tests)
    if found:
        raise DataError('\n'.join(f'{name}: {problem}' for problem in found))
