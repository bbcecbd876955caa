# %% [markdown]
# # 1 · Data
#
# **Which sounds are there, and do the folds keep recordings apart?**
#
# A test is too easy if the network was trained on other clips of the same recording. The paper draws
# training and tested clips at random (Section V), and makes its claims for two public data sets
# (Section VIII). This chapter reads the table of one data set and decodes every clip once. You will hear
# clips of up to ten classes. You will see how many clips a class has, which clips are odd, which recordings
# are in more than one [fold](README.md#glossary), and which clips were left out and why.
#
# Next: [2 · Representations](02_features.ipynb). A data set that is not in `data_folder` is fetched there
# first: ESC-50, of which ESC-10 is a part, from its repository, and UrbanSound8K from Zenodo.
#
# <small>Reads the data set's table and audio; writes `clips.parquet`, the manifest with one row per clip, and
# `files.csv`, by which `make` notices that a recording was replaced.</small>

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
# We play one clip of each class, or of ten classes where there are more: the clip of median level among those
# that sound for at least three quarters of their length. Recordings are played with their attribution where
# their licence allows it; your own are not copied into this notebook.

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
# > recording in one of them. Clips of one recording sound alike: on two sides of a split they make a test
# > too easy.
#
# The table counts the clips of each class in each fold, and the recordings from which they were cut. Where a
# class has few clips in a fold, its accuracy there says little.

# %%
balance = clips.pivot_table(index="name", columns="fold", values="clip", aggfunc="count", fill_value=0)
recordings = clips.groupby("name")["source"].nunique().rename("recordings")
Markdown(markup.table(balance.add_prefix("fold ").join(recordings)))

# %% [markdown]
# ## What a clip is
#
# Every clip of ESC-50 has five seconds, padded with zeros. The older ESC-10 is lossy Ogg of several lengths,
# and may decode to values above full scale. UrbanSound8K ends a clip where the event ends, after four seconds
# at most.
#
# These facts matter because a network uses whatever separates the classes. If one class has shorter or
# quieter clips, it can be recognised without its sound. A clip is *quiet* while it is 60 dB or more below
# its peak, and *clipped* where samples are at full scale. The *offset* is a constant that a recorder added,
# here as a share of the sound around it.

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

# %%
described = facts.drop(columns="name").describe().loc[["min", "25%", "50%", "75%", "max"]]
Markdown(markup.table(described.rename(columns=units), floats=".3g"))

# %% [markdown]
# The clips at the ends of these distributions, by name:

# %%
Markdown(markup.table(manifest.odd(clips), index=False))

# %% [markdown]
# > **Here.** An offset of more than a tenth of the sound is subtracted first: an image shows a clip relative
# > to its peak, and the peak would be that of the offset. Stereo is averaged; where the two channels cancel,
# > one of them is used.
#
# Chapter 2 cuts every clip to one `duration`, or pads it with silence, and resamples it. Its defaults suit
# ESC-50. These values suit the data set of this chapter:

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
# The table has the clips that cannot be decoded, are silent from end to end, or are too short. Later chapters
# do not use them.

# %%
out = listed.loc[listed["problem"] != "", ["clip", "name", "fold", "problem"]]
Markdown(markup.table(out, index=False) if len(out) else "Nothing was left out.")

# %% [markdown]
# ## Recordings that cross folds
#
# We expect each recording to be in one fold. The table has those that are not.

# %%
folds = sorted(clips["fold"].unique())
crossing = splits.crossing(clips)
seen = f"{len(crossing)} of {clips['source'].nunique()} recordings are in several"
expected = chapter.expectation("each recording is in one fold", seen, crossing.empty)
Markdown(f"{expected}\n\n{markup.table(crossing, index=False) if len(crossing) else ''}")

# %% [markdown]
# A [leak](README.md#glossary) is a recording, or a clip and its copy at another pitch, on two sides of a
# split. We expect none where folds decide. For comparison, we count those of the paper's random split.

# %%
by_folds = {source for fold in folds for source in splits.leaks(splits.split(clips, fold, copies=2))["which"]}
parted = splits.leaks(splits.split(clips, 1, "paper", copies=2))["what"].value_counts()
at_random = f"{parted.get('recording', 0)} recordings and {parted.get('clip', 0)} clips"
seen = f"{len(by_folds)} recordings by folds, {at_random} in a random split"
Markdown(chapter.expectation("no recording on two sides of a split by folds", seen, not by_folds))

# %% [markdown]
# ## Recordings that sound the same
#
# The name of a recording can be wrong, and one sound can have been uploaded twice. So we also compare clips
# of different folds by what they contain: the mean and the spread of their power in 16 bands, in dB. Copies
# of one sound differ by a fraction of a decibel, whatever their level, cut and coding. Steady sounds such as
# rain can come as close without being copies. A row of the table is a reason to listen, and no proof.

# %%
near = duplicates.near_duplicates(clips)
alike = duplicates.by_recording(near)
print(f"{min(12, len(alike))} of {len(alike)} pairs of recordings are shown, {len(near)} pairs of clips")
Markdown(markup.table(alike.head(12), index=False, floats=".2f") if len(alike) else "No pair comes close.")

# %%
ends = sorted({balance.to_numpy().min(), balance.to_numpy().max()})
apart = "keep all" if crossing.empty else f"do not keep {len(crossing)} of the"
answer = (
    f"There are {len(clips)} clips of {len(balance)} classes, {facts['seconds'].sum() / 60:.1f} minutes, and "
    f"their {len(folds)} folds {apart} {clips['source'].nunique()} recordings apart."
)
found = [
    f"A class has {' to '.join(map(str, ends))} clips in a fold.",
    f"The paper's random split has {at_random} on two sides.",
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
