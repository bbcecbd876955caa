"""Tables, pictures, the ledger and their index, made of gathered rows.

A part is a function of an `Analysis` in `PARTS`; chapter 6 calls each where it explains it, and
``python -m lib.analysis.report ROWS FOLDER`` (``make figures``) calls them all, so both are one path. A table
becomes CSV (tidy), Markdown and LaTeX (booktabs), a picture PNG, PDF and CSV; the same rows give the same
bytes. All parts are put in place together, once all of them were made.
"""

import argparse
import dataclasses
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import figures, files, markup, names
from lib.analysis import answer, claims, published, results, tables
from lib.analysis.printing import interval, latex, markdown, marked, number, table
from lib.analysis.results import POINT
from lib.analysis.tables import COUNTS, EXACT, MEANS, PAIR, ROBUST, Analysis


@dataclasses.dataclass(frozen=True)
class Part:
    """One table or picture.

    Parameters
    ----------
    caption : what it shows, in a sentence or two; of what run is said by the index.
    frame : its numbers, tidy; what the CSV holds.
    shown : the table as it is printed, texts with an index; empty for a picture.
    figure : the picture, or nothing.
    """

    caption: str
    frame: pd.DataFrame
    shown: pd.DataFrame | None = None
    figure: Figure | None = None

    def markdown(self) -> str:
        """The caption, and the table if there is one; both are text, whatever classes are called."""
        caption = markup.text(self.caption)
        return caption if self.shown is None else f"{caption}\n\n{markdown(self.shown)}"


class NothingToShow(ValueError):
    """Why a part of these rows would be empty."""


def _known(frame: pd.DataFrame, why: str) -> pd.DataFrame:
    """The frame, or a refusal that says why it is empty."""
    if frame.empty:
        raise NothingToShow(why)
    return frame


_NO_ATTACK = "no model was attacked"
_NO_PAIR_ATTACKED = "no model was attacked both before and after adversarial training"
_ROUNDED = "Every number is rounded by itself, changes and gains as well."
_EACH = " on each representation"


def _over(frame: pd.DataFrame) -> str:
    """What the intervals of a table are over, said once."""
    what = sorted(set(frame["over"].dropna()))
    repeats = [text.split(" × ") for text in what if tables.trainings(text)]
    clips = {int(text.split()[0]) for text in what if not tables.trainings(text)} - {0}
    text = ""
    if repeats:
        each = tables.spread(int(n) for _, text in repeats for n in re.findall(r"\d+", text))
        kinds = " or ".join(dict.fromkeys(kind for kind, _ in repeats))
        text += (
            f" Intervals are 95 %: Student's t over {kinds} × {each} clips, or over all these clips where "
            "that is wider (folds share training clips, so both may be too narrow)."
        )
    if clips:
        over = f"over {tables.spread(clips)} clips"
        over += ", with recordings as units," if any("recordings" in text for text in what) else ""
        once = f"Of a single training, or where all {kinds.split()[-1]} agree, it is" if repeats else ""
        text += f" {once} {over} and does not" if repeats else f" Intervals are 95 %, {over} and do not"
        text += " include another training."
    return text


def _model(found: Analysis, row: Mapping, *trainings: str) -> str:
    """A model's label, with a dagger where one of these trainings of it is unfinished."""
    victims = {(row["representation"], row["model"], training) for training in trainings}
    return names.label(row["model"]) + (" †" if victims & set(found.unfinished) else "")


def _dagger(found: Analysis, frame: pd.DataFrame) -> str:
    """What the daggers of a table mean, with the reasons."""
    shown = set(frame[PAIR].itertuples(index=False, name=None)) if len(frame) else set()
    why = {v: reason for v, reason in found.unfinished.items() if v[:2] in shown}
    if not why:
        return ""
    first, reason = next(iter(why.items()))
    point = ", ".join(names.label(word) for word in first)
    more = f" and {len(why) - 1} more" if len(why) > 1 else ""
    return f" † The training is unfinished ({point}: {reason}{more}), so no verdict rests on it."


def _label(row: Mapping) -> str:
    return names.label(row["representation"])


# --------------------------------------------------------------------------------------------------- tables


def cells_table(found: Analysis) -> Part:
    rows = found.results
    lines = {}
    for chapter, mine in rows.cells.groupby("chapter", sort=True):
        commits = ", ".join(sorted({text[:10] or "no git" for text in mine["commit"]}))
        old = int((mine["changed"] != "").sum())
        lines[chapter] = [str(len(mine)), commits, str(int(mine["dirty"].sum())), str(old)]
    columns = ["cells", "commits", "with uncommitted changes", "older than their code"]
    shown = pd.DataFrame(lines.values(), columns=columns, index=pd.Index(list(lines), name="chapter"))
    absent = rows.missing()
    caption = f"The cells that this analysis rests on. Missing from the grid: {len(absent)} attacked models"
    caption += f" ({', '.join(absent[:8])}{', …' if len(absent) > 8 else ''})." if absent else "."
    right = rows.clean[rows.clean["predicted"] == rows.clean["label"]].merge(rows.evaluated[[*POINT, "clip"]])
    met, some = ({*frame[POINT].itertuples(index=False, name=None)} for frame in (rows.evaluated, right))
    empty = sorted(met - some)
    if empty:
        points = ", ".join("/".join(point) for point in empty)
        caption += f" Attacked, but with no correctly classified clip: {len(empty)} ({points})."
    caption += "".join(f" Note: {note}." for note in rows.remarks())
    return Part(caption, rows.cells.drop(columns=["parameters", "sources"], errors="ignore"), shown)


def summary_table(found: Analysis) -> Part:
    frame = _known(tables.summary(found), _NO_PAIR_ATTACKED)
    columns = {
        ("clean_percent", "standard"): "clean, original [%]",
        ("clean_percent", ROBUST): "clean, robust [%]",
        "clean_change_percent": "change of clean accuracy [points]",
        ("robust_percent", "standard"): "robust accuracy, original [%]",
        ("robust_percent", ROBUST): "robust accuracy, robust model [%]",
        "gain_percent": "gain in robust accuracy [points]",
    }
    cells = _measures(frame, lambda row: (_label(row),), columns)
    cells += [((_label(row),), "networks", str(row["networks"])) for row in _records(frame)]
    more = bool((frame["networks"] > 1).any())
    caption = (
        f"Clean and robust accuracy of the original and the robust model{', averaged over networks' * more}, "
        "both of all evaluated clips. Robust accuracy is the share of them that are correctly classified and "
        "that no attack misclassifies within ε, the budget that means ‖δ‖₂ = 3 at the paper's image size. "
        f"Change and gain are paired by clip. {_ROUNDED}"
    )
    several = ["networks"] * more
    shown = table(cells, ["representation"], [*columns.values(), *several, "n"])
    return Part(caption + _over(frame) + _left_out(found, found.averaged, _EACH), frame, shown)


def networks_table(found: Analysis) -> Part:
    gains = found.robustness.query("measure == 'gain_percent' and training == @ROBUST").dropna(subset="value")
    gains = _known(gains, _NO_PAIR_ATTACKED)
    ratios = found.ratios[found.ratios["attack"].isin(tables.FREE)].merge(gains[PAIR])
    parts = [gains, tables.clean_changes(found).merge(gains[PAIR]), ratios]
    frame = pd.concat(parts, ignore_index=True).drop(columns=["paper", "difference", "comparable"])
    heads = {name: f"ε_r, {names.label(name)}" for name in tables.FREE}
    heads |= {"accuracy_change_percent": "change of clean accuracy, all tested clips [points]"}
    heads |= {"gain_percent": "gain in robust accuracy [points]"}
    cells = []
    for row in _records(frame):
        key = (_label(row), _model(found, row, "standard", ROBUST))
        if row["measure"] in heads:
            cells.append((key, heads[row["measure"]], interval(row, 1, sign=True)))
        else:
            cells.append((key, heads[row["attack"]], _ratio(row)))
        if row["measure"] == "gain_percent":
            cells.append((key, "n", row["over"]))
    columns = [heads[name] for name in ("accuracy_change_percent", "gain_percent", *tables.FREE)]
    caption = (
        "Every network by itself: what adversarial training changes. The clean accuracy is of all tested "
        "clips, and the robust accuracy of the n evaluated ones. ε_r is the factor by which the perturbation "
        f"must be larger, over the clips that an attack fools in both models ({_fooled(ratios)} in all "
        f"trainings of a pair). {_ROUNDED}"
    )
    if ratios["censored"].any():
        caption += " Censored: clips that it did not fool in one of them."
    shown = table(cells, ["representation", "model"], [*columns, "n"])
    return Part(caption + _over(frame) + _dagger(found, frame), frame, shown)


def _fooled(ratios: pd.DataFrame) -> str:
    """How many clips the ratios of a pair are over."""
    return f"{tables.spread(ratios['fooled'].astype(int))} clips" if len(ratios) else "none"


def _left_out(found: Analysis, kept: Sequence[tables.Victim], where: str = "") -> str:
    """Which pairs a mean is of, and which it leaves out, if any."""
    left = [v for v in found.attacked if v not in kept]
    if not left:
        return ""
    return f" Only what was trained most often{where}: {_pairs(kept)}. Left out: {_pairs(left)}."


def _pairs(victims: Iterable[tables.Victim]) -> str:
    """Models with their representations: ``GoogLeNet, AlexNet (STFT, DWT); ResNet-34 (DWT)``."""
    on: dict[str, list[str]] = {}
    for representation, model, _ in victims:
        on.setdefault(names.label(model), []).append(names.label(representation))
    models: dict[str, list[str]] = {}
    for model, representations in on.items():
        models.setdefault(", ".join(representations), []).append(model)
    return "; ".join(f"{', '.join(each)} ({where})" for where, each in models.items())


def _records(frame: pd.DataFrame) -> list[dict]:
    return frame.to_dict("records")


_SIGNED = {"accuracy_drop_percent", "clean_change_percent", "gain_percent", "less_percent", "more_percent"}


def _measures(frame: pd.DataFrame, key: Callable[[dict], tuple], heads: Mapping) -> list[tuple]:
    """The numbers of a frame for `table`: a row per key, a column per measure, or measure and training, as
    ``heads`` names it, and ``n``, what the interval of the last one is over, besides ``more_percent``, which
    may be of fewer trainings."""
    cells = []
    for row in _records(frame):
        head = heads.get(row["measure"]) or heads[row["measure"], row["training"]]
        text = interval(row, 1, row["measure"] in _SIGNED)
        if row["measure"] == "more_percent":  # of the trainings that have a control, which may be fewer
            cells.append((key(row), head, f"{text} ({row['over']})"))
        else:
            cells += [(key(row), head, text), (key(row), "n", row["over"])]
    return cells


def accuracy_table(found: Analysis) -> Part:
    frame = found.recognition
    frame = frame[frame["training"].isin(["standard", ROBUST])]
    heads = {
        ("accuracy_percent", "standard"): "original [%]",
        ("accuracy_percent", ROBUST): "robust [%]",
        ("accuracy_drop_percent", ROBUST): "drop [points]",
    }
    cells = _measures(frame, lambda row: (_label(row), _model(found, row, "standard", ROBUST)), heads)
    caption = "Accuracy of the original and the robust model; the drop is paired by clip."
    tested, drawn = (rows.groupby(POINT).size() for rows in (found.results.clean, found.results.evaluated))
    if len(drawn) and drawn.max() < tested.max():
        caption += (
            f" All tested clips; the tables of robust accuracy use the {tables.spread(drawn)} of each fold "
            "that were drawn for the attacks."
        )
    shown = table(cells, ["representation", "model"], heads.values())
    return Part(caption + _over(frame) + _dagger(found, frame), frame, shown)


def robust_table(found: Analysis) -> Part:
    frame = _known(found.robustness, _NO_ATTACK)
    heads = {
        "clean_percent": "clean accuracy [%]",
        "robust_percent": "robust accuracy at ε [%]",
        "gain_percent": "gain over the original [points]",
        "more_percent": "more than with random signs [points]",
    }
    if not (frame["measure"] == "more_percent").any():
        del heads["more_percent"]

    def key(row: dict) -> tuple:
        dagger = " †" * ((row["representation"], row["model"], row["training"]) in found.unfinished)
        return (_label(row), names.label(row["model"]), names.label(row["training"]) + dagger)

    caption = (
        "Robust accuracy: the share of all evaluated clips that are correctly classified and that no attack "
        "misclassifies by ‖δ‖₂ ≤ ε, worst case over attacks. At ε = 0 it is the clean accuracy of these "
        "clips. Differences are paired by clip."
    )
    if "more_percent" in heads:
        caption += (
            f" As a control, {names.label(names.CONTROL_TRAINING)} are random changes as large as FGSM's; "
            "what is gained by training on them cannot come from being attacked."
        )
    cells = _measures(frame, key, heads)
    shown = table(cells, ["representation", "model", "training"], [*heads.values(), "n"])
    return Part(caption + _over(frame) + _dagger(found, frame), frame, shown)


def _beside(found: Analysis, frame: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """Representation × model: ours with its interval, the paper's and the difference where there is one."""
    models = [names.label(name) for name in names.in_order(frame["model"])]
    cells = []
    for row in _records(frame):
        base, model = _label(row), names.label(row["model"])
        bound, signed = row.get("bound", "="), row["measure"] in _SIGNED
        dagger = " †" if _model(found, row, "standard", row["training"]) != model else ""
        cells.append(((base, "here"), model, marked(bound, interval(row, digits, signed)) + dagger))
        if np.isfinite(row["paper"]):
            cells.append(((base, "paper"), model, number(row["paper"], digits, signed)))
            cells.append(((base, "difference"), model, number(row["difference"], digits, sign=True)))
    order = [names.label(name) for name in names.in_order(frame["representation"])]
    what = ("here", "paper", "difference")
    cells.sort(key=lambda cell: (order.index(cell[0][0]), what.index(cell[0][1])))
    return table(cells, ["representation", ""], models)


def table_1(found: Analysis) -> Part:
    rows, dataset = found.recognition, found.results.dataset
    if dataset not in published.DATASETS:
        raise NothingToShow(f"the paper has no Table I of {names.label(dataset)}; see accuracy")
    original = rows[(rows["measure"] == "accuracy_percent") & (rows["training"] == "standard")]
    drop = rows[(rows["measure"] == "accuracy_drop_percent") & (rows["training"] == ROBUST)]
    parts = {"accuracy [%]": original, "drop [points]": drop}
    frame = _known(pd.concat(parts.values(), ignore_index=True), "no original model was tested")
    shown = pd.concat(
        {what: _beside(found, part) for what, part in parts.items() if len(part)}, names=["number"]
    )
    caption = "Table I: accuracy of the original models, and what adversarial training takes from it."
    return Part(caption + _over(frame) + _dagger(found, frame), frame, shown.fillna("–"))


def table_2(found: Analysis) -> Part:
    frame = _known(found.fooling, _NO_ATTACK)
    kinds = {
        "fooling_auc_percent": "of correctly classified clips [%]",
        "of_all_percent": "of all evaluated clips [%]",
        "area_percent": "area under the curve up to ε [%]",
    }
    less, cells = "difference of these, original − robust [points]", []
    for row in _records(frame):
        who = "original" if row["training"] == "standard" else "robust"
        head = less if row["measure"] == "less_percent" else f"{kinds[row['measure']]}, {who}"
        key = (_label(row), _model(found, row, "standard", ROBUST))
        cells.append((key, head, interval(row, 1, head == less)))
        if np.isfinite(row["paper"]):
            cells.append((key, "paper, robust", number(row["paper"], 1)))
    columns = [f"{kind}, {who}" for kind in kinds.values() for who in ("original", "robust")]
    columns.insert(4, less)
    columns += ["paper, robust"] * any(column == "paper, robust" for _, column, _ in cells)
    coarse = ", ".join(map(names.label, found.too_coarse))
    coarse = f" {coarse} cannot succeed within ε: already the smallest step is larger." if coarse else ""
    coarse += _moves(found)
    cut = ", ".join(map(names.label, names.in_order(key[3] for key in sorted(found.at_most))))
    cut = f" Walks of {cut} that were cut count as not fooled, so rates are at least these." if cut else ""
    caption = (
        "Table II, the paper's measure: fooling within the budget, each attack by its goal, averaged "
        "over the paper's six; of the clips that the model classifies correctly, as the paper has it, and of "
        "all evaluated ones, so that a model with fewer correct clips gains nothing."
    )
    shown = table(cells, ["representation", "model"], columns)
    return Part(caption + coarse + cut + _over(frame) + _dagger(found, frame), frame, shown)


def _moves(found: Analysis) -> str:
    """How many values JSMA, which moves one at a time, can move within ε, in a sentence."""
    rows = found.results.attacks.reindex(columns=["attack", "representation", "smallest"])
    least = rows[rows["attack"] == "JSMA"].groupby("representation")["smallest"].min()
    moves = [int((found.budgets[each] / norm) ** 2) for each, norm in least.items() if norm > 0]
    if not any(moves):
        return ""
    plural = "s" if max(moves) > 1 else ""
    return f" Within ε, JSMA can move {tables.spread(moves)} value{plural} by its smallest displacement."


def table_3(found: Analysis) -> Part:
    frame = _known(found.ratios, _NO_PAIR_ATTACKED)
    means = frame[frame["attack"] == MEANS]
    why = "some attack fooled no clip of either model, so that there is no mean norm and no ratio of means"
    frame = _known(means[means["value"].notna()], why)
    caption = (
        "Table III in the paper's form: ε_r of Eq. 15, the mean ‖δ‖₂ that fools the robust model over that "
        "which fools the original, both averaged over the six attacks. ≥: some clips of the robust model "
        "were not fooled, so the true ratio is at least this; ≤: some of the original, so it is at most "
        "this; ?: some of both; –: not run, or an attack fooled no clip of either model. The clips are those "
        "that at least one of the two models classifies correctly."
    )
    rows = found.results.attacks
    mine = rows[rows["attack"].isin(published.ATTACKS) & rows["fooled"].astype(bool)]
    walks = mine[found.cut.reindex(mine.index)]
    if len(walks):
        share, whose = 100 * walks["l2"].sum() / mine["l2"].sum(), names.in_order(walks["attack"])
        caption += (
            f" Of the sum of all norms here, {share:.0f} % are of walks that a limit cut "
            f"({', '.join(map(names.label, whose))}); longer ones would have ended nearer, which intervals "
            "do not include."
        )
    met = int(means["comparable"].eq(True).sum())
    if met < len(means):
        caption += (
            " The paper's condition, that every attack fools more than 0.9 of the clips of both models, is "
            f"met by {met} of {len(means)} ratios."
        )
    return Part(caption + _over(means) + _dagger(found, means), frame, _beside(found, means, 2))


def ratio_table(found: Analysis) -> Part:
    frame = _ratios_by_attack(found)
    attacks = names.in_order(sorted(set(frame["attack"])))  # that of the exact ones, no attack, is the last
    attacks = sorted(attacks, key=lambda attack: attack not in tables.FREE)
    cells = []
    for row in _records(frame):
        key = (_label(row), _model(found, row, "standard", ROBUST))
        cells.append((key, names.label(row["attack"]), _ratio(row)))
    caption = (
        "ε_r attack by attack: ‖δ‖₂ on the robust model divided by ‖δ‖₂ on the original, geometric mean over "
        "the clips that the attack fooled in both. Censored: clips that it did not fool in one of them; a "
        "ratio with many of them is of the easiest clips alone. "
        "PIA's norms are what it had reached when its queries ended, so its ratio may be too large or too "
        "small (?)."
    )
    if EXACT in attacks:
        caption += " Exact attacks: the mean over those of the six none of whose norms is a bound."
    shown = table(cells, ["representation", "model"], [names.label(attack) for attack in attacks])
    return Part(caption + _over(frame) + _dagger(found, frame), frame, shown)


def _ratio(row: Mapping) -> str:
    """A ratio of one attack, and how many clips it did not fool in one of the two models."""
    total = int(row["fooled"] + row["censored"])
    lost = f"; {int(row['censored'])} of {total} censored" if row["censored"] else ""
    return marked(row["bound"], interval(row, 2)) + lost


def _ratios_by_attack(found: Analysis) -> pd.DataFrame:
    frame = _known(found.ratios, _NO_PAIR_ATTACKED)
    frame = frame[(frame["attack"] != MEANS) & frame["value"].notna()]
    return _known(frame, "no attack fooled one clip in both models, so that there is no ratio").drop(
        columns=["paper", "difference", "comparable"]
    )


def attacks_table(found: Analysis) -> Part:
    frame = _known(tables.by_attack(found), _NO_ATTACK)
    cells = []
    for row in _records(frame):
        key = (names.label(row["training"]), names.label(row["attack"]))
        for measure, head in _ATTACKS.items():
            least = measure == "within_percent" and row["bound"] in ("≤", "?")  # some of its walks were cut
            cells.append((key, head, marked("≥" if least else "=", number(row[measure]))))
        cells.append((key, "median ‖δ‖₂", _median(row)))
        cells.append((key, "models", str(row["victims"])))
    caption = (
        "Each attack, averaged over models, of the clips that they classify correctly. Fooled: the attack's "
        "goal was reached, which is the target for a targeted attack, and any wrong class for DeepFool, the "
        "reference and the worst case. Any wrong class: "
        "counting every example that the attack produced, also intermediate ones. FGSM and noise are "
        "controls, not part of the worst case. ≥ before a rate: walks were cut, and could have come nearer. "
        "Median: ≥ where some clips were not fooled, ≤ where walks were cut, ∞ where most clips were not "
        f"fooled.{_left_out(found, found.common)}"
    )
    shown = table(cells, ["training", "attack"], [*_ATTACKS.values(), "median ‖δ‖₂", "models"])
    return Part(caption, frame, shown)


def _median(row: Mapping) -> str:
    """A median norm with its bound; ∞ says enough of an attack that failed on most clips."""
    norm = row["median_norm"]
    return marked(row["bound"], f"{norm:#.3g}".rstrip(".")) if np.isfinite(norm) else number(norm)


_ATTACKS = {
    "within_percent": "fooled within ε [%]",
    "ever_percent": "fooled, no limit [%]",
    "any_percent": "any wrong class within ε [%]",
}


def cost_table(found: Analysis) -> Part:
    frame = _known(tables.cost(found), _NO_PAIR_ATTACKED)
    cells = []
    for row in _records(frame):
        text = f"{number(row['original'])} → {number(row['robust'])}"
        text += f" (×{number(row['ratio'], 2)})" if np.isfinite(row["ratio"]) else ""
        text = text if row["original"] or row["robust"] else "–"
        cells.append(((names.label(row["attack"]),), _COUNTS[row["measure"]], text))
    caption = (
        "What an attack spends on a clip, original → robust model: means over clips, all rungs of its "
        "ladder. A clip that needs a larger perturbation climbs more rungs, so the counts follow from our "
        "ladders."
    )
    return Part(caption, frame, table(cells, ["attack"], _COUNTS.values()))


_COUNTS = dict(zip(COUNTS, ("iterations", "forward passes", "backward passes", "queries"), strict=True))


def splits_table(found: Analysis) -> Part:
    frame = _known(tables.leaks(found.results), "no point was asked to measure it (leaks_at of chapter 3)")
    cells = []
    for row in _records(frame):
        key = (names.point("/".join(row[axis] for axis in PAIR)), row["protocol"])
        measured = {"value": 100 * row["accuracy"], "low": 100 * row["low"], "high": 100 * row["high"]}
        cells.append((key, "accuracy [%]", interval(measured, 1)))
        cells.append((key, "above official [points]", number(100 * row["above official"], 1, sign=True)))
        for column in ("recordings crossing", "clips crossing"):
            cells.append((key, column, str(row[column])))
    columns = ["accuracy [%]", "above official [points]", "recordings crossing", "clips crossing"]
    caption = (
        "How much the paper's way of splitting adds: one training per split. official and copies test the "
        "same clips, random and paper others. "
        "official: the data set's folds decide, and recordings are kept apart; random: clips are drawn at "
        "random, so recordings leak; copies: folds decide, but the copies of all clips are trained on, those "
        "of tested clips as well; paper: clips and copies are drawn at random, so both leak. Crossing: in "
        "more than one part of the split. The differences have no interval."
    )
    return Part(caption, frame, table(cells, ["point", "split"], columns))


def folds_table(found: Analysis) -> Part:
    frame = _known(tables.by_fold(found), _NO_PAIR_ATTACKED)
    heads = {
        "accuracy_drop_percent": "drop of accuracy [points]",
        "gain_percent": "gain of robust accuracy [points]",
    }
    cells = _measures(frame, lambda row: (row["fold"],), heads)
    caption = (
        "The two changes by fold and seed, averaged over pairs of a network and a representation, paired by "
        "clip."
    )
    caption += _over(frame) + _left_out(found, found.common)
    return Part(caption, frame, table(cells, ["fold"], heads.values()))


def sizes_table(found: Analysis) -> Part:
    frame = _known(tables.scaling(found), _NO_SIZES)
    cells = []
    for row in _records(frame):
        victim = (_label(row), _model(found, row, row["training"]), names.label(row["training"]))
        key = (*victim, f"{row['bins']} × {row['frames']}")
        ends = {name: _measured(row, name) for name in ("norm", "relative")}
        texts = (str(row["bins"] * row["frames"]), str(row["clips"]), number(row["accuracy"]))
        texts += (interval(ends["norm"], 3), interval(ends["relative"], 2))
        cells += [(key, head, text) for head, text in zip(_SIZES, texts, strict=True)]
    caption = (
        f"Does the norm that fools a model grow with √(number of values)? {_THE_REFERENCE}, the geometric "
        "mean over the n evaluated clips that the model classifies correctly at all its sizes. The accuracy "
        "is of all tested clips of the folds that all sizes have. Last column: norm ÷ √values, divided by "
        "that of the smallest size; it is 1 where norms grow with √values. Intervals are 95 %, with "
        "recordings as units, and do not include another training. Sizes are bins × frames."
    )
    shown = table(cells, ["representation", "model", "training", "size"], _SIZES)
    return Part(caption + _dagger(found, frame), frame, shown)


_THE_REFERENCE = f"‖δ‖₂ of {' and '.join(names.REFERENCE.values())}"
_SIZES = ("values", "n", "clean accuracy [%]", "mean ‖δ‖₂", "÷ √values, relative")
_NO_SIZES = (
    "no model was attacked by the reference attack at two image sizes (`other_sizes` names finished grids of "
    "other sizes)"
)


def _measured(row: Mapping, name: str) -> dict:
    """One of several numbers of a row, with its interval, as `interval` takes it."""
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def times_table(found: Analysis) -> Part:
    frame = tables.seconds(found.results)
    shown = pd.DataFrame(
        {
            "cells": [str(n) for n in frame["cells"]],
            "minutes": [number(x, 2) for x in frame["minutes"]],
            "peak memory [MiB]": [number(x, 0) for x in frame["peak_memory_mib"]],
        },
        index=pd.MultiIndex.from_frame(frame[["chapter", "training", "attack"]]),
    )
    return Part("Minutes and memory, the one table that differs from run to run.", frame, shown)


def ledger(found: Analysis) -> Part:
    frame = claims.ledger(found, weights())
    rows = _records(frame)
    shown = pd.DataFrame(
        {
            "paper": [row["paper"] for row in rows],
            "here": [interval(row | {"value": row["ours"]}, 2) for row in rows],
            "verdict": [row["verdict"] for row in rows],
            "why": [row["why"] or "–" for row in rows],
            "n": [_counts(row) for row in rows],
        },
        index=pd.Index([row["claim"] for row in rows], name="claim"),
    )
    caption = (
        f"The paper's claims on {names.label(found.results.dataset)}. {answer.counted(frame)}. Where a claim "
        "has several parts (such as one per network and representation), the number here is of the part that "
        "supports it least. A verdict is on the models that were run here, and says nothing of the others. "
        "The CSV names where each is said, and what would have shown the opposite."
    )
    if few := claims.rare(found):
        caption += f" Left out of claims on every model, since they were trained less often: {_pairs(few)}."
    return Part(caption, frame, shown)


def _counts(row: Mapping) -> str:
    """n behind a claim, in words."""
    if row["trainings"] == 0:
        return "–" if row["open"] == claims.NEVER else "not run"
    if row["clips"] == 0:
        return "a count"
    parts = f"{row['parts']} parts, " if row["parts"] > 1 else ""
    clips = f", at least {row['clips']:.0f} clips" if row["clips"] > 0 else ""
    return f"{parts}{row['trainings']} training{'s' if row['trainings'] != 1 else ''}{clips}"


def weights() -> dict[str, int]:
    """How many weights each of the paper's models has as published, counted without making any."""
    from lib import models

    return {name: models.parameters(models.outline(name)) for name in published.MODELS}


# ------------------------------------------------------------------------------------------------ pictures


def robust_curves(found: Analysis) -> Part:
    frame = tables.robust_curves(found)
    worst = frame["attack"] == names.WORST
    drawn = frame["training"].isin(["standard", ROBUST]) & (worst | (frame["attack"] == "DeepFool"))
    control = worst & (frame["training"] == names.CONTROL_TRAINING)
    frame = _known(frame[drawn | control], _NO_ATTACK)
    place = {
        "standard": 0,
        ROBUST: 1,
        names.CONTROL_TRAINING: 2,
        names.WORST: 0,
        "DeepFool": 1,
    }  # in the legend
    frame = frame.sort_values(["training", "attack"], key=lambda keys: keys.map(place), kind="stable")
    caption = (
        f"Robust accuracy against ‖δ‖₂: the share of all evaluated clips that stay correct (n = "
        f"{_evaluated(found)}){_mean(found)} Thick: the worst case over all attacks; thin: DeepFool alone. "
        f"{_CONTROL if control.any() else ''}Vertical line: the budget ε, the paper's ‖δ‖₂ ≤ 3 scaled to "
        f"this image size.{_decided(found)}{answer.without_reference(found)}"
        f"{_left_out(found, found.averaged, _EACH)}"
    )
    return Part(caption, frame, figure=figures.robust_curves(frame, found.budgets))


_CONTROL = "Random signs: trained on random changes of the same size, a control. "


def _evaluated(found: Analysis) -> str:
    """The clips behind a curve, by representation where they differ."""
    rows = found.results.evaluated
    of: dict[str, list[str]] = {}
    for representation in names.in_order(v[0] for v in found.averaged):
        models = [v[1] for v in found.averaged_on(representation)]
        mine = rows[(rows["representation"] == representation) & rows["model"].isin(models)]
        clips = mine.groupby("fold")["clip"].nunique()
        n = found.repeats(clips) if len(clips) > 1 else f"{clips.iloc[0]} clips"
        of.setdefault(n, []).append(names.label(representation))
    return "; ".join(f"{n} on {', '.join(on)}" if len(of) > 1 else n for n, on in of.items())


def _mean(found: Analysis) -> str:
    """What a curve is the mean of, and its band, if there is more than one victim behind it."""
    networks = any(len(found.averaged_on(v[0])) > 1 for v in found.averaged)
    folds = len(found.results.folds) > 1
    what = " and ".join(["networks"] * networks + [found.kind] * folds)
    return f", mean over {what}, the band from the lowest to the highest." if what else "."


def _decided(found: Analysis) -> str:
    """Which attacks decide the worst case within ε, in a sentence."""
    shares = tables.deciding(found).sort_values(ascending=False, kind="stable")
    if shares.empty:
        return ""
    first = [f"{names.label(attack)} misclassifies {share:.0f} %" for attack, share in shares[:2].items()]
    rest = f", each of the other {len(shares) - 2} at most {shares.iloc[2]:.0f} %" if len(shares) > 2 else ""
    return f" Of the correct clips that some attack misclassifies within ε, {', '.join(first)}{rest}."


def trade_off(found: Analysis) -> Part:
    rows = found.robustness
    rows = _known(rows[rows["training"] != names.CONTROL_TRAINING], _NO_ATTACK)
    kept = rows[rows["measure"].isin(["clean_percent", "robust_percent"])]
    wide = kept.pivot(index=tables.VICTIM, columns="measure", values=["value", "low", "high"])
    wide.columns = [f"{m.removesuffix('_percent')}{e}" for v, m in wide.columns for e in [_END[v]]]
    frame = wide.reset_index()
    caption = (
        "Robust accuracy at ε against clean accuracy of the same clips, worst case over attacks; an arrow "
        "goes from each original model (hollow) to the robust one (filled). Better is up and right. Pale "
        f"bars: 95 % intervals, over {', '.join(dict.fromkeys(kept['over']))}. Whether bars overlap does not "
        "say whether a gain is sure; the gain is paired by clip in the table above."
    )
    return Part(caption, frame, figure=figures.trade_off(frame, title=names.label(found.results.dataset)))


_END = {"value": "", "low": "_low", "high": "_high"}
FEWEST = 5  # clips of a ratio that is drawn


def epsilon_ratio(found: Analysis) -> Part:
    frame = _ratios_by_attack(found)
    frame = frame[frame["attack"] != EXACT]
    kept = frame.assign(exact=(frame["bound"] == "=") & (frame["censored"] == 0))
    caption = (
        "ε_r by attack: one point per network, the bar its interval where it has one; 1 means that both "
        "models need the same. Hollow: clips are censored, or the norms are bounds. A clip that an attack "
        "did not fool is left out, so that a ratio with many censored ones is of the easiest clips alone."
    )
    few = kept["fooled"] < FEWEST
    if few.any():
        caption += f" Not drawn: {few.sum()} ratios over fewer than {FEWEST} clips."
        kept = kept[~few]
    return Part(caption, kept, figure=figures.ratios(kept))


def norm_by_size(found: Analysis) -> Part:
    frame = _known(tables.scaling(found), _NO_SIZES)
    caption = (
        f"Mean {_THE_REFERENCE} against the number of values of an image, with 95 % intervals, over "
        f"{tables.spread(frame['clips'])} clips of one training per size; hollow: the original model. "
        "Dotted: growth with √(number of values) from the smallest size, whose own norm is uncertain, too."
    )
    return Part(caption, frame, figure=figures.norm_by_size(frame))


def fooling_curves(found: Analysis) -> Part:
    frame = tables.fooling_curves(found)
    frame = _known(frame[frame["training"] != names.CONTROL_TRAINING], _NO_ATTACK)
    caption = (
        f"All attacks by their goals, of correctly classified clips: fooling rate against ‖δ‖₂{_mean(found)} "
        "The vertical line is the budget ε, the paper's ‖δ‖₂ ≤ 3 scaled to this image size; the dotted one "
        f"is a fooling rate of 0.9.{_left_out(found, found.averaged, _EACH)}"
    )
    return Part(caption, frame, figure=figures.fooling_curves(frame, found.budgets))


def figure_1(found: Analysis) -> Part:
    pictures, below, frame = _gallery(found)
    who = next(iter(found.results.about.values()), {})
    caption = (
        f"Fig. 1: a clip of the class {who.get('name', '?').replace('_', ' ')} and what the "
        f"attacks on {names.label(who.get('model', '?'))} ({names.label(who.get('training', '?'))} training, "
        f"fold {who.get('fold', '?')}) make of it in each representation. Below: ‖δ‖₂; 'not fooled' where "
        "the attack missed its goal. One clip: its norms can be far from the medians over clips."
    )
    return Part(caption, frame, figure=figures.gallery(pictures, _axes(found), below=below))


def figure_1_changes(found: Analysis) -> Part:
    pictures, below, frame = _gallery(found)
    changes = {
        representation: {
            name: image - images["original"] for name, image in images.items() if name != "original"
        }
        for representation, images in pictures.items()
    }
    caption = (
        "The perturbations of Fig. 1 themselves, each on a scale of its own around zero that ends at its "
        "largest change; ‖δ‖₂ and that change below."
    )
    return Part(caption, frame, figure=figures.gallery(changes, _axes(found), below=below, difference=True))


_FACTS = ("clip", "name", "model", "fold", "training")


def _gallery(found: Analysis) -> tuple[dict, dict, pd.DataFrame]:
    """Images and the line under each, by representation and name; one row per attack, with fooled None where
    it is unknown."""
    results, pictures, below, rows = found.results, {}, {}, []
    if not results.examples:
        raise NothingToShow("no adversarial example was kept")
    for representation in names.in_order(results.examples):
        images = results.examples[representation]
        drawn = ["original", *(name for name in names.ATTACKS if name in images)]
        pictures[representation] = {name: np.asarray(images[name], dtype=float) for name in drawn}
        below[representation] = {}
        for name in drawn[1:]:
            change = pictures[representation][name] - pictures[representation]["original"]
            norm = float(np.sqrt((change**2).sum()))
            about = results.about[representation] | {"representation": representation, "attack": name}
            where = [results.attacks[key] == about[key] for key in (*POINT, "clip", "attack")]
            held = results.attacks.loc[np.logical_and.reduce(where), "fooled"]
            fooled = bool(held.any()) if len(held) else None
            below[representation][name] = f"‖δ‖₂ = {norm:.3g}" + (", not fooled" if fooled is False else "")
            facts = [about[fact] for fact in _FACTS]
            rows.append((representation, *facts, name, norm, np.abs(change).max(), fooled))
    columns = ["representation", *_FACTS, "attack", "l2", "linf", "fooled"]
    return pictures, below, pd.DataFrame(rows, columns=columns)


def _axes(found: Analysis) -> dict[str, tuple]:
    return {row.representation: (row.frequencies, row.times) for row in found.results.sizes.itertuples()}


PARTS = {
    "cells": cells_table,
    "summary": summary_table,
    "networks": networks_table,
    "accuracy": accuracy_table,
    "robust_accuracy": robust_table,
    "robust_curves": robust_curves,
    "trade_off": trade_off,
    "table_1": table_1,
    "table_2": table_2,
    "table_3": table_3,
    "epsilon_ratio_attacks": ratio_table,
    "epsilon_ratio": epsilon_ratio,
    "attacks": attacks_table,
    "cost": cost_table,
    "claims": ledger,
    "splits": splits_table,
    "folds": folds_table,
    "image_sizes": sizes_table,
    "norm_by_size": norm_by_size,
    "fooling_curves": fooling_curves,
    "figure_1": figure_1,
    "figure_1_changes": figure_1_changes,
    "times": times_table,
}


class Report:
    """Makes parts, and puts them into a folder once all of them were made.

    Until then they lie in a hidden folder in it, one for each process, so that a failure leaves the earlier
    tables as they were, and two reports at once do not meet.

    Parameters
    ----------
    found : the analysis of the gathered rows.
    folder : where tables and pictures go.
    parts : the names of those that make it complete.
    """

    def __init__(self, found: Analysis, folder: str | Path, parts: Iterable[str] = tuple(PARTS)):
        self.found, self.folder, self.parts = found, Path(folder), tuple(parts)
        self.made: dict[str, Part] = {}
        self.waiting = self.folder / f".new-{os.getpid()}"
        shutil.rmtree(self.waiting, ignore_errors=True)

    def show(self, name: str):
        """Make one part, and display it if it is a picture; gives its caption, with the table."""
        from IPython.display import Image, Markdown, display

        part = self.add(name)
        if part.figure is not None:
            display(Image(filename=str(self.waiting / f"{name}.png"), embed=True))
        return Markdown(part.markdown())

    def add(self, name: str) -> Part:
        """Make one part, or say why there is nothing to show."""
        if name not in PARTS:
            raise ValueError(f"part {name!r} is none of {', '.join(PARTS)}")
        try:
            part = PARTS[name](self.found)
        except NothingToShow as error:
            part = Part(f"Nothing to show: {error}.", pd.DataFrame())
        else:
            self._write(name, part)
        self.made[name] = part
        return part

    def _write(self, name: str, part: Part) -> None:
        if part.figure is not None:
            figures.export(part.figure, part.frame, name, self.waiting)
            return
        figures.write_csv(part.frame, self.waiting / f"{name}.csv")
        files.save(self.waiting / f"{name}.md", part.markdown())
        files.save(self.waiting / f"{name}.tex", latex(part.shown, part.caption, name))

    def finish(self) -> Path:
        """Write the index and put everything in place; what an earlier run wrote of other parts goes."""
        missing = [name for name in self.parts if name not in self.made]
        if missing:
            raise ValueError(f"the report is not complete: {', '.join(missing)} was not made")
        if "claims" in self.made:
            said = answer.sentences(self.found, self.made["claims"].frame)
            files.save(self.waiting / "answer.md", "".join(f"- {line}\n" for line in said))
        files.save(self.waiting / "README.md", self._index())
        with files.locked(self.folder / "README.md"):
            for name, part in self.made.items():
                if part.frame.empty:
                    for ending in ("csv", "md", "tex", "png", "pdf"):
                        (self.folder / f"{name}.{ending}").unlink(missing_ok=True)
            for path in sorted(self.waiting.iterdir()):
                os.replace(path, self.folder / path.name)
        self.waiting.rmdir()
        return self.folder / "README.md"

    def _index(self) -> str:
        """What there is, of what run, the answers first: captions, tables, pictures, and links to files."""
        lines = _about_the_run(self.found)
        said = self.waiting / "answer.md"
        if said.is_file():
            lines += ["## answer", "", said.read_text(encoding="utf-8"), "[md](answer.md)", ""]
        middle = [name for name in PARTS if name not in (*_FIRST, *_LAST)]
        for name in sorted(self.parts, key=[*_FIRST, *middle, *_LAST].index):
            part = self.made[name]
            if part.frame.empty:
                continue
            lines += [f"## {name.replace('_', ' ')}", "", markup.text(part.caption), ""]
            if part.figure is not None:
                lines += figures.entry(name)
            elif name in _LINKED:
                lines += [f"[md]({name}.md), [tex]({name}.tex), [csv]({name}.csv)", ""]
            else:
                lines += [markdown(part.shown), f"[tex]({name}.tex), [csv]({name}.csv)", ""]
        text = "\n".join(lines)
        return text + figures.unlisted(self.folder, text, besides=PARTS)


_FIRST, _LAST = ("summary", "robust_curves", "networks", "claims"), ("cells", "times")  # of an index
_LINKED = ("claims", "times")  # tables that an index does not show


def _about_the_run(analysis: Analysis) -> list[str]:
    """The first lines of the index."""
    found = analysis.results
    commits = ", ".join(sorted({text[:10] or "no git" for text in found.cells["commit"]})) or "unknown"
    axes, count = [], len(found.clean[POINT].drop_duplicates())
    for axis in POINT:
        values = found.folds if axis == "fold" else names.in_order(found.axes(axis))
        axes.append(f"{axis}{'s' * (len(values) != 1)} {', '.join(map(names.label, values))}")
    whole = math.prod(found.clean[axis].nunique() for axis in POINT)
    some = f" ({count} of these {whole})" if count < whole else ""
    sizes = [f"{names.label(r.representation)} {r.rows} × {r.frames}" for r in found.sizes.itertuples()]
    old, met = len(found.stale()), len(found.evaluated[POINT].drop_duplicates())
    devices = ", ".join(names.in_order(found.cells["device"])) or "unknown"
    minutes = found.times.loc[found.times["attack"].fillna("") == "", "seconds"].sum() / 60
    return [
        f"# Tables and figures of {markup.text(names.label(found.dataset))}",
        "",
        "Written by chapter 6, where nothing else is said (`make figures` draws them again from `rows/`).",
        "",
        f"- Points: {markup.text('; '.join(axes))}{some}.",
        f"- Images (rows × frames): {markup.text(', '.join(sizes))}.",
        f"- Clips of a model: {_clips(found)}.",
        f"- Commits of the cells: {markup.text(commits)}.",
        f"- Computed on: {markup.text(devices)}, {minutes:.0f} minutes in all cells.",
        f"- Cells older than their code: {old}; models that were tested and not attacked: {count - met}.",
        "",
    ]


def _clips(found: results.Results) -> str:
    """On how many clips models were tested, evaluated and, where they are correct, attacked."""
    tested = found.clean.groupby(POINT).size()
    evaluated = found.evaluated.groupby(POINT).size()
    attacked = found.attacks.groupby(POINT)["clip"].nunique().reindex(evaluated.index, fill_value=0)
    return f"{_range(tested)} tested, {_range(evaluated)} evaluated, {_range(attacked)} attacked"


def _range(counts: pd.Series) -> str:
    return tables.spread(counts) if len(counts) else "none"


def main(argv: list[str] | None = None) -> int:
    """Draw every table and picture again from kept rows, without running a cell."""
    parser = argparse.ArgumentParser(prog="python -m lib.analysis.report", description=main.__doc__)
    parser.add_argument("rows", type=Path, help="the folder of rows that chapter 6 kept")
    parser.add_argument("folder", type=Path, nargs="?", help="where to; the rows' parent folder if not given")
    given = parser.parse_args(argv)
    figures.use_style()
    try:
        report = Report(Analysis(results.load(given.rows)), given.folder or given.rows.parent)
    except (FileNotFoundError, ValueError) as error:
        print(f"lib.analysis.report: {error}", file=sys.stderr)
        return 1
    for name in PARTS:
        report.add(name)
    print(report.finish())
    return 0


if __name__ == "__main__":
    sys.exit(main())
