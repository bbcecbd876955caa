"""BIM-a and BIM-b: many signed steps inside a ball (Eq. 1)."""

from typing import Any

import foolbox
import torch
from foolbox.attacks.base import FixedEpsilonAttack
from torch.nn.functional import cross_entropy

from lib.attacks.criteria import direction
from lib.attacks.ladder import Ladder, rms_rungs
from lib.attacks.run import Checked, Run, budgets, into_ball, positive, whole


class BIM(Checked, FixedEpsilonAttack):
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
    ``run`` takes one ε for all or one a spectrogram.

    Raises
    ------
    ValueError : if ``x`` leaves the model's bounds, or the criterion is of no known kind.

    Notes
    -----
    Under ℓ2 Foolbox divides the gradient by its norm; we keep the sign, as Eq. 1 has it. Spectrograms
    that are done leave the batch; the result does not depend on who else is in it.

    Source: Kurakin, Goodfellow, Bengio, *Adversarial examples in the physical world*, 2017.
    """

    distance = foolbox.distances.l2

    def __init__(self, *, step: float = 1 / 255, steps: int = 100, stop_at_first: bool = True):
        positive(step=step)
        whole(steps=steps)
        self.step = step
        self.steps = steps
        self.stop_at_first = stop_at_first

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
        adversarial, active = run.x.clone(), run.everyone
        for _ in range(self.steps):
            x = adversarial[active].requires_grad_()
            logits = run.forward(x, active)
            going = ~run.holds(x, logits, active) if self.stop_at_first else torch.ones_like(active).bool()
            if not going.any():
                break
            loss = cross_entropy(logits, classes[active], reduction="sum")
            gradient = run.gradient(loss, x, active)[going]
            active = active[going]
            run.counts.add("iterations", active)
            x = adversarial[active] + sign * self.step * (run.high - run.low) * gradient.sign()
            x = into_ball(x, run.x[active], epsilon[active])
            adversarial[active] = x.clamp(run.low, run.high)
        return run.end(adversarial)


def early(
    size: tuple[int, int],
    *,
    step: float = 1 / 255,
    steps: int = 100,
    confidence: float = 0.75,
    first: float = 0.0015 / 16,
    rungs: int = 12,
    bisections: int = 4,
) -> Ladder:
    """BIM-a over RMS budgets that double from ``first``, for images of ``size`` (reading 9)."""
    attack = BIM(step=step, steps=steps, stop_at_first=True)
    return Ladder(rms_rungs(attack, first, rungs, size, l2=True), "confident", confidence, bisections)


def full(
    size: tuple[int, int],
    *,
    step: float = 1 / 255,
    steps: int = 100,
    confidence: float = 0.75,
    first: float = 0.0015 / 16,
    rungs: int = 12,
    bisections: int = 4,
) -> Ladder:
    """BIM-b over the same budgets."""
    attack = BIM(step=step, steps=steps, stop_at_first=False)
    return Ladder(rms_rungs(attack, first, rungs, size, l2=True), "confident", confidence, bisections)
