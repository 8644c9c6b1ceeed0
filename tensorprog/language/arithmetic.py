"""Sums, products and functions in normal form, and views, which they are made of.

Numbers are folded (rationals exactly), coefficients are pulled out of products, equal terms and factors are merged, commutative
operands are ordered by their digests (results must not depend on build order), views of views fold. Nested sums are not
flattened: shared partial sums stay shared, which keeps long traces linear in size.

All operands of an elementwise node have the same shape, or none; `expression.py` aligns named axes before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.attributes import Call, Hyperparameter
from tensorprog.language.describe import describe
from tensorprog.language.folding import raised, times
from tensorprog.language.functions import NORMAL, PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.symbols import (
    LongNumber,
    Number,
    VectorSpec,
    Width,
    check_length,
    is_exact,
    number,
    numbers,
)

__all__ = [
    "FOLD_LIMIT",
    "ONE",
    "ZERO",
    "add",
    "as_before",
    "combined",
    "common_type",
    "constant",
    "difference",
    "div",
    "fn",
    "hyperparameter",
    "initial",
    "inverse_sqrt",
    "is_mask",
    "is_power_of_n",
    "mul",
    "neg",
    "not_linear",
    "power",
    "scale",
    "sub",
    "terms",
    "transpose",
    "typed",
    "view",
    "view_array",
]

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
    if sum([is_mask(x) for x in merged]) > 1 and (fewer := _along_axes(merged)) is not None:
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
        if x.op == "view" and is_mask(x):
            groups.setdefault((x.attr, x.shape), []).append((x, k))
    if all(len(found) == 1 for found in groups.values()):
        return None
    out = [(x, k) for x, k in factors.items() if not (x.op == "view" and is_mask(x))]
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
        raise not_linear(x, f"is multiplied by {by}, coordinate by coordinate")


def not_linear(x: Node, what: str) -> TensorProgramError:
    """The error of what is done with an initial matrix, and is not linear."""
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
        raise not_linear(x, f"is the argument of {name}")
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


def is_mask(x: Node) -> bool:
    """An array of numbers, or a view of one."""
    return bool(x.shape) and (x.args[0] if x.op == "view" else x).op == "constant"


def combined(x: Node, args: Sequence[Node], shape: tuple[int, ...]) -> Node:
    """The sum or product x of other operands, over a shape."""
    if common_type(args) != (shape, x.width, x.inner) and args[0].shape in ((), shape):
        # an operand is spread over what none of them has; spreading the result would wrap it
        args = [typed(args[0], shape, x.width or args[0].width, x.inner or args[0].inner), *args[1:]]
    pairs = list(zip(args, x.attr, strict=True))
    out = add([(c, a) for a, c in pairs]) if x.op == "add" else mul(pairs)
    return as_before(x, typed(out, shape, x.width, x.inner))


def as_before(x: Node, out: Node) -> Node:
    """What x became, with its line and label."""
    if out is not x and out.source is None and out.op == x.op:
        out.source, out.label = x.source, x.label
    return out
