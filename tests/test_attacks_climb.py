"""The climb: who is attacked, how far, what is believed, and what a kill costs."""

import foolbox
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib import attacks, files, names
from lib.analysis.results import ATTACKED, POINT
from lib.crafting import Crafter
from tests.test_attacks import CLASSES, FRAMES, ROWS, Curved, images, linear, named, starts_for, targets, wrap

SMALL = {
    "bim_steps": 10,
    "bim_first": 0.002,
    "bim_rungs": 8,
    "bim_bisections": 3,
    "jsma_thetas": [0.5, 1.0],
    "jsma_steps": 60,
    "deepfool_caps": [10, 20],
    "cwa_cs": [1.0, 10.0],
    "cwa_steps": [30, 60],
    "cwa_search": 10,
    "ddn_steps": 20,
    "pia_steps": 4,
    "pia_samples": 8,
}

SHORT = {"bim_bisections": 1, "cwa_steps": [10, 20], "ddn_steps": 5, "pia_steps": 1}


def given(n=8, net=None):
    net = net or Curved()
    x = images(n)
    label = named(net, x)
    clips = [f"clip {k}" for k in range(n)]
    target = targets(label)
    return net, x, label, target, clips, starts_for(net, target)


EVERY = [*names.ATTACKS, *names.REFERENCE, *names.CONTROLS]


def ladders(only=EVERY, **changed):
    return attacks.ladders((ROWS, FRAMES), only=only, **(SMALL | changed))


def test_a_row_is_what_the_victim_says_of_the_example():
    net, x, label, target, clips, starts = given()
    rows, examples = attacks.climb(wrap(net), x, label, target, clips, ladders(), starts=starts)
    assert list(examples) == list(dict.fromkeys(rows["attack"])) == EVERY
    assert list(rows.drop(columns="seconds")) == [name for name in ATTACKED if name not in POINT]
    for name, found in examples.items():
        own = rows[rows["attack"] == name]
        assert own["clip"].tolist() == clips
        logits = net(found).detach()
        assert own["after"].tolist() == logits.argmax(1).tolist()
        np.testing.assert_allclose(own["confidence"], logits.softmax(1).amax(1), atol=1e-5)
        change = (found - x).flatten(1).double()
        np.testing.assert_allclose(own["l2"], change.norm(dim=1), atol=1e-6)
        np.testing.assert_allclose(own["linf"], change.abs().amax(1), atol=1e-6)
        np.testing.assert_allclose(own["rms"], own["l2"] / (ROWS * FRAMES) ** 0.5)
        assert own["l0"].tolist() == (change != 0).sum(1).tolist()
        assert own["reached"].tolist() == (logits.argmax(1) == target).tolist()
        if name.startswith("BIM"):
            sure = logits.softmax(1)[range(len(x)), target] >= 0.75
            assert own["fooled"].tolist() == (sure & (logits.argmax(1) == target)).tolist()
        assert (own["rung"] > 0).tolist() == own["fooled"].tolist()
    white = rows[rows["attack"].isin(["BIM-a", "BIM-b", "DeepFool", "CWA"])]
    assert white["fooled"].mean() > 0.5


def test_only_clips_that_are_named_rightly_are_attacked():
    net, x, label, target, clips, _ = given()
    label = label.clone()
    label[2] = next(wrong for wrong in range(CLASSES) if wrong not in (label[2], target[2]))
    rows, examples = attacks.climb(wrap(net), x, label, target, clips, ladders(only=["BIM-a"]))
    assert rows["clip"].tolist() == clips[:2] + clips[3:]
    assert len(examples["BIM-a"]) == 7
    wrong = (named(net, x) + 1) % CLASSES
    nobody, _ = attacks.climb(wrap(net), x, wrong, targets(wrong), clips, ladders(only=["BIM-a"]))
    assert list(nobody.columns) == list(rows.columns)
    assert len(nobody) == 0


def test_neither_order_nor_batch_matters():
    net, x, label, target, clips, starts = given()
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, ladders(), starts=starts, until=1.0)
    order = [5, 1, 7, 0, 2, 6, 3, 4]
    again, _ = attacks.climb(
        wrap(net),
        x[order],
        label[order],
        target[order],
        [clips[k] for k in order],
        ladders(),
        starts=starts[order],
        until=1.0,
        batch=3,
    )
    keys, drop = ["attack", "clip"], ["seconds", "forwards", "backwards"]
    pd.testing.assert_frame_equal(
        rows.drop(columns=drop).sort_values(keys, ignore_index=True),
        again.drop(columns=drop).sort_values(keys, ignore_index=True),
        atol=1e-4,
    )


def test_bisection_finds_the_least_budget():
    """On a linear victim the least confident ℓ2 change is known: BIM-b's comes close from above."""
    net, x, clips = linear(classes=2), images(6), list("abcdef")
    label = named(net, x)
    target = 1 - label
    made = ladders(only=["BIM-b"], bim_bisections=6, bim_steps=60, bim_step=0.02)
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, made, until=1.0)
    w = (net.weight[0] - net.weight[1]).detach()
    z = net(x).detach()
    lead = (z[:, 0] - z[:, 1]).abs() + np.log(3)  # the target with probability 3/4
    least = (lead / w.norm()).numpy()
    assert rows["fooled"].all()
    assert (rows["l2"] >= 0.999 * least).all()
    assert (rows["l2"] <= 1.35 * least).all()  # a step of the sign is not a step of the gradient
    coarse, _ = attacks.climb(
        wrap(net), x, label, target, clips, ladders(only=["BIM-b"], bim_bisections=0, bim_steps=60)
    )
    assert coarse["l2"].mean() > rows["l2"].mean()


class Lazy(foolbox.attacks.base.MinimizationAttack):
    """Says it fools, and returns the clip as it came, or outside the bounds."""

    distance = foolbox.distances.l2

    def __init__(self, shift=0.0):
        self.shift = shift

    def run(self, model, inputs, criterion, *, early_stop=None, **kwargs):
        return inputs + self.shift


def test_an_attack_is_never_believed():
    net, x, label, target, clips, _ = given()
    liar = attacks.Ladder([attacks.Rung(Lazy(), 1.0), attacks.Rung(Lazy(), 2.0)], "target")
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, {"liar": liar})
    assert not rows["fooled"].any()
    assert (rows["l2"] == 0).all()
    assert (rows["rung"] == 0).all()
    assert (rows["budget"] == 2.0).all()
    with pytest.raises(ValueError, match="outside"):
        attacks.climb(
            wrap(net),
            x,
            label,
            target,
            clips,
            {"liar": attacks.Ladder([attacks.Rung(Lazy(2.0), 1.0)], "target")},
        )


class Half(foolbox.attacks.base.FixedEpsilonAttack):
    """Fools the clips whose number is below ε, by handing out another's image."""

    distance = foolbox.distances.l2

    def __init__(self, table):
        self._table = table

    def run(self, model, inputs, criterion, *, epsilon, **kwargs):
        out = inputs.clone()
        for n, image in enumerate(inputs):
            for number, (own, other) in enumerate(self._table):
                if torch.equal(own, image) and number < epsilon:
                    out[n] = other
        return out


def test_the_climb_ends_once_enough_are_fooled():
    net, x, label, target, clips, starts = given(10)
    table = list(zip(x, starts, strict=True))
    rungs = [attacks.Rung(Half(table), float(k), epsilon=float(k)) for k in (5, 9, 10)]
    for until, fooled in ((0.4, 5), (0.5, 9), (0.9, 10), (0.89, 9), (1.0, 10)):
        rows, _ = attacks.climb(
            wrap(net), x, label, target, clips, {"half": attacks.Ladder(rungs, "target")}, until=until
        )
        assert rows["fooled"].sum() == fooled
    assert rows["rung"].tolist() == [1] * 5 + [2] * 4 + [3]


def test_a_climb_that_was_cut_off_goes_on_and_ends_the_same(tmp_path):
    net, x, label, target, clips, starts = given()
    made = ladders(**SHORT, bim_rungs=4)
    whole, seen = attacks.climb(wrap(net), x, label, target, clips, made, starts=starts, batch=3)
    pieces = attacks.Pieces(tmp_path / "pieces", files.save, files.load, version="a")
    done = []

    def cut(name, work, after):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(name)
        return pieces(name, work)

    for after in (3, 7, 20):
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            attacks.climb(
                wrap(net),
                x,
                label,
                target,
                clips,
                made,
                starts=starts,
                batch=3,
                keep=lambda name, work, after=after: cut(name, work, after),
            )
    kept = len(list((tmp_path / "pieces").iterdir()))
    assert kept == 20
    rows, examples = attacks.climb(
        wrap(net), x, label, target, clips, made, starts=starts, batch=3, keep=pieces
    )
    pd.testing.assert_frame_equal(rows.drop(columns="seconds"), whole.drop(columns="seconds"))
    assert all(torch.equal(examples[name], seen[name]) for name in seen)
    pieces.clear()
    assert not (tmp_path / "pieces").exists()


def test_a_piece_of_other_settings_is_not_taken(tmp_path):
    net, x, label, target, clips, _ = given(3)
    pieces = attacks.Pieces(tmp_path, files.save, files.load)
    made = {"only": ["DeepFool"]}
    attacks.climb(wrap(net), x, label, target, clips, ladders(**made), keep=pieces)
    before = len(list(tmp_path.iterdir()))
    attacks.climb(wrap(net), x, label, target, clips, ladders(**made), keep=pieces)
    assert len(list(tmp_path.iterdir())) == before
    attacks.climb(wrap(net), x, label, target, clips, ladders(**made, deepfool_caps=[11, 21]), keep=pieces)
    assert len(list(tmp_path.iterdir())) > before


def test_a_victim_in_training_mode_is_refused():
    net, x, label, target, clips, _ = given(4)
    moody = nn.Sequential(net, nn.Dropout(0.5))
    victim = wrap(moody)
    moody.train()
    label = named(moody.eval(), x)
    moody.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        attacks.climb(victim, x, label, target, clips, ladders(only=["FGSM"]))


def test_bad_arguments_are_refused():
    net, x, label, target, clips, _ = given(3)
    with pytest.raises(ValueError, match="names"):
        attacks.climb(wrap(net), x, label, target, clips[:2], ladders(only=["FGSM"]))
    with pytest.raises(ValueError, match="same name"):
        attacks.climb(wrap(net), x, label, target, ["a", "a", "b"], ladders(only=["FGSM"]))
    with pytest.raises(ValueError, match="starting point"):
        attacks.climb(wrap(net), x, label, target, clips, ladders(only=["PIA"]))
    with pytest.raises(ValueError, match="no rung"):
        attacks.climb(wrap(net), x, label, target, clips, {"none": attacks.Ladder([], "target")})


def test_what_a_kill_leaves_of_a_piece_is_cleared_too(tmp_path):
    """A kill while a piece is written leaves its part, which files.atomic names so."""
    pieces = attacks.Pieces(tmp_path / "pieces", files.save, files.load)
    pieces("whole", lambda: {"a": torch.zeros(2)})
    with files.atomic(tmp_path / "pieces" / "cut.safetensors") as part:
        part.write_text("cut")
        left = part.with_name(f"{part.name}0")
        left.write_text("cut")
    pieces.clear()
    assert not (tmp_path / "pieces").exists()


class Tight(Curved):
    """A victim whose passes with a graph bear two images."""

    def forward(self, x):
        if x.requires_grad and len(x) > 2:
            raise torch.OutOfMemoryError("a fake")
        return super().forward(x)


@pytest.mark.parametrize("name", ["BIM-b", "DeepFool"])
def test_a_batch_that_was_halved_is_attacked_once(name):
    net, x, label, target, clips, _ = given()
    made = ladders(only=[name])
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, made, batch=2)
    settled = []

    def progress(places, what, total):
        for place in places:
            settled.append(place)
            yield place

    halved, _ = attacks.climb(wrap(Tight()), x, label, target, clips, made, batch=8, progress=progress)
    assert sorted(settled) == list(range(8))
    for column in ("budget", "iterations", "l2"):
        np.testing.assert_allclose(halved[column], rows[column], rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {
                "x": lambda x: x[:0],
                "label": lambda y: y[:0],
                "target": lambda t: t[:0],
                "clips": lambda c: [],
            },
            "no clip",
        ),
        ({"x": lambda x: x + 1}, "bounds"),
        ({"ladders": lambda made: {}}, "ladders are empty"),
        ({"target": lambda t: t + CLASSES}, r"target_classes are in 0\.\.4"),
        ({"label": lambda y: y - CLASSES}, "labels are classes from 0"),
        ({"until": lambda u: 1.5}, "until"),
        ({"until": lambda u: -0.1}, "until"),
        ({"until": lambda u: float("nan")}, "until"),
        ({"batch": lambda b: 0}, "batch"),
        ({"batch": lambda b: 2.5}, "batch"),
        ({"starts": lambda s: s[:2]}, "starts"),
    ],
)
def test_what_cannot_be_climbed_is_refused(changed, words):
    net, x, label, target, clips, starts = given(3)
    given_ = {"x": x, "label": label, "target": target, "clips": clips, "ladders": ladders(only=["BIM-a"])}
    given_ |= {"until": 0.9, "batch": 16, "starts": starts}
    with pytest.raises(ValueError, match=words):
        attacks.climb(wrap(net), **given_ | {name: change(given_[name]) for name, change in changed.items()})


def test_a_target_that_is_the_label_is_refused():
    net, x, label, target, clips, _ = given(3)
    target[1] = label[1]
    with pytest.raises(ValueError, match=r"target differs from label.*'clip 1'"):
        attacks.climb(wrap(net), x, label, target, clips, ladders(only=["BIM-a"]))


@pytest.mark.parametrize(("n", "batch"), [(1, 16), (4, 1), (4, 16)])
def test_batch_statistics_are_refused_before_they_change(n, batch):
    net, x, label, target, clips, _ = given(n)
    norm = nn.BatchNorm2d(1)
    victim = wrap(nn.Sequential(norm, net))
    norm.train()
    with pytest.raises(ValueError, match="BatchNorm2d is in training mode"):
        attacks.climb(victim, x, label, target, clips, ladders(only=["FGSM"]), batch=batch)
    assert norm.num_batches_tracked == 0


def test_bisection_halves_epsilon_whatever_the_unit_of_the_budget():
    net, x, label, target, clips, _ = given(4)
    made = ladders(only=["BIM-b"])["BIM-b"]
    percent = [attacks.Rung(rung.attack, 100 * rung.budget, rung.epsilon) for rung in made.rungs]
    other = attacks.Ladder(percent, made.goal, made.probability, made.bisections)
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, {"one": made, "other": other})
    one, other = (rows[rows["attack"] == name].reset_index() for name in ("one", "other"))
    assert one["fooled"].any()
    np.testing.assert_allclose(other["budget"], 100 * one["budget"])
    assert other["l2"].tolist() == one["l2"].tolist()


# --- what an attack met on its way, and brackets ------------------------------------------------------


class Traced(nn.Module):
    """The network, and every image that passed through it with the class that it was given."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        logits = self.net(x)
        self.seen += zip(x.detach().clone(), logits.detach().argmax(1).tolist(), strict=True)
        return logits


@pytest.mark.parametrize("name", EVERY)
def test_the_least_norm_of_any_misclassified_image_is_kept(name):
    """One clip at a time, so that each image that passes is its own: the least over a brute-force trace."""
    net, x, label, target, clips, starts = given(3)
    for n in range(3):
        traced, one = Traced(net), slice(n, n + 1)
        made = ladders(only=[name])
        rows, _ = attacks.climb(
            wrap(traced), x[one], label[one], target[one], clips[one], made, starts=starts[one], until=1.0
        )
        inside = [(image, found) for image, found in traced.seen if image.min() >= 0 and image.max() <= 1]
        norms = [float((image - x[n]).double().norm()) for image, found in inside if found != int(label[n])]
        least = min(norms, default=np.inf)
        row = rows.iloc[0]
        assert row["l2_any"] <= row["l2"] or not row["fooled"]
        if name == "PIA":  # some of its probes are inside too, and they are no iterates
            assert row["l2_any"] >= least * (1 - 1e-6)
        else:
            np.testing.assert_allclose(row["l2_any"], least, rtol=1e-5)


def test_a_targeted_attack_meets_nearer_images_than_its_target():
    net, x, label, target, clips, _ = given(12)
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, ladders(only=["BIM-a", "CWA"]))
    fooled = rows[rows["fooled"]]
    assert (fooled["l2_any"] <= fooled["l2"]).all()
    assert (fooled["l2_any"] < 0.9 * fooled["l2"]).mean() > 0.3


def test_a_claim_that_the_judge_does_not_confirm_is_counted_and_does_not_count():
    """Crafted on a copy that gives away one class too easily."""
    net, x, label, target, clips, _ = given(8)
    easy = Curved()
    easy.layers[3].bias.data[int(target[0])] += 2.0
    made = ladders(only=["DeepFool", "CWA"])
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, made, crafted=wrap(easy))
    assert (rows["refused"] > 0).any()
    assert not (rows["fooled"] & (rows["after"] == rows["label"])).any()
    assert (rows["l2_any"].isin([np.inf]) | (rows["l2_any"] > 0)).all()
    honest, _ = attacks.climb(wrap(net), x, label, target, clips, made)
    assert (honest["refused"] == 0).all()
    assert honest["fooled"].sum() > rows["fooled"].sum()


def test_a_copy_is_attacked_and_the_victim_judges():
    net, x, label, target, clips, _ = given(3)
    copy, victim = Traced(net), Traced(net)
    made = ladders(only=["DeepFool"])
    attacks.climb(wrap(victim), x, label, target, clips, made, crafted=wrap(copy))
    assert len(copy.seen) >= 2 * 3  # a step, and the pass that sees where it led
    # Its mode, the clean answers, the batch together and one alone, the verdicts; nothing of the attack.
    assert len(victim.seen) == 1 + 3 + (3 + 1) + 3


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_copy_in_a_precision_answers_in_float32(precision):
    net, x = Curved(), images(4)
    copy = Crafter(net, precision, graphed=False)
    answer = copy(x)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, net(x)) == (precision != "bfloat16")
    assert torch.allclose(answer, net(x), atol=0.1)
    label = named(net, x)
    rows, _ = attacks.climb(
        wrap(net), x, label, targets(label), list("abcd"), ladders(only=["DDN"]), crafted=wrap(copy)
    )
    assert rows["fooled"].sum() + rows["refused"].clip(upper=1).sum() >= 4


@pytest.mark.parametrize("until", [1.0, 0.5])
def test_brackets_end_where_a_climb_from_the_foot_does(until):
    """Equal rungs, norms and flags, for fewer passes; beyond ``until`` brackets may know more."""
    net, x, label, target, clips, starts = given()
    made = ladders(bim_rungs=10, bim_steps=20, jsma_thetas=[0.25, 0.5, 0.75, 1.0], **SHORT)
    how = {"starts": starts, "until": until}
    plain, seen = attacks.climb(wrap(net), x, label, target, clips, made, **how)
    quick, found = attacks.climb(wrap(net), x, label, target, clips, made, brackets=True, **how)
    assert quick["attack"].tolist() == plain["attack"].tolist()
    settled = plain["fooled"]
    for column in ("clip", "rung", "budget", "l2", "bound", "after"):
        assert quick.loc[settled, column].tolist() == plain.loc[settled, column].tolist(), column
    if until == 1.0:
        assert quick["fooled"].tolist() == plain["fooled"].tolist()
        assert all(torch.equal(found[name], seen[name]) for name in seen)
        before, after = (each.groupby("attack")["backwards"].sum() for each in (plain, quick))
        assert after["BIM-b"] < 0.6 * before["BIM-b"]
        assert after["BIM-a"] < 0.9 * before["BIM-a"]


def test_a_clip_without_a_start_has_no_row_and_is_named():
    net, x, label, target, clips, starts = given(5)
    starts[1] = starts[3] = torch.nan
    said, made = [], ladders(only=["PIA", "FGSM"])
    rows, found = attacks.climb(wrap(net), x, label, target, clips, made, starts=starts, say=said.append)
    assert rows.groupby("attack").size().to_dict() == {"PIA": 3, "FGSM": 5}
    assert rows.loc[rows["attack"] == "PIA", "clip"].tolist() == ["clip 0", "clip 2", "clip 4"]
    assert said == ["PIA: no start for 2 of 5 clips, which get no row: clip 1, clip 3"]
    assert len(found["PIA"]) == 5
    assert torch.equal(found["PIA"][[1, 3]], x[[1, 3]])
    nobody, _ = attacks.climb(wrap(net), x, label, target, clips, made, starts=starts * torch.nan)
    assert set(nobody["attack"]) == {"FGSM"}


def test_norms_are_exact_at_least_or_at_most():
    net, x, label, target, clips, starts = given(6)
    made = ladders(only=["BIM-a", "PIA", "DeepFool", "noise"], pia_queries=60)
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, made, starts=starts)
    fooled = np.where(rows["attack"] == "PIA", "at most", "exact")
    assert (rows["bound"] == np.where(rows["fooled"], fooled, "at least")).all()
    assert set(rows["bound"]) == {"exact", "at least", "at most"}
    plain, _ = attacks.climb(wrap(net), x, label, target, clips, ladders(only=["CWA"], cwa_search=0))
    assert set(plain["bound"]) == {"at most"}
    walk = attacks.Ladder([attacks.Rung(attacks.PIA(steps=500, samples=8, floor=0.3), 0.3)], "target")
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, {"PIA": walk}, starts=starts)
    assert set(rows["bound"]) == {"exact"}


def test_a_walk_ends_once_its_ball_has_come_to_rest():
    net, x, label, target, clips, starts = given(6)
    found = {}
    for patience in (0, 100, 10**6):
        walk = attacks.PIA(steps=40, samples=8, patience=patience)
        made = {"PIA": attacks.Ladder([attacks.Rung(walk, 0.001)], "target")}
        found[patience], _ = attacks.climb(wrap(net), x, label, target, clips, made, starts=starts)
    pd.testing.assert_frame_equal(*(found[n].drop(columns="seconds") for n in (0, 10**6)))
    saved = found[0]["queries"] - found[100]["queries"]
    assert (saved >= 0).all()
    assert saved.sum() > 0
    assert (found[100]["linf"] >= found[0]["linf"]).all()
    assert (found[100].loc[saved == 0, "linf"] == found[0].loc[saved == 0, "linf"]).all()
    assert set(found[100]["bound"]) == {"at most"}  # a ball that rests may begin to shrink again


def test_a_ladder_says_the_least_norm_at_which_it_could_fool():
    made = ladders(bim_first=0.01, bim_bisections=2, jsma_thetas=[0.5, 1.0])
    size = (ROWS * FRAMES) ** 0.5
    assert made["BIM-a"].smallest == made["FGSM"].smallest == pytest.approx(0.01 * size / 4)
    assert made["JSMA"].smallest == 0.5
    assert all(made[name].smallest == 0 for name in ("DeepFool", "CWA", "PIA", "DDN"))
    net, x, label, target, clips, starts = given(8)
    rows, _ = attacks.climb(wrap(net), x, label, target, clips, made, starts=starts)
    for name, each in rows.groupby("attack"):
        assert set(each["smallest"]) == {made[name].smallest}
