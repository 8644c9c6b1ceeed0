"""Two axes as one.

Flattening commutes with everything elementwise, with matrices, Moments and contractions of other axes. So it is carried out
on what an expression is made of: the data of an input layer is reshaped, what has one of the axes is picked with repeats, a
shift along one of them becomes a pick of the new one. No instruction is needed, and what is flattened costs what it costs
with two axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.data import Embedding, merged
from tensorprog.language.node import Node

__all__ = ["flattened"]

Question = tuple[Node, int, int]


def flattened(x: Node, i: int, j: int) -> Node:
    """x with its axes i and j as one, which stands where i stood once j is gone; j runs fastest.

    Example:
        >>> flattened(algebra.constant(np.array([[1, 2], [3, 4]])), 1, 0).attr
        array([1, 3, 2, 4])
    """
    known: dict[Question, Node] = {}
    todo: list[Question] = [(x, i, j)]
    while todo:  # not recursive: programs are deep
        question = todo[-1]
        if question in known:
            todo.pop()
            continue
        wanted = _operands(*question)
        missing = [q for q in wanted if q not in known]
        if missing:
            todo.extend(missing)
            continue
        y, *_ = question
        out = known[todo.pop()] = _built(*question, [known[q] for q in wanted])
        if out.source is None:
            out.source, out.label = y.source, y.label
    return known[x, i, j]


def _operands(x: Node, i: int, j: int) -> list[Question]:
    """The operands that have both axes, and where."""
    match x.op:
        case "add" | "mul" | "fn" | "difference" | "matmul" | "apply" | "moment" | "inner" | "outer":
            return [(a, i, j) for a in x.args if a.shape]
        case "view":
            rows, columns = _sources(x, i, j)
            return [(x.args[0], rows[0], columns[0])] if rows and columns else []
        case "take" | "sum":
            axis = x.attr if x.op == "sum" else x.attr.axis
            return [(x.args[0], i + (i >= axis), j + (j >= axis))]
        case "pick":
            return [(x.args[0], i, j)]
        case "stack" if x.attr not in (i, j):
            return [(a, i - (i > x.attr), j - (j > x.attr)) for a in x.args]
        case "softmax" if x.attr not in (i, j):
            return [(x.args[0], i, j)]
    return []


def _built(x: Node, i: int, j: int, args: Sequence[Node]) -> Node:
    rows, columns = x.shape[i], x.shape[j]
    place = i - (j < i)
    rest = [k for p, k in enumerate(x.shape) if p != j]
    rest[place] = rows * columns
    shape = tuple(rest)
    match x.op:
        case "add" | "mul" | "fn" | "difference":
            given = iter(args)
            return algebra.rebuild(x, [next(given) if a.shape else a for a in x.args], shape)
        case "apply":
            given = iter(args)
            return algebra.applied(x, [next(given) if a.shape else a for a in x.args])
        case "matmul" | "moment" | "inner" | "outer":
            return algebra.applied(x, args)
        case "constant":
            if not isinstance(x.attr, np.ndarray):
                return algebra.constant(x.attr, shape, x.width, x.inner)
            a = np.broadcast_to(x.attr, x.shape) if x.attr.ndim == len(x.shape) else np.full(x.shape, x.attr)
            return algebra.typed(algebra.constant(merged(a, i, j), shape), shape, x.width, x.inner)
        case "vector" if isinstance(x.attr, Embedding):
            s = x.attr
            return algebra.initial(Embedding.of(s.name, s.width, s.var, s.data.flattened(i, j), s.trainable, s.std))
        case "view":
            return _view(x, i, j, args, shape)
        case "take":
            axis, k = x.attr
            return algebra.take(args[0], axis - (axis > j + (j >= axis)), k)
        case "sum":
            return algebra.sum_axis(args[0], x.attr - (x.attr > j + (j >= x.attr)))
        case "pick":
            axis, index = x.attr
            if axis not in (i, j):
                return algebra.pick(args[0], axis - (axis > j), index)
            if axis == i:
                whole = [r * columns + c for r in index for c in range(columns)]
            else:
                whole = [r * x.args[0].shape[j] + c for r in range(rows) for c in index]
            return algebra.pick(args[0], place, whole)
        case "softmax" if args:
            return algebra.softmax(args[0], x.attr - (x.attr > j))
        case "stack" if args:
            return algebra.stack(args, x.attr - (x.attr > j))
        case "stack":
            return _stack(x, i, j, shape)
    # an initial vector with axes of its own: the diagonal of two picks
    picked = algebra.pick(algebra.pick(x, i, _row(rows, columns)), j, _column(rows, columns))
    return algebra.view(picked, [place if p == j else p - (p > j) for p in range(len(x.shape))], shape)


def _row(rows: int, columns: int) -> list[int]:
    return [r for r in range(rows) for _ in range(columns)]


def _column(rows: int, columns: int) -> list[int]:
    return [*range(columns)] * rows


def _sources(x: Node, i: int, j: int) -> tuple[list[int], list[int]]:
    """The axes of a view's operand that become i, and those that become j."""
    return [k for k, p in enumerate(x.attr) if p == i], [k for k, p in enumerate(x.attr) if p == j]


def _view(x: Node, i: int, j: int, args: Sequence[Node], shape: tuple[int, ...]) -> Node:
    rows, columns = x.shape[i], x.shape[j]
    place = i - (j < i)
    own, others = _sources(x, i, j)
    index = [place if p == j else p - (p > j) for p in x.attr]
    y = x.args[0]
    if args:  # one pair is flattened; what is left are further axes on the same diagonal
        (y,) = args
        own.pop(0)
        b = others.pop(0)
        index.pop(b)
        own, others = [[k - (k > b) for k in found] for found in (own, others)]
    for k in own:
        y = algebra.pick(y, k, _row(rows, columns))
    for k in others:
        y = algebra.pick(y, k, _column(rows, columns))
    return algebra.view(y, index, shape)


def _stack(x: Node, i: int, j: int, shape: tuple[int, ...]) -> Node:
    """Of parts along one of the two axes: each repeated along it, under a mask of where it stands."""
    rows, columns = x.shape[i], x.shape[j]
    place = i - (j < i)
    where = np.array(_row(rows, columns) if x.attr == i else _column(rows, columns))
    index = _column(rows, columns) if x.attr == i else _row(rows, columns)
    other = j if x.attr == i else i
    axis = other - (other > x.attr)
    terms = []
    for k, a in enumerate(x.args):
        if a.shape:
            a = algebra.pick(a, axis, index)
            a = algebra.view(a, _kept(x, i, j), shape)
        mask = algebra.view(algebra.constant((where == k).astype(np.int64)), (place,), shape)
        terms.append((1, algebra.typed(algebra.mul([mask, a]), shape, x.width, x.inner)))
    return algebra.add(terms)


def _kept(x: Node, i: int, j: int) -> list[int]:
    """Where the axes of a stack's operand go: the one of the pair that it has becomes the new axis."""
    place = i - (j < i)
    return [place if p in (i, j) else p - (p > j) for p in range(len(x.shape)) if p != x.attr]
