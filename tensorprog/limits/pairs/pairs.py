"""The limits of all pairs of two batches of examples: measured on few pairs, carried out for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt, prod

import numpy as np

from tensorprog.limits.budget import Budget
from tensorprog.limits.pairs.accuracy import Measured, measure
from tensorprog.limits.pairs.blocks import Batched, mirrored
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.compiled import Compiled
from tensorprog.limits.pairs.inner_products import GramProducts, Products
from tensorprog.limits.pairs.layout import Block

__all__ = ["BLOCK", "COUNTED", "SHARP", "Pairs"]

BLOCK = 2**24
"""Inner products that are in memory together: pairs of examples, times those of positions."""
SHARP = 1e-10
"""Relative error up to which quadrature, compared with bounds on telling examples, is used for all of them, and up to which
`tp.limit` is content with pairs of examples and does not compute entry by entry, too."""

COUNTED = 3
"""How many times the budget's evaluations integrals may really take: what is announced is rough."""

Array = np.ndarray
Range = tuple[slice, slice]


class Pairs:
    """The examples of two batches, and what is evaluated for all pairs of them, once.

    Attributes:
        products: Their inner products.
        compiled: What is evaluated.
        measured: Its errors.
        call: What this evaluation has found out.
        fast: Is compiled code wanted? See `Call`.
    """

    def __init__(self, products: Products | GramProducts, compiled: Compiled, fast: bool | None = None) -> None:
        self.products, self.compiled, self.fast = products, compiled, fast
        self.measured: Measured
        self.call = Call(compared=True, fast=fast)

    @property
    def evaluations(self) -> float:
        """Of integrands, by the exact route."""
        n, m = self.products.counts
        pairs = n * (n + 1) // 2 if self.products.same else n * m
        return self.compiled.evaluations(pairs, n)

    @property
    def programs(self) -> tuple[Batched, Batched]:
        """For two examples, and for one."""
        assert self.compiled.pair is not None and self.compiled.same is not None
        return self.compiled.pair, self.compiled.same

    @property
    def cancelled(self) -> bool:
        """Have closed forms given way to integrals?"""
        return any(c.gave_way(self.call) for c in self.programs)

    @property
    def method(self) -> str:
        """How it is computed: "quadrature" if anything is integrated."""
        return "quadrature" if any(c.integrates(self.call) for c in self.programs) else "closed form"

    def measure(self, names: Sequence[str], budget: Budget) -> None:
        """Measures errors; from now on integrals are counted.

        Raises:
            Exhausted: They cost more than the budget has.
        """
        self.call = Call(budget, compared=True, fast=self.fast)
        self.measured = measure(*self.programs, self.products, names, self.compiled.several, self.call)
        if self.call.has_integrals and max(self.measured.visible.values()) > SHARP:  # with bounds for all examples
            first, strained = self.measured, self.call.strained
            self.call = Call(budget, fast=self.fast)
            self.call.strained = strained
            self.measured = measure(*self.programs, self.products, names, self.compiled.several, self.call)
            self.measured.pairs += first.pairs

    @property
    def blocks(self) -> list[Range]:
        """Blocks of at most `BLOCK` inner products, as square as possible; those on and above the diagonal of one batch."""
        n, m = self.products.counts
        same = self.products.same
        deep = max([prod(x.shape) for x in self.programs[0].data if x.attr.slot != x.attr.slot2], default=1)
        pairs = max(1, BLOCK // deep)
        side = isqrt(pairs)
        if n * m <= pairs:
            return [(slice(0, n), slice(0, m))]
        rows = [slice(i, min(n, i + side)) for i in range(0, n, side)]
        columns = rows if same else [slice(j, min(m, j + side)) for j in range(0, m, side)]
        return [(r, c) for r in rows for c in columns if not same or c.start >= r.start]

    def evaluated(self, rows: slice, columns: slice) -> list[Array]:
        """The outputs of a block, (.., rows, columns); entries of an example with itself by the program of one example."""
        symmetric = self.products.same and rows == columns
        whole = len(range(self.products.counts[0])[rows]), len(range(self.products.counts[1])[columns])
        values = self.measured.values if whole == self.products.counts else None
        found, alone = values or self._block(rows, columns, symmetric)
        if symmetric:
            for x, d in zip(found, alone, strict=True):
                k = np.arange(x.shape[-1])
                x[..., k, k] = d[..., 0]
            if values:
                mirrored(found)
        return found

    def _block(self, rows: slice, columns: slice, symmetric: bool) -> tuple[list[Array], list[Array]]:
        """The outputs of a block, and those of each example alone where it is on the diagonal."""
        pair, same = self.programs
        p = self.products
        block = p.block(pair.data, rows, columns)
        if symmetric and pair.guards:
            block = replace(block, unwanted=np.eye(block.rows, dtype=bool))
        found = pair.run(block, call=self.call)
        if not symmetric:
            return found, []
        own = p.block(same.data, rows, rows)
        return found, same.run(Block(own.products, own.rows, 1), call=self.call)
