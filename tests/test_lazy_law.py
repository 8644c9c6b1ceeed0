"""The lazy space has the law of the dense one, and the edge cases of its basis.

Statistical tests have fixed seeds, and all of them together fail with probability below 1e-4 when the code is right
(Bonferroni), so that a new seed is as good as the old one. Negative controls run the same comparison on matrices with a
wrong projection and see it: the tests have power.
"""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from marks import few
from scipy import stats

from tensorprog.errors import TensorProgramError
from tensorprog.execute.basis import PANEL, Basis
from tensorprog.execute.dense import Dense
from tensorprog.execute.lazy import Lazy, LazyMatrix
from tensorprog.execute.random import semidefinite_factor, stream

SHARE = 1e-4 / 20  # of each of at most twenty statistical tests in this file
SHAPES = [(4, 4), (6, 6), (4, 9), (9, 4), (16, 16)]  # rows, cols
VAR = 1.5


def width(name="n", ratio=1):
    return SimpleNamespace(name=name, ratio=ratio)


def matrix(name="W", rows=None, cols=None, var=1, entries=None):
    return SimpleNamespace(name=name, rows=rows or width(), cols=cols or width(), var=var, entries=entries)


def vector(name="v", of=None, shape=(), mean=0, cov=None, var=1, distribution=None):
    return SimpleNamespace(
        name=name, width=of or width(), shape=shape, mean=mean, cov=cov, var=var, distribution=distribution
    )


# --- the law ---


def program(up, down, rows, cols):
    """Statistics of a program that mixes W, W.T, duplicates, multi-columns, zero and dependent columns, and tanh.

    `up` and `down` take arrays (..., columns, width): one draw, or a batch of draws.
    """
    x = np.stack([np.ones(cols), np.cos(np.arange(cols)), np.ones(cols) - 3 * np.cos(np.arange(cols)), np.zeros(cols)])
    y = np.sin(1.0 + np.arange(rows))[None]
    h = up(x)
    b = down(np.tanh(h[..., :1, :]) + h[..., 1:2, :] + y)
    g = up(np.concatenate([b, 2 * b, np.abs(b), b + np.ones(cols)], axis=-2))
    d = down(np.concatenate([np.tanh(g[..., 2:3, :]), g[..., :1, :] * h[..., :1, :]], axis=-2))
    e = up(np.tanh(d).sum(axis=-2, keepdims=True))
    f = down(np.tanh(e) - y)
    return np.stack(
        [
            h[..., 0, :].mean(-1),
            h[..., 2, 0],
            b[..., 0, :].mean(-1),
            (b[..., 0, :] * x[1]).mean(-1),
            b[..., 0, -1],
            (g[..., 0, :] * h[..., 0, :]).mean(-1),
            (g[..., 2, :] ** 2).mean(-1),
            (g[..., 3, :] * y[0]).mean(-1),
            d[..., 0, :].mean(-1),
            (d[..., 1, :] * b[..., 0, :]).mean(-1),
            (e[..., 0, :] * g[..., 0, :]).mean(-1),
            e[..., 0, 0],
            (f[..., 0, :] * d[..., 0, :]).mean(-1),
            (f[..., 0, :] ** 2).mean(-1),
        ],
        axis=-1,
    )


def dense_draws(rows, cols, draws, seed):
    """The program on `draws` stored matrices at once: an implementation that shares nothing with the package."""
    w = np.random.default_rng(seed).standard_normal((draws, rows, cols)) * math.sqrt(VAR / cols)
    w_t = w.transpose(0, 2, 1)
    return program(lambda x: np.matmul(x, w_t), lambda y: np.matmul(y, w), rows, cols)


def lazy_draws(rows, cols, draws, seed, kind=LazyMatrix):
    rng, out = np.random.default_rng(seed), []
    for _ in range(draws):
        w = kind(rows, cols, VAR / cols, rng)
        out.append(program(w.apply, w.apply_transposed, rows, cols))
    return np.array(out)


def smallest_p(first, second):
    """The smallest p-value of all comparisons of two samples of statistics, and the number of comparisons.

    Means and second moments of the squashed statistics (bounded, so that the normal approximation is good far out),
    and Kolmogorov-Smirnov on the statistics themselves.
    """
    centre, scale = second.mean(0), second.std(0)
    p = []
    for power in (1, 2):
        a, b = (np.tanh((s - centre) / scale) ** power for s in (first, second))
        z = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
        p += list(2 * stats.norm.sf(np.abs(z)))
    p += [stats.ks_2samp(first[:, i], second[:, i], method="asymp").pvalue for i in range(first.shape[1])]
    return min(p), len(p)


def same_law(rows, cols, draws, seed):
    p, comparisons = smallest_p(lazy_draws(rows, cols, draws, seed), dense_draws(rows, cols, 20 * draws, seed + 10**6))
    assert p > SHARE / comparisons, f"{rows} x {cols}: p = {p:.2e} of {comparisons}"


@pytest.mark.parametrize(("rows", "cols"), few(SHAPES, [(4, 9)]))
def test_lazy_has_the_law_of_dense(rows, cols):
    same_law(rows, cols, 1000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (4, 9)])
def test_lazy_has_the_law_of_dense_with_many_draws(rows, cols):
    same_law(rows, cols, 10_000, seed=2)


class NoProjection(LazyMatrix):
    """Wrong: fresh noise keeps its components along what the other side has fixed."""

    def fresh(self, directions, out, *, transposed):
        out[:] = self.std * self.rng.standard_normal(out.shape)


class OffTheConstant(LazyMatrix):
    """Wrong at finite width, right for a population: noise without its mean."""

    def fresh(self, directions, out, *, transposed):
        super().fresh(directions, out, transposed=transposed)
        out -= out.mean(axis=1, keepdims=True)


class OffEarlierNoise(LazyMatrix):
    """Wrong at finite width, right for a population: noise orthogonal to earlier images of the same side."""

    def fresh(self, directions, out, *, transposed):
        super().fresh(directions, out, transposed=transposed)
        for image in (self.backward if transposed else self.forward).image.parts():
            out -= out @ np.linalg.pinv(image) @ image


@pytest.mark.parametrize("kind", few([NoProjection, OffTheConstant, OffEarlierNoise], [OffTheConstant]))
def test_a_wrong_projection_is_seen(kind):
    p, comparisons = smallest_p(lazy_draws(6, 6, 1000, 3, kind), dense_draws(6, 6, 20_000, 4))
    assert p < 1e-3 * SHARE / comparisons


@pytest.mark.parametrize(("rows", "cols"), few([(4, 4), (3, 5), (5, 3)], [(3, 5)]))
def test_joint_covariance_of_fixed_products(rows, cols):
    """For vectors fixed in advance all products are jointly Gaussian with a known covariance, W and W.T included."""
    draws, rng = 4000, np.random.default_rng(5)
    xs, ys = rng.standard_normal((3, cols)), rng.standard_normal((2, rows))
    out = []
    for _ in range(draws):
        w = LazyMatrix(rows, cols, 1.0, rng)
        run = w.apply(xs[0]), w.apply_transposed(ys[0]), w.apply(xs[1]), w.apply_transposed(ys[1]), w.apply(xs[2])
        out.append(np.concatenate(run))
    out = np.array(out)
    # Each product is linear in vec(W), whose covariance is the identity.
    forward, backward = [np.kron(np.eye(rows), x) for x in xs], [np.kron(y, np.eye(cols)) for y in ys]
    linear = np.concatenate([forward[0], backward[0], forward[1], backward[1], forward[2]])
    exact = linear @ linear.T
    sample = out.T @ out / draws
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / draws)
    second, first = (sample - exact) / error, out.mean(0) / np.sqrt(np.diag(exact) / draws)
    z = np.concatenate([second[np.triu_indices(len(exact))], first])
    assert np.abs(z).max() < stats.norm.isf(SHARE / 2 / len(z))


def test_entries_are_independent_normal():
    """A width-3 matrix read off with the identity: KS on all entries, W and W.T in turn."""
    rng, entries = np.random.default_rng(6), []
    for i in range(1500):
        w = LazyMatrix(3, 3, 0.5, rng)
        read = w.apply(np.eye(3)).T if i % 2 else w.apply_transposed(np.eye(3))
        entries.append(read.ravel())
    entries = np.array(entries)
    assert stats.kstest(entries.ravel(), "norm", args=(0, math.sqrt(0.5))).pvalue > SHARE
    assert np.abs(np.corrcoef(entries.T) - np.eye(9)).max() < stats.norm.isf(SHARE / 72) / math.sqrt(1500)


# --- edge cases, exactly ---


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (4, 4), (4, 9), (9, 4), (1, 5), (40, 33)])
def test_a_full_basis_determines_the_matrix(rows, cols):
    rng = np.random.default_rng(7)
    w = LazyMatrix(rows, cols, 1.0, rng)
    x, y = rng.standard_normal((2, cols)), rng.standard_normal((1, rows))
    w.apply_transposed(w.apply(x))
    w.apply(w.apply_transposed(y))
    read = w.apply_transposed(np.eye(rows))
    more = rng.standard_normal((3 * cols, cols))
    np.testing.assert_allclose(w.apply(more), more @ read.T, atol=2e-12 * math.sqrt(cols), rtol=0)
    np.testing.assert_allclose(w.apply(np.eye(cols)).T, read, atol=2e-13 * math.sqrt(cols))
    assert w.forward.basis.rank <= cols and w.backward.basis.rank <= rows


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (7, 3), (50, 80), (300, 200)])
def test_w_and_its_transpose_are_adjoint(rows, cols):
    rng = np.random.default_rng(8)
    w = LazyMatrix(rows, cols, 1.0 / cols, rng)
    x = rng.standard_normal((3, cols))
    g = w.apply(x)
    y = np.tanh(g) + 1
    b = w.apply_transposed(y)
    z = np.abs(b)
    h = w.apply(z)
    scale = math.sqrt(rows * cols)
    np.testing.assert_allclose(y @ g.T, b @ x.T, atol=1e-13 * scale)
    np.testing.assert_allclose(y @ h.T, b @ z.T, atol=1e-13 * scale)


def test_dependent_columns_add_no_directions():
    rng = np.random.default_rng(9)
    w = LazyMatrix(50, 50, 1.0, rng)
    x = rng.standard_normal((3, 50))
    columns = np.stack([x[0], x[0], -2 * x[0], x[1], np.zeros(50), x[0] + x[1], x[2], 1e-200 * x[2], 1e200 * x[2]])
    g = w.apply(columns)
    assert w.forward.basis.rank == 3
    np.testing.assert_array_equal(g[4], np.zeros(50))
    np.testing.assert_allclose(g[1], g[0], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(g[2], -2 * g[0], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(g[5], g[0] + g[3], atol=1e-12)
    np.testing.assert_allclose(g[7] * 1e200, g[6], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(g[8] * 1e-200, g[6], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(w.apply(columns), g, rtol=1e-12, atol=1e-12)
    assert w.forward.basis.rank == 3


def test_not_finite_columns_stay_visible_and_alone():
    w = LazyMatrix(5, 5, 1.0, np.random.default_rng(10))
    x = np.ones((3, 5))
    x[0, 1], x[1, 2] = np.nan, np.inf
    g = w.apply(x)
    assert np.isnan(g[:2]).all() and np.isfinite(g[2]).all() and w.forward.basis.rank == 1


@pytest.mark.parametrize("columns", [1, PANEL - 1, PANEL, PANEL + 1, 3 * PANEL])
def test_columns_at_once_or_one_by_one_are_the_same_map(columns):
    rng = np.random.default_rng(11)
    x = rng.standard_normal((2, columns, 60))
    w = LazyMatrix(40, 60, 1.0, rng)
    g = w.apply(x)
    assert g.shape == (2, columns, 40)
    np.testing.assert_allclose(np.array([[w.apply(c) for c in row] for row in x]), g, atol=1e-12)


def test_basis_stays_orthonormal_through_cancellation():
    rng = np.random.default_rng(12)
    base, other = rng.standard_normal((6, 200)), rng.standard_normal((6, 200))
    basis = Basis(200, 1e-11)
    shown = []
    for gap in (1.0, 1e-3, 1e-6, 1e-9, 1e-10, 1e-14):
        x = np.concatenate([base, base + gap * other, base + gap * other])[rng.permutation(18)[:PANEL]]
        coefficients, _ = basis.extend(x)
        q = np.concatenate(basis.rows.parts())
        shown.append((x, coefficients))
        np.testing.assert_allclose(q @ q.T, np.eye(basis.rank), atol=1e-14)
        np.testing.assert_allclose(coefficients @ q, x, atol=1e-10)
    assert basis.rank <= 12 + 2


def test_a_nearly_dependent_direction_keeps_its_law():
    """W (x + d r) - W x has the size of d W r for a small d: the new direction is not lost or wrong by a factor."""
    rng, ratios = np.random.default_rng(13), []
    for _ in range(20):
        w = LazyMatrix(400, 400, 1.0, rng)
        x, r = rng.standard_normal((2, 400))
        g = w.apply(np.stack([x, x + 1e-7 * r]))
        ratios.append(np.linalg.norm(g[1] - g[0]) / (1e-7 * np.linalg.norm(r) * 20))
    assert abs(np.mean(ratios) - 1) < 5 / math.sqrt(2 * 400 * 20)


def test_lazy_needs_gaussian_entries():
    with pytest.raises(TensorProgramError, match=r"matrix W has 'rademacher' entries(.|\n)*Gaussian(.|\n)*dense"):
        Lazy(8).matrix(matrix(entries="rademacher"))


# --- streams and initial vectors ---


def test_streams_depend_on_the_key_alone():
    first = stream(0, "W", "matrix", 4, 4).standard_normal(3)
    stream(1, "V", "matrix").standard_normal(5)
    np.testing.assert_array_equal(stream(0, "W", "matrix", 4, 4).standard_normal(3), first)
    keys = [(0, "W", "matrix", 4, 4), (1, "W", "matrix", 4, 4), (0, "V", "matrix", 4, 4), (0, "W", "lazy", 4, 4)]
    keys += [(0, "W", "matrix", 4, 5)]
    assert len({stream(*key).standard_normal() for key in keys}) == len(keys)
    # The value itself: a stream is the same in every process, on every machine and in later versions.
    assert stream(0, "W", "matrix").integers(2**32) == 1531039257


def test_dense_weights_do_not_depend_on_the_program():
    other = Dense(6, seed=3)
    other.vector(vector("a"))
    other.matrix(matrix("V", width("m", 2), width()))
    np.testing.assert_array_equal(other.matrix(matrix()).weights, Dense(6, seed=3).matrix(matrix()).weights)
    np.testing.assert_array_equal(other.vector(vector()), Lazy(6, seed=3).vector(vector()))


@pytest.mark.parametrize("entries", [None, "rademacher", "uniform", stats.t(9), stats.expon(3)])
def test_dense_entries_have_mean_zero_and_the_variance(entries):
    w = Dense(300).matrix(matrix(rows=width("m", 2), var=Fraction(3, 2), entries=entries)).weights
    assert w.shape == (600, 300) and w.flags.c_contiguous
    z = w * math.sqrt(300 / 1.5)
    assert abs(z.mean()) < 5 / math.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 5 * (z**2).std() / math.sqrt(z.size) + 1e-12


def test_dense_products_and_given_weights():
    given = np.arange(6.0).reshape(2, 3)
    space = Dense(2, weights={"W": given})
    w = space.matrix(matrix(cols=width("m", Fraction(3, 2))))
    x = np.arange(24.0).reshape(2, 4, 3)
    np.testing.assert_allclose(w.apply(x), np.einsum("rc,abc->abr", given, x))
    np.testing.assert_allclose(w.apply_transposed(np.ones(2)), given.sum(0))
    with pytest.raises(TensorProgramError, match="shape"):
        space.matrix(matrix())


@pytest.mark.parametrize("space", [Dense, Lazy])
def test_sizes(space):
    s = space(10)
    assert [s.size(width("m", r)) for r in (1, Fraction(1, 2), 0.01, 2)] == [10, 5, 1, 20]
    assert s.inverse_sqrt(width("m", Fraction(2, 5))) == 0.5


def test_semidefinite_factor():
    cov = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 0], [2, 2, 0, Fraction(13, 2)]], dtype=object)
    factor = semidefinite_factor(cov, "v")
    assert factor.shape == (4, 2)
    np.testing.assert_allclose(factor @ factor.T, cov.astype(float), atol=1e-15)
    np.testing.assert_array_equal(factor[0], factor[1])
    np.testing.assert_array_equal(factor[2], 0)
    x = np.random.default_rng(0).standard_normal((60, 7))
    gram = semidefinite_factor(x @ x.T / 7, "v")
    assert gram.shape == (60, 7)
    np.testing.assert_allclose(gram @ gram.T, x @ x.T / 7, atol=1e-13)
    for bad in ([[1, 2], [2, 1]], [[0, 1], [1, 1]], [[1, 0], [0.5, 1]], [[-1]], [[np.nan]], [[1, 0, 0], [0, 1, 0]]):
        with pytest.raises(TensorProgramError, match="covariance of v"):
            semidefinite_factor(bad, "v")


def test_initial_vectors_have_their_law():
    n = 200_000
    space = Dense(n)
    cov = np.array([[2, 2, 0], [2, 3, 0], [0, 0, 0]])
    v = space.vector(vector("a", shape=(3, 1), mean=np.array([[1], [0], [5]]), cov=cov))
    assert v.shape == (3, 1, n) and (v[2] == 5).all()
    np.testing.assert_allclose(np.cov(v[:, 0]), cov, atol=5 * 5 / math.sqrt(n))
    for name, law, kurtosis in (("g", None, 3.0), ("r", "rademacher", 1.0), ("u", "uniform", 1.8)):
        v = space.vector(vector(name, shape=(2,), mean=2, var=Fraction(1, 4), distribution=law))
        z = 2 * (v - 2)
        np.testing.assert_allclose(z.mean(-1), 0, atol=5 / math.sqrt(n))
        np.testing.assert_allclose((z**2).mean(-1), 1, atol=10 / math.sqrt(n))
        np.testing.assert_allclose((z**4).mean(-1), kurtosis, atol=50 / math.sqrt(n))
        assert abs((z[0] * z[1]).mean()) < 5 / math.sqrt(n)
    e = space.vector(vector("e", distribution=stats.expon()))
    assert stats.kstest(e, "expon").pvalue > SHARE
    assert (space.vector(vector("c", mean=3, var=0)) == 3).all()
