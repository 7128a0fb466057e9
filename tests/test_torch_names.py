"""Names and shapes of the variables, against the state dicts of the reference implementations.

golden/torch_names.json has a line for every module: its leaves (weight, bias, running mean and
variance) and the shape of the weight; the others are as long as its first axis. It was made from
`state_dict()` of torchvision 0.28's ResNets (resnet10: `ResNet(BasicBlock, [1, 1, 1, 1])`),
DenseNet-121 and MobileNetV2 and of torchreid 0.2.5's OSNets, with torch 2.13 and without
`num_batches_tracked`; `bam` is VKD's module (a56b12e) for 32 channels.
"""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_options import create

from kd_jax import trees
from kd_jax.networks import BACKBONES
from kd_jax.networks.torch_names import from_torch, to_torch, torch_name, torch_names

LINES = json.loads((Path(__file__).parent / 'golden/torch_names.json').read_text())
LEAVES = {'w': 'weight', 'b': 'bias', 'm': 'running_mean', 'v': 'running_var'}
PUBLISHED = {'width': 64, 'stem': 'imagenet', 'neck': 'fc_bn_relu', 'neck_width': 512}
PUBLISHED |= {'conv': 'xla'}  # traced in half the time
IMAGE = jnp.zeros((1, 64, 32, 3))
CLASSIFIER = re.compile(r'(fc|classifier|classifier\.1)\.(weight|bias)')
BAM_CHANNELS = {1: 256, 2: 512, 3: 1024}
SPATIAL = 'spatial_att.gate_s.gate_s_conv'


def expanded(lines, prefix=''):
    """The shape of every tensor of a golden state dict."""
    shapes = {}
    for module, line in lines.items():
        leaves, *numbers = line.split()
        weight = tuple(map(int, numbers))
        for leaf in leaves:
            shapes[f'{prefix}{module}.{LEAVES[leaf]}'] = weight if leaf == 'w' else weight[:1]
    return shapes


def bam(stage, block, channels):
    """VKD's module at the end of a stage: 32 channels are `channels` there, and 2 a 16th."""
    scale = {32: channels, 2: channels // 16}
    golden = expanded(LINES['bam'], f'layer{stage}.{block}.')
    return {name: tuple(scale.get(n, n) for n in shape) for name, shape in golden.items()}


def reference(name):
    """The tensors of a published network without its classifier."""
    shapes = expanded(LINES[name.removesuffix('bam')])
    if name.endswith('bam'):
        blocks = BACKBONES[name][1]['blocks']
        for stage, channels in BAM_CHANNELS.items():
            shapes |= bam(stage, blocks[stage - 1], channels)
    return {key: shape for key, shape in shapes.items() if not CLASSIFIER.fullmatch(key)}


def shapes_of(network):
    """Torch name to the shape in torch's layout, without drawing a number."""
    variables = jax.eval_shape(network.init, jax.random.key(0), IMAGE)
    names, leaves = torch_names(network, variables), trees.named(variables)
    assert len(set(names.values())) == len(leaves)
    blank = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in leaves.items()}
    return {names[path]: to_torch(value).shape for path, value in blank.items()}


@pytest.mark.parametrize('name', BACKBONES)
def test_names_and_shapes_are_those_of_the_reference(name):
    found = shapes_of(create(name, **PUBLISHED))
    classifier = {key: found.pop(key) for key in ('classifier.weight', 'classifier.bias')}
    assert classifier == {'classifier.weight': (5, 512), 'classifier.bias': (5,)}
    if name.startswith('osnet'):  # published with this neck
        assert found == reference(name)
        return
    neck = {key: found.pop(key) for key in list(found) if key.startswith('fc.')}
    channels = neck.pop('fc.0.weight')[1]
    assert channels == {'densenet121': 1024, 'mobilenet_v2': 1280}.get(
        name, 2048 if BACKBONES[name][1].get('bottleneck') else 512
    )
    batch_norm = ('weight', 'bias', 'running_mean', 'running_var')
    assert neck == {'fc.0.bias': (512,), **{f'fc.1.{leaf}': (512,) for leaf in batch_norm}}
    assert found == reference(name)


def test_every_backbone_has_a_reference():
    assert {name.removesuffix('bam') for name in BACKBONES} == set(LINES) - {'bam'}


@pytest.mark.parametrize('name', ['resnet10', 'osnet_x0_25'])
def test_a_bnneck_is_called_bottleneck(name):
    found = shapes_of(create(name, width=2, conv='xla'))
    neck = {key: shape for key, shape in found.items() if key.startswith(('fc', 'bottle', 'class'))}
    channels = neck['bottleneck.weight'][0]
    assert neck == {
        'bottleneck.weight': (channels,),  # its bias is frozen: no variable
        'bottleneck.running_mean': (channels,),
        'bottleneck.running_var': (channels,),
        'classifier.weight': (5, channels),
    }


@pytest.mark.parametrize(
    ('backbone', 'path', 'name'),
    [
        ('resnet10', 'params/conv1/kernel', 'conv1.weight'),
        ('resnet10', 'batch_stats/layer2_0/bn1/mean', 'layer2.0.bn1.running_mean'),
        ('resnet101', 'params/layer3_22/conv2/kernel', 'layer3.22.conv2.weight'),
        ('resnet50', 'batch_stats/layer4_0/downsample_bn/var', 'layer4.0.downsample.1.running_var'),
        ('resnet50bam', 'params/bam2/spatial_final/bias', f'layer2.4.{SPATIAL}_final.bias'),
        ('osnet_x0_5', 'params/conv2_0/conv2c_1/conv1/kernel', 'conv2.0.conv2c.1.conv1.weight'),
        ('osnet_x0_5', 'params/conv2_0/conv2a_0/bn/bias', 'conv2.0.conv2a.bn.bias'),
        ('osnet_x0_5', 'params/conv3_2_conv/kernel', 'conv3.2.0.conv.weight'),
        ('osnet_x0_5', 'params/conv4_1/gate/fc2/bias', 'conv4.1.gate.fc2.bias'),
        ('osnet_x0_5', 'params/conv5_bn/scale', 'conv5.bn.weight'),
        ('densenet121', 'params/transition2_conv/kernel', 'features.transition2.conv.weight'),
        ('mobilenet_v2', 'params/features0_conv/kernel', 'features.0.0.weight'),
        ('mobilenet_v2', 'params/features1/project_bn/scale', 'features.1.conv.2.weight'),
        ('mobilenet_v2', 'params/features17/project_bn/scale', 'features.17.conv.3.weight'),
        ('mobilenet_v2', 'batch_stats/features18_bn/mean', 'features.18.1.running_mean'),
    ],
)
def test_names_one_by_one(backbone, path, name):
    assert torch_name(create(backbone), path) == name


def test_kernels_change_their_layout():
    """[row, column, in, out] is at [out, in, row, column], and [in, out] at [out, in]."""
    kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    moved = to_torch(kernel)
    assert moved.shape == (5, 4, 2, 3)
    for k, j, i, o in np.ndindex(kernel.shape):
        assert moved[o, i, k, j] == kernel[k, j, i, o]
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(to_torch(dense), dense.T)
    vector = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(to_torch(vector), vector)


@pytest.mark.parametrize('shape', [(3,), (2, 3), (2, 3, 4, 5)])
def test_layouts_there_and_back(shape):
    """Contiguous, as a file needs its tensors."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for first, second in ((to_torch, from_torch), (from_torch, to_torch)):
        assert first(values).flags['C_CONTIGUOUS']
        np.testing.assert_array_equal(second(first(values)), values)
