"""Formulas: exact answers, numbers that agree with tp.limit, readable recursions, LaTeX."""

import math
import re
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
from marks import few

import tensorprog as tp
from tensorprog.limits.expect.integral import MAX_SAMPLED
from tensorprog.limits.formula.duals import named
from tensorprog.limits.formula.integral import GaussianExpectation
from tensorprog.limits.formula.special import (
    ArcCosineKernel,
    ArcSineKernel,
    Density,
    PseudoInverse,
    Residual,
    SignMean,
    SignPair,
)
from tensorprog.limits.formula.special_shares import Share, Shares
from tensorprog.limits.gauss import precise
from tensorprog.limits.gauss.duals import DUALS

n = tp.Width("n")
COV = np.array([[2, 1], [1, 3]])


def agrees(p, digits=15, values=None):
    """Numbers of the let-bindings against the exact route of tp.limit; the formula is returned."""
    f = tp.formula(p)
    got, want = f.evalf(digits, values=values), tp.limit(p, method="exact", values=values)
    for name in p:
        a, b = np.asarray(got[name], dtype=float), np.asarray(want[name].value, dtype=float)
        assert a.shape == b.shape
        assert np.all(np.abs(a - b) <= np.asarray(want[name].error, dtype=float) + 1e-14 * np.abs(b)), (name, a, b)
    return f


def expanded(f, name, values=()):
    """The number of the expanded expression, through SymPy alone."""
    return float(f.expand(name).subs(dict(values)).evalf(20))


def layers(phi, depth, x, var=2):
    h = x
    for k in range(1, depth):
        h = tp.Matrix(f"W{k}", n, n, var=var) @ phi(h)
    return phi(h)


def pair(phi, depth):
    y = layers(phi, depth, tp.Vector("x", n, axes="b", cov=COV))
    return tp.Program(k=tp.moment(tp.take(y, "b", 0) * tp.take(y, "b", 1)))


def counterexample():
    W, x = tp.Matrix("W", n, n, var=1), tp.Vector("x", n, mean=1, var=0)
    h = W @ x
    dx = W.T @ (2 * h)
    return tp.Program(mean_dx=tp.moment(dx), dx2=tp.moment(dx * dx), h2=tp.moment(h * h))


# ---- exact answers ----------------------------------------------------------------------------------------------------


def test_the_counterexample_with_and_without_gradient_independence():
    f = agrees(counterexample())
    assert (f["mean_dx"], f["dx2"], f["h2"]) == (2, 8, 1) and all(e.is_Integer for e in f.values())
    g = tp.formula(counterexample(), gia=True)
    assert (g["mean_dx"], g["dx2"]) == (0, 4) and not g.lets


def test_catalan_numbers_and_marchenko_pastur():
    W, v = tp.Matrix("W", n, n), tp.Vector("v", n)
    m = tp.Width("m", ratio=Fraction(1, 3))
    A, u = tp.Matrix("A", m, n, var=Fraction(2, 3)), tp.Vector("u", m)
    x, y, outs = v, u, {}
    for k in range(1, 6):
        x, y = W @ (W.T @ x), A @ (A.T @ y)
        outs |= {f"c{k}": tp.moment(v * x), f"mp{k}": tp.moment(u * y)}
    f = agrees(tp.Program(**outs))
    assert [f[f"c{k}"] for k in range(1, 6)] == [1, 2, 5, 14, 42]
    narayana = [
        sum(Fraction(math.comb(k, i) * math.comb(k - 1, i), i + 1) * Fraction(1, 3) ** i for i in range(k))
        for k in range(1, 6)
    ]
    assert [f[f"mp{k}"] for k in range(1, 6)] == [
        sympy.Rational(Fraction(2, 3) ** k * c) for k, c in enumerate(narayana, 1)
    ]


def test_zdot_of_a_step_is_exact():
    W, y = tp.Matrix("W", n, n), tp.Vector("y", n)
    f = agrees(tp.Program(c=tp.moment(y * (W @ tp.step(W.T @ y)))))
    assert sympy.simplify(f["c"] - 1 / sympy.sqrt(2 * sympy.pi)) == 0
    with mpmath.workdps(50):
        assert abs(f.evalf(40)["c"] - sympy.Float(1 / mpmath.sqrt(2 * mpmath.pi), 50)) < sympy.Float("1e-39")


def test_pi_and_roots_stay_exact():
    x, y = tp.Vector("x", n, var=2), tp.Vector("y", n, var=3)
    f = agrees(
        tp.Program(
            a=tp.moment(tp.abs(x)), b=tp.moment(tp.relu(x) * tp.relu(y)), e=tp.moment(tp.exp(x)), s=tp.moment(tp.cos(x))
        )
    )
    assert sympy.simplify(f["a"] - 2 / sympy.sqrt(sympy.pi)) == 0
    assert sympy.simplify(f["b"] - sympy.sqrt(6) / (2 * sympy.pi)) == 0
    assert f["e"] == sympy.E and f["s"] == sympy.exp(-1)
    assert not any(e.has(sympy.Float) for e in f.values())


def test_floats_come_from_the_user_only():
    f = agrees(tp.Program(a=tp.moment(tp.relu(tp.Vector("x", n, var=0.5)) ** 2)))
    assert f["a"].has(sympy.Float)
    assert float(f["a"]) == 0.25


# ---- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", few([1, 2, 5], [2]))
@pytest.mark.parametrize("phi", [tp.relu, tp.erf, tp.gelu, tp.abs, tp.sin, tp.step], ids=lambda phi: phi.__name__)
def test_closed_forms_at_every_depth(phi, depth):
    if depth == 5 and phi is tp.gelu:
        depth = 3
    f = agrees(pair(phi, depth))
    if depth < 4:
        assert expanded(f, "k") == pytest.approx(float(f.evalf()["k"]), rel=1e-14)


@pytest.mark.parametrize("depth", few([1, 2, 3], [1]))
def test_unevaluated_expectations(depth):
    f = agrees(pair(tp.tanh, depth))
    assert f["k"].has(GaussianExpectation) and len(f.lets) == (0 if depth == 1 else 3 * (depth - 1))


@pytest.mark.slow
def test_many_digits_of_an_integral():
    x = tp.Vector("x", n, axes="b", cov=COV)
    f = tp.formula(tp.Program(k=tp.moment(tp.sigmoid(tp.take(x, "b", 0)) * tp.sin(tp.take(x, "b", 1)))))
    thirty, forty = f.evalf(30)["k"], f.evalf(40)["k"]
    assert abs(thirty - forty) < sympy.Float("1e-29", 40)
    with mpmath.workdps(25):  # E sin(v) | u is elementary
        s2, c = mpmath.sqrt(2), mpmath.mpf(1) / 2

        def g(e):
            u = s2 * e
            return mpmath.npdf(e) / (1 + mpmath.exp(-u)) * mpmath.sin(c * u) * mpmath.exp(-(3 - c) / 2)

        assert abs(mpmath.quad(g, [-14, 0, 14]) - mpmath.mpf(str(forty))) < mpmath.mpf(10) ** -22


def test_means_and_biases():
    x = tp.Vector("x", n, mean=Fraction(1, 2), axes="b", cov=COV)
    b = tp.Vector("b", n, var=Fraction(1, 4))
    h = tp.Matrix("W", n, n) @ tp.relu(x) + b
    y, z = tp.take(h, "b", 0), tp.take(h, "b", 1)
    k, m = tp.moment(tp.relu(y) * tp.relu(z)), tp.moment(tp.relu(tp.take(x, "b", 0)) * tp.relu(tp.take(x, "b", 1)))
    agrees(tp.Program(k=k, m=m, t=tp.moment(tp.tanh(y + 1))))


def test_an_mlp_prints_as_the_textbook_recursion():
    y = layers(tp.relu, 3, tp.Vector("x", n, axes="b", cov=COV))
    f = agrees(tp.Program(nngp=tp.moment(y * tp.rename(y, b="c"))))
    assert str(f).splitlines() == [
        "K1[i, j] = ArcCosineKernel(Sigma[i, i], Sigma[i, j], Sigma[j, j])",
        "K2[i, j] = ArcCosineKernel(Sigma[i, i], 2*K1[i, j], Sigma[j, j])",
        "nngp[b, c] = ArcCosineKernel(Sigma[b, b], 2*K2[b, c], Sigma[c, c])",
    ]
    assert [str(s) for s, _ in f.lets] == ["K1[i, j]", "K2[i, j]"]
    assert sympy.count_ops(f.expand("nngp")) > sympy.count_ops(f["nngp"])


@pytest.mark.parametrize(
    "phi", few([tp.relu, tp.erf, tp.gelu, tp.tanh], [tp.relu, tp.tanh]), ids=lambda phi: phi.__name__
)
def test_formulas_are_linear_in_depth(phi):
    def program(depth):
        y = layers(phi, depth, tp.Vector("x", n, axes="b", cov=COV))
        return tp.Program(k=tp.moment(y * tp.rename(y, b="c")))

    tp.formula(program(3))
    sizes = [sum(sympy.count_ops(e) for _, e in tp.formula(program(d)).lets) for d in (10, 20, 40)]
    assert 1.9 < (sizes[2] - sizes[1]) / (sizes[1] - sizes[0]) < 2.1


def test_a_kernel_over_inputs_with_means():
    x = tp.Vector("x", n, mean=[1, 2, 0.5], axes="b", cov=np.eye(3, dtype=int) + 1)
    r = tp.relu(x)
    f = agrees(tp.Program(k=tp.moment(r * tp.rename(r, b="c"))))
    assert {str(base) for base in f.arrays} == {"Sigma", "mu"}


# ---- axes -------------------------------------------------------------------------------------------------------------


def test_sums_softmax_stacks_and_positions():
    x = tp.Vector("x", n, axes="b", cov=COV)
    z = tp.Vector("z", n, axes="b", cov=2 * COV)
    K = tp.moment(tp.relu(x) * tp.relu(tp.rename(x, b="c")))
    f = agrees(
        tp.Program(
            p=tp.softmax(K, "c"), s=tp.sum(K, "c"), t=tp.take(K, "c", -1), m=tp.mean(tp.mean(K, "b"), "c"),
            st=tp.stack([tp.sum(K, "c"), tp.sum(tp.moment(z * z), "b") + tp.sum(K, "c")], "k"),
            contracted=tp.moment(tp.tanh(tp.sum(z, "b")) ** 2),
        )
    )  # fmt: skip
    assert f["p"].has(sympy.Sum) and any(e.has(sympy.Sum) for _, e in f.lets)


def test_independent_positions_are_kronecker_deltas():
    x = tp.Vector("x", n, axes="b", cov=2 * np.eye(3, dtype=int))
    y = tp.Matrix("W", n, n, var=3) @ x
    agrees(tp.Program(k=tp.moment(y * tp.rename(y, b="c"))))


# ---- hyperparameters --------------------------------------------------------------------------------------------------


def test_hyperparameters_are_real_symbols():
    eta, x = tp.Scalar("eta"), tp.Vector("x", n)
    p = tp.Program(
        a=tp.moment((x + eta * x**3) ** 2), b=tp.moment(tp.relu(x + eta)), c=tp.moment(tp.tanh(eta * x) ** 2)
    )
    f = agrees(p, values={"eta": Fraction(1, 3)})
    symbol = f.symbols["eta"]
    assert symbol.is_real and sympy.expand(f["a"] - (1 + 6 * symbol + 15 * symbol**2)) == 0
    assert sympy.limit(f["b"].doit(), symbol, 0) == 1 / sympy.sqrt(2 * sympy.pi)
    assert f.subs({"eta": 2})["a"] == 73
    with pytest.raises(tp.TensorProgramError, match="eta has no value"):
        f.evalf()
    with pytest.raises(tp.TensorProgramError, match="zeta"):
        f.evalf(values={"zeta": 1})


def test_a_formula_can_be_differentiated_in_a_hyperparameter():
    eta, x = tp.Scalar("eta"), tp.Vector("x", n)
    y = tp.Vector("y", n)
    p = tp.Program(c=tp.moment(tp.tanh(x + eta * y) * tp.tanh(x)))
    f, h = tp.formula(p), 1e-4
    slope = f["c"].diff(f.symbols["eta"]).subs(f.symbols["eta"], sympy.Rational(1, 2)).evalf(10)
    up, down = [float(np.asarray(tp.limit(p, values={"eta": 0.5 + s})["c"].value)) for s in (h, -h)]
    assert float(slope) == pytest.approx((up - down) / (2 * h), rel=1e-7)


def test_an_update_of_the_weights():
    eta, W, x = tp.Scalar("eta", Fraction(1, 10)), tp.Matrix("W", n, n), tp.Vector("x", n)
    h = W @ x
    h1 = h - eta * tp.tanh(h) * tp.moment(tp.relu(x) * x)
    agrees(tp.Program(q=tp.moment(h1 * h1), a=tp.moment(x * (W.T @ tp.relu(h1)))))


# ---- closed forms and expectations ------------------------------------------------------------------------------------


def _shares(logarithm, m, k, a, c, b):
    """Arguments of `shares`: the exponents where either half, or both, are tails."""
    quadratic = (b * m * m - 2 * c * m * k + a * k * k) / (a * b - c * c)
    return (
        logarithm,
        logarithm - m * m / a / 2,
        logarithm - k * k / b / 2,
        logarithm - quadratic / 2,
        m,
        k,
        0,
        0,
        a,
        c,
        b,
    )


ARGUMENTS = {
    "arcsine_noisy": [
        (1, 2, 3, 1, 2),
        (0.5, 0.5, 1000, 1000, 1000),
        (0, 0.5, 1000, -400, 200),
        (0.5, 0.5, 0, 0, 1),
        (0, 0, 2, 2, 2),
    ],
    "share": [(1, 0.75, 1, 2), (-1, -3.25, -3, 2), (80, 0, -80, 40), (2, 2, 1, 0), (2, 2, 0, 0)],
    "shares": [
        _shares(1, 1, -2, 2, 1, 3),
        _shares(0.5, 0.5, 0, 1, -0.9, 1),
        _shares(50, -20, -1, 4, 1, 3),
        _shares(0, 0, 0, 2, 1, 2),
        _shares(60, -10, 10, 1, -0.5, 1),
    ],
    "difference": [(-1, -3, -2), (-3, -1, 2), (1, 1, 0)],
    "vanishing": [(0, 0), (1, 0), (0, 2)],
    "widened": [(3, 1, 2, 4, 1), (100, 100, 100, 100, 0.5), (3, 0, 0, 0, 2)],
    "arccos1": [(2, 1, 3), (2, -1, 3), (1, 1, 1), (0, 0, 2)],
    "arcsine": [(2, 1, 3), (2, -2, 2), (1, 1, 1), (0, 0, 2)],
    "sign_mean": [(1, 2), (-1, 0), (0, 1)],
    "sign_pair": [
        (1, -2, 0, 0, 2, 1, 3),
        (0.5, 0, 0, 0, 1, -0.9, 1),
        (1, -1, 0, 0, 2, 2, 2),
        (1, 2, 0, 0, 0, 0, 3),
        (3, -2, 0.5, 1, 100, 99, 100),
        (1, 1, 0, 2, 0, 0, 3),
    ],
    "density": [(1, 2), (0, 3), (1, 0)],
    "pinv": [(2,), (0,)],
    "residual": [(3, 1, 2, 4), (3, 1, 2, 0), (1.0, 0.1, 0.3, 0.03)],
}


def test_every_closed_form_has_a_name():
    assert set(named) == set(DUALS) - {"shares_size"} == set(ARGUMENTS)  # an error has no formula


@pytest.mark.parametrize(("name", "arguments"), [(name, a) for name, rows in ARGUMENTS.items() for a in rows])
def test_closed_forms_agree_with_the_arrays(name, arguments):
    exact = [sympy.Rational(str(a)) for a in arguments]
    want = float(DUALS[name].array(*map(float, arguments)))
    for args in (exact, [sympy.Float(a, 30) for a in exact]):
        assert float(named[name](*args)) == pytest.approx(want, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (ArcCosineKernel, (2, 0.5, 3)),
        (ArcSineKernel, (2, 0.5, 3)),
        (SignPair, (1, -2, 2, 1, 3)),
        (SignMean, (1, 2)),
        (Density, (1, 2)),
        (PseudoInverse, (2,)),
        (Residual, (3, 1, 2, 4)),
        (Share, (1, -1, 2)),
        pytest.param(Shares, (1, 1, -2, 2, 1, 3), marks=pytest.mark.slow),
    ],
)
def test_derivatives_of_closed_forms(cls, values):
    symbols = sympy.symbols(f"a:{len(values)}", real=True)
    value = cls(*symbols)
    exact = dict(zip(symbols, [sympy.Rational(str(v)) for v in values], strict=True))
    for s in symbols:
        h = sympy.Rational(1, 10**8)
        up, down = [value.xreplace({**exact, s: exact[s] + k * h}).evalf(40) for k in (1, -1)]
        assert float(value.diff(s).xreplace(exact).evalf(25)) == pytest.approx(
            float((up - down) / (2 * h)), rel=1e-10, abs=1e-12
        )


def test_the_arc_cosine_kernel_prints_and_expands():
    a, b = sympy.symbols("a b", positive=True)
    c = sympy.Symbol("c", real=True)
    k = ArcCosineKernel(a, c, b)
    assert k.doit().has(sympy.acos) and r"\kappa_1" in sympy.latex(k) and ArcCosineKernel(a, a, a) == a / 2
    assert ArcCosineKernel(b, c, a) == k and r"\kappa_1" in sympy.latex(k**2)


@pytest.mark.parametrize(
    "cov",
    [
        (2, 1, 3),
        (1, 1, 1),
        (2, -1, 3),
        (1, -1, 1),
        (2, 0, 0),
        pytest.param((1, sympy.Rational("0.9"), 1), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["product", "kinked", "joint"])
def test_expectations_of_two_variables(cov, kind):
    z, w = sympy.symbols("z w", real=True)
    body, closed = {
        "product": (
            sympy.sin(z) * sympy.sin(w),
            lambda a, c, b: (sympy.exp(-(a + b - 2 * c) / 2) - sympy.exp(-(a + b + 2 * c) / 2)) / 2,
        ),
        "kinked": (sympy.Max(z, 0) * sympy.Max(w, 0), ArcCosineKernel),
        "joint": (sympy.cos(z + 2 * w), lambda a, c, b: sympy.exp(-(a + 4 * b + 4 * c) / 2)),
    }[kind]
    got = GaussianExpectation(body, (z, w), (0, 0), cov).evalf(12)
    assert float(got) == pytest.approx(float(closed(*map(sympy.sympify, cov))), rel=1e-11, abs=1e-13)


def test_what_cannot_be_had_to_many_digits_says_so(monkeypatch):
    monkeypatch.setattr(precise, "MAX_LEVEL", 4)  # more steps take longer to say the same
    z = sympy.symbols("z0:3", real=True)
    e = GaussianExpectation(
        sympy.tanh(z[0]) * sympy.tanh(z[1]) * sympy.tanh(z[2]) ** 2, z, (0, 0, 0), (1, 0, 1, 0, 0, 1)
    )
    with pytest.raises(tp.TensorProgramError, match="3 Gaussian variables"):
        e.evalf()
    s = sympy.Symbol("s", real=True)
    rough = GaussianExpectation(sympy.sqrt(abs(sympy.sin(5 * s))), (s,), (0,), (1,))
    with pytest.raises(tp.TensorProgramError, match="converge"):
        rough.evalf(30)


def test_bound_variables_are_bound():
    z, q = sympy.symbols("z q", real=True)
    e = GaussianExpectation(sympy.tanh(z) ** 2, (z,), (0,), (q,))
    assert e.subs(z, 3) == e and e.free_symbols == {q} and e.diff(z) == 0
    assert GaussianExpectation(q**2, (z,), (0,), (1,)) == q**2


# ---- errors, text, LaTeX ----------------------------------------------------------------------------------------------


def test_what_has_no_formula_says_why():
    with pytest.raises(tp.TensorProgramError, match=r"int is not a Program"):
        tp.formula(3)
    many = MAX_SAMPLED + 2  # even: an odd number of tanh has mean 0
    x = tp.Vector("x", n, axes="b", cov=np.eye(many, dtype=int) + 1)
    with pytest.raises(tp.TensorProgramError, match="output q has no formula"):
        tp.formula(tp.Program(q=tp.moment(math.prod([tp.tanh(tp.take(x, "b", i)) for i in range(many)]))))
    with pytest.raises(KeyError, match="no output"):
        tp.formula(counterexample())["nothing"]


def balanced(text):
    assert text.count("{") == text.count("}") and text.count(r"\left") == text.count(r"\right")
    assert text.startswith("\\begin{align*}\n") and text.endswith("\n\\end{align*}")
    assert not re.search(r"\^\{[^{}]*\}(_\{[^{}]*\})?\^", text.replace(r"^\top", "")), "a double superscript"


def test_formulas_in_latex():
    y = layers(tp.tanh, 2, tp.Vector("x", n, axes="b", cov=COV))
    f = tp.formula(tp.Program(nngp=tp.moment(y * tp.rename(y, b="c")) ** 2))
    balanced(f.latex())
    assert r"\mathbb{E}" in f._repr_latex_() and r"\mathcal{N}" in f.latex() and r"\mathrm{nngp}" in f.latex()
    assert f.latex().count("\n") == len(f.lets) + 2


def test_programs_in_latex():
    m, eta = tp.Width("m", ratio=Fraction(1, 2)), tp.Scalar("eta", 0.1)
    A, v = tp.Matrix("A", m, n, var=Fraction(2, 3)), tp.Vector("v_out", m)
    x = tp.Vector("x", n, axes="b", cov=COV)
    K = tp.moment(tp.relu(x) * tp.relu(tp.rename(x, b="c")))
    text = tp.latex(
        tp.Program(
            a=tp.moment(v * (A @ (A.T @ (v - eta * tp.tanh(v) / 2 + 1)))), p=tp.softmax(K, "c"), s=tp.sum(K, "c"),
            d=tp.moment(tp.take(tp.relu(tp.rename(x, b="c")), "c", 1) ** 2) - Fraction(1, 2),
        )
    )  # fmt: skip
    balanced(text)
    for part in (
        "MatMul",
        "Nonlin",
        "Moment",
        "output",
        r"A^\top",
        r"\eta",
        r"\tanh",
        r"\sum_{\alpha}",
        r"\tfrac{1}{2}",
    ):
        assert part in text
    with pytest.raises(tp.TensorProgramError, match=r"pass a tp\.Program"):
        tp.latex("W x")
