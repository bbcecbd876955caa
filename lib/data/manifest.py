"""The manifest, one row per clip: all that later chapters know of a data set. See `lib.data.listening`."""

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
