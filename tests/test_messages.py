"""What messages say and where they point: the parts that no other test file owns."""

from __future__ import annotations

import gc
import pickle
import re
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from marks import refused

import tensorprog as tp
from tensorprog.cli import main
from tensorprog.errors import Source, TensorProgramError
from tensorprog.execute.compiled import compiled
from tensorprog.transforms.decouple import program_for

n = tp.Width("n")
x = tp.Vector("x", n)
W = tp.Matrix("W", n, n)
p = tp.Program(q=tp.moment(x * x))


def test_saving_where_nothing_can_be_written(tmp_path):
    with pytest.raises(TensorProgramError, match=r"cannot write .*No such file"):
        tp.save(p, tmp_path / "no folder" / "a.tp")


@pytest.mark.parametrize("seeds", [[3, 3], np.array([1, 1]), [0, 0.5], [], "12", [True, 2], 0, True])
def test_seeds_are_checked_in_one_place(seeds):
    with refused("seeds") as first:
        tp.run(p, 4, seeds)
    with pytest.raises(TensorProgramError) as second:
        tp.compare(p, [4], seeds, against={"q": 1})
    assert first.value.what == second.value.what and first.value.fix == second.value.fix


def test_a_seed_given_twice_on_the_command_line(tmp_path, capsys):
    tp.save(p, tmp_path / "p.tp")
    assert main(["run", str(tmp_path / "p.tp"), "--n", "4", "--seeds", "3,3"]) == 2
    assert "seeds has 3 twice" in capsys.readouterr().err


def test_numpy_on_the_left_of_an_operator():
    two = np.float64(2)
    for got, same in [(two * x, 2.0 * x), (two + x, x + 2.0), (two - x, 2.0 - x), (np.int64(2) * x, 2 * x)]:
        assert got.node == same.node
    s = tp.Vector("y", n, distribution=None) ** 2 + 1
    assert (two / s).node == (2.0 / s).node and (np.array(2.0) * s).node == (2.0 * s).node
    assert (np.float64(1) == x) is False and (np.float64(1) != x) is True
    with pytest.raises(TensorProgramError, match="axis names"):
        np.ones(3) * x


def test_a_name_that_is_nearly_right():
    with pytest.raises(AttributeError, match=r"did you mean tp\.sigmoid"):
        tp.sigmoyd
    with pytest.raises(AttributeError, match=r"tp\.Function"):
        tp.qqq


@pytest.mark.parametrize("power", [False, True])
def test_instructions_inside_an_operator_have_its_line(power):
    h = W @ x
    q = (1 + h) ** -2 if power else x / h  # the line
    program = tp.Program(q=tp.moment(q))
    with pytest.raises(TensorProgramError, match="which can be 0") as caught:
        tp.limit(program)
    assert caught.value.source is not None and caught.value.source.text.endswith("# the line")


def test_a_function_without_a_value_in_the_limit_has_its_line():
    m = tp.moment(W @ x)
    q = 1 / m  # the line
    with pytest.raises(TensorProgramError, match="whose limit is 0") as caught:
        tp.limit(tp.Program(q=q))
    assert caught.value.source is not None and caught.value.source.text.endswith("# the line")


def test_two_things_of_one_name_are_shown_in_the_order_of_lines():
    first = tp.Matrix("A", n, n, var=1)
    for var in (2, 3, 4, 5):  # whatever the order of the digests
        second = tp.Matrix("A", n, n, var=var)
        with pytest.raises(TensorProgramError) as caught:
            tp.Program(b=tp.moment(second @ x), a=tp.moment(first @ x))
        one, two = first.source, second.source
        assert f"n x n, var 1 at {one} and n x n, var {var} at {two}" in caught.value.what
        assert caught.value.source == two


def test_an_output_that_is_a_vector_points_at_the_program():
    h = W @ x
    with pytest.raises(TensorProgramError, match="output q is the vector") as caught:
        tp.Program(q=h)  # the line
    assert caught.value.source is not None and caught.value.source.text.endswith("# the line")


BUILD = """
import tensorprog as tp
def build(act="relu", k=1):
    s = tp.Scalar("s")  # here
    x = tp.Vector("x", tp.Width("n"))
    return tp.Program(m=tp.moment(s * getattr(tp, act)(k * x) ** 2))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(BUILD)
    return str(path)


def said(capsys, *words, status=2):
    assert main(list(words)) == status
    return capsys.readouterr().err


def test_hyperparameters_on_the_command_line(file, capsys):
    text = said(capsys, "limit", file)
    assert "--values s=..." in text and "# here" in text
    assert "--values s=..." in said(capsys, "limit", file, "--set", "s=2")


def test_texts_without_quotes(file, capsys):
    assert main(["limit", file, "--values", "s=1", "--set", "act=abs"]) == 0
    assert capsys.readouterr().out == "m = 1 (exact)\n"
    assert "no Python literal" in said(capsys, "limit", file, "--values", "s=1", "--set", "k=abs")
    assert "no Python literal" in said(capsys, "limit", file, "--values", "s=abs")


def test_warnings_are_one_clean_line(file, capsys):
    words = ["limit", file, "--values", "s=1", "--method", "population", "--samples", "1000"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        lines = said(capsys, *words, status=0).splitlines()
    assert len(lines) == 1 and lines[0].startswith("tensorprog: warning: ") and ".py" not in lines[0]


X = tp.Vector("X", n, axes={"i": 3})
y = tp.Vector("y", n)
INFINITE = {
    "a sum over an axis": lambda: 1 / tp.sum(tp.gaussian(X), "i"),
    "a stack": lambda: 1 / tp.stack([tp.gaussian(x), tp.exp(y)], "j"),
    "a negative one": lambda: 1 / -tp.gaussian(x),
    "its root": lambda: 1 / tp.sqrt(tp.gaussian(x)),
    "its tanh": lambda: 1 / tp.tanh(tp.gaussian(x)),
    "exp of its logarithm": lambda: tp.exp(-2 * tp.log(tp.gaussian(x))),
    "exp of a reciprocal": lambda: tp.exp(1 / tp.sigmoid(x)),
    "a double exponential": lambda: tp.exp(tp.exp(tp.log(1 + x * x))),
    "exp of a square": lambda: tp.exp(tp.sqrt(1 + x**4)),
}


@pytest.mark.parametrize("name", INFINITE)
def test_infinite_moments_are_refused(name):
    with pytest.raises(TensorProgramError, match="moments are infinite"):
        tp.limit(tp.Program(q=tp.moment(INFINITE[name]())))


FINITE = {
    "exp of a root": (lambda: tp.exp(tp.sqrt(1 + x * x)), 4.31227),
    "exp of a logarithm": (lambda: tp.exp(tp.log(1 + x * x)), 2.0),
    "exp of twice a logarithm": (lambda: tp.exp(2 * tp.log1p(x * x)), 6.0),
    "one over an exponential": (lambda: 1 / tp.sigmoid(x), 1 + np.exp(0.5)),
    "a logarithm of an exponential": (lambda: tp.exp(tp.log(1 + tp.exp(x))), 1 + np.exp(0.5)),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_moments_are_not(name):
    build, value = FINITE[name]
    found = tp.limit(tp.Program(q=tp.moment(build())))["q"]
    assert float(found) == pytest.approx(value, rel=1e-3)


def test_single_precision_covariances_say_so():
    a = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    with pytest.raises(TensorProgramError, match="eigenvalue") as caught:
        tp.Vector("v", n, axes="i", cov=a @ a.T - np.float32(1e-5) * np.eye(60, dtype=np.float32))
    assert "float64" in caught.value.fix
    b = a.astype(float)
    program = tp.Program(q=tp.moment(tp.Vector("v", n, axes="i", cov=b @ b.T) ** 2))
    np.testing.assert_allclose(tp.limit(program)["q"].value, (b * b).sum(1))
    assert tp.run(program, 2000)["q"][0] == pytest.approx((b * b).sum(1), rel=0.3)


def test_vectors_that_do_not_fit_into_memory():
    for weights in ("dense", "lazy", "auto"):
        with pytest.raises(TensorProgramError, match=r"n = 1000000000000 need .* GB are free") as caught:
            tp.run(tp.Program(q=tp.moment((W @ x) ** 2)), 10**12, weights=weights)
        assert "lazy" not in caught.value.fix
    with pytest.raises(TensorProgramError, match="GB are free"):
        tp.run(p, 10**12)


def test_what_is_made_of_a_program_lives_as_long_as_it():
    program = tp.Program(q=tp.moment((W.T @ (W @ x)) ** 2))
    tp.run(program, 4, gia=True)
    free = program_for(program, gia=True)
    assert program_for(program, gia=True) is free and compiled(free) is compiled(free)
    tp.run(program, 4)
    again = pickle.loads(pickle.dumps(program))
    assert again == program and not again._derived
    gone = weakref.ref(compiled(program))
    del program, free
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("call", [tp.limit, tp.formula, lambda q: tp.run(q, 4)])
def test_one_message_for_what_is_no_program(call):
    with pytest.raises(TensorProgramError, match="Expression is not a Program"):
        call(tp.moment(x))


def test_long_lines_are_cut(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("x = 1" + " + 1" * 2000)
    error = str(TensorProgramError("too long", source=Source(str(path), 1)))
    assert "x = 1 + 1" in error and error.endswith("...") and len(error) < 150


def test_sizes_of_axes_are_shown_as_the_text_has_them():
    with pytest.raises(TensorProgramError, match=r"axes of vector x are \[i:100000000000\]"):
        tp.parse("width n\nvector x[i:100000000000] : n, mean 0, var 1\noutput q = 1")


def test_widths_that_make_no_sense_say_what_to_give():
    for call in (lambda: tp.compare(p, [], 2), lambda: tp.compare(p, [4, 4], 2), lambda: tp.compare(p, [0], 2)):
        with pytest.raises(TensorProgramError) as caught:
            call()
        assert caught.value.fix


def test_documents_that_are_named_exist():
    root = Path(__file__).parent.parent
    for path in [*(root / "tensorprog").rglob("*.py"), *(root / "tests").glob("*.py")]:
        for name in re.findall(r"[\w/]+\.md\b", path.read_text(encoding="utf-8")):
            assert any((folder / name).exists() for folder in (root, root / "docs")), f"{path.name} names {name}"
