"""Fixed points of the variance and of the correlation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.depth.blocks import TINY, Moments, Repeated
from tensorprog.depth.chebyshev import nodes, series, tail
from tensorprog.depth.maps import CorrelationMap
from tensorprog.errors import TensorProgramError

__all__ = ["FixedPoint", "Variance", "correlations", "crossings", "polished", "root", "scanned", "variance"]

Array = np.ndarray
LOW, HIGH = 1e-4, 1e3
"""Variances among which fixed points are looked for first;"""
LOWEST, HIGHEST = 1e-12, 1e9
"""from half of that of 0 on, and further out, where they grow."""
PER_DECADE = 2
SETTLED = 0.1
"""Logarithms of V(q)/q that change by no more of themselves over a decade will not change their sign."""
UNMOVED = 1e-10
"""A start whose variance changes by no more is a fixed point."""
STEPS = 24
SAME = 1e-12
"""Ratios of variances that differ by no more are one."""
NEAR, POINTS = 0.02, 10
"""Roots, and derivatives there, are those of a series on a small interval around them."""


@dataclass(frozen=True)
class FixedPoint:
    """A value that a block leaves as it is.

    Attributes:
        value: A variance, or a correlation.
        error: How wrong it may be.
        slope: The derivative of the map there: perturbations are multiplied by it.
        stable: Is its size less than 1 (or 1, and perturbations that can occur shrink)?
    """

    value: float
    error: float
    slope: float
    stable: bool

    def __repr__(self) -> str:
        return (
            f"{self.value:.12g} ± {self.error:.0e} ({'stable' if self.stable else 'unstable'}, slope {self.slope:.6g})"
        )


@dataclass(frozen=True)
class Variance:
    """What a block does to variances.

    Attributes:
        points: The fixed points that there are, the smallest first; none if there is none, or if all are fixed.
        chosen: The one that variances of order one tend to; 1 if the block multiplies all by one number.
        growth: What it multiplies it by: 1 at a fixed point.
        slope: The derivative there.
        homogeneous: Are all variances multiplied by one number?
        error: Of `chosen`.
    """

    points: tuple[FixedPoint, ...]
    chosen: float
    growth: float
    slope: float
    homogeneous: bool
    error: float


def scanned(
    alone: Callable[[Array], Moments], least: float, image: Callable[[Array, Array], Array] | None = None
) -> tuple[Array, Array, Array]:
    """Variances, those that a block makes of them, and slopes, where they are in range.

    Args:
        alone: The block.
        least: The smallest variance that it makes.
        image: Of what comes after variances, and slopes, what is compared with them: by default what comes after. Variances
            further out are looked at as long as it is larger.
    """
    low = min(LOW, max(least / 2, LOWEST))
    q = np.geomspace(low, HIGH, 1 + int(np.ceil(PER_DECADE * np.log10(HIGH / low))))
    V, A = _in_range(alone, q)
    while q[-1] < HIGHEST:
        ratio = (V if image is None else image(V, A)) / q
        if not (ratio[-1] > 1 and np.ptp(ratio) > SAME * ratio.max()):
            break
        last = np.log(ratio[-PER_DECADE - 1 :])
        if abs(last[-1] - last[0]) < SETTLED * abs(last[-1]):
            break  # it has become scale-free: it will not turn
        further = q[-1] * 10 ** (np.arange(1, 3 * PER_DECADE + 1) / PER_DECADE)
        V2, A2 = _in_range(alone, further)
        q, V, A = np.concatenate([q, further]), np.concatenate([V, V2]), np.concatenate([A, A2])
    known = np.isfinite(V) & (V > 0)
    return q[known], V[known], A[known]


def _in_range(alone: Callable[[Array], Moments], q: Array) -> tuple[Array, Array]:
    """Variances and slopes after a block, NaN where they are out of range."""
    try:
        found = alone(q)
        return found.covariance, found.slope
    except TensorProgramError:
        if len(q) == 1:
            return np.full(1, np.nan), np.full(1, np.nan)
    half = len(q) // 2
    parts = [_in_range(alone, part) for part in (q[:half], q[half:])]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a function changes its sign, to the last digits."""
    from scipy.optimize import brentq

    return float(brentq(f, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps, maxiter=200))


def crossings(f: Callable[[Array], Array], left: Array, right: Array) -> Array:
    """Where many functions change their signs, each between its two points (regula falsi of Illinois, halved now and then)."""
    a, b = f(left), f(right)
    kept = np.zeros(len(left))
    for step in range(STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.where(step % 4 == 3, 0.5 * (left + right), right - b * (right - left) / (b - a))
        x = np.where(np.isfinite(x), np.clip(x, np.minimum(left, right), np.maximum(left, right)), 0.5 * (left + right))
        y = f(x)
        same = (y > 0) == (b > 0)  # the right end moves
        a = np.where(same, np.where(kept == 1, a / 2, a), y)
        left = np.where(same, left, x)
        b = np.where(same, y, np.where(kept == -1, b / 2, b))
        right = np.where(same, x, right)
        kept = np.where(same, 1, -1)
        if np.all(np.abs(right - left) <= 4e-16 * np.abs(right)) or not y.any():
            break
    return np.where(np.abs(a) < np.abs(b), left, right)


def polished(f: Callable[[Array], Array], low: float, high: float) -> tuple[float, Array, Array]:
    """Where the first of some functions is 0 in an interval on which they are smooth; all of them there, and their derivatives.

    They are expensive, and of many points at once as expensive as of one.
    """
    near = False
    while True:
        a = series(f(nodes(POINTS, low, high)).T)
        half = 0.5 * (high - low)
        if np.sign(value(a[:, 0], -1.0)) == np.sign(value(a[:, 0], 1.0)):
            x = float(-a[0, 0] / a[1, 0]) if near and abs(a[1, 0]) > abs(a[0, 0]) else np.nan
            if not np.isfinite(x):
                raise TensorProgramError("a root is lost", fix="please report this")
        else:
            x = root(lambda t, a=a: float(value(a[:, 0], t)), -1.0, 1.0)  # type: ignore[misc]
        centre = low + half * (1 + x)
        if near:
            return centre, value(a, x), value(np.polynomial.chebyshev.chebder(a), x) / half
        width = max(NEAR, 4 * half * tail(a[:, 0]))
        near = width == NEAR
        if width > half / 2:
            width = half / 2
        low, high = centre - width, centre + width


def value(coefficients: Array, x: float) -> Any:
    """A series at a point."""
    return np.polynomial.chebyshev.chebval(x, coefficients)


def variance(repeated: Repeated, start: float = 1.0) -> Variance:
    """The fixed points of the variance of a repeated block.

    Args:
        repeated: The block.
        start: The variance that is followed.

    Raises:
        TensorProgramError: variances have no fixed point that is reached.
    """
    zero = float(_in_range(repeated.alone, np.zeros(1))[0][0])
    zero = zero if np.isfinite(zero) else LOW  # floats do not tell
    grid, after, _ = scanned(repeated.alone, zero)
    if not len(grid):
        raise TensorProgramError("a block makes the variance 0, or none, of every variance", fix="look at the block")
    ratio = after / grid
    if len(grid) > PER_DECADE * 7 and np.ptp(ratio) <= SAME * ratio.max():
        one = repeated.alone([start])
        growth = float(one.covariance[0]) / start
        growth = 1.0 if abs(growth - 1) <= 4e-16 + one.errors[0] / start else growth
        return Variance((), start, growth, growth, True, 0.0)
    points = []
    if zero < 1e-25:  # of TINY
        slope = zero / TINY
        points.append(FixedPoint(0.0, 0.0, slope, slope < 1 or (abs(slope - 1) < SAME and ratio[0] < 1)))
    gain = np.log(ratio)
    hit = np.abs(gain) <= SAME  # a fixed point of the grid itself: between two others
    grid, gain = grid[~hit], gain[~hit]
    for i in np.flatnonzero((gain[:-1] > 0) != (gain[1:] > 0)):
        points.append(_point(repeated, *np.log(grid[i : i + 2])))
    chosen = _stays(repeated, start) or _reached(points, grid, gain, start)
    if chosen is None:
        low = gain[np.searchsorted(grid, start).clip(0, len(gain) - 1)] < 0
        raise TensorProgramError(
            f"the variance has no fixed point that {start:g} tends to",
            why="layer by layer it vanishes" if low else "layer by layer it grows without a bound",
            fix="change W_std, or scale the block",
        )
    return Variance(tuple(points), chosen.value, 1.0, chosen.slope, False, chosen.error)


def _point(repeated: Repeated, low: float, high: float) -> FixedPoint:
    """Between two logarithms of variances."""
    worst = 0.0

    def gain(s: Array) -> Array:
        nonlocal worst
        found = repeated.alone(np.exp(s))
        worst = found.errors[0]
        return np.asarray(found.covariance / np.exp(s) - 1)[None]

    s, _, turn = polished(gain, low, high)
    slope = 1 + float(turn[0])
    return FixedPoint(float(np.exp(s)), worst / max(abs(1 - slope), 1e-8), slope, abs(slope) < 1)


def _stays(repeated: Repeated, start: float) -> FixedPoint | None:
    """The start, if it is a fixed point itself, stable or not: activations are shaped so that 1 is."""
    one = repeated.alone([start])
    gap = abs(float(one.covariance[0]) / start - 1)
    if gap > UNMOVED:
        return None
    s = nodes(POINTS, -NEAR, NEAR)
    a = series(repeated.alone(start * np.exp(s)).covariance / start)
    slope = float(value(np.polynomial.chebyshev.chebder(a), 0.0)) / NEAR
    return FixedPoint(start, start * gap + one.errors[0], slope, abs(slope) < 1)


def _reached(points: list[FixedPoint], grid: Array, gain: Array, start: float) -> FixedPoint | None:
    """The stable fixed point on that side of the start to which the variance moves."""
    up = float(np.interp(np.log(start), np.log(grid), gain)) > 0
    side = [p for p in points if (p.value >= start * (1 - 1e-9) if up else p.value <= start * (1 + 1e-9)) and p.stable]
    side.sort(key=lambda p: p.value, reverse=not up)
    return side[0] if side else None


def correlations(f: CorrelationMap) -> tuple[FixedPoint, ...]:
    """The fixed points of a correlation map, 1 last."""
    defects = np.concatenate([np.geomspace(1e-30, 1e-3, 109), np.linspace(2e-3, 2, 1001)])
    lost = f.contraction(defects)
    found = []
    for i in np.flatnonzero((lost[:-1] > 0) != (lost[1:] > 0)):
        d = root(lambda x: float(f.contraction(np.array([x]))[0]), defects[i], defects[i + 1])
        slope = float(f.slope(np.array([d]))[0])
        error = d * f.errors[1] + abs(f.errors[0] / max(abs(1 - slope), 1e-16)) * d
        found.append(FixedPoint(1 - d, error, slope, abs(slope) < 1))
    if f.odd and not any(abs(p.value + 1) < 1e-12 for p in found):
        found.append(FixedPoint(-1.0, 0.0, f.chi, f.chi < 1))
    found.sort(key=lambda p: p.value)
    attracts = f.chi < 1 or (f.chi == 1 and float(f.contraction(np.array([1e-6]))[0]) >= 0)
    return (*found, FixedPoint(1.0, 0.0, f.chi, attracts))
