"""Where each data set lies on disk, and its table read into one common form.

The data set ``KEY`` is the module ``lib/data/KEY.py`` with a `DataSet` named ``DATASET``; it is found by its
name, and no list holds it. A folder of one's own with a ``clips.csv`` needs no module.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd

from lib.data.splits import PARTS

if TYPE_CHECKING:
    from lib.data.download import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """How one data set lies on disk and where it is from.

    Parameters
    ----------
    title, licence, citation : as chapter 1 prints them.
    read : from the folder to a frame with clip, path, target, name, fold, source and take.
    folders : names looked for under the data folder; the first that is there is read. A data set that is
        synthesised has none.
    origin : where it is fetched from, if it can be.
    attribution : what has to stand beside a clip that is played, with ``{source}`` for its recording; empty
        where clips may not be spread.
    """

    title: str
    licence: str
    citation: str
    read: Callable[[Path], pd.DataFrame]
    folders: tuple[str, ...] = ()
    origin: Source | None = None
    attribution: str = ""


def known(dataset: str) -> DataSet | None:
    """The data set of that key, or None where no module of this folder describes it."""
    if not dataset.isidentifier() or not Path(__file__).with_name(f"{dataset}.py").is_file():
        return None
    return getattr(importlib.import_module(f"lib.data.{dataset}"), "DATASET", None)


def read(dataset: str, data: str) -> pd.DataFrame:
    """Read a data set's table; no audio is opened, but every file that the table names must be there.

    Returns
    -------
    clip, path, label, name, fold, source, take.

    Raises
    ------
    FileNotFoundError : if the folder, its table or an audio file that the table names is missing.
    ValueError : if the data set is unknown or its table is wrong.
    """
    about = known(dataset)
    frame = (about.read if about else _own)(folder(dataset, data))
    again = frame["clip"].duplicated()
    if again.any():
        raise ValueError(f"{dataset}: the clip {frame.loc[again, 'clip'].iloc[0]!r} stands in its CSV twice")
    again = frame["path"].duplicated() & (frame["path"] != "")
    if again.any():
        raise ValueError(f"{dataset}: {frame.loc[again, 'path'].iloc[0]} stands in its CSV twice")
    _check_files(dataset, [path for path in frame["path"] if path], Path(data))
    for target, found in frame.groupby("target")["name"].unique().items():
        if len(found) > 1:
            raise ValueError(f"{dataset}: the label {target!r} has two names, {found[0]!r} and {found[1]!r}")
    order = {target: label for label, target in enumerate(sorted(frame["target"].unique()))}
    frame = frame.assign(label=frame["target"].map(order).astype(int))
    return frame.drop(columns="target").reset_index(drop=True)


def _check_files(dataset: str, paths: list[str], data: Path) -> None:
    """Refuse what is no ordinary file, or a link to somewhere else, by name and before it is read."""
    absent = [path for path in paths if not os.path.isfile(path)]
    if absent:
        what = "is no ordinary file" if os.path.exists(absent[0]) else "is not there"
        what = "is a folder, not a file" if os.path.isdir(absent[0]) else what
        link = "; it is a link that leads nowhere" if os.path.islink(absent[0]) else ""
        raise FileNotFoundError(
            f"{dataset}: {absent[0]}, named by the CSV, {what} ({len(absent)} of {len(paths)} files "
            f"missing{link})"
        )
    homes = [os.path.realpath(home) + os.sep for home in (data, folder(dataset, str(data)))]
    for path in paths:
        if not os.path.realpath(path).startswith(tuple(homes)):
            raise ValueError(
                f"{dataset}: {path} is a link out of {data}, to {os.path.realpath(path)}: copy it"
            )


def folder(dataset: str, data: str) -> Path:
    """Where a data set lies under the folder ``data``.

    Raises
    ------
    ValueError : if the data set is unknown. FileNotFoundError : if its folder is missing.
    """
    root, about = Path(data), known(dataset)
    if about is None:
        if (root / dataset / "clips.csv").is_file():
            return root / dataset
        keys = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if known(path.stem))
        raise ValueError(
            f"dataset = {dataset!r} is none of {', '.join(keys)}, "
            f"and there is no {root / dataset / 'clips.csv'} of your own"
        )
    there = [root / name for name in about.folders if (root / name).is_dir()]
    if about.folders and not there:
        wanted = " or ".join(str(root / name) for name in about.folders)
        fetches = f"'make data DATASETS={dataset}' fetches it, " if about.origin else ""
        raise FileNotFoundError(
            f"{dataset}: no folder {wanted}; {fetches}DATA= names the folder that holds it"
        )
    return there[0] if there else root


def there(dataset: str, data: str) -> bool:
    """Whether a folder of a known data set is below ``data``."""
    return any((Path(data) / name).is_dir() for name in known(dataset).folders)


def _own(folder: Path) -> pd.DataFrame:
    """A folder of one's own: clips.csv with path, label and, if known, source and fold.

    Without folds the column is missing; chapter 1 deals them once it knows which clips can be used.
    """
    file = folder / "clips.csv"
    table = table_of(file, "path label", "source fold")
    path = below(folder, table["path"], file)
    clip = [str(PurePosixPath(each).relative_to(os.path.abspath(folder))) for each in path]
    source = table["source"].where(table["source"] != "", clip) if "source" in table else pd.Series(clip)
    source = source.set_axis(table.index)
    numeric = table["label"].str.fullmatch(r"-?[0-9]{1,18}").all()
    target = table["label"].astype(int) if numeric else table["label"]
    for labels in table["label"].groupby(table["label"].map(_number)).unique():
        if len(labels) > 1:
            raise ValueError(f"{file}: the labels {labels[0]!r} and {labels[1]!r} are the same number")
    if target.nunique() < 2:
        raise ValueError(f"{file}: every clip has the label {target.iloc[0]!r}; two are wanted")
    columns = {"clip": clip, "path": path, "target": target, "name": table["label"], "source": source}
    frame = pd.DataFrame(columns).assign(take=table.groupby(source).cumcount().astype(str))
    if "fold" not in table:
        return frame
    fold = integers(table, "fold", file, least=1)
    if fold.nunique() < len(PARTS):
        raise ValueError(f"{file}: {fold.nunique()} folds are too few to train, validate and test")
    return frame.assign(fold=fold)


def _number(label: str) -> float:
    """A label's value where it is a number; else not a number, which groups with nothing."""
    return float(label) if re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{0,18})?", label) else math.nan


# --- what the readers of all data sets share ------------------------------------------------------------


def table_of(file: Path, columns: str, known: str = "") -> pd.DataFrame:
    """Read a CSV as text, with or without a byte-order mark, and insist on its columns.

    Values lose the spaces around them and are in Unicode's composed form, so that a name is one name
    however it was typed; the index is the line of the file.

    Parameters
    ----------
    columns : names of the columns that must be there, none of whose values may be empty.
    known : names of columns that may be there, once each.
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
                rows[lines.line_num] = [unicodedata.normalize("NFC", value.strip()) for value in row]
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


def integers(table: pd.DataFrame, column: str, file: Path, *, least: int = 0) -> pd.Series:
    """A column as whole numbers from ``least`` on; another value is refused with its line."""
    for line, value in table[column].items():
        if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < least:
            raise ValueError(
                f"{file}: {column} = {value!r} in line {line} is no whole number"
                + (f" from {least} on" if least else "")
            )
    return table[column].astype(int)


YES, NO = ("true", "yes", "y", "t", "1"), ("false", "no", "n", "f", "0")


def yes_or_no(table: pd.DataFrame, column: str, file: Path) -> pd.Series:
    """A column of yes and no in any of their usual spellings; another value is refused with its line."""
    for line, value in table[column].items():
        if value.lower() not in YES + NO:
            raise ValueError(
                f"{file}: {column} = {value!r} in line {line} is none of {', '.join(YES)} and {', '.join(NO)}"
            )
    return table[column].str.lower().isin(YES)


def below(folder: Path, names: Iterable[str], file: Path) -> list[str]:
    """The absolute paths of the files that a table names, none of which may lie outside its folder.

    A file whose name was composed otherwise on disk (as by macOS) is found too.
    """
    found, home = [], Path(os.path.abspath(folder))
    for name in names:
        path = os.path.normpath(home / name)
        if home not in Path(path).parents or "\0" in name:
            raise ValueError(f"{file} names {name!r}, which is no path below {folder}")
        forms = [str(home) + unicodedata.normalize(form, path[len(str(home)) :]) for form in ("NFC", "NFD")]
        found.append(next((form for form in forms if os.path.lexists(form)), forms[0]))
    return found
