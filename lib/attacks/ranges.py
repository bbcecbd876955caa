"""The ranges of settings: what is outside is refused in one sentence that names it, and what is allowed."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any


def number(**settings: Any) -> None:
    """Refuse a setting that is not a finite number."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"{name} is a finite number, not {value!r}")


def positive(**settings: Any) -> None:
    """Refuse a setting that is not a finite number above zero."""
    number(**settings)
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} is above 0, not {value!r}")


def not_negative(**settings: Any) -> None:
    """Refuse a setting that is not a finite number of at least zero."""
    number(**settings)
    for name, value in settings.items():
        if value < 0:
            raise ValueError(f"{name} is not negative, this is {value!r}")


def share(**settings: Any) -> None:
    """Refuse a setting that is not a number in [0, 1]."""
    number(**settings)
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is a number in [0, 1], not {value!r}")


def whole(least: int = 1, **settings: Any) -> None:
    """Refuse a setting that is not a whole number of at least ``least``."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name} is a whole number, not {value!r}")
        if value < least:
            raise ValueError(f"{name} is at least {least}, not {value!r}")


def several(check: Callable[..., None], **settings: Any) -> None:
    """Refuse a setting that is not a sequence of at least one value, each of which ``check`` accepts."""
    for name, values in settings.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} are at least one value in a list, not {values!r}")
        for value in values:
            check(**{f"each of {name}": value})


def flag(**settings: Any) -> None:
    """Refuse a setting that is not True or False."""
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} is True or False, not {value!r}")
