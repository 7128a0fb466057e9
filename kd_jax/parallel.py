"""The device mesh: placing arrays on it and mapping a per-device step over it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = 'batch'


def mesh(devices: list | None = None) -> Mesh:
    """A mesh of one axis, 'batch', over the devices of all processes or the given ones.

    Those of a process follow one another, so that its share of a batch is a run of it.
    """
    by_process = sorted(devices or jax.devices(), key=lambda device: device.process_index)
    return Mesh(np.array(by_process), (AXIS,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree, which is the same in every process, on every device of the mesh."""
    return _placed(tree, NamedSharding(mesh, P()))


def shard(tree: Any, mesh: Mesh) -> Any:
    """The tree, the same in every process, the first axis of every leaf spread over the devices."""
    for leaf in jax.tree.leaves(tree):
        check_share(leaf.shape[0], mesh)
    return _placed(tree, NamedSharding(mesh, P(AXIS)))


def own_rows(rows: int, mesh: Mesh) -> slice:
    """Which of so many rows, spread over the devices, are on those of this process."""
    check_share(rows, mesh)
    of_process = [device.process_index for device in mesh.devices.flat]
    first, count = of_process.index(jax.process_index()), of_process.count(jax.process_index())
    each = rows // mesh.size
    return slice(first * each, (first + count) * each)


def shard_own(own: np.ndarray, rows: int, mesh: Mesh) -> jax.Array:
    """An array of so many rows spread over the devices; each process gives its `own_rows`."""
    sharding = NamedSharding(mesh, P(AXIS))
    return jax.make_array_from_process_local_data(sharding, own, (rows, *own.shape[1:]))


def gathered(array: jax.Array | np.ndarray) -> np.ndarray:
    """All of an array that is spread over the devices, in every process."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _placed_by_all(leaf, sharding), tree)


def _placed_by_all(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    whole = np.asarray(leaf)  # device_put would compare it with that of every other process
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def check_share(sets: int, mesh: Mesh) -> None:
    """ValueError naming both numbers where the devices can not share the sets of a batch."""
    if sets % mesh.size:
        raise ValueError(
            f'{sets} sets a batch can not be shared by {mesh.size} devices: make '
            f'sampling.identities × sampling.sets a multiple of {mesh.size}'
        )


def spmd(step: Callable, mesh: Mesh) -> Callable:
    """Map step(state, teachers, batch) -> (state, metrics) over the devices, compiled.

    State and teachers are the same on every device, the batch is shared out, and what comes back
    is the same on every device; the state is donated. `check_vma=True` would multiply averaged
    gradients by the number of devices.
    """
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(), P(AXIS)), out_specs=P(), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)


def spread(function: Callable, mesh: Mesh) -> Callable:
    """Map function(variables, images) -> values over the devices, compiled: for inference."""
    return jax.jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False
        )
    )
