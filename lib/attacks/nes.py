"""NES: the gradient of a black box from its answers, and the plain attack that follows it."""

import dataclasses
from collections.abc import Callable

import foolbox
import torch

from lib import ranges
from lib.attacks.call import BudgetAttack, Call, own_generators, per_clip
from lib.attacks.criteria import margin

Loss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def estimate(
    call: Call,
    x: torch.Tensor,
    active: torch.Tensor,
    loss: Loss,
    sigma: torch.Tensor,
    generators: list[torch.Generator],
    samples: int,
) -> torch.Tensor:
    """The gradient of each clip's loss at ``x``, by natural evolution strategies with antithetic pairs.

    g = 1/(2σm) Σ (ℓ(x + σu) − ℓ(x − σu)) u over the m pairs whose losses are both known, u white
    noise: an unbiased estimate of the gradient of ℓ smoothed by σ. Every clip has its own losses.

    Parameters
    ----------
    x : (k, …) where to look; its probes may leave the model's bounds by a few σ.
    active : (k,) the clips' places in the call.
    loss : (logits (m, classes), places (m,)) to the m losses and whether each can be known.
    sigma : (k,) how far the probes lie.
    generators : one per clip of the call, so that a clip's probes are its own.
    samples : probes per clip, an even number.
    """
    gradient, known = torch.zeros_like(x), x.new_zeros(len(x))
    pairs, together = samples // 2, max(1, call.at_once // samples)
    for group in torch.arange(len(x), device=x.device).split(together):
        left = pairs
        while left:
            now = min(left, max(1, call.at_once // (2 * len(group))))
            left -= now
            # Pairs of probes, x + σu and x − σu, and the victim's answers to them.
            noise = torch.stack([_noise(x[0], generators[int(place)], now) for place in active[group]], 1)
            reach = per_clip(sigma[group], x) * noise  # (now, group, …)
            probes = torch.cat([x[group] + reach, x[group] - reach]).flatten(0, 1)
            places = active[group].repeat(2 * now)
            values, sure = loss(call.forward(probes, places, "queries"), places)
            plus, minus = values.reshape(2, now, len(group))
            # The sum over u [ℓ(x + σu) − ℓ(x − σu)]; a pair with an unknown answer does not count.
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NES(BudgetAttack):
    """Projected signed steps along the NES estimate, inside an ℓ∞ ball: BIM for a black box.

    x' ← clip{x' − ζ sgn ĝ} with ĝ from ``samples`` queries. Ilyas et al. call it the query-limited
    attack; PIA turns it inside out. Every probe and every look whether the clip is done is a query.

    Parameters
    ----------
    step : how far a step moves each value, as a share of the model's bounds.
    samples : queries per estimate, an even number.
    sigma : σ, how far the probes are, as a share of the model's bounds.
    queries : the most queries for any clip, at least ``samples`` + 1: an estimate and a look.
    momentum : share of the last direction that is kept, in [0, 1).
    seed : of the probes; a clip's probes depend on its own values and the seed alone.

    Source: Ilyas, Engstrom, Athalye, Lin, *Black-box adversarial attacks with limited queries and
    information*, 2018. Foolbox's estimator sums the losses of the batch, so that a clip is led by the
    others' answers; here every clip has its own.
    """

    step: float = 0.01
    samples: int = 50
    sigma: float = 0.01
    queries: int = 2000
    momentum: float = 0.0
    seed: int = 0
    distance = foolbox.distances.linf

    def __post_init__(self) -> None:
        numbers = ranges.number("step sigma", above=0), ranges.number("momentum", 0)
        whole = ranges.whole("samples", 2, multiple_of=2), ranges.whole("queries", 1), ranges.whole("seed", 0)
        ranges.refuse(vars(self), *numbers, *whole)
        if self.queries <= self.samples:
            raise ValueError(
                f"queries are at least samples + 1, {self.samples + 1}, for one step, not {self.queries}"
            )
        if not self.momentum < 1:
            raise ValueError(f"momentum is a share in [0, 1), not {self.momentum}")

    def perturb(self, call: Call, epsilon: torch.Tensor) -> torch.Tensor:
        sign, classes = call.goal
        generators = own_generators(call.x, self.seed, "nes")
        sigma = torch.full_like(epsilon, self.sigma * call.range)
        adversarial, active, last = call.x.clone(), call.everyone, torch.zeros_like(call.x)

        def loss(logits: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return margin(logits, classes[places]), torch.ones_like(places, dtype=torch.bool)

        with torch.no_grad():
            for _ in range(self.queries // (self.samples + 1)):
                x = adversarial[active]
                going = ~call.holds(x, call.ask(x, active), active)
                active, x = active[going], x[going]
                if len(active) == 0:
                    break
                gradient = estimate(call, x, active, loss, sigma[active], generators, self.samples)
                last[active] = self.momentum * last[active] + (1 - self.momentum) * gradient
                radius = per_clip(epsilon[active], x)
                x = x + sign * self.step * call.range * last[active].sign()
                x = torch.minimum(torch.maximum(x, call.x[active] - radius), call.x[active] + radius)
                adversarial[active] = x.clamp(call.low, call.high)
                call.counts.add("iterations", active)
        return adversarial
