"""One clip as samples: decoded, mixed to mono, resampled, cut or padded, and its copies at another pitch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lib import files, samples
from lib.data import pitch, toy
from lib.data.decoding import decode

OFFSET = 0.1  # of the effective value of the sound about it, from which a constant offset is taken away
_RUN = 64  # zeros in a row that are digital silence
_CANCELS = 0.01  # of the channels' power: a mean of channels with less is not the sound


def mono(sound: np.ndarray) -> np.ndarray:
    """The mean of the channels, (samples, channels) to (samples,); one of the loudest where they cancel."""
    mixed = sound.mean(axis=1)
    power = np.square(sound, dtype=np.float64).mean(axis=0)
    if np.square(mixed, dtype=np.float64).mean() < _CANCELS * power.mean():
        return sound[:, np.argmax(power > 0.99 * power.max())]
    return mixed


def offset(sound: np.ndarray) -> tuple[float, float]:
    """A recorder's constant offset, and as a multiple of the effective value of the sound about it.

    Both are taken over those of the (samples,) that are not digital silence.
    """
    return _offset(sound[~_silent(sound)])


def centred(sound: np.ndarray) -> np.ndarray:
    """``sound`` without its constant offset, where that is more than a tenth of its effective value.

    The peak of a clip, to which its images are relative, would otherwise be the offset's. Digital silence
    stays silent, and a smaller offset, which hardly shows, stays.
    """
    silent = _silent(sound)
    constant, share = _offset(sound[~silent])
    return sound if abs(share) <= OFFSET else np.where(silent, 0, sound - np.float32(constant))


def _silent(sound: np.ndarray) -> np.ndarray:
    """Which samples are digital silence: runs of zeros, not those that a sound passes through zero at."""
    edges = np.flatnonzero(np.diff(sound == 0, prepend=False, append=False))
    silent = np.zeros(sound.size, bool)
    for begin, end in edges.reshape(-1, 2):
        silent[begin:end] = end - begin >= _RUN
    return silent


def _offset(heard: np.ndarray) -> tuple[float, float]:
    constant = float(heard.mean(dtype=np.float64)) if heard.size else 0.0
    about = float(heard.std(dtype=np.float64)) if heard.size else 0.0
    return constant, constant / about if about else math.copysign(math.inf, constant) if constant else 0.0


def waveform(clip: Mapping[str, Any] | pd.Series, rate: int, duration: float) -> np.ndarray:
    """Decode or synthesise a clip, mixed to mono without offset, at a rate and length.

    Parameters
    ----------
    clip : a row of the manifest; ``path`` and, for toy sounds, ``clip`` are read, and where it has
        ``sha256`` the file must be the one that chapter 1 listened to.
    rate : Hz, reached by soxr's high quality.
    duration : s; a longer clip is cut, a shorter one followed by zeros.

    Returns
    -------
    float32 (round(duration · rate),).

    Raises
    ------
    ValueError : naming the file, if it cannot be decoded or is another one than chapter 1 listened to.
    """
    length = round(duration * rate)
    if rate <= 0 or length <= 0:
        raise ValueError(f"rate = {rate} Hz and duration = {duration} s leave no sample")
    if not clip["path"]:
        sound, native = toy.sound(clip["clip"]), toy.RATE
    else:
        if clip.get("sha256") and files.digest(clip["path"]) != clip["sha256"]:
            raise ValueError(
                f"{clip['path']} is not the file that chapter 1 listened to: run chapter 1 again"
            )
        try:
            decoded, native = decode(clip["path"])
        except (ValueError, OSError) as error:
            raise ValueError(f"{clip['path']}: {error}") from error
        sound = mono(decoded)
    sound = centred(sound)
    return samples.resample(sound[: int(np.ceil((duration + 0.1) * native))], native, rate, length)


def augment(waveform: np.ndarray, rate: int, factor: float, how: str = "pitch") -> np.ndarray:
    """A copy of a clip at another pitch: reading 6 of the paper's scales 0.75, 0.9, 1.15, 1.5.

    Parameters
    ----------
    waveform : float32 (samples,).
    rate : Hz.
    factor : above 1 higher; 1 is the clip itself.
    how : ``pitch`` shifts by 12·log2(factor) semitones and keeps the duration; ``speed`` plays faster,
        higher and shorter (zeros follow) or slower, lower and cut.

    Returns
    -------
    float32 (samples,).
    """
    if not 0.25 <= factor <= 4:
        raise ValueError(f"factor = {factor} is not within 0.25 and 4")
    if how not in ("pitch", "speed"):
        raise ValueError(f"how = {how!r} is neither 'pitch' nor 'speed'")
    if factor == 1:
        return waveform.astype(np.float32)
    if how == "speed":
        return samples.resample(waveform, factor, 1.0, waveform.size)
    return pitch.shift(waveform, factor)
