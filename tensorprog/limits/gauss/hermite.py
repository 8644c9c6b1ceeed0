"""Hermite coefficients of a function of many Gaussians, their errors, and where a series in them may stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tensorprog.limits.gauss.nested import Indefinite, common_line_rule, line_rule, radius
from tensorprog.limits.gauss.panels import Feature, rule
from tensorprog.limits.gauss.rounding import SAFETY

__all__ = ["STAGES", "Expansion", "Function", "Marginals", "tolerance"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

#: Degrees at which the series may stop. All coefficients up to the last degree of a stage are computed together.
STAGES = ((4, 8, 12, 16, 20, 24, 32), (40, 48, 64, 80, 96, 128), (160, 192, 256), (384, 512))
#: Nodes done together.
_NODE_BLOCK = 2**18
_SHARED = 256
"""Up to this degree the polynomials at the nodes are kept: one or two megabytes for each set of nodes."""
_NORM_ROUNDING = 1e-15
"""Squared norms are not known better than this, relatively; so neither are the tails of a Hermite expansion."""
_CHECKED_ROWS = 8
"""Rows whose coefficients are computed a second time."""
_INTERPOLATED = 5e-13
"""Coefficients are interpolated in the variance where that has a stated error below this."""


def _coefficients(
    f: Function, mean: Array, deviation: Array, features: Sequence[Feature], degree: int, level: int, finer: bool
) -> tuple[Array, Array]:
    """Coefficients (degree + 1, rows) of ``f(mean + deviation x)``, and the square of its norm (rows,).

    NaN where f is not square integrable. With `finer`, panels are 0.7 as wide, and the errors of 18 nodes 0.7**36.
    """
    coefficients, square = np.full((degree + 1, len(mean)), np.nan), np.full(len(mean), np.nan)
    # The square of f with drop 1e-30 is f times the square root of the density with drop 1e-15, and Hermite functions
    # (polynomial times root of the density) are bounded.
    reach = radius(lambda z, _: f(z[0]) ** 2, mean[:, None], deviation[:, None, None], (), drop=1e-30)
    resolution = rule(level)
    # He_k oscillates with frequency sqrt(k) between its outermost zeros: less than two waves a panel.
    resolution = replace(resolution, width=min(resolution.width, 12 / np.sqrt(degree)))
    if finer:
        resolution = replace(resolution, width=0.7 * resolution.width, ellipse=1.4 * resolution.ellipse, shrink=0.0)
    for limit in np.unique(reach[np.isfinite(reach)]):
        member = np.flatnonzero(reach == limit)
        common = common_line_rule(mean[member], deviation[member], features, limit, resolution)
        if common is not None:
            e, weight = common
            basis = (_basis if degree <= _SHARED else _basis.__wrapped__)(e.tobytes(), degree)
            step = max(1, _NODE_BLOCK // len(e))
            for start in range(0, len(member), step):
                part = member[start : start + step]
                shape = (len(part), len(e))
                value = np.broadcast_to(f(mean[part, None] + deviation[part, None] * e), shape)
                weighted = weight * value
                coefficients[:, part] = basis @ weighted.T
                square[part] = np.einsum("rn,rn->r", value, weighted)
            continue
        step = max(1, int(_NODE_BLOCK * resolution.width / (4 * limit * resolution.nodes)))
        for start in range(0, len(member), step):
            part = member[start : start + step]
            owner, e, weight = line_rule(mean[part], deviation[part], features, limit, resolution)
            value = np.broadcast_to(f(mean[part][owner, None] + deviation[part][owner, None] * e), e.shape)
            weighted = weight * value
            square[part] = np.bincount(owner, np.einsum("pn,pn->p", weighted, value), minlength=len(part))
            for k, h in enumerate(_hermite(e, degree)):
                sums = np.einsum("pn,pn->p", weighted, h)
                coefficients[k, part] = np.bincount(owner, sums, minlength=len(part))
    return coefficients, square


@lru_cache(maxsize=16)
def _basis(nodes: bytes, degree: int) -> Array:
    """Normalised Hermite polynomials (degree + 1, n) at nodes, which many functions and variances share."""
    e = np.frombuffer(nodes)
    basis = np.empty((degree + 1, len(e)))
    for k, h in enumerate(_hermite(e, degree)):
        basis[k] = h
    return basis


def _hermite(e: Array, degree: int) -> Iterator[Array]:
    """Normalised Hermite polynomials of degrees 0, ..., degree; each is overwritten after the next."""
    before, hermite, product = np.zeros_like(e), np.ones_like(e), np.empty_like(e)
    for k in range(degree + 1):
        yield hermite
        before *= -math.sqrt(k / (k + 1))
        np.multiply(e, hermite, out=product)
        product *= 1 / math.sqrt(k + 1)
        before += product
        before, hermite = hermite, before


class Marginals:
    """A function on the distinct ones of many Gaussians, with their number in place of each."""

    def __init__(self, f: Function, features: Sequence[Feature], mean: Array, var: Array) -> None:
        self.f = f
        self.features = sorted({replace(x, variable=0) for x in features}, key=repr)
        self.mean, self.var = mean, var
        both = np.empty(len(mean), dtype=complex)  # complex numbers sort fast, pairs do not
        both.real, both.imag = mean, var
        rows, self.row = np.unique(both, return_inverse=True)
        self.usable = np.isfinite(rows)
        if np.any(rows.imag < 0):
            raise Indefinite("a variance is negative")
        self.centre, self.deviation = rows.real, np.sqrt(rows.imag)
        self.inverse = np.divide(1, self.deviation, out=np.zeros(len(rows)), where=self.deviation > 0)[self.row]


class Expansion:
    """Coefficients up to one degree for all rows of some marginals.

    Attributes:
        row: The number of every Gaussian among the distinct ones, which are the rows below; NaN for what is not finite.
        coefficients: Shape (K + 1, rows).
        norm: Of f, shape (rows,); NaN where f is not square integrable.
        error: Of the coefficients, Euclidean norm, relative to `norm`.
        slope: Norm of the derivative of the series, shape (rows,).
        reach: Shape (degrees, rows): the terms beyond a degree may be left out for a correlation up to the product of
            a row's and a column's reach.
        size: Largest modulus of each coefficient relative to the norm, shape (K + 1,).
    """

    def __init__(self, marginals: Marginals, stage: int, level: int) -> None:
        m, degree = marginals, STAGES[stage][-1]
        good = np.flatnonzero(m.usable)
        mean, deviation = m.centre[good], m.deviation[good]
        # Rows all over, those of the largest and smallest variance among them.
        some = np.unique(np.linspace(0, len(good) - 1, min(_CHECKED_ROWS, len(good))).astype(int))
        some = np.argsort(deviation, kind="stable")[some]
        fine, _ = _coefficients(m.f, mean[some], deviation[some], m.features, degree, max(level, 1), True)

        def error(found: Array, square: Array) -> float:
            norm = np.sqrt(square[some])
            change = np.sqrt(np.sum((found[:, some] - fine) ** 2, axis=0)) / np.where(norm > 0, norm, 1)
            return SAFETY * float(np.nanmax(change, initial=0.0))

        table = _Table.of(mean, deviation)
        if table is not None:
            nodes = np.full(len(table.nodes), mean[0])
            found, square = _coefficients(m.f, nodes, table.nodes, m.features, degree, level, False)
            rest = table.largest(_rest(found, square, stage) / np.where(square > 0, square, 1))
            found, square = found @ table.weights, np.maximum(square @ table.weights, 0)
            self.error = error(found, square)
            rest *= square
        if table is None or not self.error < _INTERPOLATED:
            found, square = _coefficients(m.f, mean, deviation, m.features, degree, level, False)
            self.error = error(found, square)
            rest = _rest(found, square, stage)
        norm = np.sqrt(square)
        slope = np.sqrt(np.einsum("k,kr,kr->r", np.arange(degree + 1.0), found, found))
        relative = found / np.where(norm > 0, norm, 1)
        self.size = np.fmax(np.fmax.reduce(relative, axis=1, initial=0), -np.fmin.reduce(relative, axis=1, initial=0))
        exponent = 1 / (1 + np.array(STAGES[stage])[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (np.sqrt(tolerance(level)) * norm / np.sqrt(rest)) ** exponent
        reach = np.where(norm == 0, np.inf, reach)
        place = np.full(len(m.centre), len(good))  # of what is not finite: a column of NaN at the end
        place[good] = np.arange(len(good))
        self.row = place[m.row]
        columns: tuple[Array, ...] = (norm, slope, found, reach)
        if len(good) < len(m.centre):
            columns = tuple(np.concatenate([x, np.full((*x.shape[:-1], 1), np.nan)], axis=-1) for x in columns)
        self.norm, self.slope, self.coefficients, self.reach = columns

    def some(self, part: slice) -> Expansion:
        """The same rows, for some of the Gaussians."""
        new = copy(self)
        new.row = self.row[part]
        return new


def _rest(coefficients: Array, square: Array, stage: int) -> Array:
    """Squared norms of what the degrees up to each of a stage leave, shape (degrees, rows)."""
    left = [square - np.einsum("kr,kr->r", c, c) for c in (coefficients[: k + 1] for k in STAGES[stage])]
    return np.maximum(left, _NORM_ROUNDING * square)


class _Table:
    """Chebyshev interpolation in the logarithm of the deviation, for many rows of one mean and similar variances.

    Coefficients are analytic in log(sd): the Gaussian decays along lines through the origin at angles up to pi/4.

    Attributes:
        nodes: Deviations, shape (M,).
        weights: Values at the nodes times this are values at the rows, shape (M, rows).
    """

    def __init__(self, low: float, high: float, count: int, place: Array) -> None:
        x = np.cos(np.pi * (np.arange(count) + 0.5) / count)[::-1]
        t = np.clip((place - (low + high) / 2) / ((high - low) / 2), -1, 1)
        self.nodes = np.exp((low + high) / 2 + (high - low) / 2 * x)
        # sum_m (2 - [m = 0]) / M T_m(x) T_m(t): discrete orthogonality, stable on the interval.
        degrees = np.arange(count)[:, None]
        left, right = np.cos(degrees * np.arccos(x)), np.cos(degrees * np.arccos(t))
        left *= np.where(degrees == 0, 1, 2) / count
        self.weights = left.T @ right
        self._after = np.clip(np.searchsorted(x, t), 1, count - 1)

    @staticmethod
    def of(mean: Array, deviation: Array) -> _Table | None:
        """None where it would not pay."""
        if len(mean) < 16 or np.ptp(mean) > 0 or deviation.min() <= 0:
            return None
        place = np.log(deviation)
        low, high = float(place.min()), float(place.max())
        ratio = 0.6 / max((high - low) / 2, 1e-3)  # of the half-width of the strip, with a margin, to the interval's
        count = int(np.ceil(-np.log(1e-17) / np.arcsinh(ratio)))
        return _Table(low, high, count, place) if 2 * count < len(mean) else None

    def largest(self, x: Array) -> Array:
        """The larger of the values at both neighbours, for every row."""
        return np.maximum(x[..., self._after - 1], x[..., self._after])


def tolerance(level: int) -> float:
    """What is left out of a series, relative to the norms."""
    return 1e-12 if level == 0 else 2e-15
