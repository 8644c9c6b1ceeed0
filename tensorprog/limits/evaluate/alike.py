"""Variables that are one variable, twice: on the diagonals of kernels, and for equal inputs.

The errors of a scalar program are found by moving its numbers. Covariance and variances of one variable, moved apart, are of
two variables with a correlation beyond 1, or below: what turns like an angle there (the kernel of relu') would move by 1e-8, and
a quadrant by 1/2, though the variable is itself. Where that is known, the three stay one number: `Alike` knows it, for
`ScalarProgram` as it is, for kernels in lanes by a `Trace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.language.node import Node
from tensorprog.limits.gauss.correlations import SNAP
from tensorprog.limits.gauss.duals import CORRELATED, apart_by_rounding
from tensorprog.limits.gauss.tilt import Covariance

__all__ = ["Alike", "Trace"]

Array = np.ndarray
Values = Mapping[Node, Array]
MOST = 8
"""Integrals in more variables are sampled: their errors are larger than this."""


class Alike:
    """Where the variables of closed forms and integrals are the same, found in an evaluation that is not moved.

    Args:
        close: May variables differ that have the same variances and covariance, up to rounding?
        marks: Two for each example, the second one without its sign: those of other marks differ, whatever rounding makes of
            their covariances. None where that is not known.
        rounded: Is this for kernels in lanes? Correlations within rounding of 1 are those of one variable then, unless variables
            are close. Else variances and covariance have to be one number, to the last bit.
    """

    def __init__(self, close: bool, marks: Array | None = None, rounded: bool = False) -> None:
        self.close, self.rounded = close, rounded
        self.marks = marks
        self._known: dict[tuple[Node, int, int], Array] = {}

    def operands(self, x: Node, args: Sequence[Array], values: Values, recorded: bool, moved: bool) -> Sequence[Array]:
        """The operands of an instruction, covariances and variances of one variable made one number.

        Args:
            x: The instruction.
            args: Arrays of its operands, moved or not.
            values: Of all nodes before it.
            recorded: Is this evaluation the one to look at?
            moved: Is it one that measures rounding? Others' correlations are as far from 1 then as they may have been.
        """
        if x.op == "dual" and x.attr in CORRELATED:
            a, c, b = args[-3:]
            same = self._where((x, 1, 0), x.args[-3:], (a, c, b), values, recorded)
            edge = np.sqrt(np.maximum(a, 0.0)) * np.sqrt(np.maximum(b, 0.0))
            if moved:
                c = np.where(same, np.sign(c) * edge, apart_by_rounding(a, c, b))
            elif same.any():
                c = np.where(same, np.sign(c) * edge, c)
            return (*args[:-2], c, b)
        if x.op == "dual" and x.attr == "widened" and x.args[1] is x.args[2]:  # what noise leaves of a variance
            a, c, _, b, t = args
            same = self._where((x, 1, 0), (x.args[0], x.args[1], x.args[3]), (a, c, b), values, recorded)
            if moved:
                c = apart_by_rounding(a, c, b)
            a, c = np.where(same, b, a), np.where(same, b, c)
            return a, c, c, b, t
        if x.op in ("gauss", "guard") and 1 < x.attr.dimension <= MOST:
            start = len(x.args) - _given(x)
            return [*args[:start], *self._joined(x, x.args[start:], args[start:], values, recorded)]
        return args

    def left(self, x: Node, args: Sequence[Array], value: Array, values: Values, recorded: bool) -> Array:
        """What is left of a mean or a variance given another variable (`residual`): nothing where both are the same."""
        if recorded:
            nothing = value == 0
            same = nothing & _on_diagonal(value, _examples(x)) if self.close else nothing
            if x.args[1] is x.args[2]:
                b, c, _, a = args
                same = same | self._same((x.args[3], x.args[1], x.args[0]), (a, c, b), values)
            self._known[x, 1, 0] = same
        same = self._known.get((x, 1, 0), np.zeros((), dtype=bool))
        return np.where(same, 0.0, value) if same.any() else value

    def _joined(
        self, x: Node, nodes: Sequence[Node], args: Sequence[Array], values: Values, recorded: bool
    ) -> list[Array]:
        """Means, covariances and parameters of an integral."""
        d = x.attr.dimension
        out = list(args)

        def place(i: int, j: int) -> int:
            i, j = max(i, j), min(i, j)
            return d + i * (i + 1) // 2 + j

        for i in range(1, d):
            for j in range(i):
                where = place(j, j), place(i, j), place(i, i)
                same = self._where((x, i, j), [nodes[k] for k in where], [args[k] for k in where], values, recorded)
                if not same.any():
                    continue
                sign = np.sign(args[where[1]])
                for k in range(d):  # the second variable is the first one, up to a sign
                    if k not in (i, j):
                        out[place(i, k)] = np.where(same, sign * out[place(j, k)], out[place(i, k)])
                out[where[1]] = np.where(same, sign * out[where[0]], out[where[1]])
                out[where[2]] = np.where(same, out[where[0]], out[where[2]])
                near = np.abs(out[i] - sign * out[j]) <= SNAP * np.abs(out[j])
                out[i] = np.where(same & near, sign * out[j], out[i])
        return out

    def _where(
        self,
        key: tuple[Node, int, int],
        nodes: Sequence[Node],
        arrays: Sequence[Array],
        values: Values,
        recorded: bool,
    ) -> Array:
        if recorded:
            self._known[key] = self._same(nodes, arrays, values)
        return self._known.get(key, np.zeros((), dtype=bool))

    def _same(self, nodes: Sequence[Node], arrays: Sequence[Array], values: Values) -> Array:
        """Where two variables, of which these are variance, covariance and variance, are the same, up to a sign.

        Under a tilted law they are where they were before.
        """
        c = nodes[1]
        if c.op == "laplace" and isinstance(c.attr, Covariance):
            c, a, b = c.args[3:]
            before = self._same((a, c, b), [values[y] for y in (a, c, b)], values)
            return before[..., None] if before.ndim else before
        first, both, second = arrays
        size = np.abs(both)
        if self.rounded and nodes[0] == c == nodes[2]:  # at all positions: of data, which are no constants here
            return np.ones(np.broadcast_shapes(*[np.shape(a) for a in arrays]), dtype=bool)
        same = _itself(*nodes) & (np.abs(size - first) <= SNAP * size) & (np.abs(size - second) <= SNAP * size)
        if self.close:
            return np.asarray(same)
        if self.marks is not None:
            return np.asarray(
                same | ((size == first) & (size == second) & ~self._apart(nodes[0], c, nodes[2], both > 0))
            )
        if self.rounded:
            most = np.sqrt(np.maximum(first, 0.0)) * np.sqrt(np.maximum(second, 0.0))
            return np.asarray(same | (size >= (1 - SNAP) * most) & (most > 0))
        return np.asarray(same | ((size == first) & (size == second)))

    def _apart(self, a: Node, c: Node, b: Node, alike: Array) -> Array:
        """Where two variables are of examples that differ, as far as their axes tell.

        Args:
            a: A variance.
            c: A covariance.
            b: A variance.
            alike: Where the examples would be equal; elsewhere they would be opposite.
        """
        assert self.marks is not None
        nowhere = np.zeros((), dtype=bool)
        n = len(self.marks)
        a, c, b = map(_folded, (a, c, b))
        shape = np.broadcast_shapes(a.shape, c.shape, b.shape)
        if len(shape) == 2 and all(x.op == "constant" for x in (a, c, b)):
            places = [(0, 1)]
        else:
            first, second = _seen(a), _seen(b)
            places = [(i, j) for i, j in zip(first[1], second[1], strict=False) if i != j and first[0] == second[0]]
        places = [(i, j) for i, j in places if shape[i] == shape[j] == n]
        if len(places) != 1:
            return nowhere
        index = np.indices(shape, sparse=True)
        one, two = [self.marks[index[k]] for k in places[0]]
        differ = one != two
        behind = (1,) * _examples(a, c, b)
        equal, opposite = [x.reshape(x.shape + behind) for x in (~differ[..., 0], ~differ[..., 1] & differ[..., 0])]
        return np.where(alike, ~equal, ~opposite)


class Trace:
    """The same for closed forms along pairs of examples, in lanes: a pair as it is, then the same pairs moved.

    A variable's correlation with itself is computed as one of two variables, where their positions are alike: moved apart, it
    would show an error that it does not have.

    Args:
        close: May variables at different positions differ that have the same variances and covariance, up to rounding? Else
            some are equal, and correlations of 1 in later layers are theirs, rounded.
        pairs: How many pairs there are.
    """

    def __init__(self, close: bool, pairs: int) -> None:
        self._alike, self._pairs = Alike(close, rounded=True), pairs

    def operands(self, x: Node, arrays: Sequence[Array]) -> Sequence[Array]:
        """The operands of a closed form, moved covariances and variances of one variable made one number again."""
        if not (x.attr in CORRELATED or (x.attr == "widened" and x.args[1] is x.args[2])):
            return arrays
        first, *others = self._copies(arrays)
        self._alike.operands(x, first, {}, True, False)
        found = [self._alike.operands(x, given, {}, False, True) for given in others]
        changed = [
            k for k in range(len(arrays)) if any(new[k] is not old[k] for new, old in zip(found, others, strict=True))
        ]
        out = list(arrays)
        for k in changed:
            out[k] = _beside([first[k], *[new[k] for new in found]], self._pairs)
        return out

    def result(self, x: Node, arrays: Sequence[Array], value: Array) -> Array:
        """The values of a closed form, nothing left where both variables are the same."""
        if x.attr != "residual":
            return value
        copies = zip(self._copies(arrays), self._copies([value]), strict=True)
        left = [self._alike.left(x, given, v, {}, not k) for k, (given, (v,)) in enumerate(copies)]
        return _beside(left, self._pairs)

    def _copies(self, arrays: Sequence[Array]) -> list[list[Array]]:
        """Every evaluation's part of the lanes."""
        starts = range(0, max([a.shape[-1] for a in arrays]), self._pairs)
        return [[a[..., i : i + self._pairs] if a.shape[-1] > 1 else a for a in arrays] for i in starts]


def _beside(parts: Sequence[Array], lanes: int) -> Array:
    """Arrays one behind the other along the lanes."""
    shape = np.broadcast_shapes(*[a.shape for a in parts])
    return np.concatenate([np.broadcast_to(a, (*shape[:-1], lanes)) for a in parts], axis=-1)


def _examples(*nodes: Node) -> int:
    """How many axes an array of nodes has after their own: those of the examples."""
    return any(x.width is not None for x in nodes) + any(x.inner is not None for x in nodes)


def _given(x: Node) -> int:
    """How many of its operands an integral has: those of a guarded closed form come after it."""
    return len(x.args) - 2 * (x.op == "guard")


def _itself(a: Node, c: Node, b: Node) -> Array:
    """Where two variables of one family are one variable: the pairs (i, s), (j, t) with i = j and s = t.

    The variances a, b of a family are seen along some axes for the first variable, along others for the second one.
    Examples are as many axes of size 1 behind.
    """
    nowhere = np.zeros((), dtype=bool)
    a, c, b = map(_folded, (a, c, b))
    if len(c.shape) == 2 and all(x.op == "constant" for x in (a, c, b)):  # numbers: what they were seen along is gone
        return np.eye(*c.shape, dtype=bool) if c.shape[0] == c.shape[1] else nowhere
    first, second = _seen(a), _seen(b)
    if first[0] != second[0]:
        return nowhere
    pairs = [(i, j) for i, j in zip(first[1], second[1], strict=True) if i != j]
    shape = np.broadcast_shapes(a.shape, c.shape, b.shape)
    if not pairs or any(shape[i] != shape[j] for i, j in pairs):
        return nowhere
    index = np.indices(shape, sparse=True)
    found = np.asarray(np.logical_and.reduce(np.broadcast_arrays(*[index[i] == index[j] for i, j in pairs])))
    return found.reshape(found.shape + (1,) * _examples(a, c, b))


def _on_diagonal(x: Array, examples: int) -> Array:
    """Where the last two axes, but for those of examples, have one position."""
    own = np.shape(x)[: np.ndim(x) - examples]
    if len(own) < 2 or own[-1] != own[-2]:
        return np.zeros((), dtype=bool)
    return np.eye(own[-1], dtype=bool).reshape(own[-2:] + (1,) * examples)


def _folded(x: Node) -> Node:
    """A number that is kept from being folded (`limits/expect/closed.py`) as it is."""
    return x.args[0] if x.op == "view" and x.shape == x.args[0].shape and x.attr == tuple(range(len(x.shape))) else x


def _seen(x: Node) -> tuple[Any, tuple[int, ...]]:
    """What is seen, and along which axes."""
    x = _folded(x)
    if x.op == "view":
        return x.args[0].digest, tuple(x.attr)
    if x.op == "constant" and isinstance(x.attr, np.ndarray):
        whole = np.broadcast_to(x.attr, x.shape)
        axes = tuple([i for i in range(whole.ndim) if (whole != whole.take([0], i)).any()])
        part = whole[tuple([slice(None) if i in axes else 0 for i in range(whole.ndim)])]
        return (part.dtype.kind, part.tobytes(), part.shape), axes
    return x.digest, tuple([i for i, n in enumerate(x.shape) if n != 1])
