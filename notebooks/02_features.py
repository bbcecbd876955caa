# %% [markdown]
# # 2 · Representations
#
# **What does a network see of a sound, if it is shown a picture of it?**
#
# A spectrogram is a picture of a sound: time runs to the right, frequency runs upwards, and a bright point
# has much power. [The paper](https://arxiv.org/abs/2008.11618) shows its networks four such pictures
# (Sections III and IV). One is the short-time Fourier transform (STFT). One is a wavelet transform, which it
# calls DWT. The other two are these with the *tonnetz* above them, a few rows that describe harmony. An
# attack of the paper changes the picture and not the sound, so it cannot use what the picture does not show.
# (Chapter 7 changes the sound.)
#
# This chapter computes one of the four for every clip and for its copies at other pitches. You will see what
# each picture shows of a tone, of clicks, of a chirp and of a real clip, what is lost when pictures are
# small, and how the copies differ.
#
# Previous: [1 · Data](01_data.ipynb). Next: [3 · Training](03_training.ipynb). Terms are explained in the
# [glossary](README.md#glossary).
#
# <small>Reads `clips.parquet`; writes the images of all clips and copies to `store/`, one byte per
# value.</small>

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
# A window $H$ of `n_fft` samples slides along the sound $a$, `hop` samples at a time. At each position $m$ we
# compute the spectrum of the samples that it covers (Eqs. 9 and 10):
#
# $$\text{STFT}\{a[n]\}(m, \omega) = \sum_n a[n] H[n - m] e^{-j \omega n}, \qquad
#   SP_{STFT} = |\text{STFT}\{a[n]\}(m, \omega)|^2$$
#
# Each position $m$ is a column of the picture and each frequency $\omega$ is a row, before the picture is
# resized to the size that the networks see. The rows are equally many hertz apart.
#
# > **Paper.** Window 2048, hop 512, frames overlapped by 50 %.
#
# > **Here.** Hop 512 of 2048 overlaps by 75 %; we keep the two numbers of samples. In a picture of
# > $SP_{STFT}$ itself, loud sounds would hide all others. So the image shows it in dB,
# > $10 \log_{10} SP_{STFT}$, relative to its largest value in the clip, the peak. The value 1 is the peak,
# > and 0 is `floor` and all below it. Between them the scale is linear in dB.
#
# The next cell chooses the clip that this chapter shows, by the rule of chapter 1: the one of median level
# among those that sound for at least three quarters of their length. It computes the magnitude of the STFT
# twice. `STFT` is ours and also runs on a GPU; `librosa.stft` is the reference. The two should agree to
# rounding.

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
# The window of the STFT has one length for all frequencies. In the paper's second transform the length
# varies. It takes one short oscillation, the wavelet $\psi$, moves it to a time $\tau$ and stretches it by a
# scale $s$ (Eqs. 11 and 12):
#
# $$\frac{1}{\sqrt{|s|}} \int a(t)\, \psi\Big(\frac{t - \tau}{s}\Big) dt, \qquad
#   \psi(t) = \frac{1}{\sqrt{2\pi}} e^{-j \omega t} e^{-t^2 / 2}.$$
#
# The image shows the magnitude of this (Eq. 13), in dB like the STFT. Each row is one scale, and so one
# frequency; from row to row the frequency grows by the same factor. A small scale makes a short wavelet,
# which shows when a high sound begins. A large scale makes a long one, which separates two neighbouring low
# sounds.
#
# > **Paper.** This is called a discrete wavelet transform (DWT), computed on overlapping chunks.
#
# > **Here.** Continuous scales and a complex Morlet make it a *continuous* wavelet transform. We keep the
# > label DWT in tables and say [scalogram](README.md#glossary) in prose. The whole clip is transformed at
# > once, and computed only at the times that the image needs: a column is one exact value of each scale, or a
# > mean of several (see below, *What a small picture loses*).
#
# We compare `Scalogram`, which is ours, with `pywt.cwt` of [PyWavelets](https://pywavelets.readthedocs.io).
# There the wavelet is called `cmorB-C`, for $e^{-t^2/B}$ and $\omega = 2\pi C$: Eq. 12 has $B = 2$
# (`bandwidth`), and we take $\omega = 6$, so $C = 6 / 2\pi$ (`centre`). `cwt` looks the wavelet up in a table
# of $2^{precision}$ values. We expect its result to be closer to ours with the largest table than with the
# smallest. A difference remains in the highest rows, where few samples make up one oscillation, because `cwt`
# takes the sound as constant from one sample to the next.

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
# We compare four sounds. Of the first three we can predict the pictures before we look:
#
# - *A steady tone* is a thin line in the STFT. In the scalogram it is wide, because at its frequency the
#   wavelet is much shorter than the window, and a short piece of a tone does not fix its frequency well.
# - *Clicks* are as wide as the window in the STFT; resizing in dB makes some of them darker. In the scalogram
#   each is a needle that widens downwards, where wavelets are longer. In a small image one column can be as
#   long as the window: then a click fills about one column in both, and only the widening is seen. (A tone or
#   a chirp that begins or stops suddenly has such a line there, too.)
# - *A chirp* that rises by the same factor in each second is bent in the STFT and straight in the scalogram.
# - *The clip* is the one chosen above.

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
# Compare the two pictures of each sound. The STFT separates frequencies well, and moments no better than its
# window is long. The scalogram separates moments well and blurs frequencies; only at its lowest frequencies
# is it the other way round. How much of this is visible depends on the length of a column, which the next
# section prints.
#
# Compare the axes as well: find a frequency of a few kHz on both. The STFT gives most of its rows to high
# frequencies, and the scalogram most of them to low ones. So an attack that changes one row changes a band of
# the same number of hertz everywhere in the STFT, and a band of the same ratio everywhere in the scalogram.
# They also end at different frequencies: the STFT at half of `stft_rate`, the scalogram at 0.475 of
# `dwt_rate`. What is above that is in the STFT alone.

# %% [markdown]
# ## What a small picture loses
#
# The paper's images have 1568 columns in five seconds. Two CPU cores can only train on smaller ones. What is
# lost then depends on the transform.
#
# *The STFT* is computed at its own size and then resized in dB, so that each new value is a mean of its
# neighbours. A tone that is one row wide among silent rows becomes darker. The scalogram is averaged before
# its values become dB. So in small images, a difference between the two is not of the transforms alone.
#
# *The scalogram* can be computed at any times that we want. It can be *sampled*, one value at the middle of
# each column, as we do at the paper's size. A click between two such moments is missed if the wavelet is
# shorter than a column. The alternative is to *average* the magnitude over the span of each column. The
# setting `columns` chooses; by default (`auto`) images of fewer columns than the paper's are averaged.

# %%
length = 2e3 * centre / axis["dwt"][-1] * (bandwidth * np.log(2)) ** 0.5
column, window = 1e3 * duration / frames, 1e3 * n_fft / stft_rate
print(f"columns are {column:.1f} ms apart; the window of the STFT is {window:.1f} ms long,", end=" ")
print(f"the shortest wavelet {length:.2f} ms")
each_way = {each: dataclasses.replace(settings, columns=each).image("dwt") for each in store.COLUMNS[1:]}
click = samples.resample(sounds["clicks"], stft_rate, dwt_rate, each_way["sampled"].samples)
of_click = {f"clicks, {each}": image(torch.from_numpy(click)[None])[0] for each, image in each_way.items()}
figures.spectrograms(of_click, frequencies=axis["dwt"], times=images.times)

# %% [markdown]
# All clicks are equally loud, so at each frequency all needles should be equally bright. In the sampled
# picture most of them end where the wavelet becomes too short for the columns. (Faint marks at its top edge,
# if there are any, are the ringing of the filter that removes frequencies above half the sampling rate.) In
# the averaged picture all of them are complete.
#
# The next table measures the losses, at the size of this point and at the paper's:
#
# - *tone*: the brightest pixel of a steady tone; 0 dB means that nothing is lost.
# - *clicks*: how far the faintest of twelve equal clicks is below the brightest, at high frequencies; 0 dB
#   means that all are shown alike.
# - *noise*: the spread (standard deviation) of the pixels of white noise. It falls as a pixel averages over
#   more of the sound.
#
# We expect that the averaged scalogram shows all clicks within 3 dB.

# %%
paper = dataclasses.replace(settings, bins=768, frames=1568)
sizes = {f"{each.bins} × {each.frames}": each for each in (settings, paper)}
compared = {}
for name, each in sizes.items():
    compared[f"STFT, {name}"] = each.image("stft")
    for kind in store.COLUMNS[1:]:
        compared[f"DWT {kind}, {name}"] = dataclasses.replace(each, columns=kind).image("dwt")
table = losses(compared, floor)
Markdown(markup.table(table.round(1) + 0.0, floats=".1f"))  # + 0.0, so that no −0.0 is shown

# %%
here = next(iter(sizes))
faint = {kind: -table.loc[f"DWT {kind}, {here}", "clicks [dB]"] for kind in store.COLUMNS[1:]}
dimmed = -table.loc[f"STFT, {here}", "tone [dB]"]
seen = f"{faint['averaged']:.1f} dB against {faint['sampled']:.1f} dB when sampled"
Markdown(
    chapter.expectation("averaging shows all clicks within 3 dB", seen, bool(faint["averaged"] < 3))
    + f"\n\nA tone is {dimmed:.1f} dB too dark in the STFT of this size."
)

# %% [markdown]
# Compare the sampled scalogram at both sizes. Its *clicks* show whether the paper's size has enough columns
# to miss none. Its *noise* should hardly change, since each pixel is one value of the transform at any size;
# an average has less.
#
# The dark tone is the extreme case. Its neighbours in the STFT are silent, at the floor of the picture. Where
# they are not, the mean is higher and less is lost. Whether the loss makes an attack on the STFT harder, this
# table does not show.

# %% [markdown]
# ## Harmony: the tonnetz
#
# Each frame has twelve *chroma* values, one for each semitone of the octave, whatever the octave. The tonnetz
# ([Harte et al.](https://doi.org/10.1145/1178723.1178727)) places them on three circles, of fifths, minor
# thirds and major thirds. Two coordinates on each circle make six numbers in $[-1, 1]$, shown as $[0, 1]$.
# The six rows are repeated, so that there are 540 where the spectrogram has 768, and put above it.
#
# > **Here.** Chroma is normalised frame by frame, so silence would show the harmony of rounding noise. Frames
# > more than 80 dB below the loudest are therefore set to zero, the middle of the scale.
#
# The tone is one semitone, so each of its six rows is constant. A click contains all semitones alike and
# gives the middle of the scale. The chirp passes from semitone to semitone. Where it rises above the highest
# of seven octaves, near 4 kHz, it comes back to the middle.

# %%
harmony = {f"{name}, tonnetz": each for name, each in pictures["tonnetz"].items()}
figures.spectrograms(harmony, times=images.times, unit=figures.TONNETZ)

# %% [markdown]
# Look at the clip last. Where it has no clear pitch, its rows stay near the middle of the scale.

# %% [markdown]
# ## This representation, and its copies
#
# The figure shows the clip as the networks see it at this point of the grid, and the copies that training
# adds (none where `factors` is empty). A copy is named by the factor by which its frequencies are multiplied.
# In a spectrogram, a factor below 1 moves the pattern down, and a factor above 1 moves it up. The timing
# stays the same, unless `how` is `speed`. The class should stay the same as well; that is an assumption.

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
    f"A network sees {images.size[0]} × {images.size[1]} values of each sound. The STFT separates tones, "
    f"the scalogram moments at high frequencies (in columns of {column:.0f} ms), and the tonnetz harmonies."
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
