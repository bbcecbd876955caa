"""Toy sounds: the same on every run, of the form of the real data sets, neither silent nor alike."""

import numpy as np
import pytest

from lib.data import audio, duplicates, readers, toy


def test_toy_sounds_have_the_form_of_a_data_set():
    frame = readers.read("demo", "")
    assert len(frame) == 400
    assert frame["name"].nunique() == 10
    assert (frame.groupby(["name", "fold"]).size() == 8).all()
    assert frame.groupby("source")["fold"].nunique().max() == 1
    assert (frame.groupby("source").size() > 1).all()


@pytest.mark.parametrize("name", toy.NAMES)
def test_a_toy_sound_is_seeded_and_can_be_heard(name):
    frame = toy.clips()
    clips = frame[frame["name"] == name]["clip"].to_list()
    sound = toy.sound(clips[0])
    assert sound.dtype == np.float32
    assert sound.shape == (round(toy.RATE * toy.SECONDS),)
    assert np.isfinite(sound).all()
    assert 0.01 < np.abs(sound).max() <= 1
    np.testing.assert_array_equal(sound, toy.sound(clips[0]))
    assert not np.array_equal(sound, toy.sound(clips[1]))


def test_takes_of_a_recording_resemble_each_other_more_than_other_recordings():
    frame = toy.clips()
    marks = {clip: duplicates.fingerprint(toy.sound(clip), toy.RATE) for clip in frame["clip"][::1][:80]}
    within, between = [], []
    some = frame[frame["clip"].isin(marks)]
    for one in some.itertuples():
        for other in some.itertuples():
            if one.clip < other.clip and one.name == other.name:
                distance = np.sqrt(np.mean((marks[one.clip] - marks[other.clip]) ** 2))
                (within if one.source == other.source else between).append(distance)
    assert np.median(within) < 0.7 * np.median(between)


def test_images_see_a_toy_sound_as_chapter_1_measured_it():
    clip = toy.clips().query("name == 'gun_shot'").iloc[0]
    sound = audio.waveform({"clip": clip["clip"], "path": ""}, toy.RATE, toy.SECONDS)
    np.testing.assert_array_equal(sound, audio.centred(toy.sound(clip["clip"])))
    assert abs(audio.offset(sound)[1]) <= audio.OFFSET
