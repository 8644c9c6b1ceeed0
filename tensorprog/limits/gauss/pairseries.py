"""Integrals of f(z_0) g(z_1) in the scalar program: large arrays of them by Mehler's series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorprog.limits.gauss.integrand import Integrand
from tensorprog.limits.gauss.rounding import EPS, SAFETY

__all__ = ["PairProduct"]

Array = np.ndarray

ROUNDING = 3 * EPS


class PairProduct:
    """A product of one function of each of two variables, ready for `tensorprog.limits.gauss.series.PairSeries`.

    The series knows its errors, so level 0 is level 1 moved by its error bound: evaluating twice shows how that error
    propagates, and the difference of the two, times SAFETY, is the bound again.
    """

    def __init__(self, left: Integrand, right: Integrand) -> None:
        from tensorprog.limits.gauss.integrate import Feature

        def function(h: Integrand) -> Any:
            return lambda u: h([u], [])

        self._f = function(left)
        self._g = self._f if left is right else function(right)
        self._left, self._right = ([Feature(0, a, s) for _, a, s in h.features] for h in (left, right))

    @staticmethod
    def of(integrand: Integrand) -> PairProduct | None:
        """None if the integrand is no such product."""
        parts = None if integrand.turns else integrand.split()
        return None if parts is None else PairProduct(*parts)

    def _series(self, level: int) -> Any:
        from tensorprog.limits.gauss.series import PairSeries

        return PairSeries(self._f, self._g, self._left, self._right, max(level, 1))

    def outer(self, args: Sequence[Array], level: int) -> Array | None:
        """Values where marginals depend on one of two axes each, a Gram matrix; None where they do not.

        Args:
            args: Two means; variance, covariance, variance; they broadcast to a matrix.
            level: 1, or 0 for the value moved by its error.
        """
        shape = np.broadcast_shapes(*[a.shape for a in args])
        if len(shape) != 2 or min(shape) < 2:
            return None
        u, v = [args[0], args[2]], [args[1], args[4]]
        # The order of the variables is that of their digests: u may be the columns.
        for rows, cols in ((1, 0), (0, 1)):
            found = [_along(a, rows) for a in u] + [_along(a, cols) for a in v]
            left, right = ([a for a in part if a is not None] for part in (found[:2], found[2:]))
            if len(left) == len(right) == 2:
                break
        else:
            return None
        cov = np.broadcast_to(args[3], shape)
        cov = cov if rows else cov.T
        given = [np.broadcast_to(a, n) for part, n in zip((left, right), cov.shape, strict=True) for a in part]
        series = self._series(level)
        series.prepare(*given)
        value = np.asarray(_moved(series.matrix(cov, errors=level == 0)))
        return value if rows else value.T

    def tiled(self, rows: Sequence[Array], cols: Sequence[Array], shape: tuple[int, int], level: int) -> Any:
        """For tiles of a matrix of values: called with rows, columns (slices) and the tile's covariances.

        Args:
            rows: Mean and variance of the variable that depends on the row, shape (N1,) or (1,).
            cols: Of the other one.
            shape: (N1, N2).
            level: As for `outer`.
        """
        series = self._series(level)
        series.prepare(*[np.broadcast_to(a, n) for part, n in zip((rows, cols), shape, strict=True) for a in part])

        def tile(i: slice, j: slice, cov: Array) -> Array:
            return np.asarray(_moved(series(i, j, cov, errors=level == 0)))

        return tile

    def listed(self, mean: Array, cov: Array, level: int) -> Array:
        """Values for a list of Gaussians, mean (B, 2) and cov (B, 2, 2)."""
        series = self._series(level)
        series.prepare(mean[:, 0], cov[:, 0, 0], mean[:, 1], cov[:, 1, 1])
        each = np.arange(len(mean))
        return np.asarray(_moved(series.pairs(each, each, cov[:, 0, 1], errors=level == 0)))


def _moved(found: Any) -> Array:
    return found[0] + found[1] / SAFETY if isinstance(found, tuple) else found


def _along(a: Array, axis: int) -> Array | None:
    """An array that is constant along an axis of a matrix, up to rounding, without that axis; else None."""
    if a.ndim == 0:
        return a.reshape(1)
    if a.ndim == 1:
        a = a[None]
    first = a.take([0], axis=axis)
    if a.shape[axis] > 1 and a.strides[axis]:
        # Up to rounding, because the entries of a constant matrix are perturbed one by one.
        difference = np.abs(a - first)
        if not np.all(difference <= ROUNDING * np.abs(first)):
            return None
    return first.reshape(-1)
