"""What is finished, and what is not and why (``make status``).

Which cells run is make's to say: it is asked what it would do (``make -n all``), and its answer is read here.
So status and make cannot disagree. The states of a cell are explained in ``lib/grid/README.md``.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from lib.grid import axes, receipts

_RUNS = re.compile(r"-m lib\.grid\.execute \S+ (\S+\.ipynb)")
_USUAL = {"BUILD": "build", "DATA": "data", "PARAMS": "params", "DATASETS": "demo"}
REFRESHED = ("older code", "damaged")
"""States that ``make refresh`` mends; ``make all`` sees of these only files that are missing or cut short."""


def pending(lines: Iterable[str]) -> list[Path]:
    """The notebooks that make would write, from what ``make -n`` prints."""
    text = " ".join(line.rstrip("\\\n") for line in lines)
    return [Path(word) for word in _RUNS.findall(re.sub(r" +", " ", text))]


def state(
    target: Path, build: Path, waiting: set[Path], known: dict[Path, tuple[str, str]]
) -> tuple[str, str]:
    """The state of a cell and what there is to say of it.

    Parameters
    ----------
    waiting : the notebooks that make would write.
    known : of each finished notebook the changed sources, and the problem with its files.
    """
    partial = target.with_name(f"{target.stem}.partial.ipynb")
    if partial.exists():
        return "failed", f"executed so far: {partial}"
    if not target.exists():
        return "to do", ""
    changed, problem = known.get(target) or ("", receipts.problem(target, build))
    if problem:
        return "damaged", problem
    if target in waiting:
        return _why(target, build), ""
    return ("older code", changed) if changed else ("finished", "")


def _why(target: Path, build: Path) -> str:
    """Why make would run a finished cell: its inputs have changed, or a cell that it rests on runs again."""
    inputs, dataset = build / axes.INPUTS, target.relative_to(build).parts[0]
    moment = target.stat().st_mtime_ns
    for path, what in (
        (inputs / dataset / f"{target.stem}.yaml", "changed settings"),
        (inputs / f"{target.stem}.py", "changed chapter"),
        (inputs / dataset / "clips.csv", "changed table"),
        (inputs / dataset / axes.RECORDINGS, "changed recordings"),
    ):
        if path.is_file() and path.stat().st_mtime_ns > moment:
            return what
    return "waits"


def make_status(given: Mapping[str, str]) -> None:
    """Print the state of every cell that is not finished, the counts, and the commands that go on."""
    grid = axes.grid(given)
    build, waiting = Path(grid.build), set(pending(sys.stdin))
    finished = list(receipts.records(grid.build))
    known = {Path(record["notebook"]): (record["changed"], record["problem"]) for record in finished}
    states = {path: state(path, build, waiting, known) for path in map(Path, grid.cells())}
    for path, (what, more) in states.items():
        if what != "finished":
            print(f"{what}: {path}" + (f" ({more})" if more else ""))
    counts = Counter(what for what, _ in states.values())
    print(f"{counts.pop('finished', 0)} of {len(states)} cells of this grid are finished", end="")
    print("".join(f", {count} {what}" for what, count in counts.items()), end=".\n")
    commits = ", ".join(sorted({record["commit"][:10] for record in finished})) or "none"
    hours = sum(record["cpu_seconds"] for record in finished if not record["problem"]) / 3600
    print(f"{build} has {len(finished)} finished cells, {hours:.2f} CPU hours, of commits {commits}.")
    words = [f"{name}={shlex.quote(value)}" for name, value in given.items() if _USUAL.get(name) != value]
    if waiting:
        print(f"{' '.join(['make all', *words])} runs {len(waiting)} cells")
    if any(counts[what] for what in REFRESHED):
        print(f"{' '.join(['make refresh', *words])} runs those of older code again, and what rests on them")
