"""A point of the grid, its files and its seeds."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lib import files, reporting, study
from lib.device import choose_device


def test_a_point_is_its_path(tmp_path):
    cell = study.Cell(str(tmp_path), "esc10", "dwt", "resnet18", "1.3", "standard")
    assert str(cell) == "esc10/dwt/resnet18/1.3/standard"
    assert cell.path("model.safetensors") == tmp_path / "esc10/dwt/resnet18/1.3/standard/model.safetensors"
    assert cell.seed == 3
    assert cell.at(fold="1").seed == 0
    assert str(cell.up(2)) == "esc10/dwt"


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (["../etc"], "not a word"),
        (["esc10", "", "resnet18"], "from the left"),
        (["esc10", "dwt", "resnet18", "first"], "fold = 'first'"),
        (["esc10", "dwt", "resnet18", "010"], "fold = '010'"),
        (["esc10", "dwt", "resnet18", "١"], "fold = '١'"),
        (["esc10", "dwt", "resnet18", "1.0"], "fold = '1.0'"),
        (["esc10", "dwt", "resnet18", "1.03"], "fold = '1.03'"),
        ([""], "from the left"),
    ],
)
def test_a_bad_point_is_named(point, said):
    with pytest.raises(ValueError, match=said):
        study.Cell("build", *point)


def test_seeds_depend_on_the_words_alone():
    assert study.seed_of("a", 1) == study.seed_of("a", 1)
    # Words are kept apart: ("ab", "c") must not be ("a", "bc").
    assert len({study.seed_of(*words) for words in (("a", 1), ("a", 2), ("ab", "c"), ("a", "bc"))}) == 4
    assert 0 <= study.seed_of("x") < 2**63
    # Pinned, since a changed hash would change every split and target of the study.
    assert study.seed_of("clip", 0) == 1273446809034570322


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_frames_come_back(tmp_path, name):
    rows = pd.DataFrame({"clip": ["a", "b"], "l2": [0.5, 1.5]})
    files.save(tmp_path / name, rows)
    pd.testing.assert_frame_equal(
        pd.DataFrame(files.load(tmp_path / name)).astype({"clip": object}), rows.astype({"clip": object})
    )


def test_tensors_come_back_with_their_metadata(tmp_path):
    files.save(tmp_path / "x.safetensors", ({"x": torch.arange(6.0).reshape(2, 3).T}, {"clip": "a"}))
    tensors, metadata = files.load(tmp_path / "x.safetensors")
    assert torch.equal(tensors["x"], torch.arange(6.0).reshape(2, 3).T)
    assert metadata == {"clip": "a"}


def test_the_same_tensors_saved_again_are_the_same_bytes(tmp_path):
    facts = {f"fact {i}": text for i, text in enumerate(("[]", 'ü"\n\x01\x7f', "💥\u2028</\\", "é" * 9))}
    tensors = {"images": torch.zeros(2, 1, 4, 4), "a": torch.arange(3), "b": torch.ones(2).bfloat16()}
    paths = [files.save(tmp_path / f"{n}.safetensors", (tensors, facts)) for n in range(16)]
    assert len({files.digest(path) for path in paths}) == 1
    assert files.metadata(paths[0]) == facts
    assert torch.equal(files.load(paths[0])[0]["b"], tensors["b"])


def test_tensors_are_read_as_arrays_where_that_is_asked_for(tmp_path):
    path = files.save(tmp_path / "x.safetensors", {"x": torch.arange(6.0)})
    arrays, facts = files.load(path, numpy=True)
    np.testing.assert_array_equal(arrays["x"], np.arange(6.0, dtype=np.float32))
    assert facts == {}


@pytest.mark.parametrize("ending", ["parquet", "csv", "json", "safetensors", "md"])
def test_a_damaged_file_is_named(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(b"\x80\x81PAR1 no rows")
    with pytest.raises(
        ValueError, match=rf"rows\.{ending} cannot be read, it is damaged or of another format"
    ):
        files.load(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("ending", ["parquet", "json", "safetensors"])
def test_a_file_that_is_cut_off_is_named(tmp_path, ending, share):
    content = {
        "parquet": pd.DataFrame({"a": range(99)}),
        "json": {"a": 1},
        "safetensors": {"a": torch.zeros(99)},
    }
    path = files.save(tmp_path / f"rows.{ending}", content[ending])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"rows\.{ending} cannot be read"):
        files.load(path)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = files.save(tmp_path / "facts.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.save(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    files.save(tmp_path / "a.txt", "text")
    assert order == ["fsync", "rename", "fsync"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"rows\.parquet"):
        files.load(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="xyz"):
        files.save(tmp_path / "rows.xyz", {})


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=name):
        choose_device(name)


def test_progress_passes_everything_on_and_tells_the_runner(tmp_path, monkeypatch):
    monkeypatch.setenv(reporting.PROGRESS, str(tmp_path / "progress"))
    monkeypatch.setattr(reporting, "_PROGRESS_EVERY", 0.0)
    counted = reporting.track(range(4), "counting")
    assert next(counted) == 0  # an iterator, as the training needs it
    assert list(counted) == [1, 2, 3]
    lines = (tmp_path / "progress").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"counting {done}/4" for done in (0, 1, 2, 3, 4, 4)]
    assert re.fullmatch(r"counting 4/4, [\d.]+/s, 00:00 left", lines[-1])
    monkeypatch.delenv(reporting.PROGRESS)
    assert list(reporting.track(iter("ab"), "letters")) == ["a", "b"]


def test_progress_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(reporting.PROGRESS, str(tmp_path / "gone" / "progress"))
    assert list(reporting.track(iter("ab"), "letters")) == ["a", "b"]
    assert not (tmp_path / "gone").exists()


FAULTS = """
import resource
import numpy as np
for turn in range(10):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.ones(500_000) for _ in range(5)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the variables are glibc's")
def test_under_make_freed_memory_is_kept_for_the_next_turn():
    variables = re.findall(r"\b(MALLOC_\w+_) := (\d+)", Path("Makefile").read_text())
    assert dict(variables).keys() == {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}  # not make's
    new_pages = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS], capture_output=True, check=True, env=bare | more
            ).stdout
        )
        for how, more in (("kept", dict(variables)), ("given back", {}))
    }
    assert new_pages["given back"] > 5000
    assert new_pages["kept"] < 500
