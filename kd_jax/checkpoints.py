"""Checkpoints with orbax: save, restore, and the network of a run.

A step has the items `student` (what is evaluated, exported and used as a teacher) and `training`
(the rest: heads, optimizer, step).
"""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import preservation_policy

from kd_jax import recipes, runs
from kd_jax.runs import RunError
from kd_jax.trees import Tree

ITEMS = ('student', 'training')
WHICH = ('last', 'best')


class Restored(NamedTuple):
    """The student of a run: its network, variables, locked config and the step they are of."""

    network: nn.Module
    variables: Tree
    config: ConfigDict
    step: int


def manager(run: Path, create: bool = True) -> ocp.CheckpointManager:
    """The checkpoints of a run; the last one and the one of the best mAP are kept."""
    policy = preservation_policy
    keep = policy.AnyPreservationPolicy(
        [
            policy.LatestN(1),
            policy.BestN(
                get_metric_fn=lambda m: m['mAP'], n=1, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep,
        best_fn=lambda metrics: metrics['mAP'],
        create=create,
        cleanup_tmp_directories=create,
    )
    handlers = {name: ocp.StandardCheckpointHandler() for name in ITEMS}
    return ocp.CheckpointManager(
        (run / 'checkpoints').absolute(), options=options, item_handlers=handlers
    )


def save(
    checkpoints: ocp.CheckpointManager, step: int, items: dict[str, Any], mAP: float | None
) -> None:
    """Save the items of a step, with the mAP where it was measured; RunError if it was not."""
    args = ocp.args.Composite(**{name: ocp.args.StandardSave(items[name]) for name in ITEMS})
    metrics = None if mAP is None else {'mAP': mAP}
    if not checkpoints.save(step, args=args, metrics=metrics):
        raise RunError(f'{checkpoints.directory} already has a checkpoint of step {step} or later')


def restore(checkpoints: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> dict[str, Any]:
    """The items of a step, in the shapes and on the devices of the given ones.

    RunError if the checkpoint holds another network.
    """
    saved = checkpoints.item_metadata(step)
    for name, item in items.items():
        found, wanted = _shapes(saved[name].tree), _shapes(item)
        for key in sorted(k for k in found | wanted if found.get(k) != wanted.get(k)):
            raise RunError(
                f'{checkpoints.directory}/{step} holds no such network as the config describes: '
                f'{key} is of shape {found.get(key)} there, {wanted.get(key)} here; was its '
                'config.json or a file of it changed?'
            )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, items)
    args = ocp.args.Composite(**{k: ocp.args.StandardRestore(v) for k, v in abstract.items()})
    restored = checkpoints.restore(step, args=args)
    return {name: restored[name] for name in items}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator='/'): leaf.shape for k, leaf in leaves}


def restore_network(run: str | Path, which: str = 'last') -> Restored:
    """Rebuild the network of a run from its config.json and restore the student's variables.

    `which`: the 'last' checkpoint or the one of the 'best' mAP. Raises RunError for a directory
    that is no run or has no checkpoint.
    """
    run = Path(run)
    config = runs.config_of(run)
    try:
        network = recipes.network(config, runs.classes_of(run))
    except (TypeError, AttributeError, KeyError) as error:
        message = f'{run}: its config.json is of another version of kd_jax: {error}'
        raise RunError(message) from error
    with manager(run, create=False) if (run / 'checkpoints').exists() else _none(run) as found:
        step = found.latest_step() if which == 'last' else found.best_step()
        if step is None:
            raise RunError(f'{run} has no {which} checkpoint: train it first')
        variables = jax.eval_shape(network.init, jax.random.key(0), recipes.blank_input(config))
        variables = jax.tree.map(jnp.zeros_like, variables)
        restored = restore(found, step, {'student': variables})
    return Restored(network, restored['student'], config, step)


def _none(run: Path):
    raise RunError(f'{run} has no checkpoint: train it first')
