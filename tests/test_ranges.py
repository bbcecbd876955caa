"""Parameters out of their ranges are refused at the beginning of a chapter, all of them at once."""

import ast
import dataclasses
import math
from pathlib import Path

import jupytext
import pytest

from lib import attacks, names, ranges
from lib.grid import settings

CHAPTERS = sorted(Path("notebooks").glob("0*.py"))
REFUSED = {  # for the type of a parameter, values that none takes
    int: [-7, math.nan],
    float: [math.nan, math.inf, -math.inf],
    str: ["no\nword\x00", "<script>\n"],
    bool: ["maybe", 2],
}


class Chapter:
    """The parameters of a chapter, and the cell that checks them."""

    def __init__(self, path):
        cells = [cell for cell in jupytext.read(path, fmt="py:percent").cells if cell.cell_type == "code"]
        self.known = settings.defaults(cells)
        at = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
        self.imports, self.cell = cells[0].source.replace("figures.use_style()", ""), cells[at + 1].source
        self.space = {}
        exec(self.imports, self.space)

    def check(self, **changed):
        exec(self.cell, self.space | self.known | changed)


@pytest.fixture(scope="module", params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    return Chapter(request.param)


def test_the_defaults_of_a_chapter_are_within_their_ranges(chapter):
    chapter.check()


def test_the_check_comes_first_and_does_nothing_else(chapter):
    statements = ast.parse(chapter.cell).body
    assert all(isinstance(each, ast.Assign | ast.AugAssign) for each in statements[:-1])
    assert ast.unparse(statements[-1].value.func) == "ranges.check"


def test_every_parameter_of_a_chapter_has_a_range(chapter):
    for name, default in chapter.known.items():
        one = default[0] if isinstance(default, list) else default
        for value in REFUSED[type(one)]:
            with pytest.raises(ValueError, match=rf"\b{name}\b"):
                chapter.check(**{name: [value] if isinstance(default, list) else value})


def test_all_that_is_out_of_range_is_named_at_once(chapter):
    wrong = {}
    for name, default in chapter.known.items():
        one = default[0] if isinstance(default, list) else default
        value = REFUSED[type(one)][0]
        wrong[name] = [value] if isinstance(default, list) else value
    with pytest.raises(ValueError, match="must be") as raised:
        chapter.check(**wrong)
    assert [
        name
        for name in wrong
        if f"{name} = " not in str(raised.value) and f"{name}[0] = " not in str(raised.value)
    ] == []


def test_no_list_that_something_climbs_is_empty(chapter):
    lists = [
        name for name, default in chapter.known.items() if isinstance(default, list) and name != "factors"
    ]
    for name in lists:
        with pytest.raises(ValueError, match=rf"{name} = \[\] must have at least one value"):
            chapter.check(**{name: []})


LATE = {
    "jsma_steps": 0,
    "cwa_steps": [25, 0, 1000, 1500],
    "pia_queries": -5,
    "jsma_thetas": [0.0],
    "bim_bisections": -1,
    "deepfool_caps": [],
    "memory": -1.0,
    "cwa_cs": [1.0],
    "pia_samples": 3,
    "jsma_change": "both",
    "until": 1.5,
    "training": "none",
}


@pytest.mark.parametrize("name", LATE)
def test_chapter_4_refuses_what_it_used_to_take_or_to_refuse_late(name):
    with pytest.raises(ValueError, match=name):
        Chapter(Path("notebooks/04_attacks.py")).check(**{name: LATE[name]})


@pytest.mark.parametrize("name", [name for name in LATE if name.partition("_")[2]])
def test_the_attacks_name_the_setting_that_they_refuse(name):
    with pytest.raises(ValueError, match=name):
        attacks.ladders((8, 8), only=list(names.ATTACKS), **{name: LATE[name]})


@pytest.mark.parametrize(
    "where", ["dwt/resnet18", "dwt/nomodel/1", "mel/resnet18/1", "dwt/resnet18/first", "1"]
)
def test_leaks_at_names_a_point(where):
    with pytest.raises(ValueError, match=r"leaks_at = .* must be empty, or representation/model/fold"):
        Chapter(Path("notebooks/03_training.py")).check(leaks_at=where)


def test_leaks_at_is_of_a_fold_that_is_there():
    """Chapter 3's second look at it, once it knows the clips."""
    source = Path("notebooks/03_training.py").read_text(encoding="utf-8")
    lines = source[source.index("one_there = ") : source.index("classes = clips.drop_duplicates")]
    for where in ("", "dwt/resnet18/1", "dwt/resnet18/10.2"):
        exec(lines, {"ranges": ranges, "folds": "1|10", "leaks_at": where})
    for where in ("dwt/resnet18/2", "dwt/resnet18/0"):
        with pytest.raises(ValueError, match=r"leaks_at = .* must be at a fold that is there"):
            exec(lines, {"ranges": ranges, "folds": "1|10", "leaks_at": where})


# ------------------------------------------------------------------------------------------------ the rules


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (ranges.whole("x", 2), [2, 10**9], [1, 2.0, True, "2"]),
        (ranges.whole("x", 2, multiple_of=2), [2, 4], [3, 0]),
        (ranges.number("x", 0, 1), [0, 1, 0.5], [-0.1, 1.1, math.nan, math.inf, True, "0", 10**400]),
        (ranges.number("x", above=0), [1e-9, 7], [0, -1, math.inf]),
        (ranges.flag("x"), [True, False], [1, "True"]),
        (ranges.one_of("x", ("a", "b")), ["a"], ["", "c", 1]),
        (ranges.some_of("x", ("a", "b")), ["", "a", "b a"], ["c", "a c"]),
        (ranges.path("x"), ["", "a b/ä"], ["a\nb", "\x00"]),
        (ranges.device("x"), ["auto", "cuda:1"], ["gpu", "cuda:", ""]),
    ],
    ids=lambda rule: getattr(rule, "allowed", ""),
)
def test_a_rule_takes_what_it_allows(rule, good, bad):
    for value in good:
        ranges.check({"x": value}, rule)
        ranges.check({"x": [value, value]}, rule)
    for value in bad:
        with pytest.raises(ValueError, match=r"^x = .* must be "):
            ranges.check({"x": value}, rule)
        with pytest.raises(ValueError, match=r"^x\[1\] = .* must be "):
            ranges.check({"x": [good[0], value]}, rule)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ValueError, match="must be") as raised:
        ranges.check({"x": "y" * 100_000}, ranges.flag("x"))
    assert len(str(raised.value)) < 2 * ranges.LONGEST


def test_a_constructor_checks_its_own():
    @dataclasses.dataclass
    class Recipe:
        epochs: int

        def __post_init__(self):
            raise ValueError("epochs is wrong")

    with pytest.raises(ValueError, match=r"^epochs is wrong; y = 1 must be True or False$"):
        ranges.check({"epochs": 1, "y": 1}, ranges.taken("epochs", Recipe), ranges.flag("y"))
    with pytest.raises(TypeError, match="Recipe takes no epoch"):
        ranges.taken("epoch", Recipe)
