"""What a finished cell rests on: its receipt, and whether the code has changed since.

``lib.grid.execute`` writes ``NAME.receipt.json`` next to every executed ``NAME.ipynb``: parameters, commit,
versions, device, data, seconds and memory, and a fingerprint of every source that the cell rests on
(``lib.grid.sources``). ``make status`` and chapter 6 read them.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from lib import files, study
from lib.grid import sources

if TYPE_CHECKING:
    import pandas as pd

ENDING = ".receipt.json"
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
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    return found | {name: metadata.version(name) for name in PACKAGES}


def collect(build: str, dataset: str = "*") -> pd.DataFrame:
    """All receipts below ``build``, one row per finished cell, each with the sources that have changed since.

    Columns: chapter, the axes of the point, commit, dirty, device, data, seconds, cpu_seconds,
    peak_memory_mib and ``changed``, the names of changed sources (empty where the cell is up to date).
    """
    import pandas as pd

    modules = sources.modules()

    @functools.cache
    def now(chapter: str, words: frozenset[str]) -> dict[str, str]:
        notebook = Path("notebooks") / f"{chapter}.py"
        return sources.fingerprints(notebook, words) if notebook.exists() else {}

    kept = ("commit", "dirty", "device", "data", "seconds", "cpu_seconds", "peak_memory_mib")
    rows = []
    for path in sorted(Path(build).glob(f"{dataset}/**/*{ENDING}")):
        chapter = path.name.removesuffix(ENDING)
        if not path.with_name(f"{chapter}.ipynb").exists():
            continue
        receipt = files.load(path)
        then = receipt["sources"]
        today = now(chapter, sources.words(receipt["parameters"]) & modules)
        changed = sorted(name for name in then | today if then.get(name) != today.get(name))
        point = path.parent.relative_to(build).parts
        row = {"chapter": chapter} | dict(zip(study.AXES, [*point, "", "", "", "", ""], strict=False))
        rows.append(row | {name: receipt[name] for name in kept} | {"changed": ", ".join(changed)})
    return pd.DataFrame(rows, columns=["chapter", *study.AXES, *kept, "changed"])
