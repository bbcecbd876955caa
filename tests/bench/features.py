"""What the representations cost beside their peers: ``python -m tests.bench.features``.

Seconds of this process's CPU for a clip of 5 s, one thread, medians over at least 20 clips of ESC-10 (in
the folder that STUDY_DATA names, default ``../shared/data``) or toy sounds where it is absent; ours and each
peer go through all clips in turn.
A peer that is not installed is left out and said so. The rows go to ``build/bench/features.json``.
"""

import argparse
import dataclasses
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pywt
import torch

from lib import files, store
from lib.data import audio, readers
from lib.features.image import append
from lib.features.scalogram import Scalogram, fade
from lib.features.stft import STFT
from lib.features.tonnetz import RATE, tonnetz

DURATION, BINS, FRAMES = 5.0, 768, 1568
SIZE = {"bins": BINS, "frames": FRAMES, "duration": DURATION, "floor": -100.0}
WINDOWS = {"stft_rate": 44100, "n_fft": 2048, "hop": 512}
WAVELETS = {"dwt_rate": 16000, "fmin": 60.0, "bandwidth": 2.0, "centre": 6 / (2 * np.pi)}
SETTINGS = store.Settings(**SIZE, **WINDOWS, **WAVELETS, factors=(), how="pitch")
PARTS = ("stft", "dwt", "tonnetz")
REPRESENTATIONS = ("stft", "dwt", "stft_tonnetz", "dwt_tonnetz")
REACH = {
    ("scalogram", "ssqueezepy"): 50,
    ("scalogram", "pywavelets"): 250,
    ("tonnetz", "librosa"): 3,
    ("four", "librosa + pywavelets"): 50,
}
LEAST = {"prepare": 1.0, "error": 1.0, "memory": 0.9}
PREPARE = 90.0  # s on two cores for ESC-10 × 5 at 64 × 128


def clips(count: int) -> pd.DataFrame:
    """Clips of ESC-10, evenly spread, or toy sounds."""
    folder = os.environ.get("STUDY_DATA", "../shared/data")
    dataset = "esc10" if (Path(folder) / "ESC-10").is_dir() else "demo"
    frame = readers.read(dataset, folder)
    return frame.iloc[np.linspace(0, len(frame) - 1, count).astype(int)].reset_index(drop=True)


def peers() -> dict[tuple[str, str], Callable]:
    """What each peer does with waveforms at 44.1, 16 and 22.05 kHz."""
    scalogram = Scalogram(SETTINGS.dwt_rate, bins=BINS, frames=FRAMES)

    def stft(at44, at16, at22):
        return np.abs(librosa.stft(at44, n_fft=2048, hop_length=512))

    def cwt(at44, at16, at22):
        return np.abs(pywt.cwt(at16, scalogram.scales, "cmor2.0-0.9549", method="fft")[0])

    def of_librosa(at44, at16, at22):
        return librosa.feature.tonnetz(y=at22, sr=22050)

    found = {
        ("scalogram", "pywavelets"): cwt,
        ("stft", "librosa"): stft,
        ("tonnetz", "librosa"): of_librosa,
    }
    if importlib.util.find_spec("ssqueezepy"):
        import ssqueezepy

        scales = scalogram.scales[::-1].copy()  # it wants them ascending
        wavelet = ssqueezepy.Wavelet(("morlet", {"mu": 6.0}), dtype="float32")  # keeps its filters
        found["scalogram", "ssqueezepy"] = lambda at44, at16, at22: np.abs(
            ssqueezepy.cwt(at16, wavelet, scales=scales, padtype="zero", l1_norm=False)[0]
        )
    else:
        print("ssqueezepy is not installed: left out (tests/bench/requirements.txt)")
    return found


def ours() -> dict[str, Callable]:
    """What we do with the same waveforms; ``four`` are all images of the paper's size, in [0, 1]."""
    scalogram = Scalogram(SETTINGS.dwt_rate, bins=BINS, frames=FRAMES)
    stft = STFT(SETTINGS.stft_rate)
    images = {part: SETTINGS.image(part) for part in PARTS}

    def four(at44, at16, at22):
        heard = {"stft": at44, "dwt": at16, "tonnetz": at22}
        made = {part: images[part](torch.from_numpy(heard[part])[None]) for part in images}
        rows = store.heights("stft_tonnetz", BINS)["tonnetz"]
        appended = [append(made[part], made["tonnetz"], rows=rows) for part in ("stft", "dwt")]
        return made["stft"], made["dwt"], *appended

    return {
        "scalogram": lambda at44, at16, at22: scalogram(torch.from_numpy(at16)),
        "stft": lambda at44, at16, at22: stft(torch.from_numpy(at44)),
        "tonnetz": lambda at44, at16, at22: tonnetz(at22),
        "four": four,
    }


def seconds(call: Callable, sounds: tuple[np.ndarray, ...]) -> float:
    begin = time.process_time()
    call(*sounds)
    return time.process_time() - begin


def over(call: Callable, sounds: list[tuple[np.ndarray, ...]]) -> list[float]:
    """CPU seconds of each clip, after two that warm up."""
    return [seconds(call, sound) for sound in [*sounds[:2], *sounds]][2:]


def compare(frame: pd.DataFrame) -> list[dict]:
    """A row a peer: medians over the clips, and the median of each clip's ratio.

    The peers' four representations are their STFT, CWT and tonnetz, each once, without resize or append.
    """
    mine, their = ours(), peers()
    rates = (SETTINGS.stft_rate, SETTINGS.dwt_rate, RATE)
    sounds = [tuple(audio.waveform(row, rate, DURATION) for rate in rates) for _, row in frame.iterrows()]
    # One after the other over all clips, as in use: a peer's arrays of gigabytes cool the caches.
    us = {what: over(call, sounds) for what, call in mine.items()}
    them = {pair: over(call, sounds) for pair, call in their.items()}
    parts = [("stft", "librosa"), ("scalogram", "pywavelets"), ("tonnetz", "librosa")]
    them["four", "librosa + pywavelets"] = np.sum([them[pair] for pair in parts], axis=0).tolist()
    rows = []
    for what, peer in them:
        found = list(zip(us[what], them[what, peer], strict=True))
        ours_, theirs = (statistics.median(side) for side in zip(*found, strict=True))
        ratio = statistics.median(b / a for a, b in found)
        rows.append(
            {"what": what, "peer": peer, "ours": round(ours_, 5), "theirs": round(theirs, 5)}
            | {"ratio": round(ratio, 2), "unit": "s"}
        )
    return rows


def errors(frame: pd.DataFrame) -> pd.Series:
    """Of each clip, the scalogram's largest difference to its definition in float64, as a share of the peak,
    over every 16th row and every 49th column.
    """
    scalogram = Scalogram(SETTINGS.dwt_rate, bins=BINS, frames=FRAMES)
    found = []
    for row in frame.to_dict("records"):
        x = audio.waveform(row, SETTINGS.dwt_rate, DURATION)
        padded, rows, columns = 2 * len(x), slice(None, None, 16), slice(None, None, 49)
        spectrum, f = np.fft.rfft(x.astype(np.float64), padded), np.fft.rfftfreq(padded)
        s = scalogram.scales[rows, None]
        bell = np.exp(-(np.pi**2) * 2 * (s * f - scalogram.centre) ** 2)
        times = scalogram.times(len(x))[columns] * SETTINGS.dwt_rate
        weighted = np.sqrt(s) * bell * spectrum * fade(f)
        wanted = np.abs(weighted @ np.exp(2j * np.pi * np.outer(f, times))) / padded
        magnitudes = scalogram(torch.from_numpy(x)).numpy()
        found.append(np.abs(magnitudes[rows, columns] - wanted).max() / magnitudes.max())
    return pd.Series(found, index=frame["clip"])


def prepare(workers: int, count: int = 400) -> dict:
    """Seconds that clips of ESC-10, each with four shifted copies, take at 64 × 128, all parts."""
    frame = clips(count)
    small = dataclasses.replace(SETTINGS, bins=64, frames=128, factors=(0.75, 0.9, 1.15, 1.5))
    with tempfile.TemporaryDirectory() as folder:
        begin, before = time.monotonic(), sum(os.times()[:4])
        ways = {"waveform": audio.waveform, "augment": audio.augment}
        store.write(folder, frame, "stft", small, **ways, together=REPRESENTATIONS, workers=workers)
        taken = time.monotonic() - begin
    spent = sum(os.times()[:4]) - before
    rate = count / taken
    print(
        f"{count} clips × 5 at 64 × 128, {workers} workers: {taken:.0f} s, {spent:.0f} s of CPU, {rate:.2f}/s"
    )
    wanted = PREPARE * count / 400
    row = {"what": "prepare", "peer": "reach", "ours": round(taken, 1), "theirs": round(wanted, 1)}
    return row | {
        "ratio": round(wanted / taken, 2),
        "unit": "s",
        "workers": workers,
        "clips_per_s": round(rate, 2),
    }


def by_workers() -> list[dict]:
    """Clips a second by 1, 2, 4, 8 and 16 workers, as far as this process may use as many cores."""
    cores = len(os.sched_getaffinity(0))
    rows = [prepare(workers, 60 * workers) for workers in (1, 2, 4, 8, 16) if workers <= cores]
    return [row | {"what": f"prepare, {row['workers']} workers", "peer": "by workers"} for row in rows]


def _noise(row: dict, rate: int, duration: float) -> np.ndarray:
    return np.random.default_rng(row["seed"]).standard_normal(round(rate * duration)).astype(np.float32)


def anonymous(count: int) -> None:
    """Print the peak of this process's anonymous memory in MiB while it writes so many clips' scalograms and
    reads them back in batches of 32.
    """
    frame = pd.DataFrame({"clip": [f"{i}" for i in range(count)], "seed": range(count)})
    small = dataclasses.replace(SETTINGS, bins=64, frames=128)
    peak = 0

    def watch(steps, what="", total=0):
        nonlocal peak
        for step in steps:
            lines = Path("/proc/self/status").read_text().splitlines()
            found = next(line for line in lines if line.startswith("RssAnon"))
            peak = max(peak, int(found.split()[1]))
            yield step

    with tempfile.TemporaryDirectory() as folder:
        ways = {"waveform": _noise, "augment": audio.augment}
        store.write(folder, frame, "dwt", small, **ways, workers=1, progress=watch)
        images = store.open(folder, "dwt")
        for batch in watch(np.array_split(np.arange(count), -(-count // 32))):
            images[batch]
    print(peak / 1024)


def memory() -> dict:
    """Peak anonymous memory for 2000 clips beside 100, each in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.features", "--anonymous"]
    few, many = (float(subprocess.check_output([*command, count], text=True)) for count in ("100", "2000"))
    return {"what": "memory", "peer": "100 clips", "ours": round(many, 1), "theirs": round(few, 1)} | {
        "ratio": round(few / many, 3),
        "unit": "MiB",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--prepare", type=int, default=2, help="workers that prepare ESC-10; 0 leaves it out")
    parser.add_argument("--only-prepare", action="store_true", help="write no rows")
    parser.add_argument("--build", default="build")
    parser.add_argument("--anonymous", type=int, default=0, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.anonymous:
        anonymous(settings.anonymous)
        return
    if settings.only_prepare:
        prepare(settings.prepare)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the peers
    frame = clips(settings.clips)
    modules = {"torch": torch, "numpy": np, "librosa": librosa, "pywavelets": pywt}
    header = {
        "versions": {name: module.__version__ for name, module in modules.items()},
        "python": platform.python_version(),
        "threads": 1,
        "clips": len(frame),
        "seconds_a_clip": DURATION,
        "size": [BINS, FRAMES],
    }
    rows = compare(frame)
    error = errors(frame)
    rows.append(
        {"what": "error", "peer": "float64 definition", "ours": float(f"{error.max():.3g}"), "theirs": 2e-5}
        | {"ratio": round(2e-5 / error.max(), 1), "unit": "of the peak"}
    )
    rows.append(memory())
    if settings.prepare:
        rows += [prepare(settings.prepare), *by_workers()]
    files.save(Path(settings.build) / "bench" / "features.json", [header, *rows])
    print(pd.DataFrame(rows).to_string(index=False))
    print(f"error of the scalogram: median {error.median():.1e}, largest {error.max():.1e} of the peak")
    for row in rows:
        wanted = REACH.get((row["what"], row["peer"]), LEAST.get(row["what"], 0))
        if row["ratio"] < wanted:
            print(f"below its reach: {row['what']} beside {row['peer']}, {row['ratio']} of {wanted}")


if __name__ == "__main__":
    main()
