"""Fetching data sets: resumed where a connection broke, believed only when every byte is known.

An archive comes in pieces into a file that outlives a kill, is checked by its hash, is unpacked into a
temporary folder whose name becomes the data set's only when all is there, and is then removed, unless it
was put there by hand. What an archive may hold is files and folders below its own root; a link, a device,
a path that climbs out, a name given twice, a member larger than any recording or more than any of these
data sets stops the unpacking.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import requests
import urllib3

from lib import files, reporting

PIECE = 1 << 20  # bytes of a piece, the unit of progress
LARGEST = 1 << 28  # bytes; no recording or table of these data sets comes near
MOST = 1 << 34  # bytes of all members, twice as many as these data sets have
BLOCK = 1 << 12  # bytes that even an empty member takes on disk
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What a connection may end in."""
SPOILT = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)
"""What unpacking may end in because of the archive's bytes."""
CLASHES = (FileExistsError, IsADirectoryError, NotADirectoryError)
"""What a name that an archive gives twice ends in."""

ESC50_FILES = Path(__file__).with_name("esc50_md5.csv")
"""MD5 of ESC-50's 2000 clips and its table, from the index that soundata 0.1.3 (BSD 3-clause) ships."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where an archive comes from and how it is known.

    Parameters
    ----------
    url : of the archive; a mirror replaces all but its last part, ``archive``.
    archive : the file's name, on disk and below a mirror.
    digest : "sha256:…" or "md5:…" of the archive.
    files : a CSV (path, md5) of what lies in the folder. Where it is given it decides, and an archive
        with another digest is unpacked and looked at: a server that packs an archive anew for each
        request gives the same files in other bytes.
    folder : the data set's folder under the data folder.
    table : a file that must lie in it.
    """

    url: str
    archive: str
    digest: str
    folder: str
    table: str
    files: Path | None = None


_ESC50 = Source(
    url="https://github.com/karolpiczak/ESC-50/archive/33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip",
    archive="ESC-50.zip",
    digest="sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
    folder="ESC-50",
    table="meta/esc50.csv",
    files=ESC50_FILES,
)
SOURCES = {
    "esc10": _ESC50,
    "esc50": _ESC50,
    "urbansound8k": Source(
        url="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
        archive="UrbanSound8K.tar.gz",
        digest="md5:9aa69802bbf37fb986f71ec1483a196e",
        folder="UrbanSound8K",
        table="metadata/UrbanSound8K.csv",
    ),
}


class Unreachable(ConnectionError):
    """Nothing could be fetched; the message says what to fetch by hand and where to put it."""


class Damaged(ValueError):
    """What came is not what was asked for."""


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
    mirror : an address under which ``source.archive`` lies too; the original one where it is empty.
    attempts : connections in a row that may bring nothing new before it is given up.
    pause : s before the second of them, doubled before each further one.
    timeout : s without a byte after which a connection counts as broken.

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
    folder, archive = data / source.folder, data / source.archive
    url = f"{mirror.rstrip('/')}/{source.archive}" if mirror else source.url
    if folder.is_dir():
        return folder
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotADirectoryError(
            f"{data}, where {source.folder} is to lie, is no folder and none can be made: {error.strerror}"
        ) from error
    with files.locked(folder, say):
        if folder.is_dir():
            return folder
        for left in data.glob(f".{source.folder}.*.unpacking"):
            shutil.rmtree(left)
        by_hand = archive.is_file()
        if not by_hand:
            part = data / f"{source.archive}.part"
            try:
                _transfer(url, part, attempts, pause, timeout, say)
            except BROKEN as error:
                raise Unreachable(
                    f"{url} could not be fetched ({_reason(error)}); the next try goes on where this one "
                    f"ended. Without network, fetch {source.url} by hand, put it at {archive} or unpack it "
                    f"so that {folder / source.table} is there, and give the command again; 'mirror' in the "
                    "settings of chapter 1 names another server"
                ) from error
            if not _known(part, source):
                found = _hash(part, source.digest.partition(":")[0])
                part.unlink()
                raise Damaged(
                    f"{url} was fetched, but its hash is {found}, not {source.digest}; it was removed. "
                    "Another try or a mirror may bring the right bytes"
                )
            files.put(part, archive)
        elif not _known(archive, source):
            raise Damaged(f"{archive} is no {source.digest}: it is incomplete or another file; remove it")
        try:
            _unpack(archive, folder, source, say)
        except Damaged as error:
            if by_hand:
                raise Damaged(f"{error}; it was put there by hand: remove it") from error
            archive.unlink()
            raise
        if not by_hand:
            archive.unlink()
    return folder


def _known(archive: Path, source: Source) -> bool:
    """Whether the archive is the one that is meant, or one whose files can tell."""
    algorithm, _, digest = source.digest.partition(":")
    return _hash(archive, algorithm) == digest or (
        source.files is not None and (zipfile.is_zipfile(archive) or tarfile.is_tarfile(archive))
    )


def _hash(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


# --- the way here ---------------------------------------------------------------------------------------


def _transfer(
    url: str, part: Path, attempts: int, pause: float, timeout: float, say: Callable[[str], None]
) -> None:
    """Fetch ``url`` into ``part``, from where it ends, over as many connections as it takes."""
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _connection(url, part, before, timeout)
            return
        except BROKEN as error:
            refused = getattr(error, "response", None)
            if refused is not None and 400 <= refused.status_code < 500 and refused.status_code != 429:
                raise
            if isinstance(error, ValueError):  # no address at all
                raise
            now = part.stat().st_size if part.exists() else 0
            failed = 0 if now > before else failed + 1
            if failed >= attempts:
                raise
            wait = pause * 2**failed
            say(f"{part.name}: broke off at {now / 1e6:.1f} MB ({_reason(error)}); again in {wait:g} s")
            time.sleep(wait)


def _connection(url: str, part: Path, have: int, timeout: float) -> None:
    """One connection: append what is missing, or begin anew where the server cannot give a range."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        if answer.status_code == 416:  # nothing lies beyond what is here: too much, or all of it
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(have):
                return
            part.unlink()
            raise requests.ConnectionError(f"{have} bytes are here, more than the server has")
        answer.raise_for_status()
        begin = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        goes_on = answer.status_code == 206 and begin == str(have)
        if answer.status_code == 206 and not goes_on:
            raise requests.ConnectionError(f"byte {have} was asked for and byte {begin or '?'} came")
        length = answer.headers.get("Content-Length")
        have = have if goes_on else 0
        total = have + int(length) if length else None
        room = shutil.disk_usage(part.parent).free
        if total and total - have > room:
            raise OSError(f"{(total - have) / 1e9:.1f} GB are to come and {room / 1e9:.1f} GB are free")
        with open(part, "ab" if goes_on else "wb") as file:
            file.seek(0, os.SEEK_END)
            pieces = total and -(-(total - have) // PIECE)
            for _ in reporting.track(_written(answer.raw, file), f"{part.stem}, MiB", pieces):
                pass
            have = file.tell()
        if total is not None and have < total:
            raise requests.ConnectionError(f"{have} of {total} bytes came")


def _written(raw: Any, file: IO[bytes]) -> Iterator[None]:
    """Write what comes as soon as it is there, so that nothing is lost with a connection; yields a piece."""
    told = file.tell()
    while content := raw.read1(PIECE):
        file.write(content)
        if file.tell() - told >= PIECE:
            told = file.tell()
            yield
    if file.tell() > told:
        yield


def _reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__context__ is not None or isinstance(getattr(error, "reason", None), BaseException):
        error = error.__context__ or error.reason
    return " ".join(str(error).split()) or type(error).__name__


# --- unpacking ------------------------------------------------------------------------------------------


def _unpack(archive: Path, folder: Path, source: Source, say: Callable[[str], None]) -> None:
    """Unpack beside ``folder`` and give it its name when all that belongs to it is there."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.unpacking")
    try:
        total = 0
        with _opened(archive) as members:
            for name, size, content in reporting.track(members, f"unpacking {archive.name}"):
                total += max(size, BLOCK)
                if size > LARGEST:
                    raise Damaged(f"{archive}: {name} has {size} bytes, more than any recording")
                if total > MOST:
                    raise Damaged(f"{archive} holds more than {MOST} bytes, more than any of these data sets")
                path = aside / _inside(name, archive)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with open(path, "xb") as file:
                        shutil.copyfileobj(content, file, PIECE)
                except CLASHES as error:
                    raise Damaged(f"{archive}: {name} stands in it twice") from error
                if path.stat().st_size != size:
                    raise Damaged(f"{archive}: {name} should have {size} bytes and has {path.stat().st_size}")
        root = _root(aside, source.table)
        if root is None:
            raise Damaged(f"{archive} holds no {source.table}")
        if source.files is not None:
            _compare(root, source.files, archive)
        os.sync()  # thousands of small files: all at once is cheaper than one by one
        files.put(root, folder)
    except SPOILT as error:
        raise Damaged(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    say(f"{folder} is there")


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """The files of a zip or tar archive: name, size, content; anything but files and folders is refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _of_zip(packed, archive)
    else:
        with tarfile.open(archive) as packed:
            yield _of_tar(packed, archive)


def _of_zip(packed: zipfile.ZipFile, archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    for member in packed.infolist():
        kind = member.external_attr >> 28  # of the Unix mode: 8 a file, 4 a folder, 0 unsaid
        if kind not in (0, 4, 8):
            raise Damaged(f"{archive}: {member.filename} is a link or a device")
        if member.flag_bits & 1:
            raise Damaged(f"{archive}: {member.filename} is encrypted")
        if not member.is_dir():
            with packed.open(member) as content:
                yield member.filename, member.file_size, content


def _of_tar(packed: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    for member in packed:
        if not (member.isfile() or member.isdir()):
            raise Damaged(f"{archive}: {member.name} is a link or a device")
        content = packed.extractfile(member)
        if content is not None:
            yield member.name, member.size, content


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The member's path, if it lies below the archive's root."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts or ":" in path.parts[0]:
        raise Damaged(f"{archive}: {name} climbs out of the folder")
    return path


def _root(aside: Path, table: str) -> Path | None:
    """The folder in which ``table`` lies: the archive's own root or its one folder."""
    places = [aside, *(path for path in sorted(aside.glob("*")) if path.is_dir())]
    return next((place for place in places if (place / table).is_file()), None)


def _compare(root: Path, files: Path, archive: Path) -> None:
    with open(files, encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    for row in reporting.track(rows, "checking files"):
        path = root / row["path"]
        if not path.is_file():
            raise Damaged(f"{archive} holds no {row['path']}")
        if _hash(path, "md5") != row["md5"]:
            raise Damaged(f"{archive}: {row['path']} is not the file of ESC-50: its MD5 is not {row['md5']}")
