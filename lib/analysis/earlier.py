"""Models of an earlier run beside those of this one, from the rows that its chapter 6 kept.

So a published study is extended by the models that it lacks, without its images and weights, and without
running any of its cells again.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd

from lib.analysis import results
from lib.analysis.results import POINT, Results
from lib.grid import receipts

OF_MODELS = ("attacks", "evaluated", "clean", "leaks", "history")  # frames with a row for each model


def beside(found: Results, folder: str | Path, shown: str) -> Results:
    """The models of this run, and those of an earlier one that this one does not have.

    A model of this run takes the place of the earlier one at its point, with all that was measured of it. The
    earlier cells are compared with the code and the settings of today, as those of this run are.

    Parameters
    ----------
    folder : the earlier rows, such as figures/esc10/rows.
    shown : model/fold/training whose examples are drawn; the run that comes nearest gives them.

    Raises
    ------
    ValueError : naming a file that is missing or damaged, or why the two runs cannot be put in one table:
        another data set, clips or size of images, or rows that do not say how they came about.
    """
    try:
        rows = results.load(folder)
        _check(found, rows)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"earlier: {folder}: {error}") from error
    have = _points(found.clean)
    joined = {name: _joined(getattr(found, name), _without(getattr(rows, name), have)) for name in OF_MODELS}
    cells = _joined(found.cells, _others(_renewed(rows.cells), found.cells, have))
    times = _joined(found.times, _others(rows.times, found.times, have))
    sizes = rows.sizes[~rows.sizes["representation"].isin(found.sizes["representation"])]
    known = {*(found.other_sizes["bins"] * found.other_sizes["frames"])}
    elsewhere = rows.other_sizes[~(rows.other_sizes["bins"] * rows.other_sizes["frames"]).isin(known)]
    said = [*found.notes["note"], *rows.notes["note"], *results.mixed(cells, joined["attacks"])]
    nearest = max((found, rows), key=lambda run: _nearness(run, shown.split("/")))
    return dataclasses.replace(
        found,
        **joined,
        cells=cells,
        times=times,
        sizes=_joined(found.sizes, sizes),
        other_sizes=_joined(found.other_sizes, elsewhere),
        notes=pd.DataFrame({"note": list(dict.fromkeys(said))}, dtype=object),
        examples=nearest.examples,
        about=nearest.about,
    )


def _check(found: Results, rows: Results) -> None:
    """Refuse rows that do not belong into one table with this run."""
    if rows.dataset != found.dataset:
        raise ValueError(f"these are rows of {rows.dataset}, not of {found.dataset}")
    lacks = [name for name in ("parameters", "sources") if name not in rows.cells]
    if lacks:
        raise ValueError(f"its cells do not say their {' and '.join(lacks)}, so they compare with nothing")
    for row in found.sizes.merge(rows.sizes, on="representation", suffixes=("", "_then")).itertuples():
        then, now = (row.rows_then, row.frames_then), (row.rows, row.frames)
        if then != now:
            raise ValueError(
                f"its images of {row.representation} are {then[0]} × {then[1]}, not {now[0]} × {now[1]}"
            )
        if not (
            np.array_equal(row.frequencies, row.frequencies_then)
            and np.array_equal(row.times, row.times_then)
        ):
            raise ValueError(f"its images of {row.representation} are of other frequencies or times")
    facts = ["fold", "clip", "source", "label"]
    mine, theirs = (run.clean[facts].drop_duplicates() for run in (found, rows))
    for fold in sorted({*mine["fold"]} & {*theirs["fold"]}):
        differ = mine[mine["fold"] == fold].merge(theirs[theirs["fold"] == fold], how="outer", indicator=True)
        differ = differ[differ["_merge"] != "both"]
        if len(differ):
            raise ValueError(f"its fold {fold} has other clips, {differ['clip'].iloc[0]} among them")


def _points(frame: pd.DataFrame) -> set[tuple[str, ...]]:
    return set(frame[POINT].itertuples(index=False, name=None))


def _without(frame: pd.DataFrame, points: set[tuple[str, ...]]) -> pd.DataFrame:
    """The rows of other models than those at these points."""
    return frame[[point not in points for point in frame[POINT].itertuples(index=False, name=None)]]


def _others(frame: pd.DataFrame, mine: pd.DataFrame, points: set[tuple[str, ...]]) -> pd.DataFrame:
    """Cells of other models; and of chapters 1, 2 and 7, which belong to no model, those not mine."""
    have = set(mine[["chapter", *POINT]].itertuples(index=False, name=None))
    new = [cell not in have for cell in frame[["chapter", *POINT]].itertuples(index=False, name=None)]
    return _without(frame[new], points)


def _joined(mine: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    full = [frame for frame in (mine, theirs) if len(frame)]
    return pd.concat(full, ignore_index=True) if full else mine


def _renewed(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with what has changed of their code up to now, not up to when their rows were kept."""
    changes = receipts.Changes()
    told = [
        changes(
            {
                "device": row.device,
                "parameters": json.loads(row.parameters),
                "sources": json.loads(row.sources),
            },
            row.chapter,
        )
        for row in cells.itertuples()
    ]
    return cells.assign(changed=[", ".join(names) for names in told])


def _nearness(run: Results, wanted: list[str]) -> tuple[int, int]:
    """How well the examples of a run match model, fold and training, and on how many representations."""
    victim = next(iter(run.about.values()), {})
    same = sum(victim.get(axis) == word for axis, word in zip(POINT[1:], wanted, strict=True))
    return same, len(run.about)
