"""Fingerprints of the code that a cell rests on: of its chapter and of what that uses of ``lib``.

A fingerprint is of the code alone: a docstring, a comment or a paragraph of a chapter makes no cell old, and
neither does how pictures are drawn or what a label says.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lib import files

ROOT = Path(__file__).parents[2]

SHOWS = re.compile(r"lib/(figures|reporting|markup|chapter|ranges)(/.*|\.py)")
"""Modules that draw, write, show progress or refuse. No number rests on them, nor what they alone import."""

LISTS = {"lib/names.py": {"label", "point"}, "lib/analysis/published.py": set()}
"""Modules that list things, with the entries that are for print. A cell rests on those other entries that it
asks for, such as ``names.ATTACKS``; of a registry's dictionaries on the keys, since the values are labels."""


ON_A_CARD = frozenset({"lib/graphs.py"})
"""Modules that do nothing on a CPU: no number that was computed there rests on them."""


class Source(NamedTuple):
    """What one file, or a list as far as it is asked for, says of itself."""

    fingerprint: str
    words: frozenset[str]  # texts that could name a module or a file
    imports: frozenset[str] = frozenset()  # dotted names, parents among them
    asks: frozenset[tuple[str, str]] = frozenset()  # entries of the lists: file and name
    finds: bool = False  # whether it imports modules by a name that it makes up


def fingerprints(notebook: Path, said: Iterable[str] = (), root: Path = ROOT) -> dict[str, str]:
    """The fingerprints of a notebook and of all that it uses of ``lib``, near or far.

    Imports are followed, submodules included. A module that imports others by names that it makes up
    (``importlib``) rests on the modules of its folder: on those that the cell's parameters or its code name
    (``resnet18``, ``BIM-a``), and on all of them where none is named.

    Parameters
    ----------
    said : what the cell's parameters may name, as :func:`words` gives it.
    """
    found: dict[str, Source] = {}
    waiting = [Path(notebook).resolve()]
    while waiting:
        found |= {_name(path, root): _source(path, root) for path in waiting}
        known = found | _lists(found, root)
        named = set(said).union(*(source.words for source in known.values()))
        reached = {
            path for source in found.values() for name in source.imports for path in _files(name, root)
        }
        for name in [name for name, source in found.items() if source.finds]:
            family = set((root / name).parent.glob("*.py"))
            reached |= {path for path in family if path.stem in named} or family
        waiting = [path for path in sorted(reached) if _name(path, root) not in found and _counts(path, root)]
    prints = {name: source.fingerprint for name, source in known.items()}
    return dict(sorted((prints | _tables(known, root)).items()))


def _counts(path: Path, root: Path) -> bool:
    name = _name(path, root)
    return name not in ("lib/__init__.py", *LISTS) and not SHOWS.fullmatch(name)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _files(module: str, root: Path) -> list[Path]:
    stem = root / module.replace(".", "/")
    return [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()]


def words(value: Any) -> frozenset[str]:
    """What texts may name: BIM-a ``bim``, dwt_tonnetz ``dwt`` and ``tonnetz``, fgsm_rs itself as well."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return frozenset(word for each in value for word in words(each))
    if not isinstance(value, str) or len(value) > 100:
        return frozenset()
    return frozenset({value, value.lower(), *re.split(r"[^a-z0-9]+", value.lower())})


def modules(root: Path = ROOT) -> frozenset[str]:
    """The names of all modules, without their folders."""
    return frozenset(path.stem for path in (root / "lib").rglob("*.py"))


def _source(path: Path, root: Path) -> Source:
    return _parsed(path.read_text(encoding="utf-8"), _name(path, root))


@functools.lru_cache(maxsize=1024)
def _parsed(text: str, name: str) -> Source:
    tree = _undocumented(ast.parse(text, name))
    imports, known = _imports(ast.walk(tree), name)
    nodes = list(_asking(tree))
    used = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    asks = {(known[node.value.id], node.attr) for node in used if node.value.id in known}
    for path in LISTS:
        module = path.removesuffix(".py").replace("/", ".")
        asks |= {(path, each.removeprefix(f"{module}.")) for each in imports if each.startswith(f"{module}.")}
    return Source(
        fingerprint=_hash(ast.dump(tree)),
        words=_texts(nodes),
        imports=frozenset(imports),
        asks=frozenset((path, entry) for path, entry in asks if entry not in LISTS[path]),
        finds=any("import_module" in (getattr(node, "attr", ""), getattr(node, "id", "")) for node in nodes),
    )


def _imports(nodes: Iterable[ast.AST], name: str) -> tuple[set[str], dict[str, str]]:
    """The dotted names of ``lib`` that a file imports, with their parents; and what it calls the lists."""
    package = name.split("/")[:-1]
    found, known = set(), {}
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
            for alias in node.names:
                path = f"{base}.{alias.name}".replace(".", "/") + ".py"
                known |= {alias.asname or alias.name: path} if path in LISTS else {}
    parts = [each.split(".") for each in found if each.split(".")[0] == "lib"]
    return {".".join(each[:n]) for each in parts for n in range(1, len(each) + 1)}, known


def _asking(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree without checks of settings (``ranges.…``), which name more than is used."""
    function = getattr(tree, "func", None)
    if not (isinstance(function, ast.Attribute) and ast.unparse(function).startswith("ranges.")):
        yield tree
        for child in ast.iter_child_nodes(tree):
            yield from _asking(child)


def _texts(nodes: Iterable[ast.AST]) -> frozenset[str]:
    return words([node.value for node in nodes if isinstance(node, ast.Constant)])


def _undocumented(tree: ast.Module) -> ast.Module:
    """A syntax tree without its docstrings and without what is imported for the sake of types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    return tree


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(getattr(line.value, "value", None), str)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lists(found: Mapping[str, Source], root: Path) -> dict[str, Source]:
    """Of each list what the files ask for: its fingerprint, and what its entries may name."""
    lists = {}
    for path in LISTS:
        asked = {entry for source in found.values() for of, entry in source.asks if of == path}
        lines = _entries(asked, root / path) if asked else {}
        if lines:
            labels = path == "lib/names.py"
            dumped = "\n".join(f"{name} {_dump(line, labels)}" for name, line in sorted(lines.items()))
            texts = _texts(node for line in lines.values() for node in ast.walk(line))
            lists[path] = Source(_hash(dumped), texts)
    return lists


def _dump(line: ast.stmt, labels: bool) -> str:
    """A line as text; of a dictionary, where its values are labels, the keys alone."""
    value = getattr(line, "value", None)
    if labels and isinstance(value, ast.Dict):
        return " ".join(ast.dump(key) for key in value.keys if key)
    return ast.dump(line)


def _entries(asked: Iterable[str], path: Path) -> dict[str, ast.stmt]:
    """The lines of a list that define what was asked for, and what these rest on in turn."""
    lines: dict[str, ast.stmt] = {}
    for line in _undocumented(ast.parse(path.read_text(encoding="utf-8"))).body:
        targets = getattr(line, "targets", [getattr(line, "target", None)])
        lines |= {getattr(each, "id", getattr(line, "name", "")): line for each in targets}
    chosen: dict[str, ast.stmt] = {}
    waiting = set(asked) & set(lines)
    while waiting:
        chosen |= {name: lines[name] for name in waiting}
        used = {node.id for name in waiting for node in ast.walk(lines[name]) if isinstance(node, ast.Name)}
        waiting = (used & set(lines)) - set(chosen)
    return chosen


def _tables(found: Mapping[str, Source], root: Path) -> dict[str, str]:
    """Hashes of the tables next to a module that it names, by their name or by their ending alone."""
    tables = set()
    for name, source in found.items():
        module = root / name
        named = {word for word in source.words if word.endswith((".csv", ".json"))}
        tables |= {module.parent / (module.stem + word if word[0] == "." else word) for word in named}
    there = sorted(path for path in tables if path.is_relative_to(root / "lib") and path.is_file())
    return {_name(path, root): files.digest(path)[:16] for path in there}
