"""The population: adjointness and linear programs to rounding, nonlinear expectations within a shrinking error.

Statistical tests are fixed-seed means over replicas, with t intervals; the file's failure probability is below 1e-4.
"""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import tensorprog as tp
import tensorprog.execute.population as space
from tensorprog.errors import TensorProgramError
from tensorprog.execute.compiled import compiled
from tensorprog.execute.executor import population
from tensorprog.execute.population import (
    FIRST_DIMENSIONS,
    REMEMBERED,
    Population,
    PopulationWarning,
    _remembered,
    _sobol,
)

FAMILY = 1e-4
N = SimpleNamespace(name="n", ratio=1)
HALF = SimpleNamespace(name="m", ratio=Fraction(1, 2))


def matrix(name="W", rows=N, cols=N, var=1):
    return SimpleNamespace(name=name, rows=rows, cols=cols, var=var, entries=None)


def vector(name="v", width=N, shape=(), mean=0, cov=None, var=1, distribution=None):
    return SimpleNamespace(name=name, width=width, shape=shape, mean=mean, cov=cov, var=var, distribution=distribution)


def relu(x):
    return np.maximum(x, 0)


def replicas(statistic, samples, count=8, **options):
    """Values (count, k) of a statistic of a fresh population, one row a replica."""
    return np.array([statistic(Population(samples, rng=1000 + r, **options)) for r in range(count)])


def within_error(values, exact, comparisons=20):
    """The mean over replicas is the exact value, by a t interval."""
    error = values.std(0, ddof=1) / math.sqrt(len(values))
    t = np.abs(values.mean(0) - exact) / error
    assert (t < stats.t.isf(FAMILY / comparisons / 2, len(values) - 1)).all(), (values.mean(0), exact, error)


# --- exact to rounding ---


@pytest.mark.parametrize(("rows", "cols", "rho"), [(N, N, 1.0), (HALF, N, 0.5), (N, HALF, 2.0)])
def test_adjointness_is_exact(rows, cols, rho):
    p = Population(256, rng=2)
    w, other = p.matrix(matrix("W", rows, cols, 2)), p.matrix(matrix("V", rows, rows))
    x = p.vector(vector("x", cols, (3,), cov=[[1, 1, 0], [1, 2, 0.5], [0, 0.5, 1]]))
    x = np.concatenate([x, np.tanh(x + x[0] ** 2), x[:1], 0 * x[:1]])
    g = w.apply(x)
    y = relu(g[:5]) + np.cos(other.apply(g[:1]))
    b = w.apply_transposed(y)
    z = np.stack([np.abs(b[0]), b[1] * b[2], b[0] + x[0]])
    h = w.apply(z)
    u = np.tanh(h) - other.apply_transposed(y[:3])
    d = w.apply_transposed(u)
    for left, left_w in ((y, b), (u, d)):
        for right, w_right in ((x, g), (z, h)):
            gap = rho * p.mean(left[:, None] * w_right) - p.mean(left_w[:, None] * right)
            assert np.abs(gap).max() < 1e-13


def moments(rows, cols, count=5):
    p = Population(128, rng=3)
    a, v = p.matrix(matrix("A", rows, cols)), p.vector(vector("v", rows))
    x, out = v, []
    for _ in range(count):
        x = a.apply(a.apply_transposed(x))
        out.append(p.mean(x * v))
    return out


def test_random_matrix_moments_are_exact():
    marchenko_pastur = [1, 1.5, 2.75, 5.625, 12.3125]  # rho = 1/2, E v.(A A.T)^k v / n
    np.testing.assert_allclose(moments(HALF, N), marchenko_pastur, rtol=1e-12)
    np.testing.assert_allclose(moments(N, N), [1, 2, 5, 14, 42], rtol=1e-12)  # Catalan numbers
    # rho = 2: A A.T and A.T A share their traces, which gives 2^k / 2 times the moments for rho = 1/2.
    np.testing.assert_allclose(moments(N, HALF), [2**k * m for k, m in enumerate(marchenko_pastur)], rtol=1e-12)


def test_semicircle_moments_are_exact():
    p = Population(128, rng=4)
    w, v = p.matrix(matrix(var=Fraction(1, 2))), p.vector(vector())
    x, out = v, []
    for _ in range(8):
        x = w.apply(x) + w.apply_transposed(x)
        out.append(p.mean(x * v))
    np.testing.assert_allclose(out, [0, 1, 0, 2, 0, 5, 0, 14], atol=2e-12)


def test_initial_vectors_have_their_moments_exactly():
    p = Population(128, rng=5)
    cov = np.array([[2, 2, 0], [2, 3, 0], [0, 0, 0]])
    v = p.vector(vector("a", shape=(3,), mean=[1, 0, 5], cov=cov))
    c = p.vector(vector("c", mean=2, var=0))
    other = p.vector(vector("b"))
    np.testing.assert_allclose(p.mean(v), [1, 0, 5], atol=1e-13)
    np.testing.assert_allclose(v @ v.T / 128 - np.outer([1, 0, 5], [1, 0, 5]), cov, atol=1e-12)
    np.testing.assert_allclose(p.mean(v * other), 0, atol=1e-13)
    assert (c == 2).all() and (v[2] == 5).all()


def test_gaussian_images_have_their_covariance_exactly():
    """Cov(Zhat) = s2 E[x y] and, for the transpose, s2 rho E[x y]; independent of every earlier vector."""
    p = Population(256, rng=6)
    w, v, y = p.matrix(matrix("W", HALF, N, 3)), p.vector(vector("v", N, (2,))), p.vector(vector("y", HALF, (2,)))
    x = np.tanh(v) + 1
    g, b = w.apply(x), w.apply_transposed(relu(y))
    np.testing.assert_allclose(g @ g.T, 3 * (x @ x.T), rtol=1e-12)
    u = w.apply_transposed(y)
    assert p.size(N) == p.size(HALF) == 256 and p.inverse_sqrt(N) == 0
    # y is orthogonal to the image g, whose noise came later: no Zdot, and the noise of b is fresh.
    np.testing.assert_allclose(p.mean(y[:, None] * g), 0, atol=1e-13)
    np.testing.assert_allclose(u @ u.T, 3 / 2 * (y @ y.T), rtol=1e-12, atol=1e-12)
    assert np.abs(p.mean(v[:, None] * u)).max() < 1e-12
    assert b.shape == (2, 256)


# --- Zdot, within the sampling error ---


def kinked(p):
    """E[y W f(W.T y)] = E f'(u) for y and u standard normal (Stein), also for steps and kinks."""
    w, y = p.matrix(matrix()), p.vector(vector("y"))
    u = w.apply_transposed(y)
    step, kink, smooth = w.apply(np.stack([1.0 * (u > 0), relu(u), np.tanh(u)]))
    dependent = w.apply(relu(u + 2 * w.apply_transposed(y) - w.apply_transposed(y)))  # relu(2 u), rank deficient
    return [p.mean(y * z) for z in (step, kink, smooth, dependent)]


def gaussian(f, std=1.0):
    """E f(std u), u standard normal: the trapezoid rule converges geometrically for smooth f."""
    u = np.linspace(-12, 12, 4001)
    return float(np.sum(f(std * u) * stats.norm.pdf(u)) * (u[1] - u[0]))


E_SECH2 = gaussian(lambda u: 1 - np.tanh(u) ** 2)
KINKED = np.array([1 / math.sqrt(2 * math.pi), 0.5, E_SECH2, 1.0])


def test_zdot_of_steps_kinks_and_smooth_functions():
    values = replicas(kinked, 2048)
    within_error(values, KINKED)
    assert np.abs(values - KINKED).max() < 5e-3


def test_zdot_of_the_gradient_independence_counterexample():
    """x = U xi + 1, h = W x, dx = 2 W.T h: E dx = 2, where gradient independence says 0 (Tensor Programs II, section 6.3)."""
    p = Population(128, rng=7)
    w, x = p.matrix(matrix()), p.vector(vector("x", mean=1))
    assert abs(p.mean(w.apply_transposed(2 * w.apply(x))) - 2) < 1e-12


def test_zdot_through_a_backward_pass():
    """f = v.tanh(k) / sqrt n, k = W.T tanh(W h): dk = v tanh'(k), dh = W.T (tanh'(g) W dk), by hand.

    Z^k = Zhat + E[tanh'(g)] Z^h and Z^dh = Zhat + E[tanh'(g)] Z^dk; what else Zdot has is odd in v.
    """

    def dh2(p):
        w, h, v = p.matrix(matrix()), p.vector(vector("h")), p.vector(vector("v"))
        g = w.apply(h)
        k = w.apply_transposed(np.tanh(g))
        dk = v * (1 - np.tanh(k) ** 2)
        dh = w.apply_transposed((1 - np.tanh(g) ** 2) * w.apply(dk))
        return [p.mean(dk * dk), p.mean(dh * dh)]

    a, b = gaussian(lambda u: np.tanh(u) ** 2), gaussian(lambda u: (1 - np.tanh(u) ** 2) ** 2)
    dk2 = gaussian(lambda u: (1 - np.tanh(u) ** 2) ** 2, math.sqrt(a + E_SECH2**2))
    within_error(replicas(dh2, 4096), np.array([dk2, dk2 * (b + E_SECH2**2)]))


def test_the_error_falls_with_the_number_of_samples():
    """Root mean square over replicas and statistics; Sobol points do clearly better than M^-1/2."""
    sizes = np.array([2**8, 2**10, 2**12, 2**14])
    error = np.array([np.sqrt(np.mean((replicas(kinked, m) - KINKED) ** 2)) for m in sizes])
    slope = np.polyfit(np.log(sizes), np.log(error), 1)[0]
    assert (np.diff(error) < 0).all() and slope < -0.65, (error, slope)
    pseudo = np.sqrt(np.mean((replicas(kinked, 2**12, dimensions=0) - KINKED) ** 2))
    assert error[2] < pseudo


def test_dependent_vectors_use_no_directions():
    p = Population(64, rng=8)
    w, x = p.matrix(matrix()), p.vector(vector("x"))
    g = w.apply(x)
    for _ in range(200):  # more products than there are samples
        np.testing.assert_allclose(w.apply(-3 * x), -3 * g, rtol=1e-12, atol=1e-12)
    assert w.forward.basis.rank == 1 and not w.apply(0 * x).any()


def test_distributions_go_through_the_normal_one():
    def one(p):
        v = p.vector(vector("r", shape=(2,), mean=1, var=4, distribution="rademacher"))
        u = p.vector(vector("u", mean=1, var=3, distribution="uniform"))
        e = p.vector(vector("e", distribution=stats.expon()))
        assert set(np.unique(v)) == {-1.0, 3.0} and u.min() >= -2 and u.max() <= 4
        return [*p.mean(v), p.mean(v[0] * v[1]), p.mean(u), p.mean(u * u), p.mean(e), p.mean(e * e)]

    values = replicas(one, 2048)
    np.testing.assert_allclose(values.mean(0), [1, 1, 1, 1, 4, 1, 2], atol=0.02)


# --- reproducible, independent, never silent ---


def test_runs_are_reproducible_and_replicas_differ():
    a, b, c = (Population(64, rng=r).vector(vector()) for r in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1
    d, e = (Population(64, rng=np.random.default_rng(r)).vector(vector()) for r in (1, 1))
    np.testing.assert_array_equal(d, e)


def test_widths_are_independent_populations():
    p = Population(64, rng=1)
    assert np.abs(p.vector(vector("a", N)) - p.vector(vector("a", HALF))).max() > 0.1


def test_a_number_of_samples_that_is_no_power_of_two_warns():
    with pytest.warns(PopulationWarning, match="100 samples are not a power of two"):
        p = Population(100)
    v = p.vector(vector())
    assert abs(p.mean(v * v) - 1) < 1e-13
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Population(100, dimensions=0).vector(vector())


def test_running_out_of_sobol_dimensions_warns():
    p = Population(256, dimensions=40)
    p.vector(vector("a", shape=(36,)))
    with pytest.warns(PopulationWarning, match=r"40 Sobol dimensions of the population of width n are used up"):
        v = p.vector(vector("b", shape=(8,)))
    np.testing.assert_allclose(v @ v.T / 256, np.eye(8), atol=1e-13)


def test_running_out_of_samples_warns_and_then_is_an_error():
    p = Population(32)
    p.vector(vector("a", shape=(14,)))
    with pytest.warns(PopulationWarning, match="more than half of the 32 directions"):
        p.vector(vector("b", shape=(5,)))
    p.vector(vector("c", shape=(12,)))
    with pytest.raises(TensorProgramError, match=r"width n has 32 samples(.|\n)*raise the number of samples"):
        p.vector(vector("d"))


@pytest.mark.parametrize(("samples", "options"), [(0, {}), (2.5, {}), (64, {"dimensions": 10**6})])
def test_impossible_populations_say_so(samples, options):
    with pytest.raises(TensorProgramError):
        Population(samples, **options)


def test_points_are_drawn_once_for_all_runs_of_a_seed():
    _remembered.cache_clear()
    one, two, other = [Population(64, rng=seed).vector(vector()) for seed in (5, 5, 6)]
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert (_remembered.cache_info().hits, _remembered.cache_info().misses) == (1, 2)
    assert not _remembered(5, "n", 64, 0, FIRST_DIMENSIONS).flags.writeable
    Population(2 * REMEMBERED // FIRST_DIMENSIONS, rng=5).vector(vector())  # too many to keep
    assert _remembered.cache_info().misses == 2


def test_many_samples_are_drawn_in_the_dimensions_that_the_program_needs(monkeypatch):
    """Each width by its own count: vectors, inputs of fewer features than examples, products."""
    n, m, samples = tp.Width("n"), tp.Width("m"), 2 * REMEMBERED // FIRST_DIMENSIONS
    net = tp.Network(tp.readout("v", tp.tanh(tp.dense("U", tp.Input("x"), n))))
    inputs = net.program(np.random.default_rng(0).standard_normal((5, 3)))
    assert compiled(inputs, pairs=True).noise() == {"n": 3 + 1}, "and the readout"
    x = tp.Vector("x", n, axes={"t": 4})
    p = tp.Program(q=tp.moment(tp.tanh(tp.Matrix("W", m, n) @ tp.tanh(tp.take(x, "t", 0)))))
    drawn = set()
    monkeypatch.setattr(space, "_remembered", lambda rng, *what: drawn.add(what) or _sobol(rng, *what))
    population(p, samples=samples, replicates=2)
    assert drawn == {("n", samples, 0, 4), ("m", samples, 0, 1)}


# ---- components ----


def test_vectors_that_never_meet_have_populations_of_their_own():
    """Layers of one width: dh meets h, and no other layer; a skip connection joins them, and so does a matrix applied twice."""
    n = tp.Width("n")

    def trace(skip):
        h = tp.tanh(tp.dense("U", tp.Input("x"), n))
        h = tp.tanh(tp.dense("W", h, n)) + (h if skip else 0)
        return tp.sgd(tp.Network(tp.readout("v", h)), [[1], [2]], [1, -1], steps=2, lr=1, parametrization="mup").program

    layers, joined = (compiled(trace(skip), pairs=True).components for skip in (False, True))
    assert layers.matrices["W"] == (layers.vectors["v"], layers.vectors["U"])
    assert set(layers.vectors.values()) == {"n", "n 2"}
    assert set(joined.vectors.values()) == {"n"}
    W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1)
    once, twice = (tp.Program(q=tp.moment(y * y)) for y in (tp.tanh(W @ x), tp.tanh(W @ tp.tanh(W @ x))))
    assert set(compiled(once).components.matrices["W"]) == {"n", "n 2"}
    assert set(compiled(twice).components.matrices["W"]) == {"n"}
    of_numbers = tp.Program(q=tp.moment((W @ tp.tanh(tp.Matrix("A", n, n) @ x + 1) + 1) ** 2))
    assert compiled(of_numbers).components.matrices == {"A": ("n 2", "n"), "W": ("n 3", "n 2")}
