"""The parameters of a notebook: their defaults, and the values that files and the command line give them.

Papermill warns of an unknown parameter and takes any type. Here both are errors, before a kernel starts.
"""

from __future__ import annotations

import ast
import collections
import math
import os
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lib.grid.words import Refused

LARGEST = 20_000  # bytes of a settings file
MOST = 2**63  # of a whole number
DEPTH = 3  # of a settings file: its lines, a list, an item


def defaults(cells: list[dict]) -> dict[str, Any]:
    """The parameters of a notebook and their default values, from its cell tagged ``parameters``.

    Raises
    ------
    Refused : if there are two such cells, a line is anything but ``name = literal``, or a name comes twice.
    """
    tags = {"parameters", "injected-parameters"}  # papermill replaces a cell with the second one
    tagged = [cell for cell in cells if tags & set(cell["metadata"].get("tags", []))]
    if len(tagged) > 1:
        raise Refused(f"the notebook has {len(tagged)} parameters cells; one is allowed")
    try:
        lines = ast.parse(tagged[0]["source"]).body if tagged else []
    except SyntaxError as error:
        raise Refused(f"the parameters cell is not Python: {error.msg} in line {error.lineno}") from error
    found: dict[str, Any] = {}
    for line in lines:
        try:
            (name,) = line.targets
            value = ast.literal_eval(line.value)
            twice = name.id in found
        except (AttributeError, ValueError) as error:
            raise Refused(
                f"the parameters cell has {ast.unparse(line)!r}; only lines 'name = literal' are allowed"
            ) from error
        if twice:
            raise Refused(f"the parameters cell has {name.id} twice")
        found[name.id] = value
    return found


def of_type(name: str, value: Any, default: Any) -> Any:
    """``value`` if it has the type of ``default``; a whole number is also taken where a float is wanted.

    Raises
    ------
    Refused : naming parameter, value and the wanted type; also for numbers that are not finite, or too large
        for 64 bits, and for text that UTF-8 cannot write.
    """
    wanted = type(default)
    found = reprlib.repr(value)
    if wanted is float and type(value) is int and abs(value) < MOST:
        return float(value)
    if type(value) is not wanted:
        types = f"of type {type(value).__name__}, not {wanted.__name__}"
        raise Refused(f"{name} = {found} is {types}{_hint(value, wanted)}")
    if wanted is float and not math.isfinite(value):
        raise Refused(f"{name} = {found} must be a finite number")
    if wanted is int and abs(value) >= MOST:
        raise Refused(f"{name} = {found} must be a whole number of at most 64 bits")
    if wanted is str and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused(f"{name} = {found} has letters that UTF-8 cannot write")
    if wanted is list and default:
        return [of_type(f"{name}[{i}]", item, default[0]) for i, item in enumerate(value)]
    return value


def _hint(value: Any, wanted: type) -> str:
    if wanted not in (int, float) or not isinstance(value, str):
        return ""
    if re.fullmatch(r"[-+]?\d+[eE][-+]?\d{1,3}", value):
        return f"; YAML reads {value} as text, write it as {float(value):g} or with a point, 1.0e-3"
    return "; write a decimal number" if value[:1].isdigit() else ""


class _Strict(yaml.SafeLoader):
    """Safe YAML for flat lines: no aliases, no nesting, no name twice, numbers in decimal digits only.

    YAML 1.1 would read ``010`` as 8, ``1:30`` as 90 and ``0x10`` as 16; here they are text.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise Refused(f"the alias *{self.peek_event().anchor} is not allowed; write the value itself")
        if (self.peek_event().tag or "").startswith("tag:yaml.org"):
            raise Refused("a tag, such as !!int, is not allowed; write the value alone")
        self.depth += 1
        if self.depth > DEPTH:
            raise Refused("lists within lists are not allowed")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = collections.Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise Refused(f"{', '.join(twice[:9])} is given twice")
        return super().construct_mapping(node, deep)


_NUMBERS = ("int", "float", "merge")
_Strict.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag.rpartition(":")[2] not in _NUMBERS]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Strict.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), [*"-+0123456789"]
)
_Strict.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    [*"-+.0123456789"],
)


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, _Strict)
    except Refused:
        raise
    except (yaml.YAMLError, ValueError) as error:  # the latter for 5000 digits
        raise Refused(f"it is not YAML: {' '.join(str(error).split())[:300]}") from error


def read(path: str) -> dict[str, Any]:
    """The flat mapping of a settings file; an empty file is an empty mapping.

    Raises
    ------
    Refused : if there is no such file, or it is not an ordinary one, too large, not YAML, or not flat lines.
    """
    if not os.path.isfile(path):
        there = "it is not an ordinary file" if os.path.exists(path) else "it is a link to nothing"
        raise Refused(there if os.path.lexists(path) else "there is no such settings file")
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise Refused(f"it has more than {LARGEST} bytes")
        found = _parsed(text.decode("utf-8"))
    except OSError as error:
        raise Refused(f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"it is not text in UTF-8: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Refused(f"lines of 'name: value' are expected, not a {type(found).__name__}")
    return found


def resolve(
    known: dict[str, Any], files: Sequence[str], pairs: Sequence[tuple[str, str]], called: Sequence[str] = ()
) -> dict[str, Any]:
    """The values for one run: those of the files in order, then the pairs, each checked against its default.

    A pair's value is text; it is read as its default's type, so ``("fold", "1.10")`` stays text. ``called``
    is what errors call the files, where these are copies.

    Raises
    ------
    Refused : for an unknown name or another type, naming file, parameter and value.
    """
    values: dict[str, Any] = {}

    def take(name: str, value: Any) -> None:
        if name not in known:
            found = f"{name[:60]} = {reprlib.repr(value)}"
            raise Refused(f"unknown parameter {found}; the notebook has {', '.join(known)}")
        values[name] = of_type(name, value, known[name])

    for path, name_of_file in zip(files, called or files, strict=True):
        try:
            for name, value in read(path).items():
                take(str(name), value)
        except Refused as error:
            raise Refused(f"{name_of_file}: {error}") from error
    for name, text in pairs:
        try:
            take(name, text if isinstance(known.get(name, ""), str) else _parsed(text))
        except Refused as error:
            raise Refused(f"-p {name[:60]} {reprlib.repr(text)}: {error}") from error
    return values


def of_chapter(chapter: str, folder: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A chapter's source as a notebook, its defaults, and the values that a folder of settings gives.

    Raises
    ------
    Refused : if the settings are not the chapter's.
    """
    import jupytext

    notebook = jupytext.read(Path("notebooks", f"{chapter}.py"), fmt="py:percent")
    known, path = defaults(notebook.cells), folder / f"{chapter}.yaml"
    return notebook, known, resolve(known, [str(path)] if path.is_file() else [], [])
