"""Convolutions with their gradients, for tests of those that are computed in other ways."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.networks.cpu_convolution import DIMENSIONS


class Case(NamedTuple):
    """A convolution as the networks have them, and which way it is computed."""

    images: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    pad: int
    way: str
    groups: int = 1


def operations(function, *arguments):
    text = jax.jit(function).lower(*arguments).as_text()
    return tuple(
        text.count(f'stablehlo.{kind}') for kind in ('convolution', 'dot_general', 'while')
    )


def drawn(case, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in (case.images, case.kernel)]


def called(convolution, case):
    """convolution(images, kernel), as `nn.Conv` calls it."""
    padding = ((case.pad, case.pad),) * 2
    options = {'lhs_dilation': (1, 1), 'rhs_dilation': (1, 1), 'dimension_numbers': DIMENSIONS}
    options |= {'feature_group_count': case.groups, 'precision': None}
    strides = (case.stride, case.stride)
    return lambda images, kernel: convolution(images, kernel, strides, padding, **options)


def weights(shape):
    """Small whole numbers, which bfloat16 has too."""
    return (np.arange(np.prod(shape)) % 11 - 5.0).reshape(shape)


@functools.cache
def differentiated(convolution, case):
    """(images, kernel) -> the result, and the gradients of a sum of it with different weights."""

    def found(images, kernel):
        result, pull = jax.vjp(called(convolution, case), images, kernel)
        return result, *pull(jnp.asarray(weights(result.shape), result.dtype))

    return jax.jit(found)


def assert_near(actual, expected, share):
    for x, y in zip(actual, expected, strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=0, atol=share * np.abs(y).max())
