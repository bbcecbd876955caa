"""The images of all clips: computed once, one byte per value, read back as batches in [0, 1].

The parts of representations (STFT, scalogram, tonnetz) are computed once each, whatever representations are
asked for, and representations are assembled from them when a batch is read. A part is two files:
``NAME.npy``, read as memory-mapped, and ``NAME.json``, which says what it is and appears last. While it is
being made, ``NAME.npy.part`` grows and ``NAME.done`` holds one byte per clip, from which a killed run goes
on. Any number of processes, of one cell or of several, work on the clips of a store together: each claims
one clip after another by a lock on a byte of ``claims``, which its death gives back.

The other way of keeping, for machines with a GPU, is the waveforms in 16 bits; their images are computed
batch by batch on the device. Both ways start from the same 16 bits, so the same batch comes out, to within
one step of a byte.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import librosa
import numpy as np
import pandas as pd
import threadpoolctl
import torch

from lib import features, files, samples
from lib.features.image import append, from_sixteen_bits, sixteen_bits

with warnings.catch_warnings():  # pooch, which librosa imports, asks for widgets of tqdm; none is shown
    warnings.filterwarnings("ignore", "IProgress not found")
    import tqdm.auto  # noqa: F401

KEPT = ("images", "waveforms")
HOW = ("pitch", "speed")
COLUMNS = ("auto", "sampled", "averaged")
FACTORS = (0.25, 4.0)  # what a copy's pitch may be multiplied by
VERSION = 3  # of what the bytes mean; a store of another version is made again
_THREADS = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"))
_BATCH = 2.0  # s of work that is brought to the disk at once, and that a kill may cost
_WAIT = 0.2  # s between two looks at a clip that another process is at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the images of a store are made with; readings 1 to 6 of the paper. Chapter 2.

    Parameters
    ----------
    bins, frames : rows and columns of a spectrogram's image; what is appended adds its share of the rows.
    duration : s of every clip, cut or followed by silence.
    stft_rate, n_fft, hop : Hz and samples of the STFT.
    dwt_rate, fmin, bandwidth, centre : Hz, Hz, and B and C of the complex Morlet of the scalogram.
    floor : dB below a clip's peak that is 0 in the image.
    columns : of the scalogram, ``sampled`` at their middle or ``averaged`` over their span; ``auto`` averages
        where there are fewer than the paper's 1568.
    factors : pitch factors of the copies beside the original.
    how : ``pitch`` or ``speed``, how copies are made.
    keep : ``images``, one byte a value, or ``waveforms``, 16 bits a sample, images made on the device.

    Raises
    ------
    ValueError : naming every setting that is out of its range, and the range.
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
    factors: Sequence[float]
    how: str
    keep: str = "images"
    columns: str = "auto"

    def __post_init__(self) -> None:
        above = ("bins", "frames", "duration", "stft_rate", "n_fft", "hop", "dwt_rate", "fmin", "bandwidth")
        rules = {name: (0 < getattr(self, name) < math.inf, "above 0") for name in (*above, "centre")}
        rules["fmin"] = (0 < self.fmin < self.dwt_rate / 2, "above 0 and below half of dwt_rate")
        rules["floor"] = (-math.inf < self.floor < 0, "below 0 dB")
        rules["factors"] = (
            all(FACTORS[0] <= factor <= FACTORS[1] for factor in self.factors),
            f"factors from {FACTORS[0]} to {FACTORS[1]:g}",
        )
        rules["columns"] = (self.columns in COLUMNS, " or ".join(COLUMNS))
        rules["how"] = (self.how in HOW, " or ".join(HOW))
        rules["keep"] = (self.keep in KEPT, " or ".join(KEPT))
        wrong = [
            f"{name} = {getattr(self, name)!r} must be {said}" for name, (ok, said) in rules.items() if not ok
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        object.__setattr__(self, "factors", tuple(map(float, self.factors)))

    @property
    def copies(self) -> int:
        """Rows of the store for each clip: the original and its copies."""
        return 1 + len(self.factors)

    @property
    def rate(self) -> int:
        """Hz at which clips are decoded and shifted once for all parts."""
        return max(self.stft_rate, self.dwt_rate)

    def image(self, part: str) -> features.Image:
        """What turns waveforms at its ``rate`` into a part's images, values in [0, 1]."""
        image = features.image_of(part)
        return image(**image.arguments(self))


# ---------------------------------------------------------------------------------------------- writing


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    """What is to be computed, as it travels to the helper processes.

    ``digests`` are those of the parts that are missing; ``rows`` are the clips; for ``waveform`` and
    ``augment`` see :func:`write`.
    """

    folder: Path
    digests: dict[str, str]
    rows: list[dict[str, Any]]
    settings: Settings
    waveform: Callable[[Any, int, float], np.ndarray]
    augment: Callable[[np.ndarray, int, float, str], np.ndarray]


def write(
    folder: str | os.PathLike,
    clips: pd.DataFrame,
    representation: str,
    settings: Settings,
    *,
    waveform: Callable[[Any, int, float], np.ndarray],
    augment: Callable[[np.ndarray, int, float, str], np.ndarray],
    together: Iterable[str] = (),
    workers: int = 0,
    progress: Callable[..., Iterable] = lambda items, what, total: items,
) -> None:
    """Compute those parts of a representation that the store does not hold yet.

    A second writer shares the work of the first. What a killed writer had finished stays.

    Parameters
    ----------
    clips : one row per clip, with its id in ``clip``.
    waveform : (row, rate, duration) to float32 samples.
    augment : (samples, rate, factor, how) to as many samples.
    together : other representations whose parts are computed too, so that each clip is decoded and shifted
        once for all.
    workers : processes; 0 is as many as torch may use threads.

    Raises
    ------
    ValueError : if a representation is unknown, there is no clip, or two clips have one id.
    """
    facts = _wanted(clips, (representation, *together), settings)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with files.locked(folder / "store"):
            missing = [part for part in facts if _held(folder, part) != facts[part]["digest"]]
            for part in missing:
                _begin(folder, part, facts[part])
            job = _Job(
                folder=folder,
                digests={part: facts[part]["digest"] for part in missing},
                rows=clips.to_dict("records"),
                settings=settings,
                waveform=waveform,
                augment=augment,
            )
            opened = _files(stack, job)
        if not missing:
            return
        for _ in progress(_compile(job), "compiling, once per machine", len(missing) + 1):
            pass
        with _helpers(min(workers or torch.get_num_threads(), len(clips)) - 1, job), _one_thread():
            for _ in progress(_work(job, opened), " + ".join(missing), len(clips)):
                pass
    with files.locked(folder / "store"):
        for part in missing:
            if _held(folder, part) != facts[part]["digest"]:
                _end(folder, part, facts[part])


def _wanted(clips: pd.DataFrame, representations: Iterable[str], settings: Settings) -> dict[str, dict]:
    """The parts of these representations, and what their sidecars are to say."""
    wanted = [part for each in representations for part in features.parts(each)]
    if not len(clips) or clips["clip"].duplicated().any():
        twice = clips.loc[clips["clip"].duplicated(), "clip"].head(1).to_list()
        raise ValueError(f"a store takes clips with ids of their own, given {len(clips)} with {twice} twice")
    return {part: _facts(clips, settings, part) for part in dict.fromkeys(wanted)}


def _compile(job: _Job) -> Iterator[None]:
    """Have numba compile, in one process at a time, all that images and copies need; yields as it goes.

    What it compiles it caches beside librosa. Two processes that do so at once can leave a cache that
    crashes everyone who reads it.
    """
    settings, place = job.settings, Path(librosa.__file__).parent
    if not os.access(place, os.W_OK):  # numba then caches in the user's home
        place = Path.home() / ".cache" / "numba"
        place.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).standard_normal(round(settings.rate * settings.duration))
    with files.locked(place / "compile"):
        for part in job.digests:
            image = settings.image(part)
            image(torch.from_numpy(np.resize(noise, image.samples).astype(np.float32))[None])
            yield
        for factor in settings.factors[:1]:
            job.augment(noise.astype(np.float32), settings.rate, factor, settings.how)
        yield


def _facts(clips: pd.DataFrame, settings: Settings, part: str) -> dict[str, Any]:
    """What a part's sidecar says; the digest shows whether a store holds what is wanted."""
    image = settings.image(part)
    waveforms = settings.keep == "waveforms" and image.on_device
    shape = [image.samples] if waveforms else [len(image.frequencies), settings.frames]
    recordings = clips["sha256"].to_list() if "sha256" in clips else []
    made = {
        "version": VERSION,
        "arguments": image.arguments(settings),
        "from": [settings.rate, settings.factors, settings.how],
        "waveforms": waveforms,
        "clips": [clips["clip"].to_list(), recordings],
    }
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    frequencies = None if np.isnan(image.frequencies).any() else image.frequencies.tolist()
    return {
        "digest": digest,
        "settings": dataclasses.asdict(settings),
        "clips": clips["clip"].to_list(),
        "shape": [len(clips) * settings.copies, *shape],
        "dtype": "int16" if waveforms else "uint8",
        "frequencies": frequencies,
        "times": image.times.tolist(),
    }


def _held(folder: Path, part: str) -> str:
    path = folder / f"{part}.json"
    return files.load(path)["digest"] if path.exists() else ""


def _growing(folder: Path, part: str, digest: str) -> Path:
    return folder / f"{part}.{digest}.npy.part"


def _done(folder: Path, part: str, digest: str) -> Path:
    return folder / f"{part}.{digest}.done"


def _begin(folder: Path, part: str, facts: dict[str, Any]) -> None:
    """Lay out a part's file unless an earlier run did; leftovers of other settings go."""
    growing, done = _growing(folder, part, facts["digest"]), _done(folder, part, facts["digest"])
    for other in [*folder.glob(f"{part}.*.npy.part"), *folder.glob(f"{part}.*.done")]:
        if other not in (growing, done):
            other.unlink(missing_ok=True)
    if done.exists():
        return
    header = {"descr": np.dtype(facts["dtype"]).str, "fortran_order": False, "shape": tuple(facts["shape"])}
    with growing.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(facts["shape"])) * np.dtype(facts["dtype"]).itemsize)
    with files.atomic(done) as empty:
        empty.write_bytes(bytes(len(facts["clips"])))


def _end(folder: Path, part: str, facts: dict[str, Any]) -> None:
    """Give a finished part its names: the array's first, then that of the sidecar."""
    growing, done = _growing(folder, part, facts["digest"]), _done(folder, part, facts["digest"])
    (folder / f"{part}.json").unlink(missing_ok=True)
    if growing.exists():  # else an earlier run ended between the two names
        files.put(growing, folder / f"{part}.npy")
    files.save(folder / f"{part}.json", facts)
    done.unlink(missing_ok=True)


class _Files(NamedTuple):
    """What the work is written to, open: the claims, and of each part its done bytes and its array."""

    claims: int
    done: dict[str, int]
    arrays: dict[str, int]


def _files(stack: contextlib.ExitStack, job: _Job) -> _Files:
    """Open the files once per process: closing a file ends its process's locks on it."""

    def handle(path: Path, flags: int = 0) -> int:
        opened = os.open(path, os.O_RDWR | flags)
        stack.callback(os.close, opened)
        return opened

    return _Files(
        handle(job.folder / "claims", os.O_CREAT),
        {part: handle(_done(job.folder, part, digest)) for part, digest in job.digests.items()},
        {part: handle(_growing(job.folder, part, digest)) for part, digest in job.digests.items()},
    )


def _work(job: _Job, opened: _Files) -> Iterator[None]:
    """Go through the clips that no other process is at; yields once for each clip that anyone finished.

    Images are written as they come. Every few seconds they are brought to the disk; only then are their
    clips marked as done and their claims given back.
    """
    images = {part: job.settings.image(part) for part in job.digests}
    left, written, reported, began = list(range(len(job.rows))), [], 0, time.monotonic()
    while left:
        taken = []
        for position in left:
            if not _claim(opened.claims, position):
                taken.append(position)
                continue
            lacking = [part for part in images if os.pread(opened.done[part], 1, position) != b"\1"]
            sounds = _sounds(job, position) if lacking else []
            for part in lacking:
                values = _values(sounds, images[part], job.settings)
                _put(opened.arrays[part], len(job.rows) - position, values)
            written.append(position)
            if time.monotonic() - began > _BATCH:
                _mark(opened, written)
                written, began = [], time.monotonic()
            finished = _finished(opened, len(job.rows))
            yield from [None] * (finished - reported)
            reported = max(reported, finished)
        _mark(opened, written)
        written = []
        if len(taken) == len(left):
            time.sleep(_WAIT)
        left = taken
    yield from [None] * (len(job.rows) - reported)


def _claim(claims: int, position: int) -> bool:
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _mark(opened: _Files, written: list[int]) -> None:
    """Bring the images of these clips to the disk, mark the clips as done, and give their claims back."""
    if not written:
        return
    for array in opened.arrays.values():
        os.fdatasync(array)
    for position in written:
        for done in opened.done.values():
            os.pwrite(done, b"\1", position)
        fcntl.lockf(opened.claims, fcntl.LOCK_UN, 1, position)


def _finished(opened: _Files, clips: int) -> int:
    """How many clips are done in every part, by whomever."""
    return min(os.pread(done, clips, 0).count(1) for done in opened.done.values())


def _sounds(job: _Job, position: int) -> list[np.ndarray]:
    """Original and copies of one clip at the common rate."""
    settings = job.settings
    sound = job.waveform(job.rows[position], settings.rate, settings.duration)
    return [sound, *(job.augment(sound, settings.rate, factor, settings.how) for factor in settings.factors)]


def _values(sounds: list[np.ndarray], image: features.Image, settings: Settings) -> np.ndarray:
    """What is kept of original and copies: uint8 (copies, rows, frames) or int16 (copies, samples)."""
    kept = []
    for sound in sounds:
        bits = sixteen_bits(samples.resample(sound, settings.rate, image.rate, image.samples))
        if settings.keep == "waveforms" and image.on_device:
            kept.append(bits)
            continue
        values = image(from_sixteen_bits(torch.from_numpy(bits))[None])[0].numpy()
        kept.append(np.rint(values * image.steps).astype(np.uint8))
    return np.stack(kept)


def _put(array: int, clips_left: int, values: np.ndarray) -> None:
    """Write a clip's rows to their place, counted from the end of the file."""
    data = memoryview(values).cast("B")
    begin = os.fstat(array).st_size - clips_left * len(data)
    while data:
        written = os.pwrite(array, data, begin)
        data, begin = data[written:], begin + written


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Have this process compute with one thread, BLAS and Fourier transforms included, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _helpers(count: int, job: _Job) -> Iterator[None]:
    """So many more processes of one thread each at the same work.

    One that fails leaves its clip to this process, which says what is wrong with it. How many threads a
    library starts is settled when it is loaded, so the environment says it before.
    """
    context = multiprocessing.get_context("spawn")
    helpers = [context.Process(target=_help, args=(job,), daemon=True) for _ in range(max(0, count))]
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        for helper in helpers:
            helper.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.join()


def _help(job: _Job) -> None:
    mother = multiprocessing.parent_process()
    with contextlib.suppress(ValueError, OSError), contextlib.ExitStack() as stack, _one_thread():
        for _ in _work(job, _files(stack, job)):
            if not mother.is_alive():
                return


# ---------------------------------------------------------------------------------------------- reading


def heights(representation: str, bins: int) -> dict[str, int]:
    """Rows of each part of a representation whose spectrogram has ``bins``, from the lowest up."""
    first, *above = features.parts(representation).items()
    return {first[0]: bins} | {part: round(image.share * bins) for part, image in above}


class Images:
    """The images of one representation, read from the store as they are asked for.

    ``images[rows]`` is float32 (n, 1, rows, frames) in [0, 1], the lowest frequency first.
    Row position · copies + copy is that copy of the clip at that position; copy 0 is the original.
    """

    def __init__(self, folder: str | os.PathLike, representation: str, device: str | torch.device) -> None:
        parts = features.parts(representation)
        facts = {part: files.load(Path(folder) / f"{part}.json") for part in parts}
        self.folder, self.shapes = Path(folder), {part: fact["shape"] for part, fact in facts.items()}
        first = next(iter(parts))
        self.settings = Settings(**facts[first]["settings"])
        self.device = torch.device(device)
        self.steps = {part: image.steps for part, image in parts.items()}
        self.heights = heights(representation, self.settings.bins)
        self.size = (sum(self.heights.values()), self.settings.frames)
        without = np.full(self.size[0] - self.heights[first], np.nan)
        self.frequencies = np.concatenate([facts[first]["frequencies"], without])
        self.times = np.array(facts[first]["times"])
        self.copies = self.settings.copies
        self.computed = {
            part: self.settings.image(part).to(self.device)
            for part, fact in facts.items()
            if fact["dtype"] == "int16"
        }

    @functools.cached_property
    def stored(self) -> dict[str, np.ndarray | torch.Tensor]:
        """The rows of each part. A grid that was unpacked has the facts of its images alone.

        Raises
        ------
        FileNotFoundError : if they are not there. ValueError : if they have another shape than was written.
        """
        found = {part: np.load(self.folder / f"{part}.npy", mmap_mode="r") for part in self.shapes}
        for part, stored in found.items():
            if list(stored.shape) != self.shapes[part]:
                raise ValueError(f"{self.folder}/{part}.npy is {stored.shape}, not {self.shapes[part]}")
        return found

    def __len__(self) -> int:
        return next(iter(self.shapes.values()))[0]

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take as they are kept."""
        return sum(stored.nbytes for stored in self.stored.values())

    def to(self, device: str | torch.device) -> Images:
        """The same images, kept on a device as bytes; their batches come out there."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        moved.stored = {
            part: torch.tensor(np.asarray(kept), device=device) for part, kept in self.stored.items()
        }
        moved.computed = {part: copy.deepcopy(image).to(device) for part, image in self.computed.items()}
        return moved

    def __getitem__(self, rows: Sequence[int]) -> torch.Tensor:
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim != 1:
            raise ValueError(f"rows of a store come as a list, given shape {rows.shape}")
        image, *above = self.stored
        found = self._part(image, rows)
        for part in above:
            found = append(found, self._part(part, rows), rows=self.heights[part])
        return found[:, None]

    def _part(self, part: str, rows: np.ndarray) -> torch.Tensor:
        stored = torch.as_tensor(self.stored[part][rows]).to(self.device)
        if part in self.computed:
            with torch.no_grad():
                return self.computed[part](from_sixteen_bits(stored))
        return stored.float() / self.steps[part]


def open(folder: str | os.PathLike, representation: str, *, device: str | torch.device = "cpu") -> Images:
    """The images of a representation that :func:`write` wrote to ``folder``; batches come out on ``device``.

    Raises
    ------
    FileNotFoundError : if the store does not hold it.
    ValueError : if the representation is unknown.
    """
    return Images(folder, representation, device)
