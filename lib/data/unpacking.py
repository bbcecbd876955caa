"""Unpacking an archive that may be anything: what it holds is believed only once it is checked.

An archive may hold files and folders below its own root. A link, a device, a path that climbs out or is too
deep, a name given twice, a member larger than any recording, or more than any of these data sets stops the
unpacking, and nothing of it stays.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from lib import files, reporting

LARGEST = 1 << 28  # bytes; no recording or table of these data sets comes near
MOST = 1 << 34  # bytes of all members, twice as many as these data sets have
BLOCK = 1 << 12  # bytes that even an empty member takes on disk
DEEPEST = 16  # folders of a member's path
HEADER = 1 << 20  # bytes that tarfile may read at once: what extends a header, a long name for example
SPOILT = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, gzip.BadGzipFile)
"""What unpacking may end in because of the archive's bytes."""
CLASHES = (FileExistsError, IsADirectoryError, NotADirectoryError)
"""What a name that an archive gives as a file and as a folder ends in."""


class Damaged(ValueError):
    """What came is not what was asked for."""


def unpack(archive: Path, folder: Path, table: str, known: Path | None = None) -> None:
    """Unpack beside ``folder`` and give it its name when all that belongs to it is there.

    Parameters
    ----------
    table : a file that must lie in the folder.
    known : a CSV (path, md5) of files that must lie in it with these bytes.

    Raises
    ------
    Damaged : naming the archive, the member and what is wrong with it.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.unpacking")
    try:
        aside.mkdir()
        _extract(archive, aside)
        places = [aside, *(path for path in sorted(aside.glob("*")) if path.is_dir())]
        root = next((place for place in places if (place / table).is_file()), None)
        if root is None:
            raise Damaged(f"{archive} holds no {table}")
        if known is not None:
            _compare(root, known, archive)
        os.sync()  # thousands of small files: all at once is cheaper than one by one
        files.put(root, folder)
    except SPOILT as error:
        raise Damaged(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(archive: Path, aside: Path) -> None:
    total, seen = 0, set()
    with _opened(archive) as members:
        for name, size, member, packed in reporting.track(members, f"unpacking {archive.name}"):
            total += max(size, BLOCK)
            if size > LARGEST:
                raise Damaged(f"{archive}: {name} has {size} bytes, more than any recording")
            if total > MOST:
                raise Damaged(f"{archive} holds more than {MOST} bytes, more than any of these data sets")
            path = _inside(name, archive)
            try:
                if path in seen:
                    raise FileExistsError
                seen.add(path)
                packed.extract(
                    member, aside, **({"filter": "data"} if isinstance(packed, tarfile.TarFile) else {})
                )
            except CLASHES as error:
                raise Damaged(f"{archive}: {name} stands in it twice") from error
            found = (aside / path).stat().st_size
            if found != size:
                raise Damaged(f"{archive}: {name} should have {size} bytes and has {found}")


Member = tuple[str, int, "zipfile.ZipInfo | tarfile.TarInfo", "zipfile.ZipFile | tarfile.TarFile"]


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[Iterator[Member]]:
    """The files of a zip or tar archive: name, size, member and archive; anything else is refused."""
    with contextlib.ExitStack() as stack:
        if zipfile.is_zipfile(archive):
            yield _of_zip(stack.enter_context(zipfile.ZipFile(archive)), archive)
            return
        stream = stack.enter_context(open(archive, "rb"))
        if stream.read(2) == b"\x1f\x8b":
            stream = stack.enter_context(gzip.open(archive))
        stream.seek(0)
        yield _of_tar(stack.enter_context(tarfile.TarFile(fileobj=_Bounded(stream, archive))), archive)


class _Bounded:
    """An open archive of which no more than ``HEADER`` bytes are read at once.

    tarfile reads a member's extended header in one piece, whatever size it says; the contents of files it
    copies in small ones.
    """

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self.stream, self.archive = stream, archive
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > HEADER:
            raise Damaged(f"{self.archive}: a member's header has {size} bytes")
        return self.stream.read(size)


def _of_zip(packed: zipfile.ZipFile, archive: Path) -> Iterator[Member]:
    for member in packed.infolist():
        kind = member.external_attr >> 28  # of the Unix mode: 8 a file, 4 a folder, 0 unsaid
        if kind not in (0, 4, 8):
            raise Damaged(f"{archive}: {member.filename} is a link or a device")
        if member.flag_bits & 1:
            raise Damaged(f"{archive}: {member.filename} is encrypted")
        if not member.is_dir():
            yield member.filename, member.file_size, member, packed


def _of_tar(packed: tarfile.TarFile, archive: Path) -> Iterator[Member]:
    for member in packed:
        if not (member.isfile() or member.isdir()):
            raise Damaged(f"{archive}: {member.name} is a link or a device")
        if member.isfile():
            yield member.name, member.size, member, packed


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The member's path, if it lies below the archive's root and a file system can hold it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts or ":" in path.parts[0]:
        raise Damaged(f"{archive}: {name[:200]} climbs out of the folder")
    if len(path.parts) > DEEPEST or any(len(part.encode(errors="replace")) > 200 for part in path.parts):
        raise Damaged(f"{archive}: {name[:200]}… is deeper than {DEEPEST} folders or longer than any name")
    return path


def _compare(root: Path, known: Path, archive: Path) -> None:
    with open(known, encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    for row in reporting.track(rows, "checking files"):
        path = root / row["path"]
        if not path.is_file():
            raise Damaged(f"{archive} holds no {row['path']}")
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != row["md5"]:
            raise Damaged(
                f"{archive}: {row['path']} is not the known file: its MD5 is {found}, not {row['md5']}"
            )
