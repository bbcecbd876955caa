"""On a CUDA device: the same answers as on the CPU, and a grid of all chapters. ``make test-gpu`` runs them.

Two devices sum in another order, so values are compared within tolerances that have a name, and predictions
and flags are equal except for ties.
"""

import os
import subprocess
import sys

import foolbox
import numpy as np
import pandas as pd
import pytest
import torch

from lib import attacks, crafting, defences, features, models, names, store, training
from lib import device as policy
from lib.sound.resynthesis import resynthesise
from lib.sound.snr import snr
from lib.sound.strength import strength
from lib.training import Recipe
from lib.transfer import transfer
from tests.conftest import ROOT
from tests.test_attacks_climb import EVERY, given, ladders
from tests.test_store import SETTINGS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

CPU, SIDE, CLASSES = torch.device("cpu"), 32, 3
LOGITS = 1e-3  # of the largest logit: float32, sums in another order
GRADIENT = 0.1  # of its norm, in float32: one ReLU that rounding puts on the other side of 0 changes 0.013
IMAGE = 2e-3  # of a value in [0, 1]
LOSS = 0.05  # of the loss of an epoch; signs of small gradients differ
NORMS = {"PIA": 0.3}  # of the median norm of an attack's examples; PIA draws other noise on each device,
OTHERS = 0.1  # others draw none, or much of it
FLAGS = 0.9  # share of clips on which two devices agree whether they are fooled


@pytest.fixture(scope="module")
def cuda():
    return policy.choose_device("cuda")


@pytest.fixture(scope="module")
def images():
    """Noise with a band of rows a class lighter."""
    x = 0.6 * torch.rand(60, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for i in range(60):
        x[i, 0, 10 * (i % CLASSES) : 10 * (i % CLASSES) + 10] += 0.2
    return x


@pytest.fixture(scope="module")
def split():
    row, part = np.arange(60), ["train"] * 36 + ["validation"] * 12 + ["test"] * 12
    return pd.DataFrame({"row": row, "position": row, "label": row % CLASSES, "part": part})


@pytest.fixture(scope="module")
def trained(images, split, tmp_path_factory):
    """A model trained on the CPU, as a file."""
    model = models.create("resnet18", CLASSES, (SIDE, SIDE))
    training.fit(model, images, split, Recipe(epochs=4, batch=9, pgd_clips=-1))
    path = tmp_path_factory.mktemp("gpu") / "model.safetensors"
    models.save(model, path)
    return path


def run(code, **more):
    """A program of its own, for what a process can do only once."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def gradient(model, x, device):
    asked = x.to(device).requires_grad_()
    logits = model(asked)
    (slope,) = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), asked)
    return logits.detach().cpu(), slope.cpu()


def apart(one, other):
    return float((one - other).norm() / other.norm())


# --- the chapters ----------------------------------------------------------------------------------------


def test_all_seven_chapters_run_four_cells_at_once(real):
    """The longest, and so the first: the others run beside it."""
    status, said = real.make("all", "-j4")
    assert status == 0, said
    finished = {path.stem for path in (real.folder / "build/small").rglob("0*.ipynb")}
    assert len(finished) == 7, said
    receipts = [path.read_text() for path in (real.folder / "build").rglob("*.receipt.json")]
    assert sum(torch.cuda.get_device_name() in receipt for receipt in receipts) >= 5


# --- device, memory, precision ---------------------------------------------------------------------------


SHARE = """
import torch
from lib.device import choose_device, memory
device = choose_device()
total = torch.cuda.get_device_properties(device).total_memory
print(device, round(memory(device) * 2**30 / total, 3))
try:
    torch.empty(int(0.3 * total), dtype=torch.uint8, device=device)
except torch.OutOfMemoryError:
    print("short")
"""


def test_a_cell_takes_its_share_of_the_memory_and_no_more():
    assert run(SHARE, STUDY_CELLS="4") == ["cuda:0", "0.225", "short"]
    assert run(SHARE, STUDY_CELLS="1") == ["cuda:0", "0.9"]


def test_what_judges_is_true_float32_and_what_crafts_need_not_be(cuda):
    layer, x = torch.nn.Conv2d(64, 64, 3).requires_grad_(False), torch.rand(4, 64, 32, 32)
    exact = layer.double()(x.double())
    layer.float().to(cuda)

    def error():
        return apart(layer(x.to(cuda)).double().cpu(), exact)

    assert error() < 1e-5, "after choose_device"
    with policy.computing("tf32"):
        fast = error()
        with policy.judging(cuda):
            assert error() < 1e-5
    if torch.cuda.get_device_capability(cuda) >= (8, 0):
        assert fast > 1e-5


@pytest.mark.parametrize("name", models.known())
def test_predictions_are_those_of_the_cpu_except_for_ties(name, cuda):
    size = (64, 64)
    model, x = models.create(name, 10, size).eval(), torch.rand(8, 1, *size)
    here, there = models.predict(model, x), models.predict(models.to(model, cuda), x)
    bound = LOGITS * here.abs().max()
    assert (here - there).abs().max() <= bound
    first, second = here.topk(2).values.T
    clear = first - second > 2 * bound
    assert torch.equal(here.argmax(1)[clear], there.argmax(1)[clear])


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_gradients_from_graphs_are_those_of_the_cpu(precision, trained, images, cuda):
    lines = []
    crafter = crafting.prepare(models.load(trained, cuda), precision, batch=20, say=lines.append)
    model = models.load(trained)
    bound = {"float32": GRADIENT, "tf32": 0.3, "bfloat16": 0.5}[precision]  # of an image: to 0.18 and 0.27
    for count in (1, 5, 8, 13, 20, 25):
        for _ in range(2):
            for mine, theirs in zip(
                gradient(crafter, images[:count], cuda), gradient(model, images[:count], CPU), strict=True
            ):
                assert apart(mine, theirs) < bound
    assert lines == []
    assert all(crafter.recorded.values())
    assert [key[0] for key in crafter.recorded] == [8, 16, 20]


def test_a_recorded_gradient_may_be_asked_for_twice_and_after_another_pass(trained, images, cuda):
    crafter, model = crafting.prepare(models.load(trained, cuda), "float32"), models.load(trained)

    def slopes(net, device):
        asked = images[:4].to(device).requires_grad_()
        logits = net(asked)
        first = torch.autograd.grad(logits[:, 0].sum(), asked, retain_graph=True)[0]
        again = torch.autograd.grad(logits[:, 1].sum(), asked, retain_graph=True)[0]
        gradient(net, images[4:8], device)
        last = torch.autograd.grad(logits[:, 2].sum(), asked)[0]
        return [slope.cpu() for slope in (first, again, last)]

    for mine, theirs in zip(slopes(crafter, cuda), slopes(model, CPU), strict=True):
        assert apart(mine, theirs) < GRADIENT


# --- training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", defences.known())
def test_each_training_learns_by_recorded_steps(name, images, split, cuda):
    model, lines = models.create("resnet18", CLASSES, (SIDE, SIDE)), []
    recipe = Recipe(training=name, epochs=6, batch=9, steps=2, pgd_steps=2, pgd_clips=6)
    history = training.fit(model, images, split, recipe, device=cuda, say=lines.append)
    assert not [line for line in lines if "recorded" in line]
    assert history["train_accuracy"].iloc[-1] > 0.6
    assert {weight.device for weight in model.parameters()} == {cuda}


@pytest.mark.parametrize("name", ["standard", "adversarial"])
def test_a_recorded_step_is_the_plain_one_and_that_of_the_cpu(name, images, split, cuda, monkeypatch):
    # At a high rate the rounding of the first steps grows by more than the tolerance within two epochs.
    recipe = Recipe(
        training=name,
        epochs=2,
        batch=9,
        learning_rate=1e-5,
        precision="float32",
        shift=0.2,
        pgd_clips=-1,
    )

    def losses(device):
        model = models.create("resnet18", CLASSES, (SIDE, SIDE))
        return training.fit(model, images, split, recipe, device=device)["train_loss"].to_numpy()

    recorded, here = losses(cuda), losses(CPU)
    monkeypatch.setattr(policy, "LARGE", 1)  # no image is small enough for a graph
    plain = losses(cuda)
    np.testing.assert_allclose(recorded, plain, rtol=LOSS)
    np.testing.assert_allclose(recorded, here, rtol=2 * LOSS)


def test_the_same_seed_gives_the_same_training_on_one_card(images, split, cuda):
    """ResNet-56 has no pooling, whose gradient CUDA sums in an order of its own."""

    def losses():
        model = models.create("resnet56", CLASSES, (SIDE, SIDE))
        history = training.fit(model, images, split, Recipe(epochs=3, batch=9, pgd_clips=-1), device=cuda)
        return history[["train_loss", "validation_loss"]]

    pd.testing.assert_frame_equal(losses(), losses(), rtol=1e-3)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda:0"), ("cuda:0", "cpu")])
def test_a_training_goes_on_on_another_device(first, second, images, split, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", np.inf)
    recipe, path, lines = Recipe(epochs=4, batch=9, pgd_clips=-1), tmp_path / "checkpoint.safetensors", []

    def kill(line):
        if line.startswith("epoch 3/"):
            raise Killed

    def start(device, **more):
        model = models.create("resnet18", CLASSES, (SIDE, SIDE))
        return training.fit(model, images, split, recipe, device=device, checkpoint=path, **more)

    with pytest.raises(Killed):
        start(first, say=kill)
    history = start(second, say=lines.append)
    assert lines[0] == "goes on after epoch 2"
    assert len(history) == 4
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


SHORT = """
import numpy as np, pandas as pd, torch
from lib import models, training
from lib.device import choose_device
device = choose_device()
total = torch.cuda.get_device_properties(device).total_memory
torch.cuda.set_per_process_memory_fraction(1.5 * 2**30 / total, device)
n, size = 600, (64, 128)
x, row = torch.rand(n, 1, *size), np.arange(n)
part = ["train"] * 512 + ["validation"] * 80 + ["test"] * 8
split = pd.DataFrame({"row": row, "position": row, "label": row % 4, "part": part})
model = models.create("resnet18", 4, size)
history = training.fit(model, x, split, training.Recipe(epochs=1, batch=512, pgd_clips=-1), device=device)
print(history.attrs["parts"] > 1, np.isfinite(history["train_loss"]).all())
wide = models.predict(model, x.repeat(20, 1, 1, 1), batch=12000)
few = models.predict(model, x, batch=50)
print(len(wide), bool((wide[:600] - few).abs().max() < 1e-2 * wide.abs().max()))
"""


def test_a_batch_is_halved_when_memory_is_really_short(tmp_path):
    assert run(SHORT, STUDY_NOTES=str(tmp_path / "notes")) == ["True", "True", "12000", "True"]
    assert "batch halved to" in (tmp_path / "notes").read_text()


# --- attacks, sounds, representations --------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_an_attack_comes_out_as_on_the_cpu(name, cuda):
    net, x, label, target, clips, starts = given(n=20)
    found = []
    for device in (CPU, cuda):
        victim = foolbox.PyTorchModel(net.to(device).eval(), bounds=(0, 1), device=device)
        rows, examples = attacks.climb(
            victim, x, label, target, clips, ladders(only=[name]), starts=starts, batch=20
        )
        assert examples[name].device == CPU
        found.append(rows)
    here, there = found
    assert (here["clip"] == there["clip"]).all()
    assert (here["fooled"] == there["fooled"]).mean() >= FLAGS
    both = here["fooled"] & there["fooled"]
    if both.any():
        assert there.loc[both, "l2"].median() == pytest.approx(
            here.loc[both, "l2"].median(), rel=NORMS.get(name, OTHERS), abs=1e-3
        )


@pytest.mark.parametrize("name", names.REPRESENTATIONS)
def test_a_representation_is_that_of_the_cpu(name, cuda):
    for part in features.parts(name):
        image = SETTINGS.image(part)
        wave = torch.randn(3, image.samples, generator=torch.Generator().manual_seed(0)) * 0.1
        here = image(wave)
        there = image.to(cuda)(wave.to(cuda))
        assert there.device == cuda
        assert (there.cpu() - here).abs().max() <= IMAGE


def test_stored_images_are_the_same_when_they_stay_on_the_device(tmp_path, cuda):
    from tests.test_store import write

    write(tmp_path, "dwt_tonnetz")
    here = store.open(tmp_path, "dwt_tonnetz")
    there = here.to(cuda)
    rows = np.array([3, 0, 7])
    assert there[rows].device == cuda
    torch.testing.assert_close(there[rows].cpu(), here[rows])


@pytest.fixture(scope="module")
def sounds():
    """A model of small scalograms, three sounds, and what it takes them for."""
    image = SETTINGS.image("dwt")
    wave = 0.1 * torch.randn(3, image.samples, generator=torch.Generator().manual_seed(0))
    model = models.create("resnet56", 4, (SETTINGS.bins, SETTINGS.frames)).train()
    with torch.no_grad():
        for _ in range(3):
            model(image(wave)[:, None])
        return model.eval(), image, wave, model(image(wave)[:, None]).argmax(1)


def test_an_attack_on_the_sound_comes_out_as_on_the_cpu(sounds, cuda):
    model, image, wave, label = sounds
    found = [
        strength(
            models.to(model, device),
            image.to(device),
            wave.to(device),
            label.to(device),
            [60.0, 0.0],
            steps=10,
            floor=-60.0,
        )
        for device in (CPU, cuda)
    ]
    assert (found[0]["over"] == found[1]["over"]).all()
    assert (found[0]["fooled"] - found[1]["fooled"]).abs().max() <= 1


def test_a_sound_is_resynthesised_as_on_the_cpu(sounds, cuda):
    _, image, wave, _ = sounds
    wanted = image.to(CPU)(wave * torch.linspace(1, 0.5, wave.shape[1])).detach()
    here, there = (
        resynthesise(image.to(device), wave.to(device), wanted.to(device), steps=60) for device in (CPU, cuda)
    )
    before = (image.to(CPU)(wave) - wanted).flatten(1).norm(dim=1)
    assert there.sound.device == there.distance.device == cuda
    assert (there.distance.cpu() < 0.7 * before).all()
    assert (there.distance.cpu() - here.distance).abs().max() <= 0.2 * before.max()
    assert torch.isfinite(snr(wave.to(cuda), there.sound)).all()


def test_transfer_counts_as_on_the_cpu(trained, images, cuda):
    label = torch.arange(60) % CLASSES
    pushed = {"one": images.flip(0), "other": images.flip(2)}
    found = [
        transfer(
            {name: models.load(trained, device) for name in pushed}, images, pushed, label, device=device
        )
        for device in (CPU, cuda)
    ]
    assert (found[0]["over"] - found[1]["over"]).abs().max() <= 1
    assert (found[0]["fooled"] - found[1]["fooled"]).abs().max() <= 1
