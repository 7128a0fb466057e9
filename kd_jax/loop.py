"""The train step and the loop around it: one of each for every method."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kd_jax import assembly, checkpoints, embedding, parallel, recipes, scoring, trees
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
        state = restored(saved, state, begin, method, teachers)
        state = parallel.replicate(state, mesh)
        start, summary = saved.latest_step() or 0, None
        log = Log(workdir, start, course.steps, plan(0).rows.size)
        opened.callback(log.close)
        feed = pipeline.batches(dataset.train, plan, config.data.feed, start, course.steps, mesh)
        for number, batch in enumerate(feed, start + 1):
            state, metrics = step(state, teachers, batch)
            log.add(number, metrics)
            scoring = course.due(number, course.evaluate_every)
            saving = scoring or course.due(number, course.checkpoint_every)
            if saving or number % course.log_every == 0:
                log.flush(saved.latest_step())
            if scoring:
                with _kept(saved, number, state):
                    summary = score(state.variables)
                log.evaluation(number, summary)
            if saving:
                accuracy = summary[summary['quoted']] if scoring else None
                checkpoints.save(saved, number, items(state), accuracy)
                log.restart_clock()
    return summary or score(state.variables), state


def scorer(method: Method, config: ConfigDict, dataset: Dataset) -> Callable:
    """score(variables) -> summary of the config's evaluation."""
    mesh = parallel.mesh()
    embedded = embedding.embedder(method, mesh)
    return partial(scoring.score, embedded, dataset=dataset, mesh=mesh, **config.evaluate)


@contextlib.contextmanager
def _kept(saved: Any, number: int, state: TrainState):
    """Save a step without its mAP if it cannot be scored, as by an image that is damaged."""
    try:
        yield
    except Exception:
        checkpoints.save(saved, number, items(state), None)
        raise


def restored(
    saved: Any, state: TrainState, begin: Callable, method: Method, teachers: dict[str, Tree]
) -> TrainState:
    """The state of the last checkpoint, or the given one with the weights that it starts from."""
    step = saved.latest_step()
    if step is None:
        variables = begin(state.variables)
        if method.start:
            # Copies on the host: a student that is donated must share no buffer with its teacher.
            given = jax.tree.map(np.array, jax.device_get((variables, teachers)))
            variables = method.start(*given)
        return state._replace(variables=variables)
    logging.info('going on from the checkpoint of step %d', step)
    return from_items(checkpoints.restore(saved, step, items(state)))
