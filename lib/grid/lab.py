"""The chapters in JupyterLab, ready to be executed cell by cell (``make lab``).

They are copies in ``BUILD/lab``, each with the parameters of a point that is finished, where there is one.
They read the grid through links; what they write replaces a link, not what it leads to. So a chapter that is
executed by hand changes nothing in the grid. The next ``make lab`` begins with fresh copies.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import study
from lib.grid import axes, settings

FIRST = """\
# The study's own folder, as make has it. What you execute here is written to {build}.
%cd -q {root}"""


def point(grid: axes.Grid, dataset: str) -> list[Path]:
    """The notebooks of one point: a finished one where there is one, dwt/resnet18 before others."""
    asked = grid.read(dataset)

    def rank(folder: str) -> tuple[bool, bool, bool]:
        finished = [os.path.exists(f"{folder}/{name}.ipynb") for name in ("04_attacks", axes.trains(folder))]
        return (*(not there for there in finished), "/dwt/resnet18/" not in folder)

    victim = min(grid.victims(dataset), key=rank)
    above = os.path.dirname(victim)
    others = [f"{above}/{name}" for name in grid.trainings if name != "standard"]
    defended = min(others, key=rank, default=f"{above}/adversarial")
    folders = {
        "02_features": os.path.join(*Path(victim).parts[:-3]),
        "03_training": f"{above}/standard",
        "04_attacks": victim,
        "05_adversarial_training": defended,
    }
    return [
        Path(folders.get(Path(cell).stem, os.path.dirname(cell)), os.path.basename(cell)) for cell in asked
    ]


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
    import jupytext
    from nbformat.v4 import new_code_cell

    notebook = jupytext.read(Path("notebooks") / f"{cell.stem}.py", fmt="py:percent")
    known = settings.defaults(notebook.cells)
    words = cell.parent.relative_to(grid.build).parts
    path = Path(grid.params, words[0], f"{cell.stem}.yaml")
    values = settings.resolve(known, [str(path)] if path.is_file() else [], [])
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
    """Write the chapters of the first data set, and its links, afresh.

    Returns
    -------
    The folder to open.
    """
    import nbformat

    folder = Path(grid.build, "lab").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    scratch = folder / "build"
    link(Path(grid.build), grid.datasets[0], scratch)
    for cell in point(grid, grid.datasets[0]):
        nbformat.write(chapter(cell, grid, scratch), folder / cell.name)
        print(f"lab: {folder / cell.name}, of {cell.with_suffix('')}")
    return folder


def command(folder: Path, more: str) -> list[str]:
    """What starts JupyterLab on this machine only, with its token, and the arguments of ``LAB=``."""
    first = sorted(folder.glob("0*.ipynb"))[0].name
    local = [
        "--ServerApp.ip=localhost",
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.default_url=/lab/tree/{first}",
    ]
    return [sys.executable, "-m", "jupyterlab", *local, *shlex.split(more)]


def main(argv: Sequence[str]) -> int:
    """Prepare the chapters and become JupyterLab."""
    given: Mapping[str, str] = dict(word.split("=", 1) for word in argv)
    more = given.get("LAB", "")
    if os.geteuid() == 0 and "--allow-root" not in more.split():
        print("lab: as root, JupyterLab starts only when asked: make lab LAB=--allow-root", file=sys.stderr)
        return 1
    try:
        shlex.split(more)
    except ValueError as error:
        print(f"lab: LAB={more!r}: {error}", file=sys.stderr)
        return 1
    try:
        words = command(prepare(axes.grid(given)), more)
    except ValueError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    os.execv(words[0], words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
