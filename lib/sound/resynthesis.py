"""From an adversarial image back to a sound whose image is nearest to it.

An image is all that an attack on a representation changes; whether there is a sound with that image is
another question. ``image`` is one of `lib.features`: differentiable, from waveforms (n, samples) to images
(n, rows, frames) in [0, 1], with its ``rate``, ``frequencies`` [Hz] of rows, ``times`` [s] of columns and
``floor`` [dB]. Chapter 7 explains it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

WINDOW = 0.032  # s, of the transform in which the starting sound is made
LOOK = 20  # iterations between two looks at the distance
LEAST_FALL = 0.01  # of the distance between two looks; less is convergence


class Sounds(NamedTuple):
    """What was found for n images.

    sound : (n, samples).
    distance : (n,) ‖image(sound) − wanted‖₂ that is left.
    converged : (n,) whether it had stopped falling; else the search was given up at its limit.
    """

    sound: torch.Tensor
    distance: torch.Tensor
    converged: torch.Tensor


def resynthesise(
    image: Callable[[torch.Tensor], torch.Tensor],
    waveform: torch.Tensor,
    wanted: torch.Tensor,
    *,
    steps: int = 300,
    progress: Callable = lambda clips, what: clips,
) -> Sounds:
    """For each image the sound that minimises ‖image(w) − wanted‖², by L-BFGS (Liu, Nocedal, 1989).

    The search begins at the original sound, or at :func:`gained` where that is nearer, and keeps the
    original's phase. It ends when the distance falls by less than 1 % in 20 iterations, or after ``steps``.
    No image need belong to any sound: the distance that is left says how far this one is from doing so.

    Parameters
    ----------
    waveform : (n, samples), the original sounds.
    wanted : (n, rows, frames), adversarial images.

    Raises
    ------
    ValueError : if a wanted value is not finite.
    """
    if not torch.isfinite(wanted).all():
        raise ValueError("the wanted images have values that are not finite")
    if not len(wanted):
        return Sounds(waveform, wanted.new_zeros(0), torch.zeros(0, dtype=torch.bool, device=wanted.device))
    found = [
        _search(image, wave[None], goal[None], steps)
        for wave, goal in progress(list(zip(waveform, wanted, strict=True)), "resynthesis, clips")
    ]
    return Sounds(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _search(image: Callable, waveform: torch.Tensor, wanted: torch.Tensor, steps: int) -> Sounds:
    peak = waveform.abs().amax().clamp_min(1e-9)

    def distance(sound: torch.Tensor) -> torch.Tensor:
        return (image(sound) - wanted).square().sum().sqrt()

    starts = [waveform / peak, gained(image, waveform / peak, wanted)]
    with torch.no_grad():
        best, least = min(((start, float(distance(start))) for start in starts), key=lambda pair: pair[1])
    sound = best.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [sound], max_iter=LOOK, history_size=30, line_search_fn="strong_wolfe", tolerance_change=0
    )

    def square() -> torch.Tensor:
        optimiser.zero_grad()
        loss = distance(sound).square()
        loss.backward()
        return loss

    converged = False
    for _ in range(math.ceil(steps / LOOK)):
        before = least
        optimiser.step(square)
        with torch.no_grad():
            now = float(distance(sound))
        if now < least:
            best, least = sound.detach().clone(), now
        converged = not least < before * (1 - LEAST_FALL)
        if converged:
            break
    device = waveform.device
    return Sounds(best * peak, torch.tensor([least], device=device), torch.tensor([converged], device=device))


def gained(image: Callable, waveform: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The sound whose short-time spectrum is amplified by what the image wants changed, (1, samples).

    The change of the image, in dB, is interpolated from its rows and columns to the bins and hops of a
    Fourier transform of 32 ms; phases stay.
    """
    length = 2 ** round(math.log2(WINDOW * image.rate))
    window = torch.hann_window(length, device=waveform.device)
    spectrum = torch.stft(waveform, length, length // 4, window=window, return_complex=True)
    with torch.no_grad():
        change = ((wanted - image(waveform))[0] * -image.floor).cpu().numpy()  # dB
    bins = np.arange(spectrum.shape[1]) * image.rate / length
    hops = np.arange(spectrum.shape[2]) * (length // 4) / image.rate
    change = np.stack([np.interp(hops, image.times, row) for row in change])
    change = np.stack([np.interp(bins, image.frequencies, column) for column in change.T], 1)
    gain = torch.from_numpy(10 ** (change / 20)).to(spectrum)
    return torch.istft(spectrum * gain, length, length // 4, window=window, length=waveform.shape[-1])
