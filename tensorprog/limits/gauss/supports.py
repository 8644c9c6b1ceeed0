"""Where an integrand is not zero, as far as that is known for certain: intervals of single variables.

A product of steps and relus lives where all their arguments are positive. An argument of one variable is followed back through
what can be inverted (multiples, shifts, powers, abs, monotone functions); anything else restricts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

__all__ = ["Intervals", "preimage", "supports"]

Intervals = tuple[tuple[float, float], ...]
"""Disjoint open intervals, in order."""
LINE: Intervals = ((-math.inf, math.inf),)
POSITIVE: Intervals = ((0.0, math.inf),)
REACH = 1e18
"""Arguments beyond this are infinite."""
BELLS = ("gaussian", "gauss_exp", "bump", "sech2")
"""Even functions that fall with the distance from 0."""


def supports(body: Node, parameters: Sequence[float]) -> dict[int, Intervals]:
    """Outside of which intervals of each variable an integrand is zero; variables that are not restricted are left out.

    Args:
        body: Over nodes `var` and `param`.
        parameters: A number for each `param`.

    Example:
        >>> from tensorprog.language import algebra
        >>> z = Node("var", (), 0)
        >>> supports(algebra.fn("relu", algebra.sub(algebra.constant(4), algebra.power(z, 2))), [])
        {0: ((-2.0, 2.0),)}
    """
    while body.op == "add" and len(body.args) == 1:
        (body,) = body.args
    found: dict[int, Intervals] = {}
    for a in body.args if body.op == "mul" else (body,):
        variables = {x.attr for x in topological([a]) if x.op == "var"}
        if len(variables) == 1:
            (i,) = variables
            found[i] = _meet(found.get(i, LINE), _support(a, parameters))
    return {i: s for i, s in sorted(found.items()) if s != LINE}


def _support(x: Node, parameters: Sequence[float]) -> Intervals:
    """A set outside of which a function of one variable is zero."""
    if x.op == "mul":
        out = LINE
        for a in x.args:
            out = _meet(out, _support(a, parameters))
        return out
    if x.op == "add":
        out = ()
        for a in x.args:
            out = _join(out, _support(a, parameters))
        return out
    if x.op == "fn" and x.attr.name in ("step", "relu"):
        found = preimage(x.args[0], POSITIVE, parameters)
        return LINE if found is None else found
    return LINE


def preimage(x: Node, target: Intervals, parameters: Sequence[float]) -> Intervals | None:
    """The values of its one variable for which an expression lies in a set; None where this is not known.

    Boundaries are the float next to the true one, or the true one.
    """
    while x.op != "var":
        if not target:
            return ()
        random = [a for a in x.args if any(y.op == "var" for y in topological([a]))]
        if len(random) != 1:
            return None
        (y,) = random
        rest = [_number(a, parameters) for a in x.args if a is not y]
        if any(r is None for r in rest):
            return None
        numbers = [r for r in rest if r is not None]
        if x.op == "add":
            coefficients = [float(c) for c in x.attr]
            c = coefficients[x.args.index(y)]
            others = [k for k, a in zip(coefficients, x.args, strict=True) if a is not y]
            shift = sum([k * r for k, r in zip(others, numbers, strict=True)])
            target = _scaled(tuple([(a - shift, b - shift) for a, b in target]), c)
        elif x.op == "mul":
            powers = list(x.attr)
            k = powers[x.args.index(y)]
            others_k = [j for j, a in zip(powers, x.args, strict=True) if a is not y]
            factor = math.prod([r**j for r, j in zip(numbers, others_k, strict=True)])
            if factor == 0 or not math.isfinite(factor):
                return None
            target = _roots(_scaled(target, factor), k)
        elif x.op == "fn":
            name, given = x.attr
            row = PRIMITIVES[name]
            if name == "abs":
                target = _mirrored(target)
            elif row.monotone:
                low = -REACH if row.domain is None else max(-REACH, row.domain[0])
                target = _inverted(target, lambda v, row=row, given=given: _value(row, v, given), low)
            elif name in BELLS and not (name == "bump" and given[0] == 0):
                fall = lambda v, row=row, given=given: -_value(row, v, given)  # noqa: E731
                target = _mirrored(_inverted(_scaled(target, -1.0), fall, 0.0))
            else:
                return None
        else:
            return None
        x = y
    return target


def _value(row: object, v: float, given: Sequence[object]) -> float:
    with np.errstate(all="ignore"):
        return float(row.array(np.float64(v), *given))  # type: ignore[attr-defined]


def _number(x: Node, parameters: Sequence[float]) -> float | None:
    if x.op == "param":
        return float(parameters[x.attr])
    if x.op == "constant" and np.ndim(x.attr) == 0:
        return float(x.attr)
    return None


def _scaled(s: Intervals, c: float) -> Intervals:
    """{v : c v in s}."""
    ends = [(a / c, b / c) if c > 0 else (b / c, a / c) for a, b in s]
    return tuple(sorted(ends))


def _roots(s: Intervals, k: int) -> Intervals:
    """{v : v^k in s}."""

    def root(v: float) -> float:
        return math.copysign(abs(v) ** (1 / k), v)

    if k % 2:
        return tuple([(root(a), root(b)) for a, b in s])
    return _mirrored(tuple([(root(max(a, 0.0)), root(b)) if a >= 0 else (-1.0, root(b)) for a, b in s if b > 0]))


def _mirrored(s: Intervals) -> Intervals:
    """{v : |v| in s}."""
    out: Intervals = ()
    for a, b in s:
        if b > 0:
            out = _join(out, ((-b, b),) if a < 0 else ((-b, -a), (a, b)))
    return out


def _inverted(s: Intervals, f: object, low: float) -> Intervals:
    """{v > low : f(v) in s} for a function that does not decrease."""
    out = []
    for a, b in s:
        left = -math.inf if a == -math.inf else _first(lambda v, a=a: f(v) > a, low)  # type: ignore[operator]
        right = math.inf if b == math.inf else _first(lambda v, b=b: f(v) >= b, low)  # type: ignore[operator]
        if left < right:
            out.append((left, right))
    return tuple(out)


def _first(holds: object, low: float) -> float:
    """Where a condition that stays true begins; plus or minus infinity outside of what is looked at."""
    a, b = low, REACH
    if holds(a):  # type: ignore[operator]
        return -math.inf if low == -REACH else low
    if not holds(b):  # type: ignore[operator]
        return math.inf
    for _ in range(140):  # bisection of the floats, in the logarithm where the ends are far apart
        if a < 0 < b:
            middle = 0.0
        elif min(abs(a), abs(b)) > 0 and abs(math.log(abs(b) / abs(a))) > 1:
            middle = math.copysign(math.sqrt(abs(a)) * math.sqrt(abs(b)), a + b)
        else:
            middle = (a + b) / 2 if a and b else math.copysign(max(abs(a), abs(b)) * 1e-3, a + b)
        if not a < middle < b or abs(b - a) < 1e-300:
            break
        if holds(middle):  # type: ignore[operator]
            b = middle
        else:
            a = middle
    return b


def _meet(s: Intervals, t: Intervals) -> Intervals:
    pairs = [(max(a, c), min(b, d)) for a, b in s for c, d in t]
    return tuple(sorted([(a, b) for a, b in pairs if a < b]))


def _join(s: Intervals, t: Intervals) -> Intervals:
    out: list[tuple[float, float]] = []
    for a, b in sorted([*s, *t]):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return tuple(out)
