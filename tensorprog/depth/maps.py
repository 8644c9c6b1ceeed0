"""The correlation map of a block at one variance, exact next to correlations of 1.

With c = 1 - g = cos(theta) and f the map, f'(c) is what multiplies the tangent kernel: a limit, computed without cancellation.
It is a power series in g if the block is smooth, in theta if it has kinks (relu: f' = 1 - theta/pi):

    f'(c) = chi - e r(e),      1 - f(c) = integral of f' from c to 1 = g (chi - e R(e)),     e = g or theta.

r is a Chebyshev series through limits of pairs of inputs, R its exact mean. Iterating g in place of c loses nothing: in c, double
precision is used up at depth 10^4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tensorprog.depth.blocks import Repeated
from tensorprog.depth.chebyshev import nodes, series, tail
from tensorprog.errors import TensorProgramError

__all__ = ["CorrelationMap", "angle", "best_form", "correlation_map", "fitted"]

Array = np.ndarray
CONVERGED = 1e-13
"""Coefficients of a series, beside the largest, that are rounding."""
FIRST = (24, True), (12, False), (24, False)
"""Numbers of pairs of inputs that a series is tried with, in the defect or in the angle."""
MORE = 48, 96
"""Then, in the better one of the two."""
HOPELESS = 1e-4
ALIKE = 1e-12
"""Values of an odd or even map differ by no more from those at the opposite correlations."""
POINTS = 40
"""Of the Gauss rule for the mean of r."""


@dataclass(frozen=True)
class CorrelationMap:
    """What a block makes of correlations c = 1 - defect of two states of one variance.

    Attributes:
        q: The variance before the block.
        growth: What the block multiplies it by; 1 at a fixed point.
        chi: The slope at correlation 1.
        smooth: Is it a power series in the defect? (Else in the angle.)
        ratio: Coefficients of r.
        mean: Coefficients of R.
        tangent: Coefficients of B, over the variance after the block, in the same variable.
        diagonal: B for an input with itself, over the variance after the block.
        errors: Of chi, of r (beside its size), of B over the variance, at most.
        checked: How far the integral of the slopes is from the limits themselves, at most.
        parity: -1 if opposite states stay opposite, 1 if they become the same, else 0.
    """

    q: float
    growth: float
    chi: float
    smooth: bool
    ratio: Array
    mean: Array
    tangent: Array
    diagonal: float
    errors: tuple[float, float, float]
    checked: float
    parity: int = 0

    def _variable(self, defect: Array) -> Array:
        return defect if self.smooth else angle(defect)

    def _series(self, coefficients: Array, defect: Array) -> Array:
        e = self._variable(np.asarray(defect, float))
        top = 2.0 if self.smooth else np.pi
        return np.asarray(np.polynomial.chebyshev.chebval(2 * e / top - 1, coefficients))

    def slope(self, defect: Array) -> Array:
        """f'(1 - defect)."""
        return np.asarray(self.chi - self._variable(defect) * self._series(self.ratio, defect))

    def flattening(self, defect: Array) -> Array:
        """1 - f'(1 - defect), without cancellation."""
        return np.asarray((1 - self.chi) + self._variable(defect) * self._series(self.ratio, defect))

    def contraction(self, defect: Array) -> Array:
        """1 - (defect after the block) / (defect before it): what is lost, without cancellation."""
        return np.asarray((1 - self.chi) + self._variable(defect) * self._series(self.mean, defect))

    def defect(self, defect: Array) -> Array:
        """1 - f(1 - defect)."""
        return np.asarray(np.clip(defect - defect * self.contraction(defect), 0.0, 2.0))

    def own(self, defect: Array) -> Array:
        """B, over the variance after the block."""
        return self._series(self.tangent, defect)

    @property
    def odd(self) -> bool:
        """Are opposite states mapped to opposite ones?"""
        return self.parity == -1

    @property
    def even(self) -> bool:
        """Are opposite states mapped to the same one?"""
        return self.parity == 1

    def _is(self, sign: int) -> bool:
        d = np.linspace(0, 1, 9)
        f = np.abs((1 - self.defect(2 - d)) - sign * (1 - self.defect(d))).max()
        own = np.abs(self.own(2 - d) - sign * self.own(d)).max()
        return bool(max(f, own) < ALIKE)

    def with_parity(self) -> CorrelationMap:
        """The same, known to be odd or even where it is."""
        return replace(self, parity=-1 if self._is(-1) else 1 if self._is(1) else 0)

    def at_edge(self) -> CorrelationMap:
        """With a slope of exactly 1 at correlation 1."""
        return replace(self, chi=1.0)

    def moved(self) -> CorrelationMap:
        """Wrong by its errors."""
        chi, ratio, own = self.errors
        return replace(
            self,
            chi=self.chi + chi,
            ratio=self.ratio * (1 + ratio),
            mean=self.mean * (1 + ratio),
            tangent=self.tangent + own * (np.arange(len(self.tangent)) == 0),
            diagonal=self.diagonal + own,
        )


def angle(defect: Array) -> Array:
    """arccos(1 - defect), exactly where that is small."""
    return np.asarray(2 * np.arcsin(np.sqrt(np.clip(defect, 0, 2) / 2)))


def correlation_map(repeated: Repeated, q: float) -> CorrelationMap:
    """The correlation map of a repeated block at a variance.

    Raises:
        TensorProgramError: its slope at correlation 1 is infinite, or it is no series.
    """
    found, loss = _best(repeated, q)
    if loss > HOPELESS:
        raise TensorProgramError(
            "the correlation map is no power series of the correlation, nor of the angle", fix="please report this"
        )
    chi_error, ratio, own = found.errors
    moved = 10 * loss if loss >= CONVERGED else 0.0
    return replace(found, errors=(chi_error, ratio + moved, own + moved)).with_parity()


def best_form(repeated: Repeated, q: float) -> tuple[int, bool]:
    """How many pairs of inputs the map's series wants, and whether it is one in the defect."""
    found, _ = _best(repeated, q)
    return len(found.ratio), found.smooth


def _best(repeated: Repeated, q: float) -> tuple[CorrelationMap, float]:
    """The first series that converges, or the one that comes closest; and its last coefficients."""
    losses: list[tuple[float, CorrelationMap]] = []
    tries = list(FIRST)
    while tries:
        found = fitted(repeated, q, *tries.pop(0))
        loss = max(tail(found.ratio) if np.any(found.ratio) else 0.0, tail(found.tangent))
        losses.append((loss, found))
        if loss < CONVERGED:
            return found, loss
        if len(losses) == len(FIRST):
            smooth = losses[0][0] <= losses[-1][0]
            tries = [(count, smooth) for count in MORE]
    loss, found = min(losses, key=lambda pair: pair[0])
    return found, loss


def fitted(repeated: Repeated, q: float, count: int, smooth: bool) -> CorrelationMap:
    """The map by limits at so many correlations.

    Raises:
        TensorProgramError: its slope at correlation 1 is infinite.
    """
    alone = repeated.alone([q])
    after, slope = float(alone.covariance[0]), float(alone.slope[0])
    if not (np.isfinite(after) and after > 0 and np.isfinite(slope)):
        raise TensorProgramError(
            f"a block makes a state of variance {after:.3g} with the slope {slope:.3g} of one of variance {q:.3g}",
            fix="give a block with a finite slope and a variance that is not 0",
        )
    chi = slope * q / after
    e = nodes(count, 0.0, 2.0 if smooth else np.pi)
    wanted = e if smooth else 2 * np.sin(e / 2) ** 2
    wanted = np.where(np.abs(1 - wanted) < 1e-9, wanted + 1e-8, wanted)  # A is a ratio to the covariance
    found = repeated.pairs(q, wanted)
    defect = (q - (q - q * wanted)) / q  # as rounded
    x = defect if smooth else angle(defect)
    slopes = found.slope * q / after
    ratio = (chi - slopes) / x
    a = series(ratio if np.abs(chi - slopes).max() > 1e-13 * chi else 0 * ratio)
    top = 2.0 if smooth else np.pi
    # R = 1/(g e) * integral of t r(t) dg(t), dg = dt or sin(t) dt
    at, weights = np.polynomial.legendre.leggauss(POINTS)
    inside = 0.5 * e[:, None] * (1 + at)
    r = np.polynomial.chebyshev.chebval(2 * inside / top - 1, a)
    measure = np.ones_like(inside) if smooth else np.sin(inside)
    defects = e if smooth else 2 * np.sin(e / 2) ** 2
    mean = (inside * r * measure * weights).sum(-1) * 0.5 * e / (defects * e)
    b = series(mean)
    own = series(found.tangent / after)
    made = CorrelationMap(q, after / q, chi, smooth, a, b, own, 0.0, (0.0, 0.0, 0.0), 0.0)
    direct = (after - found.covariance) / after
    scale = q / after
    size = max(float(np.abs(a).max()), 1e-300)
    noise = (alone.errors[1] + found.errors[1]) * scale
    checked = float(np.abs(direct - made.defect(defect)).max())
    errors = (
        alone.errors[1] * scale + alone.errors[0] / after,
        noise / size if np.any(a) else 0.0,
        found.errors[2] / after,
    )
    return replace(made, errors=errors, checked=checked, diagonal=float(alone.tangent[0]) / after)
