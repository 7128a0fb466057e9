"""Names that other libraries give the same tensors, put into torchvision's and torchreid's."""

import re
from collections.abc import Iterable

# transformers' ResNet counts stages, layers and convolutions from 0.
TRANSFORMERS_RESNET = (
    (r'^(?:resnet\.)?embedder\.embedder\.convolution', 'conv1'),
    (r'^(?:resnet\.)?embedder\.embedder\.normalization', 'bn1'),
    (r'^(?:resnet\.)?encoder\.stages\.(\d)\.layers', lambda m: f'layer{int(m[1]) + 1}'),
    (r'shortcut\.convolution', 'downsample.0'),
    (r'shortcut\.normalization', 'downsample.1'),
    (r'\.layer\.(\d)\.convolution', lambda m: f'.conv{int(m[1]) + 1}'),
    (r'\.layer\.(\d)\.normalization', lambda m: f'.bn{int(m[1]) + 1}'),
    (r'^classifier\.1\.', 'fc.'),
)
# timm's MobileNetV2 counts blocks from 0 in each of seven groups; the first block is unlike others.
TIMM_GROUPS = (1, 2, 3, 4, 3, 3, 1)
TIMM_MOBILENET = (
    (r'^blocks\.(\d)\.(\d)\.', lambda m: f'features.{_place(int(m[1]), int(m[2]))}.conv.'),
    (r'features\.1\.conv\.conv_dw', 'features.1.conv.0.0'),
    (r'features\.1\.conv\.bn1', 'features.1.conv.0.1'),
    (r'features\.1\.conv\.conv_pw', 'features.1.conv.1'),
    (r'features\.1\.conv\.bn2', 'features.1.conv.2'),
    (r'conv\.conv_pwl', 'conv.2'),
    (r'conv\.conv_pw', 'conv.0.0'),
    (r'conv\.bn1', 'conv.0.1'),
    (r'conv\.conv_dw', 'conv.1.0'),
    (r'conv\.bn2', 'conv.1.1'),
    (r'conv\.bn3', 'conv.3'),
    (r'^conv_stem', 'features.0.0'),
    (r'^bn1', 'features.0.1'),
    (r'^conv_head', 'features.18.0'),
    (r'^bn2', 'features.18.1'),
    (r'^classifier', 'classifier.1'),
)
# The files of torchvision's DenseNet, as they are distributed, have a dot more than its code.
OLD_DENSENET = ((r'(denselayer\d+\.(?:norm|conv))\.([12]\.)', r'\1\2'),)


def renamed(keys: Iterable[str]) -> dict[str, str]:
    """For every key, what torchvision or torchreid calls the tensor.

    Known are `module.` in front (DataParallel), transformers' ResNet, timm's MobileNetV2 and the
    old names of torchvision's DenseNet; other keys stay. Raises ValueError for transformers'
    MobileNetV2, which is another network.
    """
    plain = {key: key.removeprefix('module.') for key in keys}
    rules = _rules(set(plain.values()))
    return {key: _substituted(name, rules) for key, name in plain.items()}


def _rules(names: set[str]) -> tuple:
    if any(name.startswith('mobilenet_v2.') for name in names):
        raise ValueError(
            "transformers' MobileNetV2 pads and normalises as TensorFlow does, so its weights do "
            "not fit; take torchvision's or timm's mobilenetv2_100"
        )
    if any(name.endswith('embedder.embedder.convolution.weight') for name in names):
        return TRANSFORMERS_RESNET
    if 'conv_stem.weight' in names:
        return TIMM_MOBILENET
    return OLD_DENSENET


def _substituted(name: str, rules: tuple) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _place(group: int, block: int) -> int:
    """The number among torchvision's features of a block, which is at least 1."""
    return 1 + sum(TIMM_GROUPS[:group]) + block
