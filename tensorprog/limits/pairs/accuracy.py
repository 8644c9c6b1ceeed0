"""How good the kernels of two batches are, measured on few pairs of examples before all are computed.

Closed forms may cancel and quadrature may not resolve, in ways that depend on the data: on the variances and correlations that
the network makes of them. A compiled kernel is therefore evaluated again, moved by rounding errors and at other resolutions,
for pairs that tell: the largest and the smallest examples and some between, the closest ones, the most and the least
correlated ones, and, where that is cheap, for all of the diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt

import numpy as np

from tensorprog.language.functions import NORMAL
from tensorprog.limits.evaluate.alike import Trace
from tensorprog.limits.evaluate.perturb import Perturbation
from tensorprog.limits.evaluate.wide import FLOOR
from tensorprog.limits.gauss.rounding import NOISE
from tensorprog.limits.pairs.blocks import Batched
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.inner_products import GramProducts, Products
from tensorprog.limits.pairs.layout import Block

__all__ = ["AccuracyWarning", "Measured", "measure"]

Array = np.ndarray
MOST = 64
"""Pairs that are looked at."""
FEWEST = 4
"""Pairs that are looked at even where each is expensive."""
SHARE = 1 / 16
"""Of the cost of all pairs, where that is much."""
CHEAP = 2**14
"""Entries of intermediate arrays that are little."""
CANDIDATES = 128
"""Examples among which the most and the least correlated ones are sought."""
COARSE = 1e-4
"""Part of the difference to the coarse resolution of integrals that is taken for an error of the fine one."""
UNSEEN = 1e-12
"""Relative size of entries that are 0 beside the largest one."""


class AccuracyWarning(UserWarning):
    """A kernel is not known as well as was asked."""


@dataclass
class Measured:
    """Errors of kernels, on the pairs looked at.

    Attributes:
        error: Name of a kernel to the largest error of an entry.
        relative: Name to the largest error of an entry K(x, x'), in units of sqrt(K(x, x) K(x', x')).
        visible: The same, entries that are 0 beside the largest one left out.
        worst: Name to the entry where that is.
        pairs: Evaluations of the program of a pair that this took.
        finite: Are the numbers?
        tiny: Is the size of an example, or of all there is, so small that floats lose digits?
        values: The kernels themselves, (.., rows, columns), and those of each example alone, (.., rows, 1), if all pairs were
            looked at: entries of an example with itself are in the latter.
    """

    error: dict[str, float]
    relative: dict[str, float]
    visible: dict[str, float]
    worst: dict[str, tuple[int, int]] = field(default_factory=dict)
    pairs: int = 0
    finite: bool = True
    tiny: bool = False
    values: tuple[list[Array], list[Array]] | None = None

    @staticmethod
    def nothing(names: Sequence[str]) -> Measured:
        """Errors of 0."""
        return Measured(dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0))

    def joined(self, other: Measured) -> Measured:
        """The larger errors of both."""
        first, second = (self, other) if max(self.visible.values()) >= max(other.visible.values()) else (other, self)
        error, relative, visible = [
            {k: max(a[k], b[k]) for k in a}
            for a, b in ((self.error, other.error), (self.relative, other.relative), (self.visible, other.visible))
        ]
        worst, finite = {**second.worst, **first.worst}, self.finite and other.finite
        return Measured(error, relative, visible, worst, self.pairs + other.pairs, finite, self.tiny or other.tiny)

    def note(
        self, name: str, error: Array, scale: Array, rows: Sequence[int], columns: Sequence[int] | None, largest: float
    ) -> None:
        """Takes in errors (.., rows, columns) of some entries.

        Args:
            name: Of the kernel.
            error: Of the entries.
            scale: Their sizes.
            rows: Which entries these are.
            columns: Likewise; None for diagonal entries (.., rows, 1).
            largest: The size of the largest entry of all.
        """
        if not error.size:
            return
        error = np.where(np.isfinite(error), error, np.inf)
        with np.errstate(all="ignore"):
            ratios = [error / np.maximum(scale, floor) for floor in (0.0, UNSEEN * largest)]
            # an error that floats end at is nothing that another route would mend
            relative, visible = [np.where(error > FLOOR, np.where(np.isnan(r), np.inf, r), 0.0) for r in ratios]
        self.error[name] = max(self.error[name], float(error.max()))
        self.relative[name] = max(self.relative[name], float(relative.max()))
        if (most := float(visible.max())) >= self.visible[name]:
            i, j = [int(k) for k in np.unravel_index(int(np.argmax(visible)), visible.shape)[-2:]]
            self.visible[name] = most
            self.worst[name] = int(rows[i]), int(rows[i] if columns is None else columns[j])

    def whole(self, name: str, value: Array, error: Array, symmetric: bool) -> None:
        """Takes in the errors of a whole kernel (rows, columns), or (rows, columns, outputs, outputs)."""
        if value.ndim == 4:
            value, error = value.transpose(2, 3, 0, 1), error.transpose(2, 3, 0, 1)
        several = value.ndim == 4
        with np.errstate(all="ignore"):
            size = np.abs(value)
            if symmetric:
                one = two = np.sqrt(np.einsum("ooii->oi" if several else "ii->i", size))
            else:  # rows and columns as large as their largest entries ask for
                axes = (1, 3) if several else 1, (0, 2) if several else 0
                root = np.sqrt(size.max(initial=0.0))
                one, two = [np.nan_to_num(size.max(axis, initial=0.0) / root) for axis in axes]
        scale = one[:, None, :, None] * two[None, :, None, :] if several else np.multiply.outer(one, two)
        finite = np.where(np.isfinite(value), error, np.inf)
        self.note(
            name, finite, scale, range(value.shape[-2]), range(value.shape[-1]), float(np.max(scale, initial=0.0))
        )


def measure(
    pair: Batched,
    same: Batched,
    p: Products | GramProducts,
    names: Sequence[str],
    several: bool,
    call: Call,
) -> Measured:
    """The errors of compiled kernels on telling pairs.

    Args:
        pair: The kernels of two examples.
        same: Those of an example with itself.
        p: The data.
        names: Of the kernels.
        several: Has the network several outputs, and a kernel two axes for them?
        call: What the evaluations belong to.
    """
    found = Measured.nothing(names)
    n, m = p.counts
    total = n * (n + 1) // 2 if p.same else n * m
    rows, columns = _telling(p, _number(MOST, FEWEST, pair, total, call))
    alone = sorted({*rows, *(columns if p.same else ()), *_spread(p.sizes(0), _number(1024, FEWEST, same, n, call))})
    itself = _diagonal(p.at(alone, None), same, found, call)
    place = {i: k for k, i in enumerate(alone)}
    sizes = [_sizes(x, several) for x, _ in itself]
    largest = [float(np.max(size, initial=0.0)) ** 2 for size in sizes]
    if p.same:
        for name, (_, error), size, most in zip(names, itself, sizes, largest, strict=True):
            one = size[:, None] * size[None] if several else size**2
            found.note(name, error, one[..., None], alone, None, most)
        if n == 1:
            return found
    part = p.at(rows, columns)
    equal = p.equal(rows, columns)
    on = np.equal.outer(rows, columns) if p.same else np.zeros_like(equal)
    equal &= ~on
    values, errors = _compared(pair, part, found, apart=True, unwanted=on, call=call)
    if equal.any():  # correlations of 1 that are no rounding
        _, known = _compared(pair, part, found, apart=False, unwanted=~equal, call=call)
        errors = [np.where(equal, b, a) for a, b in zip(errors, known, strict=True)]
    if len(rows) == n and len(columns) == m and alone == list(range(n)):
        found.values = values, [x for x, _ in itself]
    others = None if p.same else _second(p, same, columns, found, several, call)
    for k, (name, value, error, size, most) in enumerate(zip(names, values, errors, sizes, largest, strict=True)):
        one = size[..., [place[i] for i in rows]]
        with np.errstate(all="ignore"):
            if p.same:
                two = size[..., [place[j] for j in columns]]
            elif others is not None:
                two = others[k]
            elif several:  # at least this, by Cauchy and Schwarz
                two = np.nan_to_num(np.abs(value) / one[:, None, :, None]).max((0, 2))
            else:
                two = np.nan_to_num(np.abs(value) / one[:, None]).max(0)
        scale = one[:, None, :, None] * two[None, :, None, :] if several else np.multiply.outer(one, two)
        most = max(most, float(np.max(np.nan_to_num(scale), initial=0.0)))
        found.note(name, np.where(on, 0.0, error), scale, rows, columns, most)
    return found


def _sizes(value: Array, several: bool) -> Array:
    """sqrt K(x, x) of values (.., rows, 1): (rows,), or (outputs, rows)."""
    with np.errstate(all="ignore"):
        return np.sqrt(np.abs(np.einsum("oor->or", value[..., 0]) if several else value[..., 0]))


def _diagonal(p: Products | GramProducts, same: Batched, found: Measured, call: Call) -> list[tuple[Array, Array]]:
    """Values and errors (.., rows, 1) of the program of one example."""
    values, errors = _compared(same, p, found, apart=False, call=call)
    return list(zip(values, errors, strict=True))


def _second(
    p: Products | GramProducts, same: Batched, columns: Sequence[int], found: Measured, several: bool, call: Call
) -> list[Array] | None:
    """sqrt K(x', x') of examples of the second batch, of each kernel; None where they have another shape than the first."""
    if not p.alike:
        return None
    own = p.turned().at(columns, None)
    found.pairs += len(columns)
    return [
        _sizes(x, several)
        for x in same.run(Block(own.block(same.data, slice(None), slice(None)).products, len(columns), 1), call=call)
    ]


def _compared(
    c: Batched,
    p: Products | GramProducts,
    found: Measured,
    apart: bool,
    call: Call,
    unwanted: Array | None = None,
) -> tuple[list[Array], list[Array]]:
    """Values and errors: rounding by perturbation, integrals at other resolutions.

    A float32 is a number that rounding has moved by 2^29 times as much. It is moved in float64, where nothing else moves it.
    """
    scale = float(np.finfo(p.dtype).eps / np.finfo(float).eps)
    everything = slice(0, p.counts[0]), slice(0, p.counts[1])
    block = p.block(c.data, *everything)
    block = Block(block.products, block.rows, 1 if p.same else block.columns, unwanted=unwanted)
    trace = None  # in float32 correlations are below 1 where they should be 1
    if p.dtype == np.float64:
        near, repeated = p.positions
        equal = repeated or not (apart or p.same)  # positions, or examples: see `measure`
        trace = Trace(close=near or not equal)
    base = c.run(block, trace=trace, call=call)
    found.pairs += block.rows * block.columns * (3 if c.integrates(call) else 2)
    found.finite &= all((np.isfinite(x) if unwanted is None else np.isfinite(x) | unwanted).all() for x in base)
    found.tiny |= any(map(_is_tiny, base))
    noise = Perturbation(np.random.default_rng(0), scale, apart=apart)
    if c.integrates(call) and call.compared and c.two_rules(call):
        moved = base  # the finer one is another rule: a coarse one tells nothing that it does not
    else:
        moved = c.run(block, noise=noise, trace=trace, level=0 if c.integrates(call) else 1, call=call)
    with np.errstate(invalid="ignore"):  # inf - inf: what is infinite is refused at the end
        differences = [np.abs(x - y) for x, y in zip(base, moved, strict=True)]
    if not c.integrates(call):
        return base, [4 * d + NOISE * scale * np.abs(x) for x, d in zip(base, differences, strict=True)]
    # The coarse integral is off by more than the fine one, which only a finer one can judge; but it would see a tail cut off.
    finer = c.run(
        block, noise=Perturbation(np.random.default_rng(1), scale, apart=apart), trace=trace, level=2, call=call
    )
    with np.errstate(invalid="ignore"):
        return base, [
            10 * np.abs(x - y) + COARSE * d + NOISE * scale * np.abs(x)
            for x, y, d in zip(base, finer, differences, strict=True)
        ]


def _is_tiny(x: Array) -> bool:
    """Are values (.., rows, columns) where floats lose digits: all of one example, if there is one column, else all?"""
    size = np.abs(x).max(axis=tuple(range(x.ndim - 2)))
    return bool(np.any((size if x.shape[-1] == 1 else size.max(initial=0.0)) < NORMAL))


def _number(most: int, fewest: int, c: Batched, total: int, call: Call) -> int:
    """How many of all are looked at: what is cheap; else a share of all, as long as all cost as much each.

    A series serves thousands of pairs for what an integral costs for a few: then their number says nothing.
    """
    share = 0.0 if c.integrates(call) else SHARE * total
    return int(max(fewest, min(most, max(CHEAP / c.weight, share))))


def _telling(p: Products | GramProducts, most: int) -> tuple[list[int], list[int]]:
    """Examples of the first and of the second batch; between them are the telling pairs."""
    height = max(1, isqrt(most))
    width = max(1, most // height)
    if p.counts[0] <= height and p.counts[1] <= width:
        return list(range(p.counts[0])), list(range(p.counts[1]))
    close = p.close()
    rows = _merged([i for i, _ in close][: height // 3], _spread(p.sizes(0), height), height)
    candidates = _spread(p.sizes(1), CANDIDATES)
    among = [j for i, j in close if i in rows]
    c = p.correlations(rows, candidates)
    if p.same:
        c = np.where(np.equal.outer(rows, candidates), np.nan, c)
    extreme = []
    for measure_of in (np.abs(c), -np.abs(c), c, -c):
        if np.isfinite(measure_of).any():
            extreme.append(candidates[int(np.nanargmax(measure_of)) % len(candidates)])
    columns = _merged([*among, *extreme][: max(1, width // 2)], _spread(p.sizes(1), width), width)
    return rows, columns


def _merged(first: Sequence[int], then: Sequence[int], most: int) -> list[int]:
    return sorted(list(dict.fromkeys([*first, *then]))[:most])


def _spread(sizes: Array, most: int) -> list[int]:
    """Examples from the smallest to the largest; the extreme ones first, then those half way between."""
    order = np.argsort(sizes, kind="stable").tolist()
    if len(order) <= most:
        return order[::-1][:1] + order[:-1]
    places = np.linspace(0, len(order) - 1, most).round().astype(int).tolist()
    return [order[places[-1]], *[order[k] for k in places[:-1]]]
