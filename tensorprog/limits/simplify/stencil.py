"""Sums of shifted copies of one array, as a convolution makes them: every copy is added from and to a slice.

Written out, a term is a product of masks with a pick along every axis: a new array for each pick, and as many passes over it.
Where the masks are the indicator of a box and the picks are shifts (or strides) within it, the term is
`out[box] += coefficient * base[shifted box]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tensorprog.language.attributes import Pick
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import encode
from tensorprog.limits.simplify.rebuild import as_it_is, rewritten

__all__ = ["Stencil", "with_diagonals_inside", "with_stencils"]

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
        self._needs: dict[tuple[tuple[int, ...], ...], list[tuple[int, ...] | None]] = {}
        self._passes = self._in_passes()

    def _in_passes(self) -> tuple[list[Move], list[Move], float] | None:
        """Shifts along some axes, then along the others, and a factor: if all of the first meet all of the second.

        The nine shifts of a 3 x 3 convolution are three and three.
        """
        whole = tuple([((0, n), 0, 1) for n in self.shape])
        terms = [tuple(zip(t.to, t.start, t.step, strict=True)) for t in self.terms]
        weights, operands = {t.weight for t in self.terms}, {t.operand for t in self.terms}
        for k, c in self.plain:  # in place
            terms.append(whole)
            weights.add(c)
            operands.add(k)
        if len(weights) > 1 or len(operands) > 1 or len(set(terms)) < len(terms):
            return None
        axes = range(len(self.shape))
        lead = next((i for i in axes if len({t[i] for t in terms}) > 1), None)
        if lead is None:
            return None
        first = [i for i in axes if len({(t[lead], t[i]) for t in terms}) == len({t[lead] for t in terms})]
        second = [i for i in axes if i not in first]
        parts = [sorted({tuple([t[i] for i in side]) for t in terms}) for side in (first, second)]
        if not second or len(parts[0]) * len(parts[1]) != len(terms) or min(map(len, parts)) < 2:
            return None
        return _moves(first, parts[0], self.shape), _moves(second, parts[1], self.shape), weights.pop()

    def encoded(self) -> bytes:
        """What digests know of it."""
        return self._encoded

    def __call__(self, *arrays: Any) -> Any:
        """The sum; arrays (*axes, ...) with all axes, of size 1 where they do not vary."""
        n = len(self.shape)
        shapes = tuple([a.shape[:n] for a in arrays])
        needs = self._needs.get(shapes)
        if needs is None:
            wanted = [self.shape_of(k, a) for k, a in enumerate(arrays)]
            needs = self._needs[shapes] = [None if w == a.shape[:n] else w for w, a in zip(wanted, arrays, strict=True)]
        full = [a if w is None else np.broadcast_to(a, (*w, *a.shape[n:])) for a, w in zip(arrays, needs, strict=True)]
        if self._passes is not None:
            first, second, weight = self._passes
            sizes = [k if i in first[0].axes else full[0].shape[i] for i, k in enumerate(self.shape)]
            out = _shifted(_shifted(full[0], first, sizes), second, self.shape)
            if weight != 1:
                out *= weight
            return out
        trailing = full[0].shape[n:] if len(full) == 1 else np.broadcast_shapes(*[a.shape[n:] for a in full])
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
        for k, _ in self.plain if self._passes is not None else ():
            if k == operand:
                wanted = list(self.shape)
        for t in self.terms:
            if t.operand == operand:
                for axis, ((low, high), start, step) in enumerate(zip(t.to, t.start, t.step, strict=True)):
                    if a.shape[axis] == 1:
                        wanted[axis] = max(wanted[axis], start + step * (high - low - 1) + 1)
        return tuple(wanted)


@dataclass(frozen=True)
class Move:
    """A shift along some axes.

    Attributes:
        axes: Those.
        whole: Does it go everywhere?
        to: Where it is added.
        source: From where it is read.
    """

    axes: tuple[int, ...]
    whole: bool
    to: Slices
    source: Slices


def _moves(axes: Sequence[int], shifts: Sequence[tuple[Any, ...]], shape: tuple[int, ...]) -> list[Move]:
    """Shifts along some axes; one that goes everywhere is first, if there is such."""
    found = []
    for shift in shifts:
        to, source = [slice(None)] * len(shape), [slice(None)] * len(shape)
        for i, ((low, high), start, step) in zip(axes, shift, strict=True):
            to[i], source[i] = slice(low, high), slice(start, start + step * (high - low - 1) + 1, step)
        whole = all([(low, high) == (0, shape[i]) for i, ((low, high), _, _) in zip(axes, shift, strict=True)])
        found.append(Move(tuple(axes), whole, tuple(to), tuple(source)))
    return sorted(found, key=lambda m: not m.whole)


def _shifted(x: np.ndarray, moves: Sequence[Move], sizes: Sequence[int]) -> np.ndarray:
    """The sum of shifted copies, with axes of these sizes and others behind."""
    shape = (*sizes, *x.shape[len(sizes) :])
    one, *others = moves
    if one.whole:
        out = np.empty(shape, x.dtype)
        out[...] = x[one.source]
    else:
        out, others = np.zeros(shape, x.dtype), list(moves)
    for m in others:
        target = out[m.to]
        np.add(target, x[m.source], out=target)
    return out


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


def with_diagonals_inside(outputs: Sequence[Node]) -> list[Node]:
    """The outputs, diagonals of what is picked along all their axes alike as picks of the diagonal.

    A variance after a convolution is a sum of nine picks of covariances, of which the diagonal alone is looked at: as shifts of a
    diagonal they are a stencil.
    """
    return rewritten(outputs, _diagonal_first, as_it_is)


def _diagonal_first(x: Node, args: Sequence[Node]) -> Node | None:
    if x.op != "view" or len(set(x.attr)) == len(x.attr):
        return None
    (y,) = args
    picks: dict[int, tuple[int, ...]] = {}
    while y.op == "pick" and y.attr.axis not in picks:
        picks[y.attr.axis] = y.attr.positions
        y = y.args[0]
    alike = {p: {picks.get(i) for i, q in enumerate(x.attr) if q == p} for p in x.attr}
    if not picks or any(len(found) > 1 for found in alike.values()):
        return None
    shape = list(x.shape)
    for i, p in enumerate(x.attr):
        shape[p] = y.shape[i]
    out = Node("view", (y,), x.attr, tuple(shape), x.width, x.inner)
    for p, (index,) in sorted(alike.items()):
        if index is not None:
            shape[p] = len(index)
            out = Node("pick", (out,), Pick(p, index), tuple(shape), x.width, x.inner)
    return out


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
    weight = shifted[0].weight
    if any(c != weight for c in [*[t.weight for t in shifted], *[c for _, c in plain]]):
        weight = 1.0
    else:  # one number for all is multiplied last: other multiples of the sum share it
        shifted, plain = [replace(t, weight=1.0) for t in shifted], [(k, 1.0) for k, _ in plain]
    shifted.sort(key=lambda t: t.key)
    out = Node("stencil", tuple(operands), Stencil(x.shape, shifted, sorted(plain)), x.shape, x.width, x.inner)
    return out if weight == 1 else Node("add", (out,), (weight,), x.shape, x.width, x.inner)


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
