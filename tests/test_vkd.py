import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from random_trees import random_init

from kd_jax import loop, losses, methods, optimizers, parallel, recipes, trees, views
from kd_jax.methods import supervised, vkd
from kd_jax.views import Batch

OPTIONS = {'student_views': 2, 'set_logits': 'mean', 'teacher_batch_norm': 'running'}
OPTIONS |= {'start': 'teacher', 'feature': 'embedding', 'logits': 'kl', 'temperature': 10.0}
OPTIONS |= {'logits_weight': 0.5, 'distance_weight': 0.25, 'label_smoothing': 0.0, 'margin': None}


def networks():
    """A student and its teacher on one device, and their variables, different ones."""
    config = smoke.config('vkd_carousel')
    network = recipes.network(config, classes=8).clone(axis_name=None)
    images = jnp.zeros((1, 32, 16, 3))
    return network, *(jax.jit(network.init)(jax.random.key(k), images) for k in (1, 2))


NETWORK, OWN, TAUGHT = networks()


def batch(sets=4, shots=4):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(sets, shots, 32, 16, 3)), jnp.float32)
    labels = jnp.asarray(np.repeat(np.arange(sets // 2), 2), jnp.int32)
    keys = jnp.asarray(rng.integers(2**32, size=(sets, shots)), jnp.uint32)
    return Batch(images, labels, jnp.zeros((sets, shots), jnp.int32), keys)


def made(**options):
    return vkd.make(NETWORK, {'teacher': NETWORK}, **OPTIONS | options)


def passed(method):
    """Targets and losses of a method on the batch, from its student's and teacher's variables."""

    def both(own, taught):
        targets = method.teach({'teacher': taught}, batch())
        return targets, method.loss(trees.join(student=own), targets, batch(), None, 0.0)

    return both


@functools.cache
def ran(**options):
    """The same of the two networks, compiled once."""
    return jax.jit(passed(made(**options)))(OWN, TAUGHT)


def of_sets(network, variables, images, train):
    """Embedding, neck and logits of every image, averaged over its set."""
    outputs, _ = jax.jit(network.apply, static_argnames=('train', 'mutable'))(
        variables, views.singles(images), train=train, mutable=('batch_stats',)
    )
    return [x.reshape(*images.shape[:2], -1).mean(axis=1) for x in outputs[1:]]


def test_the_objective_is_the_weighted_sum_of_its_terms():
    """From the outputs of every image, apart."""
    targets, found = ran()
    whole = batch()
    taught = of_sets(NETWORK, TAUGHT, whole.images, False)
    embedding, _, logits = of_sets(NETWORK, OWN, vkd.some_views(whole, 2).images, True)
    np.testing.assert_allclose(targets.embedding, taught[0], rtol=1e-5, atol=1e-6)
    t_embedding, _, t_logits = taught
    expected = {
        'identity': losses.cross_entropy(logits, whole.labels).mean(),
        'triplet': losses.batch_hard_triplet(embedding, whole.labels).mean(),
        'logits': 0.5 * losses.soft_target_kl(t_logits, logits, 10.0).mean(),
        'distances': 0.25 * losses.distance_preservation(t_embedding, embedding).mean(),
    }
    assert set(found.terms) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found.terms[name], value, rtol=2e-4, atol=1e-7, err_msg=name)


def test_weights_switch_terms_off():
    """What is distilled is not computed then, so that nothing is told of the teacher's logits."""
    weights = {'logits_weight': 0.0, 'distance_weight': 0.0, 'triplet_weight': 0.0}
    found = ran(**weights, identity_weight=0.0)[1]
    assert {name: float(value) for name, value in found.terms.items()} == {
        'identity': 0.0,
        'triplet': 0.0,
    }
    assert set(found.diagnostics) == {'accuracy'}
    assert set(ran()[1].diagnostics) == {'accuracy', 'teacher_accuracy'}


@pytest.mark.parametrize(
    ('weight', 'left'), [('logits_weight', 'distances'), ('distance_weight', 'logits')]
)
def test_a_term_is_switched_off_alone(weight, left):
    method = made(**{weight: 0.0})
    found = jax.eval_shape(passed(method), OWN, TAUGHT)[1]
    assert set(found.terms) == {'identity', 'triplet', left}
    assert ('teacher_accuracy' in found.diagnostics) == (left == 'logits')


def test_a_teacher_of_another_width():
    """Distances are free of it: a double loop over those of both."""
    other, whole = NETWORK.clone(width=8), batch()
    taught = random_init(other.init, jnp.zeros((1, 32, 16, 3)))
    method = vkd.make(NETWORK, {'teacher': other}, **OPTIONS)
    targets, found = jax.jit(passed(method))(OWN, taught)
    embeddings = [
        np.float64(of_sets(NETWORK, OWN, vkd.some_views(whole, 2).images, True)[0]),
        np.float64(of_sets(other, taught, whole.images, False)[0]),
    ]
    assert embeddings[0].shape[1] != embeddings[1].shape[1] == targets.embedding.shape[1]
    pairs = list(np.ndindex(4, 4))
    ours, theirs = (np.array([((x[i] - x[j]) ** 2).sum() for i, j in pairs]) for x in embeddings)
    expected = 0.25 * 0.5 * ((ours - theirs) ** 2).mean()
    np.testing.assert_allclose(found.terms['distances'], expected, rtol=2e-4)
    assert 'logits' in found.terms


def test_squared_logits_have_no_temperature():
    one, other = (ran(logits='mse', temperature=t)[1].terms['logits'] for t in (1.0, 10.0))
    assert one == other != ran()[1].terms['logits']


def test_the_teacher_normalises_by_its_batch_or_its_running_statistics():
    running, by_batch = (ran(teacher_batch_norm=kind)[0] for kind in ('running', 'batch'))
    assert not np.allclose(running.logits, by_batch.logits, atol=1e-4)
    changed = jax.tree.map(lambda leaf: leaf + 1.0, TAUGHT['batch_stats'])
    method = made(teacher_batch_norm='batch')
    again = jax.jit(method.teach)({'teacher': {**TAUGHT, 'batch_stats': changed}}, batch())
    np.testing.assert_allclose(again.logits, by_batch.logits, rtol=1e-5, atol=1e-6)


def test_logits_of_the_mean_are_the_mean_of_logits_where_nothing_is_trained():
    """The head is affine with running statistics; with those of a batch it is not."""
    mean, of_mean = (ran(set_logits=kind) for kind in ('mean', 'of_mean'))
    np.testing.assert_allclose(mean[0].logits, of_mean[0].logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mean[0].embedding, of_mean[0].embedding, rtol=1e-5, atol=1e-6)
    assert mean[1].terms['identity'] != of_mean[1].terms['identity']


def test_views_are_drawn_by_their_keys():
    whole = batch()
    some = vkd.some_views(whole, 3)
    assert some.images.shape == (4, 3, 32, 16, 3)
    for place in range(4):
        order = np.argsort(whole.keys[place])[:3]
        np.testing.assert_array_equal(some.images[place], whole.images[place][order])
        np.testing.assert_array_equal(some.keys[place], whole.keys[place][order])
    with pytest.raises(ValueError, match=r'student_views=5, but a set has sampling\.shots=4'):
        vkd.some_views(whole, 5)


def test_every_view_is_as_likely():
    keys = jnp.asarray(np.random.default_rng(0).integers(2**32, size=(4000, 4)), jnp.uint32)
    numbers = jnp.broadcast_to(jnp.arange(4)[None, :, None, None, None], (4000, 4, 1, 1, 1))
    drawn = Batch(numbers, jnp.zeros(4000, jnp.int32), jnp.zeros((4000, 4), jnp.int32), keys)
    shown = np.asarray(vkd.some_views(drawn, 2).images).reshape(-1, 2)
    assert (shown[:, 0] != shown[:, 1]).all()
    assert (np.abs(np.bincount(shown.ravel()) / 2000 - 1) < 0.1).all()


def test_one_device_is_four_devices():
    """With the teacher's statistics those of its batch, its logits far apart, and SGD."""
    config = smoke.config('vkd_carousel')
    config.optimizer.update(name='sgd', warmup_epochs=0.0)
    config.method.update(teacher_batch_norm='batch', temperature=2.0)
    config.method.update(logits_weight=1.0, distance_weight=1.0)
    taught = trees.named(TAUGHT)
    taught['params/neck/classifier/kernel'] = 300 * taught['params/neck/classifier/kernel']
    student = recipes.network(config, classes=8)
    method = recipes.method(config, student, {'teacher': student})
    pixels = np.random.default_rng(3).integers(0, 256, (4, 4, 32, 16, 3), np.uint8)
    raw = batch()._replace(images=jnp.asarray(pixels))
    ends = []
    for count in (1, 4):
        mesh = parallel.mesh(jax.devices()[:count])
        tx = optimizers.create(epochs=1.0, steps_per_epoch=4, **config.optimizer)
        step = loop.make_train_step(method, recipes.augmentation(config), tx, mesh, seed=0, steps=4)
        state = loop.create_state(method, tx, recipes.blank_batch(config), 0)
        state = parallel.replicate(state, mesh)
        teachers = parallel.replicate({'teacher': trees.unnamed(taught)}, mesh)
        state, metrics = step(state, teachers, parallel.shard(raw, mesh))
        assert min(metrics['logits'], metrics['distances']) > 0.01 * metrics['loss']
        ends.append((jax.device_get(state.variables), jax.device_get(metrics)))
    for one, four in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1])):
        np.testing.assert_allclose(one, four, rtol=2e-4, atol=2e-5)


def test_methods_finds_it():
    assert methods.load('vkd') is vkd.make
    assert supervised.Objective(0.0, None).identity_weight == 1.0
