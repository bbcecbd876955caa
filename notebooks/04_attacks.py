# %% [markdown]
# # 4 · Attacks
#
# **How small a change to a spectrogram makes a trained classifier name another sound?**
#
# A classifier that is right on every clip of a test set may still be wrong on a spectrogram that no eye can
# distinguish from one of them. The paper attacks every model with six methods (Sections II and VI). This
# chapter runs them against one model, the *victim*: the one that [chapter 3](03_training.ipynb) or
# [chapter 5](05_adversarial_training.ipynb) trained at this point of the grid. You will see each attack as
# an equation, as code, and at work on one clip; then how their success grows with the size of the change;
# and last, how we check that attacks fail because the victim is robust, and not because they are weak.
#
# *Threat model.* The adversary knows the weights (for PIA only the outputs) and changes the spectrogram, not
# the sound. [Chapter 7](07_beyond.ipynb) asks whether such a change can be heard. Terms are explained in the
# [glossary](README.md#glossary).
#
# Previous: [3 · Training](03_training.ipynb). Next:
# [5 · Adversarial training](05_adversarial_training.ipynb).
#
# <small>Reads `clips.parquet`, the store of images, `model.safetensors` and `clean.parquet`; writes
# `attacks.parquet` (one row per clip and attack), `examples.safetensors` and `evaluated.csv`.</small>

# %%
import json

import foolbox
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from lib import (
    attacks,
    chapter,
    figures,
    files,
    markup,
    metrics,
    models,
    names,
    ranges,
    reporting,
    store,
    study,
)
from lib.analysis import published
from lib.attacks import checks, cwa, nes
from lib.crafting import prepare
from lib.data import manifest, splits
from lib.device import PRECISIONS, choose_device
from lib.device import memory as memory_of

figures.use_style()

# %% tags=["parameters"]
build = "build"  # folder of the executed grid
dataset = "esc50"
representation = "dwt"
model = "resnet56"
fold = "1"  # held out; 1.3 is fold 1 with seed 3
training = "standard"  # of the victim: standard (chapter 3) or a defence (chapter 5)
device = "auto"  # cpu, cuda, or whichever is there
clips = 100  # drawn from the tested clips, stratified; 0 is all of them
until = 0.9  # fooling rate beyond which an attack tries no larger budgets (Section VI)
batch = 0  # most clips attacked at once; 0 is 16 on a CPU and all on a GPU
memory = 0.0  # GiB that they may take, where images are large; 0 is the device's own
bim_step = 0.00392  # ζ of Eq. 1: one grey level, 1/255, our reading of the paper's 1
bim_steps = 100  # most steps of BIM at one budget
bim_normalised = False  # True steps along the normalised gradient by ε/10, as Foolbox does, not by its sign
bim_first = 0.00009375  # RMS of the first budget, a sixteenth of the paper's 0.0015
bim_rungs = 12  # budgets, each twice the one before
bim_bisections = 4  # between the last failing and the first fooling budget
jsma_thetas = [0.19608, 0.39216, 0.58824, 0.78431, 0.98039]  # displacements, 50 to 250 of 255, Section VI
jsma_steps = 1000  # most steps, Section VI
jsma_change = "increase"  # Eq. 2 for features that are raised; "decrease" is the map that the paper prints
jsma_features = 1  # how many features a step moves, Eq. 2
deepfool_caps = [100, 200, 300, 400, 500, 600]  # most linearisations, Section VI
cwa_cs = [1.0, 3.0, 5.0, 7.0]  # c of Eq. 5, Section VI
cwa_steps = [25, 100, 1000, 1500]  # paired with c, Section VI
cwa_product = False  # True tries every pair of c and steps, cheapest first
cwa_search = 100  # steps after a clip's first example in which its c falls; 0 keeps c, as a plain ladder
cwa_kappa = 0.0  # κ of Eq. 6, by how much the target's logit has to lead
pia_steps = 500  # most moves, Section VI
pia_samples = 50  # probes of one gradient estimate
pia_top = 1  # how many of its most likely classes the victim reports
pia_queries = 0  # most queries of a clip; 0 sets no limit
pia_patience = 0  # queries without the ball shrinking by 1 % that end a walk; 0 sets no such limit
ddn_steps = 100  # steps of the reference attack
brackets = True  # begin each ladder near the rung that fools; False begins at the lowest, as the paper
crafting = "auto"  # precision in which examples are made: auto, float32, tf32 or bfloat16; judged in float32
checked = 8  # clips on which the attacks themselves are checked
shown_class = "children_playing"  # whose clip is kept for pictures; another where there is none
seed = 0

# %%
ranges.check(
    globals(),
    ranges.taken("build dataset representation model fold training", study.Cell),
    ranges.one_of("representation", names.REPRESENTATIONS),
    ranges.one_of("model", names.MODELS),
    ranges.one_of("training", names.TRAININGS),
    ranges.path("build"),
    ranges.device("device"),
    ranges.number("until", 0, 1),
    ranges.number("memory cwa_kappa", 0),
    ranges.number("bim_step bim_first jsma_thetas", above=0, most=1),
    ranges.number("cwa_cs", above=0),
    ranges.whole("clips batch bim_bisections cwa_search pia_queries pia_patience seed", 0),
    ranges.whole("checked bim_steps bim_rungs jsma_steps jsma_features deepfool_caps", 1),
    ranges.whole("cwa_steps pia_steps pia_top ddn_steps", 1),
    ranges.whole("pia_samples", 2, multiple_of=2),
    ranges.one_of("jsma_change", ("increase", "decrease")),
    ranges.one_of("crafting", PRECISIONS),
    ranges.flag("cwa_product bim_normalised brackets"),
    ranges.as_many("cwa_cs cwa_steps", unless="cwa_product"),
    ranges.text("shown_class", ".+", "the name of a class"),
)

# %%
cell = study.Cell(build, dataset, representation, model, fold, training)
where = choose_device(device)
weights = cell.path("model.safetensors")
net = models.load(weights, where)
victim = foolbox.PyTorchModel(net, bounds=(0, 1), device=where)
catalogue = manifest.usable(cell)
images = store.open(cell.up(1).path("store"), representation)

# %% [markdown]
# ## Who is attacked, and towards what
#
# > **Paper.** Batches of 500 and 100 clips that span the data set; targets are drawn at random.
#
# > **Here.** `clips` of the tested clips are *evaluated*: a stratified, seeded choice that is the same for
# > every model and attack. Those that the victim classifies correctly are attacked; the others need no
# > attack. A clip's *target* is drawn uniformly from its wrong classes and fixed by the clip's name, so that
# > every attack and every model is asked for the same mistake.

# %%
tested = cell.load("clean.parquet").merge(catalogue.reset_index(names="position")[["clip", "position"]])
chosen = splits.choose(tested, clips, seed).reset_index(drop=True)
place = tested["position"].to_numpy() * images.copies
x = images[chosen["position"].to_numpy() * images.copies]
label = torch.tensor(chosen["label"].to_numpy())
target = attacks.wrong_labels(label, catalogue["label"].nunique(), seed, chosen["clip"])
predicted = torch.tensor(tested["label"].where(tested["predicted"] == tested["label"], -1).to_numpy())
starts = attacks.starting_points(images, place, predicted, target, list(chosen["clip"]), seed=seed)
right = chosen[chosen["predicted"] == chosen["label"]]
print(f"{cell}: {len(right)} of {len(chosen)} clips are classified correctly")

# %% [markdown]
# ## How large a change may be
#
# The size of a perturbation $\delta$ is its norm $\|\delta\|_2$ over the whole image. The paper compares
# models within $\|\epsilon\|_2 \leq 3$ at 1568 × 768 values; at the size used here the same change per value
# has a smaller norm, the budget $\epsilon$ below.
#
# An attack is run at rising budgets, its *ladder*. A clip that is fooled is not attacked further. If even the
# lowest rung of a ladder is above $\epsilon$, the attack cannot succeed within it, and its rate there says
# nothing: we call it *open*.

# %%
budget = metrics.scaled_budget(published.BUDGET, (images.settings.bins, images.settings.frames))
settings = {
    "bim_step": bim_step,
    "bim_steps": bim_steps,
    "bim_normalised": bim_normalised,
    "bim_first": bim_first,
    "bim_rungs": bim_rungs,
    "bim_bisections": bim_bisections,
    "jsma_thetas": jsma_thetas,
    "jsma_steps": jsma_steps,
    "jsma_change": jsma_change,
    "jsma_features": jsma_features,
    "deepfool_caps": deepfool_caps,
    "cwa_cs": cwa_cs,
    "cwa_steps": cwa_steps,
    "cwa_product": cwa_product,
    "cwa_search": cwa_search,
    "cwa_kappa": cwa_kappa,
    "pia_steps": pia_steps,
    "pia_samples": pia_samples,
    "pia_top": pia_top,
    "pia_queries": pia_queries,
    "pia_patience": pia_patience,
    "ddn_steps": ddn_steps,
}

# %%
every = [*names.ATTACKS, *names.REFERENCE, *names.CONTROLS]
ladders = attacks.ladders(images.size, only=every, seed=seed, **settings)
coarse = [name for name, ladder in ladders.items() if ladder.smallest > budget]
print(f"the paper's ‖ε‖₂ = {published.BUDGET:g} is {budget:.3g} at {images.size[0]} × {images.size[1]}")
print(f"open, since their smallest step is larger: {', '.join(coarse) or 'none'}")

# %% [markdown]
# Each attack is shown on one clip, the first that is classified correctly.

# %%
at = [int(n) for n in right.index[:1]]
clip, its, towards = x[at].to(where), label[at].to(where), target[at].to(where)
aim = foolbox.TargetedMisclassification(towards)
print(f"{', '.join(chosen['clip'][at])}: class {its.tolist()}, target {towards.tolist()}")

# %% [markdown]
# ## BIM: many small steps
#
# The [basic iterative method](https://arxiv.org/abs/1607.02533) climbs the loss $J$ of the label in signed
# steps $\zeta$, or descends that of a target. After each step it projects the image back into the ball around
# the clip (Eq. 1):
#
# $$\mathbf{x}'_{n+1} = \operatorname{clip}\left\{\mathbf{x}'_n + \zeta \operatorname{sgn}
#   \left(\nabla_{\mathbf{x}} J[\mathbf{x}'_n, l(\mathbf{x})]\right)\right\}$$
#
# BIM-a stops at the first example. BIM-b spends every step and returns the last example it met.
#
# > **Paper.** $\epsilon \geq 0.0015$, confidence $\geq 75\,\%$, $\zeta = 1$, measured in $\ell_2$.
#
# > **Here.** The Foolbox of that time measured this $\epsilon$ as RMS, the root of the mean square change of
# > a value. So the budgets are RMS radii that double from `bim_first`. The gap between the last that failed
# > and the first that fooled is then halved `bim_bisections` times, clip by clip. $\zeta = 1$ is read as one
# > grey level, 1/255 (`bim_step`). An example counts when the target has probability 0.75. The gradient is
# > that of $m = \log \sum_{k \neq l} e^{Z_k} - Z_l$. With $J = \log(1 + e^m)$ it has the same direction as
# > that of $J$, and it does not vanish where the model is sure.

# %%
Markdown(chapter.source(attacks.BIM.perturb))

# %% [markdown]
# A signed step moves *every* value by $\zeta$, whatever its gradient, and is often longer than the ball, to
# which it is then cut back. Foolbox divides the gradient by its norm instead (`bim_normalised`). We expect
# that such steps fool more often within the same ball. Below, both attack the clip within eight times
# $\epsilon$. Then both look for *any* wrong class of several clips, within $\epsilon$ and four times
# $\epsilon$; the table counts the clips that are misclassified.

# %%
kinds = {"signed steps": False, "normalised steps": True}
bims = {
    name: attacks.BIM(step=bim_step, steps=bim_steps, stop_at_first=False, normalised=normalised)
    for name, normalised in kinds.items()
}
paths = {
    name: checks.path(bim, victim, clip, its, aim, towards, epsilon=8 * budget) for name, bim in bims.items()
}
figures.path(paths)

# %%
some = [int(n) for n in right.index[:checked]]
few, theirs = x[some].to(where), label[some].to(where)
norms = [budget, 4 * budget]
wrong = {
    name: checks.reached(victim, bim, few, theirs, norms, goal=foolbox.Misclassification).sum()
    for name, bim in bims.items()
}
wrong = pd.DataFrame(wrong).rename_axis("‖δ‖₂").rename(index=lambda norm: f"{norm:.3g}")
signed, normalised = wrong.sum()
seen = f"{normalised:.0f} by normalised, {signed:.0f} by signed steps, {len(some)} clips at two budgets"
more = None if normalised == signed else bool(normalised > signed)
print(chapter.expectation("normalised steps fool more often", seen, more))
Markdown(markup.table(wrong))

# %%
print(f"a step that moves every value by ζ has ‖δ‖₂ = {bim_step * x[0].numel() ** 0.5:.3g}")

# %% [markdown]
# ## JSMA: one value at a time
#
# Which value of the image raises the target's logit and lowers all others? The Jacobian shows it (Eq. 3), and
# the saliency map of Eq. 2 ranks the values ([Papernot et al.](https://arxiv.org/abs/1511.07528)):
#
# $$J_{i,j} = \frac{\partial f_j(\mathbf{x})}{\partial \mathbf{x}_i}, \qquad
#   S(\mathbf{x}, l')[i] = |J_{i,l'}| \Big(\sum_{j \neq l'} J_{i,j}\Big),$$
#
# zero where the signs are not the wanted ones. The most salient value is moved by $\theta$, again and again.
#
# > **Paper.** At most 1000 iterations, a scaling of $[0, 250]$, displacement 50.
#
# > **Here.** $\theta$ climbs through `jsma_thetas`. As printed, Eq. 2 is Papernot's map for values that are
# > *lowered*; the map for values that are raised is the default (`jsma_change`). $f$ are the logits: on
# > probabilities, which sum to one, the sum in Eq. 2 would be $-J_{i,l'}$, and the map would be
# > $J_{i,l'}^2$. Two gradients are enough for any number of classes: of $f_{l'}$ and of $\sum_j f_j$. A step
# > may move several values (`jsma_features`), which costs fewer steps and larger changes.

# %%
Markdown(chapter.source(attacks.JSMA.perturb))

# %% [markdown]
# We expect that the probability of the target rises slowly, over more than ten steps: one value of thousands
# changes in each of them.

# %%
jsma = ladders["JSMA"].rungs[-1].attack
path = checks.path(jsma, victim, clip, its, aim, towards)
taken = f"{path['step'].max():.0f} steps, each of {jsma_features} of {x[0].numel()} values"
print(chapter.expectation("more than ten steps", taken, bool(len(path) > 11) if len(path) else None))
figures.path({"JSMA": path})

# %% [markdown]
# ## DeepFool: the nearest boundary
#
# If the victim were linear, the shortest way over its boundary would be (Eq. 4)
#
# $$\epsilon = -f(\mathbf{x})\, \mathbf{w} / \|\mathbf{w}\|_2^2.$$
#
# [DeepFool](https://arxiv.org/abs/1511.04599) takes the victim for linear, steps onto the nearest of the
# boundaries to the other classes, and repeats until the class has changed, to whichever class.
#
# > **Paper.** 100 to 600 iterations; of $\ell_2$ or $\ell_\infty$ "we use latter in accordance with BIM
# > algorithms", whose measure is $\ell_2$.
#
# > **Here.** $\ell_2$, by that accordance; the cap on the number of linearisations climbs (`deepfool_caps`).

# %%
Markdown(chapter.source(attacks.DeepFool._nearest))

# %% [markdown]
# We expect fewer than ten steps. The curve shows the probability of the label, which must lose its lead.

# %%
deepfool, away = ladders["DeepFool"].rungs[-1].attack, foolbox.Misclassification(its)
path = checks.path(deepfool, victim, clip, its, away, its)
taken = f"{path['step'].max():.0f} steps to ‖δ‖₂ = {path['l2'].max():.3g}"
print(chapter.expectation("fewer than ten steps", taken, bool(len(path) < 11) if len(path) else None))
figures.path({"DeepFool": path}, wanted="label")

# %% [markdown]
# ## CWA: the smallest change that fools
#
# [Carlini and Wagner](https://arxiv.org/abs/1608.04644) minimise the change and a loss on the logits $Z$
# together (Eqs. 5 and 6),
#
# $$\min \|\mathbf{x}' - \mathbf{x}\|_2^2 + c\, \mathcal{L}(\mathbf{x}'), \qquad
#   \mathcal{L}(\mathbf{x}') =
#   \max\Big\{\max_{i \neq l'} Z(\mathbf{x}')_i - Z(\mathbf{x}')_{l'},\; -\kappa\Big\},$$
#
# by Adam over $\rho$ with $\mathbf{x}' = \tfrac{1}{2}(\tanh \rho + 1)$, which cannot leave $[0, 1]$ (Eq. 7).
#
# > **Paper.** $c \in \{1, 3, 5, 7\}$, 25 to 1500 iterations, a binary search for $c$. Eq. 8 gives the change
# > found as $\tfrac{1}{2} \tanh(\rho + 1) - \mathbf{x}$, with $\rho$ an arctangent.
#
# > **Here.** $c$ and iterations are paired and climb together (`cwa_product`: every pair). A clip that is
# > fooled goes on for `cwa_search` steps, in which its $c$ falls where the example fools and rises where it
# > does not: that ends on the boundary, as a binary search does, at a tenth of its passes. $\kappa$ is
# > `cwa_kappa`. Eq. 8 has a bracket in the wrong place, $\tfrac{1}{2}(\tanh \rho + 1) - \mathbf{x}$, and
# > $\rho$ begins at the *hyperbolic* arctangent of $2\mathbf{x} - 1$, as Eq. 7 requires.

# %%
Markdown(chapter.source(cwa._Descent.run))

# %% [markdown]
# Until the first example is found the norm rises; in the search that follows it falls to the boundary.

# %%
carlini = ladders["CWA"].rungs[-1].attack
figures.path({"CWA": checks.path(carlini, victim, clip, its, aim, towards)})

# %% [markdown]
# ## PIA: a black box
#
# Here only the outputs are known. The attack ([Ilyas et al.](https://arxiv.org/abs/1804.08598)) begins at
# another clip, one that *is* classified as the target, and walks towards $\mathbf{x}$ without losing the
# target. An $\ell_\infty$ ball around $\mathbf{x}$ shrinks, and the probability of the target is climbed
# along a gradient that is estimated from pairs of probes (NES):
#
# $$\hat{g} = \frac{1}{2 n \sigma} \sum_{k=1}^{n} u_k \big[\log p(\mathbf{x}' + \sigma u_k) -
#   \log p(\mathbf{x}' - \sigma u_k)\big], \qquad u_k \sim \mathcal{N}(0, 1).$$
#
# So it fools wherever a start was found. Its result is how near it comes; where its steps or queries run out
# before the ball is small, its norm is only an upper bound (*at most*). A clip for whose target there is no
# start is left out of PIA's rate.
#
# > **Paper.** $\epsilon \geq 0.001$, at most 500 iterations, decay 0.001, learning rate in $[0.001, 0.6]$.
#
# > **Here.** As in Ilyas et al. (the paper's [15]): the victim reports the probabilities of its `pia_top`
# > most likely classes only, and a pair of probes that loses sight of the target is dropped. The ball shrinks
# > by 0.001, by twice as much while that succeeds and half as much when it fails. Every image that the victim
# > classifies is counted as a query. `pia_patience` ends a walk whose ball has stopped shrinking.

# %%
Markdown(chapter.source(nes.estimate))

# %%
pia = ladders["PIA"].rungs[-1].attack
able = [n for n in at if not starts[n].isnan().any()]
how = {"starting_points": starts[able].to(where)}
goal = foolbox.TargetedMisclassification(target[able].to(where))
path = checks.path(pia, victim, x[able].to(where), label[able].to(where), goal, target[able].to(where), **how)
figures.path({"PIA": path})

# %% [markdown]
# ## A reference, and two controls
#
# An attack that fails may be weak. Next to the six we run a strong and cheap one,
# [DDN](https://arxiv.org/abs/1811.09600) as implemented in Foolbox. It walks on a sphere around the clip that
# shrinks while the example fools and grows while it does not. Any wrong class counts. The controls are FGSM,
# one signed step, and noise of the same norms.

# %%
ddn = ladders["DDN"].rungs[-1].attack
figures.path({"DDN": checks.path(ddn, victim, clip, its, away, its)}, wanted="label")

# %% [markdown]
# ## Six attacks, one budget after another
#
# | attack | goal | what climbs | measures |
# |---|---|---|---|
# | BIM-a, BIM-b | the target, with probability 0.75 | the radius of the ball, RMS | $\ell_2$ |
# | JSMA | the target | the displacement of one value | $\ell_0$ |
# | DeepFool | any wrong class | the number of linearisations | $\ell_2$ |
# | CWA | the target | $c$ and the steps | $\ell_2$ |
# | PIA | the target | nothing: one walk, towards a smaller ball | $\ell_\infty$ |
#
# > **Paper.** Budgets are allocated until "AUC > 0.9".
#
# > **Here.** Clips not yet fooled go to the next rung until more than `until` of all attacked clips are
# > fooled, or the ladder ends. *Fooled* is the goal in the table, measured again on the returned example in
# > float32 and never taken from the attack. With `brackets`, a clip begins at the rung near which it should
# > be fooled and goes down until one fails: the rung it ends at is the same for fewer passes. All norms below
# > are $\ell_2$.

# %%
wanted = right[right["clip"].isin(catalogue.loc[catalogue["name"] == shown_class, "clip"])]
shown = list(dict.fromkeys(pd.concat([wanted, right])["clip"]))[:5]
version = f"{files.digest(weights)}, {crafting}"
pieces = attacks.Pieces(cell.path("04_attacks.pieces"), files.save, files.load, version)
at_once = batch or (16 if where.type == "cpu" else len(x))
crafted = foolbox.PyTorchModel(prepare(net, crafting, batch=at_once, say=print), bounds=(0, 1), device=where)

# %%
rows, examples = attacks.climb(
    victim,
    x,
    label,
    target,
    list(chosen["clip"]),
    ladders,
    until=until,
    brackets=brackets,
    crafted=crafted,
    batch=at_once,
    memory=memory or memory_of(where),
    starts=starts,
    keep=pieces,
    show=shown,
    progress=reporting.track,
    say=print,
)
cell.save("attacks.parquet", rows)
cell.save("evaluated.csv", chosen[["clip"]])  # those that were misclassified anyway are among them
pieces.clear()

# %% [markdown]
# Each curve is the share of attacked clips that are fooled by a perturbation no larger than the norm below.
# We expect DeepFool to lead the six, since any wrong class is enough for it. A curve need not reach 1: beyond
# `until`, the dotted line, no larger budget is tried, and a ladder ends. It is flat to the right of the last
# clip that was fooled, where larger norms were not tried.

# %%
curves = metrics.stairs(metrics.least_norms(rows))
figures.fooling_curves(curves, budget, threshold=until, title=names.point(str(cell)))

# %%
norms = metrics.least_norms(rows).reindex(columns=list(ladders))
medians = norms.median()
least = medians[list(published.ATTACKS)].idxmin() if len(norms) else ""
seen = f"the least median norm is {least}'s, {medians[least]:.3g}" if least else "no clip was attacked"
print(
    chapter.expectation("DeepFool needs the least of the six", seen, least == "DeepFool" if least else None)
)

# %% [markdown]
# The table shows what was reached and what it cost. *Reached*: the target is predicted, at any probability.
# *Fooled within ε*: the share fooled by a change no larger than $\epsilon$; *AUC within ε*: the area under
# the curve up to there, over $\epsilon$. *Any wrong class*: the median norm at which an attack first met
# *some* misclassified image, whatever its goal. Norms are medians over the clips that were fooled. Passes
# and queries are means over the attacked clips; a black box has queries alone. *Refused* counts the claims
# of an attack that the float32 judge did not confirm.

# %%
by = rows.groupby("attack", sort=False)
summary = by[["fooled", "reached"]].mean().reindex(list(ladders))
summary["fooled within ε"] = metrics.rate_within(norms, [budget])[budget].drop(coarse)
summary["AUC within ε"] = metrics.shortfall(norms, budget).mean().drop(coarse)
summary["median ‖δ‖₂"] = norms.replace(np.inf, np.nan).median()
met = metrics.least_norms(rows, success="any").reindex(columns=list(ladders))
summary["any wrong class"] = met.replace(np.inf, np.nan).median()
summary[["forwards", "backwards", "queries"]] = by[["forwards", "backwards", "queries"]].mean()
summary["refused"] = by["refused"].sum()
Markdown(markup.table(summary.rename_axis("attack"), floats=".3g"))

# %% [markdown]
# ## One clip under six attacks
#
# The first picture is the clip, the others are the least perturbed example that each attack found of it, or
# its last attempt where it failed.

# %%
spots = [n for n, name in enumerate(chosen["clip"]) if name in shown]
kept = {"original": x[spots]} | {name: each for name, each in examples.items() if name in names.ATTACKS}
order, heard = list(chosen["clip"].iloc[spots]), catalogue.set_index("clip")["name"]
about = {"clips": json.dumps(order), "names": json.dumps([heard[name] for name in order])}
cell.save("examples.safetensors", (kept, about))
first = order.index(shown[0]) if shown else 0
drawn = {name: each[first] for name, each in kept.items() if len(each)} or {"nothing was attacked": x[0]}
change = {name: image - drawn["original"] for name, image in drawn.items() if name in names.ATTACKS}
held = rows[rows["clip"].isin(shown[:1])].set_index("attack")["fooled"]
failed = {name: "" if held.get(name, False) else ", not fooled" for name in change}
sizes = {name: f"‖δ‖₂ = {each.norm():.2g}{failed[name]}" for name, each in change.items()}
figures.spectrograms(drawn, frequencies=images.frequencies, times=images.times, below=sizes)

# %% [markdown]
# And what was changed, each on a scale of its own around zero: JSMA changes a few values by much, BIM many by
# little; PIA's change still has traces of the clip at which it began.

# %%
axes = {"frequencies": images.frequencies, "times": images.times}
figures.spectrograms(change or drawn, **axes, below=sizes, columns=3, difference=True)

# %% [markdown]
# ## Sanity checks of the attacks
#
# An attack that fails may be a weak attack. Following [Carlini et al.](https://arxiv.org/abs/1902.06705) we
# check what a working attack must show. Passing is necessary, and no proof that an attack is strong.
#
# First the gradient. A short step along it should lower the loss as much as its slope predicts. The same
# victim behind a staircase (it sees 256 grey levels) is as weak as before, but its gradient is zero: the
# check must flag it. And a victim made of one plane per class must be fooled on every clip, or the attack is
# broken.

# %%
goals = target[some].to(where)
staircase = foolbox.PyTorchModel(checks.Masked(victim).eval(), bounds=(0, 1), device=where)
honest, hidden = (checks.gradients(each, few, goals) for each in (victim, staircase))
plane = checks.Breakable(x[0].numel(), catalogue["label"].nunique(), seed).eval()
weak = foolbox.PyTorchModel(plane, bounds=(0, 1), device=where)
broken = checks.reached(weak, attacks.BIM(step=bim_step, steps=100), few, goals, [50.0])

# %% [markdown]
# Second, more budget and more steps. BIM-b attacks the same clips at a half, one and two times the median
# norm that it needed, and at that norm with twice the steps.

# %%
median = float(np.nan_to_num(summary.loc["BIM-b", "median ‖δ‖₂"], nan=budget))
steps = [attacks.BIM(step=bim_step, steps=n, stop_at_first=False) for n in (bim_steps, 2 * bim_steps)]
grown = checks.reached(victim, steps[0], few, goals, [median / 2, median, 2 * median]).mean().tolist()
longer = checks.reached(victim, steps[1], few, goals, [median]).mean().tolist()

# %% [markdown]
# Third, the reference is run with the goal of each attack that measures $\ell_2$, on the same clips. The
# ratio is that of the median norms, over clips that both fooled. Above 1.05 our attack is weak there: smaller
# changes exist.

# %%
own = {name: ladders[name] for name in [*names.ATTACKS, *names.REFERENCE]}
compared = checks.against_reference(victim, few, theirs, goals, list(chosen["clip"][some]), rows, own)
Markdown(markup.table(compared, index=False, floats=".3g"))

# %%
last = metrics.ever(norms).mean()
white = last[[name for name in names.ATTACKS if name != "PIA"]]
beaten = list(compared.loc[compared["ratio"] > checks.WEAK, "attack"])
norm_of = rows.set_index(["clip", "attack"])["l2"]
pictured = (
    {name: norm_of.get((shown[0], name), each.norm()) for name, each in change.items()} if shown else {}
)
same = all(np.isclose(change[name].norm(), norm, rtol=1e-3) for name, norm in pictured.items())
inside = all(bool(((each >= 0) & (each <= 1)).all()) for each in examples.values())
few_fooled = ", ".join(f"{name} {rate:.0%}" for name, rate in white.dropna().items() if rate <= until)
steady = not abs(longer[0] - grown[1]) > 0.25
many, one, noise = last[["BIM-b", "FGSM", "noise"]]
seen, black, flagged = medians["CWA"], medians["PIA"], int(hidden["masked"].sum())

# %%
sane = [
    ("there is a clip to attack", f"{len(right)} of {len(chosen)}", len(right) > 0),
    ("every attack can succeed within ε", f"open: {', '.join(coarse) or 'none'}", not coarse),
    ("a larger budget never fools fewer", f"{grown}", grown == sorted(grown)),
    ("twice the steps change little", f"{grown[1]:.2f}, {longer[0]:.2f}", steady),
    ("gradients keep their promise", f"not for {honest['masked'].sum()}", not honest["masked"].mean() > 0.1),
    ("a masked gradient is flagged", f"{flagged} of {len(hidden)}", flagged == len(hidden)),
    ("a victim made to break is broken", f"{len(broken)} clips", bool(broken.all(axis=None))),
    (f"with the weights, over {until:.0%} are fooled", few_fooled or "all", not few_fooled),
]

# %%
sane += [
    ("many steps fool no fewer than one", f"{many:.0%}, {one:.0%}", not many < one),
    ("noise fools no more than BIM-b", f"{noise:.0%}, {many:.0%}", not many < noise),
    ("CWA, with the weights, needs less than PIA", f"{seen:.3g}, {black:.3g}", not seen > black),
    ("the reference does not beat ours by 5 %", f"beaten: {', '.join(beaten) or 'none'}", not beaten),
    ("the judge confirms every claim", f"{rows['refused'].sum()} refused", not rows["refused"].any()),
    ("what is pictured is what was measured", f"{len(pictured)} pictures", same),
    ("every example is in [0, 1]", f"{sum(map(len, examples.values()))} examples", inside),
]
table = pd.DataFrame(sane, columns=["what should hold", "measured", "holds"])
Markdown(markup.table(table.assign(holds=table["holds"].map({True: "yes", False: "no"})), index=False))

# %%
attacked = metrics.least_norms(rows, success="any").reindex(columns=[*names.ATTACKS, *names.REFERENCE])
worst = metrics.worst_case(metrics.needed(attacked, list(chosen["clip"])))
clean, robust = int((worst > 0).sum()), int((worst > budget).sum())
half = f"{worst[worst > 0].median():.3g}" if clean else "–"
answer = (
    f"Of {len(chosen)} clips, {clean} are classified correctly as they are and {robust} under every attack "
    f"within ε = {budget:.3g}; half of the {clean} are misclassified by a change of ‖δ‖₂ = {half} or less."
)
typical = {name: f", half of these within ‖δ‖₂ = {norm:.2g}" for name, norm in summary["median ‖δ‖₂"].items()}
said = [f"{name} fools {rate:.0%}{typical[name] if rate > 0 else ''}" for name, rate in last.dropna().items()]
walks = rows[rows["attack"] == "PIA"]
cut = int((walks["bound"] == "at most").sum())
said += [
    f"{cut} of {len(walks)} walks of PIA were cut off by their limits: their norms are upper bounds",
    f"{len(right) - len(walks)} of {len(right)} clips had no start for PIA, and are left out of its rate",
    "read on in [chapter 5](05_adversarial_training.ipynb), where a model is trained on such examples",
]
Markdown(chapter.summary(answer, said, dict(zip(table["what should hold"], table["holds"], strict=True))))
