"""The network at one step of training, as a substitution in the graph of its passes.

Where features are learned (`Moved`), parameters are replaced by what they are now. Where they are not (`Nearby`), every vector is
what it was at first and a small power of n times an increment, x_t = x_0 + eps D_t, and the program carries the increments:

    D phi(x) = the divided difference of phi,    D (x y) = Dx y_0 + x_t Dy,    D (W h) = W_0 Dh + (W_t - W_0) h_t / eps,

so that f_t - f_0, which is of order one, is a Moment of increments. Moments inside the network move likewise. Under weight decay
x_0 is another one at every step: that of the first parameters, shrunk as much as they are by then.

Source: Yang and Littwin, Tensor Programs IIb (arXiv:2105.03703), appendix D, with the increments of all steps in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorprog.language import algebra
from tensorprog.language.algebra import ZERO
from tensorprog.language.differences import increment
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import MatrixSpec

__all__ = ["Moved", "Nearby", "Weights"]


@dataclass
class Weights:
    """All parameters at one step: their values, or their increments since the first over eps.

    Attributes:
        matrices: What a matrix is now; those that are not here have not moved.
        vectors: The same of initial vectors, input layers on their data among them.
    """

    matrices: dict[MatrixSpec, Node] = field(default_factory=dict)
    vectors: dict[Node, Node] = field(default_factory=dict)


class Moved:
    """The network with its parameters replaced by what they are now.

    Args:
        weights: The parameters.
        given: Nodes of the graph to what stands for them: error signals, vectors of some of the examples.
    """

    def __init__(self, weights: Weights, given: Mapping[Node, Node]) -> None:
        self.weights = weights
        self.new = dict(given)

    def now(self, root: Node) -> Node:
        """What a node is at this step."""
        new = self.new
        for x in topological([root], lambda x: () if x in new else x.args):
            if x in new:
                continue
            args = [new[a] for a in x.args]
            if x.op == "vector":
                new[x] = self.weights.vectors.get(x, x)
            elif x.op == "matmul" and x.attr.matrix in self.weights.matrices:
                m = self.weights.matrices[x.attr.matrix]
                new[x] = _placed(algebra.apply(m, x.attr.transposed, args[0], algebra.is_backward(x)), x)
            elif all(a is b for a, b in zip(args, x.args, strict=True)):
                new[x] = x
            else:
                new[x] = _placed(algebra.rebuild(x, args), x)
        return new[root]


class Nearby:
    """The network with its parameters moved by eps times their increments.

    Args:
        weights: The increments.
        eps: A power of n that tends to 0.
        forward: The nodes of the forward pass, operands first.
        given: As for `Moved`, for what is no part of the forward pass.
        first: The first parameters, shrunk.
    """

    def __init__(
        self, weights: Weights, eps: Node, forward: list[Node], given: Mapping[Node, Node], first: Weights
    ) -> None:
        self.weights, self.eps, self.first = weights, eps, Moved(first, {})
        self.known: dict[Node, Node] = {x: weights.vectors.get(x, ZERO) for x in forward if x.op == "vector"}
        self.new = dict(given)
        for x in forward:
            if x.op == "matmul":
                self.known[x] = _placed(self._product(x), x)
            elif x.op == "softmax":
                self.known[x] = self._softmax(x)
        self.inside = set(forward)

    def change(self, x: Node) -> Node:
        """The increment of a node of the forward pass."""
        return increment(x, self.known, self.eps, self.first.now)

    def now(self, root: Node) -> Node:
        """What a node is at this step."""
        new = self.new
        for x in topological([root], lambda x: () if x in new or x in self.inside else x.args):
            if x in new:
                continue
            if x in self.inside:
                new[x] = self._moved(x, self.change(x))
                continue
            args = [new[a] for a in x.args]
            if x.op == "matmul":
                m = self.weights.matrices.get(x.attr.matrix)
                new[x] = _sum(self._at_first(x, args[0]), self.eps, ZERO if m is None else _applied(m, x, args[0]))
            elif all(a is b for a, b in zip(args, x.args, strict=True)):
                new[x] = self.first.now(x) if x.op == "vector" else x
            else:
                new[x] = algebra.rebuild(x, args)
            new[x] = _placed(new[x], x)
        return new[root]

    def _moved(self, x: Node, d: Node) -> Node:
        return _sum(self.first.now(x), self.eps, d)

    def _at_first(self, x: Node, operand: Node) -> Node:
        """The product x of another operand with the first matrix."""
        m = self.first.weights.matrices.get(x.attr.matrix)
        return algebra.applied(x, [operand]) if m is None else _applied(m, x, operand)

    def _product(self, x: Node) -> Node:
        (h,) = x.args
        d = self.change(h)
        m = self.weights.matrices.get(x.attr.matrix)
        terms = [] if d.is_zero else [(1, self._at_first(x, d))]
        if m is not None:
            terms.append((1, _applied(m, x, self._moved(h, d))))
        return algebra.typed(algebra.add(terms), x.shape, x.width, None) if terms else ZERO

    def _softmax(self, x: Node) -> Node:
        """p (E - p.E) / (1 + eps p.E), E the divided difference of exp at 0 along the increment."""
        (s,) = x.args
        d = self.change(s)
        if d.is_zero:
            return ZERO
        e = algebra.difference("exp", algebra.typed(ZERO, x.shape, None, None), d, self.eps)
        p = self.first.now(x)
        total = algebra.sum_axis(algebra.mul([p, e]), x.attr)
        mean = algebra.view(total, [i for i in range(len(x.shape)) if i != x.attr], x.shape)
        below = algebra.add([(1, algebra.ONE), (1, algebra.mul([self.eps, mean]))])
        found = algebra.mul([p, algebra.sub(e, mean), algebra.fn("reciprocal", below)])
        return algebra.typed(found, x.shape, None, None)


def _applied(m: Node, x: Node, operand: Node) -> Node:
    return algebra.apply(m, x.attr.transposed, operand, algebra.is_backward(x))


def _sum(x: Node, eps: Node, d: Node) -> Node:
    """x + eps d."""
    if d.is_zero:
        return x
    return algebra.typed(algebra.add([(1, x), (1, algebra.mul([eps, d]))]), x.shape, x.width, None)


def _placed(new: Node, old: Node) -> Node:
    """Reports name the user's line."""
    new.source = new.source or old.source
    return new
