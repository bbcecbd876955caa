"""One attack after another, each with as much budget as it needs and no more (Section VI of the paper).

A ladder is an attack at rising budgets. Every clip starts at the foot; a clip that is fooled leaves;
the climb ends once enough clips are fooled or there is no rung left. What an attack says of itself is
never believed: each example is measured again, in one pass of the victim.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import foolbox
import pandas as pd
import torch
from foolbox.attacks.base import FixedEpsilonAttack
from torch import nn

from lib.attacks.accounting import COSTS, counting
from lib.attacks.criteria import Confident
from lib.attacks.run import check, check_classes, whole

Tensors = dict[str, torch.Tensor]

MEASURED = {
    "fooled": torch.bool,
    "after": torch.int64,
    "confidence": torch.float64,
    "l0": torch.int64,
    "l2": torch.float64,
    "linf": torch.float64,
    "rms": torch.float64,
}
"""What :func:`measure` says of an example."""


@dataclasses.dataclass(frozen=True)
class Rung:
    """An attack at one budget.

    ``epsilon`` is what a fixed-ε attack is called with (0.0 for one that minimises its norm);
    ``budget`` is the number that the rows report: ε, or the hyper-parameter that the ladder climbs.
    """

    attack: foolbox.Attack
    budget: float
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The rungs of one attack, ascending.

    Parameters
    ----------
    goal : what counts as fooled: ``confident`` (the target, with ``probability``), ``target``, or
        ``wrong`` (any class but the label).
    bisections : how often the gap between the last failing and the first fooling ε is halved, clip by
        clip; for fixed-ε attacks that take one ε a clip, as ours do.
    """

    rungs: Sequence[Rung]
    goal: str
    probability: float = 0.75
    bisections: int = 0

    def criterion(self, label: torch.Tensor, target: torch.Tensor) -> foolbox.Criterion:
        match self.goal:
            case "confident":
                return Confident(target, self.probability)
            case "target":
                return foolbox.TargetedMisclassification(target)
            case "wrong":
                return foolbox.Misclassification(label)
        raise ValueError(f"a goal is confident, target or wrong, not {self.goal!r}")


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Finished pieces of a climb in a folder, so that a climb that was cut off goes on where it was.

    Parameters
    ----------
    folder : where the pieces lie.
    save, load : write and read a ``.safetensors`` file whole or not at all, as ``study.save`` and
        ``study.load`` do.
    version : names what the pieces rest on beside what :func:`climb` sees; a hash of the victim's file.
    """

    folder: Path
    save: Callable[[Path, Tensors], Any]
    load: Callable[[Path], tuple[Tensors, Any]]
    version: str = ""

    def __call__(self, name: str, work: Callable[[], Tensors]) -> Tensors:
        """The tensors of the piece ``name``: read where it is finished, else made and kept."""
        path = (
            Path(self.folder) / f"{hashlib.sha256(f'{self.version}/{name}'.encode()).hexdigest()}.safetensors"
        )
        if path.exists():
            return self.load(path)[0]
        made = work()
        self.save(path, made)
        return made

    def clear(self) -> None:
        """Remove the pieces, and what a kill left of one that was being written: what they made is saved."""
        for pattern in ("*.safetensors", ".*.safetensors.*"):
            for path in Path(self.folder).glob(pattern):
                path.unlink()
        if Path(self.folder).is_dir():
            Path(self.folder).rmdir()


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
    keep: Callable[[str, Callable[[], Tensors]], Tensors] | None = None,
    show: Sequence[str] | None = None,
    progress: Callable[..., Iterable] = lambda iterable, what, total=None: iterable,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Attack every clip that the victim names rightly, up each ladder until enough are fooled.

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
        where it lay if it was done before (:class:`Pieces`).
    show : the clips whose examples are returned; all of them where it is not given.
    progress : ``progress(iterable, what, total)`` goes through the clips of an attack as they settle.
    say : takes a line when a batch had to be made smaller. Which clips share a batch changes no result; a
        clip that is done may be charged a pass of those beside it.

    Returns
    -------
    rows : one a clip and attack, in the ladders' order: clip, attack, label, target, before and after
        (the classes named), fooled (the ladder's own criterion), reached (the target is named),
        confidence (of the class named after), l0, l2, linf, rms (of the change), iterations, forwards,
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
    if not len(x) == len(label) == len(target) == len(clips):
        raise ValueError(f"{len(x)} clips, {len(label)} labels, {len(target)} targets, {len(clips)} names")
    if len(set(clips)) != len(clips):
        raise ValueError("two clips have the same name")
    if not ladders:
        raise ValueError("ladders are empty: there is no attack to climb")
    if not 0 <= until <= 1:
        raise ValueError(f"until is a share of the clips, in [0, 1], not {until}")
    whole(batch=batch)
    criteria = foolbox.Misclassification(label), foolbox.TargetedMisclassification(target)
    for criterion in criteria:
        check(victim, x, criterion)
    same = torch.nonzero(label == target)[:, 0]
    if len(same):
        raise ValueError(f"target differs from label: both are {int(label[same[0]])} for {clips[same[0]]!r}")
    if starts is not None and starts.shape != x.shape:
        raise ValueError(f"starts are of the clips' shape, {tuple(x.shape)}, not {tuple(starts.shape)}")
    _check_mode(victim, x[:1].to(device))
    if memory:
        batch = min(batch, max(1, int(memory * 2**30 / footprint(victim, x[:1].to(device)))))
    logits = torch.cat([_logits(victim, part.to(device)) for part in x.split(batch)])
    before = logits.argmax(1).cpu()
    for criterion in criteria:
        check_classes(criterion, logits.shape[1])
    _check_still(victim, x[:batch].to(device))
    places = torch.nonzero(before == label)[:, 0]
    attacked = [clips[place] for place in places]
    shown = [n for n, clip in enumerate(attacked) if show is None or clip in set(show)]
    tables, examples = [], {}
    for name, ladder in ladders.items():
        one = _Climb(victim, name, ladder, x, label, target, starts, places, batch, keep, say, device)
        for _ in progress(one.settle(until), name, len(places)):
            pass
        rows = one.rows()
        rows.insert(0, "clip", attacked)
        rows.insert(1, "attack", name)
        rows.insert(4, "before", before[places].numpy())
        tables.append(rows)
        examples[name] = one.best[shown]
    return pd.concat(tables, ignore_index=True), examples


class _Climb:
    """One attack's way up: the least example so far, what it cost, and where each clip stands."""

    def __init__(self, victim, name, ladder, x, label, target, starts, places, batch, keep, say, device):
        if not ladder.rungs:
            raise ValueError(f"the ladder of {name} has no rung")
        self.victim, self.name, self.ladder, self.say, self.device = victim, name, ladder, say, device
        self.x, self.label, self.target = x[places], label[places], target[places]
        self.starts = starts[places] if starts is not None else None
        self.batch, self.keep = batch, keep or (lambda name, work: work())
        n = len(places)
        self.best = self.x.clone()
        self.measured = {column: torch.zeros(n, dtype=kind) for column, kind in MEASURED.items()}
        self.fooled, self.norm = (
            torch.zeros(n, dtype=torch.bool),
            torch.full((n,), torch.inf, dtype=torch.float64),
        )
        self.rung, self.budget = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.float64)
        self.spent = {cost: torch.zeros(n, dtype=torch.int64) for cost in COSTS}
        self.seconds = torch.zeros(n, dtype=torch.float64)

    def settle(self, until: float) -> Iterator[int]:
        """Climb; yields each clip's place once it is settled."""
        n, below = len(self.x), torch.zeros(2, len(self.x), dtype=torch.float64)
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

    def _parts(self, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The places a batch at a time; the batch may shrink on the way."""
        while len(places):
            part = places[: self.batch]
            yield part
            places = places[len(part) :]

    def _attempt(
        self, number: int, rung: Rung, places: torch.Tensor, epsilon: torch.Tensor, budget: torch.Tensor
    ) -> torch.Tensor:
        """Run one rung on the clips at ``places``, measure, and keep what is better."""
        words = [repr(rung), self.ladder.goal, self.ladder.probability, epsilon.tolist()]
        seen = [self.x[places], self.label[places], self.target[places]]
        seen += [self.starts[places]] if self.starts is not None else []
        digest = hashlib.sha256(repr(words).encode())
        for tensor in seen:
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        piece = self.keep(f"{self.name}/{digest.hexdigest()}", lambda: self._work(rung, places, epsilon))
        for cost in COSTS:
            self.spent[cost][places] += piece[cost]
        self.seconds[places] += piece["seconds"]
        measured = measure(
            self.victim,
            self.x[places].to(self.device),
            piece["example"].to(self.device),
            self.ladder.criterion(self.label[places].to(self.device), self.target[places].to(self.device)),
        )
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
        x = self.x[places].to(self.device)
        criterion = self.ladder.criterion(
            self.label[places].to(self.device), self.target[places].to(self.device)
        )
        extra: dict[str, Any] = {}
        if isinstance(rung.attack, FixedEpsilonAttack):
            one = epsilon.unique()
            extra["epsilon"] = float(one) if len(one) == 1 else epsilon.to(self.device, x.dtype)
        if getattr(rung.attack, "takes_starting_points", False):
            if self.starts is None:
                raise ValueError(f"{self.name} needs a starting point for every clip: pass starts")
            extra["starting_points"] = self.starts[places].to(self.device)
        began = time.perf_counter()
        with counting() as ledger:
            example = rung.attack.run(self.victim, x, criterion, **extra)
        seconds = time.perf_counter() - began
        costs = {cost: ledger.get(cost, torch.zeros(len(places), dtype=torch.int64)) for cost in COSTS}
        passes = 1.0 + costs["forwards"] + costs["backwards"] + costs["queries"]
        return {
            "example": example.detach().cpu(),
            "seconds": (seconds * passes / passes.sum()).double(),
            **costs,
        }

    def rows(self) -> pd.DataFrame:
        measured = self.measured
        return pd.DataFrame(
            {
                "label": self.label.numpy(),
                "target": self.target.numpy(),
                "after": measured["after"].numpy(),
                "fooled": self.fooled.numpy(),
                "reached": (measured["after"] == self.target).numpy(),
                **{c: measured[c].numpy() for c in ("confidence", "l0", "l2", "linf", "rms")},
                **{cost: self.spent[cost].numpy() for cost in COSTS},
                "rung": self.rung.numpy(),
                "budget": self.budget.numpy(),
                "seconds": self.seconds.numpy(),
            }
        )


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


def rms_rungs(
    attack: foolbox.Attack, first: float, rungs: int, size: tuple[int, int], *, l2: bool
) -> tuple[Rung, ...]:
    """A fixed-ε attack at RMS budgets that double from ``first``, for images of ``size``.

    ε is RMS · √(rows · frames) for an attack that measures ``l2``, RMS itself for one that measures ℓ∞.
    """
    if first <= 0 or rungs < 1:
        raise ValueError(f"a ladder begins above 0 and has a rung, not {first} and {rungs} rungs")
    unit = (size[0] * size[1]) ** 0.5 if l2 else 1.0
    return tuple(
        Rung(attack, budget, epsilon=budget) for budget in (first * 2**k * unit for k in range(rungs))
    )


def measure(
    victim: foolbox.Model, x: torch.Tensor, example: torch.Tensor, criterion: foolbox.Criterion
) -> Tensors:
    """What an example is, measured on it alone: one pass of the victim in full precision.

    Returns
    -------
    fooled (the criterion holds), after (class named), confidence (its probability), and the size of the
    change: l0 (values changed), l2, linf, rms (l2 over the root of the number of values).

    Raises
    ------
    ValueError : if the example leaves the bounds of the victim or is not finite.
    """
    low, high = victim.bounds
    if not (torch.isfinite(example).all() and low <= example.min() and example.max() <= high):
        raise ValueError(f"an attack returned values outside [{low:g}, {high:g}]")
    logits = _logits(victim, example)
    change = (example.double() - x.double()).flatten(1)
    confidence, after = logits.double().softmax(1).max(1)
    norm = torch.linalg.vector_norm(change, dim=1)
    measured = {
        "fooled": criterion(example, logits).bool(),
        "after": after,
        "confidence": confidence,
        "l0": (change != 0).sum(1),
        "l2": norm,
        "linf": change.abs().amax(1),
        "rms": norm / change.shape[1] ** 0.5,
    }
    return {name: values.cpu() for name, values in measured.items()}


_MOODY = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Layers whose answer in training mode depends on the batch or on chance."""


def _logits(victim: foolbox.Model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        return victim(x).float()


def _check_mode(victim: foolbox.Model, x: torch.Tensor) -> None:
    """Refuse a victim in training mode before the first pass through it, which would already change it.

    With one clip, or one at a time, batch statistics look like the victim's own, so no answer tells.
    """

    def refuse(module: nn.Module, args: Any) -> None:
        if module.training and isinstance(module, _MOODY):
            raise ValueError(
                f"the victim's {type(module).__name__} is in training mode: put the victim in evaluation mode"
            )

    handle = nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        _logits(victim, x)
    finally:
        handle.remove()


def _check_still(victim: foolbox.Model, x: torch.Tensor) -> None:
    """Refuse a victim whose answer for a clip depends on chance or on the rest of the batch."""
    together = _logits(victim, x)
    alone = _logits(victim, x[:1])
    scale = together.abs().max().clamp_min(1)
    if (together[:1] - alone).abs().max() > 1e-3 * scale:
        raise ValueError("the victim's answer depends on chance or on the batch: put it in evaluation mode")
