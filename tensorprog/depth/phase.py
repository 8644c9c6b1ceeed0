"""Phase diagrams: the fixed points of all (b_std, W_std) of a grid at once, by tables of what comes before the dense layer.

V(q) = E phi^2 and A(q) = E phi'^2 are series on pieces of log q; the slopes at other correlations are series in the defect, or
the angle, whose coefficients are series in log q. A family of blocks has its cells looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.depth.blocks import Block, Moments, Repeated, takes_deviations
from tensorprog.depth.chebyshev import Pieces, clenshaw, nodes, series
from tensorprog.depth.edge import STEEP, beside
from tensorprog.depth.fixed import SAME, crossings, scanned
from tensorprog.depth.maps import best_form, fitted
from tensorprog.depth.signal import SignalPropagation
from tensorprog.errors import TensorProgramError
from tensorprog.figures import figures, saved
from tensorprog.language.symbols import Width
from tensorprog.progress import progress_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PhaseDiagram", "phase_diagram"]

Array = np.ndarray
LENGTH, DEGREE = 1.5, 13
"""Of the pieces of log q."""
VARIANCES = 24
"""At which slopes at other correlations are found."""
SCANNED = 17
"""Correlations between which a fixed point is looked for, closer towards 1."""
QUANTITIES = ("q", "slope", "c_star", "depth_scale")


@dataclass(frozen=True)
class PhaseDiagram:
    """Where a function is ordered and where it is chaotic: arrays (len(b_std), len(W_std)).

    Attributes:
        b_std: Standard deviations of the biases.
        W_std: Of the weights.
        q: The variance at the fixed point: infinite where it grows without a bound, 0 where it vanishes.
        slope: chi, the slope of the correlation map at 1; NaN where the variance has no fixed point.
        c_star: The correlation that different inputs tend to.
        depth_scale: Layers over which they do, by a factor of e.
        errors: Name of each to the errors of its entries, of q and the depth scale over themselves.
        method: How it was found.
        edge: The `W_std` of the edge of chaos for every `b_std`, NaN where there is none on the grid.
    """

    b_std: Array
    W_std: Array
    q: Array
    slope: Array
    c_star: Array
    depth_scale: Array
    errors: dict[str, Array]
    method: str
    edge: Array
    dims = ("b_std", "W_std")

    def __getitem__(self, name: str) -> Array:
        if name not in QUANTITIES:
            raise KeyError(f"no quantity {name!r}; there are {', '.join(QUANTITIES)}")
        return np.asarray(getattr(self, name))

    def __iter__(self) -> Iterator[str]:
        return iter(QUANTITIES)

    @property
    def phase(self) -> Array:
        """`"ordered"`, `"edge"`, `"chaotic"`, or `""` where the variance has no fixed point."""
        close = np.abs(self.slope - 1) <= self.errors["slope"]
        return np.where(
            np.isnan(self.slope), "", np.where(close, "edge", np.where(self.slope < 1, "ordered", "chaotic"))
        )

    def to_xarray(self) -> Any:
        """The same as an xarray Dataset."""
        try:
            import xarray
        except ImportError:
            raise TensorProgramError(
                "an xarray Dataset needs xarray", fix="install the extra: pip install 'tensorprog[xarray]'"
            ) from None
        data = {name: (self.dims, self[name]) for name in QUANTITIES}
        return xarray.Dataset(data, {"b_std": self.b_std, "W_std": self.W_std})

    def __repr__(self) -> str:
        phases = self.phase
        shares = ", ".join([f"{np.mean(phases == k):.0%} {k or 'without a fixed point'}" for k in np.unique(phases)])
        return f"phase diagram, {len(self.b_std)} x {len(self.W_std)} (b_std x W_std): {shares} ({self.method})"

    def plot(self, path: str | Path | None = None) -> Figure:
        """The depth scale and the limiting correlation over W_std and b_std, with the edge of chaos between the phases.

        Args:
            path: Where to save it; the suffix says as what.

        Returns:
            The matplotlib figure.
        """
        Figure, _ = figures()
        figure = Figure(figsize=(10.4, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        depth = np.log10(np.clip(self.depth_scale, 1e-1, 1e3))
        for ax, values, label, colours in (
            (left, depth, "depth scale of correlations, layers", {"cmap": "viridis", "vmin": -1, "vmax": 3}),
            (right, self.c_star, "correlation that inputs tend to", {"cmap": "cividis", "vmin": 0, "vmax": 1}),
        ):
            image = ax.pcolormesh(self.W_std, self.b_std, np.ma.masked_invalid(values), shading="nearest", **colours)
            bar = figure.colorbar(image, ax=ax)
            bar.set_label(label)
            if ax is left:
                bar.set_ticks([-1, 0, 1, 2, 3], labels=["0.1", "1", "10", "100", "1000+"])
            known = np.isfinite(self.edge)
            if known.any():
                ax.plot(self.edge[known], self.b_std[known], color="white", linewidth=3.2)
                ax.plot(self.edge[known], self.b_std[known], color="black", linewidth=1.4, label="edge of chaos")
            for name in ("ordered", "chaotic"):
                inside = self.phase == name
                if inside.mean() > 0.03:
                    place = np.argwhere(inside)
                    i, j = place[np.argmin(np.abs(place - place.mean(0)).sum(1))]
                    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 2}
                    ax.text(self.W_std[j], self.b_std[i], name, ha="center", va="center", bbox=box)
            ax.set_xlabel(r"$\sigma_w$")
            ax.set_facecolor("0.85")
            ax.set_xlim(self.W_std.min(), self.W_std.max())
            ax.set_ylim(self.b_std.min(), self.b_std.max())
        left.set_ylabel(r"$\sigma_b$")
        if np.isfinite(self.edge).any():
            left.legend(loc="upper left", fontsize=9)
        if path is not None:
            saved(figure, path)
        return figure


def phase_diagram(
    phi: Callable[..., Any],
    b_std: Any,
    W_std: Any,
    *,
    width: Width | None = None,
    progress: bool | None = None,
) -> PhaseDiagram:
    """The phases of deep networks of a function, over the standard deviations of weights and biases.

    Args:
        phi: The function between dense layers; or a family of blocks, a function of h, W_std and b_std, whose cells are looked
            at one by one, each in as long as `tp.signal_propagation` takes.
        b_std: Standard deviations of the biases.
        W_std: Of the weights, times the root of the fan-in.
        width: The width of h, where the function has layers.
        progress: Whether to show a progress bar for a family; by default on a terminal only.

    Returns:
        A `PhaseDiagram`: `q`, `slope`, `c_star`, `depth_scale` and `edge`; `plot` draws it.

    Example:
        >>> import tensorprog as tp
        >>> d = tp.phase_diagram(tp.erf, b_std=[0.1, 0.5], W_std=[0.8, 2.0])
        >>> d.phase.tolist()
        [['ordered', 'chaotic'], ['ordered', 'chaotic']]
        >>> d.slope.round(4).tolist()
        [[0.7557, 1.5287], [0.4865, 1.4491]]

    Source: Schoenholz et al. 2017 (arXiv:1611.01232); Hayou, Doucet, Rousseau 2019 (arXiv:1902.06853).
    """
    b, W = _axis(b_std, "b_std", False), _axis(W_std, "W_std", True)
    if takes_deviations(phi):
        return _of_family(phi, b, W, width, progress)
    block = Block(phi, width)
    return _Grid(block, b, W).diagram()


def _axis(x: Any, what: str, positive: bool) -> Array:
    try:
        found = np.atleast_1d(np.asarray(x, dtype=float))
    except (TypeError, ValueError):
        raise TensorProgramError(f"{what} is {x!r}", fix="give an array of numbers") from None
    good = np.isfinite(found) & (found > 0 if positive else found >= 0)
    if found.ndim != 1 or not found.size or not good.all():
        raise TensorProgramError(
            f"{what} is {x!r}", fix=f"give an array of numbers that are {'positive' if positive else 'at least 0'}"
        )
    return found


class _Grid:
    """All cells at once."""

    def __init__(self, block: Block, b: Array, W: Array) -> None:
        self.block, self.b, self.W = block, b, W
        self.b2, self.w2 = np.meshgrid(b**2, W**2, indexing="ij")
        self.base = Repeated(block, 1.0, 0.0)
        largest = Repeated(block, float(W.max()), float(b.max()))
        grid, V, _ = scanned(largest.alone, float(b.min()) ** 2)
        if len(grid) < 2:
            raise TensorProgramError("the function has no variance", fix="look at it: is it 0, or infinite?")
        top = np.flatnonzero(V >= grid)
        end = grid[min(int(top[-1]) + 2, len(grid) - 1)] if len(top) else grid[1]
        self.pieces = Pieces(float(np.log(grid[0])), float(np.log(max(end, 2.0))), LENGTH, DEGREE)
        found = self._alone(np.exp(self.pieces.nodes))
        self.table = self.pieces.fit(np.log(found.covariance), found.slope)
        self.noise = found.relative
        s = self.pieces.nodes
        ratio = found.covariance / np.exp(s)
        self.homogeneous = bool(np.ptp(ratio) <= SAME * ratio.max())
        sizes = np.abs(self.table)
        self.loss = float((sizes[-2:].max(0) / np.maximum(sizes.max(0), [[1.0], [1e-300]])).max())

    def _alone(self, q: Array) -> Moments:
        return self.block.alone(q)

    def _gain(self, s: Array, b2: Array, w2: Array) -> Array:
        """log of what a variance exp(s) is multiplied by."""
        V = np.exp(self.pieces.evaluate(self.table[:, :1], s)[0])
        return np.asarray(np.log((b2 + w2 * V) / np.exp(s)))

    def variances(self) -> Array:
        """log q of every cell; infinite where it grows, minus infinite where it vanishes."""
        s = np.linspace(self.pieces.low, self.pieces.high, 12 * self.pieces.count + 1)
        shape = self.b2.shape
        start = int(np.argmin(np.abs(s)))
        found = np.full(shape, np.nan)
        low = np.full(shape, np.nan)
        V = np.exp(self.pieces.evaluate(self.table[:, :1], s)[0])
        up = (self.b2 + self.w2 * V[start]) > np.exp(s[start])
        open_ = np.ones(shape, bool)
        for order, where in ((range(start, len(s) - 1), up), (range(start - 1, -1, -1), ~up)):
            for j in order:
                here, there = [(self.b2 + self.w2 * V[k]) > np.exp(s[k]) for k in (j, j + 1)]
                hit = where & open_ & here & ~there
                low[hit], open_[hit] = s[j], False
        found[open_ & up], found[open_ & ~up] = np.inf, -np.inf
        cells = ~open_
        left, b2, w2 = low[cells], self.b2[cells], self.w2[cells]
        found[cells] = crossings(lambda x: self._gain(x, b2, w2), left, left + (s[1] - s[0]))
        return found

    def diagram(self) -> PhaseDiagram:
        if self.homogeneous:
            return self._scale_free()
        s = self.variances()
        known = np.isfinite(s)
        q = np.exp(s)
        slope = np.full(s.shape, np.nan)
        slope[known] = self.w2[known] * self.pieces.evaluate(self.table[:, 1:], s[known])[0]
        vanishes = s == -np.inf
        if vanishes.any():
            slope[vanishes] = self.w2[vanishes] * float(self.block.alone([0.0]).slope[0])
        c, scale = np.where(slope <= 1, 1.0, np.nan), np.abs(1 / np.log(slope))
        chaotic = known & (slope > 1)
        near = 10 * (self.noise + self.loss)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = {"q": near * np.ones_like(s), "slope": near * slope, "c_star": np.zeros_like(s)}
            errors["depth_scale"] = near * scale
            if chaotic.any():
                c[chaotic], inside, wrong, bent = self._correlations(s[chaotic], self.w2[chaotic])
                scale[chaotic] = np.abs(1 / np.log(np.abs(inside)))
                errors["c_star"][chaotic] = wrong
                errors["depth_scale"][chaotic] = bent / np.abs(inside) * scale[chaotic]
        return PhaseDiagram(self.b, self.W, q, slope, c, scale, errors, "series of limits", self._edge())

    def _scale_free(self) -> PhaseDiagram:
        """Of relu, say: V = v q, A = v for all q."""
        found = self.block.alone([1.0])
        v, A = float(found.covariance[0]), float(found.slope[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            q = np.where(self.w2 * v < 1, self.b2 / (1 - self.w2 * v), np.inf)
        at_edge = np.abs(self.w2 * v - 1) <= SAME
        q = np.where(at_edge & (self.b2 == 0), 1.0, q)
        slope = np.where(np.isfinite(q), self.w2 * A, np.nan)
        slope = np.where(self.b2 == 0, self.w2 * A, slope)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.abs(1 / np.log(slope))
        c = np.where(np.isfinite(q), 1.0, np.nan)
        edge = np.where(self.b == 0, A**-0.5, np.nan)
        errors = dict.fromkeys(QUANTITIES, np.full(slope.shape, found.errors[0] + found.errors[1] + SAME))
        return PhaseDiagram(self.b, self.W, q, slope, c, scale, errors, "closed form", edge)

    def _edge(self) -> Array:
        """W_std at the edge for every b_std: the smallest root of b^2 + V/A - q, if the variance is stable there."""
        s = np.linspace(self.pieces.low, self.pieces.high, 12 * self.pieces.count + 1)

        def gap(s: Array, b2: Array) -> Array:
            log_V, A = self.pieces.evaluate(self.table, s)
            return np.asarray((b2 + np.exp(log_V) / A) / np.exp(s) - 1)

        values = gap(s[None], (self.b**2)[:, None])
        falls = (values[:, :-1] > 0) & (values[:, 1:] <= 0)
        first = np.argmax(falls, 1)
        root = crossings(lambda x: gap(x, self.b**2), s[first], s[first + 1])
        edge = self.pieces.evaluate(self.table[:, 1:], root)[0] ** -0.5
        step = 1e-4
        turn = (self._gain(root + step, self.b**2, edge**2) - self._gain(root - step, self.b**2, edge**2)) / (2 * step)
        zero = self.block.alone([0.0])
        small = float(zero.slope[0]) ** -0.5 if zero.covariance[0] < 1e-25 and zero.slope[0] > 0 else np.nan
        found = np.where(falls.any(1) & (np.abs(1 + turn) < 1), edge, np.nan)
        grows = beside(np.exp(self._gain(s, np.zeros(1), np.full(1, small**2)))) > STEEP
        return np.where((self.b == 0) & np.isnan(found) & (not grows), small, found)

    def _correlations(self, s: Array, w2: Array) -> tuple[Array, Array, Array, Array]:
        """c* of chaotic cells, the slope there, and how wrong both may be."""
        low, high = float(s.min()), float(s.max())
        count = VARIANCES if high - low > 0.5 else 8
        at = nodes(count, low - 1e-6, high + 1e-6)
        form = best_form(self.base, float(np.exp(high)))  # where it bends most
        maps = [fitted(self.base, float(np.exp(x)), *form) for x in at]
        rows = np.stack([[m.growth * m.mean, m.growth * m.ratio] for m in maps])  # (variances, 2, coefficients)
        tables = series(rows.reshape(count, -1)).reshape(rows.shape)
        top = 2.0 if maps[0].smooth else np.pi
        x = (2 * s - low - high) / (high - low + 2e-6)
        A = self.pieces.evaluate(self.table[:, 1:], s)[0]
        basis = np.polynomial.chebyshev.chebvander(x, count - 1)
        mean, ratio = np.einsum("cv,vkd->kdc", basis, tables)
        last = np.einsum("cv,vkd->kdc", basis[:, -2:], tables[-2:])

        def lost(e: Array) -> Array:  # of the defect, over itself
            return np.asarray(1 - w2 * (A - e * clenshaw(mean, 2 * e / top - 1)))

        grid = top * np.linspace(0, 1, SCANNED) ** 2
        ends = np.array([lost(np.full(len(s), e)) > 0 for e in grid[1:]])
        first = np.argmax(ends, 0)
        e = crossings(lost, grid[first], grid[first + 1])
        e = np.where(ends.any(0), e, top)
        t = 2 * e / top - 1
        slope = w2 * (A - e * clenshaw(ratio, t))
        c = 1 - (e if maps[0].smooth else 2 * np.sin(e / 2) ** 2)
        # terms that are left out are like the last two: they move the root of g (1 - lost) - g, whose derivative is slope - 1
        move, bend = [w2 * e * np.abs(clenshaw(x, t)) for x in last]
        noise = 10 * max(m.errors[0] + m.errors[1] for m in maps)
        with np.errstate(divide="ignore"):
            wrong = (10 * move + noise) * (1 - c) / np.abs(1 - slope)
        return c, slope, wrong, 10 * bend + noise + wrong * np.abs(w2 * clenshaw(ratio, t))


def _of_family(
    family: Callable[..., Any], b: Array, W: Array, width: Width | None, progress: bool | None
) -> PhaseDiagram:
    arrays = {name: np.full((len(b), len(W)), np.nan) for name in QUANTITIES}
    worst = 0.0
    cells = [(i, j) for i in range(len(b)) for j in range(len(W))]
    for i, j in progress_bar(cells, shown=progress, unit="cell", delay=2):
        sigma_w, sigma_b = float(W[j]), float(b[i])
        block = Block(lambda h, w=sigma_w, v=sigma_b: family(h, W_std=w, b_std=v), width)
        try:
            found = SignalPropagation(Repeated(block), 1.0)
            slope = found.slope
        except TensorProgramError as error:
            if "fixed point" not in str(error):
                raise
            arrays["q"][i, j] = np.inf
            continue
        worst = max(worst, float(slope.error))
        values = found.q, float(slope), found.c_star if found.q else 1.0, found.depth_scale
        for name, value in zip(QUANTITIES, values, strict=True):
            arrays[name][i, j] = value
    edge = np.full(len(b), np.nan)
    for i, row in enumerate(arrays["slope"]):
        crossing = np.flatnonzero((row[:-1] < 1) & (row[1:] >= 1))
        if len(crossing):
            k = crossing[0]
            edge[i] = np.interp(1.0, row[k : k + 2], W[k : k + 2])
    errors = dict.fromkeys(QUANTITIES, np.full(arrays["q"].shape, 10 * worst))
    return PhaseDiagram(b, W, **arrays, errors=errors, method="limits, cell by cell; edge by interpolation", edge=edge)
