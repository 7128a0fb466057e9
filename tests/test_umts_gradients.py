"""UMTS: who learns from what, of a step, of gradients, and of student and T-net at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import umts_networks
from network_options import create
from random_trees import random_init
from umts_networks import (
    LABELS,
    OBJECTIVE,
    REID,
    SHOTS,
    T_REID,
    UKD,
    make,
    near,
    nonzero,
    optimizer,
    stacked,
    teacher_variables,
)

from kd_jax import loop, parallel, trees
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


def test_a_step_leaves_the_teacher_and_frozen_heads_as_they_were(variables, teachers, batch):
    """The real step, thrice: whatever Adam and weight decay do to all else."""
    method = make(teacher_head='frozen', head_bn_affine=True, axis_name=parallel.AXIS)
    assert method.frozen == tuple(f'heads/stage{b}/teacher/' for b in umts.STAGES)
    before = random_init(method.init, batch)
    assert set(before['params']) == {'student', 'heads'}  # there is no teacher to update
    mesh = parallel.mesh(jax.devices()[:1])
    tx = optimizer(frozen=method.frozen)
    step = loop.make_train_step(method, lambda b: (b, b), tx, mesh, seed=0, steps=3)
    fresh = jax.tree.map(jnp.array, before)
    state = loop.TrainState(jnp.zeros((), jnp.int32), fresh, tx.init(fresh['params']))
    state, taught = parallel.replicate((state, jax.tree.map(jnp.array, teachers)), mesh)
    for _ in range(3):
        state, metrics = step(state, taught, batch)
    assert np.isfinite(metrics['loss'])
    jax.tree.map(np.testing.assert_array_equal, taught, teachers)
    old, new = (trees.named(tree['params']) for tree in (before, state.variables))
    unchanged = {name for name in old if np.array_equal(old[name], new[name])}
    leaves = ('fc/kernel', 'fc/bias', 'bn/scale', 'bn/bias')
    assert unchanged == {prefix + leaf for prefix in method.frozen for leaf in leaves}


@pytest.fixture(scope='module')
def gradients(variables, teachers, batch):
    """A compiled function: the gradients of the sum of the named terms."""
    targets = jax.jit(make().teach)(teachers, batch)

    @jax.jit
    def of(params, chosen):
        def total(params):
            losses = make().loss(variables | {'params': params}, targets, batch, None, 0.0)
            return sum(chosen[name] * term for name, term in losses.terms.items())

        return jax.grad(total)(params)

    def named(*terms, params=variables['params']):
        return of(params, {name: float(name in terms) for name in (*REID, *UKD)})

    return named


def test_the_re_id_loss_trains_only_the_student(gradients):
    found = gradients(*REID)
    assert nonzero(found['student']['conv1'])
    assert nonzero(found['student']['neck'])
    assert not nonzero(found['heads'])


@pytest.mark.parametrize('stage', umts.STAGES)
def test_a_stage_trains_its_heads_and_the_student_up_to_it(gradients, stage):
    found = gradients(f'stage{stage}')
    assert nonzero(found['student']['conv1'])
    for b in (1, 2, 3, 4):
        assert nonzero(found['student'][f'layer{b}_0']) == (b <= stage)
    assert not nonzero(found['student']['neck'])
    for b in umts.STAGES:
        sides = [nonzero(found['heads'][f'stage{b}'][s]['fc']) for s in ('teacher', 'student')]
        assert sides == [b == stage] * 2  # the paper trains θ_t with θ_s
        assert nonzero(found['heads'][f'stage{b}']['log_variance']) == (b == stage)


def test_trained_teacher_heads_change(gradients, variables):
    tx, method = optimizer(frozen=make().frozen), make(teacher_head='trained')
    assert method.frozen == ()

    @jax.jit
    def update(found, state, params):
        updates, state = tx.update(found, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, variables['params'])
    state = tx.init(params)
    for _ in range(3):
        params, state = update(gradients(*REID, *UKD, params=params), state, params)
    for b in umts.STAGES:
        old, new = (tree['heads'][f'stage{b}'] for tree in (variables['params'], params))
        assert np.abs(new['teacher']['fc']['kernel'] - old['teacher']['fc']['kernel']).max() > 1e-3


@pytest.fixture(scope='module')
def joint(batch):
    """End to end: (gradients of the named terms, losses, the T-net's own outputs), compiled."""
    method = make(joint=True)
    variables = random_init(method.init, batch)

    @jax.jit
    def of(params, chosen):
        def total(params):
            losses = method.loss(variables | {'params': params}, (), batch, None, 0.0)
            return sum(chosen[name] * term for name, term in losses.terms.items()), losses

        own = trees.part(variables, 'teacher')
        outputs = create().apply(own, stacked(batch.images), True, mutable=['batch_stats'])
        return *jax.grad(total, has_aux=True)(params), outputs

    def named(*terms):
        chosen = {name: float(name in terms) for name in (*REID, *T_REID, *UKD)}
        return of(variables['params'], chosen)

    return variables, named


def test_joint_variables(joint, batch):
    variables, _ = joint
    for tree in variables.values():
        assert set(tree) == {'student', 'heads', 'teacher'}
    assert variables['params']['teacher']['conv1']['kernel'].shape == (3, 3, 6, 4)
    assert make(joint=True).teach({}, batch) == ()


def test_joint_terms(joint):
    _, found = joint
    _, losses, (outputs, changed) = found(*REID)
    assert set(losses.terms) == {*REID, *T_REID, *UKD}
    objective = supervised.Objective(**OBJECTIVE)
    expected, log = supervised.terms(outputs, jnp.array(LABELS), objective, None)
    for name, value in expected.items():
        near(losses.terms[f'teacher_{name}'], value)
    near(losses.diagnostics['teacher_accuracy'], log['accuracy'])
    assert set(losses.batch_stats) == {'student', 'heads', 'teacher'}
    jax.tree.map(near, losses.batch_stats['teacher'], changed['batch_stats'])


def test_joint_the_t_net_learns_from_its_own_loss_only(joint):
    _, found = joint
    of_transfer = found(*UKD)[0]
    assert not nonzero(of_transfer['teacher'])
    assert nonzero(of_transfer['student'])
    assert nonzero(of_transfer['heads']['stage5']['teacher'])
    of_own = found(*T_REID)[0]
    assert nonzero(of_own['teacher']['conv1'])
    assert nonzero(of_own['teacher']['neck'])
    assert not nonzero((of_own['student'], of_own['heads']))
