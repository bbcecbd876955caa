"""One data set, representation, model, training and attack more: one file and one entry each, no more."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import ROOT, outside

FILES = {
    "lib/data/tones.py": '''
"""Tones: two classes of steady tones."""

from pathlib import Path

import pandas as pd

from lib.data.readers import DataSet


def read(folder: Path) -> pd.DataFrame:
    """One row per WAV file, named CLASS-RECORDING-TAKE.wav; five folds of recordings."""
    rows = []
    for path in sorted(folder.glob("*.wav")):
        name, recording, take = path.stem.split("-")
        fold = int(recording) % 5 + 1
        rows.append((path.stem, str(path), name == "high", name, fold, f"{name}{recording}", take))
    return pd.DataFrame(rows, columns=["clip", "path", "target", "name", "fold", "source", "take"])


DATASET = DataSet(title="Tones", licence="none", citation="none", read=read, folders=("Tones",))
''',
    "lib/features/mel.py": '''
"""The mel spectrogram."""

import librosa
import torch

from lib.features.image import Image
from lib.features.magnitude import log_view


class MelImage(Image):
    """The logarithmic view of the mel spectrogram, (bins, frames)."""

    def __init__(self, rate: int, *, duration: float, bins: int, frames: int, floor: float) -> None:
        super().__init__(rate, duration, frames)
        self.floor, self.frames = floor, frames
        self.frequencies = librosa.mel_frequencies(n_mels=bins, fmax=rate / 2)
        weights = librosa.filters.mel(sr=rate, n_fft=1024, n_mels=bins)
        self.register_buffer("weights", torch.from_numpy(weights))
        self.register_buffer("window", torch.hann_window(1024))

    @staticmethod
    def arguments(settings) -> dict:
        """See `Image.arguments`."""
        names = ("duration", "bins", "frames", "floor")
        return {"rate": settings.stft_rate} | {name: getattr(settings, name) for name in names}

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, bins, frames) in [0, 1]."""
        self.check(waveform)
        hop = self.samples // self.frames
        spectrum = torch.stft(waveform, 1024, hop, window=self.window, return_complex=True).abs()
        return log_view((self.weights @ spectrum)[..., : self.frames], self.floor)


IMAGE = MelImage
''',
    "lib/models/tiny.py": '''
"""A network of one convolution."""

from torch import nn


def build(classes: int) -> nn.Module:
    """Maps (n, 3, rows, frames) to logits, until its first convolution is folded to one channel."""
    first = nn.Conv2d(3, 8, 5, stride=3)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, classes))
''',
    "lib/defences/noisy.py": '''
"""Training on images with Gaussian noise."""

import torch


def loss(model, x, labels, criterion, settings):
    logits = model((x + settings.budget * torch.randn_like(x)).clamp(0, 1))
    return criterion(logits, labels), logits
''',
    "lib/attacks/jump.py": '''
"""One long step along the normalised gradient, Foolbox's own attack behind a ladder."""

import foolbox

from lib.attacks.ladder import Ladder, Rung


def ladders(size: tuple[int, int], *, seed: int) -> dict[str, Ladder]:
    """Steps of rising length, each with budget ‖δ‖₂."""
    attack = foolbox.attacks.L2FastGradientAttack()
    return {"Jump": Ladder([Rung(attack, length, length) for length in (0.1, 1.0, 10.0)], goal="wrong")}
''',
}
ENTRIES = {
    "DATASETS": '"tones": "Tones"',
    "REPRESENTATIONS": '"mel": "Mel spectrogram"',
    "MODELS": '"tiny": "Tiny net"',
    "TRAININGS": '"noisy": "noise"',
    "ATTACKS": '"Jump": "Long jump"',
}
LABELS = {"mel": "Mel spectrogram", "tiny": "Tiny net"}
SETTINGS = {
    "02_features": "bins: 16\nframes: 24\nduration: 0.5\nstft_rate: 8000\nfactors: []\n",
    "03_training": "pretrained: none\nepochs: 4\nbatch: 8\nlearning_rate: 0.01\npatience: 0\n"
    "leaks_at: mel/tiny/1\n",
    "04_attacks": (ROOT / "params/demo/04_attacks.yaml").read_text(encoding="utf-8"),
    "05_adversarial_training": "pretrained: none\nepochs: 4\nbatch: 8\nlearning_rate: 0.01\npatience: 0\n"
    "pgd_clips: 4\npgd_steps: 2\ntried_clips: 4\n",
    "06_analysis": "shown: tiny/1/standard\n",
    "07_beyond": "heard: tiny\nclips: 4\nbim_steps: 4\nround_trip_steps: 4\n"
    "levels: [50.0, 20.0]\nwave_steps: 3\n",
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A copy of the study with one of each added, settings of a tiny grid, and recordings of tones."""
    folder = tmp_path_factory.mktemp("copied")
    for name in ("lib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    shutil.copy(ROOT / "Makefile", folder)
    for name, text in FILES.items():
        assert not (folder / name).exists()
        (folder / name).write_text(text.lstrip(), encoding="utf-8")
    registry = folder / "lib/names.py"
    lines = registry.read_text(encoding="utf-8").splitlines()
    for family in ENTRIES:
        closing = lines.index("}", lines.index(f"{family} = {{"))
        lines[closing : closing + 1] = [f"    {ENTRIES[family]},", "}"]
    registry.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = folder / "params/tones"
    settings.mkdir(parents=True)
    for chapter, text in SETTINGS.items():
        (settings / f"{chapter}.yaml").write_text(text, encoding="utf-8")
    rng = np.random.default_rng(0)
    (folder / "data/Tones").mkdir(parents=True)
    for name, pitch in (("low", 400.0), ("high", 1500.0)):
        for recording in range(15):
            time = np.arange(4000) / 8000
            sound = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time)
            sound += 0.01 * rng.standard_normal(len(time))
            soundfile.write(folder / f"data/Tones/{name}-{recording}-a.wav", sound, 8000)
    return folder


@pytest.fixture(scope="module")
def grown(copied) -> Path:
    """All seven chapters, executed by make at the points that the new names make."""
    axes = ["REPRESENTATIONS=mel", "MODELS=tiny", "FOLDS=1", "TRAININGS=standard adversarial noisy"]
    done = subprocess.run(
        ["make", "-k", "-j2", "all", "DATASETS=tones", *axes, f"PYTHON={sys.executable}"],
        cwd=copied,
        env=outside(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return copied / "build/tones"


@pytest.mark.slow
def test_every_chapter_runs_with_one_of_each_added(grown):
    notebooks = {path.relative_to(grown).as_posix() for path in grown.rglob("*.ipynb")}
    point = "mel/tiny/1"
    assert {f"{point}/noisy/05_adversarial_training.ipynb", f"{point}/noisy/04_attacks.ipynb"} <= notebooks
    assert {"01_data.ipynb", "mel/02_features.ipynb", "06_analysis.ipynb", "07_beyond.ipynb"} <= notebooks
    assert not [name for name in notebooks if "partial" in name]
    leaks = pd.read_csv(grown / point / "standard/leaks.csv")
    assert leaks["protocol"].tolist() == ["official", "random", "copies", "paper"]


@pytest.mark.slow
def test_the_new_names_are_in_every_table_and_figure_of_their_kind(grown):
    tables = {path.stem: path.read_text(encoding="utf-8") for path in (grown / "figures").glob("*.md")}
    for label in ("Long jump", "noise", "Tiny net", "Mel spectrogram"):
        assert any(label in text for text in tables.values()), label
    frames = {path.stem: pd.read_csv(path) for path in (grown / "figures").glob("*.csv")}
    for axis, key in (("representation", "mel"), ("model", "tiny")):
        holding = {stem: set(frame[axis].dropna()) for stem, frame in frames.items() if axis in frame}
        assert holding
        assert all(key in keys or LABELS[key] in keys for keys in holding.values()), holding
    attacked = {stem: set(frame["attack"]) for stem, frame in frames.items() if "attack" in frame}
    assert attacked
    by_attack = {stem: names for stem, names in attacked.items() if {"BIM-b", "CWA"} <= names}
    assert all(names & {"Jump", "Long jump"} for names in by_attack.values()), by_attack


@pytest.mark.slow
def test_the_papers_averages_stay_the_papers(grown):
    code = """
import dataclasses
import pandas as pd
from lib.analysis import published, results, tables
found = results.load("build/tones/figures/rows")
paper = found.attacks[found.attacks["attack"] != "Jump"]
assert len(paper) < len(found.attacks) and len(published.ATTACKS) == 6
pair = [tables.Analysis(each) for each in (found, dataclasses.replace(found, attacks=paper))]
for table in ("recognition", "fooling"):
    pd.testing.assert_frame_equal(*(getattr(each, table) for each in pair))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=grown.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    claims = (grown / "figures/claims.md").read_text(encoding="utf-8")
    assert "7 of 6" not in claims


def test_the_map_of_the_library_names_what_is_there():
    page = (ROOT / "lib/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)/?`", page.split("## Who may import whom")[0]))
    there = {path.stem for path in (ROOT / "lib").iterdir() if not path.name.startswith("_")} - {"README"}
    assert there <= named, there - named


def test_the_attacks_run_on_a_model_of_ones_own_as_the_page_shows():
    page = (ROOT / "lib/README.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "network" in block]
    torch.manual_seed(0)
    names = {"network": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))}
    names["images"] = torch.rand(4, 1, 3, 4)
    names["labels"] = names["network"](names["images"]).argmax(1)
    names["targets"] = (names["labels"] + 1) % 3
    exec(code, names)
    assert names["fooled"].float().mean() > 0.5
    assert ((names["nearest"] >= 0) & (names["nearest"] <= 1)).all()
