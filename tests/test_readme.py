"""The README's example of a data set of one's own, followed as a new user would."""

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


def assert_esc50(said: str) -> None:
    """What is said of ESC-50 is what figures/esc50 has: one pair, so one number of each kind."""
    tables = {
        name: pd.read_csv(ROOT / f"figures/esc50/{name}.csv") for name in ("accuracy", "robust_accuracy")
    }
    accuracy = tables["accuracy"].query("measure == 'accuracy_percent'").set_index("training")
    standard, robust = accuracy.loc["standard"], accuracy.loc["adversarial"]
    assert f"{standard['value']:.1f} % correctly [{standard['low']:.1f}, {standard['high']:.1f}]" in said
    assert (
        f"(the paper: {standard['paper']:.1f} %, on large images), and {robust['value']:.1f} % after" in said
    )
    rows = tables["robust_accuracy"].set_index(["measure", "training"])
    before, after = (rows.loc[("robust_percent", t), "value"] for t in ("standard", "adversarial"))
    gain = rows.loc[("gain_percent", "adversarial")]
    ends = f"by {gain['value']:.1f} points [{gain['low']:+.1f}, {gain['high']:+.1f}]"
    assert f"rose from {before:.1f} to {after:.1f} %, {ends}" in said
    ratios = pd.read_csv(ROOT / "figures/esc50/epsilon_ratio_attacks.csv").set_index("attack")["value"]
    assert f"takes {ratios['DeepFool']:.1f} (DeepFool) and {ratios['DDN']:.1f} times (DDN)" in said


def test_the_face_is_what_the_published_run_says():
    """Its table, its numbers and the count of the ledger's verdicts are those of figures/esc10."""
    face = (ROOT / "README.md").read_text(encoding="utf-8").split("## What came out")[1].split("\n## ")[0]
    rows, said = [line for line in face.splitlines() if line.startswith("|")], " ".join(face.split())
    published = ROOT / "figures/esc10"
    table = (published / "summary.md").read_text(encoding="utf-8")
    assert rows == [line for line in table.splitlines() if line.startswith("|")]
    counted = (published / "claims.md").read_text(encoding="utf-8").splitlines()[0]
    assert counted.split(". ", 1)[1].split(". ")[0].rstrip(".") in said
    gains = pd.read_csv(published / "robust_accuracy.csv").query("measure == 'gain_percent'")
    gains = gains.dropna(subset="value")
    assert len(gains)
    assert all(f"{gain:.1f} points" in said for gain in gains["value"])
    assert ("each with a 95 % interval above zero" in said) == bool((gains["low"] > 0).all())
    drops = pd.read_csv(published / "accuracy.csv").query("measure == 'accuracy_drop_percent'")
    assert all(f"by {drop:.1f}" in said for drop in drops["value"])
    ratios = pd.read_csv(published / "epsilon_ratio_attacks.csv").query("attack in ('DeepFool', 'DDN')")
    by_model = {model: rows["value"].agg(["min", "max"]) for model, rows in ratios.groupby("model")}
    assert set(by_model) == {"alexnet", "resnet18"}
    assert "{min:.1f} to {max:.1f} times".format(**by_model["resnet18"]) in said
    alone = ratios.query("model == 'alexnet'").set_index("attack")["value"]
    assert f"takes {alone['DeepFool']:.1f} (DeepFool) and {alone['DDN']:.1f} times (DDN)" in said
    assert ("with every 95 % interval above 1" in said) == bool((ratios["low"] > 1).all())
    fooled = pd.read_csv(published / "table_2.csv").query("measure == 'fooling_auc_percent'")
    fooled = fooled.query("training == 'adversarial'")["value"]
    assert f"it fools {fooled.min():.1f} to {fooled.max():.1f} %" in said
    attacks = pd.read_parquet(published / "rows/attacks.parquet")
    assert set(attacks.loc[attacks["attack"] == "PIA", "bound"]) == {"at most"}
    heard = pd.read_csv(published / "waveform_attack.csv").query("snr == 40")
    of = {
        key: f"{rows['fooled'].sum()} of {rows['over'].sum()}"
        for by in (["change"], ["change", "representation"])
        for key, rows in heard.groupby(by)
    }
    assert f"at 40 dB signal-to-noise ratio fools {of['attack',]}" in said
    assert f"{of['attack', 'stft']} on STFT and {of['attack', 'dwt']} on DWT" in said
    assert f"noise of that level fools {of['noise',]}." in said
    index = (published / "README.md").read_text(encoding="utf-8")
    (counts,) = re.findall(r"evaluated, (.*) attacked", index)
    assert f"of which {counts} are classified correctly" in said
    (alone,) = re.findall(r"six attacks alone, the gain at ε is \+(.*?), \+(.*?) points on DWT", index)
    assert "gains would be {} and {} on DWT".format(*alone) in said
    lost = re.search(
        r"40 dB, (\d+) clips that are .*? fools (\d+) without it and (\d+) with it",
        (ROOT / "notebooks/07_beyond.ipynb").read_text(encoding="utf-8"),
    )
    assert f"of the {lost[1]} pairs that can be tried" in said
    assert f"fools {lost[2]} without that and {lost[3]} with it" in said
    assert_esc50(said)
    for path in re.findall(r"`?((?:figures|notebooks)/[\w./]+\w)`?", face):
        assert (ROOT / path).is_file(), path
