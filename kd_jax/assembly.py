"""All that a config describes, put together and checked before anything is compiled or written."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from kd_jax import lineage, optimizers, recipes, scoring
from kd_jax.data import Dataset, sampling
from kd_jax.methods import Method
from kd_jax.trees import Tree


class Parts(NamedTuple):
    """What the loop needs of a config."""

    method: Method
    augment: Callable
    tx: optax.GradientTransformation
    plan: Callable[[int], sampling.Plan]
    course: recipes.Course
    begin: Callable[[Tree], Tree]  # fresh variables with the weights that they start from


def assemble(config: ConfigDict, dataset: Dataset, teachers: dict[str, lineage.Teacher]) -> Parts:
    """Put every subtree of a config into the function it belongs to.

    Raises TypeError for a misspelt key, ValueError for a value that can not be.
    """
    recipes.check_keys(config)
    scoring.check(config, dataset, **config.evaluate)
    networks = {name: t.network(dataset.classes) for name, t in teachers.items()}
    method = recipes.method(config, recipes.network(config, dataset.classes), networks)
    plan, course = recipes.plan(config, dataset), recipes.course(config, dataset)
    tx = optimizers.create(
        epochs=course.epochs,
        steps_per_epoch=course.steps_per_epoch,
        frozen=method.frozen,
        **lineage.optimizer(config),
    )
    begin = partial(recipes.started, config, dataset.classes)
    return Parts(method, recipes.augmentation(config), tx, plan, course, begin)


def ready(
    config: ConfigDict, workdir: Path, dataset: Dataset, teachers: dict[str, lineage.Teacher]
) -> Parts:
    """The parts of a config, once those of all teachers that will be trained are put together.

    Raises as `assemble` does, ValueError where weights, data or teachers do not fit, and RunError
    where a given teacher is not finished.
    """
    parts = assemble(config, dataset, teachers)
    for name, teacher in teachers.items():
        lineage.check_data(name, config, teacher, dataset.fingerprint)
        if teacher.given and not (workdir / 'result.json').exists():
            lineage.check_finished(name, teacher)
        if not teacher.given:
            theirs = lineage.teachers(teacher.config, teacher.run)
            ready(teacher.config, teacher.run, dataset, theirs)
    if not (workdir / 'checkpoints').exists():  # one that goes on has started
        recipes.check_weights(config, dataset.classes)
        if teachers:
            rehearse(config, parts.method, teachers, dataset.classes)
    return parts


def rehearse(
    config: ConfigDict, method: Method, teachers: dict[str, lineage.Teacher], classes: int
) -> None:
    """Initialise and start a method by shapes alone, as its teachers may yet have to be trained."""
    key, batch = jax.random.key(0), recipes.blank_batch(config)
    variables = jax.eval_shape(method.init, key, batch)
    if method.start:
        given = {
            name: jax.eval_shape(one.network(classes).init, key, recipes.blank_input(one.config))
            for name, one in teachers.items()
        }
        method.start(variables, given)
