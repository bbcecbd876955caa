"""The words of make's command line: each bad one is refused by name, and a good grid has its cells."""

import os
from pathlib import Path

import pandas as pd
import pytest

from lib import names
from lib.data import splits
from lib.grid import axes, words

WORDS = ("DATASETS", "REPRESENTATIONS", "MODELS", "FOLDS", "TRAININGS", "TIMEOUT", "THREADS")
PATHS = ("BUILD", "DATA", "PARAMS")
USUAL = {"BUILD": "build", "DATA": "data", "PARAMS": "params", "DATASETS": "demo"}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with settings of the demo and of a data set of one's own, and no chapters."""
    for name in ("params/demo", "params/birds", "home"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [*WORDS, *PATHS])
@pytest.mark.parametrize(
    "word",
    [
        "a;touch hacked",
        "$(shell touch hacked)",
        "$$(touch hacked)",
        "`touch hacked`",
        "a\ntouch hacked",
        "a|touch hacked",
        "a&touch hacked",
        "a>hacked",
        "a'b",
        'a"b',
        "a\\b",
        "a\x1bb",
        "a\u2028b",
        "a\x85b",
    ],
)
def test_a_word_that_a_shell_would_read_is_refused_by_name(checkout, name, word):
    with pytest.raises(words.Refused, match=rf"^{name}=.*(is not allowed|is no fold|is needed)"):
        words.check(USUAL | {name: word})


@pytest.mark.parametrize("name", ["DATASETS", "REPRESENTATIONS", "MODELS", "TRAININGS"])
@pytest.mark.parametrize("word", ["..", "-rf", ".hidden", "_x", "a/b", "a*", "~", "ä", "\u0661"])
def test_an_axis_is_a_plain_word(checkout, name, word):
    with pytest.raises(words.Refused, match=f"{name}=.*'.*' is not allowed"):
        words.check(USUAL | {name: word})


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("BUILD=my build", "' ' is not allowed"),
        ("BUILD=b%1", "'%' is not allowed"),
        ("BUILD=b{x,y}", "'{' is not allowed"),
        ("BUILD=b:c", "':' is not allowed"),
        ("BUILD=b=c", "'=' is not allowed"),
        ("BUILD=b[1]", r"'\[' is not allowed"),
        ("BUILD=b#1", "'#' is not allowed"),
        ("BUILD=", "BUILD='': a path is needed"),
        ("BUILD=-b", "BUILD='-b': a path is needed"),
        ("BUILD=~/b", "BUILD='~/b': a path is needed"),
        ("DATA=", "DATA='': a path is needed"),
        ("DATA= ", "DATA=' ': a path is needed"),
        ("DATA=a\tb", r"'\\t' is not allowed"),
        ("DATA=a\xa0b", r"'\\xa0' is not allowed"),
        ("DATA=a\u2003b", r"'\\u2003' is not allowed"),
        ("PARAMS=my params", "' ' is not allowed"),
        ("DATASETS=", "DATASETS='': at least one name is needed"),
        ("REPRESENTATIONS= ", "REPRESENTATIONS=' ': at least one name is needed"),
        ("FOLDS=abc", "'abc' is no fold"),
        ("FOLDS=1 01", "'01' is no fold"),
        ("FOLDS=1 1.0", "'1.0' is no fold"),
        ("FOLDS=1..2", r"'1\.\.2' is no fold"),
        ("FOLDS=0", "'0' is no fold"),
        ("FOLDS=.1", r"'\.1' is not allowed"),
        ("FOLDS=1.", r"'1\.' is no fold"),
        ("FOLDS=1.2.3", r"'1\.2\.3' is no fold"),
        ("REPRESENTATIONS=foo", "'foo' is not known; known are stft dwt"),
        ("MODELS=resnet19", "'resnet19' is not known; known are googlenet"),
        ("TRAININGS=none", "'none' is not known; known are standard adversarial"),
        ("THREADS=two", "a whole number from 1 on is needed"),
        ("THREADS=1 2", "a whole number from 1 on is needed"),
        ("THREADS=0", "a whole number from 1 on is needed"),
        ("TIMEOUT=1.5", "a whole number from 0 on is needed"),
        ("TIMEOUT=", "a whole number from 0 on is needed"),
        ("TIMEOUT=\u0663", "a whole number from 0 on is needed"),
    ],
)
def test_a_bad_word_is_named(checkout, word, said):
    with pytest.raises(words.Refused, match=said):
        words.check(USUAL | dict([word.split("=", 1)]))


@pytest.mark.parametrize("word", ["a b", "ä/é", "a+b/c,d=e@f", "/x/#1/50%/[new] {2}"])
def test_an_unusual_folder_of_data_is_taken(checkout, word):
    words.check(USUAL | {"DATA": word})


@pytest.mark.parametrize("build", [".", "..", "/", "home", "params/..", "link", "data", "data/.."])
def test_a_build_that_clean_must_not_empty_is_refused(checkout, build):
    (checkout / "link").symlink_to(checkout)
    with pytest.raises(words.Refused, match=r"BUILD=.*is or contains (this checkout|the home folder|DATA)"):
        words.check(USUAL | {"BUILD": build})


@pytest.mark.parametrize("build", ["lib", "notebooks/x", "params", "./figures/../figures/esc10", "linked/a"])
def test_a_build_among_the_study_s_own_files_is_refused(checkout, build):
    (checkout / "tests").mkdir()
    (checkout / "linked").symlink_to("tests")
    with pytest.raises(
        words.Refused, match=r"it is in (lib|notebooks|params|figures|tests), a folder of the study"
    ):
        words.check(USUAL | {"BUILD": build})


def test_a_data_set_that_nobody_knows_is_refused(checkout):
    with pytest.raises(words.Refused, match="'esc11' is not known; known are demo esc10"):
        axes.grid(USUAL | {"DATASETS": "demo esc11"})
    (checkout / "params/lab").mkdir()
    with pytest.raises(words.Refused, match="'lab' is a folder of make in BUILD"):
        axes.grid(USUAL | {"DATASETS": "lab"})
    with pytest.raises(words.Refused, match="PARAMS='parms': there is no such folder"):
        axes.grid(USUAL | {"PARAMS": "parms"})
    (checkout / "other/esc10").mkdir(parents=True)
    with pytest.raises(words.Refused, match="PARAMS='other': it holds no settings of demo"):
        axes.grid(USUAL | {"PARAMS": "other"})


def table(checkout: Path, text: str) -> dict[str, str]:
    path = checkout / "data/birds/clips.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return USUAL | {"DATASETS": "birds"}


@pytest.mark.parametrize(
    ("folds", "planned"),
    [
        ("1 2 3", "1 2 3"),
        ("10 20 30", "10 20 30"),
        ("3 1 2 10 9", "1 2 3 9 10"),
        ("07 7 8 9", "7 8 9"),
        ("1 x 3", "1 2 3 4 5"),
        ("0 1 2", "1 2 3 4 5"),
    ],
)
def test_the_folds_of_one_s_own_table_are_planned(checkout, folds, planned):
    """Where the column is wrong, chapter 1 says so, and five are planned until then."""
    rows = "".join(f"{n}.wav,wren,{fold}\n" for n, fold in enumerate(folds.split()))
    found = axes.grid(table(checkout, "\ufeffpath, label,fold\n" + rows))
    assert found.folds["birds"] == planned.split()


def test_folds_that_chapter_1_will_make_are_planned(checkout):
    """As many as the scarcest class has recordings, five at the most."""
    rows = "".join(
        f"{name}/{n}.wav,{name},{n % most}\n" for name, most in (("wren", 9), ("owl", 4)) for n in range(20)
    )
    given = table(checkout, "path,label,source\n" + rows)
    assert axes.grid(given).folds["birds"] == ["1", "2", "3", "4"]
    frame = pd.read_csv(checkout / "data/birds/clips.csv").rename(columns={"label": "name"})
    assert sorted(splits.grouped_folds(frame).unique()) == [1, 2, 3, 4]
    assert axes.grid(table(checkout, "path,label\n" + rows.replace(",0\n", "\n"))).folds["birds"]


def test_a_fold_that_is_not_there_is_refused_before_any_cell(checkout):
    given = table(checkout, "path,label,fold\n" + "".join(f"{n}.wav,wren,{10 * n}\n" for n in (1, 2, 3)))
    assert axes.grid(given | {"FOLDS": "20 20.3"}).folds["birds"] == ["20", "20.3"]
    with pytest.raises(words.Refused, match="birds has no fold 1; its folds are 10 20 30"):
        axes.grid(given | {"FOLDS": "10 1"})
    with pytest.raises(words.Refused, match=r"demo has no fold 6\.1; its folds are 1 2 3 4 5"):
        axes.grid(USUAL | {"FOLDS": "6.1"})


def test_a_grid_has_its_cells(checkout):
    found = axes.grid(
        USUAL
        | {"REPRESENTATIONS": "dwt dwt", "MODELS": "resnet18", "FOLDS": "1 1.1", "DATASETS": "demo esc50"}
    )
    cells = found.cells()
    assert len(cells) == len(set(cells)) == 2 * (1 + 1 + 2 * 2 * 2 + 2)
    assert "build/esc50/dwt/resnet18/1.1/adversarial/05_adversarial_training.ipynb" in cells
    assert "build/esc50/dwt/resnet18/1.1/adversarial/03_training.ipynb" not in cells
    assert found.attacked("demo")[0] == "build/demo/dwt/resnet18/1/standard/04_attacks.ipynb"
    whole = axes.grid(USUAL | {"DATASETS": "esc50 urbansound8k"})
    assert len(whole.cells()) == 2 * 7 + 4 * len(names.MODELS) * (5 + 10) * 2 * 2
    demo = axes.grid(USUAL)
    assert demo.models["demo"] == ["alexnet", "resnet18"]
    assert demo.folds["demo"] == ["1"]


@pytest.mark.parametrize(
    ("representations", "there"), [("stft_tonnetz dwt_tonnetz", False), ("dwt_tonnetz stft", True)]
)
def test_chapter_7_is_in_a_grid_with_a_representation_that_has_nothing_appended(
    checkout, representations, there
):
    found = axes.grid(USUAL | {"REPRESENTATIONS": representations})
    for cells in (found.cells(), found.read("demo")):
        assert "build/demo/06_analysis.ipynb" in cells
        assert ("build/demo/07_beyond.ipynb" in cells) == there


def test_a_reader_sees_the_point_that_was_named(checkout):
    """The first of the axes given, and dwt/resnet18 where none are."""
    assert axes.grid(USUAL).read("demo")[2:4] == [
        "build/demo/dwt/resnet18/1/standard/03_training.ipynb",
        "build/demo/dwt/resnet18/1/standard/04_attacks.ipynb",
    ]
    given = USUAL | {
        "REPRESENTATIONS": "stft dwt",
        "MODELS": "vgg16 alexnet",
        "FOLDS": "2",
        "TRAININGS": "pgd",
    }
    assert axes.grid(given).read("demo")[3:5] == [
        "build/demo/stft/vgg16/2/pgd/04_attacks.ipynb",
        "build/demo/stft/vgg16/2/pgd/05_adversarial_training.ipynb",
    ]


def test_rows_to_draw_are_named_or_the_data_sets_that_have_some(checkout):
    found = axes.grid(USUAL)
    for folder in ("figures/esc10/rows", "build/esc50/figures/rows"):
        os.makedirs(folder)
    with pytest.raises(
        words.Refused, match=r"no rows of demo in build/demo/figures or .*; there are rows of esc10 esc50"
    ):
        axes.rows(found)
    os.makedirs("figures/demo/rows")
    assert axes.rows(found) == ["figures/demo/rows"]


def test_a_folder_that_make_has_not_made_is_not_built_in(checkout):
    """Else clean would remove it."""
    os.makedirs("notebooks")
    Path("notebooks/01_data.py").touch()
    (checkout / "mine/demo").mkdir(parents=True)
    axes.copy_inputs(axes.grid(USUAL | {"BUILD": "mine"}))
    (checkout / "mine/demo/notes.txt").touch()
    axes.copy_inputs(axes.grid(USUAL | {"BUILD": "mine"}))
    (checkout / "other/demo").mkdir(parents=True)
    (checkout / "other/demo/notes.txt").touch()
    with pytest.raises(words.Refused, match="BUILD='other': make has not made what is in other/demo"):
        axes.copy_inputs(axes.grid(USUAL | {"BUILD": "other"}))
    (checkout / "other/demo/01_data.ipynb").touch()
    axes.copy_inputs(axes.grid(USUAL | {"BUILD": "other"}))


def test_a_mended_paragraph_is_copied_and_makes_no_chapter_run_again(checkout):
    os.makedirs("notebooks")
    source, copy = Path("notebooks/01_data.py"), Path("build/.inputs/01_data.py")
    text = "# %% [markdown]\n# {}\n\n# %%\nvalue = {}\n\n# %% [markdown]\n# End.\n"
    source.write_text(text.format("One.", 1))
    found = axes.grid(USUAL)
    assert str(copy) in axes.copy_inputs(found)
    os.utime(copy, (1, 1))
    for paragraph, value, changed in (("Two.", 1, []), ("Two.", 2, [str(copy)])):
        source.write_text(text.format(paragraph, value))
        assert axes.copy_inputs(found, dry=True) == changed
        assert axes.copy_inputs(found) == changed
        assert copy.read_text() == source.read_text()
        assert (copy.stat().st_mtime == 1) == (not changed)


def test_inputs_are_copied_where_a_text_changed_and_nothing_is_half_there(checkout):
    os.makedirs("notebooks")
    Path("notebooks/01_data.py").write_text("1")
    found = axes.grid(USUAL)
    axes.copy_inputs(found)
    copy = Path("build/.inputs/01_data.py")
    before = copy.stat().st_mtime_ns
    os.utime("notebooks/01_data.py")
    axes.copy_inputs(found)
    assert copy.stat().st_mtime_ns == before
    Path("notebooks/01_data.py").write_text("2")
    axes.copy_inputs(found)
    assert copy.read_text() == "2"
    assert sorted(path.name for path in Path("build/.inputs").rglob("*")) == [
        "01_data.py",
        "01_data.yaml",
        "demo",
    ]
    Path("params/demo/02_feature.yaml").touch()
    with pytest.raises(words.Refused, match=r"params/demo/02_feature.yaml: no chapter reads it"):
        axes.copy_inputs(found)
    Path("params/demo/02_feature.yaml").unlink()
    Path("file").touch()
    with pytest.raises(words.Refused, match=r"BUILD='file': nothing can be written there"):
        axes.copy_inputs(found._replace(build="file"))
