"""UMTS: what is logged of its heads, and the trap that it shows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from random_trees import random_variables
from umts_networks import OPTIONS, SETS, SHOTS, near, optimizer

from kd_jax import heads, parallel
from kd_jax.heads import Matched
from kd_jax.methods import umts


def matched(seed=0, equal=False, sets=SETS, width=6):
    rng = np.random.default_rng(seed)
    of_sets, noise = (np.abs(rng.normal(size=(n, width))) for n in (sets, sets * SHOTS))
    target = np.repeat(of_sets, SHOTS, axis=0)
    values = target, target if equal else noise, np.abs(rng.normal(size=sets * SHOTS)), of_sets
    return Matched(*(jnp.asarray(x, jnp.float32) for x in values))


def diagnostics(one, axis_name=None):
    weights = OPTIONS['weights']
    return umts.terms({3: one}, weights=weights, uncertainty=True, axis_name=axis_name)[1]


def test_the_log_ratio_falls_without_end_where_the_heads_are_equal():
    assert abs(diagnostics(matched())['stage3_log_ratio']) < 2
    assert diagnostics(matched(equal=True))['stage3_log_ratio'] < -25


def test_the_norm_is_zero_where_the_heads_are():
    zero = jax.tree.map(jnp.zeros_like, matched())
    log = diagnostics(zero)
    assert log['stage3_norm'] == log['stage3_rank'] == 0
    assert all(np.isfinite(value) for value in log.values())


def test_diagnostics_across_devices():
    one = matched(sets=8)
    mapped = jax.shard_map(
        partial(diagnostics, axis_name=parallel.AXIS),
        mesh=parallel.mesh(),
        in_specs=P(parallel.AXIS),
        out_specs=P(),
        check_vma=False,
    )
    expected = diagnostics(one)
    actual = jax.jit(mapped)(one)
    for name in ('norm', 'log_ratio', 'rank'):
        near(actual[f'stage3_{name}'], expected[f'stage3_{name}'])
    two = Matched(*(x[: len(x) // 4] for x in one))
    assert not np.allclose(diagnostics(two)['stage3_rank'], actual['stage3_rank'])


def test_effective_ranks():
    line = jnp.outer(jnp.arange(5.0), jnp.array([1.0, -2.0, 3.0]))
    np.testing.assert_allclose(umts.effective_rank(line), 1, rtol=1e-5)
    np.testing.assert_allclose(umts.effective_rank(line + 7.0), 1, rtol=1e-3)  # about the mean
    for n in (2, 5, 9):
        np.testing.assert_allclose(umts.effective_rank(jnp.eye(n)), n - 1, rtol=1e-5)
        np.testing.assert_allclose(umts.effective_rank(3 * jnp.eye(n) + 1), n - 1, rtol=1e-4)
    assert umts.effective_rank(jnp.ones((4, 3))) == 0


# The trap of the literal text: zero is the best that the transfer alone can do.


def norms_over_training(affine, steps=400, sets=8, width=16):
    """|θ_t|² at each step of a linear student under eq. 3 alone, its teacher seeing more."""
    match = heads.StageHeads((1,), (2,), True, affine, None)
    mixing = jax.random.normal(jax.random.key(0), (width, width)) / 4
    tx = optimizer()

    def draw(key):
        of_set, of_shot = (jax.random.fold_in(key, i) for i in range(2))
        who = jax.random.normal(of_set, (sets, width))
        shots = who[:, None] + jax.random.normal(of_shot, (sets, SHOTS, width))
        return jnp.tanh(2 * who @ mixing), shots.reshape(-1, width)

    teacher, student = draw(jax.random.key(1))
    shapes = jax.eval_shape(
        lambda: match.init(jax.random.key(0), (teacher,), (student,), train=False)
    )
    start = random_variables(shapes)
    if affine:
        for side in ('teacher', 'student'):
            start['params']['stage1'][side]['bn'] = {'scale': np.ones(8), 'bias': np.zeros(8)}
    params = jax.tree.map(
        partial(jnp.asarray, dtype=jnp.float32),
        {'heads': start['params'], 'student': np.eye(width)},
    )

    def loss(params, key):
        teacher, student = draw(key)
        own = start | {'params': params['heads']}
        sides = (teacher,), (student @ params['student'],)
        matched, _ = match.apply(own, *sides, train=True, mutable=['batch_stats'])
        terms, log = umts.terms(matched, weights=[1.0] * 5, uncertainty=True, axis_name=None)
        return terms['stage1'], log['stage1_norm']

    def step(carried, key):
        params, state = carried
        found, norm = jax.grad(loss, has_aux=True)(params, key)
        updates, state = tx.update(found, state, params)
        return (optax.apply_updates(params, updates), state), norm

    def training(params):
        keys = jax.random.split(jax.random.key(2), steps)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[1]

    return np.asarray(jax.jit(training)(params))


@pytest.mark.parametrize('affine', [True, False])
def test_trained_teacher_heads_with_an_affine_batch_norm_collapse(affine):
    """Assumption A-UMTS-HEAD: an affine BatchNorm lets both heads shrink to zero."""
    norms = norms_over_training(affine)
    first, last = norms[:10].mean(), norms[-10:].mean()
    assert first > 2
    if affine:
        assert last < 0.02 * first
    else:
        assert 0.8 * first < last < 1.25 * first
