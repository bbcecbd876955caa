"""Numbers and tables as text: Markdown and LaTeX (booktabs) by pandas, the same bytes for the same rows."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib import markup

NARROW = 80  # characters of a row of a LaTeX table that fits a page as it is; wider columns are wrapped
WIDEST = 44  # characters of a column for which room is kept, when columns are wrapped


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number as it is printed: "–" where there is none, a true minus sign."""
    if value is None or np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(row: Mapping, digits: int, sign: bool = False) -> str:
    """A number with its interval in brackets, where it has one."""
    text = number(row["value"], digits, sign)
    if text == "–" or np.isnan(row["low"]):
        return text
    return f"{text} [{number(row['low'], digits, sign)}, {number(row['high'], digits, sign)}]"


def marked(bound: str, text: str) -> str:
    """A number with the side on which it is open: ≥ or ≤ before it, ? after it where it may be either."""
    return text if text == "–" else {"=": text, "?": f"{text} ?"}.get(bound, f"{bound} {text}")


def table(
    cells: Iterable[tuple[tuple[str, ...], str, str]], index: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """A frame of texts of (key of a row, column, text); rows as they come, "–" where there is no text."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for key, column, text in cells:
        lines.setdefault(key, {})[column] = text
    body = [[line.get(column, "–") for column in columns] for line in lines.values()]
    keys = [list(level) for level in zip(*lines, strict=True)] or [[] for _ in index]
    return pd.DataFrame(body, columns=list(columns), index=pd.MultiIndex.from_arrays(keys, names=index))


def markdown(frame: pd.DataFrame) -> str:
    """A frame of texts as a Markdown table, its index first; heads and cells are text, too."""
    return markup.table(frame) + "\n"


def _texts(frame: pd.DataFrame, escape) -> pd.DataFrame:
    """The frame with its index as columns, heads and cells escaped."""
    head = [str(name or "") for name in frame.index.names]
    left = frame.index.to_frame(index=False, name=range(len(head)))
    whole = pd.concat([left, frame.reset_index(drop=True)], axis=1).astype(str).map(escape)
    return whole.set_axis([escape(str(name)) for name in [*head, *frame.columns]], axis=1)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "ε": r"$\varepsilon$",
    "δ": r"$\delta$",
    "‖": r"$\|$",
    "₂": "$_2$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "→": r"$\to$",
    "<": "$<$",
    ">": "$>$",
    "–": "--",
    "…": r"\dots{}",
    "√": r"$\surd$",
    "†": r"\dag{}",
}


def latex(frame: pd.DataFrame, caption: str, name: str) -> str:
    """A frame of texts as a LaTeX table with booktabs' rules, its index first, no wider than the text.

    Columns of a table that would be wider share the width of the text, and their cells are wrapped.
    """
    texts = _texts(frame, _latex_text)
    styler = texts.style.hide(axis="index")
    lines = styler.to_latex(
        hrules=True,
        column_format=_columns(frame),
        caption=_latex_text(caption),
        label=f"tab:{name}",
        position_float="centering",
    ).replace(r"\centering", "\\centering\n\\small", 1)
    return f"% The document's preamble needs \\usepackage{{booktabs}}.\n{lines}"


def _columns(frame: pd.DataFrame) -> str:
    texts = _texts(frame, str)
    widths = [max([len(name), *texts.iloc[:, i].str.len()]) for i, name in enumerate(texts.columns)]
    if sum(widths) + 2 * len(widths) <= NARROW:
        return "l" * len(widths)
    shares = np.minimum(widths, WIDEST) / np.minimum(widths, WIDEST).sum()
    return "".join(rf"p{{\dimexpr {share:.3f}\textwidth-2\tabcolsep}}" for share in shares)


def _latex_text(text: str) -> str:
    kept = markup.plain(text).replace("ε_r", "\0")
    whole = "".join(_LATEX.get(letter, letter) for letter in kept).replace("\0", r"$\varepsilon_r$")
    return whole.replace("$$", "")  # two formulas that touch are one
