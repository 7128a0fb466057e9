"""The layers of a convolutional network in NumPy, written for tests: plain loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import trees


def photos(*shape: int) -> jax.Array:
    """Random numbers, always the same ones."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def conv(x, kernel, stride=1):
    """With torch's padding of size // 2 on every side."""
    x, kernel = np.asarray(x, float), np.asarray(kernel, float)
    size = len(kernel)
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((n + 2 * pad - size) // stride + 1 for n in x.shape[1:3])
    out = np.empty((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            y, z = i * stride, j * stride
            out[:, i, j] = np.tensordot(padded[:, y : y + size, z : z + size], kernel, 3)
    return out


def max_pool(x):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = ((n - 1) // 2 + 1 for n in x.shape[1:3])
    out = np.empty((len(x), rows, columns, x.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            out[:, i, j] = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    return out


def relu(x):
    return np.maximum(x, 0)


class Layers:
    """Layers in inference mode, by the names of their variables."""

    def __init__(self, variables):
        self.values = {k: np.asarray(v, float) for k, v in trees.named(variables).items()}

    def conv(self, name, x, stride=1):
        return conv(x, self.values[f'params/{name}/kernel'], stride)

    def norm(self, name, x):
        mean, var = (self.values[f'batch_stats/{name}/{k}'] for k in ('mean', 'var'))
        scale = self.values[f'params/{name}/scale']
        bias = self.values.get(f'params/{name}/bias', 0)
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def dense(self, name, x):
        bias = self.values.get(f'params/{name}/bias', 0)
        return x @ self.values[f'params/{name}/kernel'] + bias
