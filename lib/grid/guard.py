"""Tidy up after a runner that was killed: ``python lib/grid/guard.py FOLDER PART TARGET ROOT RUNNER``.

A runner that gets SIGKILL can clean nothing itself. So it starts this small process beside it and holds
its standard input: the first line is the kernel's process group, a last line ``done`` or ``failed`` says
that the runner saw the end, and the end of input without it that the runner is gone. In each case the
kernel's group is ended and FOLDER, which holds its sockets, removed. Unless all is done, the half-written
files of runner and kernel below ROOT are removed too. Where the runner is gone, PART, the notebook as far
as it was executed, becomes the ``.partial.ipynb`` of TARGET, and the last line of the log says so.
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

PATIENCE = 10.0  # s that a killed process is given to be gone


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
        with contextlib.suppress(OSError):  # nobody may be listening any more
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
    """Let a dead child go, which is there as a zombie until its parent does."""
    with contextlib.suppress(ChildProcessError):  # of another, or gone already
        os.waitpid(pid, os.WNOHANG)


def exists(pid: int) -> bool:
    """Whether there is a process of this number, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def keep(part: str, partial: str) -> bool:
    """Give the notebook as far as it was executed its name, unless it was cut off while it was written."""
    try:
        with open(part, encoding="utf-8") as file:
            json.load(file)
    except (FileNotFoundError, ValueError):
        return False
    os.replace(part, partial)
    return True


def parts(root: str) -> Iterator[tuple[str, int]]:
    """The half-written files below ``root`` that processes of this host made, and whose each is.

    Their names are ``.NAME.HOST.PID.MARK``, as ``study.atomic`` and ``lib.grid.execute`` give them.
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
