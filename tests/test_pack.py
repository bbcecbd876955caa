"""A grid travels: packed, unpacked elsewhere, merged; and an archive that is not whole lays out nothing."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from conftest import Tiny
from test_status import IN_ORDER, finish, runs, states

from lib.grid import axes, pack

STORE = "tiny/store/dwt.npy"
WEIGHTS = "tiny/dwt/alexnet/1/standard/model.safetensors"


@pytest.fixture
def made(tiny):
    """A finished grid with images and weights."""
    tiny.make("status")
    finish(tiny, *IN_ORDER)
    for name, chapter in (
        (STORE, "tiny/dwt/02_features"),
        (WEIGHTS, "tiny/dwt/alexnet/1/standard/03_training"),
    ):
        (tiny.folder / "build" / name).parent.mkdir(exist_ok=True)
        (tiny.folder / "build" / name).write_text("large")
        edit(tiny, chapter, files={name: {"bytes": 5, "sha256": hashlib.sha256(b"large").hexdigest()}})
    return tiny


def edit(tiny, cell, files):
    path = tiny.folder / "build" / f"{cell}.receipt.json"
    receipt = json.loads(path.read_text())
    receipt["files"] |= files
    path.write_text(json.dumps(receipt))


def travel(tiny, *words):
    """Pack a grid by make, and give the archive."""
    archive = tiny.folder / f"pack{len(list(tiny.folder.glob('pack*')))}.tar.gz"
    done = tiny.make("pack", f"FILE={archive}", *words)
    assert done.returncode == 0, done.stderr
    return archive


def elsewhere(tiny, tmp_path_factory, archive=None):
    """A fresh checkout, with an archive unpacked."""
    other = Tiny(tmp_path_factory.mktemp("other"))
    for name in ("notebooks", "params"):
        shutil.rmtree(other.folder / name)
        shutil.copytree(tiny.folder / name, other.folder / name)
    if archive:
        done = other.make("unpack", f"FILE={archive}")
        assert done.returncode == 0, done.stderr
    return other


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "runs"
    }


def test_a_round_trip_has_all_but_images_and_weights_and_is_finished(made, tmp_path_factory):
    archive = travel(made)
    assert archive.read_bytes() == travel(made).read_bytes(), "the same grid gives the same bytes"
    other = elsewhere(made, tmp_path_factory, archive)
    ours, theirs = content(made.folder / "build"), content(other.folder / "build")
    assert set(ours) - set(theirs) == {STORE, WEIGHTS}
    assert {name for name in theirs if ours[name] != theirs[name]} == {
        "tiny/dwt/02_features.receipt.json",
        "tiny/dwt/alexnet/1/standard/03_training.receipt.json",
    }
    assert states(other)[0] == {}
    assert runs(other) == []
    with_weights = elsewhere(made, tmp_path_factory, travel(made, "WEIGHTS=1"))
    assert set(ours) - set(content(with_weights.folder / "build")) == {STORE}
    again = other.make("unpack", f"FILE={archive}")
    assert "0 cells of" in again.stdout
    assert "8 were there" in again.stdout
    assert content(other.folder / "build") == theirs


def test_pieces_merge_in_any_order_and_chapter_6_is_made_again(made, tmp_path_factory):
    """Each piece was made by itself, at other times, with chapters 1 and 2 of its own."""
    pieces = []
    for fold in ("2", "3"):
        cells = [cell.replace("/1/", f"/{fold}/") for cell in IN_ORDER]
        piece = elsewhere(made, tmp_path_factory)
        piece.make("status", f"FOLDS={fold}")
        finish(piece, *cells)
        pieces.append(travel(piece, f"FOLDS={fold}"))
    for order in (pieces, pieces[::-1]):
        other = elsewhere(made, tmp_path_factory, order[0])
        assert runs(other, ["FOLDS=2", "FOLDS=3"][order is not pieces]) == []
        assert other.make("unpack", f"FILE={order[1]}").returncode == 0
        done = other.make("-n", "all", "FOLDS=2 3").stdout
        again = sorted(word for word in re.findall(r"notebooks/(\S+)\.py", done))
        assert again == ["06_analysis"]


def test_the_newer_of_two_stays_and_what_was_made_from_the_other_is_not_finished(made, tmp_path_factory):
    old = travel(made)
    training = "tiny/dwt/alexnet/1/standard/03_training"
    finish(made, *IN_ORDER[2:])
    edit(made, training, files={WEIGHTS: {"bytes": 5, "sha256": "another"}})
    new = travel(made)
    other = elsewhere(made, tmp_path_factory, new)
    before = content(other.folder / "build")
    assert other.make("unpack", f"FILE={old}").returncode == 0
    assert content(other.folder / "build") == before, "older cells overwrite nothing"
    other = elsewhere(made, tmp_path_factory, old)
    assert other.make("unpack", f"FILE={new}").returncode == 0
    assert runs(other) == []
    # A piece with another, newer training of the same cell: the attacks that are there were on the first.
    other = elsewhere(made, tmp_path_factory, old)
    finish(made, "tiny/dwt/alexnet/1/standard 03_training")
    edit(made, training, files={WEIGHTS: {"bytes": 5, "sha256": "a third"}})
    (made.folder / "build" / WEIGHTS).write_text("large")
    assert other.make("unpack", f"FILE={travel(made)}").returncode == 0
    assert "tiny/dwt/alexnet/1/standard/04_attacks" in runs(other)


def test_a_pack_while_cells_run_has_those_that_are_finished(made, tmp_path_factory):
    made.settings("05_adversarial_training", seconds=0.1)  # as if they were to run
    (made.folder / "build/tiny/dwt/alexnet/1/standard/.04_attacks.host.1.x.ipynb").touch()
    (made.folder / "build/tiny/dwt/alexnet/1/standard/04_attacks.json").write_text("half")
    other = elsewhere(made, tmp_path_factory, travel(made))
    found = {path.stem for path in (other.folder / "build").rglob("*.ipynb")}
    assert found == {"01_data", "02_features", "03_training"}


def test_a_file_that_changes_while_it_is_packed_is_named(made, monkeypatch, tmp_path):
    monkeypatch.chdir(made.folder)
    given = {"BUILD": "build", "DATA": "data", "PARAMS": "params", "DATASETS": "tiny", "FOLDS": "1"}
    grid = axes.grid(given | {"REPRESENTATIONS": "dwt", "MODELS": "alexnet"})
    write = pack._write

    def later(part, members, manifest):
        Path("build/tiny/01_data.json").write_text("what tiny 01_data WROTE")
        write(part, members, manifest)

    monkeypatch.setattr(pack, "_write", later)
    with pytest.raises(pack.Refused, match=r"01_data\.json changed while it was packed"):
        pack.pack(grid, [], tmp_path / "pack.tar.gz")
    assert list(tmp_path.glob("pack*")) == []


def rewritten(archive, change):
    """An archive whose members went through ``change``, which takes and gives name, text and kind."""
    target = archive.with_name(f"changed{len(list(archive.parent.glob('changed*')))}.tar.gz")
    with tarfile.open(archive) as old, tarfile.open(target, "w:gz") as new:
        for member in old:
            name, text, kind = change(member.name, old.extractfile(member).read(), member.type)
            about = tarfile.TarInfo(name)
            about.size, about.type, about.linkname = len(text), kind, "/etc/passwd"
            if kind == tarfile.SYMTYPE:
                about.size = 0
            new.addfile(about, io.BytesIO(text))
    return target


VICTIM_FILE = "tiny/01_data.json"


def listed_as(name):
    """A change that calls one file otherwise, in the manifest as well."""

    def change(old, text, kind):
        if old == pack.MANIFEST:
            manifest = json.loads(text)
            manifest["files"][name] = manifest["files"].pop(VICTIM_FILE)
            manifest["cells"]["tiny/01_data.ipynb"]["files"].remove(VICTIM_FILE)
            return old, json.dumps(manifest).encode(), kind
        return (name if old == VICTIM_FILE else old), text, kind

    return change


def manifest_with(**values):
    def change(name, text, kind):
        return name, json.dumps(json.loads(text) | values).encode() if name == pack.MANIFEST else text, kind

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (listed_as("../outside"), "'../outside' is no path of a grid"),
        (listed_as("/tmp/outside"), "'/tmp/outside' is no path of a grid"),
        (listed_as("tiny/../../outside"), "is no path of a grid"),
        (listed_as(".ssh/outside"), "is no path of a grid"),
        (listed_as("tiny/a\nb"), "is no path of a grid"),
        (listed_as("tiny//outside"), "is no path of a grid"),
        (lambda n, t, k: (n, t.replace(b"wrote", b"WROTE"), k), "is damaged: its hash is not the manifest's"),
        (lambda n, t, k: (n, t[:-1] if n == VICTIM_FILE else t, k), "is not what the manifest lists"),
        (
            lambda n, t, k: (n, t, tarfile.SYMTYPE if n == VICTIM_FILE else k),
            "is not what the manifest lists",
        ),
        (lambda n, t, k: (n + "x" if n == VICTIM_FILE else n, t, k), "is not what the manifest lists"),
        (lambda n, t, k: ("other.json" if n == pack.MANIFEST else n, t, k), "has no manifest"),
        (lambda n, t, k: (n, b"{}" if n == pack.MANIFEST else t, k), "its manifest is damaged"),
        (lambda n, t, k: (n, b"\xff" if n == pack.MANIFEST else t, k), "its manifest is damaged"),
        (manifest_with(format=2), "of another version"),
        (manifest_with(cells={"tiny/01_data.ipynb": {"time": -1, "files": []}}), "its manifest is damaged"),
        (manifest_with(cells={"tiny/x.ipynb": {"time": 1, "files": []}}), "its manifest is damaged"),
        (manifest_with(cells=[]), "its manifest is damaged"),
    ],
)
def test_an_archive_that_is_not_as_it_was_packed_lays_out_nothing(packed, tmp_path, change, said):
    archive = rewritten(packed, change)
    with pytest.raises(pack.Refused, match=said):
        pack.unpack(archive, tmp_path / "build")
    assert list((tmp_path / "build").iterdir()) == []
    assert not (tmp_path / "outside").exists()
    assert not Path("/tmp/outside").exists()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    tiny = Tiny(tmp_path_factory.mktemp("tiny"))
    tiny.make("status")
    finish(tiny, *IN_ORDER)
    return travel(tiny)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_an_archive_that_is_cut_short_lays_out_nothing(packed, tmp_path, share):
    text = packed.read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(text[: int(share * len(text))])
    with pytest.raises(pack.Refused, match=r"cut\.tar\.gz"):
        pack.unpack(tmp_path / "cut.tar.gz", tmp_path / "build")
    assert list((tmp_path / "build").iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [b"", b"no archive", gzip.compress(b"no tar"), os.urandom(2000)],
    ids=["nothing", "text", "a file, compressed", "noise"],
)
def test_what_is_no_archive_is_refused(tmp_path, text):
    (tmp_path / "x.tar.gz").write_bytes(text)
    with pytest.raises(pack.Refused, match=r"x\.tar\.gz"):
        pack.unpack(tmp_path / "x.tar.gz", tmp_path / "build")


def test_cells_of_other_settings_do_not_mix(made, tmp_path_factory):
    archive = travel(made)
    other = elsewhere(made, tmp_path_factory)
    other.settings("04_attacks", seconds=0.5)
    other.make("status")
    done = other.make("unpack", f"FILE={archive}")
    assert done.returncode != 0
    assert "build/.inputs/tiny/04_attacks.yaml is not what" in done.stderr
    assert not list((other.folder / "build").rglob("*.ipynb"))
    done = other.make("unpack", "FILE=nowhere.tar.gz")
    assert "FILE='nowhere.tar.gz': name an archive of make pack" in done.stderr
