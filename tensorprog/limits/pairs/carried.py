"""How one instruction is carried out for many pairs of examples: its array from those of its operands, moved if need be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tensorprog.arrays.elementwise import aligned
from tensorprog.arrays.plan import Step
from tensorprog.language.node import Node
from tensorprog.limits.evaluate.alike import Trace
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.evaluate.settle import settled_by
from tensorprog.limits.gauss.duals import DUALS, JOINT, unsnapped
from tensorprog.limits.gauss.pairseries import PairProduct
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.layout import Block, with_axes

__all__ = ["INTEGRALS", "KNOWN", "Carried", "evaluations", "joined"]

Array = np.ndarray
INTEGRALS = ("gauss",)
KNOWN = ("data", "dual", "stencil", "guard", *INTEGRALS)
POINTS = {0: 1, 1: 2**8, 2: 2**13, 3: 2**18, 4: 2**18}
"""Values of an integrand that its integral takes, roughly, by dimension."""
SERIES = 2**6
"""Terms of a series in place of an integral."""


class Carried:
    """One step of a batched program."""

    def __init__(self, step: Step) -> None:
        self.node, self.operands = step.node, step.operands
        self.is_data = step.node.op == "data"
        self.target = 0  # slots, see `Batched._plan`
        self.sources: list[int] = []
        self.frees: list[int] = []
        self.partner_target: int | None = None
        self.edges: list[tuple[int, int, Any]] = []  # the variances that it is a covariance to, see `apart_by_rounding`
        self.edged = False
        self.partner: Node | None = None  # a closed form of the same operands that is cheaper together with this one
        self.joint: Callable[..., Any] = lambda *_: None
        x = step.node
        self.kernel: Callable[..., Any] | None = step.compute
        self.product = PairProduct.of(x.attr) if x.op in INTEGRALS and _separates(x) else None
        if x.op == "dual":
            self.kernel = aligned(DUALS[x.attr].array, x)
            self._unsnapped = aligned(partial(unsnapped, x.attr), x)
        elif x.op == "stencil":
            self.kernel = aligned(x.attr, x)

    def value(
        self,
        values: Mapping[Node, Array],
        block: Block,
        noise: Perturbation | None,
        level: int,
        dtype: Any,
        trace: Trace | None,
        call: Call,
    ) -> Array:
        """Its array along rows, along columns, or neither."""
        if self.is_data:
            given = np.asarray(block.products[self.node.attr], dtype)
            return given if noise is None else np.asarray(noise.result(self.node, given))
        result = np.asarray(
            self.compute(
                [values[a] for a in self.operands],
                noise,
                level,
                block.rough or noise is not None,
                trace,
                call,
                alone=noise is None,
            )
        )
        return result.astype(dtype, copy=False)

    def series(self, values: Mapping[Node, Array], block: Block, level: int) -> Any:
        """The integral's values tile by tile, from a series whose coefficients are computed along rows and columns."""
        assert self.product is not None
        first, second = [[values[self.node.args[i]].reshape(-1) for i in pair] for pair in ((0, 2), (1, 4))]
        turned = _reversed(self.node)  # the first variable is the columns'
        shape = (block.columns, block.rows) if turned else (block.rows, block.columns)
        tile = self.product.tiled(first, second, shape, level)
        rough = block.rough

        def of(i: slice, j: slice, cov: Array) -> Array:
            if rough:
                one, two = [np.sqrt(np.maximum(v, 0.0)) for v in (first[1], second[1])]
                most = np.multiply.outer(one[i] if len(one) > 1 else one, two[j] if len(two) > 1 else two)
                cov = np.clip(cov, -most, most)
            return np.asarray(tile(i, j, cov))

        return (lambda i, j, cov: of(j, i, cov.T).T) if turned else of

    def compute(
        self,
        arrays: Sequence[Array],
        noise: Perturbation | None,
        level: int,
        rough: bool,
        trace: Trace | None,
        call: Call,
        bounds: Any = None,
        unwanted: Array | None = None,
        alone: bool = False,
    ) -> Array:
        """Its array from its operands' arrays."""
        x = self.node
        if x.op in (*INTEGRALS, "guard"):
            from tensorprog.limits.evaluate.scalar import integrate_arrays

            full = [with_axes(a, y, x) for a, y in zip(arrays, self.operands, strict=True)]
            if x.op == "guard":
                integrate = partial(integrate_arrays, level=level, rough=rough or noise is not None, budget=call.budget)
                result, integrated = settled_by(x, full, integrate, unwanted)
                if integrated:
                    call.integrated.add(x)
                return np.asarray(result if noise is None else noise.result(x, np.asarray(result)))
            if alone:
                return call.integral(x, full, level, rough)
            result = integrate_arrays(x, full, level, rough or noise is not None, budget=call.budget)
            if noise is not None:  # an integral that cancels has the rounding of what cancels
                size = None if trace is None else trace.sizes.get((x, bounds))
                if size is None:
                    size = integrate_arrays(x, full, 0, True, absolute=True, budget=call.budget)
                if trace is not None:
                    trace.sizes[x, bounds] = size
                result = result + (noise.result(x, size) - size)
            return np.asarray(result)
        assert self.kernel is not None, f"no scalar rule for {x.op}: please report this"
        given = arrays if noise is None else noise.operands(x, arrays)
        both = x.width is not None and x.inner is not None
        apart = x.op == "dual" and noise is not None and noise.apart and both
        kernel = self._unsnapped if apart and not self.edged else self.kernel
        if trace is not None and x.op == "dual" and not apart:
            kernel = aligned(partial(trace.value, x, bounds, noise is not None), x)
        result = kernel(*given)
        return np.asarray(result if noise is None else noise.result(x, np.asarray(result)))


def evaluations(s: Carried, few: bool = False) -> int:
    """Of an integrand, for one integral of many, or of few; 1 of what is none."""
    if s.node.op not in INTEGRALS:
        return 1
    return SERIES if s.product is not None and not few else POINTS[min(s.node.attr.dimension, 4)]


def _separates(x: Node) -> bool:
    """Is it an integral over two variables, one that depends on the row and one that depends on the column?"""
    if x.shape or x.width is None or x.inner is None or x.attr.dimension != 2 or len(x.args) != 5:
        return False
    kinds = [(a.width is not None, a.inner is not None) for a in x.args]
    first, second = {kinds[0], kinds[2]}, {kinds[1], kinds[4]}
    none = (False, False)
    return any(
        a <= {none, one} and b <= {none, other}
        for a, b in ((first, second), (second, first))
        for one, other in (((True, False), (False, True)),)
    )


def _reversed(x: Node) -> bool:
    return any(x.args[i].inner is not None for i in (0, 2)) or any(x.args[i].width is not None for i in (1, 4))


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
