"""Nonlinear functions of coordinates, as users call them: one line for each row of `functions.py`, and what is made of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.deferred import layer
from tensorprog.language.expression import Expression, as_expression, elementwise
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.symbols import Number, number

__all__ = [
    "abs", "arctan", "check_domain", "cos", "elu", "erf", "exp", "gaussian", "gelu", "hermite", "identity", "leaky_relu",
    "log", "log1p", "normal_cdf", "polynomial", "reciprocal", "rectified_power", "relu", "sigmoid", "sign", "silu", "sin",
    "softplus", "sqrt", "step", "tanh",
]  # fmt: skip


def _activation(name: str, what: str = "") -> Callable[[Any], Expression]:
    row = PRIMITIVES[name]

    @layer
    def apply(x: Any) -> Expression:
        x = as_expression(x)
        if row.domain is not None and x.node.op == "constant":
            check_domain(name, x)
        return elementwise(lambda node: algebra.fn(name, node), x)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"""{what or name}, elementwise, of a vector or a scalar.

    Example:
        >>> import tensorprog as tp
        >>> tp.{name}(tp.Vector("x", tp.Width("n"), mean=1, var=0))
        <{name}(x): vector of width n>
    """
    return apply


def check_domain(name: str, x: Expression) -> None:
    """Refuses numbers at which the function has no value."""
    values = np.asarray(x.node.attr, dtype=float)
    bad = PRIMITIVES[name].refused(values)
    if np.any(bad):
        raise TensorProgramError(
            f"{name} of {values[bad].flat[0] if values.ndim else values}", fix="keep the argument in its domain"
        )


relu = _activation("relu", "max(x, 0)")
abs = _activation("abs", "|x|")
sign = _activation("sign", "The sign, 0 at 0")
step = _activation("step", "1 for x > 0, 0 for x < 0, 1/2 at 0 (the derivative of relu)")
erf = _activation("erf", "The error function")
normal_cdf = _activation("normal_cdf", "The normal distribution function")
gelu = _activation("gelu", "x Phi(x)")
tanh = _activation("tanh")
sigmoid = _activation("sigmoid", "1/(1 + exp(-x))")
softplus = _activation("softplus", "log(1 + exp(x))")
silu = _activation("silu", "x sigmoid(x)")
sin = _activation("sin")
cos = _activation("cos")
exp = _activation("exp", "exp (allowed, and outside the Master Theorem as proven)")
gaussian = _activation("gaussian", "exp(-x^2)")
arctan = _activation("arctan")
log = _activation("log", "The natural logarithm, where the argument is positive")
log1p = _activation("log1p", "log(1 + x), where x > -1")
sqrt = _activation("sqrt", "The square root, where the argument is not negative")
reciprocal = _activation("reciprocal", "1/x, where x is not 0")


@layer
def leaky_relu(x: Any, slope: Number = Fraction(1, 100)) -> Expression:
    """x for x > 0, slope x below.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"))
        >>> tp.limit(tp.Program(q=tp.moment(tp.leaky_relu(x, 0.5) ** 2)))["q"].value
        0.625
    """
    slope = number(slope, "the slope")
    return elementwise(lambda node: algebra.fn("leaky_relu", node, slope), x)


@layer
def elu(x: Any, alpha: Number = 1) -> Expression:
    """x for x > 0, alpha (exp(x) - 1) below.

    Example:
        >>> import tensorprog as tp
        >>> tp.elu(tp.Vector("x", tp.Width("n")))
        <elu(x): vector of width n>
    """
    alpha = number(alpha, "alpha")
    return elementwise(lambda node: algebra.fn("elu", node, alpha), x)


@layer
def rectified_power(x: Any, k: int) -> Expression:
    """x^k for x > 0, 0 below: `step` for k = 0, `relu` for k = 1.

    Example:
        >>> import tensorprog as tp
        >>> tp.limit(tp.Program(m=tp.moment(tp.rectified_power(tp.Vector("x", tp.Width("n")), 2))))
        m = 1/2 (exact)
    """
    if not isinstance(k, int) or k < 0:
        raise TensorProgramError(f"a rectified power with exponent {k!r}", fix="use an integer of at least 0")
    return relu(x) ** k if k else step(x)


@layer
def identity(x: Any) -> Expression:
    """x itself.

    Example:
        >>> import tensorprog as tp
        >>> tp.identity(tp.Vector("x", tp.Width("n")))
        <x: vector of width n>
    """
    return as_expression(x)


@layer
def polynomial(x: Any, coefficients: Sequence[Number]) -> Expression:
    """c_0 + c_1 x + c_2 x^2 + ...

    Example:
        >>> import tensorprog as tp
        >>> tp.limit(tp.Program(m=tp.moment(tp.polynomial(tp.Vector("x", tp.Width("n")), [1, 0, 2]))))
        m = 3 (exact)
    """
    cs = [number(c, "a coefficient") for c in coefficients]
    return elementwise(lambda node: algebra.add([(c, algebra.power(node, k)) for k, c in enumerate(cs)]), x)


@layer
def hermite(x: Any, k: int, normalized: bool = False) -> Expression:
    """The probabilists' Hermite polynomial He_k(x): 1, x, x^2 - 1, ..; `normalized` divides by sqrt(k!).

    Example:
        >>> import tensorprog as tp
        >>> h = tp.hermite(tp.Vector("x", tp.Width("n")), 4)
        >>> tp.limit(tp.Program(mean=tp.moment(h), norm=tp.moment(h * h)))
        mean = 0 (exact)
        norm = 24 (exact)
    """
    if not isinstance(k, int) or k < 0:
        raise TensorProgramError(f"a Hermite polynomial of degree {k!r}", fix="use an integer of at least 0")
    before, cs = [0], [1]
    for j in range(k):  # He_{j+1} = x He_j - j He_{j-1}
        after = [0, *cs]
        for i, c in enumerate(before):
            after[i] -= j * c
        before, cs = cs, after
    out = polynomial(x, cs)
    factorial = 1
    for j in range(2, k + 1):
        factorial *= j
    return out * sqrt(factorial) ** -1 if normalized else out
