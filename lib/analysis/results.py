"""What a data set's grid holds so far: the rows of every finished cell, gathered, kept and read back.

Chapter 6 gathers them once and keeps them beside its tables, so that every table and figure can be made
again from the rows alone (``python -m lib.analysis.report``), also where ``build/`` is gone.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lib import files, study
from lib.grid import receipts

POINT = ["representation", "model", "fold", "training"]  # what distinguishes victims of one data set
ATTACKED = [  # of a row of chapter 4, without seconds
    *POINT, "clip", "attack", "label", "target", "before", "after", "fooled", "reached", "confidence",
    "l0", "l2", "linf", "rms", "iterations", "forwards", "backwards", "queries", "rung", "budget",
]  # fmt: skip
TIMES = ["seconds", "cpu_seconds", "peak_memory_mib"]  # differ from run to run, kept by themselves
VICTIMS = ("03_training", "05_adversarial_training")
SIZES = ["representation", "rows", "frames", "bins", "frequencies", "times"]
FILES = {
    "attacks": "attacks.parquet",
    "clean": "clean.parquet",
    "leaks": "leaks.csv",
    "history": "history.csv",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """All that chapters 6 and 7 rest on.

    Parameters
    ----------
    dataset : its name.
    attacks : chapter 4's rows, with the columns ``POINT`` before them and without seconds.
    clean : one row per tested clip and victim: ``POINT``, clip, label, predicted, confidence.
    leaks : chapter 3's comparison of splits, with ``POINT``; empty where it was not asked for.
    history : one row per epoch and victim.
    sizes : one row per representation: rows and frames of its images, bins, its rows without tonnetz, their
        frequencies [Hz] and the times [s] of its frames.
    cells : one row per finished cell: chapter, ``POINT``, commit, dirty, device, changed.
    times : one row per finished cell, or an attack within one: chapter, ``POINT``, attack, ``TIMES``.
    examples : representation to images by name (``original`` and attacks), (rows, frames) each.
    about : of each representation's examples: clip, name (of its class), model, fold, training.
    """

    dataset: str
    attacks: pd.DataFrame
    clean: pd.DataFrame
    leaks: pd.DataFrame
    history: pd.DataFrame
    sizes: pd.DataFrame
    cells: pd.DataFrame
    times: pd.DataFrame
    examples: Mapping[str, Mapping[str, np.ndarray]]
    about: Mapping[str, Mapping[str, str]]

    @property
    def folds(self) -> list[str]:
        """The repeats that have a tested victim, folds and seeds, in order."""
        return sorted(self.clean["fold"].unique(), key=study.fold_and_seed)

    def axes(self, axis: str) -> list[str]:
        """The values of an axis that have a tested victim."""
        return list(dict.fromkeys(self.clean[axis]))

    def missing(self, chapters=("04_attacks",)) -> list[str]:
        """Points that the product of the axes found has, but no cell of a chapter was finished for."""
        axes = [list(dict.fromkeys(self.cells.loc[self.cells[axis] != "", axis])) for axis in POINT]
        have = set(self.cells[["chapter", *POINT]].itertuples(index=False, name=None))
        wanted = itertools.product(chapters, *axes)
        return ["/".join([*point[1:], point[0]]) for point in wanted if point not in have]

    def stale(self) -> pd.DataFrame:
        """Cells that are older than the code they rest on, with what has changed."""
        return self.cells[self.cells["changed"] != ""]


def gather(build: str, dataset: str, shown: str = "resnet56/1/standard") -> Results:
    """Read every finished cell of a data set below ``build``.

    Parameters
    ----------
    shown : model/fold/training whose examples are drawn (Fig. 1 shows ResNet-56); where that point has
        none, the first that has.

    Raises
    ------
    FileNotFoundError : if not one victim was trained and tested.
    """
    root = study.Cell(build, dataset).folder
    cells = receipts.collect(build, dataset)
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in FILES}
    seconds = []
    for cell in study.points(build, dataset):
        for name, file in FILES.items():
            if finished(cell, name) and cell.path(file).is_file():
                frame = _placed(cell, cell.load(file))
                if name == "attacks":
                    seconds.append(
                        frame.groupby(["attack", *POINT], sort=False)["seconds"].sum().reset_index()
                    )
                    frame = frame.drop(columns="seconds")
                found[name].append(frame)
    if not found["clean"]:
        raise FileNotFoundError(f"{root}: no victim is there yet (no */*/*/*/clean.parquet)")
    kept = {
        name: pd.concat(frames, ignore_index=True)
        if frames
        else pd.DataFrame(columns=ATTACKED if name == "attacks" else POINT)
        for name, frames in found.items()
    }
    spent = [cells[["chapter", *POINT, *TIMES]]]
    spent += [frame.assign(chapter="04_attacks") for frame in seconds]
    examples, about = _examples(build, dataset, shown)
    return Results(
        dataset=dataset,
        **kept,
        sizes=_sizes(build, dataset),
        cells=cells.drop(columns=["dataset", *TIMES]),
        times=pd.concat(spent, ignore_index=True).reindex(columns=["chapter", *POINT, "attack", *TIMES]),
        examples=examples,
        about=about,
    )


def finished(cell: study.Cell, name: str) -> bool:
    """Whether the chapter that writes these rows has ended here; those of a running one are not read."""
    if name in ("attacks", "examples"):
        return cell.path("04_attacks.ipynb").is_file()
    return any(cell.path(f"{chapter}.ipynb").is_file() for chapter in VICTIMS)


def _placed(cell: study.Cell, frame: pd.DataFrame) -> pd.DataFrame:
    for i, axis in enumerate(POINT):
        frame.insert(i, axis, getattr(cell, axis))
    return frame


def _sizes(build: str, dataset: str) -> pd.DataFrame:
    """Rows, frames and bins of each representation, as chapter 2 wrote them to the store."""
    from lib import store

    rows = []
    for folder in sorted(study.Cell(build, dataset).folder.glob("*/02_features.ipynb")):
        name = folder.parent.name
        images = store.open(study.Cell(build, dataset).path("store"), name)
        low = np.asarray(images.frequencies, dtype=float)
        low = low[np.isfinite(low)]
        rows.append((name, *images.size, len(low), low.tolist(), np.asarray(images.times).tolist()))
    return pd.DataFrame(rows, columns=SIZES)


# ------------------------------------------------------------------------------------------- examples


def read_examples(path: Path) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Adversarial images as chapter 4 writes them.

    Returns
    -------
    Images by name, ``original`` and attacks, (clips, rows, frames) each; the clips, and the names of their
    classes.
    """
    images, about = files.load(path, numpy=True)
    images = {name: image.reshape(-1, *image.shape[-2:]) for name, image in images.items()}
    return images, json.loads(about["clips"]), json.loads(about["names"])


def _examples(build: str, dataset: str, shown: str) -> tuple[dict, dict]:
    """One clip's images for each representation: of the wanted victim, and the same clip where it can be."""
    there = [cell for cell in study.points(build, dataset) if finished(cell, "examples")]
    there = [cell for cell in there if cell.path("examples.safetensors").is_file()]
    victims = list(dict.fromkeys((cell.model, cell.fold, cell.training) for cell in there))
    wanted = tuple(shown.split("/"))
    if wanted not in victims and victims:
        near = [sum(a == b for a, b in zip(victim, wanted, strict=True)) for victim in victims]
        wanted = victims[int(np.argmax(near))]
    read = {
        cell.representation: read_examples(cell.path("examples.safetensors"))
        for cell in there
        if (cell.model, cell.fold, cell.training) == wanted
    }
    known = [clip for _, clips, _ in read.values() for clip in clips]
    often = max(dict.fromkeys(known), key=known.count, default="")
    examples, about = {}, {}
    for representation, (images, clips, classes) in read.items():
        if clips:
            i = clips.index(often) if often in clips else 0
            examples[representation] = {name: image[i] for name, image in images.items()}
            about[representation] = {"clip": clips[i], "name": classes[i]}
            about[representation] |= dict(zip(("model", "fold", "training"), wanted, strict=True))
    return examples, about


# ----------------------------------------------------------------------------------------------- keeping

FRAMES = ("attacks", "clean", "leaks", "history", "sizes", "cells", "times")


def save(results: Results, folder: str | Path) -> Path:
    """Keep the rows: one Parquet file per frame and the pictured examples, whole or not at all."""
    import torch

    folder = Path(folder)
    for name in FRAMES:
        files.save(folder / f"{name}.parquet", getattr(results, name))
    tensors = {
        f"{representation}/{name}": torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        for representation, images in results.examples.items()
        for name, image in images.items()
    }
    about = {name: json.dumps(facts, sort_keys=True) for name, facts in sorted(results.about.items())}
    files.save(folder / "examples.safetensors", (tensors, about | {"dataset": results.dataset}))
    return folder


def load(folder: str | Path) -> Results:
    """Read back what :func:`save` kept."""
    folder = Path(folder)
    frames = {name: files.load(folder / f"{name}.parquet") for name in FRAMES}
    examples: dict[str, dict[str, np.ndarray]] = {}
    images, about = files.load(folder / "examples.safetensors", numpy=True)
    for key, image in images.items():
        representation, name = key.split("/", 1)
        examples.setdefault(representation, {})[name] = image
    dataset = about.pop("dataset")
    return Results(
        dataset, **frames, examples=examples, about={name: json.loads(text) for name, text in about.items()}
    )
