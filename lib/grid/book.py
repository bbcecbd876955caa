"""One static site of all chapters and figures, which opens from a file and needs no network.

``make book`` lays out a copy of the repository's texts in a folder of its own: the README, the executed
chapters, the figures of every run and their tables. Sphinx makes the site. Equations become MathML, which
browsers draw; this module is also the extension that does so.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from lib import files, markup, names
from lib.grid import publish, receipts

if TYPE_CHECKING:
    from docutils.nodes import Element

TITLE = "Adversarially Training for Audio Classifiers"
HEARD = ("01_data", "07_beyond")  # chapters that play toy sounds
SHOWN = (".png", ".pdf", ".csv", ".tex")  # of a run's figures; its tables in Markdown become part of the page

SETTINGS: dict[str, Any] = {
    "project": TITLE,
    "html_title": TITLE,
    "extensions": ["myst_nb", "lib.grid.book"],
    "html_theme": "furo",
    "smartquotes": False,  # a name keeps its quotes and dashes
    "html_static_path": ["_static"],
    "html_css_files": ["book.css"],
    "html_math_renderer": "mathml",
    "html_show_search_summary": False,  # a summary is fetched, which a browser refuses a file
    "html_show_sourcelink": False,
    "html_copy_source": False,
    "html_use_index": False,
    "html_show_copyright": False,
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,  # chapters link to the glossary
    "myst_disable_syntax": ["html_block", "html_inline"],  # HTML in a text is text
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "myst",
    "nb_ipywidgets_js": {},
}

# ------------------------------------------------------------------------------------------- the extension


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx how equations and intervals are set."""
    inline, block = _drawn("inline", "%s"), _drawn("block", '<div class="math">%s</div>\n')
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("doctree-resolved", _whole_intervals)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def mathml(equation: str, display: str) -> str:
    """An equation in LaTeX as MathML, ``display`` inline or block.

    Raises
    ------
    docutils.utils.math.MathError : for a command that is not known.
    """
    from docutils.utils.math.latex2mathml import tex2mathml

    sided = re.sub(r"\\([bB]igg?)(?![a-zA-Z])", r"\\\1l", equation)  # docutils knows \Bigl, not \Big
    text = re.sub(r">\s+<", "><", tex2mathml(sided, as_block=display == "block"))
    # Only the delimiters of \left and \right grow, which are at the ends of a row of their own.
    text = re.sub(r"(?<!<mrow>)<mo>([{}‖])</mo>(?!</mrow>)", r'<mo stretchy="false">\1</mo>', text)
    # A function has a space before it, and one before its argument.
    thin = '<mspace width="0.17em"></mspace>'
    text = re.sub(r"(</mi>|</msub>)(<mi[^>]*>\w{2,}</mi><mo>&ApplyFunction;)", rf"\1{thin}\2", text)
    return text.replace("<mo>&ApplyFunction;</mo>", thin)


def _drawn(display: str, frame: str) -> Callable[[Any, Element], None]:
    """How Sphinx visits an equation: its MathML goes into the page, at ``%s`` of ``frame``."""
    from docutils import nodes

    def visit(translator: Any, node: Element) -> None:
        translator.body.append(frame % mathml(node.astext(), display))
        raise nodes.SkipNode

    return visit


def _whole_intervals(app: Any, document: Element, name: str) -> None:
    """Let no line of a table break within an interval, 33.3 [20.8, 47.9]."""
    from docutils import nodes

    for entry in document.findall(nodes.entry):
        for text in list(entry.findall(nodes.Text)):
            whole = re.sub(r"\S+ \[[^\[\]]*\d\]", lambda found: found[0].replace(" ", "\u00a0"), text)
            if whole != text:
                text.parent.replace(text, nodes.Text(whole))


# ---------------------------------------------------------------------------------------------- the sources


def lay_out(source: Path, build: Path, cells: list[Path]) -> None:
    """Write the sources of the site: pages at the paths that the repository's own links name.

    Parameters
    ----------
    source : an empty folder.
    cells : executed notebooks of the chapters that have no reader's copy.
    """
    chapters = {path.stem: nbformat.read(path, 4) for path in sorted(Path("notebooks").glob("0*.ipynb"))}
    toys = {name: build / "demo" / f"{name}.ipynb" for name in HEARD}
    toys = {name: path for name, path in toys.items() if name in chapters and path.is_file()}
    chapters |= {path.stem: _played(path) for path in cells if path.stem not in chapters}
    _write(source / "notebooks", chapters)
    _write(source / "toys", {name: _played(path) for name, path in toys.items()})
    runs = {path.parent.name: path.parent for path in Path("figures").glob("*/README.md")}
    runs = {path.parents[1].name: path.parent for path in build.glob("*/figures/README.md")} | runs
    for name in sorted(runs):
        _run(runs[name], source / "figures" / name)
    links = [f"- [{markup.text(names.label(name))}]({name}/README.md)\n" for name in sorted(runs)]
    opening = "---\norphan: true\n---\n# Tables and figures\n\n"
    files.save(source / "figures" / "README.md", opening + "".join(links))
    guide = Path("notebooks/README.md").read_text(encoding="utf-8")
    files.save(source / "notebooks" / "README.md", linked(guide, source / "notebooks"))
    contents = [
        _contents("Chapters", ["notebooks/README", *(f"notebooks/{name}" for name in sorted(chapters))]),
        _contents("Toy sounds, to be heard", [f"toys/{name}" for name in toys]),
        _contents("Tables and figures", [f"figures/{name}/README" for name in sorted(runs)]),
    ]
    front = linked(Path("README.md").read_text(encoding="utf-8"), source)
    files.save(source / "index.md", "\n".join([front, *contents]))
    (source / "_static").mkdir()
    shutil.copy(Path(__file__).with_suffix(".css"), source / "_static")


def _played(cell: Path) -> nbformat.NotebookNode:
    """An executed cell as a reader's copy, with its source's text of today where the code is the same."""
    executed = nbformat.read(cell, 4)
    mine = publish.with_text_of(Path("notebooks", f"{cell.stem}.py"), executed) or executed
    return publish.readers(mine, files.load(cell.with_suffix(receipts.ENDING)))


def _write(folder: Path, notebooks: dict[str, nbformat.NotebookNode]) -> None:
    folder.mkdir(parents=True)
    for name, notebook in notebooks.items():
        (folder / f"{name}.ipynb").write_bytes(publish.written(notebook))


def _run(made: Path, folder: Path) -> None:
    """A run's index with its tables put in, next to its pictures."""
    folder.mkdir(parents=True)
    for path in made.iterdir():
        if path.suffix in SHOWN:
            shutil.copy(path, folder)
    files.save(folder / "README.md", with_tables((made / "README.md").read_text(encoding="utf-8"), made))


def with_tables(text: str, made: Path) -> str:
    """An index of figures whose links to tables in Markdown have become the tables."""
    parts = []
    for part in re.split(r"(?m)^(?=## )", text):
        tables = re.findall(r"\[md\]\((\w+)\.md\)(?:, )?", part)
        part = re.sub(r"\[md\]\(\w+\.md\)(?:, )?", "", part)
        for name in tables:
            caption, table = (made / f"{name}.md").read_text(encoding="utf-8").split("\n\n", 1)
            part = f"{part.rstrip()}\n\n{table}\n" if caption in part else f"{part}\n{caption}\n\n{table}\n"
        parts.append(part)
    return "".join(parts)


def _contents(caption: str, pages: list[str]) -> str:
    if not pages:
        return ""
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def linked(text: str, source: Path) -> str:
    """A text of the repository in which chapters are links, and links to what the site lacks are plain."""

    def chapter(match: re.Match) -> str:
        there = (source / "notebooks" / f"{match[1]}.ipynb").is_file()
        return f"[`notebooks/{match[1]}`](notebooks/{match[1]}.ipynb)" if there else match[0]

    def link(match: re.Match) -> str:
        outside = re.match(r"https?:|#", match[2])
        return match[0] if outside or (source / match[2]).exists() else match[1]

    text = re.sub(r"(?<!\[)`notebooks/(\w+)\.(?:py|ipynb)`", chapter, text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def make(build: Path, cells: list[Path]) -> Path:
    """Make the site, and put it in place of the one that was there.

    Raises
    ------
    publish.Refused : if a text does not fit the site; Sphinx has then printed which.
    """
    from sphinx.application import Sphinx

    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".book.", dir=build) as folder:
        source, site, pages = (Path(folder).resolve() / name for name in ("source", "site", "pages"))
        source.mkdir()
        lay_out(source, build, cells)
        loud = {"status": None, "warning": sys.stderr, "warningiserror": True}
        app = Sphinx(source, None, site, pages, "html", dict(SETTINGS), **loud)
        app.build(force_all=True)
        if app.statuscode:
            raise publish.Refused("the site was not made; the lines above say why")
        book = build / "book"
        shutil.rmtree(book, ignore_errors=True)
        os.replace(site, book)
    return book


def make_book(given: Mapping[str, str]) -> None:
    """Make BUILD/book of the reader's copies, and of executed CELLS of the chapters that have none."""
    site = make(Path(given["BUILD"]), [Path(cell) for cell in given["CELLS"].split()])
    print(f"open {site / 'index.html'} in a browser")
