"""Names as text: in Markdown, in tables and in spreadsheets."""

import pandas as pd
import pytest
from docutils import nodes
from docutils.core import publish_doctree
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from myst_parser.docutils_ import Parser

from lib import markup

LINES = r"""
dog|bark
two|bars|
a\|b
back\
\
|
**bold**
_a_
__init__
a * b * c
$x$ and $y$
$$\frac{1}{2}$$
5 $
\$5
<script>alert(1)</script>
<img src=x onerror=alert(1)>
<!-- no -->
&lt;b&gt;
&#124;
[link](javascript:alert(1))
a [b](c)
[a][b]
[a]
[a]: b
[^1]
33.3 [20.8, 47.9]
children_playing
a__b
_a
a_
![picture](x.png)
`code`
``
~~gone~~
# head
- item
+ item
* item
1. first
12) twelfth
> quote
% comment
(target)=
(none)
+++
::: note
=1+1
===
---
:dog:
https://example.org/a_b_c
{ref}`x`
{{ x }}
木の葉 🐕‍🦺 naïve
'"
100 %
^^
!!
@someone
C:\dir\_x_
1e5
nan
"""
NAMES = [*LINES.strip().splitlines(), "x" * 3000]


def page(markdown: str) -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return reader.use(dollarmath_plugin)


def words(markdown: str) -> list[str]:
    """The texts of a page's paragraphs and cells; anything that is not text fails."""
    found = []
    for token in page(markdown).parse(markdown):
        assert token.type not in ("html_block", "math_block", "fence", "code_block", "heading_open", "hr")
        if token.type == "inline":
            kinds = {child.type for child in token.children}
            assert kinds <= {"text"}, (kinds, markdown)
            found.append("".join(child.content for child in token.children))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_is_by_the_book(name):
    words = {"myst_enable_extensions": ["dollarmath"], "report_level": 5}
    document = publish_doctree(markup.text(name), parser=Parser(), settings_overrides=words)
    (paragraph,) = document.children
    assert [type(each) for each in paragraph.children] == [nodes.Text]
    assert paragraph.astext() == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["{}", "the class {} is there", "- {}", "12 {} 13"])
def test_a_name_is_read_as_it_is(name, place):
    assert words(place.format(markup.text(name))) == [place.removeprefix("- ").format(name)]


@pytest.mark.parametrize(
    "name", ["children_playing", "33.3 [20.8, 47.9]", "ResNet-18 (DWT)", "100 %", "木の葉"]
)
def test_a_usual_name_is_written_as_it_is(name):
    assert markup.text(name) == name


def test_names_stay_in_their_cells():
    frame = pd.DataFrame({name: [name, i, 0.5] for i, name in enumerate(NAMES)}, index=NAMES[:3])
    frame.index.name = NAMES[5]
    cells = words(markup.table(frame))
    width = 1 + len(NAMES)
    assert len(cells) == 4 * width
    assert cells[:width] == [NAMES[5], *NAMES]
    assert cells[width : 2 * width] == [NAMES[0], *NAMES]
    assert cells[2 * width : 3 * width] == [NAMES[1], *map(str, range(len(NAMES)))]


def test_numbers_are_formatted_and_names_that_look_like_numbers_are_not():
    frame = pd.DataFrame({"label": ["1e5", "01"], "share": [0.12345, float("nan")], "clips": [7, 8]})
    rows = [*("label", "share", "clips"), *("1e5", "0.12", "7"), *("01", "–", "8")]
    assert words(markup.table(frame, index=False, floats=".2f")) == rows


def test_the_levels_of_an_index_are_columns():
    index = pd.MultiIndex.from_tuples([("a|b", "x"), ("a|b", "y")], names=["model", None])
    rows = [*("model", "", "n"), *("a|b", "x", "1"), *("a|b", "y", "2")]
    assert words(markup.table(pd.DataFrame({"n": [1, 2]}, index=index))) == rows


def test_a_column_that_is_markdown_already_is_left_alone():
    frame = pd.DataFrame({"what": ["_b_", "c"], "worst": ["**0.1**", "0.2"]})
    assert "| **0.1** |" in markup.table(frame, index=False, marked=["worst"])
    assert "\\_b\\_" in markup.table(frame, index=False, marked=["worst"])


ONE_LINE = {
    "a\nb": "a b",
    "a\r\n\tb": "a   b",
    "a\u2028b": "a b",
    "a\x00b": "a\ufffdb",
    "\x1b[31m": "\ufffd[31m",
    "a\u202eb": "a\ufffdb",
    "\udce4": "\ufffd",
    "\u200b": "\ufffd",
    7: "7",
}


@pytest.mark.parametrize(("name", "shown"), ONE_LINE.items())
def test_a_name_is_one_line_that_can_be_printed(name, shown):
    assert markup.plain(name) == shown
    markup.text(name).encode()


def test_a_spreadsheet_computes_no_name():
    frame = pd.DataFrame(
        {"label": ["=1+1", "+a", "-a", "@SUM(A1)", "＝1+1", "a=1", "1"], "n": range(-3, 4), "=x": -1.5},
        index=pd.Index(["-i", *"abcdef"], name="row"),
    )
    safe = markup.for_spreadsheets(frame)
    assert safe["label"].tolist() == ["'=1+1", "'+a", "'-a", "'@SUM(A1)", "'＝1+1", "a=1", "1"]
    assert safe["n"].tolist() == frame["n"].tolist()
    assert safe["'=x"].dtype == float
    assert safe.index.tolist() == ["'-i", *"abcdef"]
    assert safe.index.name == "row"
    lines = safe.to_csv().splitlines()
    assert not any(cell.lstrip('"').startswith(("=", "+", "@")) for line in lines for cell in line.split(","))
