"""Eq. 14 with several steps of 2.5 ε / steps from a random start in the ball.

Source: Madry et al., *Towards deep learning models resistant to adversarial attacks*, 2018.
"""

import torch
from torch import nn

from lib.defences import Loss, Settings, ascend, equation14, uniform_in_ball


def loss(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, criterion: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    within = {
        "budget": settings.budget,
        "steps": settings.steps,
        "step": 2.5 * settings.budget / settings.steps,
    }
    start = uniform_in_ball(x, settings.budget)
    crafted = ascend(model, x, lambda logits: criterion(logits, labels), start=start, **within)
    return equation14(model, x, crafted, labels, criterion, settings.alpha)
