"""What is known of a program's initial vectors: which are constant, centred, symmetric; which of them are independent.

A *source* is an initial vector as the program uses it: a vector; or, of a multi-vector that is only looked at position by
position, each position by itself. What is independent is read from covariances: those of one name, different positions or
the same input layer applied to different data (`U x` and `U y` have covariance var x.y/d), form groups of what is
correlated, directly or by way of others. Vectors of different names are independent.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from tensorprog.language.data import ArrayData, Embedding
from tensorprog.language.node import Node
from tensorprog.language.program import Program

__all__ = ["Sources", "deterministic", "shortcoming"]


def columns(x: Node) -> tuple[Any, np.ndarray]:
    """An initial vector, or a position of one, as the vector's attributes and the numbers of its columns."""
    taken = []
    while x.op == "take":
        taken.append(x.attr)
        x = x.args[0]
    at = np.arange(prod(x.attr.shape)).reshape(x.attr.shape)
    for axis, i in reversed(taken):
        at = np.take(at, i, axis)
    return x.attr, at.ravel()


def _law(spec: Any) -> Any:
    return spec.distribution if hasattr(spec.distribution, "dist") else None


def _covariances(a: Any, b: Any) -> np.ndarray | None:
    """Of the columns of two initial vectors of one name, (columns of a, columns of b); None where they are not known yet."""
    k = prod(a.shape)
    if isinstance(a, Embedding):
        if not isinstance(a.data, ArrayData) or not isinstance(b.data, ArrayData):
            return None
        with np.errstate(all="ignore"):
            return float(a.var) * a.data.products(b.data).reshape(k, prod(b.shape))
    if a.cov is not None:
        return np.asarray(a.cov, dtype=float).reshape(k, k)
    law = _law(a)
    variance = float(law.var()) if law is not None else np.asarray(a.var, dtype=float)
    return np.diag(np.broadcast_to(variance, a.shape).reshape(k))


def deterministic(x: Node) -> bool:
    """Is this initial vector a constant?"""
    spec, at = columns(x)
    known = _covariances(spec, spec)
    return known is not None and not np.any(np.diag(known)[at])


def shortcoming(x: Node, symmetric: bool) -> str:
    """Why an initial vector cannot be a readout, "" if it can; `symmetric`: must -v have the law of v?

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> shortcoming(tp.Vector("x", n, mean=1).node, True), shortcoming(tp.Vector("v", n).node, True)
        ('has mean 1', '')
    """
    spec, at = columns(x)
    law = _law(spec)
    if law is not None and abs(law.mean()) > 1e-12:
        return f"has mean {float(law.mean())}"
    means = np.broadcast_to(np.asarray(spec.mean, dtype=object), spec.shape).ravel()[at]
    if law is None and np.any(means != 0):
        return f"has mean {means[0]}" if len(set(means)) == 1 else "has nonzero mean"
    if deterministic(x):
        return "is constant 0"
    if symmetric and law is not None:
        q = np.abs(law.ppf([0.6, 0.75, 0.9, 0.97, 0.999]))
        if np.any(np.abs(law.cdf(q) + law.cdf(-q) - 1) > 1e-9):
            return f"has a law that is not symmetric ({law.dist.name})"
    return ""


class Sources:
    """The sources of a program, and the groups of those that depend on each other.

    Args:
        program: The program.

    Attributes:
        nodes: The sources, in the program's order.

    Example:
        >>> import tensorprog as tp
        >>> u, v, w = tp.vectors(("u", "v", "w"), tp.Width("n"), cov=[[1, 1, 0], [1, 2, 0], [0, 0, 1]])
        >>> s = Sources(tp.Program(q=tp.moment(u * v * w)))
        >>> [sorted(x.label for x in s.group(y.node)) for y in (u, w)]
        [['u', 'v'], ['w']]
    """

    def __init__(self, program: Program) -> None:
        self.nodes = tuple(_sources(program))
        self._known = set(self.nodes)
        self._short: dict[tuple[Node, bool], str] = {}
        self._groups: dict[Node, frozenset[Node]] = {x: frozenset([x]) for x in self.nodes}
        named: dict[str, list[Node]] = {}
        for x in self.nodes:
            named.setdefault(columns(x)[0].name, []).append(x)
        for found in named.values():
            if len(found) > 1:
                self._join(found)

    @classmethod
    def of(cls, program: Program) -> Sources:
        """Those of a program, found once."""
        if "sources" not in program._derived:
            program._derived["sources"] = cls(program)
        found: Sources = program._derived["sources"]
        return found

    def __contains__(self, x: Node) -> bool:
        return x in self._known

    def shortcoming(self, x: Node, symmetric: bool) -> str:
        """As the function of that name, found once."""
        key = x, symmetric
        if key not in self._short:
            self._short[key] = shortcoming(x, symmetric)
        return self._short[key]

    def group(self, x: Node) -> frozenset[Node]:
        """Those that x depends on, itself included."""
        return self._groups[x]

    def others(self, chosen: Iterable[Node]) -> dict[Node, Node]:
        """Of some sources, each that is not independent of all other ones to one of these."""
        chosen = set(chosen)
        return {x: min(rest, key=lambda y: y.digest) for x in chosen if (rest := self._groups[x] - chosen)}

    def _join(self, found: list[Node]) -> None:
        known: dict[tuple[Any, Any], np.ndarray | None] = {}
        at = [columns(x) for x in found]
        left = dict(enumerate(found))
        while left:
            group, todo = [], [next(iter(left))]
            left.pop(todo[0])
            while todo:
                i = todo.pop()
                group.append(found[i])
                (a, p) = at[i]
                for j in list(left):
                    (b, q) = at[j]
                    if (a, b) not in known:
                        known[a, b] = _covariances(a, b)
                    c = known[a, b]
                    if c is None or np.any(c[np.ix_(p, q)]):
                        todo.append(j)
                        left.pop(j)
            together = frozenset(group)
            self._groups |= dict.fromkeys(group, together)


def _sources(program: Program) -> list[Node]:
    """Vectors; of those whose every use goes on to a single position, the positions."""
    users: dict[Node, list[Node]] = {}
    for x in program.nodes:
        for a in x.args:
            users.setdefault(a, []).append(x)
    found = []
    for x in program.nodes:
        if x.op == "vector":
            positions, todo = [], [x]
            while todo:
                y = todo.pop()
                if not y.shape and y is not x:
                    positions.append(y)
                elif y.shape and all(z.op == "take" for z in users[y]):
                    todo.extend(users[y])
                else:
                    positions = [x]
                    break
            found += positions
    order = {x: i for i, x in enumerate(program.nodes)}
    return sorted(found, key=order.__getitem__)
