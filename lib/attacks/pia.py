"""PIA: a black box that names its first classes only, attacked from a clip of the target (reading 13)."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import foolbox
import numpy as np
import torch
from foolbox.attacks.base import raise_if_kwargs

from lib import ranges
from lib.attacks.call import Call, LeastChangeAttack, make, own_generators, per_clip
from lib.attacks.ladder import Ladder, Rung
from lib.attacks.nes import estimate

_LEAST = 2.0**-10  # of the first δ, so that halving never ends in a step of nothing
_PROGRESS = 0.99  # a ball that has not shrunk below this share of what it was makes no progress
_REFUSALS = 10  # proposals a step may make before it waits for a better estimate


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PIA(LeastChangeAttack):
    """Walk from a clip of the target's class towards ``x`` without ever losing the target.

    The victim reports the probabilities of its ``top`` classes only. The attack begins at a clip that is
    named as the target, inside an ℓ∞ ball around ``x`` that just holds it, and shrinks the ball by δ as
    often as the target stays in sight. When it would be lost, x' first climbs the target's probability
    along the NES estimate and then shrinks:

    x' ← clip_{ε−δ}{x' + η sgn ĝ}, with ĝ of log p_target over antithetic pairs; a pair that loses
    sight of the target is dropped. Refused proposals halve η and δ, accepted ones double them. Chapter 4.

    Parameters
    ----------
    steps : the most estimates for any clip.
    samples : queries per estimate, an even number.
    decay : δ at first, as a share of the model's bounds as η, σ and the floor are; it doubles while steps
        succeed and halves when they fail, but never so far that a step leaves the ball as it is.
    rates : the least and the largest η.
    sigmas : the values of σ among which a clip chooses, at its first refusal, by the loss that a step
        along each one's estimate takes off; one value is used as it is.
    floor : the ball at which a clip is done.
    sure : a proposal is kept while the target is in sight and has this probability, or a higher one than
        before; only the last shrinking asks for sight alone.
    top : how many classes the victim reports.
    queries : the most queries for any clip, at least 2; 0 is no limit.
    patience : a clip is done when this many queries have not shrunk its ball by a hundredth; 0 waits for the
        end of its steps, as the paper does.
    seed : of the probes; a clip's probes depend on its own values and the seed alone.

    Called as ``PIA(...)(model, x, criterion, epsilons=None, starting_points=s)``, s of x's shape, a clip
    of its target's class each; with an ε the walk ends once it is inside it. A clip whose starting point
    is not named as its target (or holds a NaN) is returned as it came. An untargeted criterion takes the
    class that the victim gives the starting point.

    Notes
    -----
    Every probe, proposal and look is counted as a query. Ilyas et al. begin in a ball of a fixed radius;
    ours begins where the starting point is, and shrinks for the price of one query while that is enough.
    They keep every proposal that keeps the target in sight; but on the boundary one probe of each pair
    always loses it, every pair is dropped and nothing is learnt, so ours keeps its distance (``sure``).

    Source: Ilyas, Engstrom, Athalye, Lin, *Black-box adversarial attacks with limited queries and
    information*, 2018, section 2.4.
    """

    steps: int = 500
    samples: int = 50
    decay: float = 0.001
    rates: Sequence[float] = (0.001, 0.6)
    sigmas: Sequence[float] = (0.001, 0.003, 0.01, 0.03)
    floor: float = 0.001
    sure: float = 0.6
    top: int = 1
    queries: int = 0
    patience: int = 0
    seed: int = 0
    distance = foolbox.distances.linf
    takes_starting_points = True

    def __post_init__(self) -> None:
        above, lists = ranges.number("decay floor", above=0), ranges.number("rates sigmas", above=0)
        whole = ranges.whole("steps top", 1), ranges.whole("queries patience seed", 0)
        even, sure = ranges.whole("samples", 2, multiple_of=2), ranges.number("sure", 0, 1)
        ranges.refuse(vars(self), above, ranges.several(lists), *whole, even, sure)
        if len(self.rates) != 2 or self.rates[0] > self.rates[1]:
            raise ValueError(f"rates are the least and the largest η, not {list(self.rates)}")
        if self.queries == 1:
            raise ValueError("queries is 0 (no limit) or at least 2, to see the starting point, not 1")

    def run(
        self,
        model: foolbox.Model,
        inputs: Any,
        criterion: Any,
        *,
        starting_points: Any,
        early_stop: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Foolbox's ``run``; ``starting_points`` as above."""
        raise_if_kwargs(kwargs)

        def perturb(call: Call) -> torch.Tensor:
            with torch.no_grad():
                return _Walk(self, call, starting_points, early_stop).walk()

        return make(model, inputs, criterion, perturb)


class _Walk:
    """One call of PIA: where each clip stands, its ball, and how it steps."""

    def __init__(self, attack: PIA, call: Call, starting_points: Any, early_stop: float | None):
        self.attack, self.call = attack, call
        sign, self.target = call.goal
        starts = torch.as_tensor(getattr(starting_points, "raw", starting_points))
        if starts.shape != call.x.shape:
            raise ValueError(
                f"starting_points are of the clips' shape, {tuple(call.x.shape)}, not {tuple(starts.shape)}"
            )
        if starts.dtype != call.x.dtype:
            raise ValueError(f"starting_points are float32 as the clips are, not {starts.dtype}")
        there = ~starts.flatten(1).isnan().any(1)
        self.at = torch.where(per_clip(there, starts), starts, call.x)
        if not (call.low <= self.at.min() and self.at.max() <= call.high):
            raise ValueError(
                f"starting_points are in [{self.at.min():.9g}, {self.at.max():.9g}], "
                f"the model's bounds are [{call.low:.9g}, {call.high:.9g}]"
            )
        self.best, self.least = call.x.clone(), torch.full_like(call.x.flatten(1)[:, 0], torch.inf)
        self.decay, self.floor = attack.decay * call.range, max(attack.floor * call.range, early_stop or 0.0)
        self.rates, self.sigmas = (
            [each * call.range for each in values] for values in (attack.rates, attack.sigmas)
        )
        self.ball = (self.at - call.x).abs().flatten(1).amax(1)
        self.delta = self._least_delta(call.everyone).clamp_min(self.decay)
        self.rate = torch.full_like(self.ball, self.rates[1])
        self.sigma = torch.full_like(self.ball, sorted(self.sigmas)[len(self.sigmas) // 2])
        self.tuned = torch.full_like(there, len(attack.sigmas) == 1)
        self.marked_ball, self.marked_at = self.ball.clone(), torch.zeros_like(self.ball)
        self.rested = torch.zeros_like(there)
        self.generators = own_generators(call.x, attack.seed, "pia")
        self.active = call.everyone
        if sign > 0:
            self.target = self.call.ask(self.at, self.active).argmax(1)
        self.score = torch.full_like(self.ball, -torch.inf)
        known, self.score[:] = self._see(self.at, self.active)
        self.walking = known & there
        self.active = self.active[self.walking]

    def walk(self) -> torch.Tensor:
        """(n, …) the smallest-ball examples for which the criterion held."""
        for _ in range(self.attack.steps):
            self._coast()
            self._leave(self.attack.samples + 1)
            if len(self.active) == 0:
                break
            self._tune(self.active[~self.tuned[self.active]])
            self._leave(self.attack.samples + 1)
            active = self.active
            gradient = self._gradient(active, self.sigma[active])
            self.call.counts.add("iterations", active)
            self._propose(active, gradient.sign())
        self.delta = torch.maximum(self.delta, self._least_delta(self.call.everyone))
        self.delta.clamp_min_(self.decay)
        self._coast(last=True)
        self.call.cut(self.walking & (self.ball > self.floor))
        return self.best

    def _coast(self, last: bool = False) -> None:
        """Shrink for one query a try while no gradient is needed, until the first refusal."""
        going = self.active
        while len(going := self._affordable(going, 1)):
            kept = self._try(going, self.at[going], sight_alone=last)
            self._resize(going, kept)
            smaller = self.delta[going] > self._least_delta(going)
            going = going[(smaller if last else kept) & (self.ball[going] > self.floor)]

    def _propose(self, places: torch.Tensor, ascent: torch.Tensor) -> None:
        """Step along ``ascent`` and shrink; halve η and δ until the target stays in sight."""
        least, most = self.rates
        for _ in range(_REFUSALS):
            able = torch.isin(places, self._affordable(places, 1))
            places, ascent = places[able], ascent[able]
            if len(places) == 0:
                return
            moved = self.at[places] + per_clip(self.rate[places], ascent) * ascent
            kept = self._try(places, moved)
            self._resize(places, kept)
            self.rate[places] = (self.rate[places] * torch.where(kept, 2.0, 0.5)).clamp(least, most)
            places, ascent = places[~kept], ascent[~kept]

    def _try(self, places: torch.Tensor, image: torch.Tensor, sight_alone: bool = False) -> torch.Tensor:
        """Draw ``image`` into a ball smaller by δ, and go there where the target bears it: (k,) where."""
        ball = (self.ball[places] - self.delta[places]).clamp_min(self.floor)
        ball = torch.minimum(ball, self.ball[places])
        x, radius = self.call.x[places], per_clip(ball, image)
        image = torch.minimum(torch.maximum(image, x - radius), x + radius).clamp(
            self.call.low, self.call.high
        )
        kept, score = self._see(image, places)
        if not sight_alone:
            kept &= (score >= math.log(max(self.attack.sure, 1e-9))) | (score > self.score[places])
        there = places[kept]
        self.at[there], self.ball[there], self.score[there] = image[kept], ball[kept], score[kept]
        return kept

    def _resize(self, places: torch.Tensor, kept: torch.Tensor) -> None:
        """Double δ where a proposal was kept, halve it where it was refused."""
        delta = self.delta[places] * torch.where(kept, 2.0, 0.5)
        self.delta[places] = torch.maximum(delta, self._least_delta(places))

    def _least_delta(self, places: torch.Tensor) -> torch.Tensor:
        """(k,) below this δ is not halved: ``_LEAST`` of the first, and enough to change a float32 ball."""
        ball = self.ball[places]
        return (ball - ball.nextafter(torch.zeros_like(ball))).clamp_min(self.decay * _LEAST)

    def _see(self, image: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether the target is in sight, and its log p; the image is kept where the criterion holds."""
        logits = self.call.ask(image, places)
        holds = self.call.holds(image, logits, places)
        nearer = holds & ((image - self.call.x[places]).abs().flatten(1).amax(1) < self.least[places])
        self.best[places[nearer]] = image[nearer]
        self.least[places[nearer]] = (image - self.call.x[places]).abs().flatten(1).amax(1)[nearer]
        own, known = self._score(logits, places)
        return known, own

    def _known(self, logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        top = logits.topk(min(self.attack.top, logits.shape[1]), dim=1).indices
        return (top == self.target[places][:, None]).any(1)

    def _score(self, logits: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log p of the target, and whether the victim's answer contains it."""
        own = logits.log_softmax(1).gather(1, self.target[places][:, None])[:, 0]
        return own, self._known(logits, places)

    def _gradient(self, places: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        at, samples = self.at[places], self.attack.samples
        return estimate(self.call, at, places, self._score, sigma, self.generators, samples)

    def _tune(self, places: torch.Tensor) -> None:
        """Choose σ clip by clip: the one whose estimate, followed a little, raises the target most."""
        price = len(self.attack.sigmas) * (self.attack.samples + 1)
        places = self._affordable(places, price + self.attack.samples + 1)
        if len(places) == 0:
            return
        gain = []
        for sigma in self.sigmas:
            ascent = self._gradient(places, torch.full_like(self.sigma[places], sigma)).sign()
            image = self.at[places] + self.rates[0] * ascent
            own, known = self._score(
                self.call.ask(image.clamp(self.call.low, self.call.high), places), places
            )
            gain.append(torch.where(known, own, -torch.inf))
        self.sigma[places] = self.sigma.new_tensor(self.sigmas)[torch.stack(gain).argmax(0)]
        self.tuned[places] = True

    def _affordable(self, places: torch.Tensor, price: int) -> torch.Tensor:
        if not self.attack.queries:
            return places
        spent = self.call.counts.costs["queries"].to(places.device)
        return places[spent[places] + price <= self.attack.queries]

    def _leave(self, price: int) -> None:
        """Clips that are done, or cannot afford another estimate, leave."""
        done = self.ball[self.active] <= self.floor
        if self.attack.top > 1:
            done &= self.least[self.active] <= self.floor
        done |= self._rests(self.active)
        self.active = self._affordable(self.active[~done], price)

    def _rests(self, places: torch.Tensor) -> torch.Tensor:
        """(k,) whether the ball has not shrunk by a hundredth over the last ``patience`` queries."""
        spent = self.call.counts.costs["queries"].to(self.ball)[places]
        shrunk = self.ball[places] < _PROGRESS * self.marked_ball[places]
        self.marked_ball[places] = torch.where(shrunk, self.ball[places], self.marked_ball[places])
        self.marked_at[places] = torch.where(shrunk, spent, self.marked_at[places])
        if self.attack.patience:
            self.rested[places] |= spent - self.marked_at[places] > self.attack.patience
        return self.rested[places]


def starting_points(
    images: Any,
    rows: Sequence[int],
    named: torch.Tensor,
    target: torch.Tensor,
    clips: Sequence[str],
    *,
    seed: int = 0,
) -> torch.Tensor:
    """For every target a clip that the victim names so, drawn by the attacked clip's name; else NaN.

    Parameters
    ----------
    images : a store or a tensor, ``images[rows]`` is (m, …): the clips that the adversary has.
    rows : m of them; only those that are drawn are read.
    named : (m,) the class that the victim gives each, for those it classifies correctly; −1 for the others.
    target, clips : n targets, and the names of the clips they are for.
    """
    rows = np.asarray(rows)
    found = torch.full((len(target), *images[rows[:1]].shape[1:]), torch.nan)
    for n, (wanted, clip) in enumerate(zip(target.tolist(), clips, strict=True)):
        there = torch.nonzero(named == wanted)[:, 0].numpy()
        if len(there):
            digest = hashlib.sha256(f"start/{seed}/{clip}".encode()).digest()
            drawn = there[int.from_bytes(digest[:8], "big") % len(there)]
            found[n] = images[rows[drawn : drawn + 1]][0]
    return found


def ladders(
    size: tuple[int, int],
    *,
    seed: int = 0,
    steps: int = 500,
    samples: int = 50,
    top: int = 1,
    queries: int = 0,
    patience: int = 0,
) -> dict[str, Ladder]:
    """PIA has one rung: its own walk passes every budget on the way down."""
    attack = PIA(steps=steps, samples=samples, top=top, queries=queries, patience=patience, seed=seed)
    return {"PIA": Ladder([Rung(attack, attack.floor)], "target")}
