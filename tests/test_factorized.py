"""Factorized Distillation on networks of other parts, widths and necks: its terms and targets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_options import create
from random_trees import random_init

from kd_jax import heads, trees, views
from kd_jax.heads import Factor
from kd_jax.methods import factorized, supervised
from kd_jax.views import Batch

SETS, SHOTS, SIZE = 4, 2, (16, 12)
OBJECTIVE = {'label_smoothing': 0.1, 'margin': 0.3}
OPTIONS = {'feature': 'embedding', 'map_weight': 0.7, 'feature_weight': 0.3, **OBJECTIVE}
PARTS = {'down': (0.5, 1.0), 'up': (0.0, 3 / 7), 'whole': (0.0, 1.0)}
MIMIC = {'identity_weight': 0.0, 'triplet_weight': 0.0}
METHODS = {
    'plain': {},
    'mimic': MIMIC,
    'no map': MIMIC | {'map_weight': 0.0},
    'no feature': MIMIC | {'feature_weight': 0.0},
}
TERMS = ('identity', 'triplet', 'map', 'feature')


def short(**options):
    """A network without its last two stages: it compiles in half the time."""
    return create(**options).clone(blocks=(1, 1, 0, 0))


STUDENT = short(neck='fc_bn', neck_width=12)
TEACHERS = {
    'whole': short(width=2),
    'up': short(width=8, neck='fc_bn', neck_width=6, part=PARTS['up'], part_size=(8, 12)),
    'down': short(part=PARTS['down'], part_size=(12, 8)),
}


def make(**changes):
    return factorized.make(STUDENT, TEACHERS, **OPTIONS | changes)


def factor(outputs, feature='embedding'):
    return Factor(outputs.stages[-1], getattr(outputs, feature))


def near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@functools.cache
def batch():
    images = np.random.default_rng(0).normal(size=(SETS, SHOTS, *SIZE, 3))
    with jax.ensure_compile_time_eval():  # whoever asks first may be in a trace
        zeros = jnp.zeros((SETS, SHOTS), jnp.uint32)
        labels = jnp.array([3, 1, 3, 0])
        return Batch(jnp.asarray(images, jnp.float32), labels, zeros.astype(int), zeros)


@functools.cache
def variables():
    return random_init(make().init, batch())


@functools.cache
def taught():
    """The teachers' variables."""
    blank = jnp.zeros((1, *SIZE, 3))
    return {name: random_init(network.init, blank) for name, network in TEACHERS.items()}


@jax.jit
def everything(variables, teachers, batch):
    """What the method finds, and what its networks and heads do, apart."""
    images, own = views.singles(batch.images), trees.part(variables, 'student')
    targets = make().teach(teachers, batch)
    outputs, changed = STUDENT.apply(own, images, True, mutable=['batch_stats'])
    factors, of_heads = heads.Factorisers(tuple(PARTS.items()), None).apply(
        trees.part(variables, 'heads'), factor(outputs), targets, True, mutable=['batch_stats']
    )
    return {
        'targets': targets,
        'losses': {
            name: make(**options).loss(variables, targets, batch, None, 0.0)
            for name, options in METHODS.items()
        },
        'student': outputs,
        'stats': {'student': changed['batch_stats'], 'heads': of_heads['batch_stats']},
        'factors': factors,
        'teachers': {name: net.apply(teachers[name], images) for name, net in TEACHERS.items()},
        'necks': make(feature='neck').teach(teachers, batch),
        'embedding': make().embed(trees.join(student=own), batch.images),
        'inference': STUDENT.apply(own, images).embedding,
    }


@functools.cache
def found():
    return everything(variables(), taught(), batch())


# What the loss is made of.


def unit(x):
    """A direction; none where a ReLU leaves nothing."""
    return np.float64(x) / np.sqrt(max(np.sum(np.float64(x) ** 2), 1e-12))


def apart_by_loops(target, prediction):
    """L_map and L_feat of one teacher: means over images and places, and over images."""
    target, prediction = jax.device_get((target, prediction))
    maps = [
        np.sum((unit(prediction.map[place]) - unit(target.map[place])) ** 2)
        for place in np.ndindex(target.map.shape[:3])
    ]
    pairs = zip(target.feature, prediction.feature)
    features = [np.sum((unit(ours) - unit(theirs)) ** 2) for theirs, ours in pairs]
    return np.mean(maps), np.mean(features)


def test_terms():
    """A-FD-5 from the outputs of the networks and of the factorisers."""
    ran = found()
    labels = jnp.repeat(batch().labels, SHOTS)
    objective = supervised.Objective(**OBJECTIVE)
    expected, _ = supervised.terms(ran['student'], labels, objective, None)
    apart = {
        name: apart_by_loops(factor(ran['teachers'][name]), ran['factors'][name])
        for name in TEACHERS
    }
    expected['map'] = 0.7 * np.mean([of_map for of_map, _ in apart.values()])
    expected['feature'] = 0.3 * np.mean([of_feature for _, of_feature in apart.values()])
    terms, told, _ = ran['losses']['plain']
    assert set(terms) == set(expected) == set(TERMS)
    for name, value in expected.items():
        near(terms[name], value)
    for name, (of_map, of_feature) in apart.items():
        assert 0.1 < min(of_map, of_feature) < max(of_map, of_feature) < 4
        near((told[f'map_{name}'], told[f'feature_{name}']), (of_map, of_feature))
    assert len(told) == 1 + 2 * len(TEACHERS)


def test_factors_are_linear():
    """A-FD-3, A-FD-4: rows of the map, a matrix and a BatchNorm; a matrix and a bias."""
    of_student = factor(found()['student'])
    for name, part in PARTS.items():
        params, target = variables()['params']['heads'][name], found()['targets'][name]
        axes = zip((part, (0.0, 1.0)), of_student.map.shape[1:3], target.map.shape[1:3])
        rows, columns = (views.sampling_matrix(*axis) for axis in axes)
        region = np.einsum('iy,jx,byxc->bijc', rows, columns, of_student.map)
        mapped = region @ params['map']['kernel']
        mean, var = mapped.mean((0, 1, 2)), mapped.var((0, 1, 2))
        norm, linear = params['map_bn'], params['feature']
        actual = found()['factors'][name]
        near(actual.map, (mapped - mean) / np.sqrt(var + 1e-5) * norm['scale'] + norm['bias'])
        near(actual.feature, of_student.feature @ linear['kernel'] + linear['bias'])


def test_weights_switch_terms_off():
    off = {'plain': (), 'mimic': TERMS[:2]}
    off |= {'no map': TERMS[:3], 'no feature': (*TERMS[:2], 'feature')}
    plain, diagnostics, _ = found()['losses']['plain']
    for method, (terms, told, _) in found()['losses'].items():
        assert {name for name, value in terms.items() if value == 0.0} == set(off[method])
        for name in set(TERMS) - set(off[method]):
            near(terms[name], plain[name])
        jax.tree.map(near, told, diagnostics)


def test_statistics_after_the_pass():
    for losses in found()['losses'].values():
        assert jax.tree.structure(losses.batch_stats) == jax.tree.structure(found()['stats'])
        jax.tree.map(near, losses.batch_stats, found()['stats'])


def test_embeddings_ask_only_the_student():
    """Without heads among the variables."""
    of_sets = found()['inference'].reshape(SETS, SHOTS, -1).mean(axis=1)
    near(found()['embedding'], of_sets)


# The teachers.


def test_targets_are_what_the_teachers_tell():
    assert list(found()['targets']) == sorted(TEACHERS)
    for name, outputs in found()['teachers'].items():
        jax.tree.map(near, found()['targets'][name], factor(outputs))
        jax.tree.map(near, found()['necks'][name], factor(outputs, 'neck'))
    for name in ('down', 'whole'):  # a BNNeck's two vectors differ
        assert not np.allclose(found()['necks'][name].feature, found()['targets'][name].feature)


def test_targets_follow_running_statistics_and_no_batch():
    """The teachers are in inference mode."""
    shifted = {
        name: tree | {'batch_stats': jax.tree.map(lambda leaf: leaf + 0.5, tree['batch_stats'])}
        for name, tree in taught().items()
    }
    other = batch()._replace(images=batch().images.at[1:].multiply(3.0))
    by_statistics = everything(variables(), shifted, batch())['targets']
    by_batch = everything(variables(), taught(), other)['targets']
    for name, before in found()['targets'].items():
        for leaf in range(2):
            assert not np.allclose(by_statistics[name][leaf], before[leaf], atol=1e-2)
            np.testing.assert_array_equal(by_batch[name][leaf][:SHOTS], before[leaf][:SHOTS])
            assert not np.allclose(by_batch[name][leaf][SHOTS:], before[leaf][SHOTS:], atol=1e-2)


@pytest.mark.parametrize(
    ('rows', 'seen_by'),
    [
        (slice(0, 6), {'up', 'whole'}),
        (slice(6, 7), {'up', 'whole'}),
        (slice(7, 8), {'down', 'whole'}),  # up to half a row past a bound
        (slice(8, 16), {'down', 'whole'}),
    ],
)
def test_a_teacher_sees_its_part_and_one_without_all(rows, seen_by):
    changed = batch()._replace(images=batch().images.at[:, :, rows].add(1.0))
    targets = everything(variables(), taught(), changed)['targets']
    for name, before in found()['targets'].items():
        assert np.array_equal(targets[name].map, before.map) == (name not in seen_by)


def test_heads_are_as_wide_as_the_teachers():
    shapes = jax.eval_shape(make().init, jax.random.key(0), batch())
    assert set(shapes['params']) == set(shapes['batch_stats']) == {'student', 'heads'}
    sizes = {'down': (3, 2, 8), 'up': (2, 3, 16), 'whole': (4, 3, 4)}
    for name, target in found()['targets'].items():
        own, (*_, channels) = shapes['params']['heads'][name], sizes[name]
        assert target.map.shape[1:] == sizes[name]
        assert own['map']['kernel'].shape == (8, channels)
        assert own['map_bn']['scale'].shape == (channels,)
        assert own['feature']['kernel'].shape == (12, target.feature.shape[-1])
        assert set(own['map']) == {'kernel'}
