"""Kernels of networks in the limit: against recursions by hand, and against finite networks.

Each comparison fails by chance with probability 1e-3 (`tp.compare` says agrees at that level); seeds are fixed, so that it
either always does or never.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from marks import few

import tensorprog as tp

n = tp.Width("n")
m = tp.Width("m", ratio=2)
k = tp.Width("k", ratio=Fraction(1, 2))
X = np.array([[1.0, 1.0], [0.5, -1.0], [0.0, 2.0]])
S = (X**2).sum(1) / 2


def limits(net, data=X, **options):
    return {name: estimate.value for name, estimate in tp.limit(net.program(data, **options)).items()}


# ---- by hand ----
def test_mlp_of_tensor_programs_ii():
    """Theta(x, x) = 3 s/4 + 7/4 at sigma = 1, appendix E.1."""
    h = tp.dense("U", tp.Input("x"), n, b_std=1)
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("W", tp.relu(h), n, b_std=1))))
    found = limits(net, of="ntk", parametrization="tp")["ntk"]
    assert np.allclose(np.diag(found), 3 * S / 4 + 7 / 4, rtol=1e-13)


def test_the_counterexample_of_tensor_programs_ii():
    """Average readout: the W1 part is 8 s (1 + s), gradient independence says 4 s (1 + s); the W2 part 4 (1 + s)^2."""
    one = tp.Vector("one", n, mean=1, var=0)
    h = tp.dense("W2", tp.dense("W1", tp.Input("x"), n) + one, n)
    net = tp.Network(tp.moment(h * h))
    of = ("ntk", "ntk_W1", "ntk_W2")
    for factor, found in ((8, limits(net, of=of)), (4, limits(net, of=of, gia=True))):
        assert np.allclose(np.diag(found["ntk_W1"]), factor * S * (1 + S), rtol=1e-13)
        assert np.allclose(np.diag(found["ntk_W2"]), 4 * (1 + S) ** 2, rtol=1e-13)
        assert np.allclose(found["ntk"], found["ntk_W1"] + found["ntk_W2"], rtol=1e-13)


def test_h_plus_h_is_twice_h():
    h = tp.tanh(tp.dense("U", tp.Input("x"), n, W_std=1.5))
    one, two = [limits(tp.Network(tp.readout("v", y)), X[:2]) for y in (h, h + h)]
    assert np.allclose(two["nngp"], 4 * one["nngp"], rtol=1e-12) and np.allclose(two["ntk"], 4 * one["ntk"], rtol=1e-12)


def v_relu(K):
    d = np.sqrt(np.diag(K))
    c = np.clip(K / np.outer(d, d), -1, 1)
    np.fill_diagonal(c, 1)  # arccos would make 1e-8 of its rounding
    return np.outer(d, d) * (np.sqrt(1 - c**2) + c * (np.pi - np.arccos(c))) / (2 * np.pi), (np.pi - np.arccos(c)) / (
        2 * np.pi
    )


def v_erf(K):
    d = np.sqrt(1 + 2 * np.diag(K))
    slope = 4 / np.pi / np.sqrt(np.outer(d, d) ** 2 - 4 * K**2)
    return 2 / np.pi * np.arcsin(2 * K / np.outer(d, d)), slope


def test_depth_tied_mlp():
    """Section 2 of Tensor Programs II: W contributes sum over l, l' of D^(h^(l+1), h'^(l'+1)) C^(x^l, x'^l')."""
    depth, a, h = 3, 1.7, tp.dense("U", tp.Input("x"), n, W_std=1.3)
    W = tp.Matrix("W", n, n, var=a)
    for _ in range(depth):
        h = W @ tp.relu(h)
    found = limits(tp.Network(tp.readout("v", tp.relu(h))), of=("nngp", "ntk", "ntk_W"))
    # C[l, l'] of x^l = relu(h^l), all layers and inputs jointly; h^0 = U xi is independent of the others.
    L, b = depth + 1, len(X)
    K = np.zeros((L, b, L, b))
    K[0, :, 0] = 1.69 * X @ X.T / 2
    for _ in range(depth):  # each sweep settles one more layer
        C = v_relu(np.where(np.eye(L * b) > 0, 1e-300, 0) + K.reshape(L * b, -1))[0].reshape(K.shape)
        for i in range(1, L):
            for j in range(1, L):
                K[i, :, j] = a * C[i - 1, :, j - 1]
    C, slope = (x.reshape(K.shape) for x in v_relu(K.reshape(L * b, -1)))
    D = np.zeros_like(K)  # of h^l, h'^l'
    D[-1, :, -1] = slope[-1, :, -1]
    for i in reversed(range(L - 1)):
        D[i, :, i] = a * D[i + 1, :, i + 1] * slope[i, :, i]
    W_part = a * sum(D[i + 1, :, i + 1] * C[i, :, i] for i in range(depth))
    assert np.allclose(found["nngp"], C[-1, :, -1], rtol=1e-11)
    assert np.allclose(found["ntk_W"], W_part, rtol=1e-11)
    assert np.allclose(found["ntk"], W_part + C[-1, :, -1] + K[0, :, 0] * D[0, :, 0], rtol=1e-11)


@pytest.mark.parametrize("average", [False, True])
def test_rnn_of_tensor_programs_ii(average):
    """Section 6.2.1 with the additive term of the average readout that the paper's text forgets."""
    T, w, u, b, v = 3, 1.2, 0.8, 0.3, 1.5
    data = np.random.default_rng(1).standard_normal((2, T, 4))
    U, W, s, states = (
        tp.dense("U", tp.Input("x", axes=("t",)), n, W_std=u**0.5, b_std=b**0.5),
        tp.Matrix("W", n, n, var=w),
        None,
        [],
    )
    for t in range(T):
        h = tp.take(U, "t", t)
        s = tp.erf(h if s is None else W @ s + h)
        states.append(s)
    net = tp.Network(tp.readout("v", sum(states) / T if average else s, W_std=v**0.5))
    found = limits(net, data, parametrization="tp")
    gram = np.einsum("itd,jsd->itjs", data, data) / 4
    K, C = u * gram + b, np.zeros_like(gram)
    for _ in range(T):
        C = v_erf(K.reshape(2 * T, -1))[0].reshape(K.shape)
        K[:, 1:, :, 1:] = (w * C + u * np.roll(gram, (-1, -1), (1, 3)) + b)[:, :-1, :, :-1]
    C, slope = (x.reshape(K.shape) for x in v_erf(K.reshape(2 * T, -1)))
    D = np.zeros_like(K)
    for t in reversed(range(T)):
        for r in reversed(range(T)):
            last = v / T**2 if average else v * (t == r == T - 1)
            D[:, t, :, r] = slope[:, t, :, r] * (last + (w * D[:, t + 1, :, r + 1] if max(t, r) < T - 1 else 0))
    theta = (D * gram).sum((1, 3)) + D.sum((1, 3)) + (D[:, 1:, :, 1:] * C[:, :-1, :, :-1]).sum((1, 3))
    out = C.mean((1, 3)) if average else C[:, -1, :, -1]
    assert np.allclose(found["nngp"], v * out, rtol=1e-12)
    assert np.allclose(found["ntk"], theta + out, rtol=1e-12)


# ---- against finite networks ----
def tied(width, other):
    """W and W.T both forward."""
    W = tp.Matrix("W", width, other, var=1.5)
    h = tp.tanh(tp.dense("U", tp.Input("x"), other, b_std=0.5))
    return tp.readout("v", tp.tanh(W.T @ tp.tanh(W @ h)))


def tied_and_linear(width, other):
    """As closed forms: W.T W twice, beside a tanh."""
    W = tp.Matrix("W", width, other, var=1.5)
    h = tp.erf(tp.dense("U", tp.Input("x"), other, b_std=0.5))
    return tp.readout("v", W.T @ (W @ (W.T @ (W @ h) + h)))


def readout_inside():
    """The readout vector is a bias inside: its gradient and the body depend on each other."""
    v = tp.Vector("v", n, var=1, trainable=True)
    return tp.readout(v, tp.tanh(tp.dense("W", tp.tanh(tp.dense("U", tp.Input("x"), n)), n) + v), b_std=0.7)


def transposed_into_a_moment():
    W = tp.Matrix("W", m, n)
    h = tp.tanh(tp.dense("U", tp.Input("x"), n))
    g = W @ h
    return tp.moment(tp.tanh(W.T @ tp.tanh(g)) * h + tp.moment(g**2) * h)


def recurrent():
    """W forward and back in time."""
    u, W, s = tp.dense("U", tp.Input("x", axes=("t",)), n), tp.Matrix("W", n, n), None
    for t in range(3):
        h = tp.take(u, "t", t)
        s = tp.tanh(h if s is None else (W if t % 2 else W.T) @ s + h)
    return tp.readout("v", s)


def gated():
    """A scalar of the body multiplies it; and vectors of three widths meet in scalars."""
    h = tp.relu(tp.dense("U", tp.Input("x"), n))
    g, f = tp.relu(tp.dense("A", h, m)), tp.tanh(tp.dense("B", h, k))
    return tp.readout("v", [g * tp.tanh(tp.moment(f**2)), h * tp.moment(g)])


def relu_times_h():
    h = tp.dense("U", tp.Input("x"), n, W_std=2**0.5)
    return tp.readout("v", tp.relu(h) * h, W_std=2**0.5)


SEQUENCE = np.random.default_rng(2).standard_normal((2, 3, 4))
ARCHITECTURES = {
    "tied, ratio 1": (lambda: tied(n, n), X),
    "tied, ratio 2": (lambda: tied(m, n), X),
    "tied, ratio 1/2": (lambda: tied(k, n), X),
    "tied, ratio 4": (lambda: tied(m, k), X),
    "tied and linear, ratio 2": (lambda: tied_and_linear(m, n), X),
    "tied and linear, ratio 1/2": (lambda: tied_and_linear(k, n), X),
    "readout vector inside": (readout_inside, X),
    "average readout": (transposed_into_a_moment, X[:1]),
    "recurrent": (recurrent, SEQUENCE),
    "gated": (gated, X),
}


@pytest.mark.parametrize("name", few(ARCHITECTURES, ("tied and linear, ratio 2", "gated")))
def test_against_finite_networks(name):
    build, data = ARCHITECTURES[name]
    net = tp.Network(build())
    of = ("ntk",) if name == "average readout" else ("nngp", "ntk")
    c = tp.compare(net.program(data, of=of), widths=[64, 128, 256], seeds=24)
    assert c.agrees, c


@pytest.mark.slow
def test_what_quadrature_cannot_do_is_sampled():
    """W, W.T, W, W.T: sampled integrals made a covariance indefinite; then the population has the answer."""
    W = tp.Matrix("W", m, n, var=1.5)
    h = tp.tanh(tp.dense("U", tp.Input("x"), n, b_std=0.5))
    net = tp.Network(tp.readout("v", tp.tanh(W.T @ tp.tanh(W @ tp.tanh(W.T @ tp.tanh(W @ h))))))
    c = tp.compare(net.program(X[:2]), widths=[64, 128, 256], seeds=24)
    assert c.agrees, c


# ---- where neural-tangents is wrong ----
def wrong_there(name):
    """golden/neural_tangents: sums and products of dependent branches, treated there as independent."""
    h = tp.relu(tp.dense("U", tp.Input("x"), n, W_std=2**0.5))
    W = tp.Matrix("W", n, n, var=2)
    a = tp.dense("A", h, n, W_std=2**0.5)
    out = {
        "h + h": lambda: a + a,
        "h * h": lambda: a * a,
        "relu(h) * h": lambda: tp.relu(a) * a,
        "W h + W h": lambda: W @ h + W @ h,
    }[name]()
    return tp.Network(tp.readout("v", out, W_std=2**0.5))


@pytest.mark.parametrize("name", few(["h + h", "h * h", "relu(h) * h", "W h + W h"], ["h + h", "relu(h) * h"]))
def test_dependent_branches(name):
    """Treated as independent, h + h would have half this kernel: twenty standard errors and more away."""
    p = wrong_there(name).program(X, of="ntk")
    exact = tp.limit(p)["ntk"].value
    runs = tp.run(p, n=512, seeds=40, weights="dense")["ntk"]
    mean, error = runs.mean(0), runs.std(0, ddof=1) / 40**0.5
    assert (np.abs(mean - exact) < 5 * error + 0.01 * np.abs(exact)).all()
    assert (np.abs(np.diag(mean)) - np.abs(np.diag(exact)) / 2 > 10 * np.diag(error)).all()


@pytest.mark.parametrize("base,share", [(tp.relu, 1), (tp.abs, 2)])
def test_half_integer_powers_have_a_tangent_kernel(base, share):
    """phi = base**(3/2): E phi^2 + v E phi'^2 with phi'^2 = 9/4 base, at a diagonal; x = [1, 2] has v = 5/2."""
    n = tp.Width("n")
    net = tp.Network(tp.readout("v", base(tp.dense("U", tp.Input("x"), n, b_std=0)) ** 1.5, b_std=0))
    found = tp.kernel_fn(net)(np.array([[1.0, 2.0]]))
    v, root = 2.5, math.sqrt(2 * math.pi)
    third, first = 2 / root * v**1.5, 1 / root * v**0.5  # E relu^3, E relu
    assert abs(found.nngp[0, 0] - share * third) <= found.error["nngp"] + 1e-15
    assert abs(found.ntk[0, 0] - share * (third + v * 9 / 4 * first)) <= found.error["ntk"] + 1e-15
