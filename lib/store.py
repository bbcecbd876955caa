"""The images of all clips: computed once, one byte a value, read back as batches in [0, 1].

STFT, scalogram and tonnetz are computed once each, whatever representations are asked for, and the four
representations are assembled from them when a batch is read. A base lies in three files: ``NAME.npy``,
``NAME.json`` (what it is; it appears last) and, while it is being made, ``NAME.part.npy`` with
``NAME.done.npy``, from which a killed run goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import features, study

TONNETZ_SHARE = 540 / 768  # rows of tonnetz for each row of spectrogram: the paper's 1568 × 540 to 768
STEPS = 255  # of one byte over [0, 1]; on the 100 dB of a spectrogram one step is 0.39 dB


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the images of a store are made with; readings 1 to 6 of the paper. Chapter 2.

    Parameters
    ----------
    bins, frames : rows and columns of a spectrogram's image; tonnetz adds 540/768 of the rows.
    duration : s of every clip, cut or followed by silence.
    stft_rate, n_fft, hop : Hz and samples of the STFT.
    dwt_rate, fmin, bandwidth, centre : Hz, Hz, and B and C of the complex Morlet of the scalogram.
    floor : dB below a clip's peak that is 0 in the image.
    factors : pitch factors of the copies beside the original.
    how : ``pitch`` or ``speed``, how copies are made.
    """

    bins: int
    frames: int
    duration: float
    stft_rate: int
    n_fft: int
    hop: int
    dwt_rate: int
    fmin: float
    bandwidth: float
    centre: float
    floor: float
    factors: tuple[float, ...]
    how: str

    def __post_init__(self) -> None:
        for name in ("bins", "frames", "duration", "stft_rate", "n_fft", "hop", "dwt_rate", "fmin"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be above 0")
        object.__setattr__(self, "factors", tuple(map(float, self.factors)))

    @property
    def copies(self) -> int:
        """Rows of the store for each clip: the original and its copies."""
        return 1 + len(self.factors)

    def image(self, base: str) -> Callable[[np.ndarray], np.ndarray]:
        """What turns a waveform at ``self.rate(base)`` into a base's image, values in [0, 1]."""
        return {"stft": _Stft, "dwt": _Dwt, "tonnetz": _Tonnetz}[base](self)

    def rate(self, base: str) -> int:
        """The rate in Hz at which a base is computed."""
        return {"stft": self.stft_rate, "dwt": self.dwt_rate, "tonnetz": features.tonnetz.__defaults__[0]}[
            base
        ]

    def rows(self, base: str) -> int:
        """The rows of a base as it is stored."""
        return 6 if base == "tonnetz" else self.bins

    @property
    def times(self) -> np.ndarray:
        """Seconds of the middle of each column."""
        return (np.arange(self.frames) + 0.5) * self.duration / self.frames


class _Stft:
    def __init__(self, of: Settings) -> None:
        self.of, self.stft = of, features.STFT(of.stft_rate, n_fft=of.n_fft, hop=of.hop)
        samples, heard = round(of.duration * of.stft_rate), of.n_fft // 2 + 1
        self.rows = (np.arange(of.bins) + 0.5) * heard / of.bins - 0.5
        self.low = features.Resize(heard, self.rows, dim=-2)
        self.long = features.Resize(self.stft.columns(samples), of.times * of.stft_rate / of.hop, dim=-1)
        self.frequencies = np.interp(self.rows, np.arange(heard), self.stft.frequencies)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        view = features.log_view(self.stft(torch.from_numpy(waveform)), self.of.floor)
        return self.long(self.low(view)).numpy()


class _Dwt:
    def __init__(self, of: Settings) -> None:
        self.of = of
        self.scalogram = features.Scalogram(
            of.dwt_rate,
            bins=of.bins,
            frames=of.frames,
            fmin=of.fmin,
            bandwidth=of.bandwidth,
            centre=of.centre,
        )
        self.frequencies = self.scalogram.frequencies

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return features.log_view(self.scalogram(torch.from_numpy(waveform)), self.of.floor).numpy()


class _Tonnetz:
    def __init__(self, of: Settings) -> None:
        self.of, self.frequencies = of, np.full(6, np.nan)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        found = torch.from_numpy(features.tonnetz(waveform))
        positions = self.of.times * features.TONNETZ_RATE / features.TONNETZ_HOP
        return (features.Resize(found.shape[-1], positions, dim=-1)(found).numpy() + 1) / 2


# ---------------------------------------------------------------------------------------------- writing


def write(
    folder: str | os.PathLike,
    clips: pd.DataFrame,
    representation: str,
    settings: Settings,
    *,
    waveform: Callable[[Any, int, float], np.ndarray],
    augment: Callable[[np.ndarray, int, float, str], np.ndarray],
    workers: int = 0,
    progress: Callable[..., Iterable] = lambda items, what, total: items,
) -> None:
    """Compute those bases of a representation that the store does not hold yet.

    A second writer of a base waits for the first and then finds it there. A writer that was killed is
    taken over where it stopped.

    Parameters
    ----------
    clips : a row a clip, with its id in ``clip``.
    waveform : (row, rate, duration) to float32 samples.
    augment : (samples, rate, factor, how) to as many samples.
    workers : processes; 0 is as many as torch may use threads.

    Raises
    ------
    ValueError : if the representation is unknown, or the store holds it for other clips or settings.
    """
    if representation not in features.PARTS:
        known = ", ".join(features.REPRESENTATIONS)
        raise ValueError(f"representation = {representation!r} is none of {known}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    said = _described(clips, settings)
    for base in features.PARTS[representation]:
        with study.locked(folder / f"{base}.npy"):
            if _held(folder, base) == said:
                continue
            (folder / f"{base}.json").unlink(missing_ok=True)
            _write_base(folder, base, clips, settings, said, waveform, augment, workers, progress)


def _described(clips: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    facts = dataclasses.asdict(settings) | {"factors": list(settings.factors)}
    digest = hashlib.sha256(json.dumps([facts, clips["clip"].to_list()]).encode()).hexdigest()
    return {"settings": facts, "clips": len(clips), "digest": digest}


def _held(folder: Path, base: str) -> dict[str, Any] | None:
    path = folder / f"{base}.json"
    if not path.exists():
        return None
    facts = study.load(path)
    return {name: facts[name] for name in ("settings", "clips", "digest")}


def _write_base(folder, base, clips, settings, said, waveform, augment, workers, progress) -> None:
    shape = (len(clips) * settings.copies, settings.rows(base), settings.frames)
    part, done_path = folder / f"{base}.part.npy", folder / f"{base}.done.npy"
    mark = folder / f"{base}.part.json"
    if not (mark.exists() and study.load(mark) == said):
        for path in (mark, part, done_path):
            path.unlink(missing_ok=True)
        np.lib.format.open_memmap(part, "w+", np.uint8, shape).flush()
        np.lib.format.open_memmap(done_path, "w+", np.bool_, (len(clips),)).flush()
        study.save(mark, said)
    stored = np.lib.format.open_memmap(part, "r+")
    done = np.lib.format.open_memmap(done_path, "r+")
    open_ = np.flatnonzero(~done)
    job = functools.partial(_of_clip, base, settings, waveform, augment)
    rows = [clips.iloc[i].to_dict() for i in open_]
    with _pool(workers or torch.get_num_threads(), len(rows)) as mapped:
        for i, images in zip(open_, progress(mapped(job, rows), base, len(rows)), strict=True):
            stored[i * settings.copies : (i + 1) * settings.copies] = images
            stored.flush()
            done[i] = True
    study.put(part, folder / f"{base}.npy")
    frequencies = settings.image(base).frequencies
    axes = {"frequencies": None if np.isnan(frequencies).any() else frequencies.tolist()}
    study.save(folder / f"{base}.json", said | axes | {"times": settings.times.tolist(), "shape": shape})
    for path in (mark, done_path):
        path.unlink()


def _of_clip(base, settings, waveform, augment, row) -> np.ndarray:
    """Original and copies of one clip, uint8 (copies, rows, frames)."""
    image, rate = _image(settings, base), settings.rate(base)
    sound = waveform(row, rate, settings.duration)
    sounds = [sound, *(augment(sound, rate, factor, settings.how) for factor in settings.factors)]
    values = np.stack([image(sound) for sound in sounds])
    return np.rint(values * STEPS).astype(np.uint8)


@functools.lru_cache
def _image(settings: Settings, base: str) -> Callable[[np.ndarray], np.ndarray]:
    return settings.image(base)


@contextlib.contextmanager
def _pool(workers: int, jobs: int) -> Iterator[Callable[..., Iterable]]:
    if workers <= 1 or jobs <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(min(workers, jobs), get_context("forkserver"), torch.set_num_threads, (1,))
    try:
        yield functools.partial(pool.map, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------------------------------------- reading


class Images:
    """The images of one representation, read from the store as they are asked for.

    ``images[rows]`` is float32 (n, 1, rows, frames) in [0, 1], lowest frequency first, tonnetz above.
    Row position · copies + copy is that copy of the clip at that position; copy 0 is the original.
    """

    def __init__(self, folder: str | os.PathLike, representation: str) -> None:
        self.bases = {}
        for base in features.PARTS[representation]:
            facts = study.load(Path(folder) / f"{base}.json")
            self.bases[base] = np.load(Path(folder) / f"{base}.npy", mmap_mode="r")
        self.settings = Settings(**facts["settings"])
        self.height = round(TONNETZ_SHARE * self.settings.bins) if "tonnetz" in self.bases else 0
        self.size = (self.settings.bins + self.height, self.settings.frames)
        first = next(iter(self.bases))
        low = np.array(study.load(Path(folder) / f"{first}.json")["frequencies"])
        self.frequencies = np.concatenate([low, np.full(self.height, np.nan)])
        self.times = self.settings.times
        self.copies = self.settings.copies

    def __len__(self) -> int:
        return len(next(iter(self.bases.values())))

    def __getitem__(self, rows: Sequence[int]) -> torch.Tensor:
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim != 1:
            raise ValueError(f"rows of a store come as a list, given shape {rows.shape}")
        parts = []
        for base, stored in self.bases.items():
            part = stored[rows]
            if base == "tonnetz":
                part = part[:, np.arange(self.height) * part.shape[1] // self.height]
            parts.append(torch.from_numpy(part))
        return torch.cat(parts, dim=1)[:, None].float() / STEPS


def open(folder: str | os.PathLike, representation: str) -> Images:
    """The images of a representation that :func:`write` has left in ``folder``.

    Raises
    ------
    FileNotFoundError : if the store does not hold it.
    ValueError : if the representation is unknown.
    """
    if representation not in features.PARTS:
        known = ", ".join(features.REPRESENTATIONS)
        raise ValueError(f"representation = {representation!r} is none of {known}")
    return Images(folder, representation)
