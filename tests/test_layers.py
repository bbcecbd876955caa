"""``lib`` imports downwards only, submodules included, and importing it does nothing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path("lib")

# What each module, or each module of a family, may import from lib. A longer name is more special and wins.
# A family may always import within itself.
BELOW = {
    "names": set(),
    "files": set(),
    "metrics": set(),
    "reporting": set(),
    "player": set(),
    "samples": set(),
    "features": {"ranges"},
    "attacks": {"ranges"},
    "defences": set(),
    "sound": set(),
    "transfer": set(),
    "graphs": set(),
    "crafting": {"device", "graphs", "models"},
    "chapter": set(),
    "markup": set(),
    "ranges": set(),
    "study": {"files"},
    "device": {"reporting"},
    "data": {"files", "reporting", "samples", "study"},
    "store": {"features", "files", "reporting", "samples"},
    "models": {"device", "files", "reporting", "study"},
    "training": {"defences", "device", "files", "graphs", "models", "reporting"},
    "figures": {"files", "markup", "names"},
    "analysis": {
        "figures",
        "files",
        "grid.receipts",
        "markup",
        "metrics",
        "models",
        "names",
        "store",
        "study",
    },
    "grid": {"figures", "files", "markup", "models", "names", "reporting", "store", "study"},
    "grid.plan": {"attacks", "device", "files", "models", "names", "store", "study"},
    "grid.words": {"names"},
    "grid.axes": {"data.changes", "files", "names"},
    "grid.guard": set(),
    "grid.receipts": {"files", "study"},
}
MODULES = sorted(path for path in LIB.rglob("*.py") if path != LIB / "__init__.py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(LIB).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The modules of lib that a file imports, each by its longest name: ``data.splits``, not ``data``."""
    known = {name_of(each) for each in MODULES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            base = node.module.removeprefix("lib").removeprefix(".")
            wanted = {f"{base}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= {name if name in known else base for name in wanted}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("lib.") for a in node.names if a.name.startswith("lib.")}
    return found - {""}


def allowed(name: str) -> set[str]:
    while name not in BELOW:
        assert "." in name, f"lib.{name} has no place in the order of the layers: give it one"
        name = name.rpartition(".")[0]
    return BELOW[name]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_what_is_below_it(path):
    name = name_of(path)
    family = name.split(".")[0]
    for other in imports(path):
        within = other.split(".")[0] == family
        assert within or any(other == below or other.startswith(f"{below}.") for below in allowed(name)), (
            f"lib.{name} imports lib.{other}"
        )


def test_the_page_of_the_library_lists_the_same_layers():
    page = (LIB / "README.md").read_text(encoding="utf-8").partition("## Who may import whom")[2]
    lines = [line.split(" → ") for line in re.search(r"```\n(.*?)```", page, re.DOTALL)[1].splitlines()]
    listed = {
        name: set() if below == "nothing of lib" else set(below.split(", "))
        for names, below in lines
        for name in names.split(", ")
    }
    assert listed.pop("grid"), "in words"
    assert listed == {name: below for name, below in BELOW.items() if name.partition(".")[0] != "grid"}


def test_a_submodule_is_seen():
    assert "grid.receipts" in imports(LIB / "analysis" / "results.py")
    assert "data.splits" in imports(LIB / "data" / "readers.py")


def test_no_module_imports_itself_by_way_of_others():
    graph = {name_of(path): imports(path) for path in MODULES}

    def reach(name, seen=()):
        assert name not in seen, " -> ".join([*seen, name])
        for below in graph.get(name, ()):
            reach(below, (*seen, name))

    for name in graph:
        reach(name)


def test_importing_draws_no_number_and_prints_nothing():
    names = [f"lib.{name_of(path)}" for path in MODULES]
    code = f"""
import importlib, random, os
before, folder = random.getstate(), sorted(os.listdir())
for name in {names!r}:
    importlib.import_module(name)
assert random.getstate() == before
assert sorted(os.listdir()) == folder
import torch
assert torch.initial_seed() == torch.default_generator.initial_seed()
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
