"""Products as lists of factors, and expressions seen along axes: what the rules of expectation and of Zdot share."""

from __future__ import annotations

from tensorprog.language import algebra
from tensorprog.language.algebra import typed
from tensorprog.language.node import MOVES, Node
from tensorprog.language.symbols import Number
from tensorprog.limits.expect.moves import root

__all__ = ["axes_by_appearance", "carried", "factors_of", "picked_again", "spread_along", "variance_factor", "without"]


def variance_factor(matrix: object, transposed: bool) -> Number:
    """sigma^2 of the matrix being applied: var for W, rho var for W.T (Tensor Programs III, appendix F)."""
    return matrix.var * matrix.ratio if transposed else matrix.var  # type: ignore[attr-defined]


def factors_of(x: Node) -> list[tuple[Node, int]]:
    """(factor, exponent) of a product, or of one factor."""
    return list(zip(x.args, x.attr, strict=True)) if x.op == "mul" else [(x, 1)]


def without(factors: list[tuple[Node, int]], a: Node) -> list[tuple[Node, int]]:
    """The factors but for one."""
    return [(b, k) for b, k in factors if b != a]


def spread_along(x: Node, size: int) -> Node:
    """x with one more axis at the end, along which it does not vary."""
    return algebra.view(x, range(len(x.shape)), [*x.shape, size]) if x.shape else x


def carried(u: Node, x: Node) -> Node:
    """x under the same views, takes and picks as u's root is under in u."""
    if u.op in MOVES:
        return algebra.applied(u, [carried(u.args[0], x)])
    return x


def picked_again(value: Node, shape: tuple[int, ...], picks: list[tuple[int, tuple[int, ...]]]) -> Node:
    """An expectation of an expression of the given shape at positions of its axes; one number (without axes) is itself."""
    if value.shape:
        value = typed(value, shape, None, None)
        for axis, index in picks:
            value = algebra.pick(value, axis, index)
    return value


def axes_by_appearance(x: Node, support: frozenset[int]) -> tuple[int, ...]:
    """The axes along which x varies, in an order that is the same for all renamings of x, as far as its views tell.

    E[phi(u_i) psi(u_j)] and E[phi(u_j) psi(u_i)] are one expectation, transposed. Views sort by digests that know
    positions;
    what is under the views does not.
    """
    if len(support) < 2:
        return tuple(support)
    found: list[int] = []

    for a in sorted(x.args if x.op in ("mul", "fn") else (x,), key=_whatever_its_axes):
        found += _positions(a)
    return tuple([a for a in dict.fromkeys((*found, *sorted(support))) if a in support])


def _positions(a: Node) -> tuple[int, ...]:
    """Where the axes of a factor lie, if it is a view, or a primitive of one."""
    y = a.args[0] if a.op == "fn" else a
    while y.op == "add" and len(y.args) == 1:
        y = y.args[0]
    return y.attr if y.op == "view" else ()


def _whatever_its_axes(a: Node) -> tuple[bytes, str, tuple[int, ...]]:
    """Orders the factors of a product by what they are; among equals, by where their axes lie."""
    y = a.args[0] if a.op == "fn" else a
    while y.op == "add" and len(y.args) == 1:
        y = y.args[0]
    return root(y).digest, str(a.attr) if a.op == "fn" else "", _positions(a)
