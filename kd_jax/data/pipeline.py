"""Feeds: from a plan of rows to batches of uint8 images on the devices.

`stream` and `cached` read ahead with tf.data, on the host; TensorFlow is imported when they
start. `device` keeps all training images in accelerator memory and sends only row numbers.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kd_jax import parallel
from kd_jax.data import Split
from kd_jax.data.sampling import Plan
from kd_jax.views import Batch

AHEAD = 4  # batches that are read while the device computes
READERS = 2  # batches that are read at the same time


def batches(
    split: Split, plan: Callable[[int], Plan], feed: str, start: int, stop: int, mesh: Mesh
) -> Iterator[Batch]:
    """The batches of steps start … stop-1, spread over the mesh by sets.

    Every process draws the whole plan, and reads the images that its own devices see.
    """
    planned = _resident if feed == 'device' else _prefetched
    cameras = split.records.cameras.astype(np.int32)
    for drawn, images in planned(split.pixels, plan, start, stop, mesh):
        rest = parallel.shard((drawn.labels, cameras[drawn.rows], drawn.keys), mesh)
        yield Batch(images, *rest)


def images_of(read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The images of rows[s, n], uint8[s, n, h, w, c]."""
    images = read(rows.reshape(-1))
    return images.reshape(*rows.shape, *images.shape[1:])


def _resident(pixels, plan, start, stop, mesh):
    """Gather from an array that lies on every device."""
    store = parallel.replicate(np.asarray(pixels.array), mesh)
    gather = jax.jit(
        lambda store, rows: jnp.take(store, rows, axis=0),
        out_shardings=NamedSharding(mesh, P(parallel.AXIS)),
    )
    for step in range(start, stop):
        drawn = plan(step)
        yield drawn, gather(store, parallel.shard(drawn.rows.astype(np.int32), mesh))


def _prefetched(pixels, plan, start, stop, mesh):
    """Read ahead with tf.data; what goes wrong in reading is raised as it was."""
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    failures = []

    def fetch(step):
        try:
            drawn = plan(int(step))
            own = parallel.own_rows(len(drawn.rows), mesh)
            return *drawn, images_of(pixels.read, drawn.rows[own])
        except Exception as error:
            failures.append(error)
            raise

    types = (tf.int64, tf.int32, tf.uint32, tf.uint8)
    read = lambda step: tf.numpy_function(fetch, [step], types)  # noqa: E731
    steps = tf.data.Dataset.range(start, stop)
    feed = steps.map(read, num_parallel_calls=READERS, deterministic=True).prefetch(AHEAD)
    try:
        for *drawn, images in feed.as_numpy_iterator():
            yield Plan(*drawn), parallel.shard_own(images, len(drawn[0]), mesh)
    except tf.errors.OpError as error:
        raise (failures[0] if failures else error) from None
