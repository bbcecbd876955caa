"""One notebook at one point: the strict door to papermill.

``python -m lib.grid.execute notebooks/04_attacks.py build/…/04_attacks.ipynb -f settings.yaml -p fold 1``

The target appears by rename after success; a failure keeps the notebook as ``NAME.partial.ipynb``. Every
kernel has its sockets in a folder of its own, since parallel kernels race for TCP ports. No kernel outlives
its runner, and no runner its make. What a killed runner could not clean is removed by its guard
(``lib/grid/guard.py``) or, where that was killed too, by the next runner.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lib import files, reporting, study
from lib.grid import guard, receipts, settings, sources

# jsonschema, which nbformat imports, would build an IRI grammar that no notebook needs: more than half of
# what starting a runner costs (tests/bench/grid.py).
sys.modules.setdefault("rfc3987_syntax", None)

PROGRESS_EVERY = 5.0  # s between two lines of a cell on the terminal
LOOK_EVERY = 1.0  # s between two looks whether make is still there
LONGEST = 80  # bytes of the folder of temporary files: the path of a socket has about a hundred
OWNER = "owner.txt"  # the file of a temporary folder that says whose it is
PACKAGES = ("torch", "torchvision", "numpy", "librosa", "PyWavelets", "foolbox", "papermill")
MAKE = "STUDY_MAKE"  # environment variable: HOST:PID of the make that called for the cell
FAILED, MISUSED, INTERRUPTED = 1, 2, 130  # exit codes
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # signals that stop a runner


class EndedEarly(Exception):
    """A cell left the notebook, by ``sys.exit()``, before its end."""


class Overtaken(Exception):
    """Another runner has put the target in place meanwhile: this one was frozen, and lost its lock."""


# --------------------------------------------------------------------------------- processes and leftovers


def _alive(pid: int, since: float = float("inf")) -> bool:
    """Whether a process exists, is no zombie, and started before ``since``, so that it is the one meant."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since
    except psutil.NoSuchProcess:
        return False


def temporary() -> Path:
    """A fresh temporary folder that names its owner; those of dead processes of this host are removed."""
    here, root = socket.gethostname(), Path(tempfile.gettempdir())
    if len(os.fsencode(root)) > LONGEST:
        root = Path("/tmp")
    for folder in root.glob("study-*"):
        with contextlib.suppress(OSError):  # of another user, or just made or removed by another runner
            owner = folder / OWNER
            host, pid = owner.read_text(encoding="utf-8").split()
            if host == here and not _alive(int(pid), owner.stat().st_mtime):
                shutil.rmtree(folder)
    made = Path(tempfile.mkdtemp(prefix="study-", dir=root))
    files.save(made / OWNER, f"{here} {os.getpid()}")
    return made


def _sweep(root: Path) -> None:
    """Remove the half-written files below ``root`` of dead processes of this host."""
    for path, pid in guard.parts(str(root)):
        with contextlib.suppress(FileNotFoundError):
            if not _alive(pid, os.stat(path).st_mtime):
                os.unlink(path)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at ``path``: none, or another one after each replacement."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _now(folder: Path) -> int:
    """The time in ns by the clock of the file system."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _newer(paths: Sequence[Path], moment: int) -> Path | None:
    """The first of the files that was changed after that moment (ns)."""
    return next((path for path in paths if path.stat().st_mtime_ns > moment), None)


class _Watch(threading.Thread):
    """Shows on the terminal the progress that the kernel reports. Stops a runner that was overtaken, or
    whose make has ended.
    """

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True)
        self.shown_as, self.over = name, threading.Event()
        self.path = Path()
        self.overtaken: Callable[[], bool] = lambda: False
        host, _, pid = os.environ.get(MAKE, "").rpartition(":")
        self.make = int(pid) if host == socket.gethostname() else 0

    def run(self) -> None:
        shown, next_time = "", time.monotonic() + PROGRESS_EVERY
        while not self.over.wait(LOOK_EVERY):
            if self.make and not _alive(self.make):
                os.kill(os.getpid(), signal.SIGUSR1)
                return
            if time.monotonic() < next_time:
                continue
            next_time = time.monotonic() + PROGRESS_EVERY
            if self.overtaken():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
            if lines and lines[-1] != shown:
                shown = lines[-1]
                print(f"{self.shown_as}: {shown}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Return when it looks no more."""
        self.over.set()
        self.join()


# ------------------------------------------------------------------------------------------------ one cell


class _Attempt:
    """One attempt at a cell: its private folder, its half-written notebook and its guard.

    Leaving it ends the kernel, keeps the notebook of a failure as ``.partial.ipynb``, and waits for the
    guard. A node that was given up may come back: what another runner has put in place since the attempt
    began is left alone.
    """

    def __init__(self, target: Path, root: Path) -> None:
        self.target, self.root, self.private = target, root, temporary()
        self.partial = target.with_name(f"{target.stem}.partial.ipynb")
        owner = f"{socket.gethostname()}.{os.getpid()}"
        self.part = target.with_name(f".{target.stem}.{owner}.{self.private.name}.ipynb")
        self.before = _identity(target)
        self.groups: list[int] = []  # process groups of the kernels that were started
        for stale in target.parent.glob(f".{target.stem}.*.study-*.ipynb"):  # of a power cut
            stale.unlink(missing_ok=True)
        words = [self.private, self.part, target, root, str(os.getpid())]
        self.guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, *words],
            stdin=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        overtaken = error is not None and self.overtaken()
        try:
            if overtaken:
                self.part.unlink(missing_ok=True)
            elif error:
                guard.keep(str(self.part), str(self.partial))
        finally:
            self.tell("failed" if error else "done")
            self.guard.stdin.close()
            while self.guard.poll() is None:  # it waits until the kernel is gone
                for group in self.groups:
                    guard.bury(group)
                time.sleep(0.01)
            if self.guard.wait():  # it was killed: its work is done here
                guard.end(self.groups, str(self.private))
                if error:
                    guard.sweep(str(self.root), self.groups)
        if overtaken:
            raise Overtaken from error

    def overtaken(self) -> bool:
        """Whether another runner has put the target in place meanwhile."""
        return _identity(self.target) not in (self.before, None)

    def tell(self, word: object) -> None:
        """Send the guard a process group, or how it ended."""
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self.guard.stdin.write(f"{word}\n".encode())

    def kernel_started(self, group: int) -> None:
        self.groups.append(group)
        self.tell(group)


def _kernel_manager(started: Callable[[int], None]) -> type:
    """The kernel manager of one cell: a kernel of this interpreter, whose process group is passed on."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Private(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

        async def start_kernel(self, **kwargs: Any) -> None:
            await super().start_kernel(**kwargs)
            started(self.provisioner.pgid)

    return Private


def _papermill(source: Any, values: dict[str, Any], timeout: int, attempt: _Attempt) -> None:
    """Execute ``source``, the notebook as read, into the attempt's half-written file.

    The kernel starts without the user's own files: no PYTHONSTARTUP, no profile of IPython, no
    other way to draw than into the notebook.
    """
    import papermill
    from traitlets.config import Config

    private = str(attempt.private)
    os.environ |= dict.fromkeys(("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR"), private)
    os.environ |= {reporting.PROGRESS: f"{private}/progress", reporting.NOTES: f"{private}/notes.jsonl"}
    for name in ("PYTHONSTARTUP", "MPLBACKEND"):
        os.environ.pop(name, None)
    sockets = {"transport": "ipc", "ip": f"{private}/kernel", "connection_file": f"{private}/kernel.json"}
    executed = papermill.execute_notebook(
        source,
        str(attempt.part),
        parameters=values,
        kernel_name="python3",
        language="python",
        progress_bar=False,
        execution_timeout=timeout or None,
        shutdown_kernel="immediate",
        kernel_manager_class=_kernel_manager(attempt.kernel_started),
        config=Config(KernelManager=sockets),
    )
    cells = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(cells, 1):
        if cell.metadata["papermill"]["status"] != "completed":  # papermill lets SystemExit pass
            raise EndedEarly(f"code cell {number} of {len(cells)} left the notebook before its end")


def _commit() -> tuple[str, bool]:
    """The commit that is checked out, and whether tracked files differ from it; ``""`` outside of git."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", sources.ROOT, *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))


def _receipt(notebook: Path, values: dict[str, Any], begin: float) -> dict[str, Any]:
    """What a cell rests on and what it took; what the kernel noted comes on top."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    commit, dirty = _commit()
    return {
        "parameters": values,
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        "device": "cpu",
        "seed": study.fold_and_seed(values["fold"])[1] if "fold" in values else 0,
        "data": "",
        "sources": sources.fingerprints(notebook, sources.words(values)),
        "seconds": round(time.monotonic() - begin, 2),
        "cpu_seconds": round(spent.ru_utime + spent.ru_stime, 2),
        "peak_memory_mib": round(spent.ru_maxrss / 1024, 1),
    }


def _root(target: Path, values: dict[str, Any]) -> Path:
    """The folder below which the cell may write: the data set's, or the target's own."""
    inside = "build" in values and "dataset" in values
    return Path(values["build"], values["dataset"]) if inside else target.parent


def run(
    notebook: Path, target: Path, values: dict[str, Any], source: Any, timeout: int, watch: _Watch
) -> None:
    """Execute ``source``, the notebook as read, and put it and its receipt in place.

    Raises whatever papermill raises.

    Raises
    ------
    Overtaken : if another runner has put the target in place meanwhile.
    """
    listing = target.with_name(f".{target.stem}.written").resolve()  # of earlier attempts too
    with _Attempt(target, _root(target, values)) as attempt:
        watch.path, watch.overtaken = attempt.private / "progress", attempt.overtaken
        os.environ[files.LISTED] = str(listing)
        try:
            begin = time.monotonic()
            _papermill(source, values, timeout, attempt)
            receipt = _receipt(notebook, values, begin)
            receipt["files"] = receipts.written(listing, Path(values.get("build", target.parent)))
        finally:
            del os.environ[files.LISTED]
            watch.stop()
        if attempt.overtaken():
            raise Overtaken
        notes = reporting.notes(attempt.private / "notes.jsonl")
        files.save(target.with_suffix(receipts.ENDING), receipt | notes)
        files.put(attempt.part, target)
        listing.unlink(missing_ok=True)
        attempt.partial.unlink(missing_ok=True)


def _cell(given: argparse.Namespace, name: str, watch: _Watch) -> None:
    """Execute the cell under its lock, unless another runner has just done so.

    Raises
    ------
    settings.Refused : before any work, if notebook or settings are not as they should be.
    """
    import jupytext

    say = functools.partial(print, file=sys.stderr, flush=True)
    if not given.notebook.is_file():
        raise settings.Refused(f"{given.notebook}: there is no such notebook")

    def read() -> tuple[Any, dict[str, Any]]:
        source = jupytext.read(given.notebook, fmt="py:percent")
        known = settings.defaults(source.cells)
        return source, settings.resolve(known, given.files, given.pairs, given.called)

    read()  # refuses before it waits
    given.target.parent.mkdir(parents=True, exist_ok=True)
    before = _identity(given.target)
    left = given.target.with_name(f".{given.target.stem}.lock").exists()
    with files.locked(given.target, say=say) as waited:
        made = waited and _identity(given.target) not in (before, None)
        if made and not _newer(given.copies, given.target.stat().st_mtime_ns):
            return say(f"{name}: made by the runner that was waited for")
        moment = _now(given.target.parent)
        source, values = read()
        if left and not waited:  # a lock that nobody holds: its runner was killed
            _sweep(_root(given.target, values))
        say(f"{name}: started")
        start = time.monotonic()
        run(given.notebook, given.target, values, source, given.timeout, watch)
        changed = _newer(given.copies, moment)
        if changed:
            os.utime(given.target, ns=(moment, moment))
            say(f"{name}: {changed} was changed meanwhile; the next make runs the cell again")
    say(f"{name}: done in {time.monotonic() - start:.0f} s")


# ----------------------------------------------------------------------------------------- the command line


def _sentence(error: BaseException) -> str:
    """A failure in one line: of a failing cell the exception that it ended in."""
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by {error or 'SIGINT'}"
    kind, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    match kind:
        case "DeadKernelError":
            return "the kernel died: out of memory, or killed"
        case "CellTimeoutError":
            return f"a cell ran past its time limit: {' '.join(text.split())[:200]}"
    return f"{kind}: {' '.join(str(text).split())[:1000]}"


def _interrupt(signum: int, frame: object) -> None:
    for other in STOPS:  # a second signal would stop the tidying up, and Slurm sends two
        signal.signal(other, signal.SIG_IGN)
    gone = signum == signal.SIGUSR1
    raise KeyboardInterrupt("the end of its make" if gone else signal.Signals(signum).name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lib.grid.execute", description=main.__doc__)
    parser.add_argument("notebook", type=Path, help="percent source, notebooks/NN_name.py")
    parser.add_argument("target", type=Path, help="where the executed notebook appears")
    more = functools.partial(parser.add_argument, action="append", default=[])
    more("-f", dest="files", metavar="YAML", help="a file of settings")
    more("--called", metavar="NAME", help="what errors call each -f")
    outdated = "what the cell rests on; if it changes meanwhile, the target is dated to its beginning"
    more("--copy", dest="copies", type=Path, metavar="FILE", help=outdated)
    more("-p", dest="pairs", nargs=2, metavar=("NAME", "VALUE"), help="one parameter")
    parser.add_argument("--timeout", type=int, default=0, metavar="S", help="of one code cell; 0: no limit")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Execute a percent notebook at one point of the grid, or say in one line why not."""
    given = _parser().parse_args(argv)
    name = f"{given.target.parent}/{given.target.stem}"
    for signum in STOPS:
        signal.signal(signum, _interrupt)
    watch = _Watch(name)
    watch.start()
    try:
        _cell(given, name, watch)
    except settings.Refused as error:
        print(f"{name}: {error}", file=sys.stderr)
        return MISUSED
    except Overtaken:
        print(f"{name}: made by another runner meanwhile; this one's is dropped", file=sys.stderr)
    except (KeyboardInterrupt, Exception) as error:
        partial = given.target.with_name(f"{given.target.stem}.partial.ipynb")
        where = f"; executed so far: {partial}" if partial.exists() else ""
        print(f"FAILED {name}: {_sentence(error)}{where}", file=sys.stderr)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
    finally:
        watch.over.set()
    return 0


if __name__ == "__main__":
    sys.exit(main())
