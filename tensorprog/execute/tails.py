"""What samples cannot have seen: events that none of them hit, and tails that a few of them carry.

Replicates of a population tell its error by their spread only where every sample carries its share. Watched while it runs, every
Moment tells how much a few samples carry and whether anything was hit at all. The doubt about a Moment is

* where nothing was hit: three over the number of samples (with probability 0.95 an event is not rarer for being missed) times
  what a hit could be;
* where a mean is worth few of the samples: what lies beyond the largest one, from how fast the mass of the ranks 1, 2-3,
  4-7, 8-15, ... falls (infinite where it does not fall); where few are not 0, three deviations of their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorprog.language.contraction import Contraction, first_entries
from tensorprog.language.functions import PRIMITIVES
from tensorprog.language.node import Node, topological

__all__ = ["Tails"]

Array = np.ndarray

WATCHED = 2**21
"""Samples of one Moment that are looked at in one replicate; of larger arrays, the first entries along every axis."""
TOP = 512
FEW = 16
LEAN, SHARE = 200, 30
"""A mean that is worth fewer samples than this (Kish's effective number), or one in so many, has a heavy tail."""
FEW_HITS = 64
MISSED = 3.0
"""Where none of N samples hits, an event has a probability of at most this over N, with probability 0.95."""
REACH = 1.0
"""A kink this many ranges of the samples away from them is taken to be out of reach: thirteen standard deviations."""


@dataclass
class _Seen:
    """What all replicates have seen of one Moment, for the entries looked at, flattened."""

    index: tuple[slice, ...]
    shape: tuple[int, ...]
    count: int = 0
    total: Array = field(default_factory=lambda: np.zeros(0))
    low: Array = field(default_factory=lambda: np.zeros(0))
    high: Array = field(default_factory=lambda: np.zeros(0))
    largest: Array = field(default_factory=lambda: np.zeros(0))
    together: Array = field(default_factory=lambda: np.zeros(0, dtype=bool))
    top: list[Array] = field(default_factory=list)


class Tails:
    """Watches populations, replicate after replicate.

    Attributes:
        doubts: Once `judge` has been called: Moment to (entries looked at, doubt of each), where there is one.
    """

    def __init__(self) -> None:
        self._moments: dict[Node, _Seen] = {}
        self._arguments: dict[
            Node, list[float]
        ] = {}  # of functions with kinks: lowest, highest, sum of deviations, runs
        self.doubts: dict[Node, tuple[tuple[slice, ...], Array]] = {}
        self.reasons: dict[Node, str] = {}
        self.applied = False

    def __call__(self, x: Node, compute: Callable[..., Any] | None, arrays: Sequence[Any], value: Any) -> Any:
        """Called with every instruction; returns its value, moved by the doubt once there is one."""
        if self.applied:
            if x in self.doubts:
                index, doubt = self.doubts[x]
                value = np.array(np.broadcast_to(value, x.shape), dtype=float)
                inside = value[index] + doubt
                value += doubt.max()  # entries that were not looked at: as the worst of those that were
                value[index] = inside
            return value
        if x.op == "fn" and x.width is not None and PRIMITIVES[x.attr[0]].kinks and x.inner is None:
            self._argument(x, np.asarray(arrays[0]))
        elif x.op == "moment" and x.inner is None:
            if isinstance(compute, Contraction):
                if compute.ends_in_moment:
                    self._moment(x, *compute.samples(arrays, WATCHED))
            else:
                a = np.asarray(arrays[0])
                kept = first_entries(a.shape[:-1], WATCHED // max(a.shape[-1], 1))
                index = tuple([slice(None) if k == 1 else slice(0, j) for j, k in zip(kept, a.shape, strict=False)])
                a = a[index]
                self._moment(x, index, a, np.ones(a.shape[:-1]), np.zeros(a.shape[:-1], dtype=bool))
        return value

    def _argument(self, x: Node, a: Array) -> None:
        if a.shape[-1] == 1:
            return
        low, high = float(np.min(a)), float(np.max(a))
        known = self._arguments.setdefault(x, [math.inf, -math.inf, 0.0, 0.0])
        known[:] = [min(known[0], low), max(known[1], high), known[2] + float(np.std(a)), known[3] + 1]

    def _moment(self, x: Node, index: tuple[slice, ...], samples: Array, largest: Array, together: Array) -> None:
        if samples.shape[-1] == 1:
            return
        flat = samples.reshape(-1, samples.shape[-1])
        size, n = np.abs(flat), len(flat)
        seen = self._moments.get(x)
        if seen is None:
            none = np.zeros(n)
            seen = self._moments[x] = _Seen(
                index, samples.shape[:-1], 0, none, none + np.inf, none - np.inf, none, none.astype(bool)
            )
        seen.count += flat.shape[1]
        seen.total = seen.total + size.sum(1)
        seen.low, seen.high = np.minimum(seen.low, flat.min(1)), np.maximum(seen.high, flat.max(1))
        seen.largest = np.maximum(seen.largest, largest.reshape(-1))
        seen.together = seen.together | together.reshape(-1)
        few = min(TOP // 8, size.shape[1])
        seen.top.append(np.partition(size, size.shape[1] - few, axis=1)[:, -few:])

    # ---- afterwards ----
    def judge(self) -> bool:
        """Finds the doubts; is there any?"""
        for x, seen in self._moments.items():
            doubt = np.zeros(len(seen.total))
            constant = seen.low == seen.high
            if constant.any():
                turned = np.where(seen.low == 0, self._turned(x, False), self._turned(x, True))
                missed = constant & (turned > 0)
                size = np.where(missed, turned, 1.0) * seen.largest
                missed |= (
                    constant & (seen.low == 0) & seen.together
                )  # every factor was hit, and never all of them together
                doubt[missed] = MISSED * size[missed] / seen.count
                if missed.any():
                    self.reasons[x] = (
                        f"none of {seen.count} samples hits what a Moment is the mean of: the error is what that allows"
                    )
            top = np.sort(np.concatenate(seen.top, axis=1), axis=1)[:, ::-1]
            with np.errstate(all="ignore"):
                size = top / top[:, :1]
                heavy = ~constant & (
                    (seen.total / top[:, 0]) ** 2 < max(LEAN, seen.count / SHARE) * (size * size).sum(1)
                )
            for e in np.flatnonzero(heavy):
                hits = int(np.count_nonzero(top[e]))
                most = (
                    max(float(top[e, 0]), self._turned(x, False) * float(seen.largest[e])) if hits < FEW_HITS else 0.0
                )
                missed = MISSED * math.sqrt(hits + 1) * most
                doubt[e] = (missed if hits < FEW_HITS else _beyond(top[e])) / seen.count
                share = float(top[e, :FEW].sum() / seen.total[e])
                self.reasons[x] = (
                    f"{FEW} of {seen.count} samples carry {share:.0%} of a Moment: the error has what they may have missed"
                )
            if (doubt > 0).any():
                whole = doubt.reshape(seen.shape)
                self.doubts[x] = (
                    seen.index,
                    np.broadcast_to(
                        whole, [len(range(*s.indices(k))) for s, k in zip(seen.index, x.shape, strict=False)]
                    ),
                )
        return bool(self.doubts)

    def _turned(self, x: Node, unseen: bool) -> float:
        """How large functions with kinks are where they have just turned, as far as samples may get; 0 if none has kinks.

        Args:
            x: A Moment.
            unseen: Only those whose other side no sample has seen.
        """
        found, size = False, 1.0
        for y in topological([x.args[0]], lambda y: () if y.op in ("moment", "matmul", "vector") else y.args):
            if y in self._arguments:
                low, high, deviation, runs = self._arguments[y]
                row, reach = PRIMITIVES[y.attr[0]], REACH * (high - low)
                near = [
                    k
                    for k in row.kinks
                    if min(abs(k - low), abs(k - high)) <= reach and not (unseen and low < k < high)
                ]
                if high > low and near:
                    found = True
                    size *= 1.0 if row.jumps else deviation / runs
        return size if found else 0.0


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
