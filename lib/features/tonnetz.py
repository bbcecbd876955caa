"""The tonnetz: where a chroma vector lies on circles of fifths, minor thirds and major thirds."""

from __future__ import annotations

import numpy as np

from lib.features import checks

RATE = 22050  # Hz, librosa's default, as the paper has it
HOP = 512  # samples, librosa's default
DIMENSIONS = 6  # sine and cosine of fifths, minor thirds, major thirds
SILENT = -80.0  # dB below the clip's loudest frame: chroma would normalise rounding noise there


def tonnetz(waveform: np.ndarray, rate: int = RATE) -> np.ndarray:
    """The six tonal centroids of Harte et al., ``librosa.feature.tonnetz`` with its defaults. Chapter 2.

    Frames more than 80 dB below the clip's loudest one are zero. The smoothing and the distance of the
    full harmonic change detection are not in librosa, and not here.

    Parameters
    ----------
    waveform : float32 (samples,), at least one hop.
    rate : Hz.

    Returns
    -------
    float32 (6, samples // 512 + 1), in [-1, 1].

    Raises
    ------
    ValueError : if the waveform is shorter than one hop or not finite.
    """
    import librosa
    import torch

    checks.waveform(torch.as_tensor(waveform), HOP, "the tonnetz")
    chroma = librosa.feature.chroma_cqt(y=waveform, sr=rate, hop_length=HOP, n_chroma=12, bins_per_octave=36)
    centroids = librosa.feature.tonnetz(chroma=chroma, sr=rate)
    loudness = librosa.feature.rms(y=waveform, frame_length=4 * HOP, hop_length=HOP)[0]
    loud = loudness > loudness.max() * 10 ** (SILENT / 20)
    return (centroids * loud[: centroids.shape[1]]).astype(np.float32)
