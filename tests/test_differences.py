"""Divided differences: accurate at every step, with the derivative as their limit, linear where a program is."""

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
from marks import few, refused
from mpmath import mp, mpf

import tensorprog as tp
from tensorprog.arrays.differences import array_of_difference
from tensorprog.arrays.elementwise import slope as slope_of
from tensorprog.language.functions import PRIMITIVES

n = tp.Width("n")
PARAMETERS = {"elu": (1.5,), "leaky_relu": (0.1,), "smooth_sign": (0.5,), "bump": (2,), "gauss_exp": (0.3,)}
CONTINUOUS = sorted(
    name
    for name, row in PRIMITIVES.items()
    if row.derivative is not None and not row.jumps and row.growth != "singular"
)
STEPS = (0.0, 1e-300, 1e-30, 1e-12, 1e-7, 1e-3, 0.03, 0.3, 2.0)


def reference(name, parameters, x, d, eps):
    """With 60 digits more than the step takes; at eps = 0 by a step of 1e-400."""
    t = sympy.Symbol("t", real=True)
    body = PRIMITIVES[name].sympy(sympy, t, *[sympy.Rational(Fraction(c)) for c in parameters])
    f = sympy.lambdify(t, body, "mpmath")
    with mp.workdps(500):
        e = mpf(eps) if eps else mpf(10) ** -400
        return float((f(mpf(x) + e * mpf(d)) - f(mpf(x))) / e)


@pytest.mark.parametrize("name", few(CONTINUOUS, ["relu", "tanh", "elu", "sqrt", "gelu"]))
def test_arrays_are_accurate_at_every_step(name):
    row = PRIMITIVES[name]
    parameters = PARAMETERS.get(name, (0.5,) * len(row.parameters))
    call = array_of_difference(name, parameters, slope_of(name, parameters))
    points = [-3.0, -1e-4, 1e-9, 0.4, 2.5]
    if row.domain is not None:
        points = [0.3, 1.0, 7.5]
    for x in points:
        for d in (1.0, -0.2) if row.domain is None else (0.5,):
            for eps in STEPS:
                exact = reference(name, parameters, x, d, eps)
                found = float(call(x, d, eps))
                slope = abs(float(call(x, 1.0, 0.0))) + abs(exact)
                rounding = (
                    4e-16 * abs(float(row.array(np.float64(x), *parameters))) / (eps * abs(d)) if eps > 0.02 else 0
                )
                assert abs(found - exact) <= 1e-13 * abs(d) * (slope + 1e-3) + 4 * abs(d) * rounding, (x, d, eps)


def test_arrays_broadcast_and_split_at_kinks():
    relu = array_of_difference("relu", (), slope_of("relu", ()))
    x, d = np.array([[-1.0], [0.0], [1e-9], [-1e-9]]), np.array([1.0, -1.0])
    found = relu(x, d, 1e-8)
    assert found.shape == (4, 2)
    np.testing.assert_allclose(found, (np.maximum(x + 1e-8 * d, 0) - np.maximum(x, 0)) / 1e-8, rtol=1e-12)
    assert relu(-1e-9, 1.0, 1e-8) == pytest.approx(0.9, rel=1e-12)


def difference_of_a_layer():
    x, d = tp.Vector("x", n, mean=1), tp.Vector("d", n)
    return tp.divided_difference(lambda x: tp.tanh(x) * x + tp.relu(x) ** 3, x, d, tp.inverse_sqrt(n)), x, d


def test_the_limit_is_the_derivative():
    dx, x, d = difference_of_a_layer()
    plain = (tp.tanh(x) + (1 - tp.tanh(x) ** 2) * x + 3 * tp.relu(x) ** 2) * d
    p = tp.Program(square=tp.moment(dx * dx), mixed=tp.moment(dx * d * x))
    q = tp.Program(square=tp.moment(plain * plain), mixed=tp.moment(plain * d * x))
    assert tp.parse(str(p)) == p and r"\frac{" in tp.latex(p)
    found, wanted = tp.limit(p), tp.limit(q)
    sampled = tp.limit(p, method="population")
    for name in p:
        assert abs(found[name].value - wanted[name].value) <= 1e-12
        assert abs(sampled[name].value - wanted[name].value) <= 5 * sampled[name].error
    assert tp.check_regularity(p).covered


def test_runs_are_differences():
    dx, x, d = difference_of_a_layer()
    e = tp.inverse_sqrt(n)

    def phi(x):
        return tp.tanh(x) * x + tp.relu(x) ** 3

    runs = tp.run(tp.Program(a=tp.moment(dx**2), b=tp.moment(((phi(x + e * d) - phi(x)) / e) ** 2)), n=1000, seeds=3)
    np.testing.assert_allclose(runs["a"], runs["b"], rtol=1e-11)


def test_a_step_that_stays_is_a_difference():
    s, x, d = tp.Scalar("s", 2), tp.Vector("x", n), tp.Vector("d", n)
    p = tp.Program(
        a=tp.moment(tp.divided_difference(tp.tanh, x, d, s) ** 2),
        b=tp.moment(((tp.tanh(x + s * d) - tp.tanh(x)) / s) ** 2),
    )
    found = tp.limit(p)
    assert abs(found["a"].value - found["b"].value) <= 1e-12


def test_linear_instructions_pass_increments_on():
    z = tp.Vector("z", n, axes={"t": 3})
    d = tp.Vector("d", n, axes={"t": 3})
    W = tp.Matrix("W", n, n)
    e = tp.inverse_sqrt(n)

    def linear(z):
        return W @ tp.sum(z, "t") + 2 * tp.take(z, "t", 1)

    assert tp.Program(q=tp.moment(tp.divided_difference(linear, z, d, e) ** 2)) == tp.Program(
        q=tp.moment(linear(d) ** 2)
    )
    zero = tp.divided_difference(lambda z: tp.tanh(d), z, d, e)
    assert zero.node.is_zero
    assert tp.divided_difference(lambda z: 3 + 0 * z, z, d, e).node.is_zero


def test_what_has_no_difference_is_refused():
    x, d = tp.Vector("x", n), tp.Vector("d", n)
    e = tp.inverse_sqrt(n)
    for phi in (tp.sign, tp.step):
        with refused("jumps"):
            tp.divided_difference(phi, x, d, e)
    with refused("increments"):
        tp.divided_difference(lambda a, b: a * b, [x, d], [d], e)
    with refused("step"):
        tp.divided_difference(tp.tanh, x, d, x)
    with refused("axes"):
        tp.divided_difference(tp.tanh, x, tp.Vector("z", n, axes={"t": 2}), e)
    with pytest.raises(tp.TensorProgramError):
        tp.divided_difference(lambda x: tp.outer(lambda a, b: a * b, x, x), x, d, e)
    for text in (
        "difference(sign, x, x, 1)",
        "difference(tanh, x, x, x)",
        "difference(tanh, x, 1)",
        "difference(elu, x, x, 1)",
    ):
        with pytest.raises(tp.TensorProgramError):
            tp.parse(f"width n\nvector x : n\noutput q = Moment({text})")


def test_increments_of_two_arguments():
    """A product rule that is exact at every step: f g moves to (f + e df)(g + e dg)."""
    x, y, a, b = (tp.Vector(name, n) for name in "xyab")
    e = tp.inverse_sqrt(n)
    moved = tp.divided_difference(lambda x, y: x * y, [x, y], [a, b], e)
    whole = tp.Program(q=tp.moment((moved - (a * y + x * b + e * a * b)) ** 2))
    assert np.all(np.abs(tp.run(whole, n=500, seeds=2)["q"]) < 1e-28)
    assert math.isclose(float(tp.limit(tp.Program(q=tp.moment(moved**2)))["q"].value), 2)
