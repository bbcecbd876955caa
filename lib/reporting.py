"""What a running chapter reports to its runner: how far it is, and facts for its receipt."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

PROGRESS = "STUDY_PROGRESS"  # environment variable: the file that the runner shows on the terminal
NOTES = "STUDY_NOTES"  # environment variable: the file of what a kernel adds to its cell's receipt
_PROGRESS_EVERY = 0.5  # s between two lines of one loop


def note(name: str, value: str) -> None:
    """Add a fact that only the kernel knows to its cell's receipt; elsewhere it is dropped."""
    where = os.environ.get(NOTES)
    if where:
        with open(where, "a", encoding="utf-8") as file:
            file.write(json.dumps({name: value}) + "\n")


def notes(path: Path) -> dict[str, str]:
    """What a kernel noted in ``path``, the last word on each name."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        found |= json.loads(line)
    return found


def track(iterable: Iterable, what: str, total: int | None = None) -> Iterator:
    """Go through ``iterable`` and report to the runner how far it is; the notebook keeps nothing of it.

    Under ``lib.grid.execute`` the terminal of make shows the cell, what it does, done/total, rate and the
    time left. Elsewhere it is the plain iterable.
    """
    where = os.environ.get(PROGRESS)
    if not where:
        return iter(iterable)
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    left = "/{total_fmt}, {rate_noinv_fmt}, {remaining} left" if total else ", {rate_noinv_fmt}"
    bar = _Bar(
        iterable,
        desc=what,
        total=total,
        unit="",
        file=_Lines(where),
        mininterval=_PROGRESS_EVERY,
        miniters=1,
        bar_format="{desc} {n_fmt}" + left,
    )
    return iter(bar)


class _Bar(tqdm):
    """tqdm without a thread of its own, which a kernel that forks could not bear."""

    monitor_interval = 0


class _Lines:
    """The runner's file, one line per state of a bar. The runner may be gone, which stops no computation."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, text: str) -> None:
        if text.strip():
            with contextlib.suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
                file.write(text.strip() + "\n")

    def flush(self) -> None:
        pass
