"""Tables I, II and III and those that the paper lacks, computed from gathered rows, with intervals.

`Analysis` holds what several of them rest on, each thing computed once. A table is a tidy frame with one row
per number: ``value``, ``low``, ``high`` and ``over`` (what the 95 % interval is over), and where the data set
is the paper's ``paper`` and ``difference``. `lib.analysis.report` prints them, chapter 6 explains them.

Averages that are the paper's are over its own six attacks (`published.ATTACKS`), whatever else was run.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib import metrics, names
from lib.analysis import published
from lib.analysis.results import POINT, Results
from lib.metrics import Estimate

ROBUST = published.DEFENCE
PAIR = ["representation", "model"]
VICTIM = [*PAIR, "training"]
COUNTS = ("iterations", "forwards", "backwards", "queries")  # what an attack spends
Victim = tuple[str, str, str]
Panels = Mapping[str, pd.DataFrame]  # by fold: one row per clip, one column per victim, or victim and attack


class Analysis:
    """Gathered rows, and what is measured on them: `Panels` by fold, and the three tables made of them."""

    def __init__(self, results: Results):
        self.results = results

    @functools.cached_property
    def budgets(self) -> dict[str, float]:
        """Representation to the ℓ2 budget that means at its size what the paper's 3 means at its size."""
        sizes = self.results.sizes.itertuples()
        return {r.representation: metrics.scaled_budget(published.BUDGET, (r.bins, r.frames)) for r in sizes}

    # ------------------------------------------------------------------------------------------ panels

    @functools.cached_property
    def correct(self) -> Panels:
        """1 where a tested clip is correctly classified, else 0: clip × (representation, model, training)."""
        rows = self.results.clean
        return _panels(rows, (rows["predicted"] == rows["label"]).astype(float), VICTIM)

    @functools.cached_property
    def norms(self) -> Panels:
        """Least fooling norms, clip × (representation, model, training, attack); ∞ where an attack failed."""
        return self._norms("fooled")

    @functools.cached_property
    def any_norms(self) -> Panels:
        """Norms where success is any wrong class of the returned example."""
        return self._norms("any")

    def _norms(self, success: str) -> Panels:
        rows = self.results.attacks
        rows = rows[rows["attack"].isin(names.ATTACKS)]
        found = {
            fold: metrics.least_norms(part, by=(*VICTIM, "attack"), success=success)
            for fold, part in rows.groupby("fold", sort=True)
        }
        return {fold: panel.dropna(axis=1, how="all") for fold, panel in found.items()}

    @functools.cached_property
    def within(self) -> Panels:
        """1 where an attack fooled a clip within the budget of its representation, 0 where it did not."""
        return {fold: metrics.within(panel, self._limits(panel)) for fold, panel in self.norms.items()}

    @functools.cached_property
    def ever(self) -> Panels:
        """1 where an attack fooled a clip by whatever perturbation, 0 where it did not."""
        return {fold: metrics.ever(panel) for fold, panel in self.norms.items()}

    @functools.cached_property
    def worst(self) -> Panels:
        """The least norm of any attack: clip × (representation, model, training, "worst case")."""
        return {fold: self._worst(panel) for fold, panel in self.norms.items()}

    def _worst(self, panel: pd.DataFrame) -> pd.DataFrame:
        victims = dict.fromkeys(column[:3] for column in panel.columns)
        least = {(*v, names.WORST): metrics.worst_case(panel[self._met(panel, v)]) for v in victims}
        return pd.DataFrame(least, index=panel.index)

    @staticmethod
    def _met(panel: pd.DataFrame, victim: Victim) -> list[tuple]:
        """The columns of a victim's attacks that its neighbours of other trainings have met as well."""
        near = [column for column in panel.columns if column[:2] == victim[:2]]
        trainings = {column[2] for column in near}
        count = pd.Series([column[3] for column in near]).value_counts()
        return [c for c in near if c[2] == victim[2] and count[c[3]] == len(trainings)]

    def _limits(self, panel: pd.DataFrame) -> np.ndarray:
        return np.array([self.budgets[column[0]] for column in panel.columns])

    # ------------------------------------------------------------------------------------------ victims

    def victims(self, training: str) -> list[Victim]:
        """The victims of a training that were tested in some fold, in the order of the registry."""
        clean = self.results.clean
        pairs = set(clean.loc[clean["training"] == training, PAIR].itertuples(index=False, name=None))
        return [
            (representation, model, training)
            for representation in names.in_order(pair[0] for pair in sorted(pairs))
            for model in names.in_order(pair[1] for pair in sorted(pairs))
            if (representation, model) in pairs
        ]

    @functools.cached_property
    def pairs(self) -> list[Victim]:
        """The original models beside which a robust one was tested."""
        robust = self.victims(ROBUST)
        return [v for v in self.victims("standard") if defended(v) in robust]

    @functools.cached_property
    def attacked(self) -> list[Victim]:
        """Of `pairs`, those of which both models were attacked in some fold."""
        return [v for v in self.pairs if restrict(self.norms, [v, defended(v)])]

    def mean(self, panels: Panels, victims: Sequence[Victim], statistic) -> Estimate:
        """A statistic of the means over clips of the panels that hold all the victims."""
        return metrics.estimate(restrict(panels, victims), statistic)

    # ------------------------------------------------------------------------------------ Tables I to III

    @functools.cached_property
    def accuracies(self) -> pd.DataFrame:
        """Accuracy of every victim of both trainings [%]."""
        victims = [v for training in ("standard", ROBUST) for v in self.victims(training)]
        found = [(v, self.mean(self.correct, [v], lambda m, v=v: 100 * m[v])) for v in victims]
        rows = [dict(zip(VICTIM, v, strict=True)) | measured._asdict() for v, measured in found]
        return pd.DataFrame(rows).assign(measure="accuracy")

    @functools.cached_property
    def recognition(self) -> pd.DataFrame:
        """Table I: accuracy of the original models [%], and the drop after adversarial training [points].

        The drop is paired: both victims are tested on the same clips.
        """
        rows = []
        for original in self.victims("standard"):
            measured = self.mean(self.correct, [original], lambda m, o=original: 100 * m[o])
            rows.append(self._row(original, "accuracy_percent", measured))
            both = [original, defended(original)]
            if restrict(self.correct, both):
                measured = self.mean(self.correct, both, lambda m, b=both: 100 * (m[b[0]] - m[b[1]]))
                rows.append(self._row(original, "accuracy_drop_percent", measured))
        return _tidy(rows)

    @functools.cached_property
    def fooling(self) -> pd.DataFrame:
        """Table II with its control: fooling within the budget [%], averaged over attacks, by victim.

        Measures: ``fooling_auc_percent`` (the paper's column as design reading 14 takes it, the fooling rate
        within ε), ``area_percent`` (under the fooling curve up to ε), ``any_class_percent`` (success is any
        wrong class), ``worst_percent`` (clips that some attack fools within ε), for both trainings, and
        ``gain_percent``, the fooling rate of the original less that of the robust model.
        """
        limits = {"area_percent": (self.norms, metrics.shortfall)}
        limits["any_class_percent"] = (self.any_norms, metrics.within)
        limits["worst_percent"] = (self.worst, metrics.within)
        panels = {"fooling_auc_percent": self.within}
        for measure, (found, how) in limits.items():
            panels[measure] = {fold: how(panel, self._limits(panel)) for fold, panel in found.items()}
        rows = []
        for victim in [v for training in ("standard", ROBUST) for v in self.victims(training)]:
            for measure, panel in panels.items():
                if restrict(panel, [victim]):
                    measured = self.mean(panel, [victim], lambda m, v=victim: 100 * over_attacks(m, v))
                    rows.append(self._row(victim, measure, measured))
        for original in self.attacked:
            measured = self.mean(
                self.within,
                [original, defended(original)],
                lambda m, o=original: 100 * (over_attacks(m, o) - over_attacks(m, defended(o))),
            )
            rows.append(self._row(defended(original), "gain_percent", measured))
        return _tidy(rows)

    @functools.cached_property
    def ratios(self) -> pd.DataFrame:
        """Table III: ε_r of every pair, Eq. 15, and of every attack on it.

        A row with ``attack`` "all" has the ratio of the norms averaged over the paper's attacks and, beside
        it, ``geometric``, the geometric mean of the attacks' ratios. ``bound`` says on which side clips are
        censored, ``comparable`` how many attacks pass the fooling rate of 0.9 on both victims, ``attacks``
        how many there are.
        """
        rows = [row for original in self.attacked for row in self._ratios(original)]
        more = ["attack", "bound", "comparable", "attacks", "median", "restricted", "geometric"]
        return _tidy(rows, more)

    def _ratios(self, original: Victim) -> list[dict]:
        robust, rows = defended(original), []
        chosen = restrict(self.norms, [original, robust])
        panels, each = zip(*(censor(panel, original) for panel in chosen), strict=True)
        each = pd.concat(each)
        for attack in names.in_order(each.index):
            measured = metrics.estimate(
                panels, lambda m, a=attack: _column(m, (*robust, a)) / _column(m, (*original, a))
            )
            one = each.loc[[attack]]
            rows.append(
                self._row(robust, "epsilon_ratio", measured, attack=attack)
                | {"bound": _bound(one["bound"]), "comparable": int(one["comparable"].all()), "attacks": 1}
                | {reading: one[reading].mean() for reading in ("median", "restricted")}
            )
        each = each[each.index.isin(published.ATTACKS)]
        if each.empty:
            return rows
        measured = metrics.estimate(panels, lambda m: over_attacks(m, robust) / over_attacks(m, original))
        with np.errstate(divide="ignore"):
            geometric = np.exp(np.log(each["ratio"]).mean())
        rows.append(
            self._row(robust, "epsilon_ratio", measured, attack="all")
            | {"bound": _bound(each["bound"]), "geometric": geometric}
            | {"comparable": int(each.groupby(level=0)["comparable"].all().sum())}
            | {"attacks": each.index.nunique()}
            | {reading: _finite(each[reading]).median() for reading in ("median", "restricted")}
        )
        return rows

    def _row(self, victim: Victim, measure: str, measured: Estimate, **more) -> dict:
        representation, model, training = victim
        row = dict(zip(VICTIM, victim, strict=True)) | more | {"measure": measure} | measured._asdict()
        if measure not in published.MEASURES:
            return row
        reported = published.table(measure, self.results.dataset)
        of_paper = training == ("standard" if measure.startswith("accuracy") else ROBUST)
        known = representation in reported.index and model in reported.columns
        if of_paper and more.get("attack", "all") == "all" and known:
            row["paper"] = reported.loc[representation, model]
            row["difference"] = measured.value - row["paper"]
        return row


def defended(victim: Victim) -> Victim:
    """The same representation and model after the paper's adversarial training."""
    return (*victim[:2], ROBUST)


def _panels(rows: pd.DataFrame, values: pd.Series, columns: Sequence[str]) -> Panels:
    keys = ["fold", "clip", *columns]
    wide = values.groupby([rows[key] for key in keys], sort=True).min().unstack(list(columns))
    folds = wide.index.get_level_values(0).unique()
    return {fold: wide.loc[fold].dropna(axis=1, how="all") for fold in folds}


def restrict(found: Panels, victims: Iterable[Victim]) -> list[pd.DataFrame]:
    """The panels of those repeats that hold all the victims, with only their columns."""
    victims = set(victims)
    kept = []
    for panel in found.values():
        have = {tuple(column[:3]) for column in panel.columns}
        if have.issuperset(victims):
            kept.append(panel[[column for column in panel.columns if tuple(column[:3]) in victims]])
    return kept


def of_victim(panel: pd.DataFrame, victim: Victim) -> pd.DataFrame:
    """A victim's columns of a panel, named by attack."""
    columns = [column for column in panel.columns if column[:3] == victim]
    return panel[columns].set_axis([column[3] for column in columns], axis=1)


def over_attacks(means: pd.DataFrame, victim: Victim) -> pd.Series:
    """The mean over the paper's attacks on a victim (or its worst case, or the victim itself)."""
    kept = {*published.ATTACKS, names.WORST, victim[-1]}
    return means[[c for c in means.columns if tuple(c[:3]) == victim and c[-1] in kept]].mean(axis=1)


def censor(panel: pd.DataFrame, original: Victim) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The norms of a pair with failed clips counted as censored, and their ratios by attack."""
    robust = defended(original)
    before, after = of_victim(panel, original), of_victim(panel, robust)
    shared = [attack for attack in before if attack in after]
    before, after = before[shared], after[shared]
    at = metrics.censoring_norms(before, after)
    cut = {original: metrics.censored(before, at[0]), robust: metrics.censored(after, at[1])}
    wide = {(*victim, attack): frame[attack] for victim, frame in cut.items() for attack in shared}
    return pd.DataFrame(wide, index=panel.index), metrics.perturbation_ratio(before, after)


def _column(means: pd.DataFrame, column: tuple) -> pd.Series:
    return means[column] if column in means.columns else pd.Series(np.nan, index=means.index)


def _bound(bounds: Iterable[str]) -> str:
    found = set(bounds) - {"="}
    return "=" if not found else found.pop() if len(found) == 1 else "?"


def _finite(values: pd.Series) -> pd.Series:
    return values.replace([np.inf, -np.inf], np.nan)


def _tidy(rows: list[dict], more: Sequence[str] = ()) -> pd.DataFrame:
    """The rows as a frame that has its columns where there are no rows, too."""
    first = [*VICTIM, "measure", "value", "low", "high", "over", *more]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=first)
    for column in ("paper", "difference"):
        if column not in frame:
            frame[column] = np.nan
    return frame


# --------------------------------------------------------------------------------------- cost and the rest


def cost(found: Analysis) -> pd.DataFrame:
    """What an attack spends on a clip before and after adversarial training: mean counts over all clips.

    Over victims that were attacked both before and after. Columns attack, measure (`COUNTS`), original,
    robust, ratio, and clips. Seconds are in `seconds`.
    """
    both, rows = _both(found.results), []
    for attack in names.in_order(both["attack"]):
        mine = both[both["attack"] == attack]
        for measure in COUNTS:
            spent = mine.groupby("training")[measure].mean()
            before, after = float(spent.get("standard", np.nan)), float(spent.get(ROBUST, np.nan))
            rows.append((attack, measure, before, after, after / before if before else np.nan, len(mine)))
    return pd.DataFrame(rows, columns=["attack", "measure", "original", "robust", "ratio", "clips"])


def _both(results: Results) -> pd.DataFrame:
    """The attack rows of victims that were attacked both before and after adversarial training."""
    rows = results.attacks[results.attacks["training"].isin(["standard", ROBUST])]
    return rows[rows.groupby([*PAIR, "fold"])["training"].transform("nunique") == 2]


def spent(found: Analysis, what: str) -> Panels:
    """What the paper's attacks spent on each clip of victims attacked both before and after."""
    rows = _both(found.results)
    rows = rows[rows["attack"].isin(published.ATTACKS)]
    return _panels(rows, rows[what].astype(float), [*VICTIM, "attack"]) if len(rows) else {}


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
    rank = rank.assign(chapter=frame["chapter"]).sort_values(["chapter", "training", "attack"])
    return frame.loc[rank.index]


def by_attack(found: Analysis) -> pd.DataFrame:
    """Fooling of each attack, averaged over victims of a training: within ε, area, without limit, norms.

    Over those pairs of representation and model that were attacked under the most trainings, so that
    trainings are compared over the same ones. Columns training, attack (the worst case and the controls among
    them), ``within_percent``, ``area_percent``, ``ever_percent``, ``any_percent`` (any wrong class, whichever
    was aimed at and however sure), ``median_norm`` (of clips, ∞ where most attacks failed), victims.
    """
    rows = found.results.attacks
    count = rows.groupby([*PAIR, "fold"])["training"].transform("nunique")
    rows = rows[count == count.max()]
    gathered: dict[tuple[str, str], list] = {}
    for (representation, _, _, training), part in rows.groupby([*PAIR, "fold", "training"]):
        limit = found.budgets[representation]
        least, harm = (_with_worst(metrics.least_norms(part, success=how)) for how in ("fooled", "any"))
        parts = metrics.within(least, limit), metrics.shortfall(least, limit), metrics.ever(least)
        table = pd.DataFrame([*(part.mean() for part in parts), metrics.ever(harm).mean(), least.median()])
        for attack in least:
            gathered.setdefault((training, attack), []).append(table[attack].to_numpy())
    columns = ["training", "attack", "within_percent", "area_percent", "ever_percent", "any_percent"]
    lines = []
    for training in names.in_order(training for training, _ in gathered):
        for attack in names.in_order(attack for t, attack in gathered if t == training):
            values = np.array(gathered[training, attack], dtype=float)
            share = 100 * values[:, :4].mean(axis=0)
            lines.append((training, attack, *share, float(np.median(values[:, 4])), len(values)))
    return pd.DataFrame(lines, columns=[*columns, "median_norm", "victims"])


def _with_worst(norms: pd.DataFrame) -> pd.DataFrame:
    attacks = [attack for attack in norms if attack in names.ATTACKS]
    return norms.assign(**{names.WORST: metrics.worst_case(norms[attacks])}) if attacks else norms


def curves(found: Analysis, count: int = 120) -> pd.DataFrame:
    """Fooling rates of each training and attack: mean, lowest and highest victim at each norm.

    At ``count`` norms, even in the logarithm, and at every stair where those are fewer.
    """
    gathered: dict[tuple[str, str, str], list[pd.Series]] = {}
    for fold, panel in found.norms.items():
        for column, values in [*panel.items(), *found.worst[fold].items()]:
            representation, _, training, attack = column
            if len(values.dropna()):
                gathered.setdefault((representation, training, attack), []).append(values)
    even = _even(found, count)
    rows = []
    for key, victims in gathered.items():
        stairs = np.unique(np.concatenate(victims))
        stairs = stairs[np.isfinite(stairs) & (stairs > 0)]
        at = np.union1d(even, stairs) if len(stairs) <= count else even
        rates = metrics.rate_within(dict(enumerate(victims)), at).to_numpy()
        rows += [
            (*key, *line)
            for line in zip(at, rates.mean(axis=0), rates.min(axis=0), rates.max(axis=0), strict=True)
        ]
    return pd.DataFrame(rows, columns=["representation", "training", "attack", "norm", "rate", "low", "high"])


def _even(found: Analysis, count: int) -> np.ndarray:
    """Norms from the least to the largest that fooled, or around the budgets where none did."""
    finite = [panel.replace(np.inf, np.nan) for panel in found.norms.values()]
    top = max((panel.max(axis=None) for panel in finite), default=np.nan)
    least = min((panel.where(panel > 0).min(axis=None) for panel in finite), default=np.nan)
    if not np.isfinite(least):
        budgets = found.budgets.values()
        least, top = min(budgets, default=1.0) / 10, 10 * max(budgets, default=1.0)
    return np.geomspace(least / 1.2, top * 1.2, count)


def defences(found: Analysis) -> pd.DataFrame:
    """Accuracy, fooling within the budget and worst case of every training that was run [%], by victim."""
    worst = {fold: metrics.within(panel, found._limits(panel)) for fold, panel in found.worst.items()}
    panels = {"accuracy": found.correct, "fooling": found.within, "worst": worst}
    rows = []
    for training in names.in_order(found.results.clean["training"]):
        for victim in found.victims(training):
            for measure, panel in panels.items():
                if restrict(panel, [victim]):
                    measured = found.mean(panel, [victim], lambda m, v=victim: 100 * over_attacks(m, v))
                    point = dict(zip(VICTIM, victim, strict=True))
                    rows.append(point | {"measure": measure} | measured._asdict())
    return pd.DataFrame(rows)


def leaks(results: Results) -> pd.DataFrame:
    """Accuracy under each way of splitting, where chapter 3 measured it, and its distance from official."""
    frame = results.leaks
    if frame.empty:
        return pd.DataFrame(columns=[*POINT, "protocol", "accuracy", "low", "high", "over", "above official"])
    official = frame[frame["protocol"] == "official"].set_index(POINT)["accuracy"]
    above = frame["accuracy"] - official.reindex(pd.MultiIndex.from_frame(frame[POINT])).to_numpy()
    return frame.assign(**{"above official": above})
