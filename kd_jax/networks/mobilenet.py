"""MobileNetV2 (Sandler et al., CVPR 2018), with torchvision's numbers of features."""

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from kd_jax.networks.network import Layers, Network


class Row(NamedTuple):
    """Some blocks of the paper's table 2: those of a stage that have the same channels."""

    stage: int
    expansion: int
    channels: int
    blocks: int
    stride: int


TABLE = (
    Row(1, 1, 16, 1, 1),
    Row(1, 6, 24, 2, 2),
    Row(2, 6, 32, 3, 2),
    Row(3, 6, 64, 4, 2),
    Row(3, 6, 96, 3, 1),
    Row(4, 6, 160, 3, 2),
    Row(4, 6, 320, 1, 1),
)
NETWORKS = {'mobilenet_v2': {'table': TABLE}}
STEM, HEAD = 32, 1280


class InvertedResidual(nn.Module):
    """1×1 up, depthwise 3×3, 1×1 down without ReLU; the input is added where shapes agree."""

    features: int
    expansion: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c2']:
        conv, norm, _ = self.layers
        inner, y = self.expansion * x.shape[-1], x
        if self.expansion > 1:
            y = nn.relu6(norm(name='expand_bn')(conv(inner, 1, name='expand_conv')(y)))
        y = conv(inner, 3, stride=self.stride, groups=inner, name='depthwise_conv')(y)
        y = nn.relu6(norm(name='depthwise_bn')(y))
        y = norm(name='project_bn')(conv(self.features, 1, name='project_conv')(y))
        return x + y if x.shape == y.shape else y


class MobileNet(Network, kw_only=True):
    """MobileNetV2.

    VKD drops the ReLU6 behind the last convolution, in the paper and in its code; and its code
    takes nothing of a student's last stage from ImageNet again.
    """

    table: tuple[Row, ...]

    FIRST: ClassVar = 'features0_conv'
    LAST_STAGE: ClassVar = ()

    def stage(self, number: int, x: jax.Array, layers: Layers) -> jax.Array:
        """Stages 1-4 have a 4th, 8th, 16th and, with last stride 2, a 32nd of the height."""
        x = self._stem(x, layers) if number == 1 else x
        blocks = [(row, j) for row in self.table for j in range(row.blocks)]
        for i, (row, j) in enumerate(blocks, 1):
            if row.stage == number:
                strided = self.last_stride if number == 4 and row.stride == 2 else row.stride
                x = InvertedResidual(
                    features=self.scaled(row.channels),
                    expansion=row.expansion,
                    stride=strided if j == 0 else 1,
                    layers=layers,
                    name=f'features{i}',
                )(x)
        return self._head(x, layers, len(blocks) + 1) if number == 4 else x

    def _stem(self, x, layers):
        """ImageNet: 3×3, stride 2. Small: stride 1, for images of 32 pixels."""
        stride = 2 if self.stem == 'imagenet' else 1
        x = layers.first(self.scaled(STEM), 3, stride=stride, name='features0_conv')(x)
        return nn.relu6(layers.norm(name='features0_bn')(x))

    def _head(self, x, layers, number):
        x = layers.conv(self.scaled(HEAD), 1, name=f'features{number}_conv')(x)
        x = layers.norm(name=f'features{number}_bn')(x)
        return nn.relu6(x) if self.last_block_relu == 'all' else x
