"""Times of large depth: `python benchmarks/depth.py [--write]`.

CPU seconds of this process, the best of three calls, everything included: a function is compiled again in every call. --write
puts the table into benchmarks/depth.md.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import tensorprog as tp

SMALL = bool(os.environ.get("TENSORPROG_SMALL"))
GRID = 20 if SMALL else 200
n = tp.Width("n")


def deep(phi: Callable[..., Any], W_std: float, b_std: float) -> Callable[[], Any]:
    """The kernels of 100 correlations at depth 10^6, of a signal that is known; the doubling is made anew."""
    s = tp.signal_propagation(phi, W_std=W_std, b_std=b_std)
    s.map  # noqa: B018 - found once

    def call() -> Any:
        s.__dict__.pop("_doubled", None)
        return s.ntk(10**6, np.linspace(-1, 1, 100))

    return call


def gated(h: Any) -> Any:
    """A residual block with a gate."""
    gate = tp.sigmoid(tp.dense("G", h, n, W_std=2, b_std=1))
    return 0.5 * h + tp.dense("W", gate * tp.tanh(h), n, W_std=4, b_std=0.2)


def resnet(h: Any, phi: Any) -> Any:
    """33 residual blocks, three activations in a branch."""
    for k in range(33):
        x = h
        for part in "ABC":
            x = tp.dense(f"{part}{k}", phi(x), n)
        h = 0.6 * h + 0.8 * x
    return phi(h)


def cases() -> list[tuple[str, float, Callable[[], Any]]]:
    """What is timed, the seconds it may take, and the call."""
    b, W = np.linspace(0, 1, GRID), np.linspace(0.5, 3, GRID)
    edge = tp.edge_of_chaos(tp.tanh, b_std=0.2)
    found = [
        (f"edge of chaos, {phi.__name__}", 1.0, lambda phi=phi: tp.edge_of_chaos(phi, b_std=0.2))
        for phi in (tp.erf, tp.tanh, tp.elu)
    ]
    found += [
        (f"phase diagram {GRID} x {GRID}, {phi.__name__}", 5.0, lambda phi=phi: tp.phase_diagram(phi, b_std=b, W_std=W))
        for phi in (tp.erf, tp.tanh)
    ]
    found += [
        ("NTK at depth 10^6, 100 correlations, relu", 1.0, deep(tp.relu, 2**0.5, 0)),
        ("NTK at depth 10^6, 100 correlations, tanh at the edge", 1.0, deep(tp.tanh, edge.W_std, 0.2)),
        ("signal propagation, tanh", 1.0, lambda: repr(tp.signal_propagation(tp.tanh, W_std=2, b_std=0.2))),
        ("signal propagation, a gated residual block", 2.0, lambda: repr(tp.signal_propagation(gated))),
    ]
    found += [
        (
            f"shaping for 33 residual blocks, {m}, {phi.__name__}",
            1.0,
            lambda phi=phi, m=m: tp.shape_activation(phi, resnet, m),
        )
        for m, phi in (("dks", tp.tanh), ("tat", tp.tanh), ("dks", tp.relu))
    ]
    return found


def main() -> None:
    """Prints the table."""
    rows = ["| case | seconds | aim |", "|---|---|---|"]
    for name, aim, call in cases():
        best = np.inf
        for _ in range(1 if SMALL else 3):
            start = time.process_time()
            call()
            best = min(best, time.process_time() - start)
        rows.append(f"| {name} | {best:.2f} | {aim:g} |")
        print(rows[-1], flush=True)
    where = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, one core"
    text = f"# Large depth\n\nCPU seconds, the best of three calls; {where}.\n"
    text += "Written by `python benchmarks/depth.py --write`.\n\n"
    if "--write" in sys.argv:
        (Path(__file__).parent / "depth.md").write_text(text + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
