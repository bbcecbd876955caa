"""J(x, l) + β KL(p(x) ‖ p(x')), where x' is the example whose p(x') is furthest from p(x).

Source: Zhang et al., *Theoretically principled trade-off between robustness and accuracy*, 2019.
"""

import torch
from torch import nn
from torch.nn.functional import kl_div

from lib.defences import Loss, Settings, ascend, frozen


def loss(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, criterion: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad(), frozen(model):
        clean = model(x).float().log_softmax(1)
    within = {
        "budget": settings.budget,
        "steps": settings.steps,
        "step": 2.5 * settings.budget / settings.steps,
    }
    start = x + torch.randn_like(x) * min(0.001, settings.budget)
    crafted = ascend(model, x, lambda logits: divergence(logits, clean), start=start, **within)
    logits = model(x)
    agreement = divergence(model(crafted), logits.float().log_softmax(1))
    return criterion(logits, labels) + settings.beta * agreement, logits


def divergence(logits: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """KL of the distribution with log-probabilities ``clean`` from that of the logits, mean over images."""
    return kl_div(logits.float().log_softmax(1), clean, reduction="batchmean", log_target=True)
