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

from IPython.display import Markdown

from lib import claims, figures, metrics, published, report, results, study

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
folder = ""  # where tables and figures go; empty: figures/ beside this notebook
shown = "resnet56/1/standard"  # model/fold/training of Fig. 1; the nearest that is there, if it is not

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
shelf = report.Shelf(found, where)
shelf.show("cells")

# %%
stale = found.stale()
stale[["chapter", *results.POINT, "changed"]] if len(stale) else print("no cell is older than its code")

# %% [markdown]
# ## The answer in one table
#
# Each victim before and after adversarial training. What the columns are, how they were read from the paper,
# and what each number is made of, the rest of this chapter tells one by one.

# %%
shelf.show("victims")

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
shelf.show("table_1_accuracy")

# %%
shelf.show("table_1_drop")

# %%
shelf.show("accuracy")

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
for representation, budget in report.budgets(found).items():
    print(f"{figures.label(representation)}: ‖ε‖₂ ≤ {budget:.4g}, in place of {published.BUDGET:g}")

# %% [markdown]
# One victim by hand, to see what is averaged.

# %%
one = found.attacks[found.attacks.groupby(results.POINT).ngroup() == 0]
budget = next(iter(report.budgets(found).values()))
metrics.fooling_rate(one, [budget / 4, budget / 2, budget, 4 * budget]).round(2)

# %%
shelf.show("table_2")

# %%
shelf.show("table_2_area")

# %% [markdown]
# ## The control
#
# A low fooling rate of a robust model means little until the *undefended* model is attacked with the same
# budget: an attack that fools nobody would look like a defence. Beside the average of the attacks stands the
# worst case, an adversary who tries all six and needs only one of them; robustness is what is left of it.
# And a targeted attack that misses its target may still have done harm: the last columns count any wrong
# class.

# %%
shelf.show("table_2_control")

# %%
shelf.show("trade_off")

# %% [markdown]
# Every training that was run, the paper's defence and those that came after it, at the same budget.

# %%
shelf.show("defences")

# %% [markdown]
# ## Whole curves
#
# A table reads a curve at one budget. A robust model moves the curve to the right; no model keeps it from
# reaching 1 (Section VIII). Where a curve ends below 1, the attack ran out of its ladder, or was stopped
# because it had passed a rate of 0.9.

# %%
shelf.show("fooling_curves")

# %%
shelf.show("attacks")

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
shelf.show("table_3")

# %%
shelf.show("table_3_attacks")

# %%
shelf.show("epsilon_ratio")

# %%
shelf.show("epsilon_ratio_attacks")

# %% [markdown]
# ## What an attack costs
#
# > **Paper.** Robust models increase "the number of callbacks to the original spectrogram with extra batch
# > gradient computations" (Section VIII).
#
# Counts do not depend on the machine. A query is an output that PIA asked for; it sees no gradient.

# %%
shelf.show("cost")

# %%
shelf.show("cost_picture")

# %% [markdown]
# ## Fig. 1 · can it be seen?
#
# One clip in four representations, and what six attacks made of it. The second picture shows the changes
# alone, on a scale of their own, since on the scale of the first they would hardly be seen.

# %%
shelf.show("figure_1")

# %%
shelf.show("figure_1_changes")

# %% [markdown]
# ## What the split is worth
#
# Chapter 3 trained one model under the paper's random split and under official folds.

# %%
shelf.show("splits")

# %% [markdown]
# ## The claim ledger
#
# Each sentence of the abstract, Section VIII and the conclusion that can be tested, and on the paper's data
# sets each cell of its tables. A claim *holds* if the whole 95 % interval lies on the paper's side, *does
# not hold* if it lies on the other, and *cannot be told from this run* otherwise. "All" is refuted by one.
# Nothing is corrected for the number of claims: of twenty true ones, one may be refuted by chance. Below ten
# clips nothing is told. A bootstrap of clips that all agree has no width; with $n$ of them up to $3/n$ of all
# clips may yet differ.

# %%
shelf.show("claims")

# %% [markdown]
# ## Minutes and memory

# %%
shelf.show("times")

# %%
made = shelf.index()
print(f"{sum(1 for _ in where.iterdir())} files in {where}, told in {made.name}")

# %%
ledger = shelf.made["claims"].frame
told = ledger["verdict"].value_counts()
sizes = ", ".join(f"{size.rows} × {size.frames}" for size in found.sizes.drop_duplicates("rows").itertuples())
said = [
    f"{len(found.clean.groupby(results.POINT))} victims of {figures.label(dataset)}, "
    f"{len(found.folds)} repeats, images of {sizes} values; {len(found.missing())} attacked ones are missing",
    *(f"{told.get(verdict, 0)} claims: *{verdict}*" for verdict in (claims.HOLDS, claims.FAILS, claims.OPEN)),
]
said += [
    f"*{row.verdict}*: {row.claim}"
    for row in ledger.itertuples()
    if row.scope != "this cell" and row.over != ""
]
checks = {
    "every cell is up to date with its code": len(stale) == 0,
    "every point of the grid was attacked": len(found.missing()) == 0,
    "intervals are over repeats, not over the clips of one training": len(found.folds) > 1,
    "images have the paper's size": bool((found.sizes["bins"] == metrics.PAPER_SIZE[0]).all()),
    "the data set is one of the paper's": dataset in published.DATASETS,
}
said += [f"**in doubt:** not true that {claim}" for claim, holds in checks.items() if not holds]
Markdown("## Summary\n\n- " + "\n- ".join(said))
