"""Covariances of the columns of an initial multi-vector, seen under views, takes and picks.

Independent columns have no covariance matrix here: two of them have the covariance var where all their positions are equal, which
is one mask or one matrix of zeros and ones for each axis; seen along the same axes, as in a variance, not even that.
"""

from __future__ import annotations

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.node import Node
from tensorprog.language.symbols import VectorSpec
from tensorprog.limits.structure import root

__all__ = ["LARGEST", "covariance_at", "covariance_of_columns"]

LARGEST = 2**28
"""Entries of the largest covariance that is made: 2 GB."""


def covariance_of_columns(spec: VectorSpec, u: Node, v: Node) -> Node:
    """The covariance of an initial vector with itself, seen as u and v see it."""
    if spec.cov is not None:
        shape = (*spec.shape, *spec.shape)
        first, second = _seats(u), _seats(v)
        if all(
            len({p for p, _ in side if p is not None}) == sum(p is not None for p, _ in side)
            for side in (first, second)
        ):
            return covariance_at(algebra.constant(spec.cov.reshape(shape)), u, v)
        return _gathered(spec.cov.reshape(shape), [*first, *second], u, v)
    return algebra.mul([algebra.constant(spec.var), *_equal_positions(u, v)])


def _seats(u: Node) -> list[tuple[int | None, np.ndarray]]:
    """For every axis of the leaf below u: the axis of u it is seen along (or none), and its position for each one there."""
    moves = [u]
    while moves[-1].op in ("view", "take", "pick"):
        moves.append(moves[-1].args[0])
    sizes = moves.pop().shape
    for size in sizes:
        _check_size(size, u, "positions")
    seats: list[tuple[int | None, np.ndarray]] = [(k, np.arange(size)) for k, size in enumerate(sizes)]
    for move in reversed(moves):
        if move.op == "view":
            seats = [(None if p is None else move.attr[p], index) for p, index in seats]
            continue
        axis, what = move.attr
        if move.op == "pick":
            seats = [(p, index[list(what)] if p == axis else index) for p, index in seats]
        else:
            seats = [
                (None, index[what]) if p == axis else (p if p is None or p < axis else p - 1, index)
                for p, index in seats
            ]
    return seats


def _equal_positions(u: Node, v: Node) -> list[Node]:
    """Factors that are 1 where u and v are the same column, and 0 elsewhere."""
    shape = u.shape or v.shape
    factors = []
    for (p, mine), (q, theirs) in zip(_seats(u), _seats(v), strict=True):
        if p == q or p is None or q is None:
            equal = np.asarray(mine == theirs)
            if equal.all():
                continue
            seen = [k for k in {p, q} if k is not None] if equal.ndim else []
        else:
            _check_size(len(mine) * len(theirs), u)
            equal = mine[:, None] == theirs[None, :]
            seen = [p, q]
        matrix = algebra.constant(equal.astype(np.int64), equal.shape)
        factors.append(algebra.view(matrix, seen, shape) if equal.ndim else matrix)
    return factors


def _check_size(entries: int, u: Node, of: str = "pairs of positions") -> None:
    if entries > LARGEST:
        leaf = root(u)
        raise TensorProgramError(
            f"the covariance of {leaf.attr.name} at {entries:.3g} {of}",
            why=f"it would take {8 * entries / 2**30:.3g} GB",
            fix="ask for fewer positions, or for variances only: tp.moment(x * x)",
            source=leaf.source,
        )


def _gathered(covariance: np.ndarray, seats: list[tuple[int | None, np.ndarray]], u: Node, v: Node) -> Node:
    """Entries of a covariance several of whose axes are seen along one."""
    shape = u.shape or v.shape
    used = sorted({p for p, _ in seats if p is not None})
    index = []
    for p, places in seats:
        spread = [1] * len(used)
        if p is not None:
            spread[used.index(p)] = len(places)
        index.append(np.reshape(places, spread))
    values = covariance[tuple(index)]
    return (
        algebra.view(algebra.constant(values, values.shape), used, shape) if used else algebra.constant(values.item())
    )


def covariance_at(covariance: Node, u: Node, v: Node) -> Node:
    """The covariance of the columns of a leaf, seen as u and v see the leaf: u's axes are the first half of its axes."""
    for first, x in ((len(root(u).shape), v), (0, u)):
        moves = [x.args[0] if x.op == "view" else x]
        while moves[-1].op in ("take", "pick"):
            moves.append(moves[-1].args[0])
        for y in reversed(moves[:-1]):
            axis, what = y.attr
            move = algebra.take if y.op == "take" else algebra.pick
            covariance = move(covariance, first + axis, what)
    index = [p for x in (u, v) for p in (x.attr if x.op == "view" else range(len(x.shape)))]
    return algebra.view(covariance, index, u.shape or v.shape)
