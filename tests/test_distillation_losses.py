"""VKD's two losses: against the numbers of its code, double loops, and at extremes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
from test_losses import PRECISIONS, as_arrays, assert_near, golden

from kd_jax import losses, parallel

LOGITS = {f'T{t}': partial(losses.soft_target_kl, temperature=float(t)) for t in (1, 2, 4, 10, 20)}
LOGITS['mse'] = losses.squared_logit_difference


def of_student(loss, teacher, student):
    """The mean loss and its gradient by what the student gives."""
    return jax.jit(jax.value_and_grad(lambda x: loss(teacher, x).mean()))(student)


@pytest.mark.parametrize(('dtype', 'tolerance'), PRECISIONS)
@pytest.mark.parametrize('key', LOGITS)
@pytest.mark.parametrize('case', ['a', 'c'])
def test_logits_of_vkd(case, key, dtype, tolerance):
    facts = golden('kd/' + case)
    with jax.enable_x64(dtype == np.float64):
        pair = as_arrays(dtype, facts['teacher_logits'], facts['student_logits'])
        value, gradient = of_student(LOGITS[key], *pair)
        assert value.dtype == dtype
        assert_near(value, facts[f'{key}_mean'], tolerance)
        assert_near(gradient, facts[f'{key}_mean_grad'], tolerance)


@pytest.mark.parametrize(('dtype', 'tolerance'), PRECISIONS)
@pytest.mark.parametrize('case', ['same_dim', 'cross_dim'])
def test_distances_of_vkd(case, dtype, tolerance):
    facts = golden('dp/' + case)
    with jax.enable_x64(dtype == np.float64):
        pair = as_arrays(dtype, facts['teacher_emb'], facts['student_emb'])
        value, gradient = of_student(losses.distance_preservation, *pair)
        assert value.dtype == dtype
        assert_near(value, facts['l2'], tolerance)
        assert_near(gradient, facts['l2_grad'], 3 * tolerance)


def test_the_kl_by_a_double_loop():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 5, 4)) * 3
    expected = []
    for t, s in zip(teacher / 2.5, student / 2.5):
        p, q = (np.exp(x) / np.exp(x).sum() for x in (t, s))
        expected.append(2.5**2 * sum(a * np.log(a / b) for a, b in zip(p, q)))
    with jax.enable_x64(True):
        found = losses.soft_target_kl(*as_arrays(np.float64, teacher, student), 2.5)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_distance_preservation_by_a_double_loop():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(6, 5)), rng.normal(size=(6, 3))
    expected = np.zeros(6)
    for i, j in np.ndindex(6, 6):
        apart = [((x[i] - x[j]) ** 2).sum() for x in (teacher, student)]
        expected[i] += 0.5 * (apart[1] - apart[0]) ** 2 / 6
    with jax.enable_x64(True):
        found = losses.distance_preservation(*as_arrays(np.float64, teacher, student))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_gradients():
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        pair = as_arrays(np.float64, *rng.normal(size=(2, 4, 3)))
        for loss in (*LOGITS.values(), losses.distance_preservation):
            of = lambda x, loss=loss: loss(pair[0], jnp.asarray(x))  # noqa: E731
            check_grads(of, (pair[1],), order=1, modes=['rev'], rtol=1e-5)


@pytest.mark.parametrize('loss', [*LOGITS.values(), losses.distance_preservation])
def test_what_agrees_costs_nothing(loss):
    same = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    value, gradient = of_student(loss, same, same)
    np.testing.assert_allclose(value, 0, atol=1e-4)  # T² is 400, times what rounds
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize('scale', [0.0, 1e-20, 1e4])
@pytest.mark.parametrize('loss', [LOGITS['T1'], LOGITS['T10'], losses.distance_preservation])
def test_extremes_are_finite(loss, scale):
    teacher, student = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)), jnp.float32)
    value, gradient = of_student(loss, scale * teacher, -scale * student)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_distances_see_the_examples_of_all_devices():
    rng = np.random.default_rng(0)
    teacher, student = (jnp.asarray(rng.normal(size=(8, d)), jnp.float32) for d in (5, 3))

    def mean(teacher, student):
        own = losses.distance_preservation(teacher, student, parallel.AXIS)
        return jax.lax.pmean(own.mean(), parallel.AXIS)

    mesh = parallel.mesh()
    options = {'in_specs': (P(parallel.AXIS),) * 2, 'out_specs': P(), 'check_vma': False}
    spread = jax.jit(jax.shard_map(mean, mesh=mesh, **options))
    whole = losses.distance_preservation(teacher, student).mean()
    np.testing.assert_allclose(spread(teacher, student), whole, rtol=1e-6)


def test_the_gradient_of_distances_comes_from_all_devices():
    """Each example is a row of its own device's loss and a column of all others'."""
    rng = np.random.default_rng(0)
    teacher, student = (jnp.asarray(rng.normal(size=(8, d)), jnp.float32) for d in (5, 3))

    def slope(teacher, student, axis_name=None):
        loss = partial(losses.distance_preservation, teacher, axis_name=axis_name)
        return jax.grad(lambda x: loss(x).mean())(student)

    mesh = parallel.mesh()
    options = {'in_specs': (P(parallel.AXIS),) * 2, 'out_specs': P(parallel.AXIS)}
    of_devices = partial(slope, axis_name=parallel.AXIS)
    spread = jax.jit(jax.shard_map(of_devices, mesh=mesh, check_vma=False, **options))
    whole = mesh.size * slope(teacher, student)  # a device has the mean over its own examples
    np.testing.assert_allclose(spread(teacher, student), whole, rtol=1e-5, atol=1e-5)
