"""Gaussian integrals along lines, with error bounds that hold: no root is missed, no turn, no oscillation.

The line is cut into panels. On each the integrand is enclosed (`limits/gauss/enclosure.py`), and its Gauss-Legendre rule accepted
where a bound of its error is negligible: that of an analytic function on a Bernstein ellipse around the panel
(Trefethen, *Approximation Theory and Approximation Practice*, theorem 19.3; adaptively, Petras 2002), or the variation of the
integrand times the probability of the panel. Other panels are cut: at a root of a kink's argument that is monotone there,
else in the middle. What is undecided when the budget ends enters the bound with all that the integrand could be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tensorprog.language.node import Node, topological
from tensorprog.limits.gauss.enclosure import Box, Enclosure, Range, enclosures, function, jumping, kinked

__all__ = [
    "EDGES",
    "ENCLOSED",
    "LINE_PANELS",
    "NODES",
    "ROUNDED",
    "Line",
    "Lines",
    "bernstein",
    "gauss",
    "mass",
    "one_root",
    "truncation",
]

Array = np.ndarray

NODES = 20
"""Gauss-Legendre nodes a panel."""
LINE_PANELS = 2**14
"""Panels of one integral in one variable, at most: its evaluations are `NODES` times as many."""
EDGES = (0.0, 2.0, 4.0, 6.0, 8.0, 10.5, 14.0, 20.0, 38.5)
"""First panels on either side, in deviations; beyond, the density is less than any number."""
ELLIPSES = (2.2, 3.2, 6.0)
"""Parameters of the Bernstein ellipses that are tried."""
NEGLIGIBLE = 2e-17
"""A panel's error relative to E |f| that is accepted."""
ENCLOSED, ROOT = 2 * NODES, 10 * NODES
"""What enclosing an integrand on a panel costs, and isolating a root: as many evaluations, as measured."""
GENERATIONS = 90
NOISES = 3
"""Ways in which the arguments of kinks are moved, to see how far their roots are."""
ROUNDED = 1e-12
"""Numbers this close, relatively, share their panels: those that rounding moves."""
KEPT = 2**16
"""Panels kept for the next numbers."""
_BLOCK = 2**13
_THIN = 1e-20


class Lines(NamedTuple):
    """What is known of a batch of integrals.

    Attributes:
        value: Shape (B,).
        error: Bounds of what the rule errs; rounding is not in them.
        size: E |f|.
        panels: Shape (B,): how many it took.
    """

    value: Array
    error: Array
    size: Array
    panels: Array


class _Panels(NamedTuple):
    """Panels of many rows."""

    row: Array
    low: Array
    high: Array

    def take(self, which: Array) -> _Panels:
        return _Panels(*(x[which] for x in self))

    @staticmethod
    def join(parts: Sequence[_Panels]) -> _Panels:
        return _Panels(*(np.concatenate(x) for x in zip(*parts, strict=True)))


@cache
def gauss(nodes: int) -> tuple[Array, Array]:
    """Gauss-Legendre on [-1, 1]."""
    return np.polynomial.legendre.leggauss(nodes)


def mass(low: Array, high: Array) -> Array:
    """Probability of intervals under the standard normal law."""
    from scipy.special import ndtr

    right = low > 0
    wide = np.where(right, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    x, w = gauss(8)  # good to 1e-16 where a difference of two numbers near 1/2 would not be
    half = np.minimum((high - low) / 2, 0.25)
    thin = half * (w @ np.exp(-(((low + high) / 2 + half * x[:, None]) ** 2) / 2)) / np.sqrt(2 * np.pi)
    return np.where(high - low <= 0.5, thin, wide)


def bernstein(low: Array, high: Array) -> tuple[Array, Array, Array, Array]:
    """Rectangles around the Bernstein ellipses of panels (left, right, height), and the largest density there: (K, P)."""
    rho = np.array(ELLIPSES)[:, None]
    centre, half = (low + high) / 2, (high - low) / 2
    reach, height = half * (rho + 1 / rho) / 2, half * (rho - 1 / rho) / 2
    left, right = centre - reach, centre + reach
    nearest = np.maximum(np.maximum(left, -right), 0)
    return left, right, height, np.exp((height**2 - nearest**2) / 2) / np.sqrt(2 * np.pi)


def truncation(low: Array, high: Array, bound: Array, nodes: int = NODES) -> Array:
    """Errors of Gauss rules on panels for functions with these bounds on their ellipses, shape (P,)."""
    rho = np.array(ELLIPSES)[:, None]
    with np.errstate(all="ignore"):
        error = 64 / 15 * (high - low) / 2 * bound * rho ** (2.0 - 2 * nodes) / (1 - rho**-2.0)
    return np.where(np.isnan(error), np.inf, error).min(0)


class _Functions(NamedTuple):
    evaluate: Callable[..., Any]
    enclose: Callable[..., Enclosure]
    arguments: list[Callable[..., Any]]


class Line:
    """Integrals of one integrand along lines ``z = mean + direction e``, e standard normal.

    Args:
        body: The integrand, an expression over `var` and `param`.

    Attributes:
        body: The integrand.
        innermost: For every kink, the one whose argument its own argument is a function of; itself if there is none.
        jumps: Does the integrand jump?
    """

    def __init__(self, body: Node) -> None:
        self.body = body
        self._kinks = list(dict.fromkeys(x.args[0] for x in topological([body]) if kinked(x)))
        self.innermost = [_innermost(a, self._kinks) for a in self._kinks]
        self._functions: dict[int, _Functions] = {}
        self.jumps = any(jumping(x) for x in topological([body]))
        self._last: _Solved | None = None

    @property
    def analytic(self) -> bool:
        """Has the integrand no kinks and no jumps?"""
        return not self._kinks and not self.jumps

    def functions(self, noise: int) -> _Functions:
        """The integrand, its enclosures, and the arguments of its kinks."""
        if noise not in self._functions:
            self._functions[noise] = _Functions(
                function(self.body, noise),
                enclosures(self.body, noise),
                [function(a, noise) for a in self._kinks],
            )
        return self._functions[noise]

    def __call__(
        self,
        mean: Array,
        direction: Array,
        params: Sequence[Array],
        most: int = LINE_PANELS,
        noise: int = 0,
        scale: Array | None = None,
        count: Callable[[int], None] = lambda points: None,
    ) -> Lines:
        """The integrals.

        Args:
            mean: Shape (B, d).
            direction: Shape (B, d).
            params: Each of shape (B,).
            most: Panels of one integral at most.
            noise: Not 0: with all instructions moved by their rounding.
            scale: To what errors are relative, shape (B,); E |f| by default.
            count: Told of evaluations before they are made; it may object.
        """
        problem = _Problem(self, np.asarray(mean, float), np.asarray(direction, float), params, noise)
        problem.count = count
        last = self._last
        if scale is None and last is not None and last.most == most and problem.near(last.problem):
            if problem.equals(last.problem):
                return last.found
            if not self.jumps:  # the same panels will do; roots of jumps would have to move
                return problem.again(last)
        rows = len(problem.mean)
        edges = np.concatenate([-np.array(EDGES)[:0:-1], EDGES])
        many = len(edges) - 1
        first = _Panels(np.repeat(np.arange(rows), many), np.tile(edges[:-1], rows), np.tile(edges[1:], rows))
        if scale is not None:
            return problem.solve(first, scale, most).found
        size = problem.size(first)
        for _ in range(4):
            solved = problem.solve(first, size, most)
            if not np.any(solved.found.size < size / 30):
                break  # else the first panels' nodes had met a spike by chance
            size = solved.found.size
        if solved.found.panels.sum() <= KEPT:
            self._last = solved
        return solved.found

    def root(
        self, kink: int, mean: Array, direction: Array, params: Sequence[Array], low: Array, high: Array
    ) -> tuple[Array, Array]:
        """Neighbouring numbers in ``(low, high)`` between which the argument of a kink changes its sign."""
        problem = _Problem(self, mean, direction, params, 0)
        return problem.root(kink, _Panels(np.arange(len(low)), low, high))


def _innermost(argument: Node, others: Sequence[Node]) -> int:
    """Which of some nodes, the smallest of them, an expression is a function of; it is one of them itself."""

    def of(u: Node) -> bool:
        return not any(x.op == "var" for x in topological([argument], lambda x: () if x == u else x.args) if x != u)

    return min([k for k, u in enumerate(others) if of(u)], key=lambda k: len(topological([others[k]])))


class _Solved(NamedTuple):
    problem: _Problem
    most: int
    panels: _Panels  # summed by their rules
    rest: Array  # what the others add
    found: Lines


class _Problem:
    def __init__(self, line: Line, mean: Array, direction: Array, params: Sequence[Array], noise: int) -> None:
        self.mean, self.direction, self.params = mean, direction, params
        self.line, self.functions, self.noise = line, line.functions(noise), noise
        self.count: Callable[[int], None] = lambda points: None

    def near(self, other: _Problem) -> bool:
        """Do the numbers differ by rounding?"""
        mine, theirs = (np.column_stack([x.mean, x.direction, *x.params]) for x in (self, other))
        return mine.shape == theirs.shape and bool(np.all(np.abs(mine - theirs) <= ROUNDED * np.abs(theirs)))

    def equals(self, other: _Problem) -> bool:
        mine, theirs = (np.column_stack([x.mean, x.direction, *x.params]) for x in (self, other))
        return self.noise == other.noise and np.array_equal(mine, theirs)

    def again(self, solved: _Solved) -> Lines:
        """The same panels, for slightly other numbers."""
        value, _ = self.rule(solved.panels)
        return solved.found._replace(value=solved.rest + self.sum(solved.panels, value))

    def z(self, row: Array, e: Array) -> list[Array]:
        wide = (slice(None), *[None] * (e.ndim - 1))
        return [self.mean[row, i][wide] + self.direction[row, i][wide] * e for i in range(self.mean.shape[1])]

    def p(self, row: Array, e: Array) -> list[Array]:
        return [p[row][(slice(None), *[None] * (e.ndim - 1))] for p in self.params]

    def rule(self, panels: _Panels) -> tuple[Array, Array]:
        """Integrals of f and |f| over panels."""
        x, w = gauss(NODES)
        self.count(NODES * len(panels.row))
        value, size = np.empty(len(panels.row)), np.empty(len(panels.row))
        for start in range(0, len(panels.row), _BLOCK):
            part = slice(start, start + _BLOCK)
            low, high = panels.low[part, None], panels.high[part, None]
            e = (low + high) / 2 + (high - low) / 2 * x
            weight = (high - low) / 2 * w * np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi)
            with np.errstate(all="ignore"):
                f = np.broadcast_to(
                    self.functions.evaluate(self.z(panels.row[part], e), self.p(panels.row[part], e)), e.shape
                )
                f = np.where(weight == 0, 0, f)
            value[part], size[part] = np.einsum("pn,pn->p", weight, f), np.einsum("pn,pn->p", weight, np.abs(f))
        return value, size

    def sum(self, panels: _Panels, values: Array) -> Array:
        return np.bincount(panels.row, values, minlength=len(self.mean)).astype(float)

    def size(self, panels: _Panels) -> Array:
        """E |f|, roughly."""
        size = self.rule(panels)[1]
        return self.sum(panels, np.where(np.isfinite(size), size, 0))

    def enclosure(self, panels: _Panels) -> tuple[Enclosure, Array]:
        """Ranges on panels, and errors of their rules."""
        self.count(ENCLOSED * len(panels.row))
        left, right, height, density = bernstein(panels.low, panels.high)
        box = Box(panels.low[None], panels.high[None], left, right, height)
        d = range(self.mean.shape[1])
        found = self.functions.enclose(
            box,
            [self.mean[panels.row, i] for i in d],
            [self.direction[panels.row, i][None] for i in d],
            [p[panels.row] for p in self.params],
        )
        with np.errstate(all="ignore"):
            bound = found.whole.modulus
            return found, truncation(panels.low, panels.high, np.where(bound == 0, 0, bound * density))

    def solve(self, panels: _Panels, size: Array, most: int) -> _Solved:
        rows = len(self.mean)
        value, rest_value, error, total = (np.zeros(rows) for _ in range(4))
        summed = []
        taken = np.zeros(rows, dtype=int)
        size = size.copy()
        for generation in range(GENERATIONS + 1):
            if not len(panels.row):
                break
            lost = size == 0
            if lost.any():  # nothing but zeros met so far
                mine = panels.take(lost[panels.row])
                size = np.where(lost, np.maximum(total, self.size(mine)), size)
            parts = [panels.take(slice(s, s + _BLOCK)) for s in range(0, len(panels.row), _BLOCK)]  # type: ignore[arg-type]
            known = [self.step(p, size) for p in parts]
            rule_error, flat, middle, cut = (np.concatenate(x) for x in zip(*known, strict=True))
            tolerance = NEGLIGIBLE * size[panels.row]
            narrow = panels.high - panels.low <= np.maximum(
                _THIN, 2 * np.spacing(np.maximum(np.abs(panels.low), np.abs(panels.high)))
            )
            by_range = (flat <= tolerance) & (flat < rule_error) | (narrow & np.isfinite(flat))
            done = by_range | (rule_error <= tolerance) | narrow
            # The budget: the panels that matter most are cut.
            bound = np.minimum(rule_error, flat)
            if generation == GENERATIONS:
                done[:] = True
            else:
                room = most - taken - np.bincount(panels.row, minlength=rows)
                over = np.bincount(panels.row[~done], minlength=rows) > room
                if over.any():
                    open_ = np.flatnonzero(~done & over[panels.row])
                    order = open_[np.lexsort((-bound[open_], panels.row[open_]))]
                    start = np.searchsorted(panels.row[order], panels.row[order])
                    rank = np.arange(len(order)) - start
                    done[order[rank >= np.maximum(room[panels.row[order]], 0)]] = True
            ready = panels.take(done & ~by_range)
            got, absolute = self.rule(ready)
            bounded = bound[done & ~by_range]
            bounded = np.where(np.isfinite(bounded), bounded, 2 * absolute)
            value += self.sum(ready, got)
            summed.append(ready)
            total += self.sum(ready, absolute)
            error += self.sum(ready, bounded)
            ranged = panels.take(by_range)
            rest_value += self.sum(ranged, middle[by_range])
            total += self.sum(ranged, np.abs(middle[by_range]))
            error += self.sum(ranged, flat[by_range])
            taken += np.bincount(panels.row[done], minlength=rows)
            rest = panels.take(~done)
            panels, slivers, kinks = self.cut(rest, cut[~done])
            if len(slivers.row):
                middle, doubt = self.roots(slivers, kinks)
                rest_value += self.sum(slivers, middle)
                error += self.sum(slivers, doubt)
        found = Lines(value + rest_value, error, total, taken)
        return _Solved(self, most, _Panels.join(summed), rest_value, found)

    def step(self, panels: _Panels, size: Array) -> tuple[Array, Array, Array, Array]:
        """Errors of rules; half the variations and middles, times the probabilities; the kinks to cut at (-1: none)."""
        found, rule_error = self.enclosure(panels)
        weight = mass(panels.low, panels.high)
        low, high = found.whole.low, found.whole.high
        with np.errstate(all="ignore"):
            flat = np.where(weight == 0, 0, (high - low) / 2 * weight)
            middle = np.where(weight == 0, 0, (high + low) / 2 * weight)
        flat = np.where(np.isnan(flat), np.inf, flat)
        cut = np.full(len(panels.row), -1)
        for k, kink in enumerate(found.kinks):
            cut = np.where((cut < 0) & one_root(kink), k, cut)
        return rule_error, flat, middle, cut

    def roots(self, slivers: _Panels, kink: Array) -> tuple[Array, Array]:
        """Integrals over slivers around roots, and their errors: how far rounding of the arguments may have moved the roots."""
        found, _ = self.enclosure(slivers)
        weight = mass(slivers.low, slivers.high)
        density = np.exp(-(slivers.low**2) / 2) / np.sqrt(2 * np.pi)
        jump = found.whole.high - found.whole.low
        middle = (found.whole.high + found.whole.low) / 2 * weight
        moved = np.zeros(len(kink))
        z, p = self.z(slivers.row, slivers.low), self.p(slivers.row, slivers.low)
        with np.errstate(
            all="ignore"
        ):  # an argument that is 0 at an end decides the kink: then the ends see half the jump
            ends = [
                np.broadcast_to(self.functions.evaluate(self.z(slivers.row, e), p), e.shape)
                for e in (slivers.low, slivers.high)
            ]
            jump = np.fmax(jump, 2 * np.abs(ends[1] - ends[0]))
        for k in np.unique(kink):
            arguments = [self.line.functions(noise).arguments[k] for noise in range(NOISES + 1)]
            values = [np.broadcast_to(a(z, p), moved.shape) for a in arguments]
            rounding = np.max([np.abs(v - values[0]) for v in values[1:]], axis=0)
            slope = np.minimum(np.abs(found.kinks[k].down[0]), np.abs(found.kinks[k].up[0]))
            moved = np.where(kink == k, rounding / slope, moved)
        with np.errstate(all="ignore"):
            doubt = np.where(jump == 0, 0, jump * (density * np.where(np.isfinite(moved), moved, 0) + weight))
        finite = np.isfinite(doubt) & np.isfinite(middle)
        return np.where(finite, middle, 0), np.where(finite, doubt, 0)

    def cut(self, panels: _Panels, kink: Array) -> tuple[_Panels, _Panels, Array]:
        """Panels cut at roots or in the middle, slivers around the roots, and whose roots they are."""
        plain = panels.take(kink < 0)
        middle = (plain.low + plain.high) / 2
        parts = [_Panels(plain.row, plain.low, middle), _Panels(plain.row, middle, plain.high)]
        slivers = [_Panels(np.zeros(0, int), np.zeros(0), np.zeros(0))]
        kinks = [np.zeros(0, int)]
        for k in np.unique(kink[kink >= 0]):
            mine = panels.take(kink == k)
            low, high = self.root(int(k), mine)
            # Where the root is an end already, up to rounding, cutting in the middle gets away from it.
            still = (low <= mine.low) | (high >= mine.high)
            middle = (mine.low + mine.high) / 2
            low, high = np.where(still, middle, low), np.where(still, middle, high)
            parts += [_Panels(mine.row, mine.low, low), _Panels(mine.row, high, mine.high)]
            slivers.append(_Panels(mine.row, low, high).take(~still))
            kinks.append(np.full(len(slivers[-1].row), k))
        joined = _Panels.join(parts)
        return joined.take(joined.high > joined.low), _Panels.join(slivers), np.concatenate(kinks)

    def root(self, kink: int, panels: _Panels) -> tuple[Array, Array]:
        """Neighbouring numbers between which the argument of a kink changes its sign."""
        self.count(ROOT * len(panels.row))
        argument = self.functions.arguments[kink]

        def sign(e: Array) -> Array:
            with np.errstate(all="ignore"):
                return np.sign(np.broadcast_to(argument(self.z(panels.row, e), self.p(panels.row, e)), e.shape))

        a, b = panels.low, panels.high
        start = sign(a)
        for _ in range(200):
            middle = (a + b) / 2
            going = (middle > a) & (middle < b) & (b - a > _THIN)
            if not going.any():
                break
            same = sign(middle) == start
            a, b = np.where(going & same, middle, a), np.where(going & ~same, middle, b)
        return a, b


def one_root(x: Range) -> Array:
    """Monotone in the first variable, with one sign at one end and the other at the other."""
    monotone = (x.down[0] >= 0) | (x.up[0] <= 0)
    return np.asarray(monotone & (np.sign(x.corners[0]) * np.sign(x.corners[1]) < 0))
