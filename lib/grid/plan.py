"""What a grid will take: hours, operations, disk and memory (``make plan``).

A cell's work is counted in forward passes of its network: those of an image, times the images, epochs and
steps that its settings ask for at the most. Attacks that succeed early and trainings that stop early take
less: *likely* is the share of it that finished cells of the data set took. Where none has run, it is that of
``passes.csv`` for attacks (ESC-10 at 64 × 128: by the bench with the ladders of ``params/esc50``, or from
published rows) and all of it for trainings. Finished cells of the same chapter say how many seconds a unit of
work takes; for a GPU on which none has run yet, ``h100.csv`` does: measured on one H100, gradients in TF32,
trainings in TF32 and in bfloat16.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lib import files, names, study
from lib.grid import axes, receipts, settings, status
from lib.store import heights

CLIPS = {"demo": 400, "esc10": 400, "esc50": 2000, "urbansound8k": 8732}  # as published, before chapter 1 ran
CLASSES = {"esc50": 50}  # of a data set; ten where nothing is said
BASES, TONNETZ = 2, 6  # images of a clip in the store, STFT and scalogram, and rows of tonnetz
TRAINED = 0.6  # of the clips: three folds of five
GRADIENT = 3  # passes: a backward one costs two forward ones
SAMPLE = 18  # values of images that a sample of sound costs as much as (measured)
LEAKY = 5  # trainings of a cell that measures the leaks, instead of one
DEVICES = ("cpu", "gpu")
EVERY = (*names.ATTACKS, *names.REFERENCE, *names.CONTROLS)
IMAGES, ATTACKS, BEYOND = "02_features", "04_attacks", "07_beyond"
TRAINS = "03_training", "05_adversarial_training"

Point = tuple[study.Cell, str]
"""A cell's point and its chapter."""


class Planner:
    """What the settings of a grid ask for.

    Parameters
    ----------
    params : the folder of settings.
    points : the cells of the grid; those of chapter 2 share their work.
    """

    def __init__(self, params: Path, points: Sequence[Point] = ()) -> None:
        self.params = params
        self.points = points
        self.known: dict[tuple[str, str], dict[str, Any]] = {}
        self.shares: dict[tuple[str, str], float] = {}

    def settings(self, dataset: str, chapter: str) -> dict[str, Any]:
        """A chapter's parameters for a data set: its defaults under the settings file."""
        if (dataset, chapter) not in self.known:
            _, known, given = settings.of_chapter(chapter, self.params / dataset)
            self.known[dataset, chapter] = known | given
        return self.known[dataset, chapter]

    def size(self, dataset: str, representation: str) -> tuple[int, int]:
        """Rows and frames of an image."""
        values = self.settings(dataset, IMAGES)
        return sum(heights(representation, values["bins"]).values()), values["frames"]

    def share(self, dataset: str, name: str, values: Mapping[str, Any]) -> float:
        """What an attack, or a training's chapter, is likely to take of its most passes, as it is set."""
        known = self.shares.get((dataset, name))
        return _measured(name, values) if known is None else known

    def work(self, point: Point, given: Mapping[str, Any] | None = None, *, likely: bool = False) -> float:
        """Operations of a network; in chapter 2 values of sounds and images, in chapters 1 and 6 clips.

        Parameters
        ----------
        given : the parameters that a finished cell had, where they are not today's.
        likely : what is likely, instead of the most.
        """
        cell, chapter = point
        values = self.settings(cell.dataset, chapter) | (given or {})
        clips = count_clips(cell.up(1))
        if chapter == IMAGES:  # the first cell makes the images of all
            images = BASES * values["bins"] * values["frames"]
            samples = SAMPLE * values["duration"] * values["stft_rate"]
            cells = sum(name == IMAGES and other.dataset == cell.dataset for other, name in self.points)
            return clips * (1 + len(values["factors"])) * (samples + images) / max(1, cells)
        victim = self.victim(point, values)
        if not victim:
            return clips
        return self.passes(point, values, likely=likely) * operations(victim, self.size(*victim[:2]))

    def victim(self, point: Point, values: Mapping[str, Any]) -> tuple[str, str, str] | None:
        """Data set, representation and model that a cell computes with, if any."""
        cell, chapter = point
        if chapter == BEYOND:
            return cell.dataset, "dwt", values["heard"]
        return (cell.dataset, cell.representation, cell.model) if cell.model else None

    def passes(self, point: Point, values: Mapping[str, Any], *, likely: bool = False) -> float:
        """Forward passes of one image that a cell costs, at the most or likely; a gradient is three."""
        cell, chapter = point
        clips = count_clips(cell.up(1))
        if chapter == ATTACKS:
            shares = {name: self.share(cell.dataset, name, values) if likely else 1.0 for name in EVERY}
            climbed = ladders(values, self.size(cell.dataset, cell.representation))
            each = sum(most(ladder) * shares[name] for name, ladder in climbed.items())
            return evaluated(point, values) * each
        if chapter == BEYOND:
            waves = 2 * values["wave_steps"] * len(values["levels"])  # as it is, and with a raised floor
            return values["clips"] * (values["bim_steps"] + values["round_trip_steps"] + waves) * GRADIENT
        copies = 1 + len(self.settings(cell.dataset, IMAGES)["factors"])
        steps = values.get("steps", 1) if cell.training in ("pgd", "trades") else cell.training != "standard"
        epoch = values["share"] * TRAINED * clips * copies * (GRADIENT + 2 * steps)
        tried = [
            max(0, values[name] or clips // 5) for name in ("pgd_clips", "tried_clips") if name in values
        ]
        each, once = [2 * values["pgd_steps"] * number for number in tried] or [0, 0]
        epochs = epochs_of(cell.model, values) * (
            self.share(cell.dataset, chapter, values) if likely else 1.0
        )
        leaky = f"{cell.representation}/{cell.model}/{cell.fold}" == values.get("leaks_at")
        return (epochs * (epoch + each) + once) * (LEAKY if leaky else 1)

    def on_card(self, point: Point, *, likely: bool = False) -> float:
        """Seconds on one H100, by the model's rate at the nearest size, in proportion to the values."""
        values = self.settings(point[0].dataset, point[1])
        victim = self.victim(point, values)
        if not victim:
            return math.nan
        table = pd.read_csv(Path(__file__).with_name("h100.csv"))
        table = table[table["model"] == victim[2]] if victim[2] in set(table["model"]) else table
        rows, frames = self.size(*victim[:2])
        ratio = rows * frames / (table["rows"] * table["frames"])
        nearest = ratio.map(lambda x: max(x, 1 / x)).idxmin()
        if point[1] not in TRAINS:
            kind = "gradients_per_s"
        elif _in_bfloat16(victim, values, rows * frames):
            kind = "trained_in_bfloat16_per_s"
        else:
            kind = "trained_per_s"
        rate = table.loc[nearest, kind]
        return self.passes(point, values, likely=likely) / GRADIENT / rate * ratio[nearest]

    def disk(self) -> tuple[float, float]:
        """Bytes of the images and of the models that the cells will write."""
        images = 0.0
        for cell in {cell.up(1) for cell, _ in self.points}:
            values = self.settings(cell.dataset, IMAGES)
            rows = BASES * values["bins"] + TONNETZ
            images += count_clips(cell) * (1 + len(values["factors"])) * rows * values["frames"]
        return images, sum(4.0 * _weights(cell.model) for cell, chapter in self.points if chapter in TRAINS)


@functools.cache
def count_clips(cell: study.Cell) -> int:
    """Clips of a data set, by chapter 1 or as published.

    Raises
    ------
    ValueError : if chapter 1 has not run on a data set of one's own.
    """
    name, manifest = cell.dataset, cell.up(1).path("clips.parquet")
    if manifest.is_file():
        return len(files.load(manifest))
    if name not in CLIPS:
        raise ValueError(f"the clips of {name} are not counted yet; 'make data DATASETS={name}' counts them")
    return CLIPS[name]


def evaluated(point: Point, values: Mapping[str, Any]) -> int:
    """Clips of a cell of chapter 4; those that the model misclassifies are not attacked."""
    return values["clips"] or count_clips(point[0].up(1)) // 5


def epochs_of(model: str, values: Mapping[str, Any]) -> int:
    """Epochs that a training has at the most."""
    slow = values.get("slow_epochs") and not normalised(model)
    return values["slow_epochs" if slow else "epochs"]


@functools.cache
def normalised(model: str) -> bool:
    """Whether a model has batch norm; one without may be trained for more epochs."""
    from torch import nn

    from lib import models

    return any(isinstance(layer, nn.BatchNorm2d) for layer in models.outline(model).modules())


def _in_bfloat16(victim: tuple[str, str, str], values: Mapping[str, Any], size: int) -> bool:
    """Whether a GPU trains a model on images of so many values in bfloat16 (`lib.device.resolve`)."""
    from lib import device, models

    if values["precision"] != "auto":
        return values["precision"] == "bfloat16"
    return size >= device.LARGE and getattr(models.module(victim[2]), "BFLOAT16_PAYS", True)


def _measured(name: str, values: Mapping[str, Any]) -> float:
    """Share of its most passes that an attack took, by the row with the most settings that are all given."""
    given = {f"{key} = {value}" for key, value in values.items()}
    rows = [
        (setting.split("; ") if setting else [], share) for setting, share in _shares().get(name, {}).items()
    ]
    fitting = [(len(settings), share) for settings, share in rows if given.issuperset(settings)]
    return max(fitting, default=(0, 1.0), key=lambda row: row[0])[1]


@functools.cache
def _shares() -> dict[str, dict[str, float]]:
    """Of each attack the shares by setting."""
    rows = pd.read_csv(Path(__file__).with_name("passes.csv"), keep_default_na=False).groupby("attack")
    return {attack: mine.set_index("setting")["share"].to_dict() for attack, mine in rows}


@functools.cache
def operations(victim: tuple[str, str, str], size: tuple[int, int]) -> float:
    """Operations of a forward pass of one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lib import models

    network = models.outline(victim[2], CLASSES.get(victim[0], 10), 1).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 1, *size, device="meta"))
    return counter.get_total_flops()


@functools.cache
def _weights(model: str) -> int:
    from lib import models

    return models.parameters(models.outline(model, 10, 1))


def ladders(values: Mapping[str, Any], size: tuple[int, int], asked: Sequence[str] = EVERY) -> dict[str, Any]:
    """The ladders of attacks (:class:`lib.attacks.Ladder`), by the settings of chapter 4."""
    from lib import attacks

    given = {name: value for name, value in values.items() if name.startswith(names.settings(asked))}
    return attacks.ladders(size, only=asked, **given)


def most(ladder: Any) -> float:
    """Forward passes that a clip costs if only the end of the last rung fools it; a gradient is three."""
    last = ladder.rungs[-1].attack
    tries = [*ladder.rungs, *[ladder.rungs[-1]] * ladder.bisections]
    return sum(_passes(rung.attack) for rung in tries) + GRADIENT * getattr(last, "search", 0)


def _passes(attack: Any) -> float:
    """Of all steps of an attack; one that the study does not know asks for one gradient a step."""
    kind, steps = type(attack).__name__, getattr(attack, "steps", 1)
    if kind == "PIA":
        # A step tries the ball once, asks its samples, and tries up to ten times; σ is chosen once.
        asked = steps * (attack.samples + 11) + len(attack.sigmas) * (attack.samples + 1)
        return min(asked, attack.queries or math.inf)
    backwards = {"Noise": 0, "JSMA": 2, "DeepFool": getattr(attack, "candidates", 2) - 1}.get(kind, 1)
    return steps * (1 + (GRADIENT - 1) * backwards) if backwards else 0


# ----------------------------------------------------------------------------------------------------- hours


def learn(planner: Planner, build: Path) -> dict[tuple[str, str], float]:
    """What finished cells took of the most: by data set, and by attack or chapter of training."""
    taken: list[tuple[str, str, float, float]] = []
    for notebook, point, receipt in _finished(planner, build):
        cell, chapter = point
        values = planner.settings(cell.dataset, chapter) | receipt["parameters"]
        rows, history = notebook.with_name("attacks.parquet"), notebook.with_name("history.csv")
        if chapter == ATTACKS and rows.is_file():
            climbed = ladders(values, planner.size(cell.dataset, cell.representation))
            spent = passed(files.load(rows)).groupby("attack")["passes"].sum()
            clips = evaluated(point, values)
            taken += [(cell.dataset, name, spent[name], clips * most(climbed[name])) for name in spent.index]
        if chapter in TRAINS and history.is_file():
            epochs = len(files.load(history))
            taken.append((cell.dataset, chapter, epochs, epochs_of(cell.model, values)))
    found = pd.DataFrame(taken, columns=["dataset", "name", "taken", "most"])
    found = found[found["most"] > 0].groupby(["dataset", "name"])[["taken", "most"]].sum()
    return (found["taken"] / found["most"]).to_dict()


def passed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of attacks with the passes that each clip took."""
    return rows.assign(passes=rows["forwards"] + (GRADIENT - 1) * rows["backwards"] + rows["queries"])


def _finished(planner: Planner, build: Path) -> Iterator[tuple[Path, Point, dict[str, Any]]]:
    """Finished cells of the chapters that are planned, with their receipts."""
    for notebook in receipts.finished(build):
        point = _point(notebook, build)
        if point[1] in {chapter for _, chapter in planner.points} and not receipts.problem(notebook, build):
            yield notebook, point, receipts.receipt(notebook)


def rates(planner: Planner, build: Path) -> pd.DataFrame:
    """What finished cells took, by chapter and device: seconds per unit of work, cells, GiB at the most.

    The device is ``cpu`` or ``gpu``; seconds are of the CPU, on a GPU of the clock.
    """
    rows = []
    for _, point, receipt in _finished(planner, build):
        device = "cpu" if receipt["device"] == "cpu" else "gpu"
        seconds = receipt["cpu_seconds" if device == "cpu" else "seconds"]
        work = planner.work(point, receipt["parameters"], likely=True)
        rows.append((point[1], device, seconds, work, receipt["peak_memory_mib"] / 1024))
    frame = pd.DataFrame(rows, columns=["chapter", "device", "seconds", "work", "gib"])
    found = frame.groupby(["chapter", "device"]).agg(
        seconds=("seconds", "sum"), work=("work", "sum"), cells=("work", "size"), gib=("gib", "max")
    )
    return found.assign(rate=found["seconds"] / found["work"])


def _point(notebook: Path, build: Path) -> Point:
    return study.Cell(str(build), *notebook.parent.relative_to(build).parts), notebook.stem


def chain(hours: Mapping[Point, float]) -> float:
    """Hours of the longest chain of cells, each of which rests on the one before."""
    longest = 0.0
    for cell, chapter in hours:
        if chapter == ATTACKS:
            above = [(cell.up(1), "01_data"), (cell.up(2), IMAGES), (cell.at(training="standard"), TRAINS[0])]
            path = sum(hours.get(step, 0.0) for step in [*above, (cell, TRAINS[1]), (cell, ATTACKS)])
            end = max(hours.get((cell.up(1), name), 0.0) for name in ("06_analysis", BEYOND))
            longest = max(longest, path + end)
    return longest


def table(planner: Planner, known: pd.DataFrame, waiting: set[Point]) -> pd.DataFrame:
    """One row per cell: chapter, to do, work, hours on a CPU and on a GPU (NaN where nothing is known).

    Hours are those at the most; likely ones are in columns with that word.
    """
    rows = []
    for point in planner.points:
        row = {"chapter": point[1], "to do": point in waiting}
        for likely, word in ((False, ""), (True, " likely")):
            work = planner.work(point, likely=likely)
            row[f"work{word}"] = work if point[0].model else 0.0
            for device in DEVICES:
                row[device + word] = known["rate"].get((point[1], device), math.nan) * work / 3600
            if math.isnan(row[f"gpu{word}"]):
                row[f"gpu{word}"] = planner.on_card(point, likely=likely) / 3600
        rows.append(row)
    return pd.DataFrame(rows)


def make_plan(given: Mapping[str, str]) -> None:
    """Print what the cells of a grid are likely to take, and what of it is still to do."""
    grid = axes.grid(given)
    build = Path(grid.build)
    planner = Planner(Path(grid.params), [_point(Path(word), build) for word in grid.cells()])
    planner.shares = learn(planner, build)
    known = rates(planner, build)
    cells = table(planner, known, {_point(path, build) for path in status.pending(sys.stdin)})
    images, models = planner.disk()
    print(
        f"{'':<38}{'CPU hours':>20}{'GPU hours':>20}\n{'chapter':<25}{'cells':>6}{'to do':>7}"
        + 2 * f"{'likely':>10}{'at most':>10}"
        + "   from finished cells"
    )
    for name, group in [*cells.groupby("chapter"), ("in all", cells), ("to do", cells[cells["to do"]])]:
        shown = [device + word for device in DEVICES for word in (" likely", "")]
        hours = "".join(f"{_said(group[name].sum(), group[name]):>10}" for name in shown)
        seen = [
            f"{row.cells} on a {device.upper()}, up to {row.gib:.1f} GiB"
            for (chapter, device), row in zip(known.index, known.itertuples(), strict=True)
            if chapter == name
        ]
        print(f"{name:<25}{len(group):>6}{group['to do'].sum():>7}{hours}   {'; '.join(seen)}")
    chains = [chain(dict(zip(planner.points, cells[name].fillna(0), strict=True))) for name in shown]
    hours = [_said(each, cells[name]) for name, each in zip(shown, chains, strict=True)]
    print(
        f"one after the other, however many run at once: {hours[0]} CPU hours ({hours[1]} at most), "
        f"{hours[2]} GPU hours ({hours[3]} at most)\n"
        f"{cells['work likely'].sum():.1e} operations of networks ({cells['work'].sum():.1e} at most); "
        f"{images / 1e9:.1f} GB of images and {models / 1e9:.1f} GB of models on disk\n"
        "Likely is what finished cells took of the most, else lib/grid/passes.csv. GPU hours without "
        "finished cells are of one H100, by lib/grid/h100.csv. A sum after > lacks cells of unknown hours."
    )


def _said(hours: float, cells: pd.Series) -> str:
    """A sum of the hours of cells, after > where those of some are unknown; ? where those of all are."""
    if cells.isna().all():
        return "?"
    rounded = f"{hours:.2g}" if hours < 1 else f"{hours:,.{int(hours < 100)}f}"
    return f"> {rounded}" if cells.isna().any() else rounded
