"""What a training step minimises: one defence per file, and what they share.

``lib/defences/KEY.py`` is the training ``KEY`` of the grid. It has one function,

    loss(model, x, labels, loss, settings) -> (number to minimise, logits of what was trained on)

where the argument ``loss`` is J(logits, labels) and ``settings`` are :class:`Settings`. Examples are crafted
in evaluation mode with the weights frozen: batch norm then uses, and keeps, its running statistics (crafting
in training mode would move them by examples that are thrown away), and no unused gradient of a weight is
computed. Chapter 5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Defence = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Numbers of the defences; each reads those that concern it.

    Parameters
    ----------
    budget : ε, how far a value of an image may move, in units of full scale (ℓ∞).
    alpha : α of Eq. 14, the share of the clean loss.
    steps : gradient steps of PGD and TRADES.
    beta : weight of agreement against accuracy in TRADES.
    """

    budget: float = 2 / 255
    alpha: float = 0.0
    steps: int = 7
    beta: float = 6.0

    def __post_init__(self) -> None:
        wrong = self.wrong()
        if wrong:
            raise ValueError("; ".join(wrong))

    def wrong(self) -> list[str]:
        """A sentence for each setting that is unknown or out of its range."""
        return outside(self, budget=(0, 1), alpha=(0, 1), steps=(1, math.inf), beta=(0, math.inf))


def outside(settings: object, **ranges: tuple[float, float]) -> list[str]:
    """A sentence for each setting that is no finite number within its range, or not whole as its default is.

    It names the setting, its value and what is allowed.
    """
    found = []
    for name, (low, high) in ranges.items():
        value, whole = getattr(settings, name), type(getattr(type(settings), name)) is int
        number = type(value) is int or (type(value) is float and math.isfinite(value) and not whole)
        if not number or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            found.append(f"{name} = {value!r} is not {kind} in [{low:g}, {high:g}]")
    return found


def known() -> list[str]:
    """The keys of all defences: the files of this folder."""
    return sorted(member.name for member in pkgutil.iter_modules(__path__))


def get(name: str) -> Defence:
    """The loss of a defence.

    Raises
    ------
    ValueError : if there is no such defence.
    """
    if name not in known():
        raise ValueError(f"training = {name!r} is none of {', '.join(known())}")
    return importlib.import_module(f"{__name__}.{name}").loss


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradient for any weight, for a while; then everything as before."""
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


def uniform_in_ball(x: torch.Tensor, budget: float) -> torch.Tensor:
    """A uniform draw from the ℓ∞ ball around ``x``, before it is clipped."""
    return x + torch.empty_like(x).uniform_(-budget, budget)


def equation14(
    model: nn.Module,
    x: torch.Tensor,
    crafted: torch.Tensor,
    labels: torch.Tensor,
    loss: Loss,
    alpha: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """α J(x, l) + (1 − α) J(x', l); a term of weight 0 costs nothing."""
    if alpha == 1:
        logits = model(x)
        return loss(logits, labels), logits
    logits = model(crafted)
    total = (1 - alpha) * loss(logits, labels)
    return (total + alpha * loss(model(x), labels) if alpha else total), logits


def pgd_examples(
    model: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    *,
    budget: float,
    steps: int,
    norm: str = "linf",
    seeds: Sequence[int] = (),
) -> torch.Tensor:
    """The examples of PGD that robustness is measured with, each image from its own seeded start.

    Untargeted, ``steps`` steps of 2.5 ε / steps. Under ``linf`` a start is uniform in the ball, under ``l2``
    a Gaussian draw of expected length ε, projected into the ball.
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
