"""A run as a notebook wants it, opened by `kd_jax.open_run`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Float, Shaped
from ml_collections import ConfigDict

from kd_jax import checkpoints, own_images, runs
from kd_jax.checkpoints import Restored
from kd_jax.methods import supervised
from kd_jax.trees import Tree


class Run(NamedTuple):
    """The student of a run and what is known of it.

    `variables` and `embed` are of the checkpoint of `step`; `metrics` are the columns of
    metrics.jsonl and `result` is that of result.json, None while the run is not finished.
    `embed(images uint8[b, h, w, 3]) -> float32[b, d]` gives what evaluation ranks.
    """

    path: Path
    config: ConfigDict
    network: nn.Module
    variables: Tree
    metrics: dict[str, np.ndarray]
    result: dict[str, Any] | None
    step: int
    embed: Callable[[Any], np.ndarray]

    def __repr__(self) -> str:
        method, network = self.config.method.name, self.config.network.name
        return f'Run({str(self.path)!r}: {method}, {network}, step {self.step})'


def open_run(path: str | Path, checkpoint: str) -> Run:
    """A run with its 'last' checkpoint or that of the 'best' mAP; RunError where there is none."""
    supervised.check_choice('checkpoint', checkpoint, checkpoints.WHICH)
    path = Path(path)
    restored = checkpoints.restore_network(path, checkpoint)
    network, variables, config, step, _ = restored
    found = columns(runs.metrics_of(path)), runs.result_of(path), step
    return Run(path, config, network, variables, *found, embedder(restored, str(path)))


def columns(rows: list[dict]) -> dict[str, Shaped[np.ndarray, 'n']]:
    """The numbers of rows by name, `step` first; one of each step, NaN where it has no such number.

    Those of an evaluation are called evaluation/NAME, of a protocol beside the first
    evaluation/PROTOCOL/NAME.
    """
    steps: dict[int, dict[str, int | float]] = {}
    for row in rows:  # what was trained and how it was evaluated are rows of one step
        steps.setdefault(row['step'], {}).update(_numbers(row))
    names = dict.fromkeys(name for found in steps.values() for name in found if name != 'step')
    found = {
        name: np.array([row.get(name, np.nan) for row in steps.values()], float) for name in names
    }
    return {'step': np.array(list(steps), int), **found}


def _numbers(row: dict, prefix: str = '') -> dict[str, int | float]:
    found = {f'{prefix}{key}': v for key, v in row.items() if isinstance(v, int | float)}
    if 'evaluation' in row:
        first = row['evaluation']
        found |= _numbers(first, 'evaluation/')
        for other in first['also']:
            found |= _numbers(other, f'evaluation/{other["protocol"]}/')
    return found


def embedder(restored: Restored, label: str) -> Callable[[Any], np.ndarray]:
    """embed(images uint8[b, h, w, 3]) -> float32[b, d], by a run's method, on all devices.

    Raises ValueError for images of another type or size.
    """
    config, network = restored.config, own_images.of(restored)
    shape = (config.data.height, config.data.width, config.data.channels)

    def embed(images: Any) -> Float[np.ndarray, 'b d']:
        images = _checked(images, shape, label)
        if not len(images):
            return embed(np.zeros((1, *shape), np.uint8))[:0]
        batch = min(config.evaluate.batch, network.shots * _power(len(images)))
        return own_images.embedded(network, images, batch)

    return embed


def _power(count: int) -> int:
    """The power of two from a count on: few batches to compile for, and none mostly of padding."""
    return 1 << (count - 1).bit_length()


def _checked(images: Any, shape: tuple[int, int, int], label: str) -> np.ndarray:
    """The images as an array; ValueError naming what they are and what the run reads."""
    images = np.asarray(images)
    if images.shape[1:] != shape:
        wanted = ', '.join(map(str, shape))
        raise ValueError(
            f'images of shape {images.shape}: {label} reads (b, {wanted}), b images of height, '
            'width and channels'
        )
    if images.dtype != np.uint8:
        raise ValueError(
            f'images of {images.dtype}: {label} reads uint8, from 0 to 255, and normalises itself'
        )
    return images
