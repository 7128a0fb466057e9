"""Variables without compiling an initialiser: random numbers in the shapes it would give."""

import math

import jax
import numpy as np


def random_variables(shapes, seed=0):
    """Kernels that keep the scale of what passes through, statistics that are not 0 and 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        if kind in ('scale', 'var'):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        deviation = math.sqrt(2 / math.prod(leaf.shape[:-1])) if kind == 'kernel' else 0.2
        return (deviation * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_init(init, *arguments, seed=0):
    """What init(key, *arguments) returns, with random numbers."""
    return random_variables(jax.eval_shape(init, jax.random.key(0), *arguments), seed)
