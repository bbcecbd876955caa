"""What every attack holds while it runs: clips, victim, criterion, and what it has cost so far.

Foolbox's attacks carry every clip to the end. Ours let a clip leave once it is done, so each keeps
``active``, the places of the clips still under attack. Criteria cannot be cut to a subset, so a call
remembers the last logits of everyone and asks the criterion about the whole batch.
"""

import hashlib
from typing import Any

import eagerpy as ep
import foolbox
import torch
from foolbox.attacks.base import FixedEpsilonAttack, MinimizationAttack, get_criterion, raise_if_kwargs

from lib.attacks.accounting import Counts
from lib.attacks.criteria import direction

_LEAST, _MOST, _VALUES = 4, 64, 2**20  # images in a pass without a graph, and their values together


class _Attack:
    """An attack that checks what it is called with before Foolbox does, whose assertions name nothing."""

    def __call__(self, model: foolbox.Model, inputs: Any, criterion: Any, **kwargs: Any) -> Any:
        check(model, inputs, criterion)
        return super().__call__(model, inputs, criterion, **kwargs)


class BudgetAttack(_Attack, FixedEpsilonAttack):
    """A Foolbox attack within a given ε: ``perturb(call, epsilon)`` makes the examples, (n,) ε's apart."""

    def run(
        self,
        model: foolbox.Model,
        inputs: Any,
        criterion: Any,
        *,
        epsilon: float | torch.Tensor,
        **kwargs: Any,
    ) -> Any:
        """Foolbox's ``run``; ε is one for all clips, or (n,) one per clip."""
        raise_if_kwargs(kwargs)
        call = Call(model, inputs, criterion)
        return call.end(self.perturb(call, budgets(epsilon, call.x)))


class LeastChangeAttack(_Attack, MinimizationAttack):
    """A Foolbox attack that looks for the smallest change: ``perturb(call)`` makes the examples."""

    def run(
        self,
        model: foolbox.Model,
        inputs: Any,
        criterion: Any,
        *,
        early_stop: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Foolbox's ``run``; ``early_stop`` is not used."""
        raise_if_kwargs(kwargs)
        call = Call(model, inputs, criterion)
        return call.end(self.perturb(call))


def check(model: foolbox.Model, inputs: Any, criterion: Any) -> None:
    """Refuse clips, labels and targets that no attack can take; :func:`check_classes` needs an answer.

    Raises
    ------
    ValueError : unless ``inputs`` are float32 within the model's bounds, one clip at least, and the labels
        or targets of ``criterion`` are one integer of any type per clip, not negative.
    """
    x = ep.astensor(inputs)
    if not isinstance(x, ep.PyTorchTensor):
        raise ValueError(f"the attacks of this study take PyTorch tensors, not {type(x.raw).__name__}")
    x, (low, high) = x.raw, model.bounds
    if x.dtype != torch.float32:
        raise ValueError(f"attacks run in float32, not {x.dtype}")
    if len(x) == 0:
        raise ValueError("there is no clip to attack")
    if not (low <= x.min() and x.max() <= high):
        raise ValueError(
            f"clips are in [{x.min():.9g}, {x.max():.9g}], the model's bounds are [{low:.9g}, {high:.9g}]"
        )
    name, classes = numbers(criterion)
    if name and not isinstance(classes, torch.Tensor):
        raise ValueError(f"{name} are a PyTorch tensor, not {type(classes).__name__}")
    if name and (classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool):
        raise ValueError(f"{name} are integers, not {classes.dtype}")
    if name and classes.shape != x.shape[:1]:
        raise ValueError(f"{name} are one per clip, {tuple(x.shape[:1])}, not {tuple(classes.shape)}")
    if name and classes.min() < 0:
        raise ValueError(f"{name} are classes from 0, not {int(classes.min())}")


def check_classes(criterion: foolbox.Criterion, classes: int) -> None:
    """Refuse labels or targets that are none of the victim's classes."""
    name, wanted = numbers(criterion)
    if name and wanted.max() >= classes:
        raise ValueError(f"{name} are in 0..{classes - 1}, not {int(wanted.max())}")


def numbers(criterion: Any) -> tuple[str, Any]:
    """What Foolbox calls the classes of a criterion, and they; an empty name where it has none."""
    criterion = get_criterion(criterion)
    if isinstance(criterion, foolbox.criteria.TargetedMisclassification):
        return "target_classes", criterion.target_classes.raw
    if isinstance(criterion, foolbox.criteria.Misclassification):
        return "labels", criterion.labels.raw
    return "", None


class Call:
    """One call of an attack on a batch.

    Parameters
    ----------
    model : the victim, a Foolbox model over PyTorch.
    inputs : (n, …) float32 within the model's bounds.
    criterion : a Foolbox criterion, or (n,) labels, as Foolbox allows.

    Raises
    ------
    ValueError : if :func:`check` or, at the first pass, :func:`check_classes` refuses them.

    Attributes
    ----------
    x : (n, …) the clips, detached, on the victim's device.
    everyone : (n,) the places 0 … n − 1.
    low, high : the model's bounds.
    at_once : how many images are asked about at once where no gradient is wanted; changes no answer.
    """

    def __init__(self, model: foolbox.Model, inputs: Any, criterion: Any):
        check(model, inputs, criterion)
        x, self._restore = ep.astensor_(inputs)
        self.model, self.criterion = model, get_criterion(criterion)
        self.low, self.high = model.bounds
        self.x = x.raw.detach()
        self.everyone = torch.arange(len(self.x), device=self.x.device)
        self.counts = Counts(len(self.x))
        self.at_once = min(_MOST, max(_LEAST, _VALUES // self.x[0].numel()))
        self._latest = self.x.clone()
        self._logits: torch.Tensor | None = None
        self._checked = False

    @property
    def goal(self) -> tuple[int, torch.Tensor]:
        """The sign of the loss and its classes: :func:`lib.attacks.criteria.direction`."""
        return direction(self.criterion)

    def forward(self, x: torch.Tensor, active: torch.Tensor, cost: str = "forwards") -> torch.Tensor:
        """(k, classes) logits of ``x``, the images of the clips at ``active``, in full precision."""
        with torch.autocast(x.device.type, enabled=False):
            logits = self._pass(x)
        if not torch.isfinite(logits).all():
            raise ValueError("the victim's logits are not finite")
        if not self._checked:
            check_classes(self.criterion, logits.shape[-1])
            self._checked = True
        self.counts.add(cost, active)
        return logits

    def ask(self, x: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """(k, classes) logits at the price of one query per clip, ``at_once`` images in a pass."""
        parts = zip(x.split(self.at_once), active.split(self.at_once), strict=True)
        return torch.cat([self.forward(part, places, "queries") for part, places in parts])

    def ask_classes(self) -> None:
        """Check the labels for an attack that never asks the victim: one clip's pass, charged to nobody."""
        with torch.no_grad():
            check_classes(self.criterion, self._pass(self.x[:1]).shape[-1])

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
    """(n,) one budget per clip, from one for all or from one each; none may be negative."""
    each = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device).expand(len(x))
    if not (each >= 0).all():
        raise ValueError(f"a budget is not negative, this is {each.min():.9g}")
    return each


def into_ball(x: torch.Tensor, centre: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The nearest point of each clip's ℓ2 ball of ``radius`` (k,) around ``centre``."""
    change = x - centre
    shrink = (radius / l2(change).clamp_min(torch.finfo(x.dtype).tiny)).clamp(max=1)
    return centre + per_clip(shrink, x) * change


def own_generators(x: torch.Tensor, seed: int, purpose: str) -> list[torch.Generator]:
    """A random generator per clip, fixed by its own values and ``seed``: neither batch nor order matters."""
    generators = []
    for image in x.cpu().numpy():
        digest = hashlib.sha256(f"{purpose}/{seed}/".encode() + image.tobytes()).digest()
        generator = torch.Generator(x.device)
        generators.append(generator.manual_seed(int.from_bytes(digest[:7], "big")))
    return generators
