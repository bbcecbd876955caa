"""What a grid will take: counted from settings and finished cells, said when nothing is known."""

from pathlib import Path

import pytest

from lib import plan, study


@pytest.fixture
def planned(tmp_path, capsys):
    """Run ``make plan`` over cells of a build folder, with receipts of some of them."""

    def run(cells, receipts=(), params="params"):
        build = tmp_path / "build"
        for path, seconds in receipts:
            target = build / f"{path}.receipt.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            study.save(target, {"cpu_seconds": seconds, "peak_memory_mib": 2048.0})
        listed = tmp_path / "cells"
        listed.write_text(" ".join(f"{build}/{path}.ipynb" for path in cells))
        code = plan.main(["--build", str(build), "--params", str(params), "--cells", str(listed)])
        return code, capsys.readouterr()

    return run


def hours(text, chapter):
    return float(next(line for line in text.splitlines() if line.startswith(chapter)).split()[3])


def test_hours_scale_with_images_and_network(planned):
    """ESC-50 has five times the clips of the demo; the rest of the work is in its settings."""
    seen = "demo/dwt/resnet18/1/standard/03_training"
    same = planned([seen], [(seen, 3600.0)])[1].out
    assert hours(same, "03_training") == 1.0
    planner = plan.Planner(Path("params"), Path("build"))
    small = study.Cell("build", "demo", "dwt", "resnet18", "1", "standard")
    large = small.at(dataset="esc50")
    told = planned(["esc50/dwt/resnet18/1/standard/03_training"], [(seen, 3.6)])[1].out
    ratio = planner.work(large, "03_training") / planner.work(small, "03_training")
    assert hours(told, "03_training") == pytest.approx(ratio / 1000, rel=0.01)
    values = 768 * 1568 / (64 * 128)
    passes = 60 * 5 * 2000 / (3 * 0.65 * 400)
    assert ratio == pytest.approx(values * passes, rel=0.1)


@pytest.mark.parametrize(("training", "least", "most"), [("adversarial", 1.6, 1.7), ("pgd", 5, 6)])
def test_a_defence_costs_its_passes(training, least, most):
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
    assert "?   no receipt" in told.out


def test_images_and_victims_take_disk(planned):
    _, told = planned(["esc50/01_data", "esc50/dwt/vgg16/1/standard/03_training"])
    line = next(line for line in told.out.splitlines() if line.startswith("disk"))
    images, victims = (float(word) for word in line.split() if word.replace(".", "").isdigit())
    assert images == pytest.approx(2000 * 5 * (2 * 768 + 6) * 1568 / 1e9, abs=0.1)
    assert victims == pytest.approx(134.3e6 * 4 / 1e9, abs=0.1)


def test_an_own_data_set_that_was_not_listened_to_is_said(planned, tmp_path):
    code, told = planned(["birds/01_data"], params=tmp_path)
    assert code == 1
    assert "birds: its clips are not counted yet: 'make data DATASETS=birds'" in told.err
