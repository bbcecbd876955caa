"""What an attack costs, clip by clip: iterations, forward and backward passes, queries.

Foolbox prints every attribute of an attack in its ``repr``, so traces live outside the attack: whoever
wants the costs opens a ledger around the call.

>>> with counting() as ledger:
...     raw, clipped, success = BIM(step=1 / 255, steps=40)(victim, x, criterion, epsilons=1.0)
>>> ledger["backwards"]          # (n,) gradient passes a clip
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

COSTS = ("iterations", "forwards", "backwards", "queries")
"""Steps of the attack's loop; images through the victim with its insides known; gradients of one image;
images whose outputs alone were asked for (a black box has queries only)."""

_ledger: ContextVar[dict[str, torch.Tensor] | None] = ContextVar("ledger", default=None)


@contextmanager
def counting() -> Iterator[dict[str, torch.Tensor]]:
    """Collect the costs of the attacks called inside, per clip, summed over the calls."""
    ledger: dict[str, torch.Tensor] = {}
    token = _ledger.set(ledger)
    try:
        yield ledger
    finally:
        _ledger.reset(token)


class Counts:
    """The running costs of one call on ``n`` clips; ``post`` adds them to the open ledger, if any."""

    def __init__(self, n: int):
        self.costs = {cost: torch.zeros(n, dtype=torch.int64) for cost in COSTS}

    def add(self, cost: str, active: torch.Tensor, times: int | torch.Tensor = 1) -> None:
        """Charge ``times`` to each of the clips at ``active``."""
        self.costs[cost].index_add_(
            0, active.cpu(), torch.as_tensor(times, dtype=torch.int64).cpu().expand(len(active))
        )

    def post(self) -> None:
        ledger = _ledger.get()
        if ledger is None:
            return
        for cost, spent in self.costs.items():
            if cost in ledger and len(ledger[cost]) != len(spent):
                raise ValueError(f"one ledger counts one batch: {len(ledger[cost])} clips, then {len(spent)}")
            ledger[cost] = ledger.get(cost, 0) + spent
