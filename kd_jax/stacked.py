"""Networks that differ in nothing but the part of an image they see, trained in one program.

Their variables are one tree, of which every leaf has a first axis of members; a step is vmapped
over it. Each member has its own gradients and statistics, as if it were trained by itself.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from kd_jax import losses, views
from kd_jax.lineage import Teacher
from kd_jax.methods import Losses, Method
from kd_jax.networks import Network
from kd_jax.networks.network import algorithm_of
from kd_jax.views import Batch


def members(config: ConfigDict, teachers: dict[str, Teacher]) -> dict[str, Teacher]:
    """Those teachers of a config that are trained at once: none unless it has `stacked=True`.

    They see a part each and are alike in all else; others are trained by themselves, which is
    logged. Raises ValueError where fewer than two are left.
    """
    if 'stacked' not in config or not config.stacked:
        return {}
    recipes: dict[str, dict[str, Teacher]] = {}
    for name, teacher in teachers.items():
        if not teacher.given and 'part' in teacher.config.network and teacher.config.network.part:
            recipes.setdefault(_recipe(teacher.config), {})[name] = teacher
    found = max(recipes.values(), key=len, default={})
    if len(found) < 2:
        raise ValueError(
            'config.stacked=True trains teachers at once that are alike but for network.part; '
            f'of {", ".join(teachers) or "none"} no two are: set config.stacked=False'
        )
    for name in teachers.keys() - found.keys():
        logging.info('teacher %s is unlike the others and trained by itself', name)
    return found


def _recipe(config: ConfigDict) -> str:
    """A config without the part that its network sees."""
    config = config.copy_and_resolve_references()
    config.network.part = ()
    return config.to_json(sort_keys=True)


def bare(network: Network) -> Network:
    """A member's network on its part, already cut out of the images.

    Batched kernels are grouped convolutions to XLA, which are slow on a CPU: there they are matrix
    products.
    """
    products = algorithm_of(network.conv) == 'cpu'
    return network.clone(part=(), conv='products' if products else network.conv)


def method(base: Method, networks: dict[str, Network]) -> Method:
    """A method's functions over members; `base` is that of a `bare` one.

    Terms and diagnostics are called MEMBER/NAME. What is ranked is the concatenation of the
    members' vectors, each divided by its length.
    """
    size = next(iter(networks.values())).part_size

    def crops(images: jax.Array) -> jax.Array:
        seen = views.singles(images)
        found = jnp.stack([views.part_of(seen, one.part, size) for one in networks.values()])
        return found.reshape(len(networks), *images.shape[:2], *found.shape[2:])

    def init(rng, batch: Batch):
        one = jax.vmap(lambda images: base.init(rng, batch._replace(images=images)))
        return one(crops(batch.images))

    def loss(variables, targets, batch: Batch, rng, progress) -> Losses:
        def one(variables, images):
            return base.loss(variables, (), batch._replace(images=images), rng, progress)

        found = jax.vmap(one)(variables, crops(batch.images))
        named = (_by_name(group, tuple(networks)) for group in found[:2])
        return Losses(*named, found.batch_stats)

    def embed(variables, images):
        vectors = losses.direction(jax.vmap(base.embed)(variables, crops(images)))
        return jnp.moveaxis(vectors, 0, 1).reshape(len(images), -1)

    return base._replace(init=init, loss=loss, embed=embed)


def _by_name(values: dict[str, jax.Array], names: tuple[str, ...]) -> dict[str, jax.Array]:
    return {f'{n}/{key}': value[i] for key, value in values.items() for i, n in enumerate(names)}


def each(function: Callable[[Any], Any], count: int, tree: Any) -> Any:
    """The tree of what a function makes of each of `count` members' trees."""
    found = [function(member(tree, number)) for number in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def member(tree: Any, number: int) -> Any:
    """One member's tree; a leaf without axes, as a count of steps, is the same for all."""
    return jax.tree.map(lambda leaf: leaf[number] if leaf.ndim else leaf, tree)


def metrics(rows: list[dict], name: str) -> list[dict]:
    """The rows of metrics of one member."""
    prefix = f'{name}/'
    found = [
        {key.removeprefix(prefix): row[key] for key in row if key.startswith(prefix)}
        for row in rows
    ]
    return [{'step': row['step'], **own} for row, own in zip(rows, found) if own]
