"""A sound that can be played where it is read: compressed, and with its attribution."""

import base64
import html
import io

import numpy as np
import soundfile
from IPython.display import HTML

_COMPRESSION = 0.5  # of 0 … 1: half a minute of mono takes a quarter of a megabyte


def player(sound: np.ndarray, rate: int, caption: str, *, full_scale: float = 0.0) -> HTML:
    """A player for (samples,) at ``rate`` Hz below its caption.

    Full scale is the sound's own peak, or ``full_scale`` where that is larger: sounds that are compared
    by ear share one.
    """
    peak = max(float(np.abs(sound).max()), full_scale) or 1.0
    file = io.BytesIO()
    soundfile.write(file, 0.9 * sound / peak, rate, format="MP3", compression_level=_COMPRESSION)
    data = base64.b64encode(file.getvalue()).decode()
    return HTML(
        f"<figure><figcaption>{html.escape(caption)}</figcaption>"
        f'<audio controls src="data:audio/mpeg;base64,{data}"></audio></figure>'
    )
