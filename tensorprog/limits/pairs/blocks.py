"""Scalar programs over all pairs of two batches of examples.

A kernel K(x, x') is compiled once, for one example of each batch (`language/data.py:SlotData`); only the inner products of
the data are left open. Here the scalar program is carried out for all pairs at once: what depends on the first example alone
is an array along the rows, what depends on the second along the columns, what depends on both is computed tile by tile, so
that intermediate results stay in the cache and no array larger than the result is ever made. Rows and columns take the part
that width and inner width have in the arrays of an executor (`arrays/elementwise.py`): axes first, then rows, then columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import isqrt, prod
from typing import Any

import numpy as np

from tensorprog.arrays.cores import each
from tensorprog.arrays.elementwise import aligned
from tensorprog.arrays.plan import schedule
from tensorprog.language.node import Node, topological
from tensorprog.limits.evaluate.alike import Trace
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.gauss.duals import CORRELATED, apart_by_rounding
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.carried import INTEGRALS, KNOWN, Carried, evaluations, joined
from tensorprog.limits.pairs.layout import Block, lifted
from tensorprog.limits.simplify.horner import factored
from tensorprog.limits.simplify.passes import simplified
from tensorprog.limits.simplify.stencil import with_stencils
from tensorprog.limits.simplify.sums import summed_early
from tensorprog.limits.simplify.transposition import with_transpositions_outside

__all__ = ["Batched", "mirrored"]

Array = np.ndarray
TILE = 2**16
"""Entries of the largest array of a tile."""
FEW, LARGEST = 64, 2**18
"""Arrays with axes have this many pairs in a tile, up to so many entries: each instruction has a cost of its own."""
PARALLEL = 2**18
"""Threads wait for each other between instructions, which costs more than it brings where there are fewer entries."""
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
    """

    def __init__(self, outputs: Sequence[Node]) -> None:
        self.shapes = [x.shape for x in outputs]
        outputs = with_transpositions_outside(summed_early(simplified(with_transpositions_outside(outputs))))
        found = lifted(outputs)
        self.outputs = factored(with_stencils([found[x] for x in outputs]))
        self.data = [x for x in topological(outputs) if x.op == "data"]
        steps = schedule(self.outputs, moments=False)
        self.once: dict[tuple[bool, bool], list[Carried]] = {(r, c): [] for r in (0, 1) for c in (0, 1)}  # type: ignore[misc]
        for step in steps:
            x = step.node
            self.once[x.width is not None, x.inner is not None].append(Carried(step))
        self.integrals = [s.node for s in steps if s.node.op in INTEGRALS]
        self.guards = {s.node for s in steps if s.node.op == "guard"}
        self.others = sorted({s.node.op for s in steps if s.compute is None and s.node.op not in KNOWN})
        self.pairs = joined(self.once.pop((True, True)))
        self._plan()
        # the largest array of a pair decides how many pairs a tile has
        self.depth = max([prod(s.node.shape) for s in self.pairs if not s.is_data], default=1)

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

    def _plan(self) -> None:
        """Numbers what a tile holds: a lookup of a node costs as much as a small array's arithmetic, and threads wait for it."""
        slots: dict[Node, int] = {}
        inside = {s.node for s in self.pairs}
        self.given: list[tuple[int, Node]] = []
        for s in self.pairs:
            for a in s.operands:
                if a not in inside and a not in slots:  # along rows, along columns, or neither
                    slots[a] = len(slots)
                    self.given.append((slots[a], a))
        for s in self.pairs:
            slots[s.node] = len(slots)
        last: dict[Node, int] = {}
        for k, s in enumerate(self.pairs):
            for a in (*s.operands, s.node):
                last[a] = k
        wanted = set(self.outputs)
        for k, s in enumerate(self.pairs):
            s.target, s.sources = slots[s.node], [slots[a] for a in s.operands]
            s.partner_target = None if s.partner is None else slots[s.partner]
            dead = {*s.operands, s.node}
            s.frees = [slots[a] for a in dead if last[a] == k and a in inside and a not in wanted]
        self.results = [slots.get(x) if x in inside else None for x in self.outputs]
        by_node = {s.node: s for s in self.pairs}
        for s in self.pairs:
            if s.node.op != "dual" or s.node.attr not in CORRELATED:
                continue
            a, c, b = s.node.args[-3:]
            if c in by_node and a not in inside and b not in inside and c.shape == s.node.shape:
                by_node[c].edges.append(
                    (
                        slots[a],
                        slots[b],
                        aligned(apart_by_rounding, Node("dual", (a, c, b), "", c.shape, c.width, c.inner)),
                    )
                )
                s.edged = True
        self.count = len(slots)

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

    def run(
        self,
        block: Block,
        noise: Perturbation | None = None,
        level: int = 1,
        dtype: Any = float,
        trace: Trace | None = None,
        call: Call | None = None,
    ) -> list[Array]:
        """The outputs for a block of pairs, each of shape (*axes, rows, columns).

        Args:
            block: The data.
            noise: Moves every result by a rounding error; then integrals are quadrature with bounds, or nested.
            level: Resolution of integrals.
            dtype: float64, or float32 for speed.
            trace: Where correlations are 1; filled without noise, and with noise they stay so.
            call: What it belongs to.
        """
        call = call or Call()
        values: dict[Node, Array] = {}
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=call.strain):
            for part in self.once.values():
                for s in part:
                    values[s.node] = s.value(values, block, noise, level, dtype, trace, call)
            n, m = block.rows, block.columns
            series = {
                s.node: s.series(values, block, level) for s in self.pairs if s.product is not None and noise is None
            }
            out = [np.empty((*shape, n, m), dtype) for shape in self.shapes]
            done = {s.node for s in self.pairs}
            for x, full in zip(self.outputs, out, strict=True):
                if x not in done:
                    known = np.asarray(values[x])
                    if x.inner is None:
                        known = known[..., None] if x.width is not None else known[..., None, None]
                    full[...] = known if x.width is not None or x.inner is None else known[..., None, :]
            symmetric = block.symmetric and noise is None
            pairs = max(1, TILE // self.depth, min(FEW, LARGEST // self.depth))
            tiles = list(_tiles(n, m, pairs, symmetric))
            total = n * m * self.depth // (2 if symmetric else 1)

            def tile(bounds: tuple[int, int, int, int]) -> None:
                self._tile(bounds, block, values, series, out, noise, level, dtype, trace, call)
                if symmetric:
                    _mirror(bounds, out)

            each(tile, tiles, noise is None and trace is None and total >= PARALLEL)
        return out

    def _tile(
        self,
        bounds: tuple[int, int, int, int],
        block: Block,
        known: dict[Node, Array],
        series: Mapping[Node, Any],
        out: list[Array],
        noise: Perturbation | None,
        level: int,
        dtype: Any,
        trace: Trace | None,
        call: Call,
    ) -> None:
        low, high, left, right = bounds
        rough = block.rough
        unwanted = None if block.unwanted is None else block.unwanted[low:high, left:right]
        local: list[Any] = [None] * self.count
        for slot, a in self.given:
            found = known[a]
            if a.inner is not None:
                found = found[..., left:right] if found.shape[-1] > 1 else found
            elif a.width is not None:
                found = found[..., low:high] if found.shape[-1] > 1 else found
            local[slot] = found
        with np.errstate(over="call", under="call", divide="ignore", invalid="ignore", call=call.strain):
            for s in self.pairs:
                if s.is_data:
                    given = np.asarray(block.products[s.node.attr][..., low:high, left:right], dtype)
                    local[s.target] = given if noise is None else noise.result(s.node, given)
                elif s.node in series:
                    cov = np.broadcast_to(local[s.sources[3]], (high - low, right - left))
                    local[s.target] = series[s.node](slice(low, high), slice(left, right), cov)
                elif s.partner_target is not None and noise is None and trace is None:
                    local[s.target], local[s.partner_target] = s.joint(*[local[k] for k in s.sources])
                elif local[s.target] is None:
                    arrays = [local[k] for k in s.sources]
                    if noise is None and trace is None and s.kernel is not None:
                        local[s.target] = s.kernel(*arrays)
                    else:
                        local[s.target] = s.compute(arrays, noise, level, rough, trace, call, bounds, unwanted)
                if noise is not None and noise.apart:
                    for one, other, move in s.edges:
                        local[s.target] = move(local[one], local[s.target], local[other])
                for k in s.frees:
                    local[k] = None
        for slot_of_result, full in zip(self.results, out, strict=True):
            if slot_of_result is not None:
                full[..., low:high, left:right] = local[slot_of_result]


def _tiles(n: int, m: int, pairs: int, symmetric: bool) -> Iterator[tuple[int, int, int, int]]:
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


def _mirror(bounds: tuple[int, int, int, int], out: list[Array]) -> None:
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
