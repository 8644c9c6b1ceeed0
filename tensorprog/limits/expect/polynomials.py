"""Bounds of polynomials: x - x^2/2 is at most 1/2 and x^2 - 2 x + 2 at least 1, which interval arithmetic cannot see.

Sums and products are written out as polynomials in what they are made of. Parts that share nothing are bounded one by one: in
one variable by the roots of the derivative (relu, abs and the like of it on either side of 0, bounded functions of anything as
intervals), quadratic ones in several by completing the square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node

__all__ = ["interval_product", "polynomial_bounds", "power", "root_of_square"]

INF = math.inf
MANY = 60
HIGHEST = 12
ROUNDING = 1e-11
"""A bound within this share of the size of the terms is 0."""

Monomial = tuple[tuple[Node, int], ...]
Polynomial = dict[Monomial, float]
Interval = tuple[float, float]
SIDES: dict[str, Callable[[int, tuple[Any, ...]], tuple[float, int]]] = {
    "relu": lambda side, _: (float(side > 0), 1),
    "abs": lambda side, _: (float(side), 1),
    "leaky_relu": lambda side, p: (1.0 if side > 0 else float(p[0]), 1),
    "sign": lambda side, _: (float(side), 0),
    "step": lambda side, _: (float(side > 0), 0),
}
"""What a function is on either side of 0: (coefficient, power)."""


def polynomial_bounds(x: Node, interval: Callable[[Node], Interval]) -> Interval | None:
    """(low, high) of a sum or product of vectors; None where it is no polynomial worth the name.

    Args:
        x: The node.
        interval: The interval of what it is made of.
    """
    written = _written_out(x, {})
    if written is None or max([sum([k for _, k in m]) for m in written], default=0) < 2:
        return None
    low = high = written.get((), 0.0)
    size = abs(low)
    for part in _parts(written):
        found = _bounds(part, interval)
        if found is None:
            return None
        low, high = low + found[0], high + found[1]
        size += sum([abs(c) for c in part.values()])
    return tuple([0.0 if abs(v) <= ROUNDING * size else v for v in (low, high)])  # type: ignore[return-value]


def root_of_square(x: Node) -> Node | None:
    """|a.y + c| where x is (a.y + c)^2 written out, whose root has a kink along a line; None where it is no such square.

    Args:
        x: A sum or product of vectors y.

    Example:
        >>> import tensorprog as tp
        >>> x, y = tp.Vector("x", tp.Width("n")), tp.Vector("y", tp.Width("n"))
        >>> root_of_square((x * x + 2 * x * y + y * y).node) == tp.abs(x + y).node
        True
    """
    written = _written_out(x, {})
    if written is None or any(sum([k for _, k in m]) > 2 for m in written):
        return None
    names = [None, *dict.fromkeys(y for m in written for y, _ in m)]
    form = np.zeros((len(names), len(names)))
    for m, c in written.items():
        i, j = ([names.index(y) for y, k in m for _ in range(k)] + [0, 0])[:2]
        form[i, j] += c / 2
        form[j, i] += c / 2
    pivot = int(np.argmax(np.diagonal(form)))
    if form[pivot, pivot] <= 0:
        return None
    line = form[pivot] / math.sqrt(form[pivot, pivot])
    size = np.sqrt(np.abs(np.diagonal(form)))  # entry by entry: x^2 + 1e-16 is no square
    if (np.abs(form - np.outer(line, line)) > 4 * np.finfo(float).eps * np.outer(size, size)).any():
        return None
    terms = [
        (int(c) if c.is_integer() else float(c), algebra.ONE if y is None else y)
        for c, y in zip(line, names, strict=True)
    ]
    return algebra.typed(algebra.fn("abs", algebra.add([t for t in terms if t[0]])), x.shape, x.width, x.inner)


def _written_out(x: Node, done: dict[Node, Polynomial | None]) -> Polynomial | None:
    """Monomials and coefficients; None where they are too many."""
    todo = [x]
    while todo:
        y = todo[-1]
        if y in done:
            todo.pop()
            continue
        parts = [a for a in y.args if a not in done] if y.op in ("add", "mul") else []
        if parts and len(todo) < MANY:
            todo += parts
            continue
        todo.pop()
        done[y] = _one(y, done)
    return done[x]


def _one(y: Node, done: dict[Node, Polynomial | None]) -> Polynomial | None:
    if y.op == "constant" and not isinstance(y.attr, np.ndarray):
        try:
            return {(): float(y.attr)}
        except OverflowError:
            return None
    parts = [done.get(a) for a in y.args] if y.op in ("add", "mul") else []
    if not parts or any(p is None for p in parts):
        return {((y, 1),): 1.0}
    out: Polynomial = {}
    try:
        if y.op == "add":
            for c, p in zip(y.attr, parts, strict=True):
                for m, d in (p or {}).items():
                    out[m] = out.get(m, 0.0) + float(c) * d
        else:
            out = {(): 1.0}
            for k, p in zip(y.attr, parts, strict=True):
                for _ in range(k if k <= HIGHEST else 0):
                    out = _product(out, p or {})
                    if len(out) > MANY:
                        return {((y, 1),): 1.0}
                if k > HIGHEST:
                    return {((y, 1),): 1.0}
    except OverflowError:
        return None
    return {m: c for m, c in out.items() if c} if len(out) <= MANY else {((y, 1),): 1.0}


def _product(p: Polynomial, q: Polynomial) -> Polynomial:
    out: Polynomial = {}
    for m, c in p.items():
        for n, d in q.items():
            powers = dict(m)
            for g, k in n:
                powers[g] = powers.get(g, 0) + k
            key = tuple(sorted(powers.items(), key=lambda f: f[0].digest))
            out[key] = out.get(key, 0.0) + c * d
    return out


def _base(g: Node) -> tuple[Node, int]:
    """What a function with a side is a function of, and the sign of its factor; other nodes themselves."""
    if g.op == "fn" and g.attr.name in SIDES:
        y, sign = g.args[0], 1
        if y.op == "add" and len(y.args) == 1 and y.args[0].width is not None:
            sign, y = (1 if y.attr[0] > 0 else -1), y.args[0]
        return y, sign
    return g, 1


def _parts(written: Polynomial) -> list[Polynomial]:
    """Polynomials without a variable in common, the constant left out."""
    groups: list[tuple[set[Node], Polynomial]] = []
    for m, c in written.items():
        if not m:
            continue
        mine = {_base(g)[0] for g, _ in m}
        joined: Polynomial = {m: c}
        apart = []
        for bases, part in groups:
            if bases & mine:
                mine, joined = mine | bases, {**part, **joined}
            else:
                apart.append((bases, part))
        groups = [*apart, (mine, joined)]
    return [part for _, part in groups]


def _bounds(part: Polynomial, interval: Callable[[Node], Interval]) -> Interval | None:
    generators = {g for m in part for g, _ in m}
    bounded = {g for g in generators if all(map(math.isfinite, interval(g)))}
    bases = {_base(g)[0] for g in generators}
    if len(bases) == 1:
        return _in_one(part, next(iter(bases)), set(), interval)
    bases = {_base(g)[0] for g in generators - bounded}
    if len(bases) == 1:
        return _in_one(part, next(iter(bases)), bounded, interval)
    if not bounded and generators == bases and max([sum([k for _, k in m]) for m in part]) <= 2:
        return _quadratic(part, sorted(generators, key=lambda g: g.digest))
    low = high = 0.0
    for m, c in part.items():
        a, b = interval_product((c, c), _monomial(m, interval))
        low, high = low + a, high + b
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def _monomial(m: Monomial, interval: Callable[[Node], Interval]) -> Interval:
    out: Interval = (1.0, 1.0)
    for g, k in m:
        a, b = interval(g)
        ends = [power(a, k), power(b, k)]
        here = (min(ends), max(ends)) if k % 2 or a >= 0 or b <= 0 else (0.0, max(ends))
        out = interval_product(out, here)
    return out


def power(v: float, k: int) -> float:
    """v^k, infinite where it leaves the range of floats."""
    try:
        return v**k
    except OverflowError:
        return math.copysign(INF, v) if k % 2 else INF


def _in_one(part: Polynomial, base: Node, bounded: set[Node], interval: Callable[[Node], Interval]) -> Interval | None:
    """Of a polynomial in one variable, with coefficients in intervals, on either side of 0."""
    a, b = interval(base)
    low, high = INF, -INF
    for side in (-1, 1):
        start, stop = (max(a, 0.0), b) if side > 0 else (a, min(b, 0.0))
        if start > stop:
            continue
        least, most = dict[int, float](), dict[int, float]()
        for m, c in part.items():
            power, coefficient = 0, (c, c)
            for g, k in m:
                if g in bounded and _base(g)[0] != base:
                    coefficient = interval_product(coefficient, _monomial(((g, k),), interval))
                elif g == base:
                    power += k
                else:
                    factor, one = SIDES[g.attr.name](side * _base(g)[1], g.attr.parameters)
                    slope = abs(float(g.args[0].attr[0])) if g.args[0] != base else 1.0
                    signed = slope * (_base(g)[1] if one else 1)
                    coefficient = interval_product(coefficient, ((factor * signed**one) ** k,) * 2)
                    power += k * one
            turned = side < 0 and power % 2  # t^k is negative here
            least[power] = least.get(power, 0.0) + coefficient[1 if turned else 0]
            most[power] = most.get(power, 0.0) + coefficient[0 if turned else 1]
        low = min(low, _extreme(least, start, stop, -1))
        high = max(high, _extreme(most, start, stop, 1))
    return None if math.isnan(low) or math.isnan(high) or low > high else (low, high)


def interval_product(a: Interval, b: Interval) -> Interval:
    """All products; 0 times what is unbounded is 0."""
    corners = [0.0 if u == 0 or v == 0 else u * v for u in a for v in b]
    return min(corners), max(corners)


def _extreme(powers: Mapping[int, float], start: float, stop: float, sign: int) -> float:
    """The largest value on an interval (sign 1), or the smallest (-1)."""
    degree = max([k for k, c in powers.items() if c], default=0)
    coefficients = np.array([powers.get(k, 0.0) for k in range(degree, -1, -1)])
    if not np.all(np.isfinite(coefficients)):
        return sign * INF
    places = [v for v in (start, stop) if math.isfinite(v)]
    for end in (start, stop):
        if math.isinf(end) and degree:
            leading = coefficients[0] * (1 if end > 0 or degree % 2 == 0 else -1)
            if leading * sign > 0:
                return sign * INF
    if degree > 1:
        roots = np.roots(np.polyder(coefficients))
        real = roots.real[np.abs(roots.imag) <= 1e-6 * (1 + np.abs(roots.real))]
        places += [float(v) for v in real if start <= v <= stop]
    values = [float(np.polyval(coefficients, v)) for v in places]
    if not degree:
        return float(coefficients[0])
    return (max if sign > 0 else min)(values) if values else sign * INF


def _quadratic(part: Polynomial, generators: list[Node]) -> Interval:
    """Of x'Ax + b'x, by completing the square."""
    place = {g: i for i, g in enumerate(generators)}
    a, b = np.zeros((len(place),) * 2), np.zeros(len(place))
    for m, c in part.items():
        if len(m) == 2:
            i, j = place[m[0][0]], place[m[1][0]]
            a[i, j] = a[j, i] = c / 2
        elif m[0][1] == 2:
            a[place[m[0][0]], place[m[0][0]]] = c
        else:
            b[place[m[0][0]]] = c
    values, vectors = np.linalg.eigh(a)
    along = vectors.T @ b
    size = np.abs(values).max()
    flat = np.abs(values) <= ROUNDING * size
    free = bool(np.any(np.abs(along[flat]) > ROUNDING * (np.abs(b).max() + size)))
    rest = -0.25 * float((along[~flat] ** 2 / values[~flat]).sum())
    low = -INF if free or np.any(values[~flat] < 0) else rest
    high = INF if free or np.any(values[~flat] > 0) else rest
    return low, high
