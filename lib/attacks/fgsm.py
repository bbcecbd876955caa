"""FGSM: one signed step. A control in chapter 4; the examples of adversarial training in chapter 5."""

from typing import Any

import foolbox
import torch
from foolbox.attacks.base import FixedEpsilonAttack
from torch.nn.functional import cross_entropy

from lib.attacks.criteria import direction
from lib.attacks.ladder import Ladder, rms_rungs
from lib.attacks.run import Checked, Run, budgets, per_clip


class FGSM(Checked, FixedEpsilonAttack):
    """Move every value by ε along the sign of the gradient, once: x' = clip{x + ε sgn ∇J(x, l)}.

    The first step of Eq. 1, as long as its budget; against it one sees what many steps are worth.
    A targeted criterion descends the target's loss. Takes no hyper-parameter; ε is in the
    unit of x, and ``run`` takes one for all or one a spectrogram. Chapter 4.

    Source: Goodfellow, Shlens, Szegedy, *Explaining and harnessing adversarial examples*, 2015.
    """

    distance = foolbox.distances.linf

    def run(
        self,
        model: foolbox.Model,
        inputs: Any,
        criterion: Any,
        *,
        epsilon: float | torch.Tensor,
        **kwargs: Any,
    ) -> Any:
        run = Run(model, inputs, criterion, kwargs)
        sign, classes = direction(run.criterion)
        epsilon = budgets(epsilon, run.x)
        x = run.x.clone().requires_grad_()
        loss = cross_entropy(run.forward(x, run.everyone), classes, reduction="sum")
        gradient = run.gradient(loss, x, run.everyone)
        run.counts.add("iterations", run.everyone)
        return run.end(run.x + sign * per_clip(epsilon, x) * gradient.sign())


def ladder(
    size: tuple[int, int],
    *,
    confidence: float = 0.75,
    first: float = 0.0015 / 16,
    rungs: int = 12,
    bisections: int = 4,
) -> Ladder:
    """FGSM with BIM's goal and RMS budgets; for one signed step RMS and ℓ∞ are the same number."""
    return Ladder(rms_rungs(FGSM(), first, rungs, size, l2=False), "confident", confidence, bisections)
