"""ResNets for re-ID, NHWC, with torch-like names (He et al., CVPR 2016), and VKD's with BAM."""

from typing import ClassVar

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from kd_jax.networks.bam import BAM
from kd_jax.networks.network import Layers, Network

# Residual blocks per stage, whether a block is a bottleneck, and whether stages 1-3 end with BAM.
# 'resnet10' is no network of the papers: one block per stage, for tests, the demo and small
# experiments.
NETWORKS = {
    'resnet10': {'blocks': (1, 1, 1, 1), 'bottleneck': False, 'bam': False},
    'resnet18': {'blocks': (2, 2, 2, 2), 'bottleneck': False, 'bam': False},
    'resnet34': {'blocks': (3, 4, 6, 3), 'bottleneck': False, 'bam': False},
    'resnet50': {'blocks': (3, 4, 6, 3), 'bottleneck': True, 'bam': False},
    'resnet101': {'blocks': (3, 4, 23, 3), 'bottleneck': True, 'bam': False},
    'resnet50bam': {'blocks': (3, 4, 6, 3), 'bottleneck': True, 'bam': True},
    'resnet101bam': {'blocks': (3, 4, 23, 3), 'bottleneck': True, 'bam': True},
}
BOTTLENECK_EXPANSION = 4


class Block(nn.Module):
    """A basic or bottleneck residual block; the stride is in the 3×3 convolution.

    `relus`: 'all', 'paper' without the one behind the sum, or 'code' without any (vkd.md Q1:
    torchvision's block has a single member for all of them, which VKD's code takes away).
    """

    features: int
    stride: int
    bottleneck: bool
    relus: str
    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c2']:
        conv, norm, _ = self.layers
        inner = (lambda y: y) if self.relus == 'code' else nn.relu
        out = self.features * (BOTTLENECK_EXPANSION if self.bottleneck else 1)
        if self.bottleneck:
            y = inner(norm(name='bn1')(conv(self.features, 1, name='conv1')(x)))
            y = conv(self.features, 3, stride=self.stride, name='conv2')(y)
            y = inner(norm(name='bn2')(y))
            y = norm(name='bn3')(conv(out, 1, name='conv3')(y))
        else:
            y = conv(self.features, 3, stride=self.stride, name='conv1')(x)
            y = inner(norm(name='bn1')(y))
            y = norm(name='bn2')(conv(out, 3, name='conv2')(y))
        if x.shape != y.shape:
            x = conv(out, 1, stride=self.stride, name='downsample_conv')(x)
            x = norm(name='downsample_bn')(x)
        return nn.relu(x + y) if self.relus == 'all' else x + y


class ResNet(Network, kw_only=True):
    """A ResNet; `width` is the number of channels of the first stage's 3×3."""

    blocks: tuple[int, ...]
    bottleneck: bool
    bam: bool

    FIRST: ClassVar = 'conv1'
    LAST_STAGE: ClassVar = ('layer4_',)

    def stage(self, number: int, x: jax.Array, layers: Layers) -> jax.Array:
        """Stages 1-4 are torch's layer1-4, the first with the stem before it."""
        x = self.strided_stem(x, layers, self.width, 'bn1') if number == 1 else x
        blocks = self.blocks[number - 1]
        for j in range(blocks):
            last = number == len(self.blocks) and j == blocks - 1
            x = Block(
                features=self.width * 2 ** (number - 1),
                stride=(1, 2, 2, self.last_stride)[number - 1] if j == 0 else 1,
                bottleneck=self.bottleneck,
                relus=self.last_block_relu if last else 'all',
                layers=layers,
                name=f'layer{number}_{j}',
            )(x)
        return BAM(layers, name=f'bam{number}')(x) if self.bam and number < 4 else x
