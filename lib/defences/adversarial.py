"""The paper's defence, Eq. 14 with FGSM: x' = clip{x + ε sgn ∇J(x, l)}.

Source: Goodfellow, Shlens, Szegedy, *Explaining and harnessing adversarial examples*, 2014.
"""

import torch
from torch import nn

from lib.defences import Loss, Settings, ascend, equation14


def loss(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, criterion: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    budget = settings.budget
    crafted = ascend(model, x, lambda logits: criterion(logits, labels), budget=budget, step=budget)
    return equation14(model, x, crafted, labels, criterion, settings.alpha)
