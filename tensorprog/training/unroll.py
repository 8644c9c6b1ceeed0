"""Gradient descent unrolled: one program that computes the outputs of a network at every step of its training.

The network is a graph, built once (`passes.py`); a step is a substitution in it (`points.py`), and the update of every parameter
is read off the pairs of gradients and what they were gradients of:

    W    <-  W - lr s2 n^(-r) sum over uses g = W h, and over examples, of  chi dg h'/n      a `tp.matrix`
    U x' <-  U x' - lr s2 n^(-r) sum over the batch of  chi_b dh_b (x_b.x'/d)                input layers, on all data
    v    <-  v - lr s2 n^(-r) sum over the batch of  chi_b dv_b                              readouts, biases, gains

so that a step costs as many instructions as the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.algebra import ONE
from tensorprog.language.data import Embedding
from tensorprog.language.node import Node
from tensorprog.language.program import Output, Program
from tensorprog.language.symbols import MatrixSpec, Number
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.network import Network
from tensorprog.networks.outputs import seen
from tensorprog.networks.samples import Batch
from tensorprog.training.divergence import STEP
from tensorprog.training.losses import OUTPUT, Loss
from tensorprog.training.optimizers import Optimizer
from tensorprog.training.pairs import Pairs, summed
from tensorprog.training.passes import Backprop, Pass, contracted, gradient_of, on_data, origins, spread_over, subset
from tensorprog.training.points import Moved, Nearby, Weights
from tensorprog.training.powers import Powers
from tensorprog.transforms.backprop import root_of_ratio

__all__ = ["F0", "Recipe", "Unrolled"]

F0 = "f0"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        powers: Of its parametrization.
        loss: With the targets.
        batches: The examples of every step.
        rates: The rate of a step and a parameter.
        optimizer: What is made of gradients.
        decay: Of the weights: a step at the rate lr leaves 1 - lr decay of them.
        coupled: The same, added to gradients before the optimizer sees them.
        probes: Name to a network whose output is a Moment of the trained network's vectors.
        clip: The largest norm of all gradients together; None for any.
        frozen: The names of parameters that are not trained.
    """

    powers: Powers
    loss: Loss
    batches: Sequence[Sequence[int]]
    rates: Callable[[int, str], Node]
    optimizer: Optimizer
    decay: Number
    frozen: frozenset[str]
    coupled: Number
    clip: Number | None
    probes: Mapping[str, Network]


class Unrolled:
    """A run of training as a program.

    Args:
        net: The network.
        train: The data it is trained on.
        test: Data of which it only computes outputs; None for none.
        recipe: How.
        own: Is f_0 what the network itself computes at finite width? If not, it is the hyperparameter "f0". (Where features are
            learned f_0 tends to 0, and is always the network's own.)
    """

    def __init__(self, net: Network, train: Batch, test: Batch | None, recipe: Recipe, own: bool) -> None:
        self.net, self.train, self.test, self.recipe, self.own = net, train, test, recipe, own
        self.whole = Pass(net, train)
        self.passes = [self.whole] + ([Pass(net, test)] if test is not None else [])
        self.learning = recipe.powers.scale == 0
        self.matrix_step = getattr(recipe.optimizer, "matrix_step", None)
        self.linear = getattr(recipe.optimizer, "others", recipe.optimizer).linear  # of all that is no hidden matrix
        self.parts: dict[tuple[int, ...], tuple[Pass, dict[Node, tuple[Node, int]]]] = {}
        self.root = _root(self.whole.forward)
        self.weights = self._initial()
        self.firsts = [Weights()]  # of every step: the first parameters, shrunk by weight decay
        self.left: list[dict[str, Node]] = [{}]  # of every step: what is left of each of them, by name
        self.state: dict[Any, Any] = {}  # of the optimizer
        self.decays = not self.learning and bool(recipe.decay or recipe.coupled)
        shapes = [p.theta.shape for p in self.passes]
        size = (sum([s[0] for s in shapes]), *shapes[0][1:])
        size = (len(recipe.batches) + 1, *size) if self.decays else size
        self.f0 = algebra.hyperparameter(F0, np.zeros(size), size)
        if not self.learning and self.whole.mixes and any(len(b) < self.whole.examples for b in recipe.batches):
            raise TensorProgramError(
                "mini-batches of a network that mixes examples, in a parametrization with a kernel limit",
                why="its outputs depend on the batch, so that no initial outputs f0 are the same at every step",
                fix='use batch="full", or parametrization="mup"',
            )

    # ---- powers of n ----
    def power(self, p: Fraction) -> Node:
        """n^-p, n the reference width."""
        k = 2 * p
        if k.denominator == 1:
            node = algebra.power(self.root, abs(k.numerator))
        elif k.denominator == 2:
            node = algebra.power(algebra.fn("sqrt", self.root), abs(k.numerator))
        else:
            raise TensorProgramError(f"the power n^{-p} of a parametrization", fix="use multiples of 1/4 as exponents")
        return node if k >= 0 else algebra.fn("reciprocal", node)

    def _initial(self) -> Weights:
        """Values, with readouts as small as they start; or increments of 0."""
        weights = Weights()
        if self.learning and self.recipe.powers.initial:
            readouts = {x for p in self.passes for x in p.forward if x.op == "vector" and self._is_readout(x)}
            for x in readouts:
                weights.vectors[x] = algebra.mul([self.power(self.recipe.powers.initial), x])
        return weights

    def _is_readout(self, x: Node) -> bool:
        from tensorprog.networks.readouts import Readout

        return any(x.attr.name in (p.name for p in o.parts) for o in self.whole.outputs if isinstance(o, Readout))

    # ---- the run ----
    def program(self) -> Program:
        """f (steps + 1, examples), f_test and the loss of every step."""
        found: list[list[Node]] = [[] for _ in self.passes]
        losses = []
        probes = self._probes()
        probed: dict[str, list[Node]] = {name: [] for name in probes}
        everything = range(self.whole.examples)
        for t in range(len(self.recipe.batches) + 1):
            points = [self._point(p, {}) for p in self.passes]
            outputs = [self._output(p, point, t) for p, point in zip(self.passes, points, strict=True)]
            for column, f in zip(found, outputs, strict=True):
                column.append(f)
            for name, (k, node, _) in probes.items():
                probed[name].append(algebra.typed(points[k].now(node), node.shape, None, None))
            losses.append(self.recipe.loss.mean(outputs[0], everything))
            if t < len(self.recipe.batches):
                self._step(t, points[0], outputs[0])
        axes = (STEP, EXAMPLE, *([OUTPUT] if self.whole.several else []))
        names = ["f", "f_test"][: len(found)]
        outputs_of = {name: Output(algebra.stack(c, 0), axes) for name, c in zip(names, found, strict=True)}
        outputs_of["loss"] = Output(algebra.stack(losses, 0), (STEP,))
        for name, rows in probed.items():
            outputs_of[name] = Output(algebra.stack(rows, 0), (STEP, *probes[name][2]))
        if not self.learning and self.own:
            own = [_joined([self._first(p, t) for p in self.passes]) for t in range(len(self.firsts))]
            of = Output(algebra.stack(own, 0), axes) if self.decays else Output(own[0], axes[1:])
            outputs_of = {F0: of} | outputs_of
        return Program(outputs_of)

    def _probes(self) -> dict[str, tuple[int, Node, tuple[str, ...]]]:
        """Name to the pass it is of, the Moment at first, and its axes; on test data the name ends in _test."""
        found = {}
        for k, (batch, ending) in enumerate(zip((self.train, self.test), ("", "_test"), strict=True)):
            for name, net in self.recipe.probes.items():
                if batch is not None:
                    (theta,) = net.body(batch.data).outputs
                    axes = (EXAMPLE, *[a for a in theta.names if a != EXAMPLE])
                    found[name + ending] = k, seen(theta, batch.data), axes
        return found

    def _point(self, p: Pass, given: dict[Node, Node]) -> Moved | Nearby:
        if self.learning:
            return Moved(self.weights, given)
        return Nearby(self.weights, self.power(self.recipe.powers.scale), p.forward, given, self.firsts[-1])

    def _output(self, p: Pass, point: Moved | Nearby, t: int) -> Node:
        powers = self.recipe.powers
        if isinstance(point, Moved):
            f = algebra.mul([self.power(powers.output - 1), point.now(p.theta)])
        else:
            change = algebra.mul([self.power(powers.output - 1 + powers.scale), point.change(p.theta)])
            f = algebra.add([(1, self._first(p, t)), (1, change)])
        return algebra.typed(f, p.theta.shape, None, None)

    def _first(self, p: Pass, t: int) -> Node:
        """The outputs of the first parameters, shrunk as much as they are at a step: of the network, or a hyperparameter."""
        if self.own:
            powers, theta = self.recipe.powers, Moved(self.firsts[t], {}).now(p.theta)
            f = algebra.mul([self.power(powers.output - 1), self.power(powers.initial), theta])
            return algebra.typed(f, p.theta.shape, None, None)
        start = sum([q.examples for q in self.passes[: self.passes.index(p)]])
        f0 = algebra.take(self.f0, 0, t) if self.decays else self.f0
        return algebra.pick(f0, 0, range(start, start + p.examples))

    # ---- a step ----
    def _step(self, t: int, whole: Moved | Nearby, f: Node) -> None:
        recipe, examples = self.recipe, tuple(self.recipe.batches[t])
        full = examples == tuple(range(self.whole.examples))
        if full:
            p, point = self.whole, whole
            chi = recipe.loss.signal(f, examples)
        elif self.learning:
            p, given = self._part(examples)
            point = self._point(p, given)
            chi = recipe.loss.signal(self._output(p, point, t), examples)
        else:
            p, point = self.whole, whole
            chi = self._masked(f, examples)
        point.new[p.chi] = chi
        masked = None if full or self.learning else examples
        gradients = self._gradients(p, p.together() if self.learning else p.apart(), point, masked)
        self._update(t, gradients)

    def _masked(self, f: Node, examples: Sequence[int]) -> Node:
        """Error signals of some examples among all of them."""
        signal = self.recipe.loss.signal(algebra.pick(f, 0, examples), examples)
        return algebra.pick_transposed(signal, 0, tuple(examples), self.whole.examples)

    def _part(self, examples: tuple[int, ...]) -> tuple[Pass, dict[Node, Node]]:
        """The pass of a batch, with its input layers' vectors as they are now."""
        if examples not in self.parts:  # equal data are one vector, so that the graph is one of these examples
            p = Pass(self.net, subset(self.train, examples))
            self.parts[examples] = p, origins(p, self.whole, examples)
        p, known = self.parts[examples]
        vectors = self.weights.vectors
        return p, {e: algebra.pick(vectors.get(of, of), axis, examples) for e, (of, axis) in known.items()}

    # ---- gradients ----
    def _norm(self, found: _Gradients, slopes: Sequence[_Slope]) -> Node:
        """n^(-c) |g|^2 of all gradients g together: how much the loss falls in a step at a small rate lr, over lr."""
        powers, terms = self.recipe.powers, []
        for slope in slopes:
            if slope.key not in found:
                continue
            name, parts = found[slope.key]
            move = summed(parts)
            if slope.cols is not None:
                move = algebra.apply(move, False, slope.cols)
            term = algebra.mul([slope.rows, move])
            term = algebra.moment(algebra.typed(term, slope.rows.shape, slope.rows.width, None))
            for _ in slope.rows.shape:
                term = algebra.sum_axis(term, 0)
            assert slope.rows.width is not None
            ratio = algebra.constant(slope.rows.width.ratio)
            terms.append(
                (1, algebra.mul([self.power(powers.output - 1 + powers.rates[name]), ratio, slope.factor, term]))
            )
        return algebra.add(terms)

    def _clipped(self, found: _Gradients, slopes: Sequence[_Slope], here: _Gradients) -> _Gradients:
        """Gradients over max(1, |g| / clip)."""
        clip = self.recipe.clip
        if clip is None:
            return found
        square = algebra.fn("relu", self._norm({**found, **here}, slopes))  # a sum of squares, up to rounding
        norm = algebra.fn("sqrt", square)
        excess = algebra.fn("relu", algebra.sub(algebra.scale(1 / clip, norm), ONE))
        factor = algebra.fn("reciprocal", algebra.add([(1, ONE), (1, excess)]))
        scaled: _Gradients = {}
        for key, (name, parts) in found.items():
            new: list[Node | Pairs] = []
            for x in parts:
                if isinstance(x, Pairs):
                    new.append(x.scaled(factor))
                else:
                    new.append(algebra.typed(algebra.mul([factor, x]), *_type(x)))
            scaled[key] = name, new
        return scaled

    def _gradients(
        self, p: Pass, backs: Sequence[Backprop], point: Moved | Nearby, masked: Sequence[int] | None
    ) -> _Gradients:
        """What every parameter moves by, to be summed: a matrix by its specification, vectors by their nodes.

        Error signals are those of all examples, or are masked: 0 but for a few. What is no linear function of gradients is given
        these few alone; where it is one the limit has the kernels of all examples at hand.
        """
        found: _Gradients = {}
        here: _Gradients = {}  # the input layers' on these examples
        slopes: list[_Slope] = []
        linear, matrices = self.linear, self.recipe.optimizer.linear

        def give(key: Any, name: str, node: Node | Pairs, to: _Gradients = found) -> None:
            if not node.is_zero:
                to.setdefault(key, (name, []))[1].append(node)

        for back in backs:
            chi = None if back.chi is None else point.now(back.chi)
            for use in back.of.uses:
                name = use.matrix.name
                if name in self.recipe.frozen:
                    continue
                rows, cols = self._pair(use, point, chi)
                tie = use.gradient.ties[0] if use.gradient.ties else None
                if masked is not None and not matrices and tie is not None:
                    axis = len(use.gradient.free) + tie
                    rows, cols = algebra.pick(rows, axis, masked), algebra.pick(cols, axis, masked)
                width = use.matrix.cols if use.transposed else use.matrix.rows
                root = algebra.fn("reciprocal", root_of_ratio(width))
                sized = self._sized(use.matrix.var, None, matrices)
                give(use.matrix, name, Pairs(rows, cols, algebra.mul([sized, root])))
                slopes.append(_Slope(use.matrix, rows, cols, root if matrices else algebra.mul([sized, root])))
            for x, g in back.of.gradients.items():
                if x.op != "vector" or not x.attr.trainable or x.attr.name in self.recipe.frozen:
                    continue
                total = gradient_of(g, point.now(g.node), chi, x)
                size = x.attr.var if x.attr.lr is None else x.attr.lr
                root = algebra.fn("reciprocal", root_of_ratio(x.width))
                factors = [self._sized(size, x.shape), root]
                moved: list[tuple[Any, Node]] = [(x, total)]
                if isinstance(x.attr, Embedding) and linear:  # U x' itself
                    moved = [
                        (y, contracted(total, x.attr.data.metric(y.attr.data), y.shape)) for y in self._everywhere(x)
                    ]
                elif isinstance(x.attr, Embedding):  # the entries of U, a vector for each feature
                    rows = algebra.constant(x.attr.data.array / x.attr.data.features**0.5)
                    moved = [(x.attr.weights, contracted(total, rows, (x.attr.data.features,)))]
                for key, node in moved:
                    shape = key.shape if isinstance(key, Node) else node.shape
                    give(key, x.attr.name, algebra.typed(algebra.mul([*factors, node]), shape, x.width, None))
                if linear:
                    slopes.append(_Slope(x, total, None, root))
                if linear and isinstance(x.attr, Embedding) and self.recipe.clip is not None:
                    for y in [y for y in p.embeddings if y.attr.name == x.attr.name]:
                        node = algebra.mul([*factors, contracted(total, x.attr.data.metric(y.attr.data), y.shape)])
                        give(y, x.attr.name, algebra.typed(node, y.shape, y.width, None), here)
        if not linear:  # vectors, and the entries of input layers, move by what they are differentiated in
            slopes += [_Slope(k, summed(v), None, ONE) for k, (_, v) in found.items() if not isinstance(k, MatrixSpec)]
        return self._clipped(found, slopes, here)

    def _sized(self, size: Any, shape: tuple[int, ...] | None = None, linear: bool | None = None) -> Node:
        """What gradients are multiplied by: sigma^2; sigma, if the step is no linear function of them, and it again by sigma."""
        factor = algebra.constant(size, shape if np.ndim(size) else None)
        return factor if (self.linear if linear is None else linear) else algebra.fn("sqrt", factor)

    def _everywhere(self, x: Node) -> list[Node]:
        """What an input layer makes of all data."""
        return list(dict.fromkeys([y for p in self.passes for y in p.embeddings if y.attr.name == x.attr.name]))

    def _pair(self, use: Any, point: Moved | Nearby, chi: Node | None) -> tuple[Node, Node]:
        """chi dg and h, in the order of the matrix's rows and columns."""
        g = use.gradient
        shape = g.node.shape
        width = use.matrix.cols if use.transposed else use.matrix.rows
        d = spread_over(algebra.typed(point.now(g.node), shape, width, None), g, chi)
        h = point.now(use.operand)
        if h.shape:
            h = algebra.view(h, range(len(shape) - len(h.shape), len(shape)), shape)
        rows, cols = (h, d) if use.transposed else (d, h)
        return algebra.typed(rows, shape, use.matrix.rows, None), algebra.typed(cols, shape, use.matrix.cols, None)

    def _update(self, t: int, gradients: _Gradients) -> None:
        recipe, linear = self.recipe, self.linear
        first = Weights(dict(self.firsts[-1].matrices), dict(self.firsts[-1].vectors))
        by_name = dict(self.left[-1])
        for key, (name, parts) in gradients.items():
            total = summed(parts)
            rate = recipe.rates(t, name)
            power = self.power(recipe.powers.rates[name] - recipe.powers.scale)
            if recipe.coupled:  # of optimizers that are linear
                both = [algebra.mul([power, total]), algebra.scale(recipe.coupled, self._known(key))]
                total, power = algebra.typed(algebra.add([(1, x) for x in both]), *_type(total)), ONE
            whole = self.matrix_step if isinstance(key, MatrixSpec) else None
            if whole:
                step, self.state[key] = whole(self.state.get(key), parts)
            else:
                step, self.state[key] = recipe.optimizer.step(self.state.get(key), total)
            kept = self._kept(t, name)
            left = self._left(key, rate, kept) if self.decays else None
            if left is not None:
                by_name[name] = left
            if isinstance(key, MatrixSpec):
                if left is not None:
                    first.matrices[key] = algebra.typed(
                        algebra.mul([left, algebra.matrix(key)]), (), key.rows, key.cols
                    )
                step = step if linear or whole else algebra.mul([self._sized(key.var), step])
                new = _moved(self._known(key), kept, [rate, power, step])
                self.weights.matrices[key] = algebra.typed(new, (), key.rows, key.cols)
                continue
            steps = {key: step}
            if not isinstance(key, Node):  # the weights of an input layer
                root = self._sized(key.var)
                vectors = [x for p in self.passes for x in p.embeddings if x.attr.weights == key]
                steps = {x: algebra.mul([root, on_data(step, x.attr.data)]) for x in vectors}
            elif not linear:
                size = key.attr.var if key.attr.lr is None else key.attr.lr
                steps = {key: algebra.mul([self._sized(size, key.shape), step])}
            for x, step in steps.items():
                if left is not None:
                    first.vectors[x] = algebra.typed(algebra.mul([left, x]), x.shape, x.width, None)
                new = _moved(self._known(x), kept, [rate, power, step])
                self.weights.vectors[x] = algebra.typed(new, x.shape, x.width, None)
        self.firsts.append(first)
        self.left.append(by_name)

    def _left(self, key: Any, rate: Node, kept: Node) -> Node:
        """What is left of a first parameter after a step: without gradients it goes the same way."""
        left, known = self.state.get((key, "left"), (ONE, None))
        new = algebra.mul([kept, left])
        if self.recipe.coupled:
            step, known = self.recipe.optimizer.step(known, algebra.scale(self.recipe.coupled, left))
            new = algebra.sub(new, algebra.mul([rate, step]))
        self.state[key, "left"] = new, known
        return new

    def _kept(self, t: int, name: str) -> Node:
        """What the decay of a step leaves of a parameter."""
        decay = self.recipe.decay
        return algebra.sub(ONE, algebra.scale(decay, self.recipe.rates(t, name))) if decay else ONE

    def _known(self, key: Any) -> Node:
        """A matrix or a vector as it is now, or its increment."""
        if isinstance(key, MatrixSpec):
            start = algebra.matrix(key) if self.learning else algebra.constant(0, (), key.rows, key.cols)
            return self.weights.matrices.get(key, start)
        start = key if self.learning else algebra.constant(0, key.shape, key.width)
        return self.weights.vectors.get(key, start)


_Gradients = dict[Any, tuple[str, list[Node | Pairs]]]
"""A parameter (a matrix by its specification, vectors by their nodes) to its name, and what it moves by, to be summed."""


@dataclass(frozen=True)
class _Slope:
    """What the loss falls by as a parameter moves: the derivative in it, or, of a matrix, the two factors of that.

    Attributes:
        key: The parameter.
        rows: Over its axes; all of them are summed over.
        cols: Of a matrix: the other factor.
        factor: Of both.
    """

    key: Any
    rows: Node
    cols: Node | None
    factor: Node


def _type(x: Node) -> tuple[Any, Any, Any]:
    return x.shape, x.width, x.inner


def _moved(before: Node, kept: Node, step: Sequence[Node]) -> Node:
    """A parameter after a step, a product."""
    return algebra.add([(1, before if kept is ONE else algebra.mul([kept, before])), (-1, algebra.mul(step))])


def _joined(parts: Sequence[Node]) -> Node:
    if len(parts) == 1:
        return parts[0]
    rows = [algebra.take(p, 0, i) for p in parts for i in range(p.shape[0])]
    return algebra.stack(rows, 0)


def _root(nodes: Sequence[Node]) -> Node:
    """n^(-1/2), n the reference width."""
    widths = {x.width for x in nodes if x.width is not None}
    width = min(widths, key=lambda w: (w.ratio != 1, w.name))
    if width.ratio == 1:
        return algebra.inverse_sqrt(width)
    return algebra.mul([algebra.fn("sqrt", algebra.constant(width.ratio)), algebra.inverse_sqrt(width)])
