"""How large the change of a sound is: signal-to-noise ratio, over all of it and segment by segment."""

import torch

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
