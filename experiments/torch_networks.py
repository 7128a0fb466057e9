"""The networks of kd_jax in PyTorch, with the names of our exports, to be timed beside ours."""

import torch
from torch import nn
from torch.nn import functional

from experiments.torch_light import DenseNet, MobileNet, OSNet
from experiments.torch_resnet import ResNet

BACKBONES = {made.__name__: made for made in (ResNet, OSNet, DenseNet, MobileNet)}


class Network(nn.Module):
    """A backbone, global average pooling, and our neck and classifier."""

    def __init__(self, backbone, kind, width, classes):
        super().__init__()
        self.backbone, self.kind = backbone, kind
        if kind == 'bnneck':
            self.bottleneck = nn.BatchNorm1d(backbone.outputs)
            self.bottleneck.bias.requires_grad_(False)
            self.classifier = nn.Linear(backbone.outputs, classes, bias=False)
        else:
            self.fc = nn.Sequential(nn.Linear(backbone.outputs, width), nn.BatchNorm1d(width))
            self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        pooled = self.backbone(x).float().mean((2, 3))
        if self.kind == 'bnneck':
            return pooled, self.classifier(self.bottleneck(pooled))
        neck = functional.relu(self.fc(pooled))
        return neck, self.classifier(neck)


def like(ours):
    """The torch network of a `kd_jax.networks.Network`."""
    backbone = BACKBONES[type(ours).__name__](ours)
    return Network(backbone, ours.neck, ours.neck_width, ours.classes)


def load(network, tensors):
    """Put the tensors of an export into a network; a missing or surplus one is an error."""
    heads = ('fc.', 'bottleneck.', 'classifier.')
    named = {k if k.startswith(heads) else f'backbone.{k}': v for k, v in tensors.items()}
    network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in named.items()})
