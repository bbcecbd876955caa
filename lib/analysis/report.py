"""Tables, pictures, the ledger and their index, made of gathered rows.

A part is a function of the gathered rows in `PARTS`; chapter 6 calls each where it explains it, and
``python -m lib.analysis.report ROWS FOLDER`` (``make figures``) calls them all, so both are one path. A table
becomes CSV (tidy), Markdown and LaTeX (booktabs), a picture PNG, PDF and CSV; the same rows give the same
bytes.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import figures, files, markup, names
from lib.analysis import claims, published, results, tables
from lib.analysis.printing import bounded, interval, latex, markdown, number, table
from lib.analysis.results import POINT
from lib.analysis.tables import COUNTS, VICTIM, Analysis


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


def _beside(frame: pd.DataFrame, digits: int = 1, mark: str = "") -> pd.DataFrame:
    """Representation × model: ours with its interval, the paper's and the difference where there is one."""
    models = [names.label(name) for name in names.in_order(frame["model"])]
    order = names.in_order(frame["representation"])
    cells = []
    for row in sorted(frame.to_dict("records"), key=lambda row: order.index(row["representation"])):
        base, model = names.label(row["representation"]), names.label(row["model"])
        cells.append(((base, "here"), model, bounded(row.get(mark, "="), interval(row, digits))))
    for row in frame[np.isfinite(frame["paper"])].to_dict("records"):
        base, model = names.label(row["representation"]), names.label(row["model"])
        cells.append(((base, "paper"), model, number(row["paper"], digits)))
        cells.append(((base, "difference"), model, number(row["difference"], digits, sign=True)))
    place = {
        (names.label(name), what): i
        for i, (name, what) in enumerate(
            (name, what) for name in order for what in ("here", "paper", "difference")
        )
    }
    return table(sorted(cells, key=lambda cell: place[cell[0]]), ["representation", ""], models)


def _over(frame: pd.DataFrame) -> str:
    """What the intervals of a table are over, said once."""
    what = sorted(set(frame["over"]))
    repeats = [text for text in what if "repeat" in text]
    clips = sorted(int(text.split()[0]) for text in what if "clips" in text)
    said = []
    if clips:
        count = f"{clips[0]}" if clips[0] == clips[-1] else f"{clips[0]} to {clips[-1]}"
        said.append(f"bootstrapped over {count} clips of one fold: they say nothing of other trainings")
        if clips[0] < claims.FEWEST:
            said.append(f"below {claims.FEWEST} clips none is given, and n is")
    if repeats:
        said.append(f"Student's over {' or '.join(repeats)} (folds and seeds)")
    return "Intervals are 95 %, " + "; ".join(said) + "." if said else ""


# --------------------------------------------------------------------------------------------------- parts


def victims_table(found: Analysis) -> Part:
    """Every victim in one line, of what Tables I to III and the control have cell by cell."""
    ratios = found.ratios
    frame = pd.concat(
        [
            found.recognition,
            found.fooling.query("measure == 'fooling_auc_percent'"),
            ratios[ratios["attack"] == "all"],
        ],
        ignore_index=True,
    )
    columns = {
        ("accuracy_percent", "standard"): "accuracy [%]",
        ("accuracy_drop_percent", "standard"): "drop [points]",
        ("fooling_auc_percent", "standard"): "fooled within ε [%], original",
        ("fooling_auc_percent", tables.ROBUST): "fooled within ε [%], robust",
        ("epsilon_ratio", tables.ROBUST): "ε_r",
    }
    cells = []
    for row in frame.to_dict("records"):
        ratio = row["measure"] == "epsilon_ratio"
        text = interval(row, 2 if ratio else 1, row["measure"] == "accuracy_drop_percent")
        text = bounded(row["bound"], text) if ratio else text
        cells.append((_pair(row), columns[row["measure"], row["training"]], text))
    caption = (
        "Every victim in one line: accuracy of the original model on clean clips, and what adversarial "
        "training takes from it; the fooling rate within the budget that means ‖ε‖₂ = 3 at the paper's image "
        "size, averaged over the attacks, before and after; ε_r, the mean perturbation after over before (≥ "
        "at least this, ≤ at most, ? either, because clips withstood; – where some attack fooled no clip). "
    )
    return Part(caption + _over(frame), frame, table(cells, ["representation", "model"], columns.values()))


def table_1_accuracy(found: Analysis) -> Part:
    frame = found.recognition.query("measure == 'accuracy_percent'")
    caption = "Table I, first number: accuracy of the original models [%]. "
    return Part(caption + _over(frame), frame, _beside(frame))


def table_1_drop(found: Analysis) -> Part:
    frame = found.recognition.query("measure == 'accuracy_drop_percent'")
    caption = (
        "Table I, in parentheses: accuracy lost by adversarial training [percentage points], paired by clip. "
    )
    return Part(caption + _over(frame), frame, _beside(frame))


def table_2(found: Analysis) -> Part:
    frame = found.fooling.query("measure == 'fooling_auc_percent' and training == @tables.ROBUST")
    caption = (
        "Table II: fooling rate of the robust models within the budget that is ‖ε‖₂ = 3 at the paper's image "
        "size, averaged over the attacks [%]; lower is more robust. "
    )
    return Part(caption + _over(frame), frame, _beside(frame))


def table_2_area(found: Analysis) -> Part:
    frame = found.fooling.query("measure == 'area_percent' and training == @tables.ROBUST")
    caption = (
        "Table II read as an area: under fooling rate against ‖δ‖₂ on [0, ε], averaged over attacks [%]. "
    )
    return Part(caption + _over(frame), frame, _beside(frame))


def table_2_control(found: Analysis) -> Part:
    rows = found.fooling
    kinds = {
        "fooling_auc_percent": "average of attacks",
        "worst_percent": "worst case",
        "any_class_percent": "any wrong class",
    }
    frame = rows[rows["measure"].isin([*kinds, "gain_percent"])]
    cells = []
    for row in frame.to_dict("records"):
        gain, who = (
            row["measure"] == "gain_percent",
            "original" if row["training"] == "standard" else "robust",
        )
        name = "original − robust" if gain else f"{kinds[row['measure']]}, {who}"
        cells.append((_pair(row), name, interval(row, 1, gain)))
    columns = [f"{kind}, {who}" for kind in kinds.values() for who in ("original", "robust")]
    columns.insert(2, "original − robust")
    caption = (
        "The control that the paper lacks: fooling within the same budget [%] of the original and the "
        "robust model, as the average of the attacks, as the worst of them, and with any wrong class a "
        "success. "
    )
    return Part(caption + _over(frame), frame, table(cells, ["representation", "model"], columns))


def _pair(row: Mapping) -> tuple[str, str]:
    return names.label(row["representation"]), names.label(row["model"])


def table_3(found: Analysis) -> Part:
    frame = found.ratios
    frame = frame[frame["attack"] == "all"]
    caption = (
        "Table III: ε_r of Eq. 15, the mean ‖δ‖₂ that fools the robust model over that which fools the "
        "original, both averaged over attacks. Failed clips count as censored: ≥ means that the ratio is at "
        "least this, ≤ at most, ? that clips of both are censored; – that some attack fooled no clip of "
        "either, or that one of the two was not attacked. "
    )
    return Part(caption + _over(frame), frame, _beside(frame, 2, "bound"))


def table_3_attacks(found: Analysis) -> Part:
    frame = found.ratios
    frame = frame[frame["attack"] != "all"]
    cells = []
    for row in frame.to_dict("records"):
        text = bounded(row["bound"], number(row["value"], 2))
        text += "" if row["comparable"] or text == "–" else " *"
        cells.append((_pair(row), names.label(row["attack"]), text))
    attacks = [names.label(name) for name in names.in_order(frame["attack"])]
    caption = (
        "ε_r of each attack; * where the attack does not pass a fooling rate of 0.9 on both models, so that "
        "the paper's condition is not met. The CSV has intervals, ratios of medians and restricted means."
    )
    return Part(caption, frame, table(cells, ["representation", "model"], attacks))


def attacks_table(found: Analysis) -> Part:
    frame = tables.by_attack(found)
    shown = pd.DataFrame(
        {
            "within ε [%]": [number(x) for x in frame["within_percent"]],
            "area to ε [%]": [number(x) for x in frame["area_percent"]],
            "without limit [%]": [number(x) for x in frame["ever_percent"]],
            "any wrong class [%]": [number(x) for x in frame["any_percent"]],
            "median ‖δ‖₂": [number(x, 3) for x in frame["median_norm"]],
            "victims": [str(x) for x in frame["victims"]],
        },
        index=pd.MultiIndex.from_arrays(
            [[names.label(t) for t in frame["training"]], [names.label(name) for name in frame["attack"]]],
            names=["training", "attack"],
        ),
    )
    caption = (
        "Each attack by its own criterion, averaged over the pairs of representation and model that were "
        "attacked under every training; the worst case takes the best of the six for every clip. A targeted "
        "attack that missed its target, or was not sure enough, may still have led to any wrong class."
    )
    return Part(caption, frame, shown)


def cost_table(found: Analysis) -> Part:
    frame = tables.cost(found)
    cells = []
    for row in frame.to_dict("records"):
        text = f"{number(row['original'])} → {number(row['robust'])}"
        text += f" (×{number(row['ratio'], 2)})" if np.isfinite(row["ratio"]) else ""
        text = text if row["original"] or row["robust"] else "–"
        cells.append(((names.label(row["attack"]),), row["measure"], text))
    caption = (
        "What an attack spends on a clip, original → robust model: means over clips, all rungs of its ladder."
    )
    return Part(caption, frame, table(cells, ["attack"], COUNTS))


def splits_table(found: Analysis) -> Part:
    frame = tables.leaks(found.results)
    body = [
        [f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
         number(100 * row["above official"], 1, sign=True), str(row["recordings crossing"]),
         str(row["clips crossing"])]
        for row in frame.to_dict("records")
    ]  # fmt: skip
    columns = ["accuracy [%]", "above official [points]", "recordings crossing", "clips crossing"]
    index = pd.MultiIndex.from_arrays(
        [[names.point("/".join(p)) for p in frame[tables.PAIR].to_numpy()], list(frame["protocol"])],
        names=["point", "split"],
    )  # fmt: skip
    caption = (
        "What the paper's way of splitting is worth: the same model trained and tested under each split."
    )
    return Part(caption, frame, pd.DataFrame(body, columns=columns, index=index))


def defences_table(found: Analysis) -> Part:
    frame = tables.defences(found)
    measures = {
        "accuracy": "accuracy [%]",
        "fooling": "fooled, mean of attacks [%]",
        "worst": "fooled, worst case [%]",
    }
    cells = [
        (tuple(names.label(row[axis]) for axis in VICTIM), measures[row["measure"]], interval(row, 1))
        for row in frame.to_dict("records")
    ]
    caption = (
        "Every training that was run: the accuracy that it keeps, and the clips that are fooled within the "
        "budget. "
    )
    return Part(caption + _over(frame), frame, table(cells, VICTIM, measures.values()))


def cells_table(found: Analysis) -> Part:
    rows, frame, lines = found.results, found.results.cells, {}
    for chapter, mine in frame.groupby("chapter", sort=True):
        commits = ", ".join(sorted({text[:10] or "no git" for text in mine["commit"]}))
        lines[chapter] = [
            str(len(mine)),
            commits,
            str(int(mine["dirty"].sum())),
            str(int((mine["changed"] != "").sum())),
        ]
    columns = ["cells", "commits", "with uncommitted changes", "older than their code"]
    shown = pd.DataFrame(lines.values(), columns=columns, index=pd.Index(list(lines), name="chapter"))
    absent = rows.missing()
    caption = "The cells that this analysis rests on. "
    caption += f"Missing from the grid: {len(absent)} attacked victims" + (
        f" ({', '.join(absent[:8])}{', …' if len(absent) > 8 else ''})." if absent else "."
    )
    attacked = set(frame.loc[frame["chapter"] == "04_attacks", POINT].itertuples(index=False, name=None))
    empty = sorted(attacked - set(rows.attacks[POINT].itertuples(index=False, name=None)))
    if empty:
        points = ", ".join("/".join(point) for point in empty)
        caption += f" Attacked, but none of their clips was named rightly: {len(empty)} ({points})."
    return Part(caption, frame, shown)


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
    rows = frame.to_dict("records")
    shown = pd.DataFrame(
        {
            "where": [row["where"] for row in rows],
            "paper": [row["paper"] for row in rows],
            "ours": [interval(row | {"value": row["ours"]}, 2) for row in rows],
            "difference": [number(row["difference"], 2, sign=True) for row in rows],
            "on": [
                row["scope"]
                if row["over"].endswith(" parts")
                else " over ".join(filter(None, [row["scope"], row["over"]]))
                for row in rows
            ],
            "verdict": [row["verdict"] for row in rows],
        },
        index=pd.Index([row["claim"] for row in rows], name="claim"),
    )
    return Part(
        f"The paper's claims on {names.label(found.results.dataset)}. {counted(frame)}.", frame, shown
    )


def counted(frame: pd.DataFrame) -> str:
    """The verdicts of a ledger, counted: of sentences and, where there are any, of cells."""
    cells = frame["where"].str.fullmatch("Table I+")
    kinds = [("sentences", frame[~cells], (claims.HOLDS, claims.FAILS, claims.OPEN))]
    kinds.append(("cells of its tables", frame[cells], (claims.AGREES, claims.DIFFERS, claims.OPEN)))
    said = []
    for what, mine, verdicts in kinds:
        count = mine["verdict"].value_counts()
        if len(mine):
            said.append(f"{len(mine)} {what}: " + ", ".join(f"{v} {count.get(v, 0)}" for v in verdicts))
    return "; ".join(said)


def weights() -> dict[str, int]:
    """How many weights each of the paper's models has as published, counted without making any."""
    from lib import models

    return {name: models.parameters(models.outline(name)) for name in published.MODELS}


# ------------------------------------------------------------------------------------------------ pictures


def _drawn(caption: str, frame: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure]) -> Part:
    return Part(caption, frame, figure=draw(frame) if len(frame) else None)


def trade_off(found: Analysis) -> Part:
    measured = pd.concat([found.accuracies, found.fooling.query("measure == 'fooling_auc_percent'")])
    kept = measured[["representation", "model", "training", "measure", "value", "low", "high"]]
    wide = kept.pivot(index=["representation", "model", "training"], columns="measure")
    frame = pd.DataFrame(index=wide.index)
    for short, measure in (("accuracy", "accuracy"), ("fooling", "fooling_auc_percent")):
        for column, ending in (("value", ""), ("low", "_low"), ("high", "_high")):
            present = (column, measure) in wide.columns
            frame[f"{short}{ending}"] = wide[column, measure] if present else np.nan
    frame = frame.dropna(subset=["accuracy", "fooling"]).reset_index()
    caption = (
        "What robustness costs: accuracy on clean clips against the fooling rate within the paper's budget; "
        "an arrow goes from each original model (hollow) to its adversarially trained one (filled), a panel "
        "a representation. Better is right and down."
    )
    title = names.label(found.results.dataset)
    return _drawn(caption, frame, lambda rows: figures.trade_off(rows, title=title))


def fooling_curves(found: Analysis) -> Part:
    curves = tables.curves(found)
    caption = (
        "Fooling rate against ‖δ‖₂, whole curves: means over models and folds, the band from the least to "
        "the most robust of them; wide and pale behind them the worst case, the best attack on each clip. "
        "The vertical line is the paper's ‖ε‖₂ = 3 at this image size, the dotted one a fooling rate of 0.9."
    )
    return _drawn(caption, curves, lambda rows: figures.fooling_curves(rows, found.budgets))


def ratios(found: Analysis) -> Part:
    rows = found.ratios
    frame = _mark_exact(rows[rows["attack"] == "all"])
    caption = (
        "ε_r with its interval for every pair, the paper's as crosses where it has them; 1 means no gain. "
        "Hollow: some attack's ratio is a bound, or it does not pass a fooling rate of 0.9 on both models."
    )
    kept = frame[["representation", "model", "value", "low", "high", "paper", "exact"]].dropna(subset="value")
    return _drawn(caption, kept, lambda rows: figures.dots(rows, unit=_RATIO, line=1.0, log=True))


_RATIO = r"$\epsilon_r$"


def _mark_exact(rows: pd.DataFrame) -> pd.DataFrame:
    """Ratios with a column exact: no clip is censored, and every attack meets the paper's condition."""
    return rows.assign(exact=(rows["bound"] == "=") & (rows["comparable"] == rows["attacks"]))


def ratios_attacks(found: Analysis) -> Part:
    rows = found.ratios
    frame = _mark_exact(rows[rows["attack"] != "all"])[
        ["representation", "model", "attack", "value", "exact"]
    ].dropna()
    drawn = (
        frame.groupby(["representation", "attack"], sort=False)
        .agg(value=("value", "mean"), low=("value", "min"), high=("value", "max"), exact=("exact", "all"))
        .reset_index()
    )
    caption = (
        "ε_r of each attack: mean over models, the line from the lowest to the highest; 1 means no gain. "
        "Hollow: on some model the ratio is a bound, or the attack does not pass a fooling rate of 0.9 both "
        "before and after."
    )
    return _drawn(
        caption, drawn, lambda rows: figures.dots(rows, unit=_RATIO, by="attack", line=1.0, log=True)
    )


def accuracy(found: Analysis) -> Part:
    frame = found.accuracies.merge(
        found.recognition.query("measure == 'accuracy_percent'")[[*tables.PAIR, "training", "paper"]],
        how="left",
    )
    caption = (
        "Accuracy on clean clips, hollow before and filled after adversarial training; crosses: the paper."
    )
    return _drawn(caption, frame, lambda rows: figures.dots(rows, unit="accuracy [%]"))


def cost(found: Analysis) -> Part:
    caption = "What an attack spends on a clip, hollow before and filled after adversarial training."
    return _drawn(caption, tables.cost(found), figures.costs)


def figure_1(found: Analysis) -> Part:
    pictures, below, frame = _gallery(found)
    who = next(iter(found.results.about.values()), {})
    caption = (
        f"Fig. 1: a clip of the class {who.get('name', '?').replace('_', ' ')} and what the six attacks on "
        f"{names.label(who.get('model', '?'))} ({names.label(who.get('training', '?'))} training, fold "
        f"{who.get('fold', '?')}) make of it in each representation; ‖δ‖₂ below, and where the attack's own "
        "criterion was not met, that it did not fool."
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
    "victims": victims_table,
    "table_1_accuracy": table_1_accuracy,
    "table_1_drop": table_1_drop,
    "accuracy": accuracy,
    "table_2": table_2,
    "table_2_area": table_2_area,
    "table_2_control": table_2_control,
    "trade_off": trade_off,
    "defences": defences_table,
    "attacks": attacks_table,
    "fooling_curves": fooling_curves,
    "table_3": table_3,
    "table_3_attacks": table_3_attacks,
    "epsilon_ratio": ratios,
    "epsilon_ratio_attacks": ratios_attacks,
    "cost": cost_table,
    "cost_picture": cost,
    "figure_1": figure_1,
    "figure_1_changes": figure_1_changes,
    "splits": splits_table,
    "claims": ledger,
    "times": times_table,
}
_OF_ATTACKS = (
    "victims table_2 table_2_area table_2_control trade_off attacks fooling_curves table_3 table_3_attacks "
    "epsilon_ratio epsilon_ratio_attacks cost cost_picture"
)
NEEDS = {  # what a part cannot be made without
    "attacks": tuple(_OF_ATTACKS.split()),
    "examples": ("figure_1", "figure_1_changes"),
    "leaks": ("splits",),
}

LACKING = {
    "attacks": "no victim was attacked",
    "examples": "no adversarial example was kept",
    "leaks": "no point was asked to measure it (leaks_at of chapter 3)",
}


class Report:
    """Makes parts, writes them into a folder, and remembers them for the index.

    Parameters
    ----------
    found : the analysis of the gathered rows.
    folder : where tables and pictures go.
    """

    def __init__(self, found: Analysis, folder: str | Path):
        self.found, self.folder = found, Path(folder)
        self.made: dict[str, Part] = {}

    def show(self, name: str):
        """Make and write one part, and display it if it is a picture; gives its caption, with the table."""
        from IPython.display import Image, Markdown, display

        part = self.add(name)
        if part.figure is not None:
            display(Image(filename=str(self.folder / f"{name}.png"), embed=True))
        return Markdown(part.markdown())

    def add(self, name: str) -> Part:
        """Make and write one part, or say that nothing was run for it."""
        if name not in PARTS:
            raise ValueError(f"part {name!r} is none of {', '.join(PARTS)}")
        results = self.found.results
        lacking = [what for what, parts in NEEDS.items() if name in parts and not len(getattr(results, what))]
        if lacking:
            part = Part(f"Nothing to show: {LACKING[lacking[0]]}.", pd.DataFrame())
        else:
            part = PARTS[name](self.found)
            if part.frame.empty:
                why = "no victim was run both before and after adversarial training"
                part = Part(f"Nothing to show: {why}.", part.frame)
            else:
                self._write(name, part)
        self.made[name] = part
        return part

    def _write(self, name: str, part: Part) -> None:
        if part.figure is not None:
            figures.export(part.figure, part.frame, name, self.folder)
            return
        figures.write_csv(part.frame, self.folder / f"{name}.csv")
        files.save(self.folder / f"{name}.md", part.markdown())
        files.save(self.folder / f"{name}.tex", latex(part.shown, part.caption, name))

    def index(self) -> Path:
        """Write README.md: what there is, of what run, with caption, chapter, point and commit."""
        lines = _about_the_run(self.found)
        for name in PARTS:  # in one order, whichever the parts were made in
            part = self.made.get(name)
            if part is None or part.frame.empty:
                continue
            endings = ("png", "pdf", "csv") if part.figure is not None else ("md", "tex", "csv")
            links = ", ".join(f"[{ending}]({name}.{ending})" for ending in endings)
            where = f"Chapter 6, {self.found.results.dataset}, {links}."
            lines += [f"## {name.replace('_', ' ')}", "", markup.text(part.caption), "", where, ""]
            if part.figure is not None:
                lines += [f"![{name}]({name}.png)", ""]
        return files.save(self.folder / "README.md", "\n".join(lines))


def _about_the_run(analysis: Analysis) -> list[str]:
    """The first lines of the index."""
    found = analysis.results
    commits = ", ".join(sorted({text[:10] or "no git" for text in found.cells["commit"]})) or "unknown"
    axes = []
    for axis in POINT:
        values = found.folds if axis == "fold" else map(names.label, names.in_order(found.axes(axis)))
        axes.append(f"{axis}s {', '.join(values)}")
    sizes = [f"{names.label(r.representation)} {r.rows} × {r.frames}" for r in found.sizes.itertuples()]
    old, absent = len(found.stale()), len(found.missing())
    return [
        f"# Tables and figures of {markup.text(names.label(found.dataset))}",
        "",
        "Written by chapter 6 (`make figures` draws them again from `rows/`).",
        "",
        f"- Points: {markup.text('; '.join(axes))}.",
        f"- Images (rows × frames): {markup.text(', '.join(sizes))}.",
        f"- Clips of a victim: {_clips(found)}.",
        f"- Commits of the cells: {markup.text(commits)}.",
        f"- Cells older than their code: {old}; victims of the grid not attacked: {absent}.",
        "",
    ]


def _clips(found: results.Results) -> str:
    """On how many clips victims were tested, and how many of those, named rightly, were attacked."""
    tested = found.clean.groupby(POINT).size()
    met = found.cells.loc[found.cells["chapter"] == "04_attacks", POINT]
    attacked = found.attacks.groupby(POINT)["clip"].nunique()
    attacked = attacked.reindex(pd.MultiIndex.from_frame(met), fill_value=0)
    return f"{_range(tested)} tested, {_range(attacked)} attacked"


def _range(counts: pd.Series) -> str:
    return " to ".join(f"{n}" for n in sorted({counts.min(), counts.max()})) if len(counts) else "none"


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
        print(f"figures: {error}", file=sys.stderr)
        return 1
    for name in PARTS:
        report.add(name)
    print(report.index())
    return 0


if __name__ == "__main__":
    sys.exit(main())
