"""Clean removes what make has built, and nothing else."""

import pytest

from lib.grid import clean
from lib.grid.__main__ import main


@pytest.fixture
def build(tmp_path):
    folder = tmp_path / "build"
    for name in (".inputs/esc10/04_attacks.yaml", "esc10/dwt/a.npy", "bench/a", "lab/01_data.ipynb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_all_that_make_has_built_goes(build):
    assert clean.clean(build) == []
    assert not build.exists()
    assert clean.clean(build) == []


def test_what_make_has_not_made_stays_and_is_named(build, capsys):
    (build / "job.log").touch()
    (build / "birds").mkdir()
    assert main(["clean", f"BUILD={build}"]) == 0
    assert sorted(path.name for path in build.iterdir()) == ["birds", "job.log"]
    assert "birds" in capsys.readouterr().out


def test_a_link_is_removed_and_not_what_it_leads_to(build, tmp_path):
    (tmp_path / "away/dwt").mkdir(parents=True)
    (tmp_path / "away/dwt/a.npy").touch()
    (build / ".inputs/esc50").mkdir()
    (build / "esc50").symlink_to(tmp_path / "away")
    (build / "esc10/linked").symlink_to(tmp_path / "away")
    assert clean.clean(build) == []
    assert (tmp_path / "away/dwt/a.npy").exists()


def test_a_folder_without_the_marks_of_make_is_refused(tmp_path, capsys):
    (tmp_path / "esc10").mkdir()
    assert main(["clean", f"BUILD={tmp_path}"]) == 1
    assert "make has built nothing in this folder" in capsys.readouterr().err
    assert (tmp_path / "esc10").exists()
