# %% [markdown]
# # 4 · Attacks
#
# **How small a change to a spectrogram makes a trained classifier name another sound?**
#
# A classifier that is right on a spectrogram may be wrong on another one that looks the same. Such a changed
# image is an *adversarial example*, and the method that finds it is an *attack*. The paper attacks every
# model with six methods (Sections II and VI). This chapter runs them against one model, the *victim*, which
# [chapter 3](03_training.ipynb) or [chapter 5](05_adversarial_training.ipynb) trained. You will see each
# attack as an equation, as code, and at work on one clip. Then you will see how many clips they fool as the
# change grows. At the end, sanity checks ask whether an attack that fails may simply be weak. They can find
# a weak attack; they cannot prove that a victim is robust.
#
# *Threat model*, or what the adversary knows, wants and may do. Five of the six attacks are *white boxes*:
# they know the weights of the victim, so they can compute gradients. The sixth, PIA, is a *black box*: it
# sees only answers. Five are *targeted* and must reach one given wrong class; DeepFool accepts any. All of
# them change the spectrogram and not the sound. [Chapter 7](07_beyond.ipynb) asks whether such a change can
# be heard. Other terms are explained in the [glossary](README.md#glossary).
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

# %% [markdown]
# The next cell lists all settings of the chapter, and the one after it checks them. Skip both at first
# reading: the text names a setting where it matters.

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
bim_normalised = False  # True steps by ε/10 along the normalised gradient, not along its sign
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
cwa_search = 200  # steps after a clip's first example in which its c falls; 0 keeps c, as a plain ladder
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
seed = 0  # of the clips, targets and starts that are drawn

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
# > **Here.** `clips` of the tested clips are *evaluated*, the same ones for every model and attack. They are
# > drawn at random, as evenly from all classes as can be. Those that the victim classifies correctly are
# > attacked; the others are wrong already and need no attack. The *target* of a clip is the wrong class that
# > a targeted attack has to reach. All wrong classes are equally likely. The draw depends only on `seed` and
# > the clip's name, so the target is the same for every attack and model.

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
# An attack adds a *perturbation* $\delta$ to the image. Its size is the norm $\|\delta\|_2$, the root of the
# sum of its squared values. If all $N$ values change by $r$ (or by $r$ in the root mean square, *RMS*), then
# $\|\delta\|_2 = r \sqrt{N}$. So the same change per value has a larger norm in a larger image.
#
# The paper compares models within $\|\epsilon\|_2 \leq 3$ at 768 × 1568 values. We keep its change per
# value. Scaled by $\sqrt{N}$ to the images used here, this gives the budget $\epsilon$ that the next cell
# prints. Rows of an appended tonnetz do not count in $N$, because the paper gives such images the same
# budget.
#
# An attack is run at rising budgets, its *ladder*, and each budget is a *rung*. Once a clip is fooled, no
# larger budget is tried on it. If even the smallest step of an attack is larger than $\epsilon$, the attack
# cannot succeed within $\epsilon$. Its rate there would say nothing, and the table below leaves it out.

# %%
budget = metrics.scaled_budget(published.BUDGET, (images.settings.bins, images.settings.frames))
of_ladders = (
    "bim_step bim_steps bim_normalised bim_first bim_rungs bim_bisections jsma_thetas jsma_steps jsma_change "
    "jsma_features deepfool_caps cwa_cs cwa_steps cwa_product cwa_search cwa_kappa pia_steps pia_samples "
    "pia_top pia_queries pia_patience ddn_steps"
)
settings = {name: globals()[name] for name in of_ladders.split()}
every = [*names.ATTACKS, *names.REFERENCE, *names.CONTROLS]
ladders = attacks.ladders(images.size, only=every, seed=seed, **settings)
coarse = [name for name, ladder in ladders.items() if ladder.smallest > budget]
too_coarse = ", ".join(map(names.label, coarse))
print(f"the paper's ‖ε‖₂ = {published.BUDGET:g} is {budget:.3g} at {images.size[0]} × {images.size[1]}")
print(f"cannot succeed within ε, since their smallest step is larger: {too_coarse or 'none'}")

# %% [markdown]
# ## One attack at a time
#
# Each attack is now shown on one clip: of those that are classified correctly, the one of which the victim is
# sure to a middling degree (the median of its confidence). Every figure has one point per image that the
# attack tried, in the order of its steps. On the left is the probability that the victim gives to one class;
# on the right is the distance from the clip, $\|\delta\|_2$. At step 0 you see how sure the victim is of the
# clip itself. One clip shows how an attack moves, and nothing about how strong it is. For that, see *All
# attacks* below.
#
# The code is the core of the library's function. It works on many clips at once: `active` are the places of
# the clips that are still under attack, and `call.forward` and `call.gradient` ask the victim and count what
# that costs. Comments mark the lines that are the equation.

# %%
at = [int(n) for n in right.sort_values("confidence", kind="stable").index[len(right) // 2 :][:1]]
clip, its, towards = x[at].to(where), label[at].to(where), target[at].to(where)
aim, away = foolbox.TargetedMisclassification(towards), foolbox.Misclassification(its)
nothing = "" if at else "no path, since no clip is classified correctly"
called = catalogue.drop_duplicates("label").set_index("label")["name"].map(markup.plain)
for n in at:
    print(f"{chosen['clip'][n]}: class {called[int(label[n])]}, target {called[int(target[n])]}")

# %% [markdown]
# ### BIM: many small steps
#
# Training changes the weights so that the loss $J$ falls. An attack leaves the weights as they are and
# changes the *image*, so that the loss rises. For this it needs the gradient of $J$ with respect to the
# image. The simplest attack takes one step: it moves every value by $\epsilon$ in the direction in which the
# loss rises. This is the fast gradient sign method, [FGSM](https://arxiv.org/abs/1412.6572):
#
# $$\mathbf{x}' = \mathbf{x} + \epsilon \operatorname{sgn} \left(\nabla_{\mathbf{x}} J[\mathbf{x},
#   l(\mathbf{x})]\right)$$
#
# In this equation $\epsilon$ is the change of each value, and not the norm of the whole change.
#
# The [basic iterative method](https://arxiv.org/abs/1607.02533) takes many such steps, each of length
# $\zeta$: up the loss of the label $l$ or, with a target, down the loss of the target. After each step it
# moves the image back into the *ball* of all images within the budget around the clip (Eq. 1):
#
# $$\mathbf{x}'_{n+1} = \operatorname{clip}\left\{\mathbf{x}'_n + \zeta \operatorname{sgn}
#   \left(\nabla_{\mathbf{x}} J[\mathbf{x}'_n, l(\mathbf{x})]\right)\right\}$$
#
# BIM-a stops at the first example. BIM-b spends every step and returns the last example it met.
#
# > **Paper.** $\epsilon \geq 0.0015$, confidence $\geq 75\,\%$, $\zeta = 1$, measured in $\ell_2$.
#
# > **Here.** The [Foolbox](https://arxiv.org/abs/1707.04131) of that time measured this $\epsilon$ as RMS. So
# > the budgets are RMS radii that double from `bim_first`. The gap between the last that failed and the first
# > that fooled is then halved `bim_bisections` times, clip by clip. $\zeta = 1$ is read as one grey level,
# > 1/255; the value used, `bim_step`, is printed below. An example counts when the target has a probability
# > of at least 0.75.
# >
# > The code follows the gradient of $m = \log \sum_{k \neq l} e^{Z_k} - Z_l$. Here $Z$ are the *logits*, the
# > victim's outputs before the softmax. As $J = \log(1 + e^m)$, the gradients of $m$ and $J$ have the same
# > direction. Where the model is very sure of its answer, the gradient of $J$ can be rounded to zero; that
# > of $m$ is not.

# %%
Markdown(chapter.source(attacks.BIM.perturb))

# %% [markdown]
# A signed step moves *every* value by $\zeta$, also those that hardly matter. That is a weakness where the
# budget is a $\|\delta\|_2$, because it is spent on all values alike. One step is often longer than the
# radius of the ball, and is then cut back to it. So within $\epsilon$, the fooling rate of BIM says as much
# about these steps as about the victim. Foolbox instead divides the gradient by its norm, so that values move
# in proportion to their gradient (`bim_normalised`). Below, both kinds of steps attack the clip within eight
# times $\epsilon$. We expect that normalised steps bring it at least as near to its target: the highest
# probability of the target that they reach is no lower.

# %%
kinds = {"signed steps": False, "normalised steps": True}
bims = {
    name: attacks.BIM(step=bim_step, steps=bim_steps, stop_at_first=False, normalised=normalised)
    for name, normalised in kinds.items()
}
paths = {
    name: checks.path(bim, victim, clip, its, aim, towards, epsilon=8 * budget) for name, bim in bims.items()
}
reached = [round(float(path["probability"].max()), 2) for path in paths.values()]
seen = nothing or f"probability {reached[1]:.2f} of the target, by signed steps {reached[0]:.2f}"
near = None if nothing else reached[1] >= reached[0]
print(chapter.expectation("normalised steps come as near to the target", seen, near))
figures.path(paths)

# %%
signed_step = bim_step * x[0].numel() ** 0.5
print(f"ζ is {255 * bim_step:.3g} of 255 grey levels; a step that moves every value by ζ has", end=" ")
print(f"‖δ‖₂ = {signed_step:.3g}, which is {signed_step / budget:.3g} times ε = {budget:.3g}")

# %% [markdown]
# One clip shows little. So both look for *any* wrong class of several clips, within $\epsilon$ and within
# four times $\epsilon$; the table counts the clips that are misclassified. We expect that normalised steps
# fool more of them. There are at most `checked` clips, so a difference of one or two at both norms decides
# nothing.

# %%
some = [int(n) for n in right.index[:checked]]
few, theirs = x[some].to(where), label[some].to(where)
norms = [budget, 4 * budget]
wrong = {
    name: checks.reached(victim, bim, few, theirs, norms, goal=foolbox.Misclassification).sum()
    for name, bim in bims.items()
}
wrong = pd.DataFrame(wrong).rename_axis("‖δ‖₂").rename(index=lambda norm: f"{norm:.3g}")
apart = wrong["normalised steps"] - wrong["signed steps"]
seen = f"{apart.iloc[0]:+d} of {len(some)} clips within ε, {apart.iloc[1]:+d} within 4 ε"
more = bool(apart.sum() > 0) if apart.abs().max() > 2 else None
print(chapter.expectation("normalised steps fool more clips", nothing or seen, more))
Markdown(markup.table(wrong))

# %% [markdown]
# ### JSMA: one value at a time
#
# Which single value of the image, if it is changed, raises the logit of the target $l'$ and lowers the sum of
# all others? The derivatives show it: $J_{i,j}$ is that of output $j$ by value $i$ (Eq. 3; this $J$ is a
# matrix, the Jacobian, and not the loss). The saliency map $S$ of Eq. 2 ranks the values
# ([Papernot et al.](https://arxiv.org/abs/1511.07528), *Jacobian-based saliency map attack*):
#
# $$J_{i,j} = \frac{\partial f_j(\mathbf{x})}{\partial \mathbf{x}_i}, \qquad
#   S(\mathbf{x}, l')[i] = |J_{i,l'}| \Big(\sum_{j \neq l'} J_{i,j}\Big),$$
#
# and $S$ is zero for a value that would not do both. The most salient value is moved by $\theta$, again and
# again.
#
# > **Paper.** At most 1000 iterations, a scaling of $[0, 250]$, displacement 50.
#
# > **Here.** $\theta$ climbs through `jsma_thetas`. As printed, Eq. 2 is Papernot's map for values that are
# > *lowered*. Our default raises values (`jsma_change`): then $S = J_{i,l'} |\sum_{j \neq l'} J_{i,j}|$ where
# > $J_{i,l'}$ is positive and the sum is negative. For $f$ we take the logits. Probabilities sum to one, so
# > with them the sum would be $-J_{i,l'}$, and the map $J_{i,l'}^2$ would ignore the other classes. Two
# > gradients are enough for any number of classes: that of $f_{l'}$ and that of $\sum_j f_j$. A step may move
# > several values (`jsma_features`); then fewer steps are needed, but the change is larger.

# %%
Markdown(chapter.source(attacks.JSMA.perturb))

# %% [markdown]
# Each step changes very few of thousands of values. So we expect a long path, of more than ten steps. Whether
# it reaches the target within the steps that are allowed is printed as well.

# %%
jsma = ladders["JSMA"].rungs[-1].attack
path = checks.path(jsma, victim, clip, its, aim, towards)
ends = "reached" if path["leads"].any() else "not reached"
seen = nothing or f"{path['step'].max()} steps, the target {ends}, ‖δ‖₂ = {path['l2'].max():.3g}"
print(chapter.expectation("more than ten steps", seen, None if nothing else bool(path["step"].max() > 10)))
figures.path({"JSMA": path})

# %% [markdown]
# ### DeepFool: the nearest boundary
#
# Between the label and each other class there is a *boundary*: the images for which both have the same logit.
# How far away is it? If the victim were linear, the shortest way onto it would be (Eq. 4)
#
# $$\epsilon = -f(\mathbf{x})\, \mathbf{w} / \|\mathbf{w}\|_2^2,$$
#
# where $f$ is the difference of the two logits, $\mathbf{w}$ its gradient, and $\epsilon$ the change itself,
# not a budget. [DeepFool](https://arxiv.org/abs/1511.04599) treats the victim as linear and steps onto the
# nearest of these boundaries. The victim is not linear, so it repeats the step until any other class is
# predicted.
#
# > **Paper.** 100 to 600 iterations. Of $\ell_2$ and $\ell_\infty$, "we use latter in accordance with BIM
# > algorithms"; but its BIM measures $\ell_2$.
#
# > **Here.** $\ell_2$, as for BIM. The ladder raises the largest number of steps (`deepfool_caps`). Only the
# > boundaries to the nine most likely other classes are considered, as in Foolbox.

# %%
Markdown(chapter.source(attacks.DeepFool._nearest))

# %% [markdown]
# We expect that the label loses its lead in fewer than ten steps. The left curve shows the probability of
# the label. It should fall, but it need not fall by much: the clip is misclassified as soon as any other
# class has a larger one.

# %%
deepfool = ladders["DeepFool"].rungs[-1].attack
path = checks.path(deepfool, victim, clip, its, away, its)
crossed = path.loc[~path["leads"], "l2"].min()  # the nearest image that is misclassified
ends = f"misclassified at ‖δ‖₂ = {crossed:.3g}" if pd.notna(crossed) else "not misclassified"
seen = nothing or f"{path['step'].max()} steps, {ends}"
quick = None if nothing else bool(pd.notna(crossed) and path["step"].max() < 10)
print(chapter.expectation("misclassified in fewer than ten steps", seen, quick))
figures.path({"DeepFool": path}, wanted="label")

# %% [markdown]
# ### CWA: the smallest change that fools
#
# The attacks above take steps until the victim is fooled. [Carlini and
# Wagner](https://arxiv.org/abs/1608.04644) write down what they want, a change that is small *and* fools, and
# minimise that. The first term is the change. The second is a loss on the logits $Z$, positive until the
# target $l'$ leads; $c$ weighs the two (Eqs. 5 and 6),
#
# $$\min \|\mathbf{x}' - \mathbf{x}\|_2^2 + c\, \mathcal{L}(\mathbf{x}'), \qquad
#   \mathcal{L}(\mathbf{x}') =
#   \max\Big\{\max_{i \neq l'} Z(\mathbf{x}')_i - Z(\mathbf{x}')_{l'},\; -\kappa\Big\},$$
#
# with $\mathbf{x}' = \tfrac{1}{2}(\tanh \rho + 1)$, which cannot leave $[0, 1]$ whatever $\rho$ is (Eq. 7).
# The optimiser is [Adam](https://arxiv.org/abs/1412.6980), and it changes $\rho$.
#
# > **Paper.** $c \in \{1, 3, 5, 7\}$, 25 to 1500 iterations, a binary search for $c$. Eq. 8 gives the change
# > found as $\tfrac{1}{2} \tanh(\rho + 1) - \mathbf{x}$, with $\rho$ an arctangent.
#
# > **Here.** $c$ and iterations are paired and climb together (`cwa_product`: every pair). Once a clip is
# > fooled, its attack goes on for `cwa_search` steps: $c$ falls in each step that fools, and rises in each
# > that does not. So the example moves to and fro across the boundary, and comes to rest near it. A binary
# > search over $c$ has the same aim, but starts anew for each $c$ and needs more passes. $\kappa$ is
# > `cwa_kappa`. In Eq. 8 we read the bracket as $\tfrac{1}{2}(\tanh \rho + 1) - \mathbf{x}$, and $\rho$
# > begins at the *hyperbolic* arctangent of $2\mathbf{x} - 1$, as Eq. 7 requires.

# %%
Markdown(chapter.source(cwa._Descent.run))

# %% [markdown]
# At first the loss on the logits is large, and the norm rises. If $c$ is too small for this clip, the norm
# soon counts as much, and both curves level off before the target is reached. Otherwise the search begins
# once the target is predicted: now $c$ falls, and the norm counts more and more. We expect the search to
# lower the norm by more than a tenth, from the first image that is classified as the target to the best one.

# %%
carlini = ladders["CWA"].rungs[-1].attack
path = checks.path(carlini, victim, clip, its, aim, towards)
met = path.loc[path["leads"], "l2"]
fell = f"‖δ‖₂ = {met.iloc[0]:.3g} at first, {met.min():.3g} at best" if len(met) else "the target not reached"
searched = bool(met.min() < 0.9 * met.iloc[0]) if len(met) and cwa_search else None
print(chapter.expectation("the search lowers the norm by more than a tenth", nothing or fell, searched))
figures.path({"CWA": path})

# %% [markdown]
# ### PIA: a black box
#
# Here only the outputs are known, so there is no gradient. The attack ([Ilyas et
# al.](https://arxiv.org/abs/1804.08598)) turns the task round. It begins at another clip, one that *is*
# classified as the target, and walks towards $\mathbf{x}$ without losing the target. An $\ell_\infty$ ball
# around $\mathbf{x}$ (no value may differ by more than its radius) shrinks, and steps inside it raise the
# probability $p$ of the target. Their direction is estimated: the victim is asked about pairs of *probes*,
# the image plus and minus a little noise $\sigma u$, and the noise that raises $p$ shows the way. From $n$
# pairs the estimate is (NES, natural evolution strategies)
#
# $$\hat{g} = \frac{1}{2 n \sigma} \sum_{k=1}^{n} u_k \big[\log p(\mathbf{x}' + \sigma u_k) -
#   \log p(\mathbf{x}' - \sigma u_k)\big], \qquad u_k \sim \mathcal{N}(0, 1).$$
#
# The walk begins with the victim fooled. So a fooling rate of PIA says nothing without a norm: its result is
# how near it comes. Clips for whose target there is no start are left out. Where steps or queries run out
# before the ball is small, the norm is only an upper bound (*at most*).
#
# > **Paper.** $\epsilon \geq 0.001$, at most 500 iterations, decay 0.001, learning rate in $[0.001, 0.6]$.
#
# > **Here.** As in Ilyas et al. (the paper's [15]), the victim reports the probabilities of its `pia_top`
# > most likely classes only. A pair of probes is dropped if the target is not among them. For each clip,
# > $\sigma$ is the one of a few values whose estimate raises $p$ most. A step is kept if the target has a
# > probability of at least 0.6, or a higher one than before; Ilyas et al. keep every step that does not lose
# > it. The ball shrinks by 0.001 at first, then by twice as much after each success and by half as much after
# > each failure. Every image that the victim classifies is counted as a query. `pia_patience` ends a walk
# > whose ball has stopped shrinking.

# %%
Markdown(chapter.source(nes.estimate))

# %% [markdown]
# We expect the walk to end at less than half of the distance at which it began. With few steps or queries it
# may end near its start. The figure also has images that the attack tried and refused, because the target was
# lost or was less likely than it must be; they can be nearer than the result.

# %%
pia = ladders["PIA"].rungs[-1].attack
able = [n for n in at if not starts[n].isnan().any()]
how = {"starting_points": starts[able].to(where)}
goal = foolbox.TargetedMisclassification(target[able].to(where))
path = checks.path(pia, victim, x[able].to(where), label[able].to(where), goal, target[able].to(where), **how)
walked = path.loc[path["leads"], "l2"]
far = f"‖δ‖₂ from {walked.iloc[0]:.3g} to {walked.min():.3g}" if len(walked) else "there is no start"
nearer = bool(walked.min() < 0.5 * walked.iloc[0]) if len(walked) else None
print(chapter.expectation("less than half of the first distance", nothing or far, nearer))
figures.path({"PIA": path})

# %% [markdown]
# ### DDN, a reference
#
# An attack that fails may be weak. So we also run one that is not among the paper's six, as a reference:
# [DDN](https://arxiv.org/abs/1811.09600), as implemented in Foolbox. It is known to find small changes in few
# steps. Each step goes along the normalised gradient $g$ of the loss. Then the change is rescaled to a norm
# $r$, which falls by the share $\gamma$ after an image that fools and grows by it after one that does not:
#
# $$\boldsymbol{\delta} \leftarrow r\, \frac{\boldsymbol{\delta} + \eta g}{\|\boldsymbol{\delta} + \eta
#   g\|_2}, \qquad r \leftarrow (1 \mp \gamma)\, r.$$
#
# Any wrong class counts. We expect that DDN finds a misclassified image nearer than DeepFool's. It begins at
# $r = 1$. The length of a step falls from 1 to 0.01 during the run, so a flat end does not show that more
# steps would find nothing nearer; only a longer run could. And $r$ moves to and fro by 5 %, so a norm is
# known to about as much. The two norms of one clip can be nearly equal; the third sanity check compares more
# clips.

# %%
ddn = ladders["DDN"].rungs[-1].attack
path = checks.path(ddn, victim, clip, its, away, its)
least = path.loc[~path["leads"], "l2"].min()
both = pd.notna(least) and pd.notna(crossed)
seen = f"‖δ‖₂ = {least:.3g} by DDN, {crossed:.3g} by DeepFool" if both else "not both fool the clip"
nearer = bool(least < crossed) if both else None
print(chapter.expectation("DDN comes nearer than DeepFool", nothing or seen, nearer))
figures.path({"DDN": path}, wanted="label")

# %% [markdown]
# ## All attacks, one budget after another
#
# Now all clips are attacked. Two *controls* show what is easy. FGSM takes only one signed step. *Noise* has
# no direction at all. Both have BIM's goal and norms. The paper's six attacks differ in what they look for,
# in what their ladder raises, and in the norm that they try to keep small:
#
# | attack | goal | what climbs | small in |
# |---|---|---|---|
# | BIM-a, BIM-b | the target, with probability 0.75 | the radius of the ball, RMS | $\ell_2$ |
# | JSMA | the target | the displacement of one value | $\ell_0$ |
# | DeepFool | any wrong class | the number of linearisations | $\ell_2$ |
# | CWA | the target | $c$ and the steps | $\ell_2$ |
# | PIA | the target | nothing: one walk, towards a smaller ball | $\ell_\infty$ |
#
# > **Paper.** Budgets are allocated until "AUC > 0.9".
#
# > **Here.** We read this AUC (area under a curve) as the fooling rate, as the abstract of the paper does.
# > Clips not yet fooled go to the next rung until more than `until` of all attacked clips are fooled, or the
# > ladder ends. A clip is *fooled* when the goal in the table is reached. We measure this again on the
# > returned example, in float32, and do not rely on what the attack reports. With `brackets`, a clip begins
# > at a rung that should fool it, guessed from what an earlier attack needed, and goes down until one fails.
# > It ends at the same rung with fewer passes, unless a larger budget fails where a smaller one fools. (JSMA
# > at the paper's 1000 steps has such clips, as `make bench-savings` shows, so the settings of the paper's
# > size do without `brackets`.) All norms below are $\ell_2$, whatever an attack tries to keep small.

# %%
wanted = right[right["clip"].isin(catalogue.loc[catalogue["name"] == shown_class, "clip"])]
shown = list(dict.fromkeys(pd.concat([wanted, right])["clip"]))[:5]
version = f"{files.digest(weights)}, {crafting}"
pieces = attacks.Pieces(cell.path("04_attacks.pieces"), files.save, files.load, version)
at_once = batch or (16 if where.type == "cpu" else len(x))
passed = max(at_once, pia_samples)  # PIA asks for its samples at once
crafted = foolbox.PyTorchModel(prepare(net, crafting, batch=passed, say=print), bounds=(0, 1), device=where)

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
# Read a curve from left to right: it is the share of attacked clips that are fooled by a perturbation of at
# most the norm on the axis. An attack whose curve is further to the left is stronger *at the goal in its
# row*. The vertical line is the budget $\epsilon$. A curve need not reach 1: above `until`, the dotted line,
# no larger budget is tried, and every ladder ends somewhere. A flat end to the right says that no further
# clip was fooled, not that none could be. We expect DeepFool to need the smallest change of the six on most
# clips, since any wrong class is enough for it. The line below counts these clips only: with few, a share
# near a half decides nothing. Where a targeted attack needs less, DeepFool has stopped at a boundary that is
# not the nearest.

# %%
curves = metrics.stairs(metrics.least_norms(rows))
figures.fooling_curves(curves, budget, threshold=until, title=names.point(str(cell)))

# %%
norms = metrics.least_norms(rows).reindex(columns=list(ladders))
medians = norms.median()
nearest = norms[list(published.ATTACKS)].idxmin(axis=1)
won = int((nearest == "DeepFool").sum())
seen = f"on {won} of {len(norms)} clips" if len(norms) else "no clip was attacked"
most = won > len(norms) / 2 if len(norms) else None
print(chapter.expectation("DeepFool needs the least of the six on most clips", seen, most))

# %% [markdown]
# The table shows what was reached and what it cost. Its rates are shares of the attacked clips, whose number
# is printed at the beginning of the chapter. Of ten clips, one is already 0.1.
#
# - *Fooled*: the share of attacked clips whose attack reached its goal, at any norm. *Reached*: the target is
#   predicted, at any probability; DeepFool and DDN do not aim at it.
# - *Fooled within ε*: the share fooled by a change of at most $\epsilon$. *AUC within ε*: here a true area,
#   that under the curve up to $\epsilon$, divided by $\epsilon$. Both are empty for an attack that cannot
#   succeed within it, and for one of which a limit cut a walk short of it: with more queries, it might have
#   come so near.
# - *Median ‖δ‖₂*: over the clips that were fooled. An attack that fools few clips fools the easiest, so its
#   median is too low to be compared; chapter 6 counts the others as ∞. *Any wrong class*: the median norm of
#   the nearest misclassified image that the attack met, whatever its goal.
# - *Forwards, backwards, queries*: passes through the victim, as means over the attacked clips. A black box
#   has queries alone.
# - *Refused*: how often an attack reported a success that we did not find when we measured it again.

# %%
by = rows.groupby("attack", sort=False)
cut = rows[rows["bound"] == "at most"]
unknown = sorted({*coarse, *cut.loc[cut["l2"] > budget, "attack"]})
summary = by[["fooled", "reached"]].mean().reindex(list(ladders))
summary["fooled within ε"] = metrics.rate_within(norms, [budget])[budget].drop(unknown)
summary["AUC within ε"] = metrics.shortfall(norms, budget).mean().drop(unknown)
summary["median ‖δ‖₂"] = norms.replace(np.inf, np.nan).median()
met = metrics.least_norms(rows, success="any").reindex(columns=list(ladders))
summary["any wrong class"] = met.replace(np.inf, np.nan).median()
summary[["forwards", "backwards", "queries"]] = by[["forwards", "backwards", "queries"]].mean()
summary["refused"] = by["refused"].sum()
Markdown(markup.table(summary.rename(index=names.label).rename_axis("attack"), floats=".3g"))

# %% [markdown]
# ## One clip under all attacks
#
# The first picture is the clip; its class and its target are printed above the pictures. The others are the
# least perturbed example that each attack found of it or, where it failed, its last attempt. Can you see
# which one was changed, and where?

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
for n in [spots[first]] if shown else []:
    print(f"{order[first]}: class {called[int(label[n])]}, target {called[int(target[n])]}")
figures.spectrograms(drawn, frequencies=images.frequencies, times=images.times, below=sizes)

# %% [markdown]
# The next pictures show the changes alone, each on its own scale around zero, which is printed below it. Look
# for what the equations promise: JSMA moves a few values by much, and BIM moves many by little. PIA's walk is
# not finished as long as you can see the clip at which it began.

# %%
axes = {"frequencies": images.frequencies, "times": images.times}
figures.spectrograms(change or drawn, **axes, below=sizes, columns=3, difference=True)

# %% [markdown]
# ## Sanity checks of the attacks
#
# An attack that fails may be a weak attack. Following [Carlini et al.](https://arxiv.org/abs/1902.06705) we
# check what a working attack must show. The checks are necessary, and no proof that an attack is strong.
# Those that run an attack anew use at most `checked` clips; they can find a large fault, and miss a small
# one.
#
# *First, the gradient.* A short step along it should lower the loss as much as its slope predicts. If it does
# not, the gradient is *masked*: it leads nowhere, although the victim can be fooled. Would our check notice
# that? We build a victim whose input is rounded to 256 grey levels. It gives nearly the same answers, but its
# gradient is zero, so the check must flag it. Last, a linear victim with small margins must be fooled on
# every clip, or the attack is broken.

# %%
goals = target[some].to(where)
staircase = foolbox.PyTorchModel(checks.Masked(victim).eval(), bounds=(0, 1), device=where)
honest, hidden = (checks.gradients(each, few, goals) for each in (victim, staircase))
plane = checks.Breakable(x[0].numel(), catalogue["label"].nunique(), seed).eval()
weak = foolbox.PyTorchModel(plane, bounds=(0, 1), device=where)
broken = checks.reached(weak, attacks.BIM(step=bim_step, steps=100), few, goals, [50.0])

# %% [markdown]
# *Second, more budget and more steps.* BIM-b attacks the same clips at a half, one and two times the median
# norm that it needed. A larger budget must not fool fewer of them. Then it attacks them at that norm with
# twice the steps. If these fool many more, the steps were too few. With few clips this is a coarse check: of
# eight, a difference of two still passes.

# %%
median = float(np.nan_to_num(summary.loc["BIM-b", "median ‖δ‖₂"], nan=budget))
steps = [attacks.BIM(step=bim_step, steps=n, stop_at_first=False) for n in (bim_steps, 2 * bim_steps)]
grown = checks.reached(victim, steps[0], few, goals, [median / 2, median, 2 * median]).mean().tolist()
longer = checks.reached(victim, steps[1], few, goals, [median]).mean().tolist()

# %% [markdown]
# *Third, the reference.* DDN is run on the same clips, with the goal of each attack that keeps the $\ell_2$
# norm small. The *ratio* is our median norm over DDN's, for the clips that both fooled; their number is in
# the table. Above 1.05 we call our attack weak, because smaller changes exist. A ratio below that shows only
# that DDN found none.

# %%
own = {name: ladders[name] for name in [*names.ATTACKS, *names.REFERENCE]}
compared = checks.against_reference(victim, few, theirs, goals, list(chosen["clip"][some]), rows, own)
Markdown(markup.table(compared.assign(attack=compared["attack"].map(names.label)), index=False, floats=".3g"))

# %%
last = metrics.ever(norms).mean()
white = last[[name for name in names.ATTACKS if name != "PIA"]].dropna()
few_fooled = ", ".join(
    f"{names.label(name)} fools {rate:.0%}" for name, rate in white.items() if rate <= until
)
beaten = ", ".join(names.label(name) for name in compared.loc[compared["ratio"] > checks.WEAK, "attack"])
norm_of = rows[rows["clip"].isin(shown[:1])].set_index("attack")["l2"]
apart = {name: abs(float(each.norm()) / norm_of.get(name, np.nan) - 1) for name, each in change.items()}
unlike = ", ".join(names.label(name) for name, share in apart.items() if share > 1e-3)
beyond = sum(int(((each < 0) | (each > 1)).flatten(1).any(1).sum()) for each in examples.values())
made, refused = sum(map(len, examples.values())), int(rows["refused"].sum())
flagged, misled = int(hidden["masked"].sum()), int(honest["masked"].sum())
fooled, rising = int(broken.to_numpy().sum()), ", ".join(f"{rate:.0%}" for rate in grown)
many, one, noise = last[["BIM-b", "FGSM", "noise"]]
white_box, black_box = medians[["CWA", "PIA"]]
walks = rows[rows["attack"] == "PIA"]
cut_off = int((walks["bound"] == "at most").sum())

# %%
sane = {
    "there is a clip to attack": (len(right) > 0, f"{len(right)} of {len(chosen)} are classified correctly"),
    "every attack can succeed within ε": (not coarse, f"{too_coarse} cannot" if coarse else "all can"),
    "a larger budget never fools fewer": (grown == sorted(grown), f"BIM-b fools {rising} at rising budgets"),
    "twice the steps change little": (
        not abs(longer[0] - grown[1]) > 0.25,
        f"BIM-b fools {grown[1]:.0%}, with them {longer[0]:.0%}",
    ),
    "the gradient predicts the loss": (not misled > 0.1 * len(honest), f"for {misled} clips it does not"),
    "a zero gradient is flagged": (flagged == len(hidden), f"{flagged} of {len(hidden)} are flagged"),
    "a linear victim is fooled": (fooled == len(broken), f"{fooled} of {len(broken)} clips are fooled"),
    f"every white box fools over {until:.0%}": (not few_fooled, few_fooled or "all do"),
    "many steps fool no fewer than one": (not many < one, f"BIM-b fools {many:.0%}, FGSM {one:.0%}"),
    "noise fools no more than BIM-b": (not many < noise, f"noise fools {noise:.0%}, BIM-b {many:.0%}"),
}

# %%
sane |= {
    "CWA needs less than PIA, a black box": (
        not white_box > black_box,
        f"PIA needs {'at most ' if cut_off else ''}{black_box:.3g}, CWA {white_box:.3g}",
    ),
    "the reference does not beat ours by 5 %": (not beaten, f"it beats {beaten or 'none'}"),
    "every reported success is confirmed": (refused == 0, f"{refused} are refused"),
    "what is pictured is what was measured": (not unlike, f"{unlike or 'none'} differ in ‖δ‖₂"),
    "every example is in [0, 1]": (beyond == 0, f"{beyond} of {made} are outside"),
}
sane = sane if len(right) else dict(list(sane.items())[:1])  # without a clip the others say nothing
table = pd.DataFrame([(what, seen, holds) for what, (holds, seen) in sane.items()])
table.columns = ["what should hold", "measured", "holds"]
Markdown(markup.table(table.assign(holds=table["holds"].map({True: "yes", False: "no"})), index=False))

# %%
attacked = metrics.least_norms(rows, success="any").reindex(columns=[*names.ATTACKS, *names.REFERENCE])
worst = metrics.worst_case(metrics.needed(attacked, list(chosen["clip"])))
clean, robust = int((worst > 0).sum()), int((worst > budget).sum())
half = worst[worst > 0].median()
each = half / x[0].numel() ** 0.5  # of the range of an image
enough = (
    f"A change of ‖δ‖₂ = {half:.3g}, that is {255 * each:.2g} of 255 grey levels or "
    f"{-images.settings.floor * each:.2g} dB per value (RMS), is enough to misclassify half of the {clean} "
    f"clips that this model classifies correctly."
)
never = (
    f"No change that was tried misclassifies half of the {clean} clips that this model classifies correctly."
)
useless = f"No change is needed: this model classifies none of the {len(chosen)} clips correctly."
answer = enough if np.isfinite(half) else never if clean else useless
answer += (
    f" Of {len(chosen)} evaluated clips, {clean} are classified correctly as they are, and {robust} under "
    f"every attack within ε = {budget:.3g}."
)

# %%
typical = {name: f", half of these within ‖δ‖₂ = {norm:.2g}" for name, norm in summary["median ‖δ‖₂"].items()}
said = [
    f"{names.label(name)} fools {rate:.0%}{typical[name] if rate > 0 else ''}."
    for name, rate in last.dropna().items()
]
said += [
    f"{cut_off} of {len(walks)} walks of PIA were cut off by their limits: their norms are upper bounds.",
    f"{len(right) - len(walks)} of {len(right)} clips had no start for PIA, and are left out of its rate.",
    "Read on in [chapter 5](05_adversarial_training.ipynb), where a model is trained on such examples.",
]
Markdown(chapter.summary(answer, said, sane))
