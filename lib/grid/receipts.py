"""What a finished cell rests on: its receipt, and whether the code has changed since.

``lib.grid.execute`` writes ``NAME.receipt.json`` next to every executed ``NAME.ipynb``: parameters, commit,
versions, device, data, seconds and memory, and a fingerprint of every source that the cell rests on
(``lib.grid.sources``). ``make status`` and chapter 6 read them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import study
from lib.grid import outputs, sources
from lib.grid.outputs import ENDING

if TYPE_CHECKING:
    import pandas as pd

ROOT = sources.ROOT
PACKAGES = ("torch", "torchvision", "numpy", "librosa", "PyWavelets", "foolbox", "papermill")


def commit() -> tuple[str, bool]:
    """The commit that is checked out, and whether tracked files differ from it; ``""`` outside of git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))


def versions() -> dict[str, str]:
    """Python's version and those of the packages that numbers depend on."""
    from importlib import metadata

    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    return found | {name: metadata.version(name) for name in PACKAGES}


class Changes:
    """What has changed of the sources of cells, worked out once for all that name the same modules."""

    def __init__(self) -> None:
        self.modules = sources.modules()
        self.known: dict[tuple[str, frozenset[str]], dict[str, str]] = {}

    def __call__(self, receipt: Mapping[str, Any], chapter: str) -> list[str]:
        """The names of the sources that differ from those of a receipt."""
        key = chapter, sources.words(receipt["parameters"]) & self.modules
        if key not in self.known:
            notebook = Path("notebooks") / f"{chapter}.py"
            self.known[key] = sources.fingerprints(notebook, key[1]) if notebook.exists() else {}
        then, now = receipt["sources"], self.known[key]
        return sorted(name for name in then | now if then.get(name) != now.get(name))


COLUMNS = ("commit", "dirty", "device", "data", "seconds", "cpu_seconds", "peak_memory_mib")


def records(build: str, dataset: str = "*") -> Iterator[dict[str, Any]]:
    """One record per finished cell below ``build``, from its receipt, with what has changed since.

    Keys: chapter, the axes of the point, `COLUMNS`, ``changed``, the names of changed sources (empty where
    the cell is up to date), and ``problem``, which file of the cell is missing or damaged (empty where none).
    """
    changes = Changes()
    for path in outputs.receipts(Path(build), dataset):
        chapter = path.name.removesuffix(ENDING)
        notebook = path.with_name(f"{chapter}.ipynb")
        if notebook.exists():
            point = path.parent.relative_to(build).parts
            row = {"chapter": chapter} | dict(zip(study.AXES, [*point, "", "", "", "", ""], strict=False))
            row |= dict.fromkeys(COLUMNS, float("nan")) | {
                "commit": "",
                "device": "",
                "data": "",
                "changed": "",
            }
            row["problem"] = outputs.problem(notebook, Path(build), thorough=True)
            if ENDING not in row["problem"]:  # its receipt can be read
                receipt = outputs.receipt(notebook)
                row |= {name: receipt[name] for name in COLUMNS}
                row["changed"] = ", ".join(changes(receipt, chapter))
            yield row


def collect(build: str, dataset: str = "*") -> pd.DataFrame:
    """All :func:`records` below ``build`` as a frame, one row per finished cell."""
    import pandas as pd

    columns = ["chapter", *study.AXES, *COLUMNS, "changed", "problem"]
    return pd.DataFrame(list(records(build, dataset)), columns=columns)
