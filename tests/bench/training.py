"""What a training step of each defence costs, and what the fit loop adds: ``python -m tests.bench.training``.

ResNet-18 on 32 images of 64 × 128, one thread, seconds of this process's CPU, so that a busy machine
changes them little. Steps of a pair are taken in turn; a row holds the medians and the median of the
pairs' ratios. The rows go to ``build/bench/training.json``.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from lib import defences, files, models, training

IMAGES, SIZE, CLASSES = 32, (64, 128), 10
PAIRS = {"fgsm": 30, "fgsm-rs": 10, "pgd": 8, "trades": 6}
STEPS = 3  # of PGD and TRADES
REACH = {"fgsm": 1.85, "fgsm-rs": 1.85, "pgd": 1 + 0.75 * STEPS, "fit": 1.05, "memory": 1.1}
LOSSES = {"fgsm": "adversarial", "fgsm-rs": "fgsm_rs", "pgd": "pgd", "trades": "trades"}


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of no meaning: a step costs the same."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(IMAGES, 1, *SIZE, generator=draw)
    return x, torch.randint(0, CLASSES, (IMAGES,), generator=draw)


def stepper(name: str) -> Callable[[], None]:
    """One step of a training, its optimiser included, on a victim of its own."""
    victim = models.to(models.create("resnet18", CLASSES, SIZE), "cpu").train()
    optimiser = torch.optim.AdamW(victim.parameters(), lr=1e-4, fused=True)
    settings, (x, y) = defences.Settings(steps=STEPS), batch()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss, _ = defences.get(name)(victim, x, y, cross_entropy, settings)
        loss.backward()
        optimiser.step()

    return step


def plain_fgsm() -> Callable[[], None]:
    """The loop as it is usually written: crafted in training mode, gradients of everything."""
    victim = models.to(models.create("resnet18", CLASSES, SIZE), "cpu").train()
    optimiser = torch.optim.AdamW(victim.parameters(), lr=1e-4, fused=True)
    x, y = batch()

    def step() -> None:
        asked = x.clone().requires_grad_()
        cross_entropy(victim(asked), y).backward()
        crafted = (asked + 2 / 255 * asked.grad.sign()).clamp(0, 1).detach()
        optimiser.zero_grad(set_to_none=True)
        cross_entropy(victim(crafted), y).backward()
        optimiser.step()

    return step


def pairs(ours: Callable[[], None], theirs: Callable[[], None], count: int) -> list[tuple[float, float]]:
    """CPU seconds of both, taken in turn, after one warm-up each."""
    found = []
    for pair in range(count + 1):
        taken = []
        for step in (ours, theirs) if pair % 2 else (theirs, ours):
            begin = time.process_time()
            step()
            taken.append(time.process_time() - begin)
        found.append(tuple(taken if pair % 2 else taken[::-1]))
    return found[1:]


def row(what: str, peer: str, found: list[tuple[float, float]], unit: str = "s") -> dict:
    ours, theirs = (statistics.median(side) for side in zip(*found, strict=True))
    ratio = statistics.median(them / us for us, them in found)
    return {
        "what": what,
        "peer": peer,
        "ours": round(ours, 4),
        "theirs": round(theirs, 4),
        "ratio": round(ratio, 4),
        "unit": unit,
    }


def fit_loop(steps: int = 8, count: int = 4) -> list[tuple[float, float]]:
    """CPU seconds an image of ``fit`` and of a bare forward-backward loop without an optimiser."""
    n = steps * IMAGES
    draw = np.random.default_rng(0)
    stored = torch.from_numpy(draw.random((n + 2, 1, *SIZE), np.float32))
    label = draw.integers(0, CLASSES, n + 2)
    part = ["train"] * n + ["validation", "test"]
    split = pd.DataFrame({"row": np.arange(n + 2), "label": label, "part": part})
    fitted, bare = (models.to(models.create("resnet18", CLASSES, SIZE), "cpu") for _ in range(2))
    labels = torch.from_numpy(label)

    recipe = training.Recipe(epochs=1, batch=IMAGES, learning_rate=1e-4, pgd_clips=-1)

    def ours() -> None:
        training.fit(fitted, stored, split, recipe)

    def theirs() -> None:
        bare.train()
        for first in range(0, n, IMAGES):
            bare.zero_grad(set_to_none=True)
            cross_entropy(bare(stored[first : first + IMAGES]), labels[first : first + IMAGES]).backward()

    return [(us / n, them / n) for us, them in pairs(ours, theirs, count)]


MEMORY = """
import torch
from tests.bench import training as bench
torch.set_num_threads(1)
step = bench.stepper({name!r})
for _ in range(3):
    step()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def peak(name: str) -> float:
    """Peak resident memory in MiB of a process that takes three steps."""
    code = MEMORY.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--quick", action="store_true", help="two pairs of each, to see that it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    short = (lambda count: 2) if given.quick else (lambda count: count)
    rows = [
        {
            "what": "settings",
            "model": "resnet18",
            "images": IMAGES,
            "size": list(SIZE),
            "threads": 1,
            "steps": STEPS,
            "pairs": {name: short(count) for name, count in PAIRS.items()},
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
    ]
    clean = stepper("standard")
    for name, count in PAIRS.items():
        rows.append(row(name, "clean", pairs(stepper(LOSSES[name]), clean, short(count))))
    rows.append(row("fgsm", "plain loop", pairs(stepper("adversarial"), plain_fgsm(), short(8))))
    rows.append(row("fit", "bare loop", fit_loop(count=short(4)), "s an image"))
    rows.append(row("memory", "clean", [(peak("adversarial"), peak("standard"))], "MiB"))
    path = files.save(Path(given.build) / "bench" / "training.json", rows)
    for found in rows[1:]:
        reach = REACH.get(found["what"]) if found["peer"] in ("clean", "bare loop") else None
        verdict = (
            f"reach {reach:.2f}, {'holds' if 1 / found['ratio'] <= reach else 'MISSED'}" if reach else ""
        )
        print(
            f"{found['what']:8} {found['ours']:10.4f} {found['peer']:10} {found['theirs']:10.4f} "
            f"{found['unit']:10} costs {1 / found['ratio']:.3f} of it  {verdict}"
        )
    print(json.dumps(rows[0]))
    print(path)


if __name__ == "__main__":
    main()
