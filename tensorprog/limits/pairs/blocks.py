"""Scalar programs over all pairs of two batches of examples.

A kernel K(x, x') is compiled once, for one example of each batch (`language/data.py:SlotData`); only the inner products of
the data are left open. Here the scalar program is carried out for all pairs at once: what depends on the first example alone
is an array along the rows, what depends on the second along the columns, what depends on both is computed tile by tile, so
that intermediate results stay in the cache and no array larger than the result is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from math import isqrt, prod
from typing import Any

import numpy as np

from tensorprog.arrays.cores import each
from tensorprog.arrays.plan import Plan, schedule
from tensorprog.language.node import Node, topological
from tensorprog.limits.fused.compiled import Fused
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.carried import INTEGRALS, KNOWN, Carried, evaluations, joined
from tensorprog.limits.pairs.lanes import Lanes
from tensorprog.limits.pairs.layout import Block, lifted
from tensorprog.limits.simplify.horner import factored
from tensorprog.limits.simplify.passes import simplified
from tensorprog.limits.simplify.stencil import with_diagonals_inside, with_stencils
from tensorprog.limits.simplify.sums import gathered, summed_early
from tensorprog.limits.simplify.transposition import with_transpositions_outside

__all__ = ["Batched", "mirrored"]

Array = np.ndarray
TILE = 2**16
"""Entries of the largest array of a tile."""
FEW, LARGEST = 64, 2**18
"""Arrays with axes have this many pairs in a tile, up to so many entries: each instruction has a cost of its own."""
PARALLEL = 2**18
"""Threads wait for each other between instructions, which costs more than it brings where there are fewer entries."""
NOTHING = np.empty(0)
Bounds = tuple[int, int, int, int]
"""Of a tile: rows from, to, columns from, to."""
MIRROR = 64
"""Rows of a tile of a symmetric result: what is evaluated on both sides of the diagonal is little."""


class Batched:
    """Scalars that depend on one example of each of two batches, ready to be evaluated for all pairs.

    Args:
        outputs: Scalar programs whose data are `data` nodes, of any shape.

    Attributes:
        data: The `data` nodes.
        integrals: The integrals by quadrature or sampling.
        others: Operations that have no meaning here.
        fused: The same as one loop, where there is a compiler and every instruction has source.
    """

    def __init__(self, outputs: Sequence[Node]) -> None:
        self.shapes = [x.shape for x in outputs]
        outputs = with_transpositions_outside(summed_early(simplified(gathered(with_transpositions_outside(outputs)))))
        found = lifted(outputs)
        self.outputs = factored(with_stencils(with_diagonals_inside([found[x] for x in outputs])))
        self.data = [x for x in topological(outputs) if x.op == "data"]
        self.fused = Fused.of(self.outputs)
        steps = schedule([*self.outputs, *(self.fused.needs if self.fused else ())], moments=False)
        self.once: dict[tuple[bool, bool], list[Carried]] = {(r, c): [] for r in (0, 1) for c in (0, 1)}  # type: ignore[misc]
        for step in steps:
            x = step.node
            self.once[x.width is not None, x.inner is not None].append(Carried(step))
        self.integrals = [s.node for s in steps if s.node.op in INTEGRALS]
        self.guards = {s.node for s in steps if s.node.op == "guard"}
        self.others = sorted({s.node.op for s in steps if s.compute is None and s.node.op not in KNOWN})
        for part in self.once.values():
            joined(part)
        self.pairs = self.once.pop((True, True))
        self.plan = Plan(self.pairs, set(self.outputs))
        # the largest array of a pair decides how many pairs a tile has
        self.depth = max([prod(s.node.shape) for s in self.pairs if s.node.op != "data"], default=1)

    @cached_property
    def lanes(self) -> Lanes:
        """The same for a list of pairs."""
        return Lanes(self.outputs)

    def gave_way(self, call: Call) -> bool:
        """Has a closed form that cancels been replaced by its integral?"""
        return not self.guards.isdisjoint(call.integrated)

    def integrates(self, call: Call) -> bool:
        """Is anything integrated, as far as is known from what has been evaluated?"""
        return bool(self.integrals) or self.gave_way(call)

    def two_rules(self, call: Call) -> bool:
        """Are all integrals found by one rule, a series or one without bounds, and by another where numbers are moved?"""
        steps = [*self.pairs, *[s for part in self.once.values() for s in part]]
        return not self.gave_way(call) and all(
            s.product is not None or (s.node.attr.dimension == 1 and s.node.attr.bounded.analytic)
            for s in steps
            if s.node.op in INTEGRALS
        )

    @property
    def weight(self) -> float:
        """Entries that are computed for a pair, or for an example if there are no pairs, where there are few of them.

        Of arrays, and of integrands.
        """
        steps = self.pairs or [s for part in self.once.values() for s in part]
        return 1.0 + sum([prod(s.node.shape) * evaluations(s, few=True) for s in steps])

    def evaluations(self, pairs: int, examples: int) -> float:
        """Of integrands, for some pairs of examples and the examples themselves, roughly."""
        parts = [s for part in self.once.values() for s in part if s.node.op in INTEGRALS]
        once = sum([prod(s.node.shape) * evaluations(s) for s in parts])
        return (
            pairs * sum([prod(s.node.shape) * evaluations(s) for s in self.pairs if s.node.op in INTEGRALS])
            + examples * once
        )

    def run(self, block: Block, level: int = 1, call: Call | None = None) -> list[Array]:
        """The outputs for a block of pairs, each of shape (*axes, rows, columns).

        Args:
            block: The data.
            level: Resolution of integrals.
            call: What it belongs to.
        """
        call = call or Call()
        n, m = block.rows, block.columns
        values: dict[Node, Array] = {}
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=call.strain):
            for s in [s for part in self.once.values() for s in part]:
                if s.node in values:
                    continue
                if s.node.op == "data":
                    values[s.node] = np.asarray(block.products[s.node.attr])
                elif s.partner is not None:
                    values[s.node], values[s.partner] = s.joint(*[values[a] for a in s.operands])
                else:
                    values[s.node] = s.compute([values[a] for a in s.operands], call, level, alone=True)
            series = {
                s.node: s.series([values.get(a, NOTHING) for a in s.node.args], n, m, level)
                for s in self.pairs
                if s.product is not None
            }
            out = [np.empty((*shape, n, m)) for shape in self.shapes]
            for x, full in zip(self.outputs, out, strict=True):
                if x in values:
                    full[...] = _spread(values[x], x)
            pairs = max(1, TILE // self.depth, min(FEW, LARGEST // self.depth))
            tiles = list(_tiles(n, m, pairs, block.symmetric))
            if self._in_one_loop(block, values, tiles, out, call):
                return out
            given = [values[a] for a in self.plan.given]
            results = [(self.plan.slots[x], full) for x, full in zip(self.outputs, out, strict=True) if x not in values]

            def tile(bounds: Bounds) -> None:
                self._tile(bounds, block, given, series, results, level, call)
                if block.symmetric:
                    _mirror(bounds, out)

            each(tile, tiles, n * m * self.depth // (2 if block.symmetric else 1) >= PARALLEL)
        return out

    def _in_one_loop(
        self, block: Block, values: Mapping[Node, Array], tiles: Sequence[Bounds], out: list[Array], call: Call
    ) -> bool:
        """All tiles by compiled code, if that pays; what is not finite is left to those that say why."""
        n, m = block.rows, block.columns
        if self.fused is None or not self.fused.ready(n * m, call.fast) or not self.fused.fits(values):
            return False
        results = dict(zip(self.outputs, out, strict=True))
        arguments = self.fused.arguments(values, block.products, results, n, m)

        def tile(bounds: Bounds) -> bool:
            assert self.fused is not None
            self.fused.tile(bounds, arguments)
            if block.symmetric:
                _mirror(bounds, out)
            low, high, left, right = bounds
            return all([bool(np.isfinite(x[low:high, left:right]).all()) for x in out])

        return all(each(tile, tiles, n * m * self.fused.code.work >= PARALLEL))

    def _tile(
        self,
        bounds: Bounds,
        block: Block,
        given: Sequence[Array],
        series: Mapping[Node, Any],
        results: Sequence[tuple[int, Array]],
        level: int,
        call: Call,
    ) -> None:
        low, high, left, right = bounds
        unwanted = None if block.unwanted is None else block.unwanted[low:high, left:right]
        local: list[Any] = [None] * len(self.plan.slots)
        for k, (a, found) in enumerate(zip(self.plan.given, given, strict=True)):
            local[k] = _part(found, left, right) if a.inner else _part(found, low, high) if a.width else found
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=call.strain):
            for s, place in zip(self.pairs, self.plan.places, strict=True):
                if local[place.target] is None:
                    arrays = [local[k] for k in place.sources]
                    if s.node.op == "data":
                        local[place.target] = block.products[s.node.attr][..., low:high, left:right]
                    elif s.product is not None:
                        cov = np.broadcast_to(arrays[3], (high - low, right - left))
                        local[place.target] = series[s.node](slice(low, high), slice(left, right), cov)
                    elif s.partner is not None:
                        local[place.target], local[self.plan.slots[s.partner]] = s.joint(*arrays)
                    elif s.kernel is not None:
                        local[place.target] = s.kernel(*arrays)
                    else:
                        local[place.target] = s.compute(arrays, call, level, unwanted)
                for k in place.frees:
                    local[k] = None
        for slot, full in results:
            full[..., low:high, left:right] = local[slot]


def _part(a: Array, low: int, high: int) -> Array:
    """Some examples of an array that has them last."""
    return a[..., low:high] if a.shape[-1] > 1 else a


def _spread(a: Array, x: Node) -> Array:
    """What depends on one batch at most, with rows and columns."""
    a = np.asarray(a)
    return a[..., None, :] if x.inner else a[..., None] if x.width else a[..., None, None]


def _tiles(n: int, m: int, pairs: int, symmetric: bool) -> Iterator[Bounds]:
    """Tiles (rows from, to, columns from, to) of at most the given number of pairs; on and above the diagonal if symmetric."""
    # few rows and many columns: what is along rows is repeated over columns in the innermost loop
    height = min(n, max(1, min(isqrt(pairs) // 2, MIRROR) if symmetric else pairs // m))
    width = max(1, pairs // height)
    for low in range(0, n, height):
        high = min(n, low + height)
        start = low if symmetric else 0
        count = -(-(m - start) // width)  # of about equal widths
        step = -(-(m - start) // count)
        for left in range(start, m, step):
            yield low, high, left, min(m, left + step)


def _mirror(bounds: Bounds, out: list[Array]) -> None:
    """Fills in what lies below the diagonal opposite to a tile, while the tile is in the cache.

    K(x', x) is the transpose of K(x, x'), which matters where a network has several outputs.
    """
    low, high, left, right = bounds
    for full in out:
        turned = full.T if full.ndim == 2 else full.swapaxes(0, 1).swapaxes(2, 3)
        if left < high:  # a tile on the diagonal
            i, j = _below(min(high, right) - left, left - low)
            full[..., low + i, low + j] = turned[..., low + i, low + j]
        start = max(left, high)
        if start < right:
            full[..., start:right, low:high] = turned[..., start:right, low:high]


def mirrored(out: list[Array]) -> None:
    """Fills in what lies below the diagonal of whole symmetric results."""
    size = out[0].shape[-1]
    _mirror((0, size, 0, size), out)


@cache
def _below(size: int, ahead: int) -> tuple[Array, Array]:
    """Positions (i, j), j < i, whose mirror image is in the columns ahead, .., ahead + size - 1."""
    i, j = np.tril_indices(size + ahead, -1)
    return i[i >= ahead], j[i >= ahead]
