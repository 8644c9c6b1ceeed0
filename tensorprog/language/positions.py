"""Positions of axes in normal form: single ones see through stacks, picks of picks fold, sums of what is constant do.

A pick is under views and over takes, one for each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorprog.language.arithmetic import (
    FOLD_LIMIT,
    add,
    combined,
    common_type,
    constant,
    is_mask,
    mul,
    scale,
    terms,
    typed,
    view,
)
from tensorprog.language.attributes import Pick, Take
from tensorprog.language.folding import unbounded
from tensorprog.language.node import Node

__all__ = [
    "pick",
    "pick_transposed",
    "softmax",
    "stack",
    "sum_axis",
    "take",
]


def take(x: Node, axis: int, index: int) -> Node:
    """The given position of an axis; the axis is dropped."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    if x.op in ("stack", "family"):
        if x.attr == axis:
            return x.args[index]
    elif x.op == "constant":
        value = np.take(np.broadcast_to(x.attr, x.shape), index, axis) if isinstance(x.attr, np.ndarray) else x.attr
        return typed(constant(value), shape, x.width, x.inner)
    elif x.op == "view":
        y, sources = x.args[0], [i for i, position in enumerate(x.attr) if position == axis]
        for i in reversed(sources):  # several on a diagonal
            y = take(y, i, index)
        return view(y, [p - (p > axis) for i, p in enumerate(x.attr) if i not in sources], shape)
    elif x.op == "pick":
        picked, positions = x.attr
        if picked == axis:
            return take(x.args[0], axis, positions[index])
        return pick(take(x.args[0], axis, index), picked - (picked > axis), positions)
    elif x.op in ("add", "mul") and not any(a.shape for a in x.args):  # spread over the axis
        return combined(x, x.args, shape)
    return Node("take", (x,), Take(axis, index), shape, x.width, x.inner)


def pick(x: Node, axis: int, index: Sequence[int]) -> Node:
    """Positions index[0], index[1], ... of an axis, which gets the size len(index).

    In normal form picks are under views and over takes, one for each axis, that of the last axis outermost.

    Example:
        >>> pick(constant(np.array([5, 6, 7])), 0, [2, 2, 0]).attr
        array([7, 7, 5])
    """
    index = tuple(index)
    if index == tuple(range(x.shape[axis])):
        return x
    shape = (*x.shape[:axis], len(index), *x.shape[axis + 1 :])
    if x.op == "constant":
        if not isinstance(x.attr, np.ndarray):
            return constant(x.attr, shape, x.width, x.inner)
        if int(np.prod(shape)) <= FOLD_LIMIT:
            values = np.take(np.broadcast_to(x.attr, x.shape), index, axis)
            return typed(constant(values), shape, x.width, x.inner)
    elif x.op == "stack" and x.attr == axis:
        return typed(stack([x.args[i] for i in index], axis), shape, x.width, x.inner)
    elif x.op == "view":
        y = x.args[0]
        for i, position in enumerate(x.attr):  # none along a broadcast, several on a diagonal
            if position == axis:
                y = pick(y, i, index)
        return view(y, x.attr, shape)
    elif x.op == "pick":
        other, positions = x.attr
        if other == axis:
            return pick(x.args[0], axis, [positions[i] for i in index])
        if other > axis:
            return pick(pick(x.args[0], axis, index), other, positions)
    elif x.op in ("add", "mul") and not any(a.shape for a in x.args):  # spread over the axis
        return combined(x, x.args, shape)
    elif x.op == "add" and len(x.args) == 1:
        return scale(x.attr[0], pick(x.args[0], axis, index))
    elif x.op == "mul" and x.is_scalar and any(map(is_mask, x.args)):  # masks outside, so that picks meet picks
        masks = [(pick(a, axis, index), k) for a, k in zip(x.args, x.attr, strict=True) if is_mask(a)]
        rest = mul([(a, k) for a, k in zip(x.args, x.attr, strict=True) if not is_mask(a)])
        return mul([*masks, pick(rest, axis, index) if rest.shape else rest])
    return Node("pick", (x,), Pick(axis, index), shape, x.width, x.inner)


def pick_transposed(a: Node, axis: int, index: Sequence[int], size: int) -> Node:
    """The adjoint of `pick`: position j of the axis is the sum of a's positions i with index[i] == j; 0 where there are none.

    A sum of as many picks as the commonest position has occurrences, each times a mask of zeros and ones; of a permutation, its
    inverse.

    Args:
        a: Any node; its axis has the size len(index).
        axis: The axis that was picked.
        index: What was picked, from 0 to size - 1.
        size: The size of the axis before the pick, and of the result's.

    Example:
        >>> pick_transposed(constant(np.array([1, 2, 4])), 0, [0, 2, 2], 3).attr
        array([1, 0, 6])
    """
    shape = (*a.shape[:axis], size, *a.shape[axis + 1 :])
    occurrences: list[list[int]] = [[] for _ in range(size)]
    for i, j in enumerate(index):
        occurrences[j].append(i)
    pairs = []
    for k in range(max(map(len, occurrences))):
        mask = constant(np.array([int(len(found) > k) for found in occurrences]))
        picked = pick(a, axis, [found[k] if len(found) > k else 0 for found in occurrences])
        pairs.append((1, mul([picked, view(mask, (axis,), shape)])))
    return add(pairs)


def stack(xs: Sequence[Node], axis: int) -> Node:
    """Nodes of one shape along a new axis."""
    shape, width, inner_width = common_type(xs)
    xs = [typed(x, shape, x.width, x.inner) for x in xs]
    full = (*shape[:axis], len(xs), *shape[axis:])
    if all(x.op == "constant" for x in xs) and int(np.prod(full)) <= FOLD_LIMIT:
        parts = [
            np.broadcast_to(np.asarray(x.attr, dtype=None if not isinstance(x.attr, Fraction) else object), shape)
            for x in xs
        ]
        return typed(constant(np.stack(parts, axis)), full, width, inner_width)
    return Node("stack", tuple(xs), axis, full, width, inner_width)


def sum_axis(x: Node, axis: int) -> Node:
    """The sum over one axis."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    if x.op == "constant":
        if not isinstance(x.attr, np.ndarray):
            return constant(x.attr * x.shape[axis], shape, x.width, x.inner)
        if x.attr.size <= FOLD_LIMIT:
            return typed(constant(np.broadcast_to(unbounded(x.attr), x.shape).sum(axis)), shape, x.width, x.inner)
    if x.op == "add" and len(x.args) == 1 and x.args[0].shape:
        return scale(x.attr[0], sum_axis(x.args[0], axis))
    if not any(a.shape for a in x.args) and x.op in ("add", "mul", "fn"):  # spread over the axis by broadcasting
        one = Node(x.op, x.args, x.attr, shape, x.width, x.inner)
        if x.op == "add":
            one = add([(c, typed(a, shape, x.width, x.inner)) for c, a in terms(x)])
        return scale(x.shape[axis], one)
    if x.op == "view" and axis not in x.attr:
        return scale(x.shape[axis], view(x.args[0], [p - (p > axis) for p in x.attr], shape))
    return Node("sum", (x,), axis, shape, x.width, x.inner)


def softmax(x: Node, axis: int) -> Node:
    """exp(x) / sum exp(x) along an axis of a scalar."""
    return Node("softmax", (x,), axis, x.shape)
