"""The picture of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.figures import COLOURS, DASHES, MARKERS, figures, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tensorprog.analysis.swept import Sweep

__all__ = ["plot_sweep"]


def plot_sweep(sweep: Sweep, path: str | Path | None = None) -> Figure:
    """The loss against a hyperparameter: a curve a width, the limit dashed and black, with the best value of each.

    A curve ends where training diverges; at the top, the largest stable value of every width.

    Args:
        sweep: What to draw.
        path: Where to save it; the suffix says as what.

    Returns:
        The figure.

    Raises:
        TensorProgramError: matplotlib is not installed, or the file cannot be written.
    """
    Figure, ticker = figures()
    figure = Figure(figsize=(8.2, 4.8), layout="constrained")
    ax = figure.add_subplot()
    values = np.asarray(sweep.values)
    shown = [row.loss[np.array(row.status) == "stable"] for row in sweep.rows.values()]
    losses = np.concatenate(shown) if shown else np.empty(0)
    if (values > 0).all():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    if losses.size and (losses > 0).all():
        ax.set_yscale("log")
        ax.set_ylim(losses.min() / 1.6, losses.max() * 1.6)
    finite = [n for n in sweep.rows if np.isfinite(n)]
    for n, row in sweep.rows.items():
        at = np.asarray(row.values)
        i = finite.index(n) if n in finite else 6
        known = row.known
        style: dict[str, Any] = (
            {"color": COLOURS[i % 6], "marker": MARKERS[i % 10], "linewidth": 1.3, "zorder": 2}
            if n in finite
            else {"color": COLOURS[6], "marker": "o", "linewidth": 2.0, "linestyle": DASHES[1], "zorder": 3}
        )
        best = sweep.best[n]
        label = ("limit" if n not in finite else f"n = {n}") + (f": best {float(best.value):.3g}" if best else "")
        level = np.where(known, row.loss, np.nan)
        ax.errorbar(at, level, np.where(known, row.error, np.nan), capsize=2, markersize=4, label=label, **style)
        if best is not None:
            ax.plot(
                [float(best.value)], [row.valley.least], marker="*", markersize=13, color=style["color"],
                markeredgecolor="white", zorder=4, linestyle="none",
            )  # fmt: skip
        last = sweep.largest_stable[n]
        if last is not None and last < sweep.values[-1]:
            top = ax.get_xaxis_transform()
            ax.plot([last], [1.02], "v", markersize=6, color=style["color"], transform=top, clip_on=False)
    says = {True: "transfers", False: "does not transfer", None: "may or may not transfer"}[sweep.transfers]
    slope = sweep.slope
    rate = "" if slope is None else f": slope on the width {float(slope):.2f} ± {slope.error:.2f}"
    title = f"The best {sweep.name} {says}{rate}".replace("-", "\N{MINUS SIGN}") if slope is not None else ""
    ax.set_title(title, pad=16)
    stable = [v for v in sweep.largest_stable.values() if v is not None]
    if stable and values[0] > 0:  # the cliff, and not far beyond
        ax.set_xlim(values[0] / 1.2, min(values[-1], 4 * max(stable)) * 1.2)
    ax.set(xlabel=sweep.name, ylabel=sweep.of)
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.plot([], [], "*", color="0.4", markersize=10, label="best")
    ax.plot([], [], "v", color="0.4", markersize=6, label="largest stable")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    if path is not None:
        saved(figure, path)
    return figure
