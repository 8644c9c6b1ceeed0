"""Products of functions of Gaussian variables as sums of monomials in the basis of `functions.py`.

A factor is a kind, the number of a variable and a parameter: `z`; `exp`, `gauss_exp`, `bump`, `sign` (smoothed), `sin`, `cos`.
Next to exponentials signs are the wrong basis: exp(z) (1 - sign(z)) is a difference of two numbers that are exponentially larger
than it. There a polynomial in a sign is written in `above` = (1 + sign)/2 and `below` = (1 - sign)/2, the share of either side
of 0, which is what the user's function is made of (Bernstein's basis).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import product
from math import comb
from typing import Any

from tensorprog.language import algebra
from tensorprog.language.affine import carrier, slope_and_shift
from tensorprog.language.algebra import scale
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.symbols import Number, quotient
from tensorprog.limits.budget import Budget

__all__ = ["HALVES", "MAX_MONOMIALS", "Factor", "Monomial", "Sum", "Variables", "as_sum", "halved", "key_of", "merged"]

MAX_MONOMIALS = 256
MAX_DEGREE = 60
HALVES = {"above": 1, "below": -1}
"""The side of 0 that a half stands for."""

# A factor is (kind, variable, parameter); a monomial is a sorted tuple of (factor, exponent) and a sum maps monomials
# to numbers.
Factor = tuple[str, int, Number]
Monomial = tuple[tuple[Factor, int], ...]
Sum = dict[Monomial, Any]


def _times(a: Sum, b: Sum, budget: Budget) -> Sum | None:
    budget.expand(len(a) * len(b))
    out: Sum = {}
    for x, c in a.items():
        for y, d in b.items():
            z = merged(x, y)
            out[z] = out.get(z, 0) + c * d
    return out if len(out) <= MAX_MONOMIALS else None


def merged(x: Monomial, y: Monomial) -> Monomial:
    """The product of two monomials."""
    powers: dict[Factor, Any] = dict(x)
    for f, k in y:
        powers[f] = powers.get(f, 0) + k
    for f in list(powers):
        if f[0] in ("exp", "gauss_exp") and powers[f] != 1:  # a power is another rate
            g = (f[0], f[1], f[2] * powers.pop(f))
            powers[g] = powers.get(g, 0) + 1
    return tuple(sorted([(f, k) for f, k in powers.items() if k], key=key_of))


def key_of(item: tuple[Factor, int]) -> tuple[Any, ...]:
    """The order of factors."""
    (kind, i, parameter), k = item
    return kind, i, float(parameter), str(parameter), k


class Variables:
    """The variables of a problem: the atoms, and atoms shifted by numbers (step(z + 1) is a sign of z + 1)."""

    def __init__(self, atoms: Sequence[Node], budget: Budget) -> None:
        self.budget = budget
        self.known: dict[Node, Sum | None] = {}
        self.index = {a: i for i, a in enumerate(atoms)}
        self.shifts: dict[tuple[int, Number], int] = {}

    def shifted(self, i: int, d: Number) -> int:
        """The number of the variable z_i + d."""
        return i if d == 0 else self.shifts.setdefault((i, d), len(self.index) + len(self.shifts))


def as_sum(x: Node, atoms: Variables) -> Sum | None:
    """A region as a sum of monomials (never changed: it is shared); None where it is not one."""
    if x not in atoms.known:
        atoms.known[x] = _monomials(x, atoms)
    return atoms.known[x]


def _monomials(x: Node, atoms: Variables) -> Sum | None:
    if x in atoms.index:
        return {((("z", atoms.index[x], 0), 1),): 1}
    if x.op == "constant" and isinstance(x.attr, (int, float, Fraction)):
        return {(): x.attr}
    if x.op == "add":
        out: Sum = {}
        for c, a in zip(x.attr, x.args, strict=True):
            part = as_sum(a, atoms)
            if part is None:
                return None
            for m, d in part.items():
                out[m] = out.get(m, 0) + c * d
        return out
    if x.op == "mul":
        product: Sum | None = {(): 1}
        for a, k in zip(x.args, x.attr, strict=True):
            part = as_sum(a, atoms)
            if part is None or k > MAX_DEGREE:
                return None
            if len(part) == 1:
                ((m, c),) = part.items()
                part, k = {tuple([(f, j * k) for f, j in m]): c**k}, 1
                part = {merged(m, ()): c for m, c in part.items()}
            for _ in range(k):
                product = _times(product, part, atoms.budget) if product is not None else None
        return product
    if x.op == "fn":
        return _function(x, atoms)
    return None


def _function(x: Node, atoms: Variables) -> Sum | None:
    (name, parameters), argument = x.attr, carrier(x.args[0])
    if argument not in atoms.index:
        return None
    c, d = slope_and_shift(x.args[0])
    if not 0 < float(c * c) < float("inf"):
        return None  # a scale beyond floating point: leave it to the integral
    i = atoms.shifted(atoms.index[argument], quotient(d, c))
    match name:
        case "exp" | "sin" | "cos":
            sign = -1 if name == "sin" and c < 0 else 1
            size = c if c > 0 else -c
            rate: Number = c if name == "exp" else size
            return {(((name, i, rate), 1),): sign}
        case "gauss_exp":
            return {((("gauss_exp", i, parameters[0] * c * c), 1),): 1}
        case "smooth_sign":
            return {((("sign", i, quotient(parameters[0], c * c)), 1),): 1 if c > 0 else -1}
        case "bump":
            return {((("bump", i, quotient(parameters[0], c * c)), 1),): quotient(1, c if c > 0 else -c)}
    return _in_basis(name, parameters, i, c, tuple([type(p) for p in (*parameters, c)]))


@lru_cache(maxsize=4096)
def _in_basis(name: str, parameters: tuple[Number, ...], i: int, c: Number, types: tuple[type, ...]) -> Sum | None:
    """A primitive of c z_i as a sum of monomials of the basis (never changed: it is shared).

    The types of the numbers are part of the key: Fraction(1, 2) == 0.5, and only one of them is exact.
    """
    basis = PRIMITIVES[name].basis
    if basis is None:
        return None
    z = Node("var", (), i)
    variables = Variables([z], Budget())
    variables.index[z] = i
    return as_sum(basis(algebra, scale(c, z), *parameters), variables)


def halved(total: Sum) -> Sum:
    """The same sum, polynomials in signs next to exponentials written in halves, where at most two signs meet."""
    groups: dict[Monomial, Sum] = {}
    for m, c in _at_diracs(total).items():
        rest, signs = [tuple([(f, k) for f, k in m if (f[0] == "sign") == is_sign]) for is_sign in (False, True)]
        polynomial = groups.setdefault(rest, {})
        for n, lower in _reduced(signs, rest) if any(f[0] == "exp" for f, _ in rest) else [(1, signs)]:
            polynomial[lower] = polynomial.get(lower, 0) + n * c
    out: Sum = {}
    for rest, polynomial in groups.items():
        degrees: dict[Factor, int] = {}
        for signs in polynomial:
            for f, k in signs:
                if f[0] == "sign":
                    degrees[f] = max(degrees.get(f, 0), k)
        if any(f[0] == "exp" for f, _ in rest) and sum(degrees.values()) <= 2:
            polynomial = _bernstein(polynomial, degrees)
        for m, c in polynomial.items():
            if c != 0:
                out[merged(rest, m)] = c
    return out


def _at_diracs(total: Sum) -> Sum:
    """The same sum, smooth functions next to a Dirac of their variable by their values there: (exp(z) - 1) Dirac(z) is 0."""
    out: Sum = {}
    for m, c in total.items():
        diracs = {f[1] for f, _ in m if f[0] == "bump" and f[2] == 0}
        if any(f[0] in ("z", "sin") and f[1] in diracs for f, _ in m):
            continue
        kept = tuple([(f, k) for f, k in m if not (f[1] in diracs and f[0] in ("exp", "gauss_exp", "cos"))])
        out[kept] = out.get(kept, 0) + c
    return {m: c for m, c in out.items() if c != 0}


def _reduced(signs: Monomial, rest: Monomial) -> list[tuple[int, Monomial]]:
    """sign^3 = sign, and sign^2 = 1 but where the variable is 0 (`zero` is 1 there)."""
    out: list[tuple[int, Monomial]] = [(1, ())]
    for f, k in signs:
        _, i, t = f
        if t != 0 or k % 2:
            power = ((f, k if t != 0 else 1),)
            out = [(n, merged(m, power)) for n, m in out]
        elif not any(g[:2] == ("z", i) for g, _ in rest):
            out += [(-n, merged(m, ((("zero", i, 0), 1),))) for n, m in out]
    return out


def _bernstein(polynomial: Sum, degrees: dict[Factor, int]) -> Sum:
    """A polynomial in signs, of a degree in each, in the products above^j below^(degree - j)."""
    out: Sum = {}
    for signs, c in polynomial.items():
        powers = dict(signs)
        if any(f[0] == "zero" for f in powers):  # all is known there
            out[signs] = out.get(signs, 0) + c
            continue
        sides = []
        for (_, i, t), d in degrees.items():
            k = powers.get(("sign", i, t), 0)
            # sign^k = (above - below)^k (above + below)^(d - k)
            found: dict[int, int] = {}
            for p in range(k + 1):
                for q in range(d - k + 1):
                    j = p + q
                    found[j] = found.get(j, 0) + comb(k, p) * (-1) ** (k - p) * comb(d - k, q)
            sides.append([((("above", i, t), j), (("below", i, t), d - j), n) for j, n in found.items() if n])
        for choice in product(*sides):
            m = tuple(sorted([f for up, down, _ in choice for f in (up, down) if f[1]], key=key_of))
            n = 1
            for *_, times in choice:
                n *= times
            out[m] = out.get(m, 0) + c * n
    return out
