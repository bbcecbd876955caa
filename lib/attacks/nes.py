"""NES: the gradient of a black box from its answers, and the plain attack that follows it."""

from collections.abc import Callable
from typing import Any

import foolbox
import torch
from foolbox.attacks.base import FixedEpsilonAttack

from lib.attacks.criteria import direction
from lib.attacks.run import Checked, Run, budgets, own_generators, per_clip, positive, whole

Loss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def estimate(
    run: Run,
    x: torch.Tensor,
    active: torch.Tensor,
    loss: Loss,
    sigma: torch.Tensor,
    generators: list[torch.Generator],
    samples: int,
    at_once: int,
) -> torch.Tensor:
    """The gradient of each clip's loss at ``x``, by natural evolution strategies with antithetic pairs.

    g = 1/(2σm) Σ (ℓ(x + σu) − ℓ(x − σu)) u over the m pairs whose losses are both known, u white
    noise: an unbiased estimate of the gradient of ℓ smoothed by σ. Every clip has its own losses.

    Parameters
    ----------
    x : (k, …) where to look; its probes may leave the model's bounds by a few σ.
    active : (k,) the clips' places in the run.
    loss : (logits (m, classes), places (m,)) to the m losses and whether each can be known.
    sigma : (k,) how far the probes lie.
    generators : one a clip of the run, so that a clip's probes are its own.
    samples : probes a clip, even.
    at_once : the most images asked about at once; does not change the estimate.
    """
    gradient, known = torch.zeros_like(x), x.new_zeros(len(x))
    pairs, together = samples // 2, max(1, at_once // samples)
    for group in torch.arange(len(x), device=x.device).split(together):
        left = pairs
        while left:
            now = min(left, max(1, at_once // (2 * len(group))))
            left -= now
            noise = torch.stack([_noise(x[0], generators[int(place)], now) for place in active[group]], 1)
            reach = per_clip(sigma[group], x) * noise  # (now, group, …)
            probes = torch.cat([x[group] + reach, x[group] - reach]).flatten(0, 1)
            places = active[group].repeat(2 * now)
            values, sure = loss(run.forward(probes, places, "queries"), places)
            plus, minus = values.reshape(2, now, len(group))
            both = sure.reshape(2, now, len(group)).all(0)
            weight = torch.where(both, plus - minus, 0)
            gradient[group] += torch.einsum("pk,pk...->k...", weight, noise)
            known[group] += both.sum(0)
    return gradient / per_clip(2 * sigma * known.clamp_min(1), x)


def _noise(like: torch.Tensor, generator: torch.Generator, count: int) -> torch.Tensor:
    """(count, …) white noise, drawn image by image so that the draws do not depend on ``count``."""
    return torch.stack(
        [torch.randn(like.shape, generator=generator, device=like.device) for _ in range(count)]
    )


class NES(Checked, FixedEpsilonAttack):
    """Projected signed steps along the NES estimate, inside an ℓ∞ ball: BIM for a black box.

    x' ← clip{x' − ζ sgn ĝ} with ĝ from ``samples`` queries. Ilyas et al. call it the query-limited
    attack; PIA turns it inside out. Every probe and every look whether the clip is done is a query.

    Parameters
    ----------
    step : how far a step moves each value, in the unit of x as ε is.
    samples : queries an estimate, even.
    sigma : σ, how far probes lie, in the unit of x.
    queries : the most queries for any clip, at least ``samples`` + 1: an estimate and a look.
    momentum : share of the last direction that is kept, in [0, 1).
    seed : of the probes; a clip's probes depend on its own values and the seed alone.
    at_once : the most images asked about at once.

    Source: Ilyas, Engstrom, Athalye, Lin, *Black-box adversarial attacks with limited queries and
    information*, 2018. Foolbox's estimator sums the losses of the batch, so that a clip is led by the
    others' answers; here every clip has its own.
    """

    distance = foolbox.distances.linf

    def __init__(
        self,
        *,
        step: float = 0.01,
        samples: int = 50,
        sigma: float = 0.01,
        queries: int = 2000,
        momentum: float = 0.0,
        seed: int = 0,
        at_once: int = 64,
    ):
        positive(step=step, sigma=sigma)
        whole(samples=samples, queries=queries, at_once=at_once)
        even(samples)
        if queries <= samples:
            raise ValueError(f"queries are at least samples + 1, {samples + 1}, for one step, not {queries}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is a share in [0, 1), not {momentum}")
        self.step = step
        self.samples = samples
        self.sigma = sigma
        self.queries = queries
        self.momentum = momentum
        self.seed = seed
        self.at_once = at_once

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
        generators = own_generators(run.x, self.seed, "nes")
        sigma = torch.full_like(epsilon, self.sigma)
        adversarial, active, last = run.x.clone(), run.everyone, torch.zeros_like(run.x)

        def loss(logits: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            own = logits.log_softmax(1).gather(1, classes[places][:, None])[:, 0]
            return -own, torch.ones_like(own, dtype=torch.bool)

        with torch.no_grad():
            for _ in range(self.queries // (self.samples + 1)):
                x = adversarial[active]
                going = ~look(run, x, active, self.at_once)
                active, x = active[going], x[going]
                if len(active) == 0:
                    break
                gradient = estimate(
                    run, x, active, loss, sigma[active], generators, self.samples, self.at_once
                )
                last[active] = self.momentum * last[active] + (1 - self.momentum) * gradient
                radius = per_clip(epsilon[active], x)
                x = x + sign * self.step * last[active].sign()
                x = torch.minimum(torch.maximum(x, run.x[active] - radius), run.x[active] + radius)
                adversarial[active] = x.clamp(run.low, run.high)
                run.counts.add("iterations", active)
        return run.end(adversarial)


def look(run: Run, x: torch.Tensor, active: torch.Tensor, at_once: int) -> torch.Tensor:
    """(k,) whether the criterion holds, at the price of a query a clip."""
    logits = torch.cat(
        [
            run.forward(part, places, "queries")
            for part, places in zip(x.split(at_once), active.split(at_once), strict=True)
        ]
    )
    return run.holds(x, logits, active)


def even(samples: int) -> None:
    """Refuse an odd number of probes: they come in pairs."""
    if samples % 2:
        raise ValueError(f"samples come in pairs, so their number is even, not {samples}")
