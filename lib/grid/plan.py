"""What a grid will take: hours, operations, disk and memory (``make plan``).

A cell's work is counted in forward passes of its network: those of an image, times the images, epochs and
steps that its settings ask for. Finished cells of the same chapter say how many seconds a unit of work takes;
for a GPU on which none has run yet, ``h100.csv`` does (measured on one H100 in TF32). Hours are upper bounds:
attacks that succeed early and trainings that stop early take less.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping, Sequence
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

    def work(self, point: Point, given: Mapping[str, Any] | None = None) -> float:
        """Operations of a network; in chapter 2 values of sounds and images, in chapters 1 and 6 clips.

        Parameters
        ----------
        given : the parameters that a finished cell had, where they are not today's.
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
        return self.passes(point, values) * operations(victim, self.size(*victim[:2])) if victim else clips

    def victim(self, point: Point, values: Mapping[str, Any]) -> tuple[str, str, str] | None:
        """Data set, representation and model that a cell computes with, if any."""
        cell, chapter = point
        if chapter == BEYOND:
            return cell.dataset, "dwt", values["heard"]
        return (cell.dataset, cell.representation, cell.model) if cell.model else None

    def passes(self, point: Point, values: Mapping[str, Any]) -> float:
        """Forward passes of one image each that a cell costs at the most; a gradient counts as three."""
        cell, chapter = point
        clips = count_clips(cell.up(1))
        if chapter == ATTACKS:
            each = climbing(values, self.size(cell.dataset, cell.representation))
            return (values["clips"] or clips // 5) * each
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
        epochs = values["epochs"]
        if values.get("slow_epochs") and not normalised(cell.model):
            epochs = values["slow_epochs"]
        leaky = f"{cell.representation}/{cell.model}/{cell.fold}" == values.get("leaks_at")
        return (epochs * (epoch + each) + once) * (LEAKY if leaky else 1)

    def on_card(self, point: Point) -> float:
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
        rate = table.loc[nearest, "trained_per_s" if point[1] in TRAINS else "gradients_per_s"]
        return self.passes(point, values) / GRADIENT / rate * ratio[nearest]

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


@functools.cache
def normalised(model: str) -> bool:
    """Whether a model has batch norm; one without may be trained for more epochs."""
    from torch import nn

    from lib import models

    return any(isinstance(layer, nn.BatchNorm2d) for layer in models.outline(model).modules())


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


def climbing(values: Mapping[str, Any], size: tuple[int, int]) -> float:
    """Forward passes that one clip costs if no attack fools it before the end of its ladder.

    A step is a gradient, or two passes per sample of an attack that only queries.
    """
    from lib import attacks

    asked = [*names.ATTACKS, *names.REFERENCE, *names.CONTROLS]
    words = tuple(f"{name.lower().partition('-')[0]}_" for name in asked)
    given = {name: value for name, value in values.items() if name.startswith(words)}
    passes = 0.0
    for ladder in attacks.ladders(size, only=asked, **given).values():
        for rung in [*ladder.rungs, *[ladder.rungs[-1]] * ladder.bisections]:
            each = 2 * getattr(rung.attack, "samples", 0) or GRADIENT
            most = getattr(rung.attack, "queries", 0) or math.inf
            passes += min(getattr(rung.attack, "steps", 1) * each, most)
    return passes


# ----------------------------------------------------------------------------------------------------- hours


def rates(planner: Planner, build: Path) -> pd.DataFrame:
    """What finished cells took, by chapter and device: seconds per unit of work, cells, GiB at the most.

    The device is ``cpu`` or ``gpu``; seconds are of the CPU, on a GPU of the clock.
    """
    rows = []
    for notebook in receipts.finished(build):
        point = _point(notebook, build)
        if point[1] in {chapter for _, chapter in planner.points} and not receipts.problem(notebook, build):
            receipt = receipts.receipt(notebook)
            device = "cpu" if receipt["device"] == "cpu" else "gpu"
            seconds = receipt["cpu_seconds" if device == "cpu" else "seconds"]
            work = planner.work(point, receipt["parameters"])
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
    """One row per cell: chapter, to do, work, hours on a CPU and on a GPU (NaN where nothing is known)."""
    rows = []
    for point in planner.points:
        work = planner.work(point)
        row = {"chapter": point[1], "to do": point in waiting, "work": work if point[0].model else 0.0}
        for device in DEVICES:
            row[device] = known["rate"].get((point[1], device), math.nan) * work / 3600
        if math.isnan(row["gpu"]):
            row["gpu"] = planner.on_card(point) / 3600
        rows.append(row)
    return pd.DataFrame(rows)


def make_plan(given: Mapping[str, str]) -> None:
    """Print what the cells of a grid are likely to take, and what of it is still to do."""
    grid = axes.grid(given)
    build = Path(grid.build)
    planner = Planner(Path(grid.params), [_point(Path(word), build) for word in grid.cells()])
    known = rates(planner, build)
    cells = table(planner, known, {_point(path, build) for path in status.pending(sys.stdin)})
    images, models = planner.disk()
    print(f"{'chapter':<25}{'cells':>6}{'to do':>7}{'CPU hours':>11}{'GPU hours':>11}   from finished cells")
    for name, group in [*cells.groupby("chapter"), ("in all", cells), ("to do", cells[cells["to do"]])]:
        hours = "".join(f"{_round(group[device].sum(min_count=1)):>11}" for device in DEVICES)
        seen = [
            f"{row.cells} on a {device.upper()}, up to {row.gib:.1f} GiB"
            for (chapter, device), row in zip(known.index, known.itertuples(), strict=True)
            if chapter == name
        ]
        print(f"{name:<25}{len(group):>6}{group['to do'].sum():>7}{hours}   {'; '.join(seen)}")
    chains = [chain(dict(zip(planner.points, cells[name].fillna(0), strict=True))) for name in DEVICES]
    hours = [_round(each) for each in chains]
    print(
        f"one after the other, however many run at once: {hours[0]} CPU hours, {hours[1]} GPU hours\n"
        f"{cells['work'].sum():.1e} operations of networks; {images / 1e9:.1f} GB of images and "
        f"{models / 1e9:.1f} GB of models on disk\n"
        "All at the most. GPU hours without finished cells are of one H100, by lib/grid/h100.csv."
    )


def _round(hours: float) -> str:
    if math.isnan(hours):
        return "?"
    return f"{hours:.2g}" if hours < 1 else f"{hours:,.{int(hours < 100)}f}"
