"""CWA's search of c beside Carlini and Wagner's own: ``python -m tests.bench.norms``.

Ours are the norms that chapter 4 wrote at a point. Foolbox's ``L2CarliniWagnerAttack``, with 9 searches of
1000 steps, runs here on the first clips of the same rows towards the same targets; success and norm of its
examples are measured by us. The rows go to ``build/bench/norms.json``.
"""

import argparse
from pathlib import Path

import foolbox
import numpy as np
import pandas as pd
import torch

from lib import files, models, store, study
from lib.data import manifest

SEARCHES, STEPS = 9, 1000
FARTHER = 1.03  # of the peer's median norm, at most
CHEAPER = 0.1  # of its passes, at most
POINTS = ("esc10/dwt/resnet18/1/standard", "esc10/dwt/resnet18/1/adversarial")


class Counted(torch.nn.Module):
    """A model that counts the passes of each image."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += len(x) * (1 + x.requires_grad)
        return self.model(x)


def compare(cell: study.Cell, n: int) -> dict:
    """CWA beside the peer, on the first ``n`` attacked clips of a point."""
    rows = cell.load("attacks.parquet")
    clips = rows[rows["attack"] == "CWA"].head(n).set_index("clip")
    catalogue = manifest.usable(cell).reset_index(names="position").set_index("clip").loc[clips.index]
    images = store.open(cell.up(1).path("store"), cell.representation)
    x = images[np.array(catalogue["position"]) * images.copies]
    model = Counted(models.load(cell.path("model.safetensors"))).eval()
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    target = torch.tensor(clips["target"].to_numpy())
    made = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=SEARCHES, steps=STEPS)
    example = made.run(victim, x, foolbox.TargetedMisclassification(target))
    with torch.no_grad():
        reached = (model(example).argmax(1) == target).numpy()
    theirs = (example - x).flatten(1).norm(dim=1).numpy()
    both = np.array(clips["reached"]) & reached
    passes = float((clips["forwards"] + clips["backwards"]).mean())
    row = {"what": "cwa", "peer": "Foolbox's CW", "point": str(cell), "clips": len(x), "unit": "median ‖δ‖₂"}
    row |= {"ours": float(clips["l2"][both].median()), "theirs": float(np.median(theirs[both]))}
    row |= {"ratio": row["ours"] / row["theirs"], "success": float(clips["reached"].mean())}
    return row | {
        "their success": float(reached.mean()),
        "passes": passes,
        "their passes": model.passes / len(x),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--clips", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = [study.Cell(given.build, *point.split("/")) for point in POINTS]
    there = [cell for cell in cells if cell.path("attacks.parquet").is_file()]
    if not there:
        raise SystemExit(f"no attacked model at {' or '.join(POINTS)} below {given.build}")
    rows = [compare(cell, given.clips) for cell in there]
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"))
    for row in rows:
        near, cheap = row["ratio"] <= FARTHER, row["passes"] <= CHEAPER * row["their passes"]
        print(f"{row['point']}: within {FARTHER:g} × {near}, at {CHEAPER:g} of the passes {cheap}")
    print(files.save(Path(given.build, "bench", "norms.json"), rows))


if __name__ == "__main__":
    main()
