"""Resizing along one axis: linear interpolation that averages where it thins out."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

FEW = 4


class Resize(nn.Module):
    """Values of a row or column of pixels at other, evenly spaced positions, without aliasing.

    Each new value is a mean of the old ones weighted by a triangle around its position; the triangle
    reaches one old pixel to either side, or one new spacing where that is wider. Weights sum to one
    also at the ends. (The rule of PIL and of torch's ``interpolate(antialias=True)``, which place the
    new pixels themselves: here the caller says where they lie, so that axes of time agree.)

    Parameters
    ----------
    old : how many pixels there are.
    positions : where the new ones lie, evenly spaced, in old pixels from the centre of the first.
    dim : the axis, -2 for rows or -1 for columns.
    """

    def __init__(self, old: int, positions: np.ndarray, *, dim: int) -> None:
        super().__init__()
        spacing = float(np.diff(positions).mean()) if len(positions) > 1 else float(old)
        reach = max(1.0, spacing)
        first = np.ceil(positions - reach).astype(int)
        taps = first[:, None] + np.arange(int(np.floor(2 * reach)) + 1)
        weights = np.maximum(0, 1 - np.abs(taps - positions[:, None]) / reach) * ((taps >= 0) & (taps < old))
        used = (weights > 0).any(axis=0)
        weights, taps = weights[:, used], taps[:, used].clip(0, old - 1)
        self.dim, self.old = dim, old
        weights /= weights.sum(axis=1, keepdims=True)
        # Few weights a pixel are gathered, many are a product with the matrix that they are part of.
        matrix = np.zeros((len(positions), old) if weights.shape[1] > FEW else (0, 0))
        if matrix.size:
            np.add.at(matrix, (np.arange(len(positions))[:, None], taps), weights)
        self.register_buffer("matrix", torch.from_numpy(matrix), persistent=False)
        self.register_buffer("taps", torch.from_numpy(taps.T.copy()), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights.T.copy()), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(…, rows, columns) with the axis resized.

        Raises
        ------
        ValueError : if the axis has another number of pixels than was said.
        """
        if pixels.shape[self.dim] != self.old:
            raise ValueError(f"resizes an axis of {self.old} pixels, given {pixels.shape[self.dim]}")
        if self.matrix.numel():
            matrix = self.matrix.to(pixels.dtype)
            return matrix @ pixels if self.dim == -2 else pixels @ matrix.T
        weights = self.weights.to(pixels.dtype)
        if self.dim == -2:
            weights = weights[..., None]
        resized = pixels.index_select(self.dim, self.taps[0]) * weights[0]
        for tap, weight in zip(self.taps[1:], weights[1:], strict=True):
            resized.addcmul_(pixels.index_select(self.dim, tap), weight)
        return resized
