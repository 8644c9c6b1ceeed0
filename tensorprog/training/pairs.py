"""The gradient of a matrix: a sum of products of a vector of its rows and one of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node

__all__ = ["Pairs", "product", "summed"]


@dataclass(frozen=True)
class Pairs:
    """factor times the sum over all axes of rows times columns.

    Attributes:
        rows: Vectors of the matrix's rows: chi dg, of a use g = W h.
        cols: Vectors of its columns, of the same axes: h.
        factor: A scalar.
    """

    rows: Node
    cols: Node
    factor: Node

    @property
    def node(self) -> Node:
        """As the values of a matrix."""
        return algebra.mul([self.factor, product(self.rows, self.cols)])

    @property
    def is_zero(self) -> bool:
        """Is it the matrix of zeros?"""
        return self.node.is_zero

    def scaled(self, factor: Node) -> Pairs:
        """The same times a scalar."""
        return replace(self, factor=algebra.mul([factor, self.factor]))

    def single(self) -> Iterator[tuple[Node, Node]]:
        """Its pairs one by one, the factor in the rows."""
        for index in np.ndindex(self.rows.shape):
            row, col = self.rows, self.cols
            for i in index:
                row, col = algebra.take(row, 0, i), algebra.take(col, 0, i)
            yield algebra.typed(algebra.mul([self.factor, row]), (), row.width, None), col


def product(rows: Node, cols: Node) -> Node:
    """The sum over all axes of rows times columns."""
    body = algebra.typed(algebra.mul([rows, algebra.inner(cols)]), rows.shape, rows.width, cols.width)
    for _ in rows.shape:
        body = algebra.sum_axis(body, 0)
    return body


def summed(parts: Sequence[Node | Pairs]) -> Node:
    """Their sum."""
    nodes = [x.node if isinstance(x, Pairs) else x for x in parts]
    first = nodes[0]
    return algebra.typed(algebra.add([(1, x) for x in nodes]), first.shape, first.width, first.inner)
