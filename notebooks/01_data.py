# %% [markdown]
# # 1 · Data
#
# **Which sounds were heard, and which of them may meet which?**
#
# The study's claims stand on which clips were heard and which folds they were in (Section VIII). This chapter
# reads a data set's own table, listens to every clip once, and writes down what it found. You will see how
# many clips a class has, where their recordings went, and what was left out and why.
#
# Reads the data set's CSV and audio; leaves `clips.parquet`, the manifest: a row a clip, and all that later
# chapters know of the data set.

# %%
import pandas as pd
from IPython.display import Audio, Markdown, display

from lib import data, download, figures, study

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
cell = study.Cell(build, dataset)
if dataset in download.SOURCES and not data.present(dataset, data_folder):
    download.fetch(download.SOURCES[dataset], data_folder, mirror=mirror)
manifest = data.manifest(dataset, data_folder, shortest=shortest, unusable=unusable, workers=workers)
cell.save("clips.parquet", manifest)
clips = data.clips(cell)
print(f"{dataset}: {len(manifest)} clips, {len(manifest) - len(clips)} left out")

# %% [markdown]
# ## Classes and folds
#
# > **Paper.** 70 % of the clips, drawn at random, are for training and development, the rest is tested.
#
# > **Here.** The data set's own folds decide. Clips cut from one recording sound alike; in one fold, they
# > cannot help a network to name each other.

# %%
balance = clips.pivot_table(index="name", columns="fold", values="clip", aggfunc="count", fill_value=0)
Markdown(balance.to_markdown())

# %% [markdown]
# ## What a clip is
#
# Seconds, level and the share of samples at full scale, where a recording was clipped.

# %%
facts = pd.DataFrame(
    {
        "seconds": clips["frames"] / clips["rate"],
        "rate": clips["rate"],
        "channels": clips["channels"],
        "peak": clips["peak"],
        "rms": clips["rms"],
    }
)
Markdown(facts.describe().loc[["min", "50%", "max"]].to_markdown(floatfmt=".3g"))

# %% [markdown]
# ## What was left out
#
# A clip that cannot be decoded or says nothing is named here, never dropped in silence.

# %%
out = manifest.loc[manifest["problem"] != "", ["clip", "problem"]]
Markdown(out.to_markdown(index=False) if len(out) else "Nothing was left out.")

# %% [markdown]
# ## Listening
#
# Toy sounds can be played here; recordings of others are not copied into a notebook.

# %%
for clip in clips[clips["path"] == ""].groupby("name").head(1).itertuples():
    print(clip.name)
    display(Audio(data.waveform({"clip": clip.clip, "path": ""}, 16000, 2.5), rate=16000))

# %% [markdown]
# ## No recording on two sides
#
# In each fold's split, a recording or a clip on two sides would be a leak.

# %%
folds = sorted(clips["fold"].unique())
leaks = {fold: len(data.leaks(data.split(clips, fold, copies=2))) for fold in folds}
random_leaks = len(data.leaks(data.split(clips, 1, "paper", copies=2)))

# %%
said = [
    f"{len(clips)} clips of {clips['source'].nunique()} recordings in {clips['label'].nunique()} classes "
    f"and {len(folds)} folds, {facts['seconds'].sum() / 3600:.1f} hours",
    f"a class has {balance.to_numpy().min()} to {balance.to_numpy().max()} clips in a fold",
    f"the official splits part {sum(leaks.values())} recordings or clips, the paper's {random_leaks}",
]
checks = {
    "no recording crosses a fold": not any(leaks.values()),
    "every class is in every fold": balance.to_numpy().min() > 0,
    "every clip could be used": len(out) == 0,
}
said += [f"**in doubt:** not true that {claim}" for claim, holds in checks.items() if not holds]
Markdown("## Summary\n\n- " + "\n- ".join(said))
