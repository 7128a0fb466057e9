"""A whole run: the teachers of a config, one after another or all at once, then its student."""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from kd_jax import (
    assembly,
    checkpoints,
    damage,
    data,
    hosts,
    keeping,
    lineage,
    locking,
    loop,
    recipes,
    runs,
    stacked,
)
from kd_jax.data import Dataset
from kd_jax.trees import Tree


def run(config: ConfigDict, workdir: str | Path, dataset: Dataset | None = None) -> dict[str, Any]:
    """Train a config in a run directory, its teachers first; go on where it stopped.

    Returns the result: a summary of every network, teachers and student. Raises RunError for a
    directory of another config, TypeError for a misspelt key, ValueError for what can not be,
    such as weights of another network, FloatingPointError where a loss term is not finite.
    """
    workdir = Path(workdir)
    with hosts.together():
        teachers = lineage.teachers(config, workdir)
        together = stacked.members(config, teachers)
    dataset = dataset or hosts.in_turn(lambda: data.load(**config.data))
    with hosts.together():
        parts = assembly.ready(config, workdir, dataset, teachers)
    start(workdir, config, dataset)
    finished = hosts.of_first(partial(runs.result_of, workdir))
    if finished is not None:
        logging.info('%s is finished', workdir)
        return finished
    with alone(workdir, config, dataset):
        results, variables = taught(teachers, together, workdir, dataset)
        logging.info('training %s on\n%s', workdir, data.describe(dataset))
        results['student'], _ = loop.fit(config, workdir, dataset, parts, variables)
        runs.write_json(workdir / 'result.json', results)
    return results


def taught(
    teachers: dict[str, lineage.Teacher],
    together: dict[str, lineage.Teacher],
    workdir: Path,
    dataset: Dataset,
) -> tuple[dict[str, dict], dict[str, Tree]]:
    """The summaries and variables of all teachers, once those that are not given are trained."""
    for teacher in teachers.values():
        if not teacher.given:
            reopen(teacher.run)
    if together:
        train_at_once(together, workdir / 'stacked', dataset)
    results = {name: summary(one, dataset) for name, one in teachers.items()}
    variables = {
        name: checkpoints.restore_network(one.run).variables for name, one in teachers.items()
    }
    return results, variables


def summary(teacher: lineage.Teacher, dataset: Dataset) -> dict[str, float]:
    """That of the run that was named, or of one trained now."""
    if not teacher.given:
        return run(teacher.config, teacher.run, dataset)['student']
    return hosts.of_first(partial(runs.result_of, teacher.run))['student']


def reopen(run: Path) -> None:
    """Have a finished teacher train its end again, whose last checkpoint is damaged."""
    if unfinished(run):
        return
    own = damaged(run)  # which all processes ask together; what the first says counts
    found = hosts.of_first(lambda: own)
    if found:
        hosts.of_first((run / 'result.json').unlink)  # first: a kill behind it loses nothing
        damage.put_aside(Path(found[0]), damage.Damaged(*found))
        logging.warning('%s goes on from the checkpoint before', run)


def damaged(run: Path) -> tuple[str, str] | None:
    """The last checkpoint of a run and its cause, if it can not be read."""
    try:
        checkpoints.restore_network(run)
    except damage.Damaged as error:
        return str(error.place), error.cause
    return None


def start(run: Path, config: ConfigDict, dataset: Dataset) -> None:
    """Lock a run to its config, classes and data; RunError where a process has other ones."""
    facts = {'classes': dataset.classes, 'data': dataset.fingerprint}
    given = {'config': json.loads(config.to_json()), **facts}
    theirs = hosts.of_first(lambda: given)
    with hosts.together():
        runs.check_alike(given, theirs)
    hosts.of_first(lambda: runs.start(run, config, facts))
    if hosts.are_several():
        written = hosts.of_first((run / 'config.json').read_text)
        with hosts.together():
            runs.check_seen(run, written)


@contextlib.contextmanager
def alone(run: Path, config: ConfigDict, dataset: Dataset) -> Iterator[None]:
    """Hold the directory of a run that was started; RunError where others train there."""
    with contextlib.ExitStack() as held:
        hosts.of_first(lambda: held.enter_context(locking.held(run)))
        start(run, config, dataset)  # who held it may have just begun another
        yield


def unfinished(run: Path) -> bool:
    """Whether a run has no result."""
    return hosts.of_first(lambda: runs.result_of(run) is None)


def train_at_once(members: dict[str, lineage.Teacher], workdir: Path, dataset: Dataset) -> None:
    """Train teachers in one program, in a directory of its own, and leave each as its own run.

    `workdir` has their joint checkpoints and metrics; it goes on where it stopped.
    """
    if not any([unfinished(one.run) for one in members.values()]):
        return
    configs = {name: one.config for name, one in members.items()}
    start(workdir, ConfigDict({'stacked': configs}), dataset)
    logging.info('training %s at once in %s', ', '.join(members), workdir)
    own = {name: assembly.assemble(one, dataset, {}) for name, one in configs.items()}
    config, parts = next(iter(configs.values())), joint_parts(members, own, dataset.classes)
    _, state = loop.fit(config, workdir, dataset, parts, {})
    state = jax.device_get(state)
    for number, (name, one) in enumerate(members.items()):
        if unfinished(one.run):
            apart = stacked.member(state, number)
            logging.info('scoring %s', name)
            found = loop.scorer(own[name].method, one.config, dataset)(apart.variables)
            start(one.run, one.config, dataset)
            with alone(one.run, one.config, dataset):
                keep(one.run, apart, found, stacked.metrics(runs.metrics_of(workdir), name))


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


def keep(run: Path, state: keeping.TrainState, summary: dict, metrics: list[dict]) -> None:
    """Leave a run of what was trained at once, with its last evaluation and checkpoint."""
    step = int(state.step)
    runs.rewind_metrics(run, 0)
    for row in [*metrics, {'step': step, 'evaluation': summary}]:
        runs.append_metrics(run, row)
    with checkpoints.manager(run) as saved:
        if saved.latest_step() is None:
            checkpoints.save(saved, step, keeping.items(state), summary[summary['quoted']])
    runs.write_json(run / 'result.json', {'student': summary})
