"""Which device a computation runs on, in which precision, and how cells share its memory: the one policy.

What *judges* a model (predictions, validation, success and norms of examples) runs in true float32. What only
*crafts* examples, or trains, may run in TF32 or bfloat16, since its results are judged afterwards. By
default cuDNN's convolutions use TF32, so :func:`choose_device` turns it off, and :func:`computing` turns it
on where it is wanted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from lib import reporting

CELLS = "STUDY_CELLS"  # environment variable: how many cells share one GPU
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
LARGE = 2**17  # values of an image from which bfloat16 trains faster; measured at 64 × 128 and 768 × 1568
CPU_MEMORY = 8.0  # GiB that a batch may take on a CPU


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, else the CPU. A CUDA device has an index.

    Where make runs several cells at once on one GPU, each may take its part of the memory and no more, so
    that a cell which needs too much halves its own batch instead of failing its neighbours.

    Raises
    ------
    ValueError : if the device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device = {name!r} is none of auto, cpu, cuda, cuda:N") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device = {name!r} is none of auto, cpu, cuda, cuda:N")
    if found.type == "cpu":
        reporting.note("device", "cpu")
        return found
    found = torch.device("cuda", found.index or 0)
    if found.index >= torch.cuda.device_count():
        raise ValueError(f"device = {name!r}, but there are {torch.cuda.device_count()} CUDA devices")
    if _cells() > 1:
        torch.cuda.set_per_process_memory_fraction(1 / _cells(), found)
    _allow_tf32(False)
    torch.backends.cudnn.deterministic = True  # the same seed gives the same tables on one card
    reporting.note("device", torch.cuda.get_device_name(found))
    return found


def memory(device: torch.device) -> float:
    """GiB that the batches of this cell may take: of a GPU its part less a tenth, of a CPU 8."""
    if device.type != "cuda":
        return CPU_MEMORY
    return 0.9 * torch.cuda.get_device_properties(device).total_memory / _cells() / 2**30


def _cells() -> int:
    return int(os.environ.get(CELLS, "1"))


def resolve(precision: str, device: torch.device, *, values: int = 0, bfloat16: bool = False) -> str:
    """The precision that ``auto`` stands for, and any other as it is.

    On a CPU it is float32. On a GPU it is TF32, where the card has it, for crafting and for small images:
    there bfloat16 is slower for every model. It is bfloat16 for large images of a model that gains by it.

    Parameters
    ----------
    values : rows × frames of an image.
    bfloat16 : whether bfloat16 may be chosen: for training, of a model that it makes faster.

    Raises
    ------
    ValueError : if there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "float32"
    return "bfloat16" if bfloat16 and values >= LARGE else "tf32"


@contextlib.contextmanager
def computing(precision: str) -> Iterator[None]:
    """Compute passes and gradients with TF32 for a while, or in true float32 where that is the precision."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    _allow_tf32(precision != "float32")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """What a forward pass in bfloat16 needs besides; off in every other precision.

    Weights, losses and their sums stay float32; bfloat16 has the range of float32, so no loss is scaled.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def judging(device: torch.device) -> Iterator[None]:
    """True float32, TF32 and autocast off: for everything that is reported."""
    with computing("float32"), autocast("float32", device):
        yield


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
