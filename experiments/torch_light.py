"""OSNet, DenseNet-121 and MobileNetV2 in PyTorch, for `torch_networks`."""

import torch
from torch import nn
from torch.nn import functional

from experiments.torch_resnet import conv
from kd_jax.networks.densenet import GROWTH
from kd_jax.networks.mobilenet import HEAD, STEM
from kd_jax.networks.osnet import CHANNELS, GATE_REDUCTION


class ConvNorm(nn.Module):
    """A convolution, BatchNorm and, if asked for, ReLU; torchreid's names."""

    def __init__(self, inputs, outputs, *, size=1, stride=1, relu=True):
        super().__init__()
        self.conv = conv(inputs, outputs, size, stride)
        self.bn, self.relu = nn.BatchNorm2d(outputs), relu

    def forward(self, x):
        x = self.bn(self.conv(x))
        return functional.relu(x) if self.relu else x


class LightConv(nn.Module):
    """1×1, depthwise 3×3, BatchNorm, ReLU."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.conv2 = (
            conv(channels, channels, 1),
            conv(channels, channels, 3, 1, channels),
        )
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return functional.relu(self.bn(self.conv2(self.conv1(x))))


class OSBlock(nn.Module):
    """Four streams behind one gate; torchreid's names."""

    def __init__(self, inputs, outputs, inner):
        super().__init__()
        self.conv1 = ConvNorm(inputs, inner)
        self.conv2a = LightConv(inner)
        for depth, name in enumerate('bcd', 2):
            self.add_module(
                f'conv2{name}', nn.Sequential(*(LightConv(inner) for _ in range(depth)))
            )
        gate = max(1, inner // GATE_REDUCTION)
        self.gate = nn.Module()
        self.gate.fc1, self.gate.fc2 = (
            conv(inner, gate, 1, bias=True),
            conv(gate, inner, 1, bias=True),
        )
        self.conv3 = ConvNorm(inner, outputs, relu=False)
        self.downsample = ConvNorm(inputs, outputs, relu=False) if inputs != outputs else None

    def forward(self, x):
        first = self.conv1(x)
        streams = (getattr(self, f'conv2{name}')(first) for name in 'abcd')
        y = self.conv3(sum(self._gated(stream) for stream in streams))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))

    def _gated(self, x):
        pooled = functional.relu(self.gate.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.gate.fc2(pooled))


class OSNet(nn.Module):
    """Like kd_jax.networks.osnet."""

    def __init__(self, ours):
        super().__init__()
        wide = [ours.scaled(int(channels * ours.multiplier)) for channels in CHANNELS]
        self.conv1 = ConvNorm(3, wide[0], size=7 if ours.stem == 'imagenet' else 3, stride=2)
        self.small, self.pooled = ours.stem == 'small', ours.last_stride == 2
        for i in (1, 2, 3):
            inner = max(1, wide[i] // 4)
            blocks = [OSBlock(wide[i - 1], wide[i], inner), OSBlock(wide[i], wide[i], inner)]
            transition = nn.Sequential(ConvNorm(wide[i], wide[i]), nn.AvgPool2d(2))
            self.add_module(
                f'conv{i + 1}', nn.Sequential(*blocks, *([transition] if i < 3 else []))
            )
        self.conv5 = ConvNorm(wide[3], wide[3], relu=ours.last_block_relu == 'all')
        self.outputs = wide[3]

    def forward(self, x):
        x = self.conv1(x)
        x = x if self.small else functional.max_pool2d(x, 3, 2, 1)
        x = self.conv4(self.conv3(self.conv2(x)))
        return self.conv5(functional.avg_pool2d(x, 2) if self.pooled else x)


class DenseLayer(nn.Module):
    """One layer of a dense block; torchvision's names."""

    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), conv(4 * growth, growth, 3)

    def forward(self, x):
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """Like kd_jax.networks.densenet."""

    def __init__(self, ours):
        super().__init__()
        growth, channels = ours.scaled(GROWTH), ours.scaled(64)
        first = {'conv0': conv(3, channels, 7 if ours.stem == 'imagenet' else 3, 2)}
        first |= {'norm0': nn.BatchNorm2d(channels), 'relu0': nn.ReLU()}
        self.features = nn.Sequential()
        for name, module in first.items():
            self.features.add_module(name, module)
        if ours.stem == 'imagenet':
            self.features.add_module('pool0', nn.MaxPool2d(3, 2, 1))
        for i, layers in enumerate(ours.blocks, 1):
            block = nn.Sequential()
            for j in range(layers):
                block.add_module(f'denselayer{j + 1}', DenseLayer(channels, growth))
                channels += growth
            self.features.add_module(f'denseblock{i}', block)
            if i < 4:
                pool = i < 3 or ours.last_stride == 2
                self.features.add_module(f'transition{i}', _transition(channels, pool))
                channels = max(1, channels // 2)
        self.features.add_module('norm5', nn.BatchNorm2d(channels))
        self.relu, self.outputs = ours.last_block_relu == 'all', channels

    def forward(self, x):
        x = self.features(x)
        return functional.relu(x) if self.relu else x


def _transition(channels, pool):
    made = nn.Sequential()
    made.add_module('norm', nn.BatchNorm2d(channels))
    made.add_module('relu', nn.ReLU())
    made.add_module('conv', conv(channels, max(1, channels // 2), 1))
    made.add_module('pool', nn.AvgPool2d(2) if pool else nn.Identity())
    return made


class MobileNet(nn.Module):
    """Like kd_jax.networks.mobilenet."""

    def __init__(self, ours):
        super().__init__()
        inputs = ours.scaled(STEM)
        self.features = nn.Sequential(
            _conv_relu6(3, inputs, 3, 2 if ours.stem == 'imagenet' else 1)
        )
        for row in ours.table:
            strided = ours.last_stride if row.stage == 4 and row.stride == 2 else row.stride
            for j in range(row.blocks):
                outputs, stride = ours.scaled(row.channels), strided if j == 0 else 1
                self.features.append(InvertedResidual(inputs, outputs, row.expansion, stride))
                inputs = outputs
        self.outputs = ours.scaled(HEAD)
        relu = ours.last_block_relu == 'all'
        self.features.append(_conv_relu6(inputs, self.outputs, 1, relu=relu))

    def forward(self, x):
        return self.features(x)


class InvertedResidual(nn.Module):
    """1×1 up, depthwise, 1×1 down; torchvision's names."""

    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        inner = inputs * expansion
        expand = [_conv_relu6(inputs, inner, 1)] if expansion > 1 else []
        depthwise = _conv_relu6(inner, inner, 3, stride, inner)
        self.conv = nn.Sequential(
            *expand, depthwise, conv(inner, outputs, 1), nn.BatchNorm2d(outputs)
        )
        self.added = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.added else self.conv(x)


def _conv_relu6(inputs, outputs, size, stride=1, groups=1, relu=True):
    layers = [conv(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU6()] if relu else []))
