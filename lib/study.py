"""A point of the grid: where its files are, how they are written, which seeds it draws from.

The study is a grid of points, ``dataset/representation/model/fold/training``; a chapter at a point is
one executed notebook next to the files it writes. Only this module knows where things are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib import files

AXES = ("dataset", "representation", "model", "fold", "training")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FOLD = re.compile(r"(0|[1-9][0-9]*)(?:\.([1-9][0-9]*))?")  # one name for each: no leading zeros


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the grid, or a folder above it where the later axes are left empty.

    ``str(cell)`` is the point's path below ``build``: ``esc10/dwt/resnet18/1/standard``. A fold is text,
    ``"1"`` or ``"1.3"``: fold 1 held out, repeated with seed 3.

    Raises
    ------
    ValueError : if an axis is not a plain word, or a later axis is given without an earlier one.
    """

    build: str
    dataset: str
    representation: str = ""
    model: str = ""
    fold: str = ""
    training: str = ""

    def __post_init__(self) -> None:
        point = [getattr(self, axis) for axis in AXES]
        wrong = [
            f"{axis} = {word!r} is not a word of letters, digits, '_', '-' and '.'"
            for axis, word in zip(AXES, point, strict=True)
            if word and not _WORD.fullmatch(str(word))
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        given = [bool(word) for word in point]
        if not given[0] or given != sorted(given, reverse=True):
            raise ValueError(f"a point is named from the left, {'/'.join(AXES)}; found {point}")
        if self.fold:
            fold_and_seed(self.fold)

    def __str__(self) -> str:
        return "/".join(str(getattr(self, axis)) for axis in AXES if getattr(self, axis))

    @property
    def folder(self) -> Path:
        """The folder of this point's files."""
        return Path(self.build) / str(self)

    @property
    def seed(self) -> int:
        """The repeat: 3 of fold ``"1.3"``, 0 of ``"1"``."""
        return fold_and_seed(self.fold)[1]

    def at(self, **axes: str) -> Cell:
        """The neighbour with some axes changed: ``cell.at(training="adversarial")``."""
        return dataclasses.replace(self, **axes)

    def up(self, depth: int) -> Cell:
        """The folder that keeps the first ``depth`` axes: 1 the data set's, 2 the representation's."""
        return Cell(self.build, *[getattr(self, axis) for axis in AXES[:depth]])

    def path(self, name: str) -> Path:
        """The path of a file of this point."""
        return self.folder / name

    def save(self, name: str, content: Any) -> Path:
        """Write a frame, tensors or a dictionary whole or not at all; the name's ending decides how."""
        return files.save(self.path(name), content)

    def load(self, name: str) -> Any:
        """Read back what :meth:`save` wrote."""
        return files.load(self.path(name))


def points(build: str, dataset: str) -> Iterator[Cell]:
    """The points of a data set that hold anything, in the order of their folders."""
    root = Cell(build, dataset).folder
    for folder in sorted(root.glob("*/*/*/*/")):
        yield Cell(build, dataset, *folder.relative_to(root).parts)


def fold_and_seed(fold: str) -> tuple[int, int]:
    """Split a fold's name: ``"1.3"`` is fold 1 with seed 3, ``"1"`` is fold 1 with seed 0."""
    match = _FOLD.fullmatch(str(fold))
    if not match:
        raise ValueError(f"fold = {fold!r} is neither a number nor FOLD.SEED, such as '1' or '1.3'")
    return int(match[1]), int(match[2] or 0)


def seed_of(*words: object) -> int:
    """A seed below 2**63 that depends on the words only: the same on every machine and run."""
    drawn = hashlib.sha256("\x1f".join(map(str, words)).encode()).digest()
    return int.from_bytes(drawn[:8], "big") >> 1
