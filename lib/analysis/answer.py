"""What a run says, in a few sentences that are computed from it.

Chapter 6 ends with them, the index of a run's tables begins with them, and ``make publish`` puts them on the
README's face. So none of the three can say anything else than the rows do.
"""

import operator
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from lib import markup, metrics, names
from lib.analysis import claims, published, tables
from lib.analysis.printing import interval, number
from lib.analysis.tables import FREE, PAIR, ROBUST, Analysis, Panels

NOTHING = "No model was attacked both before and after adversarial training, so there is no answer yet."
ALIKE = 1.5  # the factor within which budgets of two sizes count as equally large
_whose = operator.itemgetter(*PAIR)


def sentences(found: Analysis, ledger: pd.DataFrame) -> list[str]:
    """The answer to chapter 6's question in Markdown, one sentence or two for each thing that was measured.

    Parameters
    ----------
    ledger : the verdicts on the paper's claims, of `claims.ledger`.
    """
    if not found.attacked:
        return [NOTHING, _verdicts(found, ledger)]
    said = [_perturbation(found), _robust(found), _control(found), _clean(found), _without_limit(found)]
    return [line for line in said if line] + [_verdicts(found, ledger), _run(found)]


def _perturbation(found: Analysis) -> str:
    """How much larger a perturbation has to be after adversarial training."""
    rows = found.ratios[found.ratios["attack"].isin(FREE) & found.ratios["value"].notna()].to_dict("records")
    if not rows:
        return ""
    head = "multiplies the perturbation that fools a clip by"
    lost = " (over the clips that are fooled in both models)" * any(row["censored"] for row in rows)
    if len(set(map(_whose, rows))) == 1:
        each = listed(f"{interval(row, 2)} for {names.label(row['attack'])}" for row in rows)
        return f"**Perturbation.** Adversarial training of {pair(*_whose(rows[0]))} {head} {each}{lost}."
    least, most = (end(rows, key=lambda row: row["value"]) for end in (min, max))
    ends = " to ".join(f"{number(row['value'], 2)} ({pair(*_whose(row))})" for row in (least, most))
    attacks = listed(names.label(name) for name in names.in_order(row["attack"] for row in rows))
    known = [row["low"] > 1 for row in rows if np.isfinite(row["low"])]
    count = f"all {len(known)}" if all(known) else f"{sum(known)} of {len(known)}"
    sure = f"; {count} intervals of {len(set(map(_whose, rows)))} pairs lie above 1" if known else ""
    return f"**Perturbation.** Adversarial training {head} {ends}, for {attacks}{lost}{sure}."


def _robust(found: Analysis) -> str:
    """How the robust accuracy within the budget changes."""
    rows = found.robustness[found.robustness["measure"] == "gain_percent"]
    worst = lambda panel, victim: panel[(*victim, names.WORST)]  # noqa: E731
    said = _change(found, "**Robust accuracy.** At the budget ε, it", rows, found.robust, worst)
    return said + markup.text(without_reference(found)) if said else ""


def without_reference(found: Analysis) -> str:
    """The gains in robust accuracy under the paper's own attacks alone, of the averaged models."""
    said = [
        f"{number(gain, 1, sign=True)} points on {names.label(representation)} "
        f"({', '.join(names.label(v[1]) for v in found.averaged_on(representation))})"
        for representation, gain in tables.gains_by_own_attacks(found).items()
    ]
    return f" Under the paper's six attacks alone, the gain at ε is {', '.join(said)}." if said else ""


def _control(found: Analysis) -> str:
    """What training on random changes of the same size does, and how much more adversarial training gains."""
    rows, said = found.robustness, []
    gains = rows[
        (rows["measure"] == "gain_percent") & (rows["training"] == names.CONTROL_TRAINING)
    ].set_index(PAIR)
    factors = found.control_ratios
    for row in rows[rows["measure"] == "more_percent"].to_dict("records"):
        who = _whose(row)
        mine = factors[(factors[PAIR] == list(who)).all(axis=1) & factors["attack"].isin(FREE)]
        mine = mine.dropna(subset="value").to_dict("records")
        if who in gains.index and mine:
            by = listed(f"{interval(one, 2)} for {names.label(one['attack'])}" for one in mine)
            gain, more = (interval(one, 1, sign=True) for one in (gains.loc[who], row))
            said.append(
                f"the perturbation that fools {pair(*_whose(row))} by {by}, and gains {gain} points at ε "
                f"({gains.loc[who, 'over']}); where both were run, adversarial training gains {more} more "
                f"({row['over']})"
            )
    head = "**Random signs.** As a control, training on random changes of the same size multiplies"
    return f"{head} {'. It multiplies '.join(said)}." if said else ""


def _clean(found: Analysis) -> str:
    """How the accuracy on all tested clips changes, of models that were attacked."""
    rows = tables.clean_changes(found)
    rows = rows[pd.MultiIndex.from_frame(rows[PAIR]).isin([v[:2] for v in found.attacked])]
    head = "**Clean accuracy.** On all tested clips, it"
    return _change(found, head, rows, found.correct, lambda panel, victim: panel[victim])


def _change(found: Analysis, head: str, rows: pd.DataFrame, panels: Panels, score: Callable) -> str:
    """For how many pairs a share rises and falls, and those of which the interval excludes no change.

    Parameters
    ----------
    rows : the changes, with their intervals.
    panels, score : the share itself is the mean of ``score(panel, victim)``, in trainings of both models.
    """
    changes = rows[rows["training"] == ROBUST].dropna(subset="value").to_dict("records")

    def told(row: Mapping) -> str:
        original = (*_whose(row), "standard")
        both = [original, tables.defended(original)]
        ends = (found.mean(panels, both, lambda panel, v=v: score(panel, v)).value for v in both)
        share = " to ".join(map(number, ends))
        return f"{pair(*_whose(row))} from {share} % ({interval(row, 1, sign=True)} points, {row['over']})"

    if len(changes) < 2:
        return f"{head} goes for {told(changes[0])}." if changes else ""
    ways = [(row["value"] > 0) - (row["value"] < 0) for row in changes]
    verbs = {"rises": 1, "falls": -1, "is the same": 0}
    said = listed(f"{verb} for {ways.count(way)}" for verb, way in verbs.items() if way in ways)
    often = sorted(changes, key=lambda row: -tables.trainings(row["over"]))
    clear = [told(row) for row in often if row["low"] > 0 or row["high"] < 0]
    sure = f"the interval, not corrected for so many, excludes zero for {len(clear)}: {'; '.join(clear)}"
    return f"{head} {said} of {len(changes)} pairs; {sure if clear else 'no interval excludes zero'}."


def _without_limit(found: Analysis) -> str:
    """Which attacks fool every clip, whatever it takes, and what it takes."""
    rows = found.results.attacks[found.results.attacks["attack"].isin(FREE)]
    robust = [tables.defended(v) for v in found.attacked]
    mine = rows[pd.MultiIndex.from_frame(rows[tables.VICTIM]).isin(robust)]
    met = mine[PAIR].drop_duplicates().shape[0]
    each = mine.groupby("attack")
    whole = [name for name, of in each if of["fooled"].all() and len(of[PAIR].drop_duplicates()) == met]
    every = [names.label(name) for name in names.in_order(whole)]
    table = tables.by_attack(found).query("attack == @names.WORST").set_index("training")["median_norm"]
    ends = [table.get(training, np.nan) for training in ("standard", ROBUST)]
    if not every or not np.isfinite(ends).all():
        return ""
    before, after = (f"{norm:.2g}" for norm in ends)
    budgets = sorted({f"{found.budgets[v[0]]:.3g}" for v in found.common})
    fool = "fools" if len(every) == 1 else "fool"
    return (
        f"**No limit.** Without a budget, {listed(every)} {fool} every attacked clip. The least ‖δ‖₂ that "
        f"fools a clip is {before} for the original and {after} for the robust models of "
        f"{listed(pair(*v[:2]) for v in found.common)} (medians; ε is "
        f"{' or '.join(budgets)})."
    )


def _verdicts(found: Analysis, ledger: pd.DataFrame) -> str:
    """The counts of the ledger, and each of the paper's sentences that it decides, as a list of its own."""
    sentences = ledger[~_cells(ledger)]
    judged = sentences[sentences["verdict"] != claims.OPEN]
    text = f"**The paper's claims.** {counted(ledger)}."
    rare = claims.rare(found)
    if often := [v for v in found.attacked if v not in rare] if rare else []:
        mine = listed(pair(*v[:2]) for v in often)
        text += f" Those on every model are of {mine}, since all others were trained less often."
    return text + "".join(f"\n  - *{row.verdict}*: {markup.text(row.claim)}" for row in judged.itertuples())


def _run(found: Analysis) -> str:
    """What was run of the paper's pairs, and how often each was trained."""
    every = len(published.REPRESENTATIONS) * len(published.MODELS)
    mine = sum(r in published.REPRESENTATIONS and m in published.MODELS for r, m, _ in found.attacked)
    times: dict[int, list[str]] = {}
    for v in found.attacked:
        count = len(tables.restrict(found.needed, [v, tables.defended(v)]))
        times.setdefault(count, []).append(pair(*v[:2]))
    said = [f"{listed(times[n])} in {n} {found.kind}" for n in sorted(times, reverse=True) if n > 1]
    if once := times.get(1):
        few = listed(once) if len(once) <= 3 else f"{'the other ' * bool(said)}{len(once)}"
        said.append(f"{few} trained once")
    own = f"{len(found.attacked)} pairs, " if mine < len(found.attacked) else ""
    return (
        f"**What was run.** {own}{mine} of the paper's {every} pairs of a representation and a network, "
        f"original and robust: {', '.join(said)}."
    )


def pair(representation: str, model: str) -> str:
    """A network and its representation: ``ResNet-18 on DWT``."""
    return markup.text(f"{names.label(model)} on {names.label(representation)}")


def listed(words: Iterable[str]) -> str:
    """Words in a sentence: ``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def scaling(found: Analysis) -> tuple[str, bool | None, str]:
    """Whether norms grow with √(number of values): what was seen, the answer, and what it means for budgets.

    The answer is False where some size differs, by its p-value after Holm's correction; True where none does
    and every interval lies within a factor `ALIKE` of equality; None otherwise.
    """
    frame = tables.scaling(found)
    if frame.empty:
        return "no model was attacked at two sizes", None, "This run does not test how budgets scale."
    frame = frame[frame["still"] < 1]
    largest = frame[frame["still"] == frame["still"].min()]
    factor = float(np.exp(np.log(largest["relative"]).mean()))
    root = 1 / largest["still"].iloc[0]
    differ = bool(frame["p"].min() <= (1 - metrics.LEVEL) / len(frame))
    close = bool((np.log(frame[["relative_low", "relative_high"]]).abs() < np.log(ALIKE)).all(axis=None))
    same = False if differ else True if close else None
    several = f", mean of {len(largest)} models" if len(largest) > 1 else ""
    low, high = largest["relative_low"].min(), largest["relative_high"].max()
    seen = (
        f"at {largest['bins'].iloc[0]} × {largest['frames'].iloc[0]}, √values is {root:.2g} times that of "
        f"the smallest size, and the norm {root * factor:.2g} times ({int(largest['clips'].min())} clips"
        f"{several})"
    )
    meaning = {
        True: "Relative to the norm that fools a model, a budget that is scaled with √values is equally "
        f"large at each of these sizes, to within a factor of {ALIKE:g}.",
        None: "This run cannot say whether a budget that is scaled with √values is equally large at each "
        "size, relative to the norm that fools a model: at the largest size that norm, divided by √values, "
        f"may be {low:.2f} to {high:.2f} times what it is at the smallest.",
        False: f"Relative to the norm that fools a model, a budget that is scaled with √values is "
        f"{1 / factor:.2f} times as large at the largest size as at the smallest. So at the scaled budget a "
        f"model looks {'more' if factor < 1 else 'less'} robust on small images than on large ones.",
    }
    return seen, same, meaning[same]


def counted(frame: pd.DataFrame) -> str:
    """The verdicts of a ledger in a sentence, and why others are open: of sentences and, if any, of cells."""
    cells = _cells(frame)
    kinds = [("sentence", "", frame[~cells], {claims.HOLDS: "hold", claims.FAILS: "do not hold"})]
    both = {claims.AGREES: "are compatible", claims.DIFFERS: "are not compatible"}
    kinds.append(("cell", " of its tables", frame[cells], both))
    said = []
    for what, whose, mine, verdicts in kinds:
        if len(mine):
            count = mine["verdict"].value_counts()
            parts = [_agree(count.get(it, 0), words) for it, words in verdicts.items()]
            parts.append("and " + _agree(count.get(claims.OPEN, 0), "remain open"))
            said.append(f"Of {len(mine)} {what}{'s' if len(mine) != 1 else ''}{whose}, {', '.join(parts)}")
            why = mine["open"].value_counts().reindex(claims.REASONS).dropna().astype(int)
            said[-1] += f" ({', '.join(f'{n} {reason}' for reason, n in why.items())})" if len(why) else ""
    return ". ".join(said)


def _cells(frame: pd.DataFrame) -> pd.Series:
    """Which rows of a ledger are cells of the paper's tables."""
    return frame["where"].str.fullmatch("Table I+")


def _agree(n: int, words: str) -> str:
    """A number and its verb: 2 remain open, 1 remains open."""
    verb, *rest = words.split()
    alone = {"hold": "holds", "do": "does", "are": "is", "remain": "remains"}
    return " ".join([str(n), alone[verb] if n == 1 else verb, *rest])
