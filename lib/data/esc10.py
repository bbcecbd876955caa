"""ESC-10: the 400 clips and 10 classes of ESC-50 that may be used and played more freely."""

import functools

from lib.data import esc50
from lib.data.readers import DataSet

DATASET = DataSet(
    title="ESC-10",
    licence="CC BY 3.0",
    citation=esc50.CITATION,
    read=functools.partial(esc50.read, ten=True),
    folders=("ESC-10", "ESC-50"),
    origin=esc50.ORIGIN,
    attribution="Freesound {source}, by way of ESC-10 (K. J. Piczak), CC BY 3.0",
)
