"""Scalars that vanish off a diagonal, or are seen on it alone, are computed on it alone.

The readout of a flattened image has one vector for each position, independent of each other: E[dx_s dx_t] = 0 for s != t, and
so it stays through a network that shifts both positions alike. A contraction over s and t of such a product is one over s of
its diagonal; seen from there, every other factor is wanted on the diagonal only. For an image of P positions that saves a
factor P in time and memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.limits.rebuild import rebuilt

__all__ = ["on_diagonals"]

Pair = tuple[int, int]


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
    pass_ = _Pass()
    for x in nodes:
        pass_.visit(x)
    return [pass_.new[x] for x in outputs]


class _Pass:
    def __init__(self) -> None:
        self.new: dict[Node, Node] = {}
        self._zero: dict[Node, _Zeros] = {}
        self._restricted: dict[tuple[Node, int, int], Node] = {}
        self._opened: dict[tuple[Node, int, int], Node | None] = {}

    def visit(self, x: Node) -> None:
        """Rebuilds a node whose operands have been visited."""
        args = [self.new[a] for a in x.args]
        if x.op == "sum" and args[0].shape:
            (y,) = args
            partner = next((i + j - x.attr for i, j in self.zero(y) if x.attr in (i, j)), None)
            if partner is not None:
                i, j = sorted((partner, x.attr))
                self.new[x] = self.restricted(y, i, j)  # has the axis i; the one that is left stands where it stood
                if partner > x.attr:
                    order = list(range(len(x.shape)))
                    moved = order.pop(i)
                    order.insert(partner - 1, moved)
                    self.new[x] = algebra.transpose(self.new[x], order)
                return
        if x.op == "view" and len(set(x.attr)) < len(x.attr):
            (y,), index = args, list(x.attr)
            while repeated := next(((i, j) for j in range(len(index)) for i in range(j) if index[i] == index[j]), None):
                y = self.restricted(y, *repeated)
                index.pop(repeated[1])
            self.new[x] = algebra.view(y, index, x.shape)
            return
        y = x if all(a is b for a, b in zip(args, x.args, strict=True)) else rebuilt(x, args)
        if y.op == "mul" and len(y.shape) > 1:
            self.zero(y)
            if self._zero[y].everywhere:  # masks that do not meet
                y = algebra.constant(0, y.shape)
        self.new[x] = y

    # ---- where it vanishes ----
    def zero(self, x: Node) -> frozenset[Pair]:
        """The pairs of axes off whose diagonal a scalar vanishes."""
        for y in topological([x], lambda y: () if y in self._zero else y.args):
            if y not in self._zero:
                self._zero[y] = self._derive(y).settled()
        return self._zero[x].diagonals

    def _derive(self, x: Node) -> _Zeros:
        parts = [self._zero[a] for a in x.args]
        match x.op:
            case "constant":
                return _of_constant(x)
            case "mul":
                return _Zeros.of_product([p for a, p in zip(x.args, parts, strict=True) if a.shape], x.shape)
            case "add" if all(a.shape for a in x.args):
                return _Zeros.of_sum(parts, x.shape)
            case "view":
                return parts[0].renamed(dict(enumerate(x.attr)), x.shape)
            case "take" | "sum":
                axis = x.attr[0] if x.op == "take" else x.attr
                return parts[0].renamed({i: i - (i > axis) for i in range(len(x.args[0].shape)) if i != axis}, x.shape)
            case "pick":
                return parts[0].picked(*x.attr)
        return _Zeros(x.shape)

    # ---- on the diagonal ----
    def restricted(self, x: Node, i: int, j: int) -> Node:
        """x where its axes i < j are equal: axis i of the result; axis j is gone."""
        todo = [(x, i, j)]
        while todo:
            key = todo[-1]
            if key in self._restricted:
                todo.pop()
                continue
            missing = [k for k in self._needed(*key) if k not in self._restricted]
            if missing:
                todo.extend(missing)
            else:
                self._restricted[key] = self._restrict(*key)
                todo.pop()
        return self._restricted[x, i, j]

    def _needed(self, x: Node, i: int, j: int) -> list[tuple[Node, int, int]]:
        if x.op in ("add", "mul", "fn", "dual", "gauss", "guard"):
            return [(a, i, j) for a in x.args if a.shape]
        if x.op == "view":
            places = _places(x, i, j)
            return [(x.args[0], *places)] if places else []
        if x.op == "sum":
            return [(x.args[0], i + (i >= x.attr), j + (j >= x.attr))]
        if x.op == "pick":
            base, _ = _picks(x)
            if _picked_alike(x, i, j):
                return [(base, i, j)]
            return [(y, i, j)] if (y := self._along(x, i, j)) is not None else []
        return []

    def _along(self, x: Node, i: int, j: int) -> Node | None:
        """Picks that differ on two axes, carried out on the operands where that leads to a diagonal.

        That is where the array below, or what it is made of, vanishes off some blocks. Other picks would multiply on their way
        down where positions are repeated (an encoder-decoder has 3^depth of them); the whole array serves all of them, once.
        """
        key = x, i, j
        if key not in self._opened:
            base, _ = _picks(x)
            self.zero(base)  # and of what is below
            found = any(self._zero[a].labels for a in base.args) or (i, j) in self._zero[base].labels
            self._opened[key] = _opened(x) if found else None
        return self._opened[key]

    def _restrict(self, x: Node, i: int, j: int) -> Node:
        shape = x.shape[:j] + x.shape[j + 1 :]
        done = [self._restricted[key] for key in self._needed(x, i, j)]
        if x.op in ("add", "mul", "fn", "dual", "gauss", "guard"):
            remaining = iter(done)
            return rebuilt(x, [next(remaining) if a.shape else a for a in x.args], shape)
        if x.op == "view" and done:
            (y,) = done
            a, b = _places(x, i, j)  # type: ignore[misc]
            index = [p - (p > j) for k, p in enumerate(x.attr) if k != b]
            index[a] = i
            return algebra.view(y, index, shape)
        if x.op == "view" and not (i in x.attr and j in x.attr):  # broadcast along one of them
            return algebra.view(x.args[0], [i if p == j else p - (p > j) for p in x.attr], shape)
        if x.op == "sum":
            return algebra.sum_axis(done[0], x.attr - (j < x.attr))
        if x.op == "pick" and done:
            (y,) = done
            if not _picked_alike(x, i, j):
                return y
            for axis, positions in sorted(_picks(x)[1].items()):
                if axis != j:
                    y = algebra.pick(y, axis - (axis > j), positions)
            return y
        if x.op == "data":
            return _data(x, i, j)
        return algebra.view(x, [k if k < j else i if k == j else k - 1 for k in range(len(x.shape))], shape)


def _places(x: Node, i: int, j: int) -> Pair | None:
    """The axes of a view's operand that become i and j, in increasing order; None unless there is one for each."""
    found = [[k for k, p in enumerate(x.attr) if p == axis] for axis in (i, j)]
    if len(found[0]) == len(found[1]) == 1:
        a, b = found[0][0], found[1][0]
        return (a, b) if a < b else (b, a)
    return None


def _picks(x: Node) -> tuple[Node, dict[int, tuple[int, ...]]]:
    """What is under the picks, and the index along each axis."""
    picks: dict[int, tuple[int, ...]] = {}
    while x.op == "pick" and x.attr[0] not in picks:
        picks[x.attr[0]] = x.attr[1]
        x = x.args[0]
    return x, picks


def _picked_alike(x: Node, i: int, j: int) -> bool:
    """Are the same positions of two axes of one size picked?"""
    base, picks = _picks(x)
    return picks.get(i) == picks.get(j) and base.shape[i] == base.shape[j]


def _opened(x: Node) -> Node | None:
    """A pick carried out on the operands, where that may meet another pick there; None if there are none."""
    (y,) = x.args
    axis, index = x.attr
    if y.op == "pick":  # of another axis
        inner = _opened(y)
        return None if inner is None else algebra.pick(inner, axis, index)
    if y.op not in ("add", "mul"):
        return None
    return rebuilt(y, [algebra.pick(a, axis, index) if a.shape else a for a in y.args], x.shape)


def _data(x: Node, i: int, j: int) -> Node:
    """Inner products of equal positions only; the labels of the full array's axes say which are equal."""
    key = x.attr[:6]
    labels = list(x.attr[6]) if len(x.attr) > 6 else list(range(len(x.shape)))
    a, b = [list(dict.fromkeys(labels))[k] for k in (i, j)]
    merged = tuple([a if label == b else label for label in labels])
    return Node("data", (), (*key, merged), x.shape[:j] + x.shape[j + 1 :], x.width, x.inner)


@dataclass(frozen=True)
class _Zeros:
    """Where an array may be different from 0.

    Attributes:
        shape: Of the array.
        support: Axis to the positions where it may be; all, for an axis that is missing.
        labels: Pair of axes (i < j) to labels of the positions of both: it may be where these are equal.
    """

    shape: tuple[int, ...]
    support: Mapping[int, frozenset[int]] = field(default_factory=dict)
    labels: Mapping[Pair, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def diagonals(self) -> frozenset[Pair]:
        """The pairs of axes whose labels are the positions."""
        return frozenset(p for p, (a, b) in self.labels.items() if a == b == tuple(range(self.shape[p[0]])))

    @property
    def everywhere(self) -> bool:
        """Is it 0?"""
        return any(not own for own in self.support.values())

    def settled(self) -> _Zeros:
        """What labels say of the support; and labels that say no more than that positions are equal, as the positions."""
        support = dict(self.support)
        found = {}
        for (i, j), (a, b) in self.labels.items():
            both = {a[k] for k in support.get(i, range(len(a)))} & {b[k] for k in support.get(j, range(len(b)))}
            for axis, own in ((i, a), (j, b)):
                there = support.get(axis, frozenset(range(len(own))))
                left = frozenset(k for k in there if own[k] in both)
                if len(left) < len(own):
                    support[axis] = left
        for (i, j), (a, b) in self.labels.items():
            first = {a[k]: k for k in support.get(i, range(len(a)))}
            second = {b[k]: k for k in support.get(j, range(len(b)))}
            alone = len(first) == len(support.get(i, a)) and len(second) == len(support.get(j, b))
            diagonal = self.shape[i] == self.shape[j] and alone and first == second
            found[i, j] = (tuple(range(len(a))),) * 2 if diagonal else (a, b)
        single = {axis: own for axis, own in support.items() if len(own) == 1 < self.shape[axis]}
        for i in single:
            for j in single:
                if i < j and single[i] == single[j] and self.shape[i] == self.shape[j]:
                    found[i, j] = (tuple(range(self.shape[i])),) * 2
        return _Zeros(self.shape, support, found)

    @staticmethod
    def of_product(parts: Sequence[_Zeros], shape: tuple[int, ...]) -> _Zeros:
        """All factors have a say; of two that relate the same axes, one that makes them equal."""
        support: dict[int, frozenset[int]] = {}
        labels: dict[Pair, Any] = {}
        for p in parts:
            for axis, own in p.support.items():
                support[axis] = support[axis] & own if axis in support else own
            labels |= {k: v for k, v in p.labels.items() if k not in labels or k in p.diagonals}
        return _Zeros(shape, support, labels)

    @staticmethod
    def of_sum(parts: Sequence[_Zeros], shape: tuple[int, ...]) -> _Zeros:
        """What is true of all terms."""
        first, *others = [p for p in parts if not p.everywhere] or parts
        support = {
            axis: own.union(*[p.support[axis] for p in others])
            for axis, own in first.support.items()
            if all(axis in p.support for p in others)
        }
        labels: dict[Pair, Any] = {}
        for j in range(len(shape)):
            for i in range(j):
                known = first.labels.get((i, j))
                if known is None or any(p.labels.get((i, j)) != known for p in others):
                    known = _joint_labels([first, *others], i, j)
                if known is not None:
                    labels[i, j] = known
        return _Zeros(shape, support, labels)

    def renamed(self, to: Mapping[int, int], shape: tuple[int, ...]) -> _Zeros:
        """With axes elsewhere; what concerns those that are gone, or of size 1 and repeated, is forgotten."""
        to = {i: p for i, p in to.items() if self.shape[i] == shape[p]}
        support: dict[int, frozenset[int]] = {}
        for axis, own in self.support.items():
            if axis in to:
                support[to[axis]] = support.get(to[axis], own) & own
        labels = {}
        for (i, j), (a, b) in self.labels.items():
            if i in to and j in to and to[i] != to[j]:
                labels[min(to[i], to[j]), max(to[i], to[j])] = (a, b) if to[i] < to[j] else (b, a)
        return _Zeros(shape, support, labels)

    def picked(self, axis: int, index: tuple[int, ...]) -> _Zeros:
        """Of some positions of an axis."""
        support = dict(self.support)
        if axis in support:
            support[axis] = frozenset(k for k, p in enumerate(index) if p in support[axis])
        labels = {}
        for (i, j), (a, b) in self.labels.items():
            a, b = [tuple([x[p] for p in index]) if k == axis else x for k, x in ((i, a), (j, b))]
            labels[i, j] = a, b
        return _Zeros((*self.shape[:axis], len(index), *self.shape[axis + 1 :]), support, labels)


def _joint_labels(parts: Sequence[_Zeros], i: int, j: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Labels of two axes that hold for all terms of a sum: what any of them relates is one class; None for a single class."""
    n, m = parts[0].shape[i], parts[0].shape[j]
    if not all((i, j) in p.labels or i in p.support or j in p.support for p in parts):
        return None
    owner = list(range(n + m))

    def root(k: int) -> int:
        while owner[k] != k:
            owner[k] = k = owner[owner[k]]
        return k

    for p in parts:
        a, b = p.labels.get((i, j), ((0,) * n, (0,) * m))
        seen: dict[int, int] = {}
        for k, label in (
            *[(k, a[k]) for k in p.support.get(i, range(n))],
            *[(n + k, b[k]) for k in p.support.get(j, range(m))],
        ):
            owner[root(k)] = root(seen.setdefault(label, k))
    found = [root(k) for k in range(n + m)]
    return None if len(set(found)) < 2 else (tuple(found[:n]), tuple(found[n:]))


def _of_constant(x: Node) -> _Zeros:
    if not isinstance(x.attr, np.ndarray) or x.attr.ndim != len(x.shape):
        return _Zeros(x.shape)
    a = x.attr != 0
    support, labels = {}, {}
    for i in range(a.ndim):
        there = np.flatnonzero(a.any(axis=tuple(k for k in range(a.ndim) if k != i)))
        if len(there) < a.shape[i]:
            support[i] = frozenset(there.tolist())
        for j in range(i + 1, a.ndim):
            found = _blocks(a.any(axis=tuple(k for k in range(a.ndim) if k not in (i, j))))
            if found is not None:
                labels[i, j] = found
    return _Zeros(x.shape, support, labels)


def _blocks(a: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Labels of rows and columns of a matrix of truths that is false where they differ; None if there is one block only.

    Picks of the identity, position by position, are folded to such matrices.
    """
    if a.all() or not a.any():
        return None
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, m = a.shape
    i, j = np.nonzero(a)
    count, label = connected_components(coo_array((np.ones(len(i)), (i, n + j)), shape=(n + m, n + m)), directed=False)
    rows, columns = label[:n].tolist(), label[n:].tolist()
    return None if count < 2 else (tuple(rows), tuple(columns))
