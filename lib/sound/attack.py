"""An attack on the sound itself: its gradient goes through the representation to the samples. Chapter 7."""

from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy


def attack(
    victim: Callable[[torch.Tensor], torch.Tensor],
    image: Callable[[torch.Tensor], torch.Tensor],
    waveform: torch.Tensor,
    label: torch.Tensor,
    *,
    level: float,
    steps: int = 40,
) -> torch.Tensor:
    """Change sounds within a signal-to-noise ratio so that the victim misclassifies them.

    Projected gradient ascent of the cross-entropy through image and victim: steps along the normalised
    gradient, of a fifth of the radius and falling, back into the ball ‖w' − w‖₂ ≤ ‖w‖₂ · 10^(−SNR/20). A
    sound that is misclassified is not changed further.

    Parameters
    ----------
    victim : images (n, 1, rows, frames) to logits.
    waveform, label : (n, samples) and (n,).
    level : SNR in dB that is kept.

    Returns
    -------
    The changed sounds, (n, samples).
    """
    radius = waveform.norm(dim=-1, keepdim=True) * 10 ** (-level / 20)
    changed = waveform.detach().clone()
    active = torch.arange(len(waveform), device=waveform.device)
    for step in range(steps + 1):
        moving = changed[active].requires_grad_()
        logits = victim(image(moving)[:, None])
        still = logits.detach().argmax(1) == label[active]
        if step == steps or not still.any():
            break
        loss = cross_entropy(logits[still], label[active][still], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moving)
        active, gradient = active[still], gradient[still]
        size = radius[active] * 0.2 * (1 - step / steps)
        ahead = changed[active] + size * gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        change = ahead - waveform[active]
        shrink = (radius[active] / change.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp(max=1)
        changed[active] = waveform[active] + shrink * change
    return changed
