"""Factorized Distillation: who learns from what, what either side sees, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from random_trees import random_init
from test_factorized import (
    METHODS,
    OPTIONS,
    STUDENT,
    TEACHERS,
    TERMS,
    batch,
    make,
    taught,
    variables,
)

from kd_jax import loop, methods, optimizers, parallel, recipes, trees
from kd_jax.data import augment
from kd_jax.heads import Factor
from kd_jax.methods import factorized
from kd_jax.views import Batch

MIMICS = {name: options for name, options in METHODS.items() if name != 'plain'}


def nonzero(tree):
    return any(np.any(leaf) for leaf in jax.tree.leaves(tree))


@jax.jit
def slopes(chosen, teachers):
    """Gradients of the chosen methods' sums of terms, by parameters and by teachers' variables."""

    def total(params, teachers):
        targets = make().teach(teachers, batch())
        own = variables() | {'params': params}
        losses = {
            name: make(**options).loss(own, targets, batch(), None, 0.0)
            for name, options in MIMICS.items()
        }
        return sum(chosen[name] * sum(one.terms.values()) for name, one in losses.items())

    return jax.grad(total, argnums=(0, 1))(variables()['params'], teachers)


@functools.cache
def gradients(method):
    return slopes({name: float(name == method) for name in MIMICS}, taught())


# Who learns from what.


@pytest.mark.parametrize('method', MIMICS)
def test_the_teachers_have_no_gradient(method):
    own, of_teachers = gradients(method)
    assert nonzero(own['student']['conv1'])
    assert jax.tree.structure(of_teachers) == jax.tree.structure(taught())
    assert not nonzero(of_teachers)


def test_a_pure_mimic_does_not_train_the_classifier():
    own, _ = gradients('mimic')
    assert not nonzero(own['student']['neck']['classifier'])
    assert nonzero(own['student']['neck']['fc'])
    assert nonzero(own['student']['layer2_0'])
    for name in TEACHERS:
        assert all(nonzero(own['heads'][name][layer]) for layer in ('map', 'map_bn', 'feature'))


@pytest.mark.parametrize(
    ('method', 'off', 'on'),
    [('no map', ('map', 'map_bn'), ('feature',)), ('no feature', ('feature',), ('map', 'map_bn'))],
)
def test_a_factoriser_that_is_off_is_not_trained(method, off, on):
    own, _ = gradients(method)
    for name in TEACHERS:
        assert not nonzero([own['heads'][name][layer] for layer in off])
        assert all(nonzero(own['heads'][name][layer]) for layer in on)
    assert nonzero(own['student']['neck']['fc']) == (method == 'no map')


# What either side sees.


def config(**changes):
    made = smoke.config('factorized_carousel')
    made.augment.update(flip=0.5, erase=1.0)
    made.optimizer.update(name='sgd', warmup_epochs=0.0)
    made.update_from_flattened_dict(changes)
    return made


def raw():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (4, 4, 32, 16, 3), np.uint8)
    keys = rng.integers(2**32, size=(4, 4), dtype=np.uint32)
    labels = np.array([0, 1, 0, 1], np.int32)
    return jax.tree.map(jnp.asarray, Batch(images, labels, np.zeros((4, 4), np.int32), keys))


def test_only_the_student_sees_what_is_erased():
    """A-FD-7: one geometry for both; outside of one rectangle an image is the same."""
    given, pixels = config(**{'augment.crop': 'none'}), np.asarray(raw().images)
    augmented = jax.jit(recipes.augmentation(given))(raw())
    seen, clean = (np.asarray(side.images).reshape(16, 32, 16, 3) for side in augmented)
    mean, std = np.array(augment.IMAGENET_MEAN), np.array(augment.IMAGENET_STD)
    plain = (pixels.reshape(16, 32, 16, 3) / 255 - mean) / std
    flipped = [np.allclose(one, other[:, ::-1], atol=1e-5) for one, other in zip(clean, plain)]
    assert 2 < sum(flipped) < 14
    for number, inside in enumerate((seen != clean).any(axis=-1)):
        own = plain[number, :, ::-1] if flipped[number] else plain[number]
        np.testing.assert_allclose(clean[number], own, atol=1e-5)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert inside.sum() == height * width  # all of a rectangle and no more
        assert 0.01 < height * width / (32 * 16) < 0.45
        np.testing.assert_array_equal(seen[number][inside], 0.0)


def test_teachers_are_taught_what_is_clean():
    """All that `augment` has to say of it in the factorized configs."""
    for module in (smoke.ROOT / 'configs').glob('factorized_*.py'):
        assert not smoke.config(module.stem).augment.erase_teacher


# The real step.


@functools.cache
def stepped(count):
    """Two steps on so many devices: the state, the metrics, the teachers before and after."""
    given = config()

    def network(one):
        return recipes.network(one, classes=8).clone(blocks=(1, 1, 0, 0))

    teachers = {name: network(one) for name, one in given.teachers.items()}
    method = recipes.method(given, network(given), teachers)
    tx = optimizers.create(epochs=1.0, steps_per_epoch=4, **given.optimizer)
    own = random_init(method.init, recipes.blank_batch(given))
    blank = recipes.blank_input(given)
    before = {name: random_init(one.init, blank, seed=1) for name, one in teachers.items()}
    mesh = parallel.mesh(jax.devices()[:count])
    step = loop.make_train_step(method, recipes.augmentation(given), tx, mesh, seed=0, steps=4)
    state = loop.TrainState(jnp.zeros((), jnp.int32), own, tx.init(own['params']))
    state, held = parallel.replicate((state, before), mesh)
    for _ in range(2):
        state, metrics = step(state, held, parallel.shard(raw(), mesh))
    return *jax.device_get((state.variables, metrics)), own, before, held


def test_one_device_is_four_devices():
    """With SGD, and no term small."""
    one, four = stepped(1), stepped(4)
    assert min(one[1][name] for name in TERMS) > 0.01 * one[1]['loss']
    for found, expected in zip(jax.tree.leaves(four[:2]), jax.tree.leaves(one[:2])):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_steps_leave_the_teachers_as_they_were():
    """Byte by byte, on every device, while the student and its heads change."""
    after, _, own, before, held = stepped(4)
    for leaf, value in zip(jax.tree.leaves(held), jax.tree.leaves(before)):
        for shard in leaf.addressable_shards:
            assert np.asarray(shard.data).tobytes() == value.tobytes()
    assert set(after['params']) == set(after['batch_stats']) == {'student', 'heads'}
    changed = trees.named(jax.tree.map(lambda a, b: bool(np.any(a != b)), after, own))
    assert all(changed.values()), [name for name, value in changed.items() if not value]


# The mimicry itself.


def factors(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = {'a': ((5, 2, 3, 4), (5, 6)), 'b': ((5, 1, 2, 7), (5, 2))}
    return {
        name: Factor(*(jnp.asarray(scale * rng.normal(size=s), jnp.float32) for s in pair))
        for name, pair in shapes.items()
    }


@pytest.mark.parametrize(('scale', 'expected'), [(1.0, 0.0), (7.0, 0.0), (-0.5, 4.0)])
def test_equal_directions_cost_nothing_and_opposite_ones_four(scale, expected):
    apart = factorized.mimicry(factors(0), factors(0, scale))
    assert [sorted(apart[key]) for key in ('map', 'feature')] == [['a', 'b']] * 2
    np.testing.assert_allclose(jax.tree.leaves(apart), expected, atol=1e-6 * (scale != 1))


def test_other_directions_cost_something_between():
    apart = np.array(jax.tree.leaves(factorized.mimicry(factors(0), factors(1))))
    assert ((apart > 0.5) & (apart < 3.5)).all()


# What is refused.


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'map_weight': -0.1}, r'method\.map_weight=-0\.1: from 0 on, which is off$'),
        ({'feature_weight': -1.0}, r'method\.feature_weight=-1\.0: from 0 on'),
        ({'feature_weight': float('nan')}, r'method\.feature_weight=nan: from 0 on'),
        ({'feature': 'logits'}, r"method\.feature='logits': choose one of embedding, neck$"),
    ],
)
def test_values_that_can_not_be(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_teachers_are_needed():
    message = r'method factorized needs config\.teachers: part0, part1, …; given none'
    with pytest.raises(ValueError, match=message):
        factorized.make(STUDENT, {}, **OPTIONS)


def test_a_misspelt_key_is_named():
    with pytest.raises(TypeError, match='maps_weight'):
        make(maps_weight=1.0)


def test_methods_finds_it():
    assert methods.load('factorized') is factorized.make
