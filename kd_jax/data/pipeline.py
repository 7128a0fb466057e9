"""Feeds: from a plan of rows to batches of uint8 images on the devices.

`stream` and `cached` read ahead with tf.data, on the host; TensorFlow is imported when they
start. `device` keeps all training images in accelerator memory and sends only row numbers.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kd_jax import parallel
from kd_jax.data import Split
from kd_jax.data.images import Pixels
from kd_jax.data.sampling import Plan
from kd_jax.views import Batch

AHEAD = 4  # reads that are done while the device computes
READERS = 2  # batches that are decoded at the same time; two that only gather wait for each other
TOGETHER = 16  # batches that are gathered by one read at most, which itself takes 1 ms
GATHERED = 2**21  # bytes that it gathers, where they are of several batches


def batches(
    split: Split, plan: Callable[[int], Plan], feed: str, start: int, stop: int, mesh: Mesh
) -> Iterator[Batch]:
    """The batches of steps start … stop-1, spread over the mesh by sets.

    Every process draws the whole plan, and reads the images that its own devices see.
    """
    cameras = split.records.cameras.astype(np.int32)
    spread = NamedSharding(mesh, P(parallel.AXIS))
    store, planned = None, _prefetched
    if feed == 'device':
        store, planned = parallel.replicate(np.asarray(split.pixels.array), mesh), _rows
    place = jax.jit(_batch, out_shardings=spread)
    for drawn, own in planned(split.pixels, plan, start, stop, mesh):
        rest = drawn.labels, cameras[drawn.rows], drawn.keys
        if jax.process_count() > 1:  # one alone places all by that call, in half the time
            own, rest = parallel.shard_own(own, len(drawn.rows), mesh), parallel.shard(rest, mesh)
        yield place(store, own, *rest)


def _batch(store: jax.Array | None, images: jax.Array, *rest: jax.Array) -> Batch:
    """The images, or those that the store has at such row numbers, in a batch."""
    if store is not None:  # rows are those of a plan; to look for others takes as long as to take
        images = jnp.take(store, images, axis=0, mode='clip')
    return Batch(images, *rest)


def images_of(read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The images of rows[s, n], uint8[s, n, h, w, c]."""
    images = read(rows.reshape(-1))
    return images.reshape(*rows.shape, *images.shape[1:])


def _rows(pixels, plan, start, stop, mesh):
    """Plans, and the row numbers of those images that this process' devices see."""
    for step in range(start, stop):
        drawn = plan(step)
        yield drawn, _own_rows(drawn, mesh).astype(np.int32)


def _own_rows(drawn, mesh):
    return drawn.rows[parallel.own_rows(len(drawn.rows), mesh)]


def _prefetched(pixels, plan, start, stop, mesh):
    """Plans, and the images that this process' devices see, read ahead with tf.data.

    What goes wrong in reading is raised as it was, instead of all batches of that read.
    """
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    drawn, failures = {}, []

    def fetch(steps):
        try:
            rows = np.stack([_own_rows(plan_of(step), mesh) for step in steps.tolist()])
            return images_of(pixels.read, rows)
        except Exception as error:
            failures.append(error)
            raise

    def plan_of(step):  # not through TensorFlow, which takes as long for each array of a batch
        drawn[step] = plan(step)
        return drawn[step]

    readers, together = _reads(pixels, _own_rows(plan(start), mesh).size)
    read = lambda steps: tf.numpy_function(fetch, [steps], tf.uint8)  # noqa: E731
    steps = tf.data.Dataset.range(start, stop).batch(together)
    feed = steps.map(read, num_parallel_calls=readers, deterministic=True).prefetch(AHEAD)
    read_ahead = itertools.chain.from_iterable(feed.as_numpy_iterator())
    try:
        for step, images in enumerate(read_ahead, start):
            yield drawn.pop(step), images
    except tf.errors.OpError as error:
        raise (failures[0] if failures else error) from None


def _reads(pixels: Pixels, images: int) -> tuple[int, int]:
    """How many reads there are at a time, and of how many batches of so many images each is."""
    if pixels.array is None:
        return READERS, 1
    size = images * math.prod(pixels.array.shape[1:])
    return 1, min(TOGETHER, max(1, GATHERED // size))
