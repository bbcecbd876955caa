"""The claim ledger: each sentence of the paper that can be tested, and each cell of its tables, tested.

A claim is a number with a threshold: its interval decides. It *holds* where the whole interval lies on the
paper's side, *does not hold* where the whole interval lies on the other side, and *cannot be told from
this run* otherwise, or where what it speaks of was not run. Where a sentence says "all", every part of it
must lie on its side, and one part that lies on the other side is enough to refute it. A cell of a table is
*compatible* with ours where our interval holds it: a wide interval is compatible with nearly anything.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib import metrics, names
from lib.analysis import published, tables
from lib.analysis.tables import Analysis
from lib.metrics import Estimate

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told from this run"
AGREES, DIFFERS = "compatible", "not compatible"  # of a cell of the paper's tables
FEWEST = 10  # clips below which no interval over clips is believed
COLUMNS = [
    "claim",
    "where",
    "said of",
    "scope",
    "paper",
    "ours",
    "low",
    "high",
    "difference",
    "over",
    "verdict",
]
_STFT, _DWT, _ST, _DT = published.REPRESENTATIONS
_NAMES = {
    "accuracy_percent": "accuracy [%]",
    "accuracy_drop_percent": "drop [points]",
    "fooling_auc_percent": "fooled within ε [%]",
    "epsilon_ratio": "ε_r",
}


def verdict(measured: Estimate, threshold: float) -> str:
    """Whether a number that should be above the threshold is, by its interval."""
    if np.isnan([measured.low, measured.high]).any() or _few(measured):
        return OPEN
    return HOLDS if measured.low > threshold else FAILS if measured.high <= threshold else OPEN


def agreement(measured: Estimate, reported: float) -> str:
    """Whether the interval holds the reported number."""
    if np.isnan([measured.low, measured.high]).any() or _few(measured):
        return OPEN
    return AGREES if measured.low <= reported <= measured.high else DIFFERS


def every(verdicts: Sequence[str]) -> str:
    """The verdict on "all": refuted by one, held by all together, else open."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and set(verdicts) == {HOLDS} else OPEN


def _few(measured: Estimate) -> bool:
    count, _, what = measured.over.partition(" ")
    return what == "clips" and int(count) < FEWEST


def ledger(found: Analysis, parameters: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Every claim with ours, the paper's number, the difference, the interval and the verdict.

    Parameters
    ----------
    parameters : model to its number of weights, for the sentence on ResNet-56's size.

    Returns
    -------
    Columns ``COLUMNS``: sentences first, then cells, these only where the data set is the paper's. ``ours``
    has the sign under which the claim is "above"; ``paper`` is what its own tables say to the sentence.
    """
    return pd.DataFrame(_sentences(found, parameters or {}) + _cells(found), columns=COLUMNS)


def _estimates(frame: pd.DataFrame, measure: str) -> dict[tuple[str, str], Estimate]:
    """The estimates of a measure by (representation, model).

    Censored clips leave a ratio open on their side: at least what was found, at most, or either.
    """
    rows = frame[frame["measure"] == measure]
    if "attack" in rows:
        rows = rows[rows["attack"] == "all"]
    found = {}
    for row in rows.to_dict("records"):
        low, high = row["low"], row["high"]
        sure = row.get("comparable") == row.get("attacks")  # over 0.9 everywhere, so little is censored
        if not np.isnan(low) and not sure:
            low = 0.0 if row.get("bound") in ("≤", "?") else low
            high = np.inf if row.get("bound") in ("≥", "?") else high
        found[row["representation"], row["model"]] = Estimate(row["value"], low, high, row["over"])
    return found


def _reported(found: Analysis, measure: str) -> list[pd.DataFrame]:
    """The paper's table of a measure: of this data set, or of both where it is none of the paper's."""
    here = found.results.dataset
    return [
        published.table(measure, d) for d in ([here] if here in published.DATASETS else published.DATASETS)
    ]


def _papers(victims: Sequence[tables.Victim]) -> list[tables.Victim]:
    """Those victims that the paper speaks of, whatever else was run."""
    return [v for v in victims if v[0] in published.REPRESENTATIONS and v[1] in published.MODELS]


def _row(claim, where, of, scope, paper, measured: Estimate, found, reference=0.0) -> list:
    low, high = measured.low, measured.high
    return [
        claim,
        where,
        of,
        scope,
        paper,
        measured.value,
        low,
        high,
        measured.value - reference,
        measured.over,
        found,
    ]


def _nothing(claim, where, of, paper, why) -> list:
    nan = float("nan")
    return [claim, where, of, why, paper, nan, nan, nan, nan, "", OPEN]


def _count(parts: Mapping, threshold: float = 0.0) -> Estimate:
    """A count of the parts that have a number above the threshold, as a percentage, with the counts that are
    sure.
    """
    known = [e for e in parts.values() if not np.isnan(e.value)]
    verdicts = [verdict(e, threshold) for e in known]
    n = len(verdicts)
    if not n:
        return Estimate(*[float("nan")] * 3, "0 parts")
    share = 100 * sum(e.value > threshold for e in known) / n
    sure, sure_not = verdicts.count(HOLDS), verdicts.count(FAILS)
    return Estimate(share, 100 * sure / n, 100 * (n - sure_not) / n, f"{n} parts")


def _all(claim, where, of, paper, parts: Mapping, what: str, threshold: float = 0.0) -> list:
    """A sentence that says "all": ours is the percentage of parts, between those sure and those possible."""
    if not parts:
        return _nothing(claim, where, of, paper, "none of it was run before and after")
    found = every([verdict(e, threshold) for e in parts.values()])
    undefined = sum(np.isnan(e.value) for e in parts.values())
    scope = f"{len(parts)} {what}" + (f", undefined for {undefined}" if undefined else "")
    return _row(claim, where, of, scope, paper, _count(parts, threshold), found, 100.0)


def _where_any(gains: Mapping, before: Mapping) -> dict:
    """Gains, open where the original was not fooled either: it says nothing of a defence."""
    nan = float("nan")
    return {
        key: gain if before[key] > 0 else Estimate(gain.value, nan, nan, gain.over)
        for key, gain in gains.items()
    }


def _sentences(run: Analysis, parameters: Mapping[str, int]) -> list[list]:
    rows = [_best(run), _majority(run)]
    drops = _estimates(run.recognition, "accuracy_drop_percent")
    paper = _reported(run, "accuracy_drop_percent")
    rows.append(
        _all("adversarial training lowers the accuracy of every model", "abstract, VIII, IX", "both",
             _share(paper, 0), drops, "pairs of representation and model")
    )  # fmt: skip
    rows += _drops(run)
    before = _estimates(run.fooling[run.fooling["training"] == "standard"], "fooling_auc_percent")
    gains = _estimates(run.fooling, "gain_percent")
    gains = _where_any(gains, {pair: before[pair].value for pair in gains})
    rows.append(
        _all("adversarial training makes every model more robust: fewer clips are fooled within the budget",
             "abstract, VIII, IX", "both", "no control", gains, "pairs of representation and model")
    )  # fmt: skip
    rows.append(_per_attack(run))
    rows.append(_alexnet(run))
    rows += _unlimited(run)
    rows.append(_within_budget(run))
    ratio = _estimates(run.ratios, "epsilon_ratio")
    paper = _reported(run, "epsilon_ratio")
    rows.append(
        _all("attacking every robust model takes a larger perturbation: ε_r > 1", "abstract, VIII, IX",
             "both", _share(paper, 1), ratio, "pairs of representation and model", 1.0)
    )  # fmt: skip
    rows.append(_ratio_leader(run, ratio))
    rows.append(_callbacks(run))
    rows.append(_pictures(run))
    rows += _weights(parameters)
    return rows


def _share(frames: Sequence[pd.DataFrame], threshold: float) -> str:
    values = np.concatenate([frame.to_numpy().ravel() for frame in frames])
    return f"{(values > threshold).sum()} of {len(values)}"


def _best(run: Analysis) -> list:
    claim = "ResNet-56 on DWT | Tonnetz names more clips rightly than any other pair [points ahead]"
    best, original = (_DT, "resnet56", "standard"), _papers(run.victims("standard"))
    others = [v for v in original if v != best]
    paper = ", ".join(
        f"{t.loc[_DT, 'resnet56'] - np.partition(t.to_numpy().ravel(), -2)[-2]:+.2f}"
        if t.to_numpy().max() == t.loc[_DT, "resnet56"] else "not"
        for t in _reported(run, "accuracy_percent")
    )  # fmt: skip
    if best not in original or not others:
        return _nothing(
            claim, "abstract, VIII", "both", paper, "ResNet-56 on DWT | Tonnetz, or any rival, is missing"
        )
    measured = run.mean(run.correct, original, lambda m: 100 * (m[best] - m[others].max(axis=1)))
    return _row(
        claim, "abstract, VIII", "both", f"against {len(others)} of 23", paper, measured, verdict(measured, 0)
    )


def _majority(run: Analysis) -> list:
    claim = "ResNet-56 has the highest accuracy on most representations [% of them]"
    wide, original = {}, _papers(run.victims("standard"))
    for representation in dict.fromkeys(v[0] for v in original):
        mine = [v for v in original if v[0] == representation]
        if (representation, "resnet56", "standard") in mine and len(mine) > 1:
            wide[representation] = mine
    tabs = _reported(run, "accuracy_percent")
    paper = f"{sum((t.idxmax(axis=1) == 'resnet56').sum() for t in tabs)} of {4 * len(tabs)}"
    if not wide:
        return _nothing(claim, "VIII", "both", paper, "ResNet-56 beside another model was not run")
    everyone = [v for mine in wide.values() for v in mine]

    def leads(m: pd.DataFrame) -> pd.Series:
        firsts = [
            m[(r, "resnet56", "standard")] > m[[v for v in mine if v[1] != "resnet56"]].max(axis=1)
            for r, mine in wide.items()
        ]
        return 100 * pd.concat(firsts, axis=1).mean(axis=1)

    measured = run.mean(run.correct, everyone, leads)
    scope = f"{len(wide)} of 4 representations, {len({v[1] for v in everyone})} of 6 models"
    found = verdict(measured, 50) if len(wide) == len(published.REPRESENTATIONS) else OPEN
    return _row(claim, "VIII", "both", scope, paper, measured, found, 50)


def _drops(run: Analysis) -> list[list]:
    """The three sentences that compare drops between representations."""
    said = [
        ("STFT | Tonnetz loses the most accuracy of all representations [points more than the next]",
         "esc50", _ST, (_STFT, _DWT, _DT)),
        ("DWT | Tonnetz loses slightly more accuracy than STFT | Tonnetz [points]", "urbansound8k",
         _DT, (_ST,)),
        ("DWT loses considerably more accuracy than STFT [points]", "both", _DWT, (_STFT,)),
    ]  # fmt: skip
    rows = []
    for claim, of, first, others in said:
        wanted = published.DATASETS if of == "both" else (of,)
        reported = [published.table("accuracy_drop_percent", d).mean(axis=1) for d in wanted]
        paper = ", ".join(f"{t[first] - t[list(others)].max():+.2f}" for t in reported)
        models = [
            m
            for m in names.in_order(v[1] for v in _papers(run.pairs))
            if all((r, m, "standard") in _papers(run.pairs) for r in (first, *others))
        ]
        if not models:
            rows.append(
                _nothing(claim, "VIII", of, paper, "no model was run on all of these representations")
            )
            continue
        everyone = [(r, m, t) for r in (first, *others) for m in models for t in ("standard", tables.ROBUST)]

        def drop(m: pd.DataFrame, r: str, models=models) -> pd.Series:
            lost = [m[(r, one, "standard")] - m[(r, one, tables.ROBUST)] for one in models]
            return 100 * pd.concat(lost, axis=1).mean(axis=1)

        measured = run.mean(
            run.correct, everyone,
            lambda m, first=first, others=others, drop=drop: drop(m, first)
            - pd.concat([drop(m, r) for r in others], axis=1).max(axis=1),
        )  # fmt: skip
        rows.append(
            _row(claim, "VIII", of, f"{len(models)} of 6 models", paper, measured, verdict(measured, 0))
        )
    return rows


def _per_attack(run: Analysis) -> list:
    claim = "adversarial training lowers the fooling by each of the six attacks, on average over models"
    everyone = [w for v in _papers(run.attacked) for w in (v, tables.defended(v))]
    parts, before = {}, {}
    for attack in published.ATTACKS:
        panels = [
            panel[[c for c in panel.columns if c[3] == attack]]
            for panel in tables.restrict(run.within, everyone)
        ]
        if not everyone or not panels or not all(len(panel.columns) for panel in panels):
            continue

        def gain(m: pd.DataFrame) -> pd.Series:
            by = m.T.groupby(level=2).mean().T
            return by["standard"] - by[tables.ROBUST]

        parts[attack] = metrics.estimate(panels, gain)
        original = [panel[[c for c in panel.columns if c[2] == "standard"]] for panel in panels]
        before[attack] = max(panel.to_numpy().max() for panel in original)
    return _all(claim, "abstract, IX", "both", "no control", _where_any(parts, before), "of 6 attacks")


def _alexnet(run: Analysis) -> list:
    claim = (
        "the robust AlexNet is fooled the least of all models, averaged over representations [points less]"
    )
    tabs = _reported(run, "fooling_auc_percent")
    paper = ", ".join(f"{np.partition(t.mean().to_numpy(), 1)[1] - t.mean()['alexnet']:+.2f}" for t in tabs)
    robust = [tables.defended(v) for v in _papers(run.attacked)]
    representations = [
        r for r in names.in_order(v[0] for v in robust) if (r, "alexnet", tables.ROBUST) in robust
    ]
    models = [m for m in names.in_order(v[1] for v in robust)
              if all((r, m, tables.ROBUST) in robust for r in representations)]  # fmt: skip
    if "alexnet" not in models or len(models) < 2:
        return _nothing(claim, "VIII", "both", paper, "AlexNet beside another model was not run")
    everyone = [(r, m, tables.ROBUST) for r in representations for m in models]

    def lead(m: pd.DataFrame) -> pd.Series:
        rate = {}
        for one in models:
            each = [tables.over_attacks(m, (r, one, tables.ROBUST)) for r in representations]
            rate[one] = pd.concat(each, axis=1).mean(axis=1)
        others = pd.concat([rate[one] for one in models if one != "alexnet"], axis=1)
        return 100 * (others.min(axis=1) - rate["alexnet"])

    measured = run.mean(run.within, everyone, lead)
    scope = f"{len(models)} of 6 models, {len(representations)} of 4 representations"
    return _row(claim, "VIII", "both", scope, paper, measured, verdict(measured, 0))


def _unlimited(run: Analysis) -> list[list]:
    """That without a limit on the budget robust models are fooled in more than 90 %."""
    robust = [tables.defended(v) for v in _papers(run.attacked)]
    parts = {v: run.mean(run.ever, [v], lambda m, v=v: tables.over_attacks(m, v)) for v in robust}
    threshold = metrics.THRESHOLD
    rows = [
        _all("without a limit on the budget every robust model is fooled in over 90 % of clips, averaged "
             "over attacks", "VIII", "both", "yes", parts, "robust models", threshold)
    ]  # fmt: skip

    def best(m: pd.DataFrame, v: tuple) -> pd.Series:
        return m[[c for c in m.columns if tuple(c[:3]) == v]].max(axis=1)

    parts = {v: run.mean(run.ever, [v], lambda m, v=v: best(m, v)) for v in robust}
    rows.append(
        _all("without a limit some attack fools each robust model in over 90 % of clips", "abstract", "both",
             "yes", parts, "robust models", threshold)
    )  # fmt: skip
    return rows


def _within_budget(run: Analysis) -> list:
    claim = (
        "fooling over 90 % of clips takes ‖ε‖₂ ≤ 3 at the paper's size, averaged over attacks [share of 3]"
    )
    rows = run.ratios
    shares = []
    for victim in _papers(run.attacked):
        defended = tables.defended(victim)
        cut = [tables.censor(panel, victim)[0] for panel in tables.restrict(run.norms, [victim, defended])]
        measured = metrics.estimate(cut, lambda m, d=defended: tables.over_attacks(m, d))
        shares.append(Estimate(*(x / run.budgets[victim[0]] for x in measured[:3]), measured.over))
    if rows.empty or not shares:
        return _nothing(claim, "VIII, Table I", "both", "yes", "no robust model was attacked")
    found = every([verdict(Estimate(-e.value, -e.high, -e.low, e.over), -1.0) for e in shares])
    worst = max(shares, key=lambda e: e.value)
    return _row(
        claim,
        "VIII, Table I",
        "both",
        f"the largest of {len(shares)} robust models",
        "≤ 1",
        worst,
        found,
        1.0,
    )


def _ratio_leader(run: Analysis, ratio: Mapping[tuple[str, str], Estimate]) -> list:
    claim = "ResNet-56 has the highest ε_r in half of the experiments [% of representations]"
    tabs = _reported(run, "epsilon_ratio")
    paper = f"{sum((t.idxmax(axis=1) == 'resnet56').sum() for t in tabs)} of {4 * len(tabs)}"
    leads = {}
    for representation in dict.fromkeys(r for r, _ in ratio if r in published.REPRESENTATIONS):
        mine = {m: e for (r, m), e in ratio.items() if r == representation and m in published.MODELS}
        if "resnet56" in mine and len(mine) > 1:
            leads[representation] = mine["resnet56"].value >= max(e.value for e in mine.values())
    if not leads:
        return _nothing(claim, "VIII", "both", paper, "ResNet-56 beside another model was not run")
    share = 100 * float(np.mean(list(leads.values())))
    nan = float("nan")
    measured = Estimate(share, nan, nan, f"{len(leads)} representations")
    return _row(claim, "VIII", "both", f"{len(leads)} of 4 representations", paper, measured, OPEN, 50)


def _callbacks(run: Analysis) -> list:
    claim = "attacking robust models takes more gradient computations [ratio of backward passes a clip]"
    spent = tables.spent(run, "backwards")
    if not spent:
        return _nothing(claim, "VIII", "both", "yes", "no model was attacked before and after")

    def ratio(m: pd.DataFrame) -> pd.Series:
        by = m.T.groupby(level=2).mean().T
        return by[tables.ROBUST] / by["standard"]

    measured = metrics.estimate(list(spent.values()), ratio)
    return _row(
        claim,
        "VIII",
        "both",
        f"{len(_papers(run.attacked))} pairs",
        "> 1",
        measured,
        verdict(measured, 1),
        1.0,
    )


def _pictures(run: Analysis) -> list:
    claim = "every example of Fig. 1 makes the classifier name a wrong class [% of examples]"
    rows = run.results.attacks
    found = []
    for representation, facts in run.results.about.items():
        at = (rows["representation"] == representation) & (rows["clip"] == facts["clip"])
        for axis in ("model", "fold", "training"):
            at &= rows[axis] == facts[axis]
        mine = rows[at & rows["attack"].isin(published.ATTACKS)]
        found += (mine["after"] != mine["label"]).tolist()
    if not found:
        return _nothing(claim, "VIII, Fig. 1", "urbansound8k", "yes", "no example was kept")
    share = 100 * float(np.mean(found))
    measured = Estimate(share, share, share, f"{len(found)} examples")
    return _row(claim, "VIII, Fig. 1", "urbansound8k", "all examples drawn", "yes", measured,
                HOLDS if all(found) else FAILS, 100.0)  # fmt: skip


def _weights(parameters: Mapping[str, int]) -> list[list]:
    rows = []
    for other, said in published.PARAMETERS_ABOVE.items():
        claim = f"ResNet-56 has {said:g} % more parameters than {names.label(other)} [%]"
        if not {"resnet56", other} <= set(parameters):
            rows.append(_nothing(claim, "VIII", "models", f"{said:+g}", "weights were not counted"))
            continue
        ours = 100 * (parameters["resnet56"] / parameters[other] - 1)
        measured = Estimate(ours, ours, ours, "a count")
        rows.append(_row(claim, "VIII", "models", "He et al. section 4.2", f"{said:+g}", measured,
                         HOLDS if abs(ours - said) < 0.05 else FAILS, said))  # fmt: skip
    return rows


def _cells(run: Analysis) -> list[list]:
    if run.results.dataset not in published.DATASETS:
        return []
    robust = run.fooling[run.fooling["training"] == tables.ROBUST]
    measured = {
        "accuracy_percent": (_estimates(run.recognition, "accuracy_percent"), "Table I"),
        "accuracy_drop_percent": (_estimates(run.recognition, "accuracy_drop_percent"), "Table I"),
        "fooling_auc_percent": (_estimates(robust, "fooling_auc_percent"), "Table II"),
        "epsilon_ratio": (_estimates(run.ratios, "epsilon_ratio"), "Table III"),
    }  # fmt: skip
    rows = []
    for measure, (found, where) in measured.items():
        table = published.table(measure, run.results.dataset)
        for representation in table.index:
            for model in table.columns:
                reported = float(table.loc[representation, model])
                name = f"{_NAMES[measure]}, {names.label(representation)}, {names.label(model)}"
                one = found.get((representation, model))
                if one is None:
                    rows.append(_nothing(name, where, run.results.dataset, f"{reported:g}", "not run"))
                else:
                    rows.append(_row(name, where, run.results.dataset, "this cell", f"{reported:g}", one,
                                     agreement(one, reported), reported))  # fmt: skip
    return rows
