# %% [markdown]
# # 4 · Attacks
#
# **How small a change to a spectrogram makes a trained classifier name another sound?**
#
# The paper meets every victim with six attacks (Section VI). This chapter runs them against one: the
# model that chapter 3 or 5 left at this point of the grid. You will see what an attack changes, how
# its success grows with its budget, and how to tell a robust victim from a broken attack.
#
# *Threat model.* The adversary knows the weights (PIA: only the outputs) and changes the spectrogram,
# not the waveform. Nothing here says how it would sound.
#
# Reads `clips.parquet`, the store of images, `model.safetensors` and `clean.parquet`; leaves
# `attacks.parquet`, a row a clip and attack, and `examples.safetensors`, the images of one clip.

# %%
import foolbox
import torch
from IPython.display import Markdown

from lib import attacks, data, figures, models, store, study

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
dataset = "esc50"
representation = "dwt"
model = "resnet56"
fold = "1"  # held out; 1.3 is fold 1 with seed 3
training = "standard"  # whose victim: standard (chapter 3) or a defence (chapter 5)
device = "auto"  # cpu, cuda, or whichever is there
clips = 100  # drawn from the tested clips, stratified; 0 is all of them
until = 0.9  # fooling rate beyond which nobody climbs on (Section VI)
batch = 16  # clips attacked at once
bim_steps = 100  # most steps of BIM at one budget
seed = 0

# %%
cell = study.Cell(build, dataset, representation, model, fold, training)
where = study.device(device)
victim = foolbox.PyTorchModel(models.load(cell.path("model.safetensors"), where), bounds=(0, 1), device=where)
catalogue = data.clips(cell)
images = store.open(cell.up(1).path("store"), representation)

# %%
tested = cell.load("clean.parquet").merge(catalogue.reset_index(names="position")[["clip", "position"]])
chosen = data.choose(tested, clips, seed)
copies = len(images) // len(catalogue)
x = images[chosen["position"].to_numpy() * copies]
label = torch.tensor(chosen["label"].to_numpy())
target = attacks.wrong_labels(label, catalogue["label"].nunique(), seed, chosen["clip"])

# %% [markdown]
# ## Six attacks, one budget after another

# %%
ladders = attacks.ladders(images.size, seed=seed, bim_steps=bim_steps)
pieces = attacks.Pieces(cell.path("04_attacks.pieces"), study.save, study.load)
rows, examples = attacks.climb(
    victim, x, label, target, list(chosen["clip"]), ladders,
    until=until, batch=batch, keep=pieces, progress=study.progress,
)  # fmt: skip
cell.save("attacks.parquet", rows)
pieces.clear()

# %%
Markdown(rows.groupby("attack", sort=False)["fooled"].mean().to_frame("fooling rate").to_markdown())
