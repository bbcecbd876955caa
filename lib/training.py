"""One way to train a victim: the fit loop, in which all defences differ by a loss (Eq. 14).

Chapter 3 trains plainly, chapter 5 with a defence of :mod:`lib.defences`. Both hand over a victim, a
store of images and a split that says which rows train, validate and test; the test part is not looked at
here. Everything drawn depends on the seed and the epoch only, so that a run which was killed goes on
from its checkpoint as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import defences, files, models, reporting

TRAININGS = tuple(defences.DEFENCES)
"""The ``training`` axis: standard (chapter 3), adversarial, fgsm_rs, pgd, trades (chapter 5)."""

SCHEDULES = ("constant", "cosine", "onecycle")
PRECISIONS = ("auto", "float32", "bfloat16")

HISTORY = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "pgd_accuracy",
    "best",
)
"""Columns of what :func:`fit` returns, a row an epoch."""

WRITING = 0.02  # the share of the time that may go into checkpoints
DISK = 200e6  # bytes a second that a disk is believed to take before one has been measured


PACE = {"alexnet": 0.3, "vgg16": 0.1}
"""The share of the learning rate that a network without batch norm bears; 1 for the others."""

LOOK = 32  # on a GPU, steps between two looks at the loss, each of which waits for the device

NO_SETTINGS = ("model", "images", "split", "device", "checkpoint", "progress", "say")


class Diverged(ArithmeticError):
    """The loss became infinite or not a number; the model was left at its last good state."""


def fit(
    model: models.Victim,
    images: Any,
    split: pd.DataFrame,
    *,
    training: str = "standard",
    epochs: int = 50,
    batch: int = 32,
    learning_rate: float = 0.001,
    weight_decay: float = 0.01,
    schedule: str = "onecycle",
    patience: int = 0,
    smoothing: float = 0.0,
    shift: float = 0.0,
    share: float = 1.0,
    layers: str = "all",
    precision: str = "auto",
    budget: float = 2 / 255,
    alpha: float = 0.0,
    steps: int = 7,
    beta: float = 6.0,
    pgd_clips: int = 0,
    pgd_steps: int = 10,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: Callable = reporting.track,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Train ``model`` on the rows whose part is "train"; leave it, in evaluation mode, at its best state.

    Parameters
    ----------
    images : a store or a tensor: ``images[rows]`` is a float32 batch (n, 1, rows, frames) in [0, 1].
    split : a row an image with columns row, label and part (train, validation, test).
    training : which loss is descended, one of ``TRAININGS``.
    learning_rate : the peak of AdamW's; AlexNet and VGG-16 take a share of it (``PACE``).
    batch : images a step. When memory runs out a step is taken in halves, quarters, …, whose gradients
        are added; batch norm then sees the smaller parts.
    schedule : the learning rate over all steps: "constant"; "cosine" falls from its peak to 0; "onecycle"
        rises for the first 30 % and then falls as cosine does.
    patience : epochs without a better score before training stops; 0 never stops early.
    smoothing : the share of the label that is spread over all classes.
    shift : how far an image is moved along its frames, at random and circularly, as a share of them.
    share : of the training images that an epoch sees, drawn anew for each; with copies of a clip an epoch
        may then cost what the originals alone would.
    layers : "all" or "last", the layers that are trained.
    precision : of the passes that are learnt from: "float32"; "bfloat16", where weights, losses and their
        sums stay float32; "auto", bfloat16 on a GPU that has it. Validation is in float32 always.
    budget, alpha, steps, beta : of the defences; see ``defences.Settings``.
    pgd_clips : validation clips whose accuracy under PGD is taken after every epoch; 0 takes all, −1 none.
    pgd_steps : gradient steps of that PGD, within ``budget`` (ℓ∞).
    checkpoint : a file that a killed run goes on from. It is written after an epoch unless writing would
        cost more than a fiftieth of the time.
    say : takes a line an epoch.

    Returns
    -------
    The history, a row an epoch with the columns ``HISTORY``. Losses and accuracies of training are those of
    the examples that were trained on. The best state has the highest score on the validation part: clean
    accuracy for standard training, the mean of clean and PGD accuracy for a defence, the lower clean loss
    where scores are equal. ``history.attrs`` holds what differs from run to run: seconds an epoch, images a
    second, and in how many parts a step was taken.

    Raises
    ------
    ValueError : if a setting, the split or a label is out of range, before any epoch.
    Diverged : if the loss is not finite.
    """
    given = dict(locals())
    settings = {name: value for name, value in given.items() if name not in NO_SETTINGS}
    defence = _check(model, images, split, settings)
    device = torch.device(device)
    rows = {part: np.array(split.loc[split["part"] == part, "row"]) for part in ("train", "validation")}
    labels = {part: np.array(split.loc[split["part"] == part, "label"]) for part in rows}
    held = np.arange(len(rows["validation"]))
    held = held[:0] if pgd_clips < 0 else _spread(labels["validation"], pgd_clips or len(held), seed)
    models.to(model, device)
    for weight in model.parameters():
        weight.requires_grad_(layers == "all")
    for weight in model.head.parameters():
        weight.requires_grad_(True)
    run = _Run(
        model, settings, settings | {"device": device.type, "data": _fingerprint(model, images, split)}
    )
    if checkpoint is not None:
        run.resume(Path(checkpoint), say)
    run.best = run.best or _copy(model.state_dict())

    loss = functools.partial(_loss, smoothing=smoothing)
    peak = learning_rate * PACE.get(model.name, 1.0)
    seen = max(2, round(share * len(rows["train"])))
    per_epoch = math.ceil(seen / batch)
    start = len(run.history)
    ticks = progress(range((epochs - start) * per_epoch), f"{training} training, batches")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in range(start, epochs):
            if patience and run.since_best() >= patience:
                say(f"stopped: no better score for {patience} epochs")
                break
            begin = time.perf_counter()
            draw = np.random.default_rng([seed, epoch])
            torch.manual_seed(int(draw.integers(2**63)))
            order = draw.permutation(len(rows["train"]))[:seen]
            model.train(layers == "all")
            total = torch.zeros(2, dtype=torch.float64, device=device)
            batches = np.array_split(order, per_epoch)
            ahead = _ahead(images, [rows["train"][chosen] for chosen in batches], device)
            for index, (chosen, x) in enumerate(zip(batches, ahead, strict=True)):
                next(ticks, None)
                y = torch.from_numpy(labels["train"][chosen]).to(device, torch.long)
                x = _shifted(x, draw.integers(-_reach(x, shift), _reach(x, shift) + 1, len(x)))
                rate = peak * _height(schedule, (epoch * per_epoch + index) / (epochs * per_epoch))
                total += run.step(defence, x, y, loss, rate, say)
                if (device.type == "cpu" or index % LOOK == 0) and not torch.isfinite(total[0]):
                    break
            trained = time.perf_counter() - begin
            row = {"epoch": epoch + 1, "learning_rate": rate}
            row |= dict(zip(("train_loss", "train_accuracy"), (total / len(order)).tolist(), strict=True))
            if math.isfinite(row["train_loss"]):
                row |= _validate(model, images, rows["validation"], labels["validation"], held, settings)
            if not math.isfinite(row.get("validation_loss", math.nan)):
                model.load_state_dict(run.best)
                raise Diverged(
                    f"the loss was not finite in epoch {epoch + 1} at a learning rate of {rate:g}; the model "
                    f"is left as after epoch {run.best_epoch()}, its last good state; try a lower one"
                )
            run.add(row, time.perf_counter() - begin, len(order) / trained)
            say(_line(row, epochs))
            if checkpoint is not None:
                run.keep(Path(checkpoint))
    next(ticks, None)
    model.load_state_dict(run.best)
    for weight in model.parameters():
        weight.requires_grad_(True)
    model.eval()
    history = pd.DataFrame(run.history, columns=list(HISTORY))
    history["best"] = history["epoch"] == run.best_epoch()
    history.attrs = {"seconds": run.seconds, "images_per_second": run.rates, "parts": run.parts}
    return history


class _Run:
    """What a training is made of between two epochs: all that a checkpoint holds."""

    def __init__(
        self, model: models.Victim, settings: Mapping[str, Any], identity: Mapping[str, Any]
    ) -> None:
        self.model, self.settings = model, settings
        self.identity = json.loads(json.dumps(identity))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        groups = [  # biases and the scales of batch norm are not pulled to zero
            {"params": [w for w in weights if w.dim() > 1], "weight_decay": settings["weight_decay"]},
            {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings["learning_rate"], fused=True)
        self.history: list[dict] = []
        self.seconds: list[float] = []
        self.rates: list[float] = []
        self.best: dict[str, torch.Tensor] = {}
        self.parts = 1
        self.waited = 0.0  # s of training since the last checkpoint
        self.writes = 0.0  # s that the last checkpoint took; 0 before the first

    def step(
        self,
        defence: Callable,
        x: torch.Tensor,
        y: torch.Tensor,
        loss: Callable,
        rate: float,
        say: Callable[[str], None],
    ) -> torch.Tensor:
        """One step of the optimiser; gives the loss and the count of right answers, summed over images."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        numbers = defences.Settings(*(self.settings[name] for name in ("budget", "alpha", "steps", "beta")))
        while True:
            self.optimiser.zero_grad(set_to_none=True)
            total = torch.zeros(2, dtype=torch.float64, device=x.device)
            try:
                for part, label in zip(x.chunk(self.parts), y.chunk(self.parts), strict=True):
                    with _mixed(x.device, self.settings["precision"]):
                        value, logits = defence(self.model, part, label, loss, numbers)
                    (value * (len(part) / len(x))).backward()
                    right = (logits.detach().argmax(1) == label).sum()
                    total += torch.stack([value.detach().double() * len(part), right.double()])
            except torch.OutOfMemoryError:
                if self.parts >= len(x):
                    raise
                self.parts *= 2
                say(f"memory ran out: a step of {len(x)} images is taken in {self.parts} parts from here on")
                continue
            self.optimiser.step()
            return total

    def add(self, row: dict, seconds: float, rate: float) -> None:
        """Close an epoch."""
        scores = [self._score(earlier) for earlier in self.history]
        row["best"] = not scores or self._score(row) > max(scores)
        if row["best"]:
            self.best = _copy(self.model.state_dict())
        self.history.append(row)
        self.seconds.append(round(seconds, 3))
        self.rates.append(round(rate, 2))
        self.waited += seconds

    def _score(self, row: dict) -> tuple[float, float]:
        measured = [row["validation_accuracy"]]
        if self.settings["training"] != "standard" and not math.isnan(row["pgd_accuracy"]):
            measured.append(row["pgd_accuracy"])
        return sum(measured) / len(measured), -row["validation_loss"]

    def best_epoch(self) -> int:
        return max((row["epoch"] for row in self.history if row["best"]), default=0)

    def since_best(self) -> int:
        return len(self.history) - self.best_epoch()

    def keep(self, path: Path) -> None:
        """Write the checkpoint, if that is worth its time."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, weight in self.model.named_parameters():
            for what, tensor in self.optimiser.state.get(weight, {}).items():
                tensors[f"optimiser.{name}.{what}"] = tensor
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self.waited * WRITING < (self.writes or size / DISK):
            return
        begin = time.perf_counter()
        header = {
            "identity": self.identity,
            "history": self.history,
            "seconds": self.seconds,
            "rates": self.rates,
            "parts": self.parts,
        }
        files.save(path, (tensors, {"run": json.dumps(header)}))
        self.writes, self.waited = time.perf_counter() - begin, 0.0

    def resume(self, path: Path, say: Callable[[str], None]) -> None:
        """Go on from a checkpoint, if there is one and it is of this very run."""
        if not path.is_file():
            return
        try:
            tensors, metadata = files.load(path)
            header = json.loads(metadata["run"])
        except (ValueError, KeyError) as error:
            say(f"{path.name} cannot be read ({error}): training begins anew")
            return
        identity = header["identity"]
        if identity != self.identity:
            other = [name for name, value in self.identity.items() if identity.get(name) != value]
            say(f"{path.name} is of another run ({', '.join(other)} differ): training begins anew")
            return

        def of(what: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(what): t for name, t in tensors.items() if name.startswith(what)}

        self.model.load_state_dict(of("model."))
        device = next(self.model.parameters()).device
        self.best = {name: tensor.to(device) for name, tensor in of("best.").items()}
        self.history, self.seconds, self.rates = header["history"], header["seconds"], header["rates"]
        self.parts = header["parts"]
        for name, weight in self.model.named_parameters():
            state = of(f"optimiser.{name}.")
            if state:
                steps = state.pop("step").to(device)
                moments = {what: torch.empty_like(weight).copy_(t) for what, t in state.items()}
                self.optimiser.state[weight] = {"step": steps, **moments}
        say(f"goes on after epoch {len(self.history)}")


def _check(model: models.Victim, images: Any, split: pd.DataFrame, settings: Mapping[str, Any]) -> Callable:
    """Refuse what cannot work before anything is done; give the loss of the defence."""
    training = settings["training"]
    if training not in TRAININGS:
        raise ValueError(f"training = {training!r} is none of {', '.join(TRAININGS)}")
    if settings["schedule"] not in SCHEDULES:
        raise ValueError(f"schedule = {settings['schedule']!r} is none of {', '.join(SCHEDULES)}")
    if settings["precision"] not in PRECISIONS:
        raise ValueError(f"precision = {settings['precision']!r} is none of {', '.join(PRECISIONS)}")
    if settings["layers"] not in ("all", "last"):
        raise ValueError(f"layers = {settings['layers']!r} is neither all nor last")
    ranges = {
        "epochs": (1, math.inf),
        "batch": (2, math.inf),
        "learning_rate": (1e-12, math.inf),
        "weight_decay": (0, math.inf),
        "patience": (0, math.inf),
        "smoothing": (0, 0.99),
        "shift": (0, 0.5),
        "share": (1e-6, 1),
        "pgd_clips": (-1, math.inf),
        "pgd_steps": (1, math.inf),
    }
    for name, (low, high) in ranges.items():
        if not low <= settings[name] <= high:
            raise ValueError(f"{name} = {settings[name]} is outside [{low:g}, {high:g}]")
    defences.Settings(*(settings[name] for name in ("budget", "alpha", "steps", "beta")))
    _check_split(split, model.classes, len(images))
    shape = tuple(images[np.array(split["row"][:1])].shape)
    if shape != (1, 1, *model.size):
        raise ValueError(f"images are {shape[1:]}, but the model was built for {(1, *model.size)}")
    return defences.DEFENCES[training]


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


def _fingerprint(model: nn.Module, images: Any, split: pd.DataFrame) -> list[float]:
    """Numbers that change when the split, the images or the weights at the start do."""
    columns = [split["row"], split["label"], split["part"].map({"train": 0, "validation": 1, "test": 2})]
    crc = zlib.crc32(np.stack([column.to_numpy(np.int64) for column in columns]).tobytes())
    probe = images[np.array(split["row"][:8])].double().sum().item()
    start = sum(value.double().abs().sum().item() for value in model.state_dict().values())
    return [crc, probe, start]


def _spread(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of ``count`` labels, drawn so that every class is met before one is met twice more."""
    draw = np.random.default_rng([seed, 7])
    order = draw.permutation(len(labels))
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")][:count])


def _loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def _height(schedule: str, done: float) -> float:
    """The learning rate as a share of its peak, after a share ``done`` of all steps."""
    rise = {"constant": 0.0, "cosine": 0.0, "onecycle": 0.3}[schedule]
    if schedule == "constant":
        return 1.0
    if done < rise:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / rise)) / 2
    return (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


def _reach(x: torch.Tensor, shift: float) -> int:
    return int(shift * x.shape[-1])


def _shifted(x: torch.Tensor, frames: np.ndarray) -> torch.Tensor:
    """Every image moved along its last axis by its own number of frames, what leaves coming in again."""
    if not frames.any():
        return x
    width = x.shape[-1]
    index = (np.arange(width) - frames[:, None]) % width
    index = torch.from_numpy(index).to(x.device)[:, None, None, :].expand(*x.shape[:-1], width)
    return x.gather(-1, index)


def _ahead(images: Any, rows: list[np.ndarray], device: torch.device) -> Iterator[torch.Tensor]:
    """The batches on the device; on a GPU the next is read, into pinned memory, while one is learnt from."""
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


def _mixed(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The precision of a pass; bfloat16 has the range of float32, so the loss needs no scaling."""
    if precision == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if native else "float32"
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _validate(
    model: models.Victim,
    images: Any,
    rows: np.ndarray,
    labels: np.ndarray,
    held: np.ndarray,
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """Clean loss and accuracy over the validation part, PGD accuracy over the held batch."""
    logits, right = models.predict(model, images, rows), torch.from_numpy(labels)
    measured = {
        "validation_loss": nn.functional.cross_entropy(logits, right).item(),
        "validation_accuracy": (logits.argmax(1) == right).double().mean().item(),
        "pgd_accuracy": math.nan,
    }
    if len(held):
        within = {"budget": settings["budget"], "steps": settings["pgd_steps"], "seed": settings["seed"]}
        survived = pgd_right(model, images, rows[held], labels[held], **within)
        measured["pgd_accuracy"] = float(survived.mean())
    return measured


def pgd_right(
    model: models.Victim,
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
    """Which images are still named rightly under PGD: as they are, and at its end. Shape (n,), bool.

    The victim is met in evaluation mode and float32; an image's random start depends on ``seed`` and its
    row only. The batch is halved when memory runs out.
    """
    rows, labels = np.array(rows), np.array(labels)
    device = next(model.parameters()).device

    def withstood(chosen: np.ndarray) -> np.ndarray:
        x, y = images[rows[chosen]].to(device), torch.from_numpy(labels[chosen]).to(device, torch.long)
        seeds = [seed * 1_000_003 + int(row) for row in rows[chosen]]
        try:
            crafted = defences.measure(model, x, y, budget=budget, steps=steps, norm=norm, seeds=seeds)
        except torch.OutOfMemoryError:
            if len(chosen) == 1:
                raise
            crafted = None
        if crafted is None:
            reporting.note("batch halved to", str(-(-len(chosen) // 2)))
            return np.concatenate([withstood(half) for half in np.array_split(chosen, 2)])
        with torch.no_grad():
            right = [model(z).argmax(1) == y for z in (x, crafted)]
        return (right[0] & right[1]).cpu().numpy()

    parts = np.array_split(np.arange(len(rows)), math.ceil(len(rows) / batch) or 1)
    with defences.frozen(model):
        return np.concatenate([withstood(chosen) for chosen in parts])


def examine(
    model: models.Victim, images: Any, split: pd.DataFrame, clips: pd.DataFrame, *, part: str = "test"
) -> pd.DataFrame:
    """What the model names the images of a part, as they are.

    Returns
    -------
    A row an image: clip (its id), label, predicted, confidence (probability of what was predicted).
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


def even(splits: Mapping[str, pd.DataFrame], seed: int = 0) -> dict[str, pd.DataFrame]:
    """The splits with equally many images to train on, so that they differ by nothing else: a seeded draw."""
    least = min(((split["part"] == "train").sum() for split in splits.values()), default=0)
    made = {}
    for name, split in splits.items():
        train = np.flatnonzero(split["part"] == "train")
        kept = np.random.default_rng([seed, 11]).permutation(train)[:least]
        rest = np.flatnonzero(split["part"] != "train")
        made[name] = split.iloc[np.sort(np.concatenate([kept, rest]))].reset_index(drop=True)
    return made


def cost(history: pd.DataFrame) -> pd.DataFrame:
    """What a training took, a row an epoch: seconds in all, and images a second while it learnt."""
    return pd.DataFrame(
        {
            "epoch": history["epoch"],
            "seconds": history.attrs["seconds"],
            "images_per_second": history.attrs["images_per_second"],
        }
    )


def _line(row: Mapping[str, float], epochs: int) -> str:
    """What is said of an epoch."""
    words = [f"epoch {row['epoch']}/{epochs}", f"loss {row['train_loss']:.3f}"]
    words += [f"train {row['train_accuracy']:.1%}", f"validation {row['validation_accuracy']:.1%}"]
    if not math.isnan(row["pgd_accuracy"]):
        words.append(f"under PGD {row['pgd_accuracy']:.1%}")
    return ", ".join(words)
