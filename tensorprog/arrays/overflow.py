"""Exponentials that overflow next to an exact zero.

exp(x) step(-x) is 0 for every large x, and inf times 0 in floating point. A factor that is exactly 0 there, not by underflow,
wins: the overflowed one is a finite number. 1/x is not, and 0 times it stays undefined; sigmoid(-x) is not exactly 0, and
sigmoid(-x) exp(x) tends to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological

__all__ = ["cleared", "overruled"]

LARGE = 1e30
"""Products of ten such numbers are in range."""
_KNOWN: dict[bytes, tuple[bool, bool]] = {}
"""Digest of a node to whether it contains an exponential, and what is infinite at a finite point."""
_KINKED = ("relu", "step", "sign", "abs", "leaky_relu")


def overruled(factors: Sequence[Node]) -> list[tuple[int, list[int]]]:
    """(i, those j whose zeros are exact where factor i overflows), for every factor i that may overflow."""
    growing = [i for i, a in enumerate(factors) if _grows(a)]
    if not growing:
        return []
    found = []
    for i in growing:
        zeros = [j for j, a in enumerate(factors) if j != i and (_exact(a) or _outweighs(a, factors[i]))]
        if zeros:
            found.append((i, zeros))
    return found


def cleared(x: Any, zeros: Sequence[Any]) -> Any:
    """A factor, 0 where one of the others is 0, if it is so large that its powers overflow; the arrays are aligned."""
    if not np.size(x) or np.max(np.abs(x)) < LARGE:
        return x
    nothing = zeros[0] == 0
    for z in zeros[1:]:
        nothing = nothing | (z == 0)
    return np.where(nothing, 0.0, x)


def _grows(x: Node) -> bool:
    """Does it contain an exponential, and nothing that is infinite at a finite point?"""
    if len(_KNOWN) > 2**16:
        _KNOWN.clear()
    below = ("add", "mul", "fn", *MOVES)
    for y in topological([x], lambda y: y.args if y.op in below and y.digest not in _KNOWN else ()):
        if y.digest in _KNOWN:  # each node once: a residual network is a sum of sums
            continue
        parts = [_KNOWN[a.digest] for a in y.args] if y.op in below else []
        growth = PRIMITIVES[y.attr.name].growth if y.op == "fn" else ""
        _KNOWN[y.digest] = (
            growth == "exponential" or any(p[0] for p in parts),
            growth == "singular" or any(p[1] for p in parts),
        )
    exponential, singular = _KNOWN[x.digest]
    return exponential and not singular


def _exact(x: Node) -> bool:
    """Is it exactly 0 where it is 0: kinked functions, and sums of them and numbers?"""
    if x.op == "fn":
        return x.attr.name in _KINKED or x.attr == ("smooth_sign", (0,))
    if x.op in ("add", "mul", *MOVES):
        return all(a.op == "constant" or _exact(a) for a in x.args)
    return x.op == "constant"


def _outweighs(x: Node, y: Node) -> bool:
    """Is it a Gaussian tail of what the other is the exponential of, up to a factor? Then it has vanished first."""
    if x.op != "fn" or y.op != "fn" or not (PRIMITIVES[x.attr.name].decay == 2 or x.attr.name == "gelu"):
        return False
    (a,), (b,) = x.args, y.args
    return _stripped(a) == _stripped(b)


def _stripped(x: Node) -> Node:
    """x without a numeric factor and number."""
    while x.op == "add" and len(rest := [a for a in x.args if a.op != "constant"]) == 1:
        (x,) = rest
    return x
