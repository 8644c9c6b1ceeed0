"""Variables that may be the constant 0: zero inputs without biases, padded sequences. There f(z) is f(0), with sign(0) = 0."""

from __future__ import annotations

import numpy as np
import pytest
from marks import few

import tensorprog as tp

n, x = tp.Width("n"), tp.Input("x")
SLOPES = {
    "relu": (tp.relu, 0.0, 0.5),
    "abs": (tp.abs, 0.0, 0.0),
    "leaky_relu": (lambda u: tp.leaky_relu(u, 0.2), 0.0, 0.6),
    "elu": (lambda u: tp.elu(u, 3), 0.0, 2.0),
    "relu * sign": (lambda u: tp.relu(u) * tp.sign(u), 0.0, 0.0),
    "rectified_power": (lambda u: tp.rectified_power(u, 2), 0.0, 0.0),
    "gelu": (tp.gelu, 0.0, 0.5),
}
"""name: (function, its value and derivative at 0, where sign(0) = 0)."""
JUMPS = {
    "sign": (tp.sign, 0.0),
    "step": (tp.step, 0.5),
    "step * exp": (lambda u: tp.step(u) * tp.exp(u), 0.5),
    "1 + sign": (lambda u: 1 + tp.sign(u) + tp.sign(u) ** 2, 1.0),
    "sign * cos": (lambda u: tp.sign(u) * tp.cos(u), 0.0),
}
X = np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])


def routes(net, scheme, names):
    """The kernels by the programs of one and of two examples, and by the limit of a program of all."""
    compute = tp.kernel_fn(net, scheme)
    limit = tp.limit(net, X, of=names, parametrization=scheme)
    alone, apart = compute(X, get=names), compute(X, X.copy(), get=names)
    for i, name in enumerate(names):
        yield name, [np.asarray(alone[i]), np.asarray(apart[i]), np.asarray(limit[name].value, dtype=float)]


@pytest.mark.parametrize("name", [*SLOPES, *JUMPS])
@pytest.mark.parametrize("scheme", few(["tp", "ntk"], ["tp"]))
def test_a_layer_at_a_zero_input(name, scheme):
    f, value, *slope = (SLOPES | JUMPS)[name]
    net = tp.Network(tp.readout("v", f(tp.dense("U", x, n, b_std=0)), b_std=0))
    names = ("nngp", "ntk") if slope else ("nngp",)
    for kind, found in routes(net, scheme, names):
        for k in found:
            assert np.allclose(k, found[0], rtol=1e-12, atol=1e-13), (kind, found)
            # the bias of the readout has no variance; in "tp" it trains, and so does the one before
            want = value**2 + (0 if kind == "nngp" or scheme != "tp" else 1 + slope[0] ** 2)
            assert k[0, 0] == pytest.approx(want, abs=1e-13) and k[0, 2] == pytest.approx(want, abs=1e-13), (kind, k)


def test_a_sequence_padded_on_the_left():
    """Two steps of zeros, and one: relu'(0) = 1/2 stands in the gradients of the states that are 0."""
    y = np.array([[[0.0], [0.0], [1.0]], [[0.0], [0.5], [1.0]]])
    h = tp.rnn("r", tp.Input("x", axes=("t",)), n, phi=tp.relu, b_std=0)
    net = tp.Network(tp.readout("v", tp.take(h, "t", -1), b_std=0))
    compute = tp.kernel_fn(net, "tp")
    limit = np.asarray(tp.limit(net, y, of=("ntk",), parametrization="tp")["ntk"].value, dtype=float)
    for k in (compute(y, get="ntk"), compute(y, y.copy(), get="ntk"), limit):
        # 1 + q3 + s3 (1 + x3^2 + q2 + s2 (1 + q1 + x2^2 + s1 (1 + x1^2))), s = 1/4 where the state is 0 and else 1/2
        assert np.diag(k) == pytest.approx([2.65625, 3.0], rel=1e-13)


def test_the_limit_of_a_program_at_a_zero_variance():
    scale = tp.Scalar("c")
    z = tp.Vector("z", n)
    p = tp.Program(
        a=tp.moment(tp.step(scale * z) ** 2),
        b=tp.moment(tp.sign(scale * z) ** 2 * tp.cos(scale * z)),
        c=tp.moment(z * z),
    )
    found = tp.limit(p, values={"c": 0})
    assert found["a"].value == 0.25 and found["b"].value == 0 and found["c"].value == 1
    assert float(tp.limit(p, values={"c": 3})["a"].value) == 0.5
