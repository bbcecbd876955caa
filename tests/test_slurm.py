"""The grid over a Slurm of two nodes: what make finds out when one is lost, and how it goes on."""

import json
import os
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from tests import slurm
from tests.conftest import Tiny

pytestmark = pytest.mark.slurm

LAUNCH = "LAUNCH=srun --gres=gpu:1 -c 1 --time=10 --quit-on-interrupt"
NAMES = ("a", "b", "c")
"""Representations of the tiny grid: their cells rest on chapter 1 and not on each other."""
TARGETS = [f"build/tiny/{name}/02_features.ipynb" for name in NAMES]
AT_WORK = 8.0  # s that a cell takes, long enough to be met at work


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, each with one CPU and one GPU, so that each is at one cell at a time."""
    why = slurm.missing()
    if why:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        found = slurm.Slurm(Path(folder), nodes=2, cpus=1)
        try:
            yield found
        finally:
            found.stop()


class Grid:
    """A tiny grid on the cluster, whose chapters 1 and 2 have finished once."""

    def __init__(self, tiny, cluster):
        self.tiny, self.cluster, self.make, self.times = tiny, cluster, None, 0
        assert tiny.make("-j2", *TARGETS).returncode == 0

    def path(self, name, of="02_features.ipynb"):
        return self.tiny.folder / "build/tiny" / name / of

    def kernels(self, node):
        return [p for p in self.cluster.processes(node) if "ipykernel_launcher" in p.cmdline()]

    def begin(self):
        """Start all cells anew, until each node is at one of them: the make, and the cell that n1 is at."""
        self.times += 1
        self.tiny.settings("02_features", seconds=AT_WORK + self.times / 10)
        self.earlier = {name: self.path(name).read_bytes() for name in NAMES}
        make = self.make = self.tiny.start("-k", "-j8", LAUNCH, *TARGETS)
        slurm.wait(lambda: all(self.kernels(node) for node in self.cluster.nodes), 60)
        target = next(word for word in self.kernels("n1")[0].parent().cmdline() if word in TARGETS)
        return make, target.split("/")[2]

    def lost(self, make, name):
        """What make says in the end: one cell was lost and its earlier result stands, the rest is new."""
        said = make.communicate(timeout=120)[0]
        assert make.returncode != 0
        assert f"build/tiny/{name}/02_features.ipynb] Error" in said
        assert {n for n in NAMES if self.path(n).read_bytes() == self.earlier[n]} == {name}, said
        return said

    def finish(self, *lost):
        """The same command runs what was lost and nothing else."""
        before = len(self.tiny.runs())
        done = self.tiny.make("-k", "-j8", LAUNCH, *TARGETS)
        assert done.returncode == 0, done.stderr
        assert self.tiny.runs()[before:] == [f"tiny/{name} 02_features" for name in lost]

    def whole(self):
        """Every cell is new, and nothing half made is left."""
        for name in NAMES:
            assert self.path(name).read_bytes() != self.earlier[name]
            left = {path.name for path in self.path(name, ".").iterdir()}
            assert left == {f"02_features.{ending}" for ending in ("ipynb", "json", "receipt.json")}


@pytest.fixture(scope="module")
def shared(cluster, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield Grid(Tiny(tmp_path_factory.mktemp("tiny")), cluster)


@pytest.fixture
def grid(shared, cluster):
    cluster.start()
    yield shared
    if shared.make and shared.make.poll() is None:
        os.killpg(shared.make.pid, signal.SIGKILL)


def test_a_grid_is_made_by_all_nodes(grid, cluster):
    before = len(grid.tiny.runs())
    grid.tiny.settings("03_training", seconds=AT_WORK)
    done = grid.tiny.make("all", "-k", "-j8", LAUNCH, "FOLDS=1 2", "TRAININGS=standard")
    assert done.returncode == 0, done.stderr
    runs = grid.tiny.runs()[before:]
    assert len(runs) == len(set(runs)) == 1 + 2 + 2 + 2
    told = [json.loads(path.read_text()) for path in grid.tiny.folder.glob("build/tiny/*/*/*/*/*.json")]
    assert {cell["node"] for cell in told if "node" in cell} == set(cluster.nodes)


def test_a_node_that_dies_loses_its_cell_only(grid, cluster):
    """And srun, which then exits 0, is not believed, though an earlier result lies there."""
    make, name = grid.begin()
    cluster.send(signal.SIGKILL, "n1")
    said = grid.lost(make, name)
    assert "Node failure on n1" in said
    assert f"FAILED build/tiny/{name}/02_features: its runner ended without an error" in said
    cluster.start()
    grid.finish(name)
    grid.whole()


def test_a_job_that_is_cancelled_leaves_no_kernel(grid, cluster):
    make, name = grid.begin()
    processes = cluster.processes("n1")
    assert len(processes) >= 4  # keeper, runner, guard, kernel
    cluster.call("scancel", *cluster.call("squeue", "-h", "-wn1", "-o%A").split())
    said = grid.lost(make, name)
    assert f"FAILED build/tiny/{name}/02_features: stopped by SIGTERM" in said, said
    assert psutil.wait_procs(processes, 10)[1] == []
    grid.finish(name)
    grid.whole()


def test_a_controller_that_is_restarted_is_waited_for(grid, cluster):
    make, _ = grid.begin()
    cluster.restart_controller()
    said = make.communicate(timeout=120)[0]
    assert make.returncode == 0, said
    grid.whole()


def test_a_node_that_thaws_overwrites_nothing(grid, cluster):
    make, name = grid.begin()
    cluster.send(signal.SIGSTOP, "n1")
    grid.lost(make, name)
    # Over a network a node that is silent loses its locks; on one machine it has to be taken from it.
    grid.path(name, ".02_features.lock").unlink()
    grid.finish(name)
    better = [grid.path(name, of).stat() for of in ("02_features.ipynb", "02_features.receipt.json")]
    # Its daemon is left asleep: what thaws is not ended by Slurm, but finds out by itself.
    thawed = cluster.processes("n1")
    for process in thawed:
        process.resume()
    psutil.wait_procs([p for p in thawed if p.name() != "slurmstepd"], 60)
    assert [grid.path(name, of).stat() for of in ("02_features.ipynb", "02_features.receipt.json")] == better
    grid.whole()
