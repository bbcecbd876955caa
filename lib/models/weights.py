"""Published weights: where each file comes from, and its reading, after its hash matched."""

from __future__ import annotations

import pickle
import urllib.error
from pathlib import Path
from typing import NamedTuple

import torch

from lib import files

CHOICES = ("none", "published", "imagenet", "cifar10")
"""What ``pretrained`` may be: drawn from a seed, the model's published weights, or those of one source."""


class Weights(NamedTuple):
    """A published file of weights."""

    source: str  # imagenet or cifar10
    file: str
    url: str
    sha256: str  # of the file; torchvision publishes the first eight digits, in the name


def imagenet(file: str) -> Weights:
    """One of torchvision's files, ``resnet18-f37072fd.pth``."""
    return Weights("imagenet", file, f"https://download.pytorch.org/models/{file}", file[-12:-4])


def read(weights: Weights, folder: str | Path = "weights") -> dict[str, torch.Tensor]:
    """The published three-channel weights, by layer name.

    The file is looked for in ``folder``, else downloaded into it. It is opened only after its SHA-256
    matched, and then as weights only, so that no code in the file is run.

    Raises
    ------
    ValueError : if the file is not the published one.
    FileNotFoundError : if it is not in the folder and cannot be downloaded.
    """
    path = Path(folder) / weights.file
    if path.is_file():
        _check(path, weights, str(path))
    else:
        try:
            with files.atomic(path) as part:
                torch.hub.download_url_to_file(weights.url, str(part), progress=False)
                _check(part, weights, weights.url)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise FileNotFoundError(
                f"the {weights.source} weights {weights.file} are not in {path.parent} and cannot be "
                f"downloaded from {weights.url} ({error}); put the file there, or set pretrained to none"
            ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than weights and is not opened") from error
    state = content.get("state_dict", content)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not key.startswith(("aux1.", "aux2."))}


def _check(path: Path, weights: Weights, origin: str) -> None:
    found = files.digest(path)
    if not found.startswith(weights.sha256):
        raise ValueError(f"{origin} is not the published file: SHA-256 {found}, not {weights.sha256}…")
