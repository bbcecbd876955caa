# %% [markdown]
# # 3 · Training
#
# **How well does a network made for photographs tell sounds apart by their pictures?**
#
# The paper takes six image classifiers (Section V), trains them on spectrograms and reports how many sounds
# they classify correctly (Table I). This chapter trains one of them at this point of the grid. You will see
# what the network is, which clips it is trained and tested on, how it learns, and which classes it
# confuses. The result is the *original* model of the paper: chapter 4 attacks it, and chapter 5 trains it
# again with a defence. How accurate it is and how well it resists attacks are two different questions.
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
# Five of the six come from [torchvision](https://pytorch.org/vision/stable/models.html). ResNet-56 is the
# network that [He et al.](https://arxiv.org/abs/1512.03385) made for the small images of CIFAR-10 (their
# section 4.2): a 3 × 3 convolution, three stages of nine blocks with 16, 32 and 64 channels, the mean over
# the image, and one linear layer. That makes $6n + 2 = 56$ layers for $n = 9$. All six accept images of any
# size above a smallest one, and all six are changed in the same way: they get one input channel instead of
# three, and as many outputs as there are classes. Normalisation is part of the model, so that attacks and
# their budgets are measured in $[0, 1]$.
#
# The number of weights shows which networks the paper may have used. The column *as published* counts them
# for the 1000 classes and three channels of ImageNet, for all six, so that the rows can be compared (He et
# al. gave ResNet-56 ten classes).

# %%
counts = {
    name: [models.parameters(models.outline(name, *shape)) for shape in ((1000, 3), (len(classes), 1))]
    for name in dict.fromkeys([*published.MODELS, model])
}
sizes = pd.DataFrame(counts, index=["as published", "here"]).T
sizes.rename(index=names.label).map("{:,}".format)

# %% [markdown]
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
# > **Here.** VGG-16 has several times the parameters of ResNet-34, so no network can be a few percent larger
# > than both. Our ResNet-56 is that of He et al., the only published network of that name. It has few
# > weights but many operations, because its first stage keeps the full size of the image.

# %% [markdown]
# ## Which clips train, and which test
#
# > **Paper.** 70 % of all samples are for training and development, in five-fold cross-validation with
# > early stopping. Accuracy is reported for the remaining 30 %.
#
# > **Here.** By default the folds of the data set decide (`protocol = "official"`). The fold of this point
# > is tested. The next fold validates: it chooses the epoch whose weights are kept, and when to stop, if
# > `patience` is set. The others train, a share of them (`share`) in each epoch. Copies made by pitch shift
# > are used for training only. The paper's random split (`protocol = "paper"`) lets clips of one recording,
# > and copies of one clip, into both parts.
#
# We expect that no recording and no copy is in two parts.

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
# One loop trains in this chapter and in chapter 5; only the loss differs. Here the loss is the
# cross-entropy $J(\mathbf{x}, l, \mathbf{w})$ of an image, its label and the weights, minimised by
# [AdamW](https://arxiv.org/abs/1711.05101). The weights of the epoch that does best on the validation part
# are kept. The tested part is not used before the end.
#
# AlexNet and VGG-16 have no batch norm, and are harder to train from random weights. They get the mean and
# deviation of each frequency over the training images as their normalisation, a smaller learning rate
# and, where the settings say so, more epochs (`slow_epochs`) and another `dropout`.

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
# The two losses in the next figure measure different things. The training loss is that of shifted images, of
# copies and of labels smoothed by `smoothing`, averaged while the weights change. The validation loss is that
# of plain images and labels, so it may be lower. There are few sounds for so many weights. Where the
# validation loss rises while the training loss still falls, the network begins to memorise its clips.
#
# We expect a finished training: its accuracy on what it is trained on is 80 % or more in the last epoch, and
# its loss no longer falls by more than 5 % an epoch, unless nearly all is learnt.

# %%
figures.history(history.drop(columns="pgd_accuracy"), title=names.point(str(cell)))

# %%
last = history.iloc[-1]
least = history.loc[history["validation_loss"].idxmin()]
print(
    f"The training accuracy ends at {last['train_accuracy']:.1%}, the validation accuracy at "
    f"{last['validation_accuracy']:.1%}. The validation loss is least in epoch {least['epoch']:.0f} of "
    f"{len(history)}, and {last['validation_loss'] / least['validation_loss']:.2f} times that in the last."
)
seen = f"training accuracy {last['train_accuracy']:.1%}, {'un' if last['unfinished'] else ''}finished"
print(chapter.expectation("a finished training", seen, not last["unfinished"]))

# %% [markdown]
# ## The test
#
# The tested clips are used here for the first time. The interval is over clips, for this one trained model.

# %%
clean = examine(victim, images, split, clips)
recording = clips.set_index("clip")["source"]  # the unit of every interval
right = metrics.over_clips(clean["predicted"] == clean["label"], clean["clip"].map(recording))
print(
    f"{right.value:.1%} of {right.over} are classified correctly (95 % interval {right.low:.1%} to "
    f"{right.high:.1%})"
)

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

# %%
models.save(victim, cell.path("model.safetensors"))
cell.save("clean.parquet", clean)
cell.save("history.csv", history)
cell.save("cost.csv", cost(history))
checkpoint.unlink(missing_ok=True)

# %% [markdown]
# ## What a random split would have reported
#
# The paper's random split has two leaks. *Recordings* leak where clips cut from one recording are both in
# the training and in the tested part. *Copies* leak where pitch-shifted copies of a tested clip are in the
# training part. Such a copy brings its recording with it, so both are counted there. Images that cross into
# the validation part are counted too.
#
# We train four times: with leaks of recordings alone (`random`), with copies as well (`copies`), with
# everything that the paper's split lets through (`paper`), and with no leak (`official`). All four start from
# the same weights and have as many training images and steps as the smallest split has. So `official` may
# differ from the test above. The paper's split also tests copies, so its interval, over images, is too
# narrow.
#
# We expect `official` to be the lowest. Each row is one training, and each is tested on different clips, so a
# difference within the intervals is no finding. Four more trainings are expensive, so they are done at one
# point of a data set (`leaks_at`); elsewhere the table is empty.

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
    crossing = splits.leaks(other)["what"].value_counts()
    measured.append([name, crossing.get("recording", 0), crossing.get("clip", 0), *accuracy])

# %%
columns = ["protocol", "recordings crossing", "clips crossing", "accuracy", "low", "high", "over"]
leaks = pd.DataFrame(measured, columns=columns)
for name in wanted:
    cell.save("leaks.csv", leaks)
    cell.path(f"{name}.safetensors").unlink(missing_ok=True)
leaks

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
