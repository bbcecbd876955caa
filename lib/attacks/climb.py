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
import pandas as pd
import torch
from foolbox.attacks.base import FixedEpsilonAttack

from lib.attacks.accounting import COSTS, counting
from lib.attacks.call import check, check_classes
from lib.attacks.judge import MEASURED, Tensors, answers, check_mode, check_still, measure
from lib.attacks.ladder import Ladder, Rung
from lib.attacks.ranges import not_negative, share, whole


def climb(
    victim: foolbox.Model,
    x: torch.Tensor,
    label: torch.Tensor,
    target: torch.Tensor,
    clips: Sequence[str],
    ladders: Mapping[str, Ladder],
    *,
    until: float = 0.9,
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
        confidence (of the class predicted after), l0, l2, linf, rms (of the change), iterations, forwards,
        backwards, queries (spent on all rungs), rung (the one that fooled, from 1; 0 if none), budget
        (of that rung, or of the last one tried), seconds.
    examples : attack to (m, 1, rows, frames), the least change found for each clip of ``show`` that was
        attacked, in the order of ``clips``; the last attempt where none fooled.

    Raises
    ------
    ValueError : if an argument cannot be climbed with, naming it and what was found; if a target is its
        clip's label; if the victim is in training mode.
    """
    device = getattr(victim, "device", x.device)
    label, target = torch.as_tensor(label), torch.as_tensor(target)
    _check(victim, x, label, target, clips, ladders, starts)
    share(until=until)
    not_negative(memory=memory)
    whole(batch=batch)
    check_mode(victim, x[:1].to(device))
    if memory:
        batch = min(batch, max(1, int(memory * 2**30 / footprint(victim, x[:1].to(device)))))
    logits = torch.cat([answers(victim, part.to(device)) for part in x.split(batch)])
    for criterion in (foolbox.Misclassification(label), foolbox.TargetedMisclassification(target)):
        check_classes(criterion, logits.shape[1])
    check_still(victim, x[:batch].to(device))
    before = logits.argmax(1).cpu()
    places = torch.nonzero(before == label)[:, 0]
    attacked = [clips[place] for place in places]
    shown = [n for n, clip in enumerate(attacked) if show is None or clip in set(show)]
    group = Clips(x, label, target, starts).at(places)
    tables, examples = [], {}
    for name, ladder in ladders.items():
        one = _Climb(victim, device, name, ladder, group, batch, keep, say)
        for _ in progress(one.settle(until), name, len(places)):
            pass
        rows = one.rows()
        rows.insert(0, "clip", attacked)
        rows.insert(1, "attack", name)
        rows.insert(4, "before", before[places].numpy())
        tables.append(rows)
        examples[name] = one.best[shown]
    return pd.concat(tables, ignore_index=True), examples


def _check(
    victim: foolbox.Model,
    x: torch.Tensor,
    label: torch.Tensor,
    target: torch.Tensor,
    clips: Sequence[str],
    ladders: Mapping[str, Ladder],
    starts: torch.Tensor | None,
) -> None:
    """Refuse what cannot be climbed with, before the victim is asked anything."""
    if not len(x) == len(label) == len(target) == len(clips):
        raise ValueError(f"{len(x)} clips, {len(label)} labels, {len(target)} targets, {len(clips)} names")
    if len(set(clips)) != len(clips):
        raise ValueError("two clips have the same name")
    if not ladders:
        raise ValueError("ladders are empty: there is no attack to climb")
    for criterion in (foolbox.Misclassification(label), foolbox.TargetedMisclassification(target)):
        check(victim, x, criterion)
    same = torch.nonzero(label == target)[:, 0]
    if len(same):
        raise ValueError(f"target differs from label: both are {int(label[same[0]])} for {clips[same[0]]!r}")
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
        n = len(clips.x)
        self.best = clips.x.clone()
        self.measured = {column: torch.zeros(n, dtype=kind) for column, kind in MEASURED.items()}
        self.fooled = torch.zeros(n, dtype=torch.bool)
        self.norm = torch.full((n,), torch.inf, dtype=torch.float64)
        self.rung, self.budget = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.float64)
        self.spent = {cost: torch.zeros(n, dtype=torch.int64) for cost in COSTS}
        self.seconds = torch.zeros(n, dtype=torch.float64)

    def settle(self, until: float) -> Iterator[int]:
        """Climb; yields each clip's place once it is settled."""
        n = len(self.clips.x)
        below = torch.zeros(2, n, dtype=torch.float64)
        above = torch.zeros_like(below)  # ε and budget of the rung tried last; below, of the last that failed
        for number, rung in enumerate(self.ladder.rungs, start=1):
            waiting = torch.nonzero(~self.fooled)[:, 0]
            if len(waiting) == 0 or n - len(waiting) > until * n:
                break
            above[:, waiting] = torch.tensor([[rung.epsilon], [rung.budget]], dtype=torch.float64)
            for places in self._parts(waiting):
                self._attempt(number, rung, places, *above[:, places])
                if not self.ladder.bisections:
                    yield from places[self.fooled[places]].tolist()
            below[:, ~self.fooled] = above[:, ~self.fooled]
        if self.ladder.bisections:
            yield from self._bisect(torch.nonzero(self.fooled)[:, 0], below, above)
        yield from torch.nonzero(~self.fooled)[:, 0].tolist()

    def _bisect(self, fooled: torch.Tensor, below: torch.Tensor, above: torch.Tensor) -> Iterator[int]:
        """Halve the gap between the last ε that failed and the least that fooled, clip by clip.

        ``below``, ``above`` : (2, n) ε and the budget that the rows report for it, which is halved alike.
        """
        for places in self._parts(fooled):
            for _ in range(self.ladder.bisections):
                middle = (below[:, places] + above[:, places]) / 2
                held = self._attempt(0, self.ladder.rungs[0], places, *middle)
                above[:, places] = torch.where(held, middle, above[:, places])
                below[:, places] = torch.where(held, below[:, places], middle)
            yield from places.tolist()

    def _parts(self, places: torch.Tensor) -> Iterator[torch.Tensor]:
        """The places a batch at a time; the batch may shrink on the way."""
        while len(places):
            part = places[: self.batch]
            yield part
            places = places[len(part) :]

    def _attempt(
        self, number: int, rung: Rung, places: torch.Tensor, epsilon: torch.Tensor, budget: torch.Tensor
    ) -> torch.Tensor:
        """Run one rung on the clips at ``places``, measure, and keep what is better."""
        clips = self.clips.at(places)
        words = repr([repr(rung), self.ladder.goal, self.ladder.probability, epsilon.tolist()])
        piece = self.keep(f"{self.name}/{clips.digest(words)}", lambda: self._work(rung, places, epsilon))
        for cost in COSTS:
            self.spent[cost][places] += piece[cost]
        self.seconds[places] += piece["seconds"]
        here = self.clips.at(places, self.device)
        criterion = self.ladder.criterion(here.label, here.target)
        measured = measure(self.victim, here.x, piece["example"].to(self.device), criterion)
        held = measured["fooled"]
        if number:
            better = held | ~self.fooled[places]
            self.rung[places[held]] = number
            self.budget[places] = budget
        else:
            better = held & (measured["l2"] < self.norm[places])
            self.budget[places[held]] = budget[held]
        chosen = places[better]
        self.best[chosen] = piece["example"][better].to(self.best.device)
        self.fooled[places] |= held
        self.norm[chosen] = torch.where(held[better], measured["l2"][better], torch.inf)
        for column, values in measured.items():
            self.measured[column][chosen] = values[better]
        return held

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
            one = epsilon.unique()
            extra["epsilon"] = float(one) if len(one) == 1 else epsilon.to(self.device, clips.x.dtype)
        if getattr(rung.attack, "takes_starting_points", False):
            if clips.starts is None:
                raise ValueError(f"{self.name} needs a starting point for every clip: pass starts")
            extra["starting_points"] = clips.starts
        criterion = self.ladder.criterion(clips.label, clips.target)
        began = time.perf_counter()
        with counting() as ledger:
            example = rung.attack.run(self.victim, clips.x, criterion, **extra)
        seconds = time.perf_counter() - began
        costs = {cost: ledger.get(cost, torch.zeros(len(places), dtype=torch.int64)) for cost in COSTS}
        passes = 1.0 + costs["forwards"] + costs["backwards"] + costs["queries"]
        shares = (seconds * passes / passes.sum()).double()
        return {"example": example.detach().cpu(), "seconds": shares, **costs}

    def rows(self) -> pd.DataFrame:
        """One row per clip: what was measured of its best example, and what was spent on it."""
        measured = self.measured
        columns = {
            "label": self.clips.label,
            "target": self.clips.target,
            "after": measured["after"],
            "fooled": self.fooled,
            "reached": measured["after"] == self.clips.target,
            **{name: measured[name] for name in ("confidence", "l0", "l2", "linf", "rms")},
            **self.spent,
            "rung": self.rung,
            "budget": self.budget,
            "seconds": self.seconds,
        }
        return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


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
