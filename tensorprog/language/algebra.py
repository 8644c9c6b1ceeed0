"""Constructors of nodes, in normal form.

Every node of every program is made here, so this is where the few rewriting rules live: numbers are folded (rationals
exactly), coefficients are pulled out of products, equal terms and factors are merged, commutative operands are ordered
by
their digests (results must not depend on build order), views of views and picks of picks fold, and single positions see
through stacks. Nothing
that needs knowledge of a meaning (expectations, derivatives) happens here. Nested sums are not flattened: shared
partial sums
stay shared, which keeps long traces linear in size.

All operands of an elementwise node have the same shape, or none; `expression.py` aligns named axes before it calls
these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.attributes import Applied, Call, Hyperparameter, Pick, Product, Take
from tensorprog.language.describe import describe
from tensorprog.language.folding import raised, times, unbounded
from tensorprog.language.functions import NORMAL, PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.symbols import (
    LongNumber,
    MatrixSpec,
    Number,
    VectorSpec,
    Width,
    check_length,
    is_exact,
    number,
    numbers,
)

__all__ = [
    "ONE", "ZERO", "add", "applied", "apply", "common_type", "constant", "difference", "div", "fn",
    "hyperparameter", "initial", "inner",
    "inverse_sqrt", "is_backward", "is_power_of_n", "matmul", "matrix", "moment", "mul", "neg", "outer", "pick",
    "pick_transposed", "power",
    "rebuild", "scale",
    "softmax", "spread", "stack", "sub", "sum_axis", "take", "terms", "transpose", "typed", "view",
]  # fmt: skip

MAX_POWER = 200
LARGEST = 1e60
"""Coefficients up to this, and down to its inverse, are pulled out of sums and products."""
FOLD_LIMIT = 4096
"""Arrays of constants are folded up to this many entries; larger ones are left to the evaluator."""
SMALL = 64
"""Up to this many entries arrays of whole numbers become arrays of fractions, and broadcasts are written out."""

_LAST = b"\xff" * 17


def constant(
    value: Any, shape: tuple[int, ...] | None = None, width: Width | None = None, inner: Width | None = None
) -> Node:
    """A number or an array, the same in every coordinate."""
    if type(value) is int:
        check_length(value)
        return Node("constant", (), value, shape or (), width, inner)
    value = numbers(value, "a constant")
    if isinstance(value, np.ndarray):
        if value.size and (value == value.flat[0]).all() and is_exact(value):
            return constant(value.flat[0], value.shape, width, inner)
        return Node("constant", (), value, value.shape, width, inner)
    return Node("constant", (), value, shape or (), width, inner)


ZERO, ONE = constant(0), constant(1)


def initial(spec: VectorSpec) -> Node:
    """An initial vector."""
    return Node("vector", (), spec, spec.shape, spec.width)


def hyperparameter(name: str, default: Number | np.ndarray | None, shape: Sequence[int] = ()) -> Node:
    """A scalar bound at evaluation."""
    return Node("scalar", (), Hyperparameter(name, default), tuple(shape))


def inverse_sqrt(width: Width) -> Node:
    """width**-1/2."""
    return Node("inverse_sqrt", (), width)


def common_type(nodes: Sequence[Node]) -> tuple[tuple[int, ...], Width | None, Width | None]:
    """The shape, width and inner width of an elementwise function of the nodes."""
    shape: tuple[int, ...] = ()
    width = inner_width = None
    for x in nodes:
        if x.shape:
            if shape and x.shape != shape:
                raise AssertionError(f"operands are not aligned: {x.shape} and {shape}: please report this")
            shape = x.shape
        width, inner_width = width or x.width, inner_width or x.inner
    return shape, width, inner_width


def typed(x: Node, shape: tuple[int, ...], width: Width | None, inner_width: Width | None) -> Node:
    """x itself, or x spread over a larger shape, a width or an inner width."""
    if x.shape == shape and x.width == width and x.inner == inner_width:
        return x
    if x.shape not in ((), shape):
        raise AssertionError(f"a {x.op} of shape {x.shape} where {shape} belongs: please report this")
    if x.op == "constant":
        if isinstance(x.attr, np.ndarray):
            return Node("constant", (), x.attr, shape, width, inner_width)
        return constant(x.attr, shape, width, inner_width)
    return Node("add", (x,), (1,), shape, width, inner_width)


def terms(x: Node) -> list[tuple[Number, Node]]:
    """x as a list of (coefficient, node); a node that is not a sum is one term."""
    if x.op == "add":
        return list(zip(x.attr, x.args, strict=True))
    return [(1, x)]


def _is_long(x: Node) -> bool:
    """A constant array of whole numbers too long to become one of fractions?"""
    return isinstance(x.attr, np.ndarray) and x.attr.dtype.kind == "i" and x.attr.size > SMALL


def add(pairs: Iterable[tuple[Number, Node]]) -> Node:
    """The linear combination sum of c_i x_i."""
    pairs = list(pairs)
    shape, width, inner_width = common_type([x for _, x in pairs])
    bias: Any = 0
    merged: dict[Node, Number] = {}
    for c, x in pairs:
        while x.op == "add" and len(x.args) == 1:  # a multiple, or a broadcast
            gathered = c * x.attr[0]
            if abs(c) != 1 and (not _in_range(gathered, c) or _leaves(gathered, c, x.attr[0])):
                break
            c, x = gathered, x.args[0]
        if x.op == "constant" and isinstance(c, Fraction) and _is_long(x):
            merged[x] = merged.get(x, 0) + c
        elif x.op == "constant" and not (isinstance(x.attr, np.ndarray) and x.attr.size > FOLD_LIMIT):
            term = times(c, x.attr)
            total = bias + term
            if _leaves(term, c, x.attr) or _leaves(total):
                merged[x] = merged.get(x, 0) + c
            else:
                bias = total
        else:
            merged[x] = merged.get(x, 0) + c
    kept = [(x, c) for x, c in merged.items() if c != 0]
    if isinstance(bias, np.ndarray) or bias != 0:
        node = constant(bias)
        if not kept:
            return typed(node, shape, width, inner_width)
        if not isinstance(node.attr, np.ndarray):  # equal entries: a number, whether it came as an array or not
            node = constant(node.attr)
        kept.append((node, 1))
    if not kept:
        return constant(bias, shape, width, inner_width)
    if len(kept) == 1 and kept[0][1] == 1:
        return typed(kept[0][0], shape, width, inner_width)
    kept.sort(key=_by_digest)
    return Node("add", tuple([x for x, _ in kept]), tuple([number(c) for _, c in kept]), shape, width, inner_width)


def _by_digest(item: tuple[Node, Any]) -> bytes:
    return _LAST if item[0].op == "constant" else item[0].digest  # constants print last


def scale(c: Number, x: Node) -> Node:
    """c x."""
    return add([(c, x)])


def neg(x: Node) -> Node:
    """-x."""
    return add([(-1, x)])


def sub(x: Node, y: Node) -> Node:
    """x - y."""
    return add([(1, x), (-1, y)])


def _in_range(c: Any, *parts: Any) -> bool:
    """May a coefficient be gathered? Not beyond LARGEST: the factors of many layers in one number overflow before they cancel."""
    size = abs(c)
    return bool(1 / LARGEST <= size <= LARGEST) or c == 0 or not all(1 / LARGEST <= abs(p) <= LARGEST for p in parts)


def _leaves(value: Any, *parts: Any) -> bool:
    """Is a number no float, or so small that digits are lost? Then it is not folded: other factors may bring it back."""
    if isinstance(value, float):
        return not math.isfinite(value) or (abs(value) < NORMAL and bool(parts) and all(parts))
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return False
    lost = np.asarray(np.abs(value) < NORMAL) & bool(parts)
    for p in parts:
        lost = lost & np.not_equal(p, 0)
    return bool(lost.any()) or not np.isfinite(value).all()


def mul(factors: Iterable[Node | tuple[Node, int]]) -> Node:
    """The product of x_i ** k_i."""
    pairs = [f if isinstance(f, tuple) else (f, 1) for f in factors]
    if any([x.has_matrix for x, _ in pairs]):
        _check_scaled(pairs)
    out = None
    for gather, fold in ((True, True), (False, True), (False, False)):
        if out is None:
            out = _product(pairs, gather, fold)
    assert out is not None
    return out


def _product(pairs: list[tuple[Node, int]], gather: bool, fold: bool) -> Node | None:
    """A product, coefficients gathered in front if wanted, numbers folded if wanted; None if they would leave the range.

    Else they stay factors.
    """
    todo = list(pairs)
    shape, width, inner_width = common_type([x for x, _ in todo])
    coefficient: Any = 1
    array: Any = 1
    merged: dict[Node, int] = {}
    while todo:
        x, k = todo.pop()
        if x.op == "mul":
            todo.extend([(y, j * k) for y, j in zip(x.args, x.attr, strict=True)])
        elif x.op == "add" and len(x.args) == 1 and (gather or x.attr[0] == 1):
            coefficient = _times_power(coefficient, x.attr[0], k)
            todo.append((x.args[0], k))
            if coefficient is None or (gather and not _in_range(coefficient)):
                return None
        elif x.op == "constant" and not (isinstance(x.attr, np.ndarray) and x.attr.size > FOLD_LIMIT):
            if not fold and not is_exact(x.attr):
                c = constant(x.attr)
                merged[c] = merged.get(c, 0) + k
            elif isinstance(x.attr, np.ndarray):
                before = array
                array = times(array, x.attr, k)
                if fold and _leaves(array, before, x.attr):
                    return None
            else:
                before = coefficient
                coefficient = _times_power(before, x.attr, k)
                if coefficient is None or (fold and _leaves(coefficient, before, x.attr)):
                    return None
        elif x.op == "fn" and x.attr.name == "reciprocal" and x.args[0].op == "inverse_sqrt":
            merged[x.args[0]] = merged.get(x.args[0], 0) - k  # powers of n cancel exactly
        else:
            merged[x] = merged.get(x, 0) + k
    merged = {x if k >= 0 else Node("fn", (x,), Call("reciprocal", ())): abs(k) for x, k in merged.items()}
    if isinstance(array, np.ndarray):
        folded = constant(array)
        if isinstance(folded.attr, np.ndarray) and isinstance(coefficient, Fraction) and _is_long(folded):
            merged[folded] = 1
        elif _leaves(whole := times(coefficient, folded.attr), coefficient, folded.attr):
            if fold:
                return None
            merged[folded] = merged.get(folded, 0) + 1
        else:
            folded = constant(whole)
            coefficient = folded.attr if not isinstance(folded.attr, np.ndarray) else 1
            if isinstance(folded.attr, np.ndarray):
                merged[folded] = 1
    if sum([_is_mask(x) for x in merged]) > 1 and (fewer := _along_axes(merged)) is not None:
        return typed(mul([constant(coefficient), *fewer]), shape, width, inner_width)
    if merged and max(merged.values()) > MAX_POWER:
        raise TensorProgramError(
            f"the power {max(merged.values())}",
            why=f"powers go to {MAX_POWER}",
            fix="use a bounded function such as tp.tanh",
        )
    if coefficient == 0 or not merged:
        return constant(coefficient, shape, width, inner_width)
    kept = sorted([(x, k) for x, k in merged.items() if k], key=_by_digest)
    if not kept:
        return constant(coefficient, shape, width, inner_width)
    if len(kept) == 1 and kept[0][1] == 1:
        out = typed(kept[0][0], shape, width, inner_width)
    else:
        out = Node("mul", tuple([x for x, _ in kept]), tuple([k for _, k in kept]), shape, width, inner_width)
    return out if coefficient == 1 else add([(coefficient, out)])


def _times_power(a: Any, b: Any, k: int) -> Any:
    """a b**k for numbers; None where the power is no float, or one that has lost digits."""
    try:
        power = raised(b, k)
    except LongNumber:
        raise
    except TensorProgramError:
        return None
    return None if _leaves(power, b) else a * power


def _along_axes(factors: dict[Node, int]) -> list[tuple[Node, int]] | None:
    """Factors, arrays of numbers along the same axes as one: disjoint masks have the product 0. None if there are none."""
    groups: dict[Any, list[tuple[Node, int]]] = {}
    for x, k in factors.items():
        if x.op == "view" and _is_mask(x):
            groups.setdefault((x.attr, x.shape), []).append((x, k))
    if all(len(found) == 1 for found in groups.values()):
        return None
    out = [(x, k) for x, k in factors.items() if not (x.op == "view" and _is_mask(x))]
    for (index, shape), found in groups.items():
        product = mul([(x.args[0], k) for x, k in sorted(found, key=_by_digest)])
        out.append((view(product, index, shape), 1))
    return out


def _check_scaled(factors: Sequence[tuple[Node, int]]) -> None:
    """An initial matrix is multiplied by scalars only."""
    (x, k), *more = [f for f in factors if f[0].has_matrix]
    others = [y for y, _ in factors if not (y.is_scalar or y.has_matrix)]
    others = [y for y in others if y.op != "constant" or isinstance(y.attr, np.ndarray)]
    if k > 1 or more or others:
        by = describe(others[0]) if others else describe(more[0][0] if more else x)
        raise _not_linear(x, f"is multiplied by {by}, coordinate by coordinate")


def _not_linear(x: Node, what: str) -> TensorProgramError:
    return TensorProgramError(
        f"{describe(x)}, which has an initial matrix in it, {what}",
        why="a Tensor Program adds and scales initial matrices and multiplies vectors by them; it sees no single entries",
        fix="apply functions to tp.matrix(...) alone, before it is added; write M @ x for a product",
    )


def power(x: Node, k: int) -> Node:
    """x ** k for an integer k >= 0."""
    return mul([(x, k)]) if k else constant(1, x.shape, x.width, x.inner)


def div(x: Node, y: Node) -> Node:
    """x / y."""
    return mul([x, fn("reciprocal", y)])


def fn(name: str, x: Node, *parameters: Number) -> Node:
    """A primitive, elementwise."""
    row = PRIMITIVES[name]
    if x.has_matrix:
        raise _not_linear(x, f"is the argument of {name}")
    if row.least is not None and not parameters[0] >= row.least:
        raise TensorProgramError(
            f"{name} with the {row.parameters[0]} {parameters[0]}", fix=f"a {row.parameters[0]} is at least {row.least}"
        )
    if x.op == "constant" and row.exact is not None and is_exact(x.attr) and all(map(is_exact, parameters)):
        if isinstance(x.attr, np.ndarray):
            if x.attr.size <= FOLD_LIMIT:
                values = [row.exact(v, *parameters) for v in x.attr.ravel().tolist()]
                if None not in values:
                    return typed(constant(np.array(values, dtype=object).reshape(x.shape)), x.shape, x.width, x.inner)
        else:
            value = row.exact(x.attr, *parameters)
            if value is not None:
                return constant(value, x.shape, x.width, x.inner)
    if name == "reciprocal" and x.op == "mul" and all(is_power_of_n(a) for a in x.args):
        return mul([(fn("reciprocal", a), k) for a, k in zip(x.args, x.attr, strict=True)])
    if name == "reciprocal" and x.op == "fn" and is_power_of_n(x):
        return x.args[0]
    return Node("fn", (x,), Call(name, tuple(parameters)), x.shape, x.width, x.inner)


def difference(name: str, x: Node, d: Node, eps: Node, *parameters: Number) -> Node:
    """(phi(x + eps d) - phi(x)) / eps of a primitive phi, elementwise; phi'(x) d at eps = 0.

    Raises:
        TensorProgramError: phi jumps: there is no bound for it as eps tends to 0.
    """
    row = PRIMITIVES[name]
    shape, width, inner_width = common_type([x, d])
    if row.derivative is None or row.jumps or (name in ("bump", "smooth_sign") and not parameters[0]):
        raise TensorProgramError(
            f"the divided difference of {name}",
            why="it jumps, and the difference over eps has no limit where it does",
            fix="use a continuous function",
        )
    if d.is_zero:
        return constant(0, shape, width, inner_width)
    return Node("difference", (x, d, eps), Call(name, tuple(parameters)), shape, width, inner_width)


def is_power_of_n(x: Node) -> bool:
    """Is it n**-1/2 or n**1/2, of some width?"""
    return x.op == "inverse_sqrt" or (x.op == "fn" and x.attr.name == "reciprocal" and x.args[0].op == "inverse_sqrt")


def view(x: Node, index: Sequence[int], shape: Sequence[int]) -> Node:
    """Axis i of x becomes axis index[i] of the result; a repeated position is a diagonal, an absent one a broadcast."""
    index, shape = tuple(index), tuple(shape)
    if index == tuple(range(len(shape))) and x.shape == shape:
        return x
    if not x.shape:
        return typed(x, shape, x.width, x.inner)
    if x.op == "view":
        return view(x.args[0], [index[i] for i in x.attr], shape)
    if x.op == "constant":
        if not isinstance(x.attr, np.ndarray):
            return constant(x.attr, shape, x.width, x.inner)
        if x.attr.shape == x.shape and sorted(index) == list(range(len(shape))):  # turned: no copy
            turned = x.attr.transpose(np.argsort(index))
            return x if np.array_equal(turned, x.attr) else Node("constant", (), turned, shape, x.width, x.inner)
        if x.attr.ndim == len(x.shape) and int(np.prod(shape)) <= max(SMALL, min(x.attr.size, FOLD_LIMIT)):
            return Node("constant", (), _view_array(x.attr, index, shape), shape, x.width, x.inner)
    return Node("view", (x,), index, shape, x.width, x.inner)


def _view_array(a: np.ndarray, index: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    out = np.array(np.broadcast_to(view_array(a, index, len(shape)), shape))
    out.setflags(write=False)
    return out


def view_array(a: np.ndarray, index: Sequence[int], ndim: int, trailing: int = 0) -> np.ndarray:
    """The NumPy meaning of a view: a strided array with size 1 at the axes that x lacks. `trailing` axes stay last."""
    strides, sizes = [0] * ndim, [1] * ndim
    for i, position in enumerate(index):
        strides[position] += a.strides[i] if a.shape[i] > 1 else 0
        sizes[position] = max(sizes[position], a.shape[i])
    last = a.ndim - trailing
    return np.lib.stride_tricks.as_strided(
        a, sizes + list(a.shape[last:]), strides + list(a.strides[last:]), writeable=False
    )


def transpose(x: Node, order: Sequence[int]) -> Node:
    """Axis i of the result is axis order[i] of x."""
    index = [0] * len(order)
    for i, j in enumerate(order):
        index[j] = i
    return view(x, index, [x.shape[j] for j in order])


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
        return rebuild(x, x.args, shape)
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
        return rebuild(x, x.args, shape)
    elif x.op == "add" and len(x.args) == 1:
        return scale(x.attr[0], pick(x.args[0], axis, index))
    elif x.op == "mul" and x.is_scalar and any(map(_is_mask, x.args)):  # masks outside, so that picks meet picks
        masks = [(pick(a, axis, index), k) for a, k in zip(x.args, x.attr, strict=True) if _is_mask(a)]
        rest = mul([(a, k) for a, k in zip(x.args, x.attr, strict=True) if not _is_mask(a)])
        return mul([*masks, pick(rest, axis, index) if rest.shape else rest])
    return Node("pick", (x,), Pick(axis, index), shape, x.width, x.inner)


def _is_mask(x: Node) -> bool:
    """An array of numbers, or a view of one."""
    return bool(x.shape) and (x.args[0] if x.op == "view" else x).op == "constant"


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


def matmul(of: MatrixSpec, transposed: bool, x: Node, backward: bool | None = None) -> Node:
    """W x, or W.T x.

    Args:
        of: W.
        transposed: Is it W.T?
        x: What is multiplied.
        backward: Is it a product of back-propagation? By default W.T x is, and W x is not; anything else is a mark of the
            instruction, content that gradient independence is about (`transforms/decouple.py`) and no number is.
    """
    width = of.cols if transposed else of.rows
    if x.is_zero or of.var == 0:
        return constant(0, x.shape, width)
    y = spread(x)
    if y is not None:  # the same number in every coordinate: a multiple of W 1
        one = matmul(of, transposed, constant(1, (), x.width), backward)
        return typed(mul([y, one]), x.shape, width, None)
    return Node("matmul", (x,), Product(of, transposed, _mark(transposed, backward)), x.shape, width)


def matrix(of: MatrixSpec) -> Node:
    """An initial matrix as a part of a matrix: cols times its entries, so that M x is the mean over columns of all parts."""
    return Node("matrix", (), of, (), of.rows, of.cols) if of.var else constant(0, (), of.rows, of.cols)


def apply(m: Node, transposed: bool, x: Node, backward: bool | None = None) -> Node:
    """M x, or M.T x: (M x)_a = (1/cols) sum_b M_ab x_b, (M.T y)_b = (1/cols) sum_a M_ab y_a.

    Numbers and scalars that M is a multiple of are pulled out; of an initial matrix it is `matmul`.

    Args:
        m: What has two coordinates; of the shape of x, or one of them has none.
        transposed: Is it M.T?
        x: What is multiplied.
        backward: As for `matmul`.
    """
    width = m.inner if transposed else m.width
    shape = m.shape or x.shape
    if m.is_zero or x.is_zero:
        return constant(0, shape, width)
    y = spread(x)
    if y is not None:
        one = apply(m, transposed, constant(1, (), x.width), backward)
        return typed(mul([y, one]), shape, width, None)
    if m.op == "matrix":
        return matmul(m.attr, transposed, x, backward)
    if m.op == "add" and len(m.args) == 1 and m.args[0].width and m.args[0].inner:
        return typed(scale(m.attr[0], apply(m.args[0], transposed, x, backward)), shape, width, None)
    if m.op == "mul" and m.has_matrix:
        (rest,) = [a for a in m.args if a.has_matrix]
        scalars = [(a, k) for a, k in zip(m.args, m.attr, strict=True) if a is not rest]
        return typed(mul([*scalars, apply(rest, transposed, x, backward)]), shape, width, None)
    return Node("apply", (m, x), Applied(transposed, _mark(transposed, backward)), shape, width)


def _mark(transposed: bool, backward: bool | None) -> str:
    return "" if backward in (None, transposed) else ("backward" if backward else "forward")


def is_backward(x: Node) -> bool:
    """Is this product one of back-propagation: marked so, or W.T y without a mark?"""
    return x.attr.mark == "backward" if x.attr.mark else bool(x.attr.transposed)


def moment(x: Node) -> Node:
    """The mean over the width."""
    if x.op == "constant":
        return typed(constant(x.attr), x.shape, None, None)
    y = spread(x)
    if y is not None:
        return typed(y, x.shape, None, None)
    return Node("moment", (x,), None, x.shape) if x.width is not None else x


def spread(x: Node) -> Node | None:
    """The scalar that a vector is in every coordinate, where it was made by spreading one; else None."""
    if x.op == "add" and len(x.args) == 1 and x.args[0].width is None and x.width is not None:
        return scale(x.attr[0], x.args[0])
    return None


def inner(y: Node) -> Node:
    """y over the second coordinate of an OuterNonlin."""
    return Node("inner", (y,), None, y.shape, None, y.width)


def outer(body: Node) -> Node:
    """OuterNonlin: the mean of the body over its second coordinate."""
    if body.has_matrix:
        raise _not_linear(body, "is the body of an OuterNonlin")
    return Node("outer", (body,), None, body.shape, body.width)


def applied(x: Node, args: Sequence[Node]) -> Node:
    """The operation of x on other operands, in normal form; the type is what the operands make it."""
    match x.op:
        case "add":
            return add(list(zip(x.attr, args, strict=True)))
        case "mul":
            return mul(list(zip(args, x.attr, strict=True)))
        case "fn":
            return fn(x.attr.name, args[0], *x.attr.parameters)
        case "difference":
            return difference(x.attr.name, args[0], args[1], args[2], *x.attr.parameters)
        case "view":
            return view(args[0], x.attr, x.shape)
        case "take":
            return take(args[0], *x.attr)
        case "pick":
            return pick(args[0], *x.attr)
        case "stack":
            return stack(args, x.attr)
        case "sum":
            return sum_axis(args[0], x.attr)
        case "softmax":
            return softmax(args[0], x.attr)
        case "matmul":
            return matmul(x.attr.matrix, x.attr.transposed, args[0], is_backward(x))
        case "apply":
            return apply(args[0], x.attr.transposed, args[1], is_backward(x))
        case "moment":
            return moment(args[0])
        case "inner":
            return inner(args[0])
        case "outer":
            return outer(args[0])
        case _:
            if args:
                raise TensorProgramError(f"no rule rebuilds {x.op!r}", fix="please report this")
            return x


def rebuild(x: Node, args: Sequence[Node], shape: tuple[int, ...] | None = None) -> Node:
    """The same instruction on other operands, in normal form; for sums, products and primitives over another shape, if given."""
    shape = x.shape if shape is None else shape
    if x.op in ("add", "mul") and common_type(args) != (shape, x.width, x.inner) and args[0].shape in ((), shape):
        # an operand is spread over what none of them has; spreading the result would wrap it
        args = [typed(args[0], shape, x.width or args[0].width, x.inner or args[0].inner), *args[1:]]
    out = applied(x, args)
    if x.op in ("add", "mul", "fn", "difference"):
        out = typed(out, shape, x.width, x.inner)
    if out is not x and out.source is None and out.op == x.op:
        out.source, out.label = x.source, x.label
    return out
