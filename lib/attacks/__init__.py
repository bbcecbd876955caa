"""The attacks of the paper as Foolbox attacks: one attack, one equation, one file.

They know a model and images in its bounds, nothing of audio. Foolbox's own attacks and these run side
by side. Chapter 4 explains them, Section VI of the paper sets their budgets.

A module with a function ``ladders(size, *, seed, ...)`` is found by its name, ``BIM-a`` in ``bim.py``, and
returns the ladders of its attacks by name. So a new attack is one file here, and one entry in the registry
of names, where the chapters look for what to ask for.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from lib.attacks.accounting import COSTS, counting
from lib.attacks.bim import BIM
from lib.attacks.climb import climb
from lib.attacks.criteria import Confident, wrong_labels
from lib.attacks.cwa import CWA
from lib.attacks.ddn import DDN
from lib.attacks.deepfool import DeepFool
from lib.attacks.fgsm import FGSM
from lib.attacks.jsma import JSMA
from lib.attacks.judge import measure
from lib.attacks.ladder import Ladder, Rung
from lib.attacks.nes import NES
from lib.attacks.noise import Noise
from lib.attacks.pia import PIA, starting_points
from lib.attacks.pieces import Pieces

__all__ = [
    "BIM",
    "COSTS",
    "CWA",
    "DDN",
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


def ladders(
    size: tuple[int, int], *, only: Sequence[str], seed: int = 0, **settings: Any
) -> dict[str, Ladder]:
    """The ladder of each attack asked for, in that order, for images of ``size`` (rows, frames).

    Parameters
    ----------
    only : the attacks; ``BIM-a`` is made by the function ``ladders`` of ``bim.py``, and so for each.
    seed : of the attacks that draw.
    settings : an argument of such a function after its module's name, ``bim_steps=40``, or after the word
        that the module's ``SETTINGS`` names; what is not given is the paper's.

    Raises
    ------
    ValueError : if an attack or a setting is unknown, or a setting is out of its range; it is named.
    """
    makers = _makers()
    words = {f"{word}_{name}": name for word, make in makers.values() for name in _settings(make)}
    for setting in settings:
        if setting not in words:
            raise ValueError(f"setting {setting!r} is none of {', '.join(sorted(words))}")
    made: dict[str, Ladder] = {}
    for module in dict.fromkeys(key.lower().partition("-")[0] for key in only):
        if module in makers:
            word, make = makers[module]
            own = {f"{word}_{name}": name for name in _settings(make) if f"{word}_{name}" in settings}
            try:
                made |= make(size, seed=seed, **{name: settings[setting] for setting, name in own.items()})
            except ValueError as error:
                given = ", ".join(f"{setting} = {settings[setting]!r}" for setting in own)
                raise ValueError(f"{given}: {error}" if own else f"{module}: {error}") from error
    for key in only:
        if key not in made:
            raise ValueError(f"attack {key!r} is in none of the modules {', '.join(makers)}")
    return {key: made[key] for key in only}


def _makers() -> dict[str, tuple[str, Callable[..., dict[str, Ladder]]]]:
    """Of every module here that has a function ``ladders``: the word its settings begin with, and it."""
    makers = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "ladders"):
            makers[found.name] = (getattr(module, "SETTINGS", found.name), module.ladders)
    return makers


def _settings(make: Callable[..., dict[str, Ladder]]) -> list[str]:
    """The settings that a function ``ladders`` takes."""
    return [name for name in inspect.signature(make).parameters if name not in ("size", "seed")]
