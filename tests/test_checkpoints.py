import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import smoke

from kd_jax import checkpoints, keeping, recipes
from kd_jax.keeping import TrainState
from kd_jax.runs import RunError


def state_of(seed, width=3):
    """A train state in which no two numbers are equal."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    parts = {'student': {'fc': {'kernel': draw(2, width)}}, 'heads': {'bias': draw(4)}}
    stats = {'student': {'bn': {'mean': draw(width)}}, 'heads': {'bn': {'mean': draw(4)}}}
    tx = optax.adam(0.1)
    optimizer = tx.update(jax.tree.map(jnp.sin, parts), tx.init(parts), parts)[1]
    return TrainState(jnp.int32(seed), {'params': parts, 'batch_stats': stats}, optimizer)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def save(run, accuracies):
    """Checkpoints of the steps in `accuracies`, each of the state of its number."""
    with checkpoints.manager(run) as saved:
        for step, accuracy in accuracies.items():
            checkpoints.save(saved, step, keeping.items(state_of(step)), accuracy)


def kept(run):
    return sorted(int(path.name) for path in (run / 'checkpoints').iterdir())


def test_a_state_comes_back_bit_by_bit(tmp_path):
    save(tmp_path, {7: None})
    with checkpoints.manager(tmp_path) as saved:
        found = checkpoints.restore(saved, 7, keeping.items(state_of(0)))
    assert_same(keeping.from_items(found), state_of(7))


def test_one_process_saves_from_the_host(tmp_path, monkeypatch):
    """No device cuts a slice to write."""
    found = []
    save_all = checkpoints.Manager.save
    spy = lambda *given, **named: found.append(named['args']) or save_all(*given, **named)  # noqa: E731
    monkeypatch.setattr(checkpoints.Manager, 'save', spy)
    save(tmp_path, {7: None})
    leaves = jax.tree.leaves([found[0][name].item for name in checkpoints.ITEMS])
    assert leaves
    assert not any(isinstance(leaf, jax.Array) for leaf in leaves)


def test_the_state_of_a_run_splits_and_joins(tmp_path):
    state = state_of(3)
    items = keeping.items(state)
    assert_same(
        items['student'],
        {
            'params': state.variables['params']['student'],
            'batch_stats': state.variables['batch_stats']['student'],
        },
    )
    assert set(items['training']['variables']['params']) == {'heads'}
    assert_same(keeping.from_items(items), state)


@pytest.mark.parametrize(
    ('accuracies', 'steps'),
    [
        ({2: None, 4: 0.2, 6: 0.9, 8: None, 10: 0.5}, [6, 8, 10]),
        ({2: 0.1, 4: 0.2, 8: 0.9}, [4, 8]),  # the last is the best
        ({2: None, 4: None, 6: None}, [4, 6]),  # never scored
        ({4: 0.3, 6: None}, [4, 6]),
        ({4: 0.9, 8: 0.2, 9: 0.3, 10: None}, [4, 9, 10]),
    ],
)
def test_the_last_two_and_the_best_are_kept(tmp_path, accuracies, steps):
    save(tmp_path, accuracies)
    assert kept(tmp_path) == steps
    with checkpoints.manager(tmp_path, create=False) as saved:
        for step in steps:
            found = checkpoints.restore(saved, step, keeping.items(state_of(0)))
            assert_same(keeping.from_items(found), state_of(step))


def test_the_best_is_remembered_by_who_goes_on(tmp_path):
    save(tmp_path, {4: 0.9, 6: None})
    save(tmp_path, {8: 0.2})
    save(tmp_path, {10: 0.3})
    assert kept(tmp_path) == [4, 8, 10]


def test_an_earlier_step_is_not_saved_over_a_later_one(tmp_path):
    save(tmp_path, {8: None})
    for step in (8, 4):
        with pytest.raises(RunError, match=f'step {step} or later') as told:
            save(tmp_path, {step: None})
        assert str(tmp_path) in str(told.value)
    assert kept(tmp_path) == [8]


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        ({'width': 5}, r'batch_stats/bn/mean is of shape \(3,\) there, \(5,\) here'),
        ({'optimizer': ()}, r'optimizer/0/count is of shape \(\) there, None here'),
    ],
)
def test_a_leaf_of_another_shape_is_named(tmp_path, other, message):
    other = state_of(0, **other) if 'width' in other else state_of(0)._replace(**other)
    save(tmp_path, {2: None})
    with (
        checkpoints.manager(tmp_path) as saved,
        pytest.raises(RunError, match=f'{tmp_path}/checkpoints/2 holds no such .* {message}'),
    ):
        checkpoints.restore(saved, 2, keeping.items(other))


def test_restore_network_gives_the_student_alone():
    run = smoke.finished()
    network, variables, config, step, _ = checkpoints.restore_network(run)
    assert (config.method.name, step) == ('umts', 8)
    fresh = network.init(jax.random.key(0), recipes.blank_input(config))
    assert jax.tree.structure(variables) == jax.tree.structure(fresh)
    with checkpoints.manager(run, create=False) as saved:
        abstract = jax.tree.map(jnp.zeros_like, {'student': fresh})
        assert_same(checkpoints.restore(saved, 8, abstract)['student'], variables)


def test_the_items_of_a_checkpoint_are_the_student_and_the_rest():
    """Whoever reads the item `student`, with or without kd_jax, reads nothing of heads."""
    path = smoke.finished() / 'checkpoints/8'
    parts = sorted(part.name for part in path.iterdir() if part.is_dir())
    assert parts == ['metrics', 'notes', 'student', 'training']
    with ocp.StandardCheckpointer() as reader:
        student = reader.metadata(path / 'student').item_metadata.tree
        training = reader.metadata(path / 'training').item_metadata.tree
    assert set(student) == {'params', 'batch_stats'}
    assert set(student['params']) == {'conv1', 'bn1', 'neck', *(f'layer{i}_0' for i in range(1, 5))}
    assert set(training['variables']['params']) == {'heads'}
    assert set(training) == {'variables', 'optimizer', 'step'}


def test_the_best_of_a_run_is_the_one_that_scored_best(tmp_path):
    variables = smoke.planted(tmp_path)
    for which, step in (('last', 8), ('best', 4)):
        restored = checkpoints.restore_network(tmp_path, which)
        assert restored.step == step
        assert_same(restored.variables, variables[step])


def test_a_restored_network_does_not_change_its_run():
    before = smoke.written(smoke.finished())
    checkpoints.restore_network(smoke.finished(), 'best')
    assert smoke.written(smoke.finished()) == before


def test_a_directory_that_is_no_run_is_named(tmp_path):
    for path in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(RunError, match=f'{path} is no run'):
            checkpoints.restore_network(path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_is_named(tmp_path):
    shutil.copy(smoke.finished() / 'config.json', tmp_path)
    with pytest.raises(RunError, match=f'{tmp_path} has no checkpoint'):
        checkpoints.restore_network(tmp_path)
    (tmp_path / 'checkpoints').mkdir()
    with pytest.raises(RunError, match=f'{tmp_path} has no last checkpoint'):
        checkpoints.restore_network(tmp_path)
    with pytest.raises(RunError, match=f'{tmp_path} has no best checkpoint'):
        checkpoints.restore_network(tmp_path, 'best')


@pytest.mark.parametrize(('key', 'value'), [('width', 6), ('neck', 'fc_bn_relu'), ('classes', 9)])
def test_the_checkpoint_of_another_network_is_named(tmp_path, key, value):
    run = smoke.copy(smoke.finished(), tmp_path / 'run')
    locked = json.loads((run / 'config.json').read_text())
    (locked if key == 'classes' else locked['config']['network'])[key] = value
    (run / 'config.json').write_text(json.dumps(locked))
    with pytest.raises(RunError, match='no such network') as told:
        checkpoints.restore_network(run)
    assert f'{run}/checkpoints/8' in str(told.value)


@pytest.mark.parametrize('key', ['width', 'breadth'])
def test_a_network_of_another_version_is_told(tmp_path, key):
    smoke.planted(tmp_path)
    locked = json.loads((tmp_path / 'config.json').read_text())
    network = locked['config']['network']
    if key in network:
        del network[key]
    else:
        network[key] = 1
    (tmp_path / 'config.json').write_text(json.dumps(locked))
    with pytest.raises(RunError, match=rf'config\.json is of another version of kd_jax: .*{key}'):
        checkpoints.restore_network(tmp_path)
