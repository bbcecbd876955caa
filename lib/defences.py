"""What a training step minimises: the plain loss, Eq. 14, and the defences that came after it.

A defence is one line of :data:`DEFENCES`: a function of a victim, a batch and the loss ``J`` that gives
the number to descend. Examples are crafted in evaluation mode with the weights frozen: batch norm then
uses, and keeps, its running statistics (crafting in training mode would move them by examples that are
thrown away), and no gradient of a weight is computed that nobody reads. Chapter 5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of the defences; each reads those that concern it.

    Parameters
    ----------
    budget : ε, how far a value of an image may move, in units of full scale (ℓ∞).
    alpha : α of Eq. 14, the share of the clean loss.
    steps : gradient steps of PGD and TRADES.
    beta : how much TRADES weighs agreement against accuracy.
    """

    budget: float = 2 / 255
    alpha: float = 0.0
    steps: int = 7
    beta: float = 6.0

    def __post_init__(self) -> None:
        if not 0 <= self.budget <= 1:
            raise ValueError(f"budget = {self.budget} is outside [0, 1], the range of the images")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha = {self.alpha} is outside [0, 1]")
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: a defence needs at least one step")
        if self.beta < 0:
            raise ValueError(f"beta = {self.beta} is negative")


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradient for any weight, for a while; then all as it was."""
    modes = [(module, module.training) for module in model.modules() if module.training]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for module, _ in modes:
            module.training = False
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight in weights:
            weight.requires_grad_(True)


def ascend(
    model: nn.Module,
    x: torch.Tensor,
    objective: Callable[[torch.Tensor], torch.Tensor],
    *,
    budget: float,
    step: float,
    steps: int = 1,
    start: torch.Tensor | None = None,
    norm: str = "linf",
) -> torch.Tensor:
    """Climb ``objective``, a function of logits, by ``steps`` steps inside the ball around ``x``.

    Under ``linf`` a step is ζ sgn ∇ and the ball holds each value within ``budget``; under ``l2`` a step
    is ζ ∇/‖∇‖₂ and the ball holds each image's ‖x' − x‖₂. Every step ends in [0, 1]. One step from ``x``
    with ζ = ε is FGSM; several are projected gradient ascent (PGD).
    """
    low, high = (x - budget).clamp_(min=0), (x + budget).clamp_(max=1)
    found = x if start is None else _project(start, x, low, high, budget, norm)
    with frozen(model):
        for _ in range(steps):
            found = found.detach().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(objective(model(found)), found)
            slope = slope.sign_() if norm == "linf" else slope / _length(slope)
            found = _project(found.detach().add(slope, alpha=step), x, low, high, budget, norm)
    return found


def _length(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).norm(dim=1).clamp_(min=1e-12).view(-1, *[1] * (x.dim() - 1))


def _project(
    moved: torch.Tensor, x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, budget: float, norm: str
) -> torch.Tensor:
    if norm == "linf":
        return torch.clamp(moved, low, high)
    change = moved - x
    return (x + change * (budget / _length(change)).clamp_(max=1)).clamp_(0, 1)


def around(x: torch.Tensor, budget: float) -> torch.Tensor:
    """A uniform draw from the ℓ∞ ball around ``x``, before it is clipped."""
    return x + torch.empty_like(x).uniform_(-budget, budget)


def standard(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, loss: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """J(x, l): no defence."""
    logits = model(x)
    return loss(logits, labels), logits


def fgsm(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, loss: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 14, α J(x, l) + (1 − α) J(x', l), with x' = clip{x + ε sgn ∇J(x, l)} (the paper's defence).

    Source: Goodfellow, Shlens, Szegedy, *Explaining and harnessing adversarial examples*, 2014.
    """
    budget = settings.budget
    crafted = ascend(model, x, lambda logits: loss(logits, labels), budget=budget, step=budget)
    return _equation14(model, x, crafted, labels, loss, settings)


def fgsm_rs(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, loss: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 14 with one step of 1.25 ε from a random start in the ball.

    Source: Wong, Rice, Kolter, *Fast is better than free: revisiting adversarial training*, 2020.
    """
    budget = settings.budget
    crafted = ascend(
        model,
        x,
        lambda logits: loss(logits, labels),
        budget=budget,
        step=1.25 * budget,
        start=around(x, budget),
    )
    return _equation14(model, x, crafted, labels, loss, settings)


def pgd(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, loss: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 14 with several steps of 2.5 ε / steps from a random start.

    Source: Madry et al., *Towards deep learning models resistant to adversarial attacks*, 2018.
    """
    budget, steps = settings.budget, settings.steps
    crafted = ascend(
        model,
        x,
        lambda logits: loss(logits, labels),
        budget=budget,
        step=2.5 * budget / steps,
        steps=steps,
        start=around(x, budget),
    )
    return _equation14(model, x, crafted, labels, loss, settings)


def trades(
    model: nn.Module, x: torch.Tensor, labels: torch.Tensor, loss: Loss, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """J(x, l) + β KL(p(x) ‖ p(x')), with x' the example whose p(x') is furthest from p(x).

    Source: Zhang et al., *Theoretically principled trade-off between robustness and accuracy*, 2019.
    """
    budget, steps = settings.budget, settings.steps
    with torch.no_grad(), frozen(model):
        clean = model(x).float().log_softmax(1)
    crafted = ascend(
        model,
        x,
        lambda logits: _divergence(logits, clean),
        budget=budget,
        step=2.5 * budget / steps,
        steps=steps,
        start=x + torch.randn_like(x) * min(0.001, budget),
    )
    logits = model(x)
    agreement = _divergence(model(crafted), logits.float().log_softmax(1))
    return loss(logits, labels) + settings.beta * agreement, logits


def _divergence(logits: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return nn.functional.kl_div(logits.float().log_softmax(1), clean, reduction="batchmean", log_target=True)


def _equation14(
    model: nn.Module,
    x: torch.Tensor,
    crafted: torch.Tensor,
    labels: torch.Tensor,
    loss: Loss,
    settings: Settings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """α J(x, l) + (1 − α) J(x', l); a term of weight 0 costs nothing."""
    alpha = settings.alpha
    if alpha == 1:
        return standard(model, x, labels, loss, settings)
    logits = model(crafted)
    total = (1 - alpha) * loss(logits, labels)
    return (total + alpha * loss(model(x), labels) if alpha else total), logits


DEFENCES = {"standard": standard, "adversarial": fgsm, "fgsm_rs": fgsm_rs, "pgd": pgd, "trades": trades}
"""The ``training`` axis of the grid: what each descends."""


def measure(
    model: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    *,
    budget: float,
    steps: int,
    norm: str = "linf",
    seeds: Sequence[int] = (),
) -> torch.Tensor:
    """PGD as a yardstick: untargeted, ``steps`` steps of 2.5 ε / steps, each image from its seeded start.

    Returns the crafted images. Under ``linf`` a start is uniform in the ball, under ``l2`` a Gaussian draw
    of expected length ε, brought back into the ball.
    """
    draws = []
    for image, seed in zip(x, seeds, strict=True):
        draw = torch.Generator().manual_seed(seed)
        if norm == "l2":
            draws.append(torch.randn(image.shape, generator=draw) * (budget / math.sqrt(image.numel())))
        else:
            draws.append((2 * torch.rand(image.shape, generator=draw) - 1) * budget)
    return ascend(
        model,
        x,
        lambda logits: nn.functional.cross_entropy(logits.float(), labels, reduction="sum"),
        budget=budget,
        step=2.5 * budget / steps,
        steps=steps,
        start=x + torch.stack(draws).to(x),
        norm=norm,
    )
