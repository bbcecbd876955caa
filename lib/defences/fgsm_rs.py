"""Eq. 14 with one step of 1.25 ε from a random start in the ball.

Source: Wong, Rice, Kolter, *Fast is better than free: revisiting adversarial training*, 2020.
"""

import torch
from torch import nn

from lib.defences import Loss, Settings, ascend, equation14, uniform_in_ball


def loss(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, criterion: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    budget, start = settings.budget, uniform_in_ball(x, settings.budget)
    crafted = ascend(
        model, x, lambda logits: criterion(logits, labels), budget=budget, step=1.25 * budget, start=start
    )
    return equation14(model, x, crafted, labels, criterion, settings.alpha)
