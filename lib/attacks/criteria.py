"""What counts as success, as Foolbox criteria: any wrong class, the target, the target with confidence."""

import hashlib
from collections.abc import Sequence
from typing import Any

import eagerpy as ep
import foolbox
import torch

from lib import ranges


class Confident(foolbox.criteria.TargetedMisclassification):
    """The target class, named with at least ``probability``: the paper's "confidence ≥ 75 %" of BIM.

    A subclass of Foolbox's targeted criterion, so every targeted attack takes it. Chapter 4.

    Parameters
    ----------
    target_classes : (n,) the class that each clip is to be taken for.
    probability : the least softmax probability of the target, in [0, 1].
    """

    def __init__(self, target_classes: Any, probability: float = 0.75):
        super().__init__(target_classes)
        ranges.refuse(locals(), ranges.number("probability", 0, 1))
        self.probability = probability

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target_classes!r}, probability={self.probability})"

    def __call__(self, perturbed: Any, outputs: Any) -> Any:
        logits, restore_type = ep.astensor_(outputs)
        wanted = ep.astensor(self.target_classes.raw.long())  # the one integer type that all indexing takes
        probability = logits.softmax(axis=-1)[range(len(logits)), wanted]
        named = logits.argmax(axis=-1) == self.target_classes
        return restore_type(ep.logical_and(named, probability >= self.probability))


def direction(criterion: foolbox.Criterion) -> tuple[int, torch.Tensor]:
    """Which classes' loss an attack moves, and which way.

    Returns
    -------
    sign : +1, climb the loss of the label (untargeted), or −1, descend that of the target.
    classes : (n,) the labels, or the targets.
    """
    if isinstance(criterion, foolbox.criteria.TargetedMisclassification):
        return -1, criterion.target_classes.raw.long()
    if isinstance(criterion, foolbox.criteria.Misclassification):
        return 1, criterion.labels.raw.long()
    raise ValueError(
        f"criterion is Misclassification or TargetedMisclassification, not {type(criterion).__name__}"
    )


def margin(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """m = log Σ_{k≠l} e^{Z_k} − Z_l for each clip and its class l: (n,).

    The cross-entropy J of class l is log(1 + e^m), so the gradients of J and of m by the image are parallel,
    ∇J = σ(m) ∇m with σ(m) > 0, and their signs are equal. But where the model is sure, σ(m) underflows to
    zero in float32 and J has no gradient left, while m still has one.
    """
    own = logits.gather(1, classes[:, None])[:, 0]
    return logits.scatter(1, classes[:, None], -torch.inf).logsumexp(1) - own


def wrong_labels(label: Any, classes: int, seed: int, clips: Sequence[str]) -> torch.Tensor:
    """A target for every clip: uniform over the wrong classes, fixed by ``seed`` and the clip's name.

    The same clip has the same target for every attack and victim, whoever else is attacked (reading 15).

    Parameters
    ----------
    label : (n,) true classes.
    classes : how many classes there are, at least 2.
    clips : n names.

    Returns
    -------
    (n,) int64, never equal to ``label``.
    """
    label = torch.as_tensor(label, dtype=torch.int64)
    if classes < 2:
        raise ValueError(f"a wrong label needs at least 2 classes, not {classes}")
    if len(label) != len(clips):
        raise ValueError(f"{len(label)} labels for {len(clips)} clips")
    if not ((label >= 0) & (label < classes)).all():
        raise ValueError(f"labels are in 0..{classes - 1}, not in {int(label.min())}..{int(label.max())}")
    drawn = [hashlib.sha256(f"target/{seed}/{clip}".encode()).digest() for clip in clips]
    steps = torch.tensor([1 + int.from_bytes(d[:8], "big") % (classes - 1) for d in drawn], dtype=torch.int64)
    return (label + steps) % classes
