"""What the images of all parts have in common: a size, axes of frequency and time, and values in [0, 1]."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from lib import ranges

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
    """From waveforms (n, samples) to images (n, rows, frames) in [0, 1], lowest frequency first.

    Column j shows the time (j + ½) · duration / frames in every image, so that they can be appended.

    Attributes
    ----------
    rate : Hz of the waveforms.
    samples : of a waveform.
    frequencies : Hz of each row, lowest first; not a number where rows are no frequencies.
    times : s of each column.
    steps : (of the class) how many steps one byte of the store has over [0, 1].
    share : (of the class) rows that are appended, for each row of the spectrogram below them.
    on_device : (of the class) whether images can be computed batch by batch from stored waveforms.
    first : (of the class) whether a representation may begin with it.
    """

    steps: ClassVar[int] = 255  # on the 100 dB of a spectrogram one step is 0.39 dB
    share: ClassVar[float] = 1.0
    on_device: ClassVar[bool] = True
    first: ClassVar[bool] = True

    def __init__(self, rate: int, duration: float, frames: int) -> None:
        super().__init__()
        ranges.refuse(locals(), ranges.number("rate duration frames", above=0))
        self.rate, self.samples = rate, round(duration * rate)
        self.duration = duration
        self.times = (np.arange(frames) + 0.5) * duration / frames

    @staticmethod
    def arguments(settings: Any) -> dict[str, Any]:
        """Those of a store's settings that the image depends on, as its constructor takes them."""
        raise NotImplementedError

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


def append(image: torch.Tensor, above: torch.Tensor, *, rows: int) -> torch.Tensor:
    """Put another image above a spectrogram's highest frequency, the nearest of its rows repeated.

    Parameters
    ----------
    image, above : (n, bins, frames), and (n, any, frames) such as the six rows of a tonnetz.
    rows : that ``above`` gets.

    Returns
    -------
    (n, bins + rows, frames).

    Raises
    ------
    ValueError : if frames differ.
    """
    if image.shape[-1] != above.shape[-1]:
        raise ValueError(f"{image.shape[-1]} frames of spectrogram and {above.shape[-1]} above it differ")
    nearest = torch.arange(rows, device=above.device) * above.shape[-2] // rows
    return torch.cat([image, above.index_select(-2, nearest)], dim=-2)
