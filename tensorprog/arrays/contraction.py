"""Sums of products as matrix products: the array of all products is never built.

`sum(a * v, "s")` is attention, `moment(z * rename(z, t="s"))` a Gram matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorprog.arrays.elementwise import Kernel, raised
from tensorprog.arrays.overflow import cleared, overruled
from tensorprog.language.algebra import view_array
from tensorprog.language.node import Node

__all__ = ["Contraction", "contraction"]

_SMALL = 2048
"""Items of a batch with fewer multiplications than this go to einsum: a BLAS call for each costs more (measured)."""


@dataclass(frozen=True, slots=True)
class _Factor:
    operand: int
    exponent: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Term:
    """A product of factors, with what it is averaged and summed over besides the axes of the whole."""

    factors: tuple[_Factor, ...] = ()
    scale: float = 1.0
    averaged: tuple[int, ...] = ()
    summed: tuple[int, ...] = ()


class Contraction:
    """Sums over axes, and the mean over the width, of a product, as matrix products: the full product is never built.

    Pairs of factors are contracted in an order chosen by the sizes of what results; size-1 axes along which an operand
    does not vary count as absent. The plan is made once for each combination of operand shapes.

    Moments and sums among the factors may be contracted along with the rest (`absorbed`): sum_st <g_s, g'_t> <h_s, h'_t> is the
    inner product of sum_s g_s h_s with that of the others, and there need be no array of all pairs (s, t).

    Attributes:
        operands: The nodes whose arrays it is called with; views among the factors are seen through.
    """

    def __init__(
        self, chain: Sequence[Node], product: Node, absorbed: Callable[[Node], bool] = lambda x: False
    ) -> None:
        d = len(product.shape)  # node outermost, then the sums below it
        self._sizes: dict[int, int] = dict(enumerate(product.shape))
        self._next = d + 2  # d stands for the width, d + 1 for the inner width, more for what is summed inside
        positions = list(range(d))
        averaged: tuple[int, ...] = ()
        for x in reversed(chain):
            if x.op == "moment":
                averaged = (d,)
            else:
                positions.pop(x.attr)
        self._width = d
        self._out = positions + [d] * (product.width is not None and not averaged)
        self._out += [d + 1] * (product.inner is not None)
        self._absorbed = absorbed
        self._inside: set[int] = set()  # indices that an absorbed sum brings
        operands: list[Node] = []
        self._terms = self._expanded(product, tuple(range(d)), (d,), (d + 1,), _Term(averaged=averaged), operands)
        self.operands = tuple(operands)
        self._clear = [overruled([operands[f.operand] for f in t.factors]) for t in self._terms]
        self._plans: dict[tuple[tuple[int, ...], ...], Callable[[Sequence[Any]], Any]] = {}
        self._needs: dict[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], int]] = {}
        self._largest = 0.0

    def _expanded(
        self,
        x: Node,
        index: tuple[int, ...],
        width: tuple[int, ...],
        inner: tuple[int, ...],
        term: _Term,
        operands: list[Node],
    ) -> list[_Term]:
        """The term times a node whose axes have the given indices: several where it is a sum that is multiplied out."""
        if x.op == "mul":
            terms = [term]
            for a, k in zip(x.args, x.attr, strict=True):
                base, places = a, index if a.shape else ()
                if a.op == "view":
                    base, places = a.args[0], tuple([index[p] for p in a.attr])
                terms = [new for t in terms for new in self._times(base, k, places, width, inner, t, operands)]
            return terms
        return self._times(x, 1, index if x.shape else (), width, inner, term, operands)

    def _times(
        self, x: Node, k: int, index: tuple[int, ...], width: Any, inner: Any, term: _Term, operands: list[Node]
    ) -> list[_Term]:
        if k == 1 and self._absorbed(x):
            if x.op == "add":
                parts = [
                    self._expanded(
                        a, index if a.shape else (), width, inner, replace(term, scale=term.scale * float(c)), operands
                    )
                    for c, a in zip(x.attr, x.args, strict=True)
                ]
                return [t for found in parts for t in found]
            (y,) = x.args
            fresh, self._next = self._next, self._next + 1
            if x.op == "moment":
                return self._expanded(
                    y, index, (fresh,), inner, replace(term, averaged=(*term.averaged, fresh)), operands
                )
            self._sizes[fresh] = y.shape[x.attr]
            self._inside.add(fresh)
            summed = (*index[: x.attr], fresh, *index[x.attr :])
            return self._expanded(y, summed, width, inner, replace(term, summed=(*term.summed, fresh)), operands)
        index += width * (x.width is not None) + inner * (x.inner is not None)
        if x not in operands:
            operands.append(x)
        halves = (1,) if k == 1 else (k - k // 2, k // 2)  # x^4 is the inner product of x^2 with itself
        return [replace(term, factors=(*term.factors, *[_Factor(operands.index(x), e, index) for e in halves]))]

    def __call__(self, *arrays: Any) -> Any:
        """The node's array."""
        shapes = tuple([a.shape for a in arrays])
        plan = self._plans.get(shapes)
        if plan is None:
            plan = self._plans[shapes] = self._plan(shapes)
        return plan(arrays)

    def needs(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], int]:
        """The shape of the result for operands of these shapes, and the entries of the largest array on the way."""
        if shapes not in self._plans:
            self._plans[shapes] = self._plan(shapes)
        return self._needs[shapes]

    @property
    def powers(self) -> list[int]:
        """To which power every operand enters, where one product is summed.

        Raises:
            ValueError: several products are.
        """
        (term,) = self._terms
        return [sum([f.exponent for f in term.factors if f.operand == i]) for i in range(len(self.operands))]

    @property
    def averages(self) -> bool:
        """Is it a Moment of one product, summed inside or outside of it or not at all?"""
        return len(self._terms) == 1 and bool(self._terms[0].averaged)

    def inside(self, arrays: Sequence[Any]) -> int:
        """How many terms are summed in one sample."""
        return math.prod(self._extents(arrays)[i] for i in range(self._width) if i not in self._out)

    def samples(self, arrays: Sequence[Any], entries: Sequence[np.ndarray]) -> np.ndarray:
        """What some entries are the means of, where it `averages`.

        Args:
            arrays: Of the operands.
            entries: For every axis of the result the positions, each of shape (E,).

        Returns:
            The products, of shape (E, *summed axes, width).
        """
        place = {p: entries[i] for i, p in enumerate(self._out)}
        extents = self._extents(arrays)
        summed = [p for p in range(self._width) if p not in self._out]
        product: Any = 1.0
        for f in self._terms[0].factors:
            a = np.asarray(arrays[f.operand])
            index: list[Any] = []
            for p, k in zip(f.positions, a.shape, strict=True):
                if p == self._width:
                    continue
                at = place[p] if p in place else np.arange(extents[p])
                at = at if k > 1 else np.zeros_like(at)
                j = summed.index(p) + 1 if p in summed else 0
                index.append(at.reshape([-1 if i == j else 1 for i in range(1 + len(summed))]))
            a = a if self._width in f.positions else a[..., None]
            product = product * raised(
                a[tuple(index)] if index else a.reshape([1] * (1 + len(summed)) + [-1]), f.exponent
            )
        shape = (len(entries[0]) if entries else 1, *[extents[p] for p in summed], np.shape(product)[-1])
        return np.asarray(np.broadcast_to(product, shape))

    def _extents(self, arrays: Sequence[Any]) -> dict[int, int]:
        extents = dict.fromkeys(range(self._width), 1)
        for f in self._terms[0].factors:
            for p, k in zip(f.positions, np.shape(arrays[f.operand]), strict=True):
                extents[p] = max(extents.get(p, 1), k)
        return extents

    def _plan(self, shapes: tuple[tuple[int, ...], ...]) -> Callable[[Sequence[Any]], Any]:
        self._largest = 0.0
        plans = [self._plan_of(t, clear, shapes) for t, clear in zip(self._terms, self._clear, strict=True)]
        extents: dict[int, int] = {}
        for f in [f for t in self._terms for f in t.factors]:
            for i, size in zip(f.positions, shapes[f.operand], strict=True):
                extents[i] = max(extents.get(i, 1), size)
        self._needs[shapes] = tuple([extents.get(i, 1) for i in self._out]), int(self._largest)
        if len(plans) == 1:
            return plans[0]

        def run(arrays: Sequence[Any]) -> Any:
            total = plans[0](arrays)
            for plan in plans[1:]:
                total = total + plan(arrays)
            return total

        return run

    def _plan_of(
        self, term: _Term, overruling: list[tuple[int, list[int]]], shapes: tuple[tuple[int, ...], ...]
    ) -> Callable[[Sequence[Any]], Any]:
        extents: dict[int, int] = {}
        for f in term.factors:
            for i, size in zip(f.positions, shapes[f.operand], strict=True):
                extents[i] = max(extents.get(i, 1), size)
        loads: list[Callable[[Sequence[Any]], Any]] = []
        terms: list[tuple[int, ...]] = []
        for f in term.factors:
            kept = tuple(sorted({i for i, size in zip(f.positions, shapes[f.operand], strict=True) if size > 1}))
            loads.append(_load(f, shapes[f.operand], kept))
            terms.append(kept)
        clear = [  # an exponential next to a kinked function of the same positions: see `overflow.py`
            (i, same) for i, zeros in overruling if (same := [j for j in zeros if terms[j] == terms[i]])
        ]
        keep = set(self._out)
        summed = [i for i in self._sizes if i not in keep and (i not in self._inside or i in term.summed)]
        scale = term.scale * float(math.prod([self._sizes[i] for i in summed if extents.get(i, 1) != self._sizes[i]]))
        for i in term.averaged:
            scale /= extents.get(i, 1)

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
            self._largest = max(self._largest, _size(result, extents))
            del alive[j]
            alive[i] = result
        ((last, left),) = alive.items()
        finish = _finish(left, self._out, scale)

        def run(arrays: Sequence[Any]) -> Any:
            values = [load(arrays) for load in loads]
            for i, zeros in clear:
                values[i] = cleared(values[i], [values[j] for j in zeros])
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
        return raised(x, k)

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
        names = {p: chr(97 + i) for i, p in enumerate(sorted({*a, *b}))}
        letters = ["".join([names[p] for p in t]) for t in (a, b, result)]
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


def contraction(node: Node, absorbed: Callable[[Node], bool] = lambda x: False) -> Contraction | None:
    """The fused form of a sum or Moment of a product (of sums of sums of it), or None where there is no product below.

    Args:
        node: A `sum` or `moment`; of a `mul`, possibly through further `sum`s.
        absorbed: Which Moments, sums and linear combinations among the factors are contracted with the rest.

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
    return Contraction(chain, x, absorbed) if chain and x.op == "mul" else None
