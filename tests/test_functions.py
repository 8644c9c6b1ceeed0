"""Every row of the table of primitives: what it says about its function is checked against its array implementation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
from strategies import X, evaluate

import tensorprog as tp
from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import topological

INTERNAL = {"sech2", "smooth_sign", "bump", "gauss_exp"}
PARAMETERS = {
    "slope": [Fraction(1, 10), 0.3],
    "alpha": [1, Fraction(3, 2)],
    "variance": [Fraction(1, 2), 2.5],
    "rate": [1, 0.7],
}
CASES = [
    pytest.param(row, values, id=f"{row.name}{values or ''}")
    for row in PRIMITIVES.values()
    for values in (zip(*[PARAMETERS[p] for p in row.parameters], strict=True) if row.parameters else [()])
]
SINGULAR_PARAMETERS = [pytest.param(PRIMITIVES[name], (0,), id=f"{name} 0") for name in ("smooth_sign",)]


def points(row, count=400):
    """Points of the domain, away from its end and from kinks."""
    low = row.domain[0] if row.domain else -6.0
    x = np.random.default_rng(0).uniform(low + 0.05, 6.0, count)
    x = np.concatenate([x, -x]) if row.name == "reciprocal" else x
    return x[np.min([np.abs(x - k) for k in (*row.kinks, math.inf)], axis=0) > 1e-2]


def f(row, values):
    return lambda x: np.asarray(row.array(np.asarray(x, dtype=float), *values), dtype=float)


@pytest.mark.parametrize(("row", "values"), [*CASES, *SINGULAR_PARAMETERS])
def test_derivative(row, values):
    assert row.derivative is not None
    if values == (0,):
        return  # a Dirac delta, which has no values
    node = row.derivative(algebra, X, *values)
    if any(y.op == "fn" and y.attr[:2] == ("bump", (0,)) for y in topological([node])):
        assert row.jumps
        return
    x, h = points(row), 1e-5
    slope = (f(row, values)(x + h) - f(row, values)(x - h)) / (2 * h)
    np.testing.assert_allclose(evaluate(node, x), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("row", "values"), [*CASES, *SINGULAR_PARAMETERS])
def test_sympy_body(row, values):
    s = sympy.Symbol("s", real=True)
    body = row.sympy(sympy, s, *[sympy.Rational(v) if isinstance(v, (int, Fraction)) else v for v in values])
    x = points(row)[:40]
    expected = [float(body.subs(s, sympy.Float(float(v), 30)).evalf(20)) for v in x]
    np.testing.assert_allclose(f(row, values)(x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("row", "values"), [*CASES, *SINGULAR_PARAMETERS])
def test_parity(row, values):
    x = points(row)
    if row.domain is not None and row.name != "reciprocal":
        assert row.parity is None
        return
    there, back = f(row, values)(x), f(row, values)(-x)
    assert (row.parity == 0) == np.allclose(there, back, atol=1e-12)
    assert (row.parity == 1) == np.allclose(there, -back, atol=1e-12)


@pytest.mark.parametrize(("row", "values"), [*CASES, *SINGULAR_PARAMETERS])
def test_kinks_and_jumps_are_where_they_are_declared(row, values):
    g, h = f(row, values), 1e-6
    for k in row.kinks:
        right, left = (g(k + 2 * h) - g(k + h)) / h, (g(k - h) - g(k - 2 * h)) / h
        jump = abs(g(k + h) - g(k - h)) > 0.1
        assert jump == row.jumps
        assert jump or abs(right - left) > 1e-3 or values == (1,)  # elu with alpha = 1 has a continuous derivative
    assert (row.width > 0 or row.kinks) and (row.kinks or not row.jumps)
    if values == (0,):
        return
    grid = np.sort(points(row, 2000))
    second = g(grid + 1e-3) - 2 * g(grid) + g(grid - 1e-3)  # h^2 f'' where smooth, h (right - left) at a kink
    inside = np.abs(grid) > 0.3 if row.growth == "singular" or row.name == "sqrt" else np.full(grid.shape, True)
    scale = 1 + np.abs(g(grid))
    assert np.max((np.abs(second) / scale)[inside]) < 1e-3 * 0.1


@pytest.mark.parametrize(("row", "values"), CASES)
def test_homogeneity(row, values):
    x = points(row)
    x = np.abs(x) if row.domain is not None else x
    g = f(row, values)
    for k in (-1, 0, 1, 2):
        holds = all(np.allclose(g(c * x), c**k * g(x), rtol=1e-10, atol=1e-12) for c in (0.5, 3.0))
        assert holds == (row.homogeneity == k) or (row.name == "reciprocal" and k == -1)


@pytest.mark.parametrize(("row", "values"), [*CASES, *SINGULAR_PARAMETERS])
def test_exact_values(row, values):
    rationals = [Fraction(p, q) for p in range(-8, 9) for q in (1, 2, 3, 4)]
    if row.exact is None:
        return
    found = 0
    for v in rationals:
        exact = row.exact(v, *values)
        if exact is None:
            continue
        found += 1
        assert isinstance(exact, (int, Fraction)) or any(isinstance(p, float) for p in values)
        assert float(exact) == pytest.approx(float(f(row, values)(float(v))), rel=1e-14, abs=1e-15)
    assert found


@pytest.mark.parametrize(("row", "values"), CASES)
def test_growth(row, values):
    g = f(row, values)
    far = np.array([30.0, 100.0, 300.0])
    both = np.concatenate([far, -far]) if row.domain is None else far
    size = np.abs(g(both))
    match row.growth:
        case "bounded":
            assert np.max(np.abs(g(np.linspace(-300, 300, 10001)))) < 3
        case "linear":
            assert np.max(size / np.abs(both)) < 3
            assert np.max(size) > 10
        case "exponential":
            assert np.max(size) > 1e100
        case "singular":
            low = row.domain[0]
            assert abs(g(low + 1e-12)) > 20 and np.max(size / np.abs(both)) < 1
        case _:
            pytest.fail(f"unknown growth {row.growth}")


@pytest.mark.parametrize(("row", "values"), CASES)
def test_lipschitz(row, values):
    x = points(row, 2000)
    pairs = np.stack([x, x + 1e-4])
    slopes = np.abs(np.diff(f(row, values)(pairs), axis=0)) / 1e-4
    if row.lipschitz:
        assert np.max(slopes) < 3 and not row.jumps and row.growth in ("bounded", "linear")
    else:
        assert row.jumps or row.growth in ("singular", "exponential") or row.name in ("sqrt", "bump")


@pytest.mark.parametrize(("row", "values"), CASES)
def test_basis(row, values):
    if row.basis is None:
        assert row.name in {
            "tanh",
            "sech2",
            "sigmoid",
            "softplus",
            "silu",
            "arctan",
            "log1p",
            "log",
            "sqrt",
            "reciprocal",
        }
        return
    node, x = row.basis(algebra, X, *values), points(row)
    np.testing.assert_allclose(evaluate(node, x), f(row, values)(x), rtol=1e-11, atol=1e-13)
    used = {y.attr[0] for y in topological([node]) if y.op == "fn"}
    assert used <= {"sign", "smooth_sign", "bump", "gauss_exp", "exp", "sin", "cos"}


@pytest.mark.parametrize(("row", "values"), CASES)
def test_domain(row, values):
    with np.errstate(all="ignore"):
        inside = f(row, values)(points(row))
        assert np.isfinite(inside).all()
        if row.domain is None:
            assert np.isfinite(f(row, values)(np.array([-20.0, -1.0, 0.0, 1.0, 20.0]))).all()
            return
        low, included = row.domain
        assert np.isfinite(f(row, values)(low)) == included
        if row.name != "reciprocal":
            assert np.isnan(f(row, values)(low - 1.0))
    for bad in [low] * (not included) + [low - 1] * (row.name != "reciprocal"):
        with pytest.raises(tp.TensorProgramError, match=row.name):
            getattr(tp, row.name)(bad)


@pytest.mark.parametrize(("row", "values"), CASES)
def test_bounds_monotonicity_and_decay(row, values):
    low, high = row.bounds
    grid = np.linspace(row.domain[0] + 1e-3 if row.domain else -25, 25, 200_001)
    with np.errstate(divide="ignore"):
        y = f(row, values)(grid)
    assert y.min() >= low and y.max() <= high
    assert not math.isfinite(low) or y.min() - low < 0.05  # they are the best
    assert not math.isfinite(high) or high - y.max() < 0.05
    rises = np.all(np.diff(y) >= 0)
    assert rises if row.monotone else row.parameters or not rises
    if row.domain is not None or low < 0:
        assert row.decay == 0
        return
    ends = [(y_near, y_far) for y_near, y_far in [f(row, values)([s * 10.0, s * 20.0]) for s in (1, -1)] if y_near > 0]
    rates = [math.log2(math.log(far) / math.log(near)) for near, far in ends if 0 < far < 1e-3]
    assert [round(rate) for rate in set(map(round, rates))] == ([row.decay] if row.decay else [])


@pytest.mark.parametrize(("row", "values"), CASES)
def test_latex(row, values):
    text = row.latex.format(x="u", **dict(zip(row.parameters, values, strict=True)))
    assert "u" in text and text.count("{") == text.count("}") and "{x}" not in text


@pytest.mark.parametrize("row", PRIMITIVES.values(), ids=list(PRIMITIVES))
def test_rows_are_complete_and_exported(row):
    assert PRIMITIVES[row.name] is row and row.latex and row.growth and callable(row.array) and callable(row.sympy)
    assert hasattr(tp, row.name) != (row.name in INTERNAL)
    if row.name not in INTERNAL:
        assert row.name in tp.__all__
        x = tp.Vector("x", tp.Width("n"))
        node = getattr(tp, row.name)(x).node
        assert node.op == "fn" and node.attr[0] == row.name and getattr(tp, row.name).__doc__


def test_the_dirac_has_no_values():
    with pytest.raises(ValueError, match="Dirac"):
        PRIMITIVES["bump"].array(np.zeros(3), 0)
