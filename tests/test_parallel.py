"""One device computes what four do; the batch's order puts an identity's sets on two devices."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from random_trees import random_init

from configs import supervised_carousel, umts_carousel
from kd_jax import loop, optimizers, parallel, recipes, trees
from kd_jax.views import Batch

NOISE = 1e-8
STEPS, SETS, SHOTS, SIZE = 3, 8, 2, 16
LABELS = np.arange(SETS, dtype=np.int32) % 4
CONFIGS = {'supervised': supervised_carousel, 'umts': umts_carousel}


class Trained(NamedTuple):
    """What some steps leave: metrics of each, the state on the host, the trees on the devices."""

    metrics: list[dict]
    before: loop.TrainState
    after: loop.TrainState
    donated: loop.TrainState
    last: loop.TrainState
    teachers: dict
    teachers_before: dict


def config_of(name):
    config = CONFIGS[name].get_config('smoke')
    config.data.update(height=SIZE, width=SIZE)
    config.sampling.shots = SHOTS
    config.augment.update(flip=0.5, erase=0.5, erase_teacher=False)
    config.optimizer.update(name='sgd', learning_rate=0.01, schedule='constant', warmup_epochs=0.0)
    if name == 'umts':
        config.method.update(teacher_head='trained', stages=(1, 2, 5))
    return config


def network_of(config):
    """The network of a config, its last two stages empty: it compiles in half the time."""
    return recipes.network(config, classes=4).clone(blocks=(1, 1, 0, 0))


def batch_of(step):
    rng = np.random.default_rng(step)
    images = rng.integers(0, 256, (SETS, SHOTS, SIZE, SIZE, 3), np.uint8)
    keys = rng.integers(2**32, size=(SETS, SHOTS), dtype=np.uint32)
    return Batch(images, LABELS, np.zeros((SETS, SHOTS), np.int32), keys)


@cache
def parts_of(name):
    """(method, augment, tx), initial state and teachers' variables of a config, on the host."""
    config = config_of(name)
    teachers = {key: network_of(teacher) for key, teacher in config.teachers.items()}
    method = recipes.method(config, network_of(config), teachers)
    tx = optimizers.create(epochs=1.0, steps_per_epoch=8, frozen=method.frozen, **config.optimizer)
    variables = random_init(method.init, recipes.blank_batch(config))
    state = loop.TrainState(np.zeros((), np.int32), variables, tx.init(variables['params']))
    blanks = {key: recipes.blank_input(teacher) for key, teacher in config.teachers.items()}
    taught = {key: random_init(net.init, blanks[key], seed=1) for key, net in teachers.items()}
    return (method, recipes.augmentation(config), tx), jax.device_get(state), taught


@cache
def trained(name, devices):
    """Three steps on so many devices."""
    parts, before, teachers_before = parts_of(name)
    mesh = parallel.mesh(jax.devices()[:devices])
    step = loop.make_train_step(*parts, mesh, seed=0, steps=8)
    teachers = parallel.replicate(teachers_before, mesh)
    donated = state = parallel.replicate(before, mesh)
    metrics = []
    for number in range(STEPS):
        state, found = step(state, teachers, parallel.shard(batch_of(number), mesh))
        metrics.append(jax.device_get(found))
    after = jax.device_get(state)
    return Trained(metrics, before, after, donated, state, teachers, teachers_before)


def buffers(tree):
    shards = (s for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards)
    return {shard.data.unsafe_buffer_pointer() for shard in shards}


def assert_close(found, expected, share):
    """Every leaf differs by at most that share of its own largest value.

    A leaf without a gradient, such as the bias before a BatchNorm, is rounding noise near zero.
    """
    found, expected = trees.named(found), trees.named(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = max(share * np.abs(value).max(), NOISE)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize('name', CONFIGS)
def test_one_device_equals_four(name):
    one, four = trained(name, 1), trained(name, 4)
    for found, expected in zip(four.metrics, one.metrics):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5, err_msg=key)
    assert_close(four.after.variables, one.after.variables, 1e-5)


@pytest.mark.parametrize('name', CONFIGS)
def test_steps_change_every_leaf_by_more_than_that(name):
    found = trained(name, 1)
    start, end = (trees.named(state.variables) for state in (found.before, found.after))
    for leaf, value in end.items():
        change = np.abs(value - start[leaf]).max()
        assert change > 1e-4 * np.abs(value).max() or leaf.endswith('/fc/bias'), leaf
    assert found.after.step == STEPS
    assert all(np.isfinite(value) for row in found.metrics for value in row.values())


def test_pmap_of_the_step_is_bit_identical():
    expected = trained('supervised', 4)
    parts, before, _ = parts_of('supervised')
    per_device = loop.per_device_step(*parts, seed=0, steps=8)
    step = jax.pmap(per_device, axis_name='batch', devices=jax.devices()[:4])
    state = jax.tree.map(lambda x: np.stack([x] * 4), before)
    for number in range(STEPS):
        batch = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch_of(number))
        state, metrics = step(state, {}, batch)
        for name, value in expected.metrics[number].items():
            assert (np.asarray(metrics[name]) == value).all(), name
    for leaf, value in zip(jax.tree.leaves(state), jax.tree.leaves(expected.after)):
        for device in range(4):
            assert np.asarray(leaf[device]).tobytes() == value.tobytes()


def test_teachers_stay_as_they_are():
    for devices in (1, 4):
        found = trained('umts', devices)
        for leaf, before in zip(*map(jax.tree.leaves, (found.teachers, found.teachers_before))):
            for shard in leaf.addressable_shards:
                assert np.asarray(shard.data).tobytes() == before.tobytes()


def test_the_state_is_donated_and_the_teachers_are_not():
    found = trained('umts', 4)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(found.donated))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(found.teachers))
    assert not buffers(found.last) & buffers(found.teachers)


def test_the_student_and_its_heads_alone_are_in_the_state():
    state = trained('umts', 1).after
    assert (
        set(state.variables['params'])
        == set(state.variables['batch_stats'])
        == {'student', 'heads'}
    )


def test_shard_names_both_numbers():
    mesh = parallel.mesh(jax.devices()[:4])
    with pytest.raises(ValueError, match=r'6 sets a batch .* 4 devices.*sampling\.identities'):
        parallel.shard({'a': np.zeros((8, 2)), 'b': np.zeros((6, 2))}, mesh)


def test_shard_and_replicate_place_arrays():
    mesh = parallel.mesh(jax.devices()[:4])
    rows = np.arange(24).reshape(8, 3)
    sharded, everywhere = parallel.shard(rows, mesh), parallel.replicate(rows, mesh)
    assert len(sharded.addressable_shards) == len(everywhere.addressable_shards) == 4
    for place, shard in enumerate(sharded.addressable_shards):
        np.testing.assert_array_equal(shard.data, rows[2 * place : 2 * place + 2])
    for shard in everywhere.addressable_shards:
        np.testing.assert_array_equal(shard.data, rows)


def test_mesh_is_over_all_devices():
    assert parallel.mesh().size == len(jax.devices())
    assert parallel.mesh().axis_names == ('batch',)


def test_spread_keeps_the_order():
    mesh = parallel.mesh(jax.devices()[:4])
    double = parallel.spread(lambda factor, x: factor * x, mesh)
    found = double(jnp.array(2.0), parallel.shard(np.arange(8.0), mesh))
    np.testing.assert_array_equal(found, 2 * np.arange(8.0))
    assert found.sharding.spec == P('batch')
