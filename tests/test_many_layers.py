"""Factors of many layers: each is of order one or cancels another, their product is out of range."""

from __future__ import annotations

import numpy as np
import pytest
from marks import few
from scipy.special import expit

import tensorprog as tp

n, x = tp.Width("n"), tp.Input("x")
X = np.array([[1.0, 2.0, 3.0], [2.0, -1.0, 0.5]])


def network(phi, depth, W_std, b_std=0, norm=None):
    h = tp.dense("U", x, n, W_std=W_std, b_std=b_std)
    for i in range(depth):
        h = phi(h) if norm is None else norm(phi(h))
        h = tp.dense(f"W{i}", h, n, W_std=W_std, b_std=b_std)
    return tp.Network(tp.readout("v", phi(h)))


@pytest.mark.parametrize("norm", [tp.layer_norm, tp.rms_norm] if hasattr(tp, "rms_norm") else [tp.layer_norm])
def test_a_network_with_normalization_is_the_same_at_every_scale(norm):
    """relu after normalization: kernels are those at W_std = 1 times W_std^2, to rounding."""
    depth = 10
    wanted = tp.kernel_fn(network(tp.relu, depth, 1.0, norm=norm))(X)
    for W_std in (1e-9, 1e9):  # squares of W_std^(2 depth) are 1e-360, .., 1e360
        found = tp.kernel_fn(network(tp.relu, depth, W_std, norm=norm))(X)
        for a, b in zip(found, wanted, strict=True):
            assert np.allclose(a / W_std**2, b, rtol=1e-9)
        limit = tp.limit(network(tp.relu, 4, W_std, norm=norm), X, of="ntk")["ntk"]
        few = tp.kernel_fn(network(tp.relu, 4, 1.0, norm=norm))(X, get="ntk")
        assert np.allclose(np.asarray(limit.value) / W_std**2, few, rtol=1e-9)
        assert np.max(np.diag(np.asarray(limit.error))) <= 1e-9 * np.max(np.asarray(limit.value))


def nodes(left, width=1 / 4):
    """Gauss's rule on a panel, for the standard normal."""
    t, w = np.polynomial.legendre.leggauss(24)
    t, w = left + width * (t + 1) / 2, w * width / 2
    return t, w * np.exp(-t * t / 2) / np.sqrt(2 * np.pi)


@pytest.mark.slow
def test_saturated_sigmoids():
    """100 layers of sigmoid, W_std = 10: the recursion of the mean field by quadrature."""
    t, w = [np.concatenate(a) for a in zip(*[nodes(-12 + i / 4) for i in range(96)], strict=True)]

    def mean(f, q):
        return float(np.sum(w * f(np.sqrt(q) * t)))

    q = 100 * X[0] @ X[0] / 3 + 0.05**2
    theta = q
    for _ in range(99):
        slope = mean(lambda u: (expit(u) * expit(-u)) ** 2, q)
        q = 100 * mean(lambda u: expit(u) ** 2, q) + 0.05**2
        theta = q + 100 * theta * slope
    want = mean(lambda u: expit(u) ** 2, q) + theta * mean(lambda u: (expit(u) * expit(-u)) ** 2, q)
    found = tp.kernel_fn(network(tp.sigmoid, 99, 10.0, 0.05))(X[:1], get="ntk")
    assert found[0, 0] == pytest.approx(want, rel=1e-12)


def test_inputs_that_are_nearly_equal_are_known_as_well_as_their_angle():
    """Two rows that have the same products in floating point: the kernel of relu' turns like their angle, 1e-8."""
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", x, n))))
    rows = np.array([[1.0, 0.0], [1.0, 1e-8], [1.0, 0.0]])
    limit = tp.limit(net, rows, of="ntk")["ntk"]
    angle = 1e-8
    want = (np.cos(angle) * (np.pi - angle) * 2 + np.sin(angle)) / (2 * np.pi) / 2
    error = np.asarray(limit.error)
    assert abs(np.asarray(limit.value)[0, 1] - want) <= error[0, 1] and error[0, 1] < 1e-7
    assert np.all(np.diag(error) < 1e-14)
    assert np.max(np.asarray(tp.limit(net, rows[[0, 2]], of="ntk")["ntk"].error)) < 1e-14


@pytest.mark.parametrize("std", [1e200, 1e-200])
def test_a_variance_out_of_range_is_refused(std):
    with pytest.raises(tp.TensorProgramError, match="no floating point number"):
        tp.kernel_fn(network(tp.relu, 1, std))(X)


def test_float32_is_float64_rounded():
    """400 points of a line: angles that float32 cannot tell from 0 keep the kernel positive."""
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("W", tp.relu(tp.dense("U", x, n, b_std=0.1)), n, b_std=0.1))))
    line = np.linspace(-1, 1, 400)[:, None]
    exact, rough = tp.kernel_fn(net)(line), tp.kernel_fn(net)(line, dtype=np.float32)
    for k in ("nngp", "ntk"):
        a, b = getattr(exact, k), getattr(rough, k)
        assert b.dtype == np.float32 and np.array_equal(a.astype(np.float32), b)
        assert np.max(np.abs(a - b)) <= rough.error[k]
        assert np.linalg.eigvalsh(b.astype(float)).min() > -1e-4


@pytest.mark.parametrize("W_std", few([1e-6, 1e3], [1e3]))
def test_sixty_layers_with_normalization(W_std):
    """Each adds 1/2. Jumps are looked for with scalars of generic data: numbers at random would pile up W_std^60."""
    h = tp.dense("U", x, n, W_std=W_std)
    for i in range(59):
        h = tp.dense(f"W{i}", tp.relu(tp.layer_norm(h)), n, W_std=W_std)
    net = tp.Network(tp.readout("v", tp.relu(tp.layer_norm(h))))
    assert tp.kernel_fn(net)(X[:1], get="ntk")[0, 0] == pytest.approx(30.5, rel=1e-12)


def block(x):
    return tp.transformer_block("B", x, n)


@pytest.mark.parametrize(
    "phi", few([tp.abs, tp.leaky_relu, tp.elu], [tp.abs, tp.leaky_relu]), ids=["abs", "leaky_relu", "elu"]
)
def test_a_variable_is_itself_when_numbers_are_moved(phi):
    """Closed forms with an angle, with a conditional variance, and with a quadrant or an integral in place of one."""
    h = tp.dense("U", x, n)
    for i in range(2):
        h = tp.dense(f"W{i}", tp.layer_norm(phi(h)), n)
    net = tp.Network(tp.readout("v", tp.layer_norm(phi(h))))
    rows = np.random.default_rng(1).standard_normal((2, 5))
    found, want = tp.limit(net, rows, of="ntk")["ntk"], tp.kernel_fn(net)(rows, get="ntk")
    assert np.max(np.abs(np.asarray(found.value) - want)) < 1e-14 * np.max(want)
    assert np.max(np.asarray(found.error)) < 1e-12 * np.max(want)


def test_a_token_of_an_example_is_itself():
    """Two groups of axes, (example, token) twice: closed forms of one token with itself."""
    net = tp.Network(tp.readout("v", tp.mean(block(tp.Input("x", axes=("t",))), "t")))
    data = np.random.default_rng(0).uniform(-1, 1, (2, 5, 3))
    assert np.max(np.asarray(tp.limit(net, data, of="ntk")["ntk"].error)) < 1e-13


def test_opposite_inputs_have_a_kernel_of_0():
    """0 is known, beside the diagonals of both batches."""
    found = tp.kernel_fn(tp.Network(tp.readout("v", tp.relu(tp.dense("U", x, n)))))(X, -X[:1])
    assert found.nngp[0, 0] == found.ntk[0, 0] == 0 and found.error["nngp"] < 1e-14
