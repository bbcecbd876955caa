"""Sanity checks of the attacks: is the victim robust, or is the attack broken?

A gradient that leads nowhere is flagged, a victim that is made to be fooled must be fooled, and an attack
that a reference beats at its goal is weak.

After Carlini et al., *On Evaluating Adversarial Robustness*, 2019, and Athalye et al., *Obfuscated
gradients give a false sense of security*, 2018. Chapter 4 runs these at every point.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import foolbox
import pandas as pd
import torch
from foolbox.attacks.base import FixedEpsilonAttack
from torch import nn

from lib.attacks.criteria import Confident, margin
from lib.attacks.judge import measure
from lib.attacks.ladder import Ladder
from lib.attacks.witness import watching

_TRUST = 0.3  # the least share of a promised fall of the loss that must come true
_VANISHED = 1e-9  # a gradient norm below this moves nothing in float32
WEAK = 1.05  # an attack whose median norm is more than so many times the reference's is weak


def path(
    attack: foolbox.Attack,
    victim: foolbox.Model,
    x: torch.Tensor,
    label: torch.Tensor,
    criterion: foolbox.Criterion,
    classes: torch.Tensor,
    **how: Any,
) -> pd.DataFrame:
    """What an attack does to one clip: a row per iterate, of the one call ``attack.run(victim, x, …)``.

    Parameters
    ----------
    x, label : (1, …) and (1,); with (0, …) there are no rows.
    classes : (1,) the class whose probability is followed.
    how : what ``run`` takes besides, such as ``epsilon``.

    Returns
    -------
    Columns step, from 0; probability, of ``classes``; l2, ‖x' − x‖₂; leads, whether ``classes`` is predicted.
    """
    steps: list[tuple[float, float, bool]] = []
    if len(x):
        with watching(x, label) as witness:
            witness.follow = lambda norm, logits: steps.append(
                (
                    float(logits.softmax(1)[0, classes[0]]),
                    float(norm[0]),
                    bool(logits[0].argmax() == classes[0]),
                )
            )
            attack.run(victim, x, criterion, **how)
    frame = pd.DataFrame(steps, columns=["probability", "l2", "leads"])
    return frame.astype({"probability": float, "l2": float, "leads": bool}).rename_axis("step").reset_index()


def gradients(
    victim: foolbox.Model, x: torch.Tensor, target: torch.Tensor, *, reach: float = 0.01, at_once: int = 16
) -> pd.DataFrame:
    """Whether each clip's gradient keeps its promise: a small step along it changes the loss as it says.

    Parameters
    ----------
    target : (n,) whose loss is descended, :func:`lib.attacks.criteria.margin`, as the attacks do.
    reach : how long the step is, ‖δ‖₂ as a share of the model's bounds.
    at_once : clips that share a pass.

    Returns
    -------
    One row per clip: ``norm`` of the gradient by images in [0, 1], ``kept`` (the fall of the loss over the
    promised one, 1 where the loss is straight), and ``masked``, that the gradient vanished or keeps less than
    a third of it.
    """
    if len(x) == 0:
        return pd.DataFrame({"norm": [], "kept": [], "masked": []})
    parts = zip(x.split(at_once), target.split(at_once), strict=True)
    return pd.concat([_kept(victim, *part, reach) for part in parts], ignore_index=True)


def _kept(victim: foolbox.Model, x: torch.Tensor, target: torch.Tensor, reach: float) -> pd.DataFrame:
    unit = victim.bounds[1] - victim.bounds[0]
    y = x.detach().clone().requires_grad_()
    before = margin(victim(y).float(), target)
    (gradient,) = torch.autograd.grad(before.sum(), y)
    norm = gradient.flatten(1).norm(dim=1) * unit
    step = reach * unit**2 * gradient / norm.clamp_min(_VANISHED).reshape(-1, *[1] * (x.ndim - 1))
    with torch.no_grad():
        after = margin(victim(x - step).float(), target)
    kept = (before.detach() - after) / (reach * norm).clamp_min(_VANISHED)
    masked = (norm < _VANISHED) | ~(kept >= _TRUST)
    return pd.DataFrame({"norm": norm.cpu(), "kept": kept.cpu(), "masked": masked.cpu()})


def reached(
    victim: foolbox.Model,
    attack: FixedEpsilonAttack,
    x: torch.Tensor,
    classes: torch.Tensor,
    budgets: Sequence[float],
    *,
    goal: Callable[[torch.Tensor], foolbox.Criterion] = Confident,
    at_once: int = 16,
) -> pd.DataFrame:
    """Which clips an attack fools at each budget.

    Parameters
    ----------
    classes : (n,) targets, or labels, as ``goal`` takes them.
    goal : makes the criterion of some of the classes; by default the target with probability 0.75.

    Returns
    -------
    (clip, budget) bool, asked of the victim again with the example that the attack returned.
    """
    found: dict[float, list[bool]] = {}
    for budget in budgets:
        found[budget] = []
        for part, wanted in zip(x.split(at_once), classes.split(at_once), strict=True):
            example = attack.run(victim, part, goal(wanted), epsilon=budget) if len(part) else part
            found[budget] += (
                measure(victim, part, example, goal(wanted))["fooled"].tolist() if len(part) else []
            )
    return pd.DataFrame(found)


def against_reference(
    victim: foolbox.Model,
    x: torch.Tensor,
    label: torch.Tensor,
    target: torch.Tensor,
    clips: Sequence[str],
    rows: pd.DataFrame,
    ladders: Mapping[str, Ladder],
    reference: str = "DDN",
) -> pd.DataFrame:
    """The reference at the goal of every attack that measures ℓ2, on some of the clips that it attacked.

    Parameters
    ----------
    x, label, target, clips : the clips to compare on, (n, …), (n,) and (n,), and their names.
    rows, ladders : of the climb; ``reference`` is one of its attacks.

    Returns
    -------
    One row per attack: clips (fooled by both), ours and reference (median ‖δ‖₂ over them), and ratio (of the
    medians); a ratio above ``WEAK`` says that the attack is weak.
    """
    norms = rows["l2"].where(rows["fooled"]).groupby([rows["clip"], rows["attack"]]).first().unstack()
    norms = norms.reindex(list(clips))
    attack = ladders[reference].rungs[0].attack
    best = {ladders[reference].goal: norms.get(reference, pd.Series(dtype=float))}
    found = []
    for name, ladder in ladders.items():
        if not len(x) or name == reference or ladder.rungs[0].attack.distance != attack.distance:
            continue
        if ladder.goal not in best:
            criterion = ladder.criterion(label, target)
            measured = measure(victim, x, attack.run(victim, x, criterion), criterion)
            best[ladder.goal] = pd.Series(measured["l2"].numpy(), clips).where(measured["fooled"].numpy())
        both = pd.DataFrame({"ours": norms[name], "reference": best[ladder.goal]}).dropna()
        ours, theirs = both.median()
        found.append((name, len(both), ours, theirs, ours / theirs))
    return pd.DataFrame(found, columns=["attack", "clips", "ours", "reference", "ratio"])


class Masked(nn.Module):
    """A victim behind a staircase: it sees its image in ``levels`` steps, so its gradient is zero.

    As easily fooled as the victim itself, yet every attack that follows the gradient stands still. What
    reports this as robust is fooled itself.
    """

    def __init__(self, victim: foolbox.Model, levels: int = 256):
        super().__init__()
        self._victim, self.levels = victim, levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = self._victim.bounds
        step = (high - low) / (self.levels - 1)
        return self._victim(torch.round((x - low) / step) * step + low)


class Breakable(nn.Module):
    """A victim that every attack fools: one plane per class, so near that a small budget crosses it."""

    def __init__(self, values: int, classes: int, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randn(classes, values, generator=generator) / values**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T
