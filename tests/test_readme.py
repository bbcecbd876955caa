"""The README: its example of one's own recordings, followed as a new user would, and its numbers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, outside

from lib import metrics, names
from lib.analysis import printing, published

SOUNDS = {"wren": 3000.0, "owl": 400.0, "jay": 1500.0}  # Hz
PLACES = ("garden", "wood", "lake", "hill")
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PAIR = ["representation", "model"]
RATES = (8000, 16000, 22050, 44100, 48000)


def example() -> str:
    """The shell lines of the README that speak of a table of one's own."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "clips.csv" in block]
    assert len(block.splitlines()) <= 10
    return block


def recorded(folder: Path) -> None:
    """60 recordings of three birds in four places: every rate, one or two channels, three formats."""
    rows = [
        (f"{bird}/{place}-{take}.wav", bird, place)
        for bird in SOUNDS
        for place in PLACES
        for take in range(1, 6)
    ]
    rng = np.random.default_rng(0)
    for n, (path, bird, _) in enumerate(rows):
        rate, channels = RATES[n % len(RATES)], 1 + n % 2
        if n >= 2:
            rows[n] = (path.replace(".wav", (".wav", ".flac", ".ogg")[n % 3]), *rows[n][1:])
        t = np.arange(2 * rate) / rate
        sound = 0.3 * np.sin(2 * np.pi * SOUNDS[bird] * t) * (np.sin(2 * np.pi * 3 * t + n) > 0)
        sound += 0.02 * rng.standard_normal(len(t))
        (folder / bird).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / rows[n][0], np.stack([sound] * channels, axis=1), rate)
    pd.DataFrame(rows, columns=["path", "label", "source"]).to_csv(folder / "clips.csv", index=False)


def follow(tmp_path: Path, block: str) -> subprocess.CompletedProcess:
    """Run the lines in a checkout."""
    return subprocess.run(
        ["bash", "-e", "-c", block],
        cwd=tmp_path / "checkout",
        env=outside() | {"HOME": str(tmp_path / "home"), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, and recordings where the example says."""
    recorded(tmp_path / "home/sounds/birds")
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("lib", "notebooks"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "params", folder / "params")
    return folder


def test_the_example_s_table_is_read(tmp_path, checkout):
    block = example()
    assert block.count("make all") == 1
    done = follow(tmp_path, block.replace("make all", "make data"))
    assert done.returncode == 0, done.stderr
    shown = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    assert done.stdout.splitlines()[: len(shown)] == shown
    clips = pd.read_parquet(checkout / "build/birds/clips.parquet")
    assert len(clips) == 60
    assert (clips["problem"] == "").all()
    assert set(clips["rate"]) == set(RATES)
    assert set(clips["channels"]) == {1, 2}
    assert {os.path.splitext(path)[1] for path in clips["path"]} == {".wav", ".flac", ".ogg"}
    assert clips.groupby("source")["fold"].nunique().max() == 1
    assert (pd.crosstab(clips["name"], clips["fold"]) == 5).all(axis=None)


@pytest.mark.slow
def test_the_example_is_run_to_its_end(tmp_path, checkout):
    done = follow(tmp_path, example())
    assert done.returncode == 0, done.stderr
    assert "birds: read build/birds/06_analysis.ipynb" in done.stdout
    attacks = pd.read_parquet(checkout / "build/birds/dwt/resnet18/1/adversarial/attacks.parquet")
    assert {"FGSM", "BIM-a", "BIM-b", "DeepFool", "CWA", "JSMA", "PIA"} <= set(attacks["attack"])
    assert (checkout / "build/birds/figures/README.md").is_file()


@pytest.mark.slow
def test_a_fault_is_one_sentence_and_costs_nothing_that_was_there(tmp_path, checkout):
    command = """make data DATASETS=birds DATA="$HOME/sounds" """
    table = tmp_path / "home/sounds/birds/clips.csv"
    whole = table.read_bytes()
    assert follow(tmp_path, command).returncode == 0

    def kept() -> dict[str, bytes]:
        return {
            name: (checkout / "build/birds" / name).read_bytes()
            for name in ("01_data.ipynb", "clips.parquet")
        }

    before = kept()
    table.write_bytes(whole.replace(b"label", b"class", 1))
    done = follow(tmp_path, command)
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("FAILED")]
    assert "clips.csv has no column 'label'; it has path, class, source" in said
    assert "Traceback" not in done.stderr
    assert kept() == before
    table.write_bytes(whole)
    assert follow(tmp_path, command).returncode == 0


def table(name: str, dataset: str = "esc10") -> pd.DataFrame:
    return pd.read_csv(ROOT / f"figures/{dataset}/{name}.csv")


def assert_esc50(said: str) -> None:
    """What is said of ESC-50 is what figures/esc50 has: one pair, so one number of each kind."""
    rows = table("accuracy", "esc50").set_index(["measure", "training"])
    standard, robust = (rows.loc[("accuracy_percent", t)] for t in ("standard", "adversarial"))
    assert f"{standard['value']:.1f} % correctly [{standard['low']:.1f}, {standard['high']:.1f}]" in said
    assert (
        f"(the paper: {standard['paper']:.1f} %, on large images), and {robust['value']:.1f} % after" in said
    )
    drop = rows.loc[("accuracy_drop_percent", "adversarial")]
    fall = [printing.number(0 - drop[end], sign=True) for end in ("value", "high", "low")]
    papers = printing.number(0 - drop["paper"], sign=True)
    assert "adversarial training ({} points [{}, {}]; the paper: {})".format(*fall, papers) in said
    rows = table("robust_accuracy", "esc50").set_index(["measure", "training"])
    before, after = (rows.loc[("robust_percent", t), "value"] for t in ("standard", "adversarial"))
    gain = rows.loc[("gain_percent", "adversarial")]
    ends = f"by {gain['value']:.1f} points [{gain['low']:+.1f}, {gain['high']:+.1f}]"
    assert f"rose from {before:.1f} to {after:.1f} %, {ends}" in said
    ratios = table("epsilon_ratio_attacks", "esc50").set_index("attack")["value"]
    assert f"takes {ratios['DeepFool']:.1f} (DeepFool) and {ratios['DDN']:.1f} times (DDN)" in said
    decided = table("claims", "esc50").query("verdict != 'open'")["claim"]
    assert decided.str.contains("more parameters").all()
    assert "no sentence of the paper (two, on numbers of parameters, need no run)" in said


def trained_once(rows):
    """Which rows are of a pair that was trained once, in one fold."""
    over = rows.query("measure == 'gain_percent'").set_index(PAIR)["over"]
    once = over.index[~over.str.contains("folds")]
    return pd.MultiIndex.from_frame(rows[PAIR]).isin(once)


def pairs(rows) -> list[str]:
    """The pairs of some rows as the text calls them."""
    return [f"{names.label(model)} on {names.label(which)}" for which, model in rows[PAIR].to_numpy()]


def assert_networks(said: str) -> None:
    """What is said of the pairs that were trained once, and of those trained in several folds."""
    rows = table("networks")
    often, once = rows[~trained_once(rows)], rows[trained_once(rows)]
    assert set(pairs(often)) == {"ResNet-18 on STFT", "ResNet-18 on DWT"}
    on = once.groupby("model")["representation"].agg(lambda which: sorted(set(which))).to_dict()
    assert on.pop("googlenet") == on.pop("alexnet") == ["dwt", "stft"]
    assert on == {"resnet34": ["dwt"], "resnet56": ["dwt"], "resnet18": ["dwt_tonnetz"]}
    which = (
        "GoogLeNet and AlexNet on STFT and DWT, ResNet-34 and ResNet-56 on DWT, and ResNet-18 on DWT with the"
    )
    assert f"in fold 1: {which} tonnetz appended." in said
    changes = {
        "rose by": often.query("measure == 'gain_percent'"),
        "the clean accuracy fell by": often.query("measure == 'accuracy_change_percent'"),
    }
    for verb, change in changes.items():
        stft, dwt = change.set_index("representation").loc[["stft", "dwt"]].to_dict("records")
        assert f"{verb} {abs(stft['value']):.1f} points on STFT and by {abs(dwt['value']):.1f} " in said, verb
        assert np.sign([stft["value"], dwt["value"]]).tolist() == [1 if verb == "rose by" else -1] * 2
    clear = [((change["low"] > 0) | (change["high"] < 0)).tolist() for change in changes.values()]
    assert clear == [[True, True], [False, False]]
    assert "the interval excludes zero on both. On all 80 tested clips" in said
    assert "the interval includes zero on both. (On the 20 clips" in said
    ratios = often.query("measure == 'epsilon_ratio'")
    assert "{:.1f} to {:.1f} times".format(*ratios["value"].agg(["min", "max"])) in said
    assert ("with every 95 % interval above 1" in said) == bool((ratios["low"] > 1).all())
    counts = [
        "{:.0f} to {:.0f}".format(*part["fooled"].dropna().agg(["min", "max"])) for part in (once, often)
    ]
    assert "({} of a pair that was trained once, {} of the others):".format(*counts) in said
    gains = once.query("measure == 'gain_percent'")
    higher, same = gains[gains["value"] > 0], gains[gains["value"] <= 0]
    ends = f"higher by {higher['value'].min():.1f} to {higher['value'].max():.1f} points"
    assert pairs(same) == ["ResNet-18 on DWT | Tonnetz"]
    told = printing.interval(same.iloc[0], 1, sign=True)
    assert f"{ends}, but the same with the tonnetz ({told}); the interval is above zero for Goog" in said
    assert pairs(gains[gains["low"] > 0]) == ["GoogLeNet on DWT"]
    falls = once.query("measure == 'accuracy_change_percent'")
    ends = " to ".join(printing.number(falls["value"].agg(end), 1, sign=True) for end in ("max", "min"))
    assert f"changed by {ends} points; the interval excludes zero for ResNet-56 on DWT alone." in said
    assert pairs(falls[falls["high"] < 0]) == ["ResNet-56 on DWT"]
    same = table("summary").query("measure == 'clean_change_percent'").set_index("representation")
    ends = (
        f"fell by {-same.loc['stft', 'value']:.1f} points on STFT and rose by {same.loc['dwt', 'value']:.1f}"
    )
    assert f"{ends} on DWT, and neither interval excludes zero.)" in said
    assert ((same["low"] < 0) & (same["high"] > 0)).all()
    first = table("robust_accuracy").query("training == 'standard' and representation == 'dwt'")
    first = first.set_index(["model", "measure"])
    assert {first.loc[(model, "clean_percent"), "value"] for model in ("googlenet", "resnet34")} == {85}
    kept = [first.loc[(model, "robust_percent")] for model in ("googlenet", "resnet34")]
    ends = [f"{row['value']:.0f} % [{row['low']:.0f}, {row['high']:.0f}]" for row in kept]
    assert "both classify 85 % of the 20 clips correctly, but keep {} and {} within ε".format(*ends) in said


def assert_short(said: str) -> None:
    """The few sentences above the tables, on all pairs of a representation and a network."""
    rows, robust = table("networks"), table("robust_accuracy")
    gains, falls, ratios = (
        rows.query(f"measure == '{name}'")
        for name in ("gain_percent", "accuracy_change_percent", "epsilon_ratio")
    )
    once = trained_once(gains)
    count, few, often = (COUNTS[k] for k in (len(gains), once.sum(), (~once).sum()))
    assert f"each of the {count} pairs of a representation and a network that were run on ESC-10" in said
    assert f"{often.capitalize()} pairs were run in all five folds, and {few} once; 20 clips of each" in said
    assert set(gains.loc[~once, "over"]) == {"5 folds × 20 clips"}
    assert f"to the {few} other pairs, once each in fold 1" in said
    assert (ratios["low"] > 1).all()
    largest = ratios.query("model == 'resnet56'").set_index("attack")["value"]
    others = ratios.query("model != 'resnet56'")["value"]
    ends = f"{others.min():.1f} to {others.max():.1f} times as large, and for ResNet-56"
    assert f"{ends} {largest['DeepFool']:.1f} times by DeepFool and {largest['DDN']:.1f} by DDN," in said
    assert (gains["value"] == 0).sum() == 1
    sure, clear = (COUNTS[k] for k in ((gains["low"] > 0).sum(), (falls["high"] < 0).sum()))
    more, less = (COUNTS[k] for k in ((gains["value"] > 0).sum(), (falls["value"] < 0).sum()))
    ends = f"is higher for {more} of them and the same for one, with an interval above zero for {sure}."
    assert ends in said
    ends = f"is lower for {less} of {count} pairs, with an interval that excludes zero for {clear}."
    assert ends in said
    assert not (falls["low"] > 0).any()
    verdicts = table("claims")["verdict"]
    assert f"Of the paper's {len(verdicts)} sentences, {(verdicts == 'open').sum()} remain open." in said
    of = robust.pivot_table(index=[*PAIR, "training"], columns="measure", values="value")
    taken = (of["clean_percent"] - of["robust_percent"]).groupby("training").agg(["min", "max"]).round()
    before, after = (
        "{:.0f} to {:.0f}".format(*taken.loc[training]) for training in ("standard", "adversarial")
    )
    assert f"take {before} points from the accuracy of the original models and {after} from" in said
    attacks = pd.read_parquet(ROOT / "figures/esc10/rows/attacks.parquet")
    assert attacks.loc[attacks["attack"].isin(["DeepFool", "DDN"]), "fooled"].all()
    curves = table("robust_curves").query("attack == 'worst case' and representation in ('stft', 'dwt')")
    curves = curves.pivot_table(index=["representation", "norm"], columns="training", values="rate")
    better = curves[curves["standard"] > curves["adversarial"]].reset_index()
    assert set(better["representation"]) == {"stft"}
    assert f"for the smallest changes, up to about {better['norm'].max():.2f};" in said
    budget = metrics.scaled_budget(published.BUDGET, (64, 128))
    assert f"which makes {budget:.3f} for our images of 64 × 128" in said


def assert_claims(said: str) -> None:
    """The ledger's counts, and the numbers beside the verdicts."""
    counted = (ROOT / "figures/esc10/claims.md").read_text(encoding="utf-8").splitlines()[0]
    assert counted.split(". ", 1)[1].split(". ")[0].rstrip(".") in said
    rows = table("table_2").query("measure == 'fooling_auc_percent' and training == 'adversarial'")
    here = (rows["model"] == "resnet18") & rows["representation"].isin(["stft", "dwt"])
    fooled = rows.loc[here, "value"]  # of the models that the verdict is on
    papers = [published.table("fooling_auc_percent", dataset) for dataset in published.DATASETS]
    ends = [min(each.min().min() for each in papers), max(each.max().max() for each in papers)]
    told = "it fools {:.1f} to {:.1f} %".format(*fooled.agg(["min", "max"]))
    others = "{:.1f} to {:.1f} %".format(*rows.loc[~here, "value"].agg(["min", "max"]))
    ends = f"(of the others' {others}; the paper: {ends[0]:.0f} to {ends[1]:.0f} %)"
    assert f"{told} of those of ResNet-18 on STFT and DWT {ends}" in said
    within = table("attacks").query("training == 'adversarial' and attack == 'DeepFool'")["within_percent"]
    most = (5 * 100 + within.item()) / 6
    assert f"the mean would be {most:.0f} %, since DeepFool" in said
    assert f"fools {within.item():.1f} % within ε" in said
    attacks = pd.read_parquet(ROOT / "figures/esc10/rows/attacks.parquet")
    robust = attacks.query("model == 'resnet18' and training == 'adversarial' and attack == 'JSMA'")
    assert robust["fooled"].mean() < 0.5, "JSMA left most clips unfooled"
    assert set(attacks.loc[attacks["attack"] == "PIA", "bound"]) == {"at most"}


def assert_sounds(said: str) -> None:
    """The counts of chapter 7, from its table and its copy."""
    heard = table("waveform_attack").query("snr == 40")
    of = {
        key: f"{rows['fooled'].sum()} of {rows['over'].sum()}"
        for by in (["change"], ["change", "representation"])
        for key, rows in heard.groupby(by)
    }
    assert f"ratio fools {of['attack',]}" in said
    assert f"{of['attack', 'stft']} on STFT and {of['attack', 'dwt']} on DWT" in said
    assert f"noise of that level fools {of['noise',]}." in said
    copy = (ROOT / "notebooks/07_beyond.ipynb").read_text(encoding="utf-8")
    lost = {
        level: re.search(
            rf"{level} dB, (\d+) clips that are .*? fools (\d+) without it and (\d+) with it", copy
        )
        for level in (40, 20)
    }
    assert f"of the {lost[40][1]} pairs that can be tried" in said
    assert f"fools {lost[40][2]} without that and {lost[40][3]} with it" in said
    assert f"at 20 dB it fools {lost[20][2]} and {lost[20][3]}." in said
    still = re.search(r"(\d+) of (\d+) are still fooled; for (\d+) of the others the search did not", copy)
    assert still[1] == "0"
    assert f"none of {still[2]} adversarial images still fools" in said
    assert f"for {still[3]} of these, the search had not converged" in said


def test_the_face_is_what_the_published_run_says():
    """Its tables and numbers, and the counts of the ledger's verdicts, are those of figures/."""
    face = (ROOT / "README.md").read_text(encoding="utf-8").split("## What came out")[1].split("\n## ")[0]
    rows, said = [line for line in face.splitlines() if line.startswith("|")], " ".join(face.split())
    shown = [ROOT / f"figures/esc10/{name}.md" for name in ("summary", "networks")]
    lines = [line for path in shown for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [line for line in lines if line.startswith("|")]
    assert_short(said)
    assert_networks(said)
    assert_esc50(said)
    assert_claims(said)
    assert_sounds(said)
    index = (ROOT / "figures/esc10/README.md").read_text(encoding="utf-8")
    (counts,) = re.findall(r"evaluated, (.*) attacked", index)
    assert f"of which {counts} are classified correctly" in said
    (alone,) = re.findall(
        r"six attacks alone, the gain at ε is \+(.*? on STFT), \+(.*?) points on DWT", index
    )
    assert "gains would be {} and {} on DWT".format(*alone) in said
    largest = table("image_sizes").sort_values("bins").iloc[-1]
    ends = f"[{largest['relative_low']:.2f}, {largest['relative_high']:.2f}]"
    assert f"is {largest['relative']:.2f} times that at 32 × 64 {ends}" in said
    for path in re.findall(r"`?((?:figures|notebooks)/[\w./]+\w)`?", face):
        assert (ROOT / path).is_file(), path
