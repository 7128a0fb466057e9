"""A network small enough for tests: all the options of `networks.create`, and changes to them."""

import flax.linen as nn

from kd_jax import networks

OPTIONS = {'classes': 5, 'width': 4, 'stem': 'small', 'last_stride': 1, 'last_block_relu': 'all'}
OPTIONS |= {'neck': 'bnneck', 'neck_width': 16, 'inflate': 1, 'dtype': 'float32'}
OPTIONS |= {'conv': 'auto', 'batch_norm': 'global'}


def create(name: str = 'resnet10', **changes) -> nn.Module:
    """The network called `name` with these options but for the changes."""
    return networks.create(name, **(OPTIONS | changes))
