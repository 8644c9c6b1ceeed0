"""Shifted multiples: x and 2 x + 1 are one variable."""

from __future__ import annotations

import numpy as np

from tensorprog.language.node import Node
from tensorprog.language.symbols import Number

__all__ = ["carrier", "slope_and_shift"]


def carrier(x: Node) -> Node:
    """What c x + number is a shifted multiple of: x and x + 1 are one Gaussian variable."""
    while x.op == "add" and len(rest := [a for a in x.args if not _is_number(a)]) == 1:
        (x,) = rest
    return x


def slope_and_shift(x: Node) -> tuple[Number, Number]:
    """(c, d) where x is c carrier(x) + d."""
    c: Number = 1
    d: Number = 0
    while x.op == "add" and carrier(x) is not x:
        ((k, y),) = [(k, a) for k, a in zip(x.attr, x.args, strict=True) if not _is_number(a)]
        d = d + c * sum([k * a.attr for k, a in zip(x.attr, x.args, strict=True) if _is_number(a)])
        c, x = c * k, y
    return c, d


def _is_number(x: Node) -> bool:
    return x.op == "constant" and not isinstance(x.attr, np.ndarray)
