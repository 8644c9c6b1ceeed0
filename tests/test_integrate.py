"""Quadrature against closed forms and 30-digit references, and the honesty of the difference between levels."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from marks import few
from scipy.special import erf

from tensorprog.limits.gauss.integrand import _crossings
from tensorprog.limits.gauss.integrate import Curve, Feature, gaussian_expectation, qmc_expectation
from tensorprog.limits.gauss.series import PairSeries

CORRELATIONS = [0.0, 0.5, -0.5, 1.0, -1.0, 1 - 1e-6, 1 - 1e-12, -1 + 1e-12]


def sech2(x):
    """1 / cosh(x)**2 without overflow."""
    return 4 * np.exp(-2 * np.abs(x)) / (1 + np.exp(-2 * np.abs(x))) ** 2


# name: function, (location, scale) of its features, the same in mpmath
FUNCTIONS = {
    "tanh": (np.tanh, [(0.0, 1.0)], mpmath.tanh),
    "tanh30": (lambda x: np.tanh(30 * x), [(0.0, 1 / 30)], lambda x: mpmath.tanh(30 * x)),
    "relu": (lambda x: np.maximum(x, 0), [(0.0, 0.0)], lambda x: max(x, 0)),
    "step": (lambda x: np.where(x > 0, 1.0, 0.0), [(0.0, 0.0)], lambda x: mpmath.mpf(x > 0)),
    "erf": (erf, [(0.0, 1.0)], mpmath.erf),
    "sigmoid": (lambda x: (1 + np.tanh(x / 2)) / 2, [(0.0, 2.0)], lambda x: (1 + mpmath.tanh(x / 2)) / 2),
    "abs": (np.abs, [(0.0, 0.0)], abs),
    "fourth": (lambda x: x**4, [], lambda x: x**4),
    "exp": (lambda x: np.exp(x / 1e3), [], lambda x: mpmath.exp(x / 1000)),
    "sech2": (lambda x: sech2(3 * x), [(0.0, 1 / 3)], lambda x: mpmath.sech(3 * x) ** 2),
    "far": (lambda x: np.maximum(x - 6, 0), [(6.0, 0.0)], lambda x: max(x - 6, 0)),
}


def features(*names):
    """Features of the product of functions, one variable each."""
    return [Feature(i, *place) for i, name in enumerate(names) for place in FUNCTIONS[name][1]]


def product(*names):
    """The product of functions, one variable each, as an integrand."""

    def f(z, p):
        value = FUNCTIONS[names[0]][0](z[0])
        for name, x in zip(names[1:], z[1:], strict=True):
            value = value * FUNCTIONS[name][0](x)
        return value

    return f


def both_levels(f, mean, cov, places=(), params=()):
    """One Gaussian at levels 0 and 1."""
    mean, cov = np.asarray(mean, dtype=float)[None], np.asarray(cov, dtype=float)[None]
    return [gaussian_expectation(f, mean, cov, params, places, level)[0] for level in (0, 1)]


def check(levels, exact, scale, accuracy=1e-11):
    """Level 1 is accurate and its distance from level 0 bounds its error."""
    coarse, fine = levels
    error = abs(fine - exact)
    assert error <= accuracy * scale
    assert error <= 10 * abs(fine - coarse) + 1e-13 * scale


@pytest.mark.parametrize("name", few(FUNCTIONS, ["tanh30", "step", "sigmoid", "fourth", "exp", "far"]))
def test_one_dimension(name):
    g, places, precise = FUNCTIONS[name]
    with mpmath.workdps(30):
        for mean, var in itertools.product([0, 3, -3], [0, 1e-12, 1, 1e6]):
            sd = mpmath.sqrt(mpmath.mpf(var))
            levels = both_levels(lambda z, p: g(z[0]), [mean], [[var]], features(name))
            if not sd:
                assert levels[0] == levels[1] == g(np.array(float(mean)))
                continue
            density = lambda e: mpmath.exp(-(e**2) / 2) / mpmath.sqrt(2 * mpmath.pi)  # noqa: E731
            cuts = {mpmath.mpf(x) for x in (-14, -7, -3, 0, 3, 7, 14)}
            for location, scale in places:
                cuts |= {(location - mean + k * scale) / sd for k in (0, 1, 3, 9, 27, -1, -3, -9, -27)}
            cuts = sorted(x for x in cuts if abs(x) <= 14)
            scale = both_levels(lambda z, p: np.abs(g(z[0])), [mean], [[var]], features(name))[1]
            unit = mpmath.mpf(max(scale, 1e-300))  # mpmath's tolerance is absolute
            f = lambda e: precise(mean + sd * e) * density(e) / unit  # noqa: B023, E731
            exact = mpmath.quad(f, cuts, method="gauss-legendre") * unit
            check(levels, float(exact), max(scale, float(abs(exact))), 1e-13)


@pytest.mark.parametrize("rho", CORRELATIONS)
@pytest.mark.parametrize(("a", "b"), [(1, 1), (1e-12, 1), (1e6, 1e-12), (4, 0.25)])
def test_closed_forms_in_two_dimensions(rho, a, b):
    cov = rho * np.sqrt(a) * np.sqrt(b)
    matrix = [[a, cov], [cov, b]]
    with mpmath.workdps(30):
        r = mpmath.mpf(cov) / mpmath.sqrt(mpmath.mpf(a) * mpmath.mpf(b)) if abs(rho) < 1 else mpmath.mpf(rho)
        angle = mpmath.pi - mpmath.acos(r)
        step = float(angle / (2 * mpmath.pi))
        root = mpmath.sqrt(mpmath.mpf(a) * mpmath.mpf(b))
        relu = float(root * (mpmath.sqrt(1 - r**2) + r * angle) / (2 * mpmath.pi))
        spread = mpmath.sqrt((1 + 2 * mpmath.mpf(a)) * (1 + 2 * mpmath.mpf(b)))
        arc = float(2 / mpmath.pi * mpmath.asin(2 * mpmath.mpf(cov) / spread))
    check(both_levels(product("step", "step"), [0, 0], matrix, features("step", "step")), step, 1)
    check(both_levels(product("relu", "relu"), [0, 0], matrix, features("relu", "relu")), relu, float(root))
    check(both_levels(product("erf", "erf"), [0, 0], matrix, features("erf", "erf")), arc, max(abs(arc), 1e-9))
    fourth = a**2 * (3 * b**2) * 3 + 72 * a * b * cov**2 + 24 * cov**4  # Isserlis
    check(both_levels(product("fourth", "fourth"), [0, 0], matrix), fourth, fourth, 1e-13)


@pytest.mark.parametrize("rho", few(CORRELATIONS, (0.5, -1.0, 1 - 1e-6, -1 + 1e-12)))
@pytest.mark.parametrize("mean", [(0, 0), pytest.param((3, -3), marks=pytest.mark.slow), (-3, 0.5)])
@pytest.mark.parametrize("names", [("sech2", "sech2"), ("tanh30", "step"), ("tanh", "relu"), ("far", "abs")])
def test_two_dimensions_against_a_fine_iterated_rule(names, mean, rho):
    """Condition on u: the inner expectation is one-dimensional, the outer one mpmath's tanh-sinh in pieces."""
    matrix = np.array([[1, rho], [rho, 1]])
    levels = both_levels(product(*names), mean, matrix, features(*names))
    (f, places, _), (g, inner, _) = FUNCTIONS[names[0]], FUNCTIONS[names[1]]
    sd = float(np.sqrt((1 - np.longdouble(rho)) * (1 + np.longdouble(rho))))
    # An independent brute-force composite rule: 40 nodes on panels graded geometrically towards every rough place.
    cuts = {-12.0, 12.0, *np.arange(-11.0, 12.0)}
    steps = [0.0, *(s * 2.0**-k for k in range(45) for s in (1, -1))]
    for location, _ in places:
        cuts |= {location - mean[0] + s for s in steps}
    for location, _ in inner:
        if rho:
            cuts |= {(location - mean[1]) / rho + s for s in steps}
    cuts = np.array(sorted(x for x in cuts if abs(x) <= 12))
    x, w = np.polynomial.legendre.leggauss(40)
    half = np.diff(cuts)[:, None] / 2
    e = ((cuts[1:] + cuts[:-1])[:, None] / 2 + half * x).ravel()
    weight = (half * w).ravel() * np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi)
    centre = mean[1] + rho * e
    conditional = gaussian_expectation(
        lambda z, p: g(z[0]), centre[:, None], np.full((len(e), 1, 1), sd**2), features=features(names[1]), level=2
    )
    exact = np.sum(weight * f(mean[0] + e) * conditional)
    scale = np.sum(weight * np.abs(f(mean[0] + e) * conditional))
    check(levels, exact, max(scale, 1e-12), 1e-12)


def test_correlations_a_few_rounding_units_from_one():
    """What level 1 takes for a duplicate level 0 does not: the doubt about steps, 1e-8, shows."""
    for units in (1, 2, 4, 6, 8, 12, 100):
        rho = 1 - units * 2.0**-53
        exact = 0.5 - float(mpmath.acos(mpmath.mpf(rho))) / (2 * np.pi)
        levels = both_levels(product("step", "step"), [0, 0], [[1, rho], [rho, 1]], features("step", "step"))
        assert abs(levels[1] - exact) <= 10 * abs(levels[1] - levels[0]) + (3e-9 if units == 1 else 1e-13)


def test_three_orthants_with_every_kind_of_degeneracy():
    """P(u, v, w > 0) = 1/8 + (sum of the arcsines of the correlations) / 4 pi, whatever the rank."""
    rng = np.random.default_rng(1)
    step = features("step", "step", "step")
    for rank, near in itertools.product([1, 2, 3], [None, 1e-3, 1e-6]):
        factor = rng.standard_normal((3, rank))
        if near:
            factor[2] = factor[0] + near * factor[1]
        factor /= np.linalg.norm(factor, axis=1, keepdims=True)
        cov = factor @ factor.T
        # The angle from the factor: the arccosine of a correlation near 1 forgets half the digits.
        angles = [
            2 * np.arctan2(np.linalg.norm(factor[i] - factor[j]), np.linalg.norm(factor[i] + factor[j]))
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        exact = 0.125 + sum(np.pi / 2 - t for t in angles) / (4 * np.pi)
        check(both_levels(product("step", "step", "step"), [0, 0, 0], cov, step), exact, 1, 1e-8 if near else 1e-11)


@pytest.mark.parametrize("rank", few([1, 2, 3], (1, 2)))
def test_three_dimensions_against_finer_levels(rank):
    rng = np.random.default_rng(rank)
    names = ("relu", "step", "tanh")
    for _ in range(3):
        factor = rng.standard_normal((3, rank))
        cov = (factor @ factor.T)[None]
        mean = rng.choice([0.0, 3.0, -3.0], size=(1, 3))
        levels = [gaussian_expectation(product(*names), mean, cov, (), features(*names), k)[0] for k in (0, 1, 2)]
        scale = gaussian_expectation(product("relu", "step", "step"), mean, cov, (), features("relu", "step"), 0)[0]
        check(levels[:2], levels[2], max(scale, abs(levels[2]), 1e-12), 1e-12)


def test_three_dimensions_reduce_to_fewer():
    """Duplicates, opposites, constants and independent variables are exact limits."""
    names = ("relu", "step", "tanh")
    f, places = product(*names), features(*names)
    value = lambda cov, mean=(0, 0, 0): both_levels(f, mean, cov, places)[1]  # noqa: E731
    both = [Feature(0, 0), Feature(0, 0, 1)]
    one = both_levels(lambda z, p: np.maximum(z[0], 0) * np.tanh(z[0]), [0], [[1]], both)[1]
    assert value(np.ones((3, 3))) == pytest.approx(one, abs=1e-15)
    signs = np.array([1, -1, 1])
    assert value(np.outer(signs, signs)) == 0
    mixed = np.array([[1, 0, 0.5], [0, 0, 0], [0.5, 0, 1]])
    pair = both_levels(product("relu", "tanh"), [0, 0], [[1, 0.5], [0.5, 1]], features("relu", "tanh"))[1]
    assert value(mixed, (0, 2, 0)) == pytest.approx(pair, abs=1e-15)
    assert value(mixed, (0, 0, 0)) == 0  # the step's own value at its jump
    half = np.array([[1, 0, 0.5], [0, 7, 0], [0.5, 0, 1]])
    assert value(half) == pytest.approx(pair / 2, abs=1e-15)
    # w = u + v, with the planes of all three kinks in general position
    flat = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 2.0]])
    g = lambda z, p: np.maximum(z[0], 0) * (z[1] > 0) * np.tanh(z[0] + z[1])  # noqa: E731
    plane = both_levels(g, [0, 0], np.eye(2), [Feature(0, 0), Feature(1, 0)])
    assert value(flat) == pytest.approx(plane[1], rel=1e-11)


def test_growing_integrands_get_the_range_they_need():
    for slope in (0.5, 2, 8, 20):
        levels = both_levels(lambda z, p: np.exp(slope * z[0]), [0], [[1]])  # noqa: B023
        check(levels, np.exp(slope**2 / 2), np.exp(slope**2 / 2), 1e-13)
    levels = both_levels(lambda z, p: np.exp(2 * z[0] + 3 * z[1]), [0, 0], [[1, 0.5], [0.5, 1]])
    check(levels, np.exp(9.5), np.exp(9.5), 1e-13)
    check(both_levels(lambda z, p: np.exp(0.4 * z[0] ** 2), [0], [[1]]), np.sqrt(5), np.sqrt(5), 1e-8)
    assert np.isnan(both_levels(lambda z, p: np.exp(z[0] ** 2), [0], [[1]])).all()  # diverges
    assert np.isnan(both_levels(lambda z, p: np.exp(z[0]), [0], [[1e4]])).all()  # overflows
    rare = both_levels(lambda z, p: z[0] > 12, [0], [[1]], [Feature(0, 12)])
    check(rare, 1.7764821120776796e-33, 1.8e-33, 1e-8)


def test_undeclared_roughness_shows():
    """Without features the levels differ by about the error they make."""
    rng = np.random.default_rng(0)
    honest = 0
    for location in rng.uniform(-1, 1, size=100):
        coarse, fine = both_levels(lambda z, p: np.abs(z[0] - location), [0], [[1]])  # noqa: B023
        exact = location * erf(location / np.sqrt(2)) + np.sqrt(2 / np.pi) * np.exp(-(location**2) / 2)
        honest += abs(fine - exact) <= 10 * abs(fine - coarse) + 1e-13
    assert honest >= 90


def test_parameters_follow_their_batch_entries():
    rng = np.random.default_rng(0)
    size = 5000
    p, q = rng.uniform(0.1, 1, size=(2, size))
    mean, var = rng.standard_normal((size, 1)), rng.uniform(0, 2, size=(size, 1, 1))
    value = gaussian_expectation(lambda z, c: c[0] * np.cos(c[1] * z[0]), mean, var, (p, q))
    np.testing.assert_allclose(value, p * np.cos(q * mean[:, 0]) * np.exp(-(q**2) * var[:, 0, 0] / 2), atol=2e-15)


def test_dimension_zero_empty_batches_and_refusals():
    np.testing.assert_array_equal(
        gaussian_expectation(lambda z, p: 2 * p[0], np.empty((3, 0)), np.empty((3, 0, 0)), [[1, 2, 3]]), [2, 4, 6]
    )
    f = lambda z, p: z[0]  # noqa: E731
    assert gaussian_expectation(f, np.empty((0, 2)), np.empty((0, 2, 2))).shape == (0,)
    np.testing.assert_array_equal(gaussian_expectation(f, [[np.nan], [1]], [[[1]], [[0]]]), [np.nan, 1])
    with pytest.raises(NotImplementedError, match="dimension 3"):
        gaussian_expectation(f, np.zeros((1, 4)), np.eye(4)[None])
    for bad in ([[1, 2], [2, 1]], [[-1, 0], [0, 1]]):
        with pytest.raises(ValueError, match=r"semidefinite|negative"):
            gaussian_expectation(f, [[0, 0]], [bad])
    with pytest.raises(ValueError, match="semidefinite"):
        gaussian_expectation(f, np.zeros((1, 3)), [[[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]])
    with pytest.raises(ValueError, match="variable"):
        gaussian_expectation(f, [[0]], [[[1]]], features=[Feature(1, 0.0)])
    with pytest.raises(ValueError, match="mean must be"):
        gaussian_expectation(f, [0], [[1]])
    with pytest.raises(ValueError, match="level"):
        gaussian_expectation(f, [[0]], [[[1]]], level=-1)


def gram(size, scale=1.0, dim=3):
    """All pairs of a Gram matrix with duplicates, opposites and a zero vector."""
    x = np.random.default_rng(0).standard_normal((size, dim))
    x[1], x[2], x[3] = x[0], -x[0], 0
    k = scale * x @ x.T
    i, j = np.indices(k.shape).reshape(2, -1)
    return k[i, i], k[j, j], k[i, j]


def pair_expectation(f, g, mean, var, cov, features_f=(), features_g=(), level=1):
    """E f(u) g(v) by the series of pairs, each with marginals of its own; the shape of `cov`."""
    cov = np.asarray(cov, dtype=float)
    columns = [np.broadcast_to(np.asarray(x, dtype=float), cov.shape).ravel() for x in (*mean, *var)]
    series = PairSeries(f, g, features_f, features_g, level)
    series.prepare(columns[0], columns[2], columns[1], columns[3])
    each = np.arange(cov.size)
    return series.pairs(each, each, cov.ravel()).reshape(cov.shape)


def test_pairs_closed_forms():
    a, b, c = gram(30)
    for level, accuracy in ((0, 1e-10), (1, 1e-13)):
        value = pair_expectation(erf, erf, (0, 0), (a, b), c, [Feature(0, 0, 1)], [Feature(0, 0, 1)], level)
        exact = 2 / np.pi * np.arcsin(2 * c / np.sqrt((1 + 2 * a) * (1 + 2 * b)))
        np.testing.assert_allclose(value, exact, atol=accuracy)
        relu, kink = FUNCTIONS["relu"][0], [Feature(0, 0)]
        value = pair_expectation(relu, relu, (0, 0), (a, b), c, kink, kink, level)
        root = np.sqrt(a * b)
        rho = np.clip(np.divide(c, root, out=np.zeros_like(c), where=root > 0), -1, 1)
        exact = root * (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / (2 * np.pi)
        np.testing.assert_allclose(value, exact, atol=accuracy * root.max())
        value = pair_expectation(np.exp, np.exp, (0.5, -1), (a, b), c, level=level)
        np.testing.assert_allclose(value, np.exp(-0.5 + (a + b) / 2 + c), rtol=1e-7)


@pytest.mark.parametrize(
    "names",
    [
        ("tanh", "sigmoid"),
        ("relu", "tanh"),
        *[pytest.param(x, marks=pytest.mark.slow) for x in (("sech2", "sech2"), ("tanh30", "step"))],
    ],
)
def test_pairs_agree_with_the_nested_rule(names):
    a, b, c = gram(12)
    mean = (0.5, -1.0)
    f, g = (FUNCTIONS[n][0] for n in names)
    left, right = (features(n) for n in names)
    coarse, fine = (pair_expectation(f, g, mean, (a, b), c, left, right, level) for level in (0, 1))
    matrix = np.stack([a, c, c, b], axis=1).reshape(-1, 2, 2)
    centre = np.tile(mean, (len(a), 1))
    exact = gaussian_expectation(product(*names), centre, matrix, features=features(*names), level=2)
    error = np.abs(fine - exact)
    assert np.all(error <= 1e-12)
    assert np.all(error <= 10 * np.abs(fine - coarse) + 1e-13)


def test_pairs_shapes_and_refusals():
    assert pair_expectation(np.sin, np.sin, (0, 0), (1, 1), np.zeros((2, 3))).shape == (2, 3)
    assert pair_expectation(np.sin, np.sin, (0, 0), (1, 1), np.zeros(0)).shape == (0,)
    value = pair_expectation(np.cos, np.cos, (0, 0), (np.array([1, np.nan]), 1), [0.0, 0.0])
    np.testing.assert_allclose(value, [np.exp(-1), np.nan], rtol=1e-14)
    with pytest.raises(ValueError, match="negative"):
        pair_expectation(np.sin, np.sin, (0, 0), (1, -1), [0.0])
    with pytest.raises(ValueError, match="exceeds"):
        pair_expectation(np.sin, np.sin, (0, 0), (1, 1), [1.1])


def test_qmc_has_an_honest_standard_error_in_eight_dimensions_of_rank_three():
    rng = np.random.default_rng(5)
    factor = rng.standard_normal((2, 8, 3)) / 2
    cov = factor @ factor.transpose(0, 2, 1)
    scale = np.array([1.0, 2.0])

    def f(z, p):
        return p[0] * np.exp(sum(z) / 4)

    replicates = np.array([qmc_expectation(f, np.zeros((2, 8)), cov, [scale], rng, 2**10) for _ in range(16)])
    exact = scale * np.exp(cov.sum(axis=(1, 2)) / 32)
    standard_error = replicates.std(axis=0, ddof=1) / 4
    # |t| > 6 with 15 degrees of freedom: probability 2e-5 an entry.
    assert np.all(np.abs(replicates.mean(axis=0) - exact) < 6 * standard_error)
    assert np.all(standard_error < 1e-3 * exact)
    with pytest.raises(ValueError, match="power of two"):
        qmc_expectation(f, np.zeros((2, 8)), cov, [scale], rng, 1000)
    # Exact duplicates stay duplicates.
    twin = qmc_expectation(lambda z, p: (z[0] - z[1]) ** 2, [[0, 0]], [[[3, 3], [3, 3]]], (), rng)
    assert twin[0] < 1e-28


def test_a_kink_along_a_curve_is_followed():
    """E relu(x - g(y)) = E[pdf(g) - g (1 - cdf(g))] with g = relu(y) - 0.3, a kink along a broken line."""
    g = lambda y: np.maximum(y, 0) - 0.3  # noqa: E731
    curves = [Curve(0, lambda z, p: g(z[1]))]
    value = gaussian_expectation(
        lambda z, p: np.maximum(z[0] - g(z[1]), 0),
        np.zeros((1, 2)),
        np.eye(2)[None],
        features=[Feature(1, 0.0)],
        curves=curves,
    )
    from scipy.integrate import quad
    from scipy.special import ndtr

    def inner(y):
        return (math.exp(-(g(y) ** 2) / 2) / math.sqrt(2 * math.pi) - g(y) * ndtr(-g(y))) * math.exp(-y * y / 2)

    exact = quad(inner, -12, 12, points=[0], epsabs=1e-13)[0] / math.sqrt(2 * math.pi)
    assert abs(value[0] - exact) < 1e-13
    singular = gaussian_expectation(lambda z, p: z[0], np.zeros((1, 2)), np.ones((1, 2, 2)), curves=curves)
    assert np.isnan(singular[0])  # the variable is determined by the other: nothing can be followed


def test_inner_integrals_are_foreseen_from_a_few():
    """Their number is told before any is done, and what they really cost is near it."""
    told, spent, values = [], [], []

    def f(z, p):
        values.append(np.broadcast(*z).size)
        return np.tanh(30 * z[0]) * np.tanh(30 * z[1])

    cov = np.array([[[1.0, 0.3], [0.3, 1.0]]])
    places = [Feature(i, c / 8, 1 / 30) for i in range(2) for c in range(-8, 9)]

    def object_to(points):
        raise OverflowError(points)

    with pytest.raises(OverflowError):
        gaussian_expectation(f, np.zeros((1, 2)), cov, (), places, foresee=object_to)
    assert sum(values) < 1000, "no more than what finds the range"
    gaussian_expectation(f, np.zeros((1, 2)), cov, (), places, count=spent.append, foresee=told.append)
    assert len(told) == 1 and 0.7 < told[0] / (sum(values) + sum(spent)) < 1.5


def test_an_argument_that_is_0_on_an_interval_crosses_at_its_ends():
    """Whether or not the ends are on the grid; a 0 at one point is one crossing, and where there is no value is none."""
    grid = np.linspace(-12, 12, 4001)
    for low, high in ((-1 / 3, 0.7), (grid[1000], grid[3000])):

        def flat(z, low=low, high=high):
            return np.where((z > low) & (z < high), 0.0, 1.0)

        found = _crossings(flat, 0.0, 0.0, grid)
        np.testing.assert_allclose([r for r, _ in found], [low, high], rtol=0, atol=1e-14)
    assert _crossings(lambda z: np.maximum(z, 0), 0.0, 0.0, grid) == [(0.0, 0.0)]
    assert _crossings(lambda z: z * z, 0.0, 0.0, grid) == [(0.0, 0.0)]
    with np.errstate(invalid="ignore"):
        assert _crossings(lambda z: np.sqrt(z) - 1, 0.0, 0.0, grid) == [(1.0, 0.0)]
