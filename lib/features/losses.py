"""What an image of a given size loses of three sounds that are known: a tone, clicks, and noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from lib.features.image import Image

CLICKS = 12
_TOP = 0.25  # of the rows, counted from the highest: where a click is shortest


def losses(images: Mapping[str, Image], floor: float, frequency: float = 880.0) -> pd.DataFrame:
    """Measure what each image shows of a steady tone, of clicks that are all alike, and of white noise.

    Parameters
    ----------
    images : name to image, all of one duration.
    floor : dB that is 0 in the images.

    Returns
    -------
    One row per image: *tone*, its brightest pixel in dB, which is 0 where nothing is lost; *clicks*, how
    many dB the faintest of them is below the brightest, which is 0 where none falls between two columns;
    *noise*, the spread (standard deviation) of its pixels in dB, which would be 0 if they showed its
    expected power: the more of the sound a pixel averages, the smaller.
    """
    rows = {}
    for name, image in images.items():
        t = np.arange(image.samples) / image.rate
        draw = np.random.default_rng(0)
        places = (np.arange(CLICKS) + draw.uniform(0.25, 0.75, CLICKS)) / CLICKS * image.samples
        clicks = np.zeros(image.samples)
        clicks[places.astype(int)] = 1.0
        sounds = np.stack([np.sin(2 * np.pi * frequency * t), clicks, draw.standard_normal(image.samples)])
        seen = image(torch.from_numpy(sounds.astype(np.float32))).numpy() * -floor + floor
        top = 10 ** (seen[1][-max(1, round(_TOP * seen.shape[1])) :] / 20)
        column = (places / image.samples * seen.shape[2]).astype(int)
        shown = [
            top[:, max(0, at - 1) : at + 2].sum(axis=1).max() for at in column
        ]  # two columns share a click
        brightness = 20 * np.log10(shown)
        middle = seen[:, :, seen.shape[2] // 8 : -seen.shape[2] // 8]
        rows[name] = (middle[0].max(), brightness.min() - brightness.max(), middle[2].std())
    columns = ["tone [dB]", "clicks [dB]", "noise [dB]"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
