"""What every network shares: four stages, global average pooling, a re-ID neck, a classifier."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax import views
from kd_jax.networks.cpu_convolution import convolve

HEAD = 5  # what follows stages 1-4: pooling, neck and classifier
PUBLISHED_WIDTH = 64  # of option `width`: with it every layer is as wide as published

kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


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


class Layers(NamedTuple):
    """What a stage is built of.

    `conv(features, size, name=…)`, with torch's padding, kaiming fan-out and no bias where none is
    asked for; `norm(name=…)`, a BatchNorm; `first(features, size, name=…)`, the `conv` that reads
    the image.
    """

    conv: Callable[..., jax.Array]
    norm: Callable[..., jax.Array]
    first: Callable[..., jax.Array]


ALGORITHMS = {'xla': None, 'cpu': convolve, 'products': partial(convolve, least=0)}


def algorithm_of(conv: str) -> str:
    """What option `conv` is here: 'auto' is 'cpu' where JAX runs on one, else 'xla'."""
    return ('cpu' if jax.default_backend() == 'cpu' else 'xla') if conv == 'auto' else conv


class Neck(nn.Module):
    """Pooled features to (embedding, neck, logits).

    `bnneck`: the embedding is the pooled vector, the neck its BatchNorm without bias, the
    classifier has no bias (Luo et al. 2019). `fc_bn_relu`: one vector, ReLU(BN(FC(pooled))), is
    both embedding and neck, and the classifier has a bias (UMTS, of width 512); `fc_bn` is that
    without the ReLU (A-FD-1). Classifiers start from N(0, 0.001²), the FC from N(0, 0.01²), biases
    from zero.
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
        neck = self.norm(name='neck_bn')(x)
        neck = nn.relu(neck) if self.kind == 'fc_bn_relu' else neck
        return neck, neck, classifier()(neck)


class Network(nn.Module, kw_only=True):
    """Four stages that a backbone defines, one after the other, and what re-ID needs behind them.

    Parameters are float32; `dtype` is what the stages compute in, with the statistics of their
    BatchNorms in float32; pooling, neck and classifier compute in float32. The number of input
    channels is read from the input. The options are those of `networks.create`. A network is cut
    in front of stage `split`, or of `HEAD`, by `trunk` and `tail`, which have its variables' names.
    """

    classes: int
    width: int
    stem: str
    last_stride: int
    last_block_relu: str
    neck: str
    neck_width: int
    inflate: int
    dtype: str
    conv: str
    axis_name: str | None
    part: tuple
    part_size: tuple

    # The convolution that reads the image; prefixes of the last stage's variables, which VKD's
    # students take from ImageNet again.
    FIRST: ClassVar[str]
    LAST_STAGE: ClassVar[tuple[str, ...]]

    def __call__(self, x: Float[Array, 'b h w c'], train: bool = False, sets: int = 0) -> Outputs:
        """Outputs of every image, or, of so many `sets` of images, of the mean of each set's."""
        return self.tail(x, train, 1, sets)

    def trunk(self, x: Float[Array, 'b h w c'], train: bool, split: int) -> tuple:
        """The feature maps of the stages in front of `split`, of images."""
        return self._span(x, train, range(1, split))[0]

    def tail(self, x: Float[Array, 'b h w c'], train: bool, split: int, sets: int = 0) -> Outputs:
        """Outputs of the feature map in front of `split`; `stages` are those from there on."""
        stages, behind = self._span(x, train, range(split, HEAD + 1), sets)
        return Outputs(stages, *behind)

    @nn.compact
    def _span(self, x, train: bool, numbers: range, sets: int = 0) -> tuple[tuple, tuple]:
        """Feature maps of some stages in a row, and what the head gives if it is among them."""
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
        )
        if 1 in numbers and self.part:
            x = views.part_of(x, self.part, self.part_size)
        layers, stages = self.layers(norm), []
        x = x.astype(self.dtype)
        for number in numbers[: HEAD - numbers.start]:
            x = self.stage(number, x, layers)
            stages.append(x)
        return tuple(stages), self._behind(x, norm, sets) if HEAD in numbers else ()

    def _behind(self, x, norm: Callable, sets: int) -> tuple:
        """Embedding, neck and logits."""
        pooled = x.astype(jnp.float32).mean(axis=(1, 2))
        if sets:
            pooled = pooled.reshape(sets, -1, pooled.shape[-1]).mean(axis=1)
        return Neck(self.neck, self.neck_width, self.classes, norm, name='neck')(pooled)

    def stage(self, number: int, x: jax.Array, layers: Layers) -> Float[Array, 'b h w c']:
        """The feature map of stage `number` from that of the one before, or from images."""
        raise NotImplementedError

    def layers(self, norm: Callable) -> Layers:
        """Layers that compute in `dtype`, with the convolution that suits the backend."""
        dtype = jnp.dtype(self.dtype)
        conv = partial(_conv, dtype=dtype, algorithm=ALGORITHMS[algorithm_of(self.conv)])
        init = inflated(self.inflate) if self.inflate > 1 else kaiming_fan_out
        return Layers(conv, partial(norm, dtype=dtype), partial(conv, kernel_init=init))

    def strided_stem(self, x: jax.Array, layers: Layers, features: int, norm: str) -> jax.Array:
        """ImageNet: 7×7 stride 2 and max-pool. Small: 3×3 stride 2, for images of 32 pixels."""
        size = 7 if self.stem == 'imagenet' else 3
        x = layers.first(features, size, stride=2, name=self.FIRST)(x)
        x = nn.relu(layers.norm(name=norm)(x))
        return max_pool(x) if self.stem == 'imagenet' else x

    def scaled(self, channels: int) -> int:
        """Published channels at the width of this network."""
        return max(1, channels * self.width // PUBLISHED_WIDTH)


def _conv(
    features: int,
    size: int,
    *,
    name: str,
    dtype: jnp.dtype,
    algorithm: Callable | None,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: Callable = kaiming_fan_out,
) -> nn.Conv:
    """A convolution padded on both sides alike, as torch does ('SAME' is not)."""
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=dilation * (size // 2),
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=algorithm,
        name=name,
    )


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


def max_pool(x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c']:
    """3×3, stride 2."""
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def average_pool(x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c']:
    """2×2, stride 2, as in transitions; a last odd row or column is left out."""
    return nn.avg_pool(x, (2, 2), (2, 2))
