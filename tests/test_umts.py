"""UMTS: the terms of its loss, and what the T-net gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import umts_networks
from network_options import create
from random_trees import random_init
from umts_networks import (
    LABELS,
    OBJECTIVE,
    OPTIONS,
    REID,
    SETS,
    SHOTS,
    UKD,
    make,
    near,
    singles,
    stacked,
    t_net,
    teacher_variables,
)

from kd_jax import trees
from kd_jax.methods import supervised, umts


@pytest.fixture(scope='module')
def batch():
    return umts_networks.batch()


@pytest.fixture(scope='module')
def teachers():
    return {'teacher': teacher_variables(3 * SHOTS)}


@pytest.fixture(scope='module')
def variables(batch):
    # With this seed each stage has log-variances of zero and others.
    return random_init(make().init, batch, seed=11)


def set_means(values):
    return [np.mean(np.split(np.asarray(x), SETS), axis=1) for x in values]


METHODS = {
    'umts': {},
    'mts': {'uncertainty': False},
    'stages 1, 5': {'stages': (1, 5)},
}


@pytest.fixture(scope='module')
def forward():
    """One compiled function: targets, losses by `METHODS`, and the two networks' own outputs."""

    @jax.jit
    def everything(variables, teachers, batch):
        targets = make().teach(teachers, batch)
        of_student = {kind: tree['student'] for kind, tree in variables.items()}
        images = singles(batch.images)
        return {
            'targets': targets,
            'losses': {
                name: make(**options).loss(variables, targets, batch, None, 0.0)
                for name, options in METHODS.items()
            },
            'student': create().apply(of_student, images, True, mutable=['batch_stats']),
            'embedding': make().embed({k: {'student': v} for k, v in of_student.items()}, batch[0]),
            'inference': create().apply(of_student, images),
            'teacher': t_net().apply(teachers['teacher'], stacked(batch.images), train=False),
        }

    return everything


@pytest.fixture(scope='module')
def found(forward, variables, teachers, batch):
    return forward(variables, teachers, batch)


def vectors_of(outputs):
    return [*(np.mean(stage, (1, 2)) for stage in outputs.stages), np.asarray(outputs.embedding)]


def plain_projection(params, x):
    y = np.asarray(x, float) @ params['fc']['kernel'] + params['fc']['bias']
    return np.maximum((y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5), 0)


def plain_stage(params, teacher, student):
    """d² and v of every image (UMTS eq. 3, 4), by a loop over sets and shots."""
    of_sets, of_images = (
        plain_projection(params[side], x)
        for side, x in (('teacher', teacher), ('student', student))
    )
    scalar = params['log_variance']
    rows = []
    for p in range(SETS):
        for k in range(SHOTS):
            t, s = of_sets[p], of_images[p * SHOTS + k]
            v = np.concatenate([t, s]) @ scalar['kernel'][:, 0] + scalar['bias'][0]
            rows.append((np.sum((t - s) ** 2), max(v, 0.0)))
    return np.transpose(rows), of_sets


# What the loss is made of.


def test_terms(found, variables):
    """Equations 2, 3 and 5 from the outputs of the two networks."""
    outputs, _ = found['student']
    labels = np.repeat(LABELS, SHOTS)
    objective = supervised.Objective(**OBJECTIVE)
    reid, _ = supervised.terms(outputs, jnp.asarray(labels), objective, None)
    stages = zip(vectors_of(found['teacher']), vectors_of(outputs))
    expected, unweighted = dict(reid), dict(reid)
    for b, (weight, (teacher, student)) in enumerate(zip(OPTIONS['weights'], stages), 1):
        params = variables['params']['heads'][f'stage{b}']
        (d2, v), of_sets = plain_stage(params, teacher, student)
        expected[f'stage{b}'] = weight * np.mean(np.exp(-v) / 2 * d2 + v)
        unweighted[f'stage{b}'] = weight * np.mean(d2)
        assert 0 < np.sum(v == 0) < len(v)
        log = found['losses']['umts'].diagnostics
        near(log[f'stage{b}_norm'], np.mean(np.sum(of_sets**2, 1)))
        near(log[f'stage{b}_log_ratio'], np.log(d2.mean() / np.mean(np.sum(of_sets**2, 1))))
        near(log[f'stage{b}_log_variance'], np.mean(v))
        near(log[f'stage{b}_rank'], umts.effective_rank(jnp.asarray(of_sets)))
    for name, terms in (('umts', expected), ('mts', unweighted)):
        assert set(terms) == {*REID, *UKD}
        assert set(found['losses'][name].terms) == set(terms)
        for key, value in terms.items():
            near(found['losses'][name].terms[key], value)
    assert 'accuracy' in found['losses']['umts'].diagnostics
    assert 'stage1_log_variance' not in found['losses']['mts'].diagnostics


def test_with_certainty_umts_is_half_of_mts(forward, variables, teachers, batch):
    certain = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if 'log_variance' in str(path) else leaf, variables
    )
    losses = forward(certain, teachers, batch)['losses']
    for name in UKD:
        near(2 * losses['umts'].terms[name], losses['mts'].terms[name])
        assert losses['mts'].terms[name] > 0


def test_some_stages_make_only_their_terms(found, batch):
    some, every = found['losses']['stages 1, 5'], found['losses']['umts']
    assert set(some.terms) == {*REID, 'stage1', 'stage5'}
    for name, value in some.terms.items():
        near(value, every.terms[name])
    assert 'stage2_rank' not in some.diagnostics
    variables = jax.eval_shape(make(stages=(1, 5)).init, jax.random.key(0), batch)
    assert set(variables['params']['heads']) == {'stage1', 'stage5'}
    assert set(variables['batch_stats']['heads']) == {'stage1', 'stage5'}


def test_statistics_after_the_pass(found, variables):
    stats = found['losses']['umts'].batch_stats
    assert jax.tree.structure(stats) == jax.tree.structure(variables['batch_stats'])
    jax.tree.map(near, stats['student'], found['student'][1]['batch_stats'])
    y = vectors_of(found['teacher'])[4]
    layer = variables['params']['heads']['stage5']['teacher']['fc']
    before = variables['batch_stats']['heads']['stage5']['teacher']['bn']['mean']
    after = stats['heads']['stage5']['teacher']['bn']['mean']
    near(after, 0.9 * before + 0.1 * (y @ layer['kernel'] + layer['bias']).mean(0))


def test_variables(batch):
    variables = jax.eval_shape(make().init, jax.random.key(0), batch)
    assert set(variables['params']) == set(variables['batch_stats']) == {'student', 'heads'}
    params = trees.named(variables['params'])
    assert params['student/conv1/kernel'].shape == (3, 3, 3, 4)
    widths = [params[f'heads/stage{b}/student/fc/kernel'].shape for b in umts.STAGES]
    assert widths == [(4, 4), (8, 4), (16, 8), (32, 8), (32, 8)]
    assert params['heads/stage5/teacher/fc/kernel'].shape == (16, 8)  # the T-net's own width
    assert make().frozen == ()


def test_embeddings_ask_only_the_student(found):
    assert found['embedding'].shape == (SETS, 32)
    near(found['embedding'], set_means([found['inference'].embedding])[0])


# The teacher.


def test_targets_are_the_t_nets_in_inference_mode(found):
    assert [x.shape for x in found['targets']] == [(SETS, c) for c in (4, 8, 16, 32, 16)]
    for actual, expected in zip(found['targets'], vectors_of(found['teacher'])):
        near(actual, expected)


def test_targets_of_a_set_do_not_depend_on_the_others(forward, found, variables, teachers, batch):
    other = batch._replace(images=batch.images.at[1:].multiply(3.0))
    targets = forward(variables, teachers, other)['targets']
    for before, after in zip(found['targets'], targets):
        np.testing.assert_array_equal(after[0], before[0])
        assert not np.allclose(after[1:], before[1:])


def test_targets_of_single_images(batch):
    """`mean`: an average over the shots of all five vectors; `singles`: a target per image."""
    teachers = {'teacher': teacher_variables(3)}
    mean, single = (make(teacher_reads=reads) for reads in ('mean', 'singles'))

    @jax.jit
    def everything(teachers, batch):
        targets = [method.teach(teachers, batch) for method in (mean, single)]
        return *targets, t_net().apply(teachers['teacher'], singles(batch.images))

    of_sets, of_images, outputs = everything(teachers, batch)
    vectors = vectors_of(outputs)
    jax.tree.map(near, list(of_images), vectors)
    jax.tree.map(near, list(of_sets), set_means(vectors))
    for method, targets, rows in ((mean, of_sets, SETS), (single, of_images, SETS * SHOTS)):
        assert {len(x) for x in targets} == {rows}
        variables = jax.eval_shape(method.init, jax.random.key(0), batch)
        losses = jax.eval_shape(method.loss, variables, targets, batch, None, 0.0)
        assert set(losses.terms) == {*REID, *UKD}
