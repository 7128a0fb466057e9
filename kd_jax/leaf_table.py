"""A student's variables as a table: every leaf, the modules and stages they are in, and all."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Shaped

from kd_jax import trees
from kd_jax.checkpoints import Restored
from kd_jax.data import report

KINDS = ('params', 'batch_stats')
HEADS = ('name', 'shape', 'parameters', 'statistics', 'norm', 'dtype')
Leaves = dict[str, Shaped[np.ndarray, '...']]  # by their path, e.g. params/layer1_0/conv1/kernel


def leaves_of(restored: Restored) -> Leaves:
    """The student's leaves on the host."""
    return {path: np.asarray(leaf) for path, leaf in trees.named(restored.variables).items()}


def text(leaves: Leaves) -> str:
    """A table of all leaves below their modules, then of stages, and the total.

    A module's norm is that of its parameters.
    """
    rows = []
    for module, own in grouped(leaves, module_of).items():
        rows.append(_row(module, own))
        rows += [_row(f'  {name(path)}', {path: leaf}, shape(leaf)) for path, leaf in own.items()]
    stages = grouped(leaves, _stage_of).items()
    rows += [[''], *(_row(stage, own) for stage, own in stages), _row('total', leaves)]
    return report.table(HEADS, rows)


def _row(label: str, leaves: Leaves, of_leaf: str = '') -> list[str]:
    """A row of `text`: of one leaf, or of those of a module, which has no shape."""
    kinds = [[leaf for path, leaf in leaves.items() if path.startswith(kind)] for kind in KINDS]
    counts = [sum(leaf.size for leaf in kind) for kind in kinds]
    dtypes = ' '.join(sorted({str(leaf.dtype) for leaf in leaves.values()}))
    numbers = [f'{count:,}' if count else '' for count in counts]
    return [label, of_leaf, *numbers, f'{norm(kinds[0] or kinds[1]):.4g}', dtypes]


def norm(leaves: Iterable[np.ndarray]) -> float:
    """The length of all values as one vector, in float64."""
    return float(np.sqrt(sum(np.square(leaf.astype(np.float64)).sum() for leaf in leaves)))


def shape(leaf: np.ndarray) -> str:
    """A shape to read, e.g. '3x3x64x64'."""
    return 'x'.join(map(str, leaf.shape)) or 'scalar'


def grouped(leaves: dict[str, Any], of: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """The leaves by what a function says of their path, layer10 behind layer9."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(leaves, key=order):
        found.setdefault(of(path), {})[path] = leaves[path]
    return found


def order(path: str) -> list[str | int]:
    """What paths are sorted by: numbers as numbers."""
    return [int(one) if one.isdigit() else one for one in re.split(r'(\d+)', name(path))]


def name(path: str) -> str:
    """A path without its kind: what is learned and what is counted differ in name too."""
    return path.split('/', 1)[1]


def module_of(path: str) -> str:
    """The module of the network that a leaf is in."""
    return path.split('/')[1]


def _stage_of(path: str) -> str:
    """All backbones call their blocks STAGE_BLOCK."""
    return module_of(path).split('_')[0]
