"""The limit of an OuterNonlin: E over an independent copy of the second block (Tensor Programs IVb, 2.3).

Exact where the body is a sum of products of a function of the first block and a function of the second. The matrix after t
steps of training has its terms from the one before and one more: what a body separates into is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.algebra import ONE, typed
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.products import MANY_TERMS
from tensorprog.limits.tasks import Declined

__all__ = ["Separation"]


class _Term(NamedTuple):
    """A product of a function of each block, summed over further axes.

    Attributes:
        coefficient: A number.
        outside: A function of the first block, or a scalar; of no shape, or that of the node and then the sizes.
        inside: A function of the second block, as one of the vectors themselves.
        sizes: Of the axes, after the node's, that are summed.
    """

    coefficient: Number
    outside: Node
    inside: Node
    sizes: tuple[int, ...] = ()


class Separation:
    """What bodies separate into.

    Args:
        expectation: The rules of the limit.
    """

    def __init__(self, expectation: Expectation) -> None:
        self.expectation = expectation
        self._known: dict[Node, list[_Term] | str] = {}
        self._copies: dict[Node, Node] = {}

    def mean(self, body: Node) -> Node:
        """E of a body over its second block, as a function of the first.

        Raises:
            Declined: where the body does not separate, or only into too many terms.
        """
        pairs = []
        for c, outside, inside, sizes in self.terms(body):
            value = self.expectation.solver.solve(self.expectation.mean, inside)
            product = algebra.mul([outside, value])
            if sizes:
                product = typed(product, (*body.shape, *sizes), product.width, None)
            for _ in sizes:
                product = algebra.sum_axis(product, len(product.shape) - 1)
            pairs.append((c, product))
        return algebra.add(pairs)

    def terms(self, body: Node) -> list[_Term]:
        """The body as a sum of products of a function of each block."""
        known = self._known
        for x in topological([body], lambda y: _mixed_operands(y) if y not in known else ()):
            if x not in known:
                try:
                    known[x] = self._terms(x)
                except Declined as declined:
                    known[x] = declined.reason
        found = known[body]
        if isinstance(found, str):
            raise Declined(found)
        return found

    def _terms(self, x: Node) -> list[_Term]:
        if not _mixed(x):
            return [self._apart([(x, 1)])]
        found: list[_Term] = []
        match x.op:
            case "add":
                for c, a in zip(x.attr, x.args, strict=True):
                    _check_number(found)
                    found += [t._replace(coefficient=c * t.coefficient) for t in self._of(a, x.shape)]
            case "mul":
                mixed = [(a, k) for a, k in zip(x.args, x.attr, strict=True) if _mixed(a)]
                found = [self._apart([f for f in zip(x.args, x.attr, strict=True) if f not in mixed])]
                for a, k in mixed:
                    for _ in range(k):
                        terms = self._of(a, x.shape)
                        _check_number(found, len(terms))
                        found = [_product(s, t, x.shape) for s in found for t in terms]
            case "view" | "take" | "pick" | "sum":
                found = [_moved(x, t) for t in self._of(x.args[0], x.args[0].shape)]
            case "stack":
                for i, a in enumerate(x.args):
                    _check_number(found, 1)
                    found += [_stacked(x, i, t) for t in self._of(a, x.shape[: x.attr] + x.shape[x.attr + 1 :])]
            case _:
                raise Declined("an OuterNonlin whose body does not separate into functions of each block")
        _check_number(found)
        return found

    def _of(self, a: Node, shape: tuple[int, ...]) -> list[_Term]:
        """Of an operand: known, or a function of one block; as terms of a node of a shape."""
        found = self._known[a] if a in self._known else [self._apart([(a, 1)])]
        if isinstance(found, str):
            raise Declined(found)
        if a.shape == shape:
            return found
        return [
            t._replace(outside=_placed(t.outside, (), shape, t.sizes), inside=_placed(t.inside, (), shape, t.sizes))
            for t in found
        ]

    def _apart(self, factors: Sequence[tuple[Node, int]]) -> _Term:
        inside = [(self._without_copy(a), k) for a, k in factors if a.inner is not None]
        outside = [(a, k) for a, k in factors if a.inner is None]
        return _Term(1, algebra.mul(outside) if outside else ONE, algebra.mul(inside) if inside else ONE)

    def _without_copy(self, x: Node) -> Node:
        """A function of the second block alone, as a function of the vectors themselves."""
        done = self._copies
        for y in topological([x], lambda y: () if y.op == "inner" or y.inner is None or y in done else y.args):
            if y in done:
                continue
            if y.op == "inner":
                done[y] = y.args[0]
            elif y.op == "constant":
                done[y] = algebra.constant(y.attr, y.shape)
            else:
                done[y] = y if y.inner is None else algebra.applied(y, [done[a] for a in y.args])
        return done[x]


def _mixed(x: Node) -> bool:
    """Does it depend on both blocks? A number that is spread over both does not."""
    return x.inner is not None and x.width is not None and x.op != "constant"


def _mixed_operands(x: Node) -> list[Node]:
    return [a for a in x.args if _mixed(a)] if _mixed(x) else []


def _check_number(found: Sequence[_Term], factor: int = 1) -> None:
    if len(found) * factor > MANY_TERMS:
        raise Declined(f"an OuterNonlin whose body separates into more than {MANY_TERMS} terms")


Sizes = tuple[int, ...]


def _placed(x: Node, had: Sizes, shape: Sizes, sizes: Sizes, start: int = 0, total: Sizes | None = None) -> Node:
    """A factor with the axes (*had, *sizes), if any, among the axes (*shape, *total), its sizes there from `start` on."""
    total = sizes if total is None else total
    if not x.shape or (had == shape and len(total) == len(sizes)):
        return x
    places = [*range(len(had)), *range(len(shape) + start, len(shape) + start + len(sizes))]
    return algebra.view(x, places, (*shape, *total))


def _product(s: _Term, t: _Term, shape: tuple[int, ...]) -> _Term:
    """The product of two terms of nodes of one shape: the axes that are summed are different ones."""
    sizes = (*s.sizes, *t.sizes)

    def factor(a: Node, b: Node) -> Node:
        a = _placed(a, shape, shape, s.sizes, 0, sizes)
        return algebra.mul([a, _placed(b, shape, shape, t.sizes, len(s.sizes), sizes)])

    return _Term(s.coefficient * t.coefficient, factor(s.outside, t.outside), factor(s.inside, t.inside), sizes)


def _moved(x: Node, t: _Term) -> _Term:
    """A view, take, pick or sum of a term; a sum's axis becomes the last of those that are summed."""
    before, extra = x.args[0].shape, len(t.sizes)
    if x.op == "sum":
        sizes = (*t.sizes, before[x.attr])
        if not (t.outside.shape or t.inside.shape):  # spread over the axis: as many equal terms
            return t._replace(coefficient=before[x.attr] * t.coefficient)
        order = [*[i for i in range(len(before) + extra) if i != x.attr], x.attr]
        return t._replace(sizes=sizes, outside=_turned(t.outside, order), inside=_turned(t.inside, order))

    def moved(y: Node) -> Node:
        if not y.shape:
            return y
        if x.op == "view":
            last = len(x.shape)
            return algebra.view(y, [*x.attr, *range(last, last + extra)], (*x.shape, *t.sizes))
        return algebra.take(y, *x.attr) if x.op == "take" else algebra.pick(y, *x.attr)

    return t._replace(outside=moved(t.outside), inside=moved(t.inside))


def _stacked(x: Node, i: int, t: _Term) -> _Term:
    """A term of the operand i of a stack: under a mask of where it stands."""
    shape = (*x.shape, *t.sizes)
    places = [p + (p >= x.attr) for p in range(len(shape) - 1)]
    mask = algebra.constant(np.eye(len(x.args), dtype=np.int64)[i])
    outside, inside = (algebra.view(y, places, shape) if y.shape else y for y in (t.outside, t.inside))
    return t._replace(outside=algebra.mul([algebra.view(mask, [x.attr], shape), outside]), inside=inside)


def _turned(x: Node, order: Sequence[int]) -> Node:
    return algebra.transpose(x, order) if x.shape else x
