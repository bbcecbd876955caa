"""What a waveform and a size must be before they are transformed."""

from __future__ import annotations

import torch


def waveform(given: torch.Tensor, shortest: int, what: str) -> torch.Tensor:
    """Return ``given``, (…, samples), once it is known to be sound that can be transformed.

    Digital silence is sound; a constant that is not zero is not (its transform is that of its edges).

    Raises
    ------
    ValueError : if it has no samples or fewer than ``shortest``, is not floating point, holds NaN or
        infinity, or is a constant other than zero; the sentence names what was found.
    """
    given = torch.as_tensor(given)
    if not given.is_floating_point():
        raise ValueError(f"{what} takes floating-point waveforms, given {given.dtype}")
    samples = given.shape[-1] if given.ndim else 0
    if given.numel() == 0 or samples < shortest:
        raise ValueError(f"{what} takes waveforms of at least {shortest} samples, given {samples}")
    lowest, highest = given.detach().amin(-1), given.detach().amax(-1)  # aminmax takes five times as long
    if not (torch.isfinite(lowest) & torch.isfinite(highest)).all():
        raise ValueError(f"{what} takes finite waveforms, given {_first_bad(given)}")
    stuck = (lowest == highest) & (lowest != 0)
    if stuck.any():
        raise ValueError(f"{what} takes waveforms that move, given the constant {lowest[stuck][0]:g}")
    return given


def _first_bad(given: torch.Tensor) -> str:
    flat = given.detach().reshape(-1)
    position = int((~torch.isfinite(flat)).nonzero()[0, 0])
    return f"{flat[position]:g} at sample {position % given.shape[-1]}"
