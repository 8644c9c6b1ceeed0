"""The loop that passes over scalar programs are made with: a scalar of a limit on other operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from tensorprog.language import algebra
from tensorprog.language.node import MOVES, Node, topological

__all__ = ["as_it_is", "rebuilt", "rewritten"]

Rule = Callable[[Node, Sequence[Node]], "Node | None"]
"""A node and its operands, rewritten, to what takes its place; None: the same operation on these operands."""


def rewritten(
    outputs: Sequence[Node], rule: Rule, build: Callable[[Node, Sequence[Node]], Node] | None = None
) -> list[Node]:
    """The outputs with a rule applied to every node, operands first.

    Args:
        outputs: Scalar programs.
        rule: Called once for each node.
        build: What makes the same operation on other operands: `rebuilt`, in normal form, or `as_it_is`.
    """
    build = build or rebuilt
    new: dict[Node, Node] = {}
    for x in topological(outputs):
        args = [new[a] for a in x.args]
        y = rule(x, args)
        same = all(a is b for a, b in zip(args, x.args, strict=True))
        new[x] = y if y is not None else x if same else build(x, args)
    return [new[x] for x in outputs]


def rebuilt(x: Node, args: Sequence[Node], shape: tuple[int, ...] | None = None) -> Node:
    """The same operation on other operands, in normal form; of another shape, if given."""
    shape = x.shape if shape is None else shape
    if x.op in ("add", "mul", "fn"):
        return algebra.typed(algebra.applied(x, args), shape, None, None)
    if x.op in (*MOVES, "stack", "sum", "softmax"):
        return algebra.applied(x, args)
    return as_it_is(x, args, shape)


def as_it_is(x: Node, args: Sequence[Node], shape: tuple[int, ...] | None = None) -> Node:
    """The same operation on other operands; of a variable with itself, on a diagonal, E relu(u)^2 is half the variance."""
    shape = x.shape if shape is None else shape
    if x.op == "dual" and x.attr == "arccos1" and args[0] == args[1] == args[2]:
        return algebra.typed(algebra.scale(Fraction(1, 2), args[0]), shape, x.width, x.inner)
    return Node(x.op, tuple(args), x.attr, shape, x.width, x.inner)
