"""The attacks of the paper as Foolbox attacks: one attack, one equation, one file; ``ALL`` lists them.

They know a model and images in its bounds, nothing of audio. Foolbox's own attacks and these run side
by side. Chapter 4 explains them, Section VI of the paper sets their budgets.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from lib.attacks import bim, cwa, deepfool, fgsm, jsma, noise, pia
from lib.attacks.accounting import COSTS, counting
from lib.attacks.bim import BIM
from lib.attacks.criteria import Confident, wrong_labels
from lib.attacks.cwa import CWA
from lib.attacks.deepfool import DeepFool
from lib.attacks.fgsm import FGSM
from lib.attacks.jsma import JSMA
from lib.attacks.ladder import Ladder, Pieces, Rung, climb, measure
from lib.attacks.nes import NES
from lib.attacks.noise import Noise
from lib.attacks.pia import PIA, starting_points

__all__ = [
    "ALL",
    "BIM",
    "CONTROLS",
    "COSTS",
    "CWA",
    "FGSM",
    "JSMA",
    "NES",
    "PIA",
    "Confident",
    "DeepFool",
    "Ladder",
    "Noise",
    "Pieces",
    "Rung",
    "climb",
    "counting",
    "ladders",
    "measure",
    "starting_points",
    "wrong_labels",
]

ALL: dict[str, tuple[str, Callable[..., Ladder]]] = {
    "BIM-a": ("bim", bim.early),
    "BIM-b": ("bim", bim.full),
    "JSMA": ("jsma", jsma.ladder),
    "DeepFool": ("deepfool", deepfool.ladder),
    "CWA": ("cwa", cwa.ladder),
    "PIA": ("pia", pia.ladder),
}
"""The attacks in the paper's order: name, the word its settings begin with, what makes its ladder."""

CONTROLS: dict[str, tuple[str, Callable[..., Ladder]]] = {
    "FGSM": ("bim", fgsm.ladder),
    "noise": ("bim", noise.ladder),
}
"""What the attacks are held against: one step instead of many, and no direction at all."""


def ladders(
    size: tuple[int, int], *, only: Sequence[str] = (), seed: int = 0, **settings: Any
) -> dict[str, Ladder]:
    """The ladder of every attack and control, in order, for images of ``size`` (rows, frames).

    Parameters
    ----------
    only : the names wanted; all where it is empty.
    seed : of the attacks that draw.
    settings : a setting of an attack after its word, ``bim_steps=40``, ``jsma_thetas=[0.2, 0.4]``; what is
        not given is the paper's.

    Raises
    ------
    ValueError : if an attack or a setting is unknown.
    """
    listed = ALL | CONTROLS
    for name in only:
        if name not in listed:
            raise ValueError(f"attack {name!r} is none of {', '.join(listed)}")
    made, known = {}, set()
    for name, (word, make) in listed.items():
        takes = set(inspect.signature(make).parameters) - {"size"}
        known |= {f"{word}_{setting}" for setting in takes - {"seed"}}
        own = {s.removeprefix(f"{word}_"): value for s, value in settings.items() if s.startswith(f"{word}_")}
        own = {setting: value for setting, value in own.items() if setting in takes}
        if "seed" in takes:
            own["seed"] = seed
        if not only or name in only:
            made[name] = make(size, **own)
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"setting {unknown[0]!r} is none of {', '.join(sorted(known))}")
    return made
