# %% [markdown]
# # 5 · Adversarial training
#
# **What does a classifier gain, and what does it lose, by learning from examples made to fool it?**
#
# The paper's one defence is the oldest and cheapest: every training image is replaced by one that a single
# step of FGSM has made harder (Section VII, Eq. 14). This chapter trains the model of chapter 3 again in
# that way, or with a defence that came after, as the point's `training` says. You will see what is learnt
# from, whether the robustness is real, and how many clean sounds it is paid with.
# Chapter 4 attacks what this chapter leaves with all six attacks.
#
# It rests on chapters 1 and 2, and starts from the same weights as chapter 3.
#
# Reads `clips.parquet`, the store of images and, where it is there, what chapter 3 left at this point; leaves
# `model.safetensors`, `clean.parquet` (a row a tested clip), `robust.parquet` (a row a tested clip and
# victim: whether it is still named rightly under PGD), `history.csv` and `cost.csv`.

# %%
import pandas as pd
import torch
from IPython.display import Markdown
from torch.nn.functional import cross_entropy

from lib import chapter, defences, figures, metrics, models, names, ranges, store, study
from lib.analysis import published
from lib.data import manifest, splits
from lib.device import choose_device
from lib.training import Recipe, cost, examine, fit, pgd_correct

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
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
patience = 20  # epochs without a better score before training stops early; 0 never does
batch = 32  # images a step
learning_rate = 0.0003  # peak, of AdamW; AlexNet takes 0.3 of it, VGG-16 0.1
schedule = "onecycle"  # of the learning rate, or: cosine, constant
smoothing = 0.0  # share of a label that is spread over all classes
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
learnt_by = "training epochs patience batch learning_rate schedule smoothing shift share layers precision"
ranges.check(
    globals(),
    ranges.taken("build dataset representation model fold training", study.Cell),
    ranges.taken(f"{learnt_by} budget alpha steps beta pgd_clips pgd_steps", Recipe),
    ranges.one_of("representation", names.REPRESENTATIONS),
    ranges.one_of("model", names.MODELS),
    ranges.one_of("protocol", splits.PROTOCOLS),
    ranges.one_of("pretrained", models.weights.CHOICES),
    ranges.path("build weights"),
    ranges.whole("tried_clips", -1),
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
print(
    f"{cell}: {(split['part'] == 'train').sum()} images of {images.size[0]} × {images.size[1]} to learn from"
)

# %% [markdown]
# ## One equation
#
# A training step descends, instead of the loss $J$ of an image, a mixture of the losses of the image and of
# an adversarial example $\mathbf{x}'$ of it, made from the weights as they are at that moment (Eq. 14):
#
# $$J'(\mathbf{x}, l, \mathbf{w}) =
# \alpha J(\mathbf{x}, l, \mathbf{w}) + (1 - \alpha) J(\mathbf{x}', l, \mathbf{w})$$
#
# > **Paper.** $\alpha$ is "subjective", in the end $J' = J(\mathbf{x}')$; the examples are FGSM's. Their
# > $\epsilon$ is not given.
#
# > **Here.** $\alpha = 0$ (`alpha`), and FGSM moves every value of the image by $\epsilon$ = `budget`:
#
# $$\mathbf{x}' = \operatorname{clip}_{[0, 1]}\{\mathbf{x} + \epsilon \operatorname{sgn} \nabla_\mathbf{x}
# J(\mathbf{x}, l, \mathbf{w})\}$$

# %%
first = split[split["part"] == "train"].iloc[:2]
x, label = images[first["row"].to_numpy(copy=True)], torch.tensor(first["label"].to_numpy(copy=True))
crafted = defences.ascend(victim, x, lambda logits: cross_entropy(logits, label), budget=budget, step=budget)
figures.spectrograms({"x": x[0], "x'": crafted[0]})

# %% [markdown]
# Made here from the weights before training; rows and frames are those that the network gets. The change is
# at most two grey levels of 255 at the default budget: it should not be visible above. Here it is alone.

# %%
figures.spectrograms({"x' − x": crafted[0] - x[0]}, difference=True)

# %% [markdown]
# ## Five losses
#
# | `training` | what is descended | example $\mathbf{x}'$ |
# |---|---|---|
# | standard | $J(\mathbf{x})$ | none |
# | adversarial | Eq. 14 | FGSM, one step of $\epsilon$: the paper's |
# | fgsm_rs | Eq. 14 | one step of $1.25\,\epsilon$ from a random start |
# | pgd | Eq. 14 | `steps` steps of $2.5\,\epsilon/$`steps` from a random start |
# | trades | $J(\mathbf{x}) + \beta\,\mathrm{KL}(p(\mathbf{x}) \,\Vert\, p(\mathbf{x}'))$ | climbs that KL |
#
# They are Goodfellow et al.'s (2014), Wong et al.'s (2020), Madry et al.'s (2018) and Zhang et al.'s (2019).
#
# An example is crafted in *evaluation mode with the weights frozen*. In training mode, batch norm would take
# the statistics of examples that are thrown away into its running mean; and the gradients of the weights,
# which crafting does not need, would be computed for nothing. So a step of FGSM costs a clean step and two
# thirds of another (one forward pass and one of the two backward ones), and a step of PGD two thirds more for
# each of its gradient steps; `make bench-training` measures it.

# %% [markdown]
# ## Learning
#
# After every epoch, two accuracies on the validation part: of the clips as they are, and under PGD with
# several steps inside the same budget, on the same `pgd_clips` of them each time (0: all). The state with the
# highest mean of the two is kept. The training loss is of attacked images and smoothed labels, so it may lie
# above that of validation.
#
# Watch the second. Training with one step can go wrong suddenly: the network learns to bend its gradient
# where FGSM steps to, the training accuracy jumps up, and the accuracy under PGD falls to nothing
# (*catastrophic overfitting*). Robustness that FGSM alone has measured does not show it.

# %%
recipe = Recipe(
    training=training,
    epochs=epochs,
    patience=patience,
    batch=batch,
    learning_rate=learning_rate,
    schedule=schedule,
    smoothing=smoothing,
    shift=shift,
    share=share,
    layers=layers,
    precision=precision,
    budget=budget,
    alpha=alpha,
    steps=steps,
    beta=beta,
    pgd_clips=pgd_clips,
    pgd_steps=pgd_steps,
    seed=seed,
)
checkpoint = cell.path("checkpoint.safetensors")
history = fit(victim, images, split, recipe, device=where, checkpoint=checkpoint, say=print)

# %%
figures.history(history, title=names.point(str(cell)))

# %% [markdown]
# ## What it costs in clean sounds
#
# Table I of the paper gives the drop of the accuracy on clean clips, in percentage points. Both models meet
# the same clips, so the interval is that of the difference clip by clip. Where chapter 3 has not been run
# at this point there is no drop to tell.

# %%
clean = examine(victim, images, split, clips)
right = metrics.over_clips(clean["predicted"] == clean["label"])
print(f"{right.value:.1%} of {right.over} named rightly (95 % interval {right.low:.1%} to {right.high:.1%})")

# %%
models.save(victim, cell.path("model.safetensors"))
cell.save("clean.parquet", clean)
cell.save("history.csv", history)
cell.save("cost.csv", cost(history))
checkpoint.unlink(missing_ok=True)

# %%
control = cell.at(training="standard")
before = control.load("clean.parquet") if control.path("clean.parquet").exists() else clean.iloc[:0]
pairs = before.merge(clean, on=["clip", "label"], suffixes=("_before", "_after"))
lost = (pairs["predicted_before"] == pairs["label"]).astype(int) - (
    pairs["predicted_after"] == pairs["label"]
)
drop = metrics.over_clips(lost)
print(f"drop: {100 * drop.value:.1f} points over {drop.over}, {100 * drop.low:.1f} to {100 * drop.high:.1f}")

# %% [markdown]
# ## What it buys
#
# PGD on the tested clips, now within the $\ell_2$ norm at which the paper compares its robust models
# (Table II: 3 at 1568 × 768, scaled to this image so that it means the same change per value). It is one
# attack, of few steps, and not targeted: a first look, at an easier goal than most attacks of chapter 4 have,
# which does the rest, and doubts it. The ℓ∞ ball that was trained in is another one: a change
# of `budget` in each of an image's $n$ values has the ℓ2 norm `budget` $\cdot \sqrt{n}$, which is larger; so
# the accuracies under PGD above and below are not of one attack.

# %%
plain = (images.settings.bins, images.settings.frames)
epsilon = metrics.scaled_budget(published.BUDGET, plain)
tested = splits.choose(split[split["part"] == "test"], tried_clips, seed)
victims = {training: victim}
victims |= {"standard": models.load(control.path("model.safetensors"), where)} if len(before) else {}
robust = pd.DataFrame({"clip": clips["clip"].iloc[tested["position"]].to_numpy()})
for name, other in victims.items():
    robust[name] = pgd_correct(
        other, images, tested["row"], tested["label"], budget=epsilon, steps=pgd_steps, norm="l2", seed=seed
    )
cell.save("robust.parquet", robust)
under = {name: metrics.over_clips(robust[name]) for name in victims}
pd.DataFrame(under, index=["accuracy under PGD", "low", "high", "over"]).T.rename(index=names.label)

# %%
best = history.loc[history["best"]].iloc[0]
left = under[training]
fallen = history["pgd_accuracy"].max() - history["pgd_accuracy"].iloc[-1]
answer = (
    f"{names.label(training)} training of {names.label(model)} on {names.label(representation)} classifies "
    f"{right.value:.1%} of {right.over} correctly, {left.value:.1%} under PGD within ‖δ‖₂ = {epsilon:.3g}."
)
found = [
    f"its best state is of epoch {best['epoch']:.0f} of {len(history)}: on the validation part "
    f"{best['validation_accuracy']:.1%} clean, {best['pgd_accuracy']:.1%} under PGD within {budget:.3g} (ℓ∞)",
]
found += [f"without a defence it is {under['standard'].value:.1%} under that PGD"] if len(before) else []
found += [f"it costs {100 * drop.value:.1f} points of clean accuracy"] if len(before) else []
checks = {
    "it does better than guessing": right.low > 1 / classes,
    "accuracy under PGD did not collapse while training went on": fallen < 0.25,
    "it is more robust than without a defence": not len(before) or left.value > under["standard"].value,
    "PGD never helps": left.value <= right.value,
}
Markdown(chapter.summary(answer, found, checks))
