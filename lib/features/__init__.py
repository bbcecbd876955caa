"""Waveform to image in [0, 1]: STFT, scalogram ("DWT"), tonnetz, and the appended ones. Chapter 2.

A representation is named by its parts, joined by ``_``, from the lowest rows up: ``dwt_tonnetz`` is the
scalogram with the tonnetz appended above it. The part ``NAME`` is the module ``lib/features/NAME.py`` with
its `Image` class named ``IMAGE``; it is found by its name, and no list holds it.
"""

import importlib
from pathlib import Path

from lib.features.image import Image

FOLDER = Path(__file__).parent


def image_of(part: str) -> type[Image] | None:
    """The class of a part's images, or None where no module of this folder has that name and a class."""
    if not part.isidentifier() or not (FOLDER / f"{part}.py").is_file():
        return None
    return getattr(importlib.import_module(f"lib.features.{part}"), "IMAGE", None)


def parts(representation: str) -> dict[str, type[Image]]:
    """The parts of a representation and the classes of their images, from the lowest rows up.

    Raises
    ------
    ValueError : if a part is unknown or named twice, or cannot stand alone.
    """
    words = representation.split("_")
    found = {word: image_of(word) for word in words}
    for word, image in found.items():
        if image is None:
            there = sorted(path.stem for path in FOLDER.glob("*.py") if image_of(path.stem))
            raise ValueError(
                f"representation = {representation!r}: {word!r} is none of the parts {', '.join(there)}"
            )
    if len(found) < len(words) or not found[words[0]].first:
        raise ValueError(
            f"representation = {representation!r}: a spectrogram comes first, and each part once"
        )
    return found
