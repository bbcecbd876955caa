"""What a finished cell rests on: its receipt, and whether the code has changed since.

``lib.grid.execute`` leaves ``NAME.receipt.json`` beside every executed ``NAME.ipynb``: parameters, commit,
versions, device, data, seconds and memory, and a fingerprint of every source it rests on. ``make status``
(``python -m lib.grid.receipts``) and chapter 6 read them. A fingerprint is of the code alone, so a docstring,
a comment or a paragraph of a chapter makes no cell old; nor does how pictures are drawn.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from lib import files, study

if TYPE_CHECKING:
    import pandas as pd

ENDING = ".receipt.json"
DRAWS = "lib/figures.py"  # no number rests on it: a cell whose pictures look otherwise today is not old
PACKAGES = ("torch", "torchvision", "numpy", "librosa", "PyWavelets", "foolbox", "papermill")


def sources(notebook: Path) -> dict[str, str]:
    """The fingerprints of a notebook and of every module of ``lib`` that it imports, near or far."""
    root = Path(__file__).parents[2]
    found: dict[str, str] = {}
    waiting = [Path(notebook).resolve()]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if name in found:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found[name] = fingerprint(tree)
        waiting += _imported(tree, root)
    return dict(sorted(found.items()))


def fingerprint(tree: ast.Module) -> str:
    """A hash of what a module does: of its syntax tree without its docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def _imported(tree: ast.Module, root: Path) -> list[Path]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib":
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] == "lib"]
    stems = [root / name.replace(".", "/") for name in names]
    paths = [path for stem in stems for path in (stem.with_suffix(".py"), stem / "__init__.py")]
    return [path for path in paths if path.is_file() and path != root / "lib" / "__init__.py"]


def commit() -> tuple[str, bool]:
    """The commit that is checked out, and whether tracked files differ from it; ``""`` outside of git."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))


def versions() -> dict[str, str]:
    """Python's version and those of the packages that numbers depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    return found | {name: metadata.version(name) for name in PACKAGES}


def collect(build: str, dataset: str = "*") -> pd.DataFrame:
    """All receipts below ``build``, a row a finished cell, each with the sources that changed since.

    Columns: chapter, the axes of the point, commit, dirty, device, data, seconds, cpu_seconds,
    peak_memory_mib and ``changed``, the names of changed sources (empty where the cell is up to date).
    """
    import pandas as pd

    now: dict[str, dict[str, str]] = {}
    rows = []
    for path in sorted(Path(build).glob(f"{dataset}/**/*{ENDING}")):
        receipt = files.load(path)
        chapter = path.name.removesuffix(ENDING)
        if not path.with_name(f"{chapter}.ipynb").exists():
            continue
        if chapter not in now:
            notebook = Path("notebooks") / f"{chapter}.py"
            now[chapter] = sources(notebook) if notebook.exists() else {}
        then = receipt["sources"]
        changed = [name for name in then | now[chapter] if then.get(name) != now[chapter].get(name)]
        point = path.parent.relative_to(build).parts
        row = {"chapter": chapter} | dict(zip(study.AXES, [*point, "", "", "", "", ""], strict=False))
        kept = ("commit", "dirty", "device", "data", "seconds", "cpu_seconds", "peak_memory_mib")
        rows.append(
            row
            | {name: receipt[name] for name in kept}
            | {"changed": ", ".join(sorted(set(changed) - {DRAWS}))}
        )
    columns = ["chapter", *study.AXES, "commit", "dirty", "device", "data", "seconds", "cpu_seconds"]
    return pd.DataFrame(rows, columns=[*columns, "peak_memory_mib", "changed"])


def main(argv: list[str] | None = None) -> int:
    """Print what is finished below BUILD, what is not, and what is older than the code it rests on."""
    parser = argparse.ArgumentParser(prog="make status", description=main.__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--cells", type=Path, help="a file that lists the notebooks of the grid")
    given = parser.parse_args(argv)
    frame = collect(given.build)
    wanted = [Path(word) for word in given.cells.read_text().split()] if given.cells else []
    missing = [path for path in wanted if not path.exists()]
    partial = sorted(Path(given.build).glob("**/*.partial.ipynb"))
    old = frame[frame["changed"] != ""]
    for row in old.itertuples():
        point = "/".join(word for word in (getattr(row, axis) for axis in study.AXES) if word)
        print(f"older than its code: {point}/{row.chapter} ({row.changed})")
    for path in partial:
        print(f"failed: {path}")
    for path in missing:
        print(f"to do: {path}")
    commits = sorted({text[:10] for text in frame["commit"]})
    print(
        f"{len(wanted) - len(missing)} of {len(wanted)} cells of this grid are there; "
        f"{given.build}: {len(frame)} finished, {len(old)} older than their code, {len(partial)} failed, "
        f"{frame['cpu_seconds'].sum() / 3600:.2f} CPU hours, commits {', '.join(commits) or 'none'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
