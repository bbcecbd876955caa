"""Status agrees with make: one word for each state, and the command that goes on."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from test_make import ALL, ATTACKS, TOLD

from lib import files
from lib.data import changes
from lib.grid import axes, receipts, sources

IN_ORDER = [*ALL[:6], *TOLD]
VICTIM = "build/tiny/dwt/alexnet/1/standard"


def finish(tiny, *cells):
    """Put in place what the runner leaves of cells, without running them."""
    for cell in cells:
        point, _, chapter = cell.partition(" ")
        folder, listing = tiny.folder / "build" / point, tiny.folder / "listing"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{chapter}.json").write_text(f"what {cell} wrote")
        listing.write_text(f"{folder / chapter}.json")
        receipt = dict.fromkeys(receipts.NEEDED, "") | {"cpu_seconds": 36.0, "parameters": {}}
        source = tiny.folder / f"notebooks/{chapter}.py"
        receipt["sources"] = sources.fingerprints(source, (), tiny.folder)
        receipt["files"] = receipts.written(listing, tiny.folder / "build")
        files.save(folder / f"{chapter}.receipt.json", receipt)
        (folder / f"{chapter}.partial.ipynb").unlink(missing_ok=True)
        (folder / f"{chapter}.ipynb").write_text("{}")


@pytest.fixture
def made(tiny):
    """A finished grid, whose library is its own."""
    (tiny.folder / "lib").unlink()
    shutil.copytree(ROOT / "lib", tiny.folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    chapter = tiny.folder / "notebooks/04_attacks.py"
    chapter.write_text(chapter.read_text().replace("from lib import", "from lib import attacks,"))
    tiny.make("status")
    finish(tiny, *IN_ORDER)
    return tiny


def states(tiny):
    """What status says of each cell, what it says of all, and the cells that make would run."""
    done = tiny.make("status")
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        what, _, path = line.partition(": build/")
        if path:
            found.setdefault(what, []).append(path.partition(" ")[0].removesuffix(".ipynb"))
    return {what: sorted(cells) for what, cells in found.items()}, done.stdout, runs(tiny)


def runs(tiny, verb="all"):
    """The cells that make would run."""
    said = tiny.make("-n", verb).stdout
    return sorted(re.findall(r"notebooks/\S+ build/(\S+)\.ipynb", said))


def names(cells):
    """``tiny/dwt 02_features`` as ``tiny/dwt/02_features``."""
    return sorted(cell.replace(" ", "/") for cell in cells)


def test_every_state_has_its_word_and_make_runs_what_it_says(made):
    attacks, waiting = names(set(ATTACKS) - set(TOLD)), names(TOLD)
    found, said, pending = states(made)
    assert (found, pending) == ({}, [])
    assert "8 of 8 cells of this grid are finished." in said

    made.settings("04_attacks", seconds=0.01)
    found, said, pending = states(made)
    assert found == {"changed settings": attacks, "waits": waiting}
    assert pending == names(ATTACKS)
    assert "make all DATASETS=tiny REPRESENTATIONS=dwt MODELS=alexnet FOLDS=1 runs 4 cells" in said
    assert "make refresh" not in said

    partial = made.folder / VICTIM / "04_attacks.partial.ipynb"
    partial.touch()
    found, said, pending = states(made)
    assert found["failed"] == [f"{VICTIM.removeprefix('build/')}/04_attacks"]
    assert f"executed so far: {VICTIM}/04_attacks.partial.ipynb" in said
    finish(made, *IN_ORDER[-4:])

    # What was executed by hand in the lab is no cell of the grid.
    shutil.copytree(made.folder / "build/tiny", made.folder / "build/lab/build/tiny")
    assert "build has 8 finished cells" in made.make("status").stdout
    # Nor is what another BUILD inside this one has, with its .inputs or without, as laid out by hand.
    shutil.copytree(made.folder / "build/tiny", made.folder / "build/more/tiny")
    assert "build has 8 finished cells" in made.make("status").stdout
    assert "build/more has 8 finished cells" in made.make("status", "BUILD=build/more").stdout
    assert "build has 8 finished cells" in made.make("status").stdout
    shutil.rmtree(made.folder / "build/more")

    # Older code: make does nothing, and refresh runs it again, with what rests on it.
    module = made.folder / "lib/attacks/bim.py"
    module.write_text(module.read_text() + "\nMORE = 1\n")
    found, said, pending = states(made)
    assert (found, pending) == ({"older code": attacks}, [])
    assert "make refresh DATASETS=tiny REPRESENTATIONS=dwt MODELS=alexnet FOLDS=1 runs those" in said
    assert runs(made, "refresh") == names(ATTACKS)
    finish(made, *IN_ORDER[-4:])
    assert states(made)[0] == {}
    assert runs(made, "refresh") == []


def test_a_cell_of_a_build_is_as_deep_as_its_chapter(tmp_path):
    """Whatever the folders above it are called: a build may have the name of a data set."""
    deep = "dwt/resnet18/1/standard"
    mine = ["a/01_data", "a/dwt/02_features", f"a/{deep}/03_training", f"a/{deep}/04_attacks"]
    mine += ["a/dwt/resnet18/1/pgd/05_adversarial_training", "a/06_analysis", "a/07_beyond", "b/01_data"]
    for above in ("", "small", "a", "a/dwt", "lab/build", "128x256"):
        for cell in mine:
            path = tmp_path / above / cell
            path.parent.mkdir(parents=True, exist_ok=True)
            for ending in (".ipynb", receipts.ENDING):
                path.with_name(f"{path.name}{ending}").touch()
    for build in (tmp_path, tmp_path / "small", tmp_path / "lab/build"):
        assert receipts.finished(build) == sorted(build / f"{cell}.ipynb" for cell in mine)
        assert receipts.finished(build, "b") == [build / "b/01_data.ipynb"]


def test_the_depth_of_every_chapter_is_known():
    assert sorted(receipts.DEPTHS) == axes.chapters()


def test_a_paragraph_makes_no_cell_old_and_code_does(made):
    code = "from lib.grid import receipts; import json; print(json.dumps(list(receipts.records('build'))))"
    notebook = made.folder / "notebooks/07_beyond.py"
    text = notebook.read_text()
    for more, what in (
        ("\n# %% [markdown]\n# A paragraph.\n", ""),
        ("\n# %%\n1 + 1\n", f"notebooks/{notebook.name}"),
    ):
        notebook.write_text(text + more)
        done = subprocess.run([sys.executable, "-c", code], cwd=made.folder, capture_output=True, check=True)
        changed = {row["chapter"]: row["changed"] for row in json.loads(done.stdout)}
        assert changed.pop("07_beyond") == what
        assert set(changed.values()) == {""}


def test_what_only_a_gpu_uses_makes_no_cell_of_a_cpu_old(made):
    graphs = made.folder / "lib/graphs.py"
    chapter = made.folder / "notebooks/03_training.py"
    chapter.write_text(chapter.read_text().replace("from lib import", "from lib import graphs,"))
    sources_of = sources.fingerprints(chapter, (), made.folder)
    assert "lib/graphs.py" in sources_of
    graphs.write_text(graphs.read_text() + "\nMORE = 1\n")
    code = (
        "from lib.grid import receipts; changes = receipts.Changes()\n"
        f"print([changes(dict(sources={sources_of!r}, parameters={{}}, device=device), '03_training')"
        " for device in ('cpu', 'NVIDIA H100')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=made.folder, capture_output=True, text=True)
    assert done.stdout.strip() == "[[], ['lib/graphs.py']]", done.stderr


def test_recordings_with_other_times_damage_no_cell(tmp_path):
    """Copied to another machine they are the same, and only the note of their times is written anew."""
    recording = tmp_path / "a.wav"
    recording.write_bytes(b"sound")
    # Reading began at 0, before the file was written, so that its time is not kept.
    changes.record(tmp_path / "build/demo", {str(recording): files.digest(recording)}, 0)
    note = tmp_path / "build/demo" / changes.NAME
    entry = {"bytes": note.stat().st_size, "sha256": files.digest(note)}
    notebook = tmp_path / "build/demo/01_data.ipynb"
    listed = {"files": {f"demo/{changes.NAME}": entry}, "parameters": {}, "sources": {}}
    files.save(notebook.with_suffix(receipts.ENDING), dict.fromkeys(receipts.NEEDED, "") | listed)
    assert not changes.changed(note.parent)
    assert files.digest(note) != entry["sha256"]
    for thorough in (False, True):
        assert receipts.problem(notebook, tmp_path / "build", thorough=thorough) == ""
    note.unlink()
    assert "is missing" in receipts.problem(notebook, tmp_path / "build")


def test_a_finished_cell_whose_files_are_gone_is_not_finished(made):
    """Make sees a missing or shorter file; status other bytes of the same size, which refresh mends."""
    cell = f"{VICTIM.removeprefix('build/')}/03_training"
    path = made.folder / VICTIM / "03_training.json"
    text = path.read_text()
    for left, said in ((0, "is missing"), (9, f"has 9 bytes, and {len(text)} were written")):
        path.write_text(text[:left])
        if not left:
            path.unlink()
        found, told, pending = states(made)
        assert found["damaged"] == [cell]
        assert f"03_training.json {said}" in told
        assert pending == names(set(ALL) - {"tiny 01_data", "tiny/dwt 02_features"})
    path.write_text(text.replace("wrote", "WROTE"))
    found, told, pending = states(made)
    assert (found, pending) == ({"damaged": [cell]}, [])
    assert "has another content than was written" in told
    assert cell in runs(made, "refresh")
    path.write_text(text)
    (made.folder / VICTIM / "04_attacks.receipt.json").unlink()
    found, told, pending = states(made)
    assert "04_attacks.receipt.json is missing" in told
    assert pending == names([*TOLD, "tiny/dwt/alexnet/1/standard 04_attacks"])
    (made.folder / VICTIM / "04_attacks.receipt.json").write_text("{")
    found, told, pending = states(made)
    assert "04_attacks.receipt.json is damaged" in told
    assert pending == names([*TOLD, "tiny/dwt/alexnet/1/standard 04_attacks"])


@pytest.mark.slow
def test_what_is_damaged_or_old_is_made_again(made):
    path = made.folder / VICTIM / "04_attacks.json"
    path.unlink()
    assert made.make("all").returncode == 0
    assert sorted(made.runs()) == sorted([*TOLD, "tiny/dwt/alexnet/1/standard 04_attacks"])
    assert path.exists()
    assert states(made)[0] == {}
    module = made.folder / "lib/attacks/bim.py"
    module.write_text(module.read_text() + "\nMORE = 1\n")
    assert made.make("refresh", "-j2").returncode == 0
    assert len(made.runs()) == 3 + 4
    assert states(made)[0] == {}
    assert made.make("refresh").returncode == 0
    assert len(made.runs()) == 3 + 4
    receipt = json.loads((made.folder / "build/tiny/06_analysis.receipt.json").read_text())
    assert list(receipt["files"]) == ["tiny/06_analysis.json"], "and not its neighbours'"
    assert receipt["files"]["tiny/06_analysis.json"].keys() == {"bytes", "sha256"}
    assert not list((made.folder / "build").rglob(".*.written"))


def test_a_receipt_of_a_study_that_listed_no_files_is_taken(tmp_path):
    """An update of the code makes no old grid damaged."""
    (tmp_path / "a.receipt.json").write_text(json.dumps(dict.fromkeys(receipts.NEEDED, "")))
    assert receipts.problem(tmp_path / "a.ipynb", tmp_path) == ""


def test_of_what_was_listed_only_what_is_there_and_below_the_folder_counts(tmp_path):
    build = tmp_path / "build"
    (build / "x/figures/rows").mkdir(parents=True)
    (tmp_path / "outside").write_text("1")
    for name in ("x/a", "x/figures/b.png", "x/figures/rows/c"):
        (build / name).write_text("12")
    listed = [build / name for name in ("x/a", "x/figures/b.png", "x/figures/rows/c", "x/gone", "../outside")]
    (tmp_path / "list").write_text("".join(f"{path}\n" for path in listed))
    found = receipts.written(tmp_path / "list", build)
    assert list(found) == ["x/a", "x/figures/b.png", "x/figures/rows/c"]
    assert found["x/figures/b.png"] == {}, "make figures draws it again"
    assert found["x/a"]["bytes"] == found["x/figures/rows/c"]["bytes"] == 2
    assert receipts.written(tmp_path / "none", build) == {}


@pytest.mark.parametrize("text", ["", "[1]", "{", "{}", '{"files": 1}', "\xff"])
def test_a_damaged_receipt_is_named(tmp_path, text):
    (tmp_path / "a.ipynb").touch()
    (tmp_path / "a.receipt.json").write_text(text)
    assert "a.receipt.json is damaged" in receipts.problem(tmp_path / "a.ipynb", tmp_path)
