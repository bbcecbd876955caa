"""UrbanSound8K: 8732 clips of city sounds in 10 classes and 10 folds, of any rate, depth and channels."""

from pathlib import Path

import pandas as pd

from lib.data.download import Source
from lib.data.readers import DataSet, below, integers, table_of

ORIGIN = Source(
    url="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
    archive="UrbanSound8K.tar.gz",
    digest="md5:9aa69802bbf37fb986f71ec1483a196e",
    folder="UrbanSound8K",
    table="metadata/UrbanSound8K.csv",
)


def read(folder: Path) -> pd.DataFrame:
    """The clips that metadata/UrbanSound8K.csv lists, each in the folder of its fold."""
    file = folder / "metadata" / "UrbanSound8K.csv"
    table = table_of(file, "slice_file_name fsID fold classID class")
    stems = [Path(name).stem for name in table["slice_file_name"]]
    return pd.DataFrame(
        {
            "clip": stems,
            "path": below(folder / "audio", "fold" + table["fold"] + "/" + table["slice_file_name"], file),
            "target": integers(table, "classID", file),
            "name": table["class"],
            "fold": integers(table, "fold", file, least=1),
            "source": table["fsID"],
            "take": [stem.partition("-")[2] for stem in stems],
        }
    )


DATASET = DataSet(
    title="UrbanSound8K",
    licence="CC BY-NC 3.0",
    citation="J. Salamon, C. Jacoby, J. P. Bello, A Dataset and Taxonomy for Urban Sound Research, "
    "ACM Multimedia 2014",
    read=read,
    folders=("UrbanSound8K",),
    origin=ORIGIN,
    attribution="Freesound {source}, by way of UrbanSound8K (J. Salamon et al.), CC BY-NC 3.0",
)
