"""A model as attacks use it: frozen, batch norm folded, in the crafting precision, recorded as CUDA graphs.

What it says is never reported: an example counts only after the unmodified model judged it in float32.
On a CPU the model is used as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from lib import device as policy
from lib import graphs, models

SMALLEST_BATCH = 8  # of a graph; fewer images cost as much


def prepare(
    model: models.Classifier,
    precision: str = "auto",
    *,
    batch: int = 128,
    say: Callable[[str], None] = lambda line: None,
) -> nn.Module:
    """The model to craft examples with, in evaluation mode, without gradients of its weights.

    Parameters
    ----------
    model : in evaluation mode; it is left as it is.
    precision : "auto", "float32", "tf32" or "bfloat16"; see `lib.device.resolve`.
    batch : the most images that will be passed at once.
    say : takes a line where a graph cannot be recorded and the plain path is taken.
    """
    device = next(model.parameters()).device
    chosen = policy.resolve(precision, device)
    if device.type == "cpu" and chosen != "bfloat16":
        return model
    try:
        made = folded(model)
    except torch.fx.proxy.TraceError as error:
        say(f"batch norm is not folded, the model cannot be traced: {error}")
        made = _frozen(copy.deepcopy(model))
    return Crafter(made, chosen, graphed=device.type == "cuda", batch=batch, say=say)


def folded(model: nn.Module) -> nn.Module:
    """A frozen copy of a model in evaluation mode, its batch norms folded into its convolutions."""
    if model.training:
        raise ValueError("batch norm can be folded only in evaluation mode")
    return _frozen(models.to(fuse(model), next(model.parameters()).device))


def _frozen(model: nn.Module) -> nn.Module:
    for weight in model.parameters():
        weight.requires_grad_(False)
    return model.eval()


class Crafter(nn.Module):
    """Logits, and their gradient by the images, of a frozen model in a precision of its own, forth and back.

    Small images go through graphs of a few batch sizes, the largest ``batch``; a batch between two sizes is
    filled up with whatever was there. Large images, larger batches and what cannot be recorded take the plain
    path, which gives the same numbers up to rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: str,
        *,
        graphed: bool = True,
        batch: int = 128,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__()
        self.model, self.precision, self.graphed, self.say = model, precision, graphed, say
        self.sizes = ladder(batch)
        self.recorded: dict[tuple[int, ...], Recorded | None] = {}
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, classes) logits in float32."""
        passes = self.passes(images)
        if torch.is_grad_enabled() and images.requires_grad:
            return _Pass.apply(images, passes)
        return passes.answer(images)

    def passes(self, images: torch.Tensor) -> Recorded | Plain:
        """How these images are passed: recorded where that pays and works."""
        size = next((size for size in self.sizes if size >= len(images)), 0)
        if not self.graphed or not size or images.shape[1:].numel() >= policy.LARGE:
            return Plain(self.model, self.precision)
        key = (size, *images.shape[1:])
        if key not in self.recorded:
            try:
                self.recorded[key] = Recorded(self.model, self.precision, images.new_zeros(key))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.recorded[key] = None
                self.say(f"passes of {size} images are not recorded as a CUDA graph: {error}")
        return self.recorded[key] or Plain(self.model, self.precision)


def ladder(most: int) -> list[int]:
    """The batch sizes that are recorded, rising: powers of two, and the largest batch itself."""
    sizes = [SMALLEST_BATCH]
    while sizes[-1] * 2 < most:
        sizes.append(sizes[-1] * 2)
    return sizes if most <= sizes[-1] else [*sizes, most]


class Plain:
    """One pass and its gradients without a graph."""

    serial = 0

    def __init__(self, model: nn.Module, precision: str) -> None:
        self.model, self.precision = model, precision

    def answer(self, images: torch.Tensor) -> torch.Tensor:
        """Logits without a gradient."""
        with torch.no_grad():
            return _logits(self.model, images, self.precision)

    def begin(self, images: torch.Tensor) -> torch.Tensor:
        """Logits whose gradient will be asked for."""
        self.images = images.detach().requires_grad_()
        with torch.enable_grad():
            self.logits = _logits(self.model, self.images, self.precision)
        return self.logits.detach()

    def gradient(self, slope: torch.Tensor) -> torch.Tensor:
        """The gradient of the sum of logits · ``slope`` by the images."""
        with policy.computing(self.precision):
            return torch.autograd.grad(self.logits, self.images, slope, retain_graph=True)[0]


class Recorded:
    """A pass and its gradient at one batch size, each recorded once."""

    def __init__(self, model: nn.Module, precision: str, example: torch.Tensor) -> None:
        self.model, self.precision = model, precision
        self.images = example.detach().clone().requires_grad_()
        self.serial = 0  # of the images whose pass the memory holds
        self._forward()
        self.slope = torch.zeros_like(self.logits)
        graphs.warm(self._both, example.device)
        self.replay_forward = graphs.record(self._forward, example.device)
        self.replay_backward = graphs.record(self._backward, example.device)

    def _forward(self) -> None:
        self.logits = None  # its graph holds a node of the images that belongs to the stream of that pass
        with torch.enable_grad():
            self.logits = _logits(self.model, self.images, self.precision)

    def _backward(self) -> None:
        with policy.computing(self.precision):
            (self.change,) = torch.autograd.grad(self.logits, self.images, self.slope, retain_graph=True)

    def _both(self) -> None:
        self._forward()
        self._backward()

    @torch.no_grad()
    def answer(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, with or without a gradient to follow."""
        self.serial += 1
        self.images[: len(images)] = images
        self.replay_forward()
        return self.logits.detach()[: len(images)].clone()

    begin = answer

    @torch.no_grad()
    def gradient(self, slope: torch.Tensor) -> torch.Tensor:
        """The gradient of the sum of logits · ``slope`` by the images."""
        self.slope.zero_()
        self.slope[: len(slope)] = slope
        self.replay_backward()
        return self.change[: len(slope)].clone()


def _logits(model: nn.Module, images: torch.Tensor, precision: str) -> torch.Tensor:
    with policy.computing(precision), policy.autocast(precision, images.device):
        return model(images).float()


class _Pass(torch.autograd.Function):
    """A pass whose gradient may be asked for several times, and after other passes."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, passes: Plain | Recorded) -> torch.Tensor:
        ctx.passes, logits = passes, passes.begin(images)
        ctx.serial = passes.serial
        ctx.save_for_backward(images)
        return logits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None]:
        if ctx.serial != ctx.passes.serial:  # another pass has used the memory since
            ctx.passes.begin(*ctx.saved_tensors)
            ctx.serial = ctx.passes.serial
        return ctx.passes.gradient(slope), None
