"""Sums over axes, of views and of products, carried out where they are smallest.

A sum of a product is one contraction, without an array of all products, if no view stands between them. And what does not
vary along an axis is multiplied after the sum: sum_st a_s K_st b_t is two matrix products, however it was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.limits.simplify.rebuild import rebuilt, rewritten

__all__ = ["gathered", "summed_early", "summed_inside"]


def summed_inside(outputs: Sequence[Node]) -> list[Node]:
    """The same scalars, with sums over an axis of a view under the view: a sum of a product is carried out as one contraction.

    Between them a view, be it a transposition, asks for the array of all products: of five axes for graph convolutions.

    Args:
        outputs: Scalar programs.
    """
    return rewritten(outputs, _summed_inside)


def summed_early(outputs: Sequence[Node]) -> list[Node]:
    """The same scalars, with sums of products taken of those factors alone that vary along the axis.

    Args:
        outputs: Scalar programs.

    Example:
        >>> a, b = [Node("data", (), (k,), (3,)) for k in "ab"]
        >>> both = algebra.mul([algebra.view(a, [0], [3, 3]), algebra.view(b, [1], [3, 3])])
        >>> [found] = summed_early([algebra.sum_axis(algebra.sum_axis(both, 1), 0)])
        >>> found.op, [x.op for x in found.args]
        ('mul', ['sum', 'sum'])
    """
    return rewritten(outputs, lambda x, args: _summed(args[0], x.attr) if x.op == "sum" else None)


def gathered(outputs: Sequence[Node]) -> list[Node]:
    """The same scalars, sums over all axes of products with common factors as one such sum.

    The tangent kernel of a convolution is one for each shift, sum_st b_st k_(s + d, t + d): the shifts are added first.

    Args:
        outputs: Scalar programs.

    Example:
        >>> a, b, c = [Node("data", (), (k,), (3,)) for k in "abc"]
        >>> ab, ac = [algebra.sum_axis(algebra.mul([a, y]), 0) for y in (b, c)]
        >>> [found] = gathered([algebra.add([(1, ab), (1, ac)])])
        >>> found.op, sorted(x.op for x in found.args[0].args)
        ('sum', ['add', 'data'])
    """
    return rewritten(outputs, _gathered)


def _gathered(x: Node, args: Sequence[Node]) -> Node | None:
    if x.op == "sum" and not x.shape:  # over all axes, in one order
        return _whole_sum(_summand(args[0]))
    if x.op != "add" or x.shape or len(args) < 2:
        return None
    left: list[tuple[Any, Node, dict[Node, int]]] = []  # coefficient, what is summed over all axes, and its factors
    others: list[tuple[Any, Node]] = []
    for c, y in zip(x.attr, args, strict=True):
        z = _summand(y)
        if y.op == "sum" and z.op == "mul":
            left.append((c, z, dict(zip(z.args, z.attr, strict=True))))
        else:
            others.append((c, y))
    found = False
    while left:
        (_, z, _), *_ = left
        mine = [term for term in left if term[1].shape == z.shape]
        uses = Counter(f for _, _, factors in mine for f in factors if f.shape == z.shape)
        most = max(uses, key=lambda f: (uses[f], f.digest)) if uses else None
        group = [term for term in mine if most in term[2]]
        if most is None or uses[most] < 2:
            others += [(c, _whole_sum(z)) for c, z, _ in mine]
            left = [term for term in left if term not in mine]
            continue
        found = True
        common = {f: min([factors.get(f, 0) for _, _, factors in group]) for f in group[0][2]}
        first = group[0][0]
        parts = []
        for c, _, factors in group:
            rest = [(f, k - common.get(f, 0)) for f, k in factors.items() if k > common.get(f, 0)]
            inside = (
                algebra.typed(algebra.mul(rest), z.shape, z.width, z.inner) if rest else algebra.constant(1, z.shape)
            )
            parts.append((c / first, inside))
        whole = algebra.mul([*[(f, k) for f, k in common.items() if k], (algebra.add(parts), 1)])
        others.append((first, _whole_sum(whole)))
        left = [term for term in left if term not in group]
    return algebra.add(others) if found else None


def _summand(y: Node) -> Node:
    while y.op == "sum":
        y = y.args[0]
    return y


def _whole_sum(z: Node) -> Node:
    for axis in reversed(range(len(z.shape))):
        z = algebra.sum_axis(z, axis)
    return z


def _summed_inside(x: Node, args: Sequence[Node]) -> Node | None:
    if x.op != "sum":
        return None
    y = x if all(a is b for a, b in zip(args, x.args, strict=True)) else rebuilt(x, args)
    return _under_view(y) if y.op == "sum" and y.args[0].op == "view" else y


def _under_view(x: Node) -> Node:
    """A sum of a view as a view of a sum, if the axis is one of what is viewed."""
    (v,) = x.args
    (y,) = v.args
    source = _source(v, x.attr)
    if source is None:
        return x
    index = [p - (p > x.attr) for p in v.attr if p != x.attr]
    return algebra.view(algebra.sum_axis(y, source), index, x.shape)


def _source(v: Node, axis: int) -> int | None:
    """The one axis of what is viewed that a view shows along an axis, whole."""
    sources = [k for k, p in enumerate(v.attr) if p == axis]
    return sources[0] if len(sources) == 1 and v.args[0].shape[sources[0]] == v.shape[axis] else None


def _summed(y: Node, axis: int) -> Node:
    """The sum over an axis, of as few factors as it takes."""
    if y.op == "view" and (source := _source(y, axis)) is not None:
        shape = y.shape[:axis] + y.shape[axis + 1 :]
        return algebra.view(_summed(y.args[0], source), [p - (p > axis) for p in y.attr if p != axis], shape)
    if y.op == "mul":
        left = [_without(a, axis) for a in y.args]
        if any(a is not None for a in left):
            shape = y.shape[:axis] + y.shape[axis + 1 :]
            inside = algebra.mul([(a, k) for a, b, k in zip(y.args, left, y.attr, strict=True) if b is None])
            outside = [(b, k) for b, k in zip(left, y.attr, strict=True) if b is not None]
            total = _summed(inside, axis) if inside.shape == y.shape else algebra.constant(y.shape[axis])
            return algebra.typed(algebra.mul([*outside, (total, 1)]), shape, y.width, y.inner)
    if y.op == "sum":  # the other sum first, if that takes fewer factors
        (z,) = y.args
        inner = axis + (axis >= y.attr)
        if z.op == "sum" or (z.op == "mul" and any(_without(a, inner) is not None for a in z.args)):
            first = _summed(z, inner)
            if first.op != "sum":
                return _summed(first, y.attr - (y.attr > inner))
    return algebra.sum_axis(y, axis)


def _without(x: Node, axis: int) -> Node | None:
    """What does not vary along an axis, without it; None if it may vary."""
    if not x.shape:
        return x
    if x.op == "view" and axis not in x.attr:
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        return algebra.view(x.args[0], [p - (p > axis) for p in x.attr], shape)
    return None
