"""Near-duplicates: clips that sound the same although nothing says that they are.

A fingerprint is what stays of a clip when time, level and phase are forgotten: the mean and the spread
over time of the power in a few bands. Two copies of one sound, cut elsewhere, louder, or coded again,
lie within a fraction of a decibel; two recordings of the same kind of thing several apart.
"""

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

BANDS = 16
_EDGES = np.geomspace(80.0, 3600.0, BANDS + 1)  # Hz, within what the slowest recordings hold
_WINDOW = 0.064  # s
_RANGE = 80.0  # dB below the loudest band; what is quieter counts as that
_BLOCK = 1024  # clips compared with all others at once


def fingerprint(samples: np.ndarray, rate: int) -> np.ndarray:
    """Mean and deviation over time of the band powers in dB, of a mono clip (samples,) at ``rate`` Hz.

    Returns
    -------
    float32 (2 · BANDS,), the means relative to their own mean, so that level plays no part.
    """
    window = round(_WINDOW * rate)
    hop = window // 2
    padded = np.pad(np.asarray(samples, np.float64), (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    places = np.clip(np.round(_EDGES * window / rate).astype(int), 1, power.shape[1] - 1)
    total = np.concatenate([np.zeros((len(power), 1)), power.cumsum(axis=1)], axis=1)
    bands = np.diff(total[:, places], axis=1)
    floor = max(bands.max(), np.finfo(float).tiny) * 10 ** (-_RANGE / 10)
    decibels = 10 * np.log10(np.maximum(bands, floor))
    means = decibels.mean(axis=0)
    return np.concatenate([means - means.mean(), decibels.std(axis=0)]).astype(np.float32)


def near_duplicates(clips: pd.DataFrame, within: float = 0.5) -> pd.DataFrame:
    """Pairs of clips in different folds whose fingerprints lie within so many dB (root mean square).

    Parameters
    ----------
    clips : with clip, fold, name, source, sha256 and fingerprint.

    Returns
    -------
    One row per pair, the closest first: clip, fold, name, source, the same of the other clip (other_clip,
    other_fold …), distance in dB, and same_file.
    """
    marks = np.stack(clips["fingerprint"].to_list()).astype(np.float64) if len(clips) else np.zeros((0, 1))
    fold, number, pairs = clips["fold"].to_numpy(), np.arange(len(clips)), []
    for begin in range(0, len(clips), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        distance = cdist(marks[block], marks) / np.sqrt(marks.shape[1])
        asked = (number[block, None] < number) & (fold[block, None] != fold)
        i, j = np.nonzero(asked & (distance <= within))
        pairs += zip(begin + i, j, distance[i, j], strict=True)
    one, other = (clips.iloc[[pair[side] for pair in pairs]].reset_index(drop=True) for side in (0, 1))
    columns = ("clip", "fold", "name", "source")
    found = pd.DataFrame({name: one[name] for name in columns})
    found = found.assign(**{f"other_{name}": other[name] for name in columns})
    found["distance"] = [pair[2] for pair in pairs]
    found["same_file"] = one["sha256"] == other["sha256"]
    return found.sort_values("distance", ignore_index=True)


def by_recording(pairs: pd.DataFrame) -> pd.DataFrame:
    """Near-duplicates as pairs of recordings: two long recordings of one thing are one row, not a hundred.

    Returns
    -------
    One row per pair of recordings, the closest first: recordings, classes and folds (texts that name both
    sides), clips that are involved, pairs of clips, distance in dB of the closest pair, same_file (how
    many pairs are one file twice).
    """
    sides = ("", "other_")
    rows = []
    key = (
        pairs[["source", "other_source"]].apply(lambda row: tuple(sorted(row)), axis=1) if len(pairs) else []
    )
    for recordings, group in pairs.groupby(key, sort=False) if len(pairs) else ():
        values = {
            what: sorted({str(each) for side in sides for each in group[side + what]})
            for what in ("name", "fold")
        }
        row = {"recordings": " and ".join(dict.fromkeys(recordings)), "classes": ", ".join(values["name"])}
        row |= {"folds": ", ".join(values["fold"]), "pairs": len(group)}
        row |= {"clips": len({*group["clip"], *group["other_clip"]})}
        rows.append(row | {"distance": group["distance"].min(), "same_file": int(group["same_file"].sum())})
    columns = ["recordings", "classes", "folds", "clips", "pairs", "distance", "same_file"]
    return pd.DataFrame(rows, columns=columns)
