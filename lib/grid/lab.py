"""The chapters in JupyterLab, ready to be executed cell by cell (``make lab``).

They are copies in ``BUILD/lab``, each with the parameters of a point that is finished, where there is one.
They read the grid through links; what they write replaces a link, not what it leads to.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lib import study
from lib.grid import axes, settings
from lib.grid.words import Refused

FIRST = """\
# The study's own folder, as make has it. What you execute here is written to {build}.
%cd -q {root}"""


def point(grid: axes.Grid, dataset: str) -> list[Path]:
    """The notebooks of one point: a finished one where there is one, dwt/resnet18 before others."""

    def rank(folder: str) -> tuple[bool, bool, bool]:
        finished = [os.path.exists(f"{folder}/{name}.ipynb") for name in ("04_attacks", axes.trains(folder))]
        return (*(not there for there in finished), "/dwt/resnet18/" not in folder)

    victim = min(grid.victims(dataset), key=rank)
    above = os.path.dirname(victim)
    others = [f"{above}/{name}" for name in grid.trainings if name != "standard"]
    return list(map(Path, grid.read(dataset, victim, min(others, key=rank, default=""))))


def link(
    build: Path, dataset: str, scratch: Path, wanted: Callable[[Path], bool] = lambda path: True
) -> None:
    """Fill ``scratch`` with links to the files of a data set's grid, without hidden and half-written ones."""
    (scratch / dataset).mkdir(parents=True, exist_ok=True)
    for path in sorted((build / dataset).rglob("*")):
        if path.is_file() and not path.name.startswith(".") and wanted(path):
            target = scratch / path.relative_to(build)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())


def chapter(cell: Path, grid: axes.Grid, scratch: Path) -> Any:
    """A chapter's source as a notebook, with the parameters of a cell and a build folder of its own.

    Raises
    ------
    settings.Refused : if the settings are not the chapter's.
    """
    from nbformat.v4 import new_code_cell

    words = cell.parent.relative_to(grid.build).parts
    notebook, known, values = settings.of_chapter(cell.stem, Path(grid.params, words[0]))
    given = dict(zip(study.AXES, words, strict=False)) | {"build": str(scratch)}
    given |= {"data_folder": os.path.abspath(grid.data), "together": " ".join(grid.representations)}
    values |= {name: value for name, value in given.items() if name in known}
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (place,) = [n for n, each in enumerate(notebook.cells) if "parameters" in each.metadata.get("tags", [])]
    lines = [f"# of {cell.with_suffix('')}", *(f"{name} = {value!r}" for name, value in values.items())]
    notebook.cells.insert(place + 1, new_code_cell("\n".join(lines)))
    notebook.cells.insert(0, new_code_cell(FIRST.format(build=scratch, root=Path.cwd())))
    return notebook


def prepare(grid: axes.Grid) -> Path:
    """Write the chapters of the first data set, and its links, afresh; the folder to open."""
    import nbformat

    folder = Path(grid.build, "lab").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    link(Path(grid.build), grid.datasets[0], folder / "build")
    for cell in point(grid, grid.datasets[0]):
        nbformat.write(chapter(cell, grid, folder / "build"), folder / cell.name)
        print(f"lab: {folder / cell.name}, of {cell.with_suffix('')}")
    return folder


def command(folder: Path, more: str) -> list[str]:
    """What starts JupyterLab on this machine only, with its token, and the arguments of ``LAB=``."""
    first = min(folder.glob("0*.ipynb")).name
    local = ["--ServerApp.ip=localhost", f"--ServerApp.root_dir={folder}"]
    local.append(f"--LabApp.default_url=/lab/tree/{first}")
    return [sys.executable, "-m", "jupyterlab", *local, *shlex.split(more)]


def make_lab(given: Mapping[str, str]) -> None:
    """Prepare the chapters and become JupyterLab."""
    more = given.get("LAB", "")
    if os.geteuid() == 0 and "--allow-root" not in more.split():
        raise Refused("as root, JupyterLab starts only when asked: make lab LAB=--allow-root")
    try:
        shlex.split(more)
    except ValueError as error:
        raise Refused(f"LAB={more!r}: {error}") from error
    words = command(prepare(axes.grid(given)), more)
    os.execv(words[0], words)
