"""The store: what is written is what is read, whoever writes it and however often it is interrupted."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import threadpoolctl
import torch
from conftest import await_that

from lib import names, store
from lib.features.dwt import ScalogramImage
from lib.features.image import from_sixteen_bits, sixteen_bits

SIZE = {"bins": 16, "frames": 20, "duration": 0.5, "floor": -100.0}
WAYS = {"stft_rate": 8000, "n_fft": 256, "hop": 64, "dwt_rate": 8000, "fmin": 100.0}
SETTINGS = store.Settings(**SIZE, **WAYS, bandwidth=2.0, centre=0.9549, factors=(0.9,), how="pitch")

STEPS, BASES = 255, ("stft", "dwt", "tonnetz")
ALL = tuple(names.REPRESENTATIONS)


def clips(n=5):
    return pd.DataFrame({"clip": [f"clip{i}" for i in range(n)], "sha256": [str(i) for i in range(n)]})


def waveform(row, rate, duration):
    seed = int(row["clip"].removeprefix("clip"))
    t = np.arange(round(rate * duration)) / rate
    noise = 0.01 * np.random.default_rng(seed).standard_normal(t.size)
    return (0.5 * np.sin(2 * np.pi * (200 + 50 * seed) * t) + noise).astype(np.float32)


def augment(sound, rate, factor, how):
    return np.roll(sound, 100) * np.float32(factor)


def slow(row, rate, duration):
    time.sleep(0.15)
    with open(os.environ["STORE_TEST_LOG"], "a") as file:
        file.write(f"{row['clip']} {os.getpid()}\n")
    return waveform(row, rate, duration)


def write(folder, representation="stft_tonnetz", settings=SETTINGS, frame=None, source=waveform, **more):
    frame = clips() if frame is None else frame
    store.write(
        folder,
        frame,
        representation,
        settings,
        waveform=source,
        augment=augment,
        **{"workers": 1, "together": ALL} | more,
    )


def test_images_are_those_of_the_features_within_half_a_step(tmp_path):
    write(tmp_path)
    images = store.open(tmp_path, "stft")
    assert (len(images), images.size, images.copies) == (10, (16, 20), 2)
    sound = waveform({"clip": "clip3"}, 8000, 0.5)
    for copy, heard in enumerate([sound, augment(sound, 8000, 0.9, "pitch")]):
        bits = from_sixteen_bits(torch.from_numpy(sixteen_bits(heard)))
        wanted = SETTINGS.image("stft")(bits[None])
        assert (images[[6 + copy]][:, 0] - wanted).abs().max() <= 0.5001 / STEPS


@pytest.mark.parametrize("representation", names.REPRESENTATIONS)
def test_each_representation_is_assembled_from_its_bases(tmp_path, representation):
    write(tmp_path)
    images = store.open(tmp_path, representation)
    rows = 16 + (11 if "tonnetz" in representation else 0)
    found = images[np.array([4, 0, 4])]
    assert found.shape == (3, 1, rows, 20)
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(found[0], found[2])
    assert len(images.frequencies) == rows
    assert (np.diff(images.frequencies[:16]) > 0).all()
    assert np.isnan(images.frequencies[16:]).all()
    assert images.times == pytest.approx((np.arange(20) + 0.5) * 0.025)


def test_silence_has_a_black_spectrogram_and_a_tonnetz_of_one_half(tmp_path):
    write(tmp_path, source=lambda row, rate, duration: np.zeros(round(rate * duration), np.float32))
    image = store.open(tmp_path, "dwt_tonnetz")[[0]][0, 0]
    assert not image[:16].any()
    assert (image[16:] == 0.5).all()


@pytest.mark.parametrize("representation", names.REPRESENTATIONS)
def test_both_ways_of_keeping_give_the_same_batch(tmp_path, representation):
    write(tmp_path / "a", representation)
    write(tmp_path / "b", representation, dataclasses.replace(SETTINGS, keep="waveforms"))
    kept = store.open(tmp_path / "a", representation)
    made = store.open(tmp_path / "b", representation)
    assert kept.size == made.size
    rows = np.arange(len(kept))
    assert (kept[rows] - made[rows]).abs().max() <= 1 / STEPS


def test_what_is_there_is_not_computed_again(tmp_path):
    write(tmp_path, "stft")
    write(tmp_path, "dwt_tonnetz", source=None)


def test_bases_may_be_computed_apart(tmp_path):
    write(tmp_path, "stft", together=())
    assert not (tmp_path / "dwt.npy").exists()
    with pytest.raises(FileNotFoundError, match=r"dwt\.json"):
        store.open(tmp_path, "dwt")


@pytest.mark.parametrize(
    ("columns", "frames", "averaged"),
    [
        ("auto", 128, True),
        ("auto", 1567, True),
        ("auto", 1568, False),
        ("sampled", 128, False),
        ("averaged", 1568, True),
    ],
)
def test_columns_of_small_images_are_averages(columns, frames, averaged):
    settings = dataclasses.replace(SETTINGS, columns=columns, frames=frames, duration=5.0)
    assert ScalogramImage.arguments(settings)["averaged"] is averaged
    assert (settings.image("dwt").bank[-1].frames > frames) is averaged


@pytest.mark.parametrize("change", [{"floor": -80.0}, {"factors": (0.9, 1.1)}, {"keep": "waveforms"}])
def test_other_settings_make_another_store(tmp_path, change):
    write(tmp_path)
    before = store.open(tmp_path, "stft")[[0]]
    other = dataclasses.replace(SETTINGS, **change)
    write(tmp_path, settings=other)
    after = store.open(tmp_path, "stft")
    assert len(after) == 5 * other.copies
    assert "floor" not in change or not torch.equal(after[[0]], before)


def test_a_setting_of_one_base_leaves_the_others(tmp_path):
    write(tmp_path)
    before = (tmp_path / "stft.npy").stat().st_ino
    write(tmp_path, settings=dataclasses.replace(SETTINGS, fmin=120.0))
    assert (tmp_path / "stft.npy").stat().st_ino == before


def test_another_recording_under_the_same_name_is_noticed(tmp_path):
    write(tmp_path)
    with pytest.raises(TypeError):
        write(tmp_path, frame=clips().assign(sha256="other"), source=None)


def test_many_workers_write_what_one_writes(tmp_path):
    write(tmp_path / "one", frame=clips(8))
    write(tmp_path / "two", frame=clips(8), workers=2)
    for base in BASES:
        one, two = (np.load(tmp_path / name / f"{base}.npy") for name in ("one", "two"))
        assert np.array_equal(one, two)


def counting(row, rate, duration):
    pools = max((pool["num_threads"] for pool in threadpoolctl.threadpool_info()), default=1)
    said = [os.getpid(), torch.get_num_threads(), pools, os.environ["OPENBLAS_NUM_THREADS"]]
    log = Path(os.environ["STORE_TEST_LOG"])
    with log.open("a") as file:
        file.write(" ".join(map(str, said)) + "\n")
    await_that(lambda: len({line.split()[0] for line in log.read_text().splitlines()}) == 2, "both work")
    return waveform(row, rate, duration)


def test_every_process_computes_with_one_thread(tmp_path, monkeypatch):
    monkeypatch.setenv("STORE_TEST_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        write(tmp_path / "store", frame=clips(4), workers=2, source=counting)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    found = {line.split()[0]: line.split()[1:] for line in (tmp_path / "log").read_text().splitlines()}
    helpers = [threads for pid, threads in found.items() if int(pid) != os.getpid()]
    assert helpers == [["1", "1", "1"]]
    assert found[str(os.getpid())] == ["1", "1", "4"]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "4"


def test_two_cells_share_the_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("STORE_TEST_LOG", str(tmp_path / "log"))
    context = multiprocessing.get_context("spawn")
    parts = ["stft", "dwt"]
    cells = [
        context.Process(target=write, args=(tmp_path / "store", part, SETTINGS, clips(12), slow))
        for part in parts
    ]
    for cell in cells:
        cell.start()
    for cell in cells:
        cell.join()
        assert cell.exitcode == 0
    done = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(clip for clip, _ in done) == sorted(clips(12)["clip"])
    assert len(store.open(tmp_path / "store", "dwt_tonnetz")) == 24


@pytest.mark.slow
def test_a_killed_writer_is_taken_over_where_it_stopped(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("STORE_TEST_LOG", str(log))
    context = multiprocessing.get_context("spawn")
    cell = context.Process(target=write, args=(tmp_path / "store", "stft", SETTINGS, clips(40), slow))
    cell.start()
    while not log.exists() or len(log.read_text().splitlines()) < 20:
        time.sleep(0.02)
    os.kill(cell.pid, signal.SIGKILL)
    cell.join()
    assert not (tmp_path / "store" / "stft.json").exists()
    write(tmp_path / "store", "stft", frame=clips(40), source=slow)
    done = [line.split()[0] for line in log.read_text().splitlines()]
    assert len(done) <= 40 + store._BATCH / 0.15 + 2, "a kill loses what one batch holds at most"
    write(tmp_path / "whole", "stft", frame=clips(40))
    for base in BASES:
        assert np.array_equal(
            np.load(tmp_path / "store" / f"{base}.npy"), np.load(tmp_path / "whole" / f"{base}.npy")
        )
    assert not list((tmp_path / "store").glob("*.part"))


def test_a_clip_that_fails_stops_the_cell_and_says_why(tmp_path):
    def broken(row, rate, duration):
        if row["clip"] == "clip3":
            raise ValueError("clip3.ogg: not a recording")
        return waveform(row, rate, duration)

    with pytest.raises(ValueError, match="not a recording"):
        write(tmp_path, source=broken)
    assert not (tmp_path / "stft.json").exists()
    write(tmp_path)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda folder: write(folder, "mel"), "'mel' is none of the parts dwt, stft"),
        (lambda folder: store.open(folder, "mel"), "'mel' is none of the parts dwt, stft"),
        (lambda folder: write(folder, frame=clips(0)), "given 0"),
        (lambda folder: write(folder, frame=clips().assign(clip="one")), "'one'"),
        (lambda folder: dataclasses.replace(SETTINGS, bins=0), "bins = 0"),
        (lambda folder: dataclasses.replace(SETTINGS, keep="floats"), "'floats'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, call, said):
    with pytest.raises(ValueError, match=said):
        call(tmp_path)


BOTH = """
import sys
from tests.test_store import SETTINGS, augment, clips, waveform
from lib import store
from lib.data import audio
store.write(sys.argv[1], clips(), "stft_tonnetz", SETTINGS, waveform=waveform, augment=audio.augment)
"""


@pytest.mark.slow
def test_two_cells_that_compile_at_once_leave_a_cache_that_can_be_read(tmp_path):
    """As on a fresh machine: nothing is compiled yet, and two cells begin."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "numba"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BOTH]
    both = [subprocess.Popen([*command, str(tmp_path / name)], env=env) for name in ("one", "other")]
    assert [process.wait() for process in both] == [0, 0]
    assert any((tmp_path / "numba").rglob("*.nbi"))
    assert subprocess.run([*command, str(tmp_path / "third")], env=env, check=False).returncode == 0
