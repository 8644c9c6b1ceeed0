"""One order of axes for arrays that are transposes of each other.

The axes of a kernel over positions, (s, t) of two images, come in whatever order the digests of its parts put them in, and one
E phi(u_s) phi(v_t) would be computed once for each order in which it occurs. Here transpositions are moved outwards: every
elementwise node is computed in the order of its operands, and seen from outside in another.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorprog.language import algebra
from tensorprog.language.attributes import InnerProducts
from tensorprog.language.node import Node, topological
from tensorprog.limits.simplify.rebuild import rebuilt

__all__ = ["with_transpositions_outside"]

Order = tuple[int, ...]
SYMMETRIC = ("arccos1", "arcsine")
"""Closed forms of (variance, covariance, variance) that do not change when the variables are exchanged."""


def with_transpositions_outside(outputs: Sequence[Node]) -> list[Node]:
    """The same scalars with transpositions outside.

    Args:
        outputs: Scalar programs.

    Example:
        >>> g = Node("data", (), ("g",), (2, 3))
        >>> turned = algebra.fn("exp", algebra.transpose(g, [1, 0]))
        >>> [x.args[0].op for x in with_transpositions_outside([turned])]
        ['fn']
    """
    nodes = topological(outputs)
    if all(len(x.shape) < 2 for x in nodes):
        return list(outputs)
    one_order = _Orders()
    for x in nodes:
        one_order.add(x)
    return [one_order.seen(x) for x in outputs]


class _Orders:
    """Nodes as transpositions of others, in one order each.

    Inner products of the positions of one example with each other are symmetric: the first half of the axes may change places
    with the second one, and so it is for what is made of them.
    """

    def __init__(self) -> None:
        self._found: dict[Node, tuple[Node, Order]] = {}  # x is view(core, order)
        self._exchanged: dict[Node, Node] = {}  # with the halves of the axes exchanged, where that is no view of it

    def add(self, x: Node) -> None:
        """Takes in a node, its operands first."""
        core, order = self._turned(x)
        if core not in self._exchanged and len(core.shape) % 2 == 0 and core.shape:
            other = self._other(core)
            if other is not None:
                self._exchanged[core] = other
        self._found[x] = core, self._first(core, order)

    def seen(self, x: Node) -> Node:
        """The node as a view."""
        core, order = self._found[x]
        shape = [0] * len(order)
        for k, p in zip(core.shape, order, strict=True):
            shape[p] = k
        return algebra.view(core, order, shape) if order else core

    def _first(self, core: Node, order: Order) -> Order:
        """Of two orders in which a symmetric array is the same the first one."""
        return min(order, _halves(order)) if self._exchanged.get(core) == core else order

    def _turned(self, x: Node) -> tuple[Node, Order]:
        n = len(x.shape)
        found = self._found
        match x.op:
            case "add" | "mul" | "fn" | "dual" | "gauss" | "guard":
                full = [found[a] for a in x.args if len(a.shape) == n and _varies(found[a][0])]
                order = min(full, key=lambda f: f[0].digest)[1] if full and n > 1 else tuple(range(n))
                back = [order.index(i) for i in range(n)]
                shape = tuple([x.shape[p] for p in order])
                args = [self._view(self.seen(a), back, shape) if a.shape else found[a][0] for a in x.args]
                return _built(x, args, shape), order
            case "view" if sorted(x.attr) == list(range(n)):
                core, order = found[x.args[0]]
                return core, tuple([x.attr[p] for p in order])
            case "pick":
                core, order = found[x.args[0]]
                axis, index = x.attr
                return algebra.pick(core, order.index(axis), index), order
            case "sum":
                core, order = found[x.args[0]]
                axis = order.index(x.attr)
                rest = [p for i, p in enumerate(order) if i != axis]
                return algebra.sum_axis(core, axis), tuple([p - (p > x.attr) for p in rest])
        args = [self.seen(a) for a in x.args]
        if all(a is b for a, b in zip(args, x.args, strict=True)):
            return x, tuple(range(n))
        return _built(x, args, x.shape), tuple(range(n))

    def _view(self, x: Node, index: Sequence[int], shape: tuple[int, ...]) -> Node:
        """A view, of what is symmetric in the first of two orders."""
        y = algebra.view(x, index, shape)
        core, order = (y.args[0], y.attr) if y.op == "view" else (y, ())
        if sorted(order) == list(range(len(shape))):
            return algebra.view(core, self._first(core, tuple(order)), shape)
        return y

    def _other(self, x: Node) -> Node | None:
        """A node with the halves of its axes exchanged: itself, if it is symmetric; None where nothing is known."""
        n = len(x.shape)
        half = [(i + n // 2) % n for i in range(n)]
        shape = tuple([x.shape[i] for i in half])
        if x.op == "data":
            a = x.attr
            alike = isinstance(a, InnerProducts) and a.slot == a.slot2 and (a.name, a.transform) == (a.other, a.change)
            return x if alike and a.labels is None else None
        if x.op == "pick":
            y = self._exchanged.get(x.args[0])
            return None if y is None else self._same(algebra.pick(y, half[x.attr.axis], x.attr.positions), x)
        if x.op not in ("add", "mul", "fn", "dual") or not any(a in self._exchanged for a in x.args):
            return None
        args = [self._exchanged.get(a) or self._view(a, half, shape) if a.shape else a for a in x.args]
        return self._same(_built(x, args, shape), x)

    @staticmethod
    def _same(x: Node, y: Node) -> Node:
        return y if x == y else x


def _halves(order: Order) -> Order:
    """The order of an array whose axes have changed places, the first half with the second."""
    n = len(order)
    return (*order[n // 2 :], *order[: n // 2])


def _varies(x: Node) -> bool:
    """Has it all its axes of its own, rather than by broadcasting?"""
    return not (x.op == "view" and len(set(x.attr)) < len(x.shape)) and x.op != "constant"


def _built(x: Node, args: Sequence[Node], shape: tuple[int, ...]) -> Node:
    if x.op == "dual" and x.attr in SYMMETRIC:
        a, c, b = args
        args = (a, c, b) if a.digest <= b.digest else (b, c, a)
    if x.op == "dual" and x.attr == "arcsine_noisy" and args[4].digest < args[2].digest:
        s, t, a, c, b = args
        args = (t, s, b, c, a)
    return rebuilt(x, args, shape)
