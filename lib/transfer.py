"""How often examples made against one model fool another."""

from collections.abc import Callable, Mapping

import pandas as pd
import torch


@torch.no_grad()
def transfer(
    models: Mapping[str, Callable[[torch.Tensor], torch.Tensor]],
    originals: torch.Tensor,
    examples: Mapping[str, torch.Tensor],
    label: torch.Tensor,
    *,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """How many examples made against one model fool another.

    Counted over clips that the model shown to classifies correctly, and on which the example fooled the model
    that it was made against.

    Parameters
    ----------
    models : name to model, images (n, 1, rows, frames) on ``device`` to logits.
    originals : (n, 1, rows, frames).
    examples : the name of a model to the examples made against it, as originals.

    Returns
    -------
    One row per pair: made against, shown to, fooled, over; ``fooled`` of ``over`` clips.
    """
    label = label.cpu()

    def wrong(images: torch.Tensor) -> dict[str, torch.Tensor]:
        images = images.to(device)
        return {name: model(images).argmax(1).cpu() != label for name, model in models.items()}

    plain = wrong(originals)
    rows = []
    for source, images in examples.items():
        changed = wrong(images)
        for name in models:
            over = changed[source] & ~plain[source] & ~plain[name]
            rows.append((source, name, int((changed[name] & over).sum()), int(over.sum())))
    return pd.DataFrame(rows, columns=["made against", "shown to", "fooled", "over"])
