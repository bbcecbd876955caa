# %% [markdown]
# # 6 · Analysis
#
# **Does adversarial training protect audio classifiers, and at what price?**
#
# Chapters 3 to 5 left one victim at each point of the grid, and the rows of its attacks. This chapter puts
# them together: Tables I, II and III beside the paper's, the control that the paper lacks, whole fooling
# curves, what attacks cost, the picture that is Fig. 1, and a ledger that tells for each claim of the paper
# whether it holds here. Every number and every verdict is computed from the rows; none is typed.
#
# Reads `clean.parquet`, `attacks.parquet` and `examples.safetensors` of every finished point, and the
# receipts of the cells; leaves the gathered rows in `rows/` and every table and figure in `figures/`.

# %%
from pathlib import Path

from IPython.display import Markdown, display

from lib import figures, metrics, names, ranges, study
from lib.analysis import claims, published, report, results, tables

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
folder = ""  # where tables and figures go; empty: figures/ beside this notebook
shown = "resnet56/1/standard"  # model/fold/training of Fig. 1; the nearest that is there, if it is not

# %%
ranges.check(
    globals(),
    ranges.taken("build dataset", study.Cell),
    ranges.path("build folder"),
    ranges.text("shown", r"[\w.-]+/\d+(\.\d+)?/\w+", "model/fold/training, such as resnet18/1/standard"),
)

# %% [markdown]
# ## What there is
#
# A grid may be finished in part; the analysis tells of the part that exists. A cell that is older than the
# code it rests on is still counted, and named here.

# %%
cell = study.Cell(build, dataset)
where = Path(folder or cell.path("figures"))
found = results.gather(build, dataset, shown)
results.save(found, where / "rows")
analysis = tables.Analysis(found)
parts = report.Report(analysis, where)
parts.show("cells")

# %%
stale = found.stale()
stale[["chapter", *results.POINT, "changed"]] if len(stale) else print("no cell is older than its code")

# %% [markdown]
# ## The answer in one table
#
# Each pair of victims: the original, and the one that was trained adversarially from the same start. What the
# columns are, how they were read from the paper, and what each number is made of, the rest of this chapter
# tells one by one. A fooling rate is over the clips that this very victim names rightly: one that names fewer
# rightly is asked about fewer, so accuracy and fooling are to be read together.

# %%
parts.show("victims")

# %% [markdown]
# ## Table I · what a robust model forgets
#
# > **Paper.** Accuracy of the original models, and in parentheses the drop after adversarial training.
#
# > **Here.** The drop is in percentage points, and the robust model began from the same weights. Both are
# > tested on the same clips, so the interval of the drop is of the difference clip by clip. With one fold
# > intervals are bootstrapped over its clips and say nothing of another training; with several folds or
# > seeds they are Student's over these.
#
# Expect every drop to be above zero.

# %%
parts.show("table_1_accuracy")

# %%
parts.show("table_1_drop")

# %%
parts.show("accuracy")

# %% [markdown]
# ## Table II · how many are fooled within the budget
#
# > **Paper.** "Average AUC %" of the robust models under $\|\epsilon\|_2 \leq 3$, at 1568 × 768 values.
#
# > **Here.** The paper does not say what the area is under. Our main figure is the *fooling rate within
# > the budget*, the share of clips named rightly that the attack fools by $\|\delta\|_2 \leq \epsilon$,
# > averaged over the six attacks. Beside it stands the *area under the fooling curve* on $[0, \epsilon]$,
# > which for least norms $d$, infinite where the attack failed, is
#
# $$\text{AUC} = \frac{1}{n} \sum_i \max\Big(0,\; 1 - \frac{d_i}{\epsilon}\Big).$$
#
# > The budget scales with the square root of the number of values, so that it means the same change per
# > value; images with tonnetz have the budget of plain ones.

# %%
for representation, budget in analysis.budgets.items():
    print(f"{names.label(representation)}: ‖ε‖₂ ≤ {budget:.4g}, in place of {published.BUDGET:g}")

# %% [markdown]
# The victim with the most fooled clips, by hand, to see what is averaged.

# %%
six = found.attacks[found.attacks["attack"].isin(published.ATTACKS)]
ever = six.groupby(results.POINT)["fooled"].sum()
if len(ever):
    point = ever.idxmax()
    one = six[(six[results.POINT] == list(point)).all(axis=1)]
    budget = analysis.budgets[point[0]]
    norms = metrics.least_norms(one)[names.in_order(one["attack"])]
    rates = metrics.rate_within(norms, [budget / 4, budget / 2, budget, 4 * budget]).round(2)
    display(
        rates.set_axis(["ε/4", "ε/2", "ε", "4 ε"], axis=1).rename_axis(
            names.point("/".join([dataset, *point]))
        )
    )

# %%
parts.show("table_2")

# %%
parts.show("table_2_area")

# %% [markdown]
# ## The control
#
# A low fooling rate of a robust model means little until the *undefended* model is attacked with the same
# budget: an attack that fools nobody would look like a defence. Beside the average of the attacks stands the
# worst case, an adversary who tries all six and needs only one of them, DeepFool among them, which is content
# with any wrong class. A targeted attack that misses its target may still have done harm: the last columns
# count any wrong class on what it returned. They are lower bounds: the smallest change of that kind was not
# looked for.

# %%
parts.show("table_2_control")

# %%
parts.show("trade_off")

# %% [markdown]
# Every training that was run, the paper's defence and those that came after it, at the same budget.

# %%
parts.show("defences")

# %% [markdown]
# ## Whole curves
#
# A table reads a curve at one budget.
#
# > **Paper.** Robust models need a larger perturbation, and yet are fooled in more than 90 % of clips once
# > the budget is large enough (Section VIII).
#
# Expect curves on the right of their neighbours, and a worst case that reaches 1 all the same. Where a curve
# ends below 1, the attack ran out of its ladder, or was stopped because it had passed a rate of 0.9.

# %%
parts.show("fooling_curves")

# %%
parts.show("attacks")

# %% [markdown]
# ## Table III · how much more it takes
#
# $$\epsilon_r = \left| \frac{\epsilon_a}{\epsilon_o} \right| \qquad (15)$$
#
# is the mean norm that fools the robust model over the mean norm that fools the original.
#
# > **Paper.** Means at a fooling rate above 0.9, over clips and attacks. What became of the clips that were
# > not fooled is not said.
#
# > **Here.** Dropping a clip because it withstood would make robust models look weak. It is *censored*: it
# > needs more than was tried, counts at least at the largest norm that was, and the ratio is marked by the
# > side on which it is open. Norms of attacks differ tenfold, so the ratio of averages is mostly that of the
# > attacks with the largest norms; the second table has each attack, and its CSV ratios of medians and of
# > restricted means.

# %%
parts.show("table_3")

# %%
parts.show("table_3_attacks")

# %%
parts.show("epsilon_ratio")

# %%
parts.show("epsilon_ratio_attacks")

# %% [markdown]
# ## What an attack costs
#
# > **Paper.** Robust models increase "the number of callbacks to the original spectrogram with extra batch
# > gradient computations" (Section VIII).
#
# Counts do not depend on the machine. A query is an output that PIA asked for; it sees no gradient.

# %%
parts.show("cost")

# %%
parts.show("cost_picture")

# %% [markdown]
# ## Fig. 1 · can it be seen?
#
# One clip in four representations, and what six attacks made of it. The second picture shows the changes
# alone, on a scale of their own, since on the scale of the first they would hardly be seen.

# %%
parts.show("figure_1")

# %%
parts.show("figure_1_changes")

# %% [markdown]
# ## What the split is worth
#
# Where it was asked to (`leaks_at`), chapter 3 trained one model under the paper's random split, under
# official folds, and under what lies between.

# %%
parts.show("splits")

# %% [markdown]
# ## The claim ledger
#
# Each sentence of the abstract, Section VIII and the conclusion that can be tested, and on the paper's data
# sets each cell of its tables. Two numbers of the paper are of ESC-50 and of UrbanSound8K. A claim *holds* if
# the whole 95 % interval lies on the paper's side, *does not hold* if it lies on the other, and *cannot be
# told from this run* otherwise. "All" is refuted by one. Nothing is corrected for the number of claims: of
# twenty true ones, one may be refuted by chance. Below ten clips nothing is told, nor of a defence against an
# attack that fooled nobody before. A bootstrap of clips that all agree has no width; with $n$ of them up to
# $3/n$ of all clips may yet differ. A cell of a table is *compatible* if our interval holds it; a wide
# interval holds nearly any number.

# %%
parts.show("claims")

# %% [markdown]
# ## Minutes and memory

# %%
parts.show("times")

# %%
made = parts.index()
print(f"{sum(1 for _ in where.iterdir())} files in {where}, listed in {made.name}")

# %%
ledger = parts.made["claims"].frame
sizes = ", ".join(f"{size.rows} × {size.frames}" for size in found.sizes.drop_duplicates("rows").itertuples())
said = [
    f"{len(found.clean.groupby(results.POINT))} victims of {names.label(dataset)}, folds and seeds "
    f"{', '.join(found.folds)}, images of {sizes} values (rows × frames)",
    f"the ledger: {report.counted(ledger)}",
]
said += [
    f"*{row.verdict}*: {row.claim}"
    for row in ledger.itertuples()
    if row.scope != "this cell" and row.verdict != claims.OPEN
]
limits = {
    f"{len(stale)} cells are older than their code": len(stale) > 0,
    f"{len(found.missing())} victims of the grid were not attacked": len(found.missing()) > 0,
    "one fold and one seed: intervals are over clips, and tell nothing of another training": len(found.folds)
    == 1,
    "images are smaller than the paper's": bool((found.sizes["bins"] < metrics.PAPER_SIZE[0]).any()),
    "the data set is none of the paper's": dataset not in published.DATASETS,
}
said += [f"**limits:** {limit}" for limit, here in limits.items() if here]
Markdown("## Summary\n\n- " + "\n- ".join(said))
