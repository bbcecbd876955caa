"""Pitch shifting: known answers, and librosa's numbers."""

import librosa
import numpy as np
import pytest

from lib.data import pitch

RATE = 22050
FACTORS = [0.75, 0.9, 1.15, 1.5]  # the paper's


@pytest.mark.parametrize("factor", FACTORS)
def test_a_tone_is_moved_by_the_factor_and_keeps_its_length(factor):
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    moved = pitch.shift(tone, factor)
    assert (moved.shape, moved.dtype) == (tone.shape, np.float32)
    spectrum = np.abs(np.fft.rfft(moved * np.hanning(len(moved))))
    assert spectrum.argmax() / 2 == pytest.approx(440 * factor, abs=1)


@pytest.mark.parametrize("factor", FACTORS)
def test_it_is_librosa_s_in_double_precision(factor):
    sound = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    wanted = librosa.effects.pitch_shift(sound, sr=RATE, n_steps=12 * np.log2(factor))
    # In single precision librosa's own sum of angles drifts by a tenth of the peak.
    assert np.abs(pitch.shift(sound.astype(np.float32), factor) - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_silence_stays_silent():
    assert not pitch.shift(np.zeros(RATE, np.float32), 0.9).any()


def test_a_factor_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"factor = 0\.0"):
        pitch.shift(np.zeros(RATE, np.float32), 0.0)
