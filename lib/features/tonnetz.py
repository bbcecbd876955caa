"""The tonnetz: where a chroma vector lies on circles of fifths, minor thirds and major thirds."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np
import scipy.sparse
import torch

from lib import ranges
from lib.features import checks
from lib.features.image import Image
from lib.features.resize import Resize

RATE = 22050  # Hz, librosa's default, as the paper has it
HOP = 512  # samples, librosa's default
DIMENSIONS = 6  # sine and cosine of fifths, minor thirds, major thirds
SILENT = -80.0  # dB below the clip's loudest frame: chroma would normalise rounding noise there
SHORTEST = 2048  # samples: librosa's window when it estimates the tuning
OCTAVES, PER_OCTAVE = 7, 36  # of librosa's chroma, from C1 upwards


def tonnetz(waveform: np.ndarray, rate: int = RATE, *, silent: float = SILENT) -> np.ndarray:
    """The six tonal centroids of Harte et al., ``librosa.feature.tonnetz`` with its defaults. Chapter 2.

    librosa builds the filters of its constant-Q transform anew in every call, two thirds of its cost.
    Here they are kept: they depend on the clip's tuning alone, which librosa rounds to a hundredth of a
    bin, and are the same in every octave, since the sound is halved in rate with it. Everything else is
    done by librosa's own parts. Frames more than 80 dB below the clip's loudest one are zero. The
    smoothing and the distance of the full harmonic change detection are not in librosa, and not here.

    Parameters
    ----------
    waveform : float32 (samples,), at least 2048.
    rate : Hz.
    silent : dB below the loudest frame's effective value from which frames are zero; -inf for none.

    Returns
    -------
    float32 (6, samples // 512 + 1), in [-1, 1].

    Raises
    ------
    ValueError : if the waveform is too short, not finite or not floating point, or the rate too low.
    """
    import librosa

    ranges.refuse(locals(), ranges.number("rate", above=0))
    waveform = checks.waveform(torch.as_tensor(waveform), SHORTEST, "the tonnetz").numpy().astype(np.float32)
    if waveform.ndim != 1:
        raise ValueError(f"the tonnetz takes one waveform at a time, given shape {waveform.shape}")
    loudness = librosa.feature.rms(y=waveform, frame_length=4 * HOP, hop_length=HOP)[0]
    if loudness.max() == 0:
        return np.zeros((DIMENSIONS, len(waveform) // HOP + 1), np.float32)
    with warnings.catch_warnings():
        # Sound without any pitch (a rumble, a click) has tuning 0; that is no fault of the clip.
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty frequency set")
        tuning = librosa.estimate_tuning(y=waveform, sr=rate, bins_per_octave=PER_OCTAVE)
    chroma = librosa.util.normalize(
        _chroma_map() @ _constant_q(waveform, rate, float(tuning)), norm=np.inf, axis=0
    )
    centroids = librosa.feature.tonnetz(chroma=chroma, sr=rate)
    return (centroids * (loudness > loudness.max() * 10 ** (silent / 20))).astype(np.float32)


def _constant_q(waveform: np.ndarray, rate: int, tuning: float) -> np.ndarray:
    """Magnitudes as of ``librosa.cqt``, (252, frames), the lowest note first."""
    import librosa

    halvings, window, basis, lengths = _filters(rate, tuning)
    hop = HOP
    if halvings:
        factor = 2**halvings
        waveform = librosa.resample(waveform, orig_sr=factor, target_sr=1, res_type="soxr_hq", scale=True)
        hop //= factor
    octaves, scale = [], 1.0
    for octave in range(OCTAVES):
        # A silent half window on either side centres the frames, also where the clip is shorter.
        padded = np.pad(waveform, window // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
        spectra = torch.fft.rfft(torch.from_numpy(np.ascontiguousarray(frames))).numpy().T
        octaves.append(np.abs(basis.dot(spectra)) * np.float32(scale))
        if octave < OCTAVES - 1:
            hop //= 2
            scale *= math.sqrt(2)
            waveform = librosa.resample(waveform, orig_sr=2, target_sr=1, res_type="soxr_hq", scale=True)
    columns = min(octave.shape[1] for octave in octaves)
    stacked = np.concatenate([octave[:, :columns] for octave in reversed(octaves)])
    return stacked / np.sqrt(lengths)[:, None]


@functools.lru_cache(maxsize=128)
def _filters(rate: int, tuning: float) -> tuple[int, int, Any, np.ndarray]:
    """As librosa makes them: how often the sound is halved first, the window, the top octave's filters in
    frequency, sparse (36, window // 2 + 1), and the lengths of all filters.
    """
    import librosa

    lowest = librosa.note_to_hz("C1") * 2.0 ** (tuning / PER_OCTAVE)
    notes = lowest * 2.0 ** (np.arange(OCTAVES * PER_OCTAVE) / PER_OCTAVE)
    step = 4.0 ** (1 / PER_OCTAVE)
    alpha = np.full(len(notes), (step - 1) / (step + 1))  # bandwidth over frequency, of even steps
    _, cutoff = librosa.filters.wavelet_lengths(freqs=notes, sr=rate, alpha=alpha, gamma=0)
    if cutoff > rate / 2:
        raise ValueError(f"rate = {rate} Hz is below {2 * cutoff:.0f} Hz, twice the highest note's band")
    halvings = max(0, math.ceil(math.log2(rate / 2 / cutoff)) - 2)
    halvings = min(halvings, int(math.log2(HOP)) - OCTAVES + 1)
    rate = rate / 2**halvings
    lengths, _ = librosa.filters.wavelet_lengths(freqs=notes, sr=rate, alpha=alpha, gamma=0)
    top = slice(-PER_OCTAVE, None)
    basis, supports = librosa.filters.wavelet(
        freqs=notes[top], sr=rate, gamma=0, alpha=alpha[top], pad_fft=True
    )
    window = basis.shape[1]
    basis = basis * supports[:, None] / window
    # numpy in single precision, as librosa has it: which values count as negligible must not differ.
    spectra = np.fft.fft(basis, axis=1)[:, : window // 2 + 1]
    return halvings, window, scipy.sparse.csr_matrix(_largest(spectra)), lengths


def _largest(spectra: np.ndarray, negligible: float = 0.01) -> np.ndarray:
    """Each row without the smallest values that make up a hundredth of its sum, complex64
    (``librosa.util.sparsify_rows``, all rows at once).
    """
    size = np.abs(spectra)
    ascending = np.sort(size, axis=1)
    shares = np.cumsum(ascending / size.sum(axis=1, keepdims=True), axis=1)
    first = np.argmin(shares < negligible, axis=1)
    kept = size >= np.take_along_axis(ascending, first[:, None], axis=1)
    return np.where(kept, spectra, 0).astype(np.complex64)


@functools.lru_cache(maxsize=1)
def _chroma_map() -> np.ndarray:
    import librosa

    return librosa.filters.cq_to_chroma(OCTAVES * PER_OCTAVE, bins_per_octave=PER_OCTAVE, n_chroma=12)


class TonnetzImage(Image):
    """The six centroids of the tonnetz on the columns of the others, 0 at one half; computed on the CPU."""

    steps = 254  # even, so that zero, one half of the image, is a step
    share = 540 / 768  # the paper's 1568 × 540 above 1568 × 768
    on_device = False
    first = False

    def __init__(self, *, duration: float, frames: int) -> None:
        super().__init__(RATE, duration, frames)
        self.frequencies = np.full(DIMENSIONS, np.nan)
        self.along = Resize(self.samples // HOP + 1, self.times * RATE / HOP, dim=-1)

    @staticmethod
    def arguments(settings: Any) -> dict[str, Any]:
        """See `Image.arguments`."""
        return {"duration": settings.duration, "frames": settings.frames}

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, 6, frames) in [0, 1]."""
        self.check(waveform)
        centroids = np.stack([tonnetz(clip) for clip in waveform.detach().cpu().numpy()])
        return self.along((torch.from_numpy(centroids).to(waveform.device) + 1) / 2)


IMAGE = TonnetzImage
