"""The table of all settings in ``params/README.md``, from the chapters' own parameter cells.

``python -m lib.grid.catalogue`` writes it there; a test compares it with the chapters.
"""

from __future__ import annotations

import re
from pathlib import Path

from lib import files, study

PAGE = Path("params/README.md")
BEGIN, END = "<!-- settings: python -m lib.grid.catalogue -->", "<!-- end of settings -->"
MAKES = {"build", "data_folder", "together", *study.AXES}
"""Parameters that make gives, from its own variables."""


def table(chapter: Path) -> str:
    """A chapter's settings in Markdown, one row each: name, default, meaning."""
    text = chapter.read_text(encoding="utf-8")
    cell = text.partition('# %% tags=["parameters"]\n')[2].partition("\n# %%")[0]
    (title,) = re.findall(r"^# # (.*)", text, re.MULTILINE)
    lines = [f"### {title}: `params/DATASET/{chapter.stem}.yaml`\n"]
    lines += ["| setting | default | meaning |", "|---|---|---|"]
    for line in cell.splitlines():
        code, _, comment = line.partition("  # ")
        name, _, value = code.partition(" = ")
        if name.isidentifier() and name not in MAKES:
            lines.append(f"| `{name}` | `{value}` | {comment.replace('|', '&#124;')} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the tables of all chapters between its two marks."""
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    tables = [table(chapter) for chapter in sorted(Path("notebooks").glob("0*.py"))]
    return "\n\n".join([before + BEGIN, *tables, END]) + after


if __name__ == "__main__":
    files.save(PAGE, page(PAGE.read_text(encoding="utf-8")))
