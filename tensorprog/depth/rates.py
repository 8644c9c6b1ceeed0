"""How the tangent kernel tends to its limit: the form of the remainder and its constant, by theory and by a fit.

At the edge of chaos, with K^L over the variance, b0 the block's own kernel of an input with itself, c = 1 - g = cos(theta):

| near 1                                | who                              | K^L                                              |
|---------------------------------------|----------------------------------|--------------------------------------------------|
| f' = 1 - 2 a g + 3 b g^2 - ..         | smooth functions                 | b0/3 (L + (1 - b/a^2) log L) + O(1)              |
| f' = 1 - r theta + s theta^2 - ..     | kinks (relu)                     | b0/4 (L + (3/2 - 9 s/(4 r^2)) log L) + O(1)      |
| f' = 1 - a theta^2 + t theta^3 - ..   | jumps of the second derivative   | b0/3 (L - (6/25) (2/a)^(3/2) t L^(1/2)) + ..     |

All follow from putting power series of 1/g or 1/theta in L into the recursions. In the ordered and the chaotic phase corrections
fall as L f'(c*)^L; where kinks meet correlations that tend to 1, as chi^(L/2), since the angle does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorprog.depth.maps import CorrelationMap
from tensorprog.depth.ntk import Doubled
from tensorprog.estimate import Estimate

__all__ = ["Rate", "rate"]

FITTED = range(11, 22)
"""Depths of a fit, as powers of two: deep enough for the form, shallow enough for the digits."""
FLAT = 1e-9
"""A coefficient that is smaller, beside the next, is 0."""


@dataclass(frozen=True)
class Rate:
    """How K^L of two different inputs, over the variance, depends on the depth.

    Attributes:
        form: The law, with `limit` and `remainder` for its constants.
        limit: That of K^L/L at the edge of chaos, else of K^L; by theory.
        remainder: The coefficient of what comes next (edge), or the logarithm of the factor per layer; by theory.
        fitted_limit: The same, fitted to kernels of depths up to a million.
        fitted_remainder: Likewise.
        diagonal: What multiplies the kernel of an input with itself at every layer: 1 at the edge, where it grows by
            `diagonal_growth`.
        diagonal_growth: The block's own kernel of an input with itself.
    """

    form: str
    limit: Estimate
    remainder: Estimate
    fitted_limit: Estimate
    fitted_remainder: Estimate
    diagonal: float
    diagonal_growth: float

    def __repr__(self) -> str:
        rows = [
            self.form,
            f"limit      {self.limit!r}; fitted {self.fitted_limit!r}",
            f"remainder  {self.remainder!r}; fitted {self.fitted_remainder!r}",
        ]
        return "\n".join(rows)


def rate(f: CorrelationMap, doubled: Doubled, c_star: float) -> Rate:
    """The rate of a map whose correlations tend to c*."""
    start = 0.5 if f.odd else 0.0
    if f.chi == 1 and c_star == 1:
        return _edge(f, doubled, start)
    star = 1 - c_star
    at = np.array([star])
    slope, own = (f.chi, f.diagonal) if star == 0 else (float(f.slope(at)[0]), float(f.own(at)[0]))
    value = own / (1 - slope)
    noise = f.errors[0] + f.errors[1] * abs(f.chi - slope)
    moved = noise / abs(1 - slope) if star else 0.0  # of c*, and of what depends on it
    error = (f.errors[2] + (1 + abs(value)) * (noise + moved)) / abs(1 - slope) + 1e-15
    limit = Estimate(value, error, "fixed point", "bound")
    kinked = star == 0 and not f.smooth and abs(_at_one(f)[0]) > FLAT
    factor = abs(slope) ** 0.5 if kinked else abs(slope)
    with np.errstate(divide="ignore"):
        remainder = Estimate(float(np.log(factor)), noise / max(abs(slope), 1e-300) + 1e-16, "fixed point", "bound")
    fitted = _decay(doubled, start, factor, 0 if kinked else 1)
    where = "1" if star == 0 else f"{c_star:.9g}"
    form = f"K^L/q = limit + O({'' if kinked else 'L '}exp(remainder L)): correlations tend to {where}"
    return Rate(form, limit, remainder, *fitted, f.chi, f.diagonal)


def _edge(f: CorrelationMap, doubled: Doubled, start: float) -> Rate:
    r = _at_one(f)
    noise = f.errors[1] + 1e-15 * len(f.ratio) ** 4
    own = f.diagonal
    if f.smooth and abs(r[0]) > FLAT:
        a, b = r[0] / 2, -r[1] / 3
        limit, remainder = own / 3, own / 3 * (1 - b / a**2)
        form, power = "K^L/q = limit L + remainder log L + O(1)", "log"
        size = abs(b) / a**2
    elif not f.smooth and abs(r[0]) > FLAT:
        rho, sigma = r[0], -r[1]
        limit, remainder = own / 4, own / 4 * (1.5 - 2.25 * sigma / rho**2)
        form, power = "K^L/q = limit L + remainder log L + O(1)", "log"
        size = 2.25 * abs(sigma) / rho**2
    elif not f.smooth and abs(r[1]) > FLAT:
        a, t = r[1], -r[2] / 2
        limit, remainder = own / 3, -own / 3 * 0.24 * (2 / a) ** 1.5 * t
        form, power = "K^L/q = limit L + remainder L^(1/2) + O(log L)", "root"
        size = 1.0
    else:
        c = Estimate(start * own, 1e-15, "theory", "bound")
        none = Estimate(0.0, 1e-15, "theory", "bound")
        return Rate("K^L/q = c limit L: correlations stay as they are", c, none, c, none, 1.0, own)
    limits = Estimate(limit, abs(limit) * f.errors[2] + 1e-16, "theory", "bound")
    remainders = Estimate(remainder, abs(limit) * noise * (1 + size) + 1e-15, "theory", "bound")
    return Rate(form, limits, remainders, *_fit(doubled, start, power), 1.0, own)


def _at_one(f: CorrelationMap) -> list[float]:
    """r and its derivatives at correlation 1."""
    top = 2.0 if f.smooth else np.pi
    return [float(np.polynomial.chebyshev.chebval(-1.0, _derived(f.ratio, k))) * (2 / top) ** k for k in range(3)]


def _derived(a: np.ndarray, k: int) -> np.ndarray:
    return np.polynomial.chebyshev.chebder(a, k) if k and len(a) > k else a if not k else np.zeros(1)


def _kernels(doubled: Doubled, start: float, depths: np.ndarray) -> np.ndarray:
    c = np.array([start])
    return np.array([doubled.after(int(L) - 1, 1 - c, c)[1][0] for L in depths])


def _fit(doubled: Doubled, start: float, power: str) -> tuple[Estimate, Estimate]:
    """The first two coefficients by least squares, with terms that vanish beside them; errors by leaving one of these out."""
    L = 2.0 ** np.array(FITTED)
    K = _kernels(doubled, start, L)
    log, root = np.log(L), L**0.5
    if power == "log":
        basis = [L, log, L**0, log**2 / L, log / L, 1 / L]
    else:
        basis = [L, root, log, L**0, log / root, 1 / root, log / L]
    found = []
    for terms in (basis, basis[:-1]):
        matrix = np.stack(terms, 1) / L[:, None]
        scale = np.abs(matrix).max(0)
        x = np.linalg.lstsq(matrix / scale, K / L, rcond=None)[0] / scale
        found.append(x[:2])
    (limit, remainder), other = found
    errors = np.abs(found[0] - other)
    method = f"least squares, depths to {int(L[-1])}"
    return Estimate(float(limit), float(errors[0]), method, "bound"), Estimate(
        float(remainder), float(errors[1]), method, "bound"
    )


def _decay(doubled: Doubled, start: float, slope: float, power: int) -> tuple[Estimate, Estimate]:
    """The limit by the deepest kernel, the rate by two depths at which the rest is small and not yet rounding."""
    deepest = 2**40
    last = float(_kernels(doubled, start, np.array([deepest]))[0])
    method = "kernels of two depths"
    if slope <= 1e-3 or slope >= 1:
        none = Estimate(float("nan"), float("inf"), method, "bound", "too fast, or too slow, to be seen")
        return Estimate(last, 1e-12 * abs(last) + 1e-13, f"depth {deepest:.0e}", "bound"), none
    layers = np.unique(np.round(np.log(10.0 ** np.array([-4.0, -5.0, -6.0])) / np.log(slope)).astype(int).clip(2))
    if len(layers) < 3:
        layers = np.array([3, 4, 5])
    rest = np.abs(_kernels(doubled, start, layers) - last) / layers**power
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(rest)
    one, two = (logs[1] - logs[0]) / (layers[1] - layers[0]), (logs[2] - logs[1]) / (layers[2] - layers[1])
    first = Estimate(last, 1e-12 * abs(last) + 1e-13, f"depth {deepest:.0e}", "bound")
    return first, Estimate(float(two), abs(float(two - one)) * 3, method, "bound")
