"""Scalars that vanish off a diagonal, or are seen on it alone, are computed on it alone.

The readout of a flattened image has one vector for each position, independent of each other: E[dx_s dx_t] = 0 for s != t, and
so it stays through a network that shifts both positions alike. A contraction over s and t of such a product is one over s of
its diagonal; seen from there, every other factor is wanted on the diagonal only. For an image of P positions that saves a
factor P in time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self._zero: dict[Node, frozenset[Pair]] = {}
        self._restricted: dict[tuple[Node, int, int], Node] = {}

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
        self.new[x] = x if all(a is b for a, b in zip(args, x.args, strict=True)) else rebuilt(x, args)

    # ---- where it vanishes ----
    def zero(self, x: Node) -> frozenset[Pair]:
        """The pairs of axes off whose diagonal a scalar vanishes."""
        for y in topological([x], lambda y: () if y in self._zero else y.args):
            if y not in self._zero:
                self._zero[y] = self._derive(y)
        return self._zero[x]

    def _derive(self, x: Node) -> frozenset[Pair]:
        if len(x.shape) < 2:
            return frozenset()
        parts = [self._zero[a] for a in x.args]
        match x.op:
            case "constant":
                return _of_constant(x)
            case "mul":
                return frozenset().union(*[p for a, p in zip(x.args, parts, strict=True) if a.shape])
            case "add":
                return frozenset.intersection(*parts) if all(a.shape for a in x.args) else frozenset()
            case "view":
                found = {tuple(sorted((x.attr[i], x.attr[j]))) for i, j in parts[0]}
                return frozenset([(i, j) for i, j in found if i != j])
            case "take":
                axis = x.attr[0]
                return frozenset([(i - (i > axis), j - (j > axis)) for i, j in parts[0] if axis not in (i, j)])
            case "sum":
                return frozenset([(i - (i > x.attr), j - (j > x.attr)) for i, j in parts[0] if x.attr not in (i, j)])
            case "pick":
                return self._of_pick(x)
        return frozenset()

    def _of_pick(self, x: Node) -> frozenset[Pair]:
        base, picks = _picks(x)
        found = []
        for i, j in self.zero(base):
            same = picks.get(i) == picks.get(j)
            index = picks.get(i)
            if same and (index is None or len(set(index)) == len(index)):
                found.append((i, j))
        return frozenset(found)

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
            base, picks = _picks(x)
            if picks.get(i) == picks.get(j):
                return [(base, i, j)]
            return [(y, i, j)] if (y := _opened(x)) is not None else []
        return []

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
            if _picks(x)[1].get(i) != _picks(x)[1].get(j):
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


def _opened(x: Node) -> Node | None:
    """A pick carried out on the operands, where that may meet another pick there; None if there are none."""
    (y,) = x.args
    axis, index = x.attr
    if y.op == "pick":  # of another axis
        inner = _opened(y)
        return None if inner is None else algebra.pick(inner, axis, index)
    if y.op not in ("add", "mul", "fn", "dual"):
        return None
    return rebuilt(y, [algebra.pick(a, axis, index) if a.shape else a for a in y.args], x.shape)


def _data(x: Node, i: int, j: int) -> Node:
    """Inner products of equal positions only; the labels of the full array's axes say which are equal."""
    key = x.attr[:6]
    labels = list(x.attr[6]) if len(x.attr) > 6 else list(range(len(x.shape)))
    a, b = [list(dict.fromkeys(labels))[k] for k in (i, j)]
    merged = tuple([a if label == b else label for label in labels])
    return Node("data", (), (*key, merged), x.shape[:j] + x.shape[j + 1 :], x.width, x.inner)


def _of_constant(x: Node) -> frozenset[Pair]:
    if not isinstance(x.attr, np.ndarray) or x.attr.ndim != len(x.shape):
        return frozenset()
    a = x.attr != 0
    found = []
    for i in range(a.ndim):
        for j in range(i + 1, a.ndim):
            if a.shape[i] == a.shape[j] > 1:
                total, diagonal = np.count_nonzero(a), np.count_nonzero(np.diagonal(a, axis1=i, axis2=j))
                if total == diagonal:
                    found.append((i, j))
    return frozenset(found)
