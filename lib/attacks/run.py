"""What every attack holds while it runs: clips, victim, criterion, and what it has cost so far.

Foolbox's attacks carry every clip to the end. Ours let a clip leave once it is done, so each keeps
``active``, the places of the clips still under attack. Criteria cannot be cut to a subset, so a run
remembers the last logits of everyone and asks the criterion about the whole batch.
"""

import hashlib
from typing import Any

import eagerpy as ep
import foolbox
import torch
from foolbox.attacks.base import get_criterion, raise_if_kwargs

from lib.attacks.accounting import Counts


class Run:
    """One call of an attack on a batch.

    Parameters
    ----------
    model : the victim, a Foolbox model over PyTorch.
    inputs : (n, …) float32 within the model's bounds.
    criterion : a Foolbox criterion, or (n,) labels, as Foolbox allows.
    kwargs : what the caller passed beside; must be empty.

    Attributes
    ----------
    x : (n, …) the clips, detached, on the victim's device.
    everyone : (n,) the places 0 … n − 1.
    low, high : the model's bounds.
    """

    def __init__(self, model: foolbox.Model, inputs: Any, criterion: Any, kwargs: dict[str, Any]):
        raise_if_kwargs(kwargs)
        x, self._restore = ep.astensor_(inputs)
        if not isinstance(x, ep.PyTorchTensor):
            raise ValueError(f"the attacks of this study take PyTorch tensors, not {type(x.raw).__name__}")
        self.model, self.criterion = model, get_criterion(criterion)
        self.low, self.high = model.bounds
        self.x = x.raw.detach()
        if self.x.dtype != torch.float32:
            raise ValueError(f"attacks run in float32, not {self.x.dtype}")
        if len(self.x) == 0:
            raise ValueError("there is no clip to attack")
        if not (self.low <= self.x.min() and self.x.max() <= self.high):
            raise ValueError(
                f"clips lie in [{self.x.min():g}, {self.x.max():g}], "
                f"the model's bounds are [{self.low:g}, {self.high:g}]"
            )
        self.everyone = torch.arange(len(self.x), device=self.x.device)
        self.counts = Counts(len(self.x))
        self._latest = self.x.clone()
        self._logits: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, active: torch.Tensor, cost: str = "forwards") -> torch.Tensor:
        """(k, classes) logits of ``x``, the images of the clips at ``active``, in full precision."""
        with torch.autocast(x.device.type, enabled=False):
            logits = self._pass(x)
        if not torch.isfinite(logits).all():
            raise ValueError("the victim's logits are not finite")
        self.counts.add(cost, active)
        return logits

    def _pass(self, x: torch.Tensor) -> torch.Tensor:
        """The victim's answer; in halves where memory is too short for a pass that keeps no graph."""
        try:
            return self.model(x)
        except torch.OutOfMemoryError:
            if len(x) == 1 or x.requires_grad:
                raise
        return torch.cat([self._pass(half) for half in x.chunk(2)])

    def gradient(
        self, value: torch.Tensor, x: torch.Tensor, active: torch.Tensor, again: bool = False
    ) -> torch.Tensor:
        """The gradient of ``value.sum()`` by the images alone: no gradient of a weight is computed.

        ``again`` keeps the graph for a further gradient of the same pass.
        """
        self.counts.add("backwards", active)
        (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=again)
        return gradient

    def holds(self, x: torch.Tensor, logits: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """(k,) whether the criterion holds for each active clip at ``x`` with these logits."""
        if self._logits is None:
            self._logits = logits.new_zeros(len(self.x), logits.shape[-1])
        self._latest[active], self._logits[active] = x.detach(), logits.detach()
        return self.criterion(self._latest, self._logits)[active]

    def end(self, adversarial: torch.Tensor) -> Any:
        """Post the costs and hand the examples back in the caller's own type, within the bounds."""
        self.counts.post()
        return self._restore(ep.astensor(adversarial.clamp(self.low, self.high)))


def per_clip(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(k,) shaped to multiply (k, …)."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def l2(x: torch.Tensor) -> torch.Tensor:
    """(k,) Euclidean norm of each image of (k, …)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def budgets(epsilon: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(n,) one budget a clip from one for all, or from one each; must not be negative."""
    each = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device).expand(len(x))
    if not (each >= 0).all():
        raise ValueError(f"a budget is not negative, this is {each.min():g}")
    return each


def into_ball(x: torch.Tensor, centre: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The nearest point of each clip's ℓ2 ball of ``radius`` (k,) around ``centre``."""
    change = x - centre
    shrink = (radius / l2(change).clamp_min(torch.finfo(x.dtype).tiny)).clamp(max=1)
    return centre + per_clip(shrink, x) * change


def own_generators(x: torch.Tensor, seed: int, purpose: str) -> list[torch.Generator]:
    """A random generator a clip, fixed by its own values and ``seed``: neither batch nor order matters."""
    generators = []
    for image in x.cpu().numpy():
        digest = hashlib.sha256(f"{purpose}/{seed}/".encode() + image.tobytes()).digest()
        generator = torch.Generator(x.device)
        generators.append(generator.manual_seed(int.from_bytes(digest[:7], "big")))
    return generators


def positive(**settings: float) -> None:
    """Refuse a setting that is not above zero, naming it."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} is above 0, not {value}")
