"""BIM-a and BIM-b: many signed steps inside a ball (Eq. 1)."""

import dataclasses

import foolbox
import torch
from torch.nn.functional import cross_entropy

from lib.attacks.call import BudgetAttack, Call, into_ball
from lib.attacks.ladder import BISECTIONS, FIRST, RUNGS, Ladder, rms_ladder
from lib.attacks.ranges import flag, positive, whole


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BIM(BudgetAttack):
    """Climb the loss in many signed steps inside a ball around ``x`` (basic iterative method).

    Each step is Eq. 1 of the paper, x' ← clip{x' + ζ sgn ∇J(x', l)}, where ``clip`` takes the nearest
    point of the ℓ2 ball of radius ε around ``x``, then of the model's bounds. The second projection cannot
    undo the first: it moves every value towards ``x``. Chapter 4.

    Parameters
    ----------
    step : ζ, how far one step moves each value, as a share of the model's bounds; the paper's 1 is read
        as one grey level, 1/255.
    steps : the most gradient steps for any spectrogram.
    stop_at_first : let a spectrogram leave once its criterion holds (BIM-a), or go on (BIM-b).

    Called as every Foolbox attack, ``BIM(...)(model, x, criterion, epsilons=ε)``: x is (n, 1, height,
    width) in the model's bounds, ε the largest ‖x' − x‖₂ over a whole spectrogram, in the unit of x; a
    targeted criterion descends the target's loss. Returns raw, clipped and success as Foolbox does.
    ``run`` takes one ε for all or one per spectrogram.

    Raises
    ------
    ValueError : if ``x`` is outside the model's bounds, or the criterion is of an unknown kind.

    Notes
    -----
    Under ℓ2 Foolbox divides the gradient by its norm; we keep the sign, as Eq. 1 has it. Spectrograms
    that are done leave the batch; the result does not depend on who else is in it.

    Source: Kurakin, Goodfellow, Bengio, *Adversarial examples in the physical world*, 2017.
    """

    step: float = 1 / 255
    steps: int = 100
    stop_at_first: bool = True
    distance = foolbox.distances.l2

    def __post_init__(self) -> None:
        positive(step=self.step)
        whole(steps=self.steps)
        flag(stop_at_first=self.stop_at_first)

    def perturb(self, call: Call, epsilon: torch.Tensor) -> torch.Tensor:
        sign, classes = call.goal
        adversarial, active = call.x.clone(), call.everyone
        for _ in range(self.steps):
            x = adversarial[active].requires_grad_()
            logits = call.forward(x, active)
            going = ~call.holds(x, logits, active) if self.stop_at_first else torch.ones_like(active).bool()
            if not going.any():
                break
            loss = cross_entropy(logits, classes[active], reduction="sum")
            gradient = call.gradient(loss, x, active)[going]
            active = active[going]
            call.counts.add("iterations", active)
            x = adversarial[active] + sign * self.step * (call.high - call.low) * gradient.sign()
            x = into_ball(x, call.x[active], epsilon[active])
            adversarial[active] = x.clamp(call.low, call.high)
        return adversarial


def ladders(
    size: tuple[int, int],
    *,
    seed: int = 0,
    step: float = 1 / 255,
    steps: int = 100,
    first: float = FIRST,
    rungs: int = RUNGS,
    bisections: int = BISECTIONS,
) -> dict[str, Ladder]:
    """BIM-a and BIM-b over RMS budgets that double from ``first``, for images of ``size`` (reading 9)."""
    made = {}
    for name, stop_at_first in (("BIM-a", True), ("BIM-b", False)):
        attack = BIM(step=step, steps=steps, stop_at_first=stop_at_first)
        made[name] = rms_ladder(attack, size, first=first, rungs=rungs, bisections=bisections)
    return made
