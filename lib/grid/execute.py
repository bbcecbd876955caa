"""One notebook at one point: the strict door to papermill.

``python -m lib.grid.execute notebooks/04_attacks.py build/…/04_attacks.ipynb -f settings.yaml -p fold 1``

Papermill warns of an unknown parameter and takes any type; here both are errors, before a kernel starts.
The target appears by rename after success; what a failure leaves is ``NAME.partial.ipynb``. Every kernel
has its own sockets in a folder of its own, since parallel kernels race for TCP ports, and none outlives
its runner, nor a runner its make. A cell that another runner is at is waited for, not run twice. What
killed runners could not clean is swept by their guard (``lib/grid/guard.py``) or, where that was killed too,
by the next runner.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import os
import re
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
from pathlib import Path
from typing import Any

import yaml

from lib import files, reporting, study
from lib.grid import guard, receipts

# jsonschema, which nbformat imports, would build an IRI grammar that no notebook needs: more than half of
# what starting a runner costs (tests/bench/grid.py).
sys.modules.setdefault("rfc3987_syntax", None)

PROGRESS_EVERY = 5.0  # s between two lines of a cell on the terminal
LOOK_EVERY = 1.0  # s between two looks whether make is still there
LONGEST = 80  # bytes of the folder of temporary files: a socket's path has a hundred
FRESH = 60.0  # s that a temporary folder may be without its owner's name
OWNER = "owner.txt"  # the file of a temporary folder that says whose it is
MAKE = "STUDY_MAKE"  # environment variable: HOST:PID of the make that called for the cell
FAILED, MISUSED, INTERRUPTED = 1, 2, 130  # exit codes


class Refused(ValueError):
    """A parameter or settings file that the notebook does not take."""


# --------------------------------------------------------------------------------------------- parameters


def defaults(cells: list[dict]) -> dict[str, Any]:
    """The parameters of a notebook and their default values, from its cell tagged ``parameters``.

    Raises
    ------
    Refused : if a line of that cell is anything but ``name = literal``.
    """
    found: dict[str, Any] = {}
    for cell in cells:
        if "parameters" not in cell["metadata"].get("tags", []):
            continue
        for line in ast.parse(cell["source"]).body:
            try:
                (name,) = line.targets
                found[name.id] = ast.literal_eval(line.value)
            except (AttributeError, ValueError) as error:
                raise Refused(
                    f"parameters cell: {ast.unparse(line)!r} is no line 'name = literal'"
                ) from error
    return found


def of_type(name: str, value: Any, default: Any) -> Any:
    """``value`` where it is of its default's type, a whole number also where a float is.

    Raises
    ------
    Refused : naming parameter, value and the type wanted.
    """
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        hint = ""
        if wanted in (int, float) and isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
            hint = f"; YAML reads {value} as text, write it as {float(value):g} or with a point, 1.0e-3"
        raise Refused(f"{name} = {value!r} is of type {type(value).__name__}, not {wanted.__name__}{hint}")
    if wanted is list and default:
        return [of_type(f"{name}[{i}]", item, default[0]) for i, item in enumerate(value)]
    return value


class _Strict(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise Refused(f"{', '.join(twice)} is given twice")
        return super().construct_mapping(node, deep)


def settings(path: str) -> dict[str, Any]:
    """The flat mapping of a settings file; an empty file is an empty mapping.

    Raises
    ------
    Refused : if the file is missing, no YAML, or no flat mapping.
    """
    try:
        found = yaml.load(Path(path).read_text(encoding="utf-8"), _Strict)
    except FileNotFoundError as error:
        raise Refused("there is no such settings file") from error
    except UnicodeDecodeError as error:
        raise Refused(f"no text in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise Refused(f"no YAML: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Refused(f"not lines of 'name: value', but a {type(found).__name__}")
    return found


def parameters(
    known: dict[str, Any], files: list[str], pairs: list[tuple[str, str]], called: Sequence[str] = ()
) -> dict[str, Any]:
    """The values for one run: those of the files in order, then the pairs, each checked against its default.

    A pair's value is text; it is read as its default's type, so ``("fold", "1.10")`` stays text. ``called``
    says what errors call the files, where these are copies.

    Raises
    ------
    Refused : for an unknown name or another type, naming file, parameter and value.
    """
    values: dict[str, Any] = {}

    def take(name: str, value: Any) -> None:
        if name not in known:
            close = ", ".join(known)
            raise Refused(f"unknown parameter {name} = {value!r}; the notebook has {close}")
        values[name] = of_type(name, value, known[name])

    for path, name_of_file in zip(files, called or files, strict=True):
        try:
            for name, value in settings(path).items():
                take(str(name), value)
        except Refused as error:
            raise Refused(f"{name_of_file}: {error}") from error
    for name, text in pairs:
        plain = isinstance(known.get(name, ""), str)
        take(name, text if plain else yaml.safe_load(text))
    return values


# ------------------------------------------------------------------------------------------------ one cell


class _Watch(threading.Thread):
    """Show on the terminal what the kernel tells of its progress; end a runner that is overtaken, or whose
    make is gone.
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


def _alive(pid: int, since: float = float("inf")) -> bool:
    """Whether a process is there, no zombie, and was begun before ``since``, so that it is the one meant."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since
    except psutil.NoSuchProcess:
        return False


def temporary() -> Path:
    """A fresh temporary folder that says whose it is; those of dead processes of this host are removed."""
    here, root = socket.gethostname(), Path(tempfile.gettempdir())
    if len(os.fsencode(root)) > LONGEST:
        root = Path("/tmp")
    for folder in root.glob("study-*"):
        with contextlib.suppress(OSError):  # another's, or just swept by another
            owner = folder / OWNER
            if not owner.exists():
                if time.time() - folder.stat().st_mtime > FRESH:
                    folder.rmdir()  # if it is empty
                continue
            host, pid = owner.read_text(encoding="utf-8").split()
            if host == here and not _alive(int(pid), owner.stat().st_mtime):
                shutil.rmtree(folder)
    made = Path(tempfile.mkdtemp(prefix="study-", dir=root))
    files.save(made / OWNER, f"{here} {os.getpid()}")
    return made


def _sweep(root: Path) -> None:
    """Remove the half-written files below ``root`` that dead processes of this host have left."""
    for path, pid in guard.parts(str(root)):
        with contextlib.suppress(FileNotFoundError):
            if not _alive(pid, os.stat(path).st_mtime):
                os.unlink(path)


def _root(target: Path, values: dict[str, Any]) -> Path:
    """The folder below which the cell may write: the data set's, or the target's own."""
    inside = "build" in values and "dataset" in values
    return Path(values["build"], values["dataset"]) if inside else target.parent


def _kernel_manager(tell: Any) -> type:
    """The kernel manager of one cell: this interpreter's kernel, whose process group ``tell`` hears of."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Private(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

        async def start_kernel(self, **kwargs: Any) -> None:
            await super().start_kernel(**kwargs)
            tell(self.provisioner.pgid)

    return Private


class Overtaken(Exception):
    """Another runner has put the target in place meanwhile: this one was frozen, and lost its lock."""


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file lies there, none or another one after each replacement."""
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


def run(
    notebook: Path, target: Path, values: dict[str, Any], source: Any, timeout: int, watch: _Watch
) -> None:
    """Execute ``source``, the notebook as read, and put it and its receipt in place.

    Raises whatever papermill raises; the notebook as far as it came is then ``NAME.partial.ipynb``. A node
    that was given up may thaw: what another runner has put in place since this one began is left alone.
    """
    import papermill
    from traitlets.config import Config

    private = temporary()
    partial = target.with_name(f"{target.stem}.partial.ipynb")
    owner = f"{socket.gethostname()}.{os.getpid()}"
    part = target.with_name(f".{target.stem}.{owner}.{private.name}.ipynb")
    root = _root(target, values)
    for stale in target.parent.glob(f".{target.stem}.*.study-*.ipynb"):  # of a machine that lost its power
        stale.unlink(missing_ok=True)
    beside = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, private, part, target, root, str(os.getpid())],
        stdin=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    groups: list[int] = []

    def tell(word: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # the guard was killed: its work is done below
            beside.stdin.write(f"{word}\n".encode())

    def begun(group: int) -> None:
        groups.append(group)
        tell(group)

    sockets = {
        "transport": "ipc",
        "ip": str(private / "kernel"),
        "connection_file": str(private / "kernel.json"),
    }
    notes = private / "notes.jsonl"
    os.environ[reporting.PROGRESS] = str(private / "progress")
    os.environ[reporting.NOTES] = str(notes)
    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["TMPDIR"] = str(private)
    before = _identity(target)
    watch.path, watch.overtaken = private / "progress", lambda: _identity(target) not in (before, None)
    end = "failed"
    begin = time.monotonic()
    try:
        papermill.execute_notebook(
            source,
            str(part),
            parameters=values,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=timeout or None,
            shutdown_kernel="immediate",
            kernel_manager_class=_kernel_manager(begun),
            config=Config(KernelManager=sockets),
        )
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        commit, dirty = receipts.commit()
        receipt = {
            "parameters": values,
            "commit": commit,
            "dirty": dirty,
            "versions": receipts.versions(),
            "device": "cpu",
            "seed": study.fold_and_seed(values["fold"])[1] if "fold" in values else 0,
            "data": "",
            "sources": receipts.sources(notebook),
            "seconds": round(time.monotonic() - begin, 2),
            "cpu_seconds": round(spent.ru_utime + spent.ru_stime, 2),
            "peak_memory_mib": round(spent.ru_maxrss / 1024, 1),
        }
        watch.over.set()
        watch.join()
        if watch.overtaken():
            raise Overtaken
        files.save(target.with_suffix(receipts.ENDING), receipt | reporting.notes(notes))
        files.put(part, target)
        partial.unlink(missing_ok=True)
        end = "done"
    except BaseException as error:
        if watch.overtaken():
            part.unlink(missing_ok=True)
            raise Overtaken from error
        guard.keep(str(part), str(partial))
        raise
    finally:
        watch.over.set()
        tell(end)
        beside.stdin.close()
        while beside.poll() is None:  # it waits until the kernel is gone
            for group in groups:
                guard.bury(group)
            time.sleep(0.01)
        if beside.wait():
            guard.end(groups, str(private))
            if end == "failed":
                guard.sweep(str(root), groups)


def _sentence(error: BaseException) -> str:
    """What a failure says, in one line: of a failing cell the exception that it ended in."""
    kind, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    match kind:
        case "DeadKernelError":
            return "the kernel died: out of memory, or killed"
        case "CellTimeoutError":
            return f"a cell ran past its time limit: {' '.join(text.split())[:200]}"
    return f"{kind}: {' '.join(str(text).split())[:1000]}"


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Signals that stop a runner. The first of them does, a second would stop the tidying up: Slurm sends two."""


def _interrupt(signum: int, frame: object) -> None:
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)
    gone = signum == signal.SIGUSR1
    raise KeyboardInterrupt("the end of its make" if gone else signal.Signals(signum).name)


def main(argv: list[str] | None = None) -> int:
    """Execute a percent notebook at one point of the grid, or say in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m lib.grid.execute", description=main.__doc__)
    parser.add_argument("notebook", type=Path, help="percent source, notebooks/NN_name.py")
    parser.add_argument("target", type=Path, help="where the executed notebook appears")
    parser.add_argument("-f", dest="files", action="append", default=[], metavar="YAML")
    parser.add_argument("--called", action="append", default=[], metavar="NAME", help="of each -f, in errors")
    parser.add_argument(
        "--copy", dest="copies", type=Path, action="append", default=[], metavar="FILE",
        help="what the cell rests on; if it changes meanwhile, the target is dated to its beginning",
    )  # fmt: skip
    parser.add_argument("-p", dest="pairs", action="append", default=[], nargs=2, metavar=("NAME", "VALUE"))
    parser.add_argument("--timeout", type=int, default=0, metavar="S", help="of one code cell; 0: no limit")
    given = parser.parse_args(argv)
    name = f"{given.target.parent}/{given.target.stem}"
    for signum in STOPS:
        signal.signal(signum, _interrupt)

    watch = _Watch(name)
    watch.start()
    start = time.monotonic()
    try:
        import jupytext

        if not given.notebook.is_file():
            raise Refused(f"{given.notebook}: there is no such notebook")

        def read() -> tuple[Any, dict[str, Any]]:
            source = jupytext.read(given.notebook, fmt="py:percent")
            return source, parameters(defaults(source.cells), given.files, given.pairs, given.called)

        read()  # what is refused waits for nobody
        given.target.parent.mkdir(parents=True, exist_ok=True)
        before = _identity(given.target)
        left = given.target.with_name(f".{given.target.stem}.lock").exists()
        say = functools.partial(print, file=sys.stderr, flush=True)
        with files.locked(given.target, say=say) as waited:
            made = waited and _identity(given.target) not in (before, None)
            if made and not _newer(given.copies, given.target.stat().st_mtime_ns):
                print(f"{name}: made by the runner that was waited for", file=sys.stderr)
                return 0
            moment = _now(given.target.parent)
            source, values = read()
            if left and not waited:  # a lock that nobody holds: its runner was killed
                _sweep(_root(given.target, values))
            print(f"{name}: begun", file=sys.stderr, flush=True)
            run(given.notebook, given.target, values, source, given.timeout, watch)
            changed = _newer(given.copies, moment)
            if changed:
                os.utime(given.target, ns=(moment, moment))
                print(f"{name}: {changed} changed meanwhile; the next make runs it again", file=sys.stderr)
    except Refused as error:
        print(f"{name}: {error}", file=sys.stderr)
        return MISUSED
    except Overtaken:
        print(f"{name}: made by another runner meanwhile; this one's is dropped", file=sys.stderr)
        return 0
    except (KeyboardInterrupt, Exception) as error:
        partial = given.target.with_name(f"{given.target.stem}.partial.ipynb")
        where = f"; as far as it came: {partial}" if partial.exists() else ""
        stopped = isinstance(error, KeyboardInterrupt)
        said = f"stopped by {error or 'SIGINT'}" if stopped else _sentence(error)
        print(f"FAILED {name}: {said}{where}", file=sys.stderr)
        return INTERRUPTED if stopped else FAILED
    finally:
        watch.over.set()
    print(f"{name}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
