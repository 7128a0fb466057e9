"""The device mesh: placing arrays on it and mapping a per-device step over it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = 'batch'


def mesh(devices: list | None = None) -> Mesh:
    """A mesh of one axis, 'batch', over all devices or the given ones."""
    return Mesh(np.array(devices or jax.devices()), (AXIS,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shard(tree: Any, mesh: Mesh) -> Any:
    """The tree with the first axis of every leaf spread over the devices."""
    for leaf in jax.tree.leaves(tree):
        check_share(leaf.shape[0], mesh)
    return jax.device_put(tree, NamedSharding(mesh, P(AXIS)))


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
