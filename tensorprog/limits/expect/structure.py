"""What can be read off a Z-expression without computing an expectation: families, parity, affinity, axes, atoms, derivatives.

A Z-expression is built from Gaussian *leaves*: `leaf` (a centred initial vector; attr: its VectorSpec) and `hat` (Zhat of one
MatMul; operand: Z^x), under scalars, sums, products, primitives and axis operations. Leaves fall into independent *families*:
one for each matrix and direction, one for each group of initial vectors. An *atom* is a maximal affine subexpression: a
Gaussian variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorprog.language import algebra
from tensorprog.language.affine import carrier
from tensorprog.language.calculus import partial
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import MOVES, Node, topological
from tensorprog.language.symbols import Number
from tensorprog.limits.budget import Budget
from tensorprog.limits.expect.domain import range_of
from tensorprog.limits.expect.moves import MOVED, is_variable, opened, settled
from tensorprog.limits.expect.picks import Picks, picks_of, picks_of_scalar
from tensorprog.limits.tasks import Declined

__all__ = [
    "Facts",
    "Structure",
    "family",
]

Family = tuple[str, ...]
Question = tuple[Node, int, int]
"""What is x without the pick along an axis, whose size then is that?"""
ALL: Family = ("every leaf",)
NONE: frozenset[Any] = frozenset()


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


def family(leaf: Node) -> Family:
    """The family of a leaf."""
    if leaf.op == "leaf":
        return ("initial", leaf.attr.name)
    matrix, transposed, _ = leaf.attr
    return ("matrix", matrix.name, "T" if transposed else "")


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
                known[y] = below | {y.attr.name} if y.op == "fn" and y.width is not None else below
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
        if x.width is None:
            return Facts(NONE, NONE, NONE, True, _support_of_scalar(x), False, picks_of_scalar(x))
        if x.op == "constant":
            return Facts(NONE, NONE, NONE, True, _support_of_constant(x), False, {})
        if x.op in ("leaf", "hat"):
            f = frozenset([family(x)])
            return Facts(f, f | {ALL}, NONE, True, frozenset(range(len(x.shape))), False, {})
        parts = [self._facts[a] for a in x.args]
        if x.op in MOVES and parts[0].stacked:  # it may see through the stack
            return self.facts(opened(x))
        if x.op not in (*MOVED, "add", "mul", "fn", "stack", "family"):
            raise Declined(f"the exact route has no rule for {x.op}")
        families = NONE.union(*[p.families for p in parts])
        stacked = x.op == "stack" or any(p.stacked for p in parts)
        picks: Picks = {}
        if x.shape and not stacked:
            picks = picks_of(x, [(p.support, p.picks) for a, p in zip(x.args, parts, strict=True) if a.shape])
        return Facts(families, *_parity(x, parts), _is_affine(x, parts), _support(x, parts), stacked, picks)

    def unpicked(self, x: Node, axis: int, size: int) -> Node:
        """y, where x is y under the pick of an axis of that size that the facts about x have, if it varies along the axis."""
        known, start = self._unpicked, (x, axis, size)
        stack = [start]
        while stack:  # of questions, since x may be deep
            question = stack[-1]
            answer = known.get(question) or self._without_pick(*question)
            if isinstance(answer, Node):
                known[question] = answer
                stack.pop()
            else:
                stack.extend(answer)
        return known[start]

    def _without_pick(self, x: Node, axis: int, size: int) -> Node | list[Question]:
        """An answer, or the questions that have to be answered before."""
        known = self._unpicked
        while x.op in MOVES and self.facts(x.args[0]).stacked:  # the facts see through the stack
            x = opened(x)
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        varies = axis in self.facts(x).support
        if not varies and x.op not in (*MOVED, "add", "mul", "fn"):
            places = [i for i in range(len(shape)) if i != axis]
            return algebra.view(algebra.take(x, axis, 0), places, shape)
        y = x.args[0]
        if varies and x.op == "pick" and x.attr.axis == axis and axis not in self.facts(y).picks:
            return y
        if x.op == "view":  # source by source: there are several on a diagonal
            for i, p in enumerate(x.attr):
                if p == axis:
                    if (y, i, size) not in known:
                        return [(y, i, size)]
                    y = known[y, i, size]
            return settled(algebra.view(y, x.attr, shape))
        below = axis + (x.op in ("take", "sum") and axis >= (x.attr if x.op == "sum" else x.attr.axis))
        questions = [(a, below, size) for a in x.args if a.shape]
        missing = [q for q in questions if q not in known]
        if missing:
            return missing
        args = [known[a, below, size] if a.shape else a for a in x.args]
        if x.op == "pick":
            return args[0] if x.attr.axis == axis else algebra.pick(args[0], *x.attr)
        return settled(algebra.rebuild(x, args, shape))

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
                    if y.op == "fn" and y.attr.name == "sqrt" and range_of(a).low <= 0:
                        raise Declined("the derivative of a root where its argument is 0")
                    slope = partial(y, i)
                    if slope is None:
                        raise Declined("the derivative of a Dirac delta")
                    terms.append((1, algebra.mul([done[a], slope])))
                return algebra.add(terms) if terms else algebra.ZERO
        raise Declined(f"the derivative of {y.op}")


# ---- one fact each, of an instruction with coordinates, from those about its operands ----


def _parity(x: Node, parts: Sequence[Facts]) -> tuple[frozenset[Family], frozenset[Family]]:
    """The families under whose change of sign x is odd, and those under which it is neither odd nor even."""
    neither = NONE.union(*[p.neither for p in parts])
    odd = parts[0].odd
    match x.op:
        case "add" | "stack" | "family":
            odd = odd.intersection(*[p.odd for p in parts])
            neither |= NONE.union(*[p.odd for p in parts]) - odd
        case "mul":
            odd = NONE
            for p, k in zip(parts, x.attr, strict=True):
                odd ^= p.odd if k % 2 else NONE
        case "fn":
            parity = PRIMITIVES[x.attr.name].parity
            if parity is None:
                neither |= odd
            if parity != 1:
                odd = NONE
    return odd - neither, neither


def _is_affine(x: Node, parts: Sequence[Facts]) -> bool:
    match x.op:
        case "add" | "stack":
            return all(p.affine for p in parts)
        case "mul":
            random = [(p, k) for p, k in zip(parts, x.attr, strict=True) if p.families]
            return not random or (len(random) == 1 and random[0][1] == 1 and random[0][0].affine)
        case "fn":
            return not parts[0].families
        case "family":
            return False
    return parts[0].affine


def _support(x: Node, parts: Sequence[Facts]) -> frozenset[int]:
    """The positions of its axes along which x varies."""
    below = NONE.union(*[p.support for a, p in zip(x.args, parts, strict=True) if a.shape])
    match x.op:
        case "view":
            return frozenset([x.attr[i] for i in parts[0].support])
        case "take" | "sum":
            axis = x.attr if x.op == "sum" else x.attr.axis
            return frozenset([i - (i > axis) for i in parts[0].support if i != axis])
        case "stack" | "family":
            return frozenset([i + (i >= x.attr) for i in below]) | {x.attr}
    return below


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
