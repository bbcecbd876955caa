# %% [markdown]
# # 3 · Training
#
# **How well does a network made for photographs tell sounds apart by their pictures?**
#
# A network that was designed for photographs looks for small patterns and for arrangements of them. It does
# not know what they mean, so it can be trained on spectrograms as well. [The
# paper](https://arxiv.org/abs/2008.11618) does this with six networks (Section V), and reports how many
# sounds they classify correctly (Table I). This chapter trains one network at one
# [point](README.md#glossary): one data set, representation, network and tested fold. You will see what the
# network is, which clips it is trained and tested on, how it learns, and which classes it confuses.
#
# The result is what the paper calls the *original* model. Chapter 4 attacks it, and chapter 5 trains the same
# network once more, from the same initial weights, with a defence. How accurate a model is and how well it
# resists attacks are two different questions.
#
# Previous: [2 · Representations](02_features.ipynb). Next: [4 · Attacks](04_attacks.ipynb). Terms are
# explained in the [glossary](README.md#glossary).
#
# <small>Reads `clips.parquet` and the store of images. Writes `model.safetensors`, `clean.parquet` (one row
# per tested clip: its class and the predicted one), `history.csv` (one row per epoch) and `cost.csv`
# (seconds).</small>

# %%
import pandas as pd
from IPython.display import Markdown, display

from lib import chapter, figures, markup, metrics, models, names, ranges, store, study
from lib.analysis import published
from lib.data import manifest, splits
from lib.device import choose_device
from lib.training import Recipe, cost, equally_many, examine, fit

figures.use_style()

# %% tags=["parameters"]
build = "build"  # folder of the executed grid
dataset = "esc50"
representation = "stft"
model = "resnet56"
fold = "1"  # held out; 1.3 is fold 1 repeated with seed 3
training = "standard"  # chapter 5 trains the others
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
device = "auto"  # cpu, cuda, or whichever is there
leaks_at = ""  # representation/model/fold at which the leaks of a random split are measured

# %%
learnt_by = "epochs patience batch learning_rate schedule smoothing dropout shift share layers precision"
ranges.check(
    globals(),
    ranges.taken("build dataset representation model fold training", study.Cell),
    ranges.taken(f"training {learnt_by}", Recipe),
    ranges.one_of("representation", names.REPRESENTATIONS),
    ranges.one_of("model", names.MODELS),
    ranges.one_of("protocol", splits.PROTOCOLS),
    ranges.one_of("pretrained", models.weights.CHOICES),
    ranges.path("build weights"),
    ranges.whole("slow_epochs", 0),
    ranges.device("device"),
    ranges.text(
        "leaks_at",
        rf"(({'|'.join(names.REPRESENTATIONS)})/({'|'.join(names.MODELS)})/\d+(\.\d+)?)?",
        "empty, or representation/model/fold, such as dwt/resnet18/1",
    ),
)

# %%
cell = study.Cell(build, dataset, representation, model, fold, training)
clips = manifest.usable(cell)
folds = "|".join(str(number) for number in sorted(clips["fold"].unique()))
one_there = ranges.text("leaks_at", rf"|.*/({folds})(\.\d+)?", f"at a fold that is there, {folds}")
ranges.check(globals(), one_there)
classes = clips.drop_duplicates("label").sort_values("label")["name"].to_list()
images = store.open(cell.up(1).path("store"), representation)
where = choose_device(device)
print(f"{cell}: {len(images)} images of {images.size[0]} × {images.size[1]}, {len(classes)} classes")

# %% [markdown]
# ## Six networks
#
# Five of the six come from [torchvision](https://pytorch.org/vision/stable/models.html). The sixth,
# ResNet-56, is the network that [He et al.](https://arxiv.org/abs/1512.03385) made for the small images of
# CIFAR-10 (their section 4.2). It has a 3 × 3 convolution, three stages of nine blocks with 16, 32 and 64
# channels, the mean over the image, and one linear layer. That makes $6n + 2 = 56$ layers for $n = 9$.
#
# All six are changed in the same way: they get one input channel instead of three, and as many outputs as
# there are classes. They normalise their input themselves. So the values of an image that is attacked are
# always in $[0, 1]$, for every network.
#
# > **Paper.** The networks are pretrained; their input and output layers are replaced and fine-tuned.
#
# > **Here.** `pretrained` says where training starts: from published weights, with all layers learning, or
# > (`none`) from weights drawn at random. In the second case the chapter tests the architecture alone, and
# > not what it has learnt from photographs.
#
# How large are they? The table counts the numbers that training may change, the *parameters*. The column *as
# published* counts them for the 1000 classes and three channels of ImageNet. It does so for all six, so that
# the rows can be compared (He et al. gave ResNet-56 ten classes). The column *here* counts them as we train
# them.

# %%
counts = {
    name: [models.parameters(models.outline(name, *shape)) for shape in ((1000, 3), (len(classes), 1))]
    for name in dict.fromkeys([*published.MODELS, model])
}
sizes = pd.DataFrame(counts, index=["as published", "here"]).T
sizes.rename(index=names.label).map("{:,}".format)

# %% [markdown]
# One sentence of the paper about these sizes can be checked:
#
# > **Paper.** ResNet-56 has more parameters than VGG-16 and ResNet-34, by percentages that Section VIII
# > gives.
#
# Each of the two percentages implies a number of parameters for ResNet-56. If both are right, they imply
# the same number, and we expect it to be the one in the table above.

# %%
claims = pd.DataFrame({"more than it [%]": published.PARAMETERS_ABOVE})
claims["its parameters"] = sizes["as published"][claims.index]
claims["so ResNet-56 has"] = (claims["its parameters"] * (1 + claims["more than it [%]"] / 100)).astype(int)
display(claims.rename(index=names.label).map("{:,}".format))
wide, narrow = claims["so ResNet-56 has"].max(), claims["so ResNet-56 has"].min()
times = narrow / sizes.loc["resnet56", "here"]
seen = f"they differ by a factor of {wide / narrow:.1f}, and the smaller one is {times:.0f} times ours"
print(
    chapter.expectation(
        "both imply one number, that of the table", seen, bool(wide / narrow < 1.1 and times < 1.1)
    )
)

# %% [markdown]
# > **Here.** VGG-16 has several times the parameters of ResNet-34, so no network can be larger than both of
# > them by percentages such as these. Our ResNet-56 is that of He et al., who gave it the name. It has few
# > weights but many operations, because its first stage keeps the full size of the image.

# %% [markdown]
# ## Which clips train, and which test
#
# > **Paper.** 70 % of all samples are for training and development, in five-fold cross-validation with
# > early stopping. Accuracy is reported for the remaining 30 %.
#
# > **Here.** By default the folds of the data set decide (`protocol = "official"`). Copies made by pitch
# > shift are used for training only. The paper's random split (`protocol = "paper"`) lets clips of one
# > recording, and copies of one clip, into more than one part.
#
# So there are three parts. The fold of this point is *tested*. The next fold *validates*: it chooses the
# epoch whose weights are kept, and when to stop, if `patience` is set. The other folds *train*; each epoch
# takes a share of their images (`share`). The table counts the images of each part, the clips that they show,
# and the recordings that the clips were cut from. An image is a clip or one of its copies.
#
# We expect that no recording and no clip is in two parts.

# %%
copies = images.copies
number, seed = study.fold_and_seed(fold)
split = splits.split(clips, number, protocol, seed=seed, copies=copies)
parts = split.groupby("part").agg(
    images=("row", "size"), clips=("position", "nunique"), recordings=("source", "nunique")
)
display(parts.loc[list(splits.PARTS)])
crossing = len(splits.leaks(split))
seen = f"{crossing} recordings or clips are in two parts"
print(chapter.expectation("none is in two parts", seen, crossing == 0))

# %% [markdown]
# ## Learning
#
# The network gives each class a probability. The loss of an image $\mathbf{x}$ with label $l$ is large where
# the probability of the label is small. It is the cross-entropy
#
# $$J(\mathbf{x}, l, \mathbf{w}) = -\log p_l(\mathbf{x}, \mathbf{w}),$$
#
# where $\mathbf{w}$ are the weights. (With `smoothing`, a share of the label is spread over all classes.)
# Training changes $\mathbf{w}$ so that the mean of $J$ falls, by [AdamW](https://arxiv.org/abs/1711.05101).
# This $J$ comes back in chapter 4: an attack changes $\mathbf{x}$ instead, so that $J$ grows.
#
# The weights of the epoch with the highest accuracy on the validation part are kept; of equal ones, those
# with the lower validation loss. The tested part is not used before the end. Chapter 5 uses the same loop,
# `fit`; only the loss differs.
#
# AlexNet and VGG-16 have no batch norm, and are harder to train. If their weights are drawn at random, they
# also get the mean and deviation of each frequency over the training images as their normalisation. Their
# learning rate is smaller, and, where the settings say so, they get more epochs (`slow_epochs`) and another
# `dropout`.
#
# `fit` prints one line per epoch: the training loss, and the accuracy on the training and the validation
# part.

# %%
start = {"pretrained": pretrained, "weights_folder": weights, "seed": seed}
victim = models.create(model, len(classes), images.size, **start)
models.whiten(victim, images, split.loc[split["part"] == "train", "row"])
settings = {name: globals()[name] for name in learnt_by.split()}
settings["epochs"] = epochs if victim.normalised else slow_epochs or epochs
recipe = Recipe(training=training, **settings, pgd_clips=-1, seed=seed)
checkpoint = cell.path("checkpoint.safetensors")
history = fit(victim, images, split, recipe, device=where, checkpoint=checkpoint, say=print)

# %% [markdown]
# The next figure shows the same numbers, and the validation loss. The two losses measure different things.
# The training loss is that of shifted images, of copies and of labels smoothed by `smoothing`, averaged while
# the weights change. The validation loss is that of plain images and labels, so it may be lower.
#
# We expect a finished training. We call it finished if two things are true in the last epoch. Its accuracy on
# what it is trained on is 80 % or more. And its loss fell by at most 5 % per epoch over the last three
# epochs, or that accuracy is 99 % or more. The schedule `onecycle` lowers the learning rate to zero, so there
# the loss becomes flat in any case: a finished training can still gain from a longer one.

# %%
figures.history(history.drop(columns="pgd_accuracy"), title=names.point(str(cell)))

# %% [markdown]
# Follow the validation curve from left to right. Jumps from epoch to epoch are usual while the learning rate
# is high, because the weights then change much in one step. With the schedule `onecycle` this rate falls to
# zero towards the end. Then compare the two losses: where the validation loss rises while the training loss
# still falls, the network begins to memorise its clips. The factor in the next line measures this. It is the
# validation loss of the last epoch divided by the least one, and 1 means that it did not rise.

# %%
last = history.iloc[-1]
least = history.loc[history["validation_loss"].idxmin()]
print(
    f"The training accuracy ends at {last['train_accuracy']:.1%}, the validation accuracy at "
    f"{last['validation_accuracy']:.1%}. The validation loss is least in epoch {least['epoch']:.0f} of "
    f"{len(history)}; in the last it is {last['validation_loss'] / least['validation_loss']:.2f} times it."
)
seen = f"training accuracy {last['train_accuracy']:.1%}, {'un' if last['unfinished'] else ''}finished"
print(chapter.expectation("a finished training", seen, not last["unfinished"]))

# %% [markdown]
# ## The test
#
# The tested clips are used here for the first time. The accuracy on the validation part is no substitute: the
# epoch was chosen because it is high there.
#
# The 95 % interval says how much the accuracy could change with other clips. It takes recordings as
# independent, not clips. It is for this one trained model: the same network, trained again with another seed,
# may have an accuracy outside of it.

# %%
clean = examine(victim, images, split, clips)
recording = clips.set_index("clip")["source"]  # the unit of every interval
right = metrics.over_clips(clean["predicted"] == clean["label"], clean["clip"].map(recording))
print(
    f"{right.value:.1%} of {right.over} are classified correctly (95 % interval {right.low:.1%} to "
    f"{right.high:.1%})"
)

# %% [markdown]
# Which classes does it confuse? In the next figure, each row shows the clips of one class, and each column
# the class that the model gave them. Numbers are clips. A square is darker the larger its share of the row,
# so a perfect classifier has a black diagonal and nothing else.

# %%
figures.confusion(clean["label"], clean["predicted"], classes, title="tested clips")

# %%
named = clean.assign(correct=clean["predicted"] == clean["label"], name=[classes[n] for n in clean["label"]])
by_class = named.groupby("name")["correct"].agg(["mean", "sum", "size"]).sort_values("mean", kind="stable")
easy, hard = by_class.iloc[-1], by_class.iloc[0]
print(
    f"Easiest: {easy.name}, {easy['sum']:.0f} of {easy['size']:.0f}; hardest: {hard.name}, "
    f"{hard['sum']:.0f} of {hard['size']:.0f}. Most frequent confusions:"
)
wrong = named[~named["correct"]].assign(taken=[classes[n] for n in named.loc[~named["correct"], "predicted"]])
top = wrong.groupby(["name", "taken"]).size().sort_values(ascending=False, kind="stable").head(3)
print("; ".join(f"{name} as {taken}, {count} times" for (name, taken), count in top.items()) or "none")

# %% [markdown]
# Where several classes are equally easy or hard, only one of them is named. Where a class has few tested
# clips, one clip more or less changes much; a confusion that happens once is no finding. Where two sounds are
# confused more often, listen to them in [chapter 1](01_data.ipynb): do they sound alike to you?
#
# The next cell keeps the model, its predictions and what the training cost, for the chapters that follow.

# %%
models.save(victim, cell.path("model.safetensors"))
cell.save("clean.parquet", clean)
cell.save("history.csv", history)
cell.save("cost.csv", cost(history))
checkpoint.unlink(missing_ok=True)

# %% [markdown]
# ## What a random split would have reported
#
# The paper's random split, as we read it, has two leaks. *Recordings* leak where clips cut from one recording
# are both in the training and in the tested part. *Copies* leak where pitch-shifted copies of a tested clip
# are in the training part. Such a copy brings its recording with it, so both are counted there. Images that
# cross into the validation part are counted too.
#
# How much do these leaks raise the accuracy? We train four times:
#
# - `official`: folds decide, as above.
# - `random`: clips are drawn at random, so recordings leak; copies are in the training part only.
# - `copies`: folds decide, but the copies of all clips are trained on, those of tested clips as well.
# - `paper`: clips and copies are drawn at random, as in the paper, so both leak.
#
# All four start from the same weights and have as many training images and steps as the smallest split has.
# So `official` may differ from the test above. The paper's split also tests copies; there, the number under
# *over* counts images. A copy belongs to the recording of its clip, so copies do not make the interval
# narrower.
#
# We expect `official` to be the lowest. Each row is one training, and random splits test other clips than
# folds do, so a difference within the intervals is no finding. Four more trainings are expensive, so they are
# done at one point of a data set (`leaks_at`); elsewhere the table is empty.

# %%
wanted = ("official", "random", "copies", "paper") if leaks_at == f"{representation}/{model}/{fold}" else ()
ways = {name: splits.split(clips, number, name, seed=seed, copies=copies) for name in wanted}
measured = []
for name, other in equally_many(ways, seed).items():
    learner = models.create(model, len(classes), images.size, **start)
    models.whiten(learner, images, other.loc[other["part"] == "train", "row"])
    fit(learner, images, other, recipe, device=where, checkpoint=cell.path(f"{name}.safetensors"))
    rows = examine(learner, images, other, clips)
    accuracy = metrics.over_clips(rows["predicted"] == rows["label"], rows["clip"].map(recording))
    leaking = splits.leaks(other)["what"].value_counts()
    measured.append([name, leaking.get("recording", 0), leaking.get("clip", 0), *accuracy])

# %%
columns = ["protocol", "recordings crossing", "clips crossing", "accuracy", "low", "high", "over"]
leaks = pd.DataFrame(measured, columns=columns)
for name in wanted:
    cell.save("leaks.csv", leaks)
    cell.path(f"{name}.safetensors").unlink(missing_ok=True)
Markdown(markup.table(leaks, index=False, floats=".3f"))

# %% [markdown]
# *Recordings crossing* and *clips crossing* count the leaks, and *low* and *high* are the ends of the 95 %
# interval of each accuracy. `official` and `copies` test the same clips; the other two test others. The line
# below compares the four accuracies alone. It does not ask whether other clips, or another seed, could turn a
# difference round: four trainings cannot show that.

# %%
rest = leaks.set_index("protocol")["accuracy"]
seen = ", ".join(f"{name} {value:.1%}" for name, value in rest.items()) or "not measured at this point"
lowest = bool(rest["official"] <= rest.drop("official").min()) if len(rest) else None
print(chapter.expectation("official is the lowest", seen, lowest))

# %%
best = history.loc[history["best"]].iloc[0]
answer = (
    f"{names.label(model)} on {names.label(representation)} classifies {right.value:.1%} of {right.over} "
    f"correctly (95 % interval {right.low:.1%} to {right.high:.1%}); guessing gives {1 / len(classes):.0%}."
)
found = [
    f"The weights kept are those of epoch {best['epoch']:.0f} of {len(history)}, with an accuracy of "
    f"{best['validation_accuracy']:.1%} on the validation part.",
    f"The training accuracy in the last epoch is {last['train_accuracy']:.1%}.",
    f"Hardest is {markup.text(hard.name)} ({hard['sum']:.0f} of {hard['size']:.0f}), easiest "
    f"{markup.text(easy.name)} ({easy['sum']:.0f} of {easy['size']:.0f}).",
    "Read on in [chapter 4](04_attacks.ipynb), which attacks this model.",
]

# %%
guess, validated = 1 / len(classes), best["validation_accuracy"]
learnt = f"it is not, at a training accuracy of {last['train_accuracy']:.1%}"
finished = "the training is finished, with an accuracy of 80 % or more and a loss that no longer falls"
checks = {
    "it does better than guessing": (right.low > guess, f"the interval begins at {right.low:.1%}"),
    "no recording or clip is in two parts": (crossing == 0, f"{crossing} are"),
    finished: (not last["unfinished"], learnt),
    "validation lies in the interval of the test": (
        right.low <= validated <= right.high,
        f"{validated:.1%} is outside",
    ),
}
Markdown(chapter.summary(answer, found, checks))
