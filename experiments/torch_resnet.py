"""ResNets, with BAM too, in PyTorch, for `torch_networks`."""

import torch
from torch import nn
from torch.nn import functional

from kd_jax.networks.bam import DILATION, REDUCTION


def conv(inputs, outputs, size, stride=1, groups=1, bias=False, dilation=1):
    """A convolution padded on both sides alike."""
    pad = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, stride, pad, dilation, groups, bias)


class Block(nn.Module):
    """A residual block of torchvision's."""

    def __init__(self, inputs, features, stride, bottleneck, relus):
        super().__init__()
        outputs = features * (4 if bottleneck else 1)
        sizes = (1, 3, 1) if bottleneck else (3, 3)
        channels = [inputs, *[features] * (len(sizes) - 1), outputs]
        strided = 1 if bottleneck else 0
        for i, size in enumerate(sizes):
            step = stride if i == strided else 1
            self.add_module(f'conv{i + 1}', conv(channels[i], channels[i + 1], size, step))
            self.add_module(f'bn{i + 1}', nn.BatchNorm2d(channels[i + 1]))
        self.depth, self.relus, self.downsample = len(sizes), relus, None
        if stride > 1 or inputs != outputs:
            shortcut = conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            self.downsample = nn.Sequential(*shortcut)

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
            if i < self.depth and self.relus != 'code':
                y = functional.relu(y)
        y = y + (x if self.downsample is None else self.downsample(x))
        return functional.relu(y) if self.relus == 'all' else y


class BAM(nn.Module):
    """VKD's attention, with its names."""

    def __init__(self, channels):
        super().__init__()
        inner = max(1, channels // REDUCTION)
        gate_c, gate_s = nn.Module(), nn.Module()
        gate_c.gate_c_fc_0, gate_c.gate_c_bn_1 = nn.Linear(channels, inner), nn.BatchNorm1d(inner)
        gate_c.gate_c_fc_final = nn.Linear(inner, channels)
        gate_s.gate_s_conv_reduce0 = conv(channels, inner, 1, bias=True)
        gate_s.gate_s_bn_reduce0 = nn.BatchNorm2d(inner)
        for i in range(2):
            dilated = conv(inner, inner, 3, bias=True, dilation=DILATION)
            gate_s.add_module(f'gate_s_conv_di_{i}', dilated)
            gate_s.add_module(f'gate_s_bn_di_{i}', nn.BatchNorm2d(inner))
        gate_s.gate_s_conv_final = conv(inner, 1, 1, bias=True)
        self.channel_att, self.spatial_att = nn.Module(), nn.Module()
        self.channel_att.gate_c, self.spatial_att.gate_s = gate_c, gate_s

    def forward(self, x):
        c, s = self.channel_att.gate_c, self.spatial_att.gate_s
        channel = functional.relu(c.gate_c_bn_1(c.gate_c_fc_0(x.mean((2, 3)))))
        channel = c.gate_c_fc_final(channel)[:, :, None, None]
        y = functional.relu(s.gate_s_bn_reduce0(s.gate_s_conv_reduce0(x)))
        for i in range(2):
            y = getattr(s, f'gate_s_conv_di_{i}')(y)
            y = functional.relu(getattr(s, f'gate_s_bn_di_{i}')(y))
        return x * (1 + torch.sigmoid(channel * s.gate_s_conv_final(y)))


class ResNet(nn.Module):
    """Like kd_jax.networks.resnet."""

    def __init__(self, ours):
        super().__init__()
        self.conv1 = conv(3, ours.width, 7 if ours.stem == 'imagenet' else 3, 2)
        self.bn1, self.small = nn.BatchNorm2d(ours.width), ours.stem == 'small'
        self.outputs = ours.width
        for i, blocks in enumerate(ours.blocks):
            stage = []
            for j in range(blocks):
                stride = (1, 2, 2, ours.last_stride)[i] if j == 0 else 1
                relus = ours.last_block_relu if (i, j) == (3, blocks - 1) else 'all'
                width = ours.width * 2**i
                stage.append(Block(self.outputs, width, stride, ours.bottleneck, relus))
                self.outputs = width * (4 if ours.bottleneck else 1)
            stage += [BAM(self.outputs)] if ours.bam and i < 3 else []
            self.add_module(f'layer{i + 1}', nn.Sequential(*stage))

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = x if self.small else functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))
