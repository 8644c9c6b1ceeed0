"""Sums of shifted copies of one array, as a convolution makes them: every copy is added from and to a slice.

Written out, a term is a product of masks with a pick along every axis: a new array for each pick, and as many passes over it.
Where the masks are the indicator of a box and the picks are shifts (or strides) within it, the term is
`out[box] += coefficient * base[shifted box]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import encode
from tensorprog.limits.simplify.rebuild import as_it_is, rewritten

__all__ = ["Stencil", "with_stencils"]

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Term:
    """One shifted copy.

    Attributes:
        operand: Which operand is shifted.
        to: Where it is added.
        start: From where on it is read, along each axis.
        step: With which stride.
        weight: Times what.
    """

    operand: int
    to: tuple[tuple[int, int], ...]
    start: tuple[int, ...]
    step: tuple[int, ...]
    weight: float

    @property
    def key(self) -> tuple[Any, ...]:
        """All of it, for digests."""
        return (self.operand, *[x for pair in self.to for x in pair], *self.start, *self.step, self.weight)


class Stencil:
    """A sum of shifted copies of some operands, and of multiples of others.

    Args:
        shape: The sizes of the axes.
        terms: The shifted copies.
        plain: Operand and factor of the others.
    """

    def __init__(self, shape: tuple[int, ...], terms: Sequence[Term], plain: Sequence[tuple[int, float]]) -> None:
        self.shape, self.terms, self.plain = shape, tuple(terms), tuple(plain)
        self._encoded = encode(("stencil", shape, tuple([t.key for t in terms]), tuple(plain)))
        self._moves = [(t, *_slices(t)) for t in self.terms]
        self._common = self.terms[0].weight if len({t.weight for t in self.terms}) == 1 else None

    def encoded(self) -> bytes:
        """What digests know of it."""
        return self._encoded

    def __call__(self, *arrays: Any) -> Any:
        """The sum; arrays (*axes, ...) with all axes, of size 1 where they do not vary."""
        n = len(self.shape)
        trailing = np.broadcast_shapes(*[a.shape[n:] for a in arrays])
        full = [np.broadcast_to(a, (*self.shape_of(k, a), *a.shape[n:])) for k, a in enumerate(arrays)]
        out = np.zeros((*self.shape, *trailing), np.result_type(*arrays))
        for t, to, source in self._moves:
            part = full[t.operand][source]
            if self._common is None and t.weight != 1:
                part = part * t.weight
            target = out[to]
            np.add(target, part, out=target)
        if self._common not in (None, 1.0):
            out *= self._common
        for k, c in self.plain:
            out += arrays[k] if c == 1 else arrays[k] * c
        return out

    def shape_of(self, operand: int, a: Any) -> tuple[int, ...]:
        """The sizes an operand's axes must have to be sliced."""
        n = len(self.shape)
        wanted = list(a.shape[:n])
        for t in self.terms:
            if t.operand == operand:
                for axis, ((low, high), start, step) in enumerate(zip(t.to, t.start, t.step, strict=True)):
                    if a.shape[axis] == 1:
                        wanted[axis] = max(wanted[axis], start + step * (high - low - 1) + 1)
        return tuple(wanted)


def _slices(t: Term) -> tuple[Slices, Slices]:
    to = tuple([slice(low, high) for low, high in t.to])
    source = tuple(
        [
            slice(start, start + step * (high - low - 1) + 1, step)
            for (low, high), start, step in zip(t.to, t.start, t.step, strict=True)
        ]
    )
    return to, source


def with_stencils(outputs: Sequence[Node]) -> list[Node]:
    """The outputs, sums of shifted copies of one array as `stencil` nodes."""
    nodes = topological(outputs)
    if not any(x.op == "pick" and (x.width or x.inner) for x in nodes):
        return list(outputs)
    uses = Counter([a for x in nodes for a in x.args])
    uses.update(outputs)
    inside = {a for x in nodes if x.op == "add" for a in x.args if a.op == "add" and uses[a] == 1}
    new: dict[Node, Node] = {}

    def rule(x: Node, args: Sequence[Node]) -> Node | None:
        new.update(zip(x.args, args, strict=True))
        return _stencil(x, inside, new) if x.op == "add" and x not in inside and x.shape else None

    return rewritten(outputs, rule, as_it_is)


def _stencil(x: Node, inside: set[Node], new: dict[Node, Node]) -> Node | None:
    terms: list[tuple[float, Node]] = []
    todo = [(1.0, x)]
    while todo:
        c, y = todo.pop()
        if y is x or (y.op == "add" and y in inside):
            todo += [(c * float(k), a) for k, a in zip(y.attr, y.args, strict=True)]
        else:
            terms.append((c, y))
    operands: list[Node] = []

    def place(y: Node) -> int:
        if y not in operands:
            operands.append(y)
        return operands.index(y)

    shifted, plain = [], []
    for c, y in terms:
        found = _shift(y, x.shape)
        if found is None:
            of, factor = _multiple(new[y])
            plain.append((place(of), c * factor))
        else:
            base, to, start, step, weight = found
            of, factor = _multiple(new[base])
            shifted.append(Term(place(of), to, start, step, c * weight * factor))
    if len(shifted) < 2:
        return None
    shifted.sort(key=lambda t: t.key)
    return Node("stencil", tuple(operands), Stencil(x.shape, shifted, plain), x.shape, x.width, x.inner)


def _multiple(y: Node) -> tuple[Node, float]:
    """What a number is multiplied by, and the number."""
    (a, *others) = y.args if y.op == "add" else [y]
    if others or a is y or (a.shape, a.width, a.inner) != (y.shape, y.width, y.inner):
        return y, 1.0
    return a, float(y.attr[0])


def _shift(y: Node, shape: tuple[int, ...]) -> tuple[Node, Any, Any, Any, float] | None:
    """(base, to, start, step, weight) where y is a box of a shifted base, with a pick at least."""
    masks: list[Node] = []
    if y.op == "mul":
        others: list[Node] = []
        for a, k in zip(y.args, y.attr, strict=True):
            known = (a.args[0] if a.op == "view" else a).op == "constant" and not (a.width or a.inner)
            if k != 1:
                return None
            (masks if known else others).append(a)
        if len(others) != 1:
            return None
        (y,) = others
    picks: dict[int, tuple[int, ...]] = {}
    while y.op == "pick" and y.attr.axis not in picks:
        picks[y.attr.axis] = y.attr.positions
        y = y.args[0]
    if not picks or len(y.shape) != len(shape):
        return None
    found = _box(masks, shape)
    if found is None:
        return None
    box, weight = found
    start, step = [], []
    for axis, (low, high) in enumerate(box):
        index = picks.get(axis, tuple(range(shape[axis])))[low:high]
        stride = index[1] - index[0] if len(index) > 1 else 1
        if stride < 1 or index != tuple(range(index[0], index[0] + stride * len(index), stride)):
            return None
        start.append(index[0])
        step.append(stride)
    return y, box, tuple(start), tuple(step), weight


def _box(masks: Sequence[Node], shape: tuple[int, ...]) -> tuple[tuple[tuple[int, int], ...], float] | None:
    """The box on which a product of masks is one number, if it is 0 elsewhere."""
    box = [(0, k) for k in shape]
    weight = 1.0
    for m in masks:
        index = m.attr if m.op == "view" else tuple(range(len(shape)))
        values = np.asarray((m.args[0] if m.op == "view" else m).attr, dtype=float)
        if values.ndim == 0:
            weight *= float(values)
            continue
        if len(set(index)) < len(index) or values.ndim != len(index):
            return None
        lengths = []
        for i, axis in enumerate(index):
            where = np.flatnonzero(np.any(values != 0, axis=tuple(j for j in range(values.ndim) if j != i)))
            if not len(where) or where[-1] - where[0] + 1 != len(where):
                return None
            low, high = int(where[0]), int(where[-1]) + 1
            if values.shape[i] != shape[axis]:
                return None
            box[axis] = (max(box[axis][0], low), min(box[axis][1], high))
            lengths.append(len(where))
        number = values[values != 0]
        if len(number) != prod(lengths) or not np.all(number == number[0]):
            return None
        weight *= float(number[0])
    return None if any(low >= high for low, high in box) else (tuple(box), weight)
