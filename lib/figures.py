"""Every picture of the study: one style, one colour and one place in the order for each name, one export.

A function takes a tidy frame or named images and returns a matplotlib ``Figure``; nothing is shown or saved
by it. A chapter calls `use_style` once. The six colours of a family differ in lightness too, so that they
can be distinguished in grey and by colour-blind readers; markers and dashes repeat what colour says.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib import font_manager
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import files, markup, names

# ------------------------------------------------------------------------------------------------ colours

_COLOURS = {  # of each family, by place in the order; beyond the last the wheel of hues goes on
    "attacks": ("#332288", "#882255", "#4477AA", "#EE6677", "#E69F00", "#88CCEE"),
    "models": ("#661100", "#004488", "#997700", "#EE6677", "#56B4E9", "#DDCC77"),
    "representations": ("#004488", "#BB5566", "#6699CC", "#DDAA33"),
    "trainings": ("#222222", "#BB5566", "#4477AA", "#DDAA33", "#88CCEE", "#999933"),
    "controls": ("#111111", "#666666", "#AAAAAA"),
}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
_GOLDEN = 0.618  # of the wheel: hues that far apart stay apart however many there are


def _colour(place: int, family: Sequence[str]) -> str:
    """The colour at a place of a family; beyond its own ones, hues by golden sections, dark and light."""
    if place < len(family):
        return family[place]
    hue = (0.2 + (place - len(family)) * _GOLDEN) % 1
    return to_hex(hsv_to_rgb((hue, 0.9, 0.55 if place % 2 else 0.9)))


def _marker(place: int):
    """The marker at a place: known shapes first, then stars with more and more points."""
    return _MARKERS[place] if place < len(_MARKERS) else (place - len(_MARKERS) + 4, 1, 0)


def _dash(place: int):
    """The dash at a place: known ones first, then longer and longer strokes, each with a dot."""
    return _DASHES[place] if place < len(_DASHES) else (0, (place + 3, 2, 1, 2))


def _looks() -> tuple[dict[str, str], dict[str, object], dict[str, object]]:
    """Colour, marker and dash of every registered name, by its place in its family."""
    colours, markers, dashes = {names.WORST: "#CCCCCC"}, {names.WORST: ""}, {names.WORST: "-"}
    families = {
        "attacks": names.ATTACKS,
        "models": names.MODELS,
        "representations": names.REPRESENTATIONS,
        "trainings": names.TRAININGS,
        "controls": names.REFERENCE | names.CONTROLS,
    }
    for family, members in families.items():
        first = len(names.ATTACKS) if family == "controls" else 0  # controls are drawn among the attacks
        for place, key in enumerate(members):
            colours[key] = _colour(place, _COLOURS[family])
            markers[key] = _marker(place + first)
            dashes[key] = _dash(place + first)
    return colours, markers, dashes


COLOURS, MARKERS, DASHES = _looks()
SPECTRUM = "magma"  # of images in [0, 1]: dark is silence
CHANGE = "RdBu_r"  # of perturbations: red is more, blue is less, white is no change
VALUE = "value, linear in dB: 0 floor, 1 peak"  # of images in [0, 1]
TONNETZ = "tonnetz: 0 is −1, 1 is +1"


def use_style() -> None:
    """Set the one style of the study; called once, at the top of each chapter."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": "figure",
            "savefig.bbox": "tight",
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "lines.linewidth": 1.5,
            "lines.markersize": 4,
            "image.aspect": "auto",
            "image.interpolation": "nearest",
            "pdf.fonttype": 42,
            "svg.hashsalt": "study",
        }
    )


def _canvas(rows: int = 1, columns: int = 1, **how) -> tuple[Figure, np.ndarray]:
    """A figure and its axes as a 2-d array, unknown to pyplot, so that a notebook shows it once."""
    figure, axes = plt.subplots(rows, columns, squeeze=False, **how)
    plt.close(figure)
    return figure, axes


# ----------------------------------------------------------------------------------------------- images


def _image(values) -> np.ndarray:
    """A (rows, frames) array of a tensor or array with any number of leading axes of length 1."""
    values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    if values.ndim < 2 or values.size != values.shape[-1] * values.shape[-2]:
        raise ValueError(f"one image of rows × frames is wanted, not an array of shape {values.shape}")
    return values.reshape(values.shape[-2:])


def _frequency_ticks(frequencies: np.ndarray, apart: float) -> tuple[list[float], list[str]]:
    """Rows at which round frequencies lie, at least ``apart`` rows, and their names in Hz or kHz."""
    steps = np.outer([1, 2, 5], 10.0 ** np.arange(1, 5)).ravel(order="F")
    inside = [f for f in steps if frequencies[0] <= f <= frequencies[-1]]
    rows = np.interp(inside, frequencies, np.arange(len(frequencies)))
    kept, last = [], -np.inf
    for f, row in zip(inside, rows, strict=True):
        if row - last >= apart:
            kept.append((float(row), f"{f / 1000:g}k" if f >= 1000 else f"{f:g}"))
            last = row
    return [row for row, _ in kept], [text for _, text in kept]


def _dress_image(axes, shape, frequencies, times, *, first: bool, last: bool) -> None:
    """Axes of one image in Hz and s; rows above the frequencies are tonnetz."""
    rows, frames = shape
    if frequencies is not None and len(frequencies):
        known = _known(frequencies, rows)
        ticks, texts = _frequency_ticks(known, rows / 9)
        if len(known) < rows:
            axes.axhline(len(known) - 0.5, color="white", linewidth=0.8)
            ticks, texts = [*ticks, (len(known) + rows - 1) / 2], [*texts, "tonnetz"]
        axes.set_yticks(ticks, texts)
        axes.set_ylabel("frequency [Hz]" if first else "")
    else:
        axes.set_ylabel("row" if first else "")
    if times is not None and len(times):
        seconds = np.asarray(times, dtype=float)
        whole = np.arange(np.ceil(seconds[0]), seconds[-1] + 1e-9, 1 if seconds[-1] - seconds[0] < 8 else 2)
        axes.set_xticks(np.interp(whole, seconds, np.arange(frames)), [f"{t:g}" for t in whole])
        axes.set_xlabel("time [s]" if last else "")
    else:
        axes.set_xlabel("frame" if last else "")
    axes.tick_params(labelleft=first, labelbottom=last)
    axes.grid(False)


def spectrograms(
    images: Mapping[str, object],
    *,
    frequencies: Sequence[float] | None = None,
    times: Sequence[float] | None = None,
    below: Mapping[str, str] | None = None,
    columns: int = 4,
    difference: bool = False,
    unit: str = "",
) -> Figure:
    """Named images side by side, low frequencies at the bottom.

    Parameters
    ----------
    images : (rows, frames) each, with any leading axes of length 1, in [0, 1] unless they are perturbations.
    frequencies : Hz of the lower rows; rows beyond them are tonnetz.
    times : s of the frames.
    below : a line under an image, such as its perturbation's norm.
    columns : how many stand in a row.
    difference : the images are perturbations; each has a scale of its own around zero, whose end, the largest
        change, is said below it.
    unit : what stands at the colour bar of images that are no perturbations, where it is not `VALUE`.
    """
    images = {name: _image(values) for name, values in images.items()}
    if not images:
        raise ValueError("there is no image to draw")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, grid = _canvas(rows, columns, figsize=(2.1 * columns + 1.1, 2.1 * rows + 0.3))
    drawn = {}
    for i, (name, values) in enumerate(images.items()):
        axes = drawn[name] = grid.flat[i]
        end = _paint(axes, values, difference)
        axes.set_title(names.label(name))
        _dress_image(
            axes, values.shape, frequencies, times, first=i % columns == 0, last=i + columns >= len(images)
        )
        lines = [below[name]] if below and name in below else []
        _line_below(axes, [*lines, end] if difference else lines)
    for axes in grid.flat[len(images) :]:
        axes.set_axis_off()
    tallest = max(len(values) for values in images.values())
    _bar(figure, list(drawn.values()), difference, unit or _unit(tallest, frequencies), shrink=0.8, pad=0.01)
    return figure


def _paint(axes, values: np.ndarray, difference: bool) -> str:
    """Draw an image of values in [0, 1], or a change on its own scale around zero; gives that scale's end."""
    largest = np.abs(values).max()
    low, high = (-(largest or 1.0), largest or 1.0) if difference else (0, 1)
    axes.imshow(values, origin="lower", cmap=CHANGE if difference else SPECTRUM, vmin=low, vmax=high)
    return f"max ±{largest:.2g}"


def _known(frequencies: Sequence[float] | None, rows: int) -> np.ndarray:
    """The frequencies of an image's lower rows; those above are tonnetz."""
    known = np.asarray([] if frequencies is None else frequencies, dtype=float)
    return known[np.isfinite(known)][:rows]


def _unit(rows: int, frequencies: Sequence[float] | None) -> str:
    """What a value of an image means, for its colour bar."""
    return f"{VALUE}\n{TONNETZ}" if 0 < len(_known(frequencies, rows)) < rows else VALUE


def _bar(figure: Figure, axes: list, difference: bool, unit: str, **how) -> None:
    """The colour bar of what `_paint` drew."""
    colours = ScalarMappable(Normalize(-1 if difference else 0, 1), CHANGE if difference else SPECTRUM)
    bar = figure.colorbar(colours, ax=axes, **how)
    if difference:
        bar.set_ticks([-1, 0, 1], labels=["−max", "0", "+max"])
    bar.set_label("change of value" if difference else unit, fontsize=8)


def _line_below(axes, lines: Sequence[str], size: float = 8) -> None:
    axes.set_xlabel("\n".join(filter(None, [axes.get_xlabel(), *lines])), fontsize=size)


# ----------------------------------------------------------------------------------------------- curves


def fooling_curves(
    curves: pd.DataFrame, budgets: float | Mapping[str, float], *, threshold: float = 0.9, title: str = ""
) -> Figure:
    """Fooling rate against ‖δ‖₂, one staircase per attack; of a grid one row per representation and one
    column per training.

    Parameters
    ----------
    curves : columns attack, norm, rate: the rate at each norm, which holds until the next one. Of a grid also
        representation and training, and low and high, the lowest and highest victim, drawn as a band.
    budgets : where a line is drawn, the budget ε at this image size; of a grid by representation.
    threshold : a horizontal line, the rate that attacks are given budget to pass.
    """
    alone = "representation" not in curves
    drawn = curves.assign(representation="", training="") if alone else curves
    budgets = {"": budgets} if alone else budgets
    rows, columns = (names.in_order(drawn[axis]) or [""] for axis in ("representation", "training"))
    size = {"height": 3.4, "aspect": 1.6} if alone else {"height": 2.0, "aspect": 1.55}
    grid = _facets(drawn, row="representation", col="training", row_order=rows, col_order=columns, **size)
    for (i, j, _), panel in grid.facet_data():
        axes = grid.axes[i, j]
        for k, attack in enumerate(names.in_order(panel["attack"])):
            look = {"color": COLOURS.get(attack), "linestyle": DASHES.get(attack, "-")}
            look |= {
                "marker": MARKERS.get(attack),
                "markevery": (0.04 * k, 0.3),
                "label": names.label(attack),
            }
            _staircase(axes, panel[panel["attack"] == attack], 0.0, _ends(drawn, budgets)[1], look)
        axes.axhline(threshold, color="#888888", linewidth=0.8, linestyle=":")
        _mark_budget(axes, budgets[rows[i]])
        axes.set_title(names.label(columns[j]) if i == 0 else "", pad=14)
        name = "" if alone else f"{names.label(rows[i])}\n"
        axes.set_ylabel(f"{name}fooling rate" if j == 0 else "")
        axes.set_xlabel(_NORM if i == len(rows) - 1 else "")
    grid.set(xscale="log", xlim=_ends(drawn, budgets), ylim=(-0.02, 1.03))
    return _finished(grid.figure, title)


_NORM = r"$\|\delta\|_2$ of the perturbation"
_MODEL = {"standard": "original", "adversarial": "robust"}  # the two models that chapter 6 compares


def robust_curves(curves: pd.DataFrame, budgets: Mapping[str, float], *, title: str = "") -> Figure:
    """Robust accuracy against ‖δ‖₂, one panel per representation: colour says the model, original or robust,
    the wide lines are the worst case over attacks, the thin ones single attacks.

    Parameters
    ----------
    curves : columns representation, training, attack, norm, and rate, low, high [%]; ``worst case`` is an
        attack.
    budgets : representation to the norm at which a line is drawn, the budget ε at this image size.
    """
    panels = names.in_order(curves["representation"])
    ends = _ends(curves[curves["rate"] > 0], budgets)  # beyond, all is fooled
    size = {"height": 2.9, "aspect": 1.25, "col_wrap": min(2, len(panels))}
    grid = _facets(curves, col="representation", col_order=panels, **size)
    for axes, representation in zip(grid.axes.flat, panels, strict=True):
        mine = curves[curves["representation"] == representation]
        for (training, attack), line in mine.groupby(["training", "attack"], sort=False):
            wide = attack == names.WORST
            look = {"color": COLOURS.get(training), "linewidth": 2.6 if wide else 1.0}
            look |= {"linestyle": "-" if wide else (0, (3, 1)), "zorder": 2 if wide else 3}
            look["label"] = f"{_MODEL.get(training, names.label(training))}, {names.label(attack)}"
            first = line["rate"].max()
            _staircase(axes, line, first, ends[1], look, band=wide)
        _mark_budget(axes, budgets[representation])
        axes.set_title(names.label(representation), pad=14)
    grid.set(xscale="log", xlim=ends, ylim=(-2, 103))
    grid.set_axis_labels(_NORM, "robust accuracy [%]")
    return _finished(grid.figure, title, legend="below")


def _ends(curves: pd.DataFrame, budgets: Mapping[str, float]) -> tuple[float, float]:
    """The ends of a logarithmic axis that holds all norms and budgets."""
    reached = [*curves.loc[curves["norm"] > 0, "norm"].dropna(), *budgets.values()]
    return min(reached) / 2, max(reached) * 2


def _staircase(axes, line: pd.DataFrame, first: float, end: float, look: dict, band: bool = True) -> None:
    """One curve from the rate ``first`` on and, where several victims are behind it, the band of them."""
    line = line.dropna(subset="norm").sort_values("norm")
    last = line["rate"].iloc[-1] if len(line) else first
    norm, rate = [1e-12, *line["norm"], end], [first, *line["rate"], last]
    axes.step(norm, rate, where="post", **{"linewidth": 1.4} | look)
    if band and "low" in line and (line["high"] > line["low"]).any():
        shade = {"step": "post", "color": look["color"], "alpha": 0.12, "linewidth": 0}
        low, high = ([line[name].iloc[0], *line[name], line[name].iloc[-1]] for name in ("low", "high"))
        axes.fill_between(norm, low, high, **shade)


def _mark_budget(axes, budget: float) -> None:
    """A vertical line with its value above the panel."""
    axes.axvline(budget, color="#888888", linewidth=0.8)
    look = {"ha": "center", "va": "bottom", "color": "#555555", "fontsize": 7}
    axes.text(budget, 1.005, f"ε = {budget:.3g}", transform=axes.get_xaxis_transform(), **look)


def _facets(frame: pd.DataFrame, **how) -> seaborn.FacetGrid:
    """A grid of panels; seaborn lays it out in its own way first, `_finished` in ours."""
    with plt.rc_context({"figure.constrained_layout.use": False}):
        return seaborn.FacetGrid(frame, **how)


def _finished(figure: Figure, title: str = "", legend: str = "right") -> Figure:
    """Lay out a figure of seaborn's as all others, with one legend for its panels, right of them or below."""
    plt.close(figure)
    figure.set_layout_engine("constrained")
    figure.suptitle(title, fontsize=9)
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        if axes.get_legend():
            axes.get_legend().remove()
    if handles:
        below = {"loc": "outside lower center", "ncols": 4 if figure.get_figwidth() > 5 else 2}
        where = below if legend == "below" else {"loc": "outside right center"}
        figure.legend(handles.values(), handles.keys(), **where)
    return figure


def history(frame: pd.DataFrame, *, x: str = "epoch", title: str = "") -> Figure:
    """Losses and accuracies of a training against its epochs, in two panels.

    Every numeric column whose name has ``loss`` goes left, with ``accuracy`` right; columns of other names
    are not drawn.
    """
    figure, grid = _canvas(1, 2, figsize=(7.4, 2.7))
    for axes, what, unit in zip(grid[0], ("loss", "accuracy"), ("loss [nat]", "accuracy"), strict=True):
        columns = [name for name in frame if what in name]
        axes.set_xlabel(x)
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if not columns:
            continue
        curves = frame[columns].set_axis(frame[x] if x in frame else np.arange(1, len(frame) + 1))
        seaborn.lineplot(
            curves.rename(columns=lambda name: name.replace("_", " ")),
            palette=["#004488", "#BB5566", "#DDAA33", "#222222"][: len(columns)],
            markers=list(_MARKERS[: len(columns)]),
            dashes=["", (5, 1.5), (1, 1), (5, 1, 1, 1)][: len(columns)],
            markeredgewidth=0,
            ax=axes,
        )
    grid[0, 1].set_ylim(0, 1.02)
    figure.suptitle(title, fontsize=9)
    return figure


def path(paths: Mapping[str, pd.DataFrame], *, wanted: str = "target") -> Figure:
    """What an attack does to one clip, step by step, in two panels: the probability of a class, and ‖δ‖₂.

    Parameters
    ----------
    paths : name to columns step, probability and l2; one line each.
    wanted : whose probability it is.
    """
    figure, grid = _canvas(1, 2, figsize=(7.4, 2.2))
    frame = pd.concat(paths, names=["attack"]).reset_index("attack")
    for axes, column, unit in zip(
        grid[0], ("probability", "l2"), (f"probability of the {wanted}", r"$\|\delta\|_2$"), strict=True
    ):
        how = {"hue": "attack", "style": "attack", "legend": len(paths) > 1 and column == "l2"}
        seaborn.lineplot(frame, x="step", y=column, **how, ax=axes)
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].set_ylim(-0.02, 1.02)
    return figure


def distributions(frame: pd.DataFrame, units: Mapping[str, str], *, title: str = "") -> Figure:
    """How each column is distributed over the classes: a pale dot per clip, the median and the quartiles.

    Parameters
    ----------
    frame : with ``name``, the class, and the columns of ``units``.
    units : column to what is written at its axis, with the unit.
    """
    classes = sorted(frame["name"].unique())
    figure, grid = _canvas(
        columns=len(units), figsize=(2.4 * len(units) + 1.2, 0.9 + 0.17 * len(classes)), sharey=True
    )
    named = frame.assign(name=frame["name"].map({name: _short(name) for name in classes}))
    where = {"y": "name", "order": [_short(name) for name in classes]}
    for axes, (column, text) in zip(grid[0], units.items(), strict=True):
        dots = {"jitter": False, "color": "#6699CC", "alpha": 0.25, "size": 4}
        seaborn.stripplot(named, x=column, **where, **dots, ax=axes)
        middle = {"linestyle": "none", "marker": "|", "color": "#222222", "err_kws": {"linewidth": 1}}
        seaborn.pointplot(
            named, x=column, **where, **middle, estimator="median", errorbar=("pi", 50), ax=axes
        )
        axes.set(xlabel=text, ylabel="")
    figure.suptitle(title, fontsize=9)
    return figure


MOST_CLASSES = 50  # of a confusion matrix that is drawn whole


def confusion(label_, predicted, names: Sequence[str], *, title: str = "") -> Figure:
    """How often clips of each class are classified as each class; the diagonal is correct.

    Of more than `MOST_CLASSES` classes those that are confused most often are drawn, and the title says so.

    Parameters
    ----------
    label_, predicted : classes from 0, shape (n,).
    names : the classes' names.
    """
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (np.asarray(label_, dtype=int), np.asarray(predicted, dtype=int)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = counts * (1 - np.eye(len(names), dtype=int))
    drawn = np.sort(np.argsort(-(wrong + wrong.T).sum(axis=1), kind="stable")[:MOST_CLASSES])
    if len(drawn) < len(names):
        part = f"the {len(drawn)} most confused of {len(names)} classes"
        title = f"{title}: {part}" if title else part
    few = len(drawn) <= 20
    side = 1.8 + (0.3 if few else 0.16) * len(drawn)
    figure, grid = _canvas(figsize=(side + 0.8, side))
    cells = np.ix_(drawn, drawn)
    seaborn.heatmap(
        pd.DataFrame(share[cells], *[[_short(names[i]) for i in drawn]] * 2),
        annot=np.where(counts[cells] > 0, counts[cells].astype(str), ""),
        fmt="",
        annot_kws={"fontsize": 7 if few else 5},
        xticklabels=True,
        yticklabels=True,
        cmap="Greys",
        vmin=0,
        vmax=1,
        cbar_kws={"shrink": 0.7, "label": "share of the class"},
        ax=grid[0, 0],
    )
    grid[0, 0].set(xlabel="classified as", ylabel="class", title=title)
    grid[0, 0].tick_params(labelsize=8 if few else 6, length=2)
    grid[0, 0].tick_params("x", rotation=90)
    grid[0, 0].tick_params("y", rotation=0)
    grid[0, 0].grid(False)
    return figure


LONGEST = 28  # letters of a name at an axis


def _short(name: str) -> str:
    """A name as it is written at an axis: one line, no formula, cut where it is long, □ for what the font of
    the study has no sign for."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    text = "".join(sign if font.get_char_index(ord(sign)) else "□" for sign in " ".join(str(name).split()))
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return text.replace("$", r"\$")


# ----------------------------------------------------------------------------------------------- export


_FORMATS = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


def export(
    figure: Figure, frame: pd.DataFrame, name: str, folder: str | Path, caption: str = ""
) -> list[Path]:
    """Write a figure as PNG and PDF, what it shows as CSV, and its caption, the same bytes each time.

    Parameters
    ----------
    frame : the numbers that were drawn; its index is written unless it only counts.
    name : of the files, without ending.
    caption : for an index that was made before the figure; of one that is made later, the index has it.

    Returns
    -------
    The paths of the first three.
    """
    if caption:
        files.save(Path(folder) / f"{name}.md", markup.text(caption))
    # Lay out and measure once: both formats are then drawn on the same page, and neither does it again.
    figure.draw_without_rendering()
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    page = figure.get_tightbbox().padded(0.05)
    written = []
    for ending, metadata in _FORMATS.items():
        path = Path(folder) / f"{name}.{ending}"
        with files.atomic(path) as part:
            figure.savefig(part, format=ending, metadata=metadata, bbox_inches=page)
        written.append(path)
    figure.set_layout_engine(engine)
    return [*written, write_csv(frame, Path(folder) / f"{name}.csv")]


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame with six digits; and its index if that has a name. No spreadsheet computes its texts."""
    with files.atomic(path) as part:
        markup.for_spreadsheets(frame).to_csv(
            part, index=any(frame.index.names), float_format="%.6g", lineterminator="\n"
        )
    return path


def entry(name: str) -> list[str]:
    """The lines of an index for a picture that was exported: itself, and links to its files."""
    return [f"![{name}]({name}.png)", "", f"[png]({name}.png), [pdf]({name}.pdf), [csv]({name}.csv)", ""]


_BEYOND = "(chapter 7)"  # at the end of the heading of a picture that is not chapter 6's


def unlisted(folder: Path, index: str, besides: Collection[str] = ()) -> str:
    """Sections for those pictures in a folder that its index, made by chapter 6, does not show.

    Parameters
    ----------
    besides : names of pictures to leave out.
    """
    lines = []
    for path in sorted(folder.glob("*.png")):
        if path.stem not in besides and f"({path.name})" not in index:
            caption = path.with_suffix(".md")
            said = [caption.read_text(encoding="utf-8"), ""] if caption.is_file() else []
            lines += ["", f"## {path.stem.replace('_', ' ')} {_BEYOND}", "", *said, *entry(path.stem)]
    return "\n".join(lines)


def listed_beyond(index: str) -> list[str]:
    """The names of the pictures of chapter 7 in an index, those that `unlisted` put there."""
    return re.findall(rf"{re.escape(_BEYOND)}\n.*?\((\w+)\.png\)", index, re.DOTALL)


# --------------------------------------------------------------------------------- pictures of the grid


def trade_off(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Robust against clean accuracy, one panel per representation: an arrow from each original to its robust
    model.

    Parameters
    ----------
    frame : one row per model and training: representation, model, training, and clean and robust [%] with
        ``_low`` and ``_high``, drawn as pale bars. Colour and marker say the model; hollow is standard.
    """
    panels = names.in_order(frame["representation"])
    grid = _facets(frame, col="representation", col_order=panels, col_wrap=min(2, len(panels)), height=2.9)
    for axes, representation in zip(grid.axes.flat, panels, strict=True):
        mine = frame[frame["representation"] == representation]
        for model, rows in mine.groupby("model", sort=False):
            ends = {row.training: (row.clean, row.robust) for row in rows.itertuples()}
            for row in rows.itertuples():
                _crossed_bars(axes, row, COLOURS[model], hollow=row.training == "standard")
            for training in names.in_order(ends)[1:] if "standard" in ends else []:
                arrow = {"arrowstyle": "->", "color": COLOURS[model], "shrinkA": 3, "shrinkB": 3}
                axes.annotate("", ends[training], ends["standard"], arrowprops=arrow)
        axes.set_title(names.label(representation))
    for model in names.in_order(frame["model"]):
        look = {"color": COLOURS[model], "marker": MARKERS[model], "linestyle": "none"}
        grid.axes.flat[-1].plot([], [], label=names.label(model), **look)
    for text, colour in (("original", "white"), ("robust", "#777777")):
        grid.axes.flat[-1].plot([], [], "o", color="#777777", markerfacecolor=colour, label=text)
    grid.set_axis_labels("clean accuracy [%]", "robust accuracy at ε [%]")
    for what, ends in (("clean", "xlim"), ("robust", "ylim")):
        reached = frame[[what, f"{what}_low", f"{what}_high"]]
        grid.set(**{ends: (reached.min(axis=None) - 3, reached.max(axis=None) + 3)})
    return _finished(grid.figure, title)


def _crossed_bars(axes, row, colour: str, *, hollow: bool) -> None:
    """A point with pale bars for its two intervals."""
    bars = [[max(0, row.clean - row.clean_low)], [max(0, row.clean_high - row.clean)]]
    upright = [[max(0, row.robust - row.robust_low)], [max(0, row.robust_high - row.robust)]]
    pale = {"fmt": "none", "ecolor": colour, "elinewidth": 0.7, "alpha": 0.35, "zorder": 1.5}
    axes.errorbar(row.clean, row.robust, xerr=bars, yerr=upright, **pale)
    face = "white" if hollow else colour
    axes.plot(row.clean, row.robust, MARKERS[row.model], color=colour, markerfacecolor=face, markersize=6)


def ratios(frame: pd.DataFrame) -> Figure:
    """ε_r by attack, one panel per representation: a point per network with its interval, 1 marked.

    Parameters
    ----------
    frame : columns representation, attack, model, value, low, high, exact; what is not exact is hollow.
    """
    panels, attacks = names.in_order(frame["representation"]), names.in_order(frame["attack"])
    models = names.in_order(frame["model"])
    grid = _facets(frame, col="representation", col_order=panels, col_wrap=min(2, len(panels)), height=2.9)
    for axes, representation in zip(grid.axes.flat, panels, strict=True):
        mine = frame[frame["representation"] == representation]
        _model_points(axes, mine, attacks, models)
        axes.axvline(1, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_title(names.label(representation))
        axes.set_yticks(range(len(attacks)), [names.label(attack) for attack in attacks])
        axes.set_ylim(len(attacks) - 0.5, -0.5)
    grid.set(xscale="log")
    for axes in grid.axes.flat:
        _log_ticks(axes.xaxis)
    grid.set_axis_labels(r"$\epsilon_r$ (logarithmic)", "")
    return _finished(grid.figure)


def _log_ticks(axis, most: int = 6) -> None:
    """A few plain numbers on a logarithmic axis: 1, 2, 5 and their like, tens where that would be too many,
    even steps where it would be too few."""
    low, high = sorted(axis.get_view_interval())
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    finer = np.outer(decades, (1, 2, 5)).ravel()
    inside = [ticks[(ticks >= low) & (ticks <= high)] for ticks in (finer, decades)]
    ticks = inside[0] if len(inside[0]) <= most else inside[1]
    if len(ticks) < 3:
        even = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = even[(even >= low) & (even <= high)]
    axis.set_ticks(ticks[:: -(-len(ticks) // most)], minor=False)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter("{x:g}")


def _model_points(axes, frame: pd.DataFrame, attacks: list[str], models: list[str]) -> None:
    """One point per attack and model with its interval, the models of an attack a little apart."""
    apart = np.linspace(-0.25, 0.25, len(models)) if len(models) > 1 else [0.0]
    for row in frame.itertuples():
        y = attacks.index(row.attack) + apart[models.index(row.model)]
        look = {"color": COLOURS[row.model], "markerfacecolor": COLOURS[row.model] if row.exact else "white"}
        axes.plot([row.low, row.high], [y, y], color=COLOURS[row.model], linewidth=1)
        axes.plot(row.value, y, MARKERS[row.model], **look)
    for model in models:
        axes.plot([], [], MARKERS[model], color=COLOURS[model], label=names.label(model))


def norm_by_size(frame: pd.DataFrame) -> Figure:
    """Mean norms against the number of values, both logarithmic, one panel per representation.

    Parameters
    ----------
    frame : columns representation, model, training, bins, frames, norm, norm_low, norm_high; colour and
        marker say the model, hollow is standard. A dotted line from each first point is √ growth.
    """
    frame = frame.assign(values=frame["bins"] * frame["frames"])
    panels = names.in_order(frame["representation"])
    shape = {"col_wrap": min(2, len(panels)), "height": 3.1, "aspect": 1.5}
    grid = _facets(frame, col="representation", col_order=panels, **shape)
    for axes, representation in zip(grid.axes.flat, panels, strict=True):
        lines = frame[frame["representation"] == representation].groupby(["model", "training"], sort=False)
        for (model, training), line in lines:
            values, norm = line["values"], line["norm"]
            ends = np.nan_to_num([norm - line["norm_low"], line["norm_high"] - norm])
            colour, hollow = COLOURS[model], training == "standard"
            look = {
                "color": colour,
                "marker": MARKERS[model],
                "markerfacecolor": "white" if hollow else colour,
            }
            look |= {"linestyle": DASHES[training], "label": f"{names.label(model)}, {names.label(training)}"}
            axes.errorbar(values, norm, yerr=np.maximum(ends, 0), capsize=2, elinewidth=0.8, **look)
            straight = norm.iloc[0] * np.sqrt(values / values.iloc[0])
            axes.plot(values, straight, color="#888888", linewidth=0.9, linestyle=":", label="√ growth")
        axes.set(title=names.label(representation), xscale="log", yscale="log")
        sizes = frame.drop_duplicates("values")
        axes.set_xticks(sizes["values"], [f"{size.bins} ×\n{size.frames}" for size in sizes.itertuples()])
        axes.minorticks_off()
    _log_ticks(grid.axes.flat[0].yaxis)
    grid.set_axis_labels("values (bins × frames)", r"mean $\|\delta\|_2$")
    return _finished(grid.figure)


WIDEST = 4  # images in a row of a gallery; more are put in two rows


def gallery(
    pictures: Mapping[str, Mapping[str, object]],
    axes_of: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    below: Mapping[str, Mapping[str, str]] | None = None,
    difference: bool = False,
) -> Figure:
    """Fig. 1: of each representation the original and what each attack made of it, norms below.

    Below an attack that changed nothing is "found nothing", whatever ``below`` says.

    Parameters
    ----------
    pictures : representation to images by name.
    axes_of : representation to frequencies [Hz] and times [s].
    below : representation to a line under each image.
    difference : the images are perturbations; each has a scale of its own around zero, whose end, the largest
        change, is said below it.
    """
    shown = list(dict.fromkeys(name for images in pictures.values() for name in images))
    shown = [name for name in shown if name not in names.ATTACKS] + names.in_order(
        name for name in shown if name in names.ATTACKS
    )
    across = len(shown) if len(shown) <= WIDEST else -(-len(shown) // 2)
    high, rows = -(-len(shown) // across), names.in_order(pictures)
    size = {"figsize": (1.75 * across + 1.7, 1.85 * len(rows) * high + 0.3), "dpi": 80}
    figure, grid = _canvas(len(rows) * high, across, **size)
    for axes in grid.flat:
        axes.set_axis_off()
    for representation, lines in zip(rows, np.split(grid, len(rows)), strict=True):
        images = {name: _image(values) for name, values in pictures[representation].items()}
        frequencies, times = axes_of.get(representation, (None, None))
        for axes, name in zip(lines.flat, shown, strict=False):
            if name not in images:
                continue
            axes.set_axis_on()
            end, first = _paint(axes, images[name], difference), axes in lines[:, 0]
            _dress_image(axes, images[name].shape, frequencies, times, first=first, last=True)
            axes.set_title(names.label(name))
            if first:
                axes.set_ylabel(f"{names.label(representation)}\nfrequency [Hz]")
            said = [below[representation][name]] if below and name in below.get(representation, {}) else []
            same = np.zeros_like(images[name]) if difference else images.get("original")
            if name in names.ATTACKS and np.array_equal(images[name], same):
                said, end = ["found nothing"], ""
            _line_below(axes, [*said, end] if difference else said)
        unit = _unit(max(len(values) for values in images.values()), frequencies).replace(": 0 f", ":\n0 f")
        _bar(figure, list(lines.flat), difference, unit, pad=0.005, shrink=0.9 / high, aspect=15)
    return figure


def levels(frame: pd.DataFrame) -> Figure:
    """Fooling rate against the signal-to-noise ratio that a change of the sound keeps, loud to the right; one
    panel per change, in the order in which they come.

    Parameters
    ----------
    frame : columns change, representation, training, snr [dB], rate, low, high, the ends of a bar; colour and
        marker say the representation, dashes and hollow the training. The lines stand a little apart, so that
        their bars can be distinguished; the ticks are the ratios meant.
    """
    changes = list(dict.fromkeys(frame["change"]))
    figure, grid = _canvas(1, max(1, len(changes)), figsize=(6.3, 3.4), sharex=True, sharey=True)
    keys = ["representation", "training"]
    order = names.in_order(frame[keys].to_numpy().ravel())
    points = sorted(set(frame[keys].itertuples(index=False, name=None)), key=lambda x: [*map(order.index, x)])
    ratios = np.unique(frame["snr"].to_numpy(dtype=float))
    apart = 0.06 * (np.diff(ratios).min() if len(ratios) > 1 else 1.0)
    for axes, change in zip(grid[0], changes, strict=False):
        lines = frame[frame["change"] == change].groupby(keys)
        for k, (representation, training) in enumerate(points):
            line, colour = lines.get_group((representation, training)), COLOURS[representation]
            rate, low, high = (line[name].to_numpy(dtype=float) for name in ("rate", "low", "high"))
            axes.errorbar(
                line["snr"] - apart * (k - (len(points) - 1) / 2),
                rate,
                yerr=np.maximum([rate - low, high - rate], 0),
                capsize=2,
                elinewidth=0.8,
                color=colour,
                label=f"{names.label(representation)}, {names.label(training)}",
                linestyle=DASHES[training],
                marker=MARKERS[representation],
                markerfacecolor="white" if training == "standard" else colour,
            )
        axes.set_title(change)
        axes.set_xlabel("signal-to-noise ratio [dB]")
    first = grid[0, 0]
    first.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    first.invert_xaxis()
    first.set_ylim(-0.02, 1.04)
    first.set_ylabel("fooling rate of correctly classified clips")
    if points:
        figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
