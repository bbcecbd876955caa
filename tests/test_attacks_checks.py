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


def test_saturated_outputs_are_flagged():
    """Logits a thousand times as large: the loss of the label is zero, and so is its gradient."""
    net, x = Curved(), images()

    class Loud(torch.nn.Module):
        def forward(self, y):
            return 1000 * net(y)

    found = checks.gradients(wrap(Loud()), x, named(net, x))
    assert found["masked"].all()


def test_a_victim_made_to_break_is_broken():
    weak = checks.Breakable(VALUES, 6)
    x = torch.full((5, 1, ROWS, FRAMES), 0.5) + 0.1 * (images(5) - 0.5)
    _, _, fallen = attacks.BIM(step=0.004, steps=100)(wrap(weak), x, named(weak, x), epsilons=5.0)
    assert fallen.all()
