"""Shares of a half line and of a quadrant under a Gaussian, times exponentials, without overflow or underflow.

exp(L) P(u > 0) with u ~ N(m, q) is what an exponential leaves of a half (`closed.py`): L and -m/sqrt(q) are large together, and
their factors out of range long before the product is. Where the share is a tail it is exp(X) times a number of order one,

    P(u > 0) = exp(-h^2/2) erfcx(h/sqrt(2))/2,   h = -m/sqrt(q),

and X = L - h^2/2 is given, found without subtracting. A quadrant is a sum of two of Owen's functions (Owen 1956), from the side
of their tails:

    T'(h, x) = 1/(2 pi) times the integral of exp(-h^2 (1 + y^2)/2)/(1 + y^2) over y > x  =  Phi(-h)/2 - T(h, x),

which is exp(-h^2 (1 + x^2)/2) times a number of order one, too: the integral, in s = arsinh(y), by a Gauss rule.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tensorprog.limits.correlations import correlation

__all__ = ["quadrant", "share"]

Array = np.ndarray
NODES = 40
DEPTH = 40.0
"""The integral is cut where the integrand has fallen to exp(-DEPTH)."""
SMALL = 0.02
"""T' is a difference as long as it is this share of its terms at least."""


def share(logarithm: Any, tail: Any, m: Any, q: Any) -> Array:
    """exp(L) P(u > 0), u ~ N(m, q); half of exp(L) where u is 0.

    Args:
        logarithm: L.
        tail: X = L - m^2/(2 q).
        m: Mean.
        q: Variance.

    Example:
        >>> float(share(200.0, 0.0, -20.0, 1.0))  # exp(200) Phi(-20): of numbers that are 7e86 and 3e-89
        0.0198976...
    """
    logarithm, tail, m, q = [np.asarray(a, dtype=float) for a in (logarithm, tail, m, q)]
    with np.errstate(all="ignore"):
        h = -m / np.sqrt(np.where(q > 0, q, 1.0))
        return np.where(q > 0, _tail(logarithm, tail, h), _times(logarithm, np.heaviside(m, 0.5)))


def _times(logarithm: Array, x: Array) -> Array:
    """exp(L) x, and 0 where x is 0."""
    return np.where(x == 0, 0.0, np.exp(logarithm) * x)


def _tail(logarithm: Array, tail: Array, h: Array) -> Array:
    """exp(L) Phi(-h), exp(X) = exp(L - h^2/2)."""
    from scipy.special import erfcx, ndtr

    return np.where(h > 0, np.exp(tail) * (0.5 * erfcx(np.maximum(h, 0.0) / np.sqrt(2))), _times(logarithm, ndtr(-h)))


def quadrant(
    logarithm: Any, tail1: Any, tail2: Any, both: Any, m1: Any, m2: Any, a: Any, c: Any, b: Any
) -> tuple[Array, Array]:
    """exp(L) P(u > 0, v > 0), and how large its rounding error is in units in the last place.

    Args:
        logarithm: L.
        tail1: L - m1^2/(2 a).
        tail2: L - m2^2/(2 b).
        both: L less half of the quadratic form of the means.
        m1: E u.
        m2: E v.
        a: Var u.
        c: Cov(u, v).
        b: Var v.
    """
    given = [np.asarray(x, dtype=float) for x in (logarithm, tail1, tail2, both, m1, m2, a, c, b)]
    logarithm, tail1, tail2, both, m1, m2, a, c, b = np.broadcast_arrays(*given)
    rho = np.asarray(correlation(a, c, b))
    with np.errstate(all="ignore"):
        regular = (a > 0) & (b > 0)
        root = np.sqrt((1 - rho) * (1 + rho))
        h, k = [np.where(regular, -m / np.sqrt(np.where(q > 0, q, 1.0)) + 0.0, 0.0) for m, q in ((m1, a), (m2, b))]
        one = np.exp(logarithm)
        parts = []
        apart = np.where(root > 0, root, 1.0)
        for x, y, tail in ((h, k, tail1), (k, h, tail2)):
            size = np.abs(x)
            slope = (y - rho * x) / apart
            slope = np.where(size > 0, slope / np.where(size > 0, size, 1.0), np.copysign(np.inf, slope))
            parts.append(np.where(x < 0, -1.0, 1.0) * _owen(logarithm, tail, both, size, slope))
        inside = np.where((h < 0) & (k < 0), one, 0.0)
        value = inside + parts[0] + parts[1]
        # an angle: how it moves with the rounding of a correlation near 1 or -1
        size = (inside + np.abs(parts[0]) + np.abs(parts[1])) / apart
        origin = (h == 0) & (k == 0)
        value = np.where(origin, one * (0.25 + np.arctan2(rho, root) / (2 * np.pi)), value)
        # collinear variables: a tail, or an interval
        tails = [_tail(logarithm, tail, x) for x, tail in ((h, tail1), (k, tail2))]
        value = np.where(rho >= 1, np.where(h > k, tails[0], tails[1]), value)
        first, second = [_tail(logarithm, tail, np.abs(x)) for x, tail in ((h, tail1), (k, tail2))]
        between = np.where(h > 0, first - second, np.where(k > 0, second - first, one * (_half(h) + _half(k))))
        value = np.where(rho <= -1, np.where(h + k < 0, between, 0.0), value)
        edge = np.abs(rho) >= 1
        size = np.where(edge & (rho < 0) & ((h > 0) | (k > 0)), first + second, np.where(edge | origin, 0.0, size))
        fixed = np.where(
            a > 0,
            share(logarithm, tail1, m1, a) * np.heaviside(m2, 0.5),
            share(logarithm, tail2, m2, b) * np.heaviside(m1, 0.5),
        )
        value = np.where(regular, np.maximum(value, 0.0), fixed)
    return value, np.maximum(np.where(regular, size, 0.0), value)


def _half(h: Array) -> Array:
    """P(0 < g < |h|)."""
    from scipy.special import erf

    return 0.5 * np.asarray(erf(np.abs(h) / np.sqrt(2)))


def _owen(logarithm: Array, tail: Array, both: Array, h: Array, x: Array) -> Array:
    """exp(L) T'(h, x), h >= 0."""
    from scipy.special import ndtr, owens_t

    size = np.abs(x)
    whole = 0.5 * ndtr(-h)
    near = np.where(np.isinf(size), 0.0, whole - owens_t(h, np.where(np.isinf(size), 0.0, size)))
    scaled = np.exp(logarithm) * near
    small = ~(near > SMALL * whole) & np.isfinite(size) | ~np.isfinite(scaled)
    if np.any(small):
        scaled = np.array(np.broadcast_to(scaled, np.shape(small)))
        scaled[small] = np.exp(both[small]) * _scaled_owen(h[small], size[small])
    return np.where(x >= 0, scaled, _tail(logarithm, tail, h) - scaled)


def _scaled_owen(h: Array, x: Array) -> Array:
    """exp(h^2 (1 + x^2)/2) T'(h, x), x >= 0."""
    from scipy.special import ndtr, owens_t

    out = np.zeros(h.shape)
    finite = np.isfinite(x) & np.isfinite(h)  # T'(h, inf) = 0
    reach = np.where(finite, h * np.where(finite, x, 0.0), np.inf)
    far = (reach >= 1) | (
        h >= 1
    )  # else few cancel in Owen's identity, T'(h, x) = T(h x, 1/x) - (Phi(h) - 1/2) Phi(-h x)
    i = np.flatnonzero(far & finite)
    if len(i):
        u, y = h[i], x[i]
        root = np.hypot(1, y)
        beyond = 2 * DEPTH / (u * u)  # y^2 where it is cut, less x^2
        high = np.sqrt(y * y + beyond)
        span = np.arcsinh(beyond / (high * root + y * np.hypot(1, high)))
        total = np.zeros(len(i))
        for node, weight in zip(*_rule(), strict=True):
            sinh = np.sinh(span * node)  # with y = sinh(r): sinh(r + s)^2 - sinh(r)^2 = sinh(2 r + s) sinh(s)
            cosh = np.sqrt(1 + sinh * sinh)
            double = 2 * y * root * cosh + (1 + 2 * y * y) * sinh
            total += weight * np.exp(-0.5 * (u * double) * (u * sinh)) / (root * cosh + y * sinh)
        out[i] = total * span / (2 * np.pi)
    i = np.flatnonzero(~far & (x > 0))
    if len(i):
        u, y, r = h[i], x[i], reach[i]
        plain = owens_t(r, 1 / y) - _half(u) * ndtr(-r)
        out[i] = plain * np.exp(0.5 * (u * u + r * r))
    i = np.flatnonzero(~far & (x == 0))
    out[i] = 0.5 * ndtr(-h[i]) * np.exp(0.5 * h[i] ** 2)
    return out


@cache
def _rule() -> tuple[list[float], list[float]]:
    """Gauss's rule on (0, 1), for functions of the square root: most of the integral is near 0."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    t = (nodes + 1) / 2
    return (t * t).tolist(), (weights * t).tolist()
