"""The words of make's command line: what cannot be part of a path or of a recipe is refused here.

Nothing is looked up but where paths lead. It needs the standard library and the registry of names alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lib import names

AXES = ("DATASETS", "REPRESENTATIONS", "MODELS", "FOLDS", "TRAININGS")
PATHS = ("BUILD", "DATA", "PARAMS")
_KNOWN = {"REPRESENTATIONS": names.REPRESENTATIONS, "MODELS": names.MODELS, "TRAININGS": names.TRAININGS}
_MAY_BE_EMPTY = ("MODELS", "FOLDS")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FOLD = re.compile(r"[1-9][0-9]*(\.[1-9][0-9]*)?")
_OF_A_SHELL = ";&|<>`\"'*?\\$()"
_OF_MAKE = " %:={}#[]~"
_OF_THE_STUDY = (".git", "figures", "lib", "notebooks", "params", "tests")


class Refused(ValueError):
    """A word, file or folder that is not as it has to be, in one sentence."""


def check(given: Mapping[str, str]) -> None:
    """Refuse words that cannot be part of a path or of a recipe; nothing is looked up.

    Raises
    ------
    Refused : naming the variable, the value found and what is allowed.
    """
    for name in PATHS:
        _path(name, given[name])
    _build(Path(given["BUILD"]), Path(given["DATA"]))
    for name in AXES:
        words = split(given, name)
        if name in given and not words and name not in _MAY_BE_EMPTY:
            raise Refused(f"{name}={given[name]!r}: at least one name is needed")
        for word in words:
            wrong = _wrong(name, word)
            if wrong:
                raise Refused(f"{name}={given[name]!r}: {word!r} {wrong}")
    for name, least in (("THREADS", 1), ("TIMEOUT", 0)):
        text = given.get(name, str(least))
        if (text or name == "TIMEOUT") and not (re.fullmatch("[0-9]{1,9}", text) and int(text) >= least):
            raise Refused(f"{name}={text!r}: a whole number from {least} on is needed")


def split(given: Mapping[str, str], name: str) -> list[str]:
    """The words of an axis, each once; plain spaces separate them."""
    return [word for word in dict.fromkeys(given.get(name, "").split(" ")) if word]


def _wrong(name: str, word: str) -> str:
    """What is wrong with a word of an axis; empty where it is allowed."""
    if not _WORD.fullmatch(word):
        return (
            "is not allowed; a word has letters, digits, '_', '-' and '.', and begins with a letter or digit"
        )
    if name == "FOLDS" and not _FOLD.fullmatch(word):
        return "is no fold; a fold is a number, such as 1, or 1.3 for fold 1 with seed 3"
    known = _KNOWN.get(name, [word])
    return "" if word in known else f"is not known; known are {' '.join(known)}"


def _path(name: str, text: str) -> None:
    if not text.strip() or text[0] in "-~" or text != text.strip():
        raise Refused(f"{name}={text!r}: a path is needed that does not begin with '-', '~' or white space")
    also = "" if name == "DATA" else _OF_MAKE
    for letter in text:
        if letter in _OF_A_SHELL + also or not (letter.isprintable() or "\udc80" <= letter <= "\udcff"):
            others = f", spaces and {also.strip()}" if also else ""
            raise Refused(
                f"{name}={text!r}: {letter!r} is not allowed in this path, nor are {_OF_A_SHELL}{others}; no "
                "path may have white space other than a plain space"
            )


def _build(build: Path, data: Path) -> None:
    """Refuse a BUILD that ``make clean`` must never empty."""
    here = build.resolve()
    for what, kept in (("this checkout", Path.cwd()), ("the home folder", Path.home()), ("DATA", data)):
        if kept.resolve().is_relative_to(here):
            kept = kept.resolve()
            raise Refused(f"BUILD={str(build)!r}: it is or contains {what}, {kept}; name a folder of its own")
    for name in _OF_THE_STUDY:
        if here.is_relative_to(Path(name).resolve()):
            raise Refused(
                f"BUILD={str(build)!r}: it is in {name}, a folder of the study; name one of its own"
            )
