"""Functions as Chebyshev series, on one interval or piece by piece."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev

__all__ = ["Pieces", "clenshaw", "nodes", "series", "tail"]

Array = np.ndarray


def nodes(count: int, low: float, high: float) -> Array:
    """The roots of a Chebyshev polynomial, moved to an interval, in ascending order."""
    return 0.5 * (high + low) - 0.5 * (high - low) * np.cos(np.pi * (np.arange(count) + 0.5) / count)


def series(values: Array) -> Array:
    """Coefficients of the polynomial through values at `nodes` (the first axis)."""
    count = len(values)
    k = np.arange(count)
    matrix = np.cos(np.pi * np.outer(k, k[::-1] + 0.5) / count) * (2 / count)
    matrix[0] /= 2
    return np.asarray(matrix @ values)


def tail(coefficients: Array) -> float:
    """The size of the last coefficients beside the largest: how well a series has converged."""
    sizes = np.abs(coefficients)
    last = max(2, len(sizes) // 8)
    return float(sizes[-last:].max() / max(sizes.max(), 1e-300))


class Pieces:
    """Functions on an interval as series on pieces of equal length.

    Args:
        low: Where the interval begins.
        high: Where it ends, at most one piece before the last one does.
        length: Of a piece.
        degree: Of the series.
    """

    def __init__(self, low: float, high: float, length: float, degree: int) -> None:
        self.low, self.length, self.degree = low, length, degree
        self.count = int(np.ceil((high - low) / length))
        self.high = low + self.count * length
        starts = low + length * np.arange(self.count)
        self.nodes = np.concatenate([nodes(degree + 1, s, s + length) for s in starts])

    def fit(self, *values: Array) -> Array:
        """Series of some functions by their values at the nodes: (coefficients, functions, pieces)."""
        stacked = np.stack([v.reshape(self.count, self.degree + 1) for v in values])
        return series(np.moveaxis(stacked, -1, 0).reshape(self.degree + 1, -1)).reshape(
            self.degree + 1, len(values), self.count
        )

    def place(self, x: Array) -> Array:
        """The piece of every x."""
        return np.clip(((x - self.low) / self.length).astype(int), 0, self.count - 1)

    def evaluate(self, fitted: Array, x: Array) -> Array:
        """The functions at x, (functions, *x.shape); beyond the interval the values at its ends."""
        x = np.clip(x, self.low, self.high)
        place = self.place(x)
        local = 2 * (x - self.low - place * self.length) / self.length - 1
        return np.asarray(clenshaw(fitted[:, :, place], local))


def clenshaw(coefficients: Array, x: Array) -> Array:
    """A series whose coefficients may be different at every x."""
    if len(coefficients) == 1:
        return coefficients[0] + 0 * x
    return np.asarray(chebyshev.chebval(x, coefficients, tensor=False))
