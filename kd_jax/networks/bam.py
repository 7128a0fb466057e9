"""The bottleneck attention module of VKD's ResNets (Park et al., BMVC 2018)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.networks.network import Layers

REDUCTION = 16
DILATION = 4
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # torch's Linear


class BAM(nn.Module):
    """x · (1 + sigmoid(channel gate · spatial gate)).

    As VKD's code has it: of the product, where the BAM paper adds the gates. Dense layers start
    as torch's, biases from zero.
    """

    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
        features = max(1, x.shape[-1] // REDUCTION)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        channel = self._channel_gate(wide.mean(axis=(1, 2)), features)
        spatial = self._spatial_gate(x, features)
        return x * (1 + nn.sigmoid(channel.astype(x.dtype)[:, None, None] * spatial))

    def _channel_gate(self, pooled, features):
        dense = partial(nn.Dense, kernel_init=uniform_fan_in, dtype=pooled.dtype)
        # Pooled, images differ little: the mean of squares less the squared mean would be rounding.
        norm = self.layers.norm(name='channel_bn', use_fast_variance=False, dtype=pooled.dtype)
        x = norm(dense(features, name='channel_fc1')(pooled))
        return dense(pooled.shape[-1], name='channel_fc2')(nn.relu(x))

    def _spatial_gate(self, x, features):
        conv = partial(self.layers.conv, use_bias=True)
        x = conv(features, 1, name='spatial_reduce')(x)
        x = nn.relu(self.layers.norm(name='spatial_bn_reduce')(x))
        for i in range(2):
            x = conv(features, 3, dilation=DILATION, name=f'spatial_conv{i}')(x)
            x = nn.relu(self.layers.norm(name=f'spatial_bn{i}')(x))
        return conv(1, 1, name='spatial_final')(x)
