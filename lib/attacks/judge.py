"""The judge: what an example is, measured on it alone. What an attack says of itself is never believed."""

from typing import Any

import foolbox
import torch
from torch import nn

from lib.attacks.door import answer

Tensors = dict[str, torch.Tensor]

MEASURED = {
    "fooled": torch.bool,
    "after": torch.int64,
    "confidence": torch.float64,
    "l0": torch.int64,
    "l2": torch.float64,
    "linf": torch.float64,
    "rms": torch.float64,
}
"""What :func:`measure` says of an example."""


def measure(
    victim: foolbox.Model, x: torch.Tensor, example: torch.Tensor, criterion: foolbox.Criterion
) -> Tensors:
    """Whether an example fools, and by how much it was changed: one pass of the victim in full precision.

    Returns
    -------
    fooled (the criterion holds), after (the predicted class), confidence (its probability), and the size of
    the change: l0 (values changed), l2, linf, rms (l2 over the root of the number of values).

    Raises
    ------
    ValueError : if the example leaves the bounds of the victim or is not finite.
    """
    low, high = victim.bounds
    if not (torch.isfinite(example).all() and low <= example.min() and example.max() <= high):
        raise ValueError(f"an attack returned values outside [{low:.9g}, {high:.9g}]")
    logits = answers(victim, example)
    change = (example.double() - x.double()).flatten(1)
    confidence, after = logits.double().softmax(1).max(1)
    norm = torch.linalg.vector_norm(change, dim=1)
    measured = {
        "fooled": criterion(example, logits).bool(),
        "after": after,
        "confidence": confidence,
        "l0": (change != 0).sum(1),
        "l2": norm,
        "linf": change.abs().amax(1),
        "rms": norm / change.shape[1] ** 0.5,
    }
    return {name: values.cpu() for name, values in measured.items()}


def answers(victim: foolbox.Model, x: torch.Tensor) -> torch.Tensor:
    """(n, classes) float32 logits, in one pass in full precision that keeps no graph."""
    with torch.no_grad():
        return answer(victim, x)


_CHANGING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Layers whose answer in training mode depends on the batch or on chance."""


def check_mode(victim: foolbox.Model, x: torch.Tensor) -> None:
    """Refuse a victim in training mode before the first pass through it, which would already change it.

    With one clip, or one at a time, batch statistics look like the victim's own, so no answer shows it.
    """

    def refuse(module: nn.Module, args: Any) -> None:
        if module.training and isinstance(module, _CHANGING):
            raise ValueError(
                f"the victim's {type(module).__name__} is in training mode: put the victim in evaluation mode"
            )

    handle = nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        answers(victim, x)
    finally:
        handle.remove()


def check_still(victim: foolbox.Model, x: torch.Tensor) -> None:
    """Refuse a victim whose answer for a clip depends on chance or on the rest of the batch."""
    together = answers(victim, x)
    alone = answers(victim, x[:1])
    scale = together.abs().max().clamp_min(1)
    if (together[:1] - alone).abs().max() > 1e-3 * scale:
        raise ValueError("the victim's answer depends on chance or on the batch: put it in evaluation mode")
