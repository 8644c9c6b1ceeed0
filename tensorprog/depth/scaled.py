"""Residual networks whose branches are scaled layer by layer: h_l = h_(l-1) + s_l F(h_(l-1)).

A branch that multiplies all variances by v makes of the correlation map, with w_l = s_l^2 v / (1 + s_l^2 v), the mean of staying
and of the branch's own map: no two layers are alike, and they are carried out one after the other, in 1 - c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorprog.depth.blocks import Block, Repeated
from tensorprog.depth.fixed import variance
from tensorprog.depth.maps import CorrelationMap, correlation_map
from tensorprog.depth.results import Table
from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import Width
from tensorprog.progress import progress_bar

__all__ = ["ScaledResidual", "scaled_residual"]

DEEPEST = 10**7


def scaled_residual(
    branch: Callable[..., Any], scale: Callable[[int], float], *, width: Width | None = None
) -> ScaledResidual:
    """A deep residual network with scaled branches: h_l = h_(l-1) + scale(l) branch(h_(l-1)), l = 2, 3, ..

    Args:
        branch: A function h -> h that ends in a dense layer of its own, and multiplies all variances by one number: relu and
            dense layers without biases, say.
        scale: Layer to the factor of its branch: `lambda layer: layer**-0.5`.
        width: The width of h, for layers of another width than `tp.Width("n")`.

    Returns:
        A `ScaledResidual`, whose `ntk` is as that of `tp.signal_propagation`.

    Raises:
        TensorProgramError: the branch multiplies variances by different numbers, or is correlated with the state.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> s = tp.scaled_residual(lambda h: tp.dense("W", tp.relu(h), n, W_std=2**0.5), lambda layer: layer**-0.5)
        >>> K = s.ntk(depth=100, c0=[0.0, 1.0])
        >>> print(round(K[0] / K[1], 4))
        0.2575

    Source: Hayou, Doucet, Rousseau 2019 (arXiv:1905.13654): residual networks scaled by 1/sqrt(l).
    """
    return ScaledResidual(branch, scale, width)


class ScaledResidual:
    """See `scaled_residual`; made there."""

    def __init__(self, branch: Callable[..., Any], scale: Callable[[int], float], width: Width | None) -> None:
        repeated = Repeated(Block(branch, width))
        found = variance(repeated)
        if not found.homogeneous:
            raise TensorProgramError(
                "the branch multiplies variances by different numbers",
                why="its map of correlations then changes from layer to layer",
                fix="give a branch of scale-free functions, without biases; or a block with a fixed scale to "
                "tp.signal_propagation",
            )
        both = Repeated(Block(lambda h: h + branch(h), width))
        whole = both.pairs(1.0, np.array([0.3, 1.4]))
        parts = np.array([0.7, -0.4]) + repeated.pairs(1.0, np.array([0.3, 1.4])).covariance
        if np.abs(whole.covariance - parts).max() > 1e-10:
            raise TensorProgramError(
                "the branch is correlated with the state", fix="let it end in a dense layer of its own"
            )
        self.growth, self.scale = found.growth, scale
        self.map: CorrelationMap = correlation_map(repeated, 1.0)

    def weight(self, layer: int) -> float:
        """The branch's share of the variance after a layer."""
        s = self.scale(layer)
        if not (isinstance(s, (int, float, np.number)) and np.isfinite(s)):
            raise TensorProgramError(f"the scale of layer {layer} is {s!r}", fix="return a number")
        return float(s * s * self.growth / (1 + s * s * self.growth))

    def ntk(self, depth: Any, c0: Any = 0.0, progress: bool | None = None) -> Table:
        """The tangent kernel over the variance, K^L/q^L, of inputs of correlation c0; K^1/q^1 is c0.

        Args:
            depth: L, at least 1; a number or several. As many layers are carried out.
            c0: Correlations of the inputs.
            progress: Whether to show a progress bar; by default on a terminal, if it takes long.
        """
        depths, c = np.asarray(depth), np.asarray(c0, float)
        whole = depths.size and np.all(depths == np.round(depths)) and np.all((depths >= 1) & (depths <= DEEPEST))
        if not (whole and c.size and np.all(np.abs(c) <= 1)):
            raise TensorProgramError(
                f"depth={depth!r}, c0={c0!r}", fix=f"give whole depths from 1 to {DEEPEST:.0e} and correlations"
            )
        wanted = np.ravel(depths).astype(int)
        first, second = [self._kernels(f, wanted, np.ravel(c), progress) for f in (self.map, self.map.moved())]
        error = np.abs(first - second) + 1e-16 * wanted[:, None] ** 0.5 * (np.abs(first) + 1) + 1e-15 * np.abs(first)
        shape = (*depths.shape, *c.shape)
        return Table(first.reshape(shape), error.reshape(shape), "layer by layer", "bound")

    def _kernels(self, f: CorrelationMap, depths: np.ndarray, c: np.ndarray, progress: bool | None) -> np.ndarray:
        g, theta = 1 - c, c.copy()
        same = g == 0
        found = np.empty((len(depths), len(c)))
        found[depths == 1] = theta
        for layer in progress_bar(range(2, int(depths.max()) + 1), shown=progress, unit="layer", delay=2):
            w = self.weight(layer)
            a = np.where(same, 1 - w * (1 - f.chi), 1 - w * f.flattening(g))
            theta = a * theta + w * np.where(same, f.diagonal, f.own(g))
            g = np.where(same, 0.0, np.clip(g - w * g * f.contraction(g), 0.0, 2.0))
            found[depths == layer] = theta
        return found

    def __repr__(self) -> str:
        return (
            f"residual network with scaled branches, each multiplying the variance by 1 + {self.growth:.12g} scale(l)^2"
        )
