"""Closed forms of Gaussian expectations, from five rules instead of a table of pairs.

Every function with a `basis` (functions.py) is a polynomial in the variable and in: exp, gauss_exp (a Gaussian bell),
bump (a
density; a Dirac delta at variance 0), smooth_sign (the sign of z + sqrt(t) g with an independent g: erf, Phi; sign at
t = 0), sin, cos.
With z ~ N(m, C):

* a bell *tilts*: E[e^{-a z_i^2} G] is a number times E G under another Gaussian;
* a bump *conditions*: E[bump_t(z_i) G] = N(0; m_i, C_ii + t) E[G | z_i + sqrt(t) g = 0];
* powers are stripped by *Stein's lemma*: E[z_i G] = m_i E G + sum_j C_ij E[dG/dz_j], with d smooth_sign_t = 2 bump_t;
* exp of w, a sum of variables, tilts: E[e^w G] = exp(E w + Var w/2) E G with all means moved by Cov(w, z_i);
* sin and cos of sums are exponentials of variances;
* at most two signs remain: the arcsine law for zero means, Owen's T otherwise. Next to exponentials they are halves
  (`monomials.py`), whose shares are carried along with the logarithm of the factor they meet: exp(2 s^2) Phi(-2 s) is finite
  where its factors are not.

The arc-cosine kernels (Cho & Saul 2009) of all orders, erf and gelu kernels, their derivatives by Price's theorem and
every
mixture of them come out of these rules. All results are scalar programs over the entries of m and C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from tensorprog.language.algebra import ONE, ZERO, add, constant, fn, mul, scale
from tensorprog.language.node import Node
from tensorprog.language.symbols import Number, is_exact
from tensorprog.limits.budget import Budget
from tensorprog.limits.expect.monomials import (
    HALVES,
    MAX_MONOMIALS,
    Factor,
    Monomial,
    Sum,
    Variables,
    as_sum,
    halved,
    key_of,
    merged,
)
from tensorprog.limits.gauss.duals import dual

__all__ = ["Gaussian", "closed_form", "expressible"]

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


# ---- the rules ----


def closed_form(
    factors: Sequence[tuple[Node, int]], atoms: Sequence[Node], gaussian: Gaussian, budget: Budget
) -> tuple[Node | None, bool]:
    """E of the product of the factors, or None where these rules do not reach; and may its terms cancel?

    Args:
        factors: (node, exponent); functions of the atoms.
        atoms: The Gaussian variables.
        gaussian: Their means and covariances.
        budget: Terms are counted there.
    """
    named = _arc_cosine(factors, atoms, gaussian)
    if named is not None:
        return named, False
    variables = Variables(atoms, budget)
    total = as_sum(mul(list(factors)), variables)
    if total is None:
        return None, False
    gaussian = _extended(gaussian, variables)
    gaussian = gaussian.changed(lambda i: _unfolded(gaussian.means[i]), lambda i, j: _unfolded(gaussian.cov(i, j)))
    solver = _Solver(budget)
    pairs = []
    for monomial, c in sorted(halved(total).items(), key=lambda item: tuple(map(key_of, item[0]))):
        value = solver.solve(monomial, gaussian) if c != 0 else ZERO
        if value is None:
            return None, False
        pairs.append((c, value))
    return (add(pairs) if pairs else ZERO), _may_cancel(total, gaussian)


def _unfolded(x: Node) -> Node:
    """A number that arithmetic leaves alone: what is folded is not moved when errors are measured, and terms may cancel."""
    if x.op != "constant" or x.is_zero or is_exact(x.attr):
        return x
    return Node("view", (x,), tuple(range(len(x.shape))), x.shape)


def _may_cancel(total: Sum, g: Gaussian) -> bool:
    """Are there numbers of very different sizes among the terms?

    Powers of one variable, and signs of centred ones, are of one scale; a smoothed sign has a scale of its own. Of two
    variables it is left: their correlation would have to be close to 1 or -1.
    """
    kinds = {f[0] for m in total for f, _ in m}
    if "exp" in kinds and kinds & {"z", "sign"}:
        return True
    if len(g.means) == 1 and len(total) > 1 and any(f[0] == "sign" and f[2] != 0 for m in total for f, _ in m):
        return True
    return len(total) > 1 and bool(kinds & {"exp", "gauss_exp", "sin", "cos"} or ("sign" in kinds and not g.centred))


def _extended(g: Gaussian, variables: Variables) -> Gaussian:
    """The joint law of the atoms and of their shifts by numbers."""
    if not variables.shifts:
        return g
    source = [*range(len(variables.index)), *[i for i, _ in variables.shifts]]
    means = [*g.means, *[add([(1, g.means[i]), (1, constant(d))]) for i, d in variables.shifts]]
    n = len(source)
    return Gaussian(tuple(means), {(i, j): g.cov(source[i], source[j]) for i in range(n) for j in range(i + 1)})


def expressible(x: Node, atoms: Sequence[Node], budget: Budget) -> bool:
    """Is x, a function of the atoms, a sum of monomials of the basis?"""
    return as_sum(x, Variables(atoms, budget)) is not None


def _arc_cosine(factors: Sequence[tuple[Node, int]], atoms: Sequence[Node], g: Gaussian) -> Node | None:
    """E relu(u) relu(v) of centred u, v keeps its name."""
    if len(atoms) == len(factors) == 2 and all(
        k == 1 and a.op == "fn" and a.attr.name == "relu" and a.args[0] in atoms for a, k in factors
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
        c, monomial = _powers_of_signs(monomial, g)
        if c.is_zero:
            return ZERO
        if c != ONE:
            value = self.solve(monomial, g)
            return None if value is None else mul([c, value])
        key = (monomial, g.key)
        if key not in self.memo:
            self.budget.expand()
            self.memo[key] = self._solve(monomial, g)
        return self.memo[key]

    def _solve(self, monomial: Monomial, g: Gaussian) -> Node | None:
        kinds = {f[0] for f, _ in monomial}
        alone = not kinds & {"exp", *HALVES}
        if alone and g.centred and sum([k for f, k in monomial if f[0] in ODD]) % 2:
            return ZERO
        for kind, rule in (("zero", _vanishing), ("gauss_exp", _tilt_bell), ("bump", _condition)):
            if kind in kinds:
                f, k = next((f, k) for f, k in monomial if f[0] == kind)
                if kind == "bump" and k > 1 and f[2] == 0:
                    return None
                rest = merged(tuple([(h, j) for h, j in monomial if h != f]), ((f, k - 1),) if k > 1 else ())
                number, changed = rule(f, g)
                value = self.solve(rest, changed)
                return None if value is None else mul([number, value])
        if "z" in kinds:
            return self._stein(monomial, g)
        rates: dict[int, Number] = {}
        for (kind, i, rate), _ in monomial:
            if kind == "exp":
                rates[i] = rates.get(i, 0) + rate
        monomial = tuple([(f, k) for f, k in monomial if f[0] != "exp"])
        kinds.discard("exp")
        if kinds & set(HALVES):
            return _shares(monomial, rates, g) if kinds <= set(HALVES) else None
        if rates:
            g, logarithm = _tilted(rates, g)
            if kinds & {"sin", "cos"}:
                return _trigonometric(monomial, g, logarithm) if "sign" not in kinds else None
            value = self.solve(monomial, g)
            return None if value is None else mul([fn("exp", logarithm), value])
        if kinds & {"sin", "cos"}:
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


def _powers_of_signs(monomial: Monomial, g: Gaussian) -> tuple[Node, Monomial]:
    """sign^2 = 1 but where the variable is 0: where its variance vanishes.

    Next to a Dirac of the same variable, d(sign^k) = k sign^(k-1) 2 Dirac has to hold instead. Smoothing the sign, it runs
    through (-1, 1) while the Dirac's mass passes: sign^k Dirac = Dirac times the mean of s^k there.
    """
    factors: list[Node] = []
    out = []
    diracs = {f[1] for f, _ in monomial if f[0] == "bump" and f[2] == 0}
    powers = {f[1] for f, _ in monomial if f[0] == "z"}
    for f, k in monomial:
        kind, i, t = f
        if kind in ("sign", *HALVES) and t == 0 and i in diracs:
            # halves run through (0, 1)
            factors.append(constant(Fraction(1 - k % 2, k + 1) if kind == "sign" else Fraction(1, k + 1)))
            continue
        if kind == "sign" and t == 0:
            if k % 2 == 0 and i not in powers:
                factors.append(add([(1, ONE), (-1, dual("vanishing", g.means[i], g.cov(i, i)))]))
            k %= 2
        if k:
            out.append((f, k))
    return mul(factors) if factors else ONE, tuple(out)


def _lowered(powers: dict[Factor, int], f: Factor) -> Monomial:
    return tuple(sorted([(h, k - (h == f)) for h, k in powers.items() if k - (h == f)], key=key_of))


def _derivative(h: Factor, k: int, rest: Monomial) -> tuple[Number, Monomial]:
    """k times the number, and the monomial, of d(h^k)/dz times the rest."""
    kind, i, parameter = h
    lower = _lowered(dict(rest), h)
    match kind:
        case "z":
            return k, lower
        case "sign":
            return 2 * k, merged(lower, ((("bump", i, parameter), 1),))
        case "above" | "below":
            return HALVES[kind] * k, merged(lower, ((("bump", i, parameter), 1),))
        case "exp":
            return k * parameter, rest
        case "sin":
            return k * parameter, merged(lower, ((("cos", i, parameter), 1),))
        case "cos":
            return -k * parameter, merged(lower, ((("sin", i, parameter), 1),))
    raise AssertionError(f"{kind} has been removed before")


def _vanishing(f: Factor, g: Gaussian) -> tuple[Node, Gaussian]:
    """1 where the variable is 0, which has probability 0 unless it is a constant."""
    _, i, _ = f
    return dual("vanishing", g.means[i], g.cov(i, i)), _given(i, 0, g)


def _tilt_bell(f: Factor, g: Gaussian) -> tuple[Node, Gaussian]:
    """E[exp(-a z^2) G] = (1 + 2 a q)^-1/2 exp(-a m^2/(1 + 2 a q)) E' G; E' is given z + g/sqrt(2 a) = 0."""
    _, i, a = f
    weight = fn("reciprocal", add([(1, ONE), (2 * a, g.cov(i, i))]))  # 1/(1 + 2 a q)
    m = g.means[i]
    number = fn("sqrt", weight)
    if not m.is_zero:
        number = mul([number, fn("exp", scale(-a, mul([(m, 2), weight])))])
    return number, _given(i, Fraction(1, 2) / a, g)


def _tilted(rates: dict[int, Number], g: Gaussian) -> tuple[Gaussian, Node]:
    """E[exp(w) G] = exp(L) E' G, w = sum b_i z_i: L = E w + Var w/2, and the means are moved by Cov(w, z_i)."""
    logarithm = _logarithm(rates, g)
    moved = g.changed(
        lambda j: add([(1, g.means[j]), *[(b, g.cov(j, i)) for i, b in rates.items()]]),
        g.cov,
    )
    return moved, logarithm


def _logarithm(rates: dict[int, Number], g: Gaussian) -> Node:
    """log E exp(w)."""
    pairs = [(b, g.means[i]) for i, b in rates.items()]
    for i, b in rates.items():
        for j, c in rates.items():
            if j <= i:
                pairs.append((Fraction(1, 2) * b * c * (1 + (j < i)), g.cov(i, j)))
    return add(pairs) if pairs else ZERO


def _condition(f: Factor, g: Gaussian) -> tuple[Node, Gaussian]:
    """E[bump_t(z_i) G] = N(0; m_i, q + t) E[G | z_i + sqrt(t) g = 0]."""
    _, i, t = f
    return dual("density", g.means[i], _widened(g, i, t)), _given(i, t, g)


def _given(i: int, t: Number, g: Gaussian) -> Gaussian:
    """The law given z_i + sqrt(t) g = 0."""
    m, own, q = g.means[i], g.cov(i, i), _widened(g, i, t)
    folded = t != 0 and q.op == "constant" and not is_exact(q.attr)  # the noise is lost in a float

    def left(x: Node, y: Node, z: Node) -> Node:
        if folded and not (y.is_zero or z.is_zero):
            if (y == own and z == x) or (z == own and y == x):  # x - x q/(q + t)
                return mul([x, constant(t), fn("reciprocal", q)])
            return dual("widened", x, y, z, own, constant(t))
        return dual("residual", x, y, z, q)

    def mean(j: int) -> Node:
        return ZERO if t == 0 and j == i else left(g.means[j], g.cov(j, i), m)

    def cov(j: int, k: int) -> Node:
        return ZERO if t == 0 and i in (j, k) else left(g.cov(j, k), g.cov(j, i), g.cov(k, i))

    return g.changed(mean, cov)


def _widened(g: Gaussian, i: int, t: Number) -> Node:
    """Var z_i + t."""
    return g.cov(i, i) if t == 0 else add([(1, g.cov(i, i)), (1, constant(t))])


def _shares(monomial: Monomial, rates: dict[int, Number], g: Gaussian) -> Node | None:
    """E of exp(w) times one or two halves: shares of the tilted law, with the logarithms of the factors they come with.

    Where the tilted mean of z_i is far on the other side, exp(L) times its share is exp(X_i) times a number of order one.
    X_i, the exponent of E[exp(w) Dirac(z_i)], is found by conditioning first and tilting then: nothing large is subtracted.
    """
    halves = [f for f, k in monomial for _ in range(k)]
    if len(halves) > 2:
        return None
    moved, logarithm = _tilted(rates, g)
    sides = [HALVES[kind] for kind, _, _ in halves]
    means = [scale(e, moved.means[i]) for e, (_, i, _) in zip(sides, halves, strict=True)]
    variances = [_widened(g, i, t) for _, i, t in halves]
    given = [_given_dirac(i, t, g) for _, i, t in halves]
    alone = [add([(1, x), (1, _logarithm(rates, law))]) for x, law in given]
    if len(halves) == 1:
        return dual("share", logarithm, alone[0], means[0], variances[0])
    (_, i, s), (_, j, t) = halves
    law = [constant(s), constant(t), g.cov(i, i), scale(sides[0] * sides[1], g.cov(i, j)), g.cov(j, j)]
    x, left = _given_dirac(j, t, given[0][1])  # j may be i: two smoothed halves of it, each with its own noise
    both = add([(1, given[0][0]), (1, x), (1, _logarithm(rates, left))])
    return dual("shares", logarithm, *alone, both, *means, *law)


def _given_dirac(i: int, t: Number, g: Gaussian) -> tuple[Node, Gaussian]:
    """The exponent of the density of z_i + sqrt(t) g at 0, and the law given that."""
    q = _widened(g, i, t)
    exponent = ZERO
    if not g.means[i].is_zero:
        exponent = scale(Fraction(-1, 2), mul([(g.means[i], 2), dual("pinv", q)]))
    return exponent, _given(i, t, g)


def _trigonometric(monomial: Monomial, g: Gaussian, logarithm: Node = ZERO) -> Node | None:
    """Products of sines and cosines are sums of cosines and sines of sums: E cos w = cos(E w) exp(-Var w/2)."""
    waves: list[tuple[Number, str, dict[int, Number]]] = [(1, "cos", {})]  # coefficient, kind, argument sum of b_i z_i
    for (kind, i, b), k in monomial:
        for _ in range(k):
            if len(waves) > MAX_MONOMIALS:
                return None
            new: list[tuple[Number, str, dict[int, Number]]] = []
            for c, other, w in waves:
                up, down = {**w, i: w.get(i, 0) + b}, {**w, i: w.get(i, 0) - b}
                half = c * Fraction(1, 2)
                if kind == "cos":
                    new += [(half, other, up), (half, other, down)]
                elif other == "cos":  # cos w sin z = (sin(w + z) - sin(w - z))/2
                    new += [(half, "sin", up), (-half, "sin", down)]
                else:  # sin w sin z = (cos(w - z) - cos(w + z))/2
                    new += [(half, "cos", down), (-half, "cos", up)]
            waves = _collected(new)
    pairs = []
    if len(waves) == 2 and g.centred and logarithm.is_zero and waves[0][0] == -waves[1][0] and waves[0][1] == "cos":
        return _between(waves[0][0], waves[0][2], waves[1][2], g)
    for c, kind, w in waves:
        mean = add([(b, g.means[i]) for i, b in w.items()]) if w else ZERO
        exponent = add([(1, logarithm), (Fraction(-1, 2), _variance(w, {}, g))])
        pairs.append((c, mul([fn(kind, mean), fn("exp", exponent)])))
    return add(pairs) if pairs else ZERO


def _collected(waves: list[tuple[Number, str, dict[int, Number]]]) -> list[tuple[Number, str, dict[int, Number]]]:
    """The same sum, each wave once: cos w = cos(-w), sin w = -sin(-w)."""
    found: dict[tuple[str, tuple[tuple[int, Number], ...]], Number] = {}
    for c, kind, w in waves:
        key = tuple(sorted((i, b) for i, b in w.items() if b != 0))
        if key and key[0][1] < 0:
            key = tuple([(i, -b) for i, b in key])
            c = -c if kind == "sin" else c
        if key or kind == "cos":
            found[kind, key] = found.get((kind, key), 0) + c
    return [(c, kind, dict(key)) for (kind, key), c in found.items() if c != 0]


def _variance(w: dict[int, Number], v: dict[int, Number], g: Gaussian) -> Node:
    """Var w - Var v, of sums of variables."""
    rates: dict[tuple[int, int], Number] = {}
    for sign, u in ((1, w), (-1, v)):
        for i, b in u.items():
            for j, d in u.items():
                at = (i, j) if i >= j else (j, i)
                rates[at] = rates.get(at, 0) + sign * b * d
    return add([(c, g.cov(*at)) for at, c in rates.items()]) if rates else ZERO


def _between(c: Number, w: dict[int, Number], v: dict[int, Number], g: Gaussian) -> Node:
    """c (E cos w - E cos v), which is small where the variances are."""
    half = Fraction(-1, 2)
    exponents = [scale(half, _variance(u, {}, g)) for u in (w, v)]
    return scale(c, dual("difference", *exponents, scale(half, _variance(v, w, g))))


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
        i, j = [v for v, _ in variables]
        law = [constant(signs[0][2]), constant(signs[1][2]), g.cov(i, i), g.cov(i, j), g.cov(j, j)]
        return dual("sign_pair", g.means[i], g.means[j], *law)
    return None
