"""ResNet-56, the CIFAR residual network of He et al.: 6n + 2 layers with n = 9.

A 3 × 3 convolution to 16 channels, three stages of n blocks with 16, 32 and 64 channels, the mean over the
image, a linear layer. Layers are named as in the published weights.

Source: He, Zhang, Ren, Sun, *Deep residual learning for image recognition*, 2016, section 4.2.
"""

import torch
from torch import nn

from lib.models.weights import Weights

SMALLEST = 8
WEIGHTS = Weights(
    "cifar10",
    "resnet56-4bfd9763.th",
    "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet56-4bfd9763.th",
    "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
)


def build(classes: int) -> nn.Module:
    return ResNet6n2(9, classes)


class ResNet6n2(nn.Module):
    """The network of 6n + 2 layers for images of one channel."""

    def __init__(self, n: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inner, outer, stride) in enumerate(((16, 16, 1), (16, 32, 2), (32, 64, 2)), start=1):
            blocks = [Block(inner, outer, stride), *[Block(outer, outer, 1) for _ in range(n - 1)]]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut without parameters (option A of section 4.2)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.padding = stride, (outer - inner) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return nn.functional.relu(out + x)
