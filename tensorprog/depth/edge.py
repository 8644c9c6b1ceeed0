"""The edge of chaos: where the slope of the correlation map at 1 is 1.

With V(q) = E phi(sqrt(q) z)^2 and A(q) = E phi'(sqrt(q) z)^2 of what comes before the dense layer, chi = W_std^2 A(q) = 1 and
q = b_std^2 + W_std^2 V(q) are one equation in q: b_std^2 + V(q)/A(q) - q = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tensorprog.depth.blocks import Block, Repeated, takes_deviations
from tensorprog.depth.fixed import SAME, polished, root, scanned, variance
from tensorprog.depth.results import Edge
from tensorprog.errors import TensorProgramError
from tensorprog.language.symbols import Width
from tensorprog.networks.layers import squared

__all__ = ["beside", "edge_of_chaos"]

STEEP = 1 + 1e-9
"""A variance that moves by more after it has been moved is not stable."""
SPAN = np.geomspace(0.05, 20, 25)
"""Where the weights of a family of blocks are looked for."""


def edge_of_chaos(phi: Callable[..., Any], b_std: Any = 0, *, width: Width | None = None) -> Edge:
    """The weights at which a deep network of this function neither forgets its input nor amplifies its noise.

    Args:
        phi: The function between dense layers, `tp.tanh` say, of any layers; or a family of blocks, a function of h, W_std and
            b_std.
        b_std: Standard deviation of the biases.
        width: The width of h, where the function has layers.

    Returns:
        An `Edge`: `W_std`, `b_std`, the variance `q` at the fixed point, and their errors.

    Raises:
        TensorProgramError: there is no edge.

    Example:
        >>> import tensorprog as tp
        >>> e = tp.edge_of_chaos(tp.relu, b_std=0)
        >>> print(round(e.W_std**2, 12))
        2.0
        >>> print(round(tp.edge_of_chaos(tp.tanh, b_std=0.2).W_std, 8))
        1.30414584

    Source: Schoenholz et al. 2017 (arXiv:1611.01232); Hayou, Doucet, Rousseau 2019 (arXiv:1905.13654).
    """
    b2 = float(squared(b_std, "b_std"))
    if takes_deviations(phi):
        return _of_family(phi, float(np.sqrt(b2)), width)
    block = Block(phi, width)
    with np.errstate(divide="ignore", invalid="ignore"):
        grid, V, A = scanned(block.alone, b2, lambda V, A: b2 + V / A)
    known = np.isfinite(A) & (A > 0)
    if not known.any():
        raise TensorProgramError(
            "the function has no edge of chaos",
            why="its slope is infinite or 0, whatever the variance",
            fix="give a function that is continuous and not constant",
        )
    grid, V, A = grid[known], V[known], A[known]
    if np.abs(V / (A * grid) - 1).max() <= SAME and b2 == 0:
        one = block.alone([1.0])
        error = 0.5 * one.errors[1] / float(one.slope[0]) ** 1.5
        note = "any variance is a fixed point: q is that of the input"
        return Edge(float(one.slope[0]) ** -0.5, 0.0, 1.0, error, 0.0, "closed form", note)
    every, gap = grid, b2 + V / A - grid
    off = np.abs(gap) > SAME * grid
    grid, gap = grid[off], gap[off]
    found = [_polished(block, b2, *np.log(grid[i : i + 2])) for i in np.flatnonzero((gap[:-1] > 0) != (gap[1:] > 0))]
    zero = block.alone([0.0]) if b2 == 0 else None
    if zero is not None and zero.covariance[0] < 1e-25 and zero.slope[0] > 0:
        slope = float(zero.slope[0])
        edge = Edge(slope**-0.5, 0.0, 0.0, zero.errors[1] * slope**-1.5, 0.0, "limit of small variances")
        found.append((edge, beside(V / (slope * every))))
    stable = [e for e, steep in found if steep <= STEEP]
    if not stable:
        why = f"no variance up to {every[-1]:.0e} is left as it is where the slope is 1"
        if found:
            first = found[0][0]
            why = f"at W_std = {first.W_std:.10g} the slope is 1 at q = {first.q:.10g}, a variance that is not stable"
        raise TensorProgramError(
            f"no edge of chaos at b_std = {b2**0.5:g}", why=why, fix="choose other biases, or another function"
        )
    stable.sort(key=lambda e: e.q)
    others = ", ".join([f"W_std = {e.W_std:.6g} (q = {e.q:.6g})" for e in stable[1:]])
    return replace(stable[0], note=f"also at {others}" if others else stable[0].note)


def beside(ratio: np.ndarray) -> float:
    """How variances next to 0 are multiplied where the slope there is 1: the first of the ratios that is told from 1."""
    told = ratio[np.abs(ratio - 1) > STEEP - 1]
    return float(told[0]) if len(told) else 1.0


def _polished(block: Block, b2: float, low: float, high: float) -> tuple[Edge, float]:
    """The edge between two logarithms of variances, and how a variance that is moved comes back."""
    errors = (0.0, 0.0, 0.0)

    def gap(s: np.ndarray) -> np.ndarray:
        nonlocal errors
        found = block.alone(np.exp(s))
        errors = found.errors
        V, A = found.covariance, found.slope
        return np.stack([(b2 + V / A) / np.exp(s) - 1, V, A])

    s, (_, V, A), (turn, V_turn, A_turn) = polished(gap, low, high)
    if not errors[1] < A:
        raise TensorProgramError(
            f"the slope at variances of {np.exp(s):.1e} is not known to a digit",
            why="the function is steep there, and what is integrated narrow",
            fix="choose smaller biases, or write the function at a scale of order one",
        )
    q, W = float(np.exp(s)), float(A**-0.5)
    noise = float(errors[0] + V * errors[1] / A) / (A * q) + 1e-15
    moved = noise / max(abs(float(turn)), 1e-12)  # of log q
    error = 0.5 * W * float((errors[1] + abs(A_turn) * moved) / A) + 2e-16 * W
    return Edge(W, b2**0.5, q, error, q * moved, "fixed point of the limit"), float(V_turn / A / q)


def _of_family(family: Callable[..., Any], b_std: float, width: Width | None) -> Edge:
    """By the slope at the fixed point, as a function of W_std."""

    def made(W: float) -> tuple[float, float, float]:
        repeated = Repeated(Block(lambda h: family(h, W_std=W, b_std=b_std), width))
        v = variance(repeated)
        found = repeated.alone([v.chosen])
        scale = v.chosen / float(found.covariance[0])
        return float(found.slope[0]) * scale - 1, v.chosen, found.errors[1] * scale + v.error / v.chosen

    last: tuple[float, float] | None = None
    for W in SPAN:
        try:
            here = made(float(W))[0]
        except TensorProgramError:
            last = None
            continue
        if last is not None and (last[1] > 0) != (here > 0):
            top = root(lambda W: made(W)[0], last[0], float(W))
            _, q, noise = made(top)
            step = 1e-3 * top
            steep = abs(made(top + step)[0] - made(top - step)[0]) / (2 * step)
            error = noise / max(steep, 1e-12)
            return Edge(top, b_std, q, error, q * error / top, "fixed point of the limit of the block")
        last = float(W), here
    raise TensorProgramError(
        f"no edge of chaos at b_std = {b_std:g}",
        why="whatever W_std, the slope stays on one side of 1, or the variance has no fixed point",
        fix="look at tp.phase_diagram of the block",
    )
