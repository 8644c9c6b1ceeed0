"""Every function of the language at every scale: variances from 1e-8 to 1e8, correlations from -1 to 1.

The reference is a Gauss-Legendre quadrature on panels graded around the origin, where all of these functions turn, down to
a hundredth of the scale on which they do. Values have to be right within what they state, and what they state has to be
small where the problem is well conditioned.
"""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
from marks import few
from scipy.special import erf, expit, ndtr

import tensorprog as tp
from tensorprog.arrays.contraction import contraction
from tensorprog.arrays.elementwise import kernel
from tensorprog.language.node import topological
from tensorprog.limits.gauss.shares import quadrant, share
from tensorprog.limits.pairs.accuracy import AccuracyWarning

n, x = tp.Width("n"), tp.Input("x")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
REACH = 9.5
SELU = 1.0507009873554805, 1.6732632423543772


def down(u):
    return np.exp(np.minimum(u, 0))


def density(u):
    return np.exp(-u * u / 2) / np.sqrt(2 * np.pi)


FUNCTIONS = {
    "relu": (tp.relu, lambda u: np.maximum(u, 0), lambda u: np.heaviside(u, 0.5)),
    "leaky_relu": (
        lambda u: tp.leaky_relu(u, 0.1),
        lambda u: np.where(u > 0, u, 0.1 * u),
        lambda u: np.where(u > 0, 1, 0.1),
    ),
    "abs": (tp.abs, np.abs, np.sign),
    "sign": (tp.sign, np.sign, None),
    "step": (tp.step, lambda u: np.heaviside(u, 0.5), None),
    "rectified_power": (
        lambda u: tp.rectified_power(u, 2),
        lambda u: np.maximum(u, 0) ** 2,
        lambda u: 2 * np.maximum(u, 0),
    ),
    "elu": (tp.elu, lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))), down),
    "selu": (
        lambda u: SELU[0] * tp.elu(u, SELU[1]),
        lambda u: SELU[0] * np.where(u > 0, u, SELU[1] * np.expm1(np.minimum(u, 0))),
        lambda u: SELU[0] * np.where(u > 0, 1, SELU[1] * down(u)),
    ),
    "step * exp": (lambda u: tp.step(u) * tp.exp(-u), lambda u: np.where(u > 0, down(-u), 0), None),
    "relu * exp": (
        lambda u: tp.relu(u) * tp.exp(-u),
        lambda u: np.maximum(u, 0) * down(-u),
        lambda u: np.where(u > 0, (1 - u) * down(-u), 0),
    ),
    "where": (
        lambda u: tp.relu(u) + (1 - tp.step(u)) * (tp.exp(u) - 1),
        lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))),
        None,
    ),
    "normal_cdf * exp": (
        lambda u: tp.normal_cdf(u) * tp.exp(-u),
        lambda u: np.where(u > -30, ndtr(u) * np.exp(-np.maximum(u, -30)), 0),
        None,
    ),
    "erf": (tp.erf, erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-u * u)),
    "normal_cdf": (tp.normal_cdf, ndtr, density),
    "gelu": (tp.gelu, lambda u: u * ndtr(u), lambda u: ndtr(u) + u * density(u)),
    "gelu * gaussian": (lambda u: tp.gelu(u) * tp.gaussian(u), lambda u: u * ndtr(u) * np.exp(-u * u), None),
    "gaussian": (tp.gaussian, lambda u: np.exp(-u * u), lambda u: -2 * u * np.exp(-u * u)),
    "tanh": (tp.tanh, np.tanh, lambda u: np.cosh(np.clip(u, -300, 300)) ** -2.0),
    "sigmoid": (tp.sigmoid, expit, lambda u: expit(u) * expit(-u)),
    "softplus": (tp.softplus, lambda u: np.logaddexp(u, 0), expit),
    "silu": (tp.silu, lambda u: u * expit(u), lambda u: expit(u) + u * expit(u) * expit(-u)),
    "arctan": (tp.arctan, np.arctan, lambda u: 1 / (1 + u * u)),
    "sqrt": (lambda u: tp.sqrt(1 + u * u), lambda u: np.sqrt(1 + u * u), lambda u: u / np.sqrt(1 + u * u)),
    "log1p": (lambda u: tp.log1p(u * u), lambda u: np.log1p(u * u), lambda u: 2 * u / (1 + u * u)),
}
"""name: (of tensorprog, of NumPy, its derivative; None where there is none)."""
SMOOTHED = ("step", "sign", "step * exp", "normal_cdf * exp", "gelu * gaussian")


def panels(centre, deviation):
    """Nodes and weights of the standard normal, graded towards each centre: (..,) to (.., nodes)."""
    centre = np.asarray(centre, dtype=float)[..., None]
    nearest = 0.01 / max(deviation, 1)
    grades = np.concatenate([[0], np.geomspace(nearest, 30, 2 + int(np.log(30 / nearest) / np.log(2.5)))])
    even = np.broadcast_to(np.linspace(-REACH, REACH, 16), (*centre.shape[:-1], 16))
    edges = np.sort(np.clip(np.concatenate([centre - grades, centre + grades, even], -1), -REACH, REACH), -1)
    a, b = edges[..., :-1, None], edges[..., 1:, None]
    t = ((a + b) / 2 + (b - a) / 2 * NODES).reshape(*centre.shape[:-1], -1)
    return t, ((b - a) / 2 * WEIGHTS).reshape(t.shape) * density(t)


def expected(f, g, variance, rho):
    """E f(u) g(v)."""
    if f is g is FUNCTIONS["gaussian"][1]:  # (1 + 2 v)^2 - 4 c^2 as a product: panels lose digits here
        return float(((1 + 2 * variance * (1 - rho)) * (1 + 2 * variance * (1 + rho))) ** -0.5)
    if f is g is FUNCTIONS["gaussian"][2]:  # by Price's theorem its derivative in c
        return float(4 * variance * rho * expected(*[FUNCTIONS["gaussian"][1]] * 2, variance, rho) ** 3)
    s = np.sqrt(variance)
    t, w = panels(0.0, s)
    if abs(rho) == 1:
        return float(np.sum(w * f(s * t) * g(rho * s * t)))
    rest = np.sqrt((1 - rho) * (1 + rho))
    total = 0.0
    for i in range(0, len(t), 64):
        u, z = t[i : i + 64], w[i : i + 64]
        v, y = panels(-rho * u / rest, s * rest)
        total += float(np.sum(z * f(s * u) * np.sum(y * g(s * (rho * u[:, None] + rest * v)), -1)))
    return total


def kernels(name, variance, rhos):
    """Kernels of one layer for pairs of those correlations and a diagonal, the references, and the errors stated."""
    f, g, slope = FUNCTIONS[name]
    get = ("nngp",) if slope is None else ("nngp", "ntk")
    compute = tp.kernel_fn(tp.Network(tp.readout("v", f(tp.dense("U", x, n)))))
    alone = compute(gram=[[variance]], get=get)
    yield (
        alone,
        expected(g, g, variance, 1),
        variance * (0 if slope is None else expected(slope, slope, variance, 1)),
        1,
    )
    for rho in rhos:
        c = variance * rho
        with warnings.catch_warnings():
            if (
                abs(rho) == 1
            ):  # of two inputs: what turns like an angle is known to 1e-8 of the function's sharpest scale
                warnings.simplefilter("ignore", AccuracyWarning)
            found = compute(gram=([[variance]], [[c]], [[variance]]), get=get)
        yield (
            found,
            expected(g, g, variance, rho),
            c * (0 if slope is None else expected(slope, slope, variance, rho)),
            rho,
        )


def check(name, variance, rhos):
    size = expected(FUNCTIONS[name][1], FUNCTIONS[name][1], variance, 1)
    for found, nngp, change, rho in kernels(name, variance, rhos):
        # what a rounding of the correlation is worth, whatever the route; the derivative of the kernel is K'/variance
        condition = 4e-16 * variance / max(variance * (1 - rho**2), 1.0) ** 0.5
        got, stated = float(found.nngp[0, 0]), found.error["nngp"]
        assert abs(got - nngp) <= stated + 1e-13 * size, (name, variance, rho, got, nngp, stated)
        if abs(rho) < 1 - 1e-4 and name not in SMOOTHED:
            assert abs(got - nngp) <= 2e-12 * size, (name, variance, rho, got, nngp)
            assert stated <= 1e-9 * size + condition * size, (name, variance, rho, stated, size)
        if "ntk" in found.error:
            got, want, stated = float(found.ntk[0, 0]), nngp + change, found.error["ntk"]
            assert abs(got - want) <= stated + 1e-12 * (size + abs(change)), (name, variance, rho, got, want, stated)


FEW = ("relu", "selu", "step", "gelu", "tanh", "softplus")
"""Representatives: homogeneous, a kink beside an exponential, a jump, smoothed, bounded, with poles beside a line."""
SOME = [pytest.param(name, marks=[pytest.mark.slow] * (name not in FEW)) for name in FUNCTIONS]


@pytest.mark.parametrize("name", SOME)
def test_kernels_at_extreme_scales(name):
    for variance in (1e-8, 1e8):
        check(name, variance, (0.5,))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_at_all_scales(name):
    for variance in (1e-8, 1e-3, 1, 15, 562, 1e8):
        check(name, variance, (1, 0.999, -0.5, -1))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_limits_at_all_scales(name):
    f, g, _ = FUNCTIONS[name]
    for variance in (1e-8, 1e-3, 1, 100, 1e8):
        z = tp.Vector("z", n, var=variance)
        q = tp.limit(tp.Program(q=tp.moment(f(z) ** 2)))["q"]
        want = expected(g, g, variance, 1)
        assert abs(float(q.value) - want) <= float(q.error) + 1e-13 * want, (variance, q, want)
        assert float(q.error) <= 1e-9 * want, (variance, q, want)


def test_waves_at_small_variances():
    """E sin u sin v = exp(-(a + b)/2) sinh(c): a difference of two numbers near 1 else."""
    compute = tp.kernel_fn(tp.Network(tp.readout("v", tp.sin(tp.dense("U", x, n)))))
    for a in (1e-12, 1e-8, 1e-3, 1, 300):
        for rho in (1, 0.5, -0.9, -1):
            found = compute(gram=([[a]], [[a * rho]], [[a]]), get="nngp")
            want = float(mpmath.exp(-mpmath.mpf(a)) * mpmath.sinh(mpmath.mpf(a * rho)))
            assert abs(float(found[0, 0]) - want) <= 1e-13 * abs(want), (a, rho)


def test_an_exponential_overflows_next_to_an_exact_zero():
    """exp(u) step(-u) in arrays: 0 times inf is 0 there; and no answer is made up where a zero is an underflow."""
    u = tp.Vector("u", n)
    values = np.array([-1e3, -1.0, 0.0, 1.0, 800.0, 1e4])

    def value(y):
        done = {}
        for node in topological([y.node]):
            done[node] = values if node.op == "vector" else kernel(node)(*[done[a] for a in node.args])
        return done[y.node]

    with np.errstate(all="ignore"):
        low = np.exp(np.minimum(values, 0)) * np.heaviside(-values, 0.5)
        assert np.array_equal(value(tp.exp(u) * tp.step(-u)), low)
        assert np.isfinite(value(tp.exp(3 * u) ** 2 * (1 - tp.step(u)) * tp.relu(-u))).all()
        assert np.isfinite(value(tp.gelu(-u) * tp.exp(u))).all()
        assert np.isnan(value(tp.sigmoid(-1e3 * u) * tp.exp(u))[-1])  # the true value is of this kind, not 0
        fused = contraction(tp.moment(tp.exp(u) ** 2 * tp.step(-u)).node)
        arrays = {"exp": np.exp(values), "step": np.heaviside(-values, 0.5)}
        total = fused(*[arrays[a.attr[0]] for a in fused.operands])
        assert abs(total - np.mean(low * np.exp(np.minimum(values, 0)))) < 1e-15


def test_networks_of_exponentials_run_at_large_scales():
    """One layer of elu at width 2000 and variance 10^6 is within five deviations of its limit."""
    net = tp.Network(tp.readout("v", tp.elu(tp.dense("U", x, n))))
    X = np.array([[1e3], [-5e2]])
    limit = tp.limit(net, X, of=("nngp", "ntk"))
    runs = tp.run(net, X, of=("nngp", "ntk"), n=2000)
    for k in ("nngp", "ntk"):
        want = np.asarray(limit[k].value)
        got = np.asarray(runs[k]).reshape(want.shape)
        assert np.all(np.abs(got - want) <= 5 * 3 * np.sqrt(np.outer(np.diag(want), np.diag(want)) / 2000))


@pytest.mark.parametrize("count", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_shares_against_mpmath(count):
    """P(u > 0, v > 0) under exponentials that are out of range: quadrants by integrals with 30 digits."""
    rng = np.random.default_rng(1)
    with mpmath.workdps(30):
        for _ in range(count):
            a, b = 10 ** rng.uniform(-2, 2, 2)
            c = rng.choice([-0.99, -0.5, 0, 0.3, 0.9]) * np.sqrt(a * b)
            p, q = rng.normal(size=2) * 2  # E exp(p u + q v) and the means that it moves
            m, k = p * a + q * c, p * c + q * b
            log = (p * p * a + q * q * b + 2 * p * q * c) / 2
            got, _ = quadrant(log, log - m * m / a / 2, log - k * k / b / 2, 0.0, m, k, 0.0, 0.0, a, c, b)
            s, left = mpmath.sqrt(a), mpmath.mpf(b) - mpmath.mpf(c) ** 2 / a

            def inside(t, a=a, c=c, m=m, k=k, log=log, left=left, s=s):
                tail = mpmath.ncdf((k + c / mpmath.mpf(a) * (t - m)) / mpmath.sqrt(left))
                return mpmath.exp(log - (t - m) ** 2 / (2 * mpmath.mpf(a))) * tail / s / mpmath.sqrt(2 * mpmath.pi)

            ends = [0, *[s * mpmath.mpf(10) ** (j / 2) for j in range(-6, 3)], max(0, m) + 40 * s]
            want = mpmath.quad(inside, ends)
            assert abs(got - want) <= 1e-12 * want, (a, b, c, p, q)
            one = share(p * p * a / 2, 0.0, p * a, a)
            want = mpmath.exp(mpmath.mpf(p) ** 2 * a / 2) * mpmath.ncdf(p * mpmath.sqrt(a))
            assert abs(one - want) <= 1e-12 * want


def test_quadrants_of_weakly_correlated_variables():
    """In 25 digits, by another parametrization; the usual way of quadrants of examples that are no relatives."""
    from tensorprog.limits.gauss import shares

    rng = np.random.default_rng(2)
    h, k = rng.uniform(-4, 4, (2, 24))
    rho, zero, one = rng.uniform(-0.5, 0.5, 24), np.zeros(24), np.ones(24)
    both = -(h * h - 2 * rho * h * k + k * k) / (2 * (1 - rho * rho))
    value, _, poor = shares._correlated(zero, -h * h / 2, -k * k / 2, both, -h, -k, zero, zero, one, rho, one)
    assert np.mean(poor) < 0.2
    with mpmath.workdps(25):
        for i in np.flatnonzero(~poor):
            x, y, top = mpmath.mpf(h[i]), mpmath.mpf(k[i]), mpmath.asin(mpmath.mpf(rho[i]))

            def density(t, x=x, y=y):
                return mpmath.exp(-(x * x - 2 * x * y * mpmath.sin(t) + y * y) / (2 * mpmath.cos(t) ** 2))

            want = mpmath.ncdf(-x) * mpmath.ncdf(-y) + mpmath.quad(density, [0, top]) / (2 * mpmath.pi)
            assert abs(value[i] - want) <= 5e-14 * want, (h[i], k[i], rho[i])


@pytest.mark.parametrize("scale", few([1.0, 1e2, 1e4], [1e2]))
def test_exponentials_that_end_where_they_grow(scale):
    """exp(u) step(-u) is at most 1: a tilt by exp(u) would leave infinity times 0. It occurs in the gradient of elu(u)**2."""
    u = tp.Vector("u", n, var=scale**2)
    net = tp.Network(tp.readout("v", tp.elu(tp.dense("U", x, n)) ** 2))
    found = tp.limit(tp.Program(a=tp.moment(tp.exp(3 * u) * tp.relu(-u) * tp.sigmoid(u))), method="exact")["a"]
    kernel = tp.limit(net, [[scale]], of="ntk", method="exact")["ntk"]

    def mean(f):
        near = [k for k in (0.1, 1, 3, 10, 40) if k < 10 * scale]
        places = sorted({0, *near, *[-k for k in near], *[k * scale for k in (-12, -6, -3, -1, 1, 3, 6, 12)]})
        return mpmath.quad(lambda t: f(t) * mpmath.npdf(t, 0, scale), places, method="gauss-legendre")

    def elu(t):
        return t if t > 0 else mpmath.expm1(t)

    with mpmath.workdps(25):
        want = mean(lambda t: -t * mpmath.exp(3 * t) / (1 + mpmath.exp(-t)) if t < 0 else mpmath.mpf(0))
        tangent = mean(lambda t: elu(t) ** 4 + 4 * scale**2 * (elu(t) * (1 if t > 0 else mpmath.exp(t))) ** 2)
    assert abs(found.value - float(want)) <= found.error < 1e-13 * want
    assert abs(kernel.value[0, 0] - float(tangent)) <= kernel.error[0, 0] < 1e-13 * tangent


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e4, 1e7, 1e8])
def test_noise_beside_a_large_variance_is_not_lost(scale):
    """erf is a sign with noise of variance 1/2: of one input and of two almost equal ones, 2/pi arcsin to 40 digits."""
    net = tp.Network(tp.readout("v", tp.erf(tp.dense("U", x, n))))
    rows = np.array([[scale, 0.0], [scale, scale / 1024]])
    kernel, limit = tp.kernel_fn(net)(rows, get="nngp"), tp.limit(net, rows, of="nngp")["nngp"]
    with mpmath.workdps(40):
        a, b = [mpmath.mpf(scale) ** 2 / 2 * (1 + k * mpmath.mpf(2) ** -20) for k in (0, 1)]
        for j, (c, v) in enumerate(((a, a), (a, b))):
            want = float(2 / mpmath.pi * mpmath.asin(c / mpmath.sqrt((a + 0.5) * (v + 0.5))))
            error = limit.error[0, j]
            assert abs(limit.value[0, j] - want) <= error < 1e-11 * want
            assert abs(kernel[0, j] - want) <= error
    large = tp.kernel_fn(tp.Network(tp.readout("v", tp.gelu(tp.dense("U", x, n)))))(rows[:1] * 1e4, get="nngp")
    if scale >= 1e4:
        assert large[0, 0] == pytest.approx(1e8 * scale**2 / 4, rel=1e-13)


@pytest.mark.parametrize("f", [tp.gaussian, tp.exp, tp.sigmoid, tp.softplus], ids=lambda f: f.__name__)
def test_jumps_of_what_has_one_sign(f):
    """Floats make gaussian(30) 0; its sign is 1 all the same."""
    u = f(10 * tp.Vector("u", n, var=1000))
    found = tp.limit(
        tp.Program(a=tp.moment(tp.step(u)), b=tp.moment(tp.sign(-u)), c=tp.moment(tp.step(-u) * tp.tanh(u)))
    )
    assert [found[k].value for k in "abc"] == [1, -1, 0]


@pytest.mark.parametrize("name", few(["sigmoid", "silu", "softplus", "tanh", "gelu"], ["softplus", "tanh"]))
def test_saturated_functions_beyond_all_scales(name):
    """Where they are flat, or a line, the distance to their poles does not matter: panels are as wide as elsewhere."""
    f, g, _ = FUNCTIONS[name]
    for scale in (1e6, 1e8):
        found = tp.limit(tp.Network(tp.readout("v", f(tp.dense("U", x, n)))), [[scale]])
        got, want = found["nngp"], expected(g, g, scale**2, 1)
        assert found["ntk"].method == got.method and got.method in ("closed form", "quadrature")
        assert abs(got.value[0, 0] - want) <= got.error[0, 0] + 1e-13 * want, (scale, got, want)
        assert got.error[0, 0] <= 1e-12 * want, (scale, got)


def test_slopes_of_saturated_functions_keep_their_digits():
    """tanh' is integrated as sech^2, not as 1 - tanh^2, of which nothing is left where tanh is 1; written by hand, too."""
    _, g, slope = FUNCTIONS["tanh"]
    for variance, rho in ((1e8, 0.5), (1e16, -0.999)):
        (found, nngp, change, _) = list(kernels("tanh", variance, (rho,)))[1]
        size = expected(g, g, variance, 1) + variance * expected(slope, slope, variance, 1)
        assert abs(float(found.ntk[0, 0]) - nngp - change) <= found.error["ntk"] <= 1e-11 * size
        z = tp.Vector("z", n, var=variance)
        ways = {"a": 1 - tp.tanh(z) ** 2, "b": tp.sigmoid(z) * (1 - tp.sigmoid(z)), "c": 3 - 3 * tp.tanh(z) ** 2}
        means = tp.limit(tp.Program({k: tp.moment(y) for k, y in ways.items()}))
        squares = tp.limit(tp.Program({k: tp.moment(y * y) for k, y in ways.items()}))
        for found, power in ((means, 1), (squares, 2)):
            for k, factor, stretch in (("a", 1, 1.0), ("b", 1 / 4, 0.5), ("c", 3, 1.0)):
                spread = stretch**2 * variance
                want = factor**power * expected(slope, slope if power == 2 else np.ones_like, spread, 1)
                assert abs(found[k].value - want) <= found[k].error + 1e-13 * want
                assert found[k].error <= 1e-11 * want


@pytest.mark.parametrize(
    ("h", "k", "rho"), [(3.365, 3.4, 0.95), (4.06, -0.1, -0.473), (3.37, 3.0, 0.8), (-1.56, 3.03, -0.83)]
)
def test_quadrants_where_the_usual_function_of_owen_loses_digits(h, k, rho):
    """SciPy's is off by 4e-13 of the tail around 3.4 deviations; 30 digits by conditioning on the first variable."""
    quadratic = (h * h - 2 * rho * h * k + k * k) / ((1 - rho) * (1 + rho))
    got, size = quadrant(0.0, -h * h / 2, -k * k / 2, -quadratic / 2, -h, -k, 0.0, 0.0, 1.0, rho, 1.0)
    with mpmath.workdps(30):
        r, root = mpmath.mpf(rho), mpmath.sqrt((1 - mpmath.mpf(rho)) * (1 + mpmath.mpf(rho)))
        ends = [mpmath.mpf(h) + j for j in (0, 0.25, 0.5, 1, 2, 4, 8, 16)]
        want = mpmath.quad(lambda x: mpmath.npdf(x) * mpmath.ncdf((r * x - k) / root), ends)
        assert abs(got - want) <= 2**-47 * size
