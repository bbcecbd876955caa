"""What one CUDA card does with the study: ``make bench-gpu``, unattended, in about two minutes.

Rates of gradients by the images and of training steps, by model and size; a cell of 100 clips by attack, with
the settings of ``params/esc10``; two clips at the paper's size by attack, with short ladders; clips a second
of chapter 2. Operations are those of convolutions and products; the card's peak is what a large product in
TF32 reaches on it. The rows go to ``build/bench/gpu.json``. ``--device cpu --quick`` runs the same code
without a card.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import foolbox
import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib import attacks, crafting, device, files, models, names, store, training
from lib.grid import settings

SIZES = {(64, 128): 100, (768, 1568): 4}  # rows × frames: clips of a gradient
STEPS = {(64, 128): 16, (768, 1568): 8}  # images of a training step, as params has them
CLASSES = 10
REPEATS = 5
WORDS = ("bim", "jsma", "deepfool", "cwa", "pia")  # with which settings of attacks begin
SHORT = {  # at the paper's size, so that no attack takes a minute
    "jsma_steps": 100,
    "deepfool_caps": [100],
    "cwa_cs": [1.0, 7.0],
    "cwa_steps": [25, 100],
    "pia_steps": 40,
}


def seconds(work: Callable[[], object], where: torch.device, repeats: int) -> float:
    """The median time of the work, after two times that do not count."""
    taken = []
    for _ in range(repeats + 2):
        begin = time.perf_counter()
        work()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[2:])


def peak(where: torch.device, repeats: int) -> float:
    """Operations a second of a product of two large matrices in TF32."""
    side = 8192 if where.type == "cuda" else 512
    one = torch.rand(side, side, device=where)
    with device.computing("tf32"):
        return 2 * side**3 / seconds(lambda: one @ one, where, repeats)


def operations(name: str, size: tuple[int, int]) -> float:
    """Of one image's forward pass."""
    with FlopCounterMode(display=False) as counter:
        models.outline(name, CLASSES, 1).eval()(torch.empty(1, 1, *size, device="meta"))
    return counter.get_total_flops()


def gradients(where: torch.device, best: float, given: argparse.Namespace) -> Iterator[dict]:
    """The gradient by the images, as attacks ask for it."""
    for size, name in pairs(given):
        model = models.to(models.create(name, CLASSES, size), where).eval()
        count = min(SIZES[size], given.most)
        x = torch.rand(count, 1, *size, device=where)
        crafter = crafting.prepare(model, batch=count, say=print)

        def gradient(crafter=crafter, x=x) -> None:
            asked = x.detach().requires_grad_()
            torch.autograd.grad(crafter(asked).logsumexp(1).sum(), asked)

        taken = seconds(gradient, where, given.repeats)
        rate = 2 * operations(name, size) * count / taken
        row = {"what": "gradient", "size": size, "model": name, "clips": count}
        yield row | {"ms a clip": 1000 * taken / count, "Tflop/s": rate / 1e12, "share of peak": rate / best}


def trainings(where: torch.device, best: float, given: argparse.Namespace) -> Iterator[dict]:
    """Images a second in the last of three epochs."""
    for size, name in pairs(given):
        count = min(STEPS[size], given.most) * (128 if size == (64, 128) and not given.quick else 4)
        row = np.arange(count + 2)
        split = pd.DataFrame(
            {"row": row, "label": row % CLASSES, "part": ["train"] * count + ["validation", "test"]}
        )
        recipe = training.Recipe(epochs=3, batch=STEPS[size], pgd_clips=-1)
        history = training.fit(
            models.create(name, CLASSES, size),
            torch.rand(count + 2, 1, *size),
            split,
            recipe,
            device=where,
            say=said,
        )
        rate = history.attrs["images_per_second"][-1]
        share = 3 * operations(name, size) * rate / best
        yield {"what": "training", "size": size, "model": name, "batch": STEPS[size], "images/s": rate} | {
            "share of peak": share
        }


def said(line: str) -> None:
    """Print what is no line of an epoch."""
    if not line.startswith("epoch"):
        print(line)


def pairs(given: argparse.Namespace) -> Iterator[tuple[tuple[int, int], str]]:
    for size in list(SIZES)[: 1 if given.quick else 2]:
        for name in ["resnet56"] if given.quick else models.known():
            yield size, name


def cells(where: torch.device, best: float, given: argparse.Namespace) -> Iterator[dict]:
    """Chapter 4: 100 clips at 64 × 128, then two with short ladders at the paper's size, by attack."""
    few = settings.read("params/esc10/04_attacks.yaml")
    chosen = {key: value for key, value in few.items() if key.partition("_")[0] in WORDS}
    for size, count, options in (((64, 128), 100, chosen), ((768, 1568), 2, SHORT)):
        count = min(count, given.most)
        if given.quick and size != (64, 128):
            continue
        model = models.to(models.create("resnet18", CLASSES, size), where).eval()
        x = torch.rand(count, 1, *size)
        with torch.no_grad():  # an untrained model would give nearly all clips one class
            model.head.bias -= models.predict(model, x).mean(0).to(where)
        label = models.predict(model, x).argmax(1)
        start = torch.stack([(label != own).nonzero()[0, 0] for own in label])  # a clip of another class
        target = label[start]
        victim = foolbox.PyTorchModel(model, bounds=(0, 1), device=where)
        crafter = foolbox.PyTorchModel(crafting.prepare(model, batch=count), bounds=(0, 1), device=where)
        clips = [str(clip) for clip in range(count)]
        for name in names.ATTACKS:
            ladder = attacks.ladders(size, only=[name], **options)
            begin = time.perf_counter()
            rows, _ = attacks.climb(
                victim, x, label, target, clips, ladder, crafted=crafter, starts=x[start], batch=count
            )
            taken = time.perf_counter() - begin
            passes = rows[["forwards", "backwards", "queries"]].sum().sum()
            rate = passes * operations("resnet18", size) / taken
            row = {"what": "attack", "size": size, "attack": name, "clips": count, "s": taken}
            yield row | {"passes a clip": passes / count, "share of peak": rate / best}


def chapter2(where: torch.device, best: float, given: argparse.Namespace) -> Iterator[dict]:
    """Clips a second of preparing the scalograms, by as many processes as there are threads."""
    size = {"bins": 64, "frames": 128, "duration": 5.0, "stft_rate": 44100, "n_fft": 2048, "hop": 512}
    way = {
        "dwt_rate": 16000,
        "fmin": 60.0,
        "bandwidth": 2.0,
        "centre": 0.9549,
        "floor": -100.0,
        "factors": (),
    }
    count = 4 if given.quick else 200
    clips = pd.DataFrame({"clip": [str(clip) for clip in range(count)]})
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        store.write(
            folder, clips, "dwt", store.Settings(**size, **way, how="pitch"), waveform=noise, augment=same
        )
        yield {"what": "chapter 2", "clips/s": count / (time.perf_counter() - begin)}


def noise(row: object, rate: int, duration: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(round(rate * duration)).astype(np.float32)


def same(sound: np.ndarray, rate: int, factor: float, how: str) -> np.ndarray:
    return sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one small model, to see that it runs")
    given = parser.parse_args()
    given.repeats, given.most = (1, 4) if given.quick else (REPEATS, 1000)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("bench-gpu: there is no CUDA device", file=sys.stderr)
        return 1
    where = device.choose_device(given.device)
    card = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    best = peak(where, given.repeats)
    rows = [{"what": "settings", "card": card, "torch": torch.__version__, "peak Tflop/s": best / 1e12}]
    print(rows[0])
    for part in (gradients, trainings, cells, chapter2):
        for row in part(where, best, given):
            rows.append(row)
            shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
            print(", ".join(f"{key} {value}" for key, value in shown.items()), flush=True)
    print(files.save(Path(given.build) / "bench" / "gpu.json", rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
