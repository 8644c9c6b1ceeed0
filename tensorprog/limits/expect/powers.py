"""Initial scalars: functions of powers of n, of hyperparameters and of numbers alone, which have a limit as a whole.

Only where such a function ends counts: exp(-n) is made of n, which has no limit, and tends to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import is_exact

__all__ = ["initial_limit", "initial_scalars", "limit_node"]

_ROOTS = ("1e-60", "1e-75")
"""n^-1/2 at two huge reference widths."""
DIGITS = 700
"""So many that eight powers of n^-1/2 may cancel."""
HUGE = 4000
"""Numbers of more bits before the point are infinite to functions."""


def initial_scalars(nodes: Sequence[Node]) -> set[Node]:
    """The nodes, operands first, that are functions of powers of n, hyperparameters and numbers; not of the last two alone."""
    out: set[Node] = set()
    plain: set[Node] = set()
    for x in nodes:
        if x.op in ("constant", "scalar") and x.is_scalar:
            plain.add(x)
        elif x.op == "inverse_sqrt":
            out.add(x)
        elif x.op in ("add", "mul", "fn") and x.is_scalar and all(a in out or a in plain for a in x.args):
            (out if any(a in out for a in x.args) else plain).add(x)
    return out


def initial_limit(x: Node, values: Mapping[str, Any]) -> np.ndarray | None:
    """The limit of an initial scalar, from two huge widths; None where it has none, or a hyperparameter has no value.

    With so many digits that (exp(q) - 1)/q, q = n^-1/2, keeps those that are asked for.
    """
    import mpmath

    if any(y.op == "scalar" and y.attr.name not in values for y in topological([x])):
        return None
    found = []
    with mpmath.workdps(DIGITS):
        for root in _ROOTS:
            done: dict[Node, np.ndarray] = {}
            for y in topological([x]):
                try:
                    done[y] = _value(y, [done[a] for a in y.args], mpmath.mpf(root), values)
                except (
                    ArithmeticError,
                    ValueError,
                    TypeError,
                    MemoryError,
                ):  # no value, a complex one, or out of all range
                    return None
            found.append(np.broadcast_to(done[x], x.shape))
        near, far = found
        if any(abs(u - v) > 1e-9 * (1 + abs(v)) for u, v in zip(near.flat, far.flat, strict=True)):
            return None
        return np.array([0.0 if abs(v) < 1e-30 else float(v) for v in far.flat]).reshape(x.shape)


def _value(y: Node, args: list[np.ndarray], root: Any, values: Mapping[str, Any]) -> np.ndarray:
    """A node as an array of numbers of many digits.

    Raises:
        ValueError, ArithmeticError, TypeError: It has no real value.
    """
    import mpmath

    match y.op:
        case "inverse_sqrt":
            return np.asarray(root / mpmath.sqrt(_precise(y.attr.ratio)), dtype=object)
        case "scalar":
            return _precise_array(values[y.attr.name])
        case "constant":
            return _precise_array(y.attr)
        case "add":
            return np.asarray(sum([_precise(c) * a for c, a in zip(y.attr, args, strict=True)]), dtype=object)
        case "mul":
            return np.asarray(math.prod([a**k for a, k in zip(args, y.attr, strict=True)]), dtype=object)
    name, parameters = y.attr
    call = _function(name, tuple(parameters))

    def at(v: Any) -> Any:
        if mpmath.isfinite(v) and v != 0 and mpmath.mag(v) > HUGE:  # what it is at infinity, if that is a number
            out = mpmath.mpf(float(PRIMITIVES[name].array(np.float64(math.copysign(math.inf, v)), *parameters)))
        else:
            out = mpmath.mpf(call(v))
        if not mpmath.isfinite(out):
            raise ValueError(name)
        return out

    with np.errstate(all="ignore"):
        return np.asarray(np.frompyfunc(at, 1, 1)(args[0]), dtype=object)


def _precise(c: Any) -> Any:
    import mpmath

    return mpmath.mpf(c.numerator) / c.denominator if isinstance(c, Fraction) else mpmath.mpf(c)


def _precise_array(given: Any) -> np.ndarray:
    flat = np.asarray(given, dtype=object)
    out = np.empty(flat.shape, dtype=object)
    out[...] = np.frompyfunc(lambda c: _precise(c if isinstance(c, Fraction) else float(c)), 1, 1)(flat)
    return out


@lru_cache(maxsize=256)
def _function(name: str, parameters: tuple[Any, ...]) -> Callable[[Any], Any]:
    """A primitive of numbers of many digits: its SymPy body."""
    import sympy

    from tensorprog.limits.gauss.precise import FUNCTIONS

    t = sympy.Symbol("t", real=True)
    body = PRIMITIVES[name].sympy(sympy, t, *[sympy.Rational(c) if is_exact(c) else sympy.Float(c) for c in parameters])
    call: Callable[[Any], Any] = sympy.lambdify(t, body, [FUNCTIONS, "mpmath"])
    return call


def limit_node(x: Node, values: Mapping[str, Any]) -> Node | None:
    """`initial_limit` as a constant, exact where it is a whole number or a half (the value of a step at its jump)."""
    value = initial_limit(x, values)
    if value is None:
        return None
    if x.shape:
        return algebra.typed(algebra.constant(np.array(np.broadcast_to(value, x.shape))), x.shape, None, None)
    exact = _exact_root(x)
    if exact is not None:
        return algebra.constant(exact)
    twice = 2 * float(value)
    return algebra.constant(Fraction(int(twice), 2) if twice.is_integer() and abs(twice) < 2**53 else float(value))


def _exact_root(x: Node) -> Fraction | None:
    """What a product of powers of widths tends to, whose powers of n cancel: the root of a rational; None if it is none."""
    if x.op != "mul":
        return None
    square = Fraction(1)
    for a, k in zip(x.args, x.attr, strict=True):
        if not algebra.is_power_of_n(a):
            return None
        width, sign = (a.attr, -1) if a.op == "inverse_sqrt" else (a.args[0].attr, 1)
        if not is_exact(width.ratio):
            return None
        square *= Fraction(width.ratio) ** (sign * k)
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    return root if root * root == square else None
