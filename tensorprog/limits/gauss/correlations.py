"""Correlations of Gaussian variables from their covariances, and differences of covariances, as arrays.

Everything that may be within rounding of a singular case is decided here: correlations within `SNAP` of 1 or -1 are 1 or -1, and
what is left of a variance is 0 if it is within that of what it is left from.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = [
    "SNAP", "WIDE", "angle", "correlation", "correlation_and_size", "empty", "is_small", "nearly_equal", "residual",
    "root_of_product", "widened",
]  # fmt: skip

SNAP = 8 * np.finfo(float).eps
"""Correlations closer to +-1 than this are +-1: the rounding of duplicate inputs, not information."""


WIDE = 64.0
"""Variances up to this many times the noise that is added to them lose no more than two digits."""


def correlation(a: Any, c: Any, b: Any) -> np.ndarray:
    """The correlation, within [-1, 1]; 0 where a variance is 0. A new array of the full shape.

    What is within rounding of 1 or -1 becomes that: duplicate inputs have correlation 1 exactly. Extrema are cheaper than
    masks, and tell that most arrays need no mending. Where the variances are smaller arrays, along rows or along columns,
    their roots are taken first.
    """
    return correlation_and_size(a, c, b)[0]


def correlation_and_size(a: Any, c: Any, b: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The same, and sqrt(a b), where that has been computed on the way: an array of the full shape, to be written to."""
    size = None
    if not (_least(a) > 0 and _least(b) > 0):
        a, b = np.maximum(a, 0.0), np.maximum(b, 0.0)
        size = root_of_product(a, b, empty(a, c, b))
        rho = np.divide(c, size, out=np.zeros_like(size), where=size > 0)
    else:
        rho = empty(a, c, b)
        if is_small(a, rho) and is_small(b, rho):
            np.multiply(c, 1.0 / np.sqrt(a), out=rho)
            rho *= 1.0 / np.sqrt(b)
        else:
            size = root_of_product(a, b, np.empty_like(rho))
            np.divide(c, size, out=rho)
    near = 8 * _limits(rho.dtype)[0]
    edge = 1.0 - near
    if rho.size and not (rho.max() < edge and rho.min() > -edge):
        np.clip(rho, -1.0, 1.0, out=rho)
        np.sign(rho, out=rho, where=1.0 - np.abs(rho) < near)
    return rho, size


def angle(s: Any, t: Any, a: Any, c: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """The correlation of u + sqrt(s) g and v + sqrt(t) g', with independent g and g', and the root of 1 less its square.

    The latter from a sum of what is not negative: noise is lost in its sum with a large variance, and so is the angle.
    """
    p, q = np.add(a, s), np.add(b, t)
    if np.max(a, initial=0.0) <= WIDE * np.min(s) or np.max(b, initial=0.0) <= WIDE * np.min(t) or not np.any(s + t):
        rho = correlation(p, c, q)
        return rho, np.sqrt((1.0 - rho) * (1.0 + rho))
    with np.errstate(all="ignore"):
        noise = [np.where(whole > 0, np.divide(x, whole), 0.0) for x, whole in ((s, p), (t, q))]
        first, second = [np.where(whole > 0, np.divide(x, whole), 0.0) for x, whole in ((a, p), (b, q))]
        left = np.where(p > 0, residual(a, c, c, b) / p, 0.0) * second
        across = np.maximum(left, 0.0) + first * noise[1] + second * noise[0] + noise[0] * noise[1]
        return correlation(a, c, b) * np.sqrt(first) * np.sqrt(second), np.sqrt(across)


def nearly_equal(rows: np.ndarray) -> bool:
    """Do some rows (n, d) differ that have the same inner products in floating point, or opposite ones?"""
    if len(rows) < 2:
        return False
    rows = np.asarray(rows, dtype=float)
    rows = rows[rows.any(axis=1)]  # what is 0 has no direction
    rows = np.unique(np.concatenate([rows, -rows]), axis=0)  # equal and opposite ones are known to be so
    gram = rows @ rows.T
    size = np.sqrt(np.diag(gram))
    return bool(np.count_nonzero(gram >= (1 - SNAP) * np.outer(size, size)) > len(rows))


def root_of_product(a: Any, b: Any, out: np.ndarray) -> np.ndarray:
    """sqrt(a b), a and b at least 0, also where the product leaves the range of floats."""
    with np.errstate(over="ignore", under="ignore"):
        np.sqrt(np.multiply(a, b, out=out), out=out)
    _, tiny, huge = _limits(out.dtype)
    if out.size and not (out.max() <= huge / 2 and out.min() >= 2 * tiny):
        apart = np.sqrt(a) * np.sqrt(b)
        np.copyto(out, apart, where=(apart > huge / 2) | (apart < 2 * tiny))
    return out


@cache
def _limits(dtype: Any) -> tuple[Any, Any, Any]:
    """The precision of floats, and the numbers whose squares are the smallest and the largest."""
    found = np.finfo(dtype)
    return found.eps, np.sqrt(found.tiny), np.sqrt(found.max)


def _least(a: Any) -> Any:
    """The smallest entry, or 1 if there is none below; the method alone costs a third of the function."""
    return min(a.min(), 1.0) if isinstance(a, np.ndarray) and a.size else np.min(a, initial=1.0)


def is_small(a: Any, full: np.ndarray) -> bool:
    """Does it vary along rows or columns only?"""
    return 4 * np.size(a) <= full.size


def empty(*arrays: Any) -> np.ndarray:
    """A new array that they broadcast to."""
    full = max([x for x in arrays if isinstance(x, np.ndarray)], key=_size, default=None)
    if full is not None and full.dtype.kind == "f" and all(_fits(x, full.shape) for x in arrays):
        return np.empty(full.shape, full.dtype)
    kind = np.result_type(*[x for x in arrays if np.ndim(x)]) if any(np.ndim(x) for x in arrays) else float
    return np.empty(np.broadcast_shapes(*[np.shape(x) for x in arrays]), kind)


def _size(x: np.ndarray) -> int:
    return x.size


def _fits(x: Any, shape: tuple[int, ...]) -> bool:
    """Does it broadcast to that shape?"""
    own = getattr(x, "shape", ())
    return len(own) <= len(shape) and all(
        [k in (1, full) for k, full in zip(reversed(own), reversed(shape), strict=False)]
    )


def residual(x: Any, y: Any, z: Any, q: Any) -> np.ndarray:
    """x - y z / q, and x where q is 0; a difference within rounding of its terms is 0, so that collinear variables stay so."""
    positive = _least(q) > 0
    taken = empty(x, y, z, q)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        np.multiply(y, z, out=taken)
        if positive and is_small(q, taken):
            taken *= 1.0 / np.asarray(q)
        elif positive:
            np.divide(taken, q, out=taken)
            if not np.isfinite(taken).all():
                taken = np.multiply(y, np.divide(z, q))
        else:
            taken = np.where(np.asarray(q) > 0, taken / np.where(np.asarray(q) > 0, q, 1.0), 0.0)
    if y is z and positive and taken.size:  # a variance, less something that is not negative
        left = np.subtract(x, taken, out=taken)
        if left.min() > SNAP * np.max(x):
            return left
        taken = x - left
    else:
        left = np.subtract(x, taken, out=np.empty_like(taken))
    if not left.size:
        return left
    largest = max(np.max(x), -np.min(x), taken.max(), -taken.min())
    if left.min() > SNAP * largest:
        return left
    near = np.abs(left) <= SNAP * np.maximum(np.abs(x), np.abs(taken))
    left[near] = 0.0
    return left


def widened(x: Any, y: Any, z: Any, q: Any, t: Any) -> np.ndarray:
    """x - y z / (q + t), t > 0, as (x q - y z + x t)/(q + t): nothing is lost where q is far above t and x q near y z."""
    whole = np.add(q, t)
    if np.size(q) and np.max(q) < WIDE * np.min(t):
        return residual(x, y, z, whole)
    with np.errstate(all="ignore"):
        share = np.divide(q, whole)
        left = residual(x, y, z, q)  # 0 where x, y and z are q
        return left * share + np.multiply(x, np.divide(t, whole))
