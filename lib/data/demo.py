"""The demo: toy sounds as a data set. Nothing is read from disk, and a clip's empty path says so."""

from pathlib import Path

import pandas as pd

from lib.data import toy
from lib.data.readers import DataSet


def read(folder: Path) -> pd.DataFrame:
    """The toy sounds; no folder is looked at."""
    frame = toy.clips()
    target = frame["name"].map({name: i for i, name in enumerate(toy.NAMES)})
    return frame.assign(path="", target=target)[["clip", "path", "target", "name", "fold", "source", "take"]]


DATASET = DataSet(
    title="Toy sounds",
    licence="made by this study, under its own licence",
    citation="lib/data/toy.py",
    read=read,
    attribution="toy sound",
)
