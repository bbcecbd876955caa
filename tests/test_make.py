"""The graph: what make runs, what it leaves alone, and what it does when a cell fails."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from lib import files
from lib.data import changes

TOLD = ["tiny 06_analysis", "tiny 07_beyond"]
ALL = [
    "tiny 01_data",
    "tiny/dwt 02_features",
    "tiny/dwt/alexnet/1/standard 03_training",
    "tiny/dwt/alexnet/1/adversarial 05_adversarial_training",
    "tiny/dwt/alexnet/1/standard 04_attacks",
    "tiny/dwt/alexnet/1/adversarial 04_attacks",
    *TOLD,
]
ATTACKS = [
    *TOLD,
    "tiny/dwt/alexnet/1/adversarial 04_attacks",
    "tiny/dwt/alexnet/1/standard 04_attacks",
]


def test_make_alone_prints_help(tiny):
    done = tiny.make()
    assert done.returncode == 0
    for verb in ("all", "data", "test", "test-all", "status", "lab", "figures", "publish", "shelve", "book"):
        assert re.search(rf"^  {verb} ", done.stdout, re.MULTILINE), verb


def test_a_recording_that_was_replaced_runs_chapter_1_again(tiny):
    sound = tiny.folder / "dog.wav"
    sound.write_bytes(b"a bark")
    assert tiny.make("data").returncode == 0
    changes.record(tiny.folder / "build/tiny", {str(sound): files.digest(sound)}, time.time_ns() + 1)
    os.utime(sound, (1, 1))
    assert tiny.make("data").returncode == 0
    assert tiny.runs() == ["tiny 01_data"]
    sound.write_bytes(b"a meow")
    assert "changed recordings: build/tiny/01_data.ipynb" in tiny.make("status").stdout
    assert tiny.make("data").returncode == 0
    assert tiny.runs() == ["tiny 01_data"] * 2
    assert tiny.make("data").returncode == 0
    assert tiny.runs() == ["tiny 01_data"] * 2


def test_a_grid_runs_once_and_only_what_changed_again(tiny):
    done = tiny.make("all", "-j2")
    assert done.returncode == 0, done.stderr
    runs = tiny.runs()
    assert sorted(runs) == sorted(ALL)
    assert runs[0] == "tiny 01_data"
    assert set(runs[-2:]) == set(TOLD)

    def again(*words):
        before = len(tiny.runs())
        done = tiny.make("all", *words)
        assert done.returncode == 0, done.stderr
        return sorted(tiny.runs()[before:])

    assert again() == []
    # New settings of the attacks re-run attacks and analysis only.
    tiny.settings("04_attacks", seconds=0.1)
    assert again() == sorted(ATTACKS)
    # A touch without a change re-runs nothing.
    later = time.time() + 10
    for path in [*(tiny.folder / "params/tiny").iterdir(), *(tiny.folder / "notebooks").iterdir()]:
        os.utime(path, (later, later))
    assert again() == []
    # Settings that are gone are a change too.
    tiny.settings("06_analysis", seconds=0.1)
    assert again() == ["tiny 06_analysis"]
    (tiny.folder / "params/tiny/06_analysis.yaml").unlink()
    assert again() == ["tiny 06_analysis"]
    # A chapter's code is a prerequisite of its cells, and its paragraphs are not.
    notebook = tiny.folder / "notebooks/06_analysis.py"
    for more, runs in (("# %% [markdown]\n# More.\n", []), ("# %%\n1 + 1\n", ["tiny 06_analysis"])):
        notebook.write_text(f"{notebook.read_text()}\n{more}")
        assert again() == runs


def test_a_table_of_one_s_own_is_read_again_when_it_changed(tiny):
    table = tiny.folder / "my sounds" / "tiny" / "clips.csv"
    table.parent.mkdir(parents=True)
    runs = []
    for text in ("path,label\n", "path,label\n", "path,label,source\n"):
        table.write_text(text)
        done = tiny.make("data", f"DATA={tiny.folder / 'my sounds'}")
        assert done.returncode == 0, done.stderr
        runs.append(len(tiny.runs()))
    assert runs == [1, 1, 2]
    receipt = json.loads((tiny.folder / "build/tiny/01_data.receipt.json").read_text())
    assert receipt["parameters"]["data_folder"] == str(tiny.folder / "my sounds")


def test_a_repeat_is_a_point_of_its_own(tiny):
    done = tiny.make("-n", "all", "FOLDS=1 1.1 1.10")
    assert {"tiny/dwt/alexnet/1.10/standard", "tiny/dwt/alexnet/1.1/adversarial"} <= set(
        re.findall(r"build/(\S+?)/04_attacks\.ipynb ", done.stdout)
    )


def test_a_failing_cell_stops_what_rests_on_it_and_nothing_else(tiny):
    tiny.settings("05_adversarial_training", ends="error")
    done = tiny.make("all", "-k", "-j2")
    assert done.returncode != 0
    assert "ValueError: a cell that is made to fail" in done.stderr
    ran = set(tiny.runs())
    assert "tiny/dwt/alexnet/1/standard 04_attacks" in ran
    assert not {"tiny/dwt/alexnet/1/adversarial 04_attacks", *TOLD} & ran
    tiny.settings("05_adversarial_training", ends="well")
    before = len(tiny.runs())
    assert tiny.make("all").returncode == 0
    defended = "tiny/dwt/alexnet/1/adversarial"
    again = [*TOLD, f"{defended} 04_attacks", f"{defended} 05_adversarial_training"]
    assert sorted(tiny.runs()[before:]) == sorted(again)


def test_a_launcher_that_loses_its_cell_and_exits_0_is_found_out(tiny):
    done = tiny.make("data", "LAUNCH=true")
    assert done.returncode != 0
    assert "FAILED build/tiny/01_data" in done.stderr
    # An earlier result stays until a better one replaces it.
    assert tiny.make("data").returncode == 0
    target = tiny.folder / "build/tiny/01_data.ipynb"
    before = target.read_bytes()
    tiny.settings("01_data", seconds=0.1)
    assert tiny.make("data", "LAUNCH=true").returncode != 0
    assert target.read_bytes() == before
    assert tiny.make("data").returncode == 0
    # Nor is it taken for this run's where nothing that it rests on is newer.
    done = tiny.make("-B", "data", "LAUNCH=true")
    assert done.returncode != 0
    assert "FAILED build/tiny/01_data" in done.stderr
    assert tiny.make("-B", "data").returncode == 0


RECEIPT = "build/tiny/01_data.receipt.json"
CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("words", "threads"), [([], CORES), (["-j2"], max(CORES // 2, 1))])
def test_cells_at_once_share_the_cores(tiny, words, threads):
    assert tiny.make("data", *words).returncode == 0
    assert f'"threads": "{threads}"' in (tiny.folder / "build/tiny/01_data.json").read_text()


def test_cells_at_once_share_a_gpu_unless_a_launcher_places_them(tiny):
    assert "STUDY_CELLS=3 " in tiny.make("-n", "data", "-j3").stdout
    assert "STUDY_CELLS=1 " in tiny.make("-n", "data", "-j3", "LAUNCH=srun").stdout


def test_status_names_what_is_to_do(tiny):
    assert tiny.make("data").returncode == 0
    done = tiny.make("status")
    assert "1 of 8 cells of this grid are finished" in done.stdout
    assert "to do: build/tiny/06_analysis.ipynb" in done.stdout
    assert "older code" not in done.stdout


def test_a_folder_of_settings_that_is_not_there_is_named_before_anything_runs(tiny):
    done = tiny.make("all", "PARAMS=parms")
    assert done.returncode != 0
    assert "PARAMS='parms': there is no such folder" in done.stderr
    assert not (tiny.folder / "build").exists()


def test_settings_that_nothing_reads_are_refused(tiny):
    tiny.settings("02_feature", seconds=1)
    done = tiny.make("all")
    assert done.returncode != 0
    assert "params/tiny/02_feature.yaml: no chapter reads it" in done.stderr
    (tiny.folder / "other/esc10").mkdir(parents=True)
    done = tiny.make("all", "PARAMS=other")
    assert done.returncode != 0
    assert "PARAMS='other': it holds no settings of tiny" in done.stderr
    assert not tiny.runs()


def test_an_error_in_settings_names_the_file_that_a_user_has(tiny):
    tiny.settings("01_data", second=1)
    said = tiny.make("data").stderr
    assert "params/tiny/01_data.yaml: unknown parameter second = 1" in said
    assert ".inputs" not in said.partition("unknown")[0]


@pytest.mark.parametrize(
    ("verb", "word", "said"),
    [
        ("clean", "BUILD=my build", "BUILD='my build': ' ' is not allowed"),
        ("plan", "FOLDS=abc", "FOLDS='abc': 'abc' is no fold"),
        ("data", "MODELS=resnet19", "MODELS='resnet19': 'resnet19' is not known"),
        ("status", "DATASETS=esc11", "DATASETS='esc11': 'esc11' is not known"),
        ("all", "DATA=a\tb", r"DATA='a\tb': '\t' is not allowed"),
    ],
)
def test_a_bad_word_is_named_and_nothing_is_lost(tiny, verb, word, said):
    """Make asks lib.grid.axes, whose own tests have every word (tests/test_axes.py)."""
    kept = tiny.folder / "build" / ".inputs" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    done = tiny.make(verb, word)
    assert done.returncode != 0
    assert f"*** {said}" in done.stderr
    assert "Traceback" not in done.stderr
    assert kept.exists()
    assert {path.name for path in tiny.folder.iterdir()} <= {
        "Makefile",
        "lib",
        "notebooks",
        "params",
        "build",
    }


def test_clean_removes_what_make_has_built_and_nothing_else(tiny):
    (tiny.folder / "mine").mkdir()
    done = tiny.make("clean", "BUILD=mine")
    assert done.returncode != 0
    assert "BUILD='mine': make has built nothing in this folder" in done.stderr
    assert (tiny.folder / "mine").exists()
    assert tiny.make("data").returncode == 0
    (tiny.folder / "build/tiny/notes").mkdir()
    done = tiny.make("clean")
    assert done.returncode == 0
    assert "make did not make build/runs" in done.stdout
    assert [path.name for path in (tiny.folder / "build").iterdir()] == ["runs"]
    (tiny.folder / "build/runs").unlink()
    assert tiny.make("data").returncode == 0
    (tiny.folder / "build/runs").unlink()
    assert tiny.make("clean").returncode == 0
    assert not (tiny.folder / "build").exists()


def test_as_many_cells_at_once_as_there_may_be_share_the_cores(tiny):
    assert f"OMP_NUM_THREADS=1 STUDY_CELLS={CORES} " in tiny.make("-n", "data", "-j").stdout


def test_a_cell_whose_settings_change_while_it_runs_is_run_again(tiny):
    tiny.settings("01_data", seconds=6.0)
    running = tiny.start("data")
    tiny.await_begun("01_data")
    tiny.settings("01_data", seconds=0.1)
    assert tiny.make("status").returncode == 0  # any verb takes the change
    said = running.communicate()[0]
    assert running.returncode == 0
    assert "01_data.yaml was changed meanwhile; the next make runs the cell again" in said
    assert tiny.make("data").returncode == 0
    assert json.loads((tiny.folder / RECEIPT).read_text())["parameters"]["seconds"] == 0.1
    assert "started" not in tiny.make("data").stderr


def test_a_cell_that_was_waited_for_is_taken_only_with_the_same_settings(tiny):
    tiny.settings("01_data", seconds=6.0)
    first = tiny.start("data")
    tiny.await_begun("01_data")
    tiny.settings("01_data", seconds=0.1)
    second = tiny.make("data")
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "waiting for the process" in second.stderr
    assert "made by the runner that was waited for" not in second.stderr
    assert json.loads((tiny.folder / RECEIPT).read_text())["parameters"]["seconds"] == 0.1


def test_makes_that_begin_at_once_leave_whole_inputs(tiny):
    for _ in range(3):
        makes = [tiny.start("status") for _ in range(6)]
        assert [make.communicate()[0] and make.returncode for make in makes] == [0] * 6
        inputs = tiny.folder / "build/.inputs"
        for source in (tiny.folder / "notebooks").glob("0*.py"):
            assert (inputs / source.name).read_bytes() == source.read_bytes()
        shutil.rmtree(inputs)


def test_a_dry_run_names_what_would_run_and_writes_nothing(tiny):
    assert len(re.findall(r"lib\.grid\.execute", tiny.make("-n", "all").stdout)) == len(ALL)
    assert not (tiny.folder / "build").exists()
    sound = tiny.folder / "dog.wav"
    sound.write_bytes(b"a bark")
    assert tiny.make("all", "-j2").returncode == 0
    changes.record(tiny.folder / "build/tiny", {str(sound): files.digest(sound)}, time.time_ns() + 1)
    os.utime(sound, (1, 1))
    tiny.settings("06_analysis", seconds=0.1)
    shutil.copytree(tiny.folder / "params", tiny.folder / "others")
    (tiny.folder / "others/tiny/04_attacks.yaml").write_text("seconds: 0.1\n")

    def written():
        return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in build}

    build = [tiny.folder, *(tiny.folder / "build").rglob("*")]
    before = written()
    for words, cells in (
        ([], TOLD[:1]),
        (["PARAMS=others"], ATTACKS),
        (["PARAMS=others", "-k", "-j2"], ATTACKS),
    ):
        done = tiny.make("-n", "all", *words)
        would = re.findall(r"notebooks/(\S+)\.py build/(\S+)/", done.stdout)
        assert sorted(f"{point} {chapter}" for chapter, point in would) == sorted(cells), done.stderr
        assert written() == before
    build = [tiny.folder, *(tiny.folder / "build").rglob("*")]
    assert written() == before, "and there is no new file"


def test_two_makes_at_once_run_no_cell_twice(tiny):
    tiny.settings("01_data", seconds=1.0)
    both = [tiny.start("all", "-j2"), tiny.start("all", "-j2")]
    said = [make.communicate()[0] for make in both]
    assert [make.returncode for make in both] == [0, 0], said
    assert sorted(tiny.runs()) == sorted(ALL)


def test_every_parameter_of_the_makefile_is_explained():
    pages = [path for path in (Path("README.md"), Path("lib/grid/README.md")) if path.exists()]
    words = "".join(path.read_text(encoding="utf-8") for path in pages)
    (listed,) = re.findall(r"^names := (.*)", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in [*listed.split(), "LAUNCH", "PYTHON"]:
        assert name in words, name


def test_the_makefile_is_the_graph_and_no_more():
    lines = Path("Makefile").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 110


def test_a_name_in_the_registry_needs_no_other_entry_for_make(tiny):
    """A model that lib.names knows is in the grid; the Makefile lists none."""
    shutil.copytree(tiny.folder / "lib", tiny.folder / "mine", symlinks=True)
    (tiny.folder / "lib").unlink()
    (tiny.folder / "mine").rename(tiny.folder / "lib")
    registry = tiny.folder / "lib/names.py"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("MODELS = {", 'MODELS = {\n    "mlp": "MLP",', 1), encoding="utf-8")
    done = tiny.make("-n", "all", "MODELS=")
    assert "build/tiny/dwt/mlp/1/adversarial/04_attacks.ipynb" in done.stdout
    assert tiny.make("-n", "all", "MODELS=mlp").returncode == 0
