"""From a waveform of fixed length to the image of a base: rows of frequency, columns of time, in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lib.features import checks
from lib.features.magnitude import log_view
from lib.features.resize import Resize
from lib.features.scalogram import Scalogram
from lib.features.stft import STFT
from lib.features.tonnetz import DIMENSIONS, HOP, RATE, tonnetz

FULL = 32767  # of 16 bits


def sixteen_bits(waveform: np.ndarray) -> np.ndarray:
    """A waveform as a recording holds it: int16, its peak at full scale. Silence stays silent.

    The images show a clip relative to its peak, so that its scale is immaterial to them.
    """
    peak = np.abs(waveform).max()
    return np.rint(waveform * (FULL / peak if peak > 0 else 0)).astype(np.int16)


def from_sixteen_bits(stored: torch.Tensor) -> torch.Tensor:
    """The float32 waveforms in [-1, 1] that :func:`sixteen_bits` stands for."""
    return stored.float() / FULL


class Image(nn.Module):
    """What the images of all bases have in common.

    Column j shows the time (j + ½) · duration / frames, in every base, so that they can be appended.

    Attributes
    ----------
    rate : Hz of the waveforms.
    samples : of a waveform.
    frequencies : Hz of each row, lowest first; not a number where rows are no frequencies.
    times : s of each column.
    """

    def __init__(self, rate: int, duration: float, frames: int) -> None:
        super().__init__()
        checks.positive(rate=rate, duration=duration, frames=frames)
        self.rate, self.samples = rate, round(duration * rate)
        self.duration = duration
        self.times = (np.arange(frames) + 0.5) * duration / frames

    def check(self, waveform: torch.Tensor) -> None:
        """Refuse waveforms of another length than they have at this rate.

        Raises
        ------
        ValueError : naming both lengths.
        """
        if waveform.shape[-1] != self.samples:
            raise ValueError(
                f"{self.duration:g} s at rate = {self.rate} Hz are {self.samples} samples, "
                f"given {waveform.shape[-1]}"
            )


class STFTImage(Image):
    """The logarithmic view of the STFT, resized to (bins, frames) in dB. Called with (n, samples)."""

    def __init__(
        self, rate: int, *, duration: float, bins: int, frames: int, floor: float, n_fft: int, hop: int
    ) -> None:
        super().__init__(rate, duration, frames)
        checks.positive(bins=bins)
        self.stft, self.floor = STFT(rate, n_fft=n_fft, hop=hop), floor
        heard = len(self.stft.frequencies)
        rows = (np.arange(bins) + 0.5) * heard / bins - 0.5
        self.lower = Resize(heard, rows, dim=-2)
        self.longer = Resize(self.stft.columns(self.samples), self.times * rate / hop, dim=-1)
        self.frequencies = np.interp(rows, np.arange(heard), self.stft.frequencies)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, bins, frames) in [0, 1]."""
        self.check(waveform)
        return self.longer(self.lower(log_view(self.stft(waveform), self.floor))).clamp_(0, 1)


class ScalogramImage(Image):
    """The logarithmic view of the scalogram, (bins, frames) without a resize. Called with (n, samples)."""

    def __init__(
        self,
        rate: int,
        *,
        duration: float,
        bins: int,
        frames: int,
        floor: float,
        fmin: float,
        bandwidth: float,
        centre: float,
    ) -> None:
        super().__init__(rate, duration, frames)
        self.floor = floor
        self.scalogram = Scalogram(
            rate, bins=bins, frames=frames, fmin=fmin, bandwidth=bandwidth, centre=centre
        )
        self.frequencies = self.scalogram.frequencies

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, bins, frames) in [0, 1]."""
        self.check(waveform)
        return log_view(self.scalogram(waveform), self.floor)


class TonnetzImage(Image):
    """The six centroids of the tonnetz on the columns of the others, 0 at one half. Called with (n, samples),
    computed on the CPU.
    """

    def __init__(self, *, duration: float, frames: int) -> None:
        super().__init__(RATE, duration, frames)
        self.frequencies = np.full(DIMENSIONS, np.nan)
        self.along = Resize(self.samples // HOP + 1, self.times * RATE / HOP, dim=-1)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, 6, frames) in [0, 1]."""
        self.check(waveform)
        centroids = np.stack([tonnetz(clip) for clip in waveform.detach().cpu().numpy()])
        return self.along((torch.from_numpy(centroids) + 1) / 2).to(waveform.device)


def append(image: torch.Tensor, six: torch.Tensor, *, rows: int, how: str = "frequency") -> torch.Tensor:
    """Put a tonnetz beside a spectrogram, the nearest of its six rows repeated.

    Parameters
    ----------
    image : (n, bins, frames).
    six : (n, 6, frames).
    rows : of tonnetz appended above the highest frequency; a channel has as many as the spectrogram.
    how : ``frequency`` or ``channel``, the ablation.

    Returns
    -------
    (n, 1, bins + rows, frames), or (n, 2, bins, frames) as channels.

    Raises
    ------
    ValueError : if ``how`` is neither, or frames differ.
    """
    if how not in ("frequency", "channel"):
        raise ValueError(f"how = {how!r} is neither 'frequency' nor 'channel'")
    if image.shape[-1] != six.shape[-1]:
        raise ValueError(f"{image.shape[-1]} frames of spectrogram and {six.shape[-1]} of tonnetz differ")
    wanted = rows if how == "frequency" else image.shape[-2]
    nearest = torch.arange(wanted, device=six.device) * six.shape[-2] // wanted
    if how == "channel":
        return torch.stack([image, six.index_select(-2, nearest)], dim=1)
    return torch.cat([image, six.index_select(-2, nearest)], dim=-2)[:, None]
