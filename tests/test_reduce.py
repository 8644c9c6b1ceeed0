"""Integrals in fewer variables: against iterated one-dimensional integrals and against the integral as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

import tensorprog as tp
from tensorprog.language.node import topological
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.lower import Lowering

N = tp.Width("n")
X, Y, Z, V, W = [tp.Vector(name, N) for name in "xyzvw"]


def dimensions(x, reduce=True):
    """Of the integrals that are left in a Moment."""
    p = tp.Program(q=tp.moment(x))
    lowering = Lowering(p, {}, Expectation(reduce=reduce))
    return [y.attr.dimension for y in topological([lowering.z[p.outputs["q"].node]]) if y.op == "gauss"]


def value(x):
    return tp.limit(tp.Program(q=tp.moment(x)), method="exact")["q"]


def mean(f):
    """E f(z) of a standard normal."""
    return integrate.quad(lambda z: f(z) * stats.norm.pdf(z), -12, 12, points=[0], epsabs=1e-13, epsrel=1e-12)[0]


CASES = {
    # name: (expression, dimension, truth)
    "product": (tp.relu(X * Y), 1, lambda: 1 / math.pi),
    "relu of a gate": (tp.relu(X * Y + (1 - X) * Z) ** 2, 1, lambda: mean(lambda x: (x * x + (1 - x) ** 2) / 2)),
    "four variables": (
        tp.step(X * Y + V * Z - 1), 2,
        lambda: math.exp(-1) / 2,  # x y + v z has the density of Laplace
    ),
    "gelu": (
        tp.gelu(X * Y + Z), 1, lambda: mean(lambda x: (1 + x * x) / math.sqrt(2 * math.pi * (2 + x * x)))
    ),
    "sigmoid gate": (
        tp.abs(tp.sigmoid(X) * Y + (1 - tp.sigmoid(X)) * Z), 1,
        lambda: mean(lambda x: math.sqrt(2 / math.pi) * math.hypot(1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x)))),
    ),
    "a polynomial beside it": (
        tp.abs(X * Y) * (Y * Z) ** 2 * tp.tanh(X) ** 2, 1,
        lambda: math.sqrt(2 / math.pi) * 2 * mean(lambda x: abs(x) * math.tanh(x) ** 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    x, most, truth = CASES[name]
    assert all(d <= most for d in dimensions(x)) and max(dimensions(x, reduce=False), default=9) >= most
    found, true = value(x), truth()
    assert abs(found.value - true) <= max(6 if found.kind == "standard error" else 1, 1) * found.error + 1e-12


def test_correlated_variables_are_conditioned():
    """Given x, the others are Gaussian with means that depend on x: against the same by numerical iterated integrals."""
    a, b = (X + Y) * 0.6, X * 0.5 - Y * 0.7 + Z * 0.3
    found = value(tp.relu(X * a + b) * tp.tanh(X))
    # given x: X a + b = .6 x^2 + .5 x + (.6 x - .7) y + .3 z

    def inner(x):
        m, s = 0.6 * x * x + 0.5 * x, math.hypot(0.6 * x - 0.7, 0.3)
        return (s * stats.norm.pdf(m / s) + m * stats.norm.cdf(m / s)) * math.tanh(x)

    assert abs(found.value - mean(inner)) <= found.error + 1e-11
    assert found.kind == "bound" and found.error < 1e-7


def test_a_state_space_is_an_integral_in_one_variable():
    n = tp.Width("n")
    B, a = tp.Matrix("B", n, n), tp.Vector("a", n, mean=0.5, var=0.1)
    s = B @ tp.Vector("u0", n)
    for t in range(1, 5):
        s = a * s + B @ tp.Vector(f"u{t}", n)
    p = tp.Program(q=tp.moment(tp.erf(s) ** 2))
    found = tp.limit(p, method="exact")["q"]

    def given(z):
        q = sum([(0.5 + math.sqrt(0.1) * z) ** (2 * k) for k in range(5)])
        return 2 / math.pi * math.asin(2 * q / (1 + 2 * q))

    assert abs(found.value - mean(given)) <= found.error + 1e-12 and found.error < 1e-8


def test_gates_with_axes():
    """Entry by entry: a gate times several inputs."""
    k = 3
    cov = np.array([[1.0, 0.2, 0.1], [0.2, 2.0, -0.3], [0.1, -0.3, 0.5]])
    h = tp.Vector("h", N, axes={"t": k}, cov=cov)
    f = tp.relu((1 + X) * h)
    found = tp.limit(tp.Program(q=tp.moment(f * tp.rename(f, t="s"))), method="exact")["q"]
    root = np.sqrt(np.diagonal(cov))
    rho = cov / np.outer(root, root)
    arc = (
        np.outer(root, root)
        * (np.sqrt(1 - np.minimum(rho, 1) ** 2) + rho * (np.pi - np.arccos(np.minimum(rho, 1))))
        / (2 * np.pi)
    )
    assert np.all(np.abs(found.value - 2 * arc) <= found.error + 1e-12)
