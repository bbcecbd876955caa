"""JSMA: the most salient feature, one at a time (Eqs. 2 and 3)."""

import dataclasses
import warnings
from collections.abc import Sequence

import foolbox
import torch

from lib import ranges
from lib.attacks.call import Call, LeastChangeAttack
from lib.attacks.ladder import Ladder, Rung


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class JSMA(LeastChangeAttack):
    """Change the feature that most raises the target and lowers all other classes; again and again.

    J_ij = ∂Z_j/∂x_i on logits (Eq. 3). With the target's column J_t and the others' sum
    O = Σ_{j≠t} J_j, the saliency of feature i (Eq. 2) is |J_it| |O_i| where raising (lowering) x_i
    raises Z_t and lowers the rest, else 0. The feature with the largest saliency moves by θ. Chapter 4.

    Parameters
    ----------
    theta : θ, how far one step moves a feature, as a share of the model's bounds; the paper's scaling
        0 … 250 with displacement 50 is read as {50, 100, …, 250}/255.
    steps : the most steps for any clip.
    change : "increase" features (Papernot's first map, default) or "decrease" them, which is the map
        that Eq. 2 prints.
    features : how many features a step moves, the most salient ones; the paper's is 1.

    Called as ``JSMA(...)(model, x, criterion, epsilons=None)``: ℓ0 has no projection, so Foolbox cannot
    shrink the result. An untargeted criterion takes the most likely wrong class of the clean clip.

    Notes
    -----
    One forward pass and two input gradients per step, of Z_t and of Σ_j Z_j, whatever the number of
    classes; memory is linear in the image. A feature at its bound is not considered. A clip without a
    salient feature cannot move and leaves. On softmax outputs O = −J_t and Eq. 2 would be J_t².

    Source: Papernot et al., *The limitations of deep learning in adversarial settings*, 2016.
    """

    theta: float = 50 / 255
    steps: int = 1000
    change: str = "increase"
    features: int = 1
    distance = foolbox.distances.l0

    def __post_init__(self) -> None:
        numbers = ranges.number("theta", above=0), ranges.whole("steps features", 1)
        ranges.refuse(vars(self), *numbers, ranges.one_of("change", ("increase", "decrease")))

    def perturb(self, call: Call) -> torch.Tensor:
        sign, classes = call.goal
        up = 1 if self.change == "increase" else -1
        bound = call.high if up > 0 else call.low
        adversarial, active = call.x.clone(), call.everyone
        target = classes if sign < 0 else None
        for step in range(self.steps):
            x = adversarial[active].requires_grad_()
            logits = call.forward(x, active)
            if target is None:
                target = logits.detach().scatter(1, classes[:, None], -torch.inf).argmax(1)
            going = ~call.holds(x, logits, active)
            if not going.any():
                break
            # Eq. 3, without the whole matrix: the target's column, and the sum of all columns less that one.
            towards = call.gradient(logits.gather(1, target[active][:, None]), x, active, again=True)
            others = call.gradient(logits, x, active) - towards
            # Eq. 2; a value that is at its bound already cannot move.
            saliency = torch.where(x.detach() == bound, 0, salient(up * towards, up * others))
            largest, feature = saliency[going].flatten(1).topk(min(self.features, call.x[0].numel()))
            active, x = active[going], x.detach()[going].flatten(1)
            # The most salient values move by θ, and those without saliency stay.
            x.scatter_add_(1, feature, up * self.theta * call.range * (largest > 0))
            moved = largest[:, 0] > 0
            if step == 0 and not moved.all():
                warnings.warn(
                    f"Eq. 2's saliency is zero everywhere for {int((~moved).sum())} of {len(call.x)} clips: "
                    "JSMA returns them as they came",
                    stacklevel=2,
                )
            active = active[moved]
            if len(active) == 0:
                break
            call.counts.add("iterations", active)
            adversarial[active] = x[moved].reshape(adversarial[active].shape).clamp(call.low, call.high)
        return adversarial


def salient(towards: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Eq. 2 for features that are raised: J_t |O| where J_t > 0 > O, else 0."""
    return torch.where((towards > 0) & (others < 0), towards * others.abs(), 0)


def ladders(
    size: tuple[int, int],
    *,
    seed: int = 0,
    thetas: Sequence[float] = (50 / 255, 100 / 255, 150 / 255, 200 / 255, 250 / 255),
    steps: int = 1000,
    change: str = "increase",
    features: int = 1,
) -> dict[str, Ladder]:
    """JSMA over displacements θ, ascending (reading 10)."""
    ranges.refuse(locals(), ranges.several(ranges.number("thetas", above=0)))
    attacks = [JSMA(theta=theta, steps=steps, change=change, features=features) for theta in sorted(thetas)]
    rungs = [Rung(attack, attack.theta) for attack in attacks]
    return {"JSMA": Ladder(rungs, "target", smallest=min(thetas), begin="last")}
