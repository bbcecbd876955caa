"""A ladder: one attack at rising budgets, and what counts as fooled. :mod:`lib.attacks.climb` climbs it."""

import dataclasses
from collections.abc import Sequence

import foolbox
import torch

from lib import ranges
from lib.attacks.criteria import Confident

CONFIDENCE = 0.75  # the least probability of the target that counts for BIM and its controls, Section VI
TIMES = 4.0  # a target with confidence needs about so many times the norm of the nearest wrong class
FIRST, RUNGS, BISECTIONS = 0.0015 / 16, 12, 4  # RMS budgets of BIM and its controls, reading 9


@dataclasses.dataclass(frozen=True)
class Rung:
    """An attack at one budget.

    ``epsilon`` is what a fixed-ε attack is called with (0.0 for one that minimises its norm), as a share of
    the range of the model's bounds;
    ``budget`` is the number that the rows report: ε, or the hyper-parameter that the ladder climbs.
    """

    attack: foolbox.Attack
    budget: float
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The rungs of one attack, ascending.

    Parameters
    ----------
    goal : what counts as fooled: ``confident`` (the target, with ``probability``), ``target``, or
        ``wrong`` (any class but the label).
    bisections : how often the gap between the last failing and the first fooling ε is halved, clip by
        clip; for fixed-ε attacks that take one ε per clip, as ours do.
    smallest : the least ‖δ‖₂ at which a clip could be fooled on this ladder, as a share of the model's
        bounds; 0 where the attack sets no such limit.
    begin : the rung that a climb with brackets tries first, clip by clip: "" the lowest, "last" the highest,
        else the name of an attack: the rung that fooled the clip by it, or where that attack climbs no ε,
        the first whose ε is ``TIMES`` the norm that it needed. "last" passes over a clip that a lower rung
        fools and the highest does not; JSMA has such clips where its steps are many.
    """

    rungs: Sequence[Rung]
    goal: str
    probability: float = CONFIDENCE
    bisections: int = 0
    smallest: float = 0.0
    begin: str = ""

    def __post_init__(self) -> None:
        if not self.rungs:
            raise ValueError("this ladder has no rung, and it needs at least one")
        if self.goal not in ("confident", "target", "wrong"):
            raise ValueError(f"a goal is confident, target or wrong, not {self.goal!r}")
        ranges.refuse(vars(self), ranges.whole("bisections", 0), ranges.number("smallest", 0))

    def criterion(self, label: torch.Tensor, target: torch.Tensor) -> foolbox.Criterion:
        """The goal as a Foolbox criterion, for clips of these labels and targets, (n,) each."""
        if self.goal == "wrong":
            return foolbox.Misclassification(label)
        if self.goal == "target":
            return foolbox.TargetedMisclassification(target)
        return Confident(target, self.probability)


def rms_ladder(
    attack: foolbox.Attack,
    size: tuple[int, int],
    *,
    first: float = FIRST,
    rungs: int = RUNGS,
    bisections: int = BISECTIONS,
    l2: bool = True,
    begin: str = "",
) -> Ladder:
    """A fixed-ε attack at RMS budgets that double from ``first``, for images of ``size``; BIM's goal.

    ε is RMS · √(rows · frames) for an attack that measures ``l2``, RMS itself for one that measures ℓ∞.
    """
    ranges.refuse(locals(), ranges.number("first", above=0), ranges.whole("rungs", 1))
    unit = (size[0] * size[1]) ** 0.5 if l2 else 1.0
    budgets = [first * 2**k * unit for k in range(rungs)]
    return Ladder(
        [Rung(attack, budget, budget) for budget in budgets],
        "confident",
        bisections=bisections,
        smallest=first * (size[0] * size[1]) ** 0.5 / 2**bisections,
        begin=begin,
    )
