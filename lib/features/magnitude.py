"""Magnitudes, and their logarithmic view in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch

SILENT = 1e-30  # a peak below it is that of digital silence


def magnitude(coefficients: torch.Tensor) -> torch.Tensor:
    """|z| of complex values, with gradient zero at zero."""
    if coefficients.requires_grad or coefficients.device.type != "cpu":
        return coefficients.abs()
    return torch.from_numpy(np.abs(coefficients.numpy()))  # several times faster than torch's on a CPU


def log_view(magnitudes: torch.Tensor, floor: float = -100.0) -> torch.Tensor:
    """The logarithmic view of reading 4: 20 · log10 relative to each clip's peak, from ``floor`` dB to 0 dB
    scaled to [0, 1].

    (…, rows, columns) in, the same out: 1 is the clip's peak, 0 is ``floor`` and everything below it,
    digital silence 0 throughout. The gradient below the floor is zero.

    Raises
    ------
    ValueError : if ``floor`` is not below 0 dB.
    """
    if not floor < 0:
        raise ValueError(f"floor = {floor} dB must be below 0 dB")
    peak = magnitudes.amax(dim=(-2, -1), keepdim=True).clamp(min=SILENT)
    relative, lowest = magnitudes / peak, 10 ** (floor / 20)
    if relative.requires_grad:
        return (torch.log10(relative.clamp(min=lowest)) * (20 / -floor) + 1).clamp(0, 1)
    return relative.clamp_(min=lowest).log10_().mul_(20 / -floor).add_(1).clamp_(0, 1)
