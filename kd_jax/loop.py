"""The train step and the loop around it: one of each for every method."""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kd_jax import (
    assembly,
    checkpoints,
    embedding,
    keeping,
    parallel,
    preemption,
    recipes,
    scoring,
)
from kd_jax.data import Dataset, pipeline
from kd_jax.keeping import Keeper, TrainState
from kd_jax.logs import Log
from kd_jax.methods import Method
from kd_jax.trees import Tree
from kd_jax.views import Batch


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
    preemption.check()
    method, augment, tx, plan, course, begin = parts
    mesh = parallel.mesh()
    step = make_train_step(method, augment, tx, mesh, seed=config.seed, steps=course.steps)
    score = scorer(method, config, dataset)
    teachers = parallel.replicate(teachers, mesh)
    state = create_state(method, tx, recipes.blank_batch(config), config.seed)
    with (
        checkpoints.manager(workdir, regular=course.saves) as saved,
        contextlib.ExitStack() as opened,
        preemption.deferred(),
    ):
        state, start, untold = keeping.restored(saved, state, begin, method, teachers, mesh)
        unscored = course.scores(start) and not checkpoints.scored(saved, start)
        log = Log(workdir, start, course.steps, plan(0).rows.size, evaluated=not unscored)
        opened.callback(log.close)
        log.resume(untold)
        keeper = Keeper(course, log, saved, score)
        summary = keeper.keep(start, state) if unscored else None  # it was stopped meanwhile
        feed = pipeline.batches(dataset.train, plan, config.data.feed, start, course.steps, mesh)
        taken = lambda state, batch: step(state, teachers, batch)  # noqa: E731
        state, last = train(keeper, taken, state, start, feed)
        with log.clock('checkpoints'):
            checkpoints.finish(saved)
        log.summary()
    return last or summary or score(state.variables), state


def train(
    keeper: Keeper, step: Callable, state: TrainState, start: int, batches: Iterable[Batch]
) -> tuple[TrainState, dict[str, float] | None]:
    """Take a step with every batch, and keep what is due; the last state, and its summary."""
    summary, (course, log, saved, _) = None, keeper
    for number, batch in enumerate(log.clock.each('waiting for images', batches), start + 1):
        state, metrics = step(state, batch)
        log.add(number, metrics, saved.latest_step())
        summary = keeper.keep(number, state)
        if preemption.reached() and number < course.steps:
            keeper.stop(number, state)
    return state, summary


def scorer(method: Method, config: ConfigDict, dataset: Dataset) -> Callable:
    """score(variables) -> summary of the config's evaluation."""
    mesh = parallel.mesh()
    embedded = embedding.embedder(method, mesh)
    score = partial(scoring.score, embedded, dataset=dataset, mesh=mesh, **config.evaluate)
    return lambda variables: score(parallel.replicate(variables, mesh))
