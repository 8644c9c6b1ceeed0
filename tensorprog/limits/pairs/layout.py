"""How arrays over pairs of examples lie: the axes of a scalar first, then the examples.

Rows and columns take the part that width and inner width have in the arrays of an executor (`arrays/elementwise.py`): what
depends on an example of the first batch alone is an array along the rows, what depends on one of the second along the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Width

__all__ = ["Block", "lifted", "with_axes"]

Array = np.ndarray
ROWS, COLUMNS = Width("rows"), Width("columns")


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

    @cached_property
    def rough(self) -> bool:
        """Is the rounding that of float32, so that correlations may be a little above 1?"""
        return any(a.dtype == np.float32 for a in self.products.values())


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


def with_axes(a: Array, y: Node, x: Node) -> Array:
    """An operand's array with all axes of the node, size 1 where it does not vary."""
    if x.inner is not None and y.inner is None:
        a = a[..., None]
    if x.width is not None and y.width is None:
        a = a[..., None] if x.inner is None else a[..., None, :] if y.inner is not None else a[..., None]
    missing = len(x.shape) - len(y.shape)
    return a.reshape((1,) * missing + a.shape) if missing else a
