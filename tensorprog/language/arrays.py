"""The NumPy meaning of elementwise and structural instructions, shared by the executor and the limit's evaluators.

Layout. The array of a node has the shape (*axes, width, inner), the last two where the node has them. An array may have
size 1 along an axis on which it does not depend; it always has as many axes as its node. `kernel` settles once per node
which operands need axes inserted, so that a call does nothing but NumPy work.

`schedule` turns nodes into steps and fuses sums and Moments of products: `sum(a * v, "s")` becomes a matrix product and
`moment(z * rename(z, t="s"))` a Gram matrix, without the array of all products (`Contraction`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorprog.language.algebra import view_array
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

__all__ = ["Contraction", "Step", "contraction", "kernel", "rank", "schedule"]

Kernel = Callable[..., Any]
"""Operand arrays to the node's array (0-dimensional ones may be NumPy scalars)."""


def rank(node: Node) -> int:
    """Number of axes of the node's array."""
    return len(node.shape) + (node.width is not None) + (node.inner is not None)


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


# ---- one kernel for each instruction ----


def kernel(node: Node) -> Kernel:
    """The function that computes the node's array from its operands' arrays.

    For constant, add, mul, fn, view, take, stack, sum, softmax and inner; the others mean different things to different
    evaluators. Operands are never written to, and the result may share memory with them.

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
    return _KERNELS[node.op](node)


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


def _power(x: Any, k: int) -> Any:
    """Integer powers by repeated squaring: np.power is an order of magnitude slower."""
    if k == 1:
        return x
    half = _power(x, k // 2)
    return half * half * x if k % 2 else half * half


def _mul(node: Node) -> Kernel:
    exponents = node.attr
    if len(exponents) == 1:
        (k,) = exponents
        return _aligned(np.square if k == 2 else lambda x: _power(x, k), _alignments(node))
    if exponents == (1, 1):
        return _aligned(np.multiply, _alignments(node))

    def product(*xs: Any) -> Any:
        out, own = None, False
        for x, k in zip(xs, exponents, strict=True):
            x = x if k == 1 else _power(x, k)
            if out is None:
                out, own = x, k > 1
            elif own and out.ndim and (x.shape == out.shape or not x.ndim):
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


_KERNELS: dict[str, Callable[[Node], Kernel]] = {
    "constant": _constant, "add": _add, "mul": _mul, "fn": _fn, "view": _view, "take": _take, "stack": _stack,
    "sum": _sum, "softmax": _softmax, "inner": lambda node: lambda y: y,
}  # fmt: skip


# ---- sums of products ----

_SMALL = 2048
"""Items of a batch with fewer multiplications than this go to einsum: a BLAS call for each costs more (measured)."""


@dataclass(frozen=True, slots=True)
class _Factor:
    operand: int
    exponent: int
    positions: tuple[int, ...]


class Contraction:
    """Sums over axes, and the mean over the width, of a product, as matrix products: the full product is never built.

    Pairs of factors are contracted in an order chosen by the sizes of what results; size-1 axes along which an operand
    does not vary count as absent. The plan is made once for each combination of operand shapes.

    Attributes:
        operands: The nodes whose arrays it is called with; views among the factors are seen through.
    """

    def __init__(self, chain: Sequence[Node], product: Node) -> None:  # node outermost, then the sums below it
        d = len(product.shape)
        self._sizes, self._width = product.shape, d  # index d stands for the width, d + 1 for the inner width
        positions = list(range(d))
        averaged = False
        for x in reversed(chain):
            if x.op == "moment":
                averaged = True
            else:
                positions.pop(x.attr)
        self._averaged = averaged
        self._out = positions + [d] * (product.width is not None and not averaged)
        self._out += [d + 1] * (product.inner is not None)
        operands: list[Node] = []
        self._factors: list[_Factor] = []
        for x, k in zip(product.args, product.attr, strict=True):
            base, index = x, tuple(range(d)) if x.shape else ()
            if x.op == "view":
                base, index = x.args[0], x.attr
            index += (d,) * (base.width is not None) + (d + 1,) * (base.inner is not None)
            if base not in operands:
                operands.append(base)
            halves = (1,) if k == 1 else (k - k // 2, k // 2)  # x^4 is the inner product of x^2 with itself
            self._factors += [_Factor(operands.index(base), e, index) for e in halves]
        self.operands = tuple(operands)
        self._plans: dict[tuple[tuple[int, ...], ...], Callable[[Sequence[Any]], Any]] = {}

    def __call__(self, *arrays: Any) -> Any:
        """The node's array."""
        shapes = tuple([a.shape for a in arrays])
        plan = self._plans.get(shapes)
        if plan is None:
            plan = self._plans[shapes] = self._plan(shapes)
        return plan(arrays)

    def _plan(self, shapes: tuple[tuple[int, ...], ...]) -> Callable[[Sequence[Any]], Any]:
        extents: dict[int, int] = {}
        for f in self._factors:
            for i, size in zip(f.positions, shapes[f.operand], strict=True):
                extents[i] = max(extents.get(i, 1), size)
        loads: list[Callable[[Sequence[Any]], Any]] = []
        terms: list[tuple[int, ...]] = []
        for f in self._factors:
            kept = tuple(sorted({i for i, size in zip(f.positions, shapes[f.operand], strict=True) if size > 1}))
            loads.append(_load(f, shapes[f.operand], kept))
            terms.append(kept)
        keep = set(self._out)
        constant = [size for i, size in enumerate(self._sizes) if i not in keep and extents.get(i, 1) != size]
        scale = float(math.prod(constant))
        if self._averaged:
            scale /= extents.get(self._width, 1)

        steps: list[tuple[int, int, Kernel]] = []
        alive = dict(enumerate(terms))
        while len(alive) > 1:
            best: tuple[float, int, int, tuple[int, ...]] | None = None
            for i in alive:
                for j in alive:
                    if i >= j:
                        continue
                    others = keep.union(*[t for k, t in alive.items() if k not in (i, j)])
                    result = tuple(sorted((set(alive[i]) | set(alive[j])) & others))
                    gain = _size(result, extents) - _size(alive[i], extents) - _size(alive[j], extents)
                    if best is None or gain < best[0]:
                        best = (gain, i, j, result)
            assert best is not None
            _, i, j, result = best
            steps.append((i, j, _pair(alive[i], alive[j], result, extents)))
            del alive[j]
            alive[i] = result
        ((last, term),) = alive.items()
        finish = _finish(term, self._out, scale)

        def run(arrays: Sequence[Any]) -> Any:
            values = [load(arrays) for load in loads]
            for i, j, pair in steps:
                values[i] = pair(values[i], values[j])
                values[j] = None
            return finish(values[last])

        return run


def _size(term: Iterable[int], extents: dict[int, int]) -> float:
    return float(math.prod(extents[i] for i in term))


def _load(f: _Factor, shape: tuple[int, ...], kept: tuple[int, ...]) -> Callable[[Sequence[Any]], Any]:
    """A factor's array with the axes `kept`, each once."""
    operand, k, positions = f.operand, f.exponent, f.positions
    diagonal = len(set(positions)) < len(positions)
    if positions == kept and k == 1:
        return lambda arrays: arrays[operand]
    index = tuple(slice(None) if size > 1 else 0 for size in shape)
    left = [i for i, size in zip(positions, shape, strict=True) if size > 1]

    def load(arrays: Sequence[Any]) -> Any:
        x = arrays[operand]
        if diagonal:
            x = view_array(x[index], [kept.index(i) for i in left], len(kept))
        elif left != list(kept):
            x = x[index].transpose([left.index(i) for i in kept])
        else:
            x = x[index]
        return _power(x, k)

    return load


def _pair(a: tuple[int, ...], b: tuple[int, ...], result: tuple[int, ...], extents: dict[int, int]) -> Kernel:
    """The product of two arrays with axes a and b, summed over the axes that are not in the result."""
    lone_a = tuple(i for i, p in enumerate(a) if p not in b and p not in result)
    lone_b = tuple(i for i, p in enumerate(b) if p not in a and p not in result)
    if lone_a or lone_b:
        rest = _pair(
            tuple(p for p in a if p in b or p in result), tuple(p for p in b if p in a or p in result), result, extents
        )
        return lambda x, y: rest(np.add.reduce(x, lone_a) if lone_a else x, np.add.reduce(y, lone_b) if lone_b else y)
    both = [p for p in a if p in b]
    batch, inner = [p for p in both if p in result], [p for p in both if p not in result]
    left, right = [p for p in a if p not in b], [p for p in b if p not in a]
    if not inner:
        spread_a = tuple(slice(None) if p in a else None for p in result)
        spread_b = tuple(slice(None) if p in b else None for p in result)
        return lambda x, y: x[spread_a] * y[spread_b]
    work = _size(left + inner + right, extents)
    if batch and work < _SMALL:
        letters = ["".join([chr(97 + p) for p in t]) for t in (a, b, result)]
        subscripts = "{},{}->{}".format(*letters)
        return lambda x, y: np.einsum(subscripts, x, y)
    order_a, order_b = [a.index(p) for p in batch + left + inner], [b.index(p) for p in batch + right + inner]
    lead = [extents[p] for p in batch]
    depth = int(_size(inner, extents))
    shape_a, shape_b = [*lead, int(_size(left, extents)), depth], [*lead, int(_size(right, extents)), depth]
    if not left and not right:
        flat = [*lead, depth]
        return lambda x, y: np.vecdot(x.transpose(order_a).reshape(flat), y.transpose(order_b).reshape(flat))
    full = [extents[p] for p in batch + left + right]
    final = [(batch + left + right).index(p) for p in result]

    def multiply(x: Any, y: Any) -> Any:
        x, y = x.transpose(order_a).reshape(shape_a), y.transpose(order_b).reshape(shape_b)
        return np.matmul(x, y.swapaxes(-1, -2)).reshape(full).transpose(final)

    return multiply


def _finish(term: tuple[int, ...], out: Sequence[int], scale: float) -> Kernel:
    """Sums what is left over, and inserts the axes along which the result does not vary."""
    lone = tuple(i for i, p in enumerate(term) if p not in out)
    index = tuple(slice(None) if p in term else None for p in out)
    spread = None in index

    def finish(x: Any) -> Any:
        if lone:
            x = np.add.reduce(x, lone)
        if scale != 1:
            x = x * scale
        return x[index] if spread else x

    return finish


def contraction(node: Node) -> Contraction | None:
    """The fused form of a sum or Moment of a product (of sums of sums of it), or None where there is no product below.

    Args:
        node: A `sum` or `moment`; of a `mul`, possibly through further `sum`s.

    Example:
        >>> import tensorprog as tp
        >>> z = tp.Vector("z", tp.Width("n"), axes={"t": 2})
        >>> contraction(tp.moment(z * tp.rename(z, t="s")).node)(np.eye(2, 4))
        array([[0.25, 0.  ],
               [0.  , 0.25]])
    """
    chain: list[Node] = []
    x = node
    while x.op in ("sum", "moment"):
        chain.append(x)
        x = x.args[0]
    return Contraction(chain, x) if chain and x.op == "mul" else None


# ---- schedules ----


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction to be carried out: `compute` of the operands' arrays is the node's array.

    `compute` is None for what is the evaluator's own: leaves but constants, matmul, outer, Moments that are not fused.
    """

    node: Node
    operands: tuple[Node, ...]
    compute: Kernel | None


def schedule(
    outputs: Iterable[Node],
    *,
    operands: Callable[[Node], Iterable[Node]] = lambda x: x.args,
    moments: bool = True,
) -> list[Step]:
    """The steps that compute the outputs, operands first, with sums (and Moments) of products fused.

    A product, and a sum between it and the outer one, is fused where nothing else needs its array.

    Args:
        outputs: What is wanted; these are never fused away.
        operands: Of a node, as for `topological`; an evaluator may stop at leaves of its own or look into a body.
        moments: Are Moments means over the last axis? Not in the limit, where they are expectations.
    """
    outputs = list(outputs)
    nodes = topological(outputs, operands)
    uses: Counter[Node] = Counter(a for x in nodes for a in operands(x))
    users: dict[Node, list[Node]] = {}
    for x in nodes:
        for a in operands(x):
            users.setdefault(a, []).append(x)
    kinds = ("sum", "moment") if moments else ("sum",)
    wanted = set(outputs)
    fused: dict[Node, Contraction] = {}

    def reduces(x: Node) -> bool:
        return x.op in kinds and tuple(operands(x)) == x.args

    for x in nodes:  # a product is fused where all its users are sums or Moments
        if x.op == "mul" and x not in wanted and tuple(operands(x)) == x.args and all(map(reduces, users[x])):
            for y in users[x]:
                top = y
                while top not in wanted and uses[top] == 1 and reduces(users[top][0]):
                    top = users[top][0]
                c = contraction(top)
                assert c is not None
                fused[top] = c
    steps = []
    for x in topological(outputs, lambda x: fused[x].operands if x in fused else operands(x)):
        if x in fused:
            steps.append(Step(x, fused[x].operands, fused[x]))
        else:
            make = _KERNELS.get(x.op) if tuple(operands(x)) == x.args else None
            steps.append(Step(x, tuple(operands(x)), None if make is None else make(x)))
    return steps
