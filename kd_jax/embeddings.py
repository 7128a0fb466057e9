"""Files of embeddings: images by path, what is known of them, and by which network they are seen.

Parquet has the columns path, identity, camera and embedding, and is read a block at a time; an npz
has arrays of these names, and is read whole. Both hold `facts`, of the run and of its settings.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Float, Shaped

from kd_jax.data.layout import some
from kd_jax.data.records import DataError

SUFFIXES = '.parquet', '.npz'
DTYPES = 'float32', 'float16'
SAME = 'width', 'weights', 'image', 'shots'  # facts of embeddings that can be compared
LABELS = 'path', 'identity', 'camera'
CODED = ['identity', 'camera']  # columns of few different values
VECTORS = 'embedding'
NEEDED = {'run', 'checkpoint', 'step', 'metric', 'home', 'images', 'dtype', 'count', *SAME}
FACTS = 'kd_jax'  # the key of the facts: of Parquet's metadata, of an npz' arrays
REMEDY = 'embed the images again: python -m kd_jax.embed'
# What pyarrow, zipfile and numpy raise on files that are damaged or not theirs.
DAMAGE = pyarrow.ArrowException, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile


class Embeddings(NamedTuple):
    """An open file: `images` has the columns path, identity and camera, '' where unknown.

    `read(rows)` reads the embeddings so many at a time, float32 or float16.
    """

    file: Path
    facts: dict[str, Any]
    images: pyarrow.Table
    read: Callable[[int], Iterable[Float[np.ndarray, 'b d']]]

    @property
    def size(self) -> int:
        return self.images.num_rows

    def blocks(self, rows: int) -> Iterator[Float[np.ndarray, 'b d']]:
        """The embeddings so many at a time; DataError for NaN, Inf and zero vectors."""
        first = 0
        for block in _guarded(self.file, self.read(rows)):
            paths = self.images.column('path').slice(first, len(block))
            _check_block(self.file, block, paths)
            first += len(block)
            yield block

    def vectors(self) -> Float[np.ndarray, 'n d']:
        """All embeddings at once."""
        return np.concatenate(list(self.blocks(2**14)))


def check_name(file: Path) -> None:
    """DataError for a file of embeddings that would be neither Parquet nor npz."""
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f'{file}: embeddings are kept in files called {" or ".join(SUFFIXES)}')


def faults(vectors: Float[np.ndarray, 'n d']) -> Shaped[np.ndarray, 'n']:
    """Why each of some embeddings cannot be compared, '' where it can."""
    wrong = [~np.isfinite(vectors).all(axis=1), ~vectors.any(axis=1)]
    return np.select(wrong, ['NaN or Inf', 'only zeros'], '')


def read(file: Path) -> Embeddings:
    """Open a file; DataError for one that is missing, damaged, empty, or of something else.

    And for one in which a path comes twice, or whose embeddings are of another width than it says.
    """
    check_name(file)
    if not file.is_file():
        raise DataError(f'{file}: no such file; {REMEDY}')
    opened = _parquet if file.suffix.lower() == '.parquet' else _npz
    try:
        found, width = opened(file)
    except DAMAGE as error:
        raise DataError(f'{file}: no file of embeddings ({error}); {REMEDY}') from error
    _check_content(found, width)
    return found


def write(
    file: Path, facts: dict[str, Any], images: pyarrow.Table, parts: Iterable[np.ndarray]
) -> None:
    """Write a whole file or nothing; `parts` are the embeddings in the order of `images`."""
    check_name(file)
    part = file.with_name(f'.{file.name}.part')
    written = _write_parquet if file.suffix.lower() == '.parquet' else _write_npz
    try:
        with part.open('wb') as out:
            written(out, facts, images, parts)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def labels(paths: Iterable, identities: Iterable, cameras: Iterable) -> pyarrow.Table:
    """The columns of `images`."""
    columns = (paths, identities, cameras)
    texts = [pyarrow.array(list(map(str, of)), pyarrow.string()) for of in columns]
    return pyarrow.table(texts, list(LABELS))


def check_same(one: Embeddings, facts: dict[str, Any], other: str) -> None:
    """DataError where embeddings are not of the width and the network that `facts` are of."""
    for key in SAME:
        if key in facts and one.facts[key] != facts[key]:
            theirs, ours = (f'{key} {found[key]}, {by(found)}' for found in (facts, one.facts))
            raise DataError(
                f'{other} has {theirs}, but {one.file} has {ours}: these can not be compared; '
                'embed both by one checkpoint of one run'
            )


def by(facts: dict[str, Any]) -> str:
    """By which checkpoint something was embedded."""
    return f'by step {facts["step"]} of {facts["run"]}'


def _guarded(file: Path, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks; DataError for whatever is said of the file while they are read."""
    try:
        yield from blocks
    except DAMAGE as error:
        raise DataError(f'{file}: cannot be read to its end ({error}); {REMEDY}') from error


def _check_block(file: Path, vectors: np.ndarray, paths: pyarrow.ChunkedArray) -> None:
    """DataError naming the images whose embeddings cannot be compared."""
    causes = faults(vectors)
    wrong = causes != ''
    if wrong.any():
        cause = causes[wrong][0]
        named = some(paths.filter(causes == cause).to_pylist())
        raise DataError(f'{file}: {cause} in the embeddings of {named}; {REMEDY}')


def _check_content(found: Embeddings, width: int) -> None:
    lacking = sorted(NEEDED - set(found.facts))
    if lacking:
        raise DataError(f'{found.file}: no {", ".join(lacking)} among its facts; {REMEDY}')
    if not found.size:
        raise DataError(f'{found.file}: no embeddings in it; {REMEDY}')
    if width != found.facts['width']:
        raise DataError(
            f'{found.file}: embeddings of width {width}, where its facts say '
            f'{found.facts["width"]}; {REMEDY}'
        )
    counts = found.images.column('path').value_counts()
    twice = counts.filter(pyarrow.compute.greater(counts.field('counts'), 1)).field('values')
    if len(twice):
        raise DataError(f'{found.file}: {some(twice.to_pylist())} twice; {REMEDY}')


def _parquet(file: Path) -> tuple[Embeddings, int]:
    opened = pyarrow.parquet.ParquetFile(file, memory_map=True)
    schema = opened.schema_arrow
    facts = json.loads((schema.metadata or {})[FACTS.encode()])

    def blocks(rows: int) -> Iterator[np.ndarray]:
        for batch in opened.iter_batches(rows, columns=[VECTORS]):
            values = batch.column(0).flatten().to_numpy(zero_copy_only=False)
            yield values.reshape(len(batch), -1)

    images = opened.read(list(LABELS))
    return Embeddings(file, facts, images, blocks), schema.field(VECTORS).type.list_size


def _npz(file: Path) -> tuple[Embeddings, int]:
    with file.open('rb') as raw, np.load(raw) as arrays:  # which does not close one it refuses
        facts = json.loads(str(arrays[FACTS]))
        images, vectors = labels(*(arrays[name] for name in LABELS)), arrays[VECTORS]
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise ValueError(f'embeddings of shape {vectors.shape} for {len(images)} paths')

    def blocks(rows: int) -> Iterator[np.ndarray]:
        return (vectors[first : first + rows] for first in range(0, len(vectors), rows))

    return Embeddings(file, facts, images, blocks), vectors.shape[1]


def _write_parquet(
    out, facts: dict[str, Any], images: pyarrow.Table, parts: Iterable[np.ndarray]
) -> None:
    number = pyarrow.from_numpy_dtype(np.dtype(facts['dtype']))
    vectors = pyarrow.list_(number, facts['width'])
    schema = images.schema.append(pyarrow.field(VECTORS, vectors))
    schema = schema.with_metadata({FACTS: json.dumps(facts)})
    first = 0
    with pyarrow.parquet.ParquetWriter(out, schema, use_dictionary=CODED) as writer:
        for part in parts:
            values = pyarrow.array(part.reshape(-1), number)
            column = pyarrow.FixedSizeListArray.from_arrays(values, type=vectors)
            columns = images.slice(first, len(part)).columns
            writer.write_table(pyarrow.table([*columns, column], schema=schema))
            first += len(part)


def _write_npz(
    out, facts: dict[str, Any], images: pyarrow.Table, parts: Iterable[np.ndarray]
) -> None:
    columns = {name: np.array(images.column(name).to_pylist(), str) for name in LABELS}
    columns[VECTORS] = np.concatenate(list(parts))
    np.savez(out, **columns, **{FACTS: np.array(json.dumps(facts))})
