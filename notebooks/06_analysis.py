# %% [markdown]
# # 6 · Analysis
#
# **Does adversarial training protect audio classifiers, and at what price?**
#
# Chapters 3 to 5 trained a model at each point of the grid and attacked it. This chapter puts the results
# together and asks six questions: how accurate the original and the robust models are, how robust they are,
# what becomes of the paper's own tables, what adversarial training costs, which of the paper's claims hold,
# and what would change the answer. The paper is [Adversarially Training for Audio
# Classifiers](https://arxiv.org/abs/2008.11618). Every number and every verdict is computed from the rows
# that the chapters wrote; the terms are explained in the [glossary](README.md#glossary).
#
# Previous: [5 · Adversarial training](05_adversarial_training.ipynb). Next:
# [7 · Beyond the paper](07_beyond.ipynb).
#
# <small>Reads `clean.parquet`, `attacks.parquet`, `evaluated.csv`, `history.csv` and `examples.safetensors`
# of every finished point, and the receipts of the cells; writes the gathered rows to `rows/` and every table
# and figure to `figures/`.</small>

# %%
from pathlib import Path

from IPython.display import Markdown

from lib import chapter, figures, metrics, names, ranges, study
from lib.analysis import answer, claims, published, report, results, tables
from lib.analysis.earlier import beside

figures.use_style()

# %% tags=["parameters"]
build = "build"  # folder of the executed grid
dataset = "esc50"
folder = ""  # where tables and figures go; empty: figures/ beside this notebook
shown = "resnet56/1/standard"  # model/fold/training of Fig. 1; the nearest that is there, if it is not
other_sizes = ""  # BUILD/DATASET of finished grids of this data set at other image sizes, with spaces between
earlier = ""  # rows of an earlier run, such as figures/esc10/rows, whose models are shown beside these

# %%
ranges.check(
    globals(),
    ranges.taken("build dataset", study.Cell),
    ranges.path("build folder earlier"),
    ranges.text("shown", r"[\w.-]+/\d+(\.\d+)?/\w+", "model/fold/training, such as resnet18/1/standard"),
    ranges.text("other_sizes", r"( ?[\w.-]+(/[\w.-]+)+)*", "empty, or folders such as build/128x256/esc10"),
)

# %% [markdown]
# ## What there is
#
# A grid may be finished in part, and the analysis describes the part that exists. A cell that is older than
# the code it rests on is still counted, and so are cells that were run with different settings; the table
# names both. A file that is missing or damaged is named, and its rows are left out. With `earlier`, the
# models of an earlier run that this one does not have are put in the same tables, if it tested the same clips
# on images of the same size.

# %%
cell = study.Cell(build, dataset)
where = Path(folder or cell.path("figures"))
found = results.gather(build, dataset, shown, other_sizes.split())
found = beside(found, earlier, shown) if earlier else found
analysis = tables.Analysis(found)
parts = report.Report(analysis, where)
parts.show("cells")

# %%
stale = found.stale()
stale[["chapter", *results.POINT, "changed"]] if len(stale) else print("no cell is older than its code")

# %% [markdown]
# ## The answer in one table
#
# A model is *robust* on a clip if it classifies the clip correctly and no attack changes that within the
# budget ε. All evaluated clips are counted, also those that the model misclassifies without any attack. So a
# model that classifies fewer clips correctly gains nothing from being attacked on fewer. Change and gain are
# differences clip by clip. Their own intervals say how sure they are; whether the intervals of two accuracies
# overlap does not.

# %%
parts.show("summary")

# %% [markdown]
# Only the networks that were trained most often are averaged here, which may be a single one. In the next
# table every network stands by itself. Where one was trained in a single fold, its intervals are over the
# recordings of that fold, and another training of it could give other numbers. $\epsilon_r$ is the norm that
# fools the robust model, divided by the norm that fools the original (question 3). Above 1, the robust model
# needs a larger perturbation.

# %%
parts.show("networks")

# %% [markdown]
# ## 1 · How accurate are the original and the robust models?
#
# Both models begin from the same weights and are tested on the same clips, so the interval of the drop is
# that of the difference clip by clip. With one fold, intervals are over its recordings and say nothing about
# another training. With several folds or seeds, they are Student's t intervals over these. Three folds can
# agree by chance, and their interval is then narrower than so few clips allow; so where the interval over all
# clips reaches further, that one is shown. Both may be too narrow, since folds share most of their training
# clips. We expect every drop to be above zero, since the robust model is trained on attacked images and
# tested on clean ones.

# %%
parts.show("accuracy")

# %%
drops = analysis.recognition.query("measure == 'accuracy_drop_percent' and training == 'adversarial'")
print(
    chapter.expectation(
        "every drop is above zero",
        f"{int((drops['value'] > 0).sum())} of {len(drops)} drops are above zero, "
        f"{int((drops['low'] > 0).sum())} by their whole interval, {int((drops['high'] < 0).sum())} below "
        "it by theirs",
        chapter.above(drops["low"], drops["high"]),
    )
)

# %% [markdown]
# ## 2 · How robust are they?
#
# The robust accuracy of a model $v$ at a budget $b$ is
#
# $$RA_v(b) = \frac{1}{n} \sum_i \mathbf{1}[\text{correct}_i]\; \mathbf{1}[\min_a u_{v,a,i} > b],$$
#
# where $u_{v,a,i}$ is the smallest norm of all misclassified examples that attack $a$ produced from clip $i$
# (∞ if there is none). The worst case is over the paper's six attacks and a reference,
# [DDN](https://arxiv.org/abs/1811.09600), a strong attack that accepts any wrong class. $RA(0)$ is the clean
# accuracy. The budget is the paper's $\|\delta\|_2 \leq 3$, scaled so that it means the same change per
# value.

# %%
for representation, budget in analysis.budgets.items():
    print(f"{names.label(representation)}: ‖δ‖₂ ≤ {budget:.4g}, in place of {published.BUDGET:g}")

# %% [markdown]
# We expect the curve of the robust model to begin lower, at its clean accuracy, and to be above the
# original's at ε. Each curve is an upper bound, since a stronger attack could lower it.
#
# Training with one step can *mask gradients*: it can leave a model whose gradients mislead attacks and which
# is no more robust. Chapter 4 checks this for every victim. One thing speaks against it, where no clip is
# *censored* (not fooled by the attack) under DeepFool and DDN in the table of ratios below: they follow
# gradients, and fool every clip. This excludes complete masking, not a partial one. PIA needs no gradient,
# and would be the better witness if it came to its end; where its walks are cut (≤), it says nothing.
#
# A model may gain from being *disturbed* in training, whether or not the disturbance is an attack. Chapter 5
# has a control for this, `random_signs`: changes as large as FGSM's, but by chance. Where it was run, the
# table below has what adversarial training gains beyond it, clip by clip, in the last column.

# %%
parts.show("robust_curves")

# %%
parts.show("robust_accuracy")

# %%
change = tables.summary(analysis).set_index("measure")
fall, gain = (change.loc[change.index == name] for name in ("clean_change_percent", "gain_percent"))
low, high = [*-fall["high"], *gain["low"]], [*-fall["low"], *gain["high"]]
print(
    chapter.expectation(
        "the robust models' curve begins lower and is above the originals' at ε",
        f"on {int((fall['value'] < 0).sum())} of {len(fall)} representations it begins lower, on "
        f"{int((fall['high'] < 0).sum())} by the whole interval; on {int((gain['value'] > 0).sum())} it is "
        f"above at ε, on {int((gain['low'] > 0).sum())} by the whole interval",
        chapter.above(low, high),
    )
)

# %%
parts.show("trade_off")

# %% [markdown]
# ## 3 · What becomes of the paper's own tables?
#
# > **Paper.** Table I has the accuracy of the original models and, in parentheses, the drop after adversarial
# > training. Table II has an "average AUC %" of the robust models under $\|\epsilon\|_2 \leq 3$. Table III
# > has $\epsilon_r = |\epsilon_a / \epsilon_o|$ (Eq. 15), mean perturbations at a fooling rate above 0.9.
#
# > **Here.** The drop is in percentage points. The paper does not say what the area is under: we report the
# > fooling rate within the budget, each attack by its goal, averaged over the six, and next to it the
# > area under the fooling curve on $[0, \epsilon]$. The original model is attacked as well, since without
# > it a low rate says nothing: an attack that fools nobody would look like a defence. The paper's 49 to 59 %
# > could also be areas under a ROC curve near chance; we cannot decide that.

# %%
parts.show("table_1")

# %%
parts.show("table_2")

# %%
parts.show("table_3")

# %% [markdown]
# The paper's ratio divides two averages. It depends most on the attacks with the largest norms, and on how
# clips that were not fooled are counted. Clip by clip the question is simpler: how much more does an attack
# need on the robust model than on the original, for a clip that it fools in both? DeepFool and the reference
# come first: any wrong class is enough for them, so they usually fool the most clips. We expect both to need
# more on every robust model.

# %%
parts.show("epsilon_ratio_attacks")

# %%
free = analysis.ratios[analysis.ratios["attack"].isin(["DeepFool", *names.REFERENCE])].dropna(subset="value")
more, surely = int((free["value"] > 1).sum()), int((free["low"] > 1).sum())
print(
    chapter.expectation(
        "ε_r by DeepFool and by the reference is above 1 for every model",
        f"it is for {more} of {len(free)} ratios, for {surely} by their whole interval",
        chapter.above(free["low"], free["high"], 1.0),
    )
)

# %%
parts.show("epsilon_ratio")

# %%
parts.show("attacks")

# %% [markdown]
# ## 4 · What does it cost?
#
# The model pays with the drop of clean accuracy in question 1. The attacker pays with computation.
#
# > **Paper.** Robust models increase "the number of callbacks to the original spectrogram with extra batch
# > gradient computations" (Section VIII).
#
# Counts do not depend on the machine. A query is an output that PIA asked for; it sees no gradient. What
# training costs stands in the last table of this chapter; the minutes of chapter 3 include the trainings for
# the splits.

# %%
parts.show("cost")

# %% [markdown]
# ## 5 · Which of the paper's claims hold?
#
# We test the statements of the abstract, of Section VIII and of the conclusion, in our own words, and on the
# paper's data sets each cell of its tables: this list is the *ledger*. For two statements the paper measures
# robust models only, and lacks the original ones beside them ("no control"). Some statements no run of ours
# can decide; the column *why* gives the reason. A verdict is given only where this run could have
# shown the opposite. A sentence about models, architectures or representations needs at least three trainings
# of each (folds or seeds; folds share training clips, so their intervals may be too narrow), since the same
# model trained again may differ by several points. "All" holds if every part is above its threshold by its
# whole interval, and does not hold if one part is below, after [Holm's
# correction](https://www.jstor.org/stable/4615733) for the number of parts. A sentence that names the best of
# several compares it with each of the others. Unfinished trainings are left out.

# %%
parts.show("claims")

# %% [markdown]
# ## 6 · What would change the answer?
#
# *The split.* Where it was asked for (`leaks_at`), chapter 3 trained one model under the paper's random
# split, under official folds, and under two splits that have one of its two leaks each. We expect the paper's
# split to give a higher accuracy than official folds, since clips of a tested recording, or copies of them,
# can be in the training part.

# %%
parts.show("splits")

# %%
splits = tables.leaks(found)
paper, official = (splits[splits["protocol"] == name] for name in ("paper", "official"))
apart = [
    paper[end].to_numpy() - official[other].to_numpy() for end, other in (("low", "high"), ("high", "low"))
]
seen = ", ".join(f"{100 * more:+.1f} points" for more in paper["above official"])
if seen:  # one training of each, so that no interval says whether another seed would turn it round
    seen += f"; their two intervals {'meet' if chapter.above(*apart) is None else 'do not meet'}"
print(
    chapter.expectation(
        "the paper's split gives a higher accuracy than official folds", seen or "not measured", None
    )
)

# %% [markdown]
# *The fold and the seed.* The table shows how much the two main differences vary from one to the next.

# %%
parts.show("folds")

# %% [markdown]
# *The size of the images.* Budgets scale with $\sqrt{D}$, where $D$ is the number of values of an image, so
# that they mean the same change per value. That a model is then equally robust at each size is a hypothesis.
# `other_sizes` names grids of the same data set at other sizes, with the same settings of training and of the
# reference attack; with them we test it. We expect the norm that this attack needs, divided by $\sqrt{D}$, to
# be the same at all sizes: as expected, if every interval is within a factor of 1.5 of equality.

# %%
parts.show("image_sizes")

# %%
parts.show("norm_by_size")

# %%
seen, same, meaning = answer.scaling(analysis)
print(chapter.expectation("norm ÷ √D is the same at all sizes", seen, same))
print(meaning)

# %% [markdown]
# The transforms at a small size are not equivalent either: the resize of the STFT dims a steady tone, and a
# scalogram that is sampled at few instants misses short sounds between them. [Chapter 2](02_features.ipynb)
# shows what each loses. The two also end at different frequencies. The ℓ∞ ball that adversarial training
# learns in is not the ℓ2 ball of this evaluation; [chapter 5](05_adversarial_training.ipynb) compares their
# sizes: it prints the ℓ2 norm of the largest change that training allows.
#
# ## Appendix: all attacks by their goals, and Fig. 1
#
# > **Paper.** Robust models need a larger perturbation, and yet are fooled in more than 90 % of clips once
# > the budget is large enough (Section VIII).
#
# A curve ends below 1 where the attack ran out of its ladder, or was stopped because it had passed a rate of
# 0.9.

# %%
parts.show("fooling_curves")

# %% [markdown]
# One clip in each representation, and what the attacks made of it. The second picture shows the changes
# alone, each on its own scale, since on the scale of the first they would hardly be seen.

# %%
parts.show("figure_1")

# %%
parts.show("figure_1_changes")

# %%
parts.show("times")

# %%
index = parts.finish()
results.save(found, where / "rows")
print(f"{sum(1 for _ in where.iterdir())} files in {where}, listed in {index.name}")

# %%
first, *more = answer.sentences(analysis, parts.made["claims"].frame)
sizes = ", ".join(f"{size.rows} × {size.frames}" for size in found.sizes.drop_duplicates("rows").itertuples())
more += [f"**Image size.** {seen}. {meaning}"] * (not found.other_sizes.empty)

# %%
missing, unfinished = found.missing(), len(analysis.unfinished)
rare = set(analysis.attacked) - set(analysis.common)
checks = {
    "all cells are as new as their code": (len(stale) == 0, f"{len(stale)} are not"),
    "all models of the grid are attacked": (len(missing) == 0, f"{len(missing)} are not"),
    "all networks are trained equally often": (
        not rare,
        f"{len(rare)} pairs of a network and a representation are trained less often, and not in every mean",
    ),
    "all trainings are finished": (unfinished == 0, f"{unfinished} models have one that is not"),
    f"there are {claims.TRAININGS} or more folds or seeds, so that intervals speak of other trainings": (
        len(found.folds) >= claims.TRAININGS,
        f"this run has {len(found.folds)}",
    ),
    "images have the paper's size": (
        bool((found.sizes["bins"] >= metrics.PAPER_SIZE[0]).all()),
        f"they have {sizes} values",
    ),
    "the data set is one of the paper's": (dataset in published.DATASETS, f"{names.label(dataset)} is not"),
    "all models are run with the same settings and attacks": (not found.remarks(), "some are not"),
}
Markdown(chapter.summary(first, more, checks))
