"""The expectation compiler: E of a Z-expression and covariances of Gaussian variables, as scalar programs.

`Expectation.mean` rewrites E x in layers; the first that applies wins:

1. linearity: sums, contractions, stacks, deterministic factors;
2. parity: a product that is odd in one independent family of leaves (or in all of them) has mean zero;
3. sums inside products are expanded; affine factors are stripped by Stein's lemma (Wick's, if all are affine);
4. inverse powers of sums of squares become integrals over tilted Gaussians (`laplace.py`);
5. factors with zero covariance split;
6. closed forms (`closed.py`), else a Gaussian integral in a few variables, else the rule declines.

Everything is pointwise in the axes: x has one shape, E x has the same, and the covariance of two aligned variables is
taken
position by position. An (N, N) kernel is the pointwise product of one vector seen along rows and along columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

from tensorprog.language import algebra
from tensorprog.language.algebra import ONE, ZERO, typed
from tensorprog.language.data import Embedding
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.budget import Budget
from tensorprog.limits.closed import Gaussian, closed_form, expressible
from tensorprog.limits.columns import covariance_at, covariance_of_columns, sum_of_columns
from tensorprog.limits.exponentials import Tilt, tilt
from tensorprog.limits.factors import (
    axes_by_appearance,
    carried,
    factors_of,
    picked_again,
    spread_along,
    variance_factor,
    without,
)
from tensorprog.limits.families import MANY, Families
from tensorprog.limits.guard import guarded, size_of
from tensorprog.limits.integral import MAX_QUADRATURE, integral
from tensorprog.limits.laplace import inverse_powers, laplace
from tensorprog.limits.monomials import MAX_DEGREE, Variables, as_sum
from tensorprog.limits.picks import Picks, common_picks, split
from tensorprog.limits.reduce import reduced
from tensorprog.limits.rows import family_factor, of_family, stack_as_family, sums_over_families
from tensorprog.limits.structure import (
    Structure,
    is_variable,
    opened,
    opened_fully,
    ordered,
    root,
    scalar_version,
    settled,
    summand,
)
from tensorprog.limits.tasks import Declined, Solver, Task

__all__ = ["Expectation"]

MANY_TERMS = 2000
"""Products of sums are expanded up to this many terms."""
FEW_VARIABLES = 3
KINKED = frozenset(name for name, row in PRIMITIVES.items() if row.kinks) | {"smooth_sign", "normal_cdf", "erf", "gelu"}
"""Functions with signs, sharp or smoothed, in their basis."""


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
                whole = yield from self._together([(x, 1)])
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
        value = yield from self._product(x, factors)
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

    # ---- products ----
    def _product(self, x: Node, factors: list[tuple[Node, int]]) -> Task:
        facts = self.structure.facts
        for a, k in factors:  # a factor that is a view of a product or a sum is moved down first
            if a.op in MOVES and not facts(a).affine:
                rest = without(factors, a)
                value = yield (self.mean, algebra.mul([(opened(a), k), *rest]))
                return value
        apart = self._by_families(factors)
        if len(apart) > 1:
            value = yield from self._independent(apart)
            return value
        powers = inverse_powers(self, factors)
        nonlinear_sums = [a for a, _ in factors if a.op in ("add", "sum") and not facts(a).affine]
        if powers is None:
            nonlinear_sums = [a for a in nonlinear_sums if not self._held(a, factors)]
        if nonlinear_sums:
            for rule in (self._together, self._of_two_polynomials):
                whole = yield from rule(factors)
                if whole is not None:
                    return whole
            sums = [(a, k) for a, k in factors if a in nonlinear_sums]
            if sum([k for _, k in sums]) > 2:  # of two sums, pairs are remembered and few
                expanded = prod([self.structure.terms(a) ** k for a, k in sums])
                if expanded > MANY_TERMS:
                    value = yield from self._unexpanded(factors, expanded)
                    return value
            value = yield from self._expanded(max(nonlinear_sums, key=lambda a: (a.height, a.digest)), factors)
            return value
        if powers is not None:
            try:
                value = yield from laplace(self, x.shape, *powers)
                return value
            except Declined:  # a function of few variables may still be integrated
                powers = None if not powers[0] else powers
        affine = [(a, k) for a, k in factors if facts(a).affine]
        rest = [(a, k) for a, k in factors if not facts(a).affine]
        if not rest:
            value = yield from self._wick(affine)
            return value
        vanishes = yield from self._has_centred_factor(affine, factors)
        if vanishes:
            return ZERO
        groups = yield from self._independent_groups(factors)
        if len(groups) > 1:
            value = yield from self._independent(groups)
            return value
        if affine and powers is None:  # Stein's lemma differentiates, and would raise the power of a quadratic form
            value = yield from self._stein(affine, rest)
            if value is not None:
                return value
        value = yield from self._solve(factors)
        return value

    def _together(self, factors: list[tuple[Node, int]]) -> Task:
        """E of a product of sums of exponentials and kinked functions of two variables at most; None if it is anything else.

        Such sums are not expanded: E[exp(x) (1 - step(x))] is small where E exp(x) is out of range.
        """
        names = frozenset().union(*[self.structure.names(a) for a, _ in factors])
        if "exp" not in names or not names & KINKED:
            return None
        atoms = self.structure.atoms(algebra.mul(factors))
        if len(atoms) > 2 or as_sum(algebra.mul(factors), Variables(atoms, self.budget)) is None:
            return None
        value = yield from self._solve(factors)
        return value

    def _of_two_polynomials(self, factors: list[tuple[Node, int]]) -> Task:
        """E P(u) Q(v) = sum_k c^k/k! E P^(k)(u) E Q^(k)(v), c = Cov(u, v); None for anything else.

        Of Hermite polynomials one term is left; written out in monomials, c^k is a difference of numbers of order 1.
        """
        if any(self.structure.names(a) for a, _ in factors):
            return None
        atoms = self.structure.atoms(algebra.mul(factors))
        sides = [[(a, k) for a, k in factors if self.structure.atoms(a) == (u,)] for u in atoms]
        if len(atoms) != 2 or sum(map(len, sides)) != len(factors):
            return None
        if not all(any(a.op == "add" for a, _ in side) for side in sides):
            return None
        p, q = [algebra.mul(side) for side in sides]
        degree = min([self._degree(p, atoms[0]), self._degree(q, atoms[1])])
        if degree < 0:
            return None
        c = yield (self.covariance, *ordered(*atoms))
        pairs: list[tuple[Number, Node]] = []
        power, factorial = ONE, 1
        for k in range(degree + 1):
            one = yield (self.mean, p)
            two = (yield (self.mean, q)) if not one.is_zero else ZERO
            pairs.append((Fraction(1, factorial), algebra.mul([power, one, two])))
            if k < degree:
                p, q = self.structure.derivative(p, atoms[0]), self.structure.derivative(q, atoms[1])
                power, factorial = algebra.mul([power, c]), factorial * (k + 1)
        return algebra.add(pairs)

    def _degree(self, x: Node, u: Node) -> int:
        """The degree of a polynomial in one Gaussian variable; -1 if it is none."""
        degrees: dict[Node, int] = {}

        def operands(y: Node) -> tuple[Node, ...]:
            if y == u or not self.structure.facts(y).families:
                return ()
            return (opened(y),) if y.op in MOVES else y.args

        for y in topological([x], operands):
            below = [degrees[a] for a in operands(y)]
            if not below:
                degrees[y] = int(y == u)
            elif min(below) < 0 or y.op not in ("add", "mul", *MOVES):
                degrees[y] = -1
            else:
                degrees[y] = sum([k * d for k, d in zip(y.attr, below, strict=True)]) if y.op == "mul" else max(below)
        return degrees[x] if degrees[x] <= MAX_DEGREE else -1

    def _by_families(self, factors: list[tuple[Node, int]]) -> list[list[tuple[Node, int]]]:
        """The factors in groups without a family of leaves in common, those first whose expectation is likely to be 0.

        Seen before sums are expanded: a layer's input, a long sum in a residual network, is independent of what its matrix makes.
        """
        groups: list[tuple[list[tuple[Node, int]], frozenset]] = []
        for a, k in factors:
            members, families = [(a, k)], self.structure.facts(a).families
            apart = []
            for others, theirs in groups:
                if families & theirs:
                    members, families = others + members, families | theirs
                else:
                    apart.append((others, theirs))
            groups = [*apart, (members, families)]
        return [members for members, _ in sorted(groups, key=self._effort)]

    def _effort(self, group: tuple[list[tuple[Node, int]], frozenset]) -> tuple[bool, int]:
        """What has a Gaussian variable as a factor, such as a gradient, mostly vanishes, and comes first."""
        members, _ = group
        vanishing = any(k == 1 and self.structure.facts(a).affine for a, k in members)
        return not vanishing, max([a.height for a, _ in members])

    def _independent(self, groups: list[list[tuple[Node, int]]]) -> Task:
        """E of a product of independent factors."""
        parts = []
        for group in groups:
            value = yield (self.mean, algebra.mul(group))
            if value.is_zero:
                return ZERO
            parts.append(value)
        return algebra.mul(parts)

    def _held(self, a: Node, factors: list[tuple[Node, int]]) -> bool:
        """Is a sum better left as it is: does a factor without closed form depend on all its variables?

        Then every term of the expansion is an integral in as many variables as the whole.
        """
        if a.op != "add":
            return False
        facts, variables = self.structure.facts, self.structure.variables
        return any(
            facts(a).families <= facts(b).families
            and variables(a) <= variables(b)
            and not expressible(b, self.structure.atoms(b), self.budget)
            for b, _ in factors
            if b.op == "fn"
        )

    def _unexpanded(self, factors: list[tuple[Node, int]], terms: int) -> Task:
        """E of a product of long sums: as one integral if it is a function of few variables."""
        atoms = self.structure.atoms(algebra.mul(factors))
        if len(atoms) > FEW_VARIABLES:
            raise Declined(f"a product of sums with {terms} terms in {len(atoms)} variables")
        value = yield from self._solve(factors)
        return value

    def _expanded(self, a: Node, factors: list[tuple[Node, int]]) -> Task:
        """E[a R] for a sum or a contraction a."""
        k = dict(factors)[a]
        rest = without(factors, a) + ([(a, k - 1)] if k > 1 else [])
        pairs = []
        if a.op == "sum":
            shape = next((b.shape for b, _ in factors if b.shape), ())
            inside = summand(a, shape)
            spread = [(spread_along(b, inside.shape[-1]), j) for b, j in rest]
            value = yield (self.mean, algebra.mul([inside, *spread]))
            return algebra.sum_axis(typed(value, inside.shape, None, None), len(shape))
        if len(a.args) >= MANY and self.reduce:
            shape = next((b.shape for b, _ in factors if b.shape), ())
            value = yield from sums_over_families(self, a, rest, shape)
            if value is not None:
                return value
        for c, b in zip(a.attr, a.args, strict=True):
            value = yield (self.mean, algebra.mul([b, *rest]))
            pairs.append((c, value))
        return algebra.add(pairs)

    def _wick(self, affine: list[tuple[Node, int]]) -> Task:
        """E of a product of Gaussian variables (Isserlis, with means)."""
        (u, k), others = affine[0], affine[1:]
        rest = [*others, (u, k - 1)] if k > 1 else others
        mean = yield (self.mean, u)
        if not rest:
            return mean
        pairs: list[tuple[Number, Node]] = []
        for v, j in rest:
            c = yield (self.covariance, *ordered(u, v))
            if not c.is_zero:
                lower = [(w, i - (w == v)) for w, i in rest if i - (w == v)]
                value = (yield (self.mean, algebra.mul(lower))) if lower else ONE
                pairs.append((j, algebra.mul([c, value])))
        if not mean.is_zero:
            value = yield (self.mean, algebra.mul(rest))
            pairs.append((1, algebra.mul([mean, value])))
        return algebra.add(pairs) if pairs else ZERO

    def _stein(self, affine: list[tuple[Node, int]], rest: list[tuple[Node, int]]) -> Task:
        """E[u R] = E u E R + sum over variables v of R of Cov(u, v) E[dR/dv], for a u that is no multiple of a variable of R.

        A derivative may bring multiples of the variables of R back as factors. They are integrated with R: were they stripped
        again, there would be no end.
        """
        known = self.structure.variables(algebra.mul(rest))
        u = next((a for a, _ in affine if self.structure.variable(a) not in known), None)
        if u is None:
            return None
        k = dict(affine)[u]
        remaining = [*without(affine, u), *([(u, k - 1)] if k > 1 else []), *rest]
        whole = algebra.mul(remaining)
        try:
            pairs: list[tuple[Number, Node]] = []
            for v in self.structure.atoms(whole):
                c = yield (self.covariance, *ordered(u, v))
                if not c.is_zero:
                    value = yield (self.mean, self.structure.derivative(whole, v))
                    pairs.append((1, algebra.mul([c, value])))
            mean = yield (self.mean, u)
            if not mean.is_zero:
                value = yield (self.mean, whole)
                pairs.append((1, algebra.mul([mean, value])))
        except (
            Declined
        ):  # for example the derivative of a jump times a function without closed form: integrate with u in
            return None
        return algebra.add(pairs) if pairs else ZERO

    def _has_centred_factor(self, affine: list[tuple[Node, int]], factors: list[tuple[Node, int]]) -> Task:
        """Is a factor a centred Gaussian variable that is independent of all others?

        Asked before the others meet each other: most Moments of two gradients vanish so, and what they are made of else is many
        covariances of the forward pass.
        """
        for a, k in affine:
            if k > 1:
                continue
            mean = yield (self.mean, a)
            if not mean.is_zero:
                continue
            for v in [v for b, _ in factors if b != a for v in self.structure.atoms(b)]:
                c = yield (self.covariance, *ordered(a, v))
                if not c.is_zero:
                    break
            else:
                return True
        return False

    def _independent_groups(self, factors: list[tuple[Node, int]]) -> Task:
        groups: list[tuple[list[tuple[Node, int]], list[Node]]] = []
        for a, k in factors:
            mine = list(self.structure.atoms(a))
            joined: list[tuple[Node, int]] = [(a, k)]
            apart = []
            for members, atoms in groups:
                dependent = False
                for u in mine:
                    for v in atoms:
                        c = yield (self.covariance, *ordered(u, v))
                        if not c.is_zero:
                            dependent = True
                            break
                    if dependent:
                        break
                if dependent:
                    joined, mine = members + joined, atoms + mine
                else:
                    apart.append((members, atoms))
            groups = [*apart, (joined, mine)]
        return [members for members, _ in groups]

    def _solve(self, factors: list[tuple[Node, int]]) -> Task:
        """E of a product of functions of a few jointly Gaussian variables."""
        whole = algebra.mul(factors)
        atoms = self.structure.atoms(whole)
        gaussian = yield from self._gaussian(atoms)
        answer, may_cancel = closed_form(factors, atoms, gaussian, self.budget)
        if answer is None:
            moved = tilt(self.structure, factors, atoms, gaussian)  # exponentials that the rest does not stop
            if moved is not None:
                return self._tilted(moved)
            bases = self.structure.bases(atoms)
            if len(bases) < len(atoms) and len(bases) <= MAX_QUADRATURE:
                gaussian, atoms = (yield from self._gaussian(bases)), bases  # z and s z, s a scalar, are one variable
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

    def _gaussian(self, variables: Sequence[Node]) -> Task:
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
            case "mul":
                scalars = [(a, k) for a, k in zip(u.args, u.attr, strict=True) if not self.structure.facts(a).families]
                (z,) = [a for a in u.args if self.structure.facts(a).families]
                value = yield (self.covariance, z, v)
                return algebra.mul([*[(scalar_version(a), k) for a, k in scalars], value])
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

    def _covariance_of_leaves(self, u: Node, v: Node) -> Task:
        a, b = root(u), root(v)
        if a.op != b.op:
            return ZERO
        if a.op == "hat":
            if a.attr != b.attr:
                return ZERO
            x, y = carried(u, a.args[0]), carried(v, b.args[0])
            value = yield (self.mean, algebra.mul([opened_fully(x), opened_fully(y)]))
            return algebra.scale(variance_factor(*a.attr), value)
        if isinstance(a.attr, Embedding) and isinstance(b.attr, Embedding):
            if a.attr.name != b.attr.name:
                return ZERO
            return covariance_at(a.attr.covariance_with(b.attr), u, v)
        return covariance_of_columns(a.attr, u, v) if a.attr == b.attr else ZERO
