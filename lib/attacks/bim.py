"""BIM-a and BIM-b: many signed steps inside a ball (Eq. 1)."""

import dataclasses

import foolbox
import torch

from lib import ranges
from lib.attacks.call import BudgetAttack, Call, into_ball, l2, per_clip
from lib.attacks.criteria import margin
from lib.attacks.ladder import BISECTIONS, FIRST, RUNGS, Ladder, rms_ladder

_SHARE = 0.1  # of ε, the length of a normalised step


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
    stop_at_first : let a spectrogram leave once its criterion holds (BIM-a), or spend every step and
        return the last iterate for which it holds (BIM-b), the very last where it never does.
    normalised : step along ∇J/‖∇J‖₂ by a tenth of ε instead of along its sign by ζ, as Foolbox does.

    Called as every Foolbox attack, ``BIM(...)(model, x, criterion, epsilons=ε)``: x is (n, 1, height,
    width) in the model's bounds, ε the largest ‖x' − x‖₂ over a whole spectrogram, in the unit of x; a
    targeted criterion descends the target's loss. Returns raw, clipped and success as Foolbox does.
    ``run`` takes one ε for all or one per spectrogram.

    Raises
    ------
    ValueError : if ``x`` is outside the model's bounds, or the criterion is of an unknown kind.

    Notes
    -----
    Under ℓ2 Foolbox divides the gradient by its norm; we keep the sign by default, as Eq. 1 has it. J's
    gradient is taken of :func:`lib.attacks.criteria.margin`, to which it is parallel: it does not underflow.
    Spectrograms that are done leave the batch; the result does not depend on who else is in it.

    Source: Kurakin, Goodfellow, Bengio, *Adversarial examples in the physical world*, 2017.
    """

    step: float = 1 / 255
    steps: int = 100
    stop_at_first: bool = True
    normalised: bool = False
    distance = foolbox.distances.l2

    def __post_init__(self) -> None:
        numbers = ranges.number("step", above=0), ranges.whole("steps", 1)
        ranges.refuse(vars(self), *numbers, ranges.flag("stop_at_first normalised"))

    def perturb(self, call: Call, epsilon: torch.Tensor) -> torch.Tensor:
        sign, classes = call.goal
        adversarial, active = call.x.clone(), call.everyone
        held, kept = torch.zeros_like(active, dtype=torch.bool), call.x.clone()
        for step in range(self.steps + 1):
            if step == self.steps and self.stop_at_first:
                break
            x = adversarial[active].requires_grad_(step < self.steps)
            logits = call.forward(x, active)
            # Which clips are fooled now? Their images are kept; BIM-a is done with them, BIM-b goes on.
            holds = call.holds(x, logits, active)
            held[active] |= holds
            kept[active[holds]] = x.detach()[holds]
            going = ~(holds & self.stop_at_first)
            if step == self.steps or not going.any():
                break
            gradient = call.gradient(margin(logits, classes[active]), x, active)[going]
            active = active[going]
            call.counts.add("iterations", active)
            # Eq. 1: a step of ζ sgn ∇ (sign is −1 towards a target), then back into the ball and into [0, 1].
            x = adversarial[active] + sign * self._step(gradient, epsilon[active], call.range)
            x = into_ball(x, call.x[active], epsilon[active])
            adversarial[active] = x.clamp(call.low, call.high)
        return torch.where(per_clip(held, kept), kept, adversarial)

    def _step(self, gradient: torch.Tensor, epsilon: torch.Tensor, unit: float) -> torch.Tensor:
        """How far one step goes: (k, …)."""
        if not self.normalised:
            return self.step * unit * gradient.sign()
        length = _SHARE * epsilon / l2(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        return per_clip(length, gradient) * gradient


def ladders(
    size: tuple[int, int],
    *,
    seed: int = 0,
    step: float = 1 / 255,
    steps: int = 100,
    normalised: bool = False,
    first: float = FIRST,
    rungs: int = RUNGS,
    bisections: int = BISECTIONS,
) -> dict[str, Ladder]:
    """BIM-a and BIM-b over RMS budgets that double from ``first``, for images of ``size`` (reading 9)."""
    made = {}
    for name, stop_at_first, begin in (("BIM-a", True, "DDN"), ("BIM-b", False, "BIM-a")):
        attack = BIM(step=step, steps=steps, stop_at_first=stop_at_first, normalised=normalised)
        made[name] = rms_ladder(attack, size, first=first, rungs=rungs, bisections=bisections, begin=begin)
    return made
