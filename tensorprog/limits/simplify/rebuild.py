"""A scalar of a limit on other operands: what the passes over scalar programs rebuild nodes with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tensorprog.language import algebra
from tensorprog.language.node import MOVES, Node

__all__ = ["rebuilt"]


def rebuilt(x: Node, args: Sequence[Node], shape: tuple[int, ...] | None = None) -> Node:
    """The same operation on other operands, in normal form; of another shape, if given."""
    shape = x.shape if shape is None else shape
    if x.op == "dual" and x.attr == "arccos1" and args[0] == args[1] == args[2]:  # on a diagonal: E relu(u)^2
        return algebra.typed(algebra.scale(Fraction(1, 2), args[0]), shape, x.width, x.inner)
    if x.op in ("add", "mul", "fn"):
        return algebra.typed(algebra.applied(x, args), shape, None, None)
    if x.op in (*MOVES, "stack", "sum", "softmax"):
        return algebra.applied(x, args)
    return Node(x.op, tuple(args), x.attr, shape, x.width, x.inner)
