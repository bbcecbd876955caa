"""A control: Eq. 14 with x' = clip{x + ε s}, s of random signs: as far from x as FGSM's, and without a model.

What a model gains by this training, it gains by being disturbed, and not by being attacked.
"""

import torch
from torch import nn

from lib.defences import Loss, Settings, equation14


def loss(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, criterion: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    signs = torch.empty_like(x).bernoulli_().mul_(2).sub_(1)
    changed = x.add(signs, alpha=settings.budget).clamp_(0, 1)
    return equation14(model, x, changed, labels, criterion, settings.alpha)
