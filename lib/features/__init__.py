"""Waveform to image in [0, 1]: STFT, scalogram ("DWT"), tonnetz, and the appended ones. Chapter 2."""

from lib.features.images import (
    ScalogramImage,
    STFTImage,
    TonnetzImage,
    append,
    from_sixteen_bits,
    sixteen_bits,
)
from lib.features.magnitude import log_view
from lib.features.resize import Resize
from lib.features.scalogram import Scalogram
from lib.features.stft import STFT
from lib.features.tonnetz import HOP as TONNETZ_HOP
from lib.features.tonnetz import RATE as TONNETZ_RATE
from lib.features.tonnetz import tonnetz

# What each representation is made of, from the lowest rows up.
PARTS = {
    "stft": ("stft",),
    "dwt": ("dwt",),
    "stft_tonnetz": ("stft", "tonnetz"),
    "dwt_tonnetz": ("dwt", "tonnetz"),
}
REPRESENTATIONS = tuple(PARTS)

__all__ = [
    "PARTS",
    "REPRESENTATIONS",
    "STFT",
    "TONNETZ_HOP",
    "TONNETZ_RATE",
    "Resize",
    "STFTImage",
    "Scalogram",
    "ScalogramImage",
    "TonnetzImage",
    "append",
    "from_sixteen_bits",
    "log_view",
    "sixteen_bits",
    "tonnetz",
]
