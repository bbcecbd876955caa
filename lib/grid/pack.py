"""A finished grid in one archive, to be read and published elsewhere (``make pack``, ``make unpack FILE=…``).

An archive has the finished cells of a grid: executed notebooks, receipts, rows, histories and figures, and
the inputs that make compares. It has no images of a store, and no weights unless ``WEIGHTS=1``; the receipts
then say which files were left out. Its first member, the manifest, lists all others with their hashes. The
same grid gives the same bytes.

Nothing is laid out before the whole archive was checked. Where a cell is there already the newer one stays,
so packs of a grid that was computed in pieces can be unpacked into one folder, in any order.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lib import files
from lib.grid import axes, outputs, status

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST = 64 << 20  # bytes of a manifest
CHUNK = 1 << 20
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_WEIGHTS = re.compile(r"(^|/)model\.safetensors$")
_IMAGES = re.compile(r"(^|/)store/.*(?<!\.json)$")


TRAINS = "05_adversarial_training"
_ORDER = (
    "01_data",
    "*/02_features",
    "*/*/*/standard/03_training",
    f"*/*/*/*/{TRAINS}",
    "*/*/*/*/04_attacks",
    "07_beyond",
)
"""The graph from above, without chapter 6, which make runs again where it lacks cells of another piece."""


class Refused(ValueError):
    """An archive that is not unpacked, in one sentence."""


# ------------------------------------------------------------------------------------------------------ pack


def left_out(name: str, weights: bool) -> bool:
    """Whether a file of a cell stays at home."""
    return bool(_IMAGES.search(name) or (_WEIGHTS.search(name) and not weights))


def cell_files(notebook: Path, build: Path, weights: bool) -> dict[str, bytes | Path]:
    """What is packed of a cell, by its path below ``build``: files, and the receipt as it will say."""
    path, receipt = notebook.with_suffix(outputs.ENDING), outputs.receipt(notebook)
    away = {name: facts for name, facts in receipt["files"].items() if left_out(name, weights)}
    kept = {name: facts for name, facts in receipt["files"].items() if name not in away}
    receipt |= {"files": kept, "left_out": receipt.get("left_out", {}) | away}
    text = json.dumps(receipt, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    found: dict[str, bytes | Path] = {name: build / name for name in sorted(kept)}
    found[path.relative_to(build).as_posix()] = text.encode() if away else path
    return found | {notebook.relative_to(build).as_posix(): notebook}


def pack(grid: axes.Grid, waiting: Iterable[Path], target: Path, *, weights: bool = False) -> dict[str, Any]:
    """Write the finished cells of a grid to an archive.

    Parameters
    ----------
    waiting : the notebooks that make would write; these cells are not finished.

    Returns
    -------
    The manifest.

    Raises
    ------
    Refused : if nothing is finished, or a file changed while it was packed.
    """
    build, waiting = Path(grid.build), set(waiting)
    members: dict[str, bytes | Path] = {}
    manifest: dict[str, Any] = {"format": FORMAT, "cells": {}, "inputs": {}, "files": {}}
    for notebook in map(Path, grid.cells()):
        if notebook in waiting or not notebook.exists() or outputs.problem(notebook, build):
            continue
        found = cell_files(notebook, build, weights)
        name = notebook.relative_to(build).as_posix()
        manifest["cells"][name] = {"time": notebook.stat().st_mtime_ns, "files": sorted(found)}
        members |= found
    if not manifest["cells"]:
        raise Refused(f"{build} has no finished cell of this grid")
    inputs = build / axes.INPUTS
    folders = [inputs, *(inputs / dataset for dataset in grid.datasets)]
    for path in sorted(path for folder in folders for path in folder.glob("*") if path.is_file()):
        name = path.relative_to(build).as_posix()
        manifest["inputs"][name] = path.stat().st_mtime_ns
        members[name] = path
    for name, source in members.items():
        with _opened(source) as file:
            manifest["files"][name] = _hashed(file)
    with files.atomic(target) as part:
        _write(part, members, manifest)
    return manifest


def _write(part: Path, members: Mapping[str, bytes | Path], manifest: dict[str, Any]) -> None:
    """An archive without times, owners or names of machines; each file is hashed again as it is written."""
    with (
        part.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        _add(archive, MANIFEST, io.BytesIO(text), len(text))
        for name, source in sorted(members.items()):
            with _opened(source) as file:
                entry, watched = manifest["files"][name], _Watched(file)
                _add(archive, name, watched, entry["bytes"])
                if watched.digest() != entry["sha256"]:
                    raise Refused(f"{name} changed while it was packed; pack again")


def _opened(source: bytes | Path) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _hashed(file: IO[bytes]) -> dict[str, Any]:
    watched = _Watched(file)
    while watched.read(CHUNK):
        pass
    return {"bytes": watched.size, "sha256": watched.digest()}


class _Watched(io.RawIOBase):
    """A file that hashes and counts what is read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        text = self.file.read(size)
        self.hash.update(text)
        self.size += len(text)
        return text

    def digest(self) -> str:
        return self.hash.hexdigest()


def _add(archive: tarfile.TarFile, name: str, file: Any, size: int) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o644
    try:
        archive.addfile(about, file)
    except OSError as error:  # a file that has become shorter
        raise Refused(f"{name} changed while it was packed; pack again") from error


# ---------------------------------------------------------------------------------------------------- unpack


def unpack(file: Path, build: Path) -> tuple[list[str], list[str]]:
    """Lay an archive out in ``build``.

    Returns
    -------
    The cells that were laid out, and those that were there already, as new or newer.

    Raises
    ------
    Refused : if the archive is damaged, names a path outside, or was made from other settings than are there.
    """
    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=build) as folder:
        scratch = Path(folder)
        try:
            with tarfile.open(file, "r:gz") as archive:
                manifest = _extract(archive, scratch)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise Refused(f"{file} is no whole archive of make pack: {error}") from error
        for name in manifest["inputs"]:
            if (build / name).exists() and (build / name).read_bytes() != (scratch / name).read_bytes():
                raise Refused(f"{build / name} is not what {file} was made from; name another BUILD")
        for name, moment in manifest["inputs"].items():
            there = build / name
            _lay(scratch / name, there, min(moment, there.stat().st_mtime_ns) if there.exists() else moment)
        laid, kept, other = [], [], set()
        for name, cell in sorted(manifest["cells"].items()):
            there = build / name
            if there.exists() and not _alike(there, scratch / name):
                other.add(name)
            if there.exists() and there.stat().st_mtime_ns >= cell["time"]:
                kept.append(name)
                continue
            for one in cell["files"]:
                if one != name:
                    _lay(scratch / one, build / one)
            _lay(scratch / name, there, cell["time"])  # the notebook comes last
            laid.append(name)
    for dataset in {name.split("/")[0] for name in laid}:
        put_in_order(build, dataset, laid, other, set(manifest["cells"]))
    return laid, kept


def _lay(new: Path, there: Path, moment: int | None = None) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    os.replace(new, there)
    if moment is not None:
        os.utime(there, ns=(moment, moment))


def _alike(one: Path, other: Path) -> bool:
    """Whether two notebooks of one cell came with the same models and rows."""

    def content(notebook: Path) -> dict[str, Any]:
        receipt = json.loads(notebook.with_suffix(outputs.ENDING).read_bytes())
        listed = receipt.get("files", {}) | receipt.get("left_out", {})
        return {name: entry for name, entry in listed.items() if name.endswith((".safetensors", ".parquet"))}

    return content(one) == content(other)


def put_in_order(build: Path, dataset: str, laid: Iterable[str], other: set[str], packed: set[str]) -> None:
    """Date notebooks so that make finds none older than what it was made from, in pieces of a grid that come
    from several runs; and find those older that were made from something else than what is there now.

    Parameters
    ----------
    laid : the cells that were just laid out.
    other : cells that were there with another content, whichever of the two stayed.
    packed : all cells of the archive.
    """
    root, laid, latest, stale = build / dataset, set(laid), 0, []
    for pattern in _ORDER:
        found = sorted(root.glob(f"{pattern}.ipynb"))
        for path in found:
            name = path.relative_to(build).as_posix()
            above = path.with_name(f"{axes.trains(str(path.parent))}.ipynb")
            if path.stem == TRAINS:
                above = path.parent.with_name("standard") / "03_training.ipynb"
            upstream = above.relative_to(build).as_posix()
            if upstream in other and upstream != name and (upstream in laid) != (name in laid):
                stale.append((path, above))
            elif path.stat().st_mtime_ns < latest:
                os.utime(path, ns=(latest, latest))
        latest = max([latest, *(path.stat().st_mtime_ns for path in found)])
    attacked = sorted(root.glob("*/*/*/*/04_attacks.ipynb"))
    analysis = root / "06_analysis.ipynb"
    if analysis.exists() and {path.relative_to(build).as_posix() for path in attacked} - packed:
        stale.append((analysis, min(attacked, key=lambda path: path.stat().st_mtime_ns)))
    for path, above in stale:
        moment = above.stat().st_mtime_ns - 1
        os.utime(path, ns=(moment, moment))


def _extract(archive: tarfile.TarFile, scratch: Path) -> dict[str, Any]:
    """Check every member against the manifest, and write it below ``scratch``; the manifest."""
    members = iter(archive)
    first = next(members, None)
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST:
        raise Refused(f"{archive.name} has no manifest: make pack did not write it")
    manifest = _checked(archive.extractfile(first).read(), str(archive.name))
    listed = dict(manifest["files"])
    for member in members:
        entry = listed.pop(member.name, None)
        if entry is None or not member.isreg() or member.size != entry["bytes"]:
            raise Refused(f"{archive.name}: {member.name!r} is not what the manifest lists")
        path = scratch / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        watched = _Watched(archive.extractfile(member))
        with path.open("wb") as file:
            shutil.copyfileobj(watched, file, CHUNK)
        if watched.digest() != entry["sha256"]:
            raise Refused(f"{archive.name}: {member.name!r} is damaged: its hash is not the manifest's")
    if listed:
        raise Refused(
            f"{archive.name} is cut short: it lacks {min(listed)!r} and {len(listed) - 1} other files"
        )
    return manifest


def _checked(text: bytes, name: str) -> dict[str, Any]:
    """A manifest, if it has the form that :func:`pack` gives it and no path leads out."""
    try:
        manifest = json.loads(text)
        listed = {
            str(one): (int(entry["bytes"]), str(entry["sha256"])) for one, entry in manifest["files"].items()
        }
        cells = {one: int(cell["time"]) for one, cell in manifest["cells"].items()}
        named = {
            *cells,
            *manifest["inputs"],
            *(one for c in manifest["cells"].values() for one in c["files"]),
        }
        whole = manifest["format"] == FORMAT and named <= set(listed)
        moments = [int(moment) for moment in manifest["inputs"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{name}: its manifest is damaged: {error!r}") from error
    if not whole or min([*moments, *cells.values()], default=0) < 0:
        raise Refused(f"{name}: its manifest is damaged, or of another version of make pack")
    for one in listed:
        first, *rest = PurePosixPath(one).parts
        inside = [first, *rest] if first != axes.INPUTS else rest
        if PurePosixPath(one).as_posix() != one or not inside or not all(map(_PART.fullmatch, inside)):
            raise Refused(f"{name}: {one!r} is no path of a grid; it could lead out of BUILD")
    return manifest


# ------------------------------------------------------------------------------------------------------ main


def main(argv: Sequence[str] | None = None) -> int:
    """Pack what make has finished of a grid, or unpack an archive into BUILD."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = dict(word.split("=", 1) for word in words[1:])
    verb, file = words[0], given.get("FILE", "")
    try:
        if verb == "unpack":
            if not Path(file).is_file():
                raise Refused(f"FILE={file!r}: name an archive of make pack")
            laid, kept = unpack(Path(file), Path(given["BUILD"]))
            print(f"{len(laid)} cells of {file} are in {given['BUILD']}; {len(kept)} were there, not older")
            return 0
        if given.get("WEIGHTS", "") not in ("", "0", "1"):
            raise Refused(f"WEIGHTS={given['WEIGHTS']!r}: 0 or 1 is needed")
        grid = axes.grid(given)
        if Path(file or "x").is_dir():
            raise Refused(f"FILE={file!r}: it is a folder; name the archive to write")
        target = Path(file or f"{'-'.join(grid.datasets)}.tar.gz")
        manifest = pack(grid, status.pending(sys.stdin), target, weights=given.get("WEIGHTS") == "1")
    except (OSError, ValueError) as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 1
    size = target.stat().st_size / 1e6
    print(f"{target}: {len(manifest['cells'])} of {len(grid.cells())} cells, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
