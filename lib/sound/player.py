"""A sound that a notebook plays: compressed, so that an executed chapter stays small."""

import io

import numpy as np
import soundfile
from IPython.display import Audio


def player(sound: np.ndarray, rate: float) -> Audio:
    """An MP3 of a mono sound in [-1, 1]; louder ones are scaled down. A few kilobytes a second."""
    sound = np.asarray(sound, np.float32)
    file = io.BytesIO()
    soundfile.write(file, sound / max(1.0, np.abs(sound).max()), int(rate), format="MP3")
    shown = Audio(data=file.getvalue())
    shown.mimetype = "audio/mpeg"
    return shown
