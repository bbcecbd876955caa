"""Clips: every form of audio, every fault of a table, folds and splits that part no recording."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import recordings

from lib import reporting, study
from lib.data import audio, duplicates, listening, manifest, readers, splits

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
    [("WAVEX", "PCM_16"), ("WAV", "MS_ADPCM"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"), ("AIFF", "PCM_16"),
     ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")],
)  # fmt: skip
def test_any_container_is_read(tmp_path, kind, form):
    path = tmp_path / "clip"
    soundfile.write(path, noise(), RATE, format=kind, subtype=form)
    samples, rate = audio.decode(path)
    assert rate == RATE
    assert abs(len(samples) - RATE // 2) < 3000
    assert samples.std() == pytest.approx(0.3, rel=0.2)


def test_channels_are_averaged(tmp_path):
    both = np.stack([np.full(1000, 0.5), np.full(1000, -0.1)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, RATE, subtype="FLOAT")
    found = audio.waveform({"clip": "a", "path": str(tmp_path / "a.wav")}, RATE, 0.02)
    assert found == pytest.approx(0.2)


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
        (lambda text: text.replace(b"0/0-1", b"./0/0-0"), r"0/0-0\.wav stands in its CSV twice"),
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
    assert (found["clip"][0], found["other"][0]) == (rows[0][0], rows[2][0])
    assert found["distance"][0] < 0.1
    assert not found["same_file"][0]
