"""Which cells a command line of make names, and what make has to know of them.

The Makefile calls this module once, before anything else: ``python3 -S -m lib.grid.axes GOALS NAME=VALUE
…``. ``lib.grid.words`` refuses what is no path or word. Here the chapters' inputs are copied to
``BUILD/.inputs``, the files of finished cells are looked for, and assignments for make are printed (with
``&`` for a space). It imports the standard library alone, since make asks before any package is installed.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lib import names
from lib.data import changes as recordings
from lib.grid import outputs
from lib.grid.words import AXES, Refused, check, split

INPUTS = ".inputs"
"""The folder below BUILD that holds a copy of each chapter's source and settings, by which make decides."""

RECORDINGS = "recordings"
"""The file there that names recordings which are not what chapter 1 listened to; chapter 1 rests on it."""

GRIDLESS = re.compile(r"help|setup|lint|test|test-\w+|unpack|clean|bench-.*")
"""Goals that look at no data set."""

_MOST_FOLDS = 5  # that chapter 1 makes where a table of one's own has none


class Grid(NamedTuple):
    """The cells that a command line names; ``given`` are the axes that it gave itself."""

    build: str
    data: str
    params: str
    datasets: list[str]
    representations: list[str]
    models: dict[str, list[str]]
    folds: dict[str, list[str]]
    trainings: list[str]
    given: frozenset[str]

    def victims(self, dataset: str) -> list[str]:
        """The folders of a data set's models, one per representation, model, fold and training."""
        return [
            f"{self.build}/{dataset}/{representation}/{model}/{fold}/{training}"
            for representation in self.representations
            for model in self.models[dataset]
            for fold in self.folds[dataset]
            for training in self.trainings
        ]

    def attacked(self, dataset: str) -> list[str]:
        """The notebooks of chapter 4, on which chapters 6 and 7 rest."""
        return [f"{folder}/04_attacks.ipynb" for folder in self.victims(dataset)]

    def cells(self) -> list[str]:
        """The notebooks of the whole grid."""
        found = []
        for dataset in self.datasets:
            root = f"{self.build}/{dataset}"
            found.append(f"{root}/01_data.ipynb")
            found += [f"{root}/{name}/02_features.ipynb" for name in self.representations]
            for folder in self.victims(dataset):
                found += [f"{folder}/{trains(folder)}.ipynb", f"{folder}/04_attacks.ipynb"]
            found += [f"{root}/06_analysis.ipynb", f"{root}/07_beyond.ipynb"]
        return found

    def read(self, dataset: str) -> list[str]:
        """The notebooks of one point, for a reader: the first of the axes given, or dwt/resnet18."""
        root = f"{self.build}/{dataset}"
        representation = self.representations[0] if "REPRESENTATIONS" in self.given else "dwt"
        model = self.models[dataset][0] if "MODELS" in self.given else "resnet18"
        point = f"{root}/{representation}/{model}/{self.folds[dataset][0]}"
        defences = [name for name in self.trainings if name != "standard"] or ["adversarial"]
        return [
            f"{root}/01_data.ipynb",
            f"{root}/{representation}/02_features.ipynb",
            f"{point}/standard/03_training.ipynb",
            f"{point}/{self.trainings[0]}/04_attacks.ipynb",
            f"{point}/{defences[0]}/05_adversarial_training.ipynb",
            f"{root}/06_analysis.ipynb",
            f"{root}/07_beyond.ipynb",
        ]


def trains(folder: str) -> str:
    return "03_training" if folder.endswith("/standard") else "05_adversarial_training"


# ------------------------------------------------------------------------------------------------------- grid


def grid(given: Mapping[str, str]) -> Grid:
    """The grid that checked words name, with a data set's own models and folds where none are given.

    Raises
    ------
    Refused : if a data set, its settings or one of its folds are not there.
    """
    words = {name: split(given, name) for name in AXES}
    params, data = Path(given["PARAMS"]), Path(given["DATA"])
    if not params.is_dir():
        raise Refused(f"PARAMS={given['PARAMS']!r}: there is no such folder of settings")
    datasets = words["DATASETS"]
    models, folds = {}, {}
    for dataset in datasets:
        settings, table = params / dataset, data / dataset / "clips.csv"
        if given["PARAMS"] != "params" and not settings.is_dir():
            raise Refused(f"PARAMS={given['PARAMS']!r}: it holds no settings of {dataset}")
        if dataset in outputs.BESIDE:
            raise Refused(f"DATASETS={given['DATASETS']!r}: {dataset!r} is a folder of make in BUILD")
        if dataset not in names.DATASETS and not settings.is_dir() and not table.is_file():
            raise Refused(
                f"DATASETS={given['DATASETS']!r}: {dataset!r} is not known; known are "
                f"{' '.join(names.DATASETS)}, and one of your own needs {table}"
            )
        smaller = names.SMALL.get(dataset, {})
        models[dataset] = words["MODELS"] or smaller.get("models") or list(names.MODELS)
        there = _folds(dataset, table)
        folds[dataset] = words["FOLDS"] or smaller.get("folds") or there or _numbers(_MOST_FOLDS)
        for fold in folds[dataset]:
            if there and fold.split(".")[0] not in there:
                raise Refused(
                    f"FOLDS={given.get('FOLDS', '')!r}: {dataset} has no fold {fold}; its folds are "
                    f"{' '.join(there)}"
                )
    return Grid(
        given["BUILD"],
        given["DATA"],
        given["PARAMS"],
        datasets,
        words["REPRESENTATIONS"] or list(names.REPRESENTATIONS),
        models,
        folds,
        words["TRAININGS"] or list(names.USUAL_TRAININGS),
        frozenset(name for name in AXES if words[name]),
    )


def _folds(dataset: str, table: Path) -> list[str]:
    """The folds of a data set, official ones or those of a table of one's own; none if nobody knows them."""
    if dataset in names.DATASETS:
        return _numbers(names.FOLDS.get(dataset, _MOST_FOLDS))
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            rows = [[value.strip() for value in row] for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []  # chapter 1 reports what is wrong with it
    header = rows[0] if rows else []
    rows = [row for row in rows[1:] if len(row) == len(header)]
    if "fold" in header:
        found = {row[header.index("fold")] for row in rows}
        if not all(re.fullmatch("[0-9]{1,9}", fold) and int(fold) for fold in found):
            return []
        return [str(fold) for fold in sorted({int(fold) for fold in found})]
    if not rows or not {"path", "label"} <= set(header):
        return []
    recording = header.index("source" if "source" in header else "path")
    recordings: dict[str, set[str]] = {}
    for row in rows:
        recordings.setdefault(row[header.index("label")], set()).add(row[recording])
    return _numbers(min([_MOST_FOLDS, *map(len, recordings.values())]))


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


# ---------------------------------------------------------------------------------------------------- inputs


def chapters() -> list[str]:
    """The names of all chapters, in order."""
    return sorted(path.stem for path in Path("notebooks").glob("0*.py"))


def copy_inputs(found: Grid) -> None:
    """Copy sources, settings and tables of one's own to ``BUILD/.inputs`` where they have changed.

    A chapter rests on these copies, so it runs again when a text changes, and not when a file is touched.

    Raises
    ------
    Refused : if a settings file is no chapter's, or nothing can be written.
    """
    inputs = Path(found.build, INPUTS)
    for dataset in found.datasets:
        folder = Path(found.build, dataset)
        own = (inputs / dataset).exists() or next(folder.glob("**/0*.ipynb"), None)
        if not own and folder.is_dir() and any(folder.iterdir()):
            raise Refused(
                f"BUILD={found.build!r}: make has not made what is in {folder}; name another folder"
            )
    pairs = [(Path("notebooks", f"{name}.py"), inputs / f"{name}.py") for name in chapters()]
    for dataset in found.datasets:
        settings = Path(found.params, dataset)
        if os.path.lexists(settings) and not settings.is_dir():
            raise Refused(f"{settings}: settings must be in a folder, which this is not")
        for path in sorted(settings.glob("*.y*ml")):
            if path.suffix != ".yaml" or path.stem not in chapters():
                known = ", ".join(f"{name}.yaml" for name in chapters())
                raise Refused(f"{path}: no chapter reads it; settings are in {known}")
            if not path.is_file():
                raise Refused(f"{path}: settings must be in an ordinary file, which this is not")
        pairs += [(settings / f"{name}.yaml", inputs / dataset / f"{name}.yaml") for name in chapters()]
        table = Path(found.data, dataset, "clips.csv")
        if table.is_file():
            pairs.append((table, inputs / dataset / "clips.csv"))
    try:
        for source, copy in pairs:
            _keep(source, copy)
        for dataset in found.datasets:
            changed = recordings.changed(Path(found.build, dataset))
            if changed:
                _keep_text("\n".join(changed).encode(errors="surrogateescape"), inputs / dataset / RECORDINGS)
    except OSError as error:
        raise Refused(f"BUILD={found.build!r}: nothing can be written there: {error}") from error


def _keep(source: Path, copy: Path) -> None:
    _keep_text(source.read_bytes() if source.is_file() else b"", copy)


def _keep_text(text: bytes, copy: Path) -> None:
    if copy.is_file() and copy.read_bytes() == text:
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f"{copy.name}.{os.getpid()}")
    part.write_bytes(text)
    os.replace(part, copy)


# --------------------------------------------------------------------------------------------------- for make


def again(found: Grid, *, older: bool = False) -> list[str]:
    """Finished cells that are to be made again: files that they wrote are missing or have another size.

    Parameters
    ----------
    older : those older than their code and those whose files are damaged as well, as ``make refresh`` asks.
    """
    from lib.grid import receipts

    controls = [
        re.sub("[^/]*/05_adversarial_training", "standard/03_training", cell) for cell in found.cells()
    ]
    changes, chosen = receipts.Changes() if older else None, []
    for cell in dict.fromkeys([*found.cells(), *controls]):
        path = Path(cell)
        if path.exists():
            broken = outputs.problem(path, Path(found.build), thorough=older)
            if broken or (changes and changes(outputs.receipt(path), path.stem)):
                chosen.append(cell)
    return chosen


def rows(found: Grid) -> list[str]:
    """The folders of gathered rows of the data sets, of this build and published ones.

    Raises
    ------
    Refused : if a data set has none, naming those that have.
    """

    def of(dataset: str) -> list[str]:
        folders = f"{found.build}/{dataset}/figures/rows", f"figures/{dataset}/rows"
        return [folder for folder in folders if os.path.isdir(folder)]

    for dataset in found.datasets:
        if not of(dataset):
            there = [*Path(found.build).glob("*/figures/rows"), *Path("figures").glob("*/rows")]
            others = sorted({path.parts[-3 if path.parts[-2] == "figures" else -2] for path in there})
            raise Refused(
                f"figures: chapter 6 has written no rows of {dataset} in {found.build}/{dataset}/figures or "
                f"figures/{dataset}; there are rows of {' '.join(others) or 'no data set'}"
            )
    return [folder for dataset in found.datasets for folder in of(dataset)]


def assignments(found: Grid, goals: Sequence[str]) -> Iterable[str]:
    """What make reads about the grid."""
    yield f"cells := {' '.join(found.cells())}"
    yield f"together := {' '.join(found.representations)}"
    yield f"again := {' '.join(again(found, older='refresh' in goals))}"
    for dataset in found.datasets:
        yield f"attacked_{dataset} := {' '.join(found.attacked(dataset))}"
    copied = {path.stem for path in Path("notebooks").glob("0*.ipynb")}
    read = found.read(found.datasets[0])
    yield f"read := {' '.join(read)}"
    yield f"uncopied := {' '.join(cell for cell in read if Path(cell).stem not in copied)}"
    if "figures" in goals:
        yield f"rows := {' '.join(rows(found))}"


USAGE = f"""
  DATASETS='{" ".join(names.DATASETS)}', or one of your own
  REPRESENTATIONS='{" ".join(names.REPRESENTATIONS)}'
  MODELS='{" ".join(names.MODELS)}'
  TRAININGS='{" ".join(names.TRAININGS)}' FOLDS='1 2 3'
  DATA=data BUILD=build PARAMS=params PYTHON=python THREADS=N TIMEOUT=seconds
  LAUNCH='srun --gres=gpu:1' -k -jN"""


def usage(makefile: str) -> str:
    """What ``make help`` prints: the verbs, each with its comment, and the variables."""
    text = Path(makefile).read_text(encoding="utf-8")
    verbs = re.findall(r"^([a-z%-]+):.*## (.*)", text, re.MULTILINE)
    return "\n".join(["make VERB NAME=value …", *[f"  {verb:<11}{what}" for verb, what in verbs], USAGE])


def main(argv: Sequence[str]) -> int:
    """Check the words, copy the inputs and print what make needs to know."""
    sys.stdout.reconfigure(errors="backslashreplace")
    if argv[:1] == ["--usage"]:
        print(usage(argv[1]))
        return 0
    goals = [goal for word in argv if "=" not in word for goal in word.split()]
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    said = []
    try:
        check(given)
        if not all(GRIDLESS.fullmatch(goal) for goal in goals):
            found = grid(given)
            said += assignments(found, goals)
            copy_inputs(found)
    except Refused as error:
        print(error)
        return 2
    print(" ".join(line.replace(" ", "&") for line in said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
