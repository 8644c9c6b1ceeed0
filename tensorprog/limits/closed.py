"""Closed forms of Gaussian expectations, from five rules instead of a table of pairs.

Every function with a `basis` (functions.py) is a polynomial in the variable and in: exp, gauss_exp (a Gaussian bell),
bump (a
density; a Dirac delta at variance 0), smooth_sign (the sign of z + sqrt(t) g with an independent g: erf, Phi; sign at
t = 0), sin, cos.
With z ~ N(m, C):

* bell and exp *tilt*: E[e^{-a z_i^2} G] and E[e^{b z_i} G] are a number times E G under another Gaussian;
* a bump *conditions*: E[bump_t(z_i) G] = N(0; m_i, C_ii + t) E[G | z_i + sqrt(t) g = 0];
* powers are stripped by *Stein's lemma*: E[z_i G] = m_i E G + sum_j C_ij E[dG/dz_j], with d smooth_sign_t = 2 bump_t;
* sin and cos of sums are exponentials of variances;
* at most two signs remain: the arcsine law for zero means, Owen's T otherwise.

The arc-cosine kernels (Cho & Saul 2009) of all orders, erf and gelu kernels, their derivatives by Price's theorem and
every
mixture of them come out of these rules. All results are scalar programs over the entries of m and C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

from tensorprog.language import algebra
from tensorprog.language.algebra import ONE, ZERO, add, constant, fn, mul, scale
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node
from tensorprog.language.symbols import Number, is_exact, number
from tensorprog.limits.budget import Budget
from tensorprog.limits.duals import dual
from tensorprog.limits.structure import carrier, slope_and_shift

__all__ = ["Gaussian", "closed_form", "expressible"]

MAX_MONOMIALS = 256
MAX_DEGREE = 60
ODD = ("z", "sign", "sin")
"""The odd factors: of a centred Gaussian, an odd number of them has mean zero (exp is neither odd nor even)."""


@dataclass(frozen=True)
class Gaussian:
    """Means and covariances (lower triangle) of a few Gaussian variables, as scalars."""

    means: tuple[Node, ...]
    covariances: dict[tuple[int, int], Node]

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """Its content."""
        return self.means, tuple(self.covariances.items())

    @cached_property
    def centred(self) -> bool:
        """Are all means zero?"""
        return all(m.is_zero for m in self.means)

    def cov(self, i: int, j: int) -> Node:
        """Cov(z_i, z_j)."""
        return self.covariances[(i, j) if i >= j else (j, i)]

    def changed(self, mean: Any, cov: Any) -> Gaussian:
        """Another Gaussian, entry by entry."""
        return Gaussian(
            tuple([mean(i) for i in range(len(self.means))]), {(i, j): cov(i, j) for i, j in self.covariances}
        )


# ---- monomials ----
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
            z = _merged(x, y)
            out[z] = out.get(z, 0) + c * d
    return out if len(out) <= MAX_MONOMIALS else None


def _merged(x: Monomial, y: Monomial) -> Monomial:
    powers: dict[Factor, Any] = dict(x)
    for f, k in y:
        powers[f] = powers.get(f, 0) + k
    for f in list(powers):
        if f[0] in ("exp", "gauss_exp") and powers[f] != 1:  # a power is another rate
            g = (f[0], f[1], f[2] * powers.pop(f))
            powers[g] = powers.get(g, 0) + 1
    return tuple(sorted([(f, k) for f, k in powers.items() if k], key=_key))


def _key(item: tuple[Factor, int]) -> tuple[Any, ...]:
    (kind, i, parameter), k = item
    return kind, i, float(parameter), str(parameter), k


class _Variables:
    """The variables of a problem: the atoms, and atoms shifted by numbers (step(z + 1) is a sign of z + 1)."""

    def __init__(self, atoms: Sequence[Node], budget: Budget) -> None:
        self.budget = budget
        self.index = {a: i for i, a in enumerate(atoms)}
        self.known: dict[Node, Sum | None] = {}
        self.shifts: dict[tuple[int, Number], int] = {}

    def shifted(self, i: int, d: Number) -> int:
        """The number of the variable z_i + d."""
        return i if d == 0 else self.shifts.setdefault((i, d), len(self.index) + len(self.shifts))

    def extended(self, g: Gaussian) -> Gaussian:
        """The joint law of all of them."""
        if not self.shifts:
            return g
        source = [*range(len(self.index)), *[i for i, _ in self.shifts]]
        means = [*g.means, *[add([(1, g.means[i]), (1, constant(d))]) for i, d in self.shifts]]
        n = len(source)
        return Gaussian(tuple(means), {(i, j): g.cov(source[i], source[j]) for i in range(n) for j in range(i + 1)})


def _as_sum(x: Node, atoms: _Variables) -> Sum | None:
    """A region as a sum of monomials (never changed: it is shared); None where it is not one."""
    if x not in atoms.known:
        atoms.known[x] = _monomials(x, atoms)
    return atoms.known[x]


def _monomials(x: Node, atoms: _Variables) -> Sum | None:
    if x in atoms.index:
        return {((("z", atoms.index[x], 0), 1),): 1}
    if x.op == "constant" and isinstance(x.attr, (int, float, Fraction)):
        return {(): x.attr}
    if x.op == "add":
        out: Sum = {}
        for c, a in zip(x.attr, x.args, strict=True):
            part = _as_sum(a, atoms)
            if part is None:
                return None
            for m, d in part.items():
                out[m] = out.get(m, 0) + c * d
        return out
    if x.op == "mul":
        product: Sum | None = {(): 1}
        for a, k in zip(x.args, x.attr, strict=True):
            part = _as_sum(a, atoms)
            if part is None or k > MAX_DEGREE:
                return None
            if len(part) == 1:
                ((m, c),) = part.items()
                part, k = {tuple([(f, j * k) for f, j in m]): c**k}, 1
                part = {_merged(m, ()): c for m, c in part.items()}
            for _ in range(k):
                product = _times(product, part, atoms.budget) if product is not None else None
        return product
    if x.op == "fn":
        return _function(x, atoms)
    return None


def _function(x: Node, atoms: _Variables) -> Sum | None:
    (name, parameters), argument = x.attr, carrier(x.args[0])
    if argument not in atoms.index:
        return None
    c, d = slope_and_shift(x.args[0])
    if not 0 < float(c * c) < float("inf"):
        return None  # a scale beyond floating point: leave it to the integral
    i = atoms.shifted(atoms.index[argument], _over(d, c))
    match name:
        case "exp" | "sin" | "cos":
            sign = -1 if name == "sin" and c < 0 else 1
            size = c if c > 0 else -c
            rate: Number = c if name == "exp" else size
            return {(((name, i, rate), 1),): sign}
        case "gauss_exp":
            return {((("gauss_exp", i, parameters[0] * c * c), 1),): 1}
        case "smooth_sign":
            return {((("sign", i, _over(parameters[0], c * c)), 1),): 1 if c > 0 else -1}
        case "bump":
            return {((("bump", i, _over(parameters[0], c * c)), 1),): _over(1, c if c > 0 else -c)}
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
    variables = _Variables([z], Budget())
    variables.index[z] = i
    return _as_sum(basis(algebra, scale(c, z), *parameters), variables)


def _over(a: Number, b: Number) -> Number:
    return number(Fraction(a) / Fraction(b)) if is_exact(a) and is_exact(b) else float(a) / float(b)


# ---- the rules ----


def closed_form(
    factors: Sequence[tuple[Node, int]],
    atoms: Sequence[Node],
    gaussian: Gaussian,
    tilted_signs: bool,
    budget: Budget,
) -> Node | None:
    """E of the product of the factors, or None where these rules do not reach.

    Args:
        factors: (node, exponent); functions of the atoms.
        atoms: The Gaussian variables.
        gaussian: Their means and covariances.
        tilted_signs: May exponentials meet signs? exp(q/2) (1 - erf(sqrt(q/2))) has a closed form that cancels.
        budget: Terms are counted there.
    """
    named = _arc_cosine(factors, atoms, gaussian)
    if named is not None:
        return named
    variables = _Variables(atoms, budget)
    total = _as_sum(mul(list(factors)), variables)
    if total is None:
        return None
    gaussian = variables.extended(gaussian)
    if not tilted_signs and any({"exp", "sign"} <= {f[0] for f, _ in m} for m in total):
        return None
    solver = _Solver(budget)
    pairs = []
    for monomial, c in sorted(total.items(), key=lambda item: tuple(map(_key, item[0]))):
        value = solver.solve(monomial, gaussian) if c != 0 else ZERO
        if value is None:
            return None
        pairs.append((c, value))
    return add(pairs) if pairs else ZERO


def expressible(x: Node, atoms: Sequence[Node], budget: Budget) -> bool:
    """Is x, a function of the atoms, a sum of monomials of the basis?"""
    return _as_sum(x, _Variables(atoms, budget)) is not None


def _arc_cosine(factors: Sequence[tuple[Node, int]], atoms: Sequence[Node], g: Gaussian) -> Node | None:
    """E relu(u) relu(v) of centred u, v keeps its name."""
    if len(atoms) == len(factors) == 2 and all(
        k == 1 and a.op == "fn" and a.attr[0] == "relu" and a.args[0] in atoms for a, k in factors
    ):
        if g.centred:
            return dual("arccos1", g.cov(0, 0), g.cov(1, 0), g.cov(1, 1))
    return None


class _Solver:
    """Expectations of monomials under Gaussians, remembered."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.memo: dict[tuple[Monomial, Any], Node | None] = {}

    def solve(self, monomial: Monomial, g: Gaussian) -> Node | None:
        """E of the monomial; None where the rules do not reach."""
        c, monomial = _without_powers_of_signs(monomial)
        if c == 0:
            return ZERO
        if c != 1:
            value = self.solve(monomial, g)
            return None if value is None else scale(c, value)
        key = (monomial, g.key)
        if key not in self.memo:
            self.budget.expand()
            self.memo[key] = self._solve(monomial, g)
        return self.memo[key]

    def _solve(self, monomial: Monomial, g: Gaussian) -> Node | None:
        kinds = {f[0] for f, _ in monomial}
        if "exp" not in kinds and g.centred and sum([k for f, k in monomial if f[0] in ODD]) % 2:
            return ZERO
        for kind, rule in (("gauss_exp", _tilt_bell), ("exp", _tilt_exp), ("bump", _condition)):
            if kind in kinds:
                f, k = next((f, k) for f, k in monomial if f[0] == kind)
                if kind == "bump" and k > 1 and f[2] == 0:
                    return None
                rest = _merged(tuple([(h, j) for h, j in monomial if h != f]), ((f, k - 1),) if k > 1 else ())
                number, changed = rule(f, g)
                value = self.solve(rest, changed)
                return None if value is None else mul([number, value])
        if "z" in kinds:
            return self._stein(monomial, g)
        if "sin" in kinds or "cos" in kinds:
            return _trigonometric(monomial, g) if "sign" not in kinds else None
        return _signs(monomial, g)

    def _stein(self, monomial: Monomial, g: Gaussian) -> Node | None:
        powers = dict(monomial)
        f = next(f for f in powers if f[0] == "z")
        i = f[1]
        rest = _lowered(powers, f)
        pairs: list[tuple[Number, Node]] = []
        if not g.means[i].is_zero:
            value = self.solve(rest, g)
            if value is None:
                return None
            pairs.append((1, mul([g.means[i], value])))
        for h, k in rest:
            c = g.cov(i, h[1])
            if c.is_zero:
                continue
            coefficient, derived = _derivative(h, k, rest)
            value = self.solve(derived, g)
            if value is None:
                return None
            pairs.append((coefficient, mul([c, value])))
        return add(pairs) if pairs else ZERO


def _without_powers_of_signs(monomial: Monomial) -> tuple[Number, Monomial]:
    """sign^2 = 1 almost surely; next to a Dirac of the same variable, d(sign^k) = k sign^(k-1) 2 Dirac has to hold instead.

    Smoothing the sign, it runs through (-1, 1) while the Dirac's mass passes: sign^k Dirac = Dirac times the mean of
    s^k there.
    """
    c: Number = 1
    out = []
    diracs = {f[1] for f, _ in monomial if f[0] == "bump" and f[2] == 0}
    for f, k in monomial:
        if f[0] == "sign" and f[2] == 0:
            if f[1] in diracs:
                c = c * Fraction(1 - k % 2, k + 1)
                continue
            k %= 2
        if k:
            out.append((f, k))
    return c, tuple(out)


def _lowered(powers: dict[Factor, int], f: Factor) -> Monomial:
    return tuple(sorted([(h, k - (h == f)) for h, k in powers.items() if k - (h == f)], key=_key))


def _derivative(h: Factor, k: int, rest: Monomial) -> tuple[Number, Monomial]:
    """k times the number, and the monomial, of d(h^k)/dz times the rest."""
    kind, i, parameter = h
    lower = _lowered(dict(rest), h)
    match kind:
        case "z":
            return k, lower
        case "sign":
            return 2 * k, _merged(lower, ((("bump", i, parameter), 1),))
        case "sin":
            return k * parameter, _merged(lower, ((("cos", i, parameter), 1),))
        case "cos":
            return -k * parameter, _merged(lower, ((("sin", i, parameter), 1),))
    raise AssertionError(f"{kind} has been removed before")


def _tilt_bell(f: Factor, g: Gaussian) -> tuple[Node, Gaussian]:
    """E[exp(-a z^2) G] = (1 + 2 a q)^-1/2 exp(-a m^2/(1 + 2 a q)) E' G."""
    _, i, a = f
    weight = fn("reciprocal", add([(1, ONE), (2 * a, g.cov(i, i))]))  # 1/(1 + 2 a q)
    m = g.means[i]
    number = fn("sqrt", weight)
    if not m.is_zero:
        number = mul([number, fn("exp", scale(-a, mul([(m, 2), weight])))])
    return number, g.changed(
        lambda j: add([(1, g.means[j]), (-2 * a, mul([g.cov(j, i), m, weight]))]),
        lambda j, k: add([(1, g.cov(j, k)), (-2 * a, mul([g.cov(j, i), g.cov(k, i), weight]))]),
    )


def _tilt_exp(f: Factor, g: Gaussian) -> tuple[Node, Gaussian]:
    """E[exp(b z) G] = exp(b m + b^2 q/2) E' G, the means moved by b times the covariances."""
    _, i, b = f
    half = Fraction(1, 2) if is_exact(b) else 0.5
    number = fn("exp", add([(b, g.means[i]), (half * b * b, g.cov(i, i))]))
    return number, g.changed(lambda j: add([(1, g.means[j]), (b, g.cov(j, i))]), g.cov)


def _condition(f: Factor, g: Gaussian) -> tuple[Node, Gaussian]:
    """E[bump_t(z_i) G] = N(0; m_i, q + t) E[G | z_i + sqrt(t) g = 0]."""
    _, i, t = f
    m, q = g.means[i], _widened(g, i, t)

    def mean(j: int) -> Node:
        if t == 0 and j == i:
            return ZERO
        return dual("residual", g.means[j], g.cov(j, i), m, q)

    def cov(j: int, k: int) -> Node:
        if t == 0 and i in (j, k):
            return ZERO
        return dual("residual", g.cov(j, k), g.cov(j, i), g.cov(k, i), q)

    return dual("density", m, q), g.changed(mean, cov)


def _widened(g: Gaussian, i: int, t: Number) -> Node:
    """Var z_i + t."""
    return g.cov(i, i) if t == 0 else add([(1, g.cov(i, i)), (1, constant(t))])


def _trigonometric(monomial: Monomial, g: Gaussian) -> Node | None:
    """Products of sines and cosines are sums of cosines and sines of sums: E cos w = cos(E w) exp(-Var w/2)."""
    waves: list[tuple[Number, str, dict[int, Number]]] = [(1, "cos", {})]  # coefficient, kind, argument sum of b_i z_i
    for (kind, i, b), k in monomial:
        for _ in range(k):
            if len(waves) > MAX_MONOMIALS:
                return None
            new: list[tuple[Number, str, dict[int, Number]]] = []
            for c, other, w in waves:
                up, down = {**w, i: w.get(i, 0) + b}, {**w, i: w.get(i, 0) - b}
                half = c * Fraction(1, 2) if is_exact(c) else c / 2
                if kind == "cos":
                    new += [(half, other, up), (half, other, down)]
                elif other == "cos":  # cos w sin z = (sin(w + z) - sin(w - z))/2
                    new += [(half, "sin", up), (-half, "sin", down)]
                else:  # sin w sin z = (cos(w - z) - cos(w + z))/2
                    new += [(half, "cos", down), (-half, "cos", up)]
            waves = new
    pairs = []
    for c, kind, w in waves:
        mean = add([(b, g.means[i]) for i, b in w.items()]) if w else ZERO
        variance = add([(b * d, g.cov(i, j)) for i, b in w.items() for j, d in w.items()]) if w else ZERO
        pairs.append((c, mul([fn(kind, mean), fn("exp", scale(Fraction(-1, 2), variance))])))
    return add(pairs)


def _signs(monomial: Monomial, g: Gaussian) -> Node | None:
    """E of a product of signs of z_i + sqrt(t_i) g_i, each with its own g_i."""
    signs = [f for f, k in monomial for _ in range(k)]
    if not signs:
        return ONE
    variables = [(f[1], _widened(g, f[1], f[2])) for f in signs]
    centred = all(g.means[i].is_zero for i, _ in variables)
    if centred and len(signs) % 2:
        return ZERO
    if len(signs) == 1:
        ((i, q),) = variables
        return dual("sign_mean", g.means[i], q)
    if len(signs) == 2:
        (i, a), (j, b) = variables
        c = g.cov(i, j)
        if centred:
            return dual("arcsine", a, c, b)
        return dual("sign_pair", g.means[i], g.means[j], a, c, b)
    return None
