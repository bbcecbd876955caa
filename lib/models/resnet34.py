"""ResNet-34, torchvision's."""

import torchvision
from torch import nn

from lib.models.weights import imagenet

SMALLEST = 32
WEIGHTS = imagenet("resnet34-b627a593.pth")


def build(classes: int) -> nn.Module:
    return torchvision.models.resnet34(weights=None, num_classes=classes)
