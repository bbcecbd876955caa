"""On an emulated card: what every computation does to devices; neither rounding nor speed nor memory are."""

import foolbox
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib import attacks, crafting, defences, features, models, names, store, training
from lib import device as policy
from lib.models import Classifier
from lib.sound.resynthesis import resynthesise
from lib.sound.snr import segmental_snr, snr
from lib.sound.strength import strength
from lib.training import Recipe
from lib.transfer import transfer
from tests.emulated_card import Card, Refused, emulated
from tests.test_attacks_climb import EVERY, given, ladders
from tests.test_store import SETTINGS, write

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a card that is there has its own tests")

SIZE, CLASSES = (8, 12), 3
SHORT = {"bim_rungs": 2, "bim_bisections": 1, "bim_steps": 3, "jsma_steps": 3, "deepfool_caps": [3]}
SHORT |= {"cwa_cs": [10.0], "cwa_steps": [6], "cwa_search": 3, "ddn_steps": 4, "pia_steps": 1}


@pytest.fixture
def card(monkeypatch):
    with emulated(monkeypatch):
        yield policy.choose_device()


def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((2, 2)),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(16, CLASSES),
        )
    return Classifier(network, "small", CLASSES, SIZE)


@pytest.fixture
def images():
    return torch.rand(30, 1, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def split():
    row, part = np.arange(30), ["train"] * 18 + ["validation"] * 9 + ["test"] * 3
    return pd.DataFrame({"row": row, "position": row, "label": row % CLASSES, "part": part})


@pytest.mark.parametrize("wrong", [lambda x, y: x + y, lambda x, y: y[x > 0], lambda x, y: x.numpy()])
def test_what_a_card_refuses_is_refused(wrong, card):
    here = torch.ones(3)
    there = here.to(card)
    assert type(there) is Card
    assert there.device == card
    assert there.cpu().tolist() == [1, 1, 1]
    with pytest.raises((Refused, TypeError)):
        wrong(there, here)


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "tf32") for name in defences.known()), ("adversarial", "bfloat16")]
)
def test_a_training_is_recorded_judged_and_kept(name, precision, card, images, split, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", np.inf)
    model, lines, path = small(), [], tmp_path / "checkpoint.safetensors"
    recipe = Recipe(
        training=name, epochs=3, batch=6, shift=0.2, steps=2, pgd_steps=2, precision=precision, pgd_clips=3
    )
    history = training.fit(model, images, split, recipe, device=card, checkpoint=path, say=lines.append)
    assert not [line for line in lines if "recorded" in line]
    assert len(history) == 3
    assert all(type(weight.data) is Card for weight in model.parameters())
    again = training.fit(small(), images, split, recipe, device=card, checkpoint=path, say=lines.append)
    assert lines[-1] == "goes on after epoch 3"
    np.testing.assert_allclose(again["train_loss"], history["train_loss"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_of_recorded_passes(precision, card, images):
    model = small().eval()
    lines = []
    crafter = crafting.prepare(models.to(small(), card).eval(), precision, batch=20, say=lines.append)
    for count in (3, 8, 13, 3):
        found = []
        for net, device in ((model, torch.device("cpu")), (crafter, card)):
            asked = images[:count].to(device).requires_grad_()
            found.append(torch.autograd.grad(net(asked)[:, 0].sum(), asked)[0].cpu())
        assert (found[0] - found[1]).norm() < 0.1 * found[0].norm()
    assert not lines
    assert [key[0] for key in crafter.recorded] == [8, 16]


@pytest.mark.parametrize("name", EVERY)
def test_an_attack(name, card):
    net, x, label, target, clips, starts = given(4)
    found = []
    for device in (torch.device("cpu"), card):
        victim = foolbox.PyTorchModel(net.to(device).eval(), bounds=(0, 1), device=device)
        rows, examples = attacks.climb(
            victim,
            x,
            label,
            target,
            clips,
            ladders(only=[name], **SHORT),
            starts=starts,
            batch=2,
            memory=1.0,
        )
        assert type(examples[name]) is torch.Tensor
        found.append(rows.drop(columns="seconds"))
    pd.testing.assert_frame_equal(*found, atol=1e-4)


@pytest.mark.parametrize("name", names.REPRESENTATIONS)
def test_a_representation_and_its_store(name, card, tmp_path):
    for part in features.parts(name):
        image = SETTINGS.image(part)
        wave = torch.randn(2, image.samples, generator=torch.Generator().manual_seed(0)) * 0.1
        here, there = image(wave), image.to(card)(wave.to(card))
        assert there.device == card
        assert (there.cpu() - here).abs().max() <= 2e-3
    write(tmp_path, name)
    here = store.open(tmp_path, name)
    there, rows = here.to(card), np.array([3, 0, 7])
    for found in (there[rows], store.open(tmp_path, name, device=card)[rows]):
        assert found.device == card
        torch.testing.assert_close(found.cpu(), here[rows], atol=2e-3, rtol=0)


def test_sounds_and_transfer(card):
    image = SETTINGS.image("dwt").to(card)
    wave = 0.1 * torch.randn(2, image.samples, generator=torch.Generator().manual_seed(0))
    wave, x = wave.to(card), image(wave.to(card))
    net = Classifier(small().network, "small", CLASSES, tuple(x.shape[1:]))
    net = models.to(net, card).eval()
    label = net(x[:, None]).argmax(1)
    rows = strength(net, image, wave, label, [20.0, 0.0], steps=3, floor=-60.0)
    assert (rows["over"] <= 2).all()
    found = resynthesise(image, wave, (x * 0.9).detach(), steps=20)
    assert found.sound.device == found.distance.device == found.converged.device == card
    assert torch.isfinite(snr(wave, found.sound)).all()
    assert torch.isfinite(segmental_snr(wave, found.sound, image.rate)).all()
    pushed = {"one": x[:, None].cpu(), "other": x[:, None].cpu().flip(0)}
    transfer(dict.fromkeys(pushed, net), x[:, None].cpu(), pushed, label.cpu(), device=card)
