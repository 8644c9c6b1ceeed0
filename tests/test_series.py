"""Mehler's series tile by tile: against mpmath, closed forms and nested rules; stated errors are true."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest
from marks import few
from scipy.special import erf, expit

import tensorprog as tp
from tensorprog.limits.evaluate.integrals import distinct
from tensorprog.limits.gauss.integrate import Feature, gaussian_expectation
from tensorprog.limits.gauss.series import PairSeries

N = tp.Width("n")


def slope_of_tanh(x):
    """1 / cosh(x)**2 without overflow."""
    return 4 * np.exp(-2 * np.abs(x)) / (1 + np.exp(-2 * np.abs(x))) ** 2


# name: function, (location, scale) of its features
FUNCTIONS = {
    "tanh": (np.tanh, [(0, 1)]),
    "tanh'": (slope_of_tanh, [(0, 1)]),
    "silu": (lambda x: x * expit(x), [(0, 2)]),
    "sigmoid": (expit, [(0, 2)]),
    "softplus": (lambda x: np.logaddexp(0, x), [(0, 2)]),
    "arctan": (np.arctan, [(0, 1)]),
    "relu": (lambda x: np.maximum(x, 0), [(0, 0)]),
    "kinked": (lambda x: np.maximum(x - 0.5, 0) * np.tanh(x), [(0.5, 0), (0, 1)]),
}


def make(f, g, level=1):
    """The series of two named functions."""
    (left, a), (right, b) = FUNCTIONS[f], FUNCTIONS[g]
    return PairSeries(left, right, [Feature(0, *x) for x in a], [Feature(0, *x) for x in b], level)


def inputs(size, wild=False, seed=0):
    """Inputs with duplicates, opposites and near duplicates, and, when wild, with variances from 0 to 1e4 and more."""
    x = np.random.default_rng(seed).standard_normal((size, 5))
    x[1], x[2], x[3], x[4], x[5] = x[0], -x[0], x[6] + 1e-6 * x[7], x[8] + 1e-3 * x[7], x[9] + 1e-2 * x[7]
    if wild:
        x[10:16] *= np.array([1e-6, 1e2, 0, 1e2, 30, 1e-6])[:, None]
        x[13] = 1e2 * x[0]
    return x


def nested(f, g, mean, cov, i, j, level=2):
    """The same by the nested rule: mean (N1,), (N2,), and all three covariances of some pairs."""
    matrix = np.stack([cov[0][i], cov[1][i, j], cov[1][i, j], cov[2][j]], 1).reshape(-1, 2, 2)
    centre = np.stack([mean[0][i], mean[1][j]], 1)
    places = [Feature(k, *x) for k, name in enumerate((f, g)) for x in FUNCTIONS[name][1]]
    left, right = FUNCTIONS[f][0], FUNCTIONS[g][0]
    return gaussian_expectation(lambda z, _: left(z[0]) * right(z[1]), centre, matrix, features=places, level=level)


CENTRES = [(False, 0.0), (True, 0.0), (False, None), (True, 0.7)]


@pytest.mark.parametrize(("wild", "centre"), few(CENTRES, CENTRES[:3:2]))
@pytest.mark.parametrize(
    "names", [("tanh", "tanh"), ("tanh'", "tanh'"), ("softplus", "sigmoid"), ("relu", "tanh"), ("kinked", "kinked")]
)
def test_stated_errors_are_true(names, centre, wild):
    """The nested rule at level 2 is good to 3e-15 of the norms, the product of root mean squares."""
    x = inputs(40, wild)
    cov, rng = x @ x.T, np.random.default_rng(1)
    mean = rng.standard_normal(40) if centre is None else np.full(40, centre)
    series = make(*names)
    series.prepare(mean, np.diag(cov))
    value, error = series.matrix(cov, errors=True)
    i, j = np.divmod(rng.permutation(np.arange(1600))[:15], 40)
    some, other = np.array(np.triu_indices(14))[:, rng.permutation(105)[:40]]
    i, j = np.concatenate([i, some]), np.concatenate([j, other])
    exact = nested(*names, (mean, mean), (np.diag(cov), cov, np.diag(cov)), i, j)
    norms = []
    for name, k in zip(names, (i, j), strict=True):
        f = FUNCTIONS[name][0]
        square = gaussian_expectation(
            lambda z, _, f=f: f(z[0]) ** 2, mean[:, None], np.diag(cov)[:, None, None],
            features=[Feature(0, *a) for a in FUNCTIONS[name][1]],
        )  # fmt: skip
        norms.append(np.sqrt(square)[k])
    norm = norms[0] * norms[1]
    assert np.all(np.abs(value[i, j] - exact) <= error[i, j] + 3e-15 * norm)
    assert np.all(error[i, j] <= 1e-8 * norm)


def conditional(m, rest):
    """E tanh(m + rest y): by Taylor's formula where rest is small, on panels around the turn elsewhere."""
    if rest < 1e-3:
        t = mpmath.tanh(m)
        return t + rest**2 * (t**3 - t) + rest**4 * (2 * t - 5 * t**3 + 3 * t**5)
    m, s = float(m), float(rest)
    steps = 2.0 ** np.arange(-2, 9) / s
    near = -m / s + np.concatenate([-steps, [0], steps])
    edges = np.unique(np.clip(np.concatenate([np.linspace(-11, 11, 23), near]), -11, 11))
    node, w = np.polynomial.legendre.leggauss(24)
    half = np.diff(edges)[:, None] / 2
    y = (edges[1:] + edges[:-1])[:, None] / 2 + half * node
    return mpmath.mpf(float(np.sum(half * w * np.exp(-y * y / 2) * np.tanh(m + s * y)) / np.sqrt(2 * np.pi)))


@pytest.mark.parametrize("var", [1e-12, 1.0, 1e4])
@pytest.mark.parametrize("rho", [-0.8, 0.99, 1 - 1e-12, -1.0])
def test_against_mpmath(var, rho):
    """E tanh(u) tanh(v) = E tanh(u) E[tanh(v) | u]: duplicates, opposites, tiny and huge variances."""
    cov = np.array([[var, rho * var], [rho * var, var]])
    series = make("tanh", "tanh")
    series.prepare(0.0, [var, var])
    value, error = series(slice(0, 1), slice(1, 2), cov[:1, 1:], errors=True)
    with mpmath.workdps(25):
        sd, r = mpmath.sqrt(mpmath.mpf(var)), mpmath.mpf(cov[0, 1]) / mpmath.mpf(var)
        rest = sd * mpmath.sqrt(1 - r * r)
        cuts = [0, *(c for c in (2**k / sd for k in range(9)) if c < 3), 4, 11]
        f = lambda x: mpmath.tanh(sd * x) * conditional(r * sd * x, rest) * mpmath.npdf(x)  # noqa: E731
        node, w = np.polynomial.legendre.leggauss(40)
        true = mpmath.mpf(0)
        for low, high in itertools.pairwise(cuts):
            half = (mpmath.mpf(high) - low) / 2
            true += 2 * sum(half * b * f((mpmath.mpf(low) + high) / 2 + half * a) for a, b in zip(node, w, strict=True))
        norm = min(var, 1)
        assert abs(float(value[0, 0] - true)) <= error[0, 0] + 1e-14 * norm
        assert error[0, 0] <= 1e-9 * norm


def test_closed_forms_on_a_rectangle_and_its_tiles():
    """E erf erf is an arcsine; rows and columns of other numbers; tiles and lists of pairs agree with the whole."""
    x, y = inputs(70), inputs(45, seed=3)
    a, b, c = (x * x).sum(1), (y * y).sum(1), x @ y.T
    series = PairSeries(erf, erf, [Feature(0, 0, 1)], [Feature(0, 0, 1)])
    series.prepare(0.0, a, 0.0, b)
    value, error = series.matrix(c, errors=True)
    exact = 2 / np.pi * np.arcsin(2 * c / np.sqrt(np.outer(1 + 2 * a, 1 + 2 * b)))
    assert np.all(np.abs(value - exact) <= error + 4e-16)
    assert error.max() < 1e-12
    rows, cols = np.array([3, 60, 7]), slice(5, 40)
    np.testing.assert_allclose(series(rows, cols, c[rows, cols]), exact[rows, cols], atol=2e-14)
    i, j = np.indices(c.shape).reshape(2, -1)
    np.testing.assert_allclose(series.pairs(i, j, c.ravel()).reshape(c.shape), exact, atol=2e-14)


def test_threads_see_the_same_numbers():
    x = inputs(160, wild=True)
    cov = x @ x.T
    tiles = [slice(k, k + 16) for k in range(0, 160, 16)]
    found = []
    for workers in (1, 8):
        series = make("tanh", "tanh")
        series.prepare(0.0, np.diag(cov))
        run = lambda s: series(s, slice(None), cov[s])  # noqa: E731, B023
        with ThreadPoolExecutor(workers) as pool:
            found.append(np.concatenate(list(pool.map(run, tiles if workers > 1 else tiles[::-1]))))
    np.testing.assert_array_equal(found[1], np.concatenate(np.split(found[0], 10)[::-1]))


def test_symmetric_results_are_symmetric():
    x = inputs(400)
    series = make("silu", "silu")
    series.prepare(0.0, (x * x).sum(1))
    value = series.matrix(x @ x.T)
    np.testing.assert_array_equal(value, value.T)
    whole = series(slice(None), slice(None), x @ x.T)
    np.testing.assert_allclose(value, whole, rtol=1e-13, atol=1e-14)


def test_similar_variances_are_interpolated_and_others_are_not():
    """The same numbers, whether coefficients come from a table in the variance or row by row."""
    x = inputs(64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x *= 1 + 0.2 * np.random.default_rng(0).random((64, 1))
    cov = x @ x.T
    both = make("tanh'", "tanh'"), make("tanh'", "tanh'")
    both[0].prepare(0.0, np.diag(cov))
    both[1].prepare(np.append(np.zeros(64), 1.0), np.append(np.diag(cov), 1.0))  # another mean: no table
    np.testing.assert_allclose(both[0].matrix(cov), both[1](slice(64), slice(64), cov), rtol=2e-14)


def test_constants_not_finite_and_refusals():
    series = make("tanh", "sigmoid")
    series.prepare([0.5, 0.5, np.nan], [0.0, 1.0, 1.0], 0.0, [1.0, np.inf])
    value = series.matrix([[0.0, 0.0], [0.0, np.nan], [0.0, 0.0]])
    np.testing.assert_allclose(value[0, 0], np.tanh(0.5) / 2, rtol=1e-14)
    assert np.isnan(value[:, 1]).all() and np.isnan(value[2]).all() and np.isfinite(value[:2, 0]).all()
    with pytest.raises(ValueError, match="negative"):
        series.prepare(0.0, [1.0, -1.0])
    with pytest.raises(ValueError, match="one-dimensional"):
        series.prepare(0.0, [[1.0]])
    with pytest.raises(ValueError, match="together"):
        series.prepare(0.0, [1.0], 0.0)
    series.prepare(0.0, [1.0])
    with pytest.raises(ValueError, match="exceeds"):
        series(slice(None), slice(None), [[1.1]])
    with pytest.raises(ValueError, match="shape"):
        series(slice(None), slice(None), [[1.0, 0.0]])
    with pytest.raises(ValueError, match="level"):
        make("tanh", "tanh", level=-1)


def tanh_kernel(cov, layers):
    """The NNGP of a tanh network, weights of variance 2, biases of variance 1/10."""
    h = tp.Vector("x", N, axes=("b",), cov=cov)
    for k in range(layers):
        if k:
            h = tp.Matrix(f"W{k}", N, N, var=2) @ h + tp.Vector(f"c{k}", N, var=0.1)
        h = tp.tanh(h)
    return tp.Program(k=tp.moment(h * tp.rename(h, b="c")))


@pytest.mark.parametrize("size", few([12, 190], [12]))
def test_kernels_through_layers_have_true_errors(size):
    """tp.limit against the nested rule at level 2, layer by layer; 190 inputs are evaluated in tiles."""
    x = inputs(size)
    cov = x @ x.T
    found = tp.limit(tanh_kernel(cov, 3), method="exact")["k"]
    rng = np.random.default_rng(2)
    some = np.unique(np.concatenate([np.arange(8), rng.integers(0, size, 3)]))
    exact = cov[np.ix_(some, some)]
    i, j = np.indices(exact.shape).reshape(2, -1)
    for k in range(3):
        exact = 2 * exact + 0.1 if k else exact
        zero = np.zeros(len(some))
        exact = nested("tanh", "tanh", (zero, zero), (np.diag(exact), exact, np.diag(exact)), i, j)
        exact = exact.reshape(len(some), -1)
    error = np.asarray(found.error)[np.ix_(some, some)]
    assert np.all(np.abs(np.asarray(found.value)[np.ix_(some, some)] - exact) <= error + 5e-15)
    assert error.max() < 1e-8


def test_distinct_entries():
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 3, 1000).astype(float) for _ in range(4)]
    unique, back = distinct(columns)
    for a, b in zip(columns, unique, strict=True):
        np.testing.assert_array_equal(a, b[back])
    assert len(unique[0]) == len(set(zip(*columns, strict=True)))
