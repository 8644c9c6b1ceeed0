"""Covariances of the columns of an initial multi-vector, seen under views, takes and picks.

Independent columns have no covariance matrix here: two of them have the covariance var where all their positions are equal, which
is one mask or one matrix of zeros and ones for each axis; seen along the same axes, as in a variance, not even that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import algebra
from tensorprog.language.data import Embedding
from tensorprog.language.node import MOVES, Node
from tensorprog.language.symbols import VectorSpec
from tensorprog.limits.expect.moves import is_variable, root, scalar_version
from tensorprog.limits.expect.structure import Structure

__all__ = ["LARGEST", "covariance_at", "covariance_of_columns", "sum_of_columns"]

Seats = list[tuple[int | None, np.ndarray]]
Factors = Sequence[tuple[Node, int]]

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
    if isinstance(spec.var, np.ndarray):  # where both are the same column, it has the variance that either has
        return algebra.mul([_gathered(spec.var, _seats(u), u, v), *_equal_positions(_seats(u), _seats(v), u, v)])
    return algebra.mul([algebra.constant(spec.var), *_equal_positions(_seats(u), _seats(v), u, v)])


def sum_of_columns(structure: Structure, u: Node, v: Node) -> Node | None:
    """Cov(sum u, v), over the last axis of u, if both are multiples of one initial vector of independent columns."""
    scalars = []
    if u.op == "mul":
        scalars = [
            (scalar_version(a), k) for a, k in zip(u.args, u.attr, strict=True) if not structure.facts(a).families
        ]
        (u,) = [a for a in u.args if structure.facts(a).families]
    if not (is_variable(u) and is_variable(v) and len(u.shape) - 1 in structure.facts(u).support):
        return None
    spec = root(u).attr
    if root(u).op != "leaf" or root(v).op != "leaf" or spec != root(v).attr:
        return None
    return None if isinstance(spec, Embedding) or spec.cov is not None else _summed(spec, scalars, u, v)


def _summed(spec: VectorSpec, factors: Factors, u: Node, v: Node) -> Node | None:
    """Cov(sum_t c_t u_t, v) of an initial vector of independent columns: v is correlated with one of the u_t only.

    Args:
        spec: The initial vector.
        factors: c_t, scalars with the axes of u and their powers.
        u: The vector, with the axis t last.
        v: The same vector, without it.

    Returns:
        A scalar with the axes of v; None where t is seen along several axes of the vector, or a column is repeated.
    """
    last = len(u.shape) - 1
    shape = u.shape[:-1]
    first, second = _seats(u), _seats(v)
    (at, *more) = [i for i, (p, _) in enumerate(first) if p == last]
    (_, mine), (q, theirs) = first[at], second[at]
    if more or len(np.unique(mine)) < len(mine):
        return None
    place = np.full(spec.shape[at], -1)
    place[mine] = np.arange(len(mine))
    places = place[theirs]
    known = np.asarray(places >= 0).astype(np.int64)
    parts = []
    if factors:
        c = algebra.typed(algebra.mul([*factors, algebra.ONE]), u.shape, None, None)
        if q is None:
            parts = [algebra.take(c, last, int(np.maximum(places, 0)))]
        else:
            picked = algebra.pick(c, last, np.maximum(places, 0).tolist())
            parts = [algebra.view(picked, [*range(last), q], shape)]
    if not known.all():
        mask = algebra.constant(known, known.shape) if q is not None else algebra.constant(0)
        parts.append(mask if q is None else algebra.view(mask, [q], shape))
    variance = _gathered(spec.var, second, v, v) if isinstance(spec.var, np.ndarray) else algebra.constant(spec.var)
    del first[at], second[at]
    return algebra.mul([variance, *parts, *_equal_positions(first, second, u, v, shape)])


def _seats(u: Node) -> Seats:
    """For every axis of the leaf below u: the axis of u it is seen along (or none), and its position for each one there."""
    moves = [u]
    while moves[-1].op in MOVES:
        moves.append(moves[-1].args[0])
    sizes = moves.pop().shape
    for size in sizes:
        _check_size(size, u, "positions")
    seats: Seats = [(k, np.arange(size)) for k, size in enumerate(sizes)]
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


def _equal_positions(first: Seats, second: Seats, u: Node, v: Node, shape: tuple[int, ...] | None = None) -> list[Node]:
    """Factors that are 1 where u and v, which see a vector's axes at the given seats, are the same column, and 0 elsewhere."""
    shape = u.shape or v.shape if shape is None else shape
    factors = []
    for (p, mine), (q, theirs) in zip(first, second, strict=True):
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


def _gathered(covariance: np.ndarray, seats: Seats, u: Node, v: Node) -> Node:
    """Entries of a covariance, or of variances, where each axis is seen."""
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
