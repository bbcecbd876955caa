# %% [markdown]
# # 4 · Attacks
#
# **How small a change to a spectrogram makes a trained classifier name another sound?**
#
# The paper meets every victim with six attacks (Sections II and VI). This chapter runs them against one:
# the model that chapter 3 or 5 left at this point of the grid. You will see the equation of each attack and
# how we read it, what an attack changes, how its success grows with its budget, and how to tell a robust
# victim from a broken attack.
#
# *Threat model.* The adversary knows the weights (PIA: only the outputs) and changes the spectrogram,
# not the waveform. Nothing here says how it would sound.
#
# Reads `clips.parquet`, the store of images, `model.safetensors` and `clean.parquet`; leaves
# `attacks.parquet`, a row a clip and attack, and `examples.safetensors`, the images of a few clips.

# %%
import json

import foolbox
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from lib import attacks, figures, files, markup, metrics, models, names, ranges, reporting, store, study
from lib.analysis import published
from lib.attacks import checks
from lib.crafting import prepare
from lib.data import manifest, splits
from lib.device import PRECISIONS, choose_device
from lib.device import memory as memory_of

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
representation = "dwt"
model = "resnet56"
fold = "1"  # held out; 1.3 is fold 1 with seed 3
training = "standard"  # whose victim: standard (chapter 3) or a defence (chapter 5)
device = "auto"  # cpu, cuda, or whichever is there
clips = 100  # drawn from the tested clips, stratified; 0 is all of them
until = 0.9  # fooling rate beyond which nobody climbs on (Section VI)
batch = 0  # most clips attacked at once; 0 is 16 on a CPU and all on a GPU
memory = 0.0  # GiB that they may take, where images are large; 0 is the device's own
bim_step = 0.00392  # ζ of Eq. 1: one grey level, 1/255, our reading of the paper's 1
bim_steps = 100  # most steps of BIM at one budget
bim_normalised = False  # True steps along the normalised gradient by ε/10, as Foolbox does, not by its sign
bim_first = 0.00009375  # RMS of the first budget, 0.0015/16, reading 9
bim_rungs = 12  # budgets, each twice the one before
bim_bisections = 4  # between the last failing and the first fooling budget
jsma_thetas = [0.19608, 0.39216, 0.58824, 0.78431, 0.98039]  # displacements, 50 to 250 of 255, Section VI
jsma_steps = 1000  # most steps, Section VI
jsma_change = "increase"  # Eq. 2 for features that are raised; "decrease" is the map that the paper prints
jsma_features = 1  # how many features a step moves, Eq. 2
deepfool_caps = [100, 200, 300, 400, 500, 600]  # most linearisations, Section VI
cwa_cs = [1.0, 3.0, 5.0, 7.0]  # c of Eq. 5, Section VI
cwa_steps = [25, 100, 1000, 1500]  # paired with c, Section VI
cwa_product = False  # True climbs every pair of c and steps, cheapest first
cwa_search = 100  # steps after a clip's first example in which its c falls; 0 keeps c, as a plain ladder
cwa_kappa = 0.0  # κ of Eq. 6, by how much the target's logit has to lead
pia_steps = 500  # most moves, Section VI
pia_samples = 50  # probes of one gradient estimate
pia_top = 1  # how many of its most likely classes the victim reports
pia_queries = 0  # most queries of a clip; 0 sets no limit
pia_patience = 0  # queries without the ball shrinking by 1 % after which a walk ends; 0 waits for its steps
brackets = True  # begin each ladder near the rung that fools; False climbs from the foot, as the paper
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
    ranges.whole("cwa_steps pia_steps pia_top", 1),
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
# > **Here.** `clips` of the tested ones, stratified and seeded, the same for every victim and attack; those
# > that the victim names rightly are attacked, for a clip that is already misnamed needs no attack. A clip's
# > target is drawn uniformly from its wrong classes, by the clip's name: every attack and every victim is
# > asked for the same mistake.

# %%
tested = cell.load("clean.parquet").merge(catalogue.reset_index(names="position")[["clip", "position"]])
chosen = splits.choose(tested, clips, seed)
place = tested["position"].to_numpy() * images.copies
x = images[chosen["position"].to_numpy() * images.copies]
label = torch.tensor(chosen["label"].to_numpy())
target = attacks.wrong_labels(label, catalogue["label"].nunique(), seed, chosen["clip"])
right = chosen[chosen["predicted"] == chosen["label"]]
print(f"{cell}: {len(right)} of {len(chosen)} clips are named rightly")

# %% [markdown]
# ## BIM: many small steps
#
# The basic iterative method climbs the loss $J$ of the label in signed steps $\zeta$, or descends that of a
# target, and comes back into the ball around the clip after each (Eq. 1):
#
# $$\mathbf{x}'_{n+1} = \operatorname{clip}\left\{\mathbf{x}'_n + \zeta \operatorname{sgn}
#   \left(\nabla_{\mathbf{x}} J[\mathbf{x}'_n, l(\mathbf{x})]\right)\right\}$$
#
# BIM-a leaves a clip at its first example, BIM-b spends every step on it. FGSM is one step to the edge of the
# ball.
#
# > **Paper.** $\epsilon \geq 0.0015$, confidence $\geq 75\,\%$, $\zeta = 1$, measured in $\ell_2$.
#
# > **Here.** The Foolbox of that time measured this $\epsilon$ as RMS: the root of the mean square change
# > of a value. So budgets are RMS radii that double from `bim_first`; the gap between the last that failed
# > and the first that fooled is then halved `bim_bisections` times, clip by clip. $\zeta = 1$ is read as
# > one grey level, 1/255 (`bim_step` says what is used here). An example counts when the target has
# > probability 0.75. A step that is longer than the ball is cut back to it: small budgets are then probed
# > one step at a time, and BIM is weaker than it could be.
#
# Below, both meet one clip within the paper's budget. Where neither makes the target that probable, both
# spend all their steps and agree. The norm may stay below the budget, since values at 0 or 1 cannot move
# outwards.

# %%
one = right.index[:1]
at = [list(chosen.index).index(n) for n in one]
budget = metrics.scaled_budget(published.BUDGET, (images.settings.bins, images.settings.frames))
goal = attacks.Confident(target[at].to(where))
bim = {early: attacks.BIM(step=bim_step, steps=bim_steps, stop_at_first=early) for early in (True, False)}
pair = {"clean": x[at]}
for name, early in (("BIM-a", True), ("BIM-b", False)):
    pair[name] = bim[early].run(victim, x[at].to(where), goal, epsilon=budget).cpu() if at else x[at]
for name, image in pair.items() if at else ():
    probability = victim(image.to(where)).softmax(1)[0, target[at]].item()
    norm = (image - x[at]).norm()
    print(f"{name}: the target has probability {probability:.2f}, ‖δ‖₂ = {norm:.3g} of {budget:.3g}")
print(f"a step that moves every value by ζ has ‖δ‖₂ = {bim_step * x[0].numel() ** 0.5:.3g}")

# %% [markdown]
# ## JSMA: one value at a time
#
# Which value of the image raises the target's logit and lowers all others? The Jacobian knows (Eq. 3), and
# the saliency map of Eq. 2 ranks them:
#
# $$J_{i,j} = \frac{\partial f_j(\mathbf{x})}{\partial \mathbf{x}_i}, \qquad
#   S(\mathbf{x}, l')[i] = |J_{i,l'}| \Big(\sum_{j \neq l'} J_{i,j}\Big),$$
#
# zero where the signs are not the wanted ones. The most salient value is moved by $\theta$, again and again.
#
# > **Paper.** At most 1000 iterations, a scaling of $[0, 250]$, displacement 50.
#
# > **Here.** $\theta$ climbs through 50, 100, …, 250 of 255. As printed, Eq. 2 is Papernot's map for values
# > that are *lowered*; its mirror, for values that are raised, is the default. $f$ are the logits: on
# > probabilities, which sum to one, the sum in Eq. 2 would be $-J_{i,l'}$, and the map would say nothing new.
# > Two gradients do for any number of classes: of $f_{l'}$, and of $\sum_j f_j$. Values at their bound are
# > left out.
#
# ## DeepFool: the nearest boundary
#
# If the victim were linear, the shortest way over its boundary would be (Eq. 4)
#
# $$\epsilon = -f(\mathbf{x})\, \mathbf{w} / \|\mathbf{w}\|_2^2.$$
#
# DeepFool pretends so, takes the nearest of the boundaries to the other classes, and repeats until the class
# has changed, whichever it then is.
#
# > **Paper.** 100 to 600 iterations; of $\ell_2$ or $\ell_\infty$ "we use latter in accordance with BIM
# > algorithms", whose measure is $\ell_2$.
#
# > **Here.** $\ell_2$, by that accordance; caps on the linearisations climb.
#
# ## CWA: what is the least that fools?
#
# Carlini and Wagner minimise the change and a loss on the logits $Z$ together (Eqs. 5 and 6),
#
# $$\min \|\mathbf{x}' - \mathbf{x}\|_2^2 + c\, \mathcal{L}(\mathbf{x}'), \qquad
#   \mathcal{L}(\mathbf{x}') =
#   \max\Big\{\max_{i \neq l'} Z(\mathbf{x}')_i - Z(\mathbf{x}')_{l'},\; -\kappa\Big\},$$
#
# by Adam over $\rho$ with $\mathbf{x}' = \tfrac{1}{2}(\tanh \rho + 1)$, which cannot leave $[0, 1]$ (Eq. 7).
#
# > **Paper.** $c \in \{1, 3, 5, 7\}$, 25 to 1500 iterations. Eq. 8 gives the change found as
# > $\tfrac{1}{2} \tanh(\rho + 1) - \mathbf{x}$, with $\rho$ an arctangent.
#
# > **Here.** $c$ and iterations are paired and climb together; $\kappa = 0$. Eq. 8 has a bracket in the wrong
# > place, $\tfrac{1}{2}(\tanh \rho + 1) - \mathbf{x}$, and $\rho$ begins at the *hyperbolic* arctangent of
# > $2\mathbf{x} - 1$, as Eq. 7 wants it.
#
# ## PIA: a black box
#
# Here only the outputs are known. The attack begins at another clip, one that *is* the target, and walks
# towards $\mathbf{x}$ without losing the target: an $\ell_\infty$ ball around $\mathbf{x}$ shrinks, and the
# probability of the target is climbed along a gradient guessed from pairs of probes (NES):
#
# $$\hat{g} = \frac{1}{2 n \sigma} \sum_{k=1}^{n} u_k \big[\log p(\mathbf{x}' + \sigma u_k) -
#   \log p(\mathbf{x}' - \sigma u_k)\big], \qquad u_k \sim \mathcal{N}(0, 1).$$
#
# So it fools wherever a start was found: its result is how near it comes, and where its queries run out
# (`pia_queries`), that is an upper bound.
#
# > **Paper.** $\epsilon \geq 0.001$, at most 500 iterations, decay 0.001, learning rate in $[0.001, 0.6]$.
#
# > **Here.** As Ilyas et al. have it (the paper's [15]): the victim tells the probability of its first class
# > only, a pair that loses sight of the target is dropped, the ball shrinks by 0.001, twice as much while
# > that succeeds and half as much when it fails. Every probe and every look is counted as a query.
#
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
# FGSM, one step, and noise of the same norms are the controls.
#
# > **Paper.** Budgets are allocated until "AUC > 0.9".
#
# > **Here.** Clips not yet fooled climb on until more than `until` of all clips attacked are fooled, or the
# > ladder ends. *Fooled* is the goal in the table, measured again on the returned example and never taken
# > from the attack. All norms below are $\ell_2$ over the whole image, so that attacks can be compared.

# %%
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
}

# %%
every = [*names.ATTACKS, *names.REFERENCE, *names.CONTROLS]
ladders = attacks.ladders(images.size, only=every, seed=seed, **settings)
named = torch.tensor(tested["label"].where(tested["predicted"] == tested["label"], -1).to_numpy())
starts = attacks.starting_points(images, place, named, target, list(chosen["clip"]), seed=seed)

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
# Each curve is the share of clips fooled by a perturbation no larger than the norm below. Before you look:
# CWA, which sees the weights, should need less than PIA, which wants the same target; noise of BIM-a's norms
# should fool fewer than BIM-a; and one guesses that DeepFool leads, for it is content with any wrong class. A
# curve need not reach 1: nobody climbs beyond `until`, the dotted line, and a ladder ends. It is flat to the
# right of the last clip that fell; larger norms were not tried.

# %%
curves = metrics.stairs(metrics.least_norms(rows))
figures.fooling_curves(curves, budget, threshold=until, title=names.point(str(cell)))

# %% [markdown]
# What it cost, and how much was changed: passes and queries are means over the attacked clips, norms over
# those that were fooled. *Reached*: the target is named, at any probability. *Fooled within ε*: the share by
# a change no larger than the paper's budget at this size; *AUC*: the area under the curve up to there, over
# ε, which counts how far below ε the change stays. A black box has queries alone.

# %%
norms = metrics.least_norms(rows).reindex(columns=list(ladders))
summary = rows.groupby("attack", sort=False)[["fooled", "reached"]].mean().reindex(list(ladders))
summary["fooled within ε"] = metrics.rate_within(norms, [budget])[budget]
summary["AUC within ε"] = metrics.shortfall(norms, budget).mean()
summary["median ‖δ‖₂"] = norms.replace(float("inf"), float("nan")).median()
summary[["forwards", "backwards", "queries"]] = rows.groupby("attack", sort=False)[
    ["forwards", "backwards", "queries"]
].mean()
Markdown(markup.table(summary.rename_axis("attack"), floats=".3g"))

# %% [markdown]
# ## One clip under six attacks
#
# The first picture is the clip, the others the least perturbed example that each attack found of it, or its
# last try where it failed.

# %%
spots = [n for n, clip in enumerate(chosen["clip"]) if clip in shown]
kept = {"original": x[spots]} | {name: each for name, each in examples.items() if name in names.ATTACKS}
order, heard = list(chosen["clip"].iloc[spots]), catalogue.set_index("clip")["name"]
about = {"clips": json.dumps(order), "names": json.dumps([heard[clip] for clip in order])}
cell.save("examples.safetensors", (kept, about))
first = order.index(shown[0]) if shown else 0
drawn = {name: each[first] for name, each in kept.items() if len(each)} or {"nothing was attacked": x[0]}
change = {name: image - drawn["original"] for name, image in drawn.items() if name in names.ATTACKS}
held = rows[rows["clip"] == shown[0]].set_index("attack")["fooled"] if shown else {}
failed = {name: "" if held[name] else ", not fooled" for name in change}
sizes = {name: f"‖δ‖₂ = {each.norm():.2g}{failed[name]}" for name, each in change.items()}
figures.spectrograms(drawn, frequencies=images.frequencies, times=images.times, below=sizes)

# %% [markdown]
# And what was changed, each on a scale of its own around zero that ends at its largest change, said below it:
# JSMA changes a few values by much, BIM many by little; PIA keeps what is left of the clip that it came from.

# %%
axes = {"frequencies": images.frequencies, "times": images.times}
figures.spectrograms(change or drawn, **axes, below=sizes, columns=3, difference=True)

# %% [markdown]
# ## Doubts
#
# An attack that fails may be a weak attack. First, does the gradient keep its promise? A short step along it
# should lower the loss as much as it says. The same victim behind a staircase (it sees 256 grey levels) is as
# weak as before, but its gradient is zero: it must be flagged. And a victim made of one plane a class must
# fall to every clip, or the attack is broken.

# %%
mine = [list(chosen.index).index(n) for n in right.index[:checked]]
some, towards = x[mine].to(where), target[mine].to(where)
staircase = foolbox.PyTorchModel(checks.Masked(victim).eval(), bounds=(0, 1), device=where)
honest, hidden = (checks.gradients(each, some, towards) for each in (victim, staircase))
plane = checks.Breakable(x[0].numel(), catalogue["label"].nunique(), seed).eval()
weak = foolbox.PyTorchModel(plane, bounds=(0, 1), device=where)
fallen = checks.reached(weak, attacks.BIM(step=bim_step, steps=100), some, towards, [50.0])

# %% [markdown]
# Second, do more budget and more steps do what they should? The same clips, at once: BIM-b at a half, one and
# two times the median norm that it needed, and at that norm with twice the steps.

# %%
median = float(np.nan_to_num(summary.loc["BIM-b", "median ‖δ‖₂"], nan=budget))
steps = [attacks.BIM(step=bim_step, steps=n, stop_at_first=False) for n in (bim_steps, 2 * bim_steps)]
grown = checks.reached(victim, steps[0], some, towards, [median / 2, median, 2 * median]).mean().tolist()
longer = checks.reached(victim, steps[1], some, towards, [median]).mean().tolist()
print(f"BIM-b at half, one and two medians: {grown}; with twice the steps: {longer}")

# %% [markdown]
# Where one of these relations does not hold, an attack is unsound, or its budget was too small.

# %%
last = metrics.ever(norms).mean()
measured = rows.set_index(["clip", "attack"])["l2"]
same = [np.isclose(each.norm(), measured[shown[0], name], rtol=1e-3) for name, each in change.items()]
white = last[[name for name in names.ATTACKS if name != "PIA"]]
short = white[~(white > until)].index
walks = rows[(rows["attack"] == "PIA") & rows["fooled"].astype(bool)]
cut = int((walks["bound"] == "at most").sum())
found = {
    "there was a clip to attack": len(right) > 0,
    "a larger budget never fools fewer": grown == sorted(grown),
    "twice the steps change little": abs(longer[0] - grown[1]) <= 0.25,
    "the gradients keep their promise": not honest["masked"].mean() > 0.1,
    "a masked gradient is flagged": bool(hidden["masked"].all()),
    "a victim made to break is broken": bool(fallen.all(axis=None)),
    f"seeing the weights fools more than {until:.0%} (not {', '.join(short)})": short.empty,
    "many steps fool no fewer than one": last["BIM-b"] >= last["FGSM"],
    "the typical clip needs less of CWA than of PIA": norms["CWA"].median() < norms["PIA"].median(),
    "noise of BIM-a's norms fools no more than it": last["BIM-a"] >= last["noise"],
    "what is pictured is what was measured": all(same),
    "every example lies in [0, 1]": all(bool(((e >= 0) & (e <= 1)).all()) for e in examples.values()),
}

# %%
said = [f"{len(right)} of {len(chosen)} clips are named rightly, and were attacked"]
medians = {name: f", half of those within ‖δ‖₂ = {norm:.2g}" for name, norm in summary["median ‖δ‖₂"].items()}
said += [f"{name} fools {value:.0%}{medians[name] if value > 0 else ''}" for name, value in last.items()]
said += [f"{cut} of {len(walks)} walks of PIA ended for want of queries or moves: they only bound its norm"]
said += [f"the paper's ‖ε‖₂ = 3 is {budget:.2g} at this size"]
said += [f"**in doubt:** not true that {claim}" for claim, holds in found.items() if not holds]
Markdown("## Summary\n\n- " + "\n- ".join(said))
