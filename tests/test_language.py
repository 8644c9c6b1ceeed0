"""Building programs: what is refused, what is equal, and what the normal form does and does not do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import sympy
from hypothesis import HealthCheck, given, settings
from marks import refused, said
from strategies import X, evaluate, programs

import tensorprog as tp
from tensorprog.language import algebra
from tensorprog.language.describe import describe

n, m = tp.Width("n"), tp.Width("m", ratio=2)
W, V = tp.Matrix("W", n, n), tp.Matrix("V", m, n)
x, y, w = tp.Vector("x", n), tp.Vector("y", n, mean=1), tp.Vector("w", m)
z = tp.Vector("z", n, axes={"t": 3})
eta = tp.Scalar("eta", 1)
s, t = sympy.symbols("s t", real=True)

REFUSED = {
    "width of a product": (lambda: V @ w, "V is m x n.*w has width m"),
    "the transpose would fit": (lambda: V @ w, r"V\.T"),
    "widths in a sum": (lambda: x + w, "x has width n and w has width m"),
    "widths in a stack": (lambda: tp.stack([x, w], "a"), "widths"),
    "a scalar multiplied": (lambda: W @ eta, "scalar eta"),
    "matrix times matrix": (lambda: W @ W, "multiplies a matrix"),
    "a matrix in a sum": (lambda: x + W, "coordinate by coordinate"),
    "axis sizes": (lambda: z + tp.array([1, 2], "t"), "axis 't' has size 3"),
    "no such axis": (lambda: tp.take(z, "s", 0), "no axis 's'"),
    "no such position": (lambda: tp.take(z, "t", 3), "position 3"),
    "one name for two axes": (lambda: tp.rename(z * tp.array([1], "s"), s="t"), "distinct"),
    "an array without axes": (lambda: x + np.ones(3), "axis names"),
    "axes named twice": (lambda: tp.Vector("a", n, axes=("b", "b"), cov=np.eye(4)), "own name"),
    "unknown sizes": (lambda: tp.Vector("a", n, axes="b"), "unknown"),
    "negative variance": (lambda: tp.Vector("a", n, var=-1), "-1"),
    "negative variance of a matrix": (lambda: tp.Matrix("A", n, n, var=-2), "-2"),
    "covariance not symmetric": (lambda: tp.Vector("a", n, axes="b", cov=[[1, 2], [0, 1]]), "symmetric"),
    "covariance not positive": (lambda: tp.Vector("a", n, axes="b", cov=[[1, 2], [2, 1]]), "eigenvalue"),
    "covariance and variance": (lambda: tp.Vector("a", n, var=1, axes="b", cov=np.eye(2)), "both"),
    "no variance": (lambda: tp.Vector("a", n, distribution=scipy.stats.cauchy()), "variance"),
    "unknown distribution": (lambda: tp.Vector("a", n, distribution="cauchy"), "distribution"),
    "nan": (lambda: x + float("nan"), "nan"),
    "infinity": (lambda: x * float("inf"), "inf"),
    "nan in an array": (lambda: tp.array([1.0, np.nan], "t"), "not finite"),
    "complex numbers": (lambda: x * 1j, "real number"),
    "strings": (lambda: x + "1", "number"),
    "division by zero": (lambda: x / 0, "divided by 0"),
    "log of a negative number": (lambda: tp.log(-1), "log of -1"),
    "a third root": (lambda: x ** Fraction(1, 3), "power"),
    "branching": (lambda: bool(x), "branch"),
    "iterating": (lambda: list(z), "iterated"),
    "NumPy's functions": (lambda: np.tanh(x), r"use tp\.tanh"),
    "NumPy's abs": (lambda: np.abs(x), r"use tp\.abs"),
    "NumPy's functions with no name here": (lambda: np.maximum(x, 0), r"tp\.Function"),
    "NumPy's sum": (lambda: np.sum(x), "NumPy's add"),
    "in place": (lambda: np.add(np.ones(2), x, out=np.ones(2)), "NumPy's add"),
    "comparing": (lambda: x > 0, r"tp\.step"),
    "comparing with a NumPy number": (lambda: np.float64(1) >= x, r"tp\.step"),
    "indexing": (lambda: z[0], r"tp\.take"),
    "the length": (lambda: len(z), r"x\.shape"),
    "the transpose of a vector": (lambda: x.T, r"tp\.dot"),
    "a vector as exponent": (lambda: 2**x, "tp.exp"),
    "a NumPy number to a vector's power": (lambda: np.float64(2) ** x, "tp.exp"),
    "an array times a vector": (lambda: np.ones((2, 2)) @ x, "tp.Matrix"),
    "the sum of a matrix and a transpose": (lambda: W + W.T, r"A\.T @ y \+ B @ y"),
    "a transpose times a number": (lambda: 2 * W.T, r"\(2 \* W\)\.T @ y"),
    "the square of a matrix": (lambda: W**2, r"multiplies vectors\s+by"),
    "a row of a matrix": (lambda: W.T[0], r"multiplies vectors\s+by"),
    "an array times a matrix": (lambda: np.eye(2) @ W, r"multiplies vectors\s+by"),
    "NumPy's functions of a matrix": (lambda: np.tanh(W), r"multiplies vectors\s+by"),
    "softmax of a vector": (lambda: tp.softmax(z, "t"), "scalars"),
    "names": (lambda: tp.Vector("a b", n), "not a name"),
    "labels": (lambda: (x + y).label("1"), "not a name"),
    "width of ratio 0": (lambda: tp.Width("k", 0), "ratio"),
    "a moment inside an OuterNonlin": (lambda: tp.outer(lambda a, b: tp.moment(b) * a, x, w), "OuterNonlin"),
    "a product inside an OuterNonlin": (lambda: tp.outer(lambda a, b: V.T @ b, x, w), "V.T"),
    "a vector as output": (lambda: tp.Program(q=x), "vector x"),
    "no outputs": (lambda: tp.Program(), "without outputs"),
    "two matrices of one name": (lambda: tp.Program(q=tp.moment((W @ x) * (tp.Matrix("W", n, n, var=2) @ x))), "'W'"),
    "two vectors of one name": (lambda: tp.Program(q=tp.moment(x * tp.Vector("x", n, var=2))), "'x'"),
    "two widths of one name": (
        lambda: tp.Program(q=tp.moment(x), r=tp.moment(tp.Vector("k", tp.Width("n", 2)))),
        "'n'",
    ),
    "two defaults": (lambda: tp.Program(q=eta + tp.Scalar("eta", 2)), "'eta'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_where_it_is_written(name):
    build, message = REFUSED[name]
    with pytest.raises(tp.TensorProgramError) as caught:
        build()
    assert re.search(f"(?s){message}", said(caught.value))
    assert "test_language.py" in str(caught.value) and caught.value.what


def same(*expressions):
    assert len({tp.Program(q=tp.moment(e)).digest for e in expressions}) == 1


def different(*expressions):
    assert len({tp.Program(q=tp.moment(e)).digest for e in expressions}) == len(expressions)


def test_commutative_operands_are_ordered():
    same(x + y, y + x)
    same(x * y, y * x)
    same(x * y * tp.tanh(x), tp.tanh(x) * (y * x))
    same(x - y, -y + x)


def test_equal_terms_and_factors_are_merged():
    same(x * x, x**2)
    same(x + x, 2 * x, x * 2, 3 * x - x)
    same((2 * x) * (3 * y), 6 * (x * y))
    same(x - x + y, y)
    different(W @ (2 * x), 2 * (W @ x))  # programs stay as written
    assert (W @ (x - x)).node.is_zero


def test_number_types_matter():
    different(0.5 * x, Fraction(1, 2) * x)
    same(2 * x, Fraction(2) * x, Fraction(4, 2) * x, np.int64(2) * x)
    different(2 * x + 0 * y + 1, 2 * x + 1.0)


def test_numbers_fold_exactly():
    assert tp.moment(tp.relu(0 * x - 3)).node.attr == 0
    assert tp.sqrt(Fraction(4, 9)).node.attr == Fraction(2, 3)
    assert (tp.array([10, 20], "t") ** 20).node.attr.tolist() == [10**20, 20**20]  # no overflow
    assert tp.sum(tp.array([2**62, 2**62], "t")).node.attr == 2**63
    assert tp.array([2**63, -1], "t").node.attr.tolist() == [2**63, -1]  # NumPy alone would round
    assert (tp.array([Fraction(1, 2), 1], "t") * 2).node == tp.array([1, 2], "t").node


def test_sums_over_an_axis_that_operands_lack():
    product = 2 * tp.Scalar("mu") * eta
    same(tp.sum(0 * z + eta + product, "t"), 3 * (0 * x + eta + product))
    same(tp.sum(0 * z + 2 * eta, "t"), 6 * eta + 0 * x)
    same(tp.sum(0 * z + product, "t"), 3 * product + 0 * x)


def test_views_and_positions_fold():
    assert tp.rename(tp.rename(z, t="s"), s="t").node == z.node
    assert tp.take(tp.stack([x, y], "a"), "a", -1).node == y.node
    assert tp.take(z * y, "t", 1).node.op == "take"


def test_axis_names_and_build_order_do_not_matter():
    a, b = tp.Vector("a", n, axes={"p": 2, "q": 3}), tp.Vector("a", n, axes={"u": 2, "v": 3})
    assert tp.moment(a * a).node == tp.moment(b * b).node
    forward = {"one": tp.moment(x * y), "two": tp.moment(tp.tanh(y))}
    assert tp.Program(forward) == tp.Program(dict(reversed(forward.items())))
    named = tp.Program(q=tp.moment(a))
    assert named != tp.Program(q=tp.moment(b))  # the outputs' own axis names are part of a program


def test_one_name_with_the_same_attributes_is_one_object():
    again = tp.Matrix("W", tp.Width("n"), tp.Width("n"), var=1)
    assert tp.Program(q=tp.moment((W @ x) * (again @ tp.Vector("x", n)))) == tp.Program(q=tp.moment((W @ x) ** 2))


def test_labels_and_sources_are_no_content():
    assert (W @ x).label("h").node == (W @ x).node
    assert (W @ x).node.source.file == __file__


def test_hyperparameters():
    p = tp.Program(q=eta * tp.Scalar("mu"))
    assert p.scalars == {"eta": 1, "mu": None} and p.values({"mu": 0.5}) == {"eta": 1, "mu": 0.5}
    with refused("mu has no value"):
        p.values({})
    with refused("no hyperparameter 'nu'"):
        p.values({"nu": 1})


def test_digests_do_not_depend_on_the_process():
    code = (
        "import tensorprog as tp\nn = tp.Width('n')\nW = tp.Matrix('W', n, n)\n"
        "x, y = tp.Vector('x', n), tp.Vector('y', n)\nh = W @ (x * 3 + y * tp.tanh(x) + tp.Scalar('eta'))\n"
        "p = tp.Program(a=tp.moment(h * (W.T @ h)), b=tp.moment(h))\n"
        "print(p.digest); print(p)"
    )
    seen = set()
    for seed in ("0", "1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        seen.add(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
            ).stdout
        )
    assert len(seen) == 1


def test_importing_does_not_wait_for_sympy_or_scipy():
    code = "import sys, tensorprog; assert not {'sympy', 'scipy', 'networkx'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(updates=True))
def test_rebuilding_a_node_from_its_operands_changes_nothing(p):
    for node in p.nodes:
        assert algebra.rebuild(node, node.args) == node


def test_describing_a_deep_node_does_not_recurse_deeply():
    a, b = x, x
    for _ in range(3000):
        a, b = tp.tanh(a), W @ b
    assert len(describe(a.node)) < 200 and len(describe(b.node)) < 200


# ---- functions of one's own -----------------------------------------------------------------------------------------

FUNCTIONS = [
    (s**2 + sympy.Rational(1, 3) * s, lambda a: a * a + Fraction(1, 3) * a),
    (sympy.Max(s, 0), tp.relu),
    (sympy.Abs(s) * sympy.sign(s), lambda a: tp.abs(a) * tp.sign(a)),
    (sympy.Heaviside(s), tp.step),
    (sympy.tanh(s) + sympy.erf(s) + sympy.exp(s) + sympy.sin(s) + sympy.cos(s) + sympy.atan(s), None),
    (1 / sympy.sqrt(s**2 + 1), None),
    ((s**2 + 1) ** sympy.Rational(3, 2), None),
    (sympy.log(s**2 + 1) + sympy.pi * s, None),
    (sympy.sinh(s) + sympy.cosh(s) + sympy.erfc(s), None),
    (sympy.Min(s, 1) + sympy.Max(s, -s / 2, 1), None),
    (sympy.Piecewise((s, s > 0), (s**3, s > -1), (-1, True)), None),
    (sympy.sqrt(2) * s + sympy.E, None),
]


@pytest.mark.parametrize(("expression", "expected"), FUNCTIONS, ids=[str(e) for e, _ in FUNCTIONS])
def test_a_function_of_one_s_own(expression, expected):
    f = tp.Function("f", expression)
    points = np.linspace(-3, 3, 101) + 1e-3
    node = f(tp.Expression(X)).node
    want = np.array([float(expression.subs(s, v)) for v in points])
    np.testing.assert_allclose(evaluate(node, points), want, rtol=1e-12, atol=1e-12)
    if expected is not None:
        assert f(x).node == expected(x).node


def test_the_order_of_arguments():
    assert tp.Function("f", s - 2 * t)(x, y).node == (x - 2 * y).node
    assert tp.Function("f", s - 2 * t, args=(t, s))(x, y).node == (y - 2 * x).node
    assert tp.Function("f", s - 2 * t, args=("t", "s"))(x, y).node == (y - 2 * x).node
    with refused("1 arguments"):
        tp.Function("f", s - t)(x)


def test_numbers_of_functions_stay_exact():
    assert tp.Function("f", s / 3)(x).node.attr == (Fraction(1, 3),)
    assert isinstance(tp.Function("f", sympy.pi * s)(x).node.attr[0], float)


def test_shared_subexpressions_stay_shared():
    e = s
    for _ in range(60):
        e = sympy.Add(sympy.Mul(sympy.tanh(e, evaluate=False), e, evaluate=False), e, evaluate=False)
    assert len(tp.Program(q=tp.moment(tp.Function("deep", e)(x))).nodes) < 250


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("s + 1", "run code"),
        (3, "expression"),
        (sympy.gamma(s), r"gamma\(s\)"),
        (sympy.I * s, "contains I"),
        (s**t, r"s\*\*t"),
        (sympy.Integer(3), "symbol"),
        (sympy.oo * s, "oo"),
        (sympy.Piecewise((s, s > 0)), "last case"),
        (s ** sympy.Rational(1, 3), "powers"),
        (sympy.Piecewise((s, sympy.Eq(s, 0)), (1, True)), "condition"),
        (sympy.Function("g")(s), r"g\(s\)"),
    ],
)
def test_what_has_no_translation_is_refused(expression, message):
    with refused(message):
        tp.Function("f", expression)


def test_a_large_variance_does_not_hide_an_impossible_correlation():
    n = tp.Width("n")
    with refused("negative eigenvalue"):
        tp.Vector("z", n, axes=("b",), cov=[[1e6, 0, 0], [0, 1e-6, 2e-6], [0, 2e-6, 1e-6]])
    tp.Vector("z", n, axes=("b",), cov=[[1e6, 0, 0], [0, 1e-6, 1e-6], [0, 1e-6, 1e-6]])  # singular, and fine
