"""Work on a GPU recorded once as a CUDA graph and replayed: for small images launching it costs most.

A recorded work reads and writes the same memory each time; what it assigns to attributes while it is recorded
is overwritten by each replay. Elsewhere than on CUDA, replaying is doing the work again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM = 3  # times that the work is done before it is recorded, for libraries to choose their algorithms


def record(work: Callable[[], None], device: torch.device, *, warm: int = WARM) -> Callable[[], None]:
    """Record the work; the callable that is returned replays it.

    Parameters
    ----------
    work : launches kernels only; it waits for no result, and what it makes is kept as attributes or dropped.
    warm : times that the work is done first; 0 where it has been done and must not be done more often.

    Raises
    ------
    RuntimeError : if the work cannot be recorded.
    """
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(warm):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay
