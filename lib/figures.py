"""Every picture of the study: one style, one colour and one place in the order for each name, one export.

A function takes a tidy frame or named images and returns a matplotlib ``Figure``; nothing is shown or saved
by it. A chapter calls `use_style` once. The six colours of a family differ in lightness too, so that they
are told apart in grey and by colour-blind readers; markers and dashes repeat what colour says.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import study

# ------------------------------------------------------------------------------------- names and colours

ATTACKS = ("BIM-a", "BIM-b", "JSMA", "DeepFool", "CWA", "PIA")  # the paper's order
CONTROLS = ("FGSM", "noise")
WORST = "worst case"
MODELS = {
    "googlenet": "GoogLeNet",
    "alexnet": "AlexNet",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet56": "ResNet-56",
    "vgg16": "VGG-16",
}
REPRESENTATIONS = {
    "stft": "STFT",
    "dwt": "DWT",
    "stft_tonnetz": "STFT | Tonnetz",
    "dwt_tonnetz": "DWT | Tonnetz",
}
TRAININGS = {
    "standard": "standard",
    "adversarial": "adversarial (FGSM)",
    "fgsm_rs": "FGSM, random start",
    "pgd": "PGD",
    "trades": "TRADES",
}
DATASETS = {"demo": "toy sounds", "esc10": "ESC-10", "esc50": "ESC-50", "urbansound8k": "UrbanSound8K"}

_SIX = ("#332288", "#882255", "#4477AA", "#EE6677", "#E69F00", "#88CCEE")
_OTHER_SIX = ("#661100", "#004488", "#997700", "#EE6677", "#56B4E9", "#DDCC77")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))

COLOURS = {
    **dict(zip(ATTACKS, _SIX, strict=True)),
    **{"FGSM": "#555555", "noise": "#AAAAAA", WORST: "#000000"},
    **dict(zip(MODELS, _OTHER_SIX, strict=True)),
    **dict(zip(REPRESENTATIONS, ("#004488", "#BB5566", "#6699CC", "#DDAA33"), strict=True)),
    **dict(zip(TRAININGS, ("#222222", "#BB5566", "#4477AA", "#DDAA33", "#88CCEE"), strict=True)),
}
MARKERS = {
    **dict(zip((*ATTACKS, *CONTROLS), _MARKERS, strict=True)),
    **{WORST: ""},
    **dict(zip(MODELS, _MARKERS, strict=False)),
    **dict(zip(REPRESENTATIONS, _MARKERS, strict=False)),
    **dict(zip(TRAININGS, _MARKERS, strict=False)),
}
DASHES = {
    **dict(zip(ATTACKS, _DASHES, strict=True)),
    **{"FGSM": "--", "noise": ":", WORST: "-"},
    **dict(zip(MODELS, _DASHES, strict=True)),
    **dict(zip(REPRESENTATIONS, _DASHES, strict=False)),
    **dict(zip(TRAININGS, _DASHES, strict=False)),
}
SPECTRUM = "magma"  # of images in [0, 1]: dark is silence
CHANGE = "cividis"  # of perturbations: lighter is more, darker is less, in colour and in grey

_LABELS = {**MODELS, **REPRESENTATIONS, **TRAININGS, **DATASETS}
_ORDER = [*ATTACKS, *CONTROLS, WORST, *MODELS, *REPRESENTATIONS, *TRAININGS, *DATASETS]


def label(name: str) -> str:
    """How a name of the grid is printed in legends and tables: ``resnet56`` as ResNet-56."""
    return _LABELS.get(name, str(name))


def in_order(names: Iterable[str]) -> list[str]:
    """The names once each, those of the study first and in the paper's order, others as they come."""
    names = list(dict.fromkeys(names))
    return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


def point(name: str) -> str:
    """``esc10/dwt/resnet18/1/standard`` in words for a title: ESC-10, DWT, ResNet-18, fold 1, standard."""
    words = name.split("/")
    return ", ".join(f"fold {word}" if i == 3 else label(word) for i, word in enumerate(words))


def use_style() -> None:
    """Set the one style of the study; called once, at the top of each chapter."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 160,
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


def _frequency_ticks(frequencies: np.ndarray) -> tuple[list[float], list[str]]:
    """Rows at which round frequencies lie, and their names in Hz or kHz."""
    steps = np.outer([1, 2, 5], 10.0 ** np.arange(1, 5)).ravel(order="F")
    inside = [f for f in steps if frequencies[0] <= f <= frequencies[-1]]
    rows = np.interp(inside, frequencies, np.arange(len(frequencies)))
    kept, last = [], -np.inf
    for f, row in zip(inside, rows, strict=True):
        if row - last >= len(frequencies) / 9:
            kept.append((float(row), f"{f / 1000:g}k" if f >= 1000 else f"{f:g}"))
            last = row
    return [row for row, _ in kept], [text for _, text in kept]


def _dress_image(axes, shape, frequencies, times, *, first: bool, last: bool) -> None:
    """Axes of one image in Hz and s; rows above the frequencies are tonnetz."""
    rows, frames = shape
    if frequencies is not None and len(frequencies):
        known = np.asarray(frequencies, dtype=float)
        known = known[np.isfinite(known)][:rows]
        ticks, names = _frequency_ticks(known)
        if len(known) < rows:
            axes.axhline(len(known) - 0.5, color="white", linewidth=0.8)
            ticks, names = [*ticks, (len(known) + rows - 1) / 2], [*names, "tonnetz"]
        axes.set_yticks(ticks, names)
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
) -> Figure:
    """Named images side by side on one scale, low frequencies at the bottom.

    Parameters
    ----------
    images : (rows, frames) each, with any leading axes of length 1, in [0, 1].
    frequencies : Hz of the lower rows; rows beyond them are tonnetz.
    times : s of the frames.
    below : a line under an image, such as its perturbation's norm.
    columns : how many stand in a row.
    difference : the images are perturbations: a scale around zero, the same for all.
    """
    images = {name: _image(values) for name, values in images.items()}
    if not images:
        raise ValueError("there is no image to draw")
    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    figure, grid = _canvas(lines, columns, figsize=(2.1 * columns + 1.1, 2.1 * lines + 0.3))
    limit = max(np.abs(values).max() for values in images.values()) or 1.0
    scale = (
        {"cmap": CHANGE, "vmin": -limit, "vmax": limit}
        if difference
        else {"cmap": SPECTRUM, "vmin": 0, "vmax": 1}
    )
    drawn = {}
    for i, (name, values) in enumerate(images.items()):
        axes = drawn[name] = grid.flat[i]
        shown = axes.imshow(values, origin="lower", **scale)
        axes.set_title(label(name))
        _dress_image(
            axes, values.shape, frequencies, times, first=i % columns == 0, last=i + columns >= len(images)
        )
        if below and name in below:
            _line_below(axes, below[name])
    for axes in grid.flat[len(images) :]:
        axes.set_axis_off()
    bar = figure.colorbar(shown, ax=list(drawn.values()), shrink=0.8, pad=0.01)
    bar.set_label("change of value" if difference else "value, 0 to 1 (−100 to 0 dB)")
    return figure


def _line_below(axes, text: str) -> None:
    under = axes.get_xlabel()
    axes.set_xlabel(f"{under}\n{text}" if under else text, fontsize=8)


# ----------------------------------------------------------------------------------------------- curves


def fooling_curves(
    norms: pd.DataFrame,
    *,
    budget: float | None = None,
    threshold: float = 0.9,
    title: str = "",
    axes=None,
) -> Figure:
    """Fooling rate against ‖δ‖₂, a staircase per attack, on a logarithmic axis to the largest norm.

    Parameters
    ----------
    norms : attack rows as chapter 4 leaves them (columns clip, attack, l2, fooled), or least norms,
        clip × attack, ∞ where the attack failed. A column ``worst case`` is drawn as such.
    budget : a vertical line, the paper's ‖ε‖₂ at this image size.
    threshold : a horizontal line, the rate that attacks are given budget to pass.
    axes : where to draw instead of on a figure of its own.
    """
    norms = _norms(norms)
    figure = None
    if axes is None:
        figure, grid = _canvas(figsize=(5.6, 3.4))
        axes = grid[0, 0]
    finite = norms.replace(np.inf, np.nan)
    positive = finite.where(finite > 0)
    low, high = positive.min(axis=None), positive.max(axis=None)
    low, high = (low / 2, high * 1.5) if np.isfinite(low) else (0.01, 10.0)
    if budget:
        low, high = min(low, budget / 2), max(high, budget * 2)
    for attack in in_order(norms.columns):
        found = np.sort(norms[attack].dropna().to_numpy())
        if not len(found):
            continue
        rate = np.arange(1, len(found) + 1) / len(found)
        reached = np.isfinite(found)
        x = np.concatenate([[low], np.maximum(found[reached], low), [high]])
        y = np.concatenate([[0], rate[reached], [rate[reached].max(initial=0)]])
        width = 2.2 if attack == WORST else 1.4
        axes.step(
            x,
            y,
            where="post",
            label=attack,
            color=COLOURS.get(attack),
            linestyle=DASHES.get(attack, "-"),
            linewidth=width,
            marker=MARKERS.get(attack),
            markevery=max(1, len(x) // 6),
        )
    axes.axhline(threshold, color="#888888", linewidth=0.8, linestyle=":")
    if budget:
        axes.axvline(budget, color="#888888", linewidth=0.8)
        axes.text(budget, 1.035, f"ε = {budget:.3g}", ha="center", va="bottom", color="#555555", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(-0.01, 1.03)
    axes.set_xlabel(r"$\|\delta\|_2$ of the perturbation")
    axes.set_ylabel("fooling rate of clips named rightly")
    axes.set_title(title, pad=14 if budget else 6)
    if figure:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _norms(rows: pd.DataFrame) -> pd.DataFrame:
    """Least norms, clip × attack, of rows; what is that already goes through."""
    if not {"attack", "l2", "fooled"} <= set(rows.columns):
        return rows.astype(float)
    found = rows["l2"].astype(float).where(rows["fooled"].astype(bool), np.inf)
    return found.groupby([rows["clip"], rows["attack"]]).min().unstack("attack")


def history(frame: pd.DataFrame, *, x: str = "epoch", title: str = "") -> Figure:
    """Losses and accuracies of a training against its epochs, in two panels.

    Every numeric column whose name has ``loss`` goes left, with ``accuracy`` right; columns of other names
    are not drawn.
    """
    losses = [name for name in frame if "loss" in name]
    shares = [name for name in frame if "accuracy" in name]
    figure, grid = _canvas(1, 2, figsize=(7.4, 2.7))
    steps = frame[x] if x in frame else np.arange(1, len(frame) + 1)
    for axes, names, unit in ((grid[0, 0], losses, "loss [nat]"), (grid[0, 1], shares, "accuracy")):
        for i, name in enumerate(names):
            axes.plot(
                steps,
                frame[name],
                label=name.replace("_", " "),
                color=("#004488", "#BB5566", "#DDAA33", "#222222")[i % 4],
                linestyle=_DASHES[i % len(_DASHES)],
                marker=_MARKERS[i % len(_MARKERS)],
            )
        axes.set_xlabel(x)
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if names:
            axes.legend()
    grid[0, 1].set_ylim(0, 1.02)
    figure.suptitle(title, fontsize=9)
    return figure


def confusion(label_, predicted, names: Sequence[str], *, title: str = "") -> Figure:
    """How often each class is named as each, in clips; the diagonal is right.

    Parameters
    ----------
    label_, predicted : classes from 0, shape (n,).
    names : the classes' names.
    """
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (np.asarray(label_), np.asarray(predicted)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.3 * len(names)
    figure, grid = _canvas(figsize=(side + 0.8, side))
    axes = grid[0, 0]
    shown = axes.imshow(share, cmap="Greys", vmin=0, vmax=1)
    if len(names) <= 20:
        for i, j in zip(*np.nonzero(counts), strict=True):
            axes.text(
                j,
                i,
                counts[i, j],
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share[i, j] > 0.5 else "black",
            )
    small = 8 if len(names) <= 20 else 5
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
    axes.set_yticks(range(len(names)), names, fontsize=small)
    axes.set_xlabel("named as")
    axes.set_ylabel("is")
    axes.set_title(title)
    axes.grid(False)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="share of the class")
    return figure


# ----------------------------------------------------------------------------------------------- export


def export(figure: Figure, frame: pd.DataFrame, name: str, folder: str | Path) -> list[Path]:
    """Write a figure as PNG and PDF and what it shows as CSV, the same bytes each time.

    Parameters
    ----------
    frame : the numbers that were drawn; its index is written unless it only counts.
    name : of the three files, without ending.

    Returns
    -------
    The three paths.
    """
    written = []
    for ending, metadata in (
        ("png", {"Software": None}),
        ("pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
    ):
        path = Path(folder) / f"{name}.{ending}"
        with study.atomic(path) as part:
            figure.savefig(part, format=ending, metadata=metadata)
        written.append(path)
    return [*written, _write_csv(frame, Path(folder) / f"{name}.csv")]


def _write_csv(frame: pd.DataFrame, path: Path) -> Path:
    counts = isinstance(frame.index, pd.RangeIndex)
    with study.atomic(path) as part:
        frame.to_csv(part, index=not counts, float_format="%.6g", lineterminator="\n")
    return path


def digest(path: str | Path) -> str:
    """The first 12 hex digits of a file's SHA-256, to compare two exports."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
