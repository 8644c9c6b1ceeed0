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

__all__ = ["DUALS", "JOINT", "Dual", "apart_by_rounding", "dual", "unsnapped"]


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


SNAP = 8 * np.finfo(float).eps
"""Correlations closer to +-1 than this are +-1: the rounding of duplicate inputs, not information."""


def unsnapped(name: str, *arguments: Any) -> np.ndarray:
    """A closed form, correlations that are snapped to 1 or -1 as far from there as they may have been.

    What turns like an angle there (that of relu') has lost half its digits: the difference to the form itself says how many.
    """
    if name in ("arcsine", "sign_pair"):
        a, c, b = arguments[-3:]
        arguments = (*arguments[:-2], apart_by_rounding(a, c, b), b)
    return DUALS[name].array(*arguments)


def apart_by_rounding(a: Any, c: Any, b: Any) -> np.ndarray:
    """Covariances c of variables with the variances a and b, as far from sqrt(a b) as rounding may have moved them there."""
    edge = (1 - 2 * SNAP) * np.sqrt(np.maximum(a, 0.0)) * np.sqrt(np.maximum(b, 0.0))
    return np.where(np.abs(c) > edge, np.sign(c) * edge, c)


def _correlation(a: Any, c: Any, b: Any) -> np.ndarray:
    """The correlation, within [-1, 1]; 0 where a variance is 0. A new array of the full shape.

    What is within rounding of 1 or -1 becomes that: duplicate inputs have correlation 1 exactly. Extrema are cheaper than
    masks, and tell that most arrays need no mending. Where the variances are smaller arrays, along rows or along columns,
    their roots are taken first.
    """
    if not (np.min(a, initial=1.0) > 0 and np.min(b, initial=1.0) > 0):
        a, b = np.maximum(a, 0.0), np.maximum(b, 0.0)
        size = _root_of_product(a, b, _empty(a, c, b))
        rho = np.divide(c, size, out=np.zeros_like(size), where=size > 0)
    else:
        rho = _empty(a, c, b)
        if _is_small(a, rho) and _is_small(b, rho):
            np.multiply(c, 1.0 / np.sqrt(a), out=rho)
            rho *= 1.0 / np.sqrt(b)
        else:
            np.divide(c, _root_of_product(a, b, rho), out=rho)
    near = 8 * np.finfo(rho.dtype).eps
    edge = 1.0 - near
    if rho.size and not (rho.max() < edge and rho.min() > -edge):
        np.clip(rho, -1.0, 1.0, out=rho)
        np.sign(rho, out=rho, where=1.0 - np.abs(rho) < near)
    return rho


def _root_of_product(a: Any, b: Any, out: np.ndarray) -> np.ndarray:
    """sqrt(a b), a and b at least 0, also where the product leaves the range of floats."""
    with np.errstate(over="ignore", under="ignore"):
        np.sqrt(np.multiply(a, b, out=out), out=out)
    tiny, huge = np.sqrt(np.finfo(out.dtype).tiny), np.sqrt(np.finfo(out.dtype).max)
    largest = max(np.max(a, initial=0.0), np.max(b, initial=0.0))
    smallest = min(np.min(a, initial=1.0), np.min(b, initial=1.0))
    if largest > huge or smallest < tiny:
        apart = np.sqrt(a) * np.sqrt(b)
        np.copyto(out, apart, where=(apart > huge / 2) | (apart < 2 * tiny))
    return out


def _times_size(x: np.ndarray, a: Any, b: Any) -> np.ndarray:
    """x sqrt(a b) / (2 pi), in place; 0 where a variance is not positive."""
    if _is_small(a, x) and _is_small(b, x):
        x *= np.sqrt(np.maximum(a, 0.0)) * (0.5 / np.pi)
        x *= np.sqrt(np.maximum(b, 0.0))
        return x
    size = _root_of_product(np.maximum(a, 0.0), np.maximum(b, 0.0), _empty(a, b))
    size *= 0.5 / np.pi
    x *= size
    return x


def _is_small(a: Any, full: np.ndarray) -> bool:
    return 4 * np.size(a) <= full.size


def _empty(*arrays: Any) -> np.ndarray:
    full = max([x for x in arrays if isinstance(x, np.ndarray)], key=_size, default=None)
    if full is not None and full.dtype.kind == "f" and all(_fits(x, full.shape) for x in arrays):
        return np.empty(full.shape, full.dtype)
    kind = np.result_type(*[x for x in arrays if np.ndim(x)]) if any(np.ndim(x) for x in arrays) else float
    return np.empty(np.broadcast_shapes(*[np.shape(x) for x in arrays]), kind)


def _size(x: np.ndarray) -> int:
    return x.size


def _fits(x: Any, shape: tuple[int, ...]) -> bool:
    """Does it broadcast to that shape?"""
    own = getattr(x, "shape", ())
    return len(own) <= len(shape) and all(
        [k in (1, full) for k, full in zip(reversed(own), reversed(shape), strict=False)]
    )


def _arccos1(a: Any, c: Any, b: Any) -> np.ndarray:
    """In place, since large kernels spend their time here; arccos is exact at the correlation given, and faster than arctan2."""
    return _of_angle(_correlation(a, c, b), a, b)[0]


def arccos1_and_arcsine(a: Any, c: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both for one pair of variables, as the kernel of a relu network and its derivative want them: one arccos for two."""
    return _of_angle(_correlation(a, c, b), a, b, wanted=True)


def _of_angle(rho: np.ndarray, a: Any, b: Any, wanted: bool = False) -> tuple[np.ndarray, np.ndarray]:
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
    return _times_size(root, a, b), arcsine


def _arcsine(a: Any, c: Any, b: Any) -> np.ndarray:
    rho = _correlation(a, c, b)
    np.arcsin(rho, out=rho)
    rho *= 2 / np.pi
    return rho


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


def _residual(x: Any, y: Any, z: Any, q: Any) -> np.ndarray:
    """x - y z / q, and x where q is 0; a difference within rounding of its terms is 0, so that collinear variables stay so."""
    positive = np.min(q, initial=1.0) > 0
    taken = _empty(x, y, z, q)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        np.multiply(y, z, out=taken)
        if positive and _is_small(q, taken):
            taken *= 1.0 / np.asarray(q)
        elif positive:
            np.divide(taken, q, out=taken)
            if not np.isfinite(taken).all():
                taken = np.multiply(y, np.divide(z, q))
        else:
            taken = np.where(np.asarray(q) > 0, taken / np.where(np.asarray(q) > 0, q, 1.0), 0.0)
    if y is z and positive and taken.size:  # a variance, less something that is not negative
        left = np.subtract(x, taken, out=taken)
        if left.min() > SNAP * np.max(x):
            return left
        taken = x - left
    else:
        left = np.subtract(x, taken, out=np.empty_like(taken))
    if not left.size:
        return left
    largest = max(np.max(x), -np.min(x), taken.max(), -taken.min())
    if left.min() > SNAP * largest:
        return left
    near = np.abs(left) <= SNAP * np.maximum(np.abs(x), np.abs(taken))
    left[near] = 0.0
    return left


def _sign_mean(m: Any, q: Any) -> np.ndarray:
    from scipy.special import erf

    m, q = np.asarray(m, dtype=float), np.asarray(q, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(q > 0, erf(m / np.sqrt(2 * q)), np.sign(m))


def _sign_pair(m1: Any, m2: Any, a: Any, c: Any, b: Any) -> np.ndarray:
    """E sign(u) sign(v) = 4 P(u < 0, v < 0) - 2 P(u < 0) - 2 P(v < 0) + 1, by Owen's T (Owen 1956)."""
    from scipy.special import ndtr, owens_t

    m1, m2, a, c, b = np.broadcast_arrays(*[np.asarray(x, dtype=float) for x in (m1, m2, a, c, b)])
    rho = _correlation(a, c, b)
    root = np.sqrt((1.0 - rho) * (1.0 + rho))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        h, k = 0.0 - m1 / np.sqrt(a), 0.0 - m2 / np.sqrt(b)  # not -0.0, whose sign counts below
        regular = (a > 0) & (b > 0)
        h, k = np.where(regular, h, 0.0), np.where(regular, k, 0.0)
        # where h or k is 0, T's argument tends to +-infinity: T(0, x) = arctan(x)/(2 pi), T(h, inf) = Phi(-|h|)/2
        first = np.where(h != 0, (k - rho * h) / (h * root), np.copysign(np.inf, k) * np.copysign(1.0, h))
        second = np.where(k != 0, (h - rho * k) / (k * root), np.copysign(np.inf, h) * np.copysign(1.0, k))
        opposite = (np.sign(h) * np.sign(k) < 0) | ((np.sign(h) * np.sign(k) == 0) & (h + k < 0))
        both = 0.5 * (ndtr(h) + ndtr(k)) - owens_t(h, first) - owens_t(k, second) - np.where(opposite, 0.5, 0.0)
        zero = (h == 0) & (k == 0)
        both = np.where(zero, 0.25 + np.arctan2(rho, root) / (2 * np.pi), both)
        both = np.where(
            rho >= 1, ndtr(np.minimum(h, k)), np.where(rho <= -1, np.maximum(ndtr(h) - ndtr(-k), 0.0), both)
        )
        value = 4 * both - 2 * ndtr(h) - 2 * ndtr(k) + 1
    return np.where(regular, value, _sign_mean(m1, a) * _sign_mean(m2, b))


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
        Dual("sign_mean", ("m", "q"), _sign_mean, lambda s, m, q: s.erf(m / s.sqrt(2 * q)), "E sign(u), u ~ N(m, q)"),
        Dual(
            "sign_pair", ("m1", "m2", "a", "c", "b"), _sign_pair,
            lambda s, m1, m2, a, c, b: s.Function("signpair")(m1, m2, a, c, b),
            "E sign(u) sign(v) with means, by Owen's T function",
        ),
        Dual(
            "density", ("m", "q"), _density, lambda s, m, q: s.exp(-(m**2) / (2 * q)) / s.sqrt(2 * s.pi * q),
            "the density of N(m, q) at 0; 0 where q = 0, as the pseudo-inverse has it (theory of Zdot, Stein's form)",
        ),
        Dual(
            "residual", ("x", "y", "z", "q"), _residual, lambda s, x, y, z, q: x - y * z / q,
            "conditional means and covariances given a variable of variance q; x where q = 0",
        ),
        Dual("pinv", ("q",), _pinv, lambda s, q: 1 / q, "1/q, and 0 where q = 0"),
    )
}  # fmt: skip


def dual(name: str, *arguments: Node) -> Node:
    """A closed form as a scalar; folded where the answer is rational."""
    if name in ("arccos1", "arcsine") and arguments[2].digest < arguments[0].digest:
        arguments = arguments[::-1]  # symmetric in the two variables
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
        case "sign_pair" if arguments[0].is_zero and arguments[1].is_zero:
            return dual("arcsine", *arguments[2:])
    return None


JOINT = {("arccos1", "arcsine"): arccos1_and_arcsine}
"""Two closed forms of the same operands that are cheaper together."""
