"""Every backbone as student and as teacher of every method, through the methods' smoke configs.

Every fourth pair is trained a step, cut short: every backbone and every method at least once. The
others are traced whole.
"""

import itertools
import pkgutil
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_trees import random_init

from kd_jax import loop, methods, networks, parallel, recipes, trees
from kd_jax.views import Batch

METHODS = [module.name for module in pkgutil.iter_modules(methods.__path__)]
# One of each class stands for all its names, cut to a block a stage: they compile in seconds.
CUT = {
    'resnet50bam': {'blocks': (1, 1, 1, 1)},
    'osnet_x1_0': {'blocks': 1},
    'densenet121': {'blocks': (1, 1, 1, 1)},
    'mobilenet_v2': {'table': networks.BACKBONES['mobilenet_v2'][1]['table'][::2]},
}

PAIRS = list(itertools.product(METHODS, CUT))
TRAINED = [pair for pair in PAIRS if sum(map(list.index, (METHODS, list(CUT)), pair)) % 4 == 0]
TRACED = [pair for pair in PAIRS if pair not in TRAINED]


def config_of(method, name):
    """The smoke config of a method, with a backbone for its student and two of its teachers."""
    config = import_module(f'configs.{method}_carousel').get_config('smoke')
    for one in list(config.teachers)[2:]:
        del config.teachers[one]
    for each in (config, *config.teachers.values()):
        each.network.name = name
    return config


def method_of(config, change):
    """The method of a config with its networks, and those networks, changed."""
    student, *rest = (
        recipes.network(each, classes=4).clone(**change)
        for each in (config, *config.teachers.values())
    )
    teachers = dict(zip(config.teachers, rest))
    return recipes.method(config, student, teachers), teachers


def batch_of(config):
    """Noise, four identities."""
    size = config.data.height, config.data.width, config.data.channels
    sets, shots = 4, config.sampling.shots
    images = np.random.default_rng(0).normal(size=(sets, shots, *size)).astype(np.float32)
    numbers = np.zeros((sets, shots), np.int32)
    return Batch(images, np.arange(sets, dtype=np.int32), numbers, numbers)


def started(config, change):
    """Method, teachers' networks, fresh state and the train step on one device."""
    method, teachers = method_of(config, change)
    tx = optax.sgd(0.1)
    mesh = parallel.mesh(jax.devices()[:1])
    step = loop.make_train_step(method, lambda b: (b, b), tx, mesh, seed=0, steps=2)
    return method, teachers, tx, step


@pytest.mark.parametrize(
    ('method', 'name', 'dtype'),
    [(*pair, 'float32') for pair in TRAINED] + [('umts', 'resnet50bam', 'bfloat16')],
)
def test_a_step_trains_every_part_of_a_backbone(method, name, dtype):
    config = config_of(method, name)
    config.network.dtype = dtype
    made, teachers, tx, step = started(config, CUT[name])
    variables = random_init(made.init, recipes.blank_batch(config))
    blanks = {key: recipes.blank_input(teacher) for key, teacher in config.teachers.items()}
    taught = {key: random_init(net.init, blanks[key], seed=1) for key, net in teachers.items()}
    state = loop.TrainState(jnp.zeros((), jnp.int32), variables, tx.init(variables['params']))
    after, metrics = step(jax.tree.map(jnp.array, state), taught, batch_of(config))
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    for kind in ('params', 'batch_stats'):
        old, new = (trees.named(v[kind]['student']) for v in (variables, after.variables))
        moved = {_module(key) for key in old if (old[key] != new[key]).any()}
        assert moved == {_module(key) for key in old}


def _module(path):
    """What a variable belongs to: a block, a stem, the neck."""
    return path.split('/')[0]


@pytest.mark.parametrize(('method', 'name'), TRACED)
def test_a_step_of_a_whole_backbone_is_traced(method, name):
    """Shapes of what it returns are those of what it took; as for a GPU, no map is transposed.

    But for the parts of images and maps that Factorized Distillation samples.
    """
    config = config_of(method, name)
    config.network.conv = 'xla'
    made, teachers, tx, step = started(config, {})
    blank = recipes.blank_batch(config)
    state = jax.eval_shape(lambda: loop.create_state(made, tx, blank, seed=0))
    key = jax.random.key(1)
    taught = {
        k: jax.eval_shape(n.init, key, recipes.blank_input(config.teachers[k]))
        for k, n in teachers.items()
    }
    traced = step.trace(state, taught, batch_of(config))
    after, metrics = traced.out_info
    lowered = traced.lower().as_text()
    transposed = [line for line in lowered.splitlines() if 'stablehlo.transpose' in line]
    maps = [line for line in transposed if line.count('x', line.rindex('tensor<')) == 4]
    assert method == 'factorized' or not maps
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(state)]
    assert metrics['loss'].dtype == np.float32
