"""Variables that depend on each other linearly are one dimension of an integral, whatever axes they are seen along."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import erf, expit

import tensorprog as tp

n = tp.Width("n")
W = tp.Matrix("W", n, n)
h, k = tp.Vector("h", n), tp.Vector("k", n)
u = tp.Vector("u", n, axes={"i": 2})
m, tanh, sigmoid = tp.moment, tp.tanh, tp.sigmoid
NODES = np.linspace(-10, 10, 801)  # the trapezoid rule: exact to exp(-2 pi d/0.025), d the distance of the poles
WEIGHTS = np.exp(-(NODES**2) / 2) * 0.025 / np.sqrt(2 * np.pi)


def gauss(f: Callable[..., np.ndarray], correlation: float = 0.0) -> float:
    """E f(x, y) of standard Gaussian variables of that correlation."""
    x, g = NODES[:, None], NODES[None, :]
    y = correlation * x + np.sqrt(1 - correlation**2) * g
    return float(WEIGHTS @ (f(x, y) + 0 * g) @ WEIGHTS)


CASES = {
    "z and -z": (
        lambda: m(sigmoid(-h) * sigmoid(h) * sigmoid(k) * sigmoid(-k)),
        lambda x, y: expit(x) * expit(-x) * expit(y) * expit(-y),
    ),
    "multiples and shifts": (
        lambda: m(tanh(2 * h + 1) * sigmoid(h / 3) * tanh(1 - k) * sigmoid(0.5 * k - 2)),
        lambda x, y: np.tanh(2 * x + 1) * expit(x / 3) * np.tanh(1 - y) * expit(0.5 * y - 2),
    ),
    "sums": (
        lambda: m(tanh(h + k) * sigmoid(h - k) * tanh(h) * sigmoid(k) * sigmoid(2 * k - h)),
        lambda x, y: np.tanh(x + y) * expit(x - y) * np.tanh(x) * expit(y) * expit(2 * y - x),
    ),
    "matrix products": (
        lambda: m(tanh(W @ h) * sigmoid(W @ (2 * h)) * tanh(W @ (h + k)) * sigmoid(W @ k) * tanh(W @ (h - 0.1 * k))),
        lambda x, y: np.tanh(x) * expit(2 * x) * np.tanh(x + y) * expit(y) * np.tanh(x - 0.1 * y),
    ),
    "takes": (
        lambda: m(
            tanh(2 * tp.take(u, "i", 0))
            * sigmoid(-tp.take(u, "i", 0))
            * tanh(tp.take(u, "i", 1))
            * sigmoid(-3 * tp.take(u, "i", 1))
        ),
        lambda x, y: np.tanh(2 * x) * expit(-x) * np.tanh(y) * expit(-3 * y),
    ),
    "picks": (
        lambda: tp.take(
            m(tanh(tp.pick(u, "i", [1, 0])) * sigmoid(-tp.pick(u, "i", [1, 0])) * tp.erf(1 - u) * sigmoid(u)), "i", 0
        ),
        lambda x, y: np.tanh(x) * expit(-x) * erf(1 - y) * expit(y),
    ),
    "scaled by a Moment": (
        lambda: m(tanh(m(k**4) * h) * sigmoid(-m(k**4) * h) * tanh(h + 1) * tanh(k) * sigmoid(1 - k)),
        lambda x, y: np.tanh(3 * x) * expit(-3 * x) * np.tanh(x + 1) * np.tanh(y) * expit(1 - y),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_two_dimensions(name: str) -> None:
    build, f = CASES[name]
    found = tp.limit(tp.Program(q=build()))["q"]
    assert found.method == "quadrature" and found.error < 1e-12
    assert abs(found.value - gauss(f)) < 1e-11


def test_axes() -> None:
    v = tp.Vector("v", n, axes={"i": 2}, cov=np.array([[1, 0.6], [0.6, 1]]))
    y = tp.rename(v, i="j")
    found = tp.limit(tp.Program(q=m(sigmoid(-v) * sigmoid(v) * sigmoid(-y) * tanh(1 + 2 * y))))["q"]
    assert found.method == "quadrature" and np.max(found.error) < 1e-12
    value = np.asarray(found.value)
    one = gauss(lambda x, y: expit(-x) * expit(x) * expit(-y) * np.tanh(1 + 2 * y), 0.6)
    assert abs(value[0, 1] - one) < 1e-11 and abs(value[1, 0] - one) < 1e-11


@pytest.mark.parametrize("phi", [tp.sigmoid, tp.silu])
def test_tangent_kernels_of_sigmoid_and_silu(phi: Callable[..., tp.Expression]) -> None:
    net = tp.Network(tp.readout("v", phi(tp.dense("U", tp.Input("x"), n, b_std=0.1))))
    X = np.array([[1.0, 2.0], [0.3, -1.0]])
    found = tp.limit(net, X)["ntk"]
    assert found.method == "quadrature" and np.max(found.error) < 1e-12
    assert np.max(np.abs(found.value - tp.kernel_fn(net)(X).ntk)) < 1e-12


def test_floats_that_nearly_depend_on_each_other() -> None:
    a = m(tanh((0.1 + 0.2) * h) * sigmoid(0.3 * h) * tanh(0.1 * h + 0.2 * k) * sigmoid(-0.1 * k))
    found = tp.limit(tp.Program(q=a))["q"]
    right = gauss(lambda x, y: np.tanh(0.3 * x) * expit(0.3 * x) * np.tanh(0.1 * x + 0.2 * y) * expit(-0.1 * y))
    assert abs(found.value - right) < max(found.error, 1e-13)
