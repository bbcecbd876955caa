"""The image of the scalogram, which the paper calls DWT."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from lib.features.image import Image
from lib.features.magnitude import log_view
from lib.features.scalogram import PASS, Scalogram

FULL = 1568  # columns of the paper's images; with fewer, columns are averages unless it is said otherwise
OCTAVES = 2  # rows that share their columns' distance, before these are averaged


class ScalogramImage(Image):
    """The logarithmic view of the scalogram, (bins, frames) without a resize.

    A column is the transform at its middle, as the paper's, or the mean of the magnitude over its span.
    At 128 columns in 5 s they are 39 ms apart, while the shortest wavelet is 0.3 ms long: a click that falls
    between two samples is not seen. So small images are averages. For the mean the transform is computed at
    columns no further apart than the wavelet is long (its full width at half height).

    Parameters
    ----------
    averaged : whether columns are means over their span.
    """

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
        averaged: bool,
    ) -> None:
        super().__init__(rate, duration, frames)
        self.floor = floor
        self.frequencies = np.geomspace(fmin, PASS * rate, bins)
        octave = (
            np.floor(np.log2(self.frequencies[-1] / self.frequencies) / OCTAVES)
            if averaged
            else np.zeros(bins)
        )
        self.bank = nn.ModuleList()
        for group in np.unique(octave)[::-1]:
            rows = self.frequencies[octave == group]
            length = 2 * centre / rows[-1] * math.sqrt(bandwidth * math.log(2))  # s, of the shortest wavelet
            each = math.ceil(duration / frames / length) if averaged else 1
            wavelet = {"bandwidth": bandwidth, "centre": centre}
            self.bank.append(
                Scalogram(rate, bins=len(rows), frames=frames * each, fmin=rows[0], fmax=rows[-1], **wavelet)
            )

    @staticmethod
    def arguments(settings: Any) -> dict[str, Any]:
        """See `Image.arguments`."""
        names = ("duration", "bins", "frames", "floor", "fmin", "bandwidth", "centre")
        small = settings.columns == "auto" and settings.frames < FULL
        averaged = {"averaged": small or settings.columns == "averaged"}
        return {"rate": settings.dwt_rate} | {name: getattr(settings, name) for name in names} | averaged

    def magnitudes(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, bins, frames), before their logarithm."""
        self.check(waveform)
        frames = len(self.times)
        rows = [scalogram(waveform).unflatten(-1, (frames, -1)) for scalogram in self.bank]
        return torch.cat([each.mean(-1) if each.shape[-1] > 1 else each[..., 0] for each in rows], dim=-2)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, bins, frames) in [0, 1]."""
        return log_view(self.magnitudes(waveform), self.floor)


IMAGE = ScalogramImage
