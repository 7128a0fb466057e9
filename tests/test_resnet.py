from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import plain_layers
import pytest
from network_options import create
from plain_layers import max_pool, photos, relu
from random_trees import random_init

from kd_jax import trees
from kd_jax.networks import Outputs, resnet

PUBLISHED = {'classes': 7, 'width': 64, 'stem': 'imagenet'}
PUBLISHED |= {'neck': 'fc_bn_relu', 'neck_width': 512}
NARROW = {'classes': 7, 'width': 2, 'neck_width': 3}


def abstract(name, height=64, width=64, channels=3, **changes):
    """Shapes and dtypes of (outputs, variables), nothing computed."""
    images = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    network = create(name, **(PUBLISHED | changes))
    return jax.eval_shape(network.init_with_output, jax.random.key(0), images)


# Geometry; that of large images is in test_networks.py.


@pytest.mark.parametrize(
    ('size', 'stem', 'last_stride', 'maps'),
    [
        ((32, 32), 'imagenet', 1, [(8, 8), (4, 4), (2, 2), (2, 2)]),
        ((32, 32), 'small', 1, [(16, 16), (8, 8), (4, 4), (4, 4)]),
        ((32, 32), 'small', 2, [(16, 16), (8, 8), (4, 4), (2, 2)]),
        ((33, 17), 'small', 2, [(17, 9), (9, 5), (5, 3), (3, 2)]),  # torch's ⌊(n - 1) / 2⌋ + 1
    ],
)
@pytest.mark.parametrize('name', ['resnet10', 'resnet50'])
def test_stage_shapes(name, size, stem, last_stride, maps):
    outputs, _ = abstract(name, *size, stem=stem, last_stride=last_stride)
    channels = [64, 128, 256, 512] if name == 'resnet10' else [256, 512, 1024, 2048]
    expected = [(2, *size, c) for size, c in zip(maps, channels)]
    assert [stage.shape for stage in outputs.stages] == expected
    assert outputs.embedding.shape == outputs.neck.shape == (2, 512)
    assert outputs.logits.shape == (2, 7)


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
    small = abstract('resnet10', 32, 32, stem='small')[1]['params']
    assert small['conv1']['kernel'].shape == (3, 3, 3, 64)


def test_a_bam_ends_the_first_three_stages():
    plain, bam = (abstract(name)[1]['params'] for name in ('resnet50', 'resnet50bam'))
    assert bam.keys() - plain.keys() == {'bam1', 'bam2', 'bam3'}
    assert [bam[f'bam{i}']['channel_fc1']['kernel'].shape for i in (1, 2, 3)] == [
        (256, 16),
        (512, 32),
        (1024, 64),
    ]


# Numbers: an independent network in NumPy, without the last ReLUs as VKD's paper or code has it.


class Plain(plain_layers.Layers):
    """The network in inference mode, layer by layer, from the same variables."""

    def block(self, name, x, *, stride, bottleneck, relus='all'):
        prefix = f'{name}/' if name else ''
        strides = [1, stride, 1] if bottleneck else [stride, 1]
        y = x
        for i, s in enumerate(strides, 1):
            y = self.norm(f'{prefix}bn{i}', self.conv(f'{prefix}conv{i}', y, s))
            y = relu(y) if i < len(strides) and relus != 'code' else y
        if f'params/{prefix}downsample_conv/kernel' in self.values:
            x = self.conv(f'{prefix}downsample_conv', x, stride)
            x = self.norm(f'{prefix}downsample_bn', x)
        return relu(x + y) if relus == 'all' else x + y

    def __call__(self, x, blocks, bottleneck, *, stem, last_stride, last_block_relu, neck):
        x = relu(self.norm('bn1', self.conv('conv1', x, 2)))
        x = max_pool(x) if stem == 'imagenet' else x
        stages = []
        for i, stride in enumerate((1, 2, 2, last_stride), 1):
            for j in range(blocks[i - 1]):
                relus = last_block_relu if (i, j) == (4, blocks[3] - 1) else 'all'
                options = {'stride': 1 if j else stride, 'bottleneck': bottleneck, 'relus': relus}
                x = self.block(f'layer{i}_{j}', x, **options)
            stages.append(x)
        embedding = x.mean((1, 2))
        if neck == 'fc_bn_relu':
            embedding = relu(self.norm('neck/neck_bn', self.dense('neck/fc', embedding)))
        after = self.norm('neck/neck_bn', embedding) if neck == 'bnneck' else embedding
        return Outputs(tuple(stages), embedding, after, self.dense('neck/classifier', after))


near = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('stem', 'last_stride', 'neck', 'last_block_relu', 'blocks', 'bottleneck'),
    [
        ('imagenet', 1, 'fc_bn_relu', 'all', (1, 1, 1, 1), False),
        ('small', 2, 'bnneck', 'paper', (1, 1, 1, 1), True),
        ('small', 1, 'bnneck', 'code', (1, 1, 1, 2), False),
    ],
)
def test_against_a_plain_network(stem, last_stride, neck, last_block_relu, blocks, bottleneck):
    options = {'stem': stem, 'last_stride': last_stride, 'neck': neck}
    options['last_block_relu'] = last_block_relu
    fields = {'blocks': blocks, 'bottleneck': bottleneck}
    network = create(**NARROW, **options).clone(**fields)
    images = photos(2, 20, 16, 3)
    variables = random_init(network.init, images)
    actual = jax.jit(network.apply)(variables, images)
    expected = Plain(variables)(images, **fields, **options)
    jax.tree.map(near, actual, expected)
    assert all(stage.std() > 0.1 for stage in expected.stages)
    signed = [stage.min() < 0 for stage in expected.stages]
    assert signed == [False, False, False, last_block_relu != 'all']


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('bottleneck', [False, True])
def test_relus_of_a_block(bottleneck, stride):
    """In eval mode, of 8 channels: those of a bottleneck of 2, without a shortcut at stride 1."""
    features = 2 if bottleneck else 8
    norm = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)
    layers = create().layers(norm)
    images = photos(2, 5, 4, 8)
    found = {}
    for relus in ('all', 'paper', 'code'):
        block = resnet.Block(features, stride, bottleneck, relus, layers)
        variables = random_init(block.init, images)
        assert ('downsample_conv' in variables['params']) == (stride == 2)
        found[relus] = np.asarray(block.apply(variables, images))
        options = {'stride': stride, 'bottleneck': bottleneck, 'relus': relus}
        near(found[relus], Plain(variables).block('', np.asarray(images), **options))
    np.testing.assert_array_equal(found['all'], relu(found['paper']))
    assert np.abs(found['code'] - found['paper']).max() > 0.1
