# %% [markdown]
# # 1 · Data
#
# **Which sounds are there, and do the folds keep recordings apart?**
#
# Reads the data set's own table and audio; leaves `clips.parquet`, the manifest.

# %%
from IPython.display import Markdown

from lib import data, figures, study

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
data_folder = "data"  # where data sets lie

# %%
cell = study.Cell(build, dataset)
cell.save("clips.parquet", data.manifest(dataset, data_folder))
clips = data.clips(cell)
Markdown(f"## Summary\n\n- {len(clips)} clips")
