"""Toy sounds with known content: ten street sounds synthesised from small physical models.

The classes are UrbanSound8K's. A *recording* is a place and a source: it draws, once, the source's
parameters (how large the dog, how many blades the fan), the room, the microphone and the background.
Its *takes* are clips of it: the same place and source, other moments. So two takes of a recording
resemble each other as two slices of one real recording do, and a fold holds whole recordings.

A model is a source and a filter: pulses or noise in time, resonances in frequency. Everything is drawn
from the clip's name, so that a clip is the same samples on every run. Chapter 1 plays them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

RATE = 16000  # Hz
SECONDS = 2.5  # of a clip
FOLDS = 5
RECORDINGS = 20  # of a class, four in a fold
TAKES = 2  # clips of a recording

_SAMPLES = round(RATE * SECONDS)
_TIME = np.arange(_SAMPLES) / RATE  # s
_SEED = 1947  # of the whole set; another number is another set
_EVENT_SHARE = 0.3  # of the recordings hear another class behind their own
_EVENT_LEVEL = (-20.0, -8.0)  # dB of that event relative to the foreground
_NOISE_LEVEL = (-35.0, -12.0)  # dB of the place's noise relative to the foreground

# Formants of five vowels of an adult, Hz (Peterson and Barney, 1952: ee, ah, aw, oo, er).
_VOWELS = ((270, 2290, 3010), (730, 1090, 2440), (570, 840, 2410), (300, 870, 2240), (490, 1350, 1690))
_SCALE = np.array([0, 2, 4, 7, 9, 12, 14, 16, 19])  # semitones of a major pentatonic


# --- sources and filters ------------------------------------------------------------------------------


def _pulses(frequency: np.ndarray | float, sharpness: float, samples: int, phase: float = 0.0) -> np.ndarray:
    """A periodic pulse exp(b·(cos φ − 1)) less its mean: a sine for small b, a click for large b."""
    steps = np.broadcast_to(np.asarray(frequency, float) / RATE, (samples,))
    wave = np.exp(sharpness * (np.cos(2 * np.pi * np.cumsum(steps) + phase) - 1))
    return wave - wave.mean()


def _noise(rng: np.random.Generator, samples: int, slope: float = 0.0) -> np.ndarray:
    """Gaussian noise whose power falls as 1 / f^slope above 40 Hz: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    noise = np.fft.irfft(spectrum * np.maximum(frequency, 40.0) ** (-slope / 2), samples)
    return noise / noise.std()


def _resonate(
    sound: np.ndarray, peaks: Sequence[tuple[float, float, float]], floor: float = 0.02
) -> np.ndarray:
    """Filter by resonances (centre in Hz, width in Hz, gain) above a flat ``floor``; zero phase."""
    size = _fast_size(sound.size + 256)
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    response = np.full(frequency.size, floor)
    for centre, width, gain in peaks:
        response += gain / (1 + ((frequency - centre) / (width / 2)) ** 2)
    return np.fft.irfft(np.fft.rfft(sound, size) * response, size)[: sound.size]


def _hull(samples: int, attack: float, release: float) -> np.ndarray:
    """An envelope that rises within ``attack`` s and dies away within the last ``release`` s."""
    time = np.arange(samples) / RATE
    left = time[::-1]
    return np.minimum(1, time / attack) * np.minimum(1, left / release)


def _place(canvas: np.ndarray, sound: np.ndarray, at: float, gain: float = 1.0) -> None:
    """Add ``sound`` to ``canvas`` beginning at ``at`` s; what lies outside is lost."""
    begin = round(at * RATE)
    first, last = max(0, -begin), min(sound.size, canvas.size - begin)
    if last > first:
        canvas[begin + first : begin + last] += gain * sound[first:last]


def _hits(rng: np.random.Generator, rate: float, jitter: float) -> np.ndarray:
    """Times in s of blows at ``rate`` a second, each gap varied by the share ``jitter``."""
    gaps = np.maximum(0.2, 1 + jitter * rng.standard_normal(int(SECONDS * rate * 1.5) + 4)) / rate
    times = np.cumsum(gaps) - rng.random() * gaps[0]
    return times[times < SECONDS]


def _comb(times: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Impulses of the given gains at the given times."""
    canvas = np.zeros(_SAMPLES)
    np.add.at(canvas, np.minimum((times * RATE).astype(int), _SAMPLES - 1), gains)
    return canvas


def _convolve(sound: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Linear convolution, cut to the length of ``sound``."""
    size = _fast_size(sound.size + response.size)
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[: sound.size]


def _fast_size(samples: int) -> int:
    """The next size 2^a or 3·2^a or 5·2^a or 9·2^a or 15·2^a: transforms of those are cheap."""
    power = 2 ** max(0, (samples - 1).bit_length() - 4)
    return next(power * part for part in (8, 9, 10, 12, 15, 16) if power * part >= samples)


# --- ten models: what a recording keeps is drawn from ``of``, what changes between takes from ``take`` ---


def _air_conditioner(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """A fan in a duct: pink to brown noise, tones at the blade rate, mains hum, a slow wobble."""
    shaft, blades, slope = of.uniform(14, 30), of.integers(5, 10), of.uniform(0.6, 1.8)
    duct = [(of.uniform(120, 700), of.uniform(80, 300), of.uniform(0.5, 2)) for _ in range(3)]
    tone, hum, depth = of.uniform(0.02, 0.3), of.uniform(0.0, 0.2), of.uniform(0.02, 0.15)
    air = _resonate(_noise(take, _SAMPLES, slope), duct, 0.4)
    air *= 1 + depth * np.sin(2 * np.pi * shaft / 8 * _TIME + take.uniform(0, 6))
    blade = _pulses(shaft * blades, 3.0, _SAMPLES)
    mains = _pulses(2 * of.choice([50.0, 60.0]), 2.0, _SAMPLES)
    return air / air.std() + tone * blade / blade.std() + hum * mains / mains.std()


def _car_horn(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """Two reeds about a third apart, rich in harmonics, through a horn; honked one to three times."""
    low, interval, sharp = of.uniform(310, 520), of.uniform(1.18, 1.3), of.uniform(6, 40)
    bell = [(of.uniform(900, 3200), of.uniform(500, 1500), 1.0), (low * 2, 300, 0.5)]
    canvas = np.zeros(_SAMPLES)
    at = take.uniform(0.0, 0.8)
    for _ in range(take.integers(1, 4)):
        samples = round(take.choice([0.15, 0.3, 0.6, 1.2]) * take.uniform(0.8, 1.4) * RATE)
        sag = 1 - 0.015 * np.exp(-np.arange(samples) / (0.03 * RATE))
        reeds = _pulses(low * sag, sharp, samples) + _pulses(low * interval * sag, sharp, samples, 1.0)
        _place(canvas, reeds * _hull(samples, 0.02, 0.04), at)
        at += samples / RATE + take.uniform(0.08, 0.6)
    return _resonate(canvas, bell, 0.1)


def _children_playing(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """Several small voices: gliding pulses through the formants of vowels, shorter throats, shouts."""
    voices = [(of.uniform(260, 520), of.uniform(1.2, 1.5)) for _ in range(of.integers(3, 7))]
    canvas = np.zeros(_SAMPLES)
    for _ in range(take.integers(7, 13)):
        pitch, throat = voices[take.integers(len(voices))]
        samples = round(take.uniform(0.12, 0.7) * RATE)
        x = np.linspace(0, 1, samples)
        glide = pitch * 2 ** (take.uniform(-0.4, 0.5) * x + take.uniform(0, 0.5) * np.sin(np.pi * x))
        breath = 0.05 * take.standard_normal(samples)
        vowel = _VOWELS[take.integers(len(_VOWELS))]
        peaks = [(f * throat, 70 + f / 12, 1 / (1 + i)) for i, f in enumerate(vowel)]
        voice = _resonate(_pulses(glide, 12.0, samples) + breath, peaks)
        voice *= np.sin(np.pi * x) ** 0.5 / (voice.std() + 1e-9)
        _place(canvas, voice, take.uniform(-0.3, SECONDS - 0.1), take.lognormal(-0.5, 0.7))
    return canvas


def _dog_bark(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """Barks in a row: a pitch that jumps up and falls, rough with noise, through a muzzle of one size."""
    size, rough, pause = of.uniform(0.6, 1.6), of.uniform(0.1, 0.6), of.uniform(0.2, 0.7)
    pitch, length = of.uniform(260, 620) / size, of.uniform(0.12, 0.28)
    muzzle = [(550 / size, 250, 1.0), (1250 / size, 350, 0.8), (2600 / size, 600, 0.4)]
    canvas = np.zeros(_SAMPLES)
    at = take.uniform(0.0, 0.6)
    for _ in range(take.integers(1, 6)):
        samples = round(length * take.uniform(0.7, 1.3) * RATE)
        x = np.linspace(0, 1, samples)
        glide = pitch * take.uniform(0.9, 1.15) * (0.7 + 0.6 * np.sin(np.pi * x**0.6))
        bark = _pulses(glide, 8.0, samples) * (1 + rough * take.standard_normal(samples))
        bark = bark + 0.3 * rough * take.standard_normal(samples)
        _place(canvas, bark * np.minimum(1, x / 0.05) * (1 - x) ** 1.2, at, take.uniform(0.5, 1))
        at += length + pause * take.uniform(0.5, 2.0)
    return _resonate(canvas, muzzle, 0.03)


def _drilling(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """An electric drill: motor pulses that sag under load, a whining gear, grinding noise at its beat."""
    motor, ratio, gear = of.uniform(70, 190), of.integers(7, 17), of.uniform(0.05, 0.5)
    bit = [(of.uniform(1800, 6500), of.uniform(800, 3000), 1.0), (of.uniform(500, 1500), 400, 0.4)]
    grind, sag = of.uniform(0.4, 1.5), of.uniform(0.02, 0.25)
    begin, end = take.uniform(-1.5, 0.8), take.uniform(1.8, 4.5)
    load = 1 / (1 + np.exp(-(_TIME - begin) / 0.08)) / (1 + np.exp((_TIME - end) / 0.1))
    speed = motor * (1 - sag * load + 0.01 * np.sin(2 * np.pi * 3 * _TIME)) * np.clip(load * 4, 0.02, 1)
    teeth = _pulses(speed, 6.0, _SAMPLES)
    noise = take.standard_normal(_SAMPLES) * (0.6 + teeth / (teeth.std() + 1e-9) * 0.4)
    body = _resonate(teeth, [(400, 500, 1.0), (1400, 900, 0.5)], 0.1)
    whine = np.sin(2 * np.pi * np.cumsum(speed * ratio) / RATE)
    scrape = _resonate(noise, bit, 0.05)
    return load * (body / body.std() + gear * whine + grind * scrape / scrape.std())


def _engine_idling(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """Firing cylinders, each a little different, through an exhaust; valves clatter at the same beat."""
    rate, cylinders, uneven = of.uniform(16, 42), of.integers(3, 7), of.uniform(0.1, 0.5)
    pipe = [
        (of.uniform(60, 160), 60, 1.0),
        (of.uniform(180, 420), 150, 0.6),
        (of.uniform(600, 1500), 600, 0.2),
    ]
    strength = 1 + uneven * of.standard_normal(cylinders)
    clatter, jitter = of.uniform(0.05, 0.5), of.uniform(0.01, 0.08)
    times = _hits(take, rate, jitter)
    gains = np.resize(strength, times.size) * (1 + 0.1 * take.standard_normal(times.size))
    decay = np.exp(-np.arange(1200) / (0.008 * RATE))
    bangs = _convolve(_comb(times, gains), decay)
    exhaust = _resonate(bangs, pipe, 0.01)
    valves = _resonate(bangs * take.standard_normal(_SAMPLES), [(2500, 2500, 1.0)], 0.1)
    return exhaust / exhaust.std() + clatter * valves / valves.std()


def _gun_shot(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """A blast wave (Friedlander: a jump, then suction), burning noise, and echoes from walls."""
    boom, burn, walls = of.uniform(0.002, 0.01), of.uniform(0.01, 0.12), of.uniform(0.05, 0.5, 4)
    echoes, dull = of.uniform(0.1, 0.6), of.uniform(300, 3000)
    samples = round(0.5 * RATE)
    x = np.arange(samples) / RATE
    canvas = np.zeros(_SAMPLES)
    at = take.uniform(0.05, 1.2)
    for _ in range(take.choice([1, 1, 2, 3])):
        blast = 3 * (1 - x / boom) * np.exp(-x / boom)
        blast += np.exp(-x / burn) * _resonate(take.standard_normal(samples), [(dull, 2 * dull, 1.0)], 0.1)
        _place(canvas, blast, at)
        for wall in np.cumsum(walls):
            _place(canvas, _resonate(blast, [(200, 900, 1.0)], 0.03), at + wall, echoes * np.exp(-2 * wall))
        at += take.uniform(0.25, 0.9)
    return canvas


def _jackhammer(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """Blows of steel on stone, ten to thirty a second, over the pneumatic's hiss."""
    rate, jitter, hiss = of.uniform(9, 30), of.uniform(0.01, 0.08), of.uniform(0.1, 0.8)
    steel = [(of.uniform(900, 4200), of.uniform(100, 700), 1.0) for _ in range(3)]
    thud, ring = of.uniform(0.2, 1.5), of.uniform(0.004, 0.03)
    times = _hits(take, rate, jitter)
    blows = _comb(times, take.uniform(0.7, 1.0, times.size))
    decay = np.exp(-np.arange(2500) / (ring * RATE))
    hull = _convolve(blows, decay)
    chips = _resonate(hull * take.standard_normal(_SAMPLES), steel, 0.08)
    low = _resonate(hull, [(of.uniform(60, 150), 80, 1.0)], 0.0)
    air = take.standard_normal(_SAMPLES) * (0.5 + 0.5 * hull / (hull.max() + 1e-9))
    return chips / chips.std() + thud * low / low.std() + hiss * 0.3 * air


def _siren(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """A horn swept between two pitches: a slow wail, a fast yelp or two tones in turn; it drives by."""
    low, span, sharp = of.uniform(420, 800), of.uniform(1.5, 2.3), of.uniform(1, 8)
    kind, period = of.integers(3), of.uniform(2.2, 5.0)
    turn = _TIME / (period if kind == 0 else period / 9 if kind == 1 else period / 3) + take.random()
    sweep = (1 - np.cos(2 * np.pi * turn)) / 2 if kind < 2 else (turn % 1 > 0.5) * 0.5
    passing = 1 - 0.04 * np.tanh((_TIME - take.uniform(0, SECONDS)) * of.uniform(0.5, 3))
    near = 0.4 + 0.6 * np.sin(np.pi * np.clip(_TIME / SECONDS + take.uniform(-0.3, 0.3), 0, 1))
    horn = _pulses(low * span**sweep * passing, sharp, _SAMPLES)
    return near * _resonate(horn, [(of.uniform(900, 2500), 1500, 1.0)], 0.15)


def _street_music(of: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """Plucked or bowed notes of a pentatonic scale over a bass, sometimes a drum."""
    beat, key, sharp = of.uniform(0.16, 0.4), 55.0 * 2 ** (of.integers(12, 32) / 12), of.uniform(1, 15)
    ring, drum, body = of.uniform(0.1, 0.9), of.choice([0.0, 0.6]), of.uniform(300, 1500)
    canvas = np.zeros(_SAMPLES)
    first, step = take.uniform(-beat, 0), take.integers(len(_SCALE))
    samples = round(min(4 * ring, 1.2) * RATE)
    x = np.arange(samples) / RATE
    fade = np.minimum(1, x / 0.008) * np.exp(-x / ring)
    for i, at in enumerate(np.arange(first, SECONDS, beat)):
        step = int(np.clip(step + take.integers(-2, 3), 0, len(_SCALE) - 1))
        if take.random() < 0.8:
            _place(canvas, _pulses(key * 2 ** (_SCALE[step] / 12), sharp, samples) * fade, at)
        if i % 4 == 0:
            _place(canvas, _pulses(key / 2, 3.0, samples) * fade, at, 0.8)
        if drum and i % 2 == 0:
            skin = take.standard_normal(2000) * np.exp(-np.arange(2000) / 350)
            _place(canvas, skin, at, drum * (0.5 if i % 4 else 1.0))
    return _resonate(canvas, [(body, 800, 1.0), (3 * body, 2000, 0.4)], 0.15)


_MODELS = (
    _air_conditioner,
    _car_horn,
    _children_playing,
    _dog_bark,
    _drilling,
    _engine_idling,
    _gun_shot,
    _jackhammer,
    _siren,
    _street_music,
)

NAMES = tuple(model.__name__.removeprefix("_") for model in _MODELS)  # UrbanSound8K's order


# --- a clip -------------------------------------------------------------------------------------------


def clips() -> pd.DataFrame:
    """The toy set, one row per clip.

    Returns
    -------
    clip (such as ``dog_bark-07-1``: class, recording, take), name, source, take, fold 1 … 5, and the
    rate, channels and frames that :func:`sound` gives. Ten classes × 20 recordings × 2 takes.
    """
    rows = [
        (f"{name}-{recording:02d}-{take}", name, f"{name}-{recording:02d}", str(take), recording % FOLDS + 1)
        for name in NAMES
        for recording in range(RECORDINGS)
        for take in range(TAKES)
    ]
    frame = pd.DataFrame(rows, columns=["clip", "name", "source", "take", "fold"])
    return frame.assign(rate=RATE, channels=1, frames=_SAMPLES)


def sound(clip: str) -> np.ndarray:
    """Synthesise a clip.

    Parameters
    ----------
    clip : its name, ``CLASS-RECORDING-TAKE``; any recording and take from 0 may be asked for.

    Returns
    -------
    float32 (samples,) in [-1, 1], at ``RATE`` Hz, ``SECONDS`` long; the same samples on each call.

    Raises
    ------
    ValueError : if the name is none of a toy clip.
    """
    name, recording, take = _parts(clip)
    of, chance = _generators(name, recording, take)
    foreground = _unit(_MODELS[name](of, chance))
    # The place: its reverberation, its microphone's tilt, its noise, and who else is heard there.
    reverberation, wet, tilt = of.uniform(0.05, 0.5), of.uniform(0.0, 0.6), of.uniform(-0.4, 0.4)
    slope, level = of.uniform(0.5, 2.0), of.uniform(*_NOISE_LEVEL)
    heard = of.random() < _EVENT_SHARE
    other, loud = (name + of.integers(1, len(_MODELS))) % len(_MODELS), of.uniform(*_EVENT_LEVEL)
    if heard:
        foreground = foreground + 10 ** (loud / 20) * _unit(_MODELS[other](of, chance))
    tail = np.arange(round(reverberation * RATE)) / RATE
    room = of.standard_normal(tail.size) * np.exp(-6.9 * tail / reverberation)
    room *= wet / np.sqrt((room**2).sum())
    room[0] += 1.0
    noise = 10 ** (level / 20) * _noise(chance, _SAMPLES, slope)
    # Once into the spectrum and back, for the room, the noise and the microphone.
    size = _fast_size(_SAMPLES + room.size)
    spectrum = np.fft.rfft(foreground, size) * np.fft.rfft(room, size) + np.fft.rfft(noise, size)
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    sound = np.fft.irfft(spectrum * np.maximum(frequency, 100.0) ** tilt, size)[:_SAMPLES]
    sound *= 10 ** (of.uniform(-20, -1) / 20) / np.abs(sound).max()
    return sound.astype(np.float32)


def _parts(clip: str) -> tuple[int, int, int]:
    name, _, rest = clip.partition("-")
    recording, _, take = rest.partition("-")
    if name not in NAMES or not recording.isdecimal() or not take.isdecimal():
        raise ValueError(
            f"clip {clip!r} is no toy clip: CLASS-RECORDING-TAKE, CLASS one of {', '.join(NAMES)}"
        )
    return NAMES.index(name), int(recording), int(take)


def _generators(name: int, recording: int, take: int) -> tuple[np.random.Generator, np.random.Generator]:
    of = np.random.default_rng([_SEED, name, recording])
    return of, np.random.default_rng([_SEED, name, recording, take + 1])


def _unit(sound: np.ndarray) -> np.ndarray:
    """Scale to a root mean square of 1 where there is sound: above a tenth of the peak."""
    loud = np.abs(sound) > 0.1 * np.abs(sound).max()
    return sound / np.sqrt((sound[loud] ** 2).mean())
