"""Tidy up after a runner that was killed: ``python lib/guard.py FOLDER PART PARTIAL``.

A runner that gets SIGKILL can clean nothing itself. So it starts this small process beside it and holds
its standard input: the first line is the kernel's process group, a last line ``done`` says that all went
its ordinary way, and the end of input without it that the runner is gone. In each case the kernel's
group is ended and FOLDER, which holds its sockets, removed. Where the runner is gone, PART, the notebook
as far as it was executed, becomes PARTIAL.
"""

import contextlib
import os
import shutil
import signal
import sys


def main(folder: str, part: str, partial: str) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    said = sys.stdin.read().split()
    for group in said:
        if group != "done":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    if "done" not in said and os.path.exists(part):
        os.replace(part, partial)


if __name__ == "__main__":
    main(*sys.argv[1:])
