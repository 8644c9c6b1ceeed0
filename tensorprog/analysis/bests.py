"""Where a curve of points is least, and how well that is known: parabolas, other curves, and the spread of replicates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorprog.estimate import Estimate
from tensorprog.limits.evaluate.errors import student

__all__ = ["Valley", "line", "next_value", "valley"]

DOUBT = 10
"""Times how far curves through the same points differ is what each may be wrong by, up to the distance to the neighbours."""
GOLDEN = (3 - math.sqrt(5)) / 2


@dataclass(frozen=True, eq=False)
class Valley:
    """Losses against a hyperparameter, and where they are least.

    Attributes:
        values: Of the hyperparameter, ascending.
        losses: Their means; infinite where there is none.
        best: Where they are least; None where that is at the edge of what is known.
        least: The least of the losses.
    """

    values: np.ndarray
    losses: np.ndarray
    best: Estimate | None
    least: float

    def at(self, value: float) -> float | None:
        """The loss at any value: by the parabola beside the least one, else by straight lines; None beyond what is known."""
        x, y = _axis(self.values), _axis(self.losses)
        if not self.values[0] <= value <= self.values[-1]:
            return None
        here = math.log(value) if _positive(self.values) else value
        i, j = int(np.argmin(self.losses)), int(np.searchsorted(x, here))
        near = slice(j, j + 1) if x[j] == here else slice(j - 1, j + 1)
        if 0 < i < len(x) - 1 and x[i - 1] <= here <= x[i + 1] and np.isfinite(y[i - 1 : i + 2]).all():
            near = slice(i - 1, i + 2)
        if not np.isfinite(y[near]).all():
            return None
        level = float(np.polyval(_polynomial(x[near], y[near], x[i]), here - x[i]))
        return math.exp(level) if _positive(self.losses) else level


def valley(values: Sequence[float], losses: np.ndarray) -> Valley:
    """Where the mean of losses is least.

    The place is the vertex of a parabola through the least mean and its neighbours, on logarithmic axes where numbers are
    positive. Its error: the standard error of the slope there over the curvature (the slopes of replicates know that all values
    share their randomness), and ten times the distance to what cubics through a fourth point, and the parabola on a linear
    axis, say; at most, or where nothing else is known, the distance to the neighbours: a curve with one minimum has it between
    them.

    Args:
        values: Of the hyperparameter, ascending.
        losses: (replicates, values); infinite where there is none.
    """
    x, a = np.asarray(values, dtype=float), np.asarray(losses, dtype=float)
    mean = a.mean(axis=0)
    i = int(np.argmin(mean))
    least = float(mean[i])
    if not np.isfinite(least) or i in (0, len(x) - 1):
        return Valley(x, mean, None, least)
    axis = _axis(x)
    place, shape = _vertex(axis, mean, i)
    error = _spread(axis[i - 1 : i + 2], a[:, i - 1 : i + 2]) + shape
    value = math.exp(place) if _positive(x) else place
    best = Estimate(value, value * error if _positive(x) else error, "parabola", "standard error")
    return Valley(x, mean, best, least)


def next_value(values: Sequence[float], losses: np.ndarray) -> float | None:
    """Where to look next for the least mean: in the larger gap beside it, by the golden section; None at an edge.

    Example:
        >>> round(next_value([1.0, 2.0, 8.0], np.array([[3.0, 1.0, 2.0]])), 3)
        3.396
    """
    x = np.asarray(values, dtype=float)
    mean = losses.mean(axis=0)
    i = int(np.argmin(mean))
    if not np.isfinite(mean[i]) or i in (0, len(x) - 1):
        return None
    low, middle, high = _axis(x)[i - 1 : i + 2]
    end = high if high - middle > middle - low else low
    place = float(middle + GOLDEN * (end - middle))
    return math.exp(place) if _positive(x) else place


def line(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> Estimate:
    """The slope of a straight line, by weighted least squares; its error is raised where points scatter by more than theirs.

    Example:
        >>> line(np.array([0.0, 1, 2]), np.array([1.0, 3, 5]), np.full(3, 0.1)).value
        2.0
    """
    floor = 1e-9 + 1e-3 * float(np.max(error, initial=0.0))
    w = 1 / (error + floor) ** 2
    centre = float((w * x).sum() / w.sum())
    d = x - centre
    spread = float((w * d * d).sum())
    slope = float((w * d * y).sum() / spread)
    rest = y - (w * y).sum() / w.sum() - slope * d
    scatter = float((w * rest**2).sum() / (len(x) - 2)) if len(x) > 2 else 1.0
    return Estimate(slope, math.sqrt(max(scatter, 1.0) / spread), "least squares", "standard error")


def _positive(y: np.ndarray) -> bool:
    return bool((y > 0).all())


def _axis(y: np.ndarray) -> np.ndarray:
    return np.log(y) if _positive(y) else y


def _vertex(x: np.ndarray, mean: np.ndarray, i: int) -> tuple[float, float]:
    """The place where a parabola is least, between the neighbours, and what it may be wrong by."""
    y = _axis(mean)
    low, middle, high = map(float, x[i - 1 : i + 2])
    found = _least(x, y, range(i - 1, i + 2), middle) if np.isfinite(y[i - 1 : i + 2]).all() else None
    if found is None:
        return middle, max(high - middle, middle - low)
    others = [_least(x, mean, range(i - 1, i + 2), middle)]
    for points in (range(i - 2, i + 2), range(i - 1, i + 3)):
        if points[0] >= 0 and points[-1] < len(x) and np.isfinite(y[list(points)]).all():
            others.append(_least(x, y, points, middle))
    widest = max(high - found, found - low)
    if len(others) == 1 or None in others:
        return found, widest
    return found, min(widest, DOUBT * max([abs(o - found) for o in others if o is not None]))


def _spread(x: np.ndarray, losses: np.ndarray) -> float:
    """The standard error of the place where the mean of curves is least, from three points of each.

    Where the mean is flat each curve has a slope; the mean of as many others would be off by the standard error of these slopes,
    and be flat that far away over its curvature.
    """
    if len(losses) < 2 or not np.isfinite(losses).all():
        return 0.0
    size = float(np.abs(losses).max()) or 1.0
    parabolas = np.polyfit(x - x[1], losses.T / size, 2)
    curvature = 2 * float(parabolas[0].mean())
    slopes = parabolas[1]
    error = float(slopes.std(ddof=1)) / math.sqrt(len(slopes)) * student(len(slopes) - 1)
    return error / curvature if curvature > 0 else float(x[2] - x[0])


def _polynomial(x: np.ndarray, y: np.ndarray, centre: float) -> np.ndarray:
    return np.polyfit(x - centre, y, len(x) - 1)


def _least(x: np.ndarray, y: np.ndarray, points: Sequence[int], centre: float) -> float | None:
    """Where the polynomial through these points is least near the centre, one of them; None if nowhere between its neighbours."""
    index = list(points)
    i = int(np.searchsorted(x, centre))
    p = _polynomial(x[index], y[index], centre)
    slope = np.polyder(p)
    inside = [
        float(r.real) + centre
        for r in np.roots(slope)
        if abs(r.imag) < 1e-12 and x[i - 1] < r.real + centre < x[i + 1] and np.polyval(np.polyder(slope), r.real) > 0
    ]
    return min(inside, key=lambda r: float(np.polyval(p, r - centre)), default=None)
