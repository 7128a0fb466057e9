"""Networks that map images to `Outputs`, by name."""

from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float


class Outputs(NamedTuple):
    """What every network returns, always.

    `stages` are the feature maps of the stages; `embedding` is the vector the triplet loss sees;
    `neck` is what the classifier reads; `logits` has a column per train identity. The last three
    are float32 whatever the network computes in.
    """

    stages: tuple[Float[Array, 'b _h _w _c'], ...]
    embedding: Float[Array, 'b d']
    neck: Float[Array, 'b d']
    logits: Float[Array, 'b classes']


def create(name: str, *, classes: int, **options: Any) -> nn.Module:
    """The network called `name`, e.g. 'resnet50', for `classes` train identities.

    Raises ValueError naming the known networks for an unknown one, TypeError for an option that
    the network does not have.
    """
    from kd_jax.networks import resnet

    if name not in resnet.BLOCKS:
        raise ValueError(f'network.name={name!r}: known networks are {", ".join(resnet.BLOCKS)}')
    return resnet.create(name, classes=classes, **options)
