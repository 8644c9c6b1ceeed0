"""What once expanded without end: the right value, and the number of terms that it takes."""

import itertools
import math

import numpy as np
import pytest
from marks import few
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from scipy import special

import tensorprog as tp
from tensorprog.limits.expect.lower import Lowering

N = tp.Width("n")
W = tp.Matrix("W", N, N)

NUMBERS = {
    "tanh": np.tanh,
    "erf": special.erf,
    "sin": np.sin,
    "gelu": lambda x: x * special.ndtr(x),
    "silu": lambda x: x * special.expit(x),
    "sigmoid": special.expit,
    "gaussian": lambda x: np.exp(-x * x),
}


def terms(program):
    lowering = Lowering(program, program.values({}))
    assert not lowering.declined, lowering.declined
    return lowering.expectation.budget.expansions


# ---- Stein's lemma brings back multiples of what it has stripped ----


def fed_back(f):
    """y f(y) with y a product, one factor of which has been through W and W.T twice."""
    h = W @ (W.T @ tp.Vector("x", N, mean=1))
    y = h * (W @ (W.T @ tp.cos(h)))
    return tp.Program(m=tp.moment(y * f(y)))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_product_with_a_function_of_itself(name):
    assert terms(fed_back(getattr(tp, name))) < 500


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sin", "tanh", "sigmoid"])
def test_the_value_of_one(name):
    """By hand: h = H + x, H the hat of W (W.T x); W (W.T cos h) = G + cos h - c x with c = E sin h."""
    c = np.sin(1) * np.exp(-1.5)
    mixed = np.cos(1) * np.exp(-1.5) - c  # E x cos h
    square = (1 + np.cos(2) * np.exp(-6)) / 2  # E cos(h)^2
    cov = np.array([[2, mixed - 2 * c], [mixed - 2 * c, 2 * c * c - 2 * c * mixed + square]])
    nodes, weights = hermegauss(80)
    grids = np.meshgrid(nodes, nodes, nodes, indexing="ij")
    weight = np.prod(np.meshgrid(weights, weights, weights, indexing="ij"), 0) / weights.sum() ** 3
    H, G = np.einsum("ij,j...->i...", np.linalg.cholesky(cov), np.stack(grids[1:]))
    x = 1 + grids[0]
    y = (H + x) * (G + np.cos(H + x) - c * x)
    found = tp.limit(fed_back(getattr(tp, name)))["m"]
    expected = np.sum(weight * y * NUMBERS[name](y))
    assert found.method == "quadrature"
    assert abs(found.value - expected) < found.error + 1e-5


@pytest.mark.parametrize(
    ("inner", "outer"),
    few(
        [
            (inner, outer)
            for inner in ("gelu", "silu", "sin")
            for outer in ("tanh", "erf", "sin", "sigmoid", "gaussian")
        ],
        [("gelu", "gaussian"), ("silu", "tanh"), ("sin", "tanh")],
    ),
)
def test_a_factor_whose_multiple_is_inside(inner, outer):
    u = tp.Vector("u", N, distribution="uniform")
    g = tp.Matrix("V", N, N, var=2).T @ u  # sqrt(2) times another Gaussian
    p = tp.Program(m=tp.moment(g * getattr(tp, outer)(getattr(tp, inner)(u + g))))
    assert terms(p) < 300
    (a, v), (b, w) = leggauss(60), leggauss(600)
    x, z = np.sqrt(3) * a[:, None], 14 * b
    expected = v / 2 @ (z * NUMBERS[outer](NUMBERS[inner](x + z))) @ (w * 14 * np.exp(-z * z / 4)) / np.sqrt(4 * np.pi)
    found = tp.limit(p)["m"]
    assert abs(found.value - expected) < found.error + 1e-12
    assert found.method in ("quadrature", "exact") and found.error < 1e-8


def test_factors_are_still_stripped_where_that_saves_a_variable():
    x, y = tp.Vector("x", N), tp.Vector("y", N)
    p = tp.Program(m=tp.moment(x * x * y * tp.tanh(x + 2 * y)))
    integrals = [z for z in Lowering(p, {}).z.values() if z.op == "gauss"]
    assert all(z.attr.dimension == 1 for z in integrals)
    nodes, weights = hermegauss(100)
    expected = weights @ (nodes[:, None] ** 2 * nodes * np.tanh(nodes[:, None] + 2 * nodes)) @ weights
    assert tp.limit(p)["m"].value == pytest.approx(expected / weights.sum() ** 2, abs=1e-9)


@pytest.mark.parametrize(
    "f",
    [
        pytest.param(tp.gelu, marks=pytest.mark.slow),
        tp.gaussian,
        lambda x: x * tp.erf(x),
        pytest.param(lambda x: tp.gelu(x) ** 2, marks=pytest.mark.slow),
        lambda x: x**2 * tp.gaussian(x),
    ],
    ids=["gelu", "gaussian", "x erf", "gelu squared", "x squared gaussian"],
)
def test_functions_after_a_norm(f):
    """The norm is a number of the data: a scalar factor of the variable, not a number that is known when compiling."""
    u = tp.dense("U", tp.Input("x"), N)
    net = tp.Network(tp.readout("v", f(tp.moment(u * u) ** -0.5 * u)))
    X = np.random.default_rng(0).standard_normal((3, 4))
    found = tp.kernel_fn(net)(X)
    expected = tp.limit(net, X)
    assert set(found.method.values()) == {expected["ntk"].method}
    for name in ("nngp", "ntk"):
        gap = np.abs(getattr(found, name) - expected[name].value)
        assert np.all(gap < expected[name].error + 1e-14) and np.max(expected[name].error) < 1e-10


# ---- sums that stay together ----


def test_a_quadratic_times_a_function_of_it_is_one_integral():
    x, y = tp.Vector("x", N), tp.Vector("y", N)
    p = x * x + 2 * x * y - y * y + x + 1
    for f in (tp.sin, tp.tanh, tp.gelu):
        program = tp.Program(m=tp.moment(p * f(p)))
        value = Lowering(program, {}).z[program.outputs["m"].node]
        assert value.op == "gauss" and value.attr.dimension == 2
        assert terms(program) < 100


# ---- training, unrolled ----


def mup(steps, hidden=2, rate=0.5, target=1):
    """A network in muP on one example, trained by gradient descent: every W is what it was and a sum of its updates."""
    h, v = tp.Vector("u", N), tp.Vector("v", N)
    matrices = [tp.Matrix(f"W{i}", N, N) for i in range(hidden - 1)]
    updates = [[] for _ in matrices]
    outputs = {}
    for t in range(steps + 1):
        hs, xs = [h], [tp.tanh(h)]
        for matrix, past in zip(matrices, updates, strict=True):
            z = matrix @ xs[-1]
            for chi, dh, x in past:
                z = z - rate * chi * tp.moment(x * xs[-1]) * dh
            hs.append(z)
            xs.append(tp.tanh(z))
        outputs[f"f{t}"] = tp.moment(v * xs[-1])
        chi = outputs[f"f{t}"] - target
        dh, new = v * (1 - tp.tanh(hs[-1]) ** 2), []
        for i in reversed(range(len(matrices))):
            new.append((i, (chi, dh, xs[i])))
            dx = matrices[i].T @ dh
            for c, other, x in updates[i]:
                dx = dx - rate * c * tp.moment(other * dh) * x
            dh = dx * (1 - tp.tanh(hs[i]) ** 2)
        for i, update in new:
            updates[i].append(update)
        v, h = v - rate * chi * xs[-1], h - rate * chi * dh
    return tp.Program(outputs)


@pytest.mark.slow
def test_an_unrolled_training_is_sampled_where_it_is_too_long():
    found = [terms(mup(steps)) for steps in (1, 2, 3)]
    assert all(b < 6 * a for a, b in itertools.pairwise(found)), found
    p = mup(6, hidden=3)
    found = tp.limit(p, samples=2**9, replicates=8, budget=0.02)
    assert found["f0"].method == "exact" and found["f6"].method == "population"
    assert "budget= allows more" in found["f6"].note


@pytest.mark.slow
def test_training_converges():
    found = tp.limit(mup(3), samples=2**10)
    sampled = tp.limit(mup(3), method="population", rng=1)
    assert found["f1"].kind == "bound" and found["f3"].kind == "standard error"
    for name in sampled:  # standard errors of 16 replicates: beyond 8 of them with probability 1e-6
        assert abs(found[name].value - sampled[name].value) < 8 * (found[name].error + sampled[name].error)


# ---- arrays ----


def test_independent_columns_are_a_constant():
    """Twice an identity matrix of two million entries: whole numbers, kept once, without a walk over its entries."""
    x = tp.Vector("x", N, axes={"a": 1500}, var=2)
    p = tp.Program(k=tp.moment(x * tp.rename(x, a="b")))
    lowering = Lowering(p, {})
    assert lowering.z[p.outputs["k"].node].op in ("add", "constant")
    found = tp.limit(p)["k"]
    assert found.value.shape == (1500, 1500) and found.value[:2, :2].tolist() == [[2, 0], [0, 2]]
    assert found.value.sum() == 2 * 1500 and np.max(found.error) < 1e-14


@pytest.mark.parametrize("rho", [0.3, 0.017, -1e-4])
def test_products_of_polynomials_of_two_variables_do_not_cancel(rho):
    """E He_k(u) He_k(v) = k! rho^k, from 1e4 down to 1e-51; also along axes, and of two different polynomials."""
    n = tp.Width("n")
    x = tp.Vector("x", n, axes="b", cov=[[1, rho], [rho, 1]])
    u, v = tp.take(x, "b", 0), tp.take(x, "b", 1)
    h = tp.hermite(x, 16)
    found = tp.limit(
        tp.Program(
            a=tp.moment(tp.hermite(u, 16) * tp.hermite(v, 16)),
            b=tp.moment(h * tp.rename(h, b="c")),
            c=tp.moment(tp.hermite(u, 6) * (v**6 + v**2)),
        )
    )
    want = math.factorial(16) * rho**16
    assert found["a"].value == pytest.approx(want, rel=1e-13) and found["a"].error < 1e-12 * want
    assert np.asarray(found["b"].value)[0, 1] == pytest.approx(want, rel=1e-13)
    assert found["c"].value == pytest.approx(720 * rho**6, rel=1e-13)
