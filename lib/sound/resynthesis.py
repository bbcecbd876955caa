"""From an adversarial image back to a sound whose image is nearest to it.

An image is all that an attack on a representation changes; whether there is a sound with that image is
another question. ``image`` is differentiable, waveforms (n, samples) to images (n, rows, frames) in [0, 1],
such as `lib.features.stft.STFTImage`. Chapter 7 explains it.
"""

from collections.abc import Callable

import torch

Image = Callable[[torch.Tensor], torch.Tensor]


def resynthesise(
    image: Image, waveform: torch.Tensor, wanted: torch.Tensor, *, steps: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    """A waveform near the original whose image is near the wanted one, by least squares.

    Descends ‖image(w) − wanted‖² from the original waveform, whose phase it therefore keeps; the gradient
    is the adjoint of the transform applied to what is missing. Steps have Barzilai and Borwein's length
    (1988), and one that leads astray is taken back and shortened. No image need belong to any sound: the
    distance that is left says how far this one is from doing so.

    Parameters
    ----------
    waveform : (n, samples), the original sounds.
    wanted : (n, rows, frames), adversarial images.
    steps : gradients taken.

    Returns
    -------
    The waveforms with the least distance met, (n, samples), and that distance ‖image(w) − wanted‖₂, (n,).
    """
    peak = waveform.abs().amax(-1, keepdim=True).clamp_min(1e-9)
    start = (waveform / peak).detach()
    sound = best = start
    least = torch.full((len(start), 1), torch.inf, device=start.device)
    length = torch.full_like(least, 1e-4) * start.norm(dim=-1, keepdim=True)  # of the first step
    before = slope_before = best_slope = torch.zeros_like(start)
    for step in range(steps + 1):
        moving = sound.detach().requires_grad_()
        distance = (image(moving) - wanted).flatten(1).square().sum(1, keepdim=True)
        (slope,) = torch.autograd.grad(distance.sum(), moving)
        distance = distance.detach()
        if step == 0:
            rate = length / slope.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        else:
            moved, turned = sound - before, slope - slope_before
            bent = (moved * turned).sum(-1, keepdim=True)
            bold = moved.square().sum(-1, keepdim=True) / bent.clamp_min(1e-30)
            rate = torch.where(bent > 0, bold, 2 * rate)
        better, astray = distance < least, distance > 2 * least
        best, best_slope = torch.where(better, sound, best), torch.where(better, slope, best_slope)
        least = torch.minimum(distance, least)
        shorter = (
            0.1
            * (sound - best).norm(dim=-1, keepdim=True)
            / best_slope.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        )
        rate = torch.where(astray, shorter, rate)
        before, slope_before = torch.where(astray, best, sound), torch.where(astray, best_slope, slope)
        sound = before - rate * slope_before
    return best * peak, least[:, 0].sqrt()
