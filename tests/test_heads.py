import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_trees import random_init, random_variables

from kd_jax import heads, trees

WIDTHS = (256, 512, 1024, 2048, 512)  # ResNet-50 and its FC layer
REDUCTIONS = (16, 16, 16, 16, 4)
SETS, SHOTS = 3, 2


def create(stages=(1, 2), reductions=(2, 4), uncertainty=True, affine=False):
    return heads.StageHeads(stages, reductions, uncertainty, affine, None)


def vectors(count, widths, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=(count, w)), jnp.float32) for w in widths)


@pytest.fixture
def sides():
    """Stage vectors of a T-net and of a wider student."""
    return vectors(SETS, (5, 6)), vectors(SETS * SHOTS, (8, 20), seed=1)


def papers_heads(**options):
    """Shapes of the variables for ResNet-50 and all five stages."""
    match = create((1, 2, 3, 4, 5), REDUCTIONS, **options)
    inputs = vectors(1, WIDTHS), vectors(1, WIDTHS)
    return jax.eval_shape(lambda: match.init(jax.random.key(0), *inputs, train=False))


def test_widths_of_the_paper():
    params = papers_heads()['params']
    assert sorted(params) == [f'stage{b}' for b in (1, 2, 3, 4, 5)]
    features = {}
    for side in ('teacher', 'student'):
        kernels = [params[f'stage{b}'][side]['fc']['kernel'].shape for b in (1, 2, 3, 4, 5)]
        assert [rows for rows, _ in kernels] == list(WIDTHS)
        features[side] = [columns for _, columns in kernels]
    assert features['teacher'] == features['student'] == [16, 32, 64, 128, 128]
    variances = [params[f'stage{b}']['log_variance']['kernel'].shape for b in (1, 2, 3, 4, 5)]
    assert variances == [(32, 1), (64, 1), (128, 1), (256, 1), (256, 1)]


@pytest.mark.parametrize(
    ('affine', 'uncertainty', 'count'),
    [
        # 2 · 413,696 weights and 368 biases of W_t, W_s, 2 · 2 · 368 of BatchNorm, and the
        # scalar layers' 736 weights and 5 biases.
        (True, True, 830_341),
        (False, True, 830_341 - 1_472),  # without scale and bias, as the configs have it
        (True, False, 830_341 - 741),
    ],
)
def test_parameters_of_the_paper(affine, uncertainty, count):
    assert trees.size(papers_heads(affine=affine, uncertainty=uncertainty)['params']) == count


@pytest.mark.parametrize('affine', [False, True])
def test_affine_is_the_batch_norms_scale_and_bias(affine, sides):
    match = create(affine=affine)
    params = random_init(lambda key: match.init(key, *sides, train=False))['params']
    names = set(trees.named(params['stage2']['student']))
    assert names == {'fc/kernel', 'fc/bias'} | ({'bn/scale', 'bn/bias'} if affine else set())


def projected(variables, path, x, train):
    """ReLU(BN(W x)) in NumPy."""
    stage, side = path
    params = variables['params'][stage][side]
    statistics = variables['batch_stats'][stage][side]['bn']
    y = x.astype(float) @ params['fc']['kernel'] + params['fc']['bias']
    mean, var = (y.mean(0), y.var(0)) if train else (statistics['mean'], statistics['var'])
    normed = (y - mean) / np.sqrt(var + 1e-5)
    norm = params.get('bn', {'scale': 1, 'bias': 0})
    return np.maximum(normed * norm['scale'] + norm['bias'], 0), y


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('affine', [False, True])
def test_against_plain_heads(affine, train, sides):
    match = create(affine=affine)
    variables = random_init(lambda key: match.init(key, *sides, train=False))
    matched, changed = match.apply(variables, *sides, train=train, mutable=['batch_stats'])
    assert sorted(matched) == [1, 2]
    zeros = 0
    for i, stage in enumerate(('stage1', 'stage2')):
        one = matched[i + 1]
        of_sets, linear = projected(variables, (stage, 'teacher'), sides[0][i], train)
        prediction, _ = projected(variables, (stage, 'student'), sides[1][i], train)
        # Sets (0, 1, 2) of two shots each: the images of a set are side by side.
        target = of_sets[[0, 0, 1, 1, 2, 2]]
        scalar = variables['params'][stage]['log_variance']
        log_variance = np.concatenate([target, prediction], 1) @ scalar['kernel'] + scalar['bias']
        expected = target, prediction, np.maximum(log_variance[:, 0], 0), of_sets
        for a, b in zip(one, expected):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        zeros += int((np.asarray(one.log_variance) == 0).sum())
        before = variables['batch_stats'][stage]['teacher']['bn']['mean']
        after = changed['batch_stats'][stage]['teacher']['bn']['mean']
        kept = 0.9 * before + 0.1 * linear.mean(0) if train else before
        np.testing.assert_allclose(after, kept, rtol=1e-5, atol=1e-6)
    assert 0 < zeros < 2 * SETS * SHOTS  # some log-variances would be negative


def test_shapes(sides):
    match = create()
    matched = jax.eval_shape(
        lambda key: match.init_with_output(key, *sides, train=False)[0], jax.random.key(0)
    )
    assert [x.shape for x in matched[1]] == [(6, 4), (6, 4), (6,), (3, 4)]
    assert [x.shape for x in matched[2]] == [(6, 5), (6, 5), (6,), (3, 5)]


def test_only_the_named_stages_have_heads(sides):
    match = create(stages=(2,))
    variables = random_init(lambda key: match.init(key, *sides, train=False))
    assert list(variables['params']) == ['stage2']
    matched = match.apply(variables, *sides, train=False)
    assert list(matched) == [2]
    assert matched[2].target.shape == (6, 5)


def test_a_reduction_beyond_the_width_leaves_one_dimension(sides):
    match = create(reductions=(100, 20))
    params = random_init(lambda key: match.init(key, *sides, train=False))['params']
    assert params['stage1']['student']['fc']['kernel'].shape == (8, 1)
    assert params['stage2']['student']['fc']['kernel'].shape == (20, 1)


def test_without_uncertainty_there_is_no_log_variance(sides):
    match = create(uncertainty=False)
    variables = random_init(lambda key: match.init(key, *sides, train=False))
    assert not [name for name in trees.named(variables['params']) if 'log_variance' in name]
    assert not match.apply(variables, *sides, train=False)[1].log_variance.any()


def test_no_log_variance_starts_dead():
    """Assumption A-UMTS-VINIT, at the paper's widest head and for inputs of any scale."""
    match = heads.StageHeads((1,), (4,), True, False, None)
    teacher, student = vectors(16, (512,)), vectors(64, (512,), seed=1)
    teacher, student = (tuple(10 * jnp.abs(x) for x in side) for side in (teacher, student))

    @jax.jit
    @jax.vmap
    def log_variances(key):
        variables = match.init(key, teacher, student, train=False)
        matched, _ = match.apply(variables, teacher, student, train=True, mutable=['batch_stats'])
        return matched[1].log_variance

    found = log_variances(jax.random.split(jax.random.key(0), 16))
    assert found.shape == (16, 64)
    assert found.min() > 0
    assert jnp.std(found) > 0  # the weights are small, not zero


def test_dead_log_variances_are_zero_and_get_no_gradient(sides):
    """What the start above is for."""
    match = create()
    shapes = jax.eval_shape(lambda: match.init(jax.random.key(0), *sides, train=False))
    variables = random_variables(shapes)
    variables['params']['stage1']['log_variance']['bias'] -= 100

    def total(params):
        return match.apply({**variables, 'params': params}, *sides, train=False)[
            1
        ].log_variance.sum()

    value, gradient = jax.value_and_grad(total)(variables['params'])
    assert value == 0
    assert not gradient['stage1']['log_variance']['kernel'].any()
