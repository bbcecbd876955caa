"""The claim ledger: each sentence of the paper that can be tested, and each cell of its tables, tested.

A claim is made of *parts*, each a number that should be above a threshold, measured once per training (a
fold, or a fold with another seed; folds share training clips, so intervals may be too narrow). A verdict is
given only where the run could have shown the opposite, otherwise the claim is *open* and the ledger says why:

- one training says nothing of another, so a sentence on models, architectures or representations needs at
  least `TRAININGS` trainings of each model that it compares, and unfinished trainings take no part; nor do,
  in a sentence on every model, models that were trained less often than that while others were not;
- the claim *holds* if every part lies above its threshold by its 95 % interval, over trainings and over all
  their clips. Several parts that must all hold need no correction: that all look true by chance is less
  likely than that one does;
- it *does not hold* if some part lies below, by its p-value after Holm's correction for the number of parts,
  and by its interval over clips. Where what was measured is only the least that a part can be, the most that
  it can be has to lie below as well;
- a sentence that names the best of several compares it with each of the others;
- a sentence on what "any budget" does is tested only by attacks whose ladder is as long as the paper's.

A cell of a table is *compatible* with ours where our interval contains it. It is open where ours is a bound
or rests on an unfinished training.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from lib import metrics, names
from lib.analysis import published, tables
from lib.analysis.tables import TRAININGS, Analysis, Victim, defended
from lib.metrics import Estimate

HOLDS, FAILS, OPEN = "holds", "does not hold", "open"
AGREES, DIFFERS = "compatible", "not compatible"  # of a cell of the paper's tables
WRONG = 0.025  # the share of false sentences that may pass, on either side: an interval of 95 %
_STFT, _DWT, _ST, _DT = _EVERY = published.REPRESENTATIONS
COLUMNS = (
    *("claim", "where", "said of", "paper", "ours", "low", "high", "parts", "trainings", "clips"),
    *("verdict", "open", "why", "opposite"),
)
REASONS = (  # of open sentences, as they are counted; the column "open" has one of them
    *("not run", "that no run of ours can decide", "with attacks that are too short or too coarse"),
    *("with too few trainings", "that the intervals leave open"),
)
NOT_RUN, NEVER, WEAK, FEW, BOTH = REASONS


class Measured(NamedTuple):
    """A part of a claim: a number per training, and their mean, whose interval may be wider for its clips."""

    values: Sequence[float]
    mean: Estimate

    @classmethod
    def of(cls, values: Sequence[float]) -> "Measured":
        """A part of which nothing is known but its trainings."""
        return cls(values, metrics.over_repeats(values))

    @property
    def agree(self) -> bool:
        """Whether the trainings do not differ, so that their spread is not known."""
        return bool(np.isnan(metrics.over_repeats(self.values).low))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper and what this run measures of it.

    Parameters
    ----------
    sentence : what is claimed.
    paper : what the paper's own tables say to it.
    parts : by name, what is above `threshold` where the part is true.
    opposite : what would have shown that it does not hold.
    where : in which sections or tables of the paper.
    of : the data set of which it is said; "both" its two.
    threshold : of every part.
    most : the parts as large as they can be, where those measured are the least; empty where they are exact.
    clips : behind each number, the fewest.
    impossible : why this run could not have shown the opposite, whatever it measured, or "".
    never : no run of ours could have.
    note : what a reader has to know of the number, whatever the verdict.
    counted : the parts are counts without an error, and one training is enough.
    bounds : between which the parts lie, for their intervals.
    ratio : the parts are logarithms of ratios, and are reported as ratios.
    """

    sentence: str
    paper: str
    parts: Mapping[str, Measured]
    opposite: str
    where: str = "VIII"
    of: str = "both"
    threshold: float = 0.0
    most: Mapping[str, Measured] = dataclasses.field(default_factory=dict)
    clips: int = 0
    impossible: str = ""
    never: bool = False
    note: str = ""
    counted: bool = False
    bounds: tuple[float, float] = tables.POINTS
    ratio: bool = False


def decide(parts: Mapping[str, Measured], threshold: float) -> str:
    """The verdict on "every part is above the threshold"; see the head of this module."""
    if not parts:
        return OPEN
    below, above = zip(*(_chances(part, threshold) for part in parts.values()), strict=True)
    if max(above) <= WRONG:
        return HOLDS
    return FAILS if min(below) <= WRONG / len(parts) else OPEN  # Holm's first step: is any part below?


def _chances(part: Measured, threshold: float) -> tuple[float, float]:
    """The p-values of a part below and above the threshold; 1 where it does not decide that."""
    known, mean = np.asarray(part.values, dtype=float), part.mean
    if len(known) < TRAININGS or not np.isfinite(known).all() or part.agree:
        return 1.0, 1.0
    t = (known.mean() - threshold) / (known.std(ddof=1) / np.sqrt(len(known)))
    below = stats.t.cdf(t, len(known) - 1) if mean.high < threshold else 1.0
    return below, stats.t.sf(t, len(known) - 1) if mean.low > threshold else 1.0


def ledger(found: Analysis, parameters: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Every claim with ours, the paper's number, n, and the verdict or why there is none.

    Parameters
    ----------
    parameters : model to its number of weights, for the sentence on ResNet-56's size.

    Returns
    -------
    Columns ``COLUMNS``: sentences first, then cells of tables, these only where the data set is the paper's;
    of both, those with a verdict first. ``ours`` is the number of a sentence with one part, and of one with
    several the part that supports it least; ``clips`` is 0 for a count.
    """
    claims = _sentences(found) + _weights(parameters or {})
    of_both = ([_row(claim) for claim in claims], _cells(found))
    rows = [row for rows in of_both for row in sorted(rows, key=lambda row: row["verdict"] == OPEN)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(claim: Claim) -> dict:
    known = {name: part for name, part in claim.parts.items() if len(part.values)}
    each = [part.mean for part in known.values()]
    trainings = min((len(part.values) for part in known.values()), default=0)
    verdict, open_, why = OPEN, "", claim.impossible
    if claim.counted and known:
        verdict = HOLDS if all(v > claim.threshold for part in known.values() for v in part.values) else FAILS
    elif not known:
        open_ = NEVER if claim.never else NOT_RUN
        why = why or "nothing of it was run, or no training of it is finished"
    elif why:
        open_ = WEAK
    elif (verdict := decide(known, claim.threshold)) == FAILS and claim.most:
        verdict = decide(claim.most, claim.threshold)
        if verdict != FAILS:
            verdict, open_, why = OPEN, WEAK, claim.note
    elif verdict == OPEN and trainings < TRAININGS:
        open_, one = FEW, "one training" if trainings == 1 else f"{trainings} trainings"
        why = f"{one} of each model, and the sentence needs {TRAININGS}"
    elif verdict == OPEN:
        open_, why = BOTH, "the intervals contain both answers"
        if any(part.agree for part in known.values()):
            why = claim.note or "all trainings agree, so that their spread is not known"
    measured = min(each, key=lambda e: e.value, default=Estimate(np.nan, np.nan, np.nan, ""))
    ends = np.array(measured[:3])
    ends = np.exp(ends) if claim.ratio else ends if claim.counted else np.clip(ends, *claim.bounds)
    numbers = dict(zip(("ours", "low", "high"), ends, strict=True))
    counts = {"parts": len(known), "trainings": trainings, "clips": claim.clips}
    words = {"claim": claim.sentence, "where": claim.where, "said of": claim.of, "paper": claim.paper}
    decided = {"verdict": verdict, "open": open_, "why": why or claim.note, "opposite": claim.opposite}
    return words | numbers | counts | decided


# ---------------------------------------------------------------------------------------- what was measured


def _finished(found: Analysis, victims: Sequence[Victim]) -> list[Victim]:
    """Those that the paper speaks of and whose trainings, the robust one of the pair too, are finished."""
    return [v for v in _originals(found) if v in victims and defended(v) not in found.unfinished]


def _originals(found: Analysis) -> list[Victim]:
    alone = [v for v in found.victims("standard") if v not in found.unfinished]
    return [v for v in alone if v[0] in published.REPRESENTATIONS and v[1] in published.MODELS]


def _means(
    found: Analysis, panels, victims: Sequence[Victim], score: Callable, bounds=tables.POINTS
) -> Measured:
    """One number per repeat that holds all the victims, and their mean."""
    parts = found.scores(panels, victims, score)
    return Measured([float(part.mean()) for part in parts], found.over_parts(parts, bounds))


def _clips(panels, victims: Sequence[Victim]) -> int:
    """The fewest clips of a victim in a repeat."""
    each = (panel.dropna(how="all") for v in victims for panel in tables.restrict(panels, [v]))
    return min(map(len, each), default=0)


def _reported(found: Analysis, measure: str) -> list[pd.DataFrame]:
    """The paper's table of a measure: of this data set, or of both where it is none of the paper's."""
    here = found.results.dataset
    known = [here] if here in published.DATASETS else published.DATASETS
    return [published.table(measure, dataset) for dataset in known]


def _share(frames: Sequence[pd.DataFrame], threshold: float) -> str:
    values = np.concatenate([frame.to_numpy().ravel() for frame in frames])
    return f"{(values > threshold).sum()} of {len(values)}"


def _pair(victim: Victim) -> str:
    return f"{names.label(victim[1])} on {names.label(victim[0])}"


# ------------------------------------------------------------------------------------------- the sentences


def _attacked(found: Analysis) -> list[Victim]:
    """The finished pairs, by their original model, of which both models were attacked."""
    return [v for v in _finished(found, found.pairs) if v in found.attacked]


def _every_trained(found: Analysis) -> list[Victim]:
    """The finished pairs that a sentence on every model is about."""
    return found.often(found.correct, _finished(found, found.pairs))


def _every_attacked(found: Analysis) -> list[Victim]:
    """Those of which both models were attacked, too."""
    return found.often(found.needed, _attacked(found))


def rare(found: Analysis) -> list[Victim]:
    """The finished pairs that were trained too rarely for sentences on every model."""
    every = _every_trained(found)
    return [v for v in _finished(found, found.pairs) if v not in every]


def _by_pair(found: Analysis, panels, pairs: Sequence[Victim], score: Callable) -> dict[str, Measured]:
    """The mean of ``score(panel, original, robust)`` in each training, by pair."""
    both = {v: [v, defended(v)] for v in pairs}
    return {_pair(v): _means(found, panels, b, lambda p, b=b: score(p, *b)) for v, b in both.items()}


def _leads(found: Analysis, measure: str) -> str:
    """On how many of the representations ResNet-56 leads in the paper's tables of a measure."""
    tabs = _reported(found, measure)
    return f"{sum((t.idxmax(axis=1) == 'resnet56').sum() for t in tabs)} of {4 * len(tabs)}"


def _best(found: Analysis) -> Claim:
    best, rivals = (_DT, "resnet56", "standard"), _originals(found)
    parts = {
        _pair(other): _means(found, found.correct, [best, other], lambda p, o=other: p[best] - p[o])
        for other in (rivals if best in rivals else ())
        if other != best
    }
    leads = []
    for table in _reported(found, "accuracy_percent"):
        first, second = np.sort(table.to_numpy().ravel())[[-1, -2]]
        leads.append(f"{first - second:+.2f}" if first == table.loc[_DT, "resnet56"] else "no")
    return Claim(
        sentence="ResNet-56 on DWT | Tonnetz classifies more clips correctly than any other pair [points]",
        where="abstract, VIII",
        paper=", ".join(leads),
        parts=parts,
        opposite="another pair that is better by its paired interval",
        clips=_clips(found.correct, [best]),
    )


def _majority(found: Analysis) -> Claim:
    rivals, parts = _originals(found), {}
    everywhere = [m for m in published.MODELS if all((r, m, "standard") in rivals for r in _EVERY)]

    def leads(panel: pd.DataFrame) -> float:
        mean = panel.mean().unstack("model")[everywhere].xs("standard", level="training")
        return 100 * float((mean["resnet56"] > mean.drop(columns="resnet56").max(axis=1)).mean())

    if "resnet56" in everywhere and len(everywhere) > 1:
        victims = [(r, m, "standard") for r in _EVERY for m in everywhere]
        each = [leads(panel) for panel in tables.restrict(found.correct, victims)]
        parts["representations"] = Measured.of(each)
    return Claim(
        sentence="ResNet-56 has the highest accuracy on most representations [% of them]",
        paper=_leads(found, "accuracy_percent"),
        parts=parts,
        opposite="it leads on half of the four representations or fewer, in most trainings",
        threshold=50,
        bounds=tables.PERCENT,
        clips=_clips(found.correct, rivals),
        impossible="" if parts else "it needs ResNet-56 and another model on all four representations",
    )


def _drop(found: Analysis) -> Claim:
    pairs = _every_trained(found)
    return Claim(
        sentence="adversarial training lowers the accuracy of every model [points lost]",
        where="abstract, VIII, IX",
        paper=_share(_reported(found, "accuracy_drop_percent"), 0),
        parts=_by_pair(found, found.correct, pairs, lambda p, before, after: p[before] - p[after]),
        opposite="one model whose accuracy rises by its paired interval",
        clips=_clips(found.correct, pairs),
    )


_DROPS = (  # which representation loses more accuracy than which others, and the data set of which it is said
    ("STFT | Tonnetz loses more accuracy than each other representation", "esc50", _ST, (_STFT, _DWT, _DT)),
    ("DWT | Tonnetz loses more accuracy than STFT | Tonnetz", "urbansound8k", _DT, (_ST,)),
    ("DWT loses more accuracy than STFT", "both", _DWT, (_STFT,)),
)


def _drops(found: Analysis, sentence: str, of: str, first: str, others: tuple[str, ...]) -> Claim:
    """One of `_DROPS`."""
    pairs = _every_trained(found)
    models = [m for m in published.MODELS if all((r, m, "standard") in pairs for r in (first, *others))]

    def lost(panel: pd.DataFrame, r: str) -> pd.Series:
        each = [panel[r, m, "standard"] - panel[r, m, tables.ROBUST] for m in models]
        return pd.concat(each, axis=1).mean(axis=1, skipna=False)

    parts = {}
    for other in others if models else ():
        victims = [(r, m, t) for r in (first, other) for m in models for t in ("standard", tables.ROBUST)]
        more = lambda p, o=other: lost(p, first) - lost(p, o)  # noqa: E731
        parts[names.label(other)] = _means(found, found.correct, victims, more)
    wanted = published.DATASETS if of == "both" else (of,)
    means = [published.table("accuracy_drop_percent", d).mean(axis=1) for d in wanted]
    return Claim(
        sentence=f"{sentence} [points]",
        of=of,
        paper=", ".join(f"{t[first] - t[list(others)].max():+.2f}" for t in means),
        parts=parts,
        opposite="a representation of which the models lose more",
        clips=_clips(found.correct, pairs),
    )


def _more_robust(found: Analysis) -> Claim:
    pairs = _every_attacked(found)
    return Claim(
        sentence="adversarial training raises the worst-case robust accuracy of every model [points]",
        where="abstract, VIII, IX",
        paper="no control",
        parts=_by_pair(found, found.robust, pairs, lambda p, *both: tables.gain(*both)(p)),
        opposite="one model that is less robust after it, by its paired interval",
        clips=_clips(found.robust, pairs),
    )


def _per_attack(found: Analysis) -> Claim:
    pairs, parts = _every_attacked(found), {}
    robust = [defended(v) for v in pairs]

    def mean(panel: pd.DataFrame, victims: Sequence[Victim], attack: str) -> pd.Series:
        columns = [(*v, attack) for v in victims]
        known = set(columns) <= set(panel.columns)
        return panel[columns].mean(axis=1) if known else pd.Series(np.nan, panel.index)

    for attack in published.ATTACKS if pairs else ():
        less = lambda p, a=attack: mean(p, pairs, a) - mean(p, robust, a)  # noqa: E731
        parts[attack] = _means(found, found.fooled_of_all, [*pairs, *robust], less)
    never = [attack for attack, part in parts.items() if len(part.values) and not np.any(part.values)]
    return Claim(
        sentence="adversarial training lowers the fooling by each of the six attacks, over models [points]",
        where="abstract, IX",
        paper="no control",
        parts=parts,
        opposite="one attack that fools more clips after it",
        note=f"{', '.join(never)}: as many within ε before as after in each training" if never else "",
        impossible=_coarse(found),
        clips=_clips(found.fooled_of_all, pairs),
    )


def _alexnet(found: Analysis) -> Claim:
    robust = [defended(v) for v in _attacked(found)]
    here = [r for r, model, _ in robust if model == "alexnet"]
    rivals = [
        m for m in published.MODELS if m != "alexnet" and all((r, m, tables.ROBUST) in robust for r in here)
    ]

    def fooled(panel: pd.DataFrame, model: str) -> pd.Series:
        each = [tables.over_attacks(panel, (r, model, tables.ROBUST)) for r in here]
        return pd.concat(each, axis=1).mean(axis=1, skipna=False)

    parts = {}
    for other in rivals if here else ():
        victims = [(r, m, tables.ROBUST) for r in here for m in ("alexnet", other)]
        more = lambda p, o=other: fooled(p, o) - fooled(p, "alexnet")  # noqa: E731
        parts[names.label(other)] = _means(found, found.fooled_of_all, victims, more)
    means = [t.mean().sort_values() for t in _reported(found, "fooling_auc_percent")]
    return Claim(
        sentence="the robust AlexNet is fooled the least of all models, over representations [points]",
        paper=", ".join(f"{mean.iloc[1] - mean['alexnet']:+.2f}" for mean in means),
        parts=parts,
        opposite="another robust model that is fooled less",
        clips=_clips(found.fooled_of_all, robust),
    )


def _unlimited(found: Analysis) -> Claim:
    robust = [defended(v) for v in _every_attacked(found)]
    ever = {fold: 100 * metrics.ever(panel) for fold, panel in found.norms.items()}
    missed = {
        c[3] for panel in found.norms.values() for c in panel if c[:3] in robust and np.isinf(panel[c]).any()
    }
    return Claim(
        sentence="without a limit every robust model is fooled in over 90 %, averaged over attacks [%]",
        where="abstract, VIII",
        paper="yes",
        parts={
            _pair(v): _means(found, ever, [v], lambda p, v=v: tables.over_attacks(p, v), tables.PERCENT)
            for v in robust
        },
        opposite="a robust model that equally long ladders fool in 90 % of clips or less",
        threshold=100 * metrics.THRESHOLD,
        bounds=tables.PERCENT,
        clips=_clips(found.norms, robust),
        impossible="; ".join(why for attack, why in shorter(found, robust).items() if attack in missed),
    )


LONGEST = {"JSMA": ("jsma_steps", 1000), "CWA": ("cwa_steps", 1500), "PIA": ("pia_steps", 500)}


def shorter(found: Analysis, victims: Sequence[Victim]) -> dict[str, str]:
    """The attacks on these victims whose settings end before the paper's, each with how it ended."""
    cells = found.results.cells.reindex(columns=["chapter", *tables.VICTIM, "parameters"]).dropna()
    ends: dict[str, int] = {}
    for cell in cells[cells["chapter"] == "04_attacks"].to_dict("records"):
        if tuple(cell[axis] for axis in tables.VICTIM) in victims:
            values = json.loads(cell["parameters"])
            for attack, (name, paper) in LONGEST.items():
                end = int(np.max(values.get(name, paper)))
                if end < paper:
                    ends[attack] = min(end, ends.get(attack, end))
    return {
        attack: f"{attack} ended after {ends[attack]} iterations where the paper's go to {paper}"
        for attack, (_, paper) in LONGEST.items()
        if attack in ends
    }


def _coarse(found: Analysis) -> str:
    """Why attacks could not have fooled a clip within the budget, or ""."""
    coarse = ", ".join(found.too_coarse)
    return f"{coarse} cannot succeed within ε by its smallest step" if coarse else ""


def _within_budget(found: Analysis) -> Claim:
    robust = [defended(v) for v in _every_attacked(found)]
    short, most = shorter(found, robust), {}
    for fold, panel in found.conceivable.items():
        near = panel.mask(panel.notna() & [column[3] in short for column in panel.columns], 0.0)
        most[fold] = 100 * metrics.within(near, found.limits(near))
    cut = names.in_order(v[3] for v in sorted(found.at_most) if v[:3] in robust and v[3] not in short)
    cut = [f"walks that were cut ({', '.join(cut)})"] * bool(cut)
    cut += [f"attacks that end before the paper's ({', '.join(names.in_order(short))})"] * bool(short)

    def parts(panels) -> dict[str, Measured]:
        each = {v: lambda p, v=v: tables.over_attacks(p, v) for v in robust}
        return {_pair(v): _means(found, panels, [v], score, tables.PERCENT) for v, score in each.items()}

    largest = parts(most) if cut else {}
    ends = tables.spread(round(part.mean.value) for part in largest.values()) if largest else ""
    return Claim(
        sentence="fooling over 90 % of a robust model's clips takes ε = 3 or less at the paper's size [%]",
        where="VIII, Table I",
        paper="yes",
        parts=parts(found.fooled),
        most=largest,
        opposite="a robust model of which 90 % or less are fooled within ε, averaged over attacks, even if "
        "every walk that was cut, and every attack that ends before the paper's, had fooled all clips",
        impossible=_coarse(found),
        note=f"{ends} % if {' and '.join(cut)} had fooled every clip" if largest else "",
        threshold=100 * metrics.THRESHOLD,
        bounds=tables.PERCENT,
        clips=_clips(found.norms, robust),
    )


def _larger(found: Analysis) -> Claim:
    """ε_r > 1 by the least-norm attacks: the logarithm of the geometric mean ratio, per training.

    A clip that the robust model keeps needs more than was tried, and the ratio is the least that can be.
    """
    parts, most, clips = {}, {}, []
    for v in _every_attacked(found):
        for attack in ("DeepFool", *names.REFERENCE):
            frames, kept = [], 0
            for panel in tables.restrict(found.norms, [v, defended(v)]):
                if {(*v, attack), (*defended(v), attack)} <= set(panel.columns):
                    ratios, lost = metrics.paired_ratios(panel[*v, attack], panel[*defended(v), attack])
                    frames += [ratios.to_frame()] if len(ratios) > lost else []
                    kept += lost
            if frames:
                clips += map(len, frames)
                value, low, high, over = found.over(frames, metrics.geometric_mean)
                logs = [float(np.log(frame).to_numpy().mean()) for frame in frames]
                mean = Estimate(*map(float, np.log([value, low, high])), over)
                parts[f"{_pair(v)}, {attack}"] = part = Measured(logs, mean)
                most[f"{_pair(v)}, {attack}"] = Measured([np.inf], mean) if kept else part
    return Claim(
        sentence="attacking every robust model takes a larger perturbation [ε_r, DeepFool, reference]",
        ratio=True,
        where="abstract, VIII, IX",
        paper=_share(_reported(found, "epsilon_ratio"), 1),
        parts=parts,
        most=most,
        note="some clips were not fooled, so that ratios are the least there can be" * (most != parts),
        opposite="one model of which the robust form needs less, with no clip that the attack does not fool",
        clips=min(clips, default=0),
    )


def _undecidable(found: Analysis) -> list[Claim]:
    """Sentences of which no run of ours could show the opposite: where, of, paper, opposite and why not."""
    rows = {
        "ResNet-56 has the highest ε_r in half of the experiments": (
            *("VIII", "both", _leads(found, "epsilon_ratio")),
            "a share that differs from a half, over many experiments",
            "the paper's experiments are eight, and a share of so few excludes nothing",
        ),
        "attacking robust models takes more gradient computations": (
            *("VIII", "both", "> 1"),
            "nothing: a clip that needs a larger perturbation climbs more rungs of our ladders",
            "the number of passes follows from our ladders of budgets",
        ),
        "every example of Fig. 1 is misclassified": (
            *("VIII, Fig. 1", "urbansound8k", "yes"),
            "the paper's own examples, which are not published",
            "our clip is not the paper's",
        ),
    }
    fields = ("where", "of", "paper", "opposite", "impossible")
    known = {sentence: dict(zip(fields, row, strict=True)) for sentence, row in rows.items()}
    return [Claim(sentence=sentence, parts={}, never=True, **row) for sentence, row in known.items()]


def _sentences(found: Analysis) -> list[Claim]:
    """The sentences, in the order of the ledger."""
    drops = [_drops(found, *said) for said in _DROPS]
    first = [make(found) for make in (_best, _majority, _drop)]
    then = (_more_robust, _per_attack, _alexnet, _unlimited, _within_budget, _larger)
    return first + drops + [make(found) for make in then] + _undecidable(found)


def _weights(parameters: Mapping[str, int]) -> list[Claim]:
    claims = []
    for other, said in published.PARAMETERS_ABOVE.items():
        known = {"resnet56", other} <= set(parameters)
        more = [100 * (parameters["resnet56"] / parameters[other] - 1)] if known else []
        claims.append(
            Claim(
                sentence=f"ResNet-56 has {said:g} % more parameters than {names.label(other)} [%]",
                of="models",
                paper=f"{said:+g}",
                parts={"weights": Measured.of(more)},
                opposite="a count of He et al.'s ResNet-56 that is below",
                note="of He et al.'s ResNet-56 for CIFAR-10; the paper describes no other",
                threshold=said - 0.05,
                counted=True,
            )
        )
    return claims


def _cells(found: Analysis) -> list[dict]:
    """Every cell of the paper's Tables I to III, compared where this run has at least `TRAININGS` of it."""
    if found.results.dataset not in published.DATASETS:
        return []
    frames = {"Table I": found.recognition, "Table II": found.fooling, "Table III": found.ratios}
    rows = []
    for where, frame in frames.items():
        for row in frame[frame["paper"].notna()].to_dict("records"):
            trainings = tables.trainings(row["over"])
            victim = (row["representation"], row["model"], row["training"])
            verdict, open_, why = OPEN, "", ""
            if trainings < TRAININGS:
                open_, why = FEW, f"needs {TRAININGS} trainings"
            elif unfinished := {victim, (*victim[:2], "standard")} & set(found.unfinished):
                open_, why = WEAK, f"unfinished: {found.unfinished[unfinished.pop()]}"
            elif weak := _bounded(found, row, victim):
                open_, why = WEAK, weak
            else:
                verdict = AGREES if row["low"] <= row["paper"] <= row["high"] else DIFFERS
            line = {"claim": f"{_MEASURES[row['measure']]}, {_pair(victim)}", "where": where}
            line |= {"said of": found.results.dataset, "paper": f"{row['paper']:g}", "ours": row["value"]}
            line |= {"low": row["low"], "high": row["high"], "parts": 1, "verdict": verdict}
            line |= {"trainings": max(trainings, 1), "open": open_, "why": why}
            rows.append(line | {"opposite": "an interval beside it"})
    return rows


def _bounded(found: Analysis, row: Mapping, victim: Victim) -> str:
    """Why a number that the paper's is compared with is only a bound, or ""."""
    if row.get("bound", "=") in ("≤", "≥", "?"):
        return "ours is only a bound: attacks failed, or walks were cut"
    if row["measure"] != "fooling_auc_percent":
        return ""
    walks = names.in_order(key[3] for key in sorted(found.at_most) if key[:3] == victim)
    said = [f"walks of {', '.join(walks)} were cut"] * bool(walks) + [*shorter(found, [victim]).values()]
    return "; ".join([*said, _coarse(found)] if _coarse(found) else said)


_MEASURES = {
    "accuracy_percent": "accuracy [%]",
    "accuracy_drop_percent": "drop [points]",
    "fooling_auc_percent": "fooled within ε [%]",
    "epsilon_ratio": "ε_r",
}
