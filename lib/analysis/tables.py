"""Accuracy, robust accuracy, Tables I to III and what else chapter 6 shows, computed from gathered rows.

`Analysis` holds what several tables rest on, each thing computed once. A table is a tidy frame with one row
per number: ``value``, ``low``, ``high`` and ``over`` (what the 95 % interval is over), and where the data set
is the paper's ``paper`` and ``difference``. `lib.analysis.report` prints them, chapter 6 explains them.

Averages that are the paper's are over its own six attacks (`published.ATTACKS`), whatever else was run.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from lib import metrics, names, study
from lib.analysis import published
from lib.analysis.results import POINT, Results, at_size
from lib.metrics import Estimate

ROBUST = published.DEFENCE
PAIR = ["representation", "model"]
VICTIM = [*PAIR, "training"]
COUNTS = ("iterations", "forwards", "backwards", "queries")  # what an attack spends
TRAININGS = 3  # that a sentence on models needs
WALKS = ("PIA",)  # taken as cut, so that their norms are upper bounds, where rows do not say it
EXACT = "exact attacks"  # the mean ratio of those attacks none of whose norms is a bound, if several
FREE = ("DeepFool", *names.REFERENCE)  # attacks that look for the least perturbation, without a limit
MEANS = "ratio of means"  # the paper's form of its ratio
Victim = tuple[str, str, str]
Panels = Mapping[str, pd.DataFrame]  # by fold: one row per clip, one column per victim, or victim and attack
PERCENT, POINTS = (0.0, 100.0), (-100.0, 100.0)  # bounds of a share and of a difference of shares
_OF_RATIOS = ["attack", "bound", "fooled", "censored", "comparable"]


class Analysis:
    """Gathered rows, and what is measured on them: `Panels` by fold, and the tables that others rest on."""

    def __init__(self, results: Results):
        self.results = results

    @functools.cached_property
    def budgets(self) -> dict[str, float]:
        """Representation to the ℓ2 budget that means at its size what the paper's 3 means at its size."""
        sizes = self.results.sizes.itertuples()
        return {r.representation: metrics.scaled_budget(published.BUDGET, (r.bins, r.frames)) for r in sizes}

    @functools.cached_property
    def unfinished(self) -> dict[Victim, str]:
        """Why the training of a victim is unfinished in some fold; only of those where it is."""
        found = {}
        history = self.results.history
        kept = dict(list(history.groupby(POINT))) if len(history) else {}
        for representation, model, fold, training in self.results.clean[POINT].drop_duplicates().to_numpy():
            rows = kept.get((representation, model, fold, training))
            why = "its epochs are not kept" if rows is None else metrics.unfinished(rows)
            if why:
                found[representation, model, training] = f"fold {fold}: {why}"
        return found

    # ------------------------------------------------------------------------------------------ panels

    @functools.cached_property
    def correct(self) -> Panels:
        """100 where a tested clip is correctly classified, else 0: clip × victim."""
        rows = self.results.clean.assign(right=self.results.clean.eval("100.0 * (predicted == label)"))
        wide = {
            fold: part.pivot(index="clip", columns=VICTIM, values="right")
            for fold, part in rows.groupby("fold", sort=True)
        }
        return {fold: panel.sort_index(axis=1) for fold, panel in wide.items()}

    @functools.cached_property
    def norms(self) -> Panels:
        """Least norms that reached each attack's goal: clip × (victim, attack); ∞ where it failed."""
        return self._norms(self.results.attacks, "fooled")

    @functools.cached_property
    def conceivable(self) -> Panels:
        """`norms`, but 0 where a walk was cut: nobody knows how near it would have come."""
        rows = self.results.attacks
        return self._norms(rows.assign(l2=rows["l2"].mask(self.cut, 0.0)), "fooled")

    def _norms(self, rows: pd.DataFrame, success: str) -> Panels:
        rows = rows[rows["attack"].isin(names.ATTACKS | names.REFERENCE)]
        found = {
            fold: metrics.least_norms(part, by=(*VICTIM, "attack"), success=success)
            for fold, part in rows.groupby("fold", sort=True)
        }
        return {fold: panel.dropna(axis=1, how="all") for fold, panel in found.items()}

    @functools.cached_property
    def needed(self) -> Panels:
        """What it takes to have an evaluated clip misclassified: clip × (victim, attack); 0 if it is anyway.

        Beside the attacks "worst case", the least of those attacks that its neighbours of other trainings
        have met as well, so that trainings are compared under the same adversary. A victim of which no such
        attack is known is left out, unless it classifies no clip correctly, so that there was none to attack.
        """
        found, panels = {}, self._norms(self.results.attacks, "any")
        for fold, part in self.results.evaluated.groupby("fold", sort=True):
            columns = {}
            norms = panels.get(fold, pd.DataFrame())
            for victim, clips in part.groupby(VICTIM)["clip"]:
                least = metrics.needed(of_victim(norms, victim), clips)
                met = least[common(norms, victim)]
                right = self.correct.get(fold, pd.DataFrame()).get(victim, pd.Series(dtype=float))
                if not len(met.columns) and right.reindex(list(clips)).gt(0).any():
                    continue
                least[names.WORST] = metrics.worst_case(met) if len(met.columns) else 0.0
                columns |= {(*victim, attack): least[attack] for attack in least}
            found[fold] = pd.DataFrame(columns)
        return found

    @functools.cached_property
    def at_most(self) -> set[tuple]:
        """The victims and attacks of which some norm is only an upper bound: a walk that was cut."""
        rows = self.results.attacks[self.cut]
        return set(rows[[*VICTIM, "attack"]].itertuples(index=False, name=None))

    @functools.cached_property
    def cut(self) -> pd.Series:
        """Of the rows of attacks, those whose norm is only an upper bound."""
        rows = self.results.attacks
        cut = rows["attack"].isin(WALKS)
        if "bound" in rows:
            cut = (rows["bound"] == "at most") | (rows["bound"].isna() & cut)
        return cut & rows["fooled"].astype(bool)

    @functools.cached_property
    def too_coarse(self) -> list[str]:
        """The paper's attacks whose smallest perturbation is above the budget: none can succeed within it."""
        rows = self.results.attacks
        if "smallest" not in rows:
            return []
        above = rows["smallest"] > rows["representation"].map(self.budgets)
        return names.in_order(rows.loc[above & rows["attack"].isin(published.ATTACKS), "attack"])

    def limits(self, panel: pd.DataFrame) -> np.ndarray:
        """The budget of each column of a panel."""
        return np.array([self.budgets[column[0]] for column in panel.columns])

    @functools.cached_property
    def clean(self) -> Panels:
        """100 where an evaluated clip is correctly classified, else 0: clip × (victim, attack)."""
        return {fold: 100.0 * (p > 0).astype(float).where(p.notna()) for fold, p in self.needed.items()}

    @functools.cached_property
    def robust(self) -> Panels:
        """100 where an evaluated clip is correct and stays so within the budget: clip × (victim, attack)."""
        return {fold: 100 * (1 - metrics.within(p, self.limits(p))) for fold, p in self.needed.items()}

    @functools.cached_property
    def fooled(self) -> Panels:
        """100 where an attack reached its goal within the budget, 0 where not, of attacked clips."""
        return {fold: 100 * metrics.within(p, self.limits(p)) for fold, p in self.norms.items()}

    @functools.cached_property
    def fooled_of_all(self) -> Panels:
        """`fooled`, of all evaluated clips: one that is misclassified anyway counts as not fooled."""
        found = {}
        for fold, panel in self.fooled.items():
            worst = {c: (*c[:3], names.WORST) for c in panel.columns}
            needed = self.needed.get(fold, pd.DataFrame())
            known = {c: needed[w].notna() for c, w in worst.items() if w in needed.columns}
            columns = {c: panel[c].reindex(at.index).fillna(0.0).where(at) for c, at in known.items()}
            found[fold] = pd.DataFrame(columns)
        return found

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
        """The original models of which a robust one was tested as well."""
        robust = self.victims(ROBUST)
        return [v for v in self.victims("standard") if defended(v) in robust]

    @functools.cached_property
    def attacked(self) -> list[Victim]:
        """Of `pairs`, those of which both models were attacked in some fold."""
        return [v for v in self.pairs if restrict(self.needed, [v, defended(v)])]

    def often(self, panels: Panels, originals: Sequence[Victim]) -> list[Victim]:
        """The pairs, by their original models, that are in enough repeats for a mean over pairs.

        Enough are `TRAININGS` or, where no pair has so many, as many as any has. A mean is taken in each
        repeat that holds all of its pairs, so one that leaves too few of them takes no part.
        """
        count = {v: len(restrict(panels, [v, defended(v)])) for v in originals}
        enough = max(1, min(TRAININGS, max(count.values(), default=0)))
        kept: list[Victim] = []
        for v in sorted(originals, key=lambda v: -count[v]):
            together = [victim for pair in [*kept, v] for victim in (pair, defended(pair))]
            kept += [v] * (len(restrict(panels, together)) >= enough)
        return [v for v in originals if v in kept]

    @functools.cached_property
    def averaged(self) -> list[Victim]:
        """Of `attacked`, the pairs that means over the networks of a representation are of."""
        each = [[v for v in self.attacked if v[0] == r] for r in names.in_order(v[0] for v in self.attacked)]
        return [v for mine in each for v in self.often(self.needed, mine)]

    def averaged_on(self, representation: str) -> list[Victim]:
        """Those of a representation."""
        return [v for v in self.averaged if v[0] == representation]

    @functools.cached_property
    def common(self) -> list[Victim]:
        """Of `attacked`, the pairs that means over representations are of, too."""
        return self.often(self.needed, self.attacked)

    def scores(self, panels: Panels, victims: Sequence[Victim], score) -> list[pd.Series]:
        """A number per clip of each repeat that holds all the victims, where there is any."""
        found = (score(panel).dropna() for panel in restrict(panels, victims))
        return [part for part in found if len(part)]

    def mean(self, panels: Panels, victims: Sequence[Victim], score, bounds=PERCENT) -> Estimate:
        """The mean over clips of a number per clip of the victims, see `over_parts`."""
        return self.over_parts(self.scores(panels, victims, score), bounds)

    def over_parts(self, parts: Sequence[pd.Series], bounds=PERCENT) -> Estimate:
        """The mean of a number per clip of each repeat: over repeats where there are two, else over clips.

        The interval over repeats reaches as far as that over all their clips, in which trainings count as
        known: few repeats can agree by chance, and would then look surer than so many clips can be.
        """
        whole = pd.concat(parts) if parts else pd.Series(dtype=float)
        by_clip = metrics.over_clips(whole, self.sources.reindex(whole.index), bounds=bounds)
        value, low, high, _ = metrics.over_repeats([part.mean() for part in parts])
        if np.isnan(low):
            return by_clip
        low, high = np.clip([min(low, by_clip.low), max(high, by_clip.high)], *bounds)
        return Estimate(value, low, high, self.repeats(map(len, parts)))

    def repeats(self, clips: Iterable[int]) -> str:
        """What an interval over repeats of so many clips each is over: ``3 folds × 30 clips``."""
        clips = list(clips)
        return f"{len(clips)} {self.kind} × {spread(clips)} clips"

    @functools.cached_property
    def kind(self) -> str:
        """What the repeats of this run are: folds, seeds of one fold, or both."""
        folds = {study.fold_and_seed(fold)[0] for fold in self.results.folds}
        several = "folds" if len(folds) == len(self.results.folds) else "folds and seeds"
        return several if len(folds) > 1 else "seeds"

    @functools.cached_property
    def sources(self) -> pd.Series:
        """The recording of each tested clip."""
        return self.results.clean.drop_duplicates("clip").set_index("clip")["source"]

    # ------------------------------------------------------------------------- accuracy, before and after

    @functools.cached_property
    def recognition(self) -> pd.DataFrame:
        """Table I and its like for every training: accuracy [%] of all tested clips, and the drop [points].

        The drop is paired: both models are tested on the same clips.
        """
        rows = []
        for victim in self.all_victims:
            measured = self.mean(self.correct, [victim], lambda p, v=victim: p[v])
            rows.append(self._row(victim, "accuracy_percent", measured))
            original = (*victim[:2], "standard")
            both = [original, victim]
            if victim != original and restrict(self.correct, both):
                measured = self.mean(self.correct, both, lambda p, b=both: p[b[0]] - p[b[1]], POINTS)
                rows.append(self._row(victim, "accuracy_drop_percent", measured))
        return _tidy(rows)

    @functools.cached_property
    def robustness(self) -> pd.DataFrame:
        """Robust accuracy [%] of every training, over all evaluated clips, worst case over attacks.

        Measures: ``clean_percent``, RA(0); ``robust_percent``, RA(ε); ``gain_percent``, RA(ε) less that
        of the original model; of the paper's defence ``more_percent``, RA(ε) less that of the control, which
        is trained on random changes of the same size. Differences are paired by clip.
        """
        rows = []
        for victim in self.all_victims:
            worst, original = (*victim, names.WORST), (*victim[:2], "standard")
            if not restrict(self.needed, [victim]):
                continue
            clean = self.mean(self.clean, [victim], lambda p, w=worst: p[w])
            rows.append(self._row(victim, "clean_percent", clean))
            measured = self.mean(self.robust, [victim], lambda p, w=worst: p[w])
            rows.append(self._row(victim, "robust_percent", measured))
            others = {"gain_percent": original}
            others |= {"more_percent": (*victim[:2], names.CONTROL_TRAINING)} if victim[2] == ROBUST else {}
            for measure, other in others.items():
                if other != victim and restrict(self.robust, [other, victim]):
                    measured = self.mean(self.robust, [other, victim], gain(other, victim), POINTS)
                    rows.append(self._row(victim, measure, measured))
        return _tidy(rows)

    @functools.cached_property
    def all_victims(self) -> list[Victim]:
        """Every tested victim, the trainings of a model one after the other."""
        trainings = names.in_order(self.results.clean["training"])
        found = [victim for training in trainings for victim in self.victims(training)]
        pairs = list(dict.fromkeys(v[:2] for training in trainings for v in self.victims(training)))
        return sorted(found, key=lambda v: (pairs.index(v[:2]), trainings.index(v[2])))

    # --------------------------------------------------------------------------- the paper's Tables II, III

    @functools.cached_property
    def fooling(self) -> pd.DataFrame:
        """Table II: fooling by the paper's attacks within the budget [%], each by its goal, averaged.

        Measures: ``fooling_auc_percent``, of correctly classified clips (the paper's column as design reading
        14 takes it); ``of_all_percent``, of all evaluated clips; ``area_percent``, under the fooling curve up
        to ε; ``less_percent``, how much less the robust model is fooled, of all evaluated clips, paired.
        """
        area = {
            fold: 100 * metrics.shortfall(panel, self.limits(panel)) for fold, panel in self.norms.items()
        }
        panels = {"fooling_auc_percent": self.fooled, "of_all_percent": self.fooled_of_all}
        rows = []
        for victim in self.all_victims:
            for measure, panel in (panels | {"area_percent": area}).items():
                if victim[2] in ("standard", ROBUST) and restrict(panel, [victim]):
                    measured = self.mean(panel, [victim], lambda p, v=victim: over_attacks(p, v))
                    rows.append(self._row(victim, measure, measured))
        for original in self.attacked:
            both = [original, defended(original)]
            if restrict(self.fooled_of_all, both):
                less = lambda p, b=both: over_attacks(p, b[0]) - over_attacks(p, b[1])  # noqa: E731
                measured = self.mean(self.fooled_of_all, both, less, POINTS)
                rows.append(self._row(both[1], "less_percent", measured))
        return _tidy(rows)

    @functools.cached_property
    def ratios(self) -> pd.DataFrame:
        """ε_r of every pair: by attack, over the attacks with exact norms, and as the paper's ratio of means.

        By attack it is the geometric mean of d_robust / d_original over clips fooled in both models;
        ``fooled`` and ``censored`` count these clips, and those that failed on one of them. ``bound`` says on
        which side a ratio is open: "=", at least "≥", at most "≤", either "?". ``comparable`` says whether
        the paper's condition is met, a fooling rate above 0.9 of both models.
        """
        rows = [row for original in self.attacked for row in self._ratios(original, defended(original))]
        return _tidy(rows, _OF_RATIOS)

    @functools.cached_property
    def control_ratios(self) -> pd.DataFrame:
        """`ratios` of the control in place of the robust model, of pairs that have one."""
        both = [(original, (*original[:2], names.CONTROL_TRAINING)) for original in self.attacked]
        rows = [row for pair in both if restrict(self.norms, pair) for row in self._ratios(*pair)]
        return _tidy(rows, _OF_RATIOS)

    def _ratios(self, original: Victim, robust: Victim) -> list[dict]:
        pairs = [
            (of_victim(panel, original), of_victim(panel, robust))
            for panel in restrict(self.norms, [original, robust])
        ]
        attacks = names.in_order(attack for before, after in pairs for attack in before if attack in after)
        found, lost = {}, {}
        for attack in attacks:
            met = [pair for pair in pairs if attack in pair[0] and attack in pair[1]]
            each = [metrics.paired_ratios(before[attack], after[attack]) for before, after in met]
            found[attack], lost[attack] = [ratios for ratios, _ in each], sum(count for _, count in each)
        rows = []
        for attack, ratios in found.items():
            measured = self.over([r.to_frame() for r in ratios], metrics.geometric_mean)
            mark = metrics.bound(*((*victim, attack) in self.at_most for victim in (robust, original)))
            more = {
                "attack": attack,
                "bound": mark,
                "fooled": sum(map(len, ratios)),
                "censored": lost[attack],
            }
            rows.append(self._row(robust, "epsilon_ratio", measured, **more))
        bounds = {row["attack"] for row in rows if row["bound"] != "=" or row["censored"]}
        exact = [attack for attack in attacks if attack in published.ATTACKS and attack not in bounds]
        exact = [attack for attack in exact if len(found[attack]) == len(pairs)]
        if len(exact) > 1:
            frames = [pd.DataFrame({a: found[a][i] for a in exact}) for i in range(len(pairs))]
            measured = self.over(frames, metrics.geometric_mean)
            more = {"attack": EXACT, "bound": "=", "fooled": sum(map(len, frames)), "censored": 0}
            rows.append(self._row(robust, "epsilon_ratio", measured, **more))
        return rows + self._ratio_of_means(robust, pairs)

    def _ratio_of_means(self, robust: Victim, pairs: list[tuple[pd.DataFrame, pd.DataFrame]]) -> list[dict]:
        """The paper's form, of its own attacks; both models' norms are averaged over attacks first."""
        own = [[frame[[a for a in frame if a in published.ATTACKS]] for frame in pair] for pair in pairs]
        own = [pair for pair in own if len(pair[0].columns) and len(pair[1].columns)]
        if not own:
            return []

        def ratio(both: pd.DataFrame) -> float:
            each = metrics.ratio_of_means(both["before"], both["after"])
            before, after = each["original"].mean(), each["robust"].mean()
            return float(after / before) if 0 < before < np.inf else np.nan

        frames = [pd.concat({"before": before, "after": after}, axis=1) for before, after in own]
        each = pd.concat([metrics.ratio_of_means(*pair) for pair in own])
        open_ = set(each["bound"])
        cut = {v[:3] for v in self.at_most if v[3] in published.ATTACKS}
        mark = metrics.bound(
            bool(open_ & {"≤", "?"}) or robust in cut,
            bool(open_ & {"≥", "?"}) or (*robust[:2], "standard") in cut,
        )
        measured = self.over(frames, ratio)
        more = {"attack": MEANS, "bound": mark, "comparable": bool(each["comparable"].all())}
        return [self._row(robust, "epsilon_ratio", measured, **more)]

    def over(self, frames: list[pd.DataFrame], statistic: Callable[[pd.DataFrame], float]) -> Estimate:
        """As `mean`, a positive number of each repeat's clips, whose logarithms are averaged."""
        each = [(value, len(frame)) for frame in frames if not np.isnan(value := statistic(frame))]
        by_clip = metrics.jackknife(pd.concat(frames), statistic, self.sources)
        value, low, high, _ = metrics.over_repeats(np.log([value for value, _ in each]))
        if np.isnan(low):
            return by_clip
        low, high = min(float(np.exp(low)), by_clip.low), max(float(np.exp(high)), by_clip.high)
        return Estimate(float(np.exp(value)), low, high, self.repeats(count for _, count in each))

    def _row(self, victim: Victim, measure: str, measured: Estimate, **more) -> dict:
        representation, model, training = victim
        row = dict(zip(VICTIM, victim, strict=True)) | more | {"measure": measure} | measured._asdict()
        if measure not in published.MEASURES:
            return row
        reported = published.table(measure, self.results.dataset)
        of_paper = training == ("standard" if measure == "accuracy_percent" else ROBUST)
        known = representation in reported.index and model in reported.columns
        if of_paper and more.get("attack", MEANS) == MEANS and known:
            row["paper"] = reported.loc[representation, model]
            row["difference"] = measured.value - row["paper"]
        return row


def spread(counts: Iterable[int]) -> str:
    """The least and the largest of some counts, in words."""
    known = sorted(set(counts))
    return " to ".join(map(str, dict.fromkeys([known[0], known[-1]])))


def trainings(over: str) -> int:
    """How many repeats an interval is over; 0 where it is over clips."""
    return int(over.split()[0]) if "×" in over else 0


def defended(victim: Victim) -> Victim:
    """The same representation and model after the paper's adversarial training."""
    return (*victim[:2], ROBUST)


def of_victim(panel: pd.DataFrame, victim: Victim) -> pd.DataFrame:
    """A victim's columns of a panel, named by attack; clips that it was not attacked on are left out."""
    columns = [column for column in panel.columns if column[:3] == victim]
    if not columns:
        return pd.DataFrame()
    return panel[columns].set_axis([column[3] for column in columns], axis=1).dropna(how="all")


def common(panel: pd.DataFrame, victim: Victim) -> list[str]:
    """The attacks on a victim that were run on this model after every training as well."""
    near = [column for column in panel.columns if column[:2] == victim[:2]]
    mine = [column[3] for column in near if column[2] == victim[2]]
    met = [{c[3] for c in near if c[2] == training} for training in {c[2] for c in near}]
    return [attack for attack in mine if all(attack in attacks for attacks in met)]


def restrict(found: Panels, victims: Iterable[Victim]) -> list[pd.DataFrame]:
    """The panels of those repeats that hold all the victims, with only their columns."""
    victims = set(victims)
    kept = []
    for panel in found.values():
        have = {tuple(column[:3]) for column in panel.columns}
        if have.issuperset(victims):
            kept.append(panel[[column for column in panel.columns if tuple(column[:3]) in victims]])
    return kept


def over_attacks(panel: pd.DataFrame, victim: Victim) -> pd.Series:
    """The mean over the paper's attacks on a victim, clip by clip."""
    columns = [c for c in panel.columns if tuple(c[:3]) == victim and c[-1] in published.ATTACKS]
    return panel[columns].mean(axis=1)


def gain(original: Victim, robust: Victim) -> Callable[[pd.DataFrame], pd.Series]:
    """How much more of each clip is robust after the second training than after the first [points]."""
    return lambda panel: panel[(*robust, names.WORST)] - panel[(*original, names.WORST)]


def _tidy(rows: list[dict], more: Sequence[str] = ()) -> pd.DataFrame:
    """The rows as a frame that has its columns where there are no rows, too."""
    first = [*VICTIM, "measure", "value", "low", "high", "over", "paper", "difference", *more]
    return pd.DataFrame(rows).reindex(columns=list(dict.fromkeys(first)))


# --------------------------------------------------------------------------------------- summary and curves


def clean_changes(found: Analysis) -> pd.DataFrame:
    """The drops of accuracy by the paper's defence, as changes: the robust model's less the original's."""
    drops = found.recognition.query("measure == 'accuracy_drop_percent' and training == @ROBUST")
    turned = {"value": 0 - drops["value"], "low": 0 - drops["high"], "high": 0 - drops["low"]}
    return drops.assign(measure="accuracy_change_percent", **turned)


def summary(found: Analysis) -> pd.DataFrame:
    """Clean and robust accuracy [%] of both models, per representation: means over its attacked networks.

    Over all evaluated clips; a clip's number is the mean over the networks of `Analysis.averaged`. Columns
    representation, measure (``clean_percent``, ``robust_percent`` and, paired by clip, the robust model's
    less the original's: ``clean_change_percent``, ``gain_percent``), training, value, low, high, over,
    networks.
    """
    rows = []
    kinds = (
        ("clean_percent", "clean_change_percent", found.clean),
        ("robust_percent", "gain_percent", found.robust),
    )
    for representation in names.in_order(v[0] for v in found.attacked):
        mine = found.averaged_on(representation)
        robust = [defended(v) for v in mine]

        def mean(panel: pd.DataFrame, victims: Sequence[Victim]) -> pd.Series:
            return panel[[(*v, names.WORST) for v in victims]].dropna().mean(axis=1)

        for share, change, panels in kinds:
            both = [*mine, *robust]  # in the same repeats, so that the change is that of the two
            before = found.mean(panels, both, lambda p, v=mine: mean(p, v))
            after = found.mean(panels, both, lambda p, v=robust: mean(p, v))
            gain = found.mean(panels, both, lambda p, b=mine, a=robust: mean(p, a) - mean(p, b), POINTS)
            for measure, training, measured in (
                (share, "standard", before),
                (share, ROBUST, after),
                (change, ROBUST, gain),
            ):
                point = {"representation": representation, "measure": measure, "networks": len(mine)}
                rows.append(point | {"training": training} | measured._asdict())
    columns = ["representation", "measure", "networks", "training", *Estimate._fields]
    return pd.DataFrame(rows, columns=columns)


def deciding(found: Analysis) -> pd.Series:
    """By attack: of the correct clips that some attack misclassifies within ε, how many this one does [%].

    Over all models; empty where no clip is misclassified.
    """
    hits: dict[str, float] = {}
    for fold, robust in found.robust.items():
        lost = found.clean[fold] - robust
        for column in lost:
            both = lost[column] * lost[(*column[:3], names.WORST)]
            hits[column[3]] = hits.get(column[3], 0.0) + float((both > 0).sum())
    total = hits.pop(names.WORST, 0.0)
    return 100 * pd.Series(hits, dtype=float).reindex(names.in_order(hits)) / total if total else pd.Series()


def gains_by_own_attacks(found: Analysis) -> dict[str, float]:
    """By representation, the mean gain in robust accuracy [points] under the paper's own attacks alone."""

    def robust(fold: str, victim: Victim) -> pd.Series:
        panel = found.robust[fold]
        own = [panel[(*victim, attack)] for attack in published.ATTACKS if (*victim, attack) in panel]
        return pd.concat([found.clean[fold][(*victim, names.WORST)], *own], axis=1).min(axis=1, skipna=False)

    gains: dict[str, list[float]] = {}
    for v in found.averaged:
        for fold, panel in found.robust.items():
            if {(*v, names.WORST), (*defended(v), names.WORST)} <= set(panel.columns):
                gains.setdefault(v[0], []).append((robust(fold, defended(v)) - robust(fold, v)).mean())
    return {representation: float(np.mean(each)) for representation, each in gains.items()}


def by_fold(found: Analysis) -> pd.DataFrame:
    """What adversarial training changes in each fold and seed: means over pairs, paired by clip [points].

    They are of the pairs of `Analysis.common`, so that folds have the same ones. Columns fold, measure
    (``accuracy_drop_percent``, ``gain_percent``), value, low, high, over.
    """
    rows = []
    for fold in found.results.folds:
        for measure, panels in (("accuracy_drop_percent", found.correct), ("gain_percent", found.robust)):
            panel = panels.get(fold, pd.DataFrame())
            worst = (names.WORST,) if measure == "gain_percent" else ()
            pairs = [v for v in found.common if {(*v, *worst), (*defended(v), *worst)} <= set(panel.columns)]
            if not pairs:
                continue
            before, after = (panel[[(*of(v), *worst) for v in pairs]] for of in (tuple, defended))
            change = (after.to_numpy() - before.to_numpy()) * (1 if worst else -1)
            clips = pd.DataFrame(change, index=panel.index).dropna().mean(axis=1)
            measured = metrics.over_clips(clips, found.sources.reindex(clips.index), bounds=POINTS)
            rows.append({"fold": fold, "measure": measure} | measured._asdict() | {"pairs": len(pairs)})
    return pd.DataFrame(rows)


CURVE = ["representation", "training", "attack", "norm", "rate", "low", "high"]


def robust_curves(found: Analysis) -> pd.DataFrame:
    """Robust accuracy [%] at each norm, of each training and attack: mean, lowest and highest victim."""
    curves = _curves(found, found.needed)
    ends = {"rate": "rate", "low": "high", "high": "low"}
    return curves.assign(**{name: 100 * (1 - curves[other]) for name, other in ends.items()})


def fooling_curves(found: Analysis) -> pd.DataFrame:
    """Rates of attacked clips for which an attack reached its goal, at each norm."""
    return _curves(found, found.norms)


def _curves(found: Analysis, panels: Panels, count: int = 120) -> pd.DataFrame:
    """Shares of clips at or below ``count`` norms, even in the logarithm, and every stair where those are
    fewer."""
    gathered: dict[tuple[str, str, str], list[pd.Series]] = {}
    paired = {v[0] for v in found.attacked}
    takes_part = functools.cache(functools.partial(_takes_part, found, found.averaged))
    for fold, panel in panels.items():
        for (representation, model, training, attack), values in panel.items():
            victim = (representation, model, training)
            if representation not in paired or takes_part(victim, fold):
                gathered.setdefault((representation, training, attack), []).append(values.dropna())
    budgets = found.budgets.values()
    every = np.concatenate([*(v for victims in gathered.values() for v in victims), [np.inf]])
    inside = every[np.isfinite(every) & (every > 0)]
    least = min(inside.min(initial=np.inf), min(budgets, default=1.0) / 10)
    even = np.geomspace(least / 1.2, max(inside.max(initial=0), 10 * max(budgets, default=1.0)) * 1.2, count)
    rows = []
    for key, victims in gathered.items():
        stairs = np.unique(np.concatenate(victims))
        stairs = stairs[np.isfinite(stairs) & (stairs > 0)]
        at = np.union1d(even, stairs) if len(stairs) <= count else even
        rates = metrics.rate_within(dict(enumerate(victims)), at).to_numpy()
        spread = zip(at, rates.mean(axis=0), rates.min(axis=0), rates.max(axis=0), strict=True)
        rows += [(*key, *line) for line in spread]
    return pd.DataFrame(rows, columns=CURVE)


# --------------------------------------------------------------------------------------- attacks, cost, rest


def by_attack(found: Analysis) -> pd.DataFrame:
    """Fooling of each attack, averaged over victims of a training: within ε, without limit, norms.

    The paper's two trainings are compared over the same pairs, those of `Analysis.common`. Columns training,
    attack (the worst case and the controls among them), ``within_percent`` and ``ever_percent`` by the
    attack's goal, ``any_percent`` (any wrong class within ε, of any example that it met), ``median_norm`` (of
    clips, ∞ where most attacks failed), bound ("≥" where some clips are censored, "≤" where norms are those
    of cut walks), victims.
    """
    gathered: dict[tuple[str, str], list] = {}
    points = found.results.attacks.groupby([*PAIR, "fold", "training"])
    for (representation, model, fold, training), part in points:
        victim = (representation, model, training)
        if found.attacked and not _takes_part(found, found.common, victim, fold):
            continue
        limit = found.budgets[representation]
        least, harm = (_with_worst(metrics.least_norms(part, success=how)) for how in ("fooled", "any"))
        least[names.WORST] = harm[names.WORST]  # its goal is any wrong class
        shares = [metrics.within(least, limit), metrics.ever(least), metrics.within(harm, limit)]
        table = pd.DataFrame([*(100 * part.mean() for part in shares), least.median()])
        for attack in table:
            gathered.setdefault((training, attack), []).append(table[attack].to_numpy())
    lines = []
    for training in names.in_order(training for training, _ in gathered):
        for attack in names.in_order(attack for t, attack in gathered if t == training):
            values = np.array(gathered[training, attack], dtype=float)
            walks = {victim[3] for victim in found.at_most if victim[2] == training}
            mark = metrics.bound(attack in walks, bool((values[:, 1] < 100).any()))
            lines.append((training, attack, *values[:, :3].mean(axis=0), np.median(values[:, 3]), mark))
            lines[-1] += (len(values),)
    columns = ["training", "attack", "within_percent", "ever_percent", "any_percent", "median_norm"]
    return pd.DataFrame(lines, columns=[*columns, "bound", "victims"])


def _takes_part(found: Analysis, pairs: Sequence[Victim], victim: Victim, fold: str) -> bool:
    """Whether a victim is in the means of this fold: it is of one of these pairs, both of which were attacked
    there, and so was a model of its training for each pair on its representation wherever these were. So all
    means on a representation are of the same networks and folds."""
    pair = [(*victim[:2], "standard"), defended(victim)]
    if pair[0] not in pairs or not restrict({fold: found.needed.get(fold, pd.DataFrame())}, pair):
        return False
    beside = [[v, defended(v), (*v[:2], victim[2])] for v in pairs if v[0] == victim[0]]
    return all(len(restrict(found.needed, each)) == len(restrict(found.needed, each[:2])) for each in beside)


def _with_worst(norms: pd.DataFrame) -> pd.DataFrame:
    attacks = [attack for attack in norms if attack in names.ATTACKS | names.REFERENCE]
    return norms.assign(**{names.WORST: metrics.worst_case(norms[attacks])})


def cost(found: Analysis) -> pd.DataFrame:
    """What an attack spends on a clip before and after adversarial training: mean counts over all clips.

    Over victims that were attacked both before and after. Columns attack, measure (`COUNTS`), original,
    robust, ratio, and clips. Seconds are in `seconds`.
    """
    rows = found.results.attacks[found.results.attacks["training"].isin(["standard", ROBUST])]
    both, lines = rows[rows.groupby([*PAIR, "fold"])["training"].transform("nunique") == 2], []
    for attack in names.in_order(both["attack"]):
        mine = both[both["attack"] == attack]
        for measure in COUNTS:
            spent = mine.groupby("training")[measure].mean()
            before, after = float(spent.get("standard", np.nan)), float(spent.get(ROBUST, np.nan))
            lines.append((attack, measure, before, after, after / before if before else np.nan, len(mine)))
    return pd.DataFrame(lines, columns=["attack", "measure", "original", "robust", "ratio", "clips"])


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
    attacks = [*names.ATTACKS, *names.REFERENCE, *names.CONTROLS]
    order = {name: i for i, name in enumerate(["", *names.TRAININGS, "", *attacks])}
    rank = frame[["training", "attack"]].map(lambda name: order.get(name, len(order)))
    rank = rank.assign(chapter=frame["chapter"]).sort_values(["chapter", "training", "attack"])
    return frame.loc[rank.index]


def leaks(results: Results) -> pd.DataFrame:
    """Accuracy under each way of splitting, where chapter 3 measured it, and its distance from official."""
    frame = results.leaks
    if frame.empty:
        return pd.DataFrame(columns=[*POINT, "protocol", "accuracy", "low", "high", "over", "above official"])
    official = frame[frame["protocol"] == "official"].set_index(POINT)["accuracy"]
    above = frame["accuracy"] - official.reindex(pd.MultiIndex.from_frame(frame[POINT])).to_numpy()
    return frame.assign(**{"above official": above})


# ------------------------------------------------------------------------------------------------ image size


def scaling(found: Analysis) -> pd.DataFrame:
    """The norm that the reference attack needs at each image size, of models that were attacked at several.

    Over the clips that a model classifies correctly at all its sizes, so that sizes are compared on the same
    clips. Norms are geometric means over these, so that their ratio is the mean ratio of a clip.

    Returns
    -------
    One row per victim and size, smaller images first: `VICTIM`, bins, frames, ``accuracy`` [%] of all tested
    clips of those folds that all its sizes have, ``clips`` behind the norms, ``norm``, and ``relative``, the
    mean of norm ÷ √(bins · frames) divided by that of the smallest size, each with ``_low`` and ``_high``;
    ``still``, what ``relative`` would be if norms did not grow at all; and ``p``, of relative = 1.
    """
    rows = pd.concat([at_size(found.results), found.results.other_sizes], ignore_index=True)
    rows = rows.assign(values=(rows["bins"] * rows["frames"]).astype(float))
    lines = []
    for victim in found.all_victims:
        mine = rows[(rows[VICTIM] == list(victim)).all(axis=1)]
        wide = mine.pivot_table(index=["fold", "clip", "source"], columns="values", values="norm").dropna()
        if len(wide.columns) > 1 and len(wide):
            sizes = mine.drop_duplicates("values").set_index("values")[["bins", "frames"]]
            shared = mine.groupby("fold")["values"].transform("nunique") == len(sizes)
            accuracy = 100 * mine[shared].groupby("values")["correct"].mean()
            point = dict(zip(VICTIM, victim, strict=True))
            lines.append(_growth(wide).join(sizes).assign(accuracy=accuracy, **point))
    columns = [*VICTIM, "bins", "frames", "accuracy", "clips", "norm", "norm_low", "norm_high"]
    columns += ["relative", "relative_low", "relative_high", "still", "p"]
    return pd.concat(lines, ignore_index=True)[columns] if lines else pd.DataFrame()


def _growth(wide: pd.DataFrame) -> pd.DataFrame:
    """The norms of clip × size by size, as `scaling` returns them."""
    first, rows = wide.columns[0], []
    source = pd.Series(wide.index.get_level_values("source"), wide.index)
    for values in wide:
        norm = metrics.jackknife(wide[[values]], metrics.geometric_mean, source)[:3]
        growth = (wide[values] / wide[first] / np.sqrt(values / first)).to_frame()
        relative = metrics.jackknife(growth, metrics.geometric_mean, source)
        error = np.log(relative.high / relative.low) / 2 / _quantile(source)
        p = 2 * stats.t.sf(abs(np.log(relative.value)) / error, source.nunique() - 1)
        rows.append((len(wide), *norm, *relative[:3], np.sqrt(first / values), p))
    columns = ["clips", "norm", "norm_low", "norm_high", "relative", "relative_low", "relative_high"]
    return pd.DataFrame(rows, wide.columns, [*columns, "still", "p"])


def _quantile(source: pd.Series) -> float:
    """Student's quantile of a 95 % interval over recordings."""
    return float(stats.t.ppf((1 + metrics.LEVEL) / 2, source.nunique() - 1))
