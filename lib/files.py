"""Files written whole or not at all, locked, read back and hashed; one format for each ending."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LISTED = "STUDY_WRITTEN"  # environment variable: the file that lists what a cell writes


def digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, which gets that name after success, and only then.

    The name is unique to host, process and call, so that a process that was frozen and continues
    cannot write into the file of another. The bytes are on disk before the name is. A failure keeps nothing.
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
    """Hold the lock of ``path``; yield whether another process held it and was waited for."""
    lock = Path(path).with_name(f".{Path(path).stem}.lock")
    waited = False
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waited:
                say(f"{path}: waiting for the process that works on it")
            waited = True
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Its holder may have removed it: only a lock whose file is still there is a lock.
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
    """Give a written file its name: its bytes reach the disk first, then its name does.

    Below a runner the file is listed, so that the cell's receipt names what the cell wrote.
    """
    _to_disk(part)
    os.replace(part, path)
    _to_disk(path.parent)
    if LISTED in os.environ:
        with open(os.environ[LISTED], "a", encoding="utf-8") as file:
            file.write(f"{path.resolve()}\n")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(path: str | os.PathLike, content: Any) -> Path:
    """Write ``content`` whole or not at all: a frame to .parquet or .csv, tensors to .safetensors,
    anything plain to .json, text to .md, .tex or .txt. The same content gives the same bytes.

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

                tensors, facts = content if isinstance(content, tuple) else (content, {})
                contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                save_file(contiguous, part, facts)
                _sort_header(part)
            case ".md" | ".tex" | ".txt":
                part.write_text(content, encoding="utf-8")
            case suffix:
                raise ValueError(f"{path.name}: a {suffix or 'nameless'} file cannot be written")
    return path


def _sort_header(path: Path) -> None:
    """Sort the metadata of a safetensors file, which its library writes in an order drawn anew each time."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
            if len(text) != size:
                raise ValueError(f"{path.name}: the sorted header has {len(text)} bytes instead of {size}")
            file.seek(8)
            file.write(text)


def load(path: str | os.PathLike, *, numpy: bool = False) -> Any:
    """Read what :func:`save` wrote; tensors come as ``(tensors, metadata)``, with ``numpy`` as arrays.

    Raises
    ------
    FileNotFoundError : if there is no such file.
    ValueError : if the file cannot be read, because it is damaged or of another format.
    """
    path = Path(path)
    with _readable(path):
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
                with _opened(path, "numpy" if numpy else "pt") as file:
                    return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
            case ".md" | ".tex" | ".txt":
                return path.read_text(encoding="utf-8")
    raise ValueError(f"{path.name}: a {path.suffix or 'nameless'} file cannot be read")


def metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata of a .safetensors file, without its tensors; raises as :func:`load` does."""
    path = Path(path)
    with _readable(path), _opened(path, "numpy") as file:
        return file.metadata() or {}


def _opened(path: Path, framework: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework=framework)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Refuse a file that is not there, and name the file in the errors of those who read it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: the chapter that writes it has not run at this point")
    try:
        yield
    except (ValueError, OSError) as error:  # also those of JSON, UTF-8, pandas and Arrow
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} cannot be read, it is damaged or of another format: {error}") from error
