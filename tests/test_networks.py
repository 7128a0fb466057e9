import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from network_options import OPTIONS, create

from kd_jax import networks, trees

# Of stages 1-4, as wide as published, and the parameters of torchvision's, torchreid's and VKD's
# backbones without their classifiers. resnet10 and resnet101bam have no published count: those
# of a resnet18 without four basic blocks, and of a resnet101 with resnet50bam's three BAMs.
CHANNELS = {
    'resnet10': (64, 128, 256, 512),
    'resnet18': (64, 128, 256, 512),
    'resnet34': (64, 128, 256, 512),
    'resnet50': (256, 512, 1024, 2048),
    'resnet101': (256, 512, 1024, 2048),
    'resnet50bam': (256, 512, 1024, 2048),
    'resnet101bam': (256, 512, 1024, 2048),
    'osnet_x1_0': (256, 384, 512, 512),
    'osnet_x0_75': (192, 288, 384, 384),
    'osnet_x0_5': (128, 192, 256, 256),
    'osnet_x0_25': (64, 96, 128, 128),
    'densenet121': (256, 512, 1024, 1024),
    'mobilenet_v2': (24, 32, 96, 1280),
}
PARAMETERS = {
    'resnet10': 11_176_512 - sum(18 * c * c + 4 * c for c in (64, 128, 256, 512)),
    'resnet18': 11_176_512,
    'resnet34': 21_284_672,
    'resnet50': 23_508_032,
    'resnet101': 42_500_160,
    'resnet50bam': 23_866_099,
    'resnet101bam': 42_500_160 + 23_866_099 - 23_508_032,
    'osnet_x1_0': 1_905_828,
    'osnet_x0_75': 1_087_610,
    'osnet_x0_5': 497_426,
    'osnet_x0_25': 134_792,
    'densenet121': 6_953_856,
    'mobilenet_v2': 2_223_872,
}
PUBLISHED = {'width': 64, 'stem': 'imagenet', 'conv': 'xla'}  # which is traced in half the time


def abstract(name, height_width=(256, 128), channels=3, **changes):
    """Shapes and dtypes of (outputs, variables), nothing computed."""
    images = jax.ShapeDtypeStruct((2, *height_width, channels), jnp.float32)
    network = create(name, **(PUBLISHED | changes))
    return jax.eval_shape(network.init_with_output, jax.random.key(0), images)


def maps(name, stem, last_stride):
    """Heights and widths of the stages for images of 256×128; OSNet's stages end with a pool."""
    heights = (32, 16, 16, 16) if name.startswith('osnet') else (64, 32, 16, 16)
    heights = (*heights[:3], heights[3] // last_stride)
    heights = [2 * h for h in heights] if stem == 'small' else heights
    return [(h, h // 2) for h in heights]


def assert_stages(stages, maps, channels):
    assert [x.shape for x in stages] == [(2, *size, c) for size, c in zip(maps, channels)]


def assert_dtypes(outputs, variables, of_stages):
    assert {stage.dtype.name for stage in outputs.stages} == {of_stages}
    assert {x.dtype.name for x in outputs[1:]} == {'float32'}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {'float32'}


def test_every_network_is_tested():
    assert set(networks.BACKBONES) == set(CHANNELS) == set(PARAMETERS)


@pytest.mark.parametrize('name', CHANNELS)
def test_published_networks(name):
    outputs, variables = abstract(name)
    params = variables['params']
    assert trees.size(params) - trees.size(params['neck']) == PARAMETERS[name]
    assert_stages(outputs.stages, maps(name, 'imagenet', 1), CHANNELS[name])
    assert_dtypes(outputs, variables, 'float32')
    assert outputs.embedding.shape == outputs.neck.shape == (2, CHANNELS[name][-1])
    assert outputs.logits.shape == (2, OPTIONS['classes'])


@pytest.mark.parametrize('name', CHANNELS)
def test_t_nets_of_four_shots_in_bfloat16(name):
    outputs, variables = abstract(
        name, channels=12, inflate=4, last_stride=2, dtype='bfloat16', neck='fc_bn_relu'
    )
    assert_stages(outputs.stages, maps(name, 'imagenet', 2), CHANNELS[name])
    assert_dtypes(outputs, variables, 'bfloat16')
    assert outputs.embedding.shape == outputs.neck.shape == (2, OPTIONS['neck_width'])
    assert first_kernel(name, variables).shape[2] == 12


@pytest.mark.parametrize('name', CHANNELS)
def test_narrow_networks_of_grey_images(name):
    """With a 16th of the channels, and a stem for small images."""
    outputs, variables = abstract(name, channels=1, width=4, stem='small', dtype='bfloat16')
    assert_stages(outputs.stages, maps(name, 'small', 1), [c // 16 for c in CHANNELS[name]])
    assert_dtypes(outputs, variables, 'bfloat16')
    assert first_kernel(name, variables).shape[:3] == (3, 3, 1)
    modules = variables['params'].keys()
    for prefix in networks.BACKBONES[name][0].LAST_STAGE:
        assert any(module.startswith(prefix) for module in modules)


def first_kernel(name, variables):
    """Of the convolution that the class of a network names as the first."""
    return variables['params'][networks.BACKBONES[name][0].FIRST]['kernel']


@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        ('osnet_x0_25', [(8, 4), (4, 2), (4, 2), (2, 1)]),
        ('densenet121', [(17, 9), (8, 4), (4, 2), (2, 1)]),  # pools leave out the last odd row
        ('mobilenet_v2', [(17, 9), (9, 5), (5, 3), (3, 2)]),  # strides do not
    ],
)
def test_odd_sizes(name, sizes):
    outputs, _ = abstract(name, (33, 17), stem='small', last_stride=2)
    assert_stages(outputs.stages, sizes, CHANNELS[name])


@pytest.mark.parametrize(
    ('name', 'cut', 'paper', 'code'),
    [
        ('resnet10', {}, 1, 2),
        ('resnet50', {'blocks': (1, 1, 1, 2)}, 1, 3),
        ('osnet_x0_25', {'blocks': 1}, 1, 1),
        ('densenet121', {'blocks': (1, 1, 1, 2)}, 1, 1),
        ('mobilenet_v2', {}, 1, 1),
    ],
)
def test_relus_that_are_left_out(name, cut, paper, code, monkeypatch):
    """How many; where they were is in test_resnet.py and test_parity.py."""
    calls = []
    for kind in ('relu', 'relu6'):
        monkeypatch.setattr(nn, kind, lambda x: calls.append(x.shape) or x)
    counts = []
    for relu in ('all', 'paper', 'code'):
        network = create(name, last_block_relu=relu, conv='xla').clone(**cut)
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        counts.append(len(calls))
        calls.clear()
    assert [counts[0] - count for count in counts[1:]] == [paper, code]


# Errors.


@pytest.mark.parametrize(
    ('key', 'choices'),
    [
        ('stem', 'imagenet, small'),
        ('last_stride', '1, 2'),
        ('last_block_relu', 'all, paper, code'),
        ('neck', 'fc_bn_relu, fc_bn, bnneck'),
        ('dtype', 'float32, bfloat16'),
        ('conv', 'auto, xla, cpu, products'),
        ('batch_norm', 'global, device'),
    ],
)
def test_unknown_words(key, choices):
    for name in ('resnet10', 'mobilenet_v2'):
        with pytest.raises(ValueError, match=rf"network\.{key}='best': choose one of {choices}$"):
            create(name, **{key: 'best'})


def test_an_unknown_network_is_told_the_known_ones():
    message = f"network.name='resnet9': known networks are {', '.join(CHANNELS)}"
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        create('resnet9')


def test_an_unknown_option_is_named():
    for name in CHANNELS:
        with pytest.raises(TypeError, match='strides'):
            create(name, strides=1)


@pytest.mark.parametrize('key', OPTIONS)
def test_a_missing_option_is_named(key):
    options = {k: v for k, v in OPTIONS.items() if k != key}
    for name in CHANNELS:
        with pytest.raises(TypeError, match=f"'{key}'"):
            networks.create(name, **options)


def test_an_option_of_another_network_is_unknown():
    with pytest.raises(TypeError, match='multiplier'):
        create('resnet10', multiplier=1.0)


@pytest.mark.parametrize('key', ['classes', 'width', 'neck_width', 'inflate'])
def test_numbers_are_at_least_one(key):
    with pytest.raises(ValueError, match=rf'network\.{key}=0: give at least 1'):
        create(**{key: 0})
