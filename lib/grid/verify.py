"""Do finished cells come out the same again? A random part of them is run once more and compared.

A cell is run in a shadow of its build folder, where what it reads is a link to the grid and nothing of its
own is there. What it writes is compared with what it wrote first, apart from times: tables value by value,
tensors bit by bit, other files byte by byte.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch

from lib import files
from lib.grid import execute, lab, receipts

Tensors = tuple[dict[str, torch.Tensor], dict[str, str]]

TIMED = ("seconds", "cpu_seconds", "images_per_second")
"""Columns that no two runs share."""

STORE = "02_features"  # the chapter whose store is its own, and is not linked


def again(target: Path, build: Path, shadow: Path) -> list[Path]:
    """Run the cell of the notebook ``target`` once more, below ``shadow``.

    Returns
    -------
    The files that it wrote, as paths below ``build``, without notebooks and receipts.

    Raises
    ------
    RuntimeError : if it fails, with the runner's last line.
    """
    own = {f"{target.stem}{ending}" for ending in (".ipynb", ".partial.ipynb", receipts.ENDING)}
    dataset = target.relative_to(build).parts[0]

    def read(path: Path) -> bool:
        store = target.stem == STORE and path.relative_to(build).parts[1] == "store"
        return not store and not (path.parent == target.parent and path.name in own)

    lab.link(build, dataset, shadow, read)
    command = [sys.executable, "-m", "lib.grid.execute", f"notebooks/{target.stem}.py"]
    command.append(str(shadow / target.relative_to(build)))
    for name, value in (receipts.receipt(target)["parameters"] | {"build": shadow}).items():
        command += ["-p", name, str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    made = [
        path for path in sorted((shadow / dataset).rglob("*")) if path.is_file() and not path.is_symlink()
    ]
    made = [path for path in made if not path.name.startswith(".") and path.name not in own]
    return [path.relative_to(shadow) for path in made]


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
        before, after = one[column], other[column]
        same = (before == after) | (before.isna() & after.isna())
        if not same.all():
            row = int((~same).to_numpy().argmax())
            changed = f"{before.iloc[row]} became {after.iloc[row]}"
            return f"{column}: {changed}, and {(~same).sum() - 1} values more"
    return ""


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
    except RuntimeError as error:
        return 0, [str(error)]
    finally:
        shutil.rmtree(shadow)
    return len(texts), [f"{path}: {text}" for path, text in texts.items() if text]


def make_verify(given: Mapping[str, str]) -> int:
    """Run a random tenth (SHARE) of the finished cells again and report whether they come out the same."""
    build = Path(given["BUILD"])
    found = receipts.finished(build)
    if not found:
        raise ValueError(f"{build} has no finished cell")
    chosen = random.sample(found, max(1, round(float(given.get("SHARE", 0.1)) * len(found))))
    wrong = 0
    for target in sorted(chosen):
        count, differences = compare(target, build)
        wrong += bool(differences)
        what = "differs" if differences else f"the same ({count} files)"
        print(f"{target.with_suffix('').relative_to(build)}: {what}", *differences, sep="\n  ", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} cells came out the same, of {len(found)} finished ones")
    return bool(wrong)
