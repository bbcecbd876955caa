"""A finished grid in one archive, to be read and published elsewhere (``make pack``, ``make unpack FILE=…``).

An archive has the files of finished cells and the inputs that make compares, without images and weights; the
receipts say what was left out. Its first member, the manifest, lists all others with their hashes. The same
grid gives the same bytes. Nothing is laid out before the whole archive was checked.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lib import files
from lib.grid import axes, receipts, status
from lib.grid.words import Refused

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST = 64 << 20  # bytes of a manifest
TRAINS = "05_adversarial_training"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_IMAGES = re.compile(r"(^|/)store/.*(?<!\.json)$")
_ORDER = (
    "01_data",
    "*/02_features",
    "*/*/*/standard/03_training",
    f"*/*/*/*/{TRAINS}",
    "*/*/*/*/04_attacks",
    "07_beyond",
)
"""The graph from above, without chapter 6, which make runs again where it lacks cells of another piece."""


# ------------------------------------------------------------------------------------------------------ pack


def _cell_files(notebook: Path, build: Path, weights: bool, scratch: Path) -> dict[str, Path]:
    """What is packed of a cell, by its path below ``build``; its receipt says which files stay at home."""
    receipt = receipts.receipt(notebook)
    away = {
        name: facts
        for name, facts in receipt["files"].items()
        if _IMAGES.search(name) or (Path(name).name == "model.safetensors" and not weights)
    }
    kept = {name: facts for name, facts in receipt["files"].items() if name not in away}
    path = notebook.with_suffix(receipts.ENDING)
    found = {str(one.relative_to(build)): one for one in (path, notebook)}
    if away:
        receipt |= {"files": kept, "left_out": receipt.get("left_out", {}) | away}
        found[str(path.relative_to(build))] = files.save(scratch / path.relative_to(build), receipt)
    return found | {name: build / name for name in kept}


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
    with tempfile.TemporaryDirectory() as scratch:
        members, cells = {}, {}
        for notebook in map(Path, grid.cells()):
            if notebook in waiting or not notebook.exists() or receipts.problem(notebook, build):
                continue
            found = _cell_files(notebook, build, weights, Path(scratch))
            cells[str(notebook.relative_to(build))] = {
                "time": notebook.stat().st_mtime_ns,
                "files": sorted(found),
            }
            members |= found
        if not cells:
            raise Refused(f"{build} has no finished cell of this grid")
        folders = [build / axes.INPUTS, *(build / axes.INPUTS / dataset for dataset in grid.datasets)]
        paths = [path for folder in folders for path in folder.glob("*") if path.is_file()]
        inputs = {str(path.relative_to(build)): path for path in paths}
        members |= inputs
        manifest = {
            "format": FORMAT,
            "cells": cells,
            "inputs": {name: path.stat().st_mtime_ns for name, path in inputs.items()},
            "files": {
                name: {"bytes": path.stat().st_size, "sha256": files.digest(path)}
                for name, path in members.items()
            },
        }
        with files.atomic(target) as part:
            _write(part, members, manifest)
    return manifest


def _write(part: Path, members: Mapping[str, Path], manifest: dict[str, Any]) -> None:
    """An archive without times, owners or names of machines; each file is hashed again once it is written."""
    with (
        part.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        about = tarfile.TarInfo(MANIFEST)
        about.size = len(text)
        archive.addfile(about, io.BytesIO(text))
        for name, path in sorted(members.items()):
            about, entry = tarfile.TarInfo(name), manifest["files"][name]
            about.size = entry["bytes"]
            if path.stat().st_size >= about.size:
                with path.open("rb") as file:
                    archive.addfile(about, file)
            if files.digest(path) != entry["sha256"]:
                raise Refused(f"{name} changed while it was packed; pack again")


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
        put_in_order(build, dataset, set(laid), other, set(manifest["cells"]))
    return laid, kept


def _lay(new: Path, there: Path, moment: int | None = None) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    os.replace(new, there)
    if moment is not None:
        os.utime(there, ns=(moment, moment))


def _alike(one: Path, other: Path) -> bool:
    """Whether two notebooks of one cell came with the same models and rows."""
    listed = []
    for notebook in (one, other):
        receipt = files.load(notebook.with_suffix(receipts.ENDING))
        entries = receipt.get("files", {}) | receipt.get("left_out", {})
        listed.append(
            {name: entries[name] for name in entries if name.endswith((".safetensors", ".parquet"))}
        )
    return listed[0] == listed[1]


def put_in_order(build: Path, dataset: str, laid: set[str], other: set[str], packed: set[str]) -> None:
    """Date notebooks so that make finds none older than what it was made from, in pieces of a grid that come
    from several runs; and find those older that were made from something else than what is there now.

    Parameters
    ----------
    laid : the cells that were just laid out.
    other : cells that were there with another content, whichever of the two stayed.
    packed : all cells of the archive.
    """
    root, latest, stale = build / dataset, 0, []
    for pattern in _ORDER:
        found = sorted(root.glob(f"{pattern}.ipynb"))
        for path in found:
            above = path.with_name(f"{axes.trains(str(path.parent))}.ipynb")
            if path.stem == TRAINS:
                above = path.parent.with_name("standard") / "03_training.ipynb"
            name, upstream = str(path.relative_to(build)), str(above.relative_to(build))
            if upstream in other and upstream != name and (upstream in laid) != (name in laid):
                stale.append((path, above))
            elif path.stat().st_mtime_ns < latest:
                os.utime(path, ns=(latest, latest))
        latest = max([latest, *(path.stat().st_mtime_ns for path in found)])
    attacked = sorted(root.glob("*/*/*/*/04_attacks.ipynb"))
    analysis = root / "06_analysis.ipynb"
    if analysis.exists() and {str(path.relative_to(build)) for path in attacked} - packed:
        stale.append((analysis, min(attacked, key=lambda path: path.stat().st_mtime_ns)))
    for path, above in stale:
        moment = above.stat().st_mtime_ns - 1
        os.utime(path, ns=(moment, moment))


def _extract(archive: tarfile.TarFile, scratch: Path) -> dict[str, Any]:
    """Check every member against the manifest, and write it below ``scratch``; the manifest."""
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST:
        raise Refused(f"{archive.name} has no manifest: make pack did not write it")
    manifest = _checked(archive.extractfile(first).read(), str(archive.name))
    left = dict(manifest["files"])
    while member := archive.next():
        entry = left.pop(member.name, None)
        if entry is None or not member.isreg() or member.size != entry["bytes"]:
            raise Refused(f"{archive.name}: {member.name!r} is not what the manifest lists")
        archive.extract(member, scratch, set_attrs=False, filter="data")
        if files.digest(scratch / member.name) != entry["sha256"]:
            raise Refused(f"{archive.name}: {member.name!r} is damaged: its hash is not the manifest's")
    if left:
        raise Refused(f"{archive.name} is cut short: it lacks {min(left)!r} and {len(left) - 1} other files")
    return manifest


def _checked(text: bytes, name: str) -> dict[str, Any]:
    """A manifest, if it has the form that :func:`pack` gives it and no path leads out."""
    try:
        manifest = json.loads(text)
        listed = {one for one, entry in manifest["files"].items() if entry["bytes"] >= 0 and entry["sha256"]}
        moments = [*manifest["inputs"].values(), *(cell["time"] for cell in manifest["cells"].values())]
        named = {one for cell in manifest["cells"].values() for one in cell["files"]}
        named |= {*manifest["inputs"], *manifest["cells"]}
        dated = all(type(moment) is int and moment >= 0 for moment in moments)
        whole = manifest["format"] == FORMAT and named <= listed and dated
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{name}: its manifest is damaged: {error!r}") from error
    if not whole:
        raise Refused(f"{name}: its manifest is damaged, or of another version of make pack")
    for one in manifest["files"]:
        parts = PurePosixPath(one).parts
        inside = parts[1:] if parts[:1] == (axes.INPUTS,) else parts
        if PurePosixPath(one).as_posix() != one or not inside or not all(map(_PART.fullmatch, inside)):
            raise Refused(f"{name}: {one!r} is no path of a grid; it could lead out of BUILD")
    return manifest


def make_pack(given: Mapping[str, str]) -> None:
    """Pack what make has finished of a grid."""
    weights, file = given.get("WEIGHTS") or "0", given.get("FILE", "")
    if weights not in ("0", "1"):
        raise Refused(f"WEIGHTS={weights!r}: 0 or 1 is needed")
    grid = axes.grid(given)
    target = Path(file or f"{'-'.join(grid.datasets)}.tar.gz")
    if target.is_dir():
        raise Refused(f"FILE={file!r}: it is a folder; name the archive to write")
    manifest = pack(grid, status.pending(sys.stdin), target, weights=weights == "1")
    size = target.stat().st_size / 1e6
    print(f"{target}: {len(manifest['cells'])} of {len(grid.cells())} cells, {size:.1f} MB")


def make_unpack(given: Mapping[str, str]) -> None:
    """Unpack an archive into BUILD."""
    file = given.get("FILE", "")
    if not Path(file).is_file():
        raise Refused(f"FILE={file!r}: name an archive of make pack")
    laid, kept = unpack(Path(file), Path(given["BUILD"]))
    print(f"{len(laid)} cells of {file} are in {given['BUILD']}; {len(kept)} were there, not older")
