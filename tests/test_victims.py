"""Every one of the six networks learns, with the paper's defence, and is attacked by all six attacks."""

import foolbox
import numpy as np
import pandas as pd
import pytest
import torch

from lib import attacks, models, names, training

CLASSES, SIDE, CLIPS = 3, 32, 30


@pytest.fixture(scope="module")
def images():
    """Noise with a band of rows a class lighter: learnt at a glance."""
    x = 0.3 * torch.rand(CLIPS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for clip in range(CLIPS):
        x[clip, 0, 10 * (clip % CLASSES) : 10 * (clip % CLASSES) + 10] += 0.6
    return x


HEAVY = ("alexnet", "vgg16")  # 57 and 134 million weights, whatever the image


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in models.known()]
)
def test_a_network_learns_withstands_a_defence_and_is_attacked(name, images):
    side = max(SIDE, models.module(name).SMALLEST)
    x = torch.nn.functional.interpolate(images, (side, side))
    parts = ["train"] * 18 + ["validation"] * 6 + ["test"] * 6
    row = np.arange(CLIPS)
    split = pd.DataFrame({"row": row, "position": row, "label": row % CLASSES, "part": parts})
    victim = models.create(name, CLASSES, (side, side), seed=0)
    models.whiten(victim, x, row[:18])
    start = {key: value.clone() for key, value in victim.state_dict().items() if value.is_floating_point()}
    history = training.fit(
        victim,
        x,
        split,
        training.Recipe(
            training="adversarial", epochs=2, batch=9, learning_rate=0.001, pgd_clips=3, pgd_steps=2
        ),
    )
    assert np.isfinite(history.drop(columns="best").to_numpy(dtype=float)).all()
    still = [
        key for key, value in victim.state_dict().items() if key in start and torch.equal(value, start[key])
    ]
    assert not [key for key in still if key.endswith("weight")]
    label = models.predict(victim, x[-6:]).argmax(1)
    target = (label + 1) % CLASSES
    wrapped = foolbox.PyTorchModel(victim, bounds=(0, 1), device="cpu")
    few = {
        "bim_steps": 3,
        "bim_first": 0.02,
        "bim_rungs": 2,
        "bim_bisections": 1,
        "jsma_thetas": [1.0],
        "jsma_steps": 3,
        "deepfool_caps": [50],
        "cwa_cs": [10.0],
        "cwa_steps": [5],
        "cwa_search": 5,
        "ddn_steps": 4,
        "pia_steps": 1,
        "pia_samples": 4,
    }
    every = [*names.ATTACKS, *names.REFERENCE, *names.CONTROLS]
    ladders = attacks.ladders((side, side), only=every, **few)
    clips = [str(n) for n in range(6)]
    rows, examples = attacks.climb(wrapped, x[-6:], label, target, clips, ladders, starts=x[:6])
    assert rows.groupby("attack").size().to_dict() == dict.fromkeys(every, 6)
    assert rows.loc[rows["attack"] == "DeepFool", "fooled"].any()
    assert (rows["l2"] > 0).any()
    assert all(example.shape == x[-6:].shape for example in examples.values())
