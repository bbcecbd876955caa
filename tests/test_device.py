"""What only a GPU does, tested without one: its name and share, precision, reading ahead, short memory."""

import numpy as np
import pytest
import torch
from torch import nn

from lib import attacks, models, reporting, training
from lib import device as policy
from lib.attacks.climb import _COPIES, footprint
from lib.device import choose_device
from tests.test_attacks import Curved, wrap
from tests.test_attacks_climb import given, ladders


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as torch tells of one; gives the shares of memory that were asked for."""
    shares = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a fake {device}")
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append((share, device))
    )
    return shares


def test_the_device_is_the_gpu_where_there_is_one(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv(reporting.NOTES, str(tmp_path / "notes"))
    assert choose_device() == torch.device("cuda:0"), "with an index: its share of memory is set by it"
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert reporting.notes(tmp_path / "notes") == {"device": "a fake cuda:1"}
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"'cuda:2', but there are 2 CUDA devices"):
        choose_device("cuda:2")


def test_cells_that_share_a_gpu_share_its_memory(gpu, monkeypatch):
    choose_device()
    assert gpu == []
    monkeypatch.setenv(policy.CELLS, "4")
    choose_device("cpu")
    assert gpu == []
    choose_device("cuda:1")
    choose_device("cuda")
    assert gpu == [(0.25, torch.device("cuda:1")), (0.25, torch.device("cuda:0"))]


def test_a_gpu_judges_in_true_float32(gpu):
    """cuDNN's convolutions use TF32 by default; a chapter that chose its device computes without."""
    torch.backends.cudnn.allow_tf32 = True
    choose_device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.deterministic
    cpu = torch.device("cpu")
    with policy.computing("tf32"):
        assert torch.backends.cudnn.allow_tf32
        with policy.judging(cpu), torch.no_grad():
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    with policy.autocast("bfloat16", cpu):
        assert nn.Linear(3, 3)(torch.ones(1, 3)).dtype == torch.bfloat16
        with policy.judging(cpu):
            assert nn.Linear(3, 3)(torch.ones(1, 3)).dtype == torch.float32


SMALL, PAPER = 64 * 128, 768 * 1568


@pytest.mark.parametrize(
    ("device", "capability", "values", "pays", "wanted"),
    [
        ("cpu", None, PAPER, True, "float32"),
        ("cuda:0", (7, 5), PAPER, True, "float32"),  # a card without TF32 and bfloat16
        ("cuda:0", (9, 0), SMALL, True, "tf32"),  # there bfloat16 is slower for every model
        ("cuda:0", (9, 0), PAPER, True, "bfloat16"),
        (
            "cuda:0",
            (9, 0),
            PAPER,
            False,
            "tf32",
        ),  # AlexNet is slower in bfloat16 at any size, crafting wants TF32
    ],
)
def test_auto_is_the_fastest_precision_that_was_measured(
    device, capability, values, pays, wanted, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = policy.resolve("auto", torch.device(device), values=values, bfloat16=pays)
    assert chosen == wanted
    assert policy.resolve("float32", torch.device(device), values=values, bfloat16=pays) == "float32"
    with pytest.raises(ValueError, match="precision = 'half' is none of auto, float32, tf32, bfloat16"):
        policy.resolve("half", torch.device(device))


def test_of_the_six_alexnet_alone_is_not_trained_in_bfloat16():
    pays = {name: getattr(models.module(name), "BFLOAT16_PAYS", True) for name in models.known()}
    assert [name for name, value in pays.items() if not value] == ["alexnet"]


def test_in_bfloat16_weights_and_losses_stay_float32():
    victim = models.create("resnet56", 3, (16, 16)).train()
    with policy.autocast("bfloat16", torch.device("cpu")):
        logits = victim(torch.rand(4, 1, 16, 16))
        loss = training._loss(logits, torch.tensor([0, 1, 2, 0]), 0.0)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert {weight.grad.dtype for weight in victim.parameters()} == {torch.float32}


def test_cells_that_share_a_gpu_share_the_memory_for_batches(monkeypatch):
    card = type("Card", (), {"total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    cuda = torch.device("cuda:0")
    assert policy.memory(cuda) == pytest.approx(72)
    monkeypatch.setenv(policy.CELLS, "4")
    assert policy.memory(cuda) == pytest.approx(18)
    assert policy.memory(torch.device("cpu")) == policy.CPU_MEMORY


def test_batches_are_read_ahead_into_pinned_memory_in_order(monkeypatch):
    read, pinned = [], []

    class Store:
        def __getitem__(self, rows):
            read.append(list(rows))
            return torch.full((len(rows), 1, 2, 2), float(rows[0]))

    def pin(x):
        pinned.append(x[0, 0, 0, 0].item())
        return x

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    rows = [np.array([0, 1]), np.array([2, 3]), np.array([4])]
    ahead = training._batches(Store(), rows, torch.device("meta"))
    shapes = [tuple(next(ahead).shape)]
    assert read[:1] == [[0, 1]]
    shapes += [tuple(x.shape) for x in ahead]
    assert shapes == [(2, 1, 2, 2), (2, 1, 2, 2), (1, 1, 2, 2)]
    assert read == [[0, 1], [2, 3], [4]]
    assert pinned == [0.0, 2.0, 4.0]


# ---------------------------------------------------------------------------------------------- short memory


class Short(Curved):
    """A victim whose passes with a graph bear two images, those without one three."""

    def forward(self, x):
        if len(x) > (2 if x.requires_grad else 3):
            raise torch.OutOfMemoryError("a fake")
        return super().forward(x)


def test_attacks_halve_their_batch_and_come_out_the_same():
    net, x, label, target, clips, starts = given()
    short = Short()
    short.load_state_dict(net.state_dict())
    chosen = ladders(only=["BIM-a", "JSMA", "PIA"])
    whole, one = attacks.climb(wrap(net), x, label, target, clips, chosen, starts=starts, batch=3)
    said = []
    rows, other = attacks.climb(
        wrap(short), x, label, target, clips, chosen, starts=starts, batch=3, say=said.append
    )
    assert said[0] == "BIM-a: memory ran out, 2 clips are attacked at once from here on"
    assert rows["fooled"].tolist() == whole["fooled"].tolist()
    np.testing.assert_allclose(rows["l2"], whole["l2"], atol=1e-4)
    for name in one:
        torch.testing.assert_close(other[name], one[name], atol=1e-4, rtol=0)


def test_memory_that_does_not_suffice_for_one_clip_is_an_error():
    net, x, label, target, clips, _ = given()

    class Nothing(Short):
        def forward(self, x):
            if x.requires_grad:
                raise torch.OutOfMemoryError("a fake")
            return super().forward(x)

    none = Nothing()
    none.load_state_dict(net.state_dict())
    with pytest.raises(torch.OutOfMemoryError):
        attacks.climb(wrap(none), x, label, target, clips, ladders(only=["BIM-a"]), batch=3)


def test_a_budget_of_memory_bounds_the_batch(monkeypatch):
    net, x, label, target, clips, _ = given()
    one = footprint(wrap(net), x[:1])
    hidden = x[:1].numel() * 4  # at the least, the image itself is kept for the first layer's gradient
    assert one >= _COPIES * x[:1].nbytes + hidden
    assert footprint(wrap(net), torch.cat([x, x])) > 1.5 * footprint(wrap(net), x)
    seen = []
    run = attacks.BIM.run

    def noted(self, model, x, *rest, **more):
        seen.append(len(x))
        return run(self, model, x, *rest, **more)

    monkeypatch.setattr(attacks.BIM, "run", noted)
    for memory, most in ((2.5 * one / 2**30, 2), (0.1 * one / 2**30, 1), (0.0, 8)):
        seen.clear()
        attacks.climb(wrap(net), x, label, target, clips, ladders(only=["BIM-a"]), batch=8, memory=memory)
        assert max(seen) == most


def test_pgd_halves_its_batch_and_comes_out_the_same(monkeypatch, tmp_path):
    victim = models.create("resnet56", 3, (16, 16)).eval()
    x, labels = torch.rand(9, 1, 16, 16), np.arange(9) % 3
    whole = training.pgd_correct(victim, x, range(9), labels, budget=0.01, steps=2, batch=8)
    forward = victim.forward

    def short(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("a fake")
        return forward(images)

    monkeypatch.setattr(victim, "forward", short)
    monkeypatch.setenv(reporting.NOTES, str(tmp_path / "notes"))
    found = training.pgd_correct(victim, x, range(9), labels, budget=0.01, steps=2, batch=8)
    assert found.tolist() == whole.tolist()
    assert "batch halved to" in reporting.notes(tmp_path / "notes")
