"""The short-time Fourier transform, librosa's numbers on any device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from lib import ranges
from lib.features import checks
from lib.features.image import Image
from lib.features.magnitude import log_view, magnitude
from lib.features.resize import Resize


class STFT(nn.Module):
    """|Σₙ a[n] H[n − m] exp(−jωn)| of waveforms, Eqs. 9 and 10, H the periodic Hann window. Chapter 2.

    Frame t is centred on sample t · hop, the clip is silent outside: ``librosa.stft`` with its defaults.
    The magnitude is not squared, since 20 · log10 squares it.

    Parameters
    ----------
    rate : samples a second of the waveforms.
    n_fft : samples of the window.
    hop : samples from one frame to the next.

    Called with (…, samples), returns (…, n_fft // 2 + 1, samples // hop + 1), frequency 0 first.

    Raises
    ------
    ValueError : if a size is not above zero, or a waveform is shorter than the window or not finite.
    """

    def __init__(self, rate: float, *, n_fft: int = 2048, hop: int = 512) -> None:
        super().__init__()
        ranges.refuse(locals(), ranges.number("rate n_fft hop", above=0))
        self.rate, self.n_fft, self.hop = rate, n_fft, hop
        self.frequencies = np.arange(n_fft // 2 + 1) * rate / n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def columns(self, samples: int) -> int:
        """How many frames a clip of so many samples has."""
        return samples // self.hop + 1

    def times(self, samples: int) -> np.ndarray:
        """Seconds from the clip's beginning to the middle of each frame."""
        return np.arange(self.columns(samples)) * self.hop / self.rate

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Magnitudes, (…, n_fft // 2 + 1, frames)."""
        waveform = checks.waveform(waveform, self.n_fft, "the STFT")
        clips = waveform.reshape(-1, waveform.shape[-1])
        if clips.dtype != torch.float64:
            clips = clips.float()
        frames = torch.stft(
            clips,
            self.n_fft,
            self.hop,
            window=self.window.to(clips),
            pad_mode="constant",
            return_complex=True,
        )
        return magnitude(frames).reshape(*waveform.shape[:-1], *frames.shape[1:])


class STFTImage(Image):
    """The logarithmic view of the STFT, resized to (bins, frames) in dB."""

    def __init__(
        self, rate: int, *, duration: float, bins: int, frames: int, floor: float, n_fft: int, hop: int
    ) -> None:
        super().__init__(rate, duration, frames)
        ranges.refuse(locals(), ranges.number("bins", above=0))
        self.stft, self.floor = STFT(rate, n_fft=n_fft, hop=hop), floor
        heard = len(self.stft.frequencies)
        rows = (np.arange(bins) + 0.5) * heard / bins - 0.5
        self.lower = Resize(heard, rows, dim=-2)
        self.longer = Resize(self.stft.columns(self.samples), self.times * rate / hop, dim=-1)
        self.frequencies = np.interp(rows, np.arange(heard), self.stft.frequencies)

    @staticmethod
    def arguments(settings: Any) -> dict[str, Any]:
        """See `Image.arguments`."""
        names = ("duration", "bins", "frames", "floor", "n_fft", "hop")
        return {"rate": settings.stft_rate} | {name: getattr(settings, name) for name in names}

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, bins, frames) in [0, 1]."""
        self.check(waveform)
        return self.longer(self.lower(log_view(self.stft(waveform), self.floor))).clamp_(0, 1)


IMAGE = STFTImage
