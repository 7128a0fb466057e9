"""ResNets for re-ID, NHWC, with torch's padding and torch-like names (He et al., CVPR 2016)."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.networks import Outputs

# Residual blocks per stage, and whether a block is a bottleneck. 'resnet10' is no network of the
# papers: one block per stage, for tests, the demo and small experiments.
BLOCKS = {
    'resnet10': ((1, 1, 1, 1), False),
    'resnet18': ((2, 2, 2, 2), False),
    'resnet34': ((3, 4, 6, 3), False),
    'resnet50': ((3, 4, 6, 3), True),
    'resnet101': ((3, 4, 23, 3), True),
}
BOTTLENECK_EXPANSION = 4
STEMS = ('imagenet', 'small')
NECKS = ('fc_bn_relu', 'bnneck')
DTYPES = ('float32', 'bfloat16')
BATCH_NORMS = ('global', 'device')

kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def inflated(copies: int) -> Callable:
    """kaiming over in_channels / copies, tiled over the input and divided by `copies`.

    A T-net starts so as the mean over its K shots of one first convolution.
    """

    def init(key, shape, dtype=jnp.float32):
        height, width, channels, features = shape
        if channels % copies:
            raise ValueError(f'network.inflate={copies} does not divide {channels} input channels')
        kernel = kaiming_fan_out(key, (height, width, channels // copies, features), dtype)
        return jnp.tile(kernel, (1, 1, copies, 1)) / copies

    return init


class Block(nn.Module):
    """A basic or bottleneck residual block; the stride is in the 3×3 convolution."""

    features: int
    stride: int
    bottleneck: bool
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c2']:
        conv, norm = self.conv, self.norm
        out = self.features * (BOTTLENECK_EXPANSION if self.bottleneck else 1)
        if self.bottleneck:
            y = nn.relu(norm(name='bn1')(conv(self.features, 1, name='conv1')(x)))
            y = conv(self.features, 3, stride=self.stride, name='conv2')(y)
            y = nn.relu(norm(name='bn2')(y))
            y = norm(name='bn3')(conv(out, 1, name='conv3')(y))
        else:
            y = conv(self.features, 3, stride=self.stride, name='conv1')(x)
            y = nn.relu(norm(name='bn1')(y))
            y = norm(name='bn2')(conv(out, 3, name='conv2')(y))
        if x.shape != y.shape:
            x = conv(out, 1, stride=self.stride, name='downsample_conv')(x)
            x = norm(name='downsample_bn')(x)
        return nn.relu(x + y)


class Neck(nn.Module):
    """Pooled features to (embedding, neck, logits).

    `bnneck`: the embedding is the pooled vector, the neck its BatchNorm without bias, the
    classifier has no bias (Luo et al. 2019). `fc_bn_relu`: one vector, ReLU(BN(FC(pooled))), is
    both embedding and neck, and the classifier has a bias (UMTS, of width 512).
    """

    kind: str
    width: int
    classes: int
    norm: Callable

    @nn.compact
    def __call__(self, pooled: Float[Array, 'b d']) -> tuple:
        classifier = partial(
            nn.Dense, self.classes, kernel_init=nn.initializers.normal(0.001), name='classifier'
        )
        if self.kind == 'bnneck':
            neck = self.norm(use_bias=False, name='neck_bn')(pooled)
            return pooled, neck, classifier(use_bias=False)(neck)
        x = nn.Dense(self.width, kernel_init=nn.initializers.normal(0.01), name='fc')(pooled)
        neck = nn.relu(self.norm(name='neck_bn')(x))
        return neck, neck, classifier()(neck)


class ResNet(nn.Module):
    """A ResNet with four stages, global average pooling and a re-ID neck.

    Parameters are float32; `dtype` is what the convolutions compute in; pooling, neck and
    classifier compute in float32. The number of input channels is read from the input.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    classes: int
    width: int
    stem: str
    last_stride: int
    neck: str
    neck_width: int
    inflate: int
    dtype: str
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Outputs:
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
        )
        stage_norm = partial(norm, dtype=jnp.dtype(self.dtype))
        x = self._stem(x.astype(self.dtype), stage_norm)
        stages = []
        for i, blocks in enumerate(self.blocks):
            stride = (1, 2, 2, self.last_stride)[i]
            for j in range(blocks):
                x = Block(
                    features=self.width * 2**i,
                    stride=stride if j == 0 else 1,
                    bottleneck=self.bottleneck,
                    conv=partial(_conv, dtype=self.dtype),
                    norm=stage_norm,
                    name=f'layer{i + 1}_{j}',
                )(x)
            stages.append(x)
        pooled = x.astype(jnp.float32).mean(axis=(1, 2))
        neck = Neck(self.neck, self.neck_width, self.classes, norm, name='neck')
        return Outputs(tuple(stages), *neck(pooled))

    def _stem(self, x, norm):
        """ImageNet: 7×7 stride 2 and max-pool. Small: 3×3 stride 2, for images of 32 pixels."""
        init = inflated(self.inflate) if self.inflate > 1 else kaiming_fan_out
        size = 7 if self.stem == 'imagenet' else 3
        x = _conv(self.width, size, stride=2, kernel_init=init, dtype=self.dtype, name='conv1')(x)
        x = nn.relu(norm(name='bn1')(x))
        if self.stem == 'imagenet':
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        return x


def _conv(features, size, *, dtype, name, stride=1, kernel_init=kaiming_fan_out) -> nn.Conv:
    """A convolution without bias, padded on both sides alike as torch does ('SAME' is not)."""
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=size // 2,
        use_bias=False,
        kernel_init=kernel_init,
        dtype=jnp.dtype(dtype),
        name=name,
    )


def create(
    name: str,
    *,
    classes: int,
    width: int,
    stem: str,
    last_stride: int,
    neck: str,
    inflate: int,
    dtype: str,
    neck_width: int = 512,
    batch_norm: str = 'global',
    axis_name: str | None = None,
) -> ResNet:
    """A ResNet of `BLOCKS`; `width` is the number of channels of the first stage's 3×3.

    `inflate` tells of how many images stacked in channels the first convolution starts as the
    mean; `batch_norm` takes its batch over all devices of `axis_name` ('global') or over each
    ('device'). Raises ValueError for an unknown word.
    """
    words = {'stem': stem, 'neck': neck, 'dtype': dtype, 'batch_norm': batch_norm}
    for (key, value), choices in zip(words.items(), (STEMS, NECKS, DTYPES, BATCH_NORMS)):
        if value not in choices:
            raise ValueError(f'network.{key}={value!r}: choose one of {", ".join(choices)}')
    blocks, bottleneck = BLOCKS[name]
    axis_name = axis_name if batch_norm == 'global' else None
    options = (width, stem, last_stride, neck, neck_width, inflate, dtype, axis_name)
    return ResNet(blocks, bottleneck, classes, *options)
