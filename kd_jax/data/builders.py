"""A tfds builder for each data set, over the same reader that training from a raw folder uses.

Images are stored as the bytes of their files, in the order of the records, in array_record files.
Anything that reads tfds directories can read them; kd_jax does it with prepared.py. Splits that
are made of tracklets (a reader that says `TRACKLETS = True`) are stored by whole tracklets.
"""

import functools
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, make_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from etils import epath

from kd_jax import data
from kd_jax.data import columns, examples, parts, prepared
from kd_jax.data.images import without
from kd_jax.data.parts import Part
from kd_jax.data.records import DataError, Records, Source, counts, fingerprint

SHARD = 4000  # images; a killed preparing loses no more than these
FORMAT = 'array_record'  # read at random, and without TensorFlow


def create(
    name: str,
    *,
    data_dir: str,
    on_bad_image: str = 'error',
    source: Source | None = None,
    **options,
) -> Any:
    """The tfds builder of a data set, with the options of its reader, for DATA_DIR/NAME/CONFIG.

    Its `download_and_prepare` downloads nothing: it takes the images from `source`, or else from
    the `manual_dir` of its download_config. A bad image is an 'error', or 'skip' leaves it out.
    """
    config = _config_class()(
        name=prepared.config_name(data.reader(name).read, options),
        description=', '.join(f'{key}={value!r}' for key, value in sorted(options.items())),
        options=options,
        on_bad_image=on_bad_image,
        source=source,
    )
    return builder_class(name)(data_dir=data_dir, config=config, file_format=FORMAT)


@functools.cache  # tfds refuses a second class of the same name
def builder_class(name: str) -> type:
    """The class of a data set's builder, which tfds knows by the data set's name."""
    import tensorflow_datasets as tfds

    layout = data.reader(name).__doc__
    members = {
        '__doc__': layout,
        '__module__': __name__,
        'name': name,
        'VERSION': tfds.core.Version(prepared.VERSION),
        'MANUAL_DOWNLOAD_INSTRUCTIONS': f'manual_dir is ROOT in this layout:\n\n{layout}',
        'url_infos': None,  # nothing is downloaded
        '_info': _info,
        '_shard_iterators_per_split': _shard_iterators,
        '_example_writer': _example_writer,
        '_post_download_and_prepare_hook': _clean,
    }
    return type(name.title().replace('_', ''), (tfds.core.ShardBasedBuilder,), members)


def features(tracklets: bool) -> dict[str, Any]:
    """The tfds features of an example: of an image, or of a tracklet with all its frames.

    Frames are bytes, for tfds decodes several images only if they have one size, and all of them.
    """
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    whole = {'pid': np.int64, 'camera': np.int64, 'tracklet': np.int64}
    if tracklets:
        several = {'frames': text, 'names': text, 'frame': np.int64}
        return whole | {key: tfds.features.Sequence(kind) for key, kind in several.items()}
    image = tfds.features.Image(shape=(None, None, 3))
    return whole | {'image': image, 'path': text, 'frame': np.int64}


def by_tracklets(name: str) -> bool:
    """Whether the splits of a data set are made of tracklets."""
    return getattr(data.reader(name), 'TRACKLETS', False)


@functools.cache
def _config_class() -> type:
    """A builder's config: besides what tfds wants, what `create` was given."""
    import tensorflow_datasets as tfds

    fields = [
        ('options', Mapping, field(default_factory=dict)),
        ('on_bad_image', str, field(default='error')),
        ('source', Any, field(default=None, repr=False)),
    ]
    return make_dataclass('Config', fields, bases=(tfds.core.BuilderConfig,), eq=False)


def _info(self) -> Any:
    """What tfds knows of a data set before it is prepared."""
    import tensorflow_datasets as tfds

    return tfds.core.DatasetInfo(
        builder=self,
        description=self.__doc__,
        features=tfds.features.FeaturesDict(features(by_tracklets(self.name))),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(),
    )


def _shard_iterators(self, dl_manager: Any) -> dict[str, list[Callable]]:
    """Makes all shards, one by one and outside the folder that tfds drops if it is interrupted.

    tfds is left with as many empty examples to count; `_example_writer` gives it the shards.
    """
    config = self.builder_config
    source = config.source or data.reader(self.name).read(
        root=os.fspath(dl_manager.manual_dir), **config.options
    )
    splits, tracklets = source.splits(), by_tracklets(self.name)
    stamp = fingerprint(*splits.values())
    form = fingerprint(stamp, SHARD, tracklets, prepared.VERSION)
    self.parts = parts.folder(self.data_path.parent, form)
    tell = parts.progress(sum(len(records.pids) for records in splits.values()))
    made = {split: _shards(self, source, split, tell) for split in splits}
    bad = {split: _bad(shards) for split, shards in made.items()}
    kept = {split: without(splits[split], bad[split], split, 'skip') for split in splits}
    _check_left(self.name, kept)
    numbers = {split: examples.numbers(splits[split], bad[split], tracklets) for split in splits}
    columns.save(self.data_path / prepared.RECORDS, kept, numbers)
    self.info.metadata.update(_about(self, source, stamp, made, kept))
    return {
        split: [functools.partial(_nothing, part.examples) for part in shards]
        for split, shards in made.items()
    }


def _shards(self, source: Source, split: str, tell: Callable) -> list[Part]:
    """The shards of a split, made now or before; a bad image is refused if it is an error."""
    records, made = source.splits()[split], []
    cuts = examples.shards(examples.bounds(records, by_tracklets(self.name)), SHARD)
    for number, edges in enumerate(cuts):
        file = self.parts / prepared.shard_name(self.name, split, number, len(cuts))
        part = parts.found(file)
        if part:
            tell(int(edges[-1] - edges[0]), earlier=True)
        else:
            part = _shard(self, file, source, records, edges, tell)
        for path, cause in part.bad.items():
            _refuse(self, path, cause)
        made.append(part)
    return made


def _shard(
    self, file: epath.Path, source: Source, records: Records, edges: np.ndarray, tell: Callable
) -> Part:
    """Makes the shard of the examples between `edges`."""
    bad = {}

    def refuse(path, cause):
        _refuse(self, path, cause)
        bad[path] = cause

    tracklets = by_tracklets(self.name)
    found = examples.made(
        source.open, records, edges, tracklets=tracklets, refuse=refuse, tell=tell
    )
    return parts.write(file, (_serialised(self, example) for example in found), bad)


def _refuse(self, path: str, cause: str) -> None:
    """Raises DataError for a bad image unless bad images are left out."""
    if self.builder_config.on_bad_image == 'error':
        remedy = 'replace it, or leave bad images out: --on_bad_image=skip'
        raise DataError(f'{path}: {cause}; {remedy}')


def _check_left(name: str, splits: Mapping[str, Records]) -> None:
    """Raises DataError for a split of which no image is left."""
    empty = [split for split, records in splits.items() if not len(records.pids)]
    if empty:
        raise DataError(f'{name}: {", ".join(empty)} would have no images; replace the bad ones')


def _serialised(self, example: dict[str, Any]) -> bytes:
    """A tf.train.Example, its features sorted, so that equal images make equal files."""
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example.FromString(self.info.features.serialize_example(example))
    return message.SerializeToString(deterministic=True)


def _bad(shards: list[Part]) -> dict[str, str]:
    """The images that were left out, with the causes."""
    return {path: cause for part in shards for path, cause in part.bad.items()}


def _about(
    self, source: Source, stamp: str, made: Mapping[str, list], kept: Mapping[str, Records]
) -> dict[str, Any]:
    """The metadata: from what was prepared what; the fingerprint is of all that was read."""
    return {
        'reader': self.name,
        'config': self.builder_config.name,
        'options': dict(self.builder_config.options),
        'fingerprint': stamp,
        'kd_jax': _version(),
        'tests': list(source.tests()),
        'protocol': source.protocol,
        'tracklets': by_tracklets(self.name),
        'counts': {split: counts(records)._asdict() for split, records in kept.items()},
        'expected': {split: list(numbers) for split, numbers in source.expected.items()},
        'left_out': {split: _bad(shards) for split, shards in made.items()},
        'shards': {
            split: [(part.bytes, part.digest) for part in shards] for split, shards in made.items()
        },
    }


def _version() -> str:
    try:
        return importlib.metadata.version('kd_jax')
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'


def _nothing(count: int) -> Iterator[tuple[int, dict]]:
    """As many keys and examples as a shard has, for tfds to count them."""
    return ((key, {}) for key in range(count))


def _example_writer(self) -> SimpleNamespace:
    """What tfds writes a shard with: here it is made already, and gets its place."""

    def write(path, examples):
        parts.link(self.parts / path.name, path)

    return SimpleNamespace(write=write)


def _clean(self) -> None:
    """Deletes what this and killed preparings left beside the prepared folder."""
    home = self.data_path.parent
    for left in [self.parts, *home.glob(f'incomplete.*_{self.version}')]:
        left.rmtree()
