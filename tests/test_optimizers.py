import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd_jax import optimizers

SCHEDULE = {
    'learning_rate': 0.1,
    'epochs': 10.0,
    'steps_per_epoch': 20,
    'warmup': 'linear',
    'warmup_epochs': 2.0,
    'warmup_start': 0.001,
    'boundaries': (4, 6),
    'factor': 0.5,
    'final': 0.01,
}
WARM, END = 40, 200
PARAMS = {
    'student': {'w': np.linspace(-1, 1, 6).reshape(2, 3), 'b': np.ones(3)},
    'heads': {'teacher': {'w': np.full(4, 2.0)}, 'teacher_two': {'w': np.full(4, 3.0)}},
}


def rate(schedule, **options):
    found = optimizers.rate(**{**SCHEDULE, 'schedule': schedule, **options})
    return lambda *steps: np.array([float(found(step)) for step in steps])


def create(name, frozen=(), weight_decay=0.1, **options):
    options = {'schedule': 'constant', 'warmup_epochs': 0.0, **options}
    options = {**SCHEDULE, 'name': name, 'weight_decay': weight_decay, **options}
    return optimizers.create(frozen=frozen, **options)


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: rng.standard_normal(p.shape), PARAMS)


def trained(tx, steps=5):
    """The parameters after some steps."""
    params = jax.tree.map(lambda p: jnp.array(p, jnp.float32), PARAMS)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(steps):
        found = jax.tree.map(lambda g: jnp.array(g, jnp.float32), gradients(step))
        updates, state = update(found, state, params)
        params = optax.apply_updates(params, updates)
    return params


def torch_adam(rates, decay, b1=0.9, b2=0.999, eps=1e-8):
    """torch.optim.Adam: weight decay is added to the gradient, before both moments."""

    def one(p, *found):
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t, (g, lr) in enumerate(zip(found, rates), start=1):
            g = g + decay * p
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        return p

    return jax.tree.map(one, PARAMS, *(gradients(step) for step in range(len(rates))))


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected
    )


@pytest.mark.parametrize('decay', [0.0, 0.1])
def test_adam_is_torchs(decay):
    assert_close(trained(create('adam', weight_decay=decay)), torch_adam([0.1] * 5, decay))


def test_adam_under_a_schedule_and_other_moments():
    tx = create('adam', warmup_epochs=0.15, warmup_start=0.01, b1=0.5, b2=0.9)
    assert_close(trained(tx), torch_adam([0.01, 0.04, 0.07, 0.1, 0.1], 0.1, b1=0.5, b2=0.9))


def test_sgd_adds_the_decay_to_the_gradient():
    def one(p, *found):
        for g in found:
            p = p - 0.1 * (g + 0.1 * p)
        return p

    expected = jax.tree.map(one, PARAMS, *(gradients(step) for step in range(5)))
    assert_close(trained(create('sgd')), expected)


@pytest.mark.parametrize('name', optimizers.NAMES)
def test_frozen_prefixes_stay_to_the_byte(name):
    params = trained(create(name, frozen=('heads/teacher/', 'student/b')))
    free = trained(create(name))
    for frozen, start in (
        (params['heads']['teacher']['w'], PARAMS['heads']['teacher']['w']),
        (params['student']['b'], PARAMS['student']['b']),
    ):
        assert frozen.tobytes() == start.astype(np.float32).tobytes()
    for part, key in (('heads', 'teacher_two'), ('student', 'w')):
        jax.tree.map(np.testing.assert_array_equal, params[part][key], free[part][key])
        assert (jax.tree.leaves(free[part][key])[0] != jax.tree.leaves(PARAMS[part][key])[0]).all()


@pytest.mark.parametrize('decay', optimizers.SCHEDULES)
def test_linear_warmup_adds(decay):
    found = rate(decay)(0, 1, WARM / 2, WARM - 1, WARM)
    slope = (0.1 - 0.001) / WARM
    np.testing.assert_allclose(found, [0.001, 0.001 + slope, 0.0505, 0.1 - slope, 0.1], rtol=1e-5)


@pytest.mark.parametrize('decay', optimizers.SCHEDULES)
def test_exponential_warmup_multiplies(decay):
    found = rate(decay, warmup='exponential')(*range(WARM + 1))
    np.testing.assert_allclose(found[[0, WARM // 2, WARM]], [0.001, 0.01, 0.1], rtol=1e-5)
    np.testing.assert_allclose(found[1:] / found[:-1], 100 ** (1 / WARM), rtol=1e-5)


@pytest.mark.parametrize('warmup_epochs', [0.0, 2.0])
def test_steps_fall_at_their_epochs_from_the_start(warmup_epochs):
    found = rate('step', warmup_epochs=warmup_epochs)(45, 79, 80, 119, 120, END)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.05, 0.05, 0.025, 0.025], rtol=1e-6)


@pytest.mark.parametrize('warmup_epochs', [0.0, 2.0])
def test_cosine_falls_to_the_final_share(warmup_epochs):
    warm = round(warmup_epochs * 20)
    quarter, middle = warm + (END - warm) // 4, warm + (END - warm) // 2
    found = rate('cosine', warmup_epochs=warmup_epochs)(warm, quarter, middle, END, END + 50)
    share = [1, (1 + np.cos(np.pi / 4)) / 2, 0.5, 0, 0]
    np.testing.assert_allclose(found, 0.1 * (0.99 * np.array(share) + 0.01), rtol=1e-5)


def test_constant_stays():
    np.testing.assert_allclose(rate('constant')(WARM, WARM + 1, END), 0.1, rtol=1e-6)


def test_no_warmup_starts_at_the_rate():
    for decay in optimizers.SCHEDULES:
        np.testing.assert_allclose(rate(decay, warmup_epochs=0.0)(0), 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ('key', 'known'),
    [
        ('name', 'adam, sgd'),
        ('warmup', 'linear, exponential'),
        ('schedule', 'constant, step, cosine'),
    ],
)
def test_unknown_words(key, known):
    with pytest.raises(ValueError, match=rf"optimizer\.{key}='none': choose one of {known}"):
        create(**{'name': 'sgd', key: 'none'})
