"""The limit of an OuterNonlin: E over an independent copy of the second block (Tensor Programs IVb, 2.3).

Exact where the body is a sum of products of a function of the first block and a function of the second.
"""

from __future__ import annotations

from tensorprog.language import algebra
from tensorprog.language.node import Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.expectation import MANY_TERMS, Expectation
from tensorprog.limits.tasks import Declined

__all__ = ["separated"]


def separated(expectation: Expectation, body: Node) -> Node:
    """E of a body over its second block, as a function of the first.

    Raises:
        Declined: where the body does not separate, or only into too many terms.
    """
    pairs = []
    for c, outside, inside in _terms(body):
        value = expectation.solver.solve(expectation.mean, algebra.mul(inside)) if inside else algebra.ONE
        pairs.append((c, algebra.mul([*outside, value])))
    return algebra.add(pairs)


Factors = list[tuple[Node, int]]


def _terms(body: Node) -> list[tuple[Number, Factors, Factors]]:
    """(coefficient, functions of the first block, functions of the second) with products of sums written out."""
    todo: list[tuple[Number, Factors]] = [(1, [(body, 1)])]
    done: list[tuple[Number, Factors, Factors]] = []
    while todo:
        if len(todo) + len(done) > MANY_TERMS:
            raise Declined(f"an OuterNonlin whose body separates into more than {MANY_TERMS} terms")
        c, factors = todo.pop()
        mixed = next(
            ((a, k) for a, k in factors if a.inner is not None and (a.width is not None or a.op == "add")), None
        )
        if mixed is None:
            inside = [(_without_copy(a), k) for a, k in factors if a.inner is not None]
            done.append((c, [(a, k) for a, k in factors if a.inner is None], inside))
            continue
        a, k = mixed
        rest = [f for f in factors if f != mixed]
        if a.op == "mul":
            todo.append((c, [*rest, *[(b, j * k) for b, j in zip(a.args, a.attr, strict=True)]]))
        elif a.op == "add":
            again = [(a, k - 1)] if k > 1 else []
            todo.extend([(c * d, [*rest, (b, 1), *again]) for d, b in zip(a.attr, a.args, strict=True)])
        elif a.op == "constant":
            todo.append((c, [*rest, (algebra.constant(a.attr, a.shape), k)]))
        else:
            raise Declined("an OuterNonlin whose body does not separate into functions of each block")
    return done


def _without_copy(x: Node) -> Node:
    """A function of the second block alone, as a function of the vectors themselves."""
    done: dict[Node, Node] = {}
    for y in topological([x], lambda y: () if y.op == "inner" or y.inner is None else y.args):
        if y.op == "inner":
            done[y] = y.args[0]
        elif y.op == "constant":
            done[y] = algebra.constant(y.attr, y.shape)
        else:
            done[y] = y if y.inner is None else algebra.applied(y, [done[a] for a in y.args])
    return done[x]
