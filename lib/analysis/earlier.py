"""Models of an earlier run beside those of this one, from the rows that its chapter 6 kept.

So a published study is extended by the models that it lacks, without its images and weights, and without
running any of its cells again.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lib import study
from lib.analysis import results
from lib.analysis.results import POINT, Results
from lib.grid import receipts

OF_MODELS = ("attacks", "evaluated", "clean", "leaks", "history")  # frames with a row for each model


def beside(found: Results, folder: str | Path, shown: str) -> Results:
    """The models of this run, and those of an earlier one that this one does not have.

    A model of this run takes the place of the earlier one at its point, with all that was measured of it. Its
    neighbour may stay: an original model of one run is then compared with the robust one of the other, which
    began from the same weights. Earlier cells are compared with the code and the settings of today, as those
    of this run are.

    Parameters
    ----------
    folder : the earlier rows, such as figures/esc10/rows.
    shown : model/fold/training whose examples are drawn; the run that comes nearest gives them, and the other
        those of the same clip and model on other representations.

    Raises
    ------
    ValueError : naming a file that is missing or damaged, or why the two runs cannot be put in one table:
        another data set, clips or size of images, or rows that do not say how they came about.
    """
    try:
        rows = results.load(folder)
        _check(found, rows)
        cells = _renewed(rows.cells)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"earlier: {folder}: {error}") from error
    have = {point for name in (*OF_MODELS, "cells") for point in _points(getattr(found, name)) if all(point)}
    known = {(*row[POINT], row["bins"], row["frames"]) for _, row in found.other_sizes.iterrows()}
    size = rows.other_sizes[[*POINT, "bins", "frames"]].itertuples(index=False, name=None)
    elsewhere = rows.other_sizes.loc[[one not in known and one[:4] not in have for one in size]]
    about = {name: of for name, of in rows.about.items() if (name, *_victim(of)) not in have}
    theirs = dataclasses.replace(rows, about=about, examples={name: rows.examples[name] for name in about})
    nearest, other = sorted((found, theirs), key=lambda run: _nearness(run, shown), reverse=True)
    same = [
        name for name, of in other.about.items() if of in nearest.about.values()
    ]  # the same clip and model
    return dataclasses.replace(
        found,
        **{
            name: results.stacked([getattr(found, name), _without(getattr(rows, name), have)])
            for name in OF_MODELS
        },
        cells=_both(found.cells, cells, have),
        times=_both(found.times, rows.times, have),
        sizes=results.stacked([found.sizes, rows.sizes]).drop_duplicates("representation", ignore_index=True),
        other_sizes=results.stacked([found.other_sizes, elsewhere]),
        notes=results.stacked([found.notes, rows.notes]).drop_duplicates(ignore_index=True),
        examples={name: other.examples[name] for name in same} | nearest.examples,
        about={name: other.about[name] for name in same} | nearest.about,
    )


def _check(found: Results, rows: Results) -> None:
    """Refuse rows that do not belong into one table with this run."""
    if rows.dataset != found.dataset:
        raise ValueError(f"these are rows of {rows.dataset}, not of {found.dataset}")
    lacks = [name for name in ("parameters", "sources") if name not in rows.cells]
    if lacks:
        raise ValueError(f"its cells do not say their {' and '.join(lacks)}, so they compare with nothing")
    now, then = (sorted({*zip(run.sizes["bins"], run.sizes["frames"], strict=True)}) for run in (found, rows))
    if now != then:
        each = [" and ".join(f"{bins} × {frames}" for bins, frames in sizes) for sizes in (then, now)]
        raise ValueError(f"its images are of {each[0]} values, not of {each[1]}")
    for row in found.sizes.merge(rows.sizes, on="representation", suffixes=("", "_then")).itertuples():
        pairs = ((row.frequencies, row.frequencies_then), (row.times, row.times_then))
        if not all(len(one) == len(other) and np.allclose(one, other) for one, other in pairs):
            raise ValueError(f"its images of {row.representation} are of other frequencies or times")
    facts = ["fold", "clip", "source", "label"]
    mine, theirs = (_without_seeds(run.clean)[facts].drop_duplicates() for run in (found, rows))
    for fold in sorted({*mine["fold"]} & {*theirs["fold"]}):
        differ = mine[mine["fold"] == fold].merge(theirs[theirs["fold"] == fold], how="outer", indicator=True)
        differ = differ[differ["_merge"] != "both"]
        if len(differ):
            raise ValueError(
                f"its fold {fold} has other clips, or other recordings or labels of them, such as "
                f"{differ['clip'].iloc[0]}"
            )
    both = results.stacked([mine, theirs])[facts[1:]].drop_duplicates()
    twice = both.loc[both["clip"].duplicated(), "clip"]
    if len(twice):
        raise ValueError(f"its clip {twice.iloc[0]} has another recording or label than in this run")


def _without_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the fold alone where it is repeated with another seed: the clips are the same."""
    return frame.assign(fold=[str(study.fold_and_seed(fold)[0]) for fold in frame["fold"]])


def _points(frame: pd.DataFrame) -> set[tuple[str, ...]]:
    return set(frame[POINT].itertuples(index=False, name=None))


def _victim(about: Mapping[str, str]) -> tuple[str, ...]:
    """Model, fold and training of examples."""
    return tuple(about[axis] for axis in POINT[1:])


def _without(frame: pd.DataFrame, points: set[tuple[str, ...]]) -> pd.DataFrame:
    """The rows of other models than those at these points."""
    return frame.loc[[point not in points for point in frame[POINT].itertuples(index=False, name=None)]]


def _both(mine: pd.DataFrame, theirs: pd.DataFrame, points: set[tuple[str, ...]]) -> pd.DataFrame:
    """These cells and the earlier ones of other models, each once.

    Of the earlier cells without a model, those of chapters 1 and 2 are kept, on which its models rest;
    chapter 7 only where this run has none. A cell that both have, as one extends the other, is listed once.
    """
    others = _without(theirs, points)
    done = {*mine["chapter"]} - {*results.IMAGES}
    others = others[(others["fold"] != "") | ~others["chapter"].isin(done)]
    return results.stacked([mine, others]).drop_duplicates(ignore_index=True)


def _renewed(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with what has changed of their code up to now, not up to when their rows were kept."""
    changes, told = receipts.Changes(), []
    for cell in cells.itertuples():
        receipt = {"device": cell.device, "parameters": json.loads(cell.parameters)}
        told.append(", ".join(changes(receipt | {"sources": json.loads(cell.sources)}, cell.chapter)))
    return cells.assign(changed=told)


def _nearness(run: Results, shown: str) -> tuple[int, int]:
    """How well the examples of a run match ``shown``, and on how many representations there are any."""
    same = [results.alike(_victim(of), shown) for of in run.about.values()]
    return max(same, default=0), len(same)
