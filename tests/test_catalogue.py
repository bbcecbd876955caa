"""The page of settings has every parameter of every chapter, and no other."""

from pathlib import Path

import jupytext

from lib.grid import catalogue, settings


def test_the_page_is_what_the_chapters_have():
    text = catalogue.PAGE.read_text(encoding="utf-8")
    assert catalogue.page(text) == text, "python -m lib.grid.catalogue writes it anew"
    for chapter in sorted(Path("notebooks").glob("0*.py")):
        known = settings.defaults(jupytext.read(chapter, fmt="py:percent").cells)
        section = text.partition(f"`params/DATASET/{chapter.stem}.yaml`")[2].partition("\n### ")[0]
        named = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
        assert named == set(known) - catalogue.MAKES


def test_every_folder_of_settings_is_on_the_page():
    text = catalogue.PAGE.read_text(encoding="utf-8")
    for path in Path("params").rglob("*.yaml"):
        assert f"| `{path.parent.relative_to('params')}` |" in text
