"""The tangent kernel of a network, as a program: the sum over all pairs of uses of every trained parameter.

    Theta(xi, xi') = sum_W s2 sum over uses g = W h under xi and g' = W h' under xi' of  Moment(dg dg') Moment(h h')
                   + sum_U s2 (xi.xi'/d) Moment(dh dh')  +  sum_v var Moment(dv dv')

over matrices W, input layers U and trained vectors v (readouts, biases), in the scaling of `backprop.py`; for an average
readout it is N Theta. A use y = W.T z enters as the pair (sqrt(rho) z, dy) in place of (dg, h).

Nothing is assumed: no gradient independence, no particular architecture. Run at finite width the same program is the
empirical kernel of the network.

Source: Yang, Tensor Programs II (arXiv:2006.14548), equations 11 and 12; Jacot et al. 2018 for the parametrization.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.algebra import ZERO
from tensorprog.language.data import Embedding
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Number, VectorSpec
from tensorprog.transforms.backprop import Backward, Gradient, Use, root_of_ratio
from tensorprog.transforms.parametrization import Parametrization

__all__ = ["parameters", "tangent"]

MANY = 12
"""So many uses of one matrix become one use of a stack."""


def parameters(sides: Iterable[Backward]) -> list[str]:
    """The names of what is trained: matrices, input layers, trained vectors."""
    found: set[str] = set()
    for side in sides:
        found |= {use.matrix.name for use in side.uses}
        found |= {x.attr.name for x in side.gradients if x.op == "vector" and x.attr.trainable}
    return sorted(found)


def tangent(
    left: Backward,
    right: Backward,
    scheme: Parametrization,
    only: str | None = None,
    fan_ins: Mapping[str, Number] | None = None,
) -> Node:
    """The tangent kernel of two outputs (the same one twice, or of two networks that share weights).

    Args:
        left: Gradients of the first output, whose axes are those of examples and positions.
        right: Gradients of the second, likewise.
        scheme: The parametrization.
        only: The part of the parameter of this name alone.
        fan_ins: Readout vectors by name to the fan-in of their readout, over the reference width.

    Returns:
        A scalar with the axes of the first output, then those of the second.
    """
    return _Pairs(left, right, scheme, fan_ins or {}).total(only)


class _Pairs:
    def __init__(self, left: Backward, right: Backward, scheme: Parametrization, fan_ins: Mapping[str, Number]) -> None:
        self.left, self.right, self.scheme, self.fan_ins = left, right, scheme, fan_ins
        self.own = 0, len(left.output.shape)  # where a side's axes start
        self.outputs = (*left.output.shape, *right.output.shape)
        # Moment(dg dg') of a pair of gradients, to the sum of what multiplies it, and the shape of both.
        self.parts: dict[tuple[Node, tuple[int, ...]], list[tuple[Number, Node]]] = {}

    def total(self, only: str | None) -> Node:
        self._matrices(only)
        self._vectors(only)
        terms = []
        for (first, shape), others in self.parts.items():
            product = algebra.mul([first, algebra.add(others)])
            product = algebra.typed(product, shape, None, None)
            for axis in reversed(range(len(self.outputs), len(shape))):
                product = algebra.sum_axis(product, axis)
            terms.append((1, product))
        return algebra.typed(algebra.add(terms) if terms else ZERO, self.outputs, None, None)

    def _add(self, first: Node, second: Node, factor: Number, shape: tuple[int, ...]) -> None:
        if factor != 0 and not first.is_zero and not second.is_zero:
            self.parts.setdefault((first, shape), []).append((factor, second))

    # ---- axes ----
    def _places(self, g: Gradient, sizes: tuple[int, ...], side: int, after: int) -> tuple[list[int], list[int]]:
        """Where the axes i of a vector go, and the positions that are new: those `after` the ones in use."""
        places: list[int] = []
        fresh: list[int] = []
        for i in range(len(sizes)):
            if i in g.ties:
                places.append(self.own[side] + g.ties.index(i))
            else:
                places.append(after + len(fresh))
                fresh.append(i)
        return places, fresh

    def _shape(self, g: Gradient, h: Gradient, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[Any, ...]:
        """The places of the axes of both sides, and the common shape: outputs, left's axes, right's axes."""
        after = len(self.outputs)
        places, fresh = self._places(g, left, 0, after)
        others, more = self._places(h, right, 1, after + len(fresh))
        shape = (*self.outputs, *[left[i] for i in fresh], *[right[i] for i in more])
        return places, others, shape

    def _seen(self, x: Node, places: list[int], shape: tuple[int, ...]) -> Node:
        return algebra.view(x, places, shape) if x.shape else x

    def _jacobian(self, g: Gradient, places: list[int], side: int, shape: tuple[int, ...]) -> Node:
        front = [self.own[side] + o for o in g.free]
        return self._seen(g.node, [*front, *places], shape)

    # ---- parameters ----
    def _matrices(self, only: str | None) -> None:
        theirs = _together(self.right.uses)
        for a in _together(self.left.uses):
            for b in theirs:
                if a.matrix.name != b.matrix.name or only not in (None, a.matrix.name):
                    continue
                places, others, shape = self._shape(a.gradient, b.gradient, a.operand.shape, b.operand.shape)
                dg, dh = self._jacobian(a.gradient, places, 0, shape), self._jacobian(b.gradient, others, 1, shape)
                h, k = self._seen(a.operand, places, shape), self._seen(b.operand, others, shape)
                root = root_of_ratio(a.matrix.rows, a.matrix.cols)
                scale = [root] * (a.transposed + b.transposed)
                rows = [h if a.transposed else dg, k if b.transposed else dh]
                cols = [dg if a.transposed else h, dh if b.transposed else k]
                over_rows = algebra.moment(self._vector(rows, a.matrix.rows))
                over_cols = algebra.moment(self._vector(cols, a.matrix.cols))
                if a.transposed and b.transposed:  # what gradients multiply comes first, so that it is shared
                    over_rows, over_cols = over_cols, over_rows
                over_cols = algebra.mul([*scale, *self.scheme.undone(a.matrix), over_cols])
                self._add(over_rows, over_cols, self.scheme.matrix(a.matrix), shape)

    def _vector(self, factors: list[Node], width: Any) -> Node:
        product = algebra.mul(factors)
        return algebra.typed(product, product.shape, width, None)

    def _vectors(self, only: str | None) -> None:
        mine, theirs = _trained(self.left), _trained(self.right)
        for x, g in mine:
            for y, h in theirs:
                if x.attr.name != y.attr.name or only not in (None, x.attr.name):
                    continue
                if isinstance(x.attr, Embedding) and isinstance(y.attr, Embedding):
                    places, others, shape = self._shape(g, h, x.shape, y.shape)
                    metric = x.attr.data.metric(y.attr.data)
                    metric = self._seen(metric, [*places, *others], shape)
                    factor = self.scheme.embedding(x.attr)
                elif x.attr.cov is None or x.attr.lr is not None:
                    places, others, shape, metric = self._columns(x, g, h)
                    factor = self.scheme.vector(x.attr, self.fan_ins.get(x.attr.name))
                    if isinstance(x.attr.var, np.ndarray) and self.scheme.name == "ntk" and x.attr.lr is None:
                        metric = algebra.mul([metric, self._seen(algebra.constant(x.attr.var), places, shape)])
                else:
                    places, others, shape, metric, factor = self._correlated(x, g, h)
                if self.scheme.name == "ntk" and x.attr.lr is None and np.any(x.attr.mean) and _is_constant(x.attr):
                    raise TensorProgramError(
                        f"the trained vector {x.attr.name} has mean {_short(x.attr.mean)} and variance 0",
                        why='in the parametrization "ntk" what is random in it is trained, and that is nothing',
                        fix='give it a learning rate: tp.Vector(.., var=0, lr=1); or use parametrization="tp"',
                        source=x.source,
                    )
                dx, dy = self._jacobian(g, places, 0, shape), self._jacobian(h, others, 1, shape)
                metric = algebra.mul([*self.scheme.undone(x.attr), metric])
                self._add(algebra.moment(self._vector([dx, dy], x.width)), metric, factor, shape)

    def _columns(self, x: Node, g: Gradient, h: Gradient) -> tuple[Any, ...]:
        """Independent columns: one sum over them, the same column on both sides."""
        examples = [len(side.output.shape) - side.positions for side in (self.left, self.right)]
        if any(tie is not None for side, k in zip((g, h), examples, strict=True) for tie in side.ties[:k]):
            raise TensorProgramError(
                f"the trained vector {x.attr.name} has an axis that runs over the examples",
                why="every example would have parameters of its own",
                fix="train a vector without that axis",
                source=x.source,
            )
        places, others, same = [], [], []
        shape = list(self.outputs)
        for i, k in enumerate(x.shape):
            at = [own + side.ties.index(i) for own, side in zip(self.own, (g, h), strict=True) if i in side.ties]
            if not at:
                at = [len(shape)]
                shape.append(k)
            places.append(at[0])
            others.append(at[-1])
            if len(at) > 1:  # a column for each position of the outputs
                same.append((at[0], at[1], k))
        factors = [self._seen(algebra.constant(np.eye(k, dtype=np.int64)), [i, j], tuple(shape)) for i, j, k in same]
        return places, others, tuple(shape), algebra.mul(factors) if factors else algebra.ONE

    def _correlated(self, x: Node, g: Gradient, h: Gradient) -> tuple[Any, ...]:
        if self.scheme.name != "ntk":
            places, others, shape, metric = self._columns(x, g, h)
            return places, others, shape, metric, 1
        places, others, shape = self._shape(g, h, x.shape, x.shape)
        cov = algebra.constant(x.attr.cov.reshape(*x.shape, *x.shape), (*x.shape, *x.shape))
        return places, others, shape, self._seen(cov, [*places, *others], shape), 1


def _together(uses: Sequence[Use]) -> list[Use]:
    """The uses of the forward pass, many of one matrix as one use of a stack: T steps of a recurrence have T^2 pairs."""
    groups: dict[Any, list[Use]] = {}
    for use in uses:
        kind = use.matrix.name, use.transposed, use.operand.shape, use.gradient.node.shape, use.gradient.ties
        groups.setdefault(kind, []).append(use)
    found = []
    for same in groups.values():
        if len(same) < MANY or not _meet([u.gradient.node for u in same]):
            found += same
            continue
        first = same[0]
        operand = algebra.stack([u.operand for u in same], len(first.operand.shape))
        gradient = algebra.stack([u.gradient.node for u in same], len(first.gradient.node.shape))
        found.append(Use(first.matrix, first.transposed, operand, Gradient(gradient, first.gradient.ties)))
    return found


def _meet(gradients: Sequence[Node]) -> bool:
    """Do many gradients have the same initial vector as a factor, or in one, outside functions?

    Those of a network that looks at the last state alone have not: gradients of different times are uncorrelated, and what their
    Moments multiply is not asked for as long as the pairs are apart.
    """
    counts: dict[Node, int] = {}
    for x in gradients:
        below = topological([x], lambda y: y.args if y.op in ("add", "mul", *MOVES) else ())
        for y in below:
            if y.op == "vector":
                counts[y] = counts.get(y, 0) + 1
    return max(counts.values(), default=0) >= MANY


def _short(x: Any) -> str:
    return str(x) if np.ndim(x) == 0 else "not 0"


def _is_constant(v: VectorSpec) -> bool:
    return not np.any(v.var if v.cov is None else v.cov)


def _trained(side: Backward) -> list[tuple[Node, Gradient]]:
    found = [(x, g) for x, g in side.gradients.items() if x.op == "vector" and x.attr.trainable]
    return sorted(found, key=lambda item: item[0].digest)
