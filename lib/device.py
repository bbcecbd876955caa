"""Which device a computation runs on, and how cells share its memory."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

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


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB of what it frees, for the next pass or clip, where it has glibc.

    Else its pages go back to the system, and to be given new ones costs a training step, or a clip's
    representations, a tenth and more of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-3, 32 << 20), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            mallopt(option, value)
