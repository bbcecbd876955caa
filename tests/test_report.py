"""Tables, pictures and the ledger on made-up runs whose effects are known, of any part of a grid."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib import figures, metrics, names
from lib.analysis import answer, claims, printing, published, report, results, tables
from lib.analysis.results import POINT
from lib.analysis.tables import Analysis
from tests import made_up

ONE = {"representations": ("stft",), "models": ("alexnet",)}


@pytest.fixture(autouse=True)
def _style():
    figures.use_style()


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are made but not printed, which takes most of the time and is tested below."""
    monkeypatch.setattr(figures, "_FORMATS", {})
    monkeypatch.setattr(figures.Figure, "draw_without_rendering", lambda self: None)
    monkeypatch.setattr(figures.Figure, "get_tightbbox", lambda self: self.bbox_inches)


@pytest.fixture(scope="module")
def found():
    return Analysis(made_up.grid(representations=("stft", "dwt_tonnetz"), noise=0.1))


def value(frame: pd.DataFrame, **where) -> pd.Series:
    """The one row of a tidy table with these values."""
    rows = frame.loc[np.logical_and.reduce([frame[name] == wanted for name, wanted in where.items()])]
    assert len(rows) == 1, rows
    return rows.iloc[0]


HERE = {"representation": "stft", "model": "alexnet"}


# ------------------------------------------------------------------------------------------------- tables


def test_accuracy_and_its_paired_drop():
    frame = Analysis(made_up.grid()).recognition
    assert value(frame, measure="accuracy_percent", training="standard", **HERE)["value"] == pytest.approx(80)
    drop = value(frame, measure="accuracy_drop_percent", **HERE)
    assert drop["value"] == pytest.approx(20)
    assert drop["low"] < 20 < drop["high"]
    assert drop["over"] == "20 clips"


def test_robust_accuracy_is_of_all_evaluated_clips_and_of_any_wrong_class():
    """By hand, from rows: a clip is robust if it is correct and no attack of the worst case is within ε."""
    run = made_up.grid(**ONE)
    found = Analysis(run)
    frame, budget = found.robustness, found.budgets["stft"]
    for training in ("standard", "adversarial"):
        rows = run.attacks[run.attacks["training"] == training]
        rows = rows[~rows["attack"].isin(names.CONTROLS)]
        broken = set(rows.loc[(rows["after"] != rows["label"]) & (rows["l2"] <= budget), "clip"])
        clean = run.clean[run.clean["training"] == training]
        right = clean[clean["predicted"] == clean["label"]]
        by_hand = 100 * (~right["clip"].isin(broken)).sum() / len(clean)
        robust = value(frame, measure="robust_percent", training=training, **HERE)
        assert robust["value"] == pytest.approx(by_hand)
        assert robust["over"] == "20 clips"
        accuracy = value(frame, measure="clean_percent", training=training, **HERE)["value"]
        assert accuracy == pytest.approx(100 * len(right) / len(clean))
    gain = value(frame, measure="gain_percent", training="adversarial", **HERE)
    each = [
        value(frame, measure="robust_percent", training=t, **HERE)["value"]
        for t in ("adversarial", "standard")
    ]
    assert gain["value"] == pytest.approx(each[0] - each[1])


def test_a_model_that_classifies_fewer_clips_correctly_is_not_flattered():
    """Its attacked clips are fooled as little, but it is robust on fewer of all clips."""
    found = Analysis(made_up.grid(**ONE, accuracy=(0.8, 0.3), ratio=1.0, clips=100))
    fooled = {
        t: value(found.fooling, measure="fooling_auc_percent", training=t, **HERE)["value"]
        for t in ("standard", "adversarial")
    }
    assert fooled["adversarial"] == pytest.approx(fooled["standard"], abs=6)
    assert value(found.robustness, measure="gain_percent", **HERE)["high"] < 0


def test_robust_accuracy_takes_the_least_misclassified_iterate():
    run = made_up.grid(**ONE)
    kept = dataclasses.replace(run, attacks=run.attacks.assign(l2_any=0.01))
    assert (Analysis(kept).robustness.query("measure == 'robust_percent'")["value"] == 0).all()
    assert (Analysis(run).robustness.query("measure == 'robust_percent'")["value"] > 0).all()


def test_a_model_without_a_correct_clip_has_robust_accuracy_zero():
    found = Analysis(made_up.grid(**ONE, accuracy=(0.8, 0.0)))
    robust = value(found.robustness, measure="robust_percent", training="adversarial", **HERE)
    assert (robust["value"], robust["over"]) == (0, "20 clips")
    assert robust["high"] > 5


def test_table_2_counts_only_clips_fooled_within_the_scaled_budget():
    run = made_up.grid(**ONE)
    found = Analysis(run)
    budget = found.budgets["stft"]
    assert budget == pytest.approx(metrics.scaled_budget(3, (64, 128)))
    six = run.attacks[(run.attacks["training"] == "standard") & run.attacks["attack"].isin(published.ATTACKS)]
    by_hand = 100 * np.mean([(part["l2"] <= budget).mean() for _, part in six.groupby("attack")])
    mine = value(found.fooling, measure="fooling_auc_percent", training="standard", **HERE)["value"]
    assert mine == pytest.approx(by_hand)
    of_all = value(found.fooling, measure="of_all_percent", training="standard", **HERE)["value"]
    assert of_all == pytest.approx(by_hand * 0.8)  # sixteen of twenty clips are correct


def test_an_attack_that_cannot_fool_within_the_budget_is_named():
    run = made_up.grid(**ONE)
    coarse = run.attacks.assign(smallest=np.where(run.attacks["attack"] == "JSMA", 0.588, 0.01))
    part = report.table_2(Analysis(dataclasses.replace(run, attacks=coarse)))
    assert "JSMA cannot succeed within ε" in part.caption
    assert "cannot succeed" not in report.table_2(Analysis(run)).caption


def test_appended_representations_have_the_budget_of_plain_ones():
    both = Analysis(made_up.grid(representations=("dwt", "dwt_tonnetz"))).budgets
    assert both["dwt"] == both["dwt_tonnetz"]


def test_ratios_are_those_of_every_attack_clip_by_clip():
    found = Analysis(made_up.grid(accuracy=(0.8, 0.6), ratio=1.7))
    frame = found.ratios[found.ratios["attack"] != tables.MEANS]
    assert frame["value"].to_numpy() == pytest.approx(1.7)  # though the two models have other correct clips
    assert (frame.loc[frame["attack"] != "PIA", "bound"] == "=").all()
    assert (frame.loc[frame["attack"] == "PIA", "bound"] == "?").all()
    assert set(frame["attack"]) == {*published.ATTACKS, *names.REFERENCE, tables.EXACT}
    noisy = Analysis(made_up.grid(**ONE, accuracy=(0.8, 0.8), ratio=1.7, noise=0.2, clips=80)).ratios
    row = value(noisy, attack="DeepFool")
    assert row["low"] < 1.7 < row["high"]
    assert row["low"] > 1.4


def test_censored_clips_are_counted_beside_a_ratio():
    found = Analysis(made_up.grid(**ONE, accuracy=(0.8, 0.8), failing=0.25))
    row = value(found.ratios, attack="CWA")
    assert (row["fooled"], row["censored"]) == (11, 5)
    assert tables.EXACT not in set(found.ratios["attack"])
    assert "exact attacks" not in report.ratio_table(found).caption.lower()
    assert "5 of 16 censored" in printing.markdown(report.ratio_table(found).shown)


def test_rows_say_which_norms_are_only_upper_bounds():
    run = made_up.grid(**ONE, accuracy=(0.8, 0.8))
    cut = (run.attacks["attack"] == "CWA") & (run.attacks["training"] == "adversarial")
    rows = run.attacks.assign(bound=np.where(cut, "at most", "exact"))
    marks = Analysis(dataclasses.replace(run, attacks=rows)).ratios.set_index("attack")["bound"]
    assert marks["CWA"] == "≤"
    assert marks["PIA"] == "="


def test_repeats_give_students_interval():
    run = made_up.grid(**ONE, folds=("1", "2", "2.1"), noise=0.3, clips=200)
    frame = Analysis(run).recognition
    assert (frame["over"] == "3 folds and seeds × 200 clips").all()
    right = run.clean[(run.clean["predicted"] == run.clean["label"]) & (run.clean["training"] == "standard")]
    each = 100 * right.groupby("fold").size().to_numpy() / 200
    row = value(frame, measure="accuracy_percent", training="standard")
    assert row["value"] == pytest.approx(each.mean())
    half = stats.t.ppf(0.975, 2) * each.std(ddof=1) / np.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((each.mean() - half, each.mean() + half))
    assert Analysis(made_up.grid(folds=("1", "1.1"))).repeats([3, 5]) == "2 seeds × 3 to 5 clips"
    assert Analysis(made_up.grid(folds=("1", "3"))).repeats([3, 3]) == "2 folds × 3 clips"


THREE = {"folds": ("1", "2", "3"), "clips": 30, "noise": 0.3}


def test_no_interval_of_a_share_ends_beyond_all_or_none():
    found = Analysis(made_up.grid(**ONE, **THREE, accuracy=(0.97, 0.05), ratio=0.5))
    for name in ("recognition", "robustness", "fooling"):
        frame = getattr(found, name)
        share = ~frame["measure"].isin(report._SIGNED)
        assert frame.loc[share, "low"].min() >= 0, name
        assert frame["high"].max() <= 100, name
    alone = value(found.recognition, measure="accuracy_percent", training="standard")
    assert alone["high"] == 100 > alone["value"]  # Student's own end is above it


def test_with_three_folds_every_table_says_how_many_clips_of_each():
    run = made_up.grid(**ONE, **THREE)
    few = run.evaluated["clip"].str.endswith(("0", "5"))
    kept = set(run.evaluated.loc[few, "clip"])
    attacks = run.attacks[run.attacks["clip"].isin(kept)]
    found = Analysis(dataclasses.replace(run, evaluated=run.evaluated[few], attacks=attacks))
    assert (report.summary_table(found).shown["n"] == "3 folds × 6 clips").all()
    assert "n = 3 folds × 6 clips" in report.robust_curves(found).caption
    said = report.accuracy_table(found).caption
    assert "All tested clips; the tables of robust accuracy use the 6 of each fold that were drawn" in said
    assert "Student's t over 3 folds × 30 clips, or over all these clips where that is wider" in said
    assert "All tested clips" not in report.accuracy_table(Analysis(run)).caption


def test_folds_that_agree_by_chance_are_not_surer_than_their_clips():
    found = Analysis(made_up.grid(**ONE, folds=THREE["folds"], clips=80))
    victim, right = ("stft", "alexnet", "standard"), {"1": 64, "2": 64, "3": 65}
    panels = {
        fold: pd.DataFrame({victim: np.where(np.arange(80) < right[fold], 100.0, 0.0)}, panel.index)
        for fold, panel in found.correct.items()
    }
    mean = found.mean(panels, [victim], lambda panel: panel[victim])
    over_folds = metrics.over_repeats([100 * n / 80 for n in right.values()])
    over_clips = metrics.over_clips(pd.concat([panel[victim] for panel in panels.values()]), bounds=(0, 100))
    assert over_folds.high - over_folds.low < 4 < 9 < over_clips.high - over_clips.low
    assert mean.value == pytest.approx(over_folds.value)
    assert mean[1:3] == pytest.approx(over_clips[1:3])
    assert mean.over == "3 folds × 80 clips"


def test_a_ratio_of_means_says_how_much_of_it_is_of_walks_that_were_cut():
    run = made_up.grid(**ONE, accuracy=(0.8, 0.8))
    bound = np.where(run.attacks["attack"] == "PIA", "at most", "exact")
    rows = run.attacks.assign(bound=bound)
    part = report.table_3(Analysis(dataclasses.replace(run, attacks=rows)))
    six = rows[rows["attack"].isin(names.ATTACKS)]
    share = 100 * six.loc[six["attack"] == "PIA", "l2"].sum() / six["l2"].sum()
    assert f"Of the sum of all norms here, {share:.0f} % are of walks that a limit cut (PIA)" in part.caption
    assert part.shown.iloc[0, 0].endswith("?")  # either norm is an upper bound
    whole = report.table_3(Analysis(dataclasses.replace(run, attacks=rows.assign(bound="exact"))))
    assert "cut" not in whole.caption
    assert not whole.shown.iloc[0, 0].endswith("?")


def test_the_gain_is_also_told_without_the_reference():
    run = made_up.grid(**ONE, ratio=2.0, accuracy=(0.8, 0.8), noise=0.2)
    (gain,) = Analysis(run).robustness.query("measure == 'gain_percent'")["value"]
    near = run.attacks["l2"] * np.where(run.attacks["attack"] == "DDN", 0.01, 1.0)
    found = Analysis(dataclasses.replace(run, attacks=run.attacks.assign(l2=near)))
    assert found.robustness.query("measure == 'gain_percent'")["value"].item() != gain
    said = report.robust_curves(found).caption
    assert (
        f"Under the paper's six attacks alone, the gain at ε is {gain:+.1f} points on STFT (AlexNet)." in said
    )


def test_the_summary_has_the_paired_change_and_gain():
    found = Analysis(made_up.grid(noise=0.2, clips=60))
    frame = (
        tables.summary(found).query("representation == 'stft'").set_index(["measure", "training"])["value"]
    )
    for change, of in (("clean_change_percent", "clean_percent"), ("gain_percent", "robust_percent")):
        assert frame[change, "adversarial"] == pytest.approx(frame[of, "adversarial"] - frame[of, "standard"])
    gains = found.robustness.query("measure == 'gain_percent' and representation == 'stft'")["value"]
    assert frame["gain_percent", "adversarial"] == pytest.approx(gains.mean())
    heads = list(report.summary_table(found).shown)
    assert len(set(heads)) == len(heads)
    assert {"clean, robust [%]", "gain in robust accuracy [points]"} <= set(heads)


def test_every_network_by_itself_has_the_numbers_of_the_other_tables(found):
    frame = report.networks_table(found).frame
    for measure, other, sign in (
        ("gain_percent", found.robustness, 1),
        (
            "accuracy_change_percent",
            found.recognition.replace("accuracy_drop_percent", "accuracy_change_percent"),
            -1,
        ),
    ):
        for row in frame[frame["measure"] == measure].to_dict("records"):
            same = value(other, measure=measure, **{name: row[name] for name in tables.PAIR})
            ends = (same["low"], same["high"])[::sign]
            assert [row["value"], row["low"], row["high"]] == [sign * each for each in (same["value"], *ends)]
    ratios = frame[frame["measure"] == "epsilon_ratio"]
    assert set(ratios["attack"]) == {"DeepFool", "DDN"}
    assert ratios["value"].between(1.7, 2.3).all()  # 2 was put in
    shown = report.networks_table(found).shown
    assert len(shown) == len(found.attacked)
    assert not (shown == "–").any(axis=None)


def test_a_network_that_gains_and_loses_nothing_is_told_so():
    shown = report.networks_table(Analysis(made_up.grid(**ONE, accuracy=(0.8, 0.8), ratio=1.0))).shown
    assert shown.iloc[0].str.startswith("+0.0 [−").tolist()[:2] == [True, True]


def test_the_attacks_that_decide_the_worst_case_are_counted():
    """The least factor of made-up norms is BIM-a's, so that it alone finds every broken clip."""
    run = made_up.grid(**ONE, clips=100)
    found = Analysis(run)
    rows, budget = run.attacks[~run.attacks["attack"].isin(names.CONTROLS)], found.budgets["stft"]
    broken = rows[rows["l2"] <= budget].groupby("attack").size()
    shares = tables.deciding(found)
    assert shares["BIM-a"] == 100
    assert shares.to_dict() == pytest.approx((100 * broken / broken["BIM-a"]).reindex(shares.index).to_dict())
    said = report.robust_curves(found).caption
    assert f"BIM-a misclassifies 100 %, BIM-b misclassifies {shares['BIM-b']:.0f} %" in said
    assert f"each of the other 5 at most {shares['JSMA']:.0f} %" in said
    nobody = report.robust_curves(Analysis(made_up.grid(**ONE, failing=1.0))).caption
    assert "some attack misclassifies" not in nobody


def test_repeats_that_agree_are_as_uncertain_as_their_clips():
    frame = Analysis(made_up.grid(folds=("1", "2", "3"))).recognition
    assert (frame["over"] == "60 clips").all()
    assert (frame["high"] > frame["low"]).all()


def test_every_interval_over_clips_takes_recordings_as_its_units():
    alone, shared = (Analysis(made_up.grid(**ONE, clips=60, clips_per_source=k)) for k in (1, 6))
    for name in ("recognition", "robustness", "fooling"):
        one, other = getattr(alone, name), getattr(shared, name)
        assert one["value"].to_numpy() == pytest.approx(other["value"].to_numpy())
        assert other["over"].str.contains(" of .* recordings").all(), name
        assert ((other["high"] - other["low"]) > (one["high"] - one["low"])).mean() > 0.7, name
    ratios = Analysis(made_up.grid(**ONE, clips=60, clips_per_source=6, noise=0.2)).ratios
    assert ratios["over"].str.contains("recordings").all()
    assert "recordings" in report.summary_table(shared).caption


def test_papers_numbers_stand_beside_ours_only_on_its_data_sets():
    assert Analysis(made_up.grid()).recognition["paper"].isna().all()
    frame = Analysis(made_up.grid(dataset="esc50")).recognition
    row = value(
        frame, measure="accuracy_percent", representation="dwt", model="resnet18", training="standard"
    )
    assert row["paper"] == 67.06
    assert row["difference"] == pytest.approx(80 - 67.06)


def test_unfinished_trainings_are_marked_and_kept_out_of_verdicts():
    run = made_up.grid(models=("alexnet", "resnet18"), folds=("1", "2", "3"), noise=0.2, accuracy=(0.9, 0.5))
    poor = (run.history["model"] == "alexnet") & (run.history["training"] == "adversarial")
    rows = run.history.assign(train_accuracy=np.where(poor, 0.34, 0.95))
    found = Analysis(dataclasses.replace(run, history=rows))
    assert set(found.unfinished) == {(r, "alexnet", "adversarial") for r in ("stft", "dwt")}
    known = Analysis(dataclasses.replace(found.results, dataset="esc50"))
    for name in ("accuracy", "robust_accuracy", "table_1", "table_2", "table_3", "epsilon_ratio_attacks"):
        part = report.PARTS[name](known)
        assert "†" in printing.markdown(part.shown), name
        assert "training accuracy 34% in its last epoch" in part.caption, name
    frame = claims.ledger(found)
    row = frame[frame["claim"].str.startswith("adversarial training lowers the accuracy")].iloc[0]
    assert row["parts"] == 2  # the two of ResNet-18


# --------------------------------------------------------------------------------------------- image sizes


@pytest.mark.parametrize(("power", "relative"), [(0.5, [1, 1, 1]), (0.0, [1, 1 / 2, 1 / 4])])
def test_norms_at_three_sizes_are_compared_with_root_growth(power, relative):
    run = made_up.at_sizes(made_up.grid(**ONE, clips_per_source=2), power)
    frame = tables.scaling(Analysis(run)).query("training == 'standard'")
    assert frame["bins"].tolist() == [64, 128, 256]
    assert frame["relative"].to_numpy() == pytest.approx(np.array(relative))
    assert frame["still"].to_numpy() == pytest.approx([1, 1 / 2, 1 / 4])
    assert (frame["accuracy"] == 80).all()
    assert (frame["clips"] == 16).all()
    mine = run.attacks.query("training == 'standard' and attack == 'DDN'")["l2"]
    assert frame["norm"].to_numpy() == pytest.approx(
        np.exp(np.log(mine).mean()) * np.array([1.0, 4, 16]) ** power
    )
    assert (frame["norm_low"] < frame["norm"]).all()
    assert (frame["norm"] < frame["norm_high"]).all()


def test_sizes_are_compared_on_clips_that_are_correct_at_all_of_them():
    run = made_up.at_sizes(made_up.grid(**ONE), 0.5)
    rows = run.other_sizes
    lost = (rows["clip"] == "1-3") & (rows["bins"] == 256)
    easy = rows.assign(norm=rows["norm"].where(~lost), correct=rows["correct"] & ~lost)
    frame = tables.scaling(Analysis(dataclasses.replace(run, other_sizes=easy)))
    assert (frame["clips"] == frame["training"].map({"standard": 15, "adversarial": 11})).all()
    assert value(frame, training="standard", bins=256)["accuracy"] == 75


def test_a_size_at_which_a_model_was_not_attacked_takes_no_part():
    run = made_up.at_sizes(made_up.grid(**ONE), 0.5)
    rows = run.other_sizes
    away = (rows["training"] == "adversarial") & (rows["bins"] == 256)
    found = Analysis(dataclasses.replace(run, other_sizes=rows.assign(norm=rows["norm"].where(~away))))
    sizes = tables.scaling(found).groupby("training")["bins"].apply(list)
    assert sizes.to_dict() == {"standard": [64, 128, 256], "adversarial": [64, 128]}
    assert printing.latex(report.sizes_table(found).shown, "", "sizes").isascii()


# ---------------------------------------------------------------------------------------------- the report


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
def test_any_part_of_a_grid_is_reported(part, tmp_path, undrawn):
    run = made_up.grid(**part)
    made = report.Report(Analysis(run), tmp_path)
    for name in report.PARTS:
        assert made.add(name).caption
    text = made.finish().read_text()
    assert "nan" not in "".join(path.read_text() for path in tmp_path.glob("*.md")).lower()
    most = max(run.attacks.groupby(POINT)["clip"].nunique(), default=0)
    clips = rf"^- Clips of a model: 20 tested, 20 evaluated, (\d+ to )?{most} attacked\.$"
    assert re.search(clips, text, re.MULTILINE)
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    first = [head for head in ("answer", "summary", "robust curves", "networks", "claims") if head in heads]
    assert heads[: len(first)] == first
    assert heads[-2:] == ["cells", "times"]
    for name, part in made.made.items():
        if part.shown is not None and not part.frame.empty:
            assert (printing.markdown(part.shown) in text) == (name not in ("claims", "times")), name
    for link in re.findall(r"\]\((\S+?)\)", re.sub(r"\S+(png|pdf)\)", "", text)):
        assert (tmp_path / link).is_file(), link


@pytest.mark.parametrize(
    ("run", "part", "why"),
    [
        ({"failing": 1.0}, "table_3", "some attack fooled no clip of either model"),
        ({"failing": 1.0}, "epsilon_ratio_attacks", "no attack fooled one clip in both models"),
        ({"trainings": ("standard",)}, "table_3", "no model was attacked both before and after"),
        ({"trainings": ("standard",)}, "summary", "no model was attacked both before and after"),
        ({"trainings": ("adversarial",), "dataset": "esc50"}, "table_1", "no original model was tested"),
        ({}, "table_1", "the paper has no Table I of ESC-10; see accuracy"),
        ({}, "splits", "no point was asked to measure it"),
        ({}, "image_sizes", "no model was attacked by the reference attack at two image sizes"),
    ],
)
def test_an_empty_table_says_the_true_reason(run, part, why, tmp_path, undrawn):
    made = report.Report(Analysis(made_up.grid(**ONE | run)), tmp_path).add(part)
    assert made.frame.empty
    assert made.caption.startswith("Nothing to show: ")
    assert why in made.caption


def test_a_failure_leaves_the_earlier_tables_as_they_were(found, tmp_path, undrawn, monkeypatch):
    made = report.Report(found, tmp_path)
    for name in report.PARTS:
        made.add(name)
    made.finish()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = report.Report(Analysis(made_up.grid(**ONE)), tmp_path)
    again.add("cells")
    with pytest.raises(ValueError, match="not complete: summary, networks, accuracy"):
        again.finish()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_two_reports_at_once_do_not_take_each_others_tables(found, tmp_path, undrawn, monkeypatch):
    first = report.Report(found, tmp_path, ["cells", "summary"])
    first.add("cells")
    monkeypatch.setattr(report.os, "getpid", lambda: 1)
    second = report.Report(found, tmp_path, ["cells", "summary"])
    for made in (second, first):
        for name in made.parts:
            made.add(name)
    for made in (first, second):
        made.finish()
        assert {"cells.md", "summary.md", "README.md"} <= {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.glob(".new*"))


def test_a_part_that_is_empty_now_leaves_no_earlier_file(found, tmp_path, undrawn):
    for run in (found, Analysis(made_up.grid(**ONE, trainings=("standard",)))):
        made = report.Report(run, tmp_path)
        for name in report.PARTS:
            made.add(name)
        made.finish()
        assert (tmp_path / "table_3.md").exists() == (run is found)
        assert ("table_3.tex" in (tmp_path / "README.md").read_text()) == (run is found)


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes_also_after_keeping_them(tmp_path, found):
    results.save(found.results, tmp_path / "rows")
    for folder, run in (("a", found), ("b", Analysis(results.load(tmp_path / "rows")))):
        made = report.Report(run, tmp_path / folder)
        for name in report.PARTS:
            made.add(name)
        made.finish()
    one = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "a").iterdir()}
    two = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "b").iterdir()}
    assert one == two
    assert {"table_2.tex", "claims.md", "figure_1.pdf", "robust_curves.png", "README.md"} <= set(one)


def test_latex_is_booktabs_with_nothing_left_to_escape(found):
    part = report.table_2(found)
    text = printing.latex(part.shown, part.caption, "control")
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert text.splitlines()[0].startswith("%")
    assert "booktabs" in text.splitlines()[0]
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {line.count(" & ") for line in body} == {part.shown.shape[1] + 1}
    assert "$$" not in text
    assert text.count("$") % 2 == 0
    assert text.isascii(), sorted({letter for letter in text if not letter.isascii()})


def test_a_wide_latex_table_shares_the_width_of_the_text(found):
    text = printing.latex(report.table_2(found).shown, "", "wide")
    shares = [float(share) for share in re.findall(r"\\dimexpr ([\d.]+)\\textwidth", text)]
    assert sum(shares) <= 1.002
    assert len(shares) > 5


def test_latex_keeps_a_symbol_and_its_index_together(found):
    part = report.table_3(found)
    assert r"$\varepsilon_r$ of Eq. 15" in printing.latex(part.shown, part.caption, "three")
    assert r"$\|\delta\|_2$" in printing.latex(part.shown, part.caption, "three")


def test_names_of_other_people_stay_whole_and_in_their_place():
    shown = printing.table([(("dog|bark", "<b>\n*x*"), "n", "1")], ["class", "other"], ["n"])
    lines = printing.markdown(shown).splitlines()
    assert len(lines) == 3
    assert [line.count("|") for line in lines] == [4, 4, 4]
    assert "<b>" not in lines[2]
    tex = printing.latex(shown, "a & b", "x")
    assert r"a \& b" in tex
    assert r"dog\textbar{}bark" in tex


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


def test_one_more_of_each_is_in_every_table_and_figure(one_more_of_each):
    grid = {"representations": ("stft", "fifth"), "models": ("alexnet", "net7"), "dataset": "esc50"}
    run = made_up.at_sizes(made_up.grid(**grid, trainings=("standard", "adversarial", "sixth")), 0.5)
    found = Analysis(run)
    made = {name: report.PARTS[name](found) for name in report.PARTS if name != "splits"}
    assert "mine-a" in made["figure_1"].frame["attack"].to_list()
    holds = {
        "mine-a": ("attacks", "fooling_curves", "epsilon_ratio_attacks", "epsilon_ratio", "cost"),
        "net7": ("accuracy", "robust_accuracy", "table_1", "table_2", "table_3", "trade_off", "image_sizes"),
        "fifth": ("summary", "accuracy", "table_2", "robust_curves", "fooling_curves", "trade_off"),
        "sixth": ("robust_accuracy", "attacks", "fooling_curves", "trade_off"),
    }
    for key, parts in holds.items():
        for part in parts:
            assert key in made[part].frame.to_numpy().ravel().tolist(), (key, part)
            if made[part].shown is not None:
                assert f"My {key}" in printing.markdown(made[part].shown), (key, part)
    before = Analysis(dataclasses.replace(run, attacks=run.attacks[run.attacks["attack"] != "mine-a"]))
    pd.testing.assert_frame_equal(found.fooling, before.fooling)  # the paper's averages stay the paper's
    ratios = found.ratios[found.ratios["attack"] != "mine-a"].reset_index(drop=True)
    pd.testing.assert_frame_equal(ratios, before.ratios)


def test_an_attack_that_only_one_training_has_met_breaks_no_table(one_more_of_each):
    run = made_up.at_sizes(made_up.grid(**ONE), 0.5)
    mine = (run.attacks["attack"] == "mine-a") & (run.attacks["training"] == "adversarial")
    found = Analysis(dataclasses.replace(run, attacks=run.attacks[~mine]))
    for name, make in report.PARTS.items():
        if name not in ("splits", "table_1"):
            assert make(found).caption, name
    without = Analysis(dataclasses.replace(run, attacks=run.attacks[run.attacks["attack"] != "mine-a"]))
    pd.testing.assert_frame_equal(found.robustness, without.robustness)  # nor does it tilt the worst case


def test_all_trainings_are_compared():
    run = made_up.grid(**ONE, trainings=("standard", "adversarial", "pgd"))
    frame = Analysis(run).robustness
    assert list(dict.fromkeys(frame["training"])) == ["standard", "adversarial", "pgd"]
    assert value(frame, training="pgd", measure="clean_percent")["value"] == pytest.approx(60)


def test_an_unknown_part_is_refused(found, tmp_path):
    with pytest.raises(ValueError, match="'table_9' is none of cells"):
        report.Report(found, tmp_path).add("table_9")


# ------------------------------------------------------------------------------------------------- ledger


FOLDS = {"folds": ("1", "2", "3", "4", "5"), "noise": 0.15}


def claim(run, start: str) -> pd.Series:
    """The one claim that begins so."""
    weights = {"resnet56": 860000, "vgg16": 138000000, "resnet34": 21800000}
    frame = claims.ledger(Analysis(run), weights)
    rows = frame[frame["claim"].str.startswith(start)]
    assert len(rows) == 1, frame["claim"].tolist()
    return rows.iloc[0]


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(4.0, claims.HOLDS), (1.0, claims.OPEN), (0.25, claims.FAILS)]
)
def test_the_claim_on_perturbations_follows_the_effect(ratio, verdict):
    run = made_up.grid(**ONE, **FOLDS, clips=60, accuracy=(0.8, 0.8), ratio=ratio)
    assert claim(run, "attacking every robust model takes a larger")["verdict"] == verdict


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [((0.9, 0.5), claims.HOLDS), ((0.7, 0.7), claims.OPEN), ((0.4, 0.9), claims.FAILS)],
)
def test_the_claim_on_accuracy_follows_the_effect(accuracy, verdict):
    run = made_up.grid(**ONE, **FOLDS, clips=60, accuracy=accuracy)
    assert claim(run, "adversarial training lowers the accuracy")["verdict"] == verdict


def test_robustness_is_judged_against_the_undefended_control():
    more = made_up.grid(**ONE, **FOLDS, clips=60, ratio=4.0, accuracy=(0.8, 0.8))
    assert claim(more, "adversarial training raises the worst-case")["verdict"] == claims.HOLDS
    worse = made_up.grid(**ONE, **FOLDS, clips=60, ratio=0.25, accuracy=(0.8, 0.8))
    assert claim(worse, "adversarial training raises the worst-case")["verdict"] == claims.FAILS


def test_one_or_two_trainings_give_no_verdict_on_models():
    for folds in (("1",), ("1", "2")):
        run = made_up.grid(**ONE, folds=folds, noise=0.1, clips=60, ratio=4.0, accuracy=(0.9, 0.5))
        frame = claims.ledger(Analysis(run), {})
        assert set(frame["verdict"]) == {claims.OPEN}
        assert frame["why"].str.contains("the sentence needs 3").any()


def test_every_row_says_n_and_what_would_have_shown_the_opposite():
    run = made_up.grid(**ONE, **FOLDS, clips=60, ratio=4.0, accuracy=(0.9, 0.5))
    frame = claims.ledger(Analysis(run), {})
    assert (frame["opposite"].str.len() > 5).all()
    judged = frame[frame["verdict"] != claims.OPEN]
    assert len(judged) >= 3
    assert (judged["trainings"] >= claims.TRAININGS).all()
    assert (judged["clips"] > 0).all()
    assert (frame.loc[frame["verdict"] == claims.OPEN, "why"] != "").all()


def test_the_ledger_is_read_from_its_verdicts_and_counts_why_others_are_open():
    run = made_up.grid(**ONE, **FOLDS, clips=60, ratio=4.0, accuracy=(0.9, 0.5))
    part = report.ledger(Analysis(run))
    open_ = (part.shown["verdict"] == claims.OPEN).to_list()
    assert 0 < sum(open_) < len(open_)
    assert open_ == sorted(open_)
    assert list(part.shown) == ["paper", "here", "verdict", "why", "n"]
    assert (part.shown["n"] == "a count").sum() == 2  # the two sentences on weights
    frame = part.frame[part.frame["verdict"] == claims.OPEN]
    said = re.search(r"(\d+) remain open \((.*?)\)", answer.counted(part.frame))
    assert int(said[1]) == len(frame) == sum(int(text.split()[0]) for text in said[2].split(", "))
    assert f"{(frame['trainings'] == 0).sum() - 3} not run, 3 that no run of ours can decide" in said[2]
    one = claims.ledger(Analysis(made_up.grid(**ONE)))
    assert f"{(one['trainings'] == 1).sum()} with too few trainings)" in answer.counted(one)


def test_ratios_are_reported_as_ratios_and_shares_within_0_and_100():
    run = made_up.grid(**ONE, **FOLDS, clips=60, ratio=2.0, accuracy=(0.8, 0.8))
    row = claim(run, "attacking every robust")
    assert row["ours"] == pytest.approx(2.0, rel=0.15)
    assert row["low"] < row["ours"] < row["high"]
    share = claim(run, "fooling over 90 %")
    assert 0 <= share["low"] <= share["ours"] <= share["high"] <= 100
    agree = made_up.grid(**ONE, folds=("1", "2", "3"), noise=0.1)
    assert claim(agree, "without a limit")["why"] == "all trainings agree, so that their spread is not known"


def test_a_walk_that_was_cut_could_have_fooled_every_clip():
    run = made_up.grid(**ONE, **FOLDS, clips=60, ratio=4.0)
    whole = dataclasses.replace(run, attacks=run.attacks.assign(bound="exact"))
    bound = np.where(run.attacks["attack"] == "PIA", "at most", "exact")
    cut = dataclasses.replace(run, attacks=run.attacks.assign(bound=bound))
    robust = (*Analysis(whole).pairs[0][:2], "adversarial", "PIA")
    left = np.mean([100 - panel[robust].mean() for panel in Analysis(whole).fooled.values()])
    assert left > 10
    before, after = (claim(each, "fooling over 90 %") for each in (whole, cut))
    assert before["ours"] == after["ours"]  # what was measured; at the most it is more by PIA's
    most = round(after["ours"] + left / 6)
    assert "cut" not in before["why"]
    assert f"{most} % if walks that were cut (PIA) had fooled" in after["why"]
    assert "Walks of PIA that were cut count as not fooled" in report.table_2(Analysis(cut)).caption
    assert "Walks" not in report.table_2(Analysis(whole)).caption
    column = report.attacks_table(Analysis(cut)).shown["fooled within ε [%]"]
    assert all(text.startswith("≥") == (attack == "PIA") for (_, attack), text in column.items())


def test_shorter_ladders_than_the_papers_refute_nothing():
    hard = made_up.grid(**ONE, **FOLDS, clips=60, failing=0.4)

    def at(**values):
        """The run with these settings of chapter 4."""
        return dataclasses.replace(hard, cells=hard.cells.assign(parameters=json.dumps(values)))

    row = claim(at(jsma_steps=30, cwa_steps=[25, 1500]), "without a limit")
    assert (row["verdict"], row["open"]) == (claims.OPEN, claims.WEAK)
    assert row["why"] == "JSMA ended after 30 iterations where the paper's go to 1000"
    assert claim(at(jsma_steps=1000), "without a limit")["verdict"] == claims.FAILS


def test_a_short_ladder_of_one_model_is_not_hidden_by_a_long_one_of_another():
    run = made_up.grid(**ONE | {"models": ("resnet18", "alexnet")}, **FOLDS, clips=60, failing=0.4)
    steps = {"resnet18": 30, "alexnet": 2000}
    run.cells["parameters"] = [json.dumps({"jsma_steps": steps[model]}) for model in run.cells["model"]]
    assert claim(run, "without a limit")["verdict"] == claims.OPEN


def test_what_a_cut_attack_could_have_done_makes_no_claim_hold():
    """PIA alone is cut: measured it fools nobody within ε, and at the most everybody."""
    run = made_up.grid(**ONE, **FOLDS, clips=60, ratio=0.01)
    walks = run.attacks["attack"] == "PIA"
    attacks = run.attacks.assign(bound=np.where(walks, "at most", "exact"))
    attacks.loc[walks, "l2"] = 1e3
    row = claim(dataclasses.replace(run, attacks=attacks), "fooling over 90 %")
    assert row["ours"] == pytest.approx(100 * 5 / 6)
    assert row["verdict"] == claims.OPEN
    assert "100 % if walks that were cut (PIA)" in row["why"]


def test_a_ratio_of_the_clips_that_were_fooled_refutes_nothing_while_others_were_not():
    run = made_up.grid(**ONE, **FOLDS, clips=60, ratio=0.5)
    assert claim(run, "attacking every robust model")["verdict"] == claims.FAILS
    held = made_up.grid(**ONE, **FOLDS, clips=60, ratio=0.5, failing=0.1)
    row = claim(held, "attacking every robust model")
    assert (row["verdict"], row["open"]) == (claims.OPEN, claims.WEAK)
    assert "some clips were not fooled" in row["why"]


def uneven(run, **folds):
    """The run with these folds alone of some trainings or models."""

    def kept(frame):
        left = [
            fold in folds.get(model, folds.get(training, run.folds))
            for model, training, fold in frame[["model", "training", "fold"]].itertuples(index=False)
        ]
        return frame[left]

    frames = {
        name: kept(getattr(run, name)) for name in ("clean", "attacks", "evaluated", "history", "cells")
    }
    return Analysis(dataclasses.replace(run, **frames))


def test_before_after_and_change_are_of_the_folds_that_hold_both_models(undrawn):
    run = made_up.grid(**ONE, **FOLDS, clips=60)
    found = uneven(run, adversarial=("2",))
    value = tables.summary(found).set_index(["measure", "training"])["value"]
    for share, change in (("clean", "clean_change"), ("robust", "gain")):
        before, after = (value[f"{share}_percent", training] for training in ("standard", "adversarial"))
        assert value[f"{change}_percent", "adversarial"] == pytest.approx(after - before)
    alone = uneven(run, adversarial=("2",), standard=("2",))
    pd.testing.assert_frame_equal(tables.robust_curves(found), tables.robust_curves(alone))
    for name in ("robust_curves", "summary", "networks", "table_3", "epsilon_ratio", "attacks", "folds"):
        assert len(report.PARTS[name](found).frame)


def test_pairs_of_other_folds_are_not_averaged():
    """ResNet-18 in three folds and AlexNet in two others have no repeat in common."""
    run = made_up.grid(**ONE | {"models": ("resnet18", "alexnet")}, **FOLDS, clips=60)
    found = uneven(run, resnet18=("1", "2", "3"), alexnet=("4", "5"))
    assert [v[1] for v in found.averaged] == [v[1] for v in found.common] == ["resnet18"]
    assert not re.search("nan|–", "".join(answer.sentences(found, claims.ledger(found))))
    assert set(report.networks_table(found).shown.index.get_level_values("model")) == {"ResNet-18", "AlexNet"}


def test_an_attack_of_some_folds_alone_has_a_ratio_over_these():
    run = made_up.grid(**ONE, **FOLDS, clips=60)
    rows = run.attacks[(run.attacks["attack"] != "DDN") | run.attacks["fold"].isin(["1", "2"])]
    ratios = Analysis(dataclasses.replace(run, attacks=rows)).ratios.set_index("attack")
    assert ratios.loc["DDN", "over"].startswith("2 folds ×")
    assert ratios.loc["DeepFool", "over"].startswith("5 folds ×")


@pytest.mark.parametrize(("folds", "victims"), [(("1",), []), (FOLDS["folds"], [5])])
def test_another_training_is_in_the_tables_of_attacks_where_it_is_in_every_fold(folds, victims):
    run = made_up.grid(**ONE, **FOLDS, clips=60)
    more = made_up.grid(**ONE, folds=folds, trainings=("pgd",), clips=60)
    frames = {
        name: pd.concat([getattr(run, name), getattr(more, name)], ignore_index=True)
        for name in ("clean", "attacks", "evaluated", "history", "cells")
    }
    both = Analysis(dataclasses.replace(run, **frames))
    table, alone = tables.by_attack(both), tables.by_attack(Analysis(run))
    pd.testing.assert_frame_equal(table[table["training"] != "pgd"].reset_index(drop=True), alone)
    assert [*set(table.loc[table["training"] == "pgd", "victims"])] == victims
    assert ("pgd" in set(tables.fooling_curves(both)["training"])) == bool(victims)


def test_another_training_of_one_of_two_networks_is_not_drawn_beside_the_mean_of_both():
    run = made_up.grid(representations=("stft",), trainings=("standard", "adversarial", "pgd"), clips=40)
    whole = {name: getattr(run, name) for name in ("clean", "attacks", "evaluated", "history")}
    away = {
        name: rows[(rows["model"] != "alexnet") | (rows["training"] != "pgd")] for name, rows in whole.items()
    }
    some = Analysis(dataclasses.replace(run, **away))
    assert "pgd" in set(tables.robust_curves(Analysis(run))["training"])
    assert "pgd" not in set(tables.robust_curves(some)["training"])


def test_a_control_without_a_pair_has_no_trade_off():
    found = Analysis(made_up.grid(**ONE, trainings=(names.CONTROL_TRAINING,)))
    with pytest.raises(report.NothingToShow):
        report.trade_off(found)


@pytest.mark.parametrize("trainings", [("standard",), ("pgd",)])
def test_a_grid_without_pairs_shows_what_it_has(trainings):
    found = Analysis(made_up.grid(**ONE, trainings=trainings))
    assert len(report.attacks_table(found).shown)
    assert len(report.fooling_curves(found).frame)
    if trainings == ("pgd",):
        with pytest.raises(report.NothingToShow, match="no model was attacked"):
            report.robust_curves(found)


def test_a_model_without_rows_of_attacks_is_not_called_misclassified():
    run = made_up.grid(**ONE, **FOLDS, clips=60)
    lost = run.attacks[(run.attacks["fold"] != "1") | (run.attacks["training"] != "adversarial")]
    found = Analysis(dataclasses.replace(run, attacks=lost))
    clean = found.robustness.query("measure == 'clean_percent'").set_index("training")
    assert clean.loc["adversarial", "over"].startswith("4 folds ×")
    assert clean.loc["adversarial", "value"] > 50
    assert "no correctly classified clip" not in report.cells_table(found).caption


def test_what_our_ladders_decide_is_left_open():
    run = made_up.grid(**ONE, **FOLDS, clips=60)
    assert claim(run, "attacking robust models takes more gradient")["verdict"] == claims.OPEN
    assert claim(run, "every example of Fig. 1")["verdict"] == claims.OPEN


def test_the_count_of_weights_is_a_count():
    row = claim(made_up.grid(**ONE), "ResNet-56 has 11.3 %")
    assert row["verdict"] == claims.FAILS
    assert row["ours"] == pytest.approx(-99.38, abs=0.01)


def test_a_maximum_is_compared_with_each_rival():
    models = ("resnet56", "alexnet", "vgg16")
    run = made_up.grid(models=models, representations=("dwt_tonnetz", "stft"), **FOLDS)
    row = claim(run, "ResNet-56 on DWT | Tonnetz")
    assert (row["parts"], row["trainings"]) == (5, 5)


def test_cells_of_the_papers_tables_need_three_trainings():
    one = claims.ledger(Analysis(made_up.grid(dataset="esc50", noise=0.1)))
    cells = one[one["where"].str.fullmatch("Table I+")]
    assert len(cells) == 4 * 4  # two numbers of Table I, one of II and III, of two models on two images
    assert set(cells["verdict"]) == {claims.OPEN}
    run = made_up.grid(dataset="esc50", noise=0.1, folds=("1", "2", "3"))
    several = claims.ledger(Analysis(dataclasses.replace(run, attacks=run.attacks.assign(bound="exact"))))
    cells = several[several["where"].str.fullmatch("Table I+")]
    assert set(cells["verdict"]) <= {claims.AGREES, claims.DIFFERS, claims.OPEN}
    assert (cells["verdict"] != claims.OPEN).mean() > 0.8
    assert set(cells.loc[cells["verdict"] != claims.OPEN, "trainings"]) == {3}
    cut = claims.ledger(Analysis(run)).set_index("where").loc[["Table II", "Table III"]]
    assert set(cut["open"]) == {claims.WEAK}, "PIA was cut, so these are bounds"
    early = Analysis(dataclasses.replace(run, history=run.history.assign(train_accuracy=0.5)))
    cells = claims.ledger(early).set_index("where").loc[["Table I", "Table II", "Table III"]]
    assert set(cells["verdict"]) == {claims.OPEN}
    assert cells.loc[cells["open"] == claims.WEAK, "why"].str.startswith("unfinished: ").all()


def test_the_papers_own_numbers_support_its_sentences():
    """A slip of the pen in published.csv or in a claim would show here."""
    run = made_up.grid(**ONE)
    assert claim(run, "ResNet-56 has the highest accuracy")["paper"] == "7 of 8"
    assert claim(run, "ResNet-56 has the highest ε_r")["paper"] == "4 of 8"
    assert claim(run, "attacking every robust")["paper"] == "48 of 48"
    assert claim(run, "DWT | Tonnetz loses more")["paper"].startswith("+")
    assert claim(run, "DWT loses more")["paper"].count("+") == 2
    assert claim(run, "ResNet-56 on DWT | Tonnetz")["paper"].count("+") == 2


# ------------------------------------------------------------------------------------- verdicts, simulated


STUDIES = {
    "true, clearly": [3.0],
    "true, just so": [0.05],
    "false, clearly": [-3.0],
    "false, just so": [-1e-9],
    "undecidable: no difference": [0.0],
    "all of twelve are true, just so": [0.05] * 12,
    "one of twelve is false": [3.0] * 11 + [-1e-9],
    "all of twelve are false, just so": [-1e-9] * 12,
    "undecidable: no difference between thirteen": [0.0] * 12,
    "the best of thirteen by the paper's 1.22 points": [1.22] * 12,
}


def trained(parts) -> dict[int, claims.Measured]:
    """Parts of a claim of which nothing but the trainings is known."""
    return {n: claims.Measured.of(values) for n, values in enumerate(parts)}


def decided(values: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """`claims.decide` of many studies at once; ``values`` are studies × parts × trainings."""
    _, parts, trainings = values.shape
    spread = values.std(axis=2, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (values.mean(axis=2) - threshold) / (spread / np.sqrt(trainings))
    found = np.full(len(values), claims.OPEN, dtype=object)
    found[stats.t.cdf(t.min(axis=1), trainings - 1) <= claims.WRONG / parts] = claims.FAILS
    found[stats.t.sf(t.min(axis=1), trainings - 1) <= claims.WRONG] = claims.HOLDS
    found[~(spread > 0).all(axis=1)] = claims.OPEN
    return found


def shares(effects, studies: int, trainings: int, alike: float, step: float) -> pd.Series:
    """The shares of simulated studies whose verdict is right, open and wrong.

    ``alike`` is the correlation of parts (differences from one model share its luck), ``step`` what one clip
    changes, in standard deviations between trainings. Where nothing differs, any verdict is wrong.
    """
    rng, effects = np.random.default_rng(trainings), np.asarray(effects, dtype=float)
    luck = rng.normal(size=(studies, 1, trainings))
    own = rng.normal(size=(studies, len(effects), trainings))
    values = effects[:, None] + np.sqrt(alike) * luck + np.sqrt(1 - alike) * own
    values = np.round(values / step) * step if step else values
    found = decided(values)
    for verdict in set(found):
        for study in np.flatnonzero(found == verdict)[:10]:
            assert claims.decide(trained(values[study]), 0.0) == verdict
    truth = claims.HOLDS if (effects > 0).all() else claims.FAILS
    right, open_ = ((found == truth) & bool(effects.any())).mean(), (found == claims.OPEN).mean()
    return pd.Series({"right": right, "open": open_, "wrong": 1 - right - open_})


def assert_few_are_wrong(effects, studies: int, trainings: int, alike: float, step: float) -> None:
    """On a true or a false sentence, a wrong verdict is on one side of an interval of 95 %, on an undecidable
    one on either; two standard errors are left to chance."""
    nominal = claims.WRONG if np.any(effects) else 2 * claims.WRONG
    found = shares(effects, studies, trainings, alike, step)
    print(f"{trainings} trainings, alike {alike}, step {step}:", found.round(4).to_dict())
    assert found["wrong"] <= nominal + 2 * np.sqrt(nominal * (1 - nominal) / studies)


@pytest.mark.parametrize("effects", STUDIES.values(), ids=STUDIES)
@pytest.mark.parametrize("trainings", [3, 5])
def test_fewer_than_five_in_a_hundred_verdicts_are_wrong(effects, trainings):
    assert_few_are_wrong(effects, 1000, trainings, alike=0.5, step=0)


@pytest.mark.slow
@pytest.mark.parametrize("effects", STUDIES.values(), ids=STUDIES)
@pytest.mark.parametrize("trainings", [3, 5, 10])
def test_the_share_of_wrong_verdicts_in_many_studies(effects, trainings):
    """One clip of 80 is 1.25 points, and trainings differ by five: a step of 0.25."""
    for alike, step in ((0, 0), (0.5, 0), (0.5, 0.25)):
        assert_few_are_wrong(effects, 20_000, trainings, alike, step)


def test_clear_effects_are_found_and_two_trainings_find_none():
    rng = np.random.default_rng(0)
    clear = [claims.decide(trained([3 + 0.3 * rng.normal(size=3)]), 0.0) for _ in range(100)]
    assert clear.count(claims.HOLDS) > 95
    assert claims.decide(trained([[3.0, 3.1]]), 0.0) == claims.OPEN
    assert claims.decide({}, 0.0) == claims.OPEN
    assert claims.decide(trained([[100 / 9] * 3]), 0.0) == claims.OPEN  # if all agree, nothing is known
    mixed = 3 + 0.1 * rng.normal(size=5), -3 + 0.1 * rng.normal(size=5)
    assert claims.decide(trained(mixed), 0.0) == claims.FAILS
    assert claims.decide(trained([mixed[0], [np.nan] * 5]), 0.0) == claims.OPEN
    # One part is enough, whatever the others leave open.
    assert claims.decide(trained([[-9.0, -10.0, -11.0], [0.0] * 3]), 0.0) == claims.FAILS
    assert claims.decide(trained([[-9.0, -10.0, -11.0], [5.0]]), 0.0) == claims.FAILS
    assert claims.decide(trained([[9.0, 10.0, 11.0], [5.0]]), 0.0) == claims.OPEN


def test_trainings_that_agree_decide_nothing_that_their_clips_leave_open():
    drops = [3.75, 3.75, 5.0]
    surely, maybe = ((np.mean(drops), low, 9.0, "") for low in (2.4, -0.02))
    for sign, verdict in ((1, claims.HOLDS), (-1, claims.FAILS)):
        for ends, expected in ((surely, verdict), (maybe, claims.OPEN)):
            ours = sorted(sign * end for end in ends[1:3])
            part = claims.Measured(
                [sign * drop for drop in drops], claims.Estimate(sign * ends[0], *ours, "")
            )
            assert claims.decide({0: part}, 0.0) == expected


def test_the_leaks_that_are_reported_are_those_that_chapter_3_writes():
    source = Path("notebooks/03_training.py").read_text(encoding="utf-8")
    columns = "[" + ", ".join(f'"{name}"' for name in made_up.LEAK) + "]"
    assert f"columns = {columns}" in source


def test_a_model_of_one_fold_leaves_the_folds_of_the_others():
    """24 pairs in one fold and one pair in several is how a study grows."""
    run = made_up.grid(**ONE | {"models": ("resnet18", "alexnet")}, **FOLDS, clips=60, ratio=4.0)

    def without(folds):
        """The run without these folds of AlexNet."""
        whole = {name: getattr(run, name) for name in ("clean", "attacks", "evaluated", "history")}
        kept = {
            name: rows[(rows["model"] != "alexnet") | ~rows["fold"].isin(folds)]
            for name, rows in whole.items()
        }
        return Analysis(dataclasses.replace(run, **kept))

    few, alone = without(run.folds[1:]), without(run.folds)
    assert len(few.averaged) == len(few.attacked) / 2
    pd.testing.assert_frame_equal(tables.summary(few), tables.summary(alone))
    said = report.summary_table(few).caption
    assert "Left out: AlexNet (STFT)" in said
    assert "Left out" not in report.summary_table(Analysis(run)).caption
    sentence = "attacking every robust model takes"
    ledger = claims.ledger(few).set_index("claim")
    row = ledger[ledger.index.str.startswith(sentence)].iloc[0]
    assert (row["verdict"], row["trainings"]) == (claims.HOLDS, len(run.folds))
    assert "trained less often: AlexNet (STFT)." in report.ledger(few).caption
    for made in (tables.robust_curves, tables.fooling_curves, tables.by_attack):
        pd.testing.assert_frame_equal(made(few), made(alone))
    assert {"alexnet", "resnet18"} == set(few.recognition["model"]) == set(few.robustness["model"])
