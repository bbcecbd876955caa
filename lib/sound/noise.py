"""Random noise of a given level: what an attack on the sound is compared with."""

import torch


def noisy(waveform: torch.Tensor, level: float, seed: int) -> torch.Tensor:
    """Sounds with white noise added, of exactly this signal-to-noise ratio, (n, samples).

    The draw of a sound depends on ``seed`` and its place in the batch only, on every device.

    Parameters
    ----------
    level : SNR in dB.
    """
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(waveform.shape, generator=draw).to(waveform)
    size = waveform.norm(dim=-1, keepdim=True) * 10 ** (-level / 20)
    return waveform + noise * size / noise.norm(dim=-1, keepdim=True)
