"""Named closed forms of one or two Gaussian variables: one row each, with NumPy and SymPy implementations.

All are exact at zero variance and at correlation +-1, and accept variances that rounding has pushed slightly out of
range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.algebra import ZERO, common_type
from tensorprog.language.node import Node
from tensorprog.language.symbols import is_exact
from tensorprog.limits.gauss.correlations import (
    SNAP,
    WIDE,
    angle,
    correlation,
    correlation_and_size,
    empty,
    is_small,
    residual,
    root_of_product,
    widened,
)
from tensorprog.limits.gauss.shares import quadrant, share, slopes

__all__ = ["CORRELATED", "DUALS", "JOINT", "SNAPPED", "Dual", "apart_by_rounding", "dual"]


@dataclass(frozen=True)
class Dual:
    """A closed form.

    Attributes:
        name: As it prints.
        arguments: Names of the arguments.
        array: NumPy implementation.
        sympy: Called with the sympy module and symbols.
        source: The formula and where it is from.
    """

    name: str
    arguments: tuple[str, ...]
    array: Callable[..., np.ndarray]
    sympy: Callable[..., Any]
    source: str


CORRELATED = ("arccos1", "arcsine", "arcsine_noisy", "sign_pair", "shares", "shares_size")
"""Closed forms of two variables: their last operands are variance, covariance, variance."""
SNAPPED = ("arcsine", "arcsine_noisy", "sign_pair", "shares", "shares_size")
"""Those that turn like an angle at correlations of 1 or -1, where half the digits are lost: set apart, they tell how many."""


def apart_by_rounding(a: Any, c: Any, b: Any) -> np.ndarray:
    """Covariances c of variables with the variances a and b, as far from sqrt(a b) as rounding may have moved them there."""
    edge = (1 - 2 * SNAP) * np.sqrt(np.maximum(a, 0.0)) * np.sqrt(np.maximum(b, 0.0))
    return np.where(np.abs(c) > edge, np.sign(c) * edge, c)


def _times_size(x: np.ndarray, a: Any, b: Any, size: np.ndarray | None) -> np.ndarray:
    """x sqrt(a b) / (2 pi), in place; 0 where a variance is not positive. The root is given, where it is known."""
    if size is None and is_small(a, x) and is_small(b, x):
        x *= np.sqrt(np.maximum(a, 0.0)) * (0.5 / np.pi)
        x *= np.sqrt(np.maximum(b, 0.0))
        return x
    if size is None:
        size = root_of_product(np.maximum(a, 0.0), np.maximum(b, 0.0), empty(a, b))
    size *= 0.5 / np.pi
    x *= size
    return x


def _arccos1(a: Any, c: Any, b: Any) -> np.ndarray:
    """In place, since large kernels spend their time here; arccos is exact at the correlation given, and faster than arctan2."""
    return arccos1_and_arcsine(a, c, b, wanted=False)[0]


def arccos1_and_arcsine(a: Any, c: Any, b: Any, wanted: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Both for one pair of variables, as the kernel of a relu network and its derivative want them: one arccos for two."""
    rho, size = correlation_and_size(a, c, b)
    angle = np.arccos(rho, out=np.empty_like(rho))
    arcsine = angle
    if wanted:
        arcsine = angle * (-2 / np.pi)
        arcsine += 1.0
    np.subtract(np.pi, angle, out=angle)
    angle *= rho
    root = np.subtract(1.0, rho, out=np.empty_like(rho))
    rho += 1.0
    root *= rho  # 1 - rho^2 without cancellation
    np.sqrt(root, out=root)
    root += angle
    return _times_size(root, a, b, size), arcsine


def _arcsine(a: Any, c: Any, b: Any) -> np.ndarray:
    rho = correlation(a, c, b)
    np.arcsin(rho, out=rho)
    rho *= 2 / np.pi
    return rho


def _arcsine_noisy(s: Any, t: Any, a: Any, c: Any, b: Any) -> np.ndarray:
    if np.max(a, initial=0.0) <= WIDE * np.min(s) or np.max(b, initial=0.0) <= WIDE * np.min(t):
        return _arcsine(np.add(a, s), c, np.add(b, t))  # it is far from correlations of 1
    return np.asarray(np.arctan2(*angle(s, t, a, c, b)) * (2 / np.pi))


def _density(m: Any, q: Any) -> np.ndarray:
    q = np.asarray(q)
    q = q if q.dtype.kind == "f" else q.astype(float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if not np.any(m) and np.min(q, initial=1.0) > 0:  # of a centred variable: the usual case
            out = np.multiply(q, 2 * np.pi, out=np.empty(np.broadcast_shapes(q.shape, np.shape(m)), q.dtype))
            np.sqrt(out, out=out)
            return np.divide(1.0, out, out=out)
        return np.where(q > 0, np.exp(-0.5 * np.square(m) / q) / np.sqrt(2 * np.pi * q), 0.0)


def _pinv(q: Any) -> np.ndarray:
    q = np.asarray(q, dtype=float)
    with np.errstate(divide="ignore"):
        return np.where(q > 0, 1.0 / q, 0.0)


def _sign_mean(m: Any, q: Any) -> np.ndarray:
    from scipy.special import erf

    m, q = np.asarray(m, dtype=float), np.asarray(q, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(q > 0, erf(m / np.sqrt(2 * q)), np.sign(m))


def _sign_pair(m1: Any, m2: Any, s: Any, t: Any, a: Any, c: Any, b: Any) -> np.ndarray:
    """E sign(u) sign(v) = 4 P(u < 0, v < 0) - 2 P(u < 0) - 2 P(v < 0) + 1, by Owen's T (Owen 1956)."""
    from scipy.special import ndtr, owens_t

    m1, m2, s, t, a, c, b = np.broadcast_arrays(*[np.asarray(x, dtype=float) for x in (m1, m2, s, t, a, c, b)])
    rho, root = angle(s, t, a, c, b)
    p, q = a + s, b + t
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        regular = (p > 0) & (q > 0)
        h, k = [np.where(regular, 0.0 - m / np.sqrt(v), 0.0) for m, v in ((m1, p), (m2, q))]  # no -0.0: signs count
        ahead, back = slopes(m1, m2, s, t, a, c, b)
        # where h or k is 0, T's argument tends to +-infinity: T(0, x) = arctan(x)/(2 pi), T(h, inf) = Phi(-|h|)/2
        first = np.where(h != 0, ahead / (h * root), np.copysign(np.inf, k) * np.copysign(1.0, h))
        second = np.where(k != 0, back / (k * root), np.copysign(np.inf, h) * np.copysign(1.0, k))
        opposite = (np.sign(h) * np.sign(k) < 0) | ((np.sign(h) * np.sign(k) == 0) & (h + k < 0))
        both = 0.5 * (ndtr(h) + ndtr(k)) - owens_t(h, first) - owens_t(k, second) - np.where(opposite, 0.5, 0.0)
        both = np.where((h == 0) & (k == 0), 0.25 + np.arctan2(rho, root) / (2 * np.pi), both)
        at_edge = np.where(rho > 0, ndtr(np.minimum(h, k)), np.maximum(ndtr(h) - ndtr(-k), 0.0))
        value = 4 * np.where(root > 0, both, at_edge) - 2 * ndtr(h) - 2 * ndtr(k) + 1
    return np.where(regular, value, _sign_mean(m1, p) * _sign_mean(m2, q))


def _vanishing(m: Any, q: Any) -> np.ndarray:
    return np.where((np.asarray(q) <= 0) & (np.asarray(m) == 0), 1.0, 0.0)


def _difference(x: Any, y: Any, d: Any) -> np.ndarray:
    """exp(x) - exp(y), d = y - x: from the larger one."""
    x, y, d = [np.asarray(a, dtype=float) for a in (x, y, d)]
    return np.where(d < 0, -np.exp(x) * np.expm1(np.minimum(d, 0.0)), np.exp(y) * np.expm1(np.minimum(-d, 0.0)))


DUALS: dict[str, Dual] = {
    row.name: row
    for row in (
        Dual(
            "arccos1", ("a", "c", "b"), _arccos1,
            lambda s, a, c, b: s.sqrt(a * b) / (2 * s.pi) * (
                s.sqrt(1 - c**2 / (a * b)) + c / s.sqrt(a * b) * (s.pi - s.acos(c / s.sqrt(a * b)))),
            "E relu(u) relu(v) of centred u, v: the arc-cosine kernel of order 1 (Cho & Saul 2009)",
        ),
        Dual(
            "arcsine", ("a", "c", "b"), _arcsine, lambda s, a, c, b: 2 / s.pi * s.asin(c / s.sqrt(a * b)),
            "E sign(u) sign(v) of centred u, v (Sheppard 1899); with a + 1/2, b + 1/2 the kernel of erf (Williams 1997)",
        ),
        Dual(
            "arcsine_noisy", ("s", "t", "a", "c", "b"), _arcsine_noisy,
            lambda y, s, t, a, c, b: 2 / y.pi * y.asin(c / y.sqrt((a + s) * (b + t))),
            "E sign(u + sqrt(s) g) sign(v + sqrt(t) g') of centred u, v and independent noise: the kernel of erf",
        ),
        Dual("sign_mean", ("m", "q"), _sign_mean, lambda s, m, q: s.erf(m / s.sqrt(2 * q)), "E sign(u), u ~ N(m, q)"),
        Dual(
            "sign_pair", ("m1", "m2", "s", "t", "a", "c", "b"), _sign_pair,
            lambda y, m1, m2, s, t, a, c, b: y.Function("signpair")(m1, m2, a + s, c, b + t),
            "E sign(u + sqrt(s) g) sign(v + sqrt(t) g') with means, by Owen's T function",
        ),
        Dual(
            "density", ("m", "q"), _density, lambda s, m, q: s.exp(-(m**2) / (2 * q)) / s.sqrt(2 * s.pi * q),
            "the density of N(m, q) at 0; 0 where q = 0, as the pseudo-inverse has it (theory of Zdot, Stein's form)",
        ),
        Dual(
            "residual", ("x", "y", "z", "q"), residual, lambda s, x, y, z, q: x - y * z / q,
            "conditional means and covariances given a variable of variance q; x where q = 0",
        ),
        Dual(
            "widened", ("x", "y", "z", "q", "t"), widened, lambda s, x, y, z, q, t: x - y * z / (q + t),
            "the same given a variable of variance q and noise of variance t > 0",
        ),
        Dual(
            "vanishing", ("m", "q"), _vanishing, lambda s, m, q: s.KroneckerDelta(m, 0) * s.KroneckerDelta(q, 0),
            "P(u = 0), u ~ N(m, q): 1 for the constant 0, else 0",
        ),
        Dual(
            "share", ("l", "x", "m", "q"), share,
            lambda s, log, x, m, q: s.exp(log) * s.erfc(-m / s.sqrt(2 * q)) / 2,
            "exp(l) P(u > 0), u ~ N(m, q); x is l - m^2/(2 q)",
        ),
        Dual(
            "shares", ("l", "x1", "x2", "x", "m1", "m2", "s", "t", "a", "c", "b"), lambda *given: quadrant(*given)[0],
            lambda y, log, x1, x2, x, m1, m2, s, t, a, c, b: y.Function("shares")(log, m1, m2, a + s, c, b + t),
            "exp(l) P(u + sqrt(s) g > 0, v + sqrt(t) g' > 0), by Owen's T function; x1, x2, x: exponents where it is a tail",
        ),
        Dual(
            "shares_size", ("l", "x1", "x2", "x", "m1", "m2", "s", "t", "a", "c", "b"), lambda *given: quadrant(*given)[1],
            lambda y, log, x1, x2, x, m1, m2, s, t, a, c, b: y.Function("shares")(log, m1, m2, a + s, c, b + t),
            "what shares is added up from, without signs",
        ),
        Dual(
            "difference", ("x", "y", "d"), _difference, lambda s, x, y, d: s.exp(x) - s.exp(y),
            "exp(x) - exp(y); d is y - x",
        ),
        Dual("pinv", ("q",), _pinv, lambda s, q: 1 / q, "1/q, and 0 where q = 0"),
    )
}  # fmt: skip


def dual(name: str, *arguments: Node) -> Node:
    """A closed form as a scalar; folded where the answer is rational."""
    if name in ("arccos1", "arcsine") and arguments[2].digest < arguments[0].digest:
        arguments = arguments[::-1]  # symmetric in the two variables
    if name == "arcsine_noisy" and (arguments[4].digest, arguments[1].digest) < (
        arguments[2].digest,
        arguments[0].digest,
    ):
        arguments = (*arguments[1::-1], *arguments[:1:-1])
    folded = _folded(name, arguments)
    shape, _, _ = common_type(arguments)
    if folded is not None:
        return algebra.typed(folded, shape, None, None)
    return Node("dual", arguments, name, shape)


def _number(x: Node) -> Any:
    return x.attr if x.op == "constant" and not isinstance(x.attr, np.ndarray) and is_exact(x.attr) else None


def _is_floating(x: Node) -> bool:
    return not (x.op == "constant" and is_exact(x.attr))


def _folded(name: str, arguments: tuple[Node, ...]) -> Node | None:
    values = [_number(x) for x in arguments]
    match name:
        case "pinv" if values[0] is not None:
            return ZERO if values[0] <= 0 else algebra.fn("reciprocal", arguments[0])
        case "residual":
            x, y, z, q = arguments
            if y.is_zero or z.is_zero or values[3] == 0:
                return x
            if values[3] is not None and (None not in values or not any(map(_is_floating, arguments))):
                return algebra.add([(1, x), (-1, algebra.mul([y, z, algebra.fn("reciprocal", q)]))])
        case "density" if values[1] == 0:
            return ZERO
        case "sign_mean" if values[0] == 0:
            return ZERO
        case "sign_mean" if values[1] == 0:
            return algebra.fn("sign", arguments[0])
        case "arcsine" | "arccos1":
            a, c, b = values
            if name == "arcsine" and c == 0:
                return ZERO
            if name == "arccos1" and (a == 0 or b == 0):
                return ZERO
            if None not in values and c * c >= a * b:
                if name == "arcsine":
                    return algebra.constant((c > 0) - (c < 0))
                return algebra.constant(Fraction(max(c, 0)) / 2)
        case "arcsine_noisy" if arguments[3].is_zero:
            return ZERO
        case "vanishing":
            mean = values[0]
            if mean is not None and mean != 0:
                return ZERO
            if arguments[1].op == "constant" and not isinstance(arguments[1].attr, np.ndarray):
                if arguments[1].attr > 0:
                    return ZERO
                return algebra.ONE if mean == 0 else None
        case "share" if values[2] == 0:
            return algebra.scale(Fraction(1, 2), algebra.fn("exp", arguments[0]))
        case "difference" if arguments[2].is_zero:
            return ZERO
        case "sign_pair" if arguments[0].is_zero and arguments[1].is_zero:
            noisy = not (arguments[2].is_zero and arguments[3].is_zero)
            return dual("arcsine_noisy", *arguments[2:]) if noisy else dual("arcsine", *arguments[4:])
    return None


JOINT = {("arccos1", "arcsine"): arccos1_and_arcsine, ("shares", "shares_size"): quadrant}
"""Two closed forms of the same operands that are cheaper together."""
