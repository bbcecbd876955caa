"""Pictures: told apart by anyone, the same bytes each time, units on their axes, and refusals."""

import itertools

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from lib import figures, metrics, names
from lib.analysis import report
from lib.analysis.tables import Analysis
from tests import made_up

NEAREST_GREY = 7.0  # of lightness 0 to 100, between two colours of a family
NEAREST_COLOUR = 20.0  # CIELAB distance, also as seen by the colour-blind
SEEN_BY = {  # linear RGB as seen in full dichromacy (Machado, Oliveira, Fernandes 2009)
    "all": np.eye(3),
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopes": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopes": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(colour: str, seen) -> np.ndarray:
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(seen) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("family", [names.ATTACKS, names.MODELS, names.REPRESENTATIONS], ids=len)
def test_colours_of_a_family_are_told_apart_in_grey_and_by_the_colour_blind(family):
    for one, other in itertools.combinations(family, 2):
        colours = [figures.COLOURS[name] for name in (one, other)]
        grey = [lab(colour, np.eye(3))[0] for colour in colours]
        assert abs(grey[0] - grey[1]) >= NEAREST_GREY, (one, other, grey)
        for who, seen in SEEN_BY.items():
            apart = np.linalg.norm(lab(colours[0], seen) - lab(colours[1], seen))
            assert apart >= NEAREST_COLOUR, (one, other, who, apart)


@pytest.mark.parametrize("family", [names.ATTACKS, names.MODELS, names.REPRESENTATIONS, names.TRAININGS])
def test_markers_and_dashes_repeat_what_colour_says(family):
    for means in (figures.MARKERS, figures.DASHES, figures.COLOURS):
        assert len({str(means[name]) for name in family}) == len(family)


@pytest.mark.parametrize("family", figures._COLOURS)
def test_colours_markers_and_dashes_never_run_out(family):
    count = 14
    colours = [figures._colour(place, figures._COLOURS[family]) for place in range(count)]
    for one, other in itertools.combinations(range(count), 2):
        apart = np.linalg.norm(lab(colours[one], np.eye(3)) - lab(colours[other], np.eye(3)))
        assert apart >= NEAREST_COLOUR / 2, (family, one, other, apart)
    for look in (figures._marker, figures._dash):
        assert len({str(look(place)) for place in range(40)}) == 40


def test_a_confusion_matrix_of_many_classes_shows_those_confused_most():
    label = np.repeat(np.arange(1000), 3)
    predicted = label.copy()
    predicted[label == 700] = 10
    figure = figures.confusion(label, predicted, [f"class {i}" for i in range(1000)], title="tested")
    assert figure.get_size_inches().max() < 20
    written = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(written) == figures.MOST_CLASSES
    assert {"class 10", "class 700"} <= set(written)
    assert figure.axes[0].get_title() == f"tested: the {figures.MOST_CLASSES} most confused of 1000 classes"


def test_long_names_and_signs_of_formulas_stay_in_place():
    names = ["dog|bark", "a $x^2$ b", "two\nlines", "x" * 300, "🐶 <b>", "", "dog|bark"]
    figure = figures.confusion(range(7), range(7), names)
    figure.draw_without_rendering()
    written = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert written[:3] == ["dog|bark", r"a \$x^2\$ b", "two lines"]
    assert len(written[3]) == figures.LONGEST
    assert written[4:] == ["□ <b>", "", "dog|bark"]


def test_a_confusion_matrix_without_a_clip_is_empty():
    figure = figures.confusion([], [], ["a", "b"])
    assert not any(text.get_text() for text in figure.axes[0].texts)


def test_names_are_in_the_papers_order_and_others_follow():
    assert names.in_order(["mine", "vgg16", "googlenet", "vgg16"]) == ["googlenet", "vgg16", "mine"]
    assert names.point("esc10/dwt/resnet18/1.3/standard") == "ESC-10, DWT, ResNet-18, fold 1.3, standard"


def norms() -> pd.DataFrame:
    return pd.DataFrame({"BIM-a": [0.1, 0.2, np.inf], "PIA": [0.5, np.inf, np.inf]})


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.fooling_curves(metrics.stairs(norms()), 0.25),
        lambda: figures.spectrograms(
            {"a": np.eye(8)}, frequencies=np.linspace(0, 4000, 8), times=np.arange(8)
        ),
    ],
)
def test_a_picture_is_the_same_bytes_each_time(draw, tmp_path):
    figures.use_style()
    frame = pd.DataFrame({"x": [1 / 3]})
    one = [path.read_bytes() for path in figures.export(draw(), frame, "picture", tmp_path / "a")]
    two = [path.read_bytes() for path in figures.export(draw(), frame, "picture", tmp_path / "b")]
    assert one == two
    assert len(one) == 3
    assert b"CreationDate" not in one[1]


def test_fooling_curves_are_the_staircases_of_the_norms():
    axes = figures.fooling_curves(metrics.stairs(norms()), 0.25).axes[0]
    heights = {line.get_label(): line.get_ydata().max() for line in axes.lines if line.get_label() in norms()}
    assert heights == {"BIM-a": pytest.approx(2 / 3), "PIA": pytest.approx(1 / 3)}


def test_curves_of_a_grid_are_stairs_at_the_norms_themselves():
    run = made_up.grid(representations=("stft",))
    figure = report.fooling_curves(Analysis(run)).figure
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    drawn = [names.label(attack) for attack in (*names.ATTACKS, *names.REFERENCE)]
    assert {lines[name].get_drawstyle() for name in drawn} == {"steps-post"}
    assert "ε = 0.247" in [text.get_text() for text in figure.axes[0].texts]
    victim = run.attacks.query("attack == 'PIA' and training == 'standard' and model == 'alexnet'")
    assert set(victim["l2"]) <= set(lines["PIA"].get_xdata())


def test_robust_accuracy_falls_from_the_clean_accuracy_and_its_worst_case_is_widest():
    run = made_up.grid(representations=("stft",), models=("alexnet",))
    axes = report.robust_curves(Analysis(run)).figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) >= {
        f"{who}, {what}" for who in ("original", "robust") for what in ("worst case", "DeepFool")
    }
    assert "%" in axes.get_ylabel()
    for model, clean in (("original", 80), ("robust", 60)):
        heights = lines[f"{model}, worst case"].get_ydata()
        assert heights[0] == pytest.approx(clean)
        assert (np.diff(heights) <= 0).all()
        assert heights[-1] == 0
    widths = {name: line.get_linewidth() for name, line in lines.items()}
    assert widths["original, worst case"] > widths["original, DeepFool"]


def test_an_attack_that_did_not_fool_says_so_under_its_picture():
    for failing, said in ((1.0, True), (0.0, False)):
        part = report.figure_1(Analysis(made_up.grid(representations=("stft",), failing=failing)))
        under = [axes.get_xlabel() for axes in part.figure.axes if "δ" in axes.get_xlabel()]
        assert len(under) == len(names.ATTACKS)
        assert all(("not fooled" in text) == said for text in under)
        assert (part.frame["fooled"] != said).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda changes: figures.gallery({"stft": changes}, {}, difference=True),
        lambda changes: figures.spectrograms(changes, difference=True),
    ],
    ids=["gallery", "spectrograms"],
)
def test_each_change_has_a_scale_of_its_own_and_tells_its_largest(draw):
    figure = draw({"BIM-a": np.full((8, 8), -0.02), "JSMA": np.eye(8)})
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(-0.02, 0.02), (-1, 1)]
    assert ["max ±0.02" in axes.get_xlabel() for axes in figure.axes[:2]] == [True, False]


def test_ratios_that_are_bounds_are_hollow_and_have_their_interval():
    rows = pd.DataFrame(
        {"model": ["alexnet", "vgg16"], "value": [1.0, 1.3], "low": 0.9, "high": [1.4, np.nan]}
    )
    rows = rows.assign(representation="stft", attack="CWA", exact=[True, False])
    axes = figures.ratios(rows).axes[0]
    points = [line for line in axes.lines if line.get_marker() in ("s", "v", "P") and len(line.get_xdata())]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True]
    assert [float(line.get_xdata()[0]) for line in points] == [1.0, 1.3]
    bars = [sorted(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert [0.9, 1.4] in [[pytest.approx(end) for end in bar] for bar in bars]


def test_a_trade_off_has_a_panel_a_representation_and_the_models_markers():
    figure = figures.trade_off(report.trade_off(Analysis(made_up.grid())).frame)
    assert [axes.get_title() for axes in figure.axes] == ["STFT", "DWT"]
    for axes in figure.axes:
        markers = {line.get_marker() for line in axes.lines if len(line.get_xdata())}
        assert {figures.MARKERS["alexnet"], figures.MARKERS["resnet18"]} <= markers


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.5, 2.5, ["0.5", "1", "2"]),
        (0.05, 12, ["0.1", "1", "10"]),
        (0.95, 1.3, ["1", "1.1", "1.2", "1.3"]),
        (0.9, 2.6, ["1", "1.5", "2", "2.5"]),
        (1e-6, 1e6, ["1e−06", "0.001", "1", "1000", "1e+06"]),
    ],
)
def test_a_logarithmic_axis_has_a_few_plain_numbers(low, high, ticks):
    figure, grid = figures._canvas()
    grid[0, 0].set(xscale="log", xlim=(low, high))
    figures._log_ticks(grid[0, 0].xaxis)
    figure.draw_without_rendering()
    written = [text.get_text() for text in grid[0, 0].get_xticklabels(which="both") if text.get_text()]
    assert written == ticks


def test_seven_images_of_a_gallery_are_in_two_rows():
    images = dict.fromkeys(("original", *names.ATTACKS), np.zeros((8, 8)))
    figure = figures.gallery({"stft": images}, {})
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["original", *names.ATTACKS.values()]
    assert len({axes.get_subplotspec().rowspan.start for axes in drawn}) == 2
    assert figure.get_figwidth() * figure.dpi < 750


@pytest.mark.parametrize("difference", [False, True])
def test_an_image_that_an_attack_left_as_it_was_says_that_nothing_was_found(difference):
    images = {"original": np.zeros((8, 8)), "BIM-a": np.eye(8), "CWA": np.zeros((8, 8))}
    if difference:
        images.pop("original")
    below = {"stft": {"BIM-a": "‖δ‖₂ = 2.83", "CWA": "‖δ‖₂ = 0, not fooled"}}
    figure = figures.gallery({"stft": images}, {}, below=below, difference=difference)
    said = {axes.get_title(): axes.get_xlabel().split("\n")[-2:] for axes in figure.axes if axes.images}
    assert said["CWA"][-1] == "found nothing"
    assert not any("‖δ‖₂" in line or "±" in line for line in said["CWA"])
    assert said["BIM-a"][-1] == ("max ±1" if difference else "‖δ‖₂ = 2.83")


@pytest.mark.parametrize("series", [0, 1, 4])
def test_levels_of_any_number_of_series_have_bars_a_little_apart_in_the_order_of_names(series):
    points = [(r, t) for t in ("adversarial", "standard") for r in ("dwt", "stft")][:series]
    changes = [(c, snr, 0.5, 0.2, np.nan) for snr in (20.0, 50.0) for c in ("attack", "noise")]
    rows = [(*point, *change) for point in points for change in changes]
    columns = ["representation", "training", "change", "snr", "rate", "low", "high"]
    figure = figures.levels(pd.DataFrame(rows, columns=columns))
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == (["attack", "noise"] if series else [""])
    for axes in panels:
        assert len({line[0].get_xdata()[0] for line in axes.containers}) == series
    if series == 4:
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            "STFT, standard",
            "STFT, adversarial (FGSM)",
            "DWT, standard",
            "DWT, adversarial (FGSM)",
        ]
    assert figure.get_figwidth() * 110 < 700


def test_all_attacks_failed_still_gives_a_picture():
    assert figures.fooling_curves(metrics.stairs(pd.DataFrame({"BIM-a": [np.inf, np.inf]})), 0.2).axes


def test_spectrograms_name_hertz_seconds_and_tonnetz():
    figure = figures.spectrograms(
        {"a": np.zeros((1, 1, 12, 8))},
        frequencies=[*np.geomspace(60, 4000, 8), *[np.nan] * 4],
        times=np.arange(8.0),
    )
    axes = figure.axes[0]
    assert axes.get_ylabel() == "frequency [Hz]"
    assert axes.get_xlabel() == "time [s]"
    assert axes.get_yticklabels()[-1].get_text() == "tonnetz"
    assert figures.TONNETZ in figure.axes[-1].get_ylabel()
    assert figures.TONNETZ not in figures.spectrograms({"a": np.zeros((8, 8))}).axes[-1].get_ylabel()


def test_a_1_khz_row_is_labelled_where_it_lies():
    rows, names = figures._frequency_ticks(np.linspace(0, 2000, 21), 2)
    assert rows[names.index("1k")] == pytest.approx(10)


def test_bad_images_are_refused():
    with pytest.raises(ValueError, match=r"one image .* \(2, 8, 8\)"):
        figures.spectrograms({"a": np.zeros((2, 8, 8))})
    with pytest.raises(ValueError, match="no image"):
        figures.spectrograms({})


def test_confusion_counts_clips():
    figure = figures.confusion([0, 0, 1], [0, 1, 1], ["cat", "dog"])
    assert sorted(filter(None, (text.get_text() for text in figure.axes[0].texts))) == ["1", "1", "1"]


def test_history_splits_losses_from_accuracies():
    frame = pd.DataFrame(
        {"epoch": [1, 2], "train_loss": [2.0, 1.0], "validation_accuracy": [0.1, 0.5], "best": True}
    )
    left, right = figures.history(frame).axes
    drawn = [axes.get_legend_handles_labels()[1] for axes in (left, right)]
    assert drawn == [["train loss"], ["validation accuracy"]]
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [2.0, 1.0])
