"""What is measured: least norms, fooling rate, robust accuracy, perturbation ratio, and their intervals.

Everything here takes arrays or the rows that chapter 4 writes (one row per clip and attack: ``clip``,
``attack``, ``label``, ``after``, ``fooled``, ``l2``, …) and returns arrays or frames. `lib.analysis` maps
these measures over folds and cells; chapter 6 explains them.

Clips of one recording resemble each other, so an interval over clips takes recordings as its independent
units wherever it is given them (``source``). No interval has width zero: of clips that all agree it is known
that others may differ.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

PAPER_SIZE = (768, 1568)  # bins, frames of a plain representation in the paper
THRESHOLD = 0.9  # the fooling rate that an attack is given budget to pass (section VI)
LEVEL = 0.95  # of every interval
LEAST_ACCURACY = 0.8  # on the clips that are learnt, below which a training is unfinished
LEARNT_ALL = 0.99  # on the same, from which it is finished, however its loss falls
FALLING = 0.05  # an epoch, the fall of the training loss above which a training is unfinished


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


# ----------------------------------------------------------------------------------------- norms of a clip


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
        ``any``, any wrong class: of any example that the attack met, where the rows have ``l2_any``, else of
        the one that it returned.
    """
    held = rows["after"] != rows["label"] if success == "any" else rows[success].astype(bool)
    found = rows[norm].astype(float).where(held, np.inf)
    if success == "any" and "l2_any" in rows:
        found = rows["l2_any"].astype(float).fillna(found)  # older rows do not have it
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


def needed(norms: pd.DataFrame, evaluated: Sequence[str]) -> pd.DataFrame:
    """What it takes to have each evaluated clip misclassified, clip × attack: 0 where it is already.

    The share of clips above b is the robust accuracy RA(b), and RA(0) is the clean accuracy.

    Parameters
    ----------
    norms : least norms of any misclassified example, of the clips that were attacked, which are those that
        the model classifies correctly.
    evaluated : all clips, attacked or not.

    Raises
    ------
    ValueError : if a clip was attacked that is not among the evaluated ones.
    """
    other = norms.index.difference(list(evaluated))
    if len(other):
        raise ValueError(f"{len(other)} attacked clips, such as {other[0]!r}, are not among those evaluated")
    return norms.fillna(np.inf).reindex(list(evaluated), fill_value=0.0)


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


# ------------------------------------------------------------------------------------ perturbation ratios


def paired_ratios(original: pd.Series, robust: pd.Series) -> tuple[pd.Series, int]:
    """d_robust / d_original of the clips that an attack fooled in both models, and how many it did not.

    Parameters
    ----------
    original, robust : least norms by clip; a clip that one of them was not attacked on takes no part.
    """
    both = pd.concat([original, robust], axis=1).dropna()
    fooled = np.isfinite(both).all(axis=1)
    both = both[fooled]
    return both.iloc[:, 1] / both.iloc[:, 0], int((~fooled).sum())


def geometric_mean(ratios: pd.DataFrame) -> float:
    """exp of the mean logarithm; of several columns, of their geometric means."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(ratios).mean().mean()))


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


def ratio_of_means(
    original: pd.DataFrame, robust: pd.DataFrame, *, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Eq. 15 in the paper's form, ε_r = |ε_a / ε_o| of mean norms, by attack.

    A clip on which an attack failed needs more than was tried: it counts at its `censoring_norms`.

    Parameters
    ----------
    original, robust : `least_norms` of the two victims, clip × attack; their clips may differ.
    threshold : the fooling rate that both victims must pass, as in Table III.

    Returns
    -------
    One row per attack: ``original``, ``robust`` (mean norms), ``ratio``, and ``comparable``, that both pass
    the threshold; ``bound``: "=" nothing is censored, "≥" only clips of the robust victim are, so that the
    ratio is at least this, "≤" only clips of the original, "?" both.
    """
    attacks = [attack for attack in original if attack in robust]
    original, robust = original[attacks], robust[attacks]
    at = censoring_norms(original, robust, threshold)
    mean_o, mean_a = censored(original, at[0]).mean(), censored(robust, at[1]).mean()
    rate_o, rate_a = ever(original).mean(), ever(robust).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return pd.DataFrame(
            {
                "original": mean_o,
                "robust": mean_a,
                "ratio": mean_a / mean_o,
                "bound": [bound(o != 1, a != 1) for o, a in zip(rate_o, rate_a, strict=True)],
                "comparable": (rate_o > threshold) & (rate_a > threshold),
            }
        ).rename_axis("attack")


def bound(below: bool, above: bool) -> str:
    """The mark of a ratio whose denominator (``below``) or numerator (``above``) may be larger than known."""
    return {(False, False): "=", (False, True): "≥", (True, False): "≤", (True, True): "?"}[below, above]


# --------------------------------------------------------------------------------------------- trainings


def unfinished(history: pd.DataFrame) -> str:
    """Why a training is unfinished, by its rows of epochs, or "" where it is not (design, section 5).

    `lib.training` decides it, in the column ``unfinished``; older rows are judged here.

    Raises
    ------
    ValueError : if the history has no epoch.
    """
    if history.empty:
        raise ValueError("a training without an epoch has no end to judge")
    accuracy = float(history["train_accuracy"].iloc[-1])
    loss = history["train_loss"].to_numpy(dtype=float)[-4:]
    fall = 1 - (loss[-1] / loss[0]) ** (1 / (len(loss) - 1)) if len(loss) > 1 and loss[0] > 0 else 0.0
    open_ = accuracy < LEAST_ACCURACY or (accuracy < LEARNT_ALL and fall > FALLING)
    if "unfinished" in history and pd.notna(history["unfinished"].iloc[-1]):
        open_ = bool(history["unfinished"].iloc[-1])
    if not open_:
        return ""
    why = f"training accuracy {accuracy:.0%} in its last epoch"
    return why if accuracy < LEAST_ACCURACY else f"{why}, its loss still falling by {fall:.0%} an epoch"


# --------------------------------------------------------------------------------------------- intervals


def over_clips(
    values, source: Sequence | None = None, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """Mean of a number per clip with its 95 % interval, recordings being the independent units.

    A plain share has Wilson's interval with Student's quantile: with the normal one it covers less than 93 %
    of shares of 5 % in 20 clips. Any other mean of numbers from 0 on (an average over attacks that see the
    same clips, clips of shared recordings) has it with the dispersion φ of the numbers in place of a coin's,
    n / φ clips in place of n. φ is estimated with half a unit more that is as dispersed as can be, so that
    units that all agree do not look like certainty, and recordings of unequal size count as fewer equal ones.
    A paired difference is a mean gain less a mean loss: their distances to their limits are added as squares,
    as in Newcombe's interval.

    Parameters
    ----------
    values : one number per clip, NaN where it was not measured.
    source : the recording of each clip; each clip is one of its own where it is not given.
    bounds : between which every number lies; (−1, 1) for differences of two shares, and alike on both sides
        if the lower one is negative.

    Raises
    ------
    ValueError : if a value lies outside of the bounds.
    """
    values = np.asarray(values, dtype=float)
    known = ~np.isnan(values)
    units = pd.factorize((np.arange(len(values)) if source is None else np.asarray(source))[known])[0]
    values = values[known]
    low, high = bounds
    if ((values < low) | (values > high)).any():
        raise ValueError(f"{values[(values < low) | (values > high)][0]:g} lies outside {low:g} to {high:g}")
    n, m = len(values), len(np.unique(units))
    over = f"{n} clips" + (f" of {m} recordings" if m < n else "")
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, over)
    plain = m == n and low == 0 and np.isin(values, (0, high)).all()
    if m < 2 and not plain:
        return Estimate(float(values.mean()), np.nan, np.nan, over)
    if low < 0:
        ends = np.clip(high * _difference(values / high, units), low, high)
    else:
        ends = low + (high - low) * _wilson((values - low) / (high - low), units, n - 1)
    return Estimate(float(values.mean()), *map(float, ends), over)


@functools.cache
def _student(df: float) -> float:
    """The quantile that an interval of `LEVEL` takes; the normal one for infinitely many degrees."""
    return float(stats.t.ppf((1 + LEVEL) / 2, max(df, 1)))


def _equal(units: np.ndarray) -> float:
    """How many recordings of equal size mean as much as these: n² / Σ size²."""
    return len(units) ** 2 / float((np.bincount(units) ** 2).sum())


def _wilson(share: np.ndarray, units: np.ndarray, df: float) -> np.ndarray:
    """Limits of a mean of shares; ``df`` are Student's degrees of freedom of a plain share."""
    p, n, m = share.mean(), len(share), _equal(units)
    if m < n or not np.isin(share, (0, 1)).all():
        phi = (m * _dispersion(share, units) + 0.5 * n / m) / (m + 0.5)
        n, df = n / phi, m  # m - 1, and one for the half unit
    q = _student(df)
    middle, width = p + q**2 / (2 * n), q * np.sqrt(p * (1 - p) / n + (q / (2 * n)) ** 2)
    return np.clip(np.array([middle - width, middle + width]) / (1 + q**2 / n), 0, 1)


def _dispersion(share: np.ndarray, units: np.ndarray) -> float:
    """The variance of a mean over that of as many tosses of a coin with this mean; n a unit if all agree."""
    p, n, m = share.mean(), len(share), _equal(units)
    if p in (0, 1):
        return n / m
    sums = np.bincount(units, share - p)
    return m / (m - 1) * (sums**2).sum() / n / (p * (1 - p))


def _difference(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Limits of a mean gain less a mean loss, whose correlation r counts where it widens them."""
    gain, loss = np.maximum(values, 0), np.maximum(-values, 0)
    gain_low, gain_high = gain.mean() - _wilson(gain, units, np.inf)
    loss_low, loss_high = loss.mean() - _wilson(loss, units, np.inf)
    x, y = (np.bincount(units, part - part.mean()) for part in (gain, loss))
    spread = np.sqrt((x @ x) * (y @ y))
    r = min(0.0, x @ y / spread) if spread > 0 else 0.0
    below, above = (
        np.sqrt(a**2 + b**2 + 2 * r * a * b) for a, b in ((gain_low, loss_high), (gain_high, loss_low))
    )
    return values.mean() + np.array([-below, above])


def over_repeats(values) -> Estimate:
    """Mean over folds and seeds with Student's interval; its half-width is t · s / √n.

    Folds share most of their training clips, so the interval is, if anything, too narrow. Of repeats that all
    agree no interval is known.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    n, mean = len(values), float(values.mean()) if len(values) else np.nan
    over = f"{n} repeat" + ("s" if n != 1 else "")
    spread = values.std(ddof=1) if n > 1 else 0.0
    if not spread > 1e-9 * abs(mean):  # equal values differ from their mean by a rounding
        return Estimate(mean, np.nan, np.nan, over)
    half = float(_student(n - 1) * spread / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, over)


def jackknife(
    panel: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], source: pd.Series | None = None
) -> Estimate:
    """A positive number made of a panel of clips, and Student's interval of its logarithm.

    Each recording is left out once. The geometric mean of ratios has by this the interval of a mean of
    logarithms; recordings of unequal size count as fewer equal ones. Unknown where fewer than three
    recordings are left, or where nothing changes.

    Parameters
    ----------
    panel : one row per clip; a row that is all NaN takes no part.
    statistic : gives the number of a panel, above 0.
    source : the recording of each clip, by clip.
    """
    panel = panel.dropna(how="all")
    units = panel.index if source is None else source.reindex(panel.index)
    units = pd.factorize(np.asarray(units), use_na_sentinel=False)[0]
    m, n = units.max(initial=-1) + 1, len(panel)
    over = f"{n} clips" + (f" of {m} recordings" if m < n else "")
    value = statistic(panel) if n else np.nan
    unknown = Estimate(value, np.nan, np.nan, over)
    if m < 3 or not (np.isfinite(value) and value > 0):
        return unknown
    left = np.log([statistic(panel[units != unit]) for unit in range(m)])
    pseudo = m * np.log(value) - (m - 1) * left
    if not np.isfinite(pseudo).all() or np.ptp(pseudo) < 1e-9:
        return unknown
    half = _student(_equal(units) - 1) * pseudo.std(ddof=1) / np.sqrt(m)
    return Estimate(value, float(value * np.exp(-half)), float(value * np.exp(half)), over)
