"""The manifest, one row per clip: all that later chapters know of a data set. See `lib.data.listening`."""

import math

import pandas as pd

from lib import files, reporting, study

_SAYS = ("clip", "path", "label", "name", "fold", "source", "take")  # of the data set's table
_HEARD = ("rate", "channels", "frames", "peak", "rms", "offset", "quiet", "clipped", "fingerprint", "sha256")
COLUMNS = (*_SAYS, *_HEARD, "problem")


def usable(cell: study.Cell) -> pd.DataFrame:
    """The usable clips in the manifest that chapter 1 wrote for this point's data set, numbered from 0.

    The number is the clip's position in stores and splits. The manifest's hash goes into the receipt of
    the cell that reads it.
    """
    path = cell.up(1).path("clips.parquet")
    frame = files.load(path)
    reporting.note("data", files.digest(path))
    return frame[frame["problem"] == ""].reset_index(drop=True)


def cut(clips: pd.DataFrame, duration: float) -> pd.Series:
    """How much clips lose where they are cut to ``duration`` s.

    Returns
    -------
    clips (how many are longer by more than a hundredth), share (of all sound, in seconds, that is lost) and
    longest (s).
    """
    seconds = clips["frames"] / clips["rate"]
    lost = (seconds - duration).clip(lower=0)
    longer = int((lost > 0.01 * duration).sum())
    return pd.Series({"clips": longer, "share": lost.sum() / seconds.sum(), "longest": seconds.max()})


def proposal(clips: pd.DataFrame, lost: float = 0.01) -> dict[str, float]:
    """Values of chapter 2's ``duration`` and ``stft_rate`` that suit these clips.

    The duration is the least multiple of half a second at which no more than the share ``lost`` of all sound
    is cut; the rate is that of most clips.
    """
    seconds = clips["frames"] / clips["rate"]
    steps = range(1, math.ceil(2 * seconds.max()) + 1)
    duration = next(step / 2 for step in steps if cut(clips, step / 2)["share"] <= lost)
    return {"duration": duration, "stft_rate": int(clips["rate"].mode().iloc[0])}


def odd(clips: pd.DataFrame) -> pd.DataFrame:
    """The clips that stand out, by name: what they are, which clip, its class, and how much.

    The shortest, the quietest (least effective value), the one with most digital silence or sound 60 dB
    below its peak, the most clipped, and the one with the largest constant offset.
    """
    seconds = clips["frames"] / clips["rate"]
    offset = clips["offset"].abs()
    found = []
    for what, values, words in (
        ("shortest", -seconds, "{:.2f} s"),
        ("quietest", -clips["rms"], "an effective value of {:.1e} of full scale"),
        ("most silence", clips["quiet"], "{:.0%} of its time 60 dB below its peak"),
        ("most clipped", clips["clipped"], "{:.1%} of its samples at full scale"),
        ("largest offset", offset, "{:.2f} times the effective value of its sound"),
    ):
        clip = clips.loc[values.idxmax()]
        found.append((what, clip["clip"], clip["name"], words.format(abs(values.max()))))
    return pd.DataFrame(found, columns=["what", "clip", "class", "how much"])


def typical(clips: pd.DataFrame) -> pd.Series:
    """A clip to show: of those with sound at least three quarters of their time, the one of median level.

    Where none has as much sound, the one that has most.
    """
    sounding = clips[clips["quiet"] <= 0.25]
    if sounding.empty:
        return clips.loc[clips["quiet"].idxmin()]
    return clips.loc[sounding["rms"].sort_values(kind="stable").index[len(sounding) // 2]]
