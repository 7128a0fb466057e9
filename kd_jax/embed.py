"""The embeddings of images and of sets of them, a batch at a time over the mesh."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float, Int

from kd_jax import parallel
from kd_jax.data import Split, augment, pipeline, sampling
from kd_jax.methods import Method

PROGRESS_SECONDS = 10


def embedder(method: Method, mesh: Mesh) -> Callable:
    """embedded(variables, uint8 images[s, n, h, w, c]) -> float[s, d], compiled over the mesh."""
    return parallel.spread(lambda v, images: method.embed(v, augment.normalise(images)), mesh)


def features(
    embedded: Callable, query: Split, gallery: Split, shots: int, batch: int, mesh: Mesh, seed: int
) -> Callable:
    """found(items) -> float[i, d] of a test set; equal items are embedded once."""
    splits = [query] if query is gallery else [query, gallery]
    starts = np.cumsum([0, *(len(split.records.pids) for split in splits)])
    others = _others(splits, starts, shots, seed) if shots > 1 else None
    known: dict[Any, np.ndarray] = {}

    def read(rows):
        parts = [np.flatnonzero((rows >= low) & (rows < high)) for low, high in pairwise(starts)]
        images = [s.pixels.read(rows[part] - low) for s, part, low in zip(splits, parts, starts)]
        return np.concatenate(images)[np.argsort(np.concatenate(parts), kind='stable')]

    def found(items):
        rows = items.rows if others is None else others[items.rows[:, 0]]
        key = rows.shape, rows.tobytes()
        if key not in known:
            known[key] = embed_rows(embedded, read, rows, batch // rows.shape[1], mesh)
        return known[key]

    return found


def _others(splits: list[Split], starts: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Every test image with others of its true identity from its own split."""
    drawn = [sampling.shots_of(split.records.pids, shots, seed) for split in splits]
    return np.concatenate([rows + start for rows, start in zip(drawn, starts)])


def embed_rows(
    embedded: Callable,
    read: Callable,
    rows: Int[np.ndarray, 'q shots'],
    batch: int,
    mesh: Mesh,
) -> Float[np.ndarray, 'q d']:
    """The embeddings of sets of rows, a batch at a time, the last one padded."""
    batch = max(1, batch // mesh.size) * mesh.size
    vectors, told = [], time.perf_counter()
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        padded = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
        images = parallel.shard(pipeline.images_of(read, padded), mesh)
        vectors.append(np.asarray(embedded(images))[: len(part)])
        if time.perf_counter() - told > PROGRESS_SECONDS:
            told = time.perf_counter()
            logging.info('embedded %d of %d', first + len(part), len(rows))
    return np.concatenate(vectors)
