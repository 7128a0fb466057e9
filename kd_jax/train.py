"""A whole run: the teachers of a config, one after another or all at once, then its student."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from kd_jax import assembly, checkpoints, data, lineage, loop, recipes, runs, stacked
from kd_jax.data import Dataset


def run(config: ConfigDict, workdir: str | Path, dataset: Dataset | None = None) -> dict[str, Any]:
    """Train a config in a run directory, its teachers first; go on where it stopped.

    Returns the result: a summary of every network, teachers and student. Raises RunError for a
    directory of another config, TypeError for a misspelt key, ValueError for what can not be,
    such as weights of another network, FloatingPointError where a loss term is not finite.
    """
    workdir = Path(workdir)
    teachers = lineage.teachers(config, workdir)
    together = stacked.members(config, teachers)
    dataset = dataset or data.load(**config.data)
    parts = assembly.ready(config, workdir, dataset, teachers)
    runs.start(workdir, config, facts(dataset))
    finished = runs.result_of(workdir)
    if finished is not None:
        logging.info('%s is finished', workdir)
        return finished
    if together:
        train_at_once(together, workdir / 'stacked', dataset)
    results, variables = {}, {}
    for name, teacher in teachers.items():
        results[name] = taught(name, teacher, dataset)
        variables[name] = checkpoints.restore_network(teacher.run).variables
    logging.info('training %s on\n%s', workdir, data.describe(dataset))
    results['student'], _ = loop.fit(config, workdir, dataset, parts, variables)
    runs.write_json(workdir / 'result.json', results)
    return results


def taught(name: str, teacher: lineage.Teacher, dataset: Dataset) -> dict[str, float]:
    """The summary of a teacher: of the run that was named, or of one trained now."""
    if not teacher.given:
        return run(teacher.config, teacher.run, dataset)['student']
    result = runs.result_of(teacher.run)
    if result is None:
        raise runs.RunError(f'teacher {name}: {teacher.run} is not finished, train it to its end')
    return result['student']


def facts(dataset: Dataset) -> dict[str, Any]:
    """What a run is locked to beside its config."""
    return {'classes': dataset.classes, 'data': dataset.fingerprint}


def train_at_once(members: dict[str, lineage.Teacher], workdir: Path, dataset: Dataset) -> None:
    """Train teachers in one program, in a directory of its own, and leave each as its own run.

    `workdir` has their joint checkpoints and metrics; it goes on where it stopped.
    """
    if all(runs.result_of(one.run) for one in members.values()):
        return
    configs = {name: one.config for name, one in members.items()}
    runs.start(workdir, ConfigDict({'stacked': configs}), facts(dataset))
    logging.info('training %s at once in %s', ', '.join(members), workdir)
    own = {name: assembly.assemble(one, dataset, {}) for name, one in configs.items()}
    config, parts = next(iter(configs.values())), joint_parts(members, own, dataset.classes)
    _, state = loop.fit(config, workdir, dataset, parts, {})
    state = jax.device_get(state)
    for number, (name, one) in enumerate(members.items()):
        if runs.result_of(one.run) is None:
            alone = stacked.member(state, number)
            logging.info('scoring %s', name)
            summary = loop.scorer(own[name].method, one.config, dataset)(alone.variables)
            runs.start(one.run, one.config, facts(dataset))
            keep(one.run, alone, summary, stacked.metrics(runs.metrics_of(workdir), name))


def joint_parts(
    members: dict[str, lineage.Teacher], own: dict[str, assembly.Parts], classes: int
) -> assembly.Parts:
    """What the loop needs to train all members at once, from the parts of each."""
    networks = {name: one.network(classes) for name, one in members.items()}
    first = next(iter(members))
    base = recipes.method(members[first].config, stacked.bare(networks[first]), {})
    method = stacked.method(base, networks)
    begin = partial(stacked.each, own[first].begin, len(members))
    return own[first]._replace(method=method, begin=begin)


def keep(run: Path, state: loop.TrainState, summary: dict, metrics: list[dict]) -> None:
    """Leave a run of what was trained at once, with its last evaluation and checkpoint."""
    step = int(state.step)
    runs.rewind_metrics(run, 0)
    for row in [*metrics, {'step': step, 'evaluation': summary}]:
        runs.append_metrics(run, row)
    with checkpoints.manager(run) as saved:
        if saved.latest_step() is None:
            checkpoints.save(saved, step, loop.items(state), summary[summary['quoted']])
    runs.write_json(run / 'result.json', {'student': summary})
