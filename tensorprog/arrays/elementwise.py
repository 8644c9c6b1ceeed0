"""The NumPy meaning of elementwise and structural instructions, shared by the executor and the limit's evaluators.

Layout. The array of a node has the shape (*axes, width, inner), the last two where the node has them. An array may have
size 1 along an axis on which it does not depend; it always has as many axes as its node. `kernel` settles once per node
which operands need axes inserted, so that a call does nothing but NumPy work.

Sums and Moments of products have a kernel of their own in `contraction.py`; `schedule.py` decides where it applies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorprog.arrays.differences import array_of_difference
from tensorprog.arrays.overflow import cleared, overruled
from tensorprog.language import algebra
from tensorprog.language.algebra import view_array
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

__all__ = ["KERNELS", "Kernel", "aligned", "array_shape", "kernel", "raised", "rank", "slope"]

Kernel = Callable[..., Any]
"""Operand arrays to the node's array (0-dimensional ones may be NumPy scalars)."""


def rank(node: Node) -> int:
    """Number of axes of the node's array."""
    return len(node.shape) + (node.width is not None) + (node.inner is not None)


def array_shape(node: Node, given: Sequence[tuple[int, ...]], size: Callable[[Any], int]) -> tuple[int, ...]:
    """The shape of the array of a node, from those of its operands' arrays; size 1 along axes on which it does not depend.

    Args:
        node: Any instruction of a program.
        given: The shapes of its operands' arrays.
        size: The number of coordinates of a width.
    """
    if node.op in ("vector", "outer", "apply"):
        return (*node.shape, size(node.width))
    n = len(node.shape)
    lead = [s[: len(a.shape)] for a, s in zip(node.args, given, strict=False)]
    tail: tuple[int, ...] = ()
    pairs = list(zip(node.args, given, strict=False))
    if node.width is not None:
        tail = (max([s[len(a.shape)] for a, s in pairs if a.width] or [1]),)
    if node.inner is not None:
        tail = (*tail, max([s[-1] for a, s in pairs if a.inner or node.op == "inner"] or [1]))
    match node.op:
        case "matmul":
            return (*lead[0], size(node.width))
        case "moment":
            return tuple(lead[0])
        case "view":
            index = node.attr
            return (
                *[max([k for k, p in zip(lead[0], index, strict=True) if p == i], default=1) for i in range(n)],
                *tail,
            )
        case "take" | "sum":
            axis = node.attr if node.op == "sum" else node.attr.axis
            return (*lead[0][:axis], *lead[0][axis + 1 :], *tail)
        case "pick":
            axis, positions = node.attr
            count = len(positions) if lead[0][axis] > 1 and len(set(positions)) > 1 else 1
            return (*lead[0][:axis], count, *lead[0][axis + 1 :], *tail)
        case "stack":
            axes = [max([s[i] for s in lead if s], default=1) for i in range(n - 1)]
            return (*axes[: node.attr], len(node.args), *axes[node.attr :], *tail)
    full = [s for s in lead if len(s) == n]
    return (*[max([s[i] for s in full], default=1) for i in range(n)], *tail)


# ---- alignment ----


def _trailing(x: Node, node: Node) -> list[Any]:
    """For width and inner width, where the node has them: does x have them too (a slice), or not (None)?"""
    pairs = ((x.width, node.width), (x.inner, node.inner))
    return [None if mine is None else slice(None) for mine, theirs in pairs if theirs is not None]


def _alignment(x: Node, node: Node, full: bool) -> tuple[Any, ...] | None:
    """The index that gives operand x the axes it lacks in `node`; None where NumPy broadcasts by itself."""
    trailing = _trailing(x, node)
    lead = len(node.shape) - len(x.shape) if full else 0
    if not full and not x.shape:  # leading axes come by themselves; what stands after an axis of x has to be inserted
        while trailing and trailing[0] is None:
            trailing.pop(0)
    while trailing and trailing[0] is not None and not lead:
        trailing.pop(0)
    if not lead and not trailing:
        return None
    return (*[None] * lead, ..., *trailing)


def _alignments(node: Node) -> list[tuple[Any, ...] | None]:
    """An index for each operand of an elementwise node, so that the result has all of the node's axes."""
    wanted = rank(node)
    spans = [len(x.shape) == len(node.shape) and (bool(node.shape) or rank(x) == wanted) for x in node.args]
    # A single operand with all axes in place is enough; where there is none, the first one gets them all.
    return [_alignment(x, node, full=not any(spans) and i == 0) for i, x in enumerate(node.args)]


def _aligned(function: Kernel, indices: Sequence[tuple[Any, ...] | None]) -> Kernel:
    """The function of operands that are indexed first."""
    if not any(indices):
        return function
    if len(indices) == 1:
        (index,) = indices
        return lambda x: function(x[index])
    if len(indices) == 2:
        i, j = indices
        if i is None:
            return lambda x, y: function(x, y[j])
        if j is None:
            return lambda x, y: function(x[i], y)
    return lambda *xs: function(*[x if index is None else x[index] for x, index in zip(xs, indices, strict=True)])


def aligned(function: Kernel, node: Node) -> Kernel:
    """A function of the operands' arrays of an elementwise node, whatever axes, width and inner width they lack."""
    return _aligned(function, _alignments(node))


# ---- one kernel for each instruction ----


def kernel(node: Node) -> Kernel:
    """The function that computes the node's array from its operands' arrays.

    For constant, add, mul, fn, difference, view, take, pick, stack, sum, softmax and inner; the others mean different
    things to different evaluators. Operands are never written to, and the result may share memory with them.

    Args:
        node: One instruction.

    Returns:
        A function of len(node.args) arrays with `rank` axes each (0-dimensional ones: arrays or NumPy scalars).

    Raises:
        KeyError: The instruction is none of those.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"))
        >>> kernel((2 * x + 1).node)(np.array([1.0, 2.0]), np.float64(1))
        array([3., 5.])
    """
    return KERNELS[node.op](node)


def _constant(node: Node) -> Kernel:
    value = np.asarray(node.attr, dtype=np.float64)
    trailing = rank(node) - len(node.shape)
    value = value.reshape([1] * (len(node.shape) - value.ndim) + list(value.shape) + [1] * trailing)
    value.setflags(write=False)
    return lambda: value


def _add(node: Node) -> Kernel:
    coefficients = [float(c) for c in node.attr]
    return _aligned(_linear(coefficients), _alignments(node))


def _linear(coefficients: list[float]) -> Kernel:
    first, *rest = coefficients
    if not rest:
        return (lambda x: x) if first == 1 else (lambda x: x * first)
    if rest == [1.0] and first in (1.0, -1.0):
        return np.add if first == 1 else lambda x, y: np.subtract(y, x)
    if coefficients == [1.0, -1.0]:
        return np.subtract

    def combine(x: Any, *others: Any) -> Any:
        out, own = (x, False) if first == 1 else (x * first, True)
        for c, y in zip(rest, others, strict=True):
            operation = np.subtract if c == -1 else np.add
            term = y if c in (1.0, -1.0) else y * c
            # In place where the array is ours and has the shape of the result: large vectors are bound by memory.
            if own and out.ndim and (term.shape == out.shape or not term.ndim):
                operation(out, term, out=out)
            else:
                out, own = operation(out, term), True
        return out

    return combine


def raised(x: Any, k: int) -> Any:
    """Integer powers by repeated squaring: np.power is an order of magnitude slower."""
    if k == 1:
        return x
    half = raised(x, k // 2)
    return half * half * x if k % 2 else half * half


def _mul(node: Node) -> Kernel:
    clear = overruled(node.args)
    if not clear:
        return _product(node)
    plain = _product(node)
    indices = [i or (...,) for i in _alignments(node)]

    def product(*xs: Any) -> Any:
        out = plain(*xs)
        if not np.isnan(out).any():
            return out
        full = [np.asarray(x)[index] for x, index in zip(xs, indices, strict=True)]
        for i, zeros in clear:
            full[i] = cleared(full[i], [full[j] for j in zeros])
        out = raised(full[0], node.attr[0])
        for x, k in zip(full[1:], node.attr[1:], strict=True):
            out = out * raised(x, k)
        return out

    return product


def _product(node: Node) -> Kernel:
    exponents = node.attr
    if len(exponents) == 1:
        (k,) = exponents
        return _aligned(np.square if k == 2 else lambda x: raised(x, k), _alignments(node))
    if exponents == (1, 1):
        return _aligned(np.multiply, _alignments(node))

    def product(*xs: Any) -> Any:
        out, own = None, False
        for x, k in zip(xs, exponents, strict=True):
            x = x if k == 1 else raised(x, k)
            if out is None:
                out, own = x, k > 1
            elif own and np.ndim(out) and np.shape(x) in ((), out.shape):  # parameters may be floats
                np.multiply(out, x, out=out)
            else:
                out, own = out * x, True
        return out

    return _aligned(product, _alignments(node))


def _fn(node: Node) -> Kernel:
    name, parameters = node.attr
    function = PRIMITIVES[name].array
    if not parameters:
        return _aligned(function, _alignments(node))
    return _aligned(lambda x: function(x, *parameters), _alignments(node))


def _difference(node: Node) -> Kernel:
    name, parameters = node.attr
    return _aligned(array_of_difference(name, parameters, slope(name, parameters)), _alignments(node))


def slope(name: str, parameters: Sequence[Any]) -> Callable[[Any], Any]:
    """The derivative of a primitive as a function of arrays."""
    x = algebra.hyperparameter("x", None)
    derivative = PRIMITIVES[name].derivative
    assert derivative is not None
    y = derivative(algebra, x, *parameters)
    steps = [(node, kernel(node)) for node in topological([y]) if node != x]

    def call(values: Any) -> Any:
        done = {x: values}
        for node, compute in steps:
            done[node] = compute(*[done[a] for a in node.args])
        return np.broadcast_to(done[y], np.shape(values))

    return call


def _view(node: Node) -> Kernel:
    positions, ndim = node.attr, len(node.shape)
    trailing = rank(node) - ndim
    if len(set(positions)) < len(positions):
        return lambda x: view_array(np.asarray(x), positions, ndim, trailing)
    # Transposing and inserting axes is ten times faster than as_strided, which serves the diagonals.
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    last = len(positions)
    permutation = (*order, *range(last, last + trailing))
    index = (*[slice(None) if i in positions else None for i in range(ndim)], ...)
    if len(positions) == ndim:
        return lambda x: x.transpose(permutation)
    if order == list(range(last)):
        return lambda x: x[index]
    return lambda x: x.transpose(permutation)[index]


def _take(node: Node) -> Kernel:
    axis, position = node.attr
    index = (*[slice(None)] * axis, position)
    first = (*[slice(None)] * axis, 0)
    return lambda x: x[index if x.shape[axis] > 1 else first]


def _pick(node: Node) -> Kernel:
    """Positions at equal distances are a view of the operand; others are copied."""
    axis, index = node.attr
    lead = (slice(None),) * axis
    step = index[1] - index[0] if len(index) > 1 else 1
    if len(set(index)) == 1:  # the result does not depend on the axis
        place = (*lead, slice(index[0], index[0] + 1))
    elif index == tuple(range(index[0], index[-1] + (1 if step > 0 else -1), step or 1)):
        end = index[-1] + (1 if step > 0 else -1)
        place = (*lead, slice(index[0], end if end >= 0 else None, step))
    else:
        positions = np.array(index)
        return lambda x: np.take(x, positions, axis) if x.shape[axis] > 1 else x
    return lambda x: x[place] if x.shape[axis] > 1 else x


def _stack(node: Node) -> Kernel:
    axis, count = node.attr, len(node.args)
    indices = [(..., *t) if None in t else None for t in [_trailing(x, node) for x in node.args]]
    places: list[Any] = [(*[slice(None)] * axis, i) for i in range(count)]

    def stack(*xs: Any) -> Any:
        parts = [x if index is None else x[index] for x, index in zip(xs, indices, strict=True)]
        shape = parts[0].shape
        if any(p.shape != shape for p in parts):
            shape = np.broadcast_shapes(*[p.shape for p in parts])
        out = np.empty((*shape[:axis], count, *shape[axis:]))
        for place, part in zip(places, parts, strict=True):
            out[place] = part
        return out

    return stack


def _sum(node: Node) -> Kernel:
    axis, size = node.attr, node.args[0].shape[node.attr]
    first = (*[slice(None)] * axis, 0)

    def total(x: Any) -> Any:
        return np.add.reduce(x, axis) if x.shape[axis] == size else x[first] * size

    return total


def _softmax(node: Node) -> Kernel:
    axis, size = node.attr, node.args[0].shape[node.attr]

    def softmax(x: Any) -> Any:
        if x.shape[axis] != size:
            return np.full_like(x, 1.0 / size)
        out = np.exp(x - np.maximum.reduce(x, axis, keepdims=True))  # the largest term is 1: no overflow
        out /= np.add.reduce(out, axis, keepdims=True)
        return out

    return softmax


KERNELS: dict[str, Callable[[Node], Kernel]] = {
    "constant": _constant, "add": _add, "mul": _mul, "fn": _fn, "difference": _difference,
    "view": _view, "take": _take, "pick": _pick,
    "stack": _stack, "sum": _sum, "softmax": _softmax, "inner": lambda node: lambda y: y,
}  # fmt: skip
