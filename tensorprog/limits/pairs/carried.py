"""How the instructions of a compiled kernel are carried out, whatever the layout: their arrays from those of their operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tensorprog.arrays.elementwise import aligned
from tensorprog.arrays.plan import Step
from tensorprog.language.node import Node
from tensorprog.limits.evaluate import integrals
from tensorprog.limits.evaluate.settle import settled_by
from tensorprog.limits.gauss.duals import DUALS, JOINT
from tensorprog.limits.gauss.pairseries import PairProduct
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.layout import reversed_variables, separates, with_axes

__all__ = ["INTEGRALS", "INTEGRATED", "KNOWN", "Carried", "evaluations", "joined"]

Array = np.ndarray
INTEGRALS = ("gauss",)
INTEGRATED = ("guard", *INTEGRALS)
KNOWN = ("data", "dual", "stencil", *INTEGRATED)
POINTS = {0: 1, 1: 2**8, 2: 2**13, 3: 2**18, 4: 2**18}
"""Values of an integrand that its integral takes, roughly, by dimension."""
SERIES = 2**6
"""Terms of a series in place of an integral."""


class Carried:
    """One step.

    Args:
        step: As scheduled.
        grid: Its node with rows and columns, if it is laid out in another way.

    Attributes:
        origin: Its node with rows and columns.
        kernel: Its array from its operands' arrays; None for integrals and data.
        product: The integrand as a product of one function of each of two variables, the first one the row's, the second the
            column's, or the other way round.
        partner: A closed form of the same operands that comes later and is cheaper together with this one.
        joint: Both arrays.
    """

    def __init__(self, step: Step, grid: Node | None = None) -> None:
        x = step.node
        self.node, self.operands, self.origin = x, step.operands, grid or x
        self.partner: Node | None = None
        self.joint: Callable[..., Any] = lambda *_: None
        self.kernel: Callable[..., Any] | None = step.compute
        self.product = PairProduct.of(x.attr) if x.op in INTEGRALS and separates(self.origin) else None
        if x.op == "dual":
            self.kernel = aligned(DUALS[x.attr].array, x)
        elif x.op == "stencil":
            self.kernel = aligned(x.attr, x)

    def series(self, arrays: Sequence[Array], rows: int, columns: int, level: int) -> Any:
        """The integral's values tile by tile, from a series whose coefficients are computed along rows and columns.

        Args:
            arrays: Of its operands; the covariance is not looked at.
            rows: Examples of the first batch.
            columns: Of the second.
            level: Resolution.
        """
        assert self.product is not None
        first, second = [[arrays[i].reshape(-1) for i in pair] for pair in ((0, 2), (1, 4))]
        if not reversed_variables(self.node):
            return self.product.tiled(first, second, (rows, columns), level)
        tile = self.product.tiled(first, second, (columns, rows), level)
        return lambda i, j, cov: tile(j, i, cov.T).T

    def compute(
        self, arrays: Sequence[Array], call: Call, level: int, unwanted: Array | None = None, alone: bool = False
    ) -> Array:
        """Its array from its operands' arrays.

        Args:
            arrays: Of the operands.
            call: What it belongs to.
            level: Resolution of integrals.
            unwanted: Entries that nobody looks at.
            alone: Is it of single examples?
        """
        if self.node.op in INTEGRATED:
            full = [with_axes(a, y, self.node) for a, y in zip(arrays, self.operands, strict=True)]
            return self.integrated(full, call, level, unwanted, alone)
        assert self.kernel is not None, f"no scalar rule for {self.node.op}: please report this"
        return np.asarray(self.kernel(*arrays))

    def integrated(
        self,
        full: Sequence[Array],
        call: Call,
        level: int,
        unwanted: Array | None = None,
        alone: bool = False,
        rough: bool = False,
        absolute: bool = False,
    ) -> Array:
        """An integral, or a guarded closed form, of arrays that broadcast.

        Args:
            full: Arrays of the operands.
            call: What it belongs to.
            level: Resolution.
            unwanted: Entries that nobody looks at.
            alone: Is it of single examples? What is known of these is not integrated again.
            rough: May covariances be none, by rounding?
            absolute: Without signs.
        """
        x = self.node
        if x.op == "guard":
            integrate = partial(integrals.integrate_arrays, level=level, rough=rough, budget=call.budget)
            result, integrated = settled_by(x, full, integrate, unwanted)
            if integrated:
                call.integrated.add(self.origin)
            return np.asarray(result)
        if alone:
            return call.integral(x, full, level)
        return integrals.integrate_arrays(x, full, level, rough, absolute, budget=call.budget)


def evaluations(s: Carried, few: bool = False) -> int:
    """Of an integrand, for one integral of many, or of few; 1 of what is none."""
    if s.node.op not in INTEGRALS:
        return 1
    return SERIES if s.product is not None and not few else POINTS[min(s.node.attr.dimension, 4)]


def joined(steps: list[Carried]) -> list[Carried]:
    """The steps, pairs of closed forms that are cheaper together marked at the one that comes first."""
    by_operands: dict[tuple[Node, ...], list[Carried]] = {}
    for s in steps:
        if s.node.op == "dual":
            by_operands.setdefault(s.node.args, []).append(s)
    for found in by_operands.values():
        for names, function in JOINT.items():
            both = [next((s for s in found if s.node.attr == name), None) for name in names]
            if None not in both:
                a, b = both
                first = next(s for s in steps if s is a or s is b)
                turned = first is b
                first.partner = (a if turned else b).node  # type: ignore[union-attr]
                joint: Any = partial(_turned, function) if turned else function
                first.joint = aligned(joint, first.node)
    return steps


def _turned(function: Any, *arrays: Any) -> Any:
    """The two results in the other order."""
    return function(*arrays)[::-1]
