"""Integrals in one variable: thin windows, pairs of roots, oscillations, and whether bounds of errors hold."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from marks import few
from scipy.optimize import brentq
from scipy.special import erf, expit, ndtr

import tensorprog as tp
from tensorprog.language import algebra
from tensorprog.language.attributes import Call
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.limits.gauss.bounded import Bounded
from tensorprog.limits.gauss.enclosure import Box, enclosures, function
from tensorprog.limits.gauss.plane import UNRESOLVED, Plane
from tensorprog.limits.gauss.ranges import SHAPES
from tensorprog.limits.gauss.verified import EDGES, ENCLOSED, LINE_PANELS, NODES, Line

N = tp.Width("n")


def limit(f, var=1.0, mean=0.0):
    x = tp.Vector("x", N, mean=mean, var=var)
    return tp.limit(tp.Program(a=tp.moment(f(x))), method="exact")["a"]


def body(f):
    """The integrand of a function of one Gaussian vector."""
    done = {}
    for y in topological([f(tp.Vector("x", N)).node]):
        if y.op == "vector":
            done[y] = Node("var", (), 0)
        else:
            done[y] = algebra.constant(y.attr) if y.op == "constant" else algebra.applied(y, [done[a] for a in y.args])
    return done[y]


def window(low, high, var):
    """P(low < z < high), z ~ N(0, var), for thin windows too."""
    with mpmath.workdps(40):
        s = mpmath.sqrt(mpmath.mpf(var))
        return mpmath.quad(lambda x: mpmath.npdf(x, 0, s), [low, high])


INVERSES = {  # function, of a Gaussian vector and of mpmath; a value; a guess of where it is taken
    "tanh": (tp.tanh, mpmath.tanh, 0.5, 0.55),
    "erf": (tp.erf, mpmath.erf, -0.25, -0.22),
    "exp": (tp.exp, mpmath.exp, 1.5, 0.4),
    "x**3": (lambda x: x**3, lambda x: x**3, 0.7, 0.89),
    "gelu + x": (lambda x: tp.gelu(x) + x, lambda x: x * mpmath.ncdf(x) + x, 0.7, 0.45),
}


@pytest.mark.parametrize("name", few(INVERSES, ["tanh"]))
def test_boxes_around_any_value(name):
    f, precise, value, guess = INVERSES[name]
    with mpmath.workdps(40):
        for width, var in ((1e-3, 1.0), (1e-6, 1e-2), (1e-9, 1e4)):
            ends = [
                mpmath.findroot(lambda x: precise(x) - value - s * mpmath.mpf(width), guess)  # noqa: B023
                for s in (-1, 1)
            ]
            true = window(*ends, var)
            found = limit(lambda x: tp.step(width - tp.abs(f(x) - value)) / width, var)  # noqa: B023
            assert abs(found.value - float(true / mpmath.mpf(width))) <= found.error
            assert 0 < found.error <= 1e-5 * found.value


def test_two_roots_close_together_and_nested_jumps():
    with mpmath.workdps(40):
        c = 1 - mpmath.mpf(1e-6)
        turn = 2 * mpmath.pi
        true = sum(window(mpmath.asin(c) + turn * k, mpmath.pi - mpmath.asin(c) + turn * k, 1) for k in range(-2, 2))
        found = limit(lambda x: tp.step(tp.sin(x) - 1 + 1e-6))
        assert abs(found.value - float(true)) <= found.error <= 1e-8 * found.value
        c, true = mpmath.asin(mpmath.mpf(0.9999)), mpmath.mpf(0)
        for k in range(-20, 20):
            true += window((c + turn * k) / 10, (mpmath.pi - c + turn * k) / 10, 1)
        found = limit(lambda x: tp.step(tp.sin(10 * x) - 0.9999))
        assert abs(found.value - float(true)) <= found.error <= 1e-9
    inner = limit(lambda x: tp.step(tp.sign(x - 0.3) * x - 1.0))
    assert inner.value == pytest.approx(2 * ndtr(-1.0), abs=inner.error)  # x > 1, and -x > 1
    assert limit(lambda x: tp.step(tp.relu(x)) * tp.tanh(x + 1)).error < 1e-13


def test_a_jump_is_not_its_value_at_the_jump():
    """A panel that ends at a root has the value of its side there."""
    found = limit(lambda x: tp.arctan(6 * tp.sign(-2.5 * x - 2.25) * x**2 - 0.25), 100)
    with mpmath.workdps(20):
        f = lambda e: mpmath.atan(6 * mpmath.sign(-25 * e - 2.25) * (10 * e) ** 2 - 0.25) * mpmath.npdf(e)  # noqa: E731
        cuts = [-12, -3, -1, -0.3, -0.09, -0.05, -0.02, 0, 0.02, 0.05, 0.1, 0.3, 1, 3, 12]
        assert abs(found.value - float(mpmath.quad(f, cuts))) <= found.error + 1e-13


def test_oscillations():
    for var in (1.0, 100.0):
        exact = (np.exp(1j) / np.sqrt(1 + 6j * var)).real
        found = limit(lambda x: tp.cos(1 - 3 * x * x) * tp.erf(100 + 0 * x + tp.abs(x)), var)
        assert abs(found.value - exact) <= found.error + 1e-15 and found.error < 1e-13
    for s in (1, 20):
        found = limit(lambda x: tp.cos(tp.relu(x)) * tp.erf(100 + tp.abs(x)), s**2)
        assert abs(found.value - (0.5 + math.exp(-(s**2) / 2) / 2)) <= found.error < 1e-13


@pytest.mark.parametrize(
    "f", [lambda x: tp.tanh(x**3) ** 2, lambda x: (x * (1 + tp.tanh(x + x**3)) / 2) ** 2], ids=["cube", "gelu"]
)
def test_smooth_integrands_are_known_to_rounding(f):
    a, b = limit(f), limit(f, 1.0 + 1e-15)
    assert a.error < 1e-13 and abs(a.value - b.value) < 1e-14


def pair(f, cov=((1, 0.5), (0.5, 1)), mean=(0, 0)):
    x, y = tp.vectors(("x", "y"), N, mean=list(mean), cov=[list(row) for row in cov])
    return tp.limit(tp.Program(a=tp.moment(f(x, y))), method="exact")["a"]


def test_a_disc():
    """By polar coordinates."""
    disc = pair(lambda x, y: tp.step(1 - x * x - y * y), ((1, 0), (0, 1)))
    assert abs(disc.value + math.expm1(-0.5)) <= disc.error < 1e-12


@pytest.mark.slow
def test_a_strip_along_a_curve():
    """By conditioning on the first variable."""
    w, s = 1e-3, math.sqrt(0.75)
    x = np.linspace(-9, 9, 400_001)
    with np.errstate(divide="ignore"):
        edges = [np.arctanh(np.clip(0.5 + v - np.tanh(x), -1, 1)) for v in (-w, w)]
    inner = [ndtr((e - x / 2) / s) for e in edges]
    true = np.sum((inner[1] - inner[0]) * np.exp(-(x**2) / 2)) * (x[1] - x[0]) / math.sqrt(2 * math.pi)
    strip = pair(lambda x, y: tp.step(w - tp.abs(tp.tanh(x) + tp.tanh(y) - 0.5)) / w)
    assert strip.kind == "bound" and abs(strip.value - true / w) <= strip.error + 1e-7 * true / w
    assert strip.error < 1e-9


@pytest.mark.slow
def test_a_window_of_one_of_two_variables():
    """Where the first variable is in the window, it is almost a number."""
    w = 1e-6
    with mpmath.workdps(30):
        ends = [mpmath.atanh(0.5 + v * mpmath.mpf(w)) for v in (-1, 1)]
        g = lambda t: mpmath.quad(lambda e: mpmath.tanh(t / 2 + e * mpmath.sqrt(0.75)) * mpmath.npdf(e), [-9, 0, 9])  # noqa: E731
        true = float(window(*ends, 1) / mpmath.mpf(w) * g(mpmath.atanh(0.5)))
    box = pair(lambda x, y: tp.step(w - tp.abs(tp.tanh(x) - 0.5)) / w * tp.tanh(y))
    assert abs(box.value - true) <= box.error + 1e-11 and box.error < 1e-9


def test_piecewise_homogeneous_waves_in_two_variables():
    """cos(20 relu(x)) cos(20 relu(y)): on each quadrant it is a wave of fewer variables."""
    found = pair(lambda x, y: tp.cos(20 * tp.relu(x)) * tp.cos(20 * tp.relu(y)))
    t, w = np.polynomial.legendre.leggauss(30)
    cells = np.linspace(0, 9, 46)
    e = ((cells[1:] + cells[:-1])[:, None] / 2 + (cells[1:] - cells[:-1])[:, None] / 2 * t).ravel()
    weight = ((cells[1:] - cells[:-1])[:, None] / 2 * w).ravel() * np.exp(-(e**2) / 2) / math.sqrt(2 * math.pi)
    s = math.sqrt(0.75)
    one = np.sum(weight * np.cos(20 * e) * ndtr(-0.5 * e / s))  # x > 0 > y
    density = np.exp(-((e[:, None] ** 2 - e[:, None] * e + e**2) / 1.5)) / (2 * math.pi * s)
    plain = weight / (np.exp(-(e**2) / 2) / math.sqrt(2 * math.pi))
    both = (plain * np.cos(20 * e)) @ density @ (plain * np.cos(20 * e))
    assert abs(found.value - (1 / 3 + 2 * one + both)) <= found.error + 1e-13
    assert found.error < 1e-12


@pytest.mark.parametrize("rho", [1 - 1e-12, 1.0, -1.0, 0.0])
def test_correlations_near_one_in_two_variables(rho):
    """relu(tanh(x)) relu(tanh(y)): at 1 - 1e-12, as at 1; at -1 there is nothing."""
    found = pair(lambda x, y: tp.relu(tp.tanh(x)) * tp.relu(tp.tanh(y)), ((1, rho), (rho, 1)))
    one = limit(lambda x: tp.relu(tp.tanh(x)) ** 2).value
    half = limit(lambda x: tp.relu(tp.tanh(x))).value
    true = {1.0: one, -1.0: 0.0, 0.0: half**2}.get(rho, one)
    assert abs(found.value - true) <= found.error + (3e-12 if 0 < rho < 1 else 0) and found.error < 1e-11


def test_symmetric_integrals_are_exactly_symmetric():
    x = tp.Input("x")
    for f in (tp.tanh, lambda h: tp.cos(tp.relu(h)), lambda h: h * (1 + tp.tanh(h + h**3 / 20)) / 2):
        net = tp.Network(tp.readout("v", f(tp.layer_norm(tp.dense("U", x, tp.Width("n"), W_std=3)))))
        found = tp.limit(net, [[1.0, 0.5], [0.3, -1.2], [2.0, 0.1]], of="nngp")["nngp"]
        assert np.array_equal(found.value, found.value.T)
        assert np.max(found.error) < 1e-11


def test_the_budget_ends_in_the_error():
    """An oscillation too fast to resolve: its bound is all that is undecided; the number of panels is known beforehand."""
    line = Line(body(lambda x: tp.cos(1e9 * x * x)))
    found = line(np.zeros((1, 1)), np.ones((1, 1)), [], most=300)
    assert found.panels[0] <= 300
    assert abs(found.value[0]) <= found.error[0] <= 2
    found = Line(body(lambda x: tp.step(tp.sin(1e7 * x))))(np.zeros((1, 1)), np.ones((1, 1)), [])
    assert found.panels[0] <= LINE_PANELS
    assert abs(found.value[0] - 0.5) <= found.error[0]


def test_evaluations_stay_within_the_count_known_beforehand():
    counted = [0]

    def count(points):
        counted[0] += points

    fast = Bounded(Line(body(lambda x: tp.cos(1e9 * x * x))), lambda z, p: np.cos(1e9 * z[0] ** 2), lambda *_: [])
    fast(np.zeros((1, 1)), np.ones((1, 1, 1)), [], 1, count=count)
    # At most so many panels are summed; with those that were cut they are fewer than twice as many, each enclosed once.
    # The first rules, for the size of the integrand, and at most three more attempts.
    assert LINE_PANELS * ENCLOSED < counted[0] <= 4 * LINE_PANELS * (NODES + 2 * ENCLOSED)


def test_every_primitive_has_a_true_enclosure():
    """Values and difference quotients on random boxes, real and complex, lie in the ranges."""
    rng = np.random.default_rng(0)
    assert set(SHAPES) == set(PRIMITIVES)
    precise = {"sqrt": mpmath.sqrt, "tanh": mpmath.tanh, "arctan": mpmath.atan, "sin": mpmath.sin, "exp": mpmath.exp}
    for name, row in PRIMITIVES.items():
        params = tuple([0.5] * len(row.parameters))
        x = Node("fn", (Node("var", (), 0),), Call(name, params)) if params else algebra.fn(name, Node("var", (), 0))
        low = np.sort(rng.normal(0, 2, (2, 200)), axis=0)
        if row.domain is not None:
            low = np.abs(low)
            low.sort(axis=0)
        height = rng.uniform(0, 1, (1, 200))
        zero, one = [np.zeros(200)], [np.ones((1, 200))]
        box = Box(low[:1], low[1:], low[:1], low[1:], height)
        found = enclosures(x)(box, zero, one, []).whole
        inside = low[0] + (low[1] - low[0]) * np.linspace(0, 1, 33)[:, None]
        value = function(x)([inside], [])
        slack = 1e-12 * (1 + np.abs(value))
        assert np.all((found.low - slack <= value) & (value <= found.high + slack)), name
        step = 1e-6
        slope = (function(x)([inside + step], []) - function(x)([inside - step], [])) / (2 * step)
        away = np.abs(inside) > 2 * step
        good = (found.down[0] - 1e-4 * (1 + np.abs(slope)) <= slope) & (
            slope <= found.up[0] + 1e-4 * (1 + np.abs(slope))
        )
        assert np.all(good | ~away), name
        if name in precise:
            for i in range(0, 200, 10):
                z = mpmath.mpc(rng.uniform(low[0, i], low[1, i]), height[0, i] * rng.uniform(-1, 1))
                assert abs(precise[name](z)) <= found.modulus[0, i] * (1 + 1e-12), name


ROWS = {
    "relu": (tp.relu, lambda x: np.maximum(x, 0)), "abs": (tp.abs, np.abs), "sign": (tp.sign, np.sign),
    "step": (tp.step, lambda x: np.heaviside(x, 0.5)), "tanh": (tp.tanh, np.tanh), "erf": (tp.erf, erf),
    "gelu": (tp.gelu, lambda x: x * ndtr(x)), "sigmoid": (tp.sigmoid, expit), "sin": (tp.sin, np.sin),
    "cos": (tp.cos, np.cos), "gaussian": (tp.gaussian, lambda x: np.exp(-x * x)), "arctan": (tp.arctan, np.arctan),
    "softplus": (tp.softplus, lambda x: np.logaddexp(x, 0)), "silu": (tp.silu, lambda x: x * expit(x)),
}  # fmt: skip


def drawn(rng, depth):
    """A random function, of expressions and of arrays."""
    if depth == 0:
        return (lambda x: x), (lambda x: x)
    (a, b), kind = drawn(rng, depth - 1), rng.integers(10)
    if kind < 6:
        f, g = ROWS[list(ROWS)[rng.integers(len(ROWS))]]
        c, d = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-0.7, 0.9)), float(rng.normal())
        return (lambda x: f(c * a(x) + d)), (lambda x: g(c * b(x) + d))
    p, q = drawn(rng, depth - 1)
    return (
        (lambda x: a(x) * p(x), lambda x: b(x) * q(x)) if kind < 8 else (lambda x: a(x) + p(x), lambda x: b(x) + q(x))
    )


def adaptive(g, mean, deviation):
    """Cells are halved until Clenshaw-Curtis (with ends: no jump hides) and Gauss agree."""
    order = np.arange(9)
    ends = np.cos(np.pi * order / 8)
    moments = np.where(order % 2, 0, 2 / (1 - np.where(order % 2, 0, order) ** 2.0))
    weights = np.linalg.solve(np.polynomial.chebyshev.chebvander(ends, 8).T, moments)
    edges = np.linspace(-11, 11, 20_004)
    low, high, total, left = edges[:-1], edges[1:], 0.0, 0.0
    for _ in range(50):
        rules = []
        for x, w in ((ends, weights), np.polynomial.legendre.leggauss(8)):
            t = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * x
            rules.append((g(mean + deviation * t) * np.exp(-t * t / 2)) @ w * (high - low) / 2 / math.sqrt(2 * math.pi))
        bad = np.abs(rules[0] - rules[1]) > 1e-18 + 1e-13 * np.abs(rules[1])
        total += math.fsum(rules[1][~bad])
        left = np.abs(rules[0] - rules[1])[bad].sum()
        middle = (low + high)[bad] / 2
        low, high = np.concatenate([low[bad], middle]), np.concatenate([middle, high[bad]])
    return total, left


@pytest.mark.slow
def test_bounds_of_random_integrals_hold():
    sampled = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        f, g = drawn(rng, 3)
        var, mean = 10.0 ** rng.choice([-4, -2, 0, 0, 1, 2, 4]), float(rng.choice([0, 1, -0.3, 5]))
        found = limit(f, var, mean)
        with np.errstate(over="ignore"):
            value, doubt = adaptive(g, mean, math.sqrt(var))
        if found.kind == "standard error":  # more oscillations than panels, such as cos(x^2 / 4) at variance 10^4
            sampled += 1
            assert abs(found.value - value) <= 5 * found.error + 3 * doubt, seed
            continue
        assert abs(found.value - value) <= found.error + 3 * doubt + 3e-14 * abs(value) + 1e-15, seed
        assert found.error <= 1e-9 * max(1, abs(found.value)), seed
    assert sampled <= 2


@pytest.mark.slow
def test_bounds_of_random_integrals_in_two_variables_hold():
    """Against Gauss rules on a grid: good to what two grids differ by."""
    t, w = np.polynomial.legendre.leggauss(6)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        (a, b), (p, q), (u, v) = [drawn(rng, 1) for _ in range(3)]
        rho = float(rng.choice([0, 0.5, -0.8, 0.99]))
        found = pair(lambda x, y: a(1.3 * p(x) + u(y) - 0.2), ((1, rho), (rho, 1)))  # noqa: B023
        values = []
        for cells in (120, 173):
            edges = np.linspace(-9, 9, cells + 1)
            half = 9 / cells
            e = ((edges[1:] + edges[:-1])[:, None] / 2 + half * t).ravel()
            weight = np.tile(half * w, cells) * np.exp(-(e**2) / 2) / math.sqrt(2 * math.pi)
            inner = v(rho * e[:, None] + math.sqrt(1 - rho**2) * e)
            values.append(float(weight @ b(1.3 * q(e)[:, None] + inner - 0.2) @ weight))
        doubt = 4 * abs(values[1] - values[0]) + 3e-13 * max(1, abs(values[1]))
        assert abs(found.value - values[1]) <= found.error + doubt, seed
        assert found.error <= 1e-11 * max(1, abs(found.value)), seed


def test_thin_windows_of_two_variables_take_few_panels():
    """|u| < w where u is monotone in the inner variable: its ends are curves that do not meet, known to rounding over w."""
    w, c = 1e-6, 0.5
    x, y = (Node("var", (), i) for i in range(2))
    u = algebra.add([(1, algebra.fn("tanh", x)), (1, y), (1, algebra.constant(-c))])
    line = Line(algebra.fn("step", algebra.add([(1, algebra.constant(w)), (-1, algebra.fn("abs", u))])))
    assert len(set(line.innermost)) == 1
    found = Plane(line, np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 1.0]), ())()
    t = np.linspace(-9, 9, 2001)
    middle = c - np.tanh(t)  # the density does not vary over a window, up to w^2
    right = 2 * w * np.sum(np.exp(-(t**2 + middle**2) / 2)) * (t[1] - t[0]) / (2 * math.pi)
    assert abs(found.value - right) <= found.error + 1e-11 * right and found.error < 1e-8 * right
    assert found.panels < 60


def test_kinks_that_are_no_functions_of_one_another():
    """Windows of two functions have ends that may meet."""
    x, y = (Node("var", (), i) for i in range(2))
    u, v = algebra.add([(1, x), (1, y)]), algebra.mul([(x, 1), (y, 1)])
    windows = [
        algebra.fn("step", algebra.add([(1, algebra.constant(0.1)), (-1, algebra.fn("abs", z))])) for z in (u, v)
    ]
    assert len(set(Line(algebra.mul([(z, 1) for z in windows])).innermost)) == 2
    both = algebra.fn("relu", algebra.add([(1, algebra.fn("abs", u)), (1, x)]))
    assert len(set(Line(both).innermost)) == 2


@pytest.mark.parametrize(
    ("phi", "scale"),
    few(
        [(phi, scale) for phi in (tp.erf, tp.tanh, tp.sigmoid) for scale in (1e2, 1e5)], [(tp.erf, 1e5), (tp.tanh, 1e2)]
    ),
)
def test_saturating_functions_next_to_kinks_at_large_scales(phi, scale):
    """Both turn within 1/scale of the axes: halving a panel of length 1 does not see it."""
    correlation = 0.6

    def f(u):
        return tp.relu(phi(u) - 0.1)

    z = tp.Vector("z", N, axes="b", cov=scale**2 * np.array([[1, correlation], [correlation, 1]]))
    found = tp.limit(tp.Program(q=tp.moment(f(tp.take(z, "b", 0)) * f(tp.take(z, "b", 1)))))["q"]
    array = {"erf": erf, "tanh": np.tanh, "sigmoid": expit}[phi.__name__]
    # graded panels on either side of the kinks, in deviations
    kink = brentq(lambda u: array(u) - 0.1, -5, 5) / scale
    x, w = np.polynomial.legendre.leggauss(24)
    ends = kink + np.concatenate([[0], np.geomspace(1e-3 / scale, 10, 45)])
    low, high = ends[:-1, None], ends[1:, None]
    u = ((low + high) / 2 + (high - low) / 2 * x).ravel()
    weight = ((high - low) / 2 * w).ravel() * (array(scale * u) - 0.1)
    a, b = np.meshgrid(u, u)
    density = np.exp(-(a * a - 2 * correlation * a * b + b * b) / (2 * (1 - correlation**2)))
    exact = weight @ density @ weight / (2 * np.pi * np.sqrt(1 - correlation**2))
    assert abs(found.value - exact) <= found.error + 1e-13 and found.error < 1e-9


def along(f, w, c, s, rho, seen, names=("a", "e")):
    """E seen((f(b) + cos(s a) - c)/w)."""
    a, e = tp.Vector(names[0], N), tp.Vector(names[1], N)
    b = rho * a + (1 - rho**2) ** 0.5 * e
    return tp.limit(tp.Program(m=tp.moment(seen((f(b) + tp.cos(s * a) - c) * (1 / w)))))["m"]


def test_a_ridge_that_passes_where_functions_saturate():
    """Far out, where tanh is 1, the ridge passes all b in a thousandth of a: 8e-9 of the integral are there.

    The same number comes out with either variable as the outer one, and 2e-13 from it with a Gauss-Hermite rule across the
    ridge and a grid of 10^5 panels.
    """
    found = along(tp.tanh, 0.0011, -0.3267, 1.8996, -0.9, tp.gaussian)
    assert found.kind == "bound" and abs(found.value - 3.5653109436730e-4) <= found.error + 5e-18 < 1e-17


@pytest.mark.slow
@pytest.mark.parametrize("names", [("a", "e"), ("z1", "z2")])
@pytest.mark.parametrize(
    "f,w,c,s,rho,expected",
    [
        (tp.tanh, 0.001103946333094607, -0.3267247318158614, 1.8996026209984558, -0.9, 4.0372539831894126e-4),
        (tp.erf, 0.1889839781903229, -0.31207970710786254, 0.3098164936381682, -0.9, 0.03618921996906162059),
    ],
)
def test_windows_that_pass_where_functions_saturate(f, w, c, s, rho, expected, names):
    """Of any names: which variable is the outer one matters. By mpmath."""
    found = along(f, w, c, s, rho, lambda u: tp.step(1 - tp.abs(u)), names)
    assert found.kind == "bound" and found.error < 1e-14
    assert abs(found.value - expected) <= found.error


def test_waves_that_inner_integrals_do_not_resolve_end_the_outer_one(monkeypatch):
    """No cutting of the outer variable would help; E sin(u) sin(v) = (exp(-Var(u - v) / 2) - exp(-Var(u + v) / 2)) / 2."""
    monkeypatch.setattr("tensorprog.limits.gauss.plane.INNER_PANELS", 2**5)
    line = Line(algebra.mul([algebra.fn("sin", Node("var", (), i)) for i in range(2)]))
    found = Plane(line, np.zeros(2), np.array([1000.0, 600.0]), np.array([0.0, 800.0]), ())()
    assert abs(found.value) <= found.error and found.error > UNRESOLVED  # exp(-400000) is 0
    assert found.panels <= 2 * len(EDGES)
