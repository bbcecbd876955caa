"""A cell is older than its code when what it used has changed, and only then."""

import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from lib.grid import sources

TREE = {
    "notebooks/04_attacks.py": """
from lib import figures, names, ranges, reporting
ranges.check(globals(), ranges.one_of("model", names.MODELS), ranges.one_of("attack", ["JSMA"]))
from lib.data import splits
from lib.analysis import published
from lib import attacks
for attack in names.ATTACKS:
    attacks.get(attack)
print(names.label("x"), published.BUDGET)
""",
    "lib/__init__.py": "",
    "lib/names.py": """
ATTACKS = {name: name for name in ("BIM-a", "PIA")}
MODELS = {"vgg16": "VGG-16"}
FAMILIES = (ATTACKS, MODELS)
ORDER = [key for family in FAMILIES for key in family]
def label(key): return str(FAMILIES)
""",
    "lib/figures.py": "from lib import colours",
    "lib/reporting.py": "",
    "lib/colours.py": "",
    "lib/analysis/published.py": "BUDGET = 3.0\nOTHER = 1\nTABLE = '.csv'",
    "lib/analysis/published.csv": "1",
    "lib/data/__init__.py": "'''The data.'''",
    "lib/data/splits.py": """
from typing import TYPE_CHECKING
from . import parts
import lib.deep.inner.most as most
if TYPE_CHECKING:
    from lib.data import toy
TABLE = "hashes.csv"
""",
    "lib/data/parts.py": "x = 1",
    "lib/data/toy.py": "",
    "lib/data/hashes.csv": "a",
    "lib/deep/__init__.py": "",
    "lib/deep/inner/__init__.py": "",
    "lib/deep/inner/most.py": "",
    "lib/deep/other.py": "",
    "lib/attacks/__init__.py": "import importlib\ndef get(name): return importlib.import_module(name)",
    "lib/attacks/bim.py": "from lib.attacks.ladder import x",
    "lib/attacks/pia.py": "",
    "lib/attacks/ladder.py": "",
    "lib/attacks/jsma.py": "",
}


@pytest.fixture
def tree(tmp_path):
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def prints(root, *said, chapter="04_attacks"):
    return sources.fingerprints(root / f"notebooks/{chapter}.py", sources.words(list(said)), root)


def changed(root, name, new, *said):
    """The sources that count as changed after a file has another text."""
    before = prints(root, *said)
    path = root / name
    path.write_text(new(path.read_text()) if path.exists() else new(""))
    after = prints(root, *said)
    return sorted(name for name in before | after if before.get(name) != after.get(name))


MORE = "\nx = 2\n"


@pytest.mark.parametrize(
    "name",
    [
        "lib/data/parts.py",
        "lib/data/splits.py",
        "lib/deep/inner/most.py",
        "lib/deep/inner/__init__.py",
        "lib/deep/__init__.py",
        "lib/attacks/bim.py",
        "lib/attacks/pia.py",
        "lib/attacks/ladder.py",
        "lib/data/hashes.csv",
        "notebooks/04_attacks.py",
    ],
)
def test_what_a_cell_uses_makes_it_old(tree, name):
    assert changed(tree, name, lambda text: text + MORE) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "lib/data/toy.py",
        "lib/deep/other.py",
        "lib/attacks/jsma.py",
        "lib/attacks/new.py",
        "lib/figures.py",
        "lib/colours.py",
        "lib/reporting.py",
        "lib/__init__.py",
        "lib/analysis/published.csv",
    ],
)
def test_what_it_does_not_use_does_not(tree, name):
    assert changed(tree, name, lambda text: text + MORE) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("lib/names.py", '"BIM-a", "PIA"', '"PIA", "BIM-a"', True),
        ("lib/names.py", '"VGG-16"', '"VGG"', False),
        ("lib/names.py", '"vgg16"', '"vgg19"', False),
        ("lib/names.py", "str(FAMILIES)", "key", False),
        ("lib/analysis/published.py", "3.0", "2.0", True),
        ("lib/analysis/published.py", "OTHER = 1", "OTHER = 2", False),
    ],
)
def test_of_a_list_only_what_the_cell_asks_for_counts(tree, name, old, new, counts):
    assert changed(tree, name, lambda text: text.replace(old, new)) == ([name] if counts else [])


def test_an_entry_rests_on_those_that_it_is_made_of(tree):
    chapter = tree / "notebooks/04_attacks.py"
    chapter.write_text(chapter.read_text() + "\nfrom lib.names import ORDER\n")
    assert changed(tree, "lib/names.py", lambda text: text.replace('"vgg16"', '"vgg19"')) == ["lib/names.py"]
    assert changed(tree, "lib/names.py", lambda text: text.replace('"VGG-16"', '"VGG"')) == []


def test_a_member_of_a_family_is_named_by_a_parameter(tree):
    assert changed(tree, "lib/attacks/jsma.py", lambda text: MORE, "JSMA") == ["lib/attacks/jsma.py"]


def test_where_no_member_is_named_all_count(tree):
    chapter = tree / "notebooks/04_attacks.py"
    chapter.write_text("from lib import attacks\n")
    assert changed(tree, "lib/attacks/jsma.py", lambda text: MORE) == ["lib/attacks/jsma.py"]


@pytest.mark.parametrize("text", ["# a comment\nx = 1", "'''A docstring.'''\nx = (1)", "x = 1\n\n"])
def test_words_do_not_count(tree, text):
    assert changed(tree, "lib/data/parts.py", lambda _: text) == []


# ------------------------------------------------------------------------------------- the library as it is

POINT = {"dataset": "esc10", "representation": "dwt", "model": "resnet18", "fold": "1", "training": "pgd"}
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("0*.py"))
TRAINED = ("03_training", "04_attacks", "05_adversarial_training")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for name in ("lib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    return folder


def old(root: Path, name: str, before: str = "", after: str = MORE) -> set[str]:
    """The chapters that are old after an edit of a module, which is then undone."""

    def all_prints():
        return {chapter: prints(root, *POINT.values(), chapter=chapter) for chapter in CHAPTERS}

    path = root / name
    text = path.read_text(encoding="utf-8")
    assert before in text
    then = all_prints()
    path.write_text(text.replace(before, after, 1) if before else text + after, encoding="utf-8")
    try:
        return {chapter for chapter, now in all_prints().items() if now != then[chapter]}
    finally:
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "before", "after", "spared"),
    [
        ("lib/figures.py", "", MORE, CHAPTERS),
        ("lib/reporting.py", "", MORE, CHAPTERS),
        ("lib/names.py", '"ResNet-18"', '"ResNet 18"', CHAPTERS),
        ("lib/data/toy.py", "", MORE, (*TRAINED, "06_analysis")),
        ("lib/data/demo.py", "", MORE, (*TRAINED, "06_analysis")),
        ("lib/data/duplicates.py", "", MORE, ("02_features", *TRAINED, "06_analysis", "07_beyond")),
        ("lib/data/download.py", "", MORE, ("02_features", *TRAINED, "06_analysis")),
        ("lib/data/urbansound8k.py", "", MORE, ("01_data", "02_features", *TRAINED, "06_analysis")),
        (
            "lib/models/vgg16.py",
            "",
            MORE,
            ("01_data", "02_features", "04_attacks", "05_adversarial_training"),
        ),
        ("lib/defences/trades.py", "", MORE, CHAPTERS),
        ("lib/analysis/published.csv", "", MORE, ("01_data", "02_features", *TRAINED, "07_beyond")),
        ("lib/analysis/published.py", "", MORE, ("01_data", "02_features", *TRAINED)),
        ("lib/analysis/claims.py", "", MORE, ("01_data", "02_features", *TRAINED, "07_beyond")),
        ("lib/names.py", '"vgg16":', '"vgg19": "VGG-19", "vgg16":', ("01_data", "02_features", *TRAINED)),
        ("lib/names.py", '"pgd":', '"mine": "mine", "pgd":', ("01_data", "02_features", *TRAINED)),
    ],
)
def test_what_a_chapter_does_not_use_makes_it_no_older(real, name, before, after, spared):
    assert not old(real, name, before, after) & set(spared)


@pytest.mark.parametrize(
    ("name", "before", "after", "counts"),
    [
        ("lib/data/splits.py", "", MORE, TRAINED),
        ("lib/metrics.py", "", MORE, (*TRAINED, "06_analysis")),
        ("lib/training.py", "", MORE, ("03_training", "05_adversarial_training")),
        ("lib/data/pitch.py", "", MORE, ("02_features",)),
        ("lib/features/scalogram.py", "", MORE, ("02_features", *TRAINED)),
        ("lib/models/resnet18.py", "", MORE, TRAINED),
        ("lib/defences/pgd.py", "", MORE, ("05_adversarial_training",)),
        ("lib/attacks/pia.py", "", MORE, ("04_attacks",)),
        ("lib/names.py", '"BIM-a": "BIM-a",', "", ("04_attacks",)),
        ("lib/names.py", '"BIM-a": "BIM-a",', '"New": "", "BIM-a": "BIM-a",', ("04_attacks", "06_analysis")),
        ("lib/analysis/claims.py", "", MORE, ("06_analysis",)),
        ("lib/analysis/published.csv", "", MORE, ("06_analysis",)),
    ],
)
def test_what_it_uses_does(real, name, before, after, counts):
    assert set(counts) <= old(real, name, before, after)
