"""A sound at another rate, and at a given length."""

import numpy as np
import soxr


def fit(sound: np.ndarray, samples: int) -> np.ndarray:
    """``sound`` as float32 of so many samples: cut, or followed by silence."""
    out = np.zeros(samples, np.float32)
    out[: min(samples, len(sound))] = sound[:samples]
    return out


def resample(sound: np.ndarray, rate: float, wanted: float, samples: int) -> np.ndarray:
    """``sound`` at ``wanted`` instead of ``rate`` Hz, by soxr's high quality, and so many samples long."""
    if rate != wanted:
        sound = soxr.resample(np.asarray(sound, np.float32), rate, wanted, quality="HQ")
    return fit(sound, samples)
