"""Gathered rows of a grid that was never run, with effects that are known."""

import dataclasses

import numpy as np
import pandas as pd

from lib import names
from lib.analysis.results import AT_SIZE, ATTACKED, POINT, TIMES, Results, at_size

LEAK = ["protocol", "recordings crossing", "clips crossing", "accuracy", "low", "high", "over"]


def grid(
    *,
    dataset: str = "esc10",
    representations=("stft", "dwt"),
    models=("alexnet", "resnet18"),
    folds=("1",),
    trainings=("standard", "adversarial"),
    clips: int = 20,
    accuracy=(0.8, 0.6),
    ratio: float = 2.0,
    failing: float = 0.0,
    clips_per_source: int = 1,
    train_accuracy: float = 0.95,
    noise: float = 0.0,
    seed: int = 0,
) -> Results:
    """A run in which robust models fall from ``accuracy[0]`` to ``[1]`` and need ``ratio`` times the norm.

    ``failing`` is the share of clips on which every attack fails. Norms of the original models are drawn
    around 0.2, below the paper's budget at 64 × 128, which is 0.2475. ``noise`` is the spread of the
    logarithm of the ratio from clip to clip, and of the accuracies, in shares, from training to training.
    """
    draw = np.random.default_rng(seed)
    clean, attacks, cells, times, history = [], [], [], [], []
    for fold in folds:
        level = draw.lognormal(np.log(0.2), 0.4, clips)
        ids = [f"{fold}-{i}" for i in range(clips)]
        for representation in representations:
            for model in models:
                for training in trainings:
                    point = dict(zip(POINT, (representation, model, fold, training), strict=True))
                    robust = training != "standard"
                    share = (accuracy[1] if robust else accuracy[0]) + noise * draw.normal() / 4
                    right = np.arange(clips) < round(share * clips)
                    label = np.arange(clips) % 10
                    predicted = np.where(right, label, (label + 1) % 10)
                    sources = [f"{fold}-r{i // clips_per_source}" for i in range(clips)]
                    columns = zip(ids, sources, label, predicted, strict=True)
                    named = ("clip", "source", "label", "predicted")
                    clean += [point | dict(zip(named, row, strict=True)) for row in columns]
                    factor = np.exp(noise * draw.normal(size=clips)) * (ratio if robust else 1.0)
                    attacks += _attacked(point, ids, label, right, level * factor, failing, robust)
                    epochs = {"epoch": [1, 2, 3, 4], "train_loss": 0.1, "train_accuracy": train_accuracy}
                    history.append(pd.DataFrame(point | epochs))
                    for chapter in ("03_training" if not robust else "05_adversarial_training", "04_attacks"):
                        cell = {"chapter": chapter, **point, "commit": "0" * 40, "dirty": False}
                        cells.append(cell | {"device": "cpu", "data": "", "changed": ""})
                        times.append({"chapter": chapter, **point, "attack": "", **dict.fromkeys(TIMES, 1.0)})
    heights = {name: 109 if "tonnetz" in name else 64 for name in representations}
    bins, frames = np.geomspace(60, 7600, 64).tolist(), np.linspace(0, 5, 128).tolist()
    images = {
        name: {
            shown: np.clip(draw.random((height, 128)) * 0.3 + 0.01 * i, 0, 1).astype(np.float32)
            for i, shown in enumerate(("original", *names.ATTACKS))
        }
        for name, height in heights.items()
    }
    about = {"clip": f"{folds[0]}-0", "name": "dog", "model": models[0], "fold": folds[0]}
    tested = pd.DataFrame(clean).assign(confidence=0.9)
    return Results(
        dataset=dataset,
        attacks=pd.DataFrame(attacks, columns=ATTACKED),
        evaluated=tested[[*POINT, "clip"]],
        clean=tested,
        leaks=pd.DataFrame(columns=[*POINT, *LEAK]),
        history=pd.concat(history, ignore_index=True),
        sizes=pd.DataFrame(
            [(name, height, 128, 64, bins, frames) for name, height in heights.items()],
            columns=["representation", "rows", "frames", "bins", "frequencies", "times"],
        ),
        cells=pd.DataFrame(cells),
        times=pd.DataFrame(times),
        notes=pd.DataFrame({"note": []}, dtype=object),
        examples=images,
        about=dict.fromkeys(images, about | {"training": "standard"}),
        other_sizes=pd.DataFrame(columns=AT_SIZE),
    )


def at_sizes(run: Results, power: float, times=(2, 4), noise: float = 0.0, seed: int = 0) -> Results:
    """The run with grids of images ``times`` as high and as wide, whose norms grow with values ** power."""
    draw, found = np.random.default_rng(seed), []
    for by in times:
        rows = at_size(run)
        factor = by ** (2 * power) * np.exp(noise * draw.normal(size=len(rows)))
        found.append(
            rows.assign(bins=rows["bins"] * by, frames=rows["frames"] * by, norm=rows["norm"] * factor)
        )
    return dataclasses.replace(run, other_sizes=pd.concat(found, ignore_index=True))


def _attacked(point, ids, label, right, norms, failing, robust) -> list[dict]:
    """The rows of one victim: attack k needs 1 + 0.3 k times the norms."""
    rows = []
    for k, attack in enumerate((*names.ATTACKS, *names.REFERENCE, *names.CONTROLS)):
        for i in np.flatnonzero(right):
            held = i >= failing * len(ids)
            norm = norms[i] * (1 + 0.3 * k)
            after = (label[i] + 1) % 10 if held else label[i]
            row = point | {"clip": ids[i], "attack": attack, "label": label[i], "target": 3}
            row |= {"before": label[i], "after": after, "fooled": bool(held), "reached": bool(held)}
            row |= {"confidence": 0.8, "l0": 9, "l2": norm, "linf": 0.1, "rms": norm / 90}
            row |= {"iterations": 10 * (k + 1), "forwards": 10, "backwards": 20 if robust else 10}
            rows.append(row | {"queries": 100 if attack == "PIA" else 0, "rung": 1, "budget": 1.0})
    return rows
