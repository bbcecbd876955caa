"""What is gathered from a grid's folders: finished cells, whatever part of the grid they are."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from lib import study
from lib.analysis import results

CLIPS = ["a", "b"]


def finish(cell: study.Cell, chapter: str, **parameters):
    """The notebook and the receipt of a cell that has ended."""
    receipt = {"commit": "c", "dirty": False, "device": "cpu", "data": "", "sources": {}}
    times = dict.fromkeys(results.TIMES, 1.0)
    cell.save(f"{chapter}.receipt.json", receipt | times | {"parameters": parameters})
    cell.path(f"{chapter}.ipynb").write_text("{}")


def leave(
    build,
    representation: str,
    model: str,
    training: str,
    *,
    done: bool = True,
    attacked: bool = True,
    steps: int = 5,
    ddn: int = 100,
    protocol: str = "official",
):
    """The files of one victim as chapters 3 to 5 leave them."""
    cell = study.Cell(str(build), "demo", representation, model, "1", training)
    chapter = "03_training" if training == "standard" else "05_adversarial_training"
    cell.save(
        "clean.parquet",
        pd.DataFrame({"clip": CLIPS, "label": [0, 1], "predicted": [0, 0], "confidence": 0.5}),
    )
    cell.save("history.csv", pd.DataFrame({"epoch": [1]}))
    sources = pd.DataFrame({"clip": CLIPS, "source": ["one recording", "one recording"]})
    cell.up(1).save("clips.parquet", sources)
    rows = {
        "clip": ["a"],
        "attack": "BIM-a",
        "label": 0,
        "after": 1,
        "fooled": True,
        "l2": 0.1,
        "seconds": 2.0,
    }
    rows |= dict.fromkeys(set(results.NEEDED["attacks"]) - {*rows, *results.POINT}, 0)
    images = {name: torch.rand(2, 1, 4, 5) for name in ("original", "BIM-a")}
    ended = [chapter] + ["04_attacks"] * done * attacked
    if attacked:
        cell.save("attacks.parquet", pd.DataFrame(rows))
        cell.save("evaluated.csv", pd.DataFrame({"clip": CLIPS}))
        about = {"clips": json.dumps(["b", "a"]), "names": json.dumps(["dog", "cat"])}
        cell.save("examples.safetensors", (images, about))
    for name in ended:
        more = {"protocol": protocol} if name == chapter else {}
        finish(cell, name, build="b", model=model, bim_steps=steps, ddn_steps=ddn, **more)
    return images


def test_rows_know_their_point_and_keep_seconds_apart(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard")
    leave(tmp_path, "dwt", "alexnet", "adversarial")
    found = results.gather(str(tmp_path), "demo")
    assert set(found.clean["training"]) == {"standard", "adversarial"}
    assert len(found.clean) == 4
    assert found.folds == ["1"]
    assert "seconds" not in found.attacks
    assert found.times.loc[found.times["attack"] == "BIM-a", "seconds"].tolist() == [2.0, 2.0]
    assert not set(results.TIMES) & set(found.cells)


def test_a_cell_that_still_runs_is_not_read_and_is_missing(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard")
    leave(tmp_path, "dwt", "resnet18", "standard", done=False)
    found = results.gather(str(tmp_path), "demo")
    assert set(found.attacks["model"]) == {"alexnet"}
    assert set(found.clean["model"]) == {"alexnet", "resnet18"}
    assert found.missing() == ["dwt/resnet18/1/standard/04_attacks"]


def test_a_grid_without_attacks_is_gathered_too(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard", attacked=False)
    found = results.gather(str(tmp_path), "demo")
    assert found.attacks.empty
    assert list(found.attacks) == results.ATTACKED
    assert found.examples == {}


def test_examples_are_of_the_wanted_victim_or_of_the_nearest(tmp_path):
    images = leave(tmp_path, "dwt", "alexnet", "standard")
    leave(tmp_path, "dwt", "alexnet", "adversarial")
    found = results.gather(str(tmp_path), "demo", "resnet56/1/standard")
    assert found.about["dwt"] == {
        "clip": "b",
        "name": "dog",
        "model": "alexnet",
        "fold": "1",
        "training": "standard",
    }
    np.testing.assert_array_equal(found.examples["dwt"]["BIM-a"], images["BIM-a"][0, 0])
    for representation in ("stft", "dwt"):
        leave(tmp_path, representation, "resnet18", "standard")
    found = results.gather(str(tmp_path), "demo", "resnet56/1/standard")
    assert {about["model"] for about in found.about.values()} == {"resnet18"}
    assert sorted(found.examples) == ["dwt", "stft"]


def test_what_is_kept_is_read_back(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard")
    found = results.gather(str(tmp_path), "demo")
    again = results.load(results.save(found, tmp_path / "rows"))
    for name in results.FRAMES:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name))
    assert again.dataset == "demo"
    assert again.about == found.about


def test_clips_know_their_recording_and_which_were_evaluated(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard")
    found = results.gather(str(tmp_path), "demo")
    assert found.clean["source"].tolist() == ["one recording"] * 2
    assert found.evaluated["clip"].tolist() == CLIPS  # b was misclassified, and was evaluated as well


def test_a_mix_of_settings_and_of_attacks_is_noted(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard")
    assert not results.gather(str(tmp_path), "demo").remarks()
    leave(tmp_path, "dwt", "resnet18", "standard", steps=9)
    (note,) = [n for n in results.gather(str(tmp_path), "demo").remarks() if "04_attacks" in n]
    assert (
        note == "04_attacks was run with different settings: bim_steps = 5 in 1 cell, bim_steps = 9 in 1 cell"
    )
    rows = study.Cell(str(tmp_path), "demo", "dwt", "alexnet", "1", "standard").path("attacks.parquet")
    pd.read_parquet(rows).assign(attack="CWA").to_parquet(rows)
    said = results.gather(str(tmp_path), "demo").remarks()
    assert "not all models met the same attacks: CWA on 1 models; BIM-a on 1 models" in said


def test_a_setting_that_only_some_cells_have_is_noted_too(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard")
    leave(tmp_path, "dwt", "resnet18", "standard")
    cell = study.Cell(str(tmp_path), "demo", "dwt", "alexnet", "1", "standard")
    receipt = cell.load("04_attacks.receipt.json")
    receipt["parameters"]["brackets"] = False
    cell.save("04_attacks.receipt.json", receipt)
    (note,) = results.gather(str(tmp_path), "demo").remarks()
    assert note.endswith("different settings: brackets = False in 1 cell, brackets not set in 1 cell")


def test_attacks_on_models_whose_tested_images_include_copies_are_called_wrong(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard", protocol="paper")
    (note,) = results.gather(str(tmp_path), "demo").remarks()
    assert note.startswith("protocol = 'paper' in 1 cell of trainings")
    leave(tmp_path / "more", "dwt", "alexnet", "standard", protocol="paper", attacked=False)
    assert not results.gather(str(tmp_path / "more"), "demo").remarks()


@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
@pytest.mark.parametrize("file", ["attacks.parquet", "clean.parquet", "history.csv", "evaluated.csv"])
def test_a_file_that_is_missing_or_damaged_is_named(tmp_path, file, damage):
    for model in ("alexnet", "resnet18"):
        leave(tmp_path, "dwt", model, "standard")
    path = study.Cell(str(tmp_path), "demo", "dwt", "alexnet", "1", "standard").path(file)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 10 if damage == "cut" and file.endswith("parquet") else 0])
    found = results.gather(str(tmp_path), "demo")
    (note,) = [n for n in found.notes["note"] if file in n]
    assert f"demo/dwt/alexnet/1/standard/{file} is missing or damaged, so its rows are left out" in note
    assert set(found.clean["model"]) >= {"resnet18"}


def test_damaged_examples_are_named_and_not_shown(tmp_path):
    for representation in ("dwt", "stft"):
        leave(tmp_path, representation, "alexnet", "standard")
    path = study.Cell(str(tmp_path), "demo", "dwt", "alexnet", "1", "standard").path("examples.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    found = results.gather(str(tmp_path), "demo")
    assert list(found.examples) == list(found.about) == ["stft"]
    (note,) = found.notes["note"]
    assert "demo/dwt/alexnet/1/standard/examples.safetensors is damaged, so it is not shown" in note


def test_rows_of_an_older_version_are_read_and_what_they_lack_is_noted(tmp_path):
    leave(tmp_path, "dwt", "alexnet", "standard")
    leave(tmp_path, "dwt", "resnet18", "standard")
    found = results.gather(str(tmp_path), "demo")
    folder = results.save(found, tmp_path / "rows")
    for name in ("evaluated", "notes"):
        (folder / f"{name}.parquet").unlink()
    found.clean.drop(columns="source").to_parquet(folder / "clean.parquet")
    again = results.load(folder)
    assert set(again.notes["note"]) == set(results.ADDED.values())
    assert again.clean["source"].tolist() == again.clean["clip"].tolist()
    assert set(again.evaluated["clip"]) == {"a"}  # those that some model classified correctly


@pytest.mark.parametrize("name", sorted({*results.FRAMES} - {"leaks"}))
def test_rows_with_other_columns_are_named_and_so_is_what_they_lack(tmp_path, name):
    leave(tmp_path, "dwt", "alexnet", "standard")
    folder = results.save(results.gather(str(tmp_path), "demo"), tmp_path / "rows")
    pd.read_parquet(folder / f"{name}.parquet").add_suffix("_x").to_parquet(folder / f"{name}.parquet")
    lacks = ", ".join(results.NEEDED[name])
    with pytest.raises(ValueError, match=rf"rows/{name}\.parquet is not a table .* no column {lacks}$"):
        results.load(folder)


@pytest.fixture
def sized(tmp_path, monkeypatch):
    """Grids of one victim in folders that are named by the height of their images, attacked by DDN."""

    def sizes(build, dataset):
        bins = int(build.rpartition("/")[2])
        return pd.DataFrame([("dwt", bins, 2 * bins, bins, [], [])], columns=results.SIZES)

    def grid(bins, attack="DDN", **how):
        leave(tmp_path / str(bins), "dwt", "alexnet", "standard", **how)
        cell = study.Cell(str(tmp_path / str(bins)), "demo", "dwt", "alexnet", "1", "standard")
        cell.save("attacks.parquet", cell.load("attacks.parquet").assign(attack=attack, l2=bins / 100))
        return f"{bins}/demo"

    monkeypatch.setattr(results, "_sizes", sizes)
    monkeypatch.chdir(tmp_path)
    grid(64)
    return grid


def test_grids_of_other_sizes_are_gathered_and_kept(sized, tmp_path):
    found = results.gather("64", "demo", other_sizes=[sized(128), sized(256, steps=9, ddn=9)])
    rows = found.other_sizes
    assert rows["bins"].tolist() == [128, 128, 256, 256]
    assert rows["clip"].tolist() == CLIPS * 2
    assert rows["norm"].dropna().tolist() == [1.28, 2.56]
    assert rows["correct"].tolist() == [True, False] * 2
    (note,) = [n for n in found.notes["note"] if "04_attacks" in n]  # of the attack that is compared alone
    assert note.endswith("ddn_steps = 100 in 2 cells, ddn_steps = 9 in 1 cell")
    again = results.load(results.save(found, tmp_path / "rows"))
    pd.testing.assert_frame_equal(again.other_sizes, rows)
    (tmp_path / "rows/other_sizes.parquet").unlink()
    assert results.load(tmp_path / "rows").other_sizes.empty


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("32/demo", "holds no finished grid .*no victim is there yet"),
        ("128/esc10", "must be a relative folder BUILD/demo"),
        ("/tmp/128/demo", "must be a relative folder BUILD/demo"),
        ("64/demo", "images of 8192 values, a size that is there already"),
        ("256/demo", "no model of 256/demo was attacked by DDN"),
    ],
)
def test_a_folder_that_is_no_grid_of_another_size_is_refused(sized, folder, why):
    sized(256, attack="BIM-a")
    with pytest.raises(ValueError, match=f"^other_sizes: .*{why}"):
        results.gather("64", "demo", other_sizes=[folder])


def test_an_empty_grid_is_refused_with_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="demo: no victim is there yet"):
        results.gather(str(tmp_path), "demo")
