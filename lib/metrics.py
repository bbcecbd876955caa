"""What is measured: accuracy, fooling rate, its area, least norms, the perturbation ratio, intervals.

Everything here takes arrays or the rows that chapter 4 writes (one row per clip and attack: ``clip``,
``attack``, ``label``, ``after``, ``fooled``, ``l2``, …) and returns arrays or frames. `lib.analysis` maps
these measures over folds and cells; chapter 6 explains them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

PAPER_SIZE = (768, 1568)  # bins, frames of a plain representation in the paper
THRESHOLD = 0.9  # the fooling rate that an attack is given budget to pass (section VI)


class Estimate(NamedTuple):
    """A number with its 95 % interval and what the interval is over; NaN where it is unknown."""

    value: float
    low: float
    high: float
    over: str


def scaled_budget(budget: float, size: tuple[int, int]) -> float:
    """The ℓ2 budget that means, on an image of ``size``, the same change per value as the paper's.

    ‖δ‖₂ = RMS · √(bins · frames), so a budget scales with √(bins · frames / (768 · 1568)).

    Parameters
    ----------
    budget : ‖δ‖₂ at the paper's size.
    size : bins and frames of the plain representation; appended rows do not count, because the paper
        gives appended images the budget of plain ones (reading 19).
    """
    bins, frames = size
    if bins < 1 or frames < 1:
        raise ValueError(f"an image has at least one bin and one frame, not {bins} × {frames}")
    return float(budget * np.sqrt(bins * frames / (PAPER_SIZE[0] * PAPER_SIZE[1])))


def least_norms(
    rows: pd.DataFrame, *, by: Sequence[str] = ("attack",), norm: str = "l2", success: str = "fooled"
) -> pd.DataFrame:
    """Each clip's least fooling norm, clip × ``by``: ∞ where the attack failed, NaN where it was not run.

    Parameters
    ----------
    rows : one row per clip and attack; several rows of a pair (rungs of a ladder) give the least.
    by : the columns that tell attacks, or victims and attacks, apart; the last one is the attack.
    norm : which column measures the perturbation.
    success : which column says that the attack succeeded: ``fooled``, the attack's own criterion, or
        ``any``, that the victim gives any wrong class.
    """
    held = rows["after"] != rows["label"] if success == "any" else rows[success].astype(bool)
    found = rows[norm].astype(float).where(held, np.inf)
    return found.groupby([rows["clip"], *(rows[name] for name in by)]).min().unstack(list(by))


def worst_case(norms: pd.DataFrame) -> pd.Series:
    """The least norm of any attack, clip by clip: what an adversary who tries all of them needs."""
    return norms.min(axis=1)


def within(norms: pd.DataFrame, limit: float | Sequence[float]) -> pd.DataFrame:
    """1 where a clip was fooled by at most ``limit`` (one for all columns, or one each), else 0 or NaN."""
    return (norms <= limit).astype(float).where(norms.notna())


def ever(norms: pd.DataFrame) -> pd.DataFrame:
    """1 where a clip was fooled by whatever perturbation, 0 where it was not, NaN where nothing was run."""
    return np.isfinite(norms).astype(float).where(norms.notna())


def shortfall(norms: pd.DataFrame, limit: float | Sequence[float]) -> pd.DataFrame:
    """max(0, 1 − d/ε) of every least norm d: a clip's share of the area under the fooling curve on [0, ε].

    The fooling rate at b is the share of d ≤ b, and ∫₀^ε 1[d ≤ b] db / ε = max(0, 1 − d/ε); d = ∞ where
    the attack failed. Mean 0: nobody is fooled within ε; mean 1: everybody, by a perturbation of nothing.
    """
    if not np.min(limit) > 0:
        raise ValueError(f"a budget is positive, not {limit}")
    return (1 - norms / limit).clip(lower=0)


def rate_within(norms: pd.DataFrame, budgets: Sequence[float]) -> pd.DataFrame:
    """Fooling rate of each column of ``norms`` within each budget, column × budget, in [0, 1].

    NaN for an attack that was run on no clip.
    """
    rates = {}
    for attack in norms:
        found = np.sort(norms[attack].dropna())
        with np.errstate(invalid="ignore"):
            rates[attack] = np.searchsorted(found, budgets, side="right") / np.float64(len(found))
    return pd.DataFrame.from_dict(rates, orient="index", columns=list(budgets), dtype=float)


def stairs(norms: pd.DataFrame) -> pd.DataFrame:
    """The fooling curve of each column of ``norms`` as the corners of its staircase.

    Returns
    -------
    Columns attack, norm and rate: the fooling rate from this norm to the next one. An attack that fooled
    nobody has one row, of norm NaN and rate 0.
    """
    found = []
    for attack in norms:
        known = np.sort(norms[attack].dropna())
        reached = known[np.isfinite(known)]
        if len(known) and not len(reached):
            found.append((attack, np.nan, 0.0))
        found += [(attack, norm, (i + 1) / len(known)) for i, norm in enumerate(reached)]
    return pd.DataFrame(found, columns=["attack", "norm", "rate"])


def censored(norms: pd.DataFrame, at: pd.Series) -> pd.DataFrame:
    """Least norms with every one above ``at``, failed attacks with them, counted as ``at``, by attack."""
    return norms.clip(upper=at, axis=1)


def censoring_norms(
    original: pd.DataFrame, robust: pd.DataFrame, threshold: float = THRESHOLD
) -> tuple[pd.Series, pd.Series]:
    """The norms at which the failed clips of the two victims are counted, by attack.

    An attack climbs its ladder until its fooling rate passes the threshold or the ladder ends. In the first
    case a failed clip is known to need more than the clips that were fooled; in the second, more than any
    clip of either victim. So both are lower bounds of what a failed clip needs.
    """
    highest = pd.concat([original, robust]).replace(np.inf, np.nan).max()
    found = []
    for norms in (original, robust):
        passed = ever(norms).mean() > threshold
        found.append(norms.replace(np.inf, np.nan).max().where(passed, highest))
    return found[0], found[1]


def perturbation_ratio(
    original: pd.DataFrame, robust: pd.DataFrame, *, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Eq. 15, ε_r = |ε_a / ε_o|: how much larger a perturbation a robust victim needs, by attack.

    A clip on which an attack failed is censored: it needs more than was tried. It counts at its
    `censoring_norms` and is never dropped (design, reading 18).

    Parameters
    ----------
    original, robust : `least_norms` of the two victims, clip × attack; their clips may differ.
    threshold : the fooling rate that both victims must pass, as in Table III.

    Returns
    -------
    A row per attack and columns

    - ``original``, ``robust``: the two mean norms, and ``ratio``, the ratio of them;
    - ``bound``: "=" nothing is censored, "≥" only clips of the robust victim are, so that the ratio is at
      least this, "≤" only clips of the original, "?" both;
    - ``median``: the ratio of medians; ∞ or NaN where half the clips failed;
    - ``restricted``: the ratio of means of min(d, τ), τ the norm at which the fooling rate of both victims
      passes the threshold, so that the few hardest clips do not carry it;
    - ``rate_original``, ``rate_robust`` and ``comparable``, that both pass the threshold.
    """
    attacks = [attack for attack in original if attack in robust]
    original, robust = original[attacks], robust[attacks]
    at = censoring_norms(original, robust, threshold)
    mean_o, mean_a = censored(original, at[0]).mean(), censored(robust, at[1]).mean()
    passing = [norms.quantile(threshold, interpolation="higher") for norms in (original, robust)]
    tau = np.minimum(np.maximum(*passing), np.maximum(*at))
    rate_o, rate_a = ever(original).mean(), ever(robust).mean()
    bounds = {(False, False): "=", (False, True): "≥", (True, False): "≤", (True, True): "?"}
    with np.errstate(divide="ignore", invalid="ignore"):
        return pd.DataFrame(
            {
                "original": mean_o,
                "robust": mean_a,
                "ratio": mean_a / mean_o,
                "bound": [bounds[o != 1, a != 1] for o, a in zip(rate_o, rate_a, strict=True)],
                "median": robust.median() / original.median(),
                "restricted": censored(robust, tau).mean() / censored(original, tau).mean(),
                "rate_original": rate_o,
                "rate_robust": rate_a,
                "comparable": (rate_o > threshold) & (rate_a > threshold),
            }
        ).rename_axis("attack")


def resampled_means(values, *, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Column means of clips drawn with replacement, shape (resamples, columns).

    Clips are rows and drawn whole, so what is measured on one clip (several attacks, two victims) stays
    together. NaN means not measured on this clip and leaves both numerator and denominator.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim == 1:
        values = values[:, None]
    known = ~np.isnan(values)
    n = len(values)
    if n == 0:
        return np.full((resamples, values.shape[1]), np.nan)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (counts @ np.where(known, values, 0)) / (counts @ known)


def percentile_interval(draws, level: float = 0.95) -> tuple[float, float]:
    """The middle ``level`` of the draws; NaN, NaN where there are none."""
    draws = np.asarray(draws, dtype=float)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")  # ∞ stays ∞
    return float(low), float(high)


def over_clips(values, *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean of a number per clip with its interval bootstrapped over clips."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    value = float(values.mean()) if len(values) else float("nan")
    low, high = percentile_interval(resampled_means(values, resamples=resamples, seed=seed))
    return Estimate(value, low, high, f"{len(values)} clips")


def over_repeats(values) -> Estimate:
    """Mean over folds and seeds with Student's interval; its half-width is t · s / √n.

    Folds share most of their training clips, so the interval is, if anything, too narrow.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), "0 repeats")
    if n == 1:
        return Estimate(float(values[0]), float("nan"), float("nan"), "1 repeat")
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    return Estimate(
        float(values.mean()), float(values.mean()) - half, float(values.mean()) + half, f"{n} repeats"
    )


def estimate(
    panels: Sequence[pd.DataFrame],
    statistic: Callable[[pd.DataFrame], pd.Series],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A number made of means over clips, and its interval: over repeats where there are two, else over clips.

    Parameters
    ----------
    panels : one frame a repeat (a fold, or a fold with another seed); a row a clip, a column for each thing
        measured on it, NaN where it was not. Clips are drawn whole, so a difference between columns is
        paired.
    statistic : takes a frame of column means, a row a draw, and gives a number a row.
    """
    if not panels:
        return Estimate(float("nan"), float("nan"), float("nan"), "nothing")
    values = [float(statistic(panel.mean().to_frame().T).iloc[0]) for panel in panels]
    if len(panels) > 1:
        return over_repeats(values)
    (panel,) = panels
    panel = panel.dropna(how="all")
    draws = pd.DataFrame(resampled_means(panel, resamples=resamples, seed=seed), columns=panel.columns)
    return Estimate(values[0], *percentile_interval(statistic(draws)), f"{len(panel)} clips")
