# %% [markdown]
# # 6 · Analysis
#
# **Which of the paper's claims hold, on the part of the grid that has been run?**
#
# The paper sums up in three tables (Section VIII): recognition and what adversarial training costs of it
# (Table I), how far the robust models are fooled within $\|\epsilon\|_2 \leq 3$ (Table II), and how much more
# perturbation they need (Table III). This chapter computes them from the rows that chapters 3, 4 and 5 left,
# with intervals, beside the paper's numbers where the data set is the paper's.
#
# Reads `clean.parquet` and `attacks.parquet` of every point of a data set, and `examples.safetensors`; leaves
# tables (CSV, Markdown, LaTeX) and figures (PNG, PDF, CSV) in `figures/`.

# %%
from IPython.display import Markdown, display

from lib import figures, metrics, results, study, tables

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
budget = 3.0  # l2 norm within which Table II counts, at 1568 × 768
threshold = 0.9  # fooling rate that both victims must pass for Table III, Section VI
shown = "resnet56/1/standard"  # model/fold/training of the Fig. 1 picture; the nearest where it is not there

# %%
cell = study.Cell(build, dataset)
found = results.gather(build, dataset, shown)
folder = cell.path("figures")
folder.mkdir(exist_ok=True)
budgets = found.budgets(budget, metrics.scaled_budget)
print(f"{dataset}: {len(found.axes('model'))} models, folds {', '.join(found.folds)}")
missing, stale = found.missing(), found.stale()
print(f"{len(missing)} points of this grid are not attacked; {len(stale)} cells are older than their code")

# %% [markdown]
# ## Table I: what adversarial training costs
#
# Recognition of the original models, and the drop in percentage points after FGSM training from the same
# start (Eq. 14). The paper finds 7 to 29 points.

# %%
recognition = tables.recognition(found)
display(Markdown(recognition.to_markdown(index=False, floatfmt=".3g")))

# %% [markdown]
# ## Table II: fooled within a budget
#
# The share of clips fooled within $\epsilon$, averaged over the six attacks, and beside it the area under the
# fooling curve on $[0, \epsilon]$.
#
# > **Paper.** Robust models only, $\|\epsilon\|_2 \leq 3$ on 1568 × 768 values.
#
# > **Here.** Both victims, since a robust model's rate says nothing without its control. At other sizes
# > $\epsilon$ scales with the square root of the number of values.

# %%
fooling = tables.fooling(found, budgets)
display(Markdown(fooling.to_markdown(index=False, floatfmt=".3g")))

# %% [markdown]
# ## Table III: how much more perturbation
#
# $\epsilon_r = |\epsilon_a / \epsilon_o|$ (Eq. 15), mean norms of the robust over the original model. A clip
# on which an attack failed is censored: it needs more than was tried, is counted at what is known, and makes
# the ratio a bound.

# %%
ratios = tables.ratios(found)
display(Markdown(ratios.to_markdown(index=False, floatfmt=".3g")))

# %% [markdown]
# ## Curves
#
# Before you look: a defence that works moves every curve to the right, and none of them down at its end.

# %%
for (representation, model), rows in found.attacks.groupby(["representation", "model"], sort=False):
    for training, victim in rows.groupby("training", sort=False):
        title = f"{figures.label(model)}, {figures.label(representation)}, {figures.label(training)}"
        drawn = figures.fooling_curves(victim, budget=budgets[representation], title=title)
        name = f"curves-{representation}-{model}-{training}"
        figures.export(drawn, metrics.least_norms(victim).reset_index(), name, folder)

# %%
cost = tables.cost(found)
display(Markdown(cost.to_markdown(index=False, floatfmt=".3g")))

# %% [markdown]
# ## Fig. 1: one clip under six attacks
#
# The original and six adversarial examples; the norm of each perturbation stands below it.

# %%
for representation, images in found.examples.items():
    change = {name: image - images["original"] for name, image in images.items() if name != "original"}
    below = {name: f"‖δ‖₂ = {(delta**2).sum() ** 0.5:.2g}" for name, delta in change.items()}
    picture = figures.spectrograms(images, below=below)
    display(picture)
    norms = found.attacks.query("representation == @representation")[["clip", "attack", "l2"]]
    figures.export(picture, norms, f"fig1-{representation}", folder)

# %%
named = {"table1": recognition, "table2": fooling, "table3": ratios, "cost": cost}
for name, table in named.items():
    study.save(folder / f"{name}.csv", table)
    study.save(folder / f"{name}.md", table.to_markdown(index=False, floatfmt=".3g") + "\n")
    study.save(folder / f"{name}.tex", table.to_latex(index=False, float_format="%.3g"))

# %%
over = found.clean.assign(right=found.clean["predicted"] == found.clean["label"])
accuracy = over.groupby("training", sort=False)["right"].mean()
said = [f"{figures.label(name)} models name {share:.1%} of the tested clips rightly"
        for name, share in accuracy.items()]  # fmt: skip
rate = (
    found.attacks[found.attacks["attack"].isin(figures.ATTACKS)]
    .groupby("training", sort=False)["fooled"]
    .mean()
)
said += [f"without a limit, the six attacks fool {share:.0%} of the clips of {figures.label(name)} models"
         for name, share in rate.items()]  # fmt: skip
checks = {
    "every point of this grid has been attacked": not missing,
    "every cell is as new as its code": not len(stale),
    "the attacks pass the threshold on the original models": rate.get("standard", 0) > threshold,
}
said += [f"**in doubt:** not true that {claim}" for claim, holds in checks.items() if not holds]
Markdown("## Summary\n\n- " + "\n- ".join(said))
