"""One clip as samples: decoded, mixed to mono, resampled, cut or padded, and its copies at another pitch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from lib import samples
from lib.data import demo, pitch

_WHOLE = 0.99  # the share of the promised samples below which a file counts as truncated
_RATES = (1000, 1_000_000)  # Hz; a header that says another rate is not believed
_MOST = 1 << 28  # samples of all channels, a GiB once decoded: more is a recording, not a clip
_UNSAID = 0x7FFF0000  # bytes; a header that promises more was written before the length was known
_CUT = re.compile(r"(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)")  # libsndfile's log


def decode(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Decode an audio file as it is.

    Returns
    -------
    float32 (frames, channels), full scale 1, and the rate in Hz.

    Raises
    ------
    ValueError : if the file is none that libsndfile reads, is empty, ends before its header says, or
        says a rate or a length that no clip has.
    """
    if os.path.getsize(path) == 0:
        raise ValueError("the file has no bytes")
    try:
        with soundfile.SoundFile(path) as file:
            promised, rate, log = file.frames, file.samplerate, file.extra_info
            if not _RATES[0] <= rate <= _RATES[1]:
                raise ValueError(f"a rate of {rate} Hz, not one within {_RATES[0]} and {_RATES[1]} Hz")
            if promised * file.channels > _MOST:
                raise ValueError(f"{promised / rate:.0f} s are promised, too long for a clip: cut it")
            sound = file.read(promised, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"no audio that can be decoded: {str(error).rpartition(': ')[2]}") from error
    if len(sound) == 0:
        raise ValueError("the file has no samples")
    if len(sound) < _WHOLE * promised:
        raise ValueError(f"truncated: {len(sound)} of {promised} samples are there")
    for said, there in _CUT.findall(log):  # libsndfile believes the file's length, not the header's
        if int(there) < _WHOLE * int(said) and int(said) < _UNSAID:
            raise ValueError(f"truncated: {there} of {said} bytes are there")
    return sound, rate


def waveform(clip: Mapping[str, Any] | pd.Series, rate: int, duration: float) -> np.ndarray:
    """Decode or synthesise a clip, mixed to mono, at a rate and length.

    Parameters
    ----------
    clip : a row of :func:`clips`; ``path`` and, for toy sounds, ``clip`` are read.
    rate : Hz, reached by soxr's high quality.
    duration : s; a longer clip is cut, a shorter one followed by zeros.

    Returns
    -------
    float32 (round(duration · rate),).
    """
    length = round(duration * rate)
    if rate <= 0 or length <= 0:
        raise ValueError(f"rate = {rate} Hz and duration = {duration} s leave no sample")
    sound, native = _mono(clip)
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


def _mono(clip: Mapping[str, Any] | pd.Series) -> tuple[np.ndarray, int]:
    if not clip["path"]:
        return demo.sound(clip["clip"]), demo.RATE
    try:
        sound, rate = decode(clip["path"])
    except (ValueError, OSError) as error:
        raise ValueError(f"{clip['path']}: {error}") from error
    return sound.mean(axis=1), rate
