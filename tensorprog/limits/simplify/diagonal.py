"""Scalars are computed where they are looked at: of all pairs of positions those that something depends on.

The readout of a flattened image has one vector for each position, independent of each other: E[dx_s dx_t] = 0 for s != t, and
so it stays through a network that shifts both positions alike. A contraction over s and t of such a product is one over s of
its diagonal; seen from there, every other factor is wanted on the diagonal only. For an image of P positions that saves a
factor P in time and memory. A stride that leaves one position asks for the pairs of positions under its window, likewise.

Three passes: where an array may be different from 0, bottom up; which of its entries are looked at, top down; and bottom up the
same scalars with every axis left out whose position is known from that of another axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.limits.simplify.rebuild import rebuilt
from tensorprog.limits.simplify.where import Where, of_array

__all__ = ["on_diagonals"]

FEW = 2
"""Positions of an axis are held alone if they are at most one in so many."""
ELEMENTWISE = ("add", "mul", "fn", "dual", "gauss", "guard")


def on_diagonals(outputs: Sequence[Node]) -> list[Node]:
    """The same scalars, contractions of what vanishes off a diagonal carried out on the diagonal.

    Args:
        outputs: Scalar programs.

    Example:
        >>> import tensorprog as tp
        >>> a = tp.array([[2.0, 0.0], [0.0, 3.0]], axes=("i", "j")) * tp.array([[5.0, 7.0], [8.0, 9.0]], axes=("i", "j"))
        >>> on_diagonals([tp.sum(a).node])[0].attr
        37.0
    """
    nodes = topological(outputs)
    off = any(x.op == "constant" and isinstance(x.attr, np.ndarray) and x.attr.ndim > 1 for x in nodes)
    if not off and not any(x.op == "view" and len(set(x.attr)) < len(x.attr) for x in nodes):
        return list(outputs)
    return _Pass(outputs, nodes).outputs


@dataclass(frozen=True)
class _Form:
    """How an array is held.

    Attributes:
        rows: Axis that stays, to those of its positions that are held; all of an axis that is missing.
        left_out: Axis that is left out, to the axis that its position is known from.
        partner: Axis that is left out, to its position for each of those that are held of the other axis.
        fixed: Axis that is left out, to the one position that is held.
    """

    rows: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    left_out: Mapping[int, int] = field(default_factory=dict)
    partner: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    fixed: Mapping[int, int] = field(default_factory=dict)

    @property
    def gone(self) -> set[int]:
        """The axes that are left out."""
        return {*self.left_out, *self.fixed}

    def coupled(self, i: int, j: int) -> bool:
        """Is the position of one axis known from that of the other?"""
        return self.left_out.get(i) == j or self.left_out.get(j) == i

    def with_axis(self, axis: int, positions: tuple[int, ...]) -> _Form:
        """With one axis more, of which some positions are held: all, if there are none."""
        rows, partner = [{i + (i >= axis): r for i, r in found.items()} for found in (self.rows, self.partner)]
        left_out = {j + (j >= axis): i + (i >= axis) for j, i in self.left_out.items()}
        fixed = {i + (i >= axis): p for i, p in self.fixed.items()}
        if len(positions) == 1:
            fixed[axis] = positions[0]
        elif positions:
            rows[axis] = positions
        return _Form(rows, left_out, partner, fixed)


WHOLE = _Form()


@dataclass(frozen=True)
class _Terms:
    """The terms of a sum that may be different from 0.

    Attributes:
        positions: Of the axis that is summed over.
        one_for: An axis of the result for each of whose positions there is one term at most, which `positions` then are.
        there: Whether there is one.
    """

    positions: tuple[int, ...]
    one_for: int | None = None
    there: np.ndarray | None = None


class _Pass:
    def __init__(self, outputs: Sequence[Node], nodes: Sequence[Node]) -> None:
        self._nonzero: dict[Node, Where] = {}
        self._few: dict[Node, _Terms] = {}
        for x in nodes:
            self._nonzero[x] = self._derived(x)
            if x.op == "sum" and x.args[0].shape:
                found = self._terms(x)
                if found is not None:
                    self._few[x] = found
        self._seen: dict[Node, list[Where]] = {x: [Where(x.shape)] for x in outputs}
        self._apart: dict[Node, set[tuple[int, int]]] = {}
        self._nothing: set[Node] = set()
        self._zeros: dict[Node, list[Node]] = {}  # what to multiply by, of what is held without its zeros
        self._form: dict[Node, _Form] = {}
        for x in reversed(nodes):
            self._look(x)
        self._held: dict[Node, Node] = {}
        for x in nodes:
            self._held[x] = self._built(x)
        self.outputs = [self._as(x, WHOLE) for x in outputs]

    # ---- where it vanishes ----
    def _derived(self, x: Node) -> Where:
        parts = [self._nonzero[a] for a in x.args]
        match x.op:
            case "constant" if isinstance(x.attr, np.ndarray) and x.attr.ndim == len(x.shape):
                return of_array(x.attr)
            case "mul":
                factors = [p for a, p, k in zip(x.args, parts, x.attr, strict=True) if a.shape and k > 0]
                return Where.all_of(factors, x.shape)
            case "add" if all(a.shape for a in x.args):
                return Where.any_of(parts, x.shape)
            case "view":
                return parts[0].viewed(x.attr, x.shape)
            case "take":
                return parts[0].at(*x.attr)
            case "sum":
                return parts[0].without(x.attr)
            case "pick":
                return parts[0].picked(*x.attr)
            case "stack":
                return Where.any_of([p.inserted(x.attr, len(parts), k) for k, p in enumerate(parts)], x.shape)
        return Where(x.shape)

    def _terms(self, x: Node) -> _Terms | None:
        """The terms of a sum that may be different from 0, if these are fewer than all."""
        y, axis = self._nonzero[x.args[0]], x.attr
        if y.nowhere:
            return None
        for j in range(len(y.shape)):
            if j != axis and (min(j, axis), max(j, axis)) in y.pairs:
                a = y.of(j, axis)
                if (a.sum(axis=1) <= 1).all():
                    return _Terms(tuple(a.argmax(axis=1).tolist()), j - (j > axis), np.asarray(a.any(axis=1)))
        return _Terms(tuple(np.flatnonzero(y.own[axis]).tolist())) if axis in y.own else None

    # ---- what is looked at ----
    def _look(self, x: Node) -> None:
        """Decides how a node is held, all that looks at it having been decided, and says what it looks at itself."""
        found = [w for w in self._seen.pop(x, []) if not w.nowhere]
        if not found or self._nonzero[x].nowhere:  # nobody looks, or all there is to see is 0
            self._nothing.add(x)
            self._form[x] = WHOLE
            return
        seen = self._cut(x, Where.any_of(found, x.shape))
        form = self._form[x] = self._chosen(seen, self._apart.pop(x, set()))
        for k, a in enumerate(x.args):
            if not a.shape:
                self._seen.setdefault(a, []).append(Where(()))
                continue
            below, source = self._below(x, k, seen)
            self._seen.setdefault(a, []).append(below)
            for i in range(len(a.shape)):
                for j in range(i + 1, len(a.shape)):
                    p, q = source[i], source[j]
                    if p is None or q is None or p == q or form.coupled(p, q):
                        continue
                    if (min(p, q), max(p, q)) in seen.pairs:
                        self._apart.setdefault(a, set()).add((i, j))  # entries that nobody looks at are not repeated

    def _cut(self, x: Node, seen: Where) -> Where:
        """Without the entries that are 0 anyway, where an axis can be left out then."""
        nonzero = self._nonzero[x]
        if x.op == "constant" or not any(not _known(seen, *p) for p in nonzero.pairs):
            return seen
        both = Where.all_of([seen, nonzero], x.shape)
        if not any(_known(both, *p) and not _known(seen, *p) for p in both.pairs):
            return seen
        masks: list[tuple[tuple[int, ...], np.ndarray]] = [((i,), a) for i, a in nonzero.own.items()]
        masks += nonzero.pairs.items()
        self._zeros[x] = [algebra.view(algebra.constant(a.astype(int)), places, x.shape) for places, a in masks]
        return both

    def _below(self, x: Node, k: int, seen: Where) -> tuple[Where, list[int | None]]:
        """What x looks at in an operand, and for every axis of that the axis of x that it becomes."""
        a = x.args[k]
        axes: list[int | None] = list(range(len(x.shape)))
        if x.op in ELEMENTWISE:
            masks = (
                []
                if x.op != "mul" or _is_mask(a)
                else [b for b, e in zip(x.args, x.attr, strict=True) if _is_mask(b) and e > 0]
            )
            return Where.all_of([seen, *[self._nonzero[b] for b in masks]], x.shape), axes
        match x.op:
            case "view":
                return seen.renamed(a.shape, x.attr), list(x.attr)
            case "take":
                axis, position = x.attr
                return seen.inserted(axis, a.shape[axis], position), [*axes[:axis], None, *axes[axis:]]
            case "pick":
                axis, index = x.attr
                return seen.scattered(axis, index, a.shape[axis]), axes
            case "stack":
                return seen.at(x.attr, k), [p for p in axes if p != x.attr]
            case "sum":
                axis, few = x.attr, self._few.get(x)
                size = a.shape[axis] if few is None else len(few.positions)
                if few is None or few.one_for is None:
                    source, found = [*axes[:axis], None, *axes[axis:]], seen.inserted(axis, size)
                else:  # a diagonal of what is picked
                    source = [*axes[:axis], few.one_for, *axes[axis:]]
                    found = seen.renamed((*x.shape[:axis], size, *x.shape[axis:]), source)
                return found if few is None else found.scattered(axis, few.positions, a.shape[axis]), source
        return Where(a.shape), [None] * len(a.shape)

    @staticmethod
    def _chosen(seen: Where, apart: set[tuple[int, int]]) -> _Form:
        """Leaves out the axes whose positions follow from those of others."""
        there = {i: tuple(np.flatnonzero(a).tolist()) for i, a in seen.own.items()}
        if seen.pairs or there:  # else an axis of one position says what else is seen along it
            there |= {i: (0,) for i, n in enumerate(seen.shape) if n == 1}
        rows = {i: found for i, found in there.items() if 1 < len(found) and FEW * len(found) <= seen.shape[i]}
        left_out: dict[int, int] = {}
        partner: dict[int, tuple[int, ...]] = {}
        for i, j in sorted(seen.pairs.keys() - apart):
            for stays, goes in ((i, j), (j, i)):
                if {stays, goes} & left_out.keys() or goes in left_out.values():
                    continue
                a = seen.of(stays, goes)
                if (a.sum(axis=1) <= 1).all():
                    left_out[goes] = stays
                    partner[goes] = tuple(a[list(rows.get(stays, range(len(a))))].argmax(axis=1).tolist())
                    break
        for j in left_out:
            rows.pop(j, None)
        return _Form(rows, left_out, partner, {i: found[0] for i, found in there.items() if len(found) == 1})

    # ---- the same on what is held ----
    def _built(self, x: Node) -> Node:
        form = self._form[x]
        if x in self._nothing:
            return algebra.constant(0, x.shape, x.width, x.inner)
        if x.op in ELEMENTWISE:
            args = [self._as(a, form) if a.shape else self._held[a] for a in x.args]
            if form == WHOLE and all(a is b for a, b in zip(args, x.args, strict=True)):
                return x
            return rebuilt(x, args, _held_shape(x.shape, form))
        if x.op == "sum" and x.args[0].shape:
            few = self._few.get(x, _Terms(()))
            if few.one_for is not None:
                return self._one_term(x, few, form)
            below = form.with_axis(x.attr, few.positions)
            y = self._as(x.args[0], below)
            return y if x.attr in below.fixed else algebra.sum_axis(y, x.attr - sum(j < x.attr for j in form.gone))
        if x.op in ("view", "take", "pick"):
            (y,) = x.args
            if not y.shape or (self._held[y] is y and self._form[y] == WHOLE):
                whole = x if self._held[y] is y else rebuilt(x, [self._held[y]])
                return _sampled(_of_equal_positions(whole) if whole.op == "view" else whole, form)
            return algebra.mul([_sampled(_structural(x, part), form) for part in self._factors(y)])
        args = [self._as(a, WHOLE) if a.shape else self._held[a] for a in x.args]
        return _sampled(x if all(a is b for a, b in zip(args, x.args, strict=True)) else rebuilt(x, args), form)

    def _one_term(self, x: Node, few: _Terms, form: _Form) -> Node:
        """The one term that there is, or 0."""
        assert few.one_for is not None and few.there is not None
        axis, index, one = x.attr, list(range(len(x.shape))), few.one_for
        index.insert(axis, one)
        parts = [_view(algebra.pick(y, axis, few.positions), index, x.shape) for y in self._factors(x.args[0])]
        if not few.there.all():
            parts.append(algebra.view(algebra.constant(few.there.astype(int)), (one,), x.shape))
        return algebra.mul([_sampled(y, form) for y in parts])

    def _as(self, x: Node, form: _Form) -> Node:
        """An operand, held in another way: what is not held is not looked at, and may be anything."""
        if self._form[x] == form:
            return self._held[x]
        return algebra.mul([_sampled(y, form) for y in self._factors(x)])

    def _factors(self, x: Node) -> list[Node]:
        """The whole array, as a product: what is held, and where there are zeros."""
        return [_spread(self._held[x], x.shape, self._form[x]), *self._zeros.get(x, ())]


def _of_equal_positions(x: Node) -> Node:
    """A view of inner products on a diagonal: those of equal positions, which are known as such."""
    (y,) = x.args
    index = list(x.attr)
    if y.op != "data" or len(set(index)) == len(index):
        return x
    while len(set(index)) < len(index):
        i, j = next((i, j) for i in range(len(index)) for j in range(i + 1, len(index)) if index[i] == index[j])
        y = _data(y, i, j)
        del index[j]
    return _view(y, index, x.shape)


def _structural(x: Node, y: Node) -> Node:
    """A view, take or pick of another array."""
    return _view(y, x.attr, x.shape) if x.op == "view" else algebra.applied(x, [y])


def _known(w: Where, i: int, j: int) -> bool:
    """Is the position of one axis known from that of the other?"""
    a = w.of(i, j)
    return bool((a.sum(axis=1) <= 1).all() or (a.sum(axis=0) <= 1).all())


def _is_mask(x: Node) -> bool:
    """Numbers, whose zeros are zeros whatever they are multiplied by."""
    return bool(x.shape) and (x.op == "constant" or (x.op == "view" and x.args[0].op == "constant"))


def _held_shape(shape: tuple[int, ...], form: _Form) -> tuple[int, ...]:
    sizes = [len(form.rows[i]) if i in form.rows else n for i, n in enumerate(shape)]
    return tuple([n for i, n in enumerate(sizes) if i not in form.gone])


def _spread(y: Node, shape: tuple[int, ...], form: _Form) -> Node:
    """The array of which y is held, repeated along the axes that are left out."""
    stay = [i for i in range(len(shape)) if i not in form.gone]
    for k, i in enumerate(stay):
        if i in form.rows:
            place = {r: p for p, r in enumerate(form.rows[i])}
            y = algebra.pick(y, k, [place.get(r, 0) for r in range(shape[i])])
    return _view(y, stay, shape)


def _sampled(y: Node, form: _Form) -> Node:
    """What is held of an array."""
    if form == WHOLE:
        return y
    for axis, position in sorted(form.fixed.items(), reverse=True):
        y = algebra.take(y, axis, position)
    places = [i for i in range(len(y.shape) + len(form.fixed)) if i not in form.fixed]  # the axes that are left in y
    for j, i in form.left_out.items():
        rows = form.rows.get(i, tuple(range(y.shape[places.index(i)])))
        if y.op == "data" and form.partner[j] == rows and y.shape[places.index(i)] == y.shape[places.index(j)]:
            a, b = sorted((places.index(i), places.index(j)))
            y = _data(y, a, b)
            places[a] = i
            del places[b]
    for axis, index in sorted({**form.rows, **form.partner}.items()):
        if axis in places:
            y = algebra.pick(y, places.index(axis), index)
    shape = {form.left_out.get(axis, axis): n for axis, n in zip(places, y.shape, strict=True)}
    order = sorted(shape)
    return _view(y, [order.index(form.left_out.get(axis, axis)) for axis in places], [shape[k] for k in order])


def _view(y: Node, index: Sequence[int], shape: Sequence[int]) -> Node:
    """A view; of a scalar that is spread over axes, the scalar over those of the result."""
    if y.op in ("add", "mul") and not any(a.shape for a in y.args):
        return algebra.rebuild(y, y.args, tuple(shape))
    return algebra.view(y, index, shape)


def _data(x: Node, i: int, j: int) -> Node:
    """Inner products of equal positions only; the labels of the full array's axes say which are equal."""
    labels = list(range(len(x.shape)) if x.attr.labels is None else x.attr.labels)
    a, b = [list(dict.fromkeys(labels))[k] for k in (i, j)]
    merged = tuple([a if label == b else label for label in labels])
    return Node("data", (), x.attr._replace(labels=merged), x.shape[:j] + x.shape[j + 1 :], x.width, x.inner)
