"""A point of the grid: where its files lie, how they are written, which seeds it draws from.

The study is a grid of points, ``dataset/representation/model/fold/training``; a chapter at a point is
one executed notebook beside the files it leaves. Only this module knows where things lie.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

AXES = ("dataset", "representation", "model", "fold", "training")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FOLD = re.compile(r"(\d+)(?:\.(\d+))?")

PROGRESS = "STUDY_PROGRESS"  # environment variable: the file that lib.execute shows on the terminal
NOTES = "STUDY_NOTES"  # environment variable: the file of what a kernel adds to its cell's receipt
CELLS = "STUDY_CELLS"  # environment variable: how many cells share one GPU
_PROGRESS_EVERY = 0.5  # s between two lines of one loop


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the grid, or a folder above it where the later axes are left empty.

    ``str(cell)`` is the point's path below ``build``: ``esc10/dwt/resnet18/1/standard``. A fold is text,
    ``"1"`` or ``"1.3"``: fold 1 held out, repeated with seed 3.

    Raises
    ------
    ValueError : if an axis is no plain word, or a later axis is given without an earlier one.
    """

    build: str
    dataset: str
    representation: str = ""
    model: str = ""
    fold: str = ""
    training: str = ""

    def __post_init__(self) -> None:
        point = [getattr(self, axis) for axis in AXES]
        for axis, word in zip(AXES, point, strict=True):
            if word and not _WORD.fullmatch(str(word)):
                raise ValueError(f"{axis} = {word!r} is no plain word of letters, digits, '_', '-' and '.'")
        given = [bool(word) for word in point]
        if not given[0] or given != sorted(given, reverse=True):
            raise ValueError(f"a point is named from the left, {'/'.join(AXES)}; given {point}")
        if self.fold:
            fold_and_seed(self.fold)

    def __str__(self) -> str:
        return "/".join(str(getattr(self, axis)) for axis in AXES if getattr(self, axis))

    @property
    def folder(self) -> Path:
        """Where this point's files lie."""
        return Path(self.build) / str(self)

    @property
    def seed(self) -> int:
        """The repeat: 3 of fold ``"1.3"``, 0 of ``"1"``."""
        return fold_and_seed(self.fold)[1]

    def at(self, **axes: str) -> Cell:
        """The neighbour with some axes changed: ``cell.at(training="adversarial")``."""
        return dataclasses.replace(self, **axes)

    def up(self, depth: int) -> Cell:
        """The folder that keeps the first ``depth`` axes: 1 the data set's, 2 the representation's."""
        return Cell(self.build, *[getattr(self, axis) for axis in AXES[:depth]])

    def path(self, name: str) -> Path:
        """The path of a file of this point."""
        return self.folder / name

    def save(self, name: str, content: Any) -> Path:
        """Write a frame, tensors or a dictionary whole or not at all; the name's ending says how."""
        return save(self.path(name), content)

    def load(self, name: str) -> Any:
        """Read back what :meth:`save` wrote."""
        return load(self.path(name))


def fold_and_seed(fold: str) -> tuple[int, int]:
    """Split a fold's name: ``"1.3"`` is fold 1 with seed 3, ``"1"`` is fold 1 with seed 0."""
    match = _FOLD.fullmatch(str(fold))
    if not match:
        raise ValueError(f"fold = {fold!r} is neither a number nor FOLD.SEED, such as '1' or '1.3'")
    return int(match[1]), int(match[2] or 0)


def seed_of(*words: object) -> int:
    """A seed below 2**63 that depends on the words only: the same on every machine and run."""
    drawn = hashlib.sha256("\x1f".join(map(str, words)).encode()).digest()
    return int.from_bytes(drawn[:8], "big") >> 1


def device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, else the CPU.

    Where make runs several cells at once on one GPU, each may take its part of the memory and no more, so
    that a cell which needs too much halves its own batch instead of failing its neighbours.

    Raises
    ------
    ValueError : if the device is unknown or not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device = {name!r} is none of auto, cpu, cuda, cuda:N") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device = {name!r} is none of auto, cpu, cuda, cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device = {name!r}, but {torch.cuda.device_count()} CUDA devices are there")
    cells = int(os.environ.get(CELLS, "1"))
    if found.type == "cuda" and cells > 1:
        torch.cuda.set_per_process_memory_fraction(1 / cells, found)
    note("device", torch.cuda.get_device_name(found) if found.type == "cuda" else "cpu")
    return found


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB of what it frees, for the next pass or clip, where it has glibc.

    Else its pages go back to the system, and to be given new ones costs a training step, or a clip's
    representations, a tenth and more of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-3, 32 << 20), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            mallopt(option, value)


def digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name after success, and only then.

    The name is unique to host, process and call, so that a process that was frozen and thaws cannot
    write into another's file. The bytes are on disk before the name is. What fails leaves nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield part
        put(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike, say: Callable[[str], None] = lambda text: None) -> Iterator[bool]:
    """Hold the lock of ``path``; yield whether another process was at it and had to be waited for."""
    lock = Path(path).with_name(f".{Path(path).stem}.lock")
    waited = False
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waited:
                say(f"{path}: waiting for the process that is at it")
            waited = True
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Whoever held it may have removed it: only a lock that still lies there is a lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                break
        os.close(handle)
    try:
        yield waited
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def put(part: Path, path: Path) -> None:
    """Give a written file its name: its bytes reach the disk first, then its name does."""
    _to_disk(part)
    os.replace(part, path)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(path: str | os.PathLike, content: Any) -> Path:
    """Write ``content`` whole or not at all: a frame to .parquet or .csv, tensors to .safetensors,
    anything plain to .json, text to .md, .tex or .txt.

    Tensors may come as ``(tensors, metadata)`` with a dictionary of texts as metadata.
    """
    path = Path(path)
    with atomic(path) as part:
        match path.suffix:
            case ".parquet":
                content.to_parquet(part, index=False)
            case ".csv":
                content.to_csv(part, index=False, lineterminator="\n")
            case ".json":
                text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
                part.write_text(text + "\n", encoding="utf-8")
            case ".safetensors":
                from safetensors.torch import save_file

                tensors, metadata = content if isinstance(content, tuple) else (content, {})
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata)
            case ".md" | ".tex" | ".txt":
                part.write_text(content, encoding="utf-8")
            case suffix:
                raise ValueError(f"{path.name}: no way to write a {suffix or 'nameless'} file")
    return path


def load(path: str | os.PathLike) -> Any:
    """Read what :func:`save` wrote; tensors come as ``(tensors, metadata)``.

    Raises
    ------
    FileNotFoundError : if the file is not there, naming it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: the chapter that leaves it has not run at this point")
    match path.suffix:
        case ".parquet":
            import pandas as pd

            return pd.read_parquet(path)
        case ".csv":
            import pandas as pd

            return pd.read_csv(path)
        case ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        case ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        case ".md" | ".tex" | ".txt":
            return path.read_text(encoding="utf-8")
        case suffix:
            raise ValueError(f"{path.name}: no way to read a {suffix or 'nameless'} file")


def note(name: str, value: str) -> None:
    """Add a fact that only the kernel knows to its cell's receipt; elsewhere it is dropped."""
    where = os.environ.get(NOTES)
    if where:
        with open(where, "a", encoding="utf-8") as file:
            file.write(json.dumps({name: value}) + "\n")


def notes(path: Path) -> dict[str, str]:
    """What a kernel noted in ``path``, the last word on each name."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        found |= json.loads(line)
    return found


def progress(iterable: Iterable, what: str, total: int | None = None) -> Iterator:
    """Go through ``iterable`` and tell the runner how far it is; the notebook keeps nothing of it.

    Under ``lib.execute`` the terminal of make shows the cell, what it does, done/total, rate and the
    time left. Elsewhere it is the plain iterable.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    where = os.environ.get(PROGRESS)
    if not where:
        yield from iterable
        return
    begin = last = time.monotonic()
    for done, item in enumerate(iterable):
        now = time.monotonic()
        if done and now - last >= _PROGRESS_EVERY:
            last = now
            _tell(where, what, done, total, now - begin)
        yield item


def _tell(where: str, what: str, done: int, total: int | None, seconds: float) -> None:
    rate = done / seconds
    line = f"{what} {done}" + (f"/{total}" if total else "") + f", {rate:.3g}/s"
    if total:
        left = round((total - done) / rate)
        line += f", {left // 60}:{left % 60:02d} left"
    # The runner may be gone; a line of progress is no reason to stop a computation.
    with contextlib.suppress(OSError), open(where, "a", encoding="utf-8") as file:
        file.write(line + "\n")
