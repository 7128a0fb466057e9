"""Data sets: `load` finds a reader by its name and puts pixels to its records."""

import importlib
import pkgutil
from typing import NamedTuple

import numpy as np

from kd_jax.data.cache import cached
from kd_jax.data.images import Pixels, streamed
from kd_jax.data.records import DISTRACTOR, DataError, Records, Source, fingerprint

FEEDS = 'stream', 'cached', 'device'
SPLITS = 'train', 'query', 'gallery'


class Split(NamedTuple):
    """Records, and the pixels of the same rows."""

    records: Records
    pixels: Pixels


class Dataset(NamedTuple):
    """Three splits; `fingerprint` is equal wherever the same images are read at the same size."""

    name: str
    train: Split
    query: Split
    gallery: Split
    fingerprint: str

    @property
    def classes(self) -> int:
        """The number of training identities."""
        return len(np.unique(self.train.records.pids))


def load(
    *,
    name: str,
    height: int,
    width: int,
    channels: int = 3,
    feed: str = 'cached',
    on_bad_image: str = 'error',
    cache_dir: str = '',
    **reader,
) -> Dataset:
    """The data set that kd_jax/data/`name`.py reads, its images as uint8[height, width, channels].

    `feed` is where pixels come from: `stream` decodes each time, `cached` and `device` once, into
    a file in `cache_dir` or else beside the data. A bad image is an `error`, or `skip` leaves it
    out. All other keywords go to the reader. Raises ValueError for an unknown choice, DataError
    for data that is not as it should be.
    """
    if feed not in FEEDS:
        raise ValueError(f'feed={feed!r}: choose one of {", ".join(FEEDS)}')
    source = _read(name, reader)
    _check(name, *source[:3])
    options = {'height': height, 'width': width, 'channels': channels, 'on_bad_image': on_bad_image}
    if feed != 'stream':
        options |= {'home': source.home, 'cache_dir': cache_dir}
    pixels_of = streamed if feed == 'stream' else cached
    splits = [
        Split(*pixels_of(getattr(source, split), source.open, split=split, **options))
        for split in SPLITS
    ]
    columns = [split.records for split in splits]
    _check(name, *columns)
    made_by = sorted((key, value) for key, value in reader.items() if key != 'root')
    content = fingerprint(*columns, height, width, channels, str(made_by))
    return Dataset(name, *splits, content)


def describe(dataset: Dataset) -> str:
    """A table of how many images, identities and cameras each split has.

    Distractors are images of no identity.
    """
    lines = [f'{dataset.name} {dataset.fingerprint}']
    lines.append(f'{"":8}{"images":>10}{"identities":>12}{"cameras":>9}{"distractors":>13}')
    for split in SPLITS:
        records = getattr(dataset, split).records
        distractors = records.pids == DISTRACTOR
        identities = len(np.unique(records.pids[~distractors]))
        cameras = len(np.unique(records.cameras[records.cameras >= 0]))
        counts = f'{len(records.pids):10,}{identities:12,}{cameras:9,}{distractors.sum():13,}'
        lines.append(f'{split:8}{counts}')
    return '\n'.join(lines)


def _read(name: str, options: dict) -> Source:
    """What the reader of that name returns; raises ValueError with the names there are."""
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    if name in modules:
        module = importlib.import_module(f'{__name__}.{name}')
        if hasattr(module, 'read'):
            return module.read(**options)
    imported = [importlib.import_module(f'{__name__}.{module}') for module in modules]
    readers = [module.__name__.split('.')[-1] for module in imported if hasattr(module, 'read')]
    raise ValueError(f'name={name!r}: no such data set; choose one of {", ".join(readers)}')


def _check(name: str, train: Records, query: Records, gallery: Records) -> None:
    """Raises DataError for splits that cannot be trained on or evaluated."""
    identities = len(np.unique(train.pids))
    if identities < 2:
        raise DataError(f'{name}: train has {identities} identities, but a loss needs two')
    for split, records in ('query', query), ('gallery', gallery):
        if not len(records.pids):
            raise DataError(f'{name}: {split} has no images, so nothing can be ranked')
