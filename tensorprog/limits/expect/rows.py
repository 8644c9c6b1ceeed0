"""Rules of expectation over families (`families.py`): a row E[y x_t], all t, as one expectation of a multi-vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.algebra import typed
from tensorprog.language.node import Node
from tensorprog.language.symbols import Number
from tensorprog.limits.expect.factors import factors_of, without
from tensorprog.limits.expect.families import MANY, placed
from tensorprog.limits.expect.moves import root, settled
from tensorprog.limits.tasks import Task

if TYPE_CHECKING:
    from tensorprog.limits.expect.expectation import Expectation

__all__ = ["family_factor", "of_family", "stack_as_family", "sums_over_families"]

Factors = list[tuple[Node, int]]


def family_factor(x: Node) -> Node | None:
    """A factor that is a family, seen under views, takes and picks."""
    return next((a for a, _ in factors_of(x) if root(a).op == "family"), None)


def of_family(e: Expectation, x: Node, f: Node) -> Task:
    """E of a product with a factor f that is a family.

    Where the other factors are one vector y for all members, members that are made alike are one multi-vector; those that are
    not, and those that share a variable with y, such as y itself, are asked about alone, as they would be without the family.
    """
    factors = factors_of(x)
    rest = without(factors, f)
    facts = e.structure.facts
    family, axis, index = _seat(f)
    plain = dict(factors)[f] == 1 and not any(axis in facts(a).support for a, _ in rest if a.shape)
    if not plain or family_factor(algebra.mul(rest)) is not None or any(_is_long(e, a) for a, _ in rest):
        value = yield from _one_by_one(e, x, axis)
        return value
    y = algebra.mul(rest)
    mine = e.structure.variables(y)
    alone = {j for j, i in enumerate(index) if e.structure.variables(family.args[i]) & mine}
    parts, done = [], set()
    for lifted, members in e.families.groups(family):
        place = {i: k for k, i in enumerate(members)}
        where = [j for j, i in enumerate(index) if i in place and j not in alone]
        if len(where) < MANY:
            continue
        done |= set(where)
        value = yield (e.mean, _on_group(x, f, axis, lifted, rest))
        if not value.is_zero:
            size = (*x.shape[:axis], len(members), *x.shape[axis + 1 :])
            # at the other positions one of these: what is evaluated there is 0 times a number, never 0 times infinity
            picked = [place[index[j if j in done and index[j] in place else where[0]]] for j in range(len(index))]
            value = algebra.pick(typed(value, size, None, None), axis, picked)
            parts.append(_only(value, where, axis, x.shape))
    if not done:
        value = yield from _one_by_one(e, x, axis)
        return value
    for j in [j for j in range(len(index)) if j not in done]:
        value = yield (e.mean, settled(algebra.take(x, axis, j)))
        if not value.is_zero:
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            places = [i for i in range(len(x.shape)) if i != axis]
            parts.append(_only(algebra.view(typed(value, shape, None, None), places, x.shape), [j], axis, x.shape))
    return typed(algebra.add([(1, p) for p in parts]), x.shape, None, None) if parts else algebra.ZERO


def _seat(f: Node) -> tuple[Node, int, tuple[int, ...]]:
    """The family below f, the axis of f that its members are along, and which member is where."""
    axis, index = 0, None
    y = f
    if y.op == "view":
        axis, y = y.attr[0], y.args[0]
    while y.op != "family":
        if y.op == "pick" and y.attr.axis == 0:
            index = y.attr.positions  # picks of one axis are one
        y = y.args[0]
    return y, axis, tuple(range(len(y.args))) if index is None else index


def _on_group(x: Node, f: Node, axis: int, lifted: Node, rest: Factors) -> Node:
    shape = (*x.shape[:axis], lifted.shape[0], *x.shape[axis + 1 :])
    places = [i for i in range(len(shape)) if i != axis]
    others = [(settled(algebra.view(algebra.take(a, axis, 0), places, shape)) if a.shape else a, k) for a, k in rest]
    return algebra.mul([settled(placed(f, lifted)), *others])


def _only(value: Node, where: Sequence[int], axis: int, shape: tuple[int, ...]) -> Node:
    """The value at some positions of an axis, 0 at the others."""
    mask = np.zeros(shape[axis], dtype=np.int64)
    mask[list(where)] = 1
    if mask.all():
        return value
    return algebra.mul([value, algebra.view(algebra.constant(mask, mask.shape), (axis,), shape)])


def _one_by_one(e: Expectation, x: Node, axis: int) -> Task:
    parts = []
    for i in range(x.shape[axis]):
        y = settled(algebra.take(x, axis, i))
        value = yield (e.mean, y)
        parts.append(typed(value, y.shape, None, None))
    return algebra.stack(parts, axis)


def _is_long(e: Expectation, a: Node) -> bool:
    """A sum of many nonlinear terms, which are better asked about one by one?"""
    if a.op not in ("add", "sum") or e.structure.facts(a).affine:
        return False
    return a.op == "sum" or len(a.args) >= MANY


def stack_as_family(e: Expectation, x: Node, axis: int) -> Node | None:
    """A product, with the one factor that varies along an axis, and is stacked there, as a family; None for anything else."""
    if x.shape[axis] < MANY:
        return None
    factors = factors_of(x)
    facts = e.structure.facts
    varying = [a for a, _ in factors if a.shape and axis in facts(a).support]
    if len(varying) != 1 or dict(factors)[varying[0]] > 1:
        return None
    (f,) = varying
    rest = without(factors, f)
    if not rest or any(facts(a).stacked for a, _ in rest):
        return None
    found = _stacked(e, f, axis)
    return None if found is None else algebra.mul([found, *rest])


def _stacked(e: Expectation, f: Node, axis: int) -> Node | None:
    """What is stacked along an axis as positions of a family; None where few of them are made alike."""
    known, families = e.families.stacks, e.families
    if (f, axis) not in known:
        members = [settled(algebra.take(f, axis, i)) for i in range(f.shape[axis])]
        found = families.of(members) if families.alike(members) else None
        if found is not None:
            found = algebra.transpose(found, [*range(1, axis + 1), 0, *range(axis + 1, len(f.shape))])
        known[f, axis] = found
    return known[f, axis]


def sums_over_families(e: Expectation, a: Node, rest: Factors, shape: tuple[int, ...]) -> Task:
    """E[a R] for a sum of many terms a, those that are made alike as one multi-vector; None if none are.

    Args:
        e: The rules.
        a: The sum.
        rest: The factors of R.
        shape: Of the product.
    """
    sums, others = e.families.terms(a)
    if not sums:
        return None
    last = len(shape)
    pairs: list[tuple[Number, Node]] = []
    for family, coefficients in sums:
        full = (*shape, family.shape[0])
        inside = algebra.view(family, [last, *range(last)] if len(family.shape) > 1 else [last], full)
        spread = [(algebra.view(b, range(last), full) if b.shape else b, k) for b, k in rest]
        value = yield (e.mean, algebra.mul([inside, *spread]))
        weights = algebra.view(algebra.constant(np.array(coefficients, dtype=object)), [last], full)
        pairs.append((1, algebra.sum_axis(typed(algebra.mul([weights, value]), full, None, None), last)))
    for c, b in others:
        value = yield (e.mean, algebra.mul([b, *rest]))
        pairs.append((c, value))
    return algebra.add(pairs)
