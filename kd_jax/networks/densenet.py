"""DenseNet-121 (Huang et al., CVPR 2017), with torchvision's names."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.networks.network import Layers, Network, average_pool

NETWORKS = {'densenet121': {'blocks': (6, 12, 24, 16)}}
GROWTH = 32
BOTTLENECK_EXPANSION = 4


class DenseLayer(nn.Module):
    """The `growth` channels that a layer adds to all those before it."""

    growth: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c2']:
        conv, norm, _ = self.layers
        y = nn.relu(norm(name='norm1')(x))
        y = conv(BOTTLENECK_EXPANSION * self.growth, 1, name='conv1')(y)
        y = nn.relu(norm(name='norm2')(y))
        return jnp.concatenate([x, conv(self.growth, 3, name='conv2')(y)], axis=-1)


class DenseNet(Network, kw_only=True):
    """A DenseNet.

    VKD leaves its last stride at 2, and drops the ReLU behind the last norm in the paper and in
    its code; `last_stride=1` leaves out the pooling of the last transition.
    """

    blocks: tuple[int, ...]

    FIRST: ClassVar = 'conv0'
    LAST_STAGE: ClassVar = ('denseblock4_',)  # the last norm stays the teacher's, as in VKD's code

    def stage(self, number: int, x: jax.Array, layers: Layers) -> jax.Array:
        """Stages 1-4 are dense blocks, with what leads to them: the stem, or a transition."""
        if number == 1:
            x = self.strided_stem(x, layers, self.scaled(64), 'norm0')
        else:
            x = self._transition(number - 1, x, layers)
        for j in range(self.blocks[number - 1]):
            name = f'denseblock{number}_denselayer{j + 1}'
            x = DenseLayer(self.scaled(GROWTH), layers, name=name)(x)
        if number < 4:
            return x
        x = layers.norm(name='norm5')(x)
        return nn.relu(x) if self.last_block_relu == 'all' else x

    def _transition(self, number, x, layers):
        """Half the channels, and half the height and width."""
        y = nn.relu(layers.norm(name=f'transition{number}_norm')(x))
        y = layers.conv(max(1, x.shape[-1] // 2), 1, name=f'transition{number}_conv')(y)
        return y if number == 3 and self.last_stride == 1 else average_pool(y)
