"""Gaussian expectations of one and two variables to any number of digits (mpmath).

The trapezoidal rule converges geometrically for functions analytic around the real line (Trefethen & Weideman 2014);
between
kinks, the tanh-sinh substitution makes it so. Steps are halved until two agree. Products f(u) g(v) take Mehler's
formula
`E f g = sum_k rho**k a_k b_k`, a_k and b_k the Hermite coefficients: one-dimensional sums, in fixed point, until
`|rho|**k` times the norms of f and g is negligible (Cauchy-Schwarz). It is an oracle, not an engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import sympy

from tensorprog.errors import TensorProgramError

__all__ = ["FUNCTIONS", "expectation"]

MAX_LEVEL = 8
"""Steps of 2**-level standard deviations are tried up to this level (in one dimension: two more)."""

MAX_DEGREE = 2000
"""Hermite coefficients at most; correlations nearer to +-1 take the two-dimensional rule."""

FUNCTIONS: dict[str, Callable[..., Any]] = {  # in place of SymPy's, for lambdify
    "Heaviside": lambda x, *_: mpmath.mpf(1 if x > 0 else 0 if x < 0 else 0.5),
    "Max": lambda *x: max(x),
    "Min": lambda *x: min(x),
    "Abs": abs,
    "sign": lambda x: mpmath.mpf((x > 0) - (x < 0)),
}
_ROUGH = (sympy.Max, sympy.Min, sympy.Abs, sympy.sign, sympy.Heaviside)


def expectation(body: Any, variables: Sequence[Any], means: Sequence[Any], covariance: Sequence[Any], prec: int) -> Any:
    """E of a SymPy expression of Gaussian variables.

    Args:
        body: The expression, without other symbols.
        variables: Its one or two symbols.
        means: mpmath numbers.
        covariance: mpmath numbers: the lower triangle, row by row.
        prec: Binary digits wanted.

    Returns:
        An mpmath number.

    Raises:
        TensorProgramError: in more than two dimensions, for Dirac deltas, and where the rule does not converge.

    Example:
        >>> z = sympy.Symbol("z", real=True)
        >>> print(mpmath.nstr(expectation(sympy.Abs(z), [z], [mpmath.mpf(0)], [mpmath.mpf(1)], 100), 25))
        0.7978845608028653558798921
    """
    if len(variables) > 2:
        raise TensorProgramError(
            f"an expectation over {len(variables)} Gaussian variables has no evaluation to {int(prec / 3.32)} digits",
            why="nested rules of high precision take hours from three variables on",
            fix="take tp.limit(program): its error is stated, and near rounding up to three variables",
        )
    if body.has(sympy.DiracDelta):
        raise TensorProgramError(
            "the expectation of a Dirac delta", why="it is no function", fix="use the derivative's closed form"
        )
    with mpmath.workprec(prec + 30):
        if len(variables) == 2:
            found = _pair(body, variables, means, covariance, prec)
            if found is not None:
                return found
        rule = _Rule(body, variables, means, covariance)
        tolerance = mpmath.mpf(2) ** (-prec)
        last = None
        for level in range(1, MAX_LEVEL + (3 if rule.rank < 2 else 0)):
            value, size = rule.value(level)
            if rule.rank == 0:
                return value
            if last is not None and _settled(value, last, size, tolerance):
                return value
            last = value
    raise TensorProgramError(
        f"E[{str(body)[:60]}] did not converge to {int(prec / 3.32)} digits",
        why="its integrand is rough where no kink is known, or two variables are nearly one", fix="ask for fewer digits",
    )  # fmt: skip


def _settled(value: Any, last: Any, size: Any, tolerance: Any) -> bool:
    """Is the finer of two values good? Halving the step squares the relative error; the exponent 3/2 leaves room."""
    scale = abs(value) + size * mpmath.mpf(2) ** (-10)
    return not scale or bool((abs(value - last) / scale) ** mpmath.mpf(1.5) <= tolerance)


def _kinks(body: Any, z: Any) -> list[Any]:
    """Where the body is not smooth in one variable."""
    rough = [a for f in body.atoms(*_ROUGH) for a in f.args]
    rough += [
        g.lhs - g.rhs
        for p in body.atoms(sympy.Piecewise)
        for _, c in p.args
        for g in c.atoms(sympy.core.relational.Relational)
    ]
    found = []
    for g in rough:
        slope = g.diff(z)
        if g.free_symbols == {z} and slope.is_number and slope != 0:
            found.append(sympy.N(-g.subs(z, 0) / slope, mpmath.mp.dps)._to_mpmath(mpmath.mp.prec))
    return sorted(set(found))


@cache
def _tanh_sinh(level: int, prec: int) -> list[tuple[Any, Any]]:
    """Nodes and weights on (-1, 1)."""
    with mpmath.workprec(prec):
        h, half = mpmath.mpf(2) ** (-level - 2), mpmath.pi / 2
        out, k = [(mpmath.mpf(0), h * half)], 0
        while True:
            k += 1
            t = h * k
            s = half * mpmath.sinh(t)
            weight = h * half * mpmath.cosh(t) / mpmath.cosh(s) ** 2
            if weight < mpmath.mpf(2) ** (-prec - 5):
                return out
            x = mpmath.tanh(s)
            out += [(x, weight), (-x, weight)]


@cache
def _trapezoid(level: int, prec: int, reach: int) -> list[tuple[Any, Any]]:
    """Nodes and weights of E g(e), e ~ N(0, 1)."""
    with mpmath.workprec(prec):
        h = mpmath.mpf(2) ** (-level)
        c = h / mpmath.sqrt(2 * mpmath.pi)
        return [(h * k, c * mpmath.exp(-((h * k) ** 2) / 2)) for k in range(-reach * 2**level, reach * 2**level + 1)]


class _Rule:
    def __init__(self, body: Any, variables: Sequence[Any], means: Sequence[Any], covariance: Sequence[Any]) -> None:
        self.f = sympy.lambdify(list(variables), body, [FUNCTIONS, "mpmath"], cse=True)
        self.means = list(means)
        self.kinks = [_kinks(body, z) for z in variables]
        prec = mpmath.mp.prec
        self.reach = int(mpmath.sqrt(2 * prec * mpmath.log(2))) + 3
        tiny = mpmath.mpf(2) ** (-(3 * (prec - 50)) // 4)  # the variables are one, up to rounding of the covariance
        if len(variables) == 1:
            q = max(covariance[0], 0)
            self.factor = [[mpmath.sqrt(q)]]
            self.rank = int(q > 0)
            return
        a, c, b = covariance
        if b > 0 and (a <= 0 or (self.kinks[1] and not self.kinks[0])):
            f = self.f
            self.f = lambda x, y: f(y, x)
            self.means.reverse()
            self.kinks.reverse()
            a, b = b, a
        a, b = max(a, 0), max(b, 0)
        first = mpmath.sqrt(a)
        slope = c / first if a > 0 else mpmath.mpf(0)
        left = b - slope * slope
        if left <= tiny * b:
            left = mpmath.mpf(0)
        self.factor = [[first], [slope, mpmath.sqrt(left)]]
        self.rank = int(a > 0) + int(left > 0)

    def value(self, level: int) -> tuple[Any, Any]:
        """The value and the mean of |f| at one step."""
        total = size = mpmath.mpf(0)
        if len(self.means) == 1:
            (m,), s = self.means, self.factor[0][0]
            for e, w in self._nodes([(k - m) / s for k in self.kinks[0]] if s else None, level):
                value = w * self.f(m + s * e)
                total, size = total + value, size + abs(value)
            return total, size
        (m, k), first, (slope, second) = self.means, self.factor[0][0], self.factor[1]
        outer = [(x - m) / first for x in self.kinks[0]] if first else []
        if not second and slope:
            outer += [(x - k) / slope for x in self.kinks[1]]
        f = self.f
        for e, w in self._nodes(outer if first else None, level):
            u, v = m + first * e, k + slope * e
            for d, p in self._nodes([(x - v) / second for x in self.kinks[1]] if second else None, level):
                value = w * p * f(u, v + second * d)
                total += value
                size += abs(value)
        return total, size

    def _nodes(self, kinks: Sequence[Any] | None, level: int) -> list[tuple[Any, Any]]:
        """Nodes and weights for a standard normal; one node where there is no randomness (None)."""
        return [(mpmath.mpf(0), mpmath.mpf(1))] if kinks is None else _normal(kinks, level, self.reach)


def _normal(kinks: Sequence[Any], level: int, reach: int) -> list[tuple[Any, Any]]:
    """Nodes and weights of E g(e), e ~ N(0, 1), for a g with kinks."""
    prec = mpmath.mp.prec
    inside = sorted([k for k in set(kinks) if abs(k) < reach])
    if not inside:
        return _trapezoid(level, prec, reach)
    ends, out = [mpmath.mpf(-reach), *inside, mpmath.mpf(reach)], []
    scale = 1 / mpmath.sqrt(2 * mpmath.pi)
    for low, high in pairwise(ends):
        middle, half = (low + high) / 2, (high - low) / 2
        c = half * scale
        for x, w in _tanh_sinh(level, prec):
            e = middle + half * x
            out.append((e, c * w * mpmath.exp(-e * e / 2)))
    return out


# ---- products ----


def _pair(body: Any, variables: Sequence[Any], means: Sequence[Any], covariance: Sequence[Any], prec: int) -> Any:
    """E f(u) g(v) by Mehler's formula; None where the body is no such product, and at correlations too near +-1."""
    a, c, b = covariance
    if a <= 0 or b <= 0:
        return None
    rho = c / mpmath.sqrt(a * b)
    if rho and prec * mpmath.log(2) > -MAX_DEGREE * mpmath.log(abs(rho)):
        return None
    constant, parts = body.as_independent(*variables, as_Add=False)
    factors: list[list[Any]] = [[constant], []]
    for factor in sympy.Mul.make_args(parts):
        used = factor.free_symbols
        if len(used) != 1:
            return None
        factors[variables[1] in used].append(factor)
    f, g = [
        _Series(sympy.Mul(*own), z, m, mpmath.sqrt(q), prec)
        for own, z, m, q in zip(factors, variables, means, (a, b), strict=True)
    ]
    last = None
    for level in range(2, MAX_LEVEL):
        value, size = _mehler(f.start(level), g.start(level), rho, prec)
        if last is not None and _settled(value, last, size, mpmath.mpf(2) ** (-prec)):
            return value
        last = value
    return None


def _mehler(f: tuple[Iterator[Any], Any], g: tuple[Iterator[Any], Any], rho: Any, prec: int) -> tuple[Any, Any]:
    """The sum, and the product of the norms."""
    (a, norm), (b, other) = f, g
    size = norm * other
    total, power = mpmath.mpf(0), mpmath.mpf(1)
    while abs(power) * size > mpmath.mpf(2) ** (-prec - 12) * max(abs(total), size * mpmath.mpf(2) ** (-10)):
        total += power * next(a) * next(b)
        power *= rho
    return total, size


class _Series:
    """Hermite coefficients of f(m + s e), from sums over nodes in fixed point."""

    def __init__(self, body: Any, z: Any, m: Any, s: Any, prec: int) -> None:
        self.f = sympy.lambdify([z], body, [FUNCTIONS, "mpmath"], cse=True)
        self.m, self.s = m, s
        self.kinks = [(k - m) / s for k in _kinks(body, z)]
        # |h_k(e)| exp(-e^2/4) is bounded: where exp(-e^2/4) is negligible the sums end, whatever the degree
        self.reach = int(2 * mpmath.sqrt(mpmath.mp.prec * mpmath.log(2))) + 2
        # the recursion grows from exp(-e^2/4) to 1, and so does its rounding
        self.bits = 2 * mpmath.mp.prec + 60

    def start(self, level: int) -> tuple[Iterator[Any], Any]:
        """The coefficients at one step, and the norm of f."""
        nodes = _normal(self.kinks, level, self.reach)
        values = [self.f(self.m + self.s * e) for e, _ in nodes]
        norm = mpmath.sqrt(mpmath.fsum([w * y * y for (_, w), y in zip(nodes, values, strict=True)]))
        return self._coefficients(nodes, values), norm

    def _coefficients(self, nodes: Sequence[tuple[Any, Any]], values: Sequence[Any]) -> Iterator[Any]:
        bits = self.bits

        def fixed(numbers: Iterable[Any]) -> np.ndarray:
            return np.array([int(mpmath.floor(mpmath.ldexp(y, bits))) for y in numbers] + [None], dtype=object)[:-1]

        with mpmath.workprec(bits + 20):
            x = fixed([e for e, _ in nodes])
            tails = [mpmath.exp(e * e / 4) for e, _ in nodes]
            f = fixed([w * y * t for (_, w), y, t in zip(nodes, values, tails, strict=True)])
            now, before, k = fixed([1 / t for t in tails]), 0 * x, 0
        while True:
            yield mpmath.ldexp(mpmath.mpf(int((f * now).sum()) >> bits), -bits)
            up, down = math.isqrt((1 << 2 * bits) // (k + 1)), math.isqrt((k << 2 * bits) // (k + 1))
            now, before = (((x * now) >> bits) * up - before * down) >> bits, now
            k += 1
