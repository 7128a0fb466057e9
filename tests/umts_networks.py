"""UMTS on networks small enough for tests: a student, another T-net, and a batch of sets."""

import jax
import jax.numpy as jnp
import numpy as np
from network_options import create
from random_trees import random_init

from kd_jax import optimizers
from kd_jax.methods import umts
from kd_jax.views import Batch

SETS, SHOTS = 4, 2
LABELS = [3, 1, 3, 0]
OBJECTIVE = {'label_smoothing': 0.1, 'margin': 0.3}
OPTIONS = {'stages': (1, 2, 3, 4, 5), 'weights': (0.1, 0.2, 0.3, 0.4, 0.5)}
OPTIONS |= {'reductions': (1, 2, 2, 4, 4), 'uncertainty': True, 'joint': False}
OPTIONS |= {'teacher_reads': 'stacked', 'teacher_head': 'trained', 'head_bn_affine': False}
OPTIONS |= {'feature': 'embedding', **OBJECTIVE}
ADAM = {'name': 'adam', 'learning_rate': 5e-3, 'weight_decay': 5e-4, 'schedule': 'constant'}
ADAM |= {'warmup': 'linear', 'warmup_epochs': 0.0, 'warmup_start': 0.0}
ADAM |= {'boundaries': (), 'factor': 1.0, 'final': 1.0, 'epochs': 1.0, 'steps_per_epoch': 1}
REID = ('identity', 'triplet')
T_REID = ('teacher_identity', 'teacher_triplet')
UKD = tuple(f'stage{b}' for b in umts.STAGES)


def t_net():
    """Another neck and width, so that the two can not be mistaken for each other."""
    return create(neck='fc_bn_relu')


def make(**changes):
    """UMTS with `OPTIONS` but for the changes."""
    options = OPTIONS | changes
    teachers = {} if options['joint'] else {'teacher': t_net()}
    return umts.make(create(axis_name=options.get('axis_name')), teachers, **options)


def teacher_variables(channels):
    """Of a T-net that reads so many."""
    return random_init(t_net().init, jnp.zeros((1, 16, 16, channels)), seed=1)


def optimizer(**changes):
    """Adam, but for the changes."""
    return optimizers.create(**(ADAM | changes))


def batch():
    """Sets of noise, of which two show one identity."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(SETS, SHOTS, 16, 16, 3)), jnp.float32)
    shots = jnp.zeros((SETS, SHOTS), jnp.uint32)
    return Batch(images, jnp.array(LABELS), shots.astype(int), shots)


def singles(images):
    return images.reshape(-1, *images.shape[2:])


def stacked(images):
    return jnp.concatenate([images[:, k] for k in range(SHOTS)], axis=-1)


def near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def nonzero(tree):
    return any(leaf.any() for leaf in jax.tree.leaves(tree))
