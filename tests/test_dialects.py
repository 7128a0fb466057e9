"""The names of other libraries, built here as their code builds them, against torchvision's."""

import json
import re
from pathlib import Path

import pytest

from kd_jax.networks.dialects import renamed

GOLDEN = json.loads((Path(__file__).parent / 'golden/torch_names.json').read_text())
# Blocks of each group behind the stem, as in timm's `mobilenetv2_100`.
TIMM_BLOCKS = (2, 3, 4, 3, 3, 1)
BLOCKS = {'resnet18': (2, 2, 2, 2), 'resnet34': (3, 4, 6, 3), 'resnet50': (3, 4, 6, 3)}


def timm_mobilenet():
    """Modules in the order of the forward pass, which is torchvision's order too."""
    yield from ('conv_stem', 'bn1')
    yield from (f'blocks.0.0.{layer}' for layer in ('conv_dw', 'bn1', 'conv_pw', 'bn2'))
    for group, blocks in enumerate(TIMM_BLOCKS, 1):
        for block in range(blocks):
            for layer in ('conv_pw', 'bn1', 'conv_dw', 'bn2', 'conv_pwl', 'bn3'):
                yield f'blocks.{group}.{block}.{layer}'
    yield from ('conv_head', 'bn2', 'classifier')


def transformers_resnet(name, root='resnet.'):
    """Modules in torchvision's order: the shortcut of a block behind its convolutions."""
    pair = ('convolution', 'normalization')
    yield from (f'{root}embedder.embedder.{layer}' for layer in pair)
    bottleneck = name == 'resnet50'
    for stage, blocks in enumerate(BLOCKS[name]):
        for block in range(blocks):
            prefix = f'{root}encoder.stages.{stage}.layers.{block}'
            for i in range(3 if bottleneck else 2):
                yield from (f'{prefix}.layer.{i}.{layer}' for layer in pair)
            if block == 0 and (stage > 0 or bottleneck):
                yield from (f'{prefix}.shortcut.{layer}' for layer in pair)
    yield 'classifier.1'


def old_densenet():
    """torchvision's files of 2017: denselayer1.norm.1 for what its code calls norm1."""
    dotted = re.compile(r'(denselayer\d+\.(?:norm|conv))([12])$')
    yield from (dotted.sub(r'\1.\2', module) for module in GOLDEN['densenet121'])


def assert_renamed(modules, network):
    """Every module, by name and place; all leaves of a module go the same way."""
    keys = [f'{module}.{leaf}' for module in modules for leaf in ('weight', 'running_var')]
    wanted = [f'{m}.{leaf}' for m in GOLDEN[network] for leaf in ('weight', 'running_var')]
    found = renamed(keys)
    assert list(found) == keys
    assert list(found.values()) == wanted
    prefixed = renamed(f'module.{key}' for key in keys)
    assert list(prefixed) == [f'module.{key}' for key in keys]
    assert list(prefixed.values()) == wanted


def test_timm_mobilenet():
    assert_renamed(list(timm_mobilenet()), 'mobilenet_v2')


@pytest.mark.parametrize('name', BLOCKS)
def test_transformers_resnet(name):
    assert_renamed(list(transformers_resnet(name)), name)


def test_transformers_resnet_without_its_head():
    """ResNetModel has no `resnet.` in front and no classifier."""
    keys = [f'{module}.weight' for module in transformers_resnet('resnet18', root='')][:-1]
    wanted = [f'{module}.weight' for module in GOLDEN['resnet18']][:-1]
    assert list(renamed(keys).values()) == wanted


def test_old_densenet():
    modules = list(old_densenet())
    assert 'features.denseblock4.denselayer16.conv.2' in modules
    assert_renamed(modules, 'densenet121')


@pytest.mark.parametrize('name', sorted(set(GOLDEN) - {'bam'}))
def test_names_that_are_right_stay(name):
    assert_renamed(list(GOLDEN[name]), name)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_transformers_mobilenet_is_refused(prefix):
    keys = [f'{prefix}mobilenet_v2.conv_stem.first_conv.convolution.weight', 'classifier.weight']
    with pytest.raises(ValueError, match=r"as TensorFlow does.*torchvision's or timm's"):
        renamed(keys)


def test_unknown_names_stay():
    keys = ['stem.weight', 'a.module.b', 'blocks.0.0.conv_dw.weight', 'module']
    assert renamed(keys) == {key: key for key in keys}


def test_nothing():
    assert renamed([]) == {}
