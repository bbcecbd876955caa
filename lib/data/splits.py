"""Folds that never split a recording, and which clip is trained on, validated on or tested."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import study

PARTS = ("train", "validation", "test")
PROTOCOLS = ("official", "paper", "random", "copies")
FOLDS = 5  # made where a data set has none
_TEST_SHARE = 0.3  # of the paper's random split
_INNER_FOLDS = 5  # of the paper's cross-validation inside the rest


def grouped_folds(frame: pd.DataFrame, folds: int = FOLDS) -> pd.Series:
    """Folds that never split a source and hold each class as evenly as sources allow.

    Large sources are placed first, each into the fold that has the fewest clips of its classes, then
    the fewest clips at all.

    Raises
    ------
    ValueError : if a class has fewer than three sources, for then it cannot be trained on, validated
        and tested without a leak.
    """
    few = frame.groupby("name")["source"].nunique()
    if few.min() < len(PARTS):
        raise ValueError(
            f"class {few.idxmin()!r} has {few.min()} recordings; folds that split no recording need 3 of "
            "each class: name more sources, or give a column fold"
        )
    counts = pd.crosstab(frame["source"], frame["name"])
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    held = np.zeros((min(folds, int(few.min())), counts.shape[1]))
    place = {}
    for source, row in zip(counts.index, counts.to_numpy(), strict=True):
        place[source] = min(range(len(held)), key=lambda k: (held[k] @ (row > 0), held[k].sum(), k))
        held[place[source]] += row
    return frame["source"].map(place).astype(int) + 1


def split(
    clips: pd.DataFrame, fold: int, protocol: str = "official", *, seed: int = 0, copies: int = 1
) -> pd.DataFrame:
    """Which clip, and which copy of it, is trained on, validated on or tested: reading 7.

    Parameters
    ----------
    clips : as :func:`clips` gives them.
    fold : the fold held out (``official``, ``copies``), or the inner fold 1 … 5 that validates.
    protocol : ``official`` tests fold k, validates on the next fold that is there, cyclically, and
        trains on the rest; only training has augmented copies. ``paper`` draws 30 % of all clips and
        copies to test and one of five folds of the rest to validate, so that both recordings and
        copies leak. Each leak alone: ``random`` draws clips so, with copies only in training (recordings
        leak); ``copies`` is official, but trains on the copies of tested clips as well.
    seed : of the draws.
    copies : versions of a clip, the original among them.

    Returns
    -------
    A row for each (clip, copy) that takes part: position (in ``clips``), copy (0 the original), row
    (position · copies + copy, the store's row), label, source, fold, part (train, validation, test).

    Raises
    ------
    ValueError : if fold or protocol is unknown, or a part comes out empty.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol = {protocol!r} is none of {', '.join(PROTOCOLS)}")
    if copies < 1:
        raise ValueError(f"copies = {copies} is below 1")
    n = len(clips)
    position, copy = (part.ravel() for part in np.divmod(np.arange(n * copies), copies))
    frame = pd.DataFrame({"position": position, "copy": copy, "row": np.arange(n * copies)})
    for column in ("label", "source", "fold"):
        frame[column] = clips[column].to_numpy()[position]
    if protocol == "paper":
        frame["part"] = _random_parts(n * copies, fold, study.seed_of("paper", seed))
    else:
        whole = (
            _random_parts(n, fold, study.seed_of("random", seed))
            if protocol == "random"
            else _official_parts(clips["fold"].to_numpy(), fold)
        )
        frame["part"] = whole[position]
        if protocol == "copies":
            frame.loc[frame["copy"] > 0, "part"] = "train"
        else:
            frame = frame[(frame["copy"] == 0) | (frame["part"] == "train")]
    for part in PARTS:
        if not (frame["part"] == part).any():
            raise ValueError(f"fold {fold} ({protocol}) leaves nothing to {part}: {n} clips are too few")
    return frame.reset_index(drop=True)


def _official_parts(folds: np.ndarray, fold: int) -> np.ndarray:
    there = sorted(set(folds.tolist()))
    if fold not in there:
        raise ValueError(f"fold = {fold} is none of the folds that are there, {', '.join(map(str, there))}")
    if len(there) < len(PARTS):
        raise ValueError(f"{len(there)} folds are too few to train, validate and test")
    following = there[(there.index(fold) + 1) % len(there)]
    return np.select([folds == fold, folds == following], ["test", "validation"], "train")


def _random_parts(n: int, fold: int, seed: int) -> np.ndarray:
    if not 1 <= fold <= _INNER_FOLDS:
        raise ValueError(f"fold = {fold} is none of the {_INNER_FOLDS} inner folds of a random split")
    order = np.random.default_rng(seed).permutation(n)
    tested = round(_TEST_SHARE * n)
    parts = np.full(n, "train", dtype="U10")
    parts[order[:tested]] = "test"
    parts[order[tested:][fold - 1 :: _INNER_FOLDS]] = "validation"
    return parts


def leaks(split: pd.DataFrame) -> pd.DataFrame:
    """What stands on both sides of a split: nothing, if it is honest.

    Returns
    -------
    One row per leak: what (``recording``, or ``clip`` where copies of one clip are parted), which (source,
    or position in clips), parts (such as ``train, test``), rows (how many are involved).
    """
    found = []
    for what, column in (("recording", "source"), ("clip", "position")):
        parts = split.groupby(column)["part"].agg(
            [lambda p: ", ".join(sorted(set(p), key=PARTS.index)), "size"]
        )
        parts.columns = ["parts", "rows"]
        crossing = parts[parts["parts"].str.contains(", ")]
        found += [
            (what, str(which), *row) for which, row in zip(crossing.index, crossing.to_numpy(), strict=True)
        ]
    return pd.DataFrame(found, columns=["what", "which", "parts", "rows"])


def crossing(clips: pd.DataFrame) -> pd.DataFrame:
    """Recordings whose clips are in more than one of the folds that the data set gives.

    Returns
    -------
    One row per recording: recording, folds, classes (texts) and clips.
    """
    rows = []
    for source, group in clips.groupby("source"):
        folds = sorted(group["fold"].unique())
        if len(folds) > 1:
            classes = ", ".join(sorted(group["name"].unique()))
            rows.append((source, ", ".join(map(str, folds)), classes, len(group)))
    return pd.DataFrame(rows, columns=["recording", "folds", "classes", "clips"])


def choose(frame: pd.DataFrame, n: int, seed: int = 0) -> pd.DataFrame:
    """A seeded subset with the classes as even as can be, and as many recordings as can be.

    The first n of one seeded order, so that a smaller subset lies within a larger one.

    Parameters
    ----------
    frame : with ``label`` and, where recordings count, ``source``.
    n : how many rows; 0, or more than there are, is all of them.

    Returns
    -------
    The rows chosen, in the frame's own order.
    """
    if n < 0:
        raise ValueError(f"n = {n} is below 0")
    if n == 0 or n >= len(frame):
        return frame
    draw = np.random.default_rng(study.seed_of("choose", seed)).permutation(len(frame))
    table = frame[["label"]].assign(draw=draw, source=frame.get("source", draw))
    table = table.sort_values("draw")
    table["take"] = table.groupby("source").cumcount()
    table = table.sort_values(["take", "draw"])
    table["turn"] = table.groupby("label").cumcount()
    chosen = table.sort_values(["turn", "draw"]).index[:n]
    return frame.loc[frame.index.isin(chosen)]
