import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from random_trees import random_init

from kd_jax import networks, parallel, trees
from kd_jax.networks import Outputs, resnet

OPTIONS = {'classes': 7, 'width': 64, 'stem': 'imagenet', 'last_stride': 1}
OPTIONS |= {'neck': 'fc_bn_relu', 'inflate': 1, 'dtype': 'float32'}
NARROW = {'width': 2, 'neck_width': 3}


def create(name, **changes):
    return networks.create(name, **(OPTIONS | changes))


@functools.cache
def abstract(name, height=64, width=64, channels=3, options=()):
    """Shapes and dtypes of (outputs, variables), nothing computed."""
    images = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    network = create(name, **dict(options))
    return jax.eval_shape(network.init_with_output, jax.random.key(0), images)


# Geometry.


@pytest.mark.parametrize(
    ('size', 'stem', 'last_stride', 'maps'),
    [
        ((256, 128), 'imagenet', 1, [(64, 32), (32, 16), (16, 8), (16, 8)]),
        ((256, 128), 'imagenet', 2, [(64, 32), (32, 16), (16, 8), (8, 4)]),
        ((32, 32), 'imagenet', 1, [(8, 8), (4, 4), (2, 2), (2, 2)]),
        ((32, 32), 'small', 1, [(16, 16), (8, 8), (4, 4), (4, 4)]),
        ((32, 32), 'small', 2, [(16, 16), (8, 8), (4, 4), (2, 2)]),
        ((33, 17), 'small', 2, [(17, 9), (9, 5), (5, 3), (3, 2)]),  # torch's ⌊(n - 1) / 2⌋ + 1
    ],
)
@pytest.mark.parametrize('name', ['resnet10', 'resnet50'])
def test_stage_shapes(name, size, stem, last_stride, maps):
    outputs, _ = abstract(name, *size, options=(('stem', stem), ('last_stride', last_stride)))
    channels = [64, 128, 256, 512] if name == 'resnet10' else [256, 512, 1024, 2048]
    expected = [(2, *size, c) for size, c in zip(maps, channels)]
    assert [stage.shape for stage in outputs.stages] == expected
    assert outputs.embedding.shape == outputs.neck.shape == (2, 512)
    assert outputs.logits.shape == (2, 7)


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('resnet18', 11_176_512),
        ('resnet34', 21_284_672),
        ('resnet50', 23_508_032),
        ('resnet101', 42_500_160),
    ],
)
def test_backbones_have_torchvisions_parameters(name, count):
    params = abstract(name)[1]['params']
    assert trees.size(params) - trees.size(params['neck']) == count


def test_a_t_net_of_four_shots_has_28224_more_weights():
    one, four = (trees.size(abstract('resnet50', channels=c)[1]['params']) for c in (3, 12))
    assert four - one == 28_224


BLOCK = 'bn1/bias bn1/scale bn2/bias bn2/scale conv1/kernel conv2/kernel'
DOWNSAMPLED = f'{BLOCK} downsample_bn/bias downsample_bn/scale downsample_conv/kernel'
NAMES = {
    '': 'bn1/bias bn1/scale conv1/kernel',
    'layer1_0/': BLOCK,
    'layer2_0/': DOWNSAMPLED,
    'layer3_0/': DOWNSAMPLED,
    'layer4_0/': DOWNSAMPLED,
    'neck/': 'classifier/bias classifier/kernel fc/bias fc/kernel neck_bn/bias neck_bn/scale',
}


def test_parameter_names_of_resnet10():
    expected = {prefix + name for prefix, names in NAMES.items() for name in names.split()}
    variables = abstract('resnet10')[1]
    assert set(trees.named(variables['params'])) == expected
    norms = {name.rsplit('/', 1)[0] for name in expected if name.endswith('scale')}
    statistics = {f'{norm}/{value}' for norm in norms for value in ('mean', 'var')}
    assert set(trees.named(variables['batch_stats'])) == statistics


def test_parameter_shapes():
    shapes = {k: v.shape for k, v in trees.named(abstract('resnet50')[1]['params']).items()}
    assert shapes['conv1/kernel'] == (7, 7, 3, 64)
    assert shapes['layer1_0/downsample_conv/kernel'] == (1, 1, 64, 256)
    assert shapes['layer2_0/conv1/kernel'] == (1, 1, 256, 128)
    assert shapes['layer2_0/conv2/kernel'] == (3, 3, 128, 128)
    assert shapes['layer3_5/conv3/kernel'] == (1, 1, 256, 1024)
    assert shapes['neck/fc/kernel'] == (2048, 512)
    assert shapes['neck/classifier/kernel'] == (512, 7)
    assert 'layer3_6/conv1/kernel' not in shapes
    small = abstract('resnet10', 32, 32, options=(('stem', 'small'),))[1]['params']
    assert small['conv1']['kernel'].shape == (3, 3, 3, 64)


def test_bnneck_has_no_bias_at_all():
    outputs, variables = abstract('resnet10', options=(('neck', 'bnneck'),))
    assert set(trees.named(variables['params']['neck'])) == {'neck_bn/scale', 'classifier/kernel'}
    assert outputs.embedding.shape == outputs.neck.shape == (2, 512)
    assert variables['params']['neck']['classifier']['kernel'].shape == (512, 7)


@pytest.mark.parametrize('neck', resnet.NECKS)
def test_dtypes_of_bfloat16(neck):
    outputs, variables = abstract('resnet10', options=(('dtype', 'bfloat16'), ('neck', neck)))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {'float32'}
    assert {stage.dtype.name for stage in outputs.stages} == {'bfloat16'}
    assert {x.dtype.name for x in outputs[1:]} == {'float32'}


# Numbers: an independent network in NumPy, with torch's padding of size // 2 on every side.


def plain_conv(x, kernel, stride=1):
    size = len(kernel)
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((n + 2 * pad - size) // stride + 1 for n in x.shape[1:3])
    out = np.empty((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            y, z = i * stride, j * stride
            out[:, i, j] = np.tensordot(padded[:, y : y + size, z : z + size], kernel, 3)
    return out


def plain_max_pool(x):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = ((n - 1) // 2 + 1 for n in x.shape[1:3])
    out = np.empty((len(x), rows, columns, x.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            out[:, i, j] = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    return out


def relu(x):
    return np.maximum(x, 0)


class Plain:
    """The network in inference mode, layer by layer, from the same variables."""

    def __init__(self, variables):
        self.values = {k: np.asarray(v, float) for k, v in trees.named(variables).items()}

    def conv(self, name, x, stride=1):
        return plain_conv(x, self.values[f'params/{name}/kernel'], stride)

    def norm(self, name, x):
        mean, var = (self.values[f'batch_stats/{name}/{k}'] for k in ('mean', 'var'))
        scale = self.values[f'params/{name}/scale']
        bias = self.values.get(f'params/{name}/bias', 0)
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def dense(self, name, x):
        bias = self.values.get(f'params/{name}/bias', 0)
        return x @ self.values[f'params/{name}/kernel'] + bias

    def block(self, name, x, stride, bottleneck):
        strides = [1, stride, 1] if bottleneck else [stride, 1]
        y = x
        for i, s in enumerate(strides, 1):
            y = self.norm(f'{name}/bn{i}', self.conv(f'{name}/conv{i}', y, s))
            y = relu(y) if i < len(strides) else y
        if f'params/{name}/downsample_conv/kernel' in self.values:
            x = self.conv(f'{name}/downsample_conv', x, stride)
            x = self.norm(f'{name}/downsample_bn', x)
        return relu(x + y)

    def __call__(self, x, stem, last_stride, neck, bottleneck):
        x = relu(self.norm('bn1', self.conv('conv1', x, 2)))
        x = plain_max_pool(x) if stem == 'imagenet' else x
        stages = []
        for i, stride in enumerate((1, 2, 2, last_stride), 1):
            x = self.block(f'layer{i}_0', x, stride, bottleneck)
            stages.append(x)
        embedding = x.mean((1, 2))
        if neck == 'fc_bn_relu':
            embedding = relu(self.norm('neck/neck_bn', self.dense('neck/fc', embedding)))
        after = self.norm('neck/neck_bn', embedding) if neck == 'bnneck' else embedding
        return Outputs(tuple(stages), embedding, after, self.dense('neck/classifier', after))


def photos(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ('stem', 'last_stride', 'neck', 'bottleneck'),
    [('imagenet', 1, 'fc_bn_relu', False), ('small', 2, 'bnneck', True)],
)
def test_against_a_plain_network(stem, last_stride, neck, bottleneck):
    options = {'stem': stem, 'last_stride': last_stride, 'neck': neck}
    network = create('resnet10', **NARROW, **options).clone(bottleneck=bottleneck)
    images = photos(2, 20, 16, 3)
    variables = random_init(network.init, images)
    actual = jax.jit(network.apply)(variables, images)
    expected = Plain(variables)(images, bottleneck=bottleneck, **options)
    near = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(near, actual, expected)
    assert all(stage.std() > 0.1 for stage in expected.stages)


# Beginning.


@pytest.mark.parametrize('shape', [(3, 3, 64, 128), (1, 1, 128, 512)])
def test_kernels_start_from_the_kaiming_normal_of_the_outputs(shape):
    kernel = resnet.kaiming_fan_out(jax.random.key(0), shape)
    np.testing.assert_allclose(kernel.std(), (2 / (shape[0] ** 2 * shape[-1])) ** 0.5, rtol=0.02)


def test_an_inflated_kernel_is_tiles_of_the_mother_over_k():
    mother = resnet.kaiming_fan_out(jax.random.key(0), (3, 3, 2, 5))
    kernel = resnet.inflated(4)(jax.random.key(0), (3, 3, 8, 5))
    assert kernel.shape == (3, 3, 8, 5)
    for k in range(4):
        np.testing.assert_array_equal(kernel[:, :, 2 * k : 2 * k + 2], mother / 4)


def test_an_inflated_network_starts_as_its_mother():
    mother, inflated = (create('resnet10', **NARROW, inflate=k) for k in (1, 4))
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
    near = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(near, actual, expected)
    assert actual.stages[0].any()


def test_images_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match=r'network\.inflate=4 does not divide 6 input channels'):
        jax.eval_shape(create('resnet10', inflate=4).init, jax.random.key(0), photos(1, 16, 16, 6))


# Training.


def trained(network):
    return partial(network.apply, train=True, mutable=['batch_stats'])


@pytest.fixture(scope='module')
def in_training():
    """Images, variables, and (outputs, changed statistics) of all images on one device."""
    network = create('resnet10', **NARROW, stem='small')
    images = photos(8, 16, 16, 3)
    variables = random_init(network.init, images)
    return images, variables, jax.jit(trained(network))(variables, images)


def test_training_outside_of_a_mesh(in_training):
    images, variables, (outputs, changed) = in_training
    convolved = plain_conv(images, variables['params']['conv1']['kernel'], 2)
    before, after = variables['batch_stats']['bn1'], changed['batch_stats']['bn1']
    near = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    near(after['mean'], 0.9 * before['mean'] + 0.1 * convolved.mean((0, 1, 2)))
    near(after['var'], 0.9 * before['var'] + 0.1 * convolved.var((0, 1, 2)))
    neck = variables['params']['neck']['neck_bn']
    assert outputs.neck.shape == (8, 3)
    linear = outputs.stages[-1].mean((1, 2)) @ variables['params']['neck']['fc']['kernel']
    normed = (linear - linear.mean(0)) / np.sqrt(linear.var(0) + 1e-5)  # of the batch
    near(outputs.neck, relu(normed * neck['scale'] + neck['bias']), atol=1e-3)


def test_batch_norm_over_devices(in_training):
    images, variables, expected = in_training
    network = create('resnet10', **NARROW, stem='small', axis_name=parallel.AXIS)
    mapped = jax.shard_map(
        trained(network),
        mesh=parallel.mesh(),
        in_specs=(P(), P(parallel.AXIS)),
        out_specs=(P(parallel.AXIS), P()),
        check_vma=False,
    )
    near = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    jax.tree.map(near, jax.jit(mapped)(variables, images), expected)


def test_batch_norm_of_each_device_names_no_axis():
    images = photos(8, 16, 16, 3)
    for batch_norm in ('global', 'device'):
        network = create('resnet10', axis_name=parallel.AXIS, batch_norm=batch_norm)
        variables = jax.eval_shape(network.init, jax.random.key(0), images)
        if batch_norm == 'device':
            assert jax.eval_shape(trained(network), variables, images)
        else:
            with pytest.raises(NameError, match=parallel.AXIS):
                jax.eval_shape(trained(network), variables, images)


# Errors.


@pytest.mark.parametrize(
    ('key', 'choices'),
    [
        ('stem', 'imagenet, small'),
        ('neck', 'fc_bn_relu, bnneck'),
        ('dtype', 'float32, bfloat16'),
        ('batch_norm', 'global, device'),
    ],
)
def test_unknown_words(key, choices):
    with pytest.raises(ValueError, match=rf"network\.{key}='best': choose one of {choices}$"):
        create('resnet10', **{key: 'best'})


def test_an_unknown_network_is_told_the_known_ones():
    message = "network.name='resnet9': .*resnet10, resnet18, resnet34, resnet50, resnet101$"
    with pytest.raises(ValueError, match=message):
        create('resnet9')


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match='strides'):
        create('resnet10', strides=1)
