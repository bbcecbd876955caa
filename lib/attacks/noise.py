"""Noise of an attack's size, without its direction: the control below which nothing is an attack."""

from typing import Any

import foolbox
import torch
from foolbox.attacks.base import FixedEpsilonAttack

from lib.attacks.ladder import Ladder, rms_rungs
from lib.attacks.run import Checked, Run, budgets, l2, own_generators, per_clip

_ROUNDS = 20  # of making up for the norm that clipping takes away


class Noise(Checked, FixedEpsilonAttack):
    """White noise with ‖δ‖₂ = ε, drawn once per clip and seed.

    Clipping to the model's bounds takes from the norm, so the noise is scaled up until the clipped
    change has norm ε (or until every value has reached a bound). A larger ε is the same noise, louder.

    Parameters
    ----------
    seed : of the draws; a clip's noise depends on its own values and the seed alone.
    """

    distance = foolbox.distances.l2

    def __init__(self, *, seed: int = 0):
        self.seed = seed

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
        run.ask_classes()
        epsilon = budgets(epsilon, run.x)
        noise = torch.stack(
            [
                torch.randn(run.x.shape[1:], generator=generator, device=run.x.device)
                for generator in own_generators(run.x, self.seed, "noise")
            ]
        )
        scale = epsilon / l2(noise)
        for _ in range(_ROUNDS):
            change = (run.x + per_clip(scale, noise) * noise).clamp(run.low, run.high) - run.x
            scale = scale * (epsilon / l2(change).clamp_min(1e-12)).clamp(max=2)
        change = (run.x + per_clip(scale, noise) * noise).clamp(run.low, run.high) - run.x
        run.counts.add("iterations", run.everyone)
        shrink = (epsilon / l2(change).clamp_min(1e-12)).clamp(max=1)
        return run.end(run.x + per_clip(shrink, noise) * change)


def ladder(
    size: tuple[int, int],
    *,
    seed: int = 0,
    confidence: float = 0.75,
    first: float = 0.0015 / 16,
    rungs: int = 12,
    bisections: int = 4,
) -> Ladder:
    """Noise with BIM's goal and RMS budgets."""
    return Ladder(
        rms_rungs(Noise(seed=seed), first, rungs, size, l2=True), "confident", confidence, bisections
    )
