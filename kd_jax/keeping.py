"""What is kept of a run while it trains: the state, what is told of it, and its checkpoints."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh

from kd_jax import checkpoints, parallel, preemption, recipes, trees
from kd_jax.logs import Log
from kd_jax.methods import Method
from kd_jax.trees import Tree


class TrainState(NamedTuple):
    """What a step changes. Teachers are no part of it."""

    step: jax.Array
    variables: Tree  # {'params': {'student': …, …}, 'batch_stats': …}
    optimizer: optax.OptState


def items(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint: the student apart from all that only training needs."""
    names = set(state.variables['params']) - {'student'}
    rest = trees.join(**{name: trees.part(state.variables, name) for name in names})
    training = {'variables': rest, 'optimizer': state.optimizer, 'step': state.step}
    return {'student': trees.part(state.variables, 'student'), 'training': training}


def from_items(found: dict[str, Any]) -> TrainState:
    """The opposite of `items`."""
    training = found['training']
    student = trees.join(student=found['student'])
    kinds = {**student, **{k: {} for k in training['variables']}}
    variables = {k: {**student.get(k, {}), **training['variables'].get(k, {})} for k in kinds}
    return TrainState(training['step'], variables, training['optimizer'])


class Keeper(NamedTuple):
    """What tells of a run and keeps its steps: when, and where to."""

    course: recipes.Course
    log: Log
    saved: ocp.CheckpointManager
    score: Callable

    def keep(self, number: int, state: TrainState) -> dict[str, float] | None:
        """Tell, score and save a step where each is due; the summary if it was scored."""
        if self.course.saves(number):
            self.log.flush(self.saved.latest_step())
            summary = self.scored(number, state) if self.course.scores(number) else None
            self.save(number, state, summary and summary[summary['quoted']])
            return summary
        if number % self.course.log_every == 0:
            self.log.end_window()
        return None

    def scored(self, number: int, state: TrainState) -> dict[str, float]:
        """The summary of a step, which is saved without if that fails, as by a damaged image.

        Of several processes only where all of them are told to stop: else the others save nothing.
        """
        try:
            with self.log.clock('evaluation'):
                summary = self.score(state.variables)
        except BaseException as error:
            all_fail = jax.process_count() == 1 or isinstance(error, preemption.Preempted)
            if all_fail and number not in self.saved.all_steps():
                self.save(number, state, None)
            raise
        self.log.evaluation(number, summary)
        return summary

    def save(self, number: int, state: TrainState, accuracy: float | None, untold=()) -> None:
        """Save a step, with the metrics that are not told yet."""
        jax.block_until_ready(state)
        with self.log.clock('checkpoints'):
            checkpoints.save(self.saved, number, items(state), accuracy, untold)
        self.log.restart_watch()

    def stop(self, number: int, state: TrainState) -> None:
        """Save a step that is not yet, and end as `Preempted`."""
        if number not in self.saved.all_steps():
            untold = self.log.untold(self.saved.latest_step())
            self.save(number, state, None, untold)
        logging.info('told to stop: saved step %d; the same command goes on from there', number)
        preemption.check()


def restored(
    saved: ocp.CheckpointManager,
    state: TrainState,
    begin: Callable,
    method: Method,
    teachers: dict[str, Tree],
    mesh: Mesh,
) -> tuple[TrainState, int, list]:
    """The state of the last checkpoint, its step, and metrics that were not told.

    Without one: the given state with the weights that it starts from, of step 0.
    """
    if saved.latest_step() is not None:
        found = checkpoints.restore_last(saved, items(parallel.replicate(state, mesh)))
        logging.info('going on from the checkpoint of step %d', found.step)
        return from_items(found.items), found.step, found.untold
    variables = begin(state.variables)
    if method.start:
        # Copies on the host: a student that is donated must share no buffer with its teacher.
        given = jax.tree.map(np.array, jax.device_get((variables, teachers)))
        variables = method.start(*given)
    return parallel.replicate(state._replace(variables=variables), mesh), 0, []
