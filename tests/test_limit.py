"""The exact limit without axes: known answers, every function against an independent quadrature, identities.

No test here is statistical.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from gauss import FUNCTIONS, mean_of, pair
from marks import few
from scipy.special import ndtr
from scipy.stats import multivariate_normal

import tensorprog as tp

N = tp.Width("n")
W = tp.Matrix("W", N, N, var=1)
V = tp.Matrix("V", N, N, var=Fraction(3, 2))
X = tp.Vector("x", N, mean=Fraction(1, 2), var=2)
Y = tp.Vector("y", N, mean=0, var=1)


def limit(**outputs):
    """The exact route's limits."""
    return tp.limit(tp.Program(outputs), method="exact")


def value(x):
    """The limit of one scalar or Moment, by the exact route."""
    return float(limit(out=x)["out"].value)


def is_exactly(x, expected):
    """Is the limit this rational number, as a rational number?"""
    found = limit(out=x)["out"]
    return found.kind == "exact" and isinstance(found.value, (int, Fraction)) and found.value == expected


def agrees(estimate, truth, truth_error=1e-13):
    """Is the truth, known to a relative error, within the stated error?"""
    error = float(estimate.error) + truth_error * (abs(truth) + 0.01)
    return estimate.kind in ("exact", "rounding", "bound") and abs(float(estimate.value) - truth) <= error


# ---- every function --------------------------------------------------------------------------------------------------
MEANS_AND_VARIANCES = [(0, 1), (Fraction(-7, 3), 2), (0.75, 0.1), (1, Fraction(1, 10**6))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_two_moments_of_every_function(name):
    theirs, ours = FUNCTIONS[name]
    for m, q in MEANS_AND_VARIANCES:
        h = theirs(tp.Vector("u", N, mean=m, var=q))
        found = limit(first=tp.moment(h), second=tp.moment(h * h))
        assert agrees(found["first"], mean_of(ours, float(m), float(q)))
        assert agrees(found["second"], mean_of(lambda u: ours(u) ** 2, float(m), float(q)))
        assert max(found[k].error for k in found) < 1e-10


CASES = [
    ((0, 0), (1, 2), 0.5), ((0, Fraction(-1, 3)), (Fraction(1, 2), 1), 0.9), ((1, 0), (2, 0.25), -0.7),
    ((Fraction(-1, 2), 0.75), (1, 1), -0.99),
]  # fmt: skip


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", FUNCTIONS)
def test_pairs_of_functions(first, every):
    """Every pair of functions once, at the four cases in turn; by default two or three of each function."""
    names = list(FUNCTIONS)
    for k, second in enumerate(names[names.index(first) :]):
        if not every and k % 7:
            continue
        means, variances, correlation = CASES[(k + names.index(first)) % len(CASES)]
        c = correlation * math.sqrt(variances[0] * variances[1])
        u, v = tp.vectors(("u", "v"), N, mean=means, cov=[[variances[0], c], [c, variances[1]]])
        found = limit(c=tp.moment(FUNCTIONS[first][0](u) * FUNCTIONS[second][0](v)))["c"]
        floats = [np.array(a, dtype=float) for a in (means, variances)]
        assert agrees(found, pair(FUNCTIONS[first][1], FUNCTIONS[second][1], *floats, correlation)), (first, second)
        assert found.error < 1e-7, (first, second, found)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_perfect_and_no_correlation(name):
    phi = FUNCTIONS[name][0]
    u, same, minus, other = tp.vectors(
        ("u", "same", "minus", "other"),
        N,
        mean=[1, 1, -1, 1],
        cov=[[2, 2, -2, 0], [2, 2, -2, 0], [-2, -2, 2, 0], [0, 0, 0, 2]],
    )
    e = limit(
        square=tp.moment(phi(u) ** 2), same=tp.moment(phi(u) * phi(same)), negative=tp.moment(phi(u) * phi(-u)),
        minus=tp.moment(phi(u) * phi(minus)), mean=tp.moment(phi(u)), other=tp.moment(phi(u) * phi(other)),
    )  # fmt: skip
    e = {k: float(v.value) for k, v in e.items()}
    assert e["same"] == pytest.approx(e["square"], rel=1e-7)
    assert e["minus"] == pytest.approx(e["negative"], rel=1e-7, abs=1e-9)
    assert e["other"] == pytest.approx(e["mean"] ** 2, rel=1e-11)


# ---- signs with means ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("m1", [0, 1e-8, -0.5, 3])
@pytest.mark.parametrize("m2", [0, -1e-8, 0.5, -2])
def test_steps_with_means_are_orthant_probabilities(m1, m2):
    for r in (0.3, -0.9, 0.999):
        u, v = tp.vectors(("u", "v"), N, mean=[m1, m2], cov=[[4, 2 * r], [2 * r, 1]])
        p = multivariate_normal(mean=[-m1, -m2], cov=[[4, 2 * r], [2 * r, 1]]).cdf([0, 0])
        assert value(tp.moment(tp.step(u) * tp.step(v))) == pytest.approx(p, abs=1e-7)  # SciPy's accuracy


@pytest.mark.parametrize("m", [0, 0.5, -2])
def test_signs_near_perfect_correlation(m):
    """P(u > 0, v > 0) and P(u > 0 > v) at correlation 1 - d are off the degenerate ones by at most arccos(1 - d)/pi."""
    for d in (1e-6, 1e-12, 1e-15):
        u, v = tp.vectors(("u", "v"), N, mean=[m, m], cov=[[1, 1 - d], [1 - d, 1]])
        assert value(tp.moment(tp.step(u) * tp.step(v))) == pytest.approx(
            ndtr(m), abs=math.sqrt(2 * d) / math.pi + 1e-7
        )
        assert value(tp.moment(tp.step(u) * tp.step(-v))) == pytest.approx(0, abs=math.sqrt(2 * d) / math.pi + 1e-7)


def test_one_mean_is_exactly_zero():
    """E step(u) step(v) for independent noise: a mean of zero must not be taken for -0.0."""
    u, v = tp.vectors(("u", "v"), N, mean=[0, Fraction(-1, 3)], cov=[[1, 1e-9], [1e-9, 1]])
    assert value(tp.moment(tp.step(u) * tp.step(v))) == pytest.approx(ndtr(-1 / 3) / 2, abs=1e-9)
    assert value(tp.moment(tp.sign(v) * tp.sign(u))) == pytest.approx(0, abs=1e-8)


# ---- Zdot ------------------------------------------------------------------------------------------------------------
def slope(phi, z=Y):
    """E[y W phi(W.T y)]/E y^2 = E phi'(W.T y) (Tensor Programs III, Box 1)."""
    return value(tp.moment(z * (W @ phi(W.T @ z))))


def test_zdot_of_functions_that_are_equal_almost_everywhere():
    bump = 1 / math.sqrt(2 * math.pi)
    step, sign, relu = tp.step, tp.sign, tp.relu
    for phi in (step, lambda g: step(g) ** 3, lambda g: step(g) ** 2 * sign(g), lambda g: (1 + sign(g) ** 5) / 2,
                lambda g: step(g) * sign(g), lambda g: step(3 * g), lambda g: step(g) * step(2 * g)):  # fmt: skip
        assert slope(phi) == pytest.approx(bump, abs=1e-12)
    for phi in (relu, lambda g: g * step(g), lambda g: step(g) * relu(g), lambda g: step(g) ** 3 * relu(g) * sign(g),
                lambda g: (g + tp.abs(g)) / 2):  # fmt: skip
        assert slope(phi) == pytest.approx(0.5, abs=1e-9)
    for phi in (
        lambda g: sign(g) ** 2,
        lambda g: step(g) * step(-g),
        lambda g: relu(g) * relu(-g),
        lambda g: step(g - g),
    ):
        assert slope(phi) == pytest.approx(0, abs=1e-12)


def test_zdot_of_a_root_that_touches_zero():
    assert slope(lambda g: tp.sqrt(tp.relu(g) ** 2)) == pytest.approx(0.5, abs=1e-6)


def test_zdot_of_jumps_times_smooth_functions():
    """E d/dg[step(g) tanh(g)] by Stein: E[g step(g) tanh(g)] = E[g tanh(g)]/2."""
    assert slope(lambda g: tp.step(g) * tp.tanh(g)) == pytest.approx(
        mean_of(lambda u: u * np.tanh(u), 0, 1) / 2, abs=1e-9
    )
    assert slope(lambda g: tp.sign(g) * tp.cos(g)) == pytest.approx(
        mean_of(lambda u: np.abs(u) * np.cos(u), 0, 1), abs=1e-9
    )
    truth = mean_of(lambda u: u * (u > 0.5) * np.tanh(u), 0, 1)
    assert slope(lambda g: tp.step(g - 0.5) * tp.tanh(g)) == pytest.approx(truth, abs=1e-6)


def test_zdot_with_width_ratios():
    """A is m x n: E[v A relu(A.T v)] = var E v^2/2; Var(A.T v) = rho var E v^2, Var(A h) = var E h^2."""
    for ratio in (Fraction(1, 3), 2, 0.37):
        m = tp.Width("m", ratio=ratio)
        A, v = tp.Matrix("A", m, N, var=Fraction(2, 3)), tp.Vector("v", m, mean=1, var=1)
        h = tp.relu(A.T @ v)
        e = limit(
            a=tp.moment(v * (A @ h)),
            q=tp.moment((A.T @ v) ** 2),
            h=tp.moment(h * (A.T @ (A @ h))),
            b=tp.moment((A @ h) ** 2),
        )
        s2, rho = 2 / 3, float(ratio)
        q = rho * s2 * 2
        # Z^{A h} = Zhat + s2 v/2, so E (Z^{A h})^2 = s2 q/2 + s2^2/2, and rho E[(A h)(A h)] = E[h A.T A h]
        assert float(e["a"].value) == pytest.approx(s2) and float(e["q"].value) == pytest.approx(q)
        assert float(e["b"].value) == pytest.approx(s2 * q / 2 + s2**2 / 2)
        assert float(e["h"].value) == pytest.approx(rho * float(e["b"].value))


def test_deterministic_vectors():
    c = tp.Vector("c", N, mean=2, var=0)
    assert is_exactly(tp.moment(W @ (W.T @ c)), 2)
    assert is_exactly(tp.moment((W @ (W.T @ c)) ** 2), 8)
    assert is_exactly(tp.moment((W @ c) * (W @ (c + Y))), 4)
    assert is_exactly(tp.moment(tp.step(c - c) + tp.step(W @ (c - c))), 1)
    assert value(tp.moment(c * (W @ tp.step(W.T @ c)))) == pytest.approx(4 / 2 / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("distribution", ["rademacher", "uniform"])
def test_initial_vectors_that_are_not_gaussian(distribution):
    r = tp.Vector("r", N, mean=Fraction(1, 2), var=2, distribution=distribution)
    fourth = {"rademacher": 4, "uniform": Fraction(9, 5) * 4}[distribution]
    spread = {"rademacher": math.sqrt(2), "uniform": math.sqrt(6)}[distribution]
    assert value(tp.moment((r - Fraction(1, 2)) ** 4)) == pytest.approx(float(fourth))
    assert value(tp.moment(r * (W @ tp.relu(W.T @ r)))) == pytest.approx(2.25 / 2)
    ends = (0.5 - spread, 0.5 + spread)
    exponential = (
        (math.exp(ends[0]) + math.exp(ends[1])) / 2
        if distribution == "rademacher"
        else ((math.exp(ends[1]) - math.exp(ends[0])) / (2 * spread))
    )
    assert value(tp.moment(tp.exp(r))) == pytest.approx(exponential, rel=1e-9)
    relu = ends[1] / 2 if distribution == "rademacher" else ends[1] ** 2 / (4 * spread)
    found = limit(m=tp.moment(tp.relu(r)))["m"]
    assert agrees(found, relu) and found.error < 1e-6


def test_singular_initial_vectors():
    u, w = tp.vectors(("u", "w"), N, mean=[1, 0], cov=[[1, 1], [1, 1]])  # u = w + 1
    assert is_exactly(tp.moment(tp.relu(u - 1) - tp.relu(w)), 0)
    assert value(tp.moment(tp.exp(u - w))) == pytest.approx(math.e)
    assert value(tp.moment(tp.sign(u) * tp.sign(w))) == pytest.approx(1 - 2 * (ndtr(1) - 0.5))
    truth = mean_of(lambda z: np.maximum(z, 0) * (z + 1), 0, 1)
    assert value(tp.moment(tp.relu(u) * tp.relu(w))) == pytest.approx(truth)


# ---- identities ------------------------------------------------------------------------------------------------------
def programs_to_adjoint():
    h = tp.relu(V @ Y + X)
    k = tp.sign(W.T @ h) * tp.elu(Y) + Y
    yield h, k
    a = tp.tanh(W.T @ X)
    yield tp.step(W @ a) + X, tp.erf(W.T @ (W @ a)) * a
    yield tp.gelu(V.T @ (W @ Y)), tp.abs(W.T @ tp.relu(W @ Y))


@pytest.mark.parametrize("x, y", list(programs_to_adjoint()), ids=["one", "two", "three"])
def test_adjointness(x, y):
    """E[Z^x Z^{W y}] = E[Z^{W.T x} Z^y]."""
    e = limit(a=tp.moment(x * (W @ y)), b=tp.moment((W.T @ x) * y))
    assert float(e["a"].value) == pytest.approx(float(e["b"].value), abs=float(e["a"].error + e["b"].error) + 1e-12)


def test_the_same_program_written_two_ways():
    a = W.T @ tp.relu(W @ (Y + 2 * X))
    b = W.T @ tp.relu(2 * (W @ X) - W @ (-Y))
    c = W.T @ (tp.abs(W @ (Y + 2 * X)) / 2 + (W @ X) + (W @ Y) / 2)
    outputs = {
        f"{name}{k}": tp.moment(z * other)
        for name, z in (("a", a), ("b", b), ("c", c))
        for k, other in enumerate((X, Y, z))
    }
    e = limit(**outputs)
    for k in range(3):
        for name in "bc":
            assert float(e[f"{name}{k}"].value) == pytest.approx(float(e[f"a{k}"].value), abs=1e-9)


def test_names_dead_code_and_order_do_not_matter():
    def build(names, extra):
        n = tp.Width(names[0])
        M, u, v = tp.Matrix(names[1], n, n), tp.Vector(names[2], n, var=2), tp.Vector(names[3], n, mean=1)
        if extra:
            tp.moment(tp.exp(M @ v))
        h = M.T @ tp.tanh(M @ (u + v) if extra else M @ v + M @ u)
        outs = {"a": tp.moment(h * u), "b": tp.moment(tp.relu(h) * v)}
        return tp.limit(tp.Program(dict(reversed(outs.items())) if extra else outs), method="exact")

    one, two = build(("n", "W", "u", "v"), False), build(("k", "Z", "zz", "a"), True)
    assert list(one) == ["a", "b"] and list(two) == ["b", "a"]
    for k in one:
        assert float(one[k].value) == pytest.approx(float(two[k].value), abs=float(one[k].error + two[k].error) + 1e-12)


def test_layer_norm_by_moments():
    h = W @ tp.relu(V @ X)
    m = tp.moment(h + 3)
    ln = (h + 3 - m) / tp.sqrt(tp.moment((h + 3 - m) ** 2))
    e = limit(mean=tp.moment(ln), square=tp.moment(ln**2), relu=tp.moment(tp.relu(ln)))
    assert float(e["mean"].value) == 0 and float(e["square"].value) == pytest.approx(1)
    assert float(e["relu"].value) == pytest.approx(1 / math.sqrt(2 * math.pi))


def test_scalars():
    s, e = tp.Scalar("s", Fraction(1, 3)), tp.inverse_sqrt(N)
    assert is_exactly(tp.moment((e * X + Y) ** 2), 1) and is_exactly(e + s, Fraction(1, 3))
    assert is_exactly(tp.moment((s * X + 1) ** 2), Fraction(1, 9) * Fraction(9, 4) + Fraction(1, 3) + 1)
    assert is_exactly(1 / tp.moment(X * X), Fraction(4, 9)) and is_exactly(tp.sqrt(tp.moment(X * X)), Fraction(3, 2))
    assert is_exactly(tp.moment(X) ** -2, 4)


def test_outer():
    """x_a = E_Y phi(x_a, Y) with an independent copy of y."""
    assert is_exactly(tp.moment(tp.outer(lambda a, b: a * b + b**2, X, Y) * X), Fraction(1, 2))
    assert is_exactly(tp.moment(tp.outer(lambda a, b: (a - b) ** 2, X, X)), 4)


# ---- exactness -------------------------------------------------------------------------------------------------------
def test_hermite_polynomials_are_orthogonal():
    r = Fraction(2, 5)
    u, v = tp.vectors(("u", "v"), N, cov=[[1, r], [r, 1]])
    for j, k in itertools.product(range(7), repeat=2):
        assert is_exactly(tp.moment(tp.hermite(u, j) * tp.hermite(v, k)), math.factorial(k) * r**k if j == k else 0)


def test_rational_answers_are_rational():
    u, v, w = tp.vectors(("u", "v", "w"), N, mean=[1, 0, Fraction(1, 2)], cov=[[1, 1, 0], [1, 2, 1], [0, 1, 3]])
    assert is_exactly(tp.moment(u * v * w), Fraction(3, 2))  # Isserlis: c_uv m_w + c_vw m_u
    assert is_exactly(tp.moment(v**10), 945 * 32) and is_exactly(tp.moment(tp.relu(v) ** 4), 6)
    assert is_exactly(tp.moment(tp.step(v) * tp.step(2 * v)), Fraction(1, 2))
    assert is_exactly(tp.moment(tp.relu(v) * tp.relu(-v)), 0) and is_exactly(
        tp.moment(tp.leaky_relu(v, Fraction(1, 2)) ** 2), Fraction(5, 4)
    )
    assert is_exactly(tp.moment(tp.tanh(v)), 0) and is_exactly(tp.moment(tp.cos(v) * tp.sin(v) * u) * 0 + 1, 1)
    assert not is_exactly(tp.moment(0.5 * u), Fraction(1, 2)), "a float is not a rational"


# ---- size ------------------------------------------------------------------------------------------------------------
def deep():
    z = X
    for k in range(600):
        z = Fraction(1, 2) * tp.erf(tp.Matrix(f"W{k}", N, N, var=2) @ z) + z
    return z


def running():
    s = X
    for _ in range(10):
        s = s + tp.relu(W @ s)
    return s


def tied():
    z = X
    for k in range(60):
        z = tp.relu((W if k % 2 else W.T) @ z)
    return z


def random_matrix():
    z = X
    for _ in range(30):
        z = W @ (W.T @ z)
    return z


@pytest.mark.parametrize("build", few([deep, running, tied, random_matrix], (running, random_matrix)))
def test_large_programs_answer_or_decline(build):
    """Within the time that any test has."""
    try:
        found = limit(m=tp.moment(build() ** 2))["m"]
        assert math.isfinite(found.value) and found.error <= 1e-6 * found.value
    except tp.TensorProgramError as declined:
        assert "variables" in str(declined)


def test_a_float_elsewhere_in_the_process_does_not_make_rationals_inexact():
    """0.5 == Fraction(1, 2), so whatever is remembered must know which it was."""
    v = tp.Vector("v", N, var=2)
    assert not is_exactly(tp.moment(tp.leaky_relu(v, 0.5) ** 2), Fraction(5, 4))
    assert is_exactly(tp.moment(tp.leaky_relu(v, Fraction(1, 2)) ** 2), Fraction(5, 4))
    assert not is_exactly(tp.moment(tp.elu(v, 0.5) * v * 0 + 0.5), Fraction(1, 2))


# ---- what has no limit, what is sampled, what is large ------------------------------------------------------------------
@pytest.mark.parametrize("vector", [False, True])
def test_zero_over_zero_is_refused(vector):
    """moment(x)/moment(x) is 1 at every width, and 0/0 in the limit."""
    x = tp.Vector("x", N)
    m = tp.moment(x)
    with pytest.raises(tp.TensorProgramError, match="whose limit is 0"):
        limit(out=tp.moment(x * m / m) if vector else m / m)


def test_a_constant_cannot_be_normalised():
    one = tp.Vector("one", N, mean=1, var=0)
    centred = one - tp.moment(one)
    with pytest.raises(tp.TensorProgramError, match="whose limit is 0"):
        limit(out=tp.moment((centred / tp.sqrt(tp.moment(centred**2))) ** 2))


def test_narrow_turns_along_a_curve_are_seen():
    """E exp(-(100 (x y - 1/2))^2) is close to sqrt(pi)/100 times the density of x y at 1/2, K_0(1/2)/pi."""
    from scipy.special import k0

    x, y = tp.Vector("x", N), tp.Vector("y", N)
    found = limit(out=tp.moment(tp.gaussian(100 * (x * y - 0.5))))["out"]
    assert abs(found.value - math.sqrt(math.pi) / 100 * k0(0.5) / math.pi) < 5 * found.error + 1e-5
    assert found.error < 1e-3


def test_rows_of_unequal_scale_state_their_rounding():
    """3 E relu(u) relu(v) - E relu(3 u) relu(v) = 0, up to what rounding leaves of entries of 1e16."""
    k = 200
    scale = np.where(np.arange(k) < 16, 1, 1e8)
    g = np.random.default_rng(0).standard_normal((k, 300))
    z = tp.Vector("z", N, axes=("i",), cov=g @ g.T / 300 * np.outer(scale, scale))
    other = tp.relu(tp.rename(z, i="j"))
    found = limit(out=3 * tp.moment(tp.relu(z) * other) - tp.moment(tp.relu(3 * z) * other))["out"]
    assert np.all(np.abs(found.value) <= found.error)


def test_an_outer_of_a_high_power_declines_in_time():
    x, y = tp.Vector("x", N), tp.Vector("y", N)
    body = lambda a, b: sum(tp.tanh((i + 1) * a) * tp.tanh((i + 2) * b) for i in range(8)) ** 6  # noqa: E731
    with pytest.raises(tp.TensorProgramError, match="separates into more than"):
        limit(out=tp.moment(tp.outer(body, x, y)))


def test_products_of_sums_of_one_variable_are_one_integral():
    x = tp.Vector("x", N)
    total = sum(tp.tanh((i + 1) * x + Fraction(i, 3)) for i in range(12))
    p = tp.Program(out=tp.moment(total**6))
    from tensorprog.language.node import topological
    from tensorprog.limits.expect.lower import Lowering

    scalar = Lowering(p, {}).z[p.outputs["out"].node]
    assert len([y for y in topological([scalar]) if y.op == "gauss"]) == 1


def test_a_generator_seeds_what_is_sampled():
    x, y, z, v, w = [tp.Vector(name, N) for name in "xyzvw"]
    p = tp.Program(out=tp.moment(tp.relu(x * y * z * v * w)))  # five variables, however it is turned: sampled
    one, two = [tp.limit(p, method="exact", rng=np.random.default_rng(k))["out"] for k in (1, 2)]
    assert one.value != two.value and abs(one.value - two.value) < 6 * (one.error + two.error)
    with pytest.raises(tp.TensorProgramError, match="rng is -1"):
        tp.limit(p, rng=-1)


def test_powers_of_n_cancel_exactly():
    """n**(1/2) n**(-1/2) is 1, whatever else is in the product; two widths leave their ratio."""
    root, other = tp.inverse_sqrt(N), tp.inverse_sqrt(tp.Width("m", 4))
    x = tp.Vector("x", N)
    fourth = tp.moment(x**4)
    assert tp.Program(q=root**-3 * fourth * root**3) == tp.Program(q=fourth)
    assert tp.Program(q=1 / (1 / root) * fourth) == tp.Program(q=root * fourth)
    p = tp.Program(
        whole=fourth * (other / root), inside=tp.moment(x**4 * other / root), cube=(root / other) ** 3 * fourth
    )
    assert tp.parse(str(p)) == p
    found = tp.limit(p)
    assert (found["whole"].value, found["inside"].value, found["cube"].value) == (Fraction(3, 2), Fraction(3, 2), 24)
    runs = tp.run(p, n=10_000, seeds=2)
    np.testing.assert_allclose(runs["whole"] * 16, runs["cube"], rtol=1e-12)
    for bad in (fourth / root, tp.moment(tp.tanh(x / root)), fourth * other / root**2):
        with pytest.raises(tp.TensorProgramError, match=r"n\*\*\(1/2\), which has no limit"):
            tp.limit(tp.Program(q=bad))


def test_the_output_of_a_network_has_a_law_and_no_limit():
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), N))))
    with pytest.raises(tp.TensorProgramError, match="tends in law to a Gaussian"):
        tp.limit(net, np.ones((1, 2)), of="f")


Q = tp.inverse_sqrt(N)
AS_A_WHOLE = {
    "exp": ((tp.exp(Q) - 1) / Q, 1),
    "cos": ((1 - tp.cos(Q)) / Q**2, Fraction(1, 2)),
    "sqrt": ((tp.sqrt(1 + Q) - 1) / Q, Fraction(1, 2)),
    "square": (((1 + Q) ** 2 - 1) / Q, 2),
    "difference of large ones": (tp.sqrt(1 / Q**2 + 1 / Q) - 1 / Q, Fraction(1, 2)),
    "e": (tp.exp(tp.log(1 + Q) / Q), math.e),
    "sigmoid": ((tp.sigmoid(Q) - 0.5) / Q, 0.25),
    "third order": ((tp.tanh(Q) - Q) / Q**3, -1 / 3),
    "exp(-exp(sqrt(n)))": (tp.exp(-tp.exp(1 / Q)), 0),
    "relu": (tp.relu(Q) / Q, 1),
}


@pytest.mark.parametrize("name", AS_A_WHOLE)
def test_functions_of_n_have_the_limit_of_the_whole(name):
    """In floats at a huge width exp(n**-1/2) - 1 is 0, and its quotient by n**-1/2 would be."""
    scalar, value = AS_A_WHOLE[name]
    x = tp.Vector("x", N)
    for p in (tp.moment(x * x) * scalar, tp.moment(x * x * scalar), scalar + tp.moment(x)):
        found = tp.limit(tp.Program(q=p))["q"]
        assert abs(found.value - value) <= 1e-15 + found.error
        if not isinstance(value, float):
            assert found.value == value and found.kind == "exact"


@pytest.mark.parametrize("scalar", [1 / Q, tp.exp(1 / Q), tp.sin(1 / Q), tp.exp(tp.exp(1 / Q)), tp.log(Q), tp.sqrt(-Q)])
def test_functions_of_n_without_a_limit_are_refused(scalar):
    with pytest.raises(tp.TensorProgramError):
        tp.limit(tp.Program(q=scalar * tp.moment(X * X)))
