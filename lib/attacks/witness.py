"""What an attack met on its way: the nearest misclassified image of each clip, whatever it was looking for.

A targeted attack passes many images that the victim misclassifies before it reaches its target. Their logits
are computed anyway, so whoever wants the nearest opens a witness around the call, as for the costs
(:mod:`lib.attacks.accounting`); no pass is added.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_witness: ContextVar["Witness | None"] = ContextVar("witness", default=None)


class Witness:
    """What one call on clips of these labels met.

    Attributes
    ----------
    norm : (n,) the least ‖x' − x‖₂ of an iterate x' that the victim misclassified; ∞ where there was none.
    image : (n, …) that iterate; the clip itself where there was none.
    claimed : (n,) whether the attack's criterion held at some iterate, as the attack saw it.
    cut : (n,) whether the attack stopped at a limit of its own before it had finished.
    follow : called with the norms and logits of all iterates of a step, as they are met.
    """

    def __init__(self, x: torch.Tensor, label: torch.Tensor):
        self._label = label
        self.image = x.clone()
        self.norm = x.new_full((len(x),), torch.inf)
        self.claimed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.cut = torch.zeros_like(self.claimed)
        self.follow: Callable[[torch.Tensor, torch.Tensor], None] = lambda norm, logits: None

    def see(
        self,
        x: torch.Tensor,
        norm: torch.Tensor,
        logits: torch.Tensor,
        holds: torch.Tensor,
        places: torch.Tensor,
    ) -> None:
        """Note the iterates ``x`` of the clips at ``places``, ‖x − clip‖₂ away, with these logits."""
        nearer = (logits.argmax(1) != self._label[places]) & (norm < self.norm[places])
        self.image[places[nearer]], self.norm[places[nearer]] = x[nearer], norm[nearer]
        self.claimed[places] |= holds
        self.follow(norm, logits)


@contextmanager
def watching(x: torch.Tensor, label: torch.Tensor) -> Iterator[Witness]:
    """Watch the one attack called inside on the clips ``x`` of these labels."""
    witness = Witness(x, label)
    token = _witness.set(witness)
    try:
        yield witness
    finally:
        _witness.reset(token)


def current() -> Witness | None:
    """The witness that is open, if any."""
    return _witness.get()
