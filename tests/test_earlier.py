"""Models of an earlier run beside those of this one: what is taken, what is compared, what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lib import study
from lib.analysis import results
from lib.analysis.earlier import beside
from lib.grid import receipts
from tests.test_results import CLIPS, finish, leave

SHOWN = "resnet56/1/standard"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An earlier run of AlexNet and ResNet-18 on DWT, whose rows are kept, and one of ResNet-18 on STFT."""

    def sizes(build, dataset):
        found = sorted(study.Cell(build, dataset).folder.glob("*/*/*/*/"))
        each = sorted({folder.parts[-4] for folder in found})
        return pd.DataFrame([(name, 64, 128, 64, [1.0], [0.0]) for name in each], columns=results.SIZES)

    monkeypatch.setattr(results, "_sizes", sizes)
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / "then", "dwt", "alexnet", "standard")
    leave(tmp_path / "then", "dwt", "resnet18", "standard")
    rows = results.save(results.gather("then", "demo"), tmp_path / "rows")
    shutil.rmtree(tmp_path / "then")  # its rows are all that is left
    leave(tmp_path / "now", "stft", "resnet18", "standard")
    return rows


def models(frame):
    return sorted(set(frame[["representation", "model"]].itertuples(index=False, name=None)))


def test_models_of_both_runs_are_in_every_frame(runs):
    found = beside(results.gather("now", "demo"), runs, SHOWN)
    both = [("dwt", "alexnet"), ("dwt", "resnet18"), ("stft", "resnet18")]
    for name in ("attacks", "evaluated", "clean", "history", "cells"):
        assert models(getattr(found, name)) == both, name
    assert len(found.clean) == 3 * len(CLIPS)
    assert found.sizes["representation"].tolist() == ["stft", "dwt"]
    assert found.missing() == ["stft/alexnet/1/standard/04_attacks"]
    assert not found.remarks()


def test_a_model_of_this_run_takes_the_place_of_the_earlier_one(runs, tmp_path):
    cell = study.Cell(str(tmp_path / "now"), "demo", "dwt", "alexnet", "1", "standard")
    leave(tmp_path / "now", "dwt", "alexnet", "standard", attacked=False)
    cell.save("clean.parquet", cell.load("clean.parquet").assign(confidence=0.75))
    found = beside(results.gather("now", "demo"), runs, SHOWN)
    mine = found.clean.query("representation == 'dwt' and model == 'alexnet'")
    assert mine["confidence"].tolist() == [0.75] * len(CLIPS)
    kept = [("dwt", "resnet18"), ("stft", "resnet18")]  # not those on the old AlexNet
    assert models(found.attacks) == kept
    assert found.missing() == ["dwt/alexnet/1/standard/04_attacks", "stft/alexnet/1/standard/04_attacks"]


def test_the_result_is_kept_and_extended_again(runs, tmp_path):
    once = beside(results.gather("now", "demo"), runs, SHOWN)
    folder = results.save(once, tmp_path / "joined")
    leave(tmp_path / "later", "dwt", "vgg16", "standard")
    twice = beside(results.gather("later", "demo"), folder, SHOWN)
    assert len(models(twice.clean)) == 4
    assert not twice.remarks()


def test_a_cell_of_both_runs_is_listed_once(runs, tmp_path):
    images = study.Cell(str(tmp_path / "now"), "demo", "stft")
    finish(images, "02_features", together="stft")
    once = beside(results.gather("now", "demo"), runs, SHOWN)
    folder = results.save(once, tmp_path / "joined")
    leave(tmp_path / "now", "stft", "vgg16", "standard")
    twice = beside(results.gather("now", "demo"), folder, SHOWN)
    for frame in (twice.cells, twice.times):
        assert (frame["chapter"] == "02_features").sum() == 1
    assert len(twice.cells) == len(once.cells) + 2  # training and attacks of the new model


def test_earlier_cells_are_compared_with_the_code_of_today(runs, monkeypatch):
    monkeypatch.setattr(receipts.Changes, "__init__", lambda self: None)
    monkeypatch.setattr(
        receipts.Changes,
        "__call__",
        lambda self, receipt, chapter: [f"lib/of/{receipt['parameters']['model']}.py"],
    )
    found = beside(results.gather("now", "demo"), runs, SHOWN)
    assert found.stale().query("model == 'alexnet'")["changed"].unique().tolist() == ["lib/of/alexnet.py"]


def test_earlier_cells_of_other_settings_are_noted(runs, tmp_path):
    leave(tmp_path / "now", "stft", "resnet18", "standard", steps=9)
    said = beside(results.gather("now", "demo"), runs, SHOWN).remarks()
    (note,) = [each for each in said if each.startswith("04_attacks")]
    assert note.endswith("different settings: bim_steps = 9 in 1 cell, bim_steps = 5 in 2 cells")


def test_no_folder_of_a_machine_is_kept(runs):
    for text in pd.read_parquet(runs / "cells.parquet")["parameters"]:
        assert json.loads(text)["model"] in ("alexnet", "resnet18")
        assert not {*json.loads(text)} & {*results.FOLDERS}


def test_pictured_examples_are_those_of_the_run_that_comes_nearest(runs):
    found = results.gather("now", "demo")
    shown = beside(found, runs, "alexnet/1/standard").about
    assert {about["model"] for about in shown.values()} == {"alexnet"}
    assert [*beside(found, runs, "resnet18/1/standard").about] == ["stft"]


def test_examples_of_the_same_clip_and_model_on_other_representations_are_shown_too(runs, tmp_path):
    leave(tmp_path / "then", "dwt", "resnet18", "standard")
    rows = results.save(results.gather("then", "demo"), tmp_path / "more")
    found = beside(results.gather("now", "demo"), rows, "resnet18/1/standard")
    assert {*found.about} == {*found.examples} == {"stft", "dwt"}
    assert found.about["stft"] == found.about["dwt"]
    theirs = results.load(rows).examples["dwt"]
    np.testing.assert_array_equal(found.examples["dwt"]["BIM-a"], theirs["BIM-a"])


def test_what_is_left_of_a_damaged_model_is_not_mixed_with_the_earlier_one(runs, tmp_path):
    leave(tmp_path / "now", "dwt", "alexnet", "standard")
    cell = study.Cell(str(tmp_path / "now"), "demo", "dwt", "alexnet", "1", "standard")
    cell.path("clean.parquet").write_bytes(b"")
    found = beside(results.gather("now", "demo"), runs, SHOWN)
    assert not found.attacks.duplicated([*results.POINT, "attack", "clip"]).any()
    assert ("dwt", "alexnet") not in models(found.clean)
    assert "dwt/alexnet/1/standard/clean.parquet is missing or damaged" in found.remarks()[0]


@pytest.mark.parametrize("floor", [-100.0, -60.0])
def test_images_of_other_settings_are_noted(runs, tmp_path, floor):
    leave(tmp_path / "then", "dwt", "alexnet", "standard")
    finish(study.Cell(str(tmp_path / "then"), "demo", "dwt"), "02_features", floor=-100.0, together="dwt")
    results.save(results.gather("then", "demo"), runs)
    leave(tmp_path / "now", "dwt", "vgg16", "standard")
    finish(study.Cell(str(tmp_path / "now"), "demo", "dwt"), "02_features", floor=floor, together="dwt")
    found = beside(results.gather("now", "demo"), runs, SHOWN)
    said = "02_features was run with different settings: floor = -60.0 in 1 cell, floor = -100.0 in 1 cell"
    assert found.remarks() == [said] * (floor != -100.0)
    assert (found.cells["chapter"] == "02_features").sum() == len({floor, -100.0})


def test_a_difference_that_is_gone_is_said_no_more(runs, tmp_path):
    leave(tmp_path / "then", "dwt", "alexnet", "standard", steps=9)
    leave(tmp_path / "then", "dwt", "resnet18", "standard")
    then = results.gather("then", "demo")
    assert then.remarks()
    results.save(then, runs)
    leave(tmp_path / "now", "dwt", "alexnet", "standard")
    assert not beside(results.gather("now", "demo"), runs, SHOWN).remarks()


def at_other_size(model, bins):
    row = {"representation": "dwt", "model": model, "fold": "1", "training": "standard", "bins": bins}
    return row | {"frames": 2 * bins, "clip": "a", "source": "one recording", "correct": True, "norm": 0.5}


def test_other_sizes_are_those_of_models_that_stay(runs, tmp_path):
    before = [at_other_size(model, bins) for model in ("alexnet", "resnet18") for bins in (32, 128)]
    pd.DataFrame(before)[results.AT_SIZE].to_parquet(runs / "other_sizes.parquet")
    leave(tmp_path / "now", "dwt", "alexnet", "standard")
    mine = results.gather("now", "demo")
    mine.other_sizes.loc[0] = pd.Series(at_other_size("vgg16", 128))[results.AT_SIZE]
    found = beside(mine, runs, SHOWN).other_sizes
    assert sorted(zip(found["model"], found["bins"], strict=True)) == [
        ("resnet18", 32),
        ("resnet18", 128),
        ("vgg16", 128),
    ]


def test_examples_of_a_model_that_was_replaced_are_not_shown(runs, tmp_path):
    images = leave(tmp_path / "now", "dwt", "alexnet", "standard")
    found = beside(results.gather("now", "demo"), runs, "alexnet/1/standard")
    np.testing.assert_array_equal(found.examples["dwt"]["BIM-a"], images["BIM-a"][0, 0])


def test_frequencies_of_another_machine_may_differ_by_rounding(runs):
    change(runs, "sizes", representation="stft", frequencies=[[np.nextafter(1.0, 2.0)]])
    assert len(models(beside(results.gather("now", "demo"), runs, SHOWN).clean)) == 3


def test_rows_without_a_model_change_nothing(runs):
    for name in ("attacks", "evaluated", "clean", "history", "cells", "times"):
        frame = pd.read_parquet(runs / f"{name}.parquet")
        frame.iloc[:0].to_parquet(runs / f"{name}.parquet")
    assert models(beside(results.gather("now", "demo"), runs, SHOWN).clean) == [("stft", "resnet18")]


def change(folder, name, **columns):
    frame = pd.read_parquet(folder / f"{name}.parquet")
    frame.assign(**columns).to_parquet(folder / f"{name}.parquet")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (
            lambda rows: change(rows, "sizes", bins=32),
            "images are of 32 × 128 values, not of 64 × 128",
        ),
        (
            lambda rows: change(rows, "sizes", representation="stft", frequencies=[[2.0]]),
            "images of stft are of other frequencies or times",
        ),
        (
            lambda rows: change(rows, "clean", label=1),
            "fold 1 has other clips, or other recordings or labels of them, such as a",
        ),
        (lambda rows: change(rows, "clean", clip=["a", "c"] * 2), "fold 1 has other clips"),
        (lambda rows: change(rows, "clean", fold="1.2", label=1), "fold 1 has other clips"),
        (lambda rows: change(rows, "clean", fold="2", label=1), "clip a has another recording or label"),
        (
            lambda rows: (
                pd.read_parquet(rows / "cells.parquet")
                .drop(columns="sources")
                .to_parquet(rows / "cells.parquet")
            ),
            "its cells do not say their sources",
        ),
        (lambda rows: change(rows, "cells", parameters=None), "JSON object must be str"),
    ],
    ids=["size", "bands", "labels", "clips", "seed", "fold", "cells", "parameters"],
)
def test_rows_that_do_not_belong_into_one_table_are_refused(runs, damage, why):
    damage(runs)
    with pytest.raises(ValueError, match=f"^earlier: .*rows: .*{why}"):
        beside(results.gather("now", "demo"), runs, SHOWN)


def test_rows_of_another_data_set_are_refused(runs, tmp_path):
    leave(tmp_path / "now", "stft", "resnet18", "standard")
    (tmp_path / "now/demo").rename(tmp_path / "now/toys")
    with pytest.raises(ValueError, match=r"^earlier: .*rows: these are rows of demo, not of toys"):
        beside(results.gather("now", "toys"), runs, SHOWN)


def test_a_folder_without_rows_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match=r"^earlier: nowhere: .*nowhere/attacks\.parquet"):
        beside(results.gather("now", "demo"), "nowhere", SHOWN)
