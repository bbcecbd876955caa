"""What is finished, what is to do, what has failed, and what is older than its code (``make status``).

Which cells run is make's to say: it is asked what it would do (``make -n all``), and its answer is read here.
So status and make cannot disagree.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib import study
from lib.grid import axes, receipts

_RUNS = re.compile(r"-m lib\.grid\.execute \S+ (\S+\.ipynb)")


def pending(lines: Iterable[str]) -> list[Path]:
    """The notebooks that make would write, from what ``make -n`` prints."""
    text = " ".join(line.rstrip("\\\n") for line in lines)
    return [Path(word) for word in _RUNS.findall(re.sub(r" +", " ", text))]


def reason(target: Path, build: Path, waiting: set[Path]) -> str:
    """Why make would run a cell: it is to do, its inputs have changed, or another cell runs before it."""
    if not target.exists():
        return "to do"
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
    return "rests on another" if waiting else "changed"


def main(argv: Sequence[str]) -> int:
    """Print the state of every cell of the grid that is not finished, then the counts."""
    grid = axes.grid(dict(word.split("=", 1) for word in argv))
    build = Path(grid.build)
    wanted = [Path(word) for word in grid.cells()]
    waiting = pending(sys.stdin)
    frame = receipts.collect(grid.build)
    old = frame[frame["changed"] != ""]
    for row in old.itertuples():
        point = "/".join(word for word in (getattr(row, axis) for axis in study.AXES) if word)
        print(f"older than its code: {point}/{row.chapter} ({row.changed})")
    partial = sorted(build.glob("**/*.partial.ipynb"))
    for path in partial:
        print(f"failed: {path}")
    for path in waiting:
        print(f"{reason(path, build, set(waiting) - {path})}: {path}")
    commits = sorted({text[:10] for text in frame["commit"]})
    print(
        f"{len(wanted) - len(waiting)} of {len(wanted)} cells of this grid are finished; "
        f"{build}: {len(frame)} finished, {len(old)} older than their code, {len(partial)} failed, "
        f"{frame['cpu_seconds'].sum() / 3600:.2f} CPU hours, commits {', '.join(commits) or 'none'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
