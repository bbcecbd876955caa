"""Work on a GPU recorded once as a CUDA graph and replayed: for small images launching it costs most.

A recorded work reads and writes the same memory each time; what it assigns to attributes while it is recorded
is overwritten by each replay. Elsewhere than on CUDA, replaying is doing the work again.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator

import torch

WARM = 3  # times that a work is done before it is recorded, for libraries to choose their algorithms

# An optimiser that is to be recorded takes its first steps without a graph, of which torch need not warn.
torch.optim.Optimizer._warned_capturable_if_run_uncaptured = True


def warm(work: Callable[[], None], device: torch.device) -> None:
    """Do a work a few times before it is recorded, beside the stream that everything else runs on."""
    if device.type != "cuda":
        return work()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)


def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record a work that has been done before; the callable that is returned replays it.

    Other threads may use the GPU meanwhile, such as the one that reads the next batch.

    Parameters
    ----------
    work : launches kernels only; it waits for no result, and what it makes is kept as attributes or dropped.

    Raises
    ------
    RuntimeError : if the work cannot be recorded.
    """
    if device.type != "cuda":
        return work
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    recording = torch.cuda.graph(graph, stream=_side(device), capture_error_mode="thread_local")
    # Where a recording fails, torch stays on the stream of the recording: the second context leaves it.
    with torch.cuda.device(device), torch.cuda.stream(stream), _uncollected(), recording:
        work()
    return graph.replay


@functools.cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """The stream of all recordings on a device; torch's own belongs to the device that recorded first.

    It is one for all, since a gradient is taken on the stream of its pass, and is recorded after it.
    """
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: a graph that is destroyed while another is recorded breaks that one."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
