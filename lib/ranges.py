"""What settings may be: those of a chapter at its beginning, an attack and an image in their constructors.

A rule is for the settings whose names it gets as words of one text.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

LONGEST = 60  # letters of a value that a message repeats


class Rule(NamedTuple):
    """``holds`` says whether a value of one of these parameters is ``allowed``, which is in words."""

    names: list[str]
    allowed: str
    holds: Callable[[Any], bool]
    may_be_empty: bool = False

    def complaints(self, values: Mapping[str, Any]) -> Iterator[str]:
        """A sentence for each value that is not allowed."""
        for name in self.names:
            value = values[name]
            items = (
                {f"{name}[{i}]": item for i, item in enumerate(value)}
                if isinstance(value, list)
                else {name: value}
            )
            if not items and not self.may_be_empty:
                yield f"{name} = [] must have at least one value, {self.allowed}"
            for which, item in items.items():
                if not self.holds(item):
                    yield f"{which} = {_short(item)} must be {self.allowed}"


class Taken(NamedTuple):
    """Parameters that ``maker``, a constructor or a function, takes by these names and checks itself."""

    names: list[str]
    maker: Callable[..., Any]

    def complaints(self, values: Mapping[str, Any]) -> Iterator[str]:
        """What the maker refuses."""
        try:
            self.maker(**{name: values[name] for name in self.names})
        except ValueError as error:
            yield str(error)


def check(values: Mapping[str, Any], *rules: Rule | Taken) -> None:
    """Refuse parameters of a chapter that are out of their ranges; of a list every item is in question.

    Raises
    ------
    ValueError : naming each of them, its value and what is allowed.
    """
    found = [line for rule in rules for line in rule.complaints(values)]
    if found:
        raise ValueError("; ".join(dict.fromkeys(found)))


def refuse(values: Mapping[str, Any], *rules: Rule) -> None:
    """Refuse settings that are out of their ranges; a list is none but where its rule is for :func:`several`.

    Raises
    ------
    ValueError : naming each of them, its value and what is allowed.
    """
    wrong = [(name, rule) for rule in rules for name in rule.names if not rule.holds(values[name])]
    if wrong:
        said = (f"{name} = {_short(values[name])} must be {rule.allowed}" for name, rule in wrong)
        raise ValueError("; ".join(said))


def several(rule: Rule) -> Rule:
    """At least one value in a list or tuple, each as ``rule`` allows."""

    def holds(values: Any) -> bool:
        return isinstance(values, Sequence) and len(values) > 0 and all(map(rule.holds, values))

    return Rule(rule.names, f"a list of at least one value, each {rule.allowed}", holds)


def taken(names: str, maker: Callable[..., Any]) -> Taken:
    """Parameters that a dataclass or a function takes by these names and checks itself."""
    unknown = set(names.split()) - set(inspect.signature(maker).parameters)
    if unknown:
        raise TypeError(f"{maker.__name__} takes no {', '.join(sorted(unknown))}")
    return Taken(names.split(), maker)


def whole(names: str, least: int, *, multiple_of: int = 1) -> Rule:
    """Whole numbers from ``least`` on."""
    kind = "a whole number" if multiple_of == 1 else f"a multiple of {multiple_of}"

    def holds(value: Any) -> bool:
        known = isinstance(value, Integral) and not isinstance(value, bool)
        return known and value >= least and value % multiple_of == 0

    return Rule(names.split(), f"{kind} of at least {least}", holds)


def number(names: str, least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf) -> Rule:
    """Finite numbers from ``least`` to ``most``, and ``above`` a bound."""
    bounds = {"above": above, "at least": least, "at most": most}
    limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))

    def holds(value: Any) -> bool:
        known = isinstance(value, Real) and not isinstance(value, bool)
        known = known and abs(value) <= sys.float_info.max
        return known and least <= value <= most and value > above

    return Rule(names.split(), f"a finite number {limits}".rstrip(), holds)


def flag(names: str) -> Rule:
    """True or False."""
    return Rule(names.split(), "True or False", lambda value: type(value) is bool)


def one_of(names: str, choices: Collection[str]) -> Rule:
    """One of a few words."""
    return Rule(names.split(), f"one of {', '.join(choices)}", lambda value: value in choices)


def some_of(names: str, choices: Collection[str]) -> Rule:
    """A text of words, each one of a few; it may be empty."""
    allowed = f"empty, or some of {', '.join(choices)}"
    return Rule(names.split(), allowed, lambda value: set(str(value).split()) <= set(choices))


def text(names: str, pattern: str, allowed: str) -> Rule:
    """A text of a form, given as a regular expression and in words."""
    return Rule(names.split(), allowed, lambda value: re.fullmatch(pattern, str(value), re.ASCII) is not None)


def path(names: str) -> Rule:
    """A path, or none, in letters that can be printed."""
    return Rule(
        names.split(), "a path that can be printed in one line", lambda value: str(value).isprintable()
    )


def device(names: str) -> Rule:
    """A device by its name."""
    return text(names, r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:N")


def as_many(names: str, unless: str) -> Taken:
    """Two lists of the same length, unless a flag is set."""
    one, other = names.split()

    def paired(**lists: Any) -> None:
        if len(lists[one]) != len(lists[other]) and not lists[unless]:
            counts = f"{len(lists[one])} and {len(lists[other])}"
            raise ValueError(f"{one} and {other} must have as many values as each other, not {counts}")

    return Taken([one, other, unless], paired)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
