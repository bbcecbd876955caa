"""DeepFool: the nearest boundary of the victim, linearised again and again (Eq. 4)."""

import dataclasses
from collections.abc import Sequence

import foolbox
import torch

from lib import ranges
from lib.attacks.call import Call, LeastChangeAttack, l2, per_clip
from lib.attacks.ladder import Ladder, Rung


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DeepFool(LeastChangeAttack):
    """Step onto the nearest linearised boundary until the class changes.

    With f_k = Z_k − Z_label and w_k its gradient, each step adds Eq. 4's
    r = |f_k| w_k / ‖w_k‖² for the class k whose boundary |f_k| / ‖w_k‖ is nearest; the example is
    x + (1 + overshoot) Σ r, clipped to the model's bounds. Chapter 4.

    Parameters
    ----------
    steps : the most linearisations for any clip; the paper climbs 100 … 600.
    candidates : how many of the most likely classes are considered, the label among them; 0 is all.
    overshoot : how far beyond the boundary, as a share of the way.

    Called as ``DeepFool(...)(model, x, criterion, epsilons=None)``. An untargeted criterion takes the
    nearest class; a targeted one steps towards its target alone.

    Notes
    -----
    One forward pass serves the gradients of all classes and only the best direction is kept, so memory
    does not grow with their number. Foolbox repeats the forward pass for each class and carries every
    clip to the end. A clip whose gradients vanish cannot move and leaves.

    Source: Moosavi-Dezfooli, Fawzi, Frossard, *DeepFool*, CVPR 2016; step and overshoot as in Foolbox.
    """

    steps: int = 100
    candidates: int = 10
    overshoot: float = 0.02
    distance = foolbox.distances.l2

    def __post_init__(self) -> None:
        whole = ranges.whole("steps", 1), ranges.whole("candidates", 0)
        ranges.refuse(vars(self), *whole, ranges.number("overshoot", 0))
        if self.candidates == 1:
            raise ValueError("candidates is 0 (all classes) or at least 2, not 1")

    def perturb(self, call: Call) -> torch.Tensor:
        sign, classes = call.goal
        adversarial, total, active = call.x.clone(), torch.zeros_like(call.x), call.everyone
        others: torch.Tensor | None = None
        for _ in range(self.steps):
            x = adversarial[active].requires_grad_()
            logits = call.forward(x, active)
            if others is None:
                others = self._others(logits.detach(), classes, sign)
            going = ~call.holds(x, logits, active)
            if not going.any():
                break
            if (~going).sum() * others.shape[1] > going.sum():
                # Cheaper to pass those who go on once more than to carry the done through every gradient.
                x = adversarial[active[going]].requires_grad_()
                logits = call.forward(x, active[going])
                active, going = active[going], torch.ones_like(active[going]).bool()
            step = self._nearest(call, logits, x, active, classes, others, sign)[going]
            active = active[going]
            moved = l2(step) > 0
            active, step = active[moved], step[moved]
            call.counts.add("iterations", active)
            total[active] += step
            x = call.x[active] + (1 + self.overshoot) * total[active]
            adversarial[active] = x.clamp(call.low, call.high)
            if len(active) == 0:
                break
        return adversarial

    def _others(self, logits: torch.Tensor, classes: torch.Tensor, sign: int) -> torch.Tensor:
        """(n, k) classes to step towards: the most likely wrong ones, or the target."""
        if sign < 0:
            return classes[:, None]
        count = logits.shape[1] if self.candidates == 0 else min(self.candidates, logits.shape[1])
        hidden = logits.scatter(1, classes[:, None], -torch.inf)
        return hidden.topk(count - 1, dim=1).indices

    def _nearest(
        self,
        call: Call,
        logits: torch.Tensor,
        x: torch.Tensor,
        active: torch.Tensor,
        classes: torch.Tensor,
        others: torch.Tensor,
        sign: int,
    ) -> torch.Tensor:
        """Eq. 4 for the nearest of ``others``: (k, …) steps, zero where no gradient leads anywhere."""
        if sign > 0:
            home = classes[active]
        else:
            home = logits.detach().scatter(1, classes[active][:, None], -torch.inf).argmax(1)
        nearest = torch.full((len(active),), torch.inf, device=x.device)
        best = torch.zeros_like(x)
        for k in range(others.shape[1]):  # one boundary after another: f, its gradient w, and |f| / ‖w‖₂
            towards = others[active, k]
            f = logits.gather(1, towards[:, None])[:, 0] - logits.gather(1, home[:, None])[:, 0]
            w = call.gradient(f, x, active, again=k + 1 < others.shape[1])
            size = l2(w)
            distance = torch.where(size > 0, f.detach().abs() / size, torch.inf)
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            # Eq. 4: the step along w has the length |f| / ‖w‖₂. The same small constant as Foolbox's keeps it
            # from stopping on the boundary itself. Of all boundaries, the nearest gives the step.
            length = torch.where(nearer, (distance + 1e-4 * call.range) / size, 0)
            best = torch.where(per_clip(nearer, x), per_clip(length, x) * w, best)
        return best


def ladders(
    size: tuple[int, int], *, seed: int = 0, caps: Sequence[int] = (100, 200, 300, 400, 500, 600)
) -> dict[str, Ladder]:
    """DeepFool over caps on its steps (reading 11)."""
    ranges.refuse(locals(), ranges.several(ranges.whole("caps", 1)))
    return {"DeepFool": Ladder([Rung(DeepFool(steps=cap), cap) for cap in sorted(caps)], "wrong")}
