"""Logarithms and exponentials of exponentials: rewritten where numbers would overflow on the way to a moderate answer."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.affine import carrier, slope_and_shift
from tensorprog.language.algebra import ONE, typed
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.expect.closed import Gaussian
from tensorprog.limits.expect.domain import range_of
from tensorprog.limits.expect.moves import MOVED, opened
from tensorprog.limits.expect.structure import Structure

__all__ = ["Tilt", "logarithm", "saturated", "tilt"]

Factors = list[tuple[Node, int]]


def logarithm(x: Node) -> Node | None:
    """log x without the exponential that x is: log sigmoid(u) is -softplus(-u), also at u = -1000; None where x is none."""
    if x.op == "add" and len(x.args) == 1 and x.attr[0] > 0 and x.args[0].width is not None:
        inside = logarithm(x.args[0])
        constant = algebra.fn("log", algebra.constant(x.attr[0]))
        return None if inside is None else algebra.add([(1, inside), (1, constant)])
    if x.op == "mul":
        parts = [logarithm(a) for a in x.args]
        if all(p is None for p in parts) or any(range_of(a).low <= 0 for a in x.args):
            return None
        logs = [algebra.fn("log", a) if p is None else p for a, p in zip(x.args, parts, strict=True)]
        return algebra.add(list(zip(x.attr, logs, strict=True)))
    if x.op != "fn":
        return None
    (u,) = x.args
    match x.attr.name:
        case "exp":
            return u
        case "sigmoid":
            return algebra.neg(algebra.fn("softplus", algebra.neg(u)))
        case "sech2":  # 4 sigmoid(2 u) sigmoid(-2 u)
            both = [(-1, algebra.fn("softplus", algebra.scale(c, u))) for c in (2, -2)]
            return algebra.add([*both, (1, algebra.fn("log", algebra.constant(4)))])
        case "gaussian":
            return algebra.neg(algebra.power(u, 2))
        case "gauss_exp":
            return algebra.scale(-x.attr.parameters[0], algebra.power(u, 2))
        case "reciprocal" | "sqrt" if range_of(u).low > 0:
            inside = logarithm(u)
            factor = -1 if x.attr.name == "reciprocal" else Fraction(1, 2)
            return None if inside is None else algebra.scale(factor, inside)
    return None


def saturated(x: Node) -> Node | None:
    """c - c tanh(u)^2 as c sech(u)^2 and c - c sigmoid(u) as c sigmoid(-u), which keep their digits far out; else None."""
    if x.op != "add" or len(x.args) != 2 or x.width is None:
        return None
    pairs = list(zip(x.args, x.attr, strict=True))
    (one, a), (y, c) = pairs if pairs[0][0].op == "constant" else pairs[::-1]
    if one.op != "constant" or isinstance(one.attr, np.ndarray) or one.shape or a * one.attr != -c:
        return None
    if y.op == "fn" and y.attr.name == "sigmoid":
        return typed(algebra.scale(-c, algebra.fn("sigmoid", algebra.neg(y.args[0]))), x.shape, x.width, x.inner)
    if y.op == "mul" and y.attr == (2,) and y.args[0].op == "fn" and y.args[0].attr.name == "tanh":
        return typed(algebra.scale(-c, algebra.fn("sech2", y.args[0].args[0])), x.shape, x.width, x.inner)
    return None


class Tilt(NamedTuple):
    """E[exp(b u) R] as a number times E R under a Gaussian with other means.

    Attributes:
        number: E exp(b u).
        rest: R.
        atoms: The variables of R.
        gaussian: Their Gaussian, each moved by b times its covariance with u.
    """

    number: Node
    rest: Factors
    atoms: tuple[Node, ...]
    gaussian: Gaussian


def tilt(structure: Structure, factors: Factors, atoms: tuple[Node, ...], g: Gaussian) -> Tilt | None:
    """Takes exponentials of one variable out of a product, unless another factor falls where they grow."""
    exps = [(a, k) for a, k in factors if a.op == "fn" and a.attr.name == "exp" and carrier(a.args[0]) in atoms]
    if not exps:
        return None
    u = min({carrier(a.args[0]) for a, _ in exps}, key=lambda a: a.digest)
    exps = [(a, k) for a, k in exps if carrier(a.args[0]) == u]
    rest = [f for f in factors if f not in exps]
    b: Number = 0
    shift: Number = 0
    for a, k in exps:
        c, d = slope_and_shift(a.args[0])
        b, shift = b + k * c, shift + k * d
    if not rest or not (b == 0 or all(_grows(structure, a, u, b) and not _ends(a, u, b) for a, _ in rest)):
        return None
    i = atoms.index(u)
    exponent = algebra.add([(b, g.means[i]), (Fraction(1, 2) * b * b, g.cov(i, i)), (shift, ONE)])
    used = structure.atoms(algebra.mul(rest))
    kept = [atoms.index(a) for a in used]
    means = tuple([algebra.add([(1, g.means[j]), (b, g.cov(j, i))]) for j in kept])
    covariances = {(j, k): g.cov(kept[j], kept[k]) for j in range(len(kept)) for k in range(j + 1)}
    return Tilt(algebra.fn("exp", exponent), rest, used, Gaussian(means, covariances))


def _ends(x: Node, u: Node, b: Number) -> bool:
    """Is x 0 where exp(b u) grows? exp(u) step(-u) is moderate, and its factors after a tilt are infinity and 0."""
    if x.op != "fn" or x.attr.name not in ("step", "relu"):
        return False
    y, slope = carrier(x.args[0]), slope_and_shift(x.args[0])[0]
    while y.op == "view" and carrier(y.args[0]) is not y.args[0]:  # -u seen along an axis
        (z,) = y.args
        y, slope = algebra.view(carrier(z), y.attr, y.shape), slope * slope_and_shift(z)[0]
    return y == u and bool(slope * b < 0)


def _grows(structure: Structure, x: Node, u: Node, b: Number) -> bool:
    """Is there nothing in x that falls exponentially, or not where exp(b u) grows?"""

    def operands(y: Node) -> tuple[Node, ...]:
        if not structure.facts(y).families or structure.facts(y).affine:
            return ()
        return (opened(y),) if y.op in MOVED else y.args

    for y in topological([x], operands):
        if y.op != "fn":
            continue
        row = PRIMITIVES[y.attr.name]
        if row.name == "reciprocal":
            return False
        if row.decay and not (row.monotone and carrier(y.args[0]) == u and slope_and_shift(y.args[0])[0] * b > 0):
            return False
    return True
