"""What is finite is answered, what is not is refused: ranges, growth, logarithms, norms, numbers out of range."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from marks import few
from scipy.integrate import quad

import tensorprog as tp

n = tp.Width("n")
W = tp.Matrix("W", n, n)
x, y = tp.Vector("x", n), tp.Vector("y", n)
m = tp.moment
exp, log, sqrt, tanh = tp.exp, tp.log, tp.sqrt, tp.tanh


def gauss(f: Callable[[float], float], *kinks: float) -> float:
    """E f of a standard Gaussian variable."""
    ends = [-12.0, *kinks, 12.0]
    parts = [
        quad(
            lambda z: f(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), a, b, limit=300, epsabs=1e-14, epsrel=1e-13
        )[0]
        for a, b in pairwise(ends)
    ]
    return sum(parts)


def softplus(z: float) -> float:
    return max(z, 0) + math.log1p(math.exp(-abs(z)))


FINITE = {
    "exp of a parabola": (lambda: m(exp(x - x * x / 2)), math.exp(1 / 4) / math.sqrt(2)),
    "exp of a quartic": (lambda: m(exp(x - x**4)), gauss(lambda z: math.exp(z - z**4))),
    "exp of relu minus a square": (lambda: m(exp(3 * tp.relu(x) - x * x)), gauss(lambda z: math.exp(3 * max(z, 0) - z * z), 0)),
    "exp of x tanh x minus a square": (
        lambda: m(exp(x * tanh(x) - x * x)),
        gauss(lambda z: math.exp(z * math.tanh(z) - z * z)),
    ),
    "exp of a quadratic form": (lambda: m(exp(x * y - x * x - y * y)), 1 / math.sqrt(8)),
    "1/(x^2 - 2 x + 2)": (lambda: m(1 / (x * x - 2 * x + 2)), gauss(lambda z: 1 / (z * z - 2 * z + 2))),
    "1/(x^4 - x + 1)": (lambda: m(1 / (x**4 - x + 1)), gauss(lambda z: 1 / (z**4 - z + 1))),
    "1/(tanh^2 - tanh + 1)": (
        lambda: m(1 / (tanh(x) ** 2 - tanh(x) + 1)),
        gauss(lambda z: 1 / (math.tanh(z) ** 2 - math.tanh(z) + 1)),
    ),
    "log of a parabola": (lambda: m(log(1 + x + x * x)), gauss(lambda z: math.log(1 + z + z * z))),
    "log |x|": (lambda: m(log(abs(x))), -(math.log(2) + np.euler_gamma) / 2),
    "log x^2": (lambda: m(log(x * x)), -(math.log(2) + np.euler_gamma)),
    "log sigmoid": (lambda: m(log(tp.sigmoid(100 * x))), gauss(lambda z: -softplus(-100 * z), -0.5, 0, 0.5)),
    "log(1 - tanh^2)": (lambda: m(log(1 - tanh(x) ** 2)), gauss(lambda z: -2 * math.log(math.cosh(z)))),
    "a large exponential": (
        lambda: m(exp(26 * x - 338) * tp.sigmoid(x)),
        gauss(lambda z: 1 / (1 + math.exp(-z - 26))),
    ),
    "one that another factor stops": (lambda: m(exp(5 * x) * tp.sigmoid(-5 * x)), 0.5),
    "sqrt(x^2)": (lambda: m(sqrt(x * x)), math.sqrt(2 / math.pi)),
    "a norm": (lambda: m(sqrt(x * x + y * y)), math.sqrt(math.pi / 2)),
    "relu^1.5": (lambda: m(tp.relu(x) ** 1.5), gauss(lambda z: max(z, 0) ** 1.5, 0)),
    "two layers of elu": (lambda: m(tanh(W @ tp.elu(tp.Vector("u", n, var=20))) ** 2), 0.761361709659),
}  # fmt: skip


@pytest.mark.parametrize("name", FINITE)
def test_finite(name: str) -> None:
    build, value = FINITE[name]
    found = tp.limit(tp.Program(q=build()))["q"]
    assert found.method in ("quadrature", "closed form")
    assert abs(found.value - value) <= found.error + 2e-12 * abs(value)


def test_squares_written_out() -> None:
    found = tp.limit(tp.Program(q=m(sqrt(x * x + 2 * x * y + y * y))))["q"]
    assert abs(found.value - 2 / math.sqrt(math.pi)) <= found.error < 1e-14


@pytest.mark.parametrize("scale", [1e-8, 1, 1e8])
def test_a_small_constant_under_a_root_is_no_rounding(scale: float) -> None:
    x = tp.Vector("x", n, var=scale**2)
    e = 1e-16 * scale**2
    found = tp.limit(tp.Program(q=m(1 / sqrt(x * x + e))))["q"]
    right = 15.296878182038231 / scale  # exp(a) K0(a) / sqrt(2 pi), a = e / (4 scale^2)
    assert abs(found.value - right) <= found.error + 1e-13 * right


@pytest.mark.parametrize("scale", few([1e-8, 1, 1e8], [1e8]))
def test_the_root_of_a_square_is_an_absolute_value(scale: float) -> None:
    x, y, z = tp.Vector("x", n), tp.Vector("y", n, var=2), tp.Vector("z", n, axes={"t": 3})
    pairs = [
        (x * x + 2 * x * y + y * y, x + y),
        (x * x - 4 * x * y + 4 * y * y + 2 * x - 4 * y + 1, x - 2 * y + 1),
        (z * z - 2 * z * x + x * x, z - x),
        (x * x * scale**2 + 2 * scale * x * y + y * y, scale * x + y),
    ]
    for square, line in pairs:
        found, right = (tp.limit(tp.Program(q=tp.moment(e)))["q"] for e in (tp.sqrt(square), tp.abs(line)))
        assert found.method == right.method == "closed form"
        assert np.allclose(np.array(found), np.array(right), rtol=1e-14, atol=0)
    for other in (x * x + 2 * x * y + 3 * y * y, x * x + 1, x * x + 2 * x + 2, x * x + 1e-16):  # no squares
        assert tp.limit(tp.Program(q=tp.moment(tp.sqrt(other))))["q"].method == "quadrature"


@pytest.mark.parametrize("size", [2, 5, 12])
def test_norms_of_multi_vectors(size: int) -> None:
    v = tp.Vector("v", n, axes={"t": size})
    norm = sqrt(tp.sum(v * v, "t"))
    found = tp.limit(tp.Program(one=m(norm), cube=m(norm**3), more=m(norm * tp.take(v, "t", 0) ** 2)))
    one = math.sqrt(2) * math.exp(math.lgamma((size + 1) / 2) - math.lgamma(size / 2))
    cube = one * (size + 1)
    for name, value in {"one": one, "cube": cube, "more": cube / size}.items():
        assert abs(found[name].value - value) <= found[name].error + 1e-14 * value, name


REFUSED = {
    "root": lambda: m(sqrt(1 - x)),
    "pole": lambda: m(1 / (x * x - 1)),
    "double pole": lambda: m(1 / (x * x - 2 * x + 1)),
    "log of what is 0 half of the time": lambda: m(log(tp.relu(x))),
    "exp of a square": lambda: m(exp(x * x)),
    "exp of a cube": lambda: m(exp(x**3)),
    "exp of an indefinite form": lambda: m(exp(x - x * x + y * y)),
    "exp of -2 log|x|": lambda: m(exp(-2 * log(abs(x)))),
    "1/exp(x - x^2)": lambda: m(1 / exp(x - x * x)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(tp.TensorProgramError):
        tp.limit(tp.Program(q=REFUSED[name]()))


def test_numbers_out_of_range() -> None:
    net_input = tp.Input("x")
    for std in (1e200, 1e-200, 10**400):
        with pytest.raises(tp.TensorProgramError, match=r"square|digits"):
            tp.kernel_fn(tp.Network(tp.readout("v", tp.dense("U", net_input, n, W_std=std))))([[1.0]])
    for text in ("bump(x, -1)", "smooth_sign(x, -2)", "gauss_exp(x, -1)", "smooth_sign(x, -1e-300)"):
        with pytest.raises(tp.TensorProgramError, match="at least 0"):
            tp.parse(f"width n\nvector x : n, mean 0, var 1\noutput m = Moment({text})\n")


def test_an_output_that_is_sampled_beside_a_hyperparameter() -> None:
    eta = tp.Scalar("eta", default=2)
    z = [tp.Vector(f"z{i}", n) for i in range(12)]
    waves = tanh(sum(z[1:], z[0]) * tanh(z[3]) + tp.sin(tp.exp(tanh(z[0] * z[5])) * z[1] * z[2]))
    found = tp.limit(tp.Program(a=m(tanh(eta * x) ** 2), b=m(waves * waves)), samples=2**8)
    assert found["a"].method == "quadrature" and found["b"].kind == "standard error"
