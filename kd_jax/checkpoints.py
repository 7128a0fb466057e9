"""Checkpoints with orbax: save, restore, and the network of a run.

A step has the items `student` (what is evaluated, exported and used as a teacher), `training`
(the rest: heads, optimizer, step) and `notes`: checksums, as a flipped bit would not be noticed,
and the metrics of steps that are not told yet.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from kd_jax import damage, hosts, recipes, retention, runs
from kd_jax.damage import Damaged
from kd_jax.runs import RunError
from kd_jax.trees import Tree

ITEMS = ('student', 'training')
NOTES = 'notes'
WHICH = ('last', 'best')
REMEDIES = {
    'last': '; remove result.json, if any, and start again: it goes on from the one before',
    'best': '; take --checkpoint=last',
}


class Found(NamedTuple):
    """The items of a checkpoint, and metrics of the steps before it that are not told yet."""

    items: dict[str, Any]
    step: int
    untold: list


class Restored(NamedTuple):
    """The student of a run: its network, variables, locked config, and the step they are of."""

    network: nn.Module
    variables: Tree
    config: ConfigDict
    step: int
    run: Path


class Manager(ocp.CheckpointManager):
    """Without orbax's own question whether the run is told to stop, which `preemption` asks."""

    def reached_preemption(self, step: int) -> bool:
        """Never, here."""
        return False


@contextlib.contextmanager
def manager(
    run: Path, create: bool = True, regular: Callable[[int], bool] = lambda step: True
) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of a run; which of them are kept: retention.py.

    RunError where one could not be written, as on a full disk.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=retention.policy(regular),
        best_fn=retention.accuracy,
        create=create,
        cleanup_tmp_directories=create,
    )
    handlers = {name: ocp.StandardCheckpointHandler() for name in ITEMS}
    directory = (run / 'checkpoints').absolute()
    damage.check_metrics(directory, put=create)
    found = Manager(
        directory, options=options, item_handlers={**handlers, NOTES: ocp.JsonCheckpointHandler()}
    )
    try:
        yield found
    finally:
        with _written(found):
            found.close()


def save(
    checkpoints: ocp.CheckpointManager,
    step: int,
    items: dict[str, Any],
    mAP: float | None,
    untold: Sequence = (),
) -> None:
    """Save the items of a step, with the mAP where it was measured, and metrics `untold`.

    A step that was saved before it was scored is saved anew. RunError if it could not be written,
    or is not after the last one.
    """
    if not hosts.are_several():
        # Of a jax.Array each device writes a slice, cut by a program that is compiled per shape.
        items = jax.device_get(items)
    notes = {'checksums': {name: damage.checksum(items[name]) for name in ITEMS}, 'untold': untold}
    args = {name: ocp.args.StandardSave(items[name]) for name in ITEMS}
    args = ocp.args.Composite(**args, **{NOTES: ocp.args.JsonSave(notes)})
    metrics = None if mAP is None else {'mAP': mAP}
    with _written(checkpoints):
        if metrics and not scored(checkpoints, step):
            checkpoints.wait_until_finished()
            checkpoints.delete(step)
        done = checkpoints.save(step, args=args, metrics=metrics)
    if not done:
        raise RunError(f'{checkpoints.directory} already has a checkpoint of step {step} or later')


def finish(checkpoints: ocp.CheckpointManager) -> None:
    """Wait until all that is being saved is written; RunError if it could not be."""
    with _written(checkpoints):
        checkpoints.wait_until_finished()


def scored(checkpoints: ocp.CheckpointManager, step: int) -> bool:
    """Whether there is no checkpoint of a step that lacks its mAP."""
    return step not in checkpoints.all_steps() or checkpoints.metrics(step) is not None


@contextlib.contextmanager
def _written(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
    """RunError for what goes wrong in writing, or went wrong in the background."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(
            f'{checkpoints.directory}: a checkpoint could not be written '
            f'({damage.first_line(error)}); make room there, and start again: it goes on from the '
            'last one that was'
        ) from error


def restore_last(checkpoints: ocp.CheckpointManager, items: dict[str, Any]) -> Found:
    """The last step that can be read.

    Later ones are put aside, which is logged. RunError where none can be read.
    """
    causes: dict[int, RunError] = {}
    for step in reversed(checkpoints.all_steps()):
        try:
            with hosts.together():
                found, untold = _read(checkpoints, step, items)
        except RunError as error:
            causes[step] = error
            continue
        for damaged, cause in causes.items():
            damage.put_aside(Path(checkpoints.directory) / str(damaged), cause)
        checkpoints.reload()
        return Found(found, step, untold)
    raise RunError(
        f'{next(iter(causes.values()))}, and none before it can be read: give another --workdir'
    )


def restore(checkpoints: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> dict[str, Any]:
    """The items of a step, in the shapes and on the devices of the given ones.

    RunError if the checkpoint holds another network, or is damaged.
    """
    return _read(checkpoints, step, items)[0]


def _read(checkpoints, step, items) -> tuple[dict[str, Any], list]:
    """The items of a step, and what is untold of it."""
    place = f'{checkpoints.directory}/{step}'
    with damage.reading(place):
        saved = checkpoints.item_metadata(step)
        _check_shapes(place, {name: saved[name].tree for name in items}, items)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, items)
        args = {k: ocp.args.StandardRestore(v) for k, v in abstract.items()}
        if noted := (Path(place) / NOTES).exists():
            args[NOTES] = ocp.args.JsonRestore()
        found = checkpoints.restore(step, args=ocp.args.Composite(**args))
        notes = found[NOTES] if noted else {'checksums': {}, 'untold': []}
        sums = notes['checksums']
        changed = [
            name for name in items if name in sums and damage.checksum(found[name]) != sums[name]
        ]
    if not noted:
        logging.warning('%s has no checksums, as of an earlier kd_jax: read as it is', place)
    if changed:
        raise Damaged(place, f'{", ".join(changed)}: not what was saved')
    return {name: found[name] for name in items}, notes['untold']


def _check_shapes(place: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, item in wanted.items():
        there, here = _shapes(found[name]), _shapes(item)
        for key in sorted(k for k in there | here if there.get(k) != here.get(k)):
            raise RunError(
                f'{place} holds no such network as the config describes: {key} is of shape '
                f'{there.get(key)} there, {here.get(key)} here; was its config.json or a file of '
                'it changed?'
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator='/'): leaf.shape for k, leaf in leaves}


def restore_network(run: str | Path, which: str = 'last') -> Restored:
    """Rebuild the network of a run from its config.json and restore the student's variables.

    `which`: the 'last' checkpoint or the one of the 'best' mAP. Raises RunError for a directory
    that is no run or has no checkpoint, Damaged where it can not be read.
    """
    try:
        return _restored(Path(run), which)
    except Damaged as error:
        raise Damaged(error.place, error.cause, REMEDIES[which]) from error


def _restored(run: Path, which: str) -> Restored:
    config = runs.config_of(run)
    with runs.of_this_version(run):
        network = recipes.network(config, runs.classes_of(run))
        images = recipes.blank_input(config)
    with manager(run, create=False) if (run / 'checkpoints').exists() else _none(run) as found:
        step = found.latest_step() if which == 'last' else found.best_step()
        if step is None:
            raise RunError(f'{run} has no {which} checkpoint: train it first')
        variables = jax.eval_shape(network.init, jax.random.key(0), images)
        # On a device of this process, whichever the run was trained on.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        blank = jax.tree.map(lambda leaf: leaf.update(sharding=here), variables)
        student = restore(found, step, {'student': blank})['student']
    return Restored(network, student, config, step, run)


def _none(run: Path):
    raise RunError(f'{run} has no checkpoint: train it first')
