"""The parameters of a notebook: their defaults, and the values that files and the command line give them.

Papermill warns of an unknown parameter and takes any type. Here both are errors, before a kernel starts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


class Refused(ValueError):
    """A parameter or settings file that the notebook does not take."""


def defaults(cells: list[dict]) -> dict[str, Any]:
    """The parameters of a notebook and their default values, from its cell tagged ``parameters``.

    Raises
    ------
    Refused : if a line of that cell is anything but ``name = literal``.
    """
    found: dict[str, Any] = {}
    for cell in cells:
        if "parameters" not in cell["metadata"].get("tags", []):
            continue
        for line in ast.parse(cell["source"]).body:
            try:
                (name,) = line.targets
                found[name.id] = ast.literal_eval(line.value)
            except (AttributeError, ValueError) as error:
                raise Refused(
                    f"the parameters cell has {ast.unparse(line)!r}; only lines 'name = literal' are allowed"
                ) from error
    return found


def of_type(name: str, value: Any, default: Any) -> Any:
    """``value`` if it has the type of ``default``; a whole number is also taken where a float is wanted.

    Raises
    ------
    Refused : naming parameter, value and the wanted type.
    """
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        hint = ""
        if wanted in (int, float) and isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
            hint = f"; YAML reads {value} as text, write it as {float(value):g} or with a point, 1.0e-3"
        raise Refused(f"{name} = {value!r} is of type {type(value).__name__}, not {wanted.__name__}{hint}")
    if wanted is list and default:
        return [of_type(f"{name}[{i}]", item, default[0]) for i, item in enumerate(value)]
    return value


class _Strict(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise Refused(f"{', '.join(twice)} is given twice")
        return super().construct_mapping(node, deep)


def read(path: str) -> dict[str, Any]:
    """The flat mapping of a settings file; an empty file is an empty mapping.

    Raises
    ------
    Refused : if the file is missing, not YAML, or not a flat mapping.
    """
    try:
        found = yaml.load(Path(path).read_text(encoding="utf-8"), _Strict)
    except FileNotFoundError as error:
        raise Refused("there is no such settings file") from error
    except UnicodeDecodeError as error:
        raise Refused(f"it is not text in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise Refused(f"it is not YAML: {' '.join(str(error).split())}") from error
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
            raise Refused(f"unknown parameter {name} = {value!r}; the notebook has {', '.join(known)}")
        values[name] = of_type(name, value, known[name])

    for path, name_of_file in zip(files, called or files, strict=True):
        try:
            for name, value in read(path).items():
                take(str(name), value)
        except Refused as error:
            raise Refused(f"{name_of_file}: {error}") from error
    for name, text in pairs:
        take(name, text if isinstance(known.get(name, ""), str) else yaml.safe_load(text))
    return values
