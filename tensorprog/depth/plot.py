"""The picture of a signal's propagation: the correlation map, and the tangent kernel against depth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tensorprog.figures import COLOURS, figures, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tensorprog.depth.signal import SignalPropagation

__all__ = ["plot_signal"]

STARTS = (-0.5, 0.0, 0.5, 0.9, 1.0)
"""Correlations of inputs whose kernels are drawn."""
DEEPEST = 6
"""Depths are drawn to this power of ten."""


def plot_signal(s: SignalPropagation, path: str | Path | None = None) -> Figure:
    """The map of correlations with its fixed points, and K^L over the variance against depth.

    Args:
        s: What to draw.
        path: Where to save it; the suffix says as what.

    Returns:
        The figure.
    """
    Figure, _ = figures()
    figure = Figure(figsize=(10.4, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    c = np.linspace(-1, 1, 401)
    left.plot(c, c, color="0.6", linewidth=1, label="unchanged")
    left.plot(c, 1 - s.map.defect(1 - c), color=COLOURS[0], linewidth=1.8, label="after one layer")
    for p in s.correlations:
        face = COLOURS[1] if p.stable else "white"
        left.plot([p.value], [p.value], "o", color=COLOURS[1], markerfacecolor=face, zorder=3)
    left.plot([], [], "o", color=COLOURS[1], label="stable fixed point")
    if not all(p.stable for p in s.correlations):
        left.plot([], [], "o", color=COLOURS[1], markerfacecolor="white", label="unstable fixed point")
    left.set(xlabel="correlation $c$", ylabel="correlation after one layer", xlim=(-1, 1.03), ylim=(-1, 1.06))
    left.set_title(f"{s.phase}: $\\chi$ = {float(s.slope):.6g}")
    left.legend(frameon=False, loc="upper left", fontsize=9)
    depths = np.unique(np.round(np.logspace(0, DEEPEST, 61)).astype(np.int64))
    K = s.ntk(depths, STARTS, relative=True)
    for j, start in enumerate(STARTS):
        shown = np.isfinite(K[:, j]) & (K[:, j] > 0)
        dashes = "--" if start == 1 else "-"
        right.plot(depths[shown], K[shown, j], dashes, color=COLOURS[j], linewidth=1.6, label=f"$c_0$ = {start:g}")
    if s.phase == "edge" and s.c_star == 1:
        guide = float(s.rate.limit) * depths
        right.plot(depths, guide, ":", color="0.35", linewidth=1.4, label=f"{float(s.rate.limit):.4g} $L$")
    right.set(xscale="log", yscale="log", xlabel="depth $L$", ylabel="tangent kernel over the variance, $K^L/q$")
    shown = np.asarray(K.value)[:, :-1]
    right.set_ylim(
        1e-2 * min(1.0, float(shown.max())), 30 * float(shown.max())
    )  # in the chaotic phase the diagonal leaves
    right.legend(loc="best", fontsize=9)
    for ax in (left, right):
        ax.grid(True, color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
    if path is not None:
        saved(figure, path)
    return figure
