"""What several tests share: where real recordings lie, and a grid of chapters that do almost nothing."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes that compile at once can leave a cache that crashes everyone who reads it: one for each.
    caches = ROOT / ".pytest_cache" / "numba"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(caches / os.environ["PYTEST_XDIST_WORKER"]))

SHARING = ("test_pack", "test_publish", "test_registry", "test_report")
"""Files whose tests share what is dear to make."""
ALONE = ("test_book", "test_faults", "test_lab", "test_slurm")
"""Files with servers, a browser, a cluster and killed processes: no two of their tests run at once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Deal tests to processes one by one; those of a file above go to one process."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0]).stem
            return "alone" if file in ALONE else file if file in SHARING else nodeid

    return Scheduler(config, log)


def await_that(holds, what="", seconds=120.0):
    """Wait for what ``holds`` gives, until it is anything."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"it did not come to pass: {what}"
        time.sleep(0.02)
    return found


def recordings(name: str) -> Path:
    """The folder of a data set for development, or a skip that says why."""
    folder = Path(os.environ.get("STUDY_DATA", ROOT / "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in {folder.parent}; STUDY_DATA names another folder")
    return folder.resolve()


OPENING = """\
# %%
import json
import os
import time
from pathlib import Path

from lib import reporting, study

# %% tags=["parameters"]
build = "build"  # where the grid lies
dataset = "tiny"
{axes}seconds = 0.0  # how long the cell takes
ends = "well"  # or: error, exit, hang, late
"""

BODY = """
# %%
cell = study.Cell({point})
steps = 20
for _ in reporting.track(range(steps), "waiting"):
    time.sleep(seconds / steps)

# %%
runs = Path(build) / "runs"
with open(runs, "a") as file:
    file.write(f"{{cell}} {name}\\n")
if ends == "error":
    raise ValueError("a cell that is made to fail")
if ends == "exit":
    os._exit(9)
if ends == "hang":
    time.sleep(1000)

# %%
told = {{"threads": os.environ["OMP_NUM_THREADS"], "node": os.environ.get("SLURMD_NODENAME", "")}}
cell.save("{name}.json", told | {{"pid": os.getpid()}})
"""


def outside() -> dict[str, str]:
    """The environment less what a make above these tests has put there for its own children."""
    of_make = ("MAKE", "MFLAGS", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if not name.startswith(of_make)}


class Tiny:
    """A checkout with the real Makefile and library, and chapters that wait, say so, and leave a file."""

    def __init__(self, folder: Path) -> None:
        from lib.grid.receipts import DEPTHS
        from lib.study import AXES

        self.folder = folder
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "lib").symlink_to(ROOT / "lib")
        (folder / "notebooks").mkdir()
        (folder / "params" / "tiny").mkdir(parents=True)
        for name, depth in DEPTHS.items():
            axes = "".join(f'{axis} = "1"\n' for axis in AXES[1:depth])
            data = {"01_data": 'data_folder = "data"\n', "02_features": 'together = ""\n'}.get(name, "")
            point = ", ".join(["build", *AXES[:depth]])
            text = OPENING.format(axes=axes + data) + BODY.format(point=point, name=name)
            (folder / "notebooks" / f"{name}.py").write_text(text)

    def command(self, *words: str) -> list[str]:
        grid = ["DATASETS=tiny", "REPRESENTATIONS=dwt", "MODELS=alexnet", "FOLDS=1"]
        return ["make", f"PYTHON={sys.executable}", *grid, *words]

    def make(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=outside(),
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=outside(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def await_begun(self, chapter: str) -> None:
        """Return when a runner has read the cell's settings and handed it to its kernel."""
        parts = f"**/.{chapter}.*.study-*.ipynb"
        await_that(lambda: list((self.folder / "build").glob(parts)), f"{chapter} begins", 60.0)

    def settings(self, chapter: str, **values: object) -> None:
        text = "".join(f"{name}: {value}\n" for name, value in values.items())
        (self.folder / "params" / "tiny" / f"{chapter}.yaml").write_text(text)

    def runs(self) -> list[str]:
        """The cells that ran, in order: ``tiny/dwt/alexnet/1/standard 03_training``."""
        path = self.folder / "build" / "runs"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)


SOUNDS = {  # settings under which the real chapters take seconds
    "02_features": {
        "bins": 32,
        "frames": 32,
        "duration": 0.5,
        "stft_rate": 16000,
        "n_fft": 512,
        "factors": [0.75, 1.5],
    },
    "03_training": {"pretrained": "none", "epochs": 6, "batch": 8, "patience": 0},
    "05_adversarial_training": {"pretrained": "none", "epochs": 6, "batch": 8, "patience": 0, "pgd_steps": 2},
    "04_attacks": {
        "clips": 6,
        "batch": 2,
        "bim_step": 0.01569,
        "bim_steps": 3,
        "bim_first": 0.006,
        "bim_rungs": 4,
        "bim_bisections": 1,
        "jsma_thetas": [0.98039],
        "jsma_steps": 10,
        "deepfool_caps": [5],
        "cwa_cs": [7.0],
        "cwa_steps": [10],
        "pia_steps": 2,
        "pia_samples": 4,
        "checked": 2,
    },
    "06_analysis": {},
    "07_beyond": {"clips": 4, "bim_steps": 4, "round_trip_steps": 5, "levels": [30.0], "wave_steps": 3},
}


class Real:
    """A checkout with the real Makefile, library and chapters, and 60 sounds of half a second."""

    def __init__(self, folder: Path) -> None:
        import pandas as pd
        import soundfile

        from lib.data import toy

        self.folder = folder
        shutil.copy(ROOT / "Makefile", folder)
        for name in ("lib", "notebooks"):
            (folder / name).symlink_to(ROOT / name)
        for name in ("params/small", "data/small", "tmp"):
            (folder / name).mkdir(parents=True)
        for chapter, values in SOUNDS.items():
            self.settings(chapter, **values)
        clips = toy.clips()
        clips = clips[clips["name"].isin(clips["name"].unique()[:3])].groupby(["name", "fold"]).head(4)
        for clip in clips["clip"]:
            sound = toy.sound(clip)[: toy.RATE // 2]
            soundfile.write(folder / "data/small" / f"{clip}.wav", sound, toy.RATE, subtype="PCM_16")
        table = pd.DataFrame({"path": clips["clip"] + ".wav", "label": clips["name"]})
        table = table.assign(source=clips["source"], fold=clips["fold"])
        table.to_csv(folder / "data/small/clips.csv", index=False)

    def settings(self, chapter: str, **values: object) -> None:
        """Settings of a chapter; YAML takes JSON."""
        text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())
        (self.folder / "params/small" / f"{chapter}.yaml").write_text(text)

    def command(self, *words: str) -> list[str]:
        grid = ["DATASETS=small", "REPRESENTATIONS=dwt", "MODELS=resnet56", "FOLDS=1", "DATA=data"]
        return ["make", f"PYTHON={sys.executable}", *grid, *words]

    def start(self, log: Path, *words: str) -> subprocess.Popen:
        """A make of its own session, whose words go to ``log``, and temporary files below the checkout."""
        with log.open("a") as file:
            return subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=outside() | {"TMPDIR": str(self.folder / "tmp")},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def make(self, *words: str) -> tuple[int, str]:
        """The exit status and what was said."""
        log = self.folder / f"log.{len(list(self.folder.glob('log.*')))}"
        status = self.start(log, *words).wait()
        return status, log.read_text()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    return Real(tmp_path_factory.mktemp("real"))
