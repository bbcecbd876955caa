"""Tables I, II and III and those that the paper lacks, computed from gathered rows, with intervals.

Each function takes `results.Results` and gives a tidy frame: a row a number, with ``value``, ``low``,
``high`` and ``over`` (what the 95 % interval is over), and where the data set is the paper's ``paper`` and
``difference``. `lib.analysis.report` prints them. Chapter 6 explains the measures.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib import metrics, names
from lib.analysis import published
from lib.analysis.results import POINT, Results
from lib.metrics import Estimate

ROBUST = "adversarial"  # the paper's defence
PAIR = ["representation", "model"]
Panels = Mapping[str, pd.DataFrame]  # by fold: a row a clip, a column a victim or a victim and attack


# ------------------------------------------------------------------------------------------------ panels


def right(results: Results) -> Panels:
    """1 where a tested clip is named rightly, else 0: clip × (representation, model, training), by fold."""
    named = (results.clean["predicted"] == results.clean["label"]).astype(float)
    return _panels(results.clean, named, [*PAIR, "training"])


def norms(results: Results, success: str = "fooled") -> Panels:
    """Least fooling norms: clip × (representation, model, training, attack), by fold; ∞ where it failed.

    Only the six attacks of the paper. ``success`` as in `metrics.least_norms`.
    """
    rows = results.attacks
    if rows.empty:
        return {}
    rows = rows[rows["attack"].isin(names.ATTACKS)]
    held = rows["after"] != rows["label"] if success == "any" else rows["fooled"].astype(bool)
    return _panels(rows, rows["l2"].astype(float).where(held, np.inf), [*PAIR, "training", "attack"])


def _panels(rows: pd.DataFrame, values: pd.Series, columns: Sequence[str]) -> Panels:
    keys = ["fold", "clip", *columns]
    wide = values.groupby([rows[key] for key in keys], sort=True).min().unstack(list(columns))
    return {
        fold: wide.loc[fold].dropna(axis=1, how="all") for fold in wide.index.get_level_values(0).unique()
    }


def within(found: Panels, budgets: Mapping[str, float]) -> Panels:
    """1 where an attack fooled a clip within the budget of its representation, 0 where it did not."""
    return {
        fold: (panel <= _of(panel, budgets)).astype(float).where(panel.notna())
        for fold, panel in found.items()
    }


def area(found: Panels, budgets: Mapping[str, float]) -> Panels:
    """Each clip's share of the area under the fooling curve on [0, ε]: max(0, 1 − d/ε)."""
    return {fold: (1 - panel / _of(panel, budgets)).clip(lower=0) for fold, panel in found.items()}


def succeeded(found: Panels) -> Panels:
    """1 where an attack fooled a clip by whatever perturbation, 0 where it did not."""
    return {fold: np.isfinite(panel).astype(float).where(panel.notna()) for fold, panel in found.items()}


def worst(found: Panels) -> Panels:
    """The least norm of any attack: clip × (representation, model, training, "worst case")."""
    least = {}
    for fold, panel in found.items():
        one = panel.T.groupby(level=[0, 1, 2], sort=False).min().T
        one.columns = pd.MultiIndex.from_tuples([(*victim, names.WORST) for victim in one.columns])
        least[fold] = one
    return least


def _of(panel: pd.DataFrame, budgets: Mapping[str, float]) -> np.ndarray:
    return np.array([budgets[column[0]] for column in panel.columns])


def restrict(found: Panels, victims: Iterable[tuple[str, str, str]]) -> list[pd.DataFrame]:
    """The panels of those repeats that hold all the victims, with only their columns."""
    victims = list(victims)
    kept = []
    for panel in found.values():
        have = {tuple(column[:3]) for column in panel.columns}
        if have.issuperset(victims):
            kept.append(panel[[column for column in panel.columns if tuple(column[:3]) in set(victims)]])
    return kept


def over_attacks(means: pd.DataFrame, victim: tuple[str, str, str]) -> pd.Series:
    """The mean over a victim's attacks of a frame of means, a number a row."""
    return means[[column for column in means.columns if tuple(column[:3]) == victim]].mean(axis=1)


# ------------------------------------------------------------------------------------------ Tables I to III


def victims(results: Results, training: str) -> list[tuple[str, str, str]]:
    """The victims of a training that were tested in some fold, in the paper's order."""
    pairs = set(
        results.clean.loc[results.clean["training"] == training, PAIR].itertuples(index=False, name=None)
    )
    return [
        (representation, model, training)
        for representation in names.in_order(pair[0] for pair in sorted(pairs))
        for model in names.in_order(pair[1] for pair in sorted(pairs))
        if (representation, model) in pairs
    ]


def recognition(results: Results, robust: str = ROBUST) -> pd.DataFrame:
    """Table I: accuracy of the original models [%], and the drop after adversarial training [points].

    The drop is paired: both victims are tested on the same clips.
    """
    found, rows = right(results), []
    for original in victims(results, "standard"):
        panels = restrict(found, [original])
        measured = metrics.estimate(panels, lambda m, o=original: 100 * m[o])
        rows.append(_row(results, original, "accuracy_percent", measured))
        defended = (*original[:2], robust)
        panels = restrict(found, [original, defended])
        if panels:
            measured = metrics.estimate(panels, lambda m, o=original, d=defended: 100 * (m[o] - m[d]))
            rows.append(_row(results, original, "accuracy_drop_percent", measured))
    return _tidy(rows)


def fooling(results: Results, budgets: Mapping[str, float], robust: str = ROBUST) -> pd.DataFrame:
    """Table II with its control: fooling within the budget [%], averaged over attacks, by victim.

    Measures: ``fooling_auc_percent`` (the paper's column as design reading 14 takes it, the fooling rate
    within ε), ``area_percent`` (under the fooling curve up to ε), ``any_class_percent`` (success is any wrong
    class), ``worst_percent`` (clips that some attack fools within ε), for both trainings, and
    ``gain_percent``, the fooling rate of the original less that of the robust model.
    """
    found, any_class = norms(results), norms(results, "any")
    panels = {
        "fooling_auc_percent": within(found, budgets),
        "area_percent": area(found, budgets),
        "any_class_percent": within(any_class, budgets),
        "worst_percent": within(worst(found), budgets),
    }
    rows = []
    for training in ("standard", robust):
        for victim in victims(results, training):
            for measure, panel in panels.items():
                chosen = restrict(panel, [victim])
                if chosen:
                    measured = metrics.estimate(chosen, lambda m, v=victim: 100 * over_attacks(m, v))
                    rows.append(_row(results, victim, measure, measured))
    for original in victims(results, "standard"):
        defended = (*original[:2], robust)
        chosen = restrict(panels["fooling_auc_percent"], [original, defended])
        if chosen:
            measured = metrics.estimate(
                chosen,
                lambda m, o=original, d=defended: 100 * (over_attacks(m, o) - over_attacks(m, d)),
            )
            rows.append(_row(results, defended, "gain_percent", measured))
    return _tidy(rows)


def ratios(results: Results, robust: str = ROBUST) -> pd.DataFrame:
    """Table III: ε_r of every pair, Eq. 15, and of every attack on it.

    A row with ``attack`` "all" has the ratio of the norms averaged over attacks and, beside it,
    ``geometric``, the geometric mean of the attacks' ratios. ``bound`` says on which side clips are
    censored, ``comparable`` how many attacks pass the fooling rate of 0.9 on both victims, ``attacks`` how
    many there are.
    """
    found, rows = norms(results), []
    for original in victims(results, "standard"):
        defended = (*original[:2], robust)
        chosen = restrict(found, [original, defended])
        if not chosen:
            continue
        panels, each = zip(*(censor(panel, original, defended) for panel in chosen), strict=True)
        each = pd.concat(each)
        for attack in names.in_order(each.index):
            measured = metrics.estimate(
                panels,
                lambda m, a=attack, o=original, d=defended: _column(m, (*d, a)) / _column(m, (*o, a)),
            )
            one = each.loc[[attack]]
            rows.append(
                _row(results, defended, "epsilon_ratio", measured, attack=attack)
                | {"bound": _bound(one["bound"]), "comparable": int(one["comparable"].all()), "attacks": 1}
                | {reading: one[reading].mean() for reading in ("median", "restricted")}
            )
        measured = metrics.estimate(
            panels, lambda m, o=original, d=defended: over_attacks(m, d) / over_attacks(m, o)
        )
        with np.errstate(divide="ignore"):
            geometric = np.exp(np.log(each["ratio"]).mean())
        rows.append(
            _row(results, defended, "epsilon_ratio", measured, attack="all")
            | {"bound": _bound(each["bound"]), "geometric": geometric}
            | {"comparable": int(each.groupby(level=0)["comparable"].all().sum())}
            | {"attacks": each.index.nunique()}
            | {reading: _finite(each[reading]).median() for reading in ("median", "restricted")}
        )
    more = ["attack", "bound", "comparable", "attacks", "median", "restricted", "geometric"]
    return _tidy(rows, more)


def censor(panel, original, defended) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The norms of two victims with failed clips counted as censored, and their ratios by attack."""
    parts = [
        pd.DataFrame({column[-1]: panel[column] for column in panel if column[:-1] == victim})
        for victim in (original, defended)
    ]
    shared = [attack for attack in parts[0] if attack in parts[1]]
    before, after = (part[shared] for part in parts)
    at = metrics.censoring_norms(before, after)
    cut = {original: metrics.censored(before, at[0]), defended: metrics.censored(after, at[1])}
    wide = pd.concat(
        {(*victim, attack): frame[attack] for victim, frame in cut.items() for attack in shared}, axis=1
    )
    return wide, metrics.perturbation_ratio(before, after)


def _column(means: pd.DataFrame, column: tuple) -> pd.Series:
    return means[column] if column in means.columns else pd.Series(np.nan, index=means.index)


def _bound(bounds: Iterable[str]) -> str:
    found = set(bounds) - {"="}
    return "=" if not found else found.pop() if len(found) == 1 else "?"


def _finite(values: pd.Series) -> pd.Series:
    return values.replace([np.inf, -np.inf], np.nan)


def _row(results: Results, victim, measure: str, measured: Estimate, **more) -> dict:
    representation, model, training = victim
    row = {"representation": representation, "model": model, "training": training, **more, "measure": measure}
    row |= measured._asdict()
    reported = published.table(measure, results.dataset) if measure in published.MEASURES else pd.DataFrame()
    of_paper = training == ("standard" if measure.startswith("accuracy") else ROBUST)
    known = representation in reported.index and model in reported.columns
    if of_paper and more.get("attack", "all") == "all" and known:
        row["paper"] = reported.loc[representation, model]
        row["difference"] = measured.value - row["paper"]
    return row


def _tidy(rows: list[dict], more: Sequence[str] = ()) -> pd.DataFrame:
    """The rows as a frame that has its columns where there are no rows, too."""
    first = [*PAIR, "training", "measure", "value", "low", "high", "over", *more]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=first)
    for column in ("paper", "difference"):
        if column not in frame:
            frame[column] = np.nan
    return frame


# --------------------------------------------------------------------------------------- cost and the rest


def cost(results: Results, robust: str = ROBUST) -> pd.DataFrame:
    """What an attack spends on a clip before and after adversarial training: mean counts over all clips.

    Over victims that were attacked both before and after. Columns attack, measure (iterations, forwards,
    backwards, queries), original, robust, ratio, and clips. Seconds are in `seconds`.
    """
    both = _both(results, robust)
    found = []
    for attack in names.in_order(both["attack"]):
        mine = both[both["attack"] == attack]
        for measure in ("iterations", "forwards", "backwards", "queries"):
            spent = mine.groupby("training")[measure].mean()
            before, after = float(spent.get("standard", np.nan)), float(spent.get(robust, np.nan))
            ratio = after / before if before else np.nan
            found.append((attack, measure, before, after, ratio, len(mine)))
    return pd.DataFrame(found, columns=["attack", "measure", "original", "robust", "ratio", "clips"])


def _both(results: Results, robust: str) -> pd.DataFrame:
    """The attack rows of victims that were attacked both before and after adversarial training."""
    rows = results.attacks[results.attacks["training"].isin(["standard", robust])]
    return rows[rows.groupby([*PAIR, "fold"])["training"].transform("nunique") == 2]


def spent(results: Results, what: str, robust: str = ROBUST) -> Panels:
    """What attacks spent on each clip, by victims attacked both before and after: as `norms` lays it out."""
    rows = _both(results, robust)
    rows = rows[rows["attack"].isin(names.ATTACKS)]
    return _panels(rows, rows[what].astype(float), [*PAIR, "training", "attack"]) if len(rows) else {}


def seconds(results: Results) -> pd.DataFrame:
    """Minutes of cells and of attacks, by chapter, training and attack: the one table that is never the same.

    Columns chapter, training, attack (empty: the whole cell), cells, minutes, peak_memory_mib.
    """
    times = results.times.assign(attack=results.times["attack"].fillna(""))
    grouped = times.groupby(["chapter", "training", "attack"], sort=True)
    frame = grouped.agg(
        cells=("seconds", "size"),
        minutes=("seconds", lambda s: s.sum() / 60),
        peak_memory_mib=("peak_memory_mib", "max"),
    ).reset_index()
    order = {name: i for i, name in enumerate(["", *names.TRAININGS, "", *names.ATTACKS, *names.CONTROLS])}
    rank = frame[["training", "attack"]].map(lambda name: order.get(name, len(order)))
    return frame.loc[
        rank.assign(chapter=frame["chapter"]).sort_values(["chapter", "training", "attack"]).index
    ]


def paired(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of those pairs of representation and model that were attacked under the most trainings:
    trainings are then compared over the same ones.
    """
    count = rows.groupby([*PAIR, "fold"])["training"].transform("nunique")
    return rows[count == count.max()]


def by_attack(results: Results, budgets: Mapping[str, float]) -> pd.DataFrame:
    """Fooling of each attack, averaged over victims of a training: within ε, area, without limit, norms.

    Over the `paired` victims. Columns training, attack (the worst case and the controls among them),
    ``within_percent``, ``area_percent``, ``ever_percent``, ``any_percent`` (a wrong class is named, whichever
    was aimed at and however sure), ``median_norm`` (of clips, ∞ where most attacks failed), victims.
    """
    rows = paired(results.attacks)
    columns = [
        "training",
        "attack",
        "within_percent",
        "area_percent",
        "ever_percent",
        "any_percent",
        "median_norm",
        "victims",
    ]
    found = []
    for training in names.in_order(rows["training"]) if len(rows) else []:
        gathered: dict[str, list] = {}
        mine = rows[rows["training"] == training]
        for (representation, _, _), part in mine.groupby([*PAIR, "fold"]):
            least = metrics.least_norms(part)
            six = least[[a for a in least if a in names.ATTACKS]]
            least = least.assign(**{names.WORST: metrics.worst_case(six)}) if len(six.columns) else least
            budget = budgets[representation]
            rate = metrics.rate_within(least, [budget])[budget]
            harm = metrics.least_norms(part, success="any")
            harm[names.WORST] = metrics.worst_case(harm[[a for a in harm if a in names.ATTACKS]])
            ever, any_class = metrics.succeeded(least), metrics.succeeded(harm)
            for attack in least:
                gathered.setdefault(attack, []).append(
                    (rate[attack], metrics.shortfall(least[[attack]], budget).mean().iloc[0],
                     ever[attack], any_class[attack], least[attack].median())
                )  # fmt: skip
        for attack in names.in_order(gathered):
            values = np.array(gathered[attack], dtype=float)
            share = 100 * values[:, :4].mean(axis=0)
            found.append((training, attack, *share, float(np.median(values[:, 4])), len(values)))
    return pd.DataFrame(found, columns=columns)


def defences(results: Results, budgets: Mapping[str, float]) -> pd.DataFrame:
    """Accuracy, fooling within the budget and worst case of every training that was run [%], by victim."""
    found = norms(results)
    panels = {
        "accuracy": right(results),
        "fooling": within(found, budgets),
        "worst": within(worst(found), budgets),
    }
    rows = []
    for training in names.in_order(results.clean["training"]):
        for victim in victims(results, training):
            for measure, panel in panels.items():
                chosen = restrict(panel, [victim])
                if chosen:
                    measured = metrics.estimate(chosen, lambda m, v=victim: 100 * over_attacks(m, v))
                    rows.append(dict(zip([*PAIR, "training"], victim, strict=True)) | {"measure": measure})
                    rows[-1] |= measured._asdict()
    return pd.DataFrame(rows)


def leaks(results: Results) -> pd.DataFrame:
    """Accuracy under each way of splitting, where chapter 3 measured it, and its distance from official."""
    frame = results.leaks
    if frame.empty:
        return pd.DataFrame(columns=[*POINT, "protocol", "accuracy", "low", "high", "over", "above official"])
    official = frame[frame["protocol"] == "official"].set_index(POINT)["accuracy"]
    above = frame["accuracy"] - official.reindex(pd.MultiIndex.from_frame(frame[POINT])).to_numpy()
    return frame.assign(**{"above official": above})
