"""Partial teachers together: how their concatenation ranks, what it costs, and training at once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import methods_cost, rows, turns
from experiments.turns import Contender
from kd_jax import (
    assembly,
    checkpoints,
    embedding,
    evaluate,
    lineage,
    losses,
    parallel,
    scoring,
    stacked,
    train,
    trees,
)
from kd_jax.data import Dataset
from kd_jax.methods import Method
from kd_jax.trees import Tree

IMAGES = 64  # embedded at once to be timed
ROUNDS, SECONDS = 5, 2.0


def ranked(
    seeds: list[int], names: tuple[str, ...], workdir: Path, dataset: Dataset
) -> dict[int, dict]:
    """The summary of the concatenation of teachers' vectors, of each seed."""
    return {seed: of_seed(names, seed, workdir, dataset) for seed in seeds}


def of_seed(names: tuple[str, ...], seed: int, workdir: Path, dataset: Dataset) -> dict:
    """The summary of one seed, by the evaluation of the first teacher's config."""
    together, variables, config = opened(names, seed, workdir)
    mesh = parallel.mesh()
    embedded = embedding.embedder(together, mesh)
    variables = parallel.replicate(variables, mesh)
    return scoring.score(embedded, variables, dataset, mesh, **config.evaluate)


def concatenated(
    methods: dict[str, Method], variables: dict[str, Tree], images: jax.Array
) -> jax.Array:
    """The vectors of several methods, each divided by its length, one behind another."""
    vectors = [losses.direction(methods[n].embed(variables[n], images)) for n in methods]
    return jnp.concatenate(vectors, axis=1)


def opened(names: tuple[str, ...], seed: int, workdir: Path) -> tuple:
    """Several rows' networks as one method, their variables and the first one's config."""
    restored = {n: checkpoints.restore_network(rows.run_of(n, seed, workdir)) for n in names}
    methods = {name: evaluate.method_of(one) for name, one in restored.items()}
    variables = {name: trees.join(student=one.variables) for name, one in restored.items()}
    together = methods[names[0]]._replace(embed=partial(concatenated, methods))
    return together, variables, restored[names[0]].config


def costs(
    found: rows.Table, names: tuple[str, ...], student: str, workdir: Path, config: ConfigDict
) -> str:
    """Parameters, and the time to embed images in turns, of the student and of all teachers."""
    seed = next(iter(found[student]))
    several = {'student': (student,), 'all teachers': names}
    shape = (IMAGES, 1, config.data.height, config.data.width, config.data.channels)
    calls, sizes = [], {}
    for what, of_rows in several.items():
        together, variables, _ = opened(of_rows, seed, workdir)
        students = (trees.part(one, 'student') for one in variables.values())
        sizes[what] = sum(map(methods_cost.parameters, students))
        calls.append(Contender(what, timed(together.embed, variables, jnp.zeros(shape))))
    times = turns.take(calls, ROUNDS, SECONDS)
    slower = turns.ratio(times, 'student', 'all teachers')
    lines = ['| | parameters | time to embed |', '|---|---|---|']
    lines.append(f'| student | {sizes["student"]:,} | 1 |')
    lines.append(
        f'| all teachers | {sizes["all teachers"]:,} | '
        f'{slower[0]:.1f} ({slower[1]:.1f}–{slower[2]:.1f}) |'
    )
    return '\n'.join(lines)


def timed(function: Callable, *arguments) -> Callable:
    """A call of the compiled function that waits for its end."""
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


def at_once(config: ConfigDict, dataset: Dataset) -> str:
    """How long a step of all teachers takes at once, in the sum of their steps by themselves."""
    config = config.copy_and_resolve_references()
    config.stacked = True
    members = stacked.members(config, lineage.teachers(config, Path()))
    own = {name: assembly.assemble(one.config, dataset, {}) for name, one in members.items()}
    first = next(iter(members.values())).config
    parts = train.joint_parts(members, own, dataset.classes)
    joint = methods_cost.of_parts('joint', parts, first, dataset, {})
    one = methods_cost.contender('one', first, dataset)
    times = turns.take([joint, one], ROUNDS, SECONDS)
    ratio = turns.ratio(times, 'one', 'joint')
    median, least, most = (value / len(members) for value in ratio)
    return (
        f'A step of {len(members)} teachers at once takes {median:.2f} ({least:.2f}–{most:.2f}) of '
        'their steps one after another.'
    )
