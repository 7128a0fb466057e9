"""What ties branches of a network, and parts of it to teachers: by double loops, at extremes."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_vjp
from test_losses import PRECISIONS, as_arrays, assert_near, plain_triplet

from kd_jax import losses, parallel


def of_logits(branch, peer, labels):
    return losses.consensus_cosine(jax.nn.softmax(branch), jax.nn.softmax(peer))


CALLS = {
    'cosine': of_logits,
    'distance': lambda x, y, labels, **kw: losses.consensus_distance(x, y, **kw),
    'hard_soft': lambda x, y, labels, **kw: losses.consensus_hard(x, y, labels, **kw),
    'hard_hinge': lambda x, y, labels, **kw: losses.consensus_hard(x, y, labels, 0.3, **kw),
    'direction': lambda x, y, labels: losses.direction_regression(y, x),
}
MARGINS = {'hard_soft': None, 'hard_hinge': 0.3}
triplet = jax.jit(losses.batch_hard_triplet, static_argnames='margin')


def examples(seed=0, b=12, width=5, of_peer=5):
    """Branch, peer and labels, of which some identities have a single image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, b)
    return rng.normal(size=(b, width)), rng.normal(size=(b, of_peer)), labels


@cache
def compiled(name):
    """Values per example, with the gradients of their mean by the branch and by its peer."""

    def mean(branch, peer, labels):
        values = CALLS[name](branch, peer, labels)
        return values.mean(), values

    return jax.jit(jax.value_and_grad(mean, argnums=(0, 1), has_aux=True))


def found(name, dtype, *arrays):
    (_, values), (of_branch, of_peer) = compiled(name)(*as_arrays(dtype, *arrays))
    return values, of_branch, of_peer


# Loops written from the equations.


def plain_distances(x):
    table = np.zeros((len(x), len(x)))
    for i, j in np.ndindex(*table.shape):
        table[i, j] = np.sqrt(max(sum((a - b) ** 2 for a, b in zip(x[i], x[j])), 1e-12))
    return table


def plain_cosine(branch, peer, labels):
    rows = []
    for x, y in zip(branch, peer):
        p, q = (np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in (x, y))
        rows.append(1 - sum(a * b for a, b in zip(p, q)) / np.sqrt((p @ p) * (q @ q)))
    return np.array(rows)


def plain_distance(branch, peer, labels):
    own, of_peer = plain_distances(branch), plain_distances(peer)
    rows = np.zeros(len(own))
    for i, j in np.ndindex(*own.shape):
        rows[i] += (own[i, j] - of_peer[i, j]) ** 2 / len(own)
    return rows


def picks(table, labels, i):
    """The farthest other image of the identity of i and the nearest of another, or None."""
    positives = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i]
    negatives = [j for j in range(len(labels)) if labels[j] != labels[i]]
    farthest = max(positives, key=lambda j: table[i, j], default=None)
    return farthest, min(negatives, key=lambda j: table[i, j], default=None)


def plain_hard(branch, peer, labels, margin, pick=picks):
    """Triplets of the branch's distances with what is hard to the peer."""
    own, of_peer = plain_distances(branch), plain_distances(peer)
    rows = []
    for i in range(len(labels)):
        positive, negative = pick(of_peer, labels, i)
        gap = 0.0 if positive is None else own[i, positive]
        gap -= np.inf if negative is None else own[i, negative]
        rows.append(np.logaddexp(gap, 0) if margin is None else max(margin + gap, 0))
    return np.array(rows)


def plain_direction(branch, peer, labels):
    rows = []
    for x, y in zip(branch, peer):
        x, y = (z / np.sqrt(max(z @ z, 1e-12)) for z in (x, y))
        rows.append(sum((a - b) ** 2 for a, b in zip(x, y)))
    return np.array(rows)


PLAIN = {'cosine': plain_cosine, 'distance': plain_distance, 'direction': plain_direction}
PLAIN |= {name: partial(plain_hard, margin=margin) for name, margin in MARGINS.items()}


@pytest.mark.parametrize(('dtype', 'tolerance'), [(np.float64, 1e-9), PRECISIONS[1]])
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', CALLS)
def test_against_double_loops(name, seed, dtype, tolerance):
    arrays = examples(seed)
    with jax.enable_x64(dtype == np.float64):
        values, of_branch, of_peer = found(name, dtype, *arrays)
    assert (values.shape, values.dtype) == ((12,), dtype)
    assert_near(values, PLAIN[name](*arrays), tolerance)
    assert np.asarray(of_branch).any()
    assert not np.asarray(of_peer).any()  # a peer is detached


@pytest.mark.parametrize('name', ['distance', 'hard_hinge'])
def test_a_peer_of_another_width(name):
    arrays = examples(of_peer=3)
    with jax.enable_x64(True):
        values, *_ = found(name, np.float64, *arrays)
    assert_near(values, PLAIN[name](*arrays), 1e-9)


@pytest.mark.parametrize('name', CALLS)
def test_gradients_by_finite_differences(name):
    """By the branch alone; of what is compiled already."""

    def pulled(branch):
        (value, _), (gradient, _) = compiled(name)(branch, peer, labels)
        return value, lambda cotangent: (cotangent * gradient,)

    with jax.enable_x64(True):
        branch, peer, labels = as_arrays(np.float64, *examples())
        check_vjp(lambda x: pulled(x)[0], pulled, (branch,), rtol=1e-5)


def test_directions():
    """In [0, 4] however long; of feature maps at every place."""
    rng = np.random.default_rng(0)
    many = jnp.asarray(rng.normal(size=(500, 2)) * 10 ** rng.uniform(-3, 3, (500, 1)), jnp.float32)
    apart = jax.jit(losses.direction_regression)
    other = np.asarray(apart(many, many[::-1]))
    assert (other >= 0).all()
    assert 3.9 < other.max() < 4 + 1e-5
    np.testing.assert_allclose(apart(many, -7 * many), 4, rtol=1e-5)
    np.testing.assert_allclose(apart(many, 7 * many), 0, atol=1e-6)
    maps = [x.reshape(50, 2, 5, 2) for x in (many, many[::-1])]
    np.testing.assert_allclose(apart(*maps), other.reshape(50, 2, 5), rtol=1e-6, atol=1e-9)


# What is hard to a peer.


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('name', CALLS)
def test_a_branch_agrees_with_its_like(name, dtype):
    branch, _, labels = examples()
    with jax.enable_x64(dtype == np.float64):
        values, *_ = found(name, dtype, branch, branch, labels)
        if name in MARGINS:
            arrays = as_arrays(dtype, branch, labels)
            expected = triplet(*arrays, margin=MARGINS[name])
            np.testing.assert_allclose(values, expected, rtol=4 * np.finfo(dtype).eps)
        else:
            np.testing.assert_allclose(values, 0, atol=1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize('margin', MARGINS.values())
def test_the_hardest_of_both_picks_is_always_ones_own(margin):
    """So 'union', as methods.md words it (A-KSL-6), is the triplet loss of the branch alone."""
    branch, peer, labels = examples()
    own, other = plain_distances(branch), []

    def union(of_peer, labels, i):
        """The hardest in the branch's own distances among the peer's picks and its own."""
        both = list(zip(picks(of_peer, labels, i), picks(own, labels, i)))
        other.append(both[0][0] != both[0][1] or both[1][0] != both[1][1])
        positives, negatives = ([j for j in pair if j is not None] for pair in both)
        farthest = max(positives, key=lambda j: own[i, j], default=None)
        return farthest, min(negatives, key=lambda j: own[i, j], default=None)

    literal = plain_hard(branch, peer, labels, margin, union)
    assert any(other)
    with jax.enable_x64(True):
        arrays = as_arrays(np.float64, branch, labels)
        np.testing.assert_allclose(triplet(*arrays, margin=margin), literal, rtol=1e-9)
    np.testing.assert_allclose(plain_triplet(branch, labels, margin), literal, rtol=1e-9)


def test_a_worked_example():
    """Of image 0 it is image 2 that is farthest for itself, and image 1 for its peer."""
    branch, peer = (jnp.array([row]).T for row in ([0.0, 1, 3, 5, 4], [0.0, 3, 1, 4, 5]))
    labels = jnp.array([0, 0, 0, 1, 1])
    hard = jax.jit(partial(losses.consensus_hard, margin=4.5))(branch, peer, labels)
    # 4.5 + positive - negative: 1 - 5, 1 - 4, 2 - 2, 1 - 4, 1 - 3.
    np.testing.assert_allclose(hard, [0.5, 1.5, 4.5, 1.5, 2.5], rtol=1e-5)
    own = triplet(branch, labels, margin=4.5)
    np.testing.assert_allclose(own, [3.5, 3.5, 6.5, 3.5, 4.5], rtol=1e-5)


# Extremes in float32.


def alike(x):
    return x[:1].repeat(12, 0)


EXTREMES = {
    'identical': lambda x, y, labels: (alike(x), y, labels),
    'both_identical': lambda x, y, labels: (alike(x), alike(y), labels),
    'one_identity': lambda x, y, labels: (x, y, 0 * labels),
    'every_identity_once': lambda x, y, labels: (x, y, np.arange(12)),
}
EXTREMES |= {
    f'times_{scale}': lambda x, y, labels, scale=scale: (scale * x, -scale * y, labels)
    for scale in (0.0, 1e-20, 1e4)
}


@pytest.mark.parametrize('extreme', EXTREMES)
@pytest.mark.parametrize('name', CALLS)
def test_extremes_are_finite(name, extreme):
    arrays = EXTREMES[extreme](*examples())
    values, of_branch, of_peer = found(name, np.float32, *arrays)
    assert np.isfinite(of_branch).all()
    assert not np.asarray(of_peer).any()
    # Float32 tells points at |x| from each other only from about |x| / 1000 on.
    slack = 1e-2 if extreme.endswith('identical') else 1e-5
    expected = PLAIN[name](*arrays)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=slack * max(1, expected.max()))


# Several devices.


@pytest.mark.parametrize('name', ['distance', 'hard_soft'])
def test_four_devices_are_one(name):
    """Values, and the gradient of weights that branch and peer are computed with."""
    inputs, _, labels = as_arrays(np.float32, *examples(b=16))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 3)), jnp.float32)

    def step(weights, inputs, labels, axis_name=None):
        def mean(weights):
            values = CALLS[name](*(inputs @ w for w in weights), labels, axis_name=axis_name)
            return values.mean(), values

        (_, values), gradient = jax.value_and_grad(mean, has_aux=True)(weights)
        return (jax.lax.pmean(gradient, axis_name) if axis_name else gradient), values

    sharded = P(parallel.AXIS)
    across = jax.shard_map(
        partial(step, axis_name=parallel.AXIS),
        mesh=parallel.mesh(),
        in_specs=(P(), sharded, sharded),
        out_specs=(P(), sharded),
        check_vma=False,
    )
    four, one = jax.jit(across)(weights, inputs, labels), jax.jit(step)(weights, inputs, labels)
    jax.tree.map(partial(assert_near, tolerance=1e-5), four, one)
    alone = PLAIN[name](*(np.asarray(inputs[:4] @ w) for w in weights), np.asarray(labels[:4]))
    assert not np.allclose(alone, four[1][:4])
    assert np.asarray(one[0][0]).any()
    assert not np.asarray(one[0][1]).any()
