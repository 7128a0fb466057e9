"""Listed images as a run's network sees them: read as its own were, embedded a part at a time."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict

from kd_jax import checkpoints, embedding, embeddings, evaluate, parallel, recipes, trees
from kd_jax.data import images
from kd_jax.data.images import ImageError
from kd_jax.data.listing import Listing
from kd_jax.data.records import DataError

PART = 1024  # images that are decoded together, and kept when all of them are embedded
SECONDS = 10  # between two lines of progress
NAMES_HELP = 'market reads identity and camera off names like 0002_c1s1_000451_03.jpg.'
ABSENT = FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError


class Network(NamedTuple):
    """A run's network: `embedded(uint8 images[s, n, h, w, c]) -> float[s, d]`, `n` = `shots`.

    `facts` are what its embeddings depend on, and by which they are told apart.
    """

    embedded: Callable
    mesh: Mesh
    data: dict[str, Any]
    shots: int
    batch: int
    facts: dict[str, Any]


class Part(NamedTuple):
    """The embeddings of some listed images, by row; the others by path with what is wrong."""

    rows: Int[np.ndarray, 'n']
    vectors: Float[np.ndarray, 'n d']
    bad: dict[str, str]


def opened(run: Path, which: str) -> Network:
    """The network of a run's checkpoint; RunError where there is none.

    One that reads stacked shots is shown each image that many times, as by
    `evaluate.shots_of=image`.
    """
    restored = checkpoints.restore_network(run, which)
    config, mesh = restored.config, parallel.mesh()
    embedded, variables = evaluate.opened(restored, mesh)
    stacked = recipes.reads(config) == 'stacked'
    shots = config.sampling.shots if stacked else 1
    if stacked:
        logging.info('%s reads %d shots: it is shown each image %d times', run, shots, shots)
    data = {key: config.data[key] for key in ('height', 'width', 'channels', 'resize')}
    facts = {'run': str(run), 'checkpoint': which, 'step': restored.step}
    facts |= {'weights': _weights(restored.variables, config), 'shots': shots}
    facts |= {'image': '{height} x {width} x {channels}, {resize}'.format(**data)}
    facts |= {'metric': config.evaluate.metric}
    given = partial(embedded, variables)
    return Network(given, mesh, data, shots, config.evaluate.batch, facts)


def _weights(variables: trees.Tree, config: ConfigDict) -> str:
    """Sixteen hex digits that change with any weight, and with what is made of them."""
    made = {key: config[key].to_dict() for key in ('network', 'method')}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode())
    for name, leaf in sorted(trees.named(variables).items()):
        values = np.asarray(leaf)
        digest.update(f'{name} {values.dtype} {values.shape}'.encode() + values.tobytes())
    return digest.hexdigest()[:16]


def parts(
    network: Network, listing: Listing, starts: Sequence[int], *, dtype: str, batch: int
) -> Iterator[Part]:
    """The parts of a list that begin at `starts`, the next one read while one is embedded.

    `batch` counts images. Raises DataError for embeddings that are NaN, Inf or zero as `dtype`.
    """
    reader = images.reader(listing.open, _shape(network), network.data['resize'])
    told = _progress(sum(len(listing.paths[start : start + PART]) for start in starts))
    with ThreadPoolExecutor() as pool, ThreadPoolExecutor(1) as ahead:

        def read(start: int):
            return ahead.submit(_decoded, pool, reader, listing.paths[start : start + PART])

        coming = read(starts[0]) if starts else None
        for start, following in zip(starts, [*starts[1:], None]):
            rows, pixels, bad = coming.result()
            coming = None if following is None else read(following)
            for path, cause in bad.items():
                logging.warning('leaving out %s: %s', path, cause)
            found = _embedded(network, pixels, batch, told)
            vectors = _checked(listing.paths[start + rows], found, dtype)
            yield Part(start + rows, vectors, bad)


def _decoded(pool, reader, paths) -> tuple[Int[np.ndarray, 'n'], list, dict[str, str]]:
    """Which of the images can be read, their pixels, and what is wrong with the others."""
    found = list(pool.map(partial(_attempt, reader), paths.tolist()))
    bad = {p: cause for p, cause in zip(paths.tolist(), found) if isinstance(cause, str)}
    rows = [row for row, image in enumerate(found) if not isinstance(image, str)]
    return np.array(rows, np.int64), [found[row] for row in rows], bad


def _attempt(reader: Callable, path: str) -> UInt8[np.ndarray, 'h w c'] | str:
    """An image, or what is wrong with it."""
    try:
        return reader(path)
    except ImageError as error:
        return error.cause
    except DataError as error:
        if isinstance(error.__cause__, ABSENT):
            return error.__cause__.strerror
        raise


def _embedded(network: Network, pixels: list, batch: int, told: Callable) -> np.ndarray:
    if not pixels:
        return np.empty((0, 0), np.float32)
    stack, found = np.stack(pixels), []
    rows = np.repeat(np.arange(len(stack))[:, None], network.shots, axis=1)
    read, sets = lambda of: stack[of], batch // network.shots
    for vectors in embedding.batches(network.embedded, read, rows, sets, network.mesh):
        found.append(vectors)
        told(len(vectors))
    return np.concatenate(found)


def _progress(total: int) -> Callable[[int], None]:
    """told(count): so many images more are embedded, which is logged every few seconds."""
    began, done = time.perf_counter(), 0

    def told(count):
        nonlocal done
        done += count
        speed = done / max(time.perf_counter() - began, 1e-9)
        text = 'embedded %d of %d images, %.0f images/s, %.0f s left'
        line = done, total, speed, (total - done) / speed
        logging.log_every_n_seconds(logging.INFO, text, SECONDS, *line)

    return told


def _checked(paths: np.ndarray, vectors: np.ndarray, dtype: str) -> np.ndarray:
    """The embeddings as `dtype`."""
    if dtype == 'float16' and (np.abs(vectors) > np.finfo(np.float16).max).any():
        raise DataError('some embeddings are larger than float16 can be: give --dtype=float32')
    vectors = vectors.astype(dtype)
    embeddings.check('the network', vectors, lambda wrong: paths[wrong].tolist())
    return vectors


def _shape(network: Network) -> tuple[int, int, int]:
    return tuple(network.data[key] for key in ('height', 'width', 'channels'))
