"""The classifiers of the grid: one network per file, each for one-channel spectrograms of any size.

``lib/models/KEY.py`` is the model ``KEY``. It has ``build(classes)``, which gives a network that maps images
to logits, and may have

- ``SMALLEST``: the fewest rows and the fewest frames that the network accepts (default 1);
- ``INPUT``: mean and standard deviation that its input is normalised with (default: grey ImageNet images);
- ``WEIGHTS``: its published weights (`lib.models.weights`; default: none);
- ``PACE``: the share of the learning rate that it tolerates (default 1; less without batch norm);
- ``BFLOAT16_PAYS``: whether training on large images is faster in bfloat16 (default True);
- ``initialise(network)``: draws its weights, called once its first convolution has one channel.

Every model takes images (n, 1, rows, frames) in [0, 1] and gives logits: it normalises its input itself.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from lib import files, reporting, study
from lib.device import judging
from lib.models import weights

GREY = (0.449, 0.226)
"""Mean and deviation of grey ImageNet images: those of its three channels, averaged."""


class Classifier(nn.Module):
    """A network with its normalisation inside: (n, 1, rows, frames) in [0, 1] to (n, classes) logits."""

    def __init__(
        self,
        network: nn.Module,
        name: str,
        classes: int,
        size: tuple[int, int],
        *,
        normalisation: tuple[float, float] = GREY,
        pace: float = 1.0,
        bfloat16_pays: bool = True,
    ) -> None:
        super().__init__()
        self.name, self.classes, self.size = name, classes, size
        self.pace, self.bfloat16_pays = pace, bfloat16_pays
        self.drawn = False  # whether the weights come from a seed, and are not published ones
        self.register_buffer("mean", torch.tensor(normalisation[0]))
        self.register_buffer("deviation", torch.tensor(normalisation[1]))
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the images."""
        return self.network((images - self.mean) / self.deviation)

    @property
    def normalised(self) -> bool:
        """Whether it has batch norm. Without, it learns more slowly from weights drawn from a seed."""
        return any(isinstance(layer, nn.BatchNorm2d) for layer in self.modules())

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return self.network.get_submodule(_last_linear(self.network))


def known() -> list[str]:
    """The keys of all models: the files of this folder that build one."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != weights.__name__.split(".")[-1])


def module(name: str) -> ModuleType:
    """The file of a model.

    Raises
    ------
    ValueError : if there is no such model, or its file builds none.
    """
    if name not in known():
        raise ValueError(f"model = {name!r} is none of {', '.join(known())}")
    found = importlib.import_module(f"{__name__}.{name}")
    if not hasattr(found, "build"):
        raise ValueError(f"model = {name!r}: {found.__file__} has no function build(classes)")
    return found


def architecture(name: str, classes: int = 1000, channels: int = 3) -> nn.Module:
    """The network alone, as published unless ``classes`` or ``channels`` say otherwise."""
    return _with_channels(module(name).build(classes), channels)


def outline(name: str, classes: int = 1000, channels: int = 3) -> nn.Module:
    """The network without values for its weights, to count them or to put others in: it costs nothing."""
    with torch.device("meta"):
        return architecture(name, classes, channels)


def create(
    name: str,
    classes: int,
    size: Sequence[int] = (768, 1568),
    *,
    pretrained: str = "none",
    weights_folder: str | Path = "weights",
    seed: int = 0,
) -> Classifier:
    """A model before training, in training mode, on the CPU.

    Parameters
    ----------
    size : rows and frames of the images that it will classify.
    pretrained : "none" draws all weights from ``seed``; "published" takes the architecture's published
        ones (ImageNet; CIFAR-10 for resnet56), "imagenet" and "cifar10" those and no others. The first
        convolution is folded to one channel, the last layer drawn anew.
    weights_folder : where a file of weights is looked for, and written when it had to be downloaded.

    Raises
    ------
    ValueError : if the model, ``classes`` or ``pretrained`` is unknown or out of range, the images are too
        small for the network, or a file of weights is not the published one.
    FileNotFoundError : if the weights are not in the folder and cannot be downloaded.
    """
    size = _check(name, classes, size, pretrained)
    source = module(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed_of("weights", name, classes, seed))
        network = architecture(name, classes, 1)
        getattr(source, "initialise", lambda network: None)(network)
    if pretrained != "none":
        state = weights.read(source.WEIGHTS, weights_folder)
        first, last = _first_convolution(network) + ".weight", _last_linear(network)
        state[first] = state[first].sum(1, keepdim=True)
        kept = {key: value for key, value in state.items() if not key.startswith(last + ".")}
        missing = network.load_state_dict(kept, strict=False)
        if missing.unexpected_keys or set(missing.missing_keys) != {last + ".weight", last + ".bias"}:
            raise ValueError(f"{source.WEIGHTS.file} does not hold the layers of {name}: {missing}")
    model = Classifier(
        network,
        name,
        classes,
        size,
        normalisation=getattr(source, "INPUT", GREY),
        pace=getattr(source, "PACE", 1.0),
        bfloat16_pays=getattr(source, "BFLOAT16_PAYS", True),
    )
    model.drawn = pretrained == "none"
    return model


def _check(name: str, classes: int, size: Sequence[int], pretrained: str) -> tuple[int, int]:
    """Refuse a model that cannot be built, before anything is; give the size as two integers."""
    source = module(name)
    if classes < 2:
        raise ValueError(f"classes = {classes}: a classifier needs at least two")
    rows, frames = (int(side) for side in size)
    least = getattr(source, "SMALLEST", 1)
    if min(rows, frames) < least:
        raise ValueError(
            f"images of {rows} × {frames} are too small for {name}, which needs {least} × {least}"
        )
    if pretrained not in weights.CHOICES:
        raise ValueError(f"pretrained = {pretrained!r} is none of {', '.join(weights.CHOICES)}")
    published = getattr(source, "WEIGHTS", None)
    if pretrained != "none" and published is None:
        raise ValueError(f"pretrained = {pretrained!r}, but {name} has no published weights")
    if pretrained in ("imagenet", "cifar10") and pretrained != published.source:
        raise ValueError(f"pretrained = {pretrained!r}, but the weights of {name} are {published.source}'s")
    return rows, frames


def whiten(model: Classifier, images: Any, rows: Sequence[int], *, most: int = 512) -> None:
    """Give each frequency of the training images mean 0 and deviation 1, inside the model.

    For networks without batch norm whose weights were drawn from a seed: they otherwise spend their first
    epochs on what all spectrograms share. Other models are left as they are.

    Parameters
    ----------
    rows : of ``images``, the training part; ``most`` of them, evenly spaced, are read.
    """
    if not model.drawn or model.normalised:
        return
    rows = np.array(rows)
    x = images[rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]].to(model.mean)
    model.mean = x.mean((0, 1, 3))[:, None]
    model.deviation = x.std((0, 1, 3)).clamp_(min=0.02)[:, None]


def parameters(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(values.numel() for values in model.parameters())


def save(model: Classifier, path: str | Path) -> None:
    """Write a model whole or not at all: its weights, and name, classes and size in the header."""
    header = {"model": json.dumps({"name": model.name, "classes": model.classes, "size": model.size})}
    files.save(path, (model.state_dict(), header))


def load(path: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """Read a model that :func:`save` wrote, in evaluation mode.

    Raises
    ------
    FileNotFoundError : if there is none.
    ValueError : if the file is no model of this study, or cut off.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no trained model at {path}")
    try:
        tensors, header = files.load(path)
        facts = json.loads(header["model"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no model of this study: {error}") from error
    network = outline(facts["name"], facts["classes"], channels=1)
    model = Classifier(network, facts["name"], facts["classes"], tuple(facts["size"]))
    model.mean, model.deviation = tensors["mean"], tensors["deviation"]
    model.load_state_dict(tensors, assign=True)
    return to(model, device).eval()


def to(model: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a model to a device, with its convolutions laid out channels last.

    That is faster on CUDA with mixed precision and, for these networks, on the CPU.
    """
    return model.to(device, memory_format=torch.channels_last)


@torch.no_grad()
def predict(
    model: Classifier, images: Any, rows: Sequence[int] | None = None, *, batch: int = 64
) -> torch.Tensor:
    """Logits of stored images in evaluation mode and float32: (n, classes), on the CPU.

    ``images`` is a store or a tensor; ``rows`` says which of them, all by default. The batch is halved
    when memory runs out, which the cell's receipt reports. The model's mode is left as it was.
    """
    rows = np.arange(len(images)) if rows is None else np.array(rows)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found, start = [], 0
    try:
        while start < len(rows):
            try:
                x = images[rows[start : start + batch]].to(device)
                with judging(device):
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


def _with_channels(network: nn.Module, channels: int) -> nn.Module:
    """The network with a first convolution of that many input channels, drawn anew where it had others."""
    where = _first_convolution(network)
    old = network.get_submodule(where) if where else None
    if old is not None and old.in_channels != channels:
        bias = old.bias is not None
        new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=bias)
        network.set_submodule(where, new)
    return network


def _first_convolution(network: nn.Module) -> str:
    """Its name, or an empty one where there is none."""
    return next((name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)), "")


def _last_linear(network: nn.Module) -> str:
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise ValueError("the network has no linear layer, which would be its last one")
    return names[-1]


def he_normal(network: nn.Module) -> None:
    """Draw all convolutions as He et al. (2015) do, and a last layer of small weights."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    nn.init.normal_(network.get_submodule(_last_linear(network)).weight, std=0.01)
