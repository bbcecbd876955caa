"""Listening to every clip of a data set once: what it is, how loud it is, and whether it can be used.

Labels count from 0 whatever the data set's own numbers are. Clips that cannot be used stay in the manifest
with their ``problem`` named. Chapter 1.
"""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from lib import files, reporting
from lib.data import demo
from lib.data.audio import decode
from lib.data.duplicates import fingerprint
from lib.data.manifest import COLUMNS
from lib.data.readers import read

_QUIET = 1e-3  # of a clip's peak: −60 dB
_BLOCK = 0.01  # s that are quiet or not
_RAIL = 0.999  # of full scale: samples at or above it count as clipped
_MARKED = 60.0  # s from a clip's beginning that its fingerprint is taken of


def manifest(
    dataset: str, data: str, *, shortest: float = 0.02, unusable: float = 0.01, workers: int = 0
) -> pd.DataFrame:
    """Read a data set's CSV and listen to every clip of it.

    Parameters
    ----------
    dataset : the key of one, or the name of a folder of one's own.
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
    heard = list(reporting.track(_ahead(listen, rows, workers), "listening", len(rows)))
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


class _Listener:
    """Hears one clip for the manifest: what it is, how loud, and what is wrong with it."""

    def __init__(self, shortest: float) -> None:
        self.shortest = shortest

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        facts = {"rate": 0, "channels": 0, "frames": 0, "peak": 0.0, "rms": 0.0, "quiet": 0.0}
        facts |= {"clipped": 0.0, "fingerprint": [], "sha256": "", "problem": ""}
        try:
            if row["path"]:
                facts["sha256"] = files.digest(row["path"])
                samples, facts["rate"] = decode(row["path"])
            else:
                samples, facts["rate"] = demo.sound(row["clip"])[:, None], demo.RATE
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
