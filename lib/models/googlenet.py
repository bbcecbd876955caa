"""GoogLeNet, torchvision's, without its two auxiliary outputs."""

import torchvision
from torch import nn

from lib.models import he_normal
from lib.models.weights import imagenet

SMALLEST = 32
INPUT = (0.5, 0.5)  # its published weights were trained on images in [-1, 1]
WEIGHTS = imagenet("googlenet-1378be20.pth")
initialise = he_normal


def build(classes: int) -> nn.Module:
    return torchvision.models.googlenet(
        weights=None, num_classes=classes, aux_logits=False, init_weights=False
    )
