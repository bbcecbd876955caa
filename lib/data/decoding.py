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
from collections.abc import Callable
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
_XING = re.compile(b"Xing|Info")
_DEPTHS = (13, 21, 36)  # bytes from an MP3 frame's beginning to that mark


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
        begin = _after_tags(file, head)
        file.seek(begin)
        first = file.read(4)
    if begin >= size:
        raise ValueError(f"the file ends with its tag of {begin} bytes: there is no sound in it")
    if head.startswith(b"fLaC") and not (head[21] & 0x0F or any(head[22:26])):
        sound, rate = _counted("flac", Path(path).read_bytes())
    elif len(first) == 4 and first[0] == 0xFF and first[1] & 0xE6 == 0xE2:  # 11 bits of sync, layer III
        sound, rate = _joined(_mp3s(Path(path).read_bytes(), begin), _mp3)
    elif head.startswith(b"OggS"):
        sound, rate = _joined(
            _ogg_links(Path(path).read_bytes()), lambda link: _of_libsndfile(io.BytesIO(link))
        )
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


def _counted(form: str, content: bytes) -> tuple[np.ndarray, int]:
    """Decode an mp3 or flac to its end, whatever its header says of its length."""
    try:
        about = getattr(miniaudio, f"{form}_get_info")(content)
        _check(about.num_frames, about.nchannels, about.sample_rate)
        found = getattr(miniaudio, f"{form}_read_f32")(content)
    except miniaudio.MiniaudioError as error:
        raise ValueError(f"no {form.upper()} that can be decoded") from error
    return np.array(found.samples, np.float32).reshape(-1, found.nchannels), found.sample_rate


def _joined(parts: list[bytes], decoded: Callable[[bytes], tuple[np.ndarray, int]]) -> tuple[np.ndarray, int]:
    """The sound of files that were joined to one, such as the links of a chained Ogg."""
    found = [decoded(part) for part in parts]
    forms = {(rate, sound.shape[1]) for sound, rate in found}
    if len(forms) > 1:
        raise ValueError(f"a chain of {len(found)} streams that differ in rate or channels: part them")
    sounds = [sound for sound, _ in found]
    _check(sum(map(len, sounds)), sounds[0].shape[1], found[0][1])
    return np.concatenate(sounds) if len(sounds) > 1 else sounds[0], found[0][1]


def _after_tags(file: BinaryIO, head: bytes) -> int:
    """The byte at which an MP3 begins behind its tags; 0 where there are none."""
    begin = 0
    while (tag := head if not begin else file.read(10)).startswith(b"ID3") and len(tag) >= 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
        begin += 10 + size
        file.seek(begin)
    return begin


def _mp3s(content: bytes, begin: int) -> list[bytes]:
    """The MP3 files that were joined to one: each has a first frame that states its length, with a mark."""
    begins = [begin]
    for mark in _XING.finditer(content, begin + 1):
        heads = [mark.start() - depth for depth in _DEPTHS if mark.start() - depth > begin]
        begins += [at for at in heads if content[at] == 0xFF and content[at + 1] & 0xE6 == 0xE2]
    begins = sorted(set(begins))
    return [content[a:b] for a, b in zip(begins, [*begins[1:], None], strict=True)]


def _mp3(content: bytes) -> tuple[np.ndarray, int]:
    sound, rate = _counted("mp3", content)
    mark = _XING.search(content, 0, 64)
    if mark and content[mark.start() + 7] & 1:
        # Less what the encoder adds at both ends, at most three frames, which a decoder may take away.
        frames = int.from_bytes(content[mark.start() + 8 : mark.start() + 12], "big") - 3
        _check_whole(len(sound), frames * (1152 if content[1] & 0x08 else 576), "samples")
    return sound, rate


def _ogg_links(content: bytes) -> list[bytes]:
    """The links of a chained Ogg, one for a plain file; what lies between pages is passed over."""
    begins, at, opening = [], 0, False
    while (at := content.find(b"OggS", at)) >= 0 and at + 27 <= len(content):
        first = bool(content[at + 5] & 2)
        if first and not opening:
            begins.append(at)
        opening = first
        segments = content[at + 27 : at + 27 + content[at + 26]]
        at += 27 + len(segments) + sum(segments)
    begins = begins or [0]
    return [content[a:b] for a, b in zip(begins, [*begins[1:], None], strict=True)]
