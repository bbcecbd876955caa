"""DDN: the reference that the attacks are compared with, Foolbox's own, behind the same ladder."""

import copy
import dataclasses
from typing import Any

import eagerpy as ep
import foolbox
import torch

from lib import ranges
from lib.attacks.call import Call, LeastChangeAttack
from lib.attacks.criteria import Confident
from lib.attacks.ladder import Ladder, Rung

_SPREAD = 15.0  # logits farther apart are drawn together: beyond, float32's cross-entropy loses its gradient


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DDN(LeastChangeAttack):
    """Decouple direction and norm: walk along the normalised gradient on a sphere that shrinks and grows.

    ‖δ‖₂ is multiplied by 1 − γ where the example fools and by 1 + γ where it does not. Its norms are those of
    Carlini and Wagner's attack at a twentieth of its passes, so it says whether another attack is weak.

    Parameters
    ----------
    steps : gradient steps, the same for every clip.

    Source: Rony et al., *Decoupling direction and norm for efficient gradient-based ℓ2 adversarial attacks
    and defenses*, CVPR 2019; Foolbox's implementation with its constants, on images scaled to [0, 1].
    """

    steps: int = 100
    distance = foolbox.distances.l2

    def __post_init__(self) -> None:
        ranges.refuse(vars(self), ranges.whole("steps", 1))

    def perturb(self, call: Call) -> torch.Tensor:
        sign, classes = call.goal
        criterion = copy.copy(call.criterion)
        setattr(criterion, "target_classes" if sign < 0 else "labels", ep.astensor(classes))
        attack = foolbox.attacks.DDNAttack(steps=self.steps)
        devices = [call.x.device] if call.x.is_cuda else []
        with torch.random.fork_rng(devices):  # Foolbox draws a direction for clips without a gradient
            torch.manual_seed(0)
            made = attack.run(_Everyone(call), (call.x - call.low) / call.range, criterion)
        return made * call.range + call.low


class _Everyone(foolbox.Model):
    """The victim as Foolbox's attacks ask it, all clips at once and in [0, 1], with our costs and witness."""

    bounds = foolbox.types.Bounds(0, 1)

    def __init__(self, call: Call):
        self._call = call

    def __call__(self, inputs: Any) -> Any:
        x, restore = ep.astensor_(inputs)
        image = x.raw * self._call.range + self._call.low
        return restore(ep.astensor(_ByImage.apply(image, self._call)))


class _ByImage(torch.autograd.Function):
    """A pass of everyone whose gradient is taken by the images alone, none by a weight."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, call: Call) -> torch.Tensor:
        with torch.enable_grad():
            image = x.detach().requires_grad_()
            logits = call.forward(image, call.everyone)
            call.holds(image, logits, call.everyone)
            spread = logits.detach().amax(1, keepdim=True) - logits.detach().amin(1, keepdim=True)
            if not isinstance(call.criterion, Confident):  # that asks for probabilities as they are
                logits = logits * (_SPREAD / spread.clamp_min(_SPREAD))
            context.kept = (call, image, logits)
        return context.kept[-1].detach()

    @staticmethod
    def backward(context: Any, by_logits: torch.Tensor) -> tuple[torch.Tensor, None]:
        call, image, logits = context.kept
        with torch.enable_grad():
            return call.gradient(logits * by_logits, image, call.everyone), None


def ladders(size: tuple[int, int], *, seed: int = 0, steps: int = 100) -> dict[str, Ladder]:
    """DDN has one rung: it looks for the smallest change by itself."""
    return {"DDN": Ladder([Rung(DDN(steps=steps), steps)], "wrong")}
