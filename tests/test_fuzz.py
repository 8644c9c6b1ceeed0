"""Whatever is asked for, the answer is a number or one TensorProgramError: random expressions, and texts with mistakes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.execute.population import PopulationWarning

n = tp.Width("n")
W = tp.Matrix("W", n, n)
x, y = tp.Vector("x", n), tp.Vector("y", n, mean=1, var=Fraction(1, 2))
zero = tp.Vector("zero", n, var=0)
v = tp.Vector("v", n, axes={"t": 3})
FUNCTIONS = [
    tp.relu, tp.abs, tp.sign, tp.step, tp.erf, tp.gelu, tp.tanh, tp.sigmoid, tp.softplus, tp.silu, tp.sin, tp.cos, tp.exp,
    tp.gaussian, tp.arctan, tp.log1p, tp.log, tp.sqrt, tp.reciprocal, tp.elu, tp.leaky_relu, tp.normal_cdf,
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 10, 26, 100, Fraction(1, 3), 0.1, -0.3, 1e-8, 1e8, 1e200, 1e-200]


def expression(rng: np.random.Generator, depth: int) -> tp.Expression:
    """A random vector without axes."""
    kind = rng.integers(10) if depth else 9
    if kind < 5:
        return FUNCTIONS[rng.integers(len(FUNCTIONS))](expression(rng, depth - 1))
    if kind == 5:
        return expression(rng, depth - 1) * expression(rng, depth - 1)
    if kind == 6:
        return expression(rng, depth - 1) + NUMBERS[rng.integers(len(NUMBERS))] * expression(rng, depth - 1)
    if kind == 7:
        return (W if rng.integers(2) else W.T) @ expression(rng, depth - 1)
    if kind == 8:
        one = expression(rng, depth - 1)
        options: list[Callable[[], tp.Expression]] = [
            lambda: one * tp.moment(expression(rng, depth - 1)),
            lambda: one ** int(rng.integers(1, 5)),
            lambda: one / (1 + expression(rng, depth - 1) ** 2),
            lambda: one + NUMBERS[rng.integers(len(NUMBERS))],
            lambda: tp.sum(tp.tanh(v) * one, "t"),
            lambda: tp.sqrt(tp.sum(v * v, "t")) * one,
            lambda: tp.outer(lambda a, b: a * b, one, x),
        ]
        return options[rng.integers(len(options))]()
    return [x, y, W @ x, zero, x * x, tp.take(v, "t", 1), tp.inverse_sqrt(n) * x][rng.integers(7)]


def answers(work: Callable[[], object]) -> None:
    """Does the work; a refusal is an answer, nothing else is."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PopulationWarning)
        try:
            work()
        except tp.TensorProgramError:
            pass


def limited(seed: int) -> None:
    """One random program."""
    rng = np.random.default_rng(seed)

    def work() -> None:
        program = tp.Program(q=tp.moment(expression(rng, int(rng.integers(2, 6)))))
        assert tp.parse(str(program)) == program
        for estimate in tp.limit(program, samples=2**8, replicates=4, budget=0.02).values():
            assert np.isfinite(float(estimate.value)) and float(estimate.error) >= 0
        tp.check_regularity(program)

    answers(work)


TEXT = """width n: ratio 1/2
width m
matrix W : n x m, var 2
vector x : m, mean 0, var 1
vector u[3] : m, mean [0, 1, 0.5], cov [[1, 0, 0], [0, 2, 0.5], [0, 0.5, 1]]
scalar eta: default 0.5
h1 = MatMul(W, x)
c1 = Moment(tanh(eta*h1)**2 + smooth_sign(h1, 1/2)*bump(h1, 2))
x2 = MatMul(W.T, relu(h1) - 2*h1/(h1**2 + 1))
c2 = Moment(leaky_relu(x2, 0.1)*u[i; i:3]*u[j; j:3])
output a = c1 + inverse_sqrt(n)
output b = c1*sum(c2[i, j; i:3, j:3], j)
"""
PIECES = [
    "-1", "0", "1e400", "1e200", "(", ")", "[", "]", "**", "*", "/", "nan", "i", "x", "W", "u", "eta", "Moment(", "-", ",", ";",
    ":", "'", "10**9", "1/0", "sqrt", "log", "bump(x, -1)", "smooth_sign(x, -2)", "var -1", "\n", "#", "relu", "9" * 400,
]  # fmt: skip


def mutated(seed: int) -> None:
    """One text with a few mistakes."""
    rng = np.random.default_rng(seed)
    text = TEXT
    for _ in range(rng.integers(1, 4)):
        i = int(rng.integers(len(text)))
        j = i + int(rng.integers(0, 4))
        text = text[:i] + (PIECES[rng.integers(len(PIECES))] if rng.integers(2) else "") + text[j:]
    answers(lambda: tp.limit(tp.parse(text), samples=2**8, replicates=4, budget=0.02))


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 40])
def test_random_expressions(start: int) -> None:
    for seed in range(start, start + 40):
        limited(seed)


@pytest.mark.parametrize("start", [0, 30])
def test_texts_with_mistakes(start: int) -> None:
    for seed in range(start, start + 30):
        mutated(seed)


def test_a_variance_that_rounding_makes_negative() -> None:
    """sign(0) through weights of variance 1e-16: 0 up to rounding, moved."""
    hidden = tp.sign(tp.dense("U", tp.Input("x"), n))
    hidden = tp.log(tp.sigmoid(tp.dense("W0", hidden, n, W_std=1e-8)))
    hidden = tp.arctan(tp.dense("W1", hidden, n, W_std=0.5))
    net = tp.Network(tp.readout("v", tp.softplus(hidden + abs(hidden))))
    X = [[0.0, 0.0, 0.0], [0.68, 0.82, -1.09], [1.09, -1.02, -0.14]]
    answers(lambda: np.testing.assert_array_equal(np.isfinite(tp.kernel_fn(net)(X).ntk), True))
