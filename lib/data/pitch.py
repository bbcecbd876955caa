"""Pitch shifting that keeps a sound's length, by a phase vocoder without angles."""

from __future__ import annotations

import numba
import numpy as np
import torch

from lib import samples

WINDOW, HOP = 2048, 512  # samples, librosa's defaults


def shift(waveform: np.ndarray, factor: float) -> np.ndarray:
    """``waveform`` with every frequency times ``factor``, as ``librosa.effects.pitch_shift`` does it.

    The sound is stretched in time by a phase vocoder and resampled back to its length. From one frame to
    the next, a bin's phase advances by as much as it did in the sound at that time. librosa adds the
    angles up; here the advances, numbers on the unit circle, are multiplied, which is the same and
    several times faster.

    Parameters
    ----------
    waveform : float32 (samples,).
    factor : above 1 higher, below 1 lower.

    Returns
    -------
    float32 (samples,).

    Raises
    ------
    ValueError : if ``factor`` is not above 0.
    """
    if not factor > 0:
        raise ValueError(f"factor = {factor} must be above 0")
    window = torch.hann_window(WINDOW)
    sound = torch.from_numpy(np.ascontiguousarray(waveform, np.float32))
    spectra = torch.stft(sound, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    frames = torch.zeros(spectra.shape[1] + 2, spectra.shape[0], dtype=torch.complex64)
    frames[:-2] = spectra.T
    # The rate is rounded as librosa rounds it: which frame a step falls on hangs on its last bit.
    steps = np.arange(0, spectra.shape[1], 2.0 ** (-(12 * np.log2(factor)) / 12))
    stretched = torch.from_numpy(_vocode(frames.numpy(), steps)).T
    length = round(len(waveform) * factor)
    longer = torch.istft(stretched, WINDOW, HOP, window=window, length=length).numpy()
    return samples.resample(longer, factor, 1.0, len(waveform))


@numba.njit(cache=True, nogil=True)
def _vocode(frames, steps):
    """(steps, bins): the sound's spectrum at fractional frames, with phases that go on from step to step."""
    size = np.abs(frames)
    unit = np.ones_like(frames)
    for t in range(frames.shape[0]):
        for k in range(frames.shape[1]):
            if size[t, k] > 0:
                unit[t, k] = frames[t, k] / size[t, k]
    phase = unit[0].copy()
    out = np.empty((len(steps), frames.shape[1]), np.complex64)
    for step in range(len(steps)):
        t = int(steps[step])
        share = np.float32(steps[step] - t)
        for k in range(frames.shape[1]):
            turn = phase[k]
            out[step, k] = ((1 - share) * size[t, k] + share * size[t + 1, k]) * turn
            turn = turn * unit[t + 1, k] * unit[t, k].conjugate()
            # One step of Newton's method keeps it on the unit circle.
            phase[k] = turn * (np.float32(1.5) - np.float32(0.5) * (turn.real**2 + turn.imag**2))
    return out
