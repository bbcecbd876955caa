"""From an adversarial image back to a sound, attacks on the sound itself, and what of either is heard.

An image is all that an attack on a representation changes; whether there is a sound with that image is
another question. Everything here takes a differentiable ``image``, waveforms (n, samples) to images
(n, rows, frames) in [0, 1], such as `features.STFTImage`, and tensors. Chapter 7 explains it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import soxr
import torch
from torch.nn.functional import cross_entropy

Image = Callable[[torch.Tensor], torch.Tensor]
SEGMENT = 0.02  # s, of segmental SNR
AUDIBLE = (-10.0, 35.0)  # dB between which a segment's SNR counts (Deller et al., 1993)


def snr(original: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """10 log₁₀ of the energy of a sound over that of its change, in dB, (n,); ∞ where nothing changed."""
    change = (changed - original).double().square().sum(-1)
    return 10 * torch.log10(original.double().square().sum(-1) / change)


def segmental_snr(original: torch.Tensor, changed: torch.Tensor, rate: int) -> torch.Tensor:
    """The mean over segments of 20 ms of their SNR, each kept within −10 and 35 dB, in dB, (n,).

    Segments in which the sound is silent (100 dB below its loudest) are left out.
    """
    length = max(1, round(SEGMENT * rate))
    count = original.shape[-1] // length
    parts = [x[..., : count * length].double().unflatten(-1, (count, length)) for x in (original, changed)]
    energy = parts[0].square().sum(-1)
    ratio = 10 * torch.log10(energy / (parts[1] - parts[0]).square().sum(-1).clamp_min(1e-30))
    heard = energy > energy.amax(-1, keepdim=True) * 1e-10
    return ratio.clamp(*AUDIBLE).where(heard, torch.nan).nanmean(-1)


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


def attack(
    victim: Callable[[torch.Tensor], torch.Tensor],
    image: Image,
    waveform: torch.Tensor,
    label: torch.Tensor,
    *,
    level: float,
    steps: int = 40,
) -> torch.Tensor:
    """Change sounds within a signal-to-noise ratio so that the victim names them wrongly.

    Projected gradient ascent of the cross-entropy through image and victim: steps along the normalised
    gradient, of a fifth of the radius and falling, back into the ball ‖w' − w‖₂ ≤ ‖w‖₂ · 10^(−SNR/20). A
    sound that is named wrongly stays as it is from then on.

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


def transfer(
    victims: Mapping[str, Callable[[torch.Tensor], torch.Tensor]],
    originals: torch.Tensor,
    examples: Mapping[str, torch.Tensor],
    label: torch.Tensor,
) -> pd.DataFrame:
    """How often examples made against one victim fool another: made against × shown to, in [0, 1].

    Counted over clips that the victim shown to names rightly, and on which the example fooled the victim
    that it was made against; NaN where there is none.

    Parameters
    ----------
    victims : name to model, images (n, 1, rows, frames) to logits.
    originals : (n, 1, rows, frames).
    examples : the name of a victim to the examples made against it, as originals.
    """
    with torch.no_grad():
        right = {name: victim(originals).argmax(1) == label for name, victim in victims.items()}
        rates = {}
        for source, images in examples.items():
            wrong = {name: victim(images).argmax(1) != label for name, victim in victims.items()}
            fooled = wrong[source] & right[source]
            rates[source] = {
                name: float(wrong[name][fooled & right[name]].double().mean())
                if (fooled & right[name]).any()
                else np.nan
                for name in victims
            }
    return pd.DataFrame.from_dict(rates, orient="index", columns=list(victims)).rename_axis("made against")


def least_levels(named_wrongly: Mapping[float, Sequence[bool]]) -> np.ndarray:
    """The highest SNR [dB] at which each sound was fooled; −∞ where it was at none."""
    levels = np.array(sorted(named_wrongly))
    fooled = np.array([named_wrongly[level] for level in levels])
    return np.where(fooled.any(0), np.where(fooled, levels[:, None], -np.inf).max(0), -np.inf)


def resample(waveform: np.ndarray, rate: int, wanted: int, samples: int) -> np.ndarray:
    """A sound at another rate, cut or followed by zeros to ``samples``; float32."""
    other = soxr.resample(waveform.astype(np.float32), rate, wanted, quality="HQ")[:samples]
    return np.pad(other, (0, samples - len(other)))
