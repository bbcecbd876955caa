"""What a finished cell rests on and what it wrote: its receipt, ``NAME.receipt.json`` next to ``NAME.ipynb``.

``lib.grid.execute`` writes it: parameters, commit, versions, device, data, seconds and memory, a fingerprint
of every source that the cell rests on (``lib.grid.sources``), and the files that it wrote. A cell whose files
are gone is not finished. Make asks this module at each call: what that does not need is imported later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import files

if TYPE_CHECKING:
    import pandas as pd

ENDING = ".receipt.json"
BESIDE = (".inputs", "bench", "book", "lab")  # what make writes to BUILD besides the folders of data sets
COLUMNS = ("commit", "dirty", "device", "data", "seconds", "cpu_seconds", "peak_memory_mib")
NEEDED = {"parameters", "sources", *COLUMNS}
CHECKED = 64 << 20  # bytes; larger files, models and stores, are known by their size alone
RENEWED = "files.csv"  # of `lib.data.changes`: rewritten where recordings have other times and are the same
DEPTHS = {
    "01_data": 1,
    "02_features": 2,
    "03_training": 5,
    "04_attacks": 5,
    "05_adversarial_training": 5,
    "06_analysis": 1,
    "07_beyond": 1,
}
"""How many folders below BUILD a chapter's notebook is: the axes of its point."""


def finished(build: Path, dataset: str = "*") -> list[Path]:
    """The notebooks of a data set of ``build``, or of all, that have a receipt.

    A build folder inside this one, such as ``build/small`` or ``build/lab/build``, has cells of its own. They
    are deeper than the cells of their chapter are here.
    """
    found = [
        path.with_name(f"{chapter}.ipynb")
        for chapter, depth in DEPTHS.items()
        for path in build.glob("/".join([dataset, *"*" * (depth - 1), f"{chapter}{ENDING}"]))
    ]
    return sorted(path for path in found if path.exists())


def receipt(notebook: Path) -> dict[str, Any]:
    """The receipt of a finished cell.

    Raises
    ------
    ValueError : if it is missing or damaged, naming it.
    """
    path = notebook.with_suffix(ENDING)
    try:
        found = json.loads(path.read_bytes())
        listed = found.setdefault("files", {})  # a study that did not list them yet
        whole = found.keys() >= NEEDED and all(isinstance(entry, dict) for entry in listed.values())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (ValueError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged")
    return found


def written(listing: Path, root: Path) -> dict[str, dict[str, Any]]:
    """The files that a list names and that lie below ``root``: bytes and SHA-256 of each, by path.

    A file that was removed since, such as a checkpoint, is none of them. Of pictures and tables the name
    alone is kept, since ``make figures`` draws them again.
    """
    found: dict[str, dict[str, Any]] = {}
    root = root.resolve()
    for line in listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []:
        path = Path(line).resolve()
        if path.is_file() and path.is_relative_to(root):
            name, size = path.relative_to(root).as_posix(), path.stat().st_size
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
        if os.path.basename(name) == RENEWED:
            continue
        if size != entry.get("bytes", size):
            return f"{path} has {size} bytes, and {entry['bytes']} were written"
        if thorough and "sha256" in entry and files.digest(path) != entry["sha256"]:
            return f"{path} has another content than was written"
    return ""


class Changes:
    """What has changed of the sources of cells, worked out once for all that name the same modules."""

    def __init__(self) -> None:
        from lib.grid import sources

        self.modules = sources.modules()
        self.known: dict[tuple[str, frozenset[str]], dict[str, str]] = {}

    def __call__(self, receipt: Mapping[str, Any], chapter: str) -> list[str]:
        """The names of the sources that differ from those of a receipt."""
        from lib.grid import sources

        key = chapter, sources.words(receipt["parameters"]) & self.modules
        if key not in self.known:
            notebook = Path("notebooks") / f"{chapter}.py"
            self.known[key] = sources.fingerprints(notebook, key[1]) if notebook.exists() else {}
        then, now = receipt["sources"], self.known[key]
        unused = sources.ON_A_CARD if receipt["device"] == "cpu" else frozenset()
        return sorted(name for name in then | now if then.get(name) != now.get(name) and name not in unused)


def records(build: str, dataset: str = "*") -> Iterator[dict[str, Any]]:
    """One record per finished cell below ``build``, from its receipt, with what has changed since.

    Keys: notebook (its path), chapter, the axes of the point, ``problem``, which file of the cell is missing
    or damaged (empty where none), ``changed``, the names of changed sources (empty where the cell is up to
    date), ``parameters``, ``sources``, and `COLUMNS`, whose numbers are left out where the receipt cannot be
    read.
    """
    from lib import study

    changes = Changes()
    for notebook in finished(Path(build), dataset):
        point = (*notebook.parent.relative_to(build).parts, "", "", "", "")
        row = dict(zip(study.AXES, point, strict=False))
        row |= {"notebook": str(notebook), "chapter": notebook.stem, "commit": "", "device": "", "data": ""}
        row |= {"parameters": {}, "sources": {}}
        row |= {"changed": "", "problem": problem(notebook, Path(build), thorough=True)}
        if ENDING not in row["problem"]:  # its receipt can be read
            found = receipt(notebook)
            row |= {name: found[name] for name in NEEDED}
            row["changed"] = ", ".join(changes(found, notebook.stem))
        yield row


def collect(build: str, dataset: str = "*") -> pd.DataFrame:
    """All :func:`records` below ``build`` as a frame, one row per finished cell."""
    import pandas as pd

    from lib import study

    columns = ["chapter", *study.AXES, *COLUMNS, "changed", "problem", "parameters", "sources"]
    return pd.DataFrame(list(records(build, dataset)), columns=columns)
