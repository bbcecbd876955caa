"""One attack after another, each with as much budget as it needs and no more (Section VI of the paper).

Every clip starts at the foot of a ladder; a clip that is fooled leaves; the climb ends once enough clips are
fooled or there is no rung left. Each example is measured again by :mod:`lib.attacks.judge`.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import foolbox
import numpy as np
import pandas as pd
import torch
from foolbox.attacks.base import FixedEpsilonAttack

from lib import ranges
from lib.attacks.accounting import COSTS, counting
from lib.attacks.door import check, check_answer
from lib.attacks.judge import MEASURED, Tensors, answers, check_mode, check_still, measure
from lib.attacks.ladder import TIMES, Ladder, Rung
from lib.attacks.witness import watching


def climb(
    victim: foolbox.Model,
    x: torch.Tensor,
    label: torch.Tensor,
    target: torch.Tensor,
    clips: Sequence[str],
    ladders: Mapping[str, Ladder],
    *,
    until: float = 0.9,
    brackets: bool = False,
    crafted: foolbox.Model | None = None,
    batch: int = 16,
    memory: float = 0.0,
    starts: torch.Tensor | None = None,
    keep: Callable[[str, Callable[[], Tensors]], Tensors] = lambda name, work: work(),
    show: Sequence[str] | None = None,
    progress: Callable[..., Iterable] = lambda iterable, what, total=None: iterable,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Attack every clip that the victim classifies correctly, up each ladder until enough are fooled.

    Parameters
    ----------
    victim : a Foolbox model in evaluation mode.
    x : (n, 1, rows, frames) in the victim's bounds.
    label, target : (n,) true and wanted classes.
    clips : n names; those of the rows.
    ladders : name to ladder, as :func:`lib.attacks.ladders` makes them, or your own.
    until : the share of clips fooled beyond which nobody climbs on, in [0, 1]; 1 lets everyone climb to
        the end.
    brackets : begin each ladder at the rung that its ``begin`` suggests and go down or up from there, which
        saves most of the rungs that fail; else, as in the paper, every clip begins at the lowest.
    crafted : what the attacks are run against, where that is not the victim itself but a faster copy of it;
        their examples are judged by the victim.
    batch : the most clips attacked at once; halved for good when memory runs out.
    memory : GiB that a batch may take, by :func:`footprint`; 0 sets no limit.
    starts : (n, 1, rows, frames) where an attack that needs one starts, a clip of the target's class
        each (see :func:`lib.attacks.starting_points`); all NaN where there is none.
    keep : called as ``keep(name, work)`` for each piece of work; gives what ``work()`` gives, from
        where it was kept if it was done before (:class:`lib.attacks.Pieces`).
    show : the clips whose examples are returned; all of them where it is not given.
    progress : ``progress(iterable, what, total)`` goes through the clips of an attack as they settle.
    say : takes a line when a batch had to be made smaller. Which clips share a batch changes no result; a
        clip that is done may be charged a pass of those beside it.

    Returns
    -------
    rows : one per clip and attack, in the ladders' order: clip, attack, label, target, before and after
        (the predicted classes), fooled (the ladder's own criterion), reached (the target is predicted),
        confidence (of the class predicted after), l0, l2, linf, rms (of the change), l2_any (the least
        ‖δ‖₂ of any misclassified image met on the way; ∞ if none was), bound (l2 is "exact" to the ladder's
        resolution; the clip was not fooled and needs "at least" more than was tried; or the attack was cut
        off, and it needs "at most" that), iterations, forwards, backwards, queries (spent on all rungs), rung
        (the lowest that fooled, from 1; 0 if none), budget (of that rung, or of the last one tried), smallest
        (the least ‖δ‖₂ at which this ladder could have fooled), refused (how many claims of the attack the
        judge did not confirm), seconds. A clip without a start has no row of an attack that needs one.
    examples : attack to (m, 1, rows, frames), the least change found for each clip of ``show`` that was
        attacked, in the order of ``clips``; the last attempt where none fooled, the clip without a start.

    Raises
    ------
    ValueError : if an argument cannot be climbed with, naming it and what was found; if a target is its
        clip's label; if the victim is in training mode.
    """
    device = getattr(victim, "device", x.device)
    label, target, clips = torch.as_tensor(label), torch.as_tensor(target), list(clips)
    everyone = Clips(x, label, target, starts)
    _check(victim, everyone, clips, ladders)
    numbers = ranges.number("until", 0, 1), ranges.number("memory", 0), ranges.whole("batch", 1)
    ranges.refuse(locals(), *numbers, ranges.flag("brackets"))
    check_mode(victim, x[:1].to(device))
    if memory:
        batch = min(batch, max(1, int(memory * 2**30 / footprint(victim, x[:1].to(device)))))
    logits = torch.cat([answers(victim, part.to(device)) for part in x.split(batch)])
    for criterion in (foolbox.Misclassification(label), foolbox.TargetedMisclassification(target)):
        check_answer(criterion, logits)
    check_still(victim, x[:batch].to(device))
    before = logits.argmax(1).cpu()
    places = torch.nonzero(before == label)[:, 0]
    attacked = [clips[place] for place in places]
    shown = [n for n, clip in enumerate(attacked) if show is None or clip in set(show)]
    group = everyone.at(places)
    climbed: dict[str, _Climb] = {}
    tables, examples = {}, {}
    for name in _order(ladders) if brackets else ladders:
        ladder = ladders[name]
        able = _with_start(name, ladder, group, attacked, say)
        one = _Climb(victim, device, name, ladder, group.at(able), batch, keep, say)
        one.crafted = crafted or victim
        begin = _begin(ladder, climbed.get(ladder.begin)) if brackets else 1
        begin = torch.as_tensor(begin).expand(len(places))[able]
        for _ in progress(one.settle(until, begin), name, len(able)):
            pass
        rows = one.rows()
        rows.insert(0, "clip", [attacked[place] for place in able])
        rows.insert(1, "attack", name)
        rows.insert(4, "before", before[places][able].numpy())
        tables[name], climbed[name] = rows, one
        best = group.x.clone()
        best[able] = one.best
        examples[name] = best[shown]
    rows = pd.concat([tables[name] for name in ladders], ignore_index=True)
    return rows, {name: examples[name] for name in ladders}


def needs_start(ladder: Ladder) -> bool:
    """Whether an attack begins at a clip of its target's class."""
    return any(getattr(rung.attack, "takes_starting_points", False) for rung in ladder.rungs)


def _with_start(
    name: str, ladder: Ladder, clips: "Clips", names: Sequence[str], say: Callable[[str], None]
) -> torch.Tensor:
    """The places of the clips that an attack can begin with; the others get no row, and are named."""
    everyone = torch.arange(len(clips.x))
    if not needs_start(ladder):
        return everyone
    if clips.starts is None:
        raise ValueError(f"{name} needs a starting point for every clip: pass starts")
    none = clips.starts.flatten(1).isnan().any(1)
    if none.any():
        without = ", ".join(names[place] for place in everyone[none])
        say(f"{name}: no start for {int(none.sum())} of {len(none)} clips, which get no row: {without}")
    return everyone[~none]


def _order(ladders: Mapping[str, Ladder]) -> list[str]:
    """The ladders' names, each after the one by whose norms its climb begins."""
    ordered: list[str] = []
    for name in ladders:
        chain = [name]
        while (before := ladders[chain[-1]].begin) in ladders and before not in [*chain, *ordered]:
            chain.append(before)
        ordered += [each for each in reversed(chain) if each not in ordered]
    return ordered


def _begin(ladder: Ladder, before: "_Climb | None") -> torch.Tensor | int:
    """The rung that each clip tries first, from 1; ``before`` is the climb that ``ladder.begin`` names."""
    count = len(ladder.rungs)
    if ladder.begin == "last":
        return count
    if before is None or needs_start(before.ladder):
        return 1
    if before.ladder.bisections:
        return torch.where(before.fooled, before.rung, count).clamp(1, count)
    wanted = torch.where(before.fooled, TIMES * before.norm / before.range, 0.0)
    epsilons = torch.tensor([rung.epsilon for rung in ladder.rungs], dtype=torch.float64)
    return (torch.searchsorted(epsilons, wanted) + 1).clamp(max=count)


def _check(
    victim: foolbox.Model, clips: "Clips", names: Sequence[str], ladders: Mapping[str, Ladder]
) -> None:
    """Refuse what cannot be climbed with, before the victim is asked anything."""
    x, label, target, starts = clips.x, clips.label, clips.target, clips.starts
    if not len(x) == len(label) == len(target) == len(names):
        raise ValueError(f"{len(x)} clips, {len(label)} labels, {len(target)} targets, {len(names)} names")
    if len(set(names)) != len(names):
        raise ValueError("two clips have the same name")
    if not ladders:
        raise ValueError("ladders are empty: there is no attack to climb")
    for criterion in (foolbox.Misclassification(label), foolbox.TargetedMisclassification(target)):
        check(victim, x, criterion)
    same = torch.nonzero(label == target)[:, 0]
    if len(same):
        raise ValueError(f"target differs from label: both are {int(label[same[0]])} for {names[same[0]]!r}")
    if starts is not None and starts.shape != x.shape:
        raise ValueError(f"starts are of the clips' shape, {tuple(x.shape)}, not {tuple(starts.shape)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Clips under attack: images, true and wanted classes, and where an attack may start; (n, …) each."""

    x: torch.Tensor
    label: torch.Tensor
    target: torch.Tensor
    starts: torch.Tensor | None

    def at(self, places: torch.Tensor, device: torch.device | None = None) -> "Clips":
        """Those at ``places``, on ``device``."""
        parts = [self.x, self.label, self.target, self.starts]
        return Clips(*(None if part is None else part[places].to(device or part.device) for part in parts))

    def digest(self, words: str) -> str:
        """A hash of ``words`` and of every value."""
        digest = hashlib.sha256(words.encode())
        for tensor in (self.x, self.label, self.target, self.starts):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class _Climb:
    """One attack's way up: the least example so far, what it cost, and where each clip stands."""

    def __init__(self, victim, device, name, ladder, clips, batch, keep, say):
        self.victim, self.device, self.name, self.ladder, self.clips = victim, device, name, ladder, clips
        self.batch, self.keep, self.say = batch, keep, say
        self.range = victim.bounds[1] - victim.bounds[0]
        n = len(clips.x)
        self.best, self.nearest = clips.x.clone(), clips.x.clone()
        self.measured = {column: torch.zeros(n, dtype=kind) for column, kind in MEASURED.items()}
        self.fooled, self.cut = torch.zeros(2, n, dtype=torch.bool)
        # Norms: of the best example, and of the nearest misclassified one as attack and as judge saw it.
        self.norm, self.met, self.any = torch.full((3, n), torch.inf, dtype=torch.float64)
        # The lowest rung that fooled and the highest that failed, from 1, and claims that the judge refused.
        self.rung, self.failed, self.refused = torch.zeros(3, n, dtype=torch.int64)
        self.budget, self.seconds = torch.zeros(2, n, dtype=torch.float64)
        self.spent = {cost: torch.zeros(n, dtype=torch.int64) for cost in COSTS}

    def settle(self, until: float, begin: torch.Tensor) -> Iterator[int]:
        """Climb; yields each clip's place once it is settled.

        ``begin`` : (n,) the rung, from 1, that each clip tries first. Where it fools, the clip goes down
        until a rung fails; else up until one fools. The rung that it ends at is that of a climb from the
        foot wherever no rung fools a clip that a higher one does not.
        """
        settled = torch.zeros_like(self.fooled)
        count = len(self.ladder.rungs)
        for number in range(count, 0, -1):
            self._try(number, (begin == number) | (self.rung == number + 1))
        for number in range(2, count + 1):
            if int((self.rung.clamp_min(1) < number).logical_and(self.fooled).sum()) > until * len(begin):
                break
            if not self.ladder.bisections:
                yield from torch.nonzero(self.fooled & ~settled)[:, 0].tolist()
                settled |= self.fooled
            self._try(number, ~self.fooled & (self.failed == number - 1))
        if self.ladder.bisections:
            yield from self._bisect()
            settled |= self.fooled
        yield from torch.nonzero(~settled)[:, 0].tolist()

    def _try(self, number: int, wanted: torch.Tensor) -> None:
        """Run a rung on the clips that are ``wanted``, (n,)."""
        rung = self.ladder.rungs[number - 1]
        for places in self._parts(torch.nonzero(wanted)[:, 0]):
            budgets = torch.tensor([[rung.epsilon], [rung.budget]], dtype=torch.float64)
            held = self._attempt(rung, places, *budgets.expand(2, len(places)), bisecting=False)
            self.rung[places[held]] = number
            self.failed[places[~held]] = self.failed[places[~held]].clamp_min(number)

    def _bisect(self) -> Iterator[int]:
        """Halve the gap between the last ε that failed and the least that fooled, clip by clip.

        The budget that the rows report is halved alike.
        """
        known = [[0.0, 0.0], *([rung.epsilon, rung.budget] for rung in self.ladder.rungs)]
        ends = torch.tensor(known, dtype=torch.float64).T
        for places in self._parts(torch.nonzero(self.fooled)[:, 0]):
            below, above = ends[:, self.rung[places] - 1], ends[:, self.rung[places]]
            for _ in range(self.ladder.bisections):
                middle = (below + above) / 2
                held = self._attempt(self.ladder.rungs[0], places, *middle, bisecting=True)
                above, below = torch.where(held, middle, above), torch.where(held, below, middle)
            yield from places.tolist()

    def _parts(self, places: torch.Tensor) -> Iterator[torch.Tensor]:
        """The places a batch at a time; the batch may shrink on the way."""
        while len(places):
            part = places[: self.batch]
            yield part
            places = places[len(part) :]

    def _attempt(
        self, rung: Rung, places: torch.Tensor, epsilon: torch.Tensor, budget: torch.Tensor, bisecting: bool
    ) -> torch.Tensor:
        """Attack the clips at ``places``, measure, and keep what is better: (k,) who was fooled."""
        words = repr([repr(rung), self.ladder.goal, self.ladder.probability, epsilon.tolist()])
        name = f"{self.name}/{self.clips.at(places).digest(words)}"
        piece = self.keep(name, lambda: self._work(rung, places, epsilon))
        for cost in COSTS:
            self.spent[cost][places] += piece[cost]
        self.seconds[places] += piece["seconds"]
        measured = self._judge(places, piece["example"])
        held = measured["fooled"]
        self._note(places, piece, measured)
        if bisecting:
            better = held & (measured["l2"] < self.norm[places])
            self.budget[places[held]] = budget[held]
        else:
            better = held | ~self.fooled[places]
            self.budget[places[better]] = budget[better]
        chosen = places[better]
        self.best[chosen] = piece["example"][better].to(self.best.device)
        self.cut[chosen] = piece["cut"][better]
        self.fooled[places] |= held
        self.norm[chosen] = torch.where(held[better], measured["l2"][better], torch.inf)
        for column, values in measured.items():
            self.measured[column][chosen] = values[better]
        return held

    def _judge(self, places: torch.Tensor, example: torch.Tensor) -> Tensors:
        here = self.clips.at(places, self.device)
        criterion = self.ladder.criterion(here.label, here.target)
        return measure(self.victim, here.x, example.to(self.device), criterion)

    def _note(self, places: torch.Tensor, piece: Tensors, measured: Tensors) -> None:
        """Claims that the judge refuses, and the nearest image of any wrong class."""
        self.refused[places] += piece["claimed"] & ~measured["fooled"] & (measured["l0"] > 0)
        wrong = measured["after"] != self.clips.label[places]
        norm = torch.where(wrong, measured["l2"], torch.inf)
        self.any[places] = torch.minimum(self.any[places], norm)
        nearer = piece["met"] < self.met[places]
        self.met[places[nearer]] = piece["met"][nearer]
        self.nearest[places[nearer]] = piece["nearest"][nearer].to(self.nearest.device)

    def _work(self, rung: Rung, places: torch.Tensor, epsilon: torch.Tensor) -> Tensors:
        """Examples and costs of the clips at ``places``; in halves where memory is too short for all."""
        try:
            return self._attack(rung, places, epsilon)
        except torch.OutOfMemoryError:
            if len(places) == 1:
                raise
        self.batch = -(-len(places) // 2)
        self.say(f"{self.name}: memory ran out, {self.batch} clips are attacked at once from here on")
        halves = zip(places.split(self.batch), epsilon.split(self.batch), strict=True)
        made = [self._work(rung, *half) for half in halves]
        return {name: torch.cat([half[name] for half in made]) for name in made[0]}

    def _attack(self, rung: Rung, places: torch.Tensor, epsilon: torch.Tensor) -> Tensors:
        """The attack itself, on all of these clips at once."""
        clips = self.clips.at(places, self.device)
        extra: dict[str, Any] = {}
        if isinstance(rung.attack, FixedEpsilonAttack):
            one = epsilon.unique() * self.range
            extra["epsilon"] = (
                float(one) if len(one) == 1 else (epsilon * self.range).to(self.device, clips.x.dtype)
            )
        if needs_start(self.ladder):
            extra["starting_points"] = clips.starts
        criterion = self.ladder.criterion(clips.label, clips.target)
        began = time.perf_counter()
        with counting() as ledger, watching(clips.x, clips.label) as witness:
            example = rung.attack.run(self.crafted, clips.x, criterion, **extra)
        seconds = time.perf_counter() - began
        costs = {cost: ledger.get(cost, torch.zeros(len(places), dtype=torch.int64)) for cost in COSTS}
        passes = 1.0 + costs["forwards"] + costs["backwards"] + costs["queries"]
        met = {"nearest": witness.image, "met": witness.norm.double()}
        met |= {"claimed": witness.claimed, "cut": witness.cut, "example": example.detach()}
        return {
            **{name: values.cpu() for name, values in met.items()},
            "seconds": (seconds * passes / passes.sum()).double(),
            **costs,
        }

    def rows(self) -> pd.DataFrame:
        """One row per clip: what was measured of its best example, and what was spent on it."""
        self._judge_nearest()
        measured = self.measured
        columns = {
            "label": self.clips.label,
            "target": self.clips.target,
            "after": measured["after"],
            "fooled": self.fooled,
            "reached": measured["after"] == self.clips.target,
            **{name: measured[name] for name in ("confidence", "l0", "l2", "linf", "rms")},
            "l2_any": self.any,
            **self.spent,
            "rung": self.rung,
            "budget": self.budget,
            "refused": self.refused,
            "seconds": self.seconds,
        }
        rows = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
        bound = np.where(self.fooled, np.where(self.cut, "at most", "exact"), "at least")
        rows.insert(list(rows).index("iterations"), "bound", bound)
        rows.insert(list(rows).index("refused"), "smallest", float(self.ladder.smallest * self.range))
        return rows

    def _judge_nearest(self) -> None:
        """Take the nearest image that an attack saw misclassified where the judge says so too."""
        nearer = self.met < self.any * (1 - _ROUNDING)
        for places in self._parts(torch.nonzero(nearer)[:, 0]):
            measured = self._judge(places, self.nearest[places])
            wrong = measured["after"] != self.clips.label[places]
            self.any[places[wrong]] = torch.minimum(self.any[places], measured["l2"])[wrong]


_ROUNDING = 1e-6  # of a norm in float32
_OVERHEAD = 1.5  # of a backward pass over what it keeps: the gradients on their way back
_COPIES = 12  # images that an attack holds beside its example: moments, the nearest so far, steps


def footprint(victim: foolbox.Model, x: torch.Tensor) -> float:
    """Bytes that attacking one clip takes, (1, …): what the victim keeps for a backward pass, and images.

    The weights are not counted; they are there once, whatever the batch.
    """
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        answer = victim(x.detach().requires_grad_())
    del answer
    return _OVERHEAD * sum(kept.values()) + _COPIES * x.nbytes
