"""The six victims: the paper's architectures for one-channel spectrograms of any size.

GoogLeNet, AlexNet, ResNet-18, ResNet-34 and VGG-16 are torchvision's; ResNet-56 is He et al. section
4.2, written here. Every victim takes (n, 1, rows, frames) in [0, 1] and gives logits: what a network
does to its input first, it does inside. Chapter 3 explains them; chapters 4 and 5 use what it leaves.
"""

from __future__ import annotations

import json
import pickle
import urllib.error
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import nn

from lib import files, reporting, study
from lib.device import keep_freed_memory

NAMES = ("googlenet", "alexnet", "resnet18", "resnet34", "resnet56", "vgg16")
"""The victims in the paper's order."""

TITLES = dict(
    zip(NAMES, ("GoogLeNet", "AlexNet", "ResNet-18", "ResNet-34", "ResNet-56", "VGG-16"), strict=True)
)

SMALLEST = {"googlenet": 32, "alexnet": 63, "resnet18": 32, "resnet34": 32, "resnet56": 8, "vgg16": 32}
"""The fewest rows and the fewest frames: below, some layer has nothing or only padding to look at."""

GREY = (0.449, 0.226)
"""Mean and deviation of grey ImageNet images: those of its three channels, averaged."""

NORMALISED = ("googlenet", "resnet18", "resnet34", "resnet56")
"""The victims with batch norm."""

PRETRAINED = ("none", "published", "imagenet", "cifar10")


class Weights(NamedTuple):
    """A published file of weights."""

    source: str  # imagenet or cifar10
    file: str
    url: str
    sha256: str  # of the file; torchvision publishes the first eight digits, in the name


WEIGHTS = {
    name: Weights("imagenet", file, f"https://download.pytorch.org/models/{file}", file[-12:-4])
    for name, file in {
        "googlenet": "googlenet-1378be20.pth",
        "alexnet": "alexnet-owt-7be5be79.pth",
        "resnet18": "resnet18-f37072fd.pth",
        "resnet34": "resnet34-b627a593.pth",
        "vgg16": "vgg16-397923af.pth",
    }.items()
}
WEIGHTS["resnet56"] = Weights(
    "cifar10",
    "resnet56-4bfd9763.th",
    "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet56-4bfd9763.th",
    "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
)


class Victim(nn.Module):
    """A network with its normalisation inside: (n, 1, rows, frames) in [0, 1] to (n, classes) logits."""

    def __init__(self, network: nn.Module, name: str, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.name, self.classes, self.size = name, classes, size
        self.drawn = False  # from a seed, and not published weights
        mean, deviation = (0.5, 0.5) if name == "googlenet" else GREY  # GoogLeNet was trained on [-1, 1]
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the images."""
        return self.network((images - self.mean) / self.deviation)

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return self.network.get_submodule(_last(self.network, nn.Linear))


class _Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut without parameters (He et al. section 4.2, option A)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.padding = stride, (outer - inner) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return nn.functional.relu(out + x)


class ResNet6n2(nn.Module):
    """The CIFAR residual network of He et al., 6n + 2 layers: n = 9 is ResNet-56.

    A 3 × 3 convolution to 16 channels, three stages of n blocks with 16, 32 and 64 channels, the mean
    over the image, a linear layer. Layers are named as in the published weights.

    Source: He, Zhang, Ren, Sun, *Deep residual learning for image recognition*, 2016, section 4.2.
    """

    def __init__(self, n: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = {1: (16, 16, 1), 2: (16, 32, 2), 3: (32, 64, 2)}
        for stage, (inner, outer, stride) in widths.items():
            blocks = [_Block(inner, outer, stride), *[_Block(outer, outer, 1) for _ in range(n - 1)]]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def architecture(name: str, classes: int = 1000, channels: int = 3) -> nn.Module:
    """The network with the published layers, torchvision's or ResNet-56's, drawn from torch's generator.

    Raises
    ------
    ValueError : if there is no such model.
    """
    if name not in NAMES:
        raise ValueError(f"model = {name!r} is none of {', '.join(NAMES)}")
    if name == "resnet56":
        return ResNet6n2(9, classes, channels)
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network = getattr(torchvision.models, name)(weights=None, num_classes=classes, **extra)
    if channels != 3:
        where = _first(network)
        old = network.get_submodule(where)
        bias = old.bias is not None
        new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=bias)
        network.set_submodule(where, new)
    return network


def outline(name: str, classes: int = 1000, channels: int = 3) -> nn.Module:
    """The network without values for its weights, to count them or to put others in: it costs nothing."""
    with torch.device("meta"):
        return architecture(name, classes, channels)


def build(
    name: str,
    classes: int,
    size: Sequence[int] = (768, 1568),
    *,
    pretrained: str = "none",
    weights_folder: str | Path = "weights",
    seed: int = 0,
) -> Victim:
    """A victim before training, in training mode, on the CPU.

    Parameters
    ----------
    size : rows and frames of the images it will meet.
    pretrained : "none" draws all weights from ``seed``; "published" takes the architecture's published
        ones (ImageNet; CIFAR-10 for resnet56), "imagenet" and "cifar10" those and no others. The first
        convolution is folded to one channel, the last layer drawn anew.
    weights_folder : where a file of weights is looked for, and put when it had to be downloaded.

    Raises
    ------
    ValueError : if the model, ``classes`` or ``pretrained`` is unknown or out of range, the images are too
        small for the network, or a file of weights is not the published one.
    FileNotFoundError : if the weights are neither in the folder nor to be downloaded.
    """
    size = check(name, classes, size, pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed_of("weights", name, classes, seed))
        network = architecture(name, classes, channels=1)
        _initialise(network, name)
    if pretrained != "none":
        state = published(name, weights_folder)
        first, last = _first(network) + ".weight", _last(network, nn.Linear)
        state[first] = state[first].sum(1, keepdim=True)
        kept = {key: value for key, value in state.items() if not key.startswith(last + ".")}
        missing = network.load_state_dict(kept, strict=False)
        if missing.unexpected_keys or set(missing.missing_keys) != {last + ".weight", last + ".bias"}:
            raise ValueError(f"{WEIGHTS[name].file} does not hold the layers of {TITLES[name]}: {missing}")
    victim = Victim(network, name, classes, size)
    victim.drawn = pretrained == "none"
    return victim


def whiten(model: Victim, images: Any, rows: Sequence[int], *, most: int = 512) -> None:
    """Give each frequency of the images that are learnt from mean 0 and deviation 1, inside the model.

    For AlexNet and VGG-16, which have no batch norm: drawn from a seed they otherwise spend their first
    epochs on what all spectrograms share. Others, and published weights, are left as they are.

    Parameters
    ----------
    rows : of ``images``, the training part; ``most`` of them, evenly spaced, are read.
    """
    if model.name in NORMALISED or not model.drawn:
        return
    rows = np.array(rows)
    x = images[rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]].to(model.mean)
    model.mean = x.mean((0, 1, 3))[:, None]
    model.deviation = x.std((0, 1, 3)).clamp_(min=0.02)[:, None]


def check(name: str, classes: int, size: Sequence[int], pretrained: str = "none") -> tuple[int, int]:
    """Say whether such a victim can be built, before anything is; return the size as two integers."""
    if name not in NAMES:
        raise ValueError(f"model = {name!r} is none of {', '.join(NAMES)}")
    if classes < 2:
        raise ValueError(f"classes = {classes}: a classifier needs at least two")
    rows, frames = (int(side) for side in size)
    if min(rows, frames) < SMALLEST[name]:
        least = SMALLEST[name]
        raise ValueError(
            f"images of {rows} × {frames} are too small for {TITLES[name]}, which needs {least} × {least}"
        )
    if pretrained not in PRETRAINED:
        raise ValueError(f"pretrained = {pretrained!r} is none of {', '.join(PRETRAINED)}")
    if pretrained in ("imagenet", "cifar10") and pretrained != WEIGHTS[name].source:
        raise ValueError(
            f"pretrained = {pretrained!r}, but {TITLES[name]}'s weights are {WEIGHTS[name].source}'s"
        )
    return rows, frames


def published(name: str, weights_folder: str | Path = "weights") -> dict[str, torch.Tensor]:
    """The published three-channel weights of an architecture, by layer name.

    Looked for in ``weights_folder``, else downloaded into it; opened only after the SHA-256 matched, and
    then as weights only, so that no code in the file is run.

    Raises
    ------
    ValueError : if the file is not the published one.
    FileNotFoundError : if it is neither there nor to be downloaded.
    """
    weights = WEIGHTS[name]
    path = Path(weights_folder) / weights.file
    if path.is_file():
        _same(path, weights, str(path))
    else:
        try:
            with files.atomic(path) as part:
                torch.hub.download_url_to_file(weights.url, str(part), progress=False)
                _same(part, weights, weights.url)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise FileNotFoundError(
                f"{TITLES[name]}'s {weights.source} weights are neither in {path} nor to be had from "
                f"{weights.url} ({error}); put the file there, or set pretrained to none"
            ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than weights and is not opened") from error
    state = content.get("state_dict", content)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not key.startswith(("aux1.", "aux2."))}


def _same(path: Path, weights: Weights, origin: str) -> None:
    found = files.digest(path)
    if not found.startswith(weights.sha256):
        raise ValueError(f"{origin} is not the published file: SHA-256 {found}, not {weights.sha256}…")


def parameters(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(values.numel() for values in model.parameters())


def save(model: Victim, path: str | Path) -> None:
    """Write a victim whole or not at all: its weights, and name, classes and size in the header."""
    header = {"victim": json.dumps({"name": model.name, "classes": model.classes, "size": model.size})}
    files.save(path, (model.state_dict(), header))


def load(path: str | Path, device: str | torch.device = "cpu") -> Victim:
    """Read a victim that :func:`save` wrote, in evaluation mode.

    Raises
    ------
    FileNotFoundError : if there is none.
    ValueError : if the file is no victim, or cut off.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no trained model at {path}")
    try:
        tensors, metadata = files.load(path)
        header = json.loads(metadata["victim"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no victim of this study: {error}") from error
    network = outline(header["name"], header["classes"], channels=1)
    model = Victim(network, header["name"], header["classes"], tuple(header["size"]))
    model.mean, model.deviation = tensors["mean"], tensors["deviation"]
    model.load_state_dict(tensors, assign=True)
    return to(model, device).eval()


def to(model: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a model to a device, with its convolutions laid out as that device computes them fastest.

    Channels last is faster on CUDA with mixed precision and, for these networks, on the CPU. There the
    process also keeps the memory that passes free (``keep_freed_memory``).
    """
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    return model.to(device, memory_format=torch.channels_last)


def predict(
    model: Victim, images: Any, rows: Sequence[int] | None = None, *, batch: int = 64
) -> torch.Tensor:
    """Logits of stored images in evaluation mode and float32: (n, classes), on the CPU.

    ``images`` is a store or a tensor; ``rows`` says which of them, all by default. The batch is halved
    when memory runs out, which the cell's receipt tells. The model's mode is left as it was.
    """
    rows = np.arange(len(images)) if rows is None else np.array(rows)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found, start = [], 0
    try:
        with torch.no_grad():
            while start < len(rows):
                try:
                    x = images[rows[start : start + batch]].to(device)
                    found.append(model(x).float().cpu())
                except torch.OutOfMemoryError:
                    if batch == 1:
                        raise
                    batch //= 2
                    reporting.note("batch halved to", str(batch))
                    continue
                start += batch
    finally:
        model.train(was_training)
    return torch.cat(found) if found else torch.empty(0, model.classes)


def _first(network: nn.Module) -> str:
    """The name of the first convolution."""
    return next(name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))


def _last(network: nn.Module, kind: type) -> str:
    """The name of the last layer of a kind."""
    return [name for name, layer in network.named_modules() if isinstance(layer, kind)][-1]


def _initialise(network: nn.Module, name: str) -> None:
    """Draw the convolutions of the networks without batch norm, and GoogLeNet's, as He et al. (2015) do."""
    if name not in ("alexnet", "vgg16", "googlenet"):
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    nn.init.normal_(network.get_submodule(_last(network, nn.Linear)).weight, std=0.01)
