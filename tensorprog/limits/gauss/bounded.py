"""Expectations over Gaussians of rank 0, 1 and 2 with errors that hold, for arrays of means and covariances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.limits.gauss.nested import psd_factor, radius
from tensorprog.limits.gauss.panels import rule
from tensorprog.limits.gauss.plane import Plane, Solved
from tensorprog.limits.gauss.rounding import SAFETY
from tensorprog.limits.gauss.verified import ROUNDED, Line

__all__ = ["Bounded"]

Array = np.ndarray

KEPT = 256
"""Planes whose panels are kept for the next numbers."""


class Bounded:
    """Expectations of one integrand.

    Args:
        line: Its integrals along lines.
        evaluate: Its values, of z and p that broadcast.
        located: Where it turns, (variable, location, width): of means and deviations (1, d), and parameters.
    """

    def __init__(
        self,
        line: Line,
        evaluate: Callable[[Sequence[Any], Sequence[Any]], Any],
        located: Callable[[Array, Array, Sequence[Any]], list[tuple[int, float, float]]],
    ) -> None:
        self._line, self._evaluate, self._located = line, evaluate, located
        self.analytic = line.analytic
        self._planes: dict[int, list[tuple[Array, Solved]]] = {}
        self._outer: dict[int, int] = {}  # of a row, the variable that is a function of the outer one alone

    def __call__(
        self,
        mean: Array,
        cov: Array,
        params: Sequence[Array],
        ranks: int,
        level: int = 1,
        noise: int = 0,
        absolute: bool = False,
        count: Callable[[int], None] = lambda points: None,
    ) -> tuple[Array, Array]:
        """Values for the Gaussians of the lowest ranks.

        Args:
            mean: Means, shape (B, d).
            cov: Covariances, shape (B, d, d).
            params: Parameters, each of shape (B,).
            ranks: The highest rank to do.
            level: 1, or 0 for values moved by their errors over `SAFETY`.
            noise: Not 0: with rounding errors.
            absolute: The expectations of |f| instead.
            count: Told of evaluations before they are made; it may object.

        Returns:
            Values, shape (B,), and which rows are done. NaN where numbers are not finite, and where the integrand has not
            decayed at 32 deviations.
        """
        result, done = np.full(len(mean), np.nan), np.ones(len(mean), dtype=bool)
        rows = np.flatnonzero(np.isfinite(mean).all(axis=1) & np.isfinite(cov).all(axis=(1, 2)))
        params = [np.broadcast_to(np.asarray(p, dtype=np.float64), (len(mean),)) for p in params]
        sorted_factor, order = psd_factor(cov[rows], rule(level).singular)
        factor = np.empty_like(sorted_factor)
        np.put_along_axis(factor, order[:, :, None], sorted_factor, axis=1)
        active = np.diagonal(sorted_factor, axis1=1, axis2=2) > 0
        rank = active.sum(axis=1)
        # The directions that there are, first.
        columns = np.argsort(~active, axis=1, kind="stable")
        factor = np.take_along_axis(factor, columns[:, None, :], axis=2)
        done[rows[rank > ranks]] = False
        f = self._line.functions(noise).evaluate
        for r in range(min(ranks, 2) + 1):
            mine = rows[rank == r]
            directions = factor[rank == r][:, :, : max(r, 1)]
            if not len(mine):
                continue
            own = [p[mine] for p in params]
            if r == 0:
                with np.errstate(all="ignore"):
                    value = np.broadcast_to(f(list(mean[mine].T), own), (len(mine),))
                result[mine] = np.abs(value) if absolute else value
                continue
            reach = radius(lambda z, p: self._evaluate(z, p), mean[mine], directions, own)
            decays = ~np.isnan(reach)
            mine, directions, own = mine[decays], directions[decays], [p[decays] for p in own]
            if r == 1:
                result[mine] = self._lines(mean[mine], directions[:, :, 0], own, level, noise, absolute, count)
            else:
                for i, row in enumerate(mine):
                    numbers = [float(p[i]) for p in own]
                    result[row] = self._plane(row, mean[row], directions[i], numbers, level, noise, absolute, count)
        return result, done

    def _best(self, turned: Callable[[int, int], Plane], variables: Array) -> int:
        """Which variable should be the outer one: that with the cheaper inner integrals; else by content, never by name."""
        order = [int(i) for i in variables]
        if len(order) < 2:
            return order[0]
        if _exchanged(self._line.body).digest < self._line.body.digest:
            order = [1 - i if i < 2 else i for i in order]
        return order[0] if self.analytic else min(order, key=lambda i: turned(i, 0).price())

    def _lines(
        self,
        mean: Array,
        direction: Array,
        params: Sequence[Array],
        level: int,
        noise: int,
        absolute: bool,
        count: Callable[[int], None],
    ) -> Array:
        if not len(mean):
            return np.zeros(0)
        found = self._line(mean, direction, params, noise=noise, count=count)
        if absolute:
            return found.size
        if level:
            return found.value
        other = self._line(mean, direction, params, noise=noise + 1, count=count)
        return np.asarray(found.value + (found.error + np.abs(other.value - found.value)) / SAFETY)

    def _plane(
        self,
        row: int,
        mean: Array,
        directions: Array,
        params: Sequence[float],
        level: int,
        noise: int,
        absolute: bool,
        count: Callable[[int], None],
    ) -> float:
        numbers = np.concatenate([mean, directions.ravel(), params])
        turns = self._located(mean[None], np.linalg.norm(directions, axis=1)[None], params)

        def turned(variable: int, noise: int) -> Plane:
            outer, inner = _turned(directions, variable)
            return Plane(self._line, mean, outer, inner, params, noise, count, turns)

        if row not in self._outer:
            self._outer[row] = self._best(turned, np.flatnonzero(directions.any(axis=1)))

        def plane(noise: int) -> Plane:
            return turned(self._outer[row], noise)

        kept = self._planes.setdefault(row, [])
        for near, solved in kept:
            if near.shape == numbers.shape and np.all(np.abs(near - numbers) <= ROUNDED * np.abs(near)):
                exactly = np.array_equal(near, numbers) and not noise
                if not exactly and solved.cut:
                    continue  # where the jumps are, they have moved
                value = solved.value if exactly else plane(noise).again(solved)
                break
        else:
            solved = plane(noise)()
            value = solved.value
            if not noise and row < KEPT:
                kept[:] = [(numbers, solved), *kept[:1]]
        if absolute:
            return solved.size
        if level:
            return value
        other = plane(noise + 1)() if solved.cut else None
        moved = plane(noise + 1).again(solved) if other is None else other.value
        return value + (solved.error + abs(moved - value)) / SAFETY


def _exchanged(body: Node) -> Node:
    """The same function with its first two variables exchanged."""
    done: dict[Node, Node] = {}
    for y in topological([body]):
        swapped = y.op == "var" and y.attr < 2
        done[y] = Node("var", (), 1 - y.attr) if swapped else algebra.rebuild(y, [done[a] for a in y.args])
    return done[body]


def _turned(directions: Array, variable: int) -> tuple[Array, Array]:
    """Outer and inner directions of the same law, such that a variable moves along the outer one alone."""
    a, b = directions[variable]
    size = np.hypot(a, b)
    if b == 0:
        return directions[:, 0], directions[:, 1]
    rotation = np.array([[a, -b], [b, a]]) / size
    outer, inner = (directions @ rotation).T
    inner[variable] = 0
    return outer, inner
