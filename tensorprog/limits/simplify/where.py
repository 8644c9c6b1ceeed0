"""Which positions of an array matter: the positions of each axis, and of pairs of axes those that go together.

Two passes over scalar programs use it (`diagonal.py`): bottom up it says where an array may be different from 0, top down which
entries are looked at. It says no more than pairs of axes can: it may contain entries that do not matter, and lacks none that do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Where", "of_array"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Where:
    """The entries of an array that matter.

    Attributes:
        shape: Of the array.
        own: Axis to truths for its positions; all matter along an axis that is missing.
        pairs: Axes (i < j) to truths for their positions, (n_i, n_j), where they are more than what `own` says of both.
    """

    shape: tuple[int, ...]
    own: Mapping[int, np.ndarray] = field(default_factory=dict)
    pairs: Mapping[Pair, np.ndarray] = field(default_factory=dict)

    @property
    def nowhere(self) -> bool:
        """Does no entry matter?"""
        return any(not a.any() for a in self.own.values())

    def along(self, i: int) -> np.ndarray:
        """Truths for the positions of an axis."""
        return self.own[i] if i in self.own else np.ones(self.shape[i], dtype=bool)

    def of(self, i: int, j: int) -> np.ndarray:
        """Truths for pairs of positions of two axes, in this order; of one axis with itself, on the diagonal."""
        if i == j:
            return np.diag(self.along(i))
        if i > j:
            return self.of(j, i).T
        if (i, j) in self.pairs:
            return self.pairs[i, j]
        return np.asarray(self.along(i)[:, None] & self.along(j))

    def related(self, i: int, j: int) -> bool:
        """Is anything known of these two axes?"""
        return i in self.own or j in self.own or (min(i, j), max(i, j)) in self.pairs

    @staticmethod
    def settled(shape: tuple[int, ...], own: Mapping[int, np.ndarray], pairs: Mapping[Pair, np.ndarray]) -> Where:
        """What pairs say of single axes goes there, and what says nothing is dropped."""
        axes = dict(own)
        both = dict(pairs)
        changed = bool(both)
        while changed:  # a pair narrows its axes, and these the other pairs
            bare, changed = Where(shape, axes), False
            both = {p: a & bare.of(*p) for p, a in both.items()}
            for (i, j), a in both.items():
                for axis, found in ((i, a.any(axis=1)), (j, a.any(axis=0))):
                    known = axes.get(axis)
                    if known is None or (known & ~found).any():
                        axes[axis] = found if known is None else known & found
                        changed = True
        bare = Where(shape, {i: a for i, a in axes.items() if not a.all()})
        return Where(shape, bare.own, {p: a for p, a in both.items() if not np.array_equal(a, bare.of(*p))})

    def renamed(self, shape: tuple[int, ...], source: Sequence[int | None]) -> Where:
        """Of an array whose axis p is this one's source[p]; None: an axis that this one says nothing of."""
        own: dict[int, np.ndarray] = {}
        pairs: dict[Pair, np.ndarray] = {}
        known = [(p, k) for p, k in enumerate(source) if k is not None and self.shape[k] == shape[p]]
        for p, k in known:
            if k in self.own:
                own[p] = self.own[k]
            for q, m in known:
                if p < q and (k == m or (min(k, m), max(k, m)) in self.pairs):
                    pairs[p, q] = self.of(k, m)
        return Where.settled(shape, own, pairs)

    def viewed(self, index: Sequence[int], shape: tuple[int, ...]) -> Where:
        """Of a view: axis k goes to index[k], several to a diagonal."""
        own: dict[int, np.ndarray] = {}
        pairs: dict[Pair, np.ndarray] = {}
        known = [(k, p) for k, p in enumerate(index) if self.shape[k] == shape[p]]
        for k, p in known:
            if k in self.own:
                own[p] = own[p] & self.own[k] if p in own else self.own[k]
        for k, p in known:
            for m, q in known:
                if k < m and (k, m) in self.pairs:
                    a = self.pairs[k, m]
                    if p == q:
                        own[p] = own[p] & np.diagonal(a) if p in own else np.diagonal(a)
                        continue
                    key, a = ((p, q), a) if p < q else ((q, p), a.T)
                    pairs[key] = pairs[key] & a if key in pairs else a
        return Where.settled(shape, own, pairs)

    def without(self, axis: int) -> Where:
        """Of a sum over an axis, as far as the other axes go."""
        left = [k for k in range(len(self.shape)) if k != axis]
        if self.nowhere and left:
            return Where(tuple([self.shape[k] for k in left]), {0: np.zeros(self.shape[left[0]], dtype=bool)})
        return self.renamed(tuple([self.shape[k] for k in left]), left)

    def at(self, axis: int, position: int) -> Where:
        """Of what is at a position of an axis."""
        own = {k: a for k, a in self.own.items() if k != axis}
        for k in range(len(self.shape)):
            if k != axis and self.related(axis, k):
                found = self.of(axis, k)[position]
                own[k] = own[k] & found if k in own else found
        if axis in self.own and not self.own[axis][position]:
            own |= {k: np.zeros(n, dtype=bool) for k, n in enumerate(self.shape) if k != axis}
        return Where.settled(self.shape, own, self.pairs).without(axis)

    def inserted(self, axis: int, size: int, position: int | None = None) -> Where:
        """Of an array with one axis more, of which a position matters, or all do."""
        source = list(range(len(self.shape)))
        shape = (*self.shape[:axis], size, *self.shape[axis:])
        found = self.renamed(shape, [*source[:axis], None, *source[axis:]])
        if position is None or size == 1:
            return found
        return Where.settled(shape, {**found.own, axis: np.arange(size) == position}, found.pairs)

    def picked(self, axis: int, index: Sequence[int]) -> Where:
        """Of some positions of an axis."""
        at = np.asarray(index, dtype=np.intp)
        own = {k: a[at] if k == axis else a for k, a in self.own.items()}
        pairs = {(i, j): a[at] if i == axis else a[:, at] if j == axis else a for (i, j), a in self.pairs.items()}
        return Where.settled((*self.shape[:axis], len(at), *self.shape[axis + 1 :]), own, pairs)

    def scattered(self, axis: int, index: Sequence[int], size: int) -> Where:
        """Of the array whose positions index[0], index[1], ... of an axis this one has."""
        at = np.asarray(index, dtype=np.intp)
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])

        def back(a: np.ndarray) -> np.ndarray:
            found = np.zeros((size, *a.shape[1:]), dtype=bool)
            np.logical_or.at(found, at, a)
            return found

        own = {k: a for k, a in self.own.items() if k != axis} | {axis: back(self.along(axis))}
        pairs = {(i, j): back(a) if i == axis else back(a.T).T if j == axis else a for (i, j), a in self.pairs.items()}
        return Where.settled(shape, own, pairs)

    @staticmethod
    def all_of(parts: Sequence[Where], shape: tuple[int, ...]) -> Where:
        """What matters in all of some arrays of one shape."""
        own: dict[int, np.ndarray] = {}
        pairs: dict[Pair, np.ndarray] = {}
        for x in parts:
            own |= {i: own[i] & a if i in own else a for i, a in x.own.items()}
            pairs |= {p: pairs[p] & a if p in pairs else a for p, a in x.pairs.items()}
        return Where.settled(shape, own, pairs) if len(parts) > 1 else Where(shape, own, pairs)

    @staticmethod
    def any_of(parts: Sequence[Where], shape: tuple[int, ...]) -> Where:
        """What matters in any of some arrays of one shape."""
        parts = [x for x in parts if not x.nowhere] or parts[:1]
        if all(x is parts[0] for x in parts):
            return parts[0]
        own: dict[int, np.ndarray] = {}
        pairs: dict[Pair, np.ndarray] = {}
        for i in range(len(shape)):
            if all(i in x.own for x in parts):
                own[i] = np.asarray(np.any([x.own[i] for x in parts], axis=0))
            for j in range(i + 1, len(shape)):
                if all(x.related(i, j) for x in parts):
                    pairs[i, j] = np.asarray(np.any([x.of(i, j) for x in parts], axis=0))
        return Where.settled(shape, own, pairs)


def of_array(a: np.ndarray) -> Where:
    """Where an array of numbers is different from 0."""
    a = a != 0
    if a.all():
        return Where(a.shape)
    axes = range(a.ndim)
    own = {i: np.asarray(a.any(axis=tuple([k for k in axes if k != i]))) for i in axes}
    pairs = {
        (i, j): np.asarray(a.any(axis=tuple([k for k in axes if k not in (i, j)]))) for i in axes for j in axes if i < j
    }
    return Where.settled(a.shape, own, pairs)
