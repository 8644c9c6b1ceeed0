"""What users of networks get wrong: one TensorProgramError each, which names the line where the layer was called."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

import tensorprog as tp

n, m = tp.Width("n"), tp.Width("m", ratio=2)
W = tp.Matrix("W", n, m)
X = np.ones((2, 3))


def plain():
    return tp.dense("U", tp.Input("x"), n)


def sequences():
    return tp.dense("U", tp.Input("x", axes=("t",)), n)


# Each function marks its wrong line with # here.
def a_matrix_of_another_shape():
    h = plain()
    g = W @ h  # here
    return tp.readout("v", tp.relu(g))


def a_matrix_of_a_scalar():
    s = tp.moment(plain())
    g = W @ s  # here
    return tp.readout("v", g)


def widths_that_meet():
    a, b = plain(), tp.dense("V", tp.Input("x"), m)
    c = a + b  # here
    return tp.readout("v", c)


def weights_used_as_numbers():
    h = plain()
    g = W * h  # here
    return tp.readout("v", g)


def a_name_with_another_shape():
    a = tp.dense("A", tp.relu(plain()), n)
    b = tp.dense("A", tp.relu(a), m)  # here
    return tp.readout("v", b)


def a_name_with_another_deviation():
    a, x = plain(), tp.Input("x")
    b = tp.dense("U", x, n, W_std=2)  # here
    return tp.readout("v", a + b)


def a_name_that_is_none():
    h = tp.dense("U 1", tp.Input("x"), n)  # here
    return tp.readout("v", h)


def a_number_for_a_width():
    h = tp.dense("U", tp.Input("x"), 64)  # here
    return tp.readout("v", h)


def a_negative_deviation():
    h = tp.dense("U", tp.Input("x"), n, W_std=-1)  # here
    return tp.readout("v", h)


def an_argument_that_does_not_exist():
    h = tp.dense("U", tp.Input("x"), n, V_std=1)  # here
    return tp.readout("v", h)


def data_as_a_vector():
    h = tp.relu(tp.Input("x"))  # here
    return tp.readout("v", h)


def data_in_a_readout():
    x = tp.Input("x")
    return tp.readout("v", x)  # here


def an_output_that_is_a_vector():
    return tp.dense("U", tp.Input("x"), n)  # here


def a_comparison():
    h = plain()
    return tp.readout("v", max(h, 0))  # here


def a_function_of_numpy():
    h = plain()
    return tp.readout("v", np.tanh(h))  # here


def a_product_of_vectors():
    h = plain()
    return tp.readout("v", h @ h)  # here


def a_transposed_vector():
    h = plain()
    return tp.readout("v", h.T)  # here


def a_number_of_a_vector():
    h = plain()
    return tp.readout("v", float(h) * h)  # here


def an_axis_left():
    h = sequences()
    return tp.readout("v", h)  # here


def an_axis_that_is_not_there():
    h = sequences()
    return tp.readout("v", tp.mean(h, "s"))  # here


def a_position_that_is_not_there():
    h = tp.take(sequences(), "t", 7)  # here
    return tp.readout("v", h)


def a_readout_over_no_axis():
    h = sequences()
    return tp.readout("v", h, over="h")  # here


def a_readout_vector_of_another_width():
    h, v = plain(), tp.Vector("v", m)
    return tp.readout(v, h)  # here


CASES = [
    f for f in list(globals().values())
    if inspect.isfunction(f) and f.__module__ == __name__ and "# here" in inspect.getsource(f)
]  # fmt: skip


@pytest.mark.parametrize("build", CASES, ids=lambda f: f.__name__)
def test_the_line_of_the_call_is_named(build):
    lines, first = inspect.getsourcelines(build)
    line = first + next(i for i, text in enumerate(lines) if text.rstrip().endswith("# here"))
    data = np.ones((2, 4, 3)) if "sequences" in "".join(lines) else X
    with pytest.raises(tp.TensorProgramError) as caught:
        tp.Network(build()).program(data)
    assert f"{Path(__file__).name}:{line}" in str(caught.value)


MISSHAPEN = {
    "one example": X[0], "too many axes": X[None], "text": [["a", "b"]], "nothing": np.zeros((0, 3)),
    "no features": np.zeros((2, 0)),
    "complex": 1j * X, "no number": [[1, np.nan]], "infinite": [[np.inf, 1]], "ragged": [[1, 2], [1]], "an object": object(),
    "another name": {"y": X}, "a shape of nothing": (2, 0),
}  # fmt: skip


@pytest.mark.parametrize("what", MISSHAPEN)
def test_data_that_makes_no_sense(what):
    with pytest.raises(tp.TensorProgramError, match=Path(__file__).name):
        tp.Network(tp.readout("v", plain())).program(MISSHAPEN[what])


def test_two_inputs():
    net = tp.Network(tp.readout("v", tp.dense("U", tp.Input("a"), n) + tp.dense("V", tp.Input("b"), n)))
    for wrong in (X, {"a": X}, {"a": X, "b": X[:1]}, {"a": X, "b": X, "c": X}):
        with pytest.raises(tp.TensorProgramError):
            net.program(wrong)
    a, b = tp.Input("x"), tp.Input("x", axes=("t",))
    with pytest.raises(tp.TensorProgramError, match="two different inputs"):
        tp.Network(tp.readout("v", tp.dense("U", a, n) + tp.dense("V", b, n)))


def test_two_batches_of_other_features():
    with pytest.raises(tp.TensorProgramError, match="3 and 4 features"):
        tp.Network(tp.readout("v", plain())).program(X, np.ones((2, 4)))


@pytest.mark.parametrize(
    "options",
    [{"of": "nkt"}, {"of": ["ntk", 3]}, {"of": ()}, {"of": "ntk_Q"}, {"parametrization": "mup"}, {"width": 3}],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(tp.TensorProgramError):
        tp.Network(tp.readout("v", plain())).program(X, **options)


# ---- answers that were wrong, not refused ----
def finite(program):
    return tp.run(program, n=100_000, seeds=1, weights="lazy")["nngp"][0]


def test_coordinates_of_one_call_are_not_those_of_another():
    """A network remembers; with more features than rows, its rows have coordinates that depend on both batches."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 10)), rng.standard_normal((3, 10))
    net = tp.Network(tp.readout("v", plain()))
    net.program(B)
    assert np.abs(finite(net.program(A, B, of="nngp")) - A @ B.T / 10).max() < 0.03  # 0.6 where they are mixed up


def test_inputs_that_share_weights():
    rng = np.random.default_rng(1)
    A, B, P = rng.standard_normal((2, 10)), rng.standard_normal((2, 10)), rng.standard_normal(10)
    a, b = tp.Input("a"), tp.Input("b")
    net = tp.Network(tp.readout("v", tp.dense("U", a, n) + tp.dense("U", b, n)))
    assert (
        np.abs(finite(net.program({"a": A, "b": B}, of="nngp")) - (A + B) @ (A + B).T / 10).max() < 0.1
    )  # 2.8 otherwise
    p = tp.Input("p", axes=None, value=P)
    net = tp.Network(tp.readout("v", tp.dense("U", a, n) + tp.dense("U", p, n)))
    assert np.abs(finite(net.program({"a": A}, of="nngp")) - (A + P) @ (A + P).T / 10).max() < 0.1


def test_outputs_with_one_readout_vector():
    """The covariance of two outputs has the bias that both have, and no other."""
    h = tp.dense("U", tp.Input("x"), n)
    net = tp.Network([tp.readout("v", h), tp.readout("v", h, b_std=1), tp.readout("w", h)])
    found = tp.limit(net.program([[1.0, 1.0, 1.0]], of="nngp"))["nngp"].value[0, 0]
    assert np.allclose(found, [[1, 1, 0], [1, 2, 0], [0, 0, 1]], rtol=1e-12)
