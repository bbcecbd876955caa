"""How loud a change of a sound must be to fool a model: by an attack, and by the controls beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch

from lib.sound.attack import attack
from lib.sound.noise import noisy

Images = Callable[[torch.Tensor], torch.Tensor]


def strength(
    victim: Images,
    image: Images,
    waveform: torch.Tensor,
    label: torch.Tensor,
    levels: Sequence[float],
    *,
    steps: int,
    floor: float,
    seed: int = 0,
    progress: Callable = lambda levels, what: levels,
) -> pd.DataFrame:
    """How many sounds are misclassified when changed within each signal-to-noise ratio.

    Three changes: ``attack``; ``noise`` of the same ratio; and ``attack, raised floor``, the attack on a
    victim that sees everything below ``floor`` at ``floor``, so that faint changes of silence cannot matter.

    Parameters
    ----------
    victim : images (n, 1, rows, frames) to logits.
    image : waveforms to images (n, rows, frames) in [0, 1], with its own ``floor`` in dB.
    waveform, label : (n, samples) and (n,), on the victim's device.

    Returns
    -------
    One row per level and change: snr, change, fooled, over, clips, flags. ``over`` counts the clips that the
    victim classifies correctly as they are, ``fooled`` those of them that it misclassifies changed; ``clips``
    are the places of the former, and ``flags`` whether each is among the latter.

    Raises
    ------
    ValueError : if ``floor`` is not within the range of the images.
    """
    if not image.floor <= floor < 0:
        raise ValueError(f"floor = {floor} dB is outside [{image.floor:g}, 0), the range of the images")
    lowest = 1 - floor / image.floor

    def raised(sound: torch.Tensor) -> torch.Tensor:
        return image(sound).clamp(min=lowest)

    def correct(view: Images, sound: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return victim(view(sound)[:, None]).argmax(1) == label

    rows = []
    plain = {view: correct(view, waveform) for view in (image, raised)}
    for level in progress(levels, "levels of the waveform attack"):
        changes = {
            "attack": (image, attack(victim, image, waveform, label, level=level, steps=steps)),
            "noise": (image, noisy(waveform, level, seed)),
            "attack, raised floor": (
                raised,
                attack(victim, raised, waveform, label, level=level, steps=steps),
            ),
        }
        for name, (view, changed) in changes.items():
            clips = plain[view].nonzero()[:, 0]
            flags = (~correct(view, changed))[clips].tolist()
            rows.append((level, name, sum(flags), len(flags), clips.tolist(), flags))
    return pd.DataFrame(rows, columns=["snr", "change", "fooled", "over", "clips", "flags"])
