"""The embeddings of images and of sets of them, a batch at a time over the mesh."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float, Int

from kd_jax import parallel, preemption
from kd_jax.data import Split, augment, pipeline, sampling
from kd_jax.methods import Method
from kd_jax.retrieval.items import Test

PROGRESS_SECONDS = 10
SHOTS_OF = 'identity', 'image'


def embedder(method: Method, mesh: Mesh) -> Callable:
    """embedded(variables, uint8 images[s, n, h, w, c]) -> float[s, d], compiled over the mesh."""
    return parallel.spread(lambda v, images: method.embed(v, augment.normalise(images)), mesh)


def features(
    embedded: Callable, read: Callable, shots: Int[np.ndarray, 'n shots'], batch: int, mesh: Mesh
) -> Callable:
    """found(items) -> float[i, d]; equal items are embedded once.

    `read` gives the images at rows of a test set; an item of one image is embedded from its row
    of `shots`.
    """
    known: dict[Any, np.ndarray] = {}

    def found(items):
        rows = items.rows if shots.shape[1] == 1 else shots[items.rows[:, 0]]
        key = rows.shape, rows.tobytes()
        if key not in known:
            known[key] = embed_rows(embedded, read, rows, batch // rows.shape[1], mesh)
        return known[key]

    return found


def reader(query: Split, gallery: Split) -> Callable:
    """read(rows) -> images of a test set, whose rows count through query and then gallery."""
    splits = [query] if query is gallery else [query, gallery]
    starts = np.cumsum([0, *(len(split.records.pids) for split in splits)])

    def read(rows):
        parts = [np.flatnonzero((rows >= low) & (rows < high)) for low, high in pairwise(starts)]
        images = [s.pixels.read(rows[part] - low) for s, part, low in zip(splits, parts, starts)]
        return np.concatenate(images)[np.argsort(np.concatenate(parts), kind='stable')]

    return read


def shots_of(test: Test, shots: int, kind: str, seed: int) -> Int[np.ndarray, 'n shots']:
    """The rows that are embedded for each image: `shots` of it, or of its true identity.

    The others of its 'identity' are drawn from its own side.
    """
    rows = np.arange(len(test.records.pids))
    if shots == 1 or kind == 'image':
        return np.repeat(rows[:, None], shots, axis=1)
    sides = test.query, test.gallery
    drawn = [sampling.shots_of(test.records.pids[side], shots, seed) for side in sides]
    return np.concatenate([side[picked] for side, picked in zip(sides, drawn)])


def repeated(rows: Int[np.ndarray, 'n shots'], kind: str) -> float:
    """The share of images whose identity had too few for shots that all differ."""
    if kind == 'image' or rows.shape[1] == 1:
        return 0.0
    ordered = np.sort(rows, axis=1)
    return float((ordered[:, 1:] == ordered[:, :-1]).any(axis=1).mean())


def check_shots(test: Test, shots: int, kind: str) -> None:
    """Raise ValueError for an unknown word, and for shots that query and gallery would share."""
    if kind not in SHOTS_OF:
        raise ValueError(f'evaluate.shots_of={kind!r}: choose one of {", ".join(SHOTS_OF)}')
    shared = test.pool or np.isin(test.images[test.query], test.images[test.gallery]).any()
    if shots > 1 and kind == 'identity' and shared:
        raise ValueError(
            'evaluate.shots_of=identity would show an image on both sides, as query and gallery '
            'share images here: set evaluate.shots_of=image'
        )


def embed_rows(
    embedded: Callable,
    read: Callable,
    rows: Int[np.ndarray, 'q shots'],
    batch: int,
    mesh: Mesh,
) -> Float[np.ndarray, 'q d']:
    """The embeddings of sets of rows, a batch at a time."""
    vectors, done, told = [], 0, time.perf_counter()
    for part in batches(embedded, read, rows, batch, mesh):
        if preemption.reached():
            preemption.check()
        vectors.append(part)
        done += len(part)
        if time.perf_counter() - told > PROGRESS_SECONDS:
            told = time.perf_counter()
            logging.info('embedded %d of %d', done, len(rows))
    return np.concatenate(vectors)


def batches(
    embedded: Callable,
    read: Callable,
    rows: Int[np.ndarray, 'q shots'],
    batch: int,
    mesh: Mesh,
) -> Iterator[Float[np.ndarray, 'b d']]:
    """The embeddings of sets of rows batch by batch, the last one padded while it is embedded.

    Of several processes each reads the images of its own devices; all get all embeddings.
    """
    batch = max(1, batch // mesh.size) * mesh.size
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        padded = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
        own = pipeline.images_of(read, padded[parallel.own_rows(batch, mesh)])
        found = embedded(parallel.shard_own(own, batch, mesh))
        yield parallel.gathered(found)[: len(part)]
