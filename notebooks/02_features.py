# %% [markdown]
# # 2 · Representations
#
# **What does a network see of a sound, if it is shown a picture of it?**
#
# The paper shows its networks four pictures of each sound (Sections III and IV): the short-time Fourier
# transform, what it calls DWT, and each of them with the tonnetz appended. This chapter computes the
# picture of this point of the grid for every clip and its pitch-shifted copies. You will see one clip in
# all representations that this picture is made of, and how the copies differ from the original.
#
# Reads `clips.parquet`; leaves the images in `store/`, one byte a value.

# %%
import librosa
import numpy as np
import pandas as pd
import pywt
import torch
from IPython.display import Markdown

from lib import data, features, figures, store, study

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
workers = 0  # processes; 0 is as many as the cell has threads

# %%
cell = study.Cell(build, dataset, representation)
clips = data.clips(cell)
settings = store.Settings(
    bins, frames, duration, stft_rate, n_fft, hop, dwt_rate, fmin, bandwidth, centre, floor, factors, how
)
folder = cell.up(1).path("store")
store.write(
    folder, clips, representation, settings,
    waveform=data.waveform, augment=data.augment, workers=workers, progress=study.progress,
)  # fmt: skip
images = store.open(folder, representation)
print(f"{cell}: {len(clips)} clips × {images.copies}, {images.size[0]} × {images.size[1]}")

# %% [markdown]
# ## Equal steps of frequency: the STFT
#
# A window $H$ of 2048 samples slides along the sound $a$; each step is a spectrum (Eqs. 9 and 10):
#
# $$\text{STFT}\{a[n]\}(m, \omega) = \sum_n a[n] H[n - m] e^{-j \omega n}$$
#
# > **Paper.** Window 2048, hop 512, frames overlapped by 50 %.
#
# > **Here.** Hop 512 of 2048 overlaps by 75 %; we keep the numbers. The image shows
# > $20 \log_{10}$ of the magnitude relative to the clip's peak, from `floor` to 0 dB, scaled to $[0, 1]$.

# %%
clip = clips.iloc[0]
sound = data.waveform(clip, stft_rate, duration)
magnitude = features.STFT(stft_rate, n_fft=n_fft, hop=hop)(torch.from_numpy(sound))
reference = np.abs(librosa.stft(sound, n_fft=n_fft, hop_length=hop))
difference = float(np.abs(magnitude.numpy() - reference).max() / reference.max())
print(f"ours and librosa's differ by at most {difference:.1e} of the peak")

# %% [markdown]
# ## Equal ratios of frequency: the scalogram
#
# The paper's transform stretches one wavelet $\psi$ by a scale $s$ (Eqs. 11 and 12),
#
# $$\frac{1}{\sqrt{|s|}} \int a(t)\, \psi\Big(\frac{t - \tau}{s}\Big) dt, \qquad
#   \psi(t) = \frac{1}{\sqrt{2\pi}} e^{-j \omega t} e^{-t^2 / 2}.$$
#
# > **Paper.** This is called a discrete wavelet transform (DWT), computed on overlapping chunks.
#
# > **Here.** Continuous scales and a complex Morlet make it a *continuous* wavelet transform; we keep the
# > label DWT in tables and say scalogram in prose. The whole clip is transformed at once, and only the
# > columns that are kept are computed: they are exact samples of the full-rate transform.
#
# PyWavelets' `cwt` is the plain way. Its wavelet is a table, so it differs from the exact transform.

# %%
short = data.waveform(clip, dwt_rate, duration)[: dwt_rate // 2]
few = features.Scalogram(dwt_rate, bins=8, frames=len(short), fmin=200.0, bandwidth=bandwidth, centre=centre)
ours = few(torch.from_numpy(short)).numpy()
plain = pd.Series(
    {
        precision: np.abs(
            np.abs(pywt.cwt(short, few.scales, f"cmor{bandwidth}-{centre}", precision=precision)[0]) - ours
        ).max()
        / ours.max()
        for precision in (10, 14, 18)
    },
    name="largest difference / peak",
)
Markdown(plain.rename_axis("precision of pywt.cwt").to_frame().to_markdown(floatfmt=".1e"))

# %% [markdown]
# ## Harmony: the tonnetz
#
# Twelve chroma values a frame, placed on circles of fifths, minor thirds and major thirds, make six numbers.
# They are resized to 540 rows for 768 of spectrogram and appended above it. Expect wide flat bands that
# change where the harmony does, and little that a spectrogram would not show of a noise.

# %%
shown = images[np.arange(images.copies)]
names = ["original", *(f"pitch × {factor:g}" for factor in factors)]
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
    f"`pywt.cwt` comes within {plain.min():.1e} of our scalogram's peak",
]
checks = {
    "every value lies in [0, 1]": float(shown.min()) >= 0 and float(shown.max()) <= 1,
    "our STFT is librosa's": difference < 1e-5,
    "a finer table brings PyWavelets closer": plain.is_monotonic_decreasing,
}
said += [f"**in doubt:** not true that {claim}" for claim, holds in checks.items() if not holds]
Markdown("## Summary\n\n- " + "\n- ".join(said))
