"""The sizes of all coordinates in a run of training, as outputs of its program.

For every layer, at every step: the mean square of what it computes, of how far that is from where it began, and of what all
updates of its weights make of the input it had at first. Powers of n may grow: a program like that has no limit, and runs at
any width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from tensorprog.coordinates.setup import Setup
from tensorprog.language import algebra
from tensorprog.language.data import Embedding
from tensorprog.language.node import Node, topological
from tensorprog.language.program import Output, Program
from tensorprog.training.divergence import STEP
from tensorprog.training.points import Moved, Weights
from tensorprog.training.powers import Powers
from tensorprog.training.trace import Trace
from tensorprog.training.unroll import Unrolled

__all__ = ["ACTIVATION", "CHANGE", "DECAY", "LOGITS", "OUTPUT", "UPDATE", "Coordinates", "Layer", "key", "layers_of"]

ACTIVATION, CHANGE, UPDATE, DECAY = "activation", "change", "update", "decay"
OUTPUT, LOGITS = "f", "logits"
"""The kinds of what the network returns, and of what attention takes a softmax of."""


@dataclass(frozen=True)
class Layer:
    """What is measured under one name.

    Attributes:
        name: Of the parameter; "f" is the output, "logits" what attention takes a softmax of.
        kind: "input", "hidden", "output", "logits", or "f" of what the network returns.
        nodes: What it computes, in the graph of the network; none for biases and gains.
        own: The vectors that are trained, or none.
    """

    name: str
    kind: str
    nodes: tuple[Node, ...]
    own: tuple[Node, ...] = ()


def layers_of(forward: list[Node], theta: Node, kinds: dict[str, str]) -> list[Layer]:
    """The layers of a network, in the order of their first use."""
    found: dict[str, Layer] = {}
    used: dict[str, int] = {}
    readers: dict[Node, int] = {}
    for i, x in enumerate(forward):
        for a in x.args:
            readers.setdefault(a, i)

    def more(name: str, kind: str, node: Node | None, own: Node | None = None) -> None:
        known = found.get(name, Layer(name, kind, ()))
        place = node if own is None else own
        used.setdefault(name, len(forward) if place is None else readers.get(place, len(forward)))
        nodes = known.nodes if node is None else (*known.nodes, node)
        found[name] = replace(known, nodes=nodes, own=known.own if own is None else (*known.own, own))

    for x in forward:
        if x.op == "matmul":
            more(x.attr.matrix.name, "hidden", x)
        elif x.op == "vector" and x.attr.trainable:
            more(x.attr.name, kinds[x.attr.name], x if isinstance(x.attr, Embedding) else None, x)
        elif x.op == "softmax":
            more(LOGITS, LOGITS, _moving(x.args[0]))
    more("f" if "f" not in found else "f_output", OUTPUT, theta)
    return sorted(found.values(), key=lambda layer: used[layer.name])


def key(layer: Layer, what: str) -> str:
    """The name of an output."""
    return f"{what}_{layer.name}"


def _moving(logits: Node) -> Node:
    """Without the constants that a mask adds."""
    if logits.op != "add":
        return logits
    terms = [
        (c, a) for c, a in zip(logits.attr, logits.args, strict=True) if any(x.op == "moment" for x in topological([a]))
    ]
    return algebra.typed(algebra.add(terms), logits.shape, None, None) if terms else logits


class Coordinates(Unrolled):
    """A run of training whose outputs are sizes, "activation_LAYER", ..: mean squares, one a step.

    Args:
        trace: The network, its data and how it is trained, in muP.
        setup: How it scales.
        right: How it should scale; the two are one at the width `base`.
        base: A width.
    """

    def __init__(self, trace: Trace, setup: Setup, right: Setup, base: int) -> None:
        self.setup, self.right, self.base, self.given_rates = setup, right, base, trace.recipe.rates
        powers = Powers(Fraction(0), setup.output, dict(setup.rates), Fraction(0))

        def scaled(t: int, name: str) -> Node:
            return algebra.scale(self._at_base(setup.rates[name] - right.rates[name]), self.given_rates(t, name))

        super().__init__(
            trace.net, trace._train, None, replace(trace.recipe, powers=powers, rates=scaled, probes={}), True
        )

    def _at_base(self, p: Fraction) -> float | int:
        """base^p, which undoes n^-p there."""
        return int(self.base**p.numerator) if p.denominator == 1 and p >= 0 else float(self.base) ** float(p)

    def _kept(self, t: int, name: str) -> Node:
        return algebra.sub(algebra.ONE, self._decay(t, name)) if self.recipe.decay else algebra.ONE

    def _decay(self, t: int, name: str) -> Node:
        """The part of a parameter that a step takes away."""
        p = self.setup.decays[name]
        rate = algebra.mul([self.power(p), self.given_rates(t, name)])
        return algebra.scale(self.recipe.decay, algebra.scale(self._at_base(p), rate))

    def _initial(self) -> Weights:
        weights = Weights()
        for x in self.whole.forward:
            name = x.attr.matrix.name if x.op == "matmul" else x.attr.name if x.op == "vector" else None
            p = self.setup.starts.get(name, 0) if name is not None else 0
            if p == 0 or name is None:
                continue
            factor = algebra.ZERO
            if isinstance(p, Fraction):
                other = self.right.starts[name]
                assert isinstance(other, Fraction)
                factor = algebra.scale(self._at_base(p - other), self.power(p))
            if x.op == "vector":
                weights.vectors[x] = _like(algebra.mul([factor, x]), x)
            else:
                w = x.attr.matrix
                weights.matrices[w] = algebra.typed(algebra.mul([factor, algebra.matrix(w)]), (), w.rows, w.cols)
        return weights

    @cached_property
    def layers(self) -> list[Layer]:
        """What is measured."""
        return layers_of(self.whole.forward, self.whole.theta, self.kinds)

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Name of every parameter to its kind."""
        from tensorprog.training.passes import parameter_kinds

        return parameter_kinds(self.whole)[0]

    def program(self) -> Program:
        """Mean squares of every step."""
        rows: dict[str, list[Node]] = {}
        begun: dict[Node, Node] = {}
        start = Weights(dict(self.weights.matrices), dict(self.weights.vectors))
        for t in range(len(self.recipe.batches) + 1):
            point = self._point(self.whole, {})
            assert isinstance(point, Moved)
            for layer in self.layers:
                found = self._of(layer, point, begun, start)
                for what, nodes in found.items():
                    rows.setdefault(key(layer, what), []).append(_mean_square(nodes))
                if self.recipe.decay and layer.name in self.setup.decays:
                    nodes = found[ACTIVATION] if ACTIVATION in found else [point.now(x) for x in layer.own]
                    taken = algebra.power(self._decay(t - 1, layer.name), 2) if t else algebra.ZERO
                    rows.setdefault(key(layer, DECAY), []).append(algebra.mul([taken, _mean_square(nodes)]))
            if t < len(self.recipe.batches):
                self._step(t, point, self._output(self.whole, point, 0))
        return Program({name: Output(algebra.stack(values, 0), (STEP,)) for name, values in rows.items()})

    def _of(self, layer: Layer, point: Moved, begun: dict[Node, Node], start: Weights) -> dict[str, list[Node]]:
        """What is measured of a layer now."""
        found: dict[str, list[Node]] = {}
        scale = self.power(self.setup.output - 1)
        now = [point.now(x) for x in layer.nodes]

        def before(x: Node) -> Node:
            return begun.setdefault(x, point.now(x))

        if layer.kind == OUTPUT:
            now = [algebra.typed(algebra.mul([scale, y]), y.shape, None, None) for y in now]
        if now:
            first = [begun.setdefault(x, y) for x, y in zip(layer.nodes, now, strict=True)]
            found[ACTIVATION] = now
            found[CHANGE] = [_like(algebra.sub(y, x), y) for x, y in zip(first, now, strict=True)]
        if layer.kind == "hidden":
            found[UPDATE] = [self._of_matrix(x, before(x.args[0]), start) for x in layer.nodes]
        elif layer.own:
            moved = [_like(algebra.sub(point.now(x), start.vectors.get(x, x)), x) for x in layer.own]
            found[UPDATE] = moved
            if layer.kind == "output":  # its part of the output, which is linear in it
                found[UPDATE] = [self.contribution(dict(zip(layer.own, moved, strict=True)), start)]
        return found

    def _of_matrix(self, x: Node, operand: Node, start: Weights) -> Node:
        w = x.attr.matrix
        first = start.matrices.get(w, algebra.matrix(w))
        change = algebra.sub(self.weights.matrices.get(w, first), first)
        if change.is_zero:
            return algebra.constant(0, x.shape, x.width)
        change = algebra.typed(change, (), w.rows, w.cols)
        return _like(algebra.apply(change, x.attr.transposed, operand, algebra.is_backward(x)), x)

    def contribution(self, moved: dict[Node, Node], start: Weights) -> Node:
        """What changes of readouts make of the features there were at first."""
        vectors = dict(start.vectors)
        for x in self.whole.forward:
            if x.op == "vector" and self.kinds.get(x.attr.name) == "output":
                vectors[x] = moved.get(x, algebra.constant(0, x.shape, x.width))
        theta = Moved(Weights(start.matrices, vectors), {}).now(self.whole.theta)
        scale = self.power(self.setup.output - 1)
        return algebra.typed(algebra.mul([scale, theta]), self.whole.theta.shape, None, None)


def _like(x: Node, other: Node) -> Node:
    return algebra.typed(x, other.shape, other.width, other.inner)


def _mean_square(nodes: list[Node]) -> Node:
    """Over coordinates, axes and nodes."""
    terms = []
    for x in nodes:
        square = algebra.typed(algebra.power(x, 2), x.shape, x.width, x.inner)
        size = int(np.prod(x.shape))
        square = square if x.width is None else algebra.moment(square)
        for _ in x.shape:
            square = algebra.sum_axis(square, 0)
        terms.append((Fraction(1, size * len(nodes)), square))
    return algebra.typed(algebra.add(terms), (), None, None)
