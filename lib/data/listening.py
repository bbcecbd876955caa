"""Listening to every clip of a data set once: what it is, how loud it is, and whether it can be used.

Labels count from 0 whatever the data set's own numbers are. Clips that cannot be used stay in the manifest
with their ``problem`` named. Chapter 1.
"""

from __future__ import annotations

import collections
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from lib import files, reporting, study
from lib.data import changes, toy
from lib.data.audio import centred, mono, offset
from lib.data.decoding import BYTES, decode
from lib.data.duplicates import fingerprint
from lib.data.manifest import COLUMNS
from lib.data.readers import folder, known, read
from lib.data.splits import grouped_folds

_QUIET = 1e-3  # of a clip's peak: −60 dB
_BLOCK = 0.01  # s that are quiet or not
_RAIL = 0.999  # of full scale: samples at or above it count as clipped
_STEP = 1 / 32768  # of full scale: one step of 16 bits; what stays within it is silence
_FEW = 5  # clips that a message names
_MARKED = 60.0  # s from a clip's beginning that its fingerprint is taken of


def listen(cell: study.Cell, data: str, **settings: float) -> pd.DataFrame:
    """Make and write the manifest of a point's data set, and which files it rests on (`lib.data.changes`)."""
    began = time.time_ns()
    frame = manifest(cell.dataset, data, **settings)
    cell.save("clips.parquet", frame)
    heard = frame[frame["path"] != ""]
    digests = dict(zip(heard["path"], heard["sha256"], strict=True))
    about = known(cell.dataset)
    if about and about.origin:  # make itself compares the table of a folder of one's own
        table = str(folder(cell.dataset, data) / about.origin.table)
        digests[table] = files.digest(table)
    changes.record(cell.folder, digests, began)
    return frame


def manifest(
    dataset: str, data: str, *, shortest: float = 0.02, unusable: float = 0.01, workers: int = 0
) -> pd.DataFrame:
    """Read a data set's table and listen to every clip of it.

    Parameters
    ----------
    dataset : the key of one, or the name of a folder of one's own.
    data : the folder that holds data sets; ``demo`` needs none.
    shortest : s, below which a clip is left out.
    unusable : the share of clips that may have a problem; above it the data set is refused.
    workers : threads; 0 is one for each core that this process may use.

    Returns
    -------
    One row per clip in the table's order: clip (text id), path (absolute; empty for toy sounds), label
    0 … classes − 1, name, fold, source (recording), take, rate in Hz, channels, frames; of the mono mix in
    full scale, without its constant offset, peak and rms; offset (see `lib.data.audio.offset`); quiet (share
    of its time 60 dB below its peak, as zeros appended are), clipped (share of samples at the rails), its
    fingerprint, sha256 of the file, and problem, empty where the clip can be used. Where the table gives
    no folds they are dealt among the clips that can be used; the others have fold 0.

    Raises
    ------
    FileNotFoundError : if the folder, its table or an audio file that the table names is missing.
    ValueError : if the data set is unknown, its table is wrong, or too many clips cannot be used.
    """
    frame = read(dataset, data)
    listener = _Listener(shortest)
    rows = [frame.iloc[i].to_dict() for i in range(len(frame))]
    heard = list(reporting.track(_ahead(listener, rows, workers), "listening", len(rows)))
    frame = pd.concat([frame, pd.DataFrame(heard, index=frame.index)], axis=1)
    bad = frame["problem"] != ""
    if bad.sum() > unusable * len(frame):
        raise ValueError(
            f"{dataset}: {bad.sum()} of {len(frame)} clips cannot be used, more than the share unusable = "
            f"{unusable:g} allows (params/{dataset}/01_data.yaml can raise it): {_named(frame[bad])}"
        )
    lost = sorted(set(frame["name"]) - set(frame.loc[~bad, "name"]))
    if lost:
        raise ValueError(f"{dataset}: no clip of class {lost[0]!r} can be used: {_named(frame[bad])}")
    if "fold" not in frame:
        try:
            dealt = grouped_folds(frame[~bad])
        except ValueError as error:
            raise ValueError(f"{folder(dataset, data) / 'clips.csv'}: {error}") from error
        frame["fold"] = dealt.reindex(frame.index, fill_value=0)
    return frame[list(COLUMNS)]


def _named(bad: pd.DataFrame) -> str:
    """A few clips with their problems, and how many more there are."""
    few = [f"{row.path or row.clip}: {row.problem}" for row in bad.head(_FEW).itertuples()]
    return "; ".join(few) + (f"; and {len(bad) - _FEW} more" if len(bad) > _FEW else "")


class _Listener:
    """Hears one clip for the manifest: what it is, how loud, and what is wrong with it."""

    def __init__(self, shortest: float) -> None:
        self.shortest = shortest

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        facts = {"rate": 0, "channels": 0, "frames": 0, "peak": 0.0, "rms": 0.0, "offset": 0.0, "quiet": 0.0}
        facts |= {"clipped": 0.0, "fingerprint": [], "sha256": "", "problem": ""}
        try:
            if row["path"]:
                if os.path.getsize(row["path"]) <= BYTES:  # a larger file is refused unread
                    facts["sha256"] = files.digest(row["path"])
                sound, facts["rate"] = decode(row["path"])
            else:
                sound, facts["rate"] = toy.sound(row["clip"])[:, None], toy.RATE
                facts["sha256"] = hashlib.sha256(sound.tobytes()).hexdigest()
            return facts | self._measured(sound, facts["rate"])
        except (ValueError, OSError) as error:
            return facts | {"problem": " ".join(str(error).split())}
        except Exception as error:  # whatever it is, it is this file's: named and counted
            return facts | {"problem": f"{type(error).__name__}: {' '.join(str(error).split())}"}

    def _measured(self, sound: np.ndarray, rate: int) -> dict[str, Any]:
        facts: dict[str, Any] = {"frames": len(sound), "channels": sound.shape[1]}
        if not np.isfinite(sound).all():
            bad = (~np.isfinite(sound)).sum()
            return facts | {"problem": f"not finite: {bad} of {sound.size} samples"}
        mixed = mono(sound)
        heard = centred(mixed)
        facts["peak"] = float(np.abs(heard).max())
        facts["rms"] = float(np.sqrt(np.mean(heard.astype(np.float64) ** 2)))
        constant, facts["offset"] = offset(mixed)
        blocks = np.maximum.reduceat(np.abs(heard), np.arange(0, len(heard), round(_BLOCK * rate)))
        facts["quiet"] = float(np.mean(blocks <= _QUIET * facts["peak"]))
        facts["clipped"] = float(np.mean(np.abs(sound) >= _RAIL))
        facts["fingerprint"] = fingerprint(heard[: round(_MARKED * rate)], rate).tolist()
        if np.ptp(mixed) == 0:
            facts["problem"] = f"silent: every sample is {mixed[0]:g}"
        elif facts["peak"] <= _STEP:
            facts["problem"] = f"silent: no sample is further than {facts['peak']:.1e} from {constant:g}"
        elif len(mixed) < self.shortest * rate:
            facts["problem"] = f"{len(mixed) / rate:.3g} s, shorter than {self.shortest:g} s"
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
