"""Do finished cells come out the same again? A random part of them is run once more and compared.

A cell is run in a shadow of its build folder, where everything that it reads is a link to what lies there
and nothing of its own is; so nothing that was there is touched. Whatever it leaves is compared with what it
left the first time, seconds apart: tables value by value, tensors bit by bit, other files byte by byte.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lib import files
from lib.grid import execute, receipts

if TYPE_CHECKING:
    import pandas as pd
    import torch

    Tensors = tuple[dict[str, torch.Tensor], dict[str, str]]

TIMED = ("seconds", "cpu_seconds", "images_per_second")
"""Columns that no two runs share."""

STORE = "02_features"  # the chapter whose store is its own, and is not linked


def again(target: Path, build: Path, shadow: Path) -> list[Path]:
    """Run the cell that left the notebook ``target`` once more, below ``shadow``.

    Returns
    -------
    The files that it left, as they would lie below ``build``, notebooks and receipts apart.

    Raises
    ------
    RuntimeError : if it fails, with the runner's last line.
    """
    receipt = files.load(target.with_suffix(receipts.ENDING))
    point = target.parent.relative_to(build)
    told = {f"{target.stem}{ending}" for ending in (".ipynb", ".partial.ipynb", receipts.ENDING)}
    dataset = point.parts[0]
    for path in sorted((build / dataset).rglob("*")):
        inside = path.relative_to(build)
        own = path.parent == target.parent and path.name in told
        store = target.stem == STORE and inside.parts[1] == "store"
        if path.is_file() and not own and not store and not path.name.startswith("."):
            link = shadow / inside
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    values = receipt["parameters"] | {"build": str(shadow)}
    words = [f"notebooks/{target.stem}.py", str(shadow / point / target.name)]
    for name, value in values.items():
        words += ["-p", name, value if isinstance(value, str) else str(value)]
    command = [sys.executable, "-m", "lib.grid.execute", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found = [path for path in sorted((shadow / dataset).rglob("*")) if path.is_file()]
    made = [
        path for path in found if not (path.is_symlink() or path.name.startswith(".") or path.name in told)
    ]
    return [build / path.relative_to(shadow) for path in made]


def difference(one: Path, other: Path) -> str:
    """What differs between two files that a cell left; empty where they tell the same."""
    if not one.exists():
        return "was not there"
    if one.suffix in (".parquet", ".csv"):
        return _of_frames(files.load(one), files.load(other))
    if one.suffix == ".safetensors":  # whose header comes in another order each time
        return _of_tensors(files.load(one), files.load(other))
    return "" if one.read_bytes() == other.read_bytes() else "other bytes"


def _of_frames(one: pd.DataFrame, other: pd.DataFrame) -> str:
    one, other = (frame.drop(columns=[c for c in TIMED if c in frame]) for frame in (one, other))
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
    (before, told), (after, told_after) = one, other
    if told != told_after:
        return f"its header {told} became {told_after}"
    if list(before) != list(after):
        return f"{', '.join(before)} became {', '.join(after)}"
    for name, tensor in before.items():
        same = tensor.dtype == after[name].dtype and tensor.shape == after[name].shape
        if not (same and tensor.numpy().tobytes() == after[name].numpy().tobytes()):
            return f"{name}: other values"
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run a random part of the finished cells once more and say whether they come out the same."""
    parser = argparse.ArgumentParser(prog="make verify", description=main.__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--share", type=float, default=0.1, help="of the finished cells; at least one is run")
    parser.add_argument("--seed", type=int, help="of the draw; a new one each time where it is not given")
    parser.add_argument("--only", default="", help="a part of the paths: 04_attacks, or esc10/dwt")
    given = parser.parse_args(argv)
    found = [path.with_name(path.name.replace(receipts.ENDING, ".ipynb"))
             for path in sorted(given.build.rglob(f"*{receipts.ENDING}"))]  # fmt: skip
    found = [path for path in found if path.exists() and given.only in str(path)]
    if not found:
        print(f"verify: no finished cell lies in {given.build}", file=sys.stderr)
        return 1
    count = max(1, round(given.share * len(found)))
    chosen = random.Random(given.seed).sample(found, count)
    wrong = 0
    for target in sorted(chosen):
        name = target.with_suffix("").relative_to(given.build)
        shadow = execute.temporary()
        try:
            files = again(target, given.build, shadow)
            said = [
                f"{path.relative_to(given.build)}: {text}"
                for path in files
                if (text := difference(path, shadow / path.relative_to(given.build)))
            ]
        except RuntimeError as error:
            files, said = [], [str(error)]
        finally:
            shutil.rmtree(shadow)
        wrong += bool(said)
        told = "differs" if said else f"the same ({len(files)} files)"
        print(f"{name}: {told}", *said, sep="\n  ", flush=True)
    print(f"{count - wrong} of {count} cells came out the same, of {len(found)} finished ones")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
