"""ESC-50: 2000 clips of environmental sounds in 50 classes and 5 folds."""

from pathlib import Path

import pandas as pd

from lib.data.download import Source
from lib.data.readers import DataSet, below, integers, table_of, yes_or_no

ORIGIN = Source(
    url="https://github.com/karolpiczak/ESC-50/archive/33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip",
    archive="ESC-50.zip",
    digest="sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
    folder="ESC-50",
    largest=1 << 30,
    table="meta/esc50.csv",
    # MD5 of the 2000 clips and the table, from the index that soundata 0.1.3 (BSD 3-clause) ships.
    files=Path(__file__).with_name("esc50_md5.csv"),
)
CITATION = "K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015"


def read(folder: Path, *, ten: bool = False) -> pd.DataFrame:
    """The clips that meta/esc50.csv lists; with ``ten`` only those that it counts to ESC-10."""
    file = folder / "meta" / "esc50.csv"
    table = table_of(file, "filename fold target category esc10 src_file take")
    if ten:
        table = table[yes_or_no(table, "esc10", file)]
    return pd.DataFrame(
        {
            "clip": [Path(name).stem for name in table["filename"]],
            "path": below(folder / "audio", table["filename"], file),
            "target": integers(table, "target", file),
            "name": table["category"],
            "fold": integers(table, "fold", file, least=1),
            "source": table["src_file"],
            "take": table["take"],
        }
    )


DATASET = DataSet(
    title="ESC-50",
    licence="CC BY-NC 3.0",
    citation=CITATION,
    read=read,
    folders=("ESC-50",),
    origin=ORIGIN,
    attribution="Freesound {source}, by way of ESC-50 (K. J. Piczak), CC BY-NC 3.0",
)
