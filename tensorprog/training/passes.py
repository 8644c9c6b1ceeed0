"""The network on one set of data, as the graph that every step of training is a substitution in.

The forward pass is that of `Network.body`. Its gradients are asked for in one of two ways: of the sum of all outputs, each times
its error signal chi (one backward pass, whatever the number of outputs); or of every output, as the Jacobians of
`backprop.py`, for chi to multiply outside, so that what the limit has to know is the same at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.data import ArrayData, Embedding
from tensorprog.language.node import Node, topological
from tensorprog.networks.network import Network
from tensorprog.networks.outputs import concatenated, seen
from tensorprog.networks.readouts import Readout
from tensorprog.networks.samples import Batch
from tensorprog.transforms.backprop import Backward, Gradient, backprop

__all__ = [
    "Backprop",
    "Pass",
    "contracted",
    "gradient_of",
    "on_data",
    "origins",
    "parameter_kinds",
    "spread_over",
    "subset",
]


@dataclass(frozen=True)
class Backprop:
    """Gradients, and what multiplies them.

    Attributes:
        of: The gradients of a scalar.
        chi: Places of the error signals of its outputs; None where these are inside.
    """

    of: Backward
    chi: Node | None


class Pass:
    """The network on one set of data.

    Args:
        net: The network.
        batch: Its data.

    Attributes:
        theta: Its outputs, (examples[, outputs]); f is a power of n times this.
        chi: The place of the error signals, of the shape of theta.
        several: Has theta an axis of outputs?
    """

    def __init__(self, net: Network, batch: Batch) -> None:
        body = net.body(batch.data)
        self.examples = len(next(iter(batch.arrays.values())))
        self.several = body.several
        self.outputs = body.outputs
        self.separate = body.backward
        columns = [seen(o.theta if isinstance(o, Readout) else o, batch.data) for o in body.outputs]
        have = [b.positions for b in body.backward]
        self.theta = concatenated(columns, 1, have) if body.several else columns[0]
        self.chi = algebra.hyperparameter("chi", None, self.theta.shape)
        self.forward = topological([self.theta])
        self.embeddings = [x for x in self.forward if x.op == "vector" and isinstance(x.attr, Embedding)]
        self._together: list[Backprop] | None = None

    def together(self) -> list[Backprop]:
        """Gradients of the sum over outputs of chi theta."""
        if self._together is None:
            total = algebra.mul([self.chi, self.theta])
            for _ in self.theta.shape:
                total = algebra.sum_axis(total, 0)
            self._together = [Backprop(backprop(total), None)]
        return self._together

    def apart(self) -> list[Backprop]:
        """Gradients of every output."""
        found, start = [], 0
        for back in self.separate:
            if not self.several:
                return [Backprop(back, self.chi)]
            if back.positions:
                size = back.output.shape[-1]
                found.append(Backprop(back, algebra.pick(self.chi, 1, range(start, start + size))))
            else:
                size = 1
                found.append(Backprop(back, algebra.take(self.chi, 1, start)))
            start += size
        return found

    @property
    def mixes(self) -> bool:
        """Does an output depend on other examples?"""
        for back in self.separate:
            examples = range(len(back.output.shape) - back.positions)
            gradients = [use.gradient for use in back.uses]
            gradients += [g for x, g in back.gradients.items() if x in self.embeddings]
            for g in gradients:
                if g.node.shape and any(g.ties[o] is None for o in examples):
                    return True
        return False


def spread_over(node: Node, g: Gradient, chi: Node | None) -> Node:
    """A Jacobian, as its node is now, times the error signals of its outputs; all of the node's axes are kept."""
    if chi is None:
        return node
    places = [g.free.index(o) if tie is None else len(g.free) + tie for o, tie in enumerate(g.ties)]
    signals = algebra.view(chi, places, node.shape)
    if node.op == "stack":  # position by position: a product of a stack is looked into by few rules
        axis = node.attr
        parts = [algebra.mul([algebra.take(signals, axis, i), a]) for i, a in enumerate(node.args)]
        shape = (*node.shape[:axis], *node.shape[axis + 1 :])
        return algebra.stack([algebra.typed(a, shape, node.width, node.inner) for a in parts], axis)
    return algebra.typed(algebra.mul([signals, node]), node.shape, node.width, node.inner)


def on_data(columns: Node, data: ArrayData) -> Node:
    """What a change of the entries of an input layer, one vector for each feature, makes of its data."""
    shape = (*data.shape, data.features)
    rows = algebra.constant(data.array / data.features**0.5)
    product = algebra.mul([algebra.view(columns, [len(shape) - 1], shape), rows])
    return algebra.sum_axis(algebra.typed(product, shape, columns.width, None), len(shape) - 1)


def gradient_of(g: Gradient, now: Node, chi: Node | None, x: Node) -> Node:
    """The gradient of a vector, summed over the outputs."""
    node = spread_over(algebra.typed(now, g.node.shape, x.width, None), g, chi)
    for _ in g.free:
        if node.op == "stack" and node.attr > 0:
            node = algebra.stack([algebra.sum_axis(a, 0) for a in node.args], node.attr - 1)
        else:
            node = algebra.sum_axis(node, 0)
    return algebra.typed(node, x.shape, x.width, None)


def contracted(g: Node, metric: Node, target: tuple[int, ...]) -> Node:
    """The gradients of an input layer on some data, contracted with x.x'/d: what they move it by on other data.

    Args:
        g: Over the axes of the one.
        metric: Over the axes of both.
        target: The axes of the other.
    """
    if g.op == "stack":  # a sum, not a contraction of a stack
        parts = [(1, contracted(a, algebra.take(metric, g.attr, i), target)) for i, a in enumerate(g.args)]
        return algebra.typed(algebra.add(parts), target, g.width, None)
    shape = (*g.shape, *target)
    left = algebra.view(g, range(len(g.shape)), shape) if g.shape else g
    total = algebra.typed(algebra.mul([left, metric]), shape, g.width, None)
    for _ in g.shape:
        total = algebra.sum_axis(total, 0)
    return total


def subset(batch: Batch, examples: Sequence[int]) -> Batch:
    """Some examples of a batch."""
    index = np.asarray(examples, dtype=np.int64)
    short = batch.coordinates
    return Batch(
        {k: a[index] for k, a in batch.arrays.items()},
        batch.axes,
        tuple(range(len(index))),
        None if short is None else {k: a[index] for k, a in short.items()},
        batch.values,
    )


def origins(part: Pass, whole: Pass, examples: Sequence[int]) -> dict[Node, tuple[Node, int]]:
    """The input layers' vectors of some examples, to those of all and the axis they are positions of."""
    found = {}
    for e in part.embeddings:
        for other in whole.embeddings:
            if e.attr.name != other.attr.name or len(e.shape) != len(other.shape):
                continue
            for axis, size in enumerate(other.shape):
                if size == whole.examples and e.shape[axis] == len(examples):
                    array = other.attr.data.array
                    if e not in found and np.array_equal(np.take(array, examples, axis), e.attr.data.array):
                        found[e] = other, axis
    return found


def parameter_kinds(whole: Pass) -> tuple[dict[str, str], list[str]]:
    """Name of every parameter to "input", "hidden" or "output"; and the hidden matrices in the order of their first use.

    Raises:
        TensorProgramError: a trained vector whose coordinates along an axis are correlated.
    """
    readouts = {p.name for o in whole.outputs if isinstance(o, Readout) for p in o.parts}
    kinds: dict[str, str] = {}
    matrices: list[str] = []
    for x in whole.forward:
        if x.op == "matmul":
            name = x.attr.matrix.name
            if name not in kinds:
                matrices.append(name)
            kinds[name] = "hidden"
        elif x.op == "vector" and x.attr.trainable:
            kinds[x.attr.name] = "output" if x.attr.name in readouts else "input"
            if not isinstance(x.attr, Embedding) and x.attr.cov is not None:
                raise TensorProgramError(
                    f"the trained vector {x.attr.name} has a covariance along its axis",
                    why="what is trained is independent at the start",
                    fix="give it var= in place of cov=, or do not train it",
                    source=x.source,
                )
    return kinds, matrices
