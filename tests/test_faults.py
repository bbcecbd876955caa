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
import socket
import subprocess
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import ROOT, SOUNDS, await_that
from test_execute import Door, gone
from test_make import ALL

from lib import files
from lib.grid import execute, guard, verify

SEED = 1  # of the moments
PATIENCE = 600.0  # s for anything to happen, on a machine that does much else
SETTLE = 120.0  # s for processes to end
MISSES = 3  # before a moment that progress tells of becomes one by the clock, and before it is given up
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
            if "lib.grid.execute" in words and target in words:
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
            assert files.load(path)[0]
        elif path.suffix in (".parquet", ".csv", ".json"):
            files.load(path)


def kept(build):
    """What the next run goes on from."""
    words = []
    for path in sorted(build.rglob("checkpoint.safetensors")):
        words.append(f"{len(json.loads(files.metadata(path)['training'])['history'])} epochs")
    for path in sorted(build.rglob("*.pieces")):
        words.append(f"{len(list(path.glob('*.safetensors')))} pieces")
    for path in sorted(build.rglob("*.done"))[:1]:
        words.append(f"{path.read_bytes().count(1)} clips")
    return ", ".join(words)


def tells(real, runner, what, share):
    """Whether the progress of a runner's cell says that this share of ``what`` is done."""
    for folder in (real.folder / "tmp").glob("study-*"):
        with contextlib.suppress(FileNotFoundError):
            if (folder / execute.OWNER).read_text().split()[-1:] == [str(runner)]:
                told = re.findall(rf"(?:{what}).*? (\d+)/(\d+)", (folder / "progress").read_text())
                return any(int(done) >= share * int(total) for done, total in told)
    return False


def aim(real, make, who, cell, what, share, log):
    """Wait for the moment; who is there then, nobody if it is missed, and how long the cell had run."""
    target = f"build/small/{cell}.ipynb"
    doomed = {"both": {"guard", "runner"}}.get(who, {who})

    def missed():
        return make.poll() is not None or (real.folder / target).exists()

    await_that(
        lambda: f"build/small/{cell}: started" in log.read_text() or missed(), f"{cell} begins", PATIENCE
    )
    at = time.monotonic()
    if what:
        runner = family(make, target).get("runner", 0)
        await_that(lambda: tells(real, runner, what, share) or missed(), f"{what} in {cell}", PATIENCE)
    else:
        time.sleep(share * real.seconds[cell])
    await_that(lambda: doomed <= set(family(make, target)) or missed(), f"{who} of {cell} is born", PATIENCE)
    people = family(make, target)
    return {} if missed() or not doomed <= set(people) else people, time.monotonic() - at


def kill(real, number, who, cell, what, share):
    """Start make, kill ``who`` at the moment, let all settle, and look; a row of the report."""
    build = real.folder / "build"
    name, target = f"build/small/{cell}", f"build/small/{cell}.ipynb"
    people, missed = {}, 0
    while not people:
        log = real.folder / f"log.{number}.{share:.3f}"
        make = real.start(log, "all", "-j2", "THREADS=1")
        try:
            people, ran = aim(real, make, who, cell, what, share, log)
            for one in {"both": ["guard", "runner"]}.get(who, [who]) if people else []:
                os.kill(people[one], signal.SIGKILL)
            if not people:
                make.terminate()
            status = make.wait(PATIENCE)
            await_that(lambda: not processes(real.folder), "no process is left", SETTLE)
        finally:
            for process in processes(real.folder):
                process.kill()
        if not people:  # the cell was faster than that: undo it, and try again, sooner
            (real.folder / target).unlink(missing_ok=True)
            if cell == STORE:
                shutil.rmtree(build / "small/store")
            share /= 2
            missed += 1
            what = what if missed < MISSES else ""  # too quick to be told of
            assert missed < 2 * MISSES, f"{who} of {cell} was not there to be killed"
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
    partial = re.search(r"; executed so far: (\S+)$", last)
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
        what.replace("|", " or ") or "any moment",
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
        told = re.search(
            r"(^|/)\.|\.ipynb$|\.receipt\.json$|/store/claims$|/times\.|/(standard|adversarial)/cost\.csv$",
            inside,
        )
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
        seconds[cell] = files.load(path)["seconds"]
    return real.folder / "quiet", seconds, time.monotonic() - begin


@pytest.mark.slow
def test_a_grid_whose_processes_are_killed_twenty_times_comes_out_the_same(real, uninterrupted):
    quiet, real.seconds, undisturbed = uninterrupted
    draw = random.Random(SEED)
    rows = []
    build = real.folder / "build"
    begin = time.monotonic()
    for number, (who, cell, what) in enumerate(KILLS, start=1):
        rows.append(kill(real, number, who, cell, what, draw.uniform(0, 0.8)))
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
        f"Seed {SEED}. Undisturbed, -j1: {undisturbed:.0f} s. Killed {len(rows)} times, -j2: {taken:.0f} s, "
        f"of which the killed cells had run {lost:.0f} s. Tables, times apart, are the same.",
    ]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")


FLIPS = 0.05  # of the clips, which another batch may fool or not: those that rounding decides
ROUNDING = 0.01  # of a norm, found by another batch after many steps that each round otherwise


@pytest.mark.slow
def test_cells_at_once_and_workers_change_nothing_and_another_batch_of_attacks_only_rounds(
    real, uninterrupted
):
    """Four processes fill the store, two cells run at once, clips are attacked three at a time, not two."""
    quiet, again = uninterrupted[0], real.folder / "again"
    changed = {"02_features": {"workers": 4}, "04_attacks": {"batch": 3}}
    for chapter, values in changed.items():
        real.settings(chapter, **(SOUNDS[chapter] | values))
    try:
        status, said = real.make("all", "-j2", "THREADS=1", f"BUILD={again.name}")
    finally:
        for chapter in changed:
            real.settings(chapter, **SOUNDS[chapter])
    assert status == 0, said
    attacked = r"small/figures/|/(attacks\.parquet|examples\.safetensors): "
    assert not [line for line in the_same(quiet, again) if not re.search(attacked, line)]
    for path in quiet.rglob("04_attacks.receipt.json"):
        one, other = (
            files.load(build / path.parent.relative_to(quiet) / "attacks.parquet") for build in (quiet, again)
        )
        drawn = ["clip", "attack", "label", "target", "before"]
        pd.testing.assert_frame_equal(one[drawn], other[drawn])
        assert (one["fooled"] != other["fooled"]).mean() <= FLIPS
        both = one["fooled"] & other["fooled"]
        np.testing.assert_allclose(one["l2"][both], other["l2"][both], rtol=ROUNDING)


# ------------------------------------------------------------------------------ quick ones, on tiny chapters


def test_a_runner_ends_with_its_make(tiny):
    tiny.settings("01_data", ends="hang")
    make = tiny.start("data")
    await_that((tiny.folder / "build/runs").exists, "the chapter is at work", PATIENCE)
    make.kill()
    said = make.communicate()[0]
    assert "FAILED build/tiny/01_data: stopped by the end of its make; executed so far: build/" in said
    await_that(lambda: not processes(tiny.folder), "no process is left", SETTLE)
    tiny.settings("01_data", ends="well")
    assert tiny.make("data").returncode == 0


HALF_WRITTEN = """\
# %%
import time
from lib import files

# %% tags=["parameters"]
folder = "."  # where a file is half written
ends = "hang"

# %%
with files.atomic(folder + "/build/rows.json") as part:
    part.write_text("half of it")
    while ends == "hang":
        time.sleep(0.1)
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_what_a_killed_runner_leaves_is_swept_by_its_guard_or_by_the_next(tmp_path, guarded):
    door = Door(tmp_path)
    (tmp_path / "note.py").write_text(HALF_WRITTEN)
    runner = door.start()

    def parts():
        return [path for path, _ in guard.parts(str(tmp_path / "build"))]

    await_that(lambda: any("rows.json" in path for path in parts()), "a file is half written", PATIENCE)
    assert len(parts()) == 2, "the file, and the notebook as far as it has come"
    children = psutil.Process(runner.pid).children()
    (beside,) = [child for child in children if "guard.py" in " ".join(child.cmdline())]
    if not guarded:
        beside.kill()
    runner.kill()
    said = runner.communicate()[1]
    await_that(lambda: all(gone(child.pid) for child in children), "guard and kernel are gone", SETTLE)
    if guarded:
        assert f"FAILED {tmp_path}/build/note: its runner was killed; executed so far: " in said
        assert (tmp_path / "build/note.partial.ipynb").exists()
        assert parts() == []
        assert list((tmp_path / "tmp").iterdir()) == []
    else:
        assert len(parts()) == 2
        assert len(list((tmp_path / "tmp").iterdir())) == 1
    assert door.run("-p", "ends", "well")[0] == 0
    assert door.left() == ["note.ipynb", "note.receipt.json", "rows.json"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_parts_of_the_living_and_of_other_machines_are_left_alone(tmp_path):
    mine = tmp_path / f".rows.json.{socket.gethostname()}.{os.getpid()}.0123abcd"
    others = tmp_path / ".rows.json.elsewhere.1.0123abcd"
    named = tmp_path / "rows.json"
    for path in (mine, others, named):
        path.write_text("")
    execute._sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, others, named])
    os.utime(mine, (0, 0))  # older than the process that has this number now: another's of that number
    execute._sweep(tmp_path)
    assert not mine.exists()


def test_a_notebook_cut_off_while_it_was_written_is_not_kept(tmp_path):
    part, partial = tmp_path / "part", tmp_path / "partial"
    part.write_text('{"cells": [')
    assert not guard.keep(str(part), str(partial))
    part.write_text('{"cells": []}')
    assert guard.keep(str(part), str(partial))
    assert partial.read_text() == '{"cells": []}'


@pytest.mark.parametrize("name", ["rows.json", "rows.parquet", "rows.csv", "rows.safetensors", "rows.md"])
def test_bytes_reach_the_disk_before_the_name_and_the_name_before_we_go_on(tmp_path, monkeypatch, name):
    """What a power cut leaves is the old file or the new one."""
    happened = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        happened.append(("fsync", path.name, path.stat().st_size))
        fsync(handle)

    def watched_replace(old, new):
        happened.append(("replace", Path(old).name, Path(new).name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    content = {
        ".json": {"a": 1},
        ".parquet": pd.DataFrame({"a": [1]}),
        ".csv": pd.DataFrame({"a": [1]}),
        ".safetensors": {"a": torch.zeros(3)},
        ".md": "text",
    }[Path(name).suffix]
    files.save(tmp_path / name, content)
    (first, part, size), (second, old, new), (third, folder, _) = happened
    assert (first, second, third) == ("fsync", "replace", "fsync")
    assert (part, new, folder) == (old, name, tmp_path.name)
    assert size == (tmp_path / name).stat().st_size


@pytest.mark.slow
def test_an_executed_notebook_reaches_the_disk_before_its_name(tmp_path):
    strace = shutil.which("strace") or pytest.skip("strace is not installed")
    door, trace = Door(tmp_path), tmp_path / "trace"
    calls = "trace=fsync,rename,renameat,renameat2"
    command = [strace, "-f", "-y", "-e", calls, "-o", str(trace), *door.command()]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    lines = trace.read_text().splitlines()
    (renamed,) = [n for n, line in enumerate(lines) if re.search(r'rename.*/note\.ipynb"', line)]
    assert any("fsync" in line and "/.note." in line and ".ipynb>" in line for line in lines[:renamed])
    assert any("fsync" in line and f"{tmp_path}/build>" in line for line in lines[renamed:])
    receipt = next(n for n, line in enumerate(lines) if 'note.receipt.json"' in line)
    assert receipt < renamed, "a notebook that has its name has its receipt"


@contextlib.contextmanager
def mounted(folder, *words):
    """A file system at a folder, or a skip that says why there is none."""
    folder.mkdir(exist_ok=True, parents=True)
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip() or 'refused'}; it takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def last_words(done):
    """The last line that is not make's own."""
    return [line for line in done.stderr.splitlines() if not line.startswith(("make", "mkdir", "cat", "cp"))][
        -1
    ]


def test_a_disk_that_is_full_is_said_and_the_same_command_goes_on(tiny):
    build = tiny.folder / "build"
    with mounted(build, "-t", "tmpfs", "-o", "size=256k", "none"):
        assert tiny.make("data").returncode == 0
        before = (build / "tiny/01_data.ipynb").read_bytes()
        tiny.settings("01_data", seconds=0.1)
        assert tiny.make("data", "LAUNCH=true").returncode != 0  # settings are copied while there is room
        free = os.statvfs(build).f_bavail * os.statvfs(build).f_frsize
        (build / "ballast").write_bytes(bytes(max(free - 4096, 0)))
        done = tiny.make("data")
        assert done.returncode != 0
        assert last_words(done).startswith("FAILED build/tiny/01_data: ")
        assert "No space left on device" in last_words(done)
        assert (build / "tiny/01_data.ipynb").read_bytes() == before
        whole(build)
        (build / "ballast").unlink()
        assert tiny.make("data").returncode == 0
        assert not list(guard.parts(str(build)))


@pytest.mark.slow
def test_a_store_that_fills_the_disk_goes_on_where_it_was(real):
    build = real.folder / "full"
    with mounted(build, "-t", "tmpfs", "-o", "size=600k", "none"):
        status, said = real.make(
            f"{build.name}/small/dwt/02_features.ipynb", f"BUILD={build.name}", "THREADS=1"
        )
        assert status != 0
        assert re.search(r"^FAILED full/small/\S+: .*No space left on device", said, re.MULTILINE), said
        whole(build)
        subprocess.run(["mount", "-o", "remount,size=64m", str(build)], check=True)
        status, said = real.make(
            f"{build.name}/small/dwt/02_features.ipynb", f"BUILD={build.name}", "THREADS=1"
        )
        assert status == 0, said
        whole(build)


def test_a_build_folder_that_cannot_be_written_is_said(tiny):
    assert tiny.make("data").returncode == 0
    build = tiny.folder / "build"
    with mounted(build, "--bind", str(build)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(build)], check=True)
        assert tiny.make("data").returncode == 0, "nothing is to be done, and nothing is written"
        done = tiny.make("all")
        assert done.returncode != 0
        assert last_words(done).startswith("FAILED build/tiny/dwt/02_features: ")
        assert "Read-only file system" in last_words(done)
        tiny.settings("02_features", seconds=0.1)
        done = tiny.make("all")
        assert done.returncode != 0
        assert "BUILD='build': nothing can be written there" in done.stderr
    assert tiny.make("build/tiny/dwt/02_features.ipynb").returncode == 0


ENDS = {  # of chapter 3 at a fold: what it does, and what its runner says
    "1": ("held = bytearray(1 << 33)", "MemoryError"),
    "2": ("os.kill(os.getpid(), 9)", "the kernel died: out of memory, or killed"),
    "3": ("time.sleep(600)", "a cell ran past its time limit"),
}


def test_a_cell_that_has_no_memory_or_no_end_is_said_and_the_rest_goes_on(tiny):
    if not shutil.which("prlimit"):
        pytest.skip("prlimit is not installed")
    chapter = tiny.folder / "notebooks/03_training.py"
    text = chapter.read_text()
    lines = "".join(f"if fold == {fold!r}:\n    {line}\n" for fold, (line, _) in ENDS.items())
    chapter.write_text(f"{text}\n# %%\n{lines}")
    words = ["all", "TRAININGS=standard", "LAUNCH=prlimit --as=4294967296", "TIMEOUT=4"]
    done = tiny.make(*words, "-k", "-j2", f"FOLDS={' '.join(ENDS)} 4")
    assert done.returncode != 0
    failed = sorted(line for line in done.stderr.splitlines() if line.startswith("FAILED "))
    assert len(failed) == len(ENDS), done.stderr
    for line, (fold, (_, said)) in zip(failed, ENDS.items(), strict=True):
        cell = f"build/tiny/dwt/alexnet/{fold}/standard/03_training"
        assert line.startswith(f"FAILED {cell}: {said}"), line
        assert line.endswith(f"; executed so far: {cell}.partial.ipynb")
        nbformat.read(tiny.folder / f"{cell}.partial.ipynb", 4)
    assert (tiny.folder / "build/tiny/dwt/alexnet/4/standard/04_attacks.ipynb").exists()
    await_that(lambda: not processes(tiny.folder), "no process is left", SETTLE)
    chapter.write_text(text)
    assert tiny.make("build/tiny/dwt/alexnet/1/standard/03_training.ipynb", words[1]).returncode == 0


def test_one_of_two_makes_is_killed_and_the_other_does_all_that_is_left(tiny):
    for chapter in ("01_data", "03_training"):
        tiny.settings(chapter, seconds=1.0)
    both = [tiny.start("all", "-j2"), tiny.start("all", "-j2")]
    await_that((tiny.folder / "build/tiny/01_data.ipynb").exists, "the first chapter is finished", PATIENCE)
    both[0].kill()
    said = [make.communicate()[0] for make in both]
    assert both[1].returncode == 0, said
    assert set(tiny.runs()) == set(ALL)
    assert len(tiny.runs()) - len(ALL) <= 2, "only what the killed one was at may have run twice"
    await_that(lambda: not processes(tiny.folder), "no process is left", SETTLE)
