"""The six models: size, shape, folding of published weights, files that are wrong."""

import hashlib
import os
import pickle
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib import models
from lib.models import resnet18, resnet34, resnet56, weights

SMALL = {name: models.module(name).SMALLEST for name in models.known()} | {"alexnet": 64}
ROUNDING = {"atol": 1e-4, "rtol": 1e-4}  # float32, sums in another order


def state_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A three-channel network with random weights, saved as if it were the published one."""
    torch.manual_seed(0)
    network = models.architecture(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    source = models.module(name)
    file = folder / source.WEIGHTS.file
    torch.save(network.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(source, "WEIGHTS", source.WEIGHTS._replace(sha256=digest))
    return network.eval()


@pytest.mark.parametrize("name", models.known())
def test_a_model_takes_one_channel_and_gives_logits_at_its_smallest_size(name):
    side = models.module(name).SMALLEST
    with torch.device("meta"):
        network = models.Classifier(models.architecture(name, 7, channels=1), name, 7, (side, side))
        assert network(torch.rand(2, 1, side, side)).shape == (2, 7)
        assert network(torch.rand(2, 1, side + 5, 3 * side)).shape == (2, 7)
    assert network.head.out_features == 7


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_the_smallest_size_is_where_the_network_still_runs(name):
    side = models.module(name).SMALLEST - 1
    with torch.device("meta"), pytest.raises(RuntimeError):
        models.architecture(name, 7, channels=1)(torch.rand(2, 1, side, side))


@pytest.mark.parametrize(
    ("name", "published"),
    [  # torchvision's own counts; ResNet-56: 0.85 M in He et al., table 6, 853,018 in the published file
        ("googlenet", 6_624_904),
        ("alexnet", 61_100_840),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("vgg16", 138_357_544),
    ],
)
def test_parameters_are_the_published_ones(name, published):
    assert models.parameters(models.outline(name)) == published


def test_resnet56_is_he_et_al_section_4_2():
    network = models.architecture("resnet56", 10)
    weights = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) == 56
    assert models.parameters(network) == 853_018
    features = network.layer3(network.layer2(network.layer1(torch.rand(1, 16, 32, 32))))
    assert features.shape == (1, 64, 8, 8)


@pytest.mark.parametrize("name", ["resnet18", "resnet56", "googlenet", "alexnet"])
def test_a_grey_image_gives_what_its_three_channel_copy_gives(name, tmp_path, monkeypatch):
    """The published network with its last layer exchanged, on copies, is the folded one."""
    original = state_of(name, tmp_path, monkeypatch)
    side = SMALL[name]
    victim = models.create(name, 5, (side, side), pretrained="published", weights_folder=tmp_path).eval()
    *path, last = [n for n, m in original.named_modules() if isinstance(m, nn.Linear)][-1].split(".")
    setattr(original.get_submodule(".".join(path)), last, victim.head)
    x = torch.rand(3, 1, side, side)
    grey = (x - victim.mean) / victim.deviation
    torch.testing.assert_close(victim(x), original(grey.repeat(1, 3, 1, 1)), **ROUNDING)


def test_the_published_resnet56_is_folded_and_right_about_its_layers():
    folder = Path(os.environ.get("STUDY_DATA", "../shared/data")) / "weights"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; STUDY_DATA names another folder")
    victim = models.create("resnet56", 10, (32, 32), pretrained="cifar10", weights_folder=folder).eval()
    original = models.architecture("resnet56", 10)
    original.load_state_dict(weights.read(resnet56.WEIGHTS, folder))
    original.eval().linear = victim.head
    grey = torch.rand(4, 1, 32, 32)
    copies = ((grey - victim.mean) / victim.deviation).repeat(1, 3, 1, 1)
    torch.testing.assert_close(victim(grey), original(copies), **ROUNDING)


def test_an_altered_file_of_weights_is_refused(tmp_path, monkeypatch):
    state_of("resnet18", tmp_path, monkeypatch)
    file = tmp_path / resnet18.WEIGHTS.file
    bytes_ = bytearray(file.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    file.write_bytes(bytes_)
    with pytest.raises(ValueError, match=r"resnet18-f37072fd.pth is not the published file"):
        models.create("resnet18", 5, (64, 64), pretrained="published", weights_folder=tmp_path)


class Bomb:
    """A pickle that runs code when it is opened."""

    def __reduce__(self):
        return os.putenv, ("STUDY_BOMB", "went off")


def test_a_pickle_with_code_is_not_opened(tmp_path, monkeypatch):
    file = tmp_path / resnet56.WEIGHTS.file
    file.write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol=2))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(resnet56, "WEIGHTS", resnet56.WEIGHTS._replace(sha256=digest))
    with pytest.raises(ValueError, match=r"resnet56-4bfd9763.th holds more than weights"):
        models.create("resnet56", 5, (64, 64), pretrained="cifar10", weights_folder=tmp_path)


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    state_of("resnet34", tmp_path, monkeypatch)
    file = tmp_path / resnet34.WEIGHTS.file
    monkeypatch.setattr(resnet18, "WEIGHTS", resnet34.WEIGHTS._replace(file=file.name))
    with pytest.raises(ValueError, match="does not hold the layers of resnet18"):
        models.create("resnet18", 5, (64, 64), pretrained="published", weights_folder=tmp_path)


def test_without_weights_and_network_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        FileNotFoundError,
        match=r"imagenet weights alexnet-owt-7be5be79.pth are not in .*weights and cannot .*put",
    ):
        models.create("alexnet", 5, (64, 64), pretrained="published", weights_folder=tmp_path / "weights")
    assert not list(tmp_path.rglob("*alexnet*"))


def test_weights_are_downloaded_once_and_checked(tmp_path, monkeypatch):
    state_of("resnet18", tmp_path, monkeypatch)
    there = tmp_path / resnet18.WEIGHTS.file
    calls = []

    def download(url, path, progress):
        calls.append(url)
        Path(path).write_bytes(there.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        models.create("resnet18", 5, (64, 64), pretrained="imagenet", weights_folder=tmp_path / "new")
    assert calls == [resnet18.WEIGHTS.url]


def test_a_download_that_was_cut_off_or_altered_leaves_nothing(tmp_path, monkeypatch):
    def download(url, path, progress):
        Path(path).write_bytes(b"half of it")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ValueError, match=r"https://.*resnet18-f37072fd.pth is not the published file"):
        models.create("resnet18", 5, (64, 64), pretrained="imagenet", weights_folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "resnet19"}, "model = 'resnet19' is none of alexnet, googlenet"),
        ({"classes": 1}, "classes = 1"),
        ({"name": "alexnet", "size": (62, 200)}, "images of 62 × 200 are too small for alexnet"),
        ({"name": "vgg16", "size": (200, 31)}, "200 × 31 are too small for vgg16, which needs 32 × 32"),
        ({"pretrained": "yes"}, "pretrained = 'yes' is none of none, published"),
        ({"pretrained": "cifar10"}, "'cifar10', but the weights of resnet18 are imagenet's"),
    ],
)
def test_what_cannot_be_built_is_said(given, said):
    given = {"name": "resnet18", "classes": 5, "size": (64, 64)} | given
    with pytest.raises(ValueError, match=said):
        models.create(**given)


NEW = {
    "plain": "nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)",
    "flat": "nn.Flatten(), nn.Linear(256, classes)",
}


@pytest.fixture
def family(tmp_path, monkeypatch):
    """A folder of more models."""
    code = "from torch import nn\n\n\ndef build(classes):\n    return nn.Sequential({})\n"
    for name, layers in NEW.items():
        (tmp_path / f"{name}.py").write_text(code.format(layers))
    (tmp_path / "nothing.py").write_text("")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    yield
    for name in [*NEW, "nothing"]:
        sys.modules.pop(f"lib.models.{name}", None)


def test_a_file_with_a_function_is_a_model(family):
    for name in NEW:
        model = models.create(name, 5, (16, 16))
        assert model(torch.rand(2, 1, 16, 16)).shape == (2, 5)
        assert model.head.out_features == 5
    with pytest.raises(ValueError, match="'published', but plain has no published weights"):
        models.create("plain", 5, (16, 16), pretrained="published")
    with pytest.raises(ValueError, match=r"nothing.py has no function build\(classes\)"):
        models.create("nothing", 5, (16, 16))


@pytest.mark.parametrize("name", ["resnet18", "resnet56", "googlenet"])
def test_a_seed_draws_the_same_weights_and_leaves_the_generator_alone(name):
    before = torch.get_rng_state()
    one, two, other = (models.create(name, 4, (64, 64), seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_saved_and_loaded_is_the_same_model(tmp_path):
    victim = models.create("resnet18", 6, (64, 64))
    victim.train()(torch.rand(4, 1, 64, 64))  # moves the running statistics
    path = tmp_path / "model.safetensors"
    models.save(models.to(victim, "cpu"), path)
    back = models.load(path, "cpu")
    assert (back.name, back.classes, back.size, back.training) == ("resnet18", 6, (64, 64), False)
    x = torch.rand(5, 1, 64, 64)
    torch.testing.assert_close(back(x), victim.eval()(x), **ROUNDING)


def test_what_is_no_model_is_not_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained model"):
        models.load(tmp_path / "none.safetensors")
    path = tmp_path / "model.safetensors"
    models.save(models.create("resnet56", 3, (32, 32)), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="no model of this study"):
        models.load(path)


def test_predictions_do_not_depend_on_the_batch_and_leave_the_mode(monkeypatch):
    victim = models.create("resnet56", 3, (16, 16))
    images = torch.rand(11, 1, 16, 16)
    whole = models.predict(victim, images)
    assert victim.training
    assert whole.shape == (11, 3)
    torch.testing.assert_close(models.predict(victim, images, batch=4), whole, **ROUNDING)
    torch.testing.assert_close(models.predict(victim, images, np.array([7, 2])), whole[[7, 2]], **ROUNDING)


def test_predicting_halves_its_batch_when_memory_runs_out(monkeypatch):
    victim = models.create("resnet56", 3, (16, 16))
    images = torch.rand(9, 1, 16, 16)
    whole = models.predict(victim, images)
    forward = victim.forward

    def short(x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("a fake")
        return forward(x)

    monkeypatch.setattr(victim, "forward", short)
    torch.testing.assert_close(models.predict(victim, images, batch=8), whole, **ROUNDING)


def test_a_network_without_batch_norm_has_its_frequencies_whitened(tmp_path):
    images = torch.rand(40, 1, 64, 64) * torch.linspace(0.2, 1, 64)[:, None]
    victim = models.create("alexnet", 3, (64, 64))
    models.whiten(victim, images, range(30))
    seen = (images[:30] - victim.mean) / victim.deviation
    torch.testing.assert_close(seen.mean((0, 1, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std((0, 1, 3)), torch.ones(64), **ROUNDING)
    models.save(victim.eval(), tmp_path / "model.safetensors")
    back = models.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(back(images[:2]), victim(images[:2]), **ROUNDING)
    for other in (models.create("resnet18", 3, (64, 64)), models.load(tmp_path / "model.safetensors")):
        before = other.mean.clone()
        models.whiten(other, images, range(30))
        assert torch.equal(before, other.mean)
