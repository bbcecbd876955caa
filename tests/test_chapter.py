"""How chapters speak: an expectation and its answer, and the summary."""

import math

import pytest

from lib import chapter


@pytest.mark.parametrize(
    ("holds", "said"),
    [(True, "as expected"), (False, "not as expected"), (None, "this run cannot decide it")],
)
def test_an_expectation_says_what_was_seen(holds, said):
    line = chapter.expectation("a rise", "a fall by 2", holds)
    assert line == f"expected: a rise; seen: a fall by 2 ({said})"


def test_a_summary_begins_with_the_answer_and_has_a_sentence_for_each_doubt():
    checks = {"no clip is lost": (False, "3 are"), "all models are there": (True, "none is missing")}
    lines = chapter.summary("Ten clips.", ["All are short."], checks).splitlines()
    assert lines == [
        "## Summary",
        "",
        "Ten clips.",
        "",
        "- All are short.",
        "- **In doubt:** we expected that no clip is lost, but 3 are.",
    ]


def test_the_source_beside_an_equation_is_the_function_s():
    shown = chapter.source(chapter.expectation)
    assert shown.startswith("```python\ndef expectation(")
    assert shown.endswith("```")


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        ([1.2, 2.0], [3.0, 4.0], True),
        ([0.5, 2.0], [3.0, 4.0], None),  # one could be below
        ([0.2, 2.0], [0.9, 4.0], False),
        ([], [], None),
        ([math.nan], [math.nan], None),
    ],
)
def test_intervals_decide_whether_all_numbers_are_above(low, high, answer):
    assert chapter.above(low, high, 1.0) is answer
