"""Clips: which sounds there are, whether they can be heard, and folds that never split a recording.

A data set is a folder with a CSV and audio files, read once into a *manifest*, a row a clip, which is
all that later chapters know of it. Labels count from 0 whatever the data set's own numbers are. Clips
that cannot be used stay in the manifest with their ``problem`` named. Chapter 1.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import soxr

from lib import pitch, study, toy
from lib.fingerprint import fingerprint

COLUMNS = (
    *("clip", "path", "label", "name", "fold", "source", "take"),
    *("rate", "channels", "frames", "peak", "rms", "quiet", "clipped", "fingerprint", "sha256", "problem"),
)
PARTS = ("train", "validation", "test")
PROTOCOLS = ("official", "paper", "random", "copies")
FOLDS = 5  # made where a data set has none
_TEST_SHARE = 0.3  # of the paper's random split
_INNER_FOLDS = 5  # of the paper's cross-validation inside the rest
_WHOLE = 0.99  # the share of the promised samples below which a file counts as truncated
_QUIET = 1e-3  # of a clip's peak: −60 dB
_BLOCK = 0.01  # s that are quiet or not
_RAIL = 0.999  # of full scale: samples at or above it count as clipped
_RATES = (1000, 1_000_000)  # Hz; a header that says another rate is not believed
_MOST = 1 << 28  # samples of all channels, a GiB once decoded: more is a recording, not a clip
_MARKED = 60.0  # s from a clip's beginning that its fingerprint is taken of
_UNSAID = 0x7FFF0000  # bytes; a header that promises more was written before the length was known
_CUT = re.compile(r"(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)")  # libsndfile's log


@dataclasses.dataclass(frozen=True)
class DataSet:
    """How one data set lies on disk and where it is from.

    Parameters
    ----------
    folders : names looked for under the data folder, the first that is there is read.
    read : folder to frame (clip, path, target, name, fold, source, take).
    """

    title: str
    folders: tuple[str, ...]
    read: Callable[[Path], pd.DataFrame]
    licence: str
    citation: str


def manifest(
    dataset: str, data: str, *, shortest: float = 0.02, unusable: float = 0.01, workers: int = 0
) -> pd.DataFrame:
    """Read a data set's CSV and listen to every clip of it.

    Parameters
    ----------
    dataset : demo, esc10, esc50, urbansound8k, or the name of a folder of one's own.
    data : the folder that holds data sets; ``demo`` needs none.
    shortest : s, below which a clip is left out.
    unusable : the share of clips that may have a problem; above it the data set is refused.
    workers : threads; 0 is one a core that this process may use.

    Returns
    -------
    A row a clip in the CSV's order: clip (text id), path (absolute; empty for toy sounds), label
    0 … classes − 1, name, fold, source (recording), take, rate in Hz, channels, frames, peak and rms of
    the mono mix in full scale, quiet (share of its time 60 dB below its peak, as zeros appended are),
    clipped (share of samples at the rails), its fingerprint, sha256 of the file, and problem, empty where
    the clip can be used.

    Raises
    ------
    FileNotFoundError : if the folder, its CSV or an audio file that the CSV names is missing.
    ValueError : if the data set is unknown, its CSV is wrong, or too many clips cannot be used.
    """
    frame = read(dataset, data)
    listen = _Listener(shortest)
    rows = [frame.iloc[i].to_dict() for i in range(len(frame))]
    heard = list(study.progress(_ahead(listen, rows, workers), "listening", len(rows)))
    frame = pd.concat([frame, pd.DataFrame(heard, index=frame.index)], axis=1)[list(COLUMNS)]
    bad = frame[frame["problem"] != ""]
    if len(bad) > unusable * len(frame):
        first = bad.iloc[0]
        raise ValueError(
            f"{dataset}: {len(bad)} of {len(frame)} clips cannot be used, more than the share unusable = "
            f"{unusable:g} allows; the first is {first['path'] or first['clip']}: {first['problem']}"
        )
    lost = sorted(set(frame["name"]) - set(frame.loc[frame["problem"] == "", "name"]))
    if lost:
        raise ValueError(f"{dataset}: no clip of class {lost[0]!r} can be used")
    return frame


def read(dataset: str, data: str) -> pd.DataFrame:
    """Read a data set's CSV; no audio is opened, but every file that the CSV names must be there.

    Returns
    -------
    clip, path, label, name, fold, source, take.
    """
    frame = _reader(dataset)(folder(dataset, data)) if dataset != "demo" else _read_toy()
    again = frame["clip"].duplicated()
    if again.any():
        raise ValueError(f"{dataset}: the clip {frame.loc[again, 'clip'].iloc[0]!r} stands in its CSV twice")
    again = frame["path"].duplicated() & (frame["path"] != "")
    if again.any():
        raise ValueError(f"{dataset}: {frame.loc[again, 'path'].iloc[0]} stands in its CSV twice")
    absent = [path for path in frame["path"] if path and not os.path.isfile(path)]
    if absent:
        what = "is no ordinary file" if os.path.exists(absent[0]) else "is not there"
        what = "is a folder, not a file" if os.path.isdir(absent[0]) else what
        raise FileNotFoundError(
            f"{dataset}: {absent[0]}, named by the CSV, {what} ({len(absent)} of {len(frame)} files missing)"
        )
    names = frame.groupby("target")["name"].unique()
    for target, found in names.items():
        if len(found) > 1:
            raise ValueError(f"{dataset}: the label {target!r} has two names, {found[0]!r} and {found[1]!r}")
    order = {target: label for label, target in enumerate(sorted(frame["target"].unique()))}
    frame = frame.assign(label=frame["target"].map(order).astype(int))
    return frame.drop(columns="target").reset_index(drop=True)


def folder(dataset: str, data: str) -> Path:
    """Where a data set lies under the folder ``data``.

    Raises
    ------
    ValueError : if the data set is unknown. FileNotFoundError : if its folder is missing.
    """
    root = Path(data)
    if dataset not in DATASETS:
        if (root / dataset / "clips.csv").is_file():
            return root / dataset
        raise ValueError(
            f"dataset = {dataset!r} is none of {', '.join(DATASETS)}, "
            f"and there is no {root / dataset / 'clips.csv'} of your own"
        )
    for name in DATASETS[dataset].folders:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(str(root / name) for name in DATASETS[dataset].folders)
    raise FileNotFoundError(
        f"{dataset}: no folder {wanted}; 'make data DATASETS={dataset}' fetches it, DATA= names the folder "
        "that holds it"
    )


def present(dataset: str, data: str) -> bool:
    """Whether a known data set's folder lies under ``data``."""
    return any((Path(data) / name).is_dir() for name in DATASETS[dataset].folders)


def clips(cell: study.Cell) -> pd.DataFrame:
    """The usable clips that chapter 1 left at this point's data set, numbered from 0.

    The number is the clip's position in stores and splits. The manifest's hash goes into the receipt of
    the cell that reads it.
    """
    path = cell.up(1).path("clips.parquet")
    frame = study.load(path)
    study.note("data", study.digest(str(path)))
    return frame[frame["problem"] == ""].reset_index(drop=True)


# --- readers ------------------------------------------------------------------------------------------


def _reader(dataset: str) -> Callable[[Path], pd.DataFrame]:
    return DATASETS[dataset].read if dataset in DATASETS else _read_own


def _read_toy() -> pd.DataFrame:
    frame = toy.clips()
    target = frame["name"].map({name: i for i, name in enumerate(toy.NAMES)})
    return frame.assign(path="", target=target)[["clip", "path", "target", "name", "fold", "source", "take"]]


def _read_esc50(folder: Path, *, ten: bool = False) -> pd.DataFrame:
    file = folder / "meta" / "esc50.csv"
    table = _csv(file, "filename fold target category esc10 src_file take")
    if ten:
        table = table[table["esc10"].str.lower() == "true"]
    return pd.DataFrame(
        {
            "clip": [Path(name).stem for name in table["filename"]],
            "path": _below(folder / "audio", table["filename"], file),
            "target": _integers(table, "target", file),
            "name": table["category"],
            "fold": _integers(table, "fold", file, least=1),
            "source": table["src_file"],
            "take": table["take"],
        }
    )


def _read_esc10(folder: Path) -> pd.DataFrame:
    return _read_esc50(folder, ten=True)


def _read_urbansound8k(folder: Path) -> pd.DataFrame:
    file = folder / "metadata" / "UrbanSound8K.csv"
    table = _csv(file, "slice_file_name fsID fold classID class")
    names = "fold" + table["fold"] + "/" + table["slice_file_name"]
    return pd.DataFrame(
        {
            "clip": [Path(name).stem for name in table["slice_file_name"]],
            "path": _below(folder / "audio", names, file),
            "target": _integers(table, "classID", file),
            "name": table["class"],
            "fold": _integers(table, "fold", file, least=1),
            "source": table["fsID"],
            "take": [Path(name).stem.partition("-")[2] for name in table["slice_file_name"]],
        }
    )


def _read_own(folder: Path) -> pd.DataFrame:
    """A folder of one's own: clips.csv with path, label and, if known, source and fold."""
    file = folder / "clips.csv"
    table = _csv(file, "path label", "source fold")
    source = table["source"] if "source" in table else table["path"]
    source = source.where(source != "", table["path"])
    numeric = table["label"].str.fullmatch(r"-?[0-9]{1,18}").all()
    frame = pd.DataFrame(
        {
            "clip": table["path"],
            "path": _below(folder, table["path"], file),
            "target": table["label"].astype(int) if numeric else table["label"],
            "name": table["label"],
            "source": source,
            "take": table.groupby(source).cumcount().astype(str),
        }
    )
    if frame["target"].nunique() < 2:
        raise ValueError(f"{file}: every clip has the label {frame['name'].iloc[0]!r}; two are wanted")
    if "fold" not in table:
        try:
            return frame.assign(fold=grouped_folds(frame))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    fold = _integers(table, "fold", file, least=1)
    if fold.nunique() < len(PARTS):
        raise ValueError(f"{file}: {fold.nunique()} folds are too few to train, validate and test")
    return frame.assign(fold=fold)


def _csv(file: Path, columns: str, known: str = "") -> pd.DataFrame:
    """Read a CSV as text, with or without a byte-order mark, and insist on its columns.

    Values lose the spaces around them; the index is the line of the file.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there: the folder is no complete copy of the data set; 'make data' fetches one "
            f"once {file.parents[1]} is out of the way"
        )
    try:
        lines = csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig")), strict=True)
        header = [name.strip() for name in next(lines, [])]
        rows = {}
        for row in lines:
            if row:
                rows[lines.line_num] = [value.strip() for value in row]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}") from error
    except csv.Error as error:
        raise ValueError(f"{file} is no CSV: line {lines.line_num}: {error}") from error
    for name in (*columns.split(), *known.split()):
        if header.count(name) > 1:
            raise ValueError(f"{file} has two columns {name!r}")
        if name not in header and name in columns.split():
            hint = "; commas must part its values" if len(header) == 1 else ""
            raise ValueError(f"{file} has no column {name!r}; it has {', '.join(header) or 'none'}{hint}")
    if not rows:
        raise ValueError(f"{file} names no clip")
    for line, row in rows.items():
        if len(row) != len(header):
            raise ValueError(f"{file}: line {line} has {len(row)} values, the header has {len(header)}")
    table = pd.DataFrame(rows.values(), index=list(rows), columns=header)
    for name in columns.split():
        empty = table.index[table[name] == ""]
        if len(empty):
            raise ValueError(f"{file}: line {empty[0]} has no {name}")
    return table


def _integers(table: pd.DataFrame, column: str, file: Path, *, least: int = 0) -> pd.Series:
    for line, value in table[column].items():
        if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < least:
            raise ValueError(
                f"{file}: {column} = {value!r} in line {line} is no whole number"
                + (f" from {least} on" if least else "")
            )
    return table[column].astype(int)


def _below(folder: Path, names: Iterable[str], file: Path) -> list[str]:
    """The absolute paths of the files that a table names, none of which may lie outside its folder."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ValueError(f"{file} names {name!r}, which is no path below {folder}")
    return [str((folder / name).resolve()) for name in names]


# --- one clip -----------------------------------------------------------------------------------------


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
            samples = file.read(promised, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"no audio that can be decoded: {str(error).rpartition(': ')[2]}") from error
    if len(samples) == 0:
        raise ValueError("the file has no samples")
    if len(samples) < _WHOLE * promised:
        raise ValueError(f"truncated: {len(samples)} of {promised} samples are there")
    for said, there in _CUT.findall(log):  # libsndfile believes the file's length, not the header's
        if int(there) < _WHOLE * int(said) and int(said) < _UNSAID:
            raise ValueError(f"truncated: {there} of {said} bytes are there")
    return samples, rate


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
    samples = round(duration * rate)
    if rate <= 0 or samples <= 0:
        raise ValueError(f"rate = {rate} Hz and duration = {duration} s leave no sample")
    sound, native = _mono(clip)
    sound = sound[: int(np.ceil((duration + 0.1) * native))]
    if native != rate:
        sound = soxr.resample(sound, native, rate, quality="HQ")
    out = np.zeros(samples, np.float32)
    out[: min(samples, sound.size)] = sound[:samples]
    return out


def waveforms(clips: pd.DataFrame, rate: int, duration: float, *, workers: int = 0) -> Iterator[np.ndarray]:
    """The clips' waveforms in order, decoded ahead by threads; memory holds a few clips a thread."""
    rows = (clips.iloc[i] for i in range(len(clips)))
    return _ahead(lambda row: waveform(row, rate, duration), rows, workers)


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
        other = soxr.resample(waveform.astype(np.float32), factor, 1.0, quality="HQ")
    else:
        other = pitch.shift(waveform, factor)
    out = np.zeros(waveform.size, np.float32)
    out[: min(out.size, other.size)] = other[: out.size]
    return out


def _mono(clip: Mapping[str, Any] | pd.Series) -> tuple[np.ndarray, int]:
    if not clip["path"]:
        return toy.sound(clip["clip"]), toy.RATE
    try:
        samples, rate = decode(clip["path"])
    except (ValueError, OSError) as error:
        raise ValueError(f"{clip['path']}: {error}") from error
    return samples.mean(axis=1), rate


class _Listener:
    """Hears one clip for the manifest: what it is, how loud, and what is wrong with it."""

    def __init__(self, shortest: float) -> None:
        self.shortest = shortest

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        facts = {"rate": 0, "channels": 0, "frames": 0, "peak": 0.0, "rms": 0.0, "quiet": 0.0}
        facts |= {"clipped": 0.0, "fingerprint": [], "sha256": "", "problem": ""}
        try:
            if row["path"]:
                facts["sha256"] = study.digest(row["path"])
                samples, facts["rate"] = decode(row["path"])
            else:
                samples, facts["rate"] = toy.sound(row["clip"])[:, None], toy.RATE
                facts["sha256"] = hashlib.sha256(samples.tobytes()).hexdigest()
        except (ValueError, OSError) as error:
            return facts | {"problem": str(error)}
        facts["frames"], facts["channels"] = samples.shape
        if not np.isfinite(samples).all():
            return facts | {
                "problem": f"not finite: {(~np.isfinite(samples)).sum()} of {samples.size} samples"
            }
        mono = samples.mean(axis=1)
        facts["peak"] = float(np.abs(mono).max())
        facts["rms"] = float(np.sqrt(np.mean(mono.astype(np.float64) ** 2)))
        blocks = np.maximum.reduceat(np.abs(mono), np.arange(0, len(mono), round(_BLOCK * facts["rate"])))
        facts["quiet"] = float(np.mean(blocks <= _QUIET * facts["peak"]))
        facts["clipped"] = float(np.mean(np.abs(samples) >= _RAIL))
        facts["fingerprint"] = fingerprint(mono[: round(_MARKED * facts["rate"])], facts["rate"]).tolist()
        if np.ptp(mono) == 0:
            facts["problem"] = f"silent: every sample is {mono[0]:g}"
        elif len(mono) < self.shortest * facts["rate"]:
            facts["problem"] = f"{len(mono) / facts['rate']:.3g} s, shorter than {self.shortest:g} s"
        return facts


def _ahead(call: Callable, items: Iterable, workers: int) -> Iterator:
    """``call`` of each item, in order, by threads that run a bounded way ahead of what is taken."""
    workers = workers or int(os.environ.get("OMP_NUM_THREADS") or 0) or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(call, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


# --- folds and splits ---------------------------------------------------------------------------------


def grouped_folds(frame: pd.DataFrame, folds: int = FOLDS) -> pd.Series:
    """Folds that never split a source and hold each class as evenly as sources allow.

    Large sources are placed first, each into the fold that has the fewest clips of its classes, then
    the fewest clips at all.

    Raises
    ------
    ValueError : if a class has fewer than three sources, for then it cannot be trained on, validated
        and tested without a leak.
    """
    few = frame.groupby("name")["source"].nunique()
    if few.min() < len(PARTS):
        raise ValueError(
            f"class {few.idxmin()!r} has {few.min()} recordings; folds that split no recording need 3 of "
            "each class: name more sources, or give a column fold"
        )
    counts = pd.crosstab(frame["source"], frame["name"])
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    held = np.zeros((min(folds, int(few.min())), counts.shape[1]))
    place = {}
    for source, row in zip(counts.index, counts.to_numpy(), strict=True):
        place[source] = min(range(len(held)), key=lambda k: (held[k] @ (row > 0), held[k].sum(), k))
        held[place[source]] += row
    return frame["source"].map(place).astype(int) + 1


def split(
    clips: pd.DataFrame, fold: int, protocol: str = "official", *, seed: int = 0, copies: int = 1
) -> pd.DataFrame:
    """Which clip, and which copy of it, is trained on, validated on or tested: reading 7.

    Parameters
    ----------
    clips : as :func:`clips` gives them.
    fold : the fold held out (``official``, ``copies``), or the inner fold 1 … 5 that validates.
    protocol : ``official`` tests fold k, validates on the next fold that is there, cyclically, and
        trains on the rest; only training has augmented copies. ``paper`` draws 30 % of all clips and
        copies to test and one of five folds of the rest to validate, so that both recordings and
        copies leak. Each leak alone: ``random`` draws clips so, with copies only in training (recordings
        leak); ``copies`` is official, but trains on the copies of tested clips as well.
    seed : of the draws.
    copies : versions of a clip, the original among them.

    Returns
    -------
    A row for each (clip, copy) that takes part: position (in ``clips``), copy (0 the original), row
    (position · copies + copy, the store's row), label, source, fold, part (train, validation, test).

    Raises
    ------
    ValueError : if fold or protocol is unknown, or a part comes out empty.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol = {protocol!r} is none of {', '.join(PROTOCOLS)}")
    if copies < 1:
        raise ValueError(f"copies = {copies} is below 1")
    n = len(clips)
    position, copy = (part.ravel() for part in np.divmod(np.arange(n * copies), copies))
    frame = pd.DataFrame({"position": position, "copy": copy, "row": np.arange(n * copies)})
    for column in ("label", "source", "fold"):
        frame[column] = clips[column].to_numpy()[position]
    if protocol == "paper":
        frame["part"] = _random_parts(n * copies, fold, study.seed_of("paper", seed))
    else:
        whole = (
            _random_parts(n, fold, study.seed_of("random", seed))
            if protocol == "random"
            else _official_parts(clips["fold"].to_numpy(), fold)
        )
        frame["part"] = whole[position]
        if protocol == "copies":
            frame.loc[frame["copy"] > 0, "part"] = "train"
        else:
            frame = frame[(frame["copy"] == 0) | (frame["part"] == "train")]
    for part in PARTS:
        if not (frame["part"] == part).any():
            raise ValueError(f"fold {fold} ({protocol}) leaves nothing to {part}: {n} clips are too few")
    return frame.reset_index(drop=True)


def _official_parts(folds: np.ndarray, fold: int) -> np.ndarray:
    there = sorted(set(folds.tolist()))
    if fold not in there:
        raise ValueError(f"fold = {fold} is none of the folds that are there, {', '.join(map(str, there))}")
    if len(there) < len(PARTS):
        raise ValueError(f"{len(there)} folds are too few to train, validate and test")
    following = there[(there.index(fold) + 1) % len(there)]
    return np.select([folds == fold, folds == following], ["test", "validation"], "train")


def _random_parts(n: int, fold: int, seed: int) -> np.ndarray:
    if not 1 <= fold <= _INNER_FOLDS:
        raise ValueError(f"fold = {fold} is none of the {_INNER_FOLDS} inner folds of a random split")
    order = np.random.default_rng(seed).permutation(n)
    tested = round(_TEST_SHARE * n)
    parts = np.full(n, "train", dtype="U10")
    parts[order[:tested]] = "test"
    parts[order[tested:][fold - 1 :: _INNER_FOLDS]] = "validation"
    return parts


def leaks(split: pd.DataFrame) -> pd.DataFrame:
    """What stands on both sides of a split: nothing, if it is honest.

    Returns
    -------
    A row a leak: what (``recording``, or ``clip`` where copies of one clip are parted), which (source,
    or position in clips), parts (such as ``train, test``), rows (how many are involved).
    """
    found = []
    for what, column in (("recording", "source"), ("clip", "position")):
        parts = split.groupby(column)["part"].agg(
            [lambda p: ", ".join(sorted(set(p), key=PARTS.index)), "size"]
        )
        parts.columns = ["parts", "rows"]
        crossing = parts[parts["parts"].str.contains(", ")]
        found += [
            (what, str(which), *row) for which, row in zip(crossing.index, crossing.to_numpy(), strict=True)
        ]
    return pd.DataFrame(found, columns=["what", "which", "parts", "rows"])


def choose(frame: pd.DataFrame, n: int, seed: int = 0) -> pd.DataFrame:
    """A seeded subset with the classes as even as can be, and as many recordings as can be.

    The first n of one seeded order, so that a smaller subset lies within a larger one.

    Parameters
    ----------
    frame : with ``label`` and, where recordings count, ``source``.
    n : how many rows; 0, or more than there are, is all of them.

    Returns
    -------
    The rows chosen, in the frame's own order.
    """
    if n < 0:
        raise ValueError(f"n = {n} is below 0")
    if n == 0 or n >= len(frame):
        return frame
    draw = np.random.default_rng(study.seed_of("choose", seed)).permutation(len(frame))
    table = frame[["label"]].assign(draw=draw, source=frame.get("source", draw))
    table = table.sort_values("draw")
    table["take"] = table.groupby("source").cumcount()
    table = table.sort_values(["take", "draw"])
    table["turn"] = table.groupby("label").cumcount()
    chosen = table.sort_values(["turn", "draw"]).index[:n]
    return frame.loc[frame.index.isin(chosen)]


DATASETS = {
    "demo": DataSet(
        title="Toy sounds",
        folders=(),
        read=lambda folder: _read_toy(),
        licence="made by this study, under its own licence",
        citation="lib/toy.py",
    ),
    "esc10": DataSet(
        title="ESC-10",
        folders=("ESC-10", "ESC-50"),
        read=_read_esc10,
        licence="CC BY 3.0",
        citation="K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015",
    ),
    "esc50": DataSet(
        title="ESC-50",
        folders=("ESC-50",),
        read=_read_esc50,
        licence="CC BY-NC 3.0",
        citation="K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015",
    ),
    "urbansound8k": DataSet(
        title="UrbanSound8K",
        folders=("UrbanSound8K",),
        read=_read_urbansound8k,
        licence="CC BY-NC 3.0",
        citation="J. Salamon, C. Jacoby, J. P. Bello, A Dataset and Taxonomy for Urban Sound Research, "
        "ACM Multimedia 2014",
    ),
}
