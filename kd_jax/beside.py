"""What training keeps beside the student in a checkpoint: heads, branches, the optimizer."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from kd_jax import checkpoints, damage
from kd_jax.runs import RunError
from kd_jax.trees import Tree

CLASSIFIER = 'classifier (kept in .safetensors)'


def variables_of(run: str | Path, step: int) -> Tree:
    """The variables that training keeps beside the student, such as {'params': {'heads': …}}.

    Those of a checkpoint's step, as NumPy arrays; {} where there are none. They are a part of what
    its checksums are of, so these are not compared. Raises RunError for a run without that
    checkpoint, Damaged where it can not be read.
    """
    items, home = _items(Path(run), step)
    with damage.reading(home), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        wanted = {'variables': jax.tree.map(_blank, items['training'].tree.get('variables', {}))}
        options = ocp.checkpoint_utils.construct_restore_args(wanted)
        args = ocp.args.PyTreeRestore(wanted, options, partial_restore=True)
        return reader.restore(home / 'training', args)['variables']


def sizes(run: str | Path, step: int) -> dict[str, tuple[int, int]]:
    """How many values and bytes each part of a checkpoint has, by its metadata alone.

    Parts are `student`, which is exported, its classifier, and what is kept beside it.
    """
    items, home = _items(Path(run), step)
    found: dict[str, tuple[int, int]] = {}
    with damage.reading(home):
        for item in checkpoints.ITEMS:
            for keys, leaf in jax.tree_util.tree_leaves_with_path(items[item].tree):
                path = jax.tree_util.keystr(keys, simple=True, separator='/').split('/')
                values, size = found.get(part := _part(item, path), (0, 0))
                count = int(np.prod(leaf.shape, dtype=np.int64))
                found[part] = values + count, size + count * np.dtype(leaf.dtype).itemsize
    return found


def _part(item: str, path: list[str]) -> str:
    if item == 'student':
        return CLASSIFIER if path[1:3] == ['neck', 'classifier'] else item
    return path[2 if path[0] == 'variables' else 0]


def _items(run: Path, step: int) -> tuple[Any, Path]:
    """The metadata of a step's items, and its directory."""
    if not (run / 'checkpoints').exists():
        raise RunError(f'{run} has no checkpoint: train it first')
    with checkpoints.manager(run, create=False) as saved:
        if step not in saved.all_steps():
            raise RunError(f'{run} has no checkpoint of step {step}, but of {saved.all_steps()}')
        home = Path(saved.directory) / str(step)
        with damage.reading(home):
            return saved.item_metadata(step), home


def _blank(leaf: Any) -> np.ndarray:
    return np.empty(leaf.shape, leaf.dtype)
