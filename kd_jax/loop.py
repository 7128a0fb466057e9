"""The train step and the loop around it: one of each for every method."""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kd_jax import (
    assembly,
    checkpoints,
    embedding,
    parallel,
    preemption,
    recipes,
    scoring,
    trees,
)
from kd_jax.data import Dataset, pipeline
from kd_jax.logs import Log
from kd_jax.methods import Method
from kd_jax.trees import Tree
from kd_jax.views import Batch


class TrainState(NamedTuple):
    """What a step changes. Teachers are no part of it."""

    step: jax.Array
    variables: Tree  # {'params': {'student': …, …}, 'batch_stats': …}
    optimizer: optax.OptState


def create_state(
    method: Method, tx: optax.GradientTransformation, batch: Batch, seed: int
) -> TrainState:
    """A fresh state; every seed draws other parameters."""
    key = jax.random.key(seed, impl='rbg')  # compiles five times faster than threefry
    variables = jax.jit(method.init)(key, batch)
    return TrainState(jnp.zeros((), jnp.int32), variables, tx.init(variables['params']))


def make_train_step(
    method: Method,
    augment: Callable[[Batch], tuple[Batch, Batch]],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    steps: int,
) -> Callable:
    """step(state, teachers, batch) -> (state, metrics), mapped over the mesh."""
    return parallel.spmd(per_device_step(method, augment, tx, seed=seed, steps=steps), mesh)


def per_device_step(method, augment, tx, *, seed: int, steps: int) -> Callable:
    """One device's share of a step, with collectives over the axis 'batch'.

    Metrics are the method's terms and diagnostics, `loss` (the sum of the terms) and
    `gradient_norm`.
    """

    def step(state: TrainState, teachers: dict[str, Tree], batch: Batch):
        seen, taught = augment(batch)
        targets = method.teach(teachers, taught)
        rng = jax.random.fold_in(jax.random.key(seed), state.step)

        def objective(params):
            variables = {**state.variables, 'params': params}
            found = method.loss(variables, targets, seen, rng, state.step / steps)
            return sum(found.terms.values()), found

        params = state.variables['params']
        (loss, found), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        metrics = {'loss': loss, **found.terms, **found.diagnostics}
        gradients, metrics, stats = jax.lax.pmean(
            (gradients, metrics, found.batch_stats), parallel.AXIS
        )
        updates, optimizer = tx.update(gradients, state.optimizer, params)
        metrics['gradient_norm'] = optax.tree.norm(gradients)
        variables = {'params': optax.apply_updates(params, updates), 'batch_stats': stats}
        return TrainState(state.step + 1, variables, optimizer), metrics

    return step


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
        scoring = self.course.due(number, self.course.evaluate_every)
        if scoring or self.course.due(number, self.course.checkpoint_every):
            self.log.flush(self.saved.latest_step())
            summary = self.scored(number, state) if scoring else None
            self.save(number, state, summary and summary[summary['quoted']])
            return summary
        if number % self.course.log_every == 0:
            self.log.end_window()
        return None

    def scored(self, number: int, state: TrainState) -> dict[str, float]:
        """The summary of a step, which is saved without if that fails, as by a damaged image."""
        try:
            with self.log.clock('evaluation'):
                summary = self.score(state.variables)
        except BaseException:
            if number not in self.saved.all_steps():
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

    def stop(self, number: int, state: TrainState) -> NoReturn:
        """Save a step that is not yet, and end as `Preempted`."""
        if number not in self.saved.all_steps():
            untold = self.log.untold(self.saved.latest_step())
            self.save(number, state, None, untold)
        logging.info('told to stop: saved step %d; the same command goes on from there', number)
        raise preemption.Preempted


def fit(
    config: ConfigDict,
    workdir: Path,
    dataset: Dataset,
    parts: assembly.Parts,
    teachers: dict[str, Tree],
) -> tuple[dict[str, float], TrainState]:
    """The loop: train from the last checkpoint to the end.

    Returns the summary of the last evaluation and the state it is of.
    """
    method, augment, tx, plan, course, begin = parts
    mesh = parallel.mesh()
    step = make_train_step(method, augment, tx, mesh, seed=config.seed, steps=course.steps)
    score = scorer(method, config, dataset)
    teachers = parallel.replicate(teachers, mesh)
    state = create_state(method, tx, recipes.blank_batch(config), config.seed)
    with checkpoints.manager(workdir) as saved, contextlib.ExitStack() as opened:
        state, start, untold = restored(saved, state, begin, method, teachers, mesh)
        log = Log(workdir, start, course.steps, plan(0).rows.size)
        opened.callback(log.close)
        log.resume(untold)
        feed = pipeline.batches(dataset.train, plan, config.data.feed, start, course.steps, mesh)
        batches = log.clock.each('waiting for images', feed)
        keeper = Keeper(course, log, saved, score)
        opened.enter_context(preemption.deferred())
        state, summary = train(
            keeper, lambda *given: step(given[0], teachers, given[1]), state, start, batches
        )
        log.summary()
    return summary or score(state.variables), state


def train(
    keeper: Keeper, step: Callable, state: TrainState, start: int, batches: Iterable[Batch]
) -> tuple[TrainState, dict[str, float] | None]:
    """Take a step with every batch, and keep what is due; the last state, and its summary."""
    summary, (course, log, saved, _) = None, keeper
    if course.due(start, course.evaluate_every) and not checkpoints.scored(saved, start):
        summary = keeper.keep(start, state)  # it was stopped while it was scored
    for number, batch in enumerate(batches, start + 1):
        state, metrics = step(state, batch)
        log.add(number, metrics, saved.latest_step())
        summary = keeper.keep(number, state)
        if preemption.reached(number) and number < course.steps:
            keeper.stop(number, state)
    return state, summary


def scorer(method: Method, config: ConfigDict, dataset: Dataset) -> Callable:
    """score(variables) -> summary of the config's evaluation."""
    mesh = parallel.mesh()
    embedded = embedding.embedder(method, mesh)
    score = partial(scoring.score, embedded, dataset=dataset, mesh=mesh, **config.evaluate)
    return lambda variables: score(parallel.replicate(variables, mesh))


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
