"""Networks that are trained at once are as they would be if each was trained by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from network_options import create
from random_trees import random_init

from configs import factorized_carousel
from kd_jax import lineage, loop, optimizers, parallel, recipes, runs, stacked, train, trees
from kd_jax.methods import supervised
from kd_jax.networks import pretrained
from kd_jax.views import Batch

SETS, SHOTS, SIZE, STEPS = 4, 2, (16, 12), 3
OPTIONS = {'reads': 'singles', 'feature': 'neck', 'label_smoothing': 0.1, 'margin': 0.3}
SGD = {'name': 'sgd', 'learning_rate': 0.05, 'weight_decay': 5e-4, 'schedule': 'cosine'}
SGD |= {'warmup': 'linear', 'warmup_epochs': 0.0, 'warmup_start': 0.0, 'boundaries': ()}
SGD |= {'factor': 1.0, 'final': 0.1, 'epochs': 1.0, 'steps_per_epoch': 4}
PARTS = {'up': (0.0, 3 / 7), 'down': (0.5, 1.0)}
NETWORKS = {
    name: create(part=part, part_size=(12, 8), axis_name=parallel.AXIS).clone(blocks=(1, 1, 0, 0))
    for name, part in PARTS.items()
}
TERMS = {'identity', 'triplet'}


def alone(network):
    return supervised.make(network, {}, axis_name=parallel.AXIS, **OPTIONS)


def joint():
    return stacked.method(alone(stacked.bare(NETWORKS['up'])), NETWORKS)


METHODS = {name: alone(network) for name, network in NETWORKS.items()} | {'joint': joint()}


def batch(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(SETS, SHOTS, *SIZE, 3)).astype(np.float32)
    keys = np.zeros((SETS, SHOTS), np.uint32)
    return Batch(images, np.array([3, 1, 3, 0], np.int32), keys.astype(np.int32), keys)


@functools.cache
def started(name):
    """Where a method starts from, of one key."""
    key = jax.random.key(7, impl='rbg')
    return jax.device_get(jax.jit(METHODS[name].init)(key, batch()))


@functools.cache
def trained(name, devices):
    """Variables and the metrics of every step, by SGD on so many devices."""
    tx, mesh = optimizers.create(**SGD), parallel.mesh(jax.devices()[:devices])
    step = loop.make_train_step(METHODS[name], lambda b: (b, b), tx, mesh, seed=0, steps=STEPS)
    own = started(name)
    state = loop.TrainState(jnp.zeros((), jnp.int32), own, tx.init(own['params']))
    state, metrics = parallel.replicate(state, mesh), []
    for number in range(STEPS):
        state, found = step(state, {}, parallel.shard(batch(number), mesh))
        metrics.append(jax.device_get(found))
    return jax.device_get(state.variables), metrics


# The method.


@pytest.mark.parametrize('name', NETWORKS)
def test_a_member_starts_as_it_does_alone(name):
    """Exactly."""
    found = stacked.member(started('joint'), list(NETWORKS).index(name))
    assert jax.tree.structure(found) == jax.tree.structure(started(name))
    jax.tree.map(np.testing.assert_array_equal, found, started(name))


@pytest.mark.parametrize('devices', [1, 4])
@pytest.mark.parametrize('name', NETWORKS)
def test_a_member_is_trained_as_it_is_alone(name, devices):
    """Over three steps of SGD, to 1e-6 in parameters and statistics, and so in its terms."""
    variables, metrics = trained('joint', devices)
    expected, own_metrics = trained(name, 1)
    found = stacked.member(variables, list(NETWORKS).index(name))
    for path, value in trees.named(expected).items():
        np.testing.assert_allclose(trees.named(found)[path], value, atol=1e-6, err_msg=path)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected, started(name))
    assert min(jax.tree.leaves(moved)) > 1e-4
    for ours, own in zip(metrics, own_metrics):
        for term in (*TERMS, 'accuracy'):
            np.testing.assert_allclose(ours[f'{name}/{term}'], own[term], rtol=1e-5)


def test_the_loss_is_of_all_members():
    for row in trained('joint', 1)[1]:
        own = {'loss', 'gradient_norm'}
        assert set(row) == own | {f'{name}/{t}' for name in NETWORKS for t in (*TERMS, 'accuracy')}
        terms = [row[f'{name}/{term}'] for name in NETWORKS for term in TERMS]
        np.testing.assert_allclose(row['loss'], sum(terms), rtol=1e-5)
    assert trained('up', 1)[1][0]['identity'] != trained('down', 1)[1][0]['identity']


def test_members_are_ranked_together():
    """By all of their vectors, each of length 1."""

    @jax.jit
    def ranked(variables, images):
        return {name: method.embed(variables[name], images) for name, method in METHODS.items()}

    found = ranked({name: started(name) for name in METHODS}, batch().images)
    own = [np.asarray(found[name]) for name in NETWORKS]
    directions = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in own]
    np.testing.assert_allclose(found['joint'], np.concatenate(directions, axis=1), atol=1e-5)


# Trees of members.


def test_a_member_of_a_tree():
    tree = {'count': jnp.array(3), 'kernel': jnp.arange(6).reshape(2, 3), 'scalar': jnp.arange(2)}
    found = stacked.member(tree, 1)
    assert (found['count'], found['kernel'].tolist(), found['scalar']) == (3, [3, 4, 5], 1)
    doubled = stacked.each(lambda one: {'kernel': 2 * one['kernel']}, 2, tree)
    np.testing.assert_array_equal(doubled['kernel'], [[0, 2, 4], [6, 8, 10]])


def test_metrics_of_a_member():
    rows = [
        {'step': 2, 'loss': 3.0, 'part1/identity': 1.0, 'part10/identity': 2.0},
        {'step': 2, 'evaluation': {'mAP': 0.5}},
        {'step': 4, 'loss': 5.0, 'part1/identity': 3.0, 'part10/identity': 4.0},
    ]
    expected = [{'step': 2, 'identity': 1.0}, {'step': 4, 'identity': 3.0}]
    assert stacked.metrics(rows, 'part1') == expected
    assert [row['identity'] for row in stacked.metrics(rows, 'part10')] == [2.0, 4.0]


def test_metrics_of_a_member_whose_name_begins_like_anothers():
    rows = [{'step': 2, 'up/identity': 1.0, 'up_left/identity': 2.0}]
    assert stacked.metrics(rows, 'up') == [{'step': 2, 'identity': 1.0}]


def test_every_member_starts_with_the_weights_of_a_file(tmp_path):
    """All but the classifier, which is the one that was drawn."""
    config = smoke.config('factorized_carousel').teachers.part0.copy_and_resolve_references()
    config.network.pretrained = str(tmp_path / 'weights.safetensors')
    network, blank = recipes.network(config, classes=8), recipes.blank_input(config)
    of_file, *drawn = (random_init(network.init, blank, seed=seed) for seed in range(3))
    pretrained.export(network, of_file, config.network.pretrained)
    fresh = [trees.join(student=one) for one in drawn]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *fresh)
    found = stacked.each(functools.partial(recipes.started, config, 8), 2, both)
    for number in range(2):
        own = trees.named(trees.part(stacked.member(found, number), 'student'))
        for path, value in own.items():
            source = drawn[number] if 'classifier' in path else of_file
            np.testing.assert_array_equal(value, trees.named(source)[path], err_msg=path)


# Which teachers are trained at once.


def config(variant='smoke', **changes):
    made = factorized_carousel.get_config(variant).copy_and_resolve_references()
    made.stacked = True
    made.update_from_flattened_dict(changes)
    return made


def members(given, run):
    return list(stacked.members(given, lineage.teachers(given, run)))


def test_only_if_asked_for(tmp_path):
    assert members(config(stacked=False), tmp_path) == []
    given = config()
    assert members(given, tmp_path) == ['part0', 'part1']
    del given.stacked
    assert members(given, tmp_path) == []


def test_all_that_are_alike_but_for_their_part(tmp_path):
    parts = [f'part{number}' for number in range(6)]
    assert members(config(''), tmp_path) == parts
    assert members(config('holistic'), tmp_path) == parts


@pytest.mark.parametrize(
    'change',
    [
        {'network.part': ()},
        {'network.width': 8},
        {'network.part_size': (16, 8)},
        {'optimizer.learning_rate': 0.1},
        {'seed': 3},
    ],
)
def test_one_that_is_unlike_is_trained_by_itself(tmp_path, change):
    given = config('', **{f'teachers.part2.{key}': value for key, value in change.items()})
    others = [f'part{number}' for number in (0, 1, 3, 4, 5)]
    assert members(given, tmp_path) == others


def test_one_that_is_given_by_its_path_is_not_trained(tmp_path):
    given = config('')
    runs.start(tmp_path / 'given', given.teachers.part4, {'classes': 8, 'data': ''})
    given.teachers = {**given.teachers, 'part4': str(tmp_path / 'given')}
    assert members(given, tmp_path) == [f'part{number}' for number in (0, 1, 2, 3, 5)]


@pytest.mark.parametrize(
    ('names', 'changes'),
    [
        (['part0', 'part1'], {'teachers.part1.network.width': 8}),
        (['part0', 'part1'], {f'teachers.part{number}.network.part': () for number in (0, 1)}),
        (['part0'], {}),
        ([], {}),
    ],
)
def test_fewer_than_two_are_refused(tmp_path, names, changes):
    """Before anything is written."""
    given = config(**changes)
    given.teachers = {name: given.teachers[name] for name in names}
    told = ', '.join(names) or 'none'
    message = rf'config\.stacked=True .*; of {told} no two are: set config\.stacked=False'
    with pytest.raises(ValueError, match=message):
        train.run(given, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []
