# %% [markdown]
# # 1 · Data
#
# **Which sounds were heard, and which of them may meet which?**
#
# Reads the data set under `data_folder`; leaves `clips.parquet`, a row a clip.

# %%
from IPython.display import Markdown

from lib import data, study

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
data_folder = "data"  # where data sets lie; one that is absent is fetched into it
shortest = 0.02  # s; a clip below it is left out
unusable = 0.01  # share of clips that may be left out; above it the chapter stops
workers = 0  # threads; 0 is one a core

# %%
cell = study.Cell(build, dataset)
clips = data.manifest(dataset, data_folder, shortest=shortest, unusable=unusable, workers=workers)
cell.save("clips.parquet", clips)
clips.groupby(["name", "fold"]).size().unstack()

# %%
Markdown(f"{len(clips)} clips, {(clips['problem'] != '').sum()} left out")
