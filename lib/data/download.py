"""Fetching data sets: resumed where a connection broke, believed only when every byte is known.

An archive comes in pieces into a file that outlives a kill, is checked by its hash, is unpacked into a
temporary folder whose name becomes the data set's only when all is there (`lib.data.unpacking`), and is then
removed, unless it was put there by hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

import requests
import urllib3

from lib import files, reporting
from lib.data.unpacking import Damaged, unpack

PIECE = 1 << 20  # bytes of a piece, the unit of progress
SLOWEST = 1000  # bytes a second, below which a connection counts as broken
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What a connection may end in."""

__all__ = ["Damaged", "Source", "Unreachable", "fetch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where an archive comes from and how it is known.

    Parameters
    ----------
    url : of the archive; a mirror replaces all but its last part, ``archive``.
    archive : the file's name, on disk and below a mirror.
    digest : "sha256:…" or "md5:…" of the archive.
    folder : the data set's folder under the data folder.
    table : a file that must lie in it.
    files : a CSV (path, md5) of what lies in the folder. Where it is given it decides, and a zip archive
        with another digest is unpacked and looked at: a server that packs an archive anew for each
        request gives the same files in other bytes.
    largest : bytes; an archive that is larger is not fetched.
    """

    url: str
    archive: str
    digest: str
    folder: str
    table: str
    files: Path | None = None
    largest: int = 1 << 33


class Unreachable(ConnectionError):
    """Nothing could be fetched; the message says what to fetch by hand and where to put it."""


class _Slow(requests.Timeout):
    """A connection that brings too little to wait for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Way:
    """How an archive is fetched; see :func:`fetch`."""

    url: str
    largest: int
    attempts: int
    pause: float
    timeout: float
    say: Callable[[str], None]


def fetch(
    source: Source,
    data: str | os.PathLike,
    *,
    mirror: str = "",
    attempts: int = 4,
    pause: float = 1.0,
    timeout: float = 30.0,
    say: Callable[[str], None] = print,
) -> Path:
    """Bring a data set's folder under ``data``, if it is not there.

    An archive that was fetched by hand and put there as ``source.archive`` is taken instead of the
    network's. Of two processes, one fetches and the other waits for it.

    Parameters
    ----------
    mirror : another address of ``source.archive``; the original one where it is empty.
    attempts : connections in a row that may bring nothing new, or too slowly, before it is given up.
    pause : s before the second of them, doubled before each further one.
    timeout : s without a byte, or with fewer than ``SLOWEST`` a second, after which a connection counts as
        broken.

    Returns
    -------
    The folder.

    Raises
    ------
    Unreachable : if the server does not answer or keeps breaking off; what has come stays for next time.
    Damaged : if the archive has another hash, holds what it must not, or lacks the data set's table.
    NotADirectoryError : if ``data`` is no folder and cannot be made.
    """
    data = Path(data)
    folder, by_hand = data / source.folder, data / source.archive
    if folder.is_dir():
        return folder
    _make(data, source)
    with files.locked(folder, say):
        if folder.is_dir():
            return folder
        for left in data.glob(f".{source.folder}.*.unpacking"):
            shutil.rmtree(left)
        if by_hand.is_file():
            _unpack_by_hand(by_hand, folder, source)
        else:
            url = f"{mirror.rstrip('/')}/{source.archive}" if mirror else source.url
            way = _Way(
                url=url, largest=source.largest, attempts=attempts, pause=pause, timeout=timeout, say=say
            )
            part = data / f"{source.archive}.part"
            _bring(part, folder, source, way)
            try:
                unpack(part, folder, source.table, source.files)
            except Damaged:
                part.unlink()
                raise
            part.unlink()
    say(f"{folder} is there")
    return folder


def _make(data: Path, source: Source) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotADirectoryError(
            f"{data}, where {source.folder} is to lie, is no folder and none can be made: {error.strerror}"
        ) from error


def _unpack_by_hand(archive: Path, folder: Path, source: Source) -> None:
    if archive.stat().st_size > source.largest or not _meant(archive, source):
        raise Damaged(f"{archive} is no {source.digest}: it is incomplete or another file; remove it")
    try:
        unpack(archive, folder, source.table, source.files)
    except Damaged as error:
        raise Damaged(f"{error}; it was put there by hand: remove it") from error


def _bring(part: Path, folder: Path, source: Source, way: _Way) -> None:
    """Fetch the archive into ``part`` and make sure that it is the one that is meant."""
    try:
        _transfer(part, way)
    except BROKEN as error:
        raise Unreachable(
            f"{way.url} could not be fetched ({_reason(error)}); the next try goes on where this one "
            f"ended. Without network, fetch {source.url} by hand, put it at {part.with_suffix('')} or unpack "
            f"it so that {folder / source.table} is there, and give the command again; 'mirror' in the "
            "settings of chapter 1 names another server"
        ) from error
    if not _meant(part, source):
        found = _hash(part, source.digest.partition(":")[0])
        part.unlink()
        raise Damaged(
            f"{way.url} was fetched, but its hash is {found}, not {source.digest}; it was removed. "
            "Another try or a mirror may bring the right bytes"
        )


def _meant(archive: Path, source: Source) -> bool:
    """Whether the archive is the one that is meant, or one whose files can tell."""
    algorithm, _, digest = source.digest.partition(":")
    return _hash(archive, algorithm) == digest or (source.files is not None and zipfile.is_zipfile(archive))


def _hash(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


# --- the way here ---------------------------------------------------------------------------------------


def _transfer(part: Path, way: _Way) -> None:
    """Fetch the archive into ``part``, from where that ends, over as many connections as it takes."""
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _connection(part, before, way)
            return
        except Damaged:
            part.unlink(missing_ok=True)
            raise
        except BROKEN as error:
            refused = getattr(error, "response", None)
            if refused is not None and 400 <= refused.status_code < 500 and refused.status_code != 429:
                raise
            if isinstance(error, ValueError):  # no address at all
                raise
            now = part.stat().st_size if part.exists() else 0
            failed = 0 if now > before and not isinstance(error, _Slow) else failed + 1
            if failed >= way.attempts:
                raise
            wait = way.pause * 2**failed
            way.say(f"{part.name}: broke off at {now / 1e6:.1f} MB ({_reason(error)}); again in {wait:g} s")
            time.sleep(wait)


def _connection(part: Path, have: int, way: _Way) -> None:
    """One connection: append what is missing, or begin anew where the server cannot give a range."""
    with _answer(have, way) as answer:
        content_range = answer.headers.get("Content-Range", "")
        if answer.status_code == 416:  # nothing lies beyond what is here: too much, or all of it
            if content_range.rpartition("/")[2] == str(have):
                return
            part.unlink()
            raise requests.ConnectionError(f"{have} bytes are here, more than the server has")
        answer.raise_for_status()
        begin = content_range.removeprefix("bytes ").partition("-")[0]
        goes_on = answer.status_code == 206 and begin == str(have)
        if answer.status_code == 206 and not goes_on:
            raise requests.ConnectionError(f"byte {have} was asked for and byte {begin or '?'} came")
        have = have if goes_on else 0
        total = _total(answer, have, part.parent, way)
        with open(part, "ab" if goes_on else "wb") as file:
            file.seek(0, os.SEEK_END)
            pieces = total and -(-(total - have) // PIECE)
            for _ in reporting.track(_written(answer.raw, file, way), f"{part.stem}, MiB", pieces):
                pass
            have = file.tell()
        if total is not None and have < total:
            raise requests.ConnectionError(f"{have} of {total} bytes came")


def _answer(have: int, way: _Way) -> requests.Response:
    """The head of a server's answer; one that drips in is given up after four times the timeout."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    answer: Future = Future()

    def ask() -> None:
        try:
            answer.set_result(requests.get(way.url, headers=headers, stream=True, timeout=way.timeout))
        except Exception as error:  # raised again below, in the thread that waits
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(4 * way.timeout)
    except TimeoutError:
        answer.add_done_callback(_close)
    raise _Slow(f"no answer within {4 * way.timeout:g} s")


def _close(late: Future) -> None:
    """Close the connection of an answer that nobody waits for any more."""
    if late.exception() is None:
        late.result().close()


def _total(answer: requests.Response, have: int, folder: Path, way: _Way) -> int | None:
    """How many bytes the archive has, as the server says; None where it does not."""
    length = answer.headers.get("Content-Length")
    if length is None:
        return None
    if not length.isdecimal():
        raise requests.ConnectionError(f"the server says a length of {length[:40]!r}")
    total = have + int(length)
    if total > way.largest:
        raise Damaged(f"{way.url} has {total} bytes, more than this archive can have, {way.largest}")
    room = shutil.disk_usage(folder).free
    if total - have > room:
        raise OSError(f"{(total - have) / 1e9:.1f} GB are to come and {room / 1e9:.1f} GB are free")
    return total


def _written(raw: Any, file: IO[bytes], way: _Way) -> Iterator[None]:
    """Write what comes as soon as it is there, so that nothing is lost with a connection; yields a piece."""
    reported = mark = file.tell()
    since = time.monotonic()
    while content := raw.read1(PIECE):
        file.write(content)
        if file.tell() > way.largest:
            raise Damaged(f"{way.url} goes on beyond {way.largest} bytes, more than this archive can have")
        elapsed = time.monotonic() - since
        if elapsed > way.timeout:
            if file.tell() - mark < SLOWEST * elapsed:
                raise _Slow(f"{(file.tell() - mark) / elapsed:.0f} bytes a second")
            mark, since = file.tell(), time.monotonic()
        if file.tell() - reported >= PIECE:
            reported = file.tell()
            yield
    if file.tell() > reported:
        yield


def _reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__context__ is not None or isinstance(getattr(error, "reason", None), BaseException):
        error = error.__context__ or error.reason
    return " ".join(str(error).split()) or type(error).__name__
