"""OSNet: omni-scale features from streams of light 3×3 convolutions (Zhou et al., ICCV 2019)."""

from typing import ClassVar

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from kd_jax.networks.network import Layers, Network, average_pool

NETWORKS = {
    'osnet_x1_0': {'multiplier': 1.0, 'blocks': 2},
    'osnet_x0_75': {'multiplier': 0.75, 'blocks': 2},
    'osnet_x0_5': {'multiplier': 0.5, 'blocks': 2},
    'osnet_x0_25': {'multiplier': 0.25, 'blocks': 2},
}
CHANNELS = (64, 256, 384, 512)  # of the stem and of stages 1-3; stage 4 has the last
STREAMS = 'abcd'  # of one to four light convolutions
BOTTLENECK_REDUCTION = 4
GATE_REDUCTION = 16


class LightConv(nn.Module):
    """1×1, then depthwise 3×3, BatchNorm, ReLU."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
        conv, norm, _ = self.layers
        x = conv(self.features, 1, name='conv1')(x)
        x = conv(self.features, 3, groups=self.features, name='conv2')(x)
        return nn.relu(norm(name='bn')(x))


class Gate(nn.Module):
    """x · sigmoid(fc2(ReLU(fc1(GAP(x))))), the same for all streams of a block."""

    layers: Layers

    @nn.compact
    def __call__(self, streams: list[Float[Array, 'b h w c']]) -> list[Float[Array, 'b h w c']]:
        channels = streams[0].shape[-1]
        inner = max(1, channels // GATE_REDUCTION)
        reduce = self.layers.conv(inner, 1, use_bias=True, name='fc1')
        expand = self.layers.conv(channels, 1, use_bias=True, name='fc2')
        pooled = (x.mean(axis=(1, 2), keepdims=True) for x in streams)
        gates = (nn.sigmoid(expand(nn.relu(reduce(p)))) for p in pooled)
        return [x * gate for x, gate in zip(streams, gates)]


class OSBlock(nn.Module):
    """A residual block of four streams that see 3, 5, 7 and 9 pixels."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c2']:
        conv, norm, _ = self.layers
        inner = max(1, self.features // BOTTLENECK_REDUCTION)
        y = nn.relu(norm(name='conv1_bn')(conv(inner, 1, name='conv1_conv')(x)))
        streams = [self._stream(y, depth, inner) for depth in range(1, len(STREAMS) + 1)]
        y = sum(Gate(self.layers, name='gate')(streams))
        y = norm(name='conv3_bn')(conv(self.features, 1, name='conv3_conv')(y))
        if x.shape != y.shape:
            x = conv(self.features, 1, name='downsample_conv')(x)
            x = norm(name='downsample_bn')(x)
        return nn.relu(x + y)

    def _stream(self, x, depth, features):
        for i in range(depth):
            x = LightConv(features, self.layers, name=f'conv2{STREAMS[depth - 1]}_{i}')(x)
        return x


class OSNet(Network, kw_only=True):
    """OSNet; the FC 512 of the published one is a neck `fc_bn_relu` of that width.

    The published last stride is 1; 2 pools in front of stage 4, as the transitions do.
    """

    multiplier: float
    blocks: int  # of each of stages 1-3

    FIRST: ClassVar = 'conv1_conv'
    LAST_STAGE: ClassVar = ('conv5_',)

    def stage(self, number: int, x: jax.Array, layers: Layers) -> jax.Array:
        """Stages 1-4 are torchreid's conv2-5, the first with the stem before it."""
        if number == 4:
            x = x if self.last_stride == 1 else average_pool(x)
            relu = self.last_block_relu == 'all'
            return self._conv_bn(x, layers, 'conv5', CHANNELS[3], relu=relu)
        if number == 1:
            x = self.strided_stem(x, layers, self._channels(CHANNELS[0]), 'conv1_bn')
        channels = CHANNELS[number]
        for j in range(self.blocks):
            x = OSBlock(self._channels(channels), layers, name=f'conv{number + 1}_{j}')(x)
        if number == 3:
            return x
        return average_pool(self._conv_bn(x, layers, f'conv{number + 1}_2', channels))

    def _conv_bn(self, x, layers, name, channels, relu=True):
        x = layers.conv(self._channels(channels), 1, name=f'{name}_conv')(x)
        x = layers.norm(name=f'{name}_bn')(x)
        return nn.relu(x) if relu else x

    def _channels(self, published: int) -> int:
        return self.scaled(int(published * self.multiplier))
