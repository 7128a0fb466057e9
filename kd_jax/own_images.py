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
from jaxtyping import Float, Int, Shaped, UInt8
from ml_collections import ConfigDict

from kd_jax import checkpoints, embedding, embeddings, evaluate, parallel, recipes, runs, trees
from kd_jax.checkpoints import Restored
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

    `facts` are what its embeddings depend on, and by which they are told apart; `of` gives none.
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
    """The network of a run's checkpoint; RunError where there is none."""
    return described(checkpoints.restore_network(run, which), which)


def described(restored: Restored, which: str) -> Network:
    """The network of a checkpoint that was restored, with the facts that it is told by."""
    config, run, network = restored.config, restored.run, of(restored)
    shots = network.shots
    if recipes.reads(config) == 'stacked':
        logging.info('%s reads %d shots: it is shown each image %d times', run, shots, shots)
    facts = {'run': str(run), 'checkpoint': which, 'step': restored.step}
    facts |= {'weights': _weights(restored.variables, config), 'shots': shots}
    facts |= {'image': '{height} x {width} x {channels}, {resize}'.format(**network.data)}
    facts |= {'metric': config.evaluate.metric}
    return network._replace(facts=facts)


def of(restored: Restored) -> Network:
    """The network that was restored, without facts: those of weights take a while.

    One that reads stacked shots is shown each image that many times, as by
    `evaluate.shots_of=image`.
    """
    config, mesh = restored.config, parallel.mesh()
    embedded, variables = evaluate.opened(restored, mesh)
    with runs.of_this_version(restored.run):
        shots = config.sampling.shots if recipes.reads(config) == 'stacked' else 1
        data = {key: config.data[key] for key in ('height', 'width', 'channels', 'resize')}
        batch = config.evaluate.batch
    return Network(partial(embedded, variables), mesh, data, shots, batch, {})


def embedded(
    network: Network, images: UInt8[np.ndarray, 'b h w c'], batch: int
) -> Float[np.ndarray, 'b d']:
    """The embeddings of images; `batch` counts what the network reads, each of its shots."""
    return embedding.embed_rows(*_arguments(network, images, batch))


def _arguments(network: Network, images: UInt8[np.ndarray, 'b h w c'], batch: int) -> tuple:
    """What `embedding.batches` takes: each image is read as often as the network has shots."""
    rows = np.repeat(np.arange(len(images))[:, None], network.shots, axis=1)
    return network.embedded, lambda of: images[of], rows, batch // network.shots, network.mesh


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

    `batch` counts images. Left out are those that cannot be read, and those whose embeddings are
    NaN, Inf or zero as `dtype`.
    """
    reader = images.reader(listing.open, _shape(network), network.data['resize'])
    told = _progress(sum(len(listing.paths[start : start + PART]) for start in starts))
    with ThreadPoolExecutor() as pool, ThreadPoolExecutor(1) as ahead:

        def read(start: int):
            return ahead.submit(_decoded, pool, reader, listing.paths[start : start + PART])

        coming = read(starts[0]) if starts else None
        for place, start in enumerate(starts):
            rows, pixels, bad = coming.result()
            coming = read(starts[place + 1]) if place + 1 < len(starts) else None
            before = place * PART + len(bad)  # no part but the last one of a list is smaller
            vectors = _followed(network, pixels, batch, lambda done, to=before: told(to + done))
            yield _part(listing.paths, start + rows, vectors, bad, dtype)


def _decoded(pool, reader, paths) -> tuple[Int[np.ndarray, 'n'], list, dict[str, str]]:
    """Which of the images can be read, their pixels, and what is wrong with the others."""
    found = list(pool.map(partial(_attempt, reader), paths.tolist()))
    bad = {_shown(p): cause for p, cause in zip(paths.tolist(), found) if isinstance(cause, str)}
    rows = [row for row, image in enumerate(found) if not isinstance(image, str)]
    return np.array(rows, np.int64), [found[row] for row in rows], bad


def _attempt(reader: Callable, path: str) -> UInt8[np.ndarray, 'h w c'] | str:
    """An image, or what is wrong with it."""
    if _shown(path) != path:
        return 'its name is not UTF-8'
    try:
        return reader(path)
    except ImageError as error:
        return error.cause
    except DataError as error:
        if isinstance(error.__cause__, ABSENT):
            return error.__cause__.strerror
        raise


def _shown(path: str) -> str:
    r"""A path that can be written, of which bytes that are not UTF-8 are like \xff."""
    return path.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def _followed(network: Network, pixels: list, batch: int, told: Callable) -> np.ndarray:
    """The embeddings of some images; `told(so many of them)` is called after every batch."""
    if not pixels:
        return np.empty((0, 0), np.float32)
    found = []
    for vectors in embedding.batches(*_arguments(network, np.stack(pixels), batch)):
        found.append(vectors)
        told(sum(map(len, found)))
    return np.concatenate(found)


def _progress(total: int) -> Callable[[int], None]:
    """told(done): so many images are looked at, which is logged every few seconds.

    The rate is of those after the first batch, for which the network is compiled.
    """
    first, began, said = 0, None, 0.0

    def told(done):
        nonlocal first, began, said
        now = time.perf_counter()
        if began is None:
            first, began, said = done, now, now
        elif now - said >= SECONDS:
            said, speed = now, (done - first) / (now - began)
            text = 'looked at %d of %d images, %.0f images/s, %.0f s left'
            logging.info(text, done, total, speed, (total - done) / speed)

    return told


def _part(
    paths: np.ndarray, rows: np.ndarray, vectors: np.ndarray, bad: dict[str, str], dtype: str
) -> Part:
    """What is kept of the images at `rows`, and the others with what is wrong, which is logged."""
    kept, causes = _checked(vectors, dtype)
    good = causes == ''
    bad = bad | dict(zip(paths[rows[~good]].tolist(), causes[~good].tolist()))
    for path, cause in bad.items():
        logging.warning('leaving out %s: %s', path, cause)
    return Part(rows[good], kept[good], bad)


def _checked(
    vectors: Float[np.ndarray, 'n d'], dtype: str
) -> tuple[Float[np.ndarray, 'n d'], Shaped[np.ndarray, 'n']]:
    """The embeddings as `dtype`, and what is wrong with each, '' where nothing is."""
    with np.errstate(over='ignore'):  # what becomes Inf is found below
        kept = vectors.astype(dtype)
    own, cast = embeddings.faults(vectors), embeddings.faults(kept)
    lost = f'too large or too small for {dtype} (--dtype=float32 would keep it)'
    causes = [np.strings.add('the network gives ', own), lost]
    return kept, np.select([own != '', cast != ''], causes, '')


def _shape(network: Network) -> tuple[int, int, int]:
    return tuple(network.data[key] for key in ('height', 'width', 'channels'))
