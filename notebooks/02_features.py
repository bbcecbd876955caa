# %% [markdown]
# # 2 · Representations
#
# **What does a network see of a sound, if it is shown a picture of it?**
#
# The paper shows its networks four pictures of each sound (Sections III and IV): the short-time Fourier
# transform (STFT), what it calls DWT, and each of them with the tonnetz appended. An attack changes these
# pictures and not the sound: what a picture does not show cannot be attacked. This chapter computes one of
# them for every clip and its pitch-shifted copies. You will see what each picture shows of a tone, of clicks,
# of a chirp and of a real clip, what is lost when pictures are small, and how the copies differ.
#
# Previous: [1 · Data](01_data.ipynb). Next: [3 · Training](03_training.ipynb). Terms are explained in the
# [glossary](README.md#glossary).
#
# <small>Reads `clips.parquet`; writes the images to `store/`, one byte per value.</small>

# %%
import dataclasses

import librosa
import numpy as np
import pandas as pd
import pywt
import scipy.signal
import torch
from IPython.display import Markdown

from lib import chapter, features, figures, markup, names, ranges, reporting, samples, store, study
from lib.data import audio, manifest
from lib.features.losses import losses
from lib.features.scalogram import Scalogram
from lib.features.stft import STFT

figures.use_style()

# %% tags=["parameters"]
build = "build"  # folder of the executed grid
dataset = "esc50"
representation = "stft"
bins = 768  # rows of a spectrogram's image, Section VIII
frames = 1568  # columns
duration = 5.0  # s of every clip
stft_rate = 44100  # Hz
n_fft = 2048  # samples of the window, Section IV
hop = 512  # samples between frames, Section IV
dwt_rate = 16000  # Hz, Section IV
fmin = 60.0  # Hz, the scalogram's lowest frequency; its highest is 0.475 of the rate
bandwidth = 2.0  # B of the complex Morlet, Eq. 12
centre = 0.9549  # C of the complex Morlet, 6 / 2π, Eq. 12
columns = "auto"  # of the scalogram: sampled, averaged, or auto, averaged below the paper's 1568
floor = -100.0  # dB below the clip's peak that is black
factors = [0.75, 0.9, 1.15, 1.5]  # of the pitch-shifted copies, Section VIII
how = "pitch"  # or speed, which changes tempo too
keep = "images"  # or waveforms, 16 bits per sample, whose images are computed batch by batch on the device
together = ""  # other representations of this run, computed with it so that each clip is decoded once
workers = 0  # processes; 0 is as many as the cell has threads

# %%
of_images = "bins frames duration floor columns factors how keep"
of_transforms = "stft_rate n_fft hop dwt_rate fmin bandwidth centre"
ranges.check(
    globals(),
    ranges.taken("build dataset representation", study.Cell),
    ranges.path("build"),
    ranges.taken(f"{of_images} {of_transforms}", store.Settings),
    ranges.one_of("representation", names.REPRESENTATIONS),
    ranges.some_of("together", names.REPRESENTATIONS),
    ranges.whole("workers", 0),
)

# %%
cell = study.Cell(build, dataset, representation)
clips = manifest.usable(cell)
size = {"bins": bins, "frames": frames, "duration": duration, "floor": floor, "columns": columns}
windows = {"stft_rate": stft_rate, "n_fft": n_fft, "hop": hop}
wavelets = {"dwt_rate": dwt_rate, "fmin": fmin, "bandwidth": bandwidth, "centre": centre}
settings = store.Settings(**size, **windows, **wavelets, factors=factors, how=how, keep=keep)
shared = {"together": together.split(), "workers": workers, "progress": reporting.track}
ways = {"waveform": audio.waveform, "augment": audio.augment}
folder = cell.up(1).path("store")
store.write(folder, clips, representation, settings, **ways, **shared)
images = store.open(folder, representation)
print(f"{cell}: {len(clips)} clips × {images.copies}, {images.size[0]} × {images.size[1]}")

# %% [markdown]
# ## What is cut
#
# All images of a data set have one size, so every clip is cut to `duration`, or padded with silence.
# [Chapter 1](01_data.ipynb) proposes a value; here is how much sound the chosen one cuts.

# %%
lost = manifest.cut(clips, duration)
print(
    f"{lost['clips']:.0f} of {len(clips)} clips are longer than {duration:g} s, the longest "
    f"{lost['longest']:.1f} s; {lost['share']:.1%} of all sound is cut"
)

# %% [markdown]
# ## Equal steps of frequency: the STFT
#
# A window $H$ slides along the sound $a$, and at each step $m$ we compute the spectrum of what it covers
# (Eqs. 9 and 10):
#
# $$\text{STFT}\{a[n]\}(m, \omega) = \sum_n a[n] H[n - m] e^{-j \omega n}, \qquad
#   SP_{STFT} = |\text{STFT}\{a[n]\}(m, \omega)|^2$$
#
# > **Paper.** Window 2048, hop 512, frames overlapped by 50 %.
#
# > **Here.** Hop 512 of 2048 overlaps by 75 %; we keep the numbers. The image shows
# > $20 \log_{10}$ of the magnitude relative to the clip's peak, from `floor` to 0 dB, scaled to $[0, 1]$.
#
# The clip shown in this chapter is the one of median level among those that sound for at least three
# quarters of their length.

# %%
clip = manifest.typical(clips)
title = clip["name"].replace("_", " ")
sound = audio.waveform(clip, stft_rate, duration)
magnitude = STFT(stft_rate, n_fft=n_fft, hop=hop)(torch.from_numpy(sound))
reference = np.abs(librosa.stft(sound, n_fft=n_fft, hop_length=hop))
difference = float(np.abs(magnitude.numpy() - reference).max() / reference.max())
print(
    f"shown: {clip['clip']}, {title}; our STFT and librosa's differ by at most {difference:.1e} of the peak"
)

# %% [markdown]
# ## Equal ratios of frequency: the scalogram
#
# The paper's transform stretches one wavelet $\psi$ by a scale $s$ (Eqs. 11 and 12),
#
# $$\frac{1}{\sqrt{|s|}} \int a(t)\, \psi\Big(\frac{t - \tau}{s}\Big) dt, \qquad
#   \psi(t) = \frac{1}{\sqrt{2\pi}} e^{-j \omega t} e^{-t^2 / 2},$$
#
# and the image shows its magnitude (Eq. 13). A small scale makes a short wavelet, which shows when a high
# sound begins. A large scale makes a long one, which separates two neighbouring low sounds.
#
# > **Paper.** This is called a discrete wavelet transform (DWT), computed on overlapping chunks.
#
# > **Here.** Continuous scales and a complex Morlet make it a *continuous* wavelet transform. We keep the
# > label DWT in tables and say [scalogram](README.md#glossary) in prose. The whole clip is transformed at
# > once, and only the columns that are kept are computed; they are exact samples of the transform.
#
# We compare ours with that of [PyWavelets](https://pywavelets.readthedocs.io), which calls this wavelet
# `cmorB-C`. Its `cwt` computes every sample of every scale, from a table of $2^{precision}$ values of the
# wavelet. We expect its result to approach ours as the table grows. A difference remains where the wavelet
# is only a few samples long, because PyWavelets holds each sample of the sound for its duration.

# %%
resampled = audio.waveform(clip, dwt_rate, duration)
begin = min(np.abs(resampled).argmax(), resampled.size - dwt_rate // 2)
short = resampled[begin : begin + dwt_rate // 2]  # half a second from the loudest moment
band = {"bins": 8, "fmin": 2 * fmin, "fmax": dwt_rate / 16}
few = Scalogram(dwt_rate, frames=len(short), **band, bandwidth=bandwidth, centre=centre)
ours = few(torch.from_numpy(short)).numpy()
plain = {
    precision: np.abs(pywt.cwt(short, few.scales, f"cmor{bandwidth}-{centre}", precision=precision)[0])
    for precision in (10, 14, 18)
}
apart = pd.Series({precision: np.abs(each - ours).max() / ours.max() for precision, each in plain.items()})
apart.rename_axis("precision of pywt.cwt").to_frame("largest difference / peak")

# %%
seen = f"{apart.iloc[0]:.1e} of the peak, then {apart.iloc[-1]:.1e}"
closer = bool(apart.iloc[-1] < apart.iloc[0])
Markdown(chapter.expectation("a finer table brings PyWavelets closer", seen, closer))

# %% [markdown]
# ## What each picture shows that the others do not
#
# We compare four sounds: a steady tone, clicks, a chirp that rises by equal ratios, and the clip. Of the
# first three we can predict the pictures. A tone is thin in the STFT and wide in the scalogram. A chirp is
# bent in the STFT and straight in the scalogram. A click is as wide as the window in the STFT; in the
# scalogram it is a needle that widens downwards. In the tonnetz a tone is six flat bands, and clicks have no
# harmony.

# %%
t = np.arange(round(duration * stft_rate)) / stft_rate
sounds = {
    "tone": np.sin(2 * np.pi * 880.0 * t),
    "clicks": (np.arange(t.size) % (stft_rate // 2) == stft_rate // 4).astype(float),
    "chirp": scipy.signal.chirp(t, 4 * fmin, duration, 0.4 * dwt_rate, method="logarithmic"),
    title: sound,
}
pictures, axis = {part: {} for part in ("stft", "dwt", "tonnetz")}, {}
for part, picture in pictures.items():
    image = settings.image(part)
    axis[part] = image.frequencies
    for name, heard in sounds.items():
        at = samples.resample(heard, stft_rate, image.rate, image.samples)
        picture[name] = image(torch.from_numpy(at)[None])[0]

# %%
of_stft = {f"{name}, STFT": each for name, each in pictures["stft"].items()}
figures.spectrograms(of_stft, frequencies=axis["stft"], times=images.times)

# %%
of_dwt = {f"{name}, DWT": each for name, each in pictures["dwt"].items()}
figures.spectrograms(of_dwt, frequencies=axis["dwt"], times=images.times)

# %% [markdown]
# ## What a small picture loses
#
# The paper's images have 1568 columns in five seconds; two CPU cores can only train on smaller ones. We
# compute the STFT at its own size and resize it in dB, where each new value is a mean of its neighbours. So a
# tone that is one row wide among silent rows becomes darker. The scalogram can be *sampled* at the middle of
# each column, as the paper's is. But then a click between two columns is missed, if the shortest wavelet is
# shorter than a column. Alternatively, each column is the *average* of the magnitude over its span.

# %%
length = 2e3 * centre / axis["dwt"][-1] * (bandwidth * np.log(2)) ** 0.5
print(f"columns are {1e3 * duration / frames:.1f} ms apart, the shortest wavelet is {length:.2f} ms long")
each_way = {each: dataclasses.replace(settings, columns=each).image("dwt") for each in store.COLUMNS[1:]}
click = samples.resample(sounds["clicks"], stft_rate, dwt_rate, each_way["sampled"].samples)
of_click = {f"clicks, {each}": image(torch.from_numpy(click)[None])[0] for each, image in each_way.items()}
figures.spectrograms(of_click, frequencies=axis["dwt"], times=images.times)

# %% [markdown]
# The table measures this on the same kinds of sound. *Tone*: its brightest pixel, 0 dB where nothing is lost.
# *Clicks*: how far the faintest of twelve equal clicks is below the brightest, 0 dB where all are seen.
# *Noise*: the spread of the pixels of white noise; it falls as a pixel averages more of the sound. We expect
# that the averaged scalogram shows all clicks within 3 dB.

# %%
paper = dataclasses.replace(settings, bins=768, frames=1568)
sizes = {f"{each.bins} × {each.frames}": each for each in (settings, paper)}
compared = {}
for name, each in sizes.items():
    compared[f"STFT, {name}"] = each.image("stft")
    for kind in store.COLUMNS[1:]:
        compared[f"DWT {kind}, {name}"] = dataclasses.replace(each, columns=kind).image("dwt")
table = losses(compared, floor)
Markdown(markup.table(table, floats=".1f"))

# %%
here = next(iter(sizes))
faint = {kind: -table.loc[f"DWT {kind}, {here}", "clicks [dB]"] for kind in store.COLUMNS[1:]}
dimmed = -table.loc[f"STFT, {here}", "tone [dB]"]
seen = f"{faint['averaged']:.1f} dB against {faint['sampled']:.1f} dB when sampled"
Markdown(
    chapter.expectation("averaging shows all clicks within 3 dB", seen, bool(faint["averaged"] < 3))
    + f"\n\nA tone is {dimmed:.1f} dB too dark in the STFT of this size: an attack on the STFT has less of a "
    "tone to change."
)

# %% [markdown]
# ## Harmony: the tonnetz
#
# Each frame has twelve chroma values, one per semitone of the octave. The tonnetz places them on the circles
# of fifths, minor thirds and major thirds: six numbers in $[-1, 1]$, shown as $[0, 1]$. Their rows are
# repeated, 540 rows for 768 of the spectrogram, and appended above it.
#
# > **Here.** Chroma is normalised frame by frame, so silence would show the harmony of rounding noise. Frames
# > more than 80 dB below the loudest are therefore set to zero, the middle of the scale.

# %%
harmony = {f"{name}, tonnetz": each for name, each in pictures["tonnetz"].items()}
figures.spectrograms(harmony, times=images.times, unit=figures.TONNETZ)

# %% [markdown]
# ## This representation, and its copies
#
# The figure shows the clip as the networks see it at this point of the grid, and the copies that training
# adds (none where `factors` is empty).

# %%
position = int(clips.index.get_loc(clip.name))
shown = images[position * images.copies + np.arange(images.copies)]
titles = ["original", *(f"{how} × {factor:g}" for factor in factors)]
figures.spectrograms(
    dict(zip(titles, shown, strict=True)), frequencies=images.frequencies, times=images.times
)

# %%
level = shown.mean(dim=(1, 2, 3)).numpy()
silent = float((shown[0] == 0).float().mean())
byte = -floor / features.Image.steps / 12**0.5
answer = (
    f"A network sees {images.size[0]} × {images.size[1]} values of each sound: the STFT shows tones thin and "
    "clicks wide, the scalogram the other way round at high frequencies, and the tonnetz shows harmony."
)
found = [
    f"The store has {len(images)} images, {len(images) * images.size[0] * images.size[1] / 2**20:.0f} MiB.",
    f"{lost['clips']:.0f} of {len(clips)} clips are cut, by {lost['share']:.1%} of all sound.",
    f"Of the clip shown, {title}, {silent:.0%} of the values are at the floor.",
    f"Its copies differ from it by at most {np.abs(level - level[0]).max():.3f} in mean level.",
    f"At this size the STFT dims a tone by {dimmed:.1f} dB. The faintest click of the sampled scalogram is "
    f"{faint['sampled']:.1f} dB below the brightest, of the averaged one {faint['averaged']:.1f} dB.",
    f"Keeping one byte per value loses {byte:.2f} dB rms.",
    "Read on in [chapter 3](03_training.ipynb), which trains a network on these images.",
]
lowest, highest = float(shown.min()), float(shown.max())
checks = {
    "every value is in [0, 1]": (lowest >= 0 and highest <= 1, f"they reach from {lowest:g} to {highest:g}"),
    "our STFT is librosa's": (difference < 1e-5, f"they differ by {difference:.1e} of the peak"),
    "a finer table brings PyWavelets closer": (closer, f"the largest difference is {apart.iloc[-1]:.1e}"),
    "less than a twentieth of all sound is cut": (bool(lost["share"] < 0.05), f"{lost['share']:.1%} is cut"),
}
Markdown(chapter.summary(answer, found, checks))
