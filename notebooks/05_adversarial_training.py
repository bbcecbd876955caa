# %% [markdown]
# # 5 · Adversarial training
#
# **What does a classifier gain, and what does it lose, by learning from examples made to fool it?**
#
# [Chapter 4](04_attacks.ipynb) fools a trained classifier by small changes to its images. Can a classifier
# learn to ignore such changes? The idea of *adversarial training* is to attack the model while it learns, and
# to train it on the attacked images with their true labels. The paper does this in its simplest form: each
# training image is replaced by one that a single step of the attack FGSM has made harder (Section VII,
# Eq. 14). This chapter trains the model of [chapter 3](03_training.ipynb) again in that way, or with a later
# defence (`training`). You will see what the model is trained on, how much *clean accuracy* (without an
# attack) it loses, and how much *robust accuracy* (under attack) it gains.
#
# One attack measures the gain here. Chapter 4 then attacks the result with all six. The headline number of
# the study, robust accuracy in the worst case over all attacks, is in chapter 6.
#
# Previous: [4 · Attacks](04_attacks.ipynb). Next: [6 · Analysis](06_analysis.ipynb). Terms are explained in
# the [glossary](README.md#glossary).
#
# <small>Reads `clips.parquet`, the store of images and, where they are there, the files of chapter 3 at this
# point. Writes `model.safetensors`, `clean.parquet` (one row per tested clip), `robust.parquet` (one row per
# tested clip: which models classify it correctly under PGD), `history.csv` and `cost.csv`.</small>

# %%
import pandas as pd
import torch
from IPython.display import Markdown
from torch.nn.functional import cross_entropy

from lib import chapter, defences, figures, markup, metrics, models, names, ranges, store, study
from lib.analysis import published
from lib.data import manifest, splits
from lib.device import choose_device
from lib.training import Recipe, cost, examine, fit, pgd_correct

figures.use_style()

# %% [markdown]
# The next cell lists all settings of the chapter, and the one after it checks them. Skip both at first
# reading. The model starts from the same weights, and is trained on the same split, as in chapter 3.

# %% tags=["parameters"]
build = "build"  # folder of the executed grid
dataset = "esc50"
representation = "stft"
model = "resnet56"
fold = "1"  # held out; 1.3 is fold 1 repeated with seed 3
training = "adversarial"  # FGSM, the paper's; or: fgsm_rs, pgd, trades
protocol = "official"  # or paper: the random 70/30 split of Section V
pretrained = "published"  # weights of ImageNet (resnet56: of CIFAR-10), as in Section V; none draws them
weights = "weights"  # folder of published weights; what is missing is downloaded into it
layers = "all"  # which layers learn; last keeps the published ones as they are
precision = "auto"  # of the passes: float32, bfloat16, or auto, the latter on a GPU that has it
epochs = 60  # passes over the training part; the paper names none
slow_epochs = 0  # those of a model without batch norm (AlexNet, VGG-16); 0 is as many as the others
patience = 20  # epochs without a better score before training stops early; 0 never does
batch = 32  # images a step
learning_rate = 0.0003  # peak, of AdamW; AlexNet takes 0.3 of it, VGG-16 0.1
schedule = "onecycle"  # of the learning rate, or: cosine, constant
smoothing = 0.0  # share of a label that is spread over all classes
dropout = 0.5  # share of values that the linear layers of AlexNet and VGG-16 drop in a step
shift = 0.0  # images are moved along time, circularly, by up to this share of their frames
share = 1.0  # of the training images that an epoch sees, drawn anew for each
budget = 0.00784314  # ε, how far a value may move in training, of full scale (2/255; the paper names none)
alpha = 0.0  # of Eq. 14, share of the clean loss; 0 is the paper's
steps = 7  # gradient steps of PGD and TRADES
beta = 6.0  # of TRADES, weight of agreement
pgd_clips = 0  # validation clips that PGD tries after every epoch; 0 tries all
pgd_steps = 10  # gradient steps of that PGD
tried_clips = 0  # tested clips that PGD tries in the end; 0 tries all
device = "auto"  # cpu, cuda, or whichever is there

# %%
learnt_by = "epochs patience batch learning_rate schedule smoothing dropout shift share layers precision"
learnt_by += " budget alpha steps beta pgd_clips pgd_steps"
ranges.check(
    globals(),
    ranges.taken("build dataset representation model fold training", study.Cell),
    ranges.taken(f"training {learnt_by}", Recipe),
    ranges.one_of("representation", names.REPRESENTATIONS),
    ranges.one_of("model", names.MODELS),
    ranges.one_of("protocol", splits.PROTOCOLS),
    ranges.one_of("pretrained", models.weights.CHOICES),
    ranges.path("build weights"),
    ranges.whole("tried_clips", -1),
    ranges.whole("slow_epochs", 0),
    ranges.device("device"),
)

# %%
cell = study.Cell(build, dataset, representation, model, fold, training)
clips = manifest.usable(cell)
classes = clips["label"].nunique()
images = store.open(cell.up(1).path("store"), representation)
where = choose_device(device)
number, seed = study.fold_and_seed(fold)
split = splits.split(clips, number, protocol, seed=seed, copies=images.copies)
victim = models.create(model, classes, images.size, pretrained=pretrained, weights_folder=weights, seed=seed)
models.whiten(victim, images, split.loc[split["part"] == "train", "row"])
print(f"{cell}: {(split['part'] == 'train').sum()} training images of {images.size[0]} × {images.size[1]}")

# %% [markdown]
# ## One equation
#
# Standard training looks for weights with a small loss on the images as they are. But the attacker moves
# last, and looks for the worst image near each of these, with the finished model at hand. So the training
# should foresee this move, and look for weights with a small loss on the *worst* images ([Madry et
# al.](https://arxiv.org/abs/1706.06083)):
#
# $$\min_{\mathbf{w}} \; \mathbb{E}_{\mathbf{x}, l} \Big[ \max_{\|\boldsymbol{\delta}\|_\infty \leq
# \epsilon_\infty} J(\mathbf{x} + \boldsymbol{\delta}, l, \mathbf{w}) \Big]$$
#
# For networks of this size the maximum cannot be computed. Each defence below replaces it by an image
# $\mathbf{x}'$ that an attack finds with the current weights, and so it is only as good as that attack. The
# paper minimises a mixture of two losses, of the image and of this adversarial example (Eq. 14):
#
# $$J'(\mathbf{x}, l, \mathbf{w}) =
# \alpha J(\mathbf{x}, l, \mathbf{w}) + (1 - \alpha) J(\mathbf{x}', l, \mathbf{w})$$
#
# > **Paper.** $\alpha$ is "subjective", and in the end $J' = J(\mathbf{x}')$. The examples are those of the
# > fast gradient sign method, [FGSM](https://arxiv.org/abs/1412.6572). Their size is not given.
#
# > **Here.** With the default $\alpha = 0$ (`alpha`) the model is never trained on an image as it is. FGSM
# > moves every value of the image by $\epsilon_\infty$ = `budget`, up or down, whichever raises the loss.
# > The paper leaves this size to us, and with another one the gain would be another:
#
# $$\mathbf{x}' = \operatorname{clip}_{[0, 1]}\{\mathbf{x} + \epsilon_\infty \operatorname{sgn}
# \nabla_\mathbf{x} J(\mathbf{x}, l, \mathbf{w})\}$$
#
# In the next cell `defences.ascend` is this step: it takes the gradient of the cross-entropy $J$ with respect
# to the image, and moves the image along the sign of it. The training calls the same function.
#
# We expect that the change is too small to be seen in the picture of $\mathbf{x}'$. We do not test eyes: a
# change of at most four of 255 grey levels counts as too small. (With the default `budget` it cannot be
# larger.)

# %%
first = split[split["part"] == "train"].iloc[:2]
x, label = images[first["row"].to_numpy(copy=True)], torch.tensor(first["label"].to_numpy(copy=True))
control = cell.at(training="standard")
there = control.path("model.safetensors").is_file()
shown = models.load(control.path("model.safetensors")) if there else victim
crafted = defences.ascend(shown, x, lambda logits: cross_entropy(logits, label), budget=budget, step=budget)
drawn = {"frequencies": images.frequencies, "times": images.times}
figures.spectrograms({"x": x[0], "x'": crafted[0]}, **drawn)

# %% [markdown]
# The example was made with the original model of chapter 3 or, where that is missing, with the weights before
# training. The next picture shows its change alone, on its own scale.

# %%
change = (crafted - x)[0]
figures.spectrograms({"x' − x": change}, difference=True, **drawn)

# %%
plain = (images.settings.bins, images.settings.frames)
epsilon = metrics.scaled_budget(published.BUDGET, plain)
trained_norm = budget * (plain[0] * plain[1]) ** 0.5
seen = f"values change by at most {change.abs().max() * 255:.2g} of 255 grey levels"
print(chapter.expectation("a change too small to be seen", seen, bool(change.abs().max() <= 4 / 255)))
print(
    f"‖x' − x‖₂ = {change.norm():.3g}. A change of {budget:.3g} in every value has the norm "
    f"{trained_norm:.3g}: that is {trained_norm / epsilon:.2g} times the budget {epsilon:.3g} within which "
    "attacks are evaluated."
)

# %% [markdown]
# ## Six trainings, three losses
#
# Which loss is minimised, and how good the attack is that makes $\mathbf{x}'$, is the difference between the
# trainings, but for the choice of the epoch (below). *PGD*, projected gradient descent, is FGSM in several
# smaller steps. It begins at a random image within the budget, and each step is moved back into it (as BIM in
# chapter 4, but from a random start).
#
# | `training` | loss that is minimised | example $\mathbf{x}'$ |
# |---|---|---|
# | standard | $J(\mathbf{x})$ | none |
# | adversarial | Eq. 14 | FGSM, one step of $\epsilon_\infty$: the paper's |
# | fgsm_rs | Eq. 14 | one step of $1.25\,\epsilon_\infty$ from a random start |
# | pgd | Eq. 14 | `steps` steps of $2.5\,\epsilon_\infty/$`steps` from a random start |
# | trades | $J(\mathbf{x}) + \beta\,\mathrm{KL}(p(\mathbf{x}) \Vert p(\mathbf{x}'))$ | maximises that KL |
# | random_signs | Eq. 14 | $\mathbf{x} \pm \epsilon_\infty$ in every value, by chance: a control |
#
# In TRADES, $p$ are the probabilities of the classes, and KL (Kullback–Leibler) measures how far those of
# $\mathbf{x}'$ are from those of $\mathbf{x}$: the answers should be right, and agree. The sources are
# [Goodfellow et al. (2014)](https://arxiv.org/abs/1412.6572), [Wong et al.
# (2020)](https://arxiv.org/abs/2001.03994), [Madry et al. (2018)](https://arxiv.org/abs/1706.06083) and
# [Zhang et al. (2019)](https://arxiv.org/abs/1901.08573).
#
# The images of the control, `random_signs`, are moved as far as FGSM moves them, but without looking at the
# model. What this training gains comes from being disturbed. What the paper's gains beyond it, we take for
# the effect of being *attacked*.
#
# This is Eq. 14 as it is computed, by four of the six trainings; `loss` is the cross-entropy:

# %%
Markdown(chapter.source(defences.equation14))

# %% [markdown]
# While $\mathbf{x}'$ is made, the model is in *evaluation mode with its weights frozen*. Otherwise the
# running means of batch norm would include images that are only steps on the way, and PyTorch would compute
# gradients of the weights that nobody needs.
#
# What does the defence cost in time? A step of standard training does three things of about the same size:
# the forward pass, the gradient with respect to what each layer receives, and the gradient with respect to
# the weights. FGSM needs the first two once more, so we would guess that a step takes 1 + 2/3 of the time.
# PGD needs them once more for each of its steps. `make bench-training` measures it.

# %% [markdown]
# ## Learning
#
# Two accuracies are measured on the validation part after every epoch: of the clips as they are, and under
# PGD of `pgd_steps` steps within the budget of training, on the same `pgd_clips` clips each time (0: all).
# The weights with the highest mean of the two are kept. With few `pgd_clips` the second is coarse (of 20
# clips, one is 5 points), and so is the choice of the epoch. Chapter 3 chooses by clean accuracy alone, so a
# part of the difference between the two models can come from this choice.
#
# The training loss is that of attacked images and smoothed labels, and the validation loss that of clips as
# they are. So do not compare their heights; compare where they stop falling.
#
# Training with one step can fail suddenly ([*catastrophic overfitting*](https://arxiv.org/abs/2001.03994)).
# The network bends its loss just where FGSM's one step ends: the training accuracy jumps up, and the accuracy
# under PGD falls to almost zero. FGSM itself does not show this; PGD does. We expect that it does not happen:
# in the last epoch, the accuracy under PGD is less than 25 points below its highest. (An accuracy that was
# never high is no such collapse, and no success either.)
#
# We also expect a finished training, by the rule of chapter 3: the model is right on 80 % or more of what
# it is trained on, and the loss no longer falls.

# %%
settings = {name: globals()[name] for name in learnt_by.split()}
settings["epochs"] = epochs if victim.normalised else slow_epochs or epochs
recipe = Recipe(training=training, **settings, seed=seed)
checkpoint = cell.path("checkpoint.safetensors")
history = fit(victim, images, split, recipe, device=where, checkpoint=checkpoint, say=print)

# %%
figures.history(history, title=names.point(str(cell)))

# %%
last, fallen = history.iloc[-1], history["pgd_accuracy"].max() - history["pgd_accuracy"].iloc[-1]
tried = pd.notna(fallen)
seen = f"{last['pgd_accuracy']:.1%} under PGD in the last epoch, {100 * fallen:.0f} points below its highest"
seen = seen if tried else "PGD was not tried"
print(chapter.expectation("no collapse under PGD", seen, bool(fallen < 0.25) if tried else None))
seen = f"training accuracy {last['train_accuracy']:.1%}, {'un' if last['unfinished'] else ''}finished"
print(chapter.expectation("a finished training", seen, not last["unfinished"]))

# %% [markdown]
# ## The cost in clean accuracy
#
# Table I of the paper gives the drop of the clean accuracy in percentage points. Both models are tested on
# the same clips, so we take the difference clip by clip: 1 for a clip that only the original model
# classifies correctly, −1 for one that only the defended model does, and 0 for the others. The interval is
# that of the mean of these. It says how much another draw of recordings could change the drop. It does not
# include that another training, from another seed, gives another model. Where chapter 3 has not been run for
# this model, there is no drop to report. In the paper every drop is above zero, and we expect the same: the
# whole interval is above zero.

# %%
clean = examine(victim, images, split, clips)
recording = clips.set_index("clip")["source"]  # the unit of every interval
right = metrics.over_clips(clean["predicted"] == clean["label"], clean["clip"].map(recording))
print(f"clean accuracy {right.value:.1%} of {right.over} (95 % interval {right.low:.1%} to {right.high:.1%})")

# %%
models.save(victim, cell.path("model.safetensors"))
cell.save("clean.parquet", clean)
cell.save("history.csv", history)
cell.save("cost.csv", cost(history))
checkpoint.unlink(missing_ok=True)

# %%
before = control.load("clean.parquet") if control.path("clean.parquet").exists() else clean.iloc[:0]
pairs = before.merge(clean, on=["clip", "label"], suffixes=("_before", "_after"))
lost = (pairs["predicted_before"] == pairs["label"]).astype(int) - (
    pairs["predicted_after"] == pairs["label"]
)
drop = metrics.over_clips(lost, pairs["clip"].map(recording), bounds=(-1, 1))
seen = f"{100 * drop.value:.1f} points over {drop.over}, {100 * drop.low:.1f} to {100 * drop.high:.1f}"
above = True if drop.low > 0 else False if drop.high <= 0 else None
print(chapter.expectation("a drop above zero", seen if len(pairs) else "no original model here", above))

# %% [markdown]
# ## The gain in robust accuracy
#
# PGD now attacks the tested clips within the $\ell_2$ norm at which the paper compares its robust models
# (Table II: 3 at 768 × 1568, scaled to this image so that it means the same change per value). The share of
# clips that are still classified correctly is the robust accuracy under this attack.
#
# Do not confuse the two budgets. In training, *each value* may change by at most $\epsilon_\infty$.
# Here the *norm* of the whole change is limited ($\ell_2$): a few values may change by much more. So the
# model is tested against another kind of change than it was trained on, and the accuracies under PGD in the
# figure above and in the table below belong to two different attacks. The sizes of both budgets are printed
# above.
#
# This is a first look: one attack, few steps, any wrong class. A stronger attack could find a lower robust
# accuracy. Chapter 4 runs more attacks on the clips that it evaluates, which can be fewer than here, and
# chapter 6 reports the worst case over all of them. We expect the defended model to be more robust than the
# original: the interval of the difference, clip by clip, is above zero. In the table, *low* and *high* are
# the ends of a 95 % interval over recordings, which does not include another training.

# %%
tested = splits.choose(split[split["part"] == "test"], tried_clips, seed)
victims = {training: victim}
victims |= {"standard": models.load(control.path("model.safetensors"), where)} if len(before) else {}
robust = pd.DataFrame({"clip": clips["clip"].iloc[tested["position"]].to_numpy()})
for name, other in victims.items():
    robust[name] = pgd_correct(
        other, images, tested["row"], tested["label"], budget=epsilon, steps=pgd_steps, norm="l2", seed=seed
    )
cell.save("robust.parquet", robust)
under = {name: metrics.over_clips(robust[name], robust["clip"].map(recording)) for name in victims}
under_pgd = pd.DataFrame(under, index=["robust accuracy under PGD", "low", "high", "over"]).T
Markdown(markup.table(under_pgd.rename(index=names.label), floats=".3f"))

# %%
left = under[training]
change = robust[training].astype(int) - robust["standard"] if len(before) else []
gain = metrics.over_clips(change, robust["clip"].map(recording), bounds=(-1, 1)) if len(before) else None
seen = (
    f"{100 * gain.value:+.1f} points, {100 * gain.low:.1f} to {100 * gain.high:.1f}"
    if gain
    else "no original model here"
)
more = None if not gain or gain.low <= 0 < gain.high else bool(gain.low > 0)
print(chapter.expectation("more robust than the original", seen, more))

# %%
best = history.loc[history["best"]].iloc[0]
tried = f" and {best['pgd_accuracy']:.1%} under PGD" if pgd_clips >= 0 else ""
gained = f"changes by {100 * gain.value:+.1f} points" if gain else f"is {left.value:.1%}"
price = f", and clean accuracy by {100 * (0 - drop.value):+.1f} points" if len(before) else ""
answer = (
    f"With {names.label(training)} training of {names.label(model)} on {names.label(representation)}, the "
    f"robust accuracy under PGD within ‖δ‖₂ = {epsilon:.3g} {gained}{price}."
)
found = [
    f"Robust accuracy under PGD is {left.value:.1%} of {left.over}, clean accuracy {right.value:.1%}.",
    f"The weights kept are those of epoch {best['epoch']:.0f} of {len(history)}: on the validation part "
    f"{best['validation_accuracy']:.1%} clean{tried}.",
    f"The budget of training has an ℓ2 norm of {trained_norm / epsilon:.2g} times that of evaluation.",
    "Read on in [chapter 6](06_analysis.ipynb), where all attacks and models meet.",
]

# %%
learnt = f"it is not, at a training accuracy of {last['train_accuracy']:.1%}"
finished = "the training is finished, with an accuracy of 80 % or more and a loss that no longer falls"
checks = {
    "it does better than guessing": (right.low > 1 / classes, f"the interval begins at {right.low:.1%}"),
    finished: (not last["unfinished"], learnt),
    "accuracy under PGD does not collapse": (not fallen >= 0.25, f"it fell by {100 * fallen:.0f} points"),
    "it is more robust than the original": (not gain or gain.value > 0, f"robust accuracy {gained}"),
    "PGD never helps": (left.value <= right.value, f"{left.value:.1%} are correct under it"),
}
Markdown(chapter.summary(answer, found, checks))
