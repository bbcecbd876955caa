"""Nothing that comes from outside is run: no pickle, no object of YAML, no word that a shell reads."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import outside

from lib.grid import settings

SOURCES = [*sorted(Path("lib").rglob("*.py")), *sorted(Path("notebooks").glob("*.py"))]
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec"}


def named(node: ast.AST) -> str:
    """``torch.load`` of a call of it."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def calls(path: Path) -> list[tuple[str, dict[str, ast.expr], ast.Call]]:
    """Each call of a source: what is called, its keywords, and itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(named(node.func), {word.arg: word.value for word in node.keywords}, node) for node in found]


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_source_opens_a_pickle_or_a_shell(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in PICKLES
        elif isinstance(node, ast.Import):
            taken = {alias.name for alias in node.names} & PICKLES
            assert taken <= {"pickle"}, "only the name of its error is wanted"
        elif isinstance(node, ast.Attribute) and named(node.value) == "pickle":
            assert node.attr == "UnpicklingError"
    for name, keywords, call in calls(path):
        assert name not in SHELLS, f"{path}: {name}"
        assert not name.endswith("read_pickle"), path
        assert "allow_pickle" not in keywords, path
        assert not is_true(keywords.get("shell")), f"{path}: {ast.unparse(call)}"
        if name.startswith(("subprocess.run", "subprocess.Popen", "subprocess.check")):
            assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), "a list of words, not a line"
        if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
            assert is_true(keywords.get("weights_only")), f"{path}: {ast.unparse(call)}"
        if name in ("yaml.load", "yaml.load_all"):
            loader = getattr(settings, named(call.args[1]))
            assert issubclass(loader, yaml.SafeLoader)
        assert name not in ("yaml.unsafe_load", "yaml.full_load", "yaml.Loader"), path


def test_every_pickle_is_known_by_its_hash_before_it_is_opened():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            lines = [named(inner.func) for inner in ast.walk(node) if isinstance(inner, ast.Call)]
            if "torch.load" in lines:
                assert "_check" in lines, f"{path}: {node.name}"


def test_a_setting_is_never_read_by_a_shell(tiny):
    word = '$(touch hacked) `touch hacked` ; touch hacked; \' || touch hacked #\n" && touch hacked "'
    tiny.settings("01_data", ends=json.dumps(word))
    assert tiny.make("data").returncode == 0
    assert not list(tiny.folder.rglob("hacked"))
    receipt = json.loads((tiny.folder / "build/tiny/01_data.receipt.json").read_text())
    assert receipt["parameters"]["ends"] == word


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("gone"),
    ],
    ids=["folder", "FIFO", "device", "dangling link"],
)
def test_settings_that_are_no_file_are_refused_and_not_the_defaults(tiny, make):
    make(tiny.folder / "params/tiny/01_data.yaml")
    done = tiny.make("data")
    assert done.returncode != 0
    assert "params/tiny/01_data.yaml: settings must be in an ordinary file" in done.stderr
    assert not (tiny.folder / "build/tiny").exists()


@pytest.mark.parametrize("name", ["MODELS", "DATA"])
@pytest.mark.parametrize("word", ["a;touch hacked", "$(shell touch hacked)", "a\ntouch hacked", "a'b"])
def test_a_word_on_the_command_line_that_a_shell_would_read_is_refused(tiny, name, word):
    """All words and all variables are test_axes.py's; here make itself is asked."""
    done = tiny.make("all", f"{name}={word}")
    assert done.returncode != 0
    assert re.search(rf"\*\*\* {name}=.* is not allowed", done.stderr, re.DOTALL), done.stderr
    assert not list(tiny.folder.rglob("*hacked*"))
    assert not (tiny.folder / "build").exists()


def test_an_unusual_folder_of_data_is_taken(tiny):
    word = "a b/ä/é/a+b/c,d=e@f"
    assert tiny.make("data", f"DATA={word}").returncode == 0
    receipt = json.loads((tiny.folder / "build/tiny/01_data.receipt.json").read_text())
    assert receipt["parameters"]["data_folder"] == word


@pytest.mark.slow
def test_the_study_runs_without_a_network(tiny):
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare -n is refused: it takes root")
    done = subprocess.run(
        ["unshare", "-n", *tiny.command("all", "-j2")],
        cwd=tiny.folder,
        env=outside(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
