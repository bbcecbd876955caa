"""Which cells a command line of make names, and what make has to know of them.

The Makefile calls this module once, before anything else: ``python3 -S -m lib.grid.axes GOALS NAME=VALUE
…``. ``lib.grid.words`` refuses what is no path or word. Here the chapters' inputs are copied to
``BUILD/.inputs``, the files of finished cells are looked for, and assignments for make are printed (with
``&`` for a space). With ``--dry`` nothing is written. It imports the standard library alone, since make asks
before any package is installed.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lib import files, names
from lib.data import changes
from lib.grid import receipts
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

    def ends(self, dataset: str) -> list[str]:
        """The notebooks of chapters 6 and 7; the latter needs a representation with nothing appended."""
        plain = any("_" not in name for name in self.representations)
        chapters = ["06_analysis", *["07_beyond"] * plain]
        return [f"{self.build}/{dataset}/{name}.ipynb" for name in chapters]

    def cells(self) -> list[str]:
        """The notebooks of the whole grid."""
        found = []
        for dataset in self.datasets:
            root = f"{self.build}/{dataset}"
            found.append(f"{root}/01_data.ipynb")
            found += [f"{root}/{name}/02_features.ipynb" for name in self.representations]
            for folder in self.victims(dataset):
                found += [f"{folder}/{trains(folder)}.ipynb", f"{folder}/04_attacks.ipynb"]
            found += self.ends(dataset)
        return found

    def read(self, dataset: str, attacked: str = "", defended: str = "") -> list[str]:
        """The notebooks of one point, for a reader: the first of the axes given, or dwt/resnet18.

        Parameters
        ----------
        attacked, defended : the folders of the models of chapters 4 and 5, if others are to be shown.
        """
        representation = self.representations[0] if "REPRESENTATIONS" in self.given else "dwt"
        model = self.models[dataset][0] if "MODELS" in self.given else "resnet18"
        root = f"{self.build}/{dataset}"
        point = f"{root}/{representation}/{model}/{self.folds[dataset][0]}"
        attacked = attacked or f"{point}/{self.trainings[0]}"
        other = next((name for name in self.trainings if name != "standard"), "adversarial")
        above = os.path.dirname(attacked)
        return [
            f"{root}/01_data.ipynb",
            f"{os.path.dirname(os.path.dirname(above))}/02_features.ipynb",
            f"{above}/standard/03_training.ipynb",
            f"{attacked}/04_attacks.ipynb",
            f"{defended or f'{above}/{other}'}/05_adversarial_training.ipynb",
            *self.ends(dataset),
        ]


def trains(folder: str) -> str:
    """The chapter that trains the model of a folder."""
    return "03_training" if folder.endswith("/standard") else "05_adversarial_training"


# ------------------------------------------------------------------------------------------------------- grid


def grid(given: Mapping[str, str]) -> Grid:
    """The grid that checked words name, with a data set's own models and folds where none are given.

    Raises
    ------
    Refused : if a data set, its settings or one of its folds are not there.
    """
    words = {name: split(given, name) for name in AXES}
    if not Path(given["PARAMS"]).is_dir():
        raise Refused(f"PARAMS={given['PARAMS']!r}: there is no such folder of settings")
    models, folds = {}, {}
    for dataset in words["DATASETS"]:
        table = Path(given["DATA"], dataset, "clips.csv")
        _known(dataset, given, table)
        smaller = names.SMALL.get(dataset, {})
        models[dataset] = words["MODELS"] or smaller.get("models") or list(names.MODELS)
        there = _folds(dataset, table)
        folds[dataset] = words["FOLDS"] or smaller.get("folds") or there or _numbers(_MOST_FOLDS)
        missing = [fold for fold in folds[dataset] if there and fold.split(".")[0] not in there]
        if missing:
            raise Refused(
                f"FOLDS={given.get('FOLDS', '')!r}: {dataset} has no fold {missing[0]}; its folds are "
                f"{' '.join(there)}"
            )
    return Grid(
        build=given["BUILD"],
        data=given["DATA"],
        params=given["PARAMS"],
        datasets=words["DATASETS"],
        representations=words["REPRESENTATIONS"] or list(names.REPRESENTATIONS),
        models=models,
        folds=folds,
        trainings=words["TRAININGS"] or list(names.USUAL_TRAININGS),
        given=frozenset(name for name in AXES if words[name]),
    )


def _known(dataset: str, given: Mapping[str, str], table: Path) -> None:
    """Refuse a data set that is not registered and has neither settings nor a table of clips."""
    settings = Path(given["PARAMS"], dataset)
    if given["PARAMS"] != "params" and not settings.is_dir():
        raise Refused(f"PARAMS={given['PARAMS']!r}: it holds no settings of {dataset}")
    if dataset in receipts.BESIDE:
        raise Refused(f"DATASETS={given['DATASETS']!r}: {dataset!r} is a folder of make in BUILD")
    if dataset not in names.DATASETS and not settings.is_dir() and not table.is_file():
        raise Refused(
            f"DATASETS={given['DATASETS']!r}: {dataset!r} is not known; known are "
            f"{' '.join(names.DATASETS)}, and one of your own needs {table}"
        )


def _folds(dataset: str, table: Path) -> list[str]:
    """The folds of a data set, official ones or those of a table of one's own; none if nobody knows them."""
    if dataset in names.DATASETS:
        return _numbers(names.FOLDS.get(dataset, _MOST_FOLDS))
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            header, *rows = [[value.strip() for value in row] for row in csv.reader(file, strict=True) if row]
    except (OSError, ValueError, csv.Error):
        return []  # chapter 1 reports what is wrong with it
    clips = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    if "fold" in header:
        found = {clip["fold"] for clip in clips}
        if not all(re.fullmatch("[0-9]{1,9}", fold) and int(fold) for fold in found):
            return []
        return [str(fold) for fold in sorted({int(fold) for fold in found})]
    if not clips or not {"path", "label"} <= set(header):
        return []
    recording = "source" if "source" in header else "path"
    of_class = Counter(label for label, _ in {(clip["label"], clip[recording]) for clip in clips})
    return _numbers(min(_MOST_FOLDS, *of_class.values()))


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


# ---------------------------------------------------------------------------------------------------- inputs


def chapters() -> list[str]:
    """The names of all chapters, in order."""
    return sorted(path.stem for path in Path("notebooks").glob("0*.py"))


def copy_inputs(found: Grid, *, dry: bool = False) -> list[str]:
    """Copy sources, settings and tables of one's own to ``BUILD/.inputs`` where they have changed.

    A chapter rests on these copies, so it runs again when its code or settings change, and not when a file is
    touched or a paragraph is mended: then the copy keeps its time.

    Parameters
    ----------
    dry : whether to name only, and to write nothing.

    Returns
    -------
    The copies that have changed.

    Raises
    ------
    Refused : if a settings file is no chapter's, or nothing can be written.
    """
    try:
        texts = _inputs(found, dry)
        other = [path for path, text in texts.items() if not (path.is_file() and path.read_bytes() == text)]
        mended = [path for path in other if path.is_file() and _same_code(path, texts[path])]
        for path in [] if dry else other:
            time = path.stat().st_mtime_ns if path in mended else None
            with files.atomic(path) as part:
                part.write_bytes(texts[path])
                if time is not None:
                    os.utime(part, ns=(time, time))
    except OSError as error:
        raise Refused(f"BUILD={found.build!r}: nothing can be written there: {error}") from error
    return [str(path) for path in other if path not in mended]


def _same_code(path: Path, text: bytes) -> bool:
    """Whether a chapter's copy and its source differ in paragraphs alone."""
    return path.suffix == ".py" and _code(path.read_bytes()) == _code(text)


def _code(text: bytes) -> list[bytes]:
    """The code cells of a percent script."""
    cells = re.split(rb"^# %%", text, flags=re.MULTILINE)
    return [cell.rstrip() for cell in cells if not cell.startswith(b" [markdown]")]


def _inputs(found: Grid, dry: bool) -> dict[Path, bytes]:
    """What each copy has to contain; settings that are not there are an empty file."""
    copies, known = Path(found.build, INPUTS), chapters()
    for dataset in found.datasets:
        folder = Path(found.build, dataset)
        own = (copies / dataset).exists() or next(folder.glob("**/0*.ipynb"), None)
        if not own and folder.is_dir() and any(folder.iterdir()):
            raise Refused(
                f"BUILD={found.build!r}: make has not made what is in {folder}; name another folder"
            )
        _check_settings(Path(found.params, dataset), known)
    texts = {copies / f"{name}.py": Path("notebooks", f"{name}.py").read_bytes() for name in known}
    for dataset in found.datasets:
        for path in (Path(found.params, dataset, f"{name}.yaml") for name in known):
            texts[copies / dataset / path.name] = path.read_bytes() if path.is_file() else b""
        table = Path(found.data, dataset, "clips.csv")
        if table.is_file():
            texts[copies / dataset / table.name] = table.read_bytes()
        changed = _changed_recordings(Path(found.build, dataset), dry)
        if changed:
            texts[copies / dataset / RECORDINGS] = "\n".join(changed).encode(errors="surrogateescape")
    return texts


def _check_settings(folder: Path, known: Sequence[str]) -> None:
    """Refuse settings that no chapter would read."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise Refused(f"{folder}: settings must be in a folder, which this is not")
    for path in sorted(folder.glob("*.y*ml")):
        if path.suffix != ".yaml" or path.stem not in known:
            named = ", ".join(f"{name}.yaml" for name in known)
            raise Refused(f"{path}: no chapter reads it; settings are in {named}")
        if not path.is_file():
            raise Refused(f"{path}: settings must be in an ordinary file, which this is not")


def _changed_recordings(folder: Path, dry: bool) -> list[str]:
    """The recordings that have changed; a dry run works on a copy of their record, which may be updated."""
    if not dry or not (folder / changes.NAME).is_file():
        return changes.changed(folder)
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / changes.NAME, copy)
        return changes.changed(copy)


# --------------------------------------------------------------------------------------------------- for make


def again(found: Grid, *, older: bool = False) -> list[str]:
    """Finished cells that are to be made again: files that they wrote are missing or have another size.

    Parameters
    ----------
    older : those older than their code and those whose files are damaged as well, as ``make refresh`` asks.
    """
    controls = [
        re.sub("[^/]*/05_adversarial_training", "standard/03_training", cell) for cell in found.cells()
    ]
    since, chosen = receipts.Changes() if older else None, []
    for cell in dict.fromkeys([*found.cells(), *controls]):
        path = Path(cell)
        if path.exists():
            broken = receipts.problem(path, Path(found.build), thorough=older)
            if broken or (since and since(receipts.receipt(path), path.stem)):
                chosen.append(cell)
    return chosen


def rows(found: Grid) -> list[str]:
    """The folders of gathered rows of the data sets, of this build and published ones.

    Raises
    ------
    Refused : if a data set has none, naming those that have.
    """
    there = [*Path(found.build).glob("*/figures/rows"), *Path("figures").glob("*/rows")]
    of = {path: path.parts[-3 if path.parts[-2] == "figures" else -2] for path in there}
    for dataset in found.datasets:
        if dataset not in of.values():
            raise Refused(
                f"figures: chapter 6 has written no rows of {dataset} in {found.build}/{dataset}/figures or "
                f"figures/{dataset}; there are rows of {' '.join(sorted({*of.values()})) or 'no data set'}"
            )
    return [str(path) for dataset in found.datasets for path in there if of[path] == dataset]


def assignments(found: Grid, goals: Sequence[str], changed: Sequence[str]) -> Iterable[str]:
    """What make reads about the grid; ``changed`` are the copies that a dry run has not written."""
    yield f"cells := {' '.join(found.cells())}"
    yield f"changed := {' '.join(changed)}"
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
    dry = "--dry" in argv
    goals = [goal for word in argv if "=" not in word for goal in word.split() if goal != "--dry"]
    said: list[str] = []
    try:
        given = dict(word.split("=", 1) for word in argv if "=" in word)
        check(given)
        if not all(GRIDLESS.fullmatch(goal) for goal in goals):
            found = grid(given)
            changed = copy_inputs(found, dry=dry)
            said += assignments(found, goals, changed if dry else [])
    except Refused as error:
        print(error)
        return 2
    print(" ".join(line.replace(" ", "&") for line in said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
