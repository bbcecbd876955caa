"""The images of all clips: computed once, one byte a value, read back as batches in [0, 1].

STFT, scalogram and tonnetz (the bases) are computed once each, whatever representations are asked for, and
the four representations are assembled from them when a batch is read. A base is two files: ``NAME.npy``,
read as memory-mapped, and ``NAME.json``, which says what it is and appears last. While it is being made,
``NAME.npy.part`` grows and ``NAME.done`` holds a byte a clip, from which a killed run goes on. Any number of
processes, of one cell or of several, work on the clips of a store together: each claims one clip after
another by a lock on a byte of ``claims``, which its death gives back.

The other way of keeping, for machines with a GPU, is the waveforms in 16 bits; their images are computed
batch by batch on the device. Both ways start from the same 16 bits, so the same batch comes out, to within
one step of a byte.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd
import torch

from lib import features, files

TONNETZ_SHARE = 540 / 768  # rows of tonnetz for each row of spectrogram: the paper's 1568 × 540 to 768
STEPS = 255  # of one byte over [0, 1]; on the 100 dB of a spectrogram one step is 0.39 dB
TONNETZ_STEPS = 254  # even, so that zero, one half of the image, is a step
BASES = ("stft", "dwt", "tonnetz")
KEPT = ("images", "waveforms")
VERSION = 2  # of what the bytes mean; a store of another version is made again
_WAIT = 0.2  # s between two looks at a clip that another process is at


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
    keep : ``images``, one byte a value, or ``waveforms``, 16 bits a sample, images made on the device.
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
    keep: str = "images"

    def __post_init__(self) -> None:
        for name in ("bins", "frames", "duration", "stft_rate", "n_fft", "hop", "dwt_rate", "fmin"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be above 0")
        if self.keep not in KEPT:
            raise ValueError(f"keep = {self.keep!r} is none of {', '.join(KEPT)}")
        object.__setattr__(self, "factors", tuple(map(float, self.factors)))

    @property
    def copies(self) -> int:
        """Rows of the store for each clip: the original and its copies."""
        return 1 + len(self.factors)

    @property
    def rate(self) -> int:
        """Hz at which clips are decoded and shifted once for all bases."""
        return max(self.stft_rate, self.dwt_rate)

    @property
    def times(self) -> np.ndarray:
        """Seconds of the middle of each column."""
        return (np.arange(self.frames) + 0.5) * self.duration / self.frames

    def parts(self, base: str) -> dict[str, Any]:
        """Those settings that a base depends on."""
        size = {"duration": self.duration, "frames": self.frames}
        spectrogram = size | {"bins": self.bins, "floor": self.floor}
        return {
            "stft": spectrogram | {"rate": self.stft_rate, "n_fft": self.n_fft, "hop": self.hop},
            "dwt": spectrogram
            | {
                "rate": self.dwt_rate,
                "fmin": self.fmin,
                "bandwidth": self.bandwidth,
                "centre": self.centre,
            },
            "tonnetz": size,
        }[base]

    def image(self, base: str) -> features.STFTImage | features.ScalogramImage | features.TonnetzImage:
        """What turns waveforms at its ``rate`` into a base's images, values in [0, 1]."""
        makes = {
            "stft": features.STFTImage,
            "dwt": features.ScalogramImage,
            "tonnetz": features.TonnetzImage,
        }
        return makes[base](**self.parts(base))


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
    together: bool = True,
    progress: Callable[..., Iterable] = lambda items, what, total: items,
) -> None:
    """Compute those bases of a representation that the store does not hold yet.

    A second writer shares the work of the first. What a killed writer had finished stays.

    Parameters
    ----------
    clips : a row a clip, with its id in ``clip``.
    waveform : (row, rate, duration) to float32 samples.
    augment : (samples, rate, factor, how) to as many samples.
    workers : processes; 0 is as many as torch may use threads.
    together : compute the bases of the other representations too, so that each clip is decoded and
        shifted once.

    Raises
    ------
    ValueError : if the representation is unknown, there is no clip, or two clips have one id.
    """
    _known(representation)
    if not len(clips) or clips["clip"].duplicated().any():
        twice = clips.loc[clips["clip"].duplicated(), "clip"].head(1).to_list()
        raise ValueError(f"a store takes clips with ids of their own, given {len(clips)} with {twice} twice")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _compile(settings, augment)
    facts = {
        base: _facts(clips, settings, base)
        for base in (BASES if together else features.PARTS[representation])
    }
    rows = clips.to_dict("records")
    with contextlib.ExitStack() as stack:
        with files.locked(folder / "store"):
            missing = [base for base in facts if _held(folder, base) != facts[base]["digest"]]
            for base in missing:
                _begin(folder, base, facts[base])
            digests = {base: facts[base]["digest"] for base in missing}
            opened = _files(stack, folder, digests)
        if not missing:
            return
        helpers = min(workers or torch.get_num_threads(), len(rows)) - 1
        with _helpers(helpers, (folder, digests, rows, settings, waveform, augment)):
            done = _work(opened, rows, settings, waveform, augment)
            for _ in progress(done, "+".join(missing), len(rows)):
                pass
    with files.locked(folder / "store"):
        for base in missing:
            if _held(folder, base) != facts[base]["digest"]:
                _end(folder, base, facts[base])


def _compile(settings: Settings, augment: Callable[[np.ndarray, int, float, str], np.ndarray]) -> None:
    """Have numba compile, in one process at a time, all that images and copies need.

    What it compiles it caches beside librosa. Two processes that do so at once can leave a cache that
    crashes everyone who reads it.
    """
    place = Path(librosa.__file__).parent
    if not os.access(place, os.W_OK):  # numba then caches in the user's home
        place = Path.home() / ".cache" / "numba"
        place.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).standard_normal(round(settings.rate * settings.duration))
    with files.locked(place / "compile"):
        for base in BASES:
            image = settings.image(base)
            image(torch.from_numpy(np.resize(noise, image.samples).astype(np.float32))[None])
        for factor in settings.factors[:1]:
            augment(noise.astype(np.float32), settings.rate, factor, settings.how)


def _known(representation: str) -> None:
    if representation not in features.PARTS:
        known = ", ".join(features.REPRESENTATIONS)
        raise ValueError(f"representation = {representation!r} is none of {known}")


def _facts(clips: pd.DataFrame, settings: Settings, base: str) -> dict[str, Any]:
    """What a base's sidecar says; the digest tells whether a store holds what is wanted."""
    image = settings.image(base)
    waveforms = settings.keep == "waveforms" and base != "tonnetz"
    shape = [image.samples] if waveforms else [len(image.frequencies), settings.frames]
    recordings = clips["sha256"].to_list() if "sha256" in clips else []
    made = {
        "version": VERSION,
        "parts": settings.parts(base),
        "from": [settings.rate, settings.factors, settings.how],
        "waveforms": waveforms,
        "clips": [clips["clip"].to_list(), recordings],
    }
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    frequencies = None if np.isnan(image.frequencies).any() else image.frequencies.tolist()
    return {
        "digest": digest,
        "settings": dataclasses.asdict(settings) | {"factors": list(settings.factors)},
        "clips": clips["clip"].to_list(),
        "shape": [len(clips) * settings.copies, *shape],
        "dtype": "int16" if waveforms else "uint8",
        "frequencies": frequencies,
        "times": image.times.tolist(),
    }


def _held(folder: Path, base: str) -> str:
    path = folder / f"{base}.json"
    return files.load(path)["digest"] if path.exists() else ""


def _part(folder: Path, base: str, digest: str) -> Path:
    return folder / f"{base}.{digest}.npy.part"


def _done(folder: Path, base: str, digest: str) -> Path:
    return folder / f"{base}.{digest}.done"


def _begin(folder: Path, base: str, facts: dict[str, Any]) -> None:
    """Lay out a base's file unless an earlier run did; leftovers of other settings go."""
    part, done = _part(folder, base, facts["digest"]), _done(folder, base, facts["digest"])
    for other in [*folder.glob(f"{base}.*.npy.part"), *folder.glob(f"{base}.*.done")]:
        if other not in (part, done):
            other.unlink(missing_ok=True)
    if done.exists():
        return
    header = {"descr": np.dtype(facts["dtype"]).str, "fortran_order": False, "shape": tuple(facts["shape"])}
    with part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(facts["shape"])) * np.dtype(facts["dtype"]).itemsize)
    with files.atomic(done) as empty:
        empty.write_bytes(bytes(len(facts["clips"])))


def _end(folder: Path, base: str, facts: dict[str, Any]) -> None:
    """Give a finished base its names: the array's first, then that of the sidecar."""
    part, done = _part(folder, base, facts["digest"]), _done(folder, base, facts["digest"])
    (folder / f"{base}.json").unlink(missing_ok=True)
    if part.exists():  # else an earlier run ended between the two names
        files.put(part, folder / f"{base}.npy")
    files.save(folder / f"{base}.json", facts)
    done.unlink(missing_ok=True)


def _files(stack: contextlib.ExitStack, folder: Path, digests: dict[str, str]) -> dict[str, Any]:
    """Open what the work is written to, once a process: closing a file ends its process's locks on it."""

    def handle(path: Path, flags: int = 0) -> int:
        opened = os.open(path, os.O_RDWR | flags)
        stack.callback(os.close, opened)
        return opened

    return {
        "claims": handle(folder / "claims", os.O_CREAT),
        "done": {base: handle(_done(folder, base, digest)) for base, digest in digests.items()},
        "part": {base: handle(_part(folder, base, digest)) for base, digest in digests.items()},
    }


def _work(opened: dict[str, Any], rows, settings: Settings, waveform, augment) -> Iterator[int]:
    """Go through the clips, yielding each position that is finished, by this process or by another."""
    images = {base: settings.image(base) for base in opened["part"]}
    left = list(range(len(rows)))
    while left:
        taken = []
        for position in left:
            if not _claim(opened["claims"], position):
                taken.append(position)
                continue
            try:
                lacking = [base for base in images if os.pread(opened["done"][base], 1, position) != b"\1"]
                sounds = _sounds(rows[position], settings, waveform, augment) if lacking else []
                for base in lacking:
                    values = _values(sounds, images[base], settings, base)
                    _put(opened["part"][base], len(rows) - position, values)
                    os.pwrite(opened["done"][base], b"\1", position)
            finally:
                fcntl.lockf(opened["claims"], fcntl.LOCK_UN, 1, position)
            yield position
        if len(taken) == len(left):
            time.sleep(_WAIT)
        left = taken


def _claim(claims: int, position: int) -> bool:
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _sounds(row: dict[str, Any], settings: Settings, waveform, augment) -> list[np.ndarray]:
    """Original and copies of one clip at the common rate."""
    sound = waveform(row, settings.rate, settings.duration)
    return [sound, *(augment(sound, settings.rate, factor, settings.how) for factor in settings.factors)]


def _values(sounds: list[np.ndarray], image, settings: Settings, base: str) -> np.ndarray:
    """What is kept of original and copies: uint8 (copies, rows, frames) or int16 (copies, samples)."""
    import soxr

    kept = []
    for sound in sounds:
        if image.rate != settings.rate:
            sound = soxr.resample(sound, settings.rate, image.rate, quality="HQ")
        sound = np.pad(sound[: image.samples], (0, max(0, image.samples - len(sound))))
        bits = features.sixteen_bits(sound)
        if settings.keep == "waveforms" and base != "tonnetz":
            kept.append(bits)
            continue
        values = image(features.from_sixteen_bits(torch.from_numpy(bits))[None])[0].numpy()
        kept.append(np.rint(values * (TONNETZ_STEPS if base == "tonnetz" else STEPS)).astype(np.uint8))
    return np.stack(kept)


def _put(part: int, clips_left: int, values: np.ndarray) -> None:
    """Write a clip's rows to their place, counted from the end of the file, and to the disk."""
    data = memoryview(values).cast("B")
    begin = os.fstat(part).st_size - clips_left * len(data)
    while data:
        written = os.pwrite(part, data, begin)
        data, begin = data[written:], begin + written
    os.fdatasync(part)


@contextlib.contextmanager
def _helpers(count: int, job: tuple) -> Iterator[None]:
    """So many more processes at the same work. One that fails leaves its clip to this process, which says
    what is wrong with it.
    """
    context = multiprocessing.get_context("forkserver")
    helpers = [context.Process(target=_help, args=job, daemon=True) for _ in range(max(0, count))]
    for helper in helpers:
        helper.start()
    try:
        yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.join()


def _help(folder: Path, digests: dict[str, str], *job: Any) -> None:
    torch.set_num_threads(1)
    mother = multiprocessing.parent_process()
    with contextlib.suppress(ValueError, OSError), contextlib.ExitStack() as stack:
        for _ in _work(_files(stack, folder, digests), *job):
            if not mother.is_alive():
                return


# ---------------------------------------------------------------------------------------------- reading


class Images:
    """The images of one representation, read from the store as they are asked for.

    ``images[rows]`` is float32 (n, 1, rows, frames) in [0, 1], lowest frequency first, tonnetz above.
    Row position · copies + copy is that copy of the clip at that position; copy 0 is the original.
    """

    def __init__(
        self, folder: str | os.PathLike, representation: str, append: str, device: str | torch.device
    ) -> None:
        facts = {base: files.load(Path(folder) / f"{base}.json") for base in features.PARTS[representation]}
        self.bases = {base: np.load(Path(folder) / f"{base}.npy", mmap_mode="r") for base in facts}
        for base, stored in self.bases.items():
            if list(stored.shape) != facts[base]["shape"]:
                raise ValueError(f"{folder}/{base}.npy is {stored.shape}, said to be {facts[base]['shape']}")
        first = next(iter(facts))
        settings = facts[first]["settings"]
        self.settings = Settings(**settings | {"factors": tuple(settings["factors"])})
        self.append, self.device = append, torch.device(device)
        self.height = round(TONNETZ_SHARE * self.settings.bins) if "tonnetz" in facts else 0
        above = self.height if append == "frequency" else 0
        self.size = (self.settings.bins + above, self.settings.frames)
        self.frequencies = np.concatenate([facts[first]["frequencies"], np.full(above, np.nan)])
        self.times = np.array(facts[first]["times"])
        self.copies = self.settings.copies
        self.computed = {
            base: self.settings.image(base).to(self.device)
            for base, fact in facts.items()
            if fact["dtype"] == "int16"
        }

    def __len__(self) -> int:
        return len(next(iter(self.bases.values())))

    def __getitem__(self, rows: Sequence[int]) -> torch.Tensor:
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim != 1:
            raise ValueError(f"rows of a store come as a list, given shape {rows.shape}")
        parts = [self._base(base, rows) for base in self.bases]
        if not self.height:
            return parts[0][:, None]
        return features.append(*parts, rows=self.height, how=self.append)

    def _base(self, base: str, rows: np.ndarray) -> torch.Tensor:
        stored = torch.from_numpy(self.bases[base][rows]).to(self.device)
        if base in self.computed:
            with torch.no_grad():
                return self.computed[base](features.from_sixteen_bits(stored))
        return stored.float() / (TONNETZ_STEPS if base == "tonnetz" else STEPS)


def open(
    folder: str | os.PathLike,
    representation: str,
    *,
    append: str = "frequency",
    device: str | torch.device = "cpu",
) -> Images:
    """The images of a representation that :func:`write` has left in ``folder``.

    Parameters
    ----------
    append : how tonnetz is appended, along ``frequency`` or as a second ``channel``.
    device : where batches come out; kept waveforms are transformed there.

    Raises
    ------
    FileNotFoundError : if the store does not hold it.
    ValueError : if the representation is unknown.
    """
    _known(representation)
    if append not in ("frequency", "channel"):
        raise ValueError(f"append = {append!r} is neither 'frequency' nor 'channel'")
    return Images(folder, representation, append, device)
