"""Functions of numbers that generated code calls, in plain Python: a compiler turns them into vector instructions.

For that they have no branches: both sides of a choice are computed, and one is selected. What `limits/gauss/correlations.py` and
`limits/gauss/duals.py` say of arrays is said here of numbers, to rounding.

arcsin(s) = s + s z Q(z), z = s^2 <= 1/4, where Q is the polynomial of degree 11 that interpolates (arcsin(s)/s - 1)/z at the
nodes of Chebyshev: at most 2.4e-16 apart, and its share of arcsin is a twenty-fourth. Above 1/2 it is arcsin(x) = pi/2 -
2 arcsin(sqrt((1 - x)/2)), whose argument loses nothing. Tests hold all against numbers of more digits, over the whole range, in
units of the last place.
"""

from __future__ import annotations

from math import exp, expm1, pi, sqrt

__all__ = ["HELPERS"]

EDGE = 1.0 - 8 * 2.0**-52
"""Correlations beyond it are 1: `SNAP` of `limits/gauss/correlations.py`."""
NEAR = 8 * 2.0**-52


def arcsin_of_half(x: float) -> float:
    """arcsin of x where |x| is at most 1/2, else of sqrt((1 - |x|)/2): at least 0."""
    a = abs(x)
    z = min(0.5 * (1.0 - a), a * a)
    s = sqrt(z)
    q = 0.028169218060881414
    q = q * z + -0.010749050339697808
    q = q * z + 0.01603551434914882
    q = q * z + 0.0078029494773533175
    q = q * z + 0.011875494382636922
    q = q * z + 0.013929652902326633
    q = q * z + 0.017355259955786323
    q = q * z + 0.02237204763174451
    q = q * z + 0.03038194736709848
    q = q * z + 0.044642857103423646
    q = q * z + 0.07500000000020764
    q = q * z + 0.1666666666666665
    return s + s * z * q


def arccos(x: float) -> float:
    """arccos of a number in [-1, 1]."""
    half = arcsin_of_half(x)
    beyond = 2.0 * half
    within = 0.5 * pi - half
    angle = beyond if abs(x) > 0.5 else within
    opposite = pi - angle
    return angle if x > 0.0 else opposite


def arcsin(x: float) -> float:
    """arcsin of a number in [-1, 1]."""
    half = arcsin_of_half(x)
    beyond = 0.5 * pi - 2.0 * half
    angle = beyond if abs(x) > 0.5 else half
    opposite = -angle
    return angle if x > 0.0 else opposite


def snapped(rho: float) -> float:
    """A correlation within [-1, 1]; what is within rounding of 1 or -1 is that."""
    rho = 1.0 if rho > EDGE else rho
    return -1.0 if rho < -EDGE else rho


def correlation(a: float, c: float, b: float) -> float:
    """c / sqrt(a b), snapped; 0 where a variance is not positive."""
    size = sqrt(max(a, 0.0)) * sqrt(max(b, 0.0))
    below = size if size > 0.0 else 1.0
    rho = snapped(c / below)
    return rho if size > 0.0 else 0.0


def root(a: float) -> float:
    """sqrt(a), 0 of what is negative."""
    return sqrt(max(a, 0.0))


def relu_kernel(rho: float, size: float) -> float:
    """E relu(u) relu(v), of the correlation and the product of the standard deviations (Cho and Saul 2009)."""
    across = sqrt((1.0 - rho) * (1.0 + rho))
    return size * (0.5 / pi) * (across + rho * (pi - arccos(rho)))


def sign_kernel(rho: float) -> float:
    """E sign(u) sign(v), of the correlation (Sheppard 1899)."""
    return arcsin(rho) * (2 / pi)


def residual(x: float, y: float, z: float, q: float) -> float:
    """x - y z / q, x where q is not positive; 0 if it is within rounding of its terms."""
    below = q if q > 0.0 else 1.0
    taken = y * z / below
    taken = taken if q > 0.0 else 0.0
    left = x - taken
    size = max(abs(x), abs(taken))
    return 0.0 if abs(left) <= NEAR * size else left


def pinv(q: float) -> float:
    """1/q, 0 where q is not positive."""
    below = q if q > 0.0 else 1.0
    inverse = 1.0 / below
    return inverse if q > 0.0 else 0.0


def density(q: float) -> float:
    """Of N(0, q) at 0; 0 where q is not positive."""
    return sqrt(pinv(q) * (0.5 / pi))


def difference(x: float, y: float, d: float) -> float:
    """exp(x) - exp(y), d = y - x: from the larger one."""
    larger = max(x, y)
    away = exp(larger) * expm1(-abs(d))
    back = -away
    return back if d < 0.0 else away


HELPERS = (
    arcsin_of_half, arccos, arcsin, snapped, correlation, root, relu_kernel, sign_kernel, residual, pinv, density,
    difference,
)  # fmt: skip
"""Each after those that it calls."""
