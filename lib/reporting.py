"""What a running chapter reports to its runner: how far it is, and facts for its receipt."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

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
    """Go through ``iterable`` and tell the runner how far it is; the notebook keeps nothing of it.

    Under ``lib.grid.execute`` the terminal of make shows the cell, what it does, done/total, rate and the
    time left. Elsewhere it is the plain iterable.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    where = os.environ.get(PROGRESS)
    if not where:
        yield from iterable
        return
    begin = last = time.monotonic()
    for done, item in enumerate(iterable):
        now = time.monotonic()
        if done and now - last >= _PROGRESS_EVERY:
            last = now
            _tell(where, what, done, total, now - begin)
        yield item


def _tell(where: str, what: str, done: int, total: int | None, seconds: float) -> None:
    rate = done / seconds
    line = f"{what} {done}" + (f"/{total}" if total else "") + f", {rate:.3g}/s"
    if total:
        left = round((total - done) / rate)
        line += f", {left // 60}:{left % 60:02d} left"
    # The runner may be gone; a line of progress is no reason to stop a computation.
    with contextlib.suppress(OSError), open(where, "a", encoding="utf-8") as file:
        file.write(line + "\n")
