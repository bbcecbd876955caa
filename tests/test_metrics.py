"""Measures against answers that are known in closed form."""

import numpy as np
import pandas as pd
import pytest

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
    np.testing.assert_allclose(metrics.shortfall(metrics.least_norms(rows), 3.0).mean(), integral, atol=1e-3)


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


def test_a_scaled_budget_is_the_same_change_per_value():
    small = metrics.scaled_budget(3.0, (64, 128))
    assert metrics.scaled_budget(3.0, metrics.PAPER_SIZE) == 3.0
    assert small / np.sqrt(64 * 128) == pytest.approx(3.0 / np.sqrt(768 * 1568))
    with pytest.raises(ValueError, match="0 × 128"):
        metrics.scaled_budget(3.0, (0, 128))


def test_ratio_of_doubled_norms_is_two_by_every_reading():
    original = metrics.least_norms(rows_of({"A": [1.0, 2.0, 3.0], "B": [0.1, 0.2, 0.6]}))
    ratio = metrics.perturbation_ratio(original, 2 * original)
    for reading in ("ratio", "median"):
        assert ratio[reading].tolist() == pytest.approx([2, 2])
    assert (ratio["bound"] == "=").all()
    assert ratio["comparable"].all()


def test_ratio_counts_censored_clips_and_says_so():
    original = metrics.least_norms(rows_of({"A": [1.0] * 20}))
    robust = metrics.least_norms(rows_of({"A": [2.0] * 18 + [4.0, np.inf]}))
    ratio = metrics.perturbation_ratio(original, robust).loc["A"]
    assert ratio["ratio"] == pytest.approx((18 * 2 + 4 + 4) / 20)  # the failed clip at 4, the largest known
    assert ratio["bound"] == "≥"
    assert ratio["comparable"]
    assert ratio["median"] == 2
    assert ratio["restricted"] == pytest.approx((18 * 2 + 4 + 4) / 20)  # rank 18.1 of 20 is the norm 4


def test_restricted_ratio_does_not_hang_on_the_hardest_clip():
    original = metrics.least_norms(rows_of({"A": [1.0] * 20}))
    robust = metrics.least_norms(rows_of({"A": [2.0] * 19 + [1000.0]}))
    ratio = metrics.perturbation_ratio(original, robust).loc["A"]
    assert ratio["ratio"] > 50
    assert ratio["restricted"] == 2


def test_failed_clips_count_at_the_most_that_they_are_known_to_need():
    """A ladder that ended was tried to its end; one that was left counts what it had reached."""
    original = metrics.least_norms(rows_of({"A": [1.0] * 19 + [np.inf], "B": [5.0] * 20}))
    robust = metrics.least_norms(rows_of({"A": [2.0] * 10 + [np.inf] * 10, "B": [np.inf] * 20}))
    left, ended = metrics.censoring_norms(original, robust)
    assert left.tolist() == [1, 5]  # A passed 0.9 on the original, so its failed clip is known to need 1
    assert ended.tolist() == [2, 5]
    ratio = metrics.perturbation_ratio(original, robust)
    assert ratio["ratio"].tolist() == [2, 1]
    assert ratio["bound"].tolist() == ["?", "≥"]
    assert not ratio["comparable"].any()


def test_ratio_without_any_success_is_not_told():
    nothing = metrics.least_norms(rows_of({"A": [np.inf] * 3}))
    ratio = metrics.perturbation_ratio(nothing, nothing).loc["A"]
    assert np.isnan(ratio["ratio"])
    assert ratio["bound"] == "?"
    assert not ratio["comparable"]


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        found = metrics.over_clips(draw.normal(size=40), resamples=300, seed=seed)
        inside += found.low <= 0 <= found.high
    assert 0.89 <= inside / 200 <= 0.99


def test_bootstrap_keeps_a_clip_together_and_leaves_out_what_was_not_measured():
    values = np.array([[1.0, 2.0], [3.0, 6.0], [np.nan, np.nan], [5.0, 10.0]])
    means = metrics.resampled_means(values, resamples=100)
    known = ~np.isnan(means[:, 0])
    np.testing.assert_allclose(means[known, 1], 2 * means[known, 0])
    np.testing.assert_array_equal(means, metrics.resampled_means(values, resamples=100))


@pytest.mark.parametrize(("values", "over"), [([], "0 clips"), ([0.5], "1 clips")])
def test_few_clips_have_no_spread(values, over):
    found = metrics.over_clips(values)
    assert found.over == over
    assert np.isnan(found.low) if not values else found.low == found.high == 0.5


def test_interval_over_repeats_is_students():
    found = metrics.over_repeats([0.7, 0.8, 0.9])
    assert found.value == pytest.approx(0.8)
    assert found.high - found.value == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-5)
    assert np.isnan(metrics.over_repeats([0.7]).low)


def test_a_paired_difference_is_known_better_than_its_parts():
    """Two victims that are wrong on the same clips differ by nothing, with no spread."""
    right = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    panel = pd.DataFrame({"original": right, "robust": right})
    drop = metrics.estimate([panel], lambda means: means["original"] - means["robust"])
    assert tuple(drop) == (0, 0, 0, "50 clips")
    alone = metrics.estimate([panel], lambda means: means["original"])
    assert alone.low < alone.value < alone.high


def test_estimate_is_over_repeats_where_there_are_two():
    panels = [pd.DataFrame({"a": [0.0, 1.0]}), pd.DataFrame({"a": [1.0, 1.0]})]
    found = metrics.estimate(panels, lambda means: means["a"])
    assert found == metrics.over_repeats([0.5, 1.0])
    assert metrics.estimate([], lambda means: means["a"]).over == "nothing"


def test_estimate_of_a_panel_without_clips_cannot_be_told():
    found = metrics.estimate([pd.DataFrame({"a": [np.nan]})], lambda means: means["a"])
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.over == "0 clips"
