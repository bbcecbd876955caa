"""FGSM: one signed step. A control in chapter 4; the examples of adversarial training in chapter 5."""

import dataclasses

import foolbox
import torch

from lib.attacks.call import BudgetAttack, Call, per_clip
from lib.attacks.criteria import margin
from lib.attacks.ladder import BISECTIONS, FIRST, RUNGS, Ladder, rms_ladder

SETTINGS = "bim"  # the budgets are BIM's


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FGSM(BudgetAttack):
    """Move every value by ε along the sign of the gradient, once: x' = clip{x + ε sgn ∇J(x, l)}.

    The first step of Eq. 1, as long as its budget; against it one sees what many steps gain.
    A targeted criterion descends the target's loss. Takes no hyper-parameter; ε is in the
    unit of x, and ``run`` takes one for all or one per spectrogram. Chapter 4.

    Source: Goodfellow, Shlens, Szegedy, *Explaining and harnessing adversarial examples*, 2015.
    """

    distance = foolbox.distances.linf

    def perturb(self, call: Call, epsilon: torch.Tensor) -> torch.Tensor:
        sign, classes = call.goal
        x = call.x.clone().requires_grad_()
        gradient = call.gradient(margin(call.forward(x, call.everyone), classes), x, call.everyone)
        call.counts.add("iterations", call.everyone)
        return call.x + sign * per_clip(epsilon, x) * gradient.sign()


def ladders(
    size: tuple[int, int],
    *,
    seed: int = 0,
    first: float = FIRST,
    rungs: int = RUNGS,
    bisections: int = BISECTIONS,
) -> dict[str, Ladder]:
    """FGSM with BIM's goal and RMS budgets; for one signed step RMS and ℓ∞ are the same number."""
    return {"FGSM": rms_ladder(FGSM(), size, first=first, rungs=rungs, bisections=bisections, l2=False)}
