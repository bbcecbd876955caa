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

from lib import metrics
from lib.analysis import published, results
from lib.analysis.tables import Analysis
from lib.grid import publish

SOUNDS = {"wren": 3000.0, "owl": 400.0, "jay": 1500.0}  # Hz
PLACES = ("garden", "wood", "lake", "hill")
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


def assert_opening() -> None:
    """What the first sentences say without a number, of every pair that was attacked, on both data sets."""
    rows = pd.concat([table("networks", dataset) for dataset in ("esc10", "esc50")])
    gains, changes, ratios = (
        rows.query(f"measure == '{name}'")
        for name in ("gain_percent", "accuracy_change_percent", "epsilon_ratio")
    )
    assert (ratios["low"] > 1).all(), "a larger perturbation for every network"
    assert (gains["value"] >= 0).all(), "within the budget at least as many clips stay correct"
    assert (gains["high"] > 0).all()
    assert (changes["value"] < 0).mean() > 0.5, "most lose some accuracy"
    assert ((changes["low"] <= 0) & (changes["high"] >= 0)).mean() > 0.5, "most losses may be none"
    for dataset in ("esc10", "esc50"):
        attacks = pd.read_parquet(ROOT / f"figures/{dataset}/rows/attacks.parquet")
        assert attacks.loc[attacks["attack"].isin(["DeepFool", "DDN"]), "fooled"].all()
        assert (table("claims", dataset)["verdict"] == "open").mean() > 0.5, "most claims remain open"

    worst = (
        table("attacks").query("training == 'adversarial' and attack == 'worst case'")["median_norm"].item()
    )
    assert round(worst / metrics.scaled_budget(published.BUDGET, (64, 128))) == 4, "four times the budget"


def assert_claims() -> None:
    """What is said beside the ledger."""
    rows = table("claims").set_index("claim")
    names_of = {
        "raises the worst-case robust accuracy of every model": "holds",
        "attacking every robust model takes a larger perturbation": "holds",
        "fooling over 90 % of a robust model's clips takes ε = 3 or less": "does not hold",
    }
    for words, verdict in names_of.items():
        assert rows.loc[[words in claim for claim in rows.index], "verdict"].tolist() == [verdict], words
    within = table("attacks").query("training == 'adversarial' and attack == 'DeepFool'")["within_percent"]
    assert (5 * 100 + within.item()) / 6 < 90, "DeepFool fools too few"
    attacks = pd.read_parquet(ROOT / "figures/esc10/rows/attacks.parquet")
    robust = attacks.query("model == 'resnet18' and training == 'adversarial' and attack == 'JSMA'")
    assert robust["fooled"].mean() < 0.5, "JSMA left most clips unfooled"
    assert set(attacks.loc[attacks["attack"] == "PIA", "bound"]) == {"at most"}
    index = (ROOT / "figures/esc10/README.md").read_text(encoding="utf-8")
    assert "DDN (reference) misclassifies 100 %" in index, "DDN alone decides"


def assert_control(said: str) -> None:
    """The control needs no larger perturbation than the original, in all the folds of its pair."""
    found = Analysis(results.load(ROOT / "figures/esc10/rows"))
    ratios = found.control_ratios[found.control_ratios["attack"].isin(["DeepFool", "DDN"])]
    assert set(ratios["model"] + " " + ratios["representation"]) == {"resnet18 dwt"}
    assert (ratios["over"].str.split(" ").str[:2].str.join(" ") == "5 folds").all()
    assert ((ratios["low"] < 1) & (ratios["high"] > 1)).all()
    robust = found.ratios.merge(ratios[["representation", "model", "attack"]])
    assert ratios["high"].max() < robust["low"].min(), "and less than the robust model"
    assert "was run for ResNet-18 on DWT alone. It takes no larger perturbation" in said


def assert_sounds(said: str) -> None:
    """The counts of chapter 7, from its table and its copy."""
    heard = table("waveform_attack").query("snr == 40")
    attacked, noise = (heard[heard["change"] == change] for change in ("attack", "noise"))
    fooled, over = attacked["fooled"].sum(), attacked["over"].sum()
    assert f"give {over} pairs in which the model is right" in said
    assert f"ratio fools {fooled} of {over}, and noise of that level {noise['fooled'].sum()}." in said
    of = attacked.set_index(["representation", "training"])
    stft, dwt = (
        [
            f"{of.loc[(which, t), 'fooled']} of {of.loc[(which, t), 'over']}"
            for t in ("standard", "adversarial")
        ]
        for which in ("stft", "dwt")
    )
    assert f"On STFT it fools {stft[0]} clips of the original model and {stft[1]} of the robust one" in said
    assert f"on DWT {dwt[0]} and {dwt[1]};" in said
    copy = (ROOT / "notebooks/07_beyond.ipynb").read_text(encoding="utf-8")
    still = re.search(r"(\d+) of (\d+) are still fooled; for (\d+) of the others the search did not", copy)
    floors = re.findall(r"\| STFT +\| .*? \| attack, raised floor \| \S+ +\| (\d+)/(\d+) ", copy)
    first, second = (f"{k} of {n}" for k, n in floors)
    assert f"the difference on STFT is gone ({first} and {second})" in said
    assert f"{still[1]} of {still[2]} still fool as that sound, and for {still[3]} of the others" in said


def test_the_face_is_what_the_published_runs_say():
    """Its answer is computed from figures/, and what is written around it agrees with these."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    face = readme.split("## What came out")[1].split("\n## ")[0]
    assert face.split(publish.FACE[0])[1].split(publish.FACE[1])[0] == "\n" + publish.answers(
        ROOT / "figures"
    )
    said = " ".join(face.split())
    assert_opening()
    assert_claims()
    assert_control(said)
    assert_sounds(said)
    budget = metrics.scaled_budget(published.BUDGET, (64, 128))
    assert f"which makes {budget:.3f} for our images of 64 × 128" in said
    largest = table("image_sizes").sort_values("bins").iloc[-1]
    ends = f"[{largest['relative_low']:.2f}, {largest['relative_high']:.2f}]"
    assert f"is at 128 × 256 {largest['relative']:.2f} times what it is at 32 × 64 {ends}" in said
    assert f"or {255 * budget / (64 * 128) ** 0.5:.1f} of 255 grey levels per value" in said
    for path in re.findall(r"`?((?:figures|notebooks)/[\w./]+\w)`?", face):
        assert (ROOT / path).is_file(), path
