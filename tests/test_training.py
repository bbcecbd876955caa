"""The fit loop and its defences: what is descended, what is kept, what a kill or a fault leaves."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib import defences, models, training
from lib.data import splits
from lib.training import Recipe

CLASSES, SIDE = 3, 32
QUICK = {"batch": 8, "learning_rate": 0.003, "steps": 2, "pgd_steps": 2, "pgd_clips": 6}


class Tiny(nn.Module):
    """A network of a few weights, with batch norm and dropout as the victims have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 5, 4, 2)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(6 * 16, CLASSES)

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(self.norm(self.conv(x)).relu(), 4)
        return self.fc(self.drop(x.flatten(1)))


def tiny(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.Classifier(Tiny(), "tiny", CLASSES, (SIDE, SIDE))


@pytest.fixture(scope="module")
def images():
    """Noise with a band of rows a class lighter."""
    draw = torch.Generator().manual_seed(1)
    x = 0.6 * torch.rand(60, 1, SIDE, SIDE, generator=draw)
    for i in range(60):
        x[i, 0, 10 * (i % CLASSES) : 10 * (i % CLASSES) + 10] += 0.2
    return x


@pytest.fixture(scope="module")
def split():
    part = ["train"] * 36 + ["validation"] * 12 + ["test"] * 12
    return pd.DataFrame(
        {"row": np.arange(60), "position": np.arange(60), "label": np.arange(60) % 3, "part": part}
    )


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def plain(logits, labels):
    return cross_entropy(logits, labels)


# --- the loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", defences.known())
def test_every_training_learns_what_can_be_learnt(name, images, split):
    model = tiny()
    history = training.fit(model, images, split, Recipe(training=name, epochs=8, **QUICK))
    assert list(history) == list(training.HISTORY)
    assert not model.training
    assert all(weight.requires_grad for weight in model.parameters())
    clips = pd.DataFrame({"clip": [f"c{i}" for i in range(60)]})
    named = training.examine(model, images, split, clips)
    assert list(named["clip"]) == [f"c{i}" for i in range(48, 60)]
    assert (named["predicted"] == named["label"]).mean() > 0.9
    assert named["confidence"].between(1 / CLASSES, 1).all()
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert len(training.cost(history)) == len(history)


@pytest.mark.parametrize("name", ["standard", "fgsm_rs", "random_signs", "trades"])
def test_the_same_seed_gives_the_same_model_and_another_does_not(name, images, split):
    def run(seed):
        model = tiny()
        history = training.fit(model, images, split, Recipe(training=name, epochs=2, seed=seed, **QUICK))
        return weights_of(model), history

    (one, first), (two, second), (other, _) = run(0), run(0), run(1)
    assert same(one, two)
    pd.testing.assert_frame_equal(first, second)
    assert not same(one, other)


def test_training_leaves_the_generators_alone(images, split):
    before = torch.get_rng_state()
    training.fit(tiny(), images, split, Recipe(training="pgd", epochs=1, **QUICK))
    assert torch.equal(before, torch.get_rng_state())


def test_the_best_state_is_the_one_that_is_left(images, split):
    """A learning rate that ruins the network late: what is left is what did best before."""
    model = tiny()
    history = training.fit(
        model,
        images,
        split,
        Recipe(epochs=6, schedule="constant", batch=8, learning_rate=0.03, pgd_clips=-1, seed=2),
    )
    best = history.loc[history["best"]]
    assert len(best) == 1
    logits = models.predict(model, images, split.loc[split["part"] == "validation", "row"])
    labels = torch.tensor(split.loc[split["part"] == "validation", "label"].to_list())
    assert cross_entropy(logits, labels).item() == pytest.approx(best["validation_loss"].item(), rel=1e-5)
    ordered = history.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True])
    assert ordered["epoch"].iloc[0] == best["epoch"].item()


def test_patience_stops_early(images, split):
    """Labels without meaning: what is learnt by heart does not help on the validation part."""
    draw = np.random.default_rng(0)
    noise = split.assign(label=draw.integers(0, CLASSES, len(split)))
    history = training.fit(tiny(), images, noise, Recipe(epochs=60, patience=3, pgd_clips=-1, batch=8))
    assert len(history) < 60
    assert history["epoch"].iloc[-1] - history.loc[history["best"], "epoch"].item() == 3


def test_only_the_last_layer_learns_when_asked(images, split):
    model = tiny()
    before = weights_of(model)
    training.fit(model, images, split, Recipe(epochs=1, layers="last", **QUICK))
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"network.fc.weight", "network.fc.bias"}


@pytest.mark.parametrize(
    ("accuracy", "loss", "wanted"),
    [
        ([0.3, 0.6, 0.79], [2.0, 1.0, 0.9], True),  # too little of what it learns from
        ([0.3, 0.6, 0.81], [2.0, 1.0, 0.7], True),  # the loss falls by 41 % an epoch
        (
            [0.8, 0.8, 0.81, 0.82, 0.82],
            [1.0, 0.5, 0.48, 0.46, 0.44],
            False,
        ),  # by 4 % an epoch over the last three
        ([0.8, 0.8, 0.81, 0.82, 0.82], [1.0, 0.5, 0.47, 0.44, 0.41], True),  # by 6 % an epoch
        ([0.8, 0.9, 0.9, 0.95, 0.99], [1.0, 0.5, 0.25, 0.12, 0.06], False),  # all is learnt
        ([0.9], [0.5], True),  # one epoch says nothing of the fall
        ([0.9, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.6], False),  # early stopping ended it
    ],
)
def test_a_training_that_ended_too_early_is_marked(accuracy, loss, wanted):
    history = pd.DataFrame({"train_accuracy": accuracy, "train_loss": loss})
    assert training.unfinished(history).iloc[-1] == wanted
    for epoch in range(1, len(loss)):  # what was said of an epoch stays
        assert (training.unfinished(history[:epoch]) == training.unfinished(history)[:epoch]).all()


def test_a_history_says_whether_its_training_is_finished(images, split):
    """On easy images the tiny model is finished after some epochs, and not after one."""
    for epochs, wanted in ((1, True), (14, False)):
        history = training.fit(tiny(), images, split, Recipe(epochs=epochs, **QUICK))
        assert history["unfinished"].iloc[-1] == wanted, history


def test_images_are_moved_along_time_and_nothing_is_lost():
    x = torch.arange(2 * 3 * 8.0).reshape(2, 1, 3, 8)
    moved = training._shifted(x, torch.tensor([2, -1]))
    assert torch.equal(moved[0], x[0].roll(2, -1))
    assert torch.equal(moved[1], x[1].roll(-1, -1))


def test_the_schedules_begin_and_end_as_they_say():
    assert [training._share_of_peak("cosine", done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [training._share_of_peak("onecycle", done) for done in (0, 0.3, 1)] == pytest.approx([0.04, 1, 0])
    assert training._share_of_peak("constant", 0.9) == 1


def test_made_equal_splits_train_on_equally_many(split):
    fewer = split[split["row"] > 9]
    made = training.equally_many({"all": split, "fewer": fewer})
    assert [(frame["part"] == "train").sum() for frame in made.values()] == [26, 26]
    assert (made["all"]["part"] != "train").sum() == 24
    assert set(made["fewer"]["row"]) == set(fewer["row"])
    assert training.equally_many({}) == {}


def test_no_recording_and_no_copy_crosses_the_official_folds_and_a_planted_leak_is_seen():
    clips = pd.DataFrame({"clip": range(60), "label": np.arange(60) % 3, "source": np.arange(60) // 2})
    clips["fold"] = clips["source"] % 5 + 1
    for fold in range(1, 6):
        official = splits.split(clips, fold, copies=3)
        assert len(splits.leaks(official)) == 0
        assert (official.loc[official["part"] != "train", "copy"] == 0).all()
        planted = official.copy()
        tested = planted.index[planted["part"] == "test"][0]
        planted.loc[tested, "part"] = "train"  # its recording's other take is still tested
        assert splits.leaks(planted)["what"].to_list() == ["recording"]
        copied = official.loc[[tested]].assign(copy=1, row=official.loc[tested, "row"] + 1, part="train")
        assert "clip" in set(splits.leaks(pd.concat([official, copied], ignore_index=True))["what"])
    for protocol, leaks in (
        ("random", {"recording"}),
        ("copies", {"recording", "clip"}),
        ("paper", {"recording", "clip"}),
    ):
        assert set(splits.leaks(splits.split(clips, 1, protocol, copies=3))["what"]) == leaks


# --- killed and resumed -------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["standard", "fgsm_rs", "random_signs"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_run_goes_on_as_if_it_had_not_been(name, epoch, images, split, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", math.inf)  # a checkpoint after every epoch
    settings = {"training": name, "epochs": 5, **QUICK}
    whole = tiny()
    uninterrupted = training.fit(whole, images, split, Recipe(**settings))

    def kill(line, seen=[]):  # noqa: B006
        seen.append(line)
        if line.startswith(f"epoch {epoch + 1}/"):
            raise Killed

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        training.fit(tiny(), images, split, Recipe(**settings), checkpoint=path, say=kill)
    lines = []
    model = tiny()
    history = training.fit(model, images, split, Recipe(**settings), checkpoint=path, say=lines.append)
    assert lines[0] == f"goes on after epoch {epoch}"
    pd.testing.assert_frame_equal(history, uninterrupted)
    assert same(whole.state_dict(), model.state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_checkpoint_of_another_run_is_not_used(images, split, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", math.inf)
    path = tmp_path / "checkpoint.safetensors"
    training.fit(tiny(), images, split, Recipe(epochs=2, **QUICK), checkpoint=path)
    lines = []
    other = QUICK | {"learning_rate": 0.001}
    history = training.fit(
        tiny(), images, split, Recipe(epochs=2, **other), checkpoint=path, say=lines.append
    )
    assert (
        lines[0]
        == "checkpoint.safetensors is of another training (learning_rate differ): training begins anew"
    )
    assert len(history) == 2
    path.write_bytes(b"no checkpoint")
    lines.clear()
    training.fit(tiny(), images, split, Recipe(epochs=1, **QUICK), checkpoint=path, say=lines.append)
    assert "cannot be read" in lines[0]


def test_checkpoints_are_not_written_when_they_would_cost_too_much(images, split, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "DISK_RATE", 1.0)  # a byte a second
    training.fit(
        tiny(), images, split, Recipe(epochs=2, **QUICK), checkpoint=tmp_path / "checkpoint.safetensors"
    )
    assert not list(tmp_path.iterdir())


# --- faults -------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_state(images, split):
    model, states = tiny(), []

    class Store:
        """Images of which one row becomes NaN after the second epoch."""

        size = (SIDE, SIDE)

        def __len__(self):
            return len(images)

        def __getitem__(self, rows):
            x = images[rows].clone()
            return x * math.nan if len(states) == 2 else x

    def say(line):
        states.append(weights_of(model))

    with pytest.raises(training.Diverged, match=r"epoch 3 .* as after epoch [12], its last good state"):
        training.fit(
            model, Store(), split, Recipe(epochs=5, batch=8, learning_rate=0.003, pgd_clips=-1), say=say
        )
    assert any(same(state, model.state_dict()) for state in states)


def test_a_learning_rate_that_blows_up_is_noticed(images, split):
    model = tiny()
    with pytest.raises(training.Diverged, match="try a lower one"):
        training.fit(model, images, split, Recipe(epochs=3, batch=8, learning_rate=1e38, schedule="constant"))
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_step_is_halved_when_memory_runs_out(images, split, monkeypatch):
    model, lines, met = tiny(), [], []
    forward = model.network.forward

    def short(x):
        if len(x) > 4 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("a fake")
        met.append(len(x))
        return forward(x)

    monkeypatch.setattr(model.network, "forward", short)
    history = training.fit(model, images, split, Recipe(epochs=1, batch=12, pgd_clips=-1), say=lines.append)
    said = "memory ran out: a step of 12 images is taken in {} parts from here on"
    assert lines[:2] == [said.format(2), said.format(4)]
    assert history.attrs["parts"] == 4


def test_the_parts_of_a_step_add_up_to_the_step(images, split):
    """Without batch norm's statistics and dropout a halved step is the whole step."""
    labels, cpu = torch.arange(8) % CLASSES, torch.device("cpu")

    def gradients(parts):
        model, recipe = tiny().eval(), Recipe(weight_decay=0.0)
        state = training._State(model, recipe, images, split)
        state.parts = parts
        learner = training._Learner(model, recipe, images, split, cpu, print)
        total = learner.step(state, images[:8], labels, 0.0)
        return total, [weight.grad.clone() for weight in model.parameters()]

    (one, whole), (two, halves) = gradients(1), gradients(4)
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-6)


def test_a_step_that_is_recorded_is_the_step(images, split, monkeypatch):
    """By the code that a GPU runs; elsewhere than there, what is recorded is done again."""
    settings = Recipe(training="adversarial", epochs=5, **QUICK)
    plain, recorded = tiny(), tiny()
    one = training.fit(plain, images, split, settings)
    init = training._Learner.__init__

    def graphed(self, *given):
        init(self, *given)
        self.graphed = True

    monkeypatch.setattr(training._Learner, "__init__", graphed)
    made = []
    step = training._RecordedStep
    monkeypatch.setattr(training, "_RecordedStep", lambda *given: made.append(len(given[1])) or step(*given))
    two = training.fit(recorded, images, split, settings)
    pd.testing.assert_frame_equal(one, two)
    assert same(plain.state_dict(), recorded.state_dict())
    assert sorted(made) == [7, 8], "one for each batch size"


def test_a_step_that_cannot_be_recorded_is_taken_plainly_and_said(images, split, monkeypatch):
    init, lines = training._Learner.__init__, []

    def graphed(self, *given):
        init(self, *given)
        self.graphed = True

    def fail(*given, **more):
        raise RuntimeError("no capture")

    monkeypatch.setattr(training._Learner, "__init__", graphed)
    monkeypatch.setattr(training.graphs, "record", fail)
    history = training.fit(tiny(), images, split, Recipe(epochs=5, **QUICK), say=lines.append)
    assert np.isfinite(history["train_loss"]).all()
    assert [line for line in lines if "recorded" in line] == [
        f"steps of {size} images are not recorded as a CUDA graph: no capture" for size in (7, 8)
    ]


def test_memory_that_never_suffices_is_an_error(images, split, monkeypatch):
    model = tiny()

    def never(x):
        raise torch.OutOfMemoryError("a fake")

    monkeypatch.setattr(model.network, "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        training.fit(model, images, split, Recipe(epochs=1, batch=8))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"training": "distillation"},
            "training = 'distillation' is none of adversarial, fgsm_rs, pgd, random_signs, standard, trades",
        ),
        ({"schedule": "steps"}, "schedule = 'steps' is none of"),
        ({"layers": "some"}, "layers = 'some'"),
        ({"epochs": 0}, r"epochs = 0 is not a whole number in \[1, inf\]"),
        ({"batch": 1}, "batch = 1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"budget": 2.0}, "budget = 2.0 is not a number in"),
        ({"alpha": -0.1}, "alpha = -0.1"),
        ({"steps": 0}, "steps = 0"),
        ({"beta": -1.0}, "beta = -1.0"),
        ({"shift": 0.7}, "shift = 0.7"),
        ({"learning_rate": math.nan}, "learning_rate = nan is not a number in"),
        ({"batch": 2.5}, r"batch = 2\.5 is not a whole number"),
        ({"epochs": True}, "epochs = True is not a whole number"),
        ({"epochs": "3"}, "epochs = '3' is not a whole number"),
        ({"seed": 1.5}, r"seed = 1\.5 is not a whole number"),
        ({"precision": "half"}, "precision = 'half' is none of auto, float32, tf32, bfloat16"),
    ],
)
def test_settings_out_of_range_are_refused(given, said, images, split):
    with pytest.raises(ValueError, match=said):
        training.fit(tiny(), images, split, Recipe(**given))


def test_a_split_that_cannot_be_trained_on_is_refused(images, split):
    model = tiny()
    before = weights_of(model)
    wrong = split.assign(label=split["label"] + 1)
    with pytest.raises(ValueError, match=r"label 3 is outside 0 … 2"):
        training.fit(model, images, wrong, Recipe())
    for part in ("train", "validation", "test"):
        with pytest.raises(ValueError, match=f"no image in its {part} part"):
            training.fit(model, images, split[split["part"] != part], Recipe())
    with pytest.raises(ValueError, match="row 60 of the split is not among the 60"):
        training.fit(model, images, split.assign(row=split["row"] + 1), Recipe())
    with pytest.raises(ValueError, match="built for"):
        training.fit(model, images[..., :-1], split, Recipe())
    assert same(before, model.state_dict())


# --- the defences -------------------------------------------------------------------------------------


def test_fgsm_is_eq_14_written_out(images):
    """Against the formula, by plain autograd: J' = α J(x) + (1 − α) J(clip{x + ε sgn ∇J(x)})."""
    labels, budget = torch.arange(6) % CLASSES, 0.03
    x = images[:6]
    for alpha in (0.0, 0.3, 1.0):
        model = tiny().eval()
        asked = x.clone().requires_grad_()
        cross_entropy(model(asked), labels).backward()
        crafted = (x + budget * asked.grad.sign()).clamp(0, 1)
        expected = alpha * cross_entropy(model(x), labels) + (1 - alpha) * cross_entropy(
            model(crafted), labels
        )
        found, _ = defences.get("adversarial")(
            model, x, labels, plain, defences.Settings(budget=budget, alpha=alpha)
        )
        torch.testing.assert_close(found, expected)


def test_trades_is_its_formula_and_without_budget_has_no_second_term(images):
    labels, x, model = torch.arange(6) % CLASSES, images[:6], tiny().eval()
    found, _ = defences.get("trades")(
        model, x, labels, plain, defences.Settings(budget=0.0, beta=6.0, steps=2)
    )
    torch.testing.assert_close(found, cross_entropy(model(x), labels))
    settings = defences.Settings(budget=0.05, beta=6.0, steps=3)
    torch.manual_seed(0)
    some, _ = defences.get("trades")(model, x, labels, plain, settings)
    assert some > found


@pytest.mark.parametrize("name", ["adversarial", "fgsm_rs", "pgd", "trades"])
def test_examples_stay_in_the_ball_and_in_range(name, images, monkeypatch):
    seen = []
    project = defences._project

    def spy(moved, x, low, high, budget, norm):
        seen.append((x, project(moved, x, low, high, budget, norm)))
        return seen[-1][1]

    monkeypatch.setattr(defences, "_project", spy)
    x = images[:6].clone()
    settings = defences.Settings(budget=0.04, steps=3)
    defences.get(name)(tiny(), x, torch.arange(6) % CLASSES, plain, settings)
    assert torch.equal(x, images[:6])
    assert seen
    for clean, crafted in seen:
        assert (crafted - clean).abs().max() <= 0.04 + 1e-6
        assert crafted.min() >= 0
        assert crafted.max() <= 1


def test_the_control_moves_every_value_as_far_as_fgsm_and_asks_no_model(images):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)[:, :CLASSES]

    x = images[:6] * 0.8 + 0.1  # so that nothing is clipped
    labels, settings = torch.arange(6) % CLASSES, defences.Settings(budget=0.04)
    defences.get("random_signs")(Spy(), x, labels, plain, settings)
    (changed,) = seen
    assert torch.allclose((changed - x).abs(), torch.full_like(x, 0.04), atol=1e-6)
    assert 0.4 < (changed > x).float().mean() < 0.6
    defences.get("random_signs")(Spy(), torch.ones_like(x), labels, plain, settings)
    assert seen[-1].max() <= 1


@pytest.mark.parametrize("name", ["adversarial", "fgsm_rs", "pgd", "trades"])
def test_crafting_is_in_evaluation_mode_with_the_weights_frozen(name, images):
    """Batch norm counts the batches it takes statistics of: only those that are learnt from."""
    model, modes = tiny(), []
    model.network.norm.register_forward_hook(
        lambda layer, *_: modes.append((layer.training, layer.weight.requires_grad))
    )
    settings = defences.Settings(budget=0.04, steps=3)
    loss, _ = defences.get(name)(model, images[:6], torch.arange(6) % CLASSES, plain, settings)
    learnt = {"adversarial": 1, "fgsm_rs": 1, "pgd": 1, "trades": 2}[name]
    crafting = {"adversarial": 1, "fgsm_rs": 1, "pgd": 3, "trades": 1 + 3}[name]
    assert modes == [(False, False)] * crafting + [(True, True)] * learnt
    assert model.network.norm.num_batches_tracked == learnt
    assert model.training
    loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_frozen_gives_back_what_it_took_even_after_an_error():
    model = tiny()
    model.network.norm.eval()
    model.network.fc.weight.requires_grad_(False)

    def fail():
        with defences.frozen(model):
            assert not model.network.drop.training
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert model.network.drop.training
    assert not model.network.norm.training
    assert not model.network.fc.weight.requires_grad
    assert model.network.conv.weight.requires_grad


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_on_a_linear_victim_takes_the_best_step(norm):
    """Two classes, logits ±w·x: the loss rises by ε‖w‖₁ (ℓ∞) or ε‖w‖₂ (ℓ2), and no more."""
    w = torch.randn(64, generator=torch.Generator().manual_seed(3))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    model[1].weight.data = torch.stack([w, -w])
    x, labels = torch.full((3, 1, 8, 8), 0.5), torch.tensor([0, 1, 0])
    crafted = defences.pgd_examples(model, x, labels, budget=0.1, steps=20, norm=norm, seeds=range(3))
    moved = (model(crafted) - model(x))[:, 0] * torch.tensor([-1.0, 1, -1])
    expected = 0.1 * (w.abs().sum() if norm == "linf" else w.norm())
    assert (moved <= expected * (1 + 1e-4)).all()
    assert (moved >= expected * 0.95).all()  # under l2 a path of 2.5 ε leaves some of the random start


def test_pgd_accuracy_never_grows_with_the_budget_nor_depends_on_the_batch(images, split):
    model = tiny()
    training.fit(model, images, split, Recipe(epochs=6, pgd_clips=-1, batch=8, learning_rate=0.003))
    rows, labels = split["row"], split["label"]
    rates = [
        training.pgd_correct(model, images, rows, labels, budget=b, steps=5).mean() for b in (0, 0.05, 0.5)
    ]
    clean = (models.predict(model, images).argmax(1).numpy() == labels).mean()
    assert rates[0] == clean
    assert rates[0] >= rates[1] >= rates[2]
    assert rates[2] < 0.1
    few = [training.pgd_correct(model, images, rows, labels, budget=0.05, steps=5, batch=n) for n in (7, 60)]
    assert (few[0] == few[1]).all()


def test_adversarial_training_makes_more_robust(images, split):
    rows, labels = split["row"], split["label"]
    rates = {}
    for name in ("standard", "adversarial", "pgd", "trades"):
        model = tiny()
        training.fit(model, images, split, Recipe(training=name, budget=0.06, epochs=15, **QUICK))
        rates[name] = training.pgd_correct(model, images, rows, labels, budget=0.06, steps=10).mean()
    assert min(rates["adversarial"], rates["pgd"], rates["trades"]) > rates["standard"], json.dumps(rates)


def test_the_held_batch_has_every_class():
    labels = np.repeat([0, 1, 2], [30, 5, 5])
    held = training._every_class(labels, 9, 0)
    assert np.bincount(labels[held]).tolist() == [3, 3, 3]
    assert len(set(held)) == 9
