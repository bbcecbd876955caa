"""Sanity checks of the attacks: is the victim robust, or is the attack broken?

A gradient that leads nowhere is flagged, and a victim that is made to be fooled must be fooled.

After Carlini et al., *On Evaluating Adversarial Robustness*, 2019, and Athalye et al., *Obfuscated
gradients give a false sense of security*, 2018. Chapter 4 runs these at every point.
"""

from collections.abc import Sequence

import foolbox
import pandas as pd
import torch
from foolbox.attacks.base import FixedEpsilonAttack
from torch import nn
from torch.nn.functional import cross_entropy

from lib.attacks.criteria import Confident

_TRUST = 0.3  # the least share of a promised fall of the loss that must come true
_VANISHED = 1e-9  # a gradient norm below this moves nothing in float32


def gradients(
    victim: foolbox.Model, x: torch.Tensor, target: torch.Tensor, *, reach: float = 0.01, at_once: int = 16
) -> pd.DataFrame:
    """Whether each clip's gradient keeps its promise: a small step along it changes the loss as it says.

    Parameters
    ----------
    target : (n,) whose cross-entropy is descended.
    reach : how long the step is, ‖δ‖₂.
    at_once : clips that share a pass.

    Returns
    -------
    One row per clip: ``norm`` of the gradient, ``kept`` (the fall of the loss over the promised one, 1 where
    the loss is straight), and ``masked``, that the gradient vanished or keeps less than a third of it.
    """
    if len(x) == 0:
        return pd.DataFrame({"norm": [], "kept": [], "masked": []})
    parts = zip(x.split(at_once), target.split(at_once), strict=True)
    return pd.concat([_kept(victim, *part, reach) for part in parts], ignore_index=True)


def reached(
    victim: foolbox.Model,
    attack: FixedEpsilonAttack,
    x: torch.Tensor,
    target: torch.Tensor,
    budgets: Sequence[float],
    *,
    at_once: int = 16,
) -> pd.DataFrame:
    """Which clips a targeted attack takes to its target with probability 0.75, at each budget.

    Returns
    -------
    (clip, budget) bool, asked of the victim again with the example that the attack returned.
    """
    found: dict[float, list[bool]] = {}
    for budget in budgets:
        found[budget] = []
        for first in range(0, len(x), at_once):
            part, wanted = x[first : first + at_once], target[first : first + at_once]
            goal = Confident(wanted)
            example = attack.run(victim, part, goal, epsilon=budget)
            with torch.no_grad():
                found[budget] += goal(example, victim(example)).tolist()
    return pd.DataFrame(found)


def _kept(victim: foolbox.Model, x: torch.Tensor, target: torch.Tensor, reach: float) -> pd.DataFrame:
    y = x.detach().clone().requires_grad_()
    before = cross_entropy(victim(y), target, reduction="none")
    (gradient,) = torch.autograd.grad(before.sum(), y)
    norm = gradient.flatten(1).norm(dim=1)
    step = reach * gradient / norm.clamp_min(_VANISHED).reshape(-1, *[1] * (x.ndim - 1))
    with torch.no_grad():
        after = cross_entropy(victim(x - step), target, reduction="none")
    kept = (before.detach() - after) / (reach * norm).clamp_min(_VANISHED)
    masked = (norm < _VANISHED) | ~(kept >= _TRUST)
    return pd.DataFrame({"norm": norm.cpu(), "kept": kept.cpu(), "masked": masked.cpu()})


class Masked(nn.Module):
    """A victim behind a staircase: it sees its image in ``levels`` steps, so its gradient is zero.

    As easily fooled as the victim itself, yet every attack that follows the gradient stands still. What
    reports this as robust is fooled itself.
    """

    def __init__(self, victim: foolbox.Model, levels: int = 256):
        super().__init__()
        self._victim, self.levels = victim, levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._victim(torch.round(x * (self.levels - 1)) / (self.levels - 1))


class Breakable(nn.Module):
    """A victim that every attack fools: one plane per class, so near that a small budget crosses it."""

    def __init__(self, values: int, classes: int, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randn(classes, values, generator=generator) / values**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T
