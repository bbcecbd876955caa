"""Install the packages of environment.yml into .venv, once (``make setup``)."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
import venv
from pathlib import Path


def install(wanted: Path, mark: Path) -> None:
    """Make a virtual environment around ``mark``, a copy of the list of packages that are in it.

    Two calls at once install once.

    Raises
    ------
    RuntimeError : if this is not Python 3.11. subprocess.CalledProcessError : if pip fails.
    """
    found, folder = sys.version.split()[0], mark.parent
    if not found.startswith("3.11."):
        raise RuntimeError(f"Python 3.11 is needed and {found} was found; PYTHON=… names another")
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
            subprocess.run([*pip, "-r", folder / "requirements.txt"], check=True)
        mark.write_text(text, encoding="utf-8")


def main(argv: list[str]) -> int:
    """Install what the first file lists, and copy it to the second."""
    try:
        install(Path(argv[0]), Path(argv[1]))
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
