# %% [markdown]
# # 2 · Representations
#
# **What does a network see of a sound, if it is shown a picture of it?**
#
# The paper shows its networks four pictures of each sound (Sections III and IV): the short-time Fourier
# transform, what it calls DWT, and each of them with the tonnetz appended. This chapter computes them for
# every clip and its pitch-shifted copies. You will see what each picture shows of a tone, a click, a chirp
# and a real clip that the others do not, that "DWT" is a continuous transform, what is lost when a picture
# is resized, and how the copies differ from the original.
#
# Reads `clips.parquet`; leaves the images in `store/`, one byte a value.

# %%
import librosa
import numpy as np
import pandas as pd
import pywt
import scipy.signal
import torch
from IPython.display import Markdown

from lib import features, figures, names, ranges, reporting, samples, store, study
from lib.data import audio, manifest
from lib.features.magnitude import log_view
from lib.features.resize import Resize
from lib.features.scalogram import Scalogram
from lib.features.stft import STFT

figures.use_style()

# %% tags=["parameters"]
build = "build"  # where the executed grid lies
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
floor = -100.0  # dB below the clip's peak that is black
factors = [0.75, 0.9, 1.15, 1.5]  # of the pitch-shifted copies, Section VIII
how = "pitch"  # or speed, which changes tempo too
keep = "images"  # or waveforms, 16 bits a sample, whose images are computed batch by batch on the device
together = ""  # other representations of this run, computed with it so that each clip is decoded once
workers = 0  # processes; 0 is as many as the cell has threads

# %%
made_with = "bins frames duration floor stft_rate n_fft hop dwt_rate fmin bandwidth centre factors how keep"
ranges.check(
    globals(),
    ranges.taken("build dataset representation", study.Cell),
    ranges.path("build"),
    ranges.taken(made_with, store.Settings),
    ranges.one_of("representation", names.REPRESENTATIONS),
    ranges.some_of("together", names.REPRESENTATIONS),
    ranges.whole("workers", 0),
)

# %%
cell = study.Cell(build, dataset, representation)
clips = manifest.usable(cell)
size = {"bins": bins, "frames": frames, "duration": duration, "floor": floor}
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
# ## Equal steps of frequency: the STFT
#
# A window $H$ slides along the sound $a$; each step is a spectrum (Eqs. 9 and 10):
#
# $$\text{STFT}\{a[n]\}(m, \omega) = \sum_n a[n] H[n - m] e^{-j \omega n}, \qquad
#   SP_{STFT} = |\text{STFT}\{a[n]\}(m, \omega)|^2$$
#
# > **Paper.** Window 2048, hop 512, frames overlapped by 50 %.
#
# > **Here.** Hop 512 of 2048 overlaps by 75 %; we keep the numbers. The image shows
# > $20 \log_{10}$ of the magnitude relative to the clip's peak, from `floor` to 0 dB, scaled to $[0, 1]$.

# %%
clip = clips.iloc[0]
sound = audio.waveform(clip, stft_rate, duration)
magnitude = STFT(stft_rate, n_fft=n_fft, hop=hop)(torch.from_numpy(sound))
reference = np.abs(librosa.stft(sound, n_fft=n_fft, hop_length=hop))
difference = float(np.abs(magnitude.numpy() - reference).max() / reference.max())
print(f"ours and librosa's differ by at most {difference:.1e} of the peak")

# %% [markdown]
# ## Equal ratios of frequency: the scalogram
#
# The paper's transform stretches one wavelet $\psi$ by a scale $s$ (Eqs. 11 and 12),
#
# $$\frac{1}{\sqrt{|s|}} \int a(t)\, \psi\Big(\frac{t - \tau}{s}\Big) dt, \qquad
#   \psi(t) = \frac{1}{\sqrt{2\pi}} e^{-j \omega t} e^{-t^2 / 2},$$
#
# and shows its magnitude (Eq. 13). Short wavelets hear high notes and when they begin; long ones hear low
# notes and which they are.
#
# > **Paper.** This is called a discrete wavelet transform (DWT), computed on overlapping chunks.
#
# > **Here.** Continuous scales and a complex Morlet make it a *continuous* wavelet transform; we keep the
# > label DWT in tables and say scalogram in prose. The whole clip is transformed at once, and only the
# > columns that are kept are computed: they are exact samples of the full-rate transform.
#
# PyWavelets names the wavelet `cmorB-C`; its `cwt` is the plain way, with every sample of every scale. Its
# wavelet is read from a table of $2^{precision}$ values. Expect the two to meet as the table grows, and a
# remainder where the wavelet is only a few samples long: there PyWavelets holds each sample for its duration.

# %%
resampled = audio.waveform(clip, dwt_rate, duration)
begin = min(np.abs(resampled).argmax(), resampled.size - dwt_rate // 2)
short = resampled[begin : begin + dwt_rate // 2]  # half a second from the loudest moment
few = Scalogram(
    dwt_rate, bins=8, frames=len(short), fmin=2 * fmin, fmax=dwt_rate / 16, bandwidth=bandwidth, centre=centre
)
ours = few(torch.from_numpy(short)).numpy()
plain = {
    precision: np.abs(pywt.cwt(short, few.scales, f"cmor{bandwidth}-{centre}", precision=precision)[0])
    for precision in (10, 14, 18)
}
apart = pd.Series({precision: np.abs(each - ours).max() / ours.max() for precision, each in plain.items()})
apart.rename_axis("precision of pywt.cwt").to_frame("largest difference / peak")

# %% [markdown]
# ## What each sees that the others don't
#
# Four sounds of which we know everything: a steady tone, clicks, a chirp that rises by equal ratios, and a
# clip of this data set. Expect the tone thin in the STFT and wide in the scalogram, the chirp bent in one and
# straight in the other, the clicks as wide as the window in the STFT. In the scalogram a click is a needle
# that widens downwards; where it is narrower than the distance of two columns it may fall between them, for
# columns are samples of time and not means. In the tonnetz a tone is six flat bands; clicks are no harmony.

# %%
t = np.arange(round(duration * stft_rate)) / stft_rate
low, high = 4 * fmin, 0.4 * dwt_rate
sounds = {
    "tone": np.sin(2 * np.pi * 880.0 * t),
    "clicks": (np.arange(t.size) % (stft_rate // 2) == stft_rate // 4).astype(float),
    "chirp": scipy.signal.chirp(t, low, duration, high, method="logarithmic"),
    clip["name"].replace("_", " "): sound,
}
pictures, axis = {part: {} for part in ("stft", "dwt", "tonnetz")}, {}
for part, picture in pictures.items():
    image = settings.image(part)
    axis[part] = image.frequencies
    for name, heard in sounds.items():
        at = samples.resample(heard, stft_rate, image.rate, image.samples)
        picture[name] = image(torch.from_numpy(at)[None])[0]

# %%
figures.spectrograms(
    {f"{name}, STFT": each for name, each in pictures["stft"].items()},
    frequencies=axis["stft"],
    times=images.times,
)

# %%
reach = 2e3 * bandwidth**0.5 * centre / np.array([axis["dwt"][-1], axis["dwt"][0]])
print(
    f"columns are {1e3 * duration / frames:.1f} ms apart; a click is {reach[0]:.1f} ms wide in the top row, "
    f"{reach[1]:.0f} ms at the bottom"
)
figures.spectrograms(
    {f"{name}, DWT": each for name, each in pictures["dwt"].items()},
    frequencies=axis["dwt"],
    times=images.times,
)

# %% [markdown]
# ## What a resize loses
#
# The scalogram is computed at the image's size. The STFT is not: its rows are brought to the image's in dB,
# each new value a mean weighted by a triangle, and its frames are interpolated. Brought back to its own
# size, what is missing is what the resize has lost: told here over the values above the floor, without what
# spreads into silence. A mean in dB dims what is narrow: a pure tone among silent rows loses far more than
# noise does.

# %%
whole = log_view(STFT(stft_rate, n_fft=n_fft, hop=hop)(torch.from_numpy(sound)), floor)
seen = pictures["stft"][list(sounds)[-1]]
rows = (np.arange(whole.shape[0]) + 0.5) * bins / whole.shape[0] - 0.5
columns = np.arange(whole.shape[1]) * hop / stft_rate / duration * frames - 0.5
back = Resize(frames, columns, dim=-1)(Resize(bins, rows, dim=-2)(seen))
lost = float((back - whole)[whole > 0].square().mean().sqrt()) * -floor
dimmed = float(1 - pictures["stft"]["tone"][..., frames // 2].max()) * -floor
print(f"{whole.shape[0]} × {whole.shape[1]} to {bins} × {frames} and back: {lost:.1f} dB rms are lost")
print(f"the tone above is {dimmed:.1f} dB too dark")
byte = -floor / features.Image.steps / 12**0.5
print(f"one byte a value loses {byte:.2f} dB rms")

# %% [markdown]
# ## Harmony: the tonnetz
#
# Twelve chroma values a frame, placed on circles of fifths, minor thirds and major thirds, make six numbers
# in $[-1, 1]$, shown as $[0, 1]$. They are repeated to 540 rows for 768 of spectrogram and appended above it.
#
# > **Here.** Chroma is normalised frame by frame, so near-silence would show the harmony of rounding noise:
# > frames 80 dB below the loudest are zero, the middle of the scale.

# %%
harmony = {f"{name}, tonnetz": each for name, each in pictures["tonnetz"].items()}
figures.spectrograms(harmony, times=images.times, unit=figures.TONNETZ)

# %% [markdown]
# ## This representation, and its copies
#
# The clip as the networks get it at this point of the grid, and the copies that training adds.

# %%
shown = images[np.arange(images.copies)]
names = ["original", *(f"{how} × {factor:g}" for factor in factors)]
figures.spectrograms(dict(zip(names, shown, strict=True)), frequencies=images.frequencies, times=images.times)

# %%
level = shown.mean(dim=(1, 2, 3)).numpy()
silent = float((shown[0] == 0).float().mean())
said = [
    f"the store holds {len(images)} images of {images.size[0]} × {images.size[1]} values, "
    f"{len(images) * images.size[0] * images.size[1] / 2**20:.0f} MiB as read, a byte each",
    f"of the clip shown, {clip['name'].replace('_', ' ')}, {silent:.0%} of the values are at the floor",
    f"its copies differ from it by at most {np.abs(level - level[0]).max():.3f} in mean level",
    f"our STFT is librosa's to {difference:.1e} of the peak",
    f"`pywt.cwt` with its finest table and our scalogram differ by at most {apart.iloc[-1]:.1e} of the peak",
    f"resizing the STFT loses {lost:.1f} dB rms and dims a tone by {dimmed:.1f} dB; keeping bytes loses "
    f"{byte:.2f} dB",
]
checks = {
    "every value lies in [0, 1]": float(shown.min()) >= 0 and float(shown.max()) <= 1,
    "our STFT is librosa's": difference < 1e-5,
    "a finer table brings PyWavelets closer": apart.iloc[-1] < apart.iloc[0],
}
said += [f"**in doubt:** not true that {claim}" for claim, holds in checks.items() if not holds]
Markdown("## Summary\n\n- " + "\n- ".join(said))
