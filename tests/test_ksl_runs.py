"""KSL in training: where it starts, some steps, and runs to their end."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from test_ksl import NAMES, NETWORK, OBJECTIVE, VARIABLES, WHOLE, batch, made
from test_pretrained import file_of, imagenet
from test_train import assert_same_end, killed, steps_of, student_of

from kd_jax import (
    assembly,
    checkpoints,
    data,
    evaluate,
    keeping,
    loop,
    optimizers,
    parallel,
    recipes,
    runs,
    train,
    trees,
    views,
)
from kd_jax.methods import supervised
from kd_jax.networks import pretrained


def baseline():
    return supervised.make(NETWORK, {}, reads='singles', feature='embedding', **OBJECTIVE)


def assert_bitwise(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


# Where it starts.

TAILS = {
    'layer3': {'layer3_0', 'layer4_0', 'neck'},
    'layer4': {'layer4_0', 'neck'},
    'gap': {'neck'},
}


@pytest.mark.parametrize(('split_at', 'tail'), TAILS.items())
def test_the_variables_of_a_split(split_at, tail):
    """The student's are those of the baseline; a branch has its tail's, of the same shapes."""
    init = partial(jax.eval_shape, made(WHOLE, split_at=split_at).init)
    found = init(jax.random.key(0), batch())
    baseline = jax.eval_shape(WHOLE.init, jax.random.key(0), views.singles(batch().images))
    assert trees.part(found, 'student') == baseline
    for kind, tree in found.items():
        assert set(tree) == set(NAMES)
        assert tree['branch1'] == tree['branch2'] == {k: baseline[kind][k] for k in tail}


def test_where_branches_start():
    """The student as that of the baseline of its seed, every branch elsewhere."""
    key = jax.random.key(3, impl='rbg')
    found, wanted = (jax.jit(method.init)(key, batch()) for method in (made(), baseline()))
    assert_bitwise(trees.part(found, 'student'), trees.part(wanted, 'student'))
    kernels = [found['params'][name]['layer4_0']['conv1']['kernel'] for name in NAMES]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.any(kernels[one] == kernels[other])
    of_student, *of_branches = (np.std(kernel) for kernel in kernels)
    np.testing.assert_allclose(of_branches, of_student, rtol=0.05)


@pytest.mark.parametrize('split_at', ['layer3', 'gap'])
def test_branches_start_from_a_file_but_for_their_necks(split_at, tmp_path):
    config = smoke.config('ksl_carousel')
    config.network.pretrained = str(file_of(tmp_path, imagenet(WHOLE)))
    shapes = jax.eval_shape(made(WHOLE, split_at=split_at).init, jax.random.key(0), batch())
    numbers = iter(range(1000))
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, -next(numbers), leaf.dtype), shapes)
    found = trees.named(recipes.started(config, 8, fresh))
    path = config.network.pretrained
    of_file = trees.named(pretrained.load(WHOLE, trees.part(fresh, 'student'), path))
    for path, leaf in trees.named(fresh).items():
        kind, _, module = path.split('/', 2)
        stage = not module.startswith('neck/')
        wanted = of_file[f'{kind}/{module}'] if stage else leaf
        np.testing.assert_array_equal(found[path], wanted, err_msg=path)
        assert stage == (not np.array_equal(leaf, wanted)), path
    arrays = [leaf for leaf in found.values() if isinstance(leaf, jax.Array)]
    assert len({leaf.unsafe_buffer_pointer() for leaf in arrays}) == len(arrays) > 0  # donated


# Steps.


def sgd_steps(method, variables, seen, devices=1):
    """Metrics and variables after each step on so many devices; as many steps as are asked for."""
    options = smoke.config('ksl_carousel').optimizer.to_dict()
    options |= {'name': 'sgd', 'learning_rate': 0.01, 'warmup_epochs': 0.0}
    tx = optimizers.create(epochs=1.0, steps_per_epoch=8, **options)
    mesh = parallel.mesh(jax.devices()[:devices])
    step = loop.make_train_step(method, lambda seen: (seen, seen), tx, mesh, seed=0, steps=8)
    state = keeping.TrainState(np.zeros((), np.int32), variables, tx.init(variables['params']))
    state = parallel.replicate(jax.tree.map(np.array, state), mesh)
    while True:
        state, metrics = step(state, {}, parallel.shard(seen, mesh))
        yield jax.device_get((metrics, state.variables))


def test_one_branch_is_the_baseline():
    """Bit by bit its terms and, by SGD, its gradient, its parameters and its statistics."""
    student = trees.join(student=trees.part(VARIABLES, 'student'))
    courses = [sgd_steps(method, student, batch()) for method in (made(branches=1), baseline())]
    for _ in range(3):
        (found, after), (expected, wanted) = map(next, courses)
        surplus = {name: found.pop(name) for name in found.keys() - expected.keys()}
        constraints = dict.fromkeys(('probabilities', 'distances', 'hard'), 0)
        assert surplus == constraints | {'agreement': 1}
        assert found == expected
        assert_bitwise(after, wanted)


def test_one_device_is_four_devices():
    """An identity's images are on two of them; all three constraints have their share of it."""
    config = smoke.config('ksl_carousel')
    config.method.update(ramp=0.0, distance_weight=20.0)
    assert config.method.split_at == 'layer4'
    method = recipes.method(config, NETWORK.clone(axis_name=parallel.AXIS), {})
    one, four = (next(sgd_steps(method, VARIABLES, batch(), devices)) for devices in (1, 4))
    weights = [one[0][name] / one[0]['loss'] for name in ('probabilities', 'distances', 'hard')]
    assert min(weights) > 0.01
    near = partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
    jax.tree.map(near, four, one)


# Runs.


def shapes_of(tree):
    return {path: (leaf.shape, leaf.dtype) for path, leaf in trees.named(tree).items()}


def test_its_student_is_as_large_as_the_baselines():
    ours, theirs = (
        checkpoints.restore_network(smoke.finished(f'{name}_carousel'))
        for name in ('ksl', 'supervised')
    )
    assert shapes_of(ours.variables) == shapes_of(theirs.variables)
    assert trees.size(ours.variables['params']) == trees.size(theirs.variables['params'])
    exported, others = (pretrained.tensors(x.network, x.variables) for x in (ours, theirs))
    assert shapes_of(exported) == shapes_of(others)


def state_of(run):
    """The last state of a run, of all branches."""
    config = runs.config_of(run)
    parts = assembly.assemble(config, data.load(**config.data), {})
    blank = recipes.blank_batch(config)
    shapes = jax.eval_shape(lambda: loop.create_state(parts.method, parts.tx, blank, 0))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    with checkpoints.manager(run, create=False) as saved:
        return keeping.from_items(
            checkpoints.restore(saved, saved.latest_step(), keeping.items(state))
        )


def test_its_student_is_the_first_branch_of_the_training():
    run = smoke.finished('ksl_carousel')
    student, state = checkpoints.restore_network(run), state_of(run)
    assert state.step == student.step == 8
    assert set(state.variables['params']) == set(NAMES)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 16, 3)), jnp.float32)
    halves = partial(student.network.apply, train=False, split=4)
    trunk, tail = (jax.jit(partial(halves, method=half)) for half in ('trunk', 'tail'))
    own = trees.part(state.variables, 'student')
    expected = tail(own, trunk(own, images)[-1])
    found = jax.jit(student.network.apply)(student.variables, images)
    assert_bitwise(found[1:], expected[1:])
    other = tail(trees.part(state.variables, 'branch1'), trunk(own, images)[-1])
    assert not np.allclose(other.neck, expected.neck)


def test_a_run_that_was_killed_ends_as_if_it_was_not(tmp_path):
    run = tmp_path / 'run'
    killed(run, 'os.mkdir', r'run/checkpoints/6\..*/training', name='ksl_carousel')
    assert steps_of(run) == [2, 4]
    train.run(smoke.config('ksl_carousel'), run)
    finished = smoke.finished('ksl_carousel')
    assert_same_end(run, finished)
    assert_bitwise(*(jax.device_get(state_of(path)) for path in (run, finished)))


def test_it_is_scored_without_its_branches():
    run = smoke.finished('ksl_carousel')
    assert evaluate.run(run, runs.config_of(run)) == smoke.result(run)['student']


def test_a_run_of_one_branch_ends_as_the_baseline(tmp_path):
    config, expected = smoke.config('ksl_carousel'), smoke.config('supervised_carousel')
    config.method.branches = 1
    given, wanted = config.to_dict(), expected.to_dict()
    method = {'name': 'ksl', 'reads': 'singles'} | given.pop('method')
    baseline = wanted.pop('method') | {'name': 'ksl'}
    assert given == wanted
    assert {key: method[key] for key in baseline} == baseline
    train.run(config, tmp_path)
    finished = smoke.finished('supervised_carousel')
    assert_bitwise(*map(student_of, (tmp_path, finished)))
    assert smoke.result(tmp_path) == smoke.result(finished)
