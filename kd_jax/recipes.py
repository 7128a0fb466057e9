"""From a config to the parts it describes: each subtree goes to exactly one function."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from kd_jax import methods, networks, parallel, trees, views
from kd_jax.data import Dataset, augment, sampling
from kd_jax.data.records import labels
from kd_jax.methods import Method, supervised
from kd_jax.networks import pretrained
from kd_jax.trees import Tree
from kd_jax.views import Batch

KEYS = {
    'seed',
    'data',
    'sampling',
    'augment',
    'network',
    'method',
    'optimizer',
    'train',
    'evaluate',
    'teachers',
}

EPOCH_OF = 'images', 'identities'


class Course(NamedTuple):
    """How long a run trains and how often it reports, in epochs of `steps_per_epoch` steps.

    `steps_per_epoch=0` derives it from what an epoch shows once: with `epoch_of='images'` as many
    examples as there are train images, an example being what a network reads, an image or a set of
    them; with 'identities' every identity (VKD). A log row is the mean of `log_every` steps;
    `evaluate_every=0` evaluates only at the end.
    """

    epochs: float
    steps_per_epoch: int
    epoch_of: str
    log_every: int
    evaluate_every: float
    checkpoint_every: float

    def of(self, known: int, shown: int) -> 'Course':
        """The same course with `steps_per_epoch` filled in, where a step shows `shown` of all."""
        derived = max(1, known // shown)
        return self._replace(steps_per_epoch=self.steps_per_epoch or derived)

    @property
    def steps(self) -> int:
        return max(1, round(self.epochs * self.steps_per_epoch))

    def scores(self, step: int) -> bool:
        """Whether the network is evaluated after `step`."""
        return self.due(step, self.evaluate_every)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        return self.scores(step) or self.due(step, self.checkpoint_every)

    def due(self, step: int, every: float) -> bool:
        """Whether something done every so many epochs is due after `step`."""
        steps = max(1, round(every * self.steps_per_epoch))
        return step == self.steps or (every > 0 and step % steps == 0)


def network(config: ConfigDict, classes: int) -> nn.Module:
    """The student of a config; `network.pretrained` says where its weights start (`started`)."""
    options = {k: v for k, v in config.network.items() if k != 'pretrained'}
    return networks.create(classes=classes, axis_name=parallel.AXIS, **options)


def started(config: ConfigDict, classes: int, variables: Tree) -> Tree:
    """Fresh variables of a run, its networks with the weights of `network.pretrained` if any."""
    path = config.network.pretrained
    if not path:
        return variables
    student = network(config, classes)
    parts = {name: trees.part(variables, name) for name in variables['params']}
    for name, tree in parts.items():
        if student.FIRST in tree['params']:  # a network, the student's or one like it; no heads
            parts[name] = pretrained.load(student, tree, path)
    for name, tree in parts.items():
        if 'neck' in tree['params'] and student.FIRST not in tree['params']:  # a branch (KSL)
            parts[name] = _with_stages(tree, parts['student'])
    return trees.join(**parts)


def _with_stages(branch: Tree, student: Tree) -> Tree:
    """A branch with the student's stages, copied: a buffer of the state is donated but once."""
    stages = tuple(f'{kind}/{name}/' for kind in branch for name in branch[kind] if name != 'neck')
    return trees.replaced(branch, jax.tree.map(jnp.copy, student), stages)


def check_weights(config: ConfigDict, classes: int) -> None:
    """Raise ValueError, before training, where `network.pretrained` does not fit."""
    if config.network.pretrained:
        made = network(config, classes)
        shapes = jax.eval_shape(made.init, jax.random.key(0), blank_input(config))
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        pretrained.load(made, blank, config.network.pretrained)


def method(config: ConfigDict, student: nn.Module, teachers: dict[str, nn.Module]) -> Method:
    """The method of a config, wired to a student and to teachers' networks."""
    options = {k: v for k, v in config.method.items() if k != 'name'}
    return methods.load(config.method.name)(student, teachers, axis_name=parallel.AXIS, **options)


def reads(config: ConfigDict) -> str:
    """How the student of a config reads a set: as its method says, or single images."""
    return config.method.reads if 'reads' in config.method else 'singles'


def blank_input(config: ConfigDict) -> jax.Array:
    """One input of the network that a config trains, to initialise with."""
    return views.read(blank_batch(config).images, reads(config))


def augmentation(config: ConfigDict) -> Callable:
    """The augmentation of a config; ValueError where it mirrors what mirrored is another."""
    if 'flips' in config.data and config.data.flips and config.augment.flip:
        raise ValueError(
            f'augment.flip={config.augment.flip} would show mirrored images under both of their '
            'identities, as data.flips makes them others: set augment.flip=0'
        )
    return augment.make(**config.augment)


def blank_batch(config: ConfigDict) -> Batch:
    """A batch of one set as the networks read it, to initialise with."""
    size = (config.data.height, config.data.width, config.data.channels)
    shots = (1, config.sampling.shots)
    return Batch(jnp.zeros((*shots, *size)), jnp.zeros(1, int), *[jnp.zeros(shots, int)] * 2)


def plan(config: ConfigDict, dataset: Dataset) -> Callable[[int], sampling.Plan]:
    """The batch of every step, after checking that it can be drawn."""
    records = dataset.train.records
    index = sampling.index(labels(records), records.cameras, records.tracklets)
    sampling.check(index, **config.sampling)
    parallel.check_share(config.sampling.identities * config.sampling.sets, parallel.mesh())
    for shortage in sampling.shortages(index, **config.sampling):
        logging.info(shortage)
    return partial(sampling.plan, index, config.seed, **config.sampling)


def course(config: ConfigDict, dataset: Dataset) -> Course:
    """How long a config trains on a data set.

    For images, of a data set that consists of tracklets, it is tracklets that are counted.
    """
    given = Course(**config.train)
    supervised.check_choice('train.epoch_of', given.epoch_of, EPOCH_OF)
    if given.epoch_of == 'identities':
        return given.of(dataset.classes, config.sampling.identities)
    sets = config.sampling.identities * config.sampling.sets
    examples = sets * (config.sampling.shots if reads(config) == 'singles' else 1)
    records = dataset.train.records
    known = len(np.unique(records.tracklets)) if dataset.tracklets else len(records.pids)
    return given.of(known, examples)


def check_keys(config: ConfigDict) -> None:
    """Raise TypeError for a missing or surplus part of a config, but for those of some methods."""
    wrong = set(config) - {'generations', 'stacked'} ^ KEYS
    if wrong:
        raise TypeError(f'config has parts {sorted(KEYS)}; missing or surplus: {sorted(wrong)}')
