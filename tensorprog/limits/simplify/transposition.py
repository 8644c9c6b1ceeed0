"""One order of axes for arrays that are transposes of each other.

The axes of a kernel over positions, (s, t) of two images, come in whatever order the digests of its parts put them in, and one
E phi(u_s) phi(v_t) would be computed once for each order in which it occurs. Here transpositions are moved outwards: every
elementwise node is computed in the order of its operands, and seen from outside in another.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorprog.language import algebra
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
        >>> import tensorprog as tp
        >>> g = Node("data", (), ("g",), (2, 3))
        >>> turned = algebra.fn("exp", algebra.transpose(g, [1, 0]))
        >>> [x.args[0].op for x in with_transpositions_outside([turned])]
        ['fn']
    """
    if all(len(x.shape) < 2 for x in topological(outputs)):
        return list(outputs)
    found: dict[Node, tuple[Node, Order]] = {}  # x is view(core, order)
    for x in topological(outputs):
        found[x] = _turned(x, found)
    return [_seen(*found[x]) for x in outputs]


def _seen(core: Node, order: Order) -> Node:
    shape = [0] * len(order)
    for k, p in zip(core.shape, order, strict=True):
        shape[p] = k
    return algebra.view(core, order, shape) if order else core


def _identity(x: Node) -> tuple[Node, Order]:
    return x, tuple(range(len(x.shape)))


def _turned(x: Node, found: dict[Node, tuple[Node, Order]]) -> tuple[Node, Order]:
    n = len(x.shape)
    match x.op:
        case "add" | "mul" | "fn" | "dual" | "gauss" | "guard":
            full = [found[a] for a in x.args if len(a.shape) == n and _varies(found[a][0])]
            order = min(full, key=lambda f: f[0].digest)[1] if full and n > 1 else tuple(range(n))
            back = [order.index(i) for i in range(n)]
            shape = tuple([x.shape[p] for p in order])
            args = [algebra.view(_seen(*found[a]), back, shape) if a.shape else found[a][0] for a in x.args]
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
    args = [_seen(*found[a]) for a in x.args]
    if all(a is b for a, b in zip(args, x.args, strict=True)):
        return _identity(x)
    return _identity(_built(x, args, x.shape))


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
