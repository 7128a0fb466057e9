"""The exported student of a smoke run, and what its embeddings are to be."""

import functools
from pathlib import Path

import jax
import numpy as np
import smoke

from kd_jax import checkpoints, exporting

SIZE = 32, 16, 3


@functools.cache
def student_file() -> Path:
    """The file of a UMTS student, to be left as it is; what was told of it lies beside."""

    def make(where):
        told = exporting.run(smoke.finished(), 'last', where / 'student.zip')
        (where / 'told.txt').write_text(told)

    return smoke.once('exported', make) / 'student.zip'


def noise(count, size=SIZE, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, *size), np.uint8)


def of_run(images, run=None):
    """A run's own embeddings, by its network alone; several shots are stacked."""
    restored = checkpoints.restore_network(run or smoke.finished())
    shots = images.shape[-1] // 3
    mean, std = [0.485, 0.456, 0.406] * shots, [0.229, 0.224, 0.225] * shots
    pixels = (images / 255.0 - mean) / std
    found = jax.jit(restored.network.apply)(restored.variables, pixels.astype(np.float32))
    return np.asarray(found.embedding)


def assert_same(found, wanted, limit=1e-6):
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert exporting.difference(np.asarray(found), wanted) <= limit
