"""Phase diagrams, and the rates at which tangent kernels tend to their limits."""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp
from tests.marks import refused

n = tp.Width("n")
ERF_EDGE = (np.pi * 3**0.5 / 4) ** 0.5, (0.5 - np.pi * 3**0.5 / 12) ** 0.5
"""W_std and b_std of erf at q = 1/2."""


def test_a_phase_diagram_is_its_cells():
    b, W = np.array([0.0, 0.3]), np.array([0.7, 1.6, 3.0])
    d = tp.phase_diagram(tp.erf, b_std=b, W_std=W)
    for i in range(2):
        for j in range(3):
            q = d.q[i, j]
            after = b[i] ** 2 + W[j] ** 2 * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q))
            assert abs(after - q) <= 1e-11
            assert abs(d.slope[i, j] - W[j] ** 2 * 4 / np.pi / np.sqrt(1 + 4 * q)) <= max(
                1e-11, d.errors["slope"][i, j]
            )
            if d.slope[i, j] > 1:
                c = d.c_star[i, j]
                moved = b[i] ** 2 + W[j] ** 2 * 2 / np.pi * np.arcsin(2 * q * c / (1 + 2 * q))
                slope = W[j] ** 2 * 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - 4 * (q * c) ** 2)
                assert abs(moved / q - c) <= d.errors["c_star"][i, j] * abs(1 - slope) < 1e-4
                error = d.errors["depth_scale"][i, j]
                assert abs(d.depth_scale[i, j] * np.log(slope) + 1) <= 2 * error / d.depth_scale[i, j] + 1e-9
    assert d.phase.tolist() == [["ordered", "chaotic", "chaotic"]] * 2
    assert (
        abs(d.edge[0] - np.pi**0.5 / 2) < 1e-12 and abs(d.edge[1] - tp.edge_of_chaos(tp.erf, b_std=0.3).W_std) < 1e-11
    )
    assert set(d) == {"q", "slope", "c_star", "depth_scale"} and d["q"] is d.q and "chaotic" in repr(d)


def test_scale_free_functions():
    d = tp.phase_diagram(tp.relu, b_std=[0.0, 0.5], W_std=[1.0, 2**0.5, 2.0])
    np.testing.assert_allclose(d.slope, [[0.5, 1, 2], [0.5, np.nan, np.nan]], rtol=1e-13)
    np.testing.assert_allclose(d.q, [[0, 1, np.inf], [0.5, np.inf, np.inf]], rtol=1e-13)
    assert d.phase.tolist() == [["ordered", "edge", "chaotic"], ["ordered", "", ""]]
    assert tp.signal_propagation(tp.relu, W_std=1).phase == "ordered"


@pytest.mark.slow
def test_a_family_of_blocks_has_a_diagram():
    def block(h, W_std, b_std):
        return 0.5 * h + tp.dense("W", tp.erf(h), n, W_std=W_std, b_std=b_std)

    d = tp.phase_diagram(block, b_std=[0.1], W_std=[0.8, 2.0])
    for j, W in enumerate((0.8, 2.0)):
        q = d.q[0, j]
        assert abs(q / 4 + 0.01 + W**2 * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) - q) < 1e-12
        assert abs(d.slope[0, j] - (0.25 + W**2 * 4 / np.pi / np.sqrt(1 + 4 * q))) < 1e-11
    e = tp.edge_of_chaos(block, b_std=0.1)
    s = tp.signal_propagation(lambda h: block(h, e.W_std, 0.1))
    assert abs(float(s.slope) - 1) < 1e-11 and 0.8 < e.W_std < 2


@pytest.mark.slow
def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    tp.phase_diagram(tp.erf, b_std=np.linspace(0.1, 1, 3), W_std=np.linspace(0.5, 2, 4)).plot(tmp_path / "phase.svg")
    assert "edge of chaos" in (tmp_path / "phase.svg").read_text()


@pytest.mark.parametrize(
    "phi, W_std, b_std, limit, log", [(tp.relu, 2**0.5, 0, 1 / 4, 3 / 8), (tp.erf, *ERF_EDGE, 1 / 3, -1)]
)
def test_rates_at_the_edge(phi, W_std, b_std, limit, log):
    # erf: a = 1/6, b = 1/9: (1 - b/a^2)/3 = -1
    r = tp.signal_propagation(phi, W_std=W_std, b_std=b_std).rate
    assert "log L" in r.form and "fitted" in repr(r)
    for found, fitted, exact in ((r.limit, r.fitted_limit, limit), (r.remainder, r.fitted_remainder, log)):
        assert abs(float(found) - exact) <= float(found.error) < 1e-7
        assert abs(float(fitted) - exact) <= float(fitted.error) < 1e-3


@pytest.mark.slow
def test_a_jump_of_the_second_derivative_has_another_rate():
    """elu: f'(cos t) = 1 - a t^2 + s t^3, the jump of elu'' being 1, and a remainder of order L^(1/2)."""
    e = tp.edge_of_chaos(tp.elu, b_std=0.2)
    s = tp.signal_propagation(tp.elu, W_std=e.W_std, b_std=e.b_std)
    w2, q = e.W_std**2, s.q
    # d/dt of -W^2 q E elu'' elu'' sin(t): E of the product of two jumps 1 (u > 0, v > 0 flipped) turns by -1/(2 pi)
    z, weights = np.polynomial.legendre.leggauss(200)
    x = 6 * q**0.5 * (z - 1)  # (-12 sqrt q, 0)
    curved = (np.exp(2 * x) * np.exp(-(x**2) / (2 * q)) * weights).sum() * 6 / np.sqrt(2 * np.pi)
    a, cubic = w2 * q * curved / 2, w2 * q / (2 * np.pi) / 3
    theory = -0.08 * (2 / a) ** 1.5 * cubic
    assert "L^(1/2)" in s.rate.form and abs(float(s.rate.remainder) / theory - 1) < 1e-6
    assert abs(float(s.rate.fitted_remainder) - theory) < float(s.rate.fitted_remainder.error) * 10 < 1e-4


def test_rates_away_from_the_edge():
    r = tp.signal_propagation(tp.relu, W_std=1, b_std=0.1).rate  # kinks: the angle falls by 2^(1/2) a layer
    assert abs(float(r.limit) - 2) < 1e-12 and abs(float(r.remainder) + np.log(2) / 2) < 1e-12
    assert abs(float(r.fitted_remainder) + np.log(2) / 2) <= float(r.fitted_remainder.error) < 1e-2
    s = tp.signal_propagation(tp.erf, W_std=0.8, b_std=0.1)
    assert abs(float(s.rate.remainder) - np.log(float(s.slope))) < 1e-12
    assert abs(float(s.rate.fitted_limit) - 1 / (1 - float(s.slope))) < 1e-10


def test_what_makes_no_diagram_is_refused():
    with refused("array of numbers"):
        tp.phase_diagram(tp.tanh, b_std=[0.1], W_std=[0.0, 1.0])
    with refused("array of numbers"):
        tp.phase_diagram(tp.tanh, b_std=[[0.1]], W_std=[1.0])
