"""What a grid will take, before a week is spent on it: cells, hours, disk and memory.

Hours are told from receipts: a finished cell of the same chapter took so many CPU seconds for so much work,
and the planned one has so much work. Work is counted in operations: those of one forward pass of the network
at the planned image size, times the passes that the settings ask for. It is an estimate: attacks that fool
early end early, and a GPU's seconds are not a CPU's.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import jupytext

from lib import execute, receipts, study
from lib.store import TONNETZ_SHARE

CLIPS = {"demo": 400, "esc10": 400, "esc50": 2000, "urbansound8k": 8732}
"""Clips of a data set that has not been listened to yet, as published."""

CLASSES = {"esc50": 50}  # of a data set; ten where nothing is said
TONNETZ = 6  # rows in the store
BASES = 2  # images of a clip in the store: STFT and scalogram
BACKWARD = 2  # a backward pass costs two forward ones


class Planner:
    """The settings of a grid's chapters, read once, and what follows from them."""

    def __init__(self, params: Path, build: Path) -> None:
        self.params, self.build = params, build
        self.read: dict[tuple[str, str], dict[str, Any]] = {}
        self.operations: dict[tuple, float] = {}

    def settings(self, dataset: str, chapter: str) -> dict[str, Any]:
        """A chapter's parameters for a data set: its defaults under the settings file."""
        if (dataset, chapter) not in self.read:
            source = jupytext.read(Path("notebooks") / f"{chapter}.py", fmt="py:percent")
            known = execute.defaults(source.cells)
            path = self.params / dataset / f"{chapter}.yaml"
            files = [str(path)] if path.is_file() else []
            self.read[dataset, chapter] = known | execute.parameters(known, files, [])
        return self.read[dataset, chapter]

    def clips(self, dataset: str) -> int:
        """How many there are, by the manifest or as published."""
        manifest = study.Cell(str(self.build), dataset).path("clips.parquet")
        if manifest.is_file():
            return len(study.load(manifest))
        if dataset not in CLIPS:
            raise ValueError(f"{dataset}: its clips are not counted yet: 'make data DATASETS={dataset}'")
        return CLIPS[dataset]

    def size(self, dataset: str, representation: str) -> tuple[int, int]:
        """Rows and frames of an image."""
        features = self.settings(dataset, "02_features")
        more = round(TONNETZ_SHARE * features["bins"]) if representation.endswith("tonnetz") else 0
        return features["bins"] + more, features["frames"]

    def forward(self, dataset: str, representation: str, model: str) -> float:
        """Operations of one forward pass of one image."""
        size = self.size(dataset, representation)
        key = (model, CLASSES.get(dataset, 10), *size)
        if key not in self.operations:
            self.operations[key] = _operations(model, key[1], size)
        return self.operations[key]

    def work(self, cell: study.Cell, chapter: str) -> float:
        """What a cell has to do: operations, or for the chapters without a network values to be filled."""
        clips, copies = (
            self.clips(cell.dataset),
            1 + len(self.settings(cell.dataset, "02_features")["factors"]),
        )
        if not cell.representation:
            return clips
        if not cell.training:
            rows, frames = self.size(cell.dataset, cell.representation)
            return clips * copies * rows * frames
        once = self.forward(cell.dataset, cell.representation, cell.model)
        settings = self.settings(cell.dataset, chapter)
        if chapter == "04_attacks":
            return once * (settings["clips"] or clips // 5) * _attack_passes(settings)
        passes = 1 + BACKWARD
        if cell.training in ("adversarial", "fgsm_rs"):
            passes += 2
        elif cell.training in ("pgd", "trades"):
            passes += 2 * settings["steps"] + (cell.training == "trades")
        return once * settings["epochs"] * settings["share"] * 0.6 * clips * copies * passes

    def disk(self, cells: list[tuple[study.Cell, str]]) -> tuple[float, float]:
        """Bytes of the stores and of the victims that the cells will leave."""
        stores = 0.0
        for dataset in {cell.dataset for cell, _ in cells}:
            features = self.settings(dataset, "02_features")
            values = BASES * features["bins"] * features["frames"] + TONNETZ * features["frames"]
            stores += self.clips(dataset) * (1 + len(features["factors"])) * values
        victims = [cell for cell, chapter in cells if chapter in ("03_training", "05_adversarial_training")]
        weights = {model: _weights(model) for model in {cell.model for cell in victims}}
        return stores, 4.0 * sum(weights[cell.model] for cell in victims)


def _operations(model: str, classes: int, size: tuple[int, int]) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lib import models

    network = models.outline(model, classes, 1).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 1, *size, device="meta"))
    return counter.get_total_flops()


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


def rates(planner: Planner, build: Path) -> dict[str, tuple[float, float, int]]:
    """Per chapter: CPU seconds a unit of work (the median over receipts), most memory in MiB, receipts."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(build.rglob(f"*{receipts.ENDING}")):
        chapter = path.name.removesuffix(receipts.ENDING)
        receipt = study.load(path)
        try:
            cell = study.Cell(str(build), *path.parent.relative_to(build).parts)
            work = planner.work(cell, chapter)
        except (ValueError, KeyError):  # a point that this grid's settings do not know
            continue
        found.setdefault(chapter, []).append((receipt["cpu_seconds"] / work, receipt["peak_memory_mib"]))
    return {c: (median(r for r, _ in rows), max(m for _, m in rows), len(rows)) for c, rows in found.items()}


def main(argv: list[str] | None = None) -> int:
    """Print the cells of a grid, and what they are likely to take."""
    parser = argparse.ArgumentParser(prog="make plan", description=main.__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--params", type=Path, default=Path("params"))
    parser.add_argument(
        "--cells", type=Path, required=True, help="a file that lists the notebooks of the grid"
    )
    given = parser.parse_args(argv)
    planner = Planner(given.params, given.build)
    cells = []
    for word in given.cells.read_text().split():
        path = Path(word)
        cells.append((study.Cell(str(given.build), *path.parent.relative_to(given.build).parts), path.stem))
    try:
        known = rates(planner, given.build)
        stores, victims = planner.disk(cells)
        hours = {
            (cell, chapter): known[chapter][0] * planner.work(cell, chapter) / 3600
            for cell, chapter in cells
            if chapter in known
        }
        operations = sum(planner.work(cell, chapter) for cell, chapter in cells if cell.training)
    except (ValueError, execute.Refused) as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    counted = Counter(chapter for _, chapter in cells)
    done = Counter(chapter for cell, chapter in cells if cell.path(f"{chapter}.ipynb").exists())
    print(f"{'chapter':<26}{'cells':>6}{'done':>6}{'CPU hours':>12}   from")
    for chapter in sorted(counted):
        spent = sum(value for (_, name), value in hours.items() if name == chapter)
        from_ = f"{known[chapter][2]} receipts" if chapter in known else "no receipt: run the demo first"
        shown = f"{spent:.2f}" if chapter in known else "?"
        print(f"{chapter:<26}{counted[chapter]:>6}{done[chapter]:>6}{shown:>12}   {from_}")
    print(f"{'in all':<26}{len(cells):>6}{sum(done.values()):>6}{sum(hours.values()):>12.2f}")
    print(f"disk: {stores / 1e9:.1f} GB of images, {victims / 1e9:.1f} GB of victims")
    memory = max((value[1] for value in known.values()), default=0)
    print(
        f"memory: up to {memory / 1024:.1f} GiB in the cells that are finished; it grows with batch × image"
    )
    print(
        f"work: {operations:.1e} operations of networks, {operations / 1e14 / 3600:.2g} hours at 100 Tflop/s"
    )
    print(
        "CPU hours are the median of finished cells of a chapter, for the operations of the network at this "
        "image size and the passes that the settings ask for; attacks that fool early take less"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
