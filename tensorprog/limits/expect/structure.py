"""What can be read off a Z-expression without computing an expectation: families, parity, affinity, axes, atoms, derivatives.

A Z-expression is built from Gaussian *leaves*: `leaf` (a centred initial vector; attr: its VectorSpec) and `hat` (Zhat
of one
MatMul; attr: (Matrix, transposed), operand: Z^x), under scalars, sums, products, primitives and axis operations.
Leaves fall into
independent *families*: one for each matrix and direction, one for each group of initial vectors. An *atom* is a
maximal affine
subexpression: a Gaussian variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.affine import carrier, slope_and_shift
from tensorprog.language.calculus import partial
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.budget import Budget
from tensorprog.limits.expect.domain import range_of
from tensorprog.limits.expect.picks import Picks, Question, picks_of, picks_of_scalar, unpicked
from tensorprog.limits.tasks import Declined

__all__ = [
    "MOVED",
    "PASSED",
    "Facts",
    "Structure",
    "carrier",
    "family",
    "is_variable",
    "opened",
    "opened_fully",
    "ordered",
    "root",
    "scalar_version",
    "settled",
    "slope_and_shift",
    "summand",
]

Family = tuple[str, ...]
ALL: Family = ("every leaf",)
NONE: frozenset = frozenset()


class Facts(NamedTuple):
    """Facts about a Z-expression.

    Attributes:
        families: The families of leaves it depends on.
        odd: Those under whose change of sign it is odd (`ALL`: all leaves together).
        neither: Those under which it is neither odd nor even.
        affine: Is it an affine function of leaves, with deterministic coefficients?
        support: The positions of its axes along which it varies.
        stacked: Is there a stack among what it is made of?
        picks: The pick of each axis along which all that varies does so under one and the same pick (`picks.py`).
    """

    families: frozenset[Family]
    odd: frozenset[Family]
    neither: frozenset[Family]
    affine: bool
    support: frozenset[int]
    stacked: bool
    picks: Picks


def root(x: Node) -> Node:
    """What is under views, takes and picks."""
    while x.op in MOVES:
        x = x.args[0]
    return x


def is_variable(x: Node) -> bool:
    """A leaf, or positions of one?"""
    return root(x).op in ("leaf", "hat")


def family(leaf: Node) -> Family:
    """The family of a leaf."""
    if leaf.op == "leaf":
        return ("initial", leaf.attr.name)
    matrix, transposed = leaf.attr
    return ("matrix", matrix.name, "T" if transposed else "")


MOVED = (*MOVES, "sum")
"""What `opened` takes apart."""
PASSED = ("add", "mul", "fn", "sum", "stack")
"""What it moves views, takes and picks past."""
UNROLLED = 8
"""A contraction of up to this many nonlinear terms inside a nonlinear function is written out."""


def opened(x: Node) -> Node:
    """A view, take or pick moved one level down, past a sum, product, primitive, contraction or stack; a contraction written out.

    Raises:
        Declined: for a contraction of too many terms.
    """
    y = x.args[0]
    if x.op == "sum":
        if y.shape[x.attr] > UNROLLED:
            raise Declined(f"a nonlinear function of a contraction of {y.shape[x.attr]} nonlinear terms")
        return algebra.add([(1, algebra.take(y, x.attr, i)) for i in range(y.shape[x.attr])])
    if y.op in ("take", "pick"):  # of something that is not a leaf
        return algebra.rebuild(x, [opened(y)])
    if y.op in ("add", "mul", "fn"):
        return algebra.rebuild(y, [_past_stacks(algebra.applied(x, [a])) if a.shape else a for a in y.args], x.shape)
    if y.op == "sum":
        return _past_sum(x, y)
    if y.op in ("stack", "family"):
        return _past_stack(x, y)
    raise Declined(f"a {x.op} of a {y.op}")


def settled(x: Node) -> Node:
    """Views and takes at the top moved down as far as they go; picks of functions stay, for `unpicked` to take off."""
    while x.op in MOVES and x.width is not None and root(x).op in PASSED:
        y = x.args[0] if x.op == "view" else x
        picked = y.op == "pick"
        while y.op == "pick":
            y = y.args[0]
        if picked and y.op in ("add", "mul", "fn", "sum"):
            break
        x = opened(x)
    return x


def _past_stacks(x: Node) -> Node:
    """Moves of a stack are carried out at once: later ones then find its parts, not the whole stack to move again."""
    while x.op in MOVES and root(x).op == "stack":
        x = opened(x)
    return x


def _past_sum(x: Node, y: Node) -> Node:
    body, axis = y.args[0], y.attr
    if x.op == "take":
        position, index = x.attr
        return algebra.sum_axis(algebra.take(body, position + (position >= axis), index), axis - (position < axis))
    if x.op == "pick":
        position, positions = x.attr
        return algebra.sum_axis(algebra.pick(body, position + (position >= axis), positions), axis)
    last = len(x.shape)
    index = [*x.attr[:axis], last, *x.attr[axis:]]
    return algebra.sum_axis(algebra.view(body, index, [*x.shape, body.shape[axis]]), last)


def _past_stack(x: Node, y: Node) -> Node:
    axis = y.attr
    if x.op == "take":
        position, index = x.attr
        if position == axis:
            return y.args[index]
        return algebra.stack(
            [algebra.take(a, position - (position > axis), index) for a in y.args], axis - (position < axis)
        )
    if x.op == "pick":  # along another axis
        position, positions = x.attr
        return algebra.stack([algebra.pick(a, position - (position > axis), positions) for a in y.args], axis)
    target = x.attr[axis]
    return algebra.stack([algebra.take(x, target, i) for i in range(len(y.args))], target)


def opened_fully(x: Node) -> Node:
    """x without views, takes and picks on top, unless it is a variable."""
    while x.op in MOVES and not is_variable(x) and x.width is not None and root(x).op != "family":
        x = opened(x)
    return x


def ordered(u: Node, v: Node) -> tuple[Node, Node]:
    """The two in the order of their digests: a pair is one question."""
    return (u, v) if u.digest <= v.digest else (v, u)


def summand(a: Node, shape: tuple[int, ...]) -> Node:
    """What a contraction sums, over the given shape (the contraction's, or a larger one) and one more axis at the end."""
    body, last = a.args[0], len(shape)
    index = [*range(a.attr), last, *range(a.attr, len(body.shape) - 1)] if a.shape else [last]
    return opened_fully(algebra.view(body, index, [*shape, body.shape[a.attr]]))


def scalar_version(x: Node) -> Node:
    """A deterministic expression as a scalar: the same number in every coordinate."""
    done: dict[Node, Node] = {}

    def operands(y: Node) -> tuple[Node, ...]:
        if y.width is None:
            return ()
        return (opened(y),) if y.op in MOVES and _has_leaves(y) else y.args

    for y in topological([x], operands):
        if y.width is None:
            done[y] = y
            continue
        if y.op in MOVES and operands(y) != y.args:
            done[y] = done[opened(y)]
            continue
        plain = y.op == "constant"
        z = Node("constant", (), y.attr, y.shape) if plain else algebra.applied(y, [done[a] for a in y.args])
        done[y] = algebra.typed(z, y.shape, None, None)
    return done[x]


def _has_leaves(x: Node) -> bool:
    """Is there something random below, which a deterministic expression does not see: other parts of a stack?"""
    below = topological([x], lambda y: () if y.width is None or y.op in ("leaf", "hat") else y.args)
    return any(y.op in ("leaf", "hat") for y in below)


class Structure:
    """Facts about Z-expressions, each computed once.

    Args:
        budget: Terms are counted there: expressions, and derivatives of them.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._facts: dict[Node, Facts] = {}
        self._atoms: dict[Node, tuple[Node, ...]] = {}
        self._contracts: dict[Node, bool] = {}
        self._variables: dict[Node, frozenset[Node]] = {}
        self._unpicked: dict[Question, Node] = {}
        self._names: dict[Node, frozenset[str]] = {}

    def names(self, x: Node) -> frozenset[str]:
        """The primitives that x is made of, down to its atoms."""
        known = self._names

        def operands(y: Node) -> tuple[Node, ...]:
            return () if y in known or y.width is None or y.op in ("leaf", "hat") else y.args

        for y in topological([x], operands):
            if y not in known:
                below = NONE.union(*[known[a] for a in operands(y)])
                known[y] = below | {y.attr[0]} if y.op == "fn" and y.width is not None else below
        return known[x]

    def facts(self, x: Node) -> Facts:
        """The facts about x."""
        found = self._facts.get(x)
        if found is None:
            known = self._facts

            def operands(y: Node) -> tuple[Node, ...]:
                return () if y in known or y.width is None or y.op in ("leaf", "hat") else y.args

            new = topological([x], operands)
            self.budget.expand(len(new))
            for y in new:
                if y not in known:
                    known[y] = self._derive(y)
            found = known[x]
        return found

    def _derive(self, x: Node) -> Facts:
        everything = frozenset(range(len(x.shape)))
        if x.width is None:
            return Facts(NONE, NONE, NONE, True, _support_of_scalar(x), False, picks_of_scalar(x))
        if x.op == "constant":
            return Facts(NONE, NONE, NONE, True, _support_of_constant(x), False, {})
        if x.op in ("leaf", "hat"):
            f = frozenset([family(x)])
            return Facts(f, f | {ALL}, NONE, True, everything, False, {})
        parts = [self._facts[a] for a in x.args]
        if x.op in MOVES and parts[0].stacked:  # it may see through the stack
            return self.facts(opened(x))
        families = NONE.union(*[p.families for p in parts])
        neither = NONE.union(*[p.neither for p in parts])
        support = NONE.union(*[p.support for a, p in zip(x.args, parts, strict=True) if a.shape])
        stacked = x.op == "stack" or any(p.stacked for p in parts)
        affine = False
        match x.op:
            case "add":
                odd, more = _parity_of_sum(parts)
                neither |= more
                affine = all(p.affine for p in parts)
            case "mul":
                odd = NONE
                for p, k in zip(parts, x.attr, strict=True):
                    if k % 2:
                        odd ^= p.odd
                random = [(p, k) for p, k in zip(parts, x.attr, strict=True) if p.families]
                affine = not random or (len(random) == 1 and random[0][1] == 1 and random[0][0].affine)
            case "fn":
                parity, odd = PRIMITIVES[x.attr[0]].parity, parts[0].odd
                if parity is None:
                    neither |= odd
                if parity != 1:
                    odd = NONE
                affine = not families
            case "view":
                odd, affine = parts[0].odd, parts[0].affine
                support = frozenset([x.attr[i] for i in parts[0].support])
            case "take":
                odd, affine, axis = parts[0].odd, parts[0].affine, x.attr[0]
                support = frozenset([i - (i > axis) for i in parts[0].support if i != axis])
            case "pick":
                odd, affine = parts[0].odd, parts[0].affine
            case "sum":
                odd, affine = parts[0].odd, parts[0].affine
                support = frozenset([i - (i > x.attr) for i in parts[0].support if i != x.attr])
            case "stack" | "family":
                odd, more = _parity_of_sum(parts)
                neither |= more
                affine = x.op == "stack" and all(p.affine for p in parts)
                support = frozenset([i + (i >= x.attr) for i in support]) | {x.attr}
            case _:
                raise Declined(f"the exact route has no rule for {x.op}")
        picks: Picks = {}
        if x.shape and not stacked:
            picks = picks_of(x, [(p.support, p.picks) for a, p in zip(x.args, parts, strict=True) if a.shape])
        return Facts(families, odd - neither, neither, affine, support, stacked, picks)

    def unpicked(self, x: Node, axis: int, size: int) -> Node:
        """y, where x is y under the pick of an axis of that size that the facts about x have, if it varies along the axis."""
        return unpicked(x, axis, size, self.facts, settled, opened, self._unpicked)

    def terms(self, x: Node) -> int:
        """How many terms x has once its sums of sums are written out."""
        counts: dict[Node, int] = {}
        for y in topological([x], lambda y: y.args if y.op == "add" else ()):
            counts[y] = sum([counts[a] for a in y.args]) if y.op == "add" else 1
        return counts[x]

    def contracts(self, x: Node) -> bool:
        """Is it made, by sums, products and moves, of nonlinear sums over axes? Their positions are better not told apart."""
        known = self._contracts
        for y in topological([x], lambda y: y.args if y not in known and y.op in ("add", "mul", *MOVES) else ()):
            if y not in known:
                facts = self.facts(y)
                inside = y.op in ("add", "mul", *MOVES) and any(known.get(a, False) for a in y.args)
                known[y] = bool(facts.families) and (inside or (y.op == "sum" and not facts.affine))
        return known[x]

    def atoms(self, x: Node) -> tuple[Node, ...]:
        """The Gaussian variables x is a function of: its maximal affine subexpressions, numeric factors stripped."""
        found = self._atoms.get(x)
        if found is None:
            seen: dict[Node, None] = {}
            stack, visited = [x], set()
            while stack:
                y = stack.pop()
                if y in visited:
                    continue
                visited.add(y)
                facts = self.facts(y)
                if not facts.families:
                    continue
                if carrier(y) is not y:
                    stack.append(carrier(y))
                elif facts.affine:
                    seen[y] = None
                elif y.op in MOVED:
                    stack.append(opened(y))
                elif y.op in ("stack", "family"):
                    raise Declined("a nonlinear function of a stack")
                else:
                    stack.extend(y.args)
            found = self._atoms[x] = tuple(sorted(seen, key=lambda a: a.digest))
        return found

    def variable(self, x: Node) -> Node:
        """The Gaussian variable that an affine x is a deterministic function of: x, c x and x + c are one."""
        while True:
            y = carrier(x)
            if y.op == "mul" and self.facts(y).affine:
                (y,) = [a for a in y.args if self.facts(a).families]
            if y is x:
                return x
            x = y

    def variables(self, x: Node) -> frozenset[Node]:
        """The atoms of x, those that are multiples of one variable counted as one."""
        found = self._variables.get(x)
        if found is None:
            found = self._variables[x] = frozenset([self.variable(a) for a in self.atoms(x)])
        return found

    def bases(self, atoms: Sequence[Node]) -> tuple[Node, ...]:
        """The variables that the atoms are multiples of, under the views of the atoms."""
        found = set()
        for a in atoms:
            y = opened(a) if a.op in MOVED and not is_variable(a) else a
            found.add(self.variable(y) if y.op == "mul" else a)
        return tuple(sorted(found, key=lambda a: a.digest))

    def derivative(self, x: Node, atom: Node) -> Node:
        """The derivative of x in one of its atoms, the others held fixed."""

        def operands(y: Node) -> tuple[Node, ...]:
            if y == atom or y.width is None or not self.facts(y).families:
                return ()
            if carrier(y) is not y:
                return y.args
            if self.facts(y).affine:
                return ()
            return (opened(y),) if y.op in MOVED else y.args

        done: dict[Node, Node] = {}
        order = topological([x], operands)
        self.budget.expand(len(order))
        for y in order:
            done[y] = self._slope(y, atom, operands(y), done)
        return done[x]

    @staticmethod
    def _slope(y: Node, variable: Node, children: tuple[Node, ...], done: dict[Node, Node]) -> Node:
        if y == variable:
            return algebra.ONE
        if not children:
            return algebra.ZERO
        match y.op:
            case "view" | "take" | "pick" | "sum":
                return done[children[0]]
            case "add":
                return algebra.add([(c, done[a]) for c, a in zip(y.attr, y.args, strict=True)])
            case "mul" | "fn":
                terms: list[tuple[Number, Node]] = []
                for i, a in enumerate(y.args):
                    if done[a].is_zero:
                        continue
                    if y.op == "fn" and y.attr[0] == "sqrt" and range_of(a).low <= 0:
                        raise Declined("the derivative of a root where its argument is 0")
                    slope = partial(y, i)
                    if slope is None:
                        raise Declined("the derivative of a Dirac delta")
                    terms.append((1, algebra.mul([done[a], slope])))
                return algebra.add(terms) if terms else algebra.ZERO
        raise Declined(f"the derivative of {y.op}")


def _parity_of_sum(parts: list[Facts]) -> tuple[frozenset[Family], frozenset[Family]]:
    union = NONE.union(*[p.odd for p in parts])
    common = union.intersection(*[p.odd for p in parts])
    return common, union - common


def _support_of_scalar(x: Node) -> frozenset[int]:
    if x.op == "view":
        return frozenset(x.attr)
    if x.op == "constant":
        return _support_of_constant(x)
    if x.op in ("add", "mul", "fn") and not any(a.shape for a in x.args):
        return NONE
    return frozenset(range(len(x.shape)))


def _support_of_constant(x: Node) -> frozenset[int]:
    """A mask that has been spread over further axes, and folded, does not vary along them."""
    if not isinstance(x.attr, np.ndarray):
        return NONE
    a = x.attr.reshape((1,) * (len(x.shape) - x.attr.ndim) + x.attr.shape)
    return frozenset([i for i in range(a.ndim) if a.shape[i] > 1 and (a != a.take([0], i)).any()])
