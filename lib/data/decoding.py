"""An audio file as samples, whole or not at all.

libsndfile decodes nearly everything, but takes the length of some files from where it does not stand: it
guesses that of an MP3 from the first frame's bit rate, believes a FLAC header that left the length open, and
ends with the first stream of a chained Ogg. These are found here by their first bytes. MP3, and FLAC of open
length, are decoded to their end by miniaudio (2.6 MB installed, as fast, 16 bits cut at full scale); the
streams of a chain are decoded one by one.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import BinaryIO

import miniaudio
import numpy as np
import soundfile

_WHOLE = 0.99  # the share of the promised samples below which a file counts as truncated
_RATES = (1000, 1_000_000)  # Hz; a header that says another rate is not believed
_MOST = 1 << 28  # samples of all channels, a GiB once decoded: more is a recording, not a clip
BYTES = 1 << 31  # of a file that holds as many samples in double precision; a larger one is not opened
_UNSAID = 0x7FFF0000  # bytes; a header that promises more was written before the length was known
_CUT = re.compile(r"(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)")  # libsndfile's log
_TAG = b"ID3"
_FRAME = 2**10  # bytes within which an MP3's first frame and its Xing header lie


def decode(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Decode an audio file as it is.

    Returns
    -------
    float32 (samples, channels), full scale 1, and the rate in Hz.

    Raises
    ------
    ValueError : if the file is none that can be decoded, is empty, ends before its header says, or says
        a rate or a length that no clip has; the sentence says what was found.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise ValueError("the file has no bytes")
    if size > BYTES:
        raise ValueError(f"{size / 1e9:.1f} GB are too many for a clip: cut it")
    with open(path, "rb") as file:
        head = file.read(32)
        mp3 = _samples_of_mp3(file)
        streams = _ogg_streams(file) if head.startswith(b"OggS") else [0]
    if head.startswith(b"fLaC") and not (head[21] & 0x0F or any(head[22:26])):
        sound, rate = _counted("flac", path)
    elif mp3 is not None:
        sound, rate = _counted("mp3", path)
        _check_whole(len(sound), mp3, "samples")
    elif len(streams) > 1:
        sound, rate = _chained(Path(path).read_bytes(), streams)
    else:
        sound, rate = _of_libsndfile(path)
    if len(sound) == 0:
        held = "" if size < 2**10 else f", though it has {size} bytes: its header was not finished"
        raise ValueError(f"the file has no samples{held}")
    return sound, rate


def _of_libsndfile(source: str | os.PathLike | BinaryIO) -> tuple[np.ndarray, int]:
    try:
        with soundfile.SoundFile(source) as file:
            promised, rate, log = file.frames, file.samplerate, file.extra_info
            _check(promised, file.channels, rate)
            sound = file.read(promised, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        found = str(error).rpartition(": ")[2].rstrip(".") or type(error).__name__
        raise ValueError(f"no audio that can be decoded (libsndfile: {found})") from error
    _check_whole(len(sound), promised, "samples")
    for stated, there in _CUT.findall(log):  # libsndfile believes the file's length, not the header's
        if int(stated) < _UNSAID:
            _check_whole(int(there), int(stated), "bytes")
    return sound, rate


def _check(samples: int, channels: int, rate: int) -> None:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"a rate of {rate} Hz, not one within {_RATES[0]} and {_RATES[1]} Hz")
    if samples * channels > _MOST:
        raise ValueError(f"{samples / rate:.0f} s are too long for a clip: cut it")


def _check_whole(there: int, promised: int, what: str) -> None:
    if there < _WHOLE * promised:
        raise ValueError(f"truncated: {there} of {promised} {what} are there")


def _counted(form: str, path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Decode an mp3 or flac to its end, whatever its header says of its length."""
    try:
        about = getattr(miniaudio, f"{form}_get_file_info")(str(path))
        _check(about.num_frames, about.nchannels, about.sample_rate)
        found = getattr(miniaudio, f"{form}_read_file_f32")(str(path))
    except miniaudio.MiniaudioError as error:
        raise ValueError(f"no {form.upper()} that can be decoded") from error
    return np.array(found.samples, np.float32).reshape(-1, found.nchannels), found.sample_rate


# --- MP3 ------------------------------------------------------------------------------------------------


def _samples_of_mp3(file: BinaryIO) -> int | None:
    """How many samples the first frame of an MP3 states, 0 where it states none; None for another file.

    Raises
    ------
    ValueError : if the file ends with its tag.
    """
    begin = 0
    file.seek(0)
    while (tag := file.read(10)).startswith(_TAG) and len(tag) == 10:
        begin += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        file.seek(begin)
    file.seek(begin)
    head = file.read(_FRAME).lstrip(b"\0")
    if begin and not head:
        raise ValueError(f"the file ends with its tag of {begin} bytes: there is no sound in it")
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # 11 bits of sync, layer III
        return None
    at = max(head.find(b"Xing", 0, 64), head.find(b"Info", 0, 64))
    if at < 0 or not head[at + 7] & 1:
        return 0
    # Less what the encoder adds at both ends, at most three frames, which a decoder may take away.
    of_frame = 1152 if head[1] & 0x08 else 576
    return max(0, int.from_bytes(head[at + 8 : at + 12], "big") - 3) * of_frame


# --- Ogg ------------------------------------------------------------------------------------------------


def _ogg_streams(file: BinaryIO) -> list[int]:
    """The bytes at which the links of a chained Ogg begin; one, 0, for a plain file."""
    begins, at, opening = [], 0, False
    file.seek(0)
    while len(page := file.read(27)) == 27 and page.startswith(b"OggS"):
        first = bool(page[5] & 2)
        if first and not opening:
            begins.append(at)
        opening = first
        segments = file.read(page[26])
        at += 27 + len(segments) + sum(segments)
        file.seek(at)
    return begins


def _chained(content: bytes, begins: list[int]) -> tuple[np.ndarray, int]:
    links = [
        _of_libsndfile(io.BytesIO(content[a:b])) for a, b in zip(begins, [*begins[1:], None], strict=True)
    ]
    forms = {(rate, sound.shape[1]) for sound, rate in links}
    if len(forms) > 1:
        raise ValueError(f"a chain of {len(links)} streams that differ in rate or channels: part them")
    return np.concatenate([sound for sound, _ in links]), links[0][1]
