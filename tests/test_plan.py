"""What a grid will take: counted from settings and finished cells, said when nothing is known."""

import re
from pathlib import Path

import pytest

from lib import files, study
from lib.grid import plan


@pytest.fixture
def planned(tmp_path, capsys):
    """Run ``make plan`` over cells of a build folder, with receipts of some of them."""

    def run(cells, receipts=(), params="params"):
        build = tmp_path / "build"
        for path, seconds, *more in receipts:
            told = {"parameters": {}, "device": "cpu", "cpu_seconds": seconds, "peak_memory_mib": 2048.0}
            files.save(build / f"{path}.receipt.json", told | dict(*more))
        listed = tmp_path / "cells"
        listed.write_text(" ".join(f"{build}/{path}.ipynb" for path in cells))
        code = plan.main(["--build", str(build), "--params", str(params), "--cells", str(listed)])
        return code, capsys.readouterr()

    return run


def hours(text, chapter):
    return float(next(line for line in text.splitlines() if line.startswith(chapter)).split()[3])


SEEN = "demo/dwt/resnet18/1/standard/03_training"
START = ("demo/01_data", 5.0)  # CPU seconds of a cell that does next to nothing
POINT = study.Cell("build", "demo", "dwt", "resnet18", "1", "standard")


def test_hours_scale_with_images_and_network(planned):
    """What every cell takes before it begins does not scale, the rest does."""
    same = planned([SEEN], [(SEEN, 3600.0 + 5.0), START])[1].out
    assert hours(same, "03_training") == pytest.approx(1.0, abs=0.01)
    assert "1 receipts of cpu, which took 1.0 to 1.0 of what" in same
    planner = plan.Planner(Path("params"), Path("build"))
    large = POINT.at(dataset="esc50")
    told = planned(["esc50/dwt/resnet18/1/standard/03_training"], [(SEEN, 3.6 + 5.0), START])[1].out
    ratio = planner.work(large, "03_training") / planner.work(POINT, "03_training")
    assert hours(told, "03_training") == pytest.approx(ratio / 1000 + 5 / 3600, rel=0.01)
    demo, paper = (planner.settings(name, "03_training") for name in ("demo", "esc50"))
    values = 768 * 1568 / (64 * 128)
    passes = paper["epochs"] * 5 * 2000 / (demo["epochs"] * demo["share"] * 400)
    # In a batch of small images, going through the weights costs as much again as the images do.
    assert 0.4 * values * passes < ratio < values * passes


def test_a_cell_that_had_other_settings_is_scaled_from_those(planned):
    told = {"parameters": {"epochs": 1, "batch": 12, "share": 0.65}}
    epochs = plan.Planner(Path("params"), Path("build")).settings("demo", "03_training")["epochs"]
    seen = planned([SEEN], [(SEEN, 360.0 + 5.0, told), START])[1].out
    assert hours(seen, "03_training") == pytest.approx(0.1 * epochs, rel=0.05)


def test_seconds_of_a_gpu_are_of_the_clock(planned):
    told = {"device": "NVIDIA H100", "seconds": 720.0}
    seen = planned([SEEN], [(SEEN, 9999.0, told), START])[1].out
    assert hours(seen, "03_training") == pytest.approx(0.2, abs=0.01)
    assert "1 receipts of NVIDIA H100" in seen


def test_the_images_of_a_data_set_are_made_once(planned):
    """By whichever representation comes first; the others take next to nothing."""
    both = ["demo/stft/02_features", "demo/dwt/02_features"]
    seen = [(both[0], 7200.0 + 5.0), (both[1], 5.0), START]
    assert hours(planned(both, seen)[1].out, "02_features") == pytest.approx(2.0, rel=0.1)
    assert hours(planned(both[:1], seen)[1].out, "02_features") == pytest.approx(2.0, rel=0.1)


def test_the_longest_chain_goes_from_the_sounds_to_the_analysis():
    hours = {
        (POINT.up(1), "01_data"): 1.0,
        (POINT.up(2), "02_features"): 2.0,
        (POINT, "03_training"): 4.0,
        (POINT, "04_attacks"): 50.0,
        (POINT.at(training="adversarial"), "05_adversarial_training"): 8.0,
        (POINT.at(training="adversarial"), "04_attacks"): 16.0,
        (POINT.up(1), "06_analysis"): 32.0,
    }
    assert plan.chain(hours) == 1 + 2 + 4 + 50 + 32
    hours[POINT.at(training="adversarial"), "04_attacks"] = 64.0
    assert plan.chain(hours) == 1 + 2 + 4 + 8 + 64 + 32


def test_memory_grows_with_image_and_batch_and_attacks_are_held_to_theirs():
    planner = plan.Planner(Path("params"), Path("build"))
    large = POINT.at(dataset="esc50", model="resnet56")
    small = planner.memory(POINT.at(model="resnet56"), "03_training")
    assert 1 < small < 4
    settings = planner.settings("esc50", "03_training")
    # Without pooling: 55 layers, batch norm and all, of 16 channels or their like, in float32.
    least = settings["batch"] * 55 * 16 * 768 * 1568 / 2 * 4 / 2**30
    assert planner.memory(large, "03_training") > least
    assert planner.memory(large, "04_attacks") < 2 + planner.settings("esc50", "04_attacks")["memory"]


@pytest.mark.parametrize(("training", "least", "most"), [("adversarial", 2.1, 2.2), ("pgd", 6.1, 6.2)])
def test_a_defence_costs_its_passes(training, least, most):
    """Three a clean image, five an attacked one, and PGD on a fifth of the clips after each epoch."""
    planner = plan.Planner(Path("params"), Path("build"))
    plain = study.Cell("build", "esc50", "dwt", "alexnet", "1", "standard")
    one, other = (
        planner.work(cell, chapter)
        for cell, chapter in (
            (plain, "03_training"),
            (plain.at(training=training), "05_adversarial_training"),
        )
    )
    assert least < other / one < most


def test_what_was_never_run_is_not_guessed(planned):
    code, told = planned(["esc50/dwt/resnet18/1/standard/04_attacks"])
    assert code == 0
    assert re.search(r"\? +[0-9.]+   no receipt", told.out)


def test_images_and_victims_take_disk(planned):
    cells = [f"esc50/dwt/vgg16/1/standard/{chapter}" for chapter in ("03_training", "04_attacks")]
    _, told = planned(["esc50/01_data", *cells])
    line = next(line for line in told.out.splitlines() if line.startswith("disk"))
    images, victims, examples = (float(word) for word in line.split() if word.replace(".", "").isdigit())
    assert images == pytest.approx(2000 * 5 * (2 * 768 + 6) * 1568 / 1e9, abs=0.1)
    assert examples == pytest.approx(7 * 768 * 1568 * 4 / 1e9, abs=0.1)
    assert victims == pytest.approx(134.3e6 * 4 / 1e9, abs=0.1)


def test_an_own_data_set_that_was_not_listened_to_is_said(planned, tmp_path):
    code, told = planned(["birds/01_data"], params=tmp_path)
    assert code == 1
    assert "birds: its clips are not counted yet: 'make data DATASETS=birds'" in told.err
