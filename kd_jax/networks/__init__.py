"""Networks that map images to `Outputs`, by name."""

from collections.abc import Sequence
from typing import Any

from kd_jax.networks import densenet, mobilenet, osnet, resnet
from kd_jax.networks.network import Network, Outputs

__all__ = ['BACKBONES', 'Network', 'Outputs', 'create']

# Name -> class and what tells networks of one class apart.
BACKBONES = {
    name: (backbone, fields)
    for module, backbone in (
        (resnet, resnet.ResNet),
        (osnet, osnet.OSNet),
        (densenet, densenet.DenseNet),
        (mobilenet, mobilenet.MobileNet),
    )
    for name, fields in module.NETWORKS.items()
}
NUMBERS = ('classes', 'width', 'neck_width', 'inflate')  # options that are at least 1
PART = ('part', 'part_size')
PART_SIZE = (224, 224)  # as in Factorized Distillation
WORDS = {  # the choices of the other options
    'stem': ('imagenet', 'small'),
    'last_stride': (1, 2),
    'last_block_relu': ('all', 'paper', 'code'),
    'neck': ('fc_bn_relu', 'fc_bn', 'bnneck'),
    'dtype': ('float32', 'bfloat16'),
    'conv': ('auto', 'xla', 'cpu', 'products'),
    'batch_norm': ('global', 'device'),
}


def create(name: str, *, batch_norm: str, axis_name: str | None = None, **options: Any) -> Network:
    """The network called `name`, e.g. 'resnet50'.

    `classes`: train identities. `width`: channels of a ResNet's first stage, 64 as published; any
    network is so many 64ths as wide as published. `stem`: 'imagenet', or 'small' for images of 32
    pixels. `last_stride`: of the last stage. `last_block_relu`: 'all' as published, 'paper'
    without the network's last ReLU, 'code' without any in a ResNet's last block (VKD's paper and
    code). `neck`, `neck_width`: see `network.Neck`. `inflate`: of how many images, stacked in
    channels, the first convolution starts as the mean. `dtype`: of the stages. `conv`: 'xla', the
    matrix products of 'cpu', 'auto', which is 'cpu' where JAX runs on one, or 'products', which
    leaves small ones to XLA no more than large ones. `batch_norm`: over
    all devices of `axis_name` ('global') or over each ('device'). `part`: the rows of an image that
    the network sees, from one share of the height to another, as (0.0, 0.5), stretched to
    `part_size` (Factorized Distillation's partial models); without it, all of the image as it is.

    Raises ValueError naming the choices for an unknown name or word, TypeError for an option that
    no network has or one that is missing.
    """
    if name not in BACKBONES:
        raise ValueError(f'network.name={name!r}: known networks are {", ".join(BACKBONES)}')
    for key, value in {**options, 'batch_norm': batch_norm}.items():
        if key in WORDS and value not in WORDS[key]:
            choices = ', '.join(map(str, WORDS[key]))
            raise ValueError(f'network.{key}={value!r}: choose one of {choices}')
    for key in NUMBERS:
        if options.get(key, 1) < 1:
            raise ValueError(f'network.{key}={options[key]}: give at least 1')
    options |= _checked_part(**{key: options[key] for key in PART if key in options})
    backbone, fields = BACKBONES[name]
    axis_name = axis_name if batch_norm == 'global' else None
    return backbone(**fields, **options, axis_name=axis_name)


def _checked_part(part: Sequence = (), part_size: Sequence = PART_SIZE) -> dict[str, tuple]:
    """Both as tuples, which JSON makes lists of."""
    numbers = all(isinstance(share, int | float) for share in part)
    if part and not (numbers and len(part) == 2 and 0 <= part[0] < part[1] <= 1):
        raise ValueError(f'network.part={part}: two shares of the height, as (0.0, 0.5), or ()')
    whole = all(isinstance(side, int) for side in part_size)
    if not whole or len(part_size) != 2 or min(part_size) < 1:
        raise ValueError(f'network.part_size={part_size}: a height and a width, as (224, 224)')
    return dict(zip(PART, (tuple(part), tuple(part_size))))
