"""The form of the chapters: what a reader and the runner may rely on in every one of them."""

import ast
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pandas as pd
import pytest

import lib.chapter
from lib import names, study
from lib.grid import settings

NOTEBOOKS = sorted(Path("notebooks").glob("0*.py"))
SETTINGS = sorted(Path("params").glob("**/*.yaml"))
DATASETS = ("demo", "esc10", "esc50", "urbansound8k")
DEPTH = {
    "01_data": 1,
    "02_features": 2,
    "06_analysis": 1,
    "07_beyond": 1,
}  # axes of a point; the others have 5
MODELS = ("googlenet", "alexnet", "resnet18", "resnet34", "resnet56", "vgg16")


def read(path):
    return jupytext.read(path, fmt="py:percent")


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def chapter(request):
    return request.param


def test_the_chapters_are_numbered_without_a_gap():
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))
    assert len(NOTEBOOKS) >= 6


def test_a_chapter_opens_with_its_number_and_a_question(chapter):
    opening = read(chapter).cells[0]
    assert opening.cell_type == "markdown"
    title, question = opening.source.split("\n\n")[:2]
    assert re.fullmatch(rf"# {int(chapter.stem[:2])} · \S.*", title)
    assert re.fullmatch(r"\*\*.*\?\*\*", question, re.DOTALL)


def test_a_chapter_has_no_header_no_definition_and_no_path_out(chapter):
    text = chapter.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]")
    tree = ast.parse(text)
    assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert not re.search(r"\.\./|sys\.path|/home/|/root/|filterwarnings", text)


def test_imports_come_first_and_the_style_is_set_once(chapter):
    cells = code(read(chapter))
    imports = [i for i, cell in enumerate(cells) if re.search(r"^(import|from) ", cell.source, re.MULTILINE)]
    assert imports == [0]
    assert chapter.read_text(encoding="utf-8").count("figures.use_style()") == 1
    assert "figures.use_style()" in cells[0].source


def test_parameters_are_one_commented_literal_a_line(chapter):
    (cell,) = [cell for cell in code(read(chapter)) if "parameters" in cell.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        rest = re.fullmatch(r"[a-z_0-9]+ = (.*)", line)[1]
        value, _, comment = rest.partition("  #")
        assert ast.literal_eval(value) is not None, line
        assert "=" not in comment, f"papermill misreads {line!r}"


def test_a_chapter_knows_its_point(chapter):
    known = settings.defaults(read(chapter).cells)
    axes = study.AXES[: DEPTH.get(chapter.stem, 5)]
    assert list(known)[: 1 + len(axes)][0] == "build"
    assert set(axes) <= set(known)
    assert all(type(known[axis]) is str for axis in axes)


def test_a_chapter_ends_in_a_computed_summary(chapter):
    last = code(read(chapter))[-1].source
    assert "Markdown(" in last
    assert "summary(" in last or "## Summary" in last


def test_every_expectation_is_answered(chapter):
    """Each "we expect" in the text has a computed line before the text expects the next thing."""
    unanswered = 0
    for cell in read(chapter).cells:
        if cell.cell_type == "markdown":
            expected = len(re.findall(r"\b[Ww]e\s+expect\b", cell.source))
            assert not (expected and unanswered), f"not answered before: {cell.source}"
            unanswered += expected
        else:
            unanswered = max(0, unanswered - cell.source.count("chapter.expectation("))
    assert unanswered == 0


def test_cells_are_short(chapter):
    for number, cell in enumerate(code(read(chapter))):
        listing = number == 0 or "parameters" in cell.metadata.get("tags", [])
        assert len(cell.source.splitlines()) <= (40 if listing else 25), cell.source


def test_no_number_of_the_paper_is_typed(chapter):
    """Accuracies and ratios as the tables print them, 67.83 or 1.412, come from published.csv."""
    prose = "\n".join(cell.source for cell in read(chapter).cells if cell.cell_type == "markdown")
    assert not re.findall(r"(?<![\d.])(?:[4-9]\d\.\d\d|[12]\.\d{3})(?!\d)", prose)


@pytest.mark.parametrize("copy", sorted(Path("notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_output_of_a_published_copy_shows_a_python_object(copy):
    shown = nbformat.read(copy, 4)
    texts = [str(output.get("text", output.get("data", ""))) for c in code(shown) for output in c.outputs]
    assert texts
    assert not re.findall(r"Estimate\(|np\.\w+\(|<[\w.]+ object at|\bdtype: ", "".join(texts))


def execute(words, **given):
    """Execute the cell of chapter 7 that has these words, and give what is defined then."""
    (cell,) = [cell for cell in code(read("notebooks/07_beyond.py")) if words in cell.source]
    given |= {"cell": SimpleNamespace(save=lambda *_: None), "chapter": lib.chapter, "pd": pd, "enough": 10}
    exec(cell.source, given)
    return given


@pytest.mark.parametrize(
    ("fooled", "tried", "clips", "verdict"),
    [
        (1, 3, 12, "this run cannot decide it"),
        (5, 12, 6, "this run cannot decide it"),  # of six clips, each shown twice
        (5, 12, 12, "as expected"),
        (7, 12, 12, "not as expected"),
    ],
)
def test_few_examples_do_not_decide_whether_they_transfer(fooled, tried, clips, verdict, capsys):
    pairs = {"made against": ["a", "a"], "shown to": ["a", "b"], "fooled": [20, fooled], "over": [20, tried]}
    execute("most examples fool their own model only", shares=pd.DataFrame(pairs), clip=["a"] * clips)
    said = f"seen: in {fooled} of {tried} pairs of one of 20 examples and another model, it fools that one"
    assert capsys.readouterr().out.endswith(f"{said} ({verdict})\n")


@pytest.mark.parametrize(
    ("fooled", "kept", "given_up", "verdict"),
    [
        (9, 0, 0, "this run cannot decide it"),
        (12, 2, 5, "as expected"),
        (12, 2, 6, "this run cannot decide it"),
        (12, 12, 12, "not as expected"),  # what is fooled without convergence is fooled
    ],
)
def test_searches_that_were_given_up_do_not_decide_what_a_sound_can_reach(
    fooled, kept, given_up, verdict, capsys
):
    frame = {
        "fooled": [i < fooled for i in range(20)],
        "kept": [i < kept for i in range(20)],
        "converged": [not fooled - given_up <= i < fooled for i in range(20)],
    }
    execute("fewer clips fooled after the round trip", trip=pd.DataFrame(frame))
    assert f"seen: {kept} of {fooled} are still fooled" in (said := capsys.readouterr().out)
    assert said.endswith(f"({verdict})\n")


def test_the_raised_floor_is_compared_on_the_clips_that_are_tried_both_ways(capsys):
    rows = [
        ("stft", 60.0, "attack", [0, 1, 2], [True, False, True]),
        ("stft", 60.0, "noise", [0, 1, 2], [False, False, False]),
        ("stft", 60.0, "attack, raised floor", [1, 2, 5], [False, False, True]),
        ("dwt", 60.0, "attack", [0], [True]),
        ("dwt", 60.0, "noise", [0], [False]),
        ("dwt", 60.0, "attack, raised floor", [], []),
    ]
    waveform = pd.DataFrame(rows, columns=["representation", "snr", "change", "clips", "flags"])
    counts = dict.fromkeys(waveform["change"])
    found = execute(
        "explode(", waveform=waveform.assign(training="standard"), counts=counts, levels=[60.0, 20.0]
    )
    assert found["both"].loc[60.0].to_dict() == {
        "attack": 1,
        "noise": 0,
        "attack, raised floor": 0,
        "over": 2,
    }
    assert "20 dB, 0 clips" in capsys.readouterr().out


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_settings_are_parameters_that_differ_from_the_defaults(path):
    known = settings.defaults(read(Path("notebooks") / f"{path.stem}.py").cells)
    values = settings.resolve(known, [str(path)], [])
    assert not {"build", *study.AXES} & set(values), "the axes of the grid belong to the Makefile"
    same = [name for name, value in values.items() if value == known[name]]
    assert not same, "only what differs from the defaults"
    for line in path.read_text(encoding="utf-8").splitlines():
        assert "#" in line or not line.strip(), f"no reason stands beside {line!r}"


def test_every_settings_file_belongs_to_a_chapter():
    stems = {path.stem for path in NOTEBOOKS}
    assert {path.stem for path in SETTINGS} <= stems
    folders = {path.parent.relative_to("params") for path in SETTINGS}
    assert {str(folder) for folder in folders if not folder.parent.name} == set(DATASETS)
    assert {folder.name for folder in folders} == set(DATASETS)


@pytest.mark.parametrize("folder", sorted(Path("params/sizes").glob("*/*")), ids=str)
def test_grids_of_other_sizes_differ_in_nothing_else(folder):
    """Else norms at two sizes would be those of two trainings, or of two attacks. One attack is compared."""
    others = names.settings(names.ATTACKS)
    bins, frames = folder.parent.name.split("x")
    for chapter in ("02_features", "03_training", "04_attacks", "05_adversarial_training", "07_beyond"):
        usual, mine = (settings.read(f"{f}/{chapter}.yaml") for f in (f"params/{folder.name}", folder))
        usual.pop("leaks_at", "")  # where chapter 3 measures something else as well
        if chapter == "02_features":
            usual |= {"bins": int(bins), "frames": int(frames)}
        if chapter == "04_attacks":
            assert mine.pop("checked") == 1
            usual, mine = (
                {name: value for name, value in each.items() if not name.startswith(others)}
                for each in (usual, mine)
            )
        assert mine == usual, chapter


@pytest.mark.parametrize(("dataset", "folds"), [("esc50", 5), ("urbansound8k", 10), ("esc10", 5)])
def test_the_paper_s_grid_is_listed(dataset, folds, tmp_path):
    done = subprocess.run(
        ["make", "-n", "all", f"DATASETS={dataset}", f"BUILD={tmp_path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    targets = re.findall(rf"{tmp_path}/{dataset}/(\S+)\.ipynb --timeout", done.stdout.replace("\\\n", ""))
    points = 4 * len(MODELS) * folds * 2
    assert len(targets) == len(set(targets)) == 1 + 4 + 2 * points + 2
    assert {word.split("/")[1] for word in targets if word.count("/") == 4} == set(MODELS)


def test_the_paper_s_setting_is_the_default():
    def known(chapter):
        return settings.defaults(read(Path(f"notebooks/{chapter}.py")).cells)

    features = known("02_features")
    assert (features["bins"], features["frames"]) == (768, 1568)
    attacks = known("04_attacks")
    assert attacks["jsma_steps"] == 1000
    for dataset in ("esc50", "urbansound8k"):
        path = Path(f"params/{dataset}/02_features.yaml")
        values = settings.read(str(path)) if path.exists() else {}
        assert not {"bins", "frames"} & set(values), "the paper's size is the default"
    for dataset in ("demo", "esc10"):
        values = settings.read(f"params/{dataset}/02_features.yaml")
        assert (values["bins"], values["frames"]) == (64, 128)
