"""The command `depth`: what a network of many equal layers does, from a file that defines its activation or its block."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from tensorprog.faces.answer import Answer
from tensorprog.faces.files import CommandError, load_function

__all__ = ["depth", "depth_arguments", "numbers"]

DEPTHS = [10.0, 100.0, 1e3, 1e4, 1e5, 1e6]
STARTS = [0.0, 0.5, 1.0]


def numbers(text: str) -> list[float]:
    """Numbers with commas between them.

    Example:
        >>> numbers("10,1e6")
        [10.0, 1000000.0]
    """
    return [float(part) for part in text.split(",") if part.strip()]


def depth_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, the weights, and which kernels."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a Python file whose build(**parameters) returns a function: an activation (then give --W-std or --edge), a block "
        "h -> h of layers, or a family of blocks, a function of h, W_std and b_std",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="name=value", help="parameters of build(): Python literals"
    )
    parser.add_argument(
        "--W-std", type=float, metavar="S", help="of the weights of the dense layer after an activation"
    )
    parser.add_argument("--b-std", type=float, default=None, metavar="S", help="of its biases (default 0)")
    parser.add_argument("--edge", action="store_true", help="at the edge of chaos for --b-std")
    parser.add_argument("--q", type=float, help="the variance of the inputs, where all are fixed, or that is followed")
    parser.add_argument("--depth", type=numbers, default=DEPTHS, metavar="10,1e6", help="depths (default 10 to 1e6)")
    parser.add_argument("--c0", type=numbers, default=STARTS, metavar="0,0.5", help="correlations of the inputs")
    parser.add_argument("--relative", action="store_true", help="kernels over the variance at that depth")
    parser.add_argument("--phases", action="store_true", help="--plot the phase diagram in place of map and kernels")
    parser.add_argument("--plot", metavar="out.svg", help="draw the map and the kernels (needs matplotlib)")


def depth(args: argparse.Namespace, check_picture: Callable[[str | None], None]) -> Answer:
    """An activation or a block of layers, repeated: fixed points, phase, the tangent kernel at any depth, its rate."""
    import numpy as np

    from tensorprog.depth.blocks import takes_deviations
    from tensorprog.depth.edge import edge_of_chaos
    from tensorprog.depth.phase import phase_diagram
    from tensorprog.depth.signal import signal_propagation

    check_picture(args.plot)
    function = load_function(args.file, args.set)
    data: dict[str, Any] = {}
    lines: list[str] = []
    W, b = args.W_std, args.b_std
    family = takes_deviations(function)
    if args.edge:
        if W is not None:
            raise CommandError("--edge finds W_std: leave out --W-std")
        edge = edge_of_chaos(function, 0 if b is None else b)
        W, b = edge.W_std, edge.b_std
        data["edge"] = {k: e.to_json() for k, e in edge.estimates.items()}
        lines.append(repr(edge))
    if family and W is None:
        raise CommandError("a family of blocks needs --W-std, or --edge")
    if family:
        s = signal_propagation(lambda h: function(h, W_std=W, b_std=b or 0.0), q=args.q)
    else:
        s = signal_propagation(function, W, b, q=args.q)
    lines.append(repr(s))
    data |= {"phase": s.phase, "q": s.q, "growth": s.growth, "slope": s.slope.to_json()}
    if s.q:
        K = s.ntk(args.depth, args.c0, relative=args.relative)
        rate = s.rate
        data |= {"c_star": _finite(s.c_star), "depth_scale": _finite(s.depth_scale)}
        data["depth"], data["c0"] = args.depth, args.c0
        data["rate"] = {"form": rate.form} | {
            k: getattr(rate, k).to_json() for k in ("limit", "remainder", "fitted_limit", "fitted_remainder")
        }
        data["outputs"] = {"ntk": K.to_json()}
        over = "K^L/q^L" if args.relative else "K^L"
        lines += ["", repr(rate), "", f"{'L':>12} " + " ".join([f"{over + f', c0={c:g}':>22}" for c in args.c0])]
        for L, row in zip(args.depth, np.asarray(K.value), strict=True):
            lines.append(f"{int(L):>12} " + " ".join([f"{x:>22.12g}" for x in row]))
        worst = np.max(np.where(np.isfinite(K.error), K.error, 0) / np.maximum(np.abs(np.asarray(K.value)), 1e-300))
        lines.append(f"errors at most {worst:.0e} of the values ({K.method}{'; ' + K.note if K.note else ''})")
    if args.plot:
        if args.phases:
            top = 2 * (W or 1.5)
            steps = 12 if family else 101
            phase_diagram(function, np.linspace(0, 1, steps), np.linspace(top / steps, top, steps)).plot(args.plot)
        else:
            s.plot(args.plot)
    return Answer("\n".join(lines), data, remark=f"picture: {args.plot}" if args.plot else "")


def _finite(x: float) -> float | None:
    """A number as JSON has them."""
    return x if abs(x) < float("inf") else None
