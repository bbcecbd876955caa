"""Whether the files that chapter 1 listened to are still the same. Standard library only: make asks it."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from lib import files

NAME = "files.csv"  # beside the manifest
COLUMNS = ("path", "bytes", "modified", "sha256")


def record(folder: str | os.PathLike, digests: dict[str, str], began: int) -> None:
    """Write down size, time and hash of the files that were read.

    Parameters
    ----------
    digests : path to SHA-256 as it was read; "" where it was not.
    began : ns since 1970, when reading began; a file that was written later is compared by its hash.
    """
    rows = []
    for path, digest in digests.items():
        found = os.stat(path)
        rows.append((path, found.st_size, found.st_mtime_ns if found.st_mtime_ns < began else 0, digest))
    _write(Path(folder), rows)


def changed(folder: str | os.PathLike) -> list[str]:
    """The recorded files that are gone or hold something else now, with what was found: a line for each.

    Nothing is reported where nothing was recorded. Files of another size or time are hashed; where the hash
    is the old one, their time is recorded anew.
    Where not one of the files is there, the grid was brought here without its recordings: nothing changed.
    """
    record = Path(folder) / NAME
    if not record.is_file():
        return []
    with open(record, encoding="utf-8", newline="") as table:
        rows = [tuple(row[name] for name in COLUMNS) for row in csv.DictReader(table)]
    kept, wrong, there = [], [], 0
    for path, size, modified, digest in rows:
        try:
            found = os.stat(path)
        except OSError:
            wrong.append(f"{path}: gone")
            continue
        there += 1
        if (str(found.st_size), str(found.st_mtime_ns)) != (size, modified):
            if str(found.st_size) != size or files.digest(path) != digest:
                wrong.append(f"{path}: {found.st_size} bytes of {found.st_mtime_ns}")
            else:
                kept.append((path, size, found.st_mtime_ns, digest))
    if kept:
        again = {row[0]: row for row in kept}
        _write(Path(folder), [again.get(row[0], row) for row in rows])
    return wrong if there else []


def _write(folder: Path, rows: Iterable[tuple]) -> None:
    with files.atomic(folder / NAME) as part, open(part, "w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
