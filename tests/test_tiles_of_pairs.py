"""Kernels on many examples: tiles, what is mirrored, common factors, correlations next to 1."""

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.limits.gauss.duals import DUALS, arccos1_and_arcsine
from tensorprog.limits.pairs.blocks import MIRROR, _tiles
from tensorprog.limits.simplify.horner import factored

N = tp.Width("n")


def mlp(phi, depth, b_std=None):
    h = tp.Input("x")
    for k in range(depth):
        h = phi(tp.dense(f"W{k}", h, N, W_std=2**0.5, b_std=b_std))
    return h


@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (1, 5), (7, 3), (MIRROR, MIRROR), (MIRROR + 1, 300), (150, 150), (1000, 2)]
)
@pytest.mark.parametrize("pairs", [1, 10, 2**15])
def test_tiles_cover_all_pairs_once(n, m, pairs):
    seen = np.zeros((n, m), int)
    for low, high, left, right in _tiles(n, m, pairs, False):
        assert (high - low) * (right - left) <= pairs
        seen[low:high, left:right] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    "n", [1, MIRROR - 1, MIRROR, MIRROR + 1, 200, pytest.param(2 * 512 + 3, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("several", [False, True])
def test_a_symmetric_kernel_is_that_of_two_equal_batches(n, several):
    # examples of different lengths, and outputs whose kernel is not symmetric in the examples
    X = np.random.default_rng(n).standard_normal((n, 3))
    h = mlp(tp.relu, 1, 0.5)
    v, w = tp.readout("v", tp.erf(tp.dense("A", h, N))), tp.readout("w", h)
    f = tp.kernel_fn(tp.Network([v, w] if several else v))
    for same, two in zip(f(X), f(X, X.copy()), strict=True):
        np.testing.assert_allclose(same, two, rtol=1e-12, atol=1e-14 * np.abs(two).max())
        np.testing.assert_array_equal(same, same.transpose((1, 0, 3, 2) if several else (1, 0)))


@pytest.mark.parametrize("phi", [tp.relu, tp.erf, tp.gelu])
def test_a_deep_kernel_is_that_of_its_expanded_program(phi):
    # tp.limit of the program carries out the expanded sum of products
    X = np.random.default_rng(0).standard_normal((5, 4))
    net = tp.Network(tp.readout("v", mlp(phi, 6, 0.3), b_std=0.1))
    kernels = tp.kernel_fn(net)(X)
    limit = tp.limit(net.program(X))
    np.testing.assert_allclose(kernels.ntk, limit["ntk"].value, rtol=2e-13)
    np.testing.assert_allclose(kernels.nngp, limit["nngp"].value, rtol=2e-13)


def test_common_factors_are_multiplied_once():
    from tensorprog.kernels.compile import compile_pair
    from tensorprog.limits.pairs.blocks import Batched
    from tensorprog.transforms.parametrization import parametrization

    def work(depth):
        net = tp.Network(tp.readout("v", mlp(tp.erf, depth)))
        pair = compile_pair(net, {"x": (3,)}, {"x": (3,)}, ("ntk",), parametrization("ntk", None)).pair
        assert isinstance(pair, Batched)
        return sum(len(s.operands) for s in pair.pairs if s.node.op in ("mul", "add"))

    assert work(12) - work(9) == work(9) - work(6)  # grows by layers, not by their square


def test_factoring_leaves_numbers_alone():
    a, b, c, d = [tp.moment(tp.Vector(k, N) ** 4) for k in "abcd"]
    x = (a * b + a * b * c + 3 * a * b * c * d + a**2 * d + 5).node
    assert factored([x]) == [x]  # nothing here is along rows and columns


@pytest.mark.parametrize("scale", [1e-150, 1e-3, 1.0, 1e150])
def test_equal_inputs_have_correlation_one(scale):
    q = scale * np.random.default_rng(0).lognormal(size=(200, 1))
    wide = np.tile(q, (1, 8))  # several columns, so that roots are taken along rows
    same = np.broadcast_to(q, wide.shape)
    for rows, values in ((q, wide), (same, same)):
        first, sign = arccos1_and_arcsine(rows, values, rows)
        np.testing.assert_array_equal(sign, 1.0)
        np.testing.assert_allclose(first, wide / 2, rtol=4e-16)
        np.testing.assert_array_equal(DUALS["arcsine"].array(rows, -values, rows), -1.0)
        np.testing.assert_allclose(DUALS["arccos1"].array(rows, values, rows), wide / 2, rtol=4e-16)
        np.testing.assert_allclose(DUALS["arccos1"].array(rows, -values, rows), 0.0, atol=1e-30 * scale)


def test_variances_of_zero_along_rows():
    a, b, c = np.array([[0.0], [1.0]]), np.array([[0.0, 1.0, 4.0, 9.0]]), np.array([[0.0] * 4, [0.0, 1.0, 2.0, -3.0]])
    first, sign = arccos1_and_arcsine(a, c, b)
    np.testing.assert_array_equal(sign, [[0, 0, 0, 0], [0, 1, 1, -1]])
    np.testing.assert_allclose(first, [[0, 0, 0, 0], [0, 0.5, 1, 0]], atol=1e-16)
