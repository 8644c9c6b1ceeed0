"""Integrals in fewer variables: what is Gaussian given a few of them is integrated out.

A gated cell or a state space multiplies Gaussian variables by each other inside a nonlinear function: `phi(g h + b)` is no
integral in three variables, for given g the argument is Gaussian. Here an integrand's variables are split into few, S, and a
rest, R, such that every argument of a nonlinear function is affine in R, with coefficients that are functions of S. Given S these
arguments, t, are jointly Gaussian, with means and covariances that are functions of S, so that

    E f(S, R) = E_S E[f | S],

where the inner expectation is a closed form (`closed.py`), or else an integral over standard normals e with
t = mean(S) + root(S) e; arguments that occur as factors only are integrated out by Wick's theorem. The S is taken that leaves
fewest variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.affine import carrier
from tensorprog.language.algebra import ONE, ZERO
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.budget import Budget
from tensorprog.limits.expect.closed import Gaussian, closed_form
from tensorprog.limits.gauss.duals import DUALS, dual
from tensorprog.limits.gauss.integrand import MAX_QUADRATURE, Integrand

__all__ = ["reduced"]

MAX_GIVEN = 3
"""The few variables are at most so many."""
SMALL = 2
"""Products of functions of one variable are left alone unless at most so many variables are left."""
MAX_SPLITS = 600
"""Splits of the variables that are tried."""
MAX_DEGREE = 12
"""Degree of what Wick's theorem integrates out."""


def reduced(x: Node, budget: Budget) -> Node:
    """An integral in fewer variables that is equal to an integral, or the integral itself.

    Args:
        x: A node `gauss`.
        budget: What closed forms may cost.
    """
    integrand: Integrand = x.attr
    hard = integrand.oblique or not integrand.by_quadrature
    if integrand.radial or (integrand.dimension < MAX_QUADRATURE and not hard):
        return x
    law = Law(x)
    best = _split(integrand.body, range(integrand.dimension), law, budget)
    if best is None or (best.dimension > SMALL and _is_product(integrand.body)):
        return x
    return law.integral(best)


def _is_product(body: Node) -> bool:
    """Of functions of one variable each: many of them are sampled better as they are."""
    return all(len({y.attr for y in topological([a]) if y.op == "var"}) <= 1 for a, _ in _factors(body)[1])


@dataclass(frozen=True)
class Split:
    """An integrand over the variables that are left.

    Attributes:
        given: Variables of the old integral that stay.
        body: Over these, over parameters, and over the standard normals.
        normals: How many: `var` number d, d + 1, ... if the old integral had d.
    """

    given: tuple[int, ...]
    body: Node
    normals: int

    @property
    def dimension(self) -> int:
        """Of the new integral."""
        return len(self.given) + self.normals


class Law:
    """The Gaussian of an integral: its means, covariances and parameters as nodes of an integrand.

    Args:
        x: A node `gauss`.
    """

    def __init__(self, x: Node) -> None:
        integrand: Integrand = x.attr
        self.d, self.shape = integrand.dimension, x.shape
        self.means = x.args[: self.d]
        triangle = x.args[self.d : self.d + self.d * (self.d + 1) // 2]
        pairs = [(i, j) for i in range(self.d) for j in range(i + 1)]
        self.covariances = dict(zip(pairs, triangle, strict=True))
        self.parameters = list(x.args[self.d + len(pairs) :])

    def cov(self, i: int, j: int) -> Node:
        """Of two variables, outside the integrand."""
        return self.covariances[max(i, j), min(i, j)]

    def inside(self, x: Node) -> Node:
        """A scalar as an integrand sees it: a number, or a parameter."""
        if x.op == "constant" and not x.shape:
            return x
        if x not in self.parameters:
            self.parameters.append(x)
        return Node("param", (), self.parameters.index(x))

    def given(self, few: Sequence[int], rest: Sequence[int]) -> Gaussian:
        """The rest, given the few, one after the other: means are functions of these, covariances are not."""
        every = [*few, *rest]
        means = {i: self.inside(self.means[i]) for i in every}
        cov = {(i, j): self.cov(i, j) for i in every for j in every}
        for k, s in enumerate(few):
            off = algebra.sub(Node("var", (), s), means[s])
            later = every[k + 1 :]
            slopes = {r: _over(cov[r, s], cov[s, s]) for r in later}
            for r in later:
                if not slopes[r].is_zero:
                    means[r] = algebra.add([(1, means[r]), (1, algebra.mul([self.inside(slopes[r]), off]))])
            changed = {(i, j): _residual(cov[i, j], cov[i, s], cov[j, s], cov[s, s]) for i in later for j in later}
            cov |= {key: v for key, v in changed.items() if not (cov[key[0], s].is_zero or cov[key[1], s].is_zero)}
        n = len(rest)
        lower = {(a, b): self.inside(cov[rest[a], rest[b]]) for a in range(n) for b in range(a + 1)}
        return Gaussian(tuple([means[r] for r in rest]), lower)

    def integral(self, split: Split) -> Node:
        """The integral of what is left."""
        d = split.dimension
        order = [*split.given, *range(self.d, self.d + split.normals)]
        places = {Node("var", (), old): Node("var", (), new) for new, old in enumerate(order)}
        body = _substituted(split.body, places)
        parameters = sorted({y.attr for y in topological([body]) if y.op == "param"})
        body = _substituted(body, {Node("param", (), p): Node("param", (), k) for k, p in enumerate(parameters)})
        means = [self.means[i] for i in split.given] + [ZERO] * split.normals
        known = len(split.given)
        triangle = [
            self.cov(order[i], order[j]) if i < known and j < known else ONE if i == j else ZERO
            for i in range(d)
            for j in range(i + 1)
        ]
        args = (*means, *triangle, *[self.parameters[p] for p in parameters])
        if d == 0:
            return _outside(body, [self.parameters[p] for p in parameters], self.shape)
        return Node("gauss", args, Integrand(body, d, len(parameters)), algebra.common_type(args)[0] or self.shape)


# ---- splits ----


@dataclass(frozen=True)
class Affine:
    """An expression that is affine in the rest: coefficients and a constant, functions of the few."""

    slopes: dict[int, Node]
    constant: Node


def _split(body: Node, used: Sequence[int], law: Law, budget: Budget) -> Split | None:
    """The best split, if it is better than none."""
    c, factors = _factors(body)
    best: Split | None = None
    tried, below = 0, topological([body])
    for size in range(min(MAX_GIVEN, len(used) - 1) + 1):
        if (best is not None and size >= best.dimension) or tried + comb(len(used), size) > MAX_SPLITS:
            break
        for few in combinations(used, size):
            tried += 1
            budget.expand(1 + len(below) // 40)  # they take about as long as so many questions
            most = (best.dimension if best is not None else len(used)) - 1
            split = _attempt(c, factors, few, [i for i in used if i not in few], law, most, budget)
            if split is not None:
                best = split
    return best


def _attempt(
    c: Number,
    factors: Sequence[tuple[Node, int]],
    few: Sequence[int],
    rest: Sequence[int],
    law: Law,
    most: int,
    budget: Budget,
) -> Split | None:
    """The integrand with the rest integrated out, if at most so many variables are left."""
    affine = _affine([a for a, _ in factors], set(rest))
    inner: dict[Node, int] = {}  # arguments that are Gaussian given the few
    nonlinear: set[Node] = set()
    for a, _ in factors:
        if affine[a] is None:
            found = _arguments(a, affine)
            nonlinear |= set(found)
            inner |= dict.fromkeys(found, 0)
        elif isinstance(affine[a], Affine):
            inner[carrier(a)] = 0
    inner = {t: law.d + k for k, t in enumerate(sorted(inner, key=lambda t: (t not in nonlinear, t.digest)))}
    bound = {t: Node("var", (), k) for t, k in inner.items()}
    count = len(nonlinear)
    closed = len(few) <= most and len(inner) <= 2
    if not closed and len(few) + count > most:
        return None
    free = [(a, k) for a, k in factors if affine[a] is FREE]
    others = [(_substituted(a, bound), k) for a, k in factors if affine[a] is not FREE]
    rest_law = law.given(few, rest)
    g = _joint([_known(affine[t]) for t in inner], rest, rest_law)
    if closed:
        answer, may_cancel = closed_form(others, [bound[t] for t in inner], g, budget)
        if answer is not None and not (may_cancel and _exponential(others)):
            return Split(tuple(few), algebra.mul([algebra.constant(c), *free, answer]), 0)
    if len(few) + count > most or sum([k for a, k in others if carrier(a).op == "var"]) > MAX_DEGREE:
        return None
    variances = frozenset([rest_law.cov(i, i) for i in range(len(rest))])
    white = _whitened(others, [bound[t] for t in inner], count, g, law.d, variances)
    body = algebra.mul([algebra.constant(c), *free, white])
    return Split(tuple(few), body, count)


def _exponential(factors: Sequence[tuple[Node, int]]) -> bool:
    """Are there exponentials? Tilted signs lose all their digits, others a share that is seen in the error."""
    return any(y.op == "fn" and y.attr.name in ("exp", "elu") for a, _ in factors for y in topological([a]))


class _Free:
    """Marks what does not depend on the rest."""


FREE = _Free()


def _known(a: Affine | _Free | None) -> Affine:
    assert isinstance(a, Affine)
    return a


def _affine(roots: Sequence[Node], rest: set[int]) -> dict[Node, Affine | _Free | None]:
    """How every subexpression depends on the rest: not at all, affinely, or otherwise (None)."""
    out: dict[Node, Affine | _Free | None] = {}
    for y in topological(roots):
        parts = [out[a] for a in y.args]
        if y.op == "var" and y.attr in rest:
            out[y] = Affine({y.attr: ONE}, ZERO)
        elif all(p is FREE for p in parts):
            out[y] = FREE
        elif any(p is None for p in parts) or y.op not in ("add", "mul"):
            out[y] = None
        elif y.op == "add":
            slopes: dict[int, list[tuple[Number, Node]]] = {}
            constant: list[tuple[Number, Node]] = []
            for c, a, p in zip(y.attr, y.args, parts, strict=True):
                if isinstance(p, Affine):
                    for r, s in p.slopes.items():
                        slopes.setdefault(r, []).append((c, s))
                constant.append((c, p.constant if isinstance(p, Affine) else a))
            out[y] = Affine({r: algebra.add(s) for r, s in slopes.items()}, algebra.add(constant))
        else:
            moving = [(p, k) for p, k in zip(parts, y.attr, strict=True) if isinstance(p, Affine)]
            if len(moving) == 1 and moving[0][1] == 1:
                factor = [(a, k) for a, p, k in zip(y.args, parts, y.attr, strict=True) if p is FREE]
                p = moving[0][0]
                slopes_of = {r: algebra.mul([*factor, s]) for r, s in p.slopes.items()}
                out[y] = Affine(slopes_of, algebra.mul([*factor, p.constant]))
            else:
                out[y] = None
    return out


def _arguments(a: Node, affine: Mapping[Node, Affine | _Free | None]) -> list[Node]:
    """The largest subexpressions that are affine in the rest; shifts by numbers stripped."""
    found: dict[Node, None] = {}
    todo, seen = [a], set()
    while todo:
        y = todo.pop()
        if y in seen or affine[y] is FREE:
            continue
        seen.add(y)
        if isinstance(affine[y], Affine) and y is not a:
            found[carrier(y)] = None
        else:
            todo.extend(y.args)
    return list(found)


def _joint(arguments: Sequence[Affine], rest: Sequence[int], g: Gaussian) -> Gaussian:
    """The law of affine functions of the rest, whose law is g."""
    place = {r: i for i, r in enumerate(rest)}
    means = []
    for t in arguments:
        moved = [(1, algebra.mul([s, g.means[place[r]]])) for r, s in t.slopes.items()]
        means.append(algebra.add([(1, t.constant), *moved]))
    cov = {}
    for i, t in enumerate(arguments):
        for j, u in enumerate(arguments[: i + 1]):
            pairs = [
                (1, algebra.mul([a, b, g.cov(place[r], place[q])]))
                for r, a in t.slopes.items()
                for q, b in u.slopes.items()
            ]
            cov[i, j] = algebra.add(pairs) if pairs else ZERO
    return Gaussian(tuple(means), cov)


def _is_positive(x: Node, variances: frozenset[Node]) -> bool:
    """Is it a sum of squares times variances, so that rounding makes it no negative number?"""
    match x.op:
        case "add":
            return all(c > 0 and _is_positive(a, variances) for c, a in zip(x.attr, x.args, strict=True))
        case "mul":
            return all(k % 2 == 0 or _is_positive(a, variances) for a, k in zip(x.args, x.attr, strict=True))
        case "constant":
            return float(x.attr) >= 0
    return x in variances


def _whitened(
    factors: Sequence[tuple[Node, int]],
    inner: Sequence[Node],
    count: int,
    g: Gaussian,
    d: int,
    variances: frozenset[Node],
) -> Node:
    """The factors as functions of `count` standard normals, the arguments beyond these integrated out.

    Cholesky's root row by row, in the order of the arguments: those in nonlinear functions come first.
    """
    roots: list[list[Node]] = []
    values: dict[Node, Node] = {}
    for i, t in enumerate(inner):
        row: list[Node] = []
        for j in range(min(i, count)):
            left = algebra.add([(1, g.cov(i, j)), *[(-1, algebra.mul([row[k], roots[j][k]])) for k in range(j)]])
            row.append(_over(left, roots[j][j]))
        if i < count:
            left = algebra.add([(1, g.cov(i, i)), *[(-1, algebra.power(x, 2)) for x in row]])
            positive = not row and _is_positive(left, variances)
            row.append(algebra.fn("sqrt", left if positive else algebra.fn("relu", left)))
        roots.append(row)
        normals = [Node("var", (), d + k) for k in range(len(row))]
        values[t] = algebra.add(
            [(1, g.means[i]), *[(1, algebra.mul([r, e])) for r, e in zip(row, normals, strict=True)]]
        )
    powers: list[tuple[Node, int]] = []
    rest: list[tuple[Node, int]] = []
    for a, k in factors:
        if a in inner[count:]:
            powers.append((a, k))
        else:
            rest.append((a, k))
    index = {t: i for i, t in enumerate(inner)}

    def left_over(a: Node, b: Node) -> Node:
        i, j = index[a], index[b]
        pairs = [(-1, algebra.mul([x, y])) for x, y in zip(roots[i], roots[j], strict=True)]
        return algebra.add([(1, g.cov(i, j)), *pairs])

    shifted = [(a, k) for a, k in rest if any(y in inner[count:] for y in topological([a]))]
    for a, k in shifted:  # a factor t + 1, of degree k: written out
        rest.remove((a, k))
    expanded: list[tuple[Number, dict[Node, int]]] = [(1, dict(powers))]
    for a, k in shifted:
        for _ in range(k):
            expanded = [
                (c * q, m if y is None else {**m, y: m.get(y, 0) + 1}) for c, m in expanded for q, y in _terms(a)
            ]
    polynomial = algebra.add([(c, _wick(m, values, left_over)) for c, m in expanded])
    outer = [(_substituted(a, values), k) for a, k in rest]
    return algebra.mul([*outer, polynomial])


def _terms(a: Node) -> list[tuple[Number, Node | None]]:
    """A shifted multiple of a variable as terms; None stands for 1."""
    if a.op == "var":
        return [(1, a)]
    out: list[tuple[Number, Node | None]] = []
    for c, b in zip(a.attr, a.args, strict=True):
        if b.op == "constant":
            out.append((c * b.attr, None))
        else:
            out += [(c * q, y) for q, y in _terms(b)]
    return out


def _wick(powers: Mapping[Node, int], means: Mapping[Node, Node], cov: object) -> Node:
    """E of a product of Gaussian variables with means (Isserlis)."""
    left = {t: k for t, k in powers.items() if k}
    if not left:
        return ONE
    t = next(iter(left))
    lower = {**left, t: left[t] - 1}
    pairs: list[tuple[Number, Node]] = [(1, algebra.mul([means[t], _wick(lower, means, cov)]))]
    for u, k in lower.items():
        if k:
            c = cov(t, u)  # type: ignore[operator]
            pairs.append((k, algebra.mul([c, _wick({**lower, u: k - 1}, means, cov)])))
    return algebra.add(pairs)


# ---- helpers ----


def _over(a: Node, b: Node) -> Node:
    """a / b, and 0 where b is 0."""
    return ZERO if a.is_zero else a if b == ONE else _residual(ZERO, a, algebra.constant(-1), b)


def _residual(*arguments: Node) -> Node:
    """x - y z / q, as a number where it is one: integrands are looked at more closely where they have no parameters."""
    value = dual("residual", *arguments)
    if value.op == "dual" and all(a.op == "constant" and not np.ndim(a.attr) for a in arguments):
        return algebra.constant(float(DUALS["residual"].array(*[np.float64(a.attr) for a in arguments])))
    return value


def _factors(body: Node) -> tuple[Number, list[tuple[Node, int]]]:
    c: Number = 1
    while body.op == "add" and len(body.args) == 1:
        c, body = c * body.attr[0], body.args[0]
    return c, list(zip(body.args, body.attr, strict=True)) if body.op == "mul" else [(body, 1)]


def _substituted(body: Node, places: Mapping[Node, Node]) -> Node:
    """An integrand with nodes replaced."""
    done: dict[Node, Node] = {}
    for y in topological([body], lambda y: () if y in places else y.args):
        if y in places:
            done[y] = places[y]
        elif y.op == "dual":
            done[y] = dual(y.attr, *[done[a] for a in y.args])
        else:
            done[y] = algebra.rebuild(y, [done[a] for a in y.args]) if y.args else y
    return done[body]


def _outside(body: Node, parameters: Sequence[Node], shape: tuple[int, ...]) -> Node:
    """An integrand of no variables as a scalar."""
    value = _substituted(body, {Node("param", (), i): p for i, p in enumerate(parameters)})
    return algebra.typed(value, shape, None, None)
