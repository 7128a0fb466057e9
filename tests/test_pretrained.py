import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_options import create
from random_trees import random_variables
from safetensors import safe_open
from safetensors.numpy import load_file

from kd_jax import trees
from kd_jax.networks import BACKBONES, pretrained
from kd_jax.networks.network import Neck
from kd_jax.networks.state_dicts import read
from kd_jax.networks.torch_names import to_torch, torch_names

# A network of every class, what its classifier is called, and a prefix of its last stage.
CLASSES = {
    'resnet10': ('fc', 'layer4_0/'),
    'resnet50bam': ('fc', 'layer4_'),
    'osnet_x0_25': ('classifier', 'conv5_'),
    'densenet121': ('classifier', 'denseblock4_'),
    'mobilenet_v2': ('classifier.1', None),
}
ABSENT = re.compile(r'(fc|bottleneck|classifier|layer[123]\.\d\.(channel|spatial)_att)\.')


def narrow(name, **changes):
    """A network of two channels where ImageNet's has 64."""
    options = {'width': 2, 'stem': 'imagenet', 'conv': 'xla', 'neck_width': 8}
    return create(name, **(options | changes))


@functools.cache
def bnneck_shapes(network, channels):
    image = jnp.zeros((1, 64, 32, channels))
    return jax.eval_shape(network.init, jax.random.key(0), image)


def shapes(network, channels):
    """Of the variables; those of a backbone are the same before any neck, and slow to find."""
    found = bnneck_shapes(network.clone(neck='bnneck'), channels)
    if network.neck == 'bnneck':
        return found
    norm = functools.partial(nn.BatchNorm, use_running_average=True)
    neck = Neck(network.neck, network.neck_width, network.classes, norm)
    pooled = jnp.zeros((1, *found['params']['neck']['neck_bn']['scale'].shape))
    necks = jax.eval_shape(neck.init, jax.random.key(0), pooled)
    return {kind: {**tree, 'neck': necks[kind]} for kind, tree in found.items()}


def drawn(network, seed=0, channels=3):
    """Random variables, as if a run began with them."""
    return random_variables(shapes(network, channels), seed)


def in_torch(network, variables):
    """A state dict of some variables."""
    names = torch_names(network, variables)
    return {names[path]: to_torch(np.asarray(v)) for path, v in trees.named(variables).items()}


def imagenet(network, classifier='fc'):
    """A state dict as torchvision's: no neck, no BAM, 1000 classes, counters of BatchNorm."""
    tensors = in_torch(network, drawn(network, seed=9))
    tensors = {name: value for name, value in tensors.items() if not ABSENT.match(name)}
    means = [name for name in tensors if name.endswith('running_mean')]
    counters = {name.replace('running_mean', 'num_batches_tracked') for name in means}
    head = {f'{classifier}.weight': (1000, 4), f'{classifier}.bias': (1000,)}
    tensors |= {name: np.ones(shape, np.float32) for name, shape in head.items()}
    return tensors | dict.fromkeys(counters, np.array(100))


def file_of(tmp_path, tensors):
    np.savez(tmp_path / 'weights.npz', **tensors)
    return tmp_path / 'weights.npz'


def assert_same(found, wanted):
    """Byte by byte, and nowhere but on the same paths."""
    found, wanted = trees.named(found), trees.named(wanted)
    assert set(found) == set(wanted)
    for path, leaf in wanted.items():
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def fresh_paths(found, before):
    """The paths of all leaves that are no longer as they were."""
    found, before = trees.named(found), trees.named(before)
    return {path for path in before if not np.array_equal(found[path], before[path])}


def refusal(network, tensors, tmp_path, channels=3):
    """What is told of a file that does not fit, without its first line."""
    path = file_of(tmp_path, tensors)
    with pytest.raises(ValueError, match=f'^{path} does not fit the network of this ') as told:
        pretrained.load(network, drawn(network, channels=channels), path)
    return str(told.value).splitlines()[1:]


# What is written is read again.


@pytest.mark.parametrize('neck', ['bnneck', 'fc_bn_relu'])
@pytest.mark.parametrize('name', BACKBONES)
def test_there_and_back(name, neck, tmp_path):
    network = narrow(name, neck=neck)
    variables, path = drawn(network), tmp_path / 'student.safetensors'
    written = pretrained.export(network, variables, path, step='8')
    assert written == len(trees.named(variables)) + (neck == 'bnneck')
    blank = jax.tree.map(np.zeros_like, variables)
    assert_same(pretrained.load(network, blank, path, classifier=True), variables)


def test_an_exported_file_is_in_torchs_layout(tmp_path):
    network, path = narrow('resnet10'), tmp_path / 'student.safetensors'
    variables = drawn(network)
    pretrained.export(network, variables, path, network='{}', step='8')
    kernel = variables['params']['conv1']['kernel']
    with safe_open(path, 'np') as file:
        assert file.metadata() == {'format': 'pt', 'network': '{}', 'step': '8'}
        weight, dense = file.get_tensor('conv1.weight'), file.get_tensor('classifier.weight')
        bias = file.get_tensor('bottleneck.bias')
    assert weight.shape == (2, 3, 7, 7)
    for k, j, i, o in np.ndindex(kernel.shape):
        assert weight[o, i, k, j] == kernel[k, j, i, o]
    np.testing.assert_array_equal(dense, variables['params']['neck']['classifier']['kernel'].T)
    np.testing.assert_array_equal(bias, np.zeros(16, np.float32))  # torch's BatchNorm has one


# What a file as torchvision's gives.


@pytest.mark.parametrize('neck', ['bnneck', 'fc_bn_relu'])
@pytest.mark.parametrize('name', CLASSES)
def test_a_backbone_is_taken_whole(name, neck, tmp_path, caplog):
    """Statistics too; neck, BAM and classifier stay as drawn, and that is told."""
    caplog.set_level('INFO')
    network = narrow(name, neck=neck)
    variables, path = drawn(network), file_of(tmp_path, imagenet(network, CLASSES[name][0]))
    found = pretrained.load(network, variables, path)
    kept = {p for p in trees.named(variables) if p.split('/')[1].startswith(('neck', 'bam'))}
    fresh = trees.named(variables).keys() - kept
    assert fresh_paths(found, variables) == fresh
    names, state, taken = torch_names(network, found), read(path), in_torch(network, found)
    for leaf in fresh:
        np.testing.assert_array_equal(taken[names[leaf]], state[names[leaf]])
    parts = ['bam1', 'bam2', 'bam3'] * (name == 'resnet50bam') + ['neck/classifier']
    parts += ['neck/fc'] * (neck == 'fc_bn_relu') + ['neck/neck_bn']
    assert f'read {len(fresh)} tensors; dropped: ' in caplog.text
    assert f'as drawn: {", ".join(parts)}\n' in caplog.text


@pytest.mark.parametrize(('inflate', 'channels'), [(1, 12), (4, 12)])
@pytest.mark.parametrize('name', ['resnet10', 'mobilenet_v2'])
def test_a_first_convolution_of_other_channels(name, inflate, channels, tmp_path, caplog):
    """As drawn; but inflated where the T-net's shots of RGB are what it reads."""
    caplog.set_level('INFO')
    network = narrow(name, inflate=inflate)
    variables, state = drawn(network, channels=channels), imagenet(narrow(name), CLASSES[name][0])
    found = pretrained.load(network, variables, file_of(tmp_path, state))
    left = trees.named(variables).keys() - fresh_paths(found, variables)
    first = f'params/{network.FIRST}/kernel'
    if (inflate, channels) == (4, 12):
        published = state[torch_names(network, variables)[first]]
        shots = np.split(to_torch(np.asarray(trees.named(found)[first])), 4, axis=1)
        np.testing.assert_array_equal(shots, [published / 4] * 4)
    else:
        assert first in left
        assert re.search(rf'as drawn: .*{network.FIRST}', caplog.text)
    assert all('/neck/' in path for path in left - {first})


@pytest.mark.parametrize(('inflate', 'channels'), [(1, 1), (1, 4), (4, 4), (2, 12)])
def test_a_first_convolution_that_no_shots_make(inflate, channels, tmp_path):
    network = narrow('resnet10', inflate=inflate)
    path = file_of(tmp_path, imagenet(narrow('resnet10'), CLASSES['resnet10'][0]))
    told = rf'conv1.weight: \(2, 3, 7, 7\) in the file, \(2, {channels}, 7, 7\) here'
    with pytest.raises(ValueError, match=told):
        pretrained.load(network, drawn(network, channels=channels), path)


def test_a_t_nets_own_file_is_taken_as_it_is(tmp_path):
    network, path = narrow('resnet10', inflate=4), tmp_path / 't_net.safetensors'
    variables = drawn(network, seed=1, channels=12)
    pretrained.export(network, variables, path)
    found = pretrained.load(network, drawn(network, channels=12), path, classifier=True)
    assert_same(found, variables)


def test_osnets_fc_is_a_neck_of_one_kind(tmp_path):
    """torchreid's `fc`: taken as fc_bn_relu, dropped where the neck is another.

    The classifier stays, though its shape would fit: another run's identities are others.
    """
    whole, path = narrow('osnet_x0_25', neck='fc_bn_relu'), tmp_path / 'osnet.safetensors'
    pretrained.export(whole, drawn(whole, seed=1), path)
    found = fresh_paths(pretrained.load(whole, drawn(whole), path), drawn(whole))
    left = trees.named(drawn(whole)).keys() - found
    assert left == {f'params/neck/classifier/{leaf}' for leaf in ('kernel', 'bias')}

    other = narrow('osnet_x0_25')
    found = fresh_paths(pretrained.load(other, drawn(other), path), drawn(other))
    assert not any('/neck/' in leaf for leaf in found)
    lines = refusal(whole.clone(neck_width=9), load_file(path), tmp_path)
    assert len(lines) == 6
    assert lines[0] == '  fc.0.bias: (8,) in the file, (9,) here'


# What does not fit.


def test_all_that_does_not_fit_is_listed(tmp_path):
    network = narrow('resnet10')
    state = imagenet(network)
    del state['layer1.0.conv1.weight'], state['bn1.running_mean']
    state |= {'layer1.1.conv1.weight': np.ones(1), 'layer2.0.bn1.bias': np.ones(3)}
    assert refusal(network, state, tmp_path) == [
        '  bn1.running_mean: missing',
        '  layer1.0.conv1.weight: missing',
        '  layer1.1.conv1.weight: surplus',
        '  layer2.0.bn1.bias: (3,) in the file, (4,) here',
    ]


@pytest.mark.parametrize(
    ('stem', 'channels', 'shape'),
    [
        ('small', 3, (2, 3, 7, 7)),
        ('small', 1, (2, 3, 7, 7)),
        ('imagenet', 3, ()),
        ('imagenet', 3, (2,)),
        ('imagenet', 3, (2, 3, 7)),
    ],
)
def test_a_first_tensor_that_is_no_such_convolution(stem, channels, shape, tmp_path):
    network, size = narrow('resnet10', stem=stem), {'small': 3, 'imagenet': 7}[stem]
    state = imagenet(narrow('resnet10')) | {'conv1.weight': np.ones(shape)}
    wanted = f'  conv1.weight: {shape} in the file, (2, {channels}, {size}, {size}) here'
    assert refusal(network, state, tmp_path, channels) == [wanted]


def test_the_weights_of_another_network(tmp_path):
    lines = refusal(narrow('mobilenet_v2'), imagenet(narrow('resnet10')), tmp_path)
    assert {'  features.0.0.weight: missing', '  conv1.weight: surplus'} < set(lines)


def test_half_a_neck_or_bam_is_not_taken_for_none(tmp_path):
    network = narrow('resnet50bam')
    state = in_torch(network, drawn(network))
    del state['bottleneck.weight']
    state = {name: value for name, value in state.items() if not name.startswith('layer2.4.')}
    first, *others = refusal(network, state, tmp_path)
    assert first == '  bottleneck.weight: missing'
    assert len(others) == 28
    assert all(re.match(r'  layer2\.4\..*: missing', line) for line in others)


def test_the_bias_of_a_bnneck_is_zero_or_refused(tmp_path):
    network = narrow('resnet10')
    state = in_torch(network, drawn(network)) | {'bottleneck.bias': np.array([0, 0, 0, 1e-3])}
    assert refusal(network, state, tmp_path) == ['  bottleneck.bias: surplus']
