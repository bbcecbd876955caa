"""Clips: every form of audio, every fault of a table, folds and splits that part no recording."""

import hashlib
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import recordings

from lib import reporting, study
from lib.data import audio, changes, duplicates, listening, manifest, readers, splits

RATE = 22050


def noise(seconds=0.5, rate=RATE, channels=1, seed=0):
    return 0.3 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels)).clip(-3, 3)


def own(folder, rows, name="mine"):
    """A data set of one's own: rows of (path, label, source, fold), each with its audio."""
    root = Path(folder) / name
    for n, row in enumerate(rows):
        path = root / row[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(seed=n), RATE)
    columns = ["path", "label", "source", "fold"][: len(rows[0])]
    pd.DataFrame(rows, columns=columns).to_csv(root / "clips.csv", index=False)
    return root


def plain(classes=3, sources=6, takes=2):
    return [
        (f"{c}/{s}-{t}.wav", f"class {c}", f"{c}-{s}")
        for c in range(classes)
        for s in range(sources)
        for t in range(takes)
    ]


def esc50(folder, clips=20):
    """The official layout in small: audio/ and meta/esc50.csv."""
    root = Path(folder) / "ESC-50"
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    rows = []
    for n in range(clips):
        fold, target = n % 5 + 1, 10 * (n % 2)
        name = f"{fold}-{n}-A-{target}.wav"
        soundfile.write(root / "audio" / name, noise(seed=n), RATE)
        rows.append([name, fold, target, ["dog", "rain"][n % 2], n % 2 == 0, n, "A"])
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "meta/esc50.csv", index=False)
    return root


# ------------------------------------------------------------------------------------------- any audio


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("form", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_any_rate_depth_and_channels_become_one_mono_waveform(tmp_path, rate, channels, form):
    t = np.arange(rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate, subtype=form)
    found = audio.waveform({"clip": "tone", "path": str(path)}, RATE, 1.0)
    assert found.dtype == np.float32
    assert found.shape == (RATE,)
    spectrum = np.abs(np.fft.rfft(found[1000:-1000] * np.hanning(RATE - 2000)))
    assert abs(spectrum.argmax() * RATE / (RATE - 2000) - 440) < 1.5
    assert np.abs(found[1000:-1000]).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("WAVEX", "PCM_16"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "IMA_ADPCM"),
        ("WAV", "GSM610"),
        ("AIFF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_any_container_is_read(tmp_path, kind, form):
    path = tmp_path / "clip"
    soundfile.write(path, noise(), RATE, format=kind, subtype=form)
    samples, rate = audio.decode(path)
    assert rate == RATE
    assert abs(len(samples) - RATE // 2) < 3000
    assert samples.std() == pytest.approx(0.3, rel=0.2)


def test_channels_are_averaged(tmp_path):
    both = np.array([0.5, -0.1]) * np.resize([1, -1], 1000)[:, None]
    soundfile.write(tmp_path / "a.wav", both, RATE, subtype="FLOAT")
    found = audio.waveform({"clip": "a", "path": str(tmp_path / "a.wav")}, RATE, 0.02)
    assert found == pytest.approx(np.resize([0.2, -0.2], found.size))


def test_a_short_clip_is_followed_by_silence_and_a_long_one_cut(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0.05), RATE)
    row = {"clip": "a", "path": str(tmp_path / "a.wav")}
    found = audio.waveform(row, RATE, 1.0)
    assert found.shape == (RATE,)
    assert found[: round(0.05 * RATE)].any()
    assert not found[round(0.05 * RATE) + 1 :].any()
    assert audio.waveform(row, RATE, 0.01).shape == (round(0.01 * RATE),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no bytes"),
        (b"no sound at all, but text", "decoded"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "decoded"),
    ],
)
def test_what_is_no_audio_is_said(tmp_path, content, said):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        audio.decode(tmp_path / "a.wav")


CONTAINERS = [
    *[("WAV", form) for form in ("PCM_16", "FLOAT", "ULAW", "MS_ADPCM", "IMA_ADPCM")],
    *[("WAVEX", "PCM_24"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("FLAC", "PCM_16")],
]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(("kind", "form"), CONTAINERS)
def test_a_truncated_file_is_said(tmp_path, kind, form, share):
    path = tmp_path / "a"
    soundfile.write(path, noise(5.0), RATE, format=kind, subtype=form)
    assert len(audio.decode(path)[0]) > 4.9 * RATE
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"truncated|decoded"):
        audio.decode(path)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_length_that_was_not_known_in_time_is_not_believed(tmp_path, length):
    """What is written to a pipe has a header from before its end, which promises all that it can."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = length.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(audio.decode(path)[0]) == RATE // 2


@pytest.mark.parametrize("rate", [1, 20, 999, 2**31 - 1])
def test_a_rate_that_no_sound_has_is_said(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", noise(), rate)
    with pytest.raises(ValueError, match=f"a rate of {rate} Hz"):
        audio.decode(tmp_path / "a.wav")


def test_a_header_that_promises_hours_is_not_believed(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(), RATE)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="too long for a clip"):
        audio.decode(path)


def test_decoding_ahead_keeps_the_order_and_bounds_memory(tmp_path):
    frame = pd.DataFrame({"clip": [str(n) for n in range(40)], "path": ""})
    open_at_once = []

    def call(row):
        open_at_once.append(row)
        return int(row["clip"])

    taken = listening._ahead(call, (frame.iloc[n] for n in range(40)), 2)
    assert [next(taken) for _ in range(3)] == [0, 1, 2]
    assert len(open_at_once) <= 3 + 2 * 2 + 1
    assert list(taken) == list(range(3, 40))


# ---------------------------------------------------------------------------------------- the manifest


def test_a_manifest_has_a_row_a_clip_and_labels_from_0(tmp_path):
    esc50(tmp_path)
    frame = listening.manifest("esc50", str(tmp_path))
    assert list(frame.columns) == list(manifest.COLUMNS)
    assert len(frame) == 20
    assert sorted(frame["label"].unique()) == [0, 1]
    assert dict(zip(frame["label"], frame["name"], strict=True)) == {0: "dog", 1: "rain"}
    assert (frame["problem"] == "").all()
    assert (frame["rate"] == RATE).all()
    assert frame["sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_esc10_is_the_part_of_esc50_that_its_table_says(tmp_path):
    esc50(tmp_path)
    frame = listening.manifest("esc10", str(tmp_path))
    assert len(frame) == 10
    assert set(frame["name"]) == {"dog"}


def test_the_table_names_the_file_whatever_its_ending(tmp_path):
    root = esc50(tmp_path)
    table = pd.read_csv(root / "meta/esc50.csv")
    old = table.loc[0, "filename"]
    table.loc[0, "filename"] = old.replace(".wav", ".flac")
    table.to_csv(root / "meta/esc50.csv", index=False)
    (root / "audio" / old).unlink()
    soundfile.write(root / "audio" / table.loc[0, "filename"], noise(), RATE)
    assert listening.manifest("esc50", str(tmp_path))["path"][0].endswith(".flac")


def test_a_clip_that_cannot_be_used_is_kept_with_its_reason(tmp_path):
    root = esc50(tmp_path, clips=40)
    table = pd.read_csv(root / "meta/esc50.csv")
    for n, content in enumerate((noise() * 0, noise(0.01))):
        soundfile.write(root / "audio" / table.loc[n, "filename"], content, RATE)
    (root / "audio" / table.loc[2, "filename"]).write_bytes(b"RIFF")
    for n, value in ((3, np.nan), (4, np.inf)):
        spoilt = noise()
        spoilt[100:103] = value
        soundfile.write(root / "audio" / table.loc[n, "filename"], spoilt, RATE, subtype="FLOAT")
    soundfile.write(root / "audio" / table.loc[5, "filename"], noise() * 0 + 0.5, RATE)
    soundfile.write(root / "audio" / table.loc[6, "filename"], noise(0.05), RATE)
    frame = listening.manifest("esc50", str(tmp_path), unusable=0.2)
    assert len(frame) == 40
    assert re.search("silent", frame["problem"][0])
    assert re.search("shorter than 0.02 s", frame["problem"][1])
    assert re.search("decoded", frame["problem"][2])
    assert frame["problem"][3] == frame["problem"][4] == f"not finite: 3 of {RATE // 2} samples"
    assert re.search("silent: every sample is 0.5", frame["problem"][5])
    assert (frame["problem"][6:] == "").all()
    with pytest.raises(ValueError, match=r"6 of 40 clips cannot be used.*unusable = 0\.01.*silent"):
        listening.manifest("esc50", str(tmp_path))
    cell = study.Cell(str(tmp_path / "build"), "esc50")
    cell.save("clips.parquet", frame)
    assert len(manifest.usable(cell)) == 34


def test_the_quiet_share_of_a_clip_is_what_was_appended(tmp_path):
    root = esc50(tmp_path)
    table = pd.read_csv(root / "meta/esc50.csv")
    padded = np.concatenate([noise(0.3), np.zeros((round(0.7 * RATE), 1))])
    soundfile.write(root / "audio" / table.loc[0, "filename"], padded, RATE)
    quiet = listening.manifest("esc50", str(tmp_path))["quiet"]
    assert quiet[0] == pytest.approx(0.7, abs=0.02)
    assert (quiet[1:] == 0).all()


def test_who_reads_the_manifest_notes_its_hash(tmp_path, monkeypatch):
    monkeypatch.setenv(reporting.NOTES, str(tmp_path / "notes"))
    esc50(tmp_path)
    cell = study.Cell(str(tmp_path / "build"), "esc50", "dwt", "resnet18", "1", "standard")
    path = cell.up(1).save("clips.parquet", listening.manifest("esc50", str(tmp_path)))
    manifest.usable(cell)
    assert reporting.notes(tmp_path / "notes")["data"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_workers_do_not_change_the_manifest(tmp_path):
    esc50(tmp_path)
    one, four = (listening.manifest("esc50", str(tmp_path), workers=n) for n in (1, 4))
    pd.testing.assert_frame_equal(one, four)


@pytest.mark.parametrize(
    ("edit", "error", "said"),
    [
        (lambda t: t.drop(columns="fold"), ValueError, r"esc50\.csv has no column 'fold'"),
        (lambda t: t.assign(fold=["x", *t["fold"][1:]]), ValueError, r"fold = 'x' in line 2"),
        (lambda t: t.assign(fold=[0, *t["fold"][1:]]), ValueError, r"fold = '0' in line 2 .* from 1 on"),
        (lambda t: t.assign(target=[1.5, *t["target"][1:]]), ValueError, r"target = '1\.5' in line 2"),
        (
            lambda t: t.assign(filename=["../a.wav", *t["filename"][1:]]),
            ValueError,
            r"'\.\./a\.wav'.* no path",
        ),
        (lambda t: t.assign(filename=["/a.wav", *t["filename"][1:]]), ValueError, r"'/a\.wav'.* no path"),
        (lambda t: t.assign(filename=["gone.wav", *t["filename"][1:]]), FileNotFoundError, r"gone\.wav"),
        (lambda t: t.assign(filename=["", *t["filename"][1:]]), ValueError, "line 2 has no filename"),
        (lambda t: t.iloc[:0], ValueError, "names no clip"),
        (lambda t: pd.concat([t, t[:1]]), ValueError, "stands in its CSV twice"),
        (lambda t: t.assign(category=["cat", *t["category"][1:]]), ValueError, "has two names"),
    ],
)
def test_a_faulty_table_is_said_in_one_sentence(tmp_path, edit, error, said):
    root = esc50(tmp_path)
    edit(pd.read_csv(root / "meta/esc50.csv").astype(object)).to_csv(root / "meta/esc50.csv", index=False)
    with pytest.raises(error, match=said) as caught:
        listening.manifest("esc50", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unknown_data_set_and_a_missing_folder_are_said(tmp_path):
    with pytest.raises(ValueError, match="dataset = 'esc51' is none of demo, esc10"):
        readers.read("esc51", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no folder .*ESC-50.*make data DATASETS=esc50"):
        readers.read("esc50", str(tmp_path))
    (tmp_path / "ESC-50").mkdir()
    with pytest.raises(FileNotFoundError, match=r"esc50\.csv is not there"):
        readers.read("esc50", str(tmp_path))


def test_urbansound8k_names_files_by_fold(tmp_path):
    root = tmp_path / "UrbanSound8K"
    (root / "metadata").mkdir(parents=True)
    rows = []
    for n in range(6):
        name = f"{100 + n}-{n % 2}-0-{n}.wav"
        (root / f"audio/fold{n % 3 + 1}").mkdir(parents=True, exist_ok=True)
        soundfile.write(root / f"audio/fold{n % 3 + 1}" / name, noise(seed=n), 8000 * (1 + n))
        rows.append([name, 100 + n, 0, 4, 1, n % 3 + 1, n % 2, ["siren", "drilling"][n % 2]])
    columns = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata/UrbanSound8K.csv", index=False)
    frame = listening.manifest("urbansound8k", str(tmp_path))
    assert frame["rate"].to_list() == [8000 * (1 + n) for n in range(6)]
    assert frame["source"].to_list() == [str(100 + n) for n in range(6)]
    assert frame["name"].to_list() == ["siren", "drilling"] * 3


@pytest.mark.parametrize(("name", "clips"), [("ESC-10", 400), ("UrbanSound8K", 297)])
def test_real_tables_are_read(name, clips):
    folder = recordings(name)
    frame = readers.read({"ESC-10": "esc10"}.get(name, "urbansound8k"), str(folder.parent))
    assert len(frame) == clips
    assert sorted(frame["label"].unique()) == list(range(10))
    assert frame.groupby("source")["fold"].nunique().max() == 1


# ------------------------------------------------------------------------------------ one's own data set


def test_a_folder_of_one_s_own_gets_grouped_folds(tmp_path):
    own(tmp_path, plain())
    frame = listening.manifest("mine", str(tmp_path))
    assert frame.groupby("source")["fold"].nunique().max() == 1
    counts = pd.crosstab(frame["name"], frame["fold"]).to_numpy()
    assert counts.max() - counts.min() <= 2
    assert sorted(frame["fold"].unique()) == [1, 2, 3, 4, 5]


def test_given_folds_are_kept(tmp_path):
    rows = [(*row, n % 3 + 1) for n, row in enumerate(plain())]
    own(tmp_path, rows)
    assert listening.manifest("mine", str(tmp_path))["fold"].to_list() == [row[3] for row in rows]


def test_too_few_recordings_are_said(tmp_path):
    own(tmp_path, plain(sources=2))
    with pytest.raises(ValueError, match=r"clips\.csv: class 'class 0' has 2 recordings; .* need 3"):
        listening.manifest("mine", str(tmp_path))


def test_two_folds_or_one_class_are_too_few(tmp_path):
    own(tmp_path, [(*row, n % 2 + 1) for n, row in enumerate(plain())], "two")
    with pytest.raises(ValueError, match=r"clips\.csv: 2 folds are too few"):
        readers.read("two", str(tmp_path))
    own(tmp_path, plain(classes=1), "one")
    with pytest.raises(ValueError, match=r"clips\.csv: every clip has the label 'class 0'"):
        readers.read("one", str(tmp_path))


def test_labels_may_be_numbers_with_gaps(tmp_path):
    own(tmp_path, [(path, ["10", "2", "-1"][int(path[0])], source) for path, _, source in plain()])
    frame = readers.read("mine", str(tmp_path))
    assert dict(zip(frame["name"], frame["label"], strict=True)) == {"-1": 0, "2": 1, "10": 2}


def test_a_clip_without_a_source_is_a_recording_of_its_own(tmp_path):
    rows = [(path, label, source if n % 2 else "") for n, (path, label, source) in enumerate(plain())]
    own(tmp_path, rows)
    frame = readers.read("mine", str(tmp_path))
    assert frame["source"].to_list() == [source or path for path, _, source in rows]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\n\n"),
        lambda text: text.replace(b",", b" , "),
        lambda text: (
            text.replace(b"path", b"note,path")
            .replace(b"\n", b'\n"a ""note"", in\ntwo lines",')
            .rpartition(b'\n"')[0]
        ),
    ],
    ids=["BOM and CRLF", "empty lines", "spaces", "another column"],
)
def test_forms_of_a_table_do_not_matter(tmp_path, edit):
    file = own(tmp_path, plain()) / "clips.csv"
    before = readers.read("mine", str(tmp_path))
    file.write_bytes(edit(file.read_bytes().rstrip(b"\n") + b"\n"))
    pd.testing.assert_frame_equal(before, readers.read("mine", str(tmp_path)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text.replace(b"label", b"class"), r"no column 'label'; it has path, class, source$"),
        (lambda text: text.replace(b",", b";"), r"no column 'path'; it has path;label;source; commas must"),
        (lambda text: text.replace(b"source", b"label"), "has two columns 'label'"),
        (lambda text: text.replace(b"0/0-1.wav,class 0,0-0", b"0/0-1.wav,class 0"), "line 3 has 2 values"),
        (lambda text: text.replace(b",0-0\n", b",0-0,\n"), "line 2 has 4 values, the header has 3"),
        (lambda text: text.replace(b"0/0-1.wav,class 0", b"0/0-1.wav, "), "line 3 has no label"),
        (lambda text: text.replace(b"class 0", b"cl\xe4sse", 1), "no text in UTF-8.*0xe4"),
        (lambda text: text.decode().encode("utf-16"), "no text in UTF-8"),
        (lambda text: text.replace(b"class 0", b'"class 0', 1), r"no CSV: line \d+: unexpected end"),
        (lambda text: b"", "no column 'path'; it has none"),
        (lambda text: b"path,label\n", "names no clip"),
        (lambda text: text.replace(b"0/0-1", b"0/0-0"), r"the clip '0/0-0\.wav' stands in its CSV twice"),
        (lambda text: text.replace(b"0/0-1", b"./0/0-0"), r"0/0-0\.wav'? stands in its CSV twice"),
        (
            lambda text: text.replace(b"0/0-1", b"../x/0-1"),
            r"names '\.\./x/0-1\.wav', which is no path below",
        ),
        (lambda text: text.replace(b"0/0-1", b"/0/0-1"), r"names '/0/0-1\.wav', which is no path below"),
    ],
)
def test_a_faulty_table_of_one_s_own_is_said_in_one_sentence(tmp_path, edit, said):
    file = own(tmp_path, plain()) / "clips.csv"
    file.write_bytes(edit(file.read_bytes()))
    with pytest.raises(ValueError, match=said) as caught:
        readers.read("mine", str(tmp_path))
    assert str(tmp_path / "mine") in str(caught.value) or "mine: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fold", ["0", "a", "1.0", "", "-1"])
def test_a_fold_that_is_none_is_said(tmp_path, fold):
    own(tmp_path, [(*row, fold if n == 3 else n % 3 + 1) for n, row in enumerate(plain())])
    with pytest.raises(ValueError, match=rf"clips\.csv: fold = '{fold}' in line 5 is no whole number from 1"):
        readers.read("mine", str(tmp_path))


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda path: None, "is not there"),
        (Path.mkdir, "is a folder, not a file"),
        (os.mkfifo, "is no ordinary file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no ordinary file"),
        (lambda path: path.symlink_to("gone"), "is not there"),
    ],
    ids=["missing", "folder", "fifo", "device", "broken link"],
)
def test_what_is_no_file_is_said_and_not_waited_for(tmp_path, put, said):
    path = own(tmp_path, plain()) / "0/0-0.wav"
    path.unlink()
    put(path)
    with pytest.raises(FileNotFoundError, match=rf"mine: .*, named by the CSV, {said} \(1 of 36"):
        readers.read("mine", str(tmp_path))


def test_names_may_be_of_any_script(tmp_path):
    names = ["зяблик", "シジュウカラ", "Blåmeis, hun"]
    rows = [(f"{names[c]}/ä {s}.wav", names[c], f"{c}-{s}") for c in range(3) for s in range(3)]
    own(tmp_path, rows)
    frame = listening.manifest("mine", str(tmp_path))
    assert set(frame["name"]) == set(names)
    assert (frame["problem"] == "").all()


# ------------------------------------------------------------------------------------- folds and splits


def listed(clips_a_source=4, sources=30, seed=0):
    rng, n = np.random.default_rng(seed), clips_a_source * sources
    source = np.repeat(np.arange(sources), clips_a_source)
    frame = pd.DataFrame({"clip": [f"c{i}" for i in range(n)], "source": source.astype(str)})
    frame["fold"], frame["label"] = source % 5 + 1, source // 5 % 3
    return frame.iloc[rng.permutation(n)].reset_index(drop=True)


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("copies", [1, 5])
def test_no_recording_and_no_copy_crosses_an_official_split(fold, copies):
    frame = splits.split(listed(), fold, "official", copies=copies)
    assert len(splits.leaks(frame)) == 0
    assert set(frame.loc[frame["part"] != "train", "copy"]) == {0}
    assert (frame.loc[frame["part"] == "test", "fold"] == fold).all()
    parts = frame.groupby("part")["position"].nunique()
    assert parts.to_dict() == {"train": 72, "validation": 24, "test": 24}


def test_over_the_folds_every_clip_is_tested_once():
    frame = listed()
    tested = [
        p for fold in range(1, 6) for p in splits.split(frame, fold).query("part == 'test'")["position"]
    ]
    assert sorted(tested) == list(range(len(frame)))


def test_a_planted_leak_is_found():
    frame = splits.split(listed(), 1, copies=3)
    row = frame.index[(frame["part"] == "train") & (frame["copy"] == 1)][0]
    frame.loc[row, "part"] = "test"
    found = splits.leaks(frame)
    assert set(found["what"]) == {"recording", "clip"}
    assert str(frame.loc[row, "source"]) in found["which"].to_list()


@pytest.mark.parametrize(("protocol", "leak"), [("random", {"recording"}), ("copies", {"recording", "clip"})])
def test_each_leak_of_the_paper_s_split_stands_alone(protocol, leak):
    found = splits.leaks(splits.split(listed(), 1, protocol, copies=3))
    assert set(found["what"]) == leak
    assert set(splits.leaks(splits.split(listed(), 1, "paper", copies=3))["what"]) == {
        "recording",
        "clip",
    }


def test_the_paper_s_split_tests_30_percent_and_depends_on_the_seed():
    frame = listed()
    one, again, other = (splits.split(frame, 1, "paper", seed=seed, copies=2) for seed in (0, 0, 1))
    assert (one["part"] == "test").mean() == pytest.approx(0.3)
    pd.testing.assert_frame_equal(one, again)
    assert not one["part"].equals(other["part"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((6, "official"), "fold = 6 is none of"),
        ((1, "leaky"), "protocol = 'leaky'"),
        ((9, "paper"), "inner folds"),
    ],
)
def test_unknown_folds_and_protocols_are_said(words, said):
    with pytest.raises(ValueError, match=said):
        splits.split(listed(), *words)


def test_chosen_clips_are_even_seeded_and_nested():
    frame = listed()
    ten, twenty = splits.choose(frame, 9, seed=3), splits.choose(frame, 18, seed=3)
    assert set(ten["clip"]) < set(twenty["clip"])
    assert twenty["label"].value_counts().to_list() == [6, 6, 6]
    assert twenty["source"].nunique() == 18
    assert set(splits.choose(frame, 9, seed=4)["clip"]) != set(ten["clip"])
    with pytest.raises(ValueError, match="n = -1"):
        splits.choose(frame, -1)


# -------------------------------------------------------------------------------------- near-duplicates


def test_a_fingerprint_forgets_level_cut_and_rate():
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.uniform(0.1, 1, 40), 2205)
    sound = np.convolve(rng.standard_normal(len(slow)), [1, 0.9, 0.5], "same") * slow
    other = np.cumsum(rng.standard_normal(len(slow)))
    mark = duplicates.fingerprint(sound, 22050)

    def apart(mark, other):
        return np.sqrt(np.mean((mark - other) ** 2))

    assert apart(mark, duplicates.fingerprint(0.01 * sound, 22050)) < 1e-3
    assert apart(mark, duplicates.fingerprint(np.roll(sound, 500), 22050)) < 0.5
    assert apart(mark, duplicates.fingerprint(other, 22050)) > 3
    assert np.isfinite(duplicates.fingerprint(np.zeros(100), 8000)).all()


def test_a_clip_that_was_planted_in_another_fold_is_found(tmp_path):
    rows = [(*row, n // 2 % 3 + 1) for n, row in enumerate(plain(sources=9))]
    root = own(tmp_path, rows)
    samples, rate = soundfile.read(root / rows[0][0])
    soundfile.write(root / rows[2][0], 0.5 * samples, rate)
    frame = listening.manifest("mine", str(tmp_path))
    found = duplicates.near_duplicates(frame)
    assert (found["clip"][0], found["other_clip"][0]) == (rows[0][0], rows[2][0])
    assert found["distance"][0] < 0.1
    assert not found["same_file"][0]


def test_near_duplicates_are_grouped_by_recording(tmp_path):
    """A loop that was cut into six clips of two uploads is one row of nine pairs."""
    rows = [(*row, n // 2 % 3 + 1) for n, row in enumerate(plain(sources=9))]
    rows += [(f"loop/{u}-{n}.wav", "class 0", f"loop {u}", u + 1) for u in (0, 1) for n in range(3)]
    root = own(tmp_path, rows)
    samples, rate = soundfile.read(root / rows[-1][0])
    for path, *_ in rows[-6:]:
        soundfile.write(root / path, samples, rate)
    pairs = duplicates.near_duplicates(listening.manifest("mine", str(tmp_path)))
    grouped = duplicates.by_recording(pairs)
    assert len(pairs[pairs["same_file"]]) == 9
    found = grouped[grouped["recordings"] == "loop 0 and loop 1"]
    assert len(found) == 1
    first = found.iloc[0]
    assert (first["clips"], first["pairs"], first["same_file"], first["folds"]) == (6, 9, 9, "1, 2")
    assert grouped["pairs"].sum() == len(pairs)
    assert duplicates.by_recording(pairs.iloc[:0]).empty


def test_recordings_that_cross_given_folds_are_named(tmp_path):
    rows = [(*row, n // 2 % 3 + 1) for n, row in enumerate(plain())]
    rows[1] = (*rows[1][:3], 2)
    own(tmp_path, rows)
    found = splits.crossing(readers.read("mine", str(tmp_path)))
    assert found.to_dict("records") == [
        {"recording": "0-0", "folds": "1, 2", "classes": "class 0", "clips": 2}
    ]


def test_the_recordings_of_esc50_that_cross_its_official_folds_are_four():
    folder = recordings("ESC-50")
    if not (folder / "audio").is_dir():
        table = pd.read_csv(folder / "meta/esc50.csv", dtype=str)
        frame = table.rename(columns={"src_file": "source", "category": "name"})
    else:
        frame = readers.read("esc50", str(folder.parent))
    assert splits.crossing(frame)["recording"].to_list() == ["131943", "134049", "209698", "234879"]


# ----------------------------------------------------------------- what a file states of itself, and has

RATES = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]  # kbit/s of MPEG-1 layer III


def mp3_frames(content, at=0):
    """Where the frames of an MP3 at 44.1 kHz begin."""
    found = []
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] & 0xE0 == 0xE0:
        found.append(at)
        at += 144 * RATES[content[at + 2] >> 4] * 1000 // 44100 + (content[at + 2] >> 1 & 1)
    return found


def mp3(path, sound, *, mode="VARIABLE", xing=True, tag=0):
    """An MP3 of ``sound``, without the frame that states its length, or behind a tag of so many bytes."""
    soundfile.write(path, sound, 44100, format="MP3", bitrate_mode=mode, compression_level=0.5)
    content = path.read_bytes()
    content = content if xing else content[mp3_frames(content)[1] :]
    size = bytes(tag >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes((b"ID3\3\0\0" + size + bytes(tag) if tag else b"") + content)
    return path


def bursts(begins_loud):
    t = np.arange(2 * 44100) / 44100
    loud = 0.3 * np.random.default_rng(0).standard_normal(t.size).clip(-3, 3)
    return np.where((t < 0.4) == begins_loud, loud, 1e-4 * np.sin(2 * np.pi * 300 * t))


@pytest.mark.parametrize("tag", [0, 200000])
@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("begins_loud", [True, False])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_an_mp3_is_decoded_to_its_end_whatever_it_states(tmp_path, capfd, mode, begins_loud, xing, tag):
    path = mp3(tmp_path / "a.mp3", bursts(begins_loud), mode=mode, xing=xing, tag=tag)
    sound, rate = audio.decode(path)
    assert rate == 44100
    assert abs(len(sound) - 2 * 44100) <= 2 * 1152
    wanted = soundfile.read(mp3(tmp_path / "b.mp3", bursts(begins_loud), mode=mode))[0]
    shift = len(sound) - len(wanted) if xing else 1105 if len(sound) > len(wanted) else 0
    both = sound[shift:, 0][:80000], wanted[:80000].clip(-1, 1)
    assert len(both[0]) == 80000
    assert np.corrcoef(*both)[0, 1] > 0.99
    assert capfd.readouterr().err == ""


def test_an_mp3_that_lacks_what_its_first_frame_states_is_truncated(tmp_path):
    path = mp3(tmp_path / "a.mp3", bursts(True))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"truncated: \d+ of \d+ samples"):
        audio.decode(path)


def piped_flac(path, samples=32000):
    soundfile.write(path, 0.5 * np.sin(np.arange(samples) * 0.1), 16000, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # STREAMINFO: 0 samples, that is unknown
    path.write_bytes(content)


def test_flac_from_a_pipe_is_read_to_its_end(tmp_path):
    piped_flac(tmp_path / "a.flac")
    sound, rate = audio.decode(tmp_path / "a.flac")
    assert (len(sound), rate) == (32000, 16000)
    assert np.abs(sound[:, 0] - 0.5 * np.sin(np.arange(32000) * 0.1)).max() < 1e-4


def chain(path, *links):
    for n, (sound, rate, form) in enumerate(links):
        soundfile.write(f"{path}{n}", sound, rate, format="OGG", subtype=form)
    path.write_bytes(b"".join(Path(f"{path}{n}").read_bytes() for n in range(len(links))))


@pytest.mark.parametrize("form", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("links", [1, 2, 3])
def test_every_link_of_a_chained_ogg_is_read(tmp_path, form, links):
    tone = 0.5 * np.sin(np.arange(48000) * 0.1)
    chain(tmp_path / "a.ogg", *[(tone / (n + 1), 48000, form) for n in range(links)])
    sound, rate = audio.decode(tmp_path / "a.ogg")
    assert (len(sound), rate) == (links * 48000, 48000)
    for n in range(links):
        assert np.abs(sound[n * 48000 + 9600 :][:28800]).max() == pytest.approx(0.5 / (n + 1), rel=0.1)


def test_what_lies_between_the_links_of_an_ogg_is_passed_over(tmp_path):
    soundfile.write(tmp_path / "a.ogg", noise(), RATE, format="OGG", subtype="VORBIS")
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(content + b"junk" * 100 + content)
    assert len(audio.decode(tmp_path / "a.ogg")[0]) == 2 * (RATE // 2)


def test_mp3_files_joined_to_one_are_read_to_the_end_of_the_last(tmp_path):
    content = mp3(tmp_path / "a.mp3", bursts(True)).read_bytes()
    (tmp_path / "a.mp3").write_bytes(content * 3)
    assert len(audio.decode(tmp_path / "a.mp3")[0]) == 3 * 2 * 44100


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(1000)], ids=["a tag", "zeros"])
def test_what_follows_an_mp3_costs_no_more_than_its_last_frame(tmp_path, tail):
    content = mp3(tmp_path / "a.mp3", bursts(True)).read_bytes()
    (tmp_path / "a.mp3").write_bytes(content + tail)
    assert 2 * 44100 - 1152 <= len(audio.decode(tmp_path / "a.mp3")[0]) <= 2 * 44100


def test_a_chain_of_different_streams_is_said(tmp_path):
    chain(tmp_path / "a.ogg", (noise(1.0, 8000), 8000, "VORBIS"), (noise(1.0, 8000, 2), 8000, "VORBIS"))
    with pytest.raises(ValueError, match="a chain of 2 streams that differ in rate or channels"):
        audio.decode(tmp_path / "a.ogg")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda raw: b"ID3\3\0\0\0\0\7\x68" + bytes(1000),
            "ends with its tag of 1010 bytes: there is no sound",
        ),
        (lambda raw: bytes(len(raw)), "can be decoded"),
        (
            lambda raw: raw[:40] + bytes(4) + raw[44:],
            "no samples, though it has 22094 bytes: .* not finished",
        ),
    ],
    ids=["an MP3 of a tag alone", "blocks that were never written", "a header that was never finished"],
)
def test_what_is_said_of_a_file_is_true(tmp_path, spoil, said):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), RATE)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=said) as caught:
        audio.decode(path)
    assert "not exist" not in str(caught.value)


def test_a_file_too_large_for_a_clip_is_refused_unread(tmp_path, monkeypatch):
    rows = plain(sources=40)
    root = own(tmp_path, rows)
    with open(root / rows[0][0], "r+b") as file:
        file.truncate(10 << 30)  # sparse: nothing is written
    hashed = []
    digest = listening.files.digest
    monkeypatch.setattr(listening.files, "digest", lambda path: hashed.append(path) or digest(path))
    frame = listening.manifest("mine", str(tmp_path))
    assert frame["problem"][0] == "10.7 GB are too many for a clip: cut it"
    assert not [path for path in hashed if path == frame["path"][0]]
    assert (frame["problem"][1:] == "").all()


@pytest.mark.parametrize("error", [KeyError("rate"), TypeError("a\nb"), IndexError(), ArithmeticError("x")])
def test_an_unforeseen_exception_is_that_file_s_problem(tmp_path, monkeypatch, error):
    own(tmp_path, plain(sources=40))
    decode = listening.decode

    def raises(path):
        if path.endswith("0/0-0.wav"):
            raise error
        return decode(path)

    monkeypatch.setattr(listening, "decode", raises)
    frame = listening.manifest("mine", str(tmp_path))
    assert (frame["problem"] != "").sum() == 1
    assert frame["problem"][0].startswith(f"{type(error).__name__}: ")
    assert "\n" not in frame["problem"][0]


def test_a_file_whose_ending_says_raw_is_named(tmp_path):
    rows = plain(sources=40)
    root = own(tmp_path, [*rows, ("logger.raw.wav", "class 0", "logger")])
    (root / "logger.raw.wav").rename(root / "logger.raw")
    table = root / "clips.csv"
    table.write_text(table.read_text().replace("logger.raw.wav", "logger.raw"))
    frame = listening.manifest("mine", str(tmp_path))
    assert "samplerate must be specified" in frame["problem"].iloc[-1]


def test_bad_clips_are_named_and_where_more_may_be_allowed(tmp_path):
    rows = plain()
    root = own(tmp_path, rows)
    for path, *_ in rows[:8]:
        (root / path).write_bytes(b"no sound")
    with pytest.raises(ValueError, match="8 of 36 clips cannot be used") as caught:
        listening.manifest("mine", str(tmp_path))
    said = str(caught.value)
    assert all(path in said for path, *_ in rows[:5])
    assert rows[5][0] not in said
    assert said.endswith("; and 3 more")
    assert "params/mine/01_data.yaml" in said


def test_clips_that_are_left_out_take_no_part_in_dealing_folds(tmp_path):
    rows = plain(sources=9)
    root = own(tmp_path, rows)
    spoilt = [n for n, row in enumerate(rows) if row[2] in ("0-0", "0-3", "1-1")]
    for n in spoilt:
        (root / rows[n][0]).write_bytes(b"no sound")
    frame = listening.manifest("mine", str(tmp_path), unusable=0.5)
    left = frame.drop(index=spoilt).reset_index(drop=True)
    own(tmp_path, [row for n, row in enumerate(rows) if n not in spoilt], "whole")
    whole = listening.manifest("whole", str(tmp_path))
    assert left["fold"].to_list() == whole["fold"].to_list()
    assert (frame.loc[spoilt, "fold"] == 0).all()
    assert pd.crosstab(left["name"], left["fold"]).to_numpy().max() <= 4


@pytest.mark.parametrize("form", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("offset", [0.3, -0.05])
def test_a_constant_offset_is_taken_away(tmp_path, form, offset):
    """Else the clip's peak, to which its image is relative, is the offset's."""
    sound = 0.02 * noise(1.0)[:, 0]
    sound[RATE // 2 :: 97] = -offset  # a zero once it is shifted, which is no silence
    shifted = sound + offset
    shifted[: RATE // 4] = sound[: RATE // 4] = 0  # digital silence stays silent
    for name, content in (("plain", sound), ("shifted", shifted)):
        soundfile.write(tmp_path / f"{name}.wav", content, RATE, subtype=form)
    plain, shifted = (
        audio.waveform({"clip": "a", "path": str(tmp_path / f"{name}.wav")}, RATE, 1.0)
        for name in ("plain", "shifted")
    )
    assert np.abs(plain - plain[RATE // 4 :].mean() - shifted)[RATE // 4 :].max() < 2e-4
    assert not shifted[: RATE // 4].any()


def test_an_offset_is_reported_and_a_small_one_left(tmp_path):
    rows = plain()
    root = own(tmp_path, rows)
    for path, offset in ((rows[0][0], 0.6), (rows[1][0], 0.01)):
        samples, rate = soundfile.read(root / path)
        soundfile.write(root / path, samples * 0.5 + offset, rate)
    frame = listening.manifest("mine", str(tmp_path))
    assert frame["offset"][0] == pytest.approx(4, rel=0.05)
    assert np.abs(frame["offset"][1:]).max() < audio.OFFSET
    assert frame["peak"][0] < 0.6


def test_an_offset_with_a_little_noise_is_silent(tmp_path):
    rows = plain(sources=40)
    root = own(tmp_path, rows)
    soundfile.write(root / rows[0][0], 0.25 + np.resize([0, 1], RATE) / 32768, RATE)
    assert "silent: no sample is further than" in listening.manifest("mine", str(tmp_path))["problem"][0]


@pytest.mark.parametrize("balance", [1.0, 0.95])
def test_channels_that_cancel_are_not_silent(tmp_path, balance):
    sound = noise()[:, 0]
    rows = plain()
    root = own(tmp_path, rows)
    soundfile.write(root / rows[0][0], np.stack([sound, -balance * sound], axis=1), RATE)
    frame = listening.manifest("mine", str(tmp_path))
    assert frame["problem"][0] == ""
    assert frame["rms"][0] == pytest.approx(sound.std(), rel=0.01)
    found = audio.waveform({"clip": "a", "path": str(root / rows[0][0])}, RATE, 0.5)
    assert np.abs(found - sound).max() < 1e-3


def test_composed_and_decomposed_names_are_one(tmp_path):

    names = ["Zaunkönig", "Amsel"]
    rows = [(f"{names[c]}/é {s}.wav", names[c], f"{c}-{s}") for c in range(2) for s in range(6)]
    rows = [
        tuple(unicodedata.normalize(("NFC", "NFD")[n % 2], word) for word in row)
        for n, row in enumerate(rows)
    ]
    own(tmp_path, rows)
    frame = listening.manifest("mine", str(tmp_path))
    assert frame["name"].nunique() == 2
    assert (frame["problem"] == "").all()
    table = tmp_path / "mine/clips.csv"
    table.write_text(unicodedata.normalize("NFD", table.read_text()))
    pd.testing.assert_frame_equal(frame, listening.manifest("mine", str(tmp_path)))


@pytest.mark.parametrize("way", ["{root}/", "{root}/../mine/", "1/../"])
def test_a_path_that_ends_inside_the_folder_is_inside_it(tmp_path, way):
    root = own(tmp_path, plain())
    before = readers.read("mine", str(tmp_path))
    table = pd.read_csv(root / "clips.csv")
    table.assign(path=way.format(root=root) + table["path"]).to_csv(root / "clips.csv", index=False)
    pd.testing.assert_frame_equal(before, readers.read("mine", str(tmp_path)))


@pytest.mark.parametrize("other", ["01", "+1", "1.0"])
def test_two_spellings_of_one_number_are_said(tmp_path, other):
    own(tmp_path, [(path, ["1", other, "2"][int(path[0])], source) for path, _, source in plain()])
    with pytest.raises(ValueError, match=rf"the labels '1' and '{re.escape(other)}' are the same number$"):
        readers.read("mine", str(tmp_path))


@pytest.mark.parametrize(
    ("yes", "no"), [("True", "False"), ("TRUE", "FALSE"), ("1", "0"), ("yes", "No"), ("t", "f")]
)
def test_yes_and_no_are_read_in_their_usual_spellings(tmp_path, yes, no):
    root = esc50(tmp_path)
    table = pd.read_csv(root / "meta/esc50.csv")
    table.assign(esc10=[yes if each else no for each in table["esc10"]]).to_csv(
        root / "meta/esc50.csv", index=False
    )
    assert len(readers.read("esc10", str(tmp_path))) == 10


@pytest.mark.parametrize("value", ["maybe", "1.0", "on"])
def test_what_is_neither_yes_nor_no_is_said(tmp_path, value):
    root = esc50(tmp_path)
    table = pd.read_csv(root / "meta/esc50.csv").astype(object)
    table.assign(esc10=[value, *table["esc10"][1:]]).to_csv(root / "meta/esc50.csv", index=False)
    with pytest.raises(ValueError, match=rf"esc50\.csv: esc10 = '{value}' in line 2 is none of true, yes"):
        readers.read("esc10", str(tmp_path))


@pytest.mark.parametrize(
    ("link", "error", "said"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), ValueError, "is a link out of .*, to /etc/hostname"),
        (lambda path: path.symlink_to(path.name), FileNotFoundError, "leads nowhere"),
        (lambda path: path.symlink_to("/dev/zero"), FileNotFoundError, "is no ordinary file"),
    ],
    ids=["outside", "loop", "device"],
)
def test_links_are_refused_before_they_are_read(tmp_path, link, error, said):
    root = own(tmp_path, plain())
    path = root / "0/0-0.wav"
    path.unlink()
    link(path)
    with pytest.raises(error, match=said) as caught:
        readers.read("mine", str(tmp_path))
    assert "0/0-0.wav" in str(caught.value)


def test_a_data_set_that_is_a_link_itself_is_read(tmp_path):
    own(tmp_path / "elsewhere", plain())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").symlink_to(tmp_path / "elsewhere/mine")
    assert len(listening.manifest("mine", str(tmp_path / "data"))) == 36


# --------------------------------------------------------------------------------- recordings that change


def heard(tmp_path):
    rows = plain()
    root = own(tmp_path, rows)
    cell = study.Cell(str(tmp_path / "build"), "mine")
    listening.listen(cell, str(tmp_path))
    return cell, [root / path for path, *_ in rows]


def test_what_is_the_same_has_not_changed(tmp_path):
    cell, paths = heard(tmp_path)
    assert changes.changed(cell.folder) == []
    for path in paths[:3]:
        os.utime(path)  # copied or touched, but the same bytes
    assert changes.changed(cell.folder) == []
    assert changes.changed(tmp_path / "build/other") == []


@pytest.mark.parametrize("same_size", [True, False])
def test_a_recording_that_was_replaced_is_noticed(tmp_path, same_size):
    cell, paths = heard(tmp_path)
    soundfile.write(paths[4], noise(0.5 if same_size else 0.6, seed=99), RATE)
    paths[7].unlink()
    said = changes.changed(cell.folder)
    assert [line.rpartition(": ")[0] for line in said] == [str(paths[4]), str(paths[7])]
    assert said[1].endswith(": gone")
    clip = manifest.usable(cell).iloc[4]
    with pytest.raises(ValueError, match=r"0/2-0\.wav is not the file that chapter 1 listened to"):
        audio.waveform(clip, RATE, 0.5)


def test_a_table_that_was_edited_is_noticed(tmp_path):
    table = esc50(tmp_path) / "meta/esc50.csv"
    cell = study.Cell(str(tmp_path / "build"), "esc50")
    listening.listen(cell, str(tmp_path))
    assert changes.changed(cell.folder) == []
    table.write_text(table.read_text().replace("dog", "cat"))
    assert len(changes.changed(cell.folder)) == 1


def test_a_grid_without_its_recordings_has_not_changed(tmp_path):
    cell, paths = heard(tmp_path)
    for path in paths:
        path.unlink()
    assert changes.changed(cell.folder) == []


def test_asking_what_changed_needs_the_standard_library_only():
    heavy = {"numpy", "pandas", "torch"}
    code = f"import sys; from lib.data import changes; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -------------------------------------------------------------------------------- what a chapter says of it


def measured(seconds, rate=RATE, **columns):
    n = len(seconds)
    plain = {
        "name": ["a"] * n,
        "rms": [0.1] * n,
        "quiet": [0.0] * n,
        "clipped": [0.0] * n,
        "offset": [0.0] * n,
    }
    frame = pd.DataFrame(
        {"clip": [f"c{i}" for i in range(n)], "frames": np.multiply(seconds, rate), "rate": rate}
    )
    return frame.assign(**plain | columns)


def test_what_a_duration_cuts_is_counted():
    clips = measured([1.0, 2.0, 5.0, 5.02])
    found = manifest.cut(clips, 4.0)
    assert (found["clips"], found["longest"]) == (2, 5.02)
    assert found["share"] == pytest.approx(2.02 / 13.02)
    assert manifest.cut(clips, 5.0)["clips"] == 0  # by less than a hundredth


@pytest.mark.parametrize(
    ("seconds", "duration"),
    [([5.0] * 10, 5.0), ([1.2] * 10, 1.5), ([2.0] * 99 + [30.0], 28.0), ([2.0] * 999 + [5.0], 2.0)],
)
def test_a_duration_is_proposed_at_which_a_hundredth_is_lost_at_most(seconds, duration):
    assert manifest.proposal(measured(seconds))["duration"] == duration
    assert manifest.cut(measured(seconds), duration)["share"] <= 0.01


def test_the_rate_of_most_clips_is_proposed():
    clips = pd.concat([measured([1.0] * 3, 44100), measured([1.0] * 5, 8000)])
    assert manifest.proposal(clips)["stft_rate"] == 8000


def test_odd_clips_are_named():
    clips = measured([3, 1, 3, 3, 3], rms=[0.1, 0.1, 1e-4, 0.1, 0.1], quiet=[0, 0, 0, 0.9, 0])
    clips = clips.assign(clipped=[0.2, 0, 0, 0, 0], offset=[0, 0, 0, 0, -3.0])
    assert manifest.odd(clips)["clip"].to_list() == ["c1", "c2", "c3", "c0", "c4"]
    assert manifest.odd(clips)["how much"][4] == "3.00 times the effective value of its sound"


def test_the_clip_that_is_shown_has_sound_in_it():
    clips = measured([1] * 5, rms=[0.5, 0.1, 0.2, 0.3, 0.9], quiet=[0.9, 0.0, 0.1, 0.25, 0.9])
    assert manifest.typical(clips)["clip"] == "c2"
    assert manifest.typical(clips.assign(quiet=[0.9, 0.8, 0.9, 0.9, 0.9]))["clip"] == "c1"
