"""A masked victim is flagged, an honest one is not, and a victim made to break is broken."""

import foolbox
import pytest
import torch

from lib import attacks
from lib.attacks import checks
from tests.test_attacks import FRAMES, ROWS, VALUES, Curved, images, linear, named, targets, wrap


@pytest.mark.parametrize("net", [linear(), Curved()])
def test_an_honest_gradient_is_not_flagged(net):
    x = images()
    found = checks.gradients(wrap(net), x, targets(named(net, x)))
    assert not found["masked"].any()
    assert found["kept"].between(0.7, 1.05).all()


def test_a_staircase_is_flagged_though_it_is_as_easily_fooled():
    net, x = Curved(), images()
    target = targets(named(net, x))
    masked = checks.Masked(wrap(net)).eval()
    assert checks.gradients(wrap(masked), x, target)["masked"].all()
    goal = foolbox.TargetedMisclassification(target)
    made = attacks.BIM(step=0.02, steps=30)
    _, example, fooled = made(wrap(net), x, goal, epsilons=3.0)
    assert fooled.all()
    assert (named(masked, example) == target).float().mean() > 0.8
    _, _, through = made(wrap(masked), x, goal, epsilons=3.0)
    assert not through.any()


def test_saturated_outputs_are_attacked_and_so_not_flagged():
    """Logits a thousand times as large: cross-entropy has no gradient left, the loss that is used has one."""
    net, x = Curved(), images()

    class Loud(torch.nn.Module):
        def forward(self, y):
            return 1000 * net(y)

    found = checks.gradients(wrap(Loud()), x, targets(named(net, x)), reach=1e-4)
    assert not found["masked"].any()


def test_a_victim_made_to_break_is_broken():
    weak = checks.Breakable(VALUES, 6)
    x = torch.full((5, 1, ROWS, FRAMES), 0.5) + 0.1 * (images(5) - 0.5)
    _, _, fallen = attacks.BIM(step=0.004, steps=100)(wrap(weak), x, named(weak, x), epsilons=5.0)
    assert fallen.all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-2, 4)])
def test_checks_are_in_units_of_the_bounds(low, high):
    net, x = Curved(), images()
    target = targets(named(net, x))

    class Moved(torch.nn.Module):
        def forward(self, y):
            return net((y - low) / (high - low))

    victim = foolbox.PyTorchModel(Moved().eval(), bounds=(low, high), device="cpu")
    plain = checks.gradients(wrap(net), x, target)
    moved = checks.gradients(victim, x * (high - low) + low, target)
    assert moved["norm"].tolist() == pytest.approx(plain["norm"].tolist(), rel=1e-3)
    assert moved["kept"].tolist() == pytest.approx(plain["kept"].tolist(), abs=0.02)
    stairs = foolbox.PyTorchModel(checks.Masked(victim).eval(), bounds=(low, high), device="cpu")
    assert checks.gradients(stairs, x * (high - low) + low, target)["masked"].all()


def test_a_path_is_what_the_attack_did():
    net, x = Curved(), images(3)
    label = named(net, x)
    target = targets(label)
    clip, goal = x[:1], foolbox.TargetedMisclassification(target[:1])
    made = attacks.BIM(step=0.02, steps=6, stop_at_first=False)
    path = checks.path(made, wrap(net), clip, label[:1], goal, target[:1], epsilon=0.5)
    assert path["step"].tolist() == list(range(7))
    assert path["l2"].tolist()[0] == 0.0
    assert (path["l2"] <= 0.5 * (1 + 1e-5)).all()
    one = attacks.BIM(step=0.02, steps=1).run(wrap(net), clip, goal, epsilon=0.5)
    assert path["l2"][1] == pytest.approx(float((one - clip).norm()), rel=1e-5)
    probability = net(one).softmax(1)[0, target[0]]
    assert path["probability"][1] == pytest.approx(float(probability.detach()), rel=1e-4)
    longer = attacks.BIM(step=0.02, steps=40, stop_at_first=False)
    far = checks.path(longer, wrap(net), clip, label[:1], goal, target[:1], epsilon=3.0)
    assert not far["leads"].iloc[0]
    assert far["leads"].iloc[-1]
    away = checks.path(longer, wrap(net), clip, label[:1], goal, label[:1], epsilon=3.0)
    assert away["leads"].iloc[0]
    assert not (away["leads"] & far["leads"]).any()  # the label and the target cannot both be predicted
    assert far.loc[~far["leads"], "probability"].max() < 0.5
    nothing = checks.path(made, wrap(net), x[:0], label[:0], goal, target[:0], epsilon=0.5)
    assert list(nothing) == ["step", "probability", "l2", "leads"]
    assert len(nothing) == 0


def test_a_weak_attack_is_beaten_by_the_reference_at_its_own_goal():
    net, x = Curved(), images(8)
    label = named(net, x)
    target, clips = targets(label), [f"clip {n}" for n in range(8)]
    only = ["BIM-a", "JSMA", "DeepFool", "CWA", "DDN"]
    made = attacks.ladders(x.shape[2:], only=only, bim_steps=10, bim_first=0.003, bim_rungs=9, cwa_search=100)
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, made, until=1.0)
    found = checks.against_reference(wrap(net), x, label, target, clips, rows, made).set_index("attack")
    assert list(found.index) == ["BIM-a", "DeepFool", "CWA"]  # JSMA measures the number of values
    assert found.loc["CWA", "ratio"] < checks.WEAK
    assert found.loc["BIM-a", "ratio"] > checks.WEAK
    assert (found["clips"] > 0).all()
    own = rows[(rows["attack"] == "DeepFool") & rows["fooled"]]["l2"]
    assert found.loc["DeepFool", "ours"] == pytest.approx(own.median())
    few = checks.against_reference(wrap(net), x[:2], label[:2], target[:2], clips[:2], rows, made)
    assert (few["clips"] <= 2).all()
    none = checks.against_reference(wrap(net), x[:0], label[:0], target[:0], [], rows, made)
    assert len(none) == 0
