"""Large depth: maps derived from blocks, the edge of chaos, the tangent kernel at any depth."""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp
from tests.marks import refused

n = tp.Width("n")


def relu_kernel(c):
    """The map of relu at the edge, and its slope, in the angle."""
    a = np.arccos(c)
    return (np.sin(a) + (np.pi - a) * c) / np.pi, 1 - a / np.pi


def looped(depth, c, block):
    """K^L of Hayou et al., layer by layer, from K^1 = c; block gives the next correlation, A and B over the next variance."""
    theta = c
    for _ in range(depth - 1):
        c, a, b = block(c)
        theta = a * theta + b
    return theta


DEPTHS = [10, 100, 10**3, 10**4, 10**5, 10**6]
# K^L / (L q) from K^1 = q c, of loops in arccos c (relu) and 1 - c (erf), one layer after the other.
RELU = {
    0.0: [0.3155947449, 0.2726675878, 0.2532934215, 0.2504174490, 0.2500503964, 0.2500059033],
    0.5: [0.3792694356, 0.2778920303, 0.2538058554, 0.2504686195, 0.2500555127, 0.2500064149],
}
ERF = [0.2188927907, 0.3125729730, 0.3291189202, 0.3326825269, 0.3332452292, 0.3333222203]


def test_relu_at_any_depth():
    s = tp.signal_propagation(tp.relu, W_std=2**0.5, b_std=0)
    assert (s.phase, s.q, s.growth, s.c_star) == ("edge", 1, 1, 1) and s.depth_scale == np.inf
    depths = np.array(DEPTHS)
    K = s.ntk(depth=depths, c0=[0.0, 0.5, 1.0])
    for j, c in enumerate(RELU):
        np.testing.assert_allclose(K[:, j] / depths, RELU[c], rtol=0, atol=6e-11)
    np.testing.assert_array_equal(K[:, 2], depths)
    assert (K.error / np.asarray(K.value) < 1e-10).all()
    shallow = [looped(40, c, lambda c: (*relu_kernel(c), relu_kernel(c)[0])) for c in (-1.0, -0.3, 0.9)]
    np.testing.assert_allclose(s.ntk(40, [-1.0, -0.3, 0.9]), shallow, rtol=1e-11)


def test_erf_at_the_edge():
    e = tp.edge_of_chaos(tp.erf, b_std=0.2157548584)
    # q = 1/2, E erf'^2 = (4/pi) / sqrt(1 + 4q) = 4/(pi sqrt 3), E erf^2 = (2/pi) asin(2q/(1 + 2q)) = 1/3
    W2 = np.pi * 3**0.5 / 4
    assert abs(e.W_std - W2**0.5) < 5e-11 and abs(e.q - 0.5) < 1e-9
    exact = tp.edge_of_chaos(tp.erf, b_std=(0.5 - W2 / 3) ** 0.5)
    assert abs(exact.W_std - W2**0.5) < max(1e-12, exact.error) and exact.error < 1e-12
    s = tp.signal_propagation(tp.erf, W_std=exact.W_std, b_std=exact.b_std)
    assert s.phase == "edge"
    np.testing.assert_allclose(s.ntk(DEPTHS, 0.0).value / (np.array(DEPTHS) * s.q), ERF, atol=1e-10)


@pytest.mark.parametrize(
    "phi, W_std, q",  # of mpmath, 25 digits: the root of b^2 + E phi^2 / E phi'^2 = q
    [
        pytest.param(tp.elu, 1.229251124137206, 1.106930540346110, marks=pytest.mark.slow),
        (tp.tanh, 1.304145840056511, 0.512078504233902),
    ],
)
def test_edges_of_integrals(phi, W_std, q):
    e = tp.edge_of_chaos(phi, b_std=0.2)
    assert abs(e.W_std - W_std) <= e.error < 1e-12 and abs(e.q - q) <= e.q_error < 1e-11


def test_the_edge_where_biases_are_large():
    """b_std = 100: the variance is above 10^4; W^2 = pi/4 sqrt(1 + 4q) by the slope of erf, q by its variance."""
    e = tp.edge_of_chaos(tp.erf, b_std=100)
    after = 1e4 + e.W_std**2 * 2 / np.pi * np.arcsin(2 * e.q / (1 + 2 * e.q))
    assert abs(after - e.q) < 1e-7 and abs(e.W_std**2 / (np.pi / 4 * np.sqrt(1 + 4 * e.q)) - 1) < 1e-9


def test_no_edge_at_variance_0_where_it_grows():
    """4 E gelu(x)^2 = q + 6 q^2/pi + ..: at W_std = 2 the slope at 0 is 1, but every variance grows."""
    with refused("not stable"):
        tp.edge_of_chaos(tp.gelu)
    assert np.isnan(tp.phase_diagram(tp.gelu, b_std=[0.0], W_std=[0.5, 1.9]).edge).all()
    assert tp.edge_of_chaos(tp.sin).q == 0  # (1 - exp(-2 q))/2 falls


def test_phases_and_fixed_points():
    s = tp.signal_propagation(tp.erf, W_std=2.0, b_std=0.1)
    q = s.q
    assert abs(0.01 + 4 * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) - q) < 1e-13
    assert s.phase == "chaotic" and abs(float(s.slope) - 16 / np.pi / np.sqrt(1 + 4 * q)) < 1e-12
    c = s.c_star
    assert 0 < c < 1 and abs((0.01 + 8 / np.pi * np.arcsin(2 * q * c / (1 + 2 * q))) / q - c) < 1e-12
    assert abs(s.depth_scale + 1 / np.log(16 / np.pi / np.sqrt((1 + 2 * q) ** 2 - 4 * (q * c) ** 2))) < 1e-9
    K = s.ntk([1, 50, 10**6], [-1.0, 0.0, 0.999, 1.0])
    assert not np.isnan(K.value).any() and not np.isnan(K.error).any() and "10000" in K.note
    a, b = 16 / np.pi / np.sqrt((1 + 2 * q) ** 2 - 4 * (q * c) ** 2), q * c
    np.testing.assert_allclose(K[2, :3], b / (1 - a), rtol=1e-9)
    ordered = tp.signal_propagation(tp.erf, W_std=0.8, b_std=0.1)
    assert ordered.phase == "ordered" and ordered.c_star == 1
    limit = ordered.q / (1 - float(ordered.slope))
    np.testing.assert_allclose(ordered.ntk(10**4, [-1.0, 0.0, 1.0]), limit, rtol=1e-11)


def test_float32_says_where_it_ends():
    s = tp.signal_propagation(tp.erf, W_std=2.0, b_std=0.1)
    K = s.ntk([10, 300], [0.0, 1.0], dtype=np.float32)
    assert np.asarray(K.value).dtype == np.float32 and K[1, 1] == np.inf and "float32 at depth 300" in K.note
    assert np.isfinite(s.ntk(300, 1.0).value)


def test_residual_blocks():
    s = tp.signal_propagation(lambda h: h + tp.dense("W", tp.relu(h), n, W_std=2**0.5))
    assert s.growth == 2 and s.phase == "edge"
    # off the diagonal, over the diagonal (papers: .27901 at 100, .25444 at 1000)
    for L, ratio in ((100, 0.27901), (1000, 0.25444), (10**4, 0.25054)):
        K = s.ntk(L, [0.0, 1.0], relative=True)
        assert abs(K[0] / K[1] - ratio) < 6e-6

    def block(c):
        f, slope = relu_kernel(c)
        return (c + f) / 2, (1 + slope) / 2, f / 2

    np.testing.assert_allclose(
        s.ntk(30, [0.1, -0.7], relative=True), [looped(30, c, block) for c in (0.1, -0.7)], rtol=1e-12
    )
    np.testing.assert_allclose(s.ntk(30, [0.1]).value, looped(30, 0.1, block) * 2.0**29, rtol=1e-11)


def test_scaled_residual_networks():
    """1/sqrt(l): entries over the diagonal tend to 1/4 like 1/log L only."""
    s = tp.scaled_residual(lambda h: tp.dense("W", tp.relu(h), n, W_std=2**0.5), lambda layer: layer**-0.5)
    K = s.ntk(100, [0.0, 1.0])
    assert abs(K[0] / K[1] - 0.2575) < 5e-5
    fixed = tp.scaled_residual(lambda h: tp.dense("W", tp.relu(h), n, W_std=2**0.5), lambda layer: 0.5)
    plain = tp.signal_propagation(lambda h: h + 0.5 * tp.dense("W", tp.relu(h), n, W_std=2**0.5))
    np.testing.assert_allclose(
        fixed.ntk(50, [-1.0, 0.3, 1.0]), plain.ntk(50, [-1.0, 0.3, 1.0], relative=True), rtol=1e-11
    )
    with refused("different numbers"):
        tp.scaled_residual(lambda h: tp.dense("W", tp.tanh(h), n), lambda layer: 1)
    with refused("correlated with the state"):
        tp.scaled_residual(lambda h: 2 * h, lambda layer: 1)


@pytest.mark.slow
def test_the_deepest_networks():
    s = tp.scaled_residual(lambda h: tp.dense("W", tp.relu(h), n, W_std=2**0.5), lambda layer: layer**-0.5)
    K = s.ntk([1000, 10**4], [0.0, 1.0])
    np.testing.assert_allclose(K[:, 0] / K[:, 1], [0.2778, 0.2855], atol=5e-5)
    relu = tp.signal_propagation(tp.relu, W_std=2**0.5)
    K = relu.ntk([10**9, 10**12, 10**15], 0.0)
    L = np.array([1e9, 1e12, 1e15])
    np.testing.assert_allclose(K - L / 4 - 3 / 8 * np.log(L), 0.72245, atol=2 * np.max(K.error))
    assert abs(K[0] - 1e9 / 4 - 3 / 8 * np.log(1e9) - 0.72245) < 1e-4
    chaotic = tp.signal_propagation(tp.erf, W_std=2.0, b_std=0.1)
    assert not np.isnan(chaotic.ntk(10**15, [-1.0, 0.0, 0.999, 1.0]).value).any()


@pytest.mark.slow
def test_kinks_away_from_zero():
    """hard tanh: E phi'phi' = P(|u| < 1, |v| < 1), a function of the angle with an essential singularity at 0."""
    s = tp.signal_propagation(lambda x: tp.relu(x + 1) - tp.relu(x - 1) - 1, W_std=1.5, b_std=0.1)
    from scipy.stats import multivariate_normal, norm

    inside = 2 * norm.cdf(s.q**-0.5) - 1
    assert s.phase == "chaotic" and abs(float(s.slope) - 2.25 * inside) < 1e-12
    c, a = 0.6, s.q**-0.5
    both = multivariate_normal(cov=[[1, c], [c, 1]])
    square = both.cdf([a, a]) - both.cdf([-a, a]) - both.cdf([a, -a]) + both.cdf([-a, -a])
    assert abs(float(s.map.slope(np.array([1 - c]))[0]) - 2.25 * square) < 1e-5  # SciPy's cdf


@pytest.mark.slow
def test_a_block_with_a_gate_is_its_network():
    def block(h, k=0):
        gate = tp.sigmoid(tp.dense(f"G{k}", h, n, W_std=2, b_std=0.5))
        return 0.7 * h + tp.dense(f"W{k}", gate * tp.tanh(h), n, W_std=1.5, b_std=0.1)

    s = tp.signal_propagation(block)
    q, c = s.q, 0.3
    h = tp.dense("U", tp.Input("x"), n)
    for k in range(3):
        h = block(h, k)
    kernels = tp.kernel_fn(tp.Network(tp.readout("v", h)))
    names = [f"ntk_{k}" for k in ["U", *[f"{p}{k}{b}" for k in range(3) for p in "GW" for b in ("", "_b")]]]
    gram = np.array([[q, q * c], [q * c, q]])
    theta = sum(kernels(gram=gram, get=names))
    np.testing.assert_allclose(s.ntk(4, [1.0, c]), theta[0], rtol=1e-9)


def test_normalised_blocks():
    s = tp.signal_propagation(lambda h: tp.layer_norm(h + tp.dense("W", tp.relu(h), n)))
    assert abs(s.q - 1) < 1e-13 and s.phase == "edge"
    plain = tp.signal_propagation(lambda h: h + tp.dense("W", tp.relu(h), n))
    np.testing.assert_allclose(s.ntk([10, 1000], 0.2), plain.ntk([10, 1000], 0.2, relative=True), rtol=1e-10)
    after = tp.signal_propagation(lambda h: tp.relu(tp.dense("W", h, n, W_std=2**0.5)))
    np.testing.assert_allclose(after.correlation([0.0, 1.0]).value, [1 / np.pi, 1], rtol=1e-14)


@pytest.mark.parametrize("depth", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_deep_program_agrees(depth):
    h = tp.dense("U", tp.Input("x"), n)
    for k in range(depth - 1):
        h = tp.dense(f"W{k}", tp.relu(h), n, W_std=2**0.5)
    K = tp.kernel_fn(tp.Network(tp.readout("v", h)))(gram=[[1.0, 0.2], [0.2, 1.0]], get=("nngp", "ntk"))
    theta = K.ntk - K.nngp  # that of the readout
    s = tp.signal_propagation(tp.relu, W_std=2**0.5)
    # the program has c in floats, in which 1 - c of the last layers has few digits left
    np.testing.assert_allclose(s.ntk(depth, [1.0, 0.2]), theta[0], rtol=depth * 1e-12)
    np.testing.assert_allclose(s.correlations_at(depth, 0.2), 1 - K.nngp[0, 1], atol=depth * 1e-14)


def test_what_makes_no_sense_is_refused():
    with refused("W_std is 0"):
        tp.signal_propagation(tp.tanh, W_std=0)
    with refused("standard deviation"):
        tp.signal_propagation(tp.tanh, W_std=-1, b_std=0.1)
    with refused("W_std"):
        tp.signal_propagation(tp.tanh, W_std=float("nan"))
    with refused("grows without a bound"):
        tp.signal_propagation(tp.relu, W_std=2, b_std=0.1)
    with refused("not Gaussian"):
        tp.signal_propagation(tp.relu)
    with refused("has mean"):
        tp.signal_propagation(lambda h: h + 1)
    with refused("no gradient flows"):
        tp.signal_propagation(tp.sign, W_std=1)
    with refused("no edge of chaos"):
        tp.edge_of_chaos(tp.relu, b_std=0.1)
    with refused("a block is str"):
        tp.signal_propagation("tanh", W_std=1)
    s = tp.signal_propagation(tp.relu, W_std=2**0.5)
    with refused("whole numbers"):
        s.ntk(0)
    with refused("between -1 and 1"):
        s.ntk(2, 1.5)
    with refused("at least 0"):
        s.variance(np.nan)
