"""Sounds and their changes, on signals whose answer is known."""

import numpy as np
import pytest
import torch

from lib.features.stft import STFTImage
from lib.sound.attack import attack
from lib.sound.noise import noisy
from lib.sound.resynthesis import gained, resynthesise
from lib.sound.snr import segmental_snr, snr
from lib.sound.strength import strength
from lib.transfer import transfer


def tone(frequency: float = 440.0, samples: int = 4000, rate: int = 4000) -> torch.Tensor:
    return torch.sin(2 * np.pi * frequency * torch.arange(samples) / rate)[None]


def image() -> STFTImage:
    return STFTImage(4000, duration=1.0, bins=32, frames=32, floor=-100.0, n_fft=256, hop=64)


def test_snr_of_a_tenth_is_20_db_and_of_nothing_infinite():
    clean = tone()
    assert snr(clean, 1.1 * clean).item() == pytest.approx(20, abs=1e-4)
    assert snr(clean, clean).item() == np.inf


def test_segmental_snr_hears_a_change_in_a_quiet_part_that_snr_does_not():
    clean = torch.cat([tone(), 0.01 * tone()], -1)
    change = torch.cat([torch.zeros(1, 4000), 0.01 * tone(700)], -1)
    assert snr(clean, clean + change).item() > 30
    assert segmental_snr(clean, clean + change, 4000).item() == pytest.approx((35 + 0) / 2, abs=0.5)


def test_the_image_of_a_sound_is_resynthesised_as_that_sound():
    wave = tone()
    found = resynthesise(image(), wave, image()(wave), steps=20)
    assert found.distance.item() == pytest.approx(0, abs=1e-5)
    assert found.converged.item()
    torch.testing.assert_close(found.sound, wave)


def test_resynthesis_reaches_an_image_that_belongs_to_another_sound_and_converges():
    view, wave = image(), 0.3 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    wanted = view(wave * torch.linspace(1, 0.2, 4000)).detach()
    before = (view(wave) - wanted).norm().item()
    found = resynthesise(view, wave, wanted, steps=400)
    assert found.converged.item()
    assert found.distance.item() < 0.05 * before
    again = (view(found.sound) - wanted).norm().item()
    rounding = 6e-8 * wanted.numel() ** 0.5  # float32's, of as many values up to 1
    assert found.distance.item() == pytest.approx(again, rel=1e-3, abs=rounding)


def test_a_search_that_is_given_up_says_so():
    view, wave = image(), 0.3 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    wanted = view(wave.flip(0)).detach()
    found = resynthesise(view, wave, wanted, steps=20)
    assert found.converged.tolist() == [False, False]
    assert (found.distance < (view(wave) - wanted).flatten(1).norm(dim=1)).all()


def test_an_image_of_no_sound_leaves_a_distance_at_which_the_search_converges():
    """Stripes one pixel wide, of which neighbouring windows of the transform share most samples."""
    view, wave = image(), 0.3 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    stripes = 0.1 * (torch.arange(32) % 2 * 2.0 - 1)[:, None] * (torch.arange(32) % 2 * 2.0 - 1)
    found = resynthesise(view, wave, (view(wave) + stripes).clamp(0, 1), steps=2000)
    assert found.converged.item()
    assert found.distance.item() > 0.1


def test_a_sound_is_filtered_by_what_its_image_wants_changed():
    """The upper half of the frequencies 20 dB down: so are the sound's."""
    view, wave = image(), torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    wanted = view(wave).detach()
    wanted[:, 16:] -= 0.2  # of 100 dB
    before, after = (torch.fft.rfft(sound).abs().square()[0] for sound in (wave, gained(view, wave, wanted)))
    low, high = slice(100, 900), slice(1100, 1900)  # of 2000 Hz
    assert 10 * torch.log10(after[low].sum() / before[low].sum()).item() == pytest.approx(0, abs=0.5)
    assert 10 * torch.log10(after[high].sum() / before[high].sum()).item() == pytest.approx(-20, abs=0.5)


class Loud(torch.nn.Module):
    """A victim that hears whether the upper half of the image is brighter than the lower."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x.flatten(1, 2).chunk(2, dim=1)
        return torch.stack([low.mean((1, 2)), high.mean((1, 2))], 1) * 50


def test_an_attack_on_the_sound_stays_within_its_level_and_fools_at_a_loud_one():
    wave = tone() + 0.01 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    view, victim = image(), Loud()
    label = victim(view(wave)[:, None]).argmax(1)
    for level, fooled in ((80.0, False), (0.0, True)):
        changed = attack(victim, view, wave, label, level=level)
        assert snr(wave, changed).item() >= level - 1e-3
        assert (victim(view(changed)[:, None]).argmax(1) != label).item() is fooled


def test_noise_has_its_level_and_depends_on_the_seed():
    wave = torch.cat([tone(), 0.01 * tone(700)])
    for level in (60.0, 10.0):
        assert snr(wave, noisy(wave, level, 0)).tolist() == pytest.approx([level] * 2, abs=1e-2)
    assert torch.equal(noisy(wave, 20.0, 3), noisy(wave, 20.0, 3))
    assert not torch.equal(noisy(wave, 20.0, 3), noisy(wave, 20.0, 4))


class Silent(torch.nn.Module):
    """A model that only looks for silence: class 1 where the mean of the image is above one tenth."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        light = x.flatten(1).mean(1)
        return torch.stack([0.1 - light, light - 0.1], 1) * 50


def test_controls_tell_an_attack_from_noise_and_from_the_floor():
    """A click in digital silence: any faint change lightens the image, and a raised floor hides it."""
    wave = torch.zeros(1, 4000)
    wave[0, 2000] = 1
    label = torch.tensor([0])
    found = strength(Silent(), image(), wave, label, [40.0], steps=5, floor=-20.0).set_index("change")
    assert found["over"].tolist() == [1, 1, 0], "under the raised floor this model is never right"
    assert found.loc["noise", "fooled"] == 1, "noise does what the attack does"
    view, victim = image(), Loud()
    loud = tone() + 0.01 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    label = victim(view(loud)[:, None]).argmax(1)
    found = strength(victim, view, loud, label, [80.0, 0.0], steps=40, floor=-60.0)
    assert found["change"].tolist() == ["attack", "noise", "attack, raised floor"] * 2
    assert found["over"].tolist() == [1] * 6
    assert found.query("change == 'attack'")["fooled"].tolist() == [0, 1]
    assert found.query("change == 'attack'")["flags"].tolist() == [[False], [True]]
    assert found["clips"].tolist() == [[0]] * 6


def test_transfer_counts_only_examples_that_fooled_their_own_model():
    flip = {"a": lambda x: torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1), "b": lambda x: x[:, 0, 0, :]}
    originals = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[:, None, None]
    examples = {"a": torch.tensor([[0.0, 1.0], [1.0, 0.0]])[:, None, None], "b": originals}
    found = transfer(flip, originals, examples, torch.tensor([0, 0]))
    counts = found.set_index(["made against", "shown to"])
    assert counts.loc["a"].to_numpy().tolist() == [[1, 1], [1, 1]]
    assert counts.loc["b", "over"].tolist() == [0, 0]


def test_what_is_no_image_is_not_searched_for():
    view, wave = image(), tone()
    with pytest.raises(ValueError, match="not finite"):
        resynthesise(view, wave, torch.full((1, 32, 32), torch.nan))
    assert len(resynthesise(view, wave[:0], torch.zeros(0, 32, 32)).sound) == 0
    silent = resynthesise(view, 0 * wave, view(0 * wave) + 0.5, steps=20)
    assert silent.sound.isfinite().all()
    with pytest.raises(ValueError, match=r"floor = 10.0 dB is outside \[-100, 0\)"):
        strength(Loud(), view, wave, torch.tensor([0]), [20.0], steps=1, floor=10.0)
