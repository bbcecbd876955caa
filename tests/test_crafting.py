"""The model as attacks use it: folded, recorded by batch size, in its own precision; here on the CPU."""

import pytest
import torch
from torch import nn

from lib import crafting, graphs, models
from lib import device as policy

SIZE = (64, 64)


def trained(name: str) -> models.Classifier:
    """A model whose batch norms have statistics of their own."""
    model = models.create(name, 5, SIZE, seed=1).train()
    images = torch.rand(6, 1, *SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for _ in range(2):
            model(images)
    return model.eval()


def gradient(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    asked = images.clone().requires_grad_()
    logits = model(asked)
    (slope,) = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), asked)
    return logits.detach(), slope


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).norm() <= 1e-4 * other.norm())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "vgg16")) for n in models.known()]
)
def test_a_folded_model_is_the_model(name):
    model = trained(name).double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made = crafting.folded(model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in made.modules())
    assert not any(weight.requires_grad for weight in made.parameters())
    images = torch.rand(3, 1, *SIZE, dtype=torch.float64)
    for mine, theirs in zip(gradient(made, images), gradient(model, images), strict=True):
        assert (mine - theirs).norm() <= 1e-9 * theirs.norm()
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the model is left as it is"
    assert all(weight.requires_grad for weight in model.parameters())


def test_batch_norm_is_not_folded_in_training_mode():
    with pytest.raises(ValueError, match="only in evaluation mode"):
        crafting.folded(models.create("resnet56", 3, (16, 16)))


def test_on_a_cpu_the_model_is_used_as_it_is():
    model = models.create("resnet56", 3, (16, 16)).eval()
    assert crafting.prepare(model) is model
    assert crafting.prepare(model, "tf32") is model
    with pytest.raises(ValueError, match="precision = 'half'"):
        crafting.prepare(model, "half")


def test_in_bfloat16_logits_are_float32_and_the_judge_s_nearly():
    model = trained("resnet18")
    crafter = crafting.prepare(model, "bfloat16")
    images = torch.rand(4, 1, *SIZE)
    logits, slope = gradient(crafter, images)
    theirs, _ = gradient(model, images)
    assert logits.dtype == slope.dtype == torch.float32
    assert not torch.equal(logits, theirs)
    assert not crafter.training
    assert (logits - theirs).abs().max() < 0.1 * theirs.abs().max()


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (1, [8]),
        (8, [8]),
        (9, [8, 9]),
        (16, [8, 16]),
        (100, [8, 16, 32, 64, 100]),
        (128, [8, 16, 32, 64, 128]),
    ],
)
def test_the_ladder_of_batch_sizes_ends_at_the_largest_batch(most, sizes):
    assert crafting.ladder(most) == sizes


@pytest.fixture(scope="module")
def model() -> models.Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(4)
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 4))
    model = models.Classifier(network, "small", 4, (16, 16)).train()
    with torch.no_grad():
        model(torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(2)))
    return model.eval()


@pytest.fixture
def crafter(model) -> crafting.Crafter:
    return crafting.Crafter(crafting.folded(model), "float32", batch=20)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 20, 21])
def test_a_batch_between_two_sizes_is_padded_and_comes_out_the_same(count, model, crafter):
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(count))
    for _ in range(2):
        for mine, theirs in zip(gradient(crafter, images), gradient(model, images), strict=True):
            assert mine.shape == theirs.shape
            assert close(mine, theirs)
    with torch.no_grad():
        assert close(crafter(images), model(images))
    wanted = {1: 8, 7: 8, 8: 8, 9: 16, 16: 16, 20: 20, 21: None}[count]
    assert list(crafter.recorded) == ([(wanted, 1, 16, 16)] if wanted else []), "21 exceed the largest"


def test_graphs_are_kept_by_batch_size_and_shape(crafter):
    for count, side in ((3, 16), (8, 16), (8, 32), (12, 16), (3, 16)):
        gradient(crafter, torch.rand(count, 1, side, side))
    assert list(crafter.recorded) == [(8, 1, 16, 16), (8, 1, 32, 32), (16, 1, 16, 16)]


def test_large_images_take_the_plain_path(model, monkeypatch):
    monkeypatch.setattr(policy, "LARGE", 16 * 16)
    crafter = crafting.Crafter(crafting.folded(model), "float32")
    images = torch.rand(2, 1, 16, 16)
    assert close(gradient(crafter, images)[1], gradient(model, images)[1])
    assert crafter.recorded == {}


def test_a_gradient_may_be_asked_for_twice_and_after_another_pass(model, crafter):
    """As JSMA asks for one a class, and CWA after a look at another image."""
    images, others = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(5))

    def two_slopes(net):
        asked = images.clone().requires_grad_()
        logits = net(asked)
        first = torch.autograd.grad(logits[:, 0].sum(), asked, retain_graph=True)[0]
        kept = first.clone()
        gradient(net, others)
        second = torch.autograd.grad(logits[:, 1].sum(), asked)[0]
        assert torch.equal(first, kept), "a gradient that was given is not written over"
        return logits.detach(), first, second

    for mine, theirs in zip(two_slopes(crafter), two_slopes(model), strict=True):
        assert close(mine, theirs)


def test_what_cannot_be_recorded_is_passed_plainly_and_said_once(model, monkeypatch):
    def fail(*given, **more):
        raise RuntimeError("no capture")

    monkeypatch.setattr(graphs, "record", fail)
    lines = []
    crafter = crafting.Crafter(crafting.folded(model), "float32", batch=8, say=lines.append)
    images = torch.rand(3, 1, 16, 16)
    for _ in range(2):
        assert close(gradient(crafter, images)[1], gradient(model, images)[1])
    assert lines == ["passes of 8 images are not recorded as a CUDA graph: no capture"]


def test_short_memory_is_not_taken_for_a_failed_recording(model, monkeypatch):
    def short(*given, **more):
        raise torch.OutOfMemoryError("a fake")

    monkeypatch.setattr(graphs, "record", short)
    crafter = crafting.Crafter(crafting.folded(model), "float32", batch=8)
    with pytest.raises(torch.OutOfMemoryError):
        crafter(torch.rand(3, 1, 16, 16))


def test_a_model_that_cannot_be_traced_is_used_unfolded():
    class Branching(models.Classifier):
        def forward(self, images):
            return super().forward(images if images.mean() > 0 else -images)

    inner = models.create("resnet56", 3, (16, 16)).eval()
    model = Branching(inner.network, "branching", 3, (16, 16)).eval()
    lines = []
    crafter = crafting.prepare(model, "bfloat16", say=lines.append)
    assert lines[0].startswith("batch norm is not folded, the model cannot be traced")
    assert crafter(torch.rand(2, 1, 16, 16)).shape == (2, 3)
    assert all(weight.requires_grad for weight in model.parameters())


def node(logits: torch.Tensor, images: torch.Tensor) -> torch.autograd.graph.Node:
    """The node of the images at the root of the graph of the logits."""
    waiting = [logits.grad_fn]
    while waiting:
        each = waiting.pop()
        if getattr(each, "variable", None) is images:
            return each
        waiting += [below for below, _ in each.next_functions if below is not None]
    raise AssertionError("the images are in no graph")


def test_a_pass_that_is_recorded_shares_no_node_with_the_pass_before():
    """A node belongs to the stream on which it was made, and CUDA refuses another's in a recording."""
    passes = crafting.Recorded(trained("resnet18"), "float32", torch.rand(2, 1, *SIZE))
    node(passes.logits, passes.images).metadata["earlier"] = True
    passes._forward()
    assert "earlier" not in node(passes.logits, passes.images).metadata
