"""Stated errors are true: |value - truth| <= error, against 30-digit references, and standard errors at their rate.

Truths are mpmath integrals split where the integrand turns. The replicated standard errors have fixed seeds; were they
drawn anew, that test would fail with probability below 1e-4.
"""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from marks import few
from scipy import stats

import tensorprog as tp

N = tp.Width("n")
DIGITS = 30


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


FUNCTIONS = {
    "relu": lambda x: max(x, 0),
    "sign": mpmath.sign,
    "step": lambda x: mpmath.mpf(x > 0),
    "abs": abs,
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "erf": mpmath.erf,
    "gelu": lambda x: x * mpmath.ncdf(x),
    "tanh": mpmath.tanh,
    "sigmoid": sigmoid,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(-abs(x))) + max(x, 0),
    "silu": lambda x: x * sigmoid(x),
    "sin": mpmath.sin,
    "gaussian": lambda x: mpmath.exp(-x * x),
    "arctan": mpmath.atan,
}


def exactly(x):
    """A number in the digits of the moment."""
    return mpmath.mpf(x.numerator) / x.denominator if isinstance(x, (int, Fraction)) else mpmath.mpf(float(x))


def truth(f, mean, var, turns=((0, 1),)):
    """E f(u), u ~ N(mean, var), 30 digits."""
    with mpmath.workdps(DIGITS):
        m, s = exactly(mean), mpmath.sqrt(exactly(var))
        points = {mpmath.mpf(k) for k in (-14, -5, -2, 2, 5, 14)}
        for centre, scale in turns:
            points |= {(exactly(centre) + k * exactly(scale) - m) / s for k in (-64, -16, -4, -1, 0, 1, 4, 16, 64)}
        edges = sorted([p for p in points if -14 <= p <= 14])
        return mpmath.quad(lambda t: f(m + s * t) * mpmath.npdf(t), edges, method="gauss-legendre")


def check(estimate, true, worst):
    """Is the error true, and the answer any good?"""
    assert estimate.kind in ("exact", "rounding", "bound")
    with mpmath.workdps(DIGITS):
        off = abs(exactly(estimate.value) - true)
        assert off <= estimate.error + mpmath.mpf(10) ** (5 - DIGITS), f"{estimate} is off by {mpmath.nstr(off, 3)}"
        assert estimate.error <= worst * max(abs(true), 1e-3), f"{estimate} is useless"


def exact(**outputs):
    return tp.limit(tp.Program(outputs), method="exact")


@pytest.mark.parametrize("name", few(FUNCTIONS, ("relu", "elu", "tanh")))
def test_one_variable_over_eighteen_orders_of_variance(name):
    f = FUNCTIONS[name]
    for mean in (0, Fraction(-3, 2)):
        for var in (Fraction(1, 10**12), Fraction(1, 100), 1, 40, 10**6)[: 4 if name == "sin" else 5]:
            h = getattr(tp, name)(tp.Vector("u", N, mean=mean, var=var))
            found = exact(mean=tp.moment(h), square=tp.moment(h * h))
            check(found["mean"], truth(f, mean, var), 1e-6)
            check(found["square"], truth(lambda x: f(x) ** 2, mean, var), 1e-6)


def test_rounding_in_closed_forms_of_large_integers():
    h = tp.gelu(tp.Vector("u", N, mean=0, var=10**6))
    true = truth(lambda x: FUNCTIONS["gelu"](x) ** 2, 0, 10**6)
    p = tp.Program(mean=tp.moment(h), square=tp.moment(h * h))
    for seed in range(12):
        check(tp.limit(p, method="exact", rng=seed)["square"], true, 1e-6)


@pytest.mark.parametrize("c", few([-0.62, -0.107, 0.173], (-0.107,)))
def test_kinks_and_turns_inside_functions(c):
    """They are nowhere near 0, and two resolutions agree by accident where nobody looks for them."""
    y = tp.Vector("y", N)
    a, b = mpmath.atanh(c), mpmath.asin(c)
    near = [b + 2 * mpmath.pi * k for k in (-2, -1, 0, 1, 2)] + [
        mpmath.pi - b + 2 * mpmath.pi * k for k in (-2, -1, 0, 1)
    ]
    found = exact(
        relu=tp.moment(tp.relu(tp.tanh(y) - c)), step=tp.moment(tp.step(tp.tanh(y) - c)),
        abs=tp.moment(tp.abs(tp.sin(y) - c)),
        sharp=tp.moment(tp.tanh(100 * tp.tanh(y) - 100 * c)), bell=tp.moment(tp.gaussian(30 * (tp.sin(y) - c))),
        peak=tp.moment(tp.reciprocal(Fraction(1, 100) + tp.tanh(y) ** 2)),
    )  # fmt: skip
    turns = [(a, 0.01), (a, 1)]
    check(found["relu"], truth(lambda x: max(mpmath.tanh(x) - c, 0), 0, 1, turns), 1e-6)
    check(found["step"], 1 - mpmath.ncdf(a), 1e-6)
    check(found["abs"], truth(lambda x: abs(mpmath.sin(x) - c), 0, 1, [(p, 0.1) for p in near]), 1e-6)
    check(found["sharp"], truth(lambda x: mpmath.tanh(100 * (mpmath.tanh(x) - c)), 0, 1, turns), 1e-6)
    check(
        found["bell"],
        truth(lambda x: mpmath.exp(-((30 * (mpmath.sin(x) - c)) ** 2)), 0, 1, [(p, 0.03) for p in near]),
        1e-6,
    )
    check(found["peak"], truth(lambda x: 1 / (mpmath.mpf(1) / 100 + mpmath.tanh(x) ** 2), 0, 1, [(0, 0.1)]), 1e-6)


def test_cancellation_is_in_the_error():
    """Small differences of large numbers: the error says how many digits are left."""
    u, v = tp.vectors(("u", "v"), N, mean=[-10, 0.1], cov=[[1, 0.5], [0.5, 1]])
    found = exact(
        tail=tp.moment(tp.relu(u)),
        difference=tp.moment(tp.erf(v + 1e-9) - tp.erf(v)),
        high=tp.moment(tp.hermite(v - 0.1, 20) ** 2),
    )
    with mpmath.workdps(DIGITS):
        check(found["tail"], mpmath.npdf(10) - 10 * mpmath.ncdf(-10), math.inf)
        m = mpmath.mpf(0.1)
        moved = mpmath.erf((m + mpmath.mpf(1e-9)) / mpmath.sqrt(3)) - mpmath.erf(
            m / mpmath.sqrt(3)
        )  # E erf(v) = erf(m/sqrt(1 + 2 q))
        check(found["difference"], moved, math.inf)
        assert abs(found["high"].value / math.factorial(20) - 1) < 1e-6 + found["high"].error / math.factorial(20)


@pytest.mark.parametrize("m1, m2", few([(0, 0), (0, 0.3), (1e-8, 1e-8), (-0.5, 2), (3, -4)], [(3, -4)]))
def test_two_signs(m1, m2):
    """E sign sign = E sign(u) E[sign(v) | u], a one-dimensional integral."""
    for r in (0.0, 1e-6, 0.3, -0.9, 1 - 1e-6, -1 + 1e-9):
        u, v = tp.vectors(("u", "v"), N, mean=[m1, m2], cov=[[1, r], [r, 1]])
        with mpmath.workdps(DIGITS):
            rho = mpmath.mpf(r)
            rest = mpmath.sqrt((1 - rho) * (1 + rho))
            turns = [(0, 1), *([(m1 - m2 / rho, rest / abs(rho))] if r else [])]
            true = truth(
                lambda x, rho=rho, rest=rest: (
                    mpmath.sign(x) * mpmath.erf((m2 + rho * (x - m1)) / rest / mpmath.sqrt(2))
                ),
                m1,
                1,
                turns,
            )
        found = exact(c=tp.moment(tp.sign(u) * tp.sign(v)))["c"]
        assert abs(float(found.value - float(true))) <= float(found.error) + 1e-15


def product_of_tanhs(k):
    """E prod tanh(3 (x + z_i)): k + 1 coupled variables, one by one independent given x."""
    x = tp.Vector("x", N)
    parts = [tp.tanh(3 * (x + tp.Vector(f"z{i}", N, var=Fraction(1, 4)))) for i in range(k)]
    for p in parts[1:]:
        parts[0] = parts[0] * p
    t, w = np.polynomial.hermite_e.hermegauss(200)
    inner = np.array([w @ np.tanh(3 * (s + t / 2)) for s in t]) / math.sqrt(2 * math.pi)
    return tp.moment(parts[0]), float(w @ inner**k / math.sqrt(2 * math.pi))


@pytest.mark.slow
def test_standard_errors_of_quasi_monte_carlo():
    out, true = product_of_tanhs(4)
    scores = []
    for seed in range(12):
        found = tp.limit(tp.Program(a=out), method="exact", rng=seed)["a"]
        assert found.kind == "standard error"
        scores.append((found.value - true) / found.error)
    assert sum(np.square(scores)) < stats.chi2.isf(1e-5, 12) * 1.5  # t with 15 degrees, a little wider than normal
    assert np.mean(np.abs(scores) < 2) > 0.6


@pytest.mark.slow
def test_standard_errors_of_the_population():
    n = tp.Width("n")
    W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1)
    p = tp.Program(a=tp.moment(tp.relu(W @ tp.tanh(x)) * x * x), b=tp.moment(x * (W @ tp.step(W.T @ x))))
    exact_values, scores = tp.limit(p, method="exact"), []
    for seed in range(12):
        found = tp.limit(p, method="population", samples=2**9, replicates=8, rng=seed)
        for k in p:
            scores.append((found[k].value - exact_values[k].value) / found[k].error)
            assert found[k].kind == "standard error"
    assert np.max(np.abs(scores)) < stats.t.isf(1e-5 / len(scores), 7)
    assert np.mean(np.abs(scores) < 2) > 0.7


def test_a_replicated_error_shrinks_with_the_samples():
    n = tp.Width("n")
    x = tp.Vector("x", n)
    p = tp.Program(a=tp.moment(tp.abs(tp.Matrix("W", n, n) @ tp.relu(x)) * x))
    few, many = [tp.limit(p, method="population", samples=2**k, replicates=16)["a"].error for k in (8, 14)]
    assert many < few / 6


STEEP = {  # function of an expression, of a number, and where it turns
    "relu": (tp.relu, lambda x: max(x, mpmath.mpf(0)), 0),
    "step": (tp.step, lambda x: (1 + mpmath.sign(x)) / 2, 0),
    "gelu": (tp.gelu, lambda x: x * mpmath.ncdf(x), 0),
    "tanh(30 x)": (lambda u: tp.tanh(30 * u), lambda x: mpmath.tanh(30 * x), 0),
    "sigmoid(3 x - 1)": (lambda u: tp.sigmoid(3 * u - 1), lambda x: 1 / (1 + mpmath.exp(1 - 3 * x)), Fraction(1, 3)),
}


@pytest.mark.parametrize("var", few([Fraction(1, 10**12), 1, 10**6], [1]), ids=str)
@pytest.mark.parametrize("rho", [-1, 0, 1])
@pytest.mark.parametrize(
    "names", [("relu", "tanh(30 x)"), ("step", "gelu"), ("sigmoid(3 x - 1)", "relu")], ids="*".join
)
def test_pairs_at_the_edges(names, rho, var):
    """At correlation 0 and +-1 a pair is one or two integrals in one variable, known to 30 digits."""
    (f, f_exact, at), (g, g_exact, there) = [STEEP[name] for name in names]
    half = Fraction(1, 2)  # the second variable has half the deviation, and mean 1/4
    u, v = tp.vectors(
        ("u", "v"), N, mean=[0, Fraction(1, 4)], cov=[[var, rho * half * var], [rho * half * var, var / 4]]
    )
    found = exact(pair=tp.moment(f(u) * g(v)))["pair"]
    with mpmath.workdps(DIGITS):
        if rho:
            places = [at, (there - Fraction(1, 4)) * 2 * rho]
            turns = [(place, scale) for place in places for scale in (1, Fraction(1, 30))]
            true = truth(lambda x: f_exact(x) * g_exact(mpmath.mpf(1) / 4 + rho * x / 2), 0, var, turns)
        else:
            true = truth(f_exact, 0, var, [(at, 1)]) * truth(
                g_exact, Fraction(1, 4), Fraction(var) / 4, [(there, 1), (there, Fraction(1, 30))]
            )
    check(found, true, math.inf)
    assert found.error <= 1e-7 * max(1.0, float(var))


@pytest.mark.slow
def test_standard_errors_cover_as_they_say_over_many_seeds():
    """One stated error covers 68.3 % of the time, two 93 % or more (t with 7 degrees); five deviations of a binomial."""
    n = tp.Width("n")
    W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1)
    p = tp.Program(a=tp.moment(tp.relu(W @ tp.tanh(x)) * x * x))
    true = tp.limit(p, method="exact")["a"].value
    scores = []
    count = 200  # of as many samples as do not doubt that they have seen the tails: then the error would be a bound
    for seed in range(count):
        found = tp.limit(p, method="population", samples=2**9, replicates=8, rng=seed)["a"]
        assert found.kind == "standard error"
        scores.append(abs(found.value - true) / found.error)
    assert abs(np.mean(np.array(scores) < 1) - 0.683) < 5 * math.sqrt(0.683 * 0.317 / count)
    assert np.mean(np.array(scores) < 2) > 0.93 - 5 * math.sqrt(0.07 * 0.93 / count)


@pytest.mark.parametrize("move", [1e-7, 1e-8, 1e-9])
@pytest.mark.parametrize("second", [False, True])
def test_positions_of_an_example_that_floats_hardly_tell_apart(move, second):
    """The angle between them is lost in rounding: both ways to the kernel say so. Equal positions are known to be one."""
    net = tp.Network(tp.readout("v", tp.mean(tp.sign(tp.dense("U", tp.Input("x", axes=("t",)), tp.Width("n"))), "t")))
    X = np.array([[[1.0, 0.0, 2.0], [1.0, move, 2.0]]])
    right = 1 - np.arctan(move / 5**0.5) / np.pi
    found, limit = tp.kernel_fn(net)(X, X if second else None, get="nngp"), tp.limit(net, X, of="nngp")["nngp"]
    assert abs(found[0, 0] - right) <= tp.kernel_fn(net)(X, X if second else None).error["nngp"] < 1e-6
    assert abs(limit.value[0, 0] - right) <= limit.error[0, 0] < 1e-6
    equal = tp.kernel_fn(net)(X[:, [0, 0]])
    assert equal.nngp[0, 0] == 1 and equal.error["nngp"] < 1e-13


@pytest.mark.parametrize("b_std", [1e7, 1e8])
def test_positions_that_a_bias_brings_together(b_std):
    """Inputs that are far from equal have hidden vectors that floats hardly tell apart."""
    h = tp.dense("U", tp.Input("x", axes=("t",)), N, b_std=b_std)
    net = tp.Network(tp.readout("v", tp.mean(tp.sign(h), "t")))
    X = np.array([[[1.0, -0.5], [-0.25, 1.0]]])
    with mpmath.workdps(DIGITS):
        x, y = [[mpmath.mpf(v) / mpmath.sqrt(2) for v in row] + [mpmath.mpf(b_std)] for row in X[0]]
        rho = mpmath.fdot(x, y) / mpmath.sqrt(mpmath.fdot(x, x) * mpmath.fdot(y, y))
        right = float(1 - mpmath.acos(rho) / mpmath.pi)
    found = tp.kernel_fn(net)(X)
    assert abs(found.nngp[0, 0] - right) <= found.error["nngp"] < 1e-6


@pytest.mark.parametrize("scale", few([1, 10**8], [10**8]))
def test_noise_of_smoothed_signs_beside_means_and_exponentials(scale):
    """Two smoothed signs of one variable are apart by their noise alone, however large its variance is."""
    rate, mean = Fraction(1, 2 * scale), scale // 4
    b = mpmath.mpf(1) / 2 / scale
    squared = truth(lambda x: mpmath.ncdf(x) ** 2 * mpmath.exp(b * x), mean, scale**2)
    plain = truth(lambda x: mpmath.ncdf(x) * mpmath.erf(x), mean, scale**2)
    for var in (scale**2, float(scale) ** 2):
        u = tp.Vector("u", N, mean=mean, var=var)
        h = tp.normal_cdf(u)
        found = exact(squared=tp.moment(h * h * tp.exp(rate * u)), plain=tp.moment(h * tp.erf(u)))
        check(found["squared"], squared, 1e-13)
        check(found["plain"], plain, 1e-13)


def test_terms_that_cancel_where_numbers_are_folded():
    """relu(x) Phi(-x) is of order 1 near 0 only: 0 of all floats that a closed form cancels to, at a large variance."""
    for scale in (1e4, 1e8):
        u = tp.Vector("u", N, var=scale**2)
        found = exact(
            gated=tp.moment(tp.relu(u) * tp.normal_cdf(-u)), both=tp.moment(tp.normal_cdf(u) * tp.normal_cdf(-u))
        )
        check(found["gated"], truth(lambda x: max(x, 0) * mpmath.ncdf(-x), 0, scale**2), 1e-10)
        check(found["both"], truth(lambda x: mpmath.ncdf(x) * mpmath.ncdf(-x), 0, scale**2), 1e-10)


@pytest.mark.parametrize("bias", [1e7, 1e9])
def test_examples_that_floats_do_not_tell_apart_beside_a_bias(bias):
    """Their covariances and variances are one number: an angle of 1e-9 is in the error, but for equal examples."""
    data = tp.Input("data")
    rows = np.array([[1.0, 2.0], [1.5, -1.0], [1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]])
    net = tp.Network(tp.readout("v", tp.sign(tp.dense("U", data, N, b_std=bias))))
    found = tp.limit(net, rows, of="nngp")["nngp"]
    with mpmath.workdps(40):
        gram = [[mpmath.mpf(bias) ** 2 + mpmath.mpf(a @ b) / 2 for a in rows] for b in rows]
        for i, j in np.ndindex(5, 5):
            cosine = gram[i][j] / mpmath.sqrt(gram[i][i] * gram[j][j]) if (rows[i] != rows[j]).any() else mpmath.mpf(1)
            assert abs(found.value[i, j] - 2 / mpmath.pi * mpmath.asin(cosine)) <= found.error[i, j] < 3e-7
            assert (rows[i] != rows[j]).any() or found.error[i, j] < 1e-14


@pytest.mark.parametrize("f", [tp.gelu, tp.erf])
def test_kernels_of_equal_examples_of_large_variance_are_sharp(f):
    data = tp.Input("data")
    net = tp.Network(tp.readout("v", f(tp.dense("U", data, N))))
    found = tp.kernel_fn(net)(np.array([[1e8, 2e8], [1e8, 2e8]]), get=("nngp", "ntk"))
    for k, error in zip(found, found.error.values(), strict=True):
        assert found.method["ntk"] == "closed form" and np.ptp(k) <= error <= 1e-13 * k[0, 0]
