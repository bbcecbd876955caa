"""Remove what make has built, and nothing else (``make clean``)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lib.grid.axes import INPUTS
from lib.grid.receipts import BESIDE

OWN = (*BESIDE, "faults.md")
"""What make and its tests write to BUILD besides the folders of data sets."""


def clean(build: Path) -> list[Path]:
    """Remove the folders of data sets that make has built, and what it has written next to them.

    A data set was built where BUILD/.inputs has a copy of its settings.

    Returns
    -------
    What is left in BUILD, because make has not made it.

    Raises
    ------
    ValueError : if make has built nothing there.
    """
    if not build.exists():
        return []
    built = [build / path.name for path in (build / INPUTS).glob("*/")]
    own = [build / name for name in OWN]
    if not any(path.exists() for path in own):
        raise ValueError(f"BUILD={str(build)!r}: make has built nothing in this folder")
    for path in [*built, *own]:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    left = sorted(build.iterdir())
    if not left:
        build.rmdir()
    return left


def make_clean(given: Mapping[str, str]) -> None:
    """Clean BUILD and name what stays there."""
    left = clean(Path(given["BUILD"]))
    if left:
        print(f"clean: make did not make {', '.join(map(str, left))}, which stay")
