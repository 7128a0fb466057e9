"""How every branch of a KSL run ranks, and the mean of their vectors, of which only one is kept."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments import rows
from kd_jax import (
    assembly,
    checkpoints,
    embedding,
    keeping,
    loop,
    losses,
    parallel,
    recipes,
    runs,
    scoring,
    trees,
)
from kd_jax.data import Dataset
from kd_jax.methods import Method, ksl
from kd_jax.trees import Tree

Ranked = dict[str, dict[str, list[float]]]  # row -> what is ranked -> mAP of each seed


def ranked(found: rows.Table, workdir: Path, dataset: Dataset) -> Ranked:
    """The rows of several branches, each branch apart and then their mean."""
    by_row: Ranked = {}
    for name, seeds in found.items():
        for seed in seeds:
            path = rows.run_of(name, seed, workdir)
            if runs.config_of(path).method.name == 'ksl':
                for what, precision in of_run(path, dataset).items():
                    by_row.setdefault(name, {}).setdefault(what, []).append(precision)
    return by_row


def of_run(path: Path, dataset: Dataset) -> dict[str, float]:
    """The mAP of every branch of a run and of the mean of their vectors of length 1."""
    config, mesh = runs.config_of(path), parallel.mesh()
    parts = assembly.assemble(config, dataset, {})
    variables = parallel.replicate(whole(path, parts), mesh)
    names = [name for name in variables['params'] if name.startswith('branch')]
    students = {'branch 0': trees.join(student=trees.part(variables, 'student'))}
    students |= {f'branch {n.removeprefix("branch")}': ksl.branch(variables, n) for n in names}
    found, embedded = {}, embedding.embedder(parts.method, mesh)
    for what, student in students.items():
        found[what] = precision(embedded, student, dataset, config)
    mean = parts.method._replace(embed=lambda given, images: mean_of(parts.method, given, images))
    return found | {'mean': precision(embedding.embedder(mean, mesh), students, dataset, config)}


def mean_of(method: Method, students: dict[str, Tree], images: jax.Array) -> jax.Array:
    """The mean over students of their vectors, each divided by its length."""
    vectors = [losses.direction(method.embed(one, images)) for one in students.values()]
    return jnp.stack(vectors).mean(axis=0)


def precision(embedded, variables, dataset: Dataset, config) -> float:
    """The average precision of the first ranking of a config."""
    found = scoring.score(embedded, variables, dataset, parallel.mesh(), **config.evaluate)
    return rows.quoted(found)


def whole(path: Path, parts: assembly.Parts) -> Tree:
    """All variables of a run's last checkpoint, those beside the student too."""
    config = runs.config_of(path)
    blank = loop.create_state(parts.method, parts.tx, recipes.blank_batch(config), config.seed)
    with checkpoints.manager(path, create=False) as saved:
        found = checkpoints.restore(saved, saved.latest_step(), keeping.items(blank))
    return keeping.from_items(found).variables


def text(found: Ranked) -> str:
    """A Markdown table: mAP, mean ± std over seeds, of branch 0, of the best other, of the mean."""
    lines = ['| mAP | branch 0 | the other branches | mean of all |', '|---|---|---|---|']
    for name, of_row in found.items():
        others = [rows.spread(v) for k, v in of_row.items() if k not in ('branch 0', 'mean')]
        cells = (
            name,
            rows.spread(of_row['branch 0']),
            ', '.join(others),
            rows.spread(of_row['mean']),
        )
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
