"""What an attack is called with: one check at the door, the same for every attack and for the climb."""

import math
import warnings
from typing import Any

import eagerpy as ep
import foolbox
import torch
from foolbox.attacks.base import get_criterion

_SUMS_TO_ONE = 1e-3  # how near to 1 the answers for a clip must sum to be taken for probabilities


def check(model: foolbox.Model, inputs: Any, criterion: Any) -> None:
    """Refuse clips, labels and targets that no attack can take, before the victim is asked anything.

    Raises
    ------
    ValueError : unless ``inputs`` are float32 within the model's bounds, one clip at least, and the labels
        or targets of ``criterion`` are one integer of any type per clip, not negative.
    """
    x = ep.astensor(inputs)
    if not isinstance(x, ep.PyTorchTensor):
        raise ValueError(f"the attacks of this study take PyTorch tensors, not {type(x.raw).__name__}")
    x, (low, high) = x.raw, model.bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the model's bounds are two finite numbers, the lower first, not ({low}, {high})")
    if x.ndim < 2:
        raise ValueError(f"clips are of shape (clips, ...), one image each, not {tuple(x.shape)}")
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


def numbers(criterion: Any) -> tuple[str, Any]:
    """What Foolbox calls the classes of a criterion, and they; an empty name where it has none."""
    if not isinstance(criterion, foolbox.Criterion | ep.Tensor | torch.Tensor):
        return "labels", criterion
    criterion = get_criterion(criterion)
    if isinstance(criterion, foolbox.criteria.TargetedMisclassification):
        return "target_classes", criterion.target_classes.raw
    if isinstance(criterion, foolbox.criteria.Misclassification):
        return "labels", criterion.labels.raw
    return "", None


def answer(model: foolbox.Model, x: torch.Tensor) -> torch.Tensor:
    """(n, classes) float32 logits of ``x``, in one pass with autocast off.

    Raises
    ------
    ValueError : if the victim answers with anything else than one row of finite logits per clip.
    """
    try:
        with torch.autocast(x.device.type, enabled=False):
            logits = model(x)
    except ValueError as error:
        if not str(error).startswith("Unknown type"):  # Foolbox's of an answer that is no tensor
            raise
        raise ValueError(
            f"the victim answers with {_type(error)}, one tensor of real logits is wanted"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.is_complex():
        kind = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"the victim answers with {kind}, one tensor of real logits is wanted")
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise ValueError(
            f"the victim answers with shape {tuple(logits.shape)}; logits of shape (clips, classes) are "
            f"wanted, here ({len(x)}, 2 or more)"
        )
    if not torch.isfinite(logits).all():
        raise ValueError("the victim's logits are not finite")
    return logits.float()


def _type(error: ValueError) -> str:
    return str(error).partition("<class ")[2].strip("'>") or "no tensor"


def check_answer(criterion: Any, logits: torch.Tensor) -> None:
    """Refuse labels or targets that are none of the victim's classes, and a victim without logits.

    Raises
    ------
    ValueError : if a class is not below the number of logits, or if every clip's answers are probabilities
        that sum to 1.

    Warns
    -----
    UserWarning : if all answers are in [0, 1], as those of a sigmoid are.
    """
    classes = logits.shape[1]
    name, wanted = numbers(criterion)
    if name and wanted.max() >= classes:
        raise ValueError(f"{name} are in 0..{classes - 1}, not {int(wanted.max())}")
    logits = logits.detach()
    if logits.min() < 0 or logits.max() > 1 or bool((logits == logits[:, :1]).all()):
        return
    if ((logits.sum(1) - 1).abs() <= _SUMS_TO_ONE).all():
        raise ValueError(
            "the victim answers with probabilities, which sum to 1 for each clip; logits (or "
            "log-probabilities) are wanted"
        )
    warnings.warn(
        "all of the victim's answers are in [0, 1], as probabilities are; the attacks take them for logits",
        stacklevel=2,
    )
