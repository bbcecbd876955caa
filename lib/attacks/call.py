"""What every attack holds while it runs: clips, victim, criterion, and what it has cost so far.

Foolbox's attacks carry every clip to the end. Ours let a clip leave once it is done, so each keeps
``active``, the places of the clips still under attack. Criteria cannot be cut to a subset, so a call
remembers the last logits of everyone and asks the criterion about the whole batch.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import eagerpy as ep
import foolbox
import torch
from foolbox.attacks.base import FixedEpsilonAttack, MinimizationAttack, get_criterion, raise_if_kwargs

from lib.attacks import witness
from lib.attacks.accounting import Counts
from lib.attacks.criteria import direction
from lib.attacks.door import answer, check, check_answer

_LEAST, _MOST, _VALUES = 4, 64, 2**20  # images in a pass without a graph, and their values together


class NoGradient(ValueError):
    """The victim's answer has no gradient by its input."""


@contextmanager
def own_mode(device: torch.device) -> Iterator[None]:
    """Gradients on and autocast off, whatever the caller's mode is."""
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


class _Attack:
    """An attack that checks what it is called with before Foolbox does, whose assertions name nothing."""

    def __call__(self, model: foolbox.Model, inputs: Any, criterion: Any, **kwargs: Any) -> Any:
        check(model, inputs, criterion)
        with own_mode(ep.astensor(inputs).raw.device):
            return super().__call__(model, inputs, criterion, **kwargs)


def make(model: foolbox.Model, inputs: Any, criterion: Any, perturb: Callable[["Call"], torch.Tensor]) -> Any:
    """The examples that ``perturb`` makes, in the caller's own type."""
    check(model, inputs, criterion)
    with own_mode(ep.astensor(inputs).raw.device):
        call = Call(model, inputs, criterion)
        return call.end(perturb(call))


class BudgetAttack(_Attack, FixedEpsilonAttack):
    """A Foolbox attack within a given ε: ``perturb(call, epsilon)`` makes the examples, ε one per clip."""

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
        return make(model, inputs, criterion, lambda call: self.perturb(call, budgets(epsilon, call.x)))


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
        return make(model, inputs, criterion, self.perturb)


class Call:
    """One call of an attack on a batch.

    Parameters
    ----------
    model : the victim, a Foolbox model over PyTorch.
    inputs : (n, …) float32 within the model's bounds.
    criterion : a Foolbox criterion, or (n,) labels, as Foolbox allows.

    Raises
    ------
    ValueError : at the first pass, if :func:`lib.attacks.door.check_answer` refuses the answer.

    Attributes
    ----------
    x : (n, …) the clips, detached, on the victim's device.
    everyone : (n,) the places 0 … n − 1.
    low, high, range : the model's bounds, and high − low, the unit of every setting that is a share of them.
    at_once : how many images are asked about at once where no gradient is wanted; changes no answer.
    """

    def __init__(self, model: foolbox.Model, inputs: Any, criterion: Any):
        x, self._restore = ep.astensor_(inputs)
        self.model, self.criterion = model, get_criterion(criterion)
        self.low, self.high = model.bounds
        self.range = self.high - self.low
        self.x = x.raw.detach().clone()
        self.everyone = torch.arange(len(self.x), device=self.x.device)
        self.counts = Counts(len(self.x))
        self.at_once = min(_MOST, max(_LEAST, _VALUES // self.x[0].numel()))
        self.witness = witness.current()
        self._latest = self.x.clone()
        self._logits: torch.Tensor | None = None
        self._checked = False

    @property
    def goal(self) -> tuple[int, torch.Tensor]:
        """The sign of the loss and its classes: :func:`lib.attacks.criteria.direction`."""
        sign, classes = direction(self.criterion)
        return sign, classes.clone()

    def forward(self, x: torch.Tensor, active: torch.Tensor, cost: str = "forwards") -> torch.Tensor:
        """(k, classes) logits of ``x``, the images of the clips at ``active``, in full precision."""
        logits = self._pass(x)
        if not self._checked:
            check_answer(self.criterion, logits)
            self._checked = True
        self.counts.add(cost, active)
        return logits

    def ask(self, x: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """(k, classes) logits at the price of one query per clip, ``at_once`` images in a pass."""
        parts = zip(x.split(self.at_once), active.split(self.at_once), strict=True)
        return torch.cat([self.forward(part, places, "queries") for part, places in parts])

    def check_classes(self) -> None:
        """Check the labels for an attack that never asks the victim: two clips are passed, unpaid."""
        check_answer(self.criterion, self._pass(self.x[:2]))

    def _pass(self, x: torch.Tensor) -> torch.Tensor:
        """The victim's answer; in halves where memory is too short for a pass that keeps no graph."""
        try:
            return answer(self.model, x)
        except torch.OutOfMemoryError:
            if len(x) == 1 or x.requires_grad:
                raise
        return torch.cat([self._pass(half) for half in x.chunk(2)])

    def gradient(
        self,
        value: torch.Tensor,
        x: torch.Tensor,
        active: torch.Tensor,
        *,
        again: bool = False,
        finite: bool = True,
    ) -> torch.Tensor:
        """The gradient of ``value.sum()`` by the images alone: no gradient of a weight is computed.

        ``again`` keeps the graph for a further gradient of the same pass; ``finite`` refuses one that is not.

        Raises
        ------
        NoGradient : if the victim's answer does not depend on its input in a way that PyTorch can follow.
        ValueError : if the gradient of a clip is not finite.
        """
        self.counts.add("backwards", active)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=again, allow_unused=True)
        if gradient is None:
            raise NoGradient("the victim's answer has no gradient by its input: it is constant, or detached")
        if finite and not gradient.isfinite().all():
            count = int((~gradient.flatten(1).isfinite().all(1)).sum())
            raise ValueError(
                f"the gradient of the victim's answer is not finite for {count} of {len(x)} clips"
            )
        return gradient

    def holds(self, x: torch.Tensor, logits: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """(k,) whether the criterion holds for each active clip at ``x`` with these logits.

        ``x`` is an iterate of the attack: the open witness, if there is one, sees it.
        """
        if self._logits is None:
            self._logits = logits.new_zeros(len(self.x), logits.shape[-1])
        x, logits = x.detach(), logits.detach()
        self._latest[active], self._logits[active] = x, logits
        holds = self.criterion(self._latest, self._logits)[active]
        if self.witness is not None:
            x = x.clamp(self.low, self.high)
            self.witness.see(x, l2(x - self.x[active]), logits, holds, active)
        return holds

    def cut(self, places: torch.Tensor) -> None:
        """Note that the clips at ``places`` were stopped at a limit before the attack had finished."""
        if self.witness is not None:
            self.witness.cut[places] = True

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
    """(n,) one budget per clip, from one for all or from one each; each is finite and not negative."""
    each = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device)
    if each.shape not in ((), (1,), (len(x),)):
        raise ValueError(
            f"budgets are one for all clips or ({len(x)},), one per clip, not {tuple(each.shape)}"
        )
    each = each.expand(len(x))
    allowed = (each >= 0) & each.isfinite()
    if not allowed.all():
        raise ValueError(f"a budget is finite and not negative, this is {each[~allowed][0]:.9g}")
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
