"""What each saving of chapter 4 brings, and what it changes: ``python -m tests.bench.savings``.

The paper's plain procedure climbs every ladder from its foot, moves one value a step (JSMA) and walks to the
last step (PIA). Each saving runs beside it on the same clips of a standard and of a defended model of ESC-10,
by default with the paper's ladders. A gradient counts as three passes. ``norm`` is the median ‖δ‖₂ of the
clips that were fooled; ``ratio`` the median, over those that the plain procedure fooled as well, of a clip's
norm by its plain norm; ``share`` the passes beside the most that the ladder allows (``lib.grid.plan``). The
rows go to ``build/bench/savings.json``. Half an hour of one core.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import foolbox
import pandas as pd
import torch

from lib import attacks, files, models, names, store, study
from lib.data import manifest, splits
from lib.grid import plan, settings

PLAIN = {"brackets": False, "jsma_features": 1, "pia_samples": 50, "pia_patience": 0}
RUNS = [  # what is set, and for which attacks; DDN's norms say where the brackets of BIM begin
    ({}, [name for name in (*names.ATTACKS, *names.REFERENCE) if name != "PIA"]),
    ({"brackets": True}, ["BIM-a", "BIM-b", "JSMA", *names.REFERENCE]),
    *[({"brackets": True, "jsma_features": values}, ["JSMA"]) for values in (8, 16)],
    *[({"pia_patience": queries}, ["PIA"]) for queries in (0, 250, 500, 1000)],
    ({"pia_patience": 500, "pia_samples": 20}, ["PIA"]),
]


def points(build: str, model: str) -> list[study.Cell]:
    """The first standard model of ESC-10 whose defended one is finished too, and that one."""
    for path in sorted(Path(build).glob(f"esc10/*/{model}/*/adversarial/model.safetensors")):
        pair = [study.Cell(build, *path.parts[-6:-2], training) for training in ("standard", "adversarial")]
        if pair[0].path("model.safetensors").is_file():
            return pair
    raise SystemExit(f"no standard and adversarial {model} of ESC-10 below {build}")


def attacked(cell: study.Cell, values: dict, clips: int, walks: int) -> Iterator[pd.DataFrame]:
    """One row per clip and attack of each run; PIA attacks the first ``walks`` clips only."""
    model = models.load(cell.path("model.safetensors"))
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    catalogue = manifest.usable(cell).reset_index(names="position")
    images = store.open(cell.up(1).path("store"), cell.representation)
    tested = cell.load("clean.parquet").merge(catalogue[["clip", "position"]])
    tested = tested[tested["predicted"] == tested["label"]].reset_index(drop=True)
    place, named = tested["position"].to_numpy() * images.copies, torch.tensor(tested["label"].to_numpy())
    chosen = splits.choose(tested, clips)
    at, clip = torch.tensor(chosen.index), list(chosen["clip"])
    target = attacks.wrong_labels(named[at], catalogue["label"].nunique(), 0, clip)
    starts = attacks.starting_points(images, place, named, target, clip)
    x = images[place[at]]
    for given, asked in RUNS:
        chosen = values | PLAIN | given
        ladders = plan.ladders(chosen, images.size, asked)
        n = walks if asked == ["PIA"] else clips
        few = x[:n], named[at][:n], target[:n], clip[:n]
        rows, _ = attacks.climb(victim, *few, ladders, starts=starts[:n], brackets=chosen["brackets"])
        rows = plan.passed(rows)
        rows["share"] = rows["passes"] / rows["attack"].map({key: plan.most(ladders[key]) for key in asked})
        saving = ", ".join(f"{key} = {value}" for key, value in given.items() if value) or "plain"
        yield rows.assign(point=str(cell), saving=saving)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each point, attack and saving: clips, passes and share, success, norm and its ratio to the plain."""
    rows["norm"] = rows["l2"].where(rows["fooled"])
    plain = rows[rows["saving"] == "plain"].set_index(["point", "attack", "clip"])["norm"]
    plain = plain.reindex(pd.MultiIndex.from_frame(rows[["point", "attack", "clip"]])).to_numpy()
    grouped = rows.assign(ratio=rows["norm"] / plain).groupby(["point", "attack", "saving"], sort=False)
    return grouped.agg(
        clips=("clip", "size"),
        passes=("passes", "mean"),
        share=("share", "mean"),
        success=("fooled", "mean"),
        norm=("norm", "median"),
        ratio=("ratio", "median"),
    ).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--params", default="params/esc50", help="settings of the ladders")
    parser.add_argument("--model", default="resnet18", choices=models.known())
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--walks", type=int, default=1, help="clips of PIA, a plain walk of 30,000 queries")
    given = parser.parse_args()
    torch.set_num_threads(1)
    _, known, chosen = settings.of_chapter("04_attacks", Path(given.params))
    parts = []
    for cell in points(given.build, given.model):
        for part in attacked(cell, known | chosen, given.clips, given.walks):
            parts.append(part)
            print(summary(part).to_string(index=False, float_format="%.3g"), flush=True)
    found = summary(pd.concat(parts, ignore_index=True))
    print(found.to_string(index=False, float_format="%.3g"))
    print(files.save(Path(given.build, "bench", "savings.json"), found.to_dict("records")))


if __name__ == "__main__":
    main()
