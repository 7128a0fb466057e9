"""Grad-CAM, beside what NumPy makes of the same variables."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_options import create
from random_trees import random_init
from test_backbones import CUT

from kd_jax import analysis, trees, views

NETWORKS = {'resnet10': {}, **CUT}
OPTIONS = {'conv': 'xla'}
BACKBONES = [(name, {}) for name in NETWORKS]
BACKBONES += [('resnet10', {'neck': 'fc_bn_relu', 'part': (0.25, 0.75), 'part_size': (24, 16)})]
STAGES = (1, 2, 3, 4)
EPSILON = 1e-5  # of a BatchNorm


def images(channels=3, count=3):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(count, 32, 16, channels)), jnp.float32)


@functools.cache
def made(name='resnet10', channels=3, **options):
    """A network and random variables, whose classifier is not near zero."""
    network = create(name, **OPTIONS, **options).clone(**NETWORKS[name])
    return network, random_init(network.init, images(channels))


def near(found, wanted):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-6)


def raw(network, variables, x, **options):
    """In the stage's size and not normalised."""
    return analysis.grad_cam(network, variables, x, **options, upsampled=False, normalised=False)


def weighted(features, gradient):
    """ReLU of a map by the gradient of what is pooled of it."""
    features = np.asarray(features, np.float64)
    positions = features.shape[1] * features.shape[2]
    return np.maximum(0, np.einsum('bhwc,bc->bhw', features, gradient) / positions)


def of_neck(variables):
    """By what a neck's BatchNorm multiplies what is pooled."""
    scale = np.asarray(variables['params']['neck']['neck_bn']['scale'], np.float64)
    return scale / np.sqrt(np.asarray(variables['batch_stats']['neck']['neck_bn']['var']) + EPSILON)


@pytest.mark.parametrize('channels', [3, 12])
def test_with_pooling_and_linear_layers_behind_it_is_a_class_activation_map(channels):
    """Zhou et al., CVPR 2016; of single images and of stacked shots."""
    network, variables = made(channels=channels)
    x, labels = images(channels), np.array([4, 0, 2])
    features = network.apply(variables, x).stages[-1]
    kernel = np.asarray(variables['params']['neck']['classifier']['kernel'], np.float64)
    wanted = weighted(features, (of_neck(variables)[:, None] * kernel).T[labels])
    assert wanted.any()
    near(raw(network, variables, x, labels=labels), wanted)


@pytest.mark.parametrize('feature', ['embedding', 'neck'])
def test_of_a_similarity(feature):
    network, variables = made()
    references = np.random.default_rng(1).normal(size=(3, 32)).astype(np.float32)
    outputs = network.apply(variables, images())
    found = np.asarray(getattr(outputs, feature), np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit, wanted = found / lengths, references / np.linalg.norm(references, axis=1, keepdims=True)
    cosine = (unit * wanted).sum(axis=1, keepdims=True)
    gradient = (wanted - cosine * unit) / lengths
    gradient *= of_neck(variables) if feature == 'neck' else 1
    maps = raw(network, variables, images(), references=references, feature=feature)
    near(maps, weighted(outputs.stages[-1], gradient))
    near(raw(network, variables, images(), references=7 * references, feature=feature), maps)


@functools.partial(jax.jit, static_argnums=0)
def perturbed(network, variables, x, labels):
    """Stages, and gradients of logits by zeros that are added to each as it is made."""

    def total(added):
        def add(call, arguments, options, context):
            found = call(*arguments, **options)
            return found + added[arguments[0] - 1] if context.method_name == 'stage' else found

        with nn.intercept_methods(add):
            outputs = network.apply(variables, x)
        return outputs.logits[jnp.arange(len(x)), labels].sum(), outputs.stages

    shapes = jax.eval_shape(network.apply, variables, x).stages
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    gradients, stages = jax.grad(total, has_aux=True)(zeros)
    return list(zip(stages, gradients))


@pytest.mark.parametrize(('name', 'options'), BACKBONES)
def test_of_any_stage_of_any_network(name, options):
    network, variables = made(name, **options)
    labels = np.array([1, 3, 3])
    wanted = perturbed(network, variables, images(), labels)
    for stage in STAGES if (name, options) == BACKBONES[0] else (3,):
        found = raw(network, variables, images(), labels=labels, stage=stage)
        features, gradient = wanted[stage - 1]
        near(found, weighted(features, np.asarray(gradient, np.float64).sum(axis=(1, 2))))


def test_a_stage_decides_by_its_gradient():
    """Where a logit leaves by a small step along a map's channels, as by finite differences."""
    network, variables = made()
    before = network.apply(variables, images(), False, 3, method='trunk')[-1]

    def logit(maps):
        return float(network.apply(variables, maps, False, 3, method='tail').logits[0, 1])

    slopes = []
    for channel in range(before.shape[-1]):
        step = jnp.zeros_like(before).at[0, ..., channel].set(1e-2)
        slopes.append((logit(before + step) - logit(before - step)) / 2e-2)
    wanted = weighted(before[:1], np.array([slopes]))
    found = raw(network, variables, images()[:1], labels=[1], stage=2)
    np.testing.assert_allclose(found, wanted, atol=0.02 * wanted.max())


def test_the_highest_logit_where_no_target_is_given():
    network, variables = made()
    labels = np.asarray(network.apply(variables, images()).logits.argmax(axis=-1))
    near(raw(network, variables, images()), raw(network, variables, images(), labels=labels))


def test_over_the_image_from_zero_to_one():
    network, variables = made()
    small = raw(network, variables, images())
    scaled = analysis.grad_cam(network, variables, images(), upsampled=False)
    near(scaled, small / small.max(axis=(1, 2), keepdims=True))
    found = analysis.grad_cam(network, variables, images())
    assert found.shape == (3, 32, 16)
    rows, columns = (
        views.sampling_matrix((0.0, 1.0), small.shape[k], (32, 16)[k - 1]) for k in (1, 2)
    )
    wanted = np.einsum('yh,bhw,xw->byx', rows, small, columns)
    near(found, wanted / wanted.max(axis=(1, 2), keepdims=True))


def test_nothing_outside_of_the_part_that_a_network_sees():
    options = {'neck': 'fc_bn_relu', 'part': (0.25, 0.75), 'part_size': (24, 16)}
    network, variables = made(**options)
    found = analysis.grad_cam(network, variables, images(), stage=1)
    assert found.shape == (3, 32, 16)
    assert not found[:, :8].any()
    assert not found[:, 24:].any()
    assert (found[:, 8:24].max(axis=(1, 2)) == 1).all()


@pytest.mark.parametrize('dead', ['classifier', 'neck_bn', 'references'])
def test_nothing_speaks_for_a_target_without_gradient(dead):
    network, variables = made()
    given = {}
    if dead == 'references':
        given['references'] = np.zeros((3, 32))
    else:
        prefixes = (f'params/neck/{dead}/',)
        variables = trees.replaced(variables, jax.tree.map(jnp.zeros_like, variables), prefixes)
    for normalised in (True, False):
        found = analysis.grad_cam(network, variables, images(), normalised=normalised, **given)
        np.testing.assert_array_equal(found, np.zeros((3, 32, 16)))


def test_half_precision_gives_float32():
    network, variables = made(dtype='bfloat16')
    found = analysis.grad_cam(network, variables, images())
    assert found.dtype == np.float32
    assert (found.max(axis=(1, 2)) == 1).all()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (
            {'images': np.zeros((2, 32, 16, 3), np.uint8)},
            r'images of uint8: .*data\.augment\.normalise',
        ),
        ({'images': np.zeros((32, 16, 3))}, r'images of shape \(32, 16, 3\): give \(b, '),
        ({'images': np.zeros((0, 32, 16, 3))}, r'images of shape \(0, '),
        ({'images': np.zeros((2, 32, 16, 6))}, 'images of 6 channels: the network reads 3 '),
        ({'stage': 5}, 'stage=5: choose one of 1, 2, 3, 4'),
        ({'feature': 'logits'}, "feature='logits': choose one of embedding, neck"),
        ({'labels': [0, 1, 5]}, 'labels from 0 to 5: there are 5'),
        ({'labels': [0, 1]}, r'labels int64\(2,\): give a number for each image'),
        ({'labels': [0.0, 1.0, 2.0]}, r'labels float64\(3,\)'),
        ({'labels': [0, 1, 2], 'references': np.ones((3, 32))}, 'both labels and references'),
        ({'references': np.ones((3, 7))}, r'references of shape \(3, 7\): .* is \(3, 32\)'),
        ({'references': np.ones(32)}, r'references of shape \(32,\)'),
    ],
)
def test_what_no_map_is_of(given, message):
    network, variables = made()
    with pytest.raises(ValueError, match=message):
        analysis.grad_cam(network, variables, **{'images': images(), **given})


def test_many_images_are_computed_a_few_at_a_time(monkeypatch):
    network, variables = made()
    labels = np.array([4, 0, 2])
    whole = analysis.grad_cam(network, variables, images(), labels=labels)
    monkeypatch.setattr(analysis, 'BATCH', 2)
    near(analysis.grad_cam(network, variables, images(), labels=labels), whole)
