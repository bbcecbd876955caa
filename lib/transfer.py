"""How often examples made against one model fool another."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch


def transfer(
    victims: Mapping[str, Callable[[torch.Tensor], torch.Tensor]],
    originals: torch.Tensor,
    examples: Mapping[str, torch.Tensor],
    label: torch.Tensor,
) -> pd.DataFrame:
    """How often examples made against one victim fool another: made against × shown to, in [0, 1].

    Counted over clips that the victim shown to names rightly, and on which the example fooled the victim
    that it was made against; NaN where there is none.

    Parameters
    ----------
    victims : name to model, images (n, 1, rows, frames) to logits.
    originals : (n, 1, rows, frames).
    examples : the name of a victim to the examples made against it, as originals.
    """
    with torch.no_grad():
        right = {name: victim(originals).argmax(1) == label for name, victim in victims.items()}
        rates = {}
        for source, images in examples.items():
            wrong = {name: victim(images).argmax(1) != label for name, victim in victims.items()}
            fooled = wrong[source] & right[source]
            rates[source] = {
                name: float(wrong[name][fooled & right[name]].double().mean())
                if (fooled & right[name]).any()
                else np.nan
                for name in victims
            }
    return pd.DataFrame.from_dict(rates, orient="index", columns=list(victims)).rename_axis("made against")
