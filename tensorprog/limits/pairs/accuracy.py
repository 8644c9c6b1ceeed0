"""How good the kernels of two batches are, measured on few pairs of examples before all are computed.

Closed forms may cancel and quadrature may not resolve, in ways that depend on the data: on the variances and correlations that
the network makes of them. A compiled kernel is therefore evaluated again, moved by rounding errors and at other resolutions,
for pairs that tell: the largest and the smallest examples and some between, the closest ones, the most and the least
correlated ones, and, where that is cheap, for all of the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import isqrt
from typing import Any

import numpy as np

from tensorprog.language.functions import NORMAL
from tensorprog.limits.evaluate.errors import of_one_rounding, of_resolution
from tensorprog.limits.evaluate.wide import FLOOR
from tensorprog.limits.gauss.rounding import NOISE
from tensorprog.limits.pairs.blocks import Batched
from tensorprog.limits.pairs.call import Call
from tensorprog.limits.pairs.inner_products import GramProducts, Products
from tensorprog.limits.pairs.lanes import Moved

__all__ = ["AccuracyWarning", "Measured", "measure"]

Array = np.ndarray
Pair = tuple[int, int]
MOST = 64
"""Pairs that are looked at."""
FEWEST = 4
"""Pairs that are looked at even where each is expensive."""
SEVERAL, FEW_PAIRS = 8, 4
"""A pair is moved so often where there are so few of them: of many, the worst speaks for all."""
SHARE = 1 / 16
"""Of the cost of all pairs, where that is much."""
CHEAP = 2**14
"""Entries of intermediate arrays that are little."""
CANDIDATES = 128
"""Examples among which the most and the least correlated ones are sought."""
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
            looked at: entries of an example with itself are in the latter, and of one batch those above the diagonal are enough.
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

    def note(self, name: str, error: Array, scale: Array, places: Callable[[int], Pair], largest: float) -> None:
        """Takes in errors of some entries.

        Args:
            name: Of the kernel.
            error: Of the entries, (.., pairs).
            scale: Their sizes.
            places: Number of a pair to its examples.
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
            self.visible[name] = most
            self.worst[name] = places(int(np.argmax(visible)) % visible.shape[-1])

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
        columns, lanes = value.shape[-1], (*value.shape[:-2], -1)
        most = float(np.max(scale, initial=0.0))
        self.note(name, finite.reshape(lanes), scale.reshape(lanes), lambda k: divmod(k, columns), most)


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
    near, repeated = p.at(alone, None).positions
    data = p.lanes(same.data, alone, alone)
    itself, own_errors = _compared(same, data, len(alone), found, call, apart=False, close=near or not repeated)
    found.tiny |= any((_largest(x) < NORMAL).any() for x in itself)
    sizes = [_sizes(x, several) for x in itself]
    largest = [float(np.max(size, initial=0.0)) ** 2 for size in sizes]
    if p.same:
        for name, error, size, most in zip(names, own_errors, sizes, largest, strict=True):
            one = size[:, None] * size[None] if several else size**2
            found.note(name, error, one, lambda k: (alone[k], alone[k]), most)
        if n == 1:
            return found
    pairs = _different(rows, columns) if p.same else list(product(rows, columns))
    i, j = np.array(pairs, dtype=int).reshape(-1, 2).T
    equal = p.equal(i, j)
    if not p.same:
        near, repeated = p.at(rows, columns).positions
    values = [np.empty((*shape, len(pairs))) for shape in pair.shapes]
    errors = [np.empty_like(x) for x in values]
    for which, apart in ((~equal, True), (equal, False)):  # the latter: correlations of 1 that are no rounding
        if which.any():
            data = p.lanes(pair.data, i[which], j[which])
            close = near or (apart and not repeated)
            answers = _compared(pair, data, int(np.count_nonzero(which)), found, call, apart, close)
            for full, answer in zip((*values, *errors), (*answers[0], *answers[1]), strict=True):
                full[..., which] = answer
    found.tiny |= any(_largest(x).max(initial=0.0) < NORMAL for x in values if x.size)
    if len(rows) == n and len(columns) == m and alone == list(range(n)):
        whole = [np.zeros((*x.shape[:-1], n, m)) for x in values]
        for full, x in zip(whole, values, strict=True):
            full[..., i, j] = x
        found.values = whole, [x[..., None] for x in itself]
    others = None if p.same else _second(p, same, columns, found, several, call)
    first, second = [np.searchsorted(side, k) for side, k in ((alone, i), (alone if p.same else columns, j))]
    for k, (name, value, error, size, most) in enumerate(zip(names, values, errors, sizes, largest, strict=True)):
        one = size[..., first]
        with np.errstate(all="ignore"):
            if p.same:
                two = size[..., second]
            elif others is not None:
                two = others[k][..., second]
            else:  # at least this, by Cauchy and Schwarz
                least = np.nan_to_num(np.abs(value) / (one[:, None] if several else one))
                least = least.max(0) if several else least
                two = np.stack([least[..., j == k].max(-1, initial=0.0) for k in columns], -1)[..., second]
        scale = one[:, None] * two[None] if several else one * two
        top = float(np.max(scale, initial=0.0))
        most = max(most, top if np.isfinite(top) else float(np.max(np.nan_to_num(scale))))
        found.note(name, error, scale, pairs.__getitem__, most)
    return found


def _different(rows: Sequence[int], columns: Sequence[int]) -> list[Pair]:
    """Pairs of two examples of one batch, in one order: the other has the same kernel, transposed."""
    found: dict[frozenset[int], Pair] = {}
    for i, j in product(rows, columns):
        if i != j:
            found.setdefault(frozenset((i, j)), (i, j))
    return list(found.values())


def _sizes(value: Array, several: bool) -> Array:
    """sqrt K(x, x) of values (.., examples): (examples,), or (outputs, examples)."""
    with np.errstate(all="ignore"):
        return np.sqrt(np.abs(np.einsum("oor->or", value) if several else value))


def _second(
    p: Products | GramProducts, same: Batched, columns: Sequence[int], found: Measured, several: bool, call: Call
) -> list[Array] | None:
    """sqrt K(x', x') of examples of the second batch, of each kernel; None where they have another shape than the first."""
    if not p.alike:
        return None
    own = p.turned().at(columns, None)
    found.pairs += len(columns)
    data = own.block(same.data, slice(None), slice(None)).products
    return [_sizes(x, several) for x in same.lanes.run(data, len(columns), call)]


def _compared(
    c: Batched,
    data: Mapping[Any, Array],
    pairs: int,
    found: Measured,
    call: Call,
    apart: bool,
    close: bool,
) -> tuple[list[Array], list[Array]]:
    """Values and errors of pairs of examples: rounding by perturbation, integrals at other resolutions.

    Args:
        c: What is evaluated.
        data: Its data, in lanes.
        pairs: How many.
        found: Takes in how many evaluations this took, and whether numbers are finite.
        call: What it belongs to.
        apart: Are these pairs of different examples?
        close: May positions be nearly, not quite, equal? Are there no equal ones, of an example or of two equal ones?
    """
    integrates = None
    while integrates is not c.integrates(call):  # closed forms may give way to integrals, once
        integrates = c.integrates(call)
        # a coarse one tells nothing if the finer one is another rule
        # integrals are dear, and have bounds; where they stand for closed forms that cancel, integrands cancel, too
        several = pairs <= FEW_PAIRS and (not integrates or c.gave_way(call))
        times = SEVERAL if several else 1
        coarse = (0,) if integrates and not (call.compared and c.two_rules(call)) else ()
        levels = (2 if integrates else 1,) * times + coarse
        moved = Moved(pairs, levels, apart, close)
        values = c.lanes.run(data, pairs, call, moved)
    found.pairs += pairs * (1 + len(levels))
    base = [x[..., :pairs] for x in values]
    found.finite &= all(bool(np.isfinite(x).all()) for x in base)
    errors = []
    with np.errstate(invalid="ignore"):  # inf - inf: what is infinite is refused at the end
        for x, full in zip(base, values, strict=True):
            others = [full[..., k * pairs : (k + 1) * pairs] for k in range(1, 1 + len(levels))]
            last = others[times:]
            of = [
                of_resolution(x, y, *last) + NOISE * np.abs(x) if integrates else of_one_rounding(x, y)
                for y in others[:times]
            ]
            errors.append(np.max(of, axis=0))
    return base, errors


def _largest(x: Array) -> Array:
    """The largest size of the entries (.., pairs) of every pair."""
    return np.asarray(np.abs(x).max(axis=tuple(range(x.ndim - 1))))


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
