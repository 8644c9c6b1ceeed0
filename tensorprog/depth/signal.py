"""Signals in a deep network: the maps of its block, their fixed points, and the tangent kernel at any depth."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.depth.blocks import Block, Repeated
from tensorprog.depth.fixed import FixedPoint, correlations, variance
from tensorprog.depth.maps import CorrelationMap, correlation_map
from tensorprog.depth.ntk import DEGREE, Doubled
from tensorprog.depth.rates import Rate, rate
from tensorprog.depth.results import Table
from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate
from tensorprog.language.symbols import Width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SignalPropagation", "signal_propagation"]

EDGE = 1e-12
"""Slopes that differ from 1 by no more are 1, as are those that are so within their error."""
DEEPEST = 10**15
METHOD = "doubling"


def signal_propagation(
    phi: Callable[..., Any], W_std: Any = None, b_std: Any = None, *, q: Any = None, width: Width | None = None
) -> SignalPropagation:
    """What a layer does to variances, correlations and the tangent kernel when it is repeated, each time with its own weights.

    Args:
        phi: The function between dense layers (then give W_std); or a whole block, a function h -> h made of layers.
        W_std: Standard deviation of the weights of the dense layer after phi, times the root of the fan-in.
        b_std: Of its biases; None or 0 for none.
        q: The variance of the inputs, where all variances are fixed (relu) or grow (residual blocks): 1 by default. Else the
            variance from which the fixed point is looked for.
        width: The width of h, for a block of layers of another width than `tp.Width("n")`.

    Returns:
        A `SignalPropagation`.

    Raises:
        TensorProgramError: numbers that are none, a variance without a fixed point, a state that is not Gaussian.

    Example:
        >>> import tensorprog as tp
        >>> s = tp.signal_propagation(tp.relu, W_std=2**0.5)
        >>> s.phase, s.ntk(depth=[10, 10**6], c0=[0.0]).value.ravel().round(4).tolist()
        ('edge', [3.1559, 250005.9033])
        >>> n = tp.Width("n")
        >>> print(tp.signal_propagation(lambda h: h + tp.dense("W", tp.relu(h), n)).growth)
        1.5

    Source: Schoenholz et al. 2017 (arXiv:1611.01232); Hayou, Doucet, Rousseau 2019 (arXiv:1905.13654).
    """
    start = 1.0 if q is None else _numbers(q, "q", 0.0)
    if np.ndim(start) or not 0 < start < np.inf:
        raise TensorProgramError(f"q is {q!r}", fix="give a positive number, the variance of an input")
    return SignalPropagation(Repeated(Block(phi, width), W_std, b_std), float(start))


class SignalPropagation:
    """See `signal_propagation`; made there.

    Attributes:
        q: The variance at the fixed point (of the inputs, where all are fixed or all grow).
        q_error: How wrong it may be.
        growth: What a layer multiplies the variance by: 1 at a fixed point.
        fixed_points: Fixed points of the variance, stable and unstable; none where all are fixed, or none is.
    """

    def __init__(self, repeated: Repeated, start: float) -> None:
        self.repeated = repeated
        found = variance(repeated, start)
        self.q, self.q_error, self.growth = found.chosen, found.error, found.growth
        self.fixed_points = found.points
        self.homogeneous = found.homogeneous
        self.variance_slope = found.slope

    @cached_property
    def map(self) -> CorrelationMap:
        """The correlation map at the fixed point, exact next to 1; with a slope of exactly 1 at the edge of chaos."""
        found = self._measured
        return found.at_edge() if abs(found.chi - 1) <= self._tolerance else found

    @cached_property
    def _measured(self) -> CorrelationMap:
        if self.q == 0:
            raise TensorProgramError(
                "the variance tends to 0",
                why="a state of variance 0 has no correlations",
                fix="add biases: b_std=; `phase` and `slope` are those of small variances",
            )
        return correlation_map(self.repeated, self.q)

    @cached_property
    def _tolerance(self) -> float:
        return EDGE + self._measured.errors[0]

    def variance(self, q: Any) -> Estimate:
        """The variance after a layer of one before it, by the limit itself."""
        values = _numbers(q, "q", 0.0)
        found = [self.repeated.alone([x]) for x in np.ravel(values)]
        out = np.array([f.covariance[0] for f in found]).reshape(np.shape(values))
        error = np.array([f.errors[0] for f in found]).reshape(np.shape(values))
        return _estimate(out, error, "limit")

    def correlation(self, c: Any) -> Estimate:
        """The correlation after a layer of one before it, of inputs of variance `q`, by the limit itself."""
        values = _numbers(c, "c", -1.0, 1.0)
        found = self.repeated.pairs(self.q, 1 - np.ravel(values))
        alone = self.repeated.alone([self.q])
        after = float(alone.covariance[0])
        out = (found.covariance / after).clip(-1, 1).reshape(np.shape(values))
        out = np.where(values == 1, 1.0, out)
        return _estimate(out, np.full(np.shape(values), (found.errors[0] + alone.errors[0]) / after), "limit")

    @cached_property
    def slope(self) -> Estimate:
        """chi = W_std^2 E phi'^2: the slope of the correlation map at 1, of a block over what it multiplies the variance by."""
        if self.q == 0:
            found = self.repeated.alone([0.0])
            return Estimate(float(found.slope[0]), found.errors[1], "limit of small variances", "bound")
        chi, error = self.map.chi, self._measured.errors[0]
        if self.repeated.affine and self.homogeneous:  # phases of scale-free functions are those of gradients
            chi, error = chi * self.growth, (error + 4e-16) * self.growth
        return Estimate(chi, error, "limit", "bound")

    @property
    def phase(self) -> str:
        """`"ordered"` (chi < 1: all inputs become alike), `"edge"`, or `"chaotic"` (chi > 1: similar ones become different)."""
        chi = float(self.slope)
        if self.q == 0:
            return "edge" if abs(chi - 1) <= EDGE else "ordered" if chi < 1 else "chaotic"
        return "edge" if chi == 1 else "ordered" if chi < 1 else "chaotic"

    @cached_property
    def correlations(self) -> tuple[FixedPoint, ...]:
        """The fixed points of the correlation map, 1 among them."""
        found = correlations(self.map)
        return found

    @property
    def c_star(self) -> float:
        """The correlation that different inputs tend to."""
        stable = [p for p in self.correlations if p.stable]
        return stable[-1].value if stable else float("nan")

    @property
    def depth_scale(self) -> float:
        """Layers over which a correlation's distance to its fixed point falls by e; infinite at the edge of chaos."""
        if self.q == 0:
            return _scale(float(self.slope))
        stable = [p for p in self.correlations if p.stable]
        return _scale(stable[-1].slope) if stable else float("nan")

    @property
    def variance_depth_scale(self) -> float:
        """Layers over which a variance's distance to the fixed point falls by e; infinite where all are fixed."""
        return float("inf") if self.homogeneous else _scale(self.variance_slope)

    def ntk(self, depth: Any, c0: Any = 0.0, *, relative: bool = False, dtype: Any = np.float64) -> Table:
        """The tangent kernel K^L of two inputs of variance `q` and correlation c0, K^1 being q c0.

        Args:
            depth: L, at least 1; a number or several.
            c0: Correlations of the inputs; a number or several.
            relative: Over the variance after L layers; so that residual networks, whose variance grows, have finite kernels.
            dtype: float64, or float32: the same rounded; the note says at which depth it is out of range.

        Returns:
            A `Table` (depths, correlations), an axis for each of the two that is not one number.

        Raises:
            TensorProgramError: depths or correlations that are none.
        """
        depths = _depths(depth)
        c = _numbers(c0, "c0", -1.0, 1.0)
        first = np.ravel(c)
        rows = [self._theta(d, L, first) for L in np.ravel(depths) for d in [self._doubled[0]]]
        finer = [self._theta(self._doubled[1], L, first) for L in np.ravel(depths)]
        moved = [self._theta(self._doubled[2], L, first) for L in np.ravel(depths)]
        found, fine, wrong = [np.array(x).reshape(len(rows), len(first)) for x in (rows, finer, moved)]
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(found - fine) + np.abs(found - wrong) + 8e-16 * np.abs(found)
            scale = np.ones((len(rows), 1))
            if not relative:
                power = (np.ravel(depths).astype(float) - 1) * np.log(self.growth)
                scale = self.q * np.exp(power)[:, None]
                error += np.abs(found) * (self.q_error / self.q + 4e-16 * np.abs(power)[:, None])
            found, error = np.where(found == 0, 0.0, found * scale), np.where(found == 0, error, error * scale)
        kind = np.dtype(dtype)
        if kind not in (np.dtype(np.float64), np.dtype(np.float32)):
            raise TensorProgramError(f"dtype={dtype!r}", fix="use numpy.float64 or numpy.float32")
        note = (
            "the slope is 1 within its error, and is taken to be 1"
            if self.phase == "edge" and self._measured.chi != 1
            else ""
        )
        with np.errstate(over="ignore"):
            out = found.astype(kind)
            error = error + np.abs(out.astype(float) - found) if kind == np.float32 else error
        lost = ~np.isfinite(out)
        error[lost] = np.inf
        if lost.any():
            where = int(np.ravel(depths)[lost.any(1)].min())
            note = "; ".join([x for x in (note, f"out of the range of {kind.name} at depth {where}") if x])
        shape = (*np.shape(depths), *np.shape(c))
        return Table(out.reshape(shape), error.reshape(shape), METHOD, "bound", note)

    @cached_property
    def _doubled(self) -> tuple[Doubled, Doubled, Doubled]:
        moved = self._measured.moved()
        wrong = moved.at_edge() if self.map.chi == 1 else moved
        return Doubled(self.map), Doubled(self.map, DEGREE + 6), Doubled(wrong)

    def _theta(self, doubled: Doubled, depth: int, c: np.ndarray) -> np.ndarray:
        return doubled.after(int(depth) - 1, 1 - c, c)[1]

    @cached_property
    def rate(self) -> Rate:
        """How K^L over the variance tends to its limit: the law, and its constants by theory and by a fit."""
        return rate(self.map, self._doubled[0], self.c_star)

    def correlations_at(self, depth: Any, c0: Any) -> Table:
        """The distance 1 - c of the correlation at depth L from 1, without cancellation, of inputs of correlation c0.

        Args:
            depth: L, at least 1 (the inputs' own); a number or several.
            c0: Correlations of the inputs.

        Returns:
            A `Table` (depths, correlations).
        """
        depths, c = _depths(depth), _numbers(c0, "c0", -1.0, 1.0)
        first = np.ravel(c)
        found = [np.array([d.after(int(L) - 1, 1 - first, first)[0] for L in np.ravel(depths)]) for d in self._doubled]
        error = np.abs(found[0] - found[1]) + np.abs(found[0] - found[2]) + 8e-16 * found[0]
        shape = (*np.shape(depths), *np.shape(c))
        return Table(found[0].reshape(shape), error.reshape(shape), METHOD, "bound")

    def plot(self, path: str | Path | None = None) -> Figure:
        """The correlation map with its fixed points, and the tangent kernel against depth.

        Args:
            path: Where to save it; the suffix says as what.

        Returns:
            The matplotlib figure.
        """
        from tensorprog.depth.plot import plot_signal

        return plot_signal(self, path)

    def __repr__(self) -> str:
        lines = [f"phase: {self.phase}, chi = {float(self.slope):.12g}"]
        growth = "" if self.growth == 1 else f", and a layer multiplies it by {self.growth:.12g}"
        lines.append(f"variance: {'any' if self.homogeneous else f'{self.q:.12g} ± {self.q_error:.0e}'}{growth}")
        if self.q:
            lines.append(f"correlations tend to {self.c_star:.12g}, over {self.depth_scale:.6g} layers")
        return "\n".join(lines)


def _scale(slope: float) -> float:
    slope = abs(slope)
    return float("inf") if slope == 1 else 0.0 if slope == 0 else abs(1 / float(np.log(slope)))


def _estimate(value: np.ndarray, error: np.ndarray, method: str) -> Estimate:
    if np.ndim(value) == 0:
        return Estimate(float(value), float(error), method, "bound")
    return Table(value, error, method, "bound")


def _numbers(x: Any, what: str, low: float, high: float = np.inf) -> np.ndarray:
    try:
        found = np.asarray(x, dtype=float)
    except (TypeError, ValueError):
        raise TensorProgramError(f"{what} is {x!r}", fix="give a number, or an array of numbers") from None
    if not (np.isfinite(found) & (found >= low) & (found <= high)).all() or not found.size:
        limits = f"at least {low:g}" if high == np.inf else f"between {low:g} and {high:g}"
        raise TensorProgramError(f"{what} is {x!r}", fix=f"give numbers that are {limits}")
    return found


def _depths(x: Any) -> np.ndarray:
    found = np.asarray(x)
    whole = found.dtype.kind in "iu" or (
        found.dtype.kind == "f" and np.isfinite(found).all() and (found == np.round(found)).all()
    )
    if not whole or not found.size or (found < 1).any() or (found > DEEPEST).any():
        raise TensorProgramError(f"depth is {x!r}", fix=f"give whole numbers from 1 to {DEEPEST:.0e}")
    return found.astype(np.int64)
