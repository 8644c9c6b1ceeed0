"""What samples cannot have seen: events that none of them hit, and tails that a few of them carry.

Replicates of a population tell its error by their spread only where every sample carries its share. Watched while it runs, every
entry of every Moment tells how many samples it is worth and whether it ever varied; where it is worth few, the same populations
are run once more, and its largest samples kept. The doubt about an entry is

* where nothing was hit, or all replicates agree: what an event's expected number may be for all that (`estimate.py:unseen`)
  over the number of samples, times what a hit could be;
* where a mean is worth few of the samples: what lies beyond the largest one, from how fast the mass of the ranks 1, 2-3,
  4-7, 8-15, ... falls (infinite where it does not fall); where few are not 0, what their expected number may be above
  that.

Functions of one scale, erf' or 1 - tanh^2, are such events where their argument's deviation is far beyond it: what is not 0 only
because floats go on has not been hit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorprog.arrays.contraction import Contraction
from tensorprog.estimate import unseen as _unseen
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

__all__ = ["Tails"]

Array = np.ndarray

CLOSELY = 2**21
"""Numbers of one Moment whose largest are sought in one replicate: those of the entries that are worth fewest samples."""
TOP = 512
FEW = 16
LEAN, SHARE = 200, 30
"""A mean that is worth fewer samples than this (Kish's effective number), or one in so many, has a heavy tail."""
FEW_HITS = 64
HIT = 1e-3
"""Of functions that turn where few samples are, those are hits that are this share of the largest one at least; factors below
it say nothing of their size where they turn."""
REACH = 1.0
"""A kink this many ranges of the samples away from them is taken to be out of reach: thirteen standard deviations."""
FLOOR = 1e-290
"""Means of less than this are those of numbers that floats do not have."""
STEADY = 1e-11
"""Replicates that differ by less, relatively, are equal up to rounding."""


@dataclass
class _Seen:
    """What all replicates have seen of one Moment; arrays are over its entries."""

    compute: Contraction | None
    shape: tuple[int, ...]
    below: tuple[Node, ...]
    inside: int  # terms summed in a sample
    count: int = 0
    total: Any = 0.0  # of moduli
    squares: Any = 0.0
    low: Any = math.inf  # of the replicates' means
    high: Any = -math.inf
    largest: list[Array] = field(default_factory=list)  # moduli of each operand
    lean: Array = field(default_factory=lambda: np.zeros(0, dtype=int))  # entries worth few samples, the fewest first
    top: list[Array] = field(default_factory=list)  # of the first of these
    carried: Any = 0.0  # the sum of the moduli of their samples

    @property
    def worth(self) -> Array:
        """How many samples each entry is worth, at most."""
        with np.errstate(all="ignore"):
            worth = np.asarray(self.total) ** 2 / self.squares / self.inside
        return np.where(np.isfinite(worth), worth, np.where(self.total == 0, np.inf, 0.0)).reshape(-1)

    def samples(self, arrays: Sequence[Array], entries: Array) -> Array:
        """What some entries are the means of, (E, *summed axes, width)."""
        at = np.unravel_index(entries, self.shape) if self.shape else ()
        if self.compute is None:
            return arrays[0][at] if self.shape else arrays[0][None]
        return self.compute.samples(arrays, at)


class Tails:
    """Watches populations, replicate after replicate.

    Attributes:
        doubts: Once `judge` has been called: Moment to the doubt about each entry, where there is one.
        reasons: Moment to why it is doubted.
        applied: Set to move Moments by their doubts.
    """

    def __init__(self) -> None:
        self._moments: dict[Node, _Seen] = {}
        self._arguments: dict[
            Node, list[float]
        ] = {}  # of functions with kinks: lowest, highest, sum of deviations, runs
        self._closely = False
        self.doubts: dict[Node, Array] = {}
        self.reasons: dict[Node, str] = {}
        self.applied = False

    def __call__(self, x: Node, compute: Callable[..., Any] | None, arrays: Sequence[Any], value: Any) -> Any:
        """Called with every instruction; returns its value, moved by the doubt once there is one."""
        if self.applied:
            return value + self.doubts[x] if x in self.doubts else value
        if x.op == "fn" and x.width is not None and x.inner is None and (_kinks(x) or _turns(x)):
            if not self._closely:
                self._argument(x, np.asarray(arrays[0]))
        elif x.inner is None and (
            compute.averages if isinstance(compute, Contraction) else x.op == "moment" and compute is None
        ):
            if self._closely:
                self._look(self._moments.get(x), [np.asarray(a) for a in arrays])
            else:
                self._moment(x, compute if isinstance(compute, Contraction) else None, arrays, np.asarray(value))
        return value

    def _argument(self, x: Node, a: Array) -> None:
        if a.shape[-1] == 1:
            return
        low, high = float(np.min(a)), float(np.max(a))
        known = self._arguments.setdefault(x, [math.inf, -math.inf, 0.0, 0.0])
        known[:] = [min(known[0], low), max(known[1], high), known[2] + float(np.std(a)), known[3] + 1]

    def _moment(self, x: Node, compute: Contraction | None, arrays: Sequence[Any], value: Array) -> None:
        below = (x.args[0],) if compute is None else compute.operands
        wide = [y.width is not None for y in below]
        samples = max([np.shape(a)[-1] for a, w in zip(arrays, wide, strict=True) if w], default=1)
        if samples == 1:
            return
        sizes = [np.abs(a) for a in arrays]
        seen = self._moments.get(x)
        if seen is None:
            seen = self._moments[x] = _Seen(compute, value.shape, below, compute.inside(arrays) if compute else 1)
            seen.largest = [np.zeros(())] * len(sizes)
        seen.count += samples
        mean: Callable[..., Any] = compute or (lambda a: a.mean(-1))
        seen.total = seen.total + samples * mean(*sizes)
        seen.squares = seen.squares + samples * mean(*[a * a for a in sizes])
        seen.low, seen.high = np.minimum(seen.low, value), np.maximum(seen.high, value)
        tops = [a.max(-1, keepdims=True) if w else a for a, w in zip(sizes, wide, strict=True)]
        seen.largest = [np.maximum(a, b) for a, b in zip(seen.largest, tops, strict=True)]

    # ---- a second look ----
    def closer(self) -> bool:
        """Are there entries to look at closely? The same populations are then to be run again."""
        for seen in self._moments.values():
            worth = seen.worth
            lean = np.flatnonzero(worth < max(LEAN, seen.count / SHARE))
            seen.lean = lean[np.argsort(worth[lean], kind="stable")]
        self._closely = any(len(seen.lean) for seen in self._moments.values())
        return self._closely

    def _look(self, seen: _Seen | None, arrays: Sequence[Array]) -> None:
        if seen is None or not len(seen.lean):
            return
        samples = max([a.shape[-1] for a in arrays if a.ndim])
        looked = max(1, CLOSELY // (samples * seen.inside))
        products = seen.samples(arrays, seen.lean[:looked])
        size = np.abs(products.sum(tuple(range(1, products.ndim - 1))))
        seen.carried = seen.carried + size.sum(1)
        few = min(TOP // 8, size.shape[1])
        seen.top.append(np.partition(size, size.shape[1] - few, axis=1)[:, -few:])

    # ---- afterwards ----
    def judge(self) -> bool:
        """Finds the doubts; is there any?"""
        for x, seen in self._moments.items():
            doubt = np.zeros(math.prod(seen.shape))
            self._missed(x, seen, doubt)
            if seen.top:
                self._heavy(x, seen, doubt)
            if (doubt > 0).any():
                self.doubts[x] = doubt.reshape(seen.shape)
        return bool(self.doubts)

    def _missed(self, x: Node, seen: _Seen, doubt: Array) -> None:
        """Entries whose events no sample has hit, or all samples alike; or few where functions turn, on a scale of their own."""
        total, low, high = [np.asarray(a).reshape(-1) for a in (seen.total, seen.low, seen.high)]
        none, unseen = total == 0, self._turned(seen, True)
        steady = ~none & (high - low <= STEADY * np.maximum(np.abs(low), np.abs(high)))
        smooth = any(self._saturated(y, seen.count) for y in topological(seen.below, _own))
        entries = np.flatnonzero(none | (steady | smooth) & (unseen > 0))
        if not len(entries):
            return
        largest = seen.samples(self._hits(seen), entries).reshape(len(entries), -1).max(1)
        together = seen.samples([np.where(a > 0, 1.0, 0.0) for a in seen.largest], entries)
        # every factor was hit, and never all of them together
        apart = together.reshape(len(entries), -1).any(1) if seen.compute else np.zeros(len(entries), dtype=bool)
        turned = np.where(none[entries], self._turned(seen, False), unseen)
        missed = (turned > 0) | none[entries] & apart
        lost = missed & (largest < FLOOR)  # less than floats go: it may count all the same, times others
        size = np.where(turned > 0, turned, 1.0) * np.maximum(largest, np.where(lost, FLOOR, 0.0))
        doubt[entries] = np.where(missed, _unseen() * size / seen.count, 0.0)
        if lost.any():
            self.reasons[x] = "samples of a Moment are less than floats go: the error is what that allows"
        elif missed.any():
            self.reasons[x] = (
                f"none of {seen.count} samples hits what a Moment is the mean of: the error is what that allows"
            )

    def _heavy(self, x: Node, seen: _Seen, doubt: Array) -> None:
        """Entries that few samples carry."""
        top = np.sort(np.concatenate(seen.top, axis=1), axis=1)[:, ::-1]
        looked, total = seen.lean[: len(top)], seen.carried
        turned = self._turned(seen, False)
        largest = (
            seen.samples(self._hits(seen), looked).reshape(len(looked), -1).max(1) if turned else np.zeros(len(looked))
        )
        smooth = any(self._saturated(y, seen.count) for y in topological(seen.below, _own))
        with np.errstate(all="ignore"):
            size = top / top[:, :1]
            heavy = (total / top[:, 0]) ** 2 < max(LEAN, seen.count / SHARE) * (size * size).sum(1)
        for k in np.flatnonzero(heavy):
            hit = int(np.count_nonzero(top[k] > (HIT * top[k, 0] if smooth else 0.0)))
            most = max(float(top[k, 0]), turned * float(largest[k]))
            beyond = _unseen(hit) * most if hit < FEW_HITS else _beyond(top[k])
            doubt[looked[k]] += beyond / seen.count
            share = float(top[k, :FEW].sum() / total[k])
            self.reasons[x] = (
                f"{FEW} of {seen.count} samples carry {share:.0%} of a Moment: the error has what they may have missed"
            )
        left = seen.lean[len(top) :]
        if len(left):  # worth more samples than those: as the worst of them, for its size
            root = np.sqrt(np.asarray(seen.squares).reshape(-1))
            with np.errstate(all="ignore"):
                doubt[left] += np.nan_to_num(np.max(doubt[looked] / root[looked]), nan=np.inf) * root[left]

    def _hits(self, seen: _Seen) -> list[Array]:
        """How large each factor of a Moment is where it is hit."""
        smooth = [self._saturated(y, seen.count) for y in topological(seen.below, _own)]
        least = HIT if any(smooth) else 0.0
        return [np.where(a > least, a, 1.0) for a in seen.largest]

    def _saturated(self, y: Node, count: int) -> bool:
        """Is it a function whose turn few of so many samples have met, if any?"""
        if y not in self._arguments or not _turns(y):
            return False
        low, high, deviation, runs = self._arguments[y]
        scale = PRIMITIVES[y.attr.name].width
        return low < 0 < high and deviation / runs > 3 * scale * count / FEW_HITS

    def _turned(self, seen: _Seen, unseen: bool) -> float:
        """How large functions with kinks are where they have just turned, as far as samples may get; 0 if none has kinks.

        Args:
            seen: Of a Moment.
            unseen: Only those whose other side no sample has seen.
        """

        def near(y: Node) -> bool:
            if y not in self._arguments:
                return False
            if not _kinks(y):
                return self._saturated(y, seen.count)
            low, high, _, _ = self._arguments[y]
            return high > low and any(
                min(abs(k - low), abs(k - high)) <= REACH * (high - low) and not (unseen and low < k < high)
                for k in PRIMITIVES[y.attr.name].kinks
            )

        # What is inside the argument of one that turns says where it turns, not how large it is there.
        order = topological(seen.below, lambda y: () if near(y) else _own(y))
        found, size = False, 1.0
        for y in order:
            if near(y):
                _, _, deviation, runs = self._arguments[y]
                found = True
                size *= 1.0 if PRIMITIVES[y.attr.name].jumps or not _kinks(y) else deviation / runs
        return size if found else 0.0


def _own(y: Node) -> Sequence[Node]:
    """The operands of an instruction that act coordinate by coordinate."""
    return () if y.op in ("moment", "matmul", "vector") else y.args


def _kinks(y: Node) -> bool:
    """Has a function kinks?"""
    return bool(PRIMITIVES[y.attr.name].kinks)


def _turns(y: Node) -> bool:
    """Does a function turn at 0 alone, on a scale of its own, and not go on turning?"""
    row = PRIMITIVES[y.attr.name]
    return row.width > 0 and not row.kinks and row.domain is None and y.attr.name not in ("sin", "cos", "exp")


def _beyond(top: Array) -> float:
    """The sum that lies beyond the largest of a sample's values, given in descending order."""
    masses = [float(top[2**j - 1 : 2 ** (j + 1) - 1].sum()) for j in range(8) if 2 ** (j + 1) - 1 <= len(top)]
    if len(masses) < 6:
        return math.inf
    fall = sum(masses[0:4]) / max(sum(masses[2:6]), 1e-300)  # over two octaves of ranks
    if fall >= 1:
        return math.inf
    octaves = fall**2  # over the four that were summed
    return sum(masses[0:4]) * octaves / (1 - octaves)
