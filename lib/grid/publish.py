"""Copies to read: the executed chapters and the figures of one run, as they are committed.

``make publish`` turns executed cells into the reader's copies ``notebooks/NN_name.ipynb``, and copies the
figures of their data set, with the rows they were drawn from, to ``figures/DATASET``. A copy shows what was
executed and where in the grid, and nothing of the machine: no paths, no ids, no times, no widgets, and no
sound but a compressed one with its attribution as caption. The same cell gives the same bytes.
"""

from __future__ import annotations

import base64
import copy
import io
import os
import re
import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode, v4

from lib import files, markup, names, study
from lib.grid import receipts
from lib.grid.words import Refused

MOST = 1_500_000  # bytes of a copy
ROWS = 2_000_000  # bytes of a data set's rows
COLOURS = 256  # of a picture in a copy that would be too large
SMALLER = (1.0, 0.75, 0.5)  # sizes tried of the pictures of a copy that is still too large
KINDS = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png")
PLACES = ("build", "data_folder", "folder", "mirror")  # parameters that say where, not what
TEXTS = (".md", ".csv", ".tex")
INDEX = """\
# Tables and figures of published runs

One folder per data set: what chapters 6 and 7 made of its run, each picture as PNG, PDF and CSV, each
table as Markdown, LaTeX and CSV, and in `rows/` what they were drawn from (`make figures` draws
them again). Written by `make publish` and `make shelve`."""

FACE = ("<!-- what came out: make publish and make shelve write this -->", "<!-- end of what came out -->")

_PATH = re.compile(r"file://\S*|(?<![\w.)\]}/:<>~])/[\w.+-]+/[\w.+-]+\S*")
_AUDIO = re.compile(r"<audio|data:audio/")
_PLAYER = re.compile(
    r"<figure><figcaption>[^<]+</figcaption>"
    r'<audio controls src="data:audio/mpeg;base64,[\w+/=]+"></audio></figure>'
)
_REPR = re.compile(r"<[\w.]+ .*>", re.DOTALL)  # <Figure size …>, <IPython.core.display.Markdown object>


# ----------------------------------------------------------------------------------------------- one copy


def code(notebook: NotebookNode) -> list[str]:
    """The code cells of a notebook, without the settings that the runner put in."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code" and not _injected(cell)]


def _injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def readers(executed: NotebookNode, receipt: Mapping[str, Any]) -> NotebookNode:
    """The reader's copy of an executed cell.

    The settings that the runner put in become a paragraph below the parameters: the point of the grid, the
    commit, and every value that was set. Outputs keep what a reader sees: standard error, widgets and players
    other than `lib.player`'s are left out, and the folders of the run have their default names.

    Raises
    ------
    Refused : if a code cell ended in an error, or shows HTML that runs a script.
    """
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    ours = v4.new_notebook(metadata={"kernelspec": python, "language_info": {"name": "python"}})
    ours.nbformat_minor = executed.nbformat_minor
    places = _places(receipt["parameters"])
    count = 0
    for cell in executed.cells:
        name = f"cell-{len(ours.cells):02d}"
        if cell.cell_type != "code":
            mine = NotebookNode(cell_type=cell.cell_type, source=cell.source, metadata={}, id=name)
        elif _injected(cell):
            mine = v4.new_markdown_cell(_point(receipt), id=name)
        else:
            count += 1
            outputs = _outputs(cell.outputs, count, places)
            mine = v4.new_code_cell(cell.source, id=name, execution_count=count, outputs=outputs)
            if "parameters" in cell.metadata.get("tags", []):
                mine.metadata.tags = ["parameters"]
        ours.cells.append(mine)
    return ours


def _places(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Folders of the run that outputs may name, and their names in a copy; the longest first."""
    named = {
        str(parameters[name]): name.removesuffix("_folder") for name in PLACES[:3] if parameters.get(name)
    }
    named |= {os.path.abspath(path): name for path, name in named.items()} | {os.getcwd(): "."}
    return {path: named[path] for path in sorted(named, key=len, reverse=True) if os.path.isabs(path)}


def _point(receipt: Mapping[str, Any]) -> str:
    """Where in the grid a cell was executed, at which commit, and what was set there."""
    values = receipt["parameters"]
    point = "/".join(values[axis] for axis in study.AXES if axis in values)
    commit = f"commit `{receipt['commit'][:10]}`" if receipt["commit"] else "no commit"
    changed = " with changes that were not committed" if receipt["dirty"] else ""
    device = "a CPU" if receipt["device"] == "cpu" else receipt["device"]
    versions = receipt["versions"]
    lines = [f"{name} = {value!r}" for name, value in values.items() if name not in PLACES]
    return (
        f"> **This copy** was executed at `{point}` ({names.point(point)}), {commit}{changed}, on {device} "
        f"with Python {versions['python']} and torch {versions['torch']}. These values replaced the "
        "defaults above:\n\n```python\n" + "\n".join(lines) + "\n```"
    )


def _outputs(outputs: list, count: int, places: Mapping[str, str]) -> list[NotebookNode]:
    """The outputs of code cell number ``count`` that a reader sees."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "error":
            raise Refused(f"cell {count} ended in {output.ename}: {output.evalue}")
        if output.get("name") == "stderr" or _widget(output) or _raw(output):
            continue
        if output.output_type == "stream":
            text = _neutral(output.text, places)
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += text
            else:
                kept.append(v4.new_output("stream", text=text))
            continue
        data = {kind: output.data[kind] for kind in KINDS if kind in output.data}
        if len(data) > 1 and _REPR.fullmatch(data.get("text/plain", "")):
            del data["text/plain"]
        for kind in data:
            if kind != "image/png" and not _AUDIO.search(data[kind]):
                data[kind] = _neutral(data[kind], places)
        if runs(data.get("text/html", "")):
            raise Refused(f"cell {count} shows HTML that runs a script")
        if data:
            number = {"execution_count": count} if output.output_type == "execute_result" else {}
            kept.append(v4.new_output(output.output_type, data, **number))
    return kept


def _widget(output: NotebookNode) -> bool:
    return any(kind.startswith("application/vnd.jupyter.widget") for kind in output.get("data", {}))


def _raw(output: NotebookNode) -> bool:
    """Whether it has a sound that is not compressed below a caption, where its attribution is."""
    data = output.get("data", {})
    html = _PLAYER.sub("", data.get("text/html", ""))
    return any(kind.startswith("audio/") for kind in data) or bool(_AUDIO.search(html))


def _neutral(text: str, places: Mapping[str, str]) -> str:
    for path, name in places.items():
        text = text.replace(path, name)
    return text


class _Scripts(HTMLParser):
    """Notices what a browser would run."""

    found = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= tag in ("script", "iframe", "object", "embed", "svg", "base", "meta", "link")
        for name, value in attrs:
            address = "".join((value or "").split()).lower()
            self.found |= name.startswith("on") or address.startswith(("javascript:", "data:text"))


def runs(html: str) -> bool:
    """Whether a browser would run something in this HTML, or fetch it."""
    parser = _Scripts()
    parser.feed(html)
    return parser.found


def problems(notebook: NotebookNode) -> list[str]:
    """Why a notebook must not be committed; empty for one that may be."""
    found = ["it has widget state"] if "widgets" in notebook.metadata else []
    texts = [cell.source for cell in notebook.cells]
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        wrong = {
            f"a cell ended in {output.get('ename')}": output.output_type == "error",
            "it has standard error": output.get("name") == "stderr",
            "it has a widget": _widget(output),
            "it has HTML that runs a script": runs(data.get("text/html", "")),
            "it has a sound without a caption": _raw(output),
        }
        found += [what for what, holds in wrong.items() if holds]
        texts += [output.get("text", ""), *output.get("traceback", [])]
        texts += [text for kind, text in data.items() if kind.startswith("text/")]
    found += [f"it names a path of a machine, {path}" for text in texts for path in paths(text)]
    size = len(written(notebook))
    return found + [f"it has {size / 1e6:.2f} MB, more than {MOST / 1e6:g}"] * (size > MOST)


def paths(text: str) -> list[str]:
    """Absolute paths of a machine that a text names."""
    return [match[0] for match in _PATH.finditer(_AUDIO.split(text)[0])]


def written(notebook: NotebookNode) -> bytes:
    """The bytes of a notebook's file."""
    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


def fitting(notebook: NotebookNode) -> NotebookNode:
    """The notebook with its pictures in fewer colours, then smaller, until it is no larger than allowed.

    Raises
    ------
    Refused : if its text alone is too large.
    """
    if len(written(notebook)) <= MOST:
        return notebook
    for scale in SMALLER:
        mine = copy.deepcopy(notebook)
        for output in (output for cell in mine.cells for output in cell.get("outputs", [])):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _repainted(output.data["image/png"], scale)
        if len(written(mine)) <= MOST:
            return mine
    raise Refused(f"{len(written(mine)) / 1e6:.2f} MB with the smallest pictures, more than {MOST / 1e6:g}")


def _repainted(png: str, scale: float) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        opaque = Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
    size = [max(1, round(side * scale)) for side in opaque.size]
    flat = opaque.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    small = io.BytesIO()
    flat.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


# ------------------------------------------------------------------------------------------------- a run


def with_text_of(path: Path, executed: NotebookNode) -> NotebookNode | None:
    """An executed notebook with the text that its source has now; None where their code differs."""
    import jupytext

    source = jupytext.read(path, fmt="py:percent")
    if code(executed) != code(source):
        return None
    mine = copy.copy(executed)
    mine.cells, ran = [], [cell for cell in executed.cells if cell.cell_type == "code"]
    for cell in source.cells:
        mine.cells.append(ran.pop(0) if cell.cell_type == "code" else cell)
        if ran and _injected(ran[0]):
            mine.cells.append(ran.pop(0))
    return mine


def read(cell: Path, notebooks: Path) -> NotebookNode:
    """The reader's copy of an executed cell, with its source's text, fit to be committed beside it.

    Raises
    ------
    Refused : if the cell was executed from other code than its source has now, or must not be committed.
    """
    path = notebooks / f"{cell.stem}.py"
    try:
        executed = nbformat.read(cell, 4)
    except nbformat.reader.NotJSONError as error:
        raise Refused(f"{cell}: it is not a complete notebook") from error
    mended = with_text_of(path, executed)
    if mended is None:
        raise Refused(f"{cell}: executed from other code than {path} has now; make runs it again")
    try:
        mine = fitting(readers(mended, files.load(cell.with_suffix(receipts.ENDING))))
    except Refused as error:
        raise Refused(f"{cell}: {error}") from error
    found = problems(mine)
    if found:
        raise Refused(f"{cell}: {found[0]}")
    return mine


def shelve(made: Path, shelf: Path) -> Path:
    """Copy what chapters 6 and 7 made, with the rows, to the committed folder, in place of what was there.

    Raises
    ------
    Refused : if there are no rows, too many, or a text names a path of a machine.
    """
    from lib import figures

    rows = made / "rows"
    if not rows.is_dir():
        raise Refused(f"{rows}: chapter 6 has written no rows there")
    size = sum(path.stat().st_size for path in rows.iterdir())
    if size > ROWS:
        raise Refused(f"{rows}: {size / 1e6:.2f} MB of rows, more than the {ROWS / 1e6:g} MB to be committed")
    for path in sorted(made.iterdir()):
        named = paths(path.read_text(encoding="utf-8")) if path.suffix in TEXTS else []
        if named:
            raise Refused(f"{path}: it names a path of a machine, {named[0]}")
    part, old = (shelf.with_name(f".{shelf.name}.{word}") for word in ("part", "old"))
    if old.exists() and not shelf.exists():  # of a run that was killed between the two names
        os.replace(old, shelf)
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        shutil.copytree(made, part, ignore=shutil.ignore_patterns(".*"))
        for path in _still_true(made, shelf):
            shutil.copy(path, part)
        listed = (part / "README.md").read_text(encoding="utf-8")
        files.save(part / "README.md", listed + figures.unlisted(part, listed))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if shelf.exists():
        os.replace(shelf, old)
    os.replace(part, shelf)
    shutil.rmtree(old, ignore_errors=True)
    return shelf


def _still_true(made: Path, shelf: Path) -> list[Path]:
    """Files that chapter 7 made of a published run, where this run has none and its rows name the same cell.

    So it is when this run extends that one (`lib.analysis.earlier`).
    """
    from lib import figures
    from lib.grid.plan import BEYOND

    tables = [folder / "rows" / "cells.parquet" for folder in (made, shelf)]
    if not all(path.is_file() for path in tables):
        return []
    mine, theirs = (files.load(path).drop(columns="changed") for path in tables)  # that is of today
    if mine.merge(theirs[theirs["chapter"] == BEYOND]).empty:
        return []
    names = figures.listed_beyond((shelf / "README.md").read_text(encoding="utf-8"))
    found = [path for name in names for path in sorted(shelf.glob(f"{name}.*"))]
    return [path for path in found if not (made / path.name).exists()]


def index(shelves: Path) -> Path:
    """Write the index of the published runs: what each was, and where its own index is."""
    lines = [INDEX]
    for path in sorted(shelves.glob("[!.]*/README.md")):
        opening = path.read_text(encoding="utf-8").partition("\n## ")[0]
        facts = re.findall(r"^- .*$", opening, re.MULTILINE)
        pictures, tables = (len(list(path.parent.glob(kind))) for kind in ("*.png", "*.tex"))
        name = path.parent.name
        lines += [f"\n## [{markup.text(names.label(name))}]({name}/README.md)\n", *facts]
        lines.append(f"- {pictures} pictures and {tables} tables.")
    return files.save(shelves / "README.md", "\n".join(lines) + "\n")


def face(readme: Path, shelves: Path) -> bool:
    """Put what published runs say between the two lines `FACE` of a README; False where it has none."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    found = re.search(f"(?<={re.escape(FACE[0])}\n).*?(?={re.escape(FACE[1])})", text, re.DOTALL)
    if found:
        files.save(readme, text[: found.start()] + answers(shelves) + text[found.end() :])
    return bool(found)


def answers(shelves: Path) -> str:
    """What the published runs say, a section each, with its table of networks where it has several."""
    sections = []
    for name in names.in_order(path.parent.name for path in sorted(shelves.glob("[!.]*/answer.md"))):
        said = (shelves / name / "answer.md").read_text(encoding="utf-8")
        shown = shelves / name / "networks.md"
        caption, _, table = (shown.read_text(encoding="utf-8") if shown.is_file() else "").partition("\n\n")
        sections.append(f"### [{markup.text(names.label(name))}]({shelves.name}/{name}/README.md)\n\n{said}")
        sections += [f"{table.rstrip()}\n\n{caption}\n"] * (len(table.splitlines()) > 3)
    return "\n" + "\n".join(sections) + "\n"


def make_publish(given: Mapping[str, str]) -> None:
    """Write copies of executed CELLS to notebooks/, and figures and rows of their data set to figures/."""
    cells = [Path(cell) for cell in given["CELLS"].split()]
    copies = {Path("notebooks", cell.name): read(cell, Path("notebooks")) for cell in cells}
    make_shelve(given)
    for target, notebook in copies.items():
        with files.atomic(target) as part:
            part.write_bytes(written(notebook))
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def make_shelve(given: Mapping[str, str]) -> None:
    """Write figures and rows of the first data set to figures/."""
    dataset, shelves = given["DATASETS"].split()[0], Path("figures")
    shelve(Path(given["BUILD"], dataset, "figures"), shelves / dataset)
    told = " and README.md" if face(Path("README.md"), shelves) else ""
    print(f"{shelves / dataset}, listed in {index(shelves)}{told}")
