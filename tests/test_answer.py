"""What a run says in a few sentences, on made-up runs whose effects are known."""

import dataclasses

import pandas as pd
import pytest

from lib import names
from lib.analysis import answer, claims, printing, report
from lib.analysis.tables import Analysis
from tests import made_up

ONE = {"representations": ("stft",), "models": ("alexnet",)}
FOLDS = {"folds": ("1", "2", "3", "4", "5"), "noise": 0.1}


ENDS = ("standard", "adversarial")
NOT_RUN = {"where": "VIII", "verdict": claims.OPEN, "open": claims.NOT_RUN, "claim": "one"}


def said(found: Analysis, ledger: pd.DataFrame | None = None) -> dict[str, str]:
    """The sentences by the bold words that each begins with; without a ledger, as if no claim was tested."""
    lines = answer.sentences(found, pd.DataFrame([NOT_RUN]) if ledger is None else ledger)
    return {line.split(".**")[0].strip("*"): line for line in lines}


def test_a_run_without_a_pair_has_no_answer_yet():
    found = Analysis(made_up.grid(**ONE, trainings=("standard",)))
    first, verdicts = answer.sentences(found, pd.DataFrame([NOT_RUN]))
    assert first == answer.NOTHING
    assert (
        verdicts
        == "**The paper's claims.** Of 1 sentence, 0 hold, 0 do not hold, and 1 remains open (1 not run)."
    )


@pytest.mark.parametrize(("ratio", "above"), [(4.0, 8), (1.0, 0), (0.5, 0)])
def test_the_perturbation_is_told_from_the_least_to_the_most_of_all_pairs(ratio, above):
    found = Analysis(made_up.grid(clips=40, ratio=ratio, noise=0.1))
    ratios = found.ratios[found.ratios["attack"].isin(["DeepFool", "DDN"])]
    line = said(found)["Perturbation"]
    for end in ("min", "max"):
        row = ratios.loc[ratios["value"] == ratios["value"].agg(end)].iloc[0]
        who = f"{names.label(row['model'])} on {names.label(row['representation'])}"
        assert f"{row['value']:.2f} ({who})" in line
    assert (ratios["low"] > 1).sum() == above or ratio == 1.0
    count = (ratios["low"] > 1).sum()
    sure = "all 8" if count == 8 else f"{count} of 8"
    assert line.endswith(f"; {sure} intervals of 4 pairs lie above 1.")


def test_one_pair_is_told_with_its_intervals():
    found = Analysis(made_up.grid(**ONE, clips=100, ratio=2.0))
    lines = said(found)
    for name in ("DeepFool", "DDN"):
        (row,) = found.ratios.query("attack == @name").to_dict("records")
        assert f"{printing.interval(row, 2)} for {names.label(name)}" in lines["Perturbation"]
    drop = found.recognition.query("measure == 'accuracy_drop_percent'").iloc[0]
    clean = f"from 80.0 to 60.0 % (−20.0 [−{drop['high']:.1f}, −{drop['low']:.1f}] points, 100 clips)"
    assert lines["Clean accuracy"].endswith(f"it goes for AlexNet on STFT {clean}.")
    assert lines["What was run"].startswith("**What was run.** 1 of the paper's 24 pairs")
    assert lines["What was run"].endswith("AlexNet on STFT trained once.")


@pytest.mark.parametrize(("ratio", "way"), [(6.0, "rises"), (1.0, "falls")])
def test_of_several_pairs_it_counts_which_way_and_names_those_that_are_sure(ratio, way):
    found = Analysis(made_up.grid(clips=100, ratio=ratio))
    gains = found.robustness.query("measure == 'gain_percent'")
    line = said(found)["Robust accuracy"]
    assert (
        f"it {way} for 4 of 4 pairs; the interval, not corrected for so many, excludes zero for 4: " in line
    )
    for row in gains.to_dict("records"):
        assert f"({printing.interval(row, 1, sign=True)} points, 100 clips)" in line
    assert len(gains) == 4


def test_what_changes_nothing_is_neither_a_rise_nor_a_fall():
    lines = said(Analysis(made_up.grid(clips=40, ratio=1.0, accuracy=(0.8, 0.8))))
    for what in ("Robust accuracy", "Clean accuracy"):
        assert "it is the same for 4 of 4 pairs; no interval excludes zero." in lines[what]


def test_a_control_is_told_beside_what_adversarial_training_gains_more():
    trainings = ("standard", "adversarial", names.CONTROL_TRAINING)
    run = made_up.grid(**ONE, trainings=trainings, clips=60, ratio=4.0)
    weak = run.attacks["training"] == names.CONTROL_TRAINING  # as fragile as the original
    attacks = run.attacks.assign(l2=run.attacks["l2"].mask(weak, run.attacks["l2"] / 4))
    found = Analysis(dataclasses.replace(run, attacks=attacks))
    rows = found.robustness.set_index(["measure", "training"])
    more, by_chance = (
        rows.loc["more_percent", "adversarial"],
        rows.loc["gain_percent", names.CONTROL_TRAINING],
    )
    adversarial = rows.loc[("gain_percent", "adversarial"), "value"]
    assert more["value"] == pytest.approx(adversarial - by_chance["value"])
    assert by_chance["value"] < 0 < adversarial
    line = said(found)["Random signs"]
    assert "fools AlexNet on STFT by 1.00 for DeepFool and 1.00 for DDN" in line
    assert f"and gains {printing.interval(by_chance, 1, sign=True)} points at ε (60 clips);" in line
    assert f"adversarial training gains {printing.interval(more, 1, sign=True)} more (60 clips)." in line
    part = report.robust_table(found)
    assert part.shown["more than with random signs [points]"].tolist().count("–") == 2
    assert "random changes as large as FGSM's; what" in part.caption
    without = Analysis(made_up.grid(**ONE))
    assert "Random signs" not in said(without)
    assert "more than with random signs [points]" not in report.robust_table(without).shown


def test_levels_are_of_the_trainings_that_the_change_is_of():
    """The robust model is missing in two of five folds, in which the original is better."""
    run = made_up.grid(**ONE, **FOLDS, clips=60)
    away = (run.clean["training"] == "adversarial") & run.clean["fold"].isin(["4", "5"])
    right = run.clean["fold"].isin(["4", "5"]) & (run.clean["training"] == "standard")
    clean = run.clean.assign(predicted=run.clean["predicted"].where(~right, run.clean["label"]))
    found = Analysis(dataclasses.replace(run, clean=clean[~away]))
    both = [("stft", "alexnet", training) for training in ("standard", "adversarial")]
    before, after = (found.mean(found.correct, both, lambda p, v=v: p[v]).value for v in both)
    assert f"from {before:.1f} to {after:.1f} %" in said(found)["Clean accuracy"]
    whole = found.recognition.query("measure == 'accuracy_percent' and training == 'standard'")
    assert whole["value"].item() > before + 1


def test_attacks_without_a_limit_are_told_with_what_they_take():
    """Norms are drawn around 0.2, doubled for robust models, and DDN needs 2.8 times those of BIM-a."""
    found = Analysis(made_up.grid(**ONE))
    line = said(found)["No limit"]
    assert "DeepFool and DDN (reference) fool every attacked clip." in line
    norms = {
        t: found.results.attacks.query("training == @t and attack == 'BIM-a'")["l2"].median() for t in ENDS
    }
    before, after = norms["standard"], norms["adversarial"]
    assert (
        f"is {before:.2g} for the original and {after:.2g} for the robust models of AlexNet on STFT" in line
    )
    assert "(medians; ε is 0.247)." in line
    assert "No limit" not in said(Analysis(made_up.grid(failing=0.5)))


def test_decided_sentences_of_the_paper_are_listed_with_whom_they_are_of():
    two = ONE | {"models": ("alexnet", "resnet18")}
    run = made_up.grid(**two, folds=("1", "2", "3"), noise=0.1, clips=40, ratio=4.0)
    found = Analysis(run)
    ledger = claims.ledger(found)
    line = said(found, ledger)["The paper's claims"]
    judged = ledger[ledger["verdict"] != claims.OPEN]
    assert len(judged) > 0
    assert line.count("\n  - *") == len(judged)
    assert "less often" not in line
    rows = {name: getattr(run, name) for name in ("clean", "evaluated", "attacks", "history")}
    kept = {name: rows[rows["model"].ne("alexnet") | rows["fold"].eq("1")] for name, rows in rows.items()}
    few = Analysis(dataclasses.replace(run, **kept))
    line = said(few, claims.ledger(few))["The paper's claims"]
    assert "Those on every model are of ResNet-18 on STFT, since all others were trained less often." in line
    assert said(few)["What was run"].endswith("ResNet-18 on STFT in 3 folds, AlexNet on STFT trained once.")


def test_folds_that_agree_are_folds_all_the_same():
    found = Analysis(made_up.grid(**ONE, folds=("1", "2"), clips=20))
    assert said(found)["What was run"].endswith("AlexNet on STFT in 2 folds.")


def test_two_pairs_with_one_attack_each_are_not_told_as_one():
    run = made_up.grid(representations=("stft",), clips=20)
    attacks = run.attacks
    strong = (attacks["model"] == "resnet18") & (attacks["training"] == "adversarial")
    attacks = attacks.assign(l2=attacks["l2"].mask(strong, 3 * attacks["l2"]))[attacks["attack"] != "DDN"]
    line = said(Analysis(dataclasses.replace(run, attacks=attacks)))["Perturbation"]
    assert "2.00 (AlexNet on STFT) to 6.00 (ResNet-18 on STFT), for DeepFool" in line


def test_clips_that_were_never_fooled_are_told():
    line = said(Analysis(made_up.grid(**ONE, failing=0.5)))["Perturbation"]
    assert line.endswith("(over the clips that are fooled in both models).")


def test_a_count_and_its_verb_agree():
    rows = [("VIII", claims.HOLDS), ("VIII", claims.FAILS), ("VIII", claims.FAILS), ("VIII", claims.OPEN)]
    frame = pd.DataFrame(rows, columns=["where", "verdict"]).assign(open=None)
    assert answer.counted(frame) == "Of 4 sentences, 1 holds, 2 do not hold, and 1 remains open"


@pytest.mark.parametrize(
    ("power", "clips", "holds", "said"),
    [
        (0.5, 40, True, "equally large at each of these sizes"),
        (0.0, 40, False, "more robust on small images"),
        (0.8, 40, False, "less robust on small images"),
        (0.5, 3, None, "cannot say"),
    ],
)
def test_what_sizes_mean_for_budgets_follows_the_norms(power, clips, holds, said):
    run = made_up.grid(**ONE, clips=clips, accuracy=(1.0, 1.0))
    run = made_up.at_sizes(run, power, noise=0.1 if clips > 3 else 1.0)
    seen, same, meaning = answer.scaling(Analysis(run))
    assert same is holds
    assert said in meaning
    assert "at 256 × 512, √values is 4 times that of the smallest size" in seen
