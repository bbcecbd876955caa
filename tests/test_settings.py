"""The parameters of a notebook: what is taken, what is refused by name, and what is bounded."""

import os
import tracemalloc

import pytest

from lib.grid import settings

KNOWN = {
    "build": "build",
    "fold": "1",
    "epochs": 30,
    "rate": 0.1,
    "caps": [100, 200],
    "copies": True,
    "grid": [0.1],
}


@pytest.mark.parametrize(
    ("text", "pairs", "values"),
    [
        ("epochs: 3", [], {"epochs": 3}),
        ("rate: 1", [], {"rate": 1.0}),
        ("caps: [1, 2, 3]\ncopies: false", [], {"caps": [1, 2, 3], "copies": False}),
        ("", [("fold", "1.10"), ("epochs", "7")], {"fold": "1.10", "epochs": 7}),
        ("epochs: 3", [("epochs", "4")], {"epochs": 4}),
        ("grid: [1, 0.5]", [], {"grid": [1.0, 0.5]}),
        ("fold: '010'", [], {"fold": "010"}),
        ("rate: -.5\nepochs: +7", [], {"rate": -0.5, "epochs": 7}),
        ("rate: 5.e-1\nepochs: 0", [], {"rate": 0.5, "epochs": 0}),
        ("\ufeffepochs: 3", [], {"epochs": 3}),
        ("", [("caps", "[1, 2]"), ("rate", "1.5e+0")], {"caps": [1, 2], "rate": 1.5}),
    ],
)
def test_parameters_are_read_as_their_defaults_are(tmp_path, text, pairs, values):
    (tmp_path / "s.yaml").write_text(text)
    found = settings.resolve(KNOWN, [str(tmp_path / "s.yaml")], pairs)
    assert found == values
    assert [type(value) for value in found.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", r"s\.yaml: unknown parameter epoch = 3"),
        ("epochs: 3.5", r"s\.yaml: epochs = 3\.5 is of type float, not int"),
        ("epochs: true", "epochs = True is of type bool, not int"),
        ("epochs: '3'", "epochs = '3' is of type str, not int"),
        (
            "rate: 1e-3",
            r"rate = '1e-3' is of type str, not float; YAML reads 1e-3 as text, write it as 0\.001",
        ),
        ("fold: 1", "fold = 1 is of type int, not str"),
        ("caps: 100", "caps = 100 is of type int, not list"),
        ("caps: [100, many]", r"caps\[1\] = 'many' is of type str, not int"),
        ("epochs: 1\nepochs: 2", r"s\.yaml: epochs is given twice"),
        ("- epochs", "lines of 'name: value' are expected, not a list"),
        ("epochs: [", r"s\.yaml: it is not YAML"),
        (b"fold: \xff", r"s\.yaml: it is not text in UTF-8"),
        ("epochs: !!python/object/apply:os.system [id]", r"s\.yaml: a tag, .* is not allowed"),
        ("rate: .inf", r"s\.yaml: rate = inf must be a finite number"),
        ("rate: -.inf", "rate = -inf must be a finite number"),
        ("rate: .nan", "rate = nan must be a finite number"),
        ("rate: 1.0e+400", "rate = inf must be a finite number"),
        ("grid: [0.5, .inf]", r"grid\[1\] = inf must be a finite number"),
        ("grid: [0.5, 1.0e+400]", r"grid\[1\] = inf must be a finite number"),
        (f"rate: {10**400}", "rate = 1000.*0000 is of type int, not float"),
        (f"epochs: {10**400}", "epochs = 1000.*0000 must be a whole number of at most 64 bits"),
        (f"epochs: {'9' * 5000}", r"s\.yaml: it is not YAML: Exceeds the limit"),
        ("epochs: 010", "epochs = '010' is of type str, not int; write a decimal number"),
        ("epochs: 1:30", "epochs = '1:30' is of type str, not int; write a decimal number"),
        ("epochs: 0x10", "epochs = '0x10' is of type str, not int; write a decimal number"),
        ("epochs: 1_000", "epochs = '1_000' is of type str, not int; write a decimal number"),
        ("epochs: 0b11", "epochs = '0b11' is of type str, not int"),
        ("rate: 1:30.5", "rate = '1:30.5' is of type str, not float; write a decimal number"),
        ("caps: [010]", r"caps\[0\] = '010' is of type str, not int"),
        ('build: "\\ud800"', r"s\.yaml: build = '\\ud800' has letters that UTF-8 cannot write"),
        ('"\\udcff": 1', r"s\.yaml: unknown parameter"),
        ("epochs: &a 3\nrate: *a", r"s\.yaml: the alias \*a is not allowed"),
        ("caps: [[1]]", r"s\.yaml: lists within lists are not allowed"),
        ("caps: {a: {b: 1}}", "lists within lists are not allowed"),
        ("<<: {epochs: 3}", "unknown parameter <<"),
        ("? [epochs]\n: 3", r"s\.yaml: it is not YAML"),
        ("epochs: 3\n---\nepochs: 4", r"s\.yaml: it is not YAML"),
        ("epochs: 2026-01-01", "epochs = datetime.* is of type date, not int"),
        ("epochs:", "epochs = None is of type NoneType, not int"),
        ("epochs: 3\0", r"s\.yaml: it is not YAML"),
        ("epochs: !!int 010", r"s\.yaml: a tag, such as !!int, is not allowed"),
        ('rate: !!float "inf"', "a tag, such as !!int, is not allowed"),
        ("epochs: 1٢", "epochs = '1٢' is of type str, not int"),
        ("epochs: 2026-99-99", r"s\.yaml: it is not YAML: month must be in"),
        ("rate: 1.7976931348623159e+308", "rate = inf must be a finite number"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(tmp_path, text, said):
    (tmp_path / "s.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(settings.Refused, match=said):
        settings.resolve(KNOWN, [str(tmp_path / "s.yaml")], [])


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("epochs", "["), r"-p epochs '\[': it is not YAML"),
        (("epochs", "{a: b"), "it is not YAML"),
        (("rate", ".inf"), "rate = inf must be a finite number"),
        (("epochs", "010"), "epochs = '010' is of type str"),
        (("caps", "&a [*a]"), r"the alias \*a is not allowed"),
        (("epoch", "3"), "unknown parameter epoch = '3'"),
        (("build", "\udcff"), "has letters that UTF-8 cannot write"),
    ],
)
def test_a_bad_pair_is_refused_by_name(pair, said):
    with pytest.raises(settings.Refused, match=said):
        settings.resolve(KNOWN, [], [pair])


def nested(depth):
    return "caps: " + "[" * depth + "]" * depth


def bomb(doublings=30):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, doublings))]
    return "\n".join([*lines, f"epochs: *a{doublings - 1}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(), r"s\.yaml: the alias \*a0 is not allowed"),
        (nested(5_000), r"s\.yaml: lists within lists are not allowed"),
        ("{" * 5_000, "lists within lists are not allowed"),
        ("\n".join(f"k{i}: {i}" for i in range(40_000)), r"s\.yaml: it has more than 20000 bytes"),
        ("\n".join(f"k{i}: {i}" for i in range(1_500)), "unknown parameter k0 = 0"),
        ("\n".join("k: 1" for _ in range(2_000)), "k is given twice"),
        ("\n".join(f"k{i // 2}: {i}" for i in range(1_500)), "k0, .*, k8 is given twice"),
        (f"epochs: {'x' * 19_000}", "epochs = 'xxx.* is of type str, not int"),
        (f"{'x' * 19_000}: 1", "it is not YAML"),
        (f"caps: [{', '.join('x' for _ in range(5_000))}]", r"caps\[0\] = 'x' is of type str"),
    ],
    ids=["bomb", "lists", "mappings", "large", "names", "twice", "pairs", "value", "name", "list"],
)
def test_what_is_large_is_bounded_and_so_is_what_is_said_of_it(tmp_path, text, said):
    (tmp_path / "s.yaml").write_text(text)
    tracemalloc.start()
    with pytest.raises(settings.Refused, match=said) as refused:
        settings.resolve(KNOWN, [str(tmp_path / "s.yaml")], [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(refused.value)) < 1000
    assert peak < 30e6


def test_a_missing_settings_file_is_named():
    with pytest.raises(settings.Refused, match=r"nowhere\.yaml: there is no such settings file"):
        settings.resolve(KNOWN, ["nowhere.yaml"], [])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "it is not an ordinary file"),
        (lambda path: os.mkfifo(path), "it is not an ordinary file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not an ordinary file"),
        (lambda path: path.symlink_to("gone"), "it is a link to nothing"),
        (lambda path: path.symlink_to(path), "it is a link to nothing"),
    ],
    ids=["folder", "FIFO", "device", "dangling link", "loop"],
)
def test_settings_that_are_no_file_are_named_and_not_read(tmp_path, make, said):
    make(tmp_path / "s.yaml")
    with pytest.raises(settings.Refused, match=rf"s\.yaml: {said}"):
        settings.resolve(KNOWN, [str(tmp_path / "s.yaml")], [])


def cell(source, tags=("parameters",)):
    return {"metadata": {"tags": list(tags)}, "source": source}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([cell("a = 1"), cell("b = 2")], "has 2 parameters cells; one is allowed"),
        ([cell("a = 1\na = 2")], "has a twice"),
        ([cell("a = f(1)")], r"has 'a = f\(1\)'; only lines 'name = literal' are allowed"),
        ([cell("a, b = 1, 2")], "only lines 'name = literal'"),
        ([cell("a = b = 1")], "only lines 'name = literal'"),
        ([cell("import os")], "only lines 'name = literal'"),
        ([cell("a = 1"), cell("b = 2", ["injected-parameters"])], "has 2 parameters cells"),
        ([cell("a = = 1")], "the parameters cell is not Python: invalid syntax in line 1"),
    ],
)
def test_a_parameters_cell_is_one_of_literals(cells, said):
    with pytest.raises(settings.Refused, match=said):
        settings.defaults([cell("x = 3", tags=()), *cells])
