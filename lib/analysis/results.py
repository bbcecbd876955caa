"""What a data set's grid holds so far: the rows of every finished cell, gathered, kept and read back.

Chapter 6 gathers them once and keeps them beside its tables, so that every table and figure can be made
again from the rows alone (``python -m lib.analysis.report``), also where ``build/`` is gone.
"""

import dataclasses
import functools
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib import files, names, study
from lib.grid import receipts

POINT = ["representation", "model", "fold", "training"]  # what distinguishes victims of one data set
_OF_ATTACK = (
    *("clip", "attack", "label", "target", "before", "after", "fooled", "reached", "confidence"),
    *("l0", "l2", "linf", "rms", "l2_any", "bound", "iterations", "forwards", "backwards", "queries"),
    *("rung", "budget", "smallest", "refused"),
)
ATTACKED = [*POINT, *_OF_ATTACK]  # of a row of chapter 4, without seconds
TIMES = ["seconds", "cpu_seconds", "peak_memory_mib"]  # differ from run to run, kept by themselves
VICTIMS = ("03_training", "05_adversarial_training")
IMAGES = ("01_data", "02_features")  # chapters that make what all models share
COMPARED = (*IMAGES, *VICTIMS, "04_attacks")  # chapters whose settings shape the tables
SIZES = ["representation", "rows", "frames", "bins", "frequencies", "times"]
AT_SIZE = [*POINT, "bins", "frames", "clip", "source", "correct", "norm"]  # see `at_size`
FILES = {
    "attacks": ("04_attacks", "attacks.parquet"),
    "evaluated": ("04_attacks", "evaluated.csv"),
    "clean": ("", "clean.parquet"),
    "history": ("", "history.csv"),
    "leaks": ("03_training", "leaks.csv"),
}
"""Of each frame: the chapter that writes it (empty: the one of this training), and its file."""
FOLDERS = ("build", "data_folder", "folder", "mirror", "weights")
"""Parameters that name a place on a machine; rows do not keep them."""
PLACES = (*FOLDERS, "leaks_at", "together", *study.AXES)
"""Parameters that say where, not what."""


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """All that chapters 6 and 7 rest on.

    Parameters
    ----------
    dataset : its name.
    attacks : chapter 4's rows, with the columns ``POINT`` before them and without seconds.
    evaluated : one row per victim and clip that chapter 4 chose, attacked or misclassified anyway:
        ``POINT``, clip.
    clean : one row per tested clip and victim: ``POINT``, clip, source (its recording), label, predicted,
        confidence.
    leaks : chapter 3's comparison of splits, with ``POINT``; empty where it was not asked for.
    history : one row per epoch and victim.
    sizes : one row per representation: rows and frames of its images, bins, its rows without tonnetz, their
        frequencies [Hz] and the times [s] of its frames.
    cells : one row per finished cell: chapter, ``POINT``, commit, dirty, device, changed, and as JSON its
        parameters and the fingerprints of its sources.
    times : one row per finished cell, or attack within one: chapter, ``POINT``, attack, ``TIMES``.
    notes : sentences on what the rows lack, one per row in the column ``note``; see also `remarks`.
    examples : representation to images by name (``original`` and attacks), (rows, frames) each.
    about : of each representation's examples: clip, name (of its class), model, fold, training.
    other_sizes : `at_size` of grids of the same data set at other image sizes; empty where none was named.
    """

    dataset: str
    attacks: pd.DataFrame
    evaluated: pd.DataFrame
    clean: pd.DataFrame
    leaks: pd.DataFrame
    history: pd.DataFrame
    sizes: pd.DataFrame
    cells: pd.DataFrame
    times: pd.DataFrame
    notes: pd.DataFrame
    examples: Mapping[str, Mapping[str, np.ndarray]]
    about: Mapping[str, Mapping[str, str]]
    other_sizes: pd.DataFrame

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

    def remarks(self) -> list[str]:
        """What a reader of the tables must know: what the rows lack, and what they mix."""
        return list(dict.fromkeys([*self.notes["note"], *mixed(self.cells, self.attacks)]))


def gather(
    build: str, dataset: str, shown: str = "resnet56/1/standard", other_sizes: Sequence[str] = ()
) -> Results:
    """Read every finished cell of a data set below ``build``.

    A cell whose file is missing or damaged is left out, and a note names it.

    Parameters
    ----------
    shown : model/fold/training whose examples are drawn (Fig. 1 shows ResNet-56); where that point has
        none, the nearest to it that has, on as many representations as can be.
    other_sizes : folders BUILD/DATASET of grids of the same data set at other image sizes.

    Raises
    ------
    FileNotFoundError : if not one victim was trained and tested.
    ValueError : if one of the other folders is not such a grid.
    """
    root = study.Cell(build, dataset).folder
    cells = _told(receipts.collect(build, dataset))
    found, notes = _frames(build, dataset)
    if not found["clean"]:
        raise FileNotFoundError(f"{root}: no victim is there yet (no */*/*/*/clean.parquet)")
    empty = {"attacks": ATTACKED, "evaluated": [*POINT, "clip"]}
    kept = {
        name: pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=empty.get(name, POINT))
        for name, frames in found.items()
    }
    sources = study.Cell(build, dataset).load("clips.parquet").set_index("clip")["source"]
    kept["clean"].insert(len(POINT) + 1, "source", kept["clean"]["clip"].map(sources))
    attacks = kept.pop("attacks")
    spent = [cells[["chapter", *POINT, *TIMES]]]
    if "seconds" in attacks:
        by_attack = attacks.groupby([*POINT, "attack"], sort=False)["seconds"].sum().reset_index()
        spent.append(by_attack.assign(chapter="04_attacks"))
    examples, about, lost = _examples(build, dataset, shown)
    sizes = _sizes(build, dataset)
    elsewhere, also, said = _other_sizes(other_sizes, dataset, sizes)
    also = also[~also["chapter"].isin(IMAGES)]  # these differ: they make the size
    also = also.merge(cells[["chapter", *POINT]], on=["chapter", *POINT])
    alone = mixed(cells, attacks)
    said += [note for note in mixed(cells, attacks, also) if note not in alone]
    return Results(
        dataset=dataset,
        attacks=attacks.drop(columns="seconds", errors="ignore"),
        **kept,
        sizes=sizes,
        cells=cells.drop(columns=["dataset", *TIMES]),
        times=pd.concat(spent, ignore_index=True).reindex(columns=["chapter", *POINT, "attack", *TIMES]),
        notes=pd.DataFrame({"note": notes + lost + said}, dtype=object),
        examples=examples,
        about=about,
        other_sizes=elsewhere,
    )


def _frames(build: str, dataset: str) -> tuple[dict[str, list[pd.DataFrame]], list[str]]:
    """The frames of finished cells by name, and a note on each file that is missing or damaged."""
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in FILES}
    notes = []
    for cell in study.points(build, dataset):
        for name, (chapter, file) in FILES.items():
            if not finished(cell, chapter):
                continue
            if name == "leaks" and not cell.path(file).is_file():
                continue  # it is written only where it was asked for
            try:
                frame = cell.load(file)
            except (FileNotFoundError, ValueError) as error:
                notes.append(f"{cell}/{file} is missing or damaged, so its rows are left out ({error})")
                continue
            for i, axis in enumerate(POINT):
                frame.insert(i, axis, getattr(cell, axis))
            found[name].append(frame)
    return found, notes


def finished(cell: study.Cell, chapter: str) -> bool:
    """Whether the chapter has ended here (empty: the training); the files of a running one are not read."""
    return any(cell.path(f"{name}.ipynb").is_file() for name in ([chapter] if chapter else VICTIMS))


def _told(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with their parameters, less the folders of a machine, and their sources as texts."""
    kept = [
        {name: value for name, value in values.items() if name not in FOLDERS}
        for values in cells["parameters"]
    ]
    text = functools.partial(json.dumps, sort_keys=True)
    return cells.assign(parameters=[*map(text, kept)], sources=[*map(text, cells["sources"])])


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of some frames one below the other; of empty ones nothing is taken, not even their types."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def mixed(cells: pd.DataFrame, attacks: pd.DataFrame, elsewhere: pd.DataFrame | None = None) -> list[str]:
    """What differs between models that are put in one table: settings of a chapter, sets of attacks; and
    whether some should not have been attacked, since copies of clips are among their tested images.

    Parameters
    ----------
    cells, attacks : as those of `Results`.
    elsewhere : cells of the same points at other sizes; of their attacks only the reference is compared.
    """
    frames = [(cells, ())]
    if elsewhere is not None:
        frames.append((elsewhere, (*names.settings(names.ATTACKS), "checked")))
    notes, leaky = [], 0
    for chapter in COMPARED:
        told = [
            (json.loads(text), not_compared)
            for frame, not_compared in frames
            if "parameters" in frame  # older versions did not keep them
            for text in frame.loc[frame["chapter"] == chapter, "parameters"]
        ]
        for name in sorted({name for values, _ in told for name in values} - {*PLACES}):
            count = Counter(
                f"{name} = {values[name]!r}" if name in values else f"{name} not set"
                for values, not_compared in told
                if not name.startswith(not_compared)
            )
            leaky += count["protocol = 'paper'"]
            if len(count) > 1:
                said = ", ".join(f"{what} in {_cells(number)}" for what, number in count.items())
                notes.append(f"{chapter} was run with different settings: {said}")
    if leaky and len(attacks):
        notes.append(
            f"protocol = 'paper' in {_cells(leaky)} of trainings, which tests copies of clips as well: what "
            "is said of attacks on these models is wrong"
        )
    sets = attacks.groupby(POINT)["attack"].agg(lambda names: ", ".join(sorted({*names}))).value_counts()
    if len(sets) > 1:
        met = "; ".join(f"{attacks} on {count} models" for attacks, count in sets.items())
        notes.append(f"not all models met the same attacks: {met}")
    return notes


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"


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


# --------------------------------------------------------------------------------------- other image sizes


def at_size(found: Results) -> pd.DataFrame:
    """One row per tested clip and victim: the size of its image, and what the reference attack needed.

    Returns
    -------
    Columns `AT_SIZE`: ``POINT``, bins, frames, clip, source, ``correct``, and ``norm``, the least ‖δ‖₂ of the
    reference attack: ∞ where the attack failed, NaN where the clip was not attacked.
    """
    tried = found.attacks[found.attacks["attack"].isin(names.REFERENCE)]
    norm = tried["l2"].astype(float).where(tried["fooled"].astype(bool), np.inf)
    least = tried[[*POINT, "clip"]].assign(norm=norm).groupby([*POINT, "clip"], as_index=False).min()
    rows = found.clean.merge(found.sizes[["representation", "bins", "frames"]], on="representation")
    rows = rows.merge(least, on=[*POINT, "clip"], how="left")
    return rows.assign(correct=rows["predicted"] == rows["label"])[AT_SIZE]


def _other_sizes(
    folders: Sequence[str], dataset: str, sizes: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """`at_size` of other grids, their cells, and notes on what they lack.

    Raises
    ------
    ValueError : naming a folder that is no grid of this data set, of another size, with the reference attack.
    """
    met = {*(sizes["bins"] * sizes["frames"])}
    kept, notes = [pd.DataFrame(columns=AT_SIZE)], []
    cells = [pd.DataFrame(columns=["chapter", *POINT, "parameters"])]
    for folder in map(Path, folders):
        if folder.name != dataset or folder.is_absolute():
            raise ValueError(f"other_sizes: {folder} must be a relative folder BUILD/{dataset}")
        try:
            found = gather(str(folder.parent), dataset)
        except FileNotFoundError as error:
            raise ValueError(f"other_sizes: {folder} holds no finished grid ({error})") from error
        rows = at_size(found)
        if rows["norm"].isna().all():
            raise ValueError(
                f"other_sizes: no model of {folder} was attacked by {', '.join(names.REFERENCE)}"
            )
        mine = {*(rows["bins"] * rows["frames"])}
        if mine & met:
            raise ValueError(
                f"other_sizes: {folder} has images of {min(mine & met)} values, a size that is there already"
            )
        met |= mine
        kept.append(rows)
        cells.append(found.cells)
        notes += [f"{folder}: {note}" for note in found.remarks()]
        old = len(found.stale())
        notes += [f"{folder}: {old} cells are older than their code"] if old else []
    return stacked(kept), stacked(cells), notes


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


def alike(victim: Sequence[str], shown: str) -> int:
    """In how much a victim's model, fold and training are those of ``shown``, model/fold/training."""
    return sum(a == b for a, b in zip(victim, shown.split("/"), strict=True))


def _examples(build: str, dataset: str, shown: str) -> tuple[dict, dict, list[str]]:
    """One clip's images for each representation: of the wanted victim, and the same clip where it can be.

    With facts about them, and a note on each file that is damaged.
    """
    there = [cell for cell in study.points(build, dataset) if finished(cell, "04_attacks")]
    there = [cell for cell in there if cell.path("examples.safetensors").is_file()]
    on = Counter((cell.model, cell.fold, cell.training) for cell in there)  # how many representations
    wanted = tuple(shown.split("/"))
    if wanted not in on and on:
        wanted = max(on, key=lambda victim: (alike(victim, shown), on[victim]))
    read, notes = {}, []
    for cell in there:
        if (cell.model, cell.fold, cell.training) == wanted:
            try:
                read[cell.representation] = read_examples(cell.path("examples.safetensors"))
            except (ValueError, KeyError) as error:
                notes.append(f"{cell}/examples.safetensors is damaged, so it is not shown ({error})")
    known = [clip for _, clips, _ in read.values() for clip in clips]
    often = max(dict.fromkeys(known), key=known.count, default="")
    examples, about = {}, {}
    for representation, (images, clips, classes) in read.items():
        if clips:
            i = clips.index(often) if often in clips else 0
            examples[representation] = {name: image[i] for name, image in images.items()}
            about[representation] = {"clip": clips[i], "name": classes[i]}
            about[representation] |= dict(zip(("model", "fold", "training"), wanted, strict=True))
    return examples, about, notes


# ----------------------------------------------------------------------------------------------- keeping

NEEDED = {
    "attacks": [name for name in ATTACKED if name not in ("l2_any", "bound", "smallest", "refused")],
    "evaluated": [*POINT, "clip"],
    "clean": [*POINT, "clip", "label", "predicted", "confidence"],
    "leaks": POINT,
    "history": [*POINT, "epoch"],
    "sizes": SIZES,
    "cells": ["chapter", *POINT, "commit", "dirty", "device", "changed"],
    "times": ["chapter", *POINT, "attack", *TIMES],
    "notes": ["note"],
    "other_sizes": AT_SIZE,
}
"""Of each frame the columns that every version has kept."""
FRAMES = tuple(NEEDED)
LATER = ("evaluated", "notes", "other_sizes")  # frames that older versions did not keep
ADDED = {  # by later versions: what is assumed of rows that were kept without them
    "evaluated": "which clips were evaluated is not kept, so those that no model classified correctly are "
    "left out",
    "source": "the recordings of the clips are not kept: each clip is taken as a recording of its own",
}


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
    """Read back what :func:`save` kept; what an older version did not keep is assumed, and noted.

    Raises
    ------
    FileNotFoundError, ValueError : naming a file that is missing or damaged, or the columns that it lacks.
    """
    folder = Path(folder)
    frames = {
        name: _frame(folder / f"{name}.parquet")
        for name in FRAMES
        if name not in LATER or (folder / f"{name}.parquet").is_file()
    }
    frames.setdefault("other_sizes", pd.DataFrame(columns=AT_SIZE))
    notes = frames.get("notes", pd.DataFrame({"note": []}, dtype=object))["note"].tolist()
    if "evaluated" not in frames:
        frames["evaluated"] = _evaluated(frames["attacks"])
        notes.append(ADDED["evaluated"])
    if "source" not in frames["clean"]:
        frames["clean"] = frames["clean"].assign(source=frames["clean"]["clip"])
        notes.append(ADDED["source"])
    tensors, about = files.load(folder / "examples.safetensors", numpy=True)
    examples: dict[str, dict[str, np.ndarray]] = {}
    for key, image in tensors.items():
        representation, name = key.split("/", 1)
        examples.setdefault(representation, {})[name] = image
    dataset = about.pop("dataset")
    frames["notes"] = pd.DataFrame({"note": notes}, dtype=object)
    facts = {name: json.loads(text) for name, text in about.items()}
    return Results(dataset, **frames, examples=examples, about=facts)


def _frame(path: Path) -> pd.DataFrame:
    frame = files.load(path)
    missing = [name for name in NEEDED[path.stem] if name not in frame]
    if missing:
        raise ValueError(f"{path} is not a table of chapter 6: it has no column {', '.join(missing)}")
    return frame


def _evaluated(attacks: pd.DataFrame) -> pd.DataFrame:
    """For every victim the clips of its fold on which some victim was attacked."""
    victims, clips = attacks[POINT].drop_duplicates(), attacks[["fold", "clip"]].drop_duplicates()
    return victims.merge(clips, on="fold")[[*POINT, "clip"]]
