"""What the machinery costs beside the work: ``python -m tests.bench.grid``, or ``make bench-grid``.

- ``overhead``: CPU seconds of an almost empty notebook through ``lib.grid.execute``, runner, kernel and guard
  together, beside papermill's own command on the same notebook, in turn; medians and the median ratio.
- ``imports``: the same with the first code cell of the chapter that imports most, beside 6 s.
- ``noop``: seconds of ``make all`` where every cell of the full grid is there, beside 1 s.
- ``j2``: seconds of half the demo by ``-j2`` beside ``-j1``, with the threads that make chooses and with one
  thread a cell. It takes long, wants a machine that does nothing else, and is left out unless asked for.

The rows go to ``build/bench/grid.json``.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import jupytext

from lib import files
from lib.grid import receipts

LIMIT = 6.0  # CPU s of a cell that does nothing but import
NOOP = 1.0  # s
GRIDS = {  # cells to their make
    974: ["DATASETS=esc50 urbansound8k", "FOLDS=1 2 3 4 5"],
    1454: ["DATASETS=esc50 urbansound8k"],
}
PART = ["DATASETS=demo", "REPRESENTATIONS=stft dwt", "FOLDS=1"]  # of the demo
NOTEBOOK = """\
# %% tags=["parameters"]
word = "here"

# %%
print(word)
"""


def cpu(command: list[str]) -> float:
    """CPU seconds of a command and of all that it has waited for."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    process.stderr.close()
    _, status, spent = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said}")
    return spent.ru_utime + spent.ru_stime


def ours(folder: Path, source: str) -> list[str]:
    """The command that runs a percent source by the study's runner."""
    (folder / "note.py").write_text(source, encoding="utf-8")
    return [
        sys.executable,
        "-m",
        "lib.grid.execute",
        str(folder / "note.py"),
        str(folder / "ours" / "note.ipynb"),
    ]


def theirs(folder: Path, source: str) -> list[str]:
    """Papermill's own command on the same notebook."""
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    jupytext.write(notebook, folder / "note.ipynb")
    return [sys.executable, "-m", "papermill", str(folder / "note.ipynb"), str(folder / "theirs.ipynb")]


def overhead(folder: Path, pairs: int) -> dict:
    us, them = ours(folder, NOTEBOOK), theirs(folder, NOTEBOOK)
    found = []
    for pair in range(pairs + 1):  # the first warms the disk's cache
        order = (us, them) if pair % 2 else (them, us)
        taken = [cpu(command) for command in order]
        found.append(taken if pair % 2 else taken[::-1])
    return row("overhead", "papermill", *zip(*found[1:], strict=True))


def imports(folder: Path, times: int) -> dict:
    """The dearest first cell among the chapters."""
    found = {}
    for chapter in sorted(Path("notebooks").glob("0*.py")):
        code = [cell for cell in jupytext.read(chapter, fmt="py:percent").cells if cell.cell_type == "code"]
        command = ours(folder, NOTEBOOK + "\n# %%\n" + code[0].source + "\n")
        found[chapter.stem] = [cpu(command) for _ in range(times)]
        print(f"imports of {chapter.stem}: {statistics.median(found[chapter.stem]):.2f} s of CPU", flush=True)
    dearest = max(found.values(), key=statistics.median)
    return row("imports", "limit", dearest, [LIMIT] * times)


def noop(folder: Path, cells: int, words: list[str], times: int) -> dict:
    """``make all`` over a grid of finished cells: empty notebooks, with receipts of five files each."""
    command = ["make", f"PYTHON={sys.executable}", f"BUILD={folder}", "all", *words]
    dry = subprocess.run([*command, "-n"], capture_output=True, text=True, check=True).stdout
    copies = [*command[:3], "status", *words]  # any verb copies the inputs, a dry run does not
    subprocess.run(copies, capture_output=True, check=True)
    targets = re.findall(rf"{re.escape(str(folder))}/\S+\.ipynb(?= +--timeout)", dry.replace("\\\n", " "))
    if len(targets) != cells:
        raise RuntimeError(f"a grid of {len(targets)} cells, {cells} were said")
    for target in targets:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        listed = {}
        for name in ("a.parquet", "b.csv", "c.csv", "d.safetensors", "e.json"):
            path = Path(target).with_name(f"{Path(target).stem}.{name}")
            path.touch()
            listed[str(path.relative_to(folder))] = {"bytes": 0, "sha256": "0" * 64}
        sources = {f"lib/module_{number}.py": "0" * 16 for number in range(60)}
        receipt = dict.fromkeys(receipts.NEEDED, "") | {"files": listed, "sources": sources}
        receipt["parameters"] = {f"name_{n}": n for n in range(40)}
        Path(target).with_suffix(".receipt.json").write_text(json.dumps(receipt, indent=1))
        Path(target).touch()
    for dataset in folder.iterdir():
        (dataset / "figures").mkdir(exist_ok=True)
        for name in ("table.md", "figure.png"):
            (dataset / "figures" / name).touch()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        taken.append(time.perf_counter() - begin)
        if "started" in said.stderr:
            raise RuntimeError("a finished cell was run again")
    return row(f"noop {cells}", "limit", taken, [NOOP] * times)


def parallel(folder: Path) -> list[dict]:
    """Wall seconds of the part of the demo, two cells at once and one after another."""
    cores = len(os.sched_getaffinity(0))
    taken: dict[tuple[int, int], float] = {}

    def seconds(jobs: int, threads: int) -> float:
        """Of one run; on two cores, -j2 gives a cell one thread by itself."""
        if (jobs, threads) not in taken:
            build = folder / f"j{jobs}_{threads}"
            command = ["make", f"PYTHON={sys.executable}", f"BUILD={build}", "all", f"-j{jobs}", *PART]
            begin = time.perf_counter()
            subprocess.run([*command, f"THREADS={threads}"], check=True)
            taken[jobs, threads] = time.perf_counter() - begin
        return taken[jobs, threads]

    return [
        row(what, "j1", [seconds(2, threads[0])], [seconds(1, threads[1])])
        for what, threads in {"j2": (max(1, cores // 2), cores), "j2, one thread": (1, 1)}.items()
    ]


def row(what: str, peer: str, us: list[float], them: list[float]) -> dict:
    ratio = statistics.median(b / a for a, b in zip(us, them, strict=True))
    return {
        "what": what,
        "peer": peer,
        "ours": round(statistics.median(us), 3),
        "theirs": round(statistics.median(them), 3),
        "ratio": round(ratio, 3),
        "unit": "s",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--pairs", type=int, default=5, help="of our runner and papermill's")
    parser.add_argument("--j2", action="store_true", help="half the demo, three or four times: half an hour")
    given = parser.parse_args()
    # Of the make above, nothing is passed on to those below.
    for name in [name for name in os.environ if name.startswith(("MAKE", "MFLAGS"))]:
        del os.environ[name]
    load = os.getloadavg()[0]
    header = {
        "versions": {name: metadata.version(name) for name in ("papermill", "ipykernel", "torch")},
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(load, 1),
        "pairs": given.pairs,
    }
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows.append(overhead(folder, given.pairs))
        rows.append(imports(folder, 3))
        rows += [noop(folder / str(cells), cells, words, 5) for cells, words in GRIDS.items()]
        if given.j2:
            header["part"] = " ".join(PART)
            rows += parallel(folder)
    path = files.save(Path(given.build) / "bench" / "grid.json", [header, *rows])
    wanted = {"overhead": 1.0, "imports": 1.0, "noop 974": 1.0, "noop 1454": 1.0, "j2": 1.0}
    wanted["j2, one thread"] = 1.6
    for found in rows:
        reach = wanted[found["what"]]
        print(
            f"{found['what']:16} {found['ours']:9.3f} {found['peer']:10} {found['theirs']:9.3f} s  ratio "
            f"{found['ratio']:.2f}, {'holds' if found['ratio'] >= reach else 'MISSED'} ({reach:g})"
        )
    print(json.dumps(header))
    print(path)


if __name__ == "__main__":
    main()
