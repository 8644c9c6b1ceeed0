"""Floats that are folded while a program is lowered: their rounding is in the errors stated."""

from fractions import Fraction

import mpmath
import pytest
from marks import few

import tensorprog as tp
from tensorprog.limits.expect.lower import Lowering

n = tp.Width("n")
x = tp.Vector("x", n)


def logistic(c, steps, rate=3.9):
    for _ in range(steps):
        c = rate * c * (1 - c)
    return c


def exactly(start, steps, rate=3.9):
    with mpmath.workdps(60):
        return logistic(mpmath.mpf(start), steps, mpmath.mpf(rate))


@pytest.mark.parametrize("steps", few([10, 30, 50], [30]))
@pytest.mark.parametrize(
    "start",
    [
        lambda: (tp.Scalar("c", 0.3), 0.3),
        lambda: (0.3 * tp.moment(x * x), 0.3),
        lambda: (tp.moment(tp.sigmoid(x)) * 0.6, None),
    ],
    ids=["hyperparameter", "multiple of a Moment", "an integral"],
)
def test_numbers_fed_back_state_what_rounding_did(start, steps):
    c, number = start()
    program = tp.Program(
        r=logistic(c, steps), q=logistic(c, steps) * tp.moment(x * x), s=tp.moment((logistic(c, steps) * x) ** 2)
    )
    found = tp.limit(program)
    truth = exactly(0.3 if number is None else number, steps)
    for name, right in {"r": truth, "q": truth, "s": truth**2}.items():
        error = abs(float(found[name].value - right))
        assert error <= found[name].error, name
        assert found[name].error < 1e5 * max(error, 1e-15), name


def test_what_cancels_says_so():
    d = tp.Scalar("d", 0.1)
    found = tp.limit(tp.Program(q=(3 * d - 0.3) * tp.moment(x * x), r=d + 0.2 - 0.3))
    for e in found.values():
        assert abs(e.value) <= 1e-16 and 1e-17 < e.error < 1e-14


def test_rationals_are_exact_and_short_products_are_lowered_once(monkeypatch):
    made = []
    init = Lowering.__init__
    monkeypatch.setattr(Lowering, "__init__", lambda self, *a, **k: (made.append(1), init(self, *a, **k))[1])
    c = tp.Scalar("c", Fraction(3, 10))
    found = tp.limit(tp.Program(r=logistic(c, 3, Fraction(39, 10))))
    assert found["r"].method == "exact" and len(made) == 1
    tp.limit(tp.Program(r=tp.Scalar("eta", 0.1) ** 2 * 0.3 * tp.moment(x * x) + tp.moment(tp.tanh(x) ** 2)))
    assert len(made) == 2
