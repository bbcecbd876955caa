"""CWA: the smallest change that the loss on logits pays for (Eqs. 5 to 8)."""

import dataclasses
import warnings
from collections.abc import Sequence

import foolbox
import torch

from lib import ranges
from lib.attacks.call import Call, LeastChangeAttack, NoGradient, l2, per_clip
from lib.attacks.ladder import Ladder, Rung

_INSIDE = 0.999999  # artanh is infinite at the bounds, so clips are drawn in by this, as Foolbox does
_CHECKS = 10  # how often in a descent progress is asked for
_LOWEST = 0.995  # a loss whose lowest has not fallen below this share of the lowest before rests,
_MEAN = 0.95  # if its mean since the last look has not fallen below this share of the mean before either
_RESTS = 2  # looks in a row at which a loss must rest: Adam may overshoot once,
_RESTS_AT_BOUND = 5  # and a value on a bound moves nothing until it is well away from it
_FLAT = 4.0  # the slope of tanh beyond this ρ is below a thousandth
_DOWN, _UP = 0.9, 1.1  # by how much a step of the search changes c where the example fools, and where not
_SLOWEST = 0.1  # of the learning rate, to which it falls during the search
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8  # Adam's own


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CWA(LeastChangeAttack):
    """Minimise ‖x' − x‖₂² + c ℒ(x') with Adam, in a space without walls (Carlini and Wagner).

    Eq. 7: x' = (tanh ρ + 1)/2, ρ = artanh(2x − 1) + δ, so that any δ gives an image in [0, 1] (and
    likewise for other bounds). Eq. 6: ℒ = max(max_{i≠t} Z_i − Z_t, −κ). Of all iterates for which the
    criterion holds with margin κ, the nearest is kept; a clip that has none is returned as it came.
    Chapter 4.

    Parameters
    ----------
    c : the weight of ℒ against the squared norm, which is taken in units of the model's bounds.
    steps : Adam's steps at this c.
    step : Adam's learning rate.
    confidence : κ, by how much the target's logit must lead.
    search : further steps from a clip's first example on, in which c falls by a tenth where the example
        fools and rises by as much where it does not, clip by clip, while the learning rate falls to a tenth.
        It ends at the c whose minimum is on the boundary, as the binary search over c does that starts anew
        for each value, at a tenth of its passes. 0 keeps c as it is.
    abort : stop a clip whose loss rests: looked at every tenth of the steps, neither has its lowest fallen
        by half a hundredth nor its mean by a twentieth since the look before, twice in a row; five times
        where values begin on a bound that ``steps`` may take off it, for till then the loss stands still.

    Called as ``CWA(...)(model, x, criterion, epsilons=None)``; an untargeted criterion leaves its label.

    Notes
    -----
    Clips come to rest, and are searched, each by itself (Foolbox stops the batch on its summed loss, at the
    first rest of a ten-thousandth, and returns a black image on failure). Where ℒ = −κ its gradient is
    zero: those clips get a forward pass and the norm's own gradient, nothing else. A clip that fools as it
    came leaves at once, and one whose gradient is not finite goes no further. A victim without a gradient
    leaves the norm's, with a warning. Adam descends Eq. 5 over c, which is the same but for its 1e-8: what it
    remembers of ℒ's gradient keeps its scale while c is searched. The paper's formula for δ* (Eq. 8) has a
    misplaced bracket, and its artan is artanh.

    Source: Carlini, Wagner, *Towards evaluating the robustness of neural networks*, 2017; the other
    constants as in Foolbox.
    """

    c: float = 1.0
    steps: int = 1500
    step: float = 0.01
    confidence: float = 0.0
    search: int = 0
    abort: bool = True
    distance = foolbox.distances.l2

    def __post_init__(self) -> None:
        numbers = ranges.number("c step", above=0), ranges.number("confidence", 0)
        whole = ranges.whole("steps", 1), ranges.whole("search", 0)
        ranges.refuse(vars(self), *numbers, *whole, ranges.flag("abort"))

    def perturb(self, call: Call) -> torch.Tensor:
        descent = _Descent(self, call)
        descent.run()
        if not self.search:
            call.cut(call.everyone)
        return descent.best


class _Descent:
    """Adam on Eq. 5, clip by clip: the nearest example so far, its norm, and each clip's c."""

    def __init__(self, attack: CWA, call: Call):
        self.attack, self.call = attack, call
        self.sign, self.classes = call.goal
        self.middle, self.half = (call.high + call.low) / 2, call.range / 2
        self.start = ((call.x - self.middle) / self.half * _INSIDE).atanh()
        self.origin = self.start.tanh() * self.half + self.middle
        self.best, self.least = call.x.clone(), call.x.new_full((len(call.x),), torch.inf)
        self.c, self.searched = torch.full_like(self.least, attack.c), torch.zeros_like(self.least)
        self.needed = torch.ones_like(self.least, dtype=torch.bool)  # whether ℒ's gradient was, last time
        self.resting = _Resting(attack, self.start)

    def run(self) -> None:
        active = self.call.everyone
        delta, mean, square = (torch.zeros_like(self.call.x) for _ in range(3))
        number = 0
        while len(active):
            number += 1
            # Eq. 7: ρ is the clip's own, `start`, plus delta; x = (tanh ρ + 1) / 2 for images in [0, 1].
            slope = (self.start[active] + delta).tanh()
            x = slope * self.half + self.middle
            loss, pull, holds = self._loss(x, active)  # ℒ of Eq. 6, its gradient by x, and who is fooled
            if number == 1 and holds.any():
                self._keep_as_they_came(active[holds])
            # Eq. 5, and its gradient by ρ, divided by c; (1 − tanh² ρ) / 2 is the derivative of x.
            away = (x - self.origin[active]) / self.call.range
            total = away.square().flatten(1).sum(1) + self.c[active] * loss
            pull = 2 * away / self.call.range / per_clip(self.c[active], x) + pull
            gradient = pull * (1 - slope.square()) * self.half
            # A step of Adam, for all clips at once.
            mean.mul_(_BETA1).add_(gradient, alpha=1 - _BETA1)
            square.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
            root = (square / (1 - _BETA2**number)).sqrt_().add_(_TINY)
            rate = per_clip(self._rate(active), x) / (1 - _BETA1**number)
            delta.sub_(rate * mean / root)
            self.call.counts.add("iterations", active)
            # The search for c, and who goes on.
            going = self._search(active, holds) | self._goes_on(number, total, active)
            going &= (self.least[active] > 0) & gradient.flatten(1).isfinite().all(1)
            if not going.all():
                active, delta, mean, square = active[going], delta[going], mean[going], square[going]

    def _rate(self, active: torch.Tensor) -> torch.Tensor:
        """(k,) Adam's learning rate, which falls along a cosine during the search."""
        done = self.searched[active] / max(1, self.attack.search)
        return self.attack.step * (_SLOWEST + (1 - _SLOWEST) * (1 + (torch.pi * done).cos()) / 2)

    def _search(self, active: torch.Tensor, holds: torch.Tensor) -> torch.Tensor:
        """Change c where an example was found: (k,) who goes on searching."""
        if not self.attack.search:
            return torch.zeros_like(holds)
        found = self.least[active].isfinite()
        change = torch.where(holds, _DOWN, _UP).where(found & (self.searched[active] > 0), 1.0)
        self.c[active] *= change
        self.searched[active] += found
        return found & (self.searched[active] <= self.attack.search)

    def _goes_on(self, number: int, total: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """(k,) who goes on at the same c."""
        going = torch.full_like(total, number < self.attack.steps, dtype=torch.bool)
        if self.attack.search:
            going &= self.least[active].isinf()
        if self.attack.abort and number <= self.attack.steps:
            going &= ~self.resting.look(number, total, active)
        return going

    def _keep_as_they_came(self, places: torch.Tensor) -> None:
        """Those that fool without any change, asked of the clips themselves: δ = 0 is drawn in a little."""
        x = self.call.x[places]
        holds = self._fools(x, self.call.forward(x, places), places)
        self.best[places[holds]], self.least[places[holds]] = x[holds], 0

    def _loss(self, x: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """ℒ + κ (k,), its gradient by the images, and who fools; keeps those that are nearer than before.

        Only the clips whose gradient is likely to be needed (those whose last ℒ was not at rest) are
        passed with a graph; where the guess was wrong the clip is passed again.
        """
        loss, pull, logits = x.new_zeros(len(x)), torch.zeros_like(x), None
        needed = self.needed[active]
        for wanted, graph in ((needed, True), (~needed, False)):
            if not wanted.any():
                continue
            places = wanted.nonzero()[:, 0]
            while len(places):
                part = x[places].requires_grad_(graph)
                answer = self.call.forward(part, active[places])
                margin = self._margin(answer, active[places])
                if graph and (margin.detach() > 0).any():
                    pull[places] = self._pull(margin.clamp_min(0), part, active[places])
                if logits is None:
                    logits = answer.new_zeros(len(x), answer.shape[1])
                logits[places], loss[places] = answer.detach(), margin.detach().clamp_min(0)
                places = places[margin.detach() > 0] if not graph else places[:0]
                graph = True
        self.needed[active] = loss > 0
        holds = self._fools(x, logits, active)
        norm = l2(x - self.call.x[active])
        nearer = holds & (norm < self.least[active])
        self.best[active[nearer]], self.least[active[nearer]] = x[nearer], norm[nearer]
        return loss, pull, holds

    def _pull(self, margin: torch.Tensor, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The gradient of ℒ; where the victim has none, zero, with a warning."""
        try:
            return self.call.gradient(margin, x, places, finite=False)
        except NoGradient as error:
            warnings.warn(f"{error}; CWA follows the gradient of the norm alone", stacklevel=2)
            return torch.zeros_like(x)

    def _margin(self, logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """How far the example is from fooling with margin κ, in logits: (k,), ≤ 0 where it does."""
        classes = self.classes[places]
        own = logits.gather(1, classes[:, None])[:, 0]
        other = logits.scatter(1, classes[:, None], -torch.inf).amax(1)
        return self.sign * (own - other) + self.attack.confidence

    def _fools(self, x: torch.Tensor, logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """(k,) whether the criterion holds, with margin κ."""
        holds = self.call.holds(x, logits, places)
        return holds & (self._margin(logits, places) <= 0) if self.attack.confidence else holds


class _Resting:
    """Which clips' losses have come to rest, by their lowest value and their mean between looks."""

    def __init__(self, attack: CWA, start: torch.Tensor):
        self.every = -(-attack.steps // _CHECKS)
        # A clip whose values on a bound may come off it within the steps is given longer.
        on_bound = (start.abs() > _FLAT) & (start.abs() - attack.steps * attack.step < _FLAT)
        self.patience = torch.where(on_bound.flatten(1).any(1), _RESTS_AT_BOUND, _RESTS)
        self.rests = torch.zeros_like(self.patience)
        self.lowest, self.sum = start.new_full((len(start),), torch.inf), start.new_zeros(len(start))
        self.lowest_before, self.sum_before = self.lowest.clone(), self.lowest.clone()

    def look(self, number: int, total: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """(k,) whether the active clips, with loss ``total`` at step ``number``, have rested long enough."""
        self.lowest[active] = torch.minimum(self.lowest[active], total)
        self.sum[active] += total
        if number % self.every:
            return torch.zeros_like(total, dtype=torch.bool)
        fell = (self.lowest < _LOWEST * self.lowest_before) | (self.sum < _MEAN * self.sum_before)
        self.rests = torch.where(fell, 0, self.rests + 1)
        self.lowest_before, self.sum_before = self.lowest.clone(), self.sum
        self.sum = torch.zeros_like(self.sum)
        return (self.rests >= self.patience)[active]


def ladders(
    size: tuple[int, int],
    *,
    seed: int = 0,
    cs: Sequence[float] = (1.0, 3.0, 5.0, 7.0),
    steps: Sequence[int] = (25, 100, 1000, 1500),
    kappa: float = 0.0,
    search: int = 200,
    product: bool = False,
) -> dict[str, Ladder]:
    """CWA over pairs of c and steps, ascending; ``product`` takes every pair, cheapest first (reading 12).

    The rung that fools a clip is followed by ``search`` steps in which its c falls.
    """
    lists = ranges.number("cs", above=0), ranges.whole("steps", 1)
    ranges.refuse(locals(), *map(ranges.several, lists), ranges.flag("product"))
    if len(cs) != len(steps) and not product:
        raise ValueError(f"c and steps are paired: {len(cs)} values of c, {len(steps)} of steps")
    pairs = [(n, c) for n in steps for c in cs] if product else zip(sorted(steps), sorted(cs), strict=True)
    attacks = [CWA(c=c, steps=n, confidence=kappa, search=search) for n, c in sorted(pairs)]
    return {"CWA": Ladder([Rung(attack, float(attack.c)) for attack in attacks], "target")}
