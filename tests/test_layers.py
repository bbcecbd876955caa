"""``lib`` imports downwards only, and importing it does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path("lib")

# What each module may import from lib. Everything else of lib is above it.
BELOW = {
    "study": set(),
    "published": set(),
    "toy": set(),
    "features": set(),
    "metrics": set(),
    "attacks": set(),
    "pitch": set(),
    "download": {"study"},
    "fingerprint": set(),
    "data": {"fingerprint", "pitch", "study", "toy"},
    "store": {"features", "study"},
    "models": {"study"},
    "figures": {"study"},
    "results": {"receipts", "store", "study"},
    "tables": {"figures", "metrics", "published", "results"},
    "claims": {"figures", "metrics", "published", "results", "tables"},
    "report": {"claims", "figures", "metrics", "models", "published", "results", "study", "tables"},
    "sound": set(),
    "defences": {"attacks"},
    "training": {"attacks", "defences", "metrics", "models", "study"},
    "receipts": {"study"},
    "guard": set(),
    "execute": {"guard", "receipts", "study"},
    "plan": {"execute", "models", "receipts", "store", "study"},
    "publish": {"figures", "receipts", "study"},
    "book": {"figures", "publish", "receipts", "study"},
    "verify": {"execute", "receipts", "study"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lib.")}
    return found


def concept(path: Path) -> str:
    return path.relative_to(LIB).parts[0].removesuffix(".py")


MODULES = sorted(path for path in LIB.rglob("*.py") if path != LIB / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_what_lies_below(path):
    name = concept(path)
    assert name in BELOW, f"lib/{name} has no place in the order of the layers: give it one"
    assert imports(path) - {name} <= BELOW[name]


def test_the_order_has_no_circle():
    def reach(name, seen=()):
        assert name not in seen, " -> ".join([*seen, name])
        for below in BELOW[name]:
            reach(below, (*seen, name))

    for name in BELOW:
        reach(name)


def test_importing_draws_no_number_and_prints_nothing():
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
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
