"""Jumps met exactly are refused; what is at the jump at every width, and what only comes near it, is not.

That the limits which are refused would be wrong is tested at width, for one member of every kind.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.language.node import topological
from tensorprog.limits.evaluate.scalar import one_sampling_cost
from tensorprog.limits.expect.lower import Lowering
from tensorprog.limits.jumps import check
from tensorprog.limits.jumps.check import suspects

n = tp.Width("n")
W = tp.Matrix("W", n, n)
a, b, g, h, x, z = [tp.Vector(name, n) for name in "abghxz"]
zero = tp.Vector("zero", n, var=0)
m = tp.moment
theta = m(g * z)  # tends to 0 like n^-1/2
centred = m(tp.tanh(x) * x) - m(1 - tp.tanh(x) ** 2)  # 0 by Stein's lemma: known by quadrature
u = tp.Vector("u", n, axes={"i": 3}, cov=np.array([[1, 0, 0.5], [0, 1, 0.2], [0.5, 0.2, 1.0]]))
rademacher = tp.Vector("r", n, distribution="rademacher")

MET = {
    "step of a scalar times a vector": (lambda: m(tp.step(theta * h) * h), None),
    "sign of a scalar": (lambda: tp.sign(theta) ** 2, 1),
    "a vector that is 0 half of the time": (lambda: m(tp.sign(tp.relu(b) * a + m(a)) ** 2), 1),
    "a power of n beside relu": (lambda: m(tp.step(tp.inverse_sqrt(n) + tp.relu(x))), 1),
    "OuterNonlin": (lambda: m(tp.sign(tp.outer(lambda a, b: a * b, a, b)) ** 2), 1),
    "OuterNonlin, half of the time": (lambda: m(tp.sign(tp.outer(lambda a, b: tp.relu(a) + b, a, b)) ** 2), 1),
    "inside an OuterNonlin": (lambda: m(tp.outer(lambda a, b: tp.sign(a * b * theta) ** 2, a, b)), 1),
    "a matrix product": (lambda: m(tp.sign(W @ (theta * h)) ** 2), 1),
    "a difference of matrix products": (lambda: m(tp.sign(W @ (x + theta * h) - W @ x) ** 2), 1),
    "a cube": (lambda: m(tp.sign(theta**3 * h) ** 2), 1),
    "a variance in floats": (lambda: m(tp.sign((m(x * x) * 0.1 * 3 - 0.3) * h) ** 2), 1),
    "by quadrature": (lambda: m(tp.sign(centred * h) ** 2), 1),
    "a random sign": (lambda: m(tp.sign(rademacher**2 - 1 + theta * z) ** 2), 1),
    "the derivative of abs": (lambda: m(tp.sign(abs(theta * h)) ** 2), 1),
    "along an axis": (lambda: m(tp.sign(m(u * tp.rename(u, i="j")) * h) ** 2), np.ones((3, 3))),
    "a scalar along an axis": (lambda: tp.sign(m(u * tp.rename(u, i="j"))) ** 2, np.ones((3, 3))),
    "far in the tail": (lambda: m(tp.sign(tp.relu(b + 4) * a + m(a)) ** 2), 1),
}


@pytest.mark.parametrize("name", MET)
def test_met_exactly(name: str) -> None:
    build, at_width = MET[name]
    p = tp.Program(q=build())
    for method in ("auto", "population"):
        with pytest.raises(tp.TensorProgramError, match=r"undetermined.*at the jump") as refused:
            tp.limit(p, method=method)
        assert refused.value.source is not None
    assert tp.check_regularity(p).covered is False
    if at_width is not None:
        value = np.asarray(tp.run(p, n=60, seeds=3)["q"])
        assert np.array_equal(value, np.broadcast_to(at_width, value.shape))


FINE = {
    "a scalar away from 0": (lambda: m(tp.step(m(x * x) * h)), Fraction(1, 2)),
    "0 half of the time, at every width": (lambda: m(tp.step(tp.relu(h) * m(x * x))), 0.75),
    "0 where a threshold says": (lambda: m(tp.step(tp.relu(h - m(x * x)) * m(h**4))), 0.5793276269657285),
    "0 where a threshold found by sampling says": (
        lambda: m(tp.step(tp.relu(h - m(tp.tanh(x + h + a + b + g) ** 2)))),
        None,
    ),
    "a zero vector": (lambda: m(tp.step((W @ zero) * m(x * x))), Fraction(1, 2)),
    "a zero vector times a scalar of limit 0": (lambda: m(tp.step(zero * theta)), Fraction(1, 2)),
    "one position of limit 0": (
        lambda: m(tp.step(m(x * x) * tp.Vector("v", n, axes={"i": 2}, cov=np.array([[0, 0], [0, 1]])))),
        np.array([Fraction(1, 2), Fraction(1, 2)]),
    ),
    "times 0": (lambda: m(theta * tp.step(theta * h)), 0),
    "a smooth function": (lambda: m(tp.tanh(theta * h)), 0),
    "beside the jump": (lambda: m(tp.step(1 + theta * h)), 1),
    "moved": (lambda: m(tp.step(theta + x)), Fraction(1, 2)),
    "so far out that tanh is 1 to all digits": (lambda: m(tp.sign((1 + theta) * tp.tanh(a) - tp.tanh(b)) ** 2), 1),
    "OuterNonlin, 0 at every width": (lambda: m(tp.sign(tp.outer(lambda a, b: tp.relu(a) * b**2, a, b)) ** 2), 0.5),
    "a power of n": (lambda: tp.step(tp.inverse_sqrt(n)), 1),
    "from below": (lambda: tp.step(-tp.inverse_sqrt(n)), 0),
    "exp(-n)": (lambda: m(tp.exp(-1 / tp.inverse_sqrt(n) ** 2) * x * x), 0),
    "a root that vanishes": (lambda: tp.sqrt(theta**2), 0),
}


@pytest.mark.parametrize("name", FINE)
def test_not_met(name: str) -> None:
    build, value = FINE[name]
    found = tp.limit(tp.Program(q=build()))["q"]
    if isinstance(value, float):
        assert abs(float(found) - value) <= max(found.error, 1e-15)
    elif value is not None:
        assert np.all(np.asarray(found.value) == value)


SINGULAR = {
    "reciprocal": lambda: 1 / theta,
    "reciprocal, in floats": lambda: 1 / (m(x * x) * 0.1 * 3 - 0.3),
    "reciprocal, by quadrature": lambda: 1 / centred,
    "logarithm": lambda: tp.log(m(x * x) - 1),
    "log1p": lambda: tp.log1p(m(x) - m(h * h)),
    "root": lambda: tp.sqrt(theta),
    "root, by quadrature": lambda: tp.sqrt(centred),
    "1/(n^-1/2 + relu)": lambda: m(1 / (tp.inverse_sqrt(n) + tp.relu(x))),
    "log(n^-1/2 + relu)": lambda: m(tp.log(tp.inverse_sqrt(n) + tp.relu(x))),
    "1/(n^-1/2 exp)": lambda: m(1 / (tp.inverse_sqrt(n) * tp.exp(x))),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_what_tends_to_0_has_no_reciprocal_root_or_logarithm(name: str) -> None:
    with pytest.raises(tp.TensorProgramError, match=r"whose limit is|can be"):
        tp.limit(tp.Program(q=SINGULAR[name]()))


def test_networks() -> None:
    inputs = tp.Input("x")

    def attends(f: object) -> tp.Network:
        hidden = tp.dense("U", inputs, n)
        score = m(tp.dense("K", hidden, n) * tp.dense("Q", hidden, n))  # tends to 0
        return tp.Network(tp.readout("v", f(score * hidden)))  # type: ignore[operator]

    X = [[1.0, 2.0], [0.0, 1.0], [0.0, 0.0]]
    with pytest.raises(tp.TensorProgramError, match="undetermined"):
        tp.kernel_fn(attends(tp.step))(X)
    with pytest.raises(tp.TensorProgramError, match="undetermined"):
        tp.limit(attends(tp.step), X)
    assert not np.any(tp.kernel_fn(attends(tp.relu))(X).nngp)
    normed = tp.Network(
        tp.readout("v", tp.relu(tp.dense("W", tp.relu(tp.layer_norm(tp.dense("U", inputs, n), eps=0.1)), n)))
    )
    kernel = tp.kernel_fn(normed)(X)
    assert np.all(np.isfinite(kernel.ntk)) and np.isfinite(tp.limit(normed, X)["ntk"].value).all()


def test_programs_without_fluctuating_arguments_cost_nothing() -> None:
    deep = x
    for k in range(20):
        deep = tp.relu(tp.Matrix(f"W{k}", n, n) @ deep)
    assert suspects(tp.Program(q=m(tp.step(deep) * tp.sqrt(1 + m(deep**2)))), {}) == []


def test_what_a_check_samples_is_counted(monkeypatch):
    """A scalar whose integrals would cost too much to be looked at gets some number; exact zeros come out without them."""
    c = tp.vectors(tuple("pqrstuvw"), n, mean=[0.1 * k for k in range(8)], cov=(np.eye(8) + 0.3).tolist())
    costly = m(tp.sigmoid(c[0] * c[1] + c[2] * c[3]) * tp.sigmoid(c[4] * c[5] - c[6] * c[7] + c[0]))
    scalar = Lowering(tp.Program(c=costly), {}).z[costly.node]
    assert sum(one_sampling_cost(y, 1) for y in topological([scalar])) > 0
    assert 0 < check._numbers([scalar])[scalar][0] < 1
    monkeypatch.setattr(check, "SAMPLED", 0.0)
    assert 1 <= check._numbers([scalar])[scalar][0] < 2
