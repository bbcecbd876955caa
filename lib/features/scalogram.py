"""The scalogram: magnitude of a continuous wavelet transform, exact at the few times that are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.special
import torch
from torch import nn

from lib import ranges
from lib.features import checks
from lib.features.magnitude import magnitude

NEGLIGIBLE = 1e-6  # of its peak: where the wavelet, in time or in frequency, counts as zero
LARGEST_FACTOR = 13  # sizes that are products of primes up to it transform fast
PASS = 0.475  # of the rate: what sounds below it counts whole, and fades out to half the rate above it


class Plan(NamedTuple):
    """How clips of one length are transformed; see :class:`Scalogram`."""

    padded: int  # N', samples of the clip with silence appended
    points: int  # M', frames of the padded clip
    first: np.ndarray  # of each scale, the lowest bin of the padded spectrum that it hears
    count: np.ndarray  # of each scale, how many bins it hears
    mirrored: int  # bins of negative frequency that some scale hears


class Scalogram(nn.Module):
    """|W(s, τ)| of waveforms, W(s, τ) = 1/√s ∫ a(t) ψ*((t − τ)/s) dt, Eqs. 11 to 13. Chapter 2.

    ψ(t) = 1/√(πB) · exp(−t²/B) · exp(2πiCt) is the complex Morlet that PyWavelets names ``cmorB-C``,
    with its scales (in samples) and frequencies, C · rate / s. Eq. 12 is B = 2, C = 6 / 2π.

    The clip counts as band-limited and silent outside, so that in frequency the transform is
    Ŵ(s, f) = √s · â(f) · g(f) · exp(−π²B(sf − C)²) up to half the sampling rate. The fade g is 1 below
    0.475 of the rate and falls smoothly to 0 at half of it. An edge there, which the wavelets of the
    highest rows reach, would ring through the whole clip and around its ends. Only ``frames`` samples of
    each W(s, ·) are kept, and they are had without the others: keeping every H-th sample of a signal is
    folding its spectrum modulo 1/H, for any H, a whole number or not. So each scale costs one product with
    the few bins that it hears, their sum modulo M' bins, and one inverse transform of M' points. The result
    is the full-rate transform of the faded clip at those times, to rounding error, for every length and
    every ``fmax`` up to half the rate.

    Parameters
    ----------
    rate : samples a second of the waveforms.
    bins : scales, at logarithmically spaced frequencies from ``fmin`` to ``fmax`` (both included).
    frames : columns, each at the middle of its share of the clip.
    fmin, fmax : lowest and highest centre frequency in Hz; ``fmax`` 0 is 0.475 · rate.
    bandwidth, centre : B and C of the wavelet.

    Called with (…, samples), returns (…, bins, frames), lowest frequency first.

    Raises
    ------
    ValueError : if a size or rate is not above zero, the band is empty or leaves Nyquist's, or a
        waveform is not finite floating point of at least two samples, or shorter than its frames.

    Notes
    -----
    Differentiable by autograd on every device; at digital silence the gradient is zero, not NaN.
    """

    def __init__(
        self,
        rate: float,
        *,
        bins: int = 768,
        frames: int = 1568,
        fmin: float = 60.0,
        fmax: float = 0.0,
        bandwidth: float = 2.0,
        centre: float = 6 / (2 * math.pi),
    ) -> None:
        super().__init__()
        ranges.refuse(locals(), ranges.number("rate bins frames fmin bandwidth centre", above=0))
        fmax = fmax or PASS * rate
        if fmax > rate / 2:
            raise ValueError(f"fmax = {fmax:g} Hz is above half the rate, {rate / 2:g} Hz")
        if fmin > fmax:
            raise ValueError(f"fmin = {fmin:g} Hz is above fmax = {fmax:g} Hz")
        self.rate, self.bins, self.frames = rate, bins, frames
        self.bandwidth, self.centre = bandwidth, centre
        self.frequencies = np.geomspace(fmin, fmax, bins)
        self._kept: dict = {}  # plans and gains of the last length of clips

    @property
    def scales(self) -> np.ndarray:
        """s of each row, in samples, as PyWavelets counts them."""
        return self.centre * self.rate / self.frequencies

    def times(self, samples: int) -> np.ndarray:
        """Seconds from the clip's beginning at which its columns are taken."""
        plan = self._plan(samples)
        return (np.arange(self.frames) + 0.5) * plan.padded / plan.points / self.rate

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Magnitudes, (…, bins, frames)."""
        waveform = checks.waveform(waveform, 2, "the scalogram")
        clips = waveform.reshape(-1, waveform.shape[-1])
        recorded = torch.is_grad_enabled() and waveform.requires_grad
        plain = waveform.device.type == "cpu" and waveform.dtype != torch.float64 and not recorded
        found = self._compiled(clips) if plain else self._general(clips)
        return found.reshape(*waveform.shape[:-1], self.bins, self.frames)

    def _turned(self, spectra: torch.Tensor, samples: int) -> torch.Tensor:
        """(clips, bins of the padded spectrum), faded, from the lowest bin that any scale hears."""
        plan = self._plan(samples)
        # A column lies in the middle of its share of the clip, so the clip moves half a share to the left.
        spectra = spectra * self._keep(("turn", samples, spectra.dtype, spectra.device), self._turned_fade)
        if not plan.mirrored:
            return spectra
        return torch.cat([spectra[:, 1 : plan.mirrored + 1].flip(1).conj().resolve_conj(), spectra], dim=1)

    def _turned_fade(self, samples: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        plan = self._plan(samples)
        bins = np.arange(plan.padded // 2 + 1)
        turn = np.exp(1j * np.pi * bins / plan.points)
        return torch.from_numpy(turn * fade(bins / plan.padded)).to(device, dtype)

    def _compiled(self, clips: torch.Tensor) -> torch.Tensor:
        """Magnitudes on the CPU, clip by clip in one piece of memory."""
        from lib.features import folding

        samples = clips.shape[-1]
        plan = self._plan(samples)
        # Here scipy is faster with real numbers, and torch with complex ones.
        spectra = torch.from_numpy(scipy.fft.rfft(clips.float().numpy(), plan.padded))
        gains = self._keep(("gains", samples), self._gains)
        room = self._keep(("room", samples), self._room)
        found = np.empty((len(clips), self.bins, self.frames), np.float32)
        for clip, out in zip(self._turned(spectra, samples).numpy(), found, strict=True):
            first = plan.first + plan.mirrored
            folding.fold(clip.real.copy(), clip.imag.copy(), gains, first, plan.count, room)
            rows = torch.fft.ifft(torch.from_numpy(room), norm="forward").numpy()
            np.abs(rows[:, : self.frames], out=out)
        return torch.from_numpy(found)

    def _room(self, samples: int) -> np.ndarray:
        return np.empty((self.bins, self._plan(samples).points), np.complex64)

    def _general(self, clips: torch.Tensor) -> torch.Tensor:
        """Magnitudes on any device, differentiable: multiply and fold by blocks of scales."""
        samples = clips.shape[-1]
        plan = self._plan(samples)
        clips = clips if clips.dtype == torch.float64 else clips.float()
        spectra = self._turned(torch.fft.rfft(clips, plan.padded), samples)
        parts = torch.view_as_real(spectra).permute(2, 0, 1)  # (2, clips, bins)
        rows = []
        for start, gains in self._keep(("blocks", samples, parts.dtype, parts.device), self._blocks):
            width = plan.points * gains.shape[1]
            heard = parts[..., start + plan.mirrored :][..., :width]
            heard = nn.functional.pad(heard, (0, width - heard.shape[-1]))
            heard = heard.reshape(-1, gains.shape[1], plan.points).permute(2, 0, 1)
            rows.append((heard @ gains).permute(1, 2, 0))  # (2 · clips, scales, points)
        real, imaginary = torch.cat(rows, dim=1).unflatten(0, (2, -1))
        folded = torch.complex(real, imaginary)
        return magnitude(torch.fft.ifft(folded, norm="forward")[..., : self.frames])

    def _keep(self, key: tuple, make: Callable) -> Any:
        """What ``make`` returns for the rest of ``key``, remembered for the lengths seen last."""
        if key not in self._kept:
            if len(self._kept) >= 8:
                self._kept.clear()
            self._kept[key] = make(*key[1:])
        return self._kept[key]

    def _plan(self, samples: int) -> Plan:
        return self._keep(("plan", samples), self._make_plan)

    def _make_plan(self, samples: int) -> Plan:
        hop = samples / self.frames
        if hop < 1:
            raise ValueError(f"{self.frames} columns are more than the {samples} samples of the clip")
        # Silence appended once keeps the clip's end and beginning apart in both directions.
        reach = self.scales.max() * math.sqrt(self.bandwidth * math.log(1 / NEGLIGIBLE))
        points, padded = _sizes(hop, math.ceil((samples + reach) / hop))
        spread = math.sqrt(math.log(1 / NEGLIGIBLE) / self.bandwidth) / (math.pi * self.centre)
        first = np.floor(self.frequencies * (1 - spread) * padded / self.rate).astype(np.int64)
        last = np.ceil(self.frequencies * (1 + spread) * padded / self.rate).astype(np.int64)
        first = np.maximum(first, -((padded - 1) // 2))
        last = np.minimum(last, padded // 2)
        return Plan(padded, points, first, last - first + 1, max(0, -int(first.min())))

    def _gain(self, samples: int, rows: slice, bins: np.ndarray) -> np.ndarray:
        """(rows, bins): what each scale multiplies these bins of the padded spectrum with."""
        padded = self._plan(samples).padded
        s = self.scales[rows, None]
        bell = np.exp(-(math.pi**2) * self.bandwidth * (s * bins / padded - self.centre) ** 2)
        return bell * np.sqrt(s) / padded

    def _gains(self, samples: int) -> np.ndarray:
        """Of all scales one after another, over the bins that each hears."""
        plan = self._plan(samples)
        rows = enumerate(zip(plan.first, plan.count, strict=True))
        return np.concatenate(
            [
                self._gain(samples, slice(row, row + 1), first + np.arange(count))[0].astype(np.float32)
                for row, (first, count) in rows
            ]
        )

    def _blocks(
        self, samples: int, dtype: torch.dtype, device: torch.device
    ) -> list[tuple[int, torch.Tensor]]:
        """Half octaves of scales: the first bin that any of them hears, and gains (points, folds, scales)."""
        plan = self._plan(samples)
        octave = np.log2(self.frequencies / self.frequencies[0])
        blocks = []
        for block in np.unique(np.floor(2 * octave)):
            rows = np.flatnonzero(np.floor(2 * octave) == block)
            start, stop = plan.first[rows].min(), (plan.first + plan.count)[rows].max()
            folds = -(-int(stop - start) // plan.points)
            bins = start + np.arange(folds * plan.points)
            gains = self._gain(samples, slice(rows[0], rows[-1] + 1), bins) * (bins < stop)
            gains = torch.from_numpy(gains).to(device, dtype).unflatten(1, (folds, plan.points))
            blocks.append((int(start), gains.permute(2, 1, 0).contiguous()))
        return blocks


def fade(frequency: np.ndarray) -> np.ndarray:
    """g of :class:`Scalogram` at frequencies in shares of the rate, 1 and 0 at both ends to within 1e-6."""
    width = (0.5 - PASS) / 2
    return scipy.special.erfc(3.4 * (np.abs(frequency) - PASS - width) / width) / 2


def _sizes(hop: float, least: int) -> tuple[int, int]:
    """The smallest M' ≥ ``least`` for which M' and N' ≈ M' · hop both transform fast.

    N' is a whole number, so columns lie N'/M' apart: over the whole clip half a sample off at most.
    """
    found = []
    for points in range(least, least + least // 8 + 16):
        padded = round(points * hop)
        factors = _largest_factor(points), _largest_factor(padded)
        if max(factors) <= LARGEST_FACTOR:
            return points, padded
        found.append((max(factors[0], LARGEST_FACTOR), factors[1], points, padded))
    return min(found)[2:]


def _largest_factor(number: int) -> int:
    largest, divisor = 1, 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            largest, number = divisor, number // divisor
        divisor += 1
    return max(largest, number)
