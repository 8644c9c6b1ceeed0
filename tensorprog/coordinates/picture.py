"""The picture of a coordinate check. matplotlib is imported here alone, and only when something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.coordinates.program import ACTIVATION, CHANGE, UPDATE
from tensorprog.figures import COLOURS, MARKERS, figures, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tensorprog.coordinates.report import CoordCheck

__all__ = ["plot_coordinates"]

PANELS = {
    "activations at first": (ACTIVATION, True),
    "activations": (ACTIVATION, False),
    "changes": (CHANGE, False),
    "updates": (UPDATE, False),
}


def plot_coordinates(check: CoordCheck, path: str | Path | None = None) -> Figure:
    """Sizes against width, both logarithmic, one panel for each thing measured; what fails is drawn thick, with its exponent.

    Args:
        check: What to draw.
        path: Where to save it; the suffix says as what.

    Returns:
        The figure. It belongs to no window and changes no global state of matplotlib.

    Raises:
        TensorProgramError: matplotlib is not installed, or the file cannot be written.
    """
    Figure, ticker = figures()
    layers = list(dict.fromkeys([r.layer for r in check.rows]))
    rows = {
        title: [r for r in check.rows if r.what == what and (what != ACTIVATION or (r.step == 0) == first)]
        for title, (what, first) in PANELS.items()
    }
    rows = {title: found for title, found in rows.items() if any(max(r.sizes, default=0) > 0 for r in found)}
    figure = Figure(figsize=(3.1 * len(rows) + 1.8, 3.9), layout="constrained")
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    shown: dict[str, Any] = {}
    for ax, (title, found) in zip(axes, rows.items(), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="width n")
        steps = sorted({r.step for r in found if r.exponent > -np.inf})
        ax.set_title(f"{title}, step {steps[0] if len(steps) == 1 else f'{steps[0]}-{steps[-1]}'}", fontsize=10)
        for r in found:
            y, n = np.asarray(r.sizes), np.asarray(r.widths, float)
            if not (y > 0).all():
                continue
            i, wrong = layers.index(r.layer), r.passed is False
            bars = np.minimum(np.asarray(r.errors), 0.9 * y)
            style: dict[str, Any] = {
                "color": COLOURS[i % len(COLOURS)],
                "marker": MARKERS[i % len(MARKERS)],
                "markersize": 4,
            }
            line = ax.errorbar(n, y, bars, linewidth=2.8 if wrong else 1.2, capsize=2, **style)
            shown.setdefault(r.layer, line)
            if wrong:
                ax.annotate(f"{r.exponent:+.2f}", (n[-1], y[-1]), (6, 0), textcoords="offset points", fontsize=9, va="center",
                            color=style["color"], fontweight="bold", annotation_clip=False)  # fmt: skip
            if r.limit:
                ax.axhline(r.limit, color=style["color"], linewidth=0.8, linestyle=":")
        ax.xaxis.set_major_locator(
            ticker.FixedLocator([r for r in check.widths[:: max(1, -(-len(check.widths) // 4))]])
        )
        ax.xaxis.set_minor_locator(ticker.NullLocator())
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        ax.grid(True, color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
        low, high = ax.get_ylim()
        if high < 30 * low:  # a flat line should look flat
            middle = np.sqrt(low * high)
            ax.set_ylim(middle / 6, middle * 6)
    axes[0].set_ylabel("root mean square of coordinates")
    says = {True: "passed", False: "failed", None: "undecided"}[check.passed]
    figure.suptitle(f"Coordinate check against {check.target}: {says}" + (
        "  (dotted: infinite width; thick: not of the right order, with the exponent of n)" if any(r.limit for r in check.rows)
        else ""), fontsize=10)  # fmt: skip
    shown = {name: shown[name] for name in layers if name in shown}
    figure.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False, fontsize=9)
    if path is not None:
        saved(figure, path)
    return figure
