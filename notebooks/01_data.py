# %% [markdown]
# # 1 · Data
#
# **Which sounds were heard, and which of them may meet which?**
#
# The study's claims stand on which clips were heard and which folds they were in (Section VIII). This chapter
# reads a data set's own table, listens to every clip once, and writes down what it found. You will see how
# many clips a class has, how long and how loud they are, where their recordings went, which clips sound like
# another one across a fold, and what was left out and why.
#
# A data set that is not in `data_folder` is fetched there first: ESC-50 (which holds ESC-10) from its
# repository, UrbanSound8K from Zenodo, each known by its hash.
#
# Reads the data set's table and audio; leaves `clips.parquet`, the manifest: a row a clip, and all that later
# chapters know of the data set.

# %%
import numpy as np
from IPython.display import Audio, Markdown, display

from lib import figures, markup, ranges, study
from lib.data import audio, download, duplicates, listening, manifest, readers, splits

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
data_folder = "data"  # where data sets lie, and where they are put if they are not there
mirror = ""  # an address under which the archive lies too; empty: the original one
shortest = 0.02  # s; a clip below it is left out
unusable = 0.01  # share of clips that may be left out; above it the chapter stops
workers = 0  # threads; 0 is one a core

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
# ## Classes and folds
#
# > **Paper.** 70 % of the clips, drawn at random, are for training and development, the rest is tested.
#
# > **Here.** The data set's own folds decide; where it has none, folds are made that split no recording.
# > Clips cut from one recording sound alike; in one fold, they cannot help a network to name each other.
#
# Clips of each class in each fold, and how many recordings they were cut from. A class that is rare in a fold
# is hardly tested there. Below, the recordings of each fold, and the most clips that one of them gave.

# %%
balance = clips.pivot_table(index="name", columns="fold", values="clip", aggfunc="count", fill_value=0)
recordings = clips.groupby("name")["source"].nunique().rename("recordings")
Markdown(markup.table(balance.add_prefix("fold ").join(recordings)))

# %%
shared = clips.groupby(["fold", "source"]).size().groupby("fold").agg(["size", "max"])
shared.columns = ["recordings", "most clips of one"]
Markdown(markup.table(shared.T.add_prefix("fold ")))

# %% [markdown]
# ## What a clip is
#
# Before you look: ESC-50 as published has five seconds a clip, padded with zeros; the older ESC-10 is lossy
# OGG of other lengths, and may decode to above full scale; UrbanSound8K ends a clip where the event ends,
# at most after four. Chapter 2 cuts or pads. What is drawn is what lies here. Classes that differ in
# length, level or silence can be told apart without listening, so these are worth knowing. A clip is
# *quiet* while it stays 60 dB below its peak, and *clipped* where samples stand at full scale.

# %%
facts = clips[["name"]].assign(
    seconds=clips["frames"] / clips["rate"],
    level=20 * np.log10(clips["rms"]),
    peak=20 * np.log10(clips["peak"]),
    quiet=100 * clips["quiet"],
    clipped=100 * clips["clipped"],
)
units = {"seconds": "length [s]", "level": "level [dB of full scale]"}
units |= {"quiet": "time quiet [%]", "clipped": "samples clipped [%]"}
figures.distributions(facts, units)

# %%
described = facts.drop(columns="name").describe().loc[["min", "25%", "50%", "75%", "max"]]
Markdown(markup.table(described.rename(columns=units | {"peak": "peak [dB of full scale]"}), floats=".3g"))

# %%
forms = clips.groupby(["rate", "channels"]).size().rename("clips").reset_index()
forms = forms.rename(columns={"rate": "rate [Hz]"})
Markdown(markup.table(forms, index=False))

# %% [markdown]
# ## What was left out
#
# A clip that cannot be decoded, is silent from end to end, or is too short to say anything is named here,
# never dropped unseen. Later chapters do not know it.

# %%
out = listed.loc[listed["problem"] != "", ["clip", "name", "fold", "problem"]]
Markdown(markup.table(out, index=False) if len(out) else "Nothing was left out.")

# %% [markdown]
# ## No recording on two sides
#
# In each fold's split, a recording or a clip (itself and a copy of it at another pitch) on two sides would be
# a leak. The paper's random split is put through the same test.

# %%
folds = sorted(clips["fold"].unique())
leaks = {fold: len(splits.leaks(splits.split(clips, fold, copies=2))) for fold in folds}
parted = splits.leaks(splits.split(clips, 1, "paper", copies=2))["what"].value_counts()
at_random = f"{parted.get('recording', 0)} recordings and {parted.get('clip', 0)} clips"
print(f"on two sides: {sum(leaks.values())} recordings or clips by folds, {at_random} in a random split")

# %% [markdown]
# A source's name can be wrong, and one sound can have been uploaded twice. So clips of different folds are
# also compared by a cheap fingerprint: mean and spread of the power in 16 bands, in dB. Copies of one sound
# lie within a fraction of a decibel whatever their level, cut and coding; steady sounds, rain or a fan, can
# come close without being copies, so a pair is a reason to listen, not a verdict.

# %%
near = duplicates.near_duplicates(clips)
Markdown(markup.table(near.head(12), index=False, floats=".2f") if len(near) else "No pair comes close.")

# %% [markdown]
# ## Listening
#
# Toy sounds can be played here; recordings of others are not copied into a notebook.

# %%
for clip in clips[clips["path"] == ""].groupby("name").head(1).itertuples():
    print(clip.name)
    display(Audio(audio.waveform({"clip": clip.clip, "path": ""}, 16000, 2.5), rate=16000))

# %%
ends = sorted({balance.to_numpy().min(), balance.to_numpy().max()})
said = [
    f"{len(clips)} clips of {clips['source'].nunique()} recordings in {clips['label'].nunique()} classes "
    f"and {len(folds)} folds, {facts['seconds'].sum() / 60:.1f} minutes",
    f"a class has {' to '.join(map(str, ends))} clips in a fold",
    f"{sum(leaks.values())} recordings or clips stand on two sides of a split by folds, {at_random} of the "
    "paper's random split",
    f"{len(near)} pairs of clips in different folds sound nearly the same",
]
checks = {
    "no recording crosses a fold": not any(leaks.values()),
    "every class is in every fold": balance.to_numpy().min() > 0,
    "every clip could be used": len(out) == 0,
    "no file lies in two folds": not near["same_file"].any(),
}
said += [f"**in doubt:** not true that {claim}" for claim, holds in checks.items() if not holds]
Markdown("## Summary\n\n- " + "\n- ".join(said))
