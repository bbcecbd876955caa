"""The strict door to papermill: parameters, targets that appear whole or not at all, kernels that end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from conftest import await_that

from lib.grid import execute, guard

NOTEBOOK = """\
# %%
import os
import subprocess
import time
from pathlib import Path

# %% tags=["parameters"]
folder = "."  # where traces are left
ends = "well"

# %%
child = subprocess.Popen(["sleep", "600"])
Path(folder, "pids").write_text(f"{os.getpid()} {child.pid}")
match ends:
    case "error":
        raise ValueError("the cell that fails")
    case "dead":
        os._exit(9)
    case "memory":
        raise MemoryError
    case "early":
        raise SystemExit
    case "hang":
        time.sleep(600)
    case "overtaken":
        Path(folder, "build/note.ipynb").write_text("another's")
print("well")
"""


class Door:
    def __init__(self, folder):
        self.folder = folder
        self.target = folder / "build" / "note.ipynb"
        (folder / "note.py").write_text(NOTEBOOK)

    def command(self, *words):
        paths = [str(self.folder / "note.py"), str(self.target), "-p", "folder", str(self.folder)]
        return [sys.executable, "-m", "lib.grid.execute", *paths, *words]

    def start(self, *words):
        (self.folder / "tmp").mkdir(exist_ok=True)
        environment = os.environ | {"TMPDIR": str(self.folder / "tmp")}
        return subprocess.Popen(self.command(*words), env=environment, stderr=subprocess.PIPE, text=True)

    def run(self, *words):
        """The exit status and what was said."""
        with self.start(*words) as runner:
            said = runner.communicate(timeout=120)[1]
        return runner.returncode, said

    def pids(self):
        """The kernel and the child that it started, once they are there."""
        path = self.folder / "pids"
        await_that(path.exists)
        await_that(lambda: len(path.read_text().split()) == 2)
        return [int(word) for word in path.read_text().split()]

    def left(self):
        return sorted(path.name for path in self.target.parent.iterdir())


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


def is_kernel(process):
    try:
        return "ipykernel_launcher" in process.cmdline()
    except psutil.Error:  # it was gone before it was looked at
        return False


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_cell_leaves_its_notebook_and_its_receipt_and_nothing_else(door):
    status, said = door.run()
    assert status == 0, said
    assert door.left() == ["note.ipynb", "note.receipt.json"]
    receipt = json.loads((door.target.parent / "note.receipt.json").read_text())
    assert receipt["parameters"] == {"folder": str(door.folder)}
    assert receipt["versions"]["torch"]
    assert receipt["cpu_seconds"] > 0
    assert receipt["peak_memory_mib"] > 10
    cells = nbformat.read(door.target, 4).cells
    assert [output.text for output in cells[-1].outputs] == ["well\n"]
    assert all(gone(pid) for pid in door.pids())
    assert list((door.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "failures",
    [
        [
            ("error", [], "ValueError: the cell that fails"),
            ("dead", [], "the kernel died"),
            ("early", [], "EndedEarly: code cell 4 of 4 left the notebook before its end"),
        ],
        pytest.param(
            [("memory", [], "MemoryError"), ("hang", ["--timeout", "1"], "past its time limit")],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["error, dead, early", "memory, hang"],
)
def test_a_failure_keeps_what_was_there_and_says_where_to_look(door, failures):
    assert door.run()[0] == 0
    before = door.target.read_bytes()
    for ends, words, said in failures:
        (door.folder / "pids").unlink()
        status, text = door.run("-p", "ends", ends, *words)
        assert status == execute.FAILED
        last = text.splitlines()[-1]
        assert last.startswith("FAILED ")
        assert said in last
        assert last.endswith("note.partial.ipynb")
        assert door.target.read_bytes() == before
        assert door.left() == ["note.ipynb", "note.partial.ipynb", "note.receipt.json"]
        assert all(gone(pid) for pid in door.pids())
        assert list((door.folder / "tmp").iterdir()) == []
    assert door.run()[0] == 0
    assert door.left() == ["note.ipynb", "note.receipt.json"]


def test_an_unknown_parameter_starts_no_kernel(door):
    status, said = door.run("-p", "no_such", "1")
    assert status == execute.MISUSED
    assert "no_such" in said
    assert not (door.folder / "pids").exists()
    assert not door.target.parent.exists()


PERSONAL = """\
# %% tags=["parameters"]
folder = "."

# %%
import os
import matplotlib

found = [os.environ.get("PYTHONSTARTUP"), globals().get("personal"), os.path.exists(folder + "/ran")]
assert found == [None, None, False], found
assert "inline" in matplotlib.get_backend()
"""


def test_a_kernel_starts_without_the_user_s_own_files(door, monkeypatch):
    (door.folder / "note.py").write_text(PERSONAL)
    mine = f"personal = 1\nopen({str(door.folder / 'ran')!r}, 'w')\n"
    (door.folder / "start.py").write_text(mine)
    profile = door.folder / "home/.ipython/profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup/00.py").write_text(mine)
    (profile / "ipython_config.py").write_text(f"{mine}c.InteractiveShellApp.exec_lines = ['personal = 1']")
    (profile / "ipython_kernel_config.py").write_text(mine)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PYTHONSTARTUP", str(door.folder / "start.py"))
    monkeypatch.setenv("HOME", str(door.folder / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(profile.parent))
    status, said = door.run()
    assert status == 0, said


@pytest.mark.parametrize("source", ["two", "header"])
def test_a_notebook_with_two_parameters_cells_starts_no_kernel(door, source):
    cell = '# %% tags=["parameters"]\nfolder = "."\n\n'
    (door.folder / "note.py").write_text(
        cell * 2 + NOTEBOOK if source == "header" else NOTEBOOK + "\n" + cell
    )
    status, said = door.run()
    assert status == execute.MISUSED
    assert "parameters cells; one is allowed" in said
    assert not door.target.parent.exists()


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_no_kernel_outlives_its_runner(door, signum):
    runner = door.start("-p", "ends", "hang")
    pids = door.pids()
    runner.send_signal(signum)
    runner.wait(timeout=120)
    await_that(lambda: all(gone(pid) for pid in pids))
    await_that(lambda: list((door.folder / "tmp").iterdir()) == [])
    await_that(lambda: "note.partial.ipynb" in door.left())
    assert not door.target.exists()
    said = runner.communicate()[1]
    if signum != signal.SIGKILL:
        assert runner.returncode == execute.INTERRUPTED
        assert "stopped by" in said
    # The same command goes on.
    assert door.run()[0] == 0
    assert door.left() == ["note.ipynb", "note.receipt.json"]


@pytest.mark.slow
def test_two_runners_at_one_target_run_it_once(door):
    first = door.start("-p", "ends", "hang", "--timeout", "8")
    door.pids()
    second = door.start()
    await_that(lambda: (door.target.parent / ".note.lock").exists())
    time.sleep(2)
    assert second.poll() is None
    first.wait(timeout=60)
    assert first.returncode == execute.FAILED
    # The first one failed, so the second had to run it itself.
    assert second.wait(timeout=60) == 0
    assert "waiting for the process" in second.stderr.read()
    third, fourth = door.start(), door.start()
    said = [third.communicate()[1], fourth.communicate()[1]]
    assert (third.returncode, fourth.returncode) == (0, 0)
    assert sum("started" in text for text in said) in (
        1,
        2,
    )  # 2 if one ended before the other
    for runner in (first, second):
        runner.stderr.close()


def test_a_long_path_of_temporary_files_leaves_room_for_sockets(door):
    folder = door.folder / ("x" * 99)
    folder.mkdir()
    done = subprocess.run(
        door.command(), env=os.environ | {"TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())


def test_what_another_has_put_in_place_meanwhile_is_not_replaced(door):
    status, said = door.run("-p", "ends", "overtaken")
    assert status == 0
    assert "made by another runner meanwhile" in said
    assert door.target.read_text() == "another's"
    assert door.left() == ["note.ipynb"]


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_runner_stopped_while_its_kernel_starts_is_soon_gone(door, times):
    """As by Slurm, which signals every process of a step, the step and the job, and kills what is left."""
    runner = door.start("-p", "ends", "hang")
    process = psutil.Process(runner.pid)
    await_that(lambda: any(map(is_kernel, process.children())))
    family = [process, *process.children()]
    begin = time.monotonic()
    for each in family * times:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    said = runner.communicate(timeout=60)[1]
    assert time.monotonic() - begin < guard.PATIENCE
    assert runner.returncode == execute.INTERRUPTED
    assert "stopped by SIGTERM" in said
    assert list((door.folder / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_runner_that_lost_its_lock_leaves_alone_what_another_has_put_in_place(door):
    """As one that was frozen on a node that was given up, while another made the notebook."""
    frozen = door.start("-p", "ends", "hang")
    pids = door.pids()
    (door.target.parent / ".note.lock").unlink()
    assert door.run()[0] == 0
    before = door.target.read_bytes()
    said = frozen.communicate(timeout=30)[1]
    assert frozen.returncode == 0
    assert "made by another runner meanwhile" in said
    assert door.target.read_bytes() == before
    assert door.left() == ["note.ipynb", "note.receipt.json"]
    assert all(gone(pid) for pid in pids)
