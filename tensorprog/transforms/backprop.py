"""Back-propagation: from a program to the program of its gradients, in the scaling in which both are Tensor Programs.

The output is a scalar theta, and the network's output f is n**1/2 theta (a readout v.x/sqrt(n), theta its Moment) or theta
itself (an average readout). With N the reference width and n_x = r N the width of x, the gradients are

    dx := sqrt(N n_x) dtheta/dx   for a vector,      dt := dtheta/dt   for a scalar,

of order one per coordinate. For a readout dx = sqrt(n_x) df/dx. The rules, for every instruction once:

    g = W h                     dh += sqrt(n_in/n_out) W.T dg           and with W for W.T
    x = phi(y; t)               dy += dx dphi/dy,       dt += sqrt(r) Moment(dx dphi/dt)
    t = Moment phi(x; t')       dx += dt dphi/dx / sqrt(r),      dt' += dt Moment(dphi/dt')
    x = OuterNonlin phi(y, z)   dy += mean_b (dx dphi/dy),       dz += sqrt(r_x/r_z) mean_a (dx dphi/dz)

Axes. theta may have axes of its own (the examples of a batch, positions): then every gradient is a Jacobian J[o, i], o the
output's axes, i those of the vector. Where examples do not mix, J[o, i] = delta(o, i_p) a[i] for the axis p of x that runs over
the examples; this is kept as (a, p), *tied*, so that N examples cost N, not N^2, gradients; likewise for positions. What mixes
them (batch normalisation, a convolution) leads to a Jacobian with the axis o in front.

A product of the backward pass says that it is one (`decouple.py`), which is all that gradient independence needs to know.

Functions that jump (sign, step) have derivative 0: that is the gradient of the network at every width, almost surely.

Source: Yang, Tensor Programs II (arXiv:2006.14548), section 6; the scaling of mixed widths and Moments was derived and
checked against finite differences for this project.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.calculus import partial
from tensorprog.language.describe import describe
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import MatrixSpec, Width
from tensorprog.transforms.written_out import swapped

__all__ = ["Backward", "Gradient", "Use", "backprop"]


@dataclass(frozen=True)
class Gradient:
    """The gradient of theta with respect to a node x.

    Attributes:
        node: Of the shape of x, with the output's untied axes in front.
        ties: For each axis of the output the axis of x that is the same (J vanishes off their diagonal), or None: untied.
    """

    node: Node
    ties: tuple[int | None, ...] = ()

    @property
    def free(self) -> list[int]:
        """The output's axes that stand in front."""
        return [o for o, tie in enumerate(self.ties) if tie is None]


@dataclass(frozen=True)
class Use:
    """One product g = W h, or g = W.T h, of the forward pass.

    Attributes:
        matrix: W.
        transposed: Is it W.T?
        operand: h.
        gradient: dg.
    """

    matrix: MatrixSpec
    transposed: bool
    operand: Node
    gradient: Gradient


@dataclass(frozen=True)
class Backward:
    """All gradients of one output.

    Attributes:
        output: theta.
        gradients: Of every node theta depends on.
        uses: The products of the forward pass, in its order.
        positions: How many of theta's axes, the last ones, are positions of one example; the others are examples.
    """

    output: Node
    gradients: dict[Node, Gradient]
    uses: tuple[Use, ...]
    positions: int = 0


def root_of_ratio(width: Width | None, other: Width | None = None) -> Node:
    """sqrt(n_width / n_other); N for None. Exact where it is rational."""
    above = algebra.constant(1 if width is None else width.ratio)
    if other is None or other.ratio == 1:
        return algebra.fn("sqrt", above)
    return algebra.fn("sqrt", algebra.div(above, algebra.constant(other.ratio)))


def backprop(output: Node, positions: int = 0) -> Backward:
    """The gradients of a scalar with respect to everything it is made of.

    Args:
        output: theta, a scalar; its axes are those of examples, and then of positions.
        positions: How many of its axes are positions.

    Raises:
        TensorProgramError: The output is a vector; an instruction has no derivative.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> W, x = tp.Matrix("W", n, n), tp.Vector("x", n, mean=1, var=0)
        >>> h = W @ x
        >>> dx = backprop(tp.moment(h * h).node).gradients[x.node].node
        >>> tp.limit(tp.Program(mean_dx=tp.Expression(algebra.moment(dx))))  # the counterexample of Tensor Programs II
        mean_dx = 2 (exact)
    """
    if output.width is not None or output.inner is not None:
        raise TensorProgramError(
            f"back-propagation from {describe(output)}",
            why="an output is a scalar",
            fix="take a tp.readout or a tp.moment",
            source=output.source,
        )
    return replace(_Pass(output).run(), positions=positions)


class _Pass:
    """One backward pass over the nodes, last first."""

    def __init__(self, output: Node, outer: tuple[Width | None, Width | None] | None = None) -> None:
        self.output = output
        self.outputs = output.shape
        self.outer = outer  # the two widths, in the body of an OuterNonlin: every gradient has both coordinates there
        self.collected: dict[Node, list[Gradient]] = {}
        self.taken: dict[Node, dict[tuple[int, tuple[int | None, ...]], dict[int, Gradient]]] = {}
        self.uses: list[Use] = []

    def run(self) -> Backward:
        seed = algebra.constant(1, self.outputs)
        self.collected[self.output] = [Gradient(seed, tuple(range(len(self.outputs))))]
        gradients: dict[Node, Gradient] = {}
        order = topological([self.output], lambda x: boundary_of(x) if x.op == "outer" else x.args)
        for x in reversed(order):
            g = self._total(x)
            if g is None:
                continue
            gradients[x] = g
            if x.args:
                self._pass_on(x, g)
        return Backward(self.output, gradients, tuple(reversed(self.uses)))

    # ---- bookkeeping ----
    def _typed(self, node: Node, shape: tuple[int, ...], width: Width | None) -> Node:
        """A gradient of the given shape, over the given width; in the body of an OuterNonlin over both of its widths."""
        return algebra.typed(node, shape, *(self.outer or (width, None)))

    def _give(self, x: Node, g: Gradient) -> None:
        if not g.node.is_zero and x.op != "constant":
            self.collected.setdefault(x, []).append(g)

    def _lead(self, ties: Sequence[int | None]) -> tuple[int, ...]:
        """The sizes of the axes in front of a gradient."""
        return tuple([k for k, tie in zip(self.outputs, ties, strict=True) if tie is None])

    def _total(self, x: Node) -> Gradient | None:
        parts = self.collected.pop(x, [])
        parts += [self._stacked(x, axis, ties, found) for (axis, ties), found in self.taken.pop(x, {}).items()]
        if not parts:
            return None
        known = [set(of) for of in zip(*[p.ties for p in parts], strict=True)]
        apart = {tie for of in known if len(of) > 1 for tie in of if tie is not None}
        parts = [self._untied(x.shape, p, apart) for p in parts]
        ties = parts[0].ties
        total = algebra.add([(1, p.node) for p in parts])
        total = self._typed(total, (*self._lead(ties), *x.shape), x.width)
        total.source = total.source or x.source  # reports name the user's line that is differentiated
        return None if total.is_zero else Gradient(total, ties)

    def _untied(self, shape: tuple[int, ...], g: Gradient, axes: Container[int]) -> Gradient:
        """The Jacobian with the output's axes that are tied to some axes in front."""
        ties = tuple([None if tie in axes else tie for tie in g.ties])
        if ties == g.ties:
            return g
        new = Gradient(g.node, ties)
        lead = len(new.free)
        full = (*self._lead(ties), *shape)
        places = [new.free.index(o) for o in g.free]
        a = algebra.view(g.node, [*places, *range(lead, len(full))], full) if g.node.shape else g.node
        factors = [a]
        for o, tie in enumerate(g.ties):
            if tie is not None and ties[o] is None:
                delta = algebra.constant(np.eye(self.outputs[o], dtype=np.int64))
                factors.append(algebra.view(delta, (new.free.index(o), lead + tie), full))
        return Gradient(algebra.mul(factors), ties)

    def _stacked(self, x: Node, axis: int, ties: tuple[int | None, ...], found: dict[int, Gradient]) -> Gradient:
        """The gradients of the positions of an axis, together; ties are those of x."""
        lead = self._lead(ties)
        shape = (*lead, *x.shape[:axis], *x.shape[axis + 1 :])
        zero = algebra.constant(0)
        parts = [self._typed(found[i].node if i in found else zero, shape, x.width) for i in range(x.shape[axis])]
        return Gradient(algebra.stack(parts, axis + len(lead)), ties)

    # ---- rules ----
    def _pass_on(self, x: Node, g: Gradient) -> None:
        """Gives the operands of x what its gradient makes of theirs."""
        match x.op:
            case "add" | "mul" | "fn":
                for a, slope in self._slopes(x):
                    self._elementwise(x, a, g, slope)
            case "matmul":
                self._matmul(x, g)
            case "moment":
                self._moment(x, g)
            case "view":
                self._view(x, g)
            case "take":
                self._take(x, g)
            case "sum":
                self._sum(x, g)
            case "pick":  # this and the next two mix the positions of an axis
                self._pick(x, self._untied(x.shape, g, (x.attr.axis,)))
            case "stack":
                self._stack(x, self._untied(x.shape, g, (x.attr,)))
            case "softmax":
                self._softmax(x, self._untied(x.shape, g, (x.attr,)))
            case "outer":
                self._outer(x, g)
            case _:
                raise TensorProgramError(f"no rule differentiates {x.op!r}", fix="please report this", source=x.source)

    def _moment(self, x: Node, g: Gradient) -> None:
        (y,) = x.args
        scaled = algebra.mul([g.node, algebra.fn("reciprocal", root_of_ratio(y.width))])
        self._give(y, Gradient(algebra.typed(scaled, g.node.shape, y.width, None), g.ties))

    def _take(self, x: Node, g: Gradient) -> None:
        """The gradients of the positions of an axis are collected, and stacked once."""
        (y,), (axis, i) = x.args, x.attr
        ties = _with_axis(g.ties, axis)
        slot = self.taken.setdefault(y, {}).setdefault((axis, ties), {})
        if i in slot:
            self._give(y, self._stacked(y, axis, ties, {i: g}))
        else:
            slot[i] = g

    def _pick(self, x: Node, g: Gradient) -> None:
        (y,), lead = x.args, self._lead(g.ties)
        node = self._typed(g.node, (*lead, *x.shape), x.width)
        back = algebra.pick_transposed(node, x.attr.axis + len(lead), x.attr.positions, y.shape[x.attr.axis])
        self._give(y, Gradient(back, g.ties))

    def _stack(self, x: Node, g: Gradient) -> None:
        axis, lead = x.attr, self._lead(g.ties)
        ties = tuple([None if tie is None else tie - (tie > axis) for tie in g.ties])
        node = self._typed(g.node, (*lead, *x.shape), x.width)
        for i, a in enumerate(x.args):
            self._give(a, Gradient(self._narrowed(a, algebra.take(node, axis + len(lead), i)), ties))

    def _sum(self, x: Node, g: Gradient) -> None:
        (y,), axis, lead = x.args, x.attr, self._lead(g.ties)
        shape = (*lead, *y.shape)
        index = [i + (i >= axis + len(lead)) for i in range(len(shape) - 1)]
        node = algebra.view(g.node, index, shape) if g.node.shape else self._typed(g.node, shape, x.width)
        self._give(y, Gradient(node, _with_axis(g.ties, axis)))

    def _softmax(self, x: Node, g: Gradient) -> None:
        (y,), lead = x.args, self._lead(g.ties)
        shape, axis = (*lead, *x.shape), x.attr + len(lead)
        a = algebra.view(x, range(len(lead), len(shape)), shape)
        weighted = algebra.mul([a, algebra.typed(g.node, shape, None, None)])
        total = algebra.view(algebra.sum_axis(weighted, axis), [i for i in range(len(shape)) if i != axis], shape)
        centred = algebra.add([(1, weighted), (-1, algebra.mul([a, total]))])
        self._give(y, Gradient(centred, g.ties))

    def _slopes(self, x: Node) -> list[tuple[Node, Node]]:
        """Every operand of an elementwise node, and the derivative in it."""
        if (
            x.op == "fn" and PRIMITIVES[x.attr.name].jumps
        ):  # flat almost everywhere: a network has no gradient there, at any width
            return []
        found = []
        for i, a in enumerate(x.args):
            slope = partial(x, i)
            if slope is None:
                raise TensorProgramError(
                    f"{describe(x)} has no derivative", why="back-propagation needs one", source=x.source, label=x.label
                )
            found.append((a, slope))
        return found

    def _elementwise(self, x: Node, a: Node, g: Gradient, slope: Node) -> None:
        """Gives the operand a of x the gradient g times the slope, summed over what a does not have."""
        lead = self._lead(g.ties)
        shape = (*lead, *x.shape)
        if slope.shape and lead:
            slope = algebra.view(slope, range(len(lead), len(shape)), shape)
        product = algebra.mul([g.node, slope])
        if x.op == "fn" and x.attr.name == "sqrt":
            product = _cancelled(product, x)
        product = self._typed(product, shape, x.width)
        if a.shape == x.shape:
            self._give(a, Gradient(self._narrowed(a, product, x), g.ties))
            return
        product = self._in_front(product, g, x.shape, ())  # a has no axes: all but the outputs' are summed
        self._give(a, Gradient(self._narrowed(a, product, x), (None,) * len(self.outputs)))

    def _in_front(self, node: Node, g: Gradient, shape: tuple[int, ...], kept: Sequence[int]) -> Node:
        """A gradient with the output's axes that are not tied to what is `kept` in front; what else is not kept is summed."""
        free, tied = g.free, {tie: o for o, tie in enumerate(g.ties) if tie is not None}
        labels = [
            *free,
            *[tied[p] if p in tied and p not in kept else len(self.outputs) + p for p in range(len(shape))],
        ]
        for axis in reversed(range(len(labels))):
            if labels[axis] >= len(self.outputs) and labels[axis] - len(self.outputs) not in kept:
                node = algebra.sum_axis(node, axis)
                labels.pop(axis)
        wanted = [*sorted([k for k in labels if k < len(self.outputs)]), *[len(self.outputs) + p for p in kept]]
        return algebra.transpose(node, [labels.index(k) for k in wanted])

    def _narrowed(self, a: Node, product: Node, x: Node | None = None) -> Node:
        """A gradient over a width as one of a scalar operand: sqrt(r) times its Moment."""
        width = product.width if x is None else x.width
        if self.outer is None and a.width is None and width is not None:
            product = algebra.typed(product, product.shape, width, None)
            return algebra.mul([root_of_ratio(width), algebra.moment(product)])
        return product

    def _matmul(self, x: Node, g: Gradient) -> None:
        matrix, transposed, _ = x.attr
        (h,) = x.args
        self.uses.append(Use(matrix, transposed, h, g))
        node = algebra.typed(g.node, g.node.shape, x.width, None)
        back = algebra.matmul(matrix, not transposed, node, backward=True)
        back.source = back.source or x.source
        self._give(h, Gradient(algebra.mul([root_of_ratio(h.width, x.width), back]), g.ties))

    def _view(self, x: Node, g: Gradient) -> None:
        (y,) = x.args
        index = x.attr
        if len(set(index)) < len(index):
            self._diagonal(x, g)
            return
        node = self._typed(g.node, (*self._lead(g.ties), *x.shape), x.width)
        ties = tuple([index.index(tie) if tie in index else None for tie in g.ties])
        self._give(y, Gradient(self._in_front(node, g, x.shape, index), ties))

    def _diagonal(self, x: Node, g: Gradient) -> None:
        """y[i] = x[i, i]: through one more axis for each repetition and a constant identity."""
        (y,) = x.args
        g = self._untied(x.shape, g, range(len(x.shape)))
        lead = len(self.outputs)
        node = self._typed(g.node, (*self.outputs, *x.shape), x.width)
        shape, seen, factors = list(node.shape), set(), []
        place = []
        for p in x.attr:
            if p in seen:
                factors.append((lead + p, len(shape), x.shape[p]))
                place.append(len(shape))
                shape.append(x.shape[p])
            else:
                place.append(lead + p)
            seen.add(p)
        spread = algebra.view(node, range(len(node.shape)), shape)
        deltas = [algebra.view(algebra.constant(np.eye(k, dtype=np.int64)), (i, j), shape) for i, j, k in factors]
        node = algebra.mul([spread, *deltas])
        kept = list(range(len(shape)))
        for axis in reversed(range(lead, len(shape))):
            if axis not in place:
                node = algebra.sum_axis(node, axis)
                kept.remove(axis)
        node = algebra.transpose(node, [*range(lead), *[kept.index(p) for p in place]])
        self._give(y, Gradient(node, g.ties))

    # ---- OuterNonlin ----
    def _outer(self, x: Node, g: Gradient) -> None:
        """The rules of the module's head, by a pass over the body with both coordinates in sight."""
        (body,) = x.args
        inside = _Pass(self.output, (body.width, body.inner))
        inside._give(body, Gradient(inside._typed(g.node, (*self._lead(g.ties), *x.shape), x.width), g.ties))
        for y in reversed(topological([body], _inside)):
            total = inside._total(y)
            if total is not None and _inside(y):
                inside._pass_on(y, total)
            elif total is not None and y.op != "constant":
                self._from_body(x, y, total)

    def _from_body(self, x: Node, y: Node, g: Gradient) -> None:
        """A gradient with both coordinates as one of a vector, a vector of the second block, or a scalar."""
        body = x.args[0]
        if y.op == "inner":
            (y,) = y.args
            node = algebra.mul([root_of_ratio(body.width, y.width), algebra.outer(swapped(g.node))])
        elif y.width is not None:
            node = algebra.outer(g.node)
        else:
            node = algebra.mul([root_of_ratio(body.width), algebra.moment(algebra.outer(g.node))])
        self._give(y, Gradient(node, g.ties))


def _cancelled(product: Node, root: Node) -> Node:
    """Root times 1/root is 1: the gradient of sqrt(y)**3 is 3/2 sqrt(y), at y = 0, too."""
    below = algebra.fn("reciprocal", root)
    if product.op == "add" and all(a.op == "mul" for a in product.args):
        terms = [(c, _cancelled(a, root)) for c, a in zip(product.attr, product.args, strict=True)]
        return algebra.add(terms)
    if product.op != "mul":
        return product
    powers = dict(zip(product.args, product.attr, strict=True))
    common = min(powers.get(root, 0), powers.get(below, 0))
    if common <= 0:
        return product
    powers[root], powers[below] = powers[root] - common, powers[below] - common
    return algebra.mul([*[(a, k) for a, k in powers.items() if k], algebra.ONE])


def _with_axis(ties: Sequence[int | None], axis: int) -> tuple[int | None, ...]:
    """Ties to the axes of what has one axis more."""
    return tuple([None if tie is None else tie + (tie >= axis) for tie in ties])


def _inside(y: Node) -> tuple[Node, ...]:
    """The operands of an instruction in the body of an OuterNonlin; none for what the body is made of."""
    return y.args if y.inner is not None and y.op != "inner" else ()


def boundary_of(x: Node) -> tuple[Node, ...]:
    """The operands of an OuterNonlin: what its body uses and is not part of it."""
    found: dict[Node, None] = {}
    for y in topological([x.args[0]], _inside):
        if y.op == "inner":
            found[y.args[0]] = None
        elif y.inner is None:
            found[y] = None
    return tuple(found)
