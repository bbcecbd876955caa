"""CWA: the smallest change that the loss on logits pays for (Eqs. 5 to 8)."""

import dataclasses
from collections.abc import Sequence

import foolbox
import torch

from lib.attacks.call import Call, LeastChangeAttack, per_clip
from lib.attacks.ladder import Ladder, Rung
from lib.attacks.ranges import flag, not_negative, positive, whole

_INSIDE = 0.999999  # artanh is infinite at the bounds, so clips are drawn in by this, as Foolbox does
_CHECKS = 10  # how often in a search progress is asked for
_LOWEST = 0.995  # a loss whose lowest has not fallen below this share of the lowest before rests,
_MEAN = 0.95  # if its mean since the last look has not fallen below this share of the mean before either
_RESTS = 2  # looks in a row at which a loss must rest: Adam may overshoot once,
_RESTS_AT_BOUND = 5  # and a value on a bound moves nothing until it is well away from it
_FLAT = 4.0  # the slope of tanh beyond this ρ is below a thousandth
_GROWTH = 10  # of c while no example has been found
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
    c : the weight of ℒ; where it is searched for, the first one tried.
    steps : Adam's steps for one c.
    step : Adam's learning rate.
    confidence : κ, by how much the target's logit must lead.
    searches : how many values of c are tried a clip: 1 is ``c`` alone; more raise it tenfold until it
        fools and then halve the gap (Eq. 5's "binary search").
    abort : stop a clip whose loss rests: looked at every tenth of the steps, neither has its lowest fallen
        by half a hundredth nor its mean by a twentieth since the look before, twice in a row; five times
        where values begin on a bound that ``steps`` may take off it, for till then the loss stands still.

    Called as ``CWA(...)(model, x, criterion, epsilons=None)``; an untargeted criterion leaves its label.

    Notes
    -----
    Clips come to rest, and are searched, each by itself (Foolbox stops the batch on its summed loss, at the
    first rest of a ten-thousandth, and returns a black image on failure). Where ℒ = −κ its gradient is
    zero: those clips get a forward pass and the norm's own gradient, nothing else. A clip that fools as it
    came leaves at once, and one whose gradient is not finite goes no further. The paper's formula for
    δ* (Eq. 8) has a misplaced bracket, and its artan is artanh.

    Source: Carlini, Wagner, *Towards evaluating the robustness of neural networks*, 2017; the other
    constants as in Foolbox.
    """

    c: float = 1.0
    steps: int = 1500
    step: float = 0.01
    confidence: float = 0.0
    searches: int = 1
    abort: bool = True
    distance = foolbox.distances.l2

    def __post_init__(self) -> None:
        positive(c=self.c, step=self.step)
        whole(steps=self.steps, searches=self.searches)
        not_negative(confidence=self.confidence)
        flag(abort=self.abort)

    def perturb(self, call: Call) -> torch.Tensor:
        sign, classes = call.goal
        best, least = call.x.clone(), call.x.new_full((len(call.x),), torch.inf)
        c = torch.full_like(least, self.c)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(self.searches):
            if not least.any():
                break
            found = self._descend(call, c, sign, classes, best, least)
            low, high = torch.where(found, low, c), torch.where(found, c, high)
            c = torch.where(high.isinf(), c * _GROWTH, (low + high) / 2)
        return best

    def _descend(
        self,
        call: Call,
        c: torch.Tensor,
        sign: int,
        classes: torch.Tensor,
        best: torch.Tensor,
        least: torch.Tensor,
    ) -> torch.Tensor:
        """Adam at one c a clip; writes nearer examples to ``best`` and ``least``; who was fooled at all."""
        middle, half = (call.high + call.low) / 2, (call.high - call.low) / 2
        start = ((call.x - middle) / half * _INSIDE).atanh()
        origin = start.tanh() * half + middle
        delta, mean, square = (torch.zeros_like(call.x) for _ in range(3))
        found = torch.zeros_like(c, dtype=torch.bool)
        resting = _Resting(self, start)
        active = torch.nonzero(least > 0)[:, 0]
        delta, mean, square = delta[active], mean[active], square[active]
        needed = torch.ones_like(found)
        for number in range(1, self.steps + 1):
            slope = (start[active] + delta).tanh()
            x = slope * half + middle
            loss, pull, logits = self._loss(call, x, active, sign, classes, needed[active])
            needed[active] = loss > 0
            away = x - origin[active]
            total = away.square().flatten(1).sum(1) + c[active] * loss

            holds = self._fools(call, x, logits, active, sign, classes)
            norm = (x - call.x[active]).flatten(1).norm(dim=1)
            found[active] |= holds
            nearer = holds & (norm < least[active])
            best[active[nearer]], least[active[nearer]] = x[nearer], norm[nearer]
            if number == 1 and holds.any():
                self._keep_as_they_came(call, active[holds], sign, classes, best, least)

            gradient = (2 * away + per_clip(c[active], x) * pull) * (1 - slope.square()) * half
            mean.mul_(_BETA1).add_(gradient, alpha=1 - _BETA1)
            square.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
            root = (square / (1 - _BETA2**number)).sqrt_().add_(_TINY)
            delta.addcdiv_(mean, root, value=-self.step / (1 - _BETA1**number))
            call.counts.add("iterations", active)

            going = (least[active] > 0) & gradient.flatten(1).isfinite().all(1)
            if self.abort:
                going &= ~resting.look(number, total, active)
            if not going.all():
                active, delta, mean, square = active[going], delta[going], mean[going], square[going]
                if len(active) == 0:
                    break
        return found

    def _keep_as_they_came(
        self,
        call: Call,
        places: torch.Tensor,
        sign: int,
        classes: torch.Tensor,
        best: torch.Tensor,
        least: torch.Tensor,
    ) -> None:
        """Those that fool without any change, asked of the clips themselves: δ = 0 is drawn in a little."""
        x = call.x[places]
        holds = self._fools(call, x, call.forward(x, places), places, sign, classes)
        best[places[holds]], least[places[holds]] = x[holds], 0

    def _loss(
        self,
        call: Call,
        x: torch.Tensor,
        active: torch.Tensor,
        sign: int,
        classes: torch.Tensor,
        needed: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ℒ + κ (k,), its gradient by the images, and logits.

        Only the clips whose gradient is likely to be needed (those whose last ℒ was not at rest) are
        passed with a graph; where the guess was wrong the clip is passed again.
        """
        loss, pull, logits = x.new_zeros(len(x)), torch.zeros_like(x), None
        for wanted, graph in ((needed, True), (~needed, False)):
            if not wanted.any():
                continue
            places = wanted.nonzero()[:, 0]
            while len(places):
                part = x[places].requires_grad_(graph)
                answer = call.forward(part, active[places])
                margin = self._margin(answer, classes[active[places]], sign)
                if graph and (margin.detach() > 0).any():
                    pull[places] = call.gradient(margin.clamp_min(0), part, active[places])
                if logits is None:
                    logits = answer.new_zeros(len(x), answer.shape[1])
                logits[places], loss[places] = answer.detach(), margin.detach().clamp_min(0)
                places = places[margin.detach() > 0] if not graph else places[:0]
                graph = True
        return loss, pull, logits

    def _margin(self, logits: torch.Tensor, classes: torch.Tensor, sign: int) -> torch.Tensor:
        """How far the example is from fooling with margin κ, in logits: (k,), ≤ 0 where it does."""
        own = logits.gather(1, classes[:, None])[:, 0]
        other = logits.scatter(1, classes[:, None], -torch.inf).amax(1)
        return sign * (own - other) + self.confidence

    def _fools(
        self,
        call: Call,
        x: torch.Tensor,
        logits: torch.Tensor,
        active: torch.Tensor,
        sign: int,
        classes: torch.Tensor,
    ) -> torch.Tensor:
        """Whether the criterion holds, with margin κ."""
        holds = call.holds(x, logits, active)
        return holds & (self._margin(logits, classes[active], sign) <= 0) if self.confidence else holds


class _Resting:
    """Which clips' losses have come to rest, told by their lowest and by their mean between looks."""

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
    searches: int = 1,
    product: bool = False,
) -> dict[str, Ladder]:
    """CWA over pairs of c and steps, ascending; ``product`` takes every pair, cheapest first (reading 12)."""
    flag(product=product)
    if len(cs) != len(steps) and not product:
        raise ValueError(f"c and steps are paired: {len(cs)} values of c, {len(steps)} of steps")
    pairs = [(n, c) for n in steps for c in cs] if product else zip(sorted(steps), sorted(cs), strict=True)
    attacks = [CWA(c=c, steps=n, confidence=kappa, searches=searches) for n, c in sorted(pairs)]
    return {"CWA": Ladder([Rung(attack, float(attack.c)) for attack in attacks], "target")}
