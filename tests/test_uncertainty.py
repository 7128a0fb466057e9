"""UMTS' uncertainty, beside what NumPy makes of the same variables; what is beside a student."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from random_trees import random_init

from kd_jax import (
    analysis,
    assembly,
    beside,
    checkpoints,
    data,
    keeping,
    lineage,
    loop,
    recipes,
    runs,
    trees,
    views,
)
from kd_jax.data import augment
from kd_jax.runs import RunError

EPSILON = 1e-5  # of a BatchNorm


def near(found, wanted):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-6)


def sets(count=3, shots=2, height=32):
    shape = (count, shots, height, 16, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def planted(path, teacher=None, **method):
    """A UMTS run of random variables, its T-net within or a run that is given."""
    config = smoke.config()
    config.method.update(method)
    config.teachers = {'teacher': str(teacher)} if teacher else {}
    runs.start(path, config, {'classes': 8, 'data': ''})
    network = recipes.network(config, 8)
    made = recipes.method(config, network, {'teacher': network} if teacher else {})
    variables = random_init(made.init, recipes.blank_batch(config), seed=3)
    with checkpoints.manager(path) as saved:
        state = keeping.TrainState(np.array(4), variables, ())
        checkpoints.save(saved, 4, keeping.items(state), 0.5)
    return path


def as_numpy(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def projected(x, params, stats):
    x = x @ params['fc']['kernel'] + params['fc']['bias']
    return np.maximum(0, (x - stats['bn']['mean']) / np.sqrt(stats['bn']['var'] + EPSILON))


def vectors(network, variables, x):
    outputs = network.apply(variables, x)
    maps = [np.asarray(stage, np.float64).mean(axis=(1, 2)) for stage in outputs.stages]
    return [*maps, np.asarray(outputs.embedding, np.float64)]


def expected(path, of_sets):
    """σ² from equation 4, of vectors of the T-net per image and of what is beside the student."""
    restored = checkpoints.restore_network(path)
    kept = as_numpy(beside.variables_of(path, restored.step))
    params, stats = kept['params']['heads'], kept['batch_stats']['heads']
    singles = views.singles(augment.normalise(jnp.asarray(sets())))
    found = {}
    for number, (y, x) in enumerate(zip(of_sets, vectors(*restored[:2], singles)), 1):
        head, running = params[f'stage{number}'], stats[f'stage{number}']
        both = [projected(v, head[s], running[s]) for s, v in (('teacher', y), ('student', x))]
        scalar = head['log_variance']
        v = np.concatenate(both, axis=1) @ scalar['kernel'] + scalar['bias']
        found[number] = np.exp(np.maximum(0, v)).reshape(3, 2)
    return found


def taught(path, kind):
    """The T-net's vectors for every image of `sets`."""
    x = augment.normalise(jnp.asarray(sets()))
    if kind in ('stacked', 'joint'):
        stacked = jnp.concatenate([x[:, 0], x[:, 1]], axis=-1)
        if kind == 'joint':
            own = trees.part(beside.variables_of(path, 4), 'teacher')
            t_net = checkpoints.restore_network(path).network, own
        else:
            t_net = checkpoints.restore_network(path / 'teachers' / 'teacher')[:2]
        return [np.repeat(y, 2, axis=0) for y in vectors(*t_net, stacked)]
    t_net = checkpoints.restore_network(smoke.finished('supervised_carousel'))[:2]
    found = vectors(*t_net, views.singles(x))
    if kind == 'singles':
        return found
    return [np.repeat(y.reshape(3, 2, -1).mean(axis=1), 2, axis=0) for y in found]


@pytest.mark.parametrize('kind', ['stacked', 'joint', 'mean', 'singles'])
def test_the_uncertainty_of_every_shot_and_stage(kind, tmp_path):
    if kind == 'stacked':
        path = smoke.finished()
    elif kind == 'joint':
        path = planted(tmp_path, joint=True)
    else:
        path = planted(tmp_path, smoke.finished('supervised_carousel'), teacher_reads=kind)
    found, wanted = analysis.uncertainty(path, sets()), expected(path, taught(path, kind))
    assert list(found) == [1, 2, 3, 4, 5]
    for stage, values in found.items():
        assert values.shape == (3, 2)
        assert (values >= 1).all()
        near(values, wanted[stage])
    assert any(np.ptp(values) > 1e-3 for values in found.values())


def test_a_set_is_uncertain_whatever_sets_are_beside_it():
    whole = analysis.uncertainty(str(smoke.finished()), sets(), 'best')
    alone = analysis.uncertainty(smoke.finished(), sets()[1:2], 'best')
    for stage, values in alone.items():
        near(values, whole[stage][1:2])


def test_many_sets_are_computed_a_few_at_a_time(monkeypatch):
    whole = analysis.uncertainty(smoke.finished(), sets())
    monkeypatch.setattr(analysis, 'BATCH', 2)
    for stage, values in analysis.uncertainty(smoke.finished(), sets()).items():
        near(values, whole[stage])


def test_what_is_beside_the_student():
    """As the train step goes on with it; nothing in a baseline, a T-net where it trains along."""
    path, config = smoke.finished(), smoke.config()
    dataset = data.load(**config.data)
    parts = assembly.assemble(config, dataset, lineage.teachers(config, path))
    batch = recipes.blank_batch(config)
    state = loop.create_state(parts.method, parts.tx, batch, config.seed)
    with checkpoints.manager(path, create=False) as saved:
        wanted = checkpoints.restore(saved, 8, keeping.items(state))['training']['variables']
    found = beside.variables_of(path, 8)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert list(found['params']) == ['heads']
    assert beside.variables_of(smoke.finished('supervised_carousel'), 8) == {}
    with pytest.raises(RunError, match=r'has no checkpoint of step 3, but of \[.*8\]'):
        beside.variables_of(path, 3)


def test_joint_and_stages_of_its_own(tmp_path):
    path = planted(tmp_path, joint=True, stages=(5, 2))
    assert set(beside.variables_of(path, 4)['params']) == {'heads', 'teacher'}
    assert list(analysis.uncertainty(path, sets())) == [2, 5]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (
            sets(shots=3),
            r'images of shape \(3, 3, 32, 16, 3\): .* reads \(s, 2, 32, 16, 3\), s sets',
        ),
        (sets(height=48), r'images of shape \(3, 2, 48, 16, 3\)'),
        (sets()[0], r'images of shape \(2, 32, 16, 3\)'),
        (sets(0), r'images of shape \(0, 2, 32, 16, 3\)'),
        (sets() / 255, 'images of float64: .* reads uint8, and normalises itself'),
    ],
)
def test_other_sets_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        analysis.uncertainty(smoke.finished(), given)


def test_runs_without_uncertainty(tmp_path):
    other = smoke.finished('supervised_carousel')
    with pytest.raises(RunError, match=f'{other} learned no σ²: .* of supervised, not of umts'):
        analysis.uncertainty(other, sets())
    mts = planted(tmp_path / 'mts', joint=True, uncertainty=False)
    with pytest.raises(RunError, match=r'trained with method.uncertainty=False \(MTS\)'):
        analysis.uncertainty(mts, sets())
    with pytest.raises(RunError, match=r'is no run: it has no config\.json'):
        analysis.uncertainty(tmp_path / 'none', sets())
    with pytest.raises(ValueError, match="checkpoint='first': choose one of last, best"):
        analysis.uncertainty(mts, sets(), 'first')


def test_what_is_gone_of_a_run(tmp_path):
    """Its T-net, trained for it or named by its path, and its checkpoints."""
    run = smoke.copy(smoke.finished(), tmp_path / 'run')
    shutil.rmtree(run / 'teachers')
    with pytest.raises(RunError, match=f'{run}: .* T-net that saw it is gone: {run}/teachers'):
        analysis.uncertainty(run, sets())
    named = smoke.copy(smoke.finished('supervised_carousel'), tmp_path / 'named')
    run = planted(tmp_path / 'other', named, teacher_reads='mean')
    shutil.rmtree(named)
    with pytest.raises(RunError, match=f'{run}: .* T-net that saw it is gone: {named} is no run'):
        analysis.uncertainty(run, sets())
    shutil.rmtree(run / 'checkpoints')
    with pytest.raises(RunError, match=f'{run} has no checkpoint: train it first'):
        analysis.uncertainty(run, sets())
    with pytest.raises(RunError, match=f'{run} has no checkpoint: train it first'):
        beside.variables_of(run, 4)
