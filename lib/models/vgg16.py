"""VGG-16, torchvision's: thirteen convolutions and three linear layers, no batch norm."""

import torchvision
from torch import nn

from lib.models import he_normal
from lib.models.weights import imagenet

SMALLEST = 32
PACE = 0.1
WEIGHTS = imagenet("vgg16-397923af.pth")
initialise = he_normal


def build(classes: int) -> nn.Module:
    return torchvision.models.vgg16(weights=None, num_classes=classes)
