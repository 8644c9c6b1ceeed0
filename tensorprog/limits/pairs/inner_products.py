"""The inner products of data that compiled kernels are evaluated on: of arrays, or given as matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language.data import VALUES, ArrayData
from tensorprog.language.given import real_array
from tensorprog.language.node import Node
from tensorprog.language.rearranged import joined, transformed
from tensorprog.limits.gauss.correlations import nearly_equal
from tensorprog.limits.pairs.layout import Block

__all__ = ["GramProducts", "Products"]

NEAR = 1e-6
"""Directions that floats may not tell apart are closer than this along another one, relatively."""
CLOSE = 4
"""Pairs of examples that are looked at because they are close."""


class Products:
    """The inner products of two batches of data, block by block.

    Args:
        first: Name of an Input to its array (examples, *axes, features).
        second: The same of the second batch; None for the first one again.
        dtype: float64 or float32.
    """

    def __init__(self, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray] | None, dtype: Any) -> None:
        self.same = second is None
        self.arrays = first, first if second is None else second
        self.counts = tuple([len(next(iter(a.values()))) for a in self.arrays])
        self.dtype = dtype
        self._views: dict[Any, np.ndarray] = {}
        self._alone: dict[Any, np.ndarray] = {}
        self._marks: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def duplicates(self) -> list[tuple[int, int, int]]:
        """Pairs (i, j, sign) with x_i = sign x'_j, for data without axes: their products are the squares, to the last bit."""
        if len(self.arrays[0]) != 1 or next(iter(self.arrays[0].values())).ndim != 2:
            return []
        (name,), (a,), (b,) = self.arrays[0], self.arrays[0].values(), self.arrays[1].values()
        return _equal_rows(a, b, [self._projected(name, slot)[0].reshape(-1) for slot in range(1 if self.same else 2)])

    def _projected(self, name: str, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """The sizes of one random coordinate, and the squared lengths, of all positions of an input: (examples, positions).

        vecdot rather than @: all rows in one way, so that equal rows have equal marks, and no threads for so little.
        """
        key = name, 0 if self.same else slot
        if key not in self._marks:
            a = _rows(self.arrays[slot][name])
            direction = _direction(a.shape[-1])
            with np.errstate(all="ignore"):
                found = [x.reshape(len(a), -1) for x in (np.abs(np.vecdot(a, direction)), np.vecdot(a, a))]
            self._marks[key] = found[0], found[1]
        return self._marks[key]

    def at(self, rows: Sequence[int], columns: Sequence[int] | None) -> Products:
        """Those of some examples with some of the second batch; of the same ones, each with itself, without columns."""
        if self.same and columns is None and len(rows) == self.counts[0]:  # all, in order
            return self
        first = {k: a[np.asarray(rows)] for k, a in self.arrays[0].items()}
        second = None if columns is None else {k: a[np.asarray(columns)] for k, a in self.arrays[1].items()}
        return Products(first, second, self.dtype)

    @property
    def alike(self) -> bool:
        """Have the examples of both batches one shape?"""
        return all(a.shape[1:] == self.arrays[1][k].shape[1:] for k, a in self.arrays[0].items())

    def turned(self) -> Products:
        """Those of the second batch with the first."""
        return Products(self.arrays[1], self.arrays[0], self.dtype)

    def sizes(self, slot: int) -> np.ndarray:
        """The squared length of every example of a batch, of its longest position."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = [
                self._projected(k, slot)[1].max(1, initial=0.0) / _rows(a).shape[-1]
                for k, a in sorted(self.arrays[slot].items())
            ]
        return np.asarray(sum(found))

    def directions(self, slot: int, rows: Sequence[int]) -> np.ndarray:
        """Examples as vectors of length 1, whatever their axes."""
        flat = [a[np.asarray(rows)].reshape(len(rows), -1).astype(float) for _, a in sorted(self.arrays[slot].items())]
        joined = np.concatenate(flat, 1)
        with np.errstate(all="ignore"):
            joined /= np.abs(joined).max(1, initial=0.0)[:, None]
            return np.nan_to_num(joined / np.sqrt(np.vecdot(joined, joined))[:, None])

    def correlations(self, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
        """Cosines between some examples; of those of two shapes, of as much as both have."""
        one, two = self.directions(0, rows), self.directions(1, columns)
        both = min(one.shape[1], two.shape[1])
        return np.asarray(one[:, :both] @ two[:, :both].T)

    def close(self) -> list[tuple[int, int]]:
        """Pairs of examples that are nearly, not quite, alike somewhere: neighbours in a random projection of all positions."""
        found: set[tuple[int, int]] = set()
        for name in sorted(self.arrays[0]):
            sides = [_rows(a[name]) for a in (self.arrays[:1] if self.same else self.arrays)]
            if len({a.shape[-1] for a in sides}) > 1:  # coefficients of examples of two shapes
                continue
            marks, owners = [], []
            with np.errstate(all="ignore"):
                for slot in range(len(sides)):
                    along, length = self._projected(name, slot)
                    marks.append((along / np.sqrt(length)).reshape(-1))
                    owners.append(
                        np.stack([np.full(along.size, slot), np.arange(along.size) // max(along.shape[1], 1)])
                    )
            mark, owner = np.concatenate(marks), np.concatenate(owners, 1)
            order = np.argsort(mark, kind="stable")
            mark, owner = mark[order], owner[:, order]
            gap = np.diff(mark)
            usable = (gap > 0) & (owner[:, 1:] != owner[:, :-1]).any(0)
            if not self.same:
                usable &= owner[0, 1:] != owner[0, :-1]
            places = np.flatnonzero(usable)
            for k in places[np.argsort(gap[places], kind="stable")[:CLOSE]]:
                (slot, i), (_, j) = owner[:, k].tolist(), owner[:, k + 1].tolist()
                found.add((j, i) if slot else (i, j))
        return sorted(found)

    @cached_property
    def positions(self) -> tuple[bool, bool]:
        """Are there positions in an example that are nearly, not quite, equal or opposite? Are there equal or opposite ones?"""
        equal = False
        for slot, side in enumerate(self.arrays[: 1 if self.same else 2]):
            for name, a in side.items():
                if a.ndim < 3:
                    continue
                along, length = self._projected(name, slot)
                equal |= bool((np.count_nonzero(length == 0, axis=1) > 1).any())
                with np.errstate(all="ignore"):  # those that are 0 have no direction
                    mark = np.sort(np.abs(along / np.sqrt(length)), axis=1)
                for i in np.flatnonzero((np.diff(mark) < NEAR * np.sqrt(a.shape[-1])).any(axis=1)):
                    rows = a[i].reshape(-1, a.shape[-1])
                    rows = rows[rows.any(axis=1)]
                    if nearly_equal(rows):
                        return True, equal
                    equal = equal or len(np.unique(np.concatenate([rows, -rows]), axis=0)) < 2 * len(rows)
        return False, equal

    def equal(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Which of some pairs of examples are equal or opposite, to the last bit: correlations of 1 that are no rounding."""
        found = np.ones(len(rows), bool)
        for name in self.arrays[0]:
            a, b = self.arrays[0][name], self.arrays[1][name]
            if a.shape[1:] != b.shape[1:]:
                return np.zeros_like(found)
            one, other = a[rows].reshape(len(rows), -1), b[columns].reshape(len(rows), -1)
            same = (one == other).all(1)
            if len(self.arrays[0]) == 1 and a.ndim == 2:  # where products are the squares, see `block`
                same |= (one == -other).all(1)
            found &= same
        return found

    def block(self, data: Sequence[Node], rows: slice, columns: slice) -> Block:
        """The arrays of the `data` nodes for some rows and columns."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused at the end
            products = {x.attr: self._array(x, rows, columns) for x in data}
        n, m = len(range(self.counts[0])[rows]), len(range(self.counts[1])[columns])
        return Block(products, n, m, self.same and rows == columns)

    def lanes(self, data: Sequence[Node], rows: Sequence[int], columns: Sequence[int]) -> dict[Any, np.ndarray]:
        """The arrays of the `data` nodes for pairs of examples, one of each batch: (*axes, pairs).

        Every product is computed as that of an example with itself: equal examples have a correlation of 1, to the last bit.
        """
        places = np.asarray(rows, dtype=int), np.asarray(columns, dtype=int)
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused at the end
            return {x.attr: self._along(x, places) for x in data}

    def _along(self, x: Node, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        name, transform, other, change, slot, slot2, labels = x.attr
        if slot == slot2 or isinstance(change, ArrayData) or change == VALUES:
            return self._array(x, slice(None), slice(None))[..., places[slot]]
        if labels is not None:
            return self._tied(x, *places, paired=True)
        a, b = [
            self._view(*given)[k] for given, k in (((name, transform, 0), places[0]), ((other, change, 1), places[1]))
        ]
        value = np.matmul(a.reshape(len(a), -1, a.shape[-1]), b.reshape(len(b), -1, b.shape[-1]).swapaxes(1, 2))
        value = (value / a.shape[-1]).reshape(len(a), *a.shape[1:-1], *b.shape[1:-1])
        return np.ascontiguousarray(np.moveaxis(value, 0, -1))

    def _array(self, x: Node, rows: slice, columns: slice) -> np.ndarray:
        name, transform, other, change, slot, slot2, labels = x.attr
        if change == VALUES:
            return self._values(x, columns if slot else rows)
        if labels is not None:
            if slot != slot2 and not isinstance(change, ArrayData):
                return self._tied(x, rows, columns)
            if x.attr not in self._alone:
                self._alone[x.attr] = self._tied(x, slice(None), slice(None))
            return np.ascontiguousarray(self._alone[x.attr][..., columns if slot else rows])
        a = self._view(name, transform, slot)
        value: Any
        own = columns if slot else rows
        if isinstance(change, ArrayData):  # fixed data: positions
            b = change.rows.astype(self.dtype)
            value = a.reshape(-1, a.shape[-1]) @ b.T / a.shape[-1]
            value = value.reshape(*a.shape[:-1], *change.shape)
            return _moved(value, 0, own, slot)
        if slot == slot2:
            key = (name, transform, other, change, slot)
            if key not in self._alone:
                b = self._view(other, change, slot2)
                rows_a, rows_b = a.reshape(len(a), -1, a.shape[-1]), b.reshape(len(b), -1, b.shape[-1])
                value = np.matmul(rows_a, rows_b.swapaxes(1, 2))
                self._alone[key] = (value / a.shape[-1]).reshape(len(a), *a.shape[1:-1], *b.shape[1:-1])
            return _moved(self._alone[key], 0, own, slot)
        b = self._view(other, change, 1)
        left, right = a[rows], b[columns]
        axes = (*a.shape[1:-1], *b.shape[1:-1])
        flat_a, flat_b = left.reshape(-1, a.shape[-1]), right.reshape(-1, a.shape[-1])
        value = flat_a @ (flat_a.T if self.same and rows == columns and a is b else flat_b.T)
        value /= a.shape[-1]
        if not axes:
            self._mend(value, rows, columns, x)
            return value
        p, q = prod(a.shape[1:-1]), prod(b.shape[1:-1])
        value = value.reshape(len(left), p, len(right), q).transpose(1, 3, 0, 2)
        return np.ascontiguousarray(value).reshape(*axes, len(left), len(right))

    def _values(self, x: Node, own: slice) -> np.ndarray:
        """Coefficients: the input's numbers themselves."""
        name, slot, shown = x.attr.name, x.attr.slot, x.attr.labels
        a = self.arrays[slot][name][own]
        letters = [chr(97 + k) for k in (range(a.ndim - 1) if shown is None else shown)]
        out = "".join(dict.fromkeys(letters))
        return np.ascontiguousarray(np.einsum(f"X{''.join(letters)}->{out}X", a), self.dtype)

    def _tied(self, x: Node, rows: Any, columns: Any, paired: bool = False) -> np.ndarray:
        """Inner products of some positions with equal ones; the attribute's last entry labels the axes.

        Args:
            x: The node.
            rows: Which examples of the first batch.
            columns: Of the second.
            paired: Are these pairs of examples, rather than all of the one with all of the other?
        """
        name, transform, other, change, slot, slot2, labels = x.attr
        a = self._view(name, transform, slot)[columns if slot else rows]
        letters = [chr(97 + k) for k in labels]
        n = a.ndim - 2
        out = "".join(dict.fromkeys(letters))
        if isinstance(change, ArrayData):
            b = change.array.astype(self.dtype)
            subscripts = f"X{''.join(letters[:n])}Z,{''.join(letters[n:])}Z->{out}X"
        else:
            b = self._view(other, change, slot2)[columns if slot2 else rows]
            one = paired or slot == slot2
            if not one and len(set(letters[:n])) == n and letters[:n] == letters[n:]:  # position by position
                left, right = np.moveaxis(a, 0, -2), np.moveaxis(b, 0, -2).swapaxes(-1, -2)
                return np.matmul(left, right) / a.shape[-1]
            second, last = ("X", "X") if one else ("Y", "XY")
            subscripts = f"X{''.join(letters[:n])}Z,{second}{''.join(letters[n:])}Z->{out}{last}"
        return np.ascontiguousarray(np.einsum(subscripts, a, b, optimize=True) / a.shape[-1])

    def _mend(self, value: np.ndarray, rows: slice, columns: slice, x: Node) -> None:
        if not self.duplicates:
            return
        name, transform, other, change, *_ = x.attr
        if (name, transform) != (other, change) or any(t[0] == "concat" for t in transform):
            return
        a = self._view(name, transform, 0)
        ahead, up = range(self.counts[0])[rows], range(self.counts[1])[columns]
        for i, j, sign in self.duplicates:
            if i in ahead and j in up:
                value[ahead.index(i), up.index(j)] = sign * (np.vecdot(a[i], a[i]) / a.shape[-1])

    def _view(self, name: str, transform: Any, slot: int) -> np.ndarray:
        key = (name, transform, 0 if self.same else slot)
        if key not in self._views:
            array = self.arrays[slot][name]
            for t in transform:
                if t[0] == "concat":
                    others = [x if isinstance(x, ArrayData) else self._view(x[0], x[1], slot) for x in (*t[2], *t[3])]
                    array = joined(array, t, others)
                else:
                    array = transformed(array, 1, t)
            self._views[key] = np.ascontiguousarray(array, self.dtype)
        return self._views[key]


def _rows(a: np.ndarray) -> np.ndarray:
    """An input with a last axis of features, if only one."""
    return (a if a.ndim > 1 else a[:, None]).astype(float, copy=False)


@lru_cache(maxsize=8)
def _direction(features: int) -> np.ndarray:
    """A random direction, the same in every call."""
    return np.random.default_rng(0).standard_normal(features)


def _moved(value: np.ndarray, lead: int, own: slice, slot: int) -> np.ndarray:
    """(examples, *axes) -> (*axes, rows) or, of the second batch, (*axes, columns)."""
    if value.ndim == 1:
        return value[own]
    return np.ascontiguousarray(np.moveaxis(value[own], lead, -1))


_GRAM = (
    "give X @ X.T / d, or (X1 @ X1.T / d, X1 @ X2.T / d, X2 @ X2.T / d), of the first and last the diagonals at least"
)


class GramProducts:
    """Inner products that are given.

    Args:
        gram: (N, N), or (K11, K12, K22) of two batches; entries x.x'/d. K11 and K22 may be their diagonals.
        name: Of the Input.
        dtype: float64 or float32.

    Raises:
        TensorProgramError: matrices that do not fit together, or are not symmetric with a diagonal of at least 0.
    """

    def __init__(self, gram: Any, name: str, dtype: Any) -> None:
        try:
            several = isinstance(gram, (tuple, list))
            three = several and len(gram) == 3 and np.ndim(gram[1]) == 2
            given = list(gram) if three or (several and all(np.ndim(g) == 2 for g in gram)) else [gram]
            if len(given) not in (1, 3):
                raise TypeError
        except (TypeError, ValueError):
            raise TensorProgramError("gram= is no matrix of numbers, nor three of them", fix=_GRAM) from None
        self.same = len(given) == 1
        k11, k12, k22 = [real_array(g, "gram=", _GRAM) for g in (given * 3 if self.same else given)]
        shapes = (len(k11), len(k22)) if k11.ndim and k22.ndim else ()
        fits = k12.ndim == 2 and k12.shape == shapes and k12.size > 0
        for k in (k11, k22):
            if not (fits and k.shape == k.T.shape and (k.ndim == 2 or (k.ndim == 1 and not self.same))):
                raise TensorProgramError(
                    f"gram= with the shapes {k11.shape}" + ("" if self.same else f", {k12.shape}, {k22.shape}"),
                    why="it holds x.x'/d for all pairs of examples",
                    fix=_GRAM,
                )
        tolerance = 1e-10 if all(getattr(g, "dtype", float) != np.float32 for g in given) else 1e-5
        alone = [k if k.ndim == 1 else np.diag(k) for k in (k11, k22)]
        with np.errstate(all="ignore"):
            one, two = [np.sqrt(d) for d in alone]  # nan where it is no norm
            whole = [(k, d) for k, d in ((k11, one), (k22, two)) if k.ndim == 2]
            uneven = ("it is symmetric" for k, d in whole if not (np.abs(k - k.T) <= tolerance * np.outer(d, d)).all())
            wrong = (
                "x.x' <= |x| |x'|: no examples have these inner products"
                for k, a, b in (*[(k, d, d) for k, d in whole], (k12, one, two))
                if not (np.abs(k) <= (1 + tolerance) * np.outer(a, b)).all()
            )
            why = next(uneven, None) or next(wrong, None)
        if why:
            raise TensorProgramError("gram= holds no inner products", why=why, fix=_GRAM)
        k12 = k12.astype(dtype)
        self.products, self.alone = (k12 + k12.T) / 2 if self.same else k12, tuple([d.astype(dtype) for d in alone])
        self.counts, self.dtype = (len(k11), len(k22)), dtype
        self.positions = False, False  # there are none
        self.duplicates: list[tuple[int, int, int]] = []  # not known: a product is as good as its rounding

    def at(self, rows: Sequence[int], columns: Sequence[int] | None) -> GramProducts:
        """As that of `Products`."""
        i, j = np.asarray(rows), np.asarray(rows if columns is None else columns)
        found = copy(self)
        found.same = columns is None
        alone = columns is None and not self.same  # no products with others are known
        found.products = np.diag(self.alone[0][i]) if alone else self.products[np.ix_(i, j)]
        found.alone = (self.alone[0][i], self.alone[0 if columns is None else 1][j])
        found.counts = (len(i), len(j))
        return found

    @property
    def alike(self) -> bool:
        """As that of `Products`: they have no axes."""
        return True

    def turned(self) -> GramProducts:
        """Those of the second batch with the first."""
        found = copy(self)
        found.products, found.alone, found.counts = self.products.T, self.alone[::-1], self.counts[::-1]
        return found

    def sizes(self, slot: int) -> np.ndarray:
        """As that of `Products`."""
        return self.alone[slot].astype(float)

    def correlations(self, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
        """As that of `Products`."""
        i, j = np.asarray(rows), np.asarray(columns)
        one, two = [np.sqrt(self.alone[slot][k].astype(float)) for slot, k in enumerate((i, j))]
        with np.errstate(all="ignore"):
            return np.asarray(np.nan_to_num(self.products[np.ix_(i, j)] / one[:, None] / two))

    def close(self) -> list[tuple[int, int]]:
        """As that of `Products`: among the first examples."""
        n, m = [min(k, 2**9) for k in self.counts]
        found = np.abs(self.correlations(range(n), range(m)))
        if self.same:
            np.fill_diagonal(found, 0.0)
        order = np.argsort(-found, axis=None)[:CLOSE]
        return [(int(k) // m, int(k) % m) for k in order]

    def equal(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """As that of `Products`: x.x' = x.x = x'.x' is what equal examples have, and no others."""
        one, two = self.alone[0][rows], self.alone[1][columns]
        return np.asarray((one == two) & (np.abs(self.products[rows, columns]) == one))

    def block(self, data: Sequence[Node], rows: slice, columns: slice) -> Block:
        """As that of `Products`."""
        products = {}
        for x in data:
            slots = (x.attr.slot, x.attr.slot2)
            own = self.products[rows, columns] if slots == (0, 1) else self.alone[slots[0]][(rows, columns)[slots[0]]]
            products[x.attr] = np.ascontiguousarray(own)
        n, m = len(range(self.counts[0])[rows]), len(range(self.counts[1])[columns])
        return Block(products, n, m, self.same and rows == columns)

    def lanes(self, data: Sequence[Node], rows: Sequence[int], columns: Sequence[int]) -> dict[Any, np.ndarray]:
        """As that of `Products`."""
        places = np.asarray(rows, dtype=int), np.asarray(columns, dtype=int)
        slots = {x.attr: (x.attr.slot, x.attr.slot2) for x in data}
        return {k: self.products[places] if s == (0, 1) else self.alone[s[0]][places[s[0]]] for k, s in slots.items()}


def _equal_rows(a: np.ndarray, b: np.ndarray, projected: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
    """Pairs (i, j, sign) with a[i] = sign b[j] exactly: candidates by one random projection, sorted; of one batch if that is."""
    same, marks = len(projected) == 1, np.concatenate(projected)
    order = np.argsort(marks, kind="stable")
    near = np.diff(marks[order]) <= 1e-10 * marks[order][1:]
    found: list[tuple[int, int, int]] = []
    start = 0
    for stop in [*(np.flatnonzero(~near) + 1).tolist(), len(order)] if near.any() else []:
        group = order[start:stop].tolist()
        start = stop
        if len(group) < 2:
            continue
        rows = [i for i in group if i < len(a)]
        columns = rows if same else [i - len(a) for i in group if i >= len(a)]
        for i in rows:
            for j in columns:
                if np.array_equal(a[i], b[j]):
                    found.append((i, j, 1))
                elif np.array_equal(a[i], -b[j]):
                    found.append((i, j, -1))
        if len(found) > 50 * (len(a) + len(b)):
            return []
    return found
