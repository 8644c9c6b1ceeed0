"""Linear dependence of Gaussian variables: z, -z and 2 z + 1 are one dimension of an integral, h, k and h + k are two.

Affine expressions are written out as sums over leaves, whatever views, takes and picks they are seen under, and reduced by
elimination: exactly, where the coefficients are rational.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Number, is_exact
from tensorprog.limits.expect.moves import is_variable, opened, root, scalar_version
from tensorprog.limits.expect.structure import Structure

__all__ = ["Combination", "independent"]

MANY = 64
"""A variable of more terms stands for itself."""
ROUNDING = 1e-13
"""Coefficients that are rounded cancel up to this share of their size."""
LARGEST = 1e3
"""A combination of floating point numbers with larger coefficients would lose digits."""


class Combination(NamedTuple):
    """An affine expression as a sum of c_j times the variables number j of a basis, and of deterministic terms.

    Attributes:
        terms: (c_j, j).
        shift: (c, scalar).
    """

    terms: tuple[tuple[Number, int], ...]
    shift: tuple[tuple[Number, Node], ...]


Row = dict[Node, Number]


def independent(structure: Structure, x: Node, atoms: Sequence[Node]) -> tuple[list[int], dict[int, Combination]]:
    """A basis of the variables of an integrand, and what the others are.

    Args:
        structure: The facts.
        x: The integrand.
        atoms: Its Gaussian variables.

    Returns:
        The numbers of the atoms in the basis, ascending, and for each of the others the combination of the basis (by
        position in it) that it is.
    """
    whole = [(i, *_written_out(structure, a)) for i, a in enumerate(atoms)]
    if len(atoms) < 2 or len(set().union(*[row for _, row, _ in whole])) >= sum([len(row) for _, row, _ in whole]):
        return list(range(len(atoms))), {}  # no leaf is in two of them
    kinked = _kinked(x)
    whole.sort(key=lambda w: (atoms[w[0]] not in kinked, len(w[1]), atoms[w[0]].digest))
    chosen: list[int] = []
    reduced: list[tuple[Node, Row, dict[int, Number]]] = []  # pivot, row with 1 there, what it is made of
    others: dict[int, dict[int, Number]] = {}
    for i, row, _ in whole:
        rest, made = dict(row), dict[int, Number]()
        size = max([abs(float(c)) for c in row.values()], default=0.0)
        for pivot, known, of in reduced:
            c = rest.get(pivot, 0)
            if c != 0:
                for key, d in known.items():
                    rest[key] = rest.get(key, 0) - c * d
                for j, d in of.items():
                    made[j] = made.get(j, 0) + c * d
                rest.pop(pivot)
        left = {k: c for k, c in rest.items() if (c != 0 if is_exact(c) else abs(float(c)) > ROUNDING * size)}
        exact = all(map(is_exact, (*rest.values(), *made.values())))
        if not left and (exact or max([abs(float(c)) for c in made.values()], default=0.0) < LARGEST):
            others[i] = {j: c for j, c in made.items() if c != 0}
            continue
        chosen.append(i)
        if not left:
            continue
        pivot = min(left, key=lambda k: (-abs(float(left[k])), k.digest))
        scale = left[pivot]
        inverse = Fraction(1) / scale
        reduced.append(
            (
                pivot,
                {k: c * inverse for k, c in left.items()},
                {i: inverse, **{j: -c * inverse for j, c in made.items()}},
            )
        )
    shifts = {i: shift for i, _, shift in whole}
    chosen.sort()
    place = {i: k for k, i in enumerate(chosen)}
    found = {}
    for i, made in others.items():
        shift: dict[Node, Number] = dict(shifts[i])
        for j, c in made.items():
            for node, d in shifts[j].items():
                shift[node] = shift.get(node, 0) - c * d
        found[i] = Combination(
            tuple([(c, place[j]) for j, c in made.items()]), tuple([(c, s) for s, c in shift.items() if c != 0])
        )
    return chosen, found


def _kinked(x: Node) -> set[Node]:
    """The nodes whose kinked functions occur: as variables of the integral, their kinks lie along an axis."""
    out: set[Node] = set()
    for y in topological([x], lambda y: () if y.width is None or y.op in ("leaf", "hat") else y.args):
        if y.op == "fn" and PRIMITIVES[y.attr.name].kinks:
            u = y.args[0]
            out.add(u)
            while u.op == "add" and len(u.args) <= 2 and (rest := [a for a in u.args if a.op != "constant"]):
                u = rest[0]
                out.add(u)
                if len(rest) > 1:
                    break
    return out


def _written_out(structure: Structure, x: Node) -> tuple[Row, Row]:
    """Coefficients of leaves (under views, takes and picks; times scalars), and of deterministic terms."""
    row: Row = {}
    shift: Row = {}
    todo: list[tuple[Number, list[tuple[Node, int]], Node]] = [(1, [], x)]
    for _ in range(4 * MANY):
        if not todo:
            return row, shift
        c, factors, y = todo.pop()
        if not structure.facts(y).families:
            value = algebra.mul([*factors, (scalar_version(y), 1)])
            shift[value] = shift.get(value, 0) + c
        elif y.op == "add":
            todo += [(c * k, factors, a) for k, a in zip(y.attr, y.args, strict=True)]
        elif y.op == "mul":
            fixed = [
                (scalar_version(a), k) for a, k in zip(y.args, y.attr, strict=True) if not structure.facts(a).families
            ]
            (rest,) = [a for a in y.args if structure.facts(a).families]
            todo.append((c, [*factors, *fixed], rest))
        elif y.op in MOVES and not is_variable(y):
            todo.append((c, factors, opened(y)))
        elif (parts := _parts_of_hat(y)) is not None:
            todo += [(c * k, factors, a) for k, a in parts]
        else:
            key = algebra.mul([*factors, (y, 1)]) if factors else y
            row[key] = row.get(key, 0) + c
    return {x: 1}, {}


def _parts_of_hat(y: Node) -> list[tuple[Number, Node]] | None:
    """Zhat of W (x + y) as the sum of those of W x and W y; None for what is no such sum."""
    leaf = root(y)
    if leaf.op != "hat" or leaf.args[0].op != "add" or any(a.shape != leaf.shape for a in leaf.args[0].args):
        return None
    whole = leaf.args[0]
    if any(a.width is None for a in whole.args):
        return None
    return [
        (c, _seen_as(y, Node("hat", (a,), leaf.attr, leaf.shape, leaf.width)))
        for c, a in zip(whole.attr, whole.args, strict=True)
    ]


def _seen_as(y: Node, leaf: Node) -> Node:
    """A leaf under the views, takes and picks that y's is under."""
    return algebra.applied(y, [_seen_as(y.args[0], leaf)]) if y.op in MOVES else leaf
