"""The tangent kernel at any depth, by doubling.

One layer is a map of the correlation and an affine map of the kernel, Theta -> a(c) Theta + b(c) in units of the variance; so are
two, and 2^k layers. Each is a few series in y = log(g / (2 - g)), c = 1 - g, where the layers' boundary layers at correlations of
1 are as smooth as anything else. A depth takes as many evaluations as it has binary digits, so that nothing adds up: the error at
depth 10^6 is a few units in the last place, where a loop loses six digits.
"""

from __future__ import annotations

import numpy as np

from tensorprog.depth.chebyshev import Pieces
from tensorprog.depth.maps import CorrelationMap

__all__ = ["Doubled"]

Array = np.ndarray
LOW, HIGH = -80.0, 44.0
"""Of y: correlations 1 - 1e-34 and -1, to the last digit."""
LENGTH, DEGREE = 2.0, 20
NEARLY = 0.25
"""A logarithm is as smooth as its argument where that changes by no more than this factor on a piece."""


class Doubled:
    """A correlation map and its tangent kernel, repeated 2^k times.

    Args:
        f: One layer.
        degree: Of the series on each piece.
    """

    def __init__(self, f: CorrelationMap, degree: int = DEGREE) -> None:
        self.f = f
        self.pieces = Pieces(LOW, HIGH, LENGTH, degree)
        self.levels = [self._fitted(*self._one(self.pieces.nodes))]

    def _one(self, y: Array) -> tuple[Array, ...]:
        """(movement of y, a, its logarithm, b) of one layer."""
        f = self.f
        g, rest = _defects(y)
        lost = f.contraction(g)
        with np.errstate(divide="ignore", invalid="ignore"):
            move = np.log1p(-np.minimum(lost, 1.0)) - np.log1p(np.maximum(g * lost / rest, -1.0))
            log = np.log1p(-f.flattening(g))
        move = np.minimum(np.where(move == -np.inf, LOW - y, move), HIGH - y)
        return move, f.slope(g), log, f.own(g)

    def _fitted(self, move: Array, a: Array, log: Array, b: Array) -> tuple[Array, Array]:
        """Series of the three, of a's logarithm on pieces where a is nowhere near 0; and where that is.

        Next to correlations of 1 many layers have an a of nearly 1: what doubles from level to level there is the error of
        the logarithm, beside itself.
        """
        on_pieces = a.reshape(self.pieces.count, -1)
        positive = (on_pieces.min(1) > NEARLY * on_pieces.max(1)) & np.isfinite(log.reshape(self.pieces.count, -1)).all(
            1
        )
        logs = np.repeat(positive, self.pieces.degree + 1)
        return self.pieces.fit(move, np.where(logs, log, a), b), positive

    def _evaluated(self, k: int, y: Array) -> tuple[Array, ...]:
        """(movement of y, a, its logarithm, b) of 2^k layers."""
        fitted, positive = self._level(k)
        move, a, b = self.pieces.evaluate(fitted, y)
        logs = positive[self.pieces.place(y)]
        with np.errstate(divide="ignore", invalid="ignore"):
            log = np.where(logs, a, np.log(a))
        return move, np.where(logs, np.exp(np.where(logs, a, 0.0)), a), log, b

    def _level(self, k: int) -> tuple[Array, Array]:
        while len(self.levels) <= k:
            y, last = self.pieces.nodes, len(self.levels) - 1
            move, a, log, b = self._evaluated(last, y)
            move2, a2, log2, b2 = self._evaluated(last, y + move)
            self.levels.append(self._fitted(move + move2, a * a2, log + log2, a2 * b + b2))
        return self.levels[k]

    def after(self, layers: int, defect: Array, theta: Array) -> tuple[Array, Array]:
        """Defects and kernels (over the variance) after some layers, of those before."""
        f = self.f
        flip = (f.odd | f.even) & (defect > 1) & (layers > 0)
        sign = np.where(flip, -1.0, 1.0)
        g = np.where(flip, 2 - defect, defect)
        theta = theta * sign
        same = g == 0
        with np.errstate(divide="ignore"):
            y = np.where(same, 0.0, np.clip(np.log(g) - np.log(2 - g), LOW, HIGH))
        found, k, left = theta.copy(), 0, layers
        with np.errstate(over="ignore"):
            while left:
                if left & 1:
                    move, a, _, b = self._evaluated(k, y)
                    found = a * found + b
                    y = y + move
                left >>= 1
                k += 1
            found = np.where(same, _repeated(f.chi, f.diagonal, layers, theta), found)
        g = np.where(same, 0.0, _defects(y)[0])
        return (np.where(flip, 2 - g, g), found * sign) if f.odd else (g, found)


def _defects(y: Array) -> tuple[Array, Array]:
    """1 - c and 1 + c."""
    with np.errstate(over="ignore"):
        return 2 / (1 + np.exp(-y)), 2 / (1 + np.exp(y))


def _repeated(chi: float, own: float, layers: int, theta: Array) -> Array:
    """The kernel of an input with itself: chi^L theta + own (chi^L - 1) / (chi - 1)."""
    if chi == 1:
        return np.asarray(theta + own * layers)
    with np.errstate(over="ignore", divide="ignore"):
        power = layers * np.log(chi) if chi > 0 else -np.inf
        grown = np.exp(power)
        return np.asarray((theta * grown if np.isfinite(grown) else np.inf) + own * np.expm1(power) / (chi - 1))
