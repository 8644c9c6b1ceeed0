"""Shaped activations: published parameters, and the conditions they satisfy, by quadrature of their own."""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.depth.subnetworks import Subnetworks
from tests.marks import refused

n = tp.Width("n")


def resnet(h, phi):
    """Residual blocks in four stages, three activations in a branch, shortcuts of weight 0.6."""
    for stage, blocks in enumerate((3, 4, 23, 3)):
        for j in range(blocks):
            name = f"{stage}_{j}"
            first = phi(h)
            x = tp.dense(f"A{name}", first, n)
            x = tp.dense(f"B{name}", phi(x), n)
            x = tp.dense(f"C{name}", phi(x), n)
            h = 0.6 * (h if j else tp.dense(f"S{name}", first, n)) + 0.8 * x
    return phi(h)


def plain(h, phi):
    for k in range(10):
        h = tp.dense(f"W{k}", phi(h), n)
    return h


# in_scale, in_shift, out_shift, out_scale: the reference implementation's tests (google-deepmind/dks). Its rows satisfy their
# conditions to 1e-9, that of relu, whose derivative jumps inside its quadrature, to 5e-7 only.
ROWS = [
    (tp.softplus, "dks", (0.18761008168267976, 0.40688063442262007, -0.9213466151411376, 8.878672543665223), 2e-8),
    (tp.tanh, "dks", (0.07461073057540868, 0.5566915199964182, -0.5034378768692127, 18.002635964442558), 2e-8),
    (tp.relu, "dks", (0.3685360046708044, 1, -1.000373858553784, 2.721729988761473), 3e-5),
    (tp.gelu, "dks", (0.07043253126531114, 0.259489297927707, -0.15815378961903598, 20.21158902315857), 2e-8),
    (tp.softplus, "tat", (0.15011489794748328, 0.5374599901127068, -0.996481014465811, 10.54880187880574), 4e-8),
    (tp.tanh, "tat", (0.0580205218578313, 0.5218639804099805, -0.4796430704354356, 22.36066261763117), 4e-8),
    (tp.leaky_relu, "tat", (1, 0, 0, 1.196996549778802), 1e-9),
]


@pytest.mark.parametrize(
    "phi, method, row, close", ROWS[:1] + [pytest.param(*r, marks=pytest.mark.slow) for r in ROWS[1:]]
)
def test_published_parameters(phi, method, row, close):
    s = tp.shape_activation(phi, resnet, method, slope=1.2, curvature=0.2, value=0.75)
    np.testing.assert_allclose((s.in_scale, s.in_shift, s.out_shift, s.out_scale), row, rtol=close)
    assert s.error < 1e-9
    if phi is tp.leaky_relu:
        assert abs(s.local - 0.6291800290346146) < 1e-9


def test_maximal_functions():
    graph = Subnetworks(resnet)
    assert graph.activations == 100

    def whole(r, x):
        for blocks in (3, 4, 23, 3):
            for j in range(blocks):
                x = 0.36 * (x if j else r(x)) + 0.64 * r(r(r(x)))
        return r(x)

    assert abs(graph.maximum(lambda y: 1.01 * y, 1.0) / whole(lambda y: 1.01 * y, 1.0) - 1) < 1e-13
    assert abs(Subnetworks(plain).maximum(lambda y: y + 0.1, 0.0) - 1) < 1e-13
    # a branch of five activations, most of which the sum averages away
    steep = Subnetworks(lambda h, phi: h + 0.1 * tp.dense("W", phi(phi(phi(phi(phi(h))))), n))
    assert abs(steep.maximum(lambda y: 2 * y, 1.0) - 32) < 1e-12
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("W", tp.relu(tp.dense("U", tp.Input("x"), n)), n))))
    assert Subnetworks(net).maximum(lambda y: 3 * y, 1.0) == 9


def test_a_shaped_activation_does_what_was_asked_for():
    s = tp.shape_activation(tp.erf, plain, "dks", slope=1.5)
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    from scipy.special import erf

    x = s.in_scale * z + s.in_shift
    y = s.out_scale * (erf(x) + s.out_shift)
    slope = s.out_scale * s.in_scale * 2 / np.sqrt(np.pi) * np.exp(-(x**2))
    for value, exact in ((w @ y**2, 1), (w @ y, 0), (w @ (slope * y * z), 1), (w @ slope**2, 1.5**0.1)):
        assert abs(value - exact) < 1e-9
    found = tp.limit(tp.Program(q=tp.moment(s(tp.Vector("x", n)) ** 2)))["q"]
    assert abs(float(found) - 1) < 1e-9 and "erf" in repr(s)


def test_what_cannot_be_shaped_is_refused():
    with refused("slope=0.5"):
        tp.shape_activation(tp.tanh, plain, slope=0.5)
    with refused("with kinks"):
        tp.shape_activation(tp.relu, plain, "tat")
    with refused("method='x'"):
        tp.shape_activation(tp.tanh, plain, "x")
    with refused("without activations"):
        tp.shape_activation(tp.tanh, lambda h, phi: h)
    with refused("dense layers, sums and activations"):
        tp.shape_activation(tp.tanh, lambda h, phi: phi(h) * phi(2 * h))
    with refused("keeps correlations"):
        tp.shape_activation(tp.leaky_relu, lambda h, phi: phi(h), "tat", value=0.9)
