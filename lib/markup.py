"""Names as text: whatever a class, clip or model is called, a page shows those letters and nothing else.

Names come from tables of other people. In Markdown ``dog|bark`` would split the row of a table, ``*`` and
``$`` would set the words between them, and ``<script>`` would run; a spreadsheet would compute ``=1+1``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_JOINERS = "\u200c\u200d"  # of scripts and emoji; other invisible letters hide what a name is
_MARKED = re.compile(
    r"[\\`*~]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore between letters marks nothing
    r"|^[=#%\[]|^\((?=.*\)=\s*$)|^[-+](?=[\s+-]|$)"  # what begins a block, here and in the next line
    r"|(?:(?<=^\d)|(?<=^\d\d)|(?<=^\d{3}))[.)](?=\s|$)"
    r"|\](?=[(\[:])|\[(?=\^)"  # a link or a note; other brackets are brackets
)
_ENTITY = re.compile(r"[<>&$|]|:(?=[\w+-]+:)")  # what some page reads before it reads backslashes
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def plain(name: object) -> str:
    """A name in one line: line breaks and tabs become spaces, what cannot be printed becomes U+FFFD."""
    spaced = (" " if letter.isspace() else letter for letter in str(name))
    return "".join(each if each.isprintable() or each in _JOINERS else "\ufffd" for each in spaced)


def text(name: object) -> str:
    """A name as Markdown that is read as exactly this name: in a sentence, a list or a table."""
    marked = _ENTITY.sub(lambda match: f"\0{ord(match[0])};", plain(name))
    return _MARKED.sub(r"\\\g<0>", marked).replace("\0", "&#")


def table(frame: pd.DataFrame, *, index: bool = True, marked: Collection[str] = (), floats: str = "g") -> str:
    """A frame as a Markdown table in which cells, index and heads are names, and a missing number is "–".

    Parameters
    ----------
    index : whether the index is shown, each level as a column.
    marked : columns that are Markdown already, heads included.
    floats : the format of numbers that are not whole.
    """
    import pandas as pd

    shown = frame.copy()
    if index:
        names = ["" if name is None else name for name in frame.index.names]
        shown = shown.reset_index(names=names, allow_duplicates=True)
    plain_text = []
    for i, column in enumerate(shown.columns):
        values: Any = shown.iloc[:, i].astype(object)
        values = values.where(values.notna(), None)
        if any(isinstance(value, str) for value in values):
            plain_text.append(i)
        if column not in marked:
            values = [text(value) if isinstance(value, str) else value for value in values]
        shown.isetitem(i, pd.Series(list(values), index=shown.index, dtype=object))
    shown.columns = [column if column in marked else text(column) for column in shown.columns]
    return shown.to_markdown(index=False, floatfmt=floats, missingval="–", disable_numparse=plain_text)


def for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose texts no spreadsheet computes: those that begin like a formula are put after a ``'``."""

    def quoted(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

    safe = frame.rename(index=quoted, columns=quoted)
    for i in range(safe.shape[1]):
        values = [quoted(value) for value in safe.iloc[:, i]]
        if any(isinstance(value, str) for value in values):
            safe.isetitem(i, values)
    return safe
