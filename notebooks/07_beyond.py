# %% [markdown]
# # 7 · Beyond the paper
#
# **Does an adversarial spectrogram sound like anything, and does it fool a model that it was not made
# for?**
#
# The paper's adversary changes pictures. Nobody can play a picture, and a classifier in the world hears
# sounds. This chapter asks three questions that the paper does not answer. Do examples made against one model
# fool another? Is there a sound that looks like an adversarial image, and what does it sound like? How loud
# must a change of the sound itself be, and does random noise of the same level do the same? You can listen
# to the answers.
#
# There are three *threat models*. The first adversary does not have the model and makes examples against
# another one. The second is the paper's: it changes the image, and here it must also deliver a sound. The
# third changes the sound itself.
#
# Previous: [6 · Analysis](06_analysis.ipynb). Terms are explained in the [glossary](README.md#glossary).
#
# <small>Reads `clips.parquet`, the store and the models of one fold that lie in this build folder: those that
# chapter 6 takes from an earlier run have no weights here. Writes `sound.parquet` (one row per clip and
# model), `transfer.csv`, `waveform.csv`, `across.csv` and pictures in `figures/`.</small>

# %%
from pathlib import Path

import foolbox
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from lib import (
    attacks,
    chapter,
    figures,
    markup,
    metrics,
    models,
    names,
    player,
    ranges,
    reporting,
    samples,
    store,
    study,
)
from lib.analysis import published
from lib.data import audio, manifest, readers, splits
from lib.device import choose_device
from lib.sound.attack import attack
from lib.sound.noise import noisy
from lib.sound.resynthesis import resynthesise
from lib.sound.snr import segmental_snr, snr
from lib.sound.strength import strength
from lib.transfer import transfer

figures.use_style()

# %% tags=["parameters"]
build = "build"  # folder of the executed grid
dataset = "esc50"
heard = "resnet56"  # the model whose images go back to sounds; where it was not run, the first that was
fold = ""  # whose tested clips and models are used; empty: the first that was run
device = "auto"  # cpu, cuda, or whichever is there
clips = 20  # tested clips, stratified
bim_steps = 40  # gradient steps of the BIM that makes the examples
budget = 3.0  # l2 norm of the examples at the paper's size, Table II
round_trip_steps = 300  # most iterations of the search for a sound; it ends earlier where it converges
levels = [60.0, 50.0, 40.0, 30.0, 20.0, 10.0]  # dB, signal-to-noise ratios that the waveform attack keeps
wave_steps = 40  # of the waveform attack at each level
raised_floor = -60.0  # dB, of the control in which faint changes of silence cannot matter
played = 3  # clips that can be listened to
folder = ""  # where pictures go; empty: figures/ beside this notebook
seed = 0

# %%
ranges.check(
    globals(),
    ranges.taken("build dataset", study.Cell),
    ranges.one_of("heard", names.MODELS),
    ranges.text("fold", r"(\d+(\.\d+)?)?", "empty, or a fold such as 1, or 1.3"),
    ranges.device("device"),
    ranges.path("build folder"),
    ranges.number("budget", above=0),
    ranges.number("levels"),
    ranges.number("raised_floor", -100.0, -1.0),
    ranges.whole("clips seed played", 0),
    ranges.whole("bim_steps round_trip_steps wave_steps", 1),
)

# %%
cell = study.Cell(build, dataset)
where = choose_device(device)
pictures = Path(folder or cell.path("figures"))
enough = 10  # clips or tries, below which no expectation is judged
catalogue = manifest.usable(cell)
finished = [point for point in study.points(build, dataset) if point.path("model.safetensors").is_file()]
usable = [point for point in finished if "_" not in point.representation]  # nothing appended, such as tonnetz
fold = fold or min((point.fold for point in usable), default="")
here = [point for point in usable if point.fold == fold]
if not here:
    whose = f" of fold {fold}" if fold else ""
    raise ValueError(f"{cell}: this chapter needs a representation without tonnetz; no model{whose} uses one")
plain = names.in_order(point.representation for point in here)
trainings = names.in_order(point.training for point in here)
here.sort(key=lambda point: (plain.index(point.representation), trainings.index(point.training)))
printed = {name: names.label(name) for name in [*plain, *trainings]}
pool = names.in_order(point.model for point in here)
chosen_model = heard if heard in pool else pool[0]
spoken = [point for point in here if point.model == chosen_model]
print(f"{len(here)} models of fold {fold}; the sounds are those of {names.label(chosen_model)}")

# %% [markdown]
# All models get the same clips, and each model its own examples: BIM-a within `budget`, untargeted, so that
# *fooled* means any wrong class. The default is the paper's $\|\delta\|_2 \le 3$, scaled to the size of
# the images. On small images BIM-a fools few clips within it, and an example that does not fool its own model
# cannot be followed to another one, or to a sound. So the settings of ESC-10 allow more; BIM-a stops at its
# first success, so most examples are smaller than that. How small a change can be is the question of chapter
# 4. Here we ask what becomes of it.

# %%
number, _ = study.fold_and_seed(fold)
tested = splits.split(catalogue, number).query("part == 'test'")
chosen = splits.choose(tested, clips, seed)
label = torch.tensor(chosen["label"].to_numpy())
clip = catalogue.loc[chosen["position"], "clip"].to_list()
stores = {name: store.open(cell.path("store"), name) for name in plain}
x = {name: images[chosen["position"].to_numpy() * images.copies] for name, images in stores.items()}
victims = {str(point): models.load(point.path("model.safetensors"), where) for point in here}

# %%
examples = {}
for point in reporting.track(here, "examples"):
    images = x[point.representation].to(where)
    wrapped = foolbox.PyTorchModel(victims[str(point)], bounds=(0, 1), device=where)
    size = (stores[point.representation].settings.bins, images.shape[-1])
    epsilon = metrics.scaled_budget(budget, size)
    bim = attacks.BIM(step=epsilon / 10 / np.sqrt(np.prod(size)), steps=bim_steps, stop_at_first=True)
    criterion = foolbox.Misclassification(label.to(where))
    examples[str(point)] = bim.run(wrapped, images, criterion, epsilon=epsilon).cpu()
within = f"‖δ‖₂ ≤ {epsilon:.3g}, {budget / published.BUDGET:.3g} times the paper's budget at this image size"
print(within)

# %% [markdown]
# ## From one model to another
#
# Rows of the table: the model that an example was made against. Columns: the model that it is shown to.
# Each entry is *fooled / tried*: tried are the clips on which the example fooled its own model and which
# the other model classifies correctly. A dash on the diagonal means that no example fooled its own model
# within the budget, any other dash that no clip was left to try. Representations with tonnetz are left out,
# because below they cannot be followed to a sound.
#
# We expect that most examples fool their own model only. BIM-a stops at its first success, and such examples
# transfer less than those of an attack that continues. So a low count does not show that transfer is hard.
# One clip gives an example for each model, and an example is shown to several models, so the counts are not
# of independent tries: with fewer than ten clips they decide nothing.
#
# Read the two directions between an original model and a robust one apart: an example made against the robust
# one is larger, and so may fool the original more often than the other way round.

# %%
pairs = []
for representation in names.in_order(stores):
    mine = {
        f"{names.label(p.model)}, {names.label(p.training)}": str(p)
        for p in here
        if p.representation == representation
    }
    crowd = {name: victims[point] for name, point in mine.items()}
    made = {name: examples[point] for name, point in mine.items()}
    counted = transfer(crowd, x[representation], made, label, device=where)
    pairs.append(counted.assign(representation=representation))
    entries = (counted["fooled"].astype(str) + "/" + counted["over"].astype(str)).where(
        counted["over"] > 0, "–"
    )
    table = counted.assign(entry=entries).pivot(index="made against", columns="shown to", values="entry")
    display(
        Markdown(f"**{names.label(representation)}**\n\n" + markup.table(table.loc[list(mine), list(mine)]))
    )
shares = pd.concat(pairs, ignore_index=True)

# %%
cell.save("transfer.csv", shares)
own = shares["made against"] == shares["shown to"]
others, made = shares[~own], int(shares.loc[own, "fooled"].sum())
moved, shown_to = int(others["fooled"].sum()), int(others["over"].sum())
few = moved < shown_to / 2 if min(shown_to, len(clip)) >= enough else None
seen = f"in {moved} of {shown_to} pairs of one of {made} examples and another model, it fools that one"
print(chapter.expectation("most examples fool their own model only", seen, few))

# %% [markdown]
# ## Back to a sound
#
# An image keeps no phase, and not every image belongs to a sound. We look for a waveform $w$ whose image
# $S(w)$ is nearest to the adversarial one,
#
# $$\min_w \| S(w) - \mathbf{x}' \|_2^2 .$$
#
# The search ([L-BFGS](https://doi.org/10.1007/BF01589116)) begins at the original sound, or at the original
# sound filtered by the change that the image wants, whichever is nearer. It keeps the original's phase. It
# ends when the distance falls by less than 1 % in 20 iterations, or is given up after `round_trip_steps`.
# The distance that remains is an upper bound, also after convergence, since the search may end in a local
# minimum. It does not show that no nearer sound exists.
#
# We expect that a part of the wanted change cannot be reached by any sound, and so fewer clips fooled after
# the round trip than before. BIM-a stops just across the boundary, so losing a small part of the change can
# already restore the label: a low count does not show that no sound can fool the model.

# %%
waves = {}
for representation in plain:
    image = stores[representation].settings.image(representation).to(where)
    rows = [catalogue.loc[position] for position in chosen["position"]]
    duration = stores[representation].settings.duration
    wave = torch.tensor(np.stack([audio.waveform(row, image.rate, duration) for row in rows])).to(where)
    waves[representation] = (image, wave / wave.abs().amax(1, keepdim=True).clamp_min(1e-9))
back = {}
for point in spoken:
    image, wave = waves[point.representation]
    wanted = examples[str(point)][:, 0].to(where)
    back[point] = resynthesise(image, wave, wanted, steps=round_trip_steps, progress=reporting.track)

# %%
trips = []
for point, found in back.items():
    image, wave = waves[point.representation]
    wanted = examples[str(point)][:, 0].to(where)
    with torch.no_grad():
        looks = {"before": image(wave), "image": wanted, "sound": image(found.sound)}
        columns = {name: victims[str(point)](look[:, None]).argmax(1) for name, look in looks.items()}
    columns |= {
        "change": (wanted - looks["before"]).flatten(1).norm(dim=1),
        "distance": found.distance,
        "converged": found.converged,
        "snr": snr(wave, found.sound),
        "segmental_snr": segmental_snr(wave, found.sound, image.rate),
    }
    frame = pd.DataFrame({name: values.cpu() for name, values in columns.items()})
    trips.append(frame.assign(clip=clip, label=label, model=point.model, point=str(point)))
trip = pd.concat(trips, ignore_index=True)
trip["correct"] = trip["before"] == trip["label"]
trip["fooled"] = trip["correct"] & (trip["image"] != trip["label"])
trip["kept"] = trip["fooled"] & (trip["sound"] != trip["label"])

# %%
cell.save("sound.parquet", trip)
summary = pd.DataFrame(
    {
        names.point(point): {
            "correctly classified": mine["correct"].sum(),
            "fooled as an image": f"{mine['fooled'].sum()}/{mine['correct'].sum()}",
            "still fooled as a sound": f"{mine['kept'].sum()}/{mine['fooled'].sum()}",
            "searches that converged": f"{mine['converged'].sum()}/{len(mine)}",
            "‖image change‖₂": f"{mine['change'].median():.3f}",
            "‖part not reached by the sound‖₂": f"{mine['distance'].median():.3f}",
            "SNR [dB]": f"{mine['snr'].median():.0f}",
            "segmental SNR [dB]": f"{mine['segmental_snr'].median():.0f}",
        }
        for point, mine in trip.groupby("point", sort=False)
    }
).T
Markdown(markup.table(summary))

# %% [markdown]
# Norms and ratios are medians over the clips. The image change is the one that BIM-a made. The part not
# reached is the distance between the adversarial image and the image of the sound. At an SNR above 96 dB the
# change is below the rounding of 16-bit samples, so it would be lost in an ordinary recording. A segment's
# SNR is kept within −10 and 35 dB, and the segments in which the sound is silent are left out.

# %%
before, after = int(trip["fooled"].sum()), int(trip["kept"].sum())
given_up = int((~trip["converged"]).sum())
open_ends = int((trip["fooled"] & ~trip["kept"] & ~trip["converged"]).sum())
seen = f"{after} of {before} are still fooled; for {open_ends} of the others the search did not converge"
lost = after < before if before >= enough and open_ends <= (before - after) / 2 else None
print(chapter.expectation("fewer clips fooled after the round trip than before", seen, lost))

# %% [markdown]
# ## Attacking the sound itself
#
# The representations are differentiable, so the gradient goes on through the image to the samples. The
# adversary keeps a signal-to-noise ratio (SNR): `levels`, by default from 60 dB, a change at a thousandth of
# the sound's amplitude, to 10 dB, at a third of it. Two controls are tried at each level.
#
# - *Noise* of the same SNR. If it fools as often, the attack shows no more than that the model is fragile.
# - *Raised floor.* The images reach down to −100 dB below the clip's peak, and many recordings have digital
#   silence, so a change far below hearing can change an image much. Here the model sees everything below
#   `raised_floor` at `raised_floor`, and is attacked through that. Only clips that it still classifies
#   correctly are tried, so there are fewer of them. The model was not trained on such images, so it can also
#   be easier to fool through them: a lower count speaks for the floor, a higher one says nothing about it.
#
# We expect at most a tenth of the clips fooled at the faintest level and most at the loudest, and fewer by
# noise than by the attack. A count within one clip of a tenth or of a half decides nothing.

# %%
curves = []
for point in spoken:
    image, wave = waves[point.representation]
    counted = strength(
        victims[str(point)],
        image,
        wave,
        label.to(where),
        levels,
        steps=wave_steps,
        floor=raised_floor,
        seed=seed,
        progress=reporting.track,
    )
    curves.append(counted.assign(representation=point.representation, training=point.training))
waveform = pd.concat(curves, ignore_index=True)

# %%
cell.save("waveform.csv", waveform.drop(columns=["clips", "flags"]))
entries = waveform["fooled"].astype(str) + "/" + waveform["over"].astype(str)
table = waveform.assign(entry=entries).pivot_table(
    index=["representation", "training", "change"], columns="snr", values="entry", aggfunc="first", sort=False
)
table = table[sorted(table, reverse=True)].rename(columns="{:g} dB".format).reset_index()
Markdown(markup.table(table.replace(printed), index=False))

# %%
recording = catalogue.loc[chosen["position"], "source"].to_numpy()
measured = [metrics.over_clips(row.flags, recording[row.clips]) for row in waveform.itertuples()]
drawn = waveform.drop(columns=["clips", "flags"]).assign(
    **{name: [getattr(one, name) for one in measured] for name in ("low", "high")}
)
drawn = drawn.assign(rate=[one.value for one in measured]).query("change in ['attack', 'noise']")
curve = figures.levels(drawn)
behind = " to ".join(map(str, sorted({drawn["over"].min(), drawn["over"].max()})))
caption = (
    f"Share of correctly classified clips (n = {behind} per model) that a change of the sound fools: an "
    "attack, and noise of the same level. Bars: 95 % over recordings. Points are moved sideways to be seen."
)
figures.export(curve, drawn, "waveform_attack", pictures, caption)
display(curve)
Markdown(caption)

# %%
rates = waveform.groupby(["change", "snr"])[["fooled", "over"]].sum()
counts = {
    change: rates.loc[change].sort_index(ascending=False) for change in dict.fromkeys(waveform["change"])
}
sizes = {change: "/".join(map(str, frame.iloc[-1])) for change, frame in counts.items()}
faint, loud = counts["attack"].iloc[0], counts["attack"].iloc[-1]
over = [faint["over"] / 10 - faint["fooled"], loud["fooled"] - loud["over"] / 2]  # clips beyond each limit
over += [loud["fooled"] - counts["noise"].iloc[-1]["fooled"]]
holds = chapter.above([clips - 1 for clips in over], [clips + 1 for clips in over])
seen = "; ".join(f"{change} {size}" for change, size in sizes.items()) + f" at {min(levels):g} dB; "
seen += f"attack {faint['fooled']}/{faint['over']} at {max(levels):g} dB"
wanted = f"at most a tenth fooled at {max(levels):g} dB, most at {min(levels):g} dB, fewer by noise"
print(chapter.expectation(wanted, seen, holds if loud["over"] >= enough else None))

# %%
each = waveform.explode(["clips", "flags"]).dropna(subset="clips")
each = each.pivot(index=["snr", "representation", "training", "clips"], columns="change", values="flags")
both = each.reindex(columns=list(counts)).dropna().astype(int).groupby("snr")
both = both.sum().assign(over=both.size()).reindex(sorted(levels, reverse=True), fill_value=0)
for level, row in both.iterrows():
    print(
        f"{level:g} dB, {row['over']} clips that are correctly classified with and without the raised floor: "
        f"the attack fools {row['attack']} without it and {row['attack, raised floor']} with it"
    )

# %% [markdown]
# ## Listening
#
# For a few clips: the original; the sound after the round trip; the difference alone, amplified by the factor
# that is printed, since it can be faint; the sound attacked at the middle level; and noise of that SNR. Above
# each is the class that the model hears in it. They are played as MP3, whose own coding noise is louder than
# the faintest changes: the numbers above, and these classes, are of the uncompressed sounds. Only sounds
# whose licence allows redistribution are played.

# %%
loudness = sorted(levels)[len(levels) // 2]
origin = readers.known(dataset)
free = origin is not None and (dataset == "demo" or origin.licence.startswith("CC BY "))
best = trip.sort_values(["kept", "fooled", "correct"], ascending=False, kind="stable").drop_duplicates("clip")
about = catalogue.set_index("clip")
classes = catalogue.drop_duplicates("label").set_index("label")["name"]

# %%
at = {str(point): point for point in spoken}
heard_sounds = []
for row in best.head(played if free else 0).itertuples():
    point = at[row.point]
    image, wave = waves[point.representation]
    spot = [clip.index(row.clip)]
    change = back[point].sound[spot] - wave[spot]
    gain = float(0.3 * wave[spot].norm() / change.norm().clamp_min(1e-9))
    sounds = {
        "original": wave[spot],
        "after the round trip": back[point].sound[spot],
        f"their difference, amplified {gain:.3g} times": gain * change,
        f"attacked at {loudness:g} dB": attack(
            victims[str(point)], image, wave[spot], label[spot].to(where), level=loudness, steps=wave_steps
        ),
        f"noise at {loudness:g} dB": noisy(wave[spot], loudness, seed),
    }
    heard_sounds.append((row, sounds))

# %%
for row, sounds in heard_sounds:
    (image, _), victim = waves[at[row.point].representation], victims[row.point]
    outcome = "" if row.fooled else " (the image was not fooled)"
    display(
        Markdown(
            f"**{markup.text(row.clip)}**, {markup.text(about.loc[row.clip, 'name'])}; "
            f"{names.point(row.point)}; adversarial image: classified as "
            f"{markup.text(classes[row.image])}{outcome}"
        )
    )
    for what, sound in sounds.items():
        with torch.no_grad():
            named = classes[int(victim(image(sound)[:, None]).argmax(1))]
        said = what if what.startswith("their") else f"{what}: classified as {named}"
        display(player.player(sound[0].cpu().numpy(), image.rate, said, full_scale=1.0))

# %%
credit = f"*{origin.title}*, {origin.licence}. {origin.citation}." if free else ""
sources = ", ".join(
    f"{markup.text(name)} (recording {markup.text(about.loc[name, 'source'])})"
    for name in best["clip"].head(played)
)
Markdown(
    f"The sounds: {sources}. {credit} Changed as said above each." if free else "No sound is played here."
)

# %% [markdown]
# ## From one representation to another
#
# The sounds found above have an image in the other representation too. Is a model that uses STFT fooled by
# a sound whose scalogram was made adversarial? Entries are again *fooled / tried*, for models of standard
# training where there are any. The diagonal is the round trip itself.
# Noise of the same SNR is not tried here, so a sound that fools the other model may do so by its distortion
# alone, and not because the example was transferred.

# %%
across = []
for source in dict.fromkeys(point.representation for point in spoken):
    point = next(point for point in spoken if point.representation == source)
    image, fooled = waves[source][0], trip.loc[trip["point"] == str(point), "fooled"].to_numpy()
    for other in [name for name in plain if str(point.at(representation=name)) in victims]:
        view, judge = waves[other][0], victims[str(point.at(representation=other))]
        moved_to = [
            samples.resample(one.cpu().numpy(), image.rate, view.rate, view.samples)
            for one in back[point].sound
        ]
        with torch.no_grad():
            seen_as = judge(view(torch.tensor(np.stack(moved_to)).to(where))[:, None]).argmax(1).cpu()
            correct = (judge(x[other].to(where)).argmax(1).cpu() == label).numpy() & fooled
        across.append((source, other, int(((seen_as != label).numpy() & correct).sum()), int(correct.sum())))
across = pd.DataFrame(across, columns=["made in", "shown in", "fooled", "over"])
cell.save("across.csv", across)
Markdown(markup.table(across.replace(printed), index=False))

# %%
diagonal = across["made in"] == across["shown in"]
itself, elsewhere = (across.loc[which, ["fooled", "over"]].sum() for which in (diagonal, ~diagonal))
print(f"seen: {elsewhere['fooled']} of {elsewhere['over']} sounds fool a model of another representation")
if not itself["fooled"]:
    print(
        f"None of them fools its own model (0 of {itself['over']}), so this run cannot answer the question."
    )

# %%
middle = counts["attack"].loc[loudness]
answer = (
    f"As an image, {before} examples fool their own model ({within}); as the nearest sound that was found, "
    f"{after} of them do. Changing the sound itself at {loudness:g} dB SNR fools {middle['fooled']} of "
    f"{middle['over']} pairs of a clip and a model, and noise of that level "
    f"{counts['noise'].loc[loudness]['fooled']}. Shown to another model, an example fools it in {moved} of "
    f"{shown_to} pairs. All counts are of {len(clip)} clips."
)
found = [
    f"{point}: {row['fooled as an image']} fooled as an image, {row['still fooled as a sound']} of these "
    f"as a sound; {row['searches that converged']} searches converged, "
    f"‖part not reached by the sound‖₂ = {row['‖part not reached by the sound‖₂']} of "
    f"‖image change‖₂ = {row['‖image change‖₂']}"
    for point, row in summary.iterrows()
]
found += [
    f"at {level:g} dB SNR the attack fools {counts['attack'].loc[level, 'fooled']} of "
    f"{counts['attack'].loc[level, 'over']}, noise {counts['noise'].loc[level, 'fooled']}; of the "
    f"{both.loc[level, 'over']} pairs that are also correct in images that end at {raised_floor:g} dB, the "
    f"attack fools {both.loc[level, 'attack']}, and {both.loc[level, 'attack, raised floor']} through these "
    "images"
    for level in dict.fromkeys([max(levels), loudness])
]

# %%
rise = waveform.query("change == 'attack'").sort_values("snr", ascending=False)
rise = rise.assign(rate=rise["fooled"] / rise["over"].clip(lower=1)).groupby(["representation", "training"])[
    "rate"
]
fewer = int((rise.diff().fillna(0) < -0.1).sum())
clips_behind = min(others["over"].min(), waveform["over"].min(), across["over"].min(), before)
checks = {
    "a louder change never fools clearly fewer": (fewer == 0, f"it does {fewer} times"),
    "every search for a sound converges": (given_up == 0, f"{given_up} of {len(trip)} do not"),
    f"at least {enough} clips are behind each number of the tables": (
        bool(clips_behind >= enough),
        "some have fewer",
    ),
}
Markdown(chapter.summary(answer, found, checks))
