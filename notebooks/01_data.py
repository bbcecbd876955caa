# %% [markdown]
# # 1 · Data
#
# **Which sounds are there, and do the folds keep recordings apart?**
#
# Several clips are often cut from one *recording*. A network that was trained on one of these clips and is
# tested on another can recognise the recording instead of the sound, and the test is too easy.
# [The paper](https://arxiv.org/abs/2008.11618) draws training and tested clips at random (Section V), from
# two public data sets (Section VIII). Both come divided into [folds](README.md#glossary), parts that are
# tested in turn. This chapter decodes every clip of one data set once. You will hear one clip of each class
# (of ten classes, where there are more). You will see how clips and classes differ, which recordings are in
# more than one fold, and which clips were left out and why.
#
# Next: [2 · Representations](02_features.ipynb). Terms are explained in the [glossary](README.md#glossary).
#
# <small>Reads the data set's table and audio. Fetches them first if they are not in `data_folder`: ESC-50,
# whose table marks the clips of ESC-10, from its repository, and UrbanSound8K from Zenodo. Writes
# `clips.parquet`, the manifest with one row per clip, and `files.csv`, by which `make` notices that a
# recording was replaced.</small>

# %%
import numpy as np
from IPython.display import Markdown, display

from lib import chapter, figures, markup, player, ranges, study
from lib.data import audio, download, duplicates, listening, manifest, readers, splits

figures.use_style()

# %% tags=["parameters"]
build = "build"  # folder of the executed grid
dataset = "esc50"
data_folder = "data"  # folder of the data sets; a missing one is downloaded into it
mirror = ""  # another address of the archive; empty: the original one
shortest = 0.02  # s; a clip below it is left out
unusable = 0.01  # share of clips that may be left out; above it the chapter stops
workers = 0  # threads; 0 is one per core

# %%
ranges.check(
    globals(),
    ranges.taken("build dataset", study.Cell),
    ranges.path("build data_folder"),
    ranges.text("mirror", r"(\w+://\S+)?", "empty, or an address that begins with https://"),
    ranges.number("shortest", 0),
    ranges.number("unusable", 0, 1),
    ranges.whole("workers", 0),
)

# %%
cell = study.Cell(build, dataset)
about = readers.known(dataset)
if about and about.origin and not readers.there(dataset, data_folder):
    download.fetch(about.origin, data_folder, mirror=mirror)
listed = listening.listen(cell, data_folder, shortest=shortest, unusable=unusable, workers=workers)
clips = manifest.usable(cell)
print(f"{dataset}: {len(listed)} clips, {len(listed) - len(clips)} left out")

# %%
Markdown(f"*{about.title}*, {about.licence}. {about.citation}." if about else f"*{dataset}*, your own.")

# %% [markdown]
# ## One clip of each class
#
# We play one clip of each class. It is chosen by a rule: of the clips that sound for at least three quarters
# of their length, the one whose mean power is the median. Guess while you listen whether a sound
# is made of tones, of clicks or of noise: chapter 2 shows what its pictures make of each of them.
#
# Recordings are played with their attribution where their licence allows it. Your own recordings are not
# copied into this notebook.

# %%
names = sorted(clips["name"].unique())
for name in names[:: -(-len(names) // 10)] if about and about.attribution else []:
    clip = manifest.typical(clips[clips["name"] == name])
    credit = about.attribution.format(source=clip["source"])
    sound = audio.waveform(clip, 22050, min(5.0, clip["frames"] / clip["rate"]))
    display(player.player(sound, 22050, f"{name.replace('_', ' ')} ({credit})"))

# %% [markdown]
# ## Classes and folds
#
# > **Paper.** 70 % of the clips, drawn at random, are for training and development; the rest is tested.
#
# > **Here.** The data set's own folds decide. Where it has none, we make folds, and keep all clips of a
# > recording in one of them.
#
# The table counts the clips of each class in each fold. Its last column counts the recordings from which they
# were cut.

# %%
balance = clips.pivot_table(index="name", columns="fold", values="clip", aggfunc="count", fill_value=0)
recordings = clips.groupby("name")["source"].nunique().rename("recordings")
Markdown(markup.table(balance.add_prefix("fold ").join(recordings)))

# %% [markdown]
# Compare the last column with the sum of the others. A class with many clips of few recordings is tested on
# few different sounds, so its accuracy is less certain than the number of clips suggests. An interval for one
# trained model therefore takes recordings, not clips, as independent; where a model was trained in several
# folds, chapter 6 computes intervals over these. Where a class has few clips in a fold, its accuracy there
# says little.

# %% [markdown]
# ## What a clip is
#
# A network uses whatever separates the classes. If the clips of one class are shorter or quieter than all
# others, it can be recognised without its sound. So we measure five things of each clip:
#
# - its *length*;
# - its *level*, the effective value (the root of the mean square of its samples), in dB relative to full
#   scale, the largest value that an uncompressed recording can hold;
# - its *quiet* time, the share of its length in which it is 60 dB or more below its own peak, the largest
#   sample;
# - the share of its samples that are *clipped*, because they are at full scale;
# - its *offset*, a constant that a recorder added, as a share of the effective value of the sound around it.
#
# The figure shows one pale dot per clip, the median of each class as a black mark, and the middle half of its
# clips as a black line. A quantity that is the same for nearly all clips is not drawn.

# %%
facts = clips[["name"]].assign(
    seconds=clips["frames"] / clips["rate"],
    level=20 * np.log10(clips["rms"]),
    quiet=100 * clips["quiet"],
    clipped=100 * clips["clipped"],
    offset=clips["offset"].abs(),
)
units = {"seconds": "length [s]", "level": "level [dB of full scale]", "quiet": "time quiet [%]"}
units |= {"clipped": "samples clipped [%]", "offset": "offset [of the sound]"}
varied = [name for name in units if facts[name].quantile(0.05) < facts[name].quantile(0.95)]
figures.distributions(facts[["name", *varied]], {name: units[name] for name in varied})

# %% [markdown]
# Look for a class whose dots lie apart from the others in one panel: it could be recognised by that number
# alone. In ESC-10, clock ticks and fires have the lowest median levels, and yet one fire is the loudest clip
# of all. About half of the roosters, and more of the sneezes, are quiet for half of the clip or longer,
# because the sound is over before the clip ends. Rain, sea waves and helicopters are rarely quiet. The images
# of chapter 2 show each clip relative to its own peak, so its level is not in them, but its silence is.
# Whether a network uses the silence, this figure does not show.
#
# The table has the same five quantities over all classes; the row 50% is the median.
#
# Lengths depend on where the clips come from. In ESC-50 every clip has five seconds, and a shorter sound is
# followed by zeros. ESC-10 exists twice: as ten classes of ESC-50, and as an older collection of compressed
# Ogg files, whose lengths differ and whose samples may exceed full scale. The lengths in the table show which
# one was read. UrbanSound8K ends a clip where the event ends, after four seconds at most.

# %%
described = facts.drop(columns="name").describe().loc[["min", "25%", "50%", "75%", "max"]]
Markdown(markup.table(described.rename(columns=units), floats=".3g"))

# %% [markdown]
# The next table names the clips at the ends of these distributions. They are the ones to listen to first if
# a later result looks strange.

# %%
Markdown(markup.table(manifest.odd(clips), index=False))

# %% [markdown]
# > **Here.** An offset of more than a tenth of the sound around it is subtracted, because an image shows a
# > clip relative to its peak, and a large offset would be that peak. Stereo is averaged. Where the two
# > channels cancel, one of them is used.
#
# Chapter 2 needs all clips in one form. It cuts every clip to one `duration`, or pads it with silence. For
# the STFT it resamples every clip to one sampling rate, `stft_rate`. The defaults of chapter 2 suit ESC-50.
# The next cell prints the values that suit the data set of this chapter. A *form* is a sampling rate together
# with a number of channels.

# %%
proposed = manifest.proposal(clips)
forms = clips.groupby(["rate", "channels"]).size().sort_values(ascending=False)
moved = int((facts["offset"] > audio.OFFSET).sum())
print(f"duration: {proposed['duration']:g}  # s, at which at most 1 % of all sound is cut")
print(f"stft_rate: {proposed['stft_rate']}  # Hz, the rate of most clips")
rate, channels = forms.index[0]
print(f"forms: {len(forms)}; {forms.iloc[0]} clips have {rate} Hz and {channels} channel(s)")
print(f"an offset is subtracted from {moved} of {len(clips)} clips")

# %% [markdown]
# ## What was left out
#
# A clip is left out if it cannot be decoded, is silent from end to end, or is shorter than `shortest`. Later
# chapters do not use it. If more than the share `unusable` has to be left out, the chapter stops.

# %%
out = listed.loc[listed["problem"] != "", ["clip", "name", "fold", "problem"]]
Markdown(markup.table(out, index=False) if len(out) else "Nothing was left out.")

# %% [markdown]
# ## Recordings that cross folds
#
# If the clips of a recording are in two folds, a network can be trained on some of them and tested on others.
# We expect each recording to be in one fold. A table names those that are not, if there are any. Official
# folds are no guarantee: those of ESC-50 and UrbanSound8K have a few such recordings.

# %%
folds = sorted(clips["fold"].unique())
crossing = splits.crossing(clips)
seen = f"{len(crossing)} of {clips['source'].nunique()} recordings are in several"
expected = chapter.expectation("each recording is in one fold", seen, crossing.empty)
Markdown(f"{expected}\n\n{markup.table(crossing, index=False) if len(crossing) else ''}")

# %% [markdown]
# A *split* divides the clips into three parts: one to train on, one to validate on, one to test. A
# [leak](README.md#glossary) is a recording whose clips are in more than one part, or a clip that is in one
# part while a *copy* of it is in another. A copy is the clip at another pitch; chapter 2 computes copies, for
# training only.
#
# We expect no leak where folds decide. For comparison, we also split clips and their copies at random, as we
# read the paper, and count the leaks.

# %%
versions = 5  # a clip and its four copies, Section VIII
every = [splits.split(clips, fold, copies=versions) for fold in folds]
by_folds = {source for split in every for source in splits.leaks(split)["which"]}
parted = splits.leaks(splits.split(clips, 1, "paper", copies=versions))["what"].value_counts()
at_random = f"{parted.get('recording', 0)} recordings and {parted.get('clip', 0)} clips"
seen = f"{len(by_folds)} recordings by folds, {at_random} in a random split"
Markdown(chapter.expectation("no recording on two sides of a split by folds", seen, not by_folds))

# %% [markdown]
# A leak can make a test easier, and this count does not show by how much. [Chapter 3](03_training.ipynb)
# measures it at one point of the grid: it trains on four splits that differ in what leaks.

# %% [markdown]
# ## Recordings that sound the same
#
# The name of a recording can be wrong, and one sound can have been uploaded twice. So we also compare clips
# of different folds by what they contain: the mean and the spread over time of their power in 16 bands of
# frequency, in dB. The table lists pairs that differ by at most half a decibel (the root of the mean square
# over all these numbers).
#
# A row of the table is a reason to listen, and no proof: steady sounds such as rain can come as close without
# being the same. An empty table is no proof either: two different cuts of one long recording can differ by
# more.

# %%
near = duplicates.near_duplicates(clips)
alike = duplicates.by_recording(near)
shown = f"{min(12, len(alike))} of {len(alike)} pairs of recordings are shown, {len(near)} pairs of clips."
table = markup.table(alike.head(12), index=False, floats=".2f")
Markdown(f"{shown}\n\n{table}" if len(alike) else "No pair comes close.")

# %%
ends = sorted({balance.to_numpy().min(), balance.to_numpy().max()})
apart = "keep all" if crossing.empty else f"do not keep {len(crossing)} of the"
answer = (
    f"There are {len(clips)} clips of {len(balance)} classes, {facts['seconds'].sum() / 60:.1f} minutes, and "
    f"their {len(folds)} folds {apart} {clips['source'].nunique()} recordings apart."
)
found = [
    f"Clips are {facts['seconds'].min():.3g} to {facts['seconds'].max():.3g} s long.",
    f"A class has {' to '.join(map(str, ends))} clips in a fold.",
    f"A random split of all clips and copies, as we read the paper, has {at_random} in several parts.",
    f"Pairs of recordings in different folds that sound nearly the same: {len(alike)}.",
    f"{len(out)} clips were left out, and an offset was subtracted from {moved}.",
    "Read on in [chapter 2](02_features.ipynb), which turns these clips into images.",
]
empty, twice = int((balance == 0).to_numpy().sum()), int(near["same_file"].sum())
checks = {
    "each recording is in one fold": (crossing.empty, f"{len(crossing)} are in several"),
    "every class is in every fold": (empty == 0, f"{empty} times a class has no clip in a fold"),
    "every clip can be used": (out.empty, f"{len(out)} were left out"),
    "no file is in two folds": (twice == 0, f"{twice} pairs of clips in different folds are the same file"),
}
Markdown(chapter.summary(answer, found, checks))
