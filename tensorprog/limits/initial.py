"""Initial scalars: functions of powers of n, of hyperparameters and of numbers alone, which have a limit as a whole.

Only where such a function ends counts: exp(-n) is made of n, which has no limit, and tends to 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.arrays import kernel
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import is_exact

__all__ = ["initial_limit", "initial_scalars", "limit_node"]

_ROOTS = (1e-60, 1e-75)
"""n^-1/2 at two huge reference widths."""


def initial_scalars(nodes: Sequence[Node]) -> set[Node]:
    """The nodes, operands first, that are functions of powers of n, hyperparameters and numbers; not of the last two alone."""
    out: set[Node] = set()
    plain: set[Node] = set()
    for x in nodes:
        if x.op in ("constant", "scalar") and x.is_scalar:
            plain.add(x)
        elif x.op == "inverse_sqrt":
            out.add(x)
        elif x.op in ("add", "mul", "fn") and x.is_scalar and all(a in out or a in plain for a in x.args):
            (out if any(a in out for a in x.args) else plain).add(x)
    return out


def initial_limit(x: Node, values: Mapping[str, Any]) -> np.ndarray | None:
    """The limit of an initial scalar, from two huge widths; None where it has none, or a hyperparameter has no value."""
    found = []
    for root in _ROOTS:
        done: dict[Node, Any] = {}
        with np.errstate(all="ignore"):
            for y in topological([x]):
                if y.op == "inverse_sqrt":
                    done[y] = np.float64(root / math.sqrt(y.attr.ratio))
                elif y.op == "scalar":
                    if y.attr[0] not in values:
                        return None
                    done[y] = np.asarray(values[y.attr[0]], dtype=float)
                else:
                    done[y] = kernel(y)(*[done[a] for a in y.args])
        found.append(np.asarray(done[x], dtype=float))
    if not np.all(np.isfinite(found)) or np.any(np.abs(found[0] - found[1]) > 1e-9 * (1 + np.abs(found[1]))):
        return None
    return np.where(np.abs(found[1]) < 1e-30, 0.0, found[1])


def limit_node(x: Node, values: Mapping[str, Any]) -> Node | None:
    """`initial_limit` as a constant, exact where it is a whole number or a half (the value of a step at its jump)."""
    value = initial_limit(x, values)
    if value is None:
        return None
    if x.shape:
        return algebra.typed(algebra.constant(np.array(np.broadcast_to(value, x.shape))), x.shape, None, None)
    exact = _exact_root(x)
    if exact is not None:
        return algebra.constant(exact)
    twice = 2 * float(value)
    return algebra.constant(Fraction(int(twice), 2) if twice.is_integer() and abs(twice) < 2**53 else float(value))


def _exact_root(x: Node) -> Fraction | None:
    """What a product of powers of widths tends to, whose powers of n cancel: the root of a rational; None if it is none."""
    if x.op != "mul":
        return None
    square = Fraction(1)
    for a, k in zip(x.args, x.attr, strict=True):
        if not algebra.is_power_of_n(a):
            return None
        width, sign = (a.attr, -1) if a.op == "inverse_sqrt" else (a.args[0].attr, 1)
        if not is_exact(width.ratio):
            return None
        square *= Fraction(width.ratio) ** (sign * k)
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    return root if root * root == square else None
