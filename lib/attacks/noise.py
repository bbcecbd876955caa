"""Noise of an attack's size, without its direction: the control below which nothing is an attack."""

import dataclasses

import foolbox
import torch

from lib import ranges
from lib.attacks.call import BudgetAttack, Call, l2, own_generators, per_clip
from lib.attacks.ladder import BISECTIONS, FIRST, RUNGS, Ladder, rms_ladder

SETTINGS = "bim"  # the budgets are BIM's
_ROUNDS = 20  # of making up for the norm that clipping takes away


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Noise(BudgetAttack):
    """White noise with ‖δ‖₂ = ε, drawn once per clip and seed.

    Clipping to the model's bounds takes from the norm, so the noise is scaled up until the clipped
    change has norm ε (or until every value has reached a bound). A larger ε is the same noise, louder.

    Parameters
    ----------
    seed : of the draws; a clip's noise depends on its own values and the seed alone.
    """

    seed: int = 0
    distance = foolbox.distances.l2

    def __post_init__(self) -> None:
        ranges.refuse(vars(self), ranges.whole("seed", 0))

    def perturb(self, call: Call, epsilon: torch.Tensor) -> torch.Tensor:
        call.check_classes()
        generators = own_generators(call.x, self.seed, "noise")
        drawn = [torch.randn(call.x.shape[1:], generator=g, device=call.x.device) for g in generators]
        noise = torch.stack(drawn)
        scale = epsilon / l2(noise)
        for _ in range(_ROUNDS):
            change = (call.x + per_clip(scale, noise) * noise).clamp(call.low, call.high) - call.x
            scale = scale * (epsilon / l2(change).clamp_min(1e-12)).clamp(max=2)
        change = (call.x + per_clip(scale, noise) * noise).clamp(call.low, call.high) - call.x
        call.counts.add("iterations", call.everyone)
        shrink = (epsilon / l2(change).clamp_min(1e-12)).clamp(max=1)
        return call.x + per_clip(shrink, noise) * change


def ladders(
    size: tuple[int, int],
    *,
    seed: int = 0,
    first: float = FIRST,
    rungs: int = RUNGS,
    bisections: int = BISECTIONS,
) -> dict[str, Ladder]:
    """Noise with BIM's goal and RMS budgets."""
    return {"noise": rms_ladder(Noise(seed=seed), size, first=first, rungs=rungs, bisections=bisections)}
