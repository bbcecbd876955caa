"""Sounds and their changes, on signals whose answer is known."""

import numpy as np
import pytest
import torch

from lib.features.stft import STFTImage
from lib.sound import attack, resynthesis
from lib.sound.snr import segmental_snr, snr
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
    back, distance = resynthesis.resynthesise(image(), wave, image()(wave), steps=0)
    assert distance.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(back, wave)


def test_resynthesis_comes_nearer_to_an_image_that_belongs_to_another_sound():
    view, wave = image(), 0.3 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    wanted = view(wave * torch.linspace(1, 0.2, 4000)).detach()
    before = (view(wave) - wanted).norm().item()
    _, after = resynthesis.resynthesise(view, wave, wanted, steps=60)
    assert after.item() < 0.5 * before


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
        changed = attack.attack(victim, view, wave, label, level=level)
        assert snr(wave, changed).item() >= level - 1e-3
        assert (victim(view(changed)[:, None]).argmax(1) != label).item() is fooled


def test_transfer_counts_only_examples_that_fooled_their_own_victim():
    flip = {"a": lambda x: torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1), "b": lambda x: x[:, 0, 0, :]}
    originals = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[:, None, None]
    examples = {"a": torch.tensor([[0.0, 1.0], [1.0, 0.0]])[:, None, None], "b": originals}
    found = transfer(flip, originals, examples, torch.tensor([0, 0]))
    assert found.loc["a"].tolist() == [1, 1]
    assert found.loc["b"].isna().all()
