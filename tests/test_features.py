"""The representations: known answers, references, symmetries, gradients, bad input."""

import importlib.util
import math

import librosa
import numpy as np
import pytest
import pywt
import scipy.signal
import torch
from conftest import recordings

from lib.data import audio
from lib.features.dwt import ScalogramImage
from lib.features.image import append
from lib.features.losses import losses
from lib.features.magnitude import log_view
from lib.features.resize import Resize
from lib.features.scalogram import PASS, Scalogram, fade
from lib.features.stft import STFT, STFTImage
from lib.features.tonnetz import TonnetzImage, tonnetz

RATE = 16000
SECOND = np.arange(RATE) / RATE
EXACT = 2e-5  # of the peak: the bound on the scalogram's error
SINGLE = 1e-5  # of the peak: rounding of single precision through a transform


def tone(frequency, rate=RATE, seconds=1.0):
    t = np.arange(round(seconds * rate)) / rate
    return torch.from_numpy(0.5 * np.sin(2 * np.pi * frequency * t).astype(np.float32))


def noise(samples, seed=0):
    """Noise that leaves the last tenth below half the rate empty, as resampled sound does, and is faded."""
    white = np.random.default_rng(seed).standard_normal(samples)
    faded = scipy.signal.sosfiltfilt(SOS, white) * scipy.signal.windows.tukey(samples, 0.2)
    return torch.from_numpy(faded.astype(np.float32))


SOS = scipy.signal.cheby2(12, 100, 0.9, output="sos")


def reference(scalogram, waveform):
    """W at the columns' times by its definition: the spectrum of the clip among silence, float64, no fold."""
    x = waveform.double().numpy()
    times = scalogram.times(len(x)) * scalogram.rate
    padded = 8 * len(x)  # so fine that the sum over frequencies is the integral
    spectrum, f = np.fft.fft(x, padded), np.fft.fftfreq(padded)
    s = scalogram.scales[:, None]
    bell = np.exp(-(np.pi**2) * scalogram.bandwidth * (s * f - scalogram.centre) ** 2)
    weighted = np.sqrt(s) * bell * spectrum * fade(f)
    return np.stack([weighted @ np.exp(2j * np.pi * time * f) for time in times], axis=1) / padded


def even(scalogram, waveform):
    """Magnitudes over √s: equal sines are equally high."""
    return scalogram(waveform) / torch.from_numpy(scalogram.scales[:, None]).sqrt()


def small(**changes):
    return Scalogram(RATE, **{"bins": 24, "frames": 40} | changes)


# ------------------------------------------------------------------------------------- known answers


def test_a_tone_of_1_khz_is_at_1_khz():
    stft = STFT(RATE, n_fft=2048, hop=512)
    assert abs(stft.frequencies[stft(tone(1000.0)).mean(-1).argmax()] - 1000) <= RATE / 2048
    scalogram = Scalogram(RATE, bins=200, frames=50)
    loudest = scalogram.frequencies[even(scalogram, tone(1000.0))[:, 10:-10].mean(-1).argmax()]
    assert loudest == pytest.approx(1000, rel=0.02)


def test_the_wavelet_s_height_is_that_of_its_formula():
    scalogram = Scalogram(RATE, bins=1, frames=50, fmin=1000, fmax=1000)
    middle = scalogram(tone(1000.0))[0, 20:30]
    assert np.allclose(middle, 0.25 * math.sqrt(scalogram.scales[0]), rtol=1e-4)


@pytest.mark.parametrize("at", [0.25, 0.6, 0.901])
def test_an_impulse_is_where_it_was(at):
    click = torch.zeros(RATE)
    click[round(at * RATE)] = 1
    scalogram = Scalogram(RATE, bins=40, frames=500, fmin=500)
    times = scalogram.times(RATE)[scalogram(click).argmax(dim=-1)]
    assert np.abs(times - at).max() <= 0.002
    stft = STFT(RATE, n_fft=256, hop=64)
    assert abs(stft.times(RATE)[stft(click).sum(0).argmax()] - at) <= 64 / RATE


@pytest.mark.parametrize("method", ["linear", "logarithmic"])
def test_a_chirp_is_followed(method):
    chirp = scipy.signal.chirp(SECOND, 200, 1, 4000, method=method).astype(np.float32)
    scalogram = Scalogram(RATE, bins=300, frames=100)
    times = scalogram.times(RATE)[10:-10]
    heard = scalogram.frequencies[even(scalogram, torch.from_numpy(chirp)).argmax(0)[10:-10]]
    known = 200 + 3800 * times if method == "linear" else 200 * 20**times
    assert np.abs(heard / known - 1).max() < 0.03


def test_a_c_major_triad_is_c_major():
    triad = sum(tone(librosa.note_to_hz(note), 22050, 2.0) for note in ("C4", "E4", "G4")) / 3
    chroma = np.zeros((12, 1))
    chroma[[0, 4, 7]] = 1
    wanted = librosa.feature.tonnetz(chroma=chroma)[:, 0]
    found = tonnetz(triad.numpy())[:, 20:-20].mean(axis=1)
    other = librosa.feature.tonnetz(chroma=np.roll(chroma, 1, axis=0))[:, 0]
    assert np.linalg.norm(found - wanted) < 0.35 * np.linalg.norm(other - wanted)


def test_silence_is_black_and_its_tonnetz_zero():
    silence = torch.zeros(RATE, requires_grad=True)
    for transform in (small(), STFT(RATE)):
        view = log_view(transform(silence))
        assert not view.any()
        (gradient,) = torch.autograd.grad(view.sum(), silence)
        assert torch.isfinite(gradient).all()
    (gradient,) = torch.autograd.grad(small()(silence).sum(), silence)
    assert torch.isfinite(gradient).all()
    assert not tonnetz(np.zeros(22050, np.float32)).any()


def test_frames_80_db_below_the_loudest_have_no_harmony():
    sound = tone(440.0, 22050, 2.0).numpy()
    sound[22050:] *= 1e-5
    assert not tonnetz(sound)[:, 50:].any()
    assert tonnetz(sound)[:, :40].any()


# ----------------------------------------------------------------------------------------- references


@pytest.mark.parametrize("samples", [4000, 4001, 7919])
@pytest.mark.parametrize(
    "changes", [{}, {"bandwidth": 1.5, "centre": 1.0}, {"bandwidth": 0.5, "centre": 0.6}]
)
def test_the_scalogram_is_its_definition(samples, changes):
    scalogram = small(**changes)
    wanted = np.abs(reference(scalogram, noise(samples)))
    for sound in (noise(samples), noise(samples).requires_grad_()):  # compiled, and by autograd
        assert np.abs(scalogram(sound).detach().numpy() - wanted).max() <= EXACT * wanted.max()


def white(samples):
    return torch.from_numpy(np.random.default_rng(1).standard_normal(samples).astype(np.float32))


def clicks(samples):
    sound = torch.zeros(samples)
    sound[[0, samples // 3, samples - 1]] = torch.tensor([1.0, -1.0, 0.5])
    return sound


def to_nyquist(samples):
    t = np.arange(samples) / RATE
    chirp = scipy.signal.chirp(t, 100, samples / RATE, RATE / 2)
    return torch.from_numpy(chirp.astype(np.float32))


HARD = {  # sounds that reach half the rate, and begin and end abruptly
    "white noise": white,
    "clicks": clicks,
    "chirp": to_nyquist,
    "tone at 0.47 of the rate": lambda samples: tone(0.47 * RATE, seconds=samples / RATE),
    "tone at half the rate": lambda samples: torch.tensor([0.5, -0.5]).repeat(samples)[:samples],
}


@pytest.mark.parametrize("samples", [2000, 2001, 3989])
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("fmax", [0.0, 0.35 * RATE, 0.5 * RATE])
def test_the_promise_holds_up_to_half_the_rate_and_for_every_length(name, samples, fmax):
    scalogram = Scalogram(RATE, bins=16, frames=30, fmin=200, fmax=fmax)
    sound = HARD[name](samples)
    wanted = np.abs(reference(scalogram, sound))
    for each in (sound, sound.clone().requires_grad_()):
        assert np.abs(scalogram(each).detach().numpy() - wanted).max() <= EXACT * max(wanted.max(), 0.05)


def test_the_fade_leaves_what_is_below_it_and_ends_at_half_the_rate():
    f = np.linspace(0, 0.5, 1001)
    assert np.abs(fade(f[f <= PASS]) - 1).max() < 2e-6
    assert fade(np.array([0.5])) < 2e-6
    assert (np.diff(fade(f)) <= 1e-12).all()


@pytest.mark.parametrize("frequency", [0.2, 0.4, 0.46])
def test_the_transform_is_that_of_the_sound_between_its_samples(frequency):
    """A faded tone at 16 times the rate, its transform by Eq. 11 as a sum over the fine samples."""
    fine, samples = 16, 2000
    t = (np.arange(fine * samples) + 0.5) / fine  # in samples of the coarse rate
    hull = np.clip(np.sin(np.pi * t / samples), 0, 1) ** 4
    sound = np.cos(2 * np.pi * frequency * t) * hull
    coarse = np.arange(samples)
    given = np.cos(2 * np.pi * frequency * coarse) * np.sin(np.pi * coarse / samples) ** 4
    scalogram = Scalogram(RATE, bins=12, frames=20, fmin=1000)
    found = scalogram(torch.from_numpy(given)).numpy()
    times = scalogram.times(samples) * RATE
    x = (t[None] - times[:, None])[None] / scalogram.scales[:, None, None]
    wavelet = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * np.exp(-2j * np.pi * scalogram.centre * x)
    wanted = np.abs((wavelet * sound).sum(-1)) / fine / np.sqrt(scalogram.scales)[:, None]
    assert np.abs(found - wanted).max() <= EXACT * wanted.max()


@pytest.mark.parametrize("frames", [125, 81, 13])
def test_columns_are_evenly_apart(frames):
    scalogram = small(frames=frames)
    assert scalogram(noise(4000)).shape[1] == frames
    assert np.diff(scalogram.times(4000)) == pytest.approx(0.25 / frames, abs=1e-6)
    wanted = np.abs(reference(scalogram, noise(4000)))
    assert np.abs(scalogram(noise(4000)).numpy() - wanted).max() <= EXACT * wanted.max()


def test_both_ways_of_folding_agree():
    scalogram, sound = Scalogram(RATE, bins=60, frames=64), noise(RATE)
    compiled = scalogram(sound)
    general = scalogram(sound.clone().requires_grad_()).detach()
    assert (compiled - general).abs().max() <= SINGLE * compiled.abs().max()


def test_recordings_agree_with_the_reference():
    folder = recordings("ESC-10") / "audio"
    scalogram = Scalogram(RATE, bins=8, frames=16)
    for path in sorted(folder.glob("*.ogg"))[::101]:
        sound = torch.from_numpy(audio.waveform({"path": str(path), "clip": path.stem}, RATE, 5.0))
        wanted = np.abs(reference(scalogram, sound))
        assert np.abs(scalogram(sound).numpy() - wanted).max() <= EXACT * wanted.max()


def test_pywavelets_means_the_same_by_scale_and_frequency():
    sound = noise(2000)
    full = Scalogram(RATE, bins=6, frames=len(sound), fmin=150, fmax=800, centre=1.0)
    name = "cmor2.0-1.0"
    assert np.allclose(pywt.scale2frequency(name, full.scales, precision=16) * RATE, full.frequencies)
    ours = full(sound).numpy()
    # Ours are taken half a sample later; PyWavelets holds each sample for its duration, a delay of as much.
    plain = np.abs(pywt.cwt(sound.numpy(), full.scales, name, precision=20, method="fft")[0])
    assert np.abs(plain - ours).max() <= 0.01 * ours.max()


def test_ssqueezepy_agrees_under_its_convention():
    if importlib.util.find_spec("ssqueezepy") is None:
        pytest.skip("ssqueezepy is not installed; tests/bench/requirements.txt has it")
    from ssqueezepy import cwt

    sound = noise(4000)
    full = Scalogram(RATE, bins=12, fmin=200, fmax=3000)
    # Its Morlet is exp(-(sω - μ)²/2) of μ = 6, with scales in radians a sample, the clip padded by zeros;
    # its columns lie on samples, ours between them: compared where both are known, through the definition.
    scales = full.scales[::-1].copy()  # ascending, as it wants them
    theirs, _ = cwt(
        sound.double().numpy(), ("morlet", {"mu": 6.0}), scales=scales, padtype="zero", l1_norm=True
    )
    x = sound.double().numpy()
    f = np.fft.rfftfreq(4 * len(x))
    bell = np.exp(-(np.pi**2) * 2 * (scales[:, None] * f - full.centre) ** 2)
    turns = np.exp(2j * np.pi * np.outer(np.arange(len(x)), f))
    ours = (bell * np.fft.rfft(x, 4 * len(x))) @ turns.T / (4 * len(x))
    ratio = np.abs(theirs).max() / np.abs(ours).max()
    assert np.abs(np.abs(theirs) - ratio * np.abs(ours)).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 512), (1024, 300)])
def test_the_stft_is_librosa_s(n_fft, hop):
    sound = noise(20000)
    wanted = np.abs(librosa.stft(sound.numpy(), n_fft=n_fft, hop_length=hop))
    found = STFT(RATE, n_fft=n_fft, hop=hop)(sound).numpy()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= SINGLE * wanted.max()


@pytest.mark.parametrize(("rate", "seconds"), [(22050, 3.0), (44100, 3.0), (22050, 3.3)])
def test_the_tonnetz_is_librosa_s(rate, seconds):
    sound = noise(round(seconds * rate)).numpy() * 0.01 + tone(333.0, rate, seconds).numpy()
    wanted = librosa.feature.tonnetz(y=sound, sr=rate)
    found = tonnetz(sound, rate, silent=-np.inf)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= SINGLE


# ------------------------------------------------------------------------------------------ symmetries


def test_a_later_sound_is_later():
    scalogram = Scalogram(RATE, bins=20, frames=100, fmin=400)
    sound = torch.zeros(RATE)
    sound[4000:8000] = noise(4000)
    here, there = scalogram(sound), scalogram(sound.roll(10 * RATE // 100))
    assert (here[:, :85] - there[:, 10:95]).abs().max() <= SINGLE * here.max()


@pytest.mark.parametrize("scale", [1e-4, 3.0])
def test_loudness_scales_magnitudes_and_leaves_the_view(scale):
    sound = noise(RATE)
    for transform in (small(), STFT(RATE)):
        quiet, loud = transform(sound), transform(scale * sound)
        assert (loud - scale * quiet).abs().max() <= SINGLE * loud.max()
        assert (log_view(loud) - log_view(quiet)).abs().max() <= 1e-3


def test_a_clip_does_not_depend_on_its_batch():
    clips = torch.stack([noise(RATE, seed) for seed in range(3)])
    for transform in (small(), STFT(RATE)):
        together = transform(clips)
        assert torch.equal(transform(clips.flip(0)), together.flip(0))
        assert torch.allclose(transform(clips[1]), together[1], atol=SINGLE * together.max())


@pytest.mark.parametrize("old", [40, 41, 300])
def test_resizing_keeps_constants_and_ramps(old):
    positions = (np.arange(40) + 0.5) * old / 40 - 0.5
    for dim in (-2, -1):
        resize = Resize(old, positions, dim=dim)
        ramp = torch.arange(old, dtype=torch.float64)
        ramp = ramp[:, None].expand(old, 5) if dim == -2 else ramp.expand(5, old)
        found = resize(ramp) if dim == -1 else resize(ramp).T
        margin = math.ceil(old / 40)
        assert np.allclose(found[0, margin:-margin], positions[margin:-margin], atol=0.03)
        assert torch.allclose(resize(torch.ones_like(ramp)), torch.ones(()).double())


def test_the_tonnetz_is_appended_above():
    image, six = torch.rand(2, 64, 10), torch.rand(2, 6, 10)
    above = append(image, six, rows=45)
    assert above.shape == (2, 109, 10)
    assert torch.equal(above[:, :64], image)
    assert torch.equal(above[:, [64, 108]], six[:, [0, 5]])
    with pytest.raises(ValueError, match="10 frames of spectrogram and 9 above"):
        append(image, six[..., :9], rows=45)


# ---------------------------------------------------------------------------------------- small images

SIZE = {"duration": 2.0, "bins": 24, "frames": 50, "floor": -100.0}
WAVELET = {"fmin": 60.0, "bandwidth": 2.0, "centre": 0.9549}


def scalogram_image(*, averaged, **changes):
    return ScalogramImage(RATE, **SIZE | WAVELET | changes, averaged=averaged)


def test_an_averaged_column_is_the_mean_magnitude_over_its_span():
    image = scalogram_image(averaged=True)
    fine = Scalogram(RATE, bins=24, frames=50 * 160, fmin=60, centre=0.9549)
    for sound in (noise(2 * RATE), to_nyquist(2 * RATE)):
        wanted = fine(sound).unflatten(-1, (50, 160)).mean(-1)
        error = image.magnitudes(sound[None])[0] - wanted
        assert error.square().mean() <= 0.03**2 * wanted.square().mean()


def test_a_sampled_column_is_the_transform_at_its_middle():
    image, plain = (
        scalogram_image(averaged=False),
        Scalogram(RATE, bins=24, frames=50, fmin=60, centre=0.9549),
    )
    assert torch.allclose(image.magnitudes(noise(2 * RATE)[None])[0], plain(noise(2 * RATE)), atol=SINGLE)
    assert np.allclose(image.frequencies, plain.frequencies)


def test_a_click_is_as_bright_wherever_it_falls():
    """Summed over the columns, since a click between two is shared by both."""
    sounds = torch.zeros(30, 2 * RATE)
    sounds[torch.arange(30), 8000 + 23 * torch.arange(30)] = 1
    total = {
        each: scalogram_image(averaged=each).magnitudes(sounds).sum(-1)[:, -6:] for each in (True, False)
    }
    spread = {each: 20 * torch.log10(found.amax(0) / found.amin(0)).max() for each, found in total.items()}
    assert spread[True] < 1.0  # dB
    assert spread[False] > 20.0


def test_losses_are_none_where_nothing_is_lost():
    whole = scalogram_image(averaged=True, bins=200, frames=1600)
    small = {"sampled": scalogram_image(averaged=False), "averaged": scalogram_image(averaged=True)}
    stft = STFTImage(RATE, **SIZE, n_fft=2048, hop=512)
    found = losses({"whole": whole, "stft": stft, **small}, SIZE["floor"])
    assert found.loc[["whole", "sampled", "averaged"], "tone [dB]"].abs().max() < 1e-3
    assert found.loc["stft", "tone [dB]"] < -20
    assert found.loc["whole", "clicks [dB]"] > -1
    assert found.loc["averaged", "clicks [dB]"] > -1
    assert found.loc["sampled", "clicks [dB]"] < -30
    assert 5 < found.loc["sampled", "noise [dB]"] < 8
    assert found.loc["averaged", "noise [dB]"] < 3


def test_gradients_of_an_averaged_image_are_those_of_finite_differences():
    image = ScalogramImage(
        RATE, duration=0.04, bins=4, frames=5, floor=-60.0, averaged=True, **WAVELET | {"fmin": 900.0}
    )
    sound = noise(640).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: image.magnitudes(x[None]), (sound,), eps=1e-6, atol=1e-4, fast_mode=True
    )


# ------------------------------------------------------------------------------------------- gradients


def test_gradients_are_those_of_finite_differences():
    sound = noise(512).double().requires_grad_()
    scalogram = Scalogram(RATE, bins=5, frames=6, fmin=500)
    stft = STFT(RATE, n_fft=128, hop=64)
    for call in (scalogram, stft, lambda x: log_view(scalogram(x))):
        assert torch.autograd.gradcheck(call, (sound,), eps=1e-6, atol=1e-4, fast_mode=True)


# ------------------------------------------------------------------------------------------- bad input

STUCK = torch.full((RATE,), 0.25)
BAD = torch.zeros(RATE).index_fill(0, torch.tensor(7), math.nan)


@pytest.mark.parametrize("call", [small(), STFT(RATE), lambda x: tonnetz(x.numpy())])
@pytest.mark.parametrize(
    ("waveform", "said"),
    [
        (torch.zeros(0), "given 0"),
        (BAD, "nan at sample 7"),
        (STUCK, "constant 0.25"),
        (torch.zeros(RATE, dtype=torch.int16), "int16"),
    ],
)
def test_what_is_no_sound_is_refused(call, waveform, said):
    with pytest.raises(ValueError, match=said):
        call(waveform)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: small(bins=0), "bins = 0"),
        (lambda: small(frames=0), "frames = 0"),
        (lambda: small(fmax=8001), "fmax = 8001 Hz is above half the rate, 8000 Hz"),
        (lambda: small(fmin=500, fmax=400), "fmin = 500 Hz is above fmax = 400 Hz"),
        (lambda: Scalogram(-1.0), "rate = -1.0"),
        (lambda: STFT(RATE, hop=0), "hop = 0"),
        (lambda: STFT(RATE)(torch.zeros(2047)), "2048 samples, given 2047"),
        (lambda: small()(torch.rand(30)), "40 columns are more than the 30 samples"),
        (lambda: log_view(torch.ones(2, 2), 0.0), "floor = 0.0"),
        (
            lambda: TonnetzImage(duration=1.0, frames=9)(torch.rand(1, RATE)),
            "22050 samples, given 16000",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_sound_without_a_pitch_has_a_tonnetz_and_raises_no_warning():
    rumble = tone(15.0, 22050, 1.0).numpy()
    assert np.isfinite(tonnetz(rumble)).all()
