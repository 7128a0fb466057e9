"""A tfds builder for each data set, over the same reader that training from a raw folder uses.

Images are stored as the bytes of their files, in the order of the records, in array_record files.
Anything that reads tfds directories can read them; kd_jax does it with prepared.py. Splits that
are made of tracklets (`Source.tracklets`) are stored by whole tracklets.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, make_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Int

from kd_jax import data
from kd_jax.data import choices, columns, examples, metadata, parts, prepared
from kd_jax.data.images import without
from kd_jax.data.parts import Part
from kd_jax.data.records import DataError, Records, Source, fingerprint

SHARD = 4000  # images; a killed preparing loses no more than these
FORMAT = 'array_record'  # read at random, and without TensorFlow


def create(
    name: str,
    *,
    data_dir: str,
    manual_dir: str = '',
    source: Source | None = None,
    on_bad_image: str = 'error',
    **options,
) -> Any:
    """The tfds builder of a data set, with the options of its reader, for DATA_DIR/NAME/CONFIG.

    It takes the images from `source`, or else reads the raw data set in `manual_dir`, for tfds
    asks for the features before it prepares anything; its `download_and_prepare` downloads
    nothing. A bad image is an 'error', or 'skip' leaves it out.
    """
    read = data.reader(name).read
    config = _config_class()(
        name=choices.config_name(read, options),
        description=', '.join(f'{key}={value!r}' for key, value in sorted(options.items())),
        options=options,
        on_bad_image=on_bad_image,
        source=source or read(root=manual_dir, **options),
    )
    return builder_class(name)(data_dir=data_dir, config=config, file_format=FORMAT)


@functools.cache  # tfds refuses a second class of the same name
def builder_class(name: str) -> type:
    """The class of a data set's builder, which tfds knows by the data set's name."""
    import tensorflow_datasets as tfds

    members = {
        '__doc__': data.reader(name).__doc__,
        '__module__': __name__,
        'name': name,
        'VERSION': tfds.core.Version(prepared.VERSION),
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


def cuts(source: Source) -> dict[str, list[Int[np.ndarray, 'k']]]:
    """The bounds of the examples of each shard of each split."""
    return {
        split: examples.shards(examples.bounds(records, source.tracklets), SHARD)
        for split, records in source.splits().items()
    }


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
        features=tfds.features.FeaturesDict(features(self.builder_config.source.tracklets)),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(),
    )


def _shard_iterators(self, dl_manager: Any) -> dict[str, list[Callable]]:
    """Makes all shards, one by one and outside the folder that tfds drops if it is interrupted.

    tfds is left with as many empty examples to count; `_example_writer` gives it the shards.
    """
    source = self.builder_config.source
    splits, bounds = source.splits(), cuts(source)
    stamps = metadata.stamps(source, bounds)
    form = fingerprint(*splits.values(), SHARD, source.tracklets, prepared.VERSION)
    self.parts = parts.folder(self.data_path.parent, form)
    tell = parts.progress(sum(len(records.pids) for records in splits.values()))
    made = {split: _shards(self, split, bounds[split], stamps[split], tell) for split in splits}
    _note(self, made)
    return {
        split: [functools.partial(_nothing, part.examples) for part in shards]
        for split, shards in made.items()
    }


def _shards(
    self, split: str, bounds: list[np.ndarray], stamps: list[str], tell: Callable
) -> list[Part]:
    """The shards of a split, made now or before; a bad image is refused if it is an error."""
    made = []
    for number, (edges, stamp) in enumerate(zip(bounds, stamps)):
        file = self.parts / prepared.shard_name(self.name, split, number, len(bounds))
        part = parts.found(file, stamp)
        if part:
            tell(int(edges[-1] - edges[0]), earlier=True)
        else:
            part = parts.write(file, *_examples(self, split, edges, tell), stamp)
        for path, cause in part.bad.items():
            _refuse(self, path, cause)
        made.append(part)
    return made


def _examples(
    self, split: str, edges: np.ndarray, tell: Callable
) -> tuple[Iterator[bytes], dict[str, str]]:
    """The examples between `edges`, and what the bad images are put into while they are made."""
    source, bad = self.builder_config.source, {}

    def refuse(path, cause):
        _refuse(self, path, cause)
        bad[path] = cause

    options = {'tracklets': source.tracklets, 'refuse': refuse, 'tell': tell}
    found = examples.made(source.open, source.splits()[split], edges, **options)
    return (_serialised(self, example) for example in found), bad


def _note(self, made: Mapping[str, list[Part]]) -> None:
    """Writes the records that are left without bad images, and notes the metadata."""
    config = self.builder_config
    source, kept, numbers = config.source, {}, {}
    for split, records in source.splits().items():
        bad = metadata.left_out(made[split])
        kept[split] = without(records, bad, split, 'skip')
        numbers[split] = examples.numbers(records, bad, source.tracklets)
    _check_left(self.name, kept)
    columns.save(self.data_path / prepared.RECORDS, kept, numbers)
    asked = {'reader': self.name, 'config': config.name, 'options': dict(config.options)}
    self.info.metadata.update(asked | metadata.described(source, kept, made))


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
