"""Running finished cells again: what is the same, what differs, and nothing that was there is touched."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

from lib import files
from lib.grid import verify


def again(tiny, *words):
    command = [sys.executable, "-m", "lib.grid", "verify", "BUILD=build", "SHARE=1", *words]
    return subprocess.run(command, cwd=tiny.folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_cell_that_draws_by_chance_is_found_out_and_the_others_are_not(tiny):
    for path in (tiny.folder / "notebooks").iterdir():
        if path.stem != "04_attacks":
            path.write_text(path.read_text().replace('"pid": os.getpid()', '"of": dataset'))
    assert tiny.make("all", "-j2", "THREADS=1").returncode == 0
    before = {path: path.read_bytes() for path in (tiny.folder / "build").rglob("*") if path.is_file()}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lib.grid", "verify", "BUILD=build", "SHARE=1"],
        cwd=tiny.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "6 of 8 cells came out the same, of 8 finished ones" in done.stdout
    assert "tiny/dwt/alexnet/1/standard/04_attacks: differs" in done.stdout
    assert "04_attacks.json: other bytes" in done.stdout
    after = {path: path.read_bytes() for path in (tiny.folder / "build").rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"runs"}, "the chapters of the tiny grid count their runs there"


def test_nothing_finished_is_said(tiny):
    done = again(tiny)
    assert done.returncode == 1
    assert "build has no finished cell" in done.stderr


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("seconds", 9.0, ""), ("after", 9, "after: 1 became 9, and 0 values more"), ("new", 1, "values became")],
)
def test_tables_are_compared_by_value_and_seconds_left_out(tmp_path, column, value, said):
    frame = pd.DataFrame({"after": [1, 2], "l2": [0.5, float("nan")], "seconds": [1.0, 2.0]})
    other = frame.copy()
    other[column] = [value, *other.get(column, pd.Series([0, 0]))[1:]]
    for name, content in (("a.parquet", frame), ("b.parquet", other)):
        files.save(tmp_path / name, content)
    found = verify.difference(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert said in found
    assert bool(said) == bool(found)


def test_tensors_are_compared_by_value_and_their_header_by_what_it_says(tmp_path):
    told = dict.fromkeys("abcdefgh", "said")  # in another order in nearly every process
    write = (
        "import sys, torch; from lib import files; "
        "files.save(sys.argv[1], ({'x': torch.tensor([0.0, 1.0])}, {n: 'said' for n in 'abcdefgh'}))"
    )
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    files.save(one, ({"x": torch.tensor([0.0, 1.0])}, told))
    subprocess.run([sys.executable, "-c", write, other], check=True)
    assert verify.difference(one, other) == ""
    for content, said in [
        (({"x": torch.tensor([-0.0, 1.0])}, told), "x: other values"),
        (({"x": torch.tensor([[0.0, 1.0]])}, told), "x: other values"),
        (({"y": torch.tensor([0.0, 1.0])}, told), "x became y"),
        (({"x": torch.tensor([0.0, 1.0])}, told | {"a": "else"}), "its header"),
    ]:
        files.save(other, content)
        assert said in verify.difference(one, other)
