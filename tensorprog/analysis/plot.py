"""The pictures of comparisons, kernels and losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.figures import COLOURS, DASHES, MARKERS, figures, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tensorprog.analysis.compare import Comparison
    from tensorprog.analysis.judge import Judgement

__all__ = ["plot_deviations", "plot_kernels", "plot_losses", "plot_predictions"]


def plot_deviations(comparison: Comparison, path: str | Path | None = None) -> Figure:
    """Deviation against width, both logarithmic, with standard errors and the theorem's rate as a guide.

    Args:
        comparison: What to draw.
        path: Where to save it; the suffix says as what.

    Returns:
        The figure. It belongs to no window and changes no global state of matplotlib.

    Raises:
        TensorProgramError: matplotlib is not installed, or the file cannot be written.
    """
    Figure, ticker = figures()
    widths = np.asarray(comparison.widths, dtype=float)
    outputs = comparison.outputs.values()
    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    ax = figure.add_subplot(xscale="log", yscale="log")
    top = 0.0
    for i, item in enumerate(outputs):
        shown = np.isfinite(item.deviation) & (item.deviation > 0) & (item.note != "exact at every width")
        if not shown.any():
            ax.plot([], [], " ", label=_label(item))
            continue
        y, error = item.deviation[shown], item.deviation_error[shown]
        # An error bar must not reach zero, where a logarithmic axis ends.
        bars = np.stack([np.minimum(error, 0.9 * y), error])
        style: dict[str, Any] = {"color": COLOURS[i % 7], "marker": MARKERS[i % 10], "linestyle": DASHES[i // 7 % 3]}
        ax.errorbar(widths[shown], y, bars, capsize=2.5, markersize=5, linewidth=1.4, label=_label(item), **style)
        top = max(top, float(y[0] * np.sqrt(widths[shown][0])))
    if top > 0 and len(widths) > 1:
        guide = 1.6 * top / np.sqrt(widths)  # starts above every curve
        ax.plot(widths, guide, color="0.45", linestyle=":", linewidth=1.6, label="guide: $n^{-1/2}$")
    ax.xaxis.set_major_locator(ticker.FixedLocator(list(_spaced(widths))))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
    relative = [np.ndim(item.limit.value) > 0 for item in outputs]
    kind = "relative " if all(relative) else "absolute or, of arrays, relative " if any(relative) else ""
    ax.set(xlabel="width n", ylabel=f"deviation from the limit\n({kind}root mean square error)")
    verdict = {True: "all outputs agree with the limit", False: "some output differs from the limit", None: ""}
    found = verdict[comparison.agrees]
    ax.set_title(f"Finite widths against the limit, {len(comparison.seeds)} seeds" + (f"\n{found}" if found else ""))
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    if path is not None:
        saved(figure, path)
    return figure


def plot_kernels(kernels: Mapping[str, Any], path: str | Path | None = None) -> Figure:
    """Kernels as heat maps side by side, each with its scale; with several outputs, that of every pair of them.

    Colours diverge from 0 where there are both signs.

    Args:
        kernels: Name to `Estimate` or array of shape (examples, examples), or with two axes of outputs behind.
        path: Where to save it; the suffix says as what.

    Returns:
        The figure.

    Raises:
        TensorProgramError: matplotlib is not installed, or the file cannot be written.
    """
    Figure, ticker = figures()
    arrays = {name: np.asarray(k, dtype=float) for name, k in kernels.items()}
    panels: dict[str, np.ndarray] = {}
    for name, a in arrays.items():
        if a.ndim == 4:
            panels |= {f"{name}, outputs {i}, {j}": a[:, :, i, j] for i, j in np.ndindex(*a.shape[2:])}
        else:
            panels[name] = np.atleast_2d(a)
    figure = Figure(figsize=(4.4 * len(panels), 3.8), layout="constrained")
    for i, (name, a) in enumerate(panels.items(), 1):
        ax = figure.add_subplot(1, len(panels), i)
        aspect: Any = "equal" if a.shape[0] == a.shape[1] else "auto"
        shown = ax.imshow(a, **_colours(a), interpolation="nearest", aspect=aspect)
        figure.colorbar(shown, ax=ax, shrink=0.85)
        ax.set(title=name.replace("$", r"\$"), xlabel="example", ylabel="example")
        for side in (ax.xaxis, ax.yaxis):
            side.set_major_locator(ticker.MaxNLocator(integer=True))
    if path is not None:
        saved(figure, path)
    return figure


def plot_losses(limit: np.ndarray, widths: Mapping[int, Any], path: str | Path | None = None) -> Figure:
    """The loss against the step: the limit, and finite widths with their spread.

    Args:
        limit: The loss at every step.
        widths: A width to the mean and standard deviation of its networks' losses.
        path: Where to save it; the suffix says as what.

    Returns:
        The figure.

    Raises:
        TensorProgramError: matplotlib is not installed, or the file cannot be written.
    """
    Figure, ticker = figures()
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    ax = figure.add_subplot()
    steps = np.arange(len(limit))
    for i, (n, (mean, spread)) in enumerate(widths.items()):
        colour = COLOURS[i % 6]
        ax.plot(steps, mean, color=colour, marker=MARKERS[i % 10], markersize=4, linewidth=1.2, label=f"n = {n}")
        ax.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    ax.plot(steps, limit, color=COLOURS[6], linestyle=DASHES[1], linewidth=1.8, label="limit")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    ax.set(xlabel="step", ylabel="loss (mean ± standard deviation)", title="Training at finite widths and in the limit")
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=9)
    if path is not None:
        saved(figure, path)
    return figure


def plot_predictions(
    at: np.ndarray, mean: np.ndarray, spread: np.ndarray | None, unit: str, path: str | Path | None = None
) -> Figure:
    """Predicted outputs against the time of training, up to eight of them; with one time, against the example.

    Args:
        at: The times; infinity is drawn at the end.
        mean: Outputs (times, examples).
        spread: Their standard deviations, or None.
        unit: What `at` counts: "time t" or "step".
        path: Where to save it; the suffix says as what.

    Returns:
        The figure.

    Raises:
        TensorProgramError: matplotlib is not installed, or the file cannot be written.
    """
    Figure, _ = figures()
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    ax = figure.add_subplot()
    deviations = np.zeros_like(mean) if spread is None else 2 * spread
    if len(at) == 1:
        x = np.arange(mean.shape[1])
        ax.errorbar(x, mean[0], deviations[0], fmt="o", color=COLOURS[0], capsize=2.5, markersize=4)
        ax.set(xlabel="test example", title=f"{unit} {at[0]:g}")
    else:
        order = np.argsort(at)
        finite = at[np.isfinite(at) & (at > 0)]
        low, high = (finite.min(), finite.max()) if len(finite) else (1.0, 1.0)
        x = np.where(np.isinf(at), 3 * high, at)[order]
        for i in range(min(mean.shape[1], 8)):
            y, d, colour = mean[order, i], deviations[order, i], COLOURS[i % 7]
            ax.plot(
                x, y, color=colour, linestyle=DASHES[i // 7], marker=MARKERS[i], markersize=3.5, label=f"example {i}"
            )
            ax.fill_between(x, y - d, y + d, color=colour, alpha=0.12, linewidth=0)
        ax.set_xscale("symlog", linthresh=low)
        note = " (infinity at the end)" if np.isinf(at).any() else ""
        ax.set(xlabel=unit + note, title="Training in function space")
        ax.legend(frameon=False, fontsize=9)
    ax.set_ylabel("output" + ("" if spread is None else " (mean ± 2 standard deviations)"))
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    if path is not None:
        saved(figure, path)
    return figure


def _colours(a: np.ndarray) -> dict[str, Any]:
    """A map of one direction for numbers of one sign; else one that diverges from white at 0, as far up as down."""
    most = float(np.abs(a).max(initial=0.0))
    if a.size and a.min() < -1e-9 * most and a.max() > 1e-9 * most:
        return {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    return {"cmap": "viridis"}


def _label(item: Judgement) -> str:
    if item.slope is not None:
        text = f"slope {float(item.slope.value):.2f} ± {float(item.slope.error):.2f}".replace("-", "\N{MINUS SIGN}")
    else:
        text = item.note.split(":")[0].split(";")[0]
    name = item.name.replace("$", r"\$")  # a dollar would start a formula
    return f"{name} ({text})" + ("" if item.agrees is not False else "\ndiffers from the limit")


def _spaced(widths: np.ndarray) -> list[float]:
    """The widths that get a tick label: from the largest down, none closer to the last than labels need."""
    kept: list[float] = []
    room = max(float(widths[-1] / widths[0]), 1.0) ** (1 / 9)
    for n in widths[::-1]:
        if not kept or kept[-1] / n >= room:
            kept.append(float(n))
    return kept
