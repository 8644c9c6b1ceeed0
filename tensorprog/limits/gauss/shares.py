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

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tensorprog.limits.gauss.correlations import angle, correlation

__all__ = ["quadrant", "share", "slopes"]

Array = np.ndarray
NODES = 40
DEPTH = 40.0
"""The integral is cut where the integrand has fallen to exp(-DEPTH)."""
SMALL = 0.02
"""T' is a difference as long as it is this share of its terms at least."""
DIRECT, OWEN = 0.05, 2.0
"""A quadrant is a sum of Owen's functions as long as it is this share of its terms, and the means few deviations from 0: in
its tails Owen's function, as SciPy computes it, loses digits: it is off by 4e-13 of Phi(-h) at h = 3.4, by 3e-15 up to 2."""
WEAK, WEAK_NODES, CENTRAL = 0.5, 12, 4.0
"""Correlations up to which a Gauss rule integrates over correlations from 0 on, its nodes, and means for which they do."""
IN_RANGE = 600.0
"""Logarithms of factors that are multiplied as they are."""


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
    logarithm: Any, tail1: Any, tail2: Any, both: Any, m1: Any, m2: Any, s: Any, t: Any, a: Any, c: Any, b: Any
) -> tuple[Array, Array]:
    """exp(L) P(u + sqrt(s) g > 0, v + sqrt(t) g' > 0), and how large its rounding error is in units in the last place.

    Args:
        logarithm: L.
        tail1: L - m1^2/(2 (a + s)).
        tail2: L - m2^2/(2 (b + t)).
        both: L less half of the quadratic form of the means.
        m1: E u.
        m2: E v.
        s: Of independent noise.
        t: Likewise.
        a: Var u.
        c: Cov(u, v).
        b: Var v.
    """
    given = [np.asarray(x, dtype=float) for x in (logarithm, tail1, tail2, both, m1, m2, s, t, a, c, b)]
    scalar = not any(x.ndim for x in given)
    with np.errstate(all="ignore"):
        value, size = _mended([np.atleast_1d(x) for x in given], [_correlated, _direct, _careful])
    return (value.reshape(()), size.reshape(())) if scalar else (value, size)


def _mended(given: Sequence[Array], ways: Sequence[Any]) -> tuple[Array, Array]:
    """By the first way, and by those that follow where it is not good enough; the last one is good everywhere."""
    value, size, poor = ways[0](*given)
    if len(ways) > 1 and poor.any():
        value, size = [np.array(np.broadcast_to(x, poor.shape)) for x in (value, size)]
        value[poor], size[poor] = _mended([np.broadcast_to(x, poor.shape)[poor] for x in given], ways[1:])
    return value, size


def _correlated(
    logarithm: Array, tail1: Array, tail2: Array, both: Array, m1: Array, m2: Array, *law: Array
) -> tuple[Array, Array, Array]:
    """As `quadrant`, from independent variables on, and where that is not good enough: their correlation is not small.

    The derivative of the share with respect to the correlation is the density there (Plackett 1954). It is positive, and for a
    correlation above 0 nothing cancels.
    """
    from scipy.special import ndtr

    p, q = _widened(*law)
    rho, _ = angle(*law)
    h, k = [-m / np.sqrt(v) for m, v in ((m1, p), (m2, q))]
    alone = ndtr(-h) * ndtr(-k)
    good = (np.abs(rho) < WEAK) & (np.abs(logarithm) < IN_RANGE) & (p > 0) & (q > 0)
    good &= (np.abs(h) < CENTRAL) & (np.abs(k) < CENTRAL)
    if 2 * np.count_nonzero(good) < good.size:
        return alone, alone, np.ones(good.shape, bool)
    product, half = h * k, 0.5 * (h * h + k * k)
    total = np.zeros(good.shape)
    for node, weight in zip(*_weak_rule(), strict=True):
        r = node * rho
        term = product * r
        term -= half
        r *= r
        np.subtract(1.0, r, out=r)
        term /= r
        np.exp(term, out=term)
        np.sqrt(r, out=r)
        term /= r
        term *= weight
        total += term
    total *= rho
    factor = np.exp(logarithm)
    value, size = factor * (alone + total), factor * (alone + np.abs(total))
    return value, size, ~(good & (size < value / DIRECT))


def _direct(
    logarithm: Array, tail1: Array, tail2: Array, both: Array, m1: Array, m2: Array, *law: Array
) -> tuple[Array, Array, Array]:
    """As `quadrant`, by Owen's functions as they are; and where that is not good enough.

    That is where the share is small beside what it is added up from, a factor is far from 1, and where a number may be singular:
    a variance of 0, a correlation of 1, both means 0. What varies along rows or columns only stays so.
    """
    from scipy.special import ndtr, owens_t

    p, q = _widened(*law)
    _, root = angle(*law)
    h, k = [-m / np.sqrt(v) + 0.0 for m, v in ((m1, p), (m2, q))]
    inside = np.where((h < 0) & (k < 0), 1.0, 0.0)
    total, size, whole = inside, inside, inside
    for x, across in zip((h, k), slopes(m1, m2, *law), strict=True):
        far = np.abs(x)
        slope = across / (root * far)  # infinite where x is 0: T'(0, inf) = 0, T'(0, -inf) = 1/2
        one = 0.5 * ndtr(-far)
        part = np.where(np.isinf(slope), np.where(slope > 0, 0.0, 2 * one), one - owens_t(far, slope))
        total = total + np.where(x < 0, -part, part)
        size, whole = size + part, whole + one
    factor = np.exp(logarithm)
    value = factor * total
    # an angle: how it moves with the rounding of a correlation near 1 or -1
    size = np.maximum(factor * size / _steadied(root, *law), value)
    good = (total > DIRECT * whole) & (root > 0) & (p > 0) & (q > 0) & (np.abs(logarithm) < IN_RANGE)
    good = good & (np.abs(h) < OWEN) & (np.abs(k) < OWEN)
    return value, size, ~(good & np.isfinite(value) & np.isfinite(size))


def _careful(
    logarithm: Array, tail1: Array, tail2: Array, both: Array, m1: Array, m2: Array, *law: Array
) -> tuple[Array, Array, Array]:
    """As `quadrant`, from the side of the tails, and at singular numbers: arrays of one shape (B,)."""
    a, b = _widened(*law)
    rho, root = angle(*law)
    regular = (a > 0) & (b > 0)
    h, k = [np.where(regular, -m / np.sqrt(np.where(q > 0, q, 1.0)) + 0.0, 0.0) for m, q in ((m1, a), (m2, b))]
    one = np.exp(logarithm)
    parts = []
    apart = np.where(root > 0, root, 1.0)
    for x, across, tail in zip((h, k), slopes(m1, m2, *law), (tail1, tail2), strict=True):
        size = np.abs(x)
        slope = across / apart
        slope = np.where(size > 0, slope / np.where(size > 0, size, 1.0), np.copysign(np.inf, slope))
        parts.append(np.where(x < 0, -1.0, 1.0) * _owen(logarithm, tail, both, size, slope))
    inside = np.where((h < 0) & (k < 0), one, 0.0)
    value = inside + parts[0] + parts[1]
    size = (inside + np.abs(parts[0]) + np.abs(parts[1])) / _steadied(apart, *law)  # as above
    origin = (h == 0) & (k == 0)
    value = np.where(origin, one * (0.25 + np.arctan2(rho, root) / (2 * np.pi)), value)
    # collinear variables: a tail, or an interval
    edge = root == 0
    if edge.any():
        tails = [_tail(logarithm, tail, x) for x, tail in ((h, tail1), (k, tail2))]
        value = np.where(edge & (rho > 0), np.where(h > k, tails[0], tails[1]), value)
        first, second = [_tail(logarithm, tail, np.abs(x)) for x, tail in ((h, tail1), (k, tail2))]
        between = np.where(h > 0, first - second, np.where(k > 0, second - first, one * (_half(h) + _half(k))))
        value = np.where(edge & (rho < 0), np.where(h + k < 0, between, 0.0), value)
        size = np.where(edge & (rho < 0) & ((h > 0) | (k > 0)), first + second, np.where(edge, 0.0, size))
    size = np.where(origin & ~(edge & (rho < 0) & ((h > 0) | (k > 0))), 0.0, size)
    if regular.all():
        value = np.maximum(value, 0.0)
    else:
        fixed = np.where(
            a > 0,
            share(logarithm, tail1, m1, a) * np.heaviside(m2, 0.5),
            share(logarithm, tail2, m2, b) * np.heaviside(m1, 0.5),
        )
        value = np.where(regular, np.maximum(value, 0.0), fixed)
    return value, np.maximum(np.where(regular, size, 0.0), value), np.zeros(value.shape, bool)


def slopes(m1: Array, m2: Array, s: Array, t: Array, a: Array, c: Array, b: Array) -> tuple[Array, Array]:
    """k - rho h and h - rho k of h = -E u/sqrt(Var u + s), k = -E v/sqrt(Var v + t), which cancel where u and v are close.

    Then both are of one difference: what its rounding makes of one quadrant, it takes from the other one.
    """
    p, q = _widened(s, t, a, c, b)
    r = correlation(a, c, b)
    near = (np.abs(r) > WEAK) & (a > 0) & (b > 0)
    ratio = np.where(near, np.sqrt(b) / np.sqrt(a), 1.0)
    side = np.where(r < 0, -1.0, 1.0)
    gap = m2 - side * ratio * m1
    ahead = np.where(near, gap + (side - r) * ratio * m1, m2 - m1 * np.where(a > 0, c / a, 0.0))
    back = np.where(near, (side - r) * m2 / ratio - side * gap / ratio, m1 - m2 * np.where(b > 0, c / b, 0.0))
    return -(m2 * (s / p) + ahead * (a / p)) / np.sqrt(q), -(m1 * (t / q) + back * (b / q)) / np.sqrt(p)


def _widened(s: Array, t: Array, a: Array, c: Array, b: Array) -> tuple[Array, Array]:
    """The variances with their noise."""
    return a + s, b + t


def _steadied(root: Array, s: Array, t: Array, a: Array, c: Array, b: Array) -> Array:
    """By what rounding of a covariance is divided: nothing where only noise keeps a variable apart from itself."""
    return np.where((s + t > 0) & (a == c) & (c == b), 1.0, root)


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
    small = ~((near > SMALL * whole) & (h < OWEN)) & np.isfinite(size) | ~np.isfinite(scaled)
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
def _weak_rule() -> tuple[list[float], list[float]]:
    """Gauss's rule on (0, 1), over 2 pi."""
    nodes, weights = np.polynomial.legendre.leggauss(WEAK_NODES)
    return ((nodes + 1) / 2).tolist(), (weights / (4 * np.pi)).tolist()


@cache
def _rule() -> tuple[list[float], list[float]]:
    """Gauss's rule on (0, 1), for functions of the square root: most of the integral is near 0."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    t = (nodes + 1) / 2
    return (t * t).tolist(), (weights * t).tolist()
