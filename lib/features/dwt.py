"""The image of the scalogram, which the paper calls DWT."""

from __future__ import annotations

from typing import Any

import torch

from lib.features.image import Image
from lib.features.magnitude import log_view
from lib.features.scalogram import Scalogram


class ScalogramImage(Image):
    """The logarithmic view of the scalogram, (bins, frames) without a resize."""

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

    @staticmethod
    def arguments(settings: Any) -> dict[str, Any]:
        """See `Image.arguments`."""
        names = ("duration", "bins", "frames", "floor", "fmin", "bandwidth", "centre")
        return {"rate": settings.dwt_rate} | {name: getattr(settings, name) for name in names}

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(n, bins, frames) in [0, 1]."""
        self.check(waveform)
        return log_view(self.scalogram(waveform), self.floor)


IMAGE = ScalogramImage
