"""Do finished cells come out the same again? A random part of them is run once more and compared.

A cell is run in a shadow of its build folder, where what it reads is a link to the grid; neither its own
notebook is there nor what came after it. What it writes is compared with what it wrote first, apart from
times: tables value by value, tensors bit by bit, other files byte by byte.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from lib import files
from lib.grid import execute, lab, receipts
from lib.grid.words import Refused

Tensors = tuple[dict[str, torch.Tensor], dict[str, str]]

TIMED = ("seconds", "cpu_seconds", "images_per_second")
"""Columns that no two runs share."""

STORE = "02_features"  # the chapter whose store is its own, and is not linked

LAST = ("06_analysis", "07_beyond")  # chapters that look at whatever is there; no cell rests on them

SHOWN = 80  # letters of a value that differs


def again(target: Path, build: Path, shadow: Path) -> list[Path]:
    """Run the cell of the notebook ``target`` once more, below ``shadow``.

    Returns
    -------
    The files that it wrote, as paths below ``build``, without notebooks and receipts.

    Raises
    ------
    RuntimeError : if it fails, with the runner's last line.
    """
    receipt, dataset = receipts.receipt(target), target.relative_to(build).parts[0]
    unseen = _after(target, build, target.stat().st_mtime - receipt["seconds"])
    unseen |= {target.with_suffix(ending) for ending in (".ipynb", ".partial.ipynb", receipts.ENDING)}

    def read(path: Path) -> bool:
        store = target.stem == STORE and path.relative_to(build).parts[1] == "store"
        return not store and path not in unseen

    lab.link(build, dataset, shadow, read)
    settings = shadow / "settings.yaml"  # as text of the command line, 1e-05 would be refused
    values = receipt["parameters"] | {"build": str(shadow)}
    settings.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "lib.grid.execute", f"notebooks/{target.stem}.py"]
    command += [str(shadow / target.relative_to(build)), "-f", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    made = [
        path for path in sorted((shadow / dataset).rglob("*")) if path.is_file() and not path.is_symlink()
    ]
    made = [path.relative_to(shadow) for path in made if not path.name.startswith(".")]
    return [path for path in made if build / path not in unseen]


def _after(target: Path, build: Path, began: float) -> set[Path]:
    """The files of later cells, which a cell of chapter 6 or 7 did not see; the others look at no such files.

    What it rests on ended before it did, else make would run it again. Chapters 6 and 7 may run at once.
    """
    found: set[Path] = set()
    ended = target.stat().st_mtime
    for cell in receipts.finished(build, target.relative_to(build).parts[0]) if target.stem in LAST else []:
        if cell != target and cell.stat().st_mtime > (began if cell.stem in LAST else ended):
            written = receipts.receipt(cell)["files"]
            found |= {cell, cell.with_suffix(receipts.ENDING), *(build / name for name in written)}
    return found


def difference(one: Path, other: Path) -> str:
    """What differs between two files that a cell wrote; empty where they have the same content."""
    if not one.exists():
        return "was not there"
    if one.suffix in (".parquet", ".csv"):
        return _of_frames(files.load(one), files.load(other))
    if one.suffix == ".safetensors":  # whose header comes in another order each time
        return _of_tensors(files.load(one), files.load(other))
    return "" if one.read_bytes() == other.read_bytes() else "other bytes"


def _of_frames(one: pd.DataFrame, other: pd.DataFrame) -> str:
    one, other = (frame.drop(columns=[*TIMED], errors="ignore") for frame in (one, other))
    if list(one.columns) != list(other.columns) or len(one) != len(other):
        return f"{one.shape} values became {other.shape}"
    for column in one:
        before, after = (frame[column].map(_of_list) for frame in (one, other))
        same = (before == after) | (before.isna() & after.isna())
        if not same.all():
            row = int((~same).to_numpy().argmax())
            old, new = (str(values.iloc[row])[:SHOWN] for values in (before, after))
            return f"{column}: {old} became {new}, and {(~same).sum() - 1} values more"
    return ""


def _of_list(value: Any) -> Any:
    """A list in a table as text, in which NaN is equal to itself; any other value as it is."""
    return str(value.tolist()) if isinstance(value, np.ndarray) else value


def _of_tensors(one: Tensors, other: Tensors) -> str:
    (before, header), (after, new_header) = one, other
    if header != new_header:
        return f"its header {header} became {new_header}"
    if list(before) != list(after):
        return f"{', '.join(before)} became {', '.join(after)}"
    for name in before:
        old, new = before[name].numpy(), after[name].numpy()
        if (old.dtype, old.shape, old.tobytes()) != (new.dtype, new.shape, new.tobytes()):
            return f"{name}: other values"
    return ""


def compare(target: Path, build: Path) -> tuple[int, list[str]]:
    """Run a finished cell again: how many files it wrote, and what differs."""
    shadow = execute.temporary()
    try:
        texts = {name: difference(build / name, shadow / name) for name in again(target, build, shadow)}
    except (RuntimeError, OSError, ValueError) as error:  # of this cell; the others are still compared
        return 0, [str(error)]
    finally:
        shutil.rmtree(shadow)
    return len(texts), [f"{path}: {text}" for path, text in texts.items() if text]


def make_verify(given: Mapping[str, str]) -> int:
    """Run a random tenth (SHARE) of the finished cells again and report whether they come out the same."""
    build, share = Path(given["BUILD"]), given.get("SHARE") or "0.1"
    if not (re.fullmatch(r"[0-9]*\.?[0-9]+", share) and 0 < float(share) <= 1):
        raise Refused(f"SHARE={share!r}: a number above 0 is needed, of 1 at the most")
    found = receipts.finished(build)
    if not found:
        raise ValueError(f"{build} has no finished cell")
    chosen = random.sample(found, max(1, round(float(share) * len(found))))
    wrong = 0
    for target in sorted(chosen):
        count, differences = compare(target, build)
        wrong += bool(differences)
        what = "differs" if differences else f"the same ({count} files)"
        print(f"{target.with_suffix('').relative_to(build)}: {what}", *differences, sep="\n  ", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} cells came out the same, of {len(found)} finished ones")
    return bool(wrong)
