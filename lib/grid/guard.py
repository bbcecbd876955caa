"""Tidy up after a runner that was killed: ``python lib/grid/guard.py FOLDER PART TARGET ROOT RUNNER``.

A runner that gets SIGKILL cannot clean anything itself. So it starts this small process and writes to its
standard input: first the process group of the kernel, last ``done`` or ``failed``. An end of input without
that word means that the runner was killed. In each case the guard ends the kernel's group and removes FOLDER,
which has its sockets. Unless all is done, it also removes the half-written files of runner and kernel below
ROOT. Where the runner was killed, PART, the notebook as executed so far, becomes the ``.partial.ipynb`` of
TARGET, and a line on standard error says so.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator

PATIENCE = 10.0  # s that a killed process may take to end


def main(folder: str, part: str, target: str, root: str, runner: str) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    said = sys.stdin.read().split()
    groups = [int(word) for word in said if word.isdigit()]
    end(groups, folder)
    partial = f"{target.removesuffix('.ipynb')}.partial.ipynb"
    if not {"done", "failed"} & set(said):
        kept = keep(part, partial)
        sweep(root, [*groups, int(runner)])
        where = f"; executed so far: {partial}" if kept else ""
        with contextlib.suppress(OSError):  # its reader may have ended
            name = target.removesuffix(".ipynb")
            print(f"FAILED {name}: its runner was killed{where}", file=sys.stderr, flush=True)
    elif "failed" in said:
        sweep(root, groups)


def end(groups: list[int], folder: str) -> None:
    """End the process groups, wait until their leaders are gone, and remove the folder of their sockets."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        patience = time.monotonic() + PATIENCE
        while time.monotonic() < patience and exists(group):
            bury(group)
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def bury(pid: int) -> None:
    """Reap a dead child, which is a zombie until its parent does so."""
    with contextlib.suppress(ChildProcessError):  # of another parent, or reaped already
        os.waitpid(pid, os.WNOHANG)


def exists(pid: int) -> bool:
    """Whether there is a process with this number, a zombie included."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def keep(part: str, partial: str) -> bool:
    """Give the notebook as executed so far its name, unless it was cut off while it was written."""
    try:
        with open(part, encoding="utf-8") as file:
            json.load(file)
    except (FileNotFoundError, ValueError):
        return False
    os.replace(part, partial)
    return True


def parts(root: str) -> Iterator[tuple[str, int]]:
    """The half-written files below ``root`` of processes of this host, each with its process number.

    Their names are ``.NAME.HOST.PID.MARK``, as ``files.atomic`` and ``lib.grid.execute`` name them.
    """
    name = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)\.[\w-]+(\.ipynb)?")
    for folder, _, files in os.walk(root):
        for file in files:
            match = name.fullmatch(file)
            if match:
                yield os.path.join(folder, file), int(match[1])


def sweep(root: str, dead: list[int]) -> None:
    """Remove the half-written files below ``root`` of processes that are dead."""
    for path, pid in parts(root):
        if pid in dead:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
