"""Install the packages of environment.yml into .venv, once (``make setup``)."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path


def install(wanted: Path, mark: Path) -> None:
    """Make a virtual environment around ``mark``, a copy of the list of packages that are in it.

    Two calls at once install once.

    Raises
    ------
    ValueError : if this is not Python 3.11, or pip fails.
    """
    found, folder = sys.version.split()[0], mark.parent
    if not found.startswith("3.11."):
        raise ValueError(f"Python 3.11 is needed and {found} was found; PYTHON=… names another")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = wanted.read_text(encoding="utf-8")
        if not mark.exists() or mark.read_text(encoding="utf-8") != text:
            print(f"setup: installing the packages of {wanted} into {folder}", flush=True)
            venv.create(folder, with_pip=True)
            packages = re.findall(r"^ *- ([\w.-]+==\S+)", text, re.MULTILINE)
            (folder / "requirements.txt").write_text("\n".join(packages) + "\n", encoding="utf-8")
            pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run([*pip, "-r", folder / "requirements.txt"], check=False)
            if done.returncode:
                raise ValueError(f"pip ended with {done.returncode}; its lines above say why")
        mark.write_text(text, encoding="utf-8")


def make_setup(given: Mapping[str, str]) -> None:
    """Install what the file WANTED lists, and copy it to MARK."""
    install(Path(given["WANTED"]), Path(given["MARK"]))
