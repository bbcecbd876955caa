"""Is the reference attack run long enough: ``python -m tests.bench.reference``.

Robust accuracy rests on DDN with 100 steps. It runs here with more, and beside it an attack of another kind,
projected gradient descent within the budget ε from several random starts. Every model of ESC-10 that
chapter 4 attacked is attacked again, on the same evaluated clips. ``robust`` is the share of these that stay
correct under the attack of the row, or under all rows (``together``), and ``norm`` the median ‖δ‖₂ of the
clips that DDN fooled. The rows go to ``build/bench/reference.json``.
"""

import argparse
from pathlib import Path

import foolbox
import numpy as np
import pandas as pd
import torch

from lib import attacks, files, metrics, models, store, study
from lib.analysis import published
from lib.attacks.judge import measure
from lib.data import manifest
from lib.training import pgd_correct

STEPS = (100, 400)  # of DDN; chapter 4 takes the first
PGD_STEPS, STARTS = 50, 3


def compare(cell: study.Cell) -> list[dict]:
    """The evaluated clips of one model under each attack."""
    names = cell.load("evaluated.csv")["clip"]
    clips = manifest.usable(cell).reset_index(names="position").set_index("clip").loc[names]
    images = store.open(cell.up(1).path("store"), cell.representation)
    rows = np.array(clips["position"]) * images.copies
    model = models.load(cell.path("model.safetensors")).eval()
    x, label = images[rows], torch.tensor(clips["label"].to_numpy())
    with torch.no_grad():
        right = (model(x).argmax(1) == label).numpy()
    budget = metrics.scaled_budget(published.BUDGET, (images.settings.bins, images.settings.frames))
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    found, stays = [], right.copy()

    def add(what: str, survives: np.ndarray, norm: float | None = None) -> None:
        found.append({"point": str(cell), "attack": what, "robust": survives.mean(), "norm": norm})

    for steps in STEPS:
        here, its = x[right], label[right]
        example = attacks.DDN(steps=steps).run(victim, here, foolbox.Misclassification(its))
        measured = measure(victim, here, example, foolbox.Misclassification(its))
        fooled, norm = measured["fooled"].numpy(), measured["l2"].numpy()
        survives = right.copy()
        survives[right] = ~(fooled & (norm <= budget))
        stays &= survives
        add(f"DDN, {steps} steps", survives, float(np.median(norm[fooled])))
    survives = right.copy()
    for seed in range(STARTS):
        survives &= pgd_correct(
            model, images, rows, label.numpy(), budget=budget, steps=PGD_STEPS, norm="l2", seed=seed
        )
    add(f"PGD, {PGD_STEPS} steps, {STARTS} starts", survives)
    add("together", stays & survives)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    given = parser.parse_args()
    torch.set_num_threads(1)
    there = sorted(Path(given.build).glob("esc10/*/*/*/*/evaluated.csv"))
    cells = [study.Cell(given.build, *path.parts[-6:-1]) for path in there]
    cells = [cell for cell in cells if cell.path("model.safetensors").is_file()]
    if not cells:
        raise SystemExit(f"no attacked model of ESC-10 with its weights below {given.build}")
    rows = []
    for cell in cells:
        rows += compare(cell)
        print(pd.DataFrame(rows[-len(STEPS) - 2 :]).to_string(index=False, float_format="%.3f"), flush=True)
    print(files.save(Path(given.build, "bench", "reference.json"), rows))


if __name__ == "__main__":
    main()
