"""Which device a computation runs on, and how cells share its memory."""

from __future__ import annotations

import os

import torch

from lib import reporting

CELLS = "STUDY_CELLS"  # environment variable: how many cells share one GPU


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, else the CPU.

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
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device = {name!r}, but {torch.cuda.device_count()} CUDA devices are there")
    cells = int(os.environ.get(CELLS, "1"))
    if found.type == "cuda" and cells > 1:
        torch.cuda.set_per_process_memory_fraction(1 / cells, found)
    reporting.note("device", torch.cuda.get_device_name(found) if found.type == "cuda" else "cpu")
    return found
