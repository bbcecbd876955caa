"""What several tests share: where real recordings lie, and a grid of chapters that do almost nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def recordings(name: str) -> Path:
    """The folder of a data set for development, or a skip that says why."""
    folder = Path(os.environ.get("STUDY_DATA", ROOT / "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in {folder.parent}; STUDY_DATA names another folder")
    return folder.resolve()


OPENING = """\
# %%
import os
import time
from pathlib import Path

from lib import study

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
for _ in study.progress(range(steps), "waiting"):
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

CHAPTERS = {
    "01_data": 1,
    "02_features": 2,
    "03_training": 5,
    "04_attacks": 5,
    "05_adversarial_training": 5,
    "06_analysis": 1,
    "07_beyond": 1,
}


def outside() -> dict[str, str]:
    """The environment less what a make above these tests has put there for its own children."""
    of_make = ("MAKE", "MFLAGS", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if not name.startswith(of_make)}


class Tiny:
    """A checkout with the real Makefile and library, and chapters that wait, say so, and leave a file."""

    def __init__(self, folder: Path) -> None:
        from lib.study import AXES

        self.folder = folder
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "lib").symlink_to(ROOT / "lib")
        (folder / "notebooks").mkdir()
        (folder / "params" / "tiny").mkdir(parents=True)
        for name, depth in CHAPTERS.items():
            axes = "".join(f'{axis} = "1"\n' for axis in AXES[1:depth])
            data = 'data_folder = "data"\n' if name == "01_data" else ""
            point = ", ".join(["build", *AXES[:depth]])
            text = OPENING.format(axes=axes + data) + BODY.format(point=point, name=name)
            (folder / "notebooks" / f"{name}.py").write_text(text)

    def command(self, *words: str) -> list[str]:
        grid = ["DATASETS=tiny", "REPRESENTATIONS=dwt", "MODELS=small", "FOLDS=1"]
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

    def settings(self, chapter: str, **values: object) -> None:
        text = "".join(f"{name}: {value}\n" for name, value in values.items())
        (self.folder / "params" / "tiny" / f"{chapter}.yaml").write_text(text)

    def runs(self) -> list[str]:
        """The cells that ran, in order: ``tiny/dwt/small/1/standard 03_training``."""
        path = self.folder / "build" / "runs"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)
