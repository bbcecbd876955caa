"""Our attacks beside Foolbox's, torchattacks' and ART's: ``python -m tests.bench.attacks``.

One trained victim, the same clips, targets and hyper-parameters, one process, one thread; seconds are of
this process's CPU, so that a busy machine changes them little. Success and norm are measured by us on what
each side returns. The rows go to ``build/bench/attacks.json``. torchattacks and ART are extras
(``tests/bench/requirements.txt``); what does not import is left out and said so.
"""

import argparse
import importlib.metadata
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import foolbox
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib import attacks, files, models, store, study
from lib.data import manifest, splits

POINTS = ("esc10/dwt/resnet18/1/standard", "demo/dwt/resnet18/1/standard")
STEPS, STEP, EPSILON = 40, 1 / 255, 6.0  # of BIM: cap, ζ, ‖δ‖₂
SEARCHES, ADAM = 4, 100  # of CWA: values of c that Foolbox tries, steps for each; ours begins at its third
LINEARISATIONS, CANDIDATES = 50, 10  # of DeepFool
THETA, FEATURES = 1.0, 200  # of JSMA: displacement, most steps
QUERIES, SAMPLES, SIGMA, BALL = 2000, 50, 0.01, 0.05  # of NES: cap, probes, σ, ℓ∞ ε
REACH = {("bim-a", "foolbox"): 2.5, ("deepfool", "foolbox"): 2.5, ("cwa", "foolbox"): 1.5}
REACH |= {("jsma", "one pass a class"): 3.5, ("jsma, 50 classes", "one pass a class"): 12.0}
REACH |= {("pia", "bare loop"): 1.0}  # of the seconds a query
FARTHER = 1.02  # of the peer's mean norm, at most


class SignedBIM(foolbox.attacks.L2BasicIterativeAttack):
    """Foolbox's BIM under ℓ2 with Eq. 1's sign in place of its normalised gradient."""

    def normalize(self, gradients, *, x, bounds):
        return gradients.sign()


def one_pass_a_class(net: nn.Module, x: torch.Tensor, target: torch.Tensor, steps: int) -> torch.Tensor:
    """JSMA by the whole Jacobian, one gradient a class, every clip to the end."""
    x = x.clone()
    for _ in range(steps):
        y = x.clone().requires_grad_()
        z = net(y)
        columns = [
            torch.autograd.grad(z[:, k].sum(), y, retain_graph=k + 1 < z.shape[1])[0].flatten(1)
            for k in range(z.shape[1])
        ]
        jacobian = torch.stack(columns, 1)
        towards = jacobian[range(len(x)), target]
        others = jacobian.sum(1) - towards
        saliency = towards * others.abs() * (towards > 0) * (others < 0) * (x.flatten(1) < 1)
        saliency *= (z.argmax(1) != target)[:, None]
        value, place = saliency.max(1)
        flat = x.flatten(1)
        flat[range(len(x)), place] += THETA * (value > 0)
        x = flat.clamp(0, 1).reshape(x.shape)
    return x


def loop_of_nes(
    net: nn.Module, x: torch.Tensor, target: torch.Tensor, step: float
) -> tuple[torch.Tensor, int]:
    """NES with PGD steps as one writes it first: clip by clip, its own losses, a look after each step."""
    found, queries, generator = x.clone(), 0, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for n in range(len(x)):
            y = x[n : n + 1].clone()
            for _ in range(QUERIES // (SAMPLES + 1)):
                queries += 1
                if int(net(y).argmax()) == int(target[n]):
                    break
                u = torch.randn(SAMPLES // 2, *x.shape[1:], generator=generator)
                loss = cross_entropy(
                    net(torch.cat([y + SIGMA * u, y - SIGMA * u])),
                    target[n].repeat(SAMPLES),
                    reduction="none",
                )
                queries += SAMPLES
                plus, minus = loss.chunk(2)
                g = ((plus - minus).reshape(-1, 1, 1, 1) * u).mean(0, keepdim=True)
                y = (x[n] + (y - step * g.sign() - x[n]).clamp(-BALL, BALL)).clamp(0, 1)
            found[n] = y[0]
    return found, queries


def verdict(row: dict) -> str:
    """Whether a row is as fast as asked, fools no fewer, goes no farther; nothing where nothing is asked."""
    reach = REACH.get((row["what"], row["peer"]))
    if reach is None:
        return ""
    ratio = row["ratio a pass" if row["what"] == "pia" else "ratio"]
    missed = []
    if ratio < reach:
        missed.append(f"{ratio:.2f}x of {reach:g}x")
    if row["our success"] < row["their success"]:
        missed.append("fewer fooled")
    # The black box is held to its budget; how far it goes within it is not its aim.
    if row["what"] != "pia" and row["our norm"] > FARTHER * row["their norm"] > 0:
        missed.append(f"norm {row['our norm'] / row['their norm']:.3f}x of {FARTHER}x")
    return f"MISSED ({', '.join(missed)})" if missed else f"holds ({ratio:.2f}x of {reach:g}x)"


class Bench:
    """The victim, the clips, and the rows so far."""

    def __init__(self, net: nn.Module, x: torch.Tensor, label: torch.Tensor, target: torch.Tensor):
        self.net, self.x, self.label, self.target = net, x, label, target
        self.victim = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        self.rows: list[dict] = []

    def take(self, run: Callable[[], torch.Tensor], wanted: str = "target", n: int = 0) -> dict[str, float]:
        """Seconds a clip, success, mean ‖δ‖₂ of the fooled, and images passed a clip."""
        x, passes = self.x[: n or None], [0]
        handle = self.net.register_forward_hook(
            lambda module, args, out: passes.__setitem__(0, passes[0] + len(out))
        )
        began = time.process_time()
        found = run()
        seconds = time.process_time() - began
        handle.remove()
        found = torch.as_tensor(np.asarray(found.detach() if torch.is_tensor(found) else found)).float()
        with torch.no_grad():
            after = self.net(found.clamp(0, 1)).argmax(1)
        fooled = after == self.target[: len(x)] if wanted == "target" else after != self.label[: len(x)]
        norm = (found - x).flatten(1).norm(dim=1)
        return {
            "seconds": seconds / len(x),
            "success": float(fooled.float().mean()),
            "norm": float(norm[fooled].mean()) if fooled.any() else float("nan"),
            "passes": passes[0] / len(x),
        }

    def against(self, what: str, ours: dict[str, float], peer: str, theirs: dict[str, float]) -> None:
        ratio = theirs["seconds"] / ours["seconds"]
        row = {
            "what": what,
            "peer": peer,
            "ours": ours["seconds"],
            "theirs": theirs["seconds"],
            "ratio": ratio,
            "ratio a pass": ratio * ours["passes"] / theirs["passes"],
            "unit": "s a clip",
        }
        row |= {f"our {k}": ours[k] for k in ("success", "norm", "passes")}
        row |= {f"their {k}": theirs[k] for k in ("success", "norm", "passes")}
        for key, value in row.items():
            if isinstance(value, float) and not np.isfinite(value):
                row[key] = 0.0
        self.rows.append(row)
        said = verdict(row)
        print(
            f"{what:18} {peer:18} {ours['seconds']:8.3f} {theirs['seconds']:8.3f} {ratio:6.2f}x  success "
            f"{ours['success']:.2f} {theirs['success']:.2f}  norm {ours['norm']:.3f} {theirs['norm']:.3f}  "
            f"passes {ours['passes']:.0f} {theirs['passes']:.0f}" + (f"  {said}" if said else ""),
            flush=True,
        )


def peers(net: nn.Module, classes: int, shape: tuple[int, ...]) -> dict:
    """torchattacks and an ART classifier, where they import."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchattacks

            found["torchattacks"] = torchattacks
        except ImportError as error:
            print(f"without torchattacks: {error}")
        try:
            from art.attacks import evasion
            from art.estimators.classification import PyTorchClassifier

            classifier = PyTorchClassifier(
                net, nn.CrossEntropyLoss(), shape, classes, clip_values=(0.0, 1.0), device_type="cpu"
            )
            found["art"] = (evasion, classifier)
        except ImportError as error:
            print(f"without ART: {error}")
    return found


def bench(b: Bench, only: set[str], nes_clips: int) -> None:
    x, label, target, victim = b.x, b.label, b.target, b.victim
    goal, away = foolbox.TargetedMisclassification(target), foolbox.Misclassification(label)
    classes = int(b.net(x[:1]).shape[1])
    others = peers(b.net, classes, tuple(x.shape[1:]))
    ta = others.get("torchattacks")
    evasion, classifier = others.get("art", (None, None))
    one_hot = np.eye(classes, dtype=np.float32)[target.numpy()]

    if "bim" in only:
        plain = SignedBIM(abs_stepsize=STEP, steps=STEPS)
        theirs = {"foolbox": b.take(lambda: plain.run(victim, x, goal, epsilon=EPSILON))}
        if ta:
            made = ta.PGDL2(b.net, eps=EPSILON, alpha=EPSILON / 10, steps=STEPS, random_start=False)
            made.set_mode_targeted_by_label(quiet=True)
            theirs["torchattacks"] = b.take(lambda: made(x, target))
        if evasion:
            art = evasion.ProjectedGradientDescentPyTorch(
                classifier,
                norm=2,
                eps=EPSILON,
                eps_step=EPSILON / 10,
                max_iter=STEPS,
                targeted=True,
                verbose=False,
            )
            theirs["art"] = b.take(lambda: torch.as_tensor(art.generate(x.numpy(), one_hot)))
        for what, stop in (("bim-a", True), ("bim-b", False)):
            made_ours = attacks.BIM(step=STEP, steps=STEPS, stop_at_first=stop)
            ours = b.take(lambda made_ours=made_ours: made_ours.run(victim, x, goal, epsilon=EPSILON))
            for peer, taken in theirs.items():
                b.against(what, ours, peer, taken)
    if "deepfool" in only:
        ours = b.take(
            lambda: attacks.DeepFool(steps=LINEARISATIONS, candidates=CANDIDATES).run(victim, x, away),
            "wrong",
        )
        foolboxs = foolbox.attacks.L2DeepFoolAttack(steps=LINEARISATIONS, candidates=CANDIDATES)
        b.against("deepfool", ours, "foolbox", b.take(lambda: foolboxs.run(victim, x, away), "wrong"))
        if ta:
            made = ta.DeepFool(b.net, steps=LINEARISATIONS, overshoot=0.02)
            b.against("deepfool", ours, "torchattacks", b.take(lambda: made(x, label), "wrong"))
        if evasion:
            art = evasion.DeepFool(
                classifier,
                max_iter=LINEARISATIONS,
                epsilon=0.02,
                nb_grads=CANDIDATES,
                batch_size=len(x),
                verbose=False,
            )
            b.against(
                "deepfool", ours, "art", b.take(lambda: torch.as_tensor(art.generate(x.numpy())), "wrong")
            )
    if "cwa" in only:
        ours = b.take(lambda: attacks.CWA(c=10.0, steps=ADAM, search=ADAM).run(victim, x, goal))
        theirs = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=SEARCHES, steps=ADAM, stepsize=0.01, initial_const=1.0
        )
        b.against("cwa", ours, "foolbox", b.take(lambda: theirs.run(victim, x, goal)))
    if "jsma" in only:
        n = min(len(x), 4)
        few = foolbox.TargetedMisclassification(target[:n])
        ours = b.take(lambda: attacks.JSMA(theta=THETA, steps=FEATURES).run(victim, x[:n], few), n=n)
        reference = b.take(lambda: one_pass_a_class(b.net, x[:n], target[:n], FEATURES), n=n)
        b.against("jsma", ours, "one pass a class", reference)
        if evasion:
            art = evasion.SaliencyMapMethod(
                classifier, theta=THETA, gamma=FEATURES / x[0].numel(), batch_size=n, verbose=False
            )
            taken = b.take(lambda: torch.as_tensor(art.generate(x[:n].numpy(), one_hot[:n])), n=n)
            b.against("jsma", ours, "art", taken)
        wide = Bench(models.create("resnet18", 50, x.shape[2:]).eval(), x[:2], label[:2], target[:2] + 10)
        aim = foolbox.TargetedMisclassification(wide.target)
        ours = wide.take(lambda: attacks.JSMA(theta=0.01, steps=5).run(wide.victim, x[:2], aim))
        wide.against(
            "jsma, 50 classes",
            ours,
            "one pass a class",
            wide.take(lambda: one_pass_a_class(wide.net, x[:2], wide.target, 5)),
        )
        b.rows += wide.rows
    if "pia" in only:
        n = min(len(x), nes_clips)
        few, small = x[:n], foolbox.TargetedMisclassification(target[:n])
        made = attacks.NES(step=0.01, samples=SAMPLES, sigma=SIGMA, queries=QUERIES)
        ours = b.take(lambda: made.run(victim, few, small, epsilon=BALL), n=n)
        b.against("pia", ours, "bare loop", b.take(lambda: loop_of_nes(b.net, few, target[:n], 0.01)[0], n=n))
        estimator = foolbox.gradient_estimators.es_gradient_estimator(
            foolbox.attacks.LinfBasicIterativeAttack, samples=SAMPLES, sigma=SIGMA, bounds=(0, 1), clip=False
        )
        theirs = estimator(abs_stepsize=0.01, steps=QUERIES // (SAMPLES + 1))

        def sum_of_losses():
            with torch.no_grad():
                return theirs.run(victim, few, small, epsilon=BALL)

        b.against("pia", ours, "foolbox", b.take(sum_of_losses, n=n))


def clips(point: str, build: str, n: int) -> Bench:
    """The victim of a point, and the first ``n`` tested clips that it names rightly."""
    cell = study.Cell(build, *point.split("/"))
    net = models.load(cell.path("model.safetensors"))
    for weight in net.parameters():
        weight.requires_grad_(True)  # as a peer meets it
    catalogue = manifest.usable(cell)
    images = store.open(cell.up(1).path("store"), cell.representation)
    clean = cell.load("clean.parquet")
    right = clean[clean["predicted"] == clean["label"]].merge(
        catalogue.reset_index(names="position")[["clip", "position"]]
    )
    right = splits.choose(right, min(n, len(right)), 0)
    label = torch.tensor(right["label"].tolist())
    target = attacks.wrong_labels(label, catalogue["label"].nunique(), 0, list(right["clip"]))
    return Bench(net, images[np.array(right["position"]) * (len(images) // len(catalogue))], label, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--point", default="", help="a trained victim; the first of " + ", ".join(POINTS))
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument(
        "--nes-clips", type=int, default=64, help="clips of the black box, at 2000 queries each"
    )
    parser.add_argument("--only", default="bim,deepfool,cwa,jsma,pia")
    given = parser.parse_args()
    torch.set_num_threads(1)
    there = [p for p in POINTS if (Path(given.build) / p / "model.safetensors").is_file()]
    if not (given.point or there):
        raise SystemExit(
            f"no trained victim at {' or '.join(POINTS)} below {given.build}: run make demo first"
        )
    point, only = given.point or there[0], set(given.only.split(","))
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("foolbox", "torchattacks", "adversarial-robustness-toolbox"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    header = {"what": "header", "versions": versions, "threads": 1, "clips": given.clips, "victim": point}
    b = clips(point, given.build, given.clips)
    header |= {"size": list(b.x.shape[2:]), "nes clips": given.nes_clips}
    try:
        if only - {"pia"}:
            bench(b, only - {"pia"}, given.nes_clips)
        if "pia" in only:
            many = clips(point, given.build, given.nes_clips)
            bench(many, {"pia"}, given.nes_clips)
            b.rows += many.rows
    finally:
        path = files.save(Path(given.build) / "bench" / "attacks.json", [header, *b.rows])
        print(json.dumps(header), path)


if __name__ == "__main__":
    main()
