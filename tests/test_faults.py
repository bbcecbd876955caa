"""A grid that survives: processes killed at any moment, disks that fill, folders that cannot be written.

What was killed, when, and what was found after is written to ``build/faults.md``.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from conftest import ROOT, SOUNDS, outside
from safetensors import safe_open

from lib import execute, guard, study, verify

SEED = 1  # of the moments
PATIENCE = 600.0  # s for anything to happen, on a machine that does much else
SETTLE = 120.0  # s for processes to end
REPORT = ROOT / "build" / "faults.md"

STORE, TRAINED, DEFENDED, ATTACKED, ATTACKED_TOO = (
    "dwt/02_features",
    "dwt/resnet56/1/standard/03_training",
    "dwt/resnet56/1/adversarial/05_adversarial_training",
    "dwt/resnet56/1/standard/04_attacks",
    "dwt/resnet56/1/adversarial/04_attacks",
)
# Twenty kills in the order of the graph: who, in which cell, and while its progress tells of what; where
# nothing is said, at any moment of the cell. "both" are guard and runner together.
KILLS = [
    ("kernel", "01_data", ""),
    ("kernel", STORE, "dwt"),
    ("runner", STORE, "dwt"),
    ("make", STORE, "dwt"),
    ("runner", STORE, ""),
    ("kernel", TRAINED, "training"),
    ("runner", TRAINED, "training"),
    ("make", TRAINED, "training"),
    ("both", TRAINED, "training"),
    ("runner", DEFENDED, "training"),
    ("kernel", DEFENDED, "training"),
    ("make", DEFENDED, ""),
    ("kernel", ATTACKED, "BIM|JSMA"),
    ("runner", ATTACKED, "CWA|FGSM"),
    ("make", ATTACKED, "DeepFool|CWA|FGSM"),
    ("runner", ATTACKED, ""),
    ("both", ATTACKED_TOO, "BIM|JSMA"),
    ("kernel", ATTACKED_TOO, ""),
    ("make", "06_analysis", ""),
    ("guard", "07_beyond", ""),
]


def await_that(holds, what, seconds=PATIENCE):
    """Wait for what ``holds`` gives, until it is anything."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"it did not come to pass: {what}"
        time.sleep(0.02)
    return found


def processes(folder):
    """All that work in a folder, or were started from there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def family(make, target):
    """Runner, kernel and guard of a cell under a make, as far as they have been born."""
    found = {"make": make.pid}
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(make.pid).children(recursive=True):
            words = process.cmdline()
            if "lib.execute" in words and target in words:
                found["runner"] = process.pid
                for child in process.children():
                    for name, sign in (("kernel", "ipykernel_launcher"), ("guard", "guard.py")):
                        if any(word.endswith(sign) for word in child.cmdline()):
                            found[name] = child.pid
    return found


def whole(build):
    """Every file that has its name can be read, and every notebook is executed to its end."""
    for path in build.rglob("*"):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix == ".ipynb":
            notebook = nbformat.read(path, 4)
            nbformat.validate(notebook)
            if not path.name.endswith(".partial.ipynb"):
                code = [cell for cell in notebook.cells if cell.cell_type == "code"]
                assert all(cell.execution_count for cell in code), f"{path} is not executed to its end"
                assert path.with_suffix(".receipt.json").exists()
        elif path.suffix == ".npy":
            assert np.load(path, mmap_mode="r").size
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                assert list(file.keys())
        elif path.suffix in (".parquet", ".csv", ".json"):
            study.load(path)


def kept(build):
    """What the next run goes on from."""
    words = []
    for path in sorted(build.rglob("checkpoint.safetensors")):
        with safe_open(path, framework="np") as file:
            words.append(f"{len(json.loads(file.metadata()['run'])['history'])} epochs")
    for path in sorted(build.rglob("*.pieces")):
        words.append(f"{len(list(path.glob('*.safetensors')))} pieces")
    for path in sorted(build.rglob("*.done"))[:1]:
        words.append(f"{path.read_bytes().count(1)} clips")
    return ", ".join(words)


def tells(real, runner, what):
    """Whether the progress of a runner's cell speaks of ``what``."""
    for folder in (real.folder / "tmp").glob("study-*"):
        with contextlib.suppress(FileNotFoundError):
            if (folder / execute.OWNER).read_text().split()[-1:] == [str(runner)]:
                return re.search(what, (folder / "progress").read_text())
    return None


def aim(real, make, who, cell, what, delay, log):
    """Wait for the moment; who is there then, and how long the cell had run. Nobody if the moment is missed."""
    target = f"build/small/{cell}.ipynb"
    doomed = {"both": {"guard", "runner"}}.get(who, {who})

    def missed():
        return make.poll() is not None or (real.folder / target).exists()

    await_that(lambda: f"build/small/{cell}: begun" in log.read_text() or missed(), f"{cell} begins")
    at = time.monotonic()
    if what:
        runner = family(make, target).get("runner", 0)
        await_that(lambda: tells(real, runner, what) or missed(), f"{what} in {cell}")
    time.sleep(delay)
    await_that(lambda: doomed <= set(family(make, target)) or missed(), f"{who} of {cell} is born")
    people = family(make, target)
    return {} if missed() or not doomed <= set(people) else people, time.monotonic() - at


def kill(real, number, who, cell, what, delay):
    """Start make, kill ``who`` at the moment, let all settle, and look; a row of the report."""
    build = real.folder / "build"
    name, target = f"build/small/{cell}", f"build/small/{cell}.ipynb"
    people = {}
    while not people:
        (real.folder / target).unlink(missing_ok=True)
        log = real.folder / f"log.{number}.{delay:.2f}"
        make = real.start(log, "all", "-j2", "THREADS=1")
        try:
            people, ran = aim(real, make, who, cell, what, delay, log)
            for one in {"both": ["guard", "runner"]}.get(who, [who]) if people else []:
                os.kill(people[one], signal.SIGKILL)
            if not people:
                make.terminate()
                delay /= 2
            status = make.wait(PATIENCE)
            await_that(lambda: not processes(real.folder), "no process is left", SETTLE)
        finally:
            for process in processes(real.folder):
                process.kill()
    assert (status == 0) == (who == "guard"), log.read_text()
    said = log.read_text().splitlines()
    failed = [line for line in said if line.startswith("FAILED ") and name in line]
    if who == "guard":
        assert not failed
        last = "(none: the cell goes on)"
    elif who == "both" or "guard" not in people:
        last = next(line for line in reversed(said) if line.startswith("make: ***") and target in line)
    else:
        last = failed[-1]
    partial = re.search(r"; as far as it came: (\S+)$", last)
    if partial:
        nbformat.read(real.folder / partial[1], 4)
    whole(build)
    left = [path for path, _ in guard.parts(str(build))]
    folders = list((real.folder / "tmp").glob("study-*"))
    if who != "both":
        assert not left, left
        assert not folders, folders
    rows = [
        number,
        who,
        cell,
        what or "any moment",
        f"{ran:.1f}",
        kept(build) or "-",
        len(left) + len(folders),
    ]
    return [*rows, f"`{last}`"]


def tables(build):
    """What a grid says, times apart: each file of it that is no notebook, receipt or input."""
    found = {}
    for path in sorted(build.rglob("*")):
        inside = path.relative_to(build).as_posix()
        told = re.search(r"(^|/)\.|\.ipynb$|\.receipt\.json$|/store/claims$|/(cost|times|cells)\b", inside)
        if path.is_file() and not told:
            found[inside] = path
    return found


def the_same(one, other):
    """What differs between two finished grids; empty where they say the same."""
    before, after = tables(one), tables(other)
    said = [f"{name} is in one only" for name in sorted(set(before) ^ set(after))]
    for name in sorted(set(before) & set(after)):
        if before[name].read_bytes() != after[name].read_bytes():
            said += [f"{name}: {text}" for text in [verify.difference(before[name], after[name])] if text]
    return said


@pytest.fixture(scope="module")
def uninterrupted(real):
    """The grid as it comes out when nobody disturbs it, one cell after another, and its seconds a cell."""
    begin = time.monotonic()
    status, said = real.make("all", "-j1", "THREADS=1")
    assert status == 0, said
    shutil.move(real.folder / "build", real.folder / "quiet")
    seconds = {}
    for path in (real.folder / "quiet" / "small").rglob("*.receipt.json"):
        cell = path.relative_to(real.folder / "quiet" / "small").as_posix().removesuffix(".receipt.json")
        seconds[cell] = study.load(path)["seconds"]
    return real.folder / "quiet", seconds, time.monotonic() - begin


@pytest.mark.slow
def test_a_grid_whose_processes_are_killed_twenty_times_comes_out_the_same(real, uninterrupted):
    quiet, seconds, undisturbed = uninterrupted
    draw = random.Random(SEED)
    rows = []
    build = real.folder / "build"
    begin = time.monotonic()
    for number, (who, cell, what) in enumerate(KILLS, start=1):
        delay = draw.uniform(0, (0.3 if what else 0.8) * seconds[cell])
        rows.append(kill(real, number, who, cell, what, delay))
        print(*rows[-1], sep=" | ", flush=True)
    status, said = real.make("all", "-j2", "THREADS=1")
    taken = time.monotonic() - begin
    assert status == 0, said
    assert the_same(quiet, build) == []
    assert not list(guard.parts(str(build)))
    assert not list(build.rglob("*.pieces")), "pieces of a finished climb are left"
    assert not list(build.rglob("checkpoint.safetensors"))
    assert not list((real.folder / "tmp").glob("study-*"))
    head = "| # | killed | in | while | cell had run, s | kept | left to the next run | last line |"
    lines = [head, "|" + "---|" * 8, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]
    lost = sum(float(row[4]) for row in rows if row[1] != "guard")
    lines += [
        "",
        f"Seed {SEED}. Undisturbed, -j1: {undisturbed:.0f} s. Killed {len(rows)} times, -j2: {taken:.0f} s, of "
        f"which the killed cells had run {lost:.0f} s. Tables, times apart, are the same.",
    ]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")


@pytest.mark.slow
def test_the_tables_do_not_depend_on_batch_or_workers(real, uninterrupted):
    """Four processes fill the store, two threads compute, and clips are attacked three at once, not two."""
    quiet = uninterrupted[0]
    real.settings("02_features", **(SOUNDS["02_features"] | {"workers": 4}))
    build = "again"
    try:
        status, said = real.make("all", "-j2", "THREADS=1", f"BUILD={build}")
    finally:
        real.settings("02_features", **SOUNDS["02_features"])
    assert status == 0, said
    assert the_same(quiet, real.folder / build) == []
