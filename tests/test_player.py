"""What is played is the sound that was given, below its attribution."""

import base64
import io
import re

import numpy as np
import soundfile

from lib import player


def test_a_player_holds_the_sound_at_full_scale_and_its_caption():
    tone = 1e-3 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    page = player.player(tone, 22050, "A tone <by> Tom & Co").data
    assert "A tone &lt;by&gt; Tom &amp; Co" in page
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])))
    assert rate == 22050
    spectrum = np.abs(np.fft.rfft(sound[:22050] * np.hanning(22050)))
    assert abs(spectrum.argmax() - 440) <= 1
    assert 0.85 < np.abs(sound).max() < 1.0
    assert len(page) < 20000


def test_sounds_that_are_compared_share_their_full_scale():
    tone = 0.25 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    page = player.player(tone, 22050, "quiet", full_scale=1.0).data
    sound, _ = soundfile.read(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])))
    assert 0.2 < np.abs(sound).max() < 0.26


def test_silence_can_be_played():
    assert "audio" in player.player(np.zeros(8000), 8000, "nothing").data
