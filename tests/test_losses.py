from functools import cache, partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from kd_jax import losses, parallel
from kd_jax.networks import network

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'losses.npz')
PRECISIONS = [(np.float64, 1e-6), (np.float32, 1e-5)]


def golden(case):
    return {key[len(case) + 1 :]: GOLDEN[key] for key in GOLDEN.files if key.startswith(case + '/')}


def assert_near(actual, expected, tolerance):
    """Relative to the largest expected value, so that gradients near zero do not decide."""
    atol = tolerance * np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=atol)


def as_arrays(dtype, *arrays):
    """Inexact arrays in `dtype`, labels as int32, on the device."""
    kinds = [dtype if np.issubdtype(np.asarray(x).dtype, np.inexact) else np.int32 for x in arrays]
    return [jnp.asarray(x, kind) for x, kind in zip(arrays, kinds)]


@cache
def compiled(loss):
    return jax.jit(jax.value_and_grad(lambda *arrays: loss(*arrays).mean()))


def value_and_grad(loss, *arrays):
    """The mean loss and its gradient by the first array, compiled once for every loss."""
    return compiled(loss)(*arrays)


# The numbers of VKD's code.


@pytest.mark.parametrize(('dtype', 'tolerance'), PRECISIONS)
@pytest.mark.parametrize(
    ('key', 'smoothing'), [('plain', 0.0), ('smooth0.1', 0.1), ('smooth0.2', 0.2)]
)
@pytest.mark.parametrize('case', ['a', 'b'])
def test_cross_entropy_of_vkd(case, key, smoothing, dtype, tolerance):
    facts = golden('ce/' + case)
    with jax.enable_x64(dtype == np.float64):
        logits, labels = as_arrays(dtype, facts['logits'], facts['labels'])
        loss = partial(losses.cross_entropy, smoothing=smoothing)
        value, gradient = value_and_grad(loss, logits, labels)
        assert value.dtype == dtype
        assert_near(value, facts[f'{key}_mean'], tolerance)
        assert_near(gradient, facts[f'{key}_mean_grad'], tolerance)


def unit(x):
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


MARGINS = {None: losses.batch_hard_triplet, 0.3: partial(losses.batch_hard_triplet, margin=0.3)}
squared_distances = jax.jit(losses.squared_distances)
TRIPLETS = {
    'soft_mean': MARGINS[None],
    'm0.3_mean': MARGINS[0.3],
    'soft_mean_l2norm': lambda x, labels: losses.batch_hard_triplet(unit(x), labels),
}


@pytest.mark.parametrize('key', TRIPLETS)
@pytest.mark.parametrize(
    ('case', 'dtype', 'tolerance'),
    [('p4k4', *PRECISIONS[0]), ('singletons', *PRECISIONS[0])]
    + [('p8k4', *precision) for precision in PRECISIONS],
)
def test_triplets_of_vkd(case, key, dtype, tolerance):
    facts = golden('tri/' + case)
    with jax.enable_x64(dtype == np.float64):
        embeddings, labels = as_arrays(dtype, facts['emb'], facts['ids'])
        value, gradient = value_and_grad(TRIPLETS[key], embeddings, labels)
        assert value.dtype == dtype
        assert_near(value, facts[key], tolerance)
        assert_near(gradient, facts[key + '_grad'], tolerance)
        distances = squared_distances(embeddings, embeddings)
        off_diagonal = ~np.eye(len(labels), dtype=bool)
        expected = np.square(facts['dist'])[off_diagonal]
        assert_near(np.asarray(distances)[off_diagonal], expected, tolerance)


@pytest.mark.parametrize('dtype', [np.float64, np.float32])
def test_a_gap_that_overflows_an_exponential(dtype):
    facts = golden('tri_overflow')
    with jax.enable_x64(dtype == np.float64):
        embeddings, labels = as_arrays(dtype, facts['emb'], facts['ids'])
        value, gradient = value_and_grad(losses.batch_hard_triplet, embeddings, labels)
        assert_near(value, facts['loss_f64'], 1e-6)
        assert np.isfinite(gradient).all()


def neck(facts, dtype, train):
    """The rows' logits, the mean over the views, through the network's own neck."""
    norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
    classes, width = facts['cls_weight'].shape
    module = network.Neck('bnneck', width, classes, norm)
    arrays = as_arrays(dtype, *(facts[k] for k in ('bn_weight', 'cls_weight', 'bn_mean0')))
    scale, kernel, mean = arrays
    statistics = {'neck_bn': {'mean': mean, 'var': jnp.asarray(facts['bn_var0'], dtype)}}

    def apply(params, x):
        variables = {'params': params, 'batch_stats': statistics}
        rows = x.reshape(-1, x.shape[-1])
        (_, _, logits), new = module.apply(variables, rows, mutable=['batch_stats'])
        return logits.reshape(*x.shape[:2], classes).mean(axis=1), new['batch_stats']['neck_bn']

    return apply, {'neck_bn': {'scale': scale}, 'classifier': {'kernel': kernel.T}}


@pytest.mark.parametrize(('dtype', 'tolerance'), PRECISIONS)
def test_neck_of_vkd(dtype, tolerance):
    facts = golden('head')
    with jax.enable_x64(dtype == np.float64):
        x, cotangent = as_arrays(dtype, facts['x'], facts['cotangent'])
        apply, params = neck(facts, dtype, train=False)
        assert_near(apply(params, x)[0], facts['logits_eval'], tolerance)
        apply, params = neck(facts, dtype, train=True)
        logits, pull, running = jax.vjp(jax.jit(apply), params, x, has_aux=True)
        assert_near(logits, facts['logits_train'], tolerance)
        of_params, of_x = pull(cotangent)
        assert_near(of_x, facts['grad_x'], tolerance)
        assert_near(of_params['neck_bn']['scale'], facts['grad_bn_weight'], tolerance)
        assert_near(of_params['classifier']['kernel'].T, facts['grad_cls_weight'], tolerance)
        assert_near(running['mean'], facts['bn_mean1'], tolerance)
        # PyTorch puts the unbiased variance of the batch in the running one, Flax the biased.
        rows = facts['x'].shape[0] * facts['x'].shape[1]
        unbiased = (running['var'] - 0.9 * facts['bn_var0']) * rows / (rows - 1)
        assert_near(0.9 * facts['bn_var0'] + unbiased, facts['bn_var1'], tolerance)


# Loops written from the equations.


def plain_cross_entropy(logits, labels, smoothing):
    rows = []
    for row, label in zip(logits, labels):
        total = 0.0
        for c, logit in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing) * (c == label)
            total -= target * (logit - np.log(np.exp(row).sum()))
        rows.append(total)
    return np.array(rows)


def plain_triplet(embeddings, labels, margin):
    rows = []
    for i, (x, label) in enumerate(zip(embeddings, labels)):
        positive, negative = 0.0, np.inf
        for j, (y, other) in enumerate(zip(embeddings, labels)):
            distance = np.sqrt(((x - y) ** 2).sum())
            if label != other:
                negative = min(negative, distance)
            elif i != j:
                positive = max(positive, distance)
        gap = positive - negative
        rows.append(np.logaddexp(gap, 0) if margin is None else max(margin + gap, 0))
    return np.array(rows)


def plain_regression(target, prediction):
    return np.array([sum((a - b) ** 2 for a, b in zip(t, p)) for t, p in zip(target, prediction)])


def examples(seed=0, b=12, d=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, b)
    return rng.normal(size=(b, d)), rng.normal(size=(b, d)), labels, rng.normal(size=b)


CALLS = {
    'cross_entropy': lambda x, y, labels, v: losses.cross_entropy(x, labels),
    'cross_entropy_smooth': lambda x, y, labels, v: losses.cross_entropy(x, labels, 0.1),
    'triplet_soft': lambda x, y, labels, v: losses.batch_hard_triplet(x, labels),
    'triplet_hinge': lambda x, y, labels, v: losses.batch_hard_triplet(x, labels, 0.5),
    'squared_distances': lambda x, y, labels, v: losses.squared_distances(x, y),
    'regression': lambda x, y, labels, v: losses.regression(y, x),
    'uncertain_regression': lambda x, y, labels, v: losses.uncertain_regression(y, x, v),
}
PLAIN = {
    'cross_entropy': lambda x, y, labels, v: plain_cross_entropy(x, labels, 0.0),
    'cross_entropy_smooth': lambda x, y, labels, v: plain_cross_entropy(x, labels, 0.1),
    'triplet_soft': lambda x, y, labels, v: plain_triplet(x, labels, None),
    'triplet_hinge': lambda x, y, labels, v: plain_triplet(x, labels, 0.5),
    'squared_distances': lambda x, y, labels, v: np.stack(
        [plain_regression(np.broadcast_to(row, y.shape), y) for row in x]
    ),
    'regression': lambda x, y, labels, v: plain_regression(y, x),
    'uncertain_regression': lambda x, y, labels, v: 0.5 * np.exp(-v) * plain_regression(y, x) + v,
}
COMPILED = {name: jax.jit(call) for name, call in CALLS.items()}
PER_EXAMPLE = [name for name in CALLS if not name.startswith(('triplet', 'squared'))]


@pytest.mark.parametrize(('dtype', 'tolerance'), PRECISIONS)
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', CALLS)
def test_against_plain_loops(name, seed, dtype, tolerance):
    arrays = examples(seed)
    with jax.enable_x64(dtype == np.float64):
        actual = COMPILED[name](*as_arrays(dtype, *arrays))
    assert actual.shape == ((12, 12) if name == 'squared_distances' else (12,))
    assert actual.dtype == dtype
    assert_near(actual, PLAIN[name](*arrays), tolerance)


@pytest.mark.parametrize('name', CALLS)
def test_gradients_by_finite_differences(name):
    with jax.enable_x64(True):
        x, y, labels, v = as_arrays(np.float64, *examples())
        loss = partial(COMPILED[name], labels=labels)
        check_grads(lambda x, y, v: loss(x, y, v=v), (x, y, v), order=1, modes=['fwd', 'rev'])


@pytest.mark.parametrize('name', CALLS)
def test_compiled_as_eager(name):
    arrays = as_arrays(np.float32, *examples())
    eager = jax.value_and_grad(lambda *arrays: CALLS[name](*arrays).mean())(*arrays)
    compiled = value_and_grad(CALLS[name], *arrays)
    jax.tree.map(partial(assert_near, tolerance=1e-6), compiled, eager)


@pytest.mark.parametrize('name', PER_EXAMPLE)
def test_masked_as_sliced(name):
    arrays = as_arrays(np.float32, *examples())
    mask = np.arange(12) % 3 > 0
    sliced = [x[mask] for x in arrays]
    loss = COMPILED[name]
    assert_near(loss(*arrays)[mask], loss(*sliced), 1e-6)
    masked = jax.grad(lambda x: jnp.where(mask, loss(x, *arrays[1:]), 0).sum())(arrays[0])
    of_slice = jax.grad(lambda x: loss(x, *sliced[1:]).sum())(sliced[0])
    assert_near(masked[mask], of_slice, 1e-6)
    assert not masked[~mask].any()


def test_worked_examples():
    logits, label = jnp.zeros((1, 4)), jnp.array([2])
    np.testing.assert_allclose(losses.cross_entropy(logits, label), np.log(4), rtol=1e-6)
    line, labels = jnp.array([[0.0], [3.0], [5.0]]), jnp.array([0, 0, 1])
    hinge = jax.jit(partial(losses.batch_hard_triplet, margin=0.5))(line, labels)
    np.testing.assert_allclose(hinge, [0.0, 1.5, 0.0], atol=1e-5)  # gaps -2, 1, -2
    one, two = jnp.array([[1.0, 2.0]]), jnp.array([[2.0, 4.0]])
    assert losses.regression(one, two).tolist() == [5]
    variance = losses.uncertain_regression(one, two, jnp.log(jnp.array([2.0])))
    np.testing.assert_allclose(variance, 5 / 4 + np.log(2), rtol=1e-6)


def test_the_best_log_variance_is_that_of_half_the_squared_distance():
    one, two = jnp.array([[1.0, 2.0]]), jnp.array([[2.0, 4.0]])
    slope = jax.grad(lambda v: losses.uncertain_regression(one, two, v).sum())
    np.testing.assert_allclose(slope(jnp.log(jnp.array([2.5]))), 0, atol=1e-6)


# Extremes in float32.


def assert_finite(loss, *arrays):
    value, gradient = value_and_grad(loss, *arrays)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    return value, gradient


@pytest.mark.parametrize('margin', MARGINS)
@pytest.mark.parametrize('scale', [0.0, 1e-10, 1.0, 100.0])
def test_identical_embeddings(scale, margin):
    x, _, labels, _ = examples()
    embeddings, labels = as_arrays(np.float32, np.tile(scale * x[:1], (12, 1)), labels)
    loss = MARGINS[margin]
    value, gradient = assert_finite(loss, embeddings, labels)
    # Float32 tells points at |x| from each other only from about |x| / 1000 on.
    slack = 1e-6 + 1e-2 * scale
    np.testing.assert_allclose(value, np.log(2) if margin is None else margin, atol=slack)
    assert not gradient.any() or scale


@pytest.mark.parametrize('margin', MARGINS)
def test_one_identity_alone_costs_nothing(margin):
    embeddings, labels = as_arrays(np.float32, examples()[0], np.zeros(12, int))
    loss = MARGINS[margin]
    value, gradient = assert_finite(loss, embeddings, labels)
    assert value == 0
    assert not gradient.any()


def test_one_image_alone_costs_nothing():
    embeddings, labels = as_arrays(np.float32, np.ones((1, 3)), np.zeros(1, int))
    value, gradient = assert_finite(losses.batch_hard_triplet, embeddings, labels)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize('margin', MARGINS)
def test_singletons_are_pushed_apart(margin):
    x = examples()[0]
    embeddings, labels = as_arrays(np.float32, x, np.arange(12))
    loss = MARGINS[margin]
    value, _ = assert_finite(loss, embeddings, labels)
    assert_near(value, plain_triplet(x, np.arange(12), margin).mean(), 1e-5)


@pytest.mark.parametrize('margin', MARGINS)
@pytest.mark.parametrize('scale', [1e-20, 1e4, 1e15])
def test_tiny_and_huge_embeddings(scale, margin):
    x, _, labels, _ = examples()
    value, _ = assert_finite(MARGINS[margin], *as_arrays(np.float32, scale * x, labels))
    assert_near(value, plain_triplet(scale * x, labels, margin).mean(), 1e-5)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_huge_logits(smoothing):
    x, _, labels, _ = examples()
    logits, targets = as_arrays(np.float32, 1e4 * x, labels)
    loss = partial(losses.cross_entropy, smoothing=smoothing)
    value, _ = assert_finite(loss, logits, targets)
    log_p = 1e4 * (x - x.max(axis=1, keepdims=True))
    of_label = np.take_along_axis(log_p, labels[:, None], 1)[:, 0]
    expected = -(1 - smoothing) * of_label - smoothing * log_p.mean(1)
    assert_near(value, expected.mean(), 1e-5)


@pytest.mark.parametrize('log_variance', [-80.0, 0.0, 80.0, 1e4])
def test_huge_log_variances(log_variance):
    x, y, *_ = as_arrays(np.float32, *examples())
    v = jnp.full(12, log_variance)
    for loss, first in (
        (lambda v: losses.uncertain_regression(y, x, v), v),
        (lambda x: losses.uncertain_regression(y, x, v), x),
        (lambda x: losses.uncertain_regression(x, x, v), x),
    ):
        assert_finite(loss, first)


# Several devices.


@pytest.mark.parametrize('margin', MARGINS)
def test_triplets_across_devices(margin):
    mesh = parallel.mesh()
    assert mesh.size == 4
    embeddings, labels = as_arrays(np.float32, *(examples(b=16)[i] for i in (0, 2)))
    loss = MARGINS[margin]
    across, sharded = partial(loss, axis_name=parallel.AXIS), P(parallel.AXIS)
    mapped = jax.jit(
        jax.shard_map(across, mesh=mesh, in_specs=sharded, out_specs=sharded, check_vma=False)
    )
    assert_near(mapped(embeddings, labels), loss(embeddings, labels), 1e-6)
    assert not np.allclose(loss(embeddings[:4], labels[:4]), mapped(embeddings, labels)[:4])
    actual = value_and_grad(mapped, embeddings, labels)
    expected = value_and_grad(loss, embeddings, labels)
    jax.tree.map(partial(assert_near, tolerance=1e-5), actual, expected)


@pytest.mark.parametrize('margin', MARGINS)
def test_gradients_averaged_over_devices_are_those_of_the_whole_batch(margin):
    x, _, labels, _ = as_arrays(np.float32, *examples(b=16))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    triplet = MARGINS[margin]

    def step(weights, x, labels):
        loss = partial(triplet, labels=labels, axis_name=parallel.AXIS)
        found = jax.value_and_grad(lambda weights: loss(x @ weights).mean())(weights)
        return jax.lax.pmean(found, parallel.AXIS)

    specs = P(), P(parallel.AXIS), P(parallel.AXIS)
    mapped = jax.shard_map(
        step, mesh=parallel.mesh(), in_specs=specs, out_specs=P(), check_vma=False
    )
    expected = value_and_grad(lambda weights: triplet(x @ weights, labels), weights)
    jax.tree.map(
        partial(assert_near, tolerance=1e-5), jax.jit(mapped)(weights, x, labels), expected
    )
