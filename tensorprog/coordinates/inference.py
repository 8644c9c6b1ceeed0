"""The exponents of all sizes in a run of training, inferred from its graph: no run, no limit, nothing measured.

Every node gets the exponent p of its size n^(-p), by rules for each instruction: sums have the least of their terms', products
the sum of their factors', a function is looked at near 0, at order one or far out. What decides about Moments and products with
matrices is whether a mean vanishes: for each initial weight w, what is even and what is odd under w -> -w have exponents of
their own. A Moment is what is even under all of them, and of the rest a fluctuation, smaller by n^(-1/2).

Beside a value goes the change since the start, which is not the difference of two exponents. A step of training adds pairs
(dg, h) to matrices and gradients to vectors, with the powers of n of the set-up; the next forward pass is made with them.

Exponents are those of generic data: nothing cancels but what parity makes vanish.

Source: the rules are those of Yang and Hu, Tensor Programs IV (arXiv:2011.14522), appendix H, carried out on a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.coordinates.program import ACTIVATION, CHANGE, DECAY, OUTPUT, UPDATE, Coordinates, Layer, key
from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

__all__ = ["NotInferred", "inferred", "own_rates"]

Size = np.ndarray
"""(2, weights): the exponents of what is even and of what is odd under a change of sign of each; inf for what is 0."""
DEGREES = {"reciprocal": -1.0, "sqrt": 0.5, "log": 0.0, "log1p": 0.0}


class NotInferred(Exception):
    """There is no rule for an instruction."""


class _Sizes:
    """Rules for the sizes of nodes, with a given set of weights."""

    def __init__(self, weights: Sequence[str]) -> None:
        self.weights = {name: i for i, name in enumerate(weights)}
        self.zero = np.full((2, max(len(weights), 1)), np.inf)

    def even(self, p: float) -> Size:
        """Of a number."""
        found = self.zero.copy()
        found[0] = p
        return found

    def odd(self, x: Size, name: str) -> Size:
        """Times a weight."""
        found = x.copy()
        i = self.weights[name]
        found[:, i] = x[::-1, i]
        return found

    def moment(self, x: Size) -> Size:
        """The mean over the width."""
        found = x + 0.5
        found[0] = np.minimum(found[0], x[0].max())
        return found


def times(*xs: Size) -> Size:
    """The product."""
    out = xs[0]
    for y in xs[1:]:
        out = np.stack([np.minimum(out[0] + y[0], out[1] + y[1]), np.minimum(out[0] + y[1], out[1] + y[0])])
    return out


def least(*xs: Size) -> Size:
    """The sum."""
    return np.minimum.reduce(xs)


def size(x: Size) -> float:
    """The exponent of all of it."""
    return float(x.min())


def _function(x: Size, coefficients: Sequence[float], parity: int | None, degree: float | None, far: float) -> Size:
    """phi(x), by the values of phi, phi', phi'' at 0; its parity, its degree if it is homogeneous, and its degree far out."""
    p = size(x)
    if degree is None and (p > 0 or np.isinf(p)):
        found = np.full(x.shape, np.inf)
        if coefficients[0]:
            found[0] = 0
        term = x
        for c in coefficients[1:]:
            found = least(found, term) if c else found
            term = times(term, x)
        return found if np.isfinite(found).any() or np.isinf(p) else term
    if np.isinf(p):
        return np.full(x.shape, 0.0 if degree == 0 and parity is None else np.inf)
    rest, scale = x - p, (far if p < 0 else 0.0) if degree is None else degree
    if parity == 1:
        return rest + scale * p
    odd = rest[1] if parity is None else rest[0] + rest[1]
    return np.stack([np.zeros_like(odd), odd]) + scale * p


def _facts(call: Any) -> tuple[Callable[[Size], Size], Callable[[Size], Size]]:
    """Rules for a function, and for its derivative."""
    row = PRIMITIVES[call.name]
    degree: float | None = DEGREES.get(call.name, None if row.homogeneity is None else float(row.homogeneity))
    if row.growth == "exponential":
        far = np.nan
    else:
        far = 1.0 if row.growth == "linear" else 0.0
    if degree is None:
        h = 1e-2
        with np.errstate(all="ignore"):
            a = [float(row.array(np.array(x), *call.parameters)) for x in (-h, 0.0, h)]
        values = [a[1], (a[2] - a[0]) / (2 * h), (a[2] - 2 * a[1] + a[0]) / h**2]
        known = [v if abs(v) > 1e-6 else 0.0 for v in values]
    else:
        known = [0.0, 0.0, 0.0]
    slope = None if degree is None else degree - 1
    flipped = None if row.parity is None else 1 - row.parity

    def value(x: Size) -> Size:
        found = _function(x, known, row.parity, degree, far)
        if np.isnan(found).any():
            raise NotInferred(f"{call.name} of what grows with the width")
        return found

    def derivative(x: Size) -> Size:
        found = _function(x, [*known[1:], 1.0], flipped, slope, far - 1)
        if np.isnan(found).any():
            raise NotInferred(f"{call.name} of what grows with the width")
        return found

    return value, derivative


Pairs = list[tuple[Size, Size, float]]
"""What a matrix has moved by: n^(-p) times a sum of products of a vector over its rows and one over its columns."""


class _Run:
    """A run of training in exponents."""

    def __init__(self, run: Coordinates) -> None:
        self.run, self.setup = run, run.setup
        self.back = run.whole.together()
        weights = [x for x in run.whole.forward if x.op in ("matmul", "vector")]
        names = {x.attr.matrix.name if x.op == "matmul" else x.attr.name for x in weights}
        self.rules = _Sizes(sorted(names))
        self.moved: dict[str, Pairs] = {}
        self.decayed: dict[str, float] = {}
        self.shifts: dict[Node, Size] = {}
        self.calls: dict[Any, Any] = {}
        self.chi = self.rules.zero

    # ---- one pass ----
    def forward(self) -> tuple[dict[Node, Size], dict[Node, Size]]:
        """Values and changes of all nodes of the network."""
        values: dict[Node, Size] = {}
        changes: dict[Node, Size] = {}
        for x in self.run.whole.forward:
            values[x] = self.value(x, values)
            changes[x] = self.change(x, values, changes)
        return values, changes

    def facts(self, x: Node) -> tuple[Callable[[Size], Size], Callable[[Size], Size]]:
        if x.attr not in self.calls:
            self.calls[x.attr] = _facts(x.attr)
        return self.calls[x.attr]

    def value(self, x: Node, known: dict[Node, Size]) -> Size:
        """The size of a node, by those of its operands."""
        args = [known[a] for a in x.args]
        match x.op:
            case "constant":
                return self.rules.even(0.0 if np.any(x.attr) else np.inf)
            case "scalar":
                return self.chi if x == self.run.whole.chi else self.rules.even(0.0)
            case "inverse_sqrt":
                return self.rules.even(0.5)
            case "vector":
                return least(self.first(x), self.shifts.get(x, self.rules.zero))
            case "matmul":
                w = x.attr.matrix.name
                return least(self.started(w, args[0]), self.applied(x, args[0]))
            case "moment":
                return self.rules.moment(args[0])
            case "add" | "stack":
                return least(*args)
            case "mul":
                return times(*[a for a, k in zip(args, x.attr, strict=True) for _ in range(k)])
            case "fn":
                return self.facts(x)[0](args[0])
            case "view" | "take" | "pick" | "sum":
                return args[0]
            case "softmax":
                return _function(args[0], [1.0, 1.0, 1.0], None, None, 0.0)
        raise NotInferred(f"the instruction {x.op}")

    def first(self, x: Node) -> Size:
        """A vector at first."""
        spec = x.attr
        p = float(self.setup.starts.get(spec.name, Fraction(0)))
        mean = self.rules.even(p if np.any(spec.mean) else np.inf)
        spread = spec.cov if spec.cov is not None else spec.var
        return least(mean, self.rules.odd(self.rules.even(p if np.any(spread) else np.inf), spec.name))

    def started(self, w: str, x: Size) -> Size:
        """The initial matrix times a vector."""
        return self.rules.odd(x, w) + float(self.setup.starts[w])

    def applied(self, x: Node, operand: Size) -> Size:
        """What a matrix has moved by, times a vector."""
        found = self.rules.zero
        w = x.attr.matrix.name
        for rows, cols, p in self.moved.get(w, []):
            if x.attr.transposed:
                rows, cols = cols, rows
            found = least(found, times(rows, self.rules.moment(times(cols, operand))) + p)
        if w in self.decayed:
            found = least(found, self.started(w, operand) + self.decayed[w])
        return found

    def change(self, x: Node, values: dict[Node, Size], changes: dict[Node, Size]) -> Size:
        """How far a node is from where it began."""
        moved = [changes[a] for a in x.args]
        match x.op:
            case "constant" | "scalar" | "inverse_sqrt":
                return self.rules.zero
            case "vector":
                return self.shifts.get(x, self.rules.zero)
            case "matmul":
                return least(self.started(x.attr.matrix.name, moved[0]), self.applied(x, values[x.args[0]]))
            case "mul":
                found = self.rules.zero
                for i, (d, k) in enumerate(zip(moved, x.attr, strict=True)):
                    others = [values[a] for j, a in enumerate(x.args) for _ in range(x.attr[j] - (i == j))]
                    found = least(found, times(d, *others) if k else d)
                return found
            case "fn" | "softmax":
                return self.nonlinear(x, values[x.args[0]], moved[0], values[x])
        return self.value(x, changes)

    def nonlinear(self, x: Node, at: Size, by: Size, value: Size) -> Size:
        """The change of a function of what moves from `at - by` to `at`."""
        if np.isinf(size(by)):
            return self.rules.zero
        if x.op == "fn":
            slope = self.facts(x)[1](at)
        else:
            slope = self.rules.even(0.0) if size(at) >= 0 else value - size(at)
        found = times(slope, by)
        if size(by) > size(at):
            return found
        if size(at) > 0 and (x.op == "softmax" or PRIMITIVES[x.attr.name].homogeneity is None):
            return least(found, times(by, by))  # near 0, whose value does not change
        return least(found, value)

    # ---- a step ----
    def step(self, t: int, values: dict[Node, Size]) -> None:
        """Adds the updates of a step of gradient descent."""
        run, setup = self.run, self.setup
        f = values[run.whole.theta] + float(setup.output - 1)
        place = algebra.hyperparameter("f", None, run.whole.theta.shape)
        signal = run.recipe.loss.signal(place, range(run.whole.examples))
        self.chi = self.of(signal, {place: f})
        known = dict(values)
        rates = {name: float(p) + size(self.of(run.recipe.rates(t, name), {})) for name, p in setup.rates.items()}
        for back in self.back:
            uses = [use for use in back.of.uses if use.matrix.name not in run.recipe.frozen]
            vectors = [
                (x, g.node)
                for x, g in back.of.gradients.items()
                if x.op == "vector" and x.attr.trainable and x.attr.name not in run.recipe.frozen
            ]
            for root in [*[use.gradient.node for use in uses], *[g for _, g in vectors]]:
                self.of(root, known)
            for use in uses:
                rows, cols = known[use.gradient.node], known[use.operand]
                if use.transposed:
                    rows, cols = cols, rows
                if np.isinf(size(rows)) or np.isinf(size(cols)):
                    continue
                if setup.rules["hidden"] != "sgd":
                    rows, cols = rows - size(rows), cols - size(cols)
                p = rates[use.matrix.name]
                self.moved.setdefault(use.matrix.name, []).append((rows, cols, p))
            by_name: dict[str, Size] = {}
            for x, g in vectors:
                by_name[x.attr.name] = least(by_name.get(x.attr.name, self.rules.zero), known[g])
            for x in [x for x in run.whole.forward if x.op == "vector" and x.attr.name in by_name]:
                d = by_name[x.attr.name]
                if setup.rules[run.kinds[x.attr.name]] != "sgd" and np.isfinite(size(d)):
                    d = d - size(d)
                self.shifts[x] = least(self.shifts.get(x, self.rules.zero), d + rates[x.attr.name])
        if run.recipe.decay or run.recipe.coupled:
            for name, falls in setup.decays.items():
                self.decayed[name] = float(falls)
            for x in [x for x in run.whole.forward if x.op == "vector" and x.attr.name in self.decayed]:
                self.shifts[x] = least(self.shifts.get(x, self.rules.zero), self.first(x) + self.decayed[x.attr.name])

    def part(self, layer: Layer, first: dict[Node, Size]) -> Size:
        """What changes of a readout make of the features there were at first."""
        moving = [x for x in first if x.op == "vector" and self.run.kinds.get(x.attr.name) == "output"]
        known = {x: self.shifts.get(x, self.rules.zero) if x in layer.own else self.rules.zero for x in moving}
        for x in first:  # operands first
            if x not in known:
                known[x] = (
                    self.value(x, known) if any(a in known and known[a] is not first[a] for a in x.args) else first[x]
                )
        return known[self.run.whole.theta]

    def of(self, root: Node, known: dict[Node, Size]) -> Size:
        """The size of a node, adding to what is known on the way."""
        for x in topological([root], lambda x: () if x in known else x.args):
            if x not in known:
                known[x] = self.value(x, known)
        return known[root]

    # ---- what is asked for ----
    def sizes(
        self, layer: Layer, values: dict[Node, Size], changes: dict[Node, Size], first: dict[Node, Size]
    ) -> dict[str, float]:
        """The exponents of what is measured of a layer; `first` are values at the start."""
        found: dict[str, float] = {}
        power = float(self.setup.output - 1) if layer.kind in (OUTPUT, "output") else 0.0
        if layer.nodes:
            found[ACTIVATION] = min([size(values[x]) for x in layer.nodes]) + power
            found[CHANGE] = min([size(changes[x]) for x in layer.nodes]) + power
        if layer.kind == "hidden":
            found[UPDATE] = min([size(self.applied(x, first[x.args[0]])) for x in layer.nodes])
        elif layer.kind == "output":
            found[UPDATE] = size(self.part(layer, first)) + power
        elif layer.own:
            found[UPDATE] = min([size(self.shifts.get(x, self.rules.zero)) for x in layer.own])
        return found


def inferred(run: Coordinates) -> dict[str, list[float]]:
    """The exponent of every size that a run measures, one a step: a size is of order n to this power; -inf for 0.

    Raises:
        NotInferred: There is no rule for an instruction of the network.
    """
    state, found, first = _Run(run), dict[str, list[float]](), None
    for t in range(len(run.recipe.batches) + 1):
        values, changes = state.forward()
        first = values if first is None else first
        for layer in run.layers:
            sizes = state.sizes(layer, values, changes, first)
            if run.recipe.decay and layer.name in run.setup.decays:
                own = sizes.get(ACTIVATION, min([size(values[x]) for x in layer.own], default=np.inf))
                sizes[DECAY] = own + float(run.setup.decays[layer.name]) if t else np.inf
            for what, p in sizes.items():
                found.setdefault(key(layer, what), []).append(-p + 0.0)
        if t < len(run.recipe.batches):
            state.step(t, values)
    return found


def own_rates(run: Coordinates) -> dict[str, float]:
    """The powers of n in the rates that a user gave, by parameter, at the first step."""
    state = _Run(run)
    found = {name: size(state.of(run.given_rates(0, name), {})) for name in run.setup.rates}
    return {name: -p + 0.0 if np.isfinite(p) else 0.0 for name, p in found.items()}
