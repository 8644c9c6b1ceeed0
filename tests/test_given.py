"""What users give as data and numbers, and must not be computed with."""

import datetime
import math

import numpy as np
import pytest
from marks import refused

import tensorprog as tp

n = tp.Width("n")
ONE = [[1, 0], [0, 0]]
BAD = {
    "masked": (np.ma.masked_array(np.eye(2), mask=ONE), "masked entries"),
    "masked rows": ([np.ma.masked_array([1.0, 2.0], mask=[0, 1]), np.zeros(2)], "masked entries"),
    "strings": (np.array([["1", "0"], ["0", "1"]]), "made of strings"),
    "nested strings": ([["1", "0"], ["0", "1"]], "made of strings"),
    "bytes": (np.array([[b"1", b"0"], [b"0", b"1"]]), "made of bytes"),
    "dates": (np.full((2, 2), "2020-01-01", dtype="datetime64[D]"), "made of dates"),
    "time differences": (np.full((2, 2), 3, dtype="timedelta64[s]"), "made of time differences"),
    "complex": (np.eye(2) * 1j, "made of complex numbers"),
    "complex objects": (np.array([[1, 1j], [1j, 1]], dtype=object), "made of complex numbers"),
    "strings among objects": (np.array([[1, "0"], [0, 1]], dtype=object), "made of strings"),
    "objects": ([[datetime.datetime(2020, 1, 1)] * 2] * 2, "no array of numbers|not a real number"),
}
TAKES = {
    "data": lambda a: tp.kernel_fn(network())(a),
    "second batch": lambda a: tp.kernel_fn(network())([[1.0, 2.0]], a),
    "run": lambda a: tp.run(network(), a, n=4, seeds=1),
    "limit": lambda a: tp.limit(network(), a),
    "value of an Input": lambda a: tp.Input("x", value=a),
    "gram": lambda a: tp.kernel_fn(network())(gram=a),
    "gram of two batches": lambda a: tp.kernel_fn(network())(gram=(np.ones((2, 2)), a, np.ones((2, 2)))),
    "matrices": lambda a: tp.run(network_in_front(), n=2, matrices={"W": a}),
    "parameters": lambda a: tp.run(network_in_front(), n=2, parameters={"W": a}),
    "compared with": lambda a: tp.compare(
        network(), [[1.0, 2.0], [2.0, 1.0]], widths=[4, 8], seeds=2, against={"ntk": a}
    ),
    "cov": lambda a: tp.Vector("x", n, axes=("b",), cov=a),
    "mean": lambda a: tp.Vector("x", n, axes=("b", "c"), mean=a, var=1),
    "array": lambda a: tp.array(a, axes=("b", "c")),
    "adjacency": lambda a: tp.kernel_fn(graph(a))(np.ones((1, 2, 3))),
    "mask": lambda a: tp.kernel_fn(attending(a))(np.ones((1, 2, 3))),
}


def network():
    return tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), n))))


def network_in_front():
    return tp.Program(m=tp.moment(tp.Matrix("W", n, n) @ tp.Vector("x", n)))


def graph(a):
    h = tp.graph_conv("G", tp.Input("x", axes=("node",)), n, a)
    return tp.Network(tp.readout("v", tp.mean(tp.relu(h), "node")))


def attending(mask):
    h = tp.self_attention("A", tp.dense("U", tp.Input("x", axes=("t",)), n), n, mask=mask)
    return tp.Network(tp.readout("v", tp.mean(h, "t")))


@pytest.mark.parametrize("taken", TAKES)
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_number_is_refused(kind, taken):
    given, message = BAD[kind]
    with refused(message):
        TAKES[taken](given)


@pytest.mark.parametrize("taken", ["data", "cov", "adjacency", "gram", "matrices"])
def test_masks_that_mask_nothing_and_other_kinds_of_numbers_are_fine(taken):
    fine = [np.ma.masked_array(np.eye(2)), np.eye(2, dtype=bool), np.eye(2, dtype=np.float16), np.eye(2).tolist()]
    for a in fine:
        TAKES[taken](a)


def test_data_without_features_says_so():
    with refused("no features"):
        tp.kernel_fn(network())(np.zeros((3, 0)))
    with refused("at least one example"):
        tp.kernel_fn(network())(np.zeros((0, 3)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, "2", 1j])
@pytest.mark.parametrize(
    "build",
    [
        lambda s: tp.dense("U", tp.Input("x"), n, W_std=s),
        lambda s: tp.dense("U", tp.Input("x"), n, b_std=s),
        lambda s: tp.readout("v", tp.dense("U", tp.Input("x"), n), W_std=s),
        lambda s: tp.conv("C", tp.Input("x", axes=("h", "w")), n, W_std=s),
        lambda s: tp.rnn("R", tp.Input("x", axes=("t",)), n, phi=tp.tanh, W_std=s),
        lambda s: tp.gru("R", tp.Input("x", axes=("t",)), n, W_std=s),
        lambda s: tp.graph_conv("G", tp.Input("x", axes=("node",)), n, np.eye(2), b_std=s),
        lambda s: tp.dense("U", tp.Vector("x", n), n, W_std=s),
    ],
)
def test_standard_deviations_are_looked_at_where_they_are_given(build, bad):
    with refused(r"_std|deviation|real number"):
        build(bad)


def test_other_numbers_of_layers_are_finite():
    with refused("eps of layer_norm is nan"):
        tp.layer_norm(tp.dense("U", tp.Input("x"), n), eps=math.nan)


def test_what_is_too_large_for_float32_says_so():
    with refused(r"(?s)3e\+38.*dtype=float"):
        tp.kernel_fn(network())(np.full((1, 3), 1e20), dtype=np.float32)


def test_kernels_of_both_signs_are_drawn_around_zero(tmp_path):
    plot = pytest.importorskip("tensorprog.analysis.plot")
    figure = plot.plot_kernels(
        {"signed": np.array([[1.0, -0.25], [-0.25, 0.5]]), "one sign": np.eye(2)}, tmp_path / "k.svg"
    )
    signed, positive = [ax.images[0] for ax in figure.axes if ax.images]
    assert signed.get_clim() == (-1, 1) and positive.get_clim() == (0, 1)
    assert signed.get_cmap().name != positive.get_cmap().name


def test_data_whose_squares_are_no_floats_are_refused():
    n = tp.Width("n")
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), n))))
    X = np.array([[1.0, 2.0], [1e-170, 1e-171], [0.0, 0.0]])
    for meaning in (lambda: tp.kernel_fn(net)(X), lambda: tp.limit(net, X), lambda: tp.run(net, X, n=8)):
        with refused("less than floats go"):
            meaning()
    assert tp.kernel_fn(net)(X[[0, 2]], get="nngp")[1, 1] == 0
    small = tp.kernel_fn(net)(X[:1] * 1e-130, get="nngp")
    assert abs(small[0, 0] / 1.25e-260 - 1) < 1e-13
