"""Running finished cells again: what is the same, what differs, and nothing that was there is touched."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lib import files
from lib.grid import receipts, verify
from lib.grid.words import Refused


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


def test_a_cell_is_run_again_with_its_numbers_and_among_what_was_there(tiny, monkeypatch, tmp_path):
    """Chapter 6 writes which files of others it sees; one of its parameters is 1e-05, as JSON has it."""
    monkeypatch.chdir(tiny.folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    build, target = Path("build"), Path("build/tiny/06_analysis.ipynb")
    source, others = Path("notebooks/06_analysis.py"), 'Path(build).rglob("0[47]_*")'
    seen = f'"seen": sorted(path.name for path in {others})'
    source.write_text(source.read_text().replace('"pid": os.getpid()', seen))
    tiny.settings("06_analysis", seconds="1.0e-05")
    command = [sys.executable, "-m", "lib.grid.execute", source, target]
    command += ["-f", "params/tiny/06_analysis.yaml", "-p", "build", "build"]
    subprocess.run(command, check=True)
    assert receipts.receipt(target)["parameters"]["seconds"] == 1e-05
    attacked, beyond = build / "tiny/stft/alexnet/1/standard/04_attacks.ipynb", build / "tiny/07_beyond.ipynb"
    for path in (attacked, beyond):
        receipt = {name: {} for name in receipts.NEEDED}
        receipt["files"] = {str(path.with_suffix(".png").relative_to(build)): {}}
        files.save(path.with_suffix(receipts.ENDING), receipt)
        for ending in (".ipynb", ".png"):
            path.with_suffix(ending).touch()
    meanwhile = target.stat().st_mtime - 0.1
    os.utime(beyond, (meanwhile, meanwhile))
    assert verify.compare(target, build) == (1, [])
    for path in (attacked, beyond):
        os.utime(path, (1, 1))  # before chapter 6 began, which would have seen them
    shadow = tmp_path / "shadow"
    (wrote,) = verify.again(target, build, shadow)
    names = [
        path.stem + ending for path in (attacked, beyond) for ending in (".ipynb", ".png", receipts.ENDING)
    ]
    assert files.load(shadow / wrote)["seen"] == names


def test_a_cell_that_cannot_be_compared_is_named_and_stops_no_other(tmp_path):
    target = tmp_path / "tiny/01_data.ipynb"
    files.save(target.with_suffix(receipts.ENDING), {})
    assert verify.compare(target, tmp_path) == (0, [f"{target.with_suffix(receipts.ENDING)} is damaged"])


def test_make_passes_the_share_on_and_a_bad_one_is_refused(tiny):
    assert re.search(
        r"lib\.grid verify .* SHARE='0\.5'$", tiny.make("-n", "verify", "SHARE=0.5").stdout, re.M
    )
    done = tiny.make("verify")
    assert "build has no finished cell" in done.stderr, "a share that is not given is the usual one"
    for share in ("all", "0", "1.5", "-1", "nan"):
        with pytest.raises(Refused, match=f"SHARE='{share}': a number above 0 is needed, of 1 at the most"):
            verify.make_verify({"BUILD": "build", "SHARE": share})


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


@pytest.mark.parametrize(
    ("value", "said"), [(2.0, ""), (2.5, "heights: [1.0, 2.5, nan] became [1.0, 2.0, nan]")]
)
def test_columns_of_lists_are_compared(tmp_path, value, said):
    for name, second in (("one", value), ("other", 2.0)):
        heights = [np.array([1.0, second, np.nan]), np.array([], dtype=float)]
        files.save(tmp_path / f"{name}.parquet", pd.DataFrame({"name": ["a", "b"], "heights": heights}))
    found = verify.difference(tmp_path / "one.parquet", tmp_path / "other.parquet")
    assert found == (said and f"{said}, and 0 values more")


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
