"""Zdot: the part of W x by which x remembers that it was made with W.T (Tensor Programs III, 2.2).

    Zdot^{W x} = var * sum over y of  Z^y  E[ dZ^x / dZhat^{W.T y} ],    the sum over the y that W.T has multiplied.

No leaf is enumerated: for x = F(u_1, ..), the u_i Gaussian, the sum is sum_i E[dF/du_i] times the same sum of u_i, and
for an affine
u it is u itself with every leaf Zhat^{W.T y} replaced by Z^y and every other leaf by 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tensorprog.language import algebra
from tensorprog.language.algebra import ONE, ZERO, typed
from tensorprog.language.node import MOVES, Node
from tensorprog.limits.expect.expectation import Expectation
from tensorprog.limits.expect.factors import carried, factors_of, spread_along, without
from tensorprog.limits.expect.moves import (
    is_variable,
    opened,
    opened_fully,
    ordered,
    root,
    scalar_version,
    summand,
)
from tensorprog.limits.gauss.duals import dual
from tensorprog.limits.tasks import Declined, Task

__all__ = ["Zdot", "combined"]


class Multiplied(NamedTuple):
    """Z^y of a vector y that the other direction has multiplied.

    Attributes:
        y: Seen along the axes of what Zdot is asked of, and then along those of the sizes.
        sizes: Of the axes that are summed over.
    """

    y: Node
    sizes: tuple[int, ...] = ()


Found = dict[Multiplied, Node]
"""Zdot over var: every Z^y to its coefficient, of the same axes (or none). Sums are sums over axes of y, so that what is found in
a step of training are the vectors of the steps before, and not sums of sums of them."""


class Zdot:
    """The rules of Zdot, over the rules of expectation."""

    def __init__(self, expectation: Expectation) -> None:
        self.e = expectation

    # ---- E of derivatives ----
    def slopes(self, x: Node, needed: tuple[bool, ...]) -> Task:
        """E[dx/dv] for the Gaussian variables v of x, in the order of its atoms; 0 where it is not needed.

        Where a derivative is no function (a jump times a function without closed form), all of them by regression.
        """
        atoms = self.e.structure.atoms(x)
        found = []
        try:
            for v, wanted in zip(atoms, needed, strict=True):
                value = (yield (self.e.mean, self.e.structure.derivative(x, v))) if wanted else ZERO
                found.append(value)
        except Declined:
            found = yield from self._regression(x, atoms)
        return tuple(found)

    def _regression(self, x: Node, atoms: tuple[Node, ...]) -> Task:
        """pinv(C) b with C = Cov(v_i, v_j), b_i = Cov(v_i, x): Stein's lemma, derivative-free (Tensor Programs III, remark 2.12).

        By elimination in the order of the atoms; a variable that earlier ones determine has residual variance 0, and
        slope 0.
        """
        d = len(atoms)
        c: dict[tuple[int, int], Node] = {}
        b: list[Node] = []
        whole = yield (self.e.mean, x)
        for i, v in enumerate(atoms):
            product = yield (self.e.mean, algebra.mul([v, x]))
            mean = yield (self.e.mean, v)
            b.append(algebra.add([(1, product), (-1, algebra.mul([mean, whole]))]))
            for j in range(i + 1):
                c[i, j] = yield (self.e.covariance, *ordered(v, atoms[j]))
        for i in range(d):
            for j in range(i + 1, d):
                b[j] = dual("residual", b[j], c[j, i], b[i], c[i, i])
                for k in range(i + 1, j + 1):
                    c[j, k] = dual("residual", c[j, k], c[j, i], c[k, i], c[i, i])
        slopes: dict[int, Node] = {}
        for i in reversed(range(d)):
            rest = algebra.add([(1, b[i]), *[(-1, algebra.mul([c[j, i], slopes[j]])) for j in range(i + 1, d)]])
            slopes[i] = algebra.mul([rest, dual("pinv", c[i, i])])
        return [slopes[i] for i in range(d)]

    # ---- Zdot ----
    def zdot(self, name: str, transposed: bool, x: Node) -> Found | Task:
        """Zdot^{W x} (W.T x if transposed) over var, y the vectors the other direction has multiplied.

        For a nonlinear x = F(u_1, ..), u_i Gaussian, the sum over y of Z^y E[dZ^x/dZhat^y] is sum_i E[dF/du_i] times
        the same
        of u_i: no leaf is enumerated (Tensor Programs III, 2.2, ZDot).
        """
        if x.width is None or ("matrix", name, "" if transposed else "T") not in self.e.structure.facts(x).families:
            return {}
        if is_variable(x):
            return {Multiplied(opened_fully(carried(x, root(x).args[0]))): ONE}
        return self._zdot(name, transposed, x)

    def _zdot(self, name: str, transposed: bool, x: Node) -> Task:
        out: Found = {}

        def collect(coefficient: Node, found: Found, shape: tuple[int, ...]) -> None:
            for z, c in _placed(found, shape, x.shape).items():
                more = algebra.mul([_spread(coefficient, z.sizes), c])
                out[z] = algebra.add([(1, out[z]), (1, more)]) if z in out else more

        match x.op:
            case "add":
                for c, a in zip(x.attr, x.args, strict=True):
                    found = yield (self.zdot, name, transposed, a)
                    collect(algebra.constant(c), found, a.shape)
            case "view" if len(set(x.attr)) == len(x.attr):  # what is under it is known as it is
                found = yield (self.zdot, name, transposed, x.args[0])
                out = _seen(found, x.attr, x.shape)
            case "view" | "take" | "pick":
                found = yield (self.zdot, name, transposed, opened(x))
                collect(ONE, found, x.shape)
            case "sum":
                found = yield (self.zdot, name, transposed, x.args[0])
                collect(ONE, self._summed(found, x.args[0].shape, x.attr), x.shape)
            case "stack":
                parts = []
                for a in x.args:
                    found = yield (self.zdot, name, transposed, a)
                    parts.append(typed(combined(found, a.shape), a.shape, x.width, None))
                out[Multiplied(algebra.stack(parts, x.attr))] = ONE
            case _:
                if self.e.structure.facts(x).stacked:
                    axis = self.e.stack_axis(x)
                    shape = x.shape[:axis] + x.shape[axis + 1 :]
                    parts = []
                    for i in range(x.shape[axis]):
                        found = yield (self.zdot, name, transposed, opened_fully(algebra.take(x, axis, i)))
                        parts.append(typed(combined(found, shape), shape, x.width, None))
                    out[Multiplied(algebra.stack(parts, axis))] = ONE
                    return out
                if self.e.structure.facts(x).affine:  # a deterministic multiple
                    (z,) = [a for a in x.args if self.e.structure.facts(a).families]
                    found = yield (self.zdot, name, transposed, z)
                    collect(scalar_version(algebra.mul(without(factors_of(x), z))), found, z.shape)
                elif self._contraction(x) is not None:
                    found = yield from self._expanded(name, transposed, x)
                    collect(ONE, found, x.shape)
                else:
                    of_atoms = []
                    for v in self.e.structure.atoms(x):
                        found = yield (self.zdot, name, transposed, v)
                        of_atoms.append((found, v.shape))
                    slopes = yield (self.slopes, x, tuple([bool(found) for found, _ in of_atoms]))
                    for slope, (found, shape) in zip(slopes, of_atoms, strict=True):
                        collect(slope, found, shape)
        return {z: c for z, c in out.items() if not c.is_zero and not z.y.is_zero}

    def _summed(self, found: Found, shape: tuple[int, ...], axis: int) -> Found:
        """Of a sum over an axis of that shape: coefficients are summed, and vectors where they vary along it."""
        out: Found = {}
        for (y, sizes), c in found.items():
            whole = (*shape, *sizes)
            if y.shape and axis in self.e.structure.facts(y).support:
                order = [*[i for i in range(len(whole)) if i != axis], axis]
                z = Multiplied(algebra.transpose(y, order), (*sizes, shape[axis]))
                c = algebra.transpose(c, order) if c.shape else c
            else:
                z = Multiplied(algebra.take(y, axis, 0) if y.shape else y, sizes)
                c = algebra.sum_axis(typed(c, whole, None, None), axis)
            out[z] = algebra.add([(1, out[z]), (1, c)]) if z in out else c
        return out

    def _contraction(self, x: Node) -> Node | None:
        """A nonlinear factor of a product that is a sum over an axis, or has one among its terms.

        Its positions are no variables of their own: the product is written out, as it is where its mean is asked for.
        """
        if x.op != "mul":
            return None
        facts = self.e.structure.facts
        for a, k in factors_of(x):
            if k == 1 and a.op in ("add", "sum", *MOVES) and not facts(a).affine and self.e.structure.contracts(a):
                return a
        return None

    def _expanded(self, name: str, transposed: bool, x: Node) -> Task:
        """Of a product with such a factor: term by term, inside the sum."""
        a = self._contraction(x)
        assert a is not None
        rest = without(factors_of(x), a)
        if a.op in MOVES:
            found = yield (self.zdot, name, transposed, algebra.mul([opened(a), *rest]))
            return found
        if a.op == "sum":
            inside = summand(a, x.shape)
            spread = [(spread_along(b, inside.shape[-1]), j) for b, j in rest]
            found = yield (self.zdot, name, transposed, algebra.mul([inside, *spread]))
            return self._summed(found, inside.shape, len(x.shape))
        terms = []
        for c, b in zip(a.attr, a.args, strict=True):
            found = yield (self.zdot, name, transposed, algebra.mul([b, *rest]))
            terms.append((c, typed(combined(found, x.shape), x.shape, x.width, None)))
        return {Multiplied(algebra.add(terms)): ONE}


def combined(found: Found, shape: tuple[int, ...]) -> Node:
    """sum of c Z^y, of what was asked of an expression of that shape."""
    terms: dict[tuple[int, ...], list[tuple[int, Node]]] = {}
    for (y, sizes), c in found.items():
        terms.setdefault(sizes, []).append((1, algebra.mul([c, y])))
    parts = []
    for sizes, products in terms.items():
        total = algebra.add(products)
        if sizes:
            total = typed(total, (*shape, *sizes), products[0][1].width, None)
        for _ in sizes:
            total = algebra.sum_axis(total, len(total.shape) - 1)
        parts.append((1, total))
    return algebra.add(parts) if parts else ZERO


def _seen(found: Found, axes: Sequence[int], shape: tuple[int, ...]) -> Found:
    """Of an expression that is seen along some axes of a shape."""
    last = len(shape)

    def moved(a: Node, sizes: tuple[int, ...]) -> Node:
        return algebra.view(a, [*axes, *range(last, last + len(sizes))], (*shape, *sizes)) if a.shape else a

    return {Multiplied(moved(y, sizes), sizes): moved(c, sizes) for (y, sizes), c in found.items()}


def _placed(found: Found, had: tuple[int, ...], shape: tuple[int, ...]) -> Found:
    """Of an operand of that shape or of none."""
    return found if had == shape else _seen(found, (), shape)


def _spread(c: Node, sizes: tuple[int, ...]) -> Node:
    """A coefficient along further axes."""
    return algebra.view(c, range(len(c.shape)), (*c.shape, *sizes)) if c.shape and sizes else c
