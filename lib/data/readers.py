"""The data sets: where each lies on disk, and its table read into one common form."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from lib.data import toy
from lib.data.splits import PARTS, grouped_folds


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


DATASETS = {
    "demo": DataSet(
        title="Toy sounds",
        folders=(),
        read=lambda folder: _read_toy(),
        licence="made by this study, under its own licence",
        citation="lib/data/toy.py",
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
