"""``make lab``: chapters that a reader can execute by hand, on this machine only, beside the grid."""

import asyncio
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import await_that, outside
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from lib.grid import axes, lab
from lib.grid.__main__ import main

START = 300.0  # s that a server may take to start, on a machine that does much else


def grid(folder, **words):
    given = {"BUILD": str(folder / "build"), "DATA": "data", "PARAMS": "params", "DATASETS": "demo"}
    return axes.grid(given | words)


def finish(folder, *cells):
    for cell in cells:
        path = folder / "build" / f"{cell}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("finished", "words", "opened"),
    [
        ([], {}, "demo/dwt/resnet18/1/standard/04_attacks"),
        (["demo/stft/alexnet/1/standard/03_training"], {}, "demo/stft/alexnet/1/standard/04_attacks"),
        (
            ["demo/stft/alexnet/1/standard/04_attacks", "demo/dwt/resnet18/1/standard/03_training"],
            {},
            "demo/stft/alexnet/1/standard/04_attacks",
        ),
        (
            ["demo/dwt/resnet18/1/standard/04_attacks"],
            {"MODELS": "alexnet"},
            "demo/stft/alexnet/1/standard/04_attacks",
        ),
    ],
)
def test_the_point_is_a_finished_one_where_there_is_one(tmp_path, finished, words, opened):
    finish(tmp_path, *finished)
    cells = [path.relative_to(tmp_path / "build") for path in lab.point(grid(tmp_path, **words), "demo")]
    assert cells[3].with_suffix("").as_posix() == opened
    point = Path(opened).parts
    assert cells[1].parts[:2] == point[:2]
    assert cells[2].parts[:4] == cells[4].parts[:4] == point[:4]
    assert [cell.stem[:2] for cell in cells] == ["01", "02", "03", "04", "05", "06", "07"]


def test_a_chapter_has_the_settings_of_its_point_and_a_build_folder_of_its_own(tmp_path):
    (cell,) = [path for path in lab.point(grid(tmp_path), "demo") if path.stem == "04_attacks"]
    notebook = lab.chapter(cell, grid(tmp_path), tmp_path / "scratch")
    nbformat.validate(notebook)
    (place,) = [n for n, each in enumerate(notebook.cells) if "parameters" in each.metadata.get("tags", [])]
    values = {}
    exec(notebook.cells[place + 1].source, values)
    assert values["build"] == str(tmp_path / "scratch")
    assert (values["dataset"], values["representation"], values["model"]) == ("demo", "dwt", "resnet18")
    assert values["clips"] != 100, "the demo's settings, not the chapter's defaults"
    assert str(Path.cwd()) in notebook.cells[0].source


def test_what_is_executed_by_hand_replaces_links_and_not_the_grid(tmp_path):
    from lib import files

    cell = tmp_path / "build/demo/dwt/resnet18/1/standard"
    files.save(cell / "cost.json", {"of": "the grid"})
    (cell / ".04_attacks.written").touch()
    lab.link(tmp_path / "build", "demo", tmp_path / "scratch")
    linked = tmp_path / "scratch/demo/dwt/resnet18/1/standard"
    assert sorted(path.name for path in linked.iterdir()) == ["cost.json"]
    files.save(linked / "cost.json", {"of": "a hand"})
    assert files.load(linked / "cost.json") == {"of": "a hand"}
    assert files.load(cell / "cost.json") == {"of": "the grid"}


def test_the_server_is_of_this_machine_and_takes_what_lab_says(tmp_path):
    (tmp_path / "01_data.ipynb").touch()
    words = lab.command(tmp_path, "--port=1234 --LabApp.extra='a b'")
    assert "--ServerApp.ip=localhost" in words
    assert words[-2:] == ["--port=1234", "--LabApp.extra=a b"]
    assert not re.search(r"token|password|allow_origin|disable_check_xsrf|0\.0\.0\.0", " ".join(words))


def test_root_is_told_how_to_ask(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["lab", f"BUILD={tmp_path}"]) == 1
    assert "make lab LAB=--allow-root" in capsys.readouterr().err


def ask(port, token, path, body=None):
    """What the server answers to a request with its token."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(
        f"http://localhost:{port}{path}", data, {"Authorization": f"token {token}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


async def execute(port, token, name):
    """Execute a notebook's code cells from top to bottom, each when the one before is done; their outputs."""
    cells = ask(port, token, f"/api/contents/{name}")["content"]["cells"]
    wanted = {"path": name, "type": "notebook", "name": "", "kernel": {"name": "python3"}}
    kernel = ask(port, token, "/api/sessions", wanted)["kernel"]["id"]
    address = f"ws://localhost:{port}/api/kernels/{kernel}/channels"
    socket = await websocket_connect(
        HTTPRequest(address, headers={"Authorization": f"token {token}"}), max_message_size=1 << 28
    )
    outputs = []
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        header = {"msg_id": f"cell-{number}", "msg_type": "execute_request", "session": "test"}
        header |= {"username": "", "version": "5.3", "date": "2026-11-27T00:00:00Z"}
        content = {"code": cell["source"], "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": True}
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
        await socket.write_message(json.dumps(message | {"buffers": []}))
        while True:
            said = json.loads(await asyncio.wait_for(socket.read_message(), START))
            if said["parent_header"].get("msg_id") == header["msg_id"]:
                outputs.append((said["msg_type"], said["content"]))
                if said["msg_type"] == "status" and said["content"]["execution_state"] == "idle":
                    break
    socket.close()
    return outputs


@pytest.mark.slow
def test_chapters_are_executed_from_top_to_bottom_in_a_real_server(real, tmp_path):
    """Its token is wanted, it listens to this machine alone, and nothing of the grid is changed."""
    status, said = real.make("build/small/dwt/resnet56/1/standard/03_training.ipynb", "THREADS=1")
    assert status == 0, said
    build = real.folder / "build"
    before = {path: path.read_bytes() for path in (build / "small").rglob("*") if path.is_file()}
    words = real.command(
        "lab", "THREADS=1", "LAB=--no-browser --allow-root --ServerApp.port=0 --ServerApp.port_retries=50"
    )
    (tmp_path / "home").mkdir()
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            words,
            cwd=real.folder,
            env=outside() | {"HOME": str(tmp_path / "home")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        listening = re.compile(r"http://localhost:(\d+)/\S*\?token=(\w+)")
        (port, token) = await_that(
            lambda: listening.search((tmp_path / "log").read_text()), "the server starts", START
        ).groups()
        assert len(token) >= 32

        def hosts():
            family = psutil.Process(server.pid).children(recursive=True)
            listening = [c for one in family for c in one.net_connections() if c.status == "LISTEN"]
            return {c.laddr.ip for c in listening}

        heard = await_that(hosts, "the server listens", START)
        assert heard <= {"127.0.0.1", "::1"}
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://localhost:{port}/api/contents")
        for name in ("01_data.ipynb", "04_attacks.ipynb"):
            outputs = asyncio.run(execute(port, token, name))
            assert not [content["evalue"] for kind, content in outputs if kind == "error"]
            assert sum(kind == "execute_input" for kind, _ in outputs) > 5
            assert sum(kind in ("display_data", "execute_result") for kind, _ in outputs) >= 4
    finally:
        server.terminate()
        server.wait(60)
    after = {path: path.read_bytes() for path in (build / "small").rglob("*") if path.is_file()}
    assert after == before
    assert not (build / "lab/build/small/dwt/resnet56/1/standard/attacks.parquet").is_symlink()
