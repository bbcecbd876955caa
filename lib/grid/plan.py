"""What a grid will take, before a week is spent on it: cells, hours, disk and memory.

Hours are told from receipts: a finished cell of the same chapter took so many seconds for so much work, and
the planned one has so much work. Work is counted in operations: those of one forward pass of the network at
the image size, times the passes that the settings ask for. It is an estimate: attacks that fool early and
trainings that stop early take less. Memory is counted from layers, weights and batch.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jupytext

from lib import files, study
from lib.grid import receipts, settings
from lib.store import heights

CLIPS = {"demo": 400, "esc10": 400, "esc50": 2000, "urbansound8k": 8732}
"""Clips of a data set that has not been listened to yet, as published."""

CLASSES = {"esc50": 50}  # of a data set; ten where nothing is said
TONNETZ = 6  # rows in the store
BASES = 2  # images of a clip in the store: STFT and scalogram
TRAINED = 0.6  # of the clips: three folds of five
BACKWARD = 2  # a backward pass costs two forward ones
READING = 100  # operations in whose time a pass over a batch goes through one weight
LEAKY = 5  # trainings of a cell that measures the leaks, instead of one

# Chapter 2 counts values. A sample of sound costs what 18 values of its images do, and a data set's first
# cells, which load and compile, what 3e9 do (measured at 64 × 128 and 768 × 1568).
SOUND, START = 18, 3e9

# Memory (measured: within a sixth of what 38 finished cells took).
BASE = 1.0  # GiB of a kernel with its libraries
STATES = 6  # weights, gradients, two moments, the best state, a copy for the checkpoint
OUTPUTS = 2.5  # of all layers' outputs, beside which their gradients and buffers lie

HOUR = 3600 * 1e14  # operations, at 100 Tflop/s
EXAMPLES = 7  # images that chapter 4 keeps, as float32
IMAGES, ATTACKS = "02_features", "04_attacks"
TRAINS = "03_training", "05_adversarial_training"

HOW = """\
Hours are of the CPU (on a GPU: of the clock), at most: what finished cells took for each operation of their
networks, times the operations that settings ask for here; early ends take less. Memory is of layers, weights
and batch: on a GPU a step, or an attack's batch, is halved until it fits."""

Point = tuple[study.Cell, str]
"""A cell's point and its chapter."""


class Planner:
    """What the settings of a grid ask for.

    Parameters
    ----------
    params : the folder of settings.
    build : where manifests lie.
    points : the cells of the grid: chapters 2 and 6 do work that depends on the others.
    told : of (data set, chapter), parameters that a finished cell had instead of today's settings.
    """

    def __init__(
        self,
        params: Path,
        build: Path,
        points: Sequence[Point] = (),
        told: Mapping[tuple[str, str], dict[str, Any]] | None = None,
    ) -> None:
        self.params, self.build, self.points, self.told = params, build, points, told or {}
        self.read: dict[tuple[str, str], dict[str, Any]] = {}

    def settings(self, dataset: str, chapter: str) -> dict[str, Any]:
        """A chapter's parameters for a data set: its defaults under the settings file."""
        key = dataset, chapter
        if key not in self.read:
            known = _defaults(chapter)
            path = self.params / dataset / f"{chapter}.yaml"
            files = [str(path)] if path.is_file() else []
            self.read[key] = known | (self.told.get(key) or settings.resolve(known, files, []))
        return self.read[key]

    def clips(self, dataset: str) -> int:
        """How many there are, by the manifest or as published."""
        return _clips(study.Cell(str(self.build), dataset))

    def size(self, dataset: str, representation: str) -> tuple[int, int]:
        """Rows and frames of an image."""
        features = self.settings(dataset, "02_features")
        return sum(heights(representation, features["bins"]).values()), features["frames"]

    def network(self, cell: study.Cell) -> tuple[float, float]:
        """Of one image: operations of a forward pass, and values that all layers give."""
        size = self.size(cell.dataset, cell.representation)
        return _network(cell.model, CLASSES.get(cell.dataset, 10), size)

    def count(self, dataset: str, chapter: str) -> int:
        """Cells of a chapter in the grid, one at the least."""
        return max(1, sum(other == chapter and cell.dataset == dataset for cell, other in self.points))

    def work(self, cell: study.Cell, chapter: str) -> float:
        """What a cell has to do at most: operations; in chapters 1, 2 and 6 clips, values, attacked clips."""
        settings, clips = self.settings(cell.dataset, chapter), self.clips(cell.dataset)
        attacked = self.settings(cell.dataset, ATTACKS)["clips"] or clips // 5
        match chapter:
            case "01_data":
                return clips
            case "02_features":  # whichever representation comes first makes the images of all
                samples = settings["duration"] * settings["stft_rate"]
                values = BASES * settings["bins"] * settings["frames"]
                copies = clips * (1 + len(settings["factors"]))
                return (START + copies * (SOUND * samples + values)) / self.count(cell.dataset, chapter)
            case "06_analysis":
                return attacked * self.count(cell.dataset, ATTACKS)
            case "07_beyond":
                once = self.network(study.Cell(cell.build, cell.dataset, "dwt", settings["heard"]))[0]
                steps = settings["bim_steps"] + settings["round_trip_steps"]
                steps += settings["wave_steps"] * len(settings["levels"])
                return once * settings["clips"] * steps * (1 + BACKWARD)
        if chapter == ATTACKS:
            batch = min(settings["batch"], attacked)
            return attacked * _attack_passes(settings) * self._pass(cell, batch)
        return self._training(cell, settings)

    def _training(self, cell: study.Cell, settings: dict[str, Any]) -> float:
        clips = self.clips(cell.dataset)
        copies = 1 + len(self.settings(cell.dataset, "02_features")["factors"])
        passes = 1 + BACKWARD
        if cell.training in ("adversarial", "fgsm_rs"):
            passes += 2
        elif cell.training in ("pgd", "trades"):
            passes += 2 * settings["steps"] + (cell.training == "trades")
        epoch = settings["share"] * TRAINED * clips * copies * passes
        after = 0.0
        if cell.training != "standard":  # PGD tries validation clips after each epoch, tested ones in the end
            tries = [settings[name] or clips // 5 for name in ("pgd_clips", "tried_clips")]
            epoch += max(0, tries[0]) * 2 * settings["pgd_steps"]
            after = max(0, tries[1]) * 2 * settings["pgd_steps"]
        leaky = f"{cell.representation}/{cell.model}/{cell.fold}" == settings.get("leaks_at")
        images = (settings["epochs"] * epoch + after) * (LEAKY if leaky else 1)
        return images * self._pass(cell, settings["batch"])

    def _pass(self, cell: study.Cell, batch: int) -> float:
        """Operations of a forward pass, an image of a batch: each batch goes through all weights."""
        once = self.network(cell)[0]
        return once + READING * _weights(cell.model) / batch

    def memory(self, cell: study.Cell, chapter: str) -> float:
        """GiB that a cell takes at its peak."""
        if not cell.training:
            return BASE
        settings = self.settings(cell.dataset, chapter)
        outputs = self.network(cell)[1]
        if chapter == ATTACKS:
            most = min(settings["batch"], settings["clips"] or settings["batch"])
            needed = OUTPUTS * outputs * most * 4 / 2**30
            return BASE + _weights(cell.model) * 4 / 2**30 + min(needed, settings.get("memory", needed))
        return BASE + (STATES * _weights(cell.model) + OUTPUTS * outputs * settings["batch"]) * 4 / 2**30

    def disk(self, points: list[Point]) -> tuple[float, float, float]:
        """Bytes of the stores, of the victims and of the examples that the cells will leave."""
        stores = examples = 0.0
        for dataset in {cell.dataset for cell, _ in points}:
            features = self.settings(dataset, "02_features")
            values = BASES * features["bins"] * features["frames"] + TONNETZ * features["frames"]
            stores += self.clips(dataset) * (1 + len(features["factors"])) * values
        for cell, chapter in points:
            if chapter == ATTACKS:
                rows, frames = self.size(cell.dataset, cell.representation)
                examples += 4.0 * EXAMPLES * rows * frames
        victims = sum(4.0 * _weights(cell.model) for cell, chapter in points if chapter in TRAINS)
        return stores, victims, examples


class Rate(NamedTuple):
    """What finished cells of a chapter took."""

    seconds: float  # a unit of work
    least: float  # that a cell took of what this rate tells for it
    most: float
    fit: float  # the most memory that a cell took of what is told for it
    receipts: int
    device: str


def rates(params: Path, build: Path) -> tuple[float, dict[str, Rate]]:
    """CPU seconds that any cell takes before it begins, and what those of each chapter took for their work.

    Seconds are of the CPU; on a GPU they are of the clock. Where a chapter has run on several devices, the
    one with the most receipts counts.
    """
    found = {
        _point(path, build, receipts.ENDING): files.load(path) for path in build.rglob(f"*{receipts.ENDING}")
    }
    before = min((receipt["cpu_seconds"] for receipt in found.values()), default=0.0)
    images = {
        cell.dataset: receipt["parameters"] for (cell, chapter), receipt in found.items() if chapter == IMAGES
    }
    rows = defaultdict(list)
    for (cell, chapter), receipt in found.items():
        told = {
            (cell.dataset, IMAGES): images.get(cell.dataset),
            (cell.dataset, chapter): receipt["parameters"],
        }
        planner = Planner(params, build, list(found), told)
        try:
            work, memory = planner.work(cell, chapter), planner.memory(cell, chapter)
        except (ValueError, KeyError):  # a point that this grid's settings do not know
            continue
        on_cpu = receipt["device"] == "cpu"
        spent = receipt["cpu_seconds" if on_cpu else "seconds"]
        rows[chapter, receipt["device"]].append(
            (max(spent - before, spent / 10), work, receipt["peak_memory_mib"] / 1024, memory)
        )
    told = {}
    for (chapter, device), group in sorted(rows.items(), key=lambda item: len(item[1])):
        rate = sum(spent for spent, *_ in group) / sum(work for _, work, *_ in group)
        ratios = [spent / (rate * work) for spent, work, *_ in group]
        fit = max(took / memory for *_, took, memory in group)
        told[chapter] = Rate(rate, min(ratios), max(ratios), fit, len(group), device)
    return before, told


def _point(path: Path, build: Path, ending: str = ".ipynb") -> Point:
    return study.Cell(str(build), *path.parent.relative_to(build).parts), path.name.removesuffix(ending)


@functools.cache
def _defaults(chapter: str) -> dict[str, Any]:
    return settings.defaults(jupytext.read(Path("notebooks") / f"{chapter}.py", fmt="py:percent").cells)


@functools.cache
def _clips(cell: study.Cell) -> int:
    manifest = cell.path("clips.parquet")
    if manifest.is_file():
        return len(files.load(manifest))
    if cell.dataset not in CLIPS:
        name = cell.dataset
        raise ValueError(f"{name}: its clips are not counted yet: 'make data DATASETS={name}'")
    return CLIPS[cell.dataset]


@functools.cache
def _network(model: str, classes: int, size: tuple[int, int]) -> tuple[float, float]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lib import models

    network = models.outline(model, classes, 1).eval()
    given: list[int] = []
    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, x, y: given.append(y.numel()))
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 1, *size, device="meta"))
    return counter.get_total_flops(), sum(given)


@functools.cache
def _weights(model: str) -> int:
    from lib import models

    return models.parameters(models.outline(model, 10, 1))


def _attack_passes(settings: dict[str, Any]) -> float:
    """Forward passes that one clip costs if no attack fools it before the end of its ladder."""
    each = 1 + BACKWARD
    bim = settings["bim_steps"] * (settings["bim_rungs"] + settings["bim_bisections"]) * each
    jsma = settings["jsma_steps"] * len(settings["jsma_thetas"]) * (each + BACKWARD)
    deepfool = max(settings["deepfool_caps"]) * each
    cwa = sum(settings["cwa_steps"]) * each
    pia = settings["pia_steps"] * settings["pia_samples"] * 2
    return 2 * bim + jsma + deepfool + cwa + min(pia, settings["pia_queries"] or pia)


def chain(hours: Mapping[Point, float]) -> float:
    """Hours, or operations, of the longest chain of cells, each of which rests on the one before."""
    most: dict[tuple[str, str], float] = defaultdict(float)
    for (cell, chapter), value in hours.items():
        most[str(cell), chapter] = value
    longest = 0.0
    for cell, chapter in hours:
        if chapter == ATTACKS:
            above = [(cell.up(1), "01_data"), (cell.up(2), IMAGES), (cell.at(training="standard"), TRAINS[0])]
            path = [(str(c), name) for c, name in [*above, (cell, TRAINS[1]), (cell, ATTACKS)]]
            end = max(most[str(cell.up(1)), name] for name in ("06_analysis", "07_beyond"))
            longest = max(longest, sum(most[step] for step in path) + end)
    return longest


def main(argv: list[str] | None = None) -> int:
    """Print the cells of a grid, and what they are likely to take."""
    parser = argparse.ArgumentParser(prog="make plan", description=main.__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--params", type=Path, default=Path("params"))
    parser.add_argument(
        "--cells", type=Path, required=True, help="a file that lists the notebooks of the grid"
    )
    given = parser.parse_args(argv)
    try:
        points = [_point(Path(word), given.build) for word in given.cells.read_text().split()]
        planner = Planner(given.params, given.build, points)
        before, known = rates(given.params, given.build)
        hours = {
            (cell, chapter): (before + known[chapter].seconds * planner.work(cell, chapter)) / 3600
            for cell, chapter in points
            if chapter in known
        }
        operations = {point: planner.work(*point) for point in points if point[0].training}
        memory = {point: planner.memory(*point) for point in points}
        stores, victims, examples = planner.disk(points)
    except (ValueError, settings.Refused) as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    there = {(cell, chapter) for cell, chapter in points if cell.path(f"{chapter}.ipynb").exists()}
    print(f"{'chapter':<25}{'cells':>6}{'done':>6}{'hours':>12}{'GiB':>8}   told from")
    for chapter in sorted({chapter for _, chapter in points}):
        cells = [point for point in points if point[1] == chapter]
        spent, source = "?", "no receipt: run the demo first"
        if chapter in known:
            rate = known[chapter]
            spent = _round(sum(hours[point] for point in cells))
            source = (
                f"{rate.receipts} receipts of {rate.device}, which took {rate.least:.1f} to {rate.most:.1f}"
            )
            source += " of what this tells for them"
        done, most = len(there.intersection(cells)), max(memory[point] for point in cells)
        print(f"{chapter:<25}{len(cells):>6}{done:>6}{spent:>12}{most:>8.1f}   {source}")
    total = _round(sum(hours.values())) if hours else "?"
    left = _round(sum(value for point, value in hours.items() if point not in there))
    print(f"{'in all':<25}{len(points):>6}{len(there):>6}{total:>12}")
    if hours:
        print(
            f"hours: {left} to do, {_round(chain(hours))} one after the other, however many cells run at once"
        )
    every = sum(operations.values())
    print(f"work: {every:.1e} operations of networks; at 100 Tflop/s that is {_round(every / HOUR)} hours, "
          f"{_round(chain(operations) / HOUR)} of them one after the other")  # fmt: skip
    print(f"disk: {stores / 1e9:.1f} GB of images, {victims / 1e9:.1f} GB of victims, "
          f"{examples / 1e9:.1f} GB of examples")  # fmt: skip
    (cell, chapter), most = max(memory.items(), key=lambda item: item[1])
    print(f"memory: up to {most:.1f} GiB, for {cell}/{chapter}" + _checked(known.values()))
    print(HOW)
    return 0


def _round(hours: float) -> str:
    return f"{hours:.2f}" if hours < 100 else f"{hours:,.0f}"


def _checked(known: Iterable[Rate]) -> str:
    fits = [rate.fit for rate in known]
    return f"; finished cells took up to {max(fits):.1f} of what this tells for them" if fits else ""


if __name__ == "__main__":
    sys.exit(main())
