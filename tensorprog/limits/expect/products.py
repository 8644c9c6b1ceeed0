"""E of a product of functions of Gaussian variables: the rules, each by its name, tried in order.

A rule is a generator of questions that ends in an answer, or in None where it does not apply; the first answer wins, and its
name is counted (`Expectation.used`), so that `limit(..).explain()` can say what gave a number. To add a rule, write a
generator and give it a place in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from tensorprog.language import algebra
from tensorprog.language.algebra import ONE, ZERO, typed
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.expect.closed import expressible
from tensorprog.limits.expect.factors import spread_along, without
from tensorprog.limits.expect.families import MANY
from tensorprog.limits.expect.laplace import inverse_powers, laplace
from tensorprog.limits.expect.monomials import MAX_DEGREE, Variables, as_sum
from tensorprog.limits.expect.moves import opened, ordered, summand
from tensorprog.limits.expect.rows import sums_over_families
from tensorprog.limits.tasks import Declined, Task

if TYPE_CHECKING:
    from tensorprog.limits.expect.expectation import Expectation

__all__ = ["RULES", "few_variables", "product"]

MANY_TERMS = 2000
"""Products of sums are expanded up to this many terms."""
FEW_VARIABLES = 3
KINKED = frozenset(name for name, row in PRIMITIVES.items() if row.kinks) | {"smooth_sign", "normal_cdf", "erf", "gelu"}
"""Functions with signs, sharp or smoothed, in their basis."""


class Product:
    """A product whose expectation is asked for, and what the rules see of it.

    Args:
        e: The rules of the limit.
        x: The product.
        factors: Its factors with their powers.
    """

    def __init__(self, e: Expectation, x: Node, factors: list[tuple[Node, int]]) -> None:
        self.e, self.x, self.factors = e, x, factors
        self.facts = e.structure.facts

    @cached_property
    def powers(self) -> Any:
        """Its inverse powers of sums of squares, see `laplace.py`; None where it has none."""
        return inverse_powers(self.e, self.factors)

    @cached_property
    def sums(self) -> list[Node]:
        """Nonlinear sums among its factors, those that are better held together apart."""
        found = [a for a, _ in self.factors if a.op in ("add", "sum") and not self.facts(a).affine]
        return found if self.powers is not None else [a for a in found if not _held(self.e, a, self.factors)]

    @cached_property
    def affine(self) -> list[tuple[Node, int]]:
        """The factors that are Gaussian variables."""
        return [(a, k) for a, k in self.factors if self.facts(a).affine]

    @cached_property
    def rest(self) -> list[tuple[Node, int]]:
        """The others."""
        return [(a, k) for a, k in self.factors if not self.facts(a).affine]


def product(e: Expectation, x: Node, factors: list[tuple[Node, int]]) -> Task:
    """E x, x the product of these factors: by the first rule that has an answer."""
    p = Product(e, x, factors)
    for name, rule in RULES:
        value = yield from rule(p)
        if value is not None:
            e.used[name] += 1
            return value
    raise Declined("a product that no rule has an expectation of")


# ---- the rules ----


def _moved_down(p: Product) -> Task:
    """A factor that is a view of a product or a sum is moved down first."""
    for a, k in p.factors:
        if a.op in MOVES and not p.facts(a).affine:
            value = yield (p.e.mean, algebra.mul([(opened(a), k), *without(p.factors, a)]))
            return value
    return None


def _families_apart(p: Product) -> Task:
    """Factors of independent leaves."""
    apart = _by_families(p.e, p.factors)
    if len(apart) < 2:
        return None
    value = yield from _independent(p.e, apart)
    return value


def _sums_together(p: Product) -> Task:
    """Sums of exponentials and kinked functions of two variables."""
    value = (yield from few_variables(p.e, p.factors)) if p.sums else None
    return value


def _polynomials(p: Product) -> Task:
    """A polynomial of one variable times one of another."""
    value = (yield from _of_two_polynomials(p.e, p.factors)) if p.sums else None
    return value


def _sums_expanded(p: Product) -> Task:
    """Sums are written out, unless that is too long."""
    if not p.sums:
        return None
    sums = [(a, k) for a, k in p.factors if a in p.sums]
    if sum([k for _, k in sums]) > 2:  # of two sums, pairs are remembered and few
        expanded = prod([p.e.structure.terms(a) ** k for a, k in sums])
        if expanded > MANY_TERMS:
            value = yield from _unexpanded(p.e, p.factors, expanded)
            return value
    value = yield from _expanded(p.e, max(p.sums, key=lambda a: (a.height, a.digest)), p.factors)
    return value


def _inverse_powers(p: Product) -> Task:
    """Inverse powers of sums of squares, by tilted laws."""
    if p.powers is None:
        return None
    try:
        value = yield from laplace(p.e, p.x.shape, *p.powers)
        return value
    except Declined:  # a function of few variables may still be integrated
        return None


def _all_affine(p: Product) -> Task:
    """A product of Gaussian variables."""
    value = (yield from _wick(p.e, p.affine)) if not p.rest else None
    return value


def _centred_factor(p: Product) -> Task:
    """A centred Gaussian factor that is independent of the others."""
    vanishes = yield from _has_centred_factor(p.e, p.affine, p.factors)
    return ZERO if vanishes else None


def _uncorrelated(p: Product) -> Task:
    """Factors of uncorrelated variables."""
    groups = yield from _independent_groups(p.e, p.factors)
    if len(groups) < 2:
        return None
    value = yield from _independent(p.e, groups)
    return value


def _by_parts(p: Product) -> Task:
    """A Gaussian factor times a function; not next to inverse powers: a derivative would raise them."""
    if not p.affine or (p.powers is not None and p.powers[0]):
        return None
    value = yield from _stein(p.e, p.affine, p.rest)
    return value


def _few(p: Product) -> Task:
    """A function of a few variables: a closed form, or an integral."""
    value = yield from p.e.solve_few(p.factors)
    return value


RULES: tuple[tuple[str, Callable[[Product], Task]], ...] = (
    ("a view moved inside", _moved_down),
    ("independent families", _families_apart),
    ("sums of two variables", _sums_together),
    ("two polynomials", _polynomials),
    ("sums expanded", _sums_expanded),
    ("tilted laws (Laplace)", _inverse_powers),
    ("Wick's theorem", _all_affine),
    ("a centred factor", _centred_factor),
    ("uncorrelated factors", _uncorrelated),
    ("Stein's lemma", _by_parts),
    ("few variables", _few),
)
"""What is tried, in this order."""


# ---- what they are made of ----


def few_variables(e: Expectation, factors: list[tuple[Node, int]]) -> Task:
    """E of a product of sums of exponentials and kinked functions of two variables at most; None if it is anything else.

    Such sums are not expanded: E[exp(x) (1 - step(x))] is small where E exp(x) is out of range.
    """
    names = frozenset().union(*[e.structure.names(a) for a, _ in factors])
    if "exp" not in names or not names & KINKED:
        return None
    atoms = e.structure.atoms(algebra.mul(factors))
    if len(atoms) > 2 or as_sum(algebra.mul(factors), Variables(atoms, e.budget)) is None:
        return None
    value = yield from e.solve_few(factors)
    return value


def _of_two_polynomials(e: Expectation, factors: list[tuple[Node, int]]) -> Task:
    """E P(u) Q(v) = sum_k c^k/k! E P^(k)(u) E Q^(k)(v), c = Cov(u, v); None for anything else.

    Of Hermite polynomials one term is left; written out in monomials, c^k is a difference of numbers of order 1.
    """
    if any(e.structure.names(a) for a, _ in factors):
        return None
    atoms = e.structure.atoms(algebra.mul(factors))
    sides = [[(a, k) for a, k in factors if e.structure.atoms(a) == (u,)] for u in atoms]
    if len(atoms) != 2 or sum(map(len, sides)) != len(factors):
        return None
    if not all(any(a.op == "add" for a, _ in side) for side in sides):
        return None
    p, q = [algebra.mul(side) for side in sides]
    degree = min([_degree(e, p, atoms[0]), _degree(e, q, atoms[1])])
    if degree < 0:
        return None
    c = yield (e.covariance, *ordered(*atoms))
    pairs: list[tuple[Number, Node]] = []
    power, factorial = ONE, 1
    for k in range(degree + 1):
        one = yield (e.mean, p)
        two = (yield (e.mean, q)) if not one.is_zero else ZERO
        pairs.append((Fraction(1, factorial), algebra.mul([power, one, two])))
        if k < degree:
            p, q = e.structure.derivative(p, atoms[0]), e.structure.derivative(q, atoms[1])
            power, factorial = algebra.mul([power, c]), factorial * (k + 1)
    return algebra.add(pairs)


def _degree(e: Expectation, x: Node, u: Node) -> int:
    """The degree of a polynomial in one Gaussian variable; -1 if it is none."""
    degrees: dict[Node, int] = {}

    def operands(y: Node) -> tuple[Node, ...]:
        if y == u or not e.structure.facts(y).families:
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


def _by_families(e: Expectation, factors: list[tuple[Node, int]]) -> list[list[tuple[Node, int]]]:
    """The factors in groups without a family of leaves in common, those first whose expectation is likely to be 0.

    Seen before sums are expanded: a layer's input, a long sum in a residual network, is independent of what its matrix makes.
    """
    groups: list[tuple[list[tuple[Node, int]], frozenset[tuple[str, ...]]]] = []
    for a, k in factors:
        members, families = [(a, k)], e.structure.facts(a).families
        apart = []
        for others, theirs in groups:
            if families & theirs:
                members, families = others + members, families | theirs
            else:
                apart.append((others, theirs))
        groups = [*apart, (members, families)]
    return [members for members, _ in sorted(groups, key=lambda group: _effort(e, group))]


def _effort(e: Expectation, group: tuple[list[tuple[Node, int]], frozenset[tuple[str, ...]]]) -> tuple[bool, int]:
    """What has a Gaussian variable as a factor, such as a gradient, mostly vanishes, and comes first."""
    members, _ = group
    vanishing = any(k == 1 and e.structure.facts(a).affine for a, k in members)
    return not vanishing, max([a.height for a, _ in members])


def _independent(e: Expectation, groups: list[list[tuple[Node, int]]]) -> Task:
    """E of a product of independent factors."""
    parts = []
    for group in groups:
        value = yield (e.mean, algebra.mul(group))
        if value.is_zero:
            return ZERO
        parts.append(value)
    return algebra.mul(parts)


def _held(e: Expectation, a: Node, factors: list[tuple[Node, int]]) -> bool:
    """Is a sum better left as it is: does a factor without closed form depend on all its variables?

    Then every term of the expansion is an integral in as many variables as the whole.
    """
    if a.op != "add" or e.structure.contracts(a):
        return False
    facts, variables = e.structure.facts, e.structure.variables
    return any(
        facts(a).families <= facts(b).families
        and variables(a) <= variables(b)
        and not expressible(b, e.structure.atoms(b), e.budget)
        for b, _ in factors
        if b.op == "fn"
    )


def _unexpanded(e: Expectation, factors: list[tuple[Node, int]], terms: int) -> Task:
    """E of a product of long sums: as one integral if it is a function of few variables."""
    atoms = e.structure.atoms(algebra.mul(factors))
    if len(atoms) > FEW_VARIABLES:
        raise Declined(f"a product of sums with {terms} terms in {len(atoms)} variables")
    value = yield from e.solve_few(factors)
    return value


def _expanded(e: Expectation, a: Node, factors: list[tuple[Node, int]]) -> Task:
    """E[a R] for a sum or a contraction a."""
    k = dict(factors)[a]
    rest = without(factors, a) + ([(a, k - 1)] if k > 1 else [])
    pairs = []
    if a.op == "sum":
        shape = next((b.shape for b, _ in factors if b.shape), ())
        inside = summand(a, shape)
        spread = [(spread_along(b, inside.shape[-1]), j) for b, j in rest]
        value = yield (e.mean, algebra.mul([inside, *spread]))
        return algebra.sum_axis(typed(value, inside.shape, None, None), len(shape))
    if len(a.args) >= MANY and e.reduce:
        shape = next((b.shape for b, _ in factors if b.shape), ())
        value = yield from sums_over_families(e, a, rest, shape)
        if value is not None:
            return value
    for c, b in zip(a.attr, a.args, strict=True):
        value = yield (e.mean, algebra.mul([b, *rest]))
        pairs.append((c, value))
    return algebra.add(pairs)


def _wick(e: Expectation, affine: list[tuple[Node, int]]) -> Task:
    """E of a product of Gaussian variables (Isserlis, with means)."""
    (u, k), others = affine[0], affine[1:]
    rest = [*others, (u, k - 1)] if k > 1 else others
    mean = yield (e.mean, u)
    if not rest:
        return mean
    pairs: list[tuple[Number, Node]] = []
    for v, j in rest:
        c = yield (e.covariance, *ordered(u, v))
        if not c.is_zero:
            lower = [(w, i - (w == v)) for w, i in rest if i - (w == v)]
            value = (yield (e.mean, algebra.mul(lower))) if lower else ONE
            pairs.append((j, algebra.mul([c, value])))
    if not mean.is_zero:
        value = yield (e.mean, algebra.mul(rest))
        pairs.append((1, algebra.mul([mean, value])))
    return algebra.add(pairs) if pairs else ZERO


def _stein(e: Expectation, affine: list[tuple[Node, int]], rest: list[tuple[Node, int]]) -> Task:
    """E[u R] = E u E R + sum over variables v of R of Cov(u, v) E[dR/dv], for a u that is no multiple of a variable of R.

    A derivative may bring multiples of the variables of R back as factors. They are integrated with R: were they stripped
    again, there would be no end.
    """
    known = e.structure.variables(algebra.mul(rest))
    u = next((a for a, _ in affine if e.structure.variable(a) not in known), None)
    if u is None:
        return None
    k = dict(affine)[u]
    remaining = [*without(affine, u), *([(u, k - 1)] if k > 1 else []), *rest]
    whole = algebra.mul(remaining)
    try:
        pairs: list[tuple[Number, Node]] = []
        for v in e.structure.atoms(whole):
            c = yield (e.covariance, *ordered(u, v))
            if not c.is_zero:
                value = yield (e.mean, e.structure.derivative(whole, v))
                pairs.append((1, algebra.mul([c, value])))
        mean = yield (e.mean, u)
        if not mean.is_zero:
            value = yield (e.mean, whole)
            pairs.append((1, algebra.mul([mean, value])))
    except Declined:  # for example the derivative of a jump times a function without closed form: integrate with u in
        return None
    return algebra.add(pairs) if pairs else ZERO


def _has_centred_factor(e: Expectation, affine: list[tuple[Node, int]], factors: list[tuple[Node, int]]) -> Task:
    """Is a factor a centred Gaussian variable that is independent of all others?

    Asked before the others meet each other: most Moments of two gradients vanish so, and what they are made of else is many
    covariances of the forward pass.
    """
    for a, k in affine:
        if k > 1:
            continue
        mean = yield (e.mean, a)
        if not mean.is_zero:
            continue
        for v in [v for b, _ in factors if b != a for v in e.structure.atoms(b)]:
            c = yield (e.covariance, *ordered(a, v))
            if not c.is_zero:
                break
        else:
            return True
    return False


def _independent_groups(e: Expectation, factors: list[tuple[Node, int]]) -> Task:
    groups: list[tuple[list[tuple[Node, int]], list[Node]]] = []
    for a, k in factors:
        mine = list(e.structure.atoms(a))
        joined: list[tuple[Node, int]] = [(a, k)]
        apart = []
        for members, atoms in groups:
            dependent = False
            for u in mine:
                for v in atoms:
                    c = yield (e.covariance, *ordered(u, v))
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
