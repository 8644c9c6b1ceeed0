"""A program of batches of examples as that of one pair of them.

Where the examples of a batch do not meet, an array over rows and columns of examples is one program, carried out for every pair.
Here the two axes of the examples are followed from the outputs down to the data, left out of every instruction, and the data
replaced by one example of each batch (`language/data.py:SlotData`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.attributes import InnerProducts
from tensorprog.language.data import VALUES, ArrayData, Embedding, SlotData
from tensorprog.language.node import Node
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import VectorSpec, encode, number
from tensorprog.limits.tasks import Declined

__all__ = ["Pair", "pair_of"]

SAME = 1e-14
"""Numbers that differ by less, in units of the lengths of vectors, are the inner products of these, up to rounding."""
Axes = tuple[int | None, ...]
"""For every axis of a node the batch whose examples it runs over, if it does: 0 is that of the rows, 1 of the columns."""
Place = tuple[Node, Axes]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, repr=False)
class Pair:
    """A program of two batches, taken apart.

    Attributes:
        pair: The program of an example of each.
        same: Of an example of the first batch with itself.
        first: Names that stand for data to the data of the first batch, (examples, ..).
        second: Of the second batch; None if it is the first one.
        given: Is the only data the covariances of examples?
    """

    pair: Program
    same: Program
    first: Arrays
    second: Arrays | None
    given: bool


def pair_of(program: Program) -> Pair | None:
    """The program of one pair of examples, if the first two axes of all outputs run over examples that do not meet.

    Args:
        program: Of two batches.

    Example:
        >>> import tensorprog as tp
        >>> net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), tp.Width("n")))))
        >>> found = pair_of(net.program([[1.0, 2.0], [3.0, 4.0]], of="nngp"))
        >>> found.pair.outputs["nngp"].node.shape, [a.shape for a in found.first.values()], found.second
        ((), [(2, 2)], None)
    """
    try:
        apart = _Apart(program)
        pair, same = [apart.built(slots) for slots in ((0, 1), (0, 0))]
    except Declined:
        return None
    first, second = apart.arrays
    return Pair(pair, same, first, None if apart.one_batch else second, apart.given)


class _Apart:
    """A program's instructions, and what is data to them.

    Raises:
        Declined: examples meet.
    """

    def __init__(self, program: Program) -> None:
        self.outputs = program.outputs
        if any(len(o.node.shape) < 2 for o in program.outputs.values()):
            raise Declined("outputs are not of pairs")
        roots = [(o.node, (0, 1) + (None,) * (len(o.node.shape) - 2)) for o in program.outputs.values()]
        self.order = _walk(roots)
        self._contents: dict[int, tuple[np.ndarray, bytes]] = {}
        rows = [(axes[0], x.attr.data.array) for x, axes in self.order if _is_rows(x) and axes.count(None) < len(axes)]
        self.folded = {place: g for place in self.order if (g := _folded(*place, rows)) is not None}
        found: tuple[dict[Any, np.ndarray], dict[Any, np.ndarray]] = ({}, {})
        for x, axes in self.order:
            for kind, slot, array in [] if (x, axes) in self.folded else _data(x, axes):
                found[slot][self._key(kind, array)] = array
        self.one_batch = found[0].keys() == found[1].keys()
        names = [self._names(side) for side in found]
        if names[0].keys() != names[1].keys() or not names[0] or len({len(a) for a in found[0].values()}) > 1:
            raise Declined("the batches have data of different kinds")
        self.given = any(kind == "gram" for kind, _ in found[0])
        if self.given and (len(found[0]) > 1 or not self.one_batch):
            raise Declined("covariances are given of some of the data")
        whole = [x for x, axes in self.order if x.op == "vector" and axes.count(None) == len(axes)]
        fixed = [self._key("rows", x.attr.data.array) for x in whole if _is_rows(x)]
        fixed += [self._key("gram", x.attr.cov) for x in whole if _is_given(x)]
        if {*fixed} & {*found[0], *found[1]}:
            raise Declined("examples are looked at as data of their own")
        self.named = tuple([{k: name for name, k in side.items()} for side in names])
        self.arrays = tuple(
            [{name: side[k] for name, k in own.items()} for side, own in zip(found, names, strict=True)]
        )

    def _key(self, kind: str, array: np.ndarray) -> tuple[str, bytes]:
        """What data is told apart by: its content."""
        if id(array) not in self._contents:
            self._contents[id(array)] = array, encode(array)  # kept, so that no other gets its id
        return kind, self._contents[id(array)][1]

    def _names(self, side: Mapping[Any, np.ndarray]) -> dict[str, Any]:
        """Names that are the same for both batches, whatever the data."""
        kinds = sorted([("" if k[0] == "gram" else repr(a.shape[1:]), k[0], k) for k, a in side.items()])
        if not self.one_batch and len({kind[:2] for kind in kinds}) < len(kinds):
            raise Declined("which data of the batches belong together is not known")
        return {f"{kind}{n}{shape}": k for n, (shape, kind, k) in enumerate(kinds)}

    def built(self, slots: tuple[int, int]) -> Program:
        """The program of two examples, of the batches that rows and columns are to be."""
        new: dict[Place, Node] = {}
        for x, axes in self.order:
            new[x, axes] = self._node(x, axes, slots, new)
        roots = {name: (o.node, (0, 1) + (None,) * (len(o.node.shape) - 2)) for name, o in self.outputs.items()}
        return Program({name: Output(new[root], self.outputs[name].axes[2:]) for name, root in roots.items()})

    def _slot_data(self, array: np.ndarray, side: int, slot: int, kind: str = "rows") -> SlotData:
        """One example in place of data (examples, *axes, features), or of covariances (examples, examples)."""
        shape = (1,) if kind == "gram" else array.shape[1:]
        return SlotData(self.named[side][self._key(kind, array)], slot, shape[:-1], shape[-1])

    def _node(self, x: Node, axes: Axes, slots: tuple[int, int], new: Mapping[Place, Node]) -> Node:
        stay = [i for i, a in enumerate(axes) if a is None]
        if len(stay) == len(axes):
            return x
        shape = tuple([x.shape[i] for i in stay])
        args = [new[place] for place in _operands(x, axes)]
        factor, rest, gram = self.folded.get((x, axes), (1.0, 0.0, _gram(x, axes)))
        if gram is not None:
            (a, i, index), (b, j, other) = gram
            one, two = [self._slot_data(y, k, slots[k]) for y, k in ((a, i), (b, j))]
            where = [stay.index(p) for p in (*index, *other)]
            scaled = algebra.scale(number(factor * a.shape[-1]), one.gram(two))
            return algebra.add([(1, algebra.view(scaled, where, shape)), (rest, algebra.constant(1, shape))])
        match x.op:
            case "vector":
                ((kind, side, array),) = _data(x, axes)
                spec: VectorSpec = x.attr
                data = self._slot_data(array, side, slots[side], kind)
                var = 1 if kind == "gram" else spec.var
                own = Embedding.of(spec.name, spec.width, var, data, spec.trainable, spec.std)
                return Node("vector", (), own, shape, x.width, x.inner)
            case "constant":
                return self._constant(x, axes, slots, shape)
            case "view":
                kept = [stay.index(p) for p in x.attr if axes[p] is None]
                return algebra.view(args[0], kept, shape)
            case "take":
                return algebra.take(args[0], _before(axes, x.attr.axis), x.attr.position)
            case "pick":
                return algebra.pick(args[0], _before(axes, x.attr.axis), x.attr.positions)
            case "stack":
                return algebra.stack(args, _before(axes, x.attr))
            case "sum":
                return algebra.sum_axis(args[0], _before(axes, x.attr))
            case "softmax":
                return algebra.softmax(args[0], _before(axes, x.attr))
        return algebra.rebuild(x, args, shape)

    def _constant(self, x: Node, axes: Axes, slots: tuple[int, int], shape: tuple[int, ...]) -> Node:
        if not isinstance(x.attr, np.ndarray):
            return algebra.constant(x.attr, shape, x.width, x.inner)
        for kind, side, array in _data(x, axes):
            name, slot = self.named[side][self._key(kind, array)], slots[side]
            node = Node("data", (), InnerProducts(name, (), "", VALUES, slot, slot), array.shape[1:])
            return algebra.typed(node, shape, x.width, x.inner)
        lead = tuple([0 if a is not None else slice(None) for a in axes])
        one = np.array(np.broadcast_to(x.attr, x.shape)[lead])
        return algebra.typed(algebra.constant(one if shape else one[()], shape), shape, x.width, x.inner)


def _before(axes: Axes, axis: int) -> int:
    """Where an axis is once those of examples are left out."""
    return sum([a is None for a in axes[:axis]])


def _walk(roots: Sequence[Place]) -> list[Place]:
    """All that the outputs are made of, with its axes of examples, operands first."""
    order: list[Place] = []
    done: set[Place] = set()
    for root in roots:
        stack = [(root, False)]
        while stack:
            place, expanded = stack.pop()
            if expanded:
                order.append(place)
            elif place not in done:
                done.add(place)
                stack.append((place, True))
                stack.extend([(a, False) for a in _operands(*place) if a not in done])
    return order


def _operands(x: Node, axes: Axes) -> list[Place]:
    """The operands, with their axes of examples.

    Raises:
        Declined: examples meet.
    """
    if _gram(x, axes) is not None:
        return []
    match x.op:
        case "view":
            y = x.args[0]
            if any(n != x.shape[p] and axes[p] is not None for n, p in zip(y.shape, x.attr, strict=True)):
                raise Declined("an example is seen as many")
            return [(y, tuple([axes[p] for p in x.attr]))] if y.shape else [(y, ())]
        case "take":
            return [(x.args[0], (*axes[: x.attr.axis], None, *axes[x.attr.axis :]))]
        case "sum":
            return [(x.args[0], (*axes[: x.attr], None, *axes[x.attr :]))]
        case "pick":
            if axes[x.attr.axis] is not None:
                raise Declined("examples are picked")
            return [(x.args[0], axes)]
        case "stack":
            if axes[x.attr] is not None:
                raise Declined("examples are stacked")
            return [(a, (*axes[: x.attr], *axes[x.attr + 1 :])) for a in x.args]
    if x.op == "softmax" and axes[x.attr] is not None:
        raise Declined("examples meet in a softmax")
    return [(a, axes if a.shape else ()) for a in x.args]


def _is_rows(x: Node) -> bool:
    return x.op == "vector" and isinstance(x.attr, Embedding) and isinstance(x.attr.data, ArrayData)


def _is_given(x: Node) -> bool:
    """Is it a centred Gaussian vector for every example, of given covariances?"""
    if x.op != "vector" or isinstance(x.attr, Embedding) or len(x.shape) != 1 or x.attr.distribution is not None:
        return False
    cov = x.attr.cov
    return isinstance(cov, np.ndarray) and cov.dtype.kind == "f" and not np.any(x.attr.mean)


def _data(x: Node, axes: Axes) -> list[tuple[str, int, np.ndarray]]:
    """The data that an instruction stands for: its kind, which batch, and its array (examples, ...).

    Raises:
        Declined: it is something else that depends on examples.
    """
    places = [i for i, a in enumerate(axes) if a is not None]
    if not places or x.args:
        gram = _gram(x, axes) if x.args and places else None
        return [] if gram is None else [("rows", side, a) for a, side, _ in gram]
    side = axes[places[0]]
    if _is_rows(x) and places == [0] and side is not None:
        return [("rows", side, x.attr.data.array)]
    if _is_given(x) and places == [0] and side is not None:
        return [("gram", side, x.attr.cov)]
    if x.op == "constant":
        if not isinstance(x.attr, np.ndarray):
            return []
        whole = np.broadcast_to(x.attr, x.shape)
        if all((whole == whole.take([0], i)).all() for i in places):
            return []
        if len(places) == 1 and side is not None:
            array = np.ascontiguousarray(np.moveaxis(whole, places[0], 0).astype(float))
            return [("values", side, array)]
    raise Declined(f"{x.op} depends on examples")


def _folded(
    x: Node, axes: Axes, rows: Sequence[tuple[int | None, np.ndarray]]
) -> tuple[float, float, list[tuple[np.ndarray, int, list[int]]]] | None:
    """As `_gram`, of a x.x' + b for few examples, which is folded into one constant; and a and b.

    Args:
        x: The instruction.
        axes: Its axes of examples.
        rows: The data (examples, *axes, features) that vectors have, and the batch of each.
    """
    if (
        x.op != "constant"
        or not isinstance(x.attr, np.ndarray)
        or not {0, 1} <= {*axes}
        or axes.count(None) < len(axes) - 2
    ):
        return None
    stay = [i for i, a in enumerate(axes) if a is None]
    whole = np.broadcast_to(x.attr, x.shape).astype(float).transpose(axes.index(0), axes.index(1), *stay)
    for (i, a), (j, b) in product(rows, rows):
        if (
            (i, j) != (0, 1)
            or a.shape[-1] != b.shape[-1]
            or whole.shape != (len(a), len(b), *a.shape[1:-1], *b.shape[1:-1])
        ):
            continue
        with np.errstate(all="ignore"):  # what is not finite is no inner product
            gram = np.moveaxis(np.tensordot(a, b, (-1, -1)), a.ndim - 1, 1)
            size = np.moveaxis(np.multiply.outer(*[np.linalg.norm(y, axis=-1) for y in (a, b)]), a.ndim - 1, 1)
            most, least = [np.unravel_index(k, gram.shape) for k in (np.abs(gram).argmax(), np.abs(gram).argmin())]
            apart = gram[most] - gram[least]
            factor = (whole[most] - whole[least]) / apart if apart else whole[most] / gram[most]
            rest = whole[least] - factor * gram[least]
            rest = rest if abs(rest) > SAME * abs(factor) * size[least] else 0.0
            if (np.abs(whole - factor * gram - rest) <= SAME * (abs(factor) * size + abs(rest))).all():
                return float(factor), float(rest), [(a, 0, stay[: a.ndim - 2]), (b, 1, stay[a.ndim - 2 :])]
    return None


def _gram(x: Node, axes: Axes) -> list[tuple[np.ndarray, int, list[int]]] | None:
    """Two arrays (examples, *axes, features) whose inner products a sum is, the batch of each, and where its axes stand in it."""
    if x.op != "sum" or not any(a is not None for a in axes) or x.args[0].op != "mul":
        return None
    y = x.args[0]
    factors = [a for a, k in zip(y.args, y.attr, strict=True) for _ in range(k)]
    if len(factors) != 2:
        return None
    found = []
    for a in factors:
        base, index = (a.args[0], a.attr) if a.op == "view" else (a, tuple(range(len(a.shape))))
        if base.op != "constant" or not isinstance(base.attr, np.ndarray) or base.attr.shape != base.shape:
            return None
        if not index or index[-1] != x.attr or x.attr in index[:-1]:
            return None
        rest = [p - (p > x.attr) for p in index[:-1]]
        if not rest or axes[rest[0]] is None or any(axes[p] is not None for p in rest[1:]):
            return None
        found.append((base.attr, axes[rest[0]], rest[1:]))
    return found
