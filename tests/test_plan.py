"""What a grid will take: counted from settings and finished cells, and said when nothing is known."""

import ast
import dataclasses
import functools
import io
import math
import re
from pathlib import Path

import foolbox
import pandas as pd
import pytest
import torch

from lib import attacks, device, files, models, study
from lib.grid import plan, receipts
from lib.grid.__main__ import main

TRAINING, ATTACKING = "demo/dwt/resnet18/1/standard/03_training", "demo/dwt/resnet18/1/standard/04_attacks"
POINT = study.Cell("build", "demo", "dwt", "resnet18", "1", "standard")
GRID = ["REPRESENTATIONS=dwt", "MODELS=resnet18", "FOLDS=1", "TRAININGS=standard"]


@pytest.fixture
def planned(tmp_path, capsys, monkeypatch):
    """Run ``make plan`` over a grid, with receipts of some cells; what make would run is read from a text."""

    def run(dataset, finished=(), waiting=(), params="params", **more):
        build = tmp_path / "build"
        for path, seconds, *others in finished:
            receipt = dict.fromkeys(receipts.NEEDED, "") | {"parameters": {}, "files": {}, "device": "cpu"}
            receipt |= {"cpu_seconds": seconds, "peak_memory_mib": 2048.0}
            files.save(build / f"{path}.receipt.json", receipt | dict(*others))
            (build / f"{path}.ipynb").touch()
        said = [
            f"x -m lib.grid.execute notebooks/a.py {build}/{path}.ipynb \\\n --timeout" for path in waiting
        ]
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(said)))
        grid = {"BUILD": str(build), "DATA": str(tmp_path), "PARAMS": str(params), "DATASETS": dataset}
        code = main(["plan", *(f"{name}={value}" for name, value in (grid | more).items()), *GRID])
        return code, capsys.readouterr()

    return run


def line(text, chapter):
    """Of a chapter: cells, to do, and hours at the most on a CPU and on a GPU; a sum of some is only that."""
    found = next(line for line in text.splitlines() if line.startswith(chapter)).removeprefix(chapter)
    words = found.replace("> ", "").split()
    chosen = [*words[:2], *words[3:7:2]]
    return [float(word.replace(",", "")) if word != "?" else None for word in chosen]


def test_hours_scale_with_what_is_computed(planned):
    assert line(planned("demo", [(TRAINING, 3600.0)])[1].out, "03_training") == [
        1,
        0,
        1.0,
        pytest.approx(0, abs=0.1),
    ]
    planner = plan.Planner(Path("params"))
    large = POINT.at(dataset="esc50")
    ratio = planner.work((large, "03_training")) / planner.work((POINT, "03_training"))
    assert line(planned("esc50", [(TRAINING, 3.6)])[1].out, "03_training")[2] == pytest.approx(
        ratio / 1000, rel=0.02
    )
    demo, paper = (planner.settings(name, "03_training") for name in ("demo", "esc50"))
    epochs = paper["epochs"] * 5 * 2000 / (demo["epochs"] * demo["share"] * 400)
    assert ratio == pytest.approx(768 * 1568 / (64 * 128) * epochs, rel=0.05)


def test_a_cell_that_had_other_settings_is_scaled_from_those(planned):
    epochs = plan.Planner(Path("params")).settings("demo", "03_training")["epochs"]
    seen = planned("demo", [(TRAINING, 360.0, {"parameters": {"epochs": 1}})])[1].out
    assert line(seen, "03_training")[2] == pytest.approx(0.1 * epochs, rel=0.05)


def test_seconds_of_a_gpu_are_of_the_clock_and_told_apart_from_the_cpu_s(planned):
    more = {"device": "NVIDIA H100", "seconds": 36000.0}
    seen = planned("demo", [(TRAINING, 9999.0, more)])[1].out
    assert line(seen, "03_training") == [1, 0, None, 10.0]
    assert "1 on a GPU, up to 2.0 GiB" in seen


def test_without_finished_cells_there_are_operations_and_the_table_s_rates(planned):
    code, said = planned("esc50")
    assert code == 0
    planner = plan.Planner(Path("params"))
    images = (
        planner.passes((POINT.at(dataset="esc50"), "03_training"), planner.settings("esc50", "03_training"))
        / 3
    )
    assert line(said.out, "03_training")[2:] == [None, pytest.approx(images / 395 / 3600, rel=0.02)]
    assert "operations of networks" in said.out
    assert line(said.out, "01_data")[2:] == [None, None]


def test_a_size_between_those_of_the_table_is_taken_in_proportion():
    planner = plan.Planner(Path("params"))
    planner.known["demo", "02_features"] = planner.settings("demo", "02_features") | {
        "bins": 128,
        "frames": 128,
    }
    twice = planner.on_card((POINT, "03_training"))
    planner.known["demo", "02_features"] |= {"bins": 64}
    assert twice == pytest.approx(2 * planner.on_card((POINT, "03_training")))


def test_the_share_of_an_attack_is_that_of_the_most_settings_that_are_all_given(monkeypatch):
    shares = {"": 0.5, "pia_patience = 500": 0.2, "pia_patience = 500; pia_samples = 10": 0.1}
    monkeypatch.setattr(plan, "_shares", lambda: {"PIA": shares})
    share = functools.partial(plan.Planner(Path("params")).share, "esc50", "PIA")
    assert share({"pia_patience": 0, "pia_samples": 10}) == 0.5
    assert share({"pia_patience": 500, "pia_samples": 50}) == 0.2
    assert share({"pia_patience": 500, "pia_samples": 10}) == 0.1


@pytest.mark.parametrize("model", models.known())
@pytest.mark.parametrize("rows", [64, 768])
@pytest.mark.parametrize("precision", ["auto", "tf32", "bfloat16"])
def test_a_training_is_planned_at_the_rate_of_the_precision_that_a_card_chooses(
    model, rows, precision, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    size = (rows, {64: 128, 768: 1568}[rows])
    pays = models.create(model, 10, size).bfloat16_pays
    chosen = device.resolve(precision, torch.device("cuda", 0), values=math.prod(size), bfloat16=pays)
    planner, point = plan.Planner(Path("params")), (POINT.at(dataset="esc50", model=model), "03_training")
    planner.known["esc50", "02_features"] = planner.settings("esc50", "02_features") | {
        "bins": size[0],
        "frames": size[1],
    }
    planner.known["esc50", "03_training"] = planner.settings("esc50", "03_training") | {
        "precision": precision
    }
    table = pd.read_csv("lib/grid/h100.csv").set_index(["model", "rows"]).loc[(model, rows)]
    rate = table["trained_in_bfloat16_per_s" if chosen == "bfloat16" else "trained_per_s"]
    images = planner.passes(point, planner.settings("esc50", "03_training")) / plan.GRADIENT
    assert planner.on_card(point) == pytest.approx(images / rate)


def test_what_make_would_run_is_to_do(planned):
    seen = planned("demo", [(TRAINING, 3600.0)], waiting=[TRAINING, ATTACKING])[1].out
    assert line(seen, "03_training")[:2] == [1, 1]
    assert line(seen, "to do")[:3] == [2, 2, 1.0]
    assert line(planned("demo")[1].out, "to do")[:2] == [0, 0]


def test_a_sum_that_lacks_cells_of_unknown_hours_is_marked(planned):
    said = planned("demo", [(TRAINING, 3600.0)], waiting=[TRAINING, ATTACKING])[1].out
    cpu = {name: re.search(rf"^{name} .*", said, re.MULTILINE)[0][38:58] for name in ("in all", "to do")}
    assert cpu == dict.fromkeys(cpu, f"{'> 1.0':>10}" * 2)
    assert "at once: > 1.0 CPU hours (> 1.0 at most)" in said
    assert ">" not in re.search(r"^03_training .*", said, re.MULTILINE)[0]
    whole = planned("demo", [(TRAINING, 3600.0)], waiting=[TRAINING])[1].out
    assert re.search(r"^to do .*", whole, re.MULTILINE)[0][38:58] == f"{'1.0':>10}" * 2


def test_the_cells_of_a_build_inside_the_build_are_not_counted(planned):
    code, said = planned("demo", [(TRAINING, 3600.0), (f"more/{TRAINING}", 7200.0)])
    assert code == 0, said.err
    assert line(said.out, "03_training")[2] == 1.0
    assert "1 on a CPU, up to 2.0 GiB" in said.out


def test_the_images_of_a_data_set_are_made_once():
    """By whichever representation comes first; the others take next to nothing."""
    both = [(POINT.up(2), "02_features"), (POINT.up(2).at(representation="stft"), "02_features")]
    one, two = plan.Planner(Path("params"), both[:1]), plan.Planner(Path("params"), both)
    assert one.work(both[0]) == pytest.approx(two.work(both[0]) + two.work(both[1]))


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


@pytest.mark.parametrize(("training", "least", "most"), [("adversarial", 2.1, 2.2), ("pgd", 6.1, 6.2)])
def test_a_defence_costs_its_passes(training, least, most):
    """Three per clean image, five per attacked one, and PGD on a fifth of the clips after each epoch."""
    planner = plan.Planner(Path("params"))
    plain = study.Cell("build", "esc50", "dwt", "alexnet", "1", "standard")
    one = planner.work((plain, "03_training"))
    other = planner.work((plain.at(training=training), "05_adversarial_training"))
    assert least < other / one < most


def test_images_and_models_take_disk(planned):
    said = planned("esc50", MODELS="vgg16")[1].out
    assert f"{2000 * 5 * (2 * 768 + 6) * 1568 / 1e9:.1f} GB of images" in said


def test_a_data_set_of_one_s_own_that_was_not_listened_to_is_named(planned, tmp_path):
    (tmp_path / "params/birds").mkdir(parents=True)
    code, told = planned("birds", params=tmp_path / "params")
    assert code == 1
    assert "the clips of birds are not counted yet; 'make data DATASETS=birds' counts them" in told.err


class Stubborn(torch.nn.Module):
    """Says class 0 whatever it sees, and class 1 to ``start`` alone; yet its answer has a gradient."""

    def __init__(self, start):
        super().__init__()
        self.start = start
        slopes = torch.randn(10, start.numel(), generator=torch.Generator().manual_seed(0))
        self.slopes = torch.nn.Parameter(slopes)

    def forward(self, x):
        logits = x.flatten(1) @ self.slopes.T
        same = (x == self.start).flatten(1).all(1)
        return logits + torch.nn.functional.one_hot(same.long(), 10) * 1000


def test_a_clip_that_nothing_fools_takes_as_many_passes_as_are_counted():
    size, few = (8, 12), {"jsma_steps": 20, "deepfool_caps": [10, 20]}
    few |= {"cwa_steps": [20, 30], "cwa_cs": [1.0, 2.0]}
    few |= {"bim_steps": 30, "bim_rungs": 2, "bim_bisections": 0, "cwa_search": 0, "ddn_steps": 20}
    ladders = plan.ladders(few | {"pia_steps": 4}, size)
    rungs = [dataclasses.replace(rung.attack, abort=False) for rung in ladders["CWA"].rungs]
    ladders["CWA"] = attacks.Ladder([attacks.Rung(attack, attack.c) for attack in rungs], "target")
    x, start = torch.rand(2, 1, 1, *size, generator=torch.Generator().manual_seed(1))
    victim = foolbox.PyTorchModel(Stubborn(start).eval(), bounds=(0, 1), device="cpu")
    label = torch.tensor([0])
    rows, _ = attacks.climb(victim, x, label, label + 1, ["clip"], ladders, starts=start)
    for name, taken in plan.passed(rows).set_index("attack")["passes"].items():
        assert taken == pytest.approx(plan.most(ladders[name]), rel=0.05), name


def test_a_clip_that_the_last_rung_fools_is_searched_and_bisected_as_well():
    def most(name, **values):
        return plan.most(plan.ladders(values, (8, 12), [name])[name])

    assert most("BIM-a", bim_bisections=4) == most("BIM-a", bim_bisections=0) + 4 * 100 * 3
    assert most("CWA", cwa_search=100) == most("CWA", cwa_search=0) + 100 * 3


def test_likely_is_what_finished_cells_took_of_the_most(planned, tmp_path):
    """A training that ended at half of its epochs, and attacks at a tenth of their passes, an hour each."""
    planner, size = plan.Planner(Path("params")), (64, 128)
    epochs, values = (planner.settings("demo", name) for name in ("03_training", "04_attacks"))
    files.save(
        tmp_path / "build" / TRAINING / "../history.csv",
        pd.DataFrame({"epoch": range(epochs["epochs"] // 2)}),
    )
    tenth = {
        name: values["clips"] * plan.most(ladder) / 10 for name, ladder in plan.ladders(values, size).items()
    }
    rows = pd.DataFrame(
        {"attack": list(tenth), "forwards": list(tenth.values()), "backwards": 0, "queries": 0}
    )
    files.save(tmp_path / "build" / TRAINING / "../attacks.parquet", rows)
    seen = planned("demo", [(TRAINING, 3600.0), (ATTACKING, 3600.0)])[1].out
    for chapter, most in (("03_training", 2.0), ("04_attacks", 10.0)):
        words = next(line for line in seen.splitlines() if line.startswith(chapter)).split()
        assert [float(word) for word in words[3:5]] == [1.0, most]


def test_without_finished_cells_the_shares_of_attacks_are_those_measured(planned):
    planner = plan.Planner(Path("params"))
    point, values = (POINT.at(dataset="esc50"), "04_attacks"), planner.settings("esc50", "04_attacks")
    values |= {"brackets": True}
    rows = pd.read_csv("lib/grid/passes.csv", keep_default_na=False).set_index(["attack", "setting"])["share"]
    assert rows.between(0, 1).all()
    measured = rows.xs("", level="setting")
    most = {name: plan.most(ladder) for name, ladder in plan.ladders(values, (768, 1568)).items()}
    likely = sum(passes * measured.get(name, 1.0) for name, passes in most.items())
    assert planner.passes(point, values) == pytest.approx(100 * sum(most.values()))
    assert planner.passes(point, values, likely=True) == pytest.approx(100 * likely)
    for (attack, setting), share in rows.drop("", level="setting").items():
        given = dict(part.split(" = ") for part in setting.split("; "))
        chosen = values | {name: ast.literal_eval(value) for name, value in given.items()}
        other = {name: plan.most(ladder) for name, ladder in plan.ladders(chosen, (768, 1568)).items()}
        planner.shares = {("esc50", name): 0.0 for name in other if name != attack}
        assert planner.passes(point, chosen, likely=True) == pytest.approx(100 * other[attack] * share)
