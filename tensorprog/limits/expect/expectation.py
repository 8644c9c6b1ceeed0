"""The expectation compiler: E of a Z-expression and covariances of Gaussian variables, as scalar programs.

`Expectation.mean` rewrites E x in layers; the first that applies wins:

1. linearity: sums, contractions, stacks, deterministic factors;
2. parity: a product that is odd in one independent family of leaves (or in all of them) has mean zero;
3. of a product, the first of the rules of `products.py` that has an answer: sums are expanded, inverse powers of sums of
   squares become integrals over tilted Gaussians (`laplace.py`), factors with zero covariance split, affine factors are
   stripped by Stein's lemma (Wick's, if all are affine); at the end closed forms (`closed.py`), else a Gaussian integral in
   a few variables.

Everything is pointwise in the axes: x has one shape, E x has the same, and the covariance of two aligned variables is
taken
position by position. An (N, N) kernel is the pointwise product of one vector seen along rows and along columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tensorprog.language import algebra
from tensorprog.language.algebra import ZERO, typed
from tensorprog.language.data import Embedding
from tensorprog.language.node import MOVES, Node
from tensorprog.limits.budget import Budget
from tensorprog.limits.expect.closed import Gaussian, closed_form
from tensorprog.limits.expect.columns import covariance_at, covariance_of_columns, sum_of_columns
from tensorprog.limits.expect.exponentials import Tilt, tilt
from tensorprog.limits.expect.factors import (
    axes_by_appearance,
    carried,
    factors_of,
    picked_again,
    spread_along,
    variance_factor,
)
from tensorprog.limits.expect.families import Families
from tensorprog.limits.expect.guard import guarded, size_of
from tensorprog.limits.expect.integral import integral
from tensorprog.limits.expect.moves import (
    is_variable,
    opened,
    opened_fully,
    ordered,
    root,
    scalar_version,
    settled,
    summand,
)
from tensorprog.limits.expect.picks import Picks, common_picks, split
from tensorprog.limits.expect.products import few_variables, product
from tensorprog.limits.expect.reduce import reduced
from tensorprog.limits.expect.rows import family_factor, of_family, stack_as_family
from tensorprog.limits.expect.structure import Structure
from tensorprog.limits.gauss.integrand import MAX_QUADRATURE
from tensorprog.limits.tasks import Declined, Solver, Task

__all__ = ["Expectation"]


class Expectation:
    """The rules of the limit, with one memory of answers for a whole program.

    Args:
        budget: What it may cost.
        reduce: Integrate what is Gaussian given few variables out (`reduce.py`): not in formulas that people read.
        integrals: May integrals have axes that the program's vectors have not (`families.py`)?
    """

    def __init__(self, budget: Budget | None = None, reduce: bool = True, integrals: bool = True) -> None:
        self.reduce = reduce
        self.budget = budget or Budget()
        self.structure = Structure(self.budget)
        self.solver = Solver(self.budget)
        self.families = Families(integrals)
        self.unweighed: list[Node] = []
        """`limits/gauss/finite.py:Weights` of integrals that are sampled in the end, and would not notice an infinite moment:
        they are evaluated before (`limits/evaluate/moments.py`)."""
        self.used: Counter[str] = Counter()  # rules by name, to how many questions each has answered

    # ---- E ----
    def mean(self, x: Node) -> Node | Task:
        """E x, of the same shape (or of none, where it is one number)."""
        if x.width is None:
            return x
        if x.op == "constant":
            return scalar_version(x)
        if is_variable(x) or self.structure.facts(x).odd:
            return ZERO
        return self._mean(x)

    def _mean(self, x: Node) -> Task:
        facts = self.structure.facts(x)
        if not facts.families:
            return scalar_version(x)
        if facts.picks:
            (inside,), picked = self._without_picks((x,), facts.picks)
            if picked:
                value = yield (self.mean, inside)
                return picked_again(value, inside.shape, picked)
        if len(x.shape) > 1 or len(facts.support) < len(x.shape):
            order = self._canonical_axes(x)
            if order != tuple(range(len(x.shape))):
                value = yield (self.mean, self.restricted(x, order))
                return algebra.view(value, order, x.shape) if order else typed(value, x.shape, None, None)
        match x.op:
            case "add":
                whole = yield from few_variables(self, [(x, 1)])
                if whole is not None:
                    return typed(whole, x.shape, None, None)
                pairs = []
                for c, a in zip(x.attr, x.args, strict=True):
                    value = yield (self.mean, a)
                    pairs.append((c, value))
                return typed(algebra.add(pairs), x.shape, None, None)
            case "pick":
                value = yield (self.mean, opened(x))
                return typed(value, x.shape, None, None)
            case "view" | "take":
                value = yield (self.mean, x.args[0])
                return algebra.view(value, x.attr, x.shape) if x.op == "view" else algebra.take(value, *x.attr)
            case "sum":
                value = yield (self.mean, x.args[0])
                return algebra.sum_axis(typed(value, x.args[0].shape, None, None), x.attr)
            case "stack":
                values = []
                for a in x.args:
                    value = yield (self.mean, a)
                    values.append(typed(value, a.shape, None, None))
                return algebra.stack(values, x.attr)
        if facts.stacked:
            value = yield from self._unstacked(x)
            return value
        f = family_factor(x)
        if f is not None:
            value = yield from of_family(self, x, f)
            return typed(value, x.shape, None, None)
        factors = factors_of(x)
        scalars = [(scalar_version(a), k) for a, k in factors if not self.structure.facts(a).families]
        if scalars:
            rest = algebra.mul([(a, k) for a, k in factors if self.structure.facts(a).families])
            value = yield (self.mean, rest)
            return typed(algebra.mul([*scalars, value]), x.shape, None, None)
        value = yield from product(self, x, factors)
        return typed(value, x.shape, None, None)

    def _canonical_axes(self, x: Node) -> tuple[int, ...]:
        order = axes_by_appearance(x, self.structure.facts(x).support)
        if len(order) == len(x.shape) and order != tuple(range(len(order))):
            y = self.restricted(x, order)  # a transposition is worth it only where it leads to a form that stays
            if axes_by_appearance(y, self.structure.facts(y).support) != tuple(range(len(order))):
                return tuple(range(len(order)))
        return order

    def restricted(self, x: Node, order: tuple[int, ...]) -> Node:
        """x along the given axes only (it does not vary along the others)."""
        y = x
        for axis in reversed(range(len(x.shape))):
            if axis not in order:
                y = algebra.take(y, axis, 0)
        kept = sorted(order)
        return settled(algebra.transpose(y, [kept.index(a) for a in order]))

    def _without_picks(
        self, xs: tuple[Node, ...], picks: Picks
    ) -> tuple[tuple[Node, ...], list[tuple[int, tuple[int, ...]]]]:
        """Aligned expressions without the given picks that they share, and what is picked of their expectation or covariance."""
        outside = []
        for axis, pick in sorted(picks.items()):
            index, inside = split(pick)
            used = pick[1] if inside is None else inside
            if index != tuple(range(len(used))) or inside is None:
                xs = tuple([self.structure.unpicked(x, axis, pick[0]) if x.shape else x for x in xs])
                if inside is not None:
                    xs = tuple([settled(algebra.pick(x, axis, inside)) if x.shape else x for x in xs])
                outside.append((axis, index))
        return xs, outside

    def _unstacked(self, x: Node) -> Task:
        """E of a function of stacks: position by position along the first axis that is one."""
        axis = self.stack_axis(x)
        together = stack_as_family(self, x, axis) if self.reduce else None
        if together is not None:
            value = yield (self.mean, together)
            return value
        parts = []
        for i in range(x.shape[axis]):
            y = settled(algebra.take(x, axis, i))
            value = yield (self.mean, y)
            parts.append(typed(value, y.shape, None, None))
        return algebra.stack(parts, axis)

    def stack_axis(self, x: Node) -> int:
        """The axis of the first stack that a walk from x meets."""
        while x.op != "stack":
            if x.op in MOVES:
                x = opened(x)
            elif x.op == "sum":
                raise Declined("a nonlinear function of a contracted stack")
            else:
                x = next(a for a in x.args if a.width is not None and self.structure.facts(a).stacked)
        return x.attr

    def solve_few(self, factors: list[tuple[Node, int]]) -> Task:
        """E of a product of functions of a few jointly Gaussian variables."""
        whole = algebra.mul(factors)
        atoms = self.structure.atoms(whole)
        gaussian = yield from self.gaussian_of(atoms)
        answer, may_cancel = closed_form(factors, atoms, gaussian, self.budget)
        if answer is None:
            moved = tilt(self.structure, factors, atoms, gaussian)  # exponentials that the rest does not stop
            if moved is not None:
                return self._tilted(moved)
            bases = self.structure.bases(atoms)
            if len(bases) < len(atoms) and len(bases) <= MAX_QUADRATURE:
                gaussian, atoms = (yield from self.gaussian_of(bases)), bases  # z and s z, s a scalar, are one variable
            left = integral(self.structure, whole, atoms, gaussian)
            return reduced(left, self.budget) if self.reduce else left
        if may_cancel and answer.op != "constant":
            try:
                other = integral(self.structure, whole, atoms, gaussian)
            except Declined:  # no function, or of too many variables
                return answer
            if other.attr.by_quadrature:
                return guarded(answer, size_of(answer, (*gaussian.means, *gaussian.covariances.values())), other)
        return answer

    def gaussian_of(self, variables: Sequence[Node]) -> Task:
        """The joint law of some variables: their means and covariances."""
        means, covariances = [], {}
        for i, u in enumerate(variables):
            m = yield (self.mean, u)
            means.append(m)
            for j in range(i + 1):
                covariances[i, j] = yield (self.covariance, *ordered(u, variables[j]))
        return Gaussian(tuple(means), covariances)

    def _tilted(self, moved: Tilt) -> Node:
        """E of a product whose exponentials have been taken out."""
        answer, may_cancel = closed_form(moved.rest, moved.atoms, moved.gaussian, self.budget)
        if answer is None or may_cancel:
            answer = integral(self.structure, algebra.mul(moved.rest), moved.atoms, moved.gaussian)
            answer = reduced(answer, self.budget) if self.reduce else answer
        return algebra.mul([moved.number, answer])

    # ---- covariance ----
    def covariance(self, u: Node, v: Node) -> Node | Task:
        """Cov(u, v), position by position, of affine expressions of one shape (or none)."""
        if u.width is None or v.width is None:
            return ZERO
        if not self.structure.facts(u).families & self.structure.facts(v).families:
            return ZERO
        return self._covariance(u, v)

    def _covariance(self, u: Node, v: Node) -> Task:
        shape = u.shape or v.shape
        order = tuple(sorted(frozenset().union(*[self.structure.facts(x).support for x in (u, v) if x.shape])))
        if order != tuple(range(len(shape))):
            u, v = [self.restricted(x, order) if x.shape else x for x in (u, v)]
            value = yield (self.covariance, u, v)
            return algebra.view(value, order, shape) if value.shape else value
        if shape:
            known = [self.structure.facts(x) for x in (u, v) if x.shape]
            common = common_picks([(f.support, f.picks) for f in known])
            (a, b), picked = self._without_picks((u, v), common)
            if picked:
                value = yield (self.covariance, *ordered(a, b))
                return picked_again(value, a.shape or b.shape, picked)
        if is_variable(u) and is_variable(v):
            value = yield from self._covariance_of_leaves(u, v)
            return value
        (a, outside), (b, more) = self._without_scalars(u), self._without_scalars(v)
        if outside or more:  # before either is taken apart: their axes are no longer the pair's then
            value = yield (self.covariance, a, b)
            return algebra.mul([*outside, *more, value])
        if is_variable(u) or (not is_variable(v) and root(v).height > root(u).height):
            u, v = v, u  # the later one is taken apart, so that the pairs that occur stay few
        match u.op:
            case "view" | "take" | "pick":
                value = yield (self.covariance, opened(u), v)
                return value
            case "add":
                pairs = []
                for c, a in zip(u.attr, u.args, strict=True):
                    value = yield (self.covariance, a, v)
                    pairs.append((c, value))
                return algebra.add(pairs)
            case "sum":
                inside = summand(u, shape)
                known_sum = sum_of_columns(self.structure, inside, v)
                if known_sum is not None:
                    return known_sum
                value = yield (self.covariance, inside, spread_along(v, inside.shape[-1]))
                return algebra.sum_axis(typed(value, inside.shape, None, None), len(shape))
            case "stack":
                parts = []
                for i, a in enumerate(u.args):
                    value = yield (self.covariance, a, algebra.take(v, u.attr, i) if v.shape else v)
                    parts.append(typed(value, a.shape, None, None))
                return algebra.stack(parts, u.attr)
        raise AssertionError(f"{u.op} is not affine: please report this")

    def _without_scalars(self, u: Node) -> tuple[Node, list[tuple[Node, int]]]:
        """An affine expression without its deterministic factors, and these, as scalars."""
        outside: list[tuple[Node, int]] = []
        while root(u).op == "mul":
            if u.op != "mul":
                u = opened(u)
                continue
            scalars = [(a, k) for a, k in zip(u.args, u.attr, strict=True) if not self.structure.facts(a).families]
            outside += [(scalar_version(a), k) for a, k in scalars]
            (u,) = [a for a in u.args if self.structure.facts(a).families]
        return u, outside

    def _covariance_of_leaves(self, u: Node, v: Node) -> Task:
        a, b = root(u), root(v)
        if a.op != b.op:
            return ZERO
        if a.op == "hat":
            if a.attr != b.attr:
                return ZERO
            x, y = carried(u, a.args[0]), carried(v, b.args[0])
            value = yield (self.mean, algebra.mul([opened_fully(x), opened_fully(y)]))
            return algebra.scale(variance_factor(a.attr.matrix, a.attr.transposed), value)
        if isinstance(a.attr, Embedding) and isinstance(b.attr, Embedding):
            if a.attr.name != b.attr.name:
                return ZERO
            return covariance_at(a.attr.covariance_with(b.attr), u, v)
        return covariance_of_columns(a.attr, u, v) if a.attr == b.attr else ZERO
