"""Measures against answers that are known in closed form, and intervals against simulated studies."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib import metrics


def rows_of(norms: dict[str, list[float]]) -> pd.DataFrame:
    """Attack rows whose least norms are given; ∞ is a failed attack."""
    found = [
        {
            "clip": f"clip{i}",
            "attack": attack,
            "label": 0,
            "after": int(np.isfinite(d)),
            "fooled": np.isfinite(d),
            "l2": d if np.isfinite(d) else 0.0,
        }
        for attack, values in norms.items()
        for i, d in enumerate(values)
    ]
    return pd.DataFrame(found)


def fooling_rate(rows: pd.DataFrame, budgets, **how) -> pd.DataFrame:
    return metrics.rate_within(metrics.least_norms(rows, **how), budgets)


def test_a_failed_attack_fools_at_no_budget_however_small_its_norm():
    rate = fooling_rate(rows_of({"A": [1.0, 2.0, np.inf, 4.0]}), [0.0, 1.0, 3.0, 1e9])
    assert rate.loc["A"].tolist() == [0, 0.25, 0.5, 0.75]


def test_area_is_the_integral_of_the_fooling_curve():
    rows = rows_of({"A": [0.3, 1.1, 2.7, 5.0, np.inf], "B": [0.0, 0.5, 3.0, 3.5, 9.0]})
    fine = (np.arange(3000) + 0.5) / 3000 * 3
    integral = fooling_rate(rows, fine).mean(axis=1)
    area = metrics.shortfall(metrics.least_norms(rows), 3.0).mean()
    np.testing.assert_allclose(area, integral, atol=1e-3)


def test_area_in_closed_form():
    """Norms uniform on [0, ε] have an area of one half, all zero have 1, all beyond ε have 0."""
    uniform = ((np.arange(1000) + 0.5) / 1000 * 3).tolist()
    norms = pd.DataFrame({"uniform": uniform, "zero": [0.0] * 1000, "beyond": [3.5] * 1000})
    area = metrics.shortfall(norms, 3.0).mean()
    assert area["uniform"] == pytest.approx(0.5)
    assert area["zero"] == 1
    assert area["beyond"] == 0
    with pytest.raises(ValueError, match="positive, not 0"):
        metrics.shortfall(pd.DataFrame({"A": [1.0]}), 0)


def test_least_norm_of_several_rungs_and_of_attacks_that_were_not_run():
    rows = pd.concat([rows_of({"A": [3.0, np.inf]}), rows_of({"A": [2.0]}), rows_of({"B": [1.0]})])
    norms = metrics.least_norms(rows)
    assert norms.loc["clip0", "A"] == 2
    assert norms.loc["clip1", "A"] == np.inf
    assert np.isnan(norms.loc["clip1", "B"])
    assert metrics.rate_within(norms, [2.5]).loc[["A", "B"], 2.5].tolist() == [0.5, 1.0]
    assert metrics.worst_case(norms).tolist() == [1.0, np.inf]


def test_the_measures_of_a_clip_average_to_those_of_the_curve():
    norms = metrics.least_norms(rows_of({"A": [0.3, 1.1, 2.7, np.inf], "B": [0.5, 3.0, np.inf, np.inf]}))
    norms.loc["clip3", "B"] = np.nan
    for limit in (1.0, [1.0, 1.0]):
        assert metrics.within(norms, limit).mean().tolist() == [1 / 4, 1 / 3]
        assert metrics.rate_within(norms, [1.0])[1.0].tolist() == [1 / 4, 1 / 3]
    assert metrics.ever(norms).mean().tolist() == [3 / 4, 2 / 3]


def test_a_staircase_rises_at_each_norm():
    stairs = metrics.stairs(pd.DataFrame({"A": [2.0, 1.0, np.inf, np.nan], "B": [np.inf] * 4}))
    assert stairs[stairs["attack"] == "A"].to_numpy().tolist() == [["A", 1.0, 1 / 3], ["A", 2.0, 2 / 3]]
    assert stairs[stairs["attack"] == "B"]["rate"].tolist() == [0]


def test_success_by_any_wrong_class_counts_what_missed_the_target():
    rows = rows_of({"A": [1.0, 2.0]}).assign(fooled=False)
    assert fooling_rate(rows, [5.0]).loc["A", 5.0] == 0
    assert fooling_rate(rows, [5.0], success="any").loc["A", 5.0] == 1


def test_the_least_misclassified_iterate_counts_where_it_was_kept():
    rows = rows_of({"A": [1.0, 2.0, np.inf]}).assign(l2_any=[0.25, np.nan, np.inf])
    assert metrics.least_norms(rows, success="any")["A"].tolist() == [
        0.25,
        2.0,
        np.inf,
    ]  # the second is older
    assert metrics.least_norms(rows)["A"].tolist() == [1.0, 2.0, np.inf]


def test_robust_accuracy_counts_every_evaluated_clip():
    """Of four clips two are correct; one of them withstands 1, none 3."""
    norms = pd.DataFrame({"A": [2.0, 0.5], "B": [np.nan, 0.7]}, index=["a", "b"])
    least = metrics.needed(norms, ["a", "b", "c", "d"])
    assert least["A"].tolist() == [2.0, 0.5, 0.0, 0.0]
    assert least["B"].tolist() == [np.inf, 0.7, 0.0, 0.0]
    worst = metrics.worst_case(least)
    assert [(worst > limit).mean() for limit in (0, 1, 3)] == [0.5, 0.25, 0]
    with pytest.raises(ValueError, match="1 attacked clips, such as 'b', are not among"):
        metrics.needed(norms, ["a"])


def test_a_scaled_budget_is_the_same_change_per_value():
    small = metrics.scaled_budget(3.0, (64, 128))
    assert metrics.scaled_budget(3.0, metrics.PAPER_SIZE) == 3.0
    assert small / np.sqrt(64 * 128) == pytest.approx(3.0 / np.sqrt(768 * 1568))
    with pytest.raises(ValueError, match="0 × 128"):
        metrics.scaled_budget(3.0, (0, 128))


# ------------------------------------------------------------------------------------------------- ratios


def test_ratio_of_doubled_norms_is_two_by_both_readings():
    original = metrics.least_norms(rows_of({"A": [1.0, 2.0, 3.0], "B": [0.1, 0.2, 0.6]}))
    ratio = metrics.ratio_of_means(original, 2 * original)
    assert ratio["ratio"].tolist() == pytest.approx([2, 2])
    assert (ratio["bound"] == "=").all()
    assert ratio["comparable"].all()
    paired, lost = metrics.paired_ratios(original["A"], 2 * original["A"])
    assert metrics.geometric_mean(paired.to_frame()) == pytest.approx(2)
    assert lost == 0


def test_paired_ratios_take_clips_fooled_in_both_and_count_the_others():
    original = pd.Series([1.0, 2.0, np.inf, 1.0, 4.0], index=list("abcde"))
    robust = pd.Series([4.0, np.inf, 3.0, np.nan, 4.0], index=list("abcde"))
    ratios, lost = metrics.paired_ratios(original, robust)
    assert ratios.to_dict() == {"a": 4.0, "e": 1.0}
    assert lost == 2  # d was not attacked on one of the models, and takes no part
    assert metrics.geometric_mean(ratios.to_frame()) == pytest.approx(2)


def test_a_geometric_mean_does_not_hang_on_the_largest_norm():
    ratios = pd.DataFrame({"A": [2.0] * 19 + [2000.0]})
    assert ratios["A"].mean() > 100
    assert metrics.geometric_mean(ratios) == pytest.approx(2 * 1000 ** (1 / 20))


def test_ratio_counts_censored_clips_and_says_so():
    original = metrics.least_norms(rows_of({"A": [1.0] * 20}))
    robust = metrics.least_norms(rows_of({"A": [2.0] * 18 + [4.0, np.inf]}))
    ratio = metrics.ratio_of_means(original, robust).loc["A"]
    assert ratio["ratio"] == pytest.approx((18 * 2 + 4 + 4) / 20)  # the failed clip at 4, the largest known
    assert ratio["bound"] == "≥"
    assert ratio["comparable"]


def test_failed_clips_count_at_the_most_that_they_are_known_to_need():
    """A ladder that ended was tried to its end; one that was left counts what it had reached."""
    original = metrics.least_norms(rows_of({"A": [1.0] * 19 + [np.inf], "B": [5.0] * 20}))
    robust = metrics.least_norms(rows_of({"A": [2.0] * 10 + [np.inf] * 10, "B": [np.inf] * 20}))
    left, ended = metrics.censoring_norms(original, robust)
    assert left.tolist() == [1, 5]  # A passed 0.9 on the original, so its failed clip is known to need 1
    assert ended.tolist() == [2, 5]
    ratio = metrics.ratio_of_means(original, robust)
    assert ratio["ratio"].tolist() == [2, 1]
    assert ratio["bound"].tolist() == ["?", "≥"]
    assert not ratio["comparable"].any()


def test_ratio_without_any_success_is_unknown():
    nothing = metrics.least_norms(rows_of({"A": [np.inf] * 3}))
    ratio = metrics.ratio_of_means(nothing, nothing).loc["A"]
    assert np.isnan(ratio["ratio"])
    assert ratio["bound"] == "?"
    assert not ratio["comparable"]


# ---------------------------------------------------------------------------------------------- trainings


@pytest.mark.parametrize(
    ("accuracy", "losses", "why"),
    [
        (0.95, [0.5, 0.4, 0.38, 0.37, 0.37], ""),
        (0.34, [0.5, 0.4, 0.38, 0.37, 0.37], "training accuracy 34%"),
        (
            0.95,
            [0.8, 0.7, 0.6, 0.5, 0.4],
            "training accuracy 95% in its last epoch, its loss still falling by 17% an epoch",
        ),
        (0.995, [0.8, 0.7, 0.6, 0.5, 0.4], ""),
        (0.95, [0.4], ""),
    ],
)
def test_unfinished_trainings_say_why(accuracy, losses, why):
    history = pd.DataFrame({"train_loss": losses, "train_accuracy": accuracy})
    assert metrics.unfinished(history).startswith(why)
    assert bool(metrics.unfinished(history)) == bool(why)
    decided = history.assign(unfinished=not why)  # by the training itself
    assert bool(metrics.unfinished(decided)) != bool(why)


# ---------------------------------------------------------------------------------------------- intervals


def test_a_plain_share_has_wilsons_interval_with_students_quantile():
    found = metrics.over_clips([True] * 3 + [False] * 17)
    level = 1 - 2 * stats.norm.sf(stats.t.ppf(0.975, 19))  # the one whose normal quantile is Student's
    low, high = stats.binomtest(3, 20).proportion_ci(level, method="wilson")
    assert tuple(found) == (0.15, pytest.approx(low), pytest.approx(high), "20 clips")
    percent = metrics.over_clips([100.0] * 3 + [0.0] * 17, bounds=(0, 100))
    assert percent.low == pytest.approx(100 * low)


def test_a_paired_difference_has_newcombes_interval():
    """Newcombe's square-and-add of Wilson's limits, by hand: 5 gains, 2 losses among 30 pairs."""
    found = metrics.over_clips([1] * 5 + [-1] * 2 + [0] * 23, bounds=(-1, 1))
    gain, loss = (stats.binomtest(k, 30).proportion_ci(method="wilson") for k in (5, 2))
    g, v = 5 / 30, 2 / 30
    r = -g * v / np.sqrt(g * (1 - g) * v * (1 - v))
    below, above = (g - gain.low, loss.high - v), (gain.high - g, v - loss.low)
    low, high = (np.sqrt(a**2 + b**2 - 2 * r * a * b) for a, b in (below, above))
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(0.1 - low), pytest.approx(0.1 + high))


def test_a_difference_of_one_sign_is_a_share():
    """Twenty clips of which one model misses none and the other two: a loss of at most Wilson's limit."""
    lost = [1] * 2 + [0] * 18
    found, share = (
        metrics.over_clips(lost, bounds=(-1, 1)),
        stats.binomtest(2, 20).proportion_ci(method="wilson"),
    )
    assert found.high == pytest.approx(share.high)
    assert metrics.over_clips([0] * 20, bounds=(-1, 1)).high > 0.1


def test_recordings_of_unequal_size_count_as_fewer():
    values = np.random.default_rng(0).integers(0, 2, 40)
    unequal = np.repeat(np.arange(10), [20, 4, 4, 4, 2, 2, 1, 1, 1, 1])
    width = lambda source: np.ptp(metrics.over_clips(values, source)[1:3])  # noqa: E731
    assert width(unequal) > width(np.arange(40) // 4) > width(None)


@pytest.mark.parametrize("count", [0, 12])
@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1)])
@pytest.mark.parametrize("per_recording", [1, 3])
def test_no_interval_has_width_zero(count, bounds, per_recording):
    values = [bounds[1]] * count + [0] * (12 - count)
    found = metrics.over_clips(values, np.arange(12) // per_recording, bounds=bounds)
    assert found.high - found.low > 0.1
    assert bounds[0] <= found.low <= found.value <= found.high <= bounds[1]


def test_twelve_of_twelve_do_not_exclude_ninety_percent():
    assert metrics.over_clips([1] * 12).low < 0.9


def test_clips_of_one_recording_count_as_little_more_than_one():
    """837 clips of 124 recordings that agree within a recording are 124 tosses of a coin."""
    one = np.arange(120) % 2
    alone = metrics.over_clips(one)
    copied = metrics.over_clips(np.repeat(one, 7), np.repeat(np.arange(120), 7))
    naive = metrics.over_clips(np.repeat(one, 7))
    assert copied.over == "840 clips of 120 recordings"
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert naive.high - naive.low < 0.5 * (copied.high - copied.low)


def test_values_that_were_not_measured_are_left_out_and_others_refused():
    assert metrics.over_clips([1, np.nan, 0]).over == "2 clips"
    with pytest.raises(ValueError, match="-1 lies outside 0 to 1"):
        metrics.over_clips([-1, 1])


@pytest.mark.parametrize(("values", "over"), [([], "0 clips"), ([0.5], "1 clips")])
def test_few_clips_have_no_interval(values, over):
    found = metrics.over_clips(values)
    assert found.over == over
    assert np.isnan(found.low)
    assert metrics.over_clips([1, 0], ["a", "a"]).over == "2 clips of 1 recordings"
    assert np.isnan(metrics.over_clips([1, 0], ["a", "a"]).low)


def test_interval_over_repeats_is_students():
    found = metrics.over_repeats([0.7, 0.8, 0.9])
    assert found.value == pytest.approx(0.8)
    assert found.high - found.value == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-5)
    assert np.isnan(metrics.over_repeats([0.7]).low)
    for same in (0.7, 100 * 3 / 9, 100 / 9):  # the mean of three of the latter is off by a rounding
        assert np.isnan(metrics.over_repeats([same] * 3).low)


def test_a_paired_difference_is_known_better_than_its_parts():
    """Two victims that are wrong on nearly the same clips differ by little, with little spread."""
    right = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    drop = metrics.over_clips(right - right, bounds=(-1, 1))
    alone = metrics.over_clips(right)
    assert drop.value == 0
    assert 0 < drop.high - drop.low < 0.6 * 2 * (alone.high - alone.low)


def test_a_jackknife_of_ratios_is_students_interval_of_their_logarithms():
    ratios = np.random.default_rng(1).lognormal(0.5, 0.4, 15)
    found = metrics.jackknife(pd.DataFrame({"A": ratios}), metrics.geometric_mean)
    logs = np.log(ratios)
    half = stats.t.ppf(0.975, 14) * logs.std(ddof=1) / np.sqrt(15)
    assert np.log([found.low, found.high]).tolist() == pytest.approx([logs.mean() - half, logs.mean() + half])
    clips = pd.DataFrame({"A": np.repeat(ratios, 3)})
    source = pd.Series(np.repeat(np.arange(15), 3))
    by_recording = metrics.jackknife(clips, metrics.geometric_mean, source)
    assert by_recording.over == "45 clips of 15 recordings"
    assert by_recording.low == pytest.approx(found.low)


@pytest.mark.parametrize("ratios", [[2.0, 2.0], [2.0] * 5, [0.0, 1.0, 2.0]])
def test_a_jackknife_that_knows_nothing_says_so(ratios):
    found = metrics.jackknife(pd.DataFrame({"A": ratios}), metrics.geometric_mean)
    assert np.isnan([found.low, found.high]).all()


# ------------------------------------------------------------------------------------- simulated coverage

LEAST, MOST = 0.93, 0.97  # of the coverage of an interval of 95 %
# With fewer clips (or recordings) than this that are expected to differ from the others, limits jump from
# count to count, and none are found that are above LEAST and below MOST: 5 % of 20 clips are covered
# in 92 or in 98 % of studies, by whether the interval of 3 clips contains it.
ENOUGH = 10


class Case(NamedTuple):
    """What is simulated; ``draw(rng, n, studies)`` gives studies × n numbers, ``differ(n)`` counts clips."""

    draw: Callable
    truth: float
    differ: Callable = lambda n: np.inf  # continuous
    bounds: tuple[float, float] = (0, 1)
    clustered: bool = False


def recordings(n: int) -> np.ndarray:
    """The recording of each of n clips, of one to four clips each, as in ESC-10."""
    return np.repeat(np.arange(n), 1 + np.arange(n) % 4)[:n]


def latent(rng, n: int, studies: int, attacks: int, alike: float, source=None) -> np.ndarray:
    """Standard normal difficulties, studies × n × attacks; ``alike`` is their correlation within a clip.

    Half of what the attacks share is shared by the clips of a recording as well, if ``source`` is given.
    """
    shared = rng.normal(size=(studies, n, 1))
    if source is not None:
        recording = rng.normal(size=(studies, source.max() + 1, 1))[:, source]
        shared = (shared + recording) / np.sqrt(2)
    return np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.normal(size=(studies, n, attacks))


def a_share(p: float, clustered: bool = False) -> Case:
    def draw(rng, n, studies):
        source = recordings(n) if clustered else None
        return (latent(rng, n, studies, 1, 1.0, source) < stats.norm.ppf(p)).mean(axis=2)

    def differ(n):
        return min(p, 1 - p) * (len(set(recordings(n))) if clustered else n)

    return Case(draw, p, differ, clustered=clustered)


def a_mean_of_attacks(rates: Sequence[float], alike: float) -> Case:
    """Hard clips are hard for all of them."""

    def draw(rng, n, studies):
        return (latent(rng, n, studies, len(rates), alike) < stats.norm.ppf(rates)).mean(axis=2)

    return Case(draw, float(np.mean(rates)), lambda n: min(max(rates), 1 - max(rates)) * n)


def a_drop(before: float, after: float, alike: float = 0.5, models: int = 1, clustered: bool = False) -> Case:
    """Accuracies of a model and of its robust form on the same clips; or means over several such pairs."""
    limits = stats.norm.ppf([before, after])

    def draw(rng, n, studies):
        source = recordings(n) if clustered else None
        z = latent(rng, n, studies, 2 * models, alike, source)
        right = (z.reshape(studies, n, models, 2) < limits).mean(axis=2)
        return right[..., 0] - right[..., 1]

    def differ(n):
        both = stats.multivariate_normal.cdf(limits, cov=[[1, alike], [alike, 1]])
        return (before + after - 2 * both) * (len(set(recordings(n))) if clustered else n)

    return Case(draw, before - after, differ, (-1, 1), clustered)


FEW, MANY, ONE = [0.01, 0.01, 0.01, 0.01, 0.05, 0.3], [0.3, 0.4, 0.1, 0.5, 0.6, 0.2], [0, 0, 0, 0, 0, 0.25]
CASES = {
    **{f"share {p}": a_share(p) for p in (0.05, 0.1, 0.15, 0.2, 0.5, 0.9)},
    **{f"share {p}, recordings": a_share(p, clustered=True) for p in (0.1, 0.5, 0.9)},
    **{
        f"six attacks, mean {np.mean(rates):.2f}, alike {alike}": a_mean_of_attacks(rates, alike)
        for rates in (FEW, MANY, ONE)
        for alike in (0.2, 0.8)
    },
    **{
        f"drop {before} to {after}, alike {alike}": a_drop(before, after, alike)
        for before, after in ((0.95, 0.9), (0.9, 0.9), (0.8, 0.6), (0.6, 0.55), (0.85, 0.5))
        for alike in (0.2, 0.8)
    },
    "drop 1 to 0.9": a_drop(1 - 1e-12, 0.9),
    "mean of six drops 0.8 to 0.6": a_drop(0.8, 0.6, models=6),
    "drop 0.95 to 0.9, recordings": a_drop(0.95, 0.9, clustered=True),
    "drop 0.8 to 0.6, recordings": a_drop(0.8, 0.6, clustered=True),
}
SPREADS = ((0.4, 0.4), (0.3, 0.5), (0.2, 0.9))  # of log norms of clips, before and after
MODELS = ((0.8, 0.04), (0.95, 0.02), (0.95, 0.04))  # mean accuracy of a training and its standard deviation
# Covered where few numbers are far from the others on one side, in the last of SPREADS and of MODELS:
# Student's quantile knows nothing of skewness. There the ratio of means, the paper's form, has the geometric
# mean of ratios beside it, and the accuracy of few trainings near 1 is to be read with care.
SKEWED = 0.88


def over_clips_covers(case: Case, n: int, studies: int) -> float:
    """The share of studies whose interval contains the truth; equal studies are computed once."""
    values = case.draw(np.random.default_rng(n), n, studies)
    source = recordings(n) if case.clustered else None
    values = values if case.clustered else np.sort(values, axis=1)
    different, counts = np.unique(values, axis=0, return_counts=True)
    found = [metrics.over_clips(study, source, bounds=case.bounds) for study in different]
    right = [e.low - 1e-12 <= case.truth <= e.high + 1e-12 for e in found]
    return float(np.average(right, weights=counts))


def repeats_cover(p: float, spread: float, folds: int, n: int, studies: int) -> float:
    """Means over folds of n clips, of models that differ by ``spread``; folds that agree are pooled."""
    rng = np.random.default_rng(n)
    sure = p * (1 - p) / spread**2 - 1
    models = rng.beta(sure * p, sure * (1 - p), size=(studies, folds))
    different, counts = np.unique(np.sort(rng.binomial(n, models), axis=1), axis=0, return_counts=True)
    right = []
    for correct in different:
        found = metrics.over_repeats(correct / n)
        if np.isnan(found.low):
            found = metrics.over_clips(np.arange(folds * n) < correct.sum())
        right.append(found.low <= p <= found.high)
    return float(np.average(right, weights=counts))


def jackknifed(before: np.ndarray, after: np.ndarray, source: np.ndarray, means: bool) -> np.ndarray:
    """The limits of `metrics.jackknife` of many studies at once, 2 × studies, in logarithms.

    ``means`` for the ratio of the mean norms, else for the geometric mean of the ratios.
    """
    n, m = len(source), source.max() + 1
    member = np.eye(m)[source]
    sizes = member.sum(axis=0)
    if means:
        value = np.log(after.mean(axis=1) / before.mean(axis=1))
        left = [part.sum(axis=1, keepdims=True) - part @ member for part in (after, before)]
        left = np.log(left[0] / left[1])
    else:
        logs = np.log(after / before)
        value = logs.mean(axis=1)
        left = (logs.sum(axis=1, keepdims=True) - logs @ member) / (n - sizes)
    error = np.sqrt((m - 1) * ((left - left.mean(axis=1, keepdims=True)) ** 2).mean(axis=1))
    half = stats.t.ppf(0.975, n**2 / (sizes**2).sum() - 1) * error
    return np.array([value - half, value + half])


def ratio_covers(spreads: tuple[float, float], means: bool, clustered: bool, n: int, studies: int) -> float:
    """Log-normal norms of clips before and after; ``spreads`` are standard deviations of their logarithms."""
    rng = np.random.default_rng(n)
    source = recordings(n) if clustered else np.arange(n)
    hard = 0.5 * latent(rng, n, studies, 1, 1.0, source if clustered else None)[..., 0]
    own = latent(rng, n, studies, 1, 1.0, source if clustered else None)[..., 0]
    other = latent(rng, n, studies, 1, 1.0, source if clustered else None)[..., 0]
    before, after = np.exp(hard + spreads[0] * own), 1.7 * np.exp(hard + spreads[1] * other)
    truth = np.log(1.7) + means * (spreads[1] ** 2 - spreads[0] ** 2) / 2
    low, high = jackknifed(before, after, source, means)
    for study in range(2):  # the same by the library
        panel = pd.DataFrame({"before": before[study], "after": after[study]})
        statistic = ratio_of_mean_norms if means else geometric_mean_of_ratios
        found = metrics.jackknife(panel, statistic, pd.Series(source))
        assert np.log([found.low, found.high]) == pytest.approx([low[study], high[study]])
    return float(np.mean((low <= truth) & (truth <= high)))


def ratio_of_mean_norms(panel: pd.DataFrame) -> float:
    return panel["after"].mean() / panel["before"].mean()


def geometric_mean_of_ratios(panel: pd.DataFrame) -> float:
    return metrics.geometric_mean(panel[["after"]].div(panel["before"], axis=0))


def coverages(n: int, studies: int) -> pd.DataFrame:
    """Columns coverage, differ and least, of every kind of interval with n clips."""
    found = {
        name: (over_clips_covers(case, n, studies), case.differ(n), LEAST) for name, case in CASES.items()
    }
    for (p, spread), folds in itertools.product(MODELS, (3, 5)):
        least = SKEWED if (p, spread) == MODELS[-1] else LEAST
        found[f"mean of {folds} folds, {p} ± {spread}"] = (
            repeats_cover(p, spread, folds, n, studies),
            (1 - p) * n,
            least,
        )
    for spreads, means, clustered in itertools.product(SPREADS, (False, True), (False, True)):
        name = "ratio of means" if means else "geometric mean of ratios"
        least = SKEWED if means and spreads == SPREADS[-1] else LEAST
        name += f", spreads {spreads}" + ", recordings" * clustered
        found[name] = ratio_covers(spreads, means, clustered, n, studies), np.inf, least
    return pd.DataFrame.from_dict(found, orient="index", columns=["coverage", "differ", "least"])


def assert_covered(n: int, studies: int, chance: float) -> None:
    """Coverage is between LEAST and MOST, give or take what so few studies leave to chance."""
    found = coverages(n, studies)
    print(found.to_string(float_format="{:.3f}".format))
    low = found[found["coverage"] < found["least"] - chance]
    assert low.empty, low
    high = found[(found["coverage"] > MOST + chance) & (found["differ"] >= ENOUGH)]
    assert high.empty, high


@pytest.mark.parametrize("n", [12, 20, 80])
def test_intervals_cover(n):
    """The quick form; 400 studies tell 0.95 from 0.92 (three standard errors)."""
    assert_covered(n, 400, chance=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 20, 80])
def test_intervals_cover_as_often_as_they_say(n):
    assert_covered(n, 4000, chance=0)


def covered(draw, truth: float, interval, studies: int) -> float:
    """The share of simulated studies whose interval contains the truth."""
    found = (interval(draw()) for _ in range(studies))
    return float(np.mean([e.low <= truth <= e.high for e in found]))


def _clusters(rng, n, p, size=5):
    """Shares of recordings of ``size`` clips, of which all but a few agree."""

    def draw():
        recording = np.repeat(rng.random(n // size) < p, size)
        odd = rng.random(n // size * size) < 0.1
        return np.where(odd, rng.random(len(odd)) < p, recording)

    return draw


def test_intervals_over_recordings_cover_where_those_over_clips_do_not():
    rng = np.random.default_rng(2)
    draw, source = _clusters(rng, 200, 0.6), np.arange(200) // 5
    by_recording = covered(draw, 0.6, lambda v: metrics.over_clips(v, source), 400)
    by_clip = covered(draw, 0.6, metrics.over_clips, 400)
    assert by_recording >= 0.92
    assert by_clip < 0.8


def test_robust_accuracy_from_rows_is_that_of_attacking_again():
    """The number of chapter 6 from the rows of a climb, and by attacking the model again with Foolbox's own
    attack: the share of all clips that are correct and not misclassified within the budget."""
    foolbox, torch = pytest.importorskip("foolbox"), pytest.importorskip("torch")
    from lib import attacks

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, 3)).eval()
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    x = 0.3 + 0.4 * torch.rand(24, 1, 4, 8)
    with torch.no_grad():
        label = model(x).argmax(1)
    label[:6] = (label[:6] + 1) % 3  # misclassified before any attack
    clips = [f"clip{i}" for i in range(24)]
    ladders = attacks.ladders((4, 8), only=["DeepFool"], seed=0, deepfool_caps=[50])
    rows, _ = attacks.climb(victim, x, label, (label + 1) % 3, clips, ladders, until=1.0)
    least = metrics.needed(metrics.least_norms(rows, success="any"), clips)["DeepFool"]
    again = foolbox.attacks.L2DeepFoolAttack(steps=50)
    attacked = torch.arange(6, 24)
    criterion = foolbox.Misclassification(label[attacked])
    for budget in least[least > 0].quantile([0.25, 0.5, 0.75]) * 1.02:
        _, _, broken = again(victim, x[attacked], criterion, epsilons=[float(budget)])
        by_attack = float((~broken[0]).sum()) / len(clips)
        assert (least > budget).mean() == pytest.approx(by_attack, abs=1 / 24 + 1e-9)
    assert (least > 0).mean() == 18 / 24
