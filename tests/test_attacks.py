"""The attacks: promises that all keep, closed forms on linear victims, and a written-out loop of each
equation. The last tests change one line of each update rule and ask whether all this would notice."""

import math
import sys
import types
from pathlib import Path

import foolbox
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib import attacks, names
from lib.attacks import accounting, bim, call, cwa, deepfool, fgsm, jsma, nes, noise, pia

ROWS, FRAMES, CLASSES = 8, 12, 5
VALUES = ROWS * FRAMES
ROUNDING = 2e-5  # of float32 sums over an image, with room


class Linear(nn.Module):
    """Z = Wx + b: every answer is known in closed form."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


class Curved(nn.Module):
    """A small smooth network, so that gradients differ from place to place."""

    def __init__(self, classes=CLASSES, gain=3.0, values=VALUES):
        super().__init__()
        self.classes = classes
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * values, classes)
            )
            for layer in self.layers:
                if hasattr(layer, "weight"):
                    nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)

    def forward(self, x):
        return self.layers(x - 0.5)


def wrap(net):
    return foolbox.PyTorchModel(net.eval(), bounds=(0, 1), device="cpu")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(n=6, seed=1):
    return torch.rand(n, 1, ROWS, FRAMES, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1


def linear(classes=CLASSES, seed=3):
    return Linear(draw(classes, VALUES, seed=seed) / VALUES**0.5)


def named(net, x):
    with torch.no_grad():
        return net(x).argmax(1)


def targets(label, classes=CLASSES):
    return attacks.wrong_labels(label, classes, 0, [f"clip {n}" for n in range(len(label))])


def l2(change):
    return change.flatten(1).norm(dim=1)


def starts_for(net, target, seed=11):
    """For each target an image that the net names so."""
    pool = torch.rand(4000, 1, ROWS, FRAMES, generator=torch.Generator().manual_seed(seed))
    found = named(net, pool)
    return torch.stack([pool[(found == wanted).nonzero()[0, 0]] for wanted in target])


# Every attack, small, and so that the clips of a batch end at different steps.
MAKE = {
    "DDN": lambda a: a.DDN(steps=20),
    "BIM-a": lambda a: a.BIM(step=0.02, steps=30),
    "BIM-b": lambda a: a.BIM(step=0.02, steps=30, stop_at_first=False),
    "JSMA": lambda a: a.JSMA(theta=0.5, steps=200),
    "DeepFool": lambda a: a.DeepFool(steps=30),
    "CWA": lambda a: a.CWA(c=10.0, steps=60, step=0.02),
    "PIA": lambda a: a.PIA(steps=8, samples=12, sigmas=(0.01, 0.03), decay=0.01, floor=0.1),
    "NES": lambda a: a.NES(step=0.05, samples=20, queries=1000),
    "FGSM": lambda a: a.FGSM(),
    "noise": lambda a: a.Noise(seed=3),
}
FIXED = ("BIM-a", "BIM-b", "NES", "FGSM", "noise")


def attack(name, net, x, criterion, epsilon=1.0, made=None, **kwargs):
    made = made or MAKE[name](attacks)
    extra = {"starting_points": starts_for(net, criterion.target_classes.raw)} if name == "PIA" else {}
    extra |= kwargs
    epsilons = epsilon if name in FIXED else None
    _, clipped, success = made(wrap(net), x, criterion, epsilons=epsilons, **extra)
    return clipped, success


def goals(net, x):
    label = named(net, x)
    return label, foolbox.TargetedMisclassification(targets(label))


def test_every_listed_attack_is_promised_here():
    every = [*names.ATTACKS, *names.CONTROLS, *names.REFERENCE]
    made = attacks.ladders((8, 12), only=every)
    assert list(made) == every
    listed = {type(rung.attack) for ladder in made.values() for rung in ladder.rungs}
    assert listed <= {type(make(attacks)) for make in MAKE.values()}


# --- promises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKE)
def test_the_input_is_untouched_and_the_example_in_range(name):
    net, x = Curved(), images()
    x[0, 0, 0] = 0.0
    x[1, 0, 0] = 1.0
    before = x.clone()
    _, criterion = goals(net, x)
    example, success = attack(name, net, x, criterion, epsilon=3.0)
    assert torch.equal(x, before)
    assert example.shape == x.shape
    assert example.dtype == torch.float32
    assert success.shape == (len(x),)
    assert (example >= 0).all()
    assert (example <= 1).all()
    assert (example != x).any()


@pytest.mark.parametrize("name", MAKE)
def test_success_is_what_the_victim_says_of_the_example(name):
    net, x = Curved(), images()
    _, criterion = goals(net, x)
    example, success = attack(name, net, x, criterion, epsilon=0.4)
    assert torch.equal(success, named(net, example) == criterion.target_classes.raw)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("epsilon", [0.05, 0.7])
def test_the_example_is_within_its_budget(name, epsilon):
    net, x = Curved(), images()
    x[:, 0, 0] = 0.0  # where clipping to the bounds takes from the change
    _, criterion = goals(net, x)
    raw, _, _ = MAKE[name](attacks)(wrap(net), x, criterion, epsilons=epsilon)
    measure = MAKE[name](attacks).distance
    assert (measure(x, raw) <= epsilon * (1 + ROUNDING)).all()


@pytest.mark.parametrize("name", FIXED)
def test_a_budget_of_nothing_changes_nothing(name):
    net, x = Curved(), images()
    _, criterion = goals(net, x)
    raw, _, _ = MAKE[name](attacks)(wrap(net), x, criterion, epsilons=0.0)
    assert torch.equal(raw, x)


@pytest.mark.parametrize("name", MAKE)
def test_the_same_call_gives_the_same_bits(name):
    net, x = Curved(), images()
    _, criterion = goals(net, x)
    torch.manual_seed(0)
    first, _ = attack(name, net, x, criterion)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again, _ = attack(name, net, x, criterion)
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state()), "an attack draws from the global generator"


@pytest.mark.parametrize("name", MAKE)
def test_neither_batch_nor_order_matters(name):
    net, x = Curved(), images(7)
    _, criterion = goals(net, x)
    start = starts_for(net, criterion.target_classes.raw)
    kwargs = {"starting_points": start} if name == "PIA" else {}
    together, _ = attack(name, net, x, criterion, **kwargs)
    order = torch.tensor([4, 2, 6, 0])
    kwargs = {"starting_points": start[order]} if name == "PIA" else {}
    others = foolbox.TargetedMisclassification(criterion.target_classes.raw[order])
    apart, _ = attack(name, net, x[order], others, **kwargs)
    torch.testing.assert_close(apart, together[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MAKE)
def test_a_linear_victim_falls_to_a_large_budget(name):
    if name in ("FGSM", "noise"):
        pytest.skip("one step and no direction are controls")
    net, x = linear(), images()
    _, criterion = goals(net, x)
    _, success = attack(name, net, x, criterion, epsilon=5.0 if name != "NES" else 0.5)
    assert success.all()


@pytest.mark.parametrize("name", ["BIM-a", "BIM-b", "FGSM", "noise"])
def test_more_budget_never_fools_fewer(name):
    net, x = linear(), images(12)
    _, criterion = goals(net, x)
    epsilons = [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]
    _, _, success = MAKE[name](attacks)(wrap(net), x, criterion, epsilons=epsilons)
    rate = success.float().mean(1)
    assert (rate.diff() >= 0).all()
    assert name == "noise" or rate[-1] > rate[0]


def test_many_steps_beat_one_and_one_beats_noise():
    net, x = Curved(gain=8.0), images(64)  # curved enough for one step to miss
    _, criterion = goals(net, x)
    budgets = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    rate = dict.fromkeys(("BIM-b", "FGSM", "noise"), 0.0)
    for name in rate:
        for budget in budgets:
            epsilon = budget / VALUES**0.5 if name == "FGSM" else budget
            _, success = attack(name, net, x, criterion, epsilon=epsilon)
            rate[name] += float(success.float().mean())
    assert rate["BIM-b"] > rate["FGSM"] > rate["noise"]


@pytest.mark.parametrize("name", [name for name in MAKE if name != "noise"])
def test_untargeted_criteria_are_honoured(name):
    net, x = Curved(), images()
    label = named(net, x)
    made, criterion = MAKE[name](attacks), foolbox.Misclassification(label)
    kwargs = {"starting_points": starts_for(net, targets(label))} if name == "PIA" else {}
    _, example, success = made(wrap(net), x, criterion, epsilons=1.5 if name in FIXED else None, **kwargs)
    assert torch.equal(success, named(net, example) != label)
    assert success.float().mean() > (0.5 if name in ("FGSM", "NES") else 0.99)


@pytest.mark.parametrize("name", MAKE)
def test_other_bounds_are_honoured(name):
    """The same victim with its images in [−2, 4] gives the same examples, moved there."""
    net, x = Curved(), images()
    _, criterion = goals(net, x)
    wide = wrap(net).transform_bounds((-2, 4))
    made = MAKE[name](attacks)
    if name in FIXED:
        pytest.skip("a fixed ε and a step have the unit of the bounds")
    kwargs = {"starting_points": starts_for(net, criterion.target_classes.raw)} if name == "PIA" else {}
    if name == "PIA":
        kwargs["starting_points"] = kwargs["starting_points"] * 6 - 2
    raw, _, success = made(wide, x * 6 - 2, criterion, epsilons=None, **kwargs)
    assert success.all()
    assert raw.min() >= -2
    assert raw.max() <= 4
    if name in ("JSMA", "DeepFool"):
        same, _ = attack(name, net, x, criterion)
        torch.testing.assert_close((raw + 2) / 6, same, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", MAKE)
def test_no_weight_is_touched_and_no_gradient_left(name):
    net, x = Curved(), images(2)
    before = [weight.clone() for weight in net.parameters()]
    _, criterion = goals(net, x)
    attack(name, net, x, criterion)
    assert all(torch.equal(now, then) for now, then in zip(net.parameters(), before, strict=True))
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize("name", MAKE)
def test_a_repr_is_settings_only(name):
    text = repr(MAKE[name](attacks))
    assert "tensor" not in text
    assert len(text) < 300


@pytest.mark.parametrize("name", MAKE)
def test_bad_input_is_refused_in_one_sentence(name):
    net, x = Curved(), images(2)
    _, criterion = goals(net, x)
    made = MAKE[name](attacks)
    extra = {"epsilon": 1.0} if name in FIXED else {}
    extra |= {"starting_points": x} if name == "PIA" else {}
    for bad, words in (
        (x + 1, "bounds"),
        (x.double(), "float32"),
        (x[:0], "no clip"),
        (x.numpy(), "PyTorch"),
    ):
        with pytest.raises(ValueError, match=words):
            made.run(wrap(net), bad, criterion, **extra)
    with pytest.raises(TypeError, match="unexpected"):
        made.run(wrap(net), x, criterion, **extra, nonsense=1)
    if name != "noise":
        both = foolbox.Misclassification(named(net, x)) & criterion
        with pytest.raises(ValueError, match="Misclassification"):
            made.run(wrap(net), x, both, **extra)

        class Broken(nn.Module):
            def forward(self, x):
                return net(x) * math.nan

        with pytest.raises(ValueError, match="not finite"):
            made.run(wrap(Broken()), x, criterion, **extra)


@pytest.mark.parametrize("name", MAKE)
def test_foolbox_s_call_refuses_bad_input_in_a_sentence_too(name):
    """Before Foolbox's own checks, which are assertions that name nothing."""
    net, x = Curved(), images(2)
    label, criterion = goals(net, x)
    extra = {"epsilons": 1.0 if name in FIXED else None}
    extra |= {"starting_points": x} if name == "PIA" else {}
    hurt = x.clone()
    hurt[0, 0, 0, 0] = math.nan
    for bad in (x + 1, hurt):
        with pytest.raises(ValueError, match="bounds"):
            MAKE[name](attacks)(wrap(net), bad, criterion, **extra)
    with pytest.raises(ValueError, match="no clip"):
        MAKE[name](attacks)(wrap(net), x[:0], criterion, **extra)
    for bad, words in (
        (label[:1], "one per clip"),
        (label.float(), "integers"),
        (label + CLASSES, r"0\.\.4"),
        (label * 0 - 100, "not -100"),
    ):
        for goal, found in (
            (bad, "labels"),
            (foolbox.Misclassification(bad), "labels"),
            (foolbox.TargetedMisclassification(bad), "target_classes"),
        ):
            with pytest.raises(ValueError, match=f"{found} .*{words}"):
                MAKE[name](attacks)(wrap(net), x, goal, **extra)


@pytest.mark.parametrize("name", MAKE)
def test_labels_are_integers_of_any_type(name):
    net, x = Curved(), images(3)
    label, criterion = goals(net, x)
    target = criterion.target_classes.raw
    extra = {"epsilons": 1.0 if name in FIXED else None}
    if name == "PIA":
        extra["starting_points"] = starts_for(net, target)
    for make, classes in (
        (lambda classes: classes, label),
        (foolbox.TargetedMisclassification, target),
        (attacks.Confident, target),
    ):
        plain, _, held = MAKE[name](attacks)(wrap(net), x, make(classes), **extra)
        for kind in (torch.uint8, torch.int16, torch.int32):
            other, _, also = MAKE[name](attacks)(wrap(net), x, make(classes.to(kind)), **extra)
            assert torch.equal(plain, other), kind
            assert torch.equal(held, also), kind


def test_starting_points_that_do_not_fit_are_refused():
    net, x = Curved(), images(2)
    _, criterion = goals(net, x)
    for bad, words in ((x.double(), "float64"), (x[:1], "shape"), (x + 1, "are in"), (x / 0, "are in")):
        with pytest.raises(ValueError, match=f"starting_points .*{words}"):
            attacks.PIA()(wrap(net), x, criterion, epsilons=None, starting_points=bad)


def test_foolbox_s_contract_is_kept():
    import eagerpy

    net, x = Curved(), images(3)
    label, _ = goals(net, x)
    made = attacks.BIM(step=0.02, steps=10)
    raw, clipped, success = made(wrap(net), eagerpy.astensor(x), label, epsilons=[0.1, 1.0])
    assert len(raw) == len(clipped) == 2
    assert all(isinstance(found, eagerpy.PyTorchTensor) for found in (*raw, *clipped, success))
    again, _, _ = made.repeat(2)(wrap(net), x, label, epsilons=[0.1, 1.0])
    assert all(torch.equal(one, other.raw) for one, other in zip(again, raw, strict=True))


def test_a_step_of_bim_is_a_share_of_the_bounds():
    net, x = Curved(), images(3)
    label = named(net, x)
    wide = foolbox.PyTorchModel(nn.Sequential(Scaled(), net).eval(), bounds=(0, 255), device="cpu")
    made = attacks.BIM(step=1 / 255, steps=1, stop_at_first=False)
    example = made.run(wide, x * 255, foolbox.Misclassification(label), epsilon=1e6)
    torch.testing.assert_close((example - x * 255).abs().amax(), torch.tensor(1.0), atol=1e-4, rtol=0)


class Scaled(nn.Module):
    def forward(self, x):
        return x / 255


BAD = [
    (lambda: attacks.BIM(step=0), "step"),
    (lambda: attacks.BIM(steps=0), "steps"),
    (lambda: attacks.JSMA(theta=0.0), "theta"),
    (lambda: attacks.JSMA(change="both"), "change"),
    (lambda: attacks.BIM(steps=2.5), "steps = 2.5 must be a whole"),
    (lambda: attacks.JSMA(features=1.5), "features = 1.5 must be a whole"),
    (lambda: attacks.DeepFool(candidates=1), "candidates"),
    (lambda: attacks.DeepFool(overshoot=-0.1), "overshoot"),
    (lambda: attacks.DeepFool(overshoot=math.nan), "overshoot"),
    (lambda: attacks.NES(momentum=1.5), "momentum"),
    (lambda: attacks.NES(samples=50, queries=50), "queries"),
    (lambda: attacks.PIA(queries=1), "queries"),
    (lambda: attacks.CWA(confidence=-1), "confidence"),
    (lambda: attacks.CWA(c=0), "c = 0 must"),
    (lambda: attacks.CWA(confidence=math.nan), "confidence"),
    (lambda: attacks.CWA(search=1.5), "search = 1.5 must be a whole"),
    (lambda: attacks.PIA(samples=3), "samples = 3 must be a multiple of 2"),
    (lambda: attacks.PIA(rates=(0.6, 0.001)), "rates"),
    (lambda: attacks.PIA(queries=-1), "queries"),
    (lambda: attacks.NES(samples=5), "samples = 5 must be a multiple of 2"),
    (lambda: attacks.Confident(torch.zeros(1), 1.5), "probability"),
    (lambda: attacks.wrong_labels(torch.tensor([0]), 1, 0, ["a"]), "at least 2"),
    (lambda: attacks.wrong_labels(torch.tensor([5]), 5, 0, ["a"]), r"0\.\.4"),
    (lambda: attacks.ladders((8, 8), only=["BIM"]), "'BIM' is in none of"),
    (lambda: attacks.ladders((8, 8), only=["BIM-a"], bim_stepz=3), "bim_stepz"),
    (lambda: attacks.ladders((8, 8), only=["CWA"], cwa_cs=[1.0]), "paired"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_a_bad_setting_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# --- closed forms on linear victims, and written-out loops ------------------------------------------
# Each check takes the attacks as a namespace, so that the mutants below can be put in their place.


def check_bim_is_equation_1(a):
    net, x = Curved(), images()
    label, criterion = goals(net, x)
    target = criterion.target_classes.raw
    for goal, sign, classes in ((criterion, -1, target), (foolbox.Misclassification(label), 1, label)):
        for stop in (False, True):
            made = a.BIM(step=0.03, steps=12, stop_at_first=stop)
            example = made.run(wrap(net), x, goal, epsilon=0.35)
            for n in range(len(x)):
                y, last = x[n : n + 1].clone(), None

                def hits(y, n=n, sign=sign):
                    found = int(named(net, y))
                    return found == int(target[n]) if sign < 0 else found != int(label[n])

                for _ in range(12):
                    last = y if hits(y) else last
                    if stop and hits(y):
                        break
                    y.requires_grad_(True)
                    (g,) = torch.autograd.grad(cross_entropy(net(y), classes[n : n + 1]), y)
                    y = y.detach() + sign * 0.03 * g.sign()
                    change = y - x[n]
                    y = x[n] + change * min(1, 0.35 / float(change.norm()))
                    y = y.clamp(0, 1)
                y = y if hits(y) or last is None else last
                torch.testing.assert_close(example[n], y[0], atol=1e-5, rtol=0)


def check_bim_takes_one_budget_a_clip(a):
    net, x = Curved(), images(3)
    _, criterion = goals(net, x)
    made = a.BIM(step=0.03, steps=12, stop_at_first=False)
    example = made.run(wrap(net), x, criterion, epsilon=torch.tensor([0.0, 0.1, 0.3]))
    torch.testing.assert_close(l2(example - x), torch.tensor([0.0, 0.1, 0.3]), atol=1e-4, rtol=0)


def check_bim_b_returns_the_last_iterate_that_holds(a):
    """On a victim whose decision alternates, the goal holds at some iterates and not at the last."""
    w = draw(VALUES, seed=4)

    class Wave(nn.Module):
        def forward(self, x):
            z = 40 * (x.flatten(1) - 0.5) @ w / VALUES
            return torch.stack([z.sin(), -z.sin()], 1)

    net, x = Wave(), images(8)
    label = named(net, x)
    for steps in (5, 6, 7, 8):
        made = a.BIM(step=0.1, steps=steps, stop_at_first=False)
        with attacks.counting() as ledger:
            example = made.run(wrap(net), x, label, epsilon=100.0)
        first = a.BIM(step=0.1, steps=steps).run(wrap(net), x, label, epsilon=100.0)
        assert ((named(net, first) != label) <= (named(net, example) != label)).all()
        assert ledger["forwards"].tolist() == [steps + 1] * len(x)


def check_bim_a_stops_where_the_target_is_confident(a):
    net, x = linear(), images()
    _, criterion = goals(net, x)
    target = criterion.target_classes.raw
    confident = attacks.Confident(target, 0.75)
    with attacks.counting() as ledger:
        example = a.BIM(step=0.01, steps=200).run(wrap(net), x, confident, epsilon=50.0)
    probability = net(example).softmax(1)[range(len(x)), target]
    assert (probability >= 0.75).all()
    assert (probability < 0.80).all(), "it went on beyond the confidence"
    assert (ledger["iterations"] < 200).all()
    assert len(set(ledger["iterations"].tolist())) > 1, "everyone left at once"
    assert torch.equal(ledger["forwards"], ledger["iterations"] + 1)
    full = a.BIM(step=0.01, steps=20, stop_at_first=False)
    with attacks.counting() as ledger:
        full.run(wrap(net), x, confident, epsilon=50.0)
    assert set(ledger["iterations"].tolist()) == {20}


def check_fgsm_is_one_signed_step(a):
    net, x = Curved(), images()
    label, criterion = goals(net, x)
    for goal, sign, classes in (
        (criterion, -1, criterion.target_classes.raw),
        (foolbox.Misclassification(label), 1, label),
    ):
        y = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(net(y), classes, reduction="sum"), y)
        expected = (x + sign * 0.2 * g.sign()).clamp(0, 1)
        assert torch.equal(a.FGSM().run(wrap(net), x, goal, epsilon=0.2), expected)


def check_noise_has_the_norm_of_its_budget(a):
    net, x = linear(), images()
    x[:, 0, :4] = 0.0
    for epsilon in (0.3, 2.0):
        example = a.Noise(seed=1).run(wrap(net), x, named(net, x), epsilon=epsilon)
        torch.testing.assert_close(l2(example - x), torch.full((len(x),), epsilon), rtol=1e-3, atol=0)
    other = a.Noise(seed=2).run(wrap(net), x, named(net, x), epsilon=2.0)
    assert (example != other).any()
    assert not torch.equal(example[0] - x[0], example[1] - x[1]), "two clips have the same noise"


def check_deepfool_finds_the_nearest_plane(a):
    net, x = linear(), images(8)
    label = named(net, x)
    example = a.DeepFool(steps=50, candidates=0).run(wrap(net), x, foolbox.Misclassification(label))
    z, w = net(x).detach(), net.weight.detach()
    for n in range(len(x)):
        far = [
            float(z[n, label[n]] - z[n, k]) / float((w[k] - w[label[n]]).norm())
            for k in range(CLASSES)
            if k != label[n]
        ]
        assert float(l2(example - x)[n]) == pytest.approx(1.02 * min(far), rel=0.01)
        assert int(named(net, example[n : n + 1])) == min(
            (k for k in range(CLASSES) if k != label[n]),
            key=lambda k: float(z[n, label[n]] - z[n, k]) / float((w[k] - w[label[n]]).norm()),
        )


def check_deepfool_is_equation_4_again_and_again(a):
    net, x = Curved(), images()
    label, criterion = goals(net, x)
    for goal, candidates in ((foolbox.Misclassification(label), 4), (criterion, 4)):
        example = a.DeepFool(steps=25, candidates=candidates, overshoot=0.02).run(wrap(net), x, goal)
        for n in range(len(x)):
            aim = goal is criterion
            home = int(label[n])
            others = net(x[n : n + 1])[0].argsort(descending=True)[1:candidates].tolist()
            y, total = x[n : n + 1].clone(), torch.zeros(1, 1, ROWS, FRAMES)
            for _ in range(25):
                z = net(y)[0]
                target = int(criterion.target_classes.raw[n])
                if (int(z.argmax()) == target) if aim else (int(z.argmax()) != home):
                    break
                if aim:
                    others, home = [target], int(z.argmax())
                steps = []
                for k in others:
                    y.requires_grad_(True)
                    z = net(y)[0]
                    (w,) = torch.autograd.grad(z[k] - z[home], y)
                    distance = float((z[k] - z[home]).detach().abs() / w.norm())
                    steps.append((distance, (distance + 1e-4) * w / w.norm()))
                total = total + min(steps, key=lambda step: step[0])[1]
                y = (x[n] + 1.02 * total).clamp(0, 1).detach()
            torch.testing.assert_close(example[n], y[0], atol=1e-4, rtol=0)


def check_deepfool_leaves_a_clip_that_is_done(a):
    net, x = Curved(gain=12.0), images(8)
    label = named(net, x)
    with attacks.counting() as ledger:
        a.DeepFool(steps=25).run(wrap(net), x, foolbox.Misclassification(label))
    assert len(set(ledger["iterations"].tolist())) > 1
    # A pass a step, one to see that the clip is done, and at most one more when others were done.
    assert (ledger["forwards"] <= 2 * ledger["iterations"] + 1).all()
    assert (ledger["backwards"] <= (CLASSES - 1) * (ledger["iterations"] + 1)).all()


def check_deepfool_reaches_the_class_it_aims_at(a):
    net, x = Curved(), images(8)
    _, criterion = goals(net, x)
    example = a.DeepFool(steps=60).run(wrap(net), x, criterion)
    assert torch.equal(named(net, example), criterion.target_classes.raw)


def check_jsma_picks_the_largest_saliency(a):
    """One step on a linear victim against Eq. 2, feature by feature; a saturated feature is passed over."""
    net, x = linear(), images()
    _, criterion = goals(net, x)
    w, target = net.weight.detach(), criterion.target_classes.raw
    for change, sign in (("increase", 1.0), ("decrease", -1.0)):
        bound = 1.0 if sign > 0 else 0.0
        y = x.clone()
        for n in range(len(y)):
            saliency = []
            for i in range(VALUES):
                towards = sign * w[target[n], i]
                others = sign * sum(w[j, i] for j in range(CLASSES) if j != target[n])
                saliency.append(float(towards * abs(others)) if towards > 0 > others else 0.0)
            order = torch.tensor(saliency).argsort(descending=True)
            y[n].flatten()[order[0]] = bound  # the best feature is used up
            expected = order[1]
            if int(named(net, y[n : n + 1])) == int(target[n]):
                continue
            one = a.JSMA(theta=0.05, steps=1, change=change).run(
                wrap(net), y[n : n + 1], foolbox.TargetedMisclassification(target[n : n + 1])
            )
            moved = (one[0] - y[n]).flatten()
            assert moved.nonzero()[:, 0].tolist() == [int(expected)]
            before = float(y[n].flatten()[expected])
            assert float(moved[expected]) == pytest.approx(
                min(max(before + sign * 0.05, 0.0), 1.0) - before, abs=1e-6
            )


def check_jsma_is_equations_2_and_3(a):
    """The whole attack against a loop with the full Jacobian."""
    net, x = Curved(), images(3)
    _, criterion = goals(net, x)
    target = criterion.target_classes.raw
    example = a.JSMA(theta=0.3, steps=40).run(wrap(net), x, criterion)
    for n in range(len(x)):
        y, t = x[n : n + 1].clone(), int(target[n])
        for _ in range(40):
            if int(named(net, y)) == t:
                break
            jacobian = torch.autograd.functional.jacobian(net, y).reshape(CLASSES, VALUES)
            towards, others = jacobian[t], jacobian.sum(0) - jacobian[t]
            saliency = towards * others.abs() * (towards > 0) * (others < 0) * (y.flatten() < 1)
            i = int(saliency.argmax())
            if saliency[i] <= 0:
                break
            y.flatten()[i] = min(1.0, float(y.flatten()[i]) + 0.3)
        torch.testing.assert_close(example[n], y[0], atol=1e-5, rtol=0)


def check_jsma_costs_two_gradients_a_step(a):
    for classes in (5, 50):
        net, x = Curved(classes), images(2)
        _, criterion = named(net, x), foolbox.TargetedMisclassification(targets(named(net, x), classes))
        with attacks.counting() as ledger:
            a.JSMA(theta=0.1, steps=6).run(wrap(net), x, criterion)
        assert (ledger["backwards"] <= 2 * (ledger["iterations"] + 1)).all()
        assert (ledger["backwards"] >= 2 * ledger["iterations"]).all()
        assert (ledger["forwards"] <= ledger["iterations"] + 1).all()


def check_cwa_comes_within_5_percent_of_the_plane(a):
    """Two classes: the nearest example lies on the one plane between them."""
    net, x = linear(classes=2), images(6)
    label = named(net, x)
    z, w = net(x).detach(), net.weight.detach()
    far = (z[:, 0] - z[:, 1]).abs() / (w[0] - w[1]).norm()
    for goal in (foolbox.TargetedMisclassification(1 - label), foolbox.Misclassification(label)):
        made = a.CWA(c=40.0, steps=150, step=0.02, search=100)
        example = made.run(wrap(net), x, goal)
        assert torch.equal(named(net, example), 1 - label)
        assert (l2(example - x) <= 1.05 * far).all()
        assert (l2(example - x) >= 0.999 * far).all()


def check_cwa_is_equations_5_to_7(a):
    """Adam as PyTorch has it, clip by clip, on the loss as it is written; a backward pass where ℒ pulls."""
    net, x = Curved(), images(4)
    _, criterion = goals(net, x)
    target = criterion.target_classes.raw
    made = a.CWA(c=3.0, steps=100, step=0.02, confidence=0.5, abort=False)
    example = made.run(wrap(net), x, criterion)
    for n in range(len(x)):
        t = int(target[n])
        with attacks.counting() as ledger:
            made.run(wrap(net), x[n : n + 1], foolbox.TargetedMisclassification(target[n : n + 1]))
        rho0 = torch.atanh((2 * x[n : n + 1] - 1) * 0.999999)
        origin = (rho0.tanh() + 1) / 2
        delta = torch.zeros_like(rho0, requires_grad=True)
        adam, best, least, pulls = torch.optim.Adam([delta], lr=0.02), x[n], math.inf, 0
        for _ in range(100):
            y = ((rho0 + delta).tanh() + 1) / 2
            z = net(y)[0]
            margin = max(z[j] for j in range(CLASSES) if j != t) - z[t]
            norm = float((y - x[n]).detach().norm())
            if float(margin.detach()) <= -0.5 and norm < least:
                best, least = y[0].detach(), norm
            pulls += float(margin.detach()) > -0.5
            loss = (y - origin).square().sum() + 3.0 * torch.clamp(margin, min=-0.5)
            adam.zero_grad()
            loss.backward()
            adam.step()
        torch.testing.assert_close(example[n], best, atol=2e-4, rtol=0)
        assert int(ledger["backwards"]) == pulls


def check_cwa_keeps_its_margin_and_returns_the_clip_on_failure(a):
    net, x = Curved(), images(6)
    _, criterion = goals(net, x)
    target = criterion.target_classes.raw
    example = a.CWA(c=20.0, steps=150, step=0.03, confidence=1.0).run(wrap(net), x, criterion)
    z = net(example).detach()
    lead = z[range(6), target] - z.scatter(1, target[:, None], -math.inf).amax(1)
    assert (lead >= 1.0 - 1e-4).all()
    failed = a.CWA(c=1.0, steps=20, confidence=1e4).run(wrap(net), x, criterion)
    assert torch.equal(failed, x)


def check_cwa_lets_a_clip_at_rest_leave(a):
    net, x = Curved(), images(6)
    _, criterion = goals(net, x)
    costs, norm = {}, {}
    for abort in (True, False):
        with attacks.counting() as ledger:
            example = a.CWA(c=5.0, steps=200, step=0.05, abort=abort).run(wrap(net), x, criterion)
        costs[abort], norm[abort] = ledger["iterations"], l2(example - x)
    assert set(costs[False].tolist()) == {200}
    assert (costs[True] < 200).any()
    assert (norm[True] <= 1.02 * norm[False]).all(), "a clip left before its loss had come to rest"
    assert (ledger["backwards"] < ledger["iterations"]).all(), "gradients were taken where they are zero"


def check_cwa_does_not_leave_before_values_leave_their_bound(a):
    """Half an image of silence: the loss stands still until its values are off their bound."""
    net, x = Curved(values=16 * 24), draw(4, 1, 16, 24, seed=6)
    x = x.sigmoid() * (x > 0)
    _, criterion = goals(net, x)
    norm = {
        abort: l2(a.CWA(c=5.0, steps=400, step=0.025, abort=abort).run(wrap(net), x, criterion) - x)
        for abort in (True, False)
    }
    assert norm[True].mean() <= 1.02 * norm[False].mean()
    assert (norm[True] <= 1.05 * norm[False]).all()


def check_cwa_returns_a_clip_that_fools_as_it_is(a):
    net, x = Curved(), images(4)
    label = named(net, x)
    for criterion in (
        foolbox.TargetedMisclassification(label),
        foolbox.Misclassification((label + 1) % CLASSES),
    ):
        for search in (0, 30):
            with attacks.counting() as ledger:
                example = a.CWA(steps=100, search=search).run(wrap(net), x, criterion)
            assert torch.equal(example, x)
            assert (ledger["forwards"] <= 2).all()


def check_cwa_leaves_where_the_loss_is_zero(a):
    """The target is named but not surely enough: no gradient will ever change that."""
    net, x = Curved(gain=0.1), images(4)
    criterion = attacks.Confident(named(net, x), 0.99)
    with attacks.counting() as ledger:
        a.CWA(steps=100).run(wrap(net), x, criterion)
    assert (ledger["iterations"] < 50).all()


def check_cwa_goes_on_where_one_gradient_is_not_finite(a):
    class Hurt(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            return torch.where((x[:, :1, :1, :1] > 0.95), math.nan, gradient)

    class Hurting(Curved):
        def forward(self, x):
            return super().forward(Hurt.apply(x))

    net, x = Curved(), images(4)
    x[1, 0, 0, 0] = 0.99
    _, criterion = goals(net, x)
    made = a.CWA(c=10.0, steps=100, step=0.02)
    example, whole = made.run(wrap(Hurting()), x, criterion), made.run(wrap(net), x, criterion)
    assert torch.equal(example[1], x[1])
    torch.testing.assert_close(example[[0, 2, 3]], whole[[0, 2, 3]], atol=1e-5, rtol=0)


def check_cwa_takes_images_of_any_shape(a):
    net, x = linear(), images(3)
    _, criterion = goals(net, x)
    made = a.CWA(c=10.0, steps=60, step=0.02)
    flat = made.run(wrap(net), x.flatten(1), criterion)
    torch.testing.assert_close(flat, made.run(wrap(net), x, criterion).flatten(1))


def check_nes_estimates_a_linear_loss(a):
    """In size as well as in sign: E ĝ = w, and the error falls as √(D/m)."""
    w = draw(4 * 6, seed=5).reshape(1, 4, 6)
    x = torch.full((2, 1, 4, 6), 0.5)
    state = call.Call(wrap(Linear(draw(2, 24))), x, torch.zeros(2, dtype=torch.int64))
    state.at_once = 4096
    state.forward = lambda probes, places, cost: (probes * w).flatten(1).sum(1, keepdim=True)
    generators = call.own_generators(x + torch.arange(2).reshape(2, 1, 1, 1) / 10, 0, "test")

    def known(logits, places):
        return logits[:, 0] * (1 + places), torch.ones(len(logits), dtype=torch.bool)

    sigma = torch.tensor([0.1, 0.01])
    found = a.estimate(state, x, state.everyone, known, sigma, generators, 10000)
    for n in range(2):
        error = (found[n] - (1 + n) * w).norm() / ((1 + n) * w).norm()
        assert error < 3 * (24 / 5000) ** 0.5
    # A pair that is not known on both sides counts for nothing, in the sum or in the number of pairs.

    def half(logits, places):
        return logits[:, 0], torch.arange(len(logits)) % 4 < 2

    state.at_once = 8
    one = a.estimate(state, x[:1], state.everyone[:1], half, sigma[:1], generators, 10000)
    assert float((one[0] - w).norm() / w.norm()) < 3 * (24 / 2500) ** 0.5


def others_over(logits, k):
    """The others' exponentials over that of class k, as a logarithm m; the cross-entropy is log(1 + e^m)."""
    rest = torch.cat([logits[:k], logits[k + 1 :]])
    return rest.logsumexp(0) - logits[k]


def check_nes_is_a_loop_over_pairs(a):
    net, x = Curved(), images(3)
    _, criterion = goals(net, x)
    target = criterion.target_classes.raw
    made = a.NES(step=0.03, samples=10, sigma=0.02, queries=56, seed=4)
    with attacks.counting() as ledger:
        example = made.run(wrap(net), x, criterion, epsilon=0.08)
    generators = call.own_generators(x, 4, "nes")
    for n in range(len(x)):
        y, spent = x[n : n + 1].clone(), 0
        for _ in range(56 // 11):
            spent += 1
            if int(named(net, y)) == int(target[n]):
                break
            g = torch.zeros_like(y)
            for _ in range(5):
                u = torch.randn(y.shape[1:], generator=generators[n])
                with torch.no_grad():
                    plus, minus = (
                        others_over(net(y + side * u)[0], int(target[n])) for side in (0.02, -0.02)
                    )
                g += (plus - minus) * u / (2 * 0.02 * 5)
                spent += 2
            y = (x[n] + (y - 0.03 * g.sign() - x[n]).clamp(-0.08, 0.08)).clamp(0, 1)
        torch.testing.assert_close(example[n], y[0], atol=1e-4, rtol=0)
        assert int(ledger["queries"][n]) == spent


MANY = 5000  # queries: more than any walk here takes, so that a mutant's ends too


def check_pia_keeps_the_target_and_shrinks_the_ball(a):
    net, x = Curved(), images(5)
    _, criterion = goals(net, x)
    target = criterion.target_classes.raw
    start = starts_for(net, target)
    made = a.PIA(steps=60, samples=20, sigmas=(0.01, 0.03), floor=0.01, queries=MANY)
    with attacks.counting() as ledger:
        example = made.run(wrap(net), x, criterion, starting_points=start)
    ball = (example - x).abs().flatten(1).amax(1)
    assert torch.equal(named(net, example), target)
    assert (ball < 0.5 * (start - x).abs().flatten(1).amax(1)).all()
    straight = torch.stack([edge(net, x[n], start[n], target[n]) for n in range(len(x))])
    assert (ball < 0.8 * straight).float().mean() > 0.7, "the estimate of the gradient was of no use"
    assert (ledger["queries"] > 0).all()
    assert (ledger["forwards"] + ledger["backwards"] == 0).all()


def edge(net, x, start, target):
    """How far the ball shrinks without any gradient: by halving alone."""
    low, high = 0.0, float((start - x).abs().max())
    for _ in range(20):
        middle = (low + high) / 2
        kept = int(named(net, (x + (start - x).clamp(-middle, middle))[None])) == int(target)
        low, high = (low, middle) if kept else (middle, high)
    return torch.tensor(high)


def check_pia_is_a_walk_written_out(a):
    """The walk of one clip, query by query."""
    net, x = Curved(), images(2)
    _, criterion = goals(net, x)
    start = starts_for(net, criterion.target_classes.raw)
    settings = {
        "steps": 6,
        "samples": 8,
        "sigmas": (0.01, 0.05),
        "floor": 0.02,
        "decay": 0.004,
        "rates": (0.002, 0.2),
    }
    with attacks.counting() as ledger:
        example = a.PIA(**settings, seed=5, queries=MANY).run(wrap(net), x, criterion, starting_points=start)
    for n in range(len(x)):
        best, queries = walk(net, x[n], start[n], int(criterion.target_classes.raw[n]), 5, **settings)
        torch.testing.assert_close(example[n], best, atol=1e-4, rtol=0)
        assert int(ledger["queries"][n]) == queries


def walk(net, x, start, target, seed, *, steps, samples, sigmas, floor, decay, rates):
    generator = call.own_generators(x[None], seed, "pia")[0]
    state = {"at": start, "best": start, "ball": float((start - x).abs().max()), "delta": decay, "queries": 0}
    rate, sigma, tuned = rates[1], sorted(sigmas)[len(sigmas) // 2], False

    def ask(image):
        state["queries"] += 1
        with torch.no_grad():
            score = net(image[None])[0].log_softmax(0)
        return float(score[target]), int(score.argmax()) == target

    def shrink(image, last=False):
        ball = min(max(state["ball"] - state["delta"], floor), state["ball"])
        image = (x + (image - x).clamp(-ball, ball)).clamp(0, 1)
        score, kept = ask(image)
        if kept and float((image - x).abs().max()) < float((state["best"] - x).abs().max()):
            state["best"] = image
        kept = kept and (last or score >= math.log(0.6) or score > state["score"])
        if kept:
            state.update(at=image, ball=ball, score=score)
        state["delta"] = max(state["delta"] * (2 if kept else 0.5), decay / 1024)
        return kept

    def ascent(sigma):
        g = torch.zeros_like(x)
        for _ in range(samples // 2):
            u = torch.randn(x.shape, generator=generator)
            (plus, seen), (minus, too) = ask(state["at"] + sigma * u), ask(state["at"] - sigma * u)
            g += (plus - minus) * u * (seen and too)
        return g.sign()

    def coast():
        while shrink(state["at"]) and state["ball"] > floor:
            pass

    state["score"], _ = ask(start)
    for _ in range(steps):
        coast()
        if state["ball"] <= floor:
            break
        if not tuned:
            gain = []
            for one in sigmas:
                own, kept = ask((state["at"] + rates[0] * ascent(one)).clamp(0, 1))
                gain.append(own if kept else -math.inf)
            sigma, tuned = sigmas[gain.index(max(gain))], True
        up = ascent(sigma)
        for _ in range(10):
            kept = shrink(state["at"] + rate * up)
            rate = min(max(rate * (2 if kept else 0.5), rates[0]), rates[1])
            if kept:
                break
    state["delta"] = max(state["delta"], decay)
    while state["ball"] > floor:
        shrink(state["at"], last=True)
        if state["delta"] <= decay / 1024:
            break
    return state["best"], state["queries"]


def check_pia_counts_and_keeps_to_its_queries(a):
    net, x = Curved(), images(4)
    _, criterion = goals(net, x)
    asked = []

    class Counting(nn.Module):
        def forward(self, y):
            asked.append(len(y))
            return net(y)

    made = a.PIA(steps=500, samples=10, sigmas=(0.01, 0.02), queries=150, floor=0.001)
    start = starts_for(net, criterion.target_classes.raw)
    with attacks.counting() as ledger:
        made.run(wrap(Counting()), x, criterion, starting_points=start)
    assert int(ledger["queries"].sum()) == sum(asked)
    assert (ledger["queries"] <= 150).all()
    assert (ledger["queries"] > 130).all()


def check_pia_returns_the_clip_where_the_start_is_not_the_target(a):
    net, x = Curved(), images(3)
    _, criterion = goals(net, x)
    start = starts_for(net, criterion.target_classes.raw)
    start[0], start[1] = torch.nan, 0.9 * x[1]
    assert int(named(net, start[1:2])) != int(criterion.target_classes.raw[1])
    with attacks.counting() as ledger:
        example = a.PIA(steps=3, samples=4, queries=MANY).run(wrap(net), x, criterion, starting_points=start)
    assert torch.equal(example[:2], x[:2])
    assert (ledger["queries"][:2] <= 2).all()
    assert not torch.equal(example[2], x[2])


CHECKS = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


def real():
    return types.SimpleNamespace(
        **{name: getattr(attacks, name) for name in attacks.__all__}, estimate=nes.estimate
    )


@pytest.mark.parametrize("name", CHECKS)
def test_check(name):
    CHECKS[name](real())


# --- against Foolbox ----------------------------------------------------------------------------------


def test_deepfool_agrees_with_foolbox():
    net, x = Curved(), images(12)
    label = named(net, x)
    ours = attacks.DeepFool(steps=50, candidates=4).run(wrap(net), x, foolbox.Misclassification(label))
    theirs = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=4).run(wrap(net), x, label)
    assert torch.equal(named(net, ours) != label, named(net, theirs) != label)
    torch.testing.assert_close(l2(ours - x), l2(theirs - x), rtol=0.02, atol=0)


def test_cwa_agrees_with_foolbox():
    net, x = Curved(), images(8)
    _, criterion = goals(net, x)
    with attacks.counting() as ledger:
        ours = attacks.CWA(c=10.0, search=100, steps=120).run(wrap(net), x, criterion)
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=5, stepsize=0.01, initial_const=0.1, abort_early=False, steps=120
    ).run(wrap(net), x, criterion)
    target = criterion.target_classes.raw
    assert torch.equal(named(net, ours) == target, named(net, theirs) == target)
    assert (l2(ours - x) <= 1.03 * l2(theirs - x)).all()
    assert (ledger["forwards"] <= 0.25 * 5 * 120).all()


def test_ddn_is_foolbox_s():
    net, x = Curved(), images(8)
    label, criterion = goals(net, x)
    for goal in (criterion, foolbox.Misclassification(label)):
        with attacks.counting() as ledger:
            ours = attacks.DDN(steps=50).run(wrap(net), x, goal)
        theirs = foolbox.attacks.DDNAttack(steps=50).run(wrap(net), x, goal)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        assert ledger["forwards"].tolist() == ledger["backwards"].tolist() == [50] * 8


def test_foolbox_s_own_attacks_take_our_criterion_and_our_ladder():
    net, x = linear(), images(4)
    label = named(net, x)
    target = targets(label)
    pgd = foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.2, steps=40, random_start=False)
    _, _, success = pgd(wrap(net), x, attacks.Confident(target), epsilons=8.0)
    assert success.all()
    rungs = [attacks.Rung(pgd, budget, epsilon=budget) for budget in (0.01, 8.0)]
    deep = foolbox.attacks.L2DeepFoolAttack()
    rows, _ = attacks.climb(
        wrap(net),
        x,
        label,
        target,
        list("abcd"),
        {
            "PGD": attacks.Ladder(rungs, "confident"),
            "deep": attacks.Ladder([attacks.Rung(deep, 50)], "wrong"),
        },
    )
    assert rows["fooled"].all()
    assert rows["rung"].tolist() == [2] * 4 + [1] * 4


# --- mutants ------------------------------------------------------------------------------------------
# One line of an update rule changed; some check of that attack must notice.

MUTANTS = [
    (bim, "sign * self._step(", "-sign * self._step(", "bim"),
    (bim, "gradient.sign()", "gradient", "bim"),
    (bim, "held[active] |= holds", "held[active] = holds", "bim"),
    (bim, "into_ball(x, call.x[active], epsilon[active])", "x", "bim"),
    (bim, "x.clamp(call.low, call.high)", "x", "bim"),
    (bim, "margin(logits, classes[active])", "margin(logits, classes.roll(1)[active])", "bim"),
    (bim, "holds & self.stop_at_first", "holds & False", "bim"),
    (bim, "active = active[going]", "active = active.flip(0)[going]", "bim"),
    (fgsm, "call.x + sign", "call.x - sign", "fgsm"),
    (fgsm, "per_clip(epsilon, x) *", "0.5 * per_clip(epsilon, x) *", "fgsm"),
    (noise, "own_generators(call.x, self.seed", "own_generators(call.x, 0", "noise"),
    (noise, "for _ in range(_ROUNDS)", "for _ in range(0)", "noise"),
    (deepfool, "nearer = distance < nearest", "nearer = distance > nearest.nan_to_num(0, 0, 0)", "deepfool"),
    (deepfool, "(distance + 1e-4 * call.range) / size", "-(distance + 1e-4) / size", "deepfool"),
    (deepfool, "(distance + 1e-4 * call.range) / size", "(distance + 1e-4)", "deepfool"),
    (deepfool, "(1 + self.overshoot) *", "1 *", "deepfool"),
    (deepfool, "total[active] += step", "total[active] = step", "deepfool"),
    (deepfool, "if sign < 0:", "if False:", "deepfool"),
    (deepfool, "home = classes[active]", "home = others[active, 0]", "deepfool"),
    (jsma, "call.gradient(logits, x, active) - towards", "call.gradient(logits, x, active)", "jsma"),
    (jsma, "towards * others.abs()", "towards", "jsma"),
    (jsma, "(towards > 0) & (others < 0)", "(towards > 0)", "jsma"),
    (jsma, "torch.where(x.detach() == bound, 0, ", "torch.where(x.detach() == 9, 0, ", "jsma"),
    (jsma, "up * self.theta", "self.theta", "jsma"),
    (jsma, "up * self.theta", "2 * up * self.theta", "jsma"),
    (jsma, "target[active][:, None]", "target.roll(1)[active][:, None]", "jsma"),
    (jsma, "going = ~call.holds(x, logits, active)", "going = torch.ones_like(active).bool()", "jsma"),
    (jsma, ".clamp(call.low, call.high)", "", "jsma"),
    (cwa, "self.sign * (own - other)", "-self.sign * (own - other)", "cwa"),
    (cwa, "2 * away", "away", "cwa"),
    (cwa, "2 * away", "-2 * away", "cwa"),
    (cwa, "/ per_clip(self.c[active], x)", "", "cwa"),
    (cwa, "torch.where(holds, _DOWN, _UP)", "torch.where(holds, _UP, _DOWN)", "cwa"),
    (cwa, "* (1 - slope.square())", "", "cwa"),
    (cwa, "holds & (norm < self.least[active])", "holds", "cwa"),
    (cwa, "delta.sub_(", "delta.add_(", "cwa"),
    (cwa, "(1 - _BETA1**number)", "1", "cwa"),
    (cwa, "(1 - _BETA2**number)", "1", "cwa"),
    (cwa, "logits.scatter(1, classes[:, None], -torch.inf)", "logits", "cwa"),
    (cwa, "if self.attack.abort and", "if False and", "cwa"),
    (cwa, "places[margin.detach() > 0] if not graph", "places[:0] if not graph", "cwa"),
    (nes, "plus - minus, 0", "minus - plus, 0", "nes"),
    (nes, "plus - minus, 0", "plus, 0", "nes"),
    (nes, "2 * sigma * known", "sigma * known", "nes"),
    (nes, "per_clip(sigma[group], x) * noise", "0.5 * per_clip(sigma[group], x) * noise", "nes"),
    (nes, "x + sign * self.step", "x - sign * self.step", "nes"),
    (nes, "call.x[active] + radius", "x", "nes"),
    (nes, "active, x = active[going], x[going]", "pass", "nes"),
    (pia, "self.rate[places], ascent) * ascent", "self.rate[places], ascent) * -ascent", "pia"),
    (pia, "x - radius), x + radius", "x - radius), image", "pia"),
    (pia, "own, self._known(logits, places)", "own, torch.ones_like(own).bool()", "pia"),
    (pia, "self.delta[places] * torch.where(kept, 2.0, 0.5)", "self.delta[places]", "pia"),
    (pia, "self.delta[places] * torch.where(kept, 2.0, 0.5)", "self.delta[places] * 0.5", "pia"),
    (pia, "(self.rate[places] * torch.where(kept, 2.0, 0.5))", "self.rate[places]", "pia"),
    (pia, "torch.stack(gain).argmax(0)", "torch.stack(gain).argmin(0)", "pia"),
    (pia, "self.active[self.walking]", "self.active", "pia"),
    (pia, "there = places[kept]", "there, kept = places, kept | True", "pia"),
    (pia, "self.best[places[nearer]] = image[nearer]", "self.best[places] = image", "pia"),
    (pia, "| (score > self.score[places])", "", "pia"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "line", "instead", "word"), MUTANTS)
def test_a_mutant_is_noticed(module, line, instead, word):
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert line in source, "the line to change is not there: bring the mutant up to date"
    name = f"mutant_{word}"
    mutant = types.ModuleType(name)
    sys.modules[name] = mutant
    exec(compile(source.replace(line, instead, 1), name, "exec"), mutant.__dict__)
    a = real()
    for public in ("BIM", "FGSM", "Noise", "DeepFool", "JSMA", "CWA", "NES", "PIA", "estimate"):
        if getattr(mutant, public, None) is not None and getattr(module, public, None) is not None:
            setattr(a, public, getattr(mutant, public))
    noticed = []
    for check_name, check in CHECKS.items():
        if check_name.startswith(word):
            try:
                check(a)
            except (AssertionError, ValueError, RuntimeError, IndexError) as error:
                noticed.append((check_name, type(error)))
                break
    assert noticed, f"nobody noticed {instead!r} in place of {line!r}"


# --- criteria and accounting ----------------------------------------------------------------------


def test_confident_wants_the_target_and_its_probability():
    logits = torch.tensor([[3.0, 0.0], [0.5, 0.0], [0.0, 3.0]])
    held = attacks.Confident(torch.tensor([0, 0, 0]), 0.75)(torch.zeros(3), logits)
    assert held.tolist() == [True, False, False]
    assert "0.75" in repr(attacks.Confident(torch.tensor([0])))


def test_wrong_labels_are_wrong_uniform_and_belong_to_the_clip():
    names = [f"clip {n}" for n in range(4000)]
    label = torch.arange(4000) % 10
    target = attacks.wrong_labels(label, 10, 0, names)
    assert (target != label).all()
    assert ((target - label) % 10).bincount(minlength=10)[1:].min() > 370  # 444 expected, 20 its deviation
    assert torch.equal(attacks.wrong_labels(label[7:9], 10, 0, names[7:9]), target[7:9])
    assert (attacks.wrong_labels(label, 10, 1, names) != target).float().mean() > 0.8


def test_costs_are_counted_outside_the_attack():
    net, x = Curved(), images(3)
    passes = []

    class Counting(nn.Module):
        def forward(self, y):
            passes.append(len(y))
            return net(y)

    label = named(net, x)
    made = attacks.BIM(step=0.01, steps=5, stop_at_first=False)
    with attacks.counting() as ledger:
        made.run(wrap(Counting()), x, foolbox.Misclassification(label), epsilon=1.0)
    assert set(ledger) == set(attacks.COSTS)
    assert int(ledger["forwards"].sum()) == sum(passes) == 18  # one more, to see whether the last one holds
    assert ledger["backwards"].tolist() == [5, 5, 5]
    with attacks.counting() as ledger:
        made.run(wrap(net), x, foolbox.Misclassification(label), epsilon=1.0)
        made.run(wrap(net), x, foolbox.Misclassification(label), epsilon=2.0)
        with pytest.raises(ValueError, match="one batch"):
            made.run(wrap(net), x[:2], foolbox.Misclassification(label[:2]), epsilon=1.0)
    assert ledger["iterations"].tolist() == [10, 10, 10]
    accounting.Counts(2).post()  # nobody listens


def test_starting_points_are_of_the_target_and_belong_to_the_clip():
    x = images(6)
    found = torch.tensor([0, 1, 1, 2, -1, 1])
    target = torch.tensor([1, 2, 4])
    start = attacks.starting_points(x, range(6), found, target, ["a", "b", "c"])
    assert any(torch.equal(start[0], x[n]) for n in (1, 2, 5))
    assert torch.equal(start[1], x[3])
    assert start[2].isnan().all()
    assert torch.equal(attacks.starting_points(x, range(6), found, target[:1], ["a"])[0], start[0])
    assert torch.equal(attacks.starting_points(x, [3, 1, 2], found[[3, 1, 2]], target[1:2], ["b"])[0], x[3])


@pytest.mark.parametrize(("bounds", "decay"), [((0, 255), 0.001), ((0, 1), 1e-6)])
def test_pia_ends_where_a_step_is_finer_than_float32(bounds, decay):
    net, x = Curved(), images(2)
    _, criterion = goals(net, x)
    start = starts_for(net, criterion.target_classes.raw)
    asked, scale = [0], bounds[1]

    class Counting(nn.Module):
        def forward(self, y):
            asked[0] += len(y)
            assert asked[0] < 4000, "the walk does not end"
            return net(y / scale)

    victim = foolbox.PyTorchModel(Counting().eval(), bounds=bounds, device="cpu")
    made = attacks.PIA(steps=3, samples=10, sigmas=(0.01,), decay=decay)
    example = made.run(victim, x * scale, criterion, starting_points=start * scale)
    logits, target = net(example / scale), criterion.target_classes.raw
    behind = logits.amax(1) - logits.gather(1, target[:, None])[:, 0]
    assert (behind <= 1e-5).all()  # the walk ends at the boundary, where another batch may round otherwise
