"""Copies to read: what they show, what they keep to themselves, that they stay in step with the source."""

import base64
import dataclasses
import io
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.display import Audio
from PIL import Image

from lib import figures, files
from lib.analysis import report, results, tables
from lib.grid import publish
from lib.player import player
from tests import made_up

COPIES = sorted(Path("notebooks").glob("0*.ipynb"))
SOURCE = """\
# %% [markdown]
# # 1 · Data

# %%
import os

# %% tags=["parameters"]
build = "build"
dataset = "esc50"
clips = 100  # drawn

# %%
1 + 1
"""
RECEIPT = {
    "parameters": {"build": "/scratch/run", "data_folder": "/data/of/all", "dataset": "esc10", "clips": 20},
    "commit": "0123456789abcdef",
    "dirty": False,
    "device": "cpu",
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
}


def output(kind: str = "display_data", **data) -> nbformat.NotebookNode:
    return nbformat.v4.new_output(kind, {name.replace("_", "/", 1): value for name, value in data.items()})


def executed(*outputs) -> nbformat.NotebookNode:
    """SOURCE as the runner leaves it, with these outputs of its last cell."""
    notebook = jupytext.reads(SOURCE, fmt="py:percent")
    injected = nbformat.v4.new_code_cell(
        "# Parameters\nclips = 20", metadata={"tags": ["injected-parameters"]}
    )
    notebook.cells.insert(3, injected)
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        cell.metadata["papermill"] = {"start_time": "2026-01-01T00:00:00"}
    notebook.cells[-1].outputs = list(outputs)
    notebook.metadata["papermill"] = {"output_path": "/scratch/run/esc10/01_data.ipynb"}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    return notebook


def shown(*outputs) -> list:
    return publish.readers(executed(*outputs), RECEIPT).cells[-1].outputs


def test_a_copy_says_where_it_was_executed_and_what_was_set():
    mine = publish.readers(executed(), RECEIPT)
    assert publish.code(mine) == publish.code(jupytext.reads(SOURCE, fmt="py:percent"))
    assert [cell.cell_type for cell in mine.cells] == ["markdown", "code", "code", "markdown", "code"]
    point = mine.cells[3].source
    for word in ("`esc10`", "`0123456789`", "on a CPU", "torch 2.14.1", "dataset = 'esc10'", "clips = 20"):
        assert word in point
    for place in ("/scratch", "/data", "data_folder", "changes"):
        assert place not in point
    changed = publish.readers(executed(), RECEIPT | {"dirty": True})
    assert "with changes that were not committed" in changed.cells[3].source


def test_nothing_of_the_machine_is_left():
    mine = publish.readers(executed(), RECEIPT)
    assert mine.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [cell.metadata for cell in mine.cells] == [{}, {}, {"tags": ["parameters"]}, {}, {}]
    assert [cell.execution_count for cell in mine.cells if cell.cell_type == "code"] == [1, 2, 3]
    assert publish.problems(mine) == []
    assert publish.written(mine) == publish.written(publish.readers(executed(), RECEIPT))
    nbformat.validate(mine)


def test_outputs_are_what_a_reader_sees():
    stream = nbformat.v4.new_output
    kept = shown(
        stream("stream", name="stdout", text="epoch 1\n"),
        stream("stream", name="stderr", text="TqdmWarning: /root/.venv/tqdm.py"),
        stream("stream", name="stdout", text="left in /scratch/run/esc10\n"),
        output("execute_result", text_plain="<Figure size 9x9 with 3 Axes>", image_png="iVBORw0="),
        output(text_plain="   a\n0  1", text_html="<table></table>", application_json={"a": 1}),
        output(text_plain="FloatProgress(value=0.0)", **{"application_vnd.jupyter.widget-view+json": {}}),
    )
    assert [each.output_type for each in kept] == ["stream", "execute_result", "display_data"]
    assert kept[0].text == "epoch 1\nleft in build/esc10\n"
    assert set(kept[1].data) == {"image/png"}
    assert kept[1].execution_count == 3
    assert set(kept[2].data) == {"text/plain", "text/html"}


def test_a_sound_is_kept_if_it_is_compressed_and_has_a_caption():
    sound = np.sin(np.arange(800))
    raw = output(audio_wav="UklGRg==", text_plain="sound")
    bare = output(
        text_html=Audio(sound, rate=8000)._repr_html_(), text_plain="<IPython.lib.display.Audio object>"
    )
    ours = output(text_html=player(sound, 8000, "rain (Freesound <1>, CC BY 3.0)").data)
    without = output(text_html=player(sound, 8000, "").data)
    assert shown(raw, bare, without) == []
    (kept,) = shown(raw, ours, bare)
    assert kept.data["text/html"] == ours.data["text/html"]
    mine = publish.readers(executed(ours), RECEIPT)
    assert publish.problems(mine) == []
    mine.cells[-1].outputs.append(bare)
    assert publish.problems(mine) == ["it has a sound without a caption"]


def test_a_failed_cell_is_refused():
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    with pytest.raises(publish.Refused, match="cell 3 ended in ValueError: no"):
        shown(error)


SCRIPTS = [
    "<script>alert(1)</script>",
    "<td><ScRiPt src=x>",
    "<img src=x onerror=alert(1)>",
    "<b ONCLICK = 'alert(1)'>x</b>",
    "<a href='java\nscript:alert(1)'>x</a>",
    "<svg><set/></svg>",
    "<iframe src=x>",
    "<object data='data:text/html,x'>",
]


@pytest.mark.parametrize("html", SCRIPTS)
def test_html_that_runs_a_script_is_refused(html):
    with pytest.raises(publish.Refused, match="cell 3 shows HTML that runs a script"):
        shown(output(text_html=html, text_plain="x"))
    mine = publish.readers(executed(), RECEIPT)
    mine.cells[-1].outputs = [output(text_html=html)]
    assert publish.problems(mine) == ["it has HTML that runs a script"]


def test_names_in_a_table_of_pandas_are_no_scripts():
    frame = pd.DataFrame({"name": SCRIPTS}, index=SCRIPTS)
    assert shown(output(text_html=frame._repr_html_()))
    assert not publish.runs(Audio(np.sin(np.arange(80)), rate=8000)._repr_html_())


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[]), "ended in ValueError"),
        (nbformat.v4.new_output("stream", name="stderr", text="careful"), "standard error"),
        (output(text_plain="a", **{"application_vnd.jupyter.widget-view+json": {}}), "a widget"),
        (output(text_html="<audio controls></audio>"), "a sound without a caption"),
        (output(audio_mpeg="SUQz"), "a sound without a caption"),
        (output(text_plain="see /home/me/study"), "path of a machine, /home/me/study"),
        (output(text_html='<a href="file:///tmp/x">x</a>'), "path of a machine, file:///tmp/x"),
        (output(text_markdown="in (/mnt/disk/build)"), "path of a machine, /mnt/disk/build"),
    ],
)
def test_what_must_not_be_committed_is_named(kept, said):
    mine = publish.readers(executed(), RECEIPT)
    mine.cells[-1].outputs = [kept]
    (problem,) = publish.problems(mine)
    assert said in problem


def test_widget_state_is_named():
    mine = publish.readers(executed(), RECEIPT)
    mine.metadata["widgets"] = {}
    assert publish.problems(mine) == ["it has widget state"]


@pytest.mark.parametrize(
    "text",
    [
        "demo/dwt/resnet18/1/standard",
        "https://example.org/a/b",
        "<td>1</td></tr>",
        "±1/2/3",
        "a / b",
        "x' /‖w‖",
        "./build/demo",
    ],
)
def test_what_is_no_path_of_a_machine(text):
    assert publish.paths(text) == []


def noise(side: int) -> str:
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(("side", "size"), [(100, (100, 100)), (180, (180, 180)), (300, (225, 225))])
def test_pictures_that_are_too_large_lose_colours_and_then_size(monkeypatch, side, size):
    monkeypatch.setattr(publish, "MOST", 111_111)
    mine = publish.readers(executed(output(image_png=noise(side))), RECEIPT)
    fit = publish.fitting(mine)
    assert len(publish.written(fit)) <= publish.MOST
    with Image.open(io.BytesIO(base64.b64decode(fit.cells[-1].outputs[0].data["image/png"]))) as picture:
        assert picture.size == size
        assert (picture.mode == "P") == (side > 100)
    assert publish.written(publish.fitting(mine)) == publish.written(fit)


def test_a_text_that_is_too_large_is_refused():
    mine = publish.readers(executed(output(text_html="x" * 2_000_000)), RECEIPT)
    with pytest.raises(publish.Refused, match=r"2\.00 MB"):
        publish.fitting(mine)
    assert "it has 2.00 MB" in publish.problems(mine)[0]


# ------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    figures.use_style()
    folder = tmp_path_factory.mktemp("made")
    found = made_up.grid()
    results.save(found, folder / "rows")
    parts = ("accuracy", "trade_off")
    made = report.Report(tables.Analysis(found), folder, parts)
    for name in parts:
        made.add(name)
    made.finish()
    plt.close("all")
    return folder


@pytest.fixture
def made(made_once, tmp_path):
    return shutil.copytree(made_once, tmp_path / "build/esc10/figures")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_figures_are_put_in_place_of_the_old_ones_and_told(made, tmp_path):
    shelf = tmp_path / "figures/esc10"
    shelf.mkdir(parents=True)
    (shelf / "gone.png").write_bytes(b"")
    (made / ".accuracy.png.host.1").write_bytes(b"half")
    publish.shelve(made, shelf)
    (made / ".accuracy.png.host.1").unlink()
    assert contents(shelf) == contents(made)
    assert [path.name for path in shelf.parent.iterdir()] == ["esc10"]
    listed = publish.index(shelf.parent).read_text()
    assert "## [ESC-10](esc10/README.md)" in listed
    assert "- Points: representations STFT, DWT" in listed
    assert "- 1 pictures and 1 tables" in listed
    assert results.load(shelf / "rows").dataset == "esc10"


def test_the_readme_says_what_the_published_runs_say(tmp_path):
    shelves, readme = tmp_path / "figures", tmp_path / "README.md"
    for name, rows in {"esc10": "| 1 |\n| 2 |\n", "esc50": "| 1 |\n", "urbansound8k": ""}.items():
        (shelves / name).mkdir(parents=True)
        if rows:
            (shelves / name / "answer.md").write_text(f"- Of {name}.\n")
            (shelves / name / "networks.md").write_text(f"A caption.\n\n| n |\n|---|\n{rows}")
    assert not publish.face(readme, shelves), "there is no README"
    readme.write_text("No place.\n")
    assert not publish.face(readme, shelves)
    assert readme.read_text() == "No place.\n"
    wanted = """
### [ESC-10](figures/esc10/README.md)

- Of esc10.

| n |
|---|
| 1 |
| 2 |

A caption.

### [ESC-50](figures/esc50/README.md)

- Of esc50.

"""
    readme.write_text(f"Before.\n{publish.FACE[0]}\nOld.\n{publish.FACE[1]}\nAfter.\n")
    for _ in range(2):
        assert publish.face(readme, shelves)
        assert readme.read_text() == f"Before.\n{publish.FACE[0]}\n{wanted}{publish.FACE[1]}\nAfter.\n"


def test_a_picture_of_chapter_7_is_in_the_index_once(made, tmp_path):
    (made / "waveform_attack.png").write_bytes(b"")
    shelf = tmp_path / "figures/esc10"
    for folder in (made, shelf):  # the second time from an index that has it
        publish.shelve(folder, shelf)
        text = (shelf / "README.md").read_text()
        assert text.count("## waveform attack (chapter 7)\n\n![waveform_attack](waveform_attack.png)\n") == 1
    (shelf / "waveform_attack.md").write_text("What it shows.")
    again = report.Report(tables.Analysis(made_up.grid()), shelf, ("accuracy",))
    again.add("accuracy")
    assert "## waveform attack (chapter 7)\n\nWhat it shows.\n\n![" in again.finish().read_text()


@pytest.mark.parametrize("commit", ["abc", "def"])  # the cell that the shelf has, and another
def test_a_picture_of_chapter_7_stays_with_the_rows_of_its_cell(made, tmp_path, commit):
    found, shelf = made_up.grid(), tmp_path / "figures/esc10"
    beyond = found.cells.iloc[:1].assign(
        chapter="07_beyond", representation="", model="", fold="", training=""
    )

    def keep(commit):
        cells = pd.concat([found.cells, beyond.assign(commit=commit)])
        results.save(dataclasses.replace(found, cells=cells), made / "rows")

    keep("abc")
    ours = [made / f"waveform_attack.{kind}" for kind in ("png", "pdf", "csv", "md")]
    for path in ours:
        path.write_bytes(b"seven")
    publish.shelve(made, shelf)
    for path in ours:
        path.unlink()
    beyond["changed"] = "lib/figures.py"  # as it may be when the rows are kept again
    keep(commit)
    for _ in range(2):
        publish.shelve(made, shelf)
        assert [(shelf / path.name).exists() for path in ours] == [commit == "abc"] * 4
        said = (shelf / "README.md").read_text()
        assert said.count("## waveform attack (chapter 7)\n\nseven\n") == (commit == "abc")
    ours[0].write_bytes(b"of its own")
    publish.shelve(made, shelf)
    assert (shelf / ours[0].name).read_bytes() == b"of its own"


@pytest.mark.parametrize("name", ["attacks.parquet", "examples.safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"<html>"]
)
def test_a_damaged_file_of_rows_is_one_sentence(made, capsys, name, damage):
    path = made / "rows" / name
    path.write_bytes(damage(path.read_bytes()))
    assert report.main([str(made / "rows")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f": {path} cannot be read, it is damaged or of another format: " in line


def test_a_shelf_stands_until_the_new_one_is_there(made, tmp_path, monkeypatch):
    shelf = tmp_path / "figures/esc10"
    publish.shelve(made, shelf)
    before = sorted(path.name for path in shelf.rglob("*"))

    def full(*args, **kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(publish.shutil, "copytree", full)
        with pytest.raises(OSError, match="no space left"):
            publish.shelve(made, shelf)
    assert sorted(path.name for path in shelf.rglob("*")) == before
    assert [path.name for path in shelf.parent.iterdir()] == ["esc10"]
    # Killed between the two names, the next run finds the old one again.
    shelf.rename(shelf.with_name(".esc10.old"))
    with monkeypatch.context() as patched:
        patched.setattr(publish.shutil, "copytree", full)
        with pytest.raises(OSError, match="no space left"):
            publish.shelve(made, shelf)
    assert sorted(path.name for path in shelf.rglob("*")) == before


def test_rows_that_are_too_many_or_none_are_refused(made, tmp_path):
    shelf = tmp_path / "figures/esc10"
    (made / "rows/more.parquet").write_bytes(bytes(publish.ROWS))
    with pytest.raises(publish.Refused, match=r"MB of rows, more than the 2 MB"):
        publish.shelve(made, shelf)
    shutil.rmtree(made / "rows")
    with pytest.raises(publish.Refused, match="has written no rows"):
        publish.shelve(made, shelf)
    assert not shelf.exists()


def test_figures_that_name_a_path_are_refused(made, tmp_path):
    (made / "accuracy.md").write_text("in /home/me/build\n")
    with pytest.raises(publish.Refused, match=r"accuracy\.md: it names a path of a machine"):
        publish.shelve(made, tmp_path / "figures/esc10")


def test_a_cell_of_other_code_is_refused_and_other_text_is_taken(tmp_path):
    (tmp_path / "01_data.py").write_text(SOURCE.replace("1 + 1", "1 + 2"))
    cell = tmp_path / "build/01_data.ipynb"
    cell.parent.mkdir()
    nbformat.write(executed(), cell)
    files.save(cell.with_suffix(".receipt.json"), RECEIPT)
    with pytest.raises(publish.Refused, match="executed from other code"):
        publish.read(cell, tmp_path)
    (tmp_path / "01_data.py").write_text(SOURCE.replace("# # 1 · Data", "# # 1 · The data\n# Said better."))
    copy = publish.read(cell, tmp_path)
    assert publish.problems(copy) == []
    assert [each.cell_type for each in copy.cells] == ["markdown", "code", "code", "markdown", "code"]
    assert copy.cells[0].source == "# 1 · The data\nSaid better."
    assert "This copy" in copy.cells[3].source


@pytest.mark.slow
def test_make_publish_runs_what_is_missing_and_leaves_copies_and_figures(tiny, made):
    assert tiny.make("data").returncode == 0  # make refuses a folder that it did not begin
    shutil.copytree(made, tiny.folder / "build/tiny/figures")
    done = tiny.make("publish")
    assert done.returncode == 0, done.stderr
    names = sorted(path.stem for path in (tiny.folder / "notebooks").glob("*.py"))
    copies = {path.stem: path for path in (tiny.folder / "notebooks").glob("*.ipynb")}
    assert sorted(copies) == names
    for name, path in copies.items():
        copy = nbformat.read(path, 4)
        assert publish.code(copy) == publish.code(jupytext.read(path.with_suffix(".py"), fmt="py:percent"))
        assert publish.problems(copy) == []
        point = "tiny/dwt/alexnet/1/adversarial" if name.startswith("05") else "tiny"
        assert f"`{point}" in next(cell.source for cell in copy.cells if "This copy" in cell.source)
    assert "`tiny/dwt/alexnet/1/standard`" in copies["04_attacks"].read_text()
    assert (tiny.folder / "figures/tiny/rows/attacks.parquet").is_file()

    def standing() -> dict:
        """The copies and figures that lie there, byte for byte."""
        there = {path: path.read_bytes() for path in copies.values() if path.exists()}
        return there | contents(tiny.folder / "figures")

    before = standing()
    runs = tiny.runs()
    # The figures alone can be put away, too.
    shutil.rmtree(tiny.folder / "figures")
    copies["04_attacks"].unlink()
    assert tiny.make("shelve").returncode == 0
    assert standing() == {name: kept for name, kept in before.items() if name != copies["04_attacks"]}
    assert not copies["04_attacks"].exists()
    assert tiny.make("publish").returncode == 0
    assert standing() == before
    assert tiny.runs() == runs
    # What cannot be published leaves what is published.
    (tiny.folder / "build/tiny/figures/rows/more.parquet").write_bytes(bytes(publish.ROWS))
    refused = tiny.make("publish")
    assert refused.returncode != 0
    assert "publish: build/tiny/figures/rows" in refused.stderr
    assert standing() == before


# ------------------------------------------------------------------------------------- the committed copies


def out_of_step(path: Path) -> str:
    source = jupytext.read(path.with_suffix(".py"), fmt="py:percent")
    if publish.code(nbformat.read(path, 4)) == publish.code(source):
        return ""
    return f"{path} was executed from other code than {path.stem}.py has now: make publish"


@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default:.*was executed from other code:UserWarning")
def test_a_copy_that_is_behind_its_source_is_told(path):
    said = out_of_step(path)
    if said:
        warnings.warn(said, stacklevel=1)


@pytest.mark.slow
@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
def test_a_copy_holds_the_code_of_its_source(path):
    assert not out_of_step(path)


@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
def test_a_copy_can_be_committed(path):
    assert publish.problems(nbformat.read(path, 4)) == []
    assert path.read_bytes() == publish.written(nbformat.read(path, 4))
    assert path.stat().st_size < publish.MOST


@pytest.mark.skipif(not Path(".git").exists(), reason="no git here: what it ignores cannot be asked")
def test_git_takes_copies_and_figures():
    wanted = ["notebooks/04_attacks.ipynb", "figures/README.md", "figures/esc10/rows/attacks.parquet"]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *wanted], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.slow
def test_a_copy_behind_its_source_is_a_warning_and_no_failure(tmp_path):
    """The two tests above, seen from outside on a copy that is behind."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_data.py").write_text(SOURCE.replace("1 + 1", "1 + 2"))
    copy = publish.readers(executed(), RECEIPT)
    (tmp_path / "notebooks/01_data.ipynb").write_bytes(publish.written(copy))
    for name in (".pytest.ini", "lib", "tests"):
        (tmp_path / name).symlink_to(Path(name).resolve())
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_publish.py"]
    quick = subprocess.run(
        [*words, "-k", "01_data"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert quick.returncode == 0, quick.stdout
    assert "UserWarning: notebooks/01_data.ipynb was executed from other code" in quick.stdout
    full = subprocess.run(
        [*words, "-k", "01_data", "-m", ""], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert full.returncode == 1
    assert "1 failed" in full.stdout
