"""One way to train a model: the fit loop, in which all defences differ by a loss (Eq. 14).

Chapter 3 trains without a defence, chapter 5 with one of :mod:`lib.defences`. Both pass a model, a store of
images, a split that says which rows train, validate and test, and a :class:`Recipe`; the test part is not
looked at here. Everything drawn depends on the seed and the epoch only, so that a training that was killed
goes on from its checkpoint and ends in the same state.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import defences, files, graphs, models, reporting
from lib import device as policy

HISTORY = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "pgd_accuracy",
    "best",
    "unfinished",
)
"""Columns of what :func:`fit` returns, one row per epoch."""

LEARNT = 0.8  # training accuracy below which a training is unfinished
LEARNT_ALL = 0.99  # training accuracy from which it is finished, however its loss falls
STILL_FALLING = 0.05  # of the loss per epoch; a training whose loss falls faster is unfinished
OVER = 3  # epochs over which the fall of the loss is averaged
CHECKPOINT_SHARE = 0.02  # of the time that may go into writing checkpoints
DISK_RATE = 200e6  # bytes per second assumed for the first checkpoint
CHECK_EVERY = 32  # on a GPU, steps between two checks of the loss, each of which waits for the device
EAGER_STEPS = 3  # on a GPU, steps of a batch size before it is recorded as a CUDA graph
RESIDENT = 0.25  # of the GPU memory of a cell that its images may take; larger stores are read batch by batch


class Diverged(ArithmeticError):
    """The loss became infinite or not a number; the model was left at its last good state."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(defences.Settings):
    """The settings of a training. A checkpoint is continued only by the same recipe.

    Parameters
    ----------
    training : the defence, a file of ``lib/defences``.
    learning_rate : the peak of AdamW's; a network without batch norm takes a share of it (its ``PACE``).
    batch : images per step. When memory runs out a step is taken in halves, quarters, …, whose gradients
        are added; batch norm then sees the smaller parts.
    schedule : the learning rate over all steps: "constant"; "cosine" falls from its peak to 0; "onecycle"
        rises for the first 30 % and then falls as cosine does.
    patience : epochs without a better score before training stops; 0 never stops early.
    smoothing : the share of the label that is spread over all classes.
    dropout : the share of values that the linear layers of a network without batch norm drop in a step;
        the other networks keep their own.
    shift : how far an image is moved along its frames, at random and circularly, as a share of them.
    share : of the training images that are used in an epoch, drawn anew for each; with copies of a clip an
        epoch may then cost what the originals alone would.
    layers : "all" or "last", the layers that are trained.
    precision : of the training passes, see `lib.device.resolve`; "auto" goes by device, model and size of
        image. Validation is always in float32.
    budget, alpha, steps, beta : of the defences; see ``defences.Settings``.
    pgd_clips : validation clips whose accuracy under PGD is measured after every epoch; 0 all, −1 none.
    pgd_steps : gradient steps of that PGD, within ``budget`` (ℓ∞).
    seed : of everything that is drawn.

    Raises
    ------
    ValueError : if a setting is unknown or out of range.
    """

    training: str = "standard"
    epochs: int = 50
    batch: int = 32
    learning_rate: float = 0.001
    weight_decay: float = 0.01
    schedule: str = "onecycle"
    patience: int = 0
    smoothing: float = 0.0
    dropout: float = 0.5
    shift: float = 0.0
    share: float = 1.0
    layers: str = "all"
    precision: str = "auto"
    pgd_clips: int = 0
    pgd_steps: int = 10
    seed: int = 0

    CHOICES = {  # noqa: RUF012
        "schedule": ("constant", "cosine", "onecycle"),
        "precision": policy.PRECISIONS,
        "layers": ("all", "last"),
    }

    def wrong(self) -> list[str]:
        found = {"training": defences.known(), **self.CHOICES}
        unknown = [
            f"{name} = {getattr(self, name)!r} is none of {', '.join(choices)}"
            for name, choices in found.items()
            if getattr(self, name) not in choices
        ]
        end = math.inf
        ends = {"learning_rate": (1e-12, end), "smoothing": (0, 0.99), "shift": (0, 0.5), "share": (1e-6, 1)}
        ends |= {"dropout": (0, 0.99)}
        ends |= {"epochs": (1, end), "batch": (2, end), "weight_decay": (0, end), "patience": (0, end)}
        ends |= {"pgd_clips": (-1, end), "pgd_steps": (1, end), "seed": (0, end)}
        return [*super().wrong(), *unknown, *defences.outside(self, **ends)]


def fit(
    model: models.Classifier,
    images: Any,
    split: pd.DataFrame,
    recipe: Recipe,
    *,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: Callable = reporting.track,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Train ``model`` on the rows whose part is "train"; leave it, in evaluation mode, at its best state.

    Parameters
    ----------
    images : a store or a tensor: ``images[rows]`` is a float32 batch (n, 1, rows, frames) in [0, 1].
    split : one row per image with columns row, label and part (train, validation, test).
    checkpoint : a file from which a killed training is continued. It is written after an epoch unless
        writing would cost more than a fiftieth of the time.
    say : takes one line per epoch.

    Returns
    -------
    The history, one row per epoch with the columns ``HISTORY``. Losses and accuracies of training are those
    of the examples that were trained on. The best state has the highest score on the validation part: clean
    accuracy for standard training, the mean of clean and PGD accuracy for a defence, the lower clean loss
    where scores are equal. ``unfinished`` says of each epoch whether a training that ended there would be;
    the last row is the training's own (:func:`unfinished`). ``history.attrs`` holds what differs from one
    execution to the next: seconds per epoch, images per second, and in how many parts a step was taken.

    Raises
    ------
    ValueError : if the split or a label is out of range, before any epoch.
    Diverged : if the loss is not finite.
    """
    device = torch.device(device)
    _check(model, images, split)
    _choose_layers(models.to(model, device), recipe.layers)
    if not model.normalised:
        _drop(model, recipe.dropout)
    state = _State(model, recipe, images, split)
    if device.type == "cuda" and images.nbytes < RESIDENT * policy.memory(device) * 2**30:
        images = images.to(device)
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None:
        state.resume(path, say)
    learner = _Learner(model, recipe, images, split[split["part"] == "train"], device, say)
    judge = _Judge(model, recipe, images, split[split["part"] == "validation"])
    left = range(len(state.history), recipe.epochs)
    ticks = progress(range(len(left) * learner.per_epoch), f"{recipe.training} training, batches")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in left:
            if recipe.patience and state.since_best() >= recipe.patience:
                say(f"stopped: no better score for {recipe.patience} epochs")
                break
            begin = time.perf_counter()
            row, rate = learner.epoch(epoch, state, ticks)
            row |= judge.measure() if math.isfinite(row["train_loss"]) else {}
            if not math.isfinite(row.get("validation_loss", math.nan)):
                state.stop_diverged(row)
            state.add(row, time.perf_counter() - begin, rate)
            say(_line(row, recipe.epochs))
            if path is not None:
                state.write(path)
    next(ticks, None)
    return state.finish()


def _choose_layers(model: models.Classifier, layers: str) -> None:
    """Let all layers learn, or the last one alone."""
    for weight in model.parameters():
        weight.requires_grad_(layers == "all")
    for weight in model.head.parameters():
        weight.requires_grad_(True)


def _drop(model: models.Classifier, share: float) -> None:
    """Let every layer of dropout drop that share of its values."""
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = share


class _State:
    """What a training consists of between two epochs: everything that a checkpoint holds."""

    def __init__(
        self,
        model: models.Classifier,
        recipe: Recipe,
        images: Any,
        split: pd.DataFrame,
    ) -> None:
        self.model, self.recipe = model, recipe
        identity = dataclasses.asdict(recipe) | {"data": _data_digest(model, images, split)}
        self.identity = json.loads(json.dumps(identity))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        groups = [  # weight decay acts on neither biases nor the scales of batch norm
            {"params": [w for w in weights if w.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
        ]
        cuda = weights[0].device.type == "cuda"  # there the rate is a tensor, so that a step can be recorded
        rate = torch.tensor(recipe.learning_rate, device=weights[0].device) if cuda else recipe.learning_rate
        self.optimiser = torch.optim.AdamW(groups, lr=rate, fused=True, capturable=cuda)
        self.history: list[dict] = []
        self.seconds: list[float] = []
        self.rates: list[float] = []
        self.best = _copy(model.state_dict())
        self.parts = 1
        self.unsaved = 0.0  # s of training since the last checkpoint
        self.writing = 0.0  # s that the last checkpoint took; 0 before the first

    def add(self, row: dict, seconds: float, rate: float) -> None:
        """Close an epoch."""
        scores = [self._score(earlier) for earlier in self.history]
        row["best"] = not scores or self._score(row) > max(scores)
        if row["best"]:
            self.best = _copy(self.model.state_dict())
        self.history.append(row)
        self.seconds.append(round(seconds, 3))
        self.rates.append(round(rate, 2))
        self.unsaved += seconds

    def _score(self, row: dict) -> tuple[float, float]:
        measured = [row["validation_accuracy"]]
        if self.recipe.training != "standard" and not math.isnan(row["pgd_accuracy"]):
            measured.append(row["pgd_accuracy"])
        return sum(measured) / len(measured), -row["validation_loss"]

    def best_epoch(self) -> int:
        return max((row["epoch"] for row in self.history if row["best"]), default=0)

    def since_best(self) -> int:
        return len(self.history) - self.best_epoch()

    def stop_diverged(self, row: dict) -> None:
        """Go back to the last good state, and say so."""
        self.model.load_state_dict(self.best)
        raise Diverged(
            f"the loss was not finite in epoch {row['epoch']} at a learning rate of "
            f"{row['learning_rate']:g}; the model is left as after epoch {self.best_epoch()}, its last good "
            f"state; try a lower one"
        )

    def finish(self) -> pd.DataFrame:
        """Leave the model at its best state; give the history."""
        self.model.load_state_dict(self.best)
        for weight in self.model.parameters():
            weight.requires_grad_(True)
        self.model.eval()
        history = pd.DataFrame(self.history, columns=list(HISTORY))
        history["best"] = history["epoch"] == self.best_epoch()
        history["unfinished"] = unfinished(history)
        history.attrs = {"seconds": self.seconds, "images_per_second": self.rates, "parts": self.parts}
        return history

    def write(self, path: Path) -> None:
        """Write the checkpoint, if that is worth its time."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, weight in self.model.named_parameters():
            for what, tensor in self.optimiser.state.get(weight, {}).items():
                tensors[f"optimiser.{name}.{what}"] = tensor
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self.unsaved * CHECKPOINT_SHARE < (self.writing or size / DISK_RATE):
            return
        begin = time.perf_counter()
        header = {name: getattr(self, name) for name in ("identity", "history", "seconds", "rates", "parts")}
        files.save(path, (tensors, {"training": json.dumps(header)}))
        self.writing, self.unsaved = time.perf_counter() - begin, 0.0

    def resume(self, path: Path, say: Callable[[str], None]) -> None:
        """Go on from a checkpoint, if there is one and it is of this very training."""
        if not path.is_file():
            return
        try:
            tensors, header = files.load(path)
            header = json.loads(header["training"])
        except (ValueError, KeyError) as error:
            say(f"{path.name} cannot be read ({error}): training begins anew")
            return
        found = header["identity"]
        if found != self.identity:
            other = [name for name, value in self.identity.items() if found.get(name) != value]
            say(f"{path.name} is of another training ({', '.join(other)} differ): training begins anew")
            return

        def of(what: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(what): t for name, t in tensors.items() if name.startswith(what)}

        self.model.load_state_dict(of("model."))
        device = next(self.model.parameters()).device
        self.best = {name: tensor.to(device) for name, tensor in of("best.").items()}
        self.history, self.seconds, self.rates = header["history"], header["seconds"], header["rates"]
        self.parts = header["parts"]
        for name, weight in self.model.named_parameters():
            moments = of(f"optimiser.{name}.")
            if moments:
                steps = moments.pop("step").to(device)
                moments = {what: torch.empty_like(weight).copy_(t) for what, t in moments.items()}
                self.optimiser.state[weight] = {"step": steps, **moments}
        say(f"goes on after epoch {len(self.history)}")


class _Learner:
    """The training part, one epoch after another."""

    def __init__(
        self,
        model: models.Classifier,
        recipe: Recipe,
        images: Any,
        part: pd.DataFrame,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.model, self.recipe, self.images, self.device, self.say = model, recipe, images, device, say
        self.rows = np.array(part["row"])
        self.labels = torch.tensor(part["label"].to_numpy(), dtype=torch.long, device=device)
        self.seen = max(2, round(recipe.share * len(part)))
        self.per_epoch = math.ceil(self.seen / recipe.batch)
        self.defence = defences.get(recipe.training)
        self.loss = functools.partial(_loss, smoothing=recipe.smoothing)
        self.reach = int(recipe.shift * model.size[1])  # frames
        values = model.size[0] * model.size[1]
        self.precision = policy.resolve(recipe.precision, device, values=values, bfloat16=model.bfloat16_pays)
        self.graphed = device.type == "cuda" and values < policy.LARGE
        self.taken: Counter[int] = Counter()  # steps of each batch size without a graph
        self.recorded: dict[int, _RecordedStep | None] = {}

    def epoch(self, epoch: int, state: _State, ticks: Iterator) -> tuple[dict, float]:
        """Take the steps of an epoch; its row of the history so far, and images per second."""
        recipe, begin = self.recipe, time.perf_counter()
        draw = np.random.default_rng([recipe.seed, epoch])
        torch.manual_seed(int(draw.integers(2**63)))
        order = draw.permutation(len(self.rows))[: self.seen]
        self.model.train(recipe.layers == "all")
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        batches = np.array_split(order, self.per_epoch)
        sizes = [len(chosen) for chosen in batches]
        shifts = [draw.integers(-self.reach, self.reach + 1, size) for size in sizes]
        read = _batches(self.images, [self.rows[chosen] for chosen in batches], self.device)
        labels = self.labels[torch.from_numpy(order).to(self.device)].split(sizes)
        shifts = torch.from_numpy(np.concatenate(shifts)).to(self.device).split(sizes)
        for index, (x, y, frames) in enumerate(zip(read, labels, shifts, strict=True)):
            next(ticks, None)
            x = _shifted(x, frames) if self.reach else x
            done = (epoch * self.per_epoch + index) / (recipe.epochs * self.per_epoch)
            rate = recipe.learning_rate * self.model.pace * _share_of_peak(recipe.schedule, done)
            total += self.step(state, x, y, rate)
            if (self.device.type == "cpu" or index % CHECK_EVERY == 0) and not torch.isfinite(total[0]):
                break
        loss, accuracy = (total / len(order)).tolist()
        row = {"epoch": epoch + 1, "learning_rate": rate, "train_loss": loss, "train_accuracy": accuracy}
        return row, len(order) / (time.perf_counter() - begin)

    def step(self, state: _State, x: torch.Tensor, y: torch.Tensor, rate: float) -> torch.Tensor:
        """One step of the optimiser; gives the loss and the count of right answers, summed over images."""
        for group in state.optimiser.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        while True:
            try:
                return (
                    self._recorded(state, x, y)
                    if self.graphed and state.parts == 1
                    else self.take(state, x, y)
                )
            except torch.OutOfMemoryError:
                if state.parts >= len(x):
                    raise
                state.parts *= 2
                self.say(
                    f"memory ran out: a step of {len(x)} images is taken in {state.parts} parts from here on"
                )

    def take(self, state: _State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The step itself, in as many parts as memory needs."""
        state.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros(2, dtype=torch.float64, device=x.device)
        for part, label in zip(x.chunk(state.parts), y.chunk(state.parts), strict=True):
            with policy.computing(self.precision):
                with policy.autocast(self.precision, x.device):
                    value, logits = self.defence(self.model, part, label, self.loss, self.recipe)
                (value * (len(part) / len(x))).backward()
            right = (logits.detach().argmax(1) == label).sum()
            total += torch.stack([value.detach().double() * len(part), right.double()])
        state.optimiser.step()
        return total

    def _recorded(self, state: _State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The step from a graph of its batch size; without one at first, and where it cannot be recorded."""
        size = len(x)
        if size not in self.recorded and self.taken[size] >= EAGER_STEPS:
            try:
                self.recorded[size] = _RecordedStep(functools.partial(self.take, state), x, y)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.recorded[size] = None
                self.say(f"steps of {size} images are not recorded as a CUDA graph: {error}")
        recorded = self.recorded.get(size)
        if recorded is not None:
            return recorded(x, y)
        self.taken[size] += 1
        return self.take(state, x, y)


class _RecordedStep:
    """A step on images and labels at a fixed place in memory."""

    def __init__(self, take: Callable, x: torch.Tensor, y: torch.Tensor) -> None:
        self.take, self.x, self.y = take, x.clone(), y.clone()
        self.replay = graphs.record(self._work, x.device)

    def _work(self) -> None:
        self.total = self.take(self.x, self.y)

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.x.copy_(x)
        self.y.copy_(y)
        self.replay()
        return self.total.clone()


class _Judge:
    """The validation part: clean loss and accuracy of all of it, PGD accuracy of a fixed selection."""

    def __init__(self, model: models.Classifier, recipe: Recipe, images: Any, part: pd.DataFrame) -> None:
        self.model, self.recipe, self.images = model, recipe, images
        self.rows, self.labels = np.array(part["row"]), np.array(part["label"])
        count = {0: len(part), -1: 0}.get(recipe.pgd_clips, recipe.pgd_clips)
        self.selected = _every_class(self.labels, count, recipe.seed)

    def measure(self) -> dict[str, float]:
        """The validation columns of a row of the history."""
        logits, label = models.predict(self.model, self.images, self.rows), torch.from_numpy(self.labels)
        measured = {
            "validation_loss": nn.functional.cross_entropy(logits, label).item(),
            "validation_accuracy": (logits.argmax(1) == label).double().mean().item(),
            "pgd_accuracy": math.nan,
        }
        if len(self.selected):
            chosen, recipe = self.selected, self.recipe
            within = {"budget": recipe.budget, "steps": recipe.pgd_steps, "seed": recipe.seed}
            correct = pgd_correct(self.model, self.images, self.rows[chosen], self.labels[chosen], **within)
            measured["pgd_accuracy"] = float(correct.mean())
        return measured


def _check(model: models.Classifier, images: Any, split: pd.DataFrame) -> None:
    """Refuse a split that cannot be trained on, and images of another size than the model's."""
    _check_split(split, model.classes, len(images))
    shape = tuple(images[np.array(split["row"][:1])].shape)
    if shape != (1, 1, *model.size):
        raise ValueError(f"images are {shape[1:]}, but the model was built for {(1, *model.size)}")


def _check_split(split: pd.DataFrame, classes: int, stored: int) -> None:
    for part in ("train", "validation", "test"):
        if not (split["part"] == part).any():
            raise ValueError(f"the split has no image in its {part} part: is there a clip in that fold?")
    if (split["part"] == "train").sum() < 2:
        raise ValueError("the split has a single image to train on")
    wrong = split.loc[~split["label"].between(0, classes - 1), "label"]
    if len(wrong):
        raise ValueError(f"label {wrong.iloc[0]} is outside 0 … {classes - 1}, the model's {classes} classes")
    wrong = split.loc[~split["row"].between(0, stored - 1), "row"]
    if len(wrong):
        raise ValueError(f"row {wrong.iloc[0]} of the split is not among the {stored} stored images")


def _data_digest(model: nn.Module, images: Any, split: pd.DataFrame) -> list[float]:
    """Numbers that change when the split, the images or the weights at the start do."""
    columns = [split["row"], split["label"], split["part"].map({"train": 0, "validation": 1, "test": 2})]
    crc = zlib.crc32(np.stack([column.to_numpy(np.int64) for column in columns]).tobytes())
    first = images[np.array(split["row"][:8])].cpu().double().sum().item()
    start = sum(value.cpu().double().abs().sum().item() for value in model.state_dict().values())
    return [crc, first, start]


def _every_class(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of ``count`` labels, drawn so that no class is drawn twice more than another."""
    draw = np.random.default_rng([seed, 7])
    order = draw.permutation(len(labels))
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")][:count])


def _loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def _share_of_peak(schedule: str, done: float) -> float:
    """The learning rate as a share of its peak, after a share ``done`` of all steps."""
    rise = {"constant": 0.0, "cosine": 0.0, "onecycle": 0.3}[schedule]
    if schedule == "constant":
        return 1.0
    if done < rise:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / rise)) / 2
    return (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


def _shifted(x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Every image moved circularly along its last axis by its own number of frames."""
    width = x.shape[-1]
    index = (torch.arange(width, device=x.device) - frames[:, None]) % width
    return x.gather(-1, index[:, None, None, :].expand(*x.shape[:-1], width))


def _batches(images: Any, rows: list[np.ndarray], device: torch.device) -> Iterator[torch.Tensor]:
    """The batches on the device; on a GPU the next is read, into pinned memory, during the step before."""
    if device.type == "cpu":
        for chosen in rows:
            yield images[chosen].to(device)
        return

    def read(chosen: np.ndarray) -> torch.Tensor:
        x = images[chosen]
        return x.pin_memory() if x.device.type == "cpu" else x

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, rows[0])
        for following in [*rows[1:], None]:
            x = coming.result()
            if following is not None:
                coming = reader.submit(read, following)
            yield x.to(device, non_blocking=True)


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def pgd_correct(
    model: models.Classifier,
    images: Any,
    rows: Sequence[int],
    labels: Sequence[int],
    *,
    budget: float,
    steps: int = 10,
    norm: str = "linf",
    seed: int = 0,
    batch: int = 32,
) -> np.ndarray:
    """Which images are classified correctly, both as they are and at the end of PGD. Shape (n,), bool.

    The model is in evaluation mode and float32; an image's random start depends on ``seed`` and its
    row only. The batch is halved when memory runs out.
    """
    rows, labels = np.array(rows), np.array(labels)
    device = next(model.parameters()).device

    def correct(chosen: np.ndarray) -> np.ndarray:
        x, y = images[rows[chosen]].to(device), torch.from_numpy(labels[chosen]).to(device, torch.long)
        seeds = [seed * 1_000_003 + int(row) for row in rows[chosen]]
        try:
            crafted = defences.pgd_examples(model, x, y, budget=budget, steps=steps, norm=norm, seeds=seeds)
        except torch.OutOfMemoryError:
            if len(chosen) == 1:
                raise
            crafted = None
        if crafted is None:
            reporting.note("batch halved to", str(-(-len(chosen) // 2)))
            return np.concatenate([correct(half) for half in np.array_split(chosen, 2)])
        with torch.no_grad():
            right = [model(z).argmax(1) == y for z in (x, crafted)]
        return (right[0] & right[1]).cpu().numpy()

    parts = np.array_split(np.arange(len(rows)), math.ceil(len(rows) / batch) or 1)
    with defences.frozen(model), policy.judging(device):
        return np.concatenate([correct(chosen) for chosen in parts])


def examine(
    model: models.Classifier, images: Any, split: pd.DataFrame, clips: pd.DataFrame, *, part: str = "test"
) -> pd.DataFrame:
    """How the model classifies the images of a part, as they are.

    Returns
    -------
    One row per image: clip (its id), label, predicted, confidence (probability of the class predicted).
    """
    chosen = split[split["part"] == part]
    probability, predicted = models.predict(model, images, chosen["row"]).softmax(1).max(1)
    return pd.DataFrame(
        {
            "clip": clips["clip"].to_numpy()[chosen["position"]],
            "label": chosen["label"].to_numpy(),
            "predicted": predicted.numpy(),
            "confidence": probability.numpy(),
        }
    )


def unfinished(history: pd.DataFrame) -> pd.Series:
    """Whether a training that ended after each epoch is too short to be judged: it is marked in every table.

    It is unfinished if its training accuracy in that epoch is below 80 %, or if the training loss still falls
    by more than 5 % per epoch, as the geometric mean of the last three falls, unless that accuracy is 99 %.
    """
    accuracy, loss = history["train_accuracy"], history["train_loss"]
    earlier = loss.shift(OVER).fillna(loss.iloc[0]) if len(loss) else loss
    epochs = np.minimum(np.arange(len(loss)), OVER)
    fall = 1 - (loss / earlier) ** (1 / np.maximum(epochs, 1))
    return (accuracy < LEARNT) | ((accuracy < LEARNT_ALL) & ((fall > STILL_FALLING) | (epochs == 0)))


def equally_many(splits: Mapping[str, pd.DataFrame], seed: int = 0) -> dict[str, pd.DataFrame]:
    """The splits with as many images to train on as the smallest has, so that they differ by nothing else."""
    least = min(((split["part"] == "train").sum() for split in splits.values()), default=0)
    made = {}
    for name, split in splits.items():
        train = np.flatnonzero(split["part"] == "train")
        kept = np.random.default_rng([seed, 11]).permutation(train)[:least]
        rest = np.flatnonzero(split["part"] != "train")
        made[name] = split.iloc[np.sort(np.concatenate([kept, rest]))].reset_index(drop=True)
    return made


def cost(history: pd.DataFrame) -> pd.DataFrame:
    """The cost of a training, one row per epoch: seconds in all, and images per second of its steps."""
    return pd.DataFrame(
        {
            "epoch": history["epoch"],
            "seconds": history.attrs["seconds"],
            "images_per_second": history.attrs["images_per_second"],
        }
    )


def _line(row: Mapping[str, float], epochs: int) -> str:
    """What is reported of an epoch."""
    words = [f"epoch {row['epoch']}/{epochs}", f"loss {row['train_loss']:.3f}"]
    words += [f"train {row['train_accuracy']:.1%}", f"validation {row['validation_accuracy']:.1%}"]
    if not math.isnan(row["pgd_accuracy"]):
        words.append(f"under PGD {row['pgd_accuracy']:.1%}")
    return ", ".join(words)
