"""How arrays over pairs of examples lie: the axes of a scalar first, then the examples.

Two layouts. In a grid of all pairs, rows and columns take the part that width and inner width have in the arrays of an executor
(`arrays/elementwise.py`): what depends on an example of the first batch alone is an array along the rows, what depends on one
of the second along the columns, and only what depends on both has both. In lanes, one for each pair of a list, everything has
one axis for them, the last: there is nothing to align, and several evaluations of a pair are so many lanes more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Width

__all__ = ["Block", "in_lanes", "is_shared", "lifted", "reversed_variables", "separates", "with_axes"]

Array = np.ndarray
ROWS, COLUMNS, LANES = Width("rows"), Width("columns"), Width("lanes")


@dataclass(frozen=True)
class Block:
    """The inner products of the data of a block of pairs.

    Attributes:
        products: Attribute of each `data` node to its array (*axes, rows), (*axes, 1, columns) or (*axes, rows, columns).
        rows: Examples of the first batch.
        columns: Of the second.
        symmetric: Are both the same examples, so that the result is symmetric? (With axes, those of two outputs: it is
            symmetric in output and example together.)
        unwanted: Pairs (rows, columns) that nobody looks at: those of an example with itself, which have a program of their own,
            and where closed forms of two examples cancel. Not integrated.
    """

    products: Mapping[Any, Array]
    rows: int
    columns: int
    symmetric: bool = False
    unwanted: Array | None = None


def lifted(outputs: Sequence[Node]) -> dict[Node, Node]:
    """Every node below the outputs, as one along rows and columns."""
    new: dict[Node, Node] = {}
    for x in topological(outputs):
        args = [new[a] for a in x.args]
        if x.op == "data":
            slots = (x.attr.slot, x.attr.slot2)
            new[x] = Node("data", (), x.attr, x.shape, ROWS if 0 in slots else None, COLUMNS if 1 in slots else None)
            continue
        if not args or all(a is b for a, b in zip(args, x.args, strict=True)):
            new[x] = x
            continue
        width = ROWS if any(a.width for a in args) else None
        inner = COLUMNS if any(a.inner for a in args) else None
        if x.op in ("add", "mul"):
            out = algebra.applied(x, args)
            new[x] = algebra.typed(out, x.shape, width, inner)
        else:
            new[x] = Node(x.op, tuple(args), x.attr, x.shape, width, inner)
    return new


def is_shared(x: Node) -> bool:
    """Does a node of a grid depend on examples of both batches?"""
    return x.width is not None and x.inner is not None


def in_lanes(outputs: Sequence[Node]) -> dict[Node, Node]:
    """Every node of a grid below the outputs, as one along lanes."""
    new: dict[Node, Node] = {}
    for x in topological(outputs):
        new[x] = Node(x.op, tuple([new[a] for a in x.args]), x.attr, x.shape, LANES)
    return new


def separates(x: Node) -> bool:
    """Is it an integral over two variables, one that depends on the row and one that depends on the column?"""
    if x.shape or not is_shared(x) or x.attr.dimension != 2 or len(x.args) != 5:
        return False
    kinds = [(a.width is not None, a.inner is not None) for a in x.args]
    none, row, column = (False, False), (True, False), (False, True)
    return any(
        {kinds[0], kinds[2]} <= {none, one} and {kinds[1], kinds[4]} <= {none, other}
        for one, other in ((row, column), (column, row))
    )


def reversed_variables(x: Node) -> bool:
    """Does the first variable of such an integral depend on the column?"""
    return any(x.args[i].inner is not None for i in (0, 2)) or any(x.args[i].width is not None for i in (1, 4))


def with_axes(a: Array, y: Node, x: Node) -> Array:
    """An operand's array with all axes of the node, size 1 where it does not vary."""
    if x.inner is not None and y.inner is None:
        a = a[..., None]
    if x.width is not None and y.width is None:
        a = a[..., None] if x.inner is None else a[..., None, :] if y.inner is not None else a[..., None]
    missing = len(x.shape) - len(y.shape)
    return a.reshape((1,) * missing + a.shape) if missing else a
