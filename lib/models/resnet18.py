"""ResNet-18, torchvision's."""

import torchvision
from torch import nn

from lib.models.weights import imagenet

SMALLEST = 32
WEIGHTS = imagenet("resnet18-f37072fd.pth")


def build(classes: int) -> nn.Module:
    return torchvision.models.resnet18(weights=None, num_classes=classes)
