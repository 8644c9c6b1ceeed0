"""The demo's third part: a network trained on digits, at infinite width as a kernel and with features that move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.execute.executor import run
from tensorprog.language.activations import tanh
from tensorprog.language.build import moment
from tensorprog.language.symbols import Width
from tensorprog.limits.limit import limit
from tensorprog.networks.inputs import Input
from tensorprog.networks.layers import dense
from tensorprog.networks.network import Network
from tensorprog.networks.readouts import readout
from tensorprog.training.sgd import sgd

if TYPE_CHECKING:
    from tensorprog.training.trace import Trace

__all__ = ["SCHEMES", "Training", "draw_training", "trained", "training"]

SCHEMES = {"ntk": "NTK parametrization", "mup": "muP"}
DIGITS, EACH, STEPS, RATE = (3, 8), 4, 4, 2.0
SAMPLES = 2**10
"""Of the population that is the limit of muP: three digits, in a second."""


@dataclass(frozen=True)
class Training:
    """Losses and features of networks and of the limit, by parametrization.

    Attributes:
        widths: The widths.
        losses: Parametrization to width to losses, (seeds, steps + 1).
        features: The same of the mean square of the last layer.
        limit: Parametrization to the limit's estimates.
    """

    widths: tuple[int, ...]
    losses: Mapping[str, Mapping[int, np.ndarray]]
    features: Mapping[str, Mapping[int, np.ndarray]]
    limit: Mapping[str, Mapping[str, Any]]

    def moved(self, scheme: str, width: int | None = None) -> float:
        """By how much of themselves features have moved at the end, root mean square over seeds; None: in the limit."""
        if width is None:
            a = np.asarray(self.limit[scheme]["features"].value, dtype=float).mean(axis=1)[None]
        else:
            a = self.features[scheme][width]
        return float(np.sqrt(np.mean((a[:, -1] / a[:, 0] - 1) ** 2)))


def trained(scheme: str, X: np.ndarray, labels: np.ndarray) -> Trace:
    """Four images of two digits, told apart by two hidden tanh layers and a few steps of gradient descent.

    Args:
        scheme: The parametrization.
        X: Images as rows.
        labels: Their digits.
    """
    chosen = np.concatenate([np.flatnonzero(labels == k)[:EACH] for k in DIGITS])
    y = np.where(labels[chosen] == DIGITS[0], 1, -1)
    n = Width("n")
    h = tanh(dense("W", tanh(dense("U", Input("x"), n)), n))
    probe = {"features": moment(h * h)}
    return sgd(Network(readout("v", h)), X[chosen], y, steps=STEPS, lr=RATE, parametrization=scheme, probe=probe)


def training(
    X: np.ndarray,
    labels: np.ndarray,
    widths: Sequence[int],
    seeds: int,
    say: Callable[[str], None],
    data: dict[str, Any],
) -> Training:
    """Trains, and says how the loss and the features went.

    Args:
        X: Images as rows.
        labels: Their digits.
        widths: Of the networks.
        seeds: How many networks a width.
        say: Prints a line.
        data: Takes what the JSON says.
    """
    traces = {scheme: trained(scheme, X, labels) for scheme in SCHEMES}
    options: dict[str, dict[str, Any]] = {"ntk": {}, "mup": {"samples": SAMPLES}}
    limits = {scheme: limit(trace, **options[scheme]) for scheme, trace in traces.items()}
    # centred: in the NTK parametrization a network's first outputs are taken off, as the limit from f_0 = 0 has it
    runs = {scheme: {n: run(t.program, n, seeds, progress=False) for n in widths} for scheme, t in traces.items()}
    found = Training(
        tuple(widths),
        {s: {n: r["loss"] for n, r in rows.items()} for s, rows in runs.items()},
        {s: {n: r["features"].mean(axis=2) for n, r in rows.items()} for s, rows in runs.items()},
        limits,
    )
    head = "".join([f"  {title:>30}" for title in SCHEMES.values()])
    say(f"    {'':>9}{head}")
    say(f"    {'width n':>9}" + f"  {'loss at the end':>17}  {'moved':>11}" * 2)
    for n in widths:
        cells = [(f"{found.losses[s][n][:, -1].mean():.4f}", found.moved(s, n)) for s in SCHEMES]
        say(f"    {n:>9}" + "".join([f"  {loss:>17}  {moved:>11.2%}" for loss, moved in cells]))
    ends = [limits[s]["loss"] for s in SCHEMES]
    texts = [f"{e.value[-1]:.4f} ± {np.asarray(e.error)[-1]:.0e}" for e in ends]
    cells = [(text, found.moved(s)) for text, s in zip(texts, SCHEMES, strict=True)]
    say(f"    {'infinite':>9}" + "".join([f"  {text:>17}  {moved:>11.2%}" for text, moved in cells]))
    data["training"] = {
        s: {
            "limit": {name: e.to_json() for name, e in limits[s].items()},
            "loss": {str(n): a.mean(axis=0).tolist() for n, a in found.losses[s].items()},
            "moved": {str(n): found.moved(s, n) for n in widths} | {"infinite": found.moved(s)},
        }
        for s in SCHEMES
    }
    return found


def draw_training(figure: Any, found: Training) -> None:
    """Losses against the step in both parametrizations, and how far features have moved, against the width.

    Args:
        figure: A figure, or a part of one.
        found: What to draw.
    """
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    shades = np.linspace(0.75, 0.25, max(len(found.widths), 2))
    colours = {"ntk": "#0072B2", "mup": "#D55E00"}
    for ax, (scheme, title) in zip(axes, SCHEMES.items(), strict=False):
        for n, shade in zip(found.widths, shades, strict=False):
            loss = found.losses[scheme][n]
            for i, row in enumerate(loss):
                ax.plot(row, "-", color=str(shade), linewidth=1, label=f"n = {n}" if i == 0 else None)
        ax.plot(
            np.asarray(found.limit[scheme]["loss"].value, dtype=float), "--", color=colours[scheme], linewidth=2.4,
            label="infinite width",
        )  # fmt: skip
        ax.set(title=f"Training on digits: {title}", xlabel="step", ylabel="loss")
        ax.set_xticks(range(STEPS + 1))
        ax.legend(frameon=False, fontsize=8)
    ax = axes[2]
    for scheme, marker in zip(SCHEMES, "os", strict=True):
        moved = [found.moved(scheme, n) for n in found.widths]
        ax.plot(found.widths, moved, marker=marker, color=colours[scheme], label=SCHEMES[scheme])
    ax.axhline(found.moved("mup"), color=colours["mup"], linestyle="--", linewidth=1.6, label="muP, infinite width")
    first = found.moved("ntk", found.widths[0])
    guide = 2 * first * found.widths[0] / np.array(found.widths)
    ax.plot(found.widths, guide, ":", color="0.45", linewidth=1.8, label="guide: $n^{-1}$")
    ax.set(xscale="log", yscale="log", xlabel="width $n$", ylabel="relative change of the last layer")
    ax.set_title("How far features have moved", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5)
    for ax in axes:
        ax.title.set_fontsize(11)
        ax.grid(True, color="0.91", linewidth=0.8)
        ax.set_axisbelow(True)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
