"""Tables, pictures and the ledger on made-up runs whose effects are known, of any part of a grid."""

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import figures, metrics, names
from lib.analysis import claims, printing, published, report, results, tables
from lib.analysis.results import POINT
from lib.analysis.tables import Analysis
from lib.metrics import Estimate
from tests import made_up


@pytest.fixture(autouse=True)
def _style():
    figures.use_style()


@pytest.fixture(scope="module")
def found():
    return made_up.grid(representations=("stft", "dwt_tonnetz"))


def value(frame: pd.DataFrame, **where) -> pd.Series:
    """The one row of a tidy table with these values."""
    rows = frame.loc[np.logical_and.reduce([frame[name] == wanted for name, wanted in where.items()])]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_table_1_has_accuracy_and_paired_drop(found):
    frame = Analysis(found).recognition
    where = {"representation": "stft", "model": "alexnet"}
    assert value(frame, measure="accuracy_percent", **where)["value"] == pytest.approx(80)
    drop = value(frame, measure="accuracy_drop_percent", **where)
    assert drop["value"] == pytest.approx(20)
    assert drop["low"] < 20 < drop["high"]
    assert drop["over"] == "20 clips"


def test_table_2_counts_only_clips_fooled_within_the_scaled_budget(found):
    budget = Analysis(found).budgets["stft"]
    assert budget == pytest.approx(metrics.scaled_budget(3, (64, 128)))
    frame = Analysis(found).fooling
    rows = found.attacks.query("representation == 'stft' and model == 'alexnet' and training == 'standard'")
    six = rows[rows["attack"].isin(published.ATTACKS)]
    by_hand = 100 * np.mean([(part["l2"] <= budget).mean() for _, part in six.groupby("attack")])
    where = {"representation": "stft", "model": "alexnet", "training": "standard"}
    assert value(frame, measure="fooling_auc_percent", **where)["value"] == pytest.approx(by_hand)
    worst = value(frame, measure="worst_percent", **where)["value"]
    assert worst == pytest.approx(100 * (six.groupby("clip")["l2"].min() <= budget).mean())
    assert worst >= by_hand


def test_appended_representations_have_the_budget_of_plain_ones():
    both = Analysis(made_up.grid(representations=("dwt", "dwt_tonnetz"))).budgets
    assert both["dwt"] == both["dwt_tonnetz"]


def test_table_3_finds_the_ratio_of_every_attack_when_the_same_clips_are_attacked():
    run = made_up.grid(accuracy=(0.8, 0.8), ratio=1.7)
    frame = Analysis(run).ratios
    assert frame["value"].to_numpy() == pytest.approx(1.7)
    assert (frame["bound"] == "=").all()
    assert frame.loc[frame["attack"] == "all", "geometric"].to_numpy() == pytest.approx(1.7)


def test_repeats_give_students_interval():
    frame = Analysis(made_up.grid(folds=("1", "2", "2.1"))).recognition
    assert (frame["over"] == "3 repeats").all()


def test_papers_numbers_stand_beside_ours_only_on_its_data_sets():
    assert Analysis(made_up.grid()).recognition["paper"].isna().all()
    frame = Analysis(made_up.grid(dataset="esc50")).recognition
    row = value(frame, measure="accuracy_percent", representation="dwt", model="resnet18")
    assert row["paper"] == 67.06
    assert row["difference"] == pytest.approx(80 - 67.06)


@pytest.mark.parametrize(
    "part",
    [
        {"models": ("vgg16",)},
        {"representations": ("dwt_tonnetz",)},
        {"trainings": ("standard",)},
        {"trainings": ("adversarial",)},
        {"folds": ("1", "1.1"), "models": ("vgg16",), "representations": ("stft",)},
        {"accuracy": (0.0, 0.0), "representations": ("stft",)},
        {"accuracy": (0.05, 0.0), "representations": ("stft",)},
        {"failing": 1.0, "representations": ("stft",)},
        {"dataset": "urbansound8k", "models": ("resnet56", "alexnet"), "representations": ("stft",)},
    ],
    ids=str,
)
def test_any_part_of_a_grid_is_reported(part, tmp_path, monkeypatch):
    """Pictures are drawn but not printed, which takes most of the time and is tested below."""
    monkeypatch.setattr(figures, "_FORMATS", {})
    monkeypatch.setattr(figures.Figure, "draw_without_rendering", lambda self: None)
    monkeypatch.setattr(figures.Figure, "get_tightbbox", lambda self: self.bbox_inches)
    run = made_up.grid(**part)
    made = report.Report(Analysis(run), tmp_path)
    for name in report.PARTS:
        part = made.add(name)
        assert part.caption
    assert "nan" not in "".join(path.read_text() for path in tmp_path.glob("*.md")).lower()
    text = made.index().read_text()
    most = max(run.attacks.groupby(POINT)["clip"].nunique(), default=0)
    assert re.search(rf"^- Clips of a victim: .*20 tested, (\d+ to )?{most} attacked\.$", text, re.MULTILINE)
    text = re.sub(r"\S+(png|pdf)\)", "", text)
    for link in re.findall(r"\]\((\S+?)\)", text):
        assert (tmp_path / link).is_file(), link


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes_also_after_keeping_them(tmp_path, found):
    results.save(found, tmp_path / "rows")
    for folder, run in (("a", found), ("b", results.load(tmp_path / "rows"))):
        made = report.Report(Analysis(run), tmp_path / folder)
        for name in report.PARTS:
            made.add(name)
        made.index()
    one = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "a").iterdir()}
    two = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "b").iterdir()}
    assert one == two
    assert {"table_1_drop.tex", "claims.md", "figure_1.pdf", "fooling_curves.png", "README.md"} <= set(one)


def test_latex_is_booktabs_with_nothing_left_to_escape(found):
    part = report.table_2_control(Analysis(found))
    text = printing.latex(part.shown, part.caption, "control")
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {line.count(" & ") for line in body} == {part.shown.shape[1] + 1}
    assert "$$" not in text
    assert text.count("$") % 2 == 0
    assert text.isascii(), sorted({letter for letter in text if not letter.isascii()})


def test_latex_keeps_a_symbol_and_its_index_together(found):
    part = report.table_3(Analysis(found))
    assert r"$\varepsilon_r$ of Eq. 15" in printing.latex(part.shown, part.caption, "three")
    assert r"$\|\delta\|_2$" in printing.latex(part.shown, part.caption, "three")


def test_every_part_is_shown_once_by_chapter_6():
    source = Path("notebooks/06_analysis.py").read_text()
    assert sorted(re.findall(r'parts\.show\("(\w+)"\)', source)) == sorted(report.PARTS)


@pytest.fixture
def one_more_of_each(monkeypatch):
    """A seventh attack and model, a sixth training, a fifth representation, as an entry registers them."""
    added = {"ATTACKS": "mine-a", "MODELS": "net7", "TRAININGS": "sixth", "REPRESENTATIONS": "fifth"}
    for family, key in added.items():
        monkeypatch.setitem(getattr(names, family), key, f"My {key}")
        monkeypatch.setitem(names._LABELS, key, f"My {key}")
    for name, looks in zip(("COLOURS", "MARKERS", "DASHES"), figures._looks(), strict=True):
        monkeypatch.setattr(figures, name, looks)
    return added


def test_one_more_of_each_is_in_every_table_and_figure(one_more_of_each, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "_FORMATS", {})
    grid = {"representations": ("stft", "fifth"), "models": ("alexnet", "net7")}
    run = made_up.grid(**grid, trainings=("standard", "adversarial", "sixth"))
    found = Analysis(run)
    made = {name: report.PARTS[name](found) for name in report.PARTS}
    holds = {
        "mine-a": ("attacks", "fooling_curves", "table_3_attacks", "epsilon_ratio_attacks", "cost"),
        "net7": ("victims", "table_1_accuracy", "table_2", "table_3", "trade_off", "accuracy", "defences"),
        "fifth": ("victims", "table_1_drop", "table_2_control", "fooling_curves", "figure_1", "accuracy"),
        "sixth": ("defences", "attacks", "fooling_curves"),
    }
    assert "mine-a" in made["figure_1"].frame["attack"].to_list()
    for key, parts in holds.items():
        for part in parts:
            assert key in made[part].frame.to_numpy().ravel().tolist(), (key, part)
            if made[part].shown is not None:
                assert f"My {key}" in printing.markdown(made[part].shown), (key, part)
    before = Analysis(dataclasses.replace(run, attacks=run.attacks[run.attacks["attack"] != "mine-a"]))
    for name in ("fooling", "ratios"):  # the paper's averages stay the paper's
        frame, old = getattr(found, name), getattr(before, name)
        if name == "ratios":
            frame = frame[frame["attack"] != "mine-a"]
        frame, old = (f[~f["measure"].str.startswith("worst")].reset_index(drop=True) for f in (frame, old))
        pd.testing.assert_frame_equal(frame, old)


def test_an_attack_that_only_one_training_has_met_breaks_no_table(one_more_of_each, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "_FORMATS", {})
    run = made_up.grid(**ONE)
    mine = (run.attacks["attack"] == "mine-a") & (run.attacks["training"] == "adversarial")
    found = Analysis(dataclasses.replace(run, attacks=run.attacks[~mine]))
    for name, make in report.PARTS.items():
        assert make(found).caption, name
    least = found.worst["1"]
    without = Analysis(dataclasses.replace(run, attacks=run.attacks[run.attacks["attack"] != "mine-a"]))
    pd.testing.assert_frame_equal(least, without.worst["1"])  # nor does it tilt the worst case


def test_all_trainings_are_compared():
    run = made_up.grid(**ONE, trainings=("standard", "adversarial", "pgd"))
    frame = tables.defences(Analysis(run))
    assert list(dict.fromkeys(frame["training"])) == ["standard", "adversarial", "pgd"]
    assert value(frame, training="pgd", measure="accuracy")["value"] == pytest.approx(60)


def test_an_unknown_part_is_refused(found, tmp_path):
    with pytest.raises(ValueError, match="'table_9' is none of cells"):
        report.Report(Analysis(found), tmp_path).add("table_9")


# ------------------------------------------------------------------------------------------------- ledger


ONE = {"representations": ("stft",), "models": ("alexnet",)}


def claim(run, start: str) -> pd.Series:
    """The one claim that begins so."""
    frame = claims.ledger(Analysis(run), {"resnet56": 860000, "vgg16": 138000000, "resnet34": 21800000})
    rows = frame[frame["claim"].str.startswith(start)]
    assert len(rows) == 1, frame["claim"].tolist()
    return rows.iloc[0]


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(4.0, claims.HOLDS), (1.0, claims.FAILS), (0.25, claims.FAILS)]
)
def test_the_claim_on_perturbations_follows_the_effect(ratio, verdict):
    run = made_up.grid(**ONE, clips=60, accuracy=(0.8, 0.8), ratio=ratio)
    assert claim(run, "attacking every robust model takes a larger")["verdict"] == verdict


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [((0.9, 0.5), claims.HOLDS), ((0.7, 0.7), claims.FAILS), ((0.5, 0.9), claims.FAILS)],
)
def test_the_claim_on_accuracy_follows_the_effect(accuracy, verdict):
    run = made_up.grid(**ONE, clips=60, accuracy=accuracy)
    assert claim(run, "adversarial training lowers the accuracy")["verdict"] == verdict


def test_robustness_is_judged_against_the_undefended_control():
    assert (
        claim(made_up.grid(**ONE, clips=60, ratio=4.0), "adversarial training makes every")["verdict"]
        == claims.HOLDS
    )
    worse = made_up.grid(**ONE, clips=60, ratio=0.25)
    assert claim(worse, "adversarial training makes every")["verdict"] == claims.FAILS


def test_a_defence_against_what_fools_nobody_is_not_refuted():
    idle = made_up.grid(**ONE, clips=60, failing=1.0)
    assert claim(idle, "adversarial training makes every")["verdict"] == claims.OPEN
    assert claim(idle, "adversarial training lowers the fooling")["verdict"] == claims.OPEN


def test_a_pair_without_a_number_is_not_counted():
    parts = {1: Estimate(2.0, 1.5, 2.5, "60 clips"), 2: Estimate(*[float("nan")] * 3, "60 clips")}
    row = dict(zip(claims.COLUMNS, claims._all("", "", "", "", parts, "pairs", 1.0), strict=True))
    assert row["ours"] == 100
    assert row["scope"] == "2 pairs, undefined for 1"
    assert row["verdict"] == claims.OPEN


def test_few_clips_and_absent_models_leave_a_claim_open():
    few = made_up.grid(**ONE, clips=8, ratio=4.0)
    assert claim(few, "adversarial training makes every")["verdict"] == claims.OPEN
    assert claim(few, "ResNet-56 on DWT | Tonnetz names more")["verdict"] == claims.OPEN
    assert "missing" in claim(few, "ResNet-56 on DWT | Tonnetz names more")["scope"]


def test_failed_attacks_refute_that_everybody_can_be_fooled():
    assert claim(made_up.grid(**ONE, clips=60), "without a limit on the budget")["verdict"] == claims.HOLDS
    hard = made_up.grid(**ONE, clips=60, failing=0.4)
    assert claim(hard, "without a limit on the budget")["verdict"] == claims.FAILS
    assert claim(hard, "attacking every robust model takes a larger")["verdict"] == claims.OPEN


def test_a_refuted_part_refutes_all_and_an_open_one_leaves_it_open():
    assert claims.every([claims.HOLDS, claims.HOLDS]) == claims.HOLDS
    assert claims.every([claims.HOLDS, claims.OPEN]) == claims.OPEN
    assert claims.every([claims.HOLDS, claims.OPEN, claims.FAILS]) == claims.FAILS
    assert claims.every([]) == claims.OPEN


def test_the_count_of_weights_is_a_count():
    row = claim(made_up.grid(**ONE), "ResNet-56 has 11.3 %")
    assert row["verdict"] == claims.FAILS
    assert row["ours"] == pytest.approx(-99.38, abs=0.01)


def test_every_cell_of_the_papers_tables_is_in_the_ledger_on_its_data_sets():
    run = made_up.grid(dataset="esc50")
    frame = claims.ledger(Analysis(run))
    cells = frame[frame["where"].isin(["Table I", "Table II", "Table III"])]
    assert len(cells) == 4 * 24
    there = cells[cells["scope"] == "this cell"]
    assert len(there) == 4 * 4
    assert set(there["verdict"]) <= {claims.AGREES, claims.DIFFERS}


def test_the_papers_own_numbers_support_its_sentences():
    """A slip of the pen in published.csv or in a claim would show here."""
    run = made_up.grid(**ONE)
    assert claim(run, "ResNet-56 has the highest accuracy")["paper"] == "7 of 8"
    assert claim(run, "ResNet-56 has the highest ε_r")["paper"] == "4 of 8"
    assert claim(run, "attacking every robust")["paper"] == "48 of 48"
    assert claim(run, "DWT | Tonnetz loses slightly")["paper"].startswith("+")
    assert claim(run, "DWT loses considerably")["paper"].count("+") == 2


def test_the_leaks_that_are_told_are_those_that_chapter_3_leaves():
    source = Path("notebooks/03_training.py").read_text(encoding="utf-8")
    columns = "[" + ", ".join(f'"{name}"' for name in made_up.LEAK) + "]"
    assert f"columns = {columns}" in source


def test_one_representation_refutes_nothing_of_most():
    models = ("resnet56", "alexnet")
    behind = made_up.grid(models=models, representations=("stft",))
    assert claim(behind, "ResNet-56 has the highest accuracy")["verdict"] == claims.OPEN
    everywhere = made_up.grid(models=models, representations=tuple(published.REPRESENTATIONS))
    assert claim(everywhere, "ResNet-56 has the highest accuracy")["verdict"] == claims.FAILS
