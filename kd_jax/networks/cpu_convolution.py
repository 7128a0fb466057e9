"""2-D convolutions as matrix products, which XLA's CPU backend computes far faster.

XLA for CPU multiplies matrices at the speed of the machine, but convolves at half of it, and takes
the gradient of a kernel at a fifth. So 1×1 convolutions are products here, 3×3 ones Winograd's
F(2×2, 3×3), depthwise ones sums of shifted images, and the gradient of any other kernel is a
product of image patches. Measured in experiments/results/speed.md.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kd_jax.networks import winograd

# Multiply-adds below which XLA's own convolution is as fast, and compiles faster; but at so few
# pixels of output it is up to a hundred times slower.
SMALL = 2**26
FEW_PIXELS = 8
CHUNK = 2**19  # values of the images whose transforms or patches are held at a time
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def convolve(
    images: Float[Array, 'b h w c'],
    kernel: Float[Array, 'k l i o'],
    strides: tuple[int, int],
    padding: Any,
    *,
    lhs_dilation: tuple[int, int] | None = None,
    rhs_dilation: tuple[int, int] | None = None,
    feature_group_count: int = 1,
    least: int | None = None,
    **options: Any,
) -> Float[Array, 'b h2 w2 o']:
    """`lax.conv_general_dilated` of NHWC and HWIO, the same up to rounding, as `nn.Conv` calls it.

    Left to XLA are oblong, grouped and dilated ones (of the networks here only BAM has some),
    batches of a symbolic size, and those of fewer than `least` multiply-adds, SMALL without it.
    `options` are for it alone: nothing else heeds `precision`.
    """
    options |= {'lhs_dilation': lhs_dilation, 'rhs_dilation': rhs_dilation}
    options['feature_group_count'] = groups = feature_group_count
    xla = partial(lax.conv_general_dilated, images, kernel, strides, padding, **options)
    size, stride, pad = len(kernel), strides[0], padding[0][0]
    square = kernel.shape[:2] == (size, size) and tuple(strides) == (stride, stride)
    dilated = any(set(d or (1,)) != {1} for d in (lhs_dilation, rhs_dilation))
    if dilated or not square or any(tuple(side) != (pad, pad) for side in padding):
        return xla()
    if groups > 1:
        alone = groups == images.shape[-1] == kernel.shape[-1]
        return depthwise(images, kernel, stride, pad) if alone else xla()
    if (size, pad) == (1, 0):
        return product(images[:, ::stride, ::stride], kernel[0, 0])
    if not isinstance(images.shape[0], int):  # a batch of any size, as exports have
        return xla()
    pixels = math.prod((n + 2 * pad - size) // stride + 1 for n in images.shape[1:3])
    few = pixels <= FEW_PIXELS
    if not few and len(images) * pixels * kernel.size < (SMALL if least is None else least):
        return xla()
    if (size, stride, pad) == (3, 1, 1):
        return three_by_three(images, kernel)
    return (patches if few else patched)(images, kernel, stride, pad)


def product(images: Float[Array, 'b h w i'], kernel: Float[Array, 'i o']):
    """Every pixel times a matrix."""
    return (winograd.rows(images) @ kernel).reshape(*images.shape[:-1], -1)


def depthwise(images: Float[Array, 'b h w c'], kernel: Float[Array, 'k k 1 c'], stride, pad):
    """A convolution of each channel for itself: elementwise, so that it fuses with what follows.

    In float32 at least: XLA for CPU would add up a kernel's gradient in bfloat16 itself, and the
    sum over many pixels would stop growing.
    """
    size = len(kernel)
    weights = kernel.reshape(size * size, -1)
    weights = weights.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    shifted = taps(images, size, stride, pad)
    return sum(tap * weight for tap, weight in zip(shifted, weights)).astype(images.dtype)


@jax.custom_vjp
def three_by_three(images: Float[Array, 'b h w i'], kernel: Float[Array, '3 3 i o']):
    """Stride 1, padding 1, with products of Winograd's transforms."""
    return winograd.convolve(images, kernel)


def _three_by_three_forward(images, kernel):
    return winograd.convolve(images, kernel), (images, kernel)


def _three_by_three_backward(saved, gradient):
    images, kernel = saved
    of_kernel = in_chunks(winograd.kernel_products, images, gradient)
    of_kernel = winograd.kernel_gradient(of_kernel).astype(kernel.dtype)
    return winograd.image_gradient(gradient, kernel), of_kernel


three_by_three.defvjp(_three_by_three_forward, _three_by_three_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def patched(images: Float[Array, 'b h w i'], kernel: Float[Array, 'k k i o'], stride, pad):
    """XLA's own convolution, but the kernel's gradient by patches."""
    strides, padding = (stride, stride), ((pad, pad), (pad, pad))
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def _patched_forward(images, kernel, stride, pad):
    return patched(images, kernel, stride, pad), (images, kernel)


def _patched_backward(stride, pad, saved, gradient):
    images, kernel = saved
    _, pull = jax.vjp(lambda x: patched.fun(x, kernel, stride, pad), images)
    products = partial(_patch_products, size=len(kernel), stride=stride, pad=pad)
    of_kernel = in_chunks(products, images, gradient).reshape(kernel.shape)
    return *pull(gradient), of_kernel.astype(kernel.dtype)


patched.defvjp(_patched_forward, _patched_backward)


def patches(images: Float[Array, 'b h w i'], kernel: Float[Array, 'k k i o'], stride, pad):
    """The product of image patches and the kernel."""
    shifted = jnp.concatenate(taps(images, len(kernel), stride, pad), axis=-1)
    return product(shifted, kernel.reshape(-1, kernel.shape[-1]))


def _patch_products(images, gradient, size, stride, pad):
    shifted = jnp.concatenate(taps(images, size, stride, pad), axis=-1)
    return winograd.over_rows(lax.optimization_barrier(shifted), gradient)


def in_chunks(products: Callable, images: Float[Array, 'b h w i'], gradient: jax.Array) -> Any:
    """The sum of products(images, gradient) over chunks of a batch that stay in the cache."""
    batch = len(images)
    chunks = next(n for n in range(1, batch + 1) if images.size // n <= CHUNK or n == batch)
    chunks = next(n for n in range(chunks, batch + 1) if batch % n == 0)
    if chunks == 1:
        return products(images, gradient)
    split = [x.reshape(chunks, -1, *x.shape[1:]) for x in (images, gradient)]
    start = jax.tree.map(jnp.zeros_like, jax.eval_shape(products, *(x[0] for x in split)))

    def add(total, chunk):
        return jax.tree.map(jnp.add, total, products(*chunk)), None

    return lax.scan(add, start, split)[0]


def taps(images: Float[Array, 'b h w c'], size: int, stride: int, pad: int) -> list:
    """For every place in a kernel, row by row, the pixels that it meets: float[b, h2, w2, c]."""
    ends = [(n + 2 * pad - size) // stride * stride + 1 for n in images.shape[1:3]]
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return [
        padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride]
        for i in range(size)
        for j in range(size)
    ]
