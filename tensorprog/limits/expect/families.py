"""Many vectors that are made alike, as one multi-vector: the states of a recurrent network along an axis of time.

The states h_t = phi(W h_{t-1} + u_t) of T steps have T^2 covariances. They need not be T^2 questions: as one multi-vector
H = phi(W H' + u), with H' the states one step earlier, the row E[h_s H] is one expectation over an array, whose covariance is the
row E[h_{s-1} H'], T positions of the row before. A kernel over all pairs of times so costs T questions on arrays of T entries.

A *family* is a node whose operands are the members, along its first axis: a stack that nothing looks through. It occurs as a
factor of what `Expectation.mean` is asked about, and under the `hat` of what is made of members. `lifted` finds the members that
are equal but for which members of families, and which positions of leaves, they are made of, whatever layer they come from, and
writes them as one multi-vector; the others (the first state) stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Number

__all__ = ["MANY", "Families", "Group", "placed"]

MANY = 12
"""So many vectors that are made alike become one."""

TERMS = 8
"""A sum of more terms is not written as one with others: a state that is the sum of all steps so far has as many as steps."""

Group = tuple[Node, tuple[int, ...]]
"""Members of a family as one multi-vector, and which ones they are."""


class Families:
    """The families of one program, each found once.

    A list of vectors that are all members of a known family is a pick of it, so that rows are shared.

    Args:
        integrals: May the members be functions without closed forms? Not for the kernels of pairs of examples, whose
            integrals are series over examples (`limits/pairs/blocks.py`) where they have no axes.
    """

    def __init__(self, integrals: bool = True) -> None:
        self.integrals = integrals
        self._homes: dict[Node, list[Node]] = {}
        self._places: dict[Node, dict[Node, int]] = {}
        self._groups: dict[Node, list[Group]] = {}
        self._signatures: dict[Node, bytes] = {}
        self._lifts: dict[tuple[Node, ...], Node | None] = {}
        self.stacks: dict[tuple[Node, int], Node | None] = {}

    def of(self, xs: Sequence[Node]) -> Node:
        """The vectors, of one shape, along a new first axis: positions of a family.

        Args:
            xs: Two or more; views that all have in common stay outside.
        """
        return self._carried(xs, lambda family: family)

    def groups(self, family: Node) -> list[Group]:
        """The members that are made alike, `MANY` or more at a time."""
        if family not in self._groups:
            found: dict[bytes, list[int]] = {}
            for i, x in enumerate(family.args):
                found.setdefault(self._signature(x), []).append(i)
            groups = []
            for places in found.values():
                if len(places) >= MANY:
                    z = self._lifted([family.args[i] for i in places])
                    if z is not None:
                        shape = (len(places), *family.shape[1:])
                        groups.append((algebra.typed(z, shape, family.width, None), tuple(places)))
            self._groups[family] = groups
        return self._groups[family]

    def terms(self, total: Node) -> tuple[list[tuple[Node, list[Number]]], list[tuple[Number, Node]]]:
        """A sum as sums over families, with the coefficients of each member, and the terms that are left."""
        found: dict[bytes, list[tuple[Number, Node]]] = {}
        for c, a in zip(total.attr, total.args, strict=True):
            found.setdefault(self._signature(a), []).append((c, a))
        sums, rest = [], []
        for terms in found.values():
            if len(terms) >= MANY and terms[0][1].width is not None and self.alike([a for _, a in terms]):
                terms.sort(key=lambda term: (term[1].height, term[1].digest))
                sums.append((self.of([a for _, a in terms]), [c for c, _ in terms]))
            else:
                rest += terms
        return sums, rest

    def alike(self, xs: Sequence[Node]) -> bool:
        """Are there many among the vectors that can be written as one?"""
        distinct = list(dict.fromkeys(xs))
        if len(distinct) < MANY:
            return False
        found: dict[bytes, list[Node]] = {}
        for x in _without_views(distinct)[0]:
            found.setdefault(self._signature(x), []).append(x)
        for same in found.values():
            if len(same) >= MANY and _meet(same) and (self.integrals or _closed(same[-1])):
                if self._lifted(same) is not None:
                    return True
        return False

    # ---- families ----
    def _carried(self, xs: Sequence[Node], made: Callable[[Node], Node]) -> Node:
        """What is made of a family, seen so that its positions are what is made of the vectors."""
        plain, moves = _without_views(xs)
        family, index = self._family(plain)
        z = algebra.pick(made(family), 0, index)
        for move in reversed(moves):
            z = algebra.view(z, [0, *[p + 1 for p in move.attr]], (len(xs), *move.shape))
        return z

    def _family(self, xs: Sequence[Node]) -> tuple[Node, list[int]]:
        for family in self._homes.get(xs[0], ()):
            places = self._places[family]
            if all(x in places for x in xs):
                return family, [places[x] for x in xs]
        members = tuple(dict.fromkeys(xs))
        shape = next((x.shape for x in members if x.shape), ())
        family = Node("family", members, 0, (len(members), *shape), xs[0].width)
        places = self._places[family] = {x: i for i, x in enumerate(members)}
        for x in members:
            self._homes.setdefault(x, []).append(family)
        return family, [places[x] for x in xs]

    # ---- what is alike ----
    def _signature(self, x: Node) -> bytes:
        """Equal for what may be written as one: positions of leaves, what matrices are applied to, and coefficients may differ.

        So may the terms of a Gaussian variable: the first state of a network has no W h.
        """
        known = self._signatures

        def operands(y: Node) -> tuple[Node, ...]:
            return () if y in known or y.op in ("leaf", "hat", "family") or y.width is None else y.args

        for y in topological([x], operands):
            if y not in known:
                known[y] = _content(y, [known[a] for a in operands(y)])
        return known[x]

    def _lifted(self, xs: Sequence[Node]) -> Node | None:
        """One multi-vector whose positions along its first axis are the nodes; without axes where they are all one without axes.

        None if they are not made alike.
        """
        key = tuple(xs)
        if key not in self._lifts:
            self._lifts[key] = self._made(xs)
        return self._lifts[key]

    def _made(self, xs: Sequence[Node]) -> Node | None:
        x, count = xs[0], len(xs)
        shape = (count, *x.shape)
        if all(y == x for y in xs):
            return algebra.view(x, range(1, len(shape)), shape) if x.shape else x
        if any((y.shape, y.width) != (x.shape, x.width) for y in xs):
            return None
        if x.width is None:
            return algebra.stack(xs, 0)
        if any(y.op == "add" or y.op != x.op for y in xs):
            return self._sum(xs, shape)
        if x.op == "mul":
            return self._product(xs, shape)
        if x.op == "take" and all(y.args == x.args and y.attr.axis == x.attr.axis for y in xs):
            axis = x.attr.axis
            z = algebra.pick(x.args[0], axis, [y.attr.position for y in xs])
            return algebra.transpose(z, [axis, *[i for i in range(len(z.shape)) if i != axis]])
        if any(y.attr != x.attr for y in xs):
            return self._sum(xs, shape) if self._signature(x) == _gaussian(x) else None
        if x.op not in ("hat", "fn", *MOVES):
            return None
        inside = [y.args[0] for y in xs]
        if x.op == "hat":
            if any(y.shape != inside[0].shape for y in inside):
                return None
            return self._carried(inside, lambda f: Node("hat", (f,), x.attr, f.shape, x.width))
        below = self._lifted(inside)
        if below is None or not below.shape:
            return None
        match x.op:
            case "fn":
                return algebra.fn(x.attr.name, below, *x.attr.parameters)
            case "view":
                return algebra.view(below, [0, *[p + 1 for p in x.attr]], shape)
            case "take":
                return algebra.take(below, x.attr.axis + 1, x.attr.position)
            case _:
                return algebra.pick(below, x.attr.axis + 1, x.attr.positions)

    def _product(self, xs: Sequence[Node], shape: tuple[int, ...]) -> Node | None:
        """Of products, factor by factor, in an order that all have: any order is right, this one finds what is alike."""
        rows = []
        for y in xs:
            factors = list(zip(y.attr, y.args, strict=True))
            rows.append(sorted(factors, key=lambda factor: (self._signature(factor[1]), factor[0], _order(factor[1]))))
        powers = [k for k, _ in rows[0]]
        if any([k for k, _ in row] != powers for row in rows):
            return None
        parts = []
        for j, k in enumerate(powers):
            z = self._lifted([row[j][1] for row in rows])
            if z is None or z.shape not in ((), shape):
                return None
            parts.append((z, k))
        return algebra.typed(algebra.mul(parts), shape, xs[0].width, None)

    def _terms(self, x: Node) -> list[tuple[Number, Node]]:
        """The terms of a sum, of a Gaussian variable those of sums in it; a multiple, or what is spread, is a sum of one."""
        found: dict[Node, Number] = {}
        todo: list[tuple[Number, Node]] = [(1, x)]
        while todo and len(todo) + len(found) <= 2 * TERMS:
            c, y = todo.pop()
            if y.op == "add" and (len(y.args) == 1 or y == x or self._signature(y) == _gaussian(y)):
                todo += [(c * k, a) for k, a in zip(y.attr, y.args, strict=True)]
            else:
                found[y] = found.get(y, 0) + c
        return [*[(c, y) for y, c in found.items()], *todo]

    def _sum(self, xs: Sequence[Node], shape: tuple[int, ...]) -> Node | None:
        """Of sums, term by term; coefficients that differ are an array, and a term that some lack has the coefficient 0 there."""
        rows: list[dict[tuple[bytes, int], tuple[Number, Node]]] = []
        for y in xs:
            row: dict[tuple[bytes, int], tuple[Number, Node]] = {}
            terms = self._terms(y)
            if len(terms) > TERMS:
                return None
            for c, a in sorted(terms, key=lambda term: _order(term[1])):
                kind = _kind(a, self._signature)
                same = sum(k == kind for k, _ in row)
                row[kind, same] = c, a
            rows.append(row)
        kinds = list(dict.fromkeys([key for row in rows for key in row]))
        if len(kinds) > TERMS:
            return None
        pairs: list[tuple[Number, Node]] = []
        for key in kinds:
            some = next(row[key] for row in rows if key in row)
            found = [row.get(key, (0, some[1])) for row in rows]
            parts = [a for _, a in found]
            z = None if parts == list(xs) else self._lifted(parts)
            if z is not None and z.shape == shape[:1]:  # what is spread along the other axes
                z = algebra.view(z, [0], shape)
            if z is None or z.shape not in ((), shape):
                return None
            numbers = [c for c, _ in found]
            if all(type(c) is type(numbers[0]) and c == numbers[0] for c in numbers):
                pairs.append((numbers[0], z))
            else:
                weights = algebra.view(algebra.constant(np.array(numbers, dtype=object)), [0], shape)
                pairs.append((1, algebra.mul([weights, z])))
        return algebra.typed(algebra.add(pairs), shape, xs[0].width, None)


def _meet(xs: Sequence[Node]) -> bool:
    """Do many of the vectors have the same initial vector in each of their Gaussian factors, if there are such factors?

    The gradients of a network that looks at the last state alone are phi'(z_t) W.T dz_(t+1), and those of different times are
    uncorrelated: they are better asked about one by one, since what 0 multiplies is never asked for.
    """
    counts: dict[Node, int] = {}
    linear = 0
    for x in xs:
        found = _linear(x)
        linear += found is not None
        for leaf in found or ():
            counts[leaf] = counts.get(leaf, 0) + 1
    return linear == 0 or max(counts.values(), default=0) >= MANY


def _linear(x: Node) -> set[Node] | None:
    """The initial vectors in the Gaussian factors of a product, not those in functions; None without such factors."""
    while x.op in MOVES or (x.op == "add" and len(x.args) == 1):
        (x,) = x.args
    leaves: set[Node] = set()
    gaussian = False
    for a in x.args if x.op == "mul" else ():
        if _is_gaussian(a):
            gaussian = True
            leaves |= {y for y in topological([a], lambda y: () if y.op == "hat" else y.args) if y.op == "leaf"}
    return leaves if gaussian else None


def _closed(x: Node) -> bool:
    """Have all functions in an expression a basis, and with it closed forms?"""
    below = topological([x], lambda y: () if y.op in ("leaf", "hat") else y.args)
    return all(PRIMITIVES[y.attr.name].basis is not None for y in below if y.op == "fn")


def _is_gaussian(x: Node) -> bool:
    """Is it a leaf, positions of one, or a sum of those?"""
    below = topological([x], lambda y: () if y.op in ("leaf", "hat") else y.args)
    return x.width is not None and all(y.op in ("leaf", "hat", "add", *MOVES) and y.width is not None for y in below)


def placed(f: Node, lifted: Node) -> Node:
    """A group's multi-vector, all of it, seen as f sees the family."""
    moves = [f]
    while moves[-1].op in MOVES:
        moves.append(moves[-1].args[0])
    z = lifted
    for move in reversed(moves[:-1]):
        if move.op == "view":
            shape = list(move.shape)
            shape[move.attr[0]] = lifted.shape[0]
            z = algebra.view(z, move.attr, shape)
        elif not (move.op == "pick" and move.attr.axis == 0):
            z = algebra.applied(move, [z])
    return z


def _without_views(xs: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The nodes without the views that all have in common, and the views of the first, outermost first."""
    plain, moves = list(xs), []
    while all(x.op == "view" and (x.attr, x.shape) == (plain[0].attr, plain[0].shape) for x in plain):
        if len({x.args[0].shape for x in plain}) > 1:
            break
        moves.append(plain[0])
        plain = [x.args[0] for x in plain]
    return plain, moves


def _content(x: Node, parts: list[bytes]) -> bytes:
    if x.width is None and x.op != "constant":
        content = repr(("scalar", x.shape))
    elif x.op in ("leaf", "hat"):
        return _gaussian(x)
    elif x.op == "constant":
        return x.digest
    elif all(part == _gaussian(a) for part, a in zip(parts, x.args, strict=True)) and x.op in ("add", *MOVES):
        return _gaussian(x)
    elif x.op == "add" and len(parts) == 1 and x.args[0].shape == x.shape:
        return parts[0]
    elif x.op in ("add", "mul"):
        powers = x.attr if x.op == "mul" else [1] * len(parts)
        terms = sorted(zip(parts, powers, strict=True))
        return blake2b(repr((x.op, x.shape, terms)).encode(), digest_size=16).digest()
    else:
        content = repr((x.op, x.attr, x.shape))
    return blake2b(content.encode() + b"".join(parts), digest_size=16).digest()


def _gaussian(x: Node) -> bytes:
    return repr(("gaussian", x.shape)).encode()


def _kind(x: Node, signature: Callable[[Node], bytes]) -> bytes:
    """Of a term of a sum: the leaf that it is positions of, or the matrix; else what it is alike."""
    below = [x]
    while below[-1].op in MOVES:
        below.append(below[-1].args[0])
    leaf = below[-1]
    if leaf.op not in ("leaf", "hat"):
        return signature(x)
    moves = [(y.op, y.attr.axis if y.op == "take" else y.attr, y.shape) for y in below[:-1]]
    return repr(
        ("term", moves, leaf.digest if leaf.op == "leaf" else (leaf.attr.matrix.name, leaf.attr.transposed, leaf.shape))
    ).encode()


def _order(x: Node) -> tuple[int, int, bytes]:
    """Among terms that are alike: by position, or by when they were made."""
    return x.attr.position if x.op == "take" else 0, x.height, x.digest
