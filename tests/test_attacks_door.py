"""What people bring: other people's models and settings, refused in one sentence or attacked as they are."""

import math
import warnings

import foolbox
import pytest
import torch
from torch import nn

from lib import attacks
from lib.attacks import nes, noise, pia
from tests.test_attacks import (
    FIXED,
    MAKE,
    Curved,
    Linear,
    draw,
    images,
    l2,
    named,
    starts_for,
    targets,
    wrap,
)

WHITE = [name for name in MAKE if name not in ("noise", "NES", "PIA")]
GRADIENT = "has no gradient by its input"


class Ending(nn.Module):
    """The small network with something behind or before it."""

    def __init__(self, net, after=lambda z: z, before=lambda x: x):
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def run(name, net, x, criterion, start=None, call=False, bounds=(0, 1)):
    """One attack on a network, by Foolbox's call or by ``run``."""
    made, victim = MAKE[name](attacks), foolbox.PyTorchModel(net.eval(), bounds=bounds, device="cpu")
    extra = {"starting_points": x.flip(0) if start is None else start} if name == "PIA" else {}
    unit = bounds[1] - bounds[0]
    if not call:
        return made.run(victim, x, criterion, **extra, **({"epsilon": 1.0 * unit} if name in FIXED else {}))
    return made(victim, x, criterion, epsilons=1.0 * unit if name in FIXED else None, **extra)


def climbed(net, x, label, target, only=("DeepFool",)):
    clips = [f"clip {n}" for n in range(len(x))]
    made = attacks.ladders(x.shape[2:], only=only, bim_steps=3, bim_rungs=2, bim_bisections=0)
    return attacks.climb(wrap(net), x, label, target, clips, made)


# --- what the victim answers ------------------------------------------------------------------------

ANSWERS = {
    "probabilities": (lambda z: z.softmax(1), "probabilities"),
    "sharp probabilities": (lambda z: (50 * z).softmax(1), "probabilities"),
    "half probabilities": (lambda z: z.softmax(1).half(), "probabilities"),
    "(n,)": (lambda z: z[:, 0], r"shape \(4,\)"),
    "(n, 1)": (lambda z: z[:, :1], r"shape \(4, 1\)"),
    "(n, frames, classes)": (lambda z: z[:, None].repeat(1, 7, 1), r"shape \(4, 7, 5\)"),
    "(n, classes, 1)": (lambda z: z[..., None], r"shape \(4, 5, 1\)"),
    "(1, classes)": (lambda z: z.mean(0, keepdim=True), r"shape \(1, 5\)"),
    "a tuple": (lambda z: (z, z), "with tuple, one tensor"),
    "a dictionary": (lambda z: {"logits": z}, "with dict, one tensor"),
    "a list": (list, "with list, one tensor"),
    "an array": (lambda z: z.detach().numpy(), "with ndarray, one tensor"),
    "complex": (lambda z: z + 0j, "with torch.complex64, one tensor"),
    "nothing": (lambda z: None, "with NoneType, one tensor"),
    "not a number": (lambda z: z * math.nan, "not finite"),
    "infinite": (lambda z: z / 0, "not finite"),
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_no_logits_is_refused_in_one_sentence(name, kind):
    after, words = ANSWERS[kind]
    net, x = Curved(), images(4)
    label = named(net, x)
    words = words.replace("(4,", "(2,") if name == "noise" else words  # two clips say it for all
    for call in (False, True):
        with pytest.raises(ValueError, match=words):
            run(name, Ending(net, after), x, label, call=call)


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_climb_refuses_the_same(kind):
    after, words = ANSWERS[kind]
    net, x = Curved(), images(4)
    label = named(net, x)
    with pytest.raises(ValueError, match=words.replace("(4", "(1")):
        climbed(Ending(net, after), x, label, targets(label))


def test_log_probabilities_are_logits():
    net, x = Curved(), images(4)
    label = named(net, x)
    plain = run("DeepFool", net, x, label)
    torch.testing.assert_close(
        run("DeepFool", Ending(net, lambda z: z.log_softmax(1)), x, label), plain, atol=1e-5, rtol=0
    )


def test_a_sigmoid_s_answers_are_warned_of():
    net, x = Curved(), images(4)
    label = named(net, x)
    with pytest.warns(UserWarning, match=r"in \[0, 1\], as probabilities are"):
        run("BIM-a", Ending(net, torch.sigmoid), x, label)


def test_logits_that_are_not_a_number_never_count_as_fooled():
    """A victim that fails on images with a value at their upper bound: no verdict, but a refusal."""
    net = Curved()

    class Shaky(nn.Module):
        def forward(self, x):
            return net(x) + torch.where((x > 0.999).flatten(1).any(1, keepdim=True), math.nan, 0.0)

    x = images(4).clamp(0, 0.9)
    label = named(net, x)
    example = x.clone()
    example[:, 0, 0, 0] = 1.0
    for criterion in (foolbox.Misclassification(label), foolbox.TargetedMisclassification(label * 0)):
        with pytest.raises(ValueError, match="not finite"):
            attacks.measure(wrap(Shaky()), x, example, criterion)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MAKE)
def test_logits_of_any_precision_are_taken_as_float32(name, kind):
    net, x = Curved(), images(4)
    label = named(net, x)
    other = Ending(net, lambda z: z.to(kind))
    start = starts_for(net, targets(label))
    plain = run(name, net, x, label, start)
    example = run(name, other, x, label, start)
    assert example.dtype == torch.float32
    if kind == torch.float64:
        torch.testing.assert_close(example, plain, atol=1e-5, rtol=0)
    if name in ("BIM-a", "DeepFool", "JSMA", "CWA", "DDN"):
        assert (named(other, example) != label).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_climb_on_weights_of_any_precision(kind):
    net, x = Curved(), images(4)
    label = named(net, x)
    cast = Ending(net.to(kind), before=lambda x: x.to(kind))
    rows, _ = climbed(cast, x, named(cast, x), targets(label), only=["BIM-a", "BIM-b", "CWA", "DDN"])
    assert len(rows) == 16
    assert rows.loc[rows["attack"] == "DDN", "fooled"].all()


@pytest.mark.parametrize("name", MAKE)
def test_autocast_changes_nothing(name):
    """Attack and verdict are of one victim, in float32, whatever the caller's mode."""
    net, x = Curved(), images(8)
    label = named(net, x)
    start = starts_for(net, targets(label))
    plain, _, held = run(name, net, x, label, start, call=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _, also = run(name, net, x, label, start, call=True)
    assert torch.equal(cast, plain)
    assert torch.equal(also, held)
    assert torch.equal(also, named(net, cast) != label)


# --- where no gradient can be had ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", MAKE)
def test_gradients_are_switched_on_by_the_attack(name, mode):
    net, x = Curved(), images(4)
    label = named(net, x)
    start = starts_for(net, targets(label))
    plain = run(name, net, x, label, start)
    with mode():
        inside = named(net, x)
        for call in (False, True):
            made = run(name, net, x * 1.0, inside, start, call=call)
            assert torch.equal(made[0] if call else made, plain)
    assert torch.equal(run(name, net, x, inside, start), plain)


NOWHERE = {
    "detached": lambda net: Ending(net, before=torch.Tensor.detach),
    "thresholded": lambda net: Ending(net, before=lambda x: (x < 0.5).float()),
    "constant": lambda net: Ending(net, after=lambda z: torch.arange(5.0).flip(0).repeat(len(z), 1)),
    "constant of its weights": lambda net: Ending(net, after=lambda z: net.layers[3].bias.repeat(len(z), 1)),
}


@pytest.mark.parametrize("kind", NOWHERE)
@pytest.mark.parametrize("name", WHITE)
def test_a_victim_without_a_gradient_is_refused_in_one_sentence(name, kind):
    net, x = Curved(), images(4)
    net.layers[3].bias.data = draw(5, seed=5)
    victim = NOWHERE[kind](net)
    label = named(victim, x)
    if (
        name == "CWA"
    ):  # its norm has a gradient, as for Foolbox's: it runs, and says that it follows that alone
        with pytest.warns(UserWarning, match=GRADIENT):
            assert torch.equal(run(name, victim, x, label), x)
        return
    for call in (False, True):
        with pytest.raises(ValueError, match=GRADIENT):
            run(name, victim, x, label, call=call)


@pytest.mark.parametrize("name", ["noise", "NES", "PIA"])
def test_a_black_box_needs_no_gradient(name):
    net, x = Curved(), images(4)
    label = named(net, x)
    start = starts_for(net, targets(label))
    example = run(name, Ending(net, before=torch.Tensor.detach), x, label, start)
    assert torch.equal(example, run(name, net, x, label, start))


# --- a loss that underflows, bounds of any range ---------------------------------------------------


@pytest.mark.parametrize("gain", [1, 30, 1000, 1e5])
@pytest.mark.parametrize("name", ["BIM-a", "BIM-b", "FGSM", "DDN", "DeepFool", "CWA"])
def test_sure_victims_are_attacked_as_unsure_ones(name, gain):
    """Logits a thousand times larger name the same classes: cross-entropy underflows, the attack does not."""
    net, x = Curved(), images(12)
    label = named(net, x)
    example = run(name, Ending(net, lambda z: gain * z), x, label)
    assert (example != x).flatten(1).any(1).all(), "a clip was left as it came"
    fooled = named(net, example) != label
    assert fooled.all() or name == "FGSM"
    plain = run(name, net, x, label)
    assert fooled.sum() >= (named(net, plain) != label).sum() - 1
    if name in ("DDN", "DeepFool"):
        assert l2(example - x).median() <= 1.2 * l2(plain - x).median()


def test_the_black_box_s_loss_does_not_underflow():
    net, x = Curved(), images(12)
    label = named(net, x)
    loud = run("NES", Ending(net, lambda z: 1000 * z), x, label)
    assert (loud != x).flatten(1).any(1).all()
    assert (named(net, loud) != label).float().mean() >= 0.9


RANGES = [(0, 1), (-1, 1), (0, 255), (-600, 300), (0, 1 / 255)]


@pytest.mark.parametrize("name", MAKE)
def test_every_constant_is_a_share_of_the_bounds(name, monkeypatch):
    """The same victim with its images in other bounds: equal flags, and norms in proportion."""

    def same_draws(x, seed, purpose):  # a clip's own draws follow from its bytes, which differ
        return [torch.Generator().manual_seed(n) for n in range(len(x))]

    for module in (noise, nes, pia):
        monkeypatch.setattr(module, "own_generators", same_draws)
    net, x = Curved(), images(8)
    x[:, 0, 0] = 0.0
    label = named(net, x)
    target = targets(label)
    start = starts_for(net, target)
    found = []
    for low, high in RANGES:
        unit = high - low
        victim = Ending(net, before=lambda y, low=low, unit=unit: (y - low) / unit)
        moved = [(each * unit + low).clamp(low, high) for each in (x, start)]
        example = run(
            name, victim, moved[0], foolbox.TargetedMisclassification(target), moved[1], bounds=(low, high)
        )
        found.append((named(victim, example) == target, l2((example - moved[0]) / unit)))
    for flags, norms in found[1:]:
        assert torch.equal(flags, found[0][0])
        # A black box decides by differences of answers, which rounding may turn, and so takes other steps.
        within = 0.1 if name in ("PIA", "NES") else 0.01
        torch.testing.assert_close(norms, found[0][1], rtol=within, atol=1e-4)


def test_a_ladder_is_a_share_of_the_bounds():
    net, x = Curved(), images(6)
    label = named(net, x)
    tables = []
    for low, high in RANGES:
        unit = high - low
        victim = Ending(net, before=lambda y, low=low, unit=unit: (y - low) / unit)
        made = attacks.ladders(
            (8, 12), only=["BIM-a", "FGSM", "noise", "JSMA"], bim_steps=10, bim_first=0.005, bim_rungs=6
        )
        rows, _ = attacks.climb(
            foolbox.PyTorchModel(victim.eval(), bounds=(low, high), device="cpu"),
            (x * unit + low).clamp(low, high),
            label,
            targets(label),
            list("abcdef"),
            made,
        )
        tables.append(rows.assign(l2=rows["l2"] / unit, smallest=rows["smallest"] / unit))
    for rows in tables[1:]:
        assert rows["fooled"].tolist() == tables[0]["fooled"].tolist()
        assert rows["l2"].tolist() == pytest.approx(tables[0]["l2"].tolist(), rel=0.02)
        assert rows["smallest"].tolist() == pytest.approx(tables[0]["smallest"].tolist())


# --- words and settings -----------------------------------------------------------------------------


def test_numbers_in_messages_have_the_digits_that_differ():
    net, x = Curved(), images(2)
    x[0, 0, 0, 0] = 1 + 2e-7
    with pytest.raises(ValueError, match=r"1\.0000002.*bounds are \[0, 1\]"):
        run("BIM-a", net, x, named(net, x))


@pytest.mark.parametrize("value", [True, "3", "a", math.inf, -math.inf, math.nan, None, [1], 1j, -1])
@pytest.mark.parametrize("attack", ["BIM", "JSMA", "DeepFool", "CWA", "NES", "PIA", "Noise", "DDN"])
def test_no_setting_takes_what_is_none_of_its_values(attack, value):
    made = getattr(attacks, attack)
    for name, default in vars(made()).items():
        if isinstance(default, bool) and value is True:
            continue
        if name == "sigmas" and value == [1]:
            continue
        with pytest.raises((ValueError, TypeError), match=name.removesuffix("s")):
            made(**{name: value})


def test_settings_are_keywords_and_do_not_change():
    made = attacks.BIM(step=0.1)
    with pytest.raises(AttributeError):
        made.step = 0.2
    with pytest.raises(TypeError):
        attacks.BIM(0.1)


def test_a_saliency_that_is_zero_everywhere_is_said():
    """Each logit depends on values of its own: raising the target lowers no other."""
    weight = torch.zeros(3, 96)
    for k in range(3):
        weight[k, 30 * k : 30 * k + 30] = 1.0
    net, x = Linear(weight), images(4)
    label = named(net, x)
    with pytest.warns(UserWarning, match="saliency is zero everywhere for 4 of 4 clips"):
        example = attacks.JSMA(steps=5).run(wrap(net), x, label)
    assert torch.equal(example, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacks.JSMA(steps=5).run(wrap(Curved()), x, named(Curved(), x))


def test_a_budget_that_is_none_is_refused():
    net, x = Curved(), images(2)
    for epsilon in (-1.0, math.nan, math.inf, torch.tensor([0.1, -2.0])):
        with pytest.raises(ValueError, match="a budget is finite and not negative"):
            attacks.BIM().run(wrap(net), x, named(net, x), epsilon=epsilon)

    with pytest.raises(
        ValueError, match=r"budgets are one for all clips or \(2,\), one per clip, not \(3,\)"
    ):
        attacks.BIM().run(wrap(net), x, named(net, x), epsilon=torch.ones(3))


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((1, 0), r"not \(1, 0\)"),
        ((0, 0), r"not \(0, 0\)"),
        ((-math.inf, math.inf), r"not \(-inf, inf\)"),
        ((0, math.nan), r"not \(0, nan\)"),
    ],
)
def test_bounds_that_are_none_are_refused(bounds, words):
    net, x = Curved(), images(2)
    victim = foolbox.PyTorchModel(net.eval(), bounds=bounds, device="cpu")
    with pytest.raises(ValueError, match=f"bounds are two finite numbers.*{words}"):
        attacks.FGSM().run(victim, x, named(net, x), epsilon=0.1)


@pytest.mark.parametrize("labels", [[0, 1], (0, 1), 3, None, "ab", {0: 1}])
def test_labels_of_another_kind_are_refused_in_one_sentence(labels):
    net, x = Curved(), images(2)
    for call in (False, True):
        with pytest.raises(ValueError, match=f"labels are a PyTorch tensor, not {type(labels).__name__}"):
            run("BIM-a", net, x, labels, call=call)


def test_clips_without_images_are_refused():
    net, x = Curved(), images(2)
    with pytest.raises(ValueError, match=r"clips are of shape \(clips, ...\), one image each, not \(2,\)"):
        attacks.FGSM().run(wrap(net), x[:, 0, 0, 0], named(net, x), epsilon=0.1)


class Root(torch.autograd.Function):
    """The square root of distances from a half, whose slope is infinite there."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return torch.where(x[:, :1, :1, :1] > 0.95, math.nan, gradient)


@pytest.mark.parametrize("name", [name for name in WHITE if name != "CWA"])
def test_a_gradient_that_is_not_finite_is_refused_in_one_sentence(name):
    """CWA leaves such a clip and goes on with the others; the rest would hand out broken images."""
    net, x = Curved(), images(4)
    x[1, 0, 0, 0] = 0.99
    label = named(net, x)
    with pytest.raises(ValueError, match="gradient of the victim's answer is not finite for 1 of 4 clips"):
        run(name, Ending(net, before=Root.apply), x, label)
