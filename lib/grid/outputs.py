"""What a cell wrote: its receipt lists the files, and a cell whose files are gone is not finished."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lib import files

ENDING = ".receipt.json"
BESIDE = (".inputs", "bench", "book", "lab")  # what make writes to BUILD besides the folders of data sets
NEEDED = {
    "parameters",
    "commit",
    "dirty",
    "device",
    "data",
    "sources",
    "seconds",
    "cpu_seconds",
    "peak_memory_mib",
}
CHECKED = 64 << 20  # bytes; larger files, models and stores, are known by their size alone


def receipts(build: Path, dataset: str = "*") -> list[Path]:
    """The receipts of a data set below ``build``, or of all."""
    found = sorted(build.glob(f"{dataset}/**/*{ENDING}"))
    return [path for path in found if path.relative_to(build).parts[0] not in BESIDE]


def receipt(notebook: Path) -> dict[str, Any]:
    """The receipt of a finished cell.

    Raises
    ------
    ValueError : if it is missing or damaged, naming it.
    """
    path = notebook.with_name(notebook.name[: -len(notebook.suffix)] + ENDING)
    try:
        found = json.loads(path.read_bytes())
        found.setdefault("files", {})  # of a study that did not list them yet
        if not found.keys() >= NEEDED or not all(isinstance(one, dict) for one in found["files"].values()):
            raise ValueError
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is damaged") from error
    return found


def written(listing: Path, root: Path) -> dict[str, dict[str, Any]]:
    """The files that a list names and that lie below ``root``: bytes and SHA-256 of each, by path.

    A file that was removed since, such as a checkpoint, is none of them. Of pictures and tables the name
    alone is kept, since ``make figures`` draws them again.
    """
    found = {}
    for line in listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []:
        path = Path(line)
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            size = path.stat().st_size
            name = path.resolve().relative_to(root.resolve()).as_posix()
            drawn = "/figures/" in name and "/rows/" not in name
            found[name] = {} if drawn else {"bytes": size}
            if size <= CHECKED and not drawn:
                found[name]["sha256"] = files.digest(path)
    return dict(sorted(found.items()))


def problem(notebook: Path, root: Path, *, thorough: bool = False) -> str:
    """What is wrong with the files of a finished cell; empty where all are as they were written.

    Parameters
    ----------
    thorough : whether contents are compared too, not sizes alone.
    """
    try:
        listed = receipt(notebook)["files"]
    except ValueError as error:
        return str(error)
    for name, entry in listed.items():
        path = os.path.join(root, name)
        try:
            size = os.stat(path).st_size
        except OSError:
            return f"{path} is missing"
        if size != entry.get("bytes", size):
            return f"{path} has {size} bytes, and {entry['bytes']} were written"
        if thorough and "sha256" in entry and files.digest(path) != entry["sha256"]:
            return f"{path} has another content than was written"
    return ""
