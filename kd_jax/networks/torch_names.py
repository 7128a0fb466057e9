"""What PyTorch calls the variables of each network, and how it lays them out.

ResNet, DenseNet-121 and MobileNetV2 have torchvision's names, OSNet torchreid's, BAM VKD's; necks
with an FC are torchreid's `fc`, `bnneck` is the `bottleneck` of Luo et al.'s baseline.
"""

import re

import numpy as np
from jaxtyping import Float

from kd_jax.networks.densenet import DenseNet
from kd_jax.networks.mobilenet import MobileNet
from kd_jax.networks.network import Network
from kd_jax.networks.osnet import OSNet
from kd_jax.networks.resnet import ResNet
from kd_jax.trees import Tree, named

LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    'bias': 'bias',
    'mean': 'running_mean',
    'var': 'running_var',
}
NECKS = {
    'fc_bn_relu': {'neck/fc': 'fc.0', 'neck/neck_bn': 'fc.1'},
    'fc_bn': {'neck/fc': 'fc.0', 'neck/neck_bn': 'fc.1'},
    'bnneck': {'neck/neck_bn': 'bottleneck'},
}
CLASSIFIER = 'classifier'

# Regular expressions on the path of a module, one after the other; '/' becomes '.' in the end.
RULES = {
    ResNet: (
        (r'^layer(\d)_', r'layer\1/'),
        ('downsample_conv', 'downsample/0'),
        ('downsample_bn', 'downsample/1'),
        ('channel_fc1', 'channel_att/gate_c/gate_c_fc_0'),
        ('channel_bn', 'channel_att/gate_c/gate_c_bn_1'),
        ('channel_fc2', 'channel_att/gate_c/gate_c_fc_final'),
        ('spatial_reduce', 'spatial_att/gate_s/gate_s_conv_reduce0'),
        ('spatial_bn_reduce', 'spatial_att/gate_s/gate_s_bn_reduce0'),
        (r'spatial_(conv|bn)(\d)', r'spatial_att/gate_s/gate_s_\1_di_\2'),
        ('spatial_final', 'spatial_att/gate_s/gate_s_conv_final'),
    ),
    OSNet: (
        (r'^conv([23])_2_', r'conv\1/2/0/'),
        (r'^conv([234])_(\d)', r'conv\1/\2'),
        (r'conv2a_0', 'conv2a'),
        (r'conv2([bcd])_', r'conv2\1/'),
        (r'_(conv|bn)$', r'/\1'),
    ),
    DenseNet: (
        ('^', 'features/'),
        (r'(denseblock\d)_', r'\1/'),
        (r'(transition\d)_', r'\1/'),
    ),
    MobileNet: (
        (r'^features(\d+)_conv', r'features/\1/0'),
        (r'^features(\d+)_bn', r'features/\1/1'),
        (r'^features1/depthwise_conv', 'features/1/conv/0/0'),  # the one block that does not expand
        (r'^features1/depthwise_bn', 'features/1/conv/0/1'),
        (r'^features1/project_conv', 'features/1/conv/1'),
        (r'^features1/project_bn', 'features/1/conv/2'),
        (r'^features(\d+)', r'features/\1/conv'),
        ('expand_conv', '0/0'),
        ('expand_bn', '0/1'),
        ('depthwise_conv', '1/0'),
        ('depthwise_bn', '1/1'),
        ('project_conv', '2'),
        ('project_bn', '3'),
    ),
}


def torch_names(network: Network, variables: Tree) -> dict[str, str]:
    """The torch name of every variable, by its path, e.g. 'params/layer1_0/conv1/kernel'."""
    return {path: torch_name(network, path) for path in named(variables)}


def torch_name(network: Network, path: str) -> str:
    """The torch name of one variable, e.g. 'layer1.0.conv1.weight'."""
    _, module = path.split('/', 1)
    module, leaf = module.rsplit('/', 1)
    return f'{_module(network, module)}.{LEAVES[leaf]}'


def _module(network: Network, path: str) -> str:
    if path.startswith('neck/'):
        return (NECKS[network.neck] | {'neck/classifier': CLASSIFIER})[path]
    if path.startswith('bam'):  # the last child of its stage, behind the blocks
        stage = int(path[3])
        path = path.replace(f'bam{stage}', f'layer{stage}_{network.blocks[stage - 1]}')
    for pattern, replacement in RULES[type(network)]:
        path = re.sub(pattern, replacement, path)
    return path.replace('/', '.')


def to_torch(values: Float[np.ndarray, '...']) -> Float[np.ndarray, '...']:
    """HWIO to OIHW, (in, out) to (out, in); all else as it is."""
    return np.ascontiguousarray(values.transpose(_axes(values.ndim, (3, 2, 0, 1))))


def from_torch(values: Float[np.ndarray, '...']) -> Float[np.ndarray, '...']:
    """The opposite of `to_torch`."""
    return np.ascontiguousarray(values.transpose(_axes(values.ndim, (2, 3, 1, 0))))


def _axes(rank: int, of_convolution: tuple) -> tuple:
    return {2: (1, 0), 4: of_convolution}.get(rank, tuple(range(rank)))
