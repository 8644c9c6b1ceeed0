"""Fewer passes over large arrays: what conditioning on two smoothed signs leaves behind, with shared parts.

The closed forms of erf, gelu and their like condition on one variable after the other (`closed.py`). For two variables with
widened variances q and r and covariance c, the density of the first times that of what is left of the second is
1/(2 pi sqrt(q) sqrt(r - c^2/q)), and it is the same the other way round: here it is always written with the same one first, so
that all terms of a kernel and of its derivative share one array.

Source: the density of a Gaussian pair at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.simplify.rebuild import rewritten

__all__ = ["tidied"]

Known = dict[Node, "tuple[Node, Node, Node] | None"]
"""What `_determinant` has found: a residual variance is in many products."""


def tidied(outputs: Sequence[Node]) -> list[Node]:
    """The same scalars, with densities of residual variances as functions of determinants.

    Args:
        outputs: Scalar programs.
    """
    if not any(x.op == "dual" and x.attr == "residual" for x in topological(outputs)):
        return list(outputs)
    known: Known = {}
    return rewritten(rewritten(outputs, lambda x, args: _rule(x, args, known)), _noise_apart)


def _noise_apart(x: Node, args: Sequence[Node]) -> Node | None:
    """Residuals given a variable with noise as functions of the noise's variance: `limits/gauss/correlations.py:widened`."""
    if x.op == "dual" and x.attr == "residual" and args[3].op == "add" and args[3].attr == (1, 1):
        q, t = sorted(args[3].args, key=lambda a: _positive(a) is not None)
        if _positive(t) is not None:
            return Node("dual", (*args[:3], q, t), "widened", x.shape)
    return None


def _rule(x: Node, args: Sequence[Node], known: Known) -> Node | None:
    if x.op == "dual" and x.attr == "residual":
        value, y, z, q = args
        for one, other in ((y, z), (z, y)):
            t = _widening(q, one)
            if t is not None and value == other:  # x - y x / (y + t) = x t / (y + t)
                return algebra.typed(algebra.mul([value, algebra.constant(t), _inverse(q, known)]), x.shape, None, None)
    if x.op == "fn" and x.attr.name == "reciprocal" and _determinant(args[0], known) is not None:
        return algebra.typed(_inverse(args[0], known), x.shape, None, None)
    if x.op == "mul":
        return _paired(x, args, known)
    return None


def _widening(q: Node, y: Node) -> Number | None:
    """t > 0 where q is y + t."""
    if q.op != "add" or len(q.args) != 2 or q.attr != (1, 1) or y not in q.args:
        return None
    (t,) = [a for a in q.args if a is not y and a != y] or [y]
    return _positive(t)


def _positive(t: Node) -> Number | None:
    return t.attr if t.op == "constant" and not isinstance(t.attr, np.ndarray) and t.attr > 0 else None


def _determinant(r: Node, known: Known) -> tuple[Node, Node, Node] | None:
    """(q, p, w) where r is s - c^2/q + t, t > 0: q r = p w with one of q and s + t for p, whichever digest is smaller."""
    if r not in known:
        known[r] = _derived(r)
    return known[r]


def _derived(r: Node) -> tuple[Node, Node, Node] | None:
    if r.op != "add" or len(r.args) != 2 or r.attr != (1, 1):
        return None
    for a, t in (r.args, r.args[::-1]):
        if a.op == "dual" and a.attr == "residual" and _positive(t) is not None and a.args[1] == a.args[2]:
            s, c, _, q = a.args
            other = algebra.typed(algebra.add([(1, s), (1, t)]), s.shape, None, None)
            for u in q.args if q.op == "add" else ():
                mine = _widening(q, u)
                if mine is not None and other.digest < q.digest:
                    left = Node("dual", (u, c, c, other), "residual", a.shape)
                    whole = algebra.add([(1, left), (1, algebra.constant(mine))])
                    return q, other, algebra.typed(whole, r.shape, None, None)
            return q, q, r
    return None


def _inverse(r: Node, known: Known) -> Node:
    found = _determinant(r, known)
    if found is None or found[2] == r:
        return algebra.fn("reciprocal", r)
    q, p, w = found
    return algebra.mul([q, algebra.fn("reciprocal", p), algebra.fn("reciprocal", w)])


def _paired(x: Node, args: Sequence[Node], known: Known) -> Node | None:
    """A product, each density in it together with that of what is left of another variable."""
    factors = list(zip(args, x.attr, strict=True))
    densities = [a for a, k in factors if k == 1 and a.op == "dual" and a.attr == "density" and a.args[0].is_zero]
    used: set[Node] = set()
    joint: list[Node] = []
    for a in densities:
        found = _determinant(a.args[1], known)
        if found is None or a in used:
            continue
        q, p, w = found
        partner = next((b for b in densities if b is not a and b not in used and b.args[1] == q), None)
        if partner is not None:
            used |= {a, partner}
            joint += [algebra.fn("reciprocal", algebra.fn("sqrt", y)) for y in (p, w)]
    if not joint:
        return None
    rest = [(b, k) for b, k in factors if b not in used]
    number = algebra.constant((0.5 / math.pi) ** (len(joint) // 2))
    return algebra.typed(algebra.mul([*rest, number, *joint]), x.shape, None, None)
