"""Integrands of Gaussian integrals: functions of a few variables and of parameters, and where they turn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tensorprog.arrays.elementwise import kernel
from tensorprog.language import algebra
from tensorprog.language.affine import carrier, slope_and_shift
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number, encode
from tensorprog.limits.gauss.bounded import Bounded
from tensorprog.limits.gauss.duals import DUALS
from tensorprog.limits.gauss.rounding import NOISE
from tensorprog.limits.gauss.verified import Line

__all__ = ["MAX_QUADRATURE", "POINTS", "Integrand"]

MAX_QUADRATURE = 3
"""Up to this many variables by nested quadrature."""
POINTS = 2**13
"""Points of one replicate of a sampled integral, at first."""
MAX_EXCHANGED = 4
"""Symmetries are looked for among the orders of so many parameters."""
MAX_CROSSINGS = 200
TOUCH = 1e-12
MAX_TURNS = 10
"""Turns located in one integrand; more of them are left to the comparison of two resolutions, kinks to sampling."""
_AROUND = np.concatenate([-np.logspace(2, -7, 60), [0.0], np.logspace(-7, 2, 60)])


class Integrand:
    """A function of Gaussian variables z_0, .., and scalar parameters p_0, ..

    Attributes:
        body: Its expression over nodes `var` and `param`.
        dimension: The number of variables.
        parameters: The number of parameters.
        features: (variable, location, scale) of every kink (scale 0) and turn of a variable itself.
        turns: The same of functions of one variable, to be located once the numbers are known.
        curves: Kinks along curves: (variable, its place as a function of the others); None if no one variable can be
            solved for in all of them, so that quadrature would have no error estimate to be trusted.
        conditional: Are there closed forms of expectations given its variables in it?
        oblique: Does it turn along a curve in several variables, where nothing can be refined? Then quadrature is trusted
            where two resolutions agree closely.
        radial: p if it is homogeneous of degree -p < 0, a function of the direction over the p-th power of the radius; else 0.
    """

    def __init__(self, body: Node, dimension: int, parameters: int) -> None:
        self.body, self.dimension, self.parameters = body, dimension, parameters
        found, self.turns, along, self.oblique = _roughness(body)
        self.curves = _curves(along, dimension) if dimension <= MAX_QUADRATURE else None
        self.conditional = any(x.op == "dual" for x in topological([body]))
        self.radial = max(0, -(_homogeneity(body) or 0)) if dimension > 1 else 0
        self.features = tuple(found)
        self._compiled: Callable[..., Any] | None = None
        self._bounded: Bounded | None = None

    @property
    def bounded(self) -> Bounded:
        """Its expectations over Gaussians of rank 0 to 2, with errors that hold."""
        if self._bounded is None:
            self._bounded = Bounded(Line(self.body), self, self.located)
        return self._bounded

    @property
    def curved(self) -> bool:
        """Is it rough where its variables' own features do not say: does it kink inside a function, or turn along curves?"""
        return not self.conditional and (
            self.oblique or self.curves != [] or any(t.kinked or t.singular for t in self.turns)
        )

    @cached_property
    def exchange(self) -> tuple[int, ...] | None:
        """Which parameter takes the place of each where its two variables may change places; None if they may not."""
        if self.dimension != 2 or self.parameters > MAX_EXCHANGED or self.conditional:
            return None
        for order in itertools.permutations(range(self.parameters)):
            done: dict[Node, Node] = {}
            for y in topological([self.body]):
                match y.op:
                    case "var":
                        done[y] = Node("var", (), 1 - y.attr)
                    case "param":
                        done[y] = Node("param", (), order[y.attr])
                    case _:
                        done[y] = algebra.rebuild(y, [done[a] for a in y.args])
            if done[self.body] == self.body:
                return order
        return None

    def encoded(self) -> bytes:
        """For the digest of nodes."""
        return encode(("integrand", self.body.digest.hex(), self.dimension, self.parameters))

    def __call__(self, z: Sequence[Any], p: Sequence[Any]) -> Any:
        """Its values; z and p broadcast against each other."""
        if self._compiled is None:
            self._compiled = _compile(self.body)
        return self._compiled(z, p)

    def moved(self, rng: np.random.Generator) -> Callable[..., Any]:
        """The same with every closed form in it moved by its rounding, up or down: what they cancel shows in its integral."""
        signs = {x: NOISE * (2 * rng.integers(2) - 1) for x in topological([self.body]) if x.op in ("dual", "fn")}
        return _compile(self.body, signs)

    @property
    def by_quadrature(self) -> bool:
        """Nested quadrature, or else sampling?"""
        costly = self.dimension == MAX_QUADRATURE and self.oblique and self.conditional
        return self.dimension <= MAX_QUADRATURE and self.curves is not None and not self.radial and not costly

    def located(self, means: np.ndarray, deviations: np.ndarray, p: Sequence[Any]) -> list[tuple[int, float, float]]:
        """All features, those of turns found on a grid over 12 deviations.

        Args:
            means: (B, d).
            deviations: (B, d); the features of all B rows are found together.
            p: One number for each parameter.
        """
        found = list(self.features)
        for turn in self.turns:
            i = turn.variable
            low, high = (means[:, i] - 12 * deviations[:, i]).min(), (means[:, i] + 12 * deviations[:, i]).max()
            near = [a + s for j, a, _ in self.features if j == i for s in _AROUND]
            grid = np.unique(np.clip(np.concatenate([np.linspace(low, high, 4001), near]), low, high))

            def argument(z: Any, turn: Turn = turn) -> Any:
                with np.errstate(all="ignore"):
                    return np.broadcast_to(turn.argument([z] * self.dimension, p), np.shape(z))

            for location in turn.locations:
                if turn.kinked:
                    found += [(i, r, s) for r, s in _crossings(argument, location, 0.0, grid)]
                if turn.singular:  # a root or a logarithm that reaches 0: panels graded down to it
                    found += [(i, r, TOUCH) for r, _ in _crossings(argument, location, 0.0, grid)]
                if turn.width:
                    found += [(i, r, s) for r, s in _crossings(argument, location, turn.width, grid)]
                    found += [(i, r, s) for r, s in _approaches(argument, location, turn, grid)]
        return found

    def split(self) -> tuple[Integrand, Integrand] | None:
        """f and g, functions of z_0 both, if the function is f(z_0) g(z_1) without parameters; else None.

        One object where f is g.
        """
        if self.dimension != 2 or self.parameters:
            return None
        c, body = 1, self.body
        if body.op == "add" and len(body.args) == 1:
            c, body = body.attr[0], body.args[0]
        if body.op != "mul":
            return None
        parts: list[list[tuple[Node, int]]] = [[], []]
        for a, k in zip(body.args, body.attr, strict=True):
            used = {x.attr for x in topological([a]) if x.op == "var"}
            if len(used) != 1:
                return None
            parts[used.pop()].append((a, k))
        f, g = algebra.scale(c, algebra.mul(parts[0])), _of_first(algebra.mul(parts[1]))
        left = Integrand(f, 1, 0)
        return left, left if f == g else Integrand(g, 1, 0)


def _homogeneity(body: Node) -> float | None:
    """k, where the function of c z is c^k times that of z for every c > 0; None where it is not homogeneous."""
    degrees: dict[Node, float | None] = {}
    for x in topological([body]):
        parts = [degrees[a] for a in x.args]
        known = [d for d in parts if d is not None]
        degree: float | None = None
        if x.op == "var":
            degree = 1
        elif not x.args:
            degree = 0
        elif len(known) < len(parts):
            degree = None
        elif x.op == "mul":
            degree = sum([k * d for k, d in zip(x.attr, known, strict=True)])
        elif x.op == "add":
            degree = known[0] if len(set(known)) == 1 else None
        elif x.op == "fn" and x.attr.name in ("reciprocal", "sqrt"):
            degree = -known[0] if x.attr.name == "reciprocal" else known[0] / 2
        elif x.op == "fn":
            k = PRIMITIVES[x.attr.name].homogeneity
            degree = 0 if known[0] == 0 else None if k is None else k * known[0]
        degrees[x] = degree
    return degrees[body]


def _of_first(body: Node) -> Node:
    """The same function of another variable, z_0."""
    done: dict[Node, Node] = {}
    for y in topological([body]):
        done[y] = Node("var", (), 0) if y.op == "var" else algebra.rebuild(y, [done[a] for a in y.args])
    return done[body]


def _rule(x: Node) -> Callable[..., Any] | None:
    """The NumPy implementation of a node of an integrand; None for variables and parameters."""
    if x.op == "dual":
        return DUALS[x.attr].array
    return None if x.op in ("var", "param") else kernel(x)


def _compile(body: Node, moved: Mapping[Node, float] | None = None) -> Callable[..., Any]:
    """A function of variables and parameters; the results of some nodes are moved by a share of themselves."""
    order = topological([body])
    slots = {x: i for i, x in enumerate(order)}
    steps = [(x, _rule(x), [slots[a] for a in x.args], (moved or {}).get(x)) for x in order]

    def evaluate(z: Sequence[Any], p: Sequence[Any]) -> Any:
        values: list[Any] = []
        for x, run, args, share in steps:
            if run is None:
                values.append(z[x.attr] if x.op == "var" else p[x.attr])
            else:
                value = run(*[values[i] for i in args])
                values.append(value if share is None else value * (1 + share))
        return values[-1]

    return evaluate


Curve = Callable[[np.ndarray], np.ndarray]


def _crossings(argument: Curve, location: float, width: float, grid: np.ndarray) -> list[tuple[float, float]]:
    """Where an argument crosses a location, and on what scale of its variable the function turns there."""
    values = argument(grid) - location
    sign = np.sign(values)
    # Where it is 0 in a whole interval, as relu is, the ends alone are crossings.
    crossing = np.flatnonzero((sign[:-1] != sign[1:]) & ~np.isnan(sign[:-1] + sign[1:]))[:MAX_CROSSINGS]
    a, b = grid[crossing], grid[crossing + 1]
    at_a, at_b = sign[crossing] == 0, sign[crossing + 1] == 0
    for _ in range(60):
        middle = (a + b) / 2
        left = np.sign(argument(middle) - location) == sign[crossing]
        a, b = np.where(left, middle, a), np.where(left, b, middle)
    roots = np.unique(np.where(at_a, a, np.where(at_b, b, (a + b) / 2)))
    if not width:
        return [(float(r), 0.0) for r in roots]
    step = 1e-6 * (1 + np.abs(roots))
    with np.errstate(divide="ignore"):
        scales = width * 2 * step / np.abs(argument(roots + step) - argument(roots - step))
    return [(float(r), float(s)) for r, s in zip(roots, scales, strict=True) if np.isfinite(s)]


def _approaches(argument: Curve, location: float, turn: Turn, grid: np.ndarray) -> list[tuple[float, float]]:
    """Where an argument comes closest without crossing: 1/(1 + z^2) has its poles at distance 1 from there.

    With distance v and curvature k the argument is v + k z^2/2, which reaches the function's singularity (within its width,
    or at the location itself for roots, logarithms and reciprocals) at a distance sqrt(2 (v + width) / k).
    """
    values = np.abs(argument(grid) - location)
    lowest = 1 + np.flatnonzero((values[1:-1] <= values[:-2]) & (values[1:-1] < values[2:]))[:MAX_CROSSINGS]
    found = []
    for z in grid[lowest]:
        step = 1e-3 * (1 + abs(z))
        left, here, right = argument(np.array([z - step, z, z + step])) - location
        curvature = abs(left - 2 * here + right) / step**2
        if np.sign(left) == np.sign(right) and curvature > 0:
            found.append((float(z), float(np.sqrt(2 * (abs(here) + (0 if turn.singular else turn.width)) / curvature))))
    return found


class Turn(NamedTuple):
    """A primitive of a nonlinear function of one variable: it is rough where its argument crosses a location.

    Attributes:
        variable: The variable.
        argument: Its function, compiled.
        parametric: Does it depend on parameters?
        locations: Where the primitive kinks or turns.
        width: On what scale it turns; 0 if it does nothing but kink.
        kinked: Does it kink there?
        singular: Has it no values, or infinite ones, at the location?
    """

    variable: int
    argument: Callable[..., Any]
    parametric: bool
    locations: tuple[float, ...]
    width: float
    kinked: bool
    singular: bool


def _roughness(
    body: Node,
) -> tuple[list[tuple[int, float, float]], list[Turn], list[tuple[Node, tuple[float, ...]]], bool]:
    """Features of variables, turns whose places depend on the numbers; kinks, and turns, along unknown curves?"""
    found: set[tuple[int, float, float]] = set()
    turns: list[Turn] = []
    along: list[tuple[Node, tuple[float, ...]]] = []
    oblique = False
    for x in topological([body]):
        if x.op == "dual":
            for argument, touching in _turning(x):
                variables = {y.attr for y in topological([argument]) if y.op == "var"}
                oblique = oblique or len(variables) > 1
                if len(variables) == 1 and len(turns) < MAX_TURNS:
                    parametric = any(y.op == "param" for y in topological([argument]))
                    turns.append(Turn(variables.pop(), _compile(argument), parametric, (0.0,), 1.0, False, touching))
            continue
        if x.op != "fn":
            continue
        row = PRIMITIVES[x.attr.name]
        width = math.sqrt(float(x.attr.parameters[0])) if x.attr.name in ("smooth_sign", "bump") else row.width
        locations = row.kinks or (0.0,)
        scales = {width, 0.0} if row.kinks else {width}
        argument = carrier(x.args[0])
        if argument.op == "var":
            c, d = slope_and_shift(x.args[0])
            found |= {(argument.attr, (k - float(d)) / float(c), s / abs(float(c))) for k in locations for s in scales}
            continue
        used = topological([x.args[0]])
        variables = {y.attr for y in used if y.op == "var"}
        if len(variables) == 1 and len(turns) < MAX_TURNS:
            parametric = any(y.op == "param" for y in used)
            turns.append(
                Turn(
                    variables.pop(),
                    _compile(x.args[0]),
                    parametric,
                    locations,
                    width,
                    bool(row.kinks),
                    row.domain is not None,
                )
            )
        elif variables:
            if row.kinks:
                along.append((x.args[0], row.kinks))
            oblique = True
    return sorted(found), turns, along, oblique


def _turning(x: Node) -> list[tuple[Node, bool]]:
    """Where a closed form inside an integrand is rough: (argument, is it a variance that touches 0?)."""
    match x.attr:
        case "sign_mean" | "density":
            m, q = x.args
            return [(q, True), (algebra.mul([m, algebra.fn("reciprocal", algebra.fn("sqrt", q))]), False)]
        case "sign_pair":
            return [(x.args[4], True), (x.args[6], True)]
        case "residual":
            return [(x.args[3], True)]
        case _:  # of one variance, or of two and a covariance
            return [(q, True) for q in (x.args[0], *x.args[2:3])]


def _solvable(argument: Node, i: int) -> tuple[float, list[tuple[Number, Node]]] | None:
    """(a, terms of g) where an argument is a z_i + g of the other variables; else None."""
    a = 0.0
    rest: list[tuple[Number, Node]] = []
    todo: list[tuple[Number, Node]] = [(1, argument)]
    while todo:
        c, x = todo.pop()
        if x.op == "var" and x.attr == i:
            a += float(c)
        elif i not in {y.attr for y in topological([x]) if y.op == "var"}:
            rest.append((c, x))
        elif x.op == "add":
            todo.extend([(c * d, y) for d, y in zip(x.attr, x.args, strict=True)])
        else:
            return None
    return (a, rest) if a else None


def _curves(along: list[tuple[Node, tuple[float, ...]]], dimension: int) -> list[tuple[int, Callable[..., Any]]] | None:
    """(variable, its place as a function of the others) of all kinks along curves, of one variable; None if there is none."""
    for i in range(dimension):
        solved = [(_solvable(argument, i), kinks) for argument, kinks in along]
        if all(s is not None for s, _ in solved):
            return [(i, _compile(_place(*s, k))) for s, kinks in solved if s is not None for k in kinks]
    return None


def _place(a: float, rest: list[tuple[Number, Node]], kink: float) -> Node:
    return algebra.add([(-c / a, x) for c, x in rest] + [(1, algebra.constant(kink / a))])
