from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from network_options import create
from plain_layers import conv, photos, relu
from random_trees import random_init

from kd_jax import parallel, trees
from kd_jax.networks import bam, network

NARROW = {'width': 2, 'neck': 'fc_bn_relu', 'neck_width': 3}
WIDE, WIDTH, CLASSES = 400, 300, 200  # enough weights to measure how they spread

near = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def deviations(params):
    """The standard deviation of each kernel around zero."""
    leaves = trees.named(params).items()
    return {k: float(np.sqrt(np.square(v).mean())) for k, v in leaves if k.endswith('kernel')}


# The neck.


def neck_of(kind):
    norm = partial(nn.BatchNorm, use_running_average=True)
    return network.Neck(kind, WIDTH, CLASSES, norm)


@pytest.mark.parametrize(
    ('kind', 'width', 'others', 'kernels'),
    [
        ('bnneck', WIDE, {'neck_bn/scale'}, {'classifier/kernel': 0.001}),
        (
            'fc_bn_relu',
            WIDTH,
            {'fc/bias', 'neck_bn/scale', 'neck_bn/bias', 'classifier/bias'},
            {'fc/kernel': 0.01, 'classifier/kernel': 0.001},
        ),
    ],
)
def test_necks_start(kind, width, others, kernels):
    (embedding, neck, logits), variables = neck_of(kind).init_with_output(
        jax.random.key(0), photos(2, WIDE)
    )
    assert embedding.shape == neck.shape == (2, width)
    assert logits.shape == (2, CLASSES)
    params = trees.named(variables['params'])
    assert set(params) == others | set(kernels)
    for name, deviation in kernels.items():
        np.testing.assert_allclose(deviations(variables['params'])[name], deviation, rtol=0.02)
    for name in others:
        assert (params[name] == (1 if name.endswith('scale') else 0)).all(), name
    assert params['classifier/kernel'].shape == (width, CLASSES)


@pytest.mark.parametrize('kind', ['bnneck', 'fc_bn_relu'])
def test_what_the_classifier_reads(kind):
    pooled = photos(6, WIDE)
    variables = random_init(neck_of(kind).init, pooled)
    embedding, neck, logits = neck_of(kind).apply(variables, pooled)
    params = variables['params']
    linear = params['classifier']
    near(logits, neck @ linear['kernel'] + linear.get('bias', 0), atol=1e-4)
    if kind == 'bnneck':
        np.testing.assert_array_equal(embedding, pooled)
        assert (neck < 0).any()
    else:
        np.testing.assert_array_equal(embedding, neck)
        assert (neck >= 0).all()
        assert (neck == 0).any()


# Beginning.


@pytest.mark.parametrize('shape', [(3, 3, 64, 128), (1, 1, 128, 512), (3, 3, 1, 1024)])
def test_kernels_start_from_the_kaiming_normal_of_the_outputs(shape):
    kernel = network.kaiming_fan_out(jax.random.key(0), shape)
    np.testing.assert_allclose(kernel.std(), (2 / (shape[0] ** 2 * shape[-1])) ** 0.5, rtol=0.02)


def test_layers_start():
    """Every kind of layer: convolutions of all sizes, with and without bias, and norms."""
    made = create('resnet50bam', width=32, classes=200).clone(blocks=(1, 1, 0, 0))
    image = jnp.zeros((1, 16, 16, 3))
    variables = jax.device_get(jax.jit(made.init)(jax.random.key(0, impl='rbg'), image))
    params = trees.named(variables['params'])
    constants = {'bias': 0, 'scale': 1, 'mean': 0, 'var': 1}
    for name, leaf in (params | trees.named(variables['batch_stats'])).items():
        kind = name.rsplit('/', 1)[1]
        assert kind == 'kernel' or (leaf == constants[kind]).all(), name
    assert {'bam1/spatial_final/bias', 'bam1/channel_fc2/bias', 'bn1/bias'} <= set(params)
    many = {k: v for k, v in deviations(variables['params']).items() if params[k].size > 4000}
    dense = {'neck/classifier/kernel', 'bam2/channel_fc1/kernel', 'bam2/channel_fc2/kernel'}
    dense |= {'bam3/channel_fc1/kernel', 'bam3/channel_fc2/kernel'}
    assert dense < set(many)
    convolutions = set(many) - dense
    assert {'layer1_0/conv2/kernel', 'layer2_0/downsample_conv/kernel'} < convolutions
    for name in convolutions:
        shape = params[name].shape
        expected = (2 / (shape[0] ** 2 * shape[-1])) ** 0.5
        np.testing.assert_allclose(many[name], expected, rtol=0.06, err_msg=name)


def test_dense_layers_of_bam_start_as_torchs():
    """Uniform in ±1 / √inputs, with weights and not with biases."""
    made = create()
    norm = partial(nn.BatchNorm, use_running_average=True)
    module = bam.BAM(made.layers(norm))
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 320)))['params']
    for name, inputs in (('channel_fc1', 320), ('channel_fc2', 20)):
        kernel, bound = np.asarray(params[name]['kernel']), inputs**-0.5
        assert kernel.size == 320 * 20
        assert 0.99 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.02)
        assert abs(kernel.mean()) < 0.05 * bound
        assert not params[name]['bias'].any()


def test_an_inflated_kernel_is_tiles_of_the_mother_over_k():
    mother = network.kaiming_fan_out(jax.random.key(0), (3, 3, 2, 5))
    kernel = network.inflated(4)(jax.random.key(0), (3, 3, 8, 5))
    assert kernel.shape == (3, 3, 8, 5)
    for k in range(4):
        np.testing.assert_array_equal(kernel[:, :, 2 * k : 2 * k + 2], mother / 4)


def test_an_inflated_network_starts_as_its_mother():
    mother, inflated = (create(**NARROW, stem='imagenet', inflate=k) for k in (1, 4))
    image = photos(2, 16, 16, 3)
    copies = jnp.concatenate([image] * 4, axis=-1)  # channel = shot · 3 + colour

    @jax.jit
    def first_kernels(key):
        inits = mother.init(key, image), inflated.init(key, copies)
        return [variables['params']['conv1'] for variables in inits]

    one, four = first_kernels(jax.random.key(0, impl='rbg'))
    np.testing.assert_allclose(four['kernel'], np.tile(one['kernel'], (1, 1, 4, 1)) / 4)
    variables = random_init(mother.init, image)
    params = variables['params']

    @jax.jit
    def both(one, four):
        of_mother, of_inflated = (
            variables | {'params': params | {'conv1': first}} for first in (one, four)
        )
        return mother.apply(of_mother, image), inflated.apply(of_inflated, copies)

    expected, actual = both(one, four)
    jax.tree.map(partial(near, atol=1e-4), actual, expected)
    assert actual.stages[0].any()


def test_images_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match=r'network\.inflate=4 does not divide 6 input channels'):
        jax.eval_shape(create(inflate=4).init, jax.random.key(0), photos(1, 16, 16, 6))


# Training.


def trained(made):
    return partial(made.apply, train=True, mutable=['batch_stats'])


@pytest.fixture(scope='module')
def in_training():
    """Images, variables, and (outputs, changed statistics) of all images on one device."""
    made = create(**NARROW)
    images = photos(8, 16, 16, 3)
    variables = random_init(made.init, images)
    return images, variables, jax.jit(trained(made))(variables, images)


def test_training_outside_of_a_mesh(in_training):
    images, variables, (outputs, changed) = in_training
    convolved = conv(images, variables['params']['conv1']['kernel'], 2)
    before, after = variables['batch_stats']['bn1'], changed['batch_stats']['bn1']
    near(after['mean'], 0.9 * before['mean'] + 0.1 * convolved.mean((0, 1, 2)))
    near(after['var'], 0.9 * before['var'] + 0.1 * convolved.var((0, 1, 2)))
    neck = variables['params']['neck']['neck_bn']
    assert outputs.neck.shape == (8, 3)
    linear = outputs.stages[-1].mean((1, 2)) @ variables['params']['neck']['fc']['kernel']
    normed = (linear - linear.mean(0)) / np.sqrt(linear.var(0) + 1e-5)  # of the batch
    near(outputs.neck, relu(normed * neck['scale'] + neck['bias']), atol=1e-3)


def test_batch_norm_over_devices(in_training):
    images, variables, expected = in_training
    mapped = jax.shard_map(
        trained(create(**NARROW, axis_name=parallel.AXIS)),
        mesh=parallel.mesh(),
        in_specs=(P(), P(parallel.AXIS)),
        out_specs=(P(parallel.AXIS), P()),
        check_vma=False,
    )
    found = jax.jit(mapped)(variables, images)
    jax.tree.map(partial(near, rtol=1e-3, atol=1e-3), found, expected)


def test_batch_norm_of_each_device_names_no_axis():
    images = photos(8, 16, 16, 3)
    for batch_norm in ('global', 'device'):
        made = create(axis_name=parallel.AXIS, batch_norm=batch_norm)
        variables = jax.eval_shape(made.init, jax.random.key(0), images)
        if batch_norm == 'device':
            assert jax.eval_shape(trained(made), variables, images)
        else:
            with pytest.raises(NameError, match=parallel.AXIS):
                jax.eval_shape(trained(made), variables, images)
